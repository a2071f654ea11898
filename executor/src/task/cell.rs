//! The cell of a task that goes through run queues: one piece of memory, of an arena or of the global allocator, with a
//! header, which is the same for all, and the future, which its outcome replaces. `task` makes, runs and discards
//! cells, wakers and handles lead to them; who may do what, and when the memory goes, is `state`'s.
//!
//! 1. The header is written before the state says that there is a task. After that, besides what `state` guards, only
//!    its `word` is, by who has the unit: the id of a task in the registry, before it is first queued, and that a
//!    thread of the pool has begun a closure.
//! 2. What a step needs of the cell is read before the change of the word that lets it go, and before a push:
//!    afterwards another thread may run the task to its end and free it.
//! 3. A wake only pushes, or tells the poll in which the task wakes itself. Nothing here runs the user's code but
//!    [`poll`], [`abandon`], the drop of an outcome and the clone, wake and drop of the waker in the cell, which is
//!    that of who waits for the task.
//! 4. All tasks have one waker vtable, so that `Waker::will_wake` knows two wakers of a task, and one indirect call
//!    polls.

use std::alloc::Layout;
use std::any::Any;
use std::mem::{ManuallyDrop, MaybeUninit, offset_of};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use super::arena::Arena;
use super::state::{Completed, State, Woken};
use super::{BLOCKING, FLAGS, Failure, IN_ARENA, Id, Outcome, Output, caught, registry, swallow};
use crate::context::{self, Polling};
use crate::processor::Processor;
use crate::runq::Unit;
use crate::sched::{How, RuntimeRef, Sched};
use crate::sys::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sys::{UnsafeCell, assert_no_lock_held};

pub(super) use handles::{Abort, Join};

mod handles;

/// What is the same in all cells. A task that waits pays for it. The runtime is not in it: the arena knows it, and a
/// cell in memory of its own has it in the word before.
#[repr(C, align(8))]
struct Header {
    /// At the beginning: `state` says why.
    state: State,
    vtable: &'static Vtable,
    /// Where the task was spawned.
    location: &'static Location<'static>,
    /// The id and the kind: see `task`, and invariant 1.
    word: AtomicU64,
    /// Of who waits for the task. Guarded by the word: invariant 4 of `state`.
    waker: UnsafeCell<MaybeUninit<Waker>>,
}

const _: () = assert!(size_of::<Header>() <= 48 && offset_of!(Header, state) == 0);
const _: () = assert!(align_of::<Header>() >= context::MARKS);

/// What differs from one type of future to the next.
struct Vtable {
    // SAFETY: that of each function is said at that of its name below.
    /// Polls the future, whose outcome is then in the cell if it tells that it has ended.
    poll: unsafe fn(Task) -> bool,
    /// Drops the future and puts the failure into the cell.
    abandon: unsafe fn(Task, Failure),
    drop_outcome: unsafe fn(Task),
    /// Where the outcome lies, from the beginning of the cell.
    outcome: usize,
    layout: Layout,
}

#[repr(C)]
struct Cell<F: Future> {
    header: Header,
    stage: Stage<F>,
}

/// ALIVE and COMPLETE in the word say which it is.
#[repr(C)]
union Stage<F: Future> {
    future: ManuallyDrop<F>,
    outcome: ManuallyDrop<Outcome<F::Output>>,
}

impl<F: Future> Cell<F> {
    const LAYOUT: Layout = Layout::new::<Cell<F>>();
    const VTABLE: &'static Vtable = &Vtable {
        poll: poll::<F>,
        abandon: abandon::<F>,
        drop_outcome: drop_outcome::<F>,
        outcome: offset_of!(Cell<F>, stage),
        layout: Cell::<F>::LAYOUT,
    };
}

/// Leads to a cell, and says nothing of who keeps it there: that is written where one is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Task(NonNull<Header>);

// SAFETY: what is done through it is guarded by the word, and futures and outcomes of cells are `Send`.
unsafe impl Send for Task {}

