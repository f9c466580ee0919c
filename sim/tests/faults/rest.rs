//! Bytes that are damaged on the disk. With one replica the broker must rebuild what it can, refuse to serve what it
//! cannot, and never change what an operator could restore.

use tidelog_sim::disk::Damage;
use tidelog_sim::random::{Ratio, stream};
use tidelog_sim::scenario::Fault;
use tidelog_sim::script::Script;

const MS: u64 = 1_000_000;
const FETCH: i16 = 1;

/// A script with two hundred acknowledged records in many small segments, and a recovery point behind them.
fn filled(seed: u64) -> Script {
    let mut t = Script::with(seed, |scenario| {
        let configs = &mut scenario.topics[0].configs;
        configs.insert("internal.segment.bytes".into(), "2048".into());
        configs.insert("index.interval.bytes".into(), "100".into());
        for name in ["log.flush.offset.checkpoint.interval.ms", "replica.high.watermark.checkpoint.interval.ms"] {
            scenario.properties.insert(name.into(), "100".into());
        }
    });
    t.producer_with(200, |plan| plan.gap_ns_max = MS);
    t.run_until("everything is acknowledged", |t| t.acknowledged() == 200);
    t.run_for(500);
    t
}

/// The files of the one partition whose names end so, in order.
fn files(t: &mut Script, end: &str) -> Vec<String> {
    t.disk(0).files(0).into_iter().filter(|path| path.starts_with("topic-0-0/") && path.ends_with(end)).collect()
}

fn ends_with_everything(t: Script) {
    assert_eq!(t.ends_well().values().map(Vec::len).sum::<usize>(), 200);
}

#[test]
fn a_flipped_bit_in_a_segment_is_the_readers_to_notice_and_never_a_record() {
    let mut t = filled(1);
    let segment = files(&mut t, ".log")[1].clone();
    t.damage_at(0, &segment, |disk| disk.flip(0, &segment, 100, 4));
    t.fetcher();
    t.run_until("a reader has come to it", |t| t.corrupt() > 0 || !t.refusals(FETCH).is_empty());
    let before = t.read();
    t.run_for(500);
    assert_eq!(t.read(), before, "it comes no further, and nothing is left out");
    ends_with_everything(t);
}

#[test]
fn a_batch_that_says_it_ends_early_is_not_passed_over_in_silence() {
    for position in 23..27 {
        let mut t = filled(2);
        // `lastOffsetDelta` of the third batch in the segment, now negative or far too large.
        let segment = files(&mut t, ".log")[1].clone();
        let third = batch_positions(&t.disk(0).content(0, &segment))[2];
        t.damage_at(0, &segment, |disk| disk.flip(0, &segment, third + position, 0x81));
        t.fetcher();
        t.run_for(1_000);
        assert!(t.corrupt() > 0 || !t.refusals(FETCH).is_empty(), "byte {position}: {}", t.story());
        ends_with_everything(t);
    }
}

#[test]
fn a_length_that_was_damaged_is_an_error_and_no_panic() {
    for (position, bits) in [(8, 0x80), (8, 1), (9, 1), (10, 1), (11, 1), (11, 0x20), (16, 1)] {
        let mut t = filled(3);
        let segments = files(&mut t, ".log");
        for segment in [&segments[1], segments.last().unwrap()] {
            let batches = batch_positions(&t.disk(0).content(0, segment));
            let batch = *batches.get(1).unwrap_or(&batches[0]);
            t.damage_at(0, segment, |disk| disk.flip(0, segment, batch + position, bits));
        }
        t.fetcher();
        t.lister();
        t.run_for(1_000);
        ends_with_everything(t);
    }
}

#[test]
fn after_a_crash_damage_below_the_recovery_point_is_refused_and_not_cut_off() {
    let mut t = filled(4);
    let segment = files(&mut t, ".log").last().unwrap().clone();
    let point = batch_positions(&t.disk(0).content(0, &segment))[0];
    t.damage_at(0, &segment, |disk| disk.flip(0, &segment, point + 70, 1));
    t.cut_power(0);
    t.run_until("it refuses", |t| t.has_said(0, "which had been on stable storage"));
    assert!(!t.is_up(0));
    ends_with_everything(t);
}

