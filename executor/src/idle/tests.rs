//! The lists of idle processors and machines, step by step on one thread.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use super::{HandedOff, Host, Idle, Left, Quit, Rested, Retired, Served};
use crate::machine::{Grant, Machine};

#[derive(Default)]
struct Counting {
    started: AtomicUsize,
    breaks: AtomicUsize,
    sysmon_wakes: AtomicUsize,
    alarms_set: AtomicUsize,
    alarms_stopped: AtomicUsize,
    /// Slots in the order in which they were buried, and those that were asked to quit.
    buried: Mutex<Vec<u32>>,
    asked: Mutex<Vec<u32>>,
    /// The machine of this processor is in a blocking call.
    blocking: AtomicU32,
}

impl Host for Counting {
    fn start_machine(&'static self, _slot: u32, _spinning: bool, _woken_by: Option<u32>) {
        self.started.fetch_add(1, Relaxed);
    }

    fn break_poller(&self) {
        self.breaks.fetch_add(1, Relaxed);
    }

    fn wake_sysmon(&self) {
        self.sysmon_wakes.fetch_add(1, Relaxed);
    }

    /// The first one comes soon after a load, the others after long idleness.
    fn set_alarm(&self) -> bool {
        self.alarms_set.fetch_add(1, Relaxed) > 0
    }

    fn stop_alarm(&self) {
        self.alarms_stopped.fetch_add(1, Relaxed);
    }

    fn bury(&'static self, slot: u32) {
        self.buried.lock().unwrap().push(slot);
    }

    fn dismiss(&'static self, slot: u32) -> bool {
        self.asked.lock().unwrap().push(slot);
        slot == self.blocking.load(Relaxed)
    }
}

impl Counting {
    fn buried(&self) -> Vec<u32> {
        std::mem::take(&mut self.buried.lock().unwrap())
    }

    fn asked(&self) -> Vec<u32> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn idle(procs: u32) -> (&'static Idle, &'static Counting) {
    let idle: &Idle = Box::leak(Box::new(Idle::new()));
    idle.open(procs);
    (idle, Box::leak(Box::default()))
}

fn machine() -> &'static Machine {
    Box::leak(Box::new(Machine::new()))
}

/// `machine` goes idle with `slot`; tells whether it is the poller.
fn retire(idle: &Idle, machine: &'static Machine, slot: u32) -> bool {
    match idle.retire(machine, slot, &mut false, || true, || false) {
        Retired::Asleep { poller } => poller,
        other => panic!("{other:?}"),
    }
}

#[test]
fn r06_one_wake_starts_one_spinner_and_no_second_one() {
    let (idle, host) = idle(4);
    assert!(idle.should_wake());
    assert!(idle.wake_one(host, None));
    assert_eq!(host.started.load(Relaxed), 1);
    assert_eq!((idle.counts().idle(), idle.counts().spinning()), (3, 1));
    assert!(!idle.should_wake());
    assert!(!idle.wake_one(host, None));
    assert!(idle.stop_spinning(), "it was the last spinner");
    assert!(idle.should_wake());
}

#[test]
fn r06_the_machine_parked_last_is_woken_first_and_the_poller_last() {
    let (idle, host) = idle(3);
    let slots: Vec<_> = (0..3).map(|_| idle.take(host).unwrap()).collect();
    let machines = [machine(), machine(), machine()];
    assert!(retire(idle, machines[0], slots[0]), "the first to go idle sits in the netpoller");
    assert!(!retire(idle, machines[1], slots[1]));
    assert!(!retire(idle, machines[2], slots[2]));
    for expected in [2, 1, 0] {
        assert!(idle.wake_one(host, Some(1)));
        let grant = machines[expected].take_grant();
        assert_eq!(grant, Some(Grant::Processor { slot: slots[expected], spinning: true }), "processors are LIFO too");
        assert_eq!(machines[expected].take_woken_by(), Some(1));
        assert!(idle.stop_spinning());
    }
    assert_eq!((host.breaks.load(Relaxed), host.started.load(Relaxed)), (1, 0), "a break, and no thread for it");
}

