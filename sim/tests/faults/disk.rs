//! Disks that are slow, fail, fill up, and lose what was not synced.

use std::collections::BTreeMap;
use tidelog_sim::disk::Losses;
use tidelog_sim::history::{PartitionKey, ReadRecord};
use tidelog_sim::random::Ratio;
use tidelog_sim::scenario::Fault;
use tidelog_sim::script::Script;

const MS: u64 = 1_000_000;
const KAFKA_STORAGE_ERROR: i16 = 56;
const PRODUCE: i16 = 0;

fn count(logs: &BTreeMap<PartitionKey, Vec<ReadRecord>>) -> usize {
    logs.values().map(Vec::len).sum()
}

/// A node with a second directory, which holds the second of two partitions.
fn two_directories(seed: u64) -> Script {
    Script::with(seed, |scenario| {
        scenario.disk.directories = 2;
        scenario.topics[0].partitions = 2;
        scenario.properties.insert("num.partitions".into(), "2".into());
    })
}

#[test]
fn a_stalled_disk_delays_what_needs_it_and_loses_nothing() {
    let mut t = Script::new(1);
    t.producer_with(60, |plan| plan.requests_in_flight_max = 1);
    t.run_until("some are acknowledged", |t| t.acknowledged() >= 10);
    assert!(t.now_ms() < 200, "{}", t.now_ms());
    t.on_disk(0, |disk| (disk.stall, disk.stall_ns_max) = (Ratio::ALWAYS, 5_000 * MS));
    let (began, before) = (t.now_ms(), t.acknowledged());
    t.run_until("ten more are acknowledged", |t| t.acknowledged() >= before + 10);
    assert!(t.now_ms() - began > 1_000, "{}", t.now_ms() - began);
    t.on_disk(0, |disk| disk.stall = Ratio::NEVER);
    assert_eq!(count(&t.ends_well()), 60);
}

#[test]
fn a_write_that_fails_or_is_cut_short_takes_its_directory_offline_and_is_acknowledged_to_nobody() {
    let mut t = two_directories(2);
    t.producer(300);
    t.run_until("some are acknowledged", |t| t.acknowledged() >= 20);
    t.on_disk(0, |disk| disk.write_error = Ratio::new(1, 20));
    t.run_until("a write fails", |t| t.count("disk errors") > 0);
    t.on_disk(0, |disk| disk.write_error = Ratio::NEVER);
    let is_told = |t: &Script| t.has_said(0, "is offline") || t.has_said(0, "all of log.dirs are offline");
    t.run_until("the directory is offline", is_told);
    assert_eq!(count(&t.ends_well()), 300);
}

#[test]
fn a_sync_that_fails_acknowledges_nothing_and_ends_the_trust_in_its_directory() {
    let mut found = 0;
    for seed in 0..8 {
        let mut t = two_directories(seed);
        t.producer(300);
        t.run_until("some are acknowledged", |t| t.acknowledged() >= 20);
        t.on_disk(0, |disk| disk.sync_error = Ratio::new(1, 10));
        t.run_until("a sync fails", |t| t.count("disk errors") > 0);
        t.on_disk(0, |disk| disk.sync_error = Ratio::NEVER);
        t.run_for(300);
        found += usize::from(t.refusals(PRODUCE).contains(&KAFKA_STORAGE_ERROR));
        // A later sync would report success for these pages without writing them. After a power cut the checkers judge
        // what is left.
        t.cut_power(0);
        assert_eq!(count(&t.ends_well()), 300);
    }
    assert!(found > 0, "where the other directory went on, the producer was told of a storage error");
}

#[test]
fn a_read_that_fails_is_an_error_for_the_reader_and_no_loss() {
    let mut t = Script::with(3, |scenario| {
        scenario.topics[0].configs.insert("internal.segment.bytes".into(), "1024".into());
    });
    t.producer(200);
    t.run_until("everything is acknowledged", |t| t.acknowledged() == 200);
    t.fetcher();
    t.on_disk(0, |disk| disk.read_error = Ratio::ALWAYS);
    t.run_until("a response breaks off", |t| t.count("responses that cannot be read") > 0);
    t.on_disk(0, |disk| disk.read_error = Ratio::NEVER);
    t.run_until("everything is read", |t| t.read() >= 200);
    // A new process has to read its indexes from the disk.
    t.restart(0);
    t.on_disk(0, |disk| disk.read_error = Ratio::ALWAYS);
    t.fetcher();
    t.run_until("a read fails", |t| t.count("disk errors") > 0);
    assert!(t.has_said(0, "/disk0 is offline"), "{}", t.story());
    t.on_disk(0, |disk| disk.read_error = Ratio::NEVER);
    assert_eq!(count(&t.ends_well()), 200);
}

