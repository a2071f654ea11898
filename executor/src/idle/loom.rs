//! Models of the sleep protocol: `idle`, `machine`, `park` and `inject` as they are, and around them the few steps of
//! `sched`, `sched::find` and `sysmon` that touch them, in the same order. Each mirrored function says which one it is.
//!
//! A unit of work here is a number to count. When all have been run the runtime closes and every machine ends: a model
//! in which one sleeps for ever is a deadlock, which loom reports.

mod closing;
mod keep_alive;
mod lent;
mod paused;
mod quiet;
mod rescue;
mod resize;
mod seats;
mod submit;
mod want;

use std::ptr::NonNull;

use loom::thread;

use super::{HandedOff, Host, Idle, Left, Quit, Rested, Retired, Served};
use crate::clock::NEVER;
use crate::inject::Inject;
use crate::machine::{Grant, Machine};
use crate::park::Parker;
use crate::runq::{Overflow, Replaced, RunQueue, Unit};
use crate::sys::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use crate::sys::doubles::{Alarm, Poller, bounded};
use crate::sys::{UnsafeCell, idle_fence, submit_fence};

fn unit() -> Unit {
    // Not the address of the sentinel, which that of a `()` would be.
    Unit::new(NonNull::<u64>::dangling().cast())
}

/// A processor. loom checks that its holders come one after another, each after what the last one did.
struct Proc {
    held: UnsafeCell<u32>,
    local: Option<Local>,
    /// Its machine is asked to quit it, in the models in which the number of processors changes.
    asked: Option<AtomicBool>,
}

/// The queue of a processor, in the models that have one.
struct Local {
    queue: RunQueue<4>,
    polling: AtomicBool,
    /// Mirrors `Processor::is_spared`, for thieves who always lose their patience.
    spared: bool,
}

impl Local {
    fn new(polling: bool) -> Local {
        Local { queue: RunQueue::new(), polling: AtomicBool::new(polling), spared: false }
    }

    fn spared() -> Local {
        Local { spared: true, ..Local::new(true) }
    }

    /// Its owner pushes.
    fn push(&self, unit: Unit) {
        // SAFETY: the caller is the owner.
        unsafe { self.queue.push(unit, &Never) };
    }
}

/// No model queues so many.
struct Never;

impl Overflow for Never {
    fn overflow(&self, _units: impl Iterator<Item = Unit>) {
        unreachable!("a queue is full");
    }
}

/// Mirrors `Sched`.
struct World {
    idle: Idle,
    inject: Inject,
    procs: Vec<Proc>,
    poller: Poller,
    poll_until: AtomicU64,
    /// The earliest deadline of all timers, in the models that have one.
    timer: Option<AtomicU64>,
    /// The clock, in the models in which it stands.
    paused: Option<paused::Paused>,
    sysmon: Parker,
    alarm: Alarm,
    ran: AtomicUsize,
    goal: usize,
    /// In the models whose first task waits in its poll for the last one.
    gate: Option<Parker>,
}

// SAFETY: a processor's cell is touched by the machine that holds it; loom checks that.
unsafe impl Sync for World {}

