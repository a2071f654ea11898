//! Runtimes as users hold them: built, entered, blocked on, shut down.
//!
//! 1. A [`Runtime`] owns its slot's current generation; a [`Handle`] only names it. What is done through a handle whose
//!    runtime is gone is the error "runtime shut down" and touches nothing of the next one.
//! 2. There is one process-wide default runtime. It is started by the first use that needs one.

use std::io;
use std::panic::Location;
use std::time::Duration;

use crate::context;
use crate::metrics;
use crate::sched::{RuntimeRef, Sched};
use crate::sys::{Mutex, rank};
use crate::task::{self, JoinHandle};

pub use crate::sched::deadlock::LeakedTask;
pub use crate::sched::stuck::{StuckIn, StuckPoll};
pub use block_in_place::block_in_place;
pub(crate) use block_in_place::in_place;
pub use block_on::block_on;
pub(crate) use block_on::on as block_on_in;
pub use builder::Builder;
pub(crate) use default::peek as default_if_any;
pub use metrics::{FoundIn, Metrics};
pub(crate) use pinned::run as run_pinned;
pub use procs::{procs, set_procs};
pub use shutdown::Leftover;
use shutdown::Patience;
pub(crate) use shutdown::finish_elsewhere;

mod block_in_place;
mod block_on;
mod builder;
mod default;
mod pinned;
mod procs;
mod shutdown;

/// Slots of runtimes that are gone, for the next one.
static FREE: Mutex<Vec<&'static Sched>> = Mutex::new(rank::PROCESS, Vec::new());
/// All slots ever made.
static ALL: Mutex<Vec<&'static Sched>> = Mutex::new(rank::PROCESS, Vec::new());

/// The slot of the first runtime, which most programs have alone. A static, as a box would be written twice on the
/// stack and once on the heap: 13 pages that nobody has touched before.
static FIRST: Sched = Sched::new();

fn take_slot() -> &'static Sched {
    if let Some(sched) = FREE.lock().pop() {
        return sched;
    }
    let mut all = ALL.lock();
    let sched = if all.is_empty() { &FIRST } else { new_slot() };
    all.push(sched);
    sched
}

/// Apart, for the pages of the stack that it touches.
#[cold]
#[inline(never)]
fn new_slot() -> &'static Sched {
    Box::leak(Box::new(Sched::new()))
}

fn free_slot(sched: &'static Sched) {
    FREE.lock().push(sched);
}

/// All runtime slots of the process, whether in use or not.
pub(crate) fn all_slots() -> Vec<&'static Sched> {
    ALL.lock().clone()
}

/// Users look for these words: the façade's docs promise them (`runtime`).
pub(crate) const SHUT_DOWN: &str = "runtime shut down";
const STILL_IN_IT: &str = "runtime shut down: this thread is still in it; if by `enter`, drop that guard first";
pub(crate) const FORKED: &str = "this gmp runtime belongs to the parent process: its threads did not come along in the fork; build one in the child";

/// The runtime this thread is in, else the default one, which is started if need be.
///
/// # Errors
///
/// The runtime is shut down or belongs to the parent process, or the default one could not be built.
pub(crate) fn current() -> io::Result<RuntimeRef> {
    match context::current().runtime {
        Some(runtime) => check(runtime, STILL_IN_IT),
        None => check(default::get()?, SHUT_DOWN),
    }
}

/// The error is `gone` if the runtime is.
fn check(runtime: RuntimeRef, gone: &'static str) -> io::Result<RuntimeRef> {
    if !runtime.is_of_this_process() {
        return Err(io::Error::other(FORKED));
    }
    if !runtime.is_there() {
        return Err(io::Error::other(gone));
    }
    Ok(runtime)
}

