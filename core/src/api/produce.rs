//! Produce: appends one batch to each partition that the request names, and answers when the batches are stable: when
//! they are below the high watermark.
//!
//! Each partition of the request succeeds or fails by itself. With acks=all and, unlike in Kafka, with acks=1 the
//! answer waits until the appended records are as stable as the topic requires (`acks.require.fsync`). With acks=0
//! there is no answer, and an error closes the connection so that the producer notices it (as in Kafka).

use crate::api::prepare::records_of;
use crate::api::{Endpoint, Parts, PendingRequest, Ticket};
use crate::batch::{BatchHeader, Checked};
use crate::ids::{PendingId, Uuid};
use crate::io::Outbox;
use crate::plant::{Plant, Plants};
use crate::probe::Probe;
use crate::replication::{Accepted, ProducedBatch, Refused, ResponsePlace};
use crate::time::Now;
use crate::wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use crate::wire::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, ProduceResponse,
    TopicProduceResponse,
};
use crate::wire::{ErrorCode, ResponseBody};
use std::collections::BTreeMap;

/// A produce that was carried out as far as it can be, and its answer, which is sent when no partition waits any more.
#[derive(Debug)]
pub struct PendingProduce {
    pub ticket: Ticket,
    response: ProduceResponse,
    /// In how many partitions the records are not stable yet.
    waiting: usize,
    /// Whether the answer has an error for some partition.
    failed: bool,
}

impl PendingProduce {
    /// Puts an error into the answer of a partition. As in Kafka, the answer still says where the records were
    /// appended.
    fn fail(&mut self, place: ResponsePlace, error: ErrorCode) {
        self.failed = true;
        let topic = &mut self.response.responses[place.0 as usize];
        topic.partition_responses[place.1 as usize].error_code = error.code();
    }
}

/// One partition of a request.
struct Part<'a> {
    topic: &'a TopicProduceData,
    /// The id of the topic, if there is the topic.
    topic_id: Result<Uuid, ErrorCode>,
    data: &'a PartitionProduceData,
    checked: Checked,
    place: ResponsePlace,
}

/// Appends the batches of a request. `batches` holds the verdict on the records of each partition, in the order of the
/// request. `is_admin`: whether the client may write to internal topics.
pub fn handle(
    parts: &mut Parts,
    now: Now,
    ticket: Ticket,
    (request, batches): (ProduceRequest, Vec<Checked>),
    is_admin: bool,
    out: &mut Outbox,
) {
    let id = parts.pending.next_id();
    let (mut waiting, mut failed) = (0, false);
    // Kafka: whoever writes in a transaction needs the right to its transactional id, and null is no id.
    let is_forbidden = request.transactional_id.is_none() && has_transactional_batch(&request.topic_data, &batches);
    let mut responses: Vec<TopicProduceResponse> = Vec::with_capacity(request.topic_data.len());
    let topic_id = |topic: &TopicProduceData| parts.topic_for_produce(ticket.api_version, topic);
    for part in distinct_parts(&request.topic_data, batches, topic_id) {
        let Part { topic, topic_id, data, checked, place } = part;
        let outcome = match is_forbidden {
            true => Err(ErrorCode::TransactionalIdAuthorizationFailed.into()),
            false => topic_id
                .and_then(|topic_id| parts.partition_of(topic_id, data.index))
                .map_err(Refused::from)
                .and_then(|partition| {
                    let size_bytes = checked.as_ref().map_or_else(|_| stated_size(data), |batch| batch.size_bytes());
                    let batch = ProducedBatch { acks: request.acks, is_admin, checked, size_bytes };
                    let accepted = partition.append_as_leader(now, batch, out)?;
                    if !accepted.done && request.acks != 0 {
                        partition.acknowledge_later(request.acks, accepted.last_offset, id, place);
                        waiting += 1;
                    }
                    Ok(accepted)
                }),
        };
        failed |= outcome.is_err();
        let answer = match outcome {
            Ok(accepted) => answer(data.index, &accepted, parts.config.plants),
            Err(refused) => refusal(data.index, refused),
        };
        if responses.len() == place.0 as usize {
            responses.push(TopicProduceResponse {
                name: topic.name.clone(),
                topic_id: topic.topic_id,
                ..Default::default()
            });
        }
        responses[place.0 as usize].partition_responses.push(answer);
    }
    if request.acks == 0 {
        return match failed {
            true => parts.replies.close(ticket, "a produce with acks=0 failed", out),
            false => parts.replies.nothing(ticket, out),
        };
    }
    let response = ProduceResponse { responses, ..Default::default() };
    let pending = PendingProduce { ticket, response, waiting, failed };
    if waiting == 0 {
        return send(parts, pending, out);
    }
    out.probe(Probe::ProduceWaits);
    // Only acks=all has a timeout. In Kafka acks=1 does not wait at all; here it waits without a limit.
    let deadline = (request.acks == -1).then(|| now.mono.plus_ms(request.timeout_ms.into()));
    parts.pending.put(id, PendingRequest::Produce(pending), deadline);
}

