//! The simulated world.
#![forbid(unsafe_code)]

pub mod checkers;
pub mod client;
pub mod disk;
pub mod history;
pub mod network;
pub mod node;
pub mod random;
pub mod scenario;
pub mod trace;
pub mod world;
