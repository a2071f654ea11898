//! The example as a child process.
//!
//! 1. What is waited for is polled, with a deadline that fails by name: `eventually`.
//! 2. A child does not outlive its `Server`.

use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::client::Client;

/// Far above what anything here takes, on a busy machine too.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Asks every 10 ms until there is an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "not in {DEADLINE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The program under test: cargo puts it beside the tests.
pub fn program() -> PathBuf {
    let this = env::current_exe().expect("the path of this test");
    let profile = this.ancestors().nth(2).expect("target/debug/deps/this");
    let program = profile.join("examples/http_server");
    assert!(program.exists(), "{} is not built: `cargo build --example http_server`", program.display());
    program
}

/// Whether a program of the system is there. A test that does without says so.
pub fn has(tool: &str) -> bool {
    let there = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        eprintln!("\n*** SKIPPED: `{tool}` is not installed, so a part of this test does not run ***\n");
    }
    there
}

/// A running server.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    stderr: Arc<Mutex<String>>,
    /// Collects `stderr`.
    collector: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start() -> Server {
        Server::start_as(&mut Command::new(program()))
    }

    /// Starts a command that becomes the server.
    pub fn start_as(command: &mut Command) -> Server {
        let mut child = command
            .arg("127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let pipe = child.stderr.take().expect("it is a pipe");
        let stderr = Arc::new(Mutex::new(String::new()));
        let collected = stderr.clone();
        let collector = Some(thread::spawn(move || collect(pipe, &collected)));
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is a pipe")).read_line(&mut line).expect("a line of text");
        let address = line.trim().rsplit('/').next().and_then(|address| address.parse().ok());
        let Some(address) = address else {
            let _ = child.kill();
            panic!("no address in {line:?}");
        };
        Server { child, address, stderr, collector }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// What `/metrics` says.
    pub fn metrics(&self) -> HashMap<String, u64> {
        let answer = self.connect().get("/metrics");
        assert_eq!(answer.status, 200);
        let text = String::from_utf8(answer.body).expect("it is text");
        assert!(text.ends_with('\n'));
        text.lines()
            .map(|line| {
                let (name, value) = line.split_once(' ').unwrap_or_else(|| panic!("no `name value`: {line:?}"));
                (name.to_owned(), value.parse().unwrap_or_else(|e| panic!("{line:?}: {e}")))
            })
            .collect()
    }

    /// Open file descriptors of the server with a number below `limit`: one that it got from us may have any.
    pub fn fds_below(&self, limit: usize) -> usize {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs");
        let number = |name: std::ffi::OsString| name.to_str().and_then(|name| name.parse::<usize>().ok());
        fds.filter_map(|fd| number(fd.ok()?.file_name())).filter(|&fd| fd < limit).count()
    }

    /// The lowest number that an fd of the server could get now.
    pub fn next_fd(&self) -> usize {
        (0..).find(|fd| self.fds_below(fd + 1) <= *fd).expect("there is one")
    }

    /// Sets how many fds the server may have, as `ulimit -n` does.
    pub fn limit_fds(&self, limit: usize) {
        let pid = self.child.id().to_string();
        let prlimit = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={limit}:")]).status();
        assert!(prlimit.expect("`prlimit` of util-linux").success());
    }

    /// What it has written to standard error.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Sends a signal: `TERM`.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success(), "{kill}");
    }

    /// Waits for the end: its status and what it wrote to standard error.
    pub fn end(mut self) -> (ExitStatus, String) {
        let status = eventually("the server ends", || self.child.try_wait().expect("it is our child"));
        self.collector.take().expect("it is taken here only").join().expect("standard error is text");
        (status, self.stderr())
    }

    /// Waits for the end, which must be a success for which no client was cut off.
    pub fn end_well(self) {
        let (status, stderr) = self.end();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is gone already if the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(stderr: ChildStderr, collected: &Mutex<String>) {
    for line in BufReader::new(stderr).lines() {
        // A thread that the machine or strace held up for a moment was noticed: that is no word of the server's.
        if line.as_ref().is_ok_and(|line| line.starts_with("gmp: ") && line.contains(" has been in one poll for ")) {
            continue;
        }
        let line = line.expect("standard error is text");
        collected.lock().unwrap().extend([&line, "\n"]);
    }
}
