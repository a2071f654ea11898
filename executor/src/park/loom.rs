//! Models of the parker.

use std::sync::Arc;
use std::task::{Wake, Waker};

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;

use super::Parker;

/// A thread of a model that waits as `block_on` does: it sleeps until its waker is woken.
pub(crate) struct Sleeper(Parker);

impl Sleeper {
    pub(crate) fn park(&self) {
        self.0.park();
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

pub(crate) fn sleeper() -> (Arc<Sleeper>, Waker) {
    let sleeper = Arc::new(Sleeper(Parker::new()));
    (sleeper.clone(), sleeper.into())
}

#[test]
fn r01_unpark_is_never_lost_and_hands_over_its_writes() {
    loom::model(|| {
        let shared = Arc::new((Parker::new(), UnsafeCell::new(0)));
        let other = shared.clone();
        let unparker = thread::spawn(move || {
            // SAFETY: the parker orders this write before the read below; loom checks it.
            other.1.with_mut(|v| unsafe { *v = 7 });
            other.0.unpark();
        });
        shared.0.park();
        // SAFETY: as above.
        assert_eq!(shared.1.with(|v| unsafe { *v }), 7);
        unparker.join().unwrap();
    });
}

/// A park that does not see what was written before an unpark has not taken its token, and the next one ends. The other
/// unpark comes from another thread and has left its token before, so that this one finds a token or an empty parker.
#[test]
fn r01_two_unparks_of_one_park_hand_over_what_came_before_the_token() {
    loom::model(|| {
        let parker = Arc::new(Parker::new());
        let written = Arc::new(AtomicUsize::new(0));
        parker.unpark();
        let unparker = {
            let (parker, written) = (parker.clone(), written.clone());
            thread::spawn(move || {
                written.store(1, Relaxed);
                parker.unpark();
            })
        };
        parker.park();
        if written.load(Relaxed) == 0 {
            parker.park();
        }
        assert_eq!(written.load(Relaxed), 1);
        unparker.join().unwrap();
    });
}

#[test]
fn r01_two_unparks_in_a_row_end_a_park_that_begins_between_them() {
    loom::model(|| {
        let parker = Arc::new(Parker::new());
        let written = Arc::new(AtomicUsize::new(0));
        let unparker = {
            let (parker, written) = (parker.clone(), written.clone());
            thread::spawn(move || {
                for n in 1..=2 {
                    written.store(n, Relaxed);
                    parker.unpark();
                }
            })
        };
        parker.park();
        if written.load(Relaxed) < 2 {
            parker.park();
        }
        assert_eq!(written.load(Relaxed), 2);
        unparker.join().unwrap();
    });
}
