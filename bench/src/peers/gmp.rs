//! gmp itself, with its defaults.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use gmp::chan::RecvError;
use gmp::net::{TcpListener, TcpStream};
use gmp::runtime::{Builder, Runtime};
use gmp::sync::oneshot;
use gmp::task::JoinHandle;

use crate::peer::Peer;

/// A gmp runtime of its own, beside the default one.
#[derive(Debug)]
pub struct Gmp {
    runtime: Runtime,
}

/// A join handle that gives the output itself.
#[derive(Debug)]
pub struct Join<T>(JoinHandle<T>);

impl<T> Future for Join<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(cx).map(|output| output.expect("the task neither panicked nor was aborted"))
    }
}

impl Gmp {
    /// One that never gives a stuck poll up, for `gates`.
    pub fn without_rescue(procs: usize) -> Gmp {
        Gmp { runtime: Builder::new().procs(procs).rescue(None).build().expect("gmp starts") }
    }

    /// The runtime itself.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }
}

impl Peer for Gmp {
    const NAME: &'static str = "gmp";

    type Join<T: Send + 'static> = Join<T>;
    type Sender = gmp::chan::Sender<u64>;
    type Receiver = gmp::chan::Receiver<u64>;
    type OneSender = oneshot::Sender<()>;
    type OneReceiver = oneshot::Receiver<()>;
    type Unsent = RecvError;
    type Mutex = gmp::sync::Mutex<()>;
    type Listener = TcpListener;
    type Stream = TcpStream;
    type HttpIo = TcpStream;

    fn settings(procs: usize) -> String {
        format!("gmp {}, procs = {procs}, other settings default", env!("CARGO_PKG_VERSION"))
    }

    fn build(procs: usize) -> Self {
        Gmp { runtime: Builder::new().procs(procs).build().expect("gmp starts") }
    }

    fn block_on_inside<F>(&self, root: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.runtime.block_on(async { Self::spawn(root).await })
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    fn spawn_outside<F>(&self, future: F) -> Join<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Join(self.runtime.spawn(future))
    }

    fn spawn<F>(future: F) -> Join<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Join(gmp::spawn(future))
    }

    fn detach<T: Send + 'static>(join: Join<T>) {
        drop(join);
    }

    fn block_in_place(f: impl FnOnce()) {
        gmp::block_in_place(f);
    }

    fn spawn_blocking(f: impl FnOnce() + Send + 'static) -> Join<()> {
        Join(gmp::spawn_blocking(f))
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        gmp::task::yield_now()
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> + Send {
        gmp::time::sleep(duration)
    }

    fn channel(capacity: usize) -> (Self::Sender, Self::Receiver) {
        gmp::chan::bounded(capacity)
    }

    async fn send(sender: &Self::Sender, number: u64) {
        sender.send(number).await.expect("the receiver lives");
    }

    async fn recv(receiver: &mut Self::Receiver) -> Option<u64> {
        receiver.recv().await.ok()
    }

    fn oneshot() -> (Self::OneSender, Self::OneReceiver) {
        oneshot::channel()
    }

    fn signal(sender: Self::OneSender) {
        sender.send(()).expect("somebody waits");
    }

    fn mutex() -> Self::Mutex {
        gmp::sync::Mutex::new(())
    }

    async fn locked(mutex: &Self::Mutex, yields: bool) {
        let _guard = mutex.lock().await;
        if yields {
            Self::yield_now().await;
        }
    }

    async fn locked_for(mutex: &Self::Mutex, work: impl FnOnce() + Send) {
        let _guard = mutex.lock().await;
        work();
    }

    async fn timeout<F: Future + Send>(duration: Duration, future: F) {
        gmp::time::timeout(duration, future).await.expect("it ends in time");
    }

    async fn listen() -> io::Result<(TcpListener, SocketAddr)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    }

    async fn accept(listener: &mut TcpListener) -> io::Result<TcpStream> {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn read(stream: &mut TcpStream, buf: &mut [u8]) -> io::Result<usize> {
        AsyncReadExt::read(stream, buf).await
    }

    async fn write_all(stream: &mut TcpStream, buf: &[u8]) -> io::Result<()> {
        AsyncWriteExt::write_all(stream, buf).await
    }

    fn http_io(stream: TcpStream) -> TcpStream {
        stream
    }
}
