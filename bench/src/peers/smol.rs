//! smol's parts as smol ships them, with the quicker one of its executors: async-executor's static executor on `procs`
//! threads, each inside async-io's `block_on`, so that whichever has nothing to do drives the reactor.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use async_executor::{StaticExecutor, Task};
use async_io::{Async, Timer};
use futures::channel::oneshot;
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt};
use smol_hyper::rt::FuturesIo;

use super::version;
use crate::peer::Peer;
use crate::scenarios::blocking::InPlace;
use crate::scenarios::{Batch, Info};

static EXECUTOR: StaticExecutor = StaticExecutor::new();

/// The threads that run the process's static executor, and what ends each of them.
#[derive(Debug)]
pub struct Smol {
    workers: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Drop for Smol {
    fn drop(&mut self) {
        let (stops, threads): (Vec<_>, Vec<_>) = self.workers.drain(..).unzip();
        drop(stops);
        for thread in threads {
            // A worker that panicked has said so on stderr; a second panic here would abort.
            let _ = thread.join();
        }
    }
}

impl Peer for Smol {
    const NAME: &'static str = "smol";

    type Join<T: Send + 'static> = Task<T>;
    type Sender = async_channel::Sender<u64>;
    type Receiver = async_channel::Receiver<u64>;
    type OneSender = oneshot::Sender<()>;
    type OneReceiver = oneshot::Receiver<()>;
    type Unsent = oneshot::Canceled;
    type Mutex = async_lock::Mutex<()>;
    type Listener = Async<TcpListener>;
    type Stream = Async<TcpStream>;
    type HttpIo = FuturesIo<Async<TcpStream>>;

    fn settings(procs: usize) -> String {
        let (executor, io, channel) = (version("async-executor"), version("async-io"), version("async-channel"));
        format!(
            "async-executor {executor} StaticExecutor on {procs} threads in block_on of async-io {io}, channels \
             async-channel {channel}, async-lock {}, blocking {}, oneshots futures-channel {}",
            version("async-lock"),
            version("blocking"),
            version("futures-channel"),
        )
    }

    fn takes_part(scenario: &Info, _: usize) -> bool {
        scenario.name != InPlace::INFO.name
    }

    fn build(procs: usize) -> Self {
        let worker = |i| {
            let (stop, stopped) = oneshot::channel();
            let thread = std::thread::Builder::new()
                .name(format!("smol-{i}"))
                .spawn(move || {
                    // The sender is only ever dropped, and its drop is the signal.
                    let _ = async_io::block_on(EXECUTOR.run(stopped));
                })
                .expect("a thread starts");
            (stop, thread)
        };
        Smol { workers: (0..procs).map(worker).collect() }
    }

    fn block_on_inside<F>(&self, root: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        futures_lite::future::block_on(EXECUTOR.spawn(root))
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        futures_lite::future::block_on(future)
    }

    fn spawn_outside<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        EXECUTOR.spawn(future)
    }

    fn spawn<F>(future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        EXECUTOR.spawn(future)
    }

    fn detach<T: Send + 'static>(join: Task<T>) {
        join.detach();
    }

    fn block_in_place(_: impl FnOnce()) {
        unreachable!("smol has no such call, and takes no part");
    }

    fn spawn_blocking(f: impl FnOnce() + Send + 'static) -> Task<()> {
        blocking::unblock(f)
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        futures_lite::future::yield_now()
    }

    async fn sleep(duration: Duration) {
        Timer::after(duration).await;
    }

    fn channel(capacity: usize) -> (Self::Sender, Self::Receiver) {
        async_channel::bounded(capacity)
    }

    async fn send(sender: &Self::Sender, number: u64) {
        sender.send(number).await.expect("the receiver lives");
    }

    async fn recv(receiver: &mut Self::Receiver) -> Option<u64> {
        receiver.recv().await.ok()
    }

    // smol has none. An async-channel of capacity 1 takes twice as long.
    fn oneshot() -> (Self::OneSender, Self::OneReceiver) {
        oneshot::channel()
    }

    fn signal(sender: Self::OneSender) {
        sender.send(()).expect("somebody waits");
    }

    fn mutex() -> Self::Mutex {
        async_lock::Mutex::new(())
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
        let ended = async { drop(future.await) };
        let late = async {
            Timer::after(duration).await;
            panic!("it ends in time");
        };
        ended.or(late).await;
    }

    async fn listen() -> io::Result<(Async<TcpListener>, SocketAddr)> {
        let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0))?;
        let address = listener.get_ref().local_addr()?;
        Ok((listener, address))
    }

    async fn accept(listener: &mut Async<TcpListener>) -> io::Result<Async<TcpStream>> {
        let (stream, _) = listener.accept().await?;
        stream.get_ref().set_nodelay(true)?;
        Ok(stream)
    }

    async fn read(stream: &mut Async<TcpStream>, buf: &mut [u8]) -> io::Result<usize> {
        stream.read(buf).await
    }

    async fn write_all(stream: &mut Async<TcpStream>, buf: &[u8]) -> io::Result<()> {
        stream.write_all(buf).await
    }

    fn http_io(stream: Async<TcpStream>) -> FuturesIo<Async<TcpStream>> {
        FuturesIo::new(stream)
    }
}
