//! ElectLeaders, which the controller answers (KIP-460).

use crate::api::Parts;
use crate::controller::{self, Decision};
use crate::wire::messages::{ElectLeadersRequest, ElectLeadersResponse};
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