/// Memory for a task of `F` in the arena of the processor that this thread holds.
#[inline]
pub(super) fn memory_of<F: Future>(p: &'static Processor) -> Option<NonNull<u8>> {
    // SAFETY: the context gives out the processor that the thread holds, and with it the arena, which stays for ever.
    unsafe { p.arena.alloc(Cell::<F>::LAYOUT) }
}

/// [`memory_of`] a task that is spawned here, on a processor of the runtime that this thread is in, whose arena has a
/// cell at hand. `None` says nothing but that it is not as simple as that. It calls nothing.
#[inline(always)]
pub(super) fn memory_here<F: Future>() -> Option<(&'static Processor, NonNull<u8>)> {
    let runtime = context::runtime()?;
    let p = context::processor_of(runtime.sched)?;
    if !runtime.is_of_this_process() || !runtime.sched.spawns_in_arenas(runtime.generation) {
        return None;
    }
    // SAFETY: as in `memory_of`.
    unsafe { Some((p, p.arena.alloc_at_hand(Cell::<F>::LAYOUT)?)) }
}

/// Memory for a task of `F` that is spawned outside of the runtime's processors, and its number there. `None`: such a
/// task has memory of its own, or the runtime is closed.
#[inline]
pub(super) fn memory_outside<F: Future>(runtime: RuntimeRef) -> Option<(NonNull<u8>, u64)> {
    runtime.sched.memory_outside(runtime, Cell::<F>::LAYOUT)
}

/// Memory of its own for a cell of this layout, and where in it the cell lies: the word before is the runtime.
fn layout_apart(cell: Layout) -> (Layout, usize) {
    Layout::new::<&'static Sched>().extend(cell).expect("a cell is far from as large as that")
}

/// As [`new`], with memory from the global allocator.
///
/// # Safety
///
/// Future and output are `Send`, and live for as long as they are kept.
pub(super) unsafe fn new_apart<F: Future>(
    sched: &'static Sched,
    location: &'static Location<'static>,
    word: u64,
    future: F,
) -> (Task, Join<F::Output>) {
    let (layout, at) = layout_apart(Cell::<F>::LAYOUT);
    // SAFETY: a cell is not of no size; it lies inside the memory, and before it there is room for the runtime.
    unsafe {
        let memory = NonNull::new(std::alloc::alloc(layout)).unwrap_or_else(|| std::alloc::handle_alloc_error(layout));
        let cell = memory.add(at);
        cell.cast::<&'static Sched>().sub(1).write(sched);
        new(cell, location, word, future)
    }
}

/// Makes a task, which is queued as soon as the caller has queued its unit, and the handle's part of it. `word` is its
/// id, or that of none, and its flags.
///
/// # Safety
///
/// Future and output are `Send`, and live for as long as they are kept. The memory is what the flags say of it, for
/// `F`, and the caller's.
#[inline(always)]
pub(super) unsafe fn new<F: Future>(
    memory: NonNull<u8>,
    location: &'static Location<'static>,
    word: u64,
    future: F,
) -> (Task, Join<F::Output>) {
    let cell: *mut Cell<F> = memory.as_ptr().cast();
    // SAFETY: the memory is ours, and large enough. The state comes last (invariant 1).
    unsafe {
        (&raw mut (*cell).header.vtable).write(Cell::<F>::VTABLE);
        (&raw mut (*cell).header.location).write(location);
        (&raw mut (*cell).header.word).write(AtomicU64::new(word));
        (&raw mut (*cell).stage.future).write(ManuallyDrop::new(future));
        (*cell).header.state.publish();
        let task = Task(memory.cast());
        (task, Join::new(task))
    }
}

impl Task {
    #[inline]
    pub(super) fn from_unit(unit: Unit) -> Task {
        Task(unit.into_raw().cast())
    }

    /// Of a unit that stays where it is.
    #[inline]
    pub(super) fn of_unit(unit: &Unit) -> Task {
        Task(unit.as_raw().cast())
    }

