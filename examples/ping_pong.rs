//! Two tasks that hand a ball to and fro through channels, and a task that only yields: what a switch costs.
//!
//! ```text
//! cargo run --release --example ping_pong [ROUNDS] [pair | yield]     (1000000, both)
//! ```
//!
//! However many processors there are, the pair stays on one and the others sleep: with `strace -f` the threads that run
//! tasks make no system call, however many the rounds.

use std::env;
use std::error::Error;
use std::time::Instant;

use futures::channel::mpsc::channel;
use futures::{SinkExt, StreamExt};

#[gmp::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let rounds = env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let which = env::args().nth(2);
    if which.as_deref() != Some("yield") {
        report("ping-pong", rounds, pair).await;
    }
    if which.as_deref() != Some("pair") {
        report("yield", rounds, yields).await;
    }
    Ok(())
}

/// Times a task that runs so many rounds.
async fn report<F>(name: &str, rounds: u64, task: impl FnOnce(u64) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let start = Instant::now();
    gmp::spawn(task(rounds)).await.expect("it does not panic");
    let ns = start.elapsed().as_nanos() as f64 / rounds as f64;
    println!("{name}: {rounds} rounds, {ns:.1} ns each");
}

async fn pair(rounds: u64) {
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
    }
    drop(ping);
    other.await.expect("it does not panic");
}

async fn yields(rounds: u64) {
    for _ in 0..rounds {
        gmp::task::yield_now().await;
    }
}
