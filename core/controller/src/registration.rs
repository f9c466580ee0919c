//! Registrations of brokers and controllers, as they ask for them (KIP-631, KIP-919).

use super::broker_lifecycle::incarnation_ended;
use super::heartbeats::Heartbeats;
use super::image::Image;
use super::records::{self, METADATA_VERSION};
use super::{Context, Decision, KRAFT_VERSION, Refusal};
use std::collections::BTreeMap;
use tidelog_wire::ErrorCode;
use tidelog_wire::ids::{NodeId, Offset, Uuid};
use tidelog_wire::messages::register_broker_record::{BrokerEndpoint, BrokerFeature};
use tidelog_wire::messages::register_controller_record::{ControllerEndpoint, ControllerFeature};
use tidelog_wire::messages::{
    BrokerRegistrationRequest, ControllerRegistrationRequest, RegisterBrokerRecord, RegisterControllerRecord,
};
use tidelog_wire::time::Mono;

/// What the registration of a broker depends on, beside the image.
#[derive(Clone, Copy)]
pub struct Registrar<'a> {
    pub context: Context<'a>,
    pub cluster_id: &'a str,
    /// The level of `kraft.version`, which the quorum keeps.
    pub kraft_version: i16,
    pub heartbeats: &'a Heartbeats,
    pub now: Mono,
    /// The offset that the next record of the metadata log will have. It becomes the epoch of a new incarnation.
    pub next_offset: Offset,
}

/// Registers a broker, and gives its broker epoch. A new incarnation gets a new epoch and is fenced. The same incarnation
/// may register again, for example to name log directories that the registration could not hold before; it keeps its
/// epoch, and is fenced only if it was (KAFKA-16952).
///
/// `api_version`: from version 3 on, a broker names the epoch in which it stopped cleanly.
pub fn register_broker(
    image: &Image,
    registrar: &Registrar,
    request: &BrokerRegistrationRequest,
    api_version: i16,
) -> Decision<Result<i64, Refusal>> {
    let id = NodeId(request.broker_id);
    let record = match registrar.registration(image, request) {
        Ok(record) => record,
        Err(refusal) => return Decision { records: Vec::new(), response: Err(refusal) },
    };
    let before = image.broker(id).filter(|before| before.broker_epoch == record.broker_epoch);
    let mut records = Vec::new();
    if before.is_none() {
        let previous = image.broker(id).map(|before| before.broker_epoch);
        let stopped_cleanly = api_version >= 3 && previous == Some(request.previous_broker_epoch);
        records = incarnation_ended(image, &registrar.context, id, stopped_cleanly);
    }
    let broker_epoch = record.broker_epoch;
    // The registration comes last. If a crash leaves only the first records, the broker registers again, and the rest of
    // them is decided again.
    records.push(record.into());
    Decision { records, response: Ok(broker_epoch) }
}

