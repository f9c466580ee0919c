//! Tests of reads and look-ups in inactive segments, which are intact, compacted or damaged, and of retention.

use super::*;
use crate::io::{DiskPath, IoId, IoOwner};
use names::FileKind;

/// How many batches of three records an inactive segment has.
const BATCHES: usize = 5;
/// The end offset of a log with two inactive segments and one batch in the active one.
const END: i64 = 33;

pub fn path(base: i64, kind: FileKind) -> String {
    format!("{NAME}/{}", names::segment_file(Offset(base), kind))
}

/// Puts a file into the log's directory.
pub fn put(world: &mut World, name: &str, content: &[u8]) {
    let path = DiskPath { dir: LogDirId(0), path: format!("{NAME}/{name}") };
    let op = IoOp::Replace { path, content: content.to_vec().into() };
    let id = IoId { owner: IoOwner::Log(LogId(0)), seq: 0 };
    world.disk.execute(IoCommand { id, op }).result.unwrap();
}

pub fn close(world: &mut World) {
    world.run();
    world.log.close(&mut world.out);
    world.take_out();
    world.run();
    assert_eq!(world.log.state(), &LogState::Closed);
}

/// A log of three segments, with batches of three records of `size` bytes. It is closed, then `change` is called with
/// the size of a batch, then it is loaded again. Returns the log and the size of a batch. `interval` is
/// `index.interval.bytes`.
fn old_segments(size: usize, interval: u32, change: impl FnOnce(&mut World, usize)) -> (World, usize) {
    let three = batch(&[1, 2, 3], size);
    let one = three.size_bytes();
    let mut world = World::new(LogSettings {
        segment_bytes: (BATCHES * one) as u32,
        index_interval_bytes: interval,
        retention_ms: -1,
        ..LogSettings::default()
    });
    while world.log.log_end_offset() < Offset(END) {
        world.append(&three).unwrap();
    }
    assert_eq!(world.log.segment_count(), 3);
    close(&mut world);
    change(&mut world, one);
    world.reload(LoadHints { clean: true, has_topic_id: true, ..LoadHints::default() });
    world.run();
    world.loaded();
    (world, one)
}

fn failed(outcome: ReadOutcome) -> String {
    let ReadOutcome::Failed(text) = outcome else { panic!("{outcome:?}") };
    assert!(text.starts_with(NAME), "{text}");
    text
}

#[test]
fn a_slice_of_an_inactive_segment_has_as_many_whole_batches_as_max_bytes_allows() {
    let (mut world, one) = old_segments(50, u32::MAX, |_, _| {});
    for first in 0..BATCHES {
        for (count, extra) in (1..=BATCHES).flat_map(|count| [(count, 0), (count, 5), (count, one - 1)]) {
            let outcome = world.read(3 * first as i64 + 1, END, (count * one + extra) as u32, false);
            let (base, bytes) = world.bytes(outcome);
            let whole = count.min(BATCHES - first);
            assert_eq!((base, bytes.len()), (3 * first as i64, whole * one), "room for {count} and {extra} bytes");
        }
    }
}

#[test]
fn an_upper_bound_within_an_inactive_segment_ends_the_slice_before_the_batch_that_holds_it() {
    // The larger batches do not fit into one region.
    for size in [50, 3_000] {
        let (mut world, one) = old_segments(size, u32::MAX, |_, _| {});
        for upper in 1..=3 * BATCHES {
            let outcome = world.read(0, upper as i64, u32::MAX, true);
            match upper / 3 {
                0 => assert_eq!(outcome, ReadOutcome::AtEnd),
                whole => assert_eq!(
                    world.bytes(outcome),
                    (0, world.file(&names::segment_file(Offset(0), FileKind::Log)).unwrap()[..whole * one].to_vec())
                ),
            }
        }
        for offset in 0..3 * BATCHES as i64 {
            let outcome = world.read(offset, END, 1, true);
            assert_eq!(world.bytes(outcome).0, offset / 3 * 3);
        }
    }
}

#[test]
fn an_upper_bound_within_the_tail_needs_no_io() {
    let mut world = World::new(LogSettings::default());
    for _ in 0..BATCHES {
        world.append(&batch(&[1, 2, 3], 50)).unwrap();
    }
    world.run();
    let outcome = world.log.read(Offset(0), Offset(9), u32::MAX, true, 1, &mut world.out);
    assert_eq!(world.bytes(outcome).1.len(), 3 * batch(&[1, 2, 3], 50).size_bytes());
}

