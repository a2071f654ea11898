//! The global queue, with numbers for tasks.

use super::Inject;
use crate::runq::Ring;
use crate::runq::tests::{number, unit};

fn filled(count: usize) -> Inject {
    let inject = Inject::new();
    inject.push_batch((0..count).map(unit));
    inject
}

#[test]
fn r04_a_batch_is_the_least_of_what_is_asked_for_the_size_and_a_share() {
    for (size, procs) in [(1, 1), (2, 1), (10, 1), (127, 1), (128, 1), (129, 1), (1000, 1), (10, 4), (1000, 4), (9, 8)]
    {
        for most in [0, 1, 61, 128] {
            let inject = filled(size);
            let ring = Ring::<256>::new();
            // SAFETY: the test's thread is the owner.
            let first = unsafe { inject.pop_batch(procs, most, &ring) }.map(number);
            // SAFETY: as above.
            let rest: Vec<_> = std::iter::from_fn(|| unsafe { ring.pop() }).map(number).collect();
            let n = most.max(1).min(size).min(size / procs + 1);
            assert_eq!(first, Some(0));
            assert_eq!(rest, (1..n).collect::<Vec<_>>(), "size {size}, procs {procs}, most {most}");
            assert_eq!(inject.len(), size - n);
        }
    }
}

#[test]
fn r02_a_batch_leaves_what_there_is_no_room_for() {
    for queued in [0, 1, 6, 7, 8] {
        let (inject, ring) = (filled(20), Ring::<8>::new());
        // SAFETY: the test's thread is the owner.
        unsafe { ring.extend((100..100 + queued).map(unit)) };
        // SAFETY: as above.
        let first = unsafe { inject.pop_batch(1, 128, &ring) }.map(number);
        assert_eq!(first, Some(0));
        assert_eq!((ring.len_seen(), inject.len()), (8, 11 + queued));
        // SAFETY: as above.
        let all: Vec<_> = std::iter::from_fn(|| unsafe { ring.pop() }).map(number).collect();
        assert_eq!(all, (100..100 + queued).chain(1..9 - queued).collect::<Vec<_>>());
    }
}

#[test]
fn r02_units_leave_in_the_order_they_came() {
    let inject = filled(3);
    inject.push(unit(3));
    inject.push_batch([4, 5].into_iter().map(unit));
    inject.push_front([6, 7].into_iter().map(unit));
    inject.push_front(std::iter::empty());
    assert_eq!(inject.len(), 8);
    let all: Vec<_> = std::iter::from_fn(|| inject.pop()).map(number).collect();
    assert_eq!(all, [6, 7, 0, 1, 2, 3, 4, 5]);
    assert!(inject.is_empty());
    let ring = Ring::<256>::new();
    // SAFETY: the test's thread is the owner.
    assert_eq!(unsafe { inject.pop_batch(1, 128, &ring) }, None);
    assert_eq!(ring.len_seen(), 0);
}
