//! Tests of loading a log: which files are trusted, where the log is cut, when it goes offline, and what is read for
//! it.

use super::reads::{close, path, put};
use super::*;
use crate::io::{IoCompletion, IoError, IoErrorKind};
use names::FileKind;
use tidelog_batch::BatchHeader;

/// Loads the log again. Returns the position and length of each read that was issued.
fn load(world: &mut World, hints: LoadHints) -> Vec<(u64, u32)> {
    world.reload(hints);
    let (mut reads, mut seen) = (Vec::new(), None);
    for _ in 0..10_000 {
        for command in &world.queue {
            if seen.is_none_or(|seen| command.id.seq > seen) {
                seen = Some(command.id.seq);
                if let IoOp::Read { position, len, .. } = command.op {
                    reads.push((position, len));
                }
            }
        }
        if !world.step() {
            return reads;
        }
    }
    panic!("the loading does not end");
}

fn clean() -> LoadHints {
    LoadHints { clean: true, has_topic_id: true, ..LoadHints::default() }
}

fn after_crash() -> LoadHints {
    LoadHints { has_topic_id: true, ..LoadHints::default() }
}

/// A closed log with small segments and `count` batches of an idempotent producer, of one record each.
fn closed(count: i32) -> World {
    let mut world = World::new(small_segments());
    for sequence in 0..count {
        world.append(&idempotent(9, sequence, 1)).unwrap();
    }
    close(&mut world);
    world
}

fn bases(world: &World) -> Vec<i64> {
    let logs = world.disk.names().into_iter().filter_map(|name| name.strip_suffix(".log"));
    logs.map(|name| name.rsplit('/').next().unwrap().parse().unwrap()).collect()
}

fn snapshots(world: &World) -> Vec<i64> {
    let names = world.disk.names().into_iter().filter_map(|name| name.strip_suffix(".snapshot"));
    names.map(|name| name.rsplit('/').next().unwrap().parse().unwrap()).collect()
}

fn content(world: &World, base: i64, kind: FileKind) -> Vec<u8> {
    world.disk.content(&path(base, kind)).unwrap().to_vec()
}

/// Asserts that all records can be read, each by its offset.
fn readable(world: &mut World, from: i64) {
    let end = world.log.log_end_offset().0;
    for offset in from..end {
        let outcome = world.read(offset, end, 1, true);
        assert_eq!(world.bytes(outcome).0, offset);
    }
}

fn offline(world: &World) -> &str {
    match world.log.state() {
        LogState::Offline(reason) => reason,
        other => panic!("{other:?}"),
    }
}

/// A batch of exactly this size in bytes.
fn sized(size: usize) -> CheckedBatch {
    let overhead = batch(&[1], size - 80).size_bytes() - (size - 80);
    let batch = batch(&[1], size - overhead);
    assert_eq!(batch.size_bytes(), size);
    batch
}

#[test]
fn a_clean_start_reads_the_active_segment_from_its_last_index_entry_on() {
    let mut world = World::new(LogSettings { index_interval_bytes: 150, ..LogSettings::default() });
    for _ in 0..40 {
        world.append(&batch(&[1, 2, 3], 30)).unwrap();
    }
    close(&mut world);
    let index = content(&world, 0, FileKind::OffsetIndex);
    let last = u32::from_be_bytes(*index.last_chunk().unwrap());
    let len = content(&world, 0, FileKind::Log).len() as u32;
    assert!(last > len / 2);
    assert_eq!(load(&mut world, clean()), [(0, BatchHeader::LEN as u32), (u64::from(last), len - last)]);
    world.loaded();
    assert_eq!(world.told, Vec::<String>::new());
}

#[test]
fn after_a_clean_stop_an_empty_offset_index_is_trusted() {
    let mut world = World::new(LogSettings::default());
    world.append(&batch(&[1, 2, 3], 30)).unwrap();
    close(&mut world);
    load(&mut world, clean());
    world.loaded();
    assert_eq!(world.told, Vec::<String>::new());
}

#[test]
fn a_clean_start_of_an_empty_log_reads_nothing() {
    let mut world = World::new(LogSettings::default());
    close(&mut world);
    assert_eq!(load(&mut world, clean()), []);
    world.loaded();
}

