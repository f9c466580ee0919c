//! Tests of a log on a disk that can crash.

use super::log::PART;
use super::test_disk::TestDisk;
use super::*;
use crate::io::{IoCommand, IoOp, Level, Outbox, Output};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::VecDeque;
use tidelog_batch::{BatchBuilder, BatchLimits, CheckedBatch, Scan, check_produced};
use tidelog_config::plant::Plants;
use tidelog_wire::ids::{LeaderEpoch, LogDirId, LogId, Offset, ProducerId, Uuid};
use tidelog_wire::time::{Mono, Now, WallMs};

mod append;
mod indexes;
mod life;
mod model;
mod reads;
mod recovery;

const NAME: &str = "topic-0";
const EPOCH: LeaderEpoch = LeaderEpoch(3);

/// One log on one disk, which can be loaded again and again.
struct World {
    disk: TestDisk,
    log: Log,
    out: Outbox,
    queue: VecDeque<IoCommand>,
    events: Vec<LogEvent>,
    /// The texts of the events for operators at `Warn` and above.
    told: Vec<String>,
    now: Now,
    settings: LogSettings,
    plants: Plants,
    /// How often the log was loaded.
    loads: u32,
    random: ChaCha8Rng,
}

fn place() -> LogPlace {
    LogPlace { dir: LogDirId(0), name: NAME.into(), topic_id: Uuid::from_bytes([7; 16]) }
}

fn small_segments() -> LogSettings {
    LogSettings {
        segment_bytes: 1_000,
        index_interval_bytes: 150,
        segment_index_bytes: 200,
        retention_ms: -1,
        file_delete_delay_ms: 1_000,
        ..LogSettings::default()
    }
}

impl World {
    fn new(settings: LogSettings) -> Self {
        Self::with_plants(settings, Plants::default())
    }

    fn with_plants(settings: LogSettings, plants: Plants) -> Self {
        let now = Now { mono: Mono(1), wall: WallMs(1_000_000) };
        let mut out = Outbox::default();
        let log = Log::create(LogId(0), place(), settings.clone(), plants, now, &mut out);
        let random = ChaCha8Rng::seed_from_u64(1);
        let mut world = Self {
            disk: TestDisk::default(),
            log,
            out,
            queue: VecDeque::new(),
            events: Vec::new(),
            told: Vec::new(),
            now,
            settings,
            plants,
            loads: 0,
            random,
        };
        world.take_out();
        world
    }

    fn take_out(&mut self) {
        for output in self.out.outputs.drain(..) {
            match output {
                Output::Io(command) => self.queue.push_back(command),
                Output::Event(event) => {
                    assert_eq!(event.part, PART);
                    if event.level >= Level::Warn {
                        self.told.push(event.text);
                    }
                }
                other => panic!("a log does not emit {other:?}"),
            }
        }
    }

    /// Carries out one command: the next one of the queue, or a read that overtakes it. False if there is none.
    fn step(&mut self) -> bool {
        let reads: Vec<usize> =
            (0..self.queue.len()).filter(|at| matches!(self.queue[*at].op, IoOp::Read { .. })).collect();
        let at = match reads.is_empty() || self.random.random_range(0..2) == 0 {
            true => 0,
            false => reads[self.random.random_range(0..reads.len())],
        };
        let Some(command) = self.queue.remove(at) else { return false };
        self.disk.wall = self.now.wall;
        let completion = self.disk.execute(command);
        self.log.handle_io(self.now, completion, &mut self.out, &mut self.events);
        self.take_out();
        self.log.verify();
        true
    }

    fn run(&mut self) {
        while self.step() {}
    }

    fn pass(&mut self, ms: i64) {
        self.now.mono = self.now.mono.plus_ms(ms);
        self.now.wall.0 += ms;
        self.log.tick(self.now, &mut self.out);
        self.take_out();
    }

    /// Appends so many batches of one record without a producer.
    fn append_plain(&mut self, count: usize) {
        for _ in 0..count {
            let batch = plain(self);
            self.append(&batch).unwrap();
        }
    }

    fn append(&mut self, batch: &CheckedBatch) -> Result<Appended, AppendError> {
        let appended = self.log.append(self.now, Append::Produced(batch), EPOCH, &mut self.out);
        self.take_out();
        self.log.verify();
        appended
    }

