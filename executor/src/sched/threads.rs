//! The threads that machines run on: started when first needed, joined at shutdown.

use std::io;
use std::thread::JoinHandle;

use crate::context;
use crate::machine::Grant;
use crate::pinned;
use crate::sched::Sched;
use crate::sched::find::Worker;
use crate::sys::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use crate::sys::{Mutex, rank};
use crate::task::swallow;

/// At most so many threads of a runtime, of whatever kind (Go: `sched.maxmcount`).
pub(crate) const THREADS_MAX: usize = 10_000;

/// The threads of one runtime.
pub(crate) struct Threads {
    /// Machines whose thread has been started and has not ended.
    machines: AtomicUsize,
    /// For names: how many have been started in all.
    started: AtomicUsize,
    /// A thread could not be started; `sysmon` tries again.
    failed: AtomicUsize,
    /// A pinned thread has no business starting one: `sysmon` does.
    asked: AtomicBool,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    pub(crate) fn new() -> Self {
        Threads {
            machines: AtomicUsize::new(0),
            started: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
            handles: Mutex::new(rank::LEAF, Vec::new()),
        }
    }

    pub(crate) fn count(&self) -> usize {
        // Acquire: pairs with the end of a machine; shutdown then sees which tasks it left unqueued.
        self.machines.load(Acquire)
    }

    /// How often the system refused a thread.
    pub(crate) fn failures(&self) -> usize {
        self.failed.load(Relaxed)
    }

    /// Whether `sysmon` is to wake a machine, once.
    pub(crate) fn take_asked(&self) -> bool {
        self.asked.swap(false, Relaxed)
    }

    /// The threads to join.
    pub(crate) fn take_handles(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.handles.lock())
    }

    /// Fresh for another runtime of the same slot.
    pub(crate) fn reset(&self) {
        debug_assert_eq!(self.count(), 0, "a slot was recycled with threads");
        self.started.store(0, Relaxed);
        self.failed.store(0, Relaxed);
        self.asked.store(false, Relaxed);
    }

    /// Starts a thread named `gmp-…` in the runtime's fashion.
    pub(crate) fn spawn(
        &self,
        sched: &'static Sched,
        suffix: &str,
        as_worker: bool,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        if pinned::starts_no_thread(sched) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let runtime = sched.runtime();
        let config = sched.config.lock().clone();
        let name = format!("{}-{suffix}", config.thread_name.as_deref().unwrap_or("gmp"));
        let mut builder = std::thread::Builder::new().name(name);
        if let Some(size) = config.thread_stack_size {
            builder = builder.stack_size(size);
        }
        let started = builder.spawn(move || {
            context::belong_to(runtime, as_worker);
            body();
        });
        let handle = started.inspect_err(|_| {
            self.failed.fetch_add(1, Relaxed);
        })?;
        // Threads of the pool come and go. What a thread has left in its handle is dropped outside the lock.
        let mut handles = self.handles.lock();
        let (ended, mut live): (Vec<_>, Vec<_>) =
            std::mem::take(&mut *handles).into_iter().partition(JoinHandle::is_finished);
        live.push(handle);
        *handles = live;
        drop(handles);
        drop(ended);
        Ok(())
    }
}

/// Starts a machine that begins with the processor `slot` (Go: `startm`, `newm`). If the system refuses the thread, the
/// processor is idle again, and `sysmon` tries later; at once, if it is only that this thread must not.
pub(super) fn start(sched: &'static Sched, slot: u32, spinning: bool, woken_by_spawn_of: Option<u32>) {
    sched.sysmon_start();
    let threads = &sched.threads;
    let number = threads.started.fetch_add(1, Relaxed);
    // AcqRel: pairs with the Acquire in `count`.
    threads.machines.fetch_add(1, AcqRel);
    let machine = sched.new_machine();
    machine.grant(Grant::Processor { slot, spinning }, woken_by_spawn_of);
    let started = threads.spawn(sched, &number.to_string(), true, move || {
        let config = sched.config.lock().clone();
        // A hook that panics has told so itself. The machine must go on: it was started with a processor.
        if let Some(hook) = &config.on_thread_start {
            swallow(hook);
        }
        Worker::new(sched, machine).run();
        if let Some(hook) = &config.on_thread_stop {
            swallow(hook);
        }
        drop(config);
        sched.free_machine(machine);
        // AcqRel: pairs with `count`.
        sched.threads.machines.fetch_sub(1, AcqRel);
        sched.shutdown.unpark();
    });
    if started.is_err() {
        machine.take_grant();
        sched.free_machine(machine);
        // AcqRel: as in the addition above.
        threads.machines.fetch_sub(1, AcqRel);
        sched.idle.give_back(slot, spinning);
        if pinned::starts_no_thread(sched) {
            threads.asked.store(true, Relaxed);
            sched.sysmon.wake();
        }
    }
}
