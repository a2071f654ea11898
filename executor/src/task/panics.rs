//! Panics of users' code in a place where nobody waits for its result: destructors, hooks, wakers.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a destructor and gives back its panic.
pub(super) fn caught(destructor: impl FnOnce()) -> Result<(), Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(destructor))
}

/// Runs a destructor, or a hook, whose panic nobody can be told of. The hook has printed it already.
pub(crate) fn swallow(destructor: impl FnOnce()) {
    if let Err(payload) = caught(destructor) {
        // The payload may be a value whose destructor panics in its turn; leaking that one ends the regress.
        if let Err(again) = caught(|| drop(payload)) {
            std::mem::forget(again);
        }
    }
}