/// A runtime: its processors, its machines, its netpoller. Dropping it shuts it down.
///
/// Dropping waits for polls in progress and for blocking closures that run, but a second at most for threads that are
/// stuck: they block, compute, or wait for something, be it a sleep. They go on, and what is left is dropped when they
/// are through. Closures that have not started are dropped. On a thread of the runtime itself, or inside its own
/// [`Runtime::block_on`], it only starts the shutdown.
///
/// # Examples
///
/// ```
/// let runtime = gmp::runtime::Builder::new().procs(2).build()?;
/// let sum = runtime.block_on(async {
///     let a = gmp::spawn(async { 40 });
///     a.await.unwrap() + 2
/// });
/// assert_eq!(sum, 42);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Runtime {
    runtime: RuntimeRef,
}

impl Runtime {
    /// A runtime with the defaults of [`Builder`].
    ///
    /// # Errors
    ///
    /// Those of [`Builder::build`].
    pub fn new() -> io::Result<Runtime> {
        Builder::new().build()
    }

    /// Runs `future` to its end on this thread, which holds a processor while it polls and gives it up while it waits.
    /// See [`block_on`].
    ///
    /// # Panics
    ///
    /// If `future` does, if it waits in vain and the runtime looks for that ([`Builder::detect_deadlocks`]), or in a
    /// forked child of the process that built the runtime, also where `future` has forked and is to wait there.
    #[track_caller]
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        block_on::on(self.runtime, future)
    }

    /// Spawns a task on this runtime; see [`spawn`].
    ///
    /// # Panics
    ///
    /// In a forked child of the process that built the runtime.
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle().spawn_at(Location::caller(), future)
    }

    /// Runs a closure that may block on this runtime; see [`spawn_blocking`].
    ///
    /// # Panics
    ///
    /// In a forked child of the process that built the runtime.
    #[track_caller]
    pub fn spawn_blocking<F, R>(&self, f: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        self.handle().spawn_blocking_at(Location::caller(), f)
    }

    /// Runs a future on a thread of its own, on this runtime; see [`spawn_pinned`].
    ///
    /// # Panics
    ///
    /// In a forked child of the process that built the runtime.
    #[track_caller]
    pub fn spawn_pinned<F, Fut>(&self, f: F) -> JoinHandle<Fut::Output>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future + 'static,
        Fut::Output: Send + 'static,
    {
        self.handle().spawn_pinned_at(Location::caller(), f)
    }

    /// Names this runtime, to be kept and sent anywhere.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { runtime: self.runtime }
    }

    /// Makes this the runtime that free functions mean on this thread, until the guard is dropped.
    pub fn enter(&self) -> EnterGuard {
        self.handle().enter()
    }

    /// What the scheduler counts.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.runtime.sched.metrics()
    }

    /// The tasks that can never run again, by where they were spawned; see [`Builder::detect_deadlocks`]. Without it
    /// nothing is known, and the list is empty.
    ///
    /// A task is in it if it waits and nobody has a waker of it: that is exact. A task that waits for ever by
    /// intention, as for `std::future::pending()`, is in it too; one whose waker is kept, by whomever, is not.
    #[must_use]
    pub fn leaked_tasks(&self) -> Vec<LeakedTask> {
        self.runtime.sched.leaked_tasks()
    }

    /// Makes this the process-wide default runtime until the guard is dropped; then the former one is again.
    /// `#[gmp::main]` does this.
    #[doc(hidden)]
    pub fn install_default(&self) -> DefaultGuard {
        DefaultGuard { mine: self.runtime, before: default::install(self.runtime) }
    }

    /// Shuts the runtime down and waits at most `timeout`: every task that can be dropped is dropped.
    ///
    /// # Errors
    ///
    /// What is left when the time is over: polls and blocking closures that have not ended. Their threads end, and
    /// their tasks are dropped, when they do. On a thread of the runtime itself, or inside its own
    /// [`Runtime::block_on`], nothing is waited for.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let runtime = gmp::runtime::Builder::new().procs(1).build()?;
    /// runtime.spawn(std::future::pending::<()>());
    /// runtime.shutdown_timeout(Duration::from_secs(5)).expect("no poll is stuck");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn shutdown_timeout(self, timeout: Duration) -> Result<(), Leftover> {
        let runtime = self.runtime;
        std::mem::forget(self);
        shutdown::shut_down(runtime, Patience::timeout(timeout))
    }

    /// [`Runtime::shutdown_timeout`] that waits for nothing: what this thread can drop is dropped here, and the rest
    /// when it ends.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = gmp::runtime::Builder::new().enable_io().enable_time().build()?;
    /// let (end, until) = std::sync::mpsc::channel::<()>();
    /// let task = runtime.spawn_blocking(move || until.recv());
    /// runtime.shutdown_background();
    /// drop((end, task));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn shutdown_background(self) {
        // What is left is dropped by others; nobody wants to be told.
        let _ = self.shutdown_timeout(Duration::ZERO);
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // What is left is dropped by others; a destructor has nobody to tell.
        let _ = shutdown::shut_down(self.runtime, Patience::drop());
    }
}

