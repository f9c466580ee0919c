use super::*;
use crate::records::{ELIGIBLE_LEADER_REPLICAS_VERSION, METADATA_VERSION};
use tidelog_wire::messages::register_controller_record::ControllerFeature;
use tidelog_wire::messages::update_features_request::FeatureUpdateKey;
use tidelog_wire::messages::{RegisterBrokerRecord, RegisterControllerRecord, UpdateFeaturesRequest};

const UPGRADE: i8 = 1;
const SAFE: i8 = 2;
const UNSAFE: i8 = 3;

/// Updates features. Gives the text of a refusal, without the words with which each refusal begins.
fn update(cluster: &mut Cluster, updates: &[(&str, i16, i8)], validate_only: bool) -> Result<(), String> {
    let updates = updates.iter().map(|(name, level, upgrade_type)| FeatureUpdateKey {
        feature: (*name).into(),
        max_version_level: *level,
        upgrade_type: *upgrade_type,
        ..Default::default()
    });
    let request = UpdateFeaturesRequest { feature_updates: updates.collect(), validate_only, ..Default::default() };
    let kraft_version = KRaftVersion { level: 1, upgrade: Ok(()) };
    let response =
        cluster.decide(|image, context, _| update_features(image, context, &request, 2, &kraft_version).decision);
    assert_eq!(response.results, []);
    match ErrorCode::from_code(response.error_code).unwrap() {
        ErrorCode::None => Ok(()),
        ErrorCode::InvalidUpdateVersion => {
            let text = response.error_message.unwrap().to_string();
            let before = "The update failed for all features since the following feature had an error: ";
            Err(text.strip_prefix(before).unwrap().to_owned())
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_feature_goes_down_only_when_that_is_asked_for_and_up_again() {
    let mut cluster = Cluster::new();
    assert_eq!(
        update(&mut cluster, &[(ELIGIBLE_LEADER_REPLICAS_VERSION, 0, UPGRADE)], false).unwrap_err(),
        "Invalid update version 0 for feature eligible.leader.replicas.version. Can't downgrade the version of this feature without \
         setting the upgrade type to either safe or unsafe downgrade."
    );
    update(&mut cluster, &[(ELIGIBLE_LEADER_REPLICAS_VERSION, 0, SAFE)], true).unwrap();
    assert_eq!(cluster.image.feature(ELIGIBLE_LEADER_REPLICAS_VERSION), 1, "it was only asked");
    update(&mut cluster, &[(ELIGIBLE_LEADER_REPLICAS_VERSION, 0, SAFE)], false).unwrap();
    assert_eq!(cluster.image.feature(ELIGIBLE_LEADER_REPLICAS_VERSION), 0);
    assert_eq!(
        update(&mut cluster, &[(ELIGIBLE_LEADER_REPLICAS_VERSION, 1, SAFE)], false).unwrap_err(),
        "Invalid update version 1 for feature eligible.leader.replicas.version. Can't downgrade to a newer version."
    );
    update(&mut cluster, &[(ELIGIBLE_LEADER_REPLICAS_VERSION, 1, UPGRADE)], false).unwrap();
    assert_eq!(cluster.image.feature(ELIGIBLE_LEADER_REPLICAS_VERSION), 1);
}

#[test]
fn one_feature_that_cannot_be_updated_holds_all_back() {
    let mut cluster = Cluster::new();
    for (name, level, upgrade, why) in [
        (ELIGIBLE_LEADER_REPLICAS_VERSION, 9, UPGRADE, "Local controller 1 only supports versions 0-1"),
        ("share.version", -1, SAFE, "A feature version cannot be less than 0."),
        ("group.version", 1, UPGRADE, "Local controller 1 does not support this feature."),
        ("transaction.version", 2, UPGRADE, "Local controller 1 does not support this feature."),
        ("no.such.version", 1, UPGRADE, "Local controller 1 does not support this feature."),
        ("streams.version", 0, 7, "The controller does not support the given upgrade type."),
        ("kraft.version", 0, SAFE, "Can't downgrade the version of this feature."),
    ] {
        let updates = [(ELIGIBLE_LEADER_REPLICAS_VERSION, 0, SAFE), (name, level, upgrade)];
        let text = update(&mut cluster, &updates, false).unwrap_err();
        assert_eq!(text, format!("Invalid update version {level} for feature {name}. {why}"));
        assert_eq!(cluster.image.feature(ELIGIBLE_LEADER_REPLICAS_VERSION), 1);
    }
}

#[test]
fn a_level_that_a_registered_node_does_not_support_is_refused() {
    let mut cluster = Cluster::new();
    let name = ELIGIBLE_LEADER_REPLICAS_VERSION;
    update(&mut cluster, &[(name, 0, SAFE)], false).unwrap();
    let known = cluster.image.brokers().next().unwrap().clone();
    let other = |features: Vec<_>| RegisterBrokerRecord { broker_id: 7, features, ..known.clone() };
    let mut features = known.features.clone();
    features.retain(|feature| feature.name != name);
    cluster.commit(&[other(features).into()]);
    let refusal = |who: &str, why: &str| format!("Invalid update version 1 for feature {name}. {who} {why}");
    let text = update(&mut cluster, &[(name, 1, UPGRADE)], false).unwrap_err();
    assert_eq!(text, refusal("Broker 7", "does not support this feature."));
    cluster.commit(&[other(known.features.clone()).into()]);
    update(&mut cluster, &[(name, 1, UPGRADE)], true).unwrap();

    let range = ControllerFeature {
        name: name.into(),
        min_supported_version: 2,
        max_supported_version: 3,
        ..Default::default()
    };
    cluster
        .commit(&[RegisterControllerRecord { controller_id: 8, features: vec![range], ..Default::default() }.into()]);
    let text = update(&mut cluster, &[(name, 1, UPGRADE)], false).unwrap_err();
    assert_eq!(text, refusal("Controller 8", "only supports versions 2-3"));
}

#[test]
fn the_quorum_raises_its_own_feature_if_it_can_and_all_other_features_may_be_updated() {
    let cluster = Cluster::new();
    let decided = |upgrade: Result<(), String>, updates: &[(&str, i16, i8)], validate_only| {
        let feature_updates = updates.iter().map(|(name, level, upgrade_type)| FeatureUpdateKey {
            feature: (*name).into(),
            max_version_level: *level,
            upgrade_type: *upgrade_type,
            ..Default::default()
        });
        let request =
            UpdateFeaturesRequest { feature_updates: feature_updates.collect(), validate_only, ..Default::default() };
        let kraft_version = KRaftVersion { level: 0, upgrade };
        let context = Context { node_id: NodeId(1), layers: cluster.image.layers(&cluster.broker) };
        let update = update_features(&cluster.image, &context, &request, 2, &kraft_version);
        (update.raises_kraft_version, update.decision)
    };
    let wanted = [(KRAFT_VERSION, 1, UPGRADE)];
    let (raises, decision) = decided(Ok(()), &wanted, false);
    assert_eq!((raises, decision.response.error_code), (true, 0));
    assert!(matches!(decision.records[..], [MetadataRecord::NoOp(_)]), "something to wait for");
    let (raises, decision) = decided(Ok(()), &wanted, true);
    assert_eq!((raises, decision.response.error_code, decision.records.len()), (false, 0, 0));
    let (raises, decision) = decided(Err("voters are missing".to_owned()), &wanted, false);
    assert!(!raises && decision.records.is_empty());
    assert_eq!(
        decision.response.error_message.unwrap(),
        "The update failed for all features since the following feature had an error: voters are missing"
    );
    let (raises, decision) = decided(Ok(()), &[wanted[0], ("group.version", 1, UPGRADE)], false);
    assert!(!raises && decision.records.is_empty(), "all or none");
}

#[test]
fn the_metadata_version_goes_back_only_where_nothing_can_be_lost() {
    let mut cluster = Cluster::new();
    for (upgrade, why) in [
        (SAFE, "Refusing to perform the requested downgrade because it might delete metadata information."),
        (UNSAFE, "Unsafe metadata downgrade is not supported in this version."),
    ] {
        let text = update(&mut cluster, &[(METADATA_VERSION, 21, upgrade)], false).unwrap_err();
        assert_eq!(text, format!("Unsupported metadata.version downgrade from 30 to 21. {why}"));
    }
    cluster.commit(&[tidelog_wire::messages::FeatureLevelRecord {
        name: METADATA_VERSION.into(),
        feature_level: 29,
        ..Default::default()
    }
    .into()]);
    update(&mut cluster, &[(METADATA_VERSION, 24, SAFE)], false).unwrap();
    assert_eq!(cluster.image.metadata_version(), 24);
    update(&mut cluster, &[(METADATA_VERSION, 22, SAFE)], false).unwrap_err();
    update(&mut cluster, &[(METADATA_VERSION, 30, UPGRADE)], false).unwrap();
    assert_eq!(cluster.image.metadata_version(), 30);
}

#[test]
fn with_eligible_leaders_the_cluster_alone_says_how_many_replicas_must_be_in_sync() {
    let mut cluster = Cluster::with(&[("min.insync.replicas", "2")]);
    let name = ELIGIBLE_LEADER_REPLICAS_VERSION;
    update(&mut cluster, &[(name, 0, SAFE)], false).unwrap();
    let min = |value| ConfigResource::broker(NodeId(1)).record("min.insync.replicas", value);
    cluster.commit(&[ConfigResource::all_brokers().record("min.insync.replicas", None), min(Some("1"))]);
    update(&mut cluster, &[(name, 1, UPGRADE)], false).unwrap();
    assert_eq!(cluster.image.config(&ConfigResource::all_brokers())["min.insync.replicas"], "2");
    assert!(cluster.image.config(&ConfigResource::broker(NodeId(1))).is_empty());

    update(&mut cluster, &[(name, 0, SAFE)], false).unwrap();
    for level in [30, 29, 22] {
        cluster.commit(&[tidelog_wire::messages::FeatureLevelRecord {
            name: METADATA_VERSION.into(),
            feature_level: level,
            ..Default::default()
        }
        .into()]);
    }
    assert_eq!(
        update(&mut cluster, &[(name, 1, UPGRADE)], false).unwrap_err(),
        "Invalid update version 1 for feature eligible.leader.replicas.version. eligible.leader.replicas.version could \
         not be set to 1 because it depends on metadata.version level 23"
    );
}

#[test]
fn older_clients_are_answered_for_each_feature() {
    let mut cluster = Cluster::new();
    let mut ask = |allow_downgrade| {
        let feature_updates = vec![FeatureUpdateKey {
            feature: ELIGIBLE_LEADER_REPLICAS_VERSION.into(),
            max_version_level: 0,
            allow_downgrade,
            ..Default::default()
        }];
        let request = UpdateFeaturesRequest { feature_updates, ..Default::default() };
        let kraft_version = KRaftVersion { level: 1, upgrade: Ok(()) };
        cluster.decide(|image, context, _| update_features(image, context, &request, 0, &kraft_version).decision)
    };
    assert_eq!(ask(false).error_code, ErrorCode::InvalidUpdateVersion.code(), "an upgrade, unless the flag is set");
    let response = ask(true);
    assert_eq!(response.error_code, 0);
    assert_eq!(response.error_message, None);
    let results = response.results.iter().map(|one| (&*one.feature, one.error_code, one.error_message.as_deref()));
    assert_eq!(results.collect::<Vec<_>>(), [(ELIGIBLE_LEADER_REPLICAS_VERSION, 0, Some("NONE"))]);
    assert_eq!(cluster.image.feature(ELIGIBLE_LEADER_REPLICAS_VERSION), 0);
}

#[test]
fn a_level_that_a_feature_has_already_may_be_set_in_any_way() {
    let mut cluster = Cluster::new();
    let all = [(ELIGIBLE_LEADER_REPLICAS_VERSION, 1), (METADATA_VERSION, 30), (KRAFT_VERSION, 1)];
    for upgrade in [UPGRADE, SAFE] {
        let known = cluster.committed.len();
        update(&mut cluster, &all.map(|(name, level)| (name, level, upgrade)), false).unwrap();
        let names: Vec<&str> = cluster.committed[known..]
            .iter()
            .map(|(record, _)| match record {
                MetadataRecord::FeatureLevel(feature) => &*feature.name,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(names, [ELIGIBLE_LEADER_REPLICAS_VERSION, METADATA_VERSION], "the quorum has nothing to do");
    }
}

#[test]
fn only_a_higher_level_of_its_own_feature_is_a_matter_of_the_quorum() {
    let cluster = Cluster::new();
    let context = Context { node_id: NodeId(1), layers: cluster.image.layers(&cluster.broker) };
    let raises = |name: &str, level: i16| {
        let feature_updates = vec![FeatureUpdateKey {
            feature: name.into(),
            max_version_level: level,
            upgrade_type: UPGRADE,
            ..Default::default()
        }];
        let request = UpdateFeaturesRequest { feature_updates, ..Default::default() };
        // The quorum cannot be asked for what is not needed.
        let kraft_version = KRaftVersion { level: 1, upgrade: Err("it cannot".to_owned()) };
        let update = update_features(&cluster.image, &context, &request, 2, &kraft_version);
        assert_eq!(update.decision.response.error_code, 0);
        update.raises_kraft_version
    };
    assert!(!raises(KRAFT_VERSION, 1), "it has this level");
    assert!(!raises(METADATA_VERSION, 30), "another feature, with a higher level");
}

#[test]
fn the_least_number_of_replicas_is_recorded_only_with_eligible_leaders_and_taken_from_brokers_alone() {
    let mut cluster = Cluster::new();
    cluster.create(&creating(vec![topic("t", 1, 1)]));
    let (elr, min) = (ELIGIBLE_LEADER_REPLICAS_VERSION, "min.insync.replicas");
    let all = ConfigResource::all_brokers();
    cluster.commit(&[all.record(min, None)]);
    update(&mut cluster, &[(elr, 0, SAFE), (METADATA_VERSION, 30, UPGRADE)], false).unwrap();
    assert!(cluster.image.config(&all).is_empty(), "neither needs it");

    let of_broker = |id, name: &str| ConfigResource::broker(NodeId(id)).record(name, Some("3"));
    cluster.commit(&[
        ConfigResource::topic("t").record(min, Some("3")),
        of_broker(1, min),
        of_broker(2, "log.retention.ms"),
        all.record(min, Some("2")),
    ]);
    let known = cluster.committed.len();
    update(&mut cluster, &[(elr, 1, UPGRADE)], false).unwrap();
    let records: Vec<_> = cluster.committed[known..].iter().map(|(record, _)| record.clone()).collect();
    assert_eq!(records.len(), 2, "{records:?}");
    assert_eq!(records[0], ConfigResource::broker(NodeId(1)).record(min, None));
    assert_eq!(cluster.image.topic_config("t")[min], "3");
    assert_eq!(cluster.image.config(&all)[min], "2");
}
