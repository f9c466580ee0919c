//! What a broker does by the clock, in one table.

use crate::config::BrokerConfig;
use crate::ids::LogId;
use crate::time::Mono;
use std::collections::{BTreeMap, BTreeSet};

/// Why the broker wants to be called at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A waiting request's time runs out.
    Request,
    /// `replica.high.watermark.checkpoint.interval.ms`
    HighWatermarkCheckpoint,
    /// `log.flush.offset.checkpoint.interval.ms`
    RecoveryPointCheckpoint,
    /// `log.flush.start.offset.checkpoint.interval.ms`
    LogStartCheckpoint,
    /// `log.retention.check.interval.ms`
    Retention,
    /// A metadata snapshot by time.
    Quorum,
    /// A log's own deadline: files that wait for their removal, a flush.
    Log(LogId),
}

/// The next moment of every timer but [`Timer::Request`], which the waiting requests keep themselves.
#[derive(Debug)]
pub struct Timers {
    intervals: BTreeMap<Timer, i64>,
    due: BTreeSet<(Mono, Timer)>,
    moments: BTreeMap<Timer, Mono>,
}

impl Timers {
    pub fn new(config: &BrokerConfig) -> Self {
        let intervals = [
            (Timer::HighWatermarkCheckpoint, config.replica_high_watermark_checkpoint_interval_ms),
            (Timer::RecoveryPointCheckpoint, config.log_flush_offset_checkpoint_interval_ms.into()),
            (Timer::LogStartCheckpoint, config.log_flush_start_offset_checkpoint_interval_ms.into()),
            (Timer::Retention, config.log_retention_check_interval_ms),
        ];
        Self { intervals: intervals.into(), due: BTreeSet::new(), moments: BTreeMap::new() }
    }

    /// Starts every timer that runs at an interval.
    pub fn start(&mut self, now: Mono) {
        for timer in self.intervals.keys().copied().collect::<Vec<_>>() {
            self.again(timer, now);
        }
    }

    pub fn stop(&mut self) {
        self.due.clear();
        self.moments.clear();
    }

    /// Sets or clears a timer.
    pub fn set(&mut self, timer: Timer, at: Option<Mono>) {
        if self.moments.get(&timer).copied() == at {
            return;
        }
        if let Some(before) = self.moments.remove(&timer) {
            self.due.remove(&(before, timer));
        }
        if let Some(at) = at {
            self.due.insert((at, timer));
            self.moments.insert(timer, at);
        }
    }

    pub fn deadline(&self) -> Option<(Mono, Timer)> {
        self.due.first().copied()
    }

    /// A timer whose moment has come; one that runs at an interval is set again.
    pub fn take_due(&mut self, now: Mono) -> Option<Timer> {
        let (at, timer) = self.deadline()?;
        if at > now {
            return None;
        }
        self.set(timer, None);
        self.again(timer, now);
        Some(timer)
    }

    fn again(&mut self, timer: Timer, now: Mono) {
        if let Some(interval) = self.intervals.get(&timer) {
            self.set(timer, Some(now.plus_ms((*interval).max(1))));
        }
    }
}
