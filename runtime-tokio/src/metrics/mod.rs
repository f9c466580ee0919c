//! What an operator looks at: `/metrics` for Prometheus and `/healthz`, over HTTP.
//!
//! The core counts what it does and gathers it in one value (`tidelog_core::broker::Metrics`); this world counts what
//! only it sees: connections, bytes, times. Names are those that the usual rules of the JMX exporter give Kafka's own
//! metrics, so that dashboards made for Kafka show a Tidelog broker (`docs/METRICS.md`).
//!
//! | module | holds |
//! |---|---|
//! | [`requests`], [`times`] | requests by kind, version and error; how long things took |
//! | `http` | the listener, and what it answers |
//! | `text`, `broker`, `world`, `process` | the numbers as Prometheus reads them |

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

/// What this world counts, for all connections together.
#[derive(Debug)]
pub struct Counters {
    pub requests: Requests,
    /// In the order of `listeners`.
    pub listeners: Vec<ListenerCounters>,
}

impl Counters {
    /// For listeners of these names.
    pub fn new(listeners: impl IntoIterator<Item = String>) -> Self {
        let listeners = listeners.into_iter().map(|name| ListenerCounters { name, ..ListenerCounters::default() });
        Self { requests: Requests::default(), listeners: listeners.collect() }
    }
}

/// What happens on one listener. Counted once a connection or a system call, never by the request.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    pub name: String,
    pub created: Counter,
    pub closed: Counter,
    /// Closed for `connections.max.idle.ms`.
    pub expired: Counter,
    /// Turned away for `max.connections.per.ip`.
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
