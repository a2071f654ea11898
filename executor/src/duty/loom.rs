//! Models of the duty: the first machine, and a thread in a `block_on` that has spawned a task and waits for it. Each may stay
//! in user code for ever from some point on; the other one then starts the watcher.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use loom::thread;

use super::Duty;

struct Model {
    duty: Duty,
    watcher: AtomicBool,
    /// Threads in user code.
    inside: AtomicUsize,
}

impl Model {
    fn new() -> Arc<Self> {
        let model = Model { duty: Duty::new(), watcher: AtomicBool::new(false), inside: AtomicUsize::new(0) };
        model.duty.open(1);
        model.duty.promise();
        Arc::new(model)
    }

    fn start(&self) {
        self.watcher.store(true, SeqCst);
    }

    /// As `Sched::acquire_near`.
    fn acquire(&self) {
        if !self.watcher.load(SeqCst) && !self.duty.is_kept() {
            self.start();
        }
    }

    fn enter_user_code(&self) {
        let others = self.inside.fetch_add(1, SeqCst);
        assert!(others == 0 || self.watcher.load(SeqCst), "two threads are in user code, and nobody watches");
    }

    fn leave_user_code(&self) {
        self.inside.fetch_sub(1, SeqCst);
    }

    /// The first machine has been granted a processor (`Worker::run`). `ends`: its first task does.
    fn machine_runs(&self, ends: bool) {
        if !self.duty.lend() {
            self.start();
        }
        self.enter_user_code();
        if ends {
            self.leave_user_code();
            self.start();
            self.enter_user_code();
        }
    }

    /// Nobody granted it one in time.
    fn machine_stood_by(&self) {
        self.duty.take_back();
        self.start();
    }

    /// `Blocking::drive`, after its first poll: a wait, and the next poll, which never ends.
    fn waits_and_polls(&self) {
        let looks_out = self.duty.look_out(1);
        if looks_out {
            self.duty.look_away(1);
        }
        self.acquire();
        self.enter_user_code();
    }
}

/// The waiting thread may be woken at any moment, or its patience ends.
fn check(ends: bool) {
    loom::model(move || {
        let model = Model::new();
        model.enter_user_code();
        let machine = {
            let model = model.clone();
            thread::spawn(move || {
                if ends {
                    // Its task came from the thread, whose poll is over: see the model below for one that is not.
                    model.machine_runs(true);
                } else {
                    model.machine_runs(false);
                }
            })
        };
        model.leave_user_code();
        model.waits_and_polls();
        machine.join().unwrap();
        assert!(model.watcher.load(SeqCst), "nobody started the watcher");
    });
}

#[test]
fn r02_a_first_task_that_never_ends_gets_a_watcher() {
    check(false);
}

#[test]
fn r02_the_first_machine_starts_the_watcher_after_its_first_task() {
    check(true);
}

/// The poll of the `block_on` goes on for ever, beside a machine that was granted a processor or not.
#[test]
fn r02_a_first_poll_that_never_ends_gets_a_watcher() {
    for granted in [true, false] {
        loom::model(move || {
            let model = Model::new();
            let machine = {
                let model = model.clone();
                thread::spawn(move || if granted { model.machine_runs(false) } else { model.machine_stood_by() })
            };
            model.acquire();
            model.enter_user_code();
            machine.join().unwrap();
            assert!(model.watcher.load(SeqCst), "nobody started the watcher");
        });
    }
}

/// Its patience is over in every round: it starts the watcher itself if it has the duty, whatever becomes of the machine.
#[test]
fn r02_who_looks_out_in_vain_starts_the_watcher() {
    loom::model(|| {
        let model = Model::new();
        let machine = {
            let model = model.clone();
            thread::spawn(move || {
                let lent = model.duty.lend();
                if !lent {
                    model.start();
                }
                model.enter_user_code();
                lent
            })
        };
        let looks_out = model.duty.look_out(1);
        if looks_out {
            model.duty.look_away(1);
        }
        model.acquire();
        let lent = machine.join().unwrap();
        assert!(looks_out || !lent);
        assert!(model.watcher.load(SeqCst), "nobody started the watcher");
    });
}

/// A thread that waited for the runtime before takes no duty over, and loses none.
#[test]
fn r02_a_later_runtime_has_a_duty_of_its_own() {
    loom::model(|| {
        let model = Model::new();
        assert!(model.duty.look_out(1));
        let late = {
            let model = model.clone();
            thread::spawn(move || {
                model.duty.look_away(1);
                assert!(!model.duty.look_out(1) || model.duty.is_kept());
            })
        };
        late.join().unwrap();
        model.duty.open(2);
        model.duty.promise();
        let late = {
            let model = model.clone();
            thread::spawn(move || {
                model.duty.look_away(1);
                assert!(!model.duty.look_out(1));
            })
        };
        assert!(model.duty.look_out(2));
        late.join().unwrap();
        assert!(model.duty.lend(), "the duty was lost to a thread of the runtime before");
    });
}
