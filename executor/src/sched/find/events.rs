//! What a machine has learnt of the netpoller: whether it pays to look there before it sits down in it, and to wake
//! another machine for what it brought. `find` asks and tells it.
//!
//! 1. Nothing relies on what is left out here. A look: who finds no work sits down in the netpoller, unless somebody is
//!    there or on the way out; who steals some looks at the next search. A wake: this machine runs what is queued, and
//!    if a poll stands still before that, or picks take long, `sysmon` wakes another.

use super::{Worker, after_batch, wake_all, wake_queued};
use crate::metrics::FoundIn;
use crate::processor::Processor;

/// After so many looks on the way to sleep that found nothing, such looks are left out, but for one in [`BLANK_EVERY`]:
/// who then sits down in the netpoller finds out there, with one system call instead of two.
const BLANK_MAX: u32 = 2;
const BLANK_EVERY: u32 = 32;

/// So many tasks at once are enough for two machines, whatever came of it the last times.
const MANY: usize = 16;
/// After 2^k times that a machine was woken for fewer and was of no use one is woken again, k at most this.
const HELP_BACKOFF_MAX: u32 = 4;

/// What a machine has learnt.
#[derive(Default)]
pub(super) struct Events {
    /// Looks on the way to sleep, made or left out, since the last one that found something.
    blank_looks: u32,
    /// The last help, until the queue is empty again and says whether it was of use.
    help: Option<Help>,
    /// The k of [`HELP_BACKOFF_MAX`].
    help_backoff: u32,
    /// How often nobody was woken since.
    help_passed: u32,
}

/// A machine was woken for what the netpoller brought.
struct Help {
    p: &'static Processor,
    /// How many tasks this machine's processor had found in its queue by then.
    found: u64,
    queued: usize,
}

/// How many tasks `p` has found in its queue. What a task wakes or spawns mostly runs next to it, and comes by no
/// queue: it is not what the netpoller brought.
fn found_queued(p: &Processor) -> u64 {
    p.counters().found[FoundIn::Local as usize].get()
}

impl Events {
    /// Whether to leave the next look out.
    fn leaves_out(&self) -> bool {
        self.blank_looks >= BLANK_MAX && self.blank_looks % BLANK_EVERY != 0
    }

    /// A look was made or left out.
    fn looked(&mut self, is_blank: bool) {
        self.blank_looks = if is_blank { self.blank_looks.wrapping_add(1) } else { 0 };
    }

    /// Something was stolen: this machine does not sit down in the netpoller, where it would see what a look would
    /// have.
    pub(super) fn found_elsewhere(&mut self) {
        self.blank_looks = 0;
    }

    /// Whether to wake a machine for so many tasks.
    fn may_wake(&mut self, queued: usize, is_slow: bool) -> bool {
        let may = queued >= MANY || is_slow || self.help_passed >= (1 << self.help_backoff) - 1;
        self.help_passed = if may { 0 } else { self.help_passed + 1 };
        may
    }

    /// The queue of `p` is empty: says whether a machine that was woken for what the netpoller had put there was of
    /// use.
    pub(super) fn queue_is_empty(&mut self, p: &Processor) {
        if let Some(help) = self.help.take().filter(|help| std::ptr::eq(help.p, p)) {
            self.judge(found_queued(p).wrapping_sub(help.found) as usize, help.queued);
        }
    }

    /// Of so many that were queued this machine ran `own`. Help was of use if both ran some: a machine that came too
    /// late was of none, and neither was one that ran all of it, on the CPU of this one, which it preempted.
    fn judge(&mut self, own: usize, queued: usize) {
        let was_of_use = 0 < own && own < queued;
        self.help_backoff = if was_of_use { 0 } else { (self.help_backoff + 1).min(HELP_BACKOFF_MAX) };
    }
}

