//! `examples/http_server` from outside: its answers, its limits, its end. The part of the system under test is all of
//! it: sockets, signals, timers, hyper's traits, the shutdown of main's runtime.
#![cfg(target_os = "linux")]

mod client;
mod ending;
mod limits;
mod process;

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use client::request;
use process::{Server, has};

#[test]
fn r20_hello_over_keep_alive() {
    let server = Server::start();
    let mut client = server.connect();
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"Hello, World!\n"[..]));
        assert_eq!(answer.header("content-length"), Some("14"));
    }
    client.send(request("HEAD", "/"));
    let head = client.head();
    assert_eq!((head.status, head.header("content-length")), (200, Some("14")));
    assert_eq!(client.get("/").status, 200, "an answer to HEAD has no body");
}

#[test]
fn r20_pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let mut client = server.connect();
    let targets = ["/", "/sleep?ms=50", "/nothing", "/sleep?ms=1", "/", "/metrics"];
    client.send(targets.map(|target| request("GET", target)).concat());
    let answers = targets.map(|_| client.answer());
    assert_eq!(answers.each_ref().map(|answer| answer.status), [200, 200, 404, 200, 200, 200]);
    assert_eq!(answers[1].body, b"Slept 50 ms.\n");
    assert_eq!(answers[3].body, b"Slept 1 ms.\n");
}

/// Bytes that a loss, a repetition or an exchange would show: no two places within 2^32 have the same neighbourhood.
fn pattern(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    };
    (0..len / 4).flat_map(|_| next()).collect()
}

const BODY: usize = 50_000_000;

/// Sends `head` and then what `write` sends, and compares what comes back meanwhile.
fn check_echo(head: &str, coding: &str, write: impl FnOnce(&mut dyn Write, &[u8]) + Send) {
    let server = Server::start();
    let mut client = server.connect();
    let body = pattern(BODY);
    let mut sender = client.stream.try_clone().expect("a second handle");
    thread::scope(|scope| {
        scope.spawn(|| {
            sender.write_all(head.as_bytes()).expect("the server reads");
            write(&mut sender, &body);
        });
        let answer = client.head();
        assert_eq!(answer.status, 200);
        assert!(answer.header(coding).is_some(), "{answer:?}");
        let mut seen = 0;
        client.body(&answer, |bytes| {
            assert!(body[seen..].starts_with(bytes), "other bytes than sent, after {seen}");
            seen += bytes.len();
        });
        assert_eq!(seen, BODY);
    });
    assert_eq!(client.get("/").status, 200, "the connection goes on");
}

#[test]
fn r20_echo_of_a_known_length() {
    let head = format!("POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: {BODY}\r\n\r\n");
    check_echo(&head, "content-length", |stream, body| stream.write_all(body).expect("the server reads"));
}

#[test]
fn r20_echo_in_chunks() {
    let head = "POST /echo HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    check_echo(head, "transfer-encoding", |stream, body| {
        // Pieces of all sizes, so that sizes and ends come torn in all ways.
        let mut left = body;
        for size in (1..).step_by(7919).map(|size| size % 200_003 + 1) {
            let (piece, others) = left.split_at(left.len().min(size));
            if piece.is_empty() {
                break;
            }
            left = others;
            write!(stream, "{:x}\r\n", piece.len()).expect("the server reads");
            stream.write_all(piece).expect("the server reads");
            stream.write_all(b"\r\n").expect("the server reads");
        }
        stream.write_all(b"0\r\n\r\n").expect("the server reads");
    });
}

#[test]
fn r05_sleep_is_not_short_and_holds_nobody_up() {
    let server = Server::start();
    let start = Instant::now();
    let mut sleepers: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for sleeper in &mut sleepers {
        sleeper.send(request("GET", "/sleep?ms=300"));
    }
    // One that would sleep until the end of days, with a number that does not fit where it is added up.
    let mut forever = server.connect();
    forever.send(request("GET", &format!("/sleep?ms={}", u64::MAX)));
    assert_eq!(server.connect().get("/").status, 200);
    for sleeper in &mut sleepers {
        assert_eq!(sleeper.answer().status, 200);
        assert!(start.elapsed() >= Duration::from_millis(300));
    }
    assert!(!forever.is_answered());
}

#[test]
fn r25_metrics_are_lines_of_name_and_value() {
    let server = Server::start();
    let before = server.metrics();
    for name in ["procs", "threads", "live_tasks", "io_waiters", "timers", "spawned", "polled", "netpoll_looks"] {
        assert!(before.contains_key(name), "no {name}");
    }
    assert_eq!(server.connect().get("/").status, 200);
    let after = server.metrics();
    assert!(after["polled"] > before["polled"]);
    assert!(after["spawned"] >= before["spawned"] + 2, "a connection is a task");
}

#[test]
fn r21_bad_requests_are_told_so() {
    let server = Server::start();
    for garbage in
        ["garbage\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\0\x01\x02\x03\r\n\r\n", "PRI * nonsense\r\n\r\n"]
    {
        let mut client = server.connect();
        client.send(garbage);
        assert_eq!(client.answer().status, 400, "{garbage:?}");
        assert_eq!(client.rest(), b"", "{garbage:?}: the connection ends");
    }
    let mut client = server.connect();
    for target in ["/nothing", "/echo/", "/sleepy?ms=1", "/?ms=1/.."] {
        let status = if target.starts_with("/?") { 200 } else { 404 };
        assert_eq!(client.get(target).status, status, "{target}");
    }
    for target in ["/sleep", "/sleep?", "/sleep?ms=", "/sleep?ms=-1", "/sleep?ms=1e3", "/sleep?ms=18446744073709551616"]
    {
        assert_eq!(client.get(target).status, 400, "{target}");
    }
    assert_eq!(client.get("/sleep?a=b&ms=1").status, 200);
    for (method, target, allowed) in [
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
        ("PUT", "/sleep?ms=1", "GET, HEAD"),
        ("GET", "/echo", "POST"),
    ] {
        let answer = client.request(method, target);
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{method} {target}");
    }
}

#[test]
fn r21_http2_on_the_same_port() {
    if !has("curl") {
        return;
    }
    let server = Server::start();
    let curl = |arguments: &[&str], target: &str, input: &[u8]| {
        let mut child = Command::new("curl")
            .args(["--silent", "--show-error", "--http2-prior-knowledge", "--max-time", "60"])
            .args(["--write-out", "%{stderr}%{http_version} %{http_code}"])
            .args(arguments)
            .arg(format!("http://{}{target}", server.address))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("curl starts");
        let mut stdin = child.stdin.take().expect("it is a pipe");
        let mut answer = Vec::new();
        thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input).expect("curl reads"));
            child.stdout.take().expect("it is a pipe").read_to_end(&mut answer).expect("curl writes");
        });
        let result = child.wait_with_output().expect("curl ends");
        (String::from_utf8_lossy(&result.stderr).into_owned(), answer)
    };
    assert_eq!(curl(&[], "/", b""), ("2 200".into(), b"Hello, World!\n".to_vec()));
    assert_eq!(curl(&[], "/nothing", b"").0, "2 404");
    assert_eq!(curl(&[], "/echo", b"").0, "2 405");
    assert_eq!(curl(&[], "/sleep?ms=20", b""), ("2 200".into(), b"Slept 20 ms.\n".to_vec()));
    let body = pattern(5_000_000);
    let (status, echo) = curl(&["--data-binary", "@-"], "/echo", &body);
    assert_eq!(status, "2 200");
    assert!(echo == body, "other bytes than sent");
    // Both protocols on one port, at once.
    assert_eq!(server.connect().get("/").status, 200);
}
