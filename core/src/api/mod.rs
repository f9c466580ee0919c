//! The handlers of requests, one file for each kind of request. A handler reads the request, calls the parts, and makes
//! the response.
//!
//! A handler gets a [`Ticket`] and must answer it once. It answers at once, or it leaves the ticket in a
//! [`PendingRequest`] (which waits for the disk or for new records) or in an [`AfterCommit`] (which waits for the
//! metadata log).

mod acls;
mod active_controller;
pub mod administration;
mod answer_to;
mod api_versions;
mod auto_create;
mod brokers;
mod channel;
mod configs;
pub mod delete_records;
mod describe_client_quotas;
mod describe_cluster;
mod describe_producers;
mod describe_topic_partitions;
mod describe_user_scram_credentials;
mod elect_leaders;
pub mod envelope;
pub mod fetch;
mod fetch_session;
mod find_coordinator;
pub mod init_producer_id;
mod list_config_resources;
pub mod list_offsets;
pub mod log_dirs;
mod loggers;
pub mod metadata;
mod offset_for_leader_epoch;
mod parts;
mod pending;
mod prepare;
pub mod produce;
pub mod quorum;
mod reassignments;
pub mod refusal;
mod replies;
mod sasl;
#[cfg(test)]
mod tests;
mod topics;
mod update_features;

pub use active_controller::{AfterCommit, Controller};
pub use answer_to::AnswerTo;
pub use channel::{Asker, Channel, Outcome, Unanswered};
pub use fetch_session::FetchSessions;
pub use init_producer_id::ProducerIds;
pub use pending::{PendingCounts, PendingRequest, PendingRequests};
pub use prepare::{prepare, prepare_answer};
pub use quorum::QuorumRequests;
pub use replies::{Replies, Ticket};

use crate::config::{BrokerConfig, Loggers};
use crate::controller::{self, ElectionCounts, Image};
use crate::ids::{LeaderEpoch, LogDirId, LogId, NodeId, Offset, Uuid};
use crate::io::{Outbox, Request};
use crate::quorum::Quorum;
use crate::replication::{Brokers, Partition, PartitionEvent, Partitions};
use crate::storage::checkpoints::Offsets;
use crate::storage::{CheckpointKind, LogDirs};
use crate::time::Now;
use crate::wire::messages::produce_request::TopicProduceData;
use crate::wire::versions::is_served_at;
use crate::wire::{ErrorCode, Int32s, RequestBody};
use bytestring::ByteString;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};

/// What a client may do with a topic, as there is no authorizer: one bit for each `AclOperation`.
pub const TOPIC_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;
/// What a client may do with the cluster: one bit for each `AclOperation`.
pub const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// The client id with which a producer may write to internal topics, as in Kafka.
const ADMIN_CLIENT: &str = "__admin_client";

/// The parts of the broker, which handlers of requests read and change.
#[derive(Debug)]
pub struct Parts {
    pub config: BrokerConfig,
    /// For each listener, whether it is one of the controllers'.
    pub controller_listeners: Vec<bool>,
    /// The loggers of the operator's log, with the levels that clients have set since the start.
    pub loggers: Loggers,
    pub cluster_id: ByteString,
    pub rng: ChaCha8Rng,
    pub replies: Replies,
    pub pending: PendingRequests,
    pub sessions: FetchSessions,
    pub producer_ids: ProducerIds,
    pub dirs: LogDirs,
    /// The log directories that `log.dirs` does not name and that hold partitions nevertheless: earlier versions placed
    /// some in the directory of the metadata log, and these stay where they are.
    pub unlisted_dirs: BTreeSet<LogDirId>,
    /// What the checkpoints said at the start, until all logs are loaded. A log that is not loaded yet is as they say: a
    /// checkpoint without its recovery point would let the next start cut off what lies behind a damaged batch, as if it
    /// had never been on stable storage.
    pub found_checkpoints: BTreeMap<(LogDirId, CheckpointKind), Offsets>,
    /// None until the directories are read.
    pub quorum: Option<Quorum>,
    pub quorum_requests: QuorumRequests,
    /// While this node leads the quorum.
    pub controller: Option<Controller>,
    /// The elections that this node's controllers have decided since the start.
    pub elections: ElectionCounts,
    /// What this node asks the active controller, which may be another node's.
    pub channel: Channel,
    /// The metadata up to `committed`. Clients see this image.
    pub image: Image,
    /// One past the last metadata record in `image`.
    pub committed: Offset,
    /// The offset of this broker's registration; -1 before it is committed (KIP-631).
    pub broker_epoch: i64,
    /// The broker epoch of the earlier life, if it ended with a clean stop.
    pub previous_broker_epoch: Option<i64>,
    pub partitions: Partitions,
    /// What requests have made partitions tell, for the broker to act on.
    pub told: Vec<(LogId, PartitionEvent)>,
    /// Whether the broker is stopping. Then fetches are answered without waiting for records.
    pub stopping: bool,
}