impl World {
    fn with(procs: u32, goal: usize, set: impl FnOnce(&mut World)) -> &'static World {
        let mut world = World {
            idle: Idle::new(),
            inject: Inject::new(),
            procs: (0..procs).map(|_| Proc { held: UnsafeCell::new(0), local: None, asked: None }).collect(),
            poller: Poller::new(),
            poll_until: AtomicU64::new(0),
            timer: None,
            paused: None,
            sysmon: Parker::new(),
            alarm: Alarm::new(),
            ran: AtomicUsize::new(0),
            goal,
            gate: None,
        };
        set(&mut world);
        world.idle.open(procs);
        Box::leak(Box::new(world))
    }

    /// Runtimes whose machines end when `goal` units have been run.
    fn new(procs: u32, goal: usize) -> &'static World {
        Self::with(procs, goal, |_| {})
    }

    fn hold(&self, slot: u32) {
        // SAFETY: the caller holds the processor; loom checks that nobody else does.
        self.procs[slot as usize].held.with_mut(|held| unsafe { *held += 1 });
    }

    /// A unit has been run.
    fn count(&'static self) {
        let last = self.ran.fetch_add(1, AcqRel) + 1 == self.goal;
        match &self.gate {
            Some(gate) if last => {
                gate.unpark();
            }
            Some(gate) => gate.park(),
            None => {}
        }
        if last {
            self.idle.close(self);
        }
    }

    /// Mirrors `Sched::ready_foreign`.
    fn ready_foreign(&'static self) {
        self.inject.push(unit());
        submit_fence();
        if self.idle.should_wake() {
            self.idle.wake_one(self, None);
        }
    }

    fn earliest_deadline(&self) -> u64 {
        self.timer.as_ref().map_or(NEVER, |timer| timer.load(Relaxed))
    }

    /// Mirrors `Sched::is_work_visible`. Every deadline is due: it is for who sleeps to see that it comes.
    fn is_work_visible(&self) -> bool {
        self.sees_work(|_| true)
    }

    /// Mirrors `Sched::is_work_worth_it`.
    fn is_work_worth_it(&self) -> bool {
        self.sees_work(|local| !local.spared)
    }

    fn sees_work(&self, counts: impl Fn(&Local) -> bool) -> bool {
        !self.inject.is_empty()
            || self.procs.iter().filter_map(|p| p.local.as_ref()).any(|local| {
                let queued = local.queue.len_seen();
                (queued > 1 || queued == 1 && local.polling.load(Relaxed)) && counts(local)
            })
    }

    /// Mirrors `Sched::is_work_for_another`.
    fn is_work_for_another(&self, own: Option<u32>) -> bool {
        let queued = |(slot, p): (usize, &Proc)| {
            let is_own = own == Some(slot as u32);
            p.local.as_ref().is_some_and(|local| {
                local.queue.len_seen() > 0 && (is_own || !local.spared) || !is_own && local.queue.next.peek() != 0
            })
        };
        !self.inject.is_empty()
            || self.procs.iter().enumerate().any(queued)
            || self.poll_until.load(Relaxed) == 0 && self.earliest_deadline() != NEVER
    }

    /// Mirrors `Sched::attend_netpoller`.
    fn attend_netpoller(&'static self) {
        let deadline = self.earliest_deadline();
        let until = self.poll_until.load(Relaxed);
        if until != 0 {
            if deadline < until {
                self.poller.wake_blocked();
            }
        } else if deadline != NEVER && !self.idle.has_poller() && self.idle.should_wake() {
            self.idle.wake_one(self, None);
        }
    }

    /// Mirrors `Sched::give_up`.
    fn give_up(&'static self, slot: u32) {
        self.hold(slot);
        let local = self.procs[slot as usize].local.as_ref();
        let work = !self.inject.is_empty() || local.is_some_and(|local| local.queue.len_seen() > 0);
        if self.idle.hand_off(slot, || true, work, self) == HandedOff::Idle {
            if self.is_work_visible() {
                self.idle.wake_one(self, None);
            } else {
                self.attend_netpoller();
            }
        }
    }

    /// Mirrors `Sched::set_procs` for slots that are in use.
    fn resize(&'static self, procs: u32) {
        if self.idle.resize(procs, self).is_some() {
            self.look_after_resize();
        }
    }

    /// Mirrors `Sched::look_after_resize`.
    fn look_after_resize(&'static self) {
        if self.is_work_visible() {
            self.idle.wake_one(self, None);
        } else {
            self.attend_netpoller();
        }
    }

    /// Mirrors `Sched::wake_deadline`.
    fn wake_deadline(&self) -> u64 {
        let deadline = self.earliest_deadline();
        if self.paused.as_ref().is_some_and(|paused| deadline > paused.now()) { NEVER } else { deadline }
    }

    /// Mirrors `Sched::publish_poll_deadline`.
    fn publish_poll_deadline(&self) -> u64 {
        let deadline = self.wake_deadline();
        self.poll_until.store(deadline, Relaxed);
        idle_fence();
        let deadline = deadline.min(self.wake_deadline());
        self.poll_until.store(deadline, Relaxed);
        deadline
    }

    /// A thread without a processor arms a timer. Mirrors `Sched::timer_is_earliest`.
    fn arm(&'static self, deadline: u64) {
        self.timer.as_ref().expect("a model with a timer").store(deadline, Relaxed);
        submit_fence();
        let until = self.poll_until.load(Relaxed);
        if until == 0 {
            if self.idle.should_wake() {
                self.idle.wake_one(self, None);
            }
        } else if deadline < until {
            self.poller.wake_blocked();
        }
    }
}

