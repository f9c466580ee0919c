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
//! | [`service`], [`admission`] | the same inside a runtime; who may connect |
//! | [`door`], [`inbox`] | who runs the core, in which order it gets what, and where its outputs go |
//! | [`connection`], [`frames`], [`sender`], [`budget`] | one client's connection; backpressure |
//! | [`transport`], [`tcp`] | what a connection needs of a socket, and the real ones |
//! | [`disk`] | I/O commands, inline or in the pool |
//! | [`metrics`] | `/metrics` and `/healthz` |
//! | [`listeners`], [`data_dirs`], [`limits`], [`clock`], `entropy` | what the process takes from the system |
//! | [`client`] | producer, consumer and admin on real sockets |
//! | [`cli`], [`logging`] | the command line |
//! | [`dump`] | what stands in the files of a log directory, shown and judged |
//! | [`embedded`] | a broker in another program |
//!
//! To embed a broker, in tests of an application above all, there is [`Broker`], and [`Driver`] to talk to it.
//!
//! With `--cfg madsim` everything above the operating system runs in a simulation (`tests/madsim`): tokio is madsim's,
//! and what takes something from this machine is left out.

// The rules of determinism are for the core and the simulator. This is the real world: it has clocks, threads and
// files, and its hash maps decide nothing that the core sees.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod admission;
pub mod budget;
pub mod clock;
pub mod connection;
pub mod disk;
pub mod door;
pub mod frames;
pub mod inbox;
pub mod metrics;
pub mod remarks;
pub mod sender;
pub mod service;
pub mod transport;

#[cfg(not(madsim))]
pub mod cli;
#[cfg(not(madsim))]
pub mod client;
#[cfg(not(madsim))]
pub mod data_dirs;
#[cfg(not(madsim))]
pub mod dump;
#[cfg(not(madsim))]
pub mod embedded;
#[cfg(not(madsim))]
mod entropy;
#[cfg(not(madsim))]
pub mod limits;
#[cfg(not(madsim))]
pub mod listeners;
#[cfg(not(madsim))]
pub mod logging;
#[cfg(not(madsim))]
pub mod server;
#[cfg(not(madsim))]
pub mod tcp;

#[cfg(not(madsim))]
pub use client::Driver;
#[cfg(not(madsim))]
pub use embedded::{Broker, Config, StartError};
#[cfg(not(madsim))]
pub use server::{Server, ServerError};
