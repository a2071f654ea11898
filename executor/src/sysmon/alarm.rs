//! What `sysmon` sleeps deeply on: a timer of the kernel's that others set without waking it, and set back. `idle` says
//! when, `sysmon` sleeps.
//!
//! A task that ticks once a second takes a processor for some microseconds. To wake `sysmon` for it costs more than the
//! task; to set a timer, and to stop it when all is idle again, are two system calls, and nobody wakes.
//!
//! 1. Who rings is heard: from then on the timer is neither set nor stopped by anybody until `sysmon` has woken.
//! 2. Its fd is there from the build of a runtime, if the system gave one, until `sysmon` has ended. Setting an alarm
//!    that is closed does nothing.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::sched::die;
use crate::sys::{Mutex, rank};

/// The shortest time that a timer can be set to: zero stops it.
const NOW: Duration = Duration::from_nanos(1);

/// The alarm of one runtime's `sysmon`.
pub(super) struct Alarm {
    state: Mutex<State>,
}

struct State {
    timer: Option<Arc<OwnedFd>>,
    /// Somebody rang, and `sysmon` has not woken since.
    rung: bool,
}

impl State {
    /// Has the timer go off after `time`, or, with none, stops it.
    fn set(&self, time: Option<Duration>) {
        let Some(timer) = &self.timer else {
            return;
        };
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = time.map_or(zero, |time| Timespec {
            tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        });
        let spec = Itimerspec { it_interval: zero, it_value: value };
        if let Err(e) = timerfd_settime(&**timer, TimerfdTimerFlags::empty(), &spec) {
            die("the watcher's timer cannot be set", &e);
        }
    }
}

impl Alarm {
    pub(super) const fn new() -> Self {
        Alarm { state: Mutex::new(rank::ALARM, State { timer: None, rung: false }) }
    }

    /// Gets the timer if there is none yet. `false`: the system gives none now.
    pub(super) fn open(&self) -> bool {
        let mut state = self.state.lock();
        if state.timer.is_none() {
            state.timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).ok().map(Arc::new);
            if state.rung {
                state.set(Some(NOW));
            }
        }
        state.timer.is_some()
    }

    /// Gives the timer back.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        let timer = state.timer.take();
        state.rung = false;
        drop(state);
        drop(timer);
    }

    /// It goes off after `time`, unless it is stopped before.
    pub(super) fn set(&self, time: Duration) {
        let state = self.state.lock();
        if !state.rung {
            state.set(Some(time));
        }
    }

    /// It does not go off.
    pub(super) fn stop(&self) {
        let state = self.state.lock();
        if !state.rung {
            state.set(None);
        }
    }

    /// It goes off now, or as soon as there is a timer.
    pub(super) fn ring(&self) {
        let mut state = self.state.lock();
        if !state.rung {
            state.rung = true;
            state.set(Some(NOW));
        }
    }

    /// Sleeps until it goes off, or has gone off before. Tells whether somebody rang.
    pub(super) fn sleep(&self) -> bool {
        let timer = self.state.lock().timer.clone();
        if let Some(timer) = timer {
            let mut count = [0; 8];
            loop {
                match rustix::io::read(&*timer, &mut count) {
                    Ok(_) => break,
                    Err(Errno::INTR) => {}
                    Err(e) => die("the watcher's timer cannot be read", &e),
                }
            }
        }
        std::mem::take(&mut self.state.lock().rung)
    }
}

#[cfg(test)]
mod tests {
    use rustix::time::timerfd_gettime;

    use super::*;

    fn open() -> Arc<Alarm> {
        let alarm = Arc::new(Alarm::new());
        assert!(alarm.open());
        alarm
    }

    #[test]
    fn r05_an_alarm_that_was_set_goes_off() {
        let alarm = open();
        alarm.set(Duration::from_micros(100));
        assert!(!alarm.sleep(), "nobody rang");
    }

    /// Whether the kernel has a time for it.
    fn is_set(alarm: &Alarm) -> bool {
        let state = alarm.state.lock();
        let timer = state.timer.as_ref().expect("the alarm is open");
        let left = timerfd_gettime(&**timer).unwrap().it_value;
        (left.tv_sec, left.tv_nsec) != (0, 0)
    }

    /// Whoever stopped it or set it for later would keep `sysmon` from hearing of what it alone can mend.
    #[test]
    fn r17_who_rings_is_heard_whatever_others_set() {
        let alarm = open();
        alarm.ring();
        alarm.stop();
        alarm.set(Duration::from_secs(3_600));
        assert!(alarm.sleep());
        let sleeper = {
            let alarm = alarm.clone();
            std::thread::spawn(move || alarm.sleep())
        };
        alarm.set(Duration::from_secs(3_600));
        alarm.ring();
        assert!(sleeper.join().unwrap());
    }

    #[test]
    fn r05_an_alarm_that_was_stopped_does_not_go_off() {
        let alarm = open();
        assert!(!is_set(&alarm));
        alarm.set(Duration::from_secs(3_600));
        assert!(is_set(&alarm));
        alarm.stop();
        assert!(!is_set(&alarm));
    }

    #[test]
    fn r17_a_closed_alarm_is_nobodys() {
        let alarm = open();
        alarm.ring();
        alarm.close();
        alarm.set(Duration::from_micros(1));
        alarm.stop();
        assert!(!alarm.sleep(), "there is nothing to sleep on");
        alarm.ring();
        assert!(alarm.open(), "it serves the next runtime");
        assert!(alarm.sleep(), "who rang before there was a timer is heard");
    }
}
