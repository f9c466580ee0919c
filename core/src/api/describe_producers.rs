//! DescribeProducers: the idempotent producers that have written to a partition and are not expired yet (KIP-664).

use crate::api::{Parts, Ticket};
use crate::controller::{Refusal, validate_topic_name};
use crate::io::Outbox;
use crate::wire::messages::describe_producers_request::DescribeProducersRequest;
use crate::wire::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};
use crate::wire::{ErrorCode, ResponseBody};

pub fn handle(parts: &mut Parts, ticket: Ticket, request: DescribeProducersRequest, out: &mut Outbox) {
    let topics = request.topics.into_iter().map(|topic| {
        let refusal = refusal(parts, &topic.name);
        let partitions = topic.partition_indexes.iter().map(|index| match &refusal {
            Some(Refusal { error, message }) => PartitionResponse {
                partition_index: *index,
                error_code: error.code(),
                error_message: message.clone(),
                ..Default::default()
            },
            None => describe(parts, &topic.name, *index),
        });
        TopicResponse { partitions: partitions.collect(), name: topic.name.clone(), ..Default::default() }
    });
    let response = DescribeProducersResponse { topics: topics.collect(), ..Default::default() };
    parts.replies.answer(ticket, ResponseBody::DescribeProducers(response), out);
}

/// Why no partition of a topic can be described.
fn refusal(parts: &Parts, topic: &str) -> Option<Refusal> {
    if let Err(why) = validate_topic_name(topic) {
        return Some(Refusal::new(ErrorCode::InvalidTopicException, why));
    }
    parts.image.topic_named(topic).is_none().then(Refusal::unknown_topic)
}

fn describe(parts: &mut Parts, topic: &str, index: i32) -> PartitionResponse {
    let described = PartitionResponse { partition_index: index, ..Default::default() };
    let partition = match parts.leader_of(topic, index, -1) {
        Ok(partition) => partition,
        Err(error) => return PartitionResponse { error_code: error.code(), ..described },
    };
    let producers = partition.log().producers();
    let active_producers = producers.iter().map(|producer| ProducerState {
        producer_id: producer.producer_id.0,
        producer_epoch: producer.producer_epoch.into(),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_timestamp,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.current_transaction_start_offset.map_or(-1, |offset| offset.0),
        ..Default::default()
    });
    PartitionResponse { active_producers: active_producers.collect(), ..described }
}
