//! How long a task may go on before it yields. This form refuses nothing; the scheduler's replaces it.

use std::task::{Context, Poll};

/// A unit taken from the budget; dropping it gives the unit back.
#[derive(Debug)]
#[must_use]
pub(crate) struct Charge(());

impl Charge {
    /// The operation had its effect: the unit is spent.
    pub(crate) fn made_progress(self) {}
}

/// Takes a unit for an operation that may complete at once.
pub(crate) fn poll_charge(_cx: &mut Context<'_>) -> Poll<Charge> {
    Poll::Ready(Charge(()))
}
