//! What the attributes, and the bounds of tasks on one thread, refuse: each case is a program in a package that is
//! checked by cargo, and the errors must be the ones named, on the user's line, and no others. A case without errors is
//! one that the lints must leave alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program and all the errors that it gives: the line, and a part of the text.
struct Case {
    name: &'static str,
    source: &'static str,
    errors: &'static [(usize, &'static str)],
}

const CASES: &[Case] = &[
    Case {
        name: "strict_lints_say_nothing",
        source: "//! Strict.\n\
            #![forbid(warnings, unused, future_incompatible, nonstandard_style, rust_2018_idioms, unsafe_code)]\n\
            #![forbid(missing_docs, unreachable_pub, unused_qualifications, unused_results)]\n\
            use std::process::ExitCode;\n\
            #[gmp::main]\nasync fn main() {}\n\
            /// Documented.\n#[gmp::main(send)]\npub async fn spawned() -> ExitCode { ExitCode::SUCCESS }\n\
            /// Documented.\n#[gmp::main(local)]\npub async fn local() -> ExitCode { ExitCode::SUCCESS }\n\
            /// Documented.\n#[must_use = \"mine\"]\n#[gmp::main]\npub async fn must() {}\n",
        errors: &[],
    },
    Case {
        name: "spawn_is_a_statement",
        source: "#![forbid(warnings, unused)]\nfn main() {\n    gmp::spawn(async {});\n    \
            gmp::spawn_blocking(|| ());\n    gmp::task::spawn_pinned(|| async {});\n}\n",
        errors: &[],
    },
    Case {
        name: "status_of_a_main_is_dropped",
        source: "#![deny(warnings)]\nfn main() {\n    run();\n}\n\
            #[gmp::main]\nasync fn run() -> Result<(), std::fmt::Error> {\n    Err(std::fmt::Error)\n}\n",
        errors: &[(3, "unused return value of `run` that must be used")],
    },
    Case {
        name: "status_of_a_main_is_returned",
        source: "#![deny(warnings)]\nfn main() -> std::process::ExitCode {\n    run()\n}\n\
            #[gmp::main]\nasync fn run() -> Result<(), std::fmt::Error> {\n    Err(std::fmt::Error)\n}\n",
        errors: &[],
    },
    Case {
        name: "test_strict_lints_say_nothing",
        source: "//! Strict.\n\
            #![forbid(warnings, unused, future_incompatible, nonstandard_style, rust_2018_idioms, unsafe_code)]\n\
            #![forbid(missing_docs, unreachable_pub, unused_qualifications, unused_results)]\n\
            #[gmp::test]\nasync fn passes() -> Result<(), std::fmt::Error> { Ok(()) }\n",
        errors: &[],
    },
    Case {
        name: "main_is_not_async",
        source: "#[gmp::main]\nfn main() {}\n",
        errors: &[(2, "`#[gmp::main]` goes on an `async fn`: write `async fn main`")],
    },
    Case {
        name: "main_is_not_a_function",
        source: "#[gmp::main]\nstruct Main;\nfn main() {}\n",
        errors: &[(2, "`#[gmp::main]` goes on an `async fn`")],
    },
    Case {
        name: "main_is_unsafe",
        source: "#[gmp::main]\nasync unsafe fn main() {}\n",
        errors: &[(2, "`#[gmp::main]` goes on a plain `async fn`, without this")],
    },
    Case {
        name: "main_has_parameters",
        source: "#[gmp::main]\nasync fn main(\n    _: u8,\n) {}\n",
        errors: &[(2, "has no parameters: leave the attribute out, and call it in `gmp::block_on`")],
    },
    Case {
        name: "main_has_generics",
        source: "#[gmp::main]\nasync fn main<T>() {}\n",
        errors: &[(2, "has no generics: leave the attribute out, and call it in `gmp::block_on`")],
    },
    Case {
        name: "main_has_a_where_clause",
        source: "#[gmp::main]\nasync fn main()\nwhere\n    u8: Copy,\n{\n}\n",
        errors: &[(3, "a function under `#[gmp::main]` has no generics")],
    },
    Case {
        name: "unknown_argument",
        source: "#[gmp::main(\n    procs = 2,\n    unhandled_panic = \"ignore\",\n)]\nasync fn main() {}\n",
        errors: &[(
            3,
            "unknown argument `unhandled_panic`: `#[gmp::main]` takes `procs = 4` (or `worker_threads = 4`), \
             `name = \"web\"`, `crate = \"path\"`, `send`, `local`",
        )],
    },
    Case {
        name: "no_argument_at_all",
        source: "#[gmp::main(procs = 2,, 4)]\nasync fn main() {}\n",
        errors: &[(1, "this is no argument: `#[gmp::main]` takes"), (1, "this is no argument: `#[gmp::main]` takes")],
    },
    Case {
        name: "every_wrong_argument_is_named",
        source: "#[gmp::main(\n    procs = \"two\",\n    name = web,\n\
            \x20   crate = \"a b\",\n    send = true,\n)]\nasync fn main() {}\n",
        errors: &[
            (2, "`procs` is a whole number: `procs = 4`"),
            (3, "`name` is a string: `name = \"web\"`"),
            (4, "`crate` is a path in a string: `crate = \"my::gmp\"`"),
            (5, "`send` has no value: `#[gmp::main(send)]`"),
        ],
    },
    Case {
        name: "argument_given_twice",
        source: "#[gmp::main(procs = 2, worker_threads = 2)]\nasync fn main() {}\n",
        errors: &[(1, "`procs` is given twice")],
    },
    Case {
        name: "send_and_local",
        source: "#[gmp::main(send, local)]\nasync fn main() {}\n",
        errors: &[(1, "`send` and `local` exclude each other")],
    },
    Case {
        name: "flavor_current_thread",
        source: "#[gmp::main(flavor = \"current_thread\")]\nasync fn main() {}\n",
        errors: &[(1, "gmp has one scheduler: use `procs = 1`")],
    },
    Case {
        name: "main_start_paused",
        source: "#[gmp::main(start_paused = true)]\nasync fn main() {}\n",
        errors: &[(1, "`start_paused` is for `#[gmp::test]`: a main whose time stands calls `gmp::time::pause`")],
    },
    Case {
        name: "test_start_paused",
        source: "#[gmp::test(start_paused = 1)]\nasync fn fails() {}\n",
        errors: &[(1, "`start_paused` is `true` or `false`: `start_paused = true`")],
    },
    Case {
        name: "flavor_unknown",
        source: "#[gmp::main(flavor = \"local\")]\nasync fn main() {}\n",
        errors: &[(1, "gmp has one scheduler: leave `flavor` out")],
    },
    Case {
        name: "no_procs",
        source: "#[gmp::main(procs = 0)]\nasync fn main() {}\n",
        errors: &[(1, "`procs = 0`: a runtime has at least one processor")],
    },
    Case {
        name: "fewer_than_no_procs",
        source: "#[gmp::main(procs = -1)]\nasync fn main() {}\n",
        errors: &[(1, "`procs` is a whole number: `procs = 4`")],
    },
    Case {
        name: "type_error_in_the_body",
        source: "#[gmp::main]\nasync fn main() {\n    let number: u32 = \"four\";\n    drop(number);\n}\n",
        errors: &[(3, "mismatched types")],
    },
    Case {
        name: "type_error_at_the_end",
        source: "#[gmp::main]\nasync fn main() -> Result<(), std::io::Error> {\n    \"done\"\n}\n",
        errors: &[(3, "mismatched types")],
    },
    Case {
        name: "question_mark_without_a_result",
        source: "#[gmp::main]\nasync fn main() {\n    \"4\".parse::<u32>()?;\n}\n",
        errors: &[(3, "the `?` operator can only be used in")],
    },
    Case {
        name: "result_that_a_main_cannot_have",
        source: "#[gmp::main]\nasync fn main()\n-> u32 {\n    4\n}\n",
        errors: &[(3, "the trait bound `u32: Termination` is not satisfied")],
    },
    Case {
        name: "send_with_rc_across_await",
        source: "#[gmp::main(send)]\nasync fn main() {\n    let held = std::rc::Rc::new(());\n\
            \x20   std::future::ready(()).await;\n    drop(held);\n}\n",
        errors: &[(2, "future cannot be sent between threads safely")],
    },
    Case {
        name: "test_is_not_async",
        source: "#[gmp::test]\nfn fails() {}\n",
        errors: &[(2, "`#[gmp::test]` goes on an `async fn`: write `async fn fails`")],
    },
    Case {
        name: "test_has_parameters",
        source: "#[gmp::test]\nasync fn fails(_: u8) {}\n",
        errors: &[(2, "has no parameters: let it call an `async fn` that has them")],
    },
    Case {
        name: "main_knows_no_self",
        source: "pub struct App;\nimpl App {\n    fn new() -> Self {\n        Self\n    }\n    #[gmp::main]\n    \
            pub async fn run() {\n        if true {\n            drop(Self::new());\n        }\n    }\n    \
            #[gmp::main]\n    pub async fn stop() -> Result<(), Self> {\n        Err(App::new())\n    }\n}\n\
            fn main() {}\n",
        errors: &[
            (9, "a function under `#[gmp::main]` knows no `Self`: name the type"),
            (13, "a function under `#[gmp::main]` knows no `Self`: name the type"),
        ],
    },
    Case {
        name: "main_knows_its_own_self",
        source: "macro_rules! quoted {\n    ($($t:tt)*) => {};\n}\n#[gmp::main]\nasync fn main() {\n    \
            struct App(Option<Box<Self>>);\n    impl App {\n        fn new() -> Self {\n            Self(None)\n        \
            }\n    }\n    quoted!(Self);\n    drop(App::new().0);\n}\n#[gmp::main]\n\
            pub async fn other() {\n    quoted!(Self);\n}\n",
        errors: &[],
    },
    Case {
        name: "test_is_one_already",
        source: "#[gmp::test]\n#[test]\nasync fn fails() {}\n",
        errors: &[(2, "`#[gmp::test]` makes the function a test by itself: remove `#[test]`")],
    },
    Case {
        name: "test_has_no_main_words",
        source: "#[gmp::test(send)]\nasync fn fails() {}\n",
        errors: &[(1, "unknown argument `send`: `#[gmp::test]` takes `procs = 4`")],
    },
    Case {
        name: "test_external_wakers_has_no_value",
        source: "#[gmp::test(external_wakers = true)]\nasync fn fails() {}\n",
        errors: &[(1, "`external_wakers` has no value: `#[gmp::test(external_wakers)]`")],
    },
    Case {
        name: "test_external_wakers_twice",
        source: "#[gmp::test(external_wakers, external_wakers)]\nasync fn fails() {}\n",
        errors: &[(1, "`external_wakers` is given twice")],
    },
    Case {
        name: "main_has_no_test_words",
        source: "#[gmp::main(external_wakers)]\nasync fn main() {}\n",
        errors: &[(1, "unknown argument `external_wakers`: `#[gmp::main]` takes `procs = 4`")],
    },
    Case {
        name: "test_flavor_current_thread",
        source: "#[gmp::test(flavor = \"current_thread\")]\nasync fn fails() {}\n",
        errors: &[(1, "gmp has one scheduler: use `procs = 1`")],
    },
    Case {
        name: "test_type_error",
        source: "#[gmp::test]\nasync fn fails() -> Result<(), std::fmt::Error> {\n    Ok(4)\n}\n",
        errors: &[(3, "mismatched types")],
    },
    Case {
        name: "pinned_closure_is_not_send",
        source: "fn main() {\n    let own = std::rc::Rc::new(1);\n    \
            drop(gmp::task::spawn_pinned(move || async move { drop(own) }));\n}\n",
        errors: &[(3, "cannot be sent between threads safely")],
    },
    Case {
        name: "pinned_output_is_not_send",
        source: "fn main() {\n    drop(gmp::task::spawn_pinned(|| async { std::rc::Rc::new(1) }));\n}\n",
        errors: &[(2, "cannot be sent between threads safely")],
    },
    Case {
        name: "local_set_stays_on_its_thread",
        source: "fn main() {\n    let set = gmp::task::LocalSet::new();\n    \
            std::thread::spawn(move || drop(set));\n}\n",
        errors: &[(3, "cannot be sent between threads safely")],
    },
    Case {
        name: "local_handle_with_a_local_output",
        source: "fn main() {\n    gmp::block_on(async {\n        \
            let task = gmp::task::spawn_local(async { std::rc::Rc::new(1) });\n        \
            drop(gmp::spawn(task));\n    });\n}\n",
        errors: &[(4, "cannot be sent between threads safely")],
    },
    Case {
        name: "local_futures_own_what_they_use",
        source: "fn main() {\n    let text = String::new();\n    let set = gmp::task::LocalSet::new();\n    \
            drop(set.spawn_local(async { text.len() }));\n}\n",
        errors: &[(4, "async block may outlive the current function")],
    },
];

