//! What librdkafka asks for as an administrator, and what a consumer asks about a topic. Results are compared, not only
//! that there is no error.

use crate::raw::{self, Admin, Cluster, Partition};
use crate::wait;
use rdkafka::admin::{AdminOptions, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const TOPIC: &str = "rdkafka-admin";
const TIMEOUT: Duration = Duration::from_secs(30);
/// What takes longer is a client that hangs.
const QUICK: Duration = Duration::from_secs(5);

pub fn check(broker: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker);
    let admin: Admin = config.create().expect("an admin client");
    topics(&admin);
    configs(&admin);
    records(&admin, &config);
    cluster(&admin, broker);
    security(&admin);
    groups(&admin);
    let deleted = wait(admin.delete_topics(&[TOPIC, "rdkafka-unknown"], &AdminOptions::new())).expect("DeleteTopics");
    let unknown = Err(("rdkafka-unknown".to_owned(), Code::UnknownTopicOrPartition));
    assert_eq!(deleted, [Ok(TOPIC.to_owned()), unknown]);
    println!("rdkafka: admin requests for topics, configs, records, offsets, the cluster, ACLs, groups");
}

fn topics(admin: &Admin) {
    let topic = |name, partitions, replicas| NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
    let create = |topics: &[NewTopic<'_>], options: AdminOptions| {
        wait(admin.create_topics(topics, &options)).expect("CreateTopics")
    };
    let good = topic(TOPIC, 2, 1).set("retention.ms", "3600000");
    let validated = create(std::slice::from_ref(&good), AdminOptions::new().validate_only(true));
    assert_eq!(validated, [Ok(TOPIC.to_owned())]);
    let created = create(
        &[
            good,
            topic("rdkafka-replicas", 1, 2),
            topic("rdkafka-partitions", 0, 1),
            topic("rdkafka-config", 1, 1).set("retention.ms", "long"),
            topic("no such/name", 1, 1),
            NewTopic::new("rdkafka-assigned", 1, TopicReplication::Variable(&[&[7]])),
        ],
        AdminOptions::new(),
    );
    let refused = |name: &str, code| Err((name.to_owned(), code));
    let expected = [
        Ok(TOPIC.to_owned()),
        refused("rdkafka-replicas", Code::InvalidReplicationFactor),
        refused("rdkafka-partitions", Code::InvalidPartitions),
        refused("rdkafka-config", Code::InvalidConfig),
        refused("no such/name", Code::InvalidTopic),
        refused("rdkafka-assigned", Code::InvalidReplicaAssignment),
    ];
    assert_eq!(created, expected);
    assert_eq!(create(&[topic(TOPIC, 2, 1)], AdminOptions::new()), [refused(TOPIC, Code::TopicAlreadyExists)]);

    let grow = |name, count| {
        let partitions = NewPartitions::new(name, count);
        wait(admin.create_partitions([&partitions], &AdminOptions::new())).expect("CreatePartitions")
    };
    assert_eq!(grow(TOPIC, 3), [Ok(TOPIC.to_owned())]);
    assert_eq!(grow(TOPIC, 2), [refused(TOPIC, Code::InvalidPartitions)]);
    assert_eq!(grow("rdkafka-unknown", 2), [refused("rdkafka-unknown", Code::UnknownTopicOrPartition)]);

    let described = raw::describe_topics(admin, &[TOPIC, "rdkafka-unknown"]).expect("DescribeTopics");
    let [known, unknown] = described.as_slice() else { panic!("{described:?}") };
    let partition = |index| Partition { index, leader: 1, replicas: vec![1], isr: vec![1] };
    assert_eq!(known.as_ref().expect("a topic"), &[partition(0), partition(1), partition(2)]);
    assert_eq!(unknown.as_ref().expect_err("no topic").code, Code::UnknownTopicOrPartition);
}

