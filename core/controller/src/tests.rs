mod alter_partition;
mod brokers;
mod configs;
mod directories;
mod elections;
mod encoding;
mod features;
mod images;
mod partition_changes;
mod placement;
mod reassignments;
mod replicas;
mod replicated;
mod replication_model;
mod topics;
mod unasked_elections;

use super::brokers::registration_change;
use super::*;
use proptest::prelude::*;
use smallvec::smallvec;
use tidelog_config::plant::Plants;
use tidelog_config::{BrokerConfig, Listener, SecurityProtocol};
use tidelog_wire::ids::{LeaderEpoch, Offset, Uuid};
use tidelog_wire::messages::alter_configs_request;
use tidelog_wire::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use tidelog_wire::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use tidelog_wire::messages::delete_topics_request::DeleteTopicState;
use tidelog_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use tidelog_wire::messages::{
    AccessControlEntryRecord, AlterConfigsRequest, BeginTransactionRecord, BrokerHeartbeatRequest,
    BrokerRegistrationChangeRecord, ClientQuotaRecord, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteTopicsRequest, EndTransactionRecord, IncrementalAlterConfigsRequest, RegisterBrokerRecord,
    RemoveAccessControlEntryRecord, TopicRecord, UserScramCredentialRecord, client_quota_record,
};
use tidelog_wire::time::Mono;

/// A controller that commits at once.
struct Cluster {
    broker: BrokerConfig,
    image: Image,
    offset: i64,
    drawn: u128,
    /// All records since the cluster was new, and what changed by each of them.
    committed: Vec<(MetadataRecord, Vec<ImageChange>)>,
}

fn draw(drawn: &mut u128) -> impl FnMut() -> [u8; 16] + '_ {
    move || {
        *drawn = drawn.wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645).wrapping_add(0x5851_F42D_4C95_7F2D);
        drawn.to_be_bytes()
    }
}

const CLUSTER: &str = "Tidelog";
const DIR_A: Uuid = Uuid::from_bytes([0xaa; 16]);
const DIR_B: Uuid = Uuid::from_bytes([0xbb; 16]);

impl Cluster {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(properties: &[(&str, &str)]) -> Self {
        let (broker, _) = BrokerConfig::from_properties(properties.iter().copied()).unwrap();
        let mut cluster = Self { broker, image: Image::default(), offset: 0, drawn: 1, committed: Vec::new() };
        let layers = cluster.broker.layers();
        let records = bootstrap_records(&Context { node_id: NodeId(1), layers }, bootstrap_features());
        cluster.commit(&records);
        cluster.start(NodeId(1), &[DIR_A, DIR_B]);
        cluster
    }

    /// A broker starts: a new incarnation registers, and is unfenced by its first heartbeat.
    fn start(&mut self, node_id: NodeId, dirs: &[Uuid]) {
        let incarnation_id = Uuid::from_bytes(draw(&mut self.drawn)());
        let start = BrokerStart { incarnation_id, ..broker_start(node_id, dirs) };
        let heartbeats = Heartbeats::adopt(&self.image, Some(node_id), Mono::ZERO, 9_000, Plants::default());
        let registrar = Registrar {
            context: Context { node_id, layers: self.image.layers(&self.broker) },
            cluster_id: CLUSTER,
            kraft_version: 1,
            heartbeats: &heartbeats,
            now: Mono::ZERO,
            next_offset: Offset(self.offset),
        };
        let registration = register_broker(&self.image, &registrar, &start.broker_registration(CLUSTER), 4);
        assert!(registration.response.is_ok(), "{:?}", registration.response);
        self.commit(&registration.records);
        self.beat(node_id, BrokerHeartbeatRequest::default());
    }

    /// A broker of the present epoch that has caught up sends a heartbeat.
    fn beat(&mut self, node_id: NodeId, wants: BrokerHeartbeatRequest) {
        let broker_epoch = self.image.broker(node_id).unwrap().broker_epoch;
        let request = BrokerHeartbeatRequest {
            broker_id: node_id.0,
            broker_epoch,
            current_metadata_offset: self.offset,
            ..wants
        };
        let heartbeats = Heartbeats::adopt(&self.image, None, Mono::ZERO, 9_000, Plants::default());
        let outcome = self.decide(|image, context, _| broker_heartbeat(image, context, &heartbeats, &request));
        assert!(outcome.is_ok(), "{outcome:?}");
    }

    /// Fences a broker, and changes nothing else.
    fn fence(&mut self, node_id: NodeId) {
        let broker_epoch = self.image.broker(node_id).unwrap().broker_epoch;
        let change = registration_change(node_id, broker_epoch);
        self.commit(&[BrokerRegistrationChangeRecord { fenced: 1, ..change }.into()]);
    }

    fn commit(&mut self, records: &[MetadataRecord]) {
        for record in records {
            let changes = self.image.apply(record).unwrap();
            self.committed.push((record.clone(), changes));
            self.offset += 1;
        }
        self.image.verify();
    }

