//! The slots of the processor table; the number of processors changes: slots are made, machines asked to quit, queues
//! buried. `idle::resize` has the protocol.
//!
//! 1. The number changes under the lock of `cpus`, so slots are made by one thread at a time, and nobody reads the
//!    files of the cgroups any more once a call that sets the number by hand has returned.
//! 2. A slot whose registry is open is seen by the shutdown that closes it, or whoever made it sees that the runtime
//!    closes.

use std::ops::Range;

use super::{RuntimeRef, Sched};
use crate::context;
use crate::cpus::Cpus;
use crate::idle::Quit;
use crate::processor::{ProcSlot, Processor, QUIT};
use crate::sys::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sys::submit_fence;
use crate::task::registry::{FIRST_OUTSIDE, Shard};

/// The runtime is shut down.
#[derive(Debug)]
pub(crate) struct Closed;

impl RuntimeRef {
    /// Sets the number of processors by hand, which is from 1 to `PROCS_MAX`. Gives the number before.
    pub(crate) fn set_procs(self, procs: usize) -> Result<usize, Closed> {
        let sched = self.sched;
        if !sched.enter(|| self.is_open()) {
            return Err(Closed);
        }
        let before = {
            let mut cpus = sched.cpus.lock();
            *cpus = None;
            sched.resize(procs as u32)
        };
        if before.is_ok() {
            sched.look_after_resize();
        }
        sched.leave();
        before.map(|before| before as usize)
    }
}