    /// Loads the log again. The commands in the queue are dropped.
    fn reload(&mut self, hints: LoadHints) {
        self.queue.clear();
        self.events.clear();
        self.loads += 1;
        let id = LogId(self.loads);
        self.log = Log::load(id, place(), self.settings.clone(), self.plants, hints, &mut self.out);
        self.take_out();
    }

    fn crash(&mut self) {
        let mut random = self.random.clone();
        self.disk.crash(&mut random);
        self.random = random;
        self.queue.clear();
    }

    fn close_and_reload(&mut self) {
        self.run();
        self.events.clear();
        let start = self.log.log_start_offset();
        self.log.close(&mut self.out);
        self.take_out();
        self.run();
        assert_eq!(self.events, [LogEvent::Closed]);
        let point = self.log.synced_offset();
        assert_eq!(point, self.log.log_end_offset());
        self.reload(LoadHints { clean: true, recovery_point: Some(point), log_start: Some(start), has_topic_id: true });
        self.run();
        self.loaded();
    }

    fn loaded(&mut self) {
        assert_eq!(self.events, [LogEvent::Loaded], "{:?} {:?}", self.log.state(), self.told);
        self.log.verify();
    }

    fn read(&mut self, offset: i64, upper: i64, max_bytes: u32, one: bool) -> ReadOutcome {
        let outcome = self.log.read(Offset(offset), Offset(upper), max_bytes, one, 77, &mut self.out);
        self.take_out();
        if outcome != ReadOutcome::Pending {
            return outcome;
        }
        for _ in 0..10_000 {
            assert!(self.step(), "a pending read is answered");
            let done = self.events.iter().position(|event| matches!(event, LogEvent::ReadDone { .. }));
            if let Some(place) = done {
                let LogEvent::ReadDone { token: 77, outcome } = self.events.remove(place) else { panic!() };
                return outcome;
            }
        }
        panic!("the read does not end");
    }

    fn bytes(&self, outcome: ReadOutcome) -> (i64, Vec<u8>) {
        let ReadOutcome::Found(found) = outcome else { panic!("{outcome:?}") };
        let bytes = self.disk.slice(found.slice.file, found.slice.position, found.slice.len);
        (found.base_offset.0, bytes.to_vec())
    }

    fn lookup(&mut self, target: LookupTarget) -> Option<TimestampedOffset> {
        match self.log.offset_for_timestamp(target, 78, &mut self.out) {
            Lookup::Found(found) => return found,
            Lookup::Pending => self.take_out(),
            Lookup::Failed(why) => panic!("{why}"),
        }
        for _ in 0..10_000 {
            assert!(self.step(), "a pending look-up is answered");
            let done = self.events.iter().position(|event| matches!(event, LogEvent::LookupDone { .. }));
            if let Some(place) = done {
                let LogEvent::LookupDone { token: 78, found } = self.events.remove(place) else { panic!() };
                return found.unwrap();
            }
        }
        panic!("the look-up does not end");
    }

    fn file(&self, name: &str) -> Option<&[u8]> {
        self.disk.content(&format!("{NAME}/{name}"))
    }
}

fn batch(timestamps: &[i64], size: usize) -> CheckedBatch {
    let mut builder = BatchBuilder::new();
    for timestamp in timestamps {
        builder.push(*timestamp, None, Some(&vec![*timestamp as u8; size]), &[]);
    }
    check_produced(builder.build(), &BatchLimits::default()).unwrap()
}

fn idempotent(producer: i64, sequence: i32, records: usize) -> CheckedBatch {
    let mut builder = BatchBuilder::new().producer(ProducerId(producer), 0, sequence);
    for _ in 0..records {
        builder.push(5, None, Some(b"x"), &[]);
    }
    check_produced(builder.build(), &BatchLimits::default()).unwrap()
}

fn plain(world: &World) -> CheckedBatch {
    batch(&[world.now.wall.0], 100)
}

#[test]
fn an_append_is_acknowledged_once_it_is_on_stable_storage() {
    let mut world = World::new(LogSettings::default());
    world.run();
    let appended = world.append(&batch(&[1, 2, 3], 10)).unwrap();
    assert_eq!((appended.base_offset, appended.last_offset), (Offset(0), Offset(2)));
    assert_eq!(world.log.log_end_offset(), Offset(3));
    while world.log.written_offset() == Offset(0) {
        assert!(world.step());
    }
    assert_eq!(world.log.stable_offset(), Offset(0));
    world.run();
    assert_eq!(world.log.stable_offset(), Offset(3));
}

