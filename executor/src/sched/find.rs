//! What a machine does: find a task, run it, sleep when there is none (Go: `schedule`, `findRunnable`).
//!
//! The search, in the order of [`Worker::find`]; each exit is counted:
//!
//! 0. requests from outside: the slice is over, the runtime closes, a machine wants this processor;
//! 1. every few picks a look around: clock, due timers, netpoller, one task from the global queue;
//! 2. the run-next slot, which shares the time slice of the task before, up to the hop cap;
//! 3. the local queue;
//! 4. a batch from the global queue;
//! 5. due timers, and the netpoller again, without waiting, where such looks find something (`events`);
//! 6. spin: steal half of another queue, four rounds; in the last one also other slots' due timers, what stays queued
//!    on a processor that is spared, and lone tasks; the next search judges whether the theft paid;
//! 7. go idle: give the processor up, look at everything once more, sleep, the first to do so in the netpoller.
//!
//! The models in `idle/loom.rs` repeat the steps of `go_idle`, `sleep_in_netpoller`, `hand_to_want` and
//! `stop_spinning`.

use std::task::Waker;
use std::time::Duration;

use super::paused::Bringing;
use super::{Sched, count_found, die};
use crate::clock::{self, NEVER};
use crate::context;
use crate::idle::{Left, Rested, Retired, Served};
use crate::inject::BATCH;
use crate::machine::{Grant, Machine, Parked};
use crate::metrics::FoundIn;
use crate::netpoll::Wait;
use crate::processor::{CLOSING, ProcSlot, Processor, QUIT, SLICE_OVER};
use crate::runq::Unit;
use crate::sys::atomic::Ordering::Relaxed;
use crate::sys::{idle_fence, submit_fence, submit_fence_after_rmw};
use crate::timers::WakeBatch;
use crate::wakers::wake;

mod events;
mod first;
mod known;
mod lane;
mod lent;
mod run;
mod steal;

pub(crate) use run::Began;

use events::Events;
use steal::{Behind, Theft};

/// So many tasks with long polls, at most, give way to what became ready meanwhile. Behind more of them it waits its
/// turn: to move them would take as long as it takes to run some.
const YIELDERS_MAX: usize = 8;

/// A machine with short polls lets others want its processor for so long, in nanoseconds: to hand it over costs two
/// thread switches. Who comes back from a wait for tasks then finds that more of them have ended.
const WANTED_NS: u64 = 50_000;

/// With so many tasks in its queue a machine fires no more timers at a look than their share. The others that are due
/// stay where they are, in their order: what does not fit into the queue goes behind all that lies in the global one.
const QUEUED_MAX: usize = 128;

/// A machine that has work comes so often at most, in nanoseconds, to memory that others gave back: a portion takes 1
/// to 3 µs.
const COLLECT_NS: u64 = 100_000;

/// The body of a machine's thread.
pub(crate) struct Worker {
    sched: &'static Sched,
    machine: &'static Machine,
    spinning: bool,
    /// The slot for whose queue this machine was woken, until it finds something.
    woken_by: Option<u32>,
    /// The last pick was from the global queue, at a look.
    looked_global: bool,
    /// The machine was granted its processor and has not run anything yet: that goes before machines that want one.
    owes_a_pick: bool,
    /// For how long, at most, the looks have found that somebody wants a processor.
    wanted_ns: u64,
    /// When it last came, between tasks, to memory that others gave back.
    collected_at: u64,
    /// The last theft of half a queue, until the next search says whether it paid.
    theft: Option<Theft>,
    /// Whether what it found there was behind a long poll.
    behind: Option<Behind>,
    /// Whose lone task was just stolen.
    lone_of: Option<&'static Processor>,
    /// What it has learnt of the netpoller.
    events: Events,
    /// Buffers, kept for their memory.
    ready: Vec<Waker>,
    due: WakeBatch,
}

