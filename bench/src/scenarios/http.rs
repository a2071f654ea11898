//! S13: hyper's hello over HTTP/1.1 keep-alive, driven by `wrk`. The service is the same for all peers.

use std::convert::Infallible;
use std::process::Command;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};

use super::Info;
use super::server::{self, Beside};
use crate::cell::Cell;
use crate::laps::{Extra, Outcome};
use crate::peer::Peer;

/// The scenario.
pub const HELLO: Info =
    Info { slow: true, ..Info::network("http-hello", "hyper's hello over keep-alive, wrk -t1 -c64 -d2 --latency") };

/// One connection.
pub const HELLO_1: Info =
    Info { slow: true, ..Info::network("http-hello-1", "hyper's hello over keep-alive, wrk -t1 -c1 -d2 --latency") };

/// Many.
pub const HELLO_256: Info = Info {
    slow: true,
    ..Info::network("http-hello-256", "hyper's hello over keep-alive, wrk -t1 -c256 -d2 --latency")
};

/// wrk counts an answer after two seconds as an error; beside a busy machine it is only slow, and the percentiles tell.
const TIMEOUT: &str = "20s";

/// Runs [`HELLO_1`].
pub fn hello_1<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell, "-c1")
}

/// Runs [`HELLO_256`].
pub fn hello_256<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell, "-c256")
}

/// Runs [`HELLO`].
///
/// # Panics
///
/// If `wrk` is not there; [`has_wrk`] says so before.
pub fn hello<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell, "-c64")
}

/// Whether a scenario needs `wrk`.
pub fn needs_wrk(scenario: &Info) -> bool {
    [HELLO, HELLO_1, HELLO_256].iter().any(|needs| needs.name == scenario.name)
}

fn measure<P: Peer>(peer: &P, cell: &Cell, connections: &'static str) -> Outcome {
    let duration = cell.pick("-d2", "-d1");
    let Beside { report, usage, .. } = server::run(peer, cell, serve::<P>, None, move |address, _| {
        let url = format!("http://{address}/");
        let output = Command::new("wrk")
            .args(["-t1", connections, duration, "--timeout", TIMEOUT, "--latency", &url])
            .output()
            .expect("wrk starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        parse(&text).unwrap_or_else(|what| panic!("{what} in what wrk printed:\n{text}"))
    });
    let extras = vec![Extra::new("p50", report.p50_us, "us"), Extra::new("p99", report.p99_us, "us")];
    Outcome::single(report.per_second, report.requests, usage, extras)
}

/// Whether `wrk` can be started.
pub fn has_wrk() -> bool {
    // Without arguments it prints its usage and fails; only whether it starts is asked.
    Command::new("wrk").output().is_ok()
}

/// The task of a connection: hyper, and the same answer to every request.
pub async fn serve<P: Peer>(stream: P::Stream) {
    let service = service_fn(|_: Request<Incoming>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"Hello, World!"))))
    });
    // wrk ends by closing its connections wherever they stand, which is an error here.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(P::http_io(stream), service).await;
}

#[derive(Debug, PartialEq)]
struct WrkReport {
    per_second: f64,
    requests: u64,
    p50_us: f64,
    p99_us: f64,
}

fn parse(text: &str) -> Result<WrkReport, &'static str> {
    if text.contains("Socket errors") {
        return Err("socket errors");
    }
    if text.contains("Non-2xx") {
        return Err("answers other than 2xx");
    }
    let after = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
    let requests = text.lines().find(|line| line.contains(" requests in ")).ok_or("no count of requests")?;
    Ok(WrkReport {
        per_second: after("Requests/sec:").and_then(|v| v.parse().ok()).ok_or("no requests per second")?,
        requests: requests.split_whitespace().next().and_then(|v| v.parse().ok()).ok_or("no count of requests")?,
        p50_us: after("50%").and_then(micros).ok_or("no p50")?,
        p99_us: after("99%").and_then(micros).ok_or("no p99")?,
    })
}

/// wrk's `12.30us`, `1.20ms` and `1.00s` in microseconds.
fn micros(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    units.iter().find_map(|(unit, scale)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "Running 2s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   500.00us  300.00us   9.99ms   90.00%
    Req/Sec   120.00k     5.00k  130.00k    75.00%
  Latency Distribution
     50%  430.00us
     75%  600.00us
     90%  900.00us
     99%    1.52ms
  240000 requests in 2.00s, 20.00MB read
Requests/sec: 119900.50
Transfer/sec:     10.00MB
";

    #[test]
    fn wrk_report_is_read() {
        let want = WrkReport { per_second: 119_900.5, requests: 240_000, p50_us: 430.0, p99_us: 1_520.0 };
        assert_eq!(parse(PRINTED), Ok(want));
    }

    #[test]
    fn wrk_errors_are_not_taken_for_a_result() {
        let failed = format!("{PRINTED}  Socket errors: connect 0, read 3, write 0, timeout 0\n");
        assert_eq!(parse(&failed), Err("socket errors"));
        assert!(parse("unable to connect to 127.0.0.1:1 Connection refused").is_err());
    }
}