#[test]
fn without_require_fsync_written_records_are_stable_and_nothing_is_synced() {
    let mut world = World::new(LogSettings { require_fsync: false, ..LogSettings::default() });
    world.run();
    let syncs = world.disk.syncs;
    world.append(&batch(&[1, 2, 3], 10)).unwrap();
    world.run();
    assert_eq!((world.log.stable_offset(), world.log.synced_offset()), (Offset(3), Offset(0)));
    assert_eq!(world.disk.syncs, syncs);
    world.log.flush(&mut world.out);
    world.take_out();
    world.run();
    assert_eq!(world.log.synced_offset(), Offset(3));
}

#[test]
fn the_log_is_synced_after_flush_ms_and_after_flush_messages() {
    let relaxed = LogSettings { require_fsync: false, flush_ms: 50, flush_messages: 3, ..LogSettings::default() };
    let mut world = World::new(relaxed);
    world.append(&batch(&[1], 10)).unwrap();
    world.run();
    assert_eq!(world.log.synced_offset(), Offset(0));
    assert_eq!(world.log.deadline(), Some(world.now.mono.plus_ms(50)));
    world.pass(50);
    world.run();
    assert_eq!(world.log.synced_offset(), Offset(1));
    world.append(&batch(&[1, 2, 3], 10)).unwrap();
    world.run();
    assert_eq!(world.log.synced_offset(), Offset(4));
}

#[test]
fn one_sync_covers_all_batches_appended_while_another_was_in_flight() {
    let mut world = World::new(LogSettings::default());
    world.run();
    let syncs = world.disk.syncs;
    for _ in 0..100 {
        world.append(&batch(&[1], 10)).unwrap();
    }
    world.run();
    assert_eq!(world.log.stable_offset(), Offset(100));
    assert_eq!(world.disk.syncs - syncs, 2, "one for the first, one for the rest");
}

#[test]
fn a_retry_of_an_idempotent_producer_gets_the_first_answer() {
    let mut world = World::new(LogSettings::default());
    let first = world.append(&idempotent(9, 0, 2)).unwrap();
    world.append(&idempotent(9, 2, 1)).unwrap();
    let again = world.append(&idempotent(9, 0, 2)).unwrap();
    assert_eq!(again, Appended { duplicate: true, log_append_time: Some(WallMs(5)), ..first });
    assert_eq!(world.log.log_end_offset(), Offset(3));
    let error = world.append(&idempotent(9, 7, 1)).unwrap_err();
    assert_eq!(error.error_code(), tidelog_wire::ErrorCode::OutOfOrderSequenceNumber);
    world.close_and_reload();
    assert!(world.append(&idempotent(9, 2, 1)).unwrap().duplicate, "the last batch is known after a restart");
    assert!(!world.append(&idempotent(9, 3, 1)).unwrap().duplicate);
}

#[test]
fn a_slice_starts_with_the_batch_that_holds_the_offset_and_ends_below_the_bound() {
    for reloaded in [false, true] {
        let mut world = World::new(LogSettings::default());
        let sizes: Vec<usize> = (0..10).map(|_| world.append(&batch(&[1, 2, 3], 100)).unwrap()).map(|_| 0).collect();
        assert_eq!(sizes.len(), 10);
        world.run();
        if reloaded {
            world.close_and_reload();
        }
        let one = batch(&[1, 2, 3], 100).size_bytes();
        let outcome = world.read(4, 30, u32::MAX, true);
        let (base, bytes) = world.bytes(outcome);
        assert_eq!((base, bytes.len()), (3, 9 * one));
        let outcome = world.read(4, 12, u32::MAX, true);
        assert_eq!(world.bytes(outcome).1.len(), 3 * one);
        let outcome = world.read(4, 30, 2 * one as u32 + 5, true);
        assert_eq!(world.bytes(outcome).1.len(), 2 * one);
        let outcome = world.read(4, 30, 1, true);
        assert_eq!(world.bytes(outcome).1.len(), one);
        assert_eq!(world.read(4, 30, 1, false), ReadOutcome::NoRoom);
        assert_eq!(world.read(4, 5, 1_000, true), ReadOutcome::AtEnd, "the bound lies within the batch");
        assert_eq!(world.read(30, 30, 1_000, true), ReadOutcome::AtEnd);
        assert_eq!(world.read(31, 31, 1_000, true), ReadOutcome::OutOfRange);
        assert_eq!(world.read(-1, 31, 1_000, true), ReadOutcome::OutOfRange);
    }
}

