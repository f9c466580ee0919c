//! DescribeTopicPartitions: topics with their partitions, a page at a time (KIP-966).

use crate::api::{Parts, TOPIC_OPERATIONS, Ticket, is_internal_topic, offline_replicas};
use crate::controller::{Topic, validate_topic_name};
use crate::io::Outbox;
use crate::wire::messages::describe_topic_partitions_request::{DescribeTopicPartitionsRequest, TopicRequest};
use crate::wire::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};
use crate::wire::{ErrorCode, ResponseBody, node_ids};
use bytestring::ByteString;
use std::collections::BTreeSet;

pub fn handle(parts: &mut Parts, ticket: Ticket, request: DescribeTopicPartitionsRequest, out: &mut Outbox) {
    let image = &parts.image;
    let start = request.cursor.as_ref().map(|cursor| (cursor.topic_name.clone(), cursor.partition_index));
    let all = request.topics.is_empty();
    let mut names: BTreeSet<ByteString> = match all {
        true => image.topics().map(|topic| topic.name.clone()).collect(),
        false => request.topics.iter().map(|topic| topic.name.clone()).collect(),
    };
    if let Some((topic, partition)) = &start {
        if *partition < 0 || (!all && !names.contains(topic)) {
            let response = invalid(request.topics);
            return parts.replies.answer(ticket, ResponseBody::DescribeTopicPartitions(response), out);
        }
        names = names.split_off(topic);
    }
    let limit = parts.config.max_request_partition_size_limit.min(request.response_partition_limit).max(1) as usize;
    let mut room = limit;
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names {
        let first = start.as_ref().filter(|(topic, _)| *topic == name).map_or(0, |(_, partition)| *partition);
        if room == 0 {
            response.next_cursor = Some(Cursor { topic_name: name, partition_index: first, ..Default::default() });
            break;
        }
        let Some(topic) = image.topic_named(&name) else {
            if !all {
                response.topics.push(unknown(name));
            }
            continue;
        };
        let (described, next) = describe(topic, parts, first, room);
        room -= described.partitions.len();
        response.topics.push(described);
        if let Some(next) = next {
            response.next_cursor = Some(Cursor { topic_name: name, partition_index: next, ..Default::default() });
            break;
        }
    }
    parts.replies.answer(ticket, ResponseBody::DescribeTopicPartitions(response), out);
}

/// Refuses a request whose cursor is invalid.
fn invalid(topics: Vec<TopicRequest>) -> DescribeTopicPartitionsResponse {
    let topics = topics.into_iter().map(|topic| DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(topic.name),
        ..Default::default()
    });
    DescribeTopicPartitionsResponse { topics: topics.collect(), ..Default::default() }
}

fn unknown(name: ByteString) -> DescribeTopicPartitionsResponseTopic {
    let error = match validate_topic_name(&name) {
        Err(_) => ErrorCode::InvalidTopicException,
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
    };
    let is_internal = is_internal_topic(&name);
    DescribeTopicPartitionsResponseTopic {
        error_code: error.code(),
        name: Some(name),
        is_internal,
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..Default::default()
    }
}

/// Describes at most `room` partitions from `first` on. Also gives the partition with which the next page begins.
fn describe(
    topic: &Topic,
    parts: &Parts,
    first: i32,
    room: usize,
) -> (DescribeTopicPartitionsResponseTopic, Option<i32>) {
    let mut rest = parts.with_leaders(topic, first);
    let partitions = rest
        .by_ref()
        .take(room)
        .map(|(index, partition, leader)| DescribeTopicPartitionsResponsePartition {
            partition_index: index,
            leader_id: leader.map_or(-1, |leader| leader.0),
            leader_epoch: partition.leader_epoch.0,
            replica_nodes: node_ids(&partition.replicas),
            isr_nodes: node_ids(&partition.isr),
            eligible_leader_replicas: Some(node_ids(&partition.eligible_leaders)),
            last_known_elr: Some(node_ids(&partition.last_known_eligible_leaders)),
            offline_replicas: offline_replicas(&parts.image, partition),
            ..Default::default()
        })
        .collect();
    let described = DescribeTopicPartitionsResponseTopic {
        error_code: 0,
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        is_internal: is_internal_topic(&topic.name),
        partitions,
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..Default::default()
    };
    (described, rest.next().map(|(index, _, _)| index))
}
