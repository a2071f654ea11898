//! A task became ready: where it goes, and whether a machine is woken for it.

use super::{How, Sched};
use crate::context;
use crate::processor::Processor;
use crate::runq::{Replaced, Unit};
use crate::sys::{submit_fence, submit_fence_after_rmw};

impl Sched {
    /// Queues a task that became ready, on whatever thread (Go: `ready`).
    #[inline]
    pub(crate) fn ready(&'static self, unit: Unit, how: How) {
        match context::processor_of(self) {
            // SAFETY: the context names the processor that this thread holds.
            Some(p) => unsafe { self.ready_local(p, unit, how) },
            None => self.ready_outside(unit, how),
        }
    }

    /// [`Sched::ready`] on a thread without a processor of this runtime. One of the pool that ends its closure takes an
    /// idle one and runs the task itself (see `blocking::lent`).
    #[cold]
    fn ready_outside(&'static self, unit: Unit, how: How) {
        let taken = if how == How::Woken { self.processor_for_what_a_closure_wakes() } else { None };
        match taken {
            // SAFETY: this thread has just taken it.
            Some(p) => unsafe { self.ready_local(p, unit, how) },
            None => self.ready_foreign(unit),
        }
    }

    /// Queues a new task.
    #[inline]
    pub(crate) fn spawned(&'static self, unit: Unit) {
        match context::processor_of(self) {
            // SAFETY: as above.
            Some(p) => unsafe { self.spawned_on(p, unit) },
            None => {
                self.spawned_outside.add(1);
                self.ready_foreign(unit);
            }
        }
    }

    /// [`Sched::spawned`] on `p`.
    ///
    /// # Safety
    ///
    /// This thread holds `p`.
    #[inline]
    pub(crate) unsafe fn spawned_on(&'static self, p: &'static Processor, unit: Unit) {
        p.counters().spawned.add(1);
        // SAFETY: passed on.
        unsafe { self.ready_local(p, unit, How::Spawned) };
    }

    /// Queues on the processor `p` and wakes a machine if that pays, always after the submit fence and only if a
    /// processor is idle and nobody spins:
    ///
    /// 1. a spawn does, or a second queued task; where machines come for nothing that happens more and more rarely;
    /// 2. a wake into an empty queue does not, because `p` is about to run it, unless `p` is slow.
    ///
    /// # Safety
    ///
    /// This thread holds `p`.
    #[inline]
    unsafe fn ready_local(&'static self, p: &'static Processor, unit: Unit, how: How) {
        if how == How::Yielded {
            // SAFETY: passed on.
            return unsafe { self.ready_yielded(p, unit) };
        }
        if p.is_batching() {
            // SAFETY: passed on.
            unsafe { p.push(unit) };
            submit_fence();
            return self.after_push(p);
        }
        // SAFETY: passed on.
        if how == How::Woken && p.ends_queued_task() && unsafe { p.queue.len() } > 0 {
            // SAFETY: passed on.
            return unsafe { self.ready_joiner(p, unit) };
        }
        let mut second = false;
        match p.queue.next.replace(unit) {
            Replaced::Nothing => {}
            Replaced::Unit(displaced) => {
                // SAFETY: passed on.
                unsafe { p.push(displaced) };
                second = true;
            }
            // `sysmon` has rescued the tasks of `p`: from now on this thread is like one without a processor.
            Replaced::Condemned(unit) => return self.ready_foreign(unit),
        }
        let by_spawn = how == How::Spawned;
        // SAFETY: passed on.
        let queued = by_spawn || second || unsafe { p.queue.len() } > 0;
        let asks = queued || !by_spawn && p.is_slow();
        if second {
            // The displaced task was pushed after the locked instruction on the slot.
            submit_fence();
            self.after_push(p);
        } else if asks {
            submit_fence_after_rmw();
        }
        if asks && self.idle.should_wake() {
            self.wake_if_it_pays(p, queued, by_spawn);
        }
    }

    /// A machine could be woken for what was just readied on `p`. Asked last: the one wake of many that may happen is
    /// not used up where none can.
    #[cold]
    fn wake_if_it_pays(&'static self, p: &'static Processor, queued: bool, by_spawn: bool) {
        if queued && p.may_wake() || !by_spawn && p.take_slow() {
            self.wake_one_from(p, by_spawn);
        }
    }

    /// The end of a task that had to queue wakes who waits for it: that one queues too. It is likely to wait for the
    /// next task of the queue then, and would come back for each of them; in the queue it waits for all that are before
    /// it. A task out of the run-next slot was run ahead of the others for somebody's sake, and who waits for it goes
    /// on at once.
    ///
    /// # Safety
    ///
    /// This thread holds `p`.
    unsafe fn ready_joiner(&'static self, p: &'static Processor, unit: Unit) {
        // SAFETY: passed on.
        unsafe { p.push(unit) };
        submit_fence();
        self.after_push(p);
        if self.idle.should_wake() && p.may_wake() {
            self.wake_one_from(p, false);
        }
    }

