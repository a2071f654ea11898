//! Breaking the blocked wait (Go: netpollBreak, netpollWakeSig). The backends write and read the event; the word here
//! decides who does.
//!
//! 1. The event is level-triggered and only the thread that was blocked reads it: a zero-timeout poll of another thread
//!    sees it and leaves it. (Edge-triggered, 78 % of the breaks went to such polls.)
//! 2. The blocked thread first reads the event, then clears `pending`, then looks again at what it waits for. The other
//!    way round a break between the two would leave `pending` set with no event behind it, and be the last one ever.

use crate::sys::atomic::AtomicBool;
use crate::sys::atomic::Ordering::AcqRel;

/// Whether a break is under way.
pub(crate) struct Breaks {
    pending: AtomicBool,
}

impl Breaks {
    #[cfg(not(gmp_loom))]
    pub(crate) const fn new() -> Self {
        Breaks { pending: AtomicBool::new(false) }
    }

    #[cfg(gmp_loom)]
    pub(crate) fn new() -> Self {
        Breaks { pending: AtomicBool::new(false) }
    }

    /// Asks for a break: whether the caller has to write the event.
    #[must_use]
    pub(crate) fn request(&self) -> bool {
        // AcqRel: pairs with the swap in `taken`, whose thread then sees what was published before the break.
        !self.pending.swap(true, AcqRel)
    }

    /// The blocked thread has read the event (invariant 2).
    pub(crate) fn taken(&self) {
        // AcqRel: pairs with the swap in `request`. A store would not see what a break that wrote no event published.
        self.pending.swap(false, AcqRel);
    }

    /// Whether a break is under way.
    #[cfg(not(gmp_loom))]
    pub(crate) fn is_pending(&self) -> bool {
        // Acquire: pairs with the swap in `request`.
        self.pending.load(crate::sys::atomic::Ordering::Acquire)
    }
}
