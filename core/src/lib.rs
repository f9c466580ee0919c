//! Tidelog's broker: one pure state machine.
//!
//! ```text
//!            requests, ticks,                         responses, I/O commands,
//!            I/O completions                          events
//!   world ─────────────────────────►  Broker  ───────────────────────────────► world
//!                                  (pure, one door)
//! ```
//!
//! A *world* owns sockets, files and clocks. It calls [`Broker::handle`](broker::Broker::handle) with an
//! [`Input`](io::Input) and carries out the [`Output`](io::Output)s. There are two worlds: `tidelog` (real sockets and
//! files, on tokio) and `tidelog-sim` (a seeded simulation of both).
//!
//! The modules stand in layers; each knows only those below it: `broker` → `api` → `controller`, `replication`, `quorum`.
//! What is below them are packages of their own: `tidelog-storage` (with [`io`]) → `tidelog-config`, `tidelog-batch` →
//! `tidelog-wire` (with [`time`] and [`ids`]). They are re-exported here under their short names. The clients
//! (`tidelog-client`) are no part of the broker. They use only `config`, `batch` and `wire`.
#![forbid(unsafe_code)]

pub mod api;
pub mod broker;
pub mod controller;
pub mod quorum;
pub mod replication;

pub use tidelog_batch as batch;
pub use tidelog_config as config;
pub use tidelog_config::plant;
pub use tidelog_storage as storage;
pub use tidelog_storage::{buggify, io, probe};
pub use tidelog_wire as wire;
pub use tidelog_wire::{ids, time};
