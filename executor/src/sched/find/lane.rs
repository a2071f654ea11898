//! What a lane does (see `sched::lanes`): it polls burners on husks, and never searches.

use std::time::Duration;

use super::Worker;
use super::run::{AbortOnPanic, Began};
use crate::clock;
use crate::context;
use crate::processor::{CLOSING, SPAWNS_MAX};
use crate::runq::Unit;
use crate::sched::lanes::Next;
use crate::sched::places::Kind;
use crate::task;

/// A lane would have the CPU for so long at a time, in nanoseconds, or for twice as long as a thread of this process
/// asks for: a thread that wakes up and asks for less goes first. The default is 2.8 or 3 ms, less with fewer CPUs. Not
/// for much longer: before Linux 6.17 a thread that does not sleep could wait for the end of it.
#[cfg(target_os = "linux")]
const SLICE_NS: u64 = 6_000_000;

/// So long a lane stays that has nothing to do: its place is one that the pool may want.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

impl Worker {
    /// The body of a lane's thread.
    pub(crate) fn run_lane(&mut self, on_start: Option<&(dyn Fn() + Send + Sync)>) -> Began {
        // Whoever waits for a lane would wait for ever.
        let abort = AbortOnPanic("a lane panicked");
        let sched = self.sched;
        makes_way_for_who_wakes();
        sched.call_hook(on_start);
        let mut next = sched.lane_came(self.machine);
        loop {
            next = match next {
                Next::Poll(unit) => self.poll_on_lane(unit),
                Next::Rest if self.rests_until_called() => sched.lane_came(self.machine),
                Next::Rest | Next::End => break,
            };
        }
        std::mem::forget(abort);
        Began(true)
    }

    fn poll_on_lane(&mut self, unit: Unit) -> Next {
        let (sched, task) = (self.sched, (task::id(&unit), Kind::of(&unit)));
        sched.lanes.polls.add(1);
        let begun = sched.blockers.begin_burner(task::polled(&unit));
        // Any slot's; this one is never dead.
        let p = sched.slot(0).husk();
        p.mark_lanes();
        if sched.is_closing() {
            // Shutdown may have asked all others before.
            p.ask(CLOSING);
        }
        p.taken(clock::now());
        p.begin_slice();
        context::set_processor(Some(p));
        let spawned = p.counters().spawned.get();
        self.poll_task(p, unit);
        sched.die_if_forked();
        // Where it came back with another processor from a wait, that one has counted others' too.
        let is_whole = self.processor().is_some_and(|now| std::ptr::eq(now, p));
        let spawns = is_whole && p.counters().spawned.get().wrapping_sub(spawned) > SPAWNS_MAX;
        let has_ended = self.processor().is_some_and(|now| now.last_polled().is_none());
        if sched.blockers.end_burner(task, begun, has_ended, spawns) {
            // Others of the kind may wait behind those that compute.
            sched.sift_lanes();
        }
        sched.end_release();
        match self.processor() {
            Some(p) if p.queue.next.is_condemned() => {
                // SAFETY: this machine holds `p`.
                sched.keep_burners(std::iter::from_fn(|| unsafe { p.queue.pop() }).collect());
                sched.leave_husk(p);
            }
            // It came back with a processor from a wait.
            Some(p) if p.is_closing() => self.abandon(p),
            Some(p) => sched.hand_back(p),
            None => {}
        }
        sched.lane_polled(self.machine)
    }

    /// Tells whether the lane was called; if not its keep-alive is over.
    fn rests_until_called(&self) -> bool {
        let lanes = &self.sched.lanes;
        loop {
            let unparked = self.machine.parker.park_timeout(self.sched.keep_alive().min(KEEP_ALIVE));
            if lanes.is_called(self.machine) {
                return true;
            }
            if !unparked && lanes.ends(self.machine) {
                return false;
            }
        }
    }
}

/// A thread that wakes up takes the CPU from this one at once, where the system's scheduler (EEVDF, Linux 6.12) lets a
/// thread say how long its turns are to be. It may be refused: then a thread that wakes up waits a little.
#[cfg(target_os = "linux")]
fn makes_way_for_who_wakes() {
    /// `struct sched_attr`, as far as `SCHED_ATTR_SIZE_VER0` goes.
    #[repr(C)]
    #[derive(Default)]
    struct SchedAttr {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    const SIZE: u32 = size_of::<SchedAttr>() as u32;
    let mut attr = SchedAttr::default();
    // SAFETY: `attr` is there to be written, and as large as is said.
    let failed = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, SIZE, 0) } != 0;
    if failed || attr.policy != libc::SCHED_OTHER as u32 {
        return;
    }
    // Threads that a lane starts are not to be like it.
    const RESET_ON_FORK: u64 = 1;
    attr.flags |= RESET_ON_FORK;
    attr.runtime = SLICE_NS.max(2 * attr.runtime);
    // SAFETY: `attr` is there, and says how large it is.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
}

#[cfg(not(target_os = "linux"))]
fn makes_way_for_who_wakes() {}