    /// The right to run the task, or to discard it, once. Who has it says so.
    #[inline]
    pub(super) fn into_unit(self) -> Unit {
        Unit::new(self.0.cast())
    }

    /// Of two tasks that there are at a time it differs.
    pub(super) fn address(self) -> usize {
        self.0.addr().get()
    }

    /// # Safety
    ///
    /// The cell is kept for as long as the answer is used.
    #[inline]
    unsafe fn header<'a>(self) -> &'a Header {
        // SAFETY: the header was written before anybody got the pointer; what changes in it is behind cells.
        unsafe { self.0.as_ref() }
    }

    /// # Safety
    ///
    /// The cell is kept.
    #[inline]
    pub(super) unsafe fn sched(self) -> &'static Sched {
        // SAFETY: passed on. Cells lie in arenas, each made (`Processor::new`) or opened (`Sched::open`) with the
        // `Sched` of its tasks as the owner, or behind the word that `new_apart` has written.
        unsafe {
            if self.is_in_arena() {
                &*Arena::owner_of(self.0.cast()).cast()
            } else {
                self.0.cast::<&'static Sched>().sub(1).read()
            }
        }
    }

    /// # Safety
    ///
    /// The cell is kept.
    #[inline]
    unsafe fn is_in_arena(self) -> bool {
        // SAFETY: passed on.
        unsafe { self.header() }.word.load(Relaxed) & IN_ARENA != 0
    }

    /// # Safety
    ///
    /// The cell is kept.
    #[inline]
    pub(super) unsafe fn location(self) -> &'static Location<'static> {
        // SAFETY: passed on.
        unsafe { self.header() }.location
    }

    /// That of futures of one type is mostly the same, and that of two types mostly is not.
    ///
    /// # Safety
    ///
    /// The cell is kept.
    pub(super) unsafe fn type_number(self) -> usize {
        // SAFETY: passed on.
        std::ptr::from_ref(unsafe { self.header() }.vtable).addr()
    }

    /// # Safety
    ///
    /// The cell is kept.
    #[inline]
    pub(super) unsafe fn id(self) -> Id {
        // SAFETY: passed on.
        Id(unsafe { self.header() }.word.load(Relaxed) & !FLAGS)
    }

    /// # Safety
    ///
    /// The cell is kept.
    pub(super) unsafe fn is_aborted(self) -> bool {
        // SAFETY: passed on.
        unsafe { self.header() }.state.is_aborted()
    }

    /// # Safety
    ///
    /// The cell is kept.
    #[inline]
    pub(super) unsafe fn is_closure(self) -> bool {
        // SAFETY: passed on.
        unsafe { self.header() }.word.load(Relaxed) & BLOCKING != 0
    }

    /// The task gets its name. Nobody asks for it yet.
    ///
    /// # Safety
    ///
    /// The cell is kept, and the task was never queued.
    pub(super) unsafe fn set_id(self, id: Id) {
        // SAFETY: passed on.
        let word = &unsafe { self.header() }.word;
        word.store(word.load(Relaxed) & FLAGS | id.0, Relaxed);
    }

    /// A waker of a reference that the caller gives to it, or keeps for as long as it is used and then forgets it.
    ///
    /// # Safety
    ///
    /// The reference is there.
    #[inline]
    unsafe fn into_waker(self) -> Waker {
        // SAFETY: the functions of the vtable do what is asked of them, from any thread.
        unsafe { Waker::from_raw(RawWaker::new(self.0.as_ptr().cast_const().cast(), &WAKER)) }
    }

    /// A waker with a reference of its own.
    ///
    /// # Safety
    ///
    /// The cell is kept meanwhile.
    pub(super) unsafe fn waker(self) -> Waker {
        // SAFETY: passed on.
        unsafe {
            self.header().state.add_ref();
            self.into_waker()
        }
    }

    /// # Safety
    ///
    /// It is a cell of `F`, which is kept.
    #[inline]
    unsafe fn stage<F: Future>(self) -> *mut Stage<F> {
        // SAFETY: passed on.
        unsafe { &raw mut (*self.0.as_ptr().cast::<Cell<F>>()).stage }
    }

    /// Where the outcome of a task whose output is `T` lies.
    ///
    /// # Safety
    ///
    /// The cell is kept.
    #[inline]
    unsafe fn outcome<T>(self) -> *mut Outcome<T> {
        // SAFETY: the offset is that of the stage, inside the cell.
        unsafe { self.0.as_ptr().byte_add(self.header().vtable.outcome).cast() }
    }

    /// The waker of who waits for the task.
    ///
    /// # Safety
    ///
    /// It is there, and the caller's (invariant 4 of `state`).
    #[inline]
    unsafe fn take_waker(self) -> Waker {
        // SAFETY: passed on.
        unsafe { self.header().waker.with(|waker| (*waker).assume_init_read()) }
    }

    /// Queues a task that was idle.
    ///
    /// # Safety
    ///
    /// The caller has the unit.
    #[inline]
    unsafe fn ready(self) {
        // SAFETY: passed on.
        let sched = unsafe { self.sched() };
        sched.ready(self.into_unit(), How::Woken);
    }

    /// The last reference is gone.
    ///
    /// # Safety
    ///
    /// It was the caller's, and future and outcome are gone.
    #[inline(never)]
    unsafe fn free(self) {
        // SAFETY: the memory is ours (invariant 6 of `state`), and comes from where the flags say. This thread owns the
        // arena of the processor that the context names.
        unsafe {
            let header = self.header();
            let is_in_arena = self.is_in_arena();
            let layout = header.vtable.layout;
            header.state.retire();
            if is_in_arena {
                Arena::free(self.0.cast(), context::processor().map(|p| &p.arena), context::is_worker);
            } else {
                let (layout, at) = layout_apart(layout);
                std::alloc::dealloc(self.0.as_ptr().byte_sub(at).cast(), layout);
            }
        }
    }
}

