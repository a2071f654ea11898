//! A task that has kept the others waiting because it blocked keeps them waiting no more: its processor goes on without
//! it before its polls begin.
#![cfg(target_os = "linux")]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use gmp::runtime::{Builder, Runtime, StuckPoll};
use gmp::task::{Id, JoinHandle, yield_now};

use limit::limited;

#[path = "support/limit.rs"]
mod limit;

/// What the runtime told of stuck polls: of which task, and whether the others go on.
type Told = Receiver<(Option<Id>, bool)>;

fn runtime(procs: usize, max_stuck: usize) -> (Runtime, Told) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let hook = move |stuck: &StuckPoll| {
        // A test that is over hears nothing more.
        let _ = tell.lock().unwrap().send((stuck.task, stuck.rescued));
    };
    (Builder::new().procs(procs).max_stuck(max_stuck).on_stuck(hook).build().unwrap(), told)
}

/// A task, and how to make it block.
struct Blocker {
    task: JoinHandle<()>,
    gates: UnboundedSender<Receiver<()>>,
}

impl Blocker {
    fn on(runtime: &Runtime) -> Self {
        let (gates, mut shut) = unbounded::<Receiver<()>>();
        let task = runtime.spawn(async move {
            while let Some(gate) = shut.next().await {
                let _ = gate.recv();
            }
        });
        Blocker { task, gates }
    }

    /// Its next poll blocks until the sender is dropped.
    fn block(&self) -> Sender<()> {
        let (open, gate) = channel();
        self.gates.unbounded_send(gate).unwrap();
        open
    }

    /// One that has blocked: others, which there must be, were rescued from it.
    fn known_on(runtime: &Runtime, told: &Told) -> Self {
        let blocker = Blocker::on(runtime);
        let open = blocker.block();
        blocker.is_told_of(told);
        let_go(open, runtime);
        blocker
    }

    /// It is told that the others go on without it.
    fn is_told_of(&self, told: &Told) {
        while told.recv().unwrap() != (Some(self.task.id()), true) {}
    }

    fn end(self, runtime: &Runtime) {
        drop(self.gates);
        runtime.block_on(self.task).unwrap();
    }
}

/// The poll that waited for `open` is over, and that of no other task is stuck.
fn let_go(open: Sender<()>, runtime: &Runtime) {
    drop(open);
    while runtime.metrics().stuck_threads > 0 {
        std::thread::yield_now();
    }
}

/// A task that always waits for its turn, until the guard is dropped.
struct Waits(Arc<AtomicBool>);

impl Waits {
    fn on(runtime: &Runtime) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task_stop = stop.clone();
        drop(runtime.spawn(async move {
            while !task_stop.load(Relaxed) {
                yield_now().await;
            }
        }));
        Waits(stop)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn r03_a_task_that_blocks_again_keeps_nobody_waiting() {
    const AGAIN: u64 = 10;
    limited(|| {
        let (runtime, told) = runtime(1, 8);
        let waits = Waits::on(&runtime);
        let blocker = Blocker::known_on(&runtime, &told);
        let before = runtime.metrics();
        assert_eq!((before.rescues, before.blocker_polls), (1, 0), "nothing was known of it");
        for _ in 0..AGAIN {
            let open = blocker.block();
            // Of that poll, too.
            blocker.is_told_of(&told);
            let_go(open, &runtime);
        }
        let after = runtime.metrics();
        assert_eq!((after.rescues, after.blocker_polls), (1, AGAIN), "{after:?}");
        drop(waits);
        blocker.end(&runtime);
    });
}

/// Several of them in a row: each would cost those behind it a rescue.
#[test]
fn r03_blockers_in_a_row_do_not_wait_for_each_other() {
    const BLOCKERS: usize = 5;
    limited(|| {
        let (runtime, told) = runtime(1, 8);
        let waits = Waits::on(&runtime);
        let blockers: Vec<_> = (0..BLOCKERS).map(|_| Blocker::known_on(&runtime, &told)).collect();
        let before = runtime.metrics();
        let open: Vec<_> = blockers.iter().map(Blocker::block).collect();
        while runtime.metrics().blocker_polls < before.blocker_polls + BLOCKERS as u64 {
            std::thread::yield_now();
        }
        assert_eq!(runtime.metrics().rescues, before.rescues);
        drop((open, waits));
        blockers.into_iter().for_each(|blocker| blocker.end(&runtime));
    });
}

#[test]
fn r03_a_task_that_blocks_no_more_is_like_the_others() {
    limited(|| {
        let (runtime, told) = runtime(1, 8);
        let waits = Waits::on(&runtime);
        let blocker = Blocker::known_on(&runtime, &told);
        // A thread that is preempted for long looks as if it was blocked, so there may be more than one.
        let mut before = 0;
        loop {
            let open = blocker.block();
            // Until the gate is gone.
            while open.send(()).is_ok() {
                std::thread::yield_now();
            }
            let_go(open, &runtime);
            let polls = runtime.metrics().blocker_polls;
            if polls == std::mem::replace(&mut before, polls) {
                break;
            }
        }
        drop(waits);
        blocker.end(&runtime);
    });
}

#[test]
fn r17_at_the_limit_a_known_blocker_is_polled_like_the_others() {
    limited(|| {
        let (runtime, told) = runtime(1, 1);
        let waits = Waits::on(&runtime);
        let (known, other) = (Blocker::known_on(&runtime, &told), Blocker::on(&runtime));
        // Another one has the only place when it is polled again.
        let others = other.block();
        other.is_told_of(&told);
        let open = known.block();
        assert_eq!(told.recv().unwrap(), (Some(known.task.id()), false), "the limit is reached");
        assert_eq!(runtime.metrics().blocker_polls, 0);
        drop((others, open, waits));
        known.end(&runtime);
        other.end(&runtime);
    });
}
