//! CreateTopics, DeleteTopics and CreatePartitions. The controller decides which metadata records a request leads
//! to. The answer is sent once these records are committed.

use crate::api::{AfterCommit, Parts, Ticket, configs, draw_bytes};
use crate::controller;
use crate::io::Outbox;
use crate::time::Now;
use crate::wire::ResponseBody;
use crate::wire::messages::{CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest};

pub fn create(parts: &mut Parts, now: Now, ticket: Ticket, request: CreateTopicsRequest, out: &mut Outbox) {
    let context = controller::Context { node_id: parts.config.node_id, layers: parts.proposed.layers(&parts.config) };
    let rng = &mut parts.rng;
    let decision = controller::create_topics(&parts.proposed, &context, &request, || draw_bytes(rng));
    configs::warn_of_changes(&decision.records, out);
    let body = ResponseBody::CreateTopics(decision.response);
    parts.commit(now, decision.records, AfterCommit::Answer { ticket, body: Box::new(body) }, out);
}

pub fn delete(parts: &mut Parts, now: Now, ticket: Ticket, request: DeleteTopicsRequest, out: &mut Outbox) {
    let context = controller::Context { node_id: parts.config.node_id, layers: parts.proposed.layers(&parts.config) };
    let decision = controller::delete_topics(&parts.proposed, &context, &request, ticket.api_version);
    let body = ResponseBody::DeleteTopics(decision.response);
    parts.commit(now, decision.records, AfterCommit::Answer { ticket, body: Box::new(body) }, out);
}

pub fn create_partitions(
    parts: &mut Parts,
    now: Now,
    ticket: Ticket,
    request: CreatePartitionsRequest,
    out: &mut Outbox,
) {
    let rng = &mut parts.rng;
    let decision = controller::create_partitions(&parts.proposed, &request, || draw_bytes(rng));
    let body = ResponseBody::CreatePartitions(decision.response);
    parts.commit(now, decision.records, AfterCommit::Answer { ticket, body: Box::new(body) }, out);
}
