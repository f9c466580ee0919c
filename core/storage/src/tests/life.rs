//! Tests of the settings of a log, its deadlines, and how it is closed, is deleted and goes offline.

use super::*;

#[test]
fn switching_require_fsync_on_syncs_the_log_and_does_not_lower_the_stable_offset() {
    let mut world = World::new(LogSettings { require_fsync: false, ..LogSettings::default() });
    world.append(&batch(&[1, 2, 3], 10)).unwrap();
    world.run();
    assert_eq!((world.log.stable_offset(), world.log.synced_offset()), (Offset(3), Offset(0)));
    world.log.configure(LogSettings::default(), &mut world.out);
    world.take_out();
    assert_eq!(world.log.settings(), &LogSettings::default());
    assert_eq!(world.log.stable_offset(), Offset(3), "acknowledged records stay stable");
    world.run();
    assert_eq!(world.log.synced_offset(), Offset(3));
}

#[test]
fn expired_producers_are_looked_for_every_ten_minutes_while_a_producer_is_known() {
    let mut world = World::new(LogSettings { producer_id_expiration_ms: 1_000, ..LogSettings::default() });
    world.append(&batch(&[1], 10)).unwrap();
    assert_eq!(world.log.deadline(), None, "no producer is known");
    for _ in 0..2 {
        world.append(&idempotent(9, 0, 1)).unwrap();
        let due = world.now.mono.plus_ms(600_000);
        assert_eq!(world.log.deadline(), Some(due));
        world.pass(599_999);
        assert_eq!((world.log.producers().len(), world.log.deadline()), (1, Some(due)));
        world.pass(1);
        assert_eq!((world.log.producers().len(), world.log.deadline()), (0, None));
    }
    world.append(&idempotent(9, 0, 1)).unwrap();
    world.log.close(&mut world.out);
    assert_eq!(world.log.deadline(), None, "a closed log has no deadline");
}

#[test]
fn flush_ms_is_a_deadline_unless_it_is_unlimited() {
    for (flush_ms, due_ms) in [(1_000_000, Some(1_000_000)), (i64::MAX, None)] {
        let mut world = World::new(LogSettings { require_fsync: false, flush_ms, ..LogSettings::default() });
        world.append(&batch(&[1], 10)).unwrap();
        assert_eq!(world.log.deadline(), due_ms.map(|ms| world.now.mono.plus_ms(ms)));
    }
}

#[test]
fn a_close_during_the_loading_is_carried_out_after_it() {
    let mut world = World::new(LogSettings::default());
    world.run();
    world.reload(LoadHints::default());
    world.log.close(&mut world.out);
    world.run();
    assert_eq!(world.events, [LogEvent::Loaded, LogEvent::Closed]);
}

#[test]
fn a_log_can_be_closed_while_a_missing_index_is_being_loaded() {
    let mut world = World::new(small_segments());
    world.append_plain(30);
    world.close_and_reload();
    world.events.clear();
    let index = names::segment_file(Offset(0), names::FileKind::OffsetIndex);
    world.disk.remove(&format!("{NAME}/{index}"));
    assert_eq!(world.log.read(Offset(0), Offset(30), 100, true, 1, &mut world.out), ReadOutcome::Pending);
    world.log.close(&mut world.out);
    world.take_out();
    world.run();
    assert!(matches!(world.events[..], [LogEvent::ReadDone { .. }, LogEvent::Closed]), "{:?}", world.events);
    assert_eq!(world.told, Vec::<String>::new());
}

#[test]
fn a_deletion_whose_rename_fails_takes_the_log_offline_and_frees_no_name() {
    let mut world = World::new(LogSettings::default());
    world.run();
    world.disk.fail_rename = Some(NAME.into());
    assert!(!world.log.delete(world.now, Uuid::from_bytes([5; 16]), &mut world.out));
    world.take_out();
    world.run();
    assert!(matches!(&world.events[..], [LogEvent::Failed(reason)] if reason.contains("cannot be written")));
    assert!(matches!(world.log.state(), LogState::Offline(_)));
}

#[test]
fn an_open_log_fails_when_its_directory_goes_offline_and_a_closed_one_stays_closed() {
    let relaxed = LogSettings { require_fsync: false, flush_ms: 50, retention_bytes: 0, ..small_segments() };
    let mut world = World::new(relaxed);
    for sequence in 0..30 {
        world.append(&idempotent(9, sequence * 5, 5)).unwrap();
    }
    world.close_and_reload();
    world.events.clear();
    world.append(&idempotent(9, 150, 1)).unwrap();
    assert_eq!(world.log.read(Offset(0), Offset(10), 100, true, 1, &mut world.out), ReadOutcome::Pending);
    world.log.enforce_retention(world.now, Offset(20), &mut world.out);
    world.take_out();
    assert!(world.log.deadline().is_some());

    world.log.take_offline("its disk is gone", &mut world.out, &mut world.events);
    let reason = "its disk is gone".to_string();
    let outcome = ReadOutcome::Failed(reason.clone());
    assert_eq!(world.events, [LogEvent::ReadDone { token: 1, outcome }, LogEvent::Failed(reason.clone())]);
    assert_eq!(world.log.state(), &LogState::Offline(reason));
    world.log.take_offline("a second reason", &mut world.out, &mut world.events);
    world.run();
    assert_eq!((world.events.len(), world.log.deadline()), (2, None));
    world.pass(600_000);
    assert!(world.queue.is_empty(), "nothing more is written");

    let mut world = World::new(LogSettings::default());
    world.close_and_reload();
    world.log.close(&mut world.out);
    world.take_out();
    world.run();
    world.events.clear();
    world.log.take_offline("its disk is gone", &mut world.out, &mut world.events);
    assert_eq!((world.events.len(), world.log.state()), (0, &LogState::Closed));
}

#[test]
fn an_empty_log_that_replaces_lost_records_has_no_leader_epochs() {
    let mut world = ten_batches();
    let log = format!("{NAME}/{}", names::segment_file(Offset(0), names::FileKind::Log));
    world.disk.damage(&log, Vec::clear);
    world.reload(LoadHints { log_start: Some(Offset(20)), ..LoadHints::default() });
    world.run();
    world.loaded();
    assert_eq!((world.log.log_start_offset(), world.log.log_end_offset()), (Offset(20), Offset(20)));
    assert_eq!(world.log.epochs().entries(), []);
    assert_eq!(world.file(names::LEADER_EPOCH_CHECKPOINT), Some(&b"0\n0\n"[..]));
}
