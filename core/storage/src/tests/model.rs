//! Tests of the log against a model, with random actions and crashes.

use super::*;
use crate::names::{FileKind, ParsedFile};
use crate::offset_index::{IndexBounds, OffsetIndex};
use crate::time_index::TimeIndex;
use proptest::prelude::*;

/// A batch that was appended, as the model knows it.
#[derive(Clone, Debug)]
struct Known {
    base: i64,
    last: i64,
    timestamps: Vec<i64>,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Action {
    Append {
        timestamps: Vec<i64>,
        size: usize,
    },
    Idempotent {
        producer: i64,
        retry: bool,
    },
    /// Carry out this number of commands.
    Run(usize),
    RunAll,
    Read {
        offset: u16,
        upper: u16,
        max_bytes: u32,
    },
    Lookup(i64),
    Retention,
    DeleteRecords(u16),
    Truncate(u16),
    /// Write the checkpoints of the recovery point and of the log's start.
    Checkpoint,
    Close,
    Crash(u64),
    /// A crash, and another one after this number of commands of the recovery.
    CrashInRecovery(u64, usize),
}

fn action() -> impl Strategy<Value = Action> {
    // Not 0: a time index entry of timestamp 0 and distance 0 looks like the zeros of a preallocated file.
    let timestamps = prop::collection::vec(prop_oneof![1 => Just(-1), 9 => 1i64..500], 1..4);
    prop_oneof![
        8 => (timestamps, 0usize..250).prop_map(|(timestamps, size)| Action::Append { timestamps, size }),
        4 => (1i64..4, any::<bool>()).prop_map(|(producer, retry)| Action::Idempotent { producer, retry }),
        6 => (1usize..12).prop_map(Action::Run),
        2 => Just(Action::RunAll),
        6 => (any::<u16>(), any::<u16>(), 1u32..2_000)
            .prop_map(|(offset, upper, max_bytes)| Action::Read { offset, upper, max_bytes }),
        3 => (-2i64..520).prop_map(Action::Lookup),
        1 => Just(Action::Retention),
        1 => any::<u16>().prop_map(Action::DeleteRecords),
        1 => any::<u16>().prop_map(Action::Truncate),
        2 => Just(Action::Checkpoint),
        1 => Just(Action::Close),
        2 => any::<u64>().prop_map(Action::Crash),
        1 => (any::<u64>(), 0usize..40).prop_map(|(seed, commands)| Action::CrashInRecovery(seed, commands)),
    ]
}

/// A log, and a model of what it holds.
struct Checked {
    world: World,
    known: Vec<Known>,
    /// The next sequence of each producer, and how many records its last batch had.
    sequences: std::collections::BTreeMap<i64, (i32, i64)>,
    /// The offsets in the checkpoints of the log directory.
    recovery_point: Offset,
    log_start: Offset,
}

impl Checked {
    fn end(&self) -> i64 {
        self.world.log.log_end_offset().0
    }

    fn place(&self, part: u16) -> i64 {
        let (start, end) = (self.world.log.log_start_offset().0, self.end());
        start + i64::from(part) % (end - start + 1)
    }

    fn append(&mut self, batch: &CheckedBatch, timestamps: Vec<i64>) -> Appended {
        let appended = self.world.append(batch).unwrap();
        if !appended.duplicate {
            let expected = self.known.last().map_or(appended.base_offset.0, |known| known.last + 1);
            assert_eq!(appended.base_offset.0, expected, "offsets are dense");
            let chunks = batch.assign(appended.base_offset, EPOCH, None);
            let (base, last) = (appended.base_offset.0, appended.last_offset.0);
            self.known.push(Known { base, last, timestamps, bytes: chunks.concat() });
        }
        appended
    }

