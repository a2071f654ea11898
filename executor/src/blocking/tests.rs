//! The accounts of the pool, without threads.

use super::{CALLS_EACH, COMING_FEW, COMING_MANY, Call, Next, State};
use crate::machine::Machine;
use crate::runq::tests::{number, unit};

fn state(limit: usize, queued: usize) -> State {
    let mut state = State::new();
    state.limit = limit;
    state.closed = false;
    (0..queued).for_each(|n| state.push(unit(n)));
    state
}

/// A thread has come: the number of the closure that it runs, if it does.
fn come(state: &mut State) -> Option<usize> {
    state.coming -= 1;
    go_on(state)
}

fn go_on(state: &mut State) -> Option<usize> {
    match state.next() {
        Next::Run(unit, _) => Some(number(unit)),
        Next::Rest => {
            state.idle.push(Box::leak(Box::new(Machine::new())));
            None
        }
        Next::Wake(_) => panic!("there are no wakers"),
        Next::End => panic!("the pool is open"),
    }
}

/// How many are started, if there may be so many.
fn new_threads(state: &mut State, mut room: usize) -> usize {
    let mut counted = || {
        let may = room > 0;
        room = room.saturating_sub(1);
        may
    };
    std::iter::from_fn(|| state.call(usize::MAX, &mut counted)).filter(|call| matches!(call, Call::New(_))).count()
}

#[test]
fn r16_a_thread_is_called_for_each_closure_up_to_the_limit() {
    let mut s = state(3, 2);
    assert_eq!(new_threads(&mut s, 100), 2);
    (2..5).for_each(|n| s.push(unit(n)));
    assert_eq!(new_threads(&mut s, 100), 1);
    assert_eq!((come(&mut s), come(&mut s), come(&mut s)), (Some(0), Some(1), Some(2)));
    assert!(s.call(usize::MAX, || true).is_none(), "the limit is reached");
    // One has done with its closure.
    s.running -= 1;
    assert_eq!(go_on(&mut s), Some(3));
}

#[test]
fn r16_a_thread_that_comes_too_late_is_called_again() {
    let mut s = state(3, 1);
    assert_eq!(new_threads(&mut s, 100), 1);
    assert_eq!(come(&mut s), Some(0));
    s.push(unit(1));
    assert_eq!(new_threads(&mut s, 100), 1);
    // The first one is faster, and a third closure needs nobody but the thread that comes.
    s.running -= 1;
    assert_eq!(go_on(&mut s), Some(1));
    s.push(unit(2));
    assert!(s.call(usize::MAX, || true).is_none());
    assert_eq!(come(&mut s), Some(2));
    s.running -= 1;
    assert_eq!(go_on(&mut s), None);
    s.push(unit(3));
    assert!(matches!(s.call(usize::MAX, || true), Some(Call::Idle(_))));
    assert_eq!((come(&mut s), s.threads), (Some(3), 2));
}

#[test]
fn r16_a_wait_gives_the_place_away_and_its_end_takes_it_back() {
    let mut s = state(1, 2);
    assert_eq!(new_threads(&mut s, 100), 1);
    assert_eq!(come(&mut s), Some(0));
    assert!(s.call(usize::MAX, || true).is_none());
    s.waiting += 1;
    assert_eq!(new_threads(&mut s, 100), 1);
    assert_eq!(come(&mut s), Some(1));
    // Two run now: the first that has done rests, and the other one takes what has come meanwhile.
    s.waiting -= 1;
    s.push(unit(2));
    assert!(s.call(usize::MAX, || true).is_none());
    s.running -= 1;
    assert_eq!(go_on(&mut s), None);
    s.running -= 1;
    assert_eq!(go_on(&mut s), Some(2));
}

#[test]
fn r17_at_the_limit_of_threads_closures_wait() {
    let mut s = state(100, 10);
    assert_eq!(new_threads(&mut s, 4), 4);
    assert_eq!(new_threads(&mut s, 0), 0);
    s.coming -= 1;
    s.threads -= 1;
    assert_eq!(new_threads(&mut s, 1), 1);
}

#[test]
fn r14_a_closed_pool_starts_nothing() {
    let mut s = state(3, 2);
    assert_eq!(new_threads(&mut s, 100), 2);
    s.closed = true;
    s.coming -= 1;
    assert!(matches!(s.next(), Next::End));
    s.push(unit(2));
    assert!(s.call(usize::MAX, || true).is_none());
    assert_eq!(s.queue.len(), 3);
}

/// At the limit, and although the thread was called for a closure.
#[test]
fn r03_wakers_go_before_closures_and_take_no_place_of_theirs() {
    let mut s = state(1, 2);
    assert_eq!(new_threads(&mut s, 100), 1);
    s.wakers.push_back(std::task::Waker::noop().clone());
    s.coming -= 1;
    assert!(matches!(s.next(), Next::Wake(_)));
    assert_eq!(new_threads(&mut s, 100), 1, "another one comes for the closure");
    assert_eq!(come(&mut s), Some(0));
    assert!(s.call(usize::MAX, || true).is_none(), "the limit is reached");
    s.wakers.push_back(std::task::Waker::noop().clone());
    assert!(matches!(s.bring(|| true), Some(Call::New(2))));
    s.coming -= 1;
    assert!(matches!(s.next(), Next::Wake(_)));
    assert!(s.call(usize::MAX, || true).is_none(), "the limit is reached");
}

