//! InitProducerId: gives a producer an id that no other producer has (KIP-98). Transactions are not supported yet.

use crate::api::{Asker, Parts, Ticket};
use crate::ids::ProducerId;
use crate::io::Outbox;
use crate::time::Now;
use crate::wire::messages::AllocateProducerIdsRequest;
use crate::wire::messages::init_producer_id_request::InitProducerIdRequest;
use crate::wire::messages::init_producer_id_response::InitProducerIdResponse;
use crate::wire::{ErrorCode, ResponseBody};
use std::collections::VecDeque;

/// The rest of the block of producer ids that the controller gave to this broker.
#[derive(Debug, Default)]
pub struct ProducerIds {
    next: i64,
    end: i64,
    /// Requests that wait for the next block. Not empty exactly while the controller is asked for it.
    waiting: VecDeque<Ticket>,
}

pub fn handle(parts: &mut Parts, now: Now, ticket: Ticket, request: InitProducerIdRequest, out: &mut Outbox) {
    if (request.producer_id == -1) != (request.producer_epoch == -1) {
        return answer(parts, ticket, Err(ErrorCode::InvalidRequest), out);
    }
    match request.transactional_id.as_deref() {
        None => hand_out(parts, now, ticket, out),
        Some("") => answer(parts, ticket, Err(ErrorCode::InvalidRequest), out),
        // There is no transaction coordinator yet. Clients see that in the answer to FindCoordinator.
        Some(_) => answer(parts, ticket, Err(ErrorCode::CoordinatorNotAvailable), out),
    }
}

fn hand_out(parts: &mut Parts, now: Now, ticket: Ticket, out: &mut Outbox) {
    let ids = &mut parts.producer_ids;
    if !ids.waiting.is_empty() {
        return ids.waiting.push_back(ticket);
    }
    if ids.next < ids.end {
        let id = ProducerId(ids.next);
        ids.next += 1;
        return answer(parts, ticket, Ok(id), out);
    }
    parts.producer_ids.waiting.push_back(ticket);
    let (broker_id, broker_epoch) = (parts.config.node_id.0, parts.broker_epoch);
    let request = AllocateProducerIdsRequest { broker_id, broker_epoch, ..Default::default() };
    parts.channel.ask(now.mono, Asker::ProducerIds, request);
}

/// The controller has answered, or could not be asked: answers every request that waited for the next block. If there is
/// none, whatever the reason, the producers ask again.
pub fn block_answered(parts: &mut Parts, now: Now, response: Option<ResponseBody>, out: &mut Outbox) {
    let waiting = std::mem::take(&mut parts.producer_ids.waiting);
    if let Some(ResponseBody::AllocateProducerIds(block)) = response
        && block.error_code == 0
        && block.producer_id_len > 0
    {
        parts.producer_ids.next = block.producer_id_start;
        parts.producer_ids.end = block.producer_id_start + i64::from(block.producer_id_len);
        for ticket in waiting {
            hand_out(parts, now, ticket, out);
        }
    } else {
        for ticket in waiting {
            answer(parts, ticket, Err(ErrorCode::CoordinatorLoadInProgress), out);
        }
    }
}

fn answer(parts: &mut Parts, ticket: Ticket, outcome: Result<ProducerId, ErrorCode>, out: &mut Outbox) {
    let response = match outcome {
        Ok(id) => InitProducerIdResponse { producer_id: id.0, producer_epoch: 0, ..Default::default() },
        Err(error) => InitProducerIdResponse { error_code: error.code(), producer_epoch: -1, ..Default::default() },
    };
    parts.replies.answer(ticket, ResponseBody::InitProducerId(response), out);
}
