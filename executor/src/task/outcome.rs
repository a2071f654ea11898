//! What a task comes to, on its way from the cell to the handle: values of the user's, whose destructors may panic.
//!
//! 1. A failure is one word, and so is `Outcome<()>`: every task has room for it.

use std::any::Any;
use std::mem::ManuallyDrop;
use std::ptr::{NonNull, without_provenance_mut};

use super::swallow;

/// What a task comes to.
pub(super) type Outcome<T> = Result<Output<T>, Failure>;

const _: () = assert!(size_of::<Outcome<()>>() == size_of::<usize>());

/// The output. If nobody takes it, its destructor may panic without harm.
pub(super) struct Output<T>(ManuallyDrop<T>);

impl<T> Output<T> {
    #[inline]
    pub(super) fn new(value: T) -> Self {
        Output(ManuallyDrop::new(value))
    }

    #[inline]
    pub(super) fn into_inner(mut self) -> T {
        // SAFETY: `self` is forgotten, so the value is taken once.
        let value = unsafe { ManuallyDrop::take(&mut self.0) };
        std::mem::forget(self);
        value
    }
}

impl<T> Drop for Output<T> {
    fn drop(&mut self) {
        // SAFETY: nobody took the value: `into_inner` forgets `self`.
        swallow(|| unsafe { ManuallyDrop::drop(&mut self.0) });
    }
}

/// Why a task gave no output.
pub(super) enum Cause {
    Aborted,
    Panicked(Box<dyn Any + Send>),
    Shutdown,
    SetDropped,
}

/// A [`Cause`] in one word: the address of a payload, or one that no payload has.
pub(super) struct Failure(NonNull<Box<dyn Any + Send>>);

// SAFETY: it is the payload, or nothing but a number.
unsafe impl Send for Failure {}

impl Failure {
    pub(super) const ABORTED: Failure = Failure::mark(1);
    pub(super) const SHUTDOWN: Failure = Failure::mark(2);
    pub(super) const SET_DROPPED: Failure = Failure::mark(3);

    /// Less than a payload is aligned to.
    const fn mark(number: usize) -> Failure {
        assert!(number < align_of::<Box<dyn Any + Send>>());
        match NonNull::new(without_provenance_mut(number)) {
            Some(mark) => Failure(mark),
            None => unreachable!(),
        }
    }

    pub(super) fn panicked(payload: Box<dyn Any + Send>) -> Self {
        Failure(NonNull::from(Box::leak(Box::new(payload))))
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.0 == Self::ABORTED.0
    }

    pub(super) fn into_cause(self) -> Cause {
        ManuallyDrop::new(self).cause()
    }

    /// Call it once.
    fn cause(&self) -> Cause {
        match self.0.addr().get() {
            1 => Cause::Aborted,
            2 => Cause::Shutdown,
            3 => Cause::SetDropped,
            // SAFETY: it is no mark, so `panicked` made it of a box, which is taken once.
            _ => Cause::Panicked(*unsafe { Box::from_raw(self.0.as_ptr()) }),
        }
    }
}

impl Drop for Failure {
    fn drop(&mut self) {
        let cause = self.cause();
        swallow(|| drop(cause));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_failure_says_what_it_was_made_of() {
        assert!(matches!(Failure::ABORTED.into_cause(), Cause::Aborted));
        assert!(matches!(Failure::SHUTDOWN.into_cause(), Cause::Shutdown));
        assert!(matches!(Failure::SET_DROPPED.into_cause(), Cause::SetDropped));
        assert!(Failure::ABORTED.is_aborted() && !Failure::SHUTDOWN.is_aborted());
        let Cause::Panicked(payload) = Failure::panicked(Box::new(7_u64)).into_cause() else {
            panic!("it is a panic's");
        };
        assert_eq!(*payload.downcast::<u64>().unwrap(), 7);
    }

    #[test]
    fn a_payload_is_dropped_once_and_may_panic() {
        struct Bomb(Arc<()>);
        impl Drop for Bomb {
            fn drop(&mut self) {
                assert_eq!(Arc::strong_count(&self.0), 0, "a payload's destructor panics");
            }
        }
        let here = Arc::new(());
        drop(Failure::panicked(Box::new(here.clone())));
        assert_eq!(Arc::strong_count(&here), 1);
        drop(Failure::panicked(Box::new(Bomb(here.clone()))));
        assert_eq!(Arc::strong_count(&here), 1, "its fields go all the same");
    }
}