/// What a look around brought.
enum Look {
    Task(Unit),
    Nothing,
    /// The processor went to a machine that wanted one, or was a husk.
    ProcessorGone,
    /// The runtime closes.
    Closed,
}

impl Worker {
    pub(crate) fn new(sched: &'static Sched, machine: &'static Machine) -> Self {
        Worker {
            sched,
            machine,
            spinning: false,
            woken_by: None,
            theft: None,
            behind: None,
            looked_global: false,
            owes_a_pick: false,
            wanted_ns: 0,
            collected_at: 0,
            lone_of: None,
            events: Events::default(),
            ready: Vec::new(),
            due: WakeBatch::new(),
        }
    }

    /// The processor this machine holds. A task that blocked in the middle of its poll may have come back with another
    /// one, or, when the runtime closes, with none.
    #[inline]
    fn processor(&self) -> Option<&'static Processor> {
        context::processor_of(self.sched)
    }

    /// The last spinner that finds work wakes the next, if there is more (Go: `resetspinning`, which does not ask).
    fn stop_spinning(&mut self) {
        self.spinning = false;
        self.woken_by = None;
        if self.sched.idle.stop_spinning() && self.sched.idle.should_wake() {
            // Who published something meanwhile has relied on this spinner, or sees that it spins no more.
            idle_fence();
            if self.sched.is_work_for_another(self.processor()) {
                self.sched.idle.wake_one(self.sched, None);
            }
        }
    }

    /// The next task and the processor to run it on; `None` if the runtime closes. See the head of the file.
    // Always: `run_tasks` is the loop that every task goes through, and `find::first` calls it too.
    #[inline(always)]
    fn find(&mut self) -> Option<(&'static Processor, Unit)> {
        loop {
            let Some(p) = self.processor() else {
                if !self.rest() {
                    return None;
                }
                continue;
            };
            // 0.
            if p.queue.next.is_condemned() {
                self.sched.return_husk(p);
                continue;
            }
            let attention = p.attention();
            let mut slice_over = false;
            if attention != 0 {
                if attention & CLOSING != 0 && p.is_closing() {
                    self.abandon(p);
                    return None;
                }
                if attention & QUIT != 0 && self.sched.quit(p) {
                    continue;
                }
                slice_over = attention & SLICE_OVER != 0;
                if slice_over {
                    p.answer(SLICE_OVER);
                }
            }
            // 1. The global queue never gives two picks in a row: with looks at each pick the local queue would starve.
            let after_global = std::mem::take(&mut self.looked_global);
            if p.is_look_due() || slice_over {
                match self.look(p, after_global) {
                    Look::Nothing => {}
                    Look::Task(unit) => {
                        // The second look after a yield, which is pushed without one: step 3 does not come to it.
                        submit_fence();
                        self.sched.after_push(p);
                        p.gives_way_later();
                        p.begin_slice();
                        count_found(p, FoundIn::GlobalTick);
                        return Some((p, unit));
                    }
                    Look::ProcessorGone => continue,
                    Look::Closed => return None,
                }
            }
            // 2. and 3.
            if let Some(unit) = self.pick_local(p, slice_over) {
                return Some((p, unit));
            }
            if let Some(unit) = self.find_elsewhere(p) {
                return Some((p, unit));
            }
            if p.queue.next.peek() == 0 && p.queue.len_seen() == 0 {
                // Memory that other threads gave back while there was work, some at a time. Who wants a processor goes
                // first. SAFETY: this machine holds `p`.
                if !self.sched.idle.is_wanted() && (unsafe { p.arena.collect() } || self.sched.collect_outside()) {
                    continue;
                }
                if !self.go_idle(p) {
                    return None;
                }
            }
        }
    }

    /// Steps 2 and 3.
    #[inline(always)]
    fn pick_local(&self, p: &'static Processor, slice_over: bool) -> Option<Unit> {
        // 2.
        if let Some(unit) = p.queue.next.take() {
            if !slice_over && p.hop() {
                count_found(p, FoundIn::RunNext);
                return Some(unit);
            }
            // SAFETY: this machine holds `p`.
            unsafe { p.push(unit) };
            submit_fence();
            self.sched.after_push(p);
            // The end of a slice: what is owed to others is looked at after the next pick, not the sixty-first.
            if self.sched.idle.is_wanted() {
                p.look_soon();
            }
        }
        // 3.
        // SAFETY: as above.
        let unit = unsafe { p.queue.pop() }?;
        // The second look after a yield, which is pushed without one: the pop was a locked instruction.
        submit_fence_after_rmw();
        self.sched.after_push(p);
        p.begin_slice();
        count_found(p, FoundIn::Local);
        Some(unit)
    }

    /// Steps 4 to 6. May leave tasks in the local queue instead of giving one.
    #[cold]
    fn find_elsewhere(&mut self, p: &'static Processor) -> Option<Unit> {
        let sched = self.sched;
        p.begin_slice();
        self.events.queue_is_empty(p);
        // A machine that waits for a processor in the middle of its own work goes first.
        if sched.idle.is_wanted() && !self.owes_a_pick {
            return None;
        }
        if self.theft.is_some() {
            self.judge_theft(p, clock::now());
        }
        // 4.
        // SAFETY: this machine holds `p`.
        let batch = unsafe { sched.inject.pop_batch(sched.idle.procs() as usize, BATCH, &p.queue) };
        if let Some(unit) = batch {
            submit_fence();
            sched.after_push(p);
            count_found(p, FoundIn::GlobalBatch);
            return Some(unit);
        }
        // 5.
        let now = clock::now();
        self.run_own_timers(p, now, 0);
        self.look_before_sleep(p, now);
        if p.queue.len_seen() > 0 {
            return None;
        }
        // 6.
        if !self.spinning {
            if !sched.idle.start_spinning() {
                return None;
            }
            self.spinning = true;
            p.counters().spins.add(1);
        }
        let unit = self.steal(p);
        if unit.is_some() {
            self.events.found_elsewhere();
        }
        unit
    }

    /// Step 1.
    #[cold]
    fn look(&mut self, p: &'static Processor, after_global: bool) -> Look {
        let sched = self.sched;
        let now = clock::now();
        let passed = now.saturating_sub(p.looked_at());
        let look = p.looked(now, sched.netpolled_at());
        let long = if look.after_one_long_poll { p.last_polled() } else { None };
        self.wanted_ns = if sched.idle.is_wanted() { self.wanted_ns + passed } else { 0 };
        if self.wanted_ns >= WANTED_NS && !self.owes_a_pick {
            self.wanted_ns = 0;
            if let Some(gone) = self.hand_to_want(p) {
                return gone;
            }
        }
        if now.saturating_sub(self.collected_at) >= COLLECT_NS {
            self.collected_at = now;
            // A machine that always has work would else never come to it, and perhaps nobody spawns any more.
            // SAFETY: this machine holds `p`.
            unsafe { p.arena.collect_some() };
            sched.collect_outside();
        }
        let queued = p.queue.len_seen();
        if look.probe && queued > 1 {
            submit_fence();
            if sched.idle.should_wake() {
                p.probes(now);
                sched.wake_one_from(p, false);
            }
        }
        // What comes into a queue that is long is no more than what is picked from it: half timers, half from the
        // global queue, which gives nothing at every second look if each pick comes after one.
        let every = p.look_every();
        let share = if every == 1 { usize::from(after_global) } else { every / 2 };
        let timers_wait = self.run_own_timers(p, now, share);
        if look.netpoll && sched.netpoll_while_busy(&mut self.ready, now) {
            p.counters().netpoll_looks.add(1);
            self.wake_ready(p);
        }
        if let Some(task) = long {
            sched.suspects_burner(task, now);
        }
        let ready = p.queue.len_seen().saturating_sub(queued);
        if look.after_long_polls && ready > 0 && queued <= YIELDERS_MAX && p.may_give_way() {
            // What became ready during a long poll goes before the task that has just yielded it, wherever that is
            // queued: else it would wait for one more of them. What becomes ready may be long polls too, so one of
            // those that gave way, and at the looks until then the global queue, has its turn before the next time.
            p.gives_way_to(ready as u32);
            for _ in 0..queued {
                // SAFETY: this machine holds `p`.
                unsafe { p.queue.pop().map(|unit| p.push(unit)) };
            }
            if queued > 0 {
                submit_fence();
                sched.after_push(p);
            }
            return Look::Nothing;
        }
        if after_global {
            return Look::Nothing;
        }
        // As many as there were picks since the last look, which leaves both queues half of the picks: one would be a
        // trickle beside local tasks that never end. Timers that are due and wait for room share with them.
        let most = if timers_wait { every.div_ceil(2) } else { every };
        // SAFETY: this machine holds `p`.
        let first = unsafe { sched.inject.pop_batch(sched.idle.procs() as usize, most, &p.queue) };
        match first {
            Some(unit) => {
                self.looked_global = true;
                Look::Task(unit)
            }
            None => Look::Nothing,
        }
    }

    /// Gives `p` to the machine that has wanted one for longest; `None` if nobody does any more.
    fn hand_to_want(&mut self, p: &'static Processor) -> Option<Look> {
        let slot = self.sched.slot(p.index);
        context::set_processor(None);
        match self.sched.idle.serve_want(self.machine, p.index, || slot.is_current(p)) {
            Served::Nobody => {
                context::set_processor(Some(p));
                return None;
            }
            Served::Husk => {
                self.sched.return_husk(p);
                return Some(Look::ProcessorGone);
            }
            Served::Gone => {}
        }
        if self.spinning {
            self.stop_spinning();
        }
        Some(if self.park() { Look::ProcessorGone } else { Look::Closed })
    }

    /// Goes on without a processor: the poll that had it was stuck, or came back from a wait without one. Tells whether
    /// the machine has one again, or that the runtime closes.
    #[cold]
    fn rest(&mut self) -> bool {
        self.sched.die_if_forked();
        if self.spinning {
            self.stop_spinning();
        }
        self.sched.end_release();
        match self.sched.idle.rest(self.machine, self.sched) {
            Rested::Closed => false,
            Rested::Took(slot) => {
                self.take_processor(slot);
                true
            }
            Rested::Asleep => self.park(),
        }
    }

    /// Wakes the tasks whose timers are due in the slot of `p`, or in one whose processor is dead: nobody else comes to
    /// it on the way. Tells whether some of them have to wait.
    fn run_own_timers(&mut self, p: &'static Processor, now: u64, share: usize) -> bool {
        let idle = &self.sched.idle;
        let mut wait = false;
        for slot in std::iter::once(p.index).chain(idle.procs()..idle.slots()) {
            wait |= self.run_due_timers(p, self.sched.slot(slot), now, share);
        }
        wait
    }

    /// Wakes the tasks whose timers in `slot` are due, those with the earliest deadlines first. They go to the tail of
    /// the local queue of `p`: as many as there is room for, or their share. Tells whether some of them have to wait
    /// for the next look.
    fn run_due_timers(&mut self, p: &'static Processor, slot: &'static ProcSlot, now: u64, share: usize) -> bool {
        let now = self.sched.clock.due_at(now);
        if slot.timers.earliest() > now {
            return false;
        }
        self.runs_wakers();
        let mut fired = 0;
        loop {
            let room = QUEUED_MAX.saturating_sub(p.queue.len_seen()).max(share.saturating_sub(fired));
            if room == 0 {
                return true;
            }
            let more = slot.timers.run_due(now, room, &mut self.due);
            fired += self.due.len();
            p.counters().timers_fired.add(self.due.len() as u64);
            wake_batch(self.sched, p, || self.due.wake_all());
            if !more {
                return false;
            }
        }
    }

    /// Work was found: wakers, some of which may be the user's. They may block, and everybody would rely on the
    /// spinner.
    fn runs_wakers(&mut self) {
        if self.spinning {
            self.stop_spinning();
        }
    }

    /// Step 7. Comes back with a processor, or not at all if the runtime closes.
    #[cold]
    fn go_idle(&mut self, p: &'static Processor) -> bool {
        let sched = self.sched;
        context::set_processor(None);
        let woken_by = self.woken_by.take();
        p.counters().parks.add(1);
        let slot = sched.slot(p.index);
        let is_current = || slot.is_current(p);
        let retired =
            sched.idle.retire(self.machine, p.index, &mut self.spinning, is_current, || !sched.inject.is_empty());
        let poller = match retired {
            Retired::Asleep { poller } => poller,
            Retired::Stay => {
                context::set_processor(Some(p));
                return true;
            }
            Retired::Husk => {
                sched.return_husk(p);
                return true;
            }
            Retired::Closed => {
                context::set_processor(Some(p));
                self.abandon(p);
                return false;
            }
        };
        if let Some(waker) = woken_by {
            sched.slot(waker).processor().raise_backoff();
        }
        if sched.is_work_worth_it() {
            if let Some(slot) = sched.idle.unretire(self.machine, sched) {
                self.spinning = true;
                self.take_processor(slot);
                return true;
            }
        }
        sched.idle.stop_alarm(sched);
        if poller {
            self.sleep_in_netpoller()
        } else {
            sched.attend_netpoller();
            self.park()
        }
    }

    fn sleep_in_netpoller(&mut self) -> bool {
        let sched = self.sched;
        let mut due = false;
        loop {
            let deadline = sched.publish_poll_deadline();
            if self.machine.is_granted() || sched.advance_if_quiet(&mut self.ready) {
                break;
            }
            let wait = if deadline == NEVER {
                Wait::Forever
            } else {
                match deadline.saturating_sub(sched.clock.now()) {
                    0 => {
                        due = true;
                        break;
                    }
                    left => Wait::Until(Duration::from_nanos(left)),
                }
            };
            let wait = sched.unwatched_for().map_or(wait, |time| wait.at_most(time));
            if let Err(e) = sched.netpoll.wait(wait, &mut self.ready) {
                die("the netpoller cannot be waited on", &e);
            }
            // Not before it has slept: a new thread takes a CPU from whoever this one has just woken.
            sched.sysmon_start();
            if !self.ready.is_empty() {
                break;
            }
        }
        sched.left_netpoller();
        sched.sysmon_start_if_owed();
        let bringing = (!self.ready.is_empty()).then(|| Bringing::begin(sched));
        match sched.idle.leave_netpoller(self.machine, sched) {
            Left::Granted(grant) => {
                let goes_on = self.accept(grant);
                self.wake_after_sleep();
                goes_on
            }
            Left::Took(slot) => {
                self.take_processor(slot);
                self.wake_after_sleep();
                if let Some(p) = self.processor().filter(|_| due) {
                    // Whichever slot's timer this was: a spinner would find it too, and wake another machine for it.
                    let now = clock::now();
                    sched.slots().for_each(|slot| _ = self.run_due_timers(p, slot, now, 0));
                }
                true
            }
            Left::Nothing => {
                // Every processor is busy: what is ready goes to the global queue, and this machine parks. It is on no
                // list before: some of the wakers may be the user's, and block.
                self.wake_after_sleep();
                drop(bringing);
                self.rest()
            }
        }
    }

    /// Wakes what the netpoller brought, with the processor if there is one.
    fn wake_after_sleep(&mut self) {
        match self.processor() {
            Some(p) => {
                self.wake_ready(p);
                // Long work would leave the netpoller unattended: somebody else sits down there.
                if p.is_slow() && self.sched.idle.should_wake() {
                    self.sched.idle.wake_one(self.sched, None);
                }
            }
            None => wake_all(&mut self.ready),
        }
    }

    /// Sleeps on the parker. Tells whether the machine goes on: it ends when the runtime closes, and after its
    /// keep-alive if there are more machines than processors need.
    fn park(&mut self) -> bool {
        let sched = self.sched;
        loop {
            // One more than there are processors: some machine is always on its way.
            let surplus = sched.threads.machines() > sched.idle.procs() as usize + 1;
            let keep_alive = surplus.then(|| sched.keep_alive());
            // As in `sleep_in_netpoller`.
            let unwatched = sched.unwatched_for();
            let parked = self.machine.park_once(unwatched.or(keep_alive));
            sched.sysmon_start();
            match parked {
                Parked::Granted(grant) => return self.accept(grant),
                Parked::TimeOver if unwatched.is_none() && sched.idle.leave(self.machine) => return false,
                // There may be fewer processors now.
                Parked::TimeOver | Parked::Unparked => {}
            }
        }
    }

    fn accept(&mut self, grant: Grant) -> bool {
        match grant {
            Grant::Closed => false,
            Grant::Processor { slot, spinning } => {
                self.spinning = spinning;
                self.owes_a_pick = true;
                self.woken_by = self.machine.take_woken_by();
                self.take_processor(slot);
                true
            }
        }
    }

    fn take_processor(&mut self, slot: u32) {
        let p = self.sched.slot(slot).processor();
        p.taken(clock::now());
        // Others may have gone without timers and the global queue for as long as it was with machines that wanted it.
        p.look_soon();
        context::set_processor(Some(p));
    }

    /// The runtime closes: the tasks of `p` go to the global queue, where shutdown drops them, and the machine ends.
    fn abandon(&mut self, p: &'static Processor) {
        context::set_processor(None);
        if std::mem::take(&mut self.spinning) {
            let _ = self.sched.idle.stop_spinning();
        }
        if p.queue.next.is_condemned() {
            return self.sched.return_husk(p);
        }
        // SAFETY: nobody else is given the processors of a runtime that closes.
        let units = std::iter::from_fn(|| p.queue.next.take().or_else(|| unsafe { p.queue.pop() }));
        self.sched.inject.push_batch(units);
        self.sched.shutdown.unpark();
    }
}

