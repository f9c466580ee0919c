//! DeleteRecords: moves the log start offset of partitions forward.

use crate::api::{Parts, Ticket, is_internal_topic};
use crate::ids::Offset;
use crate::io::Outbox;
use crate::storage::CheckpointKind;
use crate::time::Now;
use crate::wire::messages::delete_records_request::DeleteRecordsRequest;
use crate::wire::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use crate::wire::{ErrorCode, ResponseBody};
use bytestring::ByteString;
use std::collections::BTreeMap;

/// The offset in a request that stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;

pub fn handle(parts: &mut Parts, now: Now, ticket: Ticket, request: DeleteRecordsRequest, out: &mut Outbox) {
    // A partition that is named several times is answered once, and its last offset counts.
    let mut asked: BTreeMap<ByteString, BTreeMap<i32, i64>> = BTreeMap::new();
    for topic in request.topics {
        let partitions = topic.partitions.iter().map(|partition| (partition.partition_index, partition.offset));
        asked.entry(topic.name).or_default().extend(partitions);
    }
    let mut any_done = false;
    let topics = asked
        .into_iter()
        .map(|(name, partitions)| DeleteRecordsTopicResult {
            partitions: partitions
                .into_iter()
                .map(|(partition_index, offset)| {
                    let outcome = delete(parts, now, &name, partition_index, offset, out);
                    any_done |= outcome.is_ok();
                    DeleteRecordsPartitionResult {
                        partition_index,
                        low_watermark: outcome.map_or(-1, |start| start.0),
                        error_code: outcome.err().map_or(0, ErrorCode::code),
                        ..Default::default()
                    }
                })
                .collect(),
            name,
            ..Default::default()
        })
        .collect();
    if any_done {
        // The log start offsets are written now and not by the timer, so that a crash seldom brings deleted records
        // back. The answer does not wait for that, as in Kafka.
        parts.checkpoint(CheckpointKind::LogStart, out);
    }
    let response = DeleteRecordsResponse { topics, ..Default::default() };
    parts.replies.answer(ticket, ResponseBody::DeleteRecords(response), out);
}

/// Gives the partition's log start offset, which stays where it is if it is at or above `offset` already.
fn delete(
    parts: &mut Parts,
    now: Now,
    topic: &str,
    index: i32,
    offset: i64,
    out: &mut Outbox,
) -> Result<Offset, ErrorCode> {
    let exists = parts.image.topic_named(topic).is_some_and(|topic| topic.partitions.contains_key(&index));
    if exists && is_internal_topic(topic) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let partition = parts.leader_of(topic, index, -1)?;
    if !partition.allows_delete_records() {
        return Err(ErrorCode::PolicyViolation);
    }
    let target = match offset {
        HIGH_WATERMARK => partition.high_watermark(),
        offset => Offset(offset),
    };
    if target < Offset::ZERO || target > partition.high_watermark() {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    partition.delete_records(now, target, out);
    Ok(partition.log().log_start_offset())
}
