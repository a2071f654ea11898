//! The load generator of the echo scenarios: one thread, every connection in a closed loop. `scenarios::echo` starts
//! this program again with `--load`, so that its CPU time is not the server's.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use serde::{Deserialize, Serialize};

use crate::stats;

/// Bytes of a request and of its answer.
pub const ECHO_BYTES: usize = 64;

/// Rates are taken over stretches this long: the best of them is one that nothing else on the machine disturbed.
const WINDOW: Duration = Duration::from_millis(20);

/// What a generator prints.
#[derive(Debug, Serialize, Deserialize)]
pub struct LoadReport {
    /// Answers, the warm-up included.
    pub requests: u64,
    /// Answers per second in each stretch of 20 ms after the warm-up.
    pub per_second: Vec<f64>,
    /// Median time from a request to its answer, after the warm-up, in microseconds.
    pub p50_us: f64,
    /// The same of 99 %.
    pub p99_us: f64,
    /// The slowest.
    pub max_us: f64,
}

struct Connection {
    socket: TcpStream,
    /// When the request was sent, or, where each has a connection of its own, when connecting began.
    sent: Instant,
    /// Bytes of the answer that have come.
    got: usize,
}

impl Connection {
    /// Not blocking, and known to the poller by `key`.
    fn open(address: SocketAddr, poller: &OwnedFd, key: usize) -> io::Result<Connection> {
        let sent = Instant::now();
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        epoll::add(poller, &socket, epoll::EventData::new_u64(key as u64), epoll::EventFlags::IN)?;
        Ok(Connection { socket, sent, got: 0 })
    }

    fn send(&mut self) -> io::Result<()> {
        self.got = 0;
        // 64 bytes fit into the send buffer, for no more than one request is under way.
        self.socket.write_all(&[b'x'; ECHO_BYTES])
    }

    /// Whether the answer is complete.
    fn receive(&mut self) -> io::Result<bool> {
        let mut buf = [0; ECHO_BYTES];
        match self.socket.read(&mut buf[self.got..]) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                self.got += n;
                Ok(self.got == ECHO_BYTES)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Drives the echo server at `address` for `lasting`, of which the first fifth is warm-up. With `churn` each request has a
/// connection of its own.
///
/// # Errors
///
/// Those of the sockets; a server that closes is one of them.
pub fn run(address: SocketAddr, connections: usize, lasting: Duration, churn: bool) -> io::Result<LoadReport> {
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut all = Vec::with_capacity(connections);
    for key in 0..connections {
        all.push(Connection::open(address, &poller, key)?);
    }
    for connection in &mut all {
        connection.sent = Instant::now();
        connection.send()?;
    }
    let start = Instant::now();
    let warm = start + lasting / 5;
    let end = start + lasting;
    let mut requests = 0;
    let mut times_us = Vec::new();
    let mut per_second = Vec::new();
    let (mut window, mut in_window) = (warm, 0);
    let mut events = Vec::with_capacity(connections);
    let wait = lasting.try_into().map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
    loop {
        events.clear();
        epoll::wait(&poller, spare_capacity(&mut events), Some(&wait))?;
        let mut now = Instant::now();
        for event in &events {
            let connection = &mut all[event.data.u64() as usize];
            if connection.receive()? {
                now = Instant::now();
                requests += 1;
                if now >= warm {
                    in_window += 1;
                    times_us.push((now - connection.sent).as_nanos() as f64 / 1e3);
                }
                if churn {
                    // Closed by a reset: a port that lingers would be missed after some thousand connections.
                    rustix::net::sockopt::set_socket_linger(&connection.socket, Some(Duration::ZERO))?;
                    *connection = Connection::open(address, &poller, event.data.u64() as usize)?;
                } else {
                    connection.sent = now;
                }
                connection.send()?;
            }
        }
        if now >= window + WINDOW {
            per_second.push(f64::from(in_window) / (now - window).as_secs_f64());
            (window, in_window) = (now, 0);
        }
        if now >= end && !per_second.is_empty() || now >= end + lasting {
            break;
        }
    }
    if per_second.is_empty() || times_us.is_empty() {
        return Err(io::Error::new(ErrorKind::TimedOut, "the server gave no answer after the warm-up"));
    }
    times_us.sort_by(f64::total_cmp);
    Ok(LoadReport {
        requests,
        per_second,
        p50_us: stats::quantile(&times_us, 0.5),
        p99_us: stats::quantile(&times_us, 0.99),
        max_us: times_us[times_us.len() - 1],
    })
}
