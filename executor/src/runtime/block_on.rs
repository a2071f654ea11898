//! `block_on`: a thread that polls a future itself. It is a machine like any other: it holds a processor while it polls and
//! gives it up while it waits.
//!
//! | the thread holds          | while it polls                    | while it waits  | at the end                     |
//! |---------------------------|-----------------------------------|-----------------|--------------------------------|
//! | no processor              | one it acquires                   | none            | gives it up                    |
//! | one of this runtime       | that one, later any               | none            | keeps it: its task goes on     |
//! | one of another runtime    | gives it up, acquires one of ours | none            | gives ours up, acquires theirs |
//!
//! When the runtime closes there are no processors to be had; the future is then polled without one.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use super::{FORKED, SHUT_DOWN, current};
use crate::context;
use crate::machine::Machine;
use crate::park::Parker;
use crate::processor::Processor;
use crate::sched::{RuntimeRef, Sched};
use crate::sys::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Acquire},
};

/// Runs `future` to its end on this thread, on the runtime the thread is in, else on the default one, which is started if
/// need be.
///
/// It may be called anywhere: in `main`, in a test, inside a task. The thread counts as one of the `procs` that run while
/// it polls, and gives way while it waits.
///
/// # Panics
///
/// If `future` does; if the runtime cannot be built, is shut down, or belongs to the parent process.
///
/// # Examples
///
/// ```
/// assert_eq!(gmp::block_on(async { 6 * 7 }), 42);
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    match current() {
        Ok(runtime) => on(runtime, future),
        Err(e) => panic!("`block_on` has no runtime: {e}"),
    }
}

/// Wakes the thread in `block_on`. It outlives the call if somebody keeps it.
struct Signal {
    woken: AtomicBool,
    parker: Parker,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // AcqRel: pairs with the swap in `on`; the next poll sees what the waker did before.
        if !self.woken.swap(true, AcqRel) {
            self.parker.unpark();
        }
    }
}

/// What the thread was before, and is again afterwards, also if the future panics.
struct Blocking {
    sched: &'static Sched,
    machine: &'static Machine,
    before: context::Context,
    /// The thread came with a processor of this runtime.
    nested: bool,
}

impl Blocking {
    fn new(runtime: RuntimeRef) -> Self {
        let sched = runtime.sched;
        let before = context::current();
        let nested = context::processor_of(sched).is_some();
        if let (false, Some(other)) = (nested, before.processor) {
            other.sched.give_up(other);
        }
        let processor = before.processor.filter(|_| nested);
        // Inside another poll nothing is refused: this thread's own loop would only ask again.
        context::set(context::Context { runtime: Some(runtime), processor, unconstrained: nested || before.unconstrained });
        Blocking { sched, machine: sched.new_machine(), before, nested }
    }

    fn processor(&self) -> Option<&'static Processor> {
        context::processor_of(self.sched)
    }

    /// A processor for the next poll.
    fn acquire(&self) {
        if self.processor().is_none() {
            self.sched.acquire(self.machine);
        }
    }

    /// The wait begins.
    fn give_up(&self) {
        if let Some(p) = self.processor() {
            self.sched.give_up(p);
        }
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        if self.nested {
            self.acquire();
            let processor = self.processor();
            context::set(context::Context { processor, ..self.before });
        } else {
            self.give_up();
            context::set(context::Context { processor: None, ..self.before });
            if let Some(other) = self.before.processor {
                other.sched.acquire(self.machine);
            }
        }
        self.sched.free_machine(self.machine);
    }
}

pub(super) fn on<F: Future>(runtime: RuntimeRef, future: F) -> F::Output {
    assert!(runtime.is_of_this_process(), "{FORKED}");
    assert!(runtime.is_there(), "{SHUT_DOWN}");
    let blocking = Blocking::new(runtime);
    let signal = Arc::new(Signal { woken: AtomicBool::new(false), parker: Parker::new() });
    let waker = Waker::from(signal.clone());
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        blocking.acquire();
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        // Acquire: pairs with `wake_by_ref`.
        if signal.woken.swap(false, AcqRel) {
            // Woken in its own poll: others that wait go first.
            if blocking.processor().is_some_and(|p| runtime.sched.has_waiting(p)) {
                blocking.give_up();
            }
            continue;
        }
        blocking.give_up();
        while !signal.woken.swap(false, Acquire) {
            signal.parker.park();
        }
    }
}