#[test]
fn a_full_volume_refuses_records_until_there_is_room_and_a_new_start() {
    let mut t = Script::new(4);
    t.producer(100);
    t.run_until("some are acknowledged", |t| t.acknowledged() >= 20);
    t.deal(0, Fault::DiskFull { for_ns: 300 * MS });
    t.run_until("a write is refused", |t| t.has_said(0, "no space left on device"));
    let before = t.acknowledged();
    t.run_for(100);
    assert_eq!(t.acknowledged(), before);
    t.run_until("it goes on", |t| t.acknowledged() > before);
    assert_eq!(count(&t.ends_well()), 100);
}

#[test]
fn a_slow_disk_is_slow_and_one_sync_serves_all_that_came_meanwhile() {
    let mut t = Script::with(5, |scenario| {
        (scenario.disk.latency_ns_max, scenario.disk.sync_ns_max) = (5 * MS, 300 * MS);
    });
    for _ in 0..5 {
        t.producer_with(40, |plan| plan.gap_ns_max = MS);
    }
    t.run_until("everything is acknowledged", |t| t.acknowledged() == 200);
    let took = t.now_ms();
    assert!(took > 300, "{took}: a sync takes its time");
    assert!(took < 200 * 20, "{took}: less than a sync for each");
    assert_eq!(count(&t.ends_well()), 200);
}

#[test]
fn a_name_that_cannot_be_made_or_a_file_that_cannot_be_opened_takes_the_directory_offline() {
    for seed in 0..6 {
        let mut t = Script::with(seed, |scenario| {
            scenario.topics[0].configs.insert("internal.segment.bytes".into(), "1024".into());
        });
        t.producer(200);
        t.run_until("some are acknowledged", |t| t.acknowledged() >= 20);
        t.on_disk(0, |disk| disk.name_error = Ratio::new(1, 4));
        t.run_until("it fails", |t| t.count("disk errors") > 0);
        t.run_until("the directory is offline", |t| t.has_said(0, "is offline"));
        t.on_disk(0, |disk| disk.name_error = Ratio::NEVER);
        assert_eq!(count(&t.ends_well()), 200);
    }
}

#[test]
fn a_power_cut_keeps_drops_tears_and_reorders_what_was_not_synced_and_nothing_else() {
    let (mut losses, mut cut_back) = (Losses::default(), 0);
    for seed in 0..100 {
        let mut t = Script::with(seed, |scenario| {
            scenario.disk.sync_ns_max = 30 * MS;
            scenario.value_bytes_max = 3_000;
        });
        t.producer_with(400, |plan| (plan.gap_ns_max, plan.batch_records_max) = (2 * MS, 10));
        t.run_until("some are acknowledged", |t| t.acknowledged() >= 40);
        t.cut_power(0);
        t.run_until("it is up again", |t| t.life(0) == 1 && t.is_up(0));
        cut_back += usize::from(t.has_said(0, "ends at position"));
        t.cut_power(0);
        losses += t.disk(0).losses();
        t.ends_well();
    }
    let Losses { lost, torn, overtaken, hollow, .. } = losses;
    assert!(lost > 20 && torn > 5 && overtaken > 2 && hollow > 5, "{losses:?}");
    assert!((12..88).contains(&cut_back), "{cut_back}: a torn end is cut back, a whole one is not");
}

#[test]
fn what_was_queued_at_a_crash_happened_in_part_and_is_recovered_to_a_whole() {
    let mut cut_back = 0;
    for seed in 0..30 {
        let mut t = Script::with(seed, |scenario| {
            scenario.disk.latency_ns_max = 20 * MS;
            scenario.value_bytes_max = 3_000;
        });
        t.producer_with(100, |plan| (plan.gap_ns_max, plan.batch_records_max) = (2 * MS, 10));
        t.run_until("some are acknowledged", |t| t.acknowledged() >= 30);
        // The page cache stays: only commands that were queued can be torn.
        t.kill(0);
        t.run_until("it is up again", |t| t.life(0) == 1 && t.is_up(0));
        cut_back += usize::from(t.has_said(0, "ends at position"));
        t.ends_well();
    }
    assert!(cut_back > 3, "{cut_back}");
}

#[test]
fn pages_that_a_failed_sync_has_lost_are_not_acknowledged_by_a_later_one() {
    let mut lost = 0;
    for seed in 0..20 {
        let mut t = two_directories(seed);
        t.producer_with(300, |plan| plan.gap_ns_max = MS);
        t.run_until("some are acknowledged", |t| t.acknowledged() >= 20);
        t.on_disk(0, |disk| disk.sync_error = Ratio::new(1, 5));
        t.run_until("a sync fails", |t| t.count("disk errors") > 0);
        t.on_disk(0, |disk| disk.sync_error = Ratio::NEVER);
        t.run_for(100);
        // With the process, the pages are lost that no sync will write any more.
        t.kill(0);
        let Losses { lost: whole, torn, hollow, .. } = t.disk(0).sync_losses();
        lost += whole + torn + hollow;
        assert_eq!(count(&t.ends_well()), 300);
    }
    assert!(lost > 10, "{lost}");
}

