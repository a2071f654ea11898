//! `LocalSet` and `spawn_local`, as users hold them.

use std::cell::Cell;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use super::JoinHandle;
use super::local::{Entered, OWNER, Set, spawn_here};
use crate::runtime::Runtime;

/// Spawns a task that stays on this thread, so that `future` need not be `Send`.
///
/// It belongs to what this thread is inside of, the innermost of these: the [`LocalSet`] whose [`LocalSet::run_until`]
/// or task is polled, or that was entered; the [`block_on`](crate::runtime::block_on), or the future of
/// [`spawn_pinned`](crate::runtime::spawn_pinned). It runs while that is polled, and is dropped with it at the latest:
/// a task that is still there when `block_on` ends has its future dropped, and its handle says that it was cancelled.
///
/// What blocks this thread holds up all its local tasks, for no other may run them: in the middle of a poll they stand
/// still also in a `block_on`, `recv_blocking` and the like. To wait for one of them there is to wait for ever.
///
/// # Panics
///
/// Outside of all of them, such as directly in a task of [`spawn`](crate::runtime::spawn), which may change threads at
/// each `.await`.
///
/// # Examples
///
/// ```
/// use std::rc::Rc;
///
/// gmp::block_on(async {
///     let shared = Rc::new(6);
///     let other = shared.clone();
///     let task = gmp::task::spawn_local(async move { *other * 7 });
///     assert_eq!(task.await.unwrap(), 42);
///     assert_eq!(Rc::strong_count(&shared), 1);
/// });
/// ```
#[track_caller]
pub fn spawn_local<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    match spawn_here(Location::caller(), future) {
        Ok(handle) => handle,
        Err(future) => {
            drop(future);
            panic!(
                "`spawn_local` is called where no thread keeps the task: call it inside `LocalSet::run_until`, `block_on` \
                 or `spawn_pinned`. A task of `spawn` may change threads, and so may a main whose future is `Send`: \
                 `#[gmp::main(local)]` runs it in `block_on`"
            )
        }
    }
}

/// Tasks that stay on one thread, so that their futures need not be `Send`. They run while the set is polled: by
/// [`LocalSet::run_until`], by [`LocalSet::block_on`], or as a future, which is ready when no task is left.
///
/// Only this thread polls and drops the tasks; their wakers and handles may go anywhere. One poll of the set polls 61
/// tasks at most, and ends earlier when the time slice is spent: what else runs on the thread and on its processor has
/// its turn. A task that blocks the thread, also in a `block_on`, holds up the others of its set, as in
/// [`spawn_local`].
///
/// Dropping the set drops the futures of its tasks. Their handles say that they were cancelled.
///
/// # Examples
///
/// ```
/// use gmp::task::{LocalSet, spawn_local};
/// use std::cell::Cell;
/// use std::rc::Rc;
///
/// let runtime = gmp::runtime::Builder::new().procs(2).build()?;
/// let set = LocalSet::new();
/// let count = Rc::new(Cell::new(0));
/// for _ in 0..3 {
///     let count = count.clone();
///     set.spawn_local(async move {
///         gmp::task::yield_now().await;
///         count.set(count.get() + 1);
///     });
/// }
/// // Nothing runs before the set is polled.
/// assert_eq!(count.get(), 0);
/// runtime.block_on(set);
/// assert_eq!(count.get(), 3);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Default)]
pub struct LocalSet {
    set: Set,
    /// For the keys of hosts.
    hosts: Cell<u64>,
}

impl LocalSet {
    /// An empty set.
    #[must_use]
    pub fn new() -> LocalSet {
        LocalSet::default()
    }

    /// Spawns a task into this set. It runs when the set is polled.
    #[track_caller]
    pub fn spawn_local<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.set.spawn(Location::caller(), future)
    }

    /// Runs `future` to its end, and the tasks of the set while it lasts. Inside, [`spawn_local`] means this set. Tasks
    /// that have not ended with `future` stay, for the next time that the set is polled.
    ///
    /// It may be called in tasks of this very set. Where many of them do, one inside the poll of the other, those
    /// furthest in run their `future` alone, and whoever polls these tasks runs the others.
    ///
    /// # Cancel safety
    ///
    /// That of `future`: dropping it drops `future`, and leaves the tasks in the set.
    ///
    /// # Examples
    ///
    /// ```
    /// let set = gmp::task::LocalSet::new();
    /// gmp::block_on(set.run_until(async {
    ///     let text = std::rc::Rc::new("local");
    ///     let task = gmp::task::spawn_local(async move { text.len() });
    ///     assert_eq!(task.await.unwrap(), 5);
    /// }));
    /// ```
    pub async fn run_until<F: Future>(&self, future: F) -> F::Output {
        let host = Host::new(self);
        let mut future = pin!(future);
        std::future::poll_fn(|cx| {
            self.set.poll(host.key, cx, |cx| {
                let _entered = self.set.enter();
                future.as_mut().poll(cx)
            })
        })
        .await
    }

    /// [`LocalSet::run_until`] in [`Runtime::block_on`].
    ///
    /// # Panics
    ///
    /// If `future` does, or if it waits in vain and the runtime looks for that
    /// ([`Builder::detect_deadlocks`](crate::runtime::Builder::detect_deadlocks)).
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = gmp::runtime::Builder::new().procs(1).build()?;
    /// let set = gmp::task::LocalSet::new();
    /// let task = set.spawn_local(async { 7 });
    /// assert_eq!(set.block_on(&runtime, task).unwrap(), 7);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn block_on<F: Future>(&self, runtime: &Runtime, future: F) -> F::Output {
        runtime.block_on(self.run_until(future))
    }

    /// Makes this the set that [`spawn_local`] means on this thread, until the guard is dropped. It is not polled by
    /// that.
    ///
    /// In a `block_on` the guard may be held across an `.await`. In a task of a set, and in [`LocalSet::run_until`], it
    /// holds until the next `.await` that waits: each of their polls begins in the set that they belong to.
    ///
    /// # Examples
    ///
    /// ```
    /// let set = gmp::task::LocalSet::new();
    /// let guard = set.enter();
    /// let task = gmp::task::spawn_local(async { 7 });
    /// drop(guard);
    /// assert_eq!(gmp::block_on(set.run_until(task)).unwrap(), 7);
    /// ```
    pub fn enter(&self) -> LocalEnterGuard {
        LocalEnterGuard { _entered: self.set.enter() }
    }
}

impl Default for Set {
    fn default() -> Self {
        Set::new()
    }
}

impl Future for LocalSet {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let set = &self.set;
        let _ = set.poll(OWNER, cx, |_| Poll::<()>::Pending);
        if set.is_empty() {
            set.leave(OWNER);
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl std::fmt::Debug for LocalSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalSet").finish_non_exhaustive()
    }
}

/// One `run_until`.
struct Host<'a> {
    set: &'a Set,
    key: u64,
}

impl<'a> Host<'a> {
    fn new(local: &'a LocalSet) -> Self {
        let key = local.hosts.get() + 1;
        local.hosts.set(key);
        Host { set: &local.set, key }
    }
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        self.set.leave(self.key);
    }
}

/// Keeps a [`LocalSet`] entered on this thread; see [`LocalSet::enter`]. Guards are dropped in the reverse order.
#[must_use = "dropping the guard leaves the set"]
pub struct LocalEnterGuard {
    _entered: Entered,
}

impl std::fmt::Debug for LocalEnterGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalEnterGuard").finish_non_exhaustive()
    }
}