/// See [`Runtime::install_default`].
#[derive(Debug)]
#[doc(hidden)]
pub struct DefaultGuard {
    mine: RuntimeRef,
    before: Option<RuntimeRef>,
}

impl Drop for DefaultGuard {
    fn drop(&mut self) {
        default::uninstall(self.mine, self.before);
    }
}

/// Names a runtime. It may be kept when the runtime is gone: what is then done through it is "runtime shut down".
///
/// # Examples
///
/// ```
/// let runtime = gmp::runtime::Builder::new().procs(1).build()?;
/// let handle = runtime.handle();
/// let task = std::thread::spawn(move || handle.spawn(async { 7 })).join().unwrap();
/// assert_eq!(runtime.block_on(task).unwrap(), 7);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Handle {
    runtime: RuntimeRef,
}

impl Handle {
    /// The runtime this thread is in, else the default one, which is started if need be.
    ///
    /// # Panics
    ///
    /// If that runtime is shut down, belongs to the parent process, or cannot be built.
    #[must_use]
    pub fn current() -> Handle {
        Handle::try_current().unwrap_or_else(|e| panic!("no current runtime: {e}"))
    }

    /// The runtime this thread is in, else the default one, which is started if need be.
    ///
    /// # Errors
    ///
    /// It is shut down, belongs to the parent process, or cannot be built.
    pub fn try_current() -> io::Result<Handle> {
        current().map(|runtime| Handle { runtime })
    }

    /// Spawns a task on this runtime; see [`spawn`]. If the runtime is shut down the future is dropped and the handle
    /// says so.
    ///
    /// # Panics
    ///
    /// In a forked child of the process that built the runtime.
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_at(Location::caller(), future)
    }

    fn spawn_at<F>(&self, location: &'static Location<'static>, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        if !self.runtime.is_of_this_process() {
            forked();
        }
        task::spawn(self.runtime, location, future)
    }

    /// Runs a closure that may block on this runtime; see [`spawn_blocking`]. If the runtime is shut down the closure
    /// is dropped and the handle says so.
    ///
    /// # Panics
    ///
    /// In a forked child of the process that built the runtime.
    #[track_caller]
    pub fn spawn_blocking<F, R>(&self, f: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        self.spawn_blocking_at(Location::caller(), f)
    }

    fn spawn_blocking_at<F, R>(&self, location: &'static Location<'static>, f: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        if !self.runtime.is_of_this_process() {
            forked();
        }
        task::spawn_blocking(self.runtime, location, f)
    }

    /// Runs a future on a thread of its own, on this runtime; see [`spawn_pinned`]. If the runtime is shut down the
    /// closure is dropped and the handle says so.
    ///
    /// # Panics
    ///
    /// In a forked child of the process that built the runtime.
    #[track_caller]
    pub fn spawn_pinned<F, Fut>(&self, f: F) -> JoinHandle<Fut::Output>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future + 'static,
        Fut::Output: Send + 'static,
    {
        self.spawn_pinned_at(Location::caller(), f)
    }

    fn spawn_pinned_at<F, Fut>(&self, location: &'static Location<'static>, f: F) -> JoinHandle<Fut::Output>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future + 'static,
        Fut::Output: Send + 'static,
    {
        if !self.runtime.is_of_this_process() {
            forked();
        }
        task::spawn_pinned(self.runtime, location, f)
    }

    /// Runs `future` to its end on this thread; see [`block_on`].
    ///
    /// # Panics
    ///
    /// If `future` does, if the runtime is shut down or belongs to the parent process, also where `future` has forked
    /// and is to wait in the child, or if it looks for deadlocks ([`Builder::detect_deadlocks`]) and finds one.
    #[track_caller]
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        block_on::on(self.runtime, future)
    }

    /// Makes this the runtime that free functions mean on this thread, until the guard is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = gmp::runtime::Builder::new().procs(1).build()?;
    /// let guard = runtime.handle().enter();
    /// let task = gmp::spawn(async { 7 });
    /// drop(guard);
    /// assert_eq!(runtime.block_on(task).unwrap(), 7);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn enter(&self) -> EnterGuard {
        EnterGuard { _entered: context::enter(self.runtime), _guest: Guest::come(self.runtime) }
    }

    /// The tasks that can never run again; see [`Runtime::leaked_tasks`].
    #[must_use]
    pub fn leaked_tasks(&self) -> Vec<LeakedTask> {
        if self.runtime.is_there() { self.runtime.sched.leaked_tasks() } else { Vec::new() }
    }

    /// What the scheduler counts; nothing but zeros of a runtime that is gone.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        if self.runtime.is_there() { self.runtime.sched.metrics() } else { Metrics::default() }
    }
}