#[test]
fn an_index_that_is_longer_than_the_setting_allows_now_is_trusted() {
    let mut world = World::new(LogSettings { index_interval_bytes: 0, ..LogSettings::default() });
    for _ in 0..40 {
        world.append(&batch(&[1], 30)).unwrap();
    }
    close(&mut world);
    world.settings.segment_index_bytes = 24;
    assert_eq!(load(&mut world, clean()).len(), 2);
    world.loaded();
    assert_eq!(world.told, Vec::<String>::new());
}

#[test]
fn an_index_entry_without_a_batch_makes_the_active_segments_index_be_rebuilt() {
    let mut world = World::new(LogSettings { index_interval_bytes: 150, ..LogSettings::default() });
    for _ in 0..40 {
        world.append(&batch(&[1, 2, 3], 50)).unwrap();
    }
    close(&mut world);
    let index = content(&world, 0, FileKind::OffsetIndex);
    world.disk.damage(&path(0, FileKind::OffsetIndex), |bytes| {
        // The relative offset of the last entry.
        let at = bytes.len() - 5;
        bytes[at] -= 1;
    });
    load(&mut world, clean());
    world.loaded();
    assert_eq!(world.log.log_end_offset(), Offset(120));
    assert_eq!(world.told.len(), 1);
    assert!(world.told[0].contains("the index of segment 0 names a batch that does not exist"), "{:?}", world.told);
    close(&mut world);
    assert_eq!(content(&world, 0, FileKind::OffsetIndex), index);
}

#[test]
fn damage_found_after_a_clean_stop_is_reported_and_nothing_is_cut() {
    let mut world = closed(80);
    let active = *bases(&world).last().unwrap();
    world.disk.damage(&path(active, FileKind::Log), |bytes| *bytes.last_mut().unwrap() ^= 1);
    let before = content(&world, active, FileKind::Log);
    load(&mut world, clean());
    assert!(offline(&world).contains("is corrupt at position"));
    assert_eq!(content(&world, active, FileKind::Log), before);
}

#[test]
fn batches_are_found_wherever_one_read_of_the_scan_ends() {
    // The first read ends between batches, in a header that begins with zeros, in a header, and in a batch.
    for spare in [0, 3, 30, 100] {
        let mut world = World::new(LogSettings::default());
        world.append(&sized((1 << 20) - spare)).unwrap();
        for sequence in 0..3 {
            world.append(&idempotent(9, 2 * sequence, 2)).unwrap();
        }
        world.append(&sized(1 << 20)).unwrap();
        world.run();
        load(&mut world, after_crash());
        world.loaded();
        assert_eq!(world.log.log_end_offset(), Offset(8), "{spare}");
        assert_eq!(world.told, Vec::<String>::new());
        assert!(world.append(&idempotent(9, 4, 2)).unwrap().duplicate);
    }
}

#[test]
fn a_batch_whose_length_reaches_past_the_end_of_the_file_is_not_read() {
    let mut world = World::new(LogSettings::default());
    for _ in 0..25 {
        world.append(&sized(50_000)).unwrap();
    }
    world.run();
    world.disk.damage(&path(0, FileKind::Log), |bytes| {
        bytes[50_008..50_012].copy_from_slice(&100_000_000i32.to_be_bytes());
    });
    assert_eq!(load(&mut world, after_crash()), [(0, 1 << 20)]);
    world.loaded();
    assert_eq!(world.log.log_end_offset(), Offset(1));
}

#[test]
fn a_file_that_shrinks_while_it_is_read_takes_the_log_offline() {
    let mut world = World::new(LogSettings::default());
    for _ in 0..10 {
        world.append(&sized(500)).unwrap();
    }
    world.run();
    world.reload(after_crash());
    while !matches!(world.queue.front().unwrap().op, IoOp::Read { .. }) {
        world.step();
    }
    world.disk.damage(&path(0, FileKind::Log), |bytes| bytes.truncate(2_000));
    world.run();
    assert!(offline(&world).contains("segment 0 ends at 2000 of 5000 bytes"));
}

#[test]
fn the_last_five_batches_of_a_producer_are_known_after_a_crash_at_any_offset() {
    for count in 6..40 {
        let mut world = World::new(small_segments());
        for sequence in 0..count {
            world.append(&idempotent(9, sequence, 1)).unwrap();
        }
        world.run();
        load(&mut world, after_crash());
        world.loaded();
        for sequence in count - 5..count {
            assert!(world.append(&idempotent(9, sequence, 1)).unwrap().duplicate, "{sequence} of {count}");
        }
    }
}

