//! Configurations with the smallest sizes, which are reached all the time.

use tidelog_sim::client::records::Codec;
use tidelog_sim::disk::Loss;
use tidelog_sim::scenario::Fault;
use tidelog_sim::script::Script;

const MS: u64 = 1_000_000;

fn configured(seed: u64, topic: &[(&str, &str)], broker: &[(&str, &str)]) -> Script {
    let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    Script::with(seed, |scenario| {
        scenario.topics[0].configs.extend(topic.iter().map(owned));
        scenario.properties.extend(broker.iter().map(owned));
    })
}

/// How many segments the one partition has.
fn segments(t: &mut Script) -> usize {
    t.disk(0).files(0).iter().filter(|path| path.starts_with("topic-0-0/") && path.ends_with(".log")).count()
}

#[test]
fn the_smallest_segments_and_indexes_roll_all_the_time_and_lose_nothing() {
    for topic in [
        &[("internal.segment.bytes", "1024")][..],
        &[("segment.index.bytes", "24"), ("index.interval.bytes", "0")],
        &[("segment.ms", "1"), ("segment.jitter.ms", "0")],
    ] {
        let mut t = configured(1, topic, &[]);
        t.producer_with(200, |plan| (plan.gap_ns_max, plan.requests_in_flight_max) = (20 * MS, 1));
        t.fetcher();
        t.run_until("everything is acknowledged", |t| t.acknowledged() == 200);
        assert!(segments(&mut t) > 10, "{topic:?}: {}", segments(&mut t));
        t.lister();
        t.run_for(200);
        t.cut_power(0);
        assert_eq!(t.ends_well().values().next().unwrap().len(), 200, "{topic:?}");
    }
}

#[test]
fn nodes_that_give_each_other_up_soon_and_a_busy_metadata_log_cost_no_record() {
    let ms = |name: &str, ms: u64| (name.to_string(), ms.to_string());
    let times = [
        ms("controller.quorum.fetch.timeout.ms", 300),
        ms("controller.quorum.election.timeout.ms", 50),
        ms("controller.quorum.election.backoff.max.ms", 20),
        ms("controller.quorum.request.timeout.ms", 200),
        ms("controller.quorum.retry.backoff.ms", 1),
        ms("broker.session.timeout.ms", 300),
        ms("broker.heartbeat.interval.ms", 30),
        ms("metadata.max.idle.interval.ms", 20),
    ];
    let mut t = Script::with(3, |scenario| {
        scenario.nodes = 3;
        scenario.properties.extend(times);
    });
    t.producer_with(200, |plan| plan.gap_ns_max = 100 * MS);
    t.run_until("records are acknowledged", |t| t.acknowledged() > 0);
    for node in [0, 1, 2, 0, 1, 2] {
        // Longer than its session: another node leads the quorum, and fences this one.
        t.deal(node, Fault::Crash { loss: Loss::Power, down_ns: 800 * MS, again_after_steps: Vec::new() });
        t.run_for(2_000);
    }
    assert_eq!(t.ends_well().values().map(Vec::len).sum::<usize>(), 200);
}

#[test]
fn records_leave_after_a_second_or_a_few_bytes_and_readers_go_on_where_the_log_starts() {
    for topic in [("retention.ms", "1000"), ("retention.bytes", "1000")] {
        let topic = [topic, ("internal.segment.bytes", "1024"), ("file.delete.delay.ms", "0")];
        let mut t = configured(2, &topic, &[("log.retention.check.interval.ms", "100")]);
        t.producer_with(400, |plan| plan.gap_ns_max = 100 * MS);
        t.fetcher();
        t.run_until("everything is acknowledged", |t| t.acknowledged() == 400);
        t.run_for(10_000);
        t.fetcher();
        t.run_for(1_000);
        let left = t.ends_well().values().next().map_or(0, Vec::len);
        assert!(left < 100, "{topic:?}: {left} are left");
    }
}