impl Worker {
    /// A look at the netpoller without waiting, where such looks find something.
    pub(super) fn look_before_sleep(&mut self, p: &'static Processor, now: u64) {
        let left_out = self.events.leaves_out();
        if !left_out && !self.sched.netpoll_now(&mut self.ready, now) {
            return;
        }
        self.events.looked(self.ready.is_empty());
        if !left_out {
            p.counters().netpoll_looks.add(1);
            self.wake_ready(p);
        }
    }

    /// Wakes what the netpoller brought.
    pub(super) fn wake_ready(&mut self, p: &'static Processor) {
        if self.ready.is_empty() {
            return;
        }
        self.runs_wakers();
        wake_queued(p, || wake_all(&mut self.ready));
        let queued = p.queue.len_seen();
        if !self.events.may_wake(queued, p.is_slow()) {
            return;
        }
        let wakes = p.counters().wakes.get();
        after_batch(self.sched, p);
        if p.counters().wakes.get() != wakes {
            self.events.help = Some(Help { p, found: found_queued(p), queued });
        }
    }
}

#[cfg(all(test, not(gmp_loom)))]
mod tests {
    use super::*;
    use crate::runq::tests::{number, unit};
    use crate::sched::{Config, Sched, count_found};

    /// A searcher without a thread of the runtime's, with a processor, beside another one.
    fn searcher() -> (Worker, &'static Processor, &'static Processor) {
        let sched: &'static Sched = Box::leak(Box::new(Sched::new()));
        let _runtime = sched.open(Config { procs: 2, ..Config::default() }, None);
        while sched.idle.take(sched).is_some() {}
        let [p, other] = [0, 1].map(|slot| sched.slot(slot).processor());
        (Worker::new(sched, sched.new_machine()), p, other)
    }

    /// A handler wakes another task: the machine polls twice as often as it takes a request.
    #[test]
    fn r06_help_is_judged_by_what_was_queued_also_beside_a_global_queue() {
        let (mut worker, p, _) = searcher();
        let help_after = |worker: &mut Worker, own| {
            worker.events.help = Some(Help { p, found: found_queued(p), queued: 6 });
            for _ in 0..own {
                count_found(p, FoundIn::Local);
                count_found(p, FoundIn::RunNext);
            }
            worker.sched.inject.push(unit(0));
            assert_eq!(worker.find_elsewhere(p).map(number), Some(0));
            worker.events.help_backoff
        };
        assert_eq!(help_after(&mut worker, 6), 1);
        assert_eq!(help_after(&mut worker, 3), 0);
    }

    /// Machines that steal from each other never sit down in the netpoller, and its events would wait for a look
    /// between tasks.
    #[test]
    fn r04_who_steals_looks_at_the_netpoller_at_the_next_search() {
        let (mut worker, p, other) = searcher();
        (0..BLANK_MAX).for_each(|_| worker.events.looked(true));
        assert!(worker.events.leaves_out());
        for task in 0..2 {
            // SAFETY: this thread holds the processor.
            unsafe { other.push(unit(task)) };
        }
        assert_eq!(worker.find_elsewhere(p).map(number), Some(0));
        assert!(!worker.events.leaves_out());
    }

    /// How many batches go by until a machine is woken for one.
    fn passed(events: &mut Events) -> usize {
        std::iter::from_fn(|| (!events.may_wake(2, false)).then_some(())).count()
    }

    #[test]
    fn r06_help_that_is_of_no_use_is_asked_for_more_and_more_rarely() {
        let mut events = Events::default();
        // It came too late, or ran all.
        let after = [6, 0, 6, 0, 6].map(|own| {
            let before = passed(&mut events);
            events.judge(own, 6);
            before
        });
        assert_eq!((after, passed(&mut events)), ([0, 1, 3, 7, 15], 15));
        assert!(!events.may_wake(2, false));
        assert!(
            events.may_wake(MANY, false) && events.may_wake(2, true),
            "many, and slow ones, do not wait for the turn"
        );
        events.judge(3, 6);
        assert_eq!(passed(&mut events), 0);
    }
}