/// Polls the task once. Tells whether it was woken meanwhile, by itself or others; the caller then has the unit again,
/// and queues it.
///
/// # Safety
///
/// The caller has the unit of a task of this runtime.
#[inline]
#[must_use]
pub(super) unsafe fn run(task: Task, sched: &'static Sched) -> bool {
    // SAFETY: the unit is ours, and so the future from here on (invariant 2 of `state`). It keeps the cell until
    // `finish`, or until `stop` says that it is not ours any more.
    unsafe {
        let header = task.header();
        let mut wakers = 0;
        if header.state.start() {
            (header.vtable.abandon)(task, Failure::ABORTED);
        } else {
            let polling = Polling::begins(task.address());
            let ended = (header.vtable.poll)(task);
            let noted = polling.ends();
            wakers = noted.wakers;
            if !ended && noted.has_woken_itself {
                header.state.add_refs(wakers);
                return true;
            }
            if !ended {
                return header.state.stop(wakers);
            }
        }
        finish(task, sched, wakers);
    }
    false
}

/// Runs a closure. Gives the waker of who waits for it, which the caller wakes.
///
/// # Safety
///
/// The caller has the unit of a task of this runtime, whose future is ready at its first poll.
pub(super) unsafe fn run_closure(task: Task, sched: &'static Sched) -> Option<Waker> {
    // SAFETY: as in `run`.
    unsafe {
        let header = task.header();
        if header.state.start() {
            (header.vtable.abandon)(task, Failure::ABORTED);
        } else {
            // Who aborts it from here on need not look for it.
            header.word.store(header.word.load(Relaxed) & !BLOCKING, Relaxed);
            let ended = (header.vtable.poll)(task);
            debug_assert!(ended, "a closure was not ready");
        }
        hand_over(task, sched, 0)
    }
}

/// Drops the task's future without polling it.
///
/// # Safety
///
/// The caller has the unit.
pub(super) unsafe fn discard(task: Task) {
    // SAFETY: as in `run`.
    unsafe {
        let header = task.header();
        let sched = task.sched();
        let _ = header.state.start();
        (header.vtable.abandon)(task, Failure::SHUTDOWN);
        finish(task, sched, 0);
    }
}

