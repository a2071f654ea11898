//! The load generator at a constant rate: one thread, an open loop. `scenarios::tail` and the program in `go/` start
//! this program again with `--rate`, so that it takes neither a thread nor CPU time of the server's.
//!
//! 1. Request `i` is due at `start + i / rate`, whatever became of those before it, on connection `i` modulo their
//!    number.
//! 2. A time is counted from when the request was due, not from when it could be sent: one that waits because its
//!    connection is still owed an answer waits at the server's account. No omission is coordinated with the server.
//! 3. What is not answered in the end counts with the time it has waited so far. Answers to what was due in the warm-up
//!    are counted apart: a server that falls behind may still be at those in the end, and does answer.
//! 4. Every connection has been answered once before `ready` is printed; nothing is timed before.
//! 5. The slowest requests of a whole run are those of the worst moment of the machine, whoever serves: one stall of
//!    3 ms in 2 s makes its p99.9. So that of each quarter of a second is taken too, and the median of these: what a
//!    tail is made of that comes again and again is in each of them, and what comes once is in the whole run's.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::time::{self, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};
use serde::{Deserialize, Serialize};

use crate::load::ECHO_BYTES;
use crate::stats;

/// From `ready` to the first request, in which the hogs of a scenario begin.
const PAUSE: Duration = Duration::from_millis(200);

/// Of each such stretch, by when requests were due, the p99.9 is taken.
pub const STRETCH: Duration = Duration::from_millis(250);

/// What is still awaited after the last request was due.
const DRAIN: Duration = Duration::from_millis(300);

/// The key of the timer among the connections'.
const TICK: u64 = u64::MAX;

const HTTP_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What a request and its answer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// 64 bytes that come back.
    Echo,
    /// `GET /` over HTTP/1.1 keep-alive; the answer has a `content-length`.
    Http,
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(name: &str) -> Result<Protocol, String> {
        match name {
            "echo" => Ok(Protocol::Echo),
            "http" => Ok(Protocol::Http),
            _ => Err(format!("no protocol is called {name}")),
        }
    }
}

impl Protocol {
    fn request(self) -> &'static [u8] {
        match self {
            Protocol::Echo => &[b'x'; ECHO_BYTES],
            Protocol::Http => HTTP_REQUEST,
        }
    }

    /// The length of the answer that `got` begins with, once it can be told.
    fn answer_len(self, got: &[u8]) -> io::Result<Option<usize>> {
        match self {
            Protocol::Echo => Ok(Some(ECHO_BYTES)),
            Protocol::Http => http_len(got),
        }
    }
}

fn http_len(got: &[u8]) -> io::Result<Option<usize>> {
    let Some(head) = got.windows(4).position(|end| end == b"\r\n\r\n") else {
        return Ok(None);
    };
    let odd = |what: &str| io::Error::new(ErrorKind::InvalidData, what.to_owned());
    let text = std::str::from_utf8(&got[..head]).map_err(|_| odd("the head of the answer is no text"))?;
    let mut lines = text.split("\r\n");
    if !lines.next().is_some_and(|status| status.starts_with("HTTP/1.1 200")) {
        return Err(odd("the answer is not 200"));
    }
    let fields = lines.filter_map(|line| line.split_once(':'));
    let length =
        fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).find_map(|(_, n)| n.trim().parse().ok());
    let length: usize = length.ok_or_else(|| odd("the answer has no content-length"))?;
    Ok(Some(head + 4 + length))
}

/// What is asked, how often and how long.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What a request is.
    pub protocol: Protocol,
    /// Connections that take turns.
    pub connections: usize,
    /// Requests a second, on all connections together.
    pub per_second: u64,
    /// How long; the first fifth is not timed.
    pub lasting: Duration,
}

/// What a generator prints after `ready`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RateReport {
    /// Requests that were due after the warm-up and were answered.
    pub answered: u64,
    /// Those that were not.
    pub unanswered: u64,
    /// Requests that were due in the warm-up and were answered, whenever that was.
    pub warm_up_answered: u64,
    /// Shares of the requests, and the microseconds in which they were answered.
    pub quantiles_us: Vec<(f64, f64)>,
    /// The p99.9 of each quarter of a second, and of these the median, in microseconds.
    pub usual_p999_us: f64,
    /// How late the generator itself was, 99 % of the times it had a connection free for a request that was due.
    pub lag_p99_us: f64,
}

