//! S8: round trips over two channels of capacity 1, with each runtime's own channel and with one that is the same for
//! all.

use super::{Batch, Info};
use crate::peer::Peer;

const PAIRS: u64 = 64;

/// One pair on the runtime's own channel.
#[derive(Debug)]
pub struct OwnOne;

impl Batch for OwnOne {
    const INFO: Info = Info::scheduler("channel-1", "a round trip of one pair, own channel, capacity 1", Some(95.0));
    const OPS: (u64, u64) = (5_000, 100);

    async fn batch<P: Peer>(ops: u64) {
        let (ping, mut pinged) = P::channel(1);
        let (pong, mut ponged) = P::channel(1);
        let echo = P::spawn(async move {
            while let Some(number) = P::recv(&mut pinged).await {
                P::send(&pong, number).await;
            }
        });
        for number in 0..ops {
            P::send(&ping, number).await;
            assert_eq!(P::recv(&mut ponged).await, Some(number));
        }
        drop(ping);
        echo.await;
    }
}

/// 64 pairs on the runtime's own channel.
#[derive(Debug)]
pub struct OwnMany;

impl Batch for OwnMany {
    const INFO: Info = Info::scheduler("channel-64", "a round trip of 64 pairs, own channel, capacity 1", None);
    const OPS: (u64, u64) = (PAIRS * 100, PAIRS * 5);

    async fn batch<P: Peer>(ops: u64) {
        let pairs: Vec<_> = (0..PAIRS).map(|_| P::spawn(OwnOne::batch::<P>(ops / PAIRS))).collect();
        for pair in pairs {
            pair.await;
        }
    }
}

/// 10k pairs on the runtime's own channel.
#[derive(Debug)]
pub struct OwnCrowd;

const CROWD: u64 = 10_000;

impl Batch for OwnCrowd {
    const INFO: Info = Info::scheduler(
        "channel-10k",
        "a round trip of 10k pairs, 5 each, own channel, capacity 1; spawning included",
        None,
    );
    const OPS: (u64, u64) = (CROWD * 5, CROWD);

    async fn batch<P: Peer>(ops: u64) {
        let pairs: Vec<_> = (0..CROWD).map(|_| P::spawn(OwnOne::batch::<P>(ops / CROWD))).collect();
        for pair in pairs {
            pair.await;
        }
    }
}

/// One pair on async-channel.
#[derive(Debug)]
pub struct NeutralOne;

impl Batch for NeutralOne {
    const INFO: Info =
        Info::scheduler("channel-neutral", "a round trip of one pair, async-channel for all, capacity 1", None);
    const OPS: (u64, u64) = (5_000, 100);

    async fn batch<P: Peer>(ops: u64) {
        let (ping, pinged) = async_channel::bounded(1);
        let (pong, ponged) = async_channel::bounded(1);
        let echo = P::spawn(async move {
            while let Ok(number) = pinged.recv().await {
                pong.send(number).await.expect("the root waits");
            }
        });
        for number in 0..ops {
            ping.send(number).await.expect("the echo lives");
            assert_eq!(ponged.recv().await, Ok(number));
        }
        drop(ping);
        echo.await;
    }
}
