//! What the watcher does with its alarm.

use super::{RARE_NS, Sysmon, UNSEEN_NS};
use crate::sys::atomic::Ordering::Relaxed;

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