    fn apply(&mut self, action: &Action) {
        match *action {
            Action::Append { ref timestamps, size } => {
                self.append(&batch(timestamps, size), timestamps.clone());
            }
            Action::Idempotent { producer, retry } => {
                let (next, last) = self.sequences.get(&producer).copied().unwrap_or((0, -1));
                if retry && next > 0 {
                    let appended = self.append(&idempotent(producer, next - 1, 1), vec![5]);
                    assert!(appended.duplicate);
                    assert_eq!(appended.base_offset.0, last);
                } else {
                    let appended = self.append(&idempotent(producer, next, 1), vec![5]);
                    assert!(!appended.duplicate);
                    self.sequences.insert(producer, (next + 1, appended.base_offset.0));
                }
            }
            Action::Run(commands) => {
                for _ in 0..commands {
                    self.world.step();
                }
            }
            Action::RunAll => {
                self.world.run();
                assert_eq!(self.world.log.stable_offset().0, self.end());
            }
            Action::Read { offset, upper, max_bytes } => self.read(self.place(offset), self.place(upper), max_bytes),
            Action::Lookup(timestamp) => self.lookup(timestamp),
            Action::Retention => {
                let stable = self.world.log.stable_offset();
                self.world.log.enforce_retention(self.world.now, stable, &mut self.world.out);
                self.world.take_out();
                self.world.pass(600);
            }
            Action::DeleteRecords(at) => {
                let at = Offset(self.place(at)).min(self.world.log.stable_offset());
                self.world.log.delete_records(at, &mut self.world.out);
                self.world.take_out();
            }
            Action::Truncate(at) => {
                let at = self.place(at);
                self.recovery_point = self.recovery_point.min(Offset(at));
                self.world.events.clear();
                self.world.log.truncate_to(Offset(at), &mut self.world.out);
                self.world.take_out();
                self.world.run();
                assert_eq!(self.world.events, [LogEvent::Truncated]);
                self.recovery_point = self.recovery_point.min(self.world.log.synced_offset());
                let floor = self.known.iter().filter(|known| known.last < at).map(|known| known.last + 1).next_back();
                let start = self.world.log.log_start_offset().0;
                assert_eq!(self.end(), floor.unwrap_or(start).max(start));
                self.forget_from(self.end());
            }
            Action::Checkpoint => {
                self.recovery_point = self.world.log.synced_offset();
                self.log_start = self.world.log.log_start_offset();
            }
            Action::Close => {
                // Lets a retention that waits for the name of a new segment finish.
                self.world.run();
                let (start, end) = (self.world.log.log_start_offset(), self.world.log.log_end_offset());
                self.world.close_and_reload();
                assert_eq!((self.world.log.log_start_offset(), self.world.log.log_end_offset()), (start, end));
                (self.recovery_point, self.log_start) = (end, start);
                check_indexes(&self.world);
            }
            Action::Crash(seed) => self.crash(seed, None),
            Action::CrashInRecovery(seed, commands) => self.crash(seed, Some(commands)),
        }
    }

    fn crash(&mut self, seed: u64, in_recovery: Option<usize>) {
        let (synced, end) = (self.world.log.synced_offset(), self.world.log.log_end_offset());
        let start = self.world.log.log_start_offset();
        let hints = LoadHints {
            clean: false,
            recovery_point: Some(self.recovery_point),
            log_start: Some(self.log_start).filter(|start| *start > Offset(0)),
            has_topic_id: true,
        };
        self.world.random = ChaCha8Rng::seed_from_u64(seed);
        self.world.crash();
        if let Some(commands) = in_recovery
            && self.world.disk.content(&format!("{NAME}/partition.metadata")).is_some()
        {
            self.world.reload(hints);
            for _ in 0..commands {
                self.world.step();
            }
            self.world.crash();
        }
        if self.world.disk.content(&format!("{NAME}/partition.metadata")).is_none() {
            // The crash came before the creation of the log was stable.
            assert_eq!(synced, Offset(0));
            let mut fresh = World::new(self.world.settings.clone());
            fresh.run();
            self.world = fresh;
            (self.recovery_point, self.log_start) = (Offset(0), Offset(0));
        } else {
            self.world.reload(hints);
            self.world.run();
            self.world.loaded();
        }
        let log = &self.world.log;
        assert!(log.log_end_offset() >= synced, "{} of {synced} synced", log.log_end_offset());
        assert!(log.log_end_offset() <= end && log.log_start_offset() <= start);
        assert_eq!(log.stable_offset(), log.log_end_offset());
        self.forget_from(self.end());
        // Segments that retention had removed may be there again. If so, their records must be the same as before.
        self.read_everything();
    }

    fn forget_from(&mut self, end: i64) {
        self.known.retain(|known| known.last < end);
        if self.known.last().is_some_and(|known| known.last + 1 < end) && self.world.log.log_start_offset().0 == end {
            // The log's start lay within a batch that is lost, so an empty log begins there.
            self.known.clear();
        }
        let mut sequences = std::collections::BTreeMap::new();
        for known in &self.known {
            let header = tidelog_batch::BatchHeader::parse(&known.bytes).unwrap();
            if header.has_producer_id() {
                sequences.insert(header.producer_id.0, (header.base_sequence + 1, known.base));
            }
        }
        self.sequences = sequences;
        assert!(self.known.last().is_none_or(|known| known.last + 1 == end), "the log ends where a batch ends");
    }

    fn read_everything(&mut self) {
        let mut at = self.world.log.log_start_offset().0;
        while at < self.end() {
            self.read(at, self.end(), 1_500);
            at = self.known.iter().find(|known| known.last >= at).unwrap().last + 1;
        }
    }

