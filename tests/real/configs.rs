//! Gives the real binary every configuration name of Kafka 4.3: each must take effect, be refused with the allowed
//! values, or be warned about by name.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use kafka_protocol::messages::IncrementalAlterConfigsRequest;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::protocol::StrBytes;
use std::time::Duration;
use tidelog_core::config::{ConfigKey, Effect, Kind, table};
use tidelog_tests::broker::{Kind as Program, Setup};
use tidelog_tests::client::Client;

/// The broker's names of Kafka 4.3's documentation.
const BROKER: &str = "
process.roles node.id listeners advertised.listeners controller.listener.names inter.broker.listener.name
listener.security.protocol.map controller.quorum.bootstrap.servers controller.quorum.voters
controller.quorum.election.timeout.ms controller.quorum.fetch.timeout.ms controller.quorum.append.linger.ms
controller.quorum.auto.join.enable broker.heartbeat.interval.ms broker.session.timeout.ms
initial.broker.registration.timeout.ms metadata.log.max.record.bytes.between.snapshots metadata.max.idle.interval.ms
metadata.log.max.snapshot.interval.ms broker.rack log.dirs log.dir num.network.threads num.io.threads
background.threads num.replica.fetchers num.recovery.threads.per.data.dir queued.max.requests
socket.send.buffer.bytes socket.receive.buffer.bytes socket.request.max.bytes connections.max.idle.ms max.connections
max.connections.per.ip max.connection.creation.rate message.max.bytes num.partitions default.replication.factor
min.insync.replicas auto.create.topics.enable delete.topic.enable unclean.leader.election.enable
auto.leader.rebalance.enable log.retention.hours log.retention.minutes log.retention.ms log.retention.bytes
log.retention.check.interval.ms log.segment.bytes log.roll.hours log.roll.ms log.cleanup.policy log.cleaner.enable
log.cleaner.threads log.cleaner.dedupe.buffer.size log.cleaner.min.cleanable.ratio log.cleaner.delete.retention.ms
log.flush.interval.messages log.flush.interval.ms log.message.timestamp.type log.message.timestamp.after.max.ms
compression.type replica.lag.time.max.ms replica.fetch.max.bytes replica.fetch.wait.max.ms replica.fetch.min.bytes
replica.fetch.response.max.bytes replica.selector.class fetch.max.bytes max.incremental.fetch.session.cache.slots
request.timeout.ms offsets.topic.num.partitions offsets.topic.replication.factor offsets.retention.minutes
offset.metadata.max.bytes group.initial.rebalance.delay.ms group.min.session.timeout.ms group.max.session.timeout.ms
group.max.size group.coordinator.rebalance.protocols group.consumer.session.timeout.ms
group.consumer.heartbeat.interval.ms group.consumer.assignors group.consumer.migration.policy
transaction.state.log.num.partitions transaction.state.log.replication.factor transaction.state.log.min.isr
transactional.id.expiration.ms transaction.max.timeout.ms producer.id.expiration.ms
transaction.partition.verification.enable share.coordinator.state.topic.num.partitions
share.coordinator.state.topic.replication.factor share.coordinator.state.topic.min.isr
group.share.record.lock.duration.ms group.share.delivery.count.limit group.share.partition.max.record.locks
controlled.shutdown.enable sasl.enabled.mechanisms sasl.mechanism.inter.broker.protocol connections.max.reauth.ms
ssl.client.auth ssl.keystore.location ssl.keystore.type ssl.keystore.password ssl.truststore.location
ssl.truststore.type ssl.truststore.password authorizer.class.name super.users allow.everyone.if.no.acl.found
delegation.token.secret.key quota.window.num quota.window.size.seconds remote.log.storage.system.enable
early.start.listeners unstable.api.versions.enable unstable.feature.versions.enable
";

/// Names that an authorizer reads, and the broker itself does not know.
const OF_THE_AUTHORIZER: [&str; 2] = ["super.users", "allow.everyone.if.no.acl.found"];