#[test]
fn r06_at_most_half_as_many_spin_as_are_busy() {
    let (idle, host) = idle(4);
    (0..4).for_each(|_| assert!(idle.take(host).is_some()));
    assert!(idle.start_spinning() && idle.start_spinning());
    assert!(!idle.start_spinning(), "two spinners for four busy processors");
}

#[test]
fn r01_a_searcher_without_a_processor_asks_the_next_machine_to_search() {
    let (idle, host) = idle(1);
    let slot = idle.take(host).unwrap();
    let (searcher, worker) = (machine(), machine());
    let mut spinning = false;
    idle.put_to_sleep(searcher);
    assert_eq!(idle.unretire(searcher, host), None, "no processor is idle");
    assert!(idle.need_spinning());
    assert_eq!(idle.retire(worker, slot, &mut spinning, || true, || false), Retired::Stay);
    assert!(spinning && !idle.need_spinning());
    assert_eq!(idle.counts().spinning(), 1);
}

#[test]
fn r01_a_waker_whose_processor_was_taken_asks_the_next_machine_to_search() {
    let (idle, host) = idle(1);
    let (slot, waker) = {
        let mut lists = idle.lists.lock();
        let waker = std::thread::spawn(move || idle.wake_one(host, None));
        // It has seen the idle processor, and waits for the lock.
        while idle.counts().spinning() == 0 {
            std::thread::yield_now();
        }
        (idle.pop_proc(&mut lists, host).unwrap(), waker)
    };
    assert!(!waker.join().unwrap(), "no processor was left");
    assert_eq!(idle.counts().spinning(), 0);
    let mut spinning = false;
    assert_eq!(idle.retire(machine(), slot, &mut spinning, || true, || false), Retired::Stay);
    assert!(spinning && !idle.need_spinning());
}

#[test]
fn r01_work_in_the_global_queue_keeps_a_machine() {
    let (idle, host) = idle(1);
    let slot = idle.take(host).unwrap();
    assert_eq!(idle.retire(machine(), slot, &mut false, || true, || true), Retired::Stay);
    assert_eq!(idle.counts().idle(), 0);
}

#[test]
fn r01_a_freed_processor_goes_to_the_machine_that_wants_one() {
    let (idle, host) = idle(1);
    let slot = idle.take(host).unwrap();
    let wanting = machine();
    let waiter = std::thread::spawn(move || idle.acquire(wanting, None, host));
    while !idle.is_wanted() {
        std::thread::yield_now();
    }
    assert_eq!(idle.hand_off(slot, || true, false, host), HandedOff::ToMachine);
    assert_eq!(waiter.join().unwrap(), Some(slot));
    assert!(!idle.is_wanted());
    assert_eq!(idle.counts().idle(), 0, "it was never idle");
}

#[test]
fn r05_sysmon_sleeps_only_if_all_are_idle_and_the_first_taken_wakes_it() {
    let (idle, host) = idle(2);
    let slot = idle.take(host).unwrap();
    assert!(!idle.sysmon_sleeps());
    retire(idle, machine(), slot);
    assert!(idle.sysmon_sleeps());
    assert_eq!(host.sysmon_wakes.load(Relaxed), 0);
    idle.take(host).unwrap();
    idle.take(host).unwrap();
    assert_eq!(host.sysmon_wakes.load(Relaxed), 1);
}

#[test]
fn r05_an_alarm_is_set_with_the_first_taken_and_stopped_when_all_are_idle() {
    let (idle, host) = idle(2);
    let alarms = || (host.alarms_set.load(Relaxed), host.alarms_stopped.load(Relaxed));
    let slots = [idle.take(host).unwrap(), idle.take(host).unwrap()];
    assert!(!idle.sysmon_waits());
    slots.into_iter().for_each(|slot| {
        retire(idle, machine(), slot);
    });
    assert!(idle.sysmon_waits());
    let slot = idle.take(host).unwrap();
    assert_eq!(alarms(), (1, 0));
    retire(idle, machine(), slot);
    idle.stop_alarm(host);
    assert_eq!(alarms(), (1, 0), "others come soon: it may go off");
    assert!(idle.sysmon_woke(false), "it was set");
    assert!(idle.sysmon_waits());
    let slots = [idle.take(host).unwrap(), idle.take(host).unwrap()];
    assert_eq!(alarms(), (2, 0));
    retire(idle, machine(), slots[0]);
    idle.stop_alarm(host);
    assert_eq!(alarms(), (2, 0), "one is taken");
    retire(idle, machine(), slots[1]);
    idle.stop_alarm(host);
    idle.stop_alarm(host);
    assert_eq!(alarms(), (2, 1));
    assert!(!idle.sysmon_woke(false), "it went off when it was being stopped");
    assert!(idle.sysmon_woke(true), "somebody rang");
    assert_eq!(host.sysmon_wakes.load(Relaxed), 0);
    assert!(idle.sysmon_waits());
    idle.close(host);
    assert_eq!(host.sysmon_wakes.load(Relaxed), 1, "the runtime closes");
}