#[test]
fn a_producer_that_is_only_in_the_snapshot_is_known_after_a_crash() {
    let mut world = World::new(small_segments());
    world.append(&idempotent(8, 0, 1)).unwrap();
    for sequence in 0..80 {
        world.append(&idempotent(9, sequence, 1)).unwrap();
    }
    world.run();
    // Removes the first segment, and all snapshots but the newest.
    let bases = bases(&world);
    assert!(bases.len() > 3);
    for kind in [FileKind::Log, FileKind::OffsetIndex, FileKind::TimeIndex] {
        world.disk.remove(&path(0, kind));
    }
    let snapshots = snapshots(&world);
    for offset in &snapshots[..snapshots.len() - 1] {
        world.disk.remove(&path(*offset, FileKind::ProducerSnapshot));
    }
    load(&mut world, after_crash());
    world.loaded();
    assert_eq!(world.log.log_start_offset(), Offset(bases[1]));
    assert!(world.append(&idempotent(8, 0, 1)).unwrap().duplicate);
}

#[test]
fn a_log_that_lost_its_segments_begins_at_the_checkpointed_start_offset() {
    let mut world = closed(80);
    for base in bases(&world) {
        for kind in [FileKind::Log, FileKind::OffsetIndex, FileKind::TimeIndex] {
            world.disk.remove(&path(base, kind));
        }
    }
    load(&mut world, LoadHints { log_start: Some(Offset(20)), ..after_crash() });
    world.loaded();
    assert_eq!((world.log.log_start_offset(), world.log.log_end_offset()), (Offset(20), Offset(20)));
    assert!(snapshots(&world).iter().all(|offset| *offset == 20));
    assert!(!world.append(&idempotent(9, 0, 1)).unwrap().duplicate);
}

#[test]
fn a_log_that_ends_below_its_checkpointed_start_offset_is_replaced_by_an_empty_one() {
    let mut world = closed(80);
    assert!(bases(&world).len() > 2);
    load(&mut world, LoadHints { log_start: Some(Offset(100)), ..after_crash() });
    world.loaded();
    assert_eq!((world.log.log_start_offset(), world.log.log_end_offset()), (Offset(100), Offset(100)));
    assert_eq!(bases(&world), [100]);
    let expected = format!("{NAME}: the log ends at 80, below its start 100: a new, empty log begins at 100");
    assert_eq!(world.told, [expected]);
}

#[test]
fn a_log_whose_records_are_all_deleted_keeps_its_epoch_and_its_file() {
    let mut world = World::new(LogSettings::default());
    world.append(&batch(&[1, 2, 3], 10)).unwrap();
    close(&mut world);
    load(&mut world, LoadHints { log_start: Some(Offset(3)), ..clean() });
    world.loaded();
    assert_eq!((world.log.log_start_offset(), world.log.latest_epoch()), (Offset(3), EPOCH));
    assert_eq!(bases(&world), [0]);
}

#[test]
fn a_directory_without_segments_is_loaded_as_an_empty_log_without_a_warning() {
    let mut world = World::new(LogSettings::default());
    close(&mut world);
    world.disk.remove(&path(0, FileKind::Log));
    load(&mut world, after_crash());
    world.loaded();
    assert_eq!(world.log.log_end_offset(), Offset(0));
    assert_eq!(world.told, Vec::<String>::new());
}

#[test]
fn recovery_cuts_the_log_and_the_producer_state_at_the_first_damage() {
    let bases = bases(&closed(80));
    assert!(bases.len() > 3);
    let last = bases[bases.len() - 1];
    let places = [
        (bases[1], 0, bases[1]),
        (bases[1], 1, bases[1] + 1),
        (bases[0], 2, 2),
        (bases[2], 1, bases[2] + 1),
        // Between the snapshot from which the recovery begins and the newest one.
        (last, 1, last + 1),
    ];
    for (base, whole, end) in places {
        let mut world = closed(80);
        let one = idempotent(9, 0, 1).size_bytes();
        world.disk.damage(&path(base, FileKind::Log), |bytes| bytes[whole * one + one - 1] ^= 1);
        load(&mut world, after_crash());
        world.loaded();
        assert_eq!(world.log.log_end_offset(), Offset(end));
        assert!(snapshots(&world).iter().all(|offset| *offset <= end), "{:?}", snapshots(&world));
        assert_eq!(snapshots(&world).last(), Some(&end), "a snapshot is written at the end");
        assert!(world.append(&idempotent(9, end as i32 - 1, 1)).unwrap().duplicate);
        assert!(!world.append(&idempotent(9, end as i32, 1)).unwrap().duplicate);
    }
}