/// The future is gone and the outcome in the cell: hands it over, and wakes who waits for it. The last poll has made so
/// many `wakers`.
///
/// # Safety
///
/// The caller had the unit of a task of this runtime.
#[inline]
unsafe fn finish(task: Task, sched: &'static Sched, wakers: usize) {
    // SAFETY: passed on.
    if let Some(joiner) = unsafe { hand_over(task, sched, wakers) } {
        assert_no_lock_held();
        // It is the user's, and whoever ended the task has nothing to do with its panic.
        swallow(|| joiner.wake());
    }
}

/// [`finish`], but for the wake of who waits for the outcome.
///
/// # Safety
///
/// As [`finish`].
#[inline]
unsafe fn hand_over(task: Task, sched: &'static Sched, wakers: usize) -> Option<Waker> {
    // SAFETY: ALIVE is still set, and its reference ours to end; after `complete` the cell is kept where it says so.
    unsafe {
        let header = task.header();
        let in_arena = task.is_in_arena();
        if in_arena || registry::remove(task) {
            // Before who waits for it is woken, which asks for that.
            sched.ends_task(in_arena);
        }
        let joiner = match header.state.complete(wakers) {
            Completed::Joined => None,
            Completed::Wake => {
                // ALIVE's reference kept the cell for us.
                let joiner = task.take_waker();
                if header.state.let_go() {
                    task.free();
                }
                Some(joiner)
            }
            Completed::Unwanted => {
                (header.vtable.drop_outcome)(task);
                if header.state.end(wakers) {
                    task.free();
                }
                None
            }
        };
        sched.has_ended_task(joiner.as_ref());
        joiner
    }
}

/// Wakes every live task in the arena, from any thread.
pub(crate) fn wake_all_in(arena: &Arena) {
    let mut wakers = Vec::new();
    arena.walk(|word| {
        // SAFETY: the first word of a cell is a task's state, or 0. If there is a task, the reference is the waker's.
        unsafe {
            if word.cast::<State>().as_ref().try_ref() {
                wakers.push(Task(word.cast()).into_waker());
            }
        }
    });
    wakers.into_iter().for_each(Waker::wake);
}

/// See [`Vtable::poll`].
///
/// # Safety
///
/// It is a cell of `F`, and running, by the caller.
unsafe fn poll<F: Future>(task: Task) -> bool {
    // SAFETY: ALIVE's reference is there for as long as the poll goes on, and the waker is forgotten.
    let waker = ManuallyDrop::new(unsafe { task.into_waker() });
    // SAFETY: passed on.
    let stage = unsafe { task.stage::<F>() };
    let mut is_gone = false;
    let polled = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the future is there, and ours (invariant 2 of `state`). It is dropped in place, never moved.
        unsafe {
            let future = Pin::new_unchecked(&mut *(*stage).future);
            let Poll::Ready(output) = future.poll(&mut Context::from_waker(&waker)) else {
                return false;
            };
            let output = Output::new(output);
            is_gone = true;
            ManuallyDrop::drop(&mut (*stage).future);
            (&raw mut (*stage).outcome).write(ManuallyDrop::new(Ok(output)));
        }
        true
    }));
    match polled {
        Ok(ended) => ended,
        Err(payload) => {
            // SAFETY: passed on; a future whose destructor panics is gone too.
            unsafe { panicked(stage, is_gone, payload) };
            true
        }
    }
}

/// The poll has panicked, or the drop of a future that was ready.
///
/// # Safety
///
/// The future is there, unless it `is_gone`, and the caller's.
#[cold]
#[inline(never)]
unsafe fn panicked<F: Future>(stage: *mut Stage<F>, is_gone: bool, payload: Box<dyn Any + Send>) {
    if !is_gone {
        // The first panic is the one to tell of.
        // SAFETY: passed on; it is not touched again.
        swallow(|| unsafe { ManuallyDrop::drop(&mut (*stage).future) });
    }
    // SAFETY: the room is free.
    unsafe { fail(stage, Failure::panicked(payload)) };
}