#[test]
fn a_gap_that_compaction_left_within_a_segment_is_skipped() {
    let (mut world, one) = old_segments(50, u32::MAX, |world, one| {
        world.disk.damage(&path(0, FileKind::Log), |bytes| drop(bytes.drain(2 * one..3 * one)));
    });
    let outcome = world.read(7, END, u32::MAX, true);
    let (base, bytes) = world.bytes(outcome);
    assert_eq!((base, bytes.len()), (9, 2 * one));
}

#[test]
fn a_gap_that_compaction_left_at_the_end_of_a_segment_is_skipped() {
    let (mut world, one) = old_segments(50, u32::MAX, |world, one| {
        world.disk.damage(&path(0, FileKind::Log), |bytes| bytes.truncate((BATCHES - 1) * one));
    });
    let outcome = world.read(13, END, u32::MAX, true);
    let (base, bytes) = world.bytes(outcome);
    assert_eq!((base, bytes.len()), (15, BATCHES * one));
    let outcome = world.read(0, 14, u32::MAX, true);
    let (base, bytes) = world.bytes(outcome);
    assert_eq!((base, bytes.len()), (0, (BATCHES - 1) * one));
}

#[test]
fn a_read_in_a_gap_up_to_the_end_of_the_log_is_at_the_end() {
    let (mut world, _) = old_segments(50, u32::MAX, |world, one| {
        world.disk.damage(&path(15, FileKind::Log), |bytes| bytes.truncate((BATCHES - 1) * one));
        world.disk.damage(&path(30, FileKind::Log), Vec::clear);
    });
    assert_eq!(world.log.log_end_offset(), Offset(30));
    assert_eq!(world.read(28, 30, u32::MAX, true), ReadOutcome::AtEnd);
}

#[test]
fn a_damaged_header_whose_batch_seems_to_end_too_early_is_reported() {
    for interval in [u32::MAX, 0] {
        for damaged in 0..BATCHES - 1 {
            let (mut world, one) = old_segments(50, interval, |world, one| {
                world.disk.damage(&path(0, FileKind::Log), |bytes| {
                    // Sets the last offset delta to 0 and the number of records to 1.
                    bytes[damaged * one + 23..][..4].copy_from_slice(&0i32.to_be_bytes());
                    bytes[damaged * one + 57..][..4].copy_from_slice(&1i32.to_be_bytes());
                });
            });
            let text = failed(world.read(3 * damaged as i64 + 2, END, u32::MAX, true));
            assert!(text.ends_with(&format!("at position {}", damaged * one)), "{text}");
        }
    }
}

#[test]
fn the_batches_behind_a_batch_with_a_wrong_checksum_can_be_read() {
    let (mut world, one) = old_segments(50, u32::MAX, |world, one| {
        world.disk.damage(&path(0, FileKind::Log), |bytes| bytes[2 * one - 1] ^= 1);
    });
    let outcome = world.read(6, END, one as u32, true);
    assert_eq!(world.bytes(outcome).0, 6);
}

#[test]
fn an_incomplete_batch_in_an_inactive_segment_is_reported_and_the_batches_before_it_can_be_read() {
    let (mut world, one) = old_segments(50, u32::MAX, |world, one| {
        world.disk.damage(&path(0, FileKind::Log), |bytes| bytes.truncate((BATCHES - 1) * one + 20));
    });
    assert!(failed(world.read(13, END, u32::MAX, true)).contains("segment 0 cannot be read to its end"));
    let outcome = world.read(0, 14, u32::MAX, true);
    assert_eq!(world.bytes(outcome).1.len(), (BATCHES - 1) * one);
}

#[test]
fn a_batch_that_is_not_within_its_segment_is_reported() {
    let (mut world, one) = old_segments(50, u32::MAX, |world, one| {
        let at = (BATCHES - 1) * one;
        world.disk.damage(&path(0, FileKind::Log), |bytes| {
            bytes[at + 8..][..4].copy_from_slice(&(one as i32).to_be_bytes());
        });
        // The base offset is not covered by the checksum.
        world.disk.damage(&path(15, FileKind::Log), |bytes| bytes[..8].copy_from_slice(&14i64.to_be_bytes()));
    });
    let text = failed(world.read(13, END, u32::MAX, true));
    assert!(text.ends_with(&format!("at position {}", (BATCHES - 1) * one)), "{text}");
    let text = failed(world.read(15, END, u32::MAX, true));
    assert!(text.ends_with("at position 0"), "{text}");
}

