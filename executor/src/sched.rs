//! The scheduler: it brings tasks that are ready to run to machines that hold a processor.
//!
//! # The goal
//!
//! As many machines run as there is work for and processors to run it with, no fewer (a task must not wait beside an
//! idle processor) and no more (a thread that is woken for nothing costs its waker 2–10 µs, a hundred times the price
//! of running a task). Threads come and go with work that may last 20 ns, and nobody sees all queues at one instant.
//!
//! # The race
//!
//! A machine finds all queues empty and is about to sleep; at that moment another thread queues a task and, seeing that
//! machine still awake, wakes nobody. The task then lies there for ever. `idle` holds the protocol against it: three
//! steps to submit, three to go idle, a proof by whose fence came first.
//!
//! # Designs rejected
//!
//! - *One queue under one lock*: every operation of every processor meets there.
//! - *Hand a readied task directly to a sleeping machine*: each wake then costs a thread wake, and the data that task
//!   needs are in the waker's cache. In a trial a channel round trip was 511 ns instead of 181.
//! - *Wake a machine for every readied task*: most tasks would have been run where they are before that machine is up.
//!   The rules of [`Sched::ready_local`] say when it pays.
//!
//! # Where a readied task goes
//!
//! Woken or spawned on a processor of its runtime: into that processor's run-next slot, and what was there goes to the
//! tail of the local queue. Woken by itself, in its own poll: to the local tail, or at the end of its time slice to the
//! global tail. Woken by the end of a task that had to queue, while others are queued: to the local tail. Woken by the
//! end of a blocking closure, on its thread: into the run-next slot of a processor that this thread takes, if one is
//! idle (see `blocking`). From any other thread: to the global queue. See DESIGN.md for why yields stay local, and why
//! joins queue.
//!
//! Places that must agree: what [`Sched::is_work_visible`] looks at is what `find` can take (from a processor that is
//! spared with some patience); a path that frees a processor ends like [`Sched::give_up`]. The models in `idle/loom.rs`
//! repeat the steps of what they say they mirror, here, in `find` and in `runtime::shutdown`: a change of the order is
//! made in both.

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::blocking::{self, Pool};
use crate::clock::{self, NEVER, PausableClock};
use crate::context;
use crate::cpus::Cpus;
use crate::duty::Duty;
use crate::idle::{HandedOff, Host, Idle};
use crate::inject::Inject;
use crate::machine::Machine;
use crate::metrics::{FoundIn, SharedCounter};
use crate::netpoll::Netpoll;
use crate::park::Parker;
use crate::pinned::Pinned;
use crate::processor::{Polled, ProcSlot, Processor};

use crate::sys::atomic::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use crate::sys::{
    Lazy, Line, Mutex, count_forks, fork_count, idle_fence, rank, submit_fence_after_rmw, try_print_error,
};
use crate::sysmon::Sysmon;
use crate::task::arena::SharedArena;
use crate::task::registry::{FIRST_OUTSIDE, LocalTasks, OUTSIDE, Shard};
use crate::waits::Waits;
use beside::Beside;
use blockers::Blockers;
use lanes::Lanes;
use stuck::StuckPoll;

mod attend;
mod beside;
pub(crate) mod blockers;
mod closing;
mod counts;
pub mod deadlock;
pub(crate) mod find;
mod fork;
mod known;
pub(crate) mod lanes;
mod memory;
pub(crate) mod paused;
mod places;
mod procs;
mod quiet;
mod ready;
pub mod stuck;
pub(crate) mod threads;
mod work;

/// The processor table has so many slots.
pub(crate) const PROCS_MAX: usize = 1024;

/// The runtime closes: shutdown waits for tasks to end. A bit of `Sched::at_end`.
const CLOSING: u8 = 1;

