//! Tasks (G): an `async-task` cell around the user's future, and what the scheduler knows of it. `sched` runs units, which
//! are made and taken apart here; this is the one file that names `async-task`'s runnables.
//!
//! 1. A task is live from its entry in the registry until its future is dropped. The registry holds a counted reference
//!    meanwhile: a task that waits for nothing, or that nobody can wake, still has its future dropped at shutdown.
//! 2. The future is polled and dropped inside `catch_unwind`, and so is the output: `async-task` never sees a panic of
//!    theirs.
//! 3. `schedule` never drops a task and never runs user code: it only pushes. Dropping there would run a destructor inside
//!    `wake`, under whatever lock the waker's caller holds.
//! 4. Everything needed of a task is read before it is pushed: afterwards another thread may run it to its end and free it.
//! 5. A task belongs to a runtime, which runs and drops it on any of its threads, or to a local set (`local`), which
//!    keeps both the registry entry and the runnable.
//!
//! `Meta::word`:
//!
//! | bits   | mean                                                                                    |
//! |--------|-----------------------------------------------------------------------------------------|
//! | 63     | aborted: set by any handle, seen by the next poll, which drops the future. Set under the lock of the task's shard |
//! | 62     | ended: the future is gone. Set under the lock of the task's shard                        |
//! | 61     | a blocking closure: queued for the pool. Written once, before the task is queued        |
//! | 53–60  | shard of the registry; the last one stands for all local sets, which number on their own |
//! | 26–52  | index in the shard                                                                      |
//! | 0–25   | how many tasks the shard had seen before, so that ids of live tasks and their like differ |

use std::any::Any;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use async_task::{Runnable, ScheduleInfo, WithInfo};

use crate::leak::Counted;
use crate::processor::Processor;
use crate::runq::Unit;
use crate::sched::{How, RuntimeRef, Sched};
use crate::sys::assert_no_lock_held;
use crate::sys::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

pub use join::{AbortHandle, JoinError, JoinHandle};
pub use local_set::{LocalEnterGuard, LocalSet, spawn_local};
pub use yield_now::{YieldNow, yield_now};

use local::{Home, HomeRef, Set};

pub(crate) mod arena;
mod join;
pub(crate) mod local;
mod local_set;
pub(crate) mod registry;
mod yield_now;

const ABORTED: u64 = 1 << 63;
const ENDED: u64 = 1 << 62;
const BLOCKING: u64 = 1 << 61;
/// What is no part of the id.
const FLAGS: u64 = ABORTED | ENDED | BLOCKING;

/// What the scheduler knows of a task. It lies in the task's cell.
#[derive(Debug)]
pub(crate) struct Meta {
    owner: Owner,
    /// Where the task was spawned.
    pub(crate) location: &'static Location<'static>,
    /// See the head of the file. The id is written once, before the task is pushed; the bits that come later are written under
    /// the lock of the task's shard, or of its set.
    word: AtomicU64,
}

/// What a task belongs to: the address of a runtime slot or of a set's home. The lowest bits say which.
#[derive(Debug, Clone, Copy)]
struct Owner(*const ());

// SAFETY: it stands for a reference to one of two types that are `Sync`, for ever.
unsafe impl Send for Owner {}
// SAFETY: as above.
unsafe impl Sync for Owner {}

/// What an [`Owner`] stands for.
enum OwnedBy {
    Runtime(&'static Sched),
    /// The task is in a local set; `pinned`: it is that of a thread of its own.
    Set {
        home: &'static Home,
        pinned: bool,
    },
}

impl Owner {
    const RUNTIME: usize = 0;
    const SET: usize = 1;
    const PINNED: usize = 2;
    const TAGS: usize = 3;

    fn runtime(sched: &'static Sched) -> Owner {
        Owner::new(std::ptr::from_ref(sched), Self::RUNTIME)
    }

    fn set(home: &'static Home) -> Owner {
        Owner::new(std::ptr::from_ref(home), Self::SET)
    }

    fn pinned(home: &'static Home) -> Owner {
        Owner::new(std::ptr::from_ref(home), Self::PINNED)
    }

