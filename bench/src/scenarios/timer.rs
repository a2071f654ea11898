//! S11: timers that are armed and never fire, as those of timeouts are.

use std::pin::pin;
use std::time::Duration;

use futures::poll;

use super::{Batch, Info};
use crate::peer::Peer;

/// A runtime with a budget for each poll (tokio: 128) refuses what goes beyond it, and arms no timer then.
const YIELD_EVERY: u64 = 100;

/// Arms and drops one timer at a time.
#[derive(Debug)]
pub struct Churn;

impl Batch for Churn {
    const INFO: Info =
        Info::scheduler("timer-churn", "a sleep of 10 s is made, polled once and dropped; clock included", Some(48.0));
    const OPS: (u64, u64) = (10_000, 200);

    async fn batch<P: Peer>(ops: u64) {
        for n in 1..=ops {
            let sleep = pin!(P::sleep(Duration::from_secs(10)));
            assert!(poll!(sleep).is_pending());
            if n % YIELD_EVERY == 0 {
                P::yield_now().await;
            }
        }
    }
}
