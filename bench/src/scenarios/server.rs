//! A server in the runtime under test and a load generator beside it. `echo`, `http`, `tail` and `late` use it; `cell`
//! starts those of the first two.
//!
//! 1. The server's root, its connections and the hogs are tasks; the generator is started from a thread that is none of
//!    the runtime's.
//! 2. Hogs begin when the generator says that it is ready, so that they do not delay the connecting.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use futures::channel::oneshot;

use super::{Drive, Info, Service, http};
use crate::cell::Cell;
use crate::laps::{Extra, Outcome};
use crate::load;
use crate::peer::Peer;
use crate::pin;
use crate::rate::RateReport;
use crate::usage::Usage;

/// Tasks that hold their thread in every poll, and yield in between.
#[derive(Clone, Copy, Debug)]
pub struct Hogs {
    /// How many.
    pub count: usize,
    /// What they do in a poll: [`std::thread::sleep`] or [`burn`].
    pub hold: fn(Duration),
    /// How long a poll.
    pub time: Duration,
}

impl Hogs {
    /// Spawns them; each counts its polls in the counter until `stop`. Called in a task.
    pub fn spawn<P: Peer>(self, stop: &Arc<AtomicBool>, polls: &Arc<AtomicU64>) -> Vec<P::Join<()>> {
        let hog = |_| {
            let (stop, polls) = (stop.clone(), polls.clone());
            P::spawn(async move {
                while !stop.load(Relaxed) {
                    (self.hold)(self.time);
                    polls.fetch_add(1, Relaxed);
                    P::yield_now().await;
                }
            })
        };
        (0..self.count).map(hog).collect()
    }
}

