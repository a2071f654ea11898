//! What a thread is to the runtime right now: (runtime, processor or none), and whose poll it is in. A worker, a
//! `block_on`, an `enter()` guard and shutdown each put theirs in and put the former one back, so that they nest like a
//! stack.
//!
//! 1. The cell has no destructor and is never borrowed, so that wakes in the destructor of another thread-local work.
//! 2. `processor` is set if and only if this thread holds that processor. Nothing puts a former one back but the code
//!    that has just got it: a guard of `enter()` may outlive the `block_on` in which it was made.
//! 3. The processor may be one of another runtime than `runtime`. The local path is taken only for its own tasks.

use std::cell::Cell;
use std::marker::PhantomData;

use crate::clock;
use crate::netpoll::Netpoll;
use crate::processor::{Polled, Processor};
use crate::runtime;
use crate::sched::{RuntimeRef, Sched};
use crate::timers::Timers;

/// See the head of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    pub(crate) runtime: Option<RuntimeRef>,
    pub(crate) processor: Option<&'static Processor>,
    /// The leaves refuse nothing (`unconstrained`).
    pub(crate) unconstrained: bool,
}

/// One cell a field: the local path reads the processor and nothing else.
struct Current {
    runtime: Cell<Option<RuntimeRef>>,
    processor: Cell<Option<&'static Processor>>,
    unconstrained: Cell<bool>,
    /// The runtime that started this thread, for as long as it lives: that waits for its end, also for the destructors
    /// of its thread-locals.
    thread_of: Cell<Option<RuntimeRef>>,
    /// The runtime whose machine this thread is, while it counts as one; a thread of the pool for blocking closures
    /// does while it runs tasks.
    worker_of: Cell<Option<&'static Sched>>,
    /// How many polls of that runtime this thread has left for a `block_on` of another one. The runtime counts each as
    /// away.
    away: Cell<u32>,
    /// The runtime that counts this thread as stuck, because its poll goes on without a processor.
    released_by: Cell<Option<&'static Sched>>,
    /// See [`shared_arena`].
    shared_arena: Cell<usize>,
    /// See [`Polling`].
    polling: Cell<usize>,
}

thread_local! {
    static CURRENT: Current = const {
        Current {
            runtime: Cell::new(None),
            processor: Cell::new(None),
            unconstrained: Cell::new(false),
            thread_of: Cell::new(None),
            worker_of: Cell::new(None),
            away: Cell::new(0),
            released_by: Cell::new(None),
            shared_arena: Cell::new(0),
            polling: Cell::new(0),
        }
    };
}

#[inline]
pub(crate) fn current() -> Context {
    CURRENT.with(|c| Context {
        runtime: c.runtime.get(),
        processor: c.processor.get(),
        unconstrained: c.unconstrained.get(),
    })
}

/// The runtime that the free functions mean here, if the thread is in one.
#[inline]
pub(crate) fn runtime() -> Option<RuntimeRef> {
    CURRENT.with(|c| c.runtime.get())
}

pub(crate) fn set(context: Context) {
    CURRENT.with(|c| {
        c.runtime.set(context.runtime);
        c.processor.set(context.processor);
        c.unconstrained.set(context.unconstrained);
    });
}

/// This thread belongs to `runtime` from now on, also in the destructors of its thread-locals: what they spawn is
/// refused then, and starts no default runtime.
pub(crate) fn belong_to(runtime: RuntimeRef, as_worker: bool) {
    CURRENT.with(|c| {
        c.runtime.set(Some(runtime));
        c.thread_of.set(Some(runtime));
        c.worker_of.set(as_worker.then_some(runtime.sched));
    });
}

/// This thread is the copy of one of the parent's, in the child of a fork: it is none of the runtime's and holds
/// nothing. Its current runtime stays, which is refused there.
pub(crate) fn leave_runtimes() {
    CURRENT.with(|c| {
        c.processor.set(None);
        c.thread_of.set(None);
        c.worker_of.set(None);
        c.away.set(0);
        c.released_by.set(None);
    });
}

/// This thread is a machine of that runtime for a while, or is none any more.
pub(crate) fn set_worker_of(sched: Option<&'static Sched>) {
    CURRENT.with(|c| c.worker_of.set(sched));
}

/// Whether `runtime` started this thread, whatever that does now.
pub(crate) fn is_thread_of(runtime: RuntimeRef) -> bool {
    let own = CURRENT.with(|c| c.thread_of.get());
    own.is_some_and(|own| std::ptr::eq(own.sched, runtime.sched) && own.generation == runtime.generation)
}

