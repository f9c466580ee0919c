//! What a client knows about its cluster: the brokers, and the topics that it works with.
//!
//! Invariant: the leader epoch of a partition never falls while the topic id is the same (KIP-320). So an answer from a
//! broker whose metadata is old does not replace newer knowledge.

use super::Address;
use bytestring::ByteString;
use std::collections::{BTreeMap, BTreeSet};
use tidelog_wire::ErrorCode;
use tidelog_wire::ids::{LeaderEpoch, NodeId, Uuid};
use tidelog_wire::messages::{MetadataResponse, metadata_response};

#[derive(Clone, Debug, Default)]
pub struct Metadata {
    pub cluster_id: Option<ByteString>,
    pub controller: Option<NodeId>,
    pub brokers: BTreeMap<NodeId, Address>,
    /// What is known about the topics in `wanted`.
    topics: BTreeMap<ByteString, TopicMetadata>,
    /// The topics whose metadata is asked for.
    wanted: BTreeSet<ByteString>,
    /// How many answers were taken over. It shows whether there is something new.
    pub version: u64,
}

/// What is known about a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Zero if the broker is too old to send it (KIP-516).
    pub id: Uuid,
    /// The error that the last answer had for this topic.
    pub error: ErrorCode,
    /// The leader of each partition, by its index.
    pub partitions: Vec<Leader>,
}

/// The leader of a partition, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    pub node: Option<NodeId>,
    pub epoch: LeaderEpoch,
}

impl Metadata {
    /// Asks for this topic from now on. Returns false if it was asked for already.
    pub fn want(&mut self, topic: &ByteString) -> bool {
        !self.wanted.contains(topic) && self.wanted.insert(topic.clone())
    }

    pub fn forget(&mut self, topic: &str) {
        self.wanted.remove(topic);
        self.topics.remove(topic);
    }

    pub fn wanted(&self) -> impl Iterator<Item = &ByteString> {
        self.wanted.iter()
    }

    pub fn topic(&self, name: &str) -> Option<&TopicMetadata> {
        self.topics.get(name)
    }

    /// How many partitions a topic has, if it is known.
    pub fn partitions(&self, name: &str) -> Option<usize> {
        self.topic(name).map(|topic| topic.partitions.len()).filter(|count| *count > 0)
    }

    pub fn leader(&self, topic: &str, partition: i32) -> Option<Leader> {
        self.topic(topic)?.partitions.get(usize::try_from(partition).ok()?).copied()
    }

    /// The leader of a partition, if its address is known.
    pub fn leader_node(&self, topic: &str, partition: i32) -> Option<NodeId> {
        self.leader(topic, partition)?.node.filter(|node| self.brokers.contains_key(node))
    }

    pub fn topic_id(&self, name: &str) -> Uuid {
        self.topic(name).map_or(Uuid::ZERO, |topic| topic.id)
    }

    pub fn name_of(&self, id: Uuid) -> Option<&ByteString> {
        self.topics.iter().find(|(_, topic)| topic.id == id).map(|(name, _)| name)
    }

    /// Takes the leader of a partition from a broker's answer (KIP-951). Returns whether its epoch is newer than the
    /// known one.
    pub fn learn_leader(&mut self, topic: &str, partition: i32, node: NodeId, epoch: LeaderEpoch) -> bool {
        let leader = usize::try_from(partition)
            .ok()
            .and_then(|place| self.topics.get_mut(topic).and_then(|topic| topic.partitions.get_mut(place)));
        match leader {
            Some(leader) if leader.epoch < epoch && self.brokers.contains_key(&node) => {
                *leader = Leader { node: Some(node), epoch };
                true
            }
            _ => false,
        }
    }

