//! What the kernel charged this process: CPU time, context switches, peak memory, threads. `laps` and the network
//! scenarios take it before and after what they measure.

use std::mem::MaybeUninit;
use std::ops::Sub;

use serde::{Deserialize, Serialize};

/// CPU time and context switches of a process, or of a stretch of its life.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// User and system time, in nanoseconds.
    pub cpu_ns: u64,
    /// Context switches because a thread waited.
    pub voluntary: u64,
    /// Context switches because a thread was preempted.
    pub involuntary: u64,
}

impl Usage {
    /// This process since it started, its children not included.
    pub fn now() -> Usage {
        Usage::of(libc::RUSAGE_SELF)
    }

    /// Its children that have ended and were waited for.
    pub fn of_children() -> Usage {
        Usage::of(libc::RUSAGE_CHILDREN)
    }

    fn of(whose: libc::c_int) -> Usage {
        let mut raw = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: `raw` is a writable `rusage`; zeroed is a valid value of it, so it is initialised either way.
        let raw = unsafe {
            libc::getrusage(whose, raw.as_mut_ptr());
            raw.assume_init()
        };
        let ns = |t: libc::timeval| t.tv_sec as u64 * 1_000_000_000 + t.tv_usec as u64 * 1_000;
        Usage {
            cpu_ns: ns(raw.ru_utime) + ns(raw.ru_stime),
            voluntary: raw.ru_nvcsw as u64,
            involuntary: raw.ru_nivcsw as u64,
        }
    }
}

impl Sub for Usage {
    type Output = Usage;

    fn sub(self, earlier: Usage) -> Usage {
        Usage {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            voluntary: self.voluntary.saturating_sub(earlier.voluntary),
            involuntary: self.involuntary.saturating_sub(earlier.involuntary),
        }
    }
}

/// The number in a line of `/proc/self/status`: `VmHWM` and `VmRSS` in KiB, `Threads`. `None` where there is no such
/// line, as on systems other than Linux.
///
/// `ru_maxrss` is not used for the peak: it carries the parent's over into a child.
pub fn proc_status(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}
