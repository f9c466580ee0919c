//! Time, which a world hands to the core with every input. The core never asks a clock.
//!
//! An input carries the time of two clocks. [`Mono`] orders events within one node and drives every timer; it never
//! goes back. [`WallMs`] is compared with the timestamps of records, for retention for example; it may jump forwards
//! and backwards.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds since some moment before the node started. Comparable within one node's life only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub u64);

/// Milliseconds since 1970-01-01T00:00:00Z, as Kafka stamps records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallMs(pub i64);

/// The moment at which an input is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    pub mono: Mono,
    pub wall: WallMs,
}

impl Mono {
    pub const ZERO: Self = Self(0);

    /// The time from `earlier` until this moment; zero where `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// `ms` milliseconds from here; negative values count as zero.
    pub fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add((ms.max(0) as u64).saturating_mul(1_000_000)))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Mono {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}
