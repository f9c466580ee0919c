//! ElectLeaders and ListPartitionReassignments, which the controller answers (KIP-460, KIP-455).

use crate::api::{AnswerTo, Parts};
use crate::controller::{self, Decision};
use crate::io::Outbox;
use crate::wire::ResponseBody;
use crate::wire::messages::{ElectLeadersRequest, ElectLeadersResponse, ListPartitionReassignmentsRequest};
use std::borrow::Cow;

pub fn decide(parts: &Parts, version: i16, request: &ElectLeadersRequest) -> Decision<ElectLeadersResponse> {
    let mut request = Cow::Borrowed(request);
    if version == 0 {
        // Version 0 is older than KIP-460 and has no field for the type: it asks for the preferred leader.
        request.to_mut().election_type = 0;
    }
    let (image, context) = parts.basis();
    controller::elect_leaders(image, &context, &request)
}

pub fn list_reassignments(
    parts: &mut Parts,
    to: AnswerTo,
    request: &ListPartitionReassignmentsRequest,
    out: &mut Outbox,
) {
    let response = controller::list_reassignments(&parts.image, request);
    parts.answer_to(to, ResponseBody::ListPartitionReassignments(response), out);
}
