//! The production world's shell in a simulation: the real `tidelog::service` with its connections and its door, and the
//! real broker behind it. madsim provides the scheduler, the clock, the entropy and processes that can be killed;
//! `turmoil-net` provides TCP (handshakes, windows, segments, half-closes, resets); `tidelog-sim` provides the disk.
//!
//! Empty unless built by `cargo madsim`.
#![cfg(madsim)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "madsim makes them deterministic")]

pub mod asker;
pub mod client;
pub mod network;
pub mod runs;
pub mod storage;
pub mod world;

use madsim::time::TimeHandle;

/// Virtual time since the run began.
pub fn now_ns() -> u64 {
    u64::try_from(TimeHandle::current().elapsed().as_nanos()).expect("a run is short")
}
