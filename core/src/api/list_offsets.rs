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
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::RangeInclusive;

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

/// The isolation levels that there are, from `read_uncommitted` to `read_committed` (KIP-98).
pub(super) const ISOLATION_LEVELS: RangeInclusive<i8> = 0..=1;

/// A request that waits for a lookup to read the disk.
#[derive(Debug)]
pub struct PendingListOffsets {
    pub ticket: Ticket,
    replica_id: i32,
    asked: Vec<AskedPartition>,
    /// How many of `asked` are answered.
    answered: usize,
    /// The answers so far.
    topics: Vec<ListOffsetsTopicResponse>,
}

/// One partition of a request.
#[derive(Debug)]
struct AskedPartition {
    /// The place of its topic in the response.
    topic: usize,
    partition: ListOffsetsPartition,
    /// Whether the request names it more than once. Then it is refused, once.
    is_repeated: bool,
}

pub fn handle(parts: &mut Parts, ticket: Ticket, request: ListOffsetsRequest, out: &mut Outbox) {
    if !ISOLATION_LEVELS.contains(&request.isolation_level) {
        let response = refused_whole(request);
        return parts.replies.answer(ticket, ResponseBody::ListOffsets(response), out);
    }
    let (mut topics, mut asked) = (Vec::new(), Vec::<AskedPartition>::new());
    let (mut places, mut known) = (BTreeMap::new(), BTreeMap::new());
    // A topic without partitions has no answer.
    for topic in request.topics.into_iter().filter(|topic| !topic.partitions.is_empty()) {
        let place = *places.entry(topic.name.clone()).or_insert(topics.len());
        if place == topics.len() {
            topics.push(ListOffsetsTopicResponse { name: topic.name, ..Default::default() });
        }
        for partition in topic.partitions {
            match known.entry((place, partition.partition_index)) {
                Entry::Vacant(slot) => {
                    slot.insert(asked.len());
                    asked.push(AskedPartition { topic: place, partition, is_repeated: false });
                }
                Entry::Occupied(slot) => asked[*slot.get()].is_repeated = true,
            }
        }
    }
    let id = parts.pending.next_id();
    let pending = PendingListOffsets { ticket, replica_id: request.replica_id, asked, answered: 0, topics };
    advance(parts, id, pending, out);
}

/// Refuses a request with an isolation level that does not exist. As in Kafka, the answer has the request's shape.
fn refused_whole(request: ListOffsetsRequest) -> ListOffsetsResponse {
    let refused = |partition: ListOffsetsPartition| refusal(partition.partition_index, ErrorCode::UnknownServerError);
    let topics = request.topics.into_iter().map(|topic| ListOffsetsTopicResponse {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(refused).collect(),
        ..Default::default()
    });
    ListOffsetsResponse { topics: topics.collect(), ..Default::default() }
}

/// The lookup that the request waited for has completed.
pub fn looked_up(
    parts: &mut Parts,
    id: PendingId,
    outcome: Result<Option<TimestampedOffset>, String>,
    out: &mut Outbox,
) {
    let Some((PendingRequest::ListOffsets(mut pending), _)) = parts.pending.take(id) else { return };
    let asked = &pending.asked[pending.answered];
    let index = asked.partition.partition_index;
    let visible = parts
        .leader_of(&pending.topics[asked.topic].name, index, -1)
        .map(|partition| visible_end(partition, pending.replica_id));
    let answer = match (outcome, visible) {
        (Ok(found), Ok(end)) => answer(index, found.filter(|found| found.offset < end)),
        // The partition is no longer led here. To answer "no such offset" would be wrong.
        (Ok(_), Err(error)) => refusal(index, error),
        (Err(_), _) => refusal(index, ErrorCode::KafkaStorageError),
    };
    pending.push(answer);
    advance(parts, id, pending, out);
}

fn advance(parts: &mut Parts, id: PendingId, mut pending: PendingListOffsets, out: &mut Outbox) {
    while let Some(AskedPartition { topic, partition: asked, is_repeated }) = pending.asked.get(pending.answered) {
        let index = asked.partition_index;
        let outcome = if *is_repeated {
            Err(ErrorCode::InvalidRequest)
        } else if !known(asked.timestamp, pending.ticket.api_version) {
            Err(ErrorCode::UnsupportedVersion)
        } else {
            parts
                .leader_of(&pending.topics[*topic].name, index, asked.current_leader_epoch)
                .and_then(|partition| look_up(partition, asked.timestamp, pending.replica_id, id, out))
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
    fn push(&mut self, mut answer: ListOffsetsPartitionResponse) {
        if self.ticket.api_version < 4 {
            // Versions below 4 have no field for it.
            answer.leader_epoch = LeaderEpoch::UNKNOWN.0;
        }
        let topic = self.asked[self.answered].topic;
        self.topics[topic].partitions.push(answer);
        self.answered += 1;
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
