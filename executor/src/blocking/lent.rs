//! A thread of the pool that is lent to the scheduler: its closure has returned, and it runs the task that waits for
//! that (Go: `exitsyscall`, where the thread that comes back from a system call takes an idle processor). `sched` asks
//! when that task is woken; `run_closures` sends the thread there, and has it back.
//!
//! A call and its result are two thread wakes, of the pool's thread and of a machine, and each costs more than most
//! closures. The thread that has just run the closure is awake and has the result in its cache. So it takes an idle
//! processor, if there is one and no closure waits for a thread, runs what it woke and what that makes ready, and gives
//! the processor up. What that task calls next is likely to be a closure again: if nobody comes for that one, the
//! thread *keeps* it, and runs it when it is back. A task that makes one call after the other then needs one thread and
//! no wake at all.
//!
//! 1. A lent thread counts as a machine, not as one of the pool (`Threads::lend`), and in no number of `State` but
//!    `threads`. If its place in the pool is gone when it is back, it ends.
//! 2. `kept` names the queued closures that a lent thread is to come for. It does when its poll ends, or it calls
//!    another thread: when other tasks are to run first, and when the poll is going to wait (`Sched::give_up`). If
//!    another thread takes one before, which came for one behind it, nobody is waited for any more: so none but the
//!    closure that is kept waits for a poll.
//! 3. A poll that blocks or computes without telling anybody keeps its closure waiting, which may be what it waits for.
//!    So each look of `sysmon` calls threads for all closures that are kept: within a look, for the processor is not
//!    idle then.
//! 4. Where that happens, or a kept closure waited for long, closures are kept more and more rarely: the poll that
//!    calls them has other things to do meanwhile.
//! 5. A thread is lent for the wake of a task that waits for its closure and for nothing else: not while the result's
//!    destructor runs, nor for a waker of the user's. What these wake must not wait behind them, and what they run (a
//!    `block_on`, a `block_in_place`, the end of a runtime) has its own idea of which processor the thread holds. So
//!    nobody's code runs between the lending and `Worker::run_lent`, and a poll on a lent thread begins with nothing
//!    kept.
//!
//! | the thread           | `DOES`    | `LENT` | its end                                                        |
//! |----------------------|-----------|--------|----------------------------------------------------------------|
//! | is in a closure      | `Closure` | no     | its outcome is with who waits for it, or dropped               |
//! | waits in one         | `Waits`   | no     | its wait in a `block_on`: it is in the closure again           |
//! | wakes who waits      | `Ends`    | no     | that task is queued, with a processor idle: → lent             |
//! | lent, in the wake    | `Ends`    | yes    | the wake is over                                               |
//! | lent                 | `Nothing` | yes    | `Worker::run_lent` is over: it is of the pool again, or ends   |

use std::cell::Cell;

use super::{Pool, SERVES, State};
use crate::clock;
use crate::context;
use crate::sched::Sched;
use crate::sched::find::Worker;
use crate::sys::MutexGuard;

/// A kept closure that waited for so long, in nanoseconds, would have been better off with another thread.
const LATE_NS: u64 = 20_000;

/// After one that was late so many are not kept, and twice as many each time.
const PAUSE_MIN: u32 = 2;
const PAUSE_MAX: u32 = 1 << 10;

/// What a thread of the pool does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    /// It is in nobody's code, or it is lent.
    Nothing,
    Closure,
    /// Its closure waits in a `block_on`.
    Waits,
    /// It wakes the task that waits for the closure, and is in nobody's code.
    Ends,
    /// It is in a waker.
    Waker,
}

/// The ticket of a closure that nobody keeps.
pub(super) const NOBODYS: u32 = 0;

/// A closure that this thread has called and is to run.
#[derive(Clone, Copy)]
pub(super) struct Keeps {
    ticket: u32,
    /// [`Keeping::round`] at that time.
    round: u32,
    at: u64,
}

thread_local! {
    pub(super) static DOES: Cell<Does> = const { Cell::new(Does::Nothing) };
    static LENT: Cell<bool> = const { Cell::new(false) };
    static KEEPS: Cell<Option<Keeps>> = const { Cell::new(None) };
}

/// What the pool knows of closures that are kept. Guarded by `Pool::state`.
pub(super) struct Keeping {
    /// Tickets of the queued closures that a lent thread is to come for.
    kept: Vec<u32>,
    /// The last ticket.
    last: u32,
    /// Goes up when `sysmon` calls threads for them: who kept one before keeps none.
    round: u32,
    /// So many are not kept.
    pause: u32,
    /// How many they will be the next time.
    next_pause: u32,
}

impl Keeping {
    pub(super) const fn new() -> Self {
        Keeping { kept: Vec::new(), last: NOBODYS, round: 0, pause: 0, next_pause: 0 }
    }

