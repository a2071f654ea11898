//! Models of the parker.

use std::sync::Arc;

use loom::cell::UnsafeCell;

use super::Parker;

#[test]
fn r01_unpark_is_never_lost_and_hands_over_its_writes() {
    loom::model(|| {
        let shared = Arc::new((Parker::new(), UnsafeCell::new(0)));
        let other = shared.clone();
        let unparker = loom::thread::spawn(move || {
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

#[test]
fn r01_two_unparks_of_one_park_hand_over_what_came_before_the_token() {
    loom::model(|| {
        let parker = Arc::new(Parker::new());
        let count = Arc::new(loom::sync::atomic::AtomicUsize::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (parker, count) = (parker.clone(), count.clone());
                loom::thread::spawn(move || {
                    count.fetch_add(1, loom::sync::atomic::Ordering::Relaxed);
                    parker.unpark();
                })
            })
            .collect();
        while count.load(loom::sync::atomic::Ordering::Relaxed) < 2 {
            parker.park();
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