#[test]
fn r11_who_was_refused_a_thread_is_looked_after() {
    let (idle, host) = idle(1);
    assert!(idle.sysmon_waits());
    let _ = host.set_alarm();
    let slot = idle.take(host).unwrap();
    idle.give_back(slot, false, host);
    idle.stop_alarm(host);
    assert_eq!(host.alarms_stopped.load(Relaxed), 0);
    assert!(idle.sysmon_woke(false), "the alarm goes off");
    assert!(!idle.sysmon_waits() && !idle.sysmon_sleeps(), "it has not looked");
    idle.sysmon_looks();
    assert!(idle.sysmon_waits());
}

#[test]
fn r01_a_machine_back_from_the_netpoller_takes_a_processor_or_parks() {
    let (idle, host) = idle(1);
    let slot = idle.take(host).unwrap();
    let poller = machine();
    assert!(retire(idle, poller, slot));
    assert_eq!(idle.leave_netpoller(poller, host), Left::Took(slot));
    assert!(retire(idle, poller, slot));
    idle.take(host).unwrap();
    assert_eq!(idle.leave_netpoller(poller, host), Left::Nothing);
    assert_eq!(idle.idle_machines(), 0, "it wakes what it brings first");
    assert_eq!(idle.rest(poller, host), Rested::Asleep);
    assert_eq!(idle.idle_machines(), 1);
    assert!(!idle.has_poller());
}

#[test]
fn r14_closing_releases_everybody_without_a_processor() {
    let (idle, host) = idle(2);
    let (a, b) = (idle.take(host).unwrap(), idle.take(host).unwrap());
    let (poller, parked, wanting) = (machine(), machine(), machine());
    retire(idle, poller, a);
    retire(idle, parked, b);
    idle.take(host).unwrap();
    let last = idle.take(host).unwrap();
    let waiter = std::thread::spawn(move || idle.acquire(wanting, None, host));
    while !idle.is_wanted() {
        std::thread::yield_now();
    }
    idle.close(host);
    assert_eq!(waiter.join().unwrap(), None);
    assert_eq!(poller.take_grant(), Some(Grant::Closed));
    assert_eq!(parked.take_grant(), Some(Grant::Closed));
    assert_eq!(idle.retire(machine(), last, &mut false, || true, || false), Retired::Closed);
    assert_eq!(idle.take(host), None);
    assert!(!idle.wake_one(host, None));
}

#[test]
fn r03_idle_processors_that_are_too_many_die_at_once_and_come_back() {
    let (idle, host) = idle(4);
    assert_eq!(idle.resize(1, host), Some(4));
    assert_eq!((idle.procs(), idle.slots(), idle.counts().idle()), (1, 4, 1));
    assert_eq!((host.buried(), host.asked()), (vec![3, 2, 1], vec![]));
    assert!(idle.sysmon_sleeps(), "all that live are idle");
    assert_eq!(idle.resize(3, host), Some(1));
    let mut slots: Vec<_> = std::iter::from_fn(|| idle.take(host)).collect();
    slots.sort_unstable();
    assert_eq!(slots, [0, 1, 2]);
    assert_eq!(host.sysmon_wakes.load(Relaxed), 1);
    assert_eq!(host.buried(), []);
}

