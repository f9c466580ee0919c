//! The image: the cluster's metadata, as the records of the metadata log define it.
//!
//! Records that this broker has no use for yet (ACLs, SCRAM credentials, delegation tokens, quotas) are kept as they
//! came. So a snapshot of ours loses nothing that Apache Kafka has written.

use super::records;
use bytestring::ByteString;
use std::collections::BTreeMap;
use tidelog_wire::ids::{LeaderEpoch, NodeId, Uuid};
use tidelog_wire::messages::{
    ConfigRecord, FeatureLevelRecord, PartitionRecord, ProducerIdsRecord, RegisterBrokerRecord,
    RegisterControllerRecord, TopicRecord,
};
use tidelog_wire::{MetadataRecord, node_ids};

/// The metadata of the cluster, up to some record of the metadata log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    pub(super) topics: BTreeMap<Uuid, Topic>,
    pub(super) topic_ids: BTreeMap<ByteString, Uuid>,
    pub(super) configs: BTreeMap<ConfigResource, BTreeMap<String, String>>,
    pub(super) features: BTreeMap<ByteString, i16>,
    /// The registration of each broker, with all changes to it since.
    pub(super) brokers: BTreeMap<NodeId, RegisterBrokerRecord>,
    pub(super) controllers: BTreeMap<NodeId, RegisterControllerRecord>,
    pub(super) producer_ids: Option<ProducerIdsRecord>,
    /// Records that are only kept. A later record with the same key replaces or removes the earlier one.
    pub(super) kept: BTreeMap<KeptKey, MetadataRecord>,
    /// The records since a BeginTransactionRecord (KIP-868). They take effect with the EndTransactionRecord.
    pub(super) transaction: Option<Vec<MetadataRecord>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub id: Uuid,
    pub name: ByteString,
    /// Numbered from 0 without gaps.
    pub partitions: BTreeMap<i32, Partition>,
}

/// The replicas of a partition and who leads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The first one is the preferred leader.
    pub replicas: Vec<NodeId>,
    /// The log directory of each replica (KIP-858).
    pub directories: Vec<Uuid>,
    pub isr: Vec<NodeId>,
    pub removing: Vec<NodeId>,
    pub adding: Vec<NodeId>,
    pub leader: Option<NodeId>,
    /// Whether the leader was elected although it was not in sync.
    pub recovering: bool,
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: i32,
    /// Replicas that may lead although they left the ISR (KIP-966).
    pub eligible_leaders: Vec<NodeId>,
    pub last_known_eligible_leaders: Vec<NodeId>,
}

/// The directory of a replica that was placed before directories were recorded (KIP-858).
pub const DIRECTORY_MIGRATING: Uuid = Uuid::ZERO;
/// The directory of a replica for which its broker has not chosen one yet (KIP-858).
pub const DIRECTORY_UNASSIGNED: Uuid = Uuid(uuid::Uuid::from_u128(1));
/// The directory of a replica whose log directory is offline (KIP-858).
pub const DIRECTORY_LOST: Uuid = Uuid(uuid::Uuid::from_u128(2));

/// Something that has configs: a topic, or a broker, for example.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigResource {
    pub kind: ResourceKind,
    /// Empty for the configs of all brokers together.
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceKind {
    Topic,
    Broker,
    BrokerLogger,
    ClientMetrics,
    Group,
    /// A kind of a later version of Kafka.
    Other(i8),
}

impl ResourceKind {
    pub fn from_code(code: i8) -> Self {
        match code {
            2 => Self::Topic,
            4 => Self::Broker,
            8 => Self::BrokerLogger,
            16 => Self::ClientMetrics,
            32 => Self::Group,
            other => Self::Other(other),
        }
    }

    pub fn code(self) -> i8 {
        match self {
            Self::Topic => 2,
            Self::Broker => 4,
            Self::BrokerLogger => 8,
            Self::ClientMetrics => 16,
            Self::Group => 32,
            Self::Other(code) => code,
        }
    }
}

impl ConfigResource {
    pub fn new(kind: ResourceKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }

    pub fn topic(name: &str) -> Self {
        Self::new(ResourceKind::Topic, name)
    }

    pub fn broker(id: NodeId) -> Self {
        Self::new(ResourceKind::Broker, id.to_string())
    }

    pub fn all_brokers() -> Self {
        Self::new(ResourceKind::Broker, "")
    }
}

/// The key of a record that is only kept. The order of the variants is that of Kafka's snapshots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeptKey {
    Quota(Vec<(ByteString, Option<ByteString>)>, ByteString),
    AccessControl(Uuid),
    Scram(ByteString, i8),
    DelegationToken(ByteString),
    ZkMigrationState,
}

