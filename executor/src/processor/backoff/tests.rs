//! When machines are woken, seen at a processor that nobody runs.

use super::{PROBE_NS, TRY_EVERY, WORTH_PICK_NS};
use crate::processor::Processor;
use crate::processor::look::LOOK_NS_MAX;
use crate::runq::tests::unit;
use crate::sched::{Config, Sched};

/// One that nobody runs.
pub(in crate::processor) fn processor() -> &'static Processor {
    let sched: &'static Sched = Box::leak(Box::new(Sched::new()));
    let _runtime = sched.open(Config { procs: 1, ..Config::default() }, None);
    sched.slot(0).processor()
}

#[test]
fn r06_where_machines_come_for_nothing_they_are_woken_more_and_more_rarely() {
    let p = processor();
    assert!((0..5).all(|_| p.may_wake()) && !p.is_spared());
    for k in 1..20 {
        p.raise_backoff();
        assert!(p.is_spared());
        let may = (0..3 << 12).filter(|_| p.may_wake()).count();
        assert_eq!(may, (3 << 12) >> k.min(12), "k is {k}");
    }
    p.reset_backoff();
    assert!((0..5).all(|_| p.may_wake()) && !p.is_spared());
}

#[test]
fn r01_a_spared_processor_probes_now_and_then_and_at_once_when_picks_are_long() {
    let p = processor();
    // SAFETY: this thread holds the processor.
    unsafe { p.push(unit(1)) };
    p.raise_backoff();
    assert!(!p.may_probe(PROBE_NS, 61, 61 * WORTH_PICK_NS + 1) && p.is_spared(), "a lone task");
    p.reset_backoff();
    // SAFETY: as above.
    unsafe { p.push(unit(2)) };
    let short = |now| {
        let may = p.may_probe(now, 61, 61 * WORTH_PICK_NS);
        assert_eq!(may, p.may_probe(now, 61, 61 * WORTH_PICK_NS), "a look that wakes nobody uses nothing up");
        if may {
            p.probes(now);
        }
        may
    };
    let mut now = PROBE_NS;
    assert!(!short(now), "it is not spared");
    p.raise_backoff();
    assert!(short(now));
    now += PROBE_NS - 1;
    assert!(!short(now));
    now += 1;
    assert!(short(now));
    assert!(p.is_spared());
    assert!(p.may_probe(now, 61, 61 * WORTH_PICK_NS + 1));
    assert!(!p.is_spared());
}

#[test]
fn r03_a_look_that_long_picks_put_off_is_missed() {
    let p = processor();
    let at = 1_000 + LOOK_NS_MAX / 2;
    p.taken(1_000);
    p.looked(at, at);
    assert!(!p.is_look_missed(at + LOOK_NS_MAX), "it is not late");
    assert!(p.is_look_missed(at + LOOK_NS_MAX + 1));
    // With the one that came after the look.
    let picks = LOOK_NS_MAX / WORTH_PICK_NS + 1;
    (1..picks).for_each(|_| assert!(!p.is_look_due()));
    assert!(!p.is_look_missed(at + picks * WORTH_PICK_NS), "picks are short");
    assert!(p.is_look_missed(at + picks * WORTH_PICK_NS + 1));
}

#[test]
fn r03_a_spared_processor_is_tried_now_and_then() {
    let p = processor();
    p.raise_backoff();
    let tries: Vec<_> = (0..2 * TRY_EVERY).map(|_| (p.probes(PROBE_NS), p.take_try()).1).collect();
    assert_eq!(tries.iter().filter(|tries| **tries).count(), 2);
    assert!(!p.take_try() && p.is_spared(), "each is for one thief, who says what came of it");
}