#[test]
fn r16_a_kept_closure_needs_no_thread_and_the_next_one_does() {
    let mut s = state(3, 1);
    let keeps = s.keep_last(0).expect("nothing speaks against it");
    assert_eq!(new_threads(&mut s, 100), 0);
    s.push(unit(1));
    assert_eq!(new_threads(&mut s, 100), 1);
    s.keeping.end(keeps, 0);
    assert_eq!((go_on(&mut s), come(&mut s)), (Some(0), Some(1)));
    assert_eq!((s.keeping.kept(), s.queue.len(), new_threads(&mut s, 100)), (0, 0, 0));
}

/// It may last, as the poll may in which the closure is kept.
#[test]
fn r16_nobody_waits_for_a_kept_closure_that_another_thread_has_taken() {
    let mut s = state(9, 1);
    let keeps = s.keep_last(0).unwrap();
    s.push(unit(1));
    assert_eq!(new_threads(&mut s, 100), 1);
    assert_eq!(come(&mut s), Some(0));
    assert_eq!(new_threads(&mut s, 100), 1, "the other closure needs one");
    assert_eq!(come(&mut s), Some(1));
    // The thread that kept it is back.
    s.keeping.end(keeps, 0);
    assert_eq!((s.keeping.kept(), go_on(&mut s)), (0, None));
    // The same for one that was aborted.
    s.push(unit(2));
    let keeps = s.keep_last(0).expect("it was not late");
    assert!(s.take(0).is_some_and(|(unit, was_kept)| number(unit) == 2 && was_kept));
    s.push(unit(3));
    s.push(unit(4));
    let other = s.keep_last(0).unwrap();
    s.keeping.end(keeps, 0);
    assert!(matches!(s.call(usize::MAX, || true), Some(Call::Idle(_))) && s.call(usize::MAX, || true).is_none());
    s.keeping.end(other, 0);
    assert!(s.keeping.kept() == 0 && s.is_thread_due());
}

#[test]
fn r16_a_look_calls_threads_for_kept_closures() {
    let mut s = state(3, 1);
    let keeps = s.keep_last(0).unwrap();
    s.keeping.call_all();
    assert_eq!(new_threads(&mut s, 100), 1);
    // Another one is kept before the thread that kept the first one is back.
    s.push(unit(1));
    let other = s.keep_last(0).unwrap();
    s.keeping.end(keeps, 0);
    assert_eq!((s.keeping.kept(), new_threads(&mut s, 100)), (1, 0));
    assert!(s.keep_last(0).is_none(), "it was late");
    s.keeping.end(other, 0);
    assert_eq!(s.keeping.kept(), 0);
}

#[test]
fn r16_closures_that_are_kept_for_long_are_kept_more_and_more_rarely() {
    let mut s = state(1, 1);
    let mut called = |waited| {
        let passed = (0..).find_map(|n| Some((n, s.keep_last(0)?)));
        let (others, keeps) = passed.unwrap();
        s.keeping.end(keeps, waited);
        others
    };
    let late = 1_000_000;
    let pauses: Vec<u32> = (0..12).map(|_| called(late)).collect();
    assert_eq!(pauses, [0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024]);
    assert_eq!((called(0), called(0), called(late), called(late)), (1024, 0, 0, 2));
}

/// A thread that queues, or has come, calls others as long as few are coming: those who come call the rest.
#[test]
fn r16_threads_that_come_call_the_others() {
    let mut s = state(100, 0);
    let mut called = 0;
    for n in 0..20 {
        s.push(unit(n));
        called += usize::from(s.call(COMING_FEW, || true).is_some());
    }
    assert_eq!((called, s.coming), (2, 2));
    let mut most = 0;
    for n in 0..20 {
        assert_eq!(come(&mut s), Some(n), "nobody comes for the rest");
        (0..CALLS_EACH).for_each(|_| called += usize::from(s.call(COMING_MANY, || true).is_some()));
        most = most.max(s.coming);
    }
    assert_eq!((called, s.coming, most), (20, 0, COMING_MANY));
}

#[test]
fn r16_short_closures_need_few_threads() {
    let mut s = state(100, 20);
    assert!(s.call(COMING_FEW, || true).is_some());
    assert_eq!(come(&mut s), Some(0));
    assert!(s.call(COMING_MANY, || true).is_some());
    // It has done with all before the other one comes.
    for n in 1..20 {
        s.running -= 1;
        assert_eq!(go_on(&mut s), Some(n));
    }
    assert_eq!(come(&mut s), None);
    assert_eq!(s.threads, 2);
}

/// These have no cells to look into.
#[test]
fn r15_an_aborted_closure_is_found_without_a_look_at_the_others() {
    let mut s = state(3, 5);
    let address = |n| unit(n).into_raw().addr().get();
    let mut take_out = |n| s.take_out(address(n)).map(|(unit, was_kept)| (number(unit), was_kept));
    assert_eq!((take_out(3), take_out(3), take_out(0), take_out(7)), (Some((3, false)), None, Some((0, false)), None));
    let rest = std::iter::from_fn(|| s.take(0)).map(|(unit, _)| number(unit));
    assert_eq!(rest.collect::<Vec<_>>(), [1, 2, 4]);
}
