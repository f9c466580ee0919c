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
//! [`broker`] takes the inputs, [`api`] has a handler for each kind of request, and [`peers`] asks other nodes. What they
//! are built on are packages of their own, each of which knows only those below it: `tidelog-controller`,
//! `tidelog-replication`, `tidelog-quorum` → `tidelog-storage` (with [`io`]) → `tidelog-config`, `tidelog-batch` →
//! `tidelog-wire` (with [`time`] and [`ids`]). They are re-exported here under their short names. The clients
//! (`tidelog-client`) are no part of the broker. They use `config`, `batch` and `wire`, and share `tidelog-link` with
//! `peers`.
#![forbid(unsafe_code)]

pub mod api;
pub mod broker;
pub mod peers;

pub use tidelog_batch as batch;
pub use tidelog_config as config;
pub use tidelog_config::plant;
pub use tidelog_controller as controller;
pub use tidelog_quorum as quorum;
pub use tidelog_replication as replication;
pub use tidelog_storage as storage;
pub use tidelog_storage::{buggify, io, probe};
pub use tidelog_wire as wire;
pub use tidelog_wire::{ids, time};