    fn decide<R>(&mut self, decide: impl FnOnce(&Image, &Context, &mut u128) -> Decision<R>) -> R {
        let context = Context { node_id: NodeId(1), layers: self.image.layers(&self.broker) };
        let mut drawn = self.drawn;
        let decision = decide(&self.image, &context, &mut drawn);
        self.drawn = drawn;
        self.commit(&decision.records);
        decision.response
    }

    fn create(&mut self, request: &CreateTopicsRequest) -> Vec<(String, ErrorCode, Option<String>)> {
        let response = self.decide(|image, context, drawn| create_topics(image, context, request, draw(drawn)));
        response.topics.into_iter().map(|topic| outcome(&topic.name, topic.error_code, topic.error_message)).collect()
    }

    fn delete(&mut self, request: &DeleteTopicsRequest, version: i16) -> Vec<(String, ErrorCode, Option<String>)> {
        let response = self.decide(|image, context, _| delete_topics(image, context, request, version));
        response
            .responses
            .into_iter()
            .map(|topic| outcome(&topic.name.unwrap_or_default(), topic.error_code, topic.error_message))
            .collect()
    }

    fn extend(&mut self, topics: Vec<CreatePartitionsTopic>) -> Vec<(String, ErrorCode, Option<String>)> {
        let request = CreatePartitionsRequest { topics, ..Default::default() };
        let response = self.decide(|image, _, drawn| create_partitions(image, &request, draw(drawn)));
        response.results.into_iter().map(|topic| outcome(&topic.name, topic.error_code, topic.error_message)).collect()
    }

    fn alter(&mut self, kind: i8, name: &str, configs: &[(&str, i8, Option<&str>)]) -> (ErrorCode, Option<String>) {
        let configs = configs
            .iter()
            .map(|&(name, config_operation, value)| AlterableConfig {
                name: name.into(),
                config_operation,
                value: value.map(Into::into),
                ..Default::default()
            })
            .collect();
        let resource =
            AlterConfigsResource { resource_type: kind, resource_name: name.into(), configs, ..Default::default() };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
        let response = self.decide(|image, context, _| incremental_alter_configs(image, context, &request));
        let one = response.responses.into_iter().next().unwrap();
        let (_, error, message) = outcome("", one.error_code, one.error_message);
        (error, message)
    }

    /// Makes a decision that a client or a broker asks for.
    fn take(&mut self, step: Step) {
        match step {
            Step::Create(name, count, configs) => {
                let configs: &[(&str, Option<&str>)] = if configs { &[("retention.ms", Some("1"))] } else { &[] };
                let topic = CreatableTopic { num_partitions: count, ..topic_with(&name_of(name), configs) };
                self.create(&creating(vec![topic]));
            }
            Step::Delete(name) => {
                let topic_names = vec![name_of(name).into()];
                self.delete(&DeleteTopicsRequest { topic_names, ..Default::default() }, 5);
            }
            Step::Extend(name, count) => {
                let name = name_of(name).into();
                self.extend(vec![CreatePartitionsTopic { name, count, assignments: None, ..Default::default() }]);
            }
            Step::Set(name, value) => {
                let configs: [(&str, i8, Option<&str>); 4] = [
                    ("retention.ms", 0, Some("7")),
                    ("cleanup.policy", 2, Some("compact")),
                    ("min.insync.replicas", 0, Some("2")),
                    ("retention.ms", 0, Some("never")),
                ];
                self.alter(2, &name_of(name), &configs[value as usize..=value as usize]);
            }
            Step::Unset(name) => {
                self.alter(2, &name_of(name), &[("retention.ms", 1, None)]);
            }
            Step::Broker(name) => {
                let name = if name == 0 { String::new() } else { name.to_string() };
                self.alter(4, &name, &[("log.retention.ms", 0, Some("9"))]);
            }
            Step::Restart(id) => self.start(NodeId(id), &[Uuid::from_bytes([id as u8; 16])]),
            Step::ProducerIds => {
                let epoch = self.image.broker(NodeId(1)).unwrap().broker_epoch;
                self.decide(|image, _, _| allocate_producer_ids(image, NodeId(1), epoch)).unwrap();
            }
        }
    }

    fn partition(&self, topic: &str, index: i32) -> &Partition {
        &self.image.topic_named(topic).unwrap().partitions[&index]
    }
}

fn broker_start(node_id: NodeId, dirs: &[Uuid]) -> BrokerStart {
    let listener = |name: &str, port| Listener {
        name: name.into(),
        protocol: SecurityProtocol::Plaintext,
        host: "localhost".into(),
        port,
    };
    BrokerStart {
        node_id,
        incarnation_id: Uuid::from_bytes([7; 16]),
        rack: None,
        listeners: vec![listener("PLAINTEXT", 9092)],
        controller_listeners: vec![listener("CONTROLLER", 9093)],
        log_dirs: dirs.to_vec(),
        previous_broker_epoch: None,
    }
}

fn outcome(name: &str, code: i16, message: Option<ByteString>) -> (String, ErrorCode, Option<String>) {
    (name.to_owned(), ErrorCode::from_code(code).unwrap(), message.map(|text| text.to_string()))
}

fn topic(name: &str, partitions: i32, factor: i16) -> CreatableTopic {
    CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: factor,
        ..CreatableTopic::default()
    }
}

