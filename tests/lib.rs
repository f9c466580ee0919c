//! What the tests of the real binary share: a broker process ([`broker`]), a small client ([`client`]), load that
//! remembers what was acknowledged ([`load`]), what an attack costs ([`attack`]) and whether this machine's
//! [`processors`] let one measure that, disks that fail ([`disks`]), what a broker shows its operator ([`http`]),
//! Kafka's own programs ([`kafka`]) and its judge of files ([`dump`]).
//!
//! The tests run against `tidelog`, or, with `TIDELOG_TEST_BROKER=kafka`, against a real Apache Kafka: what passes
//! there too asks for Kafka's behaviour and not for ours.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

pub mod attack;
pub mod broker;
pub mod client;
pub mod disks;
pub mod dump;
pub mod http;
pub mod kafka;
pub mod load;
pub mod processors;

use std::io::Write;

/// Says on the terminal, past the test runner's capture, that a test could not run here and why.
pub fn skipped(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
