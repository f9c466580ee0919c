//! What becomes of brokers and their partitions: a heartbeat that asks for another state, a session that has ended, log
//! directories that have failed, a registration that is withdrawn (KIP-631, KIP-841, KIP-858).

use super::brokers::registration_change;
use super::heartbeats::{BrokerState, Heartbeats};
use super::image::Image;
use super::partition_changes::{BrokerChange, partitions_changed};
use super::{Context, Decision, Refusal, records};
use std::borrow::Cow;
use std::collections::BTreeSet;
use tidelog_wire::ids::{NodeId, Uuid};
use tidelog_wire::messages::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationChangeRecord, RegisterBrokerRecord,
    UnregisterBrokerRecord,
};
use tidelog_wire::{ErrorCode, MetadataRecord};

/// What a heartbeat leads to.
#[derive(Clone, Debug, PartialEq)]
pub struct HeartbeatOutcome {
    /// The state of the broker from now on: see [`Heartbeats::decided`] and [`Heartbeats::shuts_down`].
    pub state: BrokerState,
    pub response: BrokerHeartbeatResponse,
}

/// Decides a heartbeat, of which the caller has told [`Heartbeats::heard`] already.
pub fn broker_heartbeat(
    image: &Image,
    context: &Context,
    heartbeats: &Heartbeats,
    request: &BrokerHeartbeatRequest,
) -> Decision<Result<HeartbeatOutcome, Refusal>> {
    let id = NodeId(request.broker_id);
    let registration = match check_broker_epoch(image, id, request.broker_epoch) {
        Ok(registration) => registration,
        Err(refusal) => return Decision { records: Vec::new(), response: Err(refusal) },
    };
    let leads = || {
        let mut partitions = image.topics().flat_map(|topic| topic.partitions.values());
        partitions.any(|partition| partition.leader == Some(id))
    };
    let (before, state) = heartbeats.next_state(image, request, leads);
    let level = image.metadata_version();
    let mut decided = Vec::new();
    if records::assigns_directories(level) {
        decided = directories_failed(image, context, registration, &request.offline_log_dirs);
    }
    if state != before {
        // The change of state is decided from what has become of the directories. Otherwise a broker that is unfenced
        // could become the leader of a partition in a directory that has failed.
        let mut later = Cow::Borrowed(image);
        for record in &decided {
            later.to_mut().apply(record).expect("a decision fits the image that it was made from");
        }
        let registration = later.broker(id).expect("it was registered before");
        decided.extend(match state {
            BrokerState::Fenced | BrokerState::ShutdownNow => fence_broker(&later, context, registration),
            BrokerState::Unfenced => unfence_broker(&later, context, registration),
            BrokerState::ControlledShutdown => begin_controlled_shutdown(&later, context, registration),
        });
    }
    if records::cordons_directories(level)
        && let Some(cordoned) = &request.cordoned_log_dirs
    {
        decided.extend(directories_cordoned(registration, cordoned));
    }
    let response = BrokerHeartbeatResponse {
        is_caught_up: heartbeats.is_caught_up(request),
        is_fenced: state.is_fenced(),
        should_shut_down: state == BrokerState::ShutdownNow,
        ..BrokerHeartbeatResponse::default()
    };
    Decision { records: decided, response: Ok(HeartbeatOutcome { state, response }) }
}

/// Fences a broker whose session has ended. Nothing, if it is fenced already or its registration is gone.
pub fn fence_silent_broker(image: &Image, context: &Context, id: NodeId) -> Vec<MetadataRecord> {
    match image.broker(id) {
        Some(registration) if !registration.fenced => fence_broker(image, context, registration),
        _ => Vec::new(),
    }
}

/// Withdraws the registration of a broker.
pub fn unregister_broker(image: &Image, context: &Context, id: NodeId) -> Decision<Result<(), Refusal>> {
    let Some(registration) = image.broker(id) else {
        let text = format!("Broker ID {id} is not currently registered");
        let refusal = Refusal::new(ErrorCode::BrokerIdNotRegistered, text);
        return Decision { records: Vec::new(), response: Err(refusal) };
    };
    let mut decided = partitions_changed(image, context, BrokerChange::Leaves(id), |partition| {
        partition.isr.contains(&id) || partition.eligible_leaders.contains(&id)
    });
    let broker_epoch = registration.broker_epoch;
    decided.push(UnregisterBrokerRecord { broker_id: id.0, broker_epoch, ..Default::default() }.into());
    Decision { records: decided, response: Ok(()) }
}

