//! Changes the levels of the cluster's features (KIP-584, KIP-1022). The texts of refusals are Kafka's.

use super::image::{ConfigResource, Image, ResourceKind};
use super::records::{self, ELIGIBLE_LEADER_REPLICAS_VERSION, FEATURES, KRAFT_VERSION_MAX, METADATA_VERSION};
use super::{Context, Decision};
use std::collections::BTreeMap;
use std::fmt;
use tidelog_wire::messages::update_features_request::FeatureUpdateKey;
use tidelog_wire::messages::update_features_response::UpdatableFeatureResult;
use tidelog_wire::messages::{FeatureLevelRecord, NoOpRecord, UpdateFeaturesRequest, UpdateFeaturesResponse};
use tidelog_wire::{ErrorCode, MetadataRecord};

pub const KRAFT_VERSION: &str = "kraft.version";

/// What an update may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UpgradeType {
    Upgrade,
    SafeDowngrade,
    UnsafeDowngrade,
}

impl UpgradeType {
    fn of(update: &FeatureUpdateKey, version: i16) -> Option<Self> {
        match update.upgrade_type {
            // Version 0 of the request has a flag instead of the type, which then is 1.
            _ if version == 0 && update.allow_downgrade => Some(Self::SafeDowngrade),
            1 => Some(Self::Upgrade),
            2 => Some(Self::SafeDowngrade),
            3 => Some(Self::UnsafeDowngrade),
            _ => None,
        }
    }
}

/// The quorum's own feature, which is not in the metadata.
#[derive(Clone, Debug)]
pub struct KRaftVersion {
    pub level: i16,
    /// Whether the quorum can raise it by one level. An error says why not.
    pub upgrade: Result<(), String>,
}

/// The levels of features that a request sets, all of them or none.
#[derive(Debug)]
pub struct FeatureUpdate {
    pub decision: Decision<UpdateFeaturesResponse>,
    /// The quorum shall raise `kraft.version`, before the records of the decision are proposed.
    pub raises_kraft_version: bool,
}

/// Sets the levels of features.
pub fn update_features(
    image: &Image,
    context: &Context,
    request: &UpdateFeaturesRequest,
    version: i16,
    kraft_version: &KRaftVersion,
) -> FeatureUpdate {
    let features = Features { image, context, kraft_version };
    let updated = features.updated(request, version);
    let raises =
        |update: &FeatureUpdateKey| update.feature == KRAFT_VERSION && update.max_version_level > kraft_version.level;
    let raises_kraft_version = updated.is_ok() && !request.validate_only && request.feature_updates.iter().any(raises);
    let decision = match updated {
        Ok(mut records) => {
            if request.validate_only {
                records.clear();
            }
            let named = |update: &FeatureUpdateKey| UpdatableFeatureResult {
                feature: update.feature.clone(),
                error_message: Some(ErrorCode::None.name().into()),
                ..Default::default()
            };
            // Since version 2 of the response, one error code stands for all features.
            let results = if version <= 1 { request.feature_updates.iter().map(named).collect() } else { Vec::new() };
            Decision {
                records,
                response: UpdateFeaturesResponse { results, error_message: None, ..Default::default() },
            }
        }
        Err(why) => {
            let text = format!("The update failed for all features since the following feature had an error: {why}");
            let response = UpdateFeaturesResponse {
                error_code: ErrorCode::InvalidUpdateVersion.code(),
                error_message: Some(text.into()),
                ..Default::default()
            };
            Decision { records: Vec::new(), response }
        }
    };
    FeatureUpdate { decision, raises_kraft_version }
}

struct Features<'a> {
    image: &'a Image,
    context: &'a Context<'a>,
    kraft_version: &'a KRaftVersion,
}