impl Registrar<'_> {
    /// The registration alone, or why it is refused. What becomes of the partitions that an earlier incarnation led is
    /// left to the caller.
    pub fn registration(
        &self,
        image: &Image,
        request: &BrokerRegistrationRequest,
    ) -> Result<RegisterBrokerRecord, Refusal> {
        if request.cluster_id != self.cluster_id {
            let text = format!("Expected cluster ID {}, but got cluster ID {}", self.cluster_id, request.cluster_id);
            return Err(Refusal::new(ErrorCode::InconsistentClusterId, text));
        }
        let id = NodeId(request.broker_id);
        let before = image.broker(id);
        let same = before.filter(|before| before.incarnation_id == request.incarnation_id);
        if before.is_some() && same.is_none() && self.heartbeats.has_session(id, self.now) {
            let text = "Another broker is registered with that broker id. If the broker was recently restarted this \
                        should self-resolve once the heartbeat manager expires the broker's session.";
            return Err(Refusal::new(ErrorCode::DuplicateBrokerRegistration, text));
        }
        if request.is_migrating_zk_broker {
            let text = "Controller does not support registering ZK brokers.";
            return Err(Refusal::new(ErrorCode::BrokerIdNotRegistered, text));
        }
        let names_directories = records::assigns_directories(image.metadata_version());
        if names_directories {
            check_directories(image, id, &request.log_dirs)?;
        }
        if request.listeners.is_empty() {
            return Err(invalid("No listeners specified in request"));
        }
        let end_points = request.listeners.iter().map(|listener| BrokerEndpoint {
            name: listener.name.clone(),
            host: listener.host.clone(),
            port: listener.port,
            security_protocol: listener.security_protocol,
            ..BrokerEndpoint::default()
        });
        Ok(RegisterBrokerRecord {
            broker_id: request.broker_id,
            incarnation_id: request.incarnation_id,
            broker_epoch: same.map_or(self.next_offset.0, |same| same.broker_epoch),
            end_points: end_points.collect(),
            features: self.check_features(image, request)?,
            rack: request.rack.clone(),
            fenced: same.is_none_or(|same| same.fenced),
            in_controlled_shutdown: same.is_some_and(|same| same.in_controlled_shutdown),
            log_dirs: if names_directories { request.log_dirs.clone() } else { Vec::new() },
            ..RegisterBrokerRecord::default()
        })
    }

    /// The broker must support the cluster's level of each feature, those included that the request does not name.
    fn check_features(
        &self,
        image: &Image,
        request: &BrokerRegistrationRequest,
    ) -> Result<Vec<BrokerFeature>, Refusal> {
        let mut levels: BTreeMap<&str, i16> = image.features().iter().map(|(name, level)| (&**name, *level)).collect();
        levels.insert(KRAFT_VERSION, self.kraft_version);
        for feature in &request.features {
            let level = levels.remove(&*feature.name).unwrap_or(0);
            check_range(&feature.name, level, feature.min_supported_version, feature.max_supported_version)?;
        }
        if !request.features.iter().any(|feature| feature.name == METADATA_VERSION) {
            return Err(invalid("Request features do not contain 'metadata.version'"));
        }
        for (name, level) in levels {
            check_range(name, level, 0, 0)?;
        }
        let features = request.features.iter().map(|feature| BrokerFeature {
            name: feature.name.clone(),
            min_supported_version: feature.min_supported_version,
            max_supported_version: feature.max_supported_version,
            ..BrokerFeature::default()
        });
        Ok(features.collect())
    }
}

fn check_range(name: &str, level: i16, min: i16, max: i16) -> Result<(), Refusal> {
    if (min..=max).contains(&level) {
        return Ok(());
    }
    let text = format!(
        "Unable to register because the broker does not support finalized version {level} of {name}. The broker wants a \
         version between {min} and {max}, inclusive."
    );
    Err(Refusal::new(ErrorCode::UnsupportedVersion, text))
}

/// The log directories of a broker are its own, and it has at least one.
fn check_directories(image: &Image, id: NodeId, dirs: &[Uuid]) -> Result<(), Refusal> {
    if dirs.is_empty() {
        return Err(invalid("No directories specified in request"));
    }
    if dirs.iter().any(|dir| records::is_reserved_directory(*dir)) {
        return Err(invalid("Reserved directory ID in request"));
    }
    if (1..dirs.len()).any(|place| dirs[..place].contains(&dirs[place])) {
        return Err(invalid("Duplicate directory ID in request"));
    }
    for other in image.brokers().filter(|other| other.broker_id != id.0) {
        if let Some(dir) = dirs.iter().find(|dir| other.log_dirs.contains(dir)) {
            return Err(invalid(format!("Broker {} is already registered with directory {dir}", other.broker_id)));
        }
    }
    Ok(())
}

fn invalid(text: impl Into<bytestring::ByteString>) -> Refusal {
    Refusal::new(ErrorCode::InvalidRegistration, text)
}

/// Registers a controller.
pub fn register_controller(image: &Image, request: &ControllerRegistrationRequest) -> Decision<Result<(), Refusal>> {
    if !records::registers_controllers(image.metadata_version()) {
        let text = "The current MetadataVersion is too old to support controller registrations.";
        let refusal = Refusal::new(ErrorCode::UnsupportedVersion, text);
        return Decision { records: Vec::new(), response: Err(refusal) };
    }
    let end_points = request.listeners.iter().map(|listener| ControllerEndpoint {
        name: listener.name.clone(),
        host: listener.host.clone(),
        port: listener.port,
        security_protocol: listener.security_protocol,
        ..ControllerEndpoint::default()
    });
    let features = request.features.iter().map(|feature| ControllerFeature {
        name: feature.name.clone(),
        min_supported_version: feature.min_supported_version,
        max_supported_version: feature.max_supported_version,
        ..ControllerFeature::default()
    });
    let record = RegisterControllerRecord {
        controller_id: request.controller_id,
        incarnation_id: request.incarnation_id,
        end_points: end_points.collect(),
        features: features.collect(),
        ..RegisterControllerRecord::default()
    };
    Decision { records: vec![record.into()], response: Ok(()) }
}
