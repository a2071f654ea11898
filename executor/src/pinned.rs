//! Pinned tasks: each lives on an OS thread of its own (Go: `LockOSThread`), which is a machine like any other but runs
//! nothing else. `task` brings them here, `runtime::pinned` is what their threads do, `sysmon` tries again when the
//! system refused a thread, shutdown calls them and drops those that have none.
//!
//! 1. A pinned task counts from the decision to start its thread, under the lock that shutdown takes to close the list,
//!    until its future is gone and its thread about to end: the runtime's slot is not recycled before.
//! 2. A thread is started for one task and ends with it: what the task did to its thread nobody else meets.
//! 3. A task whose thread was refused, by the system or by `Builder::max_threads`, waits in `waiting`. Nobody has
//!    polled it, so that whoever takes it out of there may drop it: shutdown, or a machine if it was aborted.
//! 4. What a pinned task did to its thread (namespaces, signal mask, affinity, …) a thread that this one starts would
//!    inherit. So it starts none of the runtime: `sysmon` does, as if the system had refused it (Go: the template
//!    thread).

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::context;
use crate::metrics::Metrics;
use crate::runtime;
use crate::sched::threads::Kind;
use crate::sched::{RuntimeRef, Sched};
use crate::sys::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use crate::sys::{Mutex, rank};
use crate::task::local::{HomeRef, Host, Set};
use crate::task::registry::Closed;
use crate::task::{self, Id, swallow};

/// The pinned tasks of one runtime.
pub(crate) struct Pinned {
    /// Threads that were started and have not ended.
    threads: AtomicUsize,
    /// Tasks whose thread has not come to its `block_on`, where `Waits` knows it.
    coming: AtomicUsize,
    /// A pinned thread has shut the runtime down, and `sysmon` is to start the thread that does the rest.
    finish_asked: AtomicBool,
    state: Mutex<State>,
}

/// Guarded by `Pinned::state`.
struct State {
    /// The generation of the runtime that is open, 0 if it is closed.
    generation: u32,
    /// All tasks that count.
    live: Vec<Task>,
    /// Those of them without a thread, oldest first.
    waiting: VecDeque<Task>,
    /// For names: how many there were in all.
    spawned: usize,
}

/// A pinned task.
#[derive(Clone, Copy)]
pub(crate) struct Task {
    /// What its thread owns.
    set: HomeRef,
    root: Id,
    /// Part of its thread's name.
    number: usize,
    /// Where it was spawned.
    location: &'static Location<'static>,
}

impl Pinned {
    pub(crate) const fn new() -> Self {
        let state = State { generation: 0, live: Vec::new(), waiting: VecDeque::new(), spawned: 0 };
        Pinned {
            threads: AtomicUsize::new(0),
            coming: AtomicUsize::new(0),
            finish_asked: AtomicBool::new(false),
            state: Mutex::new(rank::LEAF, state),
        }
    }

    /// Fresh for a runtime.
    pub(crate) fn open(&self, generation: u32) {
        let mut state = self.state.lock();
        debug_assert!(state.live.is_empty(), "a slot was recycled with pinned tasks");
        state.generation = generation;
        state.spawned = 0;
    }

    /// No task comes from here on, and those that wait end.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.generation = 0;
        let live = state.live.clone();
        drop(state);
        live.iter().for_each(|task| task.set.call());
    }

    /// Pinned tasks whose future may still exist.
    pub(crate) fn live(&self) -> usize {
        self.state.lock().live.len()
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads.load(Relaxed)
    }

    /// Tasks that no processor and no waiting thread stands for yet.
    pub(crate) fn coming(&self) -> usize {
        // Acquire: pairs with `has_come`, after which `Waits` has the thread.
        self.coming.load(Acquire)
    }

    /// A task's thread is entered in `Waits`, or the task was dropped.
    pub(crate) fn has_come(&self) {
        // AcqRel: pairs with `coming`.
        self.coming.fetch_sub(1, AcqRel);
    }

    pub(crate) fn count_into(&self, metrics: &mut Metrics) {
        let state = self.state.lock();
        metrics.pinned_threads = self.threads();
        metrics.pinned_queue = state.waiting.len();
        metrics.live_tasks += state.live.len();
    }

    /// Takes the tasks out that were aborted before they had a thread.
    fn take_aborted(&self) -> Vec<Task> {
        let mut aborted = Vec::new();
        self.state.lock().waiting.retain(|task| {
            let is_aborted = task.set.has_aborted();
            if is_aborted {
                aborted.push(*task);
            }
            !is_aborted
        });
        aborted
    }

    /// The task is gone, and its thread about to end.
    fn remove(&self, task: Task) {
        self.state.lock().live.retain(|other| other.number != task.number);
    }
}

impl Sched {
    /// Starts a thread for the task `root`, which is alone in `set`.
    pub(crate) fn start_pinned(
        &'static self,
        runtime: RuntimeRef,
        set: HomeRef,
        root: Id,
        location: &'static Location<'static>,
    ) -> Result<(), Closed> {
        let mut state = self.pinned.state.lock();
        if state.generation != runtime.generation {
            return Err(Closed);
        }
        let task = Task { set, root, number: state.spawned, location };
        state.spawned += 1;
        state.live.push(task);
        // AcqRel: pairs with `coming`.
        self.pinned.coming.fetch_add(1, AcqRel);
        drop(state);
        self.spawned_outside.add(1);
        // Before the task does anything to its thread (invariant 4), also if another thread is just starting it.
        self.sysmon_start();
        while self.sysmon.is_coming() {
            std::thread::yield_now();
        }
        if !self.pin(task, VecDeque::push_back) {
            // It may sleep deeply. Not in `pin`, which `sysmon` calls: it would keep itself awake.
            self.sysmon.wake();
        }
        Ok(())
    }

