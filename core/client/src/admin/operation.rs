//! The operations of an admin: the requests for them, and the results of each subject in the answers.

use super::{
    Answer, BrokerDescription, ClusterDescription, ConfigEntry, PartitionDescription, TopicDescription, servers,
};
use crate::offsets::OffsetSpec;
use crate::{Address, TopicPartition};
use bytestring::ByteString;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use tidelog_wire::ids::{LeaderEpoch, NodeId};
use tidelog_wire::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use tidelog_wire::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use tidelog_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use tidelog_wire::messages::delete_topics_request::DeleteTopicState;
use tidelog_wire::messages::describe_cluster_response::DescribeClusterBroker;
use tidelog_wire::messages::describe_configs_request::DescribeConfigsResource;
use tidelog_wire::messages::describe_configs_response::DescribeConfigsResourceResult;
use tidelog_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use tidelog_wire::messages::metadata_request::MetadataRequestTopic;
use tidelog_wire::messages::metadata_response::MetadataResponseTopic;
use tidelog_wire::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    DescribeClusterResponse, DescribeConfigsRequest, DescribeLogDirsRequest, IncrementalAlterConfigsRequest,
    MetadataRequest,
};
use tidelog_wire::{ApiKey, ErrorCode, RequestBody, ResponseBody, node_ids};

/// Something to do. Each [`Subject`] that it names gets a result of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    CreateTopics {
        topics: Vec<NewTopic>,
        validate_only: bool,
    },
    DeleteTopics {
        topics: Vec<ByteString>,
    },
    CreatePartitions {
        topics: Vec<NewPartitions>,
        validate_only: bool,
    },
    DescribeTopics {
        topics: Vec<ByteString>,
    },
    /// All topics, in one result.
    ListTopics,
    DescribeConfigs {
        resources: Vec<Resource>,
    },
    AlterConfigs {
        changes: Vec<(Resource, Vec<ConfigChange>)>,
        validate_only: bool,
    },
    /// Deletes the records before these offsets; -1: before the high watermark.
    DeleteRecords {
        before: Vec<(TopicPartition, i64)>,
    },
    ListOffsets {
        partitions: Vec<(TopicPartition, OffsetSpec)>,
    },
    DescribeCluster,
    /// Each of these brokers says what lies in its log directories.
    DescribeLogDirs {
        brokers: Vec<NodeId>,
    },
    /// Who leads the metadata log, and how far those are that replicate it.
    DescribeQuorum,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    pub name: ByteString,
    /// `None`: as `num.partitions` says.
    pub partitions: Option<i32>,
    /// `None`: as `default.replication.factor` says.
    pub replication_factor: Option<i16>,
    /// The brokers of each partition. If this is not empty, the two numbers above must be `None`.
    pub replicas: Vec<Vec<NodeId>>,
    pub configs: Vec<(ByteString, Option<ByteString>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPartitions {
    pub topic: ByteString,
    /// The new number of partitions of the topic.
    pub count: i32,
    /// The brokers of each new partition. `None`: the controller chooses them.
    pub replicas: Option<Vec<Vec<NodeId>>>,
}

/// What has configs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    Topic(ByteString),
    Broker(NodeId),
    /// The configs that apply to all brokers.
    AllBrokers,
    /// The levels of this broker's log, by logger.
    BrokerLoggers(NodeId),
    /// A subscription to clients' metrics.
    ClientMetrics(ByteString),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    Set(ByteString, ByteString),
    Delete(ByteString),
    /// Adds a value to a list.
    Append(ByteString, ByteString),
    /// Removes a value from a list.
    Subtract(ByteString, ByteString),
}

/// What a result belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Topic(ByteString),
    Partition(TopicPartition),
    Resource(Resource),
    AllTopics,
    Cluster,
    /// A broker with its log directories.
    Broker(NodeId),
    /// The quorum of the metadata log.
    Quorum,
}

/// Which broker is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Any,
    Controller,
    Node(NodeId),
    LeaderOf(TopicPartition),
}

/// An error code with its message.
pub type Refusal = (i16, Option<ByteString>);

