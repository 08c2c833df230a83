//! The hand-off's ordering under a model checker: every interleaving, and every value a relaxed load may return.
//!
//! The code under test is the server's own [`SleepFlag`]; the rings and the eventfd around it are modelled, because the
//! checker knows no system calls: a ring is its tail index (stored with Release, as rtrb stores it), an eventfd is a counter.

use std::sync::atomic::Ordering;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, fence};
use loom::thread;
use tidegate::handoff::{Flag, SleepFlag};

/// The checker's atomic in the role of the real one.
struct ModelFlag(AtomicBool);

/// The same without its fences: what the fences are for.
struct FencelessFlag(AtomicBool);

impl Flag for ModelFlag {
    fn store(&self, value: bool, order: Ordering) {
        self.0.store(value, order);
    }

    fn load(&self, order: Ordering) -> bool {
        self.0.load(order)
    }

    fn swap(&self, value: bool, order: Ordering) -> bool {
        self.0.swap(value, order)
    }

    fn fence(order: Ordering) {
        fence(order);
    }
}

impl Flag for FencelessFlag {
    fn store(&self, value: bool, order: Ordering) {
        self.0.store(value, order);
    }

    fn load(&self, order: Ordering) -> bool {
        self.0.load(order)
    }

    fn swap(&self, value: bool, order: Ordering) -> bool {
        self.0.swap(value, order)
    }

    fn fence(_order: Ordering) {}
}

/// A flag, one ring for each waker, and the eventfd.
struct Model<F> {
    flag: SleepFlag<F>,
    tails: [AtomicUsize; 2],
    wake_ups: AtomicUsize,
}

impl<F: Flag> Model<F> {
    fn new(flag: F) -> Self {
        Self {
            flag: SleepFlag::new(flag),
            tails: [AtomicUsize::new(0), AtomicUsize::new(0)],
            wake_ups: AtomicUsize::new(0),
        }
    }

    fn push_and_ring(&self, ring: usize) {
        self.tails[ring].store(1, Ordering::Release);
        if self.flag.must_wake() {
            self.wake_ups.fetch_add(1, Ordering::Release);
        }
    }

    fn has_work(&self) -> bool {
        self.tails.iter().any(|tail| tail.load(Ordering::Acquire) > 0)
    }
}

/// Runs `wakers` threads that push once each, against an owner that would sleep; it must find work or be woken.
fn nobody_sleeps_over_a_push<F: Flag + Send + Sync + 'static>(
    wakers: usize,
    flag: impl Fn() -> F + Send + Sync + 'static,
) {
    loom::model(move || {
        let model = Arc::new(Model::new(flag()));
        let threads: Vec<_> = (0..wakers)
            .map(|ring| {
                let model = Arc::clone(&model);
                thread::spawn(move || model.push_and_ring(ring))
            })
            .collect();
        model.flag.arm();
        let stays_awake = model.has_work();
        if stays_awake {
            model.flag.disarm();
        }
        for thread in threads {
            thread.join().unwrap();
        }
        // A sleeper is woken by the count alone: it would never look at its rings again.
        let woken = model.wake_ups.load(Ordering::Acquire);
        assert!(stays_awake || woken > 0, "asleep over a full ring");
        // One wake-up for each time it sleeps, however many ring.
        assert!(woken <= 1, "woken {woken} times");
    });
}

#[test]
fn a_sleeper_is_never_left_with_a_full_ring() {
    nobody_sleeps_over_a_push(1, || ModelFlag(AtomicBool::new(false)));
    nobody_sleeps_over_a_push(2, || ModelFlag(AtomicBool::new(false)));
}

#[test]
#[should_panic(expected = "asleep over a full ring")]
fn without_its_fences_it_would_be() {
    nobody_sleeps_over_a_push(1, || FencelessFlag(AtomicBool::new(false)));
}
