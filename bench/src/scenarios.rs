//! What is measured. A new scenario is a file (or a type in one) and its line in [`all`].

pub mod blocking;
pub mod channel;
pub mod echo;
pub mod fan;
pub mod http;
pub mod idle;
pub mod late;
pub mod server;
pub mod spawn;
pub mod switch;
pub mod tail;
pub mod timer;

use std::future::Future;

use crate::cell::Cell;
use crate::laps::{Laps, Outcome};
use crate::peer::Peer;

/// What a scenario spends its time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The scheduler alone.
    Scheduler,
    /// Sockets, with a load generator in another process.
    Network,
}

/// Which values are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Times and sizes.
    Less,
    /// Rates.
    More,
}

/// What is known of a scenario without running it.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// Its name on the command line.
    pub name: &'static str,
    /// What an operation is, in a line.
    pub about: &'static str,
    /// Unit of the main figure.
    pub unit: &'static str,
    /// Which values of it are good.
    pub better: Better,
    /// What gmp aims at with one P, on the machine of the README.
    pub target: Option<f64>,
    /// What it spends its time on.
    pub kind: Kind,
    /// Whether it takes part in every second round only, because a cell takes seconds.
    pub slow: bool,
}

impl Info {
    const fn scheduler(name: &'static str, about: &'static str, target: Option<f64>) -> Info {
        Info { name, about, unit: "ns/op", better: Better::Less, target, kind: Kind::Scheduler, slow: false }
    }

    const fn network(name: &'static str, about: &'static str) -> Info {
        Info { name, about, unit: "req/s", better: Better::More, target: None, kind: Kind::Network, slow: false }
    }
}

/// A scenario bound to a peer.
#[derive(Debug)]
pub struct Scenario<P> {
    /// What is known of it.
    pub info: Info,
    /// Runs it.
    pub run: fn(&P, &Cell) -> Outcome,
}

/// All scenarios, in the order of the tables.
pub fn all<P: Peer>() -> Vec<Scenario<P>> {
    vec![
        Scenario { info: spawn::Inside::INFO, run: batches::<spawn::Inside, P> },
        Scenario { info: spawn::Detached::INFO, run: batches::<spawn::Detached, P> },
        Scenario { info: spawn::Large::INFO, run: batches::<spawn::Large, P> },
        Scenario { info: spawn::OUTSIDE, run: spawn::outside },
        Scenario { info: spawn::OUTSIDE_8, run: spawn::outside_8 },
        Scenario { info: spawn::Chained::INFO, run: batches::<spawn::Chained, P> },
        Scenario { info: switch::YieldOne::INFO, run: batches::<switch::YieldOne, P> },
        Scenario { info: switch::YieldMany::INFO, run: batches::<switch::YieldMany, P> },
        Scenario { info: switch::YieldCrowd::INFO, run: batches::<switch::YieldCrowd, P> },
        Scenario { info: switch::PingPong::INFO, run: batches::<switch::PingPong, P> },
        Scenario { info: channel::OwnOne::INFO, run: batches::<channel::OwnOne, P> },
        Scenario { info: channel::OwnMany::INFO, run: batches::<channel::OwnMany, P> },
        Scenario { info: channel::OwnCrowd::INFO, run: batches::<channel::OwnCrowd, P> },
        Scenario { info: channel::NeutralOne::INFO, run: batches::<channel::NeutralOne, P> },
        Scenario { info: fan::Skynet::INFO, run: batches::<fan::Skynet, P> },
        Scenario { info: fan::Funnel::INFO, run: batches::<fan::Funnel, P> },
        Scenario { info: fan::Mpmc::INFO, run: batches::<fan::Mpmc, P> },
        Scenario { info: fan::Contended::INFO, run: batches::<fan::Contended, P> },
        Scenario { info: fan::Spread::INFO, run: batches::<fan::Spread, P> },
        Scenario { info: fan::BEHIND, run: fan::behind },
        Scenario { info: timer::Timeouts::INFO, run: batches::<timer::Timeouts, P> },
        Scenario { info: timer::BULK, run: timer::bulk },
        Scenario { info: timer::Churn::INFO, run: batches::<timer::Churn, P> },
        Scenario { info: timer::SHORT, run: timer::short },
        Scenario { info: timer::MILLI, run: timer::milli },
        Scenario { info: blocking::InPlace::INFO, run: batches::<blocking::InPlace, P> },
        Scenario { info: blocking::Pool::INFO, run: batches::<blocking::Pool, P> },
        Scenario { info: blocking::Crowd::INFO, run: batches::<blocking::Crowd, P> },
        Scenario { info: spawn::START, run: spawn::start },
        Scenario { info: idle::PENDING, run: idle::pending_tasks },
        Scenario { info: idle::SLEEPING, run: idle::sleeping },
        Scenario { info: idle::RECEIVING, run: idle::receiving },
        Scenario { info: idle::CONNECTED, run: idle::connected },
        Scenario { info: idle::ASLEEP, run: idle::asleep },
        Scenario { info: echo::ONE, run: echo::one },
        Scenario { info: echo::MANY, run: echo::many },
        Scenario { info: echo::CROWD, run: echo::crowd },
        Scenario { info: echo::CHURN, run: echo::churn },
        Scenario { info: echo::STEADY, run: echo::steady },
        Scenario { info: http::HELLO_1, run: http::hello_1 },
        Scenario { info: http::HELLO, run: http::hello },
        Scenario { info: http::HELLO_256, run: http::hello_256 },
        Scenario { info: late::BLOCK, run: late::block },
        Scenario { info: late::BURN, run: late::burn },
        Scenario { info: late::BLOCK_ECHO, run: late::block_echo },
        Scenario { info: late::BURN_ECHO, run: late::burn_echo },
        Scenario { info: tail::ALONE, run: tail::alone },
        Scenario { info: tail::BURN, run: tail::burn },
        Scenario { info: tail::BLOCK, run: tail::block },
    ]
}

/// A scenario made of batches that run inside a task; the criterion benches run the same batches.
pub trait Batch: 'static {
    /// What is known of it.
    const INFO: Info;
    /// Operations of a batch: full size, and that of a smoke run.
    const OPS: (u64, u64);

    /// Runs `ops` operations; called in a task.
    fn batch<P: Peer>(ops: u64) -> impl Future<Output = ()> + Send;
}

fn batches<B: Batch, P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    let ops = cell.pick(B::OPS.0, B::OPS.1);
    let mut laps = Laps::new(cell, ops);
    peer.block_on_inside(async move {
        while laps.again() {
            B::batch::<P>(ops).await;
        }
        laps.finish()
    })
}
