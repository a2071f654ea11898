//! Rescue and retake: against the end of the poll, going idle, `want`, and the machine in `block_in_place`. One slot,
//! whose processors are as many as it takes; somebody sits in the netpoller all the time.

use loom::thread;

use super::{Never, bounded, machine, unit};
use crate::idle::{HandedOff, Host, Idle, Rested, Retired, Served};
use crate::inject::Inject;
use crate::machine::{Grant, Machine};
use crate::park::Parker;
use crate::runq::{Replaced, RunQueue, Unit};
use crate::sys::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use crate::sys::{Mutex, UnsafeCell, idle_fence, rank, submit_fence, submit_fence_after_rmw};

/// The one slot.
const SLOT: u32 = 0;

/// Mirrors `Processor`.
struct Processor {
    queue: RunQueue<4>,
    polls: AtomicU32,
    status: AtomicU32,
    /// What only the owner touches; loom checks that owners come one after another.
    own: UnsafeCell<u32>,
}

// SAFETY: `own` is touched by the owner; loom checks that.
unsafe impl Sync for Processor {}

impl Processor {
    fn new() -> Self {
        Processor {
            queue: RunQueue::new(),
            polls: AtomicU32::new(0),
            status: AtomicU32::new(0),
            own: UnsafeCell::new(0),
        }
    }

    fn owned(&self) {
        // SAFETY: the caller is the owner; loom checks that nobody else thinks so.
        self.own.with_mut(|own| unsafe { *own += 1 });
    }

    fn push(&self, unit: Unit) {
        // SAFETY: the caller is the owner.
        unsafe { self.queue.push(unit, &Never) };
    }

    fn pop(&self) -> Option<Unit> {
        // SAFETY: as above.
        unsafe { self.queue.pop() }
    }

    /// Mirrors `begin_poll` and `end_poll`.
    fn bump_polls(&self) {
        self.owned();
        self.polls.store(self.polls.load(Relaxed) + 1, Relaxed);
    }

    /// Mirrors `enter_blocking`.
    fn enter_blocking(&self) -> u32 {
        self.owned();
        let status = self.status.load(Relaxed) + 1;
        assert_eq!(status % 2, 1);
        self.status.store(status, Release);
        status
    }

    /// Mirrors `exit_blocking` and `retake`.
    fn leave_blocking(&self, status: u32) -> bool {
        self.status.compare_exchange(status, status + 1, AcqRel, Relaxed).is_ok()
    }
}

/// Mirrors `Sched` with its one `ProcSlot`.
struct Table {
    idle: Idle,
    inject: Inject,
    current: AtomicPtr<Processor>,
    spare: Mutex<Vec<&'static Processor>>,
    stuck: AtomicUsize,
    /// Units to be run; then the runtime closes.
    left: AtomicUsize,
    /// Others end when they have gone idle, which a machine woken for nothing would only delay.
    has_work: bool,
    /// Unparked when all have been run.
    all_ran: Parker,
}

