//! What other nodes ask of the active controller: registrations, heartbeats, ISRs, directories of replicas, and producer
//! ids (KIP-631, KIP-919, KIP-497, KIP-858, KIP-730). And UnregisterBroker, which an administrator asks for.

use crate::api::Parts;
use crate::controller::{self, Decision, Refusal};
use crate::ids::NodeId;
use crate::io::{Level, Outbox, Part};
use crate::plant::Plant;
use crate::time::Now;
use crate::wire::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, AlterPartitionRequest, AlterPartitionResponse,
    AssignReplicasToDirsRequest, AssignReplicasToDirsResponse, BrokerHeartbeatRequest, BrokerHeartbeatResponse,
    BrokerRegistrationRequest, BrokerRegistrationResponse, ControllerRegistrationRequest,
    ControllerRegistrationResponse, UnregisterBrokerRequest, UnregisterBrokerResponse,
};

const PART: Part = Part::Broker;

pub fn register(
    parts: &mut Parts,
    now: Now,
    version: i16,
    request: &BrokerRegistrationRequest,
    out: &mut Outbox,
) -> Decision<BrokerRegistrationResponse> {
    let kraft_version = parts.quorum().kraft_version();
    let next_offset = parts.quorum().log().expect("a leader has a log").log_end_offset();
    let active = parts.controller.as_ref().expect("only a controller decides");
    let registrar = active.registrar(&parts.config, &parts.cluster_id, kraft_version, now.mono, next_offset);
    let decision = controller::register_broker(active.proposed(), &registrar, request, version);
    let (id, incarnation) = (request.broker_id, request.incarnation_id);
    match &decision.response {
        Ok(epoch) => out.event(
            Level::Info,
            PART,
            format!("broker {id} (incarnation {incarnation}) is registered with the epoch {epoch}"),
        ),
        // The response has no text.
        Err(refusal) => {
            let why = refusal.message.as_deref().unwrap_or_default();
            out.event(Level::Warn, PART, format!("broker {id} (incarnation {incarnation}) is not registered: {why}"));
        }
    }
    decision.map(|outcome| match outcome {
        Ok(broker_epoch) => BrokerRegistrationResponse { broker_epoch, ..Default::default() },
        Err(refusal) => BrokerRegistrationResponse { error_code: refusal.error.code(), ..Default::default() },
    })
}

/// A heartbeat prolongs the session of its broker, whatever else it leads to.
pub fn heartbeat(parts: &mut Parts, now: Now, request: &BrokerHeartbeatRequest) -> Decision<BrokerHeartbeatResponse> {
    let log_end = parts.quorum().log().expect("a leader has a log").log_end_offset();
    let is_behind =
        parts.config.plants.has(Plant::CaughtUpAtLogEndOnly) && request.current_metadata_offset + 1 < log_end.0;
    let active = parts.controller.as_mut().expect("only a controller decides");
    active.heartbeats.heard(NodeId(request.broker_id), request.broker_epoch, now.mono);
    let context = active.context(&parts.config);
    let planted = is_behind.then(|| BrokerHeartbeatRequest { current_metadata_offset: -1, ..request.clone() });
    let request = planted.as_ref().unwrap_or(request);
    let decision = controller::broker_heartbeat(active.proposed(), &context, &active.heartbeats, request);
    if let Ok(outcome) = &decision.response {
        active.heartbeats.decided(request, outcome.state);
    }
    decision.map(|outcome| match outcome {
        Ok(outcome) => outcome.response,
        Err(refusal) => BrokerHeartbeatResponse { error_code: refusal.error.code(), ..Default::default() },
    })
}

pub fn alter_partition(
    parts: &Parts,
    version: i16,
    request: &AlterPartitionRequest,
) -> Decision<AlterPartitionResponse> {
    let (image, context) = parts.basis();
    controller::alter_partition(image, &context, request, version).map(|outcome| match outcome {
        Ok(response) => response,
        Err(refusal) => AlterPartitionResponse { error_code: refusal.error.code(), ..Default::default() },
    })
}

pub fn assign_replicas_to_dirs(
    parts: &Parts,
    request: &AssignReplicasToDirsRequest,
) -> Decision<AssignReplicasToDirsResponse> {
    let (image, context) = parts.basis();
    controller::assign_replicas_to_dirs(image, &context, request).map(|outcome| match outcome {
        Ok(response) => response,
        Err(refusal) => AssignReplicasToDirsResponse { error_code: refusal.error.code(), ..Default::default() },
    })
}

pub fn register_controller(
    parts: &Parts,
    request: &ControllerRegistrationRequest,
) -> Decision<ControllerRegistrationResponse> {
    let (image, _) = parts.basis();
    controller::register_controller(image, request).map(|outcome| {
        let (error_code, error_message) = told(outcome.err());
        ControllerRegistrationResponse { error_code, error_message, ..Default::default() }
    })
}

pub fn unregister(parts: &Parts, request: &UnregisterBrokerRequest) -> Decision<UnregisterBrokerResponse> {
    let (image, context) = parts.basis();
    controller::unregister_broker(image, &context, NodeId(request.broker_id)).map(|outcome| {
        let (error_code, error_message) = told(outcome.err());
        UnregisterBrokerResponse { error_code, error_message, ..Default::default() }
    })
}

pub fn allocate_producer_ids(
    parts: &Parts,
    request: &AllocateProducerIdsRequest,
) -> Decision<AllocateProducerIdsResponse> {
    let (image, _) = parts.basis();
    controller::allocate_producer_ids(image, NodeId(request.broker_id), request.broker_epoch).map(|outcome| {
        match outcome {
            Ok(block) => AllocateProducerIdsResponse {
                producer_id_start: block.first.0,
                producer_id_len: block.len,
                ..Default::default()
            },
            Err(refusal) => AllocateProducerIdsResponse { error_code: refusal.error.code(), ..Default::default() },
        }
    })
}

fn told(refusal: Option<Refusal>) -> (i16, Option<bytestring::ByteString>) {
    refusal.map_or((0, None), |refusal| (refusal.error.code(), refusal.message))
}