#[test]
fn r03_a_running_processor_dies_by_whichever_path_it_is_given_up() {
    type Path = fn(&'static Idle, &'static Counting, u32) -> bool;
    let paths: [Path; 5] = [
        |idle, host, slot| idle.quit(slot, || true, host) == Quit::Dead,
        |idle, host, slot| idle.hand_off(slot, || true, true, host) == HandedOff::Idle,
        |idle, host, slot| idle.take_away(slot, host, || Some(true)) == Some(HandedOff::Idle),
        |idle, host, slot| {
            idle.give_back(slot, false, host);
            true
        },
        // A machine that goes idle looks once more, and quits.
        |idle, host, slot| {
            idle.retire(machine(), slot, &mut false, || true, || false) == Retired::Stay
                && idle.serve_want(machine(), slot, || true) == Served::Nobody
                && idle.quit(slot, || true, host) == Quit::Dead
        },
    ];
    for path in paths {
        let (idle, host) = idle(2);
        let slots = [idle.take(host).unwrap(), idle.take(host).unwrap()];
        assert_eq!(idle.resize(1, host), Some(2));
        assert_eq!((host.buried(), host.asked()), (vec![], vec![1]));
        assert_eq!(slots, [0, 1]);
        assert!(!idle.sysmon_sleeps(), "it runs");
        assert!(path(idle, host, 1));
        assert_eq!((host.buried(), idle.counts().idle()), (vec![1], 0));
        assert_eq!(idle.take_away(1, host, || unreachable!("a dead processor has no machine")), None);
        // It comes back as an idle one, once.
        assert_eq!(idle.resize(2, host), Some(1));
        assert_eq!((idle.take(host), idle.take(host)), (Some(1), None));
    }
}

#[test]
fn r03_a_processor_that_was_to_die_lives_on_if_there_are_more_again() {
    let (idle, host) = idle(2);
    while idle.take(host).is_some() {}
    idle.resize(1, host).unwrap();
    idle.resize(2, host).unwrap();
    assert_eq!(idle.counts().idle(), 0, "its machine still has it");
    assert_eq!(idle.quit(1, || true, host), Quit::Lives);
    assert_eq!(idle.quit(1, || false, host), Quit::Husk);
    assert!(retire(idle, machine(), 1));
    assert_eq!((host.buried(), idle.counts().idle()), (vec![], 1));
}

#[test]
fn r03_a_processor_in_a_blocking_call_dies_at_once() {
    let (idle, host) = idle(3);
    host.blocking.store(2, Relaxed);
    while idle.take(host).is_some() {}
    idle.resize(1, host).unwrap();
    assert_eq!((host.asked(), host.buried()), (vec![1, 2], vec![2]));
}

#[test]
fn r03_new_processors_go_to_the_machines_that_want_one() {
    let (idle, host) = idle(1);
    idle.take(host).unwrap();
    let waiter = std::thread::spawn(move || idle.acquire(machine(), None, host));
    while !idle.is_wanted() {
        std::thread::yield_now();
    }
    idle.add_slots(3);
    assert_eq!(idle.resize(3, host), Some(1));
    assert_eq!(waiter.join().unwrap(), Some(2));
    assert_eq!(idle.counts().idle(), 1);
}

#[test]
fn r14_a_runtime_that_closes_buries_nobody() {
    let (idle, host) = idle(2);
    while idle.take(host).is_some() {}
    idle.resize(1, host).unwrap();
    idle.close(host);
    assert_eq!(idle.quit(1, || true, host), Quit::Lives, "its machine learns of the end otherwise");
    assert_eq!(idle.retire(machine(), 1, &mut false, || true, || false), Retired::Closed);
    assert_eq!(idle.resize(2, host), None);
    assert_eq!(host.buried(), []);
}

