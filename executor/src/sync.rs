//! What tasks share: locks that a task waits for without blocking its thread.

pub use mutex::{Lock, Mutex, MutexGuard, OwnedMutexGuard, TryLockError};

mod mutex;
