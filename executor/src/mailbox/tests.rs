//! What the mailbox does, on one thread.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Wake, Waker};

use super::Mailbox;

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn counting() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count::default());
    (count.clone(), Waker::from(count))
}

fn taken(mailbox: &Mailbox<u32>, key: u64, waker: &Waker) -> Vec<u32> {
    let taken = RefCell::new(Vec::new());
    mailbox.register(key, waker, |item| taken.borrow_mut().push(item));
    taken.into_inner()
}

#[test]
fn r01_registering_takes_what_is_there_and_later_items_wake_once() {
    let (count, waker) = counting();
    let mailbox = Mailbox::new();
    mailbox.put(1);
    mailbox.put(2);
    assert_eq!(taken(&mailbox, 0, &waker), [1, 2]);
    assert_eq!(count.0.load(SeqCst), 0);
    mailbox.put(3);
    mailbox.put(4);
    assert_eq!(count.0.load(SeqCst), 1);
    assert_eq!(taken(&mailbox, 0, &waker), [3, 4]);
}

#[test]
fn r01_every_host_is_woken() {
    let mailbox = Mailbox::new();
    let hosts = [counting(), counting(), counting()];
    for (key, (_, waker)) in hosts.iter().enumerate() {
        taken(&mailbox, key as u64, waker);
        // Again, as at a second poll: it is still one host.
        taken(&mailbox, key as u64, waker);
    }
    mailbox.unregister(0);
    mailbox.put(1);
    assert_eq!(hosts.each_ref().map(|(count, _)| count.0.load(SeqCst)), [0, 1, 1]);
}

#[test]
fn r18_wakers_are_let_go() {
    let mailbox = Mailbox::<u32>::new();
    let hosts = [counting(), counting(), counting()];
    for (key, (count, waker)) in hosts.iter().enumerate() {
        taken(&mailbox, key as u64, waker);
        // A host with another waker than before.
        taken(&mailbox, 7, waker);
        assert!(Arc::strong_count(count) > 2);
    }
    mailbox.unregister(1);
    mailbox.unregister(7);
    mailbox.unregister(99);
    mailbox.unregister_all();
    assert_eq!(hosts.each_ref().map(|(count, _)| Arc::strong_count(count)), [2, 2, 2]);
}

/// Panics when it is woken, and when the last of it is dropped.
struct Hostile;

impl Wake for Hostile {
    fn wake(self: Arc<Self>) {
        panic!("a hostile waker");
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a hostile waker");
        }
    }
}

#[test]
fn r13_a_hosts_waker_that_panics_keeps_no_other_asleep() {
    let mailbox = Mailbox::new();
    let (count, waker) = counting();
    let hostile = |key| drop(taken(&mailbox, key, &Waker::from(Arc::new(Hostile))));
    hostile(0);
    taken(&mailbox, 1, &waker);
    hostile(2);
    // The former ones are dropped.
    hostile(0);
    mailbox.put(1);
    assert_eq!(count.0.load(SeqCst), 1);
    hostile(0);
    mailbox.unregister(0);
    (0..3).for_each(hostile);
    mailbox.unregister_all();
    assert_eq!(Arc::strong_count(&count), 2);
}