impl RateReport {
    /// The time of this share of the requests, one of [`SHARES`], in microseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        stats::at(&self.quantiles_us, share)
    }
}

/// Shares of which the times are reported; the last is the slowest.
pub const SHARES: [f64; 9] = [0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0];

/// The quantiles of `sorted` at [`SHARES`].
pub fn quantiles(sorted: &[f64]) -> Vec<(f64, f64)> {
    SHARES.iter().map(|&share| (share, stats::quantile(sorted, share))).collect()
}

struct Connection {
    socket: TcpStream,
    /// When the request under way was due.
    asked: Option<Instant>,
    /// Requests that are due and wait for the answer before them.
    waiting: u32,
    got: Vec<u8>,
}

impl Connection {
    fn ask(&mut self, protocol: Protocol, due: Instant) -> io::Result<()> {
        self.asked = Some(due);
        self.got.clear();
        // It fits into the send buffer, for no more than one request is under way.
        self.socket.write_all(protocol.request())
    }

    /// Whether the answer is complete.
    fn receive(&mut self, protocol: Protocol) -> io::Result<bool> {
        let mut buf = [0; 1024];
        match self.socket.read(&mut buf) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => self.got.extend_from_slice(&buf[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(protocol.answer_len(&self.got)?.is_some_and(|length| self.got.len() >= length))
    }
}

/// Asks the server at `address` by the plan; `ready` is called when every connection has been answered once.
///
/// # Errors
///
/// Those of the sockets; a server that closes, or answers something else, is one of them.
pub fn run(address: SocketAddr, plan: &Plan, ready: impl FnOnce() -> io::Result<()>) -> io::Result<RateReport> {
    prefer_this_thread();
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut all = Vec::with_capacity(plan.connections);
    for key in 0..plan.connections {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut connection = Connection { socket, asked: None, waiting: 0, got: Vec::with_capacity(1024) };
        connection.ask(plan.protocol, Instant::now())?;
        while !connection.receive(plan.protocol)? {}
        connection.asked = None;
        connection.socket.set_nonblocking(true)?;
        epoll::add(&poller, &connection.socket, epoll::EventData::new_u64(key as u64), epoll::EventFlags::IN)?;
        all.push(connection);
    }
    ready()?;
    Run::new(plan, all, Instant::now() + PAUSE).go(&poller)
}

struct Run<'a> {
    plan: &'a Plan,
    all: Vec<Connection>,
    start: Instant,
    warm: Instant,
    end: Instant,
    /// Requests that were due so far.
    due: u64,
    /// When each request was due after the warm-up, and in how many microseconds it was answered.
    times_us: Vec<(Duration, f64)>,
    /// Answers to those that were due before.
    warm_up_answered: u64,
    lags_us: Vec<f64>,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, all: Vec<Connection>, start: Instant) -> Run<'a> {
        let (warm, end) = (start + plan.lasting / 5, start + plan.lasting);
        let expected = (plan.lasting.as_secs_f64() * plan.per_second as f64) as usize + 1;
        let (times_us, lags_us) = (Vec::with_capacity(expected), Vec::with_capacity(expected));
        Run { plan, all, start, warm, end, due: 0, times_us, warm_up_answered: 0, lags_us }
    }

    fn due_at(&self, request: u64) -> Instant {
        self.start + Duration::from_nanos(request * 1_000_000_000 / self.plan.per_second)
    }

    /// What passes on a connection between two requests that are due.
    fn turn(&self) -> Duration {
        Duration::from_nanos(self.all.len() as u64 * 1_000_000_000 / self.plan.per_second)
    }

    fn ask_what_is_due(&mut self, now: Instant) -> io::Result<()> {
        loop {
            let due = self.due_at(self.due);
            if due > now || due >= self.end {
                return Ok(());
            }
            let key = (self.due % self.all.len() as u64) as usize;
            self.due += 1;
            let connection = &mut self.all[key];
            if connection.asked.is_some() {
                connection.waiting += 1;
            } else {
                self.lags_us.push((now - due).as_nanos() as f64 / 1e3);
                connection.ask(self.plan.protocol, due)?;
            }
        }
    }

    fn answered(&mut self, key: usize) -> io::Result<()> {
        let (now, turn) = (Instant::now(), self.turn());
        let connection = &mut self.all[key];
        // An event without a request: the server said more than it was asked.
        let due = connection.asked.take().ok_or(ErrorKind::InvalidData)?;
        if due >= self.warm {
            self.times_us.push((due - self.warm, (now - due).as_nanos() as f64 / 1e3));
        } else {
            self.warm_up_answered += 1;
        }
        if connection.waiting > 0 {
            connection.waiting -= 1;
            connection.ask(self.plan.protocol, due + turn)?;
        }
        Ok(())
    }

    fn go(mut self, poller: &OwnedFd) -> io::Result<RateReport> {
        // A timer that ticks at the rate: a wait's own limit would be rounded to milliseconds.
        let timer = time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        epoll::add(poller, &timer, epoll::EventData::new_u64(TICK), epoll::EventFlags::IN)?;
        let spec = |time: Duration| time.try_into().map_err(|_| io::Error::from(ErrorKind::InvalidInput));
        let it_interval = spec(Duration::from_nanos(1_000_000_000 / self.plan.per_second))?;
        let it_value = spec(self.start.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1)))?;
        time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value })?;
        let mut events = Vec::with_capacity(self.all.len() + 1);
        loop {
            let now = Instant::now();
            self.ask_what_is_due(now)?;
            let over = self.due_at(self.due) >= self.end;
            if over && (now >= self.end + DRAIN || self.all.iter().all(|connection| connection.asked.is_none())) {
                break;
            }
            events.clear();
            match epoll::wait(poller, spare_capacity(&mut events), None) {
                Err(error) if error != rustix::io::Errno::INTR => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                let key = event.data.u64() as usize;
                if event.data.u64() == TICK {
                    // How many ticks passed is of no interest: the loop asks the clock.
                    rustix::io::read(&timer, &mut [0; 8])?;
                } else if self.all[key].receive(self.plan.protocol)? {
                    self.answered(key)?;
                }
            }
        }
        self.report()
    }

    fn report(mut self) -> io::Result<RateReport> {
        let answered = self.times_us.len() as u64;
        let (now, turn) = (Instant::now(), self.turn());
        for connection in &self.all {
            let Some(first) = connection.asked else { continue };
            let left = (0..=connection.waiting).map(|n| first + turn * n).filter(|due| *due >= self.warm);
            self.times_us.extend(left.map(|due| (due - self.warm, (now - due).as_nanos() as f64 / 1e3)));
        }
        if self.times_us.is_empty() || self.lags_us.is_empty() {
            return Err(io::Error::new(ErrorKind::TimedOut, "no request was due after the warm-up"));
        }
        let unanswered = self.times_us.len() as u64 - answered;
        let usual_p999_us = usual_p999(&self.times_us, self.end - self.warm);
        let mut times_us: Vec<f64> = self.times_us.iter().map(|(_, us)| *us).collect();
        times_us.sort_by(f64::total_cmp);
        self.lags_us.sort_by(f64::total_cmp);
        Ok(RateReport {
            answered,
            unanswered,
            warm_up_answered: self.warm_up_answered,
            quantiles_us: quantiles(&times_us),
            usual_p999_us,
            lag_p99_us: stats::quantile(&self.lags_us, 0.99),
        })
    }
}