#[test]
fn the_index_files_of_a_segment_name_its_batches() {
    let mut world = World::new(small_segments());
    for _ in 0..60 {
        let batch = plain(&world);
        world.append(&batch).unwrap();
        world.pass(1);
    }
    world.close_and_reload();
    assert!(world.log.segment_count() > 3);
    model::check_indexes(&world);
    // The greatest timestamp of a segment is found in its time index.
    let last = world.now.wall.0 - 1;
    assert_eq!(world.lookup(LookupTarget::MaxTimestamp).unwrap().timestamp, last);
    assert_eq!(world.lookup(LookupTarget::FirstAt(last - 30)).unwrap().offset, Offset(29));
}

#[test]
fn a_missing_index_is_rebuilt_when_it_is_needed() {
    let mut world = World::new(small_segments());
    for _ in 0..60 {
        let batch = plain(&world);
        world.append(&batch).unwrap();
        world.pass(1);
    }
    world.run();
    world.close_and_reload();
    let first = names::segment_file(Offset(0), names::FileKind::OffsetIndex);
    let expected = world.file(&first).unwrap().to_vec();
    assert!(!expected.is_empty());
    for damage in 0..3 {
        let path = format!("{NAME}/{first}");
        match damage {
            0 => world.disk.remove(&path),
            1 => world.disk.damage(&path, |bytes| bytes.truncate(5)),
            _ => world.disk.damage(&path, |bytes| bytes[7] ^= 0xff),
        }
        world.close_and_reload();
        let outcome = world.read(1, 60, 100, true);
        assert_eq!(world.bytes(outcome).0, 1);
        world.run();
        assert_eq!(world.file(&first).unwrap(), expected);
        assert!(world.told.pop().unwrap().contains("rebuilt"));
    }
}

#[test]
fn retention_by_time_and_by_size_drops_the_oldest_segments() {
    let by_time = LogSettings { retention_ms: 20, ..small_segments() };
    let by_size = LogSettings { retention_bytes: 2_500, ..small_segments() };
    for settings in [by_time, by_size] {
        for reloaded in [false, true] {
            let mut world = World::new(settings.clone());
            for _ in 0..60 {
                let batch = plain(&world);
                world.append(&batch).unwrap();
                world.pass(1);
            }
            world.run();
            if reloaded {
                world.close_and_reload();
            }
            let before = world.log.segment_count();
            world.log.enforce_retention(world.now, Offset(10), &mut world.out);
            world.take_out();
            world.run();
            assert!(world.log.log_start_offset() <= Offset(10), "records above the high watermark stay");
            world.log.enforce_retention(world.now, Offset(60), &mut world.out);
            world.take_out();
            world.run();
            assert!(world.log.segment_count() < before);
            assert!(world.log.log_start_offset() > Offset(10) && world.log.log_start_offset() < Offset(60));
            assert!(world.disk.names().iter().any(|name| name.ends_with(".log.deleted")));
            world.pass(1_000);
            world.run();
            assert!(!world.disk.names().iter().any(|name| name.ends_with(".deleted")));
            assert_eq!(world.read(0, 60, 100, true), ReadOutcome::OutOfRange);
            world.log.verify();
            assert_eq!(world.told, Vec::<String>::new());
        }
    }
}

#[test]
fn retention_that_removes_all_records_leaves_an_empty_log_at_the_same_end_offset() {
    let mut world = World::new(LogSettings { retention_ms: 10, ..small_segments() });
    let batch = plain(&world);
    world.append(&batch).unwrap();
    world.run();
    world.pass(100);
    world.log.enforce_retention(world.now, Offset(1), &mut world.out);
    world.take_out();
    world.run();
    assert_eq!((world.log.log_start_offset(), world.log.log_end_offset()), (Offset(1), Offset(1)));
    world.close_and_reload();
    assert_eq!((world.log.log_start_offset(), world.log.log_end_offset()), (Offset(1), Offset(1)));
}

