//! Models of the mailbox: what is put in beside a host that registers and then sleeps.

use std::cell::RefCell;
use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering::Relaxed};
use loom::thread;

use super::Mailbox;
use crate::park::loom::sleeper;

/// A thread puts two things in beside the polls of one host, which sleeps between them, and comes to both.
#[test]
fn r01_what_is_put_in_is_taken_out() {
    loom::model(|| {
        let mailbox = Arc::new(Mailbox::new());
        let putter = {
            let mailbox = mailbox.clone();
            thread::spawn(move || (0..2).for_each(|n| mailbox.put(n)))
        };
        let (host, waker) = sleeper();
        let taken = RefCell::new(Vec::new());
        loop {
            mailbox.register(0, &waker, |item| taken.borrow_mut().push(item));
            if taken.borrow().len() == 2 {
                break;
            }
            host.park();
        }
        assert_eq!(taken.into_inner(), [0, 1]);
        putter.join().unwrap();
    });
}

/// The runtime closes: whoever says so first writes it down and then calls, the host first registers and then looks.
#[test]
fn r14_a_call_comes_before_the_registration_or_wakes() {
    loom::model(|| {
        let shared = Arc::new((Mailbox::<()>::new(), AtomicBool::new(false)));
        let closer = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.1.store(true, Relaxed);
                shared.0.call();
            })
        };
        let (host, waker) = sleeper();
        loop {
            shared.0.register(0, &waker, |_| ());
            if shared.1.load(Relaxed) {
                break;
            }
            host.park();
        }
        closer.join().unwrap();
    });
}
