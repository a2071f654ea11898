//! Local sets: tasks that are bound to one thread, so that their futures need not be `Send`. The owner of a set polls
//! it in the middle of its own poll: `local_set` for users, `block_on` for what is spawned inside of it, and the thread
//! of a pinned task, whose first task that is.
//!
//! 1. A future of a set is polled and dropped by the thread that owns the set, and by no other. A waker reaches only
//!    the set's [`Home`], where it puts the task; the last one of all never drops a future, as the home holds another
//!    one.
//! 2. A home is made once and recycled for later sets, never freed: a wake that comes late touches memory that is
//!    there. [`HomeRef`] carries the generation.
//! 3. A set that is dropped drops its tasks first, on its own thread. A task that somebody else is just putting home is
//!    waited for.
//! 4. A poll of the set polls a bounded number of tasks, ends when the budget of the slice is spent or some time is
//!    over, and lets the future beside the tasks go first at every other poll at least. Polls of one set inside of each
//!    other go [`NESTED`] deep; one further in leaves the tasks to those.
//! 5. What this thread is inside of is a stack. A guard that users hold restores a [`HomeRef`], which may be of a set
//!    that is gone; the pointers are restored by frames of our own.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use async_task::{Runnable, ScheduleInfo};

use super::bound::{self, Meta};
use super::registry::Closed;
use super::{Id, JoinHandle};
use crate::clock;
use crate::context;
use crate::leak::Counted;
use crate::mailbox::Mailbox;
use crate::park::Parker;
use crate::processor::{Polled, Processor};
use crate::sched::RuntimeRef;
use crate::sys::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sys::{Mutex, rank};

/// At most so many tasks are polled in one poll of their set.
const POLLS: u32 = 61;
/// A poll of a set ends after about so long, in nanoseconds.
const POLL_NS: u64 = 1_000_000;
/// So many polls of a set poll tasks, one inside a task of the other. A `block_on` of ours between them counts afresh:
/// it holds those around it up. So does one of others, which nobody sees: hence more than one.
const NESTED: u32 = 16;
/// The host key of a set's owner.
pub(super) const OWNER: u64 = 0;

/// Homes that no set has.
static FREE: Mutex<Free> = Mutex::new(rank::PROCESS, Free { homes: Vec::new(), made: 0 });

struct Free {
    homes: Vec<&'static Home>,
    made: u32,
}

/// What any thread may reach of a set. See invariant 2.
pub(crate) struct Home {
    /// Part of the ids of its tasks.
    number: u32,
    mailbox: Mailbox<Runnable<Meta>>,
    live: Mutex<Live>,
    /// A task of the set was told to end. Written under the lock of `live`.
    has_aborted: AtomicBool,
}

/// Guarded by `Home::live`.
struct Live {
    /// Odd while a set takes tasks. It has this number and the one after it.
    generation: u64,
    /// Tasks entered so far, by all sets that had the home.
    count: u64,
    /// A counted reference to each task whose future exists, oldest first.
    tasks: BTreeMap<Id, Waker>,
}

/// A set as other threads know it.
#[derive(Clone, Copy)]
pub(crate) struct HomeRef {
    home: &'static Home,
    generation: u64,
}

impl HomeRef {
    /// A home for a new set.
    pub(crate) fn open() -> HomeRef {
        let mut free = FREE.lock();
        let home = free.homes.pop().unwrap_or_else(|| {
            free.made += 1;
            let live = Live { generation: 0, count: 0, tasks: BTreeMap::new() };
            Box::leak(Box::new(Home {
                number: free.made,
                mailbox: Mailbox::new(),
                live: Mutex::new(rank::REGISTRY, live),
                has_aborted: AtomicBool::new(false),
            }))
        });
        drop(free);
        let mut live = home.live.lock();
        live.generation += 1;
        // Relaxed: nobody asks for a set that nobody knows.
        home.has_aborted.store(false, Relaxed);
        HomeRef { home, generation: live.generation }
    }

    /// Wakes whoever polls the set.
    pub(crate) fn call(self) {
        self.home.mailbox.call();
    }

