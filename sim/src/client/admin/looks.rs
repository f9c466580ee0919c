//! How an administrator looks at the metadata: through every request that shows some of it.

use super::draws::is_of_brokers;
use super::{Admin, RETRY_NS, Request, Seen, kind, text};
use crate::client::ClientOutbox;
use crate::client::session::Answer;
use crate::client::sessions::Host;
use crate::client::topics::topic_name;
use crate::history::{Fact, Sight, TopicId};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_quorum_request::{PartitionData as QuorumPartition, TopicData as QuorumTopic};
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    DescribeClusterRequest, DescribeClusterResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeQuorumRequest, DescribeQuorumResponse,
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, ListConfigResourcesRequest,
    ListConfigResourcesResponse, MetadataRequest, MetadataResponse,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, BTreeSet};

/// A request that shows metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Metadata, for its own topics or for all.
    Topics { all: bool },
    /// DescribeTopicPartitions, with pages of at most `limit` partitions.
    Partitions { limit: i32 },
    /// DescribeConfigs, of one resource.
    Configs(usize),
    /// DescribeLogDirs
    Logs,
    /// DescribeCluster
    Cluster,
    /// DescribeQuorum
    Quorum,
    /// ListConfigResources: all topics, brokers and subscriptions.
    Resources,
}

/// `DescribeConfigsResponse.ConfigSource` of a value that is set for the topic.
const OF_TOPIC: i8 = 1;
/// `DescribeConfigsResponse.ConfigSource` of a value that is set for all brokers.
const OF_BROKERS: i8 = 3;
/// `DescribeConfigsResponse.ConfigSource` of a value that is set for a subscription to clients' metrics.
const OF_SUBSCRIPTION: i8 = 7;

/// `ConfigResource.Type`
pub(super) const KIND_TOPIC: i8 = 2;
pub(super) const KIND_BROKER: i8 = 4;
pub(super) const KIND_CLIENT_METRICS: i8 = 16;

const METADATA_TOPIC: &str = "__cluster_metadata";

/// UNKNOWN_TOPIC_OR_PARTITION
const UNKNOWN_TOPIC: i16 = 3;

impl Admin {
    pub(super) fn look(&mut self, now: u64, to: Host, look: Look, out: &mut ClientOutbox) {
        let tag = self.requests;
        let names = self.own.iter().map(|own| topic_name(&own.name));
        match look {
            Look::Topics { all } => {
                let topics = names.map(|name| MetadataRequestTopic::default().with_name(Some(name))).collect();
                let request = MetadataRequest::default()
                    .with_topics((!all).then_some(topics))
                    .with_allow_auto_topic_creation(false);
                self.sessions.send(now, to, &request, tag, out);
            }
            Look::Partitions { limit } => {
                let topics = names.map(|name| TopicRequest::default().with_name(name)).collect();
                let request = DescribeTopicPartitionsRequest::default()
                    .with_topics(topics)
                    .with_response_partition_limit(limit)
                    .with_cursor(None);
                self.sessions.send(now, to, &request, tag, out);
            }
            Look::Configs(resource) => {
                let name = self.name(resource).to_owned();
                let resource = DescribeConfigsResource::default()
                    .with_resource_type(kind(&name))
                    .with_resource_name(text(&name))
                    .with_configuration_keys(None);
                let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
                self.sessions.send(now, to, &request, tag, out);
            }
            Look::Logs => {
                let request = DescribeLogDirsRequest::default().with_topics(None);
                self.sessions.send(now, to, &request, tag, out);
            }
            Look::Cluster => self.sessions.send(now, to, &DescribeClusterRequest::default(), tag, out),
            Look::Quorum => {
                let topic = QuorumTopic::default()
                    .with_topic_name(topic_name(METADATA_TOPIC))
                    .with_partitions(vec![QuorumPartition::default().with_partition_index(0)]);
                let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
                self.sessions.send(now, to, &request, tag, out);
            }
            Look::Resources => {
                let kinds = vec![KIND_TOPIC, KIND_BROKER, KIND_CLIENT_METRICS];
                let request = ListConfigResourcesRequest::default().with_resource_types(kinds);
                self.sessions.send(now, to, &request, tag, out);
            }
        }
        self.asked = Some((to, Request::Look(look)));
    }

    /// Tells what an answer shows as facts. False if the answer shows nothing, so that it must be asked again.
    pub(super) fn looked(&mut self, now: u64, look: Look, answer: Answer, out: &mut ClientOutbox) -> bool {
        let told = match look {
            Look::Topics { all } => self.topics_told(now, all, answer, out),
            Look::Partitions { .. } => self.partitions_told(answer, out),
            Look::Configs(resource) => self.configs_told(resource, answer, out),
            Look::Logs => self.logs_told(answer, out),
            Look::Cluster => self.cluster_told(answer, out),
            Look::Quorum => self.quorum_told(answer, out),
            Look::Resources => self.resources_told(answer, out),
        };
        if told.is_none() {
            self.next_at = now + RETRY_NS;
        }
        told.is_some()
    }

