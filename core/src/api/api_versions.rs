//! ApiVersions: which requests this broker serves in which versions, and the levels of the cluster's features.

use crate::api::{Parts, Ticket};
use crate::controller::KRAFT_VERSION;
use crate::controller::records::{FEATURES, KRAFT_VERSION_MAX, is_served};
use crate::io::Outbox;
use crate::wire::messages::api_versions_request::ApiVersionsRequest;
use crate::wire::messages::api_versions_response::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use crate::wire::versions::advertised;
use crate::wire::{ApiKey, ErrorCode, ResponseBody};

pub fn handle(parts: &mut Parts, ticket: Ticket, request: ApiVersionsRequest, out: &mut Outbox) {
    let named = |text: &str| is_software_name(text) || ticket.api_version < 3;
    if !named(&request.client_software_name) || !named(&request.client_software_version) {
        let response = ApiVersionsResponse { error_code: ErrorCode::InvalidRequest.code(), ..Default::default() };
        return parts.replies.answer(ticket, ResponseBody::ApiVersions(response), out);
    }
    // The level of the quorum's own feature is in control records of its log, and not in the metadata (KIP-853).
    let kraft_level = parts.quorum().kraft_version();
    let kraft = (kraft_level > 0).then_some((KRAFT_VERSION.into(), kraft_level));
    let of_metadata = parts.image.features().iter().filter(|(name, _)| is_served(name));
    let finalized = of_metadata.map(|(name, level)| (name.clone(), *level)).chain(kraft);
    let supported = FEATURES.iter().map(|feature| (feature.name, feature.min, feature.max));
    let response = ApiVersionsResponse {
        api_keys: api_keys(parts.is_controller_listener(ticket.listener)).collect(),
        supported_features: supported
            .chain([(KRAFT_VERSION, 0, KRAFT_VERSION_MAX)])
            // A client below v4 rejects a feature whose minimum is 0 (KIP-1022).
            .filter(|(_, min, _)| ticket.api_version >= 4 || *min > 0)
            .map(|(name, min_version, max_version)| SupportedFeatureKey {
                name: name.into(),
                min_version,
                max_version,
                ..Default::default()
            })
            .collect(),
        finalized_features_epoch: parts.committed.0,
        finalized_features: finalized
            .map(|(name, level)| FinalizedFeatureKey {
                name,
                max_version_level: level,
                min_version_level: level,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    parts.replies.answer(ticket, ResponseBody::ApiVersions(response), out);
}

/// The answer to an ApiVersions request of an unknown version: in version 0, with the known versions of ApiVersions
/// alone (KIP-511). A client that found other APIs in it would not ask again.
pub fn unsupported(parts: &mut Parts, ticket: Ticket, out: &mut Outbox) {
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: api_keys(false).filter(|api| api.api_key == ApiKey::ApiVersions as i16).collect(),
        ..Default::default()
    };
    parts.replies.answer(ticket.in_version(0), ResponseBody::ApiVersions(response), out);
}

fn api_keys(is_controller_listener: bool) -> impl Iterator<Item = ApiVersion> {
    advertised(is_controller_listener).map(|(key, min, max)| ApiVersion {
        api_key: key as i16,
        min_version: min,
        max_version: max,
        ..Default::default()
    })
}

/// KIP-511: letters, digits, `.` and `-`. The first and the last character are letters or digits.
fn is_software_name(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::is_software_name;

    #[test]
    fn software_names_are_plain() {
        for good in ["apache-kafka-java", "4.3.1", "a"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "caf\u{e9}"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }
}
