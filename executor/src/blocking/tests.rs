//! The accounts of the pool, without threads.

use super::{Call, Next, State};
use crate::machine::Machine;
use crate::runq::tests::{number, unit};

fn state(limit: usize, queued: usize) -> State {
    let mut state = State::new();
    state.limit = limit;
    state.closed = false;
    state.queue.extend((0..queued).map(unit));
    state
}

/// A thread has come: the number of the closure that it runs, if it does.
fn come(state: &mut State) -> Option<usize> {
    state.coming -= 1;
    go_on(state)
}

fn go_on(state: &mut State) -> Option<usize> {
    match state.next() {
        Next::Run(unit) => Some(number(unit)),
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
    std::iter::from_fn(|| state.call(&mut counted)).filter(|call| matches!(call, Call::New(_))).count()
}

#[test]
fn r16_a_thread_is_called_for_each_closure_up_to_the_limit() {
    let mut s = state(3, 2);
    assert_eq!(new_threads(&mut s, 100), 2);
    s.queue.extend((2..5).map(unit));
    assert_eq!(new_threads(&mut s, 100), 1);
    assert_eq!((come(&mut s), come(&mut s), come(&mut s)), (Some(0), Some(1), Some(2)));
    assert!(s.call(|| true).is_none(), "the limit is reached");
    // One has done with its closure.
    s.running -= 1;
    assert_eq!(go_on(&mut s), Some(3));
}

#[test]
fn r16_a_thread_that_comes_too_late_is_called_again() {
    let mut s = state(3, 1);
    assert_eq!(new_threads(&mut s, 100), 1);
    assert_eq!(come(&mut s), Some(0));
    s.queue.push_back(unit(1));
    assert_eq!(new_threads(&mut s, 100), 1);
    // The first one is faster, and a third closure needs nobody but the thread that comes.
    s.running -= 1;
    assert_eq!(go_on(&mut s), Some(1));
    s.queue.push_back(unit(2));
    assert!(s.call(|| true).is_none());
    assert_eq!(come(&mut s), Some(2));
    s.running -= 1;
    assert_eq!(go_on(&mut s), None);
    s.queue.push_back(unit(3));
    assert!(matches!(s.call(|| true), Some(Call::Idle(_))));
    assert_eq!((come(&mut s), s.threads), (Some(3), 2));
}

#[test]
fn r16_a_wait_gives_the_place_away_and_its_end_takes_it_back() {
    let mut s = state(1, 2);
    assert_eq!(new_threads(&mut s, 100), 1);
    assert_eq!(come(&mut s), Some(0));
    assert!(s.call(|| true).is_none());
    s.waiting += 1;
    assert_eq!(new_threads(&mut s, 100), 1);
    assert_eq!(come(&mut s), Some(1));
    // Two run now: the first that has done rests, and the other one takes what has come meanwhile.
    s.waiting -= 1;
    s.queue.push_back(unit(2));
    assert!(s.call(|| true).is_none());
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
    s.queue.push_back(unit(2));
    assert!(s.call(|| true).is_none());
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
    assert!(s.call(|| true).is_none(), "the limit is reached");
    s.wakers.push_back(std::task::Waker::noop().clone());
    assert!(matches!(s.bring(|| true), Some(Call::New(2))));
    s.coming -= 1;
    assert!(matches!(s.next(), Next::Wake(_)));
    assert!(s.call(|| true).is_none(), "the limit is reached");
}
