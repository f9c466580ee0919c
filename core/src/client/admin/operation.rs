//! What an admin can be asked, as requests, and what the answers say of each thing that was asked for.

use super::{Answer, BrokerDescription, ClusterDescription, ConfigEntry, PartitionDescription, TopicDescription};
use crate::client::offsets::OffsetSpec;
use crate::client::{Address, TopicPartition};
use crate::ids::{LeaderEpoch, NodeId};
use crate::wire::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use crate::wire::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use crate::wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use crate::wire::messages::delete_topics_request::DeleteTopicState;
use crate::wire::messages::describe_cluster_response::DescribeClusterBroker;
use crate::wire::messages::describe_configs_request::DescribeConfigsResource;
use crate::wire::messages::describe_configs_response::DescribeConfigsResourceResult;
use crate::wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use crate::wire::messages::metadata_request::MetadataRequestTopic;
use crate::wire::messages::metadata_response::MetadataResponseTopic;
use crate::wire::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    DescribeClusterResponse, DescribeConfigsRequest, IncrementalAlterConfigsRequest, MetadataRequest,
};
use crate::wire::{ApiKey, ErrorCode, RequestBody, ResponseBody, node_ids};
use bytestring::ByteString;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

/// Something to do. Each thing that it names gets a result of its own.
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
    /// Records before these offsets; -1: before the high watermark.
    DeleteRecords {
        before: Vec<(TopicPartition, i64)>,
    },
    ListOffsets {
        partitions: Vec<(TopicPartition, OffsetSpec)>,
    },
    DescribeCluster,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    pub name: ByteString,
    /// None: as many as `num.partitions` says.
    pub partitions: Option<i32>,
    /// None: as `default.replication.factor` says.
    pub replication_factor: Option<i16>,
    /// The brokers of each partition, instead of numbers.
    pub replicas: Vec<Vec<NodeId>>,
    pub configs: Vec<(ByteString, Option<ByteString>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPartitions {
    pub topic: ByteString,
    /// How many there are to be altogether.
    pub count: i32,
    /// The brokers of each new partition, if they are to be these.
    pub replicas: Option<Vec<Vec<NodeId>>>,
}

/// What has configs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    Topic(ByteString),
    Broker(NodeId),
    /// What all brokers have in common.
    AllBrokers,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    Set(ByteString, ByteString),
    Delete(ByteString),
    /// Of a list.
    Append(ByteString, ByteString),
    Subtract(ByteString, ByteString),
}

/// What a result is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Topic(ByteString),
    Partition(TopicPartition),
    Resource(Resource),
    AllTopics,
    Cluster,
}

/// Who is to be asked.
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
        }
    }

    /// How many things it names.
    pub fn subjects_count(&self) -> usize {
        match self {
            Self::CreateTopics { topics, .. } => topics.len(),
            Self::DeleteTopics { topics } | Self::DescribeTopics { topics } => topics.len(),
            Self::CreatePartitions { topics, .. } => topics.len(),
            Self::DescribeConfigs { resources } => resources.len(),
            Self::AlterConfigs { changes, .. } => changes.len(),
            Self::DeleteRecords { before } => before.len(),
            Self::ListOffsets { partitions } => partitions.len(),
            Self::ListTopics | Self::DescribeCluster => 1,
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
        }
    }

    pub fn target(&self, place: usize) -> Target {
        let of_resource = |resource: &Resource, else_by: Target| match resource {
            Resource::Broker(node) => Target::Node(*node),
            _ => else_by,
        };
        match self {
            Self::CreateTopics { .. } | Self::DeleteTopics { .. } | Self::CreatePartitions { .. } => Target::Controller,
            Self::DescribeTopics { .. } | Self::ListTopics | Self::DescribeCluster => Target::Any,
            Self::DescribeConfigs { resources } => of_resource(&resources[place], Target::Any),
            Self::AlterConfigs { changes, .. } => of_resource(&changes[place].0, Target::Controller),
            Self::DeleteRecords { before } => Target::LeaderOf(before[place].0.clone()),
            Self::ListOffsets { partitions } => Target::LeaderOf(partitions[place].0.clone()),
        }
    }

    /// The request for some of the things, in a version.
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
            Self::ListOffsets { .. } => unreachable!("offsets are looked up elsewhere"),
        }
    }

    /// What an answer says of one of the things; `None` if nothing.
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
            _ => None,
        }
    }

    /// Whether an error may pass by itself. What names a topic or partition that is not there is an answer, but for
    /// leaders: they may not have heard of it yet.
    pub fn may_pass(&self, error: ErrorCode) -> bool {
        use ErrorCode::{RequestTimedOut, UnknownTopicId, UnknownTopicOrPartition};
        let is_answer = match self {
            Self::DeleteRecords { .. } => error == RequestTimedOut,
            _ => matches!(error, UnknownTopicOrPartition | UnknownTopicId | RequestTimedOut),
        };
        crate::client::is_retriable(error) && !is_answer
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
    /// DYNAMIC_TOPIC_CONFIG, DYNAMIC_BROKER_CONFIG, DYNAMIC_DEFAULT_BROKER_CONFIG, STATIC_BROKER_CONFIG,
    /// DEFAULT_CONFIG: as the number says.
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
    /// Type and name, as requests have them.
    fn wire(&self) -> (i8, ByteString) {
        const TOPIC: i8 = 2;
        const BROKER: i8 = 4;
        match self {
            Self::Topic(name) => (TOPIC, name.clone()),
            Self::Broker(node) => (BROKER, node.0.to_string().into()),
            Self::AllBrokers => (BROKER, ByteString::new()),
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
        }
    }
}