    /// Whether a task of the set was aborted: in that of a pinned task without a thread there is no other.
    pub(crate) fn has_aborted(self) -> bool {
        // Acquire: pairs with `Home::waker`; whoever polls the task then sees that it was told to end.
        self.home.has_aborted.load(Acquire)
    }

    /// Makes a task of `future` in this set, and queues it.
    ///
    /// # Safety
    ///
    /// The future and its output may be polled and dropped on the thread that owns the set, and the future dropped on
    /// this one.
    unsafe fn spawn<F>(self, location: &'static Location<'static>, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        // The runtime that would tell of the task, if it looks for leaks.
        let tells = context::current().runtime.filter(|runtime| runtime.is_there() && runtime.sched.detects());
        if let Some(runtime) = tells {
            let future: Pin<Box<dyn Future<Output = F::Output>>> = Box::pin(future);
            let future = Counted::new(future, false);
            let tally = future.tally().clone();
            // SAFETY: passed on.
            let (id, handle) = unsafe { self.spawn_as_is(location, future) };
            if let Some(id) = id {
                runtime.sched.local_tasks.enter(id, location, tally);
            }
            return handle;
        }
        // SAFETY: passed on.
        unsafe { self.spawn_as_is(location, future) }.1
    }

    /// [`HomeRef::spawn`] of a future whose wakers are counted, or need not be. Gives the task's name if it was
    /// entered.
    ///
    /// # Safety
    ///
    /// That of [`HomeRef::spawn`].
    unsafe fn spawn_as_is<F: Future>(
        self,
        location: &'static Location<'static>,
        future: F,
    ) -> (Option<Id>, JoinHandle<F::Output>) {
        // SAFETY: invariant 1 of this file for the future; the output is in the handle, which stays where the output
        // may be.
        let (runnable, handle) = unsafe { bound::new(self.home, location, false, future, schedule) };
        let entered = self.home.insert(self.generation, &runnable);
        match entered {
            Ok(_) => runnable.schedule(),
            Err(Closed) => drop(runnable),
        }
        (entered.ok(), JoinHandle::bound(handle))
    }

    /// Makes the task of a thread of its own; the set is its. Gives the task's name. Its wakers are counted if
    /// `runtime` is to tell of them.
    pub(crate) fn spawn_pinned<F, Fut>(
        self,
        runtime: RuntimeRef,
        location: &'static Location<'static>,
        f: F,
    ) -> (Id, JoinHandle<Fut::Output>)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future + 'static,
        Fut::Output: Send + 'static,
    {
        let future = async move { f().await };
        if runtime.sched.detects() {
            let future: Pin<Box<dyn Future<Output = Fut::Output>>> = Box::pin(future);
            let future = Counted::new(future, false);
            let tally = future.tally().clone();
            // SAFETY: what is around the future is `Send`, and for it what follows.
            let (id, handle) = unsafe { self.spawn_pinned_as_is(location, future) };
            runtime.sched.local_tasks.enter(id, location, tally);
            return (id, handle);
        }
        // SAFETY: before its first poll the future is nothing but the closure, which is `Send`: it may go to another
        // thread, or be dropped here.
        unsafe { self.spawn_pinned_as_is(location, future) }
    }

    /// [`HomeRef::spawn_pinned`] of a future whose wakers are counted, or need not be.
    ///
    /// # Safety
    ///
    /// Before its first poll the future may go to another thread and be dropped on any; after it, invariant 1.
    unsafe fn spawn_pinned_as_is<F: Future>(
        self,
        location: &'static Location<'static>,
        future: F,
    ) -> (Id, JoinHandle<F::Output>) {
        // SAFETY: passed on; the output is in the handle, which stays where the output may be.
        let (runnable, handle) = unsafe { bound::new(self.home, location, true, future, schedule) };
        let id = self
            .home
            .insert(self.generation, &runnable)
            .unwrap_or_else(|Closed| unreachable!("a home was just opened"));
        self.home.mailbox.put(runnable);
        (id, JoinHandle::bound(handle))
    }
}

