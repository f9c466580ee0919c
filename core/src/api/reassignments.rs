//! AlterPartitionReassignments and ListPartitionReassignments, which the controller answers (KIP-455).

use crate::api::{AnswerTo, Parts};
use crate::controller::{self, Decision};
use crate::io::Outbox;
use crate::wire::ResponseBody;
use crate::wire::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ListPartitionReassignmentsRequest,
};

pub fn alter(
    parts: &Parts,
    request: &AlterPartitionReassignmentsRequest,
) -> Decision<AlterPartitionReassignmentsResponse> {
    let (image, context) = parts.basis();
    controller::alter_reassignments(image, &context, request)
}

/// The moves that are committed.
pub fn list(parts: &mut Parts, to: AnswerTo, request: &ListPartitionReassignmentsRequest, out: &mut Outbox) {
    let response = controller::list_reassignments(&parts.image, request);
    parts.answer_to(to, ResponseBody::ListPartitionReassignments(response), out);
}
