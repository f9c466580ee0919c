use super::*;
use std::collections::BTreeMap;
use tidelog_wire::ids::NodeId;

fn read(lines: &[(&str, &str)]) -> Result<(BrokerConfig, Vec<Warning>), Vec<ConfigError>> {
    BrokerConfig::from_properties(lines.iter().copied())
}

fn errors(lines: &[(&str, &str)]) -> String {
    read(lines).unwrap_err().iter().map(|error| error.to_string() + "\n").collect()
}

fn map(lines: &[(&str, &str)]) -> BTreeMap<String, String> {
    lines.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

#[test]
fn every_default_of_the_table_is_valid() {
    for key in table::broker_keys().chain(table::topic_keys()).chain(table::DYNAMIC_ONLY) {
        if let Some(text) = key.default_text() {
            let value = key.read(text).unwrap_or_else(|why| panic!("{why}"));
            assert_eq!(value.canonical(), text, "{}", key.name);
        }
        assert!(!key.documentation.is_empty());
        assert!(!key.allowed().is_empty());
    }
}

#[test]
fn the_table_names_each_config_once_and_as_many_as_kafka_has() {
    let mut names: Vec<&str> = table::broker_keys().map(|key| key.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), table::broker_keys().count());
    assert_eq!(names.len(), 360 + table::OWN_BROKER_NAMES.len());
    assert_eq!(table::topic_keys().len(), 34 + table::OWN_TOPIC_NAMES.len());
}

#[test]
fn the_defaults_that_the_broker_and_the_topic_share_are_the_same() {
    let broker = BrokerConfig::default();
    for key in table::topic_keys() {
        let value = TopicConfig::text_of(key.name, &BTreeMap::new(), &broker.layers());
        assert_eq!(value.as_deref(), key.default_text(), "{}", key.name);
    }
}

#[test]
fn nothing_set_is_a_node_that_is_broker_and_controller() {
    let (config, warnings) = read(&[]).unwrap();
    assert_eq!(config.node_id, NodeId(1));
    assert_eq!(config.log_dirs, ["./tidelog-data"]);
    assert_eq!(config.controller_listener_names, ["CONTROLLER"]);
    assert_eq!(config.listeners.len(), 1);
    assert_eq!((config.listeners[0].host.as_str(), config.listeners[0].port), ("", 9092));
    assert_eq!(config.socket_request_max_bytes, 104_857_600);
    assert_eq!(warnings, []);
    assert!(read(WITHOUT_A_FILE).is_ok());
}

#[test]
fn a_server_properties_of_kafka_in_combined_mode_is_taken() {
    let (mut config, warnings) = read(&[
        ("process.roles", "broker,controller"),
        ("node.id", "7"),
        ("controller.quorum.bootstrap.servers", "localhost:9093"),
        ("listeners", "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093,INSIDE://[::1]:0"),
        ("advertised.listeners", "PLAINTEXT://example:9092,CONTROLLER://127.0.0.1:9093,INSIDE://:0"),
        ("controller.listener.names", "CONTROLLER"),
        ("inter.broker.listener.name", "PLAINTEXT"),
        ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,INSIDE:PLAINTEXT"),
        ("log.dirs", "/data/a, /data/b"),
        ("metadata.log.dir", "/data/b"),
        ("num.network.threads", "3"),
    ])
    .unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.node_id, NodeId(7));
    assert_eq!((config.log_dirs.as_slice(), config.metadata_log_dir), (&["/data/a".into(), "/data/b".into()][..], 1));
    config.set_addresses(&[9092, 9093, 40_000], "machine");
    let told: Vec<_> = config.client_listeners().map(|l| (l.name.as_str(), l.host.as_str(), l.port)).collect();
    assert_eq!(told, [("PLAINTEXT", "example", 9092), ("INSIDE", "machine", 40_000)]);
}

