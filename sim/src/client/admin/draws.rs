//! Draws the changes that an administrator asks for.

use super::Admin;
use crate::client::sessions::Host;
use crate::history::Change;
use crate::random::Stream;
use std::collections::BTreeMap;

/// Topic configs and their values, each value spelled as a broker shows it.
const TOPIC: &[(&str, &[&str])] = &[
    ("compression.gzip.level", &["1", "9"]),
    ("compression.type", &["gzip", "snappy", "lz4", "zstd", "uncompressed", "producer"]),
    ("file.delete.delay.ms", &["0", "100", "60000"]),
    ("flush.messages", &["1", "100"]),
    ("flush.ms", &["0", "50"]),
    ("index.interval.bytes", &["0", "100", "4096"]),
    ("internal.segment.bytes", &["1024", "2048", "8192"]),
    ("max.message.bytes", &["2000", "1048588"]),
    ("message.timestamp.type", &["CreateTime", "LogAppendTime"]),
    ("min.insync.replicas", &["1"]),
    ("preallocate", &["false", "true"]),
    ("segment.bytes", &["1048576", "2000000"]),
    ("segment.index.bytes", &["24", "120", "10485760"]),
    ("segment.jitter.ms", &["0", "50"]),
    ("segment.ms", &["1", "100", "604800000"]),
];

/// Topic configs that let records be deleted by age or size, or be lost with the page cache.
const SHEDDING: &[(&str, &[&str])] = &[
    ("acks.require.fsync", &["true", "false"]),
    ("retention.bytes", &["0", "500", "5000", "-1"]),
    ("retention.ms", &["100", "1000", "-1"]),
];

/// Configs of all brokers that do not change whether a topic may lose records.
const BROKERS: &[(&str, &[&str])] = &[
    ("log.flush.interval.messages", &["1", "1000"]),
    ("log.index.interval.bytes", &["0", "64", "4096"]),
    ("log.index.size.max.bytes", &["240", "10485760"]),
    ("log.segment.delete.delay.ms", &["0", "500", "60000"]),
    ("max.connections", &["1000", "2147483647"]),
    ("max.connections.per.ip", &["1000", "2147483647"]),
    ("message.max.bytes", &["1000000", "1048588"]),
];

/// Configs of a subscription to clients' metrics.
const SUBSCRIPTION: &[(&str, &[&str])] = &[
    ("interval.ms", &["100", "300000", "3600000"]),
    ("match", &["", "client_id=a.*", "client_software_name=x,client_source_port=[0-9]+"]),
    ("metrics", &["", "*", "org.apache.kafka.producer.,org.apache.kafka.consumer."]),
];

/// Whether administrators change this config of all brokers. A new cluster begins with others, which they leave alone.
pub(super) fn is_of_brokers(name: &str) -> bool {
    BROKERS.iter().any(|(known, _)| *known == name)
}

fn draw_config(table: &[(&str, &[&str])], stream: &mut Stream) -> (String, String) {
    let (name, values) = stream.pick(table);
    (name.to_string(), stream.pick(values).to_string())
}

fn draw_configs(table: &[(&str, &[&str])], at_most: u64, stream: &mut Stream) -> BTreeMap<String, String> {
    let count = stream.between(0, at_most);
    (0..count).map(|_| draw_config(table, stream)).collect()
}

impl Admin {
    /// Draws a change of a topic, or of the configs of what has nothing else; most can be made. Also draws whether it
    /// is only validated (`validate_only`).
    pub(super) fn draw_change(&mut self, to: Host, resource: usize) -> (Change, bool) {
        let can_delete_by_id = self.deletes_by_id(to);
        let stream = &mut self.stream;
        let set = |table: &[(&str, &[&str])], stream: &mut Stream| {
            let mut values = draw_configs(table, 3, stream);
            values.extend([draw_config(table, stream)]);
            let taken_back = |stream: &mut Stream| stream.one_in(3);
            let values = values.into_iter().map(|(name, value)| (name, (!taken_back(stream)).then_some(value)));
            Change::Set(values.collect())
        };
        let Some(own) = self.own.get(resource) else {
            let change = match resource == self.own.len() {
                true => set(BROKERS, stream),
                false if stream.one_in(3) => Change::Replace(draw_configs(SUBSCRIPTION, 3, stream)),
                false => set(SUBSCRIPTION, stream),
            };
            return (change, stream.one_in(8));
        };
        let table: Vec<(&str, &[&str])> = if own.sheds { [TOPIC, SHEDDING].concat() } else { TOPIC.to_vec() };
        let is_sensible = !stream.one_in(10);
        let create = |stream: &mut Stream| Change::Create {
            partitions: stream.between(1, self.plan.partitions_max as u64) as i32,
            configs: draw_configs(&table, 4, stream),
        };
        let change = match (own.seen, stream.below(8)) {
            (None, _) if is_sensible => create(stream),
            (_, 0) => create(stream),
            (Some(seen), 1) if can_delete_by_id && seen.id.is_some() => {
                Change::DeleteById(seen.id.expect("looked at above"))
            }
            (_, 1 | 2) => Change::Delete,
            (seen, 3 | 4) => {
                let partitions = seen.map_or(1, |seen| seen.partitions);
                let more = stream.between(1, 2) as i32;
                // More partitions than this would only make runs longer.
                let grows = is_sensible && partitions + more <= 2 * self.plan.partitions_max;
                Change::Grow(if grows { partitions + more } else { stream.between(1, partitions as u64) as i32 })
            }
            (_, 5) => Change::Replace(draw_configs(&table, 4, stream)),
            _ => set(&table, stream),
        };
        let can_be_asked = !matches!(change, Change::Delete | Change::DeleteById(_));
        (change, can_be_asked && stream.one_in(8))
    }
}
