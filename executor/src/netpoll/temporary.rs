//! Stands in for the context of a running runtime until the scheduler gives it.

use std::future::Future;
use std::io;
use std::os::fd::RawFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};

use super::{Backend, Kind, Netpoll, Registration, Wait};

fn current() -> &'static Netpoll {
    static NETPOLL: Netpoll = Netpoll::new();
    static OPENED: std::sync::Once = std::sync::Once::new();
    OPENED.call_once(|| NETPOLL.open(Backend::Native).expect("the poller opens"));
    &NETPOLL
}

impl Registration {
    /// Registers an fd with the netpoller of the runtime that the thread is in.
    ///
    /// # Errors
    ///
    /// `Unsupported` for a regular file, `AlreadyExists` for an fd that is registered, or those of the system.
    ///
    /// # Safety
    ///
    /// `fd` stays open until the registration is dropped.
    pub unsafe fn new(fd: RawFd, kind: Kind) -> io::Result<Registration> {
        // SAFETY: by the contract above.
        unsafe { current().register(fd, kind) }
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
        current().wake_blocked();
    }
}

/// Polls `future` between waits in the netpoller; one thread at a time.
pub fn block_on_for_tests<F: Future>(future: F) -> F::Output {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = woken.clone().into();
    let mut future = pin!(future);
    let mut ready = Vec::new();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        while !woken.0.swap(false, Ordering::Acquire) {
            current().wait(Wait::Forever, &mut ready).expect("the wait works");
            ready.drain(..).for_each(std::task::Waker::wake);
        }
    }
}
