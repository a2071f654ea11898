//! The lists of idle processors and machines, step by step on one thread.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{HandedOff, Host, Idle, Left, Retired};
use crate::machine::{Grant, Machine};

#[derive(Default)]
struct Counting {
    started: AtomicUsize,
    breaks: AtomicUsize,
    sysmon_wakes: AtomicUsize,
}

impl Host for Counting {
    fn start_machine(&'static self, _slot: u32, _spinning: bool, _woken_by_spawn_of: Option<u32>) {
        self.started.fetch_add(1, Relaxed);
    }

    fn break_poller(&self) {
        self.breaks.fetch_add(1, Relaxed);
    }

    fn wake_sysmon(&self) {
        self.sysmon_wakes.fetch_add(1, Relaxed);
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
    let waiter = std::thread::spawn(move || idle.acquire(wanting, host));
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
fn r01_a_machine_back_from_the_netpoller_takes_a_processor_or_parks() {
    let (idle, host) = idle(1);
    let slot = idle.take(host).unwrap();
    let poller = machine();
    assert!(retire(idle, poller, slot));
    assert_eq!(idle.leave_netpoller(poller, host), Left::Took(slot));
    assert!(retire(idle, poller, slot));
    idle.take(host).unwrap();
    assert_eq!(idle.leave_netpoller(poller, host), Left::Nothing);
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
    let waiter = std::thread::spawn(move || idle.acquire(wanting, host));
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