/// The median of the stretches' p99.9, which of few is the greatest, of all that was due so long after the start; what
/// is left of `lasting` after the last whole stretch belongs to it.
pub fn usual_p999(times_us: &[(Duration, f64)], lasting: Duration) -> f64 {
    let count = ((lasting.as_nanos() / STRETCH.as_nanos()) as usize).max(1);
    let mut stretches = vec![Vec::new(); count];
    for (due, us) in times_us {
        stretches[((due.as_nanos() / STRETCH.as_nanos()) as usize).min(count - 1)].push(*us);
    }
    let p999 = |mut stretch: Vec<f64>| {
        stretch.sort_by(f64::total_cmp);
        stats::quantile(&stretch, 0.999)
    };
    // None is empty but where requests are due more rarely.
    let each: Vec<f64> = stretches.into_iter().filter(|stretch| !stretch.is_empty()).map(p999).collect();
    stats::median(&each)
}

/// Makes the kernel wake this thread on time, also beside busy CPUs. Both are asked for and not needed: how late the
/// generator was is part of its report. Whether it goes before others now.
fn prefer_this_thread() -> bool {
    // SAFETY: both calls take numbers alone.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
        libc::setpriority(libc::PRIO_PROCESS, 0, -20) == 0
    }
}

/// Whether the generator may go before others: it takes root, or a right of its own.
pub fn goes_first() -> bool {
    // It is asked for a thread alone, which ends.
    std::thread::spawn(prefer_this_thread).join().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn length_of_an_answer_is_told_once_its_head_is_there() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\ndate: now\r\n\r\nhello";
        assert_eq!(http_len(&answer[..20]).unwrap(), None);
        assert_eq!(http_len(answer).unwrap(), Some(answer.len()));
        assert!(http_len(b"HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(http_len(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn a_moment_that_was_bad_is_in_the_whole_runs_tail_and_not_in_the_usual_one() {
        // A request a millisecond; each hundredth takes 2, and all of one tenth of a second took longer.
        let time = |ms: u64| match ms {
            600..700 => 9_000.0,
            _ if ms % 100 == 0 => 2_000.0,
            _ => 50.0,
        };
        let times: Vec<_> = (0..1_000).map(|ms| (Duration::from_millis(ms), time(ms))).collect();
        assert_eq!(usual_p999(&times, Duration::from_secs(1)), 2_000.0);
        let bad_twice: Vec<_> =
            times.iter().map(|&(due, us)| (due, if due < STRETCH { 9_000.0 } else { us })).collect();
        assert_eq!(usual_p999(&bad_twice, Duration::from_secs(1)), 5_500.0);
        // Shorter than a stretch, and one that is no multiple.
        assert_eq!(usual_p999(&times[..150], Duration::from_millis(150)), 2_000.0);
        assert_eq!(usual_p999(&times[..700], Duration::from_millis(700)), 5_500.0);
    }

    /// A server that answers each first request and then holds every answer back until all requests were due.
    #[test]
    fn a_stall_counts_for_all_that_were_due_in_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut buf = [0; ECHO_BYTES];
            for n in 0.. {
                if socket.read_exact(&mut buf).is_err() {
                    return;
                }
                if n == 1 {
                    std::thread::sleep(Duration::from_millis(500) + PAUSE);
                }
                // The generator is gone once it has what it wants.
                if socket.write_all(&buf).is_err() {
                    return;
                }
            }
        });
        let lasting = Duration::from_millis(500);
        let plan = Plan { protocol: Protocol::Echo, connections: 1, per_second: 100, lasting };
        let report = run(address, &plan, || Ok(())).unwrap();
        server.join().unwrap();
        // 50 were due, ten of them in the warm-up. The first is the only one that was sent in time; the others waited
        // for it, the earlier ones longer, and that is what is reported.
        assert_eq!(report.answered + report.unanswered, 40);
        assert!(report.quantile(0.5) >= 200_000.0, "{report:?}");
        assert!(report.quantile(1.0) > report.quantile(0.1), "{report:?}");
    }

    /// A server that answers two requests, the second of them due in the warm-up, and then none.
    #[test]
    fn answers_to_requests_of_the_warm_up_are_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut buf = [0; ECHO_BYTES];
            for _ in 0..2 {
                socket.read_exact(&mut buf).unwrap();
                socket.write_all(&buf).unwrap();
            }
            // Until the generator is gone.
            while socket.read_exact(&mut buf).is_ok() {}
        });
        let lasting = Duration::from_millis(500);
        let plan = Plan { protocol: Protocol::Echo, connections: 1, per_second: 100, lasting };
        let report = run(address, &plan, || Ok(())).unwrap();
        server.join().unwrap();
        assert_eq!((report.answered, report.unanswered, report.warm_up_answered), (0, 40, 1));
    }
}