fn topic_with(name: &str, configs: &[(&str, Option<&str>)]) -> CreatableTopic {
    let configs = configs
        .iter()
        .map(|(name, value)| CreatableTopicConfig {
            name: (*name).into(),
            value: value.map(Into::into),
            ..Default::default()
        })
        .collect();
    CreatableTopic { configs, ..topic(name, -1, -1) }
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignments = assignments
        .iter()
        .map(|(index, brokers)| CreatableReplicaAssignment {
            partition_index: *index,
            broker_ids: (*brokers).into(),
            ..Default::default()
        })
        .collect();
    CreatableTopic { assignments, ..topic(name, -1, -1) }
}

fn creating(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest { topics, ..CreateTopicsRequest::default() }
}

fn text(outcomes: &[(String, ErrorCode, Option<String>)]) -> String {
    let line = |(name, error, message): &(String, ErrorCode, Option<String>)| {
        format!("{name:.30}: {} {}", error.name(), message.as_deref().unwrap_or("-"))
    };
    outcomes.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_created_topic_has_its_partitions_spread_over_the_directories() {
    let mut cluster = Cluster::new();
    let manual = assigned("manual", &[(0, &[1]), (1, &[1]), (2, &[1]), (3, &[1])]);
    assert_eq!(text(&cluster.create(&creating(vec![topic("first", 4, -1), manual]))), "first: NONE -\nmanual: NONE -");
    for name in ["first", "manual"] {
        let topic = cluster.image.topic_named(name).unwrap();
        assert_eq!(topic.partitions.len(), 4);
        let in_a = topic.partitions.values().filter(|partition| partition.directories == [DIR_A]).count();
        let in_b = topic.partitions.values().filter(|partition| partition.directories == [DIR_B]).count();
        assert_eq!((in_a, in_b), (2, 2), "{name}");
        for partition in topic.partitions.values() {
            assert_eq!(partition.replicas, [NodeId(1)]);
            assert_eq!((partition.leader, partition.leader_epoch), (Some(NodeId(1)), LeaderEpoch(0)));
        }
    }
}

#[test]
fn a_created_topic_is_described_in_the_response() {
    let mut cluster = Cluster::with(&[("num.partitions", "3"), ("log.roll.hours", "5")]);
    let request = creating(vec![topic_with("first", &[("retention.ms", Some("5"))])]);
    let response = cluster.decide(|image, context, drawn| create_topics(image, context, &request, draw(drawn)));
    let created = &response.topics[0];
    assert_eq!((created.num_partitions, created.replication_factor), (3, 1));
    assert_eq!(created.topic_id, cluster.image.topic_named("first").unwrap().id);
    let configs = created.configs.as_ref().unwrap();
    let of = |name: &str| configs.iter().find(|config| config.name == name).unwrap();
    assert_eq!((of("retention.ms").value.as_deref(), of("retention.ms").config_source), (Some("5"), 1));
    // The value of the cluster, which was recorded when it was formatted.
    assert_eq!((of("min.insync.replicas").value.as_deref(), of("min.insync.replicas").config_source), (Some("1"), 3));
    assert_eq!(of("segment.bytes").config_source, 5);
    assert_eq!(of("segment.ms").config_source, 4, "the file has it in hours");
    assert_eq!(cluster.image.topic_config("first").len(), 1);
}

#[test]
fn a_topic_that_cannot_be_created_is_refused_in_kafkas_words() {
    let mut cluster = Cluster::new();
    cluster.create(&creating(vec![topic("there", 1, 1), topic("a.b", 1, 1)]));
    let before = cluster.image.clone();
    let outcomes = cluster.create(&creating(vec![
        topic("there", 1, 1),
        topic("a_b", 1, 1),
        topic("", 1, 1),
        topic(".", 1, 1),
        topic("a b", 1, 1),
        topic(&"x".repeat(250), 1, 1),
        topic("__cluster_metadata", 1, 1),
        topic("twice", 1, 1),
        topic("twice", 2, 1),
        topic("zero", 0, 1),
        topic("minus", -2, 1),
        topic("factor", 1, 0),
        topic("large", 1, 2),
        topic_with("null", &[("retention.ms", None)]),
        topic_with("unknown", &[("retention.sm", Some("1"))]),
        topic_with("bad", &[("retention.ms", Some("x"))]),
        topic_with("long", &[("cleanup.policy", Some(&"x".repeat(40_000)))]),
        assigned("nobody", &[(0, &[])]),
        assigned("stranger", &[(0, &[2])]),
        assigned("doubled", &[(0, &[1, 1])]),
        assigned("gap", &[(1, &[1])]),
        assigned("repeated", &[(0, &[1]), (0, &[1])]),
        CreatableTopic { num_partitions: 1, ..assigned("both", &[(0, &[1])]) },
        CreatableTopic { replication_factor: 1, ..assigned("both2", &[(0, &[1])]) },
    ]));
    insta::assert_snapshot!(text(&outcomes), @r"
    there: TOPIC_ALREADY_EXISTS Topic 'there' already exists.
    a_b: INVALID_TOPIC_EXCEPTION Topic 'a_b' collides with existing topic: a.b
    : INVALID_TOPIC_EXCEPTION Topic name is invalid: the empty string is not allowed
    .: INVALID_TOPIC_EXCEPTION Topic name is invalid: '.' is not allowed
    a b: INVALID_TOPIC_EXCEPTION Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'
    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx: INVALID_TOPIC_EXCEPTION Topic name is invalid: the length of 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' is longer than the max allowed length 249
    __cluster_metadata: INVALID_REQUEST Creation of internal topic __cluster_metadata is prohibited.
    zero: INVALID_PARTITIONS Number of partitions was set to an invalid non-positive value.
    minus: INVALID_PARTITIONS Number of partitions was set to an invalid non-positive value.
    factor: INVALID_REPLICATION_FACTOR Replication factor must be larger than 0, or -1 to use the default value.
    large: INVALID_REPLICATION_FACTOR Unable to replicate the partition 2 time(s): The target replication factor of 2 cannot be reached because only 1 broker(s) are registered or some brokers have all their log directories cordoned.
    null: INVALID_CONFIG Null value not supported for topic configs: retention.ms
    unknown: INVALID_CONFIG Unknown topic config name: retention.sm; did you mean retention.ms?
    bad: INVALID_CONFIG Invalid value x for configuration retention.ms: Not a number of type LONG
    long: INVALID_CONFIG The configuration value cannot be added because it exceeds the maximum value size of 32767 bytes.
    nobody: INVALID_REPLICA_ASSIGNMENT The manual partition assignment includes an empty replica list.
    stranger: INVALID_REPLICA_ASSIGNMENT The manual partition assignment includes broker 2, but no such broker is registered.
    doubled: INVALID_REPLICA_ASSIGNMENT The manual partition assignment includes the broker 1 more than once.
    gap: INVALID_REPLICA_ASSIGNMENT partitions should be a consecutive 0-based integer sequence
    repeated: INVALID_REPLICA_ASSIGNMENT Found multiple manual partition assignments for partition 0
    both: INVALID_REQUEST A manual partition assignment was specified, but numPartitions was not set to -1.
    both2: INVALID_REQUEST A manual partition assignment was specified, but replication factor was not set to -1.
    twice: INVALID_REQUEST Duplicate topic name.
    ");
    assert_eq!(cluster.image, before);
    let outcomes = cluster.create(&creating(vec![topic("huge", 10_001, 1), topic("ok", 1, 1)]));
    insta::assert_snapshot!(text(&outcomes), @r"
    huge: POLICY_VIOLATION Excessively large number of partitions per request.
    ok: POLICY_VIOLATION Excessively large number of partitions per request.
    ");
    assert_eq!(cluster.image, before);
}

#[test]
fn one_refused_topic_does_not_hold_back_the_others_and_validation_alone_creates_nothing() {
    let mut cluster = Cluster::new();
    let mut request = creating(vec![topic("a", 1, 1), topic("a b", 1, 1), assigned("c", &[(1, &[1]), (0, &[1])])]);
    request.validate_only = true;
    let wanted: Vec<ErrorCode> = cluster.create(&request).into_iter().map(|(_, error, _)| error).collect();
    assert_eq!(wanted, [ErrorCode::None, ErrorCode::InvalidTopicException, ErrorCode::None]);
    assert_eq!(cluster.image.topics().count(), 0);
    request.validate_only = false;
    cluster.create(&request);
    let names: Vec<&str> = cluster.image.topics_by_name().map(|topic| &*topic.name).collect();
    assert_eq!(names, ["a", "c"]);
}

#[test]
fn topics_are_deleted_by_name_and_by_id_with_their_configs() {
    let mut cluster = Cluster::new();
    cluster.create(&creating(vec![
        topic_with("a", &[("retention.ms", Some("1"))]),
        topic("b", 1, 1),
        topic("c", 1, 1),
    ]));
    let id = |cluster: &Cluster, name: &str| cluster.image.topic_named(name).unwrap().id;
    let by_name = |name: &str| DeleteTopicState { name: Some(name.into()), ..Default::default() };
    let by_id = |topic_id| DeleteTopicState { name: None, topic_id, ..Default::default() };
    let unknown = Uuid::from_bytes([9; 16]);
    let request = DeleteTopicsRequest {
        topics: vec![
            by_name("a"),
            by_id(id(&cluster, "b")),
            by_name("nothing"),
            by_id(unknown),
            by_id(Uuid::ZERO),
            DeleteTopicState { name: Some("x".into()), topic_id: unknown, ..Default::default() },
            by_name("twice"),
            by_name("twice"),
            by_id(id(&cluster, "c")),
            by_name("c"),
        ],
        ..Default::default()
    };
    insta::assert_snapshot!(text(&cluster.delete(&request, 6)), @r"
    : INVALID_REQUEST Neither topic name nor id were specified.
    x: INVALID_REQUEST You may not specify both topic name and topic id.
    twice: INVALID_REQUEST Duplicate topic name.
    : UNKNOWN_TOPIC_ID This server does not host this topic ID.
    nothing: UNKNOWN_TOPIC_OR_PARTITION This server does not host this topic-partition.
    c: INVALID_REQUEST The provided topic name maps to an ID that was already supplied.
    b: NONE -
    a: NONE -
    ");
    let names: Vec<&str> = cluster.image.topics_by_name().map(|topic| &*topic.name).collect();
    assert_eq!(names, ["c"], "what was named twice stays");
    assert!(cluster.image.topic_config("a").is_empty());
    let request = DeleteTopicsRequest { topic_names: vec!["c".into()], ..Default::default() };
    assert_eq!(text(&cluster.delete(&request, 5)), "c: NONE -");
}

#[test]
fn deletion_can_be_switched_off() {
    let mut cluster = Cluster::with(&[("delete.topic.enable", "false")]);
    cluster.create(&creating(vec![topic("a", 1, 1)]));
    let request = DeleteTopicsRequest { topic_names: vec!["a".into()], ..Default::default() };
    assert_eq!(text(&cluster.delete(&request, 5)), "a: TOPIC_DELETION_DISABLED Topic deletion is disabled.");
    assert_eq!(cluster.delete(&request, 2)[0].1, ErrorCode::InvalidRequest);
    assert!(cluster.image.topic_named("a").is_some());
}

#[test]
fn partitions_are_added_and_never_taken_away() {
    let mut cluster = Cluster::new();
    cluster.create(&creating(vec![topic("a", 2, 1)]));
    let add = |name: &str, count, assignments: Option<&[&[i32]]>| CreatePartitionsTopic {
        name: name.into(),
        count,
        assignments: assignments.map(|all| {
            all.iter()
                .map(|brokers| CreatePartitionsAssignment { broker_ids: (*brokers).into(), ..Default::default() })
                .collect()
        }),
        ..Default::default()
    };
    let mut all = Vec::new();
    for request in [
        vec![add("a", 2, None)],
        vec![add("a", 1, None)],
        vec![add("nothing", 3, None)],
        vec![add("a", 3, None), add("a", 4, None)],
        vec![add("a", 3, Some(&[]))],
        vec![add("a", 3, Some(&[&[1, 1]]))],
        vec![add("a", 3, Some(&[&[2]]))],
        vec![add("a", i32::MAX, None)],
        vec![add("a", 3, Some(&[&[1]]))],
        vec![add("a", 5, None)],
    ] {
        all.extend(cluster.extend(request));
    }
    insta::assert_snapshot!(text(&all), @r"
    a: INVALID_PARTITIONS Topic already has 2 partition(s).
    a: INVALID_PARTITIONS The topic a currently has 2 partition(s); 1 would not be an increase.
    nothing: UNKNOWN_TOPIC_OR_PARTITION -
    a: INVALID_REQUEST Duplicate topic name.
    a: INVALID_REPLICA_ASSIGNMENT Attempted to add 1 additional partition(s), but only 0 assignment(s) were specified.
    a: INVALID_REPLICA_ASSIGNMENT The manual partition assignment includes the broker 1 more than once.
    a: INVALID_REPLICA_ASSIGNMENT The manual partition assignment includes broker 2, but no such broker is registered.
    a: POLICY_VIOLATION Unable to perform excessively large batch operation.
    a: NONE -
    a: NONE -
    ");
    assert_eq!(cluster.image.topic_named("a").unwrap().partitions.len(), 5);
}

#[test]
fn configs_of_a_topic_are_set_deleted_and_edited() {
    let mut cluster = Cluster::new();
    cluster.create(&creating(vec![topic("a", 1, 1)]));
    const TOPIC: i8 = 2;
    let none = (ErrorCode::None, None);
    assert_eq!(cluster.alter(TOPIC, "a", &[("retention.ms", 0, Some("5"))]), none);
    assert_eq!(cluster.alter(TOPIC, "a", &[("cleanup.policy", 2, Some("compact"))]), none);
    assert_eq!(cluster.image.topic_config("a")["cleanup.policy"], "delete,compact");
    assert_eq!(cluster.alter(TOPIC, "a", &[("cleanup.policy", 3, Some("delete"))]), none);
    assert_eq!(cluster.image.topic_config("a")["cleanup.policy"], "compact");
    assert_eq!(cluster.alter(TOPIC, "a", &[("retention.ms", 1, None)]), none);
    assert_eq!(cluster.image.topic_config("a").len(), 1);

    let refused: Vec<String> = [
        (TOPIC, "a", vec![("retention.ms", 0, Some("x"))]),
        (TOPIC, "a", vec![("retention.ms", 0, None)]),
        (TOPIC, "a", vec![("retention.ms", 9, Some("1"))]),
        (TOPIC, "a", vec![("retention.ms", 2, Some("1"))]),
        (TOPIC, "a", vec![("retention.ms", 0, Some("1")), ("retention.ms", 1, None)]),
        (TOPIC, "a", vec![("nonsense", 0, Some("1"))]),
        (TOPIC, "nothing", vec![]),
        (TOPIC, "", vec![]),
        (TOPIC, "a b", vec![]),
        (3, "a", vec![]),
        (4, "one", vec![]),
        (4, "1", vec![("log.dirs", 0, Some("/x"))]),
        (4, "1", vec![("ssl.keystore.type", 0, Some("PEM"))]),
        (4, "", vec![("cordoned.log.dirs", 0, Some("/x"))]),
        (4, "", vec![("log.retention.ms", 0, Some("x"))]),
        (4, "", vec![("log.retention.ms", 0, Some("0"))]),
        (4, "", vec![("max.connections.per.ip", 0, Some("0"))]),
        (4, "1", vec![("listeners", 0, Some("PLAINTEXT://:9"))]),
        (4, "1", vec![("listener.name.inside.max.connections", 0, Some("x"))]),
        (4, "", vec![("listener.name.inside.ssl.protocol", 0, Some("x"))]),
        (4, "1", vec![("min.insync.replicas", 0, Some("2"))]),
        (4, "", vec![("min.insync.replicas", 1, None)]),
    ]
    .into_iter()
    .map(|(kind, name, configs)| {
        let (error, message) = cluster.alter(kind, name, &configs);
        format!("{} {}", error.name(), message.as_deref().unwrap_or("-"))
    })
    .collect();
    insta::assert_snapshot!(refused.join("\n"), @r"
    INVALID_CONFIG Invalid value x for configuration retention.ms: Not a number of type LONG
    INVALID_REQUEST Null value not supported for : retention.ms
    INVALID_REQUEST Unknown operations type 9
    INVALID_CONFIG Can't APPEND to key retention.ms because its type is not LIST.
    INVALID_REQUEST Error due to duplicate config keys
    INVALID_CONFIG Unknown topic config name: nonsense
    UNKNOWN_TOPIC_OR_PARTITION The topic 'nothing' does not exist.
    INVALID_REQUEST Default topic resources are not allowed.
    INVALID_TOPIC_EXCEPTION Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'
    INVALID_REQUEST Unknown resource type 3
    INVALID_REQUEST Node id must be an integer, but it is: one
    INVALID_REQUEST Cannot update these configs dynamically: [log.dirs]
    INVALID_REQUEST These security configs can be dynamically updated only per-listener using the listener prefix: [ssl.keystore.type]
    INVALID_REQUEST Cannot update these configs at default cluster level, broker id must be specified: [cordoned.log.dirs]
    INVALID_REQUEST Invalid value x for configuration log.retention.ms: Not a number of type LONG
    INVALID_REQUEST log.retention.ms=0: allowed is a number of at least 1, or -1 for unlimited
    INVALID_REQUEST max.connections.per.ip=0: allowed is 0 only where max.connections.per.ip.overrides is set
    INVALID_REQUEST Cannot update these configs dynamically: [listeners]
    INVALID_REQUEST Invalid value x for configuration max.connections: Not a number of type INT
    INVALID_REQUEST Cannot update these configs at default cluster level, broker id must be specified: [listener.name.inside.ssl.protocol]
    INVALID_CONFIG Broker-level min.insync.replicas cannot be altered while ELR is enabled.
    INVALID_CONFIG Cluster-level min.insync.replicas cannot be removed while ELR is enabled.
    ");
}

#[test]
fn the_values_of_a_topic_are_checked_before_its_name_and_the_name_before_the_topic() {
    let mut cluster = Cluster::new();
    let long = "x".repeat(32_768);
    let mut refused = |name: &str, configs: &[(&str, i8, Option<&str>)]| cluster.alter(2, name, configs).0;
    for name in ["nothing", "", "a b"] {
        let null = [("retention.ms", 0, None)];
        assert_eq!(refused(name, &null), ErrorCode::InvalidRequest, "{name:?}: a value that is null");
        let no_list = [("retention.ms", 2, Some("1"))];
        assert_eq!(refused(name, &no_list), ErrorCode::InvalidConfig, "{name:?}: not a list");
        assert_eq!(refused(name, &[("retention.ms", 0, Some(&long))]), ErrorCode::InvalidConfig, "{name:?}: too long");
    }
    let invalid = [("retention.ms", 0, Some("x"))];
    assert_eq!(refused("", &invalid), ErrorCode::InvalidRequest);
    assert_eq!(refused("a b", &invalid), ErrorCode::InvalidTopicException);
    assert_eq!(refused("nothing", &invalid), ErrorCode::InvalidConfig);
    assert_eq!(refused("nothing", &[("retention.ms", 0, Some("1"))]), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(refused("nothing", &[]), ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn what_a_broker_ignores_of_its_metadata_holds_back_no_change() {
    let mut cluster = Cluster::new();
    let found = ConfigResource::broker(NodeId(1)).record("listeners", Some("PLAINTEXT://:9"));
    cluster.commit(&[found]);
    let none = (ErrorCode::None, None);
    assert_eq!(cluster.alter(4, "1", &[("log.retention.ms", 0, Some("5"))]), none);
    assert_eq!(cluster.alter(4, "", &[("listener.name.inside.max.connections", 0, Some("5"))]), none);
    assert_eq!(cluster.alter(4, "1", &[("listeners", 1, None)]), none);
    assert_eq!(cluster.image.config(&ConfigResource::broker(NodeId(1))).len(), 1);
}

#[test]
fn a_brokers_dynamic_config_is_in_force_for_its_topics() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.alter(4, "", &[("log.retention.ms", 0, Some("77"))]).0, ErrorCode::None);
    assert_eq!(cluster.alter(4, "1", &[("log.segment.bytes", 0, Some("2000000"))]).0, ErrorCode::None);
    let layers = cluster.image.layers(&cluster.broker);
    let config = tidelog_config::TopicConfig::resolve(&Default::default(), &layers);
    assert_eq!((config.retention_ms, config.segment_bytes), (77, 2_000_000));
}

#[test]
fn the_older_way_replaces_all_configs_of_a_resource() {
    let mut cluster = Cluster::new();
    cluster.create(&creating(vec![topic_with("a", &[("retention.ms", Some("1")), ("segment.ms", Some("2"))])]));
    let config = |name: &str, value: Option<&str>| alter_configs_request::AlterableConfig {
        name: name.into(),
        value: value.map(Into::into),
        ..Default::default()
    };
    let request = |configs| AlterConfigsRequest {
        resources: vec![alter_configs_request::AlterConfigsResource {
            resource_type: 2,
            resource_name: "a".into(),
            configs,
            ..Default::default()
        }],
        ..Default::default()
    };
    let asked = request(vec![config("segment.ms", Some("3"))]);
    let response = cluster.decide(|image, context, _| alter_configs(image, context, &asked));
    assert_eq!(response.responses[0].error_code, 0);
    let expected = [("segment.ms".to_owned(), "3".to_owned())].into_iter().collect();
    assert_eq!(*cluster.image.topic_config("a"), expected);
    let asked = request(vec![config("segment.ms", None)]);
    let response = cluster.decide(|image, context, _| alter_configs(image, context, &asked));
    assert_eq!(response.responses[0].error_code, ErrorCode::InvalidRequest.code());
    assert_eq!(*cluster.image.topic_config("a"), expected);
}

#[test]
fn producer_ids_come_in_blocks_that_never_overlap() {
    let mut cluster = Cluster::new();
    let epoch = cluster.image.broker(NodeId(1)).unwrap().broker_epoch;
    let mut blocks = Vec::new();
    for _ in 0..3 {
        blocks.push(cluster.decide(|image, _, _| allocate_producer_ids(image, NodeId(1), epoch)).unwrap().first.0);
    }
    assert_eq!(blocks, [0, 1000, 2000]);
    let stale = cluster.decide(|image, _, _| allocate_producer_ids(image, NodeId(1), epoch - 1)).unwrap_err();
    assert_eq!(stale.error, ErrorCode::StaleBrokerEpoch);
}

#[test]
fn every_start_leads_its_partitions_in_a_new_epoch() {
    let mut cluster = Cluster::new();
    cluster.create(&creating(vec![topic("a", 1, 1)]));
    cluster.start(NodeId(1), &[DIR_A, DIR_B]);
    let partition = cluster.partition("a", 0);
    assert_eq!(
        (partition.leader, partition.leader_epoch, partition.partition_epoch),
        (Some(NodeId(1)), LeaderEpoch(2), 2),
        "it loses its leader with the earlier life of the broker, and gets it again"
    );
}

#[test]
fn a_partition_that_a_real_kafka_left_without_a_leader_is_led_again() {
    let mut cluster = Cluster::new();
    cluster.create(&creating(vec![topic("eligible", 1, 1), topic("known", 1, 1), topic("gone", 1, 1)]));
    let change = |cluster: &Cluster, name: &str, elr: &[i32], known: &[i32]| {
        MetadataRecord::from(tidelog_wire::messages::PartitionChangeRecord {
            partition_id: 0,
            topic_id: cluster.image.topic_named(name).unwrap().id,
            isr: Some(smallvec![]),
            leader: -1,
            eligible_leader_replicas: Some(elr.into()),
            last_known_elr: Some(known.into()),
            ..Default::default()
        })
    };
    let records = [
        change(&cluster, "eligible", &[1], &[1]),
        change(&cluster, "known", &[], &[1]),
        change(&cluster, "gone", &[], &[]),
    ];
    cluster.commit(&records);
    cluster.start(NodeId(1), &[DIR_A, DIR_B]);
    for name in ["eligible", "known"] {
        let partition = cluster.partition(name, 0);
        assert_eq!((partition.leader, partition.isr.as_slice()), (Some(NodeId(1)), &[NodeId(1)][..]));
        assert!(partition.eligible_leaders.is_empty() && partition.last_known_eligible_leaders.is_empty());
    }
    assert_eq!(cluster.partition("gone", 0).leader, None, "nobody is known to have its records");
}

#[test]
fn a_record_that_does_not_fit_is_an_error_that_names_it() {
    let mut image = Image::default();
    let record = tidelog_wire::messages::RemoveTopicRecord { topic_id: DIR_A, ..Default::default() };
    let error = image.apply(&record.into()).unwrap_err();
    assert!(error.to_string().contains("RemoveTopicRecord"), "{error}");
    assert_eq!(error.why, format!("there is no topic with the id {DIR_A}"));
    assert!(image.apply(&EndTransactionRecord::default().into()).is_err());
}

#[test]
fn what_is_only_kept_is_in_the_snapshot_until_it_is_removed() {
    let mut image = Image::default();
    let acl = |id| AccessControlEntryRecord { id, principal: "User:a".into(), ..Default::default() };
    let quota = |value, remove| ClientQuotaRecord {
        entity: vec![client_quota_record::EntityData {
            entity_type: "user".into(),
            entity_name: None,
            ..Default::default()
        }],
        key: "producer_byte_rate".into(),
        value,
        remove,
        ..Default::default()
    };
    image.apply(&acl(DIR_A).into()).unwrap();
    image.apply(&acl(DIR_B).into()).unwrap();
    image.apply(&RemoveAccessControlEntryRecord { id: DIR_A, ..Default::default() }.into()).unwrap();
    image.apply(&quota(1.0, false).into()).unwrap();
    image.apply(&quota(2.0, false).into()).unwrap();
    let scram = UserScramCredentialRecord { name: "a".into(), mechanism: 1, ..Default::default() };
    image.apply(&scram.clone().into()).unwrap();
    assert_eq!(image.to_records(), [quota(2.0, false).into(), acl(DIR_B).into(), scram.into()]);
    image.apply(&quota(0.0, true).into()).unwrap();
    assert_eq!(image.to_records().len(), 2);
}

#[test]
fn an_older_metadata_version_leaves_out_what_it_cannot_say() {
    let mut cluster = Cluster::new();
    cluster.create(&creating(vec![topic("a", 1, 1)]));
    let partition = cluster.partition("a", 0).record(DIR_A, 0);
    let broker: MetadataRecord = cluster.image.broker(NodeId(1)).unwrap().clone().into();
    let change = BrokerRegistrationChangeRecord { fenced: -1, ..registration_change(NodeId(1), 5) }.into();
    for (level, versions) in [(7, (0, 1, 0)), (8, (0, 2, 0)), (17, (1, 3, 0)), (23, (2, 3, 0)), (30, (2, 4, 0))] {
        let version = |record: &MetadataRecord| MetadataRecord::decode(records::encode(record, level)).unwrap().1;
        assert_eq!((version(&partition), version(&broker), version(&change)), versions, "level {level}");
    }
}

#[test]
fn a_cluster_of_a_later_kafka_is_refused_with_what_is_allowed() {
    assert_eq!(
        records::check_features(records::FEATURES.iter().map(|feature| (feature.name, feature.initial))),
        Ok(())
    );
    let refused = [("metadata.version", 31), ("metadata.version", 6), ("unheard.of", 1), ("group.version", 2)]
        .map(|feature| records::check_features([feature]).unwrap_err());
    insta::assert_snapshot!(refused.join("\n"), @r"
    the cluster's metadata.version is at level 31; allowed is 7 to 30
    the cluster's metadata.version is at level 6; allowed is 7 to 30
    the cluster uses the feature unheard.of (level 1), which this broker does not know
    the cluster's group.version is at level 2; allowed is 0 to 1
    ");
}

#[derive(Clone, Debug)]
enum Step {
    Create(u8, i32, bool),
    Delete(u8),
    Extend(u8, i32),
    Set(u8, u8),
    Unset(u8),
    Broker(i32),
    Restart(i32),
    ProducerIds,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..6, -1i32..4, any::<bool>()).prop_map(|(name, count, configs)| Step::Create(name, count, configs)),
        (0u8..6).prop_map(Step::Delete),
        (0u8..6, 1i32..8).prop_map(|(name, count)| Step::Extend(name, count)),
        (0u8..6, 0u8..4).prop_map(|(name, value)| Step::Set(name, value)),
        (0u8..6).prop_map(Step::Unset),
        (0i32..3).prop_map(Step::Broker),
        (1i32..4).prop_map(Step::Restart),
        Just(Step::ProducerIds),
    ]
}

fn name_of(name: u8) -> String {
    ["a", "b.c", "b_c", "d", "e", "f"][name as usize].to_owned()
}

proptest! {
    /// After any requests in any order, the image keeps its invariants, and a snapshot of it gives the same image.
    #[test]
    fn decisions_keep_the_image_sound_and_snapshots_lose_nothing(steps in prop::collection::vec(step(), 1..40)) {
        let mut cluster = Cluster::new();
        for step in steps {
            cluster.take(step);
        }
        let mut again = Image::default();
        for record in cluster.image.to_records() {
            let level = cluster.image.metadata_version();
            let (decoded, _) = MetadataRecord::decode(records::encode(&record, level)).unwrap();
            prop_assert_eq!(&decoded, &record);
            again.apply(&decoded).unwrap();
        }
        again.verify();
        prop_assert_eq!(again, cluster.image);
    }
}

#[test]
fn a_registration_keeps_what_it_said() {
    let cluster = Cluster::new();
    let broker: &RegisterBrokerRecord = cluster.image.broker(NodeId(1)).unwrap();
    assert!(!broker.fenced);
    assert_eq!(broker.broker_epoch, 3, "the offset of its record, after two features and a config");
    assert_eq!(broker.end_points[0].port, 9092);
}
