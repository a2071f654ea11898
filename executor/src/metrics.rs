//! What the scheduler counts, and the snapshot that users and tests read. `trace` prints the same.
//!
//! 1. A counter has one writer at a time, so that adding is a load and a store.
//! 2. Counters of a slot never go backwards.

use crate::sys::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that its only writer adds to and others read.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// A number that several threads add to; not for hot paths.
#[derive(Debug, Default)]
pub(crate) struct SharedCounter(AtomicU64);

impl SharedCounter {
    pub(crate) const fn new() -> Self {
        SharedCounter(AtomicU64::new(0))
    }

    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// For another runtime.
    pub(crate) fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// Where a machine found its next task, in the order in which it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[repr(usize)]
pub enum FoundIn {
    /// The global queue, at the look that comes every few picks.
    GlobalTick,
    /// The run-next slot.
    RunNext,
    /// The local queue.
    Local,
    /// A batch from the global queue.
    GlobalBatch,
    /// Half of another processor's queue.
    Stolen,
    /// Another processor's lone task.
    StolenLone,
}

/// How many exits [`FoundIn`] names.
pub(crate) const EXITS: usize = 6;

/// What a processor counts. Written by the machine that holds it.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) found: [Counter; EXITS],
    pub(crate) spawned: Counter,
    pub(crate) polled: Counter,
    pub(crate) overflowed: Counter,
    pub(crate) stolen: Counter,
    pub(crate) spawn_wakes: Counter,
    pub(crate) wakes: Counter,
    pub(crate) looks: Counter,
    pub(crate) netpoll_looks: Counter,
    pub(crate) parks: Counter,
    pub(crate) spins: Counter,
    pub(crate) timers_fired: Counter,
    /// Tasks in the arena: of this processor's, so many were spawned; of anybody's, so many ended here.
    pub(crate) arena_spawned: Counter,
    pub(crate) arena_ended: Counter,
    pub(crate) brief_closures: Counter,
}

impl Counters {
    /// For another runtime.
    pub(crate) fn reset(&self) {
        let Counters {
            found,
            spawned,
            polled,
            overflowed,
            stolen,
            spawn_wakes,
            wakes,
            looks,
            netpoll_looks,
            parks,
            spins,
            timers_fired,
            arena_spawned,
            arena_ended,
            brief_closures,
        } = self;
        found.iter().for_each(Counter::reset);
        let others = [
            spawned,
            polled,
            overflowed,
            stolen,
            spawn_wakes,
            wakes,
            looks,
            netpoll_looks,
            parks,
            spins,
            timers_fired,
            arena_spawned,
            arena_ended,
            brief_closures,
        ];
        others.into_iter().for_each(Counter::reset);
    }
}

/// A snapshot of what the scheduler counts. The numbers are read one by one while the scheduler runs, so they need not
/// add up exactly. Go: `runtime/metrics`.
///
/// # Examples
///
/// ```
/// let metrics = gmp::runtime::Builder::new().procs(2).build()?.metrics();
/// assert_eq!(metrics.procs, 2);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Processors that there are to be. Those that are too many after `set_procs` count nowhere, but for what they have
    /// done.
    pub procs: usize,
    /// Processors without a machine.
    pub idle_procs: usize,
    /// Machines: threads that run tasks, busy or idle. `sysmon` and threads for blocking closures or of pinned tasks do
    /// not count, but for those of the former that run tasks after a closure, which count in `blocking_threads` too.
    pub threads: usize,
    /// Machines that are parked or wait in the netpoller.
    pub idle_threads: usize,
    /// Threads in a poll that has been given up on: their processor went on without them, or they without one.
    pub stuck_threads: usize,
    /// Machines that look for work.
    pub spinning_threads: usize,
    /// Whether a searcher found work and no processor for it.
    pub need_spinning: bool,
    /// Threads for blocking closures and for wakers that `sysmon` found ready, busy or idle, or running tasks after a
    /// closure.
    pub blocking_threads: usize,
    /// Those of them that wait for a closure.
    pub blocking_idle_threads: usize,
    /// Blocking closures that have not started, but for those queued on processors.
    pub blocking_queue: usize,
    /// How often so far a thread whose closure had ended ran the task that waited for that, and perhaps others, on a
    /// processor that was idle.
    pub blocking_lent: u64,
    /// Blocking closures that ran on a processor so far, because such as they are known to be brief.
    pub blocking_brief: u64,
    /// Threads of pinned tasks.
    pub pinned_threads: usize,
    /// Pinned tasks whose thread the system refused so far.
    pub pinned_queue: usize,
    /// Tasks whose future still exists, and blocking closures that have not ended; no local tasks.
    pub live_tasks: usize,
    /// Tasks that wait and can never be woken, if the runtime looks for them (`Builder::detect_deadlocks`); else 0.
    pub leaked_tasks: usize,
    /// Tasks in the global queue.
    pub global_queue: usize,
    /// Tasks in each local queue, without the run-next slot.
    pub local_queues: Vec<usize>,
    /// Time slices that each processor has begun.
    pub schedticks: Vec<u64>,
    /// Armed timers.
    pub timers: usize,
    /// Tasks that wait for I/O.
    pub io_waiters: usize,
    /// Tasks spawned, without blocking closures and local tasks.
    pub spawned: u64,
    /// Polls of tasks, blocking closures on processors among them.
    pub polled: u64,
    /// Tasks found at each exit of the search, in the order of [`FoundIn`]. See [`Metrics::found_in`]: their number is
    /// not the users' to know, as it may grow.
    pub(crate) found: [u64; EXITS],
    /// Tasks that went from a full local queue to the global one.
    pub overflowed: u64,
    /// Tasks taken from other processors.
    pub stolen: u64,
    /// Machines woken, or started, for work.
    pub wakes: u64,
    /// Those of them that a spawn woke.
    pub spawn_wakes: u64,
    /// Looks at the clock, timers, global queue and netpoller between picks.
    pub looks: u64,
    /// Looks at the netpoller without waiting.
    pub netpoll_looks: u64,
    /// Times a machine went to sleep.
    pub parks: u64,
    /// Times a machine began to spin.
    pub spins: u64,
    /// Timers that fired.
    pub timers_fired: u64,
    /// Times the machine that sleeps in the netpoller was woken: for a task, for a nearer deadline, to end.
    pub netpoll_breaks: u64,
    /// Threads that the system refused to start.
    pub thread_failures: u64,
    /// Threads that were not started because of `Builder::max_threads`.
    pub thread_refusals: u64,
    /// Times `sysmon` took a processor from a poll that was stuck.
    pub rescues: u64,
    /// Polls of tasks that are known to block: their processor went on without them before they began.
    pub blocker_polls: u64,
    /// Polls of tasks that are known to compute for long, or were spawned where tasks do: on a thread beside the
    /// processors.
    pub lane_polls: u64,
    /// Times `sysmon` took a processor from a blocking call.
    pub retakes: u64,
    /// Times `sysmon` looked how many CPUs this process may use.
    pub procs_refreshes: u64,
    /// Times a machine that wanted a processor went on without one, because as many threads as may be were stuck.
    pub releases: u64,
    /// Looks of `sysmon`.
    pub sysmon_looks: u64,
    /// Times `sysmon` asked a running processor to end its slice.
    pub sysmon_flags: u64,
    /// Times `sysmon` woke a machine, for work behind a long poll or for a netpoller that nobody attended.
    pub sysmon_wakes: u64,
    /// Times `sysmon` looked at the netpoller, because nobody else had for long.
    pub sysmon_netpolls: u64,
}

