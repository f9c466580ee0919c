//! Configs of brokers and topics: what is recorded of a change, and what is answered.

use super::*;
use tidelog_wire::messages::{ClearElrRecord, PartitionChangeRecord};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const APPEND: i8 = 2;

fn resource(kind: i8, name: &str, configs: &[(&str, &str)]) -> AlterConfigsResource {
    let configs = configs.iter().map(|(name, value)| AlterableConfig {
        name: (*name).into(),
        config_operation: SET,
        value: Some((*value).into()),
        ..Default::default()
    });
    AlterConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configs: configs.collect(),
        ..Default::default()
    }
}

/// The answers to a request, and the records of it.
fn alter(cluster: &mut Cluster, resources: Vec<AlterConfigsResource>) -> (Vec<String>, Vec<MetadataRecord>) {
    let known = cluster.committed.len();
    let request = IncrementalAlterConfigsRequest { resources, ..Default::default() };
    let response = cluster.decide(|image, context, _| incremental_alter_configs(image, context, &request));
    let told = response.responses.into_iter().map(|one| {
        let error = ErrorCode::from_code(one.error_code).unwrap().name();
        let message = one.error_message.as_deref().unwrap_or("-").to_owned();
        format!("{} {:?}: {error} {message}", one.resource_type, &*one.resource_name)
    });
    (told.collect(), cluster.committed[known..].iter().map(|(record, _)| record.clone()).collect())
}

/// The same by the older request.
fn replace(cluster: &mut Cluster, kind: i8, name: &str, configs: &[(&str, &str)]) -> (String, Vec<MetadataRecord>) {
    let known = cluster.committed.len();
    let configs = configs.iter().map(|(name, value)| alter_configs_request::AlterableConfig {
        name: (*name).into(),
        value: Some((*value).into()),
        ..Default::default()
    });
    let resource = alter_configs_request::AlterConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configs: configs.collect(),
        ..Default::default()
    };
    let request = AlterConfigsRequest { resources: vec![resource], ..Default::default() };
    let response = cluster.decide(|image, context, _| alter_configs(image, context, &request));
    let one = &response.responses[0];
    let error = ErrorCode::from_code(one.error_code).unwrap().name();
    let told = format!(
        "{} {:?}: {error} {}",
        one.resource_type,
        &*one.resource_name,
        one.error_message.as_deref().unwrap_or("-")
    );
    (told, cluster.committed[known..].iter().map(|(record, _)| record.clone()).collect())
}

#[test]
fn an_answer_names_its_resource_and_a_resource_that_is_named_twice_is_refused() {
    let mut cluster = Cluster::new();
    cluster.create(&creating(vec![topic("a", 1, 1), topic("b", 1, 1)]));
    let set = |name: &str| resource(TOPIC, name, &[("retention.ms", "5")]);
    let (told, records) = alter(&mut cluster, vec![set("a"), set("b"), set("a")]);
    assert_eq!(
        told,
        [
            r#"2 "a": INVALID_REQUEST Each resource must appear at most once."#,
            r#"2 "b": NONE -"#,
            r#"2 "a": INVALID_REQUEST Each resource must appear at most once."#,
        ]
    );
    assert_eq!(records, [ConfigResource::topic("b").record("retention.ms", Some("5"))]);
    assert_eq!(replace(&mut cluster, TOPIC, "b", &[]).0, r#"2 "b": NONE -"#);
    assert_eq!(
        replace(&mut cluster, TOPIC, "b", &[("nonsense", "1")]).0,
        r#"2 "b": INVALID_CONFIG Unknown topic config name: nonsense"#
    );
}

#[test]
fn a_request_may_change_ten_thousand_configs() {
    let mut cluster = Cluster::new();
    // Names that a broker does not know are plugins' own.
    let names: Vec<String> = (0..10_000).map(|number| format!("own.{number}")).collect();
    let full: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "x")).collect();
    let one_more = resource(BROKER, "1", &[("own", "x")]);
    let (told, records) = alter(&mut cluster, vec![resource(BROKER, "", &full), one_more]);
    assert_eq!(
        told,
        [r#"4 "": NONE -"#, r#"4 "1": POLICY_VIOLATION Unable to perform excessively large batch operation."#]
    );
    assert_eq!(records.len(), 10_000);
}