fn configs(admin: &Admin) {
    let describe = |resource| {
        let mut described = wait(admin.describe_configs([&resource], &AdminOptions::new())).expect("DescribeConfigs");
        described.pop().expect("a resource")
    };
    let topic = || describe(ResourceSpecifier::Topic(TOPIC)).expect("a topic");
    let value = |name: &str| {
        let described = topic();
        let entry = described.get(name).unwrap_or_else(|| panic!("no {name} in {described:?}"));
        (entry.value.clone().expect("a value"), entry.is_default)
    };
    let is = |text: &str, is_default| (text.to_owned(), is_default);
    assert!(topic().entries.len() > 20, "all configs of a topic: {:?}", topic().entries);
    assert_eq!(value("retention.ms"), is("3600000", false));
    assert_eq!(topic().get("retention.ms").expect("a config").source, ConfigSource::DynamicTopic);
    assert_eq!(value("cleanup.policy"), is("delete", true));
    let named = raw::describe_named_configs(admin, TOPIC, &["cleanup.policy", "retention.ms"]).expect("two configs");
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(named, [pair("cleanup.policy", "delete"), pair("retention.ms", "3600000")]);
    let unknown = raw::describe_named_configs(admin, "rdkafka-unknown", &[]).expect_err("no topic");
    assert_eq!(unknown.code, Code::UnknownTopicOrPartition);

    let broker = describe(ResourceSpecifier::Broker(1)).expect("a broker");
    assert_eq!(broker.get("node.id").expect("node.id").value.as_deref(), Some("1"));
    let listeners = broker.get("listeners").expect("listeners");
    assert!(listeners.value.as_deref().is_some_and(|value| value.starts_with("PLAINTEXT://")), "{listeners:?}");
    assert!(listeners.is_read_only && listeners.source == ConfigSource::StaticBroker, "{listeners:?}");
    let message_bytes = broker.get("message.max.bytes").expect("message.max.bytes");
    assert_eq!(message_bytes.value.as_deref(), Some("1048588"));
    assert!(!message_bytes.is_read_only && message_bytes.source == ConfigSource::Default, "{message_bytes:?}");

    // IncrementalAlterConfigs changes what it names.
    raw::change_configs(admin, TOPIC, &[("max.message.bytes", Some("65536"))]).expect("a change");
    assert_eq!(value("max.message.bytes"), is("65536", false));
    assert_eq!(value("retention.ms"), is("3600000", false));
    let wrong = raw::change_configs(admin, TOPIC, &[("retention.ms", Some("long"))]).expect_err("not a number");
    assert_eq!(wrong.code, Code::InvalidConfig);
    assert!(wrong.text.contains("Invalid value long for configuration retention.ms"), "{wrong:?}");
    raw::change_configs(admin, TOPIC, &[("retention.ms", None)]).expect("a config that is deleted");
    assert_eq!(value("retention.ms"), is("604800000", true));

    // AlterConfigs replaces all configs.
    let wrong = raw::replace_configs(admin, TOPIC, &[("max.message.bytes", "many")]).expect_err("not a number");
    assert_eq!(wrong.code, Code::InvalidConfig);
    raw::replace_configs(admin, TOPIC, &[("retention.ms", "7200000")]).expect("a change");
    assert_eq!(value("retention.ms"), is("7200000", false));
    assert_eq!(value("max.message.bytes"), is("1048588", true));
    raw::change_configs(admin, TOPIC, &[("max.message.bytes", Some("65536"))]).expect("a change");
}

/// Keeps what became of each record: its offset, or the error.
struct Delivered(Mutex<Vec<Result<i64, Code>>>);

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let outcome = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.rdkafka_error_code().expect("an error of librdkafka")),
        };
        self.0.lock().expect("no panic before").push(outcome);
    }
}

