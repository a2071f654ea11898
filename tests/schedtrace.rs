//! `GMP_SCHEDTRACE` prints Go's line. The program is an example, as the variable is read when a runtime is built.

use std::process::Command;

/// An example's program, which plain `cargo test` has built.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let program = profile.join("examples").join(name);
    assert!(program.exists(), "build it with `cargo build --example {name}`: {} is missing", program.display());
    Command::new(program)
}

#[test]
fn r25_the_schedtrace_line_is_printed_and_adds_up() {
    let output =
        example("ping_pong").args(["300000", "yield"]).env("GMP_PROCS", "2").env("GMP_SCHEDTRACE", "1").output();
    let printed = String::from_utf8(output.unwrap().stderr).unwrap();
    let lines: Vec<_> = printed.lines().filter(|line| line.starts_with("SCHED ")).collect();
    assert!(!lines.is_empty(), "no line in {printed:?}");
    for line in lines {
        for field in
            ["ms: gomaxprocs=2 ", " idleprocs=", " threads=", " spinningthreads=", " needspinning=", " idlethreads="]
        {
            assert!(line.contains(field), "{field} is missing in {line}");
        }
        let (_, queues) = line.split_once(" runqueue=").unwrap();
        let (queues, ticks) = queues.split_once(" schedticks=[").unwrap();
        let local = queues.split_once('[').unwrap().1.trim_end_matches([' ', ']']);
        assert_eq!(local.split_whitespace().count(), 2, "{line}");
        assert_eq!(ticks.trim_end_matches([' ', ']']).split_whitespace().count(), 2, "{line}");
    }
}

/// The first line would come after the end of time.
#[test]
fn r25_a_line_that_is_never_due_is_not_printed() {
    let output =
        example("ping_pong").args(["1000", "yield"]).env("GMP_SCHEDTRACE", u64::MAX.to_string()).output().unwrap();
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !printed.contains("SCHED") && !printed.contains("panicked"), "{printed:?}");
}

#[test]
fn r24_a_variable_that_is_no_number_is_quoted() {
    for (name, value) in [("GMP_PROCS", "many"), ("GMP_PROCS", "0"), ("GMP_SCHEDTRACE", "often")] {
        let output = example("ping_pong").args(["1", "yield"]).env(name, value).output().unwrap();
        let printed = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(printed.contains(name) && printed.contains(value), "{name}={value} gives {printed:?}");
    }
}