    fn new<T>(owner: *const T, tag: usize) -> Owner {
        const { assert!(align_of::<T>() > Owner::TAGS) };
        Owner(owner.map_addr(|address| address | tag).cast())
    }

    #[inline]
    fn get(self) -> OwnedBy {
        let owner = self.0.map_addr(|address| address & !Self::TAGS);
        match self.0.addr() & Self::TAGS {
            // SAFETY: `runtime` made it.
            Self::RUNTIME => OwnedBy::Runtime(unsafe { &*owner.cast() }),
            // SAFETY: `set` or `pinned` made it.
            tag => OwnedBy::Set { home: unsafe { &*owner.cast() }, pinned: tag == Self::PINNED },
        }
    }
}

impl Meta {
    /// The runtime of a task that belongs to one.
    #[inline]
    fn sched(&self) -> &'static Sched {
        match self.owner.get() {
            OwnedBy::Runtime(sched) => sched,
            OwnedBy::Set { .. } => unreachable!("a task of a set was sent to a runtime"),
        }
    }

    /// The home of a task that belongs to a set.
    fn home(&self) -> &'static Home {
        match self.owner.get() {
            OwnedBy::Set { home, .. } => home,
            OwnedBy::Runtime(_) => unreachable!("a task of a runtime was sent to a set"),
        }
    }

    /// Whether the task is in a local set, and not that of a thread of its own.
    fn is_local(&self) -> bool {
        matches!(self.owner.get(), OwnedBy::Set { pinned: false, .. })
    }

    #[inline]
    fn id(&self) -> Id {
        Id(self.word.load(Relaxed) & !FLAGS)
    }

    /// The task gets its name. Nobody else knows it yet.
    fn set_id(&self, id: Id) {
        self.word.store(self.word.load(Relaxed) & FLAGS | id.0, Relaxed);
    }

    fn is_blocking(&self) -> bool {
        self.word.load(Relaxed) & BLOCKING != 0
    }

    #[inline]
    fn is_aborted(&self) -> bool {
        // Acquire: pairs with `abort`; the task sees what its aborter did before.
        self.word.load(Acquire) & ABORTED != 0
    }

    /// The lock of the shard is held.
    fn abort(&self) {
        // Release: pairs with the Acquire in `is_aborted`.
        self.word.store(self.word.load(Relaxed) | ABORTED, Release);
    }

    fn is_ended(&self) -> bool {
        self.word.load(Relaxed) & ENDED != 0
    }

    /// The lock of the shard is held.
    fn end(&self) {
        self.word.store(self.word.load(Relaxed) | ENDED, Relaxed);
    }
}

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

/// Why a task gave no output.
pub(crate) enum Failure {
    Aborted,
    Panicked(Payload),
}

/// A panic's payload on its way to the handle. It is a value of the user's: its destructor may panic too. No larger than
/// the box, as every task has room for it.
pub(crate) struct Payload(ManuallyDrop<Box<dyn Any + Send>>);

impl Payload {
    fn new(payload: Box<dyn Any + Send>) -> Self {
        Payload(ManuallyDrop::new(payload))
    }

    fn into_inner(mut self) -> Box<dyn Any + Send> {
        // SAFETY: `self` is forgotten, so the box is taken once.
        let payload = unsafe { ManuallyDrop::take(&mut self.0) };
        std::mem::forget(self);
        payload
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        // SAFETY: nobody took the box: `into_inner` forgets `self`.
        let payload = unsafe { ManuallyDrop::take(&mut self.0) };
        swallow(|| drop(payload));
    }
}

/// The output on its way to the handle. If nobody takes it, its destructor may panic without harm.
pub(crate) struct Output<T>(ManuallyDrop<T>);

impl<T> Output<T> {
    fn into_inner(mut self) -> T {
        // SAFETY: `self` is forgotten, so the value is taken once.
        let value = unsafe { ManuallyDrop::take(&mut self.0) };
        std::mem::forget(self);
        value
    }
}

impl<T> Drop for Output<T> {
    fn drop(&mut self) {
        // SAFETY: nobody took the value: `into_inner` forgets `self`.
        swallow(|| unsafe { ManuallyDrop::drop(&mut self.0) });
    }
}

