//! x
#![deny(unsafe_code)]
#![allow(missing_docs, dead_code)]
pub mod event;
pub mod quantity;
pub mod random;
pub mod request;
pub mod response;
pub mod schedule;
mod sys;
