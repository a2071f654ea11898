//! Connections: each is served by a task of its own, and all of them can be told to end.

use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::stream::{FuturesUnordered, StreamExt};
use gmp::net::TcpStream;
use gmp::rt::{GmpExecutor, GmpTimer};
use gmp::task::JoinHandle;
use gmp::time::{sleep, timeout};
use hyper::service::service_fn;
use hyper_util::server::conn::auto;

use crate::routes;

/// The connections that are open, as a stream of those that close.
pub type Connections = FuturesUnordered<Connection>;

/// A connection that is served. It is ready when it has closed.
pub struct Connection {
    task: JoinHandle<()>,
    /// Dropped to tell the task to end.
    go_on: Option<oneshot::Sender<()>>,
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // A panic while serving has been printed, and has closed its connection only.
        Pin::new(&mut self.task).poll(cx).map(drop)
    }
}

/// Waits until a connection closes, for ever if there is none.
pub async fn one_closes(connections: &mut Connections) {
    if connections.next().await.is_none() {
        pending().await
    }
}

/// Lets every connection finish the requests that it has begun, for at most `limit`; then they are cut.
pub async fn end(mut connections: Connections, limit: Duration) {
    for connection in connections.iter_mut() {
        connection.go_on = None;
    }
    let all_closed = async { while connections.next().await.is_some() {} };
    if timeout(limit, all_closed).await.is_err() {
        eprintln!("connections cut: {}", connections.len());
    }
}

/// How to talk to clients.
pub struct Protocol {
    http: auto::Builder<GmpExecutor>,
    header_timeout: Duration,
}

impl Protocol {
    pub fn new(header_timeout: Duration) -> Self {
        let mut http = auto::Builder::new(GmpExecutor);
        http.http1().timer(GmpTimer).header_read_timeout(header_timeout);
        // A client that has gone without a word is noticed by its silence.
        http.http2().timer(GmpTimer).keep_alive_interval(Duration::from_secs(30));
        Protocol { http, header_timeout }
    }

    /// Serves a client in a task.
    pub fn serve(&self, stream: TcpStream) -> Connection {
        let (go_on, told_to_end) = oneshot::channel();
        let task = gmp::spawn(serve(stream, self.http.clone(), self.header_timeout, told_to_end));
        Connection { task, go_on: Some(go_on) }
    }
}

/// Errors are not reported: all of them are a client that broke off or broke the protocol, and hyper has told it so.
async fn serve(
    stream: TcpStream,
    http: auto::Builder<GmpExecutor>,
    header_timeout: Duration,
    told_to_end: oneshot::Receiver<()>,
) {
    // Answers leave at once; if this fails the connection is already broken, which hyper will find.
    let _ = stream.set_nodelay(true);
    let asked = AtomicBool::new(false);
    let service = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        routes::answer(request)
    });
    let mut connection = pin!(http.serve_connection(stream, service));

    // hyper's header timeout begins when the first bytes have shown which protocol it is. This one is for clients that
    // do not come that far.
    let nothing_comes = async {
        sleep(header_timeout + Duration::from_secs(1)).await;
        if asked.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
    };
    match select(&mut connection, select(told_to_end, pin!(nothing_comes))).await {
        Either::Right((Either::Left(_), _)) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
        Either::Left(_) | Either::Right((Either::Right(_), _)) => {}
    }
}
