//! UpdateFeatures (KIP-584): the controller's decision, and the quorum's own feature `kraft.version`.

use crate::api::{Parts, quorum};
use crate::controller::{self, Decision, FeatureUpdate, KRaftVersion};
use crate::io::Outbox;
use crate::time::Now;
use crate::wire::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

pub fn decide(
    parts: &mut Parts,
    now: Now,
    version: i16,
    request: &UpdateFeaturesRequest,
    out: &mut Outbox,
) -> Decision<UpdateFeaturesResponse> {
    let own = parts.quorum();
    let kraft_version = KRaftVersion { level: own.kraft_version(), upgrade: own.check_kraft_upgrade() };
    let (image, context) = parts.basis();
    let FeatureUpdate { decision, raises_kraft_version } =
        controller::update_features(image, &context, request, version, &kraft_version);
    if raises_kraft_version {
        quorum::upgrade(parts, now, out);
    }
    decision
}
