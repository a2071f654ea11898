//! Threads that poll a future of their own (`block_on`): whether each of them runs, was woken, or waits.
//! `runtime::block_on` enters them, `sched::quiet` asks, and `sched::deadlock` tells them that they wait in vain.
//! Threads that have entered the runtime are listed here too: they may be about to wake somebody.
//!
//! 1. A thread is entered before it first acquires a processor, and leaves when it is done with its last one.
//! 2. What says that the thread waits, and what says that it was woken, are bits of one word, so that at no moment a
//!    thread that was woken looks like one that waits. It stops to wait before it acquires a processor, and begins to
//!    when it has given its own up.
//! 3. A thread that the runtime counts as away, for a poll around this wait, brings nothing while it waits here. So the
//!    wait says how often it is counted, and what waits is set against what is away (`Waits::are_quiet`).
//!
//! | state          | WAITING | WOKEN | who leaves it                                                    |
//! |----------------|---------|-------|------------------------------------------------------------------|
//! | running        |    0    |   0   | `begin` → waiting · `wake` → running, woken                      |
//! | running, woken |    0    |   1   | `take_wake` → running · `begin` → woken                          |
//! | waiting        |    1    |   0   | `wake` → woken, and unparks · `condemn` → condemned, and unparks |
//! | woken          |    1    |   1   | `end` → running                                                  |
//! | condemned      | a bit of its own | `end` → running                                           |

use std::mem::ManuallyDrop;
use std::panic::Location;
use std::sync::Arc;
use std::task::{RawWaker, RawWakerVTable, Waker};

use crate::park::Parker;
use crate::sys::atomic::{
    AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use crate::sys::{Mutex, rank, thread_id};

const WAITING: u32 = 1;
const WOKEN: u32 = 2;
const CONDEMNED: u32 = 4;

/// No task lies there.
const NOWHERE: usize = 0;

/// References to a wait that are no wakers which somebody keeps: its `Blocking`, the list of waits, and the waker of
/// the poll itself.
const OWN_REFERENCES: usize = 3;

/// One thread in one `block_on`, and its waker. It outlives the call if somebody keeps it.
pub(crate) struct Wait {
    /// See the table above.
    state: AtomicU32,
    pub(crate) parker: Parker,
    /// The thread.
    tid: i32,
    /// Where the `block_on` was called, or the pinned task spawned.
    location: &'static Location<'static>,
    /// It is told when it waits in vain: a `block_on`.
    is_told: bool,
    /// The runtime that it waits in. The slot may be another's by now.
    generation: u32,
    /// How often that runtime counts the thread as away. It stays the same for as long as this wait is listed.
    away: usize,
    /// The task in whose cell the thread's waker was put last, as who waits for it: where the cell lies, and the
    /// task's number. Cleared when the handle takes that waker out again.
    joins: (AtomicUsize, AtomicU64),
    /// Why it waits in vain. Written before the state says that it does.
    verdict: Mutex<String>,
}

/// How a wait goes on.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Outcome {
    /// Nobody has woken the thread: it parks.
    Waits,
    /// It was woken, and polls.
    Woken,
    /// It waits in vain, for this reason.
    Condemned(String),
}

impl Wait {
    /// A wait of this thread, in a `block_on` that was called there.
    pub(crate) fn of_block_on(location: &'static Location<'static>, generation: u32) -> Self {
        Wait::new(location, true, generation)
    }

    /// A wait of this thread, which is that of a pinned task.
    pub(crate) fn of_pinned(location: &'static Location<'static>, generation: u32) -> Self {
        Wait::new(location, false, generation)
    }

    fn new(location: &'static Location<'static>, is_told: bool, generation: u32) -> Self {
        Wait {
            state: AtomicU32::new(0),
            parker: Parker::new(),
            tid: thread_id(),
            location,
            is_told,
            generation,
            away: 0,
            joins: (AtomicUsize::new(NOWHERE), AtomicU64::new(0)),
            verdict: Mutex::new(rank::LEAF, String::new()),
        }
    }

