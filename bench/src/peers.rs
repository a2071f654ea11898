//! The runtimes that are compared. A new one is a file, its `mod` line and its line in [`all`].

#[cfg(feature = "peers")]
pub mod compio;
pub mod cores;
pub mod gmp;
pub mod go;
#[cfg(feature = "peers")]
pub mod may;
#[cfg(feature = "peers")]
pub mod monoio;
pub mod raw;
pub mod smol;
pub mod tokio;

use std::path::Path;

use crate::cell::{self, Cell, CellReport};
use crate::peer::Peer;
use crate::scenarios::{self, Info};
use cores::Server;

/// A [`Peer`] with its type erased.
#[derive(Debug)]
pub struct Entry {
    /// [`Peer::NAME`].
    pub name: &'static str,
    /// [`Peer::settings`].
    pub settings: fn(usize) -> String,
    /// [`Peer::takes_part`].
    pub takes_part: fn(&Info, usize) -> bool,
    /// Whether it is no runtime but what none can pass: it is shown and never the best.
    pub ceiling: bool,
    /// What runs its cells.
    pub code: Code,
}

/// What runs a peer's cells.
#[derive(Clone, Copy, Debug)]
pub enum Code {
    /// This program: one cell, in this process; `None` if there is no scenario of that name.
    Here(fn(&str, &Cell) -> Option<CellReport>),
    /// Another program, or why there is none.
    Program(fn() -> Result<&'static Path, &'static str>),
}

impl Entry {
    fn of<P: Peer>() -> Entry {
        Entry {
            name: P::NAME,
            settings: P::settings,
            takes_part: P::takes_part,
            ceiling: false,
            code: Code::Here(cell::run::<P>),
        }
    }

    fn server<S: Server>() -> Entry {
        Entry {
            name: S::NAME,
            settings: S::settings,
            takes_part: |scenario, _| scenario.service.is_some_and(S::serves),
            ceiling: S::CEILING,
            code: Code::Here(cell::serve::<S>),
        }
    }
}

/// All peers, in the order of the tables.
pub fn all() -> Vec<Entry> {
    vec![
        Entry::of::<gmp::Gmp>(),
        Entry::of::<tokio::MultiThread>(),
        tokio::current_thread(),
        Entry::of::<smol::Smol>(),
        go::entry(),
        #[cfg(feature = "peers")]
        Entry::server::<monoio::Monoio>(),
        #[cfg(feature = "peers")]
        Entry::server::<compio::Compio>(),
        #[cfg(feature = "peers")]
        Entry::server::<may::May>(),
        Entry::server::<raw::Raw>(),
    ]
}

/// What is measured.
pub fn scenarios() -> Vec<Info> {
    scenarios::all::<tokio::MultiThread>().into_iter().map(|scenario| scenario.info).collect()
}

/// The version of a dependency, from the lock file this was built with.
pub(crate) fn version(package: &str) -> &'static str {
    let mut lines = include_str!("../../Cargo.lock").lines();
    let name = format!("name = \"{package}\"");
    lines
        .find(|line| *line == name)
        .and_then(|_| lines.next()?.strip_prefix("version = "))
        .map_or("?", |v| v.trim_matches('"'))
}