/// # Safety
///
/// The future is gone and the room the caller's.
unsafe fn fail<F: Future>(stage: *mut Stage<F>, failure: Failure) {
    // SAFETY: passed on.
    unsafe { (&raw mut (*stage).outcome).write(ManuallyDrop::new(Err(failure))) };
}

/// See [`Vtable::abandon`].
///
/// # Safety
///
/// It is a cell of `F`, and running, by the caller.
#[cold]
unsafe fn abandon<F: Future>(task: Task, why: Failure) {
    assert_no_lock_held();
    // SAFETY: passed on.
    let stage = unsafe { task.stage::<F>() };
    // SAFETY: the future is there, ours, and never touched again.
    let dropped = caught(|| unsafe { ManuallyDrop::drop(&mut (*stage).future) });
    let failure = match (dropped, why) {
        (Err(payload), why) if why.is_aborted() => Failure::panicked(payload),
        (Err(payload), why) => {
            swallow(|| drop(payload));
            why
        }
        (Ok(()), why) => why,
    };
    // SAFETY: the future is gone.
    unsafe { fail(stage, failure) };
}

/// See [`Vtable::drop_outcome`].
///
/// # Safety
///
/// It is a cell of `F`, with an outcome that is the caller's and is not touched again.
unsafe fn drop_outcome<F: Future>(task: Task) {
    // SAFETY: passed on. What is in it swallows panics.
    unsafe { ManuallyDrop::drop(&mut (*task.stage::<F>()).outcome) };
}

/// Whether it is a task's waker: it queues the task, and does not block.
pub(crate) fn is_waker(waker: &Waker) -> bool {
    std::ptr::eq(waker.vtable(), &WAKER)
}

/// The waker of all tasks. Its data is a [`Task`], with a reference.
static WAKER: RawWakerVTable = RawWakerVTable::new(clone_waker, wake, wake_by_ref, drop_waker);

/// # Safety
///
/// It is the data of a waker of ours.
unsafe fn of_waker(data: *const ()) -> Task {
    // SAFETY: such a waker was made of a pointer that is not null.
    Task(unsafe { NonNull::new_unchecked(data.cast_mut().cast()) })
}

/// # Safety
///
/// As [`of_waker`], and the waker is there.
unsafe fn clone_waker(data: *const ()) -> RawWaker {
    // SAFETY: passed on.
    let task = unsafe { of_waker(data) };
    if !context::clones_own_waker(task.address()) {
        // SAFETY: the waker has a reference.
        unsafe { task.header() }.state.add_ref();
    }
    RawWaker::new(data, &WAKER)
}

/// # Safety
///
/// As [`of_waker`], and the waker is given away.
unsafe fn wake(data: *const ()) {
    // SAFETY: passed on.
    let task = unsafe { of_waker(data) };
    // SAFETY: the waker has a reference until the word is changed; then the cell is ours if that says so.
    unsafe {
        match task.header().state.wake_and_let_go() {
            Woken::Queue => task.ready(),
            Woken::Nothing => {}
            Woken::Free => task.free(),
        }
    }
}

/// # Safety
///
/// As [`clone_waker`].
unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: passed on.
    let task = unsafe { of_waker(data) };
    if context::wakes_itself(task.address()) {
        return;
    }
    // SAFETY: the waker has a reference; the unit is ours if the word says so.
    unsafe {
        if task.header().state.wake() {
            task.ready();
        }
    }
}

/// # Safety
///
/// As [`wake`].
unsafe fn drop_waker(data: *const ()) {
    // SAFETY: passed on.
    let task = unsafe { of_waker(data) };
    if context::drops_own_waker(task.address()) {
        return;
    }
    // SAFETY: the waker has a reference, and the cell is ours if it was the last.
    unsafe {
        if task.header().state.let_go() {
            task.free();
        }
    }
}