    /// Says how often the runtime counts this thread as away.
    pub(crate) fn set_away(&mut self, away: usize) {
        self.away = away;
    }

    pub(crate) fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// Whether it was woken since the last time; then the next poll sees what the waker did before. Owner only.
    pub(crate) fn take_wake(&self) -> bool {
        // AcqRel: pairs with `Wait::wake`.
        self.state.fetch_and(!WOKEN, AcqRel) & WOKEN != 0
    }

    /// The wait begins: the thread has no processor any more. Owner only.
    pub(crate) fn begin(&self) {
        // AcqRel: pairs with `Wait::wake`: one of the two comes first in the order of this word, and `end` or that one
        // sees the other.
        self.state.fetch_or(WAITING, AcqRel);
    }

    /// Ends the wait if the thread was woken; else it parks. Owner only.
    pub(crate) fn end(&self) -> Outcome {
        // Acquire: pairs with `Wait::wake` and `condemn`; the next poll sees what the waker did before.
        if self.state.load(Acquire) == WAITING {
            return Outcome::Waits;
        }
        // AcqRel: as above, for wakes that come meanwhile.
        if self.state.swap(0, AcqRel) & CONDEMNED == 0 {
            return Outcome::Woken;
        }
        Outcome::Condemned(std::mem::take(&mut *self.verdict.lock()))
    }

    /// Ends the wait of a thread that waits in vain, unless somebody wakes it at the last moment.
    fn condemn(&self, why: &str) -> bool {
        if !self.is_told {
            return false;
        }
        why.clone_into(&mut self.verdict.lock());
        // AcqRel: pairs with `end`.
        let condemned = self.state.compare_exchange(WAITING, WAITING | CONDEMNED, AcqRel, Acquire).is_ok();
        if condemned {
            self.parker.unpark();
        }
        condemned
    }

    /// Whether nothing but the end of this task can wake the thread: the one waker that is kept lies in its cell. The
    /// caller has the task's unit, so that it has not ended. Owner only, between two polls.
    pub(crate) fn joins_only(self: &Arc<Self>, at: usize, task: u64) -> bool {
        // A handle that another thread has got may be about to take the waker out. Acquire, in `upgrade`: pairs with
        // the Release in the drop of that waker, so that who does not count it sees what `leaves` did before, and that
        // it has woken the thread, if that is where it went.
        Arc::strong_count(self) == OWN_REFERENCES + 1
            && Arc::downgrade(self).upgrade().is_some()
            && self.joins.0.load(Relaxed) == at
            && self.joins.1.load(Relaxed) == task
            && self.state.load(Relaxed) & WOKEN == 0
    }

    /// Whether the thread waits and nobody has woken it.
    pub(crate) fn is_waiting(&self) -> bool {
        // Acquire: pairs with `begin`: who sees it sees what the thread did before it waited.
        self.state.load(Acquire) == WAITING
    }
}

impl Wait {
    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        // SAFETY: the functions of the vtable do what is asked of them, from any thread.
        unsafe { Waker::from_raw(RawWaker::new(Arc::into_raw(self.clone()).cast(), &WAKER)) }
    }

    fn wake(&self) {
        // AcqRel: pairs with `take_wake`, `begin` and `end`.
        if self.state.fetch_or(WOKEN, AcqRel) == WAITING {
            self.parker.unpark();
        }
    }
}

/// Whether it is the waker of a thread in `block_on`: it does not block.
#[inline]
pub(crate) fn is_waker(waker: &Waker) -> bool {
    std::ptr::eq(waker.vtable(), &WAKER)
}

/// This waker was put into the cell of a task, which lies there, as who waits for it. See [`Wait::joins_only`].
#[cold]
pub(crate) fn joins(waker: &Waker, at: usize, task: u64) {
    debug_assert!(is_waker(waker));
    // SAFETY: it is a waker of ours, which is there.
    let wait = ManuallyDrop::new(unsafe { of_waker(waker.data()) });
    // Relaxed: until this waker is dropped it counts, so nothing is made of what is read too early.
    wait.joins.0.store(at, Relaxed);
    wait.joins.1.store(task, Relaxed);
}

