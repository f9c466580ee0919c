//! Tests of appending: the size limits of a batch, its offsets, its producer, and the segment to which it is appended.

use super::*;
use bytes::Bytes;
use tidelog_batch::{BatchHeader, ControlRecord};
use tidelog_wire::ErrorCode;

fn append_own(world: &mut World, bytes: &Bytes) -> Result<Appended, AppendError> {
    let appended = world.log.append(world.now, Append::Own(bytes), EPOCH, &mut world.out);
    world.take_out();
    world.log.verify();
    appended
}

#[test]
fn a_batch_may_be_as_large_as_a_segment() {
    let size = batch(&[1], 100).size_bytes() as u32;
    let mut world = World::new(LogSettings { segment_bytes: size, ..LogSettings::default() });
    world.append(&batch(&[1], 100)).unwrap();
    let mut world = World::new(LogSettings { segment_bytes: size - 1, ..LogSettings::default() });
    let error = world.append(&batch(&[1], 100)).unwrap_err();
    assert_eq!(error, AppendError::TooLarge { size: size.into(), limit: size - 1 });
    assert_eq!(error.error_code(), ErrorCode::RecordListTooLarge);
    assert_eq!(world.log.log_end_offset(), Offset(0));
}

#[test]
fn a_segment_is_filled_to_segment_bytes() {
    let size = batch(&[1], 100).size_bytes() as u32;
    let mut world = World::new(LogSettings { segment_bytes: 3 * size, ..LogSettings::default() });
    for segments in [1, 1, 1, 2] {
        world.append(&batch(&[1], 100)).unwrap();
        assert_eq!(world.log.segment_count(), segments);
    }
}

#[test]
fn a_segment_ends_before_an_offset_that_is_more_than_an_int32_above_its_base() {
    let mut world = World::new(LogSettings::default());
    // A batch with one record and many offsets, as compaction leaves it.
    let one = BatchBuilder::new().push(1, None, Some(b"x"), &[]).build();
    let header = BatchHeader { last_offset_delta: i32::MAX - 1, ..BatchHeader::parse(&one).unwrap() };
    let wide = Bytes::from([&header.encode()[..], &one[BatchHeader::LEN..]].concat());
    append_own(&mut world, &wide).unwrap();
    assert_eq!(append_own(&mut world, &one).unwrap().last_offset, Offset(i32::MAX.into()));
    assert_eq!(world.log.segment_count(), 1);
    append_own(&mut world, &one).unwrap();
    assert_eq!(world.log.segment_count(), 2);
}

#[test]
fn the_log_is_full_when_it_has_no_offset_left() {
    let mut world = World::new(LogSettings::default());
    world.run();
    world.reload(LoadHints { log_start: Some(Offset(i64::MAX - 2)), ..LoadHints::default() });
    world.run();
    world.loaded();
    let error = world.append(&batch(&[1, 2, 3], 10)).unwrap_err();
    assert_eq!((error.error_code(), error), (ErrorCode::KafkaStorageError, AppendError::OffsetsExhausted));
    assert_eq!(world.append(&batch(&[1, 2], 10)).unwrap().last_offset, Offset(i64::MAX - 1));
    assert_eq!(world.append(&batch(&[1], 10)).unwrap_err(), AppendError::OffsetsExhausted);
}

#[test]
fn a_batch_that_the_broker_made_gets_its_offset_and_epoch_from_the_append() {
    let mut world = World::new(LogSettings::default());
    let own = BatchBuilder::new().at(Offset(40), LeaderEpoch(9)).push(1, None, Some(b"x"), &[]).build();
    for expected in 0..2 {
        assert_eq!(append_own(&mut world, &own).unwrap().base_offset, Offset(expected));
    }
    world.run();
    let outcome = world.read(1, 2, 1_000, true);
    let (_, bytes) = world.bytes(outcome);
    let stored = Scan::new(&bytes, 0, true).next().expect("the checksum covers neither offset nor epoch").header;
    assert_eq!((stored.base_offset, stored.leader_epoch), (Offset(1), EPOCH));
}

