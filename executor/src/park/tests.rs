//! The parker on real threads.

use std::sync::Arc;
use std::time::Duration;

use super::Parker;

#[test]
fn r01_a_token_left_before_the_park_is_taken() {
    let parker = Parker::new();
    assert!(!parker.unpark());
    parker.park();
    assert!(!parker.park_timeout(Duration::ZERO), "one token serves one park");
}

#[test]
fn r01_turns_of_two_threads() {
    let (a, b) = (Arc::new(Parker::new()), Arc::new(Parker::new()));
    let (a2, b2) = (a.clone(), b.clone());
    let other = std::thread::spawn(move || {
        for _ in 0..10_000 {
            a2.park();
            b2.unpark();
        }
    });
    for _ in 0..10_000 {
        a.unpark();
        b.park();
    }
    other.join().unwrap();
}

#[test]
fn r01_a_timed_park_ends_without_a_token() {
    let parker = Parker::new();
    assert!(!parker.park_timeout(Duration::from_millis(1)));
}
