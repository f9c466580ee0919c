//! OffsetForLeaderEpoch: the offset at which a leader epoch ends (KIP-101, KIP-279, KIP-320).

use crate::api::{Parts, Ticket};
use crate::ids::LeaderEpoch;
use crate::io::Outbox;
use crate::wire::ResponseBody;
use crate::wire::messages::offset_for_leader_epoch_request::OffsetForLeaderEpochRequest;
use crate::wire::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};

pub fn handle(parts: &mut Parts, ticket: Ticket, request: OffsetForLeaderEpochRequest, out: &mut Outbox) {
    let topics = request
        .topics
        .into_iter()
        .map(|topic| OffsetForLeaderTopicResult {
            partitions: topic
                .partitions
                .iter()
                .map(|asked| {
                    let mut answer = EpochEndOffset { partition: asked.partition, ..Default::default() };
                    match parts.leader_of(&topic.topic, asked.partition, asked.current_leader_epoch) {
                        Ok(partition) => {
                            let (epoch, end) = partition.end_offset_for_epoch(LeaderEpoch(asked.leader_epoch));
                            answer.leader_epoch = epoch.0;
                            answer.end_offset = end.0;
                        }
                        Err(error) => answer.error_code = error.code(),
                    }
                    answer
                })
                .collect(),
            topic: topic.topic,
            ..Default::default()
        })
        .collect();
    let response = OffsetForLeaderEpochResponse { topics, ..Default::default() };
    parts.replies.answer(ticket, ResponseBody::OffsetForLeaderEpoch(response), out);
}
