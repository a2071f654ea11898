//! Models of the duty: the first machine, and a thread in a `block_on` that has spawned a task and waits for it. Each
//! may stay in user code for ever from some point on; the other one then starts the watcher.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use loom::thread;

use super::{Duty, Watcher};

struct Model {
    duty: Duty,
    watcher: AtomicBool,
    /// Threads in user code.
    inside: AtomicUsize,
}

/// The first task.
#[derive(Clone, Copy, PartialEq)]
enum First {
    Stays,
    Ends,
    /// It ends, and its joiner has a waker of the user's, which never does.
    WakesForEver,
}

impl Model {
    fn new() -> Arc<Self> {
        let model = Model { duty: Duty::new(), watcher: AtomicBool::new(false), inside: AtomicUsize::new(0) };
        model.duty.open(1);
        model.duty.promise();
        Arc::new(model)
    }

    /// `Sched::sysmon_start_once`.
    fn start(&self) {
        self.watcher.store(true, SeqCst);
        self.duty.is_done();
    }

    /// `Sched::sysmon_start_if_anyones`.
    fn start_if_anyones(&self) {
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

    /// `Worker::run_first_task`, and the task after it, which never ends.
    fn machine_runs(&self, first: First) {
        let lent = self.duty.lend();
        if !lent {
            self.start();
        }
        self.enter_user_code();
        if first == First::Stays {
            return;
        }
        self.leave_user_code();
        if lent && first == First::Ends {
            self.duty.give_back();
        }
        // The joiner's waker.
        if first == First::WakesForEver {
            self.enter_user_code();
            return;
        }
        self.start();
        self.enter_user_code();
    }

    /// `Blocking::park_unwatched`, which is woken at any moment, or whose patience ends.
    fn parks(&self) {
        if self.duty.look_out(1) {
            self.duty.look_away(1);
        }
        self.start_if_anyones();
    }
}

/// A thread that was in its first poll waits, and then polls again, which never ends, beside a machine that runs a task
/// of its.
fn check(first: First) {
    loom::model(move || {
        let model = Model::new();
        let machine = {
            let model = model.clone();
            thread::spawn(move || model.machine_runs(first))
        };
        model.parks();
        model.start_if_anyones();
        model.enter_user_code();
        machine.join().unwrap();
        assert!(model.watcher.load(SeqCst), "nobody started the watcher");
    });
}

#[test]
fn r03_a_first_task_that_never_ends_gets_a_watcher() {
    check(First::Stays);
}

#[test]
fn r03_the_first_machine_starts_the_watcher_after_its_first_task() {
    check(First::Ends);
}

#[test]
fn r03_a_joiner_whose_waker_never_ends_gets_a_watcher() {
    check(First::WakesForEver);
}

/// The first poll of the `block_on` never ends, beside a machine that was granted a processor or stood by for long
/// enough.
#[test]
fn r03_a_first_poll_that_never_ends_gets_a_watcher() {
    for granted in [true, false] {
        loom::model(move || {
            let model = Model::new();
            let machine = {
                let model = model.clone();
                thread::spawn(move || if granted { model.machine_runs(First::Stays) } else { model.start() })
            };
            model.start_if_anyones();
            model.enter_user_code();
            machine.join().unwrap();
            assert!(model.watcher.load(SeqCst), "nobody started the watcher");
        });
    }
}

/// The thread that looked out waits for ever afterwards; the machine's first task never ends.
#[test]
fn r03_who_looked_out_in_vain_starts_the_watcher() {
    loom::model(|| {
        let model = Model::new();
        let machine = {
            let model = model.clone();
            thread::spawn(move || model.machine_runs(First::Stays))
        };
        model.parks();
        machine.join().unwrap();
        assert!(model.watcher.load(SeqCst), "nobody started the watcher");
    });
}

/// A thread that waited for the runtime before takes no duty over, and loses none.
#[test]
fn r03_a_later_runtime_has_a_duty_of_its_own() {
    loom::model(|| {
        let model = Model::new();
        assert!(model.duty.look_out(1));
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
        assert!(model.duty.lend(), "the duty was lost to a thread of the runtime before");
        late.join().unwrap();
        model.duty.look_away(2);
        assert!(!model.duty.is_kept(), "nobody starts the watcher");
    });
}

/// The system refuses the watcher its thread. Who looks meanwhile whether there is one is not to sleep without a limit,
/// as nobody else would try again.
#[test]
fn r17_a_watcher_that_is_refused_is_never_counted_on() {
    loom::model(|| {
        let watcher = Arc::new(Watcher::new());
        let refused = {
            let watcher = watcher.clone();
            thread::spawn(move || {
                if watcher.starts() {
                    watcher.was_started(false, 1);
                }
            })
        };
        assert!(!watcher.is_there(), "a sleeper relies on a watcher that is refused");
        if watcher.starts() {
            assert!(!watcher.is_there());
            watcher.was_started(false, 1);
        }
        refused.join().unwrap();
        assert!(watcher.starts() && watcher.is_coming(), "nobody can try again");
        watcher.was_started(true, 1);
        assert!(watcher.is_there() && !watcher.starts());
    });
}

/// The thread polls its first task itself after its first poll, and stays in one of the two. The machine was granted a
/// processor, or stood by for long enough.
#[test]
fn r03_a_first_task_polled_beside_the_first_machine_gets_a_watcher() {
    for granted in [true, false] {
        for task_stays in [true, false] {
            loom::model(move || {
                let model = Model::new();
                let machine = {
                    let model = model.clone();
                    thread::spawn(move || if granted { model.machine_runs(First::Ends) } else { model.start() })
                };
                model.start_if_anyones();
                model.enter_user_code();
                model.leave_user_code();
                // `Sched::polls_joined`.
                if model.duty.is_kept() {
                    model.enter_user_code();
                    if !task_stays {
                        model.leave_user_code();
                        model.enter_user_code();
                    }
                }
                machine.join().unwrap();
                assert!(model.watcher.load(SeqCst), "nobody started the watcher");
            });
        }
    }
}
