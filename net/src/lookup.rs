//! Looking a host name up, on a thread of its own: `getaddrinfo` blocks, and the machine that calls it should not.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What the lookup's thread and the task that waits share.
#[derive(Debug, Default)]
struct Answer {
    addrs: Option<io::Result<Vec<SocketAddr>>>,
    waker: Option<Waker>,
}

/// A lookup under way. Dropping it lets the thread finish for nobody.
#[derive(Debug)]
pub(crate) struct Lookup(Arc<Mutex<Answer>>);

fn lock(answer: &Mutex<Answer>) -> MutexGuard<'_, Answer> {
    // No user code runs under it, so a poisoned one is as good as any.
    answer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells, when it drops, that there is an answer, or that the thread has died without one.
struct Teller(Arc<Mutex<Answer>>);

impl Drop for Teller {
    fn drop(&mut self) {
        let mut answer = lock(&self.0);
        answer.addrs.get_or_insert_with(|| Err(io::Error::other("the lookup panicked")));
        let waker = answer.waker.take();
        drop(answer);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Starts looking `host` up.
pub(crate) fn resolve(host: String, port: u16) -> io::Result<Lookup> {
    let answer = Arc::new(Mutex::new(Answer::default()));
    let teller = Teller(answer.clone());
    std::thread::Builder::new().name("gmp-lookup".to_owned()).spawn(move || {
        let addrs = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        lock(&teller.0).addrs = Some(addrs);
    })?;
    Ok(Lookup(answer))
}

impl Future for Lookup {
    type Output = io::Result<Vec<SocketAddr>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = cx.waker().clone();
        let mut answer = lock(&self.0);
        let addrs = answer.addrs.take();
        let left_over = if addrs.is_some() { Some(waker) } else { answer.waker.replace(waker) };
        drop(answer);
        drop(left_over);
        addrs.map_or(Poll::Pending, Poll::Ready)
    }
}
