//! The records with which brokers register, start and stop (KIP-631), and with which partitions get their leader again.

use super::Context;
use super::image::{ConfigResource, Image, Partition};
use super::records;
use tidelog_config::Listener;
use tidelog_wire::ids::{NodeId, Uuid};
use tidelog_wire::messages::{
    BrokerRegistrationChangeRecord, BrokerRegistrationRequest, ControllerRegistrationRequest, PartitionChangeRecord,
    broker_registration_request, controller_registration_request,
};
use tidelog_wire::{Int32s, MetadataRecord, node_ids};

/// What a node tells the controller at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerStart {
    pub node_id: NodeId,
    /// Drawn at random at this start.
    pub incarnation_id: Uuid,
    pub rack: Option<String>,
    /// Where clients reach the broker.
    pub listeners: Vec<Listener>,
    /// Where the quorum reaches the node. Empty if it has no listener for controllers.
    pub controller_listeners: Vec<Listener>,
    /// The ids of its log directories that are online.
    pub log_dirs: Vec<Uuid>,
    /// The broker epoch in which the node last ran, if it then stopped cleanly.
    pub previous_broker_epoch: Option<i64>,
}

/// The first records of a new cluster: its features, and the `min.insync.replicas` of the static configuration, which
/// the controller must know for eligible leader replicas (KIP-966).
pub fn bootstrap_records(context: &Context, features: Vec<MetadataRecord>) -> Vec<MetadataRecord> {
    let elr = |record: &MetadataRecord| {
        matches!(record, MetadataRecord::FeatureLevel(feature)
        if feature.name == records::ELIGIBLE_LEADER_REPLICAS_VERSION && feature.feature_level > 0)
    };
    let mut bootstrap = features;
    if bootstrap.iter().any(elr) {
        let name = "min.insync.replicas";
        let value = context.layers.set_value(name).map_or_else(|| "1".to_owned(), |value| value.canonical());
        bootstrap.push(ConfigResource::all_brokers().record(name, Some(&value)));
    }
    bootstrap
}

impl BrokerStart {
    /// What the broker asks of the controller.
    pub fn broker_registration(&self, cluster_id: &str) -> BrokerRegistrationRequest {
        let listeners = self.listeners.iter().map(|listener| broker_registration_request::Listener {
            name: listener.name.as_str().into(),
            host: listener.host.as_str().into(),
            port: listener.port,
            security_protocol: listener.protocol as i16,
            ..Default::default()
        });
        let features = records::levels_accepted().map(|(name, min, max)| broker_registration_request::Feature {
            name: name.into(),
            min_supported_version: min,
            max_supported_version: max,
            ..Default::default()
        });
        BrokerRegistrationRequest {
            broker_id: self.node_id.0,
            cluster_id: cluster_id.into(),
            incarnation_id: self.incarnation_id,
            listeners: listeners.collect(),
            features: features.collect(),
            rack: self.rack.as_deref().map(Into::into),
            log_dirs: self.log_dirs.clone(),
            previous_broker_epoch: self.previous_broker_epoch.unwrap_or(-1),
            ..Default::default()
        }
    }

    /// What the node's controller asks of the active controller (KIP-919).
    pub fn controller_registration(&self) -> ControllerRegistrationRequest {
        let listeners = self.controller_listeners.iter().map(|listener| controller_registration_request::Listener {
            name: listener.name.as_str().into(),
            host: listener.host.as_str().into(),
            port: listener.port,
            security_protocol: listener.protocol as i16,
            ..Default::default()
        });
        let features = records::levels_accepted().map(|(name, min, max)| controller_registration_request::Feature {
            name: name.into(),
            min_supported_version: min,
            max_supported_version: max,
            ..Default::default()
        });
        ControllerRegistrationRequest {
            controller_id: self.node_id.0,
            incarnation_id: self.incarnation_id,
            listeners: listeners.collect(),
            features: features.collect(),
            ..Default::default()
        }
    }
}

/// Unfences a broker that has started: its replicas may be in sync, and may lead.
pub fn unfence_broker(node_id: NodeId, broker_epoch: i64) -> MetadataRecord {
    BrokerRegistrationChangeRecord { fenced: -1, ..registration_change(node_id, broker_epoch) }.into()
}

/// Fences a broker that stops cleanly. In a cluster of one no other broker takes its partitions over, so it stays in
/// their ISRs, and the next start claims them again.
pub fn shut_down_broker(node_id: NodeId, broker_epoch: i64) -> MetadataRecord {
    BrokerRegistrationChangeRecord { fenced: 1, ..registration_change(node_id, broker_epoch) }.into()
}

/// Names the log directories of a broker that still work after one has failed. New replicas are placed only in these
/// (KIP-858).
pub fn directories_left(node_id: NodeId, broker_epoch: i64, log_dirs: Vec<Uuid>) -> MetadataRecord {
    BrokerRegistrationChangeRecord { log_dirs, ..registration_change(node_id, broker_epoch) }.into()
}

/// A change of a registration that changes nothing yet.
pub(super) fn registration_change(node_id: NodeId, broker_epoch: i64) -> BrokerRegistrationChangeRecord {
    BrokerRegistrationChangeRecord { broker_id: node_id.0, broker_epoch, ..Default::default() }
}

/// Makes a broker that has started the leader of partitions, each in a new leader epoch. These are the partitions that
/// it led before, and those without a leader that it may lead: because it is in sync, because it is an eligible leader,
/// or because it is the last known eligible leader (KIP-966).
///
/// Every start needs a new epoch, because records that were only in the page cache may be lost (KIP-101).
pub fn claim_partitions(image: &Image, node_id: NodeId) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    for topic in image.topics() {
        for (&index, partition) in &topic.partitions {
            let Some(isr) = claim(image, node_id, partition) else { continue };
            let changed = isr != partition.isr;
            let forget = |nodes: &[NodeId]| (!nodes.is_empty()).then(Int32s::new);
            let record = PartitionChangeRecord {
                partition_id: index,
                topic_id: topic.id,
                isr: changed.then(|| node_ids(&isr)),
                leader: node_id.0,
                leader_recovery_state: if partition.recovering { 0 } else { -1 },
                eligible_leader_replicas: forget(&partition.eligible_leaders),
                last_known_elr: forget(&partition.last_known_eligible_leaders),
                ..PartitionChangeRecord::default()
            };
            records.push(record.into());
        }
    }
    records
}

/// The ISR with which this broker will lead the partition; `None` if it may not lead.
fn claim(image: &Image, node_id: NodeId, partition: &Partition) -> Option<Vec<NodeId>> {
    if !partition.replicas.contains(&node_id) {
        return None;
    }
    if partition.leader.is_some_and(|leader| leader != node_id && image.is_active(leader)) {
        return None;
    }
    if partition.isr.contains(&node_id) {
        // Replicas on brokers that are not active leave the ISR.
        return Some(partition.isr.iter().copied().filter(|id| *id == node_id || image.is_active(*id)).collect());
    }
    let eligible = partition.eligible_leaders.contains(&node_id);
    let last_known = partition.eligible_leaders.is_empty() && partition.last_known_eligible_leaders == [node_id];
    (partition.isr.is_empty() && (eligible || last_known)).then(|| vec![node_id])
}