/// Everything of one runtime that a waker can reach. Allocated once, recycled for later runtimes, never freed.
pub(crate) struct Sched {
    /// Names the runtime that has this slot. Goes up when a runtime is built and when it is gone; odd while one is
    /// there.
    generation: AtomicU32,
    /// What else who ends a task has to do: [`CLOSING`], or as `find::first` says.
    at_end: AtomicU8,
    /// Wakers are counted, and lists kept of who waits: `Builder::detect_deadlocks`. Written when a runtime is built.
    detects: AtomicBool,
    /// The generation of the runtime, if tasks that are spawned on its processors need not be in the registry; else 0.
    in_arenas: AtomicU32,
    /// Blocks of numbers that processors took for the tasks in their arenas.
    blocks: AtomicU64,
    /// [`fork_count`] when the runtime was built.
    forks: AtomicUsize,
    /// Slots made so far; the first `idle.slots()` are in use.
    table: [AtomicPtr<ProcSlot>; PROCS_MAX],
    /// Memory of tasks that are spawned from outside.
    arenas_outside: [SharedArena; OUTSIDE as usize],
    /// Shards of the registry for those that lie in none of them.
    outside: [Line<Shard>; OUTSIDE as usize],
    pub(crate) idle: Line<Idle>,
    pub(crate) inject: Line<Inject>,
    pub(crate) netpoll: Netpoll,
    pub(crate) clock: PausableClock,
    /// A thread looks at the netpoller without waiting: one at a time.
    polling: AtomicBool,
    /// When somebody last looked at the netpoller.
    pub(crate) last_netpoll: AtomicU64,
    /// Until when the machine in the netpoller sleeps; 0 if none does.
    poll_until: AtomicU64,
    pub(crate) threads: threads::Threads,
    /// Threads in a poll that `sysmon` has given up on, or that gave its processor away before it began, and burners.
    pub(crate) beside: Beside,
    pub(crate) blockers: Blockers,
    pub(crate) lanes: Lanes,
    /// Threads of the runtime's own that are in the middle of a poll without a processor, but not in that slot's
    /// `block_on`: `sysmon` took it in a blocking call, or they wait in another runtime; and machines that bring wakers
    /// from the netpoller and have no processor yet.
    pub(crate) away: AtomicUsize,
    pub(crate) waits: Waits,
    pub(crate) local_tasks: LocalTasks,
    pub(crate) sysmon: Sysmon,
    /// Who starts it.
    pub(crate) duty: Duty,
    /// The system's number of the thread of the first machine, once that runs.
    first_machine: AtomicI32,
    pub(crate) blocking: Pool,
    pub(crate) pinned: Pinned,
    /// Threads that are not of the runtime and hold one of its processors or start one of its machines (see
    /// [`Sched::enter`]).
    guests: AtomicUsize,
    /// Machines that no thread uses.
    machines: Mutex<Vec<&'static Machine>>,
    /// What the thread that shuts down sleeps on.
    pub(crate) shutdown: Parker,
    pub(crate) config: Lazy<Mutex<Arc<Config>>>,
    /// What the number of processors goes by; none once somebody has set it. Held while the number changes.
    cpus: Mutex<Option<Cpus>>,
    pub(crate) spawned_outside: SharedCounter,
    /// Tasks in arenas that ended on a thread without a processor.
    arena_ended_outside: SharedCounter,
    pub(crate) wakes_outside: SharedCounter,
    netpoll_breaks: SharedCounter,
}

/// What a runtime is built with.
#[derive(Default)]
pub(crate) struct Config {
    pub(crate) procs: usize,
    pub(crate) thread_name: Option<String>,
    pub(crate) thread_stack_size: Option<usize>,
    /// Hooks, or what was said of stacks, are for the runtime's threads: no other one polls tasks.
    pub(crate) tasks_keep_to_threads: bool,
    pub(crate) on_thread_start: Option<Box<dyn Fn() + Send + Sync>>,
    pub(crate) on_thread_stop: Option<Box<dyn Fn() + Send + Sync>>,
    pub(crate) schedtrace_ms: Option<u64>,
    /// How many threads may be stuck in a poll while their processor goes on without them; `None`: no processor does.
    pub(crate) max_stuck: Option<usize>,
    pub(crate) on_stuck: Option<StuckHook>,
    pub(crate) max_blocking: Option<usize>,
    pub(crate) max_threads: Option<usize>,
    pub(crate) thread_keep_alive: Option<Duration>,
    pub(crate) detect_deadlocks: bool,
    pub(crate) external_wakers: bool,
    /// How long a runtime is quiet before that is called a deadlock.
    pub(crate) deadlock_after: Option<Duration>,
    pub(crate) start_paused: bool,
}