    /// Takes over the answer to a Metadata request. Returns whether something is missing that another request may
    /// bring.
    pub fn learn(&mut self, response: &MetadataResponse) -> bool {
        self.version += 1;
        self.cluster_id.clone_from(&response.cluster_id);
        self.controller = (response.controller_id >= 0).then_some(NodeId(response.controller_id));
        let address = |broker: &metadata_response::MetadataResponseBroker| {
            let port = u16::try_from(broker.port).ok()?;
            Some((NodeId(broker.node_id), Address::new(broker.host.clone(), port)))
        };
        self.brokers = response.brokers.iter().filter_map(address).collect();
        let mut missing = false;
        for topic in &response.topics {
            let Some(name) = topic.name.clone().filter(|name| self.wanted.contains(name)) else { continue };
            let error = ErrorCode::from_code(topic.error_code).unwrap_or(ErrorCode::UnknownServerError);
            let before = self.topics.get(&name);
            let learnt = if error.is_error() {
                missing |= super::is_retriable(error);
                // The error may be temporary, so what is known about the topic is kept.
                let (id, partitions) = before.map_or((Uuid::ZERO, Vec::new()), |it| (it.id, it.partitions.clone()));
                TopicMetadata { id, error, partitions }
            } else {
                let partitions = leaders(topic, before);
                missing |= partitions.iter().any(|leader| leader.node.is_none());
                TopicMetadata { id: topic.topic_id, error, partitions }
            };
            self.topics.insert(name, learnt);
        }
        missing
    }
}

/// The leaders of a topic's partitions. A leader in `before` is kept if its epoch is newer.
fn leaders(topic: &metadata_response::MetadataResponseTopic, before: Option<&TopicMetadata>) -> Vec<Leader> {
    let before = before.filter(|before| before.id == topic.topic_id).map_or(&[][..], |before| &before.partitions);
    let count = topic.partitions.iter().map(|partition| partition.partition_index + 1).max().unwrap_or(0).max(0);
    let mut leaders = vec![Leader { node: None, epoch: LeaderEpoch::UNKNOWN }; count as usize];
    for partition in &topic.partitions {
        let Ok(place) = usize::try_from(partition.partition_index) else { continue };
        let node = (partition.error_code == 0 && partition.leader_id >= 0).then_some(NodeId(partition.leader_id));
        let new = Leader { node, epoch: LeaderEpoch(partition.leader_epoch) };
        let known = before.get(place).copied().filter(|known| known.epoch > new.epoch && new.epoch.0 >= 0);
        leaders[place] = known.unwrap_or(new);
    }
    leaders
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};

    fn response(id: u8, epoch: i32, leader: i32) -> MetadataResponse {
        let partition = MetadataResponsePartition {
            leader_id: leader,
            leader_epoch: epoch,
            ..MetadataResponsePartition::default()
        };
        let topic = MetadataResponseTopic {
            name: Some("t".into()),
            topic_id: Uuid::from_bytes([id; 16]),
            partitions: vec![partition],
            ..MetadataResponseTopic::default()
        };
        let broker = |node_id| MetadataResponseBroker { node_id, host: "h".into(), port: 1, ..Default::default() };
        MetadataResponse { brokers: vec![broker(1), broker(2)], topics: vec![topic], ..Default::default() }
    }

    #[test]
    fn a_leader_epoch_does_not_fall_unless_the_topic_id_changes() {
        let mut metadata = Metadata::default();
        assert!(metadata.want(&"t".into()) && !metadata.want(&"t".into()));
        assert!(!metadata.learn(&response(1, 5, 1)));
        metadata.learn(&response(1, 4, 2));
        let leader = |node, epoch| Some(Leader { node: Some(NodeId(node)), epoch: LeaderEpoch(epoch) });
        assert_eq!(metadata.leader("t", 0), leader(1, 5));
        metadata.learn(&response(2, 0, 2));
        assert_eq!(metadata.leader("t", 0), leader(2, 0));
        assert!(metadata.learn_leader("t", 0, NodeId(1), LeaderEpoch(3)));
        assert!(!metadata.learn_leader("t", 0, NodeId(2), LeaderEpoch(3)));
        assert_eq!(metadata.leader_node("t", 0), Some(NodeId(1)));
        assert_eq!(metadata.leader_node("t", 1), None);
    }

    #[test]
    fn a_partition_without_a_leader_and_an_unknown_topic_are_asked_for_again() {
        let mut metadata = Metadata::default();
        metadata.want(&"t".into());
        assert!(metadata.learn(&response(1, 5, -1)));
        let mut unknown = response(1, 0, 1);
        unknown.topics[0].error_code = ErrorCode::UnknownTopicOrPartition.code();
        assert!(metadata.learn(&unknown));
        unknown.topics[0].error_code = ErrorCode::InvalidTopicException.code();
        assert!(!metadata.learn(&unknown));
    }
}