/// The partitions of a request, in its order. Kafka keeps them in a map: of a partition that is named twice only the
/// last batch counts, and there is one answer.
fn distinct_parts(
    topics: &[TopicProduceData],
    batches: Vec<Checked>,
    topic_id: impl Fn(&TopicProduceData) -> Result<Uuid, ErrorCode>,
) -> Vec<Part<'_>> {
    let mut parts: Vec<Part<'_>> = Vec::with_capacity(batches.len());
    let mut batches = batches.into_iter();
    let mut topic_places: BTreeMap<(&str, Uuid), u32> = BTreeMap::new();
    // A topic without partitions has no answer.
    for topic in topics.iter().filter(|topic| !topic.partition_data.is_empty()) {
        let next = topic_places.len() as u32;
        let topic_place = *topic_places.entry((&topic.name, topic.topic_id)).or_insert(next);
        let topic_id = topic_id(topic);
        parts.extend(topic.partition_data.iter().map(|data| {
            let checked = batches.next().expect("one verdict for each partition of the request");
            // The second place follows below, when it is known which partitions stay.
            Part { topic, topic_id, data, checked, place: (topic_place, 0) }
        }));
    }
    keep_last_batches(&mut parts);
    let mut counts = vec![0; topic_places.len()];
    for Part { place, .. } in &mut parts {
        let count = &mut counts[place.0 as usize];
        place.1 = *count;
        *count += 1;
    }
    parts
}

/// Of a partition that is named more than once, keeps the last batch, at the place of the first.
fn keep_last_batches(parts: &mut Vec<Part<'_>>) {
    if parts.len() < 2 {
        return;
    }
    let keys = parts.iter().enumerate().map(|(index, part)| ((part.place.0, part.data.index), index));
    let mut sorted: Vec<((u32, i32), usize)> = keys.collect();
    sorted.sort_unstable();
    if sorted.windows(2).all(|pair| pair[0].0 != pair[1].0) {
        return;
    }
    let mut is_kept = vec![true; parts.len()];
    for named in sorted.chunk_by(|one, next| one.0 == next.0) {
        parts.swap(named[0].1, named[named.len() - 1].1);
        named[1..].iter().for_each(|(_, index)| is_kept[*index] = false);
    }
    let mut is_kept = is_kept.into_iter();
    parts.retain(|_| is_kept.next().expect("one for each part"));
}

/// Whether the first batch of some partition is transactional. A batch that was refused counts too, if its header can
/// be read and all its bytes are there.
fn has_transactional_batch(topics: &[TopicProduceData], batches: &[Checked]) -> bool {
    let partitions = topics.iter().flat_map(|topic| &topic.partition_data);
    partitions.zip(batches).any(|(data, checked)| match checked {
        Ok(batch) => batch.header().is_transactional(),
        Err(_) => {
            let is_whole = |header: &BatchHeader| header.size_bytes() <= records_of(data).len();
            stated_header(data).is_some_and(|header| header.is_transactional() && is_whole(&header))
        }
    })
}