#[test]
fn if_a_segments_file_cannot_be_renamed_the_segments_behind_it_stay() {
    let mut world = World::new(LogSettings { retention_bytes: 0, ..small_segments() });
    world.append_plain(30);
    world.run();
    let segments = world.log.segment_count();
    assert!(segments > 3);
    let second = world.disk.names().iter().filter(|name| name.ends_with(".log")).nth(1).unwrap().to_string();
    let base: i64 = second.rsplit('/').next().unwrap().trim_end_matches(".log").parse().unwrap();
    world.disk.fail_rename = Some(second);
    world.log.enforce_retention(world.now, Offset(30), &mut world.out);
    world.take_out();
    world.run();
    assert!(matches!(world.log.state(), LogState::Offline(_)));
    world.disk.fail_rename = None;
    world.reload(LoadHints::default());
    world.run();
    world.loaded();
    assert_eq!((world.log.log_start_offset(), world.log.log_end_offset()), (Offset(base), Offset(30)));
}

#[test]
fn deleted_records_cannot_be_read_and_the_next_retention_removes_their_segments() {
    let mut world = World::new(small_segments());
    world.append_plain(30);
    world.run();
    let before = world.log.segment_count();
    assert!(world.log.delete_records(Offset(20), &mut world.out));
    assert!(!world.log.delete_records(Offset(19), &mut world.out));
    world.take_out();
    assert_eq!(world.read(19, 30, 100, true), ReadOutcome::OutOfRange);
    world.log.enforce_retention(world.now, Offset(30), &mut world.out);
    world.take_out();
    world.run();
    assert!(world.log.segment_count() < before);
    assert_eq!(world.log.log_start_offset(), Offset(20));
    assert_eq!(world.log.epochs().earliest().unwrap().start_offset, Offset(20));
    world.close_and_reload();
    assert_eq!(world.log.log_start_offset(), Offset(20));
}

#[test]
fn a_failed_sync_takes_the_log_offline_and_nothing_is_appended_any_more() {
    let mut world = World::new(LogSettings::default());
    world.run();
    world.disk.fail_syncs = true;
    world.append(&batch(&[1], 10)).unwrap();
    world.run();
    assert!(matches!(world.log.state(), LogState::Offline(reason) if reason.contains("the device has failed")));
    assert!(matches!(&world.events[..], [LogEvent::Failed(_)]));
    assert_eq!(world.log.stable_offset(), Offset(0));
    let error = world.append(&batch(&[1], 10)).unwrap_err();
    assert_eq!(error.error_code(), tidelog_wire::ErrorCode::KafkaStorageError);
    assert!(matches!(world.read(0, 1, 100, true), ReadOutcome::Failed(_)));
}

#[test]
fn a_failed_write_takes_the_log_offline() {
    let mut world = World::new(LogSettings::default());
    world.run();
    world.disk.fail_writes = true;
    world.append(&batch(&[1], 10)).unwrap();
    world.run();
    assert!(matches!(world.log.state(), LogState::Offline(reason) if reason.contains("full")));
    assert_eq!(world.log.written_offset(), Offset(0));
}

/// A log of ten batches of one record, all of them synced.
fn ten_batches() -> World {
    let mut world = World::new(LogSettings::default());
    world.append_plain(10);
    world.run();
    world
}

#[test]
fn an_incomplete_batch_at_the_end_is_removed_wherever_it_is_cut() {
    let size = batch(&[1], 100).size_bytes();
    let log = format!("{NAME}/{}", names::segment_file(Offset(0), names::FileKind::Log));
    for cut in (0..2 * size).step_by(7) {
        let mut world = ten_batches();
        world.disk.damage(&log, |bytes| bytes.truncate(10 * size - cut));
        world.reload(LoadHints { recovery_point: Some(Offset(8)), ..LoadHints::default() });
        world.run();
        world.loaded();
        let kept = 10 - cut.div_ceil(size) as i64;
        assert_eq!(world.log.log_end_offset(), Offset(kept));
        assert_eq!(world.disk.content(&log).unwrap().len(), kept as usize * size);
        assert_eq!(world.told.len(), usize::from(cut % size != 0));
    }
}

