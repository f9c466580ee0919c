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
        .map(|partition| Visible::to(partition, pending.replica_id));
    let answer = match (outcome, visible) {
        (Ok(found), Ok(visible)) => match visible.show(found) {
            Ok(found) => answer(index, found),
            Err(error) => pending.refusal(index, error),
        },
        // The partition is no longer led here. To answer "no such offset" would be wrong.
        (Ok(_), Err(error)) => pending.refusal(index, error),
        (Err(_), _) => pending.refusal(index, ErrorCode::KafkaStorageError),
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
            Ok(Lookup::Failed(_)) => pending.push(pending.refusal(index, ErrorCode::KafkaStorageError)),
            Ok(Lookup::Pending) => return parts.pending.put(id, PendingRequest::ListOffsets(pending), None),
            Err(error) => pending.push(pending.refusal(index, error)),
        }
    }
    let response = ListOffsetsResponse { topics: pending.topics, ..Default::default() };
    parts.replies.answer(pending.ticket, ResponseBody::ListOffsets(response), out);
}

impl PendingListOffsets {
    fn refusal(&self, index: i32, error: ErrorCode) -> ListOffsetsPartitionResponse {
        refusal(index, known_error(error, self.ticket.api_version))
    }

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

/// Clients of older versions do not know OFFSET_NOT_AVAILABLE (KIP-207).
fn known_error(error: ErrorCode, version: i16) -> ErrorCode {
    match error {
        ErrorCode::OffsetNotAvailable if version < 5 => ErrorCode::LeaderNotAvailable,
        error => error,
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

/// Which offsets a client or replica may learn of.
#[derive(Clone, Copy, Debug)]
struct Visible {
    /// One past the last.
    end: Offset,
    /// A leader that has not committed anything of its own epoch may know less of what is committed than the one before
    /// it has told: what it does not show may have been shown (KIP-207).
    may_lag: bool,
}

impl Visible {
    fn to(partition: &Partition, replica: i32) -> Self {
        if replica == CONSUMER {
            Self { end: partition.high_watermark(), may_lag: !partition.knows_what_is_committed() }
        } else {
            Self { end: partition.log().log_end_offset(), may_lag: false }
        }
    }

    fn end(self) -> Result<Offset, ErrorCode> {
        if self.may_lag { Err(ErrorCode::OffsetNotAvailable) } else { Ok(self.end) }
    }

    /// Hides a record at or past the end.
    fn show(self, found: Option<TimestampedOffset>) -> Result<Option<TimestampedOffset>, ErrorCode> {
        match found.filter(|found| found.offset < self.end) {
            None if self.may_lag => Err(ErrorCode::OffsetNotAvailable),
            shown => Ok(shown),
        }
    }
}

fn look_up(
    partition: &mut Partition,
    timestamp: i64,
    replica: i32,
    id: PendingId,
    out: &mut Outbox,
) -> Result<Lookup, ErrorCode> {
    let visible = Visible::to(partition, replica);
    let at = |offset, leader_epoch| Lookup::Found(Some(TimestampedOffset { timestamp: -1, offset, leader_epoch }));
    let target = match timestamp {
        special::LATEST => return Ok(at(visible.end()?, partition.leader_epoch())),
        special::EARLIEST | special::EARLIEST_LOCAL => {
            let start = partition.log().log_start_offset();
            let epoch = partition.log().epochs().epoch_for_offset(start);
            return Ok(at(start, epoch.unwrap_or(LeaderEpoch::UNKNOWN)));
        }
        // There is no tiered storage: no offset is in remote storage, and none waits to be uploaded.
        special::LATEST_TIERED | special::EARLIEST_PENDING_UPLOAD => {
            return Ok(at(Offset::UNKNOWN, LeaderEpoch::UNKNOWN));
        }
        special::MAX_TIMESTAMP => LookupTarget::MaxTimestamp,
        moment => LookupTarget::FirstAt(moment),
    };
    match partition.offset_for_timestamp(target, id, out) {
        Lookup::Found(found) => visible.show(found).map(Lookup::Found),
        other => Ok(other),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_new_leader_does_not_know_as_committed_yet_is_not_available_and_what_it_knows_is() {
        let found =
            |offset| Some(TimestampedOffset { timestamp: 7, offset: Offset(offset), leader_epoch: LeaderEpoch(2) });
        let knowing = Visible { end: Offset(5), may_lag: false };
        assert_eq!((knowing.end(), knowing.show(found(5)), knowing.show(None)), (Ok(Offset(5)), Ok(None), Ok(None)));
        let lagging = Visible { may_lag: true, ..knowing };
        let unknown = ErrorCode::OffsetNotAvailable;
        assert_eq!(
            (lagging.end(), lagging.show(found(5)), lagging.show(None)),
            (Err(unknown), Err(unknown), Err(unknown))
        );
        assert_eq!((lagging.show(found(4)), knowing.show(found(4))), (Ok(found(4)), Ok(found(4))));
    }

    #[test]
    fn versions_without_the_error_are_told_that_there_is_no_leader() {
        let told = |version| known_error(ErrorCode::OffsetNotAvailable, version);
        assert_eq!((told(4), told(5)), (ErrorCode::LeaderNotAvailable, ErrorCode::OffsetNotAvailable));
        assert_eq!(known_error(ErrorCode::NotLeaderOrFollower, 4), ErrorCode::NotLeaderOrFollower);
    }
}
