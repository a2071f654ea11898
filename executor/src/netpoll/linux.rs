//! epoll, waited for directly on the fd of polling's poller. polling's own wait makes five system calls (1.7 µs against
//! 0.14 µs), lets one thread in at a time, and cannot ask for RDHUP.
//!
//! 1. A socket is added once, edge-triggered, for both directions and with RDHUP: without it a short read would not
//!    prove a stream drained, for data and end may come in one event.
//! 2. The break event is level-triggered; only the blocked thread reads it (`breaks`).
//! 3. polling's own wait and notify are never used on this poller, so its own two fds stay silent.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::task::Waker;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::driver::{Outcome, Wait};
use super::readiness::Event;
use super::spin::Spin;
use super::table::{BREAK_KEY, Key, TIMER_KEY, Table};
use crate::clock;
use crate::sys::atomic::AtomicBool;
use crate::sys::atomic::Ordering::Relaxed;
use crate::sys::{Mutex, rank};

/// Events a poll takes that a busy processor makes between two tasks.
const BATCH_BUSY: usize = 128;
/// Events a wait takes that has nothing else to do.
const BATCH_BLOCKED: usize = 256;

/// A wait of this length and more may end as late as the kernel likes, 50 µs.
const LONG: Duration = Duration::from_millis(10);

/// The waits of this thread end on time until this is dropped: the kernel adds no slack, by which it else gathers
/// timers (50 µs, so that a sleep of 50 µs took 110).
struct Precise {
    /// What the thread had.
    slack_ns: libc::c_ulong,
}

impl Precise {
    fn begin() -> Self {
        // SAFETY: no memory is touched. An error is negative, and then there is nothing to set back.
        let slack_ns = unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) };
        let slack_ns = libc::c_ulong::try_from(slack_ns).unwrap_or(0);
        Precise::set(1);
        Precise { slack_ns }
    }

    fn set(slack_ns: libc::c_ulong) {
        // SAFETY: no memory is touched. Where it is forbidden waits are as precise as they were.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, slack_ns) };
    }
}

impl Drop for Precise {
    fn drop(&mut self) {
        // Zero is the thread's default.
        Precise::set(self.slack_ns);
    }
}

/// An epoll of ours.
pub(super) struct Native {
    poller: polling::Poller,
    /// Breaks the blocked wait.
    event: OwnedFd,
    /// The kernel has no `epoll_pwait2`, or a sandbox forbids it.
    no_pwait2: AtomicBool,
    /// Stands in for it; made when first needed.
    timer: Mutex<Option<OwnedFd>>,
    spin: Spin,
}

/// The kernel's own form, 64 bits on every target.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanoseconds: i64,
}

