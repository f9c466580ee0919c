//! Tests of the indexes of inactive segments: when they are trusted, rebuilt, and dropped from memory.

use super::*;
use crate::names::{FileKind, segment_file};

/// A log of twelve segments of five batches of one record. It was closed and loaded again.
fn twelve_segments(settings: LogSettings) -> World {
    let mut world = World::new(settings);
    for _ in 0..60 {
        let batch = plain(&world);
        world.append(&batch).unwrap();
        world.pass(1);
    }
    world.close_and_reload();
    assert_eq!(world.log.segment_count(), 12);
    world
}

fn path_of(base: i64, kind: FileKind) -> String {
    format!("{NAME}/{}", segment_file(Offset(base), kind))
}

fn read_one(world: &mut World, offset: i64) -> i64 {
    let outcome = world.read(offset, 60, 100, true);
    world.bytes(outcome).0
}

#[test]
fn correct_indexes_are_trusted_even_if_they_are_longer_than_the_setting_allows_now() {
    for segment_index_bytes in [200, 16] {
        let mut world = twelve_segments(small_segments());
        world.settings.segment_index_bytes = segment_index_bytes;
        world.close_and_reload();
        for offset in 0..60 {
            assert_eq!(read_one(&mut world, offset), offset);
        }
        assert_eq!(world.told, Vec::<String>::new());
    }
}

#[test]
fn an_index_entry_with_a_wrong_offset_is_noticed_and_the_index_is_rebuilt() {
    let mut world = twelve_segments(small_segments());
    let path = path_of(0, FileKind::OffsetIndex);
    let expected = world.disk.content(&path).unwrap().to_vec();
    // The second batch ends with offset 1. Makes its entry say 0.
    assert_eq!(expected[..4], [0, 0, 0, 1]);
    world.disk.damage(&path, |bytes| bytes[3] = 0);
    assert_eq!(read_one(&mut world, 0), 0);
    world.run();
    assert!(world.told[0].contains("the index of segment 0 is rebuilt"), "{:?}", world.told);
    assert_eq!(world.disk.content(&path).unwrap(), expected);
}

#[test]
fn an_empty_time_index_of_a_segment_with_records_is_rebuilt() {
    let mut world = twelve_segments(small_segments());
    let path = path_of(0, FileKind::TimeIndex);
    let expected = world.disk.content(&path).unwrap().to_vec();
    world.disk.damage(&path, Vec::clear);
    let timestamp = world.now.wall.0 - 58;
    assert_eq!(world.lookup(LookupTarget::FirstAt(timestamp)).unwrap().offset, Offset(2));
    world.run();
    assert_eq!(world.disk.content(&path).unwrap(), expected);
}

#[test]
fn an_index_is_rebuilt_in_several_reads_none_of_which_reaches_past_the_end_of_the_file() {
    let mut world = World::new(LogSettings { segment_bytes: 3 << 20, ..LogSettings::default() });
    while world.log.segment_count() < 2 {
        let batch = batch(&[world.now.wall.0], 100_000);
        world.append(&batch).unwrap();
        world.pass(1);
    }
    world.close_and_reload();
    let path = path_of(0, FileKind::OffsetIndex);
    let expected = world.disk.content(&path).unwrap().to_vec();
    let log_bytes = world.disk.content(&path_of(0, FileKind::Log)).unwrap().len() as u64;
    world.disk.remove(&path);
    assert_eq!(world.log.read(Offset(9), Offset(10), 100, true, 1, &mut world.out), ReadOutcome::Pending);
    world.take_out();
    loop {
        for command in &world.queue {
            if let IoOp::Read { position, len, .. } = command.op {
                assert!(position + u64::from(len) <= log_bytes, "{position} and {len} of {log_bytes}");
            }
        }
        if !world.step() {
            break;
        }
    }
    assert!(matches!(world.events[..], [LogEvent::Loaded, LogEvent::ReadDone { outcome: ReadOutcome::Found(_), .. }]));
    assert_eq!(world.disk.content(&path).unwrap(), expected);
    assert_eq!(world.told.len(), 1, "{:?}", world.told);
}

#[test]
fn a_segment_that_ends_with_garbage_can_be_read_up_to_there_and_its_index_is_not_written() {
    for rubbish in [&[0xff; 20][..], &[0xff; 100]] {
        let mut world = twelve_segments(small_segments());
        let (log, index) = (path_of(0, FileKind::Log), path_of(0, FileKind::OffsetIndex));
        let end = world.disk.content(&log).unwrap().len();
        world.disk.damage(&log, |bytes| bytes.extend_from_slice(rubbish));
        world.disk.remove(&index);
        world.close_and_reload();
        assert_eq!(read_one(&mut world, 3), 3);
        world.run();
        let text = format!("segment 0 is damaged at position {end}");
        assert!(world.told.iter().any(|told| told.contains(&text)), "{:?}", world.told);
        assert_eq!(world.disk.content(&index), None);
    }
}

#[test]
fn an_index_that_cannot_be_read_takes_the_log_offline_with_the_reason_from_the_disk() {
    let mut world = twelve_segments(small_segments());
    world.disk.fail_load = Some(path_of(0, FileKind::OffsetIndex));
    let ReadOutcome::Failed(reason) = world.read(0, 60, 100, true) else { panic!("{:?}", world.log.state()) };
    assert!(reason.contains("the device has failed"), "{reason}");
    assert_eq!(world.log.state(), &LogState::Offline(reason));
}

/// The base offsets of the inactive segments whose indexes are in memory.
fn in_memory(world: &World) -> Vec<i64> {
    let older = &world.log.segments[..world.log.segment_count() - 1];
    older.iter().filter(|segment| segment.indexes.is_some()).map(|segment| segment.base.0).collect()
}

fn roll(world: &mut World) {
    let before = world.log.segment_count();
    while world.log.segment_count() == before {
        let batch = plain(world);
        world.append(&batch).unwrap();
    }
}

#[test]
fn the_two_indexes_that_were_used_last_stay_in_memory() {
    let mut world = twelve_segments(small_segments());
    assert_eq!(in_memory(&world), [0; 0]);
    for offset in [0, 5, 10, 0, 5] {
        read_one(&mut world, offset);
    }
    roll(&mut world);
    assert_eq!(in_memory(&world), [0, 5]);
}

#[test]
fn an_index_that_retention_read_counts_as_used() {
    let mut world = twelve_segments(LogSettings { retention_ms: 1 << 40, ..small_segments() });
    read_one(&mut world, 5);
    read_one(&mut world, 10);
    world.log.enforce_retention(world.now, Offset(60), &mut world.out);
    world.take_out();
    world.run();
    assert_eq!(in_memory(&world), [0, 10]);
    read_one(&mut world, 5);
    roll(&mut world);
    assert_eq!(in_memory(&world), [0, 5]);
}

#[test]
fn an_index_read_goes_on_when_an_older_segment_is_removed_meanwhile() {
    let mut world = twelve_segments(small_segments());
    assert_eq!(world.log.read(Offset(7), Offset(60), 100, true, 1, &mut world.out), ReadOutcome::Pending);
    world.take_out();
    assert!(world.log.delete_records(Offset(5), &mut world.out));
    world.log.enforce_retention(world.now, Offset(60), &mut world.out);
    world.take_out();
    assert_eq!(world.log.segment_count(), 11);
    world.run();
    assert!(matches!(world.events[..], [LogEvent::Loaded, LogEvent::ReadDone { outcome: ReadOutcome::Found(_), .. }]));
}
