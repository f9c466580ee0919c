//! What is served in which versions.

use tidelog_wire::messages::ApiKey;
use tidelog_wire::versions::*;

#[test]
fn what_is_served_stands_in_the_order_of_the_keys_and_is_kafkas_for_the_listener() {
    for is_controller_listener in [false, true] {
        let served_keys: Vec<ApiKey> = advertised(is_controller_listener).map(|(api_key, ..)| api_key).collect();
        assert!(served_keys.is_sorted());
        for api_key in served_keys {
            let is_kafkas = match is_controller_listener {
                true => api_key.is_for_controllers(),
                false => api_key.is_for_brokers(),
            };
            assert!(is_kafkas && api_key.versions().is_some(), "{api_key:?}");
        }
    }
}

#[test]
fn only_requests_that_are_not_supported_have_a_text_that_says_what_is_missing() {
    for (api_key, _, _) in advertised(false).filter(|(key, _, _)| *key != ApiKey::FindCoordinator) {
        assert_eq!(missing(api_key), None, "{api_key:?}");
    }
    assert_eq!(missing(ApiKey::JoinGroup), Some("there are no consumer groups yet"));
    assert_eq!(missing(ApiKey::InitializeShareGroupState), None);
}

#[test]
fn produce_is_advertised_from_0_and_served_from_3() {
    assert_eq!(advertised(false).next(), Some((ApiKey::Produce, 0, 13)));
    assert_eq!(served(ApiKey::Produce), Some(3..=13));
}

#[test]
fn an_unstable_version_is_known_and_not_served() {
    assert_eq!(served(ApiKey::InitProducerId), Some(0..=5));
    assert_eq!(ApiKey::InitProducerId.codec_versions(), Some(0..=6));
}

#[test]
fn api_versions_is_answered_with_the_oldest_header() {
    assert_eq!(request_header_version(ApiKey::ApiVersions, 4), 2);
    assert_eq!(response_header_version(ApiKey::ApiVersions, 4), 0);
    assert_eq!(response_header_version(ApiKey::Fetch, 12), 1);
    assert_eq!(response_header_version(ApiKey::Fetch, 11), 0);
    assert_eq!(request_header_version(ApiKey::ControlledShutdown, 0), 0);
    assert_eq!(request_header_version(ApiKey::SaslHandshake, 1), 1);
}