#[test]
fn after_a_clean_stop_damage_in_the_part_that_is_read_is_refused_and_not_cut_off() {
    let mut t = filled(5);
    t.deal(0, Fault::Stop { loss: tidelog_sim::disk::Loss::Process, down_ns: 1_000 * MS, crash_after_steps: None });
    t.run_until("it has stopped", |t| t.count("clean stops") == 1);
    let segment = files(&mut t, ".log").last().unwrap().clone();
    let last = *batch_positions(&t.disk(0).content(0, &segment)).last().unwrap();
    t.damage_at(0, &segment, |disk| disk.flip(0, &segment, last + 70, 1));
    t.run_until("it refuses", |t| t.has_said(0, "which had been on stable storage"));
    ends_with_everything(t);
}

#[test]
fn a_write_that_landed_elsewhere_is_noticed_by_whoever_reads_there() {
    let mut t = filled(6);
    let segment = files(&mut t, ".log")[1].clone();
    let content = t.disk(0).content(0, &segment);
    let batches = batch_positions(&content);
    // Writes a whole batch, with its right checksum, over a later batch or over a part of one.
    let (from, to) = (batches[0] as usize, batches[3]);
    let len = (batches[1] - batches[0]) as usize;
    t.damage_at(0, &segment, |disk| disk.overwrite(0, &segment, to, &content[from..from + len]));
    t.fetcher();
    t.run_until("a reader has come to it", |t| t.corrupt() > 0 || !t.refusals(FETCH).is_empty());
    ends_with_everything(t);
}

#[test]
fn a_write_that_never_reached_the_platter_is_refused_where_it_was_stable() {
    for restarted in [false, true] {
        let mut t = filled(13);
        let segment = files(&mut t, ".log").last().unwrap().clone();
        let at = batch_positions(&t.disk(0).content(0, &segment))[0] + 16;
        t.damage_at(0, &segment, |disk| disk.overwrite(0, &segment, at, &[0; 60]));
        if restarted {
            t.cut_power(0);
            t.run_until("it refuses", |t| t.has_said(0, "which had been on stable storage"));
        } else {
            t.fetcher();
            t.run_until("a reader has come to it", |t| t.corrupt() > 0 || !t.refusals(FETCH).is_empty());
        }
        ends_with_everything(t);
    }
}

/// Like [`filled`], with much more metadata: a topic of many partitions, small segments, a snapshot at every record.
fn with_metadata(seed: u64) -> Script {
    let mut t = Script::with(seed, |scenario| {
        for (name, value) in [
            ("metadata.log.max.record.bytes.between.snapshots", "1"),
            ("internal.metadata.log.segment.bytes", "4096"),
            ("log.flush.offset.checkpoint.interval.ms", "100"),
        ] {
            scenario.properties.insert(name.into(), value.into());
        }
    });
    t.producer_with(200, |plan| plan.gap_ns_max = MS);
    t.run_until("everything is acknowledged", |t| t.acknowledged() == 200);
    t.restart(0);
    t.run_for(500);
    t
}

#[test]
fn a_damaged_snapshot_of_the_metadata_is_left_out_for_the_one_before() {
    let mut t = with_metadata(14);
    let is_snapshot = |path: &String| path.starts_with("__cluster_metadata-0/") && path.ends_with(".checkpoint");
    let snapshot = t.disk(0).files(0).into_iter().rfind(is_snapshot).expect("it has snapshots");
    let len = t.disk(0).content(0, &snapshot).len() as u64;
    t.disk(0).flip(0, &snapshot, len - 1, 1);
    t.kill(0);
    t.run_until("it is left out", |t| t.has_said(0, "is not used"));
    ends_with_everything(t);
}

