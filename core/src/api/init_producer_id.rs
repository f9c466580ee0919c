//! InitProducerId: gives a producer an id that no other producer has (KIP-98). Transactions are not supported yet.

use crate::api::{AfterCommit, Parts, Ticket};
use crate::controller;
use crate::ids::ProducerId;
use crate::io::Outbox;
use crate::time::Now;
use crate::wire::messages::init_producer_id_request::InitProducerIdRequest;
use crate::wire::messages::init_producer_id_response::InitProducerIdResponse;
use crate::wire::{ErrorCode, ResponseBody};
use std::collections::VecDeque;

/// The rest of the block of producer ids that the controller gave to this broker.
#[derive(Debug, Default)]
pub struct ProducerIds {
    next: i64,
    end: i64,
    /// Requests that wait for the next block. Not empty exactly while the next block is being committed.
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
    let Some(active) = &parts.controller else {
        return answer(parts, ticket, Err(ErrorCode::CoordinatorLoadInProgress), out);
    };
    let decision = controller::allocate_producer_ids(active.proposed(), parts.config.node_id, parts.broker_epoch);
    match decision.response {
        Ok(block) => {
            parts.producer_ids.waiting.push_back(ticket);
            let end = block.first.0 + i64::from(block.len);
            parts.commit(now, decision.records, AfterCommit::ProducerIds { first: block.first.0, end }, out);
        }
        // Whatever keeps the controller from giving a block, the producer asks again.
        Err(_) => answer(parts, ticket, Err(ErrorCode::CoordinatorLoadInProgress), out),
    }
}

/// The next block is committed: answers every request that waited for it.
pub fn block_taken(parts: &mut Parts, now: Now, first: i64, end: i64, out: &mut Outbox) {
    parts.producer_ids.next = first;
    parts.producer_ids.end = end;
    for ticket in std::mem::take(&mut parts.producer_ids.waiting) {
        hand_out(parts, now, ticket, out);
    }
}

/// Nobody knows whether the next block will be committed: every producer that waited for it asks again.
pub fn block_refused(parts: &mut Parts, out: &mut Outbox) {
    for ticket in std::mem::take(&mut parts.producer_ids.waiting) {
        answer(parts, ticket, Err(ErrorCode::CoordinatorLoadInProgress), out);
    }
}

fn answer(parts: &mut Parts, ticket: Ticket, outcome: Result<ProducerId, ErrorCode>, out: &mut Outbox) {
    let response = match outcome {
        Ok(id) => InitProducerIdResponse { producer_id: id.0, producer_epoch: 0, ..Default::default() },
        Err(error) => InitProducerIdResponse { error_code: error.code(), producer_epoch: -1, ..Default::default() },
    };
    parts.replies.answer(ticket, ResponseBody::InitProducerId(response), out);
}