impl Config {
    /// Beside how many stuck threads closures that are known to be brief may run on processors; `None`: never. There
    /// they count against no limit. A poll may wait for one in its own queue, out of which somebody has to rescue it.
    /// And one that waits for a task needs another machine, where closures have a place of their own among few threads.
    fn briefs_beside(&self) -> Option<usize> {
        // Where leaks are looked for all tasks are in the registry.
        let is_asked = self.max_blocking.is_some() || self.max_threads.is_some() || self.detect_deadlocks;
        self.max_stuck.filter(|_| !is_asked).map(|limit| limit / 2)
    }
}

/// See `Builder::on_stuck`.
pub(crate) type StuckHook = Box<dyn Fn(&StuckPoll) + Send + Sync>;

/// A runtime as users hold it: the slot and the generation that makes it this runtime and not a later one.
#[derive(Clone, Copy)]
pub(crate) struct RuntimeRef {
    pub(crate) sched: &'static Sched,
    pub(crate) generation: u32,
}

impl RuntimeRef {
    /// Whether the runtime is there and does not close.
    pub(crate) fn is_open(self) -> bool {
        // In this order: "not closing" may be said of the slot's next runtime, and then its generation is seen too.
        !self.sched.is_closing() && self.is_there()
    }

    /// Whether the slot is still this runtime's.
    pub(crate) fn is_there(self) -> bool {
        // Acquire: pairs with the Release in `Sched::recycle`.
        self.sched.generation.load(Acquire) == self.generation
    }
}

// A panic leaves a runtime as it is: no code of the user's runs under its locks, nor while anything of it is half
// changed. What a panic leaves half changed is the user's, and no concern of those who name the runtime.
impl UnwindSafe for RuntimeRef {}
impl RefUnwindSafe for RuntimeRef {}

impl std::fmt::Debug for RuntimeRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Sched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sched").finish_non_exhaustive()
    }
}

/// How a task became ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Spawned,
    Woken,
    /// By itself, inside its own poll.
    Yielded,
}

impl Sched {
    pub(crate) const fn new() -> Self {
        Sched {
            generation: AtomicU32::new(0),
            at_end: AtomicU8::new(0),
            detects: AtomicBool::new(false),
            in_arenas: AtomicU32::new(0),
            blocks: AtomicU64::new(0),
            forks: AtomicUsize::new(0),
            table: [const { AtomicPtr::new(std::ptr::null_mut()) }; PROCS_MAX],
            arenas_outside: [const { SharedArena::new() }; OUTSIDE as usize],
            outside: Self::outside(),
            idle: Line(Idle::new()),
            inject: Line(Inject::new()),
            netpoll: Netpoll::new(),
            clock: PausableClock::new(),
            polling: AtomicBool::new(false),
            last_netpoll: AtomicU64::new(0),
            poll_until: AtomicU64::new(0),
            threads: threads::Threads::new(),
            beside: Beside::new(),
            blockers: Blockers::new(),
            lanes: Lanes::new(),
            away: AtomicUsize::new(0),
            waits: Waits::new(),
            local_tasks: LocalTasks::new(),
            sysmon: Sysmon::new(),
            duty: Duty::new(),
            first_machine: AtomicI32::new(0),
            blocking: Pool::new(),
            pinned: Pinned::new(),
            guests: AtomicUsize::new(0),
            machines: Mutex::new(rank::LEAF, Vec::new()),
            shutdown: Parker::new(),
            config: Lazy::new(|| Mutex::new(rank::RUNTIME, Arc::new(Config::default()))),
            cpus: Mutex::new(rank::RUNTIME, None),
            spawned_outside: SharedCounter::new(),
            arena_ended_outside: SharedCounter::new(),
            wakes_outside: SharedCounter::new(),
            netpoll_breaks: SharedCounter::new(),
        }
    }

    const fn outside() -> [Line<Shard>; OUTSIDE as usize] {
        const fn shard(n: u32) -> Line<Shard> {
            Line(Shard::new(FIRST_OUTSIDE + n))
        }
        [shard(0), shard(1), shard(2), shard(3), shard(4), shard(5), shard(6), shard(7)]
    }