/// Answers the request of a ticket, or makes sure that it will be answered later.
pub fn handle(parts: &mut Parts, now: Now, ticket: Ticket, request: Request, out: &mut Outbox) {
    let is_for_controller = parts.is_controller_listener(ticket.listener);
    if !is_served_at(is_for_controller, request.header.api_key) {
        return parts.replies.close(ticket, "the listener does not serve requests of this kind", out);
    }
    let client_id = request.header.client_id;
    match request.body {
        RequestBody::Produce(body) => {
            let is_admin = client_id.as_deref() == Some(ADMIN_CLIENT);
            produce::handle(parts, now, ticket, (body, request.batches), is_admin, out);
        }
        // Brokers and controllers fetch the metadata log from the controllers, and nothing else.
        RequestBody::Fetch(_)
        | RequestBody::DescribeQuorum(_)
        | RequestBody::AddRaftVoter(_)
        | RequestBody::RemoveRaftVoter(_)
            if is_for_controller =>
        {
            quorum::handle(parts, now, AnswerTo::Sender { ticket, client_id }, request.body, out);
        }
        RequestBody::Vote(_)
        | RequestBody::BeginQuorumEpoch(_)
        | RequestBody::EndQuorumEpoch(_)
        | RequestBody::FetchSnapshot(_)
        | RequestBody::UpdateRaftVoter(_) => {
            quorum::handle(parts, now, AnswerTo::Sender { ticket, client_id }, request.body, out);
        }
        RequestBody::Fetch(body) => fetch::handle(parts, now, ticket, body, out),
        RequestBody::ListOffsets(body) => list_offsets::handle(parts, ticket, body, out),
        RequestBody::Metadata(body) => metadata::handle(parts, now, ticket, body, out),
        RequestBody::FindCoordinator(body) => find_coordinator::handle(parts, ticket, body, out),
        RequestBody::ApiVersions(body) => api_versions::handle(parts, ticket, body, out),
        RequestBody::UnsupportedApiVersions => api_versions::unsupported(parts, ticket, out),
        RequestBody::CreateTopics(_)
        | RequestBody::DeleteTopics(_)
        | RequestBody::CreatePartitions(_)
        | RequestBody::AlterConfigs(_)
        | RequestBody::IncrementalAlterConfigs(_)
        | RequestBody::ElectLeaders(_)
        | RequestBody::UpdateFeatures(_)
        | RequestBody::BrokerRegistration(_)
        | RequestBody::BrokerHeartbeat(_)
        | RequestBody::AlterPartition(_)
        | RequestBody::AssignReplicasToDirs(_)
        | RequestBody::AlterPartitionReassignments(_)
        | RequestBody::ListPartitionReassignments(_)
        | RequestBody::ControllerRegistration(_)
        | RequestBody::UnregisterBroker(_)
        | RequestBody::AllocateProducerIds(_)
        | RequestBody::DescribeQuorum(_)
        | RequestBody::AddRaftVoter(_)
        | RequestBody::RemoveRaftVoter(_) => {
            administration::handle(parts, now, AnswerTo::Sender { ticket, client_id }, request.body, out);
        }
        RequestBody::Envelope(body) => envelope::handle(parts, now, ticket, body, out),
        RequestBody::DeleteRecords(body) => delete_records::handle(parts, now, ticket, body, out),
        RequestBody::InitProducerId(body) => init_producer_id::handle(parts, now, ticket, body, out),
        RequestBody::OffsetForLeaderEpoch(body) => offset_for_leader_epoch::handle(parts, ticket, body, out),
        RequestBody::DescribeConfigs(body) => configs::describe(parts, ticket, body, out),
        RequestBody::DescribeAcls(body) => acls::describe(parts, ticket, body, out),
        RequestBody::CreateAcls(body) => acls::create(parts, ticket, body, out),
        RequestBody::DeleteAcls(body) => acls::delete(parts, ticket, body, out),
        RequestBody::SaslHandshake(_) => sasl::handshake(parts, ticket, out),
        RequestBody::SaslAuthenticate(_) => sasl::authenticate(parts, ticket, out),
        RequestBody::DescribeLogDirs(body) => log_dirs::handle(parts, ticket, body, out),
        RequestBody::DescribeCluster(body) => describe_cluster::handle(parts, ticket, body, out),
        RequestBody::DescribeProducers(body) => describe_producers::handle(parts, ticket, body, out),
        RequestBody::ListConfigResources(body) => list_config_resources::handle(parts, ticket, body, out),
        RequestBody::DescribeClientQuotas(body) => describe_client_quotas::handle(parts, ticket, body, out),
        RequestBody::DescribeUserScramCredentials(body) => {
            describe_user_scram_credentials::handle(parts, ticket, body, out);
        }
        RequestBody::DescribeTopicPartitions(body) => describe_topic_partitions::handle(parts, ticket, body, out),
        _ => parts.replies.close(ticket, "the request is of a kind that this broker does not serve", out),
    }
}

