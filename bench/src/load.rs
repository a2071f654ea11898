//! The load generator of the echo scenarios: one thread, every connection in a closed loop. `scenarios::echo` starts
//! this program again with `--load`, so that its CPU time is not the server's; `scenarios::idle` with `--hold`, which
//! asks nothing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::stats;
use crate::usage::Usage;

/// Bytes of a request and of its answer.
pub const ECHO_BYTES: usize = 64;

/// Rates are taken over stretches this long: the best of them is one that nothing else on the machine disturbed.
/// Without an answer it goes on until there is one, and the rate is that of all of it.
const WINDOW: Duration = Duration::from_millis(20);

/// Connections that have nearly all the requests, where they are dealt out unevenly.
const HOT: usize = 6;

/// So many requests of the hot connections go to one of another.
const HOT_PER_COLD: u64 = 9;

/// Connections that are opened before the server is waited for.
pub const CHUNK: usize = 64;

/// A server that has not answered by then will not.
const LATE: Duration = Duration::from_secs(5);

/// Who asks when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Each connection asks again as soon as it has its answer.
    All,
    /// The same, on a new connection each time.
    Churn,
    /// A few do, and for nine of their answers one of the others asks once.
    Skewed,
}

impl FromStr for Way {
    type Err = String;

    fn from_str(name: &str) -> Result<Way, String> {
        match name {
            "load" => Ok(Way::All),
            "churn" => Ok(Way::Churn),
            "skew" => Ok(Way::Skewed),
            _ => Err(format!("no load is called {name}")),
        }
    }
}

/// Whose turn it is among those that ask seldom.
#[derive(Debug)]
struct Cold {
    next: usize,
    connections: usize,
    hot_answers: u64,
}

impl Cold {
    /// A hot connection was answered: who asks besides, if it is time.
    fn besides(&mut self) -> Option<usize> {
        self.hot_answers += 1;
        if self.hot_answers % HOT_PER_COLD != 0 {
            return None;
        }
        let key = self.next;
        self.next = if key + 1 == self.connections { HOT } else { key + 1 };
        Some(key)
    }
}

/// What a generator prints.
#[derive(Debug, Serialize, Deserialize)]
pub struct LoadReport {
    /// Answers, the warm-up included.
    pub requests: u64,
    /// Answers per second in each stretch of 20 ms after the warm-up, or longer where there was none; never zero.
    pub per_second: Vec<f64>,
    /// Median time from a request to its answer, after the warm-up, in microseconds.
    pub p50_us: f64,
    /// The same of 99 %.
    pub p99_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// CPU time of the generator, in times the time that passed: at 1 it is what limits the rate.
    pub busy: f64,
}

struct Connection {
    socket: TcpStream,
    /// When the request was sent, or, where each has a connection of its own, when connecting began.
    sent: Instant,
    /// Bytes of the answer that have come.
    got: usize,
    /// Whether an answer is still to come.
    asked: bool,
}

impl Connection {
    /// Not blocking, and known to the poller by `key`.
    fn open(address: SocketAddr, poller: &OwnedFd, key: usize) -> io::Result<Connection> {
        let sent = Instant::now();
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        epoll::add(poller, &socket, epoll::EventData::new_u64(key as u64), epoll::EventFlags::IN)?;
        Ok(Connection { socket, sent, got: 0, asked: false })
    }

