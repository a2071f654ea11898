//! What thefts are worth.

use super::{Behind, LONE_NS, LONG_POLL_NS, PAYS_NS, PAYS_POLL_NS, Theft, Worker};
use crate::processor::Processor;
use crate::runq::Replaced;
use crate::runq::tests::{number, unit};
use crate::sched::{Config, Sched};

/// A searcher without a thread of the runtime's, with a processor, beside another one with tasks.
fn beside(tasks: usize) -> (Worker, &'static Processor, &'static Processor) {
    let sched: &'static Sched = Box::leak(Box::new(Sched::new()));
    let _runtime = sched.open(Config { procs: 2, ..Config::default() }, None);
    while sched.idle.take(sched).is_some() {}
    let [victim, p] = [0, 1].map(|slot| sched.slot(slot).processor());
    for task in 0..tasks {
        // SAFETY: this thread holds the processor.
        unsafe { victim.push(unit(task)) };
    }
    (Worker::new(sched, sched.new_machine()), p, victim)
}

/// Whether a theft of 6 tasks paid that took `ns` and so many polls, of which so many tasks went home to a lock.
fn pays(ns: u64, polls: u32, gone_home: u32) -> bool {
    let (_, p, victim) = beside(0);
    victim.raise_backoff();
    let theft = Theft { victim, p, at: 1_000, tasks: 6, polls: p.polls(), gone_home: p.gone_home() };
    for _ in 0..polls {
        p.begin_poll();
        p.end_poll();
    }
    (0..gone_home).for_each(|_| p.task_goes_home());
    theft.judge(p, 1_000 + ns, None);
    !victim.is_spared()
}

#[test]
fn r06_a_theft_pays_that_keeps_the_thief_busy() {
    assert!(!pays(PAYS_NS - 1, 6, 0));
    assert!(pays(PAYS_NS, 6, 0));
    assert!(pays(PAYS_POLL_NS, 1, 0), "one request may be all that was queued");
    assert!(!pays(PAYS_POLL_NS - 1, 1, 0));
}

#[test]
fn r06_a_theft_does_not_pay_whose_tasks_go_home_again() {
    assert!(pays(PAYS_NS, 6, 2));
    assert!(!pays(PAYS_NS, 6, 3));
}

#[test]
fn r06_the_next_search_judges_a_theft() {
    for queued in [false, true] {
        let (mut worker, p, victim) = beside(0);
        p.begin_poll();
        p.end_poll();
        worker.theft = Some(Theft { victim, p, at: u64::MAX, tasks: 1, polls: 0, gone_home: 0 });
        if queued {
            worker.sched.inject.push(unit(0));
        }
        assert_eq!(worker.find_elsewhere(p).is_some(), queued);
        assert!(worker.theft.is_none() && victim.is_spared());
    }
}

#[test]
fn r01_what_stays_on_a_spared_processor_is_stolen() {
    let (mut worker, p, victim) = beside(4);
    victim.raise_backoff();
    assert_eq!(worker.steal(p).map(number), Some(0));
    assert_eq!((p.queue.len_seen(), victim.queue.len_seen()), (1, 2));
    assert!(worker.theft.is_some());
}

#[test]
fn r06_what_the_owner_of_a_spared_processor_comes_to_is_left_to_it() {
    let (mut worker, p, victim) = beside(2);
    let end = victim.queue.end_seen();
    // SAFETY: this thread holds the processor.
    while unsafe { victim.queue.pop() }.is_some() {}
    // SAFETY: as above.
    unsafe { victim.push(unit(2)) };
    assert!(worker.steal_what_stays(p, victim, end).is_none());
    assert!(victim.is_spared() && worker.theft.is_none());
    assert_eq!(victim.queue.len_seen(), 1);
}

/// Who submits one meanwhile wakes nobody: a spinner is there.
#[test]
fn r01_a_task_from_outside_waits_for_no_patience() {
    let (mut worker, p, victim) = beside(4);
    victim.raise_backoff();
    let (patience, end) = (victim.patience(), victim.queue.end_seen());
    worker.sched.inject.push(unit(4));
    assert!(worker.steal_what_stays(p, victim, end).is_none());
    assert_eq!((victim.queue.len_seen(), victim.patience()), (4, patience), "that says nothing of what is queued");
    assert_eq!(worker.find_elsewhere(p).map(number), Some(4));
}

#[test]
fn r03_what_a_thief_is_to_try_it_steals_without_patience() {
    let (mut worker, p, victim) = beside(4);
    victim.raise_backoff();
    (0..16).for_each(|_| victim.probes(0));
    assert_eq!(worker.steal(p).map(number), Some(0));
    assert!(!victim.take_try() && victim.is_spared(), "the theft is yet to be judged");
}

