//! What thefts are worth.

use super::{PAYS_NS, PAYS_POLL_NS, Theft};
use crate::sched::{Config, Sched};

/// Whether a theft of 6 tasks paid that took `ns` and so many polls, of which so many tasks went home to a lock.
fn pays(ns: u64, polls: u32, gone_home: u32) -> bool {
    let sched: &'static Sched = Box::leak(Box::new(Sched::new()));
    let _runtime = sched.open(Config { procs: 2, ..Config::default() }, None);
    let [victim, p] = [0, 1].map(|slot| sched.slot(slot).processor());
    victim.raise_backoff();
    let theft = Theft { victim, p, at: 1_000, tasks: 6, polls: p.polls(), gone_home: p.gone_home() };
    for _ in 0..polls {
        p.begin_poll();
        p.end_poll();
    }
    (0..gone_home).for_each(|_| p.task_goes_home());
    theft.judge(p, 1_000 + ns);
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
