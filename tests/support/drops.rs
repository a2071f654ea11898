//! Values that count their drops.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many guards have been dropped.
#[derive(Clone, Default)]
pub struct Drops(Arc<AtomicUsize>);

impl Drops {
    /// A value whose drop is counted.
    pub fn guard(&self) -> Guard {
        Guard(self.0.clone())
    }

    /// Drops so far.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// See [`Drops::guard`].
#[derive(Debug)]
pub struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
