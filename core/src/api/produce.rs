//! Produce: append one batch to each of some partitions, and answer when they are stable.
//!
//! Every partition of the request succeeds or fails alone. With acks=1 and acks=all the answer waits until the
//! appended records are as stable as the topic asks (`acks.require.fsync`); with acks=0 there is no answer, and
//! an error closes the connection so that the producer notices (as in Kafka).

use crate::api::{Parts, Pending, Ticket};
use crate::batch::Checked;
use crate::ids::PendingId;
use crate::io::Outbox;
use crate::plant::{Plant, Plants};
use crate::probe::Probe;
use crate::replication::{Accepted, Refused, Slot};
use crate::time::Now;
use crate::wire::messages::produce_request::ProduceRequest;
use crate::wire::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
};
use crate::wire::{ErrorCode, ResponseBody};

/// A produce whose records are appended and not yet stable everywhere.
#[derive(Debug)]
pub struct PendingProduce {
    pub ticket: Ticket,
    response: ProduceResponse,
    /// How many partitions are still to become stable.
    waiting: usize,
}

pub fn handle(
    parts: &mut Parts,
    now: Now,
    ticket: Ticket,
    request: ProduceRequest,
    batches: Vec<Checked>,
    out: &mut Outbox,
) {
    let id = parts.pending.name();
    let (mut waiting, mut failed) = (0, false);
    let mut batches = batches.into_iter();
    let mut responses = Vec::with_capacity(request.topic_data.len());
    for (topic_place, topic_data) in request.topic_data.iter().enumerate() {
        let mut answers = Vec::with_capacity(topic_data.partition_data.len());
        for (partition_place, data) in topic_data.partition_data.iter().enumerate() {
            let batch = batches.next().expect("one verdict for each partition of the request");
            let outcome =
                parts.partition_for_produce(ticket.api_version, topic_data, data.index).and_then(|partition| {
                    let accepted = partition.append_as_leader(now, request.acks, batch, out)?;
                    if !accepted.stable && request.acks != 0 {
                        let slot = (topic_place as u32, partition_place as u32);
                        partition.acknowledge_when_stable(accepted.last_offset, id, slot);
                        waiting += 1;
                    }
                    Ok(accepted)
                });
            failed |= outcome.is_err();
            answers.push(match outcome {
                Ok(accepted) => answer(data.index, &accepted, parts.config.plants),
                Err(refused) => refusal(data.index, refused),
            });
        }
        responses.push(TopicProduceResponse {
            name: topic_data.name.clone(),
            topic_id: topic_data.topic_id,
            partition_responses: answers,
            ..Default::default()
        });
    }
    if request.acks == 0 {
        return match failed {
            true => parts.replies.close(ticket, "a produce with acks=0 failed", out),
            false => parts.replies.nothing(ticket, out),
        };
    }
    let response = ProduceResponse { responses, ..Default::default() };
    if waiting == 0 {
        return parts.replies.answer(ticket, ResponseBody::Produce(response), out);
    }
    out.probe(Probe::ProduceWaits);
    // Kafka bounds the wait of acks=all alone: with acks=1 the answer follows the leader's own append.
    let deadline = (request.acks == -1).then(|| now.mono.plus_ms(request.timeout_ms.into()));
    parts.pending.put(id, Pending::Produce(PendingProduce { ticket, response, waiting }), deadline);
}

/// The records of one partition have become stable, or never will.
pub fn settle(parts: &mut Parts, id: PendingId, slot: Slot, outcome: Result<(), ErrorCode>, out: &mut Outbox) {
    // A request whose time ran out has been answered.
    let Some(Pending::Produce(pending)) = parts.pending.get_mut(id) else { return };
    if let Err(error) = outcome {
        out.probe(Probe::ProduceTurnedAway);
        fail(&mut pending.response, slot, error);
    }
    pending.waiting -= 1;
    if pending.waiting == 0
        && let Some((Pending::Produce(pending), _)) = parts.pending.take(id)
    {
        parts.replies.answer(pending.ticket, ResponseBody::Produce(pending.response), out);
    }
}

/// The time of the request ran out. What is not stable yet is answered with `REQUEST_TIMED_OUT`: it may or may
/// not survive.
pub fn expire(parts: &mut Parts, id: PendingId, mut pending: PendingProduce, out: &mut Outbox) {
    out.probe(Probe::ProduceTimedOut);
    for slot in parts.partitions.forget_produce(id) {
        fail(&mut pending.response, slot, ErrorCode::RequestTimedOut);
    }
    parts.replies.answer(pending.ticket, ResponseBody::Produce(pending.response), out);
}

fn fail(response: &mut ProduceResponse, slot: Slot, error: ErrorCode) {
    let answer = &mut response.responses[slot.0 as usize].partition_responses[slot.1 as usize];
    *answer = refusal(answer.index, error.into());
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
        record_errors,
        error_message: refused.text.map(Into::into),
        ..Default::default()
    }
}
