//! The process-wide default runtime.

use std::io;

use super::builder::Failed;
use super::{Builder, SHUT_DOWN, check};
use crate::sched::RuntimeRef;
use crate::sys::{Mutex, rank};

static DEFAULT: Mutex<Option<RuntimeRef>> = Mutex::new(rank::PROCESS - 1, None);

/// The default runtime; builds it if there is none, or if this is a forked child and the one there is the parent's.
pub(super) fn get() -> io::Result<RuntimeRef> {
    let mut default = DEFAULT.lock();
    if let Some(runtime) = *default {
        if check(runtime, SHUT_DOWN).is_ok() {
            return Ok(runtime);
        }
    }
    let runtime = match Builder::new().try_build() {
        Ok(runtime) => runtime,
        Err(Failed { error, unfinished }) => {
            // Its shutdown joins a thread and wakes whoever waits.
            drop(default);
            drop(unfinished);
            return Err(error);
        }
    };
    let reference = runtime.runtime;
    // It lives as long as the process.
    std::mem::forget(runtime);
    *default = Some(reference);
    Ok(reference)
}

/// The default runtime, if there is one. Builds none.
pub(crate) fn peek() -> Option<RuntimeRef> {
    *DEFAULT.lock()
}

/// Makes `runtime` the default and gives back the one before.
pub(super) fn install(runtime: RuntimeRef) -> Option<RuntimeRef> {
    DEFAULT.lock().replace(runtime)
}

/// Takes `mine` back, if it still is the default.
pub(super) fn uninstall(mine: RuntimeRef, before: Option<RuntimeRef>) {
    let mut default = DEFAULT.lock();
    let still = default.is_some_and(|now| std::ptr::eq(now.sched, mine.sched) && now.generation == mine.generation);
    if still {
        *default = before.filter(|runtime| check(*runtime, SHUT_DOWN).is_ok());
    }
}