impl Table {
    /// The processor is idle.
    fn new(units: usize) -> &'static Table {
        let processor = || -> &'static Processor { Box::leak(Box::new(Processor::new())) };
        let table = Box::leak(Box::new(Table {
            idle: Idle::new(),
            inject: Inject::new(),
            current: AtomicPtr::new(std::ptr::from_ref(processor()).cast_mut()),
            spare: Mutex::new(rank::LEAF, vec![processor()]),
            stuck: AtomicUsize::new(0),
            left: AtomicUsize::new(units),
            has_work: units != usize::MAX,
            all_ran: Parker::new(),
        }));
        table.idle.open(1);
        table.idle.lists.lock().seat_taken = true;
        table
    }

    fn processor(&self) -> &'static Processor {
        // SAFETY: processors are leaked.
        unsafe { &*self.current.load(Acquire) }
    }

    fn is_current(&self, p: &Processor) -> bool {
        std::ptr::eq(self.current.load(Relaxed), p)
    }

    /// Mirrors `ProcSlot::renew`.
    fn renew(&self) {
        let fresh = self.spare.lock().pop().expect("no more than one is a husk");
        self.current.store(std::ptr::from_ref(fresh).cast_mut(), Release);
    }

    /// Mirrors `Sched::rescue`.
    fn rescue(&'static self, p: &'static Processor, polls: u32) -> bool {
        let taken = self.idle.take_away(SLOT, self, || {
            if !self.is_current(p) || p.polls.load(Relaxed) != polls || p.status.load(Relaxed) % 2 == 1 {
                return None;
            }
            Some(self.strip(p))
        });
        self.went_on(taken)
    }

    /// Mirrors `Sched::strip`.
    fn strip(&self, p: &'static Processor) -> bool {
        self.stuck.fetch_add(1, AcqRel);
        let next = p.queue.next.condemn();
        idle_fence();
        let queued = std::iter::from_fn(|| p.queue.steal_one());
        self.inject.push_batch(next.into_iter().chain(queued));
        self.renew();
        !self.inject.is_empty()
    }

    /// Mirrors `Sched::give_away_ahead` and `left_idle`.
    fn give_away_ahead(&'static self, p: &'static Processor) -> bool {
        p.owned();
        let taken = self.idle.take_away(SLOT, self, || self.is_current(p).then(|| self.strip(p)));
        if taken == Some(HandedOff::Idle) && !self.inject.is_empty() {
            self.idle.wake_one(self, None);
        }
        taken.is_some()
    }

    /// Mirrors `Sched::retake`.
    fn retake(&'static self, p: &'static Processor, status: u32) -> bool {
        let taken = self.idle.take_away(SLOT, self, || {
            if !self.is_current(p) || !p.leave_blocking(status) {
                return None;
            }
            p.bump_polls();
            Some(p.queue.len_seen() > 0 || p.queue.next.peek() != 0 || !self.inject.is_empty())
        });
        self.went_on(taken)
    }

    /// Mirrors `Sched::went_on`, in the models that have work.
    fn went_on(&'static self, taken: Option<HandedOff>) -> bool {
        if self.has_work && taken == Some(HandedOff::Idle) && self.idle.should_wake() {
            self.idle.wake_one(self, None);
        }
        taken.is_some()
    }

    /// Mirrors `Sched::return_husk` and `ProcSlot::take_back`.
    fn return_husk(&'static self, husk: &'static Processor) {
        self.spill(husk);
        husk.owned();
        husk.queue.next.pardon();
        self.spare.lock().push(husk);
        self.stuck.fetch_sub(1, AcqRel);
    }

    fn spill(&'static self, p: &'static Processor) {
        if self.inject.push_batch(std::iter::from_fn(|| p.pop())) > 0 {
            self.queued_globally();
        }
    }

    fn queued_globally(&'static self) {
        submit_fence();
        if self.idle.should_wake() {
            self.idle.wake_one(self, None);
        }
    }

    fn after_push(&'static self, p: &'static Processor) {
        if p.queue.next.is_condemned() {
            self.spill(p);
        }
    }

    /// Mirrors `Sched::ready_local` for a wake.
    fn ready_local(&'static self, p: &'static Processor, unit: Unit) {
        match p.queue.next.replace(unit) {
            Replaced::Nothing => {}
            Replaced::Unit(displaced) => {
                p.owned();
                p.push(displaced);
                submit_fence();
                self.after_push(p);
                if self.idle.should_wake() {
                    self.idle.wake_one(self, None);
                }
            }
            Replaced::Condemned(unit) => self.ready_foreign(unit),
        }
    }

    fn ready_foreign(&'static self, unit: Unit) {
        self.inject.push(unit);
        self.queued_globally();
    }

    /// Mirrors `Sched::leave_husk`.
    fn leave_husk(&'static self, husk: &'static Processor) {
        self.return_husk(husk);
        if !self.inject.is_empty() {
            self.queued_globally();
        }
    }

    /// Mirrors `Sched::give_up`, in a poll.
    fn give_up(&'static self, p: &'static Processor) {
        p.bump_polls();
        let work = p.queue.len_seen() > 0 || p.queue.next.peek() != 0 || !self.inject.is_empty();
        match self.idle.hand_off(SLOT, || self.is_current(p), work, self) {
            HandedOff::ToMachine => {}
            HandedOff::Husk => self.leave_husk(p),
            HandedOff::Idle => {
                if !self.inject.is_empty() {
                    self.idle.wake_one(self, None);
                }
            }
        }
    }

    /// Mirrors `Sched::acquire`.
    fn acquire(&'static self) -> Option<&'static Processor> {
        self.idle.acquire(machine(), None, self)?;
        let p = self.processor();
        p.bump_polls();
        Some(p)
    }

    /// A unit has been run.
    fn count(&'static self) {
        if self.left.fetch_sub(1, AcqRel) == 1 {
            self.all_ran.unpark();
            self.idle.close(self);
        }
    }

    /// Nobody runs any more: the slot has one processor, which is idle unless the runtime closed, and no husk is left.
    fn check(&self, idle: u32) {
        assert_eq!(self.idle.counts().idle(), idle, "the slot is on the idle list more than once, or not at all");
        assert_eq!(self.idle.counts().spinning(), 0);
        assert_eq!(self.stuck.load(Relaxed), 0);
        assert_eq!(self.idle.lists.lock().procs.len() as u32, idle);
        let spare = self.spare.lock();
        assert!(spare.len() == 1 && !self.is_current(spare[0]));
    }
}