/// Runs a destructor and gives back its panic.
fn caught(destructor: impl FnOnce()) -> Result<(), Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(destructor))
}

/// Runs a destructor, or a hook, whose panic nobody can be told of. The hook has printed it already.
pub(crate) fn swallow(destructor: impl FnOnce()) {
    if let Err(payload) = caught(destructor) {
        // The payload may be a value whose destructor panics in its turn; leaking that one ends the regress.
        if let Err(again) = caught(|| drop(payload)) {
            std::mem::forget(again);
        }
    }
}

/// The user's future with its meta data.
struct Guarded<F> {
    /// Null once the future is gone. Valid before: the meta data lies in the same cell.
    meta: *const Meta,
    /// Gone if `meta` is null.
    future: ManuallyDrop<F>,
}

// SAFETY: the pointer leads to a `Sync` value in the same allocation.
unsafe impl<F: Send> Send for Guarded<F> {}

impl<F> Guarded<F> {
    /// Drops the future, takes the task out of the registry and gives back the panic of a destructor.
    fn end(&mut self) -> Result<(), Box<dyn Any + Send>> {
        let meta = std::mem::replace(&mut self.meta, std::ptr::null());
        if meta.is_null() {
            return Ok(());
        }
        assert_no_lock_held();
        // SAFETY: the future was there as `meta` was not null, and is never touched again.
        let result = caught(|| unsafe { ManuallyDrop::drop(&mut self.future) });
        // SAFETY: the meta data lies in the cell that this future lies in.
        registry::remove(unsafe { &*meta });
        result
    }
}

impl<F: Future> Future for Guarded<F> {
    type Output = Result<Output<F::Output>, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: the future is never moved out of the pinned `self`, only dropped in place.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: the future is there, as `async-task` polls nothing that was ready; so is its meta data.
        let meta = unsafe { &*this.meta };
        if meta.is_aborted() {
            return Poll::Ready(Err(match this.end() {
                Ok(()) => Failure::Aborted,
                Err(payload) => Failure::Panicked(Payload::new(payload)),
            }));
        }
        // SAFETY: structural pinning, as above.
        let future = unsafe { Pin::new_unchecked(&mut *this.future) };
        let result = match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(Output(ManuallyDrop::new(output))),
            Err(payload) => Err(Failure::Panicked(Payload::new(payload))),
        };
        Poll::Ready(match (this.end(), result) {
            (Ok(()), result) => result,
            // The first panic is the one to tell of.
            (Err(second), Err(first)) => {
                swallow(|| drop(second));
                Err(first)
            }
            (Err(payload), Ok(output)) => {
                drop(output);
                Err(Failure::Panicked(Payload::new(payload)))
            }
        })
    }
}

impl<F> Drop for Guarded<F> {
    fn drop(&mut self) {
        if let Err(payload) = self.end() {
            swallow(|| drop(payload));
        }
    }
}

/// Makes a task of `future` on the runtime and queues it. If the runtime is shut down the future is dropped at once and
/// the handle says so (Go: `newproc`).
pub(crate) fn spawn<F>(runtime: RuntimeRef, location: &'static Location<'static>, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    if runtime.sched.detects() {
        return spawn_counted(runtime, location, Box::pin(future));
    }
    // SAFETY: future and output are `Send` and 'static.
    let (runnable, handle) = unsafe { cell(Owner::runtime(runtime.sched), location, 0, future, schedule) };
    enter(runtime, runnable, |runnable| runtime.sched.spawned(into_unit(runnable)));
    handle
}

/// [`spawn`] where leaks are looked for. The future is boxed, so that a program has this form once for each type of output
/// and not for each future.
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
    let (runnable, handle) = unsafe { cell(Owner::runtime(runtime.sched), location, 0, future, schedule) };
    enter(runtime, runnable, |runnable| {
        registry::tell(runnable.metadata(), tally);
        runtime.sched.spawned(into_unit(runnable));
    });
    handle
}