/// Whether this thread is a machine of `sched`, at whatever depth of nested runtimes it is.
#[inline]
pub(crate) fn is_worker_of(sched: &'static Sched) -> bool {
    CURRENT.with(|c| c.worker_of.get()).is_some_and(|own| std::ptr::eq(own, sched))
}

/// Whether this thread is a machine, of whatever runtime.
#[inline]
pub(crate) fn is_worker() -> bool {
    CURRENT.with(|c| c.worker_of.get()).is_some()
}

/// A poll of the runtime whose machine this thread is waits in a `block_on` of another one.
pub(crate) fn worker_goes() {
    CURRENT.with(|c| c.away.set(c.away.get() + 1));
}

/// The poll of [`worker_goes`] goes on.
pub(crate) fn worker_is_back() {
    // A child of a fork has none (`leave_runtimes`).
    CURRENT.with(|c| c.away.set(c.away.get().saturating_sub(1)));
}

/// How often `sched` counts this thread as away, in that sense.
pub(crate) fn away_from(sched: &'static Sched) -> usize {
    if is_worker_of(sched) { CURRENT.with(|c| c.away.get()) as usize } else { 0 }
}

/// Which of the shared arenas of a runtime this thread goes to. All begin with the first, so that one is enough for a
/// program that spawns on one thread at a time.
#[inline]
pub(crate) fn shared_arena() -> usize {
    CURRENT.with(|c| c.shared_arena.get())
}

/// This thread has met another one that spawns in the arena that it goes to: from now on it goes to the next one.
#[cold]
pub(crate) fn leave_shared_arena() {
    CURRENT.with(|c| c.shared_arena.set(c.shared_arena.get().wrapping_add(1)));
}

/// This thread is in the poll of a task, until [`Polling::ends`]. Polls nest: a task may be in a `block_on` in which
/// this thread polls others.
pub(crate) struct Polling {
    /// To see that polls end in the reverse order in which they began.
    #[cfg(debug_assertions)]
    task: usize,
    /// What was there before: the task in whose poll this one is, 0 for none, and its marks.
    outer: usize,
}

/// What a task has done to itself in a poll.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) has_woken_itself: bool,
    /// How many wakers of its own it has made and not dropped, as far as they were noted.
    pub(crate) wakers: usize,
}

/// The marks beside the address of a cell, which is a multiple of so many: that the task has woken itself, and the
/// number of wakers that it has made.
pub(crate) const MARKS: usize = 8;
const WOKEN: usize = 1;
const WAKER: usize = 2;
const WAKERS: usize = 6;

impl Polling {
    /// `task` is the address of its cell: not 0, and a multiple of [`MARKS`].
    #[inline]
    pub(crate) fn begins(task: usize) -> Polling {
        Polling {
            #[cfg(debug_assertions)]
            task,
            outer: CURRENT.with(|c| c.polling.replace(task)),
        }
    }

    /// Tells what the task has done to itself meanwhile.
    #[inline]
    pub(crate) fn ends(self) -> Noted {
        let word = CURRENT.with(|c| c.polling.replace(self.outer));
        #[cfg(debug_assertions)]
        assert_eq!(word & !(MARKS - 1), self.task, "a poll was left that has not ended");
        Noted { has_woken_itself: word & WOKEN != 0, wakers: (word & WAKERS) / WAKER }
    }
}

/// A task is woken. If this thread is in its poll that is noted, and true: the poll that ends sees to the rest.
#[inline]
pub(crate) fn wakes_itself(task: usize) -> bool {
    notes(task, |word| Some(word | WOKEN))
}

/// A waker of a task is cloned. If this thread is in its poll, and room for that, it is noted, and true, as above.
#[inline]
pub(crate) fn clones_own_waker(task: usize) -> bool {
    notes(task, |word| (word & WAKERS != WAKERS).then_some(word + WAKER))
}

/// A waker of a task is dropped. If one was noted that the task has made in its poll, it is no more, and true.
#[inline]
pub(crate) fn drops_own_waker(task: usize) -> bool {
    notes(task, |word| (word & WAKERS != 0).then(|| word - WAKER))
}

/// If this thread is in a poll of `task` and `change` gives the word with other marks: takes it. Tells whether it did.
#[inline]
fn notes(task: usize, change: impl FnOnce(usize) -> Option<usize>) -> bool {
    CURRENT.with(|c| {
        let word = c.polling.get();
        let changed = if word & !(MARKS - 1) == task { change(word) } else { None };
        if let Some(word) = changed {
            c.polling.set(word);
        }
        changed.is_some()
    })
}