    /// How many closures are kept.
    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// A closure of that ticket is queued no more. Tells whether it was kept.
    pub(super) fn is_taken(&mut self, ticket: u32) -> bool {
        let at = self.kept.iter().position(|kept| *kept == ticket);
        at.map(|at| self.kept.swap_remove(at)).is_some()
    }

    fn keep(&mut self, at: u64) -> Option<Keeps> {
        if self.pause > 0 {
            self.pause -= 1;
            return None;
        }
        self.last = self.last.checked_add(1).unwrap_or(NOBODYS + 1);
        self.kept.push(self.last);
        Some(Keeps { ticket: self.last, round: self.round, at })
    }

    /// The thread that kept one is there, or has another one called.
    pub(super) fn end(&mut self, keeps: Keeps, now: u64) {
        self.is_taken(keeps.ticket);
        let was_called = keeps.round != self.round;
        if was_called || now.saturating_sub(keeps.at) >= LATE_NS {
            self.next_pause = (2 * self.next_pause).clamp(PAUSE_MIN, PAUSE_MAX);
            self.pause = self.next_pause;
        } else {
            self.next_pause = 0;
        }
    }

    /// `sysmon` looks.
    pub(super) fn call_all(&mut self) {
        if !self.kept.is_empty() {
            self.kept.clear();
            self.round = self.round.wrapping_add(1);
        }
    }
}

/// Whether this thread is of the pool of `sched` and wakes the task that waits for its closure, and may take a
/// processor to run it (invariant 5).
pub(crate) fn may_be_lent(sched: &'static Sched) -> bool {
    let may = DOES.get() == Does::Ends && super::serves(sched);
    debug_assert!(!may || !(LENT.get() || context::is_released() || context::processor().is_some()));
    may
}

/// It is lent from here on, and is to find that out when it is through with the closure.
pub(crate) fn be_lent(sched: &'static Sched) {
    LENT.set(true);
    context::set_worker_of(Some(sched));
}

pub(super) fn is_lent() -> bool {
    LENT.get()
}

/// Whether a closure waits for this thread.
pub(crate) fn keeps_a_closure() -> bool {
    KEEPS.get().is_some()
}

impl Pool {
    /// Whether no closure and no waker waits for a thread that has done with its own.
    pub(crate) fn spares_a_thread(&self) -> bool {
        let state = self.state.lock();
        !state.closed && state.queue.is_empty() && state.wakers.is_empty()
    }
}

impl State {
    /// Keeps the closure that was just queued for this thread, if it is lent and holds a processor of `sched`, and
    /// nobody comes for that one yet.
    #[must_use]
    pub(super) fn keep(&mut self, sched: &'static Sched) -> bool {
        // Without `sysmon` nobody would call another thread, nor if it sleeps because this poll's processor was given
        // away.
        let may = LENT.get()
            && KEEPS.get().is_none()
            && super::serves(sched)
            && context::processor_of(sched).is_some_and(|p| !p.queue.next.is_condemned())
            && sched.sysmon.is_started();
        if !may || !self.is_thread_due() {
            return false;
        }
        KEEPS.set(self.keep_last(clock::now()));
        KEEPS.get().is_some()
    }

    /// Keeps the last closure of the queue, if such are kept now.
    pub(super) fn keep_last(&mut self, at: u64) -> Option<Keeps> {
        let keeps = self.keeping.keep(at)?;
        if let Some(last) = self.queue.back_mut() {
            last.ticket = keeps.ticket;
        }
        Some(keeps)
    }

    /// The lent thread is back.
    fn end_keeping(&mut self) {
        if let Some(keeps) = KEEPS.take() {
            self.keeping.end(keeps, clock::now());
        }
    }
}

impl Sched {
    /// This thread does not come for the closure that it keeps, if it does: another one is called.
    #[inline]
    pub(crate) fn call_for_kept_closure(&'static self) {
        if keeps_a_closure() {
            self.call_another();
        }
    }

    #[cold]
    fn call_another(&'static self) {
        // Of another runtime than the one whose processor is given up, perhaps.
        let Some(own) = SERVES.get() else { return };
        let mut state = own.blocking.state.lock();
        state.end_keeping();
        own.call(state);
    }
}

/// Runs what the closure woke, on a thread that was lent for that. `None`: it is of the pool no more, and is to end, as
/// a machine.
pub(super) fn run(sched: &'static Sched, worker: &mut Worker) -> Option<MutexGuard<'static, State>> {
    worker.run_lent();
    LENT.set(false);
    context::set_worker_of(None);
    let mut state = sched.blocking.state.lock();
    state.end_keeping();
    // Shutdown counts it as one of the pool before it does not count it as a machine.
    state.lent -= 1;
    let stays = sched.threads.take_back(sched.idle.procs());
    sched.shutdown.unpark();
    if stays {
        return Some(state);
    }
    sched.call(state);
    // Its last poll may have been a stuck one, and this thread goes idle nowhere.
    sched.clock_may_advance();
    None
}