/// A difference between an image and an earlier one. Records report it when they take effect, and [`Image::diff`]
/// reports it for two whole images.
#[derive(Clone, Debug, PartialEq)]
pub enum ImageChange {
    TopicCreated(Uuid),
    /// The topic as it was before.
    TopicDeleted(Topic),
    /// The topic, the index, and the partition as it was before; `None` if the partition is new.
    PartitionChanged(Uuid, i32, Option<Partition>),
    /// Configs of the resource were set or removed; a deleted topic loses all of its configs.
    ConfigChanged(ConfigResource),
    BrokerChanged(NodeId),
    FeatureChanged(ByteString),
    ProducerIdsChanged,
    /// Anything else.
    Other,
}

/// A record that contradicts the records before it. No controller writes such a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the metadata record {record} contradicts the records before it: {why}")]
pub struct ImageError {
    pub record: String,
    pub why: String,
}

impl Image {
    /// Whether no record was ever applied.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values()
    }

    /// All topics, sorted by name.
    pub fn topics_by_name(&self) -> impl Iterator<Item = &Topic> {
        self.topic_ids.values().map(|id| &self.topics[id])
    }

    pub fn topic(&self, id: Uuid) -> Option<&Topic> {
        self.topics.get(&id)
    }

    pub fn topic_named(&self, name: &str) -> Option<&Topic> {
        self.topic_ids.get(name).map(|id| &self.topics[id])
    }

    pub fn partition(&self, id: Uuid, partition: i32) -> Option<&Partition> {
        self.topics.get(&id)?.partitions.get(&partition)
    }

    /// The configs that are set for a resource; empty if there are none.
    pub fn config(&self, resource: &ConfigResource) -> &BTreeMap<String, String> {
        static NOTHING: BTreeMap<String, String> = BTreeMap::new();
        self.configs.get(resource).unwrap_or(&NOTHING)
    }

    pub fn topic_config(&self, name: &str) -> &BTreeMap<String, String> {
        self.config(&ConfigResource::topic(name))
    }

    /// The configuration of a node: its own properties, with the dynamic values of this image.
    pub fn layers<'a>(&'a self, broker: &'a tidelog_config::BrokerConfig) -> tidelog_config::Layers<'a> {
        tidelog_config::Layers {
            broker,
            dynamic_broker: self.config(&ConfigResource::broker(broker.node_id)),
            dynamic_default: self.config(&ConfigResource::all_brokers()),
        }
    }

    pub fn resources(&self) -> impl Iterator<Item = &ConfigResource> {
        self.configs.keys()
    }

    pub fn features(&self) -> &BTreeMap<ByteString, i16> {
        &self.features
    }

    /// The level of a feature; 0 where it is off.
    pub fn feature(&self, name: &str) -> i16 {
        self.features.get(name).copied().unwrap_or(0)
    }

    pub fn metadata_version(&self) -> i16 {
        self.feature(records::METADATA_VERSION)
    }

    /// Whether replicas that left the ISR may be kept as eligible leaders (KIP-966).
    pub fn has_eligible_leaders(&self) -> bool {
        self.feature(records::ELIGIBLE_LEADER_REPLICAS_VERSION) > 0
    }

    pub fn brokers(&self) -> impl Iterator<Item = &RegisterBrokerRecord> {
        self.brokers.values()
    }

    pub fn broker(&self, id: NodeId) -> Option<&RegisterBrokerRecord> {
        self.brokers.get(&id)
    }

    /// Whether replicas may be in sync on this broker: it is neither fenced nor shutting down.
    pub fn is_active(&self, id: NodeId) -> bool {
        self.brokers.get(&id).is_some_and(|broker| !broker.fenced && !broker.in_controlled_shutdown)
    }

    /// Whether a replica on this broker, in this log directory, can be reached.
    pub fn is_online(&self, id: NodeId, dir: Uuid) -> bool {
        self.brokers.get(&id).is_some_and(|broker| !broker.fenced) && self.has_online_directory(id, dir)
    }

    /// Whether this broker is registered with this log directory online, be the broker fenced or not. As in Kafka,
    /// every directory of a broker that has not told its directories yet is online.
    pub fn has_online_directory(&self, id: NodeId, dir: Uuid) -> bool {
        let Some(broker) = self.brokers.get(&id) else { return false };
        broker.log_dirs.contains(&dir)
            || [DIRECTORY_MIGRATING, DIRECTORY_UNASSIGNED].contains(&dir)
            || (broker.log_dirs.is_empty() && dir != DIRECTORY_LOST)
    }

    pub fn controllers(&self) -> impl Iterator<Item = &RegisterControllerRecord> {
        self.controllers.values()
    }

    pub fn controller(&self, id: NodeId) -> Option<&RegisterControllerRecord> {
        self.controllers.get(&id)
    }

    /// The records that are only kept.
    pub fn kept(&self) -> impl Iterator<Item = (&KeptKey, &MetadataRecord)> {
        self.kept.iter()
    }

    /// The first producer id that no block holds yet.
    pub fn next_producer_id(&self) -> i64 {
        self.producer_ids.as_ref().map_or(0, |record| record.next_producer_id)
    }

    /// Whether a transaction of records was begun and has no end yet.
    pub fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// The records that turn an empty image into this one, in the order of Kafka's snapshots. The records of an
    /// unfinished transaction are not among them.
    pub fn to_records(&self) -> Vec<MetadataRecord> {
        let mut records: Vec<MetadataRecord> = Vec::new();
        // The metadata version comes first, because a reader needs it to check the other records.
        let feature = |name: &ByteString, level: i16| FeatureLevelRecord {
            name: name.clone(),
            feature_level: level,
            ..FeatureLevelRecord::default()
        };
        let first = |name: &ByteString| *name == records::METADATA_VERSION;
        for (name, &level) in self.features.iter().filter(|(name, _)| first(name)) {
            records.push(feature(name, level).into());
        }
        for (name, &level) in self.features.iter().filter(|(name, _)| !first(name)) {
            records.push(feature(name, level).into());
        }
        records.extend(self.brokers.values().cloned().map(MetadataRecord::from));
        records.extend(self.controllers.values().cloned().map(MetadataRecord::from));
        for topic in self.topics_by_name() {
            let record = TopicRecord { name: topic.name.clone(), topic_id: topic.id, ..TopicRecord::default() };
            records.push(record.into());
            records.extend(topic.partitions.iter().map(|(&index, partition)| partition.record(topic.id, index)));
        }
        for (resource, configs) in &self.configs {
            records.extend(configs.iter().map(|(name, value)| resource.record(name, Some(value))));
        }
        let quota = |key: &KeptKey| matches!(key, KeptKey::Quota(..));
        records.extend(self.kept.iter().filter(|(key, _)| quota(key)).map(|(_, record)| record.clone()));
        records.extend(self.producer_ids.iter().cloned().map(MetadataRecord::from));
        records.extend(self.kept.iter().filter(|(key, _)| !quota(key)).map(|(_, record)| record.clone()));
        records
    }

    /// Asserts the invariants between the fields of the image.
    pub fn verify(&self) {
        assert_eq!(self.topics.len(), self.topic_ids.len(), "each topic has one name");
        for (name, id) in &self.topic_ids {
            assert_eq!(self.topics[id].name, *name, "a topic is found by its name");
        }
        for (id, topic) in &self.topics {
            assert_eq!(topic.id, *id);
            for (place, (&index, partition)) in topic.partitions.iter().enumerate() {
                assert_eq!(index as usize, place, "partitions of {} are numbered without gaps", topic.name);
                partition.verify();
            }
        }
        for resource in self.configs.keys() {
            assert!(!self.configs[resource].is_empty(), "a resource is in the image only while it has configs");
            if resource.kind == ResourceKind::Topic {
                assert!(self.topic_ids.contains_key(resource.name.as_str()), "a topic with configs exists");
            }
        }
        for (id, broker) in &self.brokers {
            assert_eq!(broker.broker_id, id.0);
        }
    }
}

