//! `#[gmp::main]` and `#[gmp::test]` on functions that a test can call. `attribute_main` has a real `main`,
//! `compile_fail` what the compiler must refuse.

#![deny(warnings)]
#![forbid(unused_imports)]

use std::cell::RefCell;
use std::error::Error;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Mutex;
use std::thread::{self, ThreadId};

/// Where the bodies of the mains leave what they saw: they have no parameters, and their result is an `ExitCode`.
struct Seen(Mutex<Option<(ThreadId, String, usize)>>);

impl Seen {
    const fn new() -> Self {
        Seen(Mutex::new(None))
    }

    fn note(&self) {
        let thread = thread::current();
        let seen = (thread.id(), thread.name().unwrap_or_default().to_owned(), gmp::procs());
        *self.0.lock().unwrap() = Some(seen);
    }

    fn take(&self) -> (ThreadId, String, usize) {
        self.0.lock().unwrap().take().expect("the body ran")
    }
}

/// `ExitCode` has no `PartialEq`.
fn assert_status(left: ExitCode, right: ExitCode) {
    assert_eq!(format!("{left:?}"), format!("{right:?}"));
}

/// Pending once, so that what a body holds is held across a suspension.
async fn turn() {
    let mut turned = false;
    std::future::poll_fn(|context| {
        if turned {
            return std::task::Poll::Ready(());
        }
        turned = true;
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await
}

#[test]
fn r12_a_send_main_is_a_task() {
    static SEEN: Seen = Seen::new();
    #[gmp::main(procs = 2, name = "kestrel")]
    async fn not_main() {
        // `Rc` alone does not make a future `!Send`: it would have to live across the await.
        assert_eq!(*Rc::new(1), 1);
        turn().await;
        SEEN.note();
    }
    assert_status(not_main(), ExitCode::SUCCESS);
    let (thread, name, procs) = SEEN.take();
    assert_ne!(thread, thread::current().id());
    assert!(name.starts_with("kestrel"), "{name}");
    assert_eq!(procs, 2);
}

#[test]
fn r12_a_main_that_is_not_send_stays_on_its_thread() {
    static SEEN: Seen = Seen::new();
    #[gmp::main(worker_threads = 1)]
    async fn not_main() {
        let held = Rc::new(RefCell::new(0));
        turn().await;
        *held.borrow_mut() += 1;
        SEEN.note();
    }
    assert_status(not_main(), ExitCode::SUCCESS);
    let (thread, _, procs) = SEEN.take();
    assert_eq!(thread, thread::current().id());
    assert_eq!(procs, 1);
}

#[test]
fn r12_local_and_send_choose() {
    static SEEN: Seen = Seen::new();
    #[gmp::main(local, procs = 1)]
    async fn local() {
        turn().await;
        SEEN.note();
    }
    #[gmp::main(send, procs = 1)]
    async fn send() {
        turn().await;
        SEEN.note();
    }
    assert_status(local(), ExitCode::SUCCESS);
    assert_eq!(SEEN.take().0, thread::current().id());
    assert_status(send(), ExitCode::SUCCESS);
    assert_ne!(SEEN.take().0, thread::current().id());
}

#[test]
fn r12_a_result_that_is_not_send_is_still_a_task() {
    static SEEN: Seen = Seen::new();
    #[gmp::main(procs = 2, send)]
    async fn fails() -> Result<(), Box<dyn Error>> {
        turn().await;
        SEEN.note();
        "four".parse::<u32>()?;
        Ok(())
    }
    #[gmp::main(procs = 2)]
    async fn succeeds() -> Result<(), Rc<str>> {
        SEEN.note();
        Ok(())
    }
    assert_status(fails(), ExitCode::FAILURE);
    assert_ne!(SEEN.take().0, thread::current().id());
    assert_status(succeeds(), ExitCode::SUCCESS);
    assert_ne!(SEEN.take().0, thread::current().id());
}

#[test]
fn r12_a_status_is_kept() {
    #[gmp::main(procs = 1, crate = "::gmp")]
    async fn with_all_arguments() -> ExitCode {
        ExitCode::from(7)
    }
    #[gmp::main(flavor = "multi_thread", procs = 1)]
    async fn from_a_port() -> Result<ExitCode, std::num::ParseIntError> {
        "9".parse::<u8>().map(ExitCode::from)
    }
    #[gmp::main(procs = 1)]
    async fn anything() -> impl std::process::Termination {
        ExitCode::from(11)
    }
    assert_status(with_all_arguments(), ExitCode::from(7));
    assert_status(from_a_port(), ExitCode::from(9));
    assert_status(anything(), ExitCode::from(11));
}

#[test]
fn r12_a_panic_in_main_goes_on_in_the_calling_thread() {
    #[derive(Debug, PartialEq)]
    struct Payload(u32);
    #[gmp::main(procs = 1, send)]
    async fn spawned() {
        turn().await;
        std::panic::panic_any(Payload(1));
    }
    #[gmp::main(procs = 1, local)]
    async fn local() -> ! {
        turn().await;
        std::panic::panic_any(Payload(2));
    }
    for (main, payload) in [(spawned as fn() -> ExitCode, Payload(1)), (local, Payload(2))] {
        let panic = std::panic::catch_unwind(main).expect_err("the body panics");
        assert_eq!(panic.downcast_ref(), Some(&payload));
    }
}

mod renamed {
    pub mod nested {
        pub use gmp as runtime;
    }

    #[gmp::main(crate = "crate::renamed::nested::runtime", procs = 1)]
    pub(super) async fn not_main() -> ExitCode {
        turn().await;
        super::ExitCode::from(3)
    }

    use super::{ExitCode, turn};
}

#[test]
fn r24_a_renamed_crate_is_named() {
    assert_status(renamed::not_main(), ExitCode::from(3));
}

/// Attributes that come through `macro_rules!` arrive in invisible groups.
macro_rules! mains {
    ($($(#[$attribute:meta])* $visibility:vis $name:ident: $procs:literal => $result:ty, $body:block)*) => {
        $(
            $(#[$attribute])*
            #[gmp::main(procs = $procs)]
            $visibility async fn $name() -> $result $body
        )*
    };
}

mains! {
    /// Documented.
    #[allow(unused_variables)]
    pub(crate) from_macro: 2 => ExitCode, { let unused = 1; ExitCode::from(gmp::procs() as u8) }
    also_from_macro: 1 => Result<(), Box<dyn Error>>, { Err("no")? }
}

#[test]
fn r24_attributes_inside_macros() {
    assert_status(from_macro(), ExitCode::from(2));
    assert_status(also_from_macro(), ExitCode::FAILURE);
}

#[gmp::test]
async fn r24_a_test_has_two_procs_and_its_own_thread() {
    let held = Rc::new(());
    turn().await;
    drop(held);
    assert_eq!(gmp::procs(), 2);
    assert_eq!(thread::current().name(), Some("r24_a_test_has_two_procs_and_its_own_thread"));
}

#[gmp::test(procs = 3, name = "t")]
async fn r24_a_test_takes_arguments() {
    assert_eq!(gmp::procs(), 3);
}

/// Documented, as a test may be.
#[gmp::test]
#[should_panic(expected = "its own words 42")]
async fn r12_a_panic_in_a_test_keeps_its_message() {
    turn().await;
    panic!("its own words {}", 42);
}

#[should_panic(expected = "above")]
#[gmp::test]
async fn r12_attributes_above_count_too() {
    panic!("from above");
}

#[gmp::test]
#[ignore = "only listed, by the test below"]
async fn r24_ignored() {}

#[test]
fn r24_an_ignored_test_is_listed_as_such() {
    let this = std::env::current_exe().unwrap();
    let list = std::process::Command::new(this).args(["--list", "--ignored"]).output().unwrap();
    assert_eq!(String::from_utf8(list.stdout).unwrap().lines().next(), Some("r24_ignored: test"));
}

#[gmp::test]
async fn r24_a_test_may_have_a_result() -> Result<(), Box<dyn Error>> {
    turn().await;
    assert_eq!("4".parse::<u32>()?, 4);
    Ok(())
}

#[gmp::test]
async fn r24_a_test_may_have_a_status() -> ExitCode {
    ExitCode::SUCCESS
}

#[gmp::test]
#[expect(unused_mut, reason = "lint attributes reach the body")]
async fn r24_lint_attributes_reach_the_body() {
    let mut never_changed = 1;
    assert_eq!(never_changed, 1);
}
