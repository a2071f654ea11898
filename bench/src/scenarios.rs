//! What is measured. A new scenario is a file (or a type in one) and its line in [`all`].

pub mod blocking;
pub mod channel;
pub mod echo;
pub mod fan;
pub mod http;
pub mod idle;
pub mod late;
pub mod messages;
pub mod mutex;
pub mod server;
pub mod spawn;
pub mod switch;
pub mod tail;
pub mod timer;

use std::future::Future;

use crate::cell::Cell;
use crate::laps::{Laps, Outcome};
use crate::peer::Peer;
use server::Ready;

/// What a scenario spends its time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The scheduler alone.
    Scheduler,
    /// Timers.
    Timer,
    /// Calls that block, or say so.
    Blocking,
    /// What waits, and what holds others up: memory and delays.
    Waiting,
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
    /// Whether it is left out with twice as many threads as CPUs, because a cell takes seconds.
    pub slow: bool,
    /// What a server is asked for, where it is asked for nothing else.
    pub service: Option<Service>,
}

/// What a server does for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Gives back what it reads.
    Echo,
    /// hyper says hello.
    Http,
    /// The same, told to expect requests in a row.
    HttpPipelined,
    /// HTTP by hand.
    Hello,
}

impl Info {
    const fn scheduler(name: &'static str, about: &'static str, target: Option<f64>) -> Info {
        Info {
            name,
            about,
            unit: "ns/op",
            better: Better::Less,
            target,
            kind: Kind::Scheduler,
            slow: false,
            service: None,
        }
    }

    const fn network(service: Service, name: &'static str, about: &'static str) -> Info {
        let info = Info::scheduler(name, about, None);
        Info { unit: "req/s", better: Better::More, kind: Kind::Network, service: Some(service), ..info }
    }
}

/// A scenario bound to a peer.
#[derive(Debug)]
pub struct Scenario<P> {
    /// What is known of it.
    pub info: Info,
    /// Runs it.
    pub run: Run<P>,
}

/// What runs a scenario.
#[derive(Debug)]
pub enum Run<P> {
    /// Code in the runtime.
    Inside(fn(&P, &Cell) -> Outcome),
    /// A server in it, and this beside it.
    Server(Drive),
}

/// Asks the server at an address, and says what came of it; the usage is filled in by who measured the server.
pub type Drive = fn(&Cell, &str, Ready) -> Outcome;

/// A scenario that is a server and what asks it.
#[derive(Debug)]
pub struct Served {
    /// What is known of it. It has a service.
    pub info: Info,
    /// What asks.
    pub drive: Drive,
}

/// Figures of others for a scenario, which this program does not measure.
pub fn reference(info: &Info) -> Option<&'static str> {
    (info.name == fan::Skynet::INFO.name).then_some(
        "CPU time a task in skynet of 10^8 leaves on 64 cores (EPYC 7742, tzcnt/runtime-benchmarks), C++: citor 14.4 ns, \
         libfork 21, TooManyCooks 22, TBB 82, Taskflow 107, HPX 6900; a fork in rayon's `join`, which allocates nothing \
         and is no task, about 15 ns",
    )
}

/// The scenarios that any server can take part in.
pub fn served() -> Vec<Served> {
    [&echo::ALL[..], &http::ALL[..], &tail::SERVED[..]]
        .into_iter()
        .flatten()
        .map(|&(info, drive)| Served { info, drive })
        .collect()
}

/// All scenarios, in the order of the tables.
pub fn all<P: Peer>() -> Vec<Scenario<P>> {
    let mut all = vec![
        of::<spawn::Inside, P>(),
        of::<spawn::Detached, P>(),
        of::<spawn::Sized<16>, P>(),
        of::<spawn::Sized<256>, P>(),
        of::<spawn::Sized<1024>, P>(),
        inside(spawn::OUTSIDE, spawn::outside),
        inside(spawn::OUTSIDE_2, spawn::outside_2),
        inside(spawn::OUTSIDE_8, spawn::outside_8),
        inside(spawn::OUTSIDE_BUSY, spawn::outside_busy),
        of::<spawn::Chained, P>(),
        of::<switch::YieldOne, P>(),
        of::<switch::YieldMany, P>(),
        of::<switch::YieldCrowd, P>(),
        of::<switch::PingPong, P>(),
        of::<channel::OwnOne, P>(),
        of::<channel::OwnMany, P>(),
        of::<channel::OwnCrowd, P>(),
        of::<channel::NeutralOne, P>(),
        of::<fan::Skynet, P>(),
        of::<fan::Fib, P>(),
        of::<messages::Funnel<1>, P>(),
        of::<messages::Funnel<100>, P>(),
        of::<messages::Rigs, P>(),
        of::<messages::Pinball, P>(),
        of::<messages::Mpmc<1>, P>(),
        of::<messages::Mpmc<100>, P>(),
        of::<mutex::Contended, P>(),
        inside(mutex::OWN, mutex::own),
        inside(mutex::OWN_100, mutex::own_100),
        inside(mutex::NEUTRAL, mutex::neutral),
        inside(mutex::NEUTRAL_100, mutex::neutral_100),
        of::<fan::Spread, P>(),
        inside(fan::BEHIND, fan::behind),
        of::<timer::Timeouts, P>(),
        inside(timer::BULK, timer::bulk),
        of::<timer::Churn, P>(),
        inside(timer::SHORT, timer::short),
        inside(timer::MILLI, timer::milli),
        of::<blocking::InPlace, P>(),
        of::<blocking::Calls<0, 1>, P>(),
        of::<blocking::Calls<10, 1>, P>(),
        of::<blocking::Calls<1000, 1>, P>(),
        of::<blocking::Calls<0, 64>, P>(),
        of::<blocking::Calls<10, 64>, P>(),
        of::<blocking::Calls<1000, 64>, P>(),
        inside(spawn::START, spawn::start),
        inside(idle::PENDING, idle::pending_tasks),
        inside(idle::SLEEPING, idle::sleeping),
        inside(idle::RECEIVING, idle::receiving),
        inside(idle::CONNECTED, idle::connected),
        inside(idle::ASLEEP, idle::asleep),
        inside(idle::TICKING, idle::ticking),
        inside(late::BLOCK, late::block),
        inside(late::BURN, late::burn),
        inside(late::BURST, late::burst),
        inside(late::BLOCK_ECHO, late::block_echo),
        inside(late::BURN_ECHO, late::burn_echo),
        inside(tail::BURN, tail::burn),
        inside(tail::BLOCK, tail::block),
        inside(tail::BLOCK_1X, tail::block_1x),
    ];
    all.extend(served().into_iter().map(|Served { info, drive }| Scenario { info, run: Run::Server(drive) }));
    all
}

fn inside<P>(info: Info, run: fn(&P, &Cell) -> Outcome) -> Scenario<P> {
    Scenario { info, run: Run::Inside(run) }
}

fn of<B: Batch, P: Peer>() -> Scenario<P> {
    inside(B::INFO, batches::<B, P>)
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