    fn read(&mut self, offset: i64, upper: i64, max_bytes: u32) {
        let outcome = self.world.read(offset, upper, max_bytes, true);
        if outcome == ReadOutcome::OutOfRange {
            // While the read waited, a retention that had waited for the name of a segment went on.
            assert!(offset < self.world.log.log_start_offset().0, "records above the log's start can be read");
            return;
        }
        // More may have been written while the read waited.
        let upper = upper.min(self.world.log.written_offset().0);
        let first = self.known.iter().position(|known| known.last >= offset);
        let Some(first) = first.filter(|first| offset < upper && self.known[*first].last < upper) else {
            assert_eq!(outcome, ReadOutcome::AtEnd, "{offset} below {upper}");
            return;
        };
        if outcome == ReadOutcome::AtEnd {
            assert!(!self.world.queue.is_empty() || upper <= offset, "written records can be read");
            return;
        }
        let (base, bytes) = self.world.bytes(outcome);
        assert_eq!(base, self.known[first].base);
        let mut at = 0;
        for known in &self.known[first..] {
            if at == bytes.len() {
                break;
            }
            assert_eq!(bytes[at..at + known.bytes.len()], known.bytes, "the records at {}", known.base);
            at += known.bytes.len();
            assert!(known.last < upper);
        }
        assert_eq!(at, bytes.len(), "the slice consists of whole batches");
        assert!(bytes.len() <= max_bytes as usize || bytes.len() == self.known[first].bytes.len());
    }

    fn lookup(&mut self, timestamp: i64) {
        self.world.run();
        let start = self.world.log.log_start_offset().0;
        let records = || {
            self.known.iter().flat_map(|known| {
                known.timestamps.iter().enumerate().map(|(place, time)| (known.base + place as i64, *time))
            })
        };
        let live = || records().filter(|(offset, _)| *offset >= start);
        let expected = live().find(|(_, time)| *time >= timestamp);
        let max = live().map(|(_, time)| time).max().filter(|max| *max >= 0);
        let expected_max = max.and_then(|max| live().find(|(_, time)| *time == max));
        if timestamp >= 0 {
            let found = self.world.lookup(LookupTarget::FirstAt(timestamp));
            assert_eq!(found.map(|found| (found.offset.0, found.timestamp)), expected);
        }
        // As in Kafka, records below the log's start still count for the greatest timestamp of their segment.
        if self.known.iter().all(|known| known.base >= start) {
            let found = self.world.lookup(LookupTarget::MaxTimestamp);
            assert_eq!(found.map(|found| (found.offset.0, found.timestamp)), expected_max);
        }
    }
}

/// Asserts that each entry of the index files on the disk names a batch of the log file, as Kafka's `DumpLogSegments`
/// does.
pub fn check_indexes(world: &World) {
    let names: Vec<String> = world.disk.names().iter().map(|name| name.to_string()).collect();
    for name in names {
        let file = name.strip_prefix(NAME).unwrap().trim_start_matches('/');
        let ParsedFile::Segment { offset: base, kind: FileKind::Log, stage: names::FileStage::Live } =
            ParsedFile::parse(file)
        else {
            continue;
        };
        let log = world.file(file).unwrap();
        let batches: Vec<_> = Scan::new(log, 0, true).map(|batch| (batch.position, batch.header)).collect();
        let bounds = IndexBounds { log_bytes: log.len() as u64, next_base: None };
        let bytes_max = world.settings.segment_index_bytes;
        let content = world.file(&names::segment_file(base, FileKind::OffsetIndex)).unwrap();
        for entry in OffsetIndex::decode(base, bytes_max, content, bounds).unwrap().iter() {
            let named = |(position, header): &(u64, tidelog_batch::BatchHeader)| {
                *position == u64::from(entry.position) && header.last_offset() == entry.offset
            };
            assert!(batches.iter().any(named), "{entry:?} in {file}");
        }
        let content = world.file(&names::segment_file(base, FileKind::TimeIndex)).unwrap();
        let times = TimeIndex::decode(base, bytes_max, content, bounds).unwrap();
        for entry in times.iter() {
            let named = |(_, header): &(u64, tidelog_batch::BatchHeader)| {
                header.last_offset() == entry.offset && header.max_timestamp == entry.timestamp
            };
            assert!(batches.iter().any(named), "{entry:?} in {file}");
        }
        let largest = batches.iter().map(|(_, header)| header.max_timestamp).max().filter(|max| *max >= 0);
        assert_eq!(times.last().map(|entry| entry.timestamp), largest, "{file}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_synced_record_is_lost_and_every_record_is_read_as_it_was_appended(
        actions in prop::collection::vec(action(), 1..80),
        seed in any::<u64>(),
    ) {
        let settings = LogSettings { retention_bytes: 3_000, file_delete_delay_ms: 500, ..small_segments() };
        let mut world = World::new(settings);
        world.random = ChaCha8Rng::seed_from_u64(seed);
        let mut checked = Checked {
            world,
            known: Vec::new(),
            sequences: Default::default(),
            recovery_point: Offset(0),
            log_start: Offset(0),
        };
        for action in &actions {
            checked.apply(action);
        }
        checked.world.run();
        prop_assert!(checked.world.log.is_open());
        checked.read_everything();
        checked.apply(&Action::Close);
        checked.read_everything();
    }
}
