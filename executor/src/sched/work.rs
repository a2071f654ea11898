//! What there is to do, as those see it who are about to sleep, to wake another machine or to go on.

use super::Sched;
use crate::clock::NEVER;
use crate::processor::{Processor, QUIT};

impl Sched {
    /// Whether there is work that a machine without a processor could come back for. A lone task in a run-next slot
    /// does not count, and one in a queue only while its processor is inside a poll: its own machine takes it, and
    /// `sysmon` sees to it if that machine does not.
    pub(crate) fn is_work_visible(&self) -> bool {
        self.sees_work(|_| true)
    }

    /// [`Sched::is_work_visible`] for a machine that has just searched: what is queued on a processor that is spared is
    /// left to its own machine, and `sysmon` sees to it as to a lone task.
    pub(super) fn is_work_worth_it(&self) -> bool {
        self.sees_work(|p| !p.is_spared())
    }

    fn sees_work(&self, counts: impl Fn(&Processor) -> bool) -> bool {
        if !self.inject.is_empty() {
            return true;
        }
        let mut deadline = NEVER;
        for slot in self.slots() {
            let p = slot.processor();
            let queued = p.queue.len_seen();
            if (queued > 1 || queued == 1 && p.is_polling()) && counts(p) {
                return true;
            }
            deadline = deadline.min(slot.timers.earliest());
        }
        deadline != NEVER && deadline <= self.clock.now()
    }

    /// Whether there is work that a spinner would find beside what the machine with `own` has just taken: lone tasks
    /// too, and a netpoller to sit in.
    pub(crate) fn is_work_for_another(&self, own: Option<&Processor>) -> bool {
        if !self.inject.is_empty() {
            return true;
        }
        let mut deadline = NEVER;
        for slot in self.slots() {
            let p = slot.processor();
            // Its own machine goes on with a lone task.
            let is_own = own.is_some_and(|own| std::ptr::eq(own, p));
            // A spinner leaves to a processor that is spared what is queued there, and its machine comes to it.
            let queued = p.queue.len_seen() > 0 && (is_own || !p.is_spared());
            if queued || !is_own && p.queue.next.peek() != 0 {
                return true;
            }
            deadline = deadline.min(slot.timers.earliest());
        }
        !self.is_netpoller_attended() && (deadline != NEVER || self.netpoll.waiters() > 0)
            || deadline != NEVER && deadline <= self.clock.now()
    }

    /// Whether anybody waits for the processor `p` or for what it could run: other tasks, a machine in `want`, due
    /// timers, or sockets that nobody watches. A husk waits to be given back, and a processor that is one too many to
    /// be given up.
    pub(crate) fn has_waiting(&self, p: &Processor) -> bool {
        p.queue.next.is_condemned()
            || p.attention() & QUIT != 0
            || self.is_work_queued(p)
            || self.idle.is_wanted()
            || self.is_work_visible()
            || self.netpoll.waiters() > 0 && !self.is_netpoller_attended()
    }

    pub(super) fn is_work_queued(&self, p: &Processor) -> bool {
        p.queue.len_seen() > 0 || p.queue.next.peek() != 0 || !self.inject.is_empty()
    }
}

#[cfg(all(test, not(gmp_loom)))]
mod tests {
    use super::*;
    use crate::runq::tests::unit;
    use crate::sched::Config;

    /// A machine that has searched and found nothing else sleeps, and its processor's owner comes to what is queued.
    /// Who gives a processor up, or has work to do, is not to count on that.
    #[test]
    fn r01_what_a_spared_processor_has_is_its_owners_and_no_others() {
        let sched: &'static Sched = Box::leak(Box::new(Sched::new()));
        let _runtime = sched.open(Config { procs: 2, ..Config::default() }, None);
        let [own, other] = [0, 1].map(|slot| sched.slot(slot).processor());
        let seen = || [sched.is_work_visible(), sched.is_work_worth_it(), sched.is_work_for_another(Some(own))];
        assert_eq!(seen(), [false; 3]);
        for task in 0..2 {
            // SAFETY: this thread is the only one here.
            unsafe { other.push(unit(task)) };
        }
        assert_eq!(seen(), [true; 3]);
        other.raise_backoff();
        assert_eq!(seen(), [true, false, false]);
        own.raise_backoff();
        for task in 0..2 {
            // SAFETY: as above.
            unsafe { own.push(unit(task)) };
        }
        assert_eq!(seen(), [true, false, true], "it is no thief that looks for another one");
        sched.inject.push(unit(4));
        assert_eq!(seen(), [true; 3]);
    }
}