#[test]
fn a_disk_that_lies_about_its_syncs_costs_records_and_the_broker_tells_that_its_log_is_too_short() {
    let (mut told, mut noticed) = (0, 0);
    for seed in 0..20 {
        let mut t = Script::with(seed, |scenario| {
            scenario.properties.insert("log.flush.offset.checkpoint.interval.ms".into(), "20".into());
        });
        t.producer_with(200, |plan| plan.gap_ns_max = MS);
        t.run_until("some are acknowledged", |t| t.acknowledged() >= 20);
        t.on_disk(0, |disk| disk.sync_lie = Ratio::ALWAYS);
        t.run_until("everything is acknowledged", |t| t.acknowledged() == 200);
        t.run_for(100);
        t.cut_power(0);
        t.on_disk(0, |disk| disk.sync_lie = Ratio::NEVER);
        let ending = t.ends();
        let tells = |text: &str| text.contains("below its recovery point") || text.contains("which had been on stable");
        told += usize::from(ending.said.iter().any(|(_, text)| tells(text)));
        // With one replica the records are lost, so the checkers must find that.
        noticed += usize::from(ending.violation.is_some());
    }
    assert!(told >= 10 && noticed >= 10, "told {told}, noticed {noticed}");
}

#[test]
fn what_lies_behind_a_hole_that_a_lying_disk_left_goes_with_it() {
    let mut dropped = 0;
    for seed in 0..20 {
        let mut t = Script::with(seed, |scenario| {
            scenario.topics[0].configs.insert("internal.segment.bytes".into(), "1024".into());
            scenario.disk.sync_lie = Ratio::ALWAYS;
        });
        t.producer_with(200, |plan| plan.gap_ns_max = MS);
        t.run_until("everything is acknowledged", |t| t.acknowledged() == 200);
        t.cut_power(0);
        t.on_disk(0, |disk| disk.sync_lie = Ratio::NEVER);
        let ending = t.ends();
        let tells = |text: &str| text.contains("is removed: it lies behind the end of the log");
        dropped += usize::from(ending.said.iter().any(|(_, text)| tells(text)));
        for log in ending.logs.values() {
            let offsets: Vec<i64> = log.iter().map(|record| record.offset).collect();
            assert_eq!(offsets, (0..offsets.len() as i64).collect::<Vec<_>>(), "a log has no hole");
        }
    }
    assert!(dropped > 0, "segments behind a hole are removed");
}

#[test]
fn a_topic_that_asks_for_no_sync_may_lose_its_end_with_the_power_and_never_with_the_process() {
    let relaxed = |seed| {
        let mut t = Script::with(seed, |scenario| {
            scenario.topics[0].configs.insert("acks.require.fsync".into(), "false".into());
            scenario.last_power_loss = false;
        });
        t.producer_with(100, |plan| plan.gap_ns_max = MS);
        t.run_until("everything is acknowledged", |t| t.acknowledged() == 100);
        t
    };
    let mut lost = 0;
    for seed in 0..10 {
        let mut t = relaxed(seed);
        t.kill(0);
        assert_eq!(count(&t.ends_well()), 100);
        let mut t = relaxed(seed);
        t.cut_power(0);
        lost += usize::from(count(&t.ends_well()) < 100);
    }
    assert!(lost > 0, "a power cut takes what only the page cache had");
}

#[test]
fn names_that_were_not_synced_may_be_gone_after_a_power_cut_with_no_record_missing() {
    let mut names = 0;
    for seed in 0..20 {
        let mut t = Script::with(seed, |scenario| {
            scenario.topics[0].configs.insert("internal.segment.bytes".into(), "1024".into());
            scenario.disk.sync_ns_max = 100 * MS;
        });
        t.producer_with(600, |plan| plan.gap_ns_max = 10 * MS);
        for _ in 0..10 {
            t.run_until("it is up again", |t| t.is_up(0));
            t.run_for(10 + seed);
            t.cut_power(0);
        }
        names += t.disk(0).losses().names;
        assert_eq!(count(&t.ends_well()), 600);
    }
    assert!(names > 0, "a power cut takes names that nobody made stable");
}

#[test]
fn a_disk_that_fails_while_it_is_formatted_is_formatted_by_a_later_start() {
    let mut failed = 0;
    for seed in 0..30 {
        let mut t = two_directories(seed);
        t.on_disk(0, |disk| (disk.write_error, disk.sync_error) = (Ratio::new(1, 6), Ratio::new(1, 6)));
        t.producer(20);
        t.run_for(500);
        failed += t.count("processes that gave up");
        t.on_disk(0, |disk| (disk.write_error, disk.sync_error) = (Ratio::NEVER, Ratio::NEVER));
        assert_eq!(count(&t.ends_well()), 20);
    }
    assert!(failed > 10, "{failed}");
}
