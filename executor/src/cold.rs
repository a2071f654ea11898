//! Waits that block a thread (`send_blocking`, `blocking_lock` and the like): known to be long, and rare. On a thread
//! that is in a runtime it is a `block_on`, which gives the processor up while it waits; any other thread sleeps by
//! itself, and no runtime is started for it.
//!
//! 1. The flag is set before the event is notified, and looked at again after the thread has begun to listen: one of
//!    the two sees the other, so no wake is lost.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use event_listener::{Event, Listener};

use crate::context;
use crate::runtime;
use crate::sys::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Release},
};

/// Waits for `future` on this thread.
#[track_caller]
pub(crate) fn wait_for<F: Future>(future: F) -> F::Output {
    match context::runtime() {
        Some(runtime) if runtime.is_there() && runtime.is_of_this_process() => runtime::block_on_in(runtime, future),
        _ => sleep_for(future),
    }
}

/// A thread of no runtime, and its waker.
struct Sleeper {
    woken: AtomicBool,
    event: Event,
}

impl Sleeper {
    fn take_wake(&self) -> bool {
        // AcqRel: pairs with the Release in `wake_by_ref`: the next poll sees what the waker did before.
        self.woken.swap(false, AcqRel)
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Release: pairs with the AcqRel in `take_wake`.
        self.woken.store(true, Release);
        self.event.notify(1);
    }
}

fn sleep_for<F: Future>(future: F) -> F::Output {
    let sleeper = Arc::new(Sleeper { woken: AtomicBool::new(false), event: Event::new() });
    let waker = Waker::from(sleeper.clone());
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        while !sleeper.take_wake() {
            let listener = sleeper.event.listen();
            // The second look (invariant 1).
            if sleeper.take_wake() {
                break;
            }
            listener.wait();
        }
    }
}