/// The address of a broker for clients of one listener.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub node: NodeId,
    pub host: ByteString,
    pub port: u16,
    pub rack: Option<ByteString>,
}

impl Parts {
    /// The id of the topic that a Produce request names.
    fn topic_for_produce(&self, version: i16, topic: &TopicProduceData) -> Result<Uuid, ErrorCode> {
        let found = match version >= 13 {
            true => self.image.topic(topic.topic_id).ok_or(ErrorCode::UnknownTopicId)?,
            false => self.image.topic_named(&topic.name).ok_or(ErrorCode::UnknownTopicOrPartition)?,
        };
        Ok(found.id)
    }

    /// The partition, if it is on this broker.
    fn partition_of(&mut self, topic: Uuid, index: i32) -> Result<&mut Partition, ErrorCode> {
        let log = self.log_of(topic, index)?;
        Ok(self.partitions.get_mut(log).expect("just found"))
    }

    /// The partition, if this broker leads it in the leader epoch `current` that the client knows (-1: in any epoch).
    fn leader_of(&mut self, topic: &str, index: i32, current: i32) -> Result<&mut Partition, ErrorCode> {
        let topic = self.image.topic_named(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let partition = self.partition_of(topic.id, index)?;
        partition.check_leader(LeaderEpoch(current))?;
        Ok(partition)
    }

    /// The log of a partition on this broker.
    fn log_of(&self, topic: Uuid, index: i32) -> Result<LogId, ErrorCode> {
        self.partitions.find(topic, index).ok_or_else(|| self.why_without_log(topic, index))
    }

    /// Why this broker has no log of a partition, in Kafka's order: its log directory is offline, or another broker has
    /// it or its name is not free yet, or it does not exist.
    #[cold]
    fn why_without_log(&self, topic: Uuid, index: i32) -> ErrorCode {
        let Some(partition) = self.image.partition(topic, index) else { return ErrorCode::UnknownTopicOrPartition };
        match partition.directory(self.config.node_id) {
            Some(directory) if self.may_be_offline(directory) => ErrorCode::KafkaStorageError,
            _ => ErrorCode::NotLeaderOrFollower,
        }
    }

    /// Whether a log directory of this broker is offline, or may be: the id of a directory that was offline at the
    /// start is not known.
    fn may_be_offline(&self, directory: Uuid) -> bool {
        match self.dirs.by_directory_id(directory) {
            Some(dir) => !self.dirs.is_online(dir),
            None => self.dirs.paths().any(|(dir, _)| !self.dirs.is_online(dir)),
        }
    }

    /// The leader of a partition and its leader epoch, for a client that knows another one (KIP-951). -1 stands for no
    /// leader, and both are -1 for a partition that does not exist.
    fn current_leader(&self, topic: Uuid, index: i32) -> (i32, i32) {
        let Some(partition) = self.image.partition(topic, index) else { return (-1, -1) };
        let here = self.partitions.find(topic, index).and_then(|log| self.partitions.get(log));
        let epoch = here.map_or(partition.leader_epoch, Partition::leader_epoch);
        (partition.leader.map_or(-1, |leader| leader.0), epoch.0)
    }

    /// Whether a listener is one of the controllers', which clients do not use.
    pub fn is_controller_listener(&self, listener: u16) -> bool {
        self.controller_listeners[usize::from(listener)]
    }

    /// The address of a leader for clients of `listener`, if its broker is registered and not fenced.
    fn endpoint_of(&self, leader: i32, listener: u16) -> Option<Endpoint> {
        self.image.broker(NodeId(leader)).filter(|broker| !broker.fenced)?;
        self.endpoints(listener).into_iter().find(|endpoint| endpoint.node.0 == leader)
    }

    /// The partitions of a topic from `first` on, each with its leader for clients. There is none while this broker
    /// should lead the partition and has not opened its log yet: the directory of an earlier topic with the same name
    /// may still have to be renamed.
    fn with_leaders<'a>(
        &'a self,
        topic: &'a controller::Topic,
        first: i32,
    ) -> impl Iterator<Item = (i32, &'a controller::Partition, Option<NodeId>)> {
        let mut open = self.partitions.indexes_of(topic.id, first).peekable();
        topic.partitions.range(first..).map(move |(index, partition)| {
            while open.next_if(|open| open < index).is_some() {}
            let is_open = open.peek() == Some(index);
            let leader = partition.leader.filter(|leader| is_open || *leader != self.config.node_id);
            (*index, partition, leader)
        })
    }