    /// Starts the threads that the system refused before, or that a pinned thread must not start, and has the tasks end
    /// that were aborted meanwhile. Tells whether the system still refuses one.
    pub(crate) fn pinned_retry(&'static self) -> bool {
        if self.pinned.finish_asked.swap(false, Relaxed) {
            runtime::finish_elsewhere(self.runtime());
        }
        for aborted in self.pinned.take_aborted() {
            let location = aborted.location;
            drop(task::spawn(self.runtime(), location, Aborted { sched: self, task: Some(aborted) }));
        }
        loop {
            let waiting = self.pinned.state.lock().waiting.pop_front();
            let Some(task) = waiting else {
                return false;
            };
            if !self.pin(task, VecDeque::push_front) {
                return true;
            }
        }
    }

    /// Drops the tasks that have no thread. The runtime closes.
    pub(crate) fn discard_pinned(&'static self) {
        // In the child of a fork, to which a destructor has come, they are the parent's.
        while self.is_of_this_process() {
            let waiting = self.pinned.state.lock().waiting.pop_front();
            let Some(task) = waiting else {
                return;
            };
            // SAFETY: no thread was started for it (invariant 3).
            drop(unsafe { Set::adopt(task.set) });
            self.pinned_is_gone(task);
        }
    }

    /// A thread that ends the runtime is to be started. `false`: by this one, which is not pinned.
    pub(crate) fn pinned_asks_to_finish(&'static self) -> bool {
        let asks = starts_no_thread(self);
        if asks {
            // Relaxed: what it is to do is in the runtime's state; the wake comes after it.
            self.pinned.finish_asked.store(true, Relaxed);
            self.sysmon.wake();
        }
        asks
    }

    /// The future of a task without a thread is gone, and it counts no more.
    fn pinned_is_gone(&self, task: Task) {
        self.pinned.has_come();
        self.pinned.remove(task);
    }

    /// Starts the task's thread; if that fails the task waits, where `wait` puts it.
    fn pin(&'static self, task: Task, wait: fn(&mut VecDeque<Task>, Task)) -> bool {
        let pinned = &self.pinned;
        pinned.threads.fetch_add(1, Relaxed);
        let counted = self.threads.take(Kind::Pinned, self.idle.procs());
        let started = counted
            && self.threads.spawn(self, &format!("pin-{}", task.number), true, move || serve(self, task)).is_ok();
        if !started {
            if counted {
                self.threads.give(Kind::Pinned);
            }
            pinned.threads.fetch_sub(1, Relaxed);
            // While the task still counts: afterwards the slot may be another runtime's.
            self.sysmon_start();
            wait(&mut pinned.state.lock().waiting, task);
            // Shutdown may have looked before.
            self.shutdown.unpark();
        }
        started
    }
}

/// A task that was aborted before it had a thread, on its way to a machine: its destructor is the user's, and nothing
/// for `sysmon`.
struct Aborted {
    sched: &'static Sched,
    task: Option<Task>,
}

impl Future for Aborted {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(task) = self.task.take() {
            // SAFETY: no thread was started for it (invariant 3).
            let set = unsafe { Set::adopt(task.set) };
            // The poll of an aborted task drops its future, and the handle says why.
            let _ = Host::with(set).poll(cx, |_| Poll::<()>::Pending);
            self.sched.pinned_is_gone(task);
            self.sched.shutdown.unpark();
        }
        Poll::Ready(())
    }
}

impl Drop for Aborted {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            // No machine came: the runtime closes, and shutdown drops those that wait. It may have looked before.
            self.sched.pinned.state.lock().waiting.push_back(task);
            self.sched.shutdown.unpark();
        }
    }
}

thread_local! {
    /// This thread is a pinned task's.
    static IS_PINNED: Cell<bool> = const { Cell::new(false) };
}

/// Whether `sysmon` is to start what this thread would start (invariant 4). If the system refused that one its thread,
/// nobody else may be there to start it.
pub(crate) fn starts_no_thread(sched: &Sched) -> bool {
    IS_PINNED.get() && sched.sysmon.is_started()
}

/// The body of a pinned task's thread.
fn serve(sched: &'static Sched, task: Task) {
    IS_PINNED.set(true);
    let _runs = sched.threads.runs();
    let config = sched.config.lock().clone();
    sched.call_hook(config.on_thread_start.as_deref());
    // What the task throws is in its handle. Should anything else come out, the task must not count for ever.
    swallow(|| {
        // SAFETY: this thread was started for the task, and nobody has polled it.
        let set = unsafe { Set::adopt(task.set) };
        runtime::run_pinned(sched.runtime(), set, task.root, task.location);
    });
    sched.call_hook(config.on_thread_stop.as_deref());
    drop(config);
    // As at the end of a machine.
    context::set_worker_of(None);
    sched.pinned.threads.fetch_sub(1, Relaxed);
    sched.threads.give(Kind::Pinned);
    // A closure may have been refused the place, and this thread starts none.
    sched.sysmon.wake();
    sched.pinned.remove(task);
    sched.shutdown.unpark();
}
