//! Tasks (G): a future, its state and what the scheduler knows of it. `sched` runs units, which are made and taken
//! apart here.
//!
//! 1. A task is live until its future is dropped. Until then it is found by the registry or the walk of an arena, also
//!    one that waits for nothing or that nobody can wake: its future is dropped at shutdown.
//! 2. The future is polled and dropped inside `catch_unwind`, and so is the output: a panic of theirs goes to the
//!    handle.
//! 3. A wake never drops a task and never runs user code: it only pushes. Dropping there would run a destructor inside
//!    `wake`, under whatever lock the waker's caller holds.
//! 4. Everything needed of a task is read before it is pushed: afterwards another thread may run it to its end and free
//!    it.
//! 5. A task belongs to a runtime, which runs and drops it on any of its threads and has it in a cell of ours (`cell`,
//!    `state`), or to a local set (`local`), which has it in one of `async-task` (`bound`). Run queues hold none but
//!    the first kind.
//!
//! What makes tasks, and where these are until they end:
//!
//! | function         | for                                                         | its cell, and who finds it            |
//! |------------------|-------------------------------------------------------------|---------------------------------------|
//! | `spawn_here`     | the runtime that this thread is in, in the caller's code    | by `spawn_in`, or the next one's      |
//! | `spawn`          | a runtime that is named                                     | by `spawn_in` or `spawn_apart`        |
//! | `spawn_in`       | a thread that holds a processor                             | in its arena, whose walk finds it     |
//! | `spawn_apart`    | one that does not, and futures that fit in no arena         | in a shared arena, or in the registry |
//! | `spawn_counted`  | runtimes that look for leaks                                | in the registry                       |
//! | `spawn_blocking` | closures that may block                                     | in the registry; brief ones in an arena |
//! | `spawn_pinned`   | a thread of its own                                         | `bound`'s, in a set of its own        |
//!
//! The word of a cell that is not its state, and with it ids:
//!
//! | bits   | mean                                                                                    |
//! |--------|-----------------------------------------------------------------------------------------|
//! | 63     | nothing here; a flag of `bound`                                                         |
//! | 62     | the memory is that of an arena, which shutdown walks; the task is in no registry        |
//! | 61     | a blocking closure that no thread of the pool has begun                                 |
//! | 53–60  | shard of the registry; the last one stands for all local sets, which number on their own, the one before for all arenas, where a runtime counts |
//! | 26–52  | index in the shard                                                                      |
//! | 0–25   | how many tasks the shard had seen before, so that ids of live tasks and their like differ |

use std::panic::Location;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::Waker;

use crate::blocking::Closure;
use crate::context;
use crate::leak::Counted;
use crate::processor::{Polled, Processor};
use crate::runq::Unit;
use crate::sched::{How, RuntimeRef};
use crate::sys::assert_no_lock_held;

pub(crate) use cell::{is_waker, wake_all_in};
pub use join::{AbortHandle, JoinError, JoinHandle};
pub use local_set::{LocalEnterGuard, LocalSet, spawn_local};
pub(crate) use panics::swallow;
pub use yield_now::{YieldNow, yield_now};

use cell::Task;
use local::{HomeRef, Set};
use outcome::{Failure, Outcome, Output};
use panics::caught;
use registry::Refused;

pub(crate) mod arena;
mod bound;
mod cell;
mod join;
pub(crate) mod local;
mod local_set;
mod outcome;
mod panics;
pub(crate) mod registry;
mod state;
mod yield_now;

const IN_ARENA: u64 = 1 << 62;
const BLOCKING: u64 = 1 << 61;
/// What is no part of the id.
const FLAGS: u64 = !0 << 61;

/// Names a task: no two live tasks of a runtime have the same one. A number may come back after the task has ended.
///
/// # Examples
///
/// ```
/// gmp::block_on(async {
///     let a = gmp::spawn(async {});
///     let b = gmp::spawn(async {});
///     assert_ne!(a.id(), b.id());
/// });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(u64);

