//! What the tests of the real binary share:
//!
//! - [`broker`]: a broker process, [`cluster`]: several of them, and [`network`]: what fails between them;
//! - [`client`]: a small client, and [`load`]: producers that remember which records were acknowledged;
//! - [`attack`]: measures what an attack costs the broker's other clients, and [`processors`]: finds the times at which
//!   this machine cannot measure that (on Linux only: they use its `/proc` and its scheduler);
//! - [`disks`]: disks that fail;
//! - [`http`]: reads `/metrics` and `/healthz`;
//! - [`kafka`]: runs Kafka's own programs, and [`dump`]: checks log files with Kafka's and with our own dump tool.
//!
//! The tests run against `tidelog`, or against a real Apache Kafka if `TIDELOG_TEST_BROKER=kafka`. A test that passes
//! against both demands Kafka's behaviour and not only ours.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

#[cfg(target_os = "linux")]
pub mod attack;
pub mod broker;
pub mod client;
pub mod cluster;
pub mod disks;
pub mod dump;
pub mod http;
pub mod kafka;
pub mod load;
pub mod network;
#[cfg(target_os = "linux")]
pub mod processors;

use std::io::Write;

/// Prints to the terminal, also when the test runner captures output, that a test could not run here and why.
pub fn skipped(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