/// Computes for so long.
pub fn burn(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Starts the hogs; dropped, there are none.
pub type Ready = oneshot::Sender<()>;

/// What came of it.
#[derive(Debug)]
pub struct Beside<R> {
    /// What the generator reported.
    pub report: R,
    /// What this process, the server, used meanwhile.
    pub usage: Usage,
    /// Polls of the hogs, a second.
    pub hog_polls: f64,
}

/// Runs the server of a scenario that is one, and what asks it.
pub fn measure<P: Peer>(peer: &P, cell: &Cell, info: &Info, drive: Drive) -> Outcome {
    let on = *cell;
    let generate = move |address: String, ready| drive(&on, &address, ready);
    let Beside { report, usage, .. } = match info.service {
        Some(Service::Echo) => run(peer, cell, echo::<P>, None, generate),
        Some(Service::Http) => run(peer, cell, http::serve::<P>, None, generate),
        Some(Service::HttpPipelined) => run(peer, cell, http::serve_rows::<P>, None, generate),
        Some(Service::Hello) => run(peer, cell, http::serve_by_hand::<P>, None, generate),
        None => unreachable!("{} is no server", info.name),
    };
    Outcome { usage, ..report }
}

/// Runs a server, `serve` for each connection, and beside it `generate` with the address.
pub fn run<P: Peer, S, R: Send + 'static>(
    peer: &P,
    cell: &Cell,
    serve: fn(P::Stream) -> S,
    hogs: Option<Hogs>,
    generate: impl FnOnce(String, Ready) -> R + Send + 'static,
) -> Beside<R>
where
    S: Future<Output = ()> + Send + 'static,
{
    let (bound, address) = mpsc::channel();
    let (ready, begin) = oneshot::channel();
    let (done, wait) = oneshot::channel();
    let load_cpu = cell.load_cpu;
    let generator = std::thread::spawn(move || {
        let address = address.recv().expect("the server listens");
        let told = beside(load_cpu, || generate(address, ready));
        // The root is gone only if the server failed, and then `join` below is never reached.
        let _ = done.send(());
        told
    });
    let hog_polls = peer.block_on_inside(async move {
        let (mut listener, address) = P::listen().await.expect("a port of the loopback is free");
        P::detach(P::spawn(async move {
            loop {
                let stream = P::accept(&mut listener).await.expect("accept works");
                P::detach(P::spawn(serve(stream)));
            }
        }));
        bound.send(address.to_string()).expect("the generator waits");
        let (stop, polls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = Vec::new();
        if begin.await.is_ok() {
            tasks = hogs.map(|hogs| hogs.spawn::<P>(&stop, &polls)).unwrap_or_default();
        }
        let start = Instant::now();
        // An error means that the generator panicked: `join` tells.
        let _ = wait.await;
        let per_second = polls.load(Relaxed) as f64 / start.elapsed().as_secs_f64();
        stop.store(true, Relaxed);
        for task in tasks {
            task.await;
        }
        per_second
    });
    let (report, usage) = generator.join().expect("the load generator works");
    Beside { report, usage, hog_polls }
}

/// Runs a generator on the CPU that is meant for it, and gives what this process, the server, used meanwhile.
pub fn beside<R>(load_cpu: Option<usize>, generate: impl FnOnce() -> R) -> (R, Usage) {
    if let Some(cpu) = load_cpu {
        pin::to(cpu);
    }
    let before = Usage::now();
    let report = generate();
    (report, Usage::now() - before)
}

/// The task of a connection that echoes.
pub async fn echo<P: Peer>(mut stream: P::Stream) {
    let mut buf = [0; load::ECHO_BYTES];
    while let Ok(n @ 1..) = P::read(&mut stream, &mut buf).await {
        if P::write_all(&mut stream, &buf[..n]).await.is_err() {
            break;
        }
    }
}

/// The name of the figure that makes a row's a bound.
pub const UNANSWERED: &str = "unanswered";

/// How many requests at a constant rate were answered. Who is asked on each connection only once the answer before is
/// there may in the end still be at the requests of the warm-up: then none of those that count was answered, but others
/// were. The words are the same whatever the figures: those of one round stand before the median of all.
pub fn answers(report: &RateReport) -> [Extra; 3] {
    [
        Extra::new(UNANSWERED, report.unanswered as f64, "of those due after the warm-up"),
        Extra::new("answered", report.answered as f64, "of these"),
        Extra::new("answers in all", in_all(report) as f64, ""),
    ]
}

/// Answers, those to requests of the warm-up included: the CPU time of a cell went to all of them.
pub fn in_all(report: &RateReport) -> u64 {
    report.answered + report.warm_up_answered
}

/// What the generator at a constant rate is to do.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// `echo` or `http`.
    pub protocol: &'static str,
    /// Connections that take turns.
    pub connections: usize,
    /// Requests a second.
    pub per_second: u64,
    /// For how many milliseconds.
    pub ms: u64,
}

impl Rate {
    /// Runs the generator in a process of its own, and lets the hogs begin when it is ready.
    pub fn drive(self, address: &str, ready: Ready) -> RateReport {
        let program = std::env::current_exe().expect("this program has a path");
        let numbers = [self.connections.to_string(), self.per_second.to_string(), self.ms.to_string()];
        let mut command = Command::new(program);
        command.args(["--rate", self.protocol, address]).args(numbers).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the generator starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut text = String::new();
        stdout.read_line(&mut text).expect("stdout can be read");
        assert_eq!(text.trim(), "ready", "the generator failed");
        // The root is gone only if the server failed, and then the generator fails too.
        let _ = ready.send(());
        text.clear();
        stdout.read_to_string(&mut text).expect("stdout can be read");
        let status = child.wait().expect("the generator can be waited for");
        assert!(status.success(), "the generator ended with {status}");
        serde_json::from_str(&text).expect("the generator prints its report")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_answers_are_the_same_whatever_the_figures() {
        let words = |answered, unanswered| {
            let (quantiles_us, usual_p999_us, lag_p99_us) = (Vec::new(), 0.0, 0.0);
            let warm_up_answered = 1;
            let report = RateReport { answered, unanswered, warm_up_answered, quantiles_us, usual_p999_us, lag_p99_us };
            answers(&report).map(|extra| (extra.name, extra.unit))
        };
        assert!(words(8, 0) == words(0, 8) && words(0, 8) == words(4, 4));
    }
}
