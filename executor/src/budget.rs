//! How long a task may go on before it yields (cooperative scheduling; it stands in for Go's `morestack` preemption).
//! Every leaf future of the runtime that could complete at once takes a unit from the budget of the time slice.
//!
//! 1. A refused operation has no effect: the leaf wakes its task and returns pending before it does anything.
//! 2. An operation that returns pending on its own, or fails to start, gives its unit back.
//! 3. It is a brake, not a gate: in one poll of a task the leaves refuse at most `REFUSALS` times, then they let
//!    operations through until the poll ends. A foreign `block_on` inside a poll would else loop for ever.
//! 4. Where there is no processor, or inside [`unconstrained`], nothing is refused.

use std::pin::Pin;
use std::task::{Context, Poll};

use crate::context;
use crate::processor::Processor;

/// Units in a slice.
pub(crate) const BUDGET: u32 = 128;
/// How often the leaves refuse in one poll.
pub(crate) const REFUSALS: u32 = 64;

/// A unit taken from the budget. Dropping it gives the unit back; [`Charge::made_progress`] spends it.
#[derive(Debug)]
#[must_use]
pub struct Charge(Option<&'static Processor>);

impl Charge {
    /// The operation completed: the unit is spent.
    #[inline]
    pub fn made_progress(mut self) {
        self.0 = None;
    }
}

impl Drop for Charge {
    #[inline]
    fn drop(&mut self) {
        if let Some(p) = self.0 {
            p.refund();
        }
    }
}

/// Takes a unit, or wakes the task and is pending if the slice is spent.
#[inline]
pub fn poll_charge(cx: &mut Context<'_>) -> Poll<Charge> {
    match slice() {
        Some(slice) => Poll::Ready(slice.charge()),
        None => poll_refuse(cx),
    }
}

/// A time slice with a unit to spend, or a thread that has none: for leaves that first try what is done in a few
/// instructions.
#[derive(Debug)]
#[must_use]
pub(crate) struct Slice(Option<&'static Processor>);

/// `None` if the slice is spent.
#[inline]
pub(crate) fn slice() -> Option<Slice> {
    let p = context::constrained_processor();
    if p.is_none_or(Processor::has_budget) { Some(Slice(p)) } else { None }
}

impl Slice {
    /// The operation completed at once.
    #[inline]
    pub(crate) fn spend(self) {
        if let Some(p) = self.0 {
            p.spend();
        }
    }

    /// Takes the unit before the operation.
    #[inline]
    pub(crate) fn charge(self) -> Charge {
        if let Some(p) = self.0 {
            p.spend();
        }
        Charge(self.0)
    }
}

/// The slice is spent.
#[cold]
pub(crate) fn poll_refuse(cx: &mut Context<'_>) -> Poll<Charge> {
    if context::constrained_processor().is_some_and(Processor::may_refuse) {
        cx.waker().wake_by_ref();
        Poll::Pending
    } else {
        Poll::Ready(Charge(None))
    }
}

/// Whether the running task may go on without yielding: leaves would not refuse it now.
///
/// # Examples
///
/// ```
/// gmp::block_on(async {
///     assert!(gmp::task::coop::has_budget_remaining());
/// });
/// ```
#[must_use]
pub fn has_budget_remaining() -> bool {
    context::constrained_processor().is_none_or(Processor::has_budget)
}

/// Takes a unit of the budget, yielding if the slice is spent. A loop without other leaves calls it to stay polite.
///
/// # Cancel safety
///
/// Strict: dropping it loses nothing.
///
/// # Examples
///
/// ```
/// gmp::block_on(async {
///     let mut sum = 0u64;
///     for n in 0..1000 {
///         sum += n;
///         gmp::task::coop::consume_budget().await;
///     }
///     assert_eq!(sum, 499_500);
/// });
/// ```
pub async fn consume_budget() {
    std::future::poll_fn(|cx| poll_charge(cx).map(Charge::made_progress)).await;
}

/// The future of [`unconstrained`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Unconstrained<F>(F);

/// Runs `future` without a budget: its leaves never make it yield.
///
/// # Cancel safety
///
/// That of `future`.
///
/// # Examples
///
/// ```
/// gmp::block_on(gmp::task::coop::unconstrained(async {
///     for _ in 0..1000 {
///         gmp::task::coop::consume_budget().await;
///     }
/// }));
/// ```
pub fn unconstrained<F: Future>(future: F) -> Unconstrained<F> {
    Unconstrained(future)
}

impl<F: Future> Future for Unconstrained<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _free = context::enter_unconstrained();
        // SAFETY: the inner future is pinned with the outer one and never moved out of it.
        unsafe { self.map_unchecked_mut(|u| &mut u.0) }.poll(cx)
    }
}