impl Host for World {
    fn start_machine(&'static self, slot: u32, spinning: bool, _woken_by: Option<u32>) {
        Worker::start(self, slot, spinning);
    }

    fn break_poller(&self) {
        self.poller.wake_blocked();
    }

    fn wake_sysmon(&self) {
        self.sysmon.unpark();
    }

    fn set_alarm(&self) -> bool {
        self.alarm.set(true);
        true
    }

    fn stop_alarm(&self) {
        self.alarm.set(false);
    }

    /// Mirrors `Sched::bury_queue`.
    fn bury(&'static self, slot: u32) {
        self.hold(slot);
        if let Some(local) = &self.procs[slot as usize].local {
            // SAFETY: whoever held it has given it up under the lock.
            let queued = std::iter::from_fn(|| unsafe { local.queue.pop() });
            self.inject.push_front(local.queue.next.take().into_iter().chain(queued));
        }
    }

    /// Mirrors `Sched::dismiss_holder`. Nobody is in a blocking call here.
    fn dismiss(&'static self, slot: u32) -> bool {
        self.procs[slot as usize].asked.as_ref().expect("a model in which machines are asked").swap(true, AcqRel);
        false
    }
}

/// Mirrors `sched::find::Worker`.
struct Worker {
    world: &'static World,
    machine: &'static Machine,
    slot: Option<u32>,
    spinning: bool,
    owes_a_pick: bool,
}

impl Worker {
    fn new(world: &'static World, machine: &'static Machine) -> Self {
        Worker { world, machine, slot: None, spinning: false, owes_a_pick: false }
    }

    /// Mirrors `sched::threads::start`.
    fn start(world: &'static World, slot: u32, spinning: bool) -> thread::JoinHandle<()> {
        Self::start_with(world, machine(), Some(Grant::Processor { slot, spinning }))
    }

    /// A machine that sleeps on its parker from the start.
    fn parked(world: &'static World) -> thread::JoinHandle<()> {
        let machine = machine();
        world.idle.put_to_sleep(machine);
        Self::start_with(world, machine, None)
    }

    /// Mirrors `Worker::hand_to_want`: tells whether the machine goes on.
    fn hand_to_want(&mut self, slot: u32) -> bool {
        if self.world.idle.serve_want(self.machine, slot, || true) != Served::Gone {
            return true;
        }
        self.slot = None;
        if self.spinning {
            self.stop_spinning();
        }
        let grant = self.machine.park();
        self.accept(grant)
    }

    fn start_with(world: &'static World, machine: &'static Machine, grant: Option<Grant>) -> thread::JoinHandle<()> {
        if let Some(grant) = grant {
            machine.grant(grant, None);
        }
        thread::spawn(move || Worker::new(world, machine).run())
    }

    fn run(&mut self) {
        let grant = self.machine.park();
        if self.accept(grant) {
            self.run_on();
        }
    }

    fn run_on(&mut self) {
        while self.find() {
            if self.spinning {
                self.stop_spinning();
            }
            self.owes_a_pick = false;
            self.world.count();
        }
    }

    /// Mirrors `Worker::stop_spinning`.
    fn stop_spinning(&mut self) {
        self.spinning = false;
        if self.world.idle.stop_spinning() && self.world.idle.should_wake() {
            idle_fence();
            if self.world.is_work_for_another(self.slot) {
                self.world.idle.wake_one(self.world, None);
            }
        }
    }

    /// Mirrors `Worker::find`: tells whether it took something to run.
    fn find(&mut self) -> bool {
        let world = self.world;
        loop {
            let Some(slot) = self.slot else {
                if !self.rest() {
                    return false;
                }
                continue;
            };
            world.hold(slot);
            if self.quits(slot) {
                continue;
            }
            if self.take(slot) {
                return true;
            }
            if !self.spinning && !self.serves_want() && world.idle.start_spinning() {
                self.spinning = true;
                if self.take(slot) {
                    return true;
                }
            }
            if !self.go_idle(slot) {
                return false;
            }
        }
    }