#[test]
fn zeros_behind_the_last_batch_are_removed() {
    let log = format!("{NAME}/{}", names::segment_file(Offset(0), names::FileKind::Log));
    for clean in [false, true] {
        let mut world = ten_batches();
        let len = world.disk.content(&log).unwrap().len();
        world.log.close(&mut world.out);
        world.take_out();
        world.run();
        world.disk.damage(&log, |bytes| bytes.resize(len + 5_000, 0));
        world.reload(LoadHints { clean, ..LoadHints::default() });
        world.run();
        world.loaded();
        assert_eq!(world.log.log_end_offset(), Offset(10));
        assert_eq!(world.disk.content(&log).unwrap().len(), len);
    }
}

#[test]
fn damage_below_the_recovery_point_is_reported_and_nothing_is_cut() {
    let log = format!("{NAME}/{}", names::segment_file(Offset(0), names::FileKind::Log));
    let mut world = ten_batches();
    let len = world.disk.content(&log).unwrap().len();
    world.disk.damage(&log, |bytes| bytes[len / 2] ^= 1);
    world.reload(LoadHints { recovery_point: Some(Offset(10)), ..LoadHints::default() });
    world.run();
    assert!(matches!(world.log.state(), LogState::Offline(reason) if reason.contains("corrupt")));
    assert_eq!(world.disk.content(&log).unwrap().len(), len);
    assert!(world.told[0].contains("is corrupt at position"));
}

#[test]
fn lost_epochs_are_rebuilt_from_the_batches() {
    let one_segment = LogSettings { segment_bytes: 1 << 20, segment_index_bytes: 4_096, ..small_segments() };
    let contents = [None, Some(&b"no checkpoint"[..])];
    for (settings, content) in contents.into_iter().flat_map(|it| [(small_segments(), it), (one_segment.clone(), it)]) {
        let mut world = World::new(settings);
        for epoch in [3, 3, 4, 7, 7, 7, 7, 7, 7, 8] {
            let batch = plain(&world);
            let appended = world.log.append(world.now, Append::Produced(&batch), LeaderEpoch(epoch), &mut world.out);
            appended.unwrap();
        }
        world.take_out();
        world.run();
        let before = world.log.epochs().clone();
        world.log.close(&mut world.out);
        world.take_out();
        world.run();
        let path = format!("{NAME}/{}", names::LEADER_EPOCH_CHECKPOINT);
        match content {
            None => world.disk.remove(&path),
            Some(content) => world.disk.damage(&path, |bytes| *bytes = content.to_vec()),
        }
        world.reload(LoadHints { clean: true, ..LoadHints::default() });
        world.run();
        world.loaded();
        assert_eq!(world.log.epochs(), &before);
        assert_eq!(world.log.end_offset_for_epoch(LeaderEpoch(5)).end_offset, Offset(3));
        assert_eq!(world.disk.content(&path).unwrap(), &before.encode()[..]);
    }
}

#[test]
fn instead_of_a_corrupt_snapshot_an_older_one_is_used_and_the_batches_since() {
    let mut world = World::new(small_segments());
    for sequence in 0..40 {
        world.append(&idempotent(9, sequence, 1)).unwrap();
    }
    world.run();
    world.log.close(&mut world.out);
    world.take_out();
    world.run();
    let snapshots: Vec<String> =
        world.disk.names().iter().filter(|name| name.ends_with(".snapshot")).map(|name| name.to_string()).collect();
    assert!(snapshots.len() > 2, "{snapshots:?}");
    for damaged in 1..=snapshots.len() {
        let mut world = World { disk: world.disk.clone(), ..World::new(small_segments()) };
        world.loads = 1_000 + damaged as u32;
        for path in &snapshots[snapshots.len() - damaged..] {
            world.disk.damage(path, |bytes| *bytes.last_mut().unwrap() ^= 1);
        }
        world.reload(LoadHints { clean: true, ..LoadHints::default() });
        world.run();
        world.loaded();
        assert!(world.append(&idempotent(9, 39, 1)).unwrap().duplicate);
        assert!(!world.append(&idempotent(9, 40, 1)).unwrap().duplicate);
    }
}

