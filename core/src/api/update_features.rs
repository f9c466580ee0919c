//! UpdateFeatures (KIP-584): the controller's decision.

use crate::api::Parts;
use crate::controller::{self, Decision};
use crate::wire::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

pub fn decide(parts: &mut Parts, version: i16, request: &UpdateFeaturesRequest) -> Decision<UpdateFeaturesResponse> {
    let kraft_version = parts.quorum().kraft_version();
    let (image, context) = parts.basis();
    controller::update_features(image, &context, request, version, kraft_version)
}
