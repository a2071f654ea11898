//! The threads that machines run on: started when first needed, joined at shutdown. How many there may be, those of the pool
//! for blocking closures among them.
//!
//! 1. There are never more than `Builder::max_threads`, the watcher and threads of others not counted. A machine is started
//!    only if one place is left for the pool, and a thread of the pool, but for its first one, only if one is left for each
//!    processor: neither can keep the other from ever having one.
//! 2. What is refused waits: a processor is idle again, and `sysmon` tries later; a closure stays queued until another one or
//!    a thread ends.

use std::io;
use std::thread::JoinHandle;

use crate::context;
use crate::machine::Grant;
use crate::metrics::SharedCounter;
use crate::sched::Sched;
use crate::sched::find::Worker;
use crate::sys::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use crate::sys::{Mutex, rank};
use crate::task::swallow;

/// At most so many threads, unless the builder says otherwise (Go: `sched.maxmcount`).
pub(crate) const LIMIT: usize = 10_000;

/// One machine in `held`.
const MACHINE: u64 = 1;
/// One thread of the pool in `held`.
const POOL: u64 = 1 << 32;

/// The threads of one runtime.
pub(crate) struct Threads {
    /// Threads that have been started, or are just being, and have not ended: machines in the low half, those of the pool in
    /// the high half.
    held: AtomicU64,
    limit: AtomicUsize,
    /// For names: how many have been started in all.
    started: AtomicUsize,
    /// A thread could not be started; `sysmon` tries again.
    failed: AtomicUsize,
    /// Threads that the limit forbade.
    refused: SharedCounter,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    pub(crate) fn new() -> Self {
        Threads {
            held: AtomicU64::new(0),
            limit: AtomicUsize::new(LIMIT),
            started: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            refused: SharedCounter::default(),
            handles: Mutex::new(rank::LEAF, Vec::new()),
        }
    }

    /// Machines.
    pub(crate) fn count(&self) -> usize {
        // Acquire: pairs with the end of a machine; shutdown then sees which tasks it left unqueued.
        machines(self.held.load(Acquire))
    }

    /// Counts another machine, if there may be one (invariant 1).
    #[must_use]
    fn take_machine(&self) -> bool {
        let limit = self.limit.load(Relaxed);
        self.take(MACHINE, |held| machines(held) + pool(held).max(1) < limit)
    }

    fn give_machine(&self) {
        // AcqRel: pairs with `count`.
        self.held.fetch_sub(MACHINE, AcqRel);
    }

    /// Counts another thread of the pool, if there may be one beside so many processors.
    #[must_use]
    pub(crate) fn take_pool(&self, procs: usize) -> bool {
        let limit = self.limit.load(Relaxed);
        self.take(POOL, |held| pool(held) == 0 || pool(held) + machines(held).max(procs) < limit)
    }

    pub(crate) fn give_pool(&self) {
        // AcqRel: pairs with `take`, as the machines do.
        self.held.fetch_sub(POOL, AcqRel);
    }

    fn take(&self, one: u64, may: impl Fn(u64) -> bool) -> bool {
        // AcqRel: pairs with `count`.
        let taken = self.held.fetch_update(AcqRel, Relaxed, |held| may(held).then_some(held + one)).is_ok();
        if !taken {
            self.refused.add(1);
        }
        taken
    }

    /// How often the limit forbade a thread.
    pub(crate) fn refusals(&self) -> u64 {
        self.refused.get()
    }

    /// How often the system refused a thread.
    pub(crate) fn failures(&self) -> usize {
        self.failed.load(Relaxed)
    }

    /// The threads to join.
    pub(crate) fn take_handles(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.handles.lock())
    }

    /// Fresh for another runtime of the same slot.
    pub(crate) fn reset(&self, limit: usize) {
        debug_assert_eq!(self.held.load(Relaxed), 0, "a slot was recycled with threads");
        self.limit.store(limit, Relaxed);
        self.refused.reset();
        self.started.store(0, Relaxed);
        self.failed.store(0, Relaxed);
    }

    /// Starts a thread named `gmp-…` in the runtime's fashion.
    pub(crate) fn spawn(
        &self,
        sched: &'static Sched,
        suffix: &str,
        as_worker: bool,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
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

fn machines(held: u64) -> usize {
    held as u32 as usize
}

fn pool(held: u64) -> usize {
    (held >> 32) as usize
}

/// Starts a machine that begins with the processor `slot` (Go: `startm`, `newm`). If the limit or the system refuses the
/// thread, the processor is idle again, and `sysmon` tries later.
pub(super) fn start(sched: &'static Sched, slot: u32, spinning: bool, woken_by_spawn_of: Option<u32>) {
    sched.sysmon_start();
    let threads = &sched.threads;
    if !threads.take_machine() {
        sched.idle.give_back(slot, spinning, sched);
        return;
    }
    let number = threads.started.fetch_add(1, Relaxed);
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
        sched.threads.give_machine();
        sched.shutdown.unpark();
        // A closure may have been refused the place. Shutdown joins this thread before the slot is another runtime's.
        sched.blocking_retry();
    });
    if started.is_err() {
        machine.take_grant();
        sched.free_machine(machine);
        threads.give_machine();
        sched.idle.give_back(slot, spinning, sched);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many more machines and threads of the pool there may be, one kind after the other.
    fn fill(limit: usize, procs: usize, pool_first: bool) -> (usize, usize) {
        let threads = Threads::new();
        threads.reset(limit);
        let machines = || std::iter::repeat_with(|| threads.take_machine()).take_while(|taken| *taken).count();
        let pool = || std::iter::repeat_with(|| threads.take_pool(procs)).take_while(|taken| *taken).count();
        if pool_first {
            let pool = pool();
            (machines(), pool)
        } else {
            (machines(), pool())
        }
    }

    #[test]
    fn r17_neither_machines_nor_the_pool_take_all_threads() {
        for limit in 2..20 {
            for procs in 1..12 {
                let (machines, pool) = fill(limit, procs, true);
                assert_eq!(machines + pool, limit, "limit {limit}, procs {procs}");
                assert!(pool >= 1 && machines >= procs.min(limit - 1), "limit {limit}, procs {procs}: {pool}");
                assert_eq!(fill(limit, procs, false), (limit - 1, 1));
            }
        }
    }

    #[test]
    fn r17_a_place_that_is_given_up_is_free() {
        let threads = Threads::new();
        threads.reset(2);
        assert!(threads.take_machine() && threads.take_pool(1));
        assert!(!threads.take_machine() && !threads.take_pool(1));
        assert_eq!((threads.count(), threads.refusals()), (1, 2));
        threads.give_pool();
        assert!(!threads.take_machine(), "it is kept for the pool");
        assert!(threads.take_pool(1));
        threads.give_machine();
        assert!(!threads.take_pool(1), "it is kept for the processor");
        assert!(threads.take_machine());
    }
}
