//! Refusals of requests that are for the active controller. Every item of the request is refused: with NOT_CONTROLLER by
//! a node that is not the active controller, with REQUEST_TIMED_OUT by a broker that could not bring the request to it.

use crate::ids::Uuid;
use crate::wire::messages::alter_configs_response::AlterConfigsResourceResponse as AlteredResource;
use crate::wire::messages::alter_partition_reassignments_request::ReassignablePartition;
use crate::wire::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use crate::wire::messages::create_partitions_response::CreatePartitionsTopicResult;
use crate::wire::messages::create_topics_response::CreatableTopicResult;
use crate::wire::messages::delete_topics_response::DeletableTopicResult;
use crate::wire::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use crate::wire::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use crate::wire::messages::{
    AddRaftVoterResponse, AllocateProducerIdsResponse, AlterConfigsResponse, AlterPartitionReassignmentsResponse,
    AlterPartitionResponse, AssignReplicasToDirsResponse, BrokerHeartbeatResponse, BrokerRegistrationResponse,
    ControllerRegistrationResponse, CreatePartitionsResponse, CreateTopicsResponse, DeleteTopicsResponse,
    DescribeQuorumResponse, ElectLeadersResponse, IncrementalAlterConfigsResponse, ListPartitionReassignmentsResponse,
    RemoveRaftVoterResponse, UnregisterBrokerResponse, UpdateFeaturesResponse,
};
use crate::wire::{ErrorCode, RequestBody, ResponseBody};
use bytestring::ByteString;

/// Whoever is told this asks which node is the controller, and tries again.
pub fn not_controller(request: &RequestBody, api_version: i16) -> ResponseBody {
    let why = "This is not the correct controller for this cluster.";
    response(request, api_version, ErrorCode::NotController, why)
}

pub fn response(request: &RequestBody, api_version: i16, error: ErrorCode, why: impl Into<ByteString>) -> ResponseBody {
    let (error_code, error_message) = (error.code(), Some(why.into()));
    match request {
        RequestBody::CreateTopics(request) => {
            let topics = request.topics.iter().map(|topic| CreatableTopicResult {
                name: topic.name.clone(),
                error_code,
                error_message: error_message.clone(),
                ..Default::default()
            });
            ResponseBody::CreateTopics(CreateTopicsResponse { topics: topics.collect(), ..Default::default() })
        }
        RequestBody::DeleteTopics(request) => {
            let named = request.topic_names.iter().map(|name| (Some(name.clone()), Uuid::ZERO));
            let listed = request.topics.iter().map(|topic| (topic.name.clone(), topic.topic_id));
            let responses = named.chain(listed).map(|(name, topic_id)| DeletableTopicResult {
                name,
                topic_id,
                error_code,
                error_message: error_message.clone(),
                ..Default::default()
            });
            ResponseBody::DeleteTopics(DeleteTopicsResponse { responses: responses.collect(), ..Default::default() })
        }
        RequestBody::CreatePartitions(request) => {
            let results = request.topics.iter().map(|topic| CreatePartitionsTopicResult {
                name: topic.name.clone(),
                error_code,
                error_message: error_message.clone(),
                ..Default::default()
            });
            let results = results.collect();
            ResponseBody::CreatePartitions(CreatePartitionsResponse { results, ..Default::default() })
        }
        RequestBody::AlterConfigs(request) => {
            let responses = request.resources.iter().map(|resource| AlteredResource {
                error_code,
                error_message: error_message.clone(),
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
                ..Default::default()
            });
            ResponseBody::AlterConfigs(AlterConfigsResponse { responses: responses.collect(), ..Default::default() })
        }
        RequestBody::IncrementalAlterConfigs(request) => {
            let responses = request.resources.iter().map(|resource| AlterConfigsResourceResponse {
                error_code,
                error_message: error_message.clone(),
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
                ..Default::default()
            });
            let responses = responses.collect();
            ResponseBody::IncrementalAlterConfigs(IncrementalAlterConfigsResponse { responses, ..Default::default() })
        }
        RequestBody::ElectLeaders(request) => {
            let refused = |index: &i32| PartitionResult {
                partition_id: *index,
                error_code,
                error_message: error_message.clone(),
                ..Default::default()
            };
            let topics = request.topic_partitions.iter().flatten().map(|topic| ReplicaElectionResult {
                topic: topic.topic.clone(),
                partition_result: topic.partitions.iter().map(refused).collect(),
                ..Default::default()
            });
            ResponseBody::ElectLeaders(ElectLeadersResponse {
                // Version 0 has no error for the whole.
                error_code: if api_version >= 1 { error_code } else { 0 },
                replica_election_results: topics.collect(),
                ..Default::default()
            })
        }
        RequestBody::AlterPartitionReassignments(request) => {
            let refused = |partition: &ReassignablePartition| ReassignablePartitionResponse {
                partition_index: partition.partition_index,
                error_code,
                error_message: error_message.clone(),
                ..Default::default()
            };
            let responses = request.topics.iter().map(|topic| ReassignableTopicResponse {
                name: topic.name.clone(),
                partitions: topic.partitions.iter().map(refused).collect(),
                ..Default::default()
            });
            ResponseBody::AlterPartitionReassignments(AlterPartitionReassignmentsResponse {
                allow_replication_factor_change: request.allow_replication_factor_change,
                error_code,
                error_message: error_message.clone(),
                responses: responses.collect(),
                ..Default::default()
            })
        }
        RequestBody::ListPartitionReassignments(_) => {
            ResponseBody::ListPartitionReassignments(ListPartitionReassignmentsResponse {
                error_code,
                error_message,
                ..Default::default()
            })
        }
        RequestBody::UpdateFeatures(_) => {
            ResponseBody::UpdateFeatures(UpdateFeaturesResponse { error_code, error_message, ..Default::default() })
        }
        RequestBody::BrokerRegistration(_) => {
            ResponseBody::BrokerRegistration(BrokerRegistrationResponse { error_code, ..Default::default() })
        }
        RequestBody::BrokerHeartbeat(_) => {
            ResponseBody::BrokerHeartbeat(BrokerHeartbeatResponse { error_code, ..Default::default() })
        }
        RequestBody::AlterPartition(_) => {
            ResponseBody::AlterPartition(AlterPartitionResponse { error_code, ..Default::default() })
        }
        RequestBody::AssignReplicasToDirs(_) => {
            ResponseBody::AssignReplicasToDirs(AssignReplicasToDirsResponse { error_code, ..Default::default() })
        }
        RequestBody::AllocateProducerIds(_) => {
            ResponseBody::AllocateProducerIds(AllocateProducerIdsResponse { error_code, ..Default::default() })
        }
        RequestBody::ControllerRegistration(_) => {
            ResponseBody::ControllerRegistration(ControllerRegistrationResponse {
                error_code,
                error_message,
                ..Default::default()
            })
        }
        RequestBody::UnregisterBroker(_) => {
            ResponseBody::UnregisterBroker(UnregisterBrokerResponse { error_code, error_message, ..Default::default() })
        }
        RequestBody::DescribeQuorum(_) => {
            ResponseBody::DescribeQuorum(DescribeQuorumResponse { error_code, error_message, ..Default::default() })
        }
        RequestBody::AddRaftVoter(_) => {
            ResponseBody::AddRaftVoter(AddRaftVoterResponse { error_code, error_message, ..Default::default() })
        }
        RequestBody::RemoveRaftVoter(_) => {
            ResponseBody::RemoveRaftVoter(RemoveRaftVoterResponse { error_code, error_message, ..Default::default() })
        }
        other => panic!("{:?} is not for the controller", other.api_key()),
    }
}
