//! ListOffsets: the offset of the first record at or after a timestamp, or the offset that a special timestamp stands
//! for.
//!
//! The partitions of a request are looked up one after the other. A lookup that must read the disk makes the request
//! wait.

use crate::api::{Parts, PendingRequest, Ticket};
use crate::ids::{LeaderEpoch, Offset, PendingId};
use crate::io::Outbox;
use crate::replication::Partition;
use crate::storage::{Lookup, LookupTarget, TimestampedOffset};
use crate::wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest};
use crate::wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use crate::wire::{ErrorCode, ResponseBody};
use bytestring::ByteString;
use std::collections::BTreeSet;

/// The special values of `timestamp`.
mod special {
    pub const LATEST: i64 = -1;
    pub const EARLIEST: i64 = -2;
    /// KIP-734.
    pub const MAX_TIMESTAMP: i64 = -3;
    /// KIP-405.
    pub const EARLIEST_LOCAL: i64 = -4;
    /// KIP-1005.
    pub const LATEST_TIERED: i64 = -5;
    /// KIP-1023.
    pub const EARLIEST_PENDING_UPLOAD: i64 = -6;
}

/// The replica id of a consumer, which must not learn of offsets past the high watermark.
const CONSUMER: i32 = -1;

/// A request that waits for a lookup to read the disk.
#[derive(Debug)]
pub struct PendingListOffsets {
    pub ticket: Ticket,
    request: ListOffsetsRequest,
    duplicates: BTreeSet<(ByteString, i32)>,
    /// The answers so far.
    topics: Vec<ListOffsetsTopicResponse>,
}

pub fn handle(parts: &mut Parts, ticket: Ticket, request: ListOffsetsRequest, out: &mut Outbox) {
    let (mut seen, mut duplicates) = (BTreeSet::new(), BTreeSet::new());
    for topic in &request.topics {
        for partition in &topic.partitions {
            let key = (topic.name.clone(), partition.partition_index);
            if !seen.insert(key.clone()) {
                duplicates.insert(key);
            }
        }
    }
    let id = parts.pending.next_id();
    advance(parts, id, PendingListOffsets { ticket, request, duplicates, topics: Vec::new() }, out);
}

/// The lookup that the request waited for has completed.
pub fn looked_up(
    parts: &mut Parts,
    id: PendingId,
    outcome: Result<Option<TimestampedOffset>, String>,
    out: &mut Outbox,
) {
    let Some((PendingRequest::ListOffsets(mut pending), _)) = parts.pending.take(id) else { return };
    let (topic, asked) = pending.next().expect("a waiting request has a partition to look up");
    let visible = parts
        .leader_of(&topic, asked.partition_index, -1)
        .map(|partition| visible_end(partition, pending.request.replica_id));
    let answer = match (outcome, visible) {
        (Ok(found), Ok(end)) => answer(asked.partition_index, found.filter(|found| found.offset < end)),
        // The partition is no longer led here. To answer "no such offset" would be wrong.
        (Ok(_), Err(error)) => refusal(asked.partition_index, error),
        (Err(_), _) => refusal(asked.partition_index, ErrorCode::KafkaStorageError),
    };
    pending.push(answer);
    advance(parts, id, pending, out);
}

fn advance(parts: &mut Parts, id: PendingId, mut pending: PendingListOffsets, out: &mut Outbox) {
    while let Some((topic, asked)) = pending.next() {
        let index = asked.partition_index;
        let outcome = if pending.duplicates.contains(&(topic.clone(), index)) {
            Err(ErrorCode::InvalidRequest)
        } else if !known(asked.timestamp, pending.ticket.api_version) {
            Err(ErrorCode::UnsupportedVersion)
        } else {
            let replica = pending.request.replica_id;
            parts
                .leader_of(&topic, index, asked.current_leader_epoch)
                .and_then(|partition| look_up(partition, asked.timestamp, replica, id, out))
        };
        match outcome {
            Ok(Lookup::Found(found)) => pending.push(answer(index, found)),
            Ok(Lookup::Failed(_)) => pending.push(refusal(index, ErrorCode::KafkaStorageError)),
            Ok(Lookup::Pending) => return parts.pending.put(id, PendingRequest::ListOffsets(pending), None),
            Err(error) => pending.push(refusal(index, error)),
        }
    }
    let response = ListOffsetsResponse { topics: pending.topics, ..Default::default() };
    parts.replies.answer(pending.ticket, ResponseBody::ListOffsets(response), out);
}