/// The header of a batch that was refused, if it can be read.
fn stated_header(data: &PartitionProduceData) -> Option<BatchHeader> {
    BatchHeader::parse(&records_of(data)).ok()
}

/// The size that a batch says it has; 0 if it has no valid header.
fn stated_size(data: &PartitionProduceData) -> usize {
    stated_header(data).map_or(0, |header| header.size_bytes())
}

/// The records of one partition have become stable, or never will be. The request is answered after its last partition.
pub fn partition_done(
    parts: &mut Parts,
    id: PendingId,
    place: ResponsePlace,
    outcome: Result<(), ErrorCode>,
    out: &mut Outbox,
) {
    // A request whose time ran out was answered before.
    let Some(PendingRequest::Produce(pending)) = parts.pending.get_mut(id) else { return };
    if let Err(error) = outcome {
        out.probe(Probe::ProduceTurnedAway);
        pending.fail(place, error);
    }
    pending.waiting -= 1;
    if pending.waiting == 0
        && let Some((PendingRequest::Produce(pending), _)) = parts.pending.take(id)
    {
        send(parts, pending, out);
    }
}

/// The time of the request has run out. Partitions whose records are not stable yet are answered with
/// `REQUEST_TIMED_OUT`: the records may survive a crash or not.
pub fn expire(parts: &mut Parts, id: PendingId, mut pending: PendingProduce, out: &mut Outbox) {
    out.probe(Probe::ProduceTimedOut);
    for place in parts.partitions.forget_answers(id) {
        pending.fail(place, ErrorCode::RequestTimedOut);
    }
    send(parts, pending, out);
}

fn send(parts: &mut Parts, mut pending: PendingProduce, out: &mut Outbox) {
    if pending.failed {
        name_leaders(parts, &pending.ticket, &mut pending.response);
    }
    parts.replies.answer(pending.ticket, ResponseBody::Produce(pending.response), out);
}

/// Names the leader to producers of partitions that this broker does not lead, with its address (KIP-951).
fn name_leaders(parts: &Parts, ticket: &Ticket, response: &mut ProduceResponse) {
    if ticket.api_version < 10 {
        return;
    }
    for topic in &mut response.responses {
        let id = match ticket.api_version >= 13 {
            true => topic.topic_id,
            false => parts.image.topic_named(&topic.name).map_or(Uuid::ZERO, |topic| topic.id),
        };
        let is_elsewhere =
            |answer: &&mut PartitionProduceResponse| answer.error_code == ErrorCode::NotLeaderOrFollower.code();
        for answer in topic.partition_responses.iter_mut().filter(is_elsewhere) {
            let (leader_id, leader_epoch) = parts.current_leader(id, answer.index);
            answer.current_leader = LeaderIdAndEpoch { leader_id, leader_epoch, ..Default::default() };
            if response.node_endpoints.iter().all(|known| known.node_id != leader_id)
                && let Some(Endpoint { node, host, port, rack }) = parts.endpoint_of(leader_id, ticket.listener)
            {
                let endpoint = NodeEndpoint { node_id: node.0, host, port: port.into(), rack, ..Default::default() };
                response.node_endpoints.push(endpoint);
            }
        }
    }
}

fn answer(index: i32, accepted: &Accepted, plants: Plants) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        base_offset: accepted.base_offset.0 + i64::from(plants.has(Plant::Canary)),
        log_append_time_ms: accepted.log_append_time.map_or(-1, |time| time.0),
        log_start_offset: accepted.log_start_offset.0,
        ..Default::default()
    }
}

fn refusal(index: i32, refused: Refused) -> PartitionProduceResponse {
    let record_errors = refused
        .records
        .into_iter()
        .map(|(batch_index, text)| BatchIndexAndErrorMessage {
            batch_index,
            batch_index_error_message: text.map(Into::into),
            ..Default::default()
        })
        .collect();
    PartitionProduceResponse {
        index,
        error_code: refused.error.code(),
        base_offset: -1,
        log_start_offset: refused.log_start_offset.0,
        record_errors,
        error_message: refused.text.map(Into::into),
        ..Default::default()
    }
}