/// Sets the runtime that counts this thread as stuck without a processor, and gives the one before.
pub(crate) fn set_released_by(sched: Option<&'static Sched>) -> Option<&'static Sched> {
    CURRENT.with(|c| c.released_by.replace(sched))
}

/// Whether a runtime counts this thread as stuck, because its poll goes on without a processor.
pub(crate) fn is_released() -> bool {
    CURRENT.with(|c| c.released_by.get()).is_some()
}

/// The processor this thread holds, if it is one of `sched`.
#[inline]
pub(crate) fn processor_of(sched: &'static Sched) -> Option<&'static Processor> {
    CURRENT.with(|c| c.processor.get()).filter(|p| std::ptr::eq(p.sched, sched))
}

/// The processor this thread holds, of whatever runtime.
#[inline]
pub(crate) fn processor() -> Option<&'static Processor> {
    CURRENT.with(|c| c.processor.get())
}

/// The processor whose budget the running task lives on.
#[inline]
pub(crate) fn constrained_processor() -> Option<&'static Processor> {
    CURRENT.with(|c| if c.unconstrained.get() { None } else { c.processor.get() })
}

/// Whether others are queued here that a task can let go first without waiting for long. Where polls are long it would
/// lose its place: what the netpoller brings goes before them, and what yields does not. And where a processor has no
/// work the task would be run there, or one of the others would. And to the thread of a `block_on` others are other
/// threads.
pub(crate) fn others_go_quickly() -> bool {
    constrained_processor().is_some_and(|p| {
        let counts = p.sched.idle.counts();
        let is_task = matches!(p.polled(), Polled::Task(..));
        is_task && p.queue.len_seen() > 0 && !p.is_slow() && counts.idle() == 0 && counts.spinning() == 0
    })
}

/// Sets the processor of this thread and leaves the rest.
#[inline]
pub(crate) fn set_processor(processor: Option<&'static Processor>) {
    CURRENT.with(|c| c.processor.set(processor));
}

/// Another runtime is the current one until this is dropped; then the former one is again. Not `Send`: it belongs to
/// the thread.
#[derive(Debug)]
pub(crate) struct Entered {
    before: Option<RuntimeRef>,
    _thread: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with(|c| c.runtime.set(self.before));
    }
}

/// Makes `runtime` the current one. The processor stays: a wait inside must be able to give it up.
pub(crate) fn enter(runtime: RuntimeRef) -> Entered {
    Entered { before: CURRENT.with(|c| c.runtime.replace(Some(runtime))), _thread: PhantomData }
}

/// Restores only the flag: the processor may have changed hands meanwhile.
pub(crate) struct Unconstrained(bool);

impl Drop for Unconstrained {
    fn drop(&mut self) {
        CURRENT.with(|c| c.unconstrained.set(self.0));
    }
}

pub(crate) fn enter_unconstrained() -> Unconstrained {
    Unconstrained(CURRENT.with(|c| c.unconstrained.replace(true)))
}

/// The time on the clock of the runtime that the free functions mean here: the current one, else the default one if
/// there is one.
#[inline]
pub(crate) fn now() -> u64 {
    let real = clock::now();
    // After the reading: see `PausableClock`.
    if clock::was_ever_paused() { paused_now(real) } else { real }
}

#[cold]
fn paused_now(real: u64) -> u64 {
    match current().runtime.or_else(runtime::default_if_any) {
        Some(runtime) if runtime.is_there() => runtime.sched.clock.now(),
        _ => real,
    }
}

/// Whether this thread is in a `block_on` of a runtime that is shut down, or is being shut down.
#[cold]
pub(crate) fn blocks_on_what_is_shut_down() -> bool {
    let has_this_thread = |runtime: RuntimeRef| runtime.sched.waits.has_this_thread(runtime.generation);
    current().runtime.is_some_and(|runtime| !runtime.is_open() && has_this_thread(runtime))
}

/// The store that a timer of this thread goes to: that of the processor it holds, else of the first slot of its
/// runtime. If that runtime is gone, one that is closed. A thread of no runtime for which none can be built is told so:
/// nobody would ever fire its timer, and nothing but this says why.
#[inline]
pub(crate) fn timer_home() -> &'static Timers {
    static GONE: Timers = Timers::closed();
    let cx = current();
    if let (Some(p), Some(runtime)) = (cx.processor, cx.runtime) {
        if std::ptr::eq(p.sched, runtime.sched) {
            return &p.sched.slot(p.index).timers;
        }
    }
    match runtime::current() {
        Ok(runtime) => &runtime.sched.slot(0).timers,
        Err(_) if cx.runtime.is_some() => &GONE,
        Err(e) => no_runtime_for_a_sleep(&e),
    }
}