impl PendingListOffsets {
    /// The partition to look up next.
    fn next(&mut self) -> Option<(ByteString, ListOffsetsPartition)> {
        loop {
            let place = self.topics.len().saturating_sub(1);
            let topic = self.request.topics.get(place)?;
            if let Some(current) = self.topics.get(place)
                && let Some(asked) = topic.partitions.get(current.partitions.len())
            {
                return Some((topic.name.clone(), asked.clone()));
            }
            let topic = self.request.topics.get(self.topics.len())?;
            self.topics.push(ListOffsetsTopicResponse { name: topic.name.clone(), ..Default::default() });
        }
    }

    fn push(&mut self, mut answer: ListOffsetsPartitionResponse) {
        if self.ticket.api_version < 4 {
            // Versions below 4 have no field for it.
            answer.leader_epoch = LeaderEpoch::UNKNOWN.0;
        }
        self.topics.last_mut().expect("a partition was looked up").partitions.push(answer);
    }
}

fn known(timestamp: i64, version: i16) -> bool {
    match timestamp {
        0.. | special::LATEST | special::EARLIEST => true,
        special::MAX_TIMESTAMP => version >= 7,
        special::EARLIEST_LOCAL => version >= 8,
        special::LATEST_TIERED => version >= 9,
        special::EARLIEST_PENDING_UPLOAD => version >= 11,
        _ => false,
    }
}

/// One past the last offset that this client or replica may learn of.
fn visible_end(partition: &Partition, replica: i32) -> Offset {
    if replica == CONSUMER { partition.high_watermark() } else { partition.log().log_end_offset() }
}

fn look_up(
    partition: &mut Partition,
    timestamp: i64,
    replica: i32,
    id: PendingId,
    out: &mut Outbox,
) -> Result<Lookup, ErrorCode> {
    let end = visible_end(partition, replica);
    let at = |offset, leader_epoch| Lookup::Found(Some(TimestampedOffset { timestamp: -1, offset, leader_epoch }));
    let lookup = match timestamp {
        special::LATEST => at(end, partition.leader_epoch()),
        special::EARLIEST | special::EARLIEST_LOCAL => {
            let start = partition.log().log_start_offset();
            at(start, partition.log().epochs().epoch_for_offset(start).unwrap_or(LeaderEpoch::UNKNOWN))
        }
        // There is no tiered storage: no offset is in remote storage, and none waits to be uploaded.
        special::LATEST_TIERED | special::EARLIEST_PENDING_UPLOAD => at(Offset::UNKNOWN, LeaderEpoch::UNKNOWN),
        special::MAX_TIMESTAMP => shown(partition.offset_for_timestamp(LookupTarget::MaxTimestamp, id, out), end),
        moment => shown(partition.offset_for_timestamp(LookupTarget::FirstAt(moment), id, out), end),
    };
    Ok(lookup)
}

/// Hides a record at or past `end`.
fn shown(lookup: Lookup, end: Offset) -> Lookup {
    match lookup {
        Lookup::Found(found) => Lookup::Found(found.filter(|found| found.offset < end)),
        other => other,
    }
}

fn answer(index: i32, found: Option<TimestampedOffset>) -> ListOffsetsPartitionResponse {
    let mut answer =
        ListOffsetsPartitionResponse { partition_index: index, timestamp: -1, offset: -1, ..Default::default() };
    if let Some(found) = found {
        answer.timestamp = found.timestamp;
        answer.offset = found.offset.0;
        answer.leader_epoch = found.leader_epoch.0;
    }
    answer
}

fn refusal(index: i32, error: ErrorCode) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse { error_code: error.code(), ..answer(index, None) }
}