impl Partition {
    /// The log directory of the replica on `broker`.
    pub fn directory(&self, broker: NodeId) -> Option<Uuid> {
        let place = self.replicas.iter().position(|replica| *replica == broker)?;
        self.directories.get(place).copied()
    }

    /// Whether replicas come or go (KIP-455).
    pub fn is_reassigned(&self) -> bool {
        !(self.adding.is_empty() && self.removing.is_empty())
    }

    pub fn record(&self, topic_id: Uuid, index: i32) -> MetadataRecord {
        let optional = |nodes: &[NodeId]| (!nodes.is_empty()).then(|| node_ids(nodes));
        PartitionRecord {
            partition_id: index,
            topic_id,
            replicas: node_ids(&self.replicas),
            isr: node_ids(&self.isr),
            removing_replicas: node_ids(&self.removing),
            adding_replicas: node_ids(&self.adding),
            leader: self.leader.map_or(-1, |leader| leader.0),
            leader_recovery_state: self.recovering.into(),
            leader_epoch: self.leader_epoch.0,
            partition_epoch: self.partition_epoch,
            directories: self.directories.clone(),
            eligible_leader_replicas: optional(&self.eligible_leaders),
            last_known_elr: optional(&self.last_known_eligible_leaders),
            ..PartitionRecord::default()
        }
        .into()
    }

    fn verify(&self) {
        let all_of = |part: &[NodeId], what: &str| {
            for node in part {
                assert!(self.replicas.contains(node), "{what} {node} is a replica: {self:?}");
            }
        };
        all_of(&self.isr, "in-sync");
        all_of(&self.eligible_leaders, "eligible");
        assert_eq!(self.directories.len(), self.replicas.len(), "each replica has a directory");
        if let Some(leader) = self.leader {
            assert!(self.isr.contains(&leader), "the leader {leader} is in sync: {self:?}");
        }
        assert!(
            !self.isr.iter().any(|node| self.eligible_leaders.contains(node)),
            "no replica is both in sync and eligible"
        );
    }
}

impl ConfigResource {
    pub fn record(&self, name: &str, value: Option<&str>) -> MetadataRecord {
        ConfigRecord {
            resource_type: self.kind.code(),
            resource_name: self.name.as_str().into(),
            name: name.into(),
            value: value.map(ByteString::from),
            ..ConfigRecord::default()
        }
        .into()
    }
}
