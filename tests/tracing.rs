//! Feature `tracing`: a stuck poll is an event. The subscriber must be the process's, so each case is a process of its
//! own.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use gmp::{Builder, Runtime};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use limit::limited;

#[path = "support/limit.rs"]
mod limit;

const CASE: &str = "GMP_TEST_TRACING_CASE";

type Fields = BTreeMap<&'static str, String>;

/// The fields of the events that gmp made.
static HEARD: Mutex<Vec<Fields>> = Mutex::new(Vec::new());

/// Hears what gmp says, if it is as dear as that; panics when it does or when it is asked, if it is a bad one.
struct Listener {
    most: Level,
    panics: bool,
    refuses: bool,
}

struct Collect(Fields);

impl Visit for Collect {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        assert!(!self.refuses || metadata.target() != "gmp", "the subscriber panics when it is asked");
        *metadata.level() <= self.most
    }

    fn event(&self, event: &Event<'_>) {
        assert_eq!((event.metadata().target(), event.metadata().level()), ("gmp", &Level::WARN));
        let mut fields = Collect(Fields::new());
        event.record(&mut fields);
        HEARD.lock().unwrap().push(fields.0);
        assert!(!self.panics, "the subscriber panics");
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// As `stuck_poll`, several times: `sysmon` is there for the last one too.
fn stuck_polls(times: usize, heard: fn() -> bool) -> (String, u32) {
    let runtime = Builder::new().procs(1).thread_name("night").build().unwrap();
    (1..times).for_each(|_| drop(stuck_poll(&runtime, heard)));
    stuck_poll(&runtime, heard)
}

/// A poll that ends when a task behind it has run, and `heard`; gives the number of its task, and the line where that
/// was spawned.
fn stuck_poll(runtime: &Runtime, heard: fn() -> bool) -> (String, u32) {
    let (done, is_done) = channel();
    let line = line!() + 1;
    let stuck = runtime.spawn(async move { is_done.recv().unwrap() });
    let other = runtime.spawn(async move {
        while !heard() {
            gmp::task::yield_now().await;
        }
        done.send(()).unwrap();
    });
    let id = stuck.id().to_string();
    runtime.block_on(async { (stuck.await.unwrap(), other.await.unwrap()) });
    (id, line)
}

fn in_child(case: &str) {
    let listener = match case {
        "heard" => Listener { most: Level::WARN, panics: false, refuses: false },
        "not wanted" => Listener { most: Level::ERROR, panics: false, refuses: false },
        "panicking" => Listener { most: Level::WARN, panics: true, refuses: false },
        "panicking when asked" => Listener { most: Level::WARN, panics: false, refuses: true },
        _ => {
            limited(|| stuck_polls(1, || true));
            return;
        }
    };
    tracing::subscriber::set_global_default(listener).unwrap();
    if matches!(case, "not wanted" | "panicking when asked") {
        limited(|| stuck_polls(2, || true));
        assert!(HEARD.lock().unwrap().is_empty());
        return;
    }
    let (id, line) = limited(|| stuck_polls(1, || !HEARD.lock().unwrap().is_empty()));
    let heard = HEARD.lock().unwrap();
    let fields = heard.iter().find(|fields| fields.get("task") == Some(&id)).expect("an event names the task");
    assert_eq!(fields["stuck_in"], "Task");
    assert!(fields["spawned_at"].starts_with(&format!("{}:{line}:", file!())), "{fields:?}");
    assert!(fields["thread"].contains("night-"), "{fields:?}");
    assert_eq!((fields["rescued"].as_str(), fields["stuck_threads"].as_str()), ("true", "1"));
    assert!(fields["polling_for_ms"].parse::<u64>().is_ok(), "{fields:?}");
    assert!(fields["message"].contains("has been in one poll for"), "{fields:?}");
}

#[test]
fn r25_a_stuck_poll_is_an_event_instead_of_a_line() {
    if let Ok(case) = std::env::var(CASE) {
        return in_child(&case);
    }
    let cases = [
        ("no subscriber", true),
        ("heard", false),
        ("not wanted", true),
        ("panicking", false),
        ("panicking when asked", true),
    ];
    for (case, has_line) in cases {
        let this = std::env::current_exe().unwrap();
        let name = "r25_a_stuck_poll_is_an_event_instead_of_a_line";
        let output = Command::new(this).args(["--exact", name, "--nocapture"]).env(CASE, case).output().unwrap();
        let printed = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{case}: {printed}");
        assert_eq!(printed.contains("gmp: a task spawned at"), has_line, "{case}: {printed}");
    }
}