impl Operation {
    pub fn api(&self) -> (ApiKey, RangeInclusive<i16>) {
        match self {
            Self::CreateTopics { .. } => (ApiKey::CreateTopics, 2..=7),
            Self::DeleteTopics { .. } => (ApiKey::DeleteTopics, 1..=6),
            Self::CreatePartitions { .. } => (ApiKey::CreatePartitions, 0..=3),
            Self::DescribeTopics { .. } | Self::ListTopics => (ApiKey::Metadata, 4..=13),
            Self::DescribeConfigs { .. } => (ApiKey::DescribeConfigs, 1..=4),
            Self::AlterConfigs { .. } => (ApiKey::IncrementalAlterConfigs, 0..=1),
            Self::DeleteRecords { .. } => (ApiKey::DeleteRecords, 0..=2),
            Self::ListOffsets { .. } => (ApiKey::ListOffsets, 1..=11),
            Self::DescribeCluster => (ApiKey::DescribeCluster, 0..=2),
            Self::DescribeLogDirs { .. } => (ApiKey::DescribeLogDirs, 1..=5),
            Self::DescribeQuorum => (ApiKey::DescribeQuorum, 0..=2),
        }
    }

    /// How many subjects the operation names.
    pub fn subjects_count(&self) -> usize {
        match self {
            Self::CreateTopics { topics, .. } => topics.len(),
            Self::DeleteTopics { topics } | Self::DescribeTopics { topics } => topics.len(),
            Self::CreatePartitions { topics, .. } => topics.len(),
            Self::DescribeConfigs { resources } => resources.len(),
            Self::AlterConfigs { changes, .. } => changes.len(),
            Self::DeleteRecords { before } => before.len(),
            Self::ListOffsets { partitions } => partitions.len(),
            Self::DescribeLogDirs { brokers } => brokers.len(),
            Self::ListTopics | Self::DescribeCluster | Self::DescribeQuorum => 1,
        }
    }

    pub fn subject(&self, place: usize) -> Subject {
        match self {
            Self::CreateTopics { topics, .. } => Subject::Topic(topics[place].name.clone()),
            Self::DeleteTopics { topics } | Self::DescribeTopics { topics } => Subject::Topic(topics[place].clone()),
            Self::CreatePartitions { topics, .. } => Subject::Topic(topics[place].topic.clone()),
            Self::DescribeConfigs { resources } => Subject::Resource(resources[place].clone()),
            Self::AlterConfigs { changes, .. } => Subject::Resource(changes[place].0.clone()),
            Self::DeleteRecords { before } => Subject::Partition(before[place].0.clone()),
            Self::ListOffsets { partitions } => Subject::Partition(partitions[place].0.clone()),
            Self::ListTopics => Subject::AllTopics,
            Self::DescribeCluster => Subject::Cluster,
            Self::DescribeLogDirs { brokers } => Subject::Broker(brokers[place]),
            Self::DescribeQuorum => Subject::Quorum,
        }
    }

    pub fn target(&self, place: usize) -> Target {
        let of_resource = |resource: &Resource, else_by: Target| match resource {
            Resource::Broker(node) | Resource::BrokerLoggers(node) => Target::Node(*node),
            _ => else_by,
        };
        match self {
            Self::CreateTopics { .. } | Self::DeleteTopics { .. } | Self::CreatePartitions { .. } => Target::Controller,
            Self::DescribeTopics { .. } | Self::ListTopics | Self::DescribeCluster | Self::DescribeQuorum => {
                Target::Any
            }
            Self::DescribeLogDirs { brokers } => Target::Node(brokers[place]),
            Self::DescribeConfigs { resources } => of_resource(&resources[place], Target::Any),
            Self::AlterConfigs { changes, .. } => of_resource(&changes[place].0, Target::Controller),
            Self::DeleteRecords { before } => Target::LeaderOf(before[place].0.clone()),
            Self::ListOffsets { partitions } => Target::LeaderOf(partitions[place].0.clone()),
        }
    }