    /// Makes this slot, which nobody else has, a runtime. The netpoller is still to be opened.
    ///
    /// With `cpus` the number of processors goes by them.
    pub(crate) fn open(&'static self, config: Config, cpus: Option<Cpus>) -> RuntimeRef {
        let procs = config.procs;
        self.detects.store(config.detect_deadlocks, Relaxed);
        self.clock.open(config.start_paused);
        let max_threads = config.max_threads.unwrap_or(threads::LIMIT);
        self.blocking.open(
            config.max_blocking.unwrap_or(blocking::LIMIT),
            config.briefs_beside(),
            keep_alive_of(&config),
        );
        let before = std::mem::replace(&mut *self.config.lock(), Arc::new(config));
        // Shutdown took the hooks out: this one runs no user code.
        drop(before);
        let generation = self.generation.load(Relaxed) + 1;
        self.in_arenas.store(if self.detects() { 0 } else { generation }, Relaxed);
        *self.cpus.lock() = cpus;
        self.make_slots(0..procs as u32);
        self.threads.reset(max_threads);
        self.beside.reset();
        self.away.store(0, Relaxed);
        self.local_tasks.reset();
        // Release: pairs with the Acquire in `is_closing`; whoever sees it sees that the runtime before is gone.
        self.at_end.store(0, Release);
        // SAFETY: it sets atomics, and cells of its thread that have no destructor.
        unsafe { count_forks(fork::begin_child) };
        self.forks.store(fork_count(), Relaxed);
        self.poll_until.store(0, Relaxed);
        self.last_netpoll.store(clock::now(), Relaxed);
        self.sysmon.reset();
        self.duty.open(generation);
        self.blockers.reset();
        self.lanes.open();
        self.spawned_outside.reset();
        self.arena_ended_outside.reset();
        self.wakes_outside.reset();
        self.netpoll_breaks.reset();
        self.idle.open(procs as u32);
        self.shards().for_each(|shard| shard.open(generation));
        self.arenas_outside.iter().for_each(|arena| arena.open(generation, std::ptr::from_ref(self).cast()));
        self.pinned.open(generation);
        // Release: pairs with the Acquire in `RuntimeRef::is_there`, which then sees the runtime as it was built.
        self.generation.store(generation, Release);
        RuntimeRef { sched: self, generation }
    }

    /// Whether wakers are counted and waiting threads listed. A constant of the runtime.
    #[inline]
    pub(crate) fn detects(&self) -> bool {
        self.detects.load(Relaxed)
    }

    /// The runtime is gone; the slot may serve another one.
    pub(crate) fn recycle(&'static self) {
        // Release: pairs with the Acquire in `RuntimeRef::is_there`.
        self.generation.fetch_add(1, Release);
    }

    pub(crate) fn is_closing(&self) -> bool {
        // Acquire: pairs with `start_closing`, and with the Release in `open`.
        self.at_end.load(Acquire) & CLOSING != 0
    }

    /// After it, whoever queues a task either has queued it before the queues are looked at, or sees that the runtime
    /// closes and unparks shutdown.
    pub(crate) fn start_closing(&self) -> bool {
        let first = self.at_end.fetch_or(CLOSING, AcqRel) & CLOSING == 0;
        self.in_arenas.store(0, Relaxed);
        idle_fence();
        first
    }

    // Guests: threads of others. Shutdown waits for its own threads by their count; a thread of the user's that holds a
    // processor, or is just starting a machine, counts as a guest meanwhile. Else the slot could serve the next runtime
    // while the guest still acts for this one.

    /// Makes this thread a guest unless `open` says no, or this is a child. Call [`Sched::leave`] then.
    #[must_use]
    fn enter(&'static self, open: impl FnOnce() -> bool) -> bool {
        // AcqRel: pairs with `guests`. If that came first, we see that the runtime closes; else it sees us.
        self.guests.fetch_add(1, AcqRel);
        let open = self.is_of_this_process() && open();
        if !open {
            // Not `leave`: a paused clock that asks for a guest would ask again and again.
            self.count_guest_out();
        }
        open
    }

    fn leave(&'static self) {
        self.count_guest_out();
        self.clock_may_advance();
    }

    fn count_guest_out(&self) {
        // AcqRel: as in `enter`; shutdown sees what the guest did, or the guest sees that it is to unpark it.
        self.guests.fetch_sub(1, AcqRel);
        if self.is_closing() {
            self.shutdown.unpark();
        }
    }