#[test]
fn after_a_crash_a_producer_snapshot_is_written_at_the_end_of_the_log() {
    let mut world = World::new(small_segments());
    for sequence in 0..3 {
        world.append(&idempotent(9, sequence, 1)).unwrap();
    }
    world.run();
    assert!(snapshots(&world).is_empty());
    load(&mut world, after_crash());
    world.loaded();
    assert_eq!(snapshots(&world), [3]);
}

#[test]
fn snapshots_that_are_neither_the_newest_nor_at_the_base_of_a_segment_are_removed() {
    let mut world = World::new(LogSettings::default());
    world.append(&idempotent(9, 0, 1)).unwrap();
    world.close_and_reload();
    world.append(&idempotent(9, 1, 1)).unwrap();
    close(&mut world);
    assert_eq!(snapshots(&world), [1, 2]);
    load(&mut world, clean());
    assert_eq!(snapshots(&world), [2]);
    let mut world = closed(80);
    let expected: Vec<i64> = bases(&world)[1..].iter().copied().chain([80]).collect();
    load(&mut world, clean());
    assert_eq!(snapshots(&world), expected);
}

#[test]
fn recovery_rebuilds_the_indexes_of_the_segments_that_it_scans() {
    let mut world = closed(80);
    let bases = bases(&world);
    let before: Vec<_> = bases.iter().map(|base| content(&world, *base, FileKind::TimeIndex)).collect();
    for base in &bases {
        for kind in [FileKind::OffsetIndex, FileKind::TimeIndex] {
            world.disk.remove(&path(*base, kind));
        }
    }
    load(&mut world, after_crash());
    world.loaded();
    close(&mut world);
    model::check_indexes(&world);
    let after: Vec<_> = bases.iter().map(|base| content(&world, *base, FileKind::TimeIndex)).collect();
    assert_eq!(after, before);
}

#[test]
fn a_compaction_whose_swap_was_interrupted_is_finished() {
    for (hints, at) in [(clean(), 0), (clean(), 1), (after_crash(), 0), (after_crash(), 1)] {
        let mut world = closed(80);
        let old = bases(&world);
        assert!(old.len() > 4);
        let merged = [content(&world, old[at], FileKind::Log), content(&world, old[at + 1], FileKind::Log)].concat();
        let swap = names::staged_segment_file(Offset(old[at]), FileKind::Log, names::FileStage::Swap);
        put(&mut world, &swap, &merged);
        let index = names::staged_segment_file(Offset(old[at]), FileKind::OffsetIndex, names::FileStage::Swap);
        put(&mut world, &index, b"");
        load(&mut world, hints);
        world.loaded();
        let expected: Vec<i64> = old.iter().copied().filter(|base| *base != old[at + 1]).collect();
        assert_eq!(bases(&world), expected);
        assert_eq!(content(&world, old[at], FileKind::Log), merged);
        assert!(world.disk.names().iter().all(|name| !name.ends_with(".swap")));
        assert_eq!(world.log.log_end_offset(), Offset(80));
        assert_eq!(world.told.len(), 1, "{:?}", world.told);
        assert!(world.told[0].contains(&format!(
            "segment {} had been compacted into segment {}",
            old[at + 1],
            old[at]
        )));
        readable(&mut world, 0);
        close(&mut world);
        model::check_indexes(&world);
    }
}

#[test]
fn a_swap_at_or_above_an_unfinished_compaction_is_undone() {
    let bases = bases(&closed(80));
    for (cleaned, undone) in [(bases[0], true), (bases[1], true), (bases[2], false)] {
        let mut world = closed(80);
        let live = content(&world, bases[1], FileKind::Log);
        let swap = names::staged_segment_file(Offset(bases[1]), FileKind::Log, names::FileStage::Swap);
        let merged = [live.clone(), content(&world, bases[2], FileKind::Log)].concat();
        put(&mut world, &swap, &merged);
        put(&mut world, &names::staged_segment_file(Offset(cleaned), FileKind::Log, names::FileStage::Cleaned), b"cut");
        load(&mut world, after_crash());
        world.loaded();
        assert_eq!(content(&world, bases[1], FileKind::Log), if undone { live } else { merged });
        assert!(world.disk.names().iter().all(|name| !name.ends_with(".swap") && !name.ends_with(".cleaned")));
        assert_eq!(world.log.log_end_offset(), Offset(80));
        readable(&mut world, 0);
    }
}

