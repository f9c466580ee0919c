//! Configs of what is neither a topic nor a broker: the loggers of a broker, and subscriptions to clients' metrics.

use super::*;
use crate::wire::messages::alter_configs_request::{
    AlterConfigsResource as ReplacedResource, AlterableConfig as ReplacedConfig,
};
use crate::wire::messages::describe_configs_request::DescribeConfigsResource;
use crate::wire::messages::describe_configs_response::DescribeConfigsResult;
use crate::wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use crate::wire::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest, ListConfigResourcesRequest,
};

const TOPIC: i8 = 2;
const LOGGERS: i8 = 8;
const METRICS: i8 = 16;
const GROUP: i8 = 32;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;

/// A resource with changes: the operation, the key and the value of each.
fn changes(kind: i8, name: &str, changes: &[(i8, &str, Option<&str>)]) -> AlterConfigsResource {
    let change = |&(config_operation, name, value): &(i8, &str, Option<&str>)| AlterableConfig {
        name: name.into(),
        config_operation,
        value: value.map(Into::into),
        ..Default::default()
    };
    let configs = changes.iter().map(change).collect();
    AlterConfigsResource { resource_type: kind, resource_name: name.into(), configs, ..Default::default() }
}

/// What each resource is answered: the error's name and the message.
fn alter_all(bench: &mut Bench, resources: Vec<AlterConfigsResource>, validate_only: bool) -> Vec<String> {
    let asked: Vec<_> = resources.iter().map(|it| (it.resource_type, it.resource_name.clone())).collect();
    let request = IncrementalAlterConfigsRequest { resources, validate_only, ..Default::default() };
    let ResponseBody::IncrementalAlterConfigs(response) = bench.ask(1, RequestBody::IncrementalAlterConfigs(request))
    else {
        panic!("another answer")
    };
    let told: Vec<_> = response.responses.iter().map(|it| (it.resource_type, it.resource_name.clone())).collect();
    assert_eq!(told, asked, "every resource is answered, in its place");
    response.responses.iter().map(|it| shown(it.error_code, it.error_message.as_deref())).collect()
}

fn alter(bench: &mut Bench, kind: i8, name: &str, made: &[(i8, &str, Option<&str>)]) -> String {
    alter_all(bench, vec![changes(kind, name, made)], false).remove(0)
}

fn replace(bench: &mut Bench, kind: i8, name: &str, configs: &[(&str, Option<&str>)]) -> String {
    let configs = configs
        .iter()
        .map(|&(name, value)| ReplacedConfig { name: name.into(), value: value.map(Into::into), ..Default::default() })
        .collect();
    let resource = ReplacedResource { resource_type: kind, resource_name: name.into(), configs, ..Default::default() };
    let request = AlterConfigsRequest { resources: vec![resource], ..Default::default() };
    let ResponseBody::AlterConfigs(response) = bench.ask(2, RequestBody::AlterConfigs(request)) else {
        panic!("another answer")
    };
    shown(response.responses[0].error_code, response.responses[0].error_message.as_deref())
}

fn shown(code: i16, message: Option<&str>) -> String {
    let error = ErrorCode::from_code(code).unwrap();
    if error == ErrorCode::None && message.is_none() {
        return "done".to_owned();
    }
    format!("{} {}", error.name(), message.unwrap_or("-"))
}

fn describe_all(bench: &mut Bench, resources: &[(i8, &str)], keys: Option<&[&str]>) -> Vec<DescribeConfigsResult> {
    let resources = resources.iter().map(|&(resource_type, name)| DescribeConfigsResource {
        resource_type,
        resource_name: name.into(),
        configuration_keys: keys.map(|keys| keys.iter().map(|key| (*key).into()).collect()),
        ..Default::default()
    });
    let resources = resources.collect();
    let request = DescribeConfigsRequest { resources, include_synonyms: true, ..Default::default() };
    match bench.ask(4, RequestBody::DescribeConfigs(request)) {
        ResponseBody::DescribeConfigs(response) => response.results,
        other => panic!("{other:?}"),
    }
}

