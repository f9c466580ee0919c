//! The timers of a broker, in one table.

use crate::config::BrokerConfig;
use crate::ids::LogId;
use crate::time::Mono;
use std::collections::{BTreeMap, BTreeSet};

/// What a broker must be called for at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The time of a waiting request runs out.
    Request,
    /// A question to another node runs out of time, or a connection to one is due.
    Peers,
    /// `replica.high.watermark.checkpoint.interval.ms`
    HighWatermarkCheckpoint,
    /// `log.flush.offset.checkpoint.interval.ms`
    RecoveryPointCheckpoint,
    /// `log.flush.start.offset.checkpoint.interval.ms`
    LogStartCheckpoint,
    /// `log.retention.check.interval.ms`
    Retention,
    /// A snapshot of the metadata is due because time has passed.
    Quorum,
    /// The active controller shows the other nodes that it can commit: `metadata.max.idle.interval.ms`
    Idle,
    /// The session of a broker ends, if nothing is heard of it before.
    Sessions,
    /// The active controller gives leadership back to the first replicas: `leader.imbalance.check.interval.seconds`
    PreferredElections,
    /// The active controller looks for partitions that need an unclean election: `unclean.leader.election.interval.ms`
    UncleanElections,
    /// This node registers, or sends a heartbeat.
    Life,
    /// A question to the active controller is asked again, or its time runs out.
    Channel,
    /// A fetcher's pause ends.
    Fetchers,
    /// Half of `replica.lag.time.max.ms`: replicas that have not caught up leave the ISR.
    Lag,
    /// A log has something due, such as the removal of a file or a flush.
    Log(LogId),
}

impl Timer {
    /// How many there are beside those of logs.
    const OF_NODE: usize = 15;

    /// The place of a timer that is not a log's among those.
    fn place(self) -> usize {
        match self {
            Self::Request => 0,
            Self::Peers => 1,
            Self::HighWatermarkCheckpoint => 2,
            Self::RecoveryPointCheckpoint => 3,
            Self::LogStartCheckpoint => 4,
            Self::Retention => 5,
            Self::Quorum => 6,
            Self::Idle => 7,
            Self::Sessions => 8,
            Self::PreferredElections => 9,
            Self::UncleanElections => 10,
            Self::Life => 11,
            Self::Channel => 12,
            Self::Fetchers => 13,
            Self::Lag => 14,
            Self::Log(_) => panic!("the timers of logs have no places"),
        }
    }

    /// Whether it is for logs and their checkpoints, and not for the node as a member of its cluster.
    fn is_of_logs(self) -> bool {
        !matches!(
            self,
            Self::Request
                | Self::Idle
                | Self::Peers
                | Self::Quorum
                | Self::Sessions
                | Self::PreferredElections
                | Self::UncleanElections
                | Self::Life
                | Self::Channel
        )
    }
}

/// When each timer is due, except [`Timer::Request`] and [`Timer::Peers`]: the waiting requests and the peers keep their
/// deadlines themselves.
#[derive(Debug)]
pub struct Timers {
    /// In milliseconds, for the timers that run at an interval.
    intervals: BTreeMap<Timer, i64>,
    /// `log.initial.task.delay.ms`: from the start to the first run of the logs' timers.
    initial_delay_ms: i64,
    due: BTreeSet<(Mono, Timer)>,
    moments: Moments,
}

/// When each timer is due. Those of the node are set after every input, mostly to what they are, so they are found at once.
#[derive(Debug, Default)]
struct Moments {
    of_node: [Option<Mono>; Timer::OF_NODE],
    of_logs: BTreeMap<LogId, Mono>,
}

impl Moments {
    fn get(&self, timer: Timer) -> Option<Mono> {
        match timer {
            Timer::Log(log) => self.of_logs.get(&log).copied(),
            timer => self.of_node[timer.place()],
        }
    }

    fn set(&mut self, timer: Timer, at: Option<Mono>) {
        match (timer, at) {
            (Timer::Log(log), Some(at)) => _ = self.of_logs.insert(log, at),
            (Timer::Log(log), None) => _ = self.of_logs.remove(&log),
            (timer, at) => self.of_node[timer.place()] = at,
        }
    }
}

impl Timers {
    pub fn new(config: &BrokerConfig) -> Self {
        let intervals = [
            (Timer::HighWatermarkCheckpoint, config.replica_high_watermark_checkpoint_interval_ms),
            (Timer::RecoveryPointCheckpoint, config.log_flush_offset_checkpoint_interval_ms.into()),
            (Timer::LogStartCheckpoint, config.log_flush_start_offset_checkpoint_interval_ms.into()),
            (Timer::Retention, config.log_retention_check_interval_ms),
            (Timer::Lag, config.replica_lag_time_max_ms / 2),
        ];
        Self {
            intervals: intervals.into(),
            initial_delay_ms: config.log_initial_task_delay_ms,
            due: BTreeSet::new(),
            moments: Moments::default(),
        }
    }

    /// Starts every timer that runs at an interval.
    pub fn start(&mut self, now: Mono) {
        for (timer, interval_ms) in self.intervals.clone() {
            let delay_ms = match timer {
                Timer::HighWatermarkCheckpoint | Timer::Lag => interval_ms.max(1),
                _ => self.initial_delay_ms,
            };
            self.set(timer, Some(now.plus_ms(delay_ms)));
        }
    }

    /// Clears the timers of logs and checkpoints.
    pub fn stop(&mut self) {
        let logs: Vec<Timer> = self.due.iter().map(|(_, timer)| *timer).filter(|timer| timer.is_of_logs()).collect();
        for timer in logs {
            self.set(timer, None);
        }
    }

    /// Sets or clears a timer.
    pub fn set(&mut self, timer: Timer, at: Option<Mono>) {
        let before = self.moments.get(timer);
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.due.remove(&(before, timer));
        }
        if let Some(at) = at {
            self.due.insert((at, timer));
        }
        self.moments.set(timer, at);
    }

    /// Sets a timer that is not set.
    pub fn start_one(&mut self, timer: Timer, at: Mono) {
        if self.moments.get(timer).is_none() {
            self.set(timer, Some(at));
        }
    }

    pub fn deadline(&self) -> Option<(Mono, Timer)> {
        self.due.first().copied()
    }

    /// Takes out a timer that is due. One that runs at an interval is set again.
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