#[test]
fn files_that_were_being_written_or_removed_are_removed() {
    let mut world = closed(80);
    let before: Vec<String> = world.disk.names().iter().map(|name| name.to_string()).collect();
    put(&mut world, "leader-epoch-checkpoint.tmp", b"0");
    put(&mut world, &names::staged_segment_file(Offset(7), FileKind::Log, names::FileStage::Deleted), b"gone");
    put(&mut world, &names::segment_file(Offset(7), FileKind::OffsetIndex), b"without a log");
    put(&mut world, "notes.txt", b"somebody's");
    load(&mut world, clean());
    world.loaded();
    let mut after: Vec<String> = world.disk.names().iter().map(|name| name.to_string()).collect();
    after.retain(|name| !name.ends_with("/notes.txt"));
    assert_eq!(after, before);
    assert!(world.file("notes.txt").is_some());
}

/// A log whose second segment lacks its last batch. Returns it, and the base offset of its third segment.
fn with_a_gap() -> (World, i64) {
    let mut world = closed(80);
    let third = bases(&world)[2];
    let one = idempotent(9, 0, 1).size_bytes();
    world.disk.damage(&path(bases(&world)[1], FileKind::Log), |bytes| bytes.truncate(bytes.len() - one));
    // Without this file everything is scanned.
    world.disk.remove(&format!("{NAME}/{}", names::LEADER_EPOCH_CHECKPOINT));
    (world, third)
}

#[test]
fn a_gap_between_segments_is_allowed_only_in_the_stable_part_of_the_log() {
    let (mut world, _) = with_a_gap();
    load(&mut world, clean());
    world.loaded();
    assert_eq!((world.log.log_end_offset(), world.told.len()), (Offset(80), 0));

    let (mut world, third) = with_a_gap();
    load(&mut world, LoadHints { recovery_point: Some(Offset(third)), ..after_crash() });
    world.loaded();
    assert_eq!((world.log.log_end_offset(), world.told.len()), (Offset(80), 0));

    let (mut world, third) = with_a_gap();
    load(&mut world, after_crash());
    world.loaded();
    assert_eq!(world.log.log_end_offset(), Offset(third - 1));
    assert!(world.told[0].contains(&format!("the offsets up to segment {third} are missing")));
}

#[test]
fn an_empty_active_segment_may_follow_a_gap() {
    let (mut world, third) = with_a_gap();
    for base in bases(&world).into_iter().filter(|base| *base > third) {
        world.disk.remove(&path(base, FileKind::Log));
    }
    world.disk.damage(&path(third, FileKind::Log), |bytes| bytes.fill(1));
    load(&mut world, LoadHints { recovery_point: Some(Offset(third)), ..after_crash() });
    world.loaded();
    world.log.verify();
    assert_eq!(world.log.log_end_offset(), Offset(third));
    assert_eq!(world.append(&sized(100)).unwrap().base_offset, Offset(third));
    world.run();
    world.log.verify();
}

#[test]
fn a_segment_that_begins_before_the_previous_one_ends_is_removed_as_damage() {
    let mut world = closed(80);
    let bases = bases(&world);
    let second = content(&world, bases[2], FileKind::Log);
    world.disk.damage(&path(bases[1], FileKind::Log), |bytes| bytes.extend_from_slice(&second));
    load(&mut world, after_crash());
    world.loaded();
    assert_eq!(world.log.log_end_offset(), Offset(bases[3]));
    let expected = format!("segment {}, which begins before the previous one ends", bases[2]);
    assert!(world.told[0].contains(&expected), "{:?}", world.told);
}

#[test]
fn a_truncation_without_snapshots_and_epochs_scans_all_segments() {
    let bases = bases(&closed(80));
    for at in [bases[2], bases[2] + 1, bases[3] - 1] {
        let mut world = closed(80);
        load(&mut world, clean());
        for offset in snapshots(&world) {
            world.disk.remove(&path(offset, FileKind::ProducerSnapshot));
        }
        world.disk.remove(&format!("{NAME}/{}", names::LEADER_EPOCH_CHECKPOINT));
        world.log.truncate_to(Offset(at), &mut world.out);
        world.take_out();
        // The truncation reports the removed snapshots as missing.
        world.run();
        assert_eq!(world.log.log_end_offset(), Offset(at));
        assert_eq!(world.log.latest_epoch(), EPOCH);
        assert!(world.append(&idempotent(9, at as i32 - 1, 1)).unwrap().duplicate);
    }
}