impl Home {
    /// Enters a task that is about to be queued for the first time.
    fn insert(&self, generation: u64, runnable: &Runnable<Meta>) -> Result<Id, Closed> {
        let waker = runnable.waker();
        let mut live = self.live.lock();
        if live.generation != generation {
            drop(live);
            drop(waker);
            return Err(Closed);
        }
        let id = loop {
            live.count += 1;
            let id = Id::local(self.number, live.count);
            if id != Id::NONE && !live.tasks.contains_key(&id) {
                break id;
            }
        };
        runnable.metadata().set_id(id);
        live.tasks.insert(id, waker);
        Ok(id)
    }

    /// The future of this task is gone.
    pub(super) fn remove(&self, meta: &Meta) {
        let mut live = self.live.lock();
        let waker = live.tasks.remove(&meta.id());
        drop(live);
        drop(waker);
    }

    /// A counted reference to the task, if its future still exists; `abort`: the task is told to end.
    pub(super) fn waker(&self, meta: &Meta, abort: bool) -> Option<Waker> {
        let live = self.live.lock();
        // Cloned under the lock: it is `async-task`'s own, which counts up and runs no user code.
        let waker = live.tasks.get(&meta.id()).cloned();
        if abort && waker.is_some() {
            meta.abort();
            // Release: pairs with the Acquire in `HomeRef::has_aborted`.
            self.has_aborted.store(true, Release);
        }
        waker
    }
}

/// The schedule function of all tasks in sets, also of pinned ones.
fn schedule(runnable: Runnable<Meta>, _: ScheduleInfo) {
    let home = runnable.metadata().home();
    // SAFETY: the pointer is null, or leads to the set whose frame is on this thread's stack (invariant 5).
    match unsafe { HERE.with(|here| here.running.get()).as_ref() } {
        Some(set) if ptr::eq(set.here.home, home) => set.queue.borrow_mut().push_back(runnable),
        _ => home.mailbox.put(runnable),
    }
}

/// What this thread is inside of, as far as local tasks go. No destructor: see `context`.
struct Here {
    /// The set that was entered last.
    entered: Cell<Option<HomeRef>>,
    /// The innermost `block_on`. A set that was entered inside of it comes first.
    host: Cell<*const Host>,
    /// The set whose tasks are polled, or dropped: their wakes go to its queue.
    running: Cell<*const Set>,
    /// How many [`Hosting`]s there are. No poll of a set that began before the last of them goes on until that is
    /// dropped.
    depth: Cell<usize>,
}

thread_local! {
    static HERE: Here = const {
        Here {
            entered: Cell::new(None),
            host: Cell::new(ptr::null()),
            running: Cell::new(ptr::null()),
            depth: Cell::new(0),
        }
    };
}

/// Spawns into the set that this thread is in. `None`, and the future is given back, if it is in none.
pub(super) fn spawn_here<F>(location: &'static Location<'static>, future: F) -> Result<JoinHandle<F::Output>, F>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let set = HERE.with(|here| {
        here.entered.get().or_else(|| {
            // SAFETY: the pointer is null, or leads to the host whose frame is on this thread's stack (invariant 5).
            unsafe { here.host.get().as_ref() }.map(|host| host.set.get_or_init(Set::new).here)
        })
    });
    match set {
        // SAFETY: a thread is only ever inside of sets that are its own.
        Some(set) => Ok(unsafe { set.spawn(location, future) }),
        None => Err(future),
    }
}

/// `spawn_local` means this set until the guard is dropped.
pub(super) struct Entered {
    before: Option<HomeRef>,
    _thread: PhantomData<*const ()>,
}

impl Entered {
    fn new(set: Option<HomeRef>) -> Self {
        Entered { before: HERE.with(|here| here.entered.replace(set)), _thread: PhantomData }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        HERE.with(|here| here.entered.set(self.before));
    }
}

/// The set is polled, or its tasks are dropped, until this is dropped.
struct Running<'a> {
    set: &'a Set,
    before: *const Set,
    /// What `Set::nesting` was.
    nesting: Nesting,
}

/// Which poll of a set goes on.
#[derive(Clone, Copy, Default)]
struct Nesting {
    /// [`Here::depth`].
    depth: usize,
    /// How many there are at this depth, one inside of the other.
    polls: u32,
}

