//! Topics, and the broker's properties.

use super::slowness;
use crate::client::TopicPlan;
use crate::network::NetworkOptions;
use crate::random::{Stream, Streams};
use crate::scenario::Profile;
use std::collections::BTreeMap;

pub fn draw(profile: Profile, streams: &mut Streams<'_>) -> Vec<TopicPlan> {
    let mut swarm = streams.stream("scenario.topics", &[]);
    let mut draw = |place: u64, stream: &mut Stream| {
        let auto_created = stream.one_in(4);
        let mut configs = BTreeMap::new();
        let mut set = |name: &str, value: String| {
            if !auto_created {
                configs.insert(name.to_string(), value);
            }
        };
        if !stream.one_in(4) {
            set("internal.segment.bytes", (1 << (10 + stream.below(6))).to_string());
        }
        if stream.one_in(4) {
            set("retention.ms", stream.between(1_000, 3_000).to_string());
        }
        if stream.one_in(4) {
            set("retention.bytes", [0, 1_000, 4_000, 20_000][stream.below(4) as usize].to_string());
        }
        if stream.one_in(2) {
            set("file.delete.delay.ms", [0, 100, 1_000][stream.below(3) as usize].to_string());
        }
        if stream.one_in(2) {
            set("index.interval.bytes", [0, 1, 100, 1_000][stream.below(4) as usize].to_string());
        }
        if stream.one_in(4) {
            set("segment.index.bytes", [24, 120, 1_000][stream.below(3) as usize].to_string());
        }
        if stream.one_in(4) {
            set("message.timestamp.type", "LogAppendTime".into());
        }
        if stream.one_in(5) {
            set("compression.type", ["gzip", "snappy", "lz4", "zstd", "uncompressed"][stream.below(5) as usize].into());
        }
        if stream.one_in(6) {
            set("acks.require.fsync", "false".into());
            if stream.one_in(2) {
                set("flush.messages", [1, 3, 20][stream.below(3) as usize].to_string());
            }
            if stream.one_in(2) {
                set("flush.ms", [0, 10, 500][stream.below(3) as usize].to_string());
            }
        }
        if stream.one_in(8) {
            set("preallocate", "true".into());
        }
        let mut times = streams.stream("scenario.topic.times", &[place]);
        if times.one_in(5) {
            set("segment.ms", times.pick(&[1, 50, 1_000]).to_string());
            set("segment.jitter.ms", times.pick(&[0, 20]).to_string());
        }
        if times.one_in(6) {
            set("flush.messages", times.between(1, 5).to_string());
            set("flush.ms", times.between(0, 100).to_string());
        }
        let partitions = match profile {
            Profile::Lite => stream.between(1, 2) as i32,
            Profile::Swarm if stream.one_in(16) => [8, 16, 32][stream.below(3) as usize],
            Profile::Swarm => stream.between(1, 4) as i32,
        };
        // More often where it matters to retention.
        let among = if configs.contains_key("retention.ms") { 2 } else { 8 };
        let without_timestamps = times.one_in(among);
        TopicPlan { name: format!("topic-{place}"), partitions, replicas: 1, auto_created, configs, without_timestamps }
    };
    let count = match profile {
        Profile::Swarm if swarm.one_in(3) => swarm.between(2, 3),
        _ => 1,
    };
    let mut topics: Vec<TopicPlan> = (0..count).map(|place| draw(place, &mut swarm)).collect();
    // Topics that are created automatically all have the number of partitions that the broker's `num.partitions` says.
    let default = topics[0].partitions;
    topics.iter_mut().filter(|topic| topic.auto_created).for_each(|topic| topic.partitions = default);
    topics
}

pub fn smallest_segment(topics: &[TopicPlan]) -> u32 {
    let segments = topics.iter().filter_map(|topic| topic.configs.get("internal.segment.bytes")?.parse().ok());
    segments.min().unwrap_or(1 << 20)
}

