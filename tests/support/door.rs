//! A door that tasks wait at and any thread opens.

use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};

/// Closed until [`Door::open`].
#[derive(Clone, Default)]
pub struct Door(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    open: bool,
    waiting: Vec<Waker>,
}

impl Door {
    /// Lets everybody through, now and later.
    pub fn open(&self) {
        let waiting = {
            let mut state = self.0.state.lock().unwrap();
            state.open = true;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Waits, as a thread, until so many polls have found the door closed; gives a waker of the last one.
    pub fn waker_of(&self, arrivals: usize) -> Waker {
        let state = self.0.state.lock().unwrap();
        let state = self.0.arrived.wait_while(state, |state| state.waiting.len() < arrivals).unwrap();
        state.waiting.last().expect("at least one arrival was asked for").clone()
    }
}

impl Future for Door {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.state.lock().unwrap();
        if state.open {
            return Poll::Ready(());
        }
        state.waiting.push(cx.waker().clone());
        self.0.arrived.notify_all();
        Poll::Pending
    }
}