/// Names that Kafka had before 4.0.
const GONE: &str = "
zookeeper.connect broker.id.generation.enable inter.broker.protocol.version log.message.format.version log.message.downconversion.enable leader.imbalance.per.broker.percentage control.plane.listener.name
";

const TOPIC: &str = "
cleanup.policy compression.type compression.gzip.level compression.lz4.level compression.zstd.level retention.ms
retention.bytes segment.bytes segment.ms segment.jitter.ms segment.index.bytes index.interval.bytes max.message.bytes
min.insync.replicas unclean.leader.election.enable delete.retention.ms min.cleanable.dirty.ratio
min.compaction.lag.ms max.compaction.lag.ms file.delete.delay.ms flush.messages flush.ms message.timestamp.type
message.timestamp.before.max.ms message.timestamp.after.max.ms preallocate leader.replication.throttled.replicas
follower.replication.throttled.replicas remote.storage.enable local.retention.ms local.retention.bytes
remote.log.copy.disable remote.log.delete.on.disable internal.segment.bytes
";

fn names(list: &'static str) -> impl Iterator<Item = &'static str> {
    list.split_whitespace()
}

fn known() -> impl Iterator<Item = &'static ConfigKey> {
    names(BROKER).filter(|name| !OF_THE_AUTHORIZER.contains(name)).map(|name| {
        table::broker_key(name).unwrap_or_else(|| panic!("{name} is a name of Kafka's that the broker does not know"))
    })
}

fn setup(home: &tempfile::TempDir) -> Setup {
    Setup::of(Program::Tidelog, home.path())
}

#[test]
fn every_name_of_kafka_is_accepted_with_its_default_without_a_warning() {
    let home = tempfile::tempdir().expect("a directory");
    let ours = ["listeners", "log.dirs", "log.dir"];
    let setup = known().filter(|key| !ours.contains(&key.name)).fold(setup(&home), |setup, key| {
        match key.default_text() {
            Some(text) => setup.set(key.name, text),
            // A key without a default is set to nothing.
            None => setup.set(key.name, ""),
        }
    });
    let log = setup.start().stop();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

#[test]
fn every_name_that_cannot_have_its_effect_is_warned_about_or_refused() {
    let home = tempfile::tempdir().expect("a directory");
    let value = |key: &ConfigKey| {
        let candidates =
            ["true", "false", "1", "7", "150", "5000", "100000", "0.25", "requested", "classic", "DOWNGRADE", "a"];
        let fits = |text: &&&str| key.default_text() != Some(**text) && key.read(text).is_ok();
        candidates.iter().find(fits).unwrap_or_else(|| panic!("a value for {}", key.name)).to_string()
    };
    let (mut warned, mut refused) = (setup(&home), setup(&home));
    for key in known() {
        match key.effect() {
            Effect::NotYet(_) => warned = warned.set(key.name, value(key)),
            Effect::Refused(_) => refused = refused.set(key.name, value(key)),
            Effect::Works | Effect::NotNeeded(_) => {}
        }
    }
    for name in names(GONE).chain(OF_THE_AUTHORIZER) {
        warned = warned.set(name, "1");
    }
    // These are only valid together with others.
    warned = warned.set("replica.fetch.wait.max.ms", "400").set("replica.lag.time.max.ms", "40000");
    warned = warned.set("log.cleaner.dedupe.buffer.size", "150000000");
    let log = warned.start().stop();
    let silent = |name: &&str| !log.lines().any(|line| line.contains("WARN") && line.contains(&format!("{name} ")));
    let of_no_effect = known().filter(|key| matches!(key.effect(), Effect::NotYet(_))).map(|key| key.name);
    let silent: Vec<&str> = of_no_effect.chain(names(GONE)).chain(OF_THE_AUTHORIZER).filter(silent).collect();
    assert_eq!(silent, Vec::<&str>::new(), "{log}");

    let failure = refused.try_start().expect_err("it promises what it cannot keep").log;
    for key in known().filter(|key| matches!(key.effect(), Effect::Refused(_))) {
        assert!(failure.contains(&format!("{}=", key.name)), "{}: {failure}", key.name);
    }
}

#[test]
fn every_value_that_cannot_be_used_is_named_with_what_is_allowed_all_at_once() {
    let home = tempfile::tempdir().expect("a directory");
    // A text has no invalid values.
    let is_checked = |key: &&ConfigKey| !matches!(key.kind, Kind::String | Kind::Class | Kind::Password | Kind::List);
    let bad = known().filter(is_checked).fold(setup(&home), |setup, key| setup.set(key.name, "many"));
    let failure = bad.try_start().expect_err("nothing of it can be used").log;
    let mut count = 0;
    for key in known().filter(is_checked) {
        let line = format!("{}=many: allowed is {}", key.name, key.allowed());
        assert!(failure.contains(&line), "{line}: {failure}");
        count += 1;
    }
    assert!(count > 70, "{count}");
}

#[test]
fn every_name_of_a_topic_can_be_set_where_it_is_made_and_no_other() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = setup(&home).start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    let defaults: Vec<(&str, &str)> = names(TOPIC)
        .map(|name| table::topic_key(name).unwrap_or_else(|| panic!("{name} is a name of Kafka's topics")))
        .map(|key| (key.name, key.default_text().unwrap_or("1048576")))
        .collect();
    assert_eq!(client.create_topic("all", 1, &defaults).expect("an answer"), (0, None));
    let (error, text) = client.create_topic("none", 1, &[("retention.hours", "1")]).expect("an answer");
    assert_eq!((error, text.as_deref()), (40, Some("Unknown topic config name: retention.hours")));
    broker.stop();
}

