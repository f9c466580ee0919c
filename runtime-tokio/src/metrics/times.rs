//! Durations of an operation: their count and sum since the start, and the quantiles that Kafka's timers show, of the
//! last one to two minutes.
//!
//! Kafka keeps a sample of about the last five minutes. Here two histograms take turns every minute, and the quantiles
//! are those of both together. A single histogram since the start would hardly show what changes after some days. A
//! sample would miss the rare slow request, which is the one that an operator looks for. Each histogram takes a few
//! kilobytes once it is used, and its error is at most 1 %.

use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// The quantiles that the JMX exporter shows, as it writes them.
pub const QUANTILES: [(&str, f64); 6] =
    [("0.50", 0.5), ("0.75", 0.75), ("0.95", 0.95), ("0.98", 0.98), ("0.99", 0.99), ("0.999", 0.999)];
/// How long a histogram is recorded into before the two take turns.
const TURN: Duration = Duration::from_secs(60);
const SIGNIFICANT_DIGITS: u8 = 2;

/// The durations of one operation.
#[derive(Debug)]
pub struct Times {
    count: u64,
    sum: Duration,
    /// In microseconds.
    current: Histogram<u32>,
    previous: Histogram<u32>,
    turned: Instant,
}

/// The values of [`Times`] at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Since the start.
    pub count: u64,
    pub sum_ms: f64,
    /// Of the last minute or two, in the order of [`QUANTILES`]; zeros where nothing came.
    pub quantiles_ms: [f64; QUANTILES.len()],
}

impl Times {
    pub fn new(now: Instant) -> Self {
        let histogram = || Histogram::new(SIGNIFICANT_DIGITS).expect("2 is an allowed number of digits");
        Self { count: 0, sum: Duration::ZERO, current: histogram(), previous: histogram(), turned: now }
    }

    pub fn record(&mut self, now: Instant, took: Duration) {
        self.turn(now);
        self.count += 1;
        self.sum += took;
        // The histogram grows up to this limit, which is far above every duration here.
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(1 << 40);
        let _ = self.current.record(micros);
    }

    pub fn read(&mut self, now: Instant) -> Reading {
        self.turn(now);
        let mut both = self.current.clone();
        both.add(&self.previous).expect("a histogram grows to hold what is added");
        let quantile = |at: f64| if both.is_empty() { 0.0 } else { both.value_at_quantile(at) as f64 / 1e3 };
        Reading {
            count: self.count,
            sum_ms: self.sum.as_secs_f64() * 1e3,
            quantiles_ms: QUANTILES.map(|(_, at)| quantile(at)),
        }
    }

    fn turn(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.turned);
        if since < TURN {
            return;
        }
        std::mem::swap(&mut self.current, &mut self.previous);
        self.current.reset();
        if since >= 2 * TURN {
            self.previous.reset();
        }
        self.turned = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_last_minutes_and_the_count_is_that_of_all_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut times = Times::new(start);
        assert_eq!(times.read(at(0)), Reading::default());
        for ms in 1..=1000 {
            times.record(at(1), Duration::from_millis(ms));
        }
        let reading = times.read(at(59));
        assert_eq!((reading.count, reading.sum_ms.round()), (1000, 500_500.0));
        for ((_, quantile), got) in QUANTILES.iter().zip(reading.quantiles_ms) {
            let wanted = quantile * 1000.0;
            assert!((got - wanted).abs() <= wanted / 100.0 + 1.0, "{quantile}: {got}");
        }
        // The next turn still shows it, beside what is new.
        times.record(at(61), Duration::from_millis(1));
        assert!(times.read(at(100)).quantiles_ms[0] > 400.0);
        times.record(at(125), Duration::from_millis(2));
        let reading = times.read(at(125));
        assert!(reading.quantiles_ms.iter().all(|ms| (0.9..2.1).contains(ms)), "{reading:?}");
        // After a silence nothing is left but the count.
        let reading = times.read(at(1000));
        assert_eq!((reading.count, reading.quantiles_ms), (1002, [0.0; QUANTILES.len()]));
    }

    #[test]
    fn what_takes_no_time_or_for_ever_is_recorded_too() {
        let now = Instant::now();
        let mut times = Times::new(now);
        times.record(now, Duration::ZERO);
        times.record(now, Duration::from_secs(u32::MAX.into()));
        assert_eq!(times.read(now).count, 2);
        assert!(times.read(now).quantiles_ms[5] > 1e8);
    }
}