/// The handle has taken this waker, whosever it is, out of the cell that lies there.
pub(crate) fn leaves(waker: &Waker, at: usize) {
    if is_waker(waker) {
        // SAFETY: as in `joins`.
        let wait = ManuallyDrop::new(unsafe { of_waker(waker.data()) });
        // Relaxed: see `Wait::joins_only`.
        let _ = wait.joins.0.compare_exchange(at, NOWHERE, Relaxed, Relaxed);
    }
}

/// The waker of all waits. Its data is an `Arc<Wait>`, with a reference. Not `Wake`, whose vtable has no name.
static WAKER: RawWakerVTable = RawWakerVTable::new(clone_waker, wake, wake_by_ref, drop_waker);

/// # Safety
///
/// It is the data of a waker of ours, and the waker's reference is the caller's.
unsafe fn of_waker(data: *const ()) -> Arc<Wait> {
    // SAFETY: such a waker was made of an `Arc`.
    unsafe { Arc::from_raw(data.cast()) }
}

/// # Safety
///
/// It is the data of a waker of ours, which is there.
unsafe fn clone_waker(data: *const ()) -> RawWaker {
    // SAFETY: passed on; the waker keeps its reference.
    let wait = ManuallyDrop::new(unsafe { of_waker(data) });
    RawWaker::new(Arc::into_raw(Arc::clone(&wait)).cast(), &WAKER)
}

/// # Safety
///
/// As [`of_waker`].
unsafe fn wake(data: *const ()) {
    // SAFETY: passed on.
    unsafe { of_waker(data) }.wake();
}

/// # Safety
///
/// As [`clone_waker`].
unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: as there.
    ManuallyDrop::new(unsafe { of_waker(data) }).wake();
}

/// # Safety
///
/// As [`of_waker`].
unsafe fn drop_waker(data: *const ()) {
    // SAFETY: passed on.
    drop(unsafe { of_waker(data) });
}

/// The threads of one runtime slot that are in `block_on`, and those that have entered it.
pub(crate) struct Waits(Mutex<Lists>);

struct Lists {
    /// In the order in which they came.
    waits: Vec<Arc<Wait>>,
    /// Threads with a guard of `Handle::enter`, once for each guard, with the generation of the runtime that they
    /// entered.
    guests: Vec<(i32, u32)>,
}

impl Lists {
    /// Those of the runtime of this generation.
    fn of(&self, generation: u32) -> impl Iterator<Item = &Arc<Wait>> {
        self.waits.iter().filter(move |wait| wait.generation == generation)
    }

    /// Those of them that wait. Of calls inside each other on one thread only the innermost can.
    fn waiting(&self, generation: u32) -> impl Iterator<Item = &Arc<Wait>> {
        self.of(generation).filter(|wait| wait.is_waiting())
    }
}

impl Waits {
    pub(crate) const fn new() -> Self {
        Waits(Mutex::new(rank::LEAF, Lists { waits: Vec::new(), guests: Vec::new() }))
    }

    pub(crate) fn enter(&self, wait: &Arc<Wait>) {
        self.0.lock().waits.push(wait.clone());
    }

    /// The slot may serve another runtime by now: only this very entry goes.
    pub(crate) fn leave(&self, wait: &Arc<Wait>) {
        let mut lists = self.0.lock();
        // The last one that came is mostly the first to go.
        let at = lists.waits.iter().rposition(|other| Arc::ptr_eq(other, wait));
        let gone = at.map(|at| lists.waits.remove(at));
        drop(lists);
        drop(gone);
    }

    /// Whether this thread is in such a call, with a processor or without.
    pub(crate) fn has_this_thread(&self, generation: u32) -> bool {
        let tid = thread_id();
        self.0.lock().of(generation).any(|wait| wait.tid == tid)
    }

    /// Makes those that wait look around once more.
    pub(crate) fn unpark_all(&self, generation: u32) {
        let waits: Vec<_> = self.0.lock().of(generation).cloned().collect();
        waits.iter().for_each(|wait| {
            wait.parker.unpark();
        });
    }

