//! What a node tells the active controller of itself (KIP-631, KIP-919), and the records with which a cluster begins.

use super::Context;
use super::image::ConfigResource;
use super::records;
use tidelog_config::Listener;
use tidelog_wire::MetadataRecord;
use tidelog_wire::ids::{NodeId, Uuid};
use tidelog_wire::messages::{
    BrokerRegistrationChangeRecord, BrokerRegistrationRequest, ControllerRegistrationRequest,
    broker_registration_request, controller_registration_request,
};

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

/// A change of a registration that changes nothing yet.
pub(super) fn registration_change(node_id: NodeId, broker_epoch: i64) -> BrokerRegistrationChangeRecord {
    BrokerRegistrationChangeRecord { broker_id: node_id.0, broker_epoch, ..Default::default() }
}
