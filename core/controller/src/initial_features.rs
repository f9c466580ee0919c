//! The features with which a cluster begins: what an operator asks for when the directories are formatted, and Kafka's
//! defaults for everything else. The texts of refusals are Kafka's where an operator of Kafka would look for them.

use super::features::{KRAFT_VERSION, check_dependencies};
use super::records::{self, FEATURES, Feature, METADATA_VERSION, METADATA_VERSION_MAX, METADATA_VERSION_MIN};
use std::collections::BTreeMap;
use tidelog_wire::MetadataRecord;
use tidelog_wire::messages::FeatureLevelRecord;

/// The levels of `metadata.version`, from [`METADATA_VERSION_MIN`] on, by the releases of Kafka that they belong to. A
/// release stands here once for each of its levels.
const RELEASES: &[&str] = &[
    "3.3-IV3", "3.4-IV0", "3.5-IV0", "3.5-IV1", "3.5-IV2", "3.6-IV0", "3.6-IV1", "3.6-IV2", "3.7-IV0", "3.7-IV1",
    "3.7-IV2", "3.7-IV3", "3.7-IV4", "3.8-IV0", "3.9-IV0", "4.0-IV0", "4.0-IV1", "4.0-IV2", "4.0-IV3", "4.1-IV0",
    "4.1-IV1", "4.2-IV0", "4.2-IV1", "4.3-IV0",
];

/// The first level of `metadata.version` whose new clusters have eligible leader replicas (KIP-966): 4.1-IV0.
const ELIGIBLE_LEADERS_BY_DEFAULT: i16 = 26;

/// The features of a new cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialFeatures {
    metadata_version: i16,
    /// The other features that have a level above 0.
    levels: BTreeMap<String, i16>,
    /// The level of `kraft.version`, which the quorum keeps in control records.
    kraft_version: i16,
}

impl InitialFeatures {
    /// The features of a cluster whose operator asks for nothing.
    pub fn newest(is_dynamic: bool) -> Self {
        Self::new(None, &BTreeMap::new(), is_dynamic).expect("the defaults are right")
    }

    /// `release` is a release of Kafka, such as `4.1`, `4.1.0` or `4.1-IV0`; `asked` are levels of single features.
    /// `is_dynamic`: the quorum's voters stand in the metadata log (KIP-853), not in the configuration. An error says
    /// what is allowed.
    pub fn new(release: Option<&str>, asked: &BTreeMap<String, i16>, is_dynamic: bool) -> Result<Self, String> {
        for (name, level) in asked {
            check_known(name, *level)?;
        }
        let metadata_version = match (release, asked.get(METADATA_VERSION)) {
            (Some(_), Some(_)) => {
                return Err(format!(
                    "Use --release-version instead of --feature {METADATA_VERSION}=X to avoid ambiguity."
                ));
            }
            (Some(release), None) => metadata_version_of(release)?,
            (None, Some(level)) => *level,
            (None, None) => METADATA_VERSION_MAX,
        };
        let mut levels: BTreeMap<String, i16> = FEATURES
            .iter()
            .filter(|feature| feature.name != METADATA_VERSION)
            .map(|feature| (feature.name.to_owned(), initial_level(feature, metadata_version)))
            .collect();
        levels.extend(asked.clone());
        let kraft_version = kraft_version(levels.remove(KRAFT_VERSION), is_dynamic)?;
        levels.remove(METADATA_VERSION);
        let proposed = BTreeMap::from([(METADATA_VERSION, metadata_version)]);
        for (name, level) in &levels {
            check_dependencies(name, *level, &proposed)?;
        }
        levels.retain(|_, level| *level > 0);
        Ok(Self { metadata_version, levels, kraft_version })
    }

    pub fn kraft_version(&self) -> i16 {
        self.kraft_version
    }

    /// The name of the level of `metadata.version`, such as `4.3-IV0`.
    pub fn release(&self) -> &'static str {
        RELEASES[usize::try_from(self.metadata_version - METADATA_VERSION_MIN).expect("it was checked")]
    }

    /// The records of `bootstrap.checkpoint`: `metadata.version`, then the other features in the order of their names.
    pub fn records(&self) -> Vec<MetadataRecord> {
        let record = |name: &str, feature_level| {
            FeatureLevelRecord { name: name.into(), feature_level, ..Default::default() }.into()
        };
        let others = self.levels.iter().map(|(name, level)| record(name, *level));
        [record(METADATA_VERSION, self.metadata_version)].into_iter().chain(others).collect()
    }
}