impl Id {
    /// A task that never entered the registry, because the runtime was shut down.
    const NONE: Id = Id(!FLAGS);
    const COUNT_BITS: u32 = 26;
    const INDEX_BITS: u32 = 27;
    /// Shards that an id can name.
    pub(crate) const SHARDS: u32 = 1 << 8;
    /// The shard that stands for all local sets.
    const LOCAL: u32 = Self::SHARDS - 1;
    /// The shard that stands for all arenas.
    const ARENAS: u32 = Self::LOCAL - 1;
    /// Tasks in arenas are numbered in blocks of so many, of which a processor takes one after the other.
    pub(crate) const BLOCK: u64 = 1 << 20;
    /// Of a local task's id: which one of its set it is. The rest says which set.
    const LOCAL_BITS: u32 = 32;
    /// Tasks of a shard that an id can name.
    const INDICES: usize = 1 << Self::INDEX_BITS;

    #[inline]
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> Id {
        Id(bits)
    }

    fn new(shard: u32, index: u32, count: u64) -> Id {
        let count = count & ((1 << Self::COUNT_BITS) - 1);
        let shard = u64::from(shard % Self::SHARDS);
        Id(shard << (Self::INDEX_BITS + Self::COUNT_BITS) | u64::from(index) << Self::COUNT_BITS | count)
    }

    /// `number` is the runtime's own, from a block.
    #[inline]
    fn in_arena(number: u64) -> Id {
        let bits = Self::INDEX_BITS + Self::COUNT_BITS;
        Id(u64::from(Self::ARENAS) << bits | number & ((1 << bits) - 1))
    }

    fn local(home: u32, count: u64) -> Id {
        let bits = Self::INDEX_BITS + Self::COUNT_BITS;
        let count = count & ((1 << Self::LOCAL_BITS) - 1);
        let home = u64::from(home) & ((1 << (bits - Self::LOCAL_BITS)) - 1);
        Id(u64::from(Self::LOCAL) << bits | home << Self::LOCAL_BITS | count)
    }

    #[inline]
    fn shard(self) -> u32 {
        (self.0 >> (Self::INDEX_BITS + Self::COUNT_BITS)) as u32
    }

    #[inline]
    fn index(self) -> u32 {
        (self.0 >> Self::COUNT_BITS) as u32 & ((1 << Self::INDEX_BITS) - 1)
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Id({})", self.0)
    }
}

/// Makes a task of `future` on the runtime and queues it. If the runtime is shut down the future is dropped and the
/// handle says so (Go: `newproc`).
///
/// On a processor of the runtime nothing is asked but whether the runtime looks for leaks: the task is found by the
/// walk of the processor's arena, and that the runtime is closing does no harm. See invariant 5 of `runtime::shutdown`.
#[inline]
pub(crate) fn spawn<F>(runtime: RuntimeRef, location: &'static Location<'static>, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let sched = runtime.sched;
    if let Some(p) = context::processor_of(sched) {
        if sched.spawns_in_arenas(runtime.generation) {
            if let Some(memory) = cell::memory_of::<F>(p) {
                // SAFETY: the memory is new. This thread holds the processor that the context names.
                return unsafe { spawn_in(p, memory, location, future) };
            }
        }
    }
    spawn_apart(runtime, location, future)
}

/// The future is made where it stays (see [`spawn_here`]) if it has more bytes than this: up to here it goes to a
/// function in a register.
const IN_REGISTER: usize = size_of::<usize>();
/// And no more than this: beyond it is copied as a whole.
const IN_PIECES: usize = 512;

/// [`spawn`] on the runtime that this thread is in. Where nothing is in the way it is done in the caller's code: there
/// is no call before the future is in its cell, so that the compiler can write there what it is made of. For a function
/// of its own the caller would write the future to its stack, field by field, and the function load it from there in
/// wider pieces, which a CPU does not forward: it waits until the stores are in the cache.
// Always: a call is what it is to save.
#[inline(always)]
pub(crate) fn spawn_here<F>(
    location: &'static Location<'static>,
    future: F,
    otherwise: fn(&'static Location<'static>, F) -> JoinHandle<F::Output>,
) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let is_worth_it = const { size_of::<F>() > IN_REGISTER && size_of::<F>() <= IN_PIECES };
    match if is_worth_it { cell::memory_here::<F>() } else { None } {
        // SAFETY: the memory is new. This thread holds the processor that the context names.
        Some((p, memory)) => unsafe { spawn_in(p, memory, location, future) },
        None => otherwise(location, future),
    }
}

