//! The threads that machines run on: the first is started with the runtime, unless that looks for deadlocks, the others
//! when first needed; all are joined at shutdown. How many there may be, those of the pool for blocking closures and of
//! pinned tasks among them.
//!
//! 1. There are never more than `Builder::max_threads`, the watcher and threads of others not counted. One place is
//!    kept for the first thread of each kind but lanes, and one for each processor against lanes and all but the first
//!    of the pool and of pinned tasks: no kind can keep another from ever having a thread. Lanes have what is left.
//! 2. A thread of the pool that runs tasks counts as a machine meanwhile; if its place is gone afterwards it ends.
//! 3. What is refused waits: a processor is idle again, and `sysmon` tries later, as it does for a pinned task; a
//!    closure stays queued until another one or a thread ends.

use std::io;
use std::thread::JoinHandle;

use crate::context;
use crate::machine::{Grant, Machine};
use crate::metrics::SharedCounter;
use crate::pinned;
use crate::sched::find::{Began, Worker};
use crate::sched::{Config, Sched};
use crate::sys::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use crate::sys::{Mutex, rank, thread_id, try_print_error};
use crate::task::swallow;

/// At most so many threads, unless the builder says otherwise (Go: `sched.maxmcount`).
pub(crate) const LIMIT: usize = 10_000;

/// What a thread is started for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Machine,
    /// Of the pool for blocking closures.
    Pool,
    /// Of a pinned task.
    Pinned,
    /// For tasks that compute for long in each poll.
    Lane,
}

/// So many bits of `held` count the threads of one kind, and those that are left the lanes.
const BITS: u32 = 18;
const MOST: usize = (1 << BITS) - 1;
const LANES_MOST: usize = (1 << (64 - 3 * BITS)) - 1;

impl Kind {
    fn one(self) -> u64 {
        1 << (BITS * self as u32)
    }

    fn count(self, held: u64) -> usize {
        (held >> (BITS * self as u32)) as usize & MOST
    }
}

/// The threads of one runtime.
pub(crate) struct Threads {
    /// Threads that have been started, or are just being, and have not ended, of each [`Kind`].
    held: AtomicU64,
    limit: AtomicUsize,
    /// For names: how many have been started in all.
    started: AtomicUsize,
    /// Threads that could not be started; `sysmon` tries again. The first is told of.
    failed: AtomicUsize,
    /// Threads that the limit forbade.
    refused: SharedCounter,
    /// A pinned thread has no business starting one: `sysmon` does.
    asked: AtomicBool,
    /// Machines that are in `Builder::on_thread_start`.
    in_hooks: AtomicUsize,
    /// Threads that are being started, and whose handles are not in the list yet. They may have ended.
    starting: AtomicUsize,
    handles: Mutex<Vec<JoinHandle<()>>>,
    /// The system's numbers of those that run, but for the watcher.
    running: Mutex<Vec<i32>>,
}

impl Threads {
    pub(crate) const fn new() -> Self {
        Threads {
            held: AtomicU64::new(0),
            limit: AtomicUsize::new(LIMIT),
            started: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            refused: SharedCounter::new(),
            asked: AtomicBool::new(false),
            in_hooks: AtomicUsize::new(0),
            starting: AtomicUsize::new(0),
            handles: Mutex::new(rank::LEAF, Vec::new()),
            running: Mutex::new(rank::LEAF, Vec::new()),
        }
    }

    /// The system's numbers of the threads that run, but for the watcher.
    pub(crate) fn running(&self) -> Vec<i32> {
        self.running.lock().clone()
    }

