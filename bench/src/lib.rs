//! gmp beside its peers: one source of each scenario, generic over [`peer::Peer`].
//!
//! The binary runs scenario × peer × round, each in a process of its own (`run`); the criterion benches in `benches/`
//! use the same batches. In reading order: `peer` says what a runtime must give, `scenarios` what is measured, `laps`
//! how, `cell` what one process does, `run` in what order they go, `stats`, `verdict` and `report` what comes out,
//! `publish` and `plot` what of it is kept. `gates` and `locked` count where a clock would not do, `model` where there
//! are not CPUs enough.
//!
//! It runs on Linux, like the figures it is for: the generator uses epoll, and figures come from `/proc`.

pub mod alloc;
pub mod cell;
pub mod gates;
pub mod hello;
pub mod laps;
pub mod load;
pub mod locked;
pub mod machine;
pub mod model;
pub mod peer;
pub mod peers;
pub mod pin;
pub mod plot;
pub mod publish;
pub mod rate;
pub mod report;
pub mod run;
pub mod scenarios;
pub mod stats;
pub mod usage;
pub mod verdict;