/// Keeps a runtime entered on this thread; see [`Handle::enter`]. Guards are dropped in the reverse order.
#[derive(Debug)]
#[must_use = "dropping the guard leaves the runtime"]
pub struct EnterGuard {
    _entered: context::Entered,
    _guest: Option<Guest>,
}

/// A thread that has entered a runtime that looks for deadlocks: it may be about to wake one of its tasks.
#[derive(Debug)]
struct Guest(RuntimeRef);

impl Guest {
    fn come(runtime: RuntimeRef) -> Option<Guest> {
        let listed = runtime.is_there() && runtime.sched.detects();
        listed.then(|| {
            runtime.sched.waits.guest_came(runtime.generation);
            Guest(runtime)
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let Guest(runtime) = self;
        runtime.sched.waits.guest_left(runtime.generation);
        runtime.sched.agent_left();
    }
}

/// Spawns a task (Go: the `go` statement): `future` runs on its own, as soon as a processor comes to it.
///
/// The handle waits for its output. Dropping that lets the task go on by itself, so `gmp::spawn(…);` is a statement.
///
/// On a thread of no runtime it goes to the default runtime, which is started if need be.
///
/// # Panics
///
/// If the default runtime is needed and cannot be built, or in a forked child of the process that built the runtime. If
/// the runtime is shut down there is no panic: the future is dropped and the handle says so.
///
/// # Examples
///
/// ```
/// gmp::block_on(async {
///     let tasks: Vec<_> = (0..10).map(|n| gmp::spawn(async move { n * n })).collect();
///     let mut sum = 0;
///     for task in tasks {
///         sum += task.await.unwrap();
///     }
///     assert_eq!(sum, 285);
/// });
/// ```
#[track_caller]
#[inline(always)]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    task::spawn_here(Location::caller(), future, spawn_otherwise)
}

/// [`spawn`] where something is to be asked first, or to be made, or where a call costs nothing.
#[inline(never)]
fn spawn_otherwise<F>(location: &'static Location<'static>, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    here().spawn_at(location, future)
}

/// Runs `f`, which may block, so that no task waits for it: file systems, name lookups, long computations, libraries
/// that know nothing of async. Go: a goroutine in a system call.
///
/// It runs on a thread that holds no processor. When it has ended, its thread may go on with the task that waits for
/// it, on a processor that is idle, and with the closure that this task calls next: one call after the other then needs
/// no other thread.
///
/// Closures of one type that are spawned at one place and have taken less than 20 µs again and again (5 µs where there
/// are more CPUs than processors) run on the processor of the task that spawns them: to bring them to a thread would
/// take longer. There they are as a task in [`block_in_place`]: one that blocks after all loses the processor if others
/// wait for that, some milliseconds later at most, and those like it go to other threads again. A poll that waits for
/// such a closure as a thread does, and not by its handle, keeps it waiting until it is rescued. None runs there in a
/// runtime with [`Builder::max_blocking`], [`Builder::max_threads`] or [`Builder::detect_deadlocks`], without
/// [`Builder::rescue`], beside very many stuck threads, after a thread was refused, or while time is paused, and none
/// that is larger than about 2 KiB.
///
/// The others start in the order in which they are queued for threads, at most [`Builder::max_blocking`] at once.
/// Inside, wakes and spawns work as everywhere, and so does [`block_on`], also for another blocking closure: one that
/// waits in it does not count against the limit. One that waits by other means for a closure that is still queued
/// behind the limit may wait for ever.
///
/// On a thread of no runtime it goes to the default runtime, which is started if need be.
///
/// [`JoinHandle::abort`] ends a closure that has not started; one that runs is left alone. A panic goes to the handle.
/// If the system refuses a thread, the closure waits until there is one.
///
/// Shutdown drops the closures that have not started; their handles say so. It waits for those that run: dropping the
/// [`Runtime`] for a second at most, [`Runtime::shutdown_timeout`] for as long as it is told. What is left then goes
/// on, and its thread ends with it.
///
/// # Panics
///
/// If the default runtime is needed and cannot be built, or in a forked child of the process that built the runtime.
///
/// # Examples
///
/// ```
/// gmp::block_on(async {
///     let text = gmp::spawn_blocking(|| std::fs::read_to_string("Cargo.toml")).await.unwrap();
///     assert!(text.unwrap().contains("[package]"));
/// });
/// ```
#[track_caller]
pub fn spawn_blocking<F, R>(f: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    here().spawn_blocking_at(Location::caller(), f)
}

/// Runs the future that `f` makes on an OS thread of its own, from its first poll to its drop (Go:
/// `runtime.LockOSThread`). The future need not be `Send`: for what belongs to one thread, such as a namespace, a
/// scheduling class, thread-locals, or a library that is to be called from one thread only.
///
/// The thread runs nothing else, ends with the task and is not used again. It is one of the `procs` while it polls, and
/// gives way while it waits, so that pinned tasks beside each other do not run more at once than others do. Changing to
/// it and back costs a thread switch: what needs no thread of its own is faster in [`spawn`]. Tasks of
/// [`spawn_local`](crate::task::spawn_local) inside share the thread, and are dropped when the pinned task has ended.
///
/// On a thread of no runtime it goes to the default runtime, which is started if need be.
///
/// [`JoinHandle::abort`] ends the task after its current poll; its future is dropped on its thread. If the system
/// refuses a thread, the task waits until there is one, or until it is aborted. When the runtime is shut down, the
/// thread drops the future and ends.
///
/// # Panics
///
/// If the default runtime is needed and cannot be built, or in a forked child of the process that built the runtime.
///
/// # Examples
///
/// ```
/// use std::rc::Rc;
///
/// gmp::block_on(async {
///     let task = gmp::task::spawn_pinned(|| async {
///         let own = Rc::new(std::thread::current().id());
///         gmp::task::yield_now().await;
///         // Still the same thread.
///         assert_eq!(*own, std::thread::current().id());
///         Rc::strong_count(&own)
///     });
///     assert_eq!(task.await.unwrap(), 1);
/// });
/// ```
#[track_caller]
pub fn spawn_pinned<F, Fut>(f: F) -> JoinHandle<Fut::Output>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future + 'static,
    Fut::Output: Send + 'static,
{
    here().spawn_pinned_at(Location::caller(), f)
}

/// The runtime that the free functions mean, whether shut down or not.
#[inline]
fn here() -> Handle {
    Handle { runtime: context::runtime().unwrap_or_else(default_here) }
}

#[cold]
fn default_here() -> RuntimeRef {
    default::get().unwrap_or_else(|e| panic!("the default runtime cannot be built: {e}"))
}

#[cold]
fn forked() -> ! {
    panic!("{FORKED}")
}

#[cfg(all(test, not(gmp_loom)))]
mod tests;