/// Makes a task of `future` in a cell of the arena of `p`, and queues it there.
///
/// # Safety
///
/// The memory is such a cell, for `F`, and new. This thread holds `p`.
#[inline(always)]
unsafe fn spawn_in<F>(
    p: &'static Processor,
    memory: NonNull<u8>,
    location: &'static Location<'static>,
    future: F,
) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let word = IN_ARENA | Id::in_arena(p.next_task_number()).0;
    // SAFETY: future and output are `Send` and 'static. The memory is new; so is the task, whose unit is ours.
    unsafe {
        let (task, join) = cell::new(memory, location, word, future);
        p.sched.spawned_on(p, task.into_unit());
        JoinHandle::new(join)
    }
}

/// [`spawn`] of a task that cannot lie in the arena of this thread's processor: in a shared arena, if that is for want
/// of a processor, else in the registry.
#[inline(never)]
fn spawn_apart<F>(runtime: RuntimeRef, location: &'static Location<'static>, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let sched = runtime.sched;
    if sched.detects() {
        return spawn_counted(runtime, location, Box::pin(future));
    }
    if let Some((memory, number)) = cell::memory_outside::<F>(runtime) {
        let word = IN_ARENA | Id::in_arena(number).0;
        // SAFETY: future and output are `Send` and 'static. The memory is new; so is the task, whose unit is ours.
        unsafe {
            let (task, join) = cell::new(memory, location, word, future);
            sched.ready_foreign(task.into_unit());
            return JoinHandle::new(join);
        }
    }
    // SAFETY: future and output are `Send` and 'static.
    let (task, join) = unsafe { cell::new_apart(sched, location, Id::NONE.0, future) };
    let handle = JoinHandle::new(join);
    // SAFETY: the task is new.
    if unsafe { enter(runtime, task) } {
        sched.spawned(task.into_unit());
    }
    handle
}

/// [`spawn`] where leaks are looked for. The future is boxed, so that a program has this form once for each type of
/// output and not for each future.
#[cold]
#[inline(never)]
fn spawn_counted<T: Send + 'static>(
    runtime: RuntimeRef,
    location: &'static Location<'static>,
    future: Pin<Box<dyn Future<Output = T> + Send>>,
) -> JoinHandle<T> {
    let future = Counted::new(future, false);
    let tally = future.tally().clone();
    // SAFETY: future and output are `Send` and 'static.
    let (task, join) = unsafe { cell::new_apart(runtime.sched, location, Id::NONE.0, future) };
    let handle = JoinHandle::new(join);
    // SAFETY: the task is new, and not queued before it is.
    unsafe {
        if enter(runtime, task) {
            registry::tell(task, tally);
            runtime.sched.spawned(task.into_unit());
        }
    }
    handle
}

/// Makes a task of the closure `f` and queues it for the pool, or here, if it is known to be brief. If the runtime is
/// shut down it is dropped at once and the handle says so.
pub(crate) fn spawn_blocking<F, R>(runtime: RuntimeRef, location: &'static Location<'static>, f: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let closure = Closure::new(location, f);
    let here = context::processor_of(runtime.sched).filter(|p| closure.is_brief_on(p));
    if let Some(p) = here.filter(|p| p.sched.spawns_in_arenas(runtime.generation)) {
        if let Some(memory) = cell::memory_of::<Closure<F>>(p) {
            let word = IN_ARENA | BLOCKING | Id::in_arena(p.next_task_number()).0;
            // SAFETY: as in `spawn_in`.
            unsafe {
                let (task, join) = cell::new(memory, location, word, closure);
                p.sched.ready_brief(p, task.into_unit());
                return JoinHandle::new(join);
            }
        }
    }
    // SAFETY: closure and output are `Send` and 'static.
    let (task, join) = unsafe { cell::new_apart(runtime.sched, location, BLOCKING | Id::NONE.0, closure) };
    let handle = JoinHandle::new(join);
    // SAFETY: the task is new.
    if unsafe { enter(runtime, task) } {
        runtime.sched.push_blocking(task.into_unit());
    }
    handle
}

