//! What an operator can ask over HTTP: `/metrics` for Prometheus, and `/healthz`.
//!
//! The core counts what it does and gathers it in one value (`tidelog_core::broker::Metrics`). This crate counts what
//! the core does not see: connections, bytes and times. A metric of Kafka's has the name that the usual rules of the
//! JMX exporter give it, so that dashboards made for Kafka show a Tidelog broker (`docs/METRICS.md`).
//!
//! | module | holds |
//! |---|---|
//! | [`requests`], [`times`] | counts of requests by API key, version and error; quantiles of durations |
//! | `http` | the HTTP listener and its answers |
//! | `text`, `broker`, `world`, `process` | the metrics in Prometheus' text format, by where they come from |

pub mod requests;
pub mod times;

#[cfg(not(madsim))]
mod broker;
#[cfg(not(madsim))]
pub mod http;
#[cfg(not(madsim))]
mod process;
#[cfg(not(madsim))]
mod text;
#[cfg(not(madsim))]
mod world;

use requests::Requests;
use std::sync::atomic::{AtomicU64, Ordering};

/// What this crate counts, for all connections together.
#[derive(Debug)]
pub struct Counters {
    pub requests: Requests,
    /// In the order of `listeners`.
    pub listeners: Vec<ListenerCounters>,
}

impl Counters {
    /// Counters for listeners of these names, in the order of `listeners`.
    pub fn new(listeners: impl IntoIterator<Item = String>) -> Self {
        let listeners = listeners.into_iter().map(|name| ListenerCounters { name, ..ListenerCounters::default() });
        Self { requests: Requests::default(), listeners: listeners.collect() }
    }
}

/// What happens on one listener. The byte counters are updated once for each system call, the others once for each
/// connection: no request pays for them.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    pub name: String,
    pub created: Counter,
    pub closed: Counter,
    /// Closed because of `connections.max.idle.ms`.
    pub expired: Counter,
    /// Refused because of `max.connections.per.ip`.
    pub refused: Counter,
    pub bytes_in: Counter,
    pub bytes_out: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
