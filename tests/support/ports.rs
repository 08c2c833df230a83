//! Ports that no other test uses, also not one of another test process.
//!
//! The server binds with SO_REUSEPORT: two servers given one port would both start and share its connections. So a port
//! is leased by a locked file for as long as its server may come back, and taken from below the ephemeral range, where
//! no outgoing connection lands on it.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 18_000;
const COUNT: u16 = 14_000;

/// A port on 127.0.0.1 that is the holder's until this is dropped.
pub(crate) struct Lease {
    port: u16,
    _lock: File,
}

impl Lease {
    /// Takes a free port.
    pub(crate) fn take() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let directory = std::env::temp_dir().join("tidegate-test-ports");
        std::fs::create_dir_all(&directory).expect("the directory of port locks can be made");
        // Processes begin at different places, so that they rarely try each other's locks.
        let origin = (std::process::id() % u32::from(COUNT)) as u16;
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
            let port = FIRST + (origin + step) % COUNT;
            let Ok(lock) =
                OpenOptions::new().create(true).truncate(false).write(true).open(directory.join(port.to_string()))
            else {
                continue;
            };
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Self { port, _lock: lock };
            }
        }
        panic!("none of the {COUNT} test ports is free");
    }

    /// The address to listen on.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}