#[test]
fn records_without_timestamps_leave_a_second_after_the_last_of_them_whatever_restarts_meanwhile() {
    let mut t = Script::with(2, |scenario| {
        scenario.topics[0].without_timestamps = true;
        scenario.topics[0].configs.insert("retention.ms".into(), "1000".into());
        for (name, value) in [("log.retention.check.interval.ms", "100"), ("log.segment.delete.delay.ms", "0")] {
            scenario.properties.insert(name.into(), value.into());
        }
    });
    let is_there = |t: &mut Script| t.disk(0).files(0).iter().any(|path| path == "topic-0-0/00000000000000000000.log");
    t.producer_with(200, |plan| plan.gap_ns_max = 500 * MS);
    t.fetcher();
    t.run_until("everything is acknowledged", |t| t.acknowledged() == 200);
    assert!(t.now_ms() > 3_000 && is_there(&mut t), "records came all the time, for {} ms", t.now_ms());
    for _ in 0..3 {
        t.run_for(400);
        t.cut_power(0);
        t.run_until("it is up again", |t| t.is_up(0));
    }
    t.run_for(500);
    assert!(!is_there(&mut t), "the last record came more than a second ago");
    assert_eq!(t.ends_well().values().next().map_or(0, Vec::len), 0);
}

#[test]
fn a_broker_without_room_for_fetch_sessions_serves_full_fetches() {
    for slots in ["0", "1"] {
        let mut t = configured(3, &[], &[("max.incremental.fetch.session.cache.slots", slots)]);
        t.producer(60);
        for _ in 0..3 {
            t.fetcher_with(|plan| plan.with_session = true);
        }
        t.run_until("everything is read", |t| t.read() >= 180);
        assert_eq!(t.ends_well().values().next().unwrap().len(), 60);
    }
}

#[test]
fn a_snapshot_of_the_metadata_at_every_record_and_tiny_segments_of_its_log_are_read_at_every_start() {
    let broker =
        [("metadata.log.max.record.bytes.between.snapshots", "1"), ("internal.metadata.log.segment.bytes", "1024")];
    let mut t = configured(4, &[], &broker);
    t.producer(60);
    for _ in 0..5 {
        t.run_for(20);
        t.restart(0);
        t.cut_power(0);
        t.run_until("it is up again", |t| t.is_up(0));
    }
    let is_snapshot = |path: &&String| path.starts_with("__cluster_metadata-0/") && path.ends_with(".checkpoint");
    let snapshots = t.disk(0).files(0).iter().filter(is_snapshot).count();
    assert!((1..=3).contains(&snapshots), "{snapshots}: the old ones leave");
    assert_eq!(t.ends_well().values().next().unwrap().len(), 60);
}

#[test]
fn a_topic_that_is_flushed_now_and_then_loses_no_more_than_what_came_since() {
    let topic = [("acks.require.fsync", "false"), ("flush.messages", "5"), ("flush.ms", "50")];
    let mut t = configured(5, &topic, &[]);
    t.producer_with(100, |plan| plan.gap_ns_max = MS);
    t.run_until("everything is acknowledged", |t| t.acknowledged() == 100);
    t.run_for(200);
    t.cut_power(0);
    assert_eq!(t.ends_well().values().next().unwrap().len(), 100, "all of it was flushed by then");
}

#[test]
fn what_the_topic_compresses_and_stamps_anew_is_read_back_whole() {
    for codec in ["gzip", "snappy", "lz4", "zstd", "uncompressed"] {
        let topic = [("compression.type", codec), ("message.timestamp.type", "LogAppendTime")];
        let mut t = configured(6, &topic, &[]);
        t.producer_with(30, |plan| (plan.batch_records_max, plan.codec) = (10, Codec::Lz4));
        t.producer_with(30, |plan| plan.batch_records_max = 10);
        t.run_until("everything is acknowledged", |t| t.acknowledged() == 60);
        t.cut_power(0);
        assert!(t.ends_well().values().next().unwrap().len() > 60, "{codec}");
    }
}

#[test]
fn a_topic_that_is_made_by_the_way_survives_a_power_cut_in_the_middle_of_it() {
    for events in 0..60 {
        let mut t = Script::with(events.into(), |scenario| {
            scenario.topics[0].auto_created = true;
            scenario.properties.insert("auto.create.topics.enable".into(), "true".into());
        });
        t.producer(10);
        t.run_until("it is up", |t| t.is_up(0));
        t.run_events(2 * events);
        t.cut_power(0);
        assert_eq!(t.ends_well().values().next().unwrap().len(), 10, "after {events}");
    }
}
