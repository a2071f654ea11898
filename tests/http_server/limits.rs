//! Clients that dawdle, break off, or are too many.

use std::path::Path;
use std::process::Command;

use crate::client::{Client, request};
use crate::process::{Server, eventually, has, program};

#[test]
fn r21_headers_that_do_not_come_end_the_connection() {
    let server = Server::start_as(Command::new(program()).env("HEADER_TIMEOUT_MS", "200"));
    let mut half = server.connect();
    half.send("GET / HTTP/1.1\r\nhost: loc");
    let mut half_of_a_second = server.connect();
    assert_eq!(half_of_a_second.get("/").status, 200);
    half_of_a_second.send("GET");
    let mut silent = server.connect();
    // Not enough to tell which protocol it is.
    let mut undecided = server.connect();
    undecided.send("PRI * HTTP/2.0");
    // One that is late with its body, and one whose answer is late, have done what the limit asks for.
    let mut late_body = server.connect();
    late_body.send("POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\nfi");
    let mut late_answer = server.connect();
    late_answer.send(request("GET", "/sleep?ms=2000"));

    for client in [&mut half, &mut half_of_a_second, &mut silent, &mut undecided] {
        assert_eq!(client.rest(), b"");
    }
    late_body.send("ne");
    assert_eq!(late_body.answer().body, b"fine");
    assert_eq!(late_answer.answer().status, 200);
}

#[test]
fn r18_clients_that_break_off_in_a_body_cost_nothing() {
    let server = Server::start();
    let base = |server: &Server| (server.metrics()["live_tasks"], server.fds_below(usize::MAX));
    let before = base(&server);
    for _ in 0..50 {
        let mut client = server.connect();
        client.send("POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\nand then");
        assert_eq!(client.head().status, 200);
        let mut in_chunks = server.connect();
        in_chunks.send("POST /echo HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nan");
    }
    // The connection that asks is gone by then or not, as the client before it was.
    eventually("tasks and sockets are as many as before", || (base(&server) <= before).then_some(()));
    server.signal("TERM");
    server.end_well();
}

const CLIENTS: usize = 200;
const FDS: usize = 64;

#[test]
fn r10_out_of_fds_the_surplus_waits_in_the_backlog() {
    let trace = std::env::temp_dir().join(format!("gmp-http-server-accepts-{}", std::process::id()));
    let mut command = if has("strace") {
        // As a grandchild, so that the server is our child.
        let mut strace = Command::new("strace");
        strace
            .args(["-D", "-f", "-qq", "-ttt", "-e", "trace=accept4", "-e", "signal=none", "-o"])
            .arg(&trace)
            .arg("sh");
        strace
    } else {
        Command::new("sh")
    };
    let server = Server::start_as(command.args(["-c", "ulimit -n 64; exec \"$0\" \"$1\""]).arg(program()));
    let room = FDS - server.fds_below(FDS);

    let mut waiting: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.send(request("GET", "/"));
    }
    wait_until_served(&waiting, room);
    eventually("the server is out of fds", || (server.fds_below(FDS) == FDS).then_some(()));
    if trace.exists() {
        // While nobody leaves it asks again, less and less often.
        eventually("the server asks again", || (failures(&trace).len() >= 8).then_some(()));
        let failures = failures(&trace);
        let waits: Vec<_> = failures.windows(2).take(7).map(|pair| pair[1] - pair[0]).collect();
        for (wait, ms) in waits.iter().zip([5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0]) {
            assert!(*wait >= ms / 1000.0, "waits of {waits:?} s, where {ms} ms are due");
        }
    }
    while !waiting.is_empty() {
        wait_until_served(&waiting, room);
        // Those that are served leave, all at once.
        waiting.retain_mut(|client| {
            let served = client.is_answered();
            assert!(!served || client.answer().status == 200);
            !served
        });
    }
    assert_eq!(server.connect().get("/").status, 200);

    server.signal("TERM");
    let (status, stderr) = server.end();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.starts_with("accept: Too many open files"), "{stderr}");
    if trace.exists() {
        let failures = failures(&trace);
        for (i, from) in failures.iter().enumerate() {
            let in_a_second = failures[i..].iter().take_while(|&at| at - from < 1.0).count();
            assert!(in_a_second <= 100, "{in_a_second} calls in vain in the second after {from}");
        }
        std::fs::remove_file(&trace).expect("the trace is ours");
    }
}

#[test]
fn r10_without_a_single_fd_it_asks_again() {
    if !has("prlimit") {
        return;
    }
    let server = Server::start();
    server.limit_fds(server.next_fd());
    let mut client = server.connect();
    client.send(request("GET", "/"));
    // No connection is open whose close could be waited for.
    eventually("accept fails", || server.stderr().contains("Too many open files").then_some(()));
    assert!(!client.is_answered());
    server.limit_fds(FDS);
    assert_eq!(client.answer().status, 200);
    server.signal("TERM");
    assert_eq!(server.end().0.code(), Some(0));
}

/// Waits until the server, which has room for so many, has answered as many of those that are left.
fn wait_until_served(waiting: &[Client], room: usize) {
    // A few less: the server may hold an fd for itself for a while.
    let enough = (room - 4).min(waiting.len());
    eventually("clients are served while there are fds", || {
        (waiting.iter().filter(|client| client.is_answered()).count() >= enough).then_some(())
    });
}

/// When `accept4` failed for want of fds, in seconds.
fn failures(trace: &Path) -> Vec<f64> {
    let trace = std::fs::read_to_string(trace).expect("strace has begun it");
    // "4711 1700000000.123456 accept4(9, …) = -1 EMFILE (Too many open files)".
    let failed = trace.lines().filter(|line| line.contains("EMFILE"));
    failed.map(|line| line.split_whitespace().nth(1).and_then(|at| at.parse().ok()).expect("a time")).collect()
}
