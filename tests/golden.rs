//! The orders in which one processor runs tasks. They are Go's, but for joins (DESIGN.md).

use std::sync::{Arc, Mutex};

use gmp::runtime::{Builder, Runtime};
use gmp::task::yield_now;

/// Runs `scenario` as a task on one processor; gives what was noted, in order.
fn check<F>(expected: &str, scenario: impl FnOnce(Note) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime: Runtime = Builder::new().procs(1).rescue(None).build().unwrap();
    let note = Note::default();
    let root = runtime.spawn(scenario(note.clone()));
    runtime.block_on(root).unwrap();
    assert_eq!(note.0.lock().unwrap().join(" "), expected);
}

#[derive(Clone, Default)]
struct Note(Arc<Mutex<Vec<String>>>);

impl Note {
    fn down(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }
}

#[test]
fn r04_the_task_spawned_last_runs_first_then_the_others_in_order() {
    check("9 0 1 2 3 4 5 6 7 8", |note| async move {
        let tasks: Vec<_> = (0..10)
            .map(|n| {
                let note = note.clone();
                gmp::spawn(async move { note.down(n.to_string()) })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn r04_tasks_that_yield_take_turns() {
    check("c1 a1 b1 c2 a2 b2", |note| async move {
        let tasks: Vec<_> = ["a", "b", "c"]
            .map(|name| {
                let note = note.clone();
                gmp::spawn(async move {
                    note.down(format!("{name}1"));
                    yield_now().await;
                    note.down(format!("{name}2"));
                })
            })
            .into();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// Spawns tasks that note their names, then joins them in this order and notes that.
async fn spawn_and_join(note: Note, names: &'static [&'static str]) {
    let mut tasks = Vec::new();
    for name in names {
        let note = note.clone();
        tasks.push(gmp::spawn(async move { note.down(*name) }));
    }
    for (task, name) in tasks.into_iter().zip(names) {
        task.await.unwrap();
        note.down(format!("joined {name}"));
    }
}

#[test]
fn r04_who_joins_tasks_that_are_queued_waits_behind_them() {
    let expected = "d a b c joined a joined b joined c joined d";
    check(expected, |note| async move { spawn_and_join(note, &["a", "b", "c", "d"]).await });
}

#[test]
fn r04_who_joins_a_task_that_runs_next_goes_on_before_the_queue() {
    check("x joined x y joined y a b", |note| async move {
        for name in ["a", "b"] {
            let note = note.clone();
            drop(gmp::spawn(async move { note.down(name) }));
        }
        spawn_and_join(note.clone(), &["x"]).await;
        spawn_and_join(note, &["y"]).await;
        yield_now().await;
    });
}