impl Host for Table {
    fn start_machine(&'static self, _slot: u32, spinning: bool, _woken_by: Option<u32>) {
        thread::spawn(move || {
            let mut worker = Worker::new(self, self.processor());
            worker.spinning = spinning;
            worker.run();
        });
    }

    fn break_poller(&self) {}

    fn wake_sysmon(&self) {}

    fn set_alarm(&self) -> bool {
        unreachable!("`sysmon` does not wait here")
    }

    fn stop_alarm(&self) {}

    fn bury(&'static self, _slot: u32) {
        unreachable!("the number of processors stays; see `resize`");
    }

    fn dismiss(&'static self, _slot: u32) -> bool {
        unreachable!("as above");
    }
}

/// Mirrors `sched::find::Worker`.
struct Worker {
    table: &'static Table,
    machine: &'static Machine,
    p: Option<&'static Processor>,
    spinning: bool,
}

impl Worker {
    fn new(table: &'static Table, p: &'static Processor) -> Self {
        Worker { table, machine: machine(), p: Some(p), spinning: false }
    }

    fn run(&mut self) {
        while self.find(true) {
            if self.spinning {
                self.stop_spinning();
            }
            if let Some(p) = self.p {
                p.bump_polls();
            }
            self.table.count();
            if let Some(p) = self.p {
                p.bump_polls();
            }
        }
    }

    fn stop_spinning(&mut self) {
        self.spinning = false;
        if self.table.idle.stop_spinning() && self.table.idle.should_wake() {
            idle_fence();
            // Mirrors `Sched::is_work_for_another`, for a table of one slot.
            let current = self.table.processor();
            let is_own = self.p.is_some_and(|own| std::ptr::eq(own, current));
            let lone = !is_own && current.queue.next.peek() != 0;
            if !self.table.inject.is_empty() || current.queue.len_seen() > 0 || lone {
                self.table.idle.wake_one(self.table, None);
            }
        }
    }

    /// Mirrors `find`: tells whether it took a unit. Without `park`, it comes back when the machine is about to sleep,
    /// or would sleep.
    fn find(&mut self, park: bool) -> bool {
        let table = self.table;
        loop {
            let Some(p) = self.p else {
                if !self.rest(park) {
                    return false;
                }
                continue;
            };
            p.owned();
            if p.queue.next.is_condemned() {
                self.p = None;
                table.return_husk(p);
                continue;
            }
            if table.idle.is_wanted() {
                match table.idle.serve_want(self.machine, SLOT, || table.is_current(p)) {
                    Served::Nobody => {}
                    Served::Husk => {
                        self.p = None;
                        table.return_husk(p);
                        continue;
                    }
                    Served::Gone => {
                        self.p = None;
                        if !self.sleep(park) {
                            return false;
                        }
                        continue;
                    }
                }
            }
            if p.queue.next.take().is_some() {
                return true;
            }
            if p.pop().is_some() {
                submit_fence_after_rmw();
                table.after_push(p);
                return true;
            }
            if table.inject.pop().is_some() {
                return true;
            }
            if !self.go_idle(p, park) {
                return false;
            }
        }
    }

