//! ElectLeaders and ListPartitionReassignments, which the controller answers (KIP-460, KIP-455).

use crate::api::{AfterCommit, Parts, Ticket};
use crate::controller;
use crate::io::Outbox;
use crate::time::Now;
use crate::wire::ResponseBody;
use crate::wire::messages::{ElectLeadersRequest, ListPartitionReassignmentsRequest};

pub fn handle(parts: &mut Parts, now: Now, ticket: Ticket, mut request: ElectLeadersRequest, out: &mut Outbox) {
    if ticket.api_version == 0 {
        // Version 0 is older than KIP-460 and has no field for the type: it asks for the preferred leader.
        request.election_type = 0;
    }
    let decision = controller::elect_leaders(&parts.proposed, &parts.controller_context(), &request);
    let body = ResponseBody::ElectLeaders(decision.response);
    parts.commit(now, decision.records, AfterCommit::Answer { ticket, body: Box::new(body) }, out);
}

pub fn list_reassignments(
    parts: &mut Parts,
    ticket: Ticket,
    request: ListPartitionReassignmentsRequest,
    out: &mut Outbox,
) {
    let response = controller::list_reassignments(&parts.image, &request);
    parts.replies.answer(ticket, ResponseBody::ListPartitionReassignments(response), out);
}
