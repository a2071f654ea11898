//! Idle costs nothing: a process whose tasks all wait makes no wake-ups. One test, so that no other's threads are
//! counted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gmp::net::TcpListener;
use gmp::runtime::Builder;

/// How often each thread of the runtime has slept of its own accord, and its CPU time in ticks.
fn sleeps() -> BTreeMap<String, (u64, u64)> {
    let mut sleeps = BTreeMap::new();
    for thread in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = thread.unwrap().path();
        let name = std::fs::read_to_string(path.join("comm")).unwrap();
        if !name.starts_with("gmp-") {
            continue;
        }
        let status = std::fs::read_to_string(path.join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        let stat = std::fs::read_to_string(path.join("stat")).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split(' ').collect();
        let ticks = fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap();
        let slept = line.trim().parse().unwrap();
        sleeps.insert(format!("{} {}", name.trim(), path.display()), (slept, ticks));
    }
    sleeps
}

#[test]
fn r05_an_idle_process_makes_no_wake_ups() {
    let runtime = Builder::new().procs(2).build().unwrap();
    // Tasks that wait for a socket, for a timer far away, for nothing.
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    drop(runtime.spawn(async move { listener.accept().await.map(drop) }));
    drop(runtime.spawn(gmp::time::sleep(Duration::from_secs(3600))));
    for _ in 0..1000 {
        drop(runtime.spawn(std::future::pending::<()>()));
    }
    // `sysmon` watches for a while after the last work, then it sleeps too: from some moment on nobody wakes for 5 s.
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        let (looks, before) = (runtime.metrics().sysmon_looks, sleeps());
        std::thread::sleep(Duration::from_secs(5));
        let after = sleeps();
        // `sysmon`, and at least the machine in the netpoller.
        if before == after && after.len() >= 2 {
            assert_eq!(runtime.metrics().sysmon_looks, looks, "it looks without sleeping");
            return;
        }
        assert!(Instant::now() < limit, "somebody wakes up all the time: {before:?}, 5 s later {after:?}");
    }
}