    fn send(&mut self) -> io::Result<()> {
        (self.got, self.asked) = (0, true);
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

/// Lets this process have as many files open as the system lets it, and says how many.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // Refused, the limit stays what it was.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Opens so many connections to `address`, and keeps them until `told` ends. After each [`CHUNK`] it waits for a byte,
/// which says that they were accepted: more than a server has room for would come late. None of them leaves a port
/// behind that lingers.
///
/// # Errors
///
/// Those of the sockets and of `told`.
pub fn hold(address: SocketAddr, connections: usize, mut told: impl Read) -> io::Result<()> {
    raise_open_files();
    let mut all = Vec::with_capacity(connections);
    for n in 0..connections {
        if n > 0 && n % CHUNK == 0 && told.read(&mut [0])? == 0 {
            return Ok(());
        }
        let socket = TcpStream::connect(address)?;
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        all.push(socket);
    }
    io::copy(&mut told, &mut io::sink())?;
    Ok(())
}

/// Drives the echo server at `address` for `lasting`, of which the first fifth is warm-up.
///
/// # Errors
///
/// Those of the sockets; a server that closes is one of them.
pub fn run(address: SocketAddr, connections: usize, lasting: Duration, way: Way) -> io::Result<LoadReport> {
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut all = Vec::with_capacity(connections);
    for key in 0..connections {
        all.push(Connection::open(address, &poller, key)?);
    }
    let asking = if way == Way::Skewed { HOT } else { connections };
    let mut cold = Cold { next: HOT, connections, hot_answers: 0 };
    for connection in all.iter_mut().take(asking) {
        connection.sent = Instant::now();
        connection.send()?;
    }
    let (start, usage) = (Instant::now(), Usage::now());
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
        match epoll::wait(&poller, spare_capacity(&mut events), Some(&wait)) {
            // A process that was stopped goes on with this, and so does one that a debugger looked at.
            Err(error) if error != rustix::io::Errno::INTR => return Err(error.into()),
            _ => {}
        }
        let mut now = Instant::now();
        for event in &events {
            let key = event.data.u64() as usize;
            let connection = &mut all[key];
            if connection.receive()? {
                now = Instant::now();
                requests += 1;
                if now >= warm {
                    in_window += 1;
                    times_us.push((now - connection.sent).as_nanos() as f64 / 1e3);
                }
                connection.asked = false;
                if way == Way::Churn {
                    // Closed by a reset: a port that lingers would be missed after some thousand connections.
                    rustix::net::sockopt::set_socket_linger(&connection.socket, Some(Duration::ZERO))?;
                    *connection = Connection::open(address, &poller, key)?;
                } else {
                    connection.sent = now;
                }
                if key < asking {
                    connection.send()?;
                }
                if way == Way::Skewed && key < HOT {
                    // One that still waits for its answer is left out this time.
                    let besides = cold.besides().map(|key| &mut all[key]);
                    if let Some(connection) = besides.filter(|connection| !connection.asked) {
                        connection.sent = now;
                        connection.send()?;
                    }
                }
            }
        }
        if now >= window + WINDOW && in_window > 0 {
            per_second.push(f64::from(in_window) / (now - window).as_secs_f64());
            (window, in_window) = (now, 0);
        }
        if now >= end && !per_second.is_empty() || now >= end + LATE {
            break;
        }
    }
    if per_second.is_empty() {
        return Err(io::Error::new(ErrorKind::TimedOut, "the server gave no answer after the warm-up"));
    }
    let busy = (Usage::now() - usage).cpu_ns as f64 / start.elapsed().as_nanos() as f64;
    times_us.sort_by(f64::total_cmp);
    Ok(LoadReport {
        requests,
        busy,
        per_second,
        p50_us: stats::quantile(&times_us, 0.5),
        p99_us: stats::quantile(&times_us, 0.99),
        max_us: times_us[times_us.len() - 1],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_come_as_they_are_accepted_and_stay() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        hold(address, CHUNK + 2, &b"go on"[..]).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.incoming().take_while(Result::is_ok).count(), CHUNK + 2);
        hold(address, CHUNK + 2, &b""[..]).unwrap();
        assert_eq!(listener.incoming().take_while(Result::is_ok).count(), CHUNK);
    }

    /// On a busy machine the measured time may pass before there is an answer.
    #[test]
    fn a_server_that_is_late_has_a_low_rate_and_none_of_zero() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let lasting = WINDOW * 2;
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut buf = [0; ECHO_BYTES];
            std::thread::sleep(lasting * 2);
            // The generator is gone once it has what it wants.
            while socket.read_exact(&mut buf).is_ok() && socket.write_all(&buf).is_ok() {}
        });
        let report = run(address, 1, lasting, Way::All).unwrap();
        server.join().unwrap();
        assert!(report.per_second.iter().all(|rate| *rate > 0.0), "{report:?}");
    }

    #[test]
    fn one_request_of_ten_is_one_of_the_many() {
        let mut cold = Cold { next: HOT, connections: HOT + 3, hot_answers: 0 };
        let asked: Vec<_> = (0..36).filter_map(|_| cold.besides()).collect();
        assert_eq!(asked, [HOT, HOT + 1, HOT + 2, HOT]);
    }
}