    /// This thread is one of them until the guard is dropped.
    pub(crate) fn runs(&'static self) -> impl Drop {
        struct Runs(&'static Threads, i32);
        impl Drop for Runs {
            fn drop(&mut self) {
                self.0.running.lock().retain(|tid| *tid != self.1);
            }
        }
        let tid = thread_id();
        self.running.lock().push(tid);
        Runs(self, tid)
    }

    /// Machines and lanes.
    pub(crate) fn count(&self) -> usize {
        // Acquire: pairs with the end of such a thread; shutdown then sees which tasks it left unqueued.
        let [machines, .., lanes] = Self::counts(self.held.load(Acquire));
        machines + lanes
    }

    /// Machines.
    pub(crate) fn machines(&self) -> usize {
        Kind::Machine.count(self.held.load(Relaxed))
    }

    /// Counts another thread, if there may be one beside so many processors (invariant 1).
    #[must_use]
    pub(crate) fn take(&self, kind: Kind, procs: u32) -> bool {
        let limit = self.limit.load(Relaxed);
        let may = |held: u64| {
            let [machines, pool, pinned, lanes] = Self::counts(held);
            let needed = machines.max(procs as usize) + lanes;
            match kind {
                Kind::Machine => machines + lanes + pool.max(1) + pinned.max(1) < limit,
                Kind::Lane => lanes < LANES_MOST && needed + pool.max(1) + pinned.max(1) < limit,
                Kind::Pool => pool == 0 || pool + needed + pinned.max(1) < limit,
                Kind::Pinned => pinned == 0 || pinned + needed + pool.max(1) < limit,
            }
        };
        // AcqRel: pairs with `count`.
        let taken = self.held.fetch_update(AcqRel, Relaxed, |held| may(held).then_some(held + kind.one())).is_ok();
        if !taken {
            self.refused.add(1);
        }
        taken
    }

    /// A thread of the pool is to run tasks: it counts as a machine from here on, if the pool may have another one
    /// then.
    #[must_use]
    pub(crate) fn lend(&self, procs: u32) -> bool {
        let limit = self.limit.load(Relaxed);
        // All the others of the pool may be in closures that do not end before the one that this thread's task calls.
        let may = |held: u64| {
            let [machines, pool, pinned, lanes] = Self::counts(held);
            let (machines, pool) = (machines + 1, pool - 1);
            machines + lanes + pool.max(1) + pinned.max(1) <= limit
                && (pool == 0 || pool + machines.max(procs as usize) + lanes + pinned.max(1) < limit)
        };
        let lent = |held| may(held).then_some(held - Kind::Pool.one() + Kind::Machine.one());
        // AcqRel: pairs with `count`.
        self.held.fetch_update(AcqRel, Relaxed, lent).is_ok()
    }

    /// It is of the pool again. `false`: its place was taken meanwhile, and it is to end, as a machine.
    #[must_use]
    pub(crate) fn take_back(&self, procs: u32) -> bool {
        let limit = self.limit.load(Relaxed);
        let may = |held: u64| {
            let [machines, pool, pinned, lanes] = Self::counts(held);
            pool == 0 || pool + (machines - 1).max(procs as usize) + lanes + pinned.max(1) < limit
        };
        let back = |held| may(held).then_some(held - Kind::Machine.one() + Kind::Pool.one());
        // AcqRel: pairs with `count`.
        self.held.fetch_update(AcqRel, Relaxed, back).is_ok()
    }

    fn counts(held: u64) -> [usize; 4] {
        [Kind::Machine, Kind::Pool, Kind::Pinned, Kind::Lane].map(|kind| kind.count(held))
    }

    /// A thread has ended, or could not be started.
    pub(crate) fn give(&self, kind: Kind) {
        // AcqRel: pairs with `count`.
        self.held.fetch_sub(kind.one(), AcqRel);
    }

    /// How often the limit forbade a thread.
    pub(crate) fn refusals(&self) -> u64 {
        self.refused.get()
    }

    /// How often the system refused a thread.
    pub(crate) fn failures(&self) -> usize {
        self.failed.load(Relaxed)
    }

    /// Whether `sysmon` is to wake a machine, once.
    pub(crate) fn take_asked(&self) -> bool {
        self.asked.swap(false, Relaxed)
    }

    /// Runs a hook of a machine that starts.
    pub(super) fn run_hook(&self, hook: &dyn Fn()) {
        self.in_hooks.fetch_add(1, Relaxed);
        // A hook that panics has told so itself. The machine must go on: it was started with a processor.
        swallow(hook);
        self.in_hooks.fetch_sub(1, Relaxed);
    }

    /// How many machines are in such a hook.
    pub(crate) fn in_hooks(&self) -> usize {
        self.in_hooks.load(Relaxed)
    }

    /// The threads to join, also one that has ended before who started it has put its handle here. Empty if all were
    /// taken.
    pub(crate) fn take_handles(&self) -> Vec<JoinHandle<()>> {
        loop {
            // Acquire: pairs with the Release in `keep`: the handle is in the list then.
            let is_starting = self.starting.load(Acquire) > 0;
            let handles = std::mem::take(&mut *self.handles.lock());
            if !is_starting || !handles.is_empty() {
                return handles;
            }
            std::thread::yield_now();
        }
    }

    /// Starts a thread and keeps its handle.
    fn keep(&self, start: impl FnOnce() -> io::Result<JoinHandle<()>>) -> io::Result<()> {
        // Relaxed: whoever sees that the thread has ended sees also what came before its start.
        self.starting.fetch_add(1, Relaxed);
        let started = start().map(|handle| {
            // Threads of the pool come and go.
            let mut handles = self.handles.lock();
            let (ended, mut live): (Vec<_>, Vec<_>) =
                std::mem::take(&mut *handles).into_iter().partition(JoinHandle::is_finished);
            live.push(handle);
            *handles = live;
            ended
        });
        // Release: pairs with the Acquire in `take_handles`.
        self.starting.fetch_sub(1, Release);
        // What a thread has left in its handle is dropped outside the lock.
        started.map(drop)
    }

    /// Fresh for another runtime of the same slot.
    pub(crate) fn reset(&self, limit: usize) {
        debug_assert_eq!(self.held.load(Relaxed), 0, "a slot was recycled with threads");
        self.limit.store(limit.min(MOST), Relaxed);
        self.refused.reset();
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
        let body = move || {
            context::belong_to(runtime, as_worker);
            body();
        };
        self.keep(|| builder.spawn(body)).inspect_err(|error| {
            if self.failed.fetch_add(1, Relaxed) == 0 {
                tell_refused(&config, suffix, error);
            }
        })
    }
}

/// The first time that the system refuses a thread: it is tried again, but if none is ever to be had, as with a stack
/// that is too large, a runtime would stand without a word.
#[cold]
fn tell_refused(config: &Config, suffix: &str, error: &io::Error) {
    let name = config.thread_name.as_deref().unwrap_or("gmp");
    let stack = config.thread_stack_size.map(|bytes| format!(" with a stack of {bytes} bytes")).unwrap_or_default();
    let _ = try_print_error(&format!(
        "gmp: the system refuses the thread `{name}-{suffix}`{stack}: {error}; what it is for waits until there is one"
    ));
}

/// Starts a machine that begins with the processor `slot` (Go: `startm`, `newm`). If the limit or the system refuses
/// the thread, the processor is idle again, and `sysmon` tries later; at once, if it is only that this thread must not.
pub(super) fn start(sched: &'static Sched, slot: u32, spinning: bool, woken_by: Option<u32>) {
    sched.sysmon_start_if_anyones();
    let threads = &sched.threads;
    if !threads.take(Kind::Machine, sched.idle.procs()) {
        sched.idle.give_back(slot, spinning, sched);
        return;
    }
    let machine = sched.new_machine();
    machine.grant(Grant::Processor { slot, spinning }, woken_by);
    let started = start_thread(sched, machine, Kind::Machine, Worker::run);
    if started.is_err() {
        machine.take_grant();
        sched.free_machine(machine);
        threads.give(Kind::Machine);
        sched.idle.give_back(slot, spinning, sched);
        if pinned::starts_no_thread(sched) {
            threads.asked.store(true, Relaxed);
            sched.sysmon.wake();
        }
    }
}

impl Sched {
    /// Calls a hook of a thread that is no machine, or ends. One that panics has told so itself.
    pub(crate) fn call_hook(&self, hook: Option<&(dyn Fn() + Send + Sync)>) {
        if let Some(hook) = hook {
            swallow(hook);
            self.die_if_forked();
        }
    }