/// Broker properties that are drawn. Each has its name, in how many seeds one sets it, and the values to choose from.
const PROPERTIES: [(&str, u32, &[&str]); 12] = [
    ("max.incremental.fetch.session.cache.slots", 3, &["0", "1", "2"]),
    ("metadata.log.max.record.bytes.between.snapshots", 3, &["1", "500", "2000"]),
    ("internal.metadata.log.segment.bytes", 3, &["1024", "4096"]),
    ("log.flush.offset.checkpoint.interval.ms", 3, &["100", "1000"]),
    ("log.flush.start.offset.checkpoint.interval.ms", 4, &["100", "1000"]),
    ("replica.high.watermark.checkpoint.interval.ms", 4, &["20", "100"]),
    ("metadata.log.max.snapshot.interval.ms", 4, &["1", "200"]),
    ("max.request.partition.size.limit", 4, &["1", "2"]),
    ("log.segment.delete.delay.ms", 4, &["0", "300"]),
    ("log.index.size.max.bytes", 6, &["24", "120"]),
    ("log.index.interval.bytes", 4, &["0", "64", "512"]),
    ("controlled.shutdown.enable", 8, &["false"]),
];

pub fn draw_properties(stream: &mut Stream, topics: &[TopicPlan]) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    let mut set = |name: &str, value: &str| properties.insert(name.to_string(), value.to_string());
    set("num.partitions", &topics[0].partitions.to_string());
    set("auto.create.topics.enable", "true");
    // On a node whose wall clock was set back by an hour, the timestamps of clients lie in the future.
    set("log.message.timestamp.after.max.ms", "86400000");
    if topics.iter().any(TopicPlan::has_retention) || stream.one_in(5) {
        set("log.retention.check.interval.ms", ["100", "500", "1000"][stream.below(3) as usize]);
    }
    for (name, among, values) in PROPERTIES {
        if stream.one_in(among) {
            let value = stream.pick(values);
            set(name, value);
        }
    }
    properties
}

/// How many replicas the topics of a cluster have, and how their brokers replicate. What is as short as the network is
/// slow would let no follower stay in sync.
pub fn draw_replicas(
    stream: &mut Stream,
    topics: &mut [TopicPlan],
    brokers: usize,
    network: &NetworkOptions,
) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    if brokers == 1 || stream.one_in(4) {
        return properties;
    }
    let mut set = |name: &str, value: String| properties.insert(name.to_string(), value);
    let most = brokers.min(REPLICAS_MAX) as u64;
    let default = stream.between(1, most) as i16;
    set("default.replication.factor", default.to_string());
    for topic in topics {
        topic.replicas = if topic.auto_created { default } else { stream.between(1, most) as i16 };
        if !topic.auto_created && topic.replicas > 1 && stream.one_in(2) {
            let least = stream.between(1, topic.replicas as u64);
            topic.configs.insert("min.insync.replicas".into(), least.to_string());
        }
    }
    let slowness = slowness(network);
    if stream.one_in(2) {
        set("replica.lag.time.max.ms", (slowness * stream.pick(&[500, 1_000, 3_000])).to_string());
    }
    for (name, among, values) in OF_REPLICATION {
        if stream.one_in(among) {
            set(name, stream.pick(values).to_string());
        }
    }
    // A follower that asks for more than it may be given waits for each batch as long as it can.
    let is_bounded = ["replica.fetch.max.bytes", "replica.fetch.response.max.bytes"];
    if is_bounded.iter().all(|name| !properties.contains_key(*name)) && stream.one_in(4) {
        properties.insert("replica.fetch.min.bytes".into(), stream.pick(&["100", "5000"]).to_string());
    }
    properties
}

/// The most replicas that are drawn for a partition.
const REPLICAS_MAX: usize = 5;

/// Properties of replication, as in [`PROPERTIES`].
const OF_REPLICATION: [(&str, u32, &[&str]); 5] = [
    ("num.replica.fetchers", 3, &["2", "3"]),
    ("replica.fetch.wait.max.ms", 3, &["1", "50"]),
    ("replica.fetch.max.bytes", 4, &["1", "500"]),
    ("replica.fetch.response.max.bytes", 4, &["1", "2000"]),
    ("replica.fetch.backoff.ms", 3, &["1", "100"]),
];