/// Wakes tasks as one batch: they go to the local tail in order, and one decision to wake a machine comes at the end
/// (Go: `injectglist`). Some of the wakers may be the user's own code.
fn wake_batch(sched: &'static Sched, p: &'static Processor, wake_all: impl FnOnce()) {
    wake_queued(p, wake_all);
    after_batch(sched, p);
}

/// [`wake_batch`] without the decision.
fn wake_queued(p: &'static Processor, wake_all: impl FnOnce()) {
    // Some of the wakers may be the user's.
    p.sched.sysmon_start_if_owed();
    p.polls_wakers();
    p.begin_poll();
    p.set_batching(true);
    wake_all();
    p.sched.die_if_forked();
    p.set_batching(false);
    p.end_poll();
}

/// The one decision of a batch.
pub(super) fn after_batch(sched: &'static Sched, p: &'static Processor) {
    let queued = p.queue.len_seen();
    if queued > 1 || queued == 1 && p.is_slow() {
        submit_fence();
        if sched.idle.should_wake() {
            sched.wake_one_waking(p, None);
        }
    }
}

impl Sched {
    /// When somebody last looked at the netpoller.
    pub(crate) fn netpolled_at(&self) -> u64 {
        self.last_netpoll.load(Relaxed)
    }
}

/// Wakes what the netpoller brought.
pub(crate) fn wake_all(ready: &mut Vec<Waker>) {
    ready.drain(..).for_each(wake);
}
