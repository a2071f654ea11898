//! What the steps see of each other, one after the other by hand.

use std::future::pending;
use std::sync::mpsc::{RecvError, channel};
use std::thread;
use std::time::Duration;

use super::{Patience, close, discard_all};
use crate::runtime::{Builder, spawn};
use crate::{context, task};

/// As the main thread does that polls the first task itself: between its look at the queue and the poll all tasks are
/// woken, which is nothing to one that is on its way to a poll, and after the poll it waits.
#[test]
fn r14_a_task_that_a_guest_polls_after_all_were_woken_is_woken_again() {
    // The guest is not to look stuck.
    let runtime = Builder::new().procs(1).rescue(None).build().unwrap();
    let of_runtime = runtime.runtime;
    let sched = of_runtime.sched;
    let ends = runtime.block_on(async {
        let p = context::processor_of(sched).unwrap();
        drop(spawn(pending::<()>()));
        let unit = p.queue.next.take().unwrap();
        let (alive, is_dropped) = channel::<()>();
        drop(spawn(async move {
            pending::<()>().await;
            drop(alive);
        }));
        let ends = thread::spawn(move || {
            close(sched);
            // All tasks are woken again when a machine has ended, too.
            while sched.threads.count() > 0 {
                thread::yield_now();
            }
            discard_all(of_runtime, Patience::timeout(Duration::from_secs(60)))
        });
        // What is queued is dropped after all were woken.
        assert_eq!(is_dropped.recv(), Err(RecvError));
        task::run(unit, p);
        ends
    });
    ends.join().unwrap().expect("the task is dropped when the guest has left");
}
