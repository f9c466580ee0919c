//! What operators ask about the cluster: its quorum, its features, quotas and credentials, and which resources have
//! configs.

use super::*;
use crate::wire::messages::IncrementalAlterConfigsRequest;
use crate::wire::messages::api_versions_request::ApiVersionsRequest;
use crate::wire::messages::describe_client_quotas_request::ComponentData;
use crate::wire::messages::describe_quorum_request::{PartitionData as AskedPartition, TopicData as AskedTopic};
use crate::wire::messages::describe_user_scram_credentials_request::UserName;
use crate::wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use crate::wire::messages::update_features_request::FeatureUpdateKey;
use crate::wire::messages::{
    ClientQuotaRecord, DescribeClientQuotasRequest, DescribeQuorumRequest, DescribeUserScramCredentialsRequest,
    ElectLeadersRequest, ListConfigResourcesRequest, ListPartitionReassignmentsRequest, UpdateFeaturesRequest,
    UserScramCredentialRecord, client_quota_record,
};
use crate::wire::{ApiKey, MetadataRecord};

macro_rules! answer {
    ($bench:expr, $version:literal, $api:ident, $request:expr) => {
        match $bench.ask($version, RequestBody::$api($request)) {
            ResponseBody::$api(response) => response,
            other => panic!("{other:?}"),
        }
    };
}

fn about(topic: &str, partition_index: i32) -> DescribeQuorumRequest {
    let partitions = vec![AskedPartition { partition_index, ..Default::default() }];
    let topics = vec![AskedTopic { topic_name: topic.into(), partitions, ..Default::default() }];
    DescribeQuorumRequest { topics, ..Default::default() }
}

#[test]
fn the_quorum_is_its_one_voter_which_is_never_behind() {
    let mut bench = Bench::new(&[("listeners", "PLAINTEXT://h:1,CONTROLLER://h:2")]);
    let response = answer!(bench, 2, DescribeQuorum, about("__cluster_metadata", 0));
    assert_eq!((response.error_code, response.topics[0].partitions.len()), (0, 1));
    let partition = &response.topics[0].partitions[0];
    assert_eq!((partition.error_code, partition.leader_id, partition.leader_epoch), (0, 1, 1));
    let voter = &partition.current_voters[0];
    assert_eq!((partition.current_voters.len(), partition.observers.len(), voter.replica_id), (1, 0, 1));
    assert!(partition.high_watermark > 0 && partition.high_watermark == voter.log_end_offset);
    assert_eq!((voter.last_fetch_timestamp, voter.last_caught_up_timestamp), (START_MS, START_MS));
    assert_ne!(voter.replica_directory_id, Uuid::ZERO);
    let listener = &response.nodes[0].listeners[0];
    assert_eq!((&*listener.name, &*listener.host, listener.port), ("CONTROLLER", "h", 2));

    // An older version of the response has neither directories nor nodes.
    let response = answer!(bench, 1, DescribeQuorum, about("__cluster_metadata", 0));
    assert_eq!(response.topics[0].partitions[0].current_voters[0].replica_directory_id, Uuid::ZERO);
    assert_eq!(response.nodes, []);

    // A new topic adds a few records to the metadata log.
    let before = response.topics[0].partitions[0].high_watermark;
    bench.create("t", 1, &[]);
    let response = answer!(bench, 2, DescribeQuorum, about("__cluster_metadata", 0));
    assert!(response.topics[0].partitions[0].high_watermark > before);
}

#[test]
fn there_is_no_other_quorum() {
    let mut bench = Bench::new(&[]);
    for (topic, partition) in [("t", 0), ("__cluster_metadata", 1)] {
        let response = answer!(bench, 2, DescribeQuorum, about(topic, partition));
        let answered = &response.topics[0].partitions[0];
        assert_eq!(
            (answered.partition_index, answered.error_code),
            (partition, code(ErrorCode::UnknownTopicOrPartition))
        );
    }
    assert_eq!(answer!(bench, 2, DescribeQuorum, DescribeQuorumRequest::default()).topics, []);
}

fn software() -> ApiVersionsRequest {
    ApiVersionsRequest { client_software_name: "t".into(), client_software_version: "1".into(), ..Default::default() }
}