impl<'a> Running<'a> {
    fn new(set: &'a Set) -> Self {
        let (before, depth) = HERE.with(|here| (here.running.replace(set), here.depth.get()));
        let nesting = set.nesting.get();
        let polls = if nesting.depth == depth { nesting.polls + 1 } else { 1 };
        set.nesting.set(Nesting { depth, polls });
        Running { set, before, nesting }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        HERE.with(|here| here.running.set(self.before));
        self.set.nesting.set(self.nesting);
    }
}

/// A set in the hands of the thread that owns it.
pub(crate) struct Set {
    here: HomeRef,
    /// Tasks that are ready. What other threads woke comes here at the next poll.
    queue: RefCell<VecDeque<Runnable<Meta>>>,
    /// The next poll begins with the tasks (invariant 4).
    tasks_first: Cell<bool>,
    nesting: Cell<Nesting>,
    _thread: PhantomData<*const ()>,
}

impl Set {
    pub(crate) fn new() -> Set {
        // SAFETY: nobody else has the home.
        unsafe { Set::adopt(HomeRef::open()) }
    }

    /// This thread owns the set from now on.
    ///
    /// # Safety
    ///
    /// No other thread does or did, and the futures in it are closures that may be sent here.
    pub(crate) unsafe fn adopt(here: HomeRef) -> Set {
        Set {
            here,
            queue: RefCell::default(),
            tasks_first: Cell::new(false),
            nesting: Cell::default(),
            _thread: PhantomData,
        }
    }

    /// Makes it the set that `spawn_local` means.
    pub(super) fn enter(&self) -> Entered {
        Entered::new(Some(self.here))
    }

    pub(super) fn spawn<F>(&self, location: &'static Location<'static>, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        // SAFETY: a set stays on its thread.
        unsafe { self.here.spawn(location, future) }
    }

    /// Whether no task is left.
    pub(super) fn is_empty(&self) -> bool {
        self.here.home.live.lock().tasks.is_empty()
    }

    pub(crate) fn has(&self, task: Id) -> bool {
        self.here.home.live.lock().tasks.contains_key(&task)
    }

    /// The host `key` waits for the set no more. If it has left tasks behind, the other hosts come for them.
    pub(super) fn leave(&self, key: u64) {
        self.here.home.mailbox.unregister(key);
        if !self.queue.borrow().is_empty() {
            self.here.call();
        }
    }

    /// Takes what other threads woke; what they wake from now on wakes the host.
    fn register(&self, key: u64, waker: &Waker) {
        self.here.home.mailbox.register(key, waker, |woken| self.queue.borrow_mut().push_back(woken));
    }