#[test]
fn r01_a_processor_taken_with_work_goes_to_a_machine_although_somebody_spins() {
    let (idle, host) = idle(3);
    let slots: Vec<_> = (0..3).map(|_| idle.take(host).unwrap()).collect();
    let (sleeper, spinner) = (machine(), machine());
    idle.put_to_sleep(sleeper);
    assert!(idle.start_spinning());
    // A lone task in the run-next slot of a processor whose machine is in a blocking call: a spinner that has passed by
    // does not come back for it.
    assert_eq!(idle.take_away(slots[0], host, || Some(true)), Some(HandedOff::ToMachine));
    assert_eq!(sleeper.take_grant(), Some(Grant::Processor { slot: slots[0], spinning: false }));
    // Nobody sleeps: one is started.
    assert_eq!(idle.take_away(slots[1], host, || Some(true)), Some(HandedOff::ToMachine));
    assert_eq!(host.started.load(Relaxed), 1);
    // Without work it is idle, and what is idle is not taken.
    assert_eq!(idle.take_away(slots[2], host, || Some(false)), Some(HandedOff::Idle));
    assert_eq!(idle.take_away(slots[2], host, || panic!("it is idle")), None);
    assert_eq!(idle.counts().idle(), 1);
    assert!(!spinner.is_granted());
}

/// A machine that wants a processor; gives it when it is on the list.
fn wanting(idle: &'static Idle, host: &'static Counting) -> (&'static Machine, std::thread::JoinHandle<Option<u32>>) {
    let machine = machine();
    let before = idle.wanting.load(Relaxed);
    let thread = std::thread::spawn(move || idle.acquire(machine, None, host));
    while idle.wanting.load(Relaxed) == before {
        std::thread::yield_now();
    }
    (machine, thread)
}

#[test]
fn r03_each_machine_that_wants_a_processor_is_released_after_its_own_time() {
    let (idle, host) = idle(1);
    let slot = idle.take(host).unwrap();
    let counted = AtomicUsize::new(0);
    let release = |now| {
        idle.release_want(now, 10, || {
            counted.fetch_add(1, Relaxed);
        })
    };
    let (first, first_thread) = wanting(idle, host);
    assert_eq!(release(100), 0, "seen for the first time");
    let (second, second_thread) = wanting(idle, host);
    assert_eq!(release(109), 0);
    assert_eq!(release(110), 1);
    assert_eq!(first_thread.join().unwrap(), None);
    assert!(first.take_released() && !first.take_released(), "told once");
    assert_eq!(release(118), 0, "its own time");
    // Meanwhile processors are made free again.
    idle.keep_want();
    assert_eq!(release(119), 0);
    assert_eq!(release(128), 0);
    assert_eq!((release(129), counted.load(Relaxed)), (1, 2));
    assert_eq!(second_thread.join().unwrap(), None);
    assert!(second.take_released());
    assert!(!idle.is_wanted());
    // One that gets its processor, or is told that the runtime closes, was not released.
    let (third, third_thread) = wanting(idle, host);
    assert_eq!(release(200), 0);
    assert_eq!(idle.hand_off(slot, || true, false, host), HandedOff::ToMachine);
    assert_eq!(third_thread.join().unwrap(), Some(slot));
    let (fourth, fourth_thread) = wanting(idle, host);
    idle.close(host);
    assert_eq!(fourth_thread.join().unwrap(), None);
    assert!(!third.take_released() && !fourth.take_released());
}

#[test]
fn r04_those_who_want_a_processor_and_the_queues_take_turns() {
    let (idle, host) = idle(1);
    let slot = idle.take(host).unwrap();
    let waiting: Vec<_> = (0..3).map(|_| wanting(idle, host)).collect();
    let mut order = Vec::new();
    for _ in 0..5 {
        let started = host.started.load(Relaxed);
        assert_eq!(idle.hand_off(slot, || true, true, host), HandedOff::ToMachine);
        order.push(host.started.load(Relaxed) > started);
    }
    assert_eq!(order, [false, true, false, true, false], "whether a machine was started that runs tasks");
    for (_, thread) in waiting {
        assert_eq!(thread.join().unwrap(), Some(slot));
    }
}

#[test]
fn r03_a_machine_back_from_a_blocking_call_takes_its_old_processor_if_that_is_idle() {
    let (idle, host) = idle(4);
    assert_eq!(idle.acquire(machine(), Some(2), host), Some(2));
    // It is in use: any other one.
    let other = idle.acquire(machine(), Some(2), host).unwrap();
    assert!(other != 2 && other < 4);
    assert_eq!(idle.counts().idle(), 2);
}
