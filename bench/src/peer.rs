//! What a scenario asks of a runtime. Each file in `peers/` implements [`Peer`] once for each form of its runtime.
//!
//! 1. A scenario sees a runtime through this trait alone, so that all peers run the same source.
//! 2. Whatever is not a matter of the runtime is the same crate for all (the HTTP server is hyper's; what only ends a
//!    batch is a oneshot of `futures`).

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::scenarios::Info;

/// A runtime in one of its forms, in its best settings.
///
/// Functions without `self` are called from inside a task and mean the runtime that polls it.
pub trait Peer: Sized + Send + Sync + 'static {
    /// Its name on the command line and in the tables.
    const NAME: &'static str;

    /// A spawned task's handle; a panic of the task may panic here.
    type Join<T: Send + 'static>: Future<Output = T> + Send + 'static;
    /// The sending half of the runtime's own bounded channel.
    type Sender: Clone + Send + Sync + 'static;
    /// The receiving half.
    type Receiver: Send + 'static;
    /// The sending half of the runtime's own oneshot; a runtime that has none takes that of `futures`.
    type OneSender: Send + 'static;
    /// The receiving half.
    type OneReceiver: Future<Output = Result<(), Self::Unsent>> + Send + 'static;
    /// What the receiving half says when the sender is gone.
    type Unsent: Debug + Send;
    /// The runtime's own async mutex.
    type Mutex: Send + Sync + 'static;
    /// A listening TCP socket.
    type Listener: Send + 'static;
    /// A TCP connection.
    type Stream: Send + 'static;
    /// A connection as hyper wants it.
    type HttpIo: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static;

    /// Version and settings, for the table.
    fn settings(procs: usize) -> String;

    /// Whether this form of the runtime takes part in `scenario` with so many threads.
    fn takes_part(scenario: &Info, procs: usize) -> bool {
        let _ = (scenario, procs);
        true
    }

    /// Starts the runtime with `procs` threads that run tasks; dropping it ends them. One lives at a time.
    fn build(procs: usize) -> Self;

    /// Runs `root` as a *task* and waits for it, so that what it spawns is spawned on a worker.
    fn block_on_inside<F>(&self, root: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static;

    /// Polls `future` on the calling thread, which is none of the workers'.
    fn block_on<F: Future>(&self, future: F) -> F::Output;

    /// Spawns from a thread that is none of the workers'.
    fn spawn_outside<F>(&self, future: F) -> Self::Join<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static;

    /// Spawns from inside a task, for the caller: a runtime may tell tasks apart by where they were spawned.
    #[track_caller]
    fn spawn<F>(future: F) -> Self::Join<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static;

    /// Lets a task go on without its handle.
    fn detach<T: Send + 'static>(join: Self::Join<T>);

    /// Calls `f`, which may block, in the middle of a poll.
    ///
    /// # Panics
    ///
    /// If the runtime has no such call; [`Peer::takes_part`] says so before.
    fn block_in_place(f: impl FnOnce());

    /// Has `f`, which may block, called on another thread, whether or not anybody awaits the handle.
    fn spawn_blocking(f: impl FnOnce() + Send + 'static) -> Self::Join<()>;

    /// Returns once the other tasks had a turn.
    fn yield_now() -> impl Future<Output = ()> + Send;

    /// Returns after `duration`.
    fn sleep(duration: Duration) -> impl Future<Output = ()> + Send;

    /// The runtime's own channel for `capacity` numbers.
    fn channel(capacity: usize) -> (Self::Sender, Self::Receiver);

    /// Sends a number. Panics if the receiver is gone.
    fn send(sender: &Self::Sender, number: u64) -> impl Future<Output = ()> + Send;

    /// Receives a number; `None` if the sender is gone.
    fn recv(receiver: &mut Self::Receiver) -> impl Future<Output = Option<u64>> + Send;

    /// A channel for one signal.
    fn oneshot() -> (Self::OneSender, Self::OneReceiver);

    /// Sends the signal. Panics if the receiver is gone.
    fn signal(sender: Self::OneSender);

    /// A mutex of the runtime.
    fn mutex() -> Self::Mutex;

    /// Locks it, yields in it if told so, and unlocks it.
    fn locked(mutex: &Self::Mutex, yields: bool) -> impl Future<Output = ()> + Send;

    /// Locks it, works in it, and unlocks it.
    fn locked_for(mutex: &Self::Mutex, work: impl FnOnce() + Send) -> impl Future<Output = ()> + Send;

    /// Waits for `future`, which ends in time, at most so long.
    fn timeout<F: Future + Send>(duration: Duration, future: F) -> impl Future<Output = ()> + Send;

    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn listen() -> impl Future<Output = io::Result<(Self::Listener, SocketAddr)>> + Send;

    /// Accepts a connection and sets TCP_NODELAY on it.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn accept(listener: &mut Self::Listener) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Reads some bytes; zero is the end.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn read(stream: &mut Self::Stream, buf: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;

    /// Writes all of `buf`.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn write_all(stream: &mut Self::Stream, buf: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Puts the runtime's adapter to hyper around a connection.
    fn http_io(stream: Self::Stream) -> Self::HttpIo;
}
