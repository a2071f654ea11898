//! What `#[gmp::main]` and `#[gmp::test]` expand to: the code here is called by code that the macros emitted, through
//! `gmp::__private`, and by nothing else.
//!
//! 1. The result of a main is turned into its `ExitCode` inside the future that runs it, so the result itself never
//!    leaves the thread that made it and need not be `Send`.
//! 2. A panic of the body goes on in the thread that called the function, with its own payload.
//! 3. The runtime is shut down before the function returns, also when the body panics. A main's stays the default one
//!    until that has ended: what other threads spawn meanwhile is refused and starts no second runtime.
//!
//! `Send` or not is decided by method lookup: `(&Probe).via()` finds `ViaSend for Probe` first, if `F: Send` makes it
//! exist, and else, one reference further, `ViaLocal for &Probe`. The bound is asked of the opaque type of the body's
//! `async fn`, while another function is checked: in the function that defines it the question would be an error.

use gmp_executor::runtime::{Builder, DefaultGuard, Runtime};
use std::marker::PhantomData;
use std::process::{ExitCode, Termination};

/// The processors of a `#[gmp::test]` that names no number: two, so that a test meets work on another thread.
const TEST_PROCS: usize = 2;

/// The traits whose methods pick how a main runs. The emitted code imports all of this module.
pub mod via {
    pub use super::{ViaLocal, ViaSend};
}

/// The type of a body's future, without the future.
pub struct Probe<F>(PhantomData<F>);

impl<F> Probe<F> {
    /// The probe of a future's type.
    pub fn of(_: &F) -> Self {
        Probe(PhantomData)
    }
}

/// The lookup's first choice.
pub trait ViaSend {
    /// Says how to run it.
    fn via(&self) -> Spawned {
        Spawned
    }
}

impl<F: Send> ViaSend for Probe<F> {}

/// The lookup's second choice.
pub trait ViaLocal {
    /// Says how to run it.
    fn via(&self) -> Local {
        Local
    }
}

impl<F> ViaLocal for &Probe<F> {}

/// Runs a main as an ordinary task.
pub struct Spawned;

impl Spawned {
    /// Builds the runtime, runs `body` on it and gives the status that the process ends with.
    #[track_caller]
    pub fn run<F>(self, builder: Builder, body: F) -> ExitCode
    where
        F: Future + Send + 'static,
        F::Output: Termination,
    {
        let (_default, runtime) = match build(builder) {
            Ok(built) => built,
            Err(status) => return status,
        };
        // Here and not in a closure: the task's spawn location is then the attribute that the user wrote.
        let task = runtime.spawn(report(body));
        match runtime.block_on(task) {
            Ok(status) => status,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => {
                eprintln!("Error: main did not end: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

/// Runs a main on the thread that calls it.
pub struct Local;

impl Local {
    /// Builds the runtime, runs `body` on it and gives the status that the process ends with.
    pub fn run<F>(self, builder: Builder, body: F) -> ExitCode
    where
        F: Future,
        F::Output: Termination,
    {
        let (_default, runtime) = match build(builder) {
            Ok(built) => built,
            Err(status) => return status,
        };
        runtime.block_on(report(body))
    }
}

/// The builder of a main, before its arguments.
pub fn main_builder() -> Builder {
    Builder::new()
}

/// The builder of a test, before its arguments.
pub fn test_builder() -> Builder {
    Builder::new().procs(TEST_PROCS).detect_deadlocks(true)
}

/// Runs `body` on a runtime of its own and gives its result. A body that waits in vain panics, with the list of the
/// tasks that do; tasks that are leaked when it ends are told of, as the harness tells of a test's output.
#[track_caller]
pub fn test<F: Future>(builder: Builder, body: F) -> F::Output {
    match builder.build() {
        Ok(runtime) => {
            let output = runtime.block_on(body);
            for leaked in runtime.leaked_tasks() {
                eprintln!("gmp: at the end of the test {leaked} was leaked: it waited, and no waker of it was left");
            }
            output
        }
        Err(error) => panic!("the test's runtime could not be built: {error}"),
    }
}

/// A main's runtime, as the default one. An error of `build` is the caller's to see (`GMP_PROCS`, say), and a main has
/// no caller but the process.
fn build(builder: Builder) -> Result<(DefaultGuard, Runtime), ExitCode> {
    match builder.build() {
        // The guard first: of two names that are bound together the second is dropped first (invariant 3).
        Ok(runtime) => Ok((runtime.install_default(), runtime)),
        Err(error) => {
            eprintln!("Error: the runtime could not be built: {error}");
            Err(ExitCode::FAILURE)
        }
    }
}

async fn report<F>(body: F) -> ExitCode
where
    F: Future,
    F::Output: Termination,
{
    body.await.report()
}
