//! With the feature `tracing` a poll that is stuck is an event. One test: the subscriber is the process's.

use std::fmt::Debug;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use gmp::runtime::Builder;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use limit::limited;

#[path = "support/limit.rs"]
mod limit;

/// Sends the fields of each event of the runtime.
struct Fields(Mutex<Sender<Vec<(String, String)>>>);

#[derive(Default)]
struct Collect(Vec<(String, String)>);

impl Visit for Collect {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push((field.name().to_owned(), format!("{value:?}")));
    }
}

impl Subscriber for Fields {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "gmp"
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Collect::default();
        event.record(&mut fields);
        // Only the first is waited for.
        let _ = self.0.lock().unwrap().send(fields.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn r25_a_stuck_poll_is_an_event() {
    limited(|| {
        let (tell, told) = channel();
        tracing::subscriber::set_global_default(Fields(Mutex::new(tell))).unwrap();
        let runtime = Builder::new().procs(1).build().unwrap();
        let line = line!() + 1;
        let task = runtime.spawn(async {
            let (done, is_done) = channel();
            drop(gmp::spawn(async move { done.send(()).unwrap() }));
            is_done.recv().unwrap();
        });
        runtime.block_on(task).unwrap();
        let fields = told.recv().unwrap();
        let value = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
        assert!(value("location").unwrap().contains(&format!("{}:{line}:", file!())), "{fields:?}");
        assert_eq!((value("rescued"), value("stuck_threads")), (Some("true"), Some("1")), "{fields:?}");
        assert!(value("message").unwrap().contains("has been in one poll for"), "{fields:?}");
    });
}
