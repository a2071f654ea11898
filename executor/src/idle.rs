//! Who is idle: processors without a machine, machines without a processor, machines that want one. `sched` calls it to
//! give a processor up, to get one, and to wake a machine when there is work.
//!
//! 1. Idle processors and `want` are never both non-empty: every path that frees a processor serves `want` first.
//! 2. `word` counts the idle processors and the spinning machines. The idle count changes under the lock together with
//!    the list; the spinning count changes with single locked instructions.
//! 3. A machine is on one list at most: `machines` (asleep on its parker), `poller` (in the netpoller) or `want`.
//!    Whoever takes it off, under the lock, writes its grant and wakes it.
//! 4. The first machine to go idle becomes the poller, so if no machine is awake one of them sleeps in the netpoller
//!    with the earliest deadline. It keeps the seat until it has left, also when it is off the list: of two machines in
//!    the netpoller one would take the break that was meant for the other.
//! 5. Those who want a processor and the queues take turns: of two processors in a row that are given up in the middle
//!    of a poll beside queued work, one goes to a machine that runs tasks.
//! 6. `sysmon` sleeps deeply only if every processor is idle or dead, and it has looked since a thread was refused or a
//!    look was asked for; whoever takes the first one off the list wakes it, or sets its alarm (see [`Watch`]).
//! 7. A processor whose slot is not among the first [`Idle::procs`] is never idle: whoever gives it up buries it (see
//!    `resize`).
//!
//! # Submit and go idle
//!
//! The race is between a thread that publishes work and the last machine that looked for some. Submitting is three
//! steps: publish the work, [`crate::sys::submit_fence`], and if [`Idle::should_wake`] then [`Idle::wake_one`]. Going
//! idle is three steps: put the processor on the list and stop spinning ([`Idle::retire`]), [`crate::sys::idle_fence`]
//! (its last act), look at all queues once more; whoever finds something comes back with [`Idle::unretire`].
//!
//! Proof by whose fence came first. If the submitter's did, the machine's second look sees the work. If the machine's
//! did, the submitter sees an idle processor; it wakes a machine, unless one spins, and that spinner will look at
//! everything again after its own fence. Whoever found no processor for work that can be seen relies on who holds them:
//! each looks at the queues after it has given its own up.
//!
//! Nor does that look see what is queued on a processor that is spared (`processor/backoff.rs`), and not each submit
//! there wakes: the machine that has the processor comes to it, and never goes idle before; `sysmon` sees if it stands
//! still, if its picks take long, or if no machine could be started for it.
//!
//! It does not see lone tasks either, which only a spinner takes. So a searcher that found no processor also sets
//! `need_spinning`: a machine that is about to give its processor up sees that under the lock and searches once more
//! (Go: `needspinning`, issue 45867; there it is what keeps work from being lost). `sysmon` comes to lone tasks too,
//! but late.

use std::collections::VecDeque;

use crate::machine::{Grant, Machine};
use crate::sys::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use crate::sys::{Mutex, MutexGuard, const_but_in_models, idle_fence, rank};

mod outcomes;
mod resize;
mod watch;
pub(crate) use outcomes::{HandedOff, Left, Rested, Retired, Served};
pub(crate) use resize::Quit;
use watch::Watch;

/// One spinning machine in `word`.
const SPINNING: u64 = 1;
/// One idle processor in `word`.
const IDLE: u64 = 1 << 32;

