//! DeleteRecords: moves the log start offset of partitions forward, and answers when it has moved on all replicas whose
//! brokers are there.

use crate::api::{KnownBrokers, Parts, PendingRequest, Ticket, is_internal_topic};
use crate::ids::{Offset, PendingId};
use crate::io::Outbox;
use crate::replication::ResponsePlace;
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

/// A request whose records are not deleted on all replicas yet.
#[derive(Debug)]
pub struct PendingDeleteRecords {
    pub ticket: Ticket,
    response: DeleteRecordsResponse,
    /// In how many partitions.
    waiting: usize,
}

impl PendingDeleteRecords {
    fn result(&mut self, (topic, partition): ResponsePlace) -> (&ByteString, &mut DeleteRecordsPartitionResult) {
        let topic = &mut self.response.topics[topic as usize];
        (&topic.name, &mut topic.partitions[partition as usize])
    }

    fn fail(&mut self, place: ResponsePlace, error: ErrorCode) {
        let (_, result) = self.result(place);
        (result.low_watermark, result.error_code) = (-1, error.code());
    }
}

pub fn handle(parts: &mut Parts, now: Now, ticket: Ticket, request: DeleteRecordsRequest, out: &mut Outbox) {
    // A partition that is named several times is answered once, and its last offset counts.
    let mut asked: BTreeMap<ByteString, BTreeMap<i32, i64>> = BTreeMap::new();
    for topic in request.topics {
        let partitions = topic.partitions.iter().map(|partition| (partition.partition_index, partition.offset));
        asked.entry(topic.name).or_default().extend(partitions);
    }
    let id = parts.pending.next_id();
    let (mut any_done, mut waiting) = (false, 0);
    let mut topics = Vec::new();
    for (name, partitions) in asked {
        let mut results = Vec::new();
        for (partition_index, offset) in partitions {
            let outcome = delete(parts, now, &name, partition_index, offset, out);
            any_done |= outcome.is_ok();
            if let Ok(Deleted { low_watermark, target }) = outcome
                && low_watermark < target
                && let Ok(partition) = parts.leader_of(&name, partition_index, -1)
            {
                partition.answer_when_deleted(target, id, (topics.len() as u32, results.len() as u32));
                waiting += 1;
            }
            results.push(DeleteRecordsPartitionResult {
                partition_index,
                low_watermark: outcome.map_or(-1, |deleted| deleted.low_watermark.0),
                error_code: outcome.err().map_or(0, ErrorCode::code),
                ..Default::default()
            });
        }
        topics.push(DeleteRecordsTopicResult { name, partitions: results, ..Default::default() });
    }
    if any_done {
        // The log start offsets are written now and not by the timer, so that a crash seldom brings deleted records
        // back. The answer does not wait for that, as in Kafka.
        parts.checkpoint(CheckpointKind::LogStart, out);
    }
    let response = DeleteRecordsResponse { topics, ..Default::default() };
    if waiting == 0 {
        return parts.replies.answer(ticket, ResponseBody::DeleteRecords(response), out);
    }
    let deadline = now.mono.plus_ms(request.timeout_ms.into());
    let pending = PendingDeleteRecords { ticket, response, waiting };
    parts.pending.put(id, PendingRequest::DeleteRecords(pending), Some(deadline));
}

/// The records of one partition are deleted everywhere, or it cannot be known any more. The request is answered after its
/// last partition.
pub fn partition_done(
    parts: &mut Parts,
    id: PendingId,
    place: ResponsePlace,
    outcome: Result<(), ErrorCode>,
    out: &mut Outbox,
) {
    let Some((PendingRequest::DeleteRecords(mut pending), deadline)) = parts.pending.take(id) else { return };
    let (name, result) = pending.result(place);
    let index = result.partition_index;
    let low_watermark = outcome.and_then(|()| low_watermark(parts, name, index));
    match low_watermark {
        Ok(low_watermark) => pending.result(place).1.low_watermark = low_watermark.0,
        Err(error) => pending.fail(place, error),
    }
    pending.waiting -= 1;
    if pending.waiting > 0 {
        return parts.pending.put(id, PendingRequest::DeleteRecords(pending), deadline);
    }
    parts.replies.answer(pending.ticket, ResponseBody::DeleteRecords(pending.response), out);
}

/// The time of the request has run out.
pub fn expire(parts: &mut Parts, id: PendingId, mut pending: PendingDeleteRecords, out: &mut Outbox) {
    for place in forget(parts, id) {
        pending.fail(place, ErrorCode::RequestTimedOut);
    }
    parts.replies.answer(pending.ticket, ResponseBody::DeleteRecords(pending.response), out);
}

/// Nobody waits for the request any more. Returns the places of the response for which it still waited.
pub fn forget(parts: &mut Parts, id: PendingId) -> Vec<ResponsePlace> {
    parts.partitions.forget_answers(id)
}

fn low_watermark(parts: &mut Parts, topic: &str, index: i32) -> Result<Offset, ErrorCode> {
    let topic = parts.leader_of(topic, index, -1)?.topic_id();
    let log = parts.log_of(topic, index)?;
    let partition = parts.partitions.get(log).ok_or(ErrorCode::NotLeaderOrFollower)?;
    partition.low_watermark(&KnownBrokers(&parts.image)).ok_or(ErrorCode::NotLeaderOrFollower)
}

#[derive(Clone, Copy, Debug)]
struct Deleted {
    /// Where the replicas' logs start at the lowest.
    low_watermark: Offset,
    target: Offset,
}

/// Moves the leader's log start, which stays where it is if it is at or above `offset` already. The followers learn of it.
fn delete(
    parts: &mut Parts,
    now: Now,
    topic: &str,
    index: i32,
    offset: i64,
    out: &mut Outbox,
) -> Result<Deleted, ErrorCode> {
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
    Ok(Deleted { low_watermark: low_watermark(parts, topic, index)?, target })
}