    /// How many threads of others are in the runtime. Once none is, after [`Sched::start_closing`], none will be.
    pub(crate) fn guests(&self) -> usize {
        // AcqRel: pairs with `enter` and `leave`: a read-modify-write takes its place among theirs.
        self.guests.fetch_add(0, AcqRel)
    }

    /// [`Idle::wake_one`] from a thread that need not be one of the runtime.
    #[cold]
    fn wake_one_as_guest(&'static self) -> bool {
        if !self.enter(|| !self.is_closing()) {
            return false;
        }
        let woken = self.idle.wake_one(self, None);
        self.leave();
        woken
    }

    /// The runtime that has this slot. The caller keeps it from going: it is one of its threads, or a guest.
    pub(crate) fn runtime(&'static self) -> RuntimeRef {
        RuntimeRef { sched: self, generation: self.generation.load(Relaxed) }
    }

    // Processors given up and taken.

    /// Gives `p` up at once, in the middle of a poll that is going to wait (Go: `entersyscallblock`, `handoffp`).
    ///
    /// A thread of others is no guest of this runtime any more.
    pub(crate) fn give_up(&'static self, p: &'static Processor) {
        p.end_poll();
        // What this poll is going to wait for may be a closure that this thread was to run.
        self.call_for_kept_closure();
        self.hand_back(p);
    }

    /// [`Sched::give_up`] between two polls.
    fn hand_back(&'static self, p: &'static Processor) {
        context::set_processor(None);
        let slot = self.slot(p.index);
        let left = self.duty.is_kept() && self.leave_to_first_machine(p);
        let work = !left && (self.is_work_queued(p) || self.is_timer_due());
        match self.idle.hand_off(p.index, || slot.is_current(p), work, self) {
            HandedOff::ToMachine => {}
            HandedOff::Husk => self.leave_husk(p),
            HandedOff::Idle => self.left_idle(),
        }
        if !context::is_worker_of(self) {
            self.leave();
        }
    }

    /// A processor that this thread gave up in the middle of its own work is idle.
    fn left_idle(&'static self) {
        if self.is_work_visible() {
            self.idle.wake_one(self, None);
        } else {
            self.attend_netpoller();
            self.idle.stop_alarm(self);
        }
    }