/// KAFKA-16540
#[test]
fn a_change_of_the_least_number_of_replicas_clears_the_eligible_leaders() {
    let mut cluster = Cluster::new();
    cluster.create(&creating(vec![topic("a", 1, 1)]));
    let cleared = |name: &str| ClearElrRecord { topic_name: name.into(), ..Default::default() }.into();
    let (name, of_topic, of_all) = ("min.insync.replicas", ConfigResource::topic("a"), ConfigResource::all_brokers());
    let (_, records) = alter(&mut cluster, vec![resource(TOPIC, "a", &[("retention.ms", "7"), (name, "2")])]);
    assert_eq!(records, [of_topic.record("retention.ms", Some("7")), of_topic.record(name, Some("2")), cleared("a")]);
    let (_, records) = alter(&mut cluster, vec![resource(BROKER, "", &[(name, "2")])]);
    assert_eq!(records, [of_all.record(name, Some("2")), cleared("")], "of all topics");
    let without = tidelog_wire::messages::FeatureLevelRecord {
        name: "eligible.leader.replicas.version".into(),
        feature_level: 0,
        ..Default::default()
    };
    cluster.commit(&[without.into()]);
    let (_, records) = alter(&mut cluster, vec![resource(TOPIC, "a", &[(name, "3")])]);
    assert_eq!(records, [of_topic.record(name, Some("3"))]);
}

#[test]
fn who_may_lead_a_partition_without_a_replica_in_sync_stays_known_when_eligible_leaders_are_cleared() {
    let mut cluster = Cluster::new();
    cluster.create(&creating(vec![topic("a", 2, 1)]));
    let topic_id = cluster.image.topic_named("a").unwrap().id;
    let change = |partition_id, isr: Option<&[i32]>, leader, eligible: Option<&[i32]>, known: Option<&[i32]>| {
        MetadataRecord::from(PartitionChangeRecord {
            topic_id,
            partition_id,
            isr: isr.map(Into::into),
            leader,
            eligible_leader_replicas: eligible.map(Into::into),
            last_known_elr: known.map(Into::into),
            ..Default::default()
        })
    };
    cluster.commit(&[change(0, Some(&[]), -1, Some(&[1]), Some(&[1])), change(1, None, -2, None, Some(&[1]))]);
    let changed = resource(TOPIC, "a", &[("min.insync.replicas", "2")]);
    let (_, records) = alter(&mut cluster, vec![changed]);
    assert_eq!(records[2..], [change(0, None, -2, Some(&[1]), Some(&[1]))]);
    let partition = |index| cluster.partition("a", index);
    assert_eq!(
        (&*partition(0).eligible_leaders, &*partition(0).last_known_eligible_leaders),
        (&[NodeId(1)][..], &[NodeId(1)][..])
    );
    assert!(partition(1).last_known_eligible_leaders.is_empty());
}

/// KAFKA-14136
#[test]
fn a_value_that_is_set_again_is_recorded_for_brokers_alone() {
    let mut cluster = Cluster::new();
    cluster.create(&creating(vec![topic_with("a", &[("retention.ms", Some("5"))])]));
    alter(&mut cluster, vec![resource(BROKER, "", &[("log.retention.ms", "5")])]);
    let of_all = [ConfigResource::all_brokers().record("log.retention.ms", Some("5"))];
    assert_eq!(alter(&mut cluster, vec![resource(TOPIC, "a", &[("retention.ms", "5")])]).1, []);
    assert_eq!(alter(&mut cluster, vec![resource(BROKER, "", &[("log.retention.ms", "5")])]).1, of_all);
    assert_eq!(replace(&mut cluster, TOPIC, "a", &[("retention.ms", "5")]).1, []);
    let name = "min.insync.replicas";
    let (told, records) = replace(&mut cluster, BROKER, "", &[("log.retention.ms", "5"), (name, "1")]);
    assert_eq!(told, r#"4 "": NONE -"#);
    assert_eq!(records[0], of_all[0]);
}

#[test]
fn what_all_brokers_ignore_of_their_metadata_holds_back_no_change() {
    let mut cluster = Cluster::new();
    cluster.commit(&[ConfigResource::all_brokers().record("cordoned.log.dirs", Some("/x"))]);
    assert_eq!(cluster.alter(BROKER, "", &[("log.retention.ms", SET, Some("5"))]), (ErrorCode::None, None));
}

#[test]
fn a_value_has_at_most_32767_characters() {
    let mut cluster = Cluster::new();
    let mut set = |length| cluster.alter(BROKER, "", &[("own", SET, Some(&"x".repeat(length)))]).0;
    assert_eq!((set(32_767), set(32_768)), (ErrorCode::None, ErrorCode::InvalidConfig));
}

#[test]
fn a_change_of_one_broker_is_checked_with_all_that_it_would_then_have() {
    let mut cluster = Cluster::new();
    let (error, message) = cluster.alter(BROKER, "1", &[("max.connections.per.ip", SET, Some("0"))]);
    assert_eq!(
        (error, message.as_deref()),
        (
            ErrorCode::InvalidRequest,
            Some("max.connections.per.ip=0: allowed is 0 only where max.connections.per.ip.overrides is set")
        )
    );
}

#[test]
fn lists_of_brokers_are_edited_as_those_of_topics() {
    let mut cluster = Cluster::new();
    let appended = cluster.alter(BROKER, "", &[("log.cleanup.policy", APPEND, Some("compact"))]);
    assert_eq!(appended, (ErrorCode::None, None));
    assert_eq!(cluster.image.config(&ConfigResource::all_brokers())["log.cleanup.policy"], "delete,compact");
}
