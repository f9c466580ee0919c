//! The simulated world: real brokers (`tidelog_core::broker`) on simulated disks, behind a simulated network, with
//! simulated clients. A seed decides everything that happens.
//!
//! | module | holds |
//! |---|---|
//! | [`world`] | the heap of events, the run loop, the nemesis |
//! | [`scenario`] | what a seed draws, as data |
//! | [`cluster`] | what each node of a cluster is, and its formatted disks |
//! | [`node`], [`disk`], [`clock`], [`network`] | machines, and what connects them |
//! | [`client`] | producers, fetchers and listers, speaking through a codec that is not the broker's |
//! | [`history`], [`checkers`] | what the clients saw, and whether it may be |
//! | [`script`] | small clusters for tests that say what happens |
//! | [`random`] | named streams of randomness |
//! | [`trace`], [`panics`] | the rolling hash of a run and the notes for whoever looks at it; panics as violations |
//!
//! The crate obeys the core's rules of determinism: it uses no clock, no thread, no entropy and no hash-map order.
#![forbid(unsafe_code)]

pub mod checkers;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod history;
pub mod kept;
pub mod minimise;
pub mod network;
pub mod node;
pub mod panics;
pub mod random;
pub mod scenario;
pub mod trace;
pub mod world;

pub use world::script;

/// The `opt-level` of this build. An unoptimised simulator takes many times as long.
pub const OPT_LEVEL: &str = env!("TIDELOG_OPT_LEVEL");