    /// A machine in `want` goes before the queues.
    fn serves_want(&self) -> bool {
        self.world.idle.is_wanted() && !self.owes_a_pick
    }

    /// Steps 2 to 6.
    fn take(&self, slot: u32) -> bool {
        let world = self.world;
        if self.serves_want() {
            return false;
        }
        if world.inject.pop().is_some() {
            return true;
        }
        let is_due =
            |deadline| deadline != NEVER && world.paused.as_ref().is_none_or(|paused| deadline <= paused.now());
        if world.timer.as_ref().is_some_and(|timer| is_due(timer.load(Relaxed)) && timer.swap(NEVER, AcqRel) != NEVER) {
            return true;
        }
        world.procs.iter().enumerate().filter_map(|(i, p)| Some((i as u32, p.local.as_ref()?))).any(|(i, local)| {
            // `steal_lone`: in these models a processor stands still when it is looked at.
            let next = &local.queue.next;
            if i != slot && local.spared {
                return false;
            }
            local.queue.steal_one().is_some() || i != slot && next.peek() != 0 && next.steal(next.peek()).is_some()
        })
    }

    /// Mirrors `Worker::go_idle`.
    fn go_idle(&mut self, slot: u32) -> bool {
        let world = self.world;
        self.slot = None;
        let retired = world.idle.retire(self.machine, slot, &mut self.spinning, || true, || !world.inject.is_empty());
        let poller = match retired {
            Retired::Asleep { poller } => poller,
            Retired::Stay => {
                self.slot = Some(slot);
                return true;
            }
            Retired::Husk => unreachable!("nobody rescues here; see `rescue`"),
            Retired::Closed => return false,
        };
        if world.is_work_worth_it() {
            if let Some(slot) = world.idle.unretire(self.machine, world) {
                self.spinning = true;
                self.slot = Some(slot);
                return true;
            }
        }
        if poller {
            self.sleep_in_netpoller()
        } else {
            world.attend_netpoller();
            let grant = self.machine.park();
            self.accept(grant)
        }
    }

    /// Mirrors `Worker::sleep_in_netpoller`.
    fn sleep_in_netpoller(&mut self) -> bool {
        let world = self.world;
        loop {
            let deadline = world.publish_poll_deadline();
            if self.machine.is_granted() || world.advance_if_quiet() {
                break;
            }
            world.poller.wait(deadline == NEVER);
            if deadline != NEVER {
                break;
            }
        }
        world.poll_until.store(0, Relaxed);
        match world.idle.leave_netpoller(self.machine, world) {
            Left::Granted(grant) => self.accept(grant),
            Left::Took(slot) => {
                self.slot = Some(slot);
                true
            }
            Left::Nothing => self.rest(),
        }
    }

    /// Mirrors `Sched::quit`.
    fn quits(&mut self, slot: u32) -> bool {
        let world = self.world;
        let asked = world.procs[slot as usize]
            .asked
            .as_ref()
            .is_some_and(|asked| asked.load(Relaxed) && asked.swap(false, AcqRel));
        if !asked || world.idle.quit(slot, || true, world) != Quit::Dead {
            return false;
        }
        self.slot = None;
        world.look_after_resize();
        true
    }

    /// Mirrors `Worker::rest`.
    fn rest(&mut self) -> bool {
        if self.spinning {
            self.stop_spinning();
        }
        match self.world.idle.rest(self.machine, self.world) {
            Rested::Closed => false,
            Rested::Took(slot) => {
                self.slot = Some(slot);
                true
            }
            Rested::Asleep => {
                let grant = self.machine.park();
                self.accept(grant)
            }
        }
    }

    /// Mirrors `Worker::accept`.
    fn accept(&mut self, grant: Grant) -> bool {
        match grant {
            Grant::Closed => false,
            Grant::Processor { slot, spinning } => {
                self.spinning = spinning;
                self.owes_a_pick = true;
                self.slot = Some(slot);
                true
            }
        }
    }
}

fn machine() -> &'static Machine {
    Box::leak(Box::new(Machine::new()))
}

/// Takes an idle processor in the setup of a model.
fn take(world: &'static World) -> u32 {
    world.idle.acquire(machine(), None, world).expect("an idle processor")
}