/// The features of a cluster that a broker forms by itself.
pub fn bootstrap_features() -> Vec<MetadataRecord> {
    InitialFeatures::newest(true).records()
}

/// The releases of Kafka that [`InitialFeatures::new`] takes, oldest first: each level of `metadata.version`.
pub fn known_releases() -> impl Iterator<Item = &'static str> {
    RELEASES.iter().copied()
}

fn initial_level(feature: &Feature, metadata_version: i16) -> i16 {
    match feature.name {
        records::ELIGIBLE_LEADER_REPLICAS_VERSION if metadata_version < ELIGIBLE_LEADERS_BY_DEFAULT => 0,
        _ => feature.initial,
    }
}

fn check_known(name: &str, level: i16) -> Result<(), String> {
    let Some((_, min, max)) = records::levels_accepted().find(|(known, ..)| *known == name) else {
        let mut names: Vec<&str> = records::levels_accepted().map(|(name, ..)| name).collect();
        names.sort_unstable();
        return Err(format!("Unsupported feature: {name}. Supported features are: {}", names.join(", ")));
    };
    match (min..=max).contains(&level) {
        true => Ok(()),
        false => Err(format!("No feature {name} with feature level {level}; allowed is {min} to {max}")),
    }
}

/// The level of a release: `4.1`, which means the last level of it, `4.1.0` for the same, or one level, `4.1-IV0`.
fn metadata_version_of(release: &str) -> Result<i16, String> {
    let short = match release.match_indices('.').nth(1) {
        Some((place, _)) => &release[..place],
        None => release,
    };
    let is_it = |known: &str| known == short || known.split_once('-').is_some_and(|(known, _)| known == short);
    let place = RELEASES.iter().rposition(|known| is_it(known)).ok_or_else(|| {
        format!("Unknown {METADATA_VERSION} '{release}'. Supported {METADATA_VERSION} are: {}", RELEASES.join(", "))
    })?;
    Ok(METADATA_VERSION_MIN + i16::try_from(place).expect("there are few releases"))
}