impl Sched {
    /// The slot with this index, which must be in use.
    #[inline]
    pub(crate) fn slot(&self, index: u32) -> &'static ProcSlot {
        // Acquire: pairs with the Release in `make_slots`.
        let slot = self.table[index as usize].load(Acquire);
        debug_assert!(!slot.is_null(), "slot {index} was never made");
        // SAFETY: slots are leaked boxes, made before their index is known to anybody.
        unsafe { &*slot }
    }

    /// A shard of the registry, by the number in a task's id.
    #[inline]
    pub(crate) fn shard(&self, index: u32) -> &Shard {
        match index.checked_sub(FIRST_OUTSIDE) {
            Some(outside) => &self.outside[outside as usize],
            None => &self.slot(index).registry,
        }
    }

    /// All shards of the registry.
    pub(crate) fn shards(&self) -> impl Iterator<Item = &Shard> {
        let outside = self.outside.iter().map(|shard| &**shard);
        self.slots().map(|slot| &slot.registry).chain(outside)
    }

    /// The slots in use.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &'static ProcSlot> {
        (0..self.idle.slots()).map(|index| self.slot(index))
    }

    /// The first so many slots that the runtime has not used yet are made. The registry's shards are still closed.
    pub(super) fn make_slots(&'static self, indices: Range<u32>) {
        for index in indices {
            let entry = &self.table[index as usize];
            if entry.load(Relaxed).is_null() {
                let slot = Box::leak(Box::new(ProcSlot::new(self, index)));
                // Release: pairs with the Acquire in `slot`.
                entry.store(slot, Release);
            }
            self.slot(index).open();
        }
    }

    /// `sysmon` asks again what the machine gives, unless somebody has set the number by hand.
    pub(crate) fn refresh_procs(&'static self) {
        let resized = {
            let cpus = self.cpus.lock();
            let Some(procs) = cpus.as_ref().map(Cpus::procs) else {
                return;
            };
            self.sysmon.count_refresh();
            let procs = procs.min(super::PROCS_MAX) as u32;
            procs != self.idle.procs() && self.resize(procs).is_ok()
        };
        if resized {
            self.look_after_resize();
        }
    }

    #[cfg(test)]
    pub(crate) fn cpus_are_unknown(&self) -> bool {
        self.cpus.lock().is_none()
    }

    /// The lock of `cpus` is held, and the caller is a thread that shutdown waits for. It looks at the queues
    /// afterwards.
    fn resize(&'static self, procs: u32) -> Result<u32, Closed> {
        let new = self.idle.slots()..procs;
        if !new.is_empty() {
            self.make_slots(new.clone());
            let generation = self.generation.load(Relaxed);
            new.clone().for_each(|index| self.slot(index).registry.open(generation));
            self.idle.add_slots(procs);
            // Invariant 2: the other fence is in `start_closing`.
            submit_fence();
            if self.is_closing() {
                new.for_each(|index| self.slot(index).registry.close());
                return Err(Closed);
            }
        }
        self.idle.resize(procs, self).ok_or(Closed)
    }

    /// Somebody may have become idle beside queued work, or been buried with it, or have left timers behind.
    fn look_after_resize(&'static self) {
        if self.is_work_visible() {
            self.idle.wake_one(self, None);
        } else {
            self.attend_netpoller();
        }
    }

    /// The machine that holds `p` was asked to quit it. Tells whether it has none now.
    #[cold]
    pub(super) fn quit(&'static self, p: &'static Processor) -> bool {
        // First: whoever asks after the look asks again.
        p.answer(QUIT);
        let slot = self.slot(p.index);
        if p.index >= self.idle.procs() {
            // Once it is dead only `sysmon` collects what lies there, by and by.
            // SAFETY: this machine holds `p`.
            unsafe { p.arena.trim() };
        }
        context::set_processor(None);
        match self.idle.quit(p.index, || slot.is_current(p), self) {
            Quit::Lives => {
                context::set_processor(Some(p));
                return false;
            }
            Quit::Husk => self.return_husk(p),
            Quit::Dead => self.look_after_resize(),
        }
        true
    }

    /// The queue of the dead processor `slot` goes to the front of the global one, run-next task first (Go:
    /// `p.destroy`). The scheduler lock is held.
    pub(super) fn bury_queue(&'static self, slot: u32) {
        let p = self.slot(slot).processor();
        // SAFETY: whoever held it has given it up under the lock.
        let queued = std::iter::from_fn(|| unsafe { p.queue.pop() });
        self.inject.push_front(p.queue.next.take().into_iter().chain(queued));
    }

    /// See [`crate::idle::Host::dismiss`].
    pub(super) fn dismiss_holder(&'static self, slot: u32) -> bool {
        let p = self.slot(slot).processor();
        p.ask(QUIT);
        let status = p.status();
        let taken = status % 2 == 1 && p.retake(status);
        if taken {
            self.call_goes_on_without(p);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runq::tests::{number, unit};
    use crate::sched::Config;

    /// A runtime without a thread, whose processors this one holds.
    fn held(procs: usize) -> (RuntimeRef, Vec<&'static Processor>) {
        let sched: &'static Sched = Box::leak(Box::new(Sched::new()));
        let runtime = sched.open(Config { procs, ..Config::default() }, None);
        let slots = std::iter::from_fn(|| sched.idle.take(sched));
        (runtime, slots.map(|slot| sched.slot(slot).processor()).collect())
    }

    fn queued(sched: &Sched) -> Vec<usize> {
        std::iter::from_fn(|| sched.inject.pop()).map(number).collect()
    }

    #[test]
    fn r03_the_queue_of_a_dying_processor_goes_to_the_front_in_order() {
        let (runtime, processors) = held(2);
        let sched = runtime.sched;
        let p = processors[1];
        for n in 1..=3 {
            // SAFETY: this thread holds the processor.
            unsafe { p.push(unit(n)) };
        }
        let _ = p.queue.next.replace(unit(0));
        sched.inject.push(unit(4));
        assert_eq!(runtime.set_procs(1).unwrap(), 2);
        assert_eq!(p.queue.len_seen(), 3, "its machine has it still");
        assert!(sched.quit(p));
        assert_eq!(queued(sched), [0, 1, 2, 3, 4]);
        assert!(!sched.quit(processors[0]));
    }

    #[test]
    fn r03_the_queue_of_a_processor_in_a_blocking_call_goes_at_once() {
        let (runtime, processors) = held(2);
        let p = processors[1];
        p.begin_poll();
        // SAFETY: this thread holds the processor.
        unsafe { p.push(unit(7)) };
        let status = p.enter_blocking();
        runtime.set_procs(1).unwrap();
        assert!(!p.exit_blocking(status), "it was taken");
        assert!(!p.is_polling());
        assert_eq!(queued(runtime.sched), [7]);
    }

    #[test]
    fn r25_counters_of_a_processor_that_is_gone_stay() {
        let (runtime, processors) = held(3);
        let sched = runtime.sched;
        processors.iter().for_each(|p| p.counters().polled.add(5));
        runtime.set_procs(1).unwrap();
        assert!(sched.quit(processors[2]));
        let metrics = sched.metrics();
        assert_eq!((metrics.procs, metrics.polled, metrics.local_queues.len()), (1, 15, 1));
        assert_eq!(runtime.set_procs(5).unwrap(), 1);
        let metrics = sched.metrics();
        // The second one was never given up.
        assert_eq!((metrics.procs, metrics.idle_procs, metrics.polled), (5, 3, 15));
        assert_eq!((metrics.local_queues.len(), metrics.schedticks.len()), (5, 5));
    }

    #[test]
    fn r14_a_slot_that_is_new_while_the_runtime_closes_takes_no_task() {
        let (runtime, _) = held(1);
        let sched = runtime.sched;
        sched.start_closing();
        assert!(runtime.set_procs(2).is_err());
        assert!(sched.resize(4).is_err());
        assert_eq!(sched.idle.procs(), 1);
        assert!(sched.slots().skip(1).all(|slot| !slot.registry.is_open()));
    }
}
