//! How heavy a request is: how much work it is for the core, and how much memory its answer may take.
//!
//! A connection may have unanswered requests of [`IN_FLIGHT_WEIGHT_MAX`] together. A request that has the whole of it goes
//! through the queue of large requests ([`inbox`](crate::inbox)), where it may wait for those of other connections. So the
//! requests of other nodes never have: an election, a heartbeat or a replica's fetch must not wait behind a stranger's
//! Metadata of all topics.

use tidelog_core::wire::RequestBody;

/// The sum of the weights that a connection's unanswered requests may have. One request may take all of it.
pub const IN_FLIGHT_WEIGHT_MAX: usize = 8;
/// A request has a weight of 1 for every this many partitions that it asks about.
const PARTITIONS_PER_WEIGHT: usize = 8;

/// The weight of a request, from 0 to [`IN_FLIGHT_WEIGHT_MAX`].
pub fn weight_of(body: &RequestBody) -> usize {
    use RequestBody::*;
    match body {
        // As small as the request itself.
        Produce(_) | ApiVersions(_) | UnsupportedApiVersions | SaslHandshake(_) | SaslAuthenticate(_) => 0,

        // It grows with the partitions that are asked about.
        Fetch(asked) => {
            let weight = of_partitions(1, asked.topics.iter().map(|topic| topic.partitions.len()));
            let is_of_replica = asked.replica_id.max(asked.replica_state.replica_id) >= 0;
            weight.min(IN_FLIGHT_WEIGHT_MAX - usize::from(is_of_replica))
        }
        ListOffsets(asked) => of_partitions(0, asked.topics.iter().map(|topic| topic.partitions.len())),
        OffsetForLeaderEpoch(asked) => of_partitions(0, asked.topics.iter().map(|topic| topic.partitions.len())),

        // Other nodes ask these.
        Vote(_)
        | BeginQuorumEpoch(_)
        | EndQuorumEpoch(_)
        | FetchSnapshot(_)
        | UpdateRaftVoter(_)
        | BrokerRegistration(_)
        | BrokerHeartbeat(_)
        | ControllerRegistration(_)
        | AllocateProducerIds(_)
        | AlterPartition(_)
        | AssignReplicasToDirs(_)
        | Envelope(_)
        | WriteTxnMarkers(_) => 1,

        // About the whole cluster, or about any number of topics, groups and resources. They are answered one after the
        // other, as Kafka answers all requests of a connection.
        Metadata(_)
        | DescribeTopicPartitions(_)
        | DescribeCluster(_)
        | DescribeQuorum(_)
        | DescribeConfigs(_)
        | AlterConfigs(_)
        | IncrementalAlterConfigs(_)
        | ListConfigResources(_)
        | CreateTopics(_)
        | DeleteTopics(_)
        | CreatePartitions(_)
        | DeleteRecords(_)
        | ElectLeaders(_)
        | AlterPartitionReassignments(_)
        | ListPartitionReassignments(_)
        | DescribeLogDirs(_)
        | AlterReplicaLogDirs(_)
        | DescribeProducers(_)
        | UpdateFeatures(_)
        | UnregisterBroker(_)
        | AddRaftVoter(_)
        | RemoveRaftVoter(_)
        | DescribeAcls(_)
        | CreateAcls(_)
        | DeleteAcls(_)
        | CreateDelegationToken(_)
        | RenewDelegationToken(_)
        | ExpireDelegationToken(_)
        | DescribeDelegationToken(_)
        | DescribeClientQuotas(_)
        | AlterClientQuotas(_)
        | DescribeUserScramCredentials(_)
        | AlterUserScramCredentials(_)
        | GetTelemetrySubscriptions(_)
        | PushTelemetry(_)
        | InitProducerId(_)
        | AddPartitionsToTxn(_)
        | AddOffsetsToTxn(_)
        | EndTxn(_)
        | TxnOffsetCommit(_)
        | DescribeTransactions(_)
        | ListTransactions(_)
        | FindCoordinator(_)
        | OffsetCommit(_)
        | OffsetFetch(_)
        | OffsetDelete(_)
        | JoinGroup(_)
        | Heartbeat(_)
        | LeaveGroup(_)
        | SyncGroup(_)
        | DescribeGroups(_)
        | ListGroups(_)
        | DeleteGroups(_)
        | ConsumerGroupHeartbeat(_)
        | ConsumerGroupDescribe(_)
        | ShareGroupHeartbeat(_)
        | ShareGroupDescribe(_)
        | ShareFetch(_)
        | ShareAcknowledge(_)
        | InitializeShareGroupState(_)
        | ReadShareGroupState(_)
        | WriteShareGroupState(_)
        | DeleteShareGroupState(_)
        | ReadShareGroupStateSummary(_)
        | DescribeShareGroupOffsets(_)
        | AlterShareGroupOffsets(_)
        | DeleteShareGroupOffsets(_)
        | StreamsGroupHeartbeat(_)
        | StreamsGroupDescribe(_) => IN_FLIGHT_WEIGHT_MAX,
    }
}

fn of_partitions(own: usize, counts: impl Iterator<Item = usize>) -> usize {
    (own + counts.sum::<usize>() / PARTITIONS_PER_WEIGHT).min(IN_FLIGHT_WEIGHT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_core::wire::messages::{FetchRequest, MetadataRequest, VoteRequest, fetch_request};

    #[test]
    fn requests_of_other_nodes_never_queue_behind_large_ones() {
        assert_eq!(weight_of(&MetadataRequest::default().into()), IN_FLIGHT_WEIGHT_MAX);
        assert!(weight_of(&VoteRequest::default().into()) < IN_FLIGHT_WEIGHT_MAX);
    }

    #[test]
    fn a_fetch_is_as_heavy_as_its_partitions_are_many() {
        let weight = |replica_id: i32, partitions: usize| {
            let partitions = vec![fetch_request::FetchPartition::default(); partitions];
            let topics = vec![fetch_request::FetchTopic { partitions, ..Default::default() }];
            let replica_state = fetch_request::ReplicaState { replica_id, ..Default::default() };
            weight_of(&FetchRequest { topics, replica_state, ..Default::default() }.into())
        };
        let fetch = |partitions| weight(-1, partitions);
        assert_eq!([fetch(1), fetch(8), fetch(40), fetch(1_000)], [1, 2, 6, IN_FLIGHT_WEIGHT_MAX]);
        assert!(weight(2, 1_000) < IN_FLIGHT_WEIGHT_MAX, "a replica's");
    }
}
