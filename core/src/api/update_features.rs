//! UpdateFeatures (KIP-584). The controller decides which metadata records the request leads to. The answer is sent
//! once these records are committed.

use crate::api::{AfterCommit, Parts, Ticket};
use crate::controller;
use crate::io::Outbox;
use crate::time::Now;
use crate::wire::ResponseBody;
use crate::wire::messages::UpdateFeaturesRequest;

pub fn handle(parts: &mut Parts, now: Now, ticket: Ticket, request: UpdateFeaturesRequest, out: &mut Outbox) {
    let kraft_version = parts.quorum().kraft_version();
    let version = ticket.api_version;
    let decision =
        controller::update_features(&parts.proposed, &parts.controller_context(), &request, version, kraft_version);
    let body = ResponseBody::UpdateFeatures(decision.response);
    parts.commit(now, decision.records, AfterCommit::Answer { ticket, body: Box::new(body) }, out);
}
