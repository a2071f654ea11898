//! A web server: hyper on gmp, HTTP/1.1 and HTTP/2 on one port.
//!
//! ```text
//! cargo run --release --example http_server [ADDRESS]     (127.0.0.1:3000)
//!
//! curl http://127.0.0.1:3000/
//! curl --http2-prior-knowledge http://127.0.0.1:3000/sleep?ms=100
//! ```
//!
//! `routes` says what it answers, `connections` how it talks to one client and ends. `HEADER_TIMEOUT_MS` in the
//! environment is how long a client may take for the headers of a request.

mod connections;
mod routes;

use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::io;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use gmp::net::TcpListener;
use gmp::signal::unix::{Signal, SignalKind, signal};
use gmp::time::{Instant, sleep_until, timeout};

use connections::{Connections, Protocol};

/// How long clients may take to end what they have begun when the server is asked to end.
const DRAIN: Duration = Duration::from_secs(10);

#[gmp::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let protocol = Protocol::new(header_timeout()?);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let listener = TcpListener::bind(&address).await.map_err(|e| format!("{address}: {e}"))?;
    println!("serving on http://{}", listener.local_addr()?);

    let mut connections = Connections::new();
    select(pin!(serve(&listener, &protocol, &mut connections)), pin!(asked_to_end(&mut interrupt, &mut terminate)))
        .await;

    // From here on clients are refused, which tells them sooner than a silence would.
    drop(listener);
    connections::end(connections, DRAIN).await;
    Ok(())
}

/// 30 s, as in hyper, unless the environment says otherwise.
fn header_timeout() -> Result<Duration, Box<dyn Error>> {
    match env::var("HEADER_TIMEOUT_MS") {
        Ok(text) => Ok(Duration::from_millis(text.parse().map_err(|e| format!("HEADER_TIMEOUT_MS: {e}"))?)),
        Err(_) => Ok(Duration::from_secs(30)),
    }
}

async fn asked_to_end(interrupt: &mut Signal, terminate: &mut Signal) {
    select(pin!(interrupt.recv()), pin!(terminate.recv())).await;
}

/// Takes clients in for ever.
async fn serve(listener: &TcpListener, protocol: &Protocol, connections: &mut Connections) -> Infallible {
    let mut patience = Patience::new();
    loop {
        // Those that have closed go first: a failure to accept then only waits for those that are still open.
        let accepted = match select(pin!(connections::one_closes(connections)), pin!(listener.accept())).await {
            Either::Left(_) => continue,
            Either::Right((accepted, _)) => accepted,
        };
        match accepted {
            Ok((stream, _)) => connections.push(protocol.serve(stream)),
            // That client has gone while it waited; the next one may be there.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => patience.wait(&error, connections).await,
        }
    }
}

/// How long to wait when `accept` fails, most likely for want of file descriptors. The clients wait in the backlog, and
/// the kernel does not report them a second time, so it is for the server to ask again.
struct Patience {
    next: Duration,
    last_failure: Option<Instant>,
}

impl Patience {
    const FIRST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_secs(1);
    /// Between two failures even if connections close all the time.
    const SHORTEST_AFTER_CLOSE: Duration = Duration::from_millis(20);

    fn new() -> Self {
        Patience { next: Patience::FIRST, last_failure: None }
    }

    /// Returns when it is time to try again: when the time is over, which doubles with each failure in a row, or when a
    /// connection has closed.
    async fn wait(&mut self, error: &io::Error, connections: &mut Connections) {
        let now = Instant::now();
        if self.last_failure.is_none_or(|last| now - last > 2 * Patience::LONGEST) {
            eprintln!("accept: {error}; clients wait");
            self.next = Patience::FIRST;
        }
        self.last_failure = Some(now);
        if timeout(self.next, connections::one_closes(connections)).await.is_ok() {
            sleep_until(now + Patience::SHORTEST_AFTER_CLOSE).await;
        }
        self.next = (2 * self.next).min(Patience::LONGEST);
    }
}
