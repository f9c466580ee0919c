//! Which versions of which APIs a Tidelog broker serves.
//!
//! Kafka 4.3's own table is [`ApiKey::versions`]; here stands the part of it that works today. ApiVersions tells it
//! to clients, and a request outside of it closes its connection.

use super::messages::ApiKey;
use std::ops::RangeInclusive;

/// The APIs that are implemented, each in all versions of Kafka 4.3. A new API is served once it stands here.
const SERVED: &[ApiKey] = &[
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::ApiVersions,
    ApiKey::CreateTopics,
    ApiKey::DeleteTopics,
    ApiKey::DeleteRecords,
    ApiKey::InitProducerId,
    ApiKey::OffsetForLeaderEpoch,
    ApiKey::DescribeConfigs,
    ApiKey::AlterConfigs,
    ApiKey::DescribeLogDirs,
    ApiKey::CreatePartitions,
    ApiKey::ElectLeaders,
    ApiKey::IncrementalAlterConfigs,
    ApiKey::ListPartitionReassignments,
    ApiKey::DescribeClientQuotas,
    ApiKey::DescribeUserScramCredentials,
    ApiKey::DescribeQuorum,
    ApiKey::UpdateFeatures,
    ApiKey::DescribeCluster,
    ApiKey::DescribeProducers,
    ApiKey::ListConfigResources,
    ApiKey::DescribeTopicPartitions,
];

/// KAFKA-18659: librdkafka takes compression codecs from the lowest version of Produce, so a broker says 0 and
/// refuses 0 to 2 all the same.
const PRODUCE_ADVERTISED_MIN: i16 = 0;

/// The versions that a request may have; `None` if the API is not served at all.
pub fn served(api_key: ApiKey) -> Option<RangeInclusive<i16>> {
    if SERVED.contains(&api_key) { api_key.versions() } else { None }
}

/// What an ApiVersions response lists: key, lowest and highest version, in the order of the keys.
pub fn advertised() -> impl Iterator<Item = (ApiKey, i16, i16)> {
    SERVED.iter().map(|&api_key| {
        let (min, max) = api_key.versions().expect("only live APIs are served").into_inner();
        (api_key, if api_key == ApiKey::Produce { PRODUCE_ADVERTISED_MIN } else { min }, max)
    })
}

/// The version of the header before a request of this version.
pub fn request_header_version(api_key: ApiKey, version: i16) -> i16 {
    match api_key {
        // Older than the client id: the one request that never had one.
        ApiKey::ControlledShutdown if version == 0 => 0,
        _ if version >= api_key.first_flexible_version() => 2,
        _ => 1,
    }
}

/// The version of the header before a response of this version.
pub fn response_header_version(api_key: ApiKey, version: i16) -> i16 {
    match api_key {
        // KIP-511: a client must be able to read it before it knows which versions the broker has.
        ApiKey::ApiVersions => 0,
        _ if version >= api_key.first_flexible_version() => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_stands_in_the_order_of_the_keys_and_is_kafkas_for_brokers() {
        assert!(SERVED.is_sorted());
        for &api_key in SERVED {
            assert!(api_key.is_for_brokers(), "{api_key:?}");
            assert!(api_key.versions().is_some(), "{api_key:?}");
        }
    }

    #[test]
    fn produce_is_advertised_from_0_and_served_from_3() {
        assert_eq!(advertised().next(), Some((ApiKey::Produce, 0, 13)));
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
}