#[test]
fn names_without_effect_are_named_with_what_was_probably_meant() {
    let (_, warnings) = read(&[
        ("log.retention.hour", "1"),
        ("zookeeper.connect", "localhost:2181"),
        ("inter.broker.protocol.version", "3.9"),
        ("my.own.thing", "x"),
        ("listener.name.inside.ssl.keystore.type", "PEM"),
    ])
    .unwrap();
    let texts: Vec<String> = warnings.iter().map(Warning::to_string).collect();
    insta::assert_snapshot!(texts.join("\n"), @r"
    log.retention.hour is not a known config and has no effect; did you mean log.retention.hours?
    zookeeper.connect was removed in Kafka 4.0 and has no effect: Kafka 4 has no ZooKeeper; brokers form a KRaft quorum
    inter.broker.protocol.version was removed in Kafka 4.0 and has no effect: the feature metadata.version took its place
    my.own.thing is not a known config and has no effect
    ");
}

#[test]
fn all_that_is_wrong_is_said_at_once_with_the_value_and_what_is_allowed() {
    insta::assert_snapshot!(errors(&[
        ("node.id", "one"),
        ("num.partitions", "0"),
        ("log.segment.bytes", "100"),
        ("auto.create.topics.enable", "yes"),
        ("compression.type", "lzma"),
        ("log.cleanup.policy", "delete,forget"),
        ("log.cleaner.min.cleanable.ratio", "1.5"),
        ("compression.gzip.level", "0"),
        ("log.retention.ms", "0"),
        ("listeners", "PLAINTEXT://:9092,SSL://:9093,OTHER://:9094,PLAINTEXT://:9095,9096"),
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("delegation.token.secret.key", "secret"),
    ]), @r"
    node.id=one: allowed is a number of at least 0
    num.partitions=0: allowed is a number of at least 1
    log.segment.bytes=100: allowed is a number of at least 1048576
    auto.create.topics.enable=yes: allowed is true or false
    compression.type=lzma: allowed is one of uncompressed, zstd, lz4, snappy, gzip, producer
    log.cleanup.policy=delete,forget: allowed is a comma-separated list of compact, delete
    log.cleaner.min.cleanable.ratio=1.5: allowed is a number from 0 to 1
    compression.gzip.level=0: allowed is a number from 1 to 9, or -1
    listeners=SSL://:9093: SSL is not supported yet; only PLAINTEXT listeners are
    listeners=OTHER://:9094: no security protocol is given for 'OTHER' in listener.security.protocol.map
    listeners=PLAINTEXT://:9095: each listener must have a different name, and PLAINTEXT is there twice
    listeners=9096: allowed is NAME://host:port, with an IPv6 address in brackets
    log.retention.ms=0: allowed is a number of at least 1, or -1 for unlimited
    authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer: not supported yet: authorization; remove this
    delegation.token.secret.key=[hidden]: not supported yet: delegation tokens; remove this
    ");
}

#[test]
fn listeners_that_do_not_fit_together_are_refused() {
    let all: String = [
        &[
            ("listeners", "PLAINTEXT://a:1,INSIDE://b:1"),
            ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,INSIDE:PLAINTEXT"),
        ][..],
        &[("listeners", "CONTROLLER://:9093")],
        &[
            ("advertised.listeners", "OUTSIDE://h:1"),
            ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,OUTSIDE:PLAINTEXT"),
        ],
        &[("advertised.listeners", "PLAINTEXT://0.0.0.0:9092")],
        &[("listeners", "PLAINTEXT://h:1"), ("advertised.listeners", "PLAINTEXT://[::]:1")],
        &[("inter.broker.listener.name", "INSIDE")],
        &[("listener.security.protocol.map", "PLAINTEXT:NONE,A,PLAINTEXT:SSL,plaintext:SSL")],
    ]
    .iter()
    .map(|lines| errors(lines) + "\n")
    .collect();
    insta::assert_snapshot!(all, @r"
    listeners=INSIDE://b:1: each listener must have a different port, and 1 is there twice

    listeners=CONTROLLER://:9093: every listener is the controller's; allowed is at least one for clients
    advertised.listeners=: allowed is at least one listener that is not the controller's

    advertised.listeners=OUTSIDE://h:1: there is no listener OUTSIDE; allowed are the names of listeners: PLAINTEXT

    advertised.listeners=PLAINTEXT://0.0.0.0:9092: clients cannot connect to 0.0.0.0, which stands for all addresses; allowed is an address or a name that they can reach, or no host for the name of this machine

    advertised.listeners=PLAINTEXT://[::]:1: clients cannot connect to ::, which stands for all addresses; allowed is an address or a name that they can reach, or no host for the name of this machine

    inter.broker.listener.name=INSIDE: there is no advertised listener INSIDE; set inter.broker.listener.name to one of PLAINTEXT

    listener.security.protocol.map=PLAINTEXT:NONE,A,PLAINTEXT:SSL,plaintext:SSL: 'NONE' is not one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL
    listener.security.protocol.map=PLAINTEXT:NONE,A,PLAINTEXT:SSL,plaintext:SSL: 'A' is not NAME:PROTOCOL
    listener.security.protocol.map=PLAINTEXT:NONE,A,PLAINTEXT:SSL,plaintext:SSL: the name 'plaintext' is given twice
    listeners=PLAINTEXT://:9092: SSL is not supported yet; only PLAINTEXT listeners are
    ");
}

#[test]
fn exceptions_to_the_connections_of_an_address_are_hosts_with_numbers() {
    let read = |text| read(&[("max.connections.per.ip", "0"), ("max.connections.per.ip.overrides", text)]);
    let (config, _) = read("10.0.0.1:5 , ::1:7,broker-2.example : 0").unwrap();
    let wanted = [("10.0.0.1", 5), ("::1", 7), ("broker-2.example", 0)].map(|(host, count)| (host.to_owned(), count));
    assert_eq!(config.max_connections_per_ip_overrides, wanted);
    for text in ["10.0.0.1", "10.0.0.1:many", ":5", "a host:5"] {
        assert_eq!(read(text).unwrap_err().len(), 1, "{text}");
    }
}

#[test]
fn a_listener_on_all_addresses_is_advertised_by_the_name_of_this_machine() {
    for host in ["0.0.0.0", "[::]", "[0:0:0:0:0:0:0:0]", ""] {
        let listeners = format!("PLAINTEXT://{host}:9092,NEAR://127.0.0.1:9094,CONTROLLER://{host}:9093");
        let map = "PLAINTEXT:PLAINTEXT,NEAR:PLAINTEXT,CONTROLLER:PLAINTEXT";
        let (mut config, warnings) =
            read(&[("listeners", &listeners), ("listener.security.protocol.map", map)]).unwrap();
        assert_eq!(warnings, []);
        let named = config.set_addresses(&[9092, 9094, 9093], "machine");
        let hosts: Vec<_> = config.client_listeners().map(|listener| listener.host.as_str()).collect();
        assert_eq!(hosts, ["machine", "127.0.0.1"], "{host}");
        assert_eq!(named.iter().map(|listener| listener.name.as_str()).collect::<Vec<_>>(), ["PLAINTEXT"], "{host}");
    }
}

#[test]
fn a_controllers_listener_that_is_not_advertised_is_told_to_other_nodes_all_the_same() {
    let (config, _) = read(&[
        ("listeners", "PLAINTEXT://:9092,CONTROLLER://10.0.0.1:9093"),
        ("advertised.listeners", "PLAINTEXT://broker.example:9092"),
    ])
    .unwrap();
    let told: Vec<_> = config.controller_listeners().map(|listener| (listener.host.as_str(), listener.port)).collect();
    assert_eq!(told, [("10.0.0.1", 9093)]);
    let clients: Vec<_> = config.client_listeners().map(|listener| listener.host.as_str()).collect();
    assert_eq!(clients, ["broker.example"]);
}

#[test]
fn what_a_start_does_not_support_yet_can_be_formatted() {
    let lines = [("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")];
    assert_eq!(read(&lines).unwrap_err().len(), 1);
    assert!(BrokerConfig::for_formatting(lines).is_ok());
}

#[test]
fn a_node_may_have_one_role_if_it_knows_where_the_others_are() {
    let voters = ("controller.quorum.voters", "1@a:9093,2@b:9093");
    let servers = ("controller.quorum.bootstrap.servers", "a:9093");
    let (clients, controllers) = (("listeners", "PLAINTEXT://h:9092"), ("listeners", "CONTROLLER://h:9093"));
    let (broker, controller) = (("process.roles", "broker"), ("process.roles", "controller"));
    let roles = |lines: &[(&str, &str)]| read(lines).unwrap().0.roles;
    assert_eq!(roles(&[controller, controllers, voters]), Roles::Controller);
    assert_eq!(roles(&[controller, controllers]), Roles::Controller, "it is a cluster of its own");
    assert_eq!(roles(&[broker, clients, voters, ("node.id", "3")]), Roles::Broker);
    assert_eq!(roles(&[broker, clients, servers]), Roles::Broker);

    insta::assert_snapshot!(errors(&[broker, clients]), @"process.roles=broker: a node that is a broker alone needs the addresses of controllers: set controller.quorum.bootstrap.servers or controller.quorum.voters");
    insta::assert_snapshot!(errors(&[broker, clients, voters]), @"controller.quorum.voters=1@a:9093,2@b:9093: node 1 is a broker alone; allowed are nodes that are controllers");
    let joins = ("controller.quorum.auto.join.enable", "true");
    insta::assert_snapshot!(errors(&[broker, clients, servers, joins]), @"controller.quorum.auto.join.enable=true: only a controller can join the voters");
    insta::assert_snapshot!(errors(&[controller, controllers, voters, ("node.id", "3")]), @"controller.quorum.voters=1@a:9093,2@b:9093: node 3 is a controller and is not among the voters; allowed is a list with it");
    insta::assert_snapshot!(errors(&[clients, voters]), @"listeners=PLAINTEXT://h:9092: one of several controllers needs a listener for the others: one of CONTROLLER");
}

#[test]
fn a_node_with_one_role_has_listeners_of_that_role_alone() {
    let refused = |role, listeners| {
        let lines = [("process.roles", role), ("listeners", listeners)];
        BrokerConfig::for_formatting(lines).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(refused("controller", "PLAINTEXT://:9092,CONTROLLER://:9093"), @"listeners=PLAINTEXT://:9092,CONTROLLER://:9093: a node that is a controller alone has no other listeners than CONTROLLER");
    insta::assert_snapshot!(refused("broker", "PLAINTEXT://:9092,CONTROLLER://:9093"), @"listeners=PLAINTEXT://:9092,CONTROLLER://:9093: a node that is a broker alone has no listener of controllers: CONTROLLER");
}

#[test]
fn one_name_may_listen_on_an_ipv4_and_an_ipv6_address() {
    let (config, _) = read(&[
        ("listeners", "PLAINTEXT://127.0.0.1:9092,PLAINTEXT://[::1]:9092"),
        ("advertised.listeners", "PLAINTEXT://localhost:9092"),
    ])
    .unwrap();
    assert_eq!(config.listeners.len(), 2);
    assert_eq!(config.advertised_listeners.len(), 1);
}

#[test]
fn a_topics_default_is_the_first_synonym_that_is_set_in_its_unit() {
    let (broker, _) =
        read(&[("log.retention.hours", "2"), ("log.roll.hours", "1"), ("message.max.bytes", "5000")]).unwrap();
    let config = TopicConfig::resolve(&BTreeMap::new(), &broker.layers());
    assert_eq!((config.retention_ms, config.segment_ms, config.max_message_bytes), (7_200_000, 3_600_000, 5000));
    let (broker, _) = read(&[("log.retention.hours", "2"), ("log.retention.minutes", "-1")]).unwrap();
    assert_eq!(TopicConfig::resolve(&BTreeMap::new(), &broker.layers()).retention_ms, -1);
    let own = map(&[("retention.ms", "5"), ("internal.segment.bytes", "100"), ("acks.require.fsync", "false")]);
    let config = TopicConfig::resolve(&own, &broker.layers());
    assert_eq!((config.retention_ms, config.segment_bytes, config.acks_require_fsync), (5, 100, false));
}

#[test]
fn a_dynamic_value_goes_before_the_file() {
    let (broker, _) = read(&[("log.retention.hours", "2"), ("log.segment.bytes", "2000000")]).unwrap();
    let (for_this, for_all) =
        (map(&[("log.segment.bytes", "4000000")]), map(&[("log.retention.ms", "9"), ("log.segment.bytes", "3000000")]));
    let layers = Layers { broker: &broker, dynamic_broker: &for_this, dynamic_default: &for_all };
    let config = TopicConfig::resolve(&BTreeMap::new(), &layers);
    assert_eq!((config.retention_ms, config.segment_bytes), (9, 4_000_000));
}

#[test]
fn a_topics_bad_values_are_refused_in_kafkas_words() {
    let broker = BrokerConfig::default();
    let cases: &[&[(&str, &str)]] = &[
        &[("retention.sm", "1")],
        &[("retention.ms", "soon")],
        &[("retention.ms", "-2")],
        &[("segment.bytes", "1048575")],
        &[("segment.bytes", "2147483648")],
        &[("cleanup.policy", "forget")],
        &[("cleanup.policy", "delete,,compact")],
        &[("compression.type", "none")],
        &[("compression.gzip.level", "10")],
        &[("compression.zstd.level", "23")],
        &[("preallocate", "1")],
        &[("min.cleanable.dirty.ratio", "2")],
        &[("min.cleanable.dirty.ratio", "x")],
        &[("min.compaction.lag.ms", "2"), ("max.compaction.lag.ms", "1")],
        &[("leader.replication.throttled.replicas", "1-2")],
        &[("remote.storage.enable", "true")],
        &[("message.timestamp.type", "createtime")],
    ];
    let texts: Vec<String> =
        cases.iter().map(|own| TopicConfig::validate(&map(own), &broker.layers()).unwrap_err()).collect();
    insta::assert_snapshot!(texts.join("\n"), @r"
    Unknown topic config name: retention.sm; did you mean retention.ms?
    Invalid value soon for configuration retention.ms: Not a number of type LONG
    Invalid value -2 for configuration retention.ms: Value must be at least -1
    Invalid value 1048575 for configuration segment.bytes: Value must be at least 1048576
    Invalid value 2147483648 for configuration segment.bytes: Not a number of type INT
    Invalid value forget for configuration cleanup.policy: String must be one of: compact, delete
    Configuration 'cleanup.policy' values must not be empty.
    Invalid value none for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer
    Invalid value 10 for configuration compression.gzip.level: Value must be no more than 9
    Invalid value 23 for configuration compression.zstd.level: Value must be no more than 22
    Invalid value 1 for configuration preallocate: Expected value to be either true or false
    Invalid value 2 for configuration min.cleanable.dirty.ratio: Value must be no more than 1
    Invalid value x for configuration min.cleanable.dirty.ratio: Not a number of type DOUBLE
    conflict topic config setting min.compaction.lag.ms (2) > max.compaction.lag.ms (1)
    Invalid value [1-2] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...
    Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.
    Invalid value createtime for configuration message.timestamp.type: String must be one of: CreateTime, LogAppendTime
    ");
}

#[test]
fn a_topics_good_values_are_taken() {
    let broker = BrokerConfig::default();
    let own = map(&[
        ("cleanup.policy", " compact , delete,compact "),
        ("min.cleanable.dirty.ratio", "0.25"),
        ("leader.replication.throttled.replicas", "0:1,1:2"),
        ("follower.replication.throttled.replicas", "*"),
        ("retention.ms", "-1"),
        ("compression.zstd.level", "-131072"),
        ("preallocate", "TRUE"),
    ]);
    assert_eq!(TopicConfig::validate(&own, &broker.layers()), Ok(()));
    let config = TopicConfig::resolve(&own, &broker.layers());
    assert_eq!(config.cleanup, CleanupPolicy { delete: true, compact: true });
    assert_eq!(config.min_cleanable_dirty_millionths, 250_000);
    assert!(config.preallocate);
}

#[test]
fn a_description_says_where_a_value_comes_from() {
    let (broker, _) = read(&[("log.retention.hours", "2")]).unwrap();
    let described = describe_topic(&map(&[("retention.ms", "5")]), &broker.layers());
    assert!(described.windows(2).all(|pair| pair[0].name < pair[1].name));
    assert!(!described.iter().any(|one| one.key.unwrap().internal));
    let retention = described.iter().find(|one| one.name == "retention.ms").unwrap();
    assert_eq!((retention.value.as_deref(), retention.source), (Some("5"), Source::Topic));
    let synonyms: Vec<_> =
        retention.synonyms.iter().map(|s| (s.name.as_str(), s.value.as_deref().unwrap(), s.source)).collect();
    assert_eq!(synonyms, [("retention.ms", "5", Source::Topic)]);
    let throttled = described.iter().find(|one| one.name == "leader.replication.throttled.replicas").unwrap();
    assert_eq!(
        (throttled.value.as_deref(), throttled.source, throttled.synonyms.len()),
        (Some(""), Source::Default, 0)
    );

    let described = describe_broker(&broker.layers());
    let hours = described.iter().find(|one| one.name == "log.retention.hours").unwrap();
    assert_eq!((hours.value.as_deref(), hours.source, hours.read_only), (Some("2"), Source::StaticBroker, true));
    let password = described.iter().find(|one| one.name == "ssl.key.password").unwrap();
    assert_eq!((password.value.as_deref(), password.read_only), (None, false));
}

/// The sources and names of the places that give a broker's config its value.
fn places(described: &[Described], name: &str) -> String {
    let one = described.iter().find(|one| one.name == name).unwrap_or_else(|| panic!("{name} is not described"));
    let places = one
        .synonyms
        .iter()
        .map(|place| format!("{:?}:{}={}", place.source, place.name, place.value.as_deref().unwrap_or("null")));
    let places: Vec<String> = places.collect();
    format!("{name}={} {:?} {{{}}}", one.value.as_deref().unwrap_or("null"), one.source, places.join(", "))
}

#[test]
fn the_places_of_a_broker_config_begin_with_its_own_name_and_go_layer_by_layer() {
    let (broker, _) = read(&[("log.retention.hours", "72")]).unwrap();
    let (one, all) = (map(&[("log.retention.ms", "9")]), map(&[("log.retention.ms", "8")]));
    let layers = Layers { broker: &broker, dynamic_broker: &one, dynamic_default: &all };
    let described = describe_broker(&layers);
    let names = ["log.retention.ms", "log.retention.minutes", "log.retention.hours", "log.flush.interval.ms"];
    insta::assert_snapshot!(names.map(|name| places(&described, name)).join("\n"), @r"
    log.retention.ms=9 DynamicBroker {DynamicBroker:log.retention.ms=9, DynamicDefaultBroker:log.retention.ms=8, StaticBroker:log.retention.hours=72, Default:log.retention.hours=168}
    log.retention.minutes=null Default {}
    log.retention.hours=72 StaticBroker {StaticBroker:log.retention.hours=72, Default:log.retention.hours=168}
    log.flush.interval.ms=null Default {}
    ");
    insta::assert_snapshot!(places(&describe_topic(&BTreeMap::new(), &layers), "retention.ms"), @"retention.ms=9 DynamicBroker {DynamicBroker:log.retention.ms=9, DynamicDefaultBroker:log.retention.ms=8, StaticBroker:log.retention.hours=72, Default:log.retention.hours=168}");
    insta::assert_snapshot!(places(&describe_broker_default(&layers), "log.retention.ms"), @"log.retention.ms=8 DynamicDefaultBroker {DynamicDefaultBroker:log.retention.ms=8}");
}

#[test]
fn a_topics_default_in_another_unit_has_no_place_in_a_description_and_one_when_the_topic_is_created() {
    let (broker, _) = read(&[("log.retention.hours", "72")]).unwrap();
    let (none, layers) = (BTreeMap::new(), broker.layers());
    insta::assert_snapshot!(places(&describe_topic(&none, &layers), "retention.ms"), @"retention.ms=259200000 Default {}");
    assert_eq!(topic_source("retention.ms", &none, &layers), Source::StaticBroker);
    assert_eq!(topic_source("segment.ms", &none, &layers), Source::Default);
    assert_eq!(topic_source("retention.ms", &map(&[("retention.ms", "1")]), &layers), Source::Topic);
    let all = map(&[("log.retention.ms", "8")]);
    let layers = Layers { dynamic_default: &all, ..layers };
    assert_eq!(topic_source("retention.ms", &none, &layers), Source::DynamicDefaultBroker);
}

#[test]
fn an_unknown_name_is_kept_and_shown_without_its_value() {
    let (broker, _) = read(&[("my.own.thing", "secret"), ("listener.name.inside.max.connections", "7")]).unwrap();
    let (one, all) = (map(&[("my.other.thing", "secret")]), map(&[("my.third.thing", "secret")]));
    let layers = Layers { broker: &broker, dynamic_broker: &one, dynamic_default: &all };
    let described = describe_broker(&layers);
    let names = ["my.own.thing", "my.other.thing", "my.third.thing", "listener.name.inside.max.connections"];
    insta::assert_snapshot!(names.map(|name| places(&described, name)).join("\n"), @r"
    my.own.thing=null StaticBroker {StaticBroker:my.own.thing=null}
    my.other.thing=null DynamicBroker {DynamicBroker:my.other.thing=null}
    my.third.thing=null DynamicDefaultBroker {DynamicDefaultBroker:my.third.thing=null}
    listener.name.inside.max.connections=7 StaticBroker {StaticBroker:listener.name.inside.max.connections=7, Default:max.connections=2147483647}
    ");
    let unknown = described.iter().find(|one| one.name == "my.own.thing").unwrap();
    assert!(unknown.sensitive() && unknown.read_only);
    assert_eq!((unknown.type_code(), unknown.documentation()), (0, None));
    insta::assert_snapshot!(places(&describe_broker_default(&layers), "my.third.thing"), @"my.third.thing=null DynamicDefaultBroker {DynamicDefaultBroker:my.third.thing=null}");
}

#[test]
fn what_kafka_does_not_start_without_is_described_where_it_is_not_set() {
    let names = ["node.id", "broker.id", "process.roles", "controller.listener.names"];
    let of = |lines: &[(&str, &str)]| {
        let described = describe_broker(&read(lines).unwrap().0.layers());
        names.map(|name| places(&described, name)).join("\n")
    };
    insta::assert_snapshot!(of(&[]), @r"
    node.id=1 Default {Default:node.id=1}
    broker.id=1 Default {Default:broker.id=1}
    process.roles=broker,controller Default {Default:process.roles=broker,controller}
    controller.listener.names=CONTROLLER Default {Default:controller.listener.names=CONTROLLER}
    ");
    insta::assert_snapshot!(of(&[("node.id", "7")]), @r"
    node.id=7 StaticBroker {StaticBroker:node.id=7}
    broker.id=7 StaticBroker {StaticBroker:broker.id=7, Default:broker.id=-1}
    process.roles=broker,controller Default {Default:process.roles=broker,controller}
    controller.listener.names=CONTROLLER Default {Default:controller.listener.names=CONTROLLER}
    ");
}

#[test]
fn what_only_a_start_can_set_is_not_taken_from_the_metadata() {
    let broker = BrokerConfig::default();
    let one = map(&[("listeners", "PLAINTEXT://:1"), ("num.partitions", "5")]);
    let layers = Layers { dynamic_broker: &one, ..broker.layers() };
    assert_eq!(layers.number("num.partitions"), 1);
    let described = describe_broker(&layers);
    insta::assert_snapshot!(places(&described, "listeners"), @"listeners=PLAINTEXT://:9092 Default {Default:listeners=PLAINTEXT://:9092}");
    assert!(described.iter().find(|one| one.name == "listeners").unwrap().read_only);
    assert_eq!(describe_broker_default(&Layers { dynamic_default: &one, ..broker.layers() }), []);
}
