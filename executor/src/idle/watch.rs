//! When `sysmon` sleeps, and who wakes it: invariant 6 of `idle`. `sysmon` asks, and machines that are about to sleep.

use super::{Host, Idle, Lists};
use crate::sys::atomic::Ordering::{Acquire, Relaxed, Release};

/// What `sysmon` does. While a processor is off the idle list it is awake or armed.
///
/// | it is  | it leaves by                                                                                                 |
/// |--------|--------------------------------------------------------------------------------------------------------------|
/// | awake  | `sysmon_sleeps` → asleep · `sysmon_waits` → waits                                                              |
/// | asleep | the first processor that is taken, which wakes it: → awake                                                     |
/// | waits  | the first processor that is taken, which sets the alarm: → armed · `sysmon_woke`, if somebody rang: → awake    |
/// | armed  | `sysmon_woke` → awake · `stop_alarm`, if all are idle: → waits                                                 |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    Awake,
    /// Deeply, until somebody wakes it.
    Asleep,
    /// Deeply, on its alarm, which is not set.
    Waits,
    /// On its alarm, which is set.
    Armed,
}

impl Idle {
    /// `sysmon` goes to deep sleep if every processor is idle or dead (invariant 6). Tells whether it may.
    pub(crate) fn sysmon_sleeps(&self) -> bool {
        self.sysmon_is(Watch::Asleep)
    }

    /// The same, on its alarm: it goes on after [`Idle::sysmon_woke`] says so.
    pub(crate) fn sysmon_waits(&self) -> bool {
        self.sysmon_is(Watch::Waits)
    }

    fn sysmon_is(&self, asleep: Watch) -> bool {
        let mut lists = self.lists.lock();
        let may = self.may_sleep(&lists);
        lists.sysmon = if may { asleep } else { Watch::Awake };
        may
    }

    /// Whether nothing asks for a look of `sysmon`.
    fn may_sleep(&self, lists: &Lists) -> bool {
        lists.procs.len() == lists.alive() && !lists.closed && !self.refused.load(Relaxed)
    }

    /// Wakes `sysmon` or sets its alarm if it sleeps.
    pub(super) fn rouse_sysmon(&self, lists: &mut Lists, host: &impl Host) {
        match lists.sysmon {
            Watch::Asleep => {
                lists.sysmon = Watch::Awake;
                host.wake_sysmon();
            }
            Watch::Waits => {
                lists.sysmon = Watch::Armed;
                self.stops_alarm.store(host.set_alarm(), Relaxed);
            }
            Watch::Awake | Watch::Armed => {}
        }
    }

    /// Something was left to others that only `sysmon` looks after: it looks once more, whether or not a processor is
    /// in use.
    pub(crate) fn asks_for_a_look(&self, host: &impl Host) {
        let mut lists = self.lists.lock();
        // Release: pairs with the Acquire in `sysmon_looks`, as in `give_back`; that look sees what is asked for.
        self.refused.store(true, Release);
        self.rouse_sysmon(&mut lists, host);
    }

    /// `sysmon` begins a look, which sees what it was asked for.
    pub(crate) fn sysmon_looks(&self) {
        if self.refused.load(Relaxed) {
            // Acquire: pairs with the Release in `give_back` and `asks_for_a_look`.
            self.refused.swap(false, Acquire);
        }
    }

    /// The alarm went off, or somebody has `rung`. Tells whether `sysmon` is awake now: if the alarm was stopped at the
    /// last moment it waits on.
    pub(crate) fn sysmon_woke(&self, rung: bool) -> bool {
        let mut lists = self.lists.lock();
        self.stops_alarm.store(false, Relaxed);
        if rung || lists.sysmon == Watch::Armed {
            lists.sysmon = Watch::Awake;
        }
        lists.sysmon == Watch::Awake
    }

    /// A machine is about to sleep: what `sysmon` was to look after may be over.
    #[inline]
    pub(crate) fn stop_alarm(&self, host: &impl Host) {
        // Relaxed: the machine has given its processor up under the lock since the alarm was set. At worst it goes off.
        if self.stops_alarm.load(Relaxed) {
            self.stop_alarm_if_idle(host);
        }
    }

    #[cold]
    fn stop_alarm_if_idle(&self, host: &impl Host) {
        let mut lists = self.lists.lock();
        if lists.sysmon == Watch::Armed && self.may_sleep(&lists) {
            lists.sysmon = Watch::Waits;
            self.stops_alarm.store(false, Relaxed);
            host.stop_alarm();
        }
    }

    #[cfg(test)]
    pub(crate) fn is_sysmon_asleep(&self) -> bool {
        matches!(self.lists.lock().sysmon, Watch::Asleep | Watch::Waits)
    }
}
