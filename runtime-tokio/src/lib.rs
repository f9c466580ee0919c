//! Tidelog's production world: the pure broker of `tidelog-core` behind real sockets and files.
//!
//! ```text
//!   client ── socket ── connection ──► door ──► core
//!                           ▲           │
//!                           └───────────┼── answers
//!                                       └──► disk ── completions ──► door
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`server`] | a broker's life in this process: start, ready, stop |
//! | [`door`] | who runs the core, and where its outputs go |
//! | [`connection`], [`frames`], [`sender`], [`budget`] | one client's connection; backpressure |
//! | [`disk`] | I/O commands, inline or in the pool |
//! | [`listeners`], [`data_dirs`], [`limits`], [`clock`] | what the process takes from the system |
//! | [`cli`], [`logging`] | the command line |
//!
//! An embedder needs [`Server`] alone.

// The rules of determinism are for the core and the simulator. This is the real world: it has clocks, threads and
// files, and its hash maps decide nothing that the core sees.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod budget;
pub mod cli;
pub mod clock;
pub mod connection;
pub mod data_dirs;
pub mod disk;
pub mod door;
pub mod frames;
pub mod limits;
pub mod listeners;
pub mod logging;
pub mod sender;
pub mod server;

pub use server::{Server, ServerError};
