//! A cluster of the brokers 1 to 5, each with one log directory, and one topic of one partition.

use super::*;
use tidelog_wire::messages::{ConfigRecord, FeatureLevelRecord, PartitionRecord};

pub const TOPIC: Uuid = Uuid::from_bytes([5; 16]);

/// The partition, as a record of it.
pub fn partition(replicas: &[i32], isr: &[i32], leader: i32) -> PartitionRecord {
    PartitionRecord {
        partition_id: 0,
        topic_id: TOPIC,
        replicas: replicas.into(),
        isr: isr.into(),
        leader,
        leader_epoch: 7,
        partition_epoch: 20,
        directories: replicas.iter().map(|id| dir(*id)).collect(),
        ..Default::default()
    }
}

/// The log directory of a broker.
pub fn dir(id: i32) -> Uuid {
    if id == 1 { DIR_A } else { Uuid::from_bytes([id as u8; 16]) }
}

impl Cluster {
    /// With `min.insync.replicas` of 2.
    pub fn of(partition: PartitionRecord) -> Self {
        let mut cluster = Self::new();
        for id in 2..=5 {
            cluster.start(NodeId(id), &[dir(id)]);
        }
        cluster.commit(&[
            TopicRecord { name: "t".into(), topic_id: TOPIC, ..Default::default() }.into(),
            partition.into(),
        ]);
        cluster.set("min.insync.replicas", "2");
        cluster
    }

    /// Sets a config of the topic, and changes nothing else.
    pub fn set(&mut self, name: &str, value: &str) {
        let config = ConfigRecord {
            resource_type: 2,
            resource_name: "t".into(),
            name: name.into(),
            value: Some(value.into()),
            ..Default::default()
        };
        self.commit(&[config.into()]);
    }

    pub fn level(&mut self, feature: &str, feature_level: i16) {
        self.commit(&[FeatureLevelRecord { name: feature.into(), feature_level, ..Default::default() }.into()]);
    }

    pub fn epoch_of(&self, id: i32) -> i64 {
        self.image.broker(NodeId(id)).unwrap().broker_epoch
    }

    /// The partition, in words.
    pub fn told(&self) -> String {
        let partition = self.partition("t", 0);
        let list = |what: &str, nodes: &[NodeId]| match nodes {
            [] => String::new(),
            _ => format!(", {what} {}", nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
        };
        format!(
            "{} leads{}{}{}{}{}{}{}, epochs {} {}",
            partition.leader.map_or("nobody".to_owned(), |leader| leader.to_string()),
            list("replicas", &partition.replicas),
            list("adding", &partition.adding),
            list("removing", &partition.removing),
            list("in sync", &partition.isr),
            list("eligible", &partition.eligible_leaders),
            list("last known", &partition.last_known_eligible_leaders),
            if partition.recovering { ", recovering" } else { "" },
            partition.leader_epoch,
            partition.partition_epoch
        )
    }
}
