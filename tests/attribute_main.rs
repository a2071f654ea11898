//! A program under `#[gmp::main]`, as its parent process sees it: status and standard error. Without `ROLE` it
//! is the parent.

use std::error::Error;
use std::process::{Command, ExitCode, Output};
use std::{env, thread};

/// The environment variable that makes it a child. Not an argument: those are the test filters of `cargo test`.
const ROLE: &str = "GMP_ATTRIBUTE_MAIN";

#[gmp::main(procs = 2)]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    match env::var(ROLE).as_deref() {
        Ok("status") => return Ok(ExitCode::from(7)),
        Ok("error") => return Err("no such luck".into()),
        Ok("panic") => panic!("struck"),
        _ => {}
    }
    // Its first poll may be the main thread's, which waits for it.
    gmp::task::yield_now().await;
    assert_ne!(thread::current().name(), Some("main"), "a main that is `Send` is a task");

    let status = child("status");
    assert_eq!((status.status.code(), text(&status)), (Some(7), ""), "r12_a_status_of_main");

    let error = child("error");
    assert_eq!((error.status.code(), text(&error)), (Some(1), "Error: \"no such luck\"\n"), "r12_an_error_of_main");

    let panic = child("panic");
    assert_eq!(panic.status.code(), Some(101), "r12_a_panic_of_main");
    assert_eq!(text(&panic).matches("struck").count(), 1, "{}", text(&panic));

    Ok(ExitCode::SUCCESS)
}

/// This program again, in one of its other roles.
fn child(role: &str) -> Output {
    let this = env::current_exe().expect("the path of this program");
    Command::new(this).env(ROLE, role).output().expect("a child process")
}

fn text(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("standard error is text")
}
