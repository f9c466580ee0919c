//! Requests that the quorum of the metadata log answers (KIP-595): now, or when what they wait for has happened.

use crate::api::{AnswerTo, Parts};
use crate::io::Outbox;
use crate::quorum::{QuorumEvent, QuorumRequest, RequestId};
use crate::time::Now;
use crate::wire::{RequestBody, ResponseBody};
use std::collections::BTreeMap;

/// The requests that the quorum has not answered yet.
#[derive(Debug, Default)]
pub struct QuorumRequests {
    next: u64,
    waiting: BTreeMap<RequestId, AnswerTo>,
    /// What the quorum told when it was given a request. The broker takes it when the request is handled.
    events: Vec<QuorumEvent>,
}

impl QuorumRequests {
    pub fn take_events(&mut self) -> Vec<QuorumEvent> {
        std::mem::take(&mut self.events)
    }
}

/// Gives a request to the quorum.
pub fn handle(parts: &mut Parts, now: Now, to: AnswerTo, body: impl Into<RequestBody>, out: &mut Outbox) {
    let requests = &mut parts.quorum_requests;
    requests.next += 1;
    let id = RequestId(requests.next);
    let version = to.api_version();
    let listener = match &to {
        AnswerTo::Sender { ticket, .. } | AnswerTo::Envelope { ticket, .. } => usize::from(ticket.listener),
        AnswerTo::Channel { .. } => panic!("a node asks its own quorum directly"),
    };
    let listener = parts.config.listeners[listener].name.as_str().into();
    requests.waiting.insert(id, to);
    let request = QuorumRequest { id, version, listener, body: body.into() };
    let events = parts.quorum().handle_request(now, request, out);
    parts.quorum_requests.events.extend(events);
}

/// Raises `kraft.version`.
pub fn upgrade(parts: &mut Parts, now: Now, out: &mut Outbox) {
    let events = parts.quorum().upgrade_kraft_version(now, out);
    parts.quorum_requests.events.extend(events);
}

/// The quorum has answered a request.
pub fn answered(parts: &mut Parts, id: RequestId, body: ResponseBody, out: &mut Outbox) {
    let to = parts.quorum_requests.waiting.remove(&id).expect("the quorum answers a request once");
    parts.answer_to(to, body, out);
}