/// The registration of a broker that says it has this epoch.
pub(super) fn check_broker_epoch(
    image: &Image,
    id: NodeId,
    broker_epoch: i64,
) -> Result<&RegisterBrokerRecord, Refusal> {
    let stale = |text| Err(Refusal::new(ErrorCode::StaleBrokerEpoch, text));
    match image.broker(id) {
        None => stale(format!("No broker registration found for broker id {id}")),
        Some(broker) if broker.broker_epoch != broker_epoch => {
            stale(format!("Expected broker epoch {}, but got broker epoch {broker_epoch}", broker.broker_epoch))
        }
        Some(broker) => Ok(broker),
    }
}

/// What becomes of the partitions of a broker whose next incarnation registers. Only a broker that names the epoch of its
/// last clean stop is known to have kept all records (KIP-966).
pub(super) fn incarnation_ended(
    image: &Image,
    context: &Context,
    id: NodeId,
    stopped_cleanly: bool,
) -> Vec<MetadataRecord> {
    if image.has_eligible_leaders() && !stopped_cleanly {
        return partitions_changed(image, context, BrokerChange::LostRecords(id), |partition| {
            partition.isr.contains(&id) || partition.eligible_leaders.contains(&id)
        });
    }
    partitions_changed(image, context, BrokerChange::Leaves(id), |partition| partition.isr.contains(&id))
}

fn fence_broker(image: &Image, context: &Context, broker: &RegisterBrokerRecord) -> Vec<MetadataRecord> {
    let mut decided = leave_isrs(image, context, broker);
    decided.push(BrokerRegistrationChangeRecord { fenced: 1, ..change(broker) }.into());
    decided
}

/// The partitions without a leader may be led by the broker.
fn unfence_broker(image: &Image, context: &Context, broker: &RegisterBrokerRecord) -> Vec<MetadataRecord> {
    let mut decided = vec![BrokerRegistrationChangeRecord { fenced: -1, ..change(broker) }.into()];
    let returns = BrokerChange::Returns(NodeId(broker.broker_id));
    decided.extend(partitions_changed(image, context, returns, |partition| partition.leader.is_none()));
    decided
}

fn begin_controlled_shutdown(image: &Image, context: &Context, broker: &RegisterBrokerRecord) -> Vec<MetadataRecord> {
    let mut decided = Vec::new();
    if !broker.in_controlled_shutdown {
        decided.push(BrokerRegistrationChangeRecord { in_controlled_shutdown: 1, ..change(broker) }.into());
    }
    decided.extend(leave_isrs(image, context, broker));
    decided
}

fn leave_isrs(image: &Image, context: &Context, broker: &RegisterBrokerRecord) -> Vec<MetadataRecord> {
    let id = NodeId(broker.broker_id);
    partitions_changed(image, context, BrokerChange::Leaves(id), |partition| partition.isr.contains(&id))
}

/// The replicas in directories that were online and are not any more leave the ISRs, and the registration names the
/// directories that are left.
fn directories_failed(
    image: &Image,
    context: &Context,
    broker: &RegisterBrokerRecord,
    offline: &[Uuid],
) -> Vec<MetadataRecord> {
    let id = NodeId(broker.broker_id);
    let (failed, left): (Vec<Uuid>, Vec<Uuid>) = broker.log_dirs.iter().partition(|dir| offline.contains(dir));
    if failed.is_empty() {
        return Vec::new();
    }
    let mut decided = partitions_changed(image, context, BrokerChange::Leaves(id), |partition| {
        partition.directory(id).is_some_and(|directory| failed.contains(&directory))
    });
    decided.push(BrokerRegistrationChangeRecord { log_dirs: left, ..change(broker) }.into());
    decided
}

/// Names the log directories that take no new replicas (KIP-1066).
fn directories_cordoned(broker: &RegisterBrokerRecord, cordoned: &[Uuid]) -> Option<MetadataRecord> {
    let set = |dirs: &[Uuid]| dirs.iter().copied().collect::<BTreeSet<_>>();
    let is_known = broker.cordoned_log_dirs.as_ref().is_some_and(|known| set(known) == set(cordoned));
    let record = BrokerRegistrationChangeRecord { cordoned_log_dirs: Some(cordoned.to_vec()), ..change(broker) };
    (!is_known).then(|| record.into())
}

/// A change of this registration that changes nothing yet.
fn change(broker: &RegisterBrokerRecord) -> BrokerRegistrationChangeRecord {
    registration_change(NodeId(broker.broker_id), broker.broker_epoch)
}
