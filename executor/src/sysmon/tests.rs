//! What the watcher does with its alarm, and what it sees of polls.

use std::pin::pin;
use std::sync::mpsc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::{LOOK, LOOK_AFTER_ACT, LOOK_STILL, LOOKS_STILL, Looked, RARE_NS, Seen, Sysmon, UNSEEN_NS};
use crate::clock;
use crate::processor::Processor;
use crate::sched::{Config, Sched};
use crate::sys::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sys::spin_loop;
use crate::timers::{Entry, Look};

/// Ticks of a task may stop the alarm each time, and it may run like that for days.
#[test]
fn r05_an_alarm_goes_off_where_nobody_has_looked_for_long() {
    const NOW: u64 = 100 * UNSEEN_NS;
    let stops = |idle_ns, unseen_ns| {
        let sysmon = Sysmon::new();
        sysmon.idle_since.store(NOW - idle_ns, Relaxed);
        sysmon.looked_at.store(NOW - unseen_ns, Relaxed);
        sysmon.may_stop_alarm(NOW)
    };
    assert!(stops(RARE_NS, RARE_NS) && stops(RARE_NS, UNSEEN_NS - 1));
    assert!(!stops(RARE_NS - 1, RARE_NS), "one wake for what may be many tasks");
    assert!(!stops(RARE_NS, UNSEEN_NS) && !stops(UNSEEN_NS, NOW));
}

/// A runtime of one processor without threads, and what a look at it brings.
fn watched() -> (&'static Sched, &'static Processor) {
    let sched: &'static Sched = Box::leak(Box::new(Sched::new()));
    let _runtime = sched.open(Config { procs: 1, max_stuck: Some(1), ..Config::default() }, None);
    assert!(sched.idle.take(sched).is_some());
    (sched, sched.slot(0).processor())
}

fn look(sched: &'static Sched, seen: &mut [Seen]) -> Looked {
    sched.look_around(seen, &mut Vec::new(), &mut super::Warned::new())
}

/// What a first look says of a timer that is due before the next one, behind a poll.
fn due_behind(sched: &'static Sched) -> Option<u64> {
    let ahead = LOOK.as_nanos() as u64 / 2;
    let entry = pin!(Entry::new(false));
    let timers = &sched.slot(0).timers;
    assert!(!matches!(entry.poll(|| timers, sched.clock.now() + ahead, Waker::noop()), Look::Fired));
    let due_in = look(sched, &mut [Seen::default()]).due_in;
    assert!(due_in.is_none_or(|ns| ns <= ahead));
    due_in
}

#[test]
fn r03_the_watcher_comes_when_a_timer_is_due_behind_a_blocked_poll() {
    let (sched, p) = watched();
    let (begun, begins) = mpsc::channel();
    let (end, ends) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            p.taken(clock::now());
            p.begin_poll();
            begun.send(()).unwrap();
            let _ = ends.recv();
            p.end_poll();
        });
        begins.recv().unwrap();
        // The thread is about to block, and on a slow machine the timer may be due before the look.
        let give_up = Instant::now() + Duration::from_secs(60);
        let sees =
            std::iter::repeat_with(|| due_behind(sched).is_some()).find(|sees| *sees || Instant::now() > give_up);
        drop(end);
        assert_eq!(sees, Some(true), "a timer was not seen behind a blocked thread");
    });
    assert_eq!(due_behind(sched), None, "the poll is over");
}

#[test]
fn r03_the_watcher_does_not_come_sooner_for_a_thread_that_computes() {
    let (sched, p) = watched();
    let (begun, begins) = mpsc::channel();
    static STOP: AtomicBool = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            p.taken(clock::now());
            p.begin_poll();
            begun.send(()).unwrap();
            // Acquire: pairs with the Release below.
            while !STOP.load(Acquire) {
                spin_loop();
            }
        });
        begins.recv().unwrap();
        let comes = (0..100).any(|_| due_behind(sched).is_some());
        // Release: pairs with the Acquire above.
        STOP.store(true, Release);
        assert!(!comes);
    });
}

#[test]
fn r03_a_poll_that_began_before_the_watcher_is_seen_twice_at_its_first_look() {
    for begins_before in [true, false] {
        let (sched, p) = watched();
        p.taken(clock::now());
        if begins_before {
            p.begin_poll();
        }
        let mut seen = sched.first_sight();
        if !begins_before {
            p.begin_poll();
        }
        look(sched, &mut seen);
        assert_eq!(p.is_slow(), begins_before);
    }
}

/// One of them that blocks after all keeps what is behind it waiting for two looks.
#[test]
fn r03_the_watcher_comes_sooner_while_brief_closures_run() {
    let (sched, p) = watched();
    p.taken(clock::now());
    let mut seen = sched.first_sight();
    let mut next_in = || look(sched, &mut seen).next_in(false, 0);
    assert_eq!(next_in(), LOOK, "none has run");
    for _ in 0..2 {
        p.counters().brief_closures.add(1);
        assert_eq!(next_in(), LOOK_AFTER_ACT);
        assert_eq!(next_in(), LOOK, "none has run since");
        // The look that sees another time slice begin forgets what it knew of the one before.
        p.begin_slice();
        assert_eq!(next_in(), LOOK, "none has run since");
        p.counters().brief_closures.add(1);
        p.begin_slice();
        assert_eq!(next_in(), LOOK_AFTER_ACT);
        p.begin_slice();
        assert_eq!(next_in(), LOOK, "none has run since");
    }
}

#[test]
fn r03_the_watcher_comes_soonest_while_work_waits_behind_a_blocked_thread() {
    for brief_closures in [false, true] {
        let looked = Looked { brief_closures, ..Looked::default() };
        for lately in [false, true] {
            let beside = if lately || brief_closures { LOOK_AFTER_ACT } else { LOOK };
            assert_eq!([1, LOOKS_STILL].map(|looks| looked.next_in(lately, looks)), [LOOK_STILL; 2]);
            assert_eq!([0, LOOKS_STILL + 1].map(|looks| looked.next_in(lately, looks)), [beside; 2]);
        }
    }
    let due = Looked { due_in: Some(7), ..Looked::default() };
    assert_eq!(due.next_in(true, 1), Duration::from_nanos(7));
}
