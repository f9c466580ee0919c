//! How long records took: a histogram, and what is told of it.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::Duration;

/// A latency is known to one part in a thousand.
const DIGITS: u8 = 3;
/// A longer latency counts as this one.
const MAX: Duration = Duration::from_secs(3600);

/// Latencies in microseconds. Memory does not grow with their number.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

/// In milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        let micros = u64::try_from(MAX.as_micros()).expect("an hour");
        Self(Histogram::new_with_bounds(1, micros, DIGITS).expect("bounds that fit"))
    }
}

impl Latencies {
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the same bounds");
    }

    /// `None` where nothing was recorded.
    pub fn percentiles(&self) -> Option<Percentiles> {
        if self.0.is_empty() {
            return None;
        }
        let ms = |micros: u64| micros as f64 / 1000.0;
        let at = |quantile| ms(self.0.value_at_quantile(quantile));
        Some(Percentiles {
            // To the microsecond, like the others.
            mean: self.0.mean().round() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: ms(self.0.max()),
        })
    }
}