    /// Whether the node with this id is one of the cluster's.
    fn is_there(&self, node: i32) -> bool {
        (1..=self.setting.nodes as i32).contains(&node)
    }

    fn describe(&mut self, resource: usize, sight: Sight, out: &mut ClientOutbox) {
        if let Some(own) = self.own.get_mut(resource) {
            match &sight {
                Sight::Absent => own.seen = None,
                Sight::Topic { id, partitions } => {
                    let known = own.seen.filter(|_| own.unsure == 0).and_then(|seen| seen.id);
                    own.seen = Some(Seen { id: id.or(known), partitions: *partitions });
                }
                Sight::Named | Sight::Configs(_) | Sight::Logs(_) => {}
            }
        }
        let resource = self.name(resource).to_owned();
        out.fact(Fact::Described { resource, sight });
    }

    fn describe_topic(&mut self, place: usize, error: i16, id: TopicId, indexes: Vec<i32>, out: &mut ClientOutbox) {
        match error {
            0 => {
                let partitions = indexes.len() as i32;
                if !indexes.iter().copied().eq(0..partitions) {
                    out.misbehaved(format!("{} has the partitions {indexes:?}", self.own[place].name));
                }
                self.describe(place, Sight::Topic { id: (id != [0; 16]).then_some(id), partitions }, out);
            }
            UNKNOWN_TOPIC => self.describe(place, Sight::Absent, out),
            error => out.misbehaved(format!("{} is described with {error}", self.own[place].name)),
        }
    }

    fn place_of(&self, name: &str) -> Option<usize> {
        self.own.iter().position(|own| own.name == name)
    }

    fn topics_told(&mut self, now: u64, all: bool, answer: Answer, out: &mut ClientOutbox) -> Option<()> {
        let response = answer.decode::<MetadataResponse>(out)?;
        if let Some(id) = &response.cluster_id {
            out.fact(Fact::Cluster { id: id.to_string() });
        }
        self.sessions.learn(&response.brokers);
        let mut told = Vec::new();
        for topic in response.topics {
            let Some(place) = topic.name.as_ref().and_then(|name| self.place_of(&name.0)) else { continue };
            told.push(place);
            let leaders = topic.partitions.iter().map(|partition| (partition.partition_index, partition.leader_id.0));
            self.own[place].leaders = leaders.collect();
            for host in
                self.own[place].leaders.values().filter_map(|leader| self.sessions.host_of(*leader)).collect::<Vec<_>>()
            {
                self.sessions.want(now, host);
            }
            let indexes = topic.partitions.iter().map(|partition| partition.partition_index).collect();
            self.describe_topic(place, topic.error_code, *topic.topic_id.as_bytes(), indexes, out);
        }
        for place in (0..self.own.len()).filter(|place| !told.contains(place)) {
            match all {
                true => self.describe(place, Sight::Absent, out),
                false => out.misbehaved(format!("Metadata says nothing of {}", self.own[place].name)),
            }
        }
        Some(())
    }

    fn partitions_told(&mut self, answer: Answer, out: &mut ClientOutbox) -> Option<()> {
        let response = answer.decode::<DescribeTopicPartitionsResponse>(out)?;
        let cut_off = response.next_cursor.map(|cursor| cursor.topic_name);
        for topic in response.topics {
            let Some(name) = topic.name.filter(|name| cut_off.as_ref() != Some(name)) else { continue };
            let Some(place) = self.place_of(&name.0) else {
                out.misbehaved(format!("DescribeTopicPartitions tells of {name:?}"));
                continue;
            };
            let indexes = topic.partitions.iter().map(|partition| partition.partition_index).collect();
            self.describe_topic(place, topic.error_code, *topic.topic_id.as_bytes(), indexes, out);
        }
        Some(())
    }