    /// The request for some of the subjects, in this version.
    pub fn request(&self, places: &[usize], version: i16, timeout_ms: i32) -> RequestBody {
        match self {
            Self::CreateTopics { topics, validate_only } => {
                let topics = places.iter().map(|place| new_topic(&topics[*place])).collect();
                let validate_only = *validate_only;
                CreateTopicsRequest { topics, timeout_ms, validate_only, ..Default::default() }.into()
            }
            Self::DeleteTopics { topics } => {
                let names = places.iter().map(|place| topics[*place].clone());
                let state = |name| DeleteTopicState { name: Some(name), ..DeleteTopicState::default() };
                let mut request = DeleteTopicsRequest { timeout_ms, ..DeleteTopicsRequest::default() };
                if version >= 6 {
                    request.topics = names.map(state).collect();
                } else {
                    request.topic_names = names.collect();
                }
                request.into()
            }
            Self::CreatePartitions { topics, validate_only } => {
                let topics = places.iter().map(|place| new_partitions(&topics[*place])).collect();
                let validate_only = *validate_only;
                CreatePartitionsRequest { topics, timeout_ms, validate_only, ..Default::default() }.into()
            }
            Self::DescribeTopics { topics } => {
                let topic = |place: &usize| MetadataRequestTopic {
                    name: Some(topics[*place].clone()),
                    ..MetadataRequestTopic::default()
                };
                let topics = Some(places.iter().map(topic).collect());
                MetadataRequest { topics, allow_auto_topic_creation: false, ..Default::default() }.into()
            }
            Self::ListTopics => {
                MetadataRequest { topics: None, allow_auto_topic_creation: false, ..Default::default() }.into()
            }
            Self::DescribeConfigs { resources } => {
                let resource = |place: &usize| {
                    let (resource_type, resource_name) = resources[*place].wire();
                    DescribeConfigsResource {
                        resource_type,
                        resource_name,
                        configuration_keys: None,
                        ..DescribeConfigsResource::default()
                    }
                };
                let resources = places.iter().map(resource).collect();
                DescribeConfigsRequest { resources, ..DescribeConfigsRequest::default() }.into()
            }
            Self::AlterConfigs { changes, validate_only } => {
                let resource = |place: &usize| {
                    let (resource, changes) = &changes[*place];
                    let (resource_type, resource_name) = resource.wire();
                    let configs = changes.iter().map(ConfigChange::wire).collect();
                    AlterConfigsResource { resource_type, resource_name, configs, ..Default::default() }
                };
                let resources = places.iter().map(resource).collect();
                let validate_only = *validate_only;
                IncrementalAlterConfigsRequest { resources, validate_only, ..Default::default() }.into()
            }
            Self::DeleteRecords { before } => {
                let mut topics: BTreeMap<ByteString, Vec<DeleteRecordsPartition>> = BTreeMap::new();
                for (TopicPartition { topic, partition }, offset) in places.iter().map(|place| &before[*place]) {
                    let partition_index = *partition;
                    let partition = DeleteRecordsPartition { partition_index, offset: *offset, ..Default::default() };
                    topics.entry(topic.clone()).or_default().push(partition);
                }
                let topic = |(name, partitions)| DeleteRecordsTopic { name, partitions, ..Default::default() };
                let topics = topics.into_iter().map(topic).collect();
                DeleteRecordsRequest { topics, timeout_ms, ..DeleteRecordsRequest::default() }.into()
            }
            Self::DescribeCluster => DescribeClusterRequest { endpoint_type: 1, ..Default::default() }.into(),
            Self::DescribeLogDirs { .. } => DescribeLogDirsRequest { topics: None, ..Default::default() }.into(),
            Self::DescribeQuorum => servers::quorum_request().into(),
            Self::ListOffsets { .. } => unreachable!("ListOffsets is sent by `LookUps`"),
        }
    }