/// Makes a task of the closure `f` and queues it for the pool. If the runtime is shut down it is dropped at once and the
/// handle says so.
pub(crate) fn spawn_blocking<F, R>(runtime: RuntimeRef, location: &'static Location<'static>, f: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    /// Ready at its first poll.
    struct Closure<F>(Option<F>);

    // The closure is never pinned.
    impl<F> Unpin for Closure<F> {}

    impl<F: FnOnce() -> R, R> Future for Closure<F> {
        type Output = R;

        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<R> {
            let f = self.0.take().expect("a closure was called twice");
            Poll::Ready(f())
        }
    }

    let (owner, closure) = (Owner::runtime(runtime.sched), Closure(Some(f)));
    // SAFETY: closure and output are `Send` and 'static.
    let (runnable, handle) = unsafe { cell(owner, location, BLOCKING, closure, schedule_blocking) };
    enter(runtime, runnable, Runnable::schedule);
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

/// Enters a task, and queues it for the first time by `queue`.
fn enter(runtime: RuntimeRef, runnable: Runnable<Meta>, queue: impl FnOnce(Runnable<Meta>)) {
    match registry::insert(runtime, &runnable) {
        Ok(()) => queue(runnable),
        // The future is dropped here, after the registry's lock was let go.
        Err(registry::Closed) => drop(runnable),
    }
}

/// Makes a task, which is to be entered and queued. `kind` is its flags.
///
/// # Safety
///
/// The future may be polled and dropped wherever its owner and `schedule` bring the runnable, and its output wherever the
/// handle may go, for as long as they live.
unsafe fn cell<F: Future>(
    owner: Owner,
    location: &'static Location<'static>,
    kind: u64,
    future: F,
    schedule: impl Fn(Runnable<Meta>, ScheduleInfo) + Copy + Send + Sync + 'static,
) -> (Runnable<Meta>, JoinHandle<F::Output>) {
    let meta = Meta { owner, location, word: AtomicU64::new(Id::NONE.0 | kind) };
    let future = |meta: &Meta| Guarded { meta, future: ManuallyDrop::new(future) };
    // SAFETY: passed on; the schedule function is a function without state, and any waker may move anywhere.
    let (runnable, task) =
        unsafe { async_task::Builder::new().metadata(meta).spawn_unchecked(future, WithInfo(schedule)) };
    let meta = std::ptr::from_ref(task.metadata());
    // SAFETY: the handle keeps the cell alive as long as it has not let go of `task`.
    let handle = unsafe { JoinHandle::new(task.fallible(), meta) };
    (runnable, handle)
}

fn schedule(runnable: Runnable<Meta>, info: ScheduleInfo) {
    let sched = runnable.metadata().sched();
    let how = if info.woken_while_running { How::Yielded } else { How::Woken };
    sched.ready(into_unit(runnable), how);
}

/// For a closure: it is queued when it is spawned, and never again.
fn schedule_blocking(runnable: Runnable<Meta>, _: ScheduleInfo) {
    let sched = runnable.metadata().sched();
    sched.push_blocking(into_unit(runnable));
}

#[inline]
fn into_unit(runnable: Runnable<Meta>) -> Unit {
    Unit::new(runnable.into_raw())
}

#[inline]
fn from_unit(unit: Unit) -> Runnable<Meta> {
    // SAFETY: every unit was made by `into_unit`, and is the sole right to its task.
    unsafe { Runnable::from_raw(unit.into_raw()) }
}

/// Whether the task was aborted. It stays where it is.
pub(crate) fn is_aborted(unit: &Unit) -> bool {
    // SAFETY: the unit keeps the task, and the runnable made of it for the moment is forgotten.
    let runnable = ManuallyDrop::new(unsafe { Runnable::<Meta>::from_raw(unit.as_raw()) });
    runnable.metadata().is_aborted()
}

/// Polls the task once, on `p` if the thread has a processor.
#[inline]
pub(crate) fn run(unit: Unit, p: Option<&Processor>) {
    assert_no_lock_held();
    let runnable = from_unit(unit);
    if let Some(p) = p {
        let meta = runnable.metadata();
        p.polls_for(meta.id(), meta.location);
    }
    runnable.run();
}

/// Drops the task's future without polling it; its handle says "runtime shut down".
pub(crate) fn discard(unit: Unit) {
    assert_no_lock_held();
    drop(from_unit(unit));
}