impl Features<'_> {
    fn updated(&self, request: &UpdateFeaturesRequest, version: i16) -> Result<Vec<MetadataRecord>, String> {
        let mut proposed: BTreeMap<&str, i16> =
            self.image.features().iter().map(|(name, level)| (&**name, *level)).collect();
        proposed.extend(request.feature_updates.iter().map(|update| (&*update.feature, update.max_version_level)));
        let mut records = Vec::new();
        let enables_elr = |update: &FeatureUpdateKey| {
            update.feature == ELIGIBLE_LEADER_REPLICAS_VERSION && update.max_version_level > 0
        };
        if request.feature_updates.iter().any(enables_elr) {
            records.extend(self.min_insync_replicas_for_all());
        }
        for update in &request.feature_updates {
            let level = update.max_version_level;
            let refuse =
                |why: String| Err(format!("Invalid update version {level} for feature {}. {why}", update.feature));
            let Some(upgrade) = UpgradeType::of(update, version) else {
                return refuse("The controller does not support the given upgrade type.".to_owned());
            };
            if level < 0 {
                return refuse("A feature version cannot be less than 0.".to_owned());
            }
            if let Err(why) = self.check_supported(&update.feature, level) {
                return refuse(why);
            }
            let current = match &*update.feature {
                KRAFT_VERSION => self.kraft_version.level,
                name => self.image.feature(name),
            };
            if level < current && upgrade == UpgradeType::Upgrade {
                return refuse(
                    "Can't downgrade the version of this feature without setting the upgrade type to either safe or \
                     unsafe downgrade."
                        .to_owned(),
                );
            }
            if level > current && upgrade != UpgradeType::Upgrade {
                return refuse("Can't downgrade to a newer version.".to_owned());
            }
            match &*update.feature {
                METADATA_VERSION => check_metadata_downgrade(current, level, upgrade)?,
                KRAFT_VERSION if level < current => {
                    return refuse("Can't downgrade the version of this feature.".to_owned());
                }
                KRAFT_VERSION if level > current => {
                    self.kraft_version.upgrade.clone()?;
                    // The record of the quorum is no metadata. This one is committed behind it, so there is something to
                    // wait for.
                    records.push(NoOpRecord::default().into());
                    continue;
                }
                KRAFT_VERSION => continue,
                name => {
                    if let Err(why) = check_dependencies(name, level, &proposed) {
                        return refuse(why);
                    }
                }
            }
            let name = update.feature.clone();
            records.push(FeatureLevelRecord { name, feature_level: level, ..Default::default() }.into());
        }
        Ok(records)
    }

    /// Whether this controller, all brokers and the other controllers support a level of a feature.
    fn check_supported(&self, name: &str, level: i16) -> Result<(), String> {
        let node = self.context.node_id;
        let kraft = (name == KRAFT_VERSION).then_some((0, KRAFT_VERSION_MAX));
        let known = FEATURES.iter().find(|feature| feature.name == name).map(|feature| (feature.min, feature.max));
        check_range(format_args!("Local controller {node}"), kraft.or(known), level)?;
        for broker in self.image.brokers() {
            let range = broker.features.iter().find(|feature| feature.name == name);
            let range = range.map(|feature| (feature.min_supported_version, feature.max_supported_version));
            check_range(format_args!("Broker {}", broker.broker_id), range, level)?;
        }
        for controller in self.image.controllers().filter(|controller| controller.controller_id != node.0) {
            let range = controller.features.iter().find(|feature| feature.name == name);
            let range = range.map(|feature| (feature.min_supported_version, feature.max_supported_version));
            check_range(format_args!("Controller {}", controller.controller_id), range, level)?;
        }
        Ok(())
    }

    /// With eligible leader replicas (KIP-966) the controller must know `min.insync.replicas`, so it is set once for
    /// all brokers.
    fn min_insync_replicas_for_all(&self) -> Vec<MetadataRecord> {
        let name = "min.insync.replicas";
        let mut records = Vec::new();
        let all = ConfigResource::all_brokers();
        if !self.image.config(&all).contains_key(name) {
            // The value in the properties file, because the values that were set for single brokers are removed below.
            let file = self.context.layers.broker.layers();
            let value = file.set_value(name).map_or_else(|| "1".to_owned(), |value| value.canonical());
            records.push(all.record(name, Some(&value)));
        }
        let of_one = |resource: &&ConfigResource| {
            resource.kind == ResourceKind::Broker
                && !resource.name.is_empty()
                && self.image.config(resource).contains_key(name)
        };
        records.extend(self.image.resources().filter(of_one).map(|resource| resource.record(name, None)));
        records
    }
}

/// Whether a node that supports these levels of a feature supports this one.
fn check_range(node: fmt::Arguments<'_>, range: Option<(i16, i16)>, level: i16) -> Result<(), String> {
    let (min, max) = range.unwrap_or((0, 0));
    match () {
        () if (min..=max).contains(&level) => Ok(()),
        () if max == 0 => Err(format!("{node} does not support this feature.")),
        () => Err(format!("{node} only supports versions {min}-{max}")),
    }
}

/// The level may only go down to one that has every field that may have been recorded at the current level.
fn check_metadata_downgrade(current: i16, level: i16, upgrade: UpgradeType) -> Result<(), String> {
    if level >= current || !records::metadata_changed(level, current) {
        return Ok(());
    }
    let why = match upgrade {
        UpgradeType::UnsafeDowngrade => "Unsafe metadata downgrade is not supported in this version.",
        _ => "Refusing to perform the requested downgrade because it might delete metadata information.",
    };
    Err(format!("Unsupported metadata.version downgrade from {current} to {level}. {why}"))
}

pub(super) fn check_dependencies(name: &str, level: i16, proposed: &BTreeMap<&str, i16>) -> Result<(), String> {
    let needed = match name {
        ELIGIBLE_LEADER_REPLICAS_VERSION if level >= 1 => records::WITH_ELIGIBLE_LEADERS,
        _ => return Ok(()),
    };
    if proposed.get(METADATA_VERSION).is_some_and(|level| *level >= needed) {
        return Ok(());
    }
    Err(format!("{name} could not be set to {level} because it depends on {METADATA_VERSION} level {needed}"))
}