    /// The brokers with their addresses for clients of `listener`. A broker that is fenced, or advertises no listener of
    /// that name, is left out, as in Kafka.
    fn endpoints(&self, listener: u16) -> Vec<Endpoint> {
        let name = &self.config.listeners[usize::from(listener)].name;
        let brokers = self.image.brokers().filter(|broker| !broker.fenced);
        let endpoints = brokers.filter_map(|broker| {
            let endpoint = broker.end_points.iter().find(|endpoint| *endpoint.name == **name)?;
            Some(Endpoint {
                node: NodeId(broker.broker_id),
                host: endpoint.host.clone(),
                port: endpoint.port,
                rack: broker.rack.clone(),
            })
        });
        endpoints.collect()
    }
}

/// The brokers of the metadata, as replicas see them.
#[derive(Clone, Copy, Debug)]
pub struct KnownBrokers<'a>(pub &'a Image);

impl Brokers for KnownBrokers<'_> {
    fn active_epoch(&self, node: NodeId) -> Option<i64> {
        self.0
            .broker(node)
            .filter(|broker| !broker.fenced && !broker.in_controlled_shutdown)
            .map(|broker| broker.broker_epoch)
    }

    fn alive_epoch(&self, node: NodeId) -> Option<i64> {
        self.0.broker(node).filter(|broker| !broker.fenced).map(|broker| broker.broker_epoch)
    }
}

/// The replicas of a partition on brokers that are fenced or gone, and those in log directories that are offline.
fn offline_replicas(image: &Image, partition: &controller::Partition) -> Int32s {
    let mut offline = Int32s::new();
    for (node, dir) in partition.replicas.iter().zip(&partition.directories) {
        if !image.is_online(*node, *dir) {
            offline.push(node.0);
        }
    }
    offline
}

/// Whether only coordinators may write to the topic: `__consumer_offsets`, `__transaction_state`,
/// `__share_group_state`.
pub fn is_internal_topic(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

fn draw_uuid(rng: &mut ChaCha8Rng) -> Uuid {
    Uuid::random(|| draw_bytes(rng))
}

fn draw_bytes(rng: &mut ChaCha8Rng) -> [u8; 16] {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    bytes
}
