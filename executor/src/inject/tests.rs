//! The global queue, with numbers for tasks.

use std::sync::atomic::{AtomicUsize, Ordering};

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

#[test]
fn r04_a_batch_goes_on_where_the_front_ends() {
    let (inject, ring) = (filled(10), Ring::<8>::new());
    // What is left at the front is 1 to 9; then come 10 to 19.
    assert_eq!(inject.pop().map(number), Some(0));
    inject.push_batch((10..20).map(unit));
    for (most, first, rest, left) in [(4, 1, 2..5, 15), (8, 5, 6..13, 7), (3, 13, 14..16, 4), (8, 16, 17..20, 0)] {
        // SAFETY: the test's thread is the owner.
        assert_eq!(unsafe { inject.pop_batch(1, most, &ring) }.map(number), Some(first));
        // SAFETY: as above.
        let taken: Vec<_> = std::iter::from_fn(|| unsafe { ring.pop() }).map(number).collect();
        assert_eq!((taken, inject.len()), (rest.collect(), left));
    }
}

#[test]
fn r03_what_goes_to_the_front_goes_before_what_has_come_in() {
    let inject = filled(2);
    inject.push_front([8, 9].into_iter().map(unit));
    assert_eq!((inject.pop().map(number), inject.len()), (Some(8), 3));
    inject.push_front([7].into_iter().map(unit));
    let all: Vec<_> = std::iter::from_fn(|| inject.pop()).map(number).collect();
    assert_eq!(all, [7, 9, 0, 1]);
}

/// Three threads push while two take: each unit is taken once, and those of a thread in its order by whoever takes
/// them.
#[test]
fn r02_pushes_beside_batches_lose_nothing_and_keep_their_order() {
    const EACH: usize = 20_000;
    let (inject, taken) = (Inject::new(), AtomicUsize::new(0));
    let take = || {
        let (ring, mut got) = (Ring::<256>::new(), Vec::new());
        while taken.load(Ordering::Relaxed) < 3 * EACH {
            // SAFETY: the ring is this thread's.
            let first = unsafe { inject.pop_batch(2, 128, &ring) };
            // SAFETY: as above.
            let rest = std::iter::from_fn(|| unsafe { ring.pop() });
            let before = got.len();
            got.extend(first.into_iter().chain(rest).map(number));
            taken.fetch_add(got.len() - before, Ordering::Relaxed);
        }
        got
    };
    let got = std::thread::scope(|scope| {
        for thread in 0..3 {
            let inject = &inject;
            scope.spawn(move || (0..EACH).for_each(|n| inject.push(unit(3 * n + thread))));
        }
        [scope.spawn(take), scope.spawn(take)].map(|taker| taker.join().unwrap())
    });
    for got in &got {
        for thread in 0..3 {
            assert!(got.iter().filter(|n| **n % 3 == thread).is_sorted(), "out of order");
        }
    }
    let mut all = got.concat();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..3 * EACH), "lost or doubled");
}