#[test]
fn a_truncation_cuts_records_epochs_and_producer_state() {
    for at in [0, 3, 17, 18, 29, 30, 40] {
        let mut world = World::new(small_segments());
        for sequence in 0..30 {
            let batch = idempotent(9, sequence, 1);
            let epoch = LeaderEpoch(if sequence < 18 { 1 } else { 2 });
            world.log.append(world.now, Append::Produced(&batch), epoch, &mut world.out).unwrap();
        }
        world.take_out();
        world.log.truncate_to(Offset(at), &mut world.out);
        world.take_out();
        world.run();
        assert_eq!(world.events, [LogEvent::Truncated]);
        assert_eq!(world.log.log_end_offset(), Offset(at.min(30)));
        let epoch = if at == 0 {
            -1
        } else if at <= 18 {
            1
        } else {
            2
        };
        assert_eq!(world.log.latest_epoch(), LeaderEpoch(epoch), "cut to {at}");
        assert!(!world.append(&idempotent(9, at.min(30) as i32, 1)).unwrap().duplicate);
        world.close_and_reload();
        assert_eq!(world.log.log_end_offset(), Offset(at.min(30) + 1));
    }
}

#[test]
fn a_log_that_is_restarted_is_empty_and_begins_at_the_new_offset_whatever_a_crash_leaves() {
    for (steps, start) in (0..40).flat_map(|steps| [(steps, 10), (steps, 30), (steps, 70)]) {
        let mut world = World::new(small_segments());
        world.append_plain(30);
        world.run();
        world.log.restart_at(Offset(start), &mut world.out);
        world.take_out();
        let is_done = !(0..steps).all(|_| world.step());
        if is_done {
            assert_eq!(world.events, [LogEvent::Truncated]);
            assert_eq!(world.log.log_start_offset(), Offset(start));
            assert_eq!(world.log.latest_epoch(), LeaderEpoch::UNKNOWN);
        } else {
            world.disk.crash(&mut world.random);
            world.queue.clear();
            world.reload(LoadHints::default());
            world.run();
            // Whatever is left is shorter than the log was, or its first part, and can be restarted again.
            world.loaded();
            world.events.clear();
            world.log.restart_at(Offset(start), &mut world.out);
            world.take_out();
            world.run();
            assert_eq!(world.events, [LogEvent::Truncated]);
        }
        assert_eq!(world.log.log_end_offset(), Offset(start));
        world.append_plain(1);
        world.run();
        world.close_and_reload();
        assert_eq!((world.log.log_start_offset(), world.log.log_end_offset()), (Offset(start), Offset(start + 1)));
    }
}

#[test]
fn a_replicated_batch_keeps_its_offset_and_its_epoch() {
    let mut leader = World::new(small_segments());
    for epoch in [1, 1, 4] {
        let batch = plain(&leader);
        leader.log.append(leader.now, Append::Produced(&batch), LeaderEpoch(epoch), &mut leader.out).unwrap();
    }
    leader.take_out();
    leader.run();
    let file = leader.disk.content("topic-0/00000000000000000000.log").unwrap().to_vec();
    let mut follower = World::new(small_segments());
    for batch in Scan::new(&file, 0, true) {
        let bytes = bytes::Bytes::copy_from_slice(batch.bytes);
        follower.log.append(follower.now, Append::Replicated(&bytes), LeaderEpoch(5), &mut follower.out).unwrap();
    }
    follower.take_out();
    follower.run();
    assert_eq!(follower.disk.content("topic-0/00000000000000000000.log").unwrap(), file);
    assert_eq!(follower.log.epochs(), leader.log.epochs());
}

#[test]
fn the_directory_of_a_deleted_log_is_renamed_at_once_and_removed_after_the_delay() {
    let mut world = ten_batches();
    world.log.delete(world.now, Uuid::from_bytes([5; 16]), &mut world.out);
    world.take_out();
    world.run();
    assert!(world.file("partition.metadata").is_none());
    assert!(world.disk.names().iter().all(|name| name.starts_with(NAME) && name.contains("-delete/")));
    assert!(!world.disk.names().is_empty());
    world.pass(60_000);
    world.run();
    assert_eq!(world.events, [LogEvent::NameFreed, LogEvent::Deleted]);
    assert!(world.disk.names().is_empty());
}