    /// The result of one subject in an answer; `None` if the answer lacks it.
    pub fn read(&self, place: usize, response: &ResponseBody) -> Option<Result<Answer, Refusal>> {
        let subject = self.subject(place);
        let name = match &subject {
            Subject::Topic(name) => name,
            Subject::Partition(partition) => &partition.topic,
            _ => &ByteString::new(),
        };
        let done = |code: i16, message: &Option<ByteString>, answer: Answer| match code {
            0 => Ok(answer),
            code => Err((code, message.clone())),
        };
        match response {
            ResponseBody::CreateTopics(response) => {
                let it = response.topics.iter().find(|it| it.name == *name)?;
                Some(done(it.error_code, &it.error_message, Answer::Created { id: it.topic_id }))
            }
            ResponseBody::DeleteTopics(response) => {
                let it = response.responses.iter().find(|it| it.name.as_ref() == Some(name))?;
                Some(done(it.error_code, &it.error_message, Answer::Done))
            }
            ResponseBody::CreatePartitions(response) => {
                let it = response.results.iter().find(|it| it.name == *name)?;
                Some(done(it.error_code, &it.error_message, Answer::Done))
            }
            ResponseBody::Metadata(response) if *self == Self::ListTopics => {
                let topics = response.topics.iter().filter(|it| it.error_code == 0).map(topic_description);
                Some(done(response.error_code, &None, Answer::Topics(topics.collect())))
            }
            ResponseBody::Metadata(response) => {
                let it = response.topics.iter().find(|it| it.name.as_ref() == Some(name))?;
                Some(done(it.error_code, &None, Answer::Topic(topic_description(it))))
            }
            ResponseBody::DescribeConfigs(response) => {
                let Subject::Resource(resource) = &subject else { return None };
                let wire = resource.wire();
                let it = response.results.iter().find(|it| (it.resource_type, it.resource_name.clone()) == wire)?;
                let configs = it.configs.iter().map(config_entry).collect();
                Some(done(it.error_code, &it.error_message, Answer::Configs(configs)))
            }
            ResponseBody::IncrementalAlterConfigs(response) => {
                let Subject::Resource(resource) = &subject else { return None };
                let wire = resource.wire();
                let it = response.responses.iter().find(|it| (it.resource_type, it.resource_name.clone()) == wire)?;
                Some(done(it.error_code, &it.error_message, Answer::Done))
            }
            ResponseBody::DeleteRecords(response) => {
                let Subject::Partition(partition) = &subject else { return None };
                let topic = response.topics.iter().find(|it| it.name == *name)?;
                let it = topic.partitions.iter().find(|it| it.partition_index == partition.partition)?;
                Some(done(it.error_code, &None, Answer::LowWatermark(it.low_watermark)))
            }
            ResponseBody::DescribeCluster(response) => {
                let answer = Answer::Cluster(cluster_description(response));
                Some(done(response.error_code, &response.error_message, answer))
            }
            // An older broker has no code for the whole: what it does not allow, it answers with nothing at all.
            ResponseBody::DescribeLogDirs(response) if response.error_code == 0 && response.results.is_empty() => {
                Some(Err((ErrorCode::ClusterAuthorizationFailed.code(), None)))
            }
            ResponseBody::DescribeLogDirs(response) => {
                Some(done(response.error_code, &None, Answer::LogDirs(servers::log_dirs(response))))
            }
            ResponseBody::DescribeQuorum(response) if response.error_code != 0 => {
                Some(Err((response.error_code, response.error_message.clone())))
            }
            ResponseBody::DescribeQuorum(response) => {
                let it = response.topics.first()?.partitions.first()?;
                Some(done(it.error_code, &it.error_message, Answer::Quorum(servers::quorum(it))))
            }
            _ => None,
        }
    }

    /// Whether an error is temporary, so that the subject is asked for again. An unknown topic or partition counts as a
    /// final answer, except from the leader of a partition, which may not know of the partition yet.
    pub fn may_pass(&self, error: ErrorCode) -> bool {
        use ErrorCode::{RequestTimedOut, UnknownTopicId, UnknownTopicOrPartition};
        let is_answer = match self {
            Self::DeleteRecords { .. } => error == RequestTimedOut,
            _ => matches!(error, UnknownTopicOrPartition | UnknownTopicId | RequestTimedOut),
        };
        crate::is_retriable(error) && !is_answer
    }
}

fn new_topic(topic: &NewTopic) -> CreatableTopic {
    let assignment = |(nodes, partition_index): (&Vec<NodeId>, i32)| CreatableReplicaAssignment {
        partition_index,
        broker_ids: node_ids(nodes),
        ..CreatableReplicaAssignment::default()
    };
    let config = |(name, value): &(ByteString, Option<ByteString>)| CreatableTopicConfig {
        name: name.clone(),
        value: value.clone(),
        ..CreatableTopicConfig::default()
    };
    CreatableTopic {
        name: topic.name.clone(),
        num_partitions: topic.partitions.unwrap_or(-1),
        replication_factor: topic.replication_factor.unwrap_or(-1),
        assignments: topic.replicas.iter().zip(0..).map(assignment).collect(),
        configs: topic.configs.iter().map(config).collect(),
        ..CreatableTopic::default()
    }
}

