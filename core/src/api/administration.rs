//! The requests that the active controller decides, those of administrators and those of other nodes. All of them take
//! the same way: a decision is made from the proposed metadata, and the answer waits until its records are committed.
//! Where this node is not the active controller, a broker brings its clients' requests to it.

use crate::api::{
    AfterCommit, AnswerTo, Parts, brokers, configs, elect_leaders, quorum, reassignments, topics, update_features,
};
use crate::controller::Decision;
use crate::io::Outbox;
use crate::time::Now;
use crate::wire::{RequestBody, ResponseBody};

pub fn handle(parts: &mut Parts, now: Now, to: AnswerTo, request: RequestBody, out: &mut Outbox) {
    if let RequestBody::IncrementalAlterConfigs(body) = &request
        && let AnswerTo::Sender { .. } = &to
        && let Some(response) = configs::alter_loggers_alone(parts, body, out)
    {
        return parts.answer_to(to, ResponseBody::IncrementalAlterConfigs(response), out);
    }
    if let AnswerTo::Sender { ticket, .. } = &to
        && !parts.is_controller_listener(ticket.listener)
        && let Some(response) = configs::meant_for_others(parts, &request)
    {
        return parts.answer_to(to, response, out);
    }
    if parts.controller.is_none() {
        return parts.not_controller(now, to, request, out);
    }
    match request {
        RequestBody::DescribeQuorum(_) | RequestBody::AddRaftVoter(_) | RequestBody::RemoveRaftVoter(_) => {
            quorum::handle(parts, now, to, request, out);
        }
        RequestBody::ListPartitionReassignments(body) => reassignments::list(parts, to, &body, out),
        _ => decide_and_commit(parts, now, to, request, out),
    }
}

fn decide_and_commit(parts: &mut Parts, now: Now, to: AnswerTo, request: RequestBody, out: &mut Outbox) {
    let Decision { records, response } = decide(parts, now, to.api_version(), &request, out);
    let heartbeat = match &request {
        RequestBody::BrokerHeartbeat(heartbeat) => Some(heartbeat.clone()),
        _ => None,
    };
    let (request, response) = (Box::new(request), Box::new(response));
    parts.commit(now, records, AfterCommit::Answer { to, request, response }, out);
    if let Some(heartbeat) = heartbeat {
        parts.heartbeat_proposed(&heartbeat);
    }
}

fn decide(
    parts: &mut Parts,
    now: Now,
    version: i16,
    request: &RequestBody,
    out: &mut Outbox,
) -> Decision<ResponseBody> {
    match request {
        RequestBody::CreateTopics(request) => topics::create(parts, request, out).map(ResponseBody::CreateTopics),
        RequestBody::DeleteTopics(request) => topics::delete(parts, version, request).map(ResponseBody::DeleteTopics),
        RequestBody::CreatePartitions(request) => {
            topics::create_partitions(parts, request).map(ResponseBody::CreatePartitions)
        }
        RequestBody::AlterConfigs(request) => configs::alter(parts, request, out).map(ResponseBody::AlterConfigs),
        RequestBody::IncrementalAlterConfigs(request) => {
            configs::alter_incrementally(parts, request, out).map(ResponseBody::IncrementalAlterConfigs)
        }
        RequestBody::ElectLeaders(request) => {
            elect_leaders::decide(parts, version, request).map(ResponseBody::ElectLeaders)
        }
        RequestBody::AlterPartitionReassignments(request) => {
            reassignments::alter(parts, request).map(ResponseBody::AlterPartitionReassignments)
        }
        RequestBody::UpdateFeatures(request) => {
            update_features::decide(parts, now, version, request, out).map(ResponseBody::UpdateFeatures)
        }
        RequestBody::BrokerRegistration(request) => {
            brokers::register(parts, now, version, request, out).map(ResponseBody::BrokerRegistration)
        }
        RequestBody::BrokerHeartbeat(request) => {
            brokers::heartbeat(parts, now, request).map(ResponseBody::BrokerHeartbeat)
        }
        RequestBody::AlterPartition(request) => {
            brokers::alter_partition(parts, version, request).map(ResponseBody::AlterPartition)
        }
        RequestBody::AssignReplicasToDirs(request) => {
            brokers::assign_replicas_to_dirs(parts, request).map(ResponseBody::AssignReplicasToDirs)
        }
        RequestBody::ControllerRegistration(request) => {
            brokers::register_controller(parts, request).map(ResponseBody::ControllerRegistration)
        }
        RequestBody::UnregisterBroker(request) => {
            brokers::unregister(parts, request).map(ResponseBody::UnregisterBroker)
        }
        RequestBody::AllocateProducerIds(request) => {
            brokers::allocate_producer_ids(parts, request).map(ResponseBody::AllocateProducerIds)
        }
        other => panic!("{:?} is not for the controller", other.api_key()),
    }
}
