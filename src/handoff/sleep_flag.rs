//! The protocol by which a sleeper and those who wake it never miss each other. Any thread; no system calls.
//!
//! The sleeper stores the flag, fences, looks at its rings once more, sleeps. The waker pushes, fences, looks at the flag.
//! The two SeqCst fences make one of them see the other (the store-buffer litmus test): either the sleeper's second look
//! finds the push, or the waker finds the flag.
//!
//! The atomic is a parameter so that the model checker runs this very code (`tests/handoff_model.rs`).

use std::sync::atomic::{AtomicBool, Ordering};

/// What the protocol needs of an atomic boolean.
pub trait Flag {
    /// As `AtomicBool::store`.
    fn store(&self, value: bool, order: Ordering);
    /// As `AtomicBool::load`.
    fn load(&self, order: Ordering) -> bool;
    /// As `AtomicBool::swap`.
    fn swap(&self, value: bool, order: Ordering) -> bool;
    /// As `std::sync::atomic::fence`.
    fn fence(order: Ordering);
}

impl Flag for AtomicBool {
    fn store(&self, value: bool, order: Ordering) {
        Self::store(self, value, order);
    }

    fn load(&self, order: Ordering) -> bool {
        Self::load(self, order)
    }

    fn swap(&self, value: bool, order: Ordering) -> bool {
        Self::swap(self, value, order)
    }

    fn fence(order: Ordering) {
        std::sync::atomic::fence(order);
    }
}

/// Whether one thread sleeps.
#[derive(Debug, Default)]
pub struct SleepFlag<F = AtomicBool> {
    sleeping: F,
}

impl<F: Flag> SleepFlag<F> {
    /// The flag of a thread that is awake: `sleeping` is false.
    #[must_use]
    pub fn new(sleeping: F) -> Self {
        Self { sleeping }
    }

    /// Says that the owner is about to sleep. It must look at its rings once more after this, and sleep only if they are
    /// empty; [`SleepFlag::disarm`] when it does not sleep or wakes for another reason.
    pub fn arm(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        // Pairs with the fence in `must_wake`: the flag is visible before the rings are looked at again.
        F::fence(Ordering::SeqCst);
    }

    /// Says that the owner is awake.
    pub fn disarm(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// After a push: whether the caller is the one who must wake the owner. True once for each time the owner sleeps.
    #[must_use]
    pub fn must_wake(&self) -> bool {
        // Pairs with the fence in `arm`: the push is visible before the flag is looked at.
        F::fence(Ordering::SeqCst);
        // Two steps, because the look is free where the owner is awake and the swap takes the line from it.
        self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed)
    }
}
