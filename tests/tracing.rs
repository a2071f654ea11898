//! Feature `tracing`: a stuck poll is an event. The subscriber must be the process's, so each case is a process of its
//! own.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use gmp::Builder;
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

/// Hears what gmp says, if it is as dear as that; panics when it does, if it is a bad one.
struct Listener {
    most: Level,
    panics: bool,
}

struct Collect(Fields);

impl Visit for Collect {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
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

/// A poll that ends when a task behind it has run, and `heard`; gives the number of its task, and the line where that
/// was spawned.
fn stuck_poll(heard: fn() -> bool) -> (String, u32) {
    let runtime = Builder::new().procs(1).thread_name("night").build().unwrap();
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
        "heard" => Listener { most: Level::WARN, panics: false },
        "not wanted" => Listener { most: Level::ERROR, panics: false },
        "panicking" => Listener { most: Level::WARN, panics: true },
        _ => {
            limited(|| stuck_poll(|| true));
            return;
        }
    };
    tracing::subscriber::set_global_default(listener).unwrap();
    if case == "not wanted" {
        limited(|| stuck_poll(|| true));
        assert!(HEARD.lock().unwrap().is_empty());
        return;
    }
    let (id, line) = limited(|| stuck_poll(|| !HEARD.lock().unwrap().is_empty()));
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
    for (case, has_line) in [("no subscriber", true), ("heard", false), ("not wanted", true), ("panicking", false)] {
        let this = std::env::current_exe().unwrap();
        let name = "r25_a_stuck_poll_is_an_event_instead_of_a_line";
        let output = Command::new(this).args(["--exact", name, "--nocapture"]).env(CASE, case).output().unwrap();
        let printed = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{case}: {printed}");
        assert_eq!(printed.contains("gmp: a task spawned at"), has_line, "{case}: {printed}");
    }
}