#[cold]
fn no_runtime_for_a_sleep(error: &std::io::Error) -> ! {
    panic!("a sleep has no runtime: {error}")
}

/// A task began to wait for I/O at `netpoll`. A thread that holds a processor of that runtime looks itself when it goes
/// idle, but in a poll on a husk, which may last; beside any other somebody must sit there.
#[inline]
pub(crate) fn io_is_awaited(netpoll: &'static Netpoll) {
    if !processor().is_some_and(|p| std::ptr::eq(&p.sched.netpoll, netpoll) && !p.queue.next.is_condemned()) {
        io_is_awaited_outside(netpoll);
    }
}

#[cold]
fn io_is_awaited_outside(netpoll: &'static Netpoll) {
    let is_of = |sched: &Sched| std::ptr::eq(&sched.netpoll, netpoll);
    let here = runtime().or_else(runtime::default_if_any).map(|runtime| runtime.sched).filter(|sched| is_of(sched));
    // A socket may have been moved to a thread of another runtime.
    if let Some(sched) = here.or_else(|| runtime::all_slots().into_iter().find(|sched| is_of(sched))) {
        sched.io_is_awaited();
    }
}

/// A timer with this deadline became the earliest of `home`: whoever sleeps for it must not sleep longer. A thread that
/// holds a processor of that runtime looks itself when it goes idle, but in a poll on a husk, as in `io_is_awaited`. If
/// it is made one just now, `sysmon` looks once more.
pub(crate) fn timer_is_earliest(home: &'static Timers, deadline: u64) {
    let cx = current();
    let is_of = |sched: &Sched| sched.slots().any(|slot| std::ptr::eq(&slot.timers, home));
    if let Some(p) = cx.processor.filter(|p| !p.queue.next.is_condemned()) {
        if std::ptr::eq(&p.sched.slot(p.index).timers, home) || is_of(p.sched) {
            return;
        }
    }
    // A `Sleep` may have been moved to a thread of another runtime.
    let here = cx.runtime.map(|runtime| runtime.sched).filter(|sched| is_of(sched));
    let sched = here.or_else(|| runtime::all_slots().into_iter().find(|sched| is_of(sched)));
    if let Some(sched) = sched {
        sched.timer_is_earliest(deadline);
    }
}

#[cfg(all(test, not(gmp_loom)))]
mod tests {
    use super::*;

    const OUTER: usize = 16;
    const INNER: usize = 24;

    fn noted(has_woken_itself: bool, wakers: usize) -> Noted {
        Noted { has_woken_itself, wakers }
    }

    #[test]
    fn r01_a_wake_of_itself_is_that_of_the_innermost_poll() {
        assert!(!wakes_itself(OUTER), "it is in no poll");
        let outer = Polling::begins(OUTER);
        assert!(wakes_itself(OUTER) && wakes_itself(OUTER) && !wakes_itself(INNER));
        let inner = Polling::begins(INNER);
        assert!(!wakes_itself(OUTER), "nobody would tell who queues it");
        assert_eq!(inner.ends(), noted(false, 0));
        let inner = Polling::begins(INNER);
        assert!(wakes_itself(INNER));
        assert_eq!(inner.ends(), noted(true, 0));
        assert_eq!(outer.ends(), noted(true, 0), "it woke itself before");
        let outer = Polling::begins(OUTER);
        assert_eq!(Polling::begins(INNER).ends(), noted(false, 0));
        assert_eq!(outer.ends(), noted(false, 0), "that was before");
    }

    #[test]
    fn r01_wakers_that_a_task_makes_are_noted_in_its_innermost_poll_as_far_as_there_is_room() {
        assert!(!clones_own_waker(OUTER) && !drops_own_waker(OUTER), "it is in no poll");
        let outer = Polling::begins(OUTER);
        assert!(!drops_own_waker(OUTER), "it was made before");
        assert!(clones_own_waker(OUTER) && !clones_own_waker(INNER));
        let inner = Polling::begins(INNER);
        assert!(!clones_own_waker(OUTER) && !drops_own_waker(OUTER), "the other poll goes on");
        assert!((0..3).all(|_| clones_own_waker(INNER)) && !clones_own_waker(INNER));
        assert!(wakes_itself(INNER) && drops_own_waker(INNER));
        assert_eq!(inner.ends(), noted(true, 2));
        assert!(clones_own_waker(OUTER) && drops_own_waker(OUTER));
        assert_eq!(outer.ends(), noted(false, 1));
    }
}
