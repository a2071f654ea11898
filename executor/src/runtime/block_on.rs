//! `block_on`: a thread that polls a future itself. It is a machine like any other: it holds a processor while it polls
//! and gives it up while it waits.
//!
//! | the thread holds          | while it polls                    | while it waits  | at the end                     |
//! |---------------------------|-----------------------------------|-----------------|--------------------------------|
//! | no processor              | one it acquires                   | none            | gives it up                    |
//! | one of this runtime       | that one, later any               | none            | keeps it: its task goes on     |
//! | one of another runtime    | gives it up, acquires one of ours | none            | gives ours up, acquires theirs |
//!
//! When the runtime closes there are no processors to be had; the future is then polled without one. A processor whose
//! machine collects wakes cannot be given up: the user's waker that calls `block_on` then waits with it.

use std::future::poll_fn;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use super::{FORKED, SHUT_DOWN, current};
use crate::blocking::Waiting;
use crate::clock;
use crate::context;
use crate::duty;
use crate::leak::{Counted, Tally};
use crate::machine::Machine;
use crate::processor::{Polled, Processor};
use crate::sched::deadlock::Why;
use crate::sched::{RuntimeRef, Sched};
use crate::sys::atomic::Ordering::AcqRel;
use crate::task::local::Host;
use crate::waits::{Outcome, Wait};

/// Runs `future` to its end on this thread, on the runtime the thread is in, else on the default one, which is started
/// if need be.
///
/// It may be called anywhere: in `main`, in a test, inside a task. The thread counts as one of the `procs` that run
/// while it polls, and gives way while it waits. Tasks that [`spawn_local`](crate::task::spawn_local) makes inside run
/// on this thread too, until `future` has ended. In the first millisecond of a runtime, while its threads are on their
/// way, so may a poll of a task on the main thread, if the task's end is all that `future` waits for.
///
/// Local tasks of a `block_on`, set or pinned task around it have only this thread, and stand still until it returns.
/// If `future` waits for one of them, it waits for ever;
/// [`Builder::detect_deadlocks`](super::Builder::detect_deadlocks) finds that where nothing else goes on.
///
/// While the runtime shuts down sleeps end as ever, and sockets are looked at every millisecond. A `block_on` that
/// waits even when the shutdown is over, which only one on a thread of your own can, panics if it waits for time, and
/// gets an error if it waits for a socket.
///
/// # Panics
///
/// If `future` does; if it waits for time and the runtime is shut down by another thread meanwhile; if the runtime
/// cannot be built, is shut down, or belongs to the parent process, also where `future` itself has forked and is to
/// wait in the child; if the runtime looks for deadlocks
/// ([`Builder::detect_deadlocks`](super::Builder::detect_deadlocks)) and finds one.
///
/// # Examples
///
/// ```
/// assert_eq!(gmp::block_on(async { 6 * 7 }), 42);
/// ```
#[track_caller]
pub fn block_on<F: Future>(future: F) -> F::Output {
    match current() {
        Ok(runtime) => on(runtime, future),
        Err(e) => panic!("`block_on` has no runtime: {e}"),
    }
}

/// So long a thread goes on beside others that wait, in nanoseconds, since somebody last looked around on its
/// processor. A budget of 128 is over after some microseconds, where another task would begin; here that would be
/// another thread. And looks of a busy processor come no further apart than twice that.
const SLICE_NS: u64 = 100_000;

/// A thread that waits for something else than its task gives up the processor it came with, of whatever runtime, and
/// has one again afterwards.
pub(super) struct Aside {
    machine: &'static Machine,
    /// The runtime of the processor given up, and what was polled on it.
    given_up: Option<(RuntimeRef, Polled)>,
    /// That runtime counts the thread as away: it is one of its own.
    away: bool,
    /// The processor, if it cannot be given up.
    kept: Option<&'static Processor>,
}

