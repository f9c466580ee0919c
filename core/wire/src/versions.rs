//! Which versions of which APIs a Tidelog broker serves.
//!
//! [`ApiKey::versions`] is Kafka 4.3's own table. This file names the part of it that is implemented. The ApiVersions
//! response tells clients that part, and a request outside of it closes its connection.

use super::messages::ApiKey;
use std::ops::RangeInclusive;

/// The APIs that are implemented, each in all versions of Kafka 4.3. To serve a new API, add it here.
const SERVED: &[ApiKey] = &[
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::FindCoordinator,
    ApiKey::SaslHandshake,
    ApiKey::ApiVersions,
    ApiKey::CreateTopics,
    ApiKey::DeleteTopics,
    ApiKey::DeleteRecords,
    ApiKey::InitProducerId,
    ApiKey::OffsetForLeaderEpoch,
    ApiKey::DescribeAcls,
    ApiKey::CreateAcls,
    ApiKey::DeleteAcls,
    ApiKey::DescribeConfigs,
    ApiKey::AlterConfigs,
    ApiKey::DescribeLogDirs,
    ApiKey::SaslAuthenticate,
    ApiKey::CreatePartitions,
    ApiKey::ElectLeaders,
    ApiKey::IncrementalAlterConfigs,
    ApiKey::AlterPartitionReassignments,
    ApiKey::ListPartitionReassignments,
    ApiKey::DescribeClientQuotas,
    ApiKey::DescribeUserScramCredentials,
    ApiKey::Vote,
    ApiKey::BeginQuorumEpoch,
    ApiKey::EndQuorumEpoch,
    ApiKey::DescribeQuorum,
    ApiKey::AlterPartition,
    ApiKey::UpdateFeatures,
    ApiKey::Envelope,
    ApiKey::FetchSnapshot,
    ApiKey::DescribeCluster,
    ApiKey::DescribeProducers,
    ApiKey::BrokerRegistration,
    ApiKey::BrokerHeartbeat,
    ApiKey::UnregisterBroker,
    ApiKey::AllocateProducerIds,
    ApiKey::ControllerRegistration,
    ApiKey::AssignReplicasToDirs,
    ApiKey::ListConfigResources,
    ApiKey::DescribeTopicPartitions,
    ApiKey::AddRaftVoter,
    ApiKey::RemoveRaftVoter,
    ApiKey::UpdateRaftVoter,
];

/// KAFKA-18659: librdkafka takes compression codecs from the lowest version of Produce, so a broker advertises version
/// 0 although it refuses versions 0 to 2.
const PRODUCE_ADVERTISED_MIN: i16 = 0;

/// Whether a listener serves an API: a listener of controllers, or one of clients.
pub fn is_served_at(is_controller_listener: bool, api_key: ApiKey) -> bool {
    match is_controller_listener {
        true => api_key.is_for_controllers(),
        false => api_key.is_for_brokers(),
    }
}

/// The versions that a request may have; `None` if the API is not served at all.
pub fn served(api_key: ApiKey) -> Option<RangeInclusive<i16>> {
    if SERVED.contains(&api_key) { api_key.versions() } else { None }
}

/// What is not there yet and a request of this kind needs, as a sentence; `None` where nothing is missing, or where the
/// request is not one of clients.
pub fn missing(api_key: ApiKey) -> Option<&'static str> {
    use ApiKey::*;
    Some(match api_key {
        // Answered, with an error that says so: see `api::find_coordinator`.
        FindCoordinator => "there are no consumer groups and no transactions yet",
        OffsetCommit
        | OffsetFetch
        | JoinGroup
        | Heartbeat
        | LeaveGroup
        | SyncGroup
        | DescribeGroups
        | ListGroups
        | DeleteGroups
        | OffsetDelete
        | ConsumerGroupHeartbeat
        | ConsumerGroupDescribe => "there are no consumer groups yet",
        AddPartitionsToTxn | AddOffsetsToTxn | EndTxn | WriteTxnMarkers | TxnOffsetCommit | DescribeTransactions
        | ListTransactions => "there are no transactions yet",
        ShareGroupHeartbeat
        | ShareGroupDescribe
        | ShareFetch
        | ShareAcknowledge
        | DescribeShareGroupOffsets
        | AlterShareGroupOffsets
        | DeleteShareGroupOffsets => "there are no share groups yet",
        StreamsGroupHeartbeat | StreamsGroupDescribe => "there are no streams groups yet",
        CreateDelegationToken | RenewDelegationToken | ExpireDelegationToken | DescribeDelegationToken => {
            "there are no delegation tokens yet"
        }
        AlterReplicaLogDirs => "replicas do not move between log directories yet",
        AlterClientQuotas => "there are no quotas yet",
        AlterUserScramCredentials => "there is no SASL yet",
        GetTelemetrySubscriptions | PushTelemetry => "clients cannot push telemetry yet",
        _ => return None,
    })
}

/// What an ApiVersions response of a listener lists: key, lowest and highest version, in the order of the keys.
pub fn advertised(is_controller_listener: bool) -> impl Iterator<Item = (ApiKey, i16, i16)> {
    let served = SERVED.iter().filter(move |api_key| is_served_at(is_controller_listener, **api_key));
    served.map(|&api_key| {
        let (min, max) = api_key.versions().expect("only live APIs are served").into_inner();
        (api_key, if api_key == ApiKey::Produce { PRODUCE_ADVERTISED_MIN } else { min }, max)
    })
}

/// The version of the header before a request of this version.
pub fn request_header_version(api_key: ApiKey, version: i16) -> i16 {
    match api_key {
        // This version is older than client ids: no other request has a header without one.
        ApiKey::ControlledShutdown if version == 0 => 0,
        _ if version >= api_key.first_flexible_version() => 2,
        _ => 1,
    }
}

/// The version of the header before a response of this version.
pub fn response_header_version(api_key: ApiKey, version: i16) -> i16 {
    match api_key {
        // KIP-511: a client must be able to read this response before it knows which versions the broker has.
        ApiKey::ApiVersions => 0,
        _ if version >= api_key.first_flexible_version() => 1,
        _ => 0,
    }
}
