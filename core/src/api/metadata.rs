//! Metadata: the brokers, and the partitions of topics with their leaders. A named topic that does not exist is created
//! first, if both the broker (`auto.create.topics.enable`) and the request allow it.

use crate::api::{Asker, CLUSTER_OPERATIONS, Parts, TOPIC_OPERATIONS, Ticket, is_internal_topic, offline_replicas};
use crate::controller::{Topic, validate_topic_name};
use crate::ids::Uuid;
use crate::io::Outbox;
use crate::time::Now;
use crate::wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use crate::wire::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use crate::wire::{ErrorCode, ResponseBody, node_ids};
use bytestring::ByteString;
use std::collections::BTreeSet;

pub fn handle(parts: &mut Parts, now: Now, ticket: Ticket, request: MetadataRequest, out: &mut Outbox) {
    if let Some(topics) = &request.topics
        && ticket.api_version < 12
        && topics.iter().any(|topic| topic.name.is_none() || topic.topic_id != Uuid::ZERO)
    {
        let response = invalid(topics);
        return parts.replies.answer(ticket, ResponseBody::Metadata(response), out);
    }
    let missing: BTreeSet<ByteString> = match &request.topics {
        Some(topics)
            if parts.config.auto_create_topics_enable
                && request.allow_auto_topic_creation
                && !topics.iter().any(|topic| topic.topic_id != Uuid::ZERO) =>
        {
            let names = topics.iter().filter_map(|topic| topic.name.clone());
            names.filter(|name| parts.image.topic_named(name).is_none()).collect()
        }
        _ => BTreeSet::new(),
    };
    if missing.is_empty() {
        return answer(parts, ticket, &request, out);
    }
    // The answer waits until the controller has created the topics, for this request or for an earlier one. (Kafka tells
    // the client to ask again.)
    let creation = parts.auto_create(missing);
    parts.channel.ask(now.mono, Asker::TopicCreation { ticket, request }, creation);
}

/// Refuses a request that names topics in a way that its version does not have.
fn invalid(topics: &[MetadataRequestTopic]) -> MetadataResponse {
    let topics = topics.iter().map(|topic| {
        let name = topic.name.clone().unwrap_or_default();
        MetadataResponseTopic {
            error_code: ErrorCode::InvalidRequest.code(),
            name: Some(name),
            topic_id: topic.topic_id,
            ..Default::default()
        }
    });
    MetadataResponse { topics: topics.collect(), error_code: ErrorCode::InvalidRequest.code(), ..Default::default() }
}

/// Answers from the committed image.
pub fn answer(parts: &mut Parts, ticket: Ticket, request: &MetadataRequest, out: &mut Outbox) {
    let version = ticket.api_version;
    let with_operations = request.include_topic_authorized_operations && version >= 8;
    let image = &parts.image;
    let mut topics: Vec<MetadataResponseTopic> = match &request.topics {
        None => image.topics_by_name().map(|topic| describe(topic, parts)).collect(),
        // A v0 request asks for all topics by an empty list, a later one by a null list.
        Some(topics) if version == 0 && topics.is_empty() => {
            image.topics_by_name().map(|topic| describe(topic, parts)).collect()
        }
        Some(topics) => asked(topics, parts),
    };
    if with_operations {
        for topic in topics.iter_mut().filter(|topic| topic.error_code != ErrorCode::UnknownTopicId.code()) {
            topic.topic_authorized_operations = TOPIC_OPERATIONS;
        }
    }
    let response = MetadataResponse {
        brokers: parts
            .endpoints(ticket.listener)
            .into_iter()
            .map(|endpoint| MetadataResponseBroker {
                node_id: endpoint.node.0,
                host: endpoint.host,
                port: endpoint.port.into(),
                rack: endpoint.rack,
                ..Default::default()
            })
            .collect(),
        cluster_id: Some(parts.cluster_id.clone()),
        controller_id: parts.config.node_id.0,
        topics,
        cluster_authorized_operations: match request.include_cluster_authorized_operations
            && (8..=10).contains(&version)
        {
            true => CLUSTER_OPERATIONS,
            false => i32::MIN,
        },
        ..Default::default()
    };
    parts.replies.answer(ticket, ResponseBody::Metadata(response), out);
}

/// The topics that a request names, each of them once. A request that has ids is answered for the ids alone.
fn asked(topics: &[MetadataRequestTopic], parts: &Parts) -> Vec<MetadataResponseTopic> {
    let mut ids = BTreeSet::new();
    let by_id: Vec<MetadataResponseTopic> = topics
        .iter()
        .map(|topic| topic.topic_id)
        .filter(|id| *id != Uuid::ZERO && ids.insert(*id))
        .map(|id| match parts.image.topic(id) {
            Some(topic) => describe(topic, parts),
            None => unknown(None, id, ErrorCode::UnknownTopicId),
        })
        .collect();
    if !by_id.is_empty() {
        return by_id;
    }
    let mut names = BTreeSet::new();
    topics
        .iter()
        .map(|topic| topic.name.clone().unwrap_or_default())
        .filter(|name| names.insert(name.clone()))
        .map(|name| named(name, parts))
        .collect()
}

fn named(name: ByteString, parts: &Parts) -> MetadataResponseTopic {
    if let Some(topic) = parts.image.topic_named(&name) {
        return describe(topic, parts);
    }
    // Whatever keeps a topic from being created, Kafka answers a legal name with this error.
    let error = match validate_topic_name(&name) {
        Err(_) => ErrorCode::InvalidTopicException,
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
    };
    unknown(Some(name), Uuid::ZERO, error)
}

fn unknown(name: Option<ByteString>, topic_id: Uuid, error: ErrorCode) -> MetadataResponseTopic {
    let is_internal = name.as_ref().is_some_and(|name| is_internal_topic(name));
    MetadataResponseTopic { error_code: error.code(), name, topic_id, is_internal, ..Default::default() }
}

fn describe(topic: &Topic, parts: &Parts) -> MetadataResponseTopic {
    let partitions = parts
        .with_leaders(topic, 0)
        .map(|(index, partition, leader)| MetadataResponsePartition {
            error_code: if leader.is_none() { ErrorCode::LeaderNotAvailable.code() } else { 0 },
            partition_index: index,
            leader_id: leader.map_or(-1, |leader| leader.0),
            leader_epoch: partition.leader_epoch.0,
            replica_nodes: node_ids(&partition.replicas),
            isr_nodes: node_ids(&partition.isr),
            offline_replicas: offline_replicas(&parts.image, partition),
            ..Default::default()
        })
        .collect();
    MetadataResponseTopic {
        error_code: 0,
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        is_internal: is_internal_topic(&topic.name),
        partitions,
        ..Default::default()
    }
}
