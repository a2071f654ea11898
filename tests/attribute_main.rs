//! A program under `#[gmp::main]`, as its parent process sees it: status and standard error. Without `ROLE` it
//! is the parent.

use std::error::Error;
use std::process::{Command, ExitCode, Output};
use std::sync::mpsc::channel;
use std::{env, thread};

/// The environment variable that makes it a child. Not an argument: those are the test filters of `cargo test`.
const ROLE: &str = "GMP_ATTRIBUTE_MAIN";

#[gmp::main(procs = 2)]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    match env::var(ROLE).as_deref() {
        Ok("status") => return Ok(ExitCode::from(7)),
        Ok("error") => return Err("no such luck".into()),
        Ok("panic") => panic!("struck"),
        Ok("ends") => {
            ask_at_shutdown();
            return Ok(ExitCode::SUCCESS);
        }
        Ok("ends locally") => {
            assert_eq!(gmp::spawn_blocking(local).await?, ExitCode::SUCCESS);
            eprintln!("then {}", thread::spawn(gmp::procs).join().unwrap());
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    // Its first poll may be the main thread's, which waits for it.
    gmp::yield_now().await;
    assert_ne!(thread::current().name(), Some("main"), "a main that is `Send` is a task");

    let status = child("status");
    assert_eq!((status.status.code(), text(&status)), (Some(7), ""), "r12_a_status_of_main");

    let error = child("error");
    assert_eq!((error.status.code(), text(&error)), (Some(1), "Error: \"no such luck\"\n"), "r12_an_error_of_main");

    let panic = child("panic");
    assert_eq!(panic.status.code(), Some(101), "r12_a_panic_of_main");
    assert_eq!(text(&panic).matches("struck").count(), 1, "{}", text(&panic));

    // Its runtime refuses what others spawn until it is gone; a second one would have other `procs`.
    let refused = "did not end: runtime shut down\n";
    let ends = child("ends");
    assert_eq!((ends.status.code(), text(&ends)), (Some(0), &*format!("2 {refused}")), "r14_a_main_that_ends");
    let ends = child("ends locally");
    let expected = format!("3 {refused}then 2\n");
    assert_eq!((ends.status.code(), text(&ends)), (Some(0), &*expected), "r14_a_local_main_that_ends");

    Ok(ExitCode::SUCCESS)
}

#[gmp::main(local, procs = 3)]
async fn local() {
    ask_at_shutdown();
}

/// While a task's future is dropped at shutdown a thread of no runtime asks what is the default one, and spawns.
fn ask_at_shutdown() {
    let (shuts_down, is_shutting_down) = channel();
    let (asked, was_asked) = channel();
    thread::spawn(move || {
        is_shutting_down.recv().unwrap();
        let procs = gmp::procs();
        let error = gmp::block_on(gmp::spawn(async {})).unwrap_err().to_string();
        // Behind the place of the `spawn`.
        eprintln!("{procs} {}", error.split_once(") ").unwrap().1);
        asked.send(()).unwrap();
    });
    let at_drop = AtDrop(Some(move || {
        shuts_down.send(()).unwrap();
        was_asked.recv().unwrap();
    }));
    drop(gmp::spawn(async move {
        let _at_drop = at_drop;
        std::future::pending::<()>().await;
    }));
}

struct AtDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for AtDrop<F> {
    fn drop(&mut self) {
        self.0.take().unwrap()();
    }
}

/// This program again, in one of its other roles.
fn child(role: &str) -> Output {
    let this = env::current_exe().expect("the path of this program");
    Command::new(this)
        .env(ROLE, role)
        .env("GMP_PROCS", "5")
        .env_remove("GMP_SCHEDTRACE")
        .output()
        .expect("a child process")
}

fn text(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("standard error is text")
}