/// Makes a task of a thread of its own, which polls and drops the future that `f` makes, and starts that thread. If the
/// runtime is shut down the closure is dropped at once and the handle says so (Go: `LockOSThread`).
pub(crate) fn spawn_pinned<F, Fut>(
    runtime: RuntimeRef,
    location: &'static Location<'static>,
    f: F,
) -> JoinHandle<Fut::Output>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future + 'static,
    Fut::Output: Send + 'static,
{
    let set = HomeRef::open();
    let (root, handle) = set.spawn_pinned(runtime, location, f);
    if let Err(registry::Closed) = runtime.sched.start_pinned(runtime, set, root, location) {
        // SAFETY: no thread was started, so the set is ours, and in it is nothing but the closure.
        drop(unsafe { Set::adopt(set) });
    }
    handle
}

/// Enters a task. Tells whether the caller is to queue it; if not, the runtime is shut down and the future was dropped.
///
/// # Safety
///
/// The task is new: the caller has its unit.
unsafe fn enter(runtime: RuntimeRef, task: Task) -> bool {
    // SAFETY: passed on. What is refused is nowhere, so the unit is still ours.
    let Err(refused) = (unsafe { registry::insert(runtime, task) }) else {
        return true;
    };
    discard(task.into_unit());
    match refused {
        Refused::Closed => false,
        Refused::Full => panic!("more than {} live tasks were spawned in one place", Id::INDICES),
    }
}

#[inline]
pub(crate) fn id(unit: &Unit) -> Id {
    // SAFETY: the unit keeps the task.
    unsafe { Task::of_unit(unit).id() }
}

/// Where its cell lies.
pub(crate) fn address(unit: &Unit) -> usize {
    Task::of_unit(unit).address()
}

/// Whether it was aborted, as far as who asks can know.
pub(crate) fn is_aborted(unit: &Unit) -> bool {
    // SAFETY: the unit keeps the task.
    unsafe { Task::of_unit(unit).is_aborted() }
}

/// What a poll of it is.
pub(crate) fn polled(unit: &Unit) -> Polled {
    let task = Task::of_unit(unit);
    // SAFETY: the unit keeps the task.
    unsafe { Polled::Task(task.id(), task.location()) }
}

/// Where it was spawned, and a number for the type of its future; `None` if it is a blocking closure, of which more is
/// known by its kind.
pub(crate) fn spawned_as(unit: &Unit) -> Option<(&'static Location<'static>, usize)> {
    let task = Task::of_unit(unit);
    // SAFETY: the unit keeps the task.
    unsafe { (!task.is_closure()).then(|| (task.location(), task.type_number())) }
}

/// Polls the task once on `p`, which this thread holds.
#[inline]
pub(crate) fn run(unit: Unit, p: &Processor) {
    assert_no_lock_held();
    let task = Task::from_unit(unit);
    // SAFETY: the unit was ours, and is again if the task was woken. A processor runs the tasks of its runtime.
    unsafe {
        p.polls_for(task.id(), task.location());
        if cell::run(task, p.sched) {
            if task.is_closure() {
                // It is not for a processor any more.
                p.sched.push_blocking(task.into_unit());
            } else {
                p.sched.ready(task.into_unit(), How::Yielded);
            }
        }
    }
}

/// Runs the closure of [`spawn_blocking`]. Gives the waker of who waits for it, which the caller wakes.
pub(crate) fn run_closure(unit: Unit) -> Option<Waker> {
    assert_no_lock_held();
    let task = Task::from_unit(unit);
    // SAFETY: the unit was ours, and nothing but closures is queued for the pool. The slot of a runtime is there for
    // ever.
    unsafe { cell::run_closure(task, task.sched()) }
}

/// Drops the task's future without polling it; its handle says "runtime shut down".
pub(crate) fn discard(unit: Unit) {
    assert_no_lock_held();
    // SAFETY: the unit was ours.
    unsafe { cell::discard(Task::from_unit(unit)) };
}
