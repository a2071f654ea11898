//! S13: hello over HTTP/1.1 keep-alive, driven by `wrk`: hyper's, and one by hand that servers without hyper have too.
//! Each is the same for all peers that have it.

use std::convert::Infallible;
use std::process::Command;
use std::time::Instant;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};

use super::{Drive, Info, Service};
use crate::cell::Cell;
use crate::hello::{Hello, READ_BYTES};
use crate::laps::{Extra, Outcome};
use crate::peer::Peer;
use crate::usage::Usage;

/// The scenarios, each with what asks.
pub const ALL: [(Info, Drive); 7] = [
    (hyper("http-hello-1", "hyper's hello over keep-alive, wrk -t1 -c1 -d1 --latency"), |cell, at, _| {
        wrk(cell, at, "-c1", false)
    }),
    (hyper("http-hello", "hyper's hello over keep-alive, wrk -t1 -c64 -d1 --latency"), |cell, at, _| {
        wrk(cell, at, "-c64", false)
    }),
    (hyper("http-hello-256", "hyper's hello over keep-alive, wrk -t1 -c256 -d1 --latency"), |cell, at, _| {
        wrk(cell, at, "-c256", false)
    }),
    (PIPELINED, |cell, at, _| wrk(cell, at, "-c64", true)),
    (by_hand("hello-1", "hello by hand, without hyper, wrk -t1 -c1 -d1 --latency"), |cell, at, _| {
        wrk(cell, at, "-c1", false)
    }),
    (by_hand("hello-64", "hello by hand, without hyper, wrk -t1 -c64 -d1 --latency"), |cell, at, _| {
        wrk(cell, at, "-c64", false)
    }),
    (by_hand("hello-pipelined", "hello by hand, 16 requests in a row, wrk -t1 -c64 -d1"), |cell, at, _| {
        wrk(cell, at, "-c64", true)
    }),
];

const PIPELINED: Info = Info {
    slow: true,
    ..Info::network(Service::HttpPipelined, "http-pipelined", "hyper's hello, 16 requests in a row, wrk -t1 -c64 -d1")
};

/// What makes wrk ask sixteen times in a row.
pub const ROW: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/pipeline.lua");

/// wrk counts an answer after two seconds as an error; beside a busy machine it is only slow, and the percentiles tell.
const TIMEOUT: &str = "20s";

const fn hyper(name: &'static str, about: &'static str) -> Info {
    Info { slow: true, ..Info::network(Service::Http, name, about) }
}

const fn by_hand(name: &'static str, about: &'static str) -> Info {
    Info { slow: true, ..Info::network(Service::Hello, name, about) }
}

/// Whether a scenario needs `wrk`.
pub fn needs_wrk(scenario: &Info) -> bool {
    ALL.iter().any(|(needs, _)| needs.name == scenario.name)
}

fn wrk(_: &Cell, address: &str, connections: &str, in_a_row: bool) -> Outcome {
    let url = format!("http://{address}/");
    let mut command = Command::new("wrk");
    command.args(["-t1", connections, "-d1", "--timeout", TIMEOUT, "--latency"]);
    if in_a_row {
        command.args(["-s", ROW]);
    }
    let (begun, usage) = (Instant::now(), Usage::of_children());
    let output = command.arg(&url).output().expect("wrk starts");
    let busy = (Usage::of_children() - usage).cpu_ns as f64 / begun.elapsed().as_nanos() as f64;
    let text = String::from_utf8_lossy(&output.stdout);
    let report = parse(&text).unwrap_or_else(|what| panic!("{what} in what wrk printed:\n{text}"));
    // Of requests in a row wrk times the first alone.
    let mut extras = match in_a_row {
        true => Vec::new(),
        false => vec![Extra::new("p50", report.p50_us, "us"), Extra::new("p99", report.p99_us, "us")],
    };
    extras.push(Extra::new("generator busy", busy, ""));
    Outcome::single(report.per_second, report.requests, Usage::default(), extras)
}

/// Whether `wrk` can be started.
pub fn has_wrk() -> bool {
    // Without arguments it prints its usage and fails; only whether it starts is asked.
    Command::new("wrk").output().is_ok()
}

/// The task of a connection: hyper, and the same answer to every request.
pub async fn serve<P: Peer>(stream: P::Stream) {
    hyper_serves::<P>(stream, false).await;
}

/// The same, where requests come in a row.
pub async fn serve_rows<P: Peer>(stream: P::Stream) {
    hyper_serves::<P>(stream, true).await;
}

/// The task of a connection without hyper.
pub async fn serve_by_hand<P: Peer>(mut stream: P::Stream) {
    let (mut buf, mut answers, mut hello) = ([0; READ_BYTES], Vec::new(), Hello::default());
    while let Ok(n @ 1..) = P::read(&mut stream, &mut buf).await {
        answers.clear();
        if hello.answer(&buf[..n], &mut answers).is_err() || P::write_all(&mut stream, &answers).await.is_err() {
            break;
        }
    }
}

async fn hyper_serves<P: Peer>(stream: P::Stream, rows: bool) {
    let service = service_fn(|_: Request<Incoming>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"Hello, World!"))))
    });
    // wrk ends by closing its connections wherever they stand, which is an error here.
    let _ = hyper::server::conn::http1::Builder::new()
        .pipeline_flush(rows)
        .serve_connection(P::http_io(stream), service)
        .await;
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