impl Metrics {
    /// Tasks found at one exit of the search.
    ///
    /// # Examples
    ///
    /// ```
    /// use gmp::runtime::{Builder, FoundIn};
    ///
    /// let runtime = Builder::new().procs(1).build()?;
    /// assert_eq!(runtime.metrics().found_in(FoundIn::Stolen), 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn found_in(&self, exit: FoundIn) -> u64 {
        self.found[exit as usize]
    }

    /// Name and value of each number, for a page or a log. Per-processor numbers carry their index.
    ///
    /// # Examples
    ///
    /// ```
    /// for (name, value) in gmp::Handle::current().metrics().entries() {
    ///     println!("{name} {value}");
    /// }
    /// ```
    #[must_use]
    pub fn entries(&self) -> Vec<(String, u64)> {
        let exits = ["global_tick", "run_next", "local", "global_batch", "stolen", "stolen_lone"];
        let mut entries: Vec<(String, u64)> = [
            ("procs", self.procs as u64),
            ("idle_procs", self.idle_procs as u64),
            ("threads", self.threads as u64),
            ("idle_threads", self.idle_threads as u64),
            ("stuck_threads", self.stuck_threads as u64),
            ("spinning_threads", self.spinning_threads as u64),
            ("need_spinning", self.need_spinning.into()),
            ("blocking_threads", self.blocking_threads as u64),
            ("blocking_idle_threads", self.blocking_idle_threads as u64),
            ("blocking_queue", self.blocking_queue as u64),
            ("blocking_lent", self.blocking_lent),
            ("blocking_brief", self.blocking_brief),
            ("pinned_threads", self.pinned_threads as u64),
            ("pinned_queue", self.pinned_queue as u64),
            ("live_tasks", self.live_tasks as u64),
            ("leaked_tasks", self.leaked_tasks as u64),
            ("global_queue", self.global_queue as u64),
            ("timers", self.timers as u64),
            ("io_waiters", self.io_waiters as u64),
            ("spawned", self.spawned),
            ("polled", self.polled),
            ("overflowed", self.overflowed),
            ("tasks_stolen", self.stolen),
            ("wakes", self.wakes),
            ("spawn_wakes", self.spawn_wakes),
            ("looks", self.looks),
            ("netpoll_looks", self.netpoll_looks),
            ("parks", self.parks),
            ("spins", self.spins),
            ("timers_fired", self.timers_fired),
            ("netpoll_breaks", self.netpoll_breaks),
            ("thread_failures", self.thread_failures),
            ("thread_refusals", self.thread_refusals),
            ("rescues", self.rescues),
            ("blocker_polls", self.blocker_polls),
            ("lane_polls", self.lane_polls),
            ("retakes", self.retakes),
            ("procs_refreshes", self.procs_refreshes),
            ("releases", self.releases),
            ("sysmon_looks", self.sysmon_looks),
            ("sysmon_flags", self.sysmon_flags),
            ("sysmon_wakes", self.sysmon_wakes),
            ("sysmon_netpolls", self.sysmon_netpolls),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        entries.extend(exits.iter().zip(self.found).map(|(name, value)| (format!("found_in_{name}"), value)));
        entries.extend(self.local_queues.iter().enumerate().map(|(i, n)| (format!("local_queue_{i}"), *n as u64)));
        entries.extend(self.schedticks.iter().enumerate().map(|(i, n)| (format!("schedticks_{i}"), *n)));
        entries
    }
}