#[test]
fn r24_wrong_programs_are_compile_errors_at_the_users_line() {
    let package = package();
    let output = Command::new(env!("CARGO"))
        .args(["check", "--offline", "--keep-going", "--bins", "--tests", "--message-format=short", "--color=never"])
        .current_dir(&package)
        .env("CARGO_TARGET_DIR", package.join("target"))
        // The flags of a sanitizer or of a model build belong to the test that runs, not to these programs.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .expect("cargo starts");
    let log = String::from_utf8(output.stderr).expect("cargo writes text");

    let mut wrong = Vec::new();
    for case in CASES {
        let file = format!("{}:", path(case));
        // `src/main.rs:3:5: error[E0308]: mismatched types: …`
        let mut found = Vec::new();
        for line in log.lines() {
            let Some((position, message)) = line.strip_prefix(&file).and_then(|rest| rest.split_once(": error")) else {
                continue;
            };
            let at = position.split(':').next().and_then(|at| at.parse().ok()).expect("a line number");
            found.push((at, message));
        }
        found.sort_by_key(|found: &(usize, _)| found.0);
        let same = found.len() == case.errors.len()
            && found.iter().zip(case.errors).all(|(found, wanted)| found.0 == wanted.0 && found.1.contains(wanted.1));
        if !same {
            wrong.push(format!("{}: wanted {:#?}\nfound {found:#?}", case.name, case.errors));
        }
    }
    assert!(wrong.is_empty(), "{}\n\nall that cargo wrote:\n{log}", wrong.join("\n"));
}

/// Where in the package a case is.
fn path(case: &Case) -> String {
    format!("{}/{}.rs", if is_test(case) { "tests" } else { "src" }, case.name)
}

fn is_test(case: &Case) -> bool {
    case.source.contains("gmp::test")
}

/// Writes the package that holds the cases. It has the lock file of the workspace: `--offline` finds those versions.
fn package() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile_fail");
    let mut manifest = format!(
        "[package]\nname = \"compile-fail\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\ngmp = {{ path = {root:?} }}\n"
    );
    for folder in ["src", "tests"] {
        fs::create_dir_all(package.join(folder)).expect("a folder for the cases");
    }
    for case in CASES {
        let kind = if is_test(case) { "[[test]]" } else { "[[bin]]\ntest = false" };
        manifest += &format!("\n{kind}\nname = {:?}\npath = {:?}\n", case.name, path(case));
        fs::write(package.join(path(case)), case.source).expect("a file for a case");
    }
    fs::write(package.join("Cargo.toml"), manifest).expect("a manifest");
    fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock")).expect("the lock file of the workspace");
    package
}
