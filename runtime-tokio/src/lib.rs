//! A Kafka-compatible broker inside your program, usually in the tests of an application.
//!
//! In `Cargo.toml`, with the folder of a clone, or the address of its git repository in place of the path
//! (`tidelog = { git = "…" }`):
//!
//! ```toml
//! [dev-dependencies]
//! tidelog = { path = "../tidelog/runtime-tokio" }
//! ```
//!
//! A broker starts within milliseconds, on a free port of 127.0.0.1, and is gone when it is dropped:
//!
//! ```
//! use tidelog::{Broker, Config};
//!
//! let mut broker = Broker::start(Config::in_memory().set("num.partitions", "3"))?;
//! // Give this to any Kafka client as its `bootstrap.servers`.
//! assert!(broker.bootstrap_servers().starts_with("127.0.0.1:"));
//! // Ends like a killed process and starts again at the same address: what was acknowledged is there.
//! broker.crash()?;
//! # Ok::<(), tidelog::StartError>(())
//! ```
//!
//! - [`Config`] says where the data are (in memory, in a temporary directory or in one of yours) and takes every name of
//!   `server.properties` that Tidelog knows.
//! - [`Driver`] runs the producer, the consumer or the admin client of the package `tidelog-client` on real sockets, for
//!   those who have no Kafka client of their own. `examples/embedded.rs` does.
//!
//! All other public modules are for Tidelog's own binary and tests. They are not shown here, and may change at any
//! time.

// The production world: the pure broker of `tidelog-core` behind real sockets and files.
//
//   client ── socket ── connection ──► door ──► core
//                           ▲           │
//                           └───────────┼── answers
//                                       └──► disk ── completions ──► door
//
// | module | holds |
// |---|---|
// | `server` | a broker as a whole process: directories, threads, sockets and signals, from start to stop |
// | `service`, `admission` | a broker inside a runtime that exists already; how many connections there may be |
// | `door`, `inbox` | which thread runs the core, in which order inputs reach it, and where its outputs go |
// | `connection`, `frames`, `sender`, `budget` | one client's connection; backpressure |
// | `links`, `outgoing` | connections that the broker opens to other nodes; what they share with those of clients |
// | `transport`, `tcp` | the traits of sockets, and their implementation for TCP |
// | `disk` | carries out the core's I/O commands, inline or in a pool of threads |
// | `metrics` | `/metrics` and `/healthz` |
// | `limited_log` | a limit on log lines that clients can cause |
// | `listeners`, `data_dirs` | listening sockets; log directories, locked |
// | `limits`, `clock`, `entropy` | the limit of open files, time and randomness, from the operating system |
// | `platform` | system calls of Linux, and what stands in for them on other systems |
// | `client` | producer, consumer and admin on real sockets |
// | `cli`, `logging`, `looks` | the command line |
// | `dump` | shows and checks the files of a log directory |
// | `embedded` | a broker inside another program |
//
// With `--cfg madsim` this crate runs in a simulation (`tests/madsim`): madsim's runtime stands in for tokio's, and the
// modules that call the operating system are left out.

// The core and the simulator must be deterministic; this crate need not be. It uses clocks, threads and files, and the
// iteration order of its hash maps never reaches the core.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[doc(hidden)]
pub mod admission;
#[doc(hidden)]
pub mod budget;
#[doc(hidden)]
pub mod clock;
#[doc(hidden)]
pub mod connection;
#[doc(hidden)]
pub mod disk;
#[doc(hidden)]
pub mod door;
#[doc(hidden)]
pub mod frames;
#[doc(hidden)]
pub mod inbox;
#[doc(hidden)]
pub mod limited_log;
#[doc(hidden)]
pub mod links;
#[doc(hidden)]
pub mod metrics;
#[doc(hidden)]
pub mod outgoing;
#[doc(hidden)]
pub mod platform;
#[doc(hidden)]
pub mod sender;
#[doc(hidden)]
pub mod service;
#[doc(hidden)]
pub mod transport;
mod weight;

#[cfg(not(madsim))]
#[doc(hidden)]
pub mod cli;
#[cfg(not(madsim))]
#[doc(hidden)]
pub mod client;
#[cfg(not(madsim))]
#[doc(hidden)]
pub mod data_dirs;
#[cfg(not(madsim))]
#[doc(hidden)]
pub mod dump;
#[cfg(not(madsim))]
#[doc(hidden)]
pub mod embedded;
#[cfg(not(madsim))]
mod entropy;
#[cfg(not(madsim))]
#[doc(hidden)]
pub mod limits;
#[cfg(not(madsim))]
#[doc(hidden)]
pub mod listeners;
#[cfg(not(madsim))]
#[doc(hidden)]
pub mod logging;
#[cfg(not(madsim))]
mod looks;
#[cfg(not(madsim))]
#[doc(hidden)]
pub mod server;
#[cfg(not(madsim))]
#[doc(hidden)]
pub mod tcp;

#[cfg(not(madsim))]
pub use client::Driver;
#[cfg(not(madsim))]
pub use embedded::{Broker, Config, StartError};
#[cfg(not(madsim))]
pub use server::ServerError;
