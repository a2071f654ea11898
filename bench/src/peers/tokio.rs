//! tokio 1.x in its two forms: the multi-thread scheduler with its defaults, and the current-thread scheduler: one of
//! them, and as servers also one a core that share nothing but the port.

use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::cores::{self, Server};
use super::{Code, Entry, version};
use crate::cell::{self, Cell};
use crate::peer::Peer;
use crate::scenarios::blocking::InPlace;
use crate::scenarios::{Batch, Info, Kind, Service, http, server};

/// Which scheduler: its name, whether it takes part, and its builder.
pub trait Flavor: Send + Sync + 'static {
    /// [`Peer::NAME`].
    const NAME: &'static str;

    /// [`Peer::settings`].
    fn settings(procs: usize) -> String;

    /// [`Peer::takes_part`].
    fn takes_part(scenario: &Info, procs: usize) -> bool;

    /// The builder, without its drivers.
    fn builder(procs: usize) -> Builder;
}

/// The multi-thread scheduler.
#[derive(Debug)]
pub struct Multi;

impl Flavor for Multi {
    const NAME: &'static str = "tokio";

    fn settings(procs: usize) -> String {
        let version = version("tokio");
        format!("tokio {version} multi_thread, worker_threads = {procs}, enable_all, other settings default")
    }

    fn takes_part(_: &Info, _: usize) -> bool {
        true
    }

    fn builder(procs: usize) -> Builder {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(procs);
        builder
    }
}

/// The current-thread scheduler, which is tokio's best form on one thread.
#[derive(Debug)]
pub struct Current;

impl Flavor for Current {
    const NAME: &'static str = "tokio-ct";

    fn settings(procs: usize) -> String {
        let version = version("tokio");
        match procs {
            1 => format!("tokio {version} current_thread, enable_all; not in spawn-outside… and block-in-place"),
            _ => format!("tokio {version} current_thread, enable_all, {procs} of them with SO_REUSEPORT; servers only"),
        }
    }

    fn takes_part(scenario: &Info, procs: usize) -> bool {
        match scenario.kind {
            // Nobody polls what is spawned from outside until it is joined.
            Kind::Scheduler => procs == 1 && !scenario.name.starts_with("spawn-outside"),
            Kind::Network => procs == 1 || scenario.service.is_some(),
            // It refuses `block_in_place`: there is no thread to hand the others to.
            Kind::Waiting | Kind::Timer | Kind::Blocking => procs == 1 && scenario.name != InPlace::INFO.name,
        }
    }

    fn builder(_: usize) -> Builder {
        Builder::new_current_thread()
    }
}

/// tokio with a scheduler of its two.
#[derive(Debug)]
pub struct Tokio<F> {
    runtime: Runtime,
    flavor: PhantomData<F>,
}

/// tokio's multi-thread runtime.
pub type MultiThread = Tokio<Multi>;
/// tokio's current-thread runtime.
pub type CurrentThread = Tokio<Current>;

/// One current-thread runtime is a peer as others are; several are servers that share nothing.
pub(super) fn current_thread() -> Entry {
    let here = |scenario: &str, cell: &Cell| match cell.procs {
        1 => cell::run::<CurrentThread>(scenario, cell),
        _ => cell::serve::<CurrentThreads>(scenario, cell),
    };
    Entry {
        name: Current::NAME,
        settings: Current::settings,
        takes_part: Current::takes_part,
        ceiling: false,
        code: Code::Here(here),
    }
}

/// tokio's current-thread runtime, one a core.
#[derive(Debug)]
pub struct CurrentThreads;

impl Server for CurrentThreads {
    const NAME: &'static str = Current::NAME;

    fn settings(procs: usize) -> String {
        Current::settings(procs)
    }

    fn serves(_: Service) -> bool {
        true
    }

    fn start(procs: usize, address: SocketAddr, service: Service) {
        cores::threads(procs, move |listening| {
            CurrentThread::build(1).block_on(async move {
                let listener = cores::listener(address);
                listener.set_nonblocking(true).expect("it is a socket");
                let mut listener = TcpListener::from_std(listener).expect("tokio takes it");
                // Who waits for it lives until all threads have said so.
                let _ = listening.send(());
                loop {
                    let stream = CurrentThread::accept(&mut listener).await.expect("accept works");
                    cores::seen();
                    match service {
                        Service::Echo => tokio::spawn(server::echo::<CurrentThread>(stream)),
                        Service::Http => tokio::spawn(http::serve::<CurrentThread>(stream)),
                        Service::HttpPipelined => tokio::spawn(http::serve_rows::<CurrentThread>(stream)),
                        Service::Hello => tokio::spawn(http::serve_by_hand::<CurrentThread>(stream)),
                    };
                }
            });
        });
    }
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

impl<R: Flavor> Peer for Tokio<R> {
    const NAME: &'static str = R::NAME;

    type Join<T: Send + 'static> = Join<T>;
    type Sender = mpsc::Sender<u64>;
    type Receiver = mpsc::Receiver<u64>;
    type OneSender = oneshot::Sender<()>;
    type OneReceiver = oneshot::Receiver<()>;
    type Unsent = oneshot::error::RecvError;
    type Mutex = tokio::sync::Mutex<()>;
    type Listener = TcpListener;
    type Stream = TcpStream;
    type HttpIo = TokioIo<TcpStream>;

    fn settings(procs: usize) -> String {
        R::settings(procs)
    }

    fn takes_part(scenario: &Info, procs: usize) -> bool {
        R::takes_part(scenario, procs)
    }

    fn build(procs: usize) -> Self {
        let runtime = R::builder(procs).enable_all().build().expect("tokio starts");
        Tokio { runtime, flavor: PhantomData }
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
        Join(tokio::spawn(future))
    }

    fn detach<T: Send + 'static>(join: Join<T>) {
        drop(join);
    }

    fn block_in_place(f: impl FnOnce()) {
        tokio::task::block_in_place(f);
    }

    fn spawn_blocking(f: impl FnOnce() + Send + 'static) -> Join<()> {
        Join(tokio::task::spawn_blocking(f))
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        tokio::task::yield_now()
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(duration)
    }

    fn channel(capacity: usize) -> (Self::Sender, Self::Receiver) {
        mpsc::channel(capacity)
    }

    async fn send(sender: &Self::Sender, number: u64) {
        sender.send(number).await.expect("the receiver lives");
    }

    fn recv(receiver: &mut Self::Receiver) -> impl Future<Output = Option<u64>> + Send {
        receiver.recv()
    }

    fn oneshot() -> (Self::OneSender, Self::OneReceiver) {
        oneshot::channel()
    }

    fn signal(sender: Self::OneSender) {
        sender.send(()).expect("somebody waits");
    }

    fn mutex() -> Self::Mutex {
        tokio::sync::Mutex::new(())
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
        tokio::time::timeout(duration, future).await.expect("it ends in time");
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
        stream.read(buf).await
    }

    async fn write_all(stream: &mut TcpStream, buf: &[u8]) -> io::Result<()> {
        stream.write_all(buf).await
    }

    fn http_io(stream: TcpStream) -> TokioIo<TcpStream> {
        TokioIo::new(stream)
    }
}