    /// This thread may act for the runtime of that generation until [`Waits::guest_left`].
    pub(crate) fn guest_came(&self, generation: u32) {
        self.0.lock().guests.push((thread_id(), generation));
    }

    pub(crate) fn guest_left(&self, generation: u32) {
        let guest = (thread_id(), generation);
        let mut lists = self.0.lock();
        if let Some(at) = lists.guests.iter().rposition(|other| *other == guest) {
            lists.guests.remove(at);
        }
    }

    /// Whether every thread that polls a future of its own waits, and so does every guest of the runtime of this
    /// generation, in such a call, and so do all that are `away`. They were counted before, under the scheduler lock:
    /// none of them has got a processor since.
    pub(crate) fn are_quiet(&self, generation: u32, away: usize) -> bool {
        let lists = self.0.lock();
        let waits = |tid| lists.waiting(generation).any(|wait| wait.tid == tid);
        lists.of(generation).all(|wait| wait.is_waiting() || waits(wait.tid))
            && lists.waiting(generation).map(|wait| wait.away).sum::<usize>() == away
            && lists.guests.iter().all(|(tid, entered)| *entered != generation || waits(*tid))
    }

    pub(crate) fn is_any_waiting(&self, generation: u32) -> bool {
        self.0.lock().waiting(generation).next().is_some()
    }

    /// Whether a thread is in such a call, waiting or on its way there.
    pub(crate) fn is_anybody_there(&self, generation: u32) -> bool {
        self.0.lock().of(generation).next().is_some()
    }

    /// Where the `block_on`s were called that wait. A pinned task is listed as a task.
    pub(crate) fn waiting(&self, generation: u32) -> Vec<&'static Location<'static>> {
        self.0.lock().waiting(generation).filter(|wait| wait.is_told).map(|wait| wait.location).collect()
    }

    /// Ends the waits that go on: each thread is told `why`. Tells whether there was one.
    pub(crate) fn condemn(&self, generation: u32, why: &str) -> bool {
        let waiting: Vec<_> = self.0.lock().waiting(generation).cloned().collect();
        // All of them, also when one was found.
        waiting.iter().filter(|wait| wait.condemn(why)).count() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r13_a_waker_of_a_wait_is_known_and_keeps_it() {
        let wait = Arc::new(Wait::of_block_on(Location::caller(), 1));
        let waker = wait.waker();
        let clone = waker.clone();
        assert!(is_waker(&waker) && is_waker(&clone) && waker.will_wake(&clone));
        assert!(!is_waker(Waker::noop()));
        assert_eq!(Arc::strong_count(&wait), 3);
        assert!(!wait.take_wake());
        clone.wake_by_ref();
        assert!(wait.take_wake());
        clone.wake();
        assert!(wait.take_wake());
        assert_eq!(Arc::strong_count(&wait), 2);
        drop(waker);
        assert_eq!(Arc::strong_count(&wait), 1);
    }

    #[test]
    fn r03_a_wait_for_one_task_is_known_until_a_second_waker_is_kept_or_the_first_is_taken_out() {
        let wait = Arc::new(Wait::of_block_on(Location::caller(), 1));
        let (_listed, _polled_with) = (wait.clone(), wait.waker());
        let in_cell = wait.waker();
        assert!(!wait.joins_only(64, 1), "nobody said where the waker lies");
        joins(&in_cell, 64, 1);
        assert!(wait.joins_only(64, 1));
        assert!(!wait.joins_only(64, 2) && !wait.joins_only(128, 1), "another task");
        let second = wait.waker();
        assert!(!wait.joins_only(64, 1), "somebody else may wake the thread");
        second.wake();
        assert!(!wait.joins_only(64, 1) && wait.take_wake(), "and has");
        let second = wait.waker();
        leaves(&in_cell, 128);
        drop(second);
        assert!(wait.joins_only(64, 1));
        let moved = wait.waker();
        leaves(&in_cell, 64);
        drop(in_cell);
        assert!(!wait.joins_only(64, 1), "the one waker is elsewhere");
        drop(moved);
    }
}
