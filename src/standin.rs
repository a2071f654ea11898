//! A stand-in for `gmp_executor::runtime`, to be deleted when that is there: a thread for each task.

use std::any::Any;
use std::cell::Cell;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::{fmt, io, panic};

thread_local!(static PROCS: Cell<usize> = const { Cell::new(0) });

/// The number of processors of the current runtime.
pub fn procs() -> usize {
    PROCS.get()
}

#[allow(missing_docs)]
pub struct Builder(usize, String);

#[allow(missing_docs)]
impl Builder {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Builder(std::env::var("GMP_PROCS").map_or(3, |procs| procs.parse().unwrap_or(0)), "gmp".into())
    }
    pub fn procs(mut self, procs: usize) -> Self {
        self.0 = procs;
        self
    }
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.1 = name.into();
        self
    }
    pub fn start_paused(self, _: bool) -> Self {
        self
    }
    pub fn build(self) -> io::Result<Runtime> {
        match self.0 {
            0 => Err(io::Error::new(io::ErrorKind::InvalidInput, "procs: 0")),
            _ => Ok(Runtime(self)),
        }
    }
}

#[allow(missing_docs)]
pub struct Runtime(Builder);

#[allow(missing_docs)]
pub struct DefaultGuard;

struct Unpark(Thread);
impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[allow(missing_docs)]
impl Runtime {
    pub fn install_default(&self) -> DefaultGuard {
        DefaultGuard
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        PROCS.set(self.0.0);
        let mut future = std::pin::pin!(future);
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            thread::park();
        }
    }

    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let state = Arc::new(Mutex::new((None, None::<Waker>)));
        let (theirs, procs) = (state.clone(), self.0.0);
        let start = thread::Builder::new().name(format!("{}-0", self.0.1)).spawn(move || {
            let runtime = Runtime(Builder(procs, String::new()));
            let result = panic::catch_unwind(panic::AssertUnwindSafe(|| runtime.block_on(future)));
            let mut state = theirs.lock().unwrap();
            state.0 = Some(result.map_err(JoinError));
            if let Some(waker) = state.1.take() {
                waker.wake();
            }
        });
        start.unwrap();
        JoinHandle(state)
    }
}

type Slot<T> = (Option<Result<T, JoinError>>, Option<Waker>);

#[allow(missing_docs)]
pub struct JoinHandle<T>(Arc<Mutex<Slot<T>>>);

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.lock().unwrap();
        state.1 = Some(context.waker().clone());
        state.0.take().map_or(Poll::Pending, Poll::Ready)
    }
}

#[allow(missing_docs)]
pub struct JoinError(Box<dyn Any + Send>);

#[allow(missing_docs)]
impl JoinError {
    pub fn is_panic(&self) -> bool {
        true
    }
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        self.0
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("panic")
    }
}