    /// Mirrors `go_idle`.
    fn go_idle(&mut self, p: &'static Processor, park: bool) -> bool {
        let table = self.table;
        self.p = None;
        let is_current = || table.is_current(p);
        match table.idle.retire(self.machine, SLOT, &mut self.spinning, is_current, || !table.inject.is_empty()) {
            Retired::Asleep { .. } => {}
            Retired::Stay => {
                self.p = Some(p);
                return true;
            }
            Retired::Husk => {
                table.return_husk(p);
                return true;
            }
            Retired::Closed => {
                // Mirrors `abandon`.
                self.spinning = false;
                return false;
            }
        }
        if !table.inject.is_empty() && table.idle.unretire(self.machine, table).is_some() {
            self.spinning = true;
            self.p = Some(table.processor());
            return true;
        }
        self.sleep(park)
    }

    /// Mirrors `rest`.
    fn rest(&mut self, park: bool) -> bool {
        if self.spinning {
            self.stop_spinning();
        }
        match self.table.idle.rest(self.machine, self.table) {
            Rested::Closed => false,
            Rested::Took(_) => {
                self.p = Some(self.table.processor());
                true
            }
            Rested::Asleep => self.sleep(park),
        }
    }

    fn sleep(&mut self, park: bool) -> bool {
        if !park {
            return false;
        }
        match self.machine.park() {
            Grant::Closed => false,
            Grant::Processor { spinning, .. } => {
                self.spinning = spinning;
                self.p = Some(self.table.processor());
                true
            }
        }
    }
}

/// A machine in a poll, and the count of polls that `sysmon` has seen.
fn polling(table: &'static Table) -> (&'static Processor, u32) {
    let p = table.acquire().expect("an idle processor");
    (p, p.polls.load(Relaxed))
}

/// The poll ends, the machine goes idle and is granted the processor again, while `sysmon` rescues. The processor must
/// not be idle twice, nor be taken from the machine that has just been granted it.
#[test]
fn r03_rescue_against_the_end_of_the_poll_and_going_idle() {
    bounded(3, || {
        let table = Table::new(usize::MAX);
        let (p, polls) = polling(table);
        let sysmon = thread::spawn(move || table.rescue(p, polls));
        let mut worker = Worker::new(table, p);
        p.bump_polls();
        assert!(!worker.find(false), "there is no work");
        // A submitter finds the machine asleep.
        if table.idle.wake_one(table, None) {
            assert!(worker.sleep(true));
            worker.stop_spinning();
            assert!(!worker.find(false), "there is no work");
        }
        sysmon.join().unwrap();
        table.check(1);
    });
}

/// The poll waits for the tasks that it wakes: they run, whether it wakes them before the rescue or after.
#[test]
fn r03_what_a_stuck_poll_wakes_while_it_is_rescued_runs() {
    bounded(2, || {
        let table = Table::new(2);
        let (p, polls) = polling(table);
        let sysmon = thread::spawn(move || assert!(table.rescue(p, polls)));
        let mut worker = Worker::new(table, p);
        table.ready_local(p, unit());
        table.ready_local(p, unit());
        table.all_ran.park();
        p.bump_polls();
        worker.run();
        sysmon.join().unwrap();
    });
}

/// Two machines want a processor; the poll ends, or `sysmon` takes the processor away from it for one of them, and the
/// husk must not go to the other.
#[test]
fn r03_rescue_against_want() {
    bounded(2, || {
        let table = Table::new(usize::MAX);
        let (p, polls) = polling(table);
        let wanting = [(); 2].map(|()| {
            thread::spawn(move || {
                let p = table.acquire().expect("the runtime is open");
                table.give_up(p);
            })
        });
        let sysmon = thread::spawn(move || table.rescue(p, polls));
        let mut worker = Worker::new(table, p);
        p.bump_polls();
        assert!(!worker.find(false), "there is no work");
        for thread in wanting {
            thread.join().unwrap();
        }
        sysmon.join().unwrap();
        table.check(1);
    });
}

/// The poll gives its processor up to wait, while `sysmon` rescues.
#[test]
fn r03_rescue_against_giving_up() {
    bounded(3, || {
        let table = Table::new(usize::MAX);
        let (p, polls) = polling(table);
        let sysmon = thread::spawn(move || table.rescue(p, polls));
        table.give_up(p);
        let again = table.acquire().expect("the runtime is open");
        table.give_up(again);
        sysmon.join().unwrap();
        table.check(1);
    });
}