    /// Starts the first machine, before there is anything to do: a thread takes 100 µs until it runs, and whoever
    /// builds a runtime has things to do meanwhile. It stands by for its first grant. If the system refuses the thread
    /// it is started when it is needed, like any other.
    pub(crate) fn start_first_machine(&'static self) {
        // Where deadlocks are looked for the watcher comes before any task. So what `#[gmp::test]` runs never starts
        // like this: tests of a cold start build their runtimes themselves.
        if self.detects() || !self.threads.take(Kind::Machine, self.idle.procs()) {
            return;
        }
        let machine = self.new_machine();
        self.duty.promise();
        if start_thread(self, machine, Kind::Machine, Worker::run_first).is_ok() {
            self.idle.put_to_sleep(machine);
        } else {
            self.duty.is_done();
            self.free_machine(machine);
            self.threads.give(Kind::Machine);
        }
    }

    /// Starts a lane, which is counted as coming. `false`: the limit or the system refuses the thread.
    pub(super) fn start_lane(&'static self) -> bool {
        if !self.threads.take(Kind::Lane, self.idle.procs()) {
            return false;
        }
        let machine = self.new_machine();
        let started = start_thread(self, machine, Kind::Lane, Worker::run_lane).is_ok();
        if !started {
            self.free_machine(machine);
            self.threads.give(Kind::Lane);
        }
        started
    }
}

/// What a machine's thread does, with the hook of a thread that starts.
type Run = fn(&mut Worker, Option<&(dyn Fn() + Send + Sync)>) -> Began;

/// The thread of a machine or a lane that is counted.
fn start_thread(sched: &'static Sched, machine: &'static Machine, kind: Kind, run: Run) -> io::Result<()> {
    let number = sched.threads.started.fetch_add(1, Relaxed);
    let name = if matches!(kind, Kind::Lane) { format!("lane-{number}") } else { number.to_string() };
    sched.threads.spawn(sched, &name, true, move || {
        let _runs = sched.threads.runs();
        let config = sched.config.lock().clone();
        let Began(began) = run(&mut Worker::new(sched, machine), config.on_thread_start.as_deref());
        if began {
            sched.call_hook(config.on_thread_stop.as_deref());
        }
        drop(config);
        sched.free_machine(machine);
        // In the destructors of thread-locals, which are still to run, nobody counts it: it is a guest then, like any
        // thread.
        context::set_worker_of(None);
        sched.threads.give(kind);
        sched.shutdown.unpark();
        // A closure may have been refused the place. The slot is not yet another runtime's: shutdown joins each thread
        // that is still in here.
        sched.blocking_retry();
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Kind::{Lane, Machine, Pinned, Pool};

    fn threads(limit: usize) -> Threads {
        let threads = Threads::new();
        threads.reset(limit);
        threads
    }

    #[test]
    fn r17_no_kind_of_thread_takes_all_places() {
        for limit in 3..20 {
            for procs in 1..12 {
                for order in [[Machine, Pool, Pinned], [Pool, Pinned, Machine], [Pinned, Machine, Pool]] {
                    let threads = threads(limit);
                    let took = order.map(|kind| std::iter::from_fn(|| threads.take(kind, procs).then_some(())).count());
                    assert_eq!(took.iter().sum::<usize>(), limit, "{order:?} of {limit} beside {procs}");
                    let [machines, others @ .., _] = Threads::counts(threads.held.load(Relaxed));
                    assert!(
                        machines >= (procs as usize).min(limit - 2),
                        "{order:?} of {limit} beside {procs}: {machines}"
                    );
                    assert!(
                        others.iter().all(|others| *others >= 1),
                        "{order:?} of {limit} beside {procs}: {others:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn r17_a_lane_takes_nobodys_place() {
        for limit in 3..20 {
            for procs in 1..12 {
                let threads = threads(limit);
                while threads.take(Lane, procs) {}
                let others =
                    [Pool, Pinned].map(|kind| std::iter::from_fn(|| threads.take(kind, procs).then_some(())).count());
                assert!(others.iter().all(|others| *others >= 1), "{others:?} of {limit} beside {procs}");
                let machines = std::iter::from_fn(|| threads.take(Machine, procs).then_some(())).count();
                assert!(machines >= (procs as usize).min(limit - 2), "{machines} of {limit} beside {procs}");
            }
        }
    }

    #[test]
    fn r17_a_thread_that_is_lent_takes_nobodys_place() {
        for limit in 3..12 {
            for procs in 1..6 {
                for (machines, pool) in (0..limit).flat_map(|machines| (1..limit).map(move |pool| (machines, pool))) {
                    let threads = threads(limit);
                    let began = (0..machines).all(|_| threads.take(Machine, procs))
                        && (0..pool).all(|_| threads.take(Pool, procs));
                    if !began || !threads.lend(procs) {
                        continue;
                    }
                    // Others take what they can get meanwhile.
                    assert!(
                        threads.take(Pool, procs),
                        "the pool has no place: {machines} and {pool} of {limit} beside {procs}"
                    );
                    while threads.take(Pool, procs) {}
                    if !threads.take_back(procs) {
                        threads.give(Machine);
                    }
                    let [machines, pool, ..] = Threads::counts(threads.held.load(Relaxed));
                    assert!(machines + pool < limit, "{machines} and {pool} of {limit} leave none for a pinned task");
                    assert!(pool == 1 || pool + machines.max(procs as usize) < limit, "{machines}, {pool} of {limit}");
                    assert!(threads.take(Pinned, procs));
                }
            }
        }
    }

    /// Who joins all threads waits for one that has ended, and whose handle comes late.
    #[test]
    fn r14_no_thread_is_left_unjoined() {
        let threads = threads(3);
        let takes = AtomicBool::new(false);
        let take = || {
            takes.store(true, Relaxed);
            threads.take_handles()
        };
        std::thread::scope(|scope| {
            let mut taker = None;
            let kept = threads.keep(|| {
                let handle = std::thread::spawn(|| ());
                taker = Some(scope.spawn(take));
                // It looks at the list more than once.
                while !takes.load(Relaxed) {
                    std::thread::yield_now();
                }
                (0..1000).for_each(|_| std::thread::yield_now());
                Ok(handle)
            });
            kept.unwrap();
            let taken = taker.unwrap().join().unwrap();
            assert_eq!(taken.len(), 1);
            taken.into_iter().for_each(|thread| thread.join().unwrap());
        });
        assert!(threads.keep(|| Err(io::ErrorKind::WouldBlock.into())).is_err());
        assert!(threads.take_handles().is_empty());
    }

    #[test]
    fn r17_a_place_that_is_given_up_is_free() {
        let threads = threads(3);
        let take = |kind| threads.take(kind, 1);
        assert!(take(Machine) && take(Pool) && take(Pinned));
        assert!(!take(Machine) && !take(Pool) && !take(Pinned));
        assert_eq!((threads.count(), threads.refusals()), (1, 3));
        threads.give(Pool);
        assert!(!take(Machine) && !take(Pinned), "it is kept for the pool");
        assert!(take(Pool));
        threads.give(Machine);
        assert!(!take(Pool), "it is kept for the processor");
        assert!(take(Machine));
    }
}
