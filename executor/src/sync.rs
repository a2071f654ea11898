//! What tasks share: locks that a task waits for without blocking its thread, and channels for one message.

pub use mutex::{Lock, Mutex, MutexGuard, OwnedMutexGuard, TryLockError};

mod mutex;
pub mod oneshot;
