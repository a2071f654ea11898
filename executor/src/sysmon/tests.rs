//! What a look of the watcher does, at a processor that nobody runs.

use std::collections::HashMap;

use super::{RARE_NS, Seen, Sysmon, UNSEEN_NS};
use crate::clock;
use crate::runq::tests::unit;
use crate::sched::stuck::Known;
use crate::sched::{Config, Sched};
use crate::sys::atomic::Ordering::Relaxed;
use crate::sys::spin_loop;

/// Whether a processor with so many tasks and picks of 0.3 ms is spared after a look.
fn is_spared_with(tasks: usize) -> bool {
    let sched: &'static Sched = Box::leak(Box::new(Sched::new()));
    let _runtime = sched.open(Config { procs: 1, ..Config::default() }, None);
    let p = sched.idle.take(sched).map(|slot| sched.slot(slot).processor()).unwrap();
    p.raise_backoff();
    // Two picks since the last look, whose number says nothing, and no two looks of the watcher that see one poll.
    let at = clock::now();
    p.taken(at);
    p.looked(at, at);
    while clock::now() < at + 1_000_000 {
        spin_loop();
    }
    for _ in 0..2 {
        p.is_look_due();
        p.begin_poll();
        p.end_poll();
    }
    for task in 0..tasks {
        // SAFETY: this thread holds the processor.
        unsafe { p.push(unit(task)) };
    }
    sched.look_around(&mut [Seen::default()], &mut Known::default(), &mut Vec::new(), &mut HashMap::new());
    p.is_spared()
}

#[test]
fn r03_sysmon_sees_tasks_behind_long_picks_on_a_spared_processor() {
    assert!(!is_spared_with(2));
    assert!(is_spared_with(1), "its own machine comes to a lone one");
}

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