impl Aside {
    /// `machine` is what the thread will be to the scheduler when it wants a processor again.
    pub(super) fn new(machine: &'static Machine) -> Self {
        let mut aside = Aside { machine, given_up: None, away: false, kept: None };
        if let Some(p) = context::current().processor {
            if p.is_batching() {
                context::set_processor(None);
                aside.kept = Some(p);
            } else {
                // Before the processor is gone: nothing else keeps the slot from serving another runtime.
                aside.given_up = Some((p.sched.runtime(), p.polled()));
                aside.away = context::is_worker_of(p.sched);
                if aside.away {
                    // AcqRel: pairs with `quiet`.
                    p.sched.away.fetch_add(1, AcqRel);
                    context::worker_goes();
                }
                p.sched.give_up(p);
            }
        }
        aside
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(p) = self.kept {
            context::set_processor(Some(p));
        }
        if let Some((runtime, polled)) = self.given_up {
            if let Some(p) = runtime.sched.acquire(runtime, self.machine) {
                p.goes_on(polled);
            }
            if self.away {
                context::worker_is_back();
                // AcqRel: pairs with `quiet`.
                runtime.sched.away.fetch_sub(1, AcqRel);
                runtime.sched.clock_may_advance();
            }
        }
    }
}

/// What the thread was before, and is again afterwards, also if the future panics.
pub(super) struct Blocking {
    runtime: RuntimeRef,
    machine: &'static Machine,
    before: context::Context,
    /// The thread came with a processor of this runtime.
    nested: bool,
    /// That processor cannot be given up.
    kept: bool,
    /// What wakes the thread.
    wait: Arc<Wait>,
    /// The processor of another runtime that the thread came with. `None` if there was none, or in the end.
    aside: Option<Aside>,
    /// What the thread polled on the processor that it came with.
    polled: Option<Polled>,
    /// The runtime in whose poll the thread came without a processor, counted as stuck.
    released_by: Option<&'static Sched>,
}

impl Blocking {
    /// `wait` is what this thread is to whoever wakes it.
    pub(super) fn new(runtime: RuntimeRef, mut wait: Wait) -> Self {
        let sched = runtime.sched;
        wait.set_away(context::away_from(sched));
        let before = context::current();
        let machine = sched.new_machine();
        let wait = Arc::new(wait);
        sched.waits.enter(&wait);
        let nested = context::processor_of(sched);
        let aside = if nested.is_some() { None } else { Some(Aside::new(machine)) };
        context::set(context::Context {
            runtime: Some(runtime),
            processor: nested,
            // Inside another poll nothing is refused: this thread's own loop would only ask again.
            unconstrained: nested.is_some() || before.unconstrained,
        });
        let kept = nested.is_some_and(Processor::is_batching);
        let polled = nested.map(Processor::polled);
        let released_by = context::set_released_by(None);
        Blocking { runtime, machine, before, nested: nested.is_some(), kept, wait, aside, polled, released_by }
    }