/// The configs of a resource as lines, or the error.
fn describe(bench: &mut Bench, kind: i8, name: &str) -> String {
    let result = describe_all(bench, &[(kind, name)], None).remove(0);
    if result.error_code != 0 {
        return shown(result.error_code, result.error_message.as_deref());
    }
    let line = |config: &crate::wire::messages::describe_configs_response::DescribeConfigsResourceResult| {
        assert!(!config.is_sensitive && !config.read_only, "{config:?}");
        let synonyms = config.synonyms.iter();
        let synonyms = synonyms.map(|it| format!("{}={} of {}", it.name, it.value.as_deref().unwrap(), it.source));
        let synonyms: Vec<String> = synonyms.collect();
        let value = config.value.as_deref().unwrap();
        format!("{}={value} type {} source {} {synonyms:?}", config.name, config.config_type, config.config_source)
    };
    result.configs.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn level(bench: &mut Bench, logger: &str) -> String {
    let result = describe_all(bench, &[(LOGGERS, "1")], Some(&[logger])).remove(0);
    result.configs[0].value.as_deref().unwrap().to_owned()
}

#[test]
fn the_loggers_of_a_broker_are_shown_with_their_levels() {
    let mut bench = Bench::new(&[]);
    insta::assert_snapshot!(describe(&mut bench, LOGGERS, "1"), @"
    root=INFO type 0 source 6 []
    tidelog=INFO type 0 source 6 []
    tidelog.broker=INFO type 0 source 6 []
    tidelog.configs=INFO type 0 source 6 []
    tidelog.peers=INFO type 0 source 6 []
    tidelog.quorum=INFO type 0 source 6 []
    tidelog.replication=INFO type 0 source 6 []
    tidelog.storage=INFO type 0 source 6 []
    ");
    insta::assert_snapshot!(describe(&mut bench, LOGGERS, ""), @"INVALID_REQUEST Broker id must not be empty");
    insta::assert_snapshot!(describe(&mut bench, LOGGERS, "2"), @"INVALID_REQUEST Unexpected broker id, expected 1 but received 2");
    insta::assert_snapshot!(describe(&mut bench, LOGGERS, "one"), @"INVALID_REQUEST Broker id must be an integer, but it is: one");
}

#[test]
fn configs_of_another_broker_are_refused_by_the_broker_that_is_asked() {
    const BROKER: i8 = 4;
    let mut bench = Bench::new(&[]);
    let unexpected = "INVALID_REQUEST Unexpected broker id, expected 1, but received 2";
    assert_eq!(alter(&mut bench, BROKER, "2", &[(SET, "log.retention.ms", Some("7"))]), unexpected);
    assert_eq!(replace(&mut bench, BROKER, "2", &[("log.retention.ms", Some("7"))]), unexpected);
    assert_eq!(alter(&mut bench, BROKER, "1", &[(SET, "log.retention.ms", Some("7"))]), "done");
}

#[test]
fn a_level_is_changed_told_to_the_world_and_gone_after_a_start() {
    let mut bench = Bench::new(&[]);
    assert_eq!(alter(&mut bench, LOGGERS, "1", &[(SET, "tidelog", Some("WARN"))]), "done");
    assert_eq!(level(&mut bench, "tidelog.storage"), "WARN");
    let made = [(SET, "tidelog.storage", Some("TRACE")), (SET, "root", Some("FATAL")), (DELETE, "tidelog", None)];
    assert_eq!(alter(&mut bench, LOGGERS, "1", &made), "done");
    let levels = ["root", "tidelog", "tidelog.quorum", "tidelog.storage"].map(|name| level(&mut bench, name));
    assert_eq!(levels, ["FATAL", "FATAL", "FATAL", "TRACE"]);
    let own: Vec<_> = bench.log_levels.last().unwrap().own_levels().collect();
    assert_eq!(own, [("root", LogLevel::Fatal), ("tidelog.storage", LogLevel::Trace)]);
    insta::assert_snapshot!(bench.warnings.join("\n"), @"
    the logger tidelog now has the level WARN
    the logger tidelog.storage now has the level TRACE
    the logger root now has the level FATAL
    the logger tidelog has no level of its own any more
    ");
    // What changes nothing is not told again.
    assert_eq!(alter(&mut bench, LOGGERS, "1", &[(SET, "root", Some("FATAL"))]), "done");
    assert_eq!((bench.log_levels.len(), bench.warnings.len()), (2, 4));
    let asked = vec![changes(LOGGERS, "1", &[(SET, "root", Some("ERROR"))])];
    assert_eq!(alter_all(&mut bench, asked, true), ["done"]);
    assert_eq!((&*level(&mut bench, "root"), bench.log_levels.len()), ("FATAL", 2), "it was only asked");
    bench.start();
    assert_eq!((&*level(&mut bench, "root"), bench.log_levels.len()), ("INFO", 2));
}

#[test]
fn a_level_that_cannot_be_changed_is_refused_as_by_kafka() {
    let mut bench = Bench::new(&[]);
    let refused = [
        ("1", vec![(SET, "nosuch", Some("INFO"))]),
        ("1", vec![(SET, "tidelog", Some("info"))]),
        ("1", vec![(SET, "tidelog", Some("OFF"))]),
        ("1", vec![(DELETE, "nosuch", None)]),
        ("1", vec![(SET, "tidelog", Some("DEBUG")), (DELETE, "root", None)]),
        ("1", vec![(APPEND, "tidelog", Some("INFO"))]),
        ("1", vec![(3, "tidelog", Some("INFO"))]),
        ("1", vec![(9, "tidelog", Some("INFO"))]),
        ("1", vec![(SET, "tidelog", None), (SET, "root", None)]),
        ("1", vec![(SET, "root", Some("INFO")), (DELETE, "root", None)]),
        ("2", vec![(SET, "root", Some("INFO"))]),
        ("", vec![(SET, "root", Some("INFO"))]),
    ]
    .map(|(name, made)| alter(&mut bench, LOGGERS, name, &made));
    insta::assert_snapshot!(refused.join("\n"), @"
    INVALID_CONFIG Logger nosuch does not exist!
    INVALID_CONFIG Cannot set the log level of tidelog to info as it is not a supported log level. Valid log levels are DEBUG, ERROR, FATAL, INFO, TRACE, WARN
    INVALID_CONFIG Cannot set the log level of tidelog to OFF as it is not a supported log level. Valid log levels are DEBUG, ERROR, FATAL, INFO, TRACE, WARN
    INVALID_CONFIG Logger nosuch does not exist!
    INVALID_REQUEST Removing the log level of the root logger is not allowed
    INVALID_REQUEST APPEND operation is not allowed for the BROKER_LOGGER resource
    INVALID_REQUEST SUBTRACT operation is not allowed for the BROKER_LOGGER resource
    INVALID_REQUEST Unknown operation type 9 is not allowed for the BROKER_LOGGER resource
    INVALID_REQUEST Null value not supported for : tidelog, root
    INVALID_REQUEST Error due to duplicate config keys
    INVALID_REQUEST Unexpected node id. Expected 1, but received 2
    INVALID_REQUEST Node id must be an integer, but it is:
    ");
    assert_eq!(replace(&mut bench, LOGGERS, "1", &[("root", Some("INFO"))]), "INVALID_REQUEST Unknown resource type 8");
    assert!(bench.log_levels.is_empty() && level(&mut bench, "tidelog") == "INFO");
}

#[test]
fn loggers_and_what_the_controller_keeps_are_changed_by_one_request() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    let resources = || {
        vec![
            changes(LOGGERS, "1", &[(SET, "root", Some("DEBUG"))]),
            changes(TOPIC, "t", &[(SET, "retention.ms", Some("5"))]),
            changes(LOGGERS, "2", &[]),
            changes(TOPIC, "u", &[]),
            changes(METRICS, "s", &[(SET, "metrics", Some("*"))]),
        ]
    };
    insta::assert_snapshot!(alter_all(&mut bench, resources(), false).join("\n"), @"
    done
    done
    INVALID_REQUEST Unexpected node id. Expected 1, but received 2
    UNKNOWN_TOPIC_OR_PARTITION The topic 'u' does not exist.
    done
    ");
    assert_eq!(level(&mut bench, "root"), "DEBUG");
    let twice = [resources(), resources()].concat();
    let once = "INVALID_REQUEST Each resource must appear at most once.";
    assert!(alter_all(&mut bench, twice, false).iter().all(|answer| answer == once));
}

#[test]
fn a_program_that_keeps_its_log_to_itself_has_no_loggers() {
    let mut bench = Bench::new(&[]);
    bench.config.loggers = Loggers::default();
    bench.start();
    assert_eq!(describe(&mut bench, LOGGERS, "1"), "");
    let refusal = alter(&mut bench, LOGGERS, "1", &[(SET, "root", Some("INFO"))]);
    assert_eq!(refusal, "INVALID_CONFIG Logger root does not exist!");
}

#[test]
fn a_subscription_to_metrics_is_kept_and_shown() {
    let mut bench = Bench::new(&[]);
    let defaults = describe(&mut bench, METRICS, "s");
    insta::assert_snapshot!(defaults, @"
    interval.ms=300000 type 3 source 5 []
    match= type 7 source 5 []
    metrics= type 7 source 5 []
    ");
    let made = [
        (SET, "metrics", Some("org.apache.kafka.producer. , b")),
        (SET, "interval.ms", Some(" 100 ")),
        (SET, "match", Some(r"client_software_version=11\.1.*")),
    ];
    assert_eq!(alter(&mut bench, METRICS, "s", &made), "done");
    insta::assert_snapshot!(bench.warnings.join("\n"), @r#"
    client metrics "s": metrics has no effect: clients cannot push telemetry yet
    client metrics "s": interval.ms has no effect: clients cannot push telemetry yet
    client metrics "s": match has no effect: clients cannot push telemetry yet
    "#);
    let told = describe(&mut bench, METRICS, "s");
    insta::assert_snapshot!(told, @r#"
    interval.ms=100 type 3 source 7 ["interval.ms=100 of 7"]
    match=client_software_version=11\.1.* type 7 source 7 ["match=client_software_version=11\\.1.* of 7"]
    metrics=org.apache.kafka.producer.,b type 7 source 7 ["metrics=org.apache.kafka.producer.,b of 7"]
    "#);
    bench.stop();
    bench.start();
    assert_eq!(describe(&mut bench, METRICS, "s"), told);
    let snapshot = bench.broker.parts().image.to_records();
    let mut image = crate::controller::Image::default();
    snapshot.iter().for_each(|record| drop(image.apply(record).expect("it is in order")));
    assert_eq!(image.resources().filter(|resource| resource.kind.code() == METRICS).count(), 1);

    let list = |bench: &mut Bench, version| {
        let request = ListConfigResourcesRequest::default();
        let ResponseBody::ListConfigResources(response) = bench.ask(version, RequestBody::ListConfigResources(request))
        else {
            panic!("another answer")
        };
        let listed = response.config_resources.into_iter().filter(|it| version == 0 || it.resource_type == METRICS);
        listed.map(|resource| resource.resource_name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!((list(&mut bench, 0), list(&mut bench, 1)), (vec!["s".to_owned()], vec!["s".to_owned()]));
    assert_eq!(replace(&mut bench, METRICS, "s", &[("metrics", Some("*"))]), "done");
    assert!(describe(&mut bench, METRICS, "s").contains("interval.ms=300000 type 3 source 5 []"));
    assert_eq!(alter(&mut bench, METRICS, "s", &[(DELETE, "metrics", None)]), "done");
    assert_eq!((describe(&mut bench, METRICS, "s"), list(&mut bench, 1)), (defaults, vec![]));
}

#[test]
fn a_subscription_that_makes_no_sense_is_refused_as_by_kafka() {
    let mut bench = Bench::new(&[]);
    let refused = [
        ("s", vec![(SET, "metric", Some("*"))]),
        ("s", vec![(SET, "interval.ms", Some("99"))]),
        ("s", vec![(SET, "interval.ms", Some("soon"))]),
        ("s", vec![(SET, "metrics", Some("a,,b"))]),
        ("s", vec![(SET, "match", Some("client_id=("))]),
        ("s", vec![(SET, "match", Some("version=1"))]),
        ("s", vec![(APPEND, "metrics", Some("a"))]),
        ("s", vec![(SET, "metrics", None)]),
        ("s", vec![(SET, "metrics", Some("a")), (SET, "metrics", Some("b"))]),
        ("", vec![(SET, "metrics", Some("*"))]),
    ]
    .map(|(name, made)| alter(&mut bench, METRICS, name, &made));
    insta::assert_snapshot!(refused.join("\n"), @"
    INVALID_REQUEST Unknown client metrics configuration: metric
    INVALID_REQUEST Invalid value 99 for interval.ms, interval must be between 100 and 3600000 (1 hour)
    INVALID_CONFIG Invalid value soon for configuration interval.ms: Not a number of type INT
    INVALID_CONFIG Configuration 'metrics' values must not be empty.
    INVALID_CONFIG Illegal client matching pattern: client_id=(
    INVALID_CONFIG Illegal client matching pattern: version=1
    INVALID_CONFIG Can't APPEND to key metrics because its type is not LIST.
    INVALID_REQUEST Null value not supported for : metrics
    INVALID_REQUEST Error due to duplicate config keys
    INVALID_REQUEST Subscription name can't be empty
    ");
    insta::assert_snapshot!(describe(&mut bench, METRICS, ""), @"INVALID_REQUEST Client metrics subscription name must not be empty");
}

#[test]
fn resources_of_other_kinds_are_refused() {
    let mut bench = Bench::new(&[]);
    insta::assert_snapshot!(describe(&mut bench, GROUP, "g"), @"INVALID_REQUEST Configs of groups are not served: there are no groups yet.");
    insta::assert_snapshot!(alter(&mut bench, GROUP, "g", &[]), @"INVALID_REQUEST Configs of groups are not supported: there are no groups yet.");
    insta::assert_snapshot!(alter(&mut bench, 99, "g", &[]), @"INVALID_REQUEST Unknown resource type 99");
}

#[test]
fn keys_are_looked_at_before_the_resource_as_by_kafka() {
    let mut bench = Bench::new(&[]);
    for (kind, name) in [(TOPIC, "nosuch"), (4, "2"), (LOGGERS, "2"), (99, "x")] {
        let twice = [(SET, "a", Some("1")), (SET, "a", Some("1"))];
        assert_eq!(alter(&mut bench, kind, name, &twice), "INVALID_REQUEST Error due to duplicate config keys");
        let nothing = [(SET, "a", None)];
        assert_eq!(alter(&mut bench, kind, name, &nothing), "INVALID_REQUEST Null value not supported for : a");
    }
}
