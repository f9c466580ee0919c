//! A log starts no further on than retention and DeleteRecords allow. While a process runs, the start does not go back,
//! and no record before the start is served. Records that retention must delete are deleted.
//!
//! A crash may move the start back: as in Kafka, it is made stable only now and then.
//!
//! Retention by time judges a segment by its greatest timestamp, and if no record in it has a timestamp, by the last
//! change of its file. That change is no earlier than the sending of any record in the segment. So in a partition to
//! which no record with a timestamp was sent, a record may leave when it was sent longer than `retention.ms` ago.

use super::{Checker, Rules, Violation, violation};
use crate::clock::WALL_START_MS;
use crate::history::{Asked, Entry, Fact, FinalLog, FinalLogs, PartitionKey, ReadRecord, ValueId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub struct Retention {
    rules: Rules,
    partitions: BTreeMap<PartitionKey, Known>,
    /// When each value without a timestamp was first sent, by the clients' wall clock.
    sent_without_timestamp: BTreeMap<ValueId, i64>,
    /// Partitions to which a record with a timestamp was sent.
    has_timestamps: BTreeSet<PartitionKey>,
    /// Clients that were told that their position is out of range, and have not been told since where the log starts.
    out_of_range: BTreeMap<(Option<u32>, PartitionKey), i64>,
}

#[derive(Debug, Default)]
struct Known {
    /// The highest offset up to which a DeleteRecords asked to delete.
    asked: i64,
    /// The starts that the current process has told, rising, with the time of each.
    told: Vec<(u64, i64)>,
    /// The starts that any process has told, rising, with the time at which each was first told.
    first_told: Vec<(u64, i64)>,
    /// The records that were read, by offset.
    read: BTreeMap<i64, ReadRecord>,
    /// The page cache was lost, and with it perhaps records that counted when retention by size deleted others.
    cache_was_lost: bool,
}

const NAME: &str = "retention";

impl Retention {
    pub fn new(rules: &Rules) -> Self {
        Self { rules: rules.clone(), ..Self::default() }
    }

    /// Somebody asked at `asked_at` and was told at `at` that the log starts at `start`.
    fn learn(&mut self, partition: PartitionKey, asked_at: u64, at: u64, start: i64) -> Result<(), Violation> {
        if start == -1 {
            // Old versions of Fetch do not tell the start.
            return Ok(());
        }
        let may_leave = self.rules.has_retention(partition);
        let known = self.partitions.entry(partition).or_default();
        if start > known.asked && !may_leave {
            let asked = known.asked;
            let text = format!("the log starts at {start}, and nobody asked for more than {asked} to be deleted");
            return violation(NAME, partition, text);
        }
        // A replica learns from the leader where the log starts, and may come to lead before.
        if let Some((before, higher)) = known.told.iter().rev().find(|(before, _)| *before < asked_at)
            && *higher > start
            && !self.rules.has_replicas(partition)
        {
            let text = format!("the log starts at {start}, and at {} ms it did at {higher}", before / 1_000_000);
            return violation(NAME, partition, text);
        }
        for told in [&mut known.told, &mut known.first_told] {
            if told.last().is_none_or(|(_, last)| *last < start) {
                told.push((at, start));
            }
        }
        Ok(())
    }

    /// Since when a record has aged, by the clients' wall clock. `None` if that depends on other records in its
    /// segment.
    fn aging_since(&self, partition: PartitionKey, record: &ReadRecord) -> Option<i64> {
        if record.timestamp >= 0 {
            return Some(record.timestamp);
        }
        let is_alone = !self.has_timestamps.contains(&partition);
        self.sent_without_timestamp.get(&record.value).copied().filter(|_| is_alone)
    }

    /// Judges whether every record that retention deleted for its age was old enough then.
    fn check_ages(&self, partition: PartitionKey, known: &Known) -> Result<(), Violation> {
        let Some(topic) = self.rules.topic(partition) else { return Ok(()) };
        let (Some(age_ms), None) = (topic.number("retention.ms"), topic.number("retention.bytes")) else {
            return Ok(());
        };
        let mut told = known.first_told.iter().peekable();
        for (offset, record) in known.read.iter().skip_while(|(offset, _)| **offset < known.asked) {
            while told.next_if(|(_, start)| start <= offset).is_some() {}
            let Some((at, start)) = told.peek() else { break };
            let Some(since) = self.aging_since(partition, record) else { continue };
            let wall = wall_ms(*at) + self.rules.wall_slack_ms;
            if since + age_ms > wall {
                let text = format!("{offset} of the time {since} left before it was {age_ms} ms old, for {start}");
                return violation(NAME, partition, text);
            }
        }
        Ok(())
    }

    /// Judges the records that are left: retention has deleted all that it must, and has kept as many bytes as
    /// `retention.bytes` says.
    fn check_rest(&self, partition: PartitionKey, known: &Known, log: &FinalLog) -> Result<(), Violation> {
        let Some(topic) = self.rules.topic(partition) else { return Ok(()) };
        let kept_bytes = topic.number("retention.bytes");
        let bytes: i64 = log.records.iter().map(|record| i64::from(record.batch_bytes)).sum();
        if topic.number("retention.ms").is_some() {
            if self.rules.wall_slack_ms == 0 && !log.records.is_empty() {
                let text = format!("{} records are old enough to leave, and have not", log.records.len());
                return violation(NAME, partition, text);
            }
        } else if let Some(kept) = kept_bytes
            && known.asked == 0
            && log.start > 0
            && !known.cache_was_lost
            // Its leader has also counted what was cut when another came to lead.
            && !self.rules.has_replicas(partition)
            && bytes < kept
        {
            return violation(NAME, partition, format!("{bytes} bytes are left where {kept} are to be kept"));
        }
        let segment_bytes = topic.number("internal.segment.bytes").unwrap_or(1 << 30);
        if let Some(kept) = kept_bytes
            && bytes >= kept + segment_bytes
        {
            return violation(NAME, partition, format!("{bytes} bytes are left where {kept} are to be kept"));
        }
        Ok(())
    }
}

/// What the clients' wall clock shows at a time of the world.
fn wall_ms(at: u64) -> i64 {
    WALL_START_MS + (at / 1_000_000) as i64
}

impl Checker for Retention {
    fn observe(&mut self, entry: &Entry) -> Result<(), Violation> {
        match &entry.fact {
            Fact::Sent { partition, values, timestamps, .. } => {
                for (value, timestamp) in values.iter().zip(timestamps) {
                    if *timestamp >= 0 {
                        self.has_timestamps.insert(*partition);
                    } else {
                        self.sent_without_timestamp.entry(*value).or_insert(wall_ms(entry.at));
                    }
                }
                Ok(())
            }
            Fact::Trimming { partition, target } => {
                let known = self.partitions.entry(*partition).or_default();
                known.asked = known.asked.max(if *target == -1 { i64::MAX } else { *target });
                Ok(())
            }
            Fact::Trimmed { partition, asked_at, target, low_watermark } => {
                if low_watermark < target {
                    let text = format!("records up to {target} are deleted, and the log starts at {low_watermark}");
                    return violation(NAME, *partition, text);
                }
                self.learn(*partition, *asked_at, entry.at, *low_watermark)
            }
            Fact::Fetched { partition, asked_at, from, log_start, records, .. } => {
                if from < log_start && !records.is_empty() {
                    let text = format!("{from} is read, and the log starts at {log_start}");
                    return violation(NAME, *partition, text);
                }
                self.learn(*partition, *asked_at, entry.at, *log_start)?;
                let known = self.partitions.entry(*partition).or_default();
                known.read.extend(records.iter().map(|record| (record.offset, *record)));
                Ok(())
            }
            Fact::OutOfRange { partition, position } => {
                self.out_of_range.insert((entry.client, *partition), *position);
                Ok(())
            }
            Fact::Listed { partition, asked_at, asked: Asked::Earliest, offset, .. } => {
                if let Some(position) = self.out_of_range.remove(&(entry.client, *partition))
                    && position >= *offset
                    && !self.rules.is_relaxed(*partition)
                    // A replica that does not lead any more, and does not know that, lacks the newest records.
                    && !self.rules.has_replicas(*partition)
                {
                    let text = format!("{position} was out of range, and the log starts at {offset}");
                    return violation(NAME, *partition, text);
                }
                self.learn(*partition, *asked_at, entry.at, *offset)
            }
            Fact::Restarted { held, .. } => {
                for (_, known) in self.partitions.iter_mut().filter(|(partition, _)| held.contains(partition)) {
                    known.told.clear();
                }
                self.out_of_range.retain(|(_, partition), _| !held.contains(partition));
                Ok(())
            }
            Fact::CacheLost { held, .. } => {
                let rules = &self.rules;
                for (partition, known) in self.partitions.iter_mut().filter(|(partition, _)| held.contains(partition)) {
                    if rules.is_relaxed(*partition) {
                        *known = Known { asked: known.asked, ..Known::default() };
                    }
                    known.cache_was_lost = true;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, finals: &FinalLogs) -> Result<(), Violation> {
        for (partition, known) in &self.partitions {
            self.check_ages(*partition, known)?;
            self.check_rest(*partition, known, finals.get(partition).unwrap_or(&FinalLog::default()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::*;
    use super::*;
    use crate::history::ReadRecord;

    fn run(facts: Vec<Fact>, finals: &[(PartitionKey, &[ReadRecord])]) -> Result<(), String> {
        judge(Retention::new(&rules()), facts, finals)
    }

    fn earliest(partition: PartitionKey, offset: i64) -> Fact {
        Fact::Listed { partition, asked_at: 0, asked: Asked::Earliest, offset, timestamp: -1 }
    }

    fn asked(target: i64) -> Fact {
        Fact::Trimming { partition: P, target }
    }

    #[test]
    fn a_log_may_start_where_somebody_asked_it_to_and_no_further() {
        assert_eq!(run(vec![asked(3), earliest(P, 3)], &[]), Ok(()));
        assert_eq!(run(vec![asked(-1), earliest(P, 30)], &[]), Ok(()));
        assert!(run(vec![asked(3), earliest(P, 4)], &[]).unwrap_err().contains("nobody asked for more than 3"));
        assert!(run(vec![earliest(P, 1)], &[]).is_err());
        assert_eq!(run(vec![earliest(AGED, 1)], &[]), Ok(()));
    }

    #[test]
    fn a_deletion_that_did_not_happen_and_a_start_that_goes_back_are_found() {
        let trimmed = |low_watermark| Fact::Trimmed { partition: P, asked_at: 0, target: 3, low_watermark };
        assert!(run(vec![asked(3), trimmed(2)], &[]).unwrap_err().contains("starts at 2"));
        let back = || vec![asked(3), trimmed(3), asked(3), earliest(P, 0)];
        assert!(run(back(), &[]).unwrap_err().contains("it did at 3"));
        let mut restarted = back();
        restarted.insert(2, super::super::bench::restarted());
        assert_eq!(run(restarted, &[]), Ok(()), "a crash may take it back");
    }

    #[test]
    fn what_stands_before_the_start_is_not_served_and_what_stands_behind_it_is_in_range() {
        let mut served = fetched(AGED, 9, &[record(1, 1)]);
        if let Fact::Fetched { log_start, .. } = &mut served {
            *log_start = 2;
        }
        assert!(run(vec![served], &[]).unwrap_err().contains("1 is read, and the log starts at 2"));
        let gone = Fact::OutOfRange { partition: AGED, position: 4 };
        assert!(run(vec![gone.clone(), earliest(AGED, 4)], &[]).unwrap_err().contains("4 was out of range"));
        assert_eq!(run(vec![gone, earliest(AGED, 5)], &[]), Ok(()));
    }

    #[test]
    fn a_record_that_left_too_young_is_found() {
        let at = |timestamp| ReadRecord { timestamp, ..record(0, 0) };
        let run = |timestamp| run(vec![fetched(AGED, 1, &[at(timestamp)]), earliest(AGED, 1)], &[]);
        assert_eq!(run(WALL_START_MS - 1_000), Ok(()));
        assert!(run(WALL_START_MS - 999).unwrap_err().contains("left before it was 1000 ms old"));
    }

    #[test]
    fn a_record_without_a_timestamp_ages_from_its_sending_on_unless_one_with_a_timestamp_is_beside_it() {
        let at = |ms: u64, fact| Entry { at: ms * 1_000_000, client: Some(1), fact };
        let sent = |timestamp, count| match sent(1, AGED, count..count + 1) {
            Fact::Sent { op, partition, values, acks, idempotent, .. } => {
                Fact::Sent { op, partition, values, timestamps: vec![timestamp], acks, idempotent }
            }
            _ => unreachable!(),
        };
        let run = |left_at, beside: Option<i64>| {
            let mut checker = Retention::new(&rules());
            let record = ReadRecord { timestamp: -1, ..record(0, 0) };
            let mut history = vec![at(500, sent(-1, 0)), at(510, fetched(AGED, 1, &[record]))];
            history.extend(beside.map(|timestamp| at(520, sent(timestamp, 1))));
            history.push(at(
                left_at,
                Fact::Listed { partition: AGED, asked_at: 530, asked: Asked::Earliest, offset: 1, timestamp: -1 },
            ));
            history.iter().try_for_each(|entry| checker.observe(entry)).unwrap();
            checker.finish(&FinalLogs::new()).map_err(|violation| violation.to_string())
        };
        assert_eq!(run(1_500, None), Ok(()));
        assert!(run(1_499, None).unwrap_err().contains("left before it was 1000 ms old"));
        assert!(run(1_499, Some(-1)).is_err());
        assert_eq!(run(1_499, Some(1_000)), Ok(()));
    }

    #[test]
    fn too_little_and_too_much_that_is_left_are_found() {
        let log = |records: std::ops::Range<u32>| -> Vec<ReadRecord> {
            records.map(|place| record(place.into(), place)).collect()
        };
        let rest = |partition, records| run(vec![earliest(partition, 0)], &[(partition, &log(records)[..])]);
        assert_eq!(rest(SIZED, 7..12), Ok(()));
        assert!(rest(SIZED, 7..11).unwrap_err().contains("400 bytes are left"));
        assert!(rest(SIZED, 7..22).unwrap_err().contains("1500 bytes are left"));
        assert_eq!(rest(SIZED, 0..1), Ok(()));
        assert!(rest(AGED, 7..8).unwrap_err().contains("old enough to leave"));
    }
}