    fn processor(&self) -> Option<&'static Processor> {
        context::processor_of(self.runtime.sched)
    }

    /// A processor for the next poll. One that is a husk goes back first.
    fn acquire(&self) {
        self.runtime.sched.end_release();
        if self.processor().is_some_and(|p| p.queue.next.is_condemned()) {
            self.give_up();
        }
        if self.processor().is_none() {
            self.runtime.sched.acquire(self.runtime, self.machine);
        }
    }

    /// The wait begins.
    fn give_up(&self) {
        self.runtime.sched.end_release();
        if let (Some(p), false) = (self.processor(), self.kept) {
            p.sched.give_up(p);
        }
    }

    /// The future woke itself in its own poll: others that wait go first, else it starts a new time slice. If it only
    /// has spent its budget, others go first when that has gone on for a while: to let them costs two thread switches.
    fn yielded(&self) {
        let Some(p) = self.processor() else {
            return;
        };
        // In a nested one nothing is charged: the budget is what the task around it has left.
        let spent = !self.nested && p.has_only_spent_budget();
        let goes_on = spent && clock::now().saturating_sub(p.looked_at()) < SLICE_NS;
        if !goes_on && p.sched.has_waiting(p) {
            self.give_up();
        } else if !self.nested {
            p.end_poll();
            p.restart_slice();
            p.begin_poll();
        }
    }

    /// A cold start: see [`Sched::polls_joined`]. Not inside another poll, whose thread has a stack and a budget of its
    /// own.
    #[cold]
    fn polls_joined(&self) -> bool {
        let is_outermost =
            !self.nested && self.before.processor.is_none() && !self.before.unconstrained && self.released_by.is_none();
        match self.processor() {
            Some(p) if is_outermost => p.sched.polls_joined(p, &self.wait),
            _ => return false,
        }
        true
    }

    /// Calls `poll` with a processor, and waits without one, until it is ready, is known to wait in vain, or is to wait
    /// in the child of a fork: the error says why. `tally` is that of the wakers that it gets, if they are counted.
    pub(super) fn drive<R>(
        &self,
        tally: Option<&Tally>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<R>,
    ) -> Result<R, String> {
        let (runtime, wait) = (self.runtime, &self.wait);
        let waker = wait.waker();
        let mut cx = Context::from_waker(&waker);
        loop {
            self.acquire();
            if let Poll::Ready(output) = poll(&mut cx) {
                return Ok(output);
            }
            // The last waker may go in the poll, or later: then it wakes this thread, which is not to poll.
            let leaked = || tally.is_some_and(Tally::is_leaked);
            if leaked() {
                return Err(runtime.sched.deadlock_report(&Why::Leak(wait.location())));
            }
            if wait.take_wake() {
                self.yielded();
                continue;
            }
            if runtime.sched.duty.is_kept() && self.polls_joined() && wait.take_wake() {
                self.yielded();
                continue;
            }
            if !runtime.is_of_this_process() {
                return Err(FORKED.to_owned());
            }
            self.give_up();
            let _waiting = Waiting::new(runtime.sched);
            wait.begin();
            runtime.sched.clock_may_advance();
            loop {
                match wait.end() {
                    Outcome::Woken if leaked() => {
                        return Err(runtime.sched.deadlock_report(&Why::Leak(wait.location())));
                    }
                    Outcome::Woken => break,
                    Outcome::Condemned(report) => return Err(report),
                    Outcome::Waits => {}
                }
                if runtime.sched.is_closing() && runtime.is_there() {
                    runtime.sched.park_while_closing(runtime, &wait.parker);
                } else if runtime.sched.sysmon.is_started() || !runtime.is_there() {
                    wait.parker.park();
                } else {
                    self.park_unwatched();
                }
            }
        }
    }

    /// A wait while there is no watcher: this thread looks out for the first machine (see `duty`), or tries again to
    /// start one.
    #[cold]
    fn park_unwatched(&self) {
        let RuntimeRef { sched, generation } = self.runtime;
        // Beside a processor that cannot be given up it takes none, and so starts no watcher.
        let looks_out = self.processor().is_none() && sched.duty.look_out(generation);
        self.wait.parker.park_timeout(if looks_out { duty::PATIENCE } else { sched.sysmon.retries_in() });
        if looks_out {
            sched.duty.look_away(generation);
        }
        if !sched.sysmon.is_started() && !sched.duty.is_kept() {
            // Whoever takes a processor starts the watcher.
            self.acquire();
            self.give_up();
        }
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        if !self.runtime.is_of_this_process() {
            context::set(context::Context { processor: None, ..self.before });
            return;
        }
        if self.nested {
            self.acquire();
        } else {
            self.give_up();
        }
        if let (Some(p), Some(polled)) = (self.processor(), self.polled) {
            p.goes_on(polled);
        }
        context::set(context::Context { processor: self.processor(), ..self.before });
        drop(self.aside.take());
        if self.released_by.is_some() {
            context::set_released_by(self.released_by);
        }
        self.runtime.sched.waits.leave(&self.wait);
        self.runtime.sched.clock_may_advance();
        self.runtime.sched.free_machine(self.machine);
    }
}

#[track_caller]
pub(crate) fn on<F: Future>(runtime: RuntimeRef, future: F) -> F::Output {
    assert!(runtime.is_of_this_process(), "{FORKED}");
    assert!(
        runtime.is_there(),
        "{SHUT_DOWN}: `block_on` needs the runtime until it returns; keep the `Runtime` of a handle that long, or call \
         `gmp::block_on`, which takes the current runtime or the default one, and not when a `#[gmp::main]` has ended"
    );
    let blocking = Blocking::new(runtime, Wait::of_block_on(Location::caller(), runtime.generation));
    // What the future spawns here is dropped after it, and before the processor is given up.
    let host = Host::new();
    let _inside = host.enter();
    let mut future = pin!(future);
    let mut poll = |cx: &mut Context<'_>| host.poll(cx, |cx| future.as_mut().poll(cx));
    let ended = if runtime.sched.detects() {
        // Behind a pointer, so that a program has this form once for each type of output.
        let poll: &mut dyn FnMut(&mut Context<'_>) -> Poll<F::Output> = &mut poll;
        let mut counted = Counted::new(poll_fn(poll), true);
        let tally = counted.tally().clone();
        blocking.drive(Some(&tally), |cx| Pin::new(&mut counted).poll(cx))
    } else {
        blocking.drive(None, poll)
    };
    match ended {
        Ok(output) => output,
        Err(report) => panic!("{report}"),
    }
}
