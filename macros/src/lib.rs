//! The attributes of gmp. Users reach them as `gmp::main` and `gmp::test`; the code that they emit calls
//! `gmp::__private` and nothing else.
//!
//! 1. The tokens of the user's body and result type go through untouched, so errors in them point at the user's line.
//! 2. The body becomes an `async fn` item of its own: the compiler can then tell whether its future is `Send` while it
//!    checks the function around it. For an `async` block in the same function that is a hard error.
//! 3. Whatever is wrong with the arguments, a function still comes out, so that one mistake gives one error.

use proc_macro::TokenStream;

mod arguments;
mod expand;
mod function;
mod tokens;

/// Makes an `async fn` the entry point of a program: builds the runtime, runs the function on it, shuts it down.
///
/// The runtime is the process-wide default one until the function returns: `gmp::spawn` means it on every thread, also
/// while it is shut down, when it refuses what is spawned. A thread of yours that waits for a sleep then, in another
/// executor than `gmp::block_on`, waits for ever.
///
/// The function takes no parameters, has no generics and, in an `impl`, knows no `Self`. Its result may be anything
/// that `fn main` may return, and means the same: an `Err` is printed and the process ends with status 1; it need not
/// be `Send`. A panic in the function goes on in the main thread, so the process ends with status 101. A runtime that
/// cannot be built is reported on standard error, with status 1.
///
/// The function that comes out is not async, and what it returns is always an `ExitCode`, which `main` returns to the
/// system. One that is not `main` itself is called by it: `fn main() -> ExitCode { run() }`. Its `Err` has then been
/// printed and is a status; who wants the body's own result calls an `async fn` without the attribute in
/// `gmp::block_on`.
///
/// If the future of the function is `Send` it is spawned as an ordinary task and the main thread waits; what it spawns
/// then lands in the queue of the processor that it runs on. In the first millisecond the main thread may poll it, so
/// that what is in a thread-local before the first `.await` need not be there after it, as in any task. Otherwise it is
/// polled on the main thread.
///
/// Other attributes go to the function that comes out, which is not async: one that wraps the call, as
/// `#[tracing::instrument]`, wraps building the runtime and waiting for the body, which may run on another thread.
///
/// | argument | meaning | left out |
/// |---|---|---|
/// | `procs = 4` | the number of processors; `worker_threads = 4` is the same | `GMP_PROCS`, else the machine |
/// | `name = "web"` | what the names of the runtime's threads start with | `gmp` |
/// | `crate = "path::to::gmp"` | where gmp is, if it was renamed or re-exported | `"::gmp"` |
/// | `send` | a future that is not `Send` is a compile error | either will do |
/// | `local` | always polled on the main thread, for libraries that insist on it | either will do |
///
/// `flavor = "multi_thread"` is accepted and changes nothing. A spawned main has the stack of any runtime thread, which
/// is smaller than the main thread's: `local` is the way back to that.
///
/// Go: `func main`, which runs on a goroutine.
///
/// # Panics
///
/// The function that comes out panics where the body does.
///
/// # Examples
///
/// ```
/// #[gmp::main(procs = 2)]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let answer: u32 = "42".parse()?;
///     assert_eq!(answer, 42);
///     Ok(())
/// }
/// ```
///
/// There is one scheduler, so there is no flavor to choose:
///
/// ```compile_fail
/// #[gmp::main(flavor = "current_thread")]
/// async fn main() {}
/// ```
///
/// With `send`, what would move the body to the main thread is an error:
///
/// ```compile_fail
/// #[gmp::main(send)]
/// async fn main() {
///     let shared = std::rc::Rc::new(1);
///     std::future::ready(()).await;
///     assert_eq!(*shared, 1);
/// }
/// ```
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::main(arguments, item)
}

/// Makes an `async fn` a test that runs on a runtime of its own, which is shut down when the test ends.
///
/// The function takes no parameters, has no generics and knows no `Self`; its result is the test's, so `Result<(), E>`
/// works, and it need not be `Send`. Attributes such as `#[should_panic]` and `#[ignore]` keep their meaning: a panic
/// unwinds through the test with its own payload. The future is polled on the test's own thread, and what it spawns
/// runs on the runtime's.
///
/// | argument | meaning | left out |
/// |---|---|---|
/// | `procs = 4` | the number of processors; `worker_threads = 4` is the same | 2 |
/// | `start_paused = true` | the clock stands and jumps when all is idle, as after `gmp::time::pause` | it goes |
/// | `name = "web"` | what the names of the runtime's threads start with | `gmp` |
/// | `crate = "path::to::gmp"` | where gmp is, if it was renamed or re-exported | `"::gmp"` |
/// | `external_wakers` | threads that are not the runtime's wake its tasks: only exact leaks fail the test | it looks for deadlocks |
///
/// `flavor = "multi_thread"` is accepted and changes nothing.
///
/// A test that waits in vain fails instead of hanging: the runtime is built with `Builder::detect_deadlocks`, which
/// says what is found. At once if the body waits and no waker of it is left; after a second in which nothing ran and
/// nothing that the runtime knows of could wake a task. The second is a guess, for nobody knows what plain threads are
/// about to do: a test that waits for one longer than that says `external_wakers`. Tasks that are leaked when the body
/// ends are told of on standard error, and do not fail the test: a task may wait for ever by intention.
///
/// # Panics
///
/// The test panics if the runtime cannot be built, where the body does, and if it waits in vain, with the list of those
/// who wait and where they were spawned.
///
/// # Examples
///
/// ```
/// #[gmp::test]
/// async fn adds() {
///     assert_eq!(async { 1 + 1 }.await, 2);
/// }
///
/// #[gmp::test(procs = 1)]
/// #[should_panic(expected = "not a number")]
/// async fn refuses_words() {
///     "four".parse::<u32>().expect("not a number");
/// }
///
/// #[gmp::test]
/// #[should_panic(expected = "deadlock")]
/// async fn waits_for_nothing() {
///     std::future::pending::<()>().await;
/// }
/// ```
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::test(arguments, item)
}