/// What `idle` needs of the runtime around it.
pub(crate) trait Host {
    /// Starts a machine that begins with the processor `slot`; if that fails, gives it back with
    /// [`Idle::give_back`].
    fn start_machine(&'static self, slot: u32, spinning: bool, woken_by: Option<u32>);
    /// Breaks the blocked wait in the netpoller.
    fn break_poller(&self);
    /// Wakes `sysmon` from deep sleep.
    fn wake_sysmon(&self);
    /// Sets the alarm on which `sysmon` sleeps. Tells whether all was idle for so long before that the alarm is worth
    /// being stopped when all is idle again. The scheduler lock is held.
    fn set_alarm(&self) -> bool;
    /// Stops it. The scheduler lock is held.
    fn stop_alarm(&self);
    /// Nobody holds the processor `slot` any more: its queue goes to the front of the global one. The scheduler lock is
    /// held.
    fn bury(&'static self, slot: u32);
    /// Asks the machine that holds the processor `slot` to give it up, or takes it from a machine in a blocking call,
    /// and tells whether it did. The scheduler lock is held.
    fn dismiss(&'static self, slot: u32) -> bool;
}

/// A snapshot of the packed counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts(u64);

impl Counts {
    pub(crate) fn idle(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) fn spinning(self) -> u32 {
        self.0 as u32
    }
}

/// The lists, and the counts that are read without the lock.
pub(crate) struct Idle {
    /// Spinning machines in the low half, idle processors in the high half.
    word: AtomicU64,
    /// Machines in `want`. Written under the lock.
    wanting: AtomicU32,
    /// A searcher found work and no processor for it.
    need_spinning: AtomicBool,
    /// A machine could not be started, or a look was asked for, and `sysmon` has not begun one since: before that it
    /// does not go to sleep, and its alarm is not stopped. Set under the lock, and asked there.
    refused: AtomicBool,
    /// `sysmon` is [`Watch::Armed`], and the alarm is to be stopped when all is idle again. Written under the lock.
    stops_alarm: AtomicBool,
    /// How many processors there are to be. Written under the lock.
    procs: AtomicU32,
    /// How many slots have been in use; it never goes down. Written under the lock.
    slots: AtomicU32,
    lists: Mutex<Lists>,
}

/// Guarded by the scheduler lock.
struct Lists {
    /// Idle processors by slot, the last one given up on top.
    procs: Vec<u32>,
    /// For each slot in use whether its processor is dead.
    dead: Vec<bool>,
    /// Machines asleep on their parker, or about to be; the last one on top.
    machines: Vec<&'static Machine>,
    /// The machine in the netpoller, or about to be, unless it has its grant.
    poller: Option<&'static Machine>,
    /// A machine is in the netpoller, or about to be, with a grant or without (invariant 4).
    seat_taken: bool,
    /// Machines that wait for a processor in the middle of their own work, oldest first.
    want: VecDeque<Wanting>,
    /// The last processor that was freed went to `want` (invariant 5).
    want_was_served: bool,
    sysmon: Watch,
    closed: bool,
    /// How many processors were taken off the idle list so far.
    taken: u64,
}

/// A machine in `want`.
struct Wanting {
    machine: &'static Machine,
    /// When `sysmon` first saw it there while no processor was being made free any more.
    seen_at: Option<u64>,
}

impl Idle {
    const_but_in_models! {
        pub(crate) fn new() -> Self {
            Idle {
                word: AtomicU64::new(0),
                wanting: AtomicU32::new(0),
                need_spinning: AtomicBool::new(false),
                refused: AtomicBool::new(false),
                stops_alarm: AtomicBool::new(false),
                procs: AtomicU32::new(0),
                slots: AtomicU32::new(0),
                lists: Mutex::new(
                    rank::SCHED,
                    Lists {
                        procs: Vec::new(),
                        dead: Vec::new(),
                        machines: Vec::new(),
                        poller: None,
                        seat_taken: false,
                        want: VecDeque::new(),
                        want_was_served: false,
                        sysmon: Watch::Awake,
                        closed: true,
                        taken: 0,
                    },
                ),
            }
        }
    }

    /// Starts with `procs` idle processors and nobody else.
    pub(crate) fn open(&self, procs: u32) {
        let mut lists = self.lists.lock();
        debug_assert!(lists.want.is_empty() && lists.machines.is_empty() && !lists.seat_taken);
        lists.procs = (0..procs).rev().collect();
        lists.dead = vec![false; procs as usize];
        self.procs.store(procs, Relaxed);
        // Release: pairs with the Acquire in `slots`; whoever reads the number finds so many slots in the table.
        self.slots.store(procs, Release);
        lists.sysmon = Watch::Awake;
        self.stops_alarm.store(false, Relaxed);
        self.refused.store(false, Relaxed);
        lists.closed = false;
        self.need_spinning.store(false, Relaxed);
        self.word.store(IDLE * u64::from(procs), Relaxed);
    }

    #[inline]
    pub(crate) fn counts(&self) -> Counts {
        Counts(self.word.load(Relaxed))
    }

    pub(crate) fn need_spinning(&self) -> bool {
        self.need_spinning.load(Relaxed)
    }

    /// Machines that are parked or in the netpoller.
    pub(crate) fn idle_machines(&self) -> usize {
        let lists = self.lists.lock();
        lists.machines.len() + usize::from(lists.poller.is_some())
    }

    /// Whether a machine waits for a processor in the middle of its own work.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanting.load(Relaxed) != 0
    }

    /// Whether a machine sits in the netpoller, or is about to sit down or to leave.
    pub(crate) fn has_poller(&self) -> bool {
        self.lists.lock().seat_taken
    }

    /// Whether work that was just published needs another machine: a processor is idle and nobody spins. Call it after
    /// a submit fence.
    #[inline]
    pub(crate) fn should_wake(&self) -> bool {
        let counts = self.counts();
        counts.idle() != 0 && counts.spinning() == 0
    }

    /// Wakes one machine for an idle processor, unless one spins already (Go: `wakep`). Tells whether it did.
    pub(crate) fn wake_one(&self, host: &'static impl Host, woken_by: Option<u32>) -> bool {
        let mut word = self.word.load(Relaxed);
        loop {
            if Counts(word).idle() == 0 || Counts(word).spinning() != 0 {
                return false;
            }
            // AcqRel: pairs with `stop_spinning`, as everywhere on `word`; the proof at the head rests on fences and
            // lock.
            match self.word.compare_exchange_weak(word, word + SPINNING, AcqRel, Relaxed) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        let mut lists = self.lists.lock();
        let Some(slot) = self.pop_proc(&mut lists, host) else {
            // Some processor is running: the machine that gives it up next searches first. Still under the lock: a
            // processor that became idle while we count as a spinner would leave a submitter to rely on us.
            self.need_spinning.store(true, Relaxed);
            self.word.fetch_sub(SPINNING, AcqRel);
            return false;
        };
        let grant = Grant::Processor { slot, spinning: true };
        if let Some(machine) = lists.machines.pop() {
            machine.grant(grant, woken_by);
            drop(lists);
            machine.parker.unpark();
        } else if let Some(machine) = lists.poller.take() {
            machine.grant(grant, woken_by);
            drop(lists);
            host.break_poller();
        } else {
            drop(lists);
            host.start_machine(slot, true, woken_by);
        }
        true
    }

    /// Whether a machine may start to spin: at most half as many spin as are busy.
    pub(crate) fn start_spinning(&self) -> bool {
        let counts = self.counts();
        let busy = self.procs().saturating_sub(counts.idle());
        if 2 * counts.spinning() >= busy {
            return false;
        }
        // AcqRel: pairs with `stop_spinning`.
        self.word.fetch_add(SPINNING, AcqRel);
        true
    }

    /// A spinner found work. Tells whether it was the last one; then it wakes the next.
    #[must_use]
    pub(crate) fn stop_spinning(&self) -> bool {
        // AcqRel: pairs with the other changes of `word`; what a spinner looks at next it sees by its own fence.
        let before = self.word.fetch_sub(SPINNING, AcqRel);
        debug_assert!(Counts(before).spinning() > 0, "more machines stopped spinning than started");
        Counts(before).spinning() == 1
    }

    /// Step 1 and 2 of going idle (Go: `releasep`, `pidleput`, `mput` in `findRunnable`): puts `machine` to the
    /// sleepers and its processor `slot` on the idle list, or gives it to a machine that wants one; stops spinning;
    /// fences.
    ///
    /// Nothing is changed, and the machine stays, if nobody wants a processor and the global queue has work or a
    /// searcher asked for a spinner, which this machine then becomes.
    pub(crate) fn retire(
        &self,
        machine: &'static Machine,
        slot: u32,
        spinning: &mut bool,
        is_current: impl FnOnce() -> bool,
        work_queued: impl FnOnce() -> bool,
    ) -> Retired {
        let mut lists = self.lists.lock();
        if lists.closed {
            return Retired::Closed;
        }
        if !is_current() {
            return Retired::Husk;
        }
        if self.is_dying(&lists, slot) {
            // It has been asked to quit since the last pick; the next one sees that.
            return Retired::Stay;
        }
        if lists.want.is_empty() {
            if work_queued() {
                return Retired::Stay;
            }
            if !*spinning && self.need_spinning.load(Relaxed) {
                self.need_spinning.store(false, Relaxed);
                // AcqRel: pairs with `stop_spinning`.
                self.word.fetch_add(SPINNING, AcqRel);
                *spinning = true;
                return Retired::Stay;
            }
        }
        self.free_living(&mut lists, slot);
        let poller = !lists.seat_taken;
        if poller {
            lists.poller = Some(machine);
            lists.seat_taken = true;
        } else {
            lists.machines.push(machine);
        }
        drop(lists);
        if std::mem::take(spinning) {
            let _ = self.stop_spinning();
        }
        idle_fence();
        Retired::Asleep { poller }
    }

    /// The last look of a retired machine found work: comes back as a spinner if a processor is idle. `None`: none is,
    /// or the machine has its grant already.
    pub(crate) fn unretire(&self, machine: &'static Machine, host: &'static impl Host) -> Option<u32> {
        let mut lists = self.lists.lock();
        if lists.closed || !lists.contains(machine) {
            return None;
        }
        let Some(slot) = self.pop_proc(&mut lists, host) else {
            self.need_spinning.store(true, Relaxed);
            return None;
        };
        lists.remove(machine);
        // AcqRel: pairs with `stop_spinning`.
        self.word.fetch_add(SPINNING, AcqRel);
        Some(slot)
    }

    /// A machine that has slept for long leaves the list, to end. `false`: it has its grant already.
    pub(crate) fn leave(&self, machine: &'static Machine) -> bool {
        let mut lists = self.lists.lock();
        let asleep = !machine.is_granted() && lists.contains(machine);
        if asleep {
            lists.remove(machine);
        }
        asleep
    }

    /// A machine comes back from the netpoller with something to do.
    pub(crate) fn leave_netpoller(&self, machine: &'static Machine, host: &'static impl Host) -> Left {
        let mut lists = self.lists.lock();
        lists.seat_taken = false;
        if let Some(grant) = machine.take_grant() {
            return Left::Granted(grant);
        }
        debug_assert!(lists.contains(machine), "a machine left the netpoller without having been in it");
        lists.poller = None;
        match self.pop_proc(&mut lists, host) {
            Some(slot) => Left::Took(slot),
            None => Left::Nothing,
        }
    }

    /// A machine that has no processor to give up takes an idle one or goes to sleep.
    pub(crate) fn rest(&self, machine: &'static Machine, host: &'static impl Host) -> Rested {
        let mut lists = self.lists.lock();
        if lists.closed {
            return Rested::Closed;
        }
        match self.pop_proc(&mut lists, host) {
            Some(slot) => Rested::Took(slot),
            None => {
                lists.machines.push(machine);
                Rested::Asleep
            }
        }
    }

    /// Puts a machine that never had a processor to the sleepers.
    pub(crate) fn put_to_sleep(&self, machine: &'static Machine) {
        self.lists.lock().machines.push(machine);
    }

    /// An idle processor, if there is one (Go: `pidleget`).
    pub(crate) fn take(&self, host: &'static impl Host) -> Option<u32> {
        let mut lists = self.lists.lock();
        self.pop_proc(&mut lists, host)
    }

    /// A processor for `machine`: an idle one at once, else the first that is freed (Go: `exitsyscall`). It sleeps
    /// meanwhile. `None` if the runtime closes, or if the machine was released ([`Machine::take_released`]).
    /// With `near`, of that slot if it is idle: what the machine needs is still in its caches.
    pub(crate) fn acquire(
        &self,
        machine: &'static Machine,
        near: Option<u32>,
        host: &'static impl Host,
    ) -> Option<u32> {
        {
            let mut lists = self.lists.lock();
            if lists.closed {
                return None;
            }
            if let Some(at) = near.and_then(|near| lists.procs.iter().position(|idle| *idle == near)) {
                let top = lists.procs.len() - 1;
                lists.procs.swap(at, top);
            }
            if let Some(slot) = self.pop_proc(&mut lists, host) {
                return Some(slot);
            }
            lists.want.push_back(Wanting { machine, seen_at: None });
            self.wanting.store(lists.want.len() as u32, Relaxed);
        }
        match machine.park() {
            Grant::Processor { slot, .. } => Some(slot),
            Grant::Closed => None,
        }
    }

    /// Gives the processor of `machine` to the machine that has wanted one for longest.
    pub(crate) fn serve_want(&self, machine: &'static Machine, slot: u32, is_current: impl FnOnce() -> bool) -> Served {
        let mut lists = self.lists.lock();
        if !is_current() {
            return Served::Husk;
        }
        if self.is_dying(&lists, slot) || !self.grant_to_want(&mut lists, slot) {
            return Served::Nobody;
        }
        lists.machines.push(machine);
        Served::Gone
    }

    /// Takes a processor that is not idle away from its machine, which is stuck or blocked, if `take` says under the
    /// lock that it still is, and whether there is work for it: it goes where [`Idle::hand_off`] sends it. `None` if it
    /// stays.
    pub(crate) fn take_away(
        &self,
        slot: u32,
        host: &'static impl Host,
        take: impl FnOnce() -> Option<bool>,
    ) -> Option<HandedOff> {
        let lists = self.lists.lock();
        if lists.closed || lists.dead[slot as usize] || lists.procs.contains(&slot) {
            return None;
        }
        let work = take()?;
        Some(self.place(lists, slot, work, host))
    }

    /// No processor is made free for those who want one: each that has been seen to wait for `patience` goes on without
    /// one, after a call of `count` under the lock. Gives how many that were.
    pub(crate) fn release_want(&self, now: u64, patience: u64, count: impl Fn()) -> u64 {
        let mut lists = self.lists.lock();
        let mut released = 0;
        for wanting in &mut lists.want {
            wanting.seen_at.get_or_insert(now);
        }
        // The oldest is in front, so nobody behind it has been seen for longer.
        while lists.want.front().and_then(|first| first.seen_at).is_some_and(|at| now.saturating_sub(at) >= patience) {
            let Some(Wanting { machine, .. }) = lists.want.pop_front() else { break };
            count();
            machine.release();
            machine.parker.unpark();
            released += 1;
        }
        self.wanting.store(lists.want.len() as u32, Relaxed);
        released
    }

    /// Processors are made free again: those who want one wait for one.
    pub(crate) fn keep_want(&self) {
        self.lists.lock().want.iter_mut().for_each(|wanting| wanting.seen_at = None);
    }

    /// Gives `slot` up at once (Go: `handoffp`): to a machine that wants one, or, with `work`, to a sleeping or a new
    /// machine (invariant 5), else to the idle list, after which the caller looks at the queues once more.
    pub(crate) fn hand_off(
        &self,
        slot: u32,
        is_current: impl FnOnce() -> bool,
        work: bool,
        host: &'static impl Host,
    ) -> HandedOff {
        let lists = self.lists.lock();
        if !is_current() {
            return HandedOff::Husk;
        }
        self.place(lists, slot, work, host)
    }

    /// See [`Idle::hand_off`].
    fn place(&self, mut lists: MutexGuard<'_, Lists>, slot: u32, work: bool, host: &'static impl Host) -> HandedOff {
        if self.is_dying(&lists, slot) {
            self.bury(&mut lists, slot, host);
            drop(lists);
            idle_fence();
            return HandedOff::Idle;
        }
        let queues_turn = work && std::mem::take(&mut lists.want_was_served);
        if !queues_turn && self.grant_to_want(&mut lists, slot) {
            return HandedOff::ToMachine;
        }
        if !work || lists.closed {
            lists.procs.push(slot);
            // AcqRel: pairs with the CAS in `wake_one`, which then finds the processor under the lock.
            self.word.fetch_add(IDLE, AcqRel);
            drop(lists);
            idle_fence();
            return HandedOff::Idle;
        }
        let grant = Grant::Processor { slot, spinning: false };
        if let Some(machine) = lists.machines.pop() {
            machine.grant(grant, None);
            drop(lists);
            machine.parker.unpark();
        } else if let Some(machine) = lists.poller.take() {
            machine.grant(grant, None);
            drop(lists);
            host.break_poller();
        } else {
            drop(lists);
            host.start_machine(slot, false, None);
        }
        HandedOff::ToMachine
    }

    /// A machine that was to run `slot` could not be started: the processor is idle again, and `sysmon` tries later.
    pub(crate) fn give_back(&self, slot: u32, spinning: bool, host: &'static impl Host) {
        let mut lists = self.lists.lock();
        self.free_proc(&mut lists, slot, host);
        // Release: pairs with the Acquire in `sysmon_looks`; that look sees the processor idle beside what it was to
        // run.
        self.refused.store(true, Release);
        drop(lists);
        if spinning {
            let _ = self.stop_spinning();
        }
    }

    /// Whether every processor is idle or dead, nobody wants one or spins, and `rest` says so too, which is asked under
    /// the lock with whether a machine has the netpoller's seat. Gives how many processors were taken so far.
    pub(crate) fn quiet(&self, rest: impl FnOnce(bool) -> bool) -> Option<u64> {
        let lists = self.lists.lock();
        let all_idle = lists.procs.len() == lists.alive() && lists.want.is_empty();
        let quiet = all_idle && !lists.closed && self.counts().spinning() == 0 && rest(lists.seat_taken);
        quiet.then_some(lists.taken)
    }

    /// From here on every machine is told to end: those that sleep, now; those that run, when they retire or want.
    pub(crate) fn close(&self, host: &'static impl Host) {
        let mut lists = self.lists.lock();
        lists.closed = true;
        let poller = lists.poller.take();
        let parked: Vec<_> = lists.machines.drain(..).collect();
        let wanting: Vec<_> = lists.want.drain(..).map(|wanting| wanting.machine).collect();
        self.wanting.store(0, Relaxed);
        if std::mem::replace(&mut lists.sysmon, Watch::Awake) != Watch::Awake {
            host.wake_sysmon();
        }
        for machine in parked.iter().chain(&wanting).chain(&poller) {
            machine.grant(Grant::Closed, None);
        }
        drop(lists);
        for machine in parked.iter().chain(&wanting) {
            machine.parker.unpark();
        }
        if poller.is_some() {
            host.break_poller();
        }
    }

    /// How many processors there are to be. Those that are too many are asked to quit, and may run for a while.
    #[inline]
    pub(crate) fn procs(&self) -> u32 {
        // Relaxed: a number to reckon with; slots are found through `slots`.
        self.procs.load(Relaxed)
    }

    /// How many slots are in use, those of dead processors among them.
    #[inline]
    pub(crate) fn slots(&self) -> u32 {
        // Acquire: pairs with the Release in `open` and `add_slots`. A thread of no runtime reads it too, to find a
        // timer's store.
        self.slots.load(Acquire)
    }

    /// Takes an idle processor, and wakes `sysmon` or sets its alarm if it sleeps.
    fn pop_proc(&self, lists: &mut MutexGuard<'_, Lists>, host: &'static impl Host) -> Option<u32> {
        if lists.closed {
            return None;
        }
        let slot = lists.procs.pop()?;
        lists.taken += 1;
        // AcqRel: pairs with the CAS in `wake_one`; the list itself is handed over by the lock.
        self.word.fetch_sub(IDLE, AcqRel);
        self.rouse_sysmon(lists, host);
        Some(slot)
    }

    /// Puts a processor on the idle list, or gives it to the first in `want` (invariant 1), or buries it if it is
    /// dying.
    fn free_proc(&self, lists: &mut MutexGuard<'_, Lists>, slot: u32, host: &'static impl Host) {
        if self.is_dying(lists, slot) {
            self.bury(lists, slot, host);
        } else {
            self.free_living(lists, slot);
        }
    }

    fn free_living(&self, lists: &mut MutexGuard<'_, Lists>, slot: u32) {
        if !self.grant_to_want(lists, slot) {
            lists.procs.push(slot);
            // AcqRel: pairs with the CAS in `wake_one`; the list itself is handed over by the lock.
            self.word.fetch_add(IDLE, AcqRel);
        }
    }

    fn grant_to_want(&self, lists: &mut MutexGuard<'_, Lists>, slot: u32) -> bool {
        let Some(Wanting { machine, .. }) = lists.want.pop_front() else {
            return false;
        };
        self.wanting.store(lists.want.len() as u32, Relaxed);
        lists.want_was_served = true;
        machine.grant(Grant::Processor { slot, spinning: false }, None);
        machine.parker.unpark();
        true
    }
}

impl Lists {
    /// Processors that are not dead.
    fn alive(&self) -> usize {
        self.dead.iter().filter(|dead| !**dead).count()
    }

    fn contains(&self, machine: &'static Machine) -> bool {
        self.poller.is_some_and(|m| std::ptr::eq(m, machine)) || self.machines.iter().any(|m| std::ptr::eq(*m, machine))
    }

    fn remove(&mut self, machine: &'static Machine) {
        if self.poller.is_some_and(|m| std::ptr::eq(m, machine)) {
            self.poller = None;
            self.seat_taken = false;
        } else {
            self.machines.retain(|m| !std::ptr::eq(*m, machine));
        }
    }
}

#[cfg(all(test, gmp_loom))]
mod loom;
#[cfg(all(test, not(gmp_loom)))]
mod tests;