fn kraft_version(asked: Option<i16>, is_dynamic: bool) -> Result<i16, String> {
    const OPTIONS: &str = "--standalone, --initial-controllers, or --no-initial-controllers";
    match asked {
        Some(0) if is_dynamic => Err(format!(
            "Cannot set {KRAFT_VERSION} to 0 if controller.quorum.voters is empty and one of the flags {OPTIONS} is used. \
             For dynamic controllers support, try removing the --feature flag for {KRAFT_VERSION}."
        )),
        Some(level) if level > 0 && !is_dynamic => Err(format!(
            "Cannot set {KRAFT_VERSION} to {level} unless controller.quorum.voters is empty and one of the flags \
             {OPTIONS} is used. For dynamic controllers support, try using one of {OPTIONS} and removing \
             controller.quorum.voters."
        )),
        Some(level) => Ok(level),
        None => Ok(i16::from(is_dynamic)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(release: Option<&str>, asked: &[(&str, i16)], is_dynamic: bool) -> Result<Vec<(String, i16)>, String> {
        let asked = asked.iter().map(|(name, level)| (name.to_string(), *level)).collect();
        let features = InitialFeatures::new(release, &asked, is_dynamic)?;
        let mut levels: Vec<(String, i16)> = features
            .records()
            .into_iter()
            .map(|record| match record {
                MetadataRecord::FeatureLevel(feature) => (feature.name.to_string(), feature.feature_level),
                other => panic!("{other:?}"),
            })
            .collect();
        levels.push((KRAFT_VERSION.to_owned(), features.kraft_version()));
        Ok(levels)
    }

    fn owned(levels: &[(&str, i16)]) -> Vec<(String, i16)> {
        levels.iter().map(|(name, level)| (name.to_string(), *level)).collect()
    }

    #[test]
    fn each_level_of_the_metadata_version_has_a_release() {
        assert_eq!(RELEASES.len() as i16, METADATA_VERSION_MAX - METADATA_VERSION_MIN + 1);
        assert_eq!(InitialFeatures::newest(false).release(), "4.3-IV0");
    }

    #[test]
    fn a_release_means_its_last_level_and_the_features_that_it_has_from_the_beginning() {
        let elr = records::ELIGIBLE_LEADER_REPLICAS_VERSION;
        for (release, level, has_elr) in [
            ("3.3", 7, false),
            ("3.7-IV2", 17, false),
            ("3.8.1", 20, false),
            ("4.0", 25, false),
            ("4.1-IV0", 26, true),
            ("4.3.0", 30, true),
        ] {
            let mut expected = vec![(METADATA_VERSION, level)];
            expected.extend(has_elr.then_some((elr, 1)));
            expected.push((KRAFT_VERSION, 1));
            assert_eq!(levels(Some(release), &[], true), Ok(owned(&expected)), "{release}");
        }
    }

    #[test]
    fn levels_that_are_asked_for_go_before_the_defaults() {
        let asked = [("group.version", 1), ("eligible.leader.replicas.version", 0), (METADATA_VERSION, 25)];
        let expected = [(METADATA_VERSION, 25), ("group.version", 1), (KRAFT_VERSION, 0)];
        assert_eq!(levels(None, &asked, false), Ok(owned(&expected)));
    }

    #[test]
    fn the_level_of_the_quorum_may_be_named_where_it_is_right() {
        let kraft_version = |level, is_dynamic| {
            levels(None, &[(KRAFT_VERSION, level)], is_dynamic).map(|levels| levels.last().map(|(_, level)| *level))
        };
        assert_eq!(kraft_version(0, false), Ok(Some(0)));
        assert_eq!(kraft_version(1, true), Ok(Some(1)));
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_is_allowed() {
        let refused: Vec<String> = [
            levels(Some("4.4"), &[], true),
            levels(Some("4.3"), &[(METADATA_VERSION, 30)], true),
            levels(None, &[(METADATA_VERSION, 31)], true),
            levels(None, &[("group.version", 2)], true),
            levels(None, &[("no.version", 1)], true),
            levels(Some("3.9"), &[("eligible.leader.replicas.version", 1)], true),
            levels(None, &[(KRAFT_VERSION, 0)], true),
            levels(None, &[(KRAFT_VERSION, 1)], false),
        ]
        .into_iter()
        .map(Result::unwrap_err)
        .collect();
        insta::assert_snapshot!(refused.join("\n"), @"
        Unknown metadata.version '4.4'. Supported metadata.version are: 3.3-IV3, 3.4-IV0, 3.5-IV0, 3.5-IV1, 3.5-IV2, 3.6-IV0, 3.6-IV1, 3.6-IV2, 3.7-IV0, 3.7-IV1, 3.7-IV2, 3.7-IV3, 3.7-IV4, 3.8-IV0, 3.9-IV0, 4.0-IV0, 4.0-IV1, 4.0-IV2, 4.0-IV3, 4.1-IV0, 4.1-IV1, 4.2-IV0, 4.2-IV1, 4.3-IV0
        Use --release-version instead of --feature metadata.version=X to avoid ambiguity.
        No feature metadata.version with feature level 31; allowed is 7 to 30
        No feature group.version with feature level 2; allowed is 0 to 1
        Unsupported feature: no.version. Supported features are: eligible.leader.replicas.version, group.version, kraft.version, metadata.version, share.version, streams.version, transaction.version
        eligible.leader.replicas.version could not be set to 1 because it depends on metadata.version level 23
        Cannot set kraft.version to 0 if controller.quorum.voters is empty and one of the flags --standalone, --initial-controllers, or --no-initial-controllers is used. For dynamic controllers support, try removing the --feature flag for kraft.version.
        Cannot set kraft.version to 1 unless controller.quorum.voters is empty and one of the flags --standalone, --initial-controllers, or --no-initial-controllers is used. For dynamic controllers support, try using one of --standalone, --initial-controllers, or --no-initial-controllers and removing controller.quorum.voters.
        ");
    }
}