fn records(admin: &Admin, config: &ClientConfig) {
    // Retention would delete records of long ago.
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let begin_ms = i64::try_from(since_1970.as_millis()).expect("a date");
    let mut settings = config.clone();
    settings.set("acks", "all").set("linger.ms", "5");
    let producer: ThreadedProducer<Delivered> =
        settings.create_with_context(Delivered(Mutex::default())).expect("a producer");
    for number in 0..100 {
        let value = format!("value {number}");
        let record: BaseRecord<'_, (), str> =
            BaseRecord::to(TOPIC).partition(0).payload(value.as_str()).timestamp(begin_ms + number);
        producer.send(record).map_err(|(error, _)| error).expect("a record that is queued");
    }
    producer.flush(TIMEOUT).expect("a flush");
    let delivered = |producer: &ThreadedProducer<Delivered>| {
        std::mem::take(&mut *producer.context().0.lock().expect("no panic before"))
    };
    assert_eq!(delivered(&producer), (0..100).map(Ok).collect::<Vec<_>>());
    // More than the topic's max.message.bytes, so the broker refuses it.
    let large = "x".repeat(100_000);
    let record: BaseRecord<'_, (), str> = BaseRecord::to(TOPIC).partition(0).payload(&large);
    producer.send(record).map_err(|(error, _)| error).expect("a record that is queued");
    producer.flush(TIMEOUT).expect("a flush");
    assert_eq!(delivered(&producer), [Err(Code::MessageSizeTooLarge)]);

    let offset = |spec| raw::list_offset(admin, TOPIC, 0, spec).expect("ListOffsets");
    assert_eq!((offset(-2).0, offset(-1).0), (0, 100));
    assert_eq!(offset(-3), (99, begin_ms + 99), "the record with the greatest timestamp");
    assert_eq!(offset(begin_ms + 50), (50, begin_ms + 50));
    assert_eq!(offset(begin_ms + 100), (-1, -1));

    let delete = |offset| {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(TOPIC, 0, offset).expect("a partition");
        let deleted = wait(admin.delete_records(&list, &AdminOptions::new())).expect("DeleteRecords");
        let elements = deleted.elements();
        let [partition] = elements.as_slice() else { panic!("{deleted:?}") };
        partition.error().map(|()| partition.offset())
    };
    assert_eq!(delete(Offset::Offset(40)), Ok(Offset::Offset(40)));
    assert_eq!(delete(Offset::Offset(101)), Err(KafkaError::OffsetFetch(Code::OffsetOutOfRange)));
    assert_eq!(offset(-2).0, 40);

    let consumer: BaseConsumer = config.create().expect("a consumer");
    assert_eq!(consumer.fetch_watermarks(TOPIC, 0, TIMEOUT).expect("watermarks"), (40, 100));
    let for_time = |timestamp| {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(TOPIC, 0, Offset::Offset(timestamp)).expect("a partition");
        let found = consumer.offsets_for_times(list, TIMEOUT).expect("ListOffsets");
        found.find_partition(TOPIC, 0).expect("the partition").offset()
    };
    assert_eq!(for_time(begin_ms), Offset::Offset(40));
    assert_eq!(for_time(begin_ms + 50), Offset::Offset(50));
    assert_eq!(for_time(begin_ms + 100), Offset::End);
    assert_eq!(delete(Offset::End), Ok(Offset::Offset(100)));
    assert_eq!(consumer.fetch_watermarks(TOPIC, 0, TIMEOUT).expect("watermarks"), (100, 100));

    let metadata = consumer.fetch_metadata(Some(TOPIC), TIMEOUT).expect("Metadata");
    let [topic] = metadata.topics() else { panic!("{} topics", metadata.topics().len()) };
    assert_eq!((topic.name(), topic.error()), (TOPIC, None));
    let found: Vec<Partition> = topic
        .partitions()
        .iter()
        .map(|partition| Partition {
            index: partition.id(),
            leader: partition.leader(),
            replicas: partition.replicas().to_vec(),
            isr: partition.isr().to_vec(),
        })
        .collect();
    let expected = [0, 1, 2].map(|index| Partition { index, leader: 1, replicas: vec![1], isr: vec![1] });
    assert_eq!(found, expected);
    let unknown = consumer.fetch_metadata(Some("rdkafka-unknown"), TIMEOUT).expect("Metadata");
    let error = unknown.topics()[0].error().expect("an error: consumers create no topics");
    assert_eq!(Code::from(error), Code::UnknownTopicOrPartition);
    let all = consumer.fetch_metadata(None, TIMEOUT).expect("Metadata");
    assert!(all.topics().iter().any(|topic| topic.name() == TOPIC), "the topic among all");
}

fn cluster(admin: &Admin, broker: &str) {
    let Cluster { id, controller, brokers } = raw::describe_cluster(admin).expect("DescribeCluster");
    assert_eq!((controller, brokers), (1, vec![(1, broker.to_owned())]));
    assert_eq!(id.len(), 22, "{id}");
    assert_eq!(admin.inner().fetch_cluster_id(TIMEOUT), Some(id));
    // The partition has its preferred leader.
    let elected = raw::elect_leader(admin, TOPIC, 0).expect_err("no election");
    assert_eq!(elected.code, Code::ElectionNotNeeded);
}

fn security(admin: &Admin) {
    for refused in [raw::create_acl(admin), raw::delete_acls(admin)] {
        let refused = refused.expect_err("no authorizer");
        assert_eq!(refused.code, Code::SecurityDisabled);
        assert_eq!(refused.text, "No Authorizer is configured.");
    }
    // librdkafka reads the same error of DescribeAcls, and does not tell its application.
    assert_eq!(raw::describe_acls(admin), Ok(0));
}

/// There are no groups yet. Who asks for them gets an error, and soon.
fn groups(admin: &Admin) {
    let begin = Instant::now();
    let (groups, errors) = raw::list_groups(admin).expect("an answer for each broker");
    assert_eq!((groups, errors.len()), (0, 1));
    assert_eq!(errors[0].code, Code::UnsupportedFeature);
    let listed = admin.inner().fetch_group_list(None, TIMEOUT).map(|_| ());
    assert_eq!(listed, Err(KafkaError::GroupListFetch(Code::UnsupportedFeature)));
    // librdkafka asks for the coordinator again and again, until the time that its application gave is over.
    let short = Duration::from_millis(300);
    let described = raw::describe_group(admin, "group", short).expect_err("no coordinator");
    assert_eq!(described.code, Code::OperationTimedOut);
    let options = AdminOptions::new().request_timeout(Some(short));
    let deleted = wait(admin.delete_groups(&["group"], &options)).expect("an answer for each group");
    assert_eq!(deleted, [Err(("group".to_owned(), Code::OperationTimedOut))]);
    assert!(begin.elapsed() < QUICK, "{:?}", begin.elapsed());
}
