//! How many processors a runtime has, for users.

use std::io;

use super::builder::check_procs;
use super::{FORKED, Handle, Runtime, SHUT_DOWN};
use crate::sched::RuntimeRef;

/// How many processors the current runtime has (Go: `runtime.GOMAXPROCS(0)`).
///
/// # Panics
///
/// As [`Handle::current`].
///
/// # Examples
///
/// ```
/// let runtime = gmp::runtime::Builder::new().procs(3).build()?;
/// assert_eq!(runtime.block_on(async { gmp::procs() }), 3);
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub fn procs() -> usize {
    number(Handle::current().runtime)
}

/// Sets how many processors the current runtime has, 1 to 1024, and gives the number before (Go: `runtime.GOMAXPROCS`).
///
/// Nothing is stopped, no task is lost, and nobody is waited for: it returns at once, on any thread, also in a task.
/// New processors begin at once if there is work. Those that are too many are given up as the polls in progress on them
/// end, so for as long as these last more than `procs` tasks may run.
///
/// From here on the number stays: a runtime that went by the CPUs and quotas of this process does so no longer.
///
/// # Errors
///
/// `InvalidInput` if `procs` is 0 or more than 1024. The current runtime is shut down, belongs to the parent process,
/// or cannot be built.
///
/// # Examples
///
/// ```
/// let runtime = gmp::runtime::Builder::new().procs(3).build()?;
/// runtime.block_on(async {
///     assert_eq!(gmp::set_procs(5)?, 3);
///     assert_eq!(gmp::procs(), 5);
///     assert!(gmp::set_procs(0).is_err());
///     Ok::<(), std::io::Error>(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn set_procs(procs: usize) -> io::Result<usize> {
    set(super::current()?, procs)
}

fn number(runtime: RuntimeRef) -> usize {
    if runtime.is_there() { runtime.sched.idle.procs() as usize } else { 0 }
}

fn set(runtime: RuntimeRef, procs: usize) -> io::Result<usize> {
    let procs = check_procs("set_procs", procs, procs)?;
    if !runtime.is_of_this_process() {
        return Err(io::Error::other(FORKED));
    }
    runtime.set_procs(procs).map_err(|_| io::Error::other(SHUT_DOWN))
}

impl Runtime {
    /// How many processors there are; see [`procs`].
    #[must_use]
    pub fn procs(&self) -> usize {
        number(self.runtime)
    }

    /// Sets how many processors there are and gives the number before; see [`set_procs`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` if `procs` is 0 or more than 1024. The runtime belongs to the parent process.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = gmp::runtime::Builder::new().procs(1).build()?;
    /// runtime.set_procs(8)?;
    /// assert_eq!(runtime.procs(), 8);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_procs(&self, procs: usize) -> io::Result<usize> {
        set(self.runtime, procs)
    }
}

impl Handle {
    /// How many processors there are, 0 if the runtime is gone; see [`procs`].
    #[must_use]
    pub fn procs(&self) -> usize {
        number(self.runtime)
    }

    /// Sets how many processors there are and gives the number before; see [`set_procs`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` if `procs` is 0 or more than 1024. The runtime is shut down or belongs to the parent process.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = gmp::runtime::Builder::new().procs(1).build()?;
    /// let handle = runtime.handle();
    /// assert_eq!(handle.set_procs(2)?, 1);
    /// drop(runtime);
    /// assert!(handle.set_procs(2).is_err());
    /// assert_eq!(handle.procs(), 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_procs(&self, procs: usize) -> io::Result<usize> {
        set(self.runtime, procs)
    }
}
