//! ElectLeaders and ListPartitionReassignments: the controller's word on who leads and who moves (KIP-460, KIP-455).

use crate::api::{AfterCommit, Parts, Ticket};
use crate::controller;
use crate::io::Outbox;
use crate::time::Now;
use crate::wire::ResponseBody;
use crate::wire::messages::{ElectLeadersRequest, ListPartitionReassignmentsRequest};

pub fn handle(parts: &mut Parts, now: Now, ticket: Ticket, mut request: ElectLeadersRequest, out: &mut Outbox) {
    if ticket.api_version == 0 {
        // Before KIP-460 there was one kind of election.
        request.election_type = 0;
    }
    let decision = controller::elect_leaders(&parts.proposed, &request);
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