#[test]
fn a_query_is_answered_even_if_the_log_is_truncated_closed_or_deleted_meanwhile() {
    for case in 0..3 {
        for steps in 0..4 {
            let mut world = World::new(small_segments());
            for _ in 0..30 {
                let batch = plain(&world);
                world.append(&batch).unwrap();
            }
            world.close_and_reload();
            world.events.clear();
            assert_eq!(world.log.read(Offset(2), Offset(30), 100, true, 1, &mut world.out), ReadOutcome::Pending);
            let lookup = world.log.offset_for_timestamp(LookupTarget::FirstAt(0), 2, &mut world.out);
            assert_eq!(lookup, Lookup::Pending);
            world.take_out();
            for _ in 0..steps {
                world.step();
            }
            match case {
                0 => world.log.truncate_to(Offset(20), &mut world.out),
                1 => world.log.close(&mut world.out),
                _ => assert!(!world.log.delete(world.now, Uuid::from_bytes([5; 16]), &mut world.out)),
            }
            world.take_out();
            world.run();
            let answered = |token| {
                let answers = |event: &&LogEvent| match event {
                    LogEvent::ReadDone { token: of, .. } | LogEvent::LookupDone { token: of, .. } => *of == token,
                    _ => false,
                };
                world.events.iter().filter(answers).count()
            };
            assert_eq!((answered(1), answered(2)), (1, 1), "case {case} after {steps}: {:?}", world.events);
            assert_eq!(world.log.deadline().is_some(), case == 2);
        }
    }
}

#[cfg(feature = "plants")]
mod plants {
    use super::*;
    use tidelog_config::plant::Plant;

    #[test]
    fn each_planted_bug_shows() {
        let planted = |plant| World::with_plants(LogSettings::default(), Plants::default().with(plant));

        let mut world = planted(Plant::AcknowledgeBeforeSync);
        world.append(&batch(&[1], 10)).unwrap();
        assert_eq!((world.log.stable_offset(), world.log.synced_offset()), (Offset(1), Offset(0)));

        let mut world = planted(Plant::SyncErrorIgnored);
        world.run();
        world.disk.fail_syncs = true;
        world.append(&batch(&[1], 10)).unwrap();
        world.run();
        assert_eq!((world.log.is_open(), world.log.stable_offset()), (true, Offset(1)));

        let mut world = planted(Plant::TornTailAccepted);
        for _ in 0..3 {
            world.append(&batch(&[1], 10)).unwrap();
        }
        world.run();
        let log = format!("{NAME}/{}", names::segment_file(Offset(0), names::FileKind::Log));
        world.disk.damage(&log, |bytes| bytes.truncate(bytes.len() - 5));
        world.reload(LoadHints::default());
        world.run();
        assert_eq!(world.log.log_end_offset(), Offset(3));
    }
}

#[test]
fn an_empty_log_costs_little_memory() {
    // On the heap there are also one segment, its empty indexes, and the name.
    assert!(size_of::<Log>() < 2_000, "{}", size_of::<Log>());
}

#[test]
fn a_log_without_a_topic_id_gets_it_when_it_is_loaded() {
    let mut world = ten_batches();
    let content = world.file(names::PARTITION_METADATA).map(<[u8]>::to_vec);
    assert!(content.is_some());
    world.disk.damage(&format!("{NAME}/partition.metadata"), Vec::clear);
    world.reload(LoadHints { has_topic_id: true, ..LoadHints::default() });
    world.run();
    assert_ne!(world.file(names::PARTITION_METADATA), content.as_deref(), "the hint says that the file is there");
    world.reload(LoadHints::default());
    world.run();
    assert_eq!(world.file(names::PARTITION_METADATA), content.as_deref());
}

#[test]
fn log_append_time_is_stamped_on_the_batch() {
    let mut world = World::new(LogSettings { log_append_time: true, ..LogSettings::default() });
    let appended = world.append(&batch(&[1, 2], 10)).unwrap();
    assert_eq!(appended.log_append_time, Some(world.now.wall));
    world.run();
    let outcome = world.read(0, 2, 1_000, true);
    let (_, bytes) = world.bytes(outcome);
    let stored = Scan::new(&bytes, 0, true).next().unwrap().header;
    assert_eq!(stored.max_timestamp, world.now.wall.0);
    let found = world.lookup(LookupTarget::FirstAt(5)).unwrap();
    assert_eq!((found.offset, found.timestamp), (Offset(0), world.now.wall.0));
}

#[test]
fn segments_roll_by_the_age_of_their_records() {
    let mut world = World::new(LogSettings { segment_ms: 100, ..LogSettings::default() });
    for timestamp in [1_000, 1_050, 1_100, 1_101, 1_150] {
        world.append(&batch(&[timestamp], 10)).unwrap();
    }
    assert_eq!(world.log.segment_count(), 2);
    world.run();
    assert!(world.file(&names::segment_file(Offset(3), names::FileKind::Log)).is_some());
}