#[test]
fn r03_a_theft_behind_a_long_poll_pays_however_short() {
    for (last, ends) in [(LONG_POLL_NS, false), (LONG_POLL_NS - 1, false), (LONG_POLL_NS, true)] {
        let (mut worker, p, victim) = beside(0);
        victim.raise_backoff();
        victim.begin_poll();
        worker.behind = Some(Behind { owner: victim, polls: victim.polls(), since: 1_000 });
        if ends {
            victim.end_poll();
            victim.begin_poll();
        }
        let now = 1_000 + last;
        worker.theft = Some(Theft { victim, p, at: now, tasks: 1, polls: p.polls(), gone_home: p.gone_home() });
        p.begin_poll();
        p.end_poll();
        worker.judge_theft(p, now);
        assert_eq!(victim.is_spared(), last < LONG_POLL_NS || ends, "{last} {ends}");
    }
}

#[test]
fn r03_a_poll_that_wakes_a_machine_is_not_long_for_that() {
    let (mut worker, _, victim) = beside(0);
    victim.begin_poll();
    assert!(!worker.is_in_long_poll(victim, 1_000));
    assert!(worker.is_in_long_poll(victim, 1_000 + LONG_POLL_NS));
    victim.set_waking(true);
    assert!(!worker.is_in_long_poll(victim, 1_000 + LONG_POLL_NS));
    victim.set_waking(false);
    assert!(!worker.is_in_long_poll(victim, 2_000 + LONG_POLL_NS));
}

/// Whether the victim of a short theft is spared, if it was before, or was not, and was in one poll for `behind`.
fn is_spared_after(before: bool, behind: Option<u64>, gone_home: u32) -> bool {
    const LASTED: u64 = 500;
    let (_, p, victim) = beside(0);
    if before {
        victim.raise_backoff();
    }
    let theft = Theft { victim, p, at: 1_000, tasks: 6, polls: p.polls(), gone_home: p.gone_home() };
    p.begin_poll();
    p.end_poll();
    (0..gone_home).for_each(|_| p.task_goes_home());
    theft.judge(p, 1_000 + LASTED, behind.map(|before| before + LASTED));
    victim.is_spared()
}

#[test]
fn r03_a_short_theft_says_nothing_while_its_victim_stays_in_one_poll() {
    for before in [false, true] {
        assert_eq!(is_spared_after(before, Some(0), 0), before);
        assert!(is_spared_after(before, Some(0), 3), "tasks that go home are better off there");
        assert!(is_spared_after(before, None, 0), "its owner could have come to them");
        assert!(!is_spared_after(before, Some(LONG_POLL_NS), 0));
    }
    let (_, p, victim) = beside(0);
    let theft = Theft { victim, p, at: 1_000, tasks: 6, polls: p.polls().wrapping_sub(2), gone_home: p.gone_home() };
    theft.judge(p, 1_500, Some(499));
    assert!(victim.is_spared(), "that poll began after the theft");
}

/// A searcher that saw the poll beside it first at `since`.
fn seen_since(since: u64) -> (Worker, &'static Processor, &'static Processor) {
    let (mut worker, p, victim) = beside(0);
    victim.begin_poll();
    worker.behind = Some(Behind { owner: victim, polls: victim.polls(), since });
    (worker, p, victim)
}

#[test]
fn r03_a_lone_task_behind_a_poll_that_was_seen_to_stand_is_taken_at_once() {
    let (worker, _, victim) = seen_since(1_000);
    let stands = |polls, after| worker.has_seen_stand(victim, polls, 1_000 + after);
    assert!(stands(victim.polls(), LONE_NS));
    assert!(!stands(victim.polls(), LONE_NS - 1), "not for long");
    assert!(!stands(victim.polls() + 2, LONE_NS), "another poll");
    victim.set_waking(true);
    assert!(!stands(victim.polls(), LONE_NS), "it wakes a machine");
}

#[test]
fn r03_the_lone_task_behind_a_poll_that_others_were_taken_from_spares_nobody() {
    // A poll that was seen to stand says nothing of its processor; one that was not may have been preempted.
    for seen in [true, false] {
        let (mut worker, p, victim) = seen_since(1_000);
        if !seen {
            worker.behind = None;
        }
        assert!(matches!(victim.queue.next.replace(unit(1)), Replaced::Nothing));
        let next = victim.queue.next.peek();
        assert_eq!(worker.take_lone(p, (victim, victim.polls(), next)).map(number), Some(1));
        worker.judge_lone(victim, 2_000, 2_100);
        assert_eq!(victim.is_spared(), !seen);
    }
}