#[test]
fn a_file_that_cannot_be_read_takes_the_log_offline_and_is_not_replaced() {
    let mut world = closed(3);
    let before = world.file(names::LEADER_EPOCH_CHECKPOINT).map(<[u8]>::to_vec);
    world.reload(clean());
    loop {
        let command = world.queue.pop_front().expect("the checkpoint is read");
        if matches!(&command.op, IoOp::Load { path, .. } if path.path.ends_with(names::LEADER_EPOCH_CHECKPOINT)) {
            let error = IoError { kind: IoErrorKind::Other, text: "the sector is unreadable".into() };
            let completion = IoCompletion { id: command.id, result: Err(error) };
            world.log.handle_io(world.now, completion, &mut world.out, &mut world.events);
            break;
        }
        let completion = world.disk.execute(command);
        world.log.handle_io(world.now, completion, &mut world.out, &mut world.events);
        world.take_out();
    }
    world.take_out();
    world.run();
    assert!(offline(&world).contains("the sector is unreadable"));
    assert_eq!(world.file(names::LEADER_EPOCH_CHECKPOINT).map(<[u8]>::to_vec), before);
}

/// Carries out all commands. Returns the files that were opened and not closed.
fn left_open(world: &mut World) -> std::collections::BTreeSet<tidelog_wire::ids::FileId> {
    let (mut opened, mut closed) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    loop {
        for command in &world.queue {
            match command.op {
                IoOp::Open { file, .. } => drop(opened.insert(file)),
                IoOp::Close { file } => drop(closed.insert(file)),
                _ => {}
            }
        }
        if !world.step() {
            return &opened - &closed;
        }
    }
}

#[test]
fn a_log_that_is_closed_amid_retention_leaves_no_file_open_and_nothing_to_unlink() {
    for steps in [0, 1, 3, 5, 100] {
        let mut world = closed(80);
        world.settings = LogSettings { retention_bytes: 0, ..small_segments() };
        world.reload(clean());
        let mut open = left_open(&mut world);
        world.loaded();
        assert_eq!(open.len(), world.log.segment_count());
        world.log.enforce_retention(world.now, Offset(80), &mut world.out);
        world.take_out();
        // Adds the files of the segment that retention begins.
        for command in &world.queue {
            if let IoOp::Open { file, .. } = command.op {
                open.insert(file);
            }
        }
        let mut closing = std::collections::BTreeSet::new();
        for step in 0..10_000 {
            if step == steps {
                world.events.clear();
                world.log.close(&mut world.out);
                world.take_out();
            }
            for command in &world.queue {
                match command.op {
                    IoOp::Open { file, .. } => drop(open.insert(file)),
                    IoOp::Close { file } => drop(closing.insert(file)),
                    _ => {}
                }
            }
            if !world.step() && step >= steps {
                break;
            }
        }
        assert_eq!(world.events, [LogEvent::Closed]);
        assert_eq!(open, closing, "after {steps}");
        assert!(world.disk.names().iter().all(|name| !name.ends_with(".deleted")), "{:?}", world.disk.names());
    }
}

#[test]
fn a_log_is_deleted_once() {
    let mut world = closed(3);
    load(&mut world, clean());
    world.events.clear();
    for _ in 0..2 {
        assert!(!world.log.delete(world.now, Uuid::from_bytes([5; 16]), &mut world.out));
        world.take_out();
        world.run();
    }
    world.pass(60_000);
    world.run();
    assert_eq!(world.events, [LogEvent::NameFreed, LogEvent::Deleted]);
    assert!(!world.log.delete(world.now, Uuid::from_bytes([5; 16]), &mut world.out));
    world.take_out();
    assert!(world.queue.is_empty());
}

#[test]
fn deleting_a_log_that_is_offline_leaves_its_files_as_they_are() {
    let mut world = closed(3);
    load(&mut world, clean());
    world.disk.fail_writes = true;
    world.append(&batch(&[1], 10)).unwrap();
    world.run();
    offline(&world);
    let before: Vec<String> = world.disk.names().iter().map(|name| name.to_string()).collect();
    assert!(world.log.delete(world.now, Uuid::from_bytes([5; 16]), &mut world.out));
    world.take_out();
    world.run();
    assert_eq!(world.log.state(), &LogState::Deleted);
    assert_eq!(world.disk.names(), before);
}
