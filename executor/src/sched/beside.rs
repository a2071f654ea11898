//! What goes on without a processor of the table: threads in a poll that has been given up on, and burners, which wait
//! for a lane or are polled there (see `lanes`). Whether there are any is asked together, and a burner goes from one to
//! the other and back; so both are halves of one number, in which it is counted once.

use crate::sys::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// A burner in the number; a thread is one.
const BURNER: u64 = 1 << 32;

pub(crate) struct Beside(AtomicU64);

impl Beside {
    pub(crate) const fn new() -> Self {
        Beside(AtomicU64::new(0))
    }

    pub(crate) fn reset(&self) {
        self.0.store(0, Relaxed);
    }

    /// The poll of one thread more goes on without a processor; gives how many do.
    pub(crate) fn thread_begins(&self) -> usize {
        // AcqRel: pairs with `count`.
        threads(self.0.fetch_add(1, AcqRel)) + 1
    }

    pub(crate) fn thread_ends(&self) {
        // AcqRel: pairs with `count`: who finds that nothing is left sees what this thread has queued.
        let before = self.0.fetch_sub(1, AcqRel);
        debug_assert!(threads(before) > 0, "a poll was not counted as stuck");
    }

    pub(crate) fn burners_come(&self, n: usize) {
        // AcqRel: pairs with `count`.
        self.0.fetch_add(n as u64 * BURNER, AcqRel);
    }

    pub(crate) fn burners_go(&self, n: usize) {
        // AcqRel: as in `thread_ends`.
        let before = self.0.fetch_sub(n as u64 * BURNER, AcqRel);
        debug_assert!(before / BURNER >= n as u64, "a burner was not counted");
    }

    pub(crate) fn threads(&self) -> usize {
        threads(self.0.load(Relaxed))
    }

    /// Threads, and burners.
    pub(crate) fn count(&self) -> usize {
        // Acquire: pairs with the AcqRel of who counts down.
        let both = self.0.load(Acquire);
        threads(both) + (both / BURNER) as usize
    }
}

fn threads(both: u64) -> usize {
    (both % BURNER) as usize
}

#[cfg(all(test, not(gmp_loom)))]
mod tests {
    use super::*;

    #[test]
    fn r23_a_burner_is_counted_all_the_way_and_is_no_stuck_thread() {
        let beside = Beside::new();
        let both = || (beside.threads(), beside.count());
        beside.burners_come(1);
        assert_eq!((beside.thread_begins(), both()), (1, (1, 2)));
        // It yields on a lane: it is queued before its husk is back.
        beside.burners_come(1);
        beside.burners_go(1);
        assert_eq!(both(), (1, 2));
        beside.thread_ends();
        assert_eq!(both(), (0, 1));
        beside.burners_go(1);
        assert_eq!(both(), (0, 0));
    }
}