#[test]
fn a_retry_is_answered_with_the_time_at_which_the_batch_was_first_appended() {
    let mut world = World::new(LogSettings { log_append_time: true, ..LogSettings::default() });
    let first = world.append(&idempotent(9, 0, 2)).unwrap();
    assert_eq!(first.log_append_time, Some(world.now.wall));
    world.pass(50);
    assert_eq!(world.append(&idempotent(9, 0, 2)).unwrap(), Appended { duplicate: true, ..first });
}

#[test]
fn a_marker_ends_its_producers_transaction_and_still_does_after_a_crash() {
    let mut world = World::new(LogSettings::default());
    let mut builder = BatchBuilder::new().producer(ProducerId(9), 0, 0).transactional();
    let records = builder.push(5, None, Some(b"x"), &[]).build();
    world.append(&check_produced(records, &BatchLimits::default()).unwrap()).unwrap();
    assert_eq!(world.log.producers().first_unstable_offset(), Some(Offset(0)));
    let marker = ControlRecord::end_transaction(true, 7).transaction_marker(ProducerId(9), 0, world.now.wall);
    append_own(&mut world, &marker).unwrap();
    world.run();
    for recovered in [false, true] {
        if recovered {
            world.reload(LoadHints::default());
            world.run();
            world.loaded();
        }
        let log = &mut world.log;
        assert_eq!(log.producers().iter().map(|known| known.coordinator_epoch).collect::<Vec<_>>(), [7]);
        assert_eq!(log.producers().first_undecided_offset(), None);
        log.advance_high_watermark(Offset(1));
        assert_eq!(
            log.producers().first_unstable_offset(),
            Some(Offset(0)),
            "the marker is not below the high watermark"
        );
        log.advance_high_watermark(Offset(2));
        assert_eq!(log.producers().first_unstable_offset(), None);
    }
}

#[test]
fn jitter_makes_logs_roll_at_different_times_and_none_later_than_segment_ms() {
    let settings = LogSettings { segment_ms: 100, segment_jitter_ms: 50, ..LogSettings::default() };
    // The age of the log at the first append that begins a new segment.
    let age_at_roll = |id: u32| {
        let (now, mut out) = (Now::default(), Outbox::default());
        let mut log = Log::create(LogId(id), place(), settings.clone(), Plants::default(), now, &mut out);
        (0..200).find(|age| {
            log.append(now, Append::Produced(&batch(&[1_000 + age], 1)), EPOCH, &mut out).unwrap();
            log.segment_count() == 2
        })
    };
    let ages: Vec<i64> = (0..32).map(|id| age_at_roll(id).expect("the log rolls")).collect();
    assert!(ages.iter().all(|age| (52..=101).contains(age)), "{ages:?}");
    let distinct: std::collections::BTreeSet<&i64> = ages.iter().collect();
    assert!(distinct.len() > 16, "{ages:?}");
    assert_eq!(age_at_roll(7), Some(ages[7]), "the jitter of a log is always the same");
}

#[test]
fn a_new_segment_is_created_only_when_all_commands_before_it_have_succeeded() {
    // Otherwise a first segment that could not be created is missing at the next start, and the second begins the log.
    let names = |world: &World| world.disk.names().iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let second = |world: &World| {
        let base = world.log.segments[1].base;
        format!("{NAME}/{}", names::segment_file(base, names::FileKind::Log))
    };
    let first = |kind| format!("{NAME}/{}", names::segment_file(Offset::ZERO, kind));
    for failing in [first(names::FileKind::Log), first(names::FileKind::OffsetIndex), "syncs".into(), "none".into()] {
        let mut world = World::new(small_segments());
        world.disk.fail_open = Some(failing.clone());
        world.disk.fail_syncs = failing == "syncs";
        while world.log.segment_count() == 1 {
            world.append(&batch(&[1], 100)).unwrap();
        }
        world.append(&batch(&[1], 100)).unwrap();
        let second = second(&world);
        world.run();
        assert_eq!(names(&world).contains(&second), failing == "none", "{failing}: {:?}", names(&world));
        assert_eq!(world.log.is_open(), failing == "none");
    }
}