    /// Queues a blocking closure on `p`, behind what is queued there, so that those of a task start in the order in
    /// which they come, as far as tasks do. Else it is as with a task that was spawned.
    ///
    /// # Safety
    ///
    /// This thread holds `p`.
    pub(crate) unsafe fn ready_brief(&'static self, p: &'static Processor, unit: Unit) {
        // SAFETY: passed on.
        unsafe { p.push(unit) };
        submit_fence();
        self.after_push(p);
        if self.idle.should_wake() && p.may_wake() {
            self.wake_one_from(p, true);
        }
    }

    /// The owner's second look after a push to its ring and a fence: if the queue was condemned meanwhile, whoever did
    /// that may have emptied it before the push.
    #[inline]
    pub(crate) fn after_push(&'static self, p: &'static Processor) {
        if p.queue.next.is_condemned() {
            self.spill(p);
        }
    }

    /// The owner of a condemned queue empties it into the global one.
    #[cold]
    fn spill(&'static self, p: &'static Processor) {
        // SAFETY: only the owner calls this.
        let units = std::iter::from_fn(|| unsafe { p.queue.pop() });
        if self.inject.push_batch(units) > 0 {
            self.queued_globally();
        }
    }

    /// Wakes a machine for what was just put into the global queue.
    pub(super) fn queued_globally(&'static self) {
        submit_fence();
        if self.is_closing() {
            // Shutdown may have looked at the queue before the push, and waits for this very task.
            self.shutdown.unpark();
        } else if self.idle.should_wake() && self.wake_one_as_guest() {
            self.wakes_outside.add(1);
        }
    }

    /// The poll that was stuck is over: its husk goes back to its slot.
    #[cold]
    pub(crate) fn return_husk(&'static self, husk: &'static Processor) {
        context::set_processor(None);
        self.spill(husk);
        // What the stuck poll has spawned has ended elsewhere, or will: until the object is used again only `sysmon`
        // collects it, by and by. SAFETY: this machine has the husk until it is back.
        unsafe { husk.arena.trim() };
        let is_lanes = husk.is_lanes();
        self.slot(husk.index).take_back(husk);
        if is_lanes {
            self.beside.burners_go(1);
        } else {
            self.beside.thread_ends();
        }
        self.agent_left();
    }

    /// [`Sched::return_husk`] on a thread that looks at no queue next. What has just yielded at the end of its slice is
    /// in the global queue, and nobody has been told: a machine would come to it.
    #[cold]
    pub(super) fn leave_husk(&'static self, husk: &'static Processor) {
        self.return_husk(husk);
        if !self.inject.is_empty() {
            self.queued_globally();
        }
    }

    /// A yield: the task does not jump the queue that it made way for; at the end of a slice it goes behind
    /// everybody's. No fence is needed, as this processor comes back to the task itself, or whoever gives it up tells
    /// of the task ([`Sched::leave_husk`]); a wake is only for what else is queued here. The second look at the slot
    /// comes with the next pick, whichever that is.
    ///
    /// # Safety
    ///
    /// This thread holds `p`.
    #[inline]
    unsafe fn ready_yielded(&'static self, p: &'static Processor, unit: Unit) {
        let others = if p.has_budget() {
            // SAFETY: passed on.
            unsafe { p.push(unit) }
        } else {
            self.inject.push(unit);
            // SAFETY: passed on.
            unsafe { p.queue.len() > 0 }
        };
        if (others || p.queue.next.peek() != 0) && self.idle.should_wake() && p.may_wake() {
            self.wake_one_from(p, true);
        }
    }

    /// Queues from a thread without a processor of this runtime. Nothing of the task is touched after the push.
    #[cold]
    pub(crate) fn ready_foreign(&'static self, unit: Unit) {
        if !self.is_of_this_process() {
            // The task is the parent's, and waits there for what wakes it there. A unit has no destructor.
            return;
        }
        self.inject.push(unit);
        self.queued_globally();
    }

    /// Wakes a machine for what is queued on `p`; if it finds nothing, `p` learns it.
    #[cold]
    pub(super) fn wake_one_from(&'static self, p: &Processor, by_spawn: bool) {
        if self.wake_one_waking(p, Some(p.index)) && by_spawn {
            p.counters().spawn_wakes.add(1);
        }
    }

    /// Wakes a machine while `p` says that it stands still for that.
    pub(super) fn wake_one_waking(&'static self, p: &Processor, woken_by: Option<u32>) -> bool {
        p.set_waking(true);
        let woken = self.idle.wake_one(self, woken_by);
        p.set_waking(false);
        if woken {
            p.counters().wakes.add(1);
        }
        woken
    }
}