    fn configs_told(&mut self, resource: usize, answer: Answer, out: &mut ClientOutbox) -> Option<()> {
        let response = answer.decode::<DescribeConfigsResponse>(out)?;
        let result = response.results.into_iter().next()?;
        let sight = match result.error_code {
            0 => {
                let is_set_here = |source: i8, name: &str| match kind(self.name(resource)) {
                    KIND_BROKER => source == OF_BROKERS && is_of_brokers(name),
                    KIND_CLIENT_METRICS => source == OF_SUBSCRIPTION,
                    _ => source == OF_TOPIC,
                };
                let set_here =
                    result.configs.into_iter().filter(|config| is_set_here(config.config_source, &config.name));
                let text = |value: Option<StrBytes>| value.map_or_else(String::new, |value| value.to_string());
                let configs: BTreeMap<String, String> =
                    set_here.map(|config| (config.name.to_string(), text(config.value))).collect();
                Sight::Configs(configs)
            }
            UNKNOWN_TOPIC if resource < self.own.len() => Sight::Absent,
            error => {
                out.misbehaved(format!("DescribeConfigs of {:?} was answered with {error}", self.name(resource)));
                return Some(());
            }
        };
        self.describe(resource, sight, out);
        Some(())
    }

    fn logs_told(&mut self, answer: Answer, out: &mut ClientOutbox) -> Option<()> {
        let response = answer.decode::<DescribeLogDirsResponse>(out)?;
        if response.error_code != 0 || response.results.iter().any(|dir| dir.error_code != 0) {
            // A log directory that has failed does not tell what it holds.
            return None;
        }
        for place in 0..self.own.len() {
            let topics = response.results.iter().flat_map(|dir| &dir.topics);
            let of_it = topics.filter(|topic| topic.name.0.as_str() == self.own[place].name);
            let count: usize = of_it.map(|topic| topic.partitions.len()).sum();
            self.describe(place, Sight::Logs(count as i32), out);
        }
        Some(())
    }

    fn cluster_told(&mut self, answer: Answer, out: &mut ClientOutbox) -> Option<()> {
        let response = answer.decode::<DescribeClusterResponse>(out)?;
        let brokers: Vec<i32> = response.brokers.iter().map(|broker| broker.broker_id.0).collect();
        // There may be none: a broker that leaves its cluster is fenced before its last answers.
        if response.error_code != 0 || !brokers.iter().all(|broker| self.is_there(*broker)) {
            out.misbehaved(format!("DescribeCluster: error {}, the brokers {brokers:?}", response.error_code));
        }
        out.fact(Fact::Cluster { id: response.cluster_id.to_string() });
        Some(())
    }

    fn quorum_told(&mut self, answer: Answer, out: &mut ClientOutbox) -> Option<()> {
        let response = answer.decode::<DescribeQuorumResponse>(out)?;
        let partitions: Vec<_> = response.topics.iter().flat_map(|topic| &topic.partitions).collect();
        let [partition] = partitions[..] else {
            out.misbehaved(format!("DescribeQuorum: error {}, {} partitions", response.error_code, partitions.len()));
            return Some(());
        };
        let (leader, voters) = (partition.leader_id.0, &partition.current_voters);
        let ids: Vec<i32> = voters.iter().map(|voter| voter.replica_id.0).collect();
        // A leader that is being removed leads until that is committed, and is an observer.
        let observers = partition.observers.iter().filter(|_| self.setting.voters_change);
        let mut replicas = voters.iter().chain(observers);
        let Some(voter) = replicas.find(|replica| replica.replica_id.0 == leader && self.is_there(leader)) else {
            out.misbehaved(format!("DescribeQuorum: error {}, {leader} leads {ids:?}", partition.error_code));
            return Some(());
        };
        out.fact(Fact::Quorum {
            epoch: partition.leader_epoch,
            high_watermark: partition.high_watermark,
            log_end: voter.log_end_offset,
        });
        Some(())
    }

    fn resources_told(&mut self, answer: Answer, out: &mut ClientOutbox) -> Option<()> {
        let response = answer.decode::<ListConfigResourcesResponse>(out)?;
        let listed = response.config_resources.iter();
        let of_kind = |kind: i8| listed.clone().filter(move |it| it.resource_type == kind).map(|it| &*it.resource_name);
        let (error, brokers) = (response.error_code, of_kind(KIND_BROKER).collect::<Vec<_>>());
        let is_there = |broker: &&str| broker.parse().is_ok_and(|broker| self.is_there(broker));
        if error != 0 || !brokers.iter().all(is_there) {
            out.misbehaved(format!("ListConfigResources: error {error}, the brokers {brokers:?}"));
        }
        let topics: BTreeSet<&str> = of_kind(KIND_TOPIC).collect();
        for place in 0..self.own.len() {
            let is_there = topics.contains(&*self.own[place].name);
            self.describe(place, if is_there { Sight::Named } else { Sight::Absent }, out);
        }
        let is_there = of_kind(KIND_CLIENT_METRICS).any(|name| name == self.subscription);
        self.describe(self.own.len() + 1, if is_there { Sight::Named } else { Sight::Absent }, out);
        Some(())
    }
}