#[test]
fn after_reading_all_segments_only_few_indexes_are_in_memory() {
    let mut world = World::new(small_segments());
    while world.log.segment_count() < 30 {
        world.append(&batch(&[1], 100)).unwrap();
    }
    world.close_and_reload();
    let end = world.log.log_end_offset().0;
    for offset in 0..end {
        world.read(offset, end, 1, true);
    }
    let in_memory = world.log.segments.iter().filter(|segment| segment.indexes.is_some()).count();
    assert!(in_memory <= 5, "{in_memory}");
}

/// A log with one batch for each timestamp, and four batches in a segment. The three records of a batch have the
/// timestamp, and one and two milliseconds more.
fn timed(timestamps: &[i64]) -> World {
    let size = batch(&[100_000; 3], 2_000).size_bytes();
    let mut world = World::new(LogSettings {
        segment_bytes: 4 * size as u32,
        index_interval_bytes: u32::MAX,
        retention_ms: -1,
        ..LogSettings::default()
    });
    for timestamp in timestamps {
        world.append(&batch(&[*timestamp, timestamp + 1, timestamp + 2], 2_000)).unwrap();
    }
    world
}

#[test]
fn a_look_up_finds_the_first_record_at_or_after_the_timestamp_in_any_segment() {
    let times: Vec<i64> = (0..13).map(|batch| 100_000 + 10 * batch).collect();
    for reloaded in [false, true] {
        let mut world = timed(&times);
        world.run();
        if reloaded {
            world.close_and_reload();
        }
        for target in 100_000..100_125 {
            let (whole, rest) = ((target - 100_000) / 10, (target - 100_000) % 10);
            let expected = if rest <= 2 { 3 * whole + rest } else { 3 * (whole + 1) };
            let found = world.lookup(LookupTarget::FirstAt(target)).map(|found| found.offset.0);
            assert_eq!(found, Some(expected).filter(|offset| *offset < 39), "{target}");
        }
        let found = world.lookup(LookupTarget::MaxTimestamp).unwrap();
        assert_eq!((found.offset, found.timestamp, found.leader_epoch), (Offset(38), 100_122, EPOCH));
    }
}

#[test]
fn the_greatest_timestamp_is_that_of_the_first_record_that_has_it() {
    for reloaded in [false, true] {
        let mut world = timed(&[100_000, 100_300, 100_100, 100_000, 100_000, 100_300, 100_300, 100_001, 100_000]);
        world.run();
        if reloaded {
            world.close_and_reload();
        }
        let found = world.lookup(LookupTarget::MaxTimestamp).unwrap();
        assert_eq!((found.offset, found.timestamp), (Offset(5), 100_302));
        assert_eq!(world.lookup(LookupTarget::FirstAt(100_303)), None);
    }
}

#[test]
fn a_log_without_timestamps_has_no_greatest_one() {
    let mut world = World::new(LogSettings::default());
    world.append(&batch(&[-1, -1], 10)).unwrap();
    world.run();
    assert_eq!(world.lookup(LookupTarget::MaxTimestamp), None);
    assert_eq!(world.lookup(LookupTarget::FirstAt(0)), None);
}

#[test]
fn a_look_up_does_not_find_deleted_records() {
    let times: Vec<i64> = (0..13).map(|batch| 100_000 + 10 * batch).collect();
    for start in 1..39 {
        let mut world = timed(&times);
        world.run();
        assert!(world.log.delete_records(Offset(start), &mut world.out));
        world.take_out();
        let found = world.lookup(LookupTarget::FirstAt(100_000)).unwrap();
        assert_eq!((found.offset.0, found.timestamp), (start, 100_000 + start / 3 * 10 + start % 3));
    }
    // The only record at or after the timestamp lies below the log's start.
    let mut world = timed(&[100_500, 100_000]);
    world.run();
    assert!(world.log.delete_records(Offset(3), &mut world.out));
    world.take_out();
    assert_eq!(world.lookup(LookupTarget::FirstAt(100_400)), None);
    // There is another such record, in a later segment.
    let mut world = timed(&[100_000, 100_000, 100_000, 100_500, 100_000, 100_450]);
    world.run();
    assert!(world.log.delete_records(Offset(12), &mut world.out));
    world.take_out();
    assert_eq!(world.lookup(LookupTarget::FirstAt(100_400)).unwrap().offset, Offset(15));
}