/// Sets one config of all brokers; returns the error code and its text.
fn alter_all(client: &mut Client, name: &'static str, value: &str) -> (i16, Option<String>) {
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_static_str(name))
        .with_value(Some(StrBytes::from_string(value.to_owned())));
    let resource = AlterConfigsResource::default().with_resource_type(4).with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let response = client.call(1, &request).expect("an answer");
    let answer = &response.responses[0];
    (answer.error_code, answer.error_message.as_ref().map(ToString::to_string))
}

/// Waits until a new connection is served (`wanted`) or refused: the listeners follow a change of the configuration a
/// moment after the broker has answered it.
fn wait_until_served(address: &str, wanted: bool) {
    let served = || Client::connect(address).and_then(|mut client| client.topics()).is_ok();
    for _ in 0..600 {
        if served() == wanted {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("a new connection should be served: {wanted}");
}

#[test]
fn connection_limits_change_while_the_broker_runs_and_are_kept_over_a_start() {
    let home = tempfile::tempdir().expect("a directory");
    let setup = setup(&home);
    let broker = setup.start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    assert_eq!(alter_all(&mut client, "max.connections.per.ip", "1"), (0, None));
    wait_until_served(broker.address(), false);
    assert_eq!(client.topics().expect("an open connection stays open"), Vec::<String>::new());
    assert_eq!(alter_all(&mut client, "max.connections.per.ip.overrides", "127.0.0.1:50"), (0, None));
    wait_until_served(broker.address(), true);
    let (error, text) = alter_all(&mut client, "num.partitions", "3");
    assert_eq!((error, text.as_deref()), (42, Some("Cannot update these configs dynamically: [num.partitions]")));
    let (error, text) = alter_all(&mut client, "max.connections.per.ip.overrides", "nonsense");
    assert_eq!(error, 42, "{text:?}");
    assert_eq!(alter_all(&mut client, "max.connections.per.ip.overrides", "127.0.0.1:1"), (0, None));
    wait_until_served(broker.address(), false);
    drop(client);
    broker.stop();

    // This is the only connection that is allowed.
    let broker = setup.start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    assert_eq!(client.topics().expect("an answer"), Vec::<String>::new());
    wait_until_served(broker.address(), false);
    broker.stop();
}