fn new_partitions(new: &NewPartitions) -> CreatePartitionsTopic {
    let assignment = |nodes: &Vec<NodeId>| CreatePartitionsAssignment {
        broker_ids: node_ids(nodes),
        ..CreatePartitionsAssignment::default()
    };
    let assignments = new.replicas.as_ref().map(|replicas| replicas.iter().map(assignment).collect());
    CreatePartitionsTopic { name: new.topic.clone(), count: new.count, assignments, ..Default::default() }
}

fn topic_description(topic: &MetadataResponseTopic) -> TopicDescription {
    let nodes = |ids: &[i32]| ids.iter().copied().map(NodeId).collect();
    let mut partitions: Vec<PartitionDescription> = topic
        .partitions
        .iter()
        .map(|it| PartitionDescription {
            index: it.partition_index,
            leader: (it.leader_id >= 0).then_some(NodeId(it.leader_id)),
            leader_epoch: LeaderEpoch(it.leader_epoch),
            replicas: nodes(&it.replica_nodes),
            in_sync_replicas: nodes(&it.isr_nodes),
        })
        .collect();
    partitions.sort_by_key(|partition| partition.index);
    TopicDescription {
        name: topic.name.clone().unwrap_or_default(),
        id: topic.topic_id,
        is_internal: topic.is_internal,
        partitions,
    }
}

fn config_entry(config: &DescribeConfigsResourceResult) -> ConfigEntry {
    /// The source DEFAULT_CONFIG of the protocol.
    const DEFAULT_CONFIG: i8 = 5;
    ConfigEntry {
        name: config.name.clone(),
        value: config.value.clone(),
        source: config.config_source,
        is_default: config.config_source == DEFAULT_CONFIG,
        is_read_only: config.read_only,
        is_sensitive: config.is_sensitive,
    }
}

fn cluster_description(response: &DescribeClusterResponse) -> ClusterDescription {
    let broker = |it: &DescribeClusterBroker| BrokerDescription {
        node: NodeId(it.broker_id),
        address: Address::new(it.host.clone(), u16::try_from(it.port).unwrap_or(0)),
        rack: it.rack.clone(),
    };
    ClusterDescription {
        cluster_id: response.cluster_id.clone(),
        controller: (response.controller_id >= 0).then_some(NodeId(response.controller_id)),
        brokers: response.brokers.iter().map(broker).collect(),
    }
}

impl Resource {
    /// The type and the name of the resource, as in requests.
    fn wire(&self) -> (i8, ByteString) {
        const TOPIC: i8 = 2;
        const BROKER: i8 = 4;
        const BROKER_LOGGER: i8 = 8;
        const CLIENT_METRICS: i8 = 16;
        match self {
            Self::Topic(name) => (TOPIC, name.clone()),
            Self::Broker(node) => (BROKER, node.0.to_string().into()),
            Self::AllBrokers => (BROKER, ByteString::new()),
            Self::BrokerLoggers(node) => (BROKER_LOGGER, node.0.to_string().into()),
            Self::ClientMetrics(name) => (CLIENT_METRICS, name.clone()),
        }
    }
}

impl ConfigChange {
    fn wire(&self) -> AlterableConfig {
        let (config_operation, name, value) = match self {
            Self::Set(name, value) => (0, name, Some(value)),
            Self::Delete(name) => (1, name, None),
            Self::Append(name, value) => (2, name, Some(value)),
            Self::Subtract(name, value) => (3, name, Some(value)),
        };
        AlterableConfig { name: name.clone(), config_operation, value: value.cloned(), ..Default::default() }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name}"),
            Self::Broker(node) => write!(f, "broker {node}"),
            Self::AllBrokers => f.write_str("all brokers"),
            Self::BrokerLoggers(node) => write!(f, "loggers of broker {node}"),
            Self::ClientMetrics(name) => write!(f, "client metrics {name}"),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name}"),
            Self::Partition(partition) => partition.fmt(f),
            Self::Resource(resource) => resource.fmt(f),
            Self::AllTopics => f.write_str("all topics"),
            Self::Cluster => f.write_str("the cluster"),
            Self::Broker(node) => write!(f, "broker {node}"),
            Self::Quorum => f.write_str("the quorum"),
        }
    }
}