/// A task yields at the end of its slice, on a thread that looks at no queue next, while `sysmon` rescues from it.
#[test]
fn r03_rescue_against_a_yield_on_a_thread_that_does_not_search() {
    bounded(3, || {
        let table = Table::new(1);
        let (p, polls) = polling(table);
        let sysmon = thread::spawn(move || table.rescue(p, polls));
        // Mirrors `ready_yielded`.
        table.inject.push(unit());
        table.give_up(p);
        table.all_ran.park();
        sysmon.join().unwrap();
    });
}

/// A blocking call ends while `sysmon` takes the processor, on which a task waits: the machine has its own back or
/// another one, and the queue has one owner at a time.
#[test]
fn r03_enter_and_exit_against_retake() {
    bounded(2, || {
        let table = Table::new(2);
        let (p, _) = polling(table);
        table.ready_local(p, unit());
        let mut status = p.enter_blocking();
        let sysmon = thread::spawn(move || table.retake(p, status));
        // Twice, so that what `sysmon` saw may be of the call before.
        if p.leave_blocking(status) {
            status = p.enter_blocking();
            table.ready_foreign(unit());
            assert!(p.leave_blocking(status), "the second call was taken for the first");
            p.bump_polls();
            Worker::new(table, p).run();
        } else {
            table.ready_foreign(unit());
            if let Some(p) = table.acquire() {
                p.bump_polls();
                Worker::new(table, p).run();
            }
        }
        sysmon.join().unwrap();
    });
}

/// Rescue beside a blocking call that begins: one of the two takes the processor, or neither.
#[test]
fn r03_rescue_against_a_blocking_call() {
    bounded(3, || {
        let table = Table::new(usize::MAX);
        let (p, polls) = polling(table);
        let sysmon = thread::spawn(move || {
            let rescued = table.rescue(p, polls);
            let status = p.status.load(Relaxed);
            let retaken = status % 2 == 1 && table.retake(p, status);
            assert!(!rescued || !retaken, "a husk was taken once more");
        });
        let status = p.enter_blocking();
        let p = if p.leave_blocking(status) { Some(p) } else { table.acquire() };
        table.give_up(p.expect("the runtime is open"));
        sysmon.join().unwrap();
        table.check(1);
    });
}

/// A blocking call in a poll that was rescued takes the idle processor when it ends; one that a rescue only catches up
/// with does not, and gives the husk back at the end of its poll.
#[test]
fn r03_a_husk_is_traded_for_an_idle_processor() {
    bounded(3, || {
        let table = Table::new(usize::MAX);
        let (p, polls) = polling(table);
        let sysmon = thread::spawn(move || table.rescue(p, polls));
        // Mirrors `InPlace`, which `sysmon` does not retake here.
        let status = p.enter_blocking();
        assert!(p.leave_blocking(status));
        let mut p = p;
        if p.queue.next.is_condemned() {
            // Mirrors `Sched::trade_husk`.
            if table.idle.take(table).is_some() {
                p.bump_polls();
                table.return_husk(p);
                p = table.processor();
                p.bump_polls();
            }
        }
        let mut worker = Worker::new(table, p);
        p.bump_polls();
        assert!(!worker.find(false), "there is no work");
        sysmon.join().unwrap();
        table.check(1);
    });
}

/// A machine gives its processor away before a poll that waits for the tasks that it wakes, while a rescue that was
/// meant for the poll before catches up, and another thread submits: they run, and the processor is given away once.
#[test]
fn r03_a_processor_that_is_given_away_ahead_of_a_poll() {
    bounded(2, || {
        let table = Table::new(3);
        let (p, polls) = polling(table);
        table.ready_local(p, unit());
        let sysmon = thread::spawn(move || table.rescue(p, polls));
        let submitter = thread::spawn(move || table.ready_foreign(unit()));
        p.bump_polls();
        let ahead = !p.queue.next.is_condemned() && table.give_away_ahead(p);
        // Its own poll, which may be one that was found to be stuck after all.
        p.bump_polls();
        table.ready_local(p, unit());
        if ahead {
            table.all_ran.park();
        }
        p.bump_polls();
        Worker::new(table, p).run();
        let rescued = sysmon.join().unwrap();
        assert!(!ahead || !rescued, "a processor was given away twice");
        submitter.join().unwrap();
    });
}