#[test]
fn a_node_whose_snapshots_of_the_metadata_are_all_damaged_does_not_begin_with_half_of_it() {
    let mut t = with_metadata(16);
    t.deal(0, Fault::Damage { damage: Damage::Snapshots, for_ns: 300 * MS });
    t.run_until("it gives up", |t| t.count("processes that gave up") > 0);
    assert!(t.has_said(0, "and no valid snapshot reaches that far"), "{}", t.story());
    ends_with_everything(t);
}

#[test]
fn a_damaged_metadata_log_stops_the_broker_and_no_partition_is_taken_for_deleted() {
    let mut t = with_metadata(15);
    let is_log = |path: &String| path.starts_with("__cluster_metadata-0/") && path.ends_with(".log");
    let logs: Vec<String> = t.disk(0).files(0).into_iter().filter(is_log).collect();
    let snapshots = t.disk(0).files(0).into_iter().filter(|path| path.ends_with(".checkpoint"));
    let snapshots: Vec<String> = snapshots.filter(|path| path.starts_with("__cluster")).collect();
    for path in logs.iter().chain(&snapshots) {
        for at in batch_positions(&t.disk(0).content(0, path)) {
            t.disk(0).flip(0, path, at + 64, 1);
        }
    }
    t.kill(0);
    t.run_until("it gives up", |t| t.count("processes that gave up") > 0);
    assert!(!t.is_up(0));
    ends_with_everything(t);
}

#[test]
fn a_sector_that_cannot_be_read_fails_the_fetch_and_the_recovery_and_loses_nothing() {
    let mut t = filled(7);
    let segment = files(&mut t, ".log")[1].clone();
    t.damage_at(0, &segment, |disk| disk.go_bad(0, &segment, 512, 1_024));
    t.fetcher();
    t.run_for(500);
    assert!(t.read() < 200);
    assert!(t.count("connections broken") > 0 || !t.refusals(FETCH).is_empty(), "{}", t.story());
    let last = files(&mut t, ".log").last().unwrap().clone();
    t.damage_at(0, &last, |disk| disk.go_bad(0, &last, 0, 512));
    t.cut_power(0);
    t.run_until("the recovery cannot read it", |t| t.has_said(0, "input/output error"));
    ends_with_everything(t);
}

#[test]
fn indexes_and_snapshots_that_are_flipped_zeroed_or_gone_are_rebuilt() {
    for end in [".index", ".timeindex", ".snapshot"] {
        for way in 0..3 {
            let mut t = filled(8);
            t.restart(0);
            for (place, path) in files(&mut t, end).into_iter().enumerate() {
                let len = t.disk(0).content(0, &path).len() as u64;
                match way {
                    0 => t.disk(0).lose(0, &path),
                    1 => t.disk(0).zero(0, &path),
                    // The position of an entry, the offset of an entry, a producer's state.
                    _ if len > 11 => t.disk(0).flip(0, &path, [7, 3, 11][place % 3].min(len - 1), 1),
                    _ => {}
                }
            }
            t.fetcher();
            if end != ".timeindex" || way < 2 {
                t.lister();
            }
            t.run_until("everything is read", |t| t.read() >= 200);
            t.restart(0);
            t.cut_power(0);
            t.run_until("it is up again", |t| t.is_up(0));
            ends_with_everything(t);
        }
    }
}

#[test]
fn checkpoints_that_are_zeroed_or_gone_are_rebuilt() {
    let names = [
        "recovery-point-offset-checkpoint",
        "replication-offset-checkpoint",
        "topic-0-0/leader-epoch-checkpoint",
        "__cluster_metadata-0/leader-epoch-checkpoint",
    ];
    for name in names {
        for zeroed in [false, true] {
            for clean in [false, true] {
                let mut t = filled(9);
                if clean {
                    t.restart(0);
                }
                if zeroed {
                    t.disk(0).zero(0, name)
                } else {
                    t.disk(0).lose(0, name)
                }
                if clean {
                    t.restart(0)
                } else {
                    t.cut_power(0)
                }
                t.run_until("it is up again", |t| t.is_up(0));
                ends_with_everything(t);
            }
        }
    }
}