impl Native {
    pub(super) fn new(busy_poll: Option<Duration>) -> io::Result<Self> {
        let poller = polling::Poller::new()?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&poller, &event, EventData::new_u64(BREAK_KEY), EventFlags::IN)?;
        let timer = Mutex::new(rank::LEAF, None);
        Ok(Native { poller, event, no_pwait2: AtomicBool::new(false), timer, spin: Spin::new(busy_poll) })
    }

    pub(super) fn add(&self, fd: RawFd, key: Key) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::PRI | EventFlags::ET;
        // SAFETY: the caller of `register` keeps the fd open until the registration is dropped.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        Ok(epoll::add(&self.poller, fd, EventData::new_u64(key.to_usize() as u64), flags)?)
    }

    pub(super) fn delete(&self, fd: RawFd) -> io::Result<()> {
        // SAFETY: as in `add`; this is the drop of that registration.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        Ok(epoll::delete(&self.poller, fd)?)
    }

    pub(super) fn notify(&self) {
        // An error can only be that the counter is full, and then the event is there.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    pub(super) fn wait(&self, wait: Wait, table: &Table, ready: &mut Vec<Waker>) -> io::Result<Outcome> {
        match wait {
            Wait::Now => self.collect::<BATCH_BUSY>(table, ready, wait, |buffer, len| self.epoll_wait(buffer, len, 0)),
            Wait::Forever => self.collect::<BATCH_BLOCKED>(table, ready, wait, |buffer, len| {
                self.look_first(None, buffer, len, |_| self.epoll_wait(buffer, len, -1))
            }),
            Wait::Until(time) => self.collect::<BATCH_BLOCKED>(table, ready, wait, |buffer, len| {
                self.look_first(Some(time), buffer, len, |looked| {
                    self.wait_for(buffer, len, time.saturating_sub(looked))
                })
            }),
        }
    }

    fn look_first(
        &self,
        time: Option<Duration>,
        buffer: *mut libc::epoll_event,
        len: i32,
        sleep: impl FnOnce(Duration) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.spin.wait(time, clock::now, || self.epoll_wait(buffer, len, 0), sleep)
    }

    fn collect<const N: usize>(
        &self,
        table: &Table,
        ready: &mut Vec<Waker>,
        wait: Wait,
        call: impl FnOnce(*mut libc::epoll_event, i32) -> io::Result<usize>,
    ) -> io::Result<Outcome> {
        let mut buffer = [const { MaybeUninit::<libc::epoll_event>::uninit() }; N];
        let count = match call(buffer.as_mut_ptr().cast(), N as i32) {
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
            Err(e) => return Err(e),
        };
        let mut outcome = Outcome::default();
        for event in &buffer[..count] {
            // SAFETY: the kernel has written the first `count` entries.
            let event = unsafe { event.assume_init_read() };
            match event.u64 {
                BREAK_KEY if wait == Wait::Now => {}
                BREAK_KEY => {
                    // Read first, cleared by the caller after (invariant 2 of `breaks`).
                    let _ = rustix::io::read(&self.event, &mut [0; 8]);
                    outcome.broken = true;
                }
                TIMER_KEY => {}
                key => {
                    let key = Key::from_usize(key as usize);
                    if let Some(descriptor) = table.get(key.index) {
                        outcome.taken += descriptor.event(key.generation, decode(event.events), ready, None);
                    }
                }
            }
        }
        Ok(outcome)
    }

    fn epoll_wait(&self, buffer: *mut libc::epoll_event, len: i32, timeout_ms: i32) -> io::Result<usize> {
        // SAFETY: the caller's buffer has room for `len` events.
        let count = unsafe { libc::epoll_wait(self.poller.as_raw_fd(), buffer, len, timeout_ms) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// Waits at most `time`, and to the nanosecond if it is no whole number of milliseconds.
    fn wait_for(&self, buffer: *mut libc::epoll_event, len: i32, time: Duration) -> io::Result<usize> {
        // A time that does not fit ends early, which the caller bears.
        let up_to_ms = i32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
        if time.subsec_nanos() % 1_000_000 == 0 {
            return self.epoll_wait(buffer, len, up_to_ms);
        }
        if !self.no_pwait2.load(Relaxed) {
            let _precise = (time < LONG).then(Precise::begin);
            match self.epoll_pwait2(buffer, len, time) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                    self.no_pwait2.store(true, Relaxed);
                }
                result => return result,
            }
        }
        // Whole milliseconds first, so that the timer is set for what is less than one.
        let whole_ms = time.as_millis();
        if whole_ms > 0 {
            let result = self.epoll_wait(buffer, len, i32::try_from(whole_ms).unwrap_or(i32::MAX));
            if !matches!(result, Ok(0)) {
                return result;
            }
        }
        match self.set_timer(Duration::from_nanos((time.subsec_nanos() % 1_000_000).into())) {
            Ok(()) => {
                let result = self.epoll_wait(buffer, len, -1);
                // Disarms it and takes back the event of one that has fired.
                let disarmed = self.set_timer(Duration::ZERO);
                debug_assert!(disarmed.is_ok(), "a timer that was set can be set again");
                result
            }
            // No fd to be had: rounded up, late by less than a millisecond.
            Err(_) => self.epoll_wait(buffer, len, 1),
        }
    }

    fn epoll_pwait2(&self, buffer: *mut libc::epoll_event, len: i32, time: Duration) -> io::Result<usize> {
        let time = KernelTimespec {
            seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: time.subsec_nanos().into(),
        };
        // SAFETY: the caller's buffer has room for `len` events; the kernel reads the time out, and no signal mask.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.poller.as_raw_fd(),
                buffer,
                len,
                &raw const time,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// Arms the timer; zero disarms it.
    fn set_timer(&self, time: Duration) -> io::Result<()> {
        let mut timer = self.timer.lock();
        if timer.is_none() {
            let new = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
            epoll::add(&self.poller, &new, EventData::new_u64(TIMER_KEY), EventFlags::IN)?;
            *timer = Some(new);
        }
        let time = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: time.subsec_nanos().into(),
            },
        };
        if let Some(timer) = &*timer {
            timerfd_settime(timer, TimerfdTimerFlags::empty(), &time)?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn sleeps_before_a_look(&self) -> u32 {
        self.spin.left_out()
    }

    /// Goes on as on a kernel without `epoll_pwait2`.
    #[cfg(test)]
    pub(super) fn forget_pwait2(&self) {
        self.no_pwait2.store(true, Relaxed);
    }
}

fn decode(events: u32) -> Event {
    let has = |flags: i32| events & flags as u32 != 0;
    Event {
        readable: has(libc::EPOLLIN),
        writable: has(libc::EPOLLOUT),
        read_closed: has(libc::EPOLLRDHUP | libc::EPOLLHUP),
        write_closed: has(libc::EPOLLHUP),
        error: has(libc::EPOLLERR),
        urgent: has(libc::EPOLLPRI),
    }
}