    /// A processor of `runtime`, which has this slot, for this thread, which is in the middle of its own work. `None`
    /// if the runtime closes or is gone. A thread of others is a guest until [`Sched::give_up`].
    pub(crate) fn acquire(&'static self, runtime: RuntimeRef, machine: &'static Machine) -> Option<&'static Processor> {
        self.acquire_near(runtime, machine, None)
    }

    fn acquire_near(
        &'static self,
        runtime: RuntimeRef,
        machine: &'static Machine,
        slot: Option<u32>,
    ) -> Option<&'static Processor> {
        let guest = !context::is_worker_of(self);
        if guest && !self.enter(|| runtime.is_open()) {
            return None;
        }
        self.sysmon_start_if_anyones();
        let Some(slot) = self.idle.acquire(machine, slot, self) else {
            if machine.take_released() {
                self.was_released();
            } else if guest {
                self.leave();
            }
            return None;
        };
        Some(self.go_on_with(slot, Polled::BlockOn))
    }

    /// A poll of this thread goes on with the processor of `slot`.
    fn go_on_with(&'static self, slot: u32, polled: Polled) -> &'static Processor {
        let p = self.slot(slot).processor();
        p.taken(clock::now());
        p.goes_on(polled);
        p.restart_slice();
        p.begin_poll();
        context::set_processor(Some(p));
        p
    }

    /// A processor for this thread, whose own, of `slot`, was taken in the middle of a blocking call: that one if it is
    /// idle, else any. The poll of `polled` goes on with it.
    #[cold]
    pub(crate) fn reacquire(&'static self, slot: u32, polled: Polled) {
        let runtime = self.runtime();
        let guest = !context::is_worker_of(self);
        if guest {
            // AcqRel: pairs with `quiet`. From here on its `block_on` says that it runs.
            self.away.fetch_sub(1, AcqRel);
            // It was a guest with the processor that it does not have any more.
            self.leave();
        }
        let machine = self.new_machine();
        // If the runtime closes the poll goes on without one.
        if let Some(p) = self.acquire_near(runtime, machine, Some(slot)) {
            p.goes_on(polled);
        }
        self.free_machine(machine);
        if !guest {
            // AcqRel: pairs with `quiet`.
            self.away.fetch_sub(1, AcqRel);
            self.clock_may_advance();
        }
    }

    /// How long a thread that is not needed stays.
    pub(crate) fn keep_alive(&self) -> Duration {
        keep_alive_of(&self.config.lock())
    }

    /// A machine for a thread that is none of the runtime's own.
    pub(crate) fn new_machine(&self) -> &'static Machine {
        let recycled = self.machines.lock().pop();
        recycled.unwrap_or_else(|| Box::leak(Box::new(Machine::new())))
    }

    pub(crate) fn free_machine(&self, machine: &'static Machine) {
        debug_assert!(!machine.is_granted(), "a machine was freed with a grant");
        self.machines.lock().push(machine);
    }

    // Timers.

    /// No timer is due before this.
    pub(crate) fn earliest_deadline(&self) -> u64 {
        self.slots().map(|slot| slot.timers.earliest()).min().unwrap_or(NEVER)
    }

    /// The earliest deadline of all timers. For whoever goes to sleep: one that was cancelled wakes nobody.
    fn settled_deadline(&self) -> u64 {
        self.slots().map(|slot| slot.timers.settled()).min().unwrap_or(NEVER)
    }

    /// Whether the time of some timer has come.
    fn is_timer_due(&self) -> bool {
        self.earliest_deadline() <= self.clock.now()
    }

    /// Until when to sleep: the earliest deadline. While the clock stands one that lies ahead does not come by itself.
    fn wake_deadline(&self) -> u64 {
        let deadline = self.settled_deadline();
        if self.clock.is_paused() && deadline > self.clock.now() { NEVER } else { deadline }
    }

    // Shutdown and metrics.

    /// A task's future is gone. Who waits for it is still to be woken.
    #[inline]
    pub(crate) fn ends_task(&'static self, in_arena: bool) {
        match context::processor_of(self) {
            Some(p) => {
                p.task_ended();
                p.counters().arena_ended.add(u64::from(in_arena));
            }
            None if in_arena => self.arena_ended_outside.add(1),
            None => {}
        }
    }

    /// A task's state, which has just been changed, says that it has ended. Either shutdown sees that, or it is
    /// unparked: the other fence is in [`Sched::start_closing`].
    #[inline]
    pub(crate) fn has_ended_task(&'static self, joiner: Option<&Waker>) {
        submit_fence_after_rmw();
        let at_end = self.at_end.load(Relaxed);
        if at_end != 0 {
            self.has_ended_task_then(at_end, joiner);
        }
    }

    #[cold]
    fn has_ended_task_then(&self, at_end: u8, joiner: Option<&Waker>) {
        if at_end & CLOSING != 0 {
            self.shutdown.unpark();
        }
        self.has_ended_first_task(at_end, joiner);
    }
}

impl Host for Sched {
    fn start_machine(&'static self, slot: u32, spinning: bool, woken_by: Option<u32>) {
        threads::start(self, slot, spinning, woken_by);
    }

    fn break_poller(&self) {
        self.break_netpoller();
    }

    fn wake_sysmon(&self) {
        self.sysmon.wake();
    }

    fn set_alarm(&self) -> bool {
        self.sysmon.set_alarm()
    }

    fn stop_alarm(&self) {
        self.sysmon.stop_alarm();
    }

    fn bury(&'static self, slot: u32) {
        self.bury_queue(slot);
    }

    fn dismiss(&'static self, slot: u32) -> bool {
        self.dismiss_holder(slot)
    }
}

fn keep_alive_of(config: &Config) -> Duration {
    config.thread_keep_alive.unwrap_or(blocking::KEEP_ALIVE)
}

/// A broken invariant of the runtime: prints what is known and ends the process.
#[cold]
pub(crate) fn die(what: &str, error: &dyn std::fmt::Display) -> ! {
    // Without the lock of standard error, which a thread may have that waits for this one.
    let _ = try_print_error(&format!("gmp: {what}: {error}"));
    std::process::abort()
}

/// Counts where a task was found.
#[inline]
fn count_found(p: &Processor, exit: FoundIn) {
    p.counters().found[exit as usize].add(1);
}