#[test]
fn a_lost_marker_of_a_clean_stop_costs_a_recovery_and_no_more() {
    let mut t = filled(10);
    t.deal(0, Fault::Stop { loss: tidelog_sim::disk::Loss::Process, down_ns: 100 * MS, crash_after_steps: None });
    t.run_until("it has stopped", |t| t.count("clean stops") == 1);
    t.disk(0).lose(0, ".kafka_cleanshutdown");
    t.run_until("it is up again", |t| t.is_up(0));
    ends_with_everything(t);
}

#[test]
fn a_volume_that_is_not_mounted_is_waited_for_and_not_begun_anew() {
    for dir in 0..2 {
        let mut t = Script::with(11, |scenario| scenario.disk.directories = 2);
        t.producer(100);
        t.run_until("some are acknowledged", |t| t.acknowledged() >= 20);
        t.deal(0, Fault::Unmount { dir, for_ns: 3_000 * MS });
        let before = t.acknowledged();
        t.run_for(2_500);
        assert!(t.count("processes that gave up") > 0, "{}", t.story());
        assert!(t.has_said(0, "may not be mounted"), "{}", t.story());
        assert_eq!(t.acknowledged(), before);
        t.run_until("the rest is acknowledged", |t| t.acknowledged() == 100);
        assert_eq!(t.ends_well().values().map(Vec::len).sum::<usize>(), 100);
    }
}

#[test]
fn a_node_that_was_reformatted_is_a_new_cluster_and_says_so() {
    let mut t = Script::new(12);
    t.producer(20);
    t.run_until("everything is acknowledged", |t| t.acknowledged() == 20);
    t.cut_power(0);
    t.disk(0).reformat();
    t.run_until("it is up again", |t| t.is_up(0));
    assert!(t.has_said(0, "it now belongs to cluster"));
    // With one replica the records are gone. The new cluster must not invent them, so the checkers must find the loss.
    assert!(t.ends().violation.is_some(), "what was acknowledged is gone, and the topic is another");
}

#[test]
fn whatever_the_atlas_deals_is_rebuilt_or_refused_and_all_is_there_once_it_is_restored() {
    let mut dealt = 0;
    for seed in 0..60 {
        let mut t = filled(seed);
        t.fetcher();
        t.lister();
        let mut stream = stream(seed, "atlas", &[]);
        for _ in 0..6 {
            let damage = *stream.pick(&[Damage::Flip, Damage::Misdirected, Damage::Latent, Damage::Hint]);
            t.deal(0, Fault::Damage { damage, for_ns: stream.skewed(1_000 * MS) });
            if stream.one_in(2) {
                t.cut_power(0);
            }
            t.run_for(stream.skewed(400));
        }
        dealt += t.count("bytes damaged");
        ends_with_everything(t);
    }
    assert!(dealt > 200, "{dealt}");
}

#[test]
fn errors_of_reads_and_damage_at_once_lose_nothing() {
    for seed in 0..20 {
        let mut t = filled(seed);
        t.fetcher();
        t.on_disk(0, |disk| disk.read_error = Ratio::new(1, 10));
        t.deal(0, Fault::Damage { damage: Damage::Flip, for_ns: 300 * MS });
        t.run_for(1_000);
        t.on_disk(0, |disk| disk.read_error = Ratio::NEVER);
        ends_with_everything(t);
    }
}

/// Where the batches of a segment begin.
fn batch_positions(content: &[u8]) -> Vec<u64> {
    let mut positions = Vec::new();
    let mut at = 0;
    while let Some(len) = content.get(at + 8..at + 12) {
        positions.push(at as u64);
        at += 12 + u32::from_be_bytes(len.try_into().unwrap()) as usize;
    }
    positions
}
