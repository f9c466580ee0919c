//! Tidelog's broker as one pure state machine.
//!
//! ```text
//!            requests, ticks,                         responses, I/O commands,
//!            I/O completions                          events
//!   world ─────────────────────────►  Broker  ───────────────────────────────► world
//!                                  (pure, one door)
//! ```
//!
//! A *world* owns sockets, files and clocks. It calls [`Broker::handle`](broker::Broker::handle) with an
//! [`Input`](io::Input) and carries out the [`Output`](io::Output)s. There are two: `tidelog` (real sockets and
//! files, on tokio) and `tidelog-sim` (a seeded simulation of both).
//!
//! The modules stand in layers; each knows only those below it:
//! `broker` → `api` → `controller`, `replication`, `quorum` → `storage` → `io` → `config`, `batch` → `wire` →
//! `time`, `ids`. Beside the broker stand the clients (`client`), on `config`, `batch` and `wire` alone.
#![forbid(unsafe_code)]

pub mod api;
pub mod batch;
pub mod broker;
pub mod buggify;
pub mod client;
pub mod config;
pub mod controller;
pub mod ids;
pub mod io;
pub mod plant;
pub mod probe;
pub mod quorum;
pub mod replication;
pub mod storage;
pub mod time;
pub mod wire;