#[test]
fn the_quorums_own_feature_is_told_with_the_others_and_survives_a_start() {
    let mut bench = Bench::new(&[]);
    for _ in 0..2 {
        let response = answer!(bench, 4, ApiVersions, software());
        let finalized = response.finalized_features.iter().find(|feature| feature.name == "kraft.version");
        assert_eq!(finalized.map(|feature| feature.max_version_level), Some(1));
        let supported = response.supported_features.iter().find(|feature| feature.name == "kraft.version");
        assert_eq!(supported.map(|feature| (feature.min_version, feature.max_version)), Some((0, 1)));
        let response = answer!(bench, 3, ApiVersions, software());
        assert!(!response.supported_features.iter().any(|feature| feature.name == "kraft.version"));
        bench.start();
    }
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_with_its_own_versions_alone() {
    let mut bench = Bench::new(&[]);
    let header = RequestHeader { api_key: ApiKey::ApiVersions, api_version: 5, correlation_id: 77, client_id: None };
    let body = RequestBody::UnsupportedApiVersions;
    bench.request(0, Request { conn: CONN, header, body, batches: Vec::new() });
    match bench.answer(77) {
        Some(ResponseBody::ApiVersions(response)) => {
            let told = response.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version));
            assert_eq!(response.error_code, code(ErrorCode::UnsupportedVersion));
            assert_eq!(told.collect::<Vec<_>>(), [(18, 0, 4)]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn elections_and_reassignments_of_one_broker_have_nothing_to_do() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 2, &[]);
    let response = answer!(bench, 2, ElectLeaders, ElectLeadersRequest::default());
    assert_eq!(response.error_code, 0);
    assert!(response.replica_election_results.iter().all(|topic| topic.partition_result.is_empty()));
    let list = ListPartitionReassignmentsRequest { topics: None, ..Default::default() };
    assert_eq!(answer!(bench, 0, ListPartitionReassignments, list).topics, []);
}

/// The level of `kraft.version` that ApiVersions tells; 0: it is not told.
fn kraft_version(bench: &mut Bench) -> i16 {
    let response = answer!(bench, 3, ApiVersions, software());
    let finalized = response.finalized_features.iter().find(|feature| feature.name == "kraft.version");
    finalized.map_or(0, |feature| feature.max_version_level)
}

#[test]
fn a_voter_that_is_configured_becomes_one_that_is_recorded() {
    let mut bench =
        Bench::new(&[("listeners", "PLAINTEXT://h:1,CONTROLLER://h:2"), ("controller.quorum.voters", "1@h:2")]);
    assert_eq!(kraft_version(&mut bench), 0);
    let update = |level, validate_only| {
        let update = FeatureUpdateKey {
            feature: "kraft.version".into(),
            max_version_level: level,
            upgrade_type: 1,
            ..Default::default()
        };
        UpdateFeaturesRequest { feature_updates: vec![update], validate_only, ..Default::default() }
    };
    for (level, validate_only, after) in [(1, true, 0), (1, false, 1), (1, false, 1)] {
        let response = answer!(bench, 2, UpdateFeatures, update(level, validate_only));
        assert_eq!((response.error_code, kraft_version(&mut bench)), (0, after), "{response:?}");
    }
    bench.start();
    assert_eq!(kraft_version(&mut bench), 1);
    let response = answer!(bench, 2, UpdateFeatures, update(0, false));
    assert_eq!(response.error_code, code(ErrorCode::InvalidUpdateVersion));
}

#[test]
fn a_feature_that_was_changed_stays_so_over_a_start() {
    let mut bench = Bench::new(&[]);
    let update = FeatureUpdateKey {
        feature: "eligible.leader.replicas.version".into(),
        max_version_level: 0,
        upgrade_type: 2,
        ..Default::default()
    };
    let request = UpdateFeaturesRequest { feature_updates: vec![update], ..Default::default() };
    assert_eq!(answer!(bench, 2, UpdateFeatures, request).error_code, 0);
    bench.start();
    let response = answer!(bench, 0, ApiVersions, ApiVersionsRequest::default());
    assert!(!response.api_keys.is_empty());
    assert_eq!(bench.broker.parts().image.feature("eligible.leader.replicas.version"), 0);
}

#[test]
fn resources_with_configs_are_listed_by_kind() {
    let mut bench = Bench::new(&[]);
    bench.create("b", 1, &[]);
    bench.create("a", 1, &[]);
    let list = |bench: &mut Bench, version: i16, kinds: &[i8]| {
        let request = ListConfigResourcesRequest { resource_types: kinds.to_vec(), ..Default::default() };
        match bench.ask(version, RequestBody::ListConfigResources(request)) {
            ResponseBody::ListConfigResources(response) => {
                let listed = response.config_resources.iter();
                let listed = listed.map(|resource| (resource.resource_type, resource.resource_name.to_string()));
                (response.error_code, listed.collect::<Vec<_>>())
            }
            other => panic!("{other:?}"),
        }
    };
    let named = |kind: i8, name: &str| (kind, name.to_owned());
    assert_eq!(list(&mut bench, 1, &[2]), (0, vec![named(2, "a"), named(2, "b")]));
    assert_eq!(list(&mut bench, 1, &[]), (0, vec![named(8, "1"), named(4, "1"), named(2, "a"), named(2, "b")]));
    assert_eq!(list(&mut bench, 1, &[16, 32]), (0, vec![]));
    assert_eq!(list(&mut bench, 1, &[4, 99]), (code(ErrorCode::UnsupportedVersion), vec![]));
    assert_eq!(list(&mut bench, 0, &[]), (0, vec![]));
}

/// Puts a record into the metadata as if another broker had written it.
fn found(bench: &mut Bench, record: MetadataRecord) {
    bench.broker.parts().image.apply(&record).expect("it fits");
}

#[test]
fn quotas_that_the_metadata_holds_are_found_by_whom_they_are_for() {
    let mut bench = Bench::new(&[]);
    let quota = |entity: &[(&str, Option<&str>)], key: &str, value: f64| {
        let entity = entity.iter().map(|(kind, name)| client_quota_record::EntityData {
            entity_type: (*kind).into(),
            entity_name: name.map(Into::into),
            ..Default::default()
        });
        ClientQuotaRecord { entity: entity.collect(), key: key.into(), value, ..Default::default() }.into()
    };
    found(&mut bench, quota(&[("user", Some("ann"))], "producer_byte_rate", 1000.0));
    found(&mut bench, quota(&[("user", Some("ann"))], "consumer_byte_rate", 2000.0));
    found(&mut bench, quota(&[("user", None)], "producer_byte_rate", 5.0));
    found(&mut bench, quota(&[("user", Some("ann")), ("client-id", Some("c"))], "request_percentage", 50.0));
    let ask = |bench: &mut Bench, components: &[(&str, i8, Option<&str>)], strict: bool| {
        let components = components.iter().map(|(kind, match_type, name)| ComponentData {
            entity_type: (*kind).into(),
            match_type: *match_type,
            r#match: name.map(Into::into),
            ..Default::default()
        });
        let request = DescribeClientQuotasRequest { components: components.collect(), strict, ..Default::default() };
        match bench.ask(1, RequestBody::DescribeClientQuotas(request)) {
            ResponseBody::DescribeClientQuotas(response) => response,
            other => panic!("{other:?}"),
        }
    };
    let values = |bench: &mut Bench, components: &[(&str, i8, Option<&str>)], strict| {
        let entries = ask(bench, components, strict).entries.expect("no error");
        let values = entries.into_iter().flat_map(|entry| entry.values).map(|value| value.value as i64);
        values.collect::<Vec<_>>()
    };
    assert_eq!(values(&mut bench, &[], false), [50, 5, 2000, 1000]);
    assert_eq!(values(&mut bench, &[("user", 0, Some("ann"))], true), [2000, 1000]);
    assert_eq!(values(&mut bench, &[("user", 0, Some("ann"))], false), [50, 2000, 1000]);
    assert_eq!(values(&mut bench, &[("user", 1, None)], true), [5]);
    assert_eq!(values(&mut bench, &[("client-id", 2, None)], false), [50]);
    assert!(values(&mut bench, &[("client-id", 2, None)], true).is_empty());

    for (components, error, text) in [
        (&[("", 2, None)][..], ErrorCode::InvalidRequest, "Invalid empty entity type."),
        (&[("ip", 2, None), ("ip", 1, None)], ErrorCode::InvalidRequest, "Entity type ip cannot appear more than once"),
        (&[("shoe", 2, None)], ErrorCode::UnsupportedVersion, "Unsupported entity type shoe"),
        (&[("user", 0, None)], ErrorCode::InvalidRequest, "MATCH_TYPE_EXACT, but set match string to null"),
        (&[("user", 1, Some("x"))], ErrorCode::InvalidRequest, "MATCH_TYPE_DEFAULT, but also specified"),
        (&[("user", 2, Some("x"))], ErrorCode::InvalidRequest, "MATCH_TYPE_SPECIFIED, but also specified"),
        (&[("user", 9, None)], ErrorCode::InvalidRequest, "Unknown match type 9"),
        (&[("ip", 2, None), ("user", 2, None)], ErrorCode::InvalidRequest, "IP filter component should not be used"),
    ] {
        let response = ask(&mut bench, components, false);
        assert_eq!((response.error_code, response.entries), (error.code(), None), "{components:?}");
        assert!(response.error_message.expect("a reason").contains(text), "{components:?}");
    }
}

#[test]
fn credentials_are_named_and_not_shown() {
    let mut bench = Bench::new(&[]);
    let credential = |name: &str, mechanism: i8| {
        let name = name.into();
        UserScramCredentialRecord { name, mechanism, iterations: 4096, ..Default::default() }.into()
    };
    for (name, mechanism) in [("ann", 1), ("ann", 2), ("bob", 1)] {
        found(&mut bench, credential(name, mechanism));
    }
    let ask = |bench: &mut Bench, users: Option<&[&str]>| {
        let users = users
            .map(|users| users.iter().map(|name| UserName { name: (*name).into(), ..Default::default() }).collect());
        let request = DescribeUserScramCredentialsRequest { users, ..Default::default() };
        let response = answer!(bench, 0, DescribeUserScramCredentials, request);
        assert_eq!(response.error_code, 0);
        let results = response.results.into_iter();
        results
            .map(|result| (result.user.to_string(), result.error_code, result.credential_infos.len()))
            .collect::<Vec<_>>()
    };
    let is = |name: &str, error: ErrorCode, credentials| (name.to_owned(), error.code(), credentials);
    assert_eq!(ask(&mut bench, None), [is("ann", ErrorCode::None, 2), is("bob", ErrorCode::None, 1)]);
    assert_eq!(ask(&mut bench, Some(&[])).len(), 2);
    assert_eq!(
        ask(&mut bench, Some(&["bob", "eve", "ann", "ann"])),
        [
            is("ann", ErrorCode::DuplicateResource, 0),
            is("bob", ErrorCode::None, 1),
            is("eve", ErrorCode::ResourceNotFound, 0)
        ]
    );
}

/// Sets or clears a config of this broker (`1`) or of all brokers (empty). Gives the text of an error.
fn alter_broker(bench: &mut Bench, broker: &str, name: &str, value: Option<&str>) -> Result<(), String> {
    let config = AlterableConfig {
        name: name.into(),
        config_operation: i8::from(value.is_none()),
        value: value.map(Into::into),
        ..Default::default()
    };
    let resource = AlterConfigsResource {
        resource_type: 4,
        resource_name: broker.into(),
        configs: vec![config],
        ..Default::default()
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    let response = answer!(bench, 1, IncrementalAlterConfigs, request).responses.remove(0);
    match response.error_code {
        0 => Ok(()),
        _ => Err(response.error_message.expect("a reason").to_string()),
    }
}

#[test]
fn the_world_hears_of_connection_limits_when_they_change_and_after_a_start() {
    let mut bench = Bench::new(&[("max.connections", "9")]);
    assert!(bench.limits.is_empty(), "it knows the file itself");
    alter_broker(&mut bench, "", "max.connections", Some("5")).unwrap();
    alter_broker(&mut bench, "1", "max.connections.per.ip.overrides", Some("10.0.0.1:2")).unwrap();
    alter_broker(&mut bench, "", "max.connections", Some("5")).unwrap();
    alter_broker(&mut bench, "", "log.retention.ms", Some("77")).unwrap();
    let of_host = vec![("10.0.0.1".to_owned(), 2)];
    let limits = |max, per_ip_overrides: &[(String, i32)]| ConnectionLimits {
        max,
        max_per_ip: i32::MAX,
        per_ip_overrides: per_ip_overrides.to_vec(),
    };
    assert_eq!(bench.limits, [limits(5, &[]), limits(5, &of_host)], "only what is new");
    bench.limits.clear();
    bench.start();
    assert_eq!(bench.limits, [limits(5, &of_host)]);
    alter_broker(&mut bench, "", "max.connections", None).unwrap();
    assert_eq!(bench.limits.last(), Some(&limits(9, &of_host)));
}

#[test]
fn what_a_running_broker_cannot_change_is_refused_and_changes_nothing() {
    let mut bench = Bench::new(&[]);
    for (name, value, text) in [
        ("num.partitions", "3", "Cannot update these configs dynamically: [num.partitions]"),
        ("max.connections", "-1", "Invalid value -1 for configuration max.connections: Value must be at least 0"),
        ("max.connections.per.ip.overrides", "x", "'x' is not host:count"),
        ("num.network.threads", "100", "Value must be no more than double the current value 3"),
    ] {
        let refusal = alter_broker(&mut bench, "1", name, Some(value)).unwrap_err();
        assert!(refusal.contains(text), "{name}: {refusal}");
    }
    assert!(bench.limits.is_empty());
}

#[test]
fn a_config_that_is_taken_and_has_no_effect_is_a_warning_in_the_log() {
    let mut bench = Bench::new(&[]);
    alter_broker(&mut bench, "", "log.retention.msec", Some("3")).unwrap();
    alter_broker(&mut bench, "1", "log.cleaner.threads", Some("2")).unwrap();
    alter_broker(&mut bench, "1", "log.cleaner.threads", None).unwrap();
    alter_broker(&mut bench, "", "log.retention.ms", Some("3")).unwrap();
    let config =
        CreatableTopicConfig { name: "cleanup.policy".into(), value: Some("compact".into()), ..Default::default() };
    let topic = CreatableTopic {
        name: "t".into(),
        num_partitions: 1,
        replication_factor: 1,
        configs: vec![config],
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 1_000, ..Default::default() };
    for validate_only in [true, false] {
        let request = CreateTopicsRequest { validate_only, ..request.clone() };
        assert_eq!(answer!(bench, 7, CreateTopics, request).topics[0].error_code, 0);
    }
    insta::assert_snapshot!(bench.warnings.join("\n"), @"
    all brokers: log.retention.msec is not a known config and has no effect; did you mean log.retention.ms?
    broker 1: log.cleaner.threads has no effect: compacted topics keep all their records: there is no log cleaner yet
    topic t: compact in cleanup.policy removes nothing: compacted topics keep all their records: there is no log cleaner yet
    ");
}

#[test]
fn an_empty_list_of_names_asks_for_all_configs() {
    use crate::wire::messages::DescribeConfigsRequest;
    use crate::wire::messages::describe_configs_request::DescribeConfigsResource;
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    let mut count = |kind: i8, name: &str, keys: Option<&[&str]>| {
        let resource = DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.into(),
            configuration_keys: keys.map(|keys| keys.iter().map(|key| (*key).into()).collect()),
            ..Default::default()
        };
        let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
        answer!(bench, 4, DescribeConfigs, request).results[0].configs.len()
    };
    for (kind, name) in [(2, "t"), (4, "1")] {
        let all = count(kind, name, None);
        assert!(all > 30, "{all}");
        assert_eq!(count(kind, name, Some(&[])), all);
    }
    assert_eq!(count(2, "t", Some(&["retention.ms", "unheard.of"])), 1);
}

#[test]
fn a_resource_of_an_unknown_type_refuses_the_whole_request() {
    use crate::wire::messages::DescribeConfigsRequest;
    use crate::wire::messages::describe_configs_request::DescribeConfigsResource;
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    let resource = |(resource_type, name): (i8, &str)| DescribeConfigsResource {
        resource_type,
        resource_name: name.into(),
        configuration_keys: None,
        ..Default::default()
    };
    let resources = [(2, "t"), (3, "x"), (4, "1")].map(resource).to_vec();
    let request = DescribeConfigsRequest { resources, ..Default::default() };
    let results = answer!(bench, 4, DescribeConfigs, request).results;
    let told: Vec<_> =
        results.iter().map(|of| (of.resource_type, &*of.resource_name, of.error_code, of.configs.len())).collect();
    let invalid = code(ErrorCode::InvalidRequest);
    assert_eq!(told, [(2, "t", invalid, 0), (3, "x", invalid, 0), (4, "1", invalid, 0)]);
}

#[test]
fn a_feature_is_told_of_once_its_requests_are_served_and_its_level_of_a_kafka_broker_stays() {
    let mut bench = Bench::new(&[]);
    let level = crate::wire::messages::FeatureLevelRecord {
        name: "transaction.version".into(),
        feature_level: 2,
        ..Default::default()
    };
    found(&mut bench, level.into());
    let response = answer!(bench, 4, ApiVersions, software());
    let served = ["metadata.version", "eligible.leader.replicas.version", "kraft.version"];
    assert_eq!(response.supported_features.iter().map(|feature| &*feature.name).collect::<Vec<_>>(), served);
    assert!(response.finalized_features.iter().all(|feature| served.contains(&&*feature.name)));
    assert_eq!(bench.broker.parts().image.feature("transaction.version"), 2);
}
