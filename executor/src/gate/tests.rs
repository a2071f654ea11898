//! A hot lock, step by step.

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Poll, Wake, Waker};

use super::{Gate, HEAT, HOT, NOWHERE, Place, Relaxed, Waiter};

const HOME: u32 = 1;
const ELSEWHERE: u32 = 2;

struct At {
    number: u32,
    gone_home: Cell<u32>,
}

impl At {
    fn new(number: u32) -> Self {
        At { number, gone_home: Cell::new(0) }
    }
}

impl Place for At {
    fn number(&self) -> u32 {
        self.number
    }

    fn task_goes_home(&self) {
        self.gone_home.set(self.gone_home.get() + 1);
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

fn hot() -> Gate {
    let gate = Gate::new();
    gate.home.store(HOME, Relaxed);
    gate.heat.store(HEAT, Relaxed);
    gate.state.store(HOT, Relaxed);
    gate
}

/// Polls once from `place`, and goes away.
fn takes(gate: &Gate, place: u32) -> bool {
    let waiter = pin!(Waiter::new());
    // SAFETY: the waiter is pinned here until it has left.
    unsafe {
        let poll = gate.poll_acquire(&waiter, Waker::noop(), &At::new(place));
        gate.leave(&waiter);
        poll == Poll::Ready(())
    }
}

/// Its task is woken by who lets go, so at home, and takes the lock there.
#[test]
fn r04_who_comes_from_elsewhere_is_woken_at_home() {
    let gate = hot();
    assert!(takes(&gate, HOME));
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    let elsewhere = At::new(ELSEWHERE);
    let waiter = pin!(Waiter::new());
    // SAFETY: the waiter is pinned here, and has the lock at the end.
    unsafe {
        assert!(gate.poll_acquire(&waiter, &waker, &elsewhere).is_pending());
        assert_eq!(elsewhere.gone_home.get(), 1);
        assert_eq!(gate.heat.load(Relaxed), HEAT, "they meet there still");
        gate.release();
        assert_eq!(wakes.0.load(Relaxed), 1);
        assert!(gate.poll_acquire(&waiter, &waker, &At::new(HOME)).is_ready());
    }
    gate.release();
}

/// Nobody waits for a holder that does not come.
#[test]
fn r04_a_hot_lock_that_is_free_is_taken_from_anywhere() {
    let gate = hot();
    assert!(takes(&gate, ELSEWHERE));
    gate.release();
    assert_eq!(gate.home.load(Relaxed), ELSEWHERE);
    assert_eq!(gate.heat.load(Relaxed), (HEAT - 1) / 2);
    // Whose task runs on no processor cannot be woken on one.
    assert!(takes(&gate, NOWHERE));
    gate.release();
    assert!(gate.try_acquire());
    gate.release();
}

#[test]
fn r06_a_hot_lock_cools_down() {
    let gate = hot();
    for _ in 0..=HEAT {
        assert_eq!(gate.state.load(Relaxed), HOT);
        assert!(takes(&gate, HOME));
        gate.release();
    }
    assert_eq!(gate.state.load(Relaxed), 0);
}