    /// A poll of the host `key`: polls `beside`, then the tasks that are ready, or the other way round (invariant 4).
    /// To `beside`, `spawn_local` means what it did before.
    pub(crate) fn poll<R>(
        &self,
        key: u64,
        cx: &mut Context<'_>,
        beside: impl FnOnce(&mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let _running = Running::new(self);
        self.register(key, cx.waker());
        if self.nesting.get().polls > NESTED {
            // Those around come back to the queue.
            return beside(cx);
        }
        if self.tasks_first.take() {
            self.poll_tasks();
            if !has_budget() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Poll::Ready(output) = beside(cx) {
                return Poll::Ready(output);
            }
        } else {
            if let Poll::Ready(output) = beside(cx) {
                return Poll::Ready(output);
            }
            self.poll_tasks();
            self.tasks_first.set(!self.queue.borrow().is_empty());
        }
        if !self.queue.borrow().is_empty() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn pop(&self) -> Option<Runnable<Meta>> {
        self.queue.borrow_mut().pop_front()
    }

    fn poll_tasks(&self) {
        let _entered = self.enter();
        let mut start = None;
        for polled in 0..POLLS {
            // With several polls there is a clock, which is read after 1, 2, 4 … of them.
            if polled > 0 && !has_budget() {
                return;
            }
            match start {
                None if polled > 0 || self.queue.borrow().len() > 1 => start = Some(clock::now()),
                Some(start) if polled.is_power_of_two() && clock::now() - start >= POLL_NS => return,
                _ => {}
            }
            let Some(task) = self.pop() else {
                return;
            };
            if let Some(p) = context::constrained_processor() {
                // The first one is polled whatever is left.
                p.charge();
            }
            // The one before may hold a guard of another set.
            HERE.with(|here| here.entered.set(Some(self.here)));
            run(task);
        }
    }
}

/// Polls a task inside the poll of whoever polls its set.
fn run(task: Runnable<Meta>) {
    let processor = || context::current().processor;
    let before = processor().map(|p| {
        p.counters().polled.add(1);
        let before = p.polled();
        p.goes_on(Polled::Task(task.metadata().id(), task.metadata().location));
        before
    });
    task.run();
    if let (Some(before), Some(p)) = (before, processor()) {
        p.goes_on(before);
    }
}

fn has_budget() -> bool {
    context::constrained_processor().is_none_or(Processor::has_budget)
}

impl Drop for Set {
    /// Drops all tasks. See invariant 3.
    fn drop(&mut self) {
        struct Unpark(Parker);

        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }

        let home = self.here.home;
        home.live.lock().generation += 1;
        // Without tasks none is queued either.
        if !self.is_empty() {
            // What their destructors spawn here is refused.
            let _running = (Running::new(self), self.enter());
            let thread = Arc::new(Unpark(Parker::new()));
            let waker = Waker::from(thread.clone());
            loop {
                self.register(OWNER, &waker);
                let wakers: Vec<Waker> = home.live.lock().tasks.values().cloned().collect();
                // Each task that waits is ready now, in the queue, or is put into the mailbox by whoever was faster.
                wakers.into_iter().for_each(Waker::wake);
                let mut dropped = false;
                while let Some(task) = self.pop() {
                    drop(task);
                    dropped = true;
                }
                if self.is_empty() {
                    break;
                }
                if !dropped {
                    thread.0.park();
                }
            }
        }
        home.mailbox.unregister_all();
        FREE.lock().homes.push(home);
    }
}

/// A frame that polls a future, and with it the tasks that this future spawns here. The set is made for the first of
/// them.
pub(crate) struct Host {
    set: OnceCell<Set>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Host { set: OnceCell::new() }
    }

    pub(crate) fn with(set: Set) -> Self {
        Host { set: OnceCell::from(set) }
    }

    /// `spawn_local` means this host until the guard is dropped.
    pub(crate) fn enter(&self) -> Hosting<'_> {
        Hosting::new(self)
    }

    /// Polls the future of the host, `beside`, and the tasks.
    pub(crate) fn poll<R>(&self, cx: &mut Context<'_>, beside: impl FnOnce(&mut Context<'_>) -> Poll<R>) -> Poll<R> {
        match self.set.get() {
            Some(set) => set.poll(OWNER, cx, beside),
            None => match (beside(cx), self.set.get()) {
                // It has just spawned the first.
                (Poll::Pending, Some(set)) => set.poll(OWNER, cx, |_| Poll::Pending),
                (polled, _) => polled,
            },
        }
    }

    /// Whether this task is there.
    pub(crate) fn has(&self, task: Id) -> bool {
        self.set.get().is_some_and(|set| set.has(task))
    }
}

/// This thread is in no set until the guard is dropped: it polls what none of the frames around has to do with.
pub(crate) fn leave_all() -> Hosting<'static> {
    Hosting::new(ptr::null())
}

/// See [`Host::enter`] and [`leave_all`].
pub(crate) struct Hosting<'a> {
    before: (*const Host, *const Set),
    _entered: Entered,
    _host: PhantomData<&'a Host>,
}

impl Hosting<'_> {
    /// In no set of the frames around: their queues are not looked at before this frame is gone.
    fn new(host: *const Host) -> Self {
        let before = HERE.with(|here| {
            here.depth.set(here.depth.get() + 1);
            (here.host.replace(host), here.running.replace(ptr::null()))
        });
        Hosting { before, _entered: Entered::new(None), _host: PhantomData }
    }
}

impl Drop for Hosting<'_> {
    fn drop(&mut self) {
        HERE.with(|here| {
            here.host.set(self.before.0);
            here.running.set(self.before.1);
            here.depth.set(here.depth.get() - 1);
        });
    }
}
