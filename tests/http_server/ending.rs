//! The server is asked to end: by SIGTERM, or by SIGINT, which is Ctrl-C.

use crate::client::{Client, request};
use crate::process::{Server, eventually};

/// Waits until the server has heard that it is to end: it then refuses clients.
fn heard(server: &Server) {
    eventually("the server refuses clients", || std::net::TcpStream::connect(server.address).err());
}

/// A connection that has had an answer, and may ask again.
fn keep_alive(server: &Server) -> Client {
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    client
}

fn check_idle(signal: &str) {
    let server = Server::start();
    let mut idle: Vec<_> = (0..10).map(|_| keep_alive(&server)).collect();
    server.signal(signal);
    for client in &mut idle {
        assert_eq!(client.rest(), b"");
    }
    server.end_well();
}

#[test]
fn r14_sigterm_closes_idle_connections() {
    check_idle("TERM");
}

#[test]
fn r14_sigint_closes_idle_connections() {
    check_idle("INT");
}

#[test]
fn r14_without_clients_it_ends_at_once() {
    for signal in ["TERM", "INT"] {
        let server = Server::start();
        server.signal(signal);
        server.end_well();
    }
}

#[test]
fn r14_requests_that_have_begun_are_answered() {
    let server = Server::start();
    let mut echo = server.connect();
    echo.send("POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhalf ");
    let answer = echo.head();
    let mut body = Vec::new();
    let mut take = |bytes: &[u8]| body.extend_from_slice(bytes);
    echo.exactly(5, &mut take);
    let mut sleep = server.connect();
    sleep.send(request("GET", "/sleep?ms=1000"));
    eventually("the request to sleep has come", || sleep.is_received().then_some(()));

    server.signal("TERM");
    heard(&server);
    assert_eq!(sleep.answer().body, b"Slept 1000 ms.\n");
    assert_eq!(sleep.rest(), b"");
    echo.send("whole");
    echo.exactly(5, &mut take);
    assert_eq!((answer.status, body.as_slice()), (200, &b"half whole"[..]));
    assert_eq!(echo.rest(), b"");
    server.end_well();
}

#[test]
fn r14_silent_connections_do_not_keep_it() {
    let server = Server::start();
    let silent: Vec<_> = (0..200).map(|_| server.connect()).collect();
    let base = server.metrics()["live_tasks"];
    // They are all in, and not in the backlog.
    assert!(base >= 200, "{base}");
    server.signal("TERM");
    // None had to be cut at the end of the drain.
    server.end_well();
    drop(silent);
}

#[test]
fn r14_what_does_not_end_is_cut() {
    let server = Server::start();
    let mut long = server.connect();
    long.send(request("GET", "/sleep?ms=3600000"));
    eventually("the request to sleep has come", || long.is_received().then_some(()));
    server.signal("TERM");
    let (status, stderr) = server.end();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), "connections cut: 1\n"));
    assert_eq!(long.rest(), b"");
}
