//! A load that behaves: yields, a ball between two tasks, spawns. What it costs to be watched; `.ci/rescue_cost` counts
//! it.
//!
//! ```text
//! cargo run --release --example rescue_cost [ROUNDS] [watched | unwatched]     (1000000, watched)
//! ```
//!
//! `unwatched` is `Builder::rescue(None)`.

use std::env;
use std::error::Error;
use std::time::Instant;

use futures::channel::mpsc::channel;
use futures::{SinkExt, StreamExt};
use gmp::runtime::Builder;

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let mut builder = Builder::new().procs(1);
    if env::args().nth(2).as_deref() == Some("unwatched") {
        builder = builder.rescue(None);
    }
    let runtime = builder.build()?;
    let start = Instant::now();
    runtime.block_on(runtime.spawn(load(rounds)))?;
    let wall = start.elapsed();
    let metrics = runtime.metrics();
    println!("{rounds} rounds, {:.1} ns each", wall.as_nanos() as f64 / rounds as f64);
    if let Some(watcher) = watcher_ns() {
        let percent = watcher as f64 / wall.as_nanos() as f64 * 100.0;
        println!("the watcher: {} looks, {percent:.3} % of a core", metrics.sysmon_looks);
    }
    let acts = metrics.rescues + metrics.retakes + metrics.sysmon_wakes;
    println!("it acted {acts} times and set the flag of a slice {} times", metrics.sysmon_flags);
    Ok(())
}

async fn load(rounds: u64) {
    let (mut ping, mut pings) = channel(0);
    let (mut pong, mut pongs) = channel(0);
    let other = gmp::spawn(async move {
        while let Some(ball) = pings.next().await {
            pong.send(ball).await.expect("the first player waits for it");
        }
    });
    for ball in 0..rounds {
        ping.send(ball).await.expect("the second player is there");
        assert_eq!(pongs.next().await, Some(ball));
        gmp::task::yield_now().await;
        assert_eq!(gmp::spawn(async move { ball }).await.expect("it does not panic"), ball);
    }
    drop(ping);
    other.await.expect("it does not panic");
}

/// CPU time of the watcher's thread in nanoseconds, where the system tells.
fn watcher_ns() -> Option<u64> {
    let threads = std::fs::read_dir("/proc/self/task").ok()?;
    let watcher = threads
        .flatten()
        .map(|thread| thread.path())
        .find(|path| std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "gmp-sysmon"))?;
    std::fs::read_to_string(watcher.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
}
