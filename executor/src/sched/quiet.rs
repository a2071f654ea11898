//! Whether a runtime is quiet: nothing of it runs or is about to run, so that only time, the kernel or a foreign thread
//! can bring it work. Who looks for deadlocks asks this, and so does whoever moves a clock that stands still.
//!
//! All of it is asked under the scheduler lock: while that is held, and every processor is on the idle list, no thread
//! can begin to poll. What can bring work without a processor is asked for first (blocking closures, stuck polls,
//! threads away, pinned tasks whose thread is on its way, wakers taken out of the netpoller), what it brings afterwards
//! (the queues, the threads in `block_on`): an agent that is gone has left its work where it is then found.
//!
//! A wake that a foreign thread is about to do is not seen, as nobody can.

use super::Sched;
use crate::sys::atomic::Ordering::Acquire;

impl Sched {
    /// Whether the runtime is quiet (see the head of the file), as a number that stays the same for as long as no
    /// processor is taken: equal answers mean that nothing ran in between. `None` if something runs, or the runtime
    /// closes.
    ///
    /// Timers are not looked at, and of the netpoller only whether somebody is on the way out of it: what is due and
    /// what is ready in the kernel is the caller's to know. With tasks that wait for I/O the answer is exact only from
    /// the machine in the netpoller's seat (`in_seat`), after a look of its own without waiting that found nothing: an
    /// event that another machine has just been given by the kernel is seen by nobody else.
    ///
    /// The caller holds no processor of this runtime.
    pub(crate) fn quiet(&'static self, in_seat: bool) -> Option<u64> {
        self.quiet_and(in_seat, || true)
    }

    /// [`quiet`](Self::quiet), and `f` too, which is called under the scheduler lock if the runtime is.
    pub(super) fn quiet_and(&'static self, in_seat: bool, f: impl FnOnce() -> bool) -> Option<u64> {
        self.idle.quiet(|seat_taken| {
            // Acquire: pairs with the Release of `Netpoll::wait` when it counts down; if it has, `is_blocked` says so.
            let leaving = seat_taken && !in_seat && !self.netpoll.is_blocked();
            // In this order: a poll that went on without a processor may come to wait in a `block_on`, and is away
            // then; the other way leads over the scheduler lock. Acquire: pairs with the AcqRel of who counts down,
            // after the work it brought was queued.
            let (agents, away) = (self.beside.count(), self.away.load(Acquire));
            let agents = agents + self.pinned.coming() + self.guests();
            !leaving
                && agents == 0
                && !self.sysmon.is_delivering()
                && self.blocking.is_quiet()
                && self.inject.is_empty()
                && self.slots().map(|slot| &slot.processor().queue).all(|q| q.len_seen() == 0 && q.next.peek() == 0)
                && self.waits.are_quiet(self.runtime().generation, away)
                && f()
        })
    }
}
