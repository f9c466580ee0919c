//! DescribeProducers: the idempotent producers that have written to a partition and are not expired yet (KIP-664).

use crate::api::{Parts, Ticket};
use crate::io::Outbox;
use crate::wire::ResponseBody;
use crate::wire::messages::describe_producers_request::DescribeProducersRequest;
use crate::wire::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};

pub fn handle(parts: &mut Parts, ticket: Ticket, request: DescribeProducersRequest, out: &mut Outbox) {
    let topics = request
        .topics
        .into_iter()
        .map(|topic| TopicResponse {
            partitions: topic
                .partition_indexes
                .iter()
                .map(|index| {
                    let mut answer = PartitionResponse { partition_index: *index, ..Default::default() };
                    match parts.leader_of(&topic.name, *index, -1) {
                        Ok(partition) => {
                            answer.active_producers = partition
                                .log()
                                .producers()
                                .iter()
                                .map(|producer| ProducerState {
                                    producer_id: producer.producer_id.0,
                                    producer_epoch: producer.producer_epoch.into(),
                                    last_sequence: producer.last_sequence,
                                    last_timestamp: producer.last_timestamp,
                                    coordinator_epoch: producer.coordinator_epoch,
                                    current_txn_start_offset: producer
                                        .current_transaction_start_offset
                                        .map_or(-1, |offset| offset.0),
                                    ..Default::default()
                                })
                                .collect();
                        }
                        Err(error) => answer.error_code = error.code(),
                    }
                    answer
                })
                .collect(),
            name: topic.name,
            ..Default::default()
        })
        .collect();
    let response = DescribeProducersResponse { topics, ..Default::default() };
    parts.replies.answer(ticket, ResponseBody::DescribeProducers(response), out);
}
