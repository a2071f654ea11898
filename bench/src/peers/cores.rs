//! Peers that are servers and nothing else: a thread a core with a listener each on one port (`SO_REUSEPORT`), where
//! the kernel deals the connections out, or what a runtime has in its place.
//!
//! 1. They take part where a [`Service`] is asked for; what a connection does is written by hand for each.
//! 2. A thread that serves says so with [`seen`]; a cell whose threads did not all serve is an error, as with the
//!    others.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, mpsc};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::load::ECHO_BYTES;
use crate::scenarios::Service;

/// A server that is no [`Peer`](crate::peer::Peer).
pub trait Server: 'static {
    /// Its name on the command line and in the tables.
    const NAME: &'static str;
    /// Whether it is no runtime but what none can pass.
    const CEILING: bool = false;

    /// Version and settings, for the table.
    fn settings(procs: usize) -> String;

    /// Whether it serves that.
    fn serves(service: Service) -> bool {
        matches!(service, Service::Echo | Service::Hello)
    }

    /// Begins to serve at `address` with `procs` threads, until the process ends; it listens when this returns.
    fn start(procs: usize, address: SocketAddr, service: Service);
}

static SEEN: Mutex<Option<HashSet<ThreadId>>> = Mutex::new(None);

thread_local! {
    static KNOWN: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// The calling thread serves a connection.
pub fn seen() {
    KNOWN.with(|known| {
        if !known.replace(true) {
            let mut seen = SEEN.lock().expect("no holder panics");
            seen.get_or_insert_default().insert(thread::current().id());
        }
    });
}

/// Starts `procs` threads that call `serve` each, and returns when all have called what it is given: they listen.
///
/// # Panics
///
/// If one of them ends before.
pub fn threads(procs: usize, serve: impl Fn(mpsc::Sender<()>) + Clone + Send + 'static) {
    let (listening, listen) = mpsc::channel();
    for i in 0..procs {
        let (serve, listening) = (serve.clone(), listening.clone());
        let thread = thread::Builder::new().name(format!("serve-{i}"));
        thread.spawn(move || serve(listening)).expect("a thread starts");
    }
    drop(listening);
    for _ in 0..procs {
        listen.recv().expect("every thread listens");
    }
}

fn shared(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_reuse_port(true).expect("the port can be shared");
    socket.bind(&address.into()).expect("the port is free, or shared");
    socket
}

/// A port of the loopback, taken by a socket that does not listen: as long as that lives.
pub fn reserve() -> (Socket, SocketAddr) {
    let socket = shared((Ipv4Addr::LOCALHOST, 0).into());
    let address = socket.local_addr().expect("it is bound").as_socket().expect("it is of the internet");
    (socket, address)
}

/// A listener on a port that others listen on too. Calls on it block.
pub fn listener(address: SocketAddr) -> TcpListener {
    let socket = shared(address);
    socket.listen(1024).expect("it is bound");
    socket.into()
}

/// How many threads serve: clients come until there are `procs`, or it takes too long.
pub fn count_threads(procs: usize, address: SocketAddr, service: Service) -> usize {
    let give_up = Instant::now() + Duration::from_secs(5);
    loop {
        thread::scope(|scope| {
            for _ in 0..2 * procs {
                scope.spawn(|| {
                    for _ in 0..8 {
                        exchange(address, service);
                    }
                });
            }
        });
        let served = SEEN.lock().expect("no holder panics").as_ref().map_or(0, HashSet::len);
        if served >= procs || Instant::now() > give_up {
            return served;
        }
    }
}

fn exchange(address: SocketAddr, service: Service) {
    let mut socket = TcpStream::connect(address).expect("it listens");
    let mut buf = [0; 1024];
    let request: &[u8] =
        if service == Service::Echo { &[b'x'; ECHO_BYTES] } else { b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" };
    socket.write_all(request).expect("the server reads");
    assert!(socket.read(&mut buf).expect("the server answers") > 0, "the server answers");
}
