//! FindCoordinator: there is none yet, and whoever asks is told so.
//!
//! Groups and transactions are not there, and a broker need not offer this request without them. But where ApiVersions
//! does not list it, librdkafka asks nothing more, and nothing shows whose client wants a group. The error is one that
//! clients take for a passing one: a consumer that has a `group.id` and names its partitions itself asks too, and must
//! go on reading.

use crate::api::{Parts, Ticket};
use crate::io::Outbox;
use crate::wire::messages::find_coordinator_response::Coordinator;
use crate::wire::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use crate::wire::{ErrorCode, ResponseBody};
use bytestring::ByteString;

/// From this version on a request names several keys (KIP-699).
const SEVERAL_KEYS_SINCE: i16 = 4;

pub fn handle(parts: &mut Parts, ticket: Ticket, request: FindCoordinatorRequest, out: &mut Outbox) {
    let error_code = ErrorCode::CoordinatorNotAvailable.code();
    let error_message = || Some(ByteString::from_static(text(request.key_type)));
    let response = match ticket.api_version {
        SEVERAL_KEYS_SINCE.. => FindCoordinatorResponse {
            coordinators: request
                .coordinator_keys
                .iter()
                .map(|key| Coordinator {
                    key: key.clone(),
                    node_id: -1,
                    port: -1,
                    error_code,
                    error_message: error_message(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        },
        _ => FindCoordinatorResponse {
            node_id: -1,
            port: -1,
            error_code,
            error_message: error_message(),
            ..Default::default()
        },
    };
    parts.replies.answer(ticket, ResponseBody::FindCoordinator(response), out);
}

fn text(key_type: i8) -> &'static str {
    match key_type {
        1 => "This broker has no transactions yet.",
        2 => "This broker has no share groups yet.",
        _ => "This broker has no consumer groups yet: a consumer must name its partitions itself.",
    }
}
