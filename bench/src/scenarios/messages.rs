//! S7: messages from many tasks to one, and from many to many, in the shapes of tachyobench.

use super::{Batch, Info};
use crate::peer::Peer;

/// Thirteen senders, one receiver.
#[derive(Debug)]
pub struct Funnel<const CAPACITY: usize>;

const SENDERS: u64 = 13;

impl<const CAPACITY: usize> Batch for Funnel<CAPACITY> {
    const INFO: Info = match CAPACITY {
        1 => Info::scheduler("mpsc-funnel-1", "a message from one of 13 tasks to one, own channel, capacity 1", None),
        100 => Info::scheduler("mpsc-funnel", "a message from one of 13 tasks to one, own channel, capacity 100", None),
        _ => panic!("there is no such scenario"),
    };
    const OPS: (u64, u64) = (SENDERS * 2_000, SENDERS * 20);

    async fn batch<P: Peer>(ops: u64) {
        let (sender, mut receiver) = P::channel(CAPACITY);
        for _ in 0..SENDERS {
            let sender = sender.clone();
            P::detach(P::spawn(async move {
                for number in 0..ops / SENDERS {
                    P::send(&sender, number).await;
                }
            }));
        }
        drop(sender);
        let mut received = 0;
        while P::recv(&mut receiver).await.is_some() {
            received += 1;
        }
        assert_eq!(received, ops);
    }
}

/// Many funnels at once.
#[derive(Debug)]
pub struct Rigs;

const RIGS: u64 = 61;

impl Batch for Rigs {
    const INFO: Info =
        Info::scheduler("mpsc-61-funnels", "the same with 61 funnels at once; their spawning included", None);
    const OPS: (u64, u64) = (RIGS * SENDERS * 100, RIGS * SENDERS);

    async fn batch<P: Peer>(ops: u64) {
        let rigs: Vec<_> = (0..RIGS).map(|_| P::spawn(Funnel::<100>::batch::<P>(ops / RIGS))).collect();
        for rig in rigs {
            rig.await;
        }
    }
}

/// Balls that go from one task to a random other: receivers wait nearly always.
#[derive(Debug)]
pub struct Pinball;

const NODES: usize = 13;
const BALLS: usize = 7;

impl Batch for Pinball {
    const INFO: Info = Info::scheduler(
        "pinball",
        "a hop of one of 7 balls among 13 tasks, each with its own channel, capacity 7; 61 rigs; spawning included",
        None,
    );
    const OPS: (u64, u64) = (RIGS * BALLS as u64 * 200, RIGS * BALLS as u64 * 2);

    async fn batch<P: Peer>(ops: u64) {
        let hops = ops / (RIGS * BALLS as u64);
        let rigs: Vec<_> = (0..RIGS).map(|rig| P::spawn(pinball::<P>(rig, hops))).collect();
        for rig in rigs {
            rig.await;
        }
    }
}

/// One rig: a ball is the number of hops it has left, and the task at which it has none passes it to the end.
async fn pinball<P: Peer>(rig: u64, hops: u64) {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..NODES).map(|_| P::channel(BALLS)).unzip();
    let (end, mut ended) = P::channel(BALLS);
    let nodes: Vec<_> = receivers
        .into_iter()
        .enumerate()
        .map(|(node, mut receiver)| {
            let (senders, end) = (senders.clone(), end.clone());
            P::spawn(async move {
                let mut rng = fastrand::Rng::with_seed(rig * NODES as u64 + node as u64);
                while let Some(left) = P::recv(&mut receiver).await {
                    match left {
                        // The rig is over.
                        STOP => return,
                        0 => P::send(&end, 0).await,
                        _ => P::send(&senders[rng.usize(..NODES)], left - 1).await,
                    }
                }
            })
        })
        .collect();
    for ball in 0..BALLS {
        P::send(&senders[ball], hops - 1).await;
    }
    for _ in 0..BALLS {
        P::recv(&mut ended).await;
    }
    for sender in &senders {
        P::send(sender, STOP).await;
    }
    for node in nodes {
        node.await;
    }
}

const STOP: u64 = u64::MAX;

/// Four senders, four receivers.
#[derive(Debug)]
pub struct Mpmc<const CAPACITY: usize>;

impl<const CAPACITY: usize> Batch for Mpmc<CAPACITY> {
    const INFO: Info = match CAPACITY {
        1 => Info::scheduler("mpmc-neutral-1", "a message from 4 tasks to 4, async-channel for all, capacity 1", None),
        100 => {
            Info::scheduler("mpmc-neutral", "a message from 4 tasks to 4, async-channel for all, capacity 100", None)
        }
        _ => panic!("there is no such scenario"),
    };
    const OPS: (u64, u64) = (20_000, 400);

    async fn batch<P: Peer>(ops: u64) {
        let (sender, receiver) = async_channel::bounded(CAPACITY);
        let receivers: Vec<_> = (0..4)
            .map(|_| {
                let receiver = receiver.clone();
                P::spawn(async move {
                    let mut received = 0;
                    while receiver.recv().await.is_ok() {
                        received += 1;
                    }
                    received
                })
            })
            .collect();
        drop(receiver);
        for _ in 0..4 {
            let sender = sender.clone();
            P::detach(P::spawn(async move {
                for number in 0..ops / 4 {
                    sender.send(number).await.expect("the receivers live");
                }
            }));
        }
        drop(sender);
        let mut received = 0;
        for receiver in receivers {
            received += receiver.await;
        }
        assert_eq!(received, ops);
    }
}
