//! Models of the global queue's length, which is read without its locks.

use std::ptr::NonNull;
use std::sync::Arc;

use loom::thread;

use super::Inject;
use crate::runq::{Ring, Unit};
use crate::sys::atomic::{AtomicBool, Ordering::Relaxed};
use crate::sys::{idle_fence, submit_fence};

fn unit() -> Unit {
    Unit::new(NonNull::<u64>::dangling().cast())
}

/// One of two units is taken, after both have moved to the front: whoever looks meanwhile sees the other one.
#[test]
fn r01_units_that_move_to_the_front_are_never_out_of_sight() {
    loom::model(|| {
        let inject = Arc::new(Inject::new());
        inject.push_batch([unit(), unit()].into_iter());
        let taker = {
            let inject = inject.clone();
            thread::spawn(move || inject.pop().is_some())
        };
        assert!(!inject.is_empty());
        assert!(taker.join().unwrap());
        assert_eq!(inject.len(), 1);
    });
}

/// Invariant 2, with a taker that moves what is pushed to the front: a push whose fence came first is seen, unless its
/// unit was taken.
#[test]
fn r01_a_push_is_seen_after_the_fences_while_a_batch_is_taken() {
    loom::model(|| {
        let inject = Arc::new(Inject::new());
        let idle = Arc::new(AtomicBool::new(false));
        inject.push(unit());
        let taker = {
            let inject = inject.clone();
            thread::spawn(move || {
                let ring = Ring::<2>::new();
                // SAFETY: the ring is this thread's.
                let first = unsafe { inject.pop_batch(1, 1, &ring) };
                u32::from(first.is_some())
            })
        };
        let submitter = {
            let (inject, idle) = (inject.clone(), idle.clone());
            thread::spawn(move || {
                inject.push(unit());
                submit_fence();
                idle.load(Relaxed)
            })
        };
        idle.store(true, Relaxed);
        idle_fence();
        let seen = !inject.is_empty();
        let (taken, told) = (taker.join().unwrap(), submitter.join().unwrap());
        assert_eq!(taken, 1);
        assert!(seen || told, "a unit is queued, and neither side knows of the other");
    });
}