fn failed_lookup(world: &mut World, target: LookupTarget) -> String {
    assert_eq!(world.log.offset_for_timestamp(target, 5, &mut world.out), Lookup::Pending);
    world.take_out();
    world.events.clear();
    assert!((0..1_000).any(|_| !world.step()), "the look-up does not end");
    match &world.events[..] {
        [LogEvent::LookupDone { token: 5, found: Err(text) }] => {
            assert!(text.starts_with(NAME), "{text}");
            text.clone()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_look_up_that_meets_a_damaged_batch_fails_and_names_its_position() {
    let (mut world, one) = old_segments(50, u32::MAX, |_, _| {});
    world.disk.damage(&path(0, FileKind::Log), |bytes| bytes[one - 1] ^= 1);
    let text = failed_lookup(&mut world, LookupTarget::FirstAt(2));
    assert!(text.contains("segment 0 cannot be read at position 0: "), "{text}");

    let (mut world, _) = old_segments(50, u32::MAX, |_, _| {});
    world.disk.damage(&path(0, FileKind::Log), |bytes| bytes[16] = 1);
    let text = failed_lookup(&mut world, LookupTarget::FirstAt(2));
    assert!(text.contains("at position 0"), "{text}");

    // The batch reaches past the end of its segment.
    let (mut world, _) = old_segments(50, u32::MAX, |_, _| {});
    world.disk.damage(&path(0, FileKind::Log), |bytes| bytes[8..12].copy_from_slice(&1_000_000i32.to_be_bytes()));
    let text = failed_lookup(&mut world, LookupTarget::FirstAt(2));
    assert!(text.ends_with("segment 0 cannot be read at position 0"), "{text}");

    // The second batch is incomplete, and may be the one that holds the record.
    let (mut world, one) = old_segments(50, u32::MAX, |world, one| {
        world.disk.damage(&path(0, FileKind::Log), |bytes| {
            bytes.truncate(one + 20);
            // The greatest timestamp of the first batch is too low.
            bytes[35..43].copy_from_slice(&1i64.to_be_bytes());
        });
    });
    assert!(one > 20);
    let text = failed_lookup(&mut world, LookupTarget::FirstAt(3));
    assert!(text.ends_with("segment 0 cannot be read to its end"), "{text}");
}

/// Enforces retention, and carries out all commands.
fn retain(world: &mut World, high_watermark: i64) {
    world.log.enforce_retention(world.now, Offset(high_watermark), &mut world.out);
    world.take_out();
    world.run();
}

/// A log with segments at 0, 15 and 30. `settings` is called with the size of the log, and the size of each of the
/// first two segments.
fn three_segments(settings: impl FnOnce(u64, u64) -> LogSettings) -> (World, LogSettings) {
    let (mut world, one) = old_segments(50, u32::MAX, |_, _| {});
    let settings = settings(world.log.size_bytes(), (BATCHES * one) as u64);
    world.log.configure(settings.clone(), &mut world.out);
    (world, settings)
}

#[test]
fn retention_by_size_removes_a_segment_only_if_the_rest_is_not_smaller_than_the_limit() {
    for (missing, start) in [(0, 15), (1, 0)] {
        let (mut world, _) = three_segments(|log, segment| LogSettings {
            retention_bytes: (log - segment) as i64 + missing,
            retention_ms: -1,
            ..LogSettings::default()
        });
        retain(&mut world, END);
        assert_eq!(world.log.log_start_offset(), Offset(start));
    }
}

#[test]
fn segments_below_the_log_start_count_as_removed_by_size() {
    for (excess, start) in [(1, 15), (2, 30)] {
        let (mut world, _) = three_segments(|log, segment| LogSettings {
            retention_bytes: (log - excess * segment) as i64,
            retention_ms: -1,
            ..LogSettings::default()
        });
        assert!(world.log.delete_records(Offset(15), &mut world.out));
        retain(&mut world, END);
        assert_eq!(world.log.log_start_offset(), Offset(start));
    }
}

#[test]
fn what_retention_by_time_removes_counts_as_removed_by_size() {
    // Three segments of one batch each. The first is large and old, the others are fresh.
    let mut world = World::new(LogSettings { segment_bytes: 1_000, retention_ms: -1, ..LogSettings::default() });
    let fresh = world.now.wall.0;
    let batches = [batch(&[1], 700), batch(&[fresh], 300), batch(&[fresh], 700)];
    for batch in &batches {
        world.append(batch).unwrap();
    }
    world.run();
    assert_eq!(world.log.segment_count(), 3);
    // The log exceeds `retention.bytes` by the size of the second segment. The first is larger than that, so it leaves
    // for its age alone. Then the log is small enough.
    let retention_bytes = (world.log.size_bytes() - batches[1].size_bytes() as u64) as i64;
    let settings = LogSettings { retention_bytes, retention_ms: 1_000, ..LogSettings::default() };
    world.log.configure(settings, &mut world.out);
    retain(&mut world, 3);
    assert_eq!(world.log.log_start_offset(), Offset(1));
}

#[test]
fn retention_by_time_keeps_a_segment_of_exactly_the_allowed_age() {
    for (late, count) in [(0, 3), (1, 1)] {
        let (mut world, _) = three_segments(|_, _| LogSettings { retention_ms: 10_000, ..LogSettings::default() });
        world.now.wall = WallMs(3 + 10_000 + late);
        retain(&mut world, 30);
        assert_eq!(world.log.segment_count(), count);
    }
}

#[test]
fn records_without_timestamps_are_as_old_as_the_last_append_to_their_segment() {
    let mut world = World::new(LogSettings { retention_ms: 100, ..LogSettings::default() });
    for _ in 0..2 {
        world.pass(100);
        world.append(&batch(&[-1], 10)).unwrap();
        world.run();
    }
    assert_eq!(world.log.segment_count(), 1);
    world.pass(100);
    retain(&mut world, 2);
    assert_eq!(world.log.log_start_offset(), Offset(0));
    world.pass(1);
    retain(&mut world, 2);
    assert_eq!(world.log.log_start_offset(), Offset(2));
}

#[test]
fn a_restart_does_not_make_records_without_timestamps_younger() {
    let mut world = World::new(LogSettings { retention_ms: 100, ..LogSettings::default() });
    world.append(&batch(&[-1], 10)).unwrap();
    world.run();
    world.pass(100);
    world.close_and_reload();
    retain(&mut world, 1);
    assert_eq!(world.log.log_start_offset(), Offset(0));
    world.pass(1);
    retain(&mut world, 1);
    assert_eq!(world.log.log_start_offset(), Offset(1));
}

#[test]
fn records_without_timestamps_are_as_old_as_the_last_cut_of_their_segment() {
    let mut world = World::new(LogSettings { retention_ms: 100, ..LogSettings::default() });
    world.append(&batch(&[-1], 10)).unwrap();
    world.run();
    world.disk.damage(&path(0, FileKind::Log), |bytes| bytes.extend([7; 20]));
    world.pass(1_000);
    world.reload(LoadHints { has_topic_id: true, ..LoadHints::default() });
    world.run();
    world.loaded();
    assert_eq!(world.log.recovery().cut_bytes, 20);
    world.pass(100);
    retain(&mut world, 1);
    assert_eq!(world.log.log_start_offset(), Offset(0));
    world.pass(1);
    retain(&mut world, 1);
    assert_eq!(world.log.log_start_offset(), Offset(1));
}

#[test]
fn records_with_the_timestamp_zero_are_old() {
    let mut world = World::new(LogSettings { retention_ms: 100, ..LogSettings::default() });
    world.append(&batch(&[0], 10)).unwrap();
    world.run();
    retain(&mut world, 1);
    assert_eq!(world.log.log_start_offset(), Offset(1));
}

#[test]
fn a_segment_is_removed_only_when_all_of_it_is_below_the_high_watermark() {
    for (high_watermark, start) in [(14, 0), (15, 15), (29, 15), (30, 30)] {
        let (mut world, _) = three_segments(|_, _| LogSettings { retention_bytes: 0, ..LogSettings::default() });
        retain(&mut world, high_watermark);
        assert_eq!(world.log.log_start_offset(), Offset(start));
    }
}

#[test]
fn without_the_policy_delete_only_segments_below_the_log_start_are_removed() {
    let settings =
        LogSettings { delete_retention: false, retention_ms: 0, retention_bytes: 0, ..LogSettings::default() };
    let (mut world, _) = three_segments(|_, _| settings);
    retain(&mut world, END);
    assert_eq!(world.log.segment_count(), 3);
    assert!(world.log.delete_records(Offset(16), &mut world.out));
    retain(&mut world, END);
    assert_eq!((world.log.segment_count(), world.log.log_start_offset()), (2, Offset(16)));
}

#[test]
fn retention_does_not_change_an_empty_log() {
    let mut world = World::new(LogSettings { retention_ms: 0, retention_bytes: 0, ..LogSettings::default() });
    world.run();
    world.pass(1_000);
    retain(&mut world, 0);
    assert_eq!((world.log.segment_count(), world.log.log_end_offset()), (1, Offset(0)));
}

#[test]
fn the_last_segment_is_removed_only_when_the_name_of_the_next_one_is_stable() {
    let mut world = World::new(LogSettings { retention_ms: 10, ..LogSettings::default() });
    world.append(&batch(&[1], 10)).unwrap();
    world.run();
    world.log.enforce_retention(world.now, Offset(1), &mut world.out);
    world.take_out();
    assert_eq!((world.log.segment_count(), world.log.log_start_offset()), (2, Offset(0)));
    world.run();
    assert_eq!((world.log.segment_count(), world.log.log_start_offset()), (1, Offset(1)));
}

#[test]
fn a_damaged_segment_is_not_removed_by_time() {
    let (mut world, one) = old_segments(50, u32::MAX, |world, one| {
        world.disk.remove(&path(0, FileKind::OffsetIndex));
        world.disk.damage(&path(0, FileKind::Log), |bytes| bytes[one + 16] = 1);
    });
    world.log.configure(LogSettings { retention_ms: 1, ..LogSettings::default() }, &mut world.out);
    retain(&mut world, END);
    assert!(one > 0 && world.told.iter().any(|text| text.contains("is damaged at position")));
    assert_eq!(world.log.log_start_offset(), Offset(0));
}

#[test]
fn the_snapshots_of_removed_segments_are_removed_and_the_newest_one_stays() {
    let snapshots = |world: &World| {
        let names = world.disk.names();
        names.iter().filter(|name| name.ends_with(".snapshot")).map(|name| name.to_string()).collect::<Vec<_>>()
    };
    let mut world = World::new(LogSettings { retention_bytes: 2_500, file_delete_delay_ms: 500, ..small_segments() });
    for sequence in 0..60 {
        world.append(&idempotent(9, sequence * 3, 3)).unwrap();
    }
    world.run();
    let before = snapshots(&world);
    retain(&mut world, 180);
    let start = world.log.log_start_offset();
    assert!(start > Offset(0) && world.log.segment_count() > 1);
    world.pass(499);
    world.run();
    assert_eq!(snapshots(&world), before);
    world.pass(1);
    world.run();
    let expected: Vec<_> =
        before.iter().filter(|name| **name >= path(start.0, FileKind::ProducerSnapshot)).cloned().collect();
    assert!(expected.len() > 1 && expected.len() < before.len());
    assert_eq!(snapshots(&world), expected);
    // The snapshot of a log from which all segments are removed stays.
    world.log.configure(LogSettings { retention_bytes: 0, retention_ms: -1, ..small_segments() }, &mut world.out);
    world.log.enforce_retention(world.now, Offset(180), &mut world.out);
    world.take_out();
    world.run();
    world.pass(1_000);
    world.run();
    assert_eq!(snapshots(&world), [path(180, FileKind::ProducerSnapshot)]);
}

#[test]
fn all_files_of_a_removed_segment_are_unlinked() {
    let (mut world, _) = three_segments(|log, segment| LogSettings {
        retention_bytes: (log - segment) as i64,
        retention_ms: -1,
        file_delete_delay_ms: 0,
        ..LogSettings::default()
    });
    put(&mut world, &names::segment_file(Offset(0), FileKind::TransactionIndex), b"aborted");
    retain(&mut world, END);
    world.pass(0);
    world.run();
    let left = world.disk.names().iter().filter(|name| name.contains("/00000000000000000000.")).count();
    assert_eq!(left, 0, "{:?}", world.disk.names());
    assert!(world.told.is_empty(), "{:?}", world.told);
}
