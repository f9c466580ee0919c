//! What an operator reads in the log of the real binary: how a start found the directories, how a stop ended, who
//! connects with another protocol, who asks for what is not there yet, and how the levels of the log are changed.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use bytes::Bytes;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{FindCoordinatorRequest, HeartbeatRequest, IncrementalAlterConfigsRequest};
use kafka_protocol::protocol::StrBytes;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use tidelog_tests::broker::{Broker, Kind, Setup};
use tidelog_tests::client::{Client, Producer, batch};

/// Our own binary whatever the other tests run against: the texts are ours.
fn tidelog(home: &Path) -> Setup {
    Setup::of(Kind::Tidelog, home)
}

fn produce(broker: &Broker) {
    let mut client = Client::connect(broker.address()).expect("a connection");
    client.create_topic("t", 3, &[]).expect("CreateTopics");
    client.wait_for_leaders("t").expect("leaders");
    for partition in 0..3 {
        let sent = batch(Producer::NONE, &[Bytes::from_static(b"value")]);
        assert_eq!(client.produce("t", partition, sent).expect("Produce").error_code, 0);
    }
}

/// The milliseconds in the line that holds both words.
fn milliseconds(log: &str, before: &str, after: &str) -> u64 {
    let line = log.lines().find(|line| line.contains(before) && line.contains(after));
    let rest = line.and_then(|line| line.split(before).nth(1)).unwrap_or_else(|| panic!("no {before:?} in:\n{log}"));
    rest.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no number in {rest:?}"))
}

#[test]
fn a_start_says_how_the_last_life_ended_and_what_it_recovered_and_a_stop_that_it_stopped() {
    let home = tempfile::tempdir().expect("a directory");
    let setup = tidelog(home.path());
    let data = setup.data_dir().display().to_string();
    let broker = setup.start();
    produce(&broker);
    broker.kill();

    let broker = setup.start();
    let text = broker.log_text();
    assert!(text.contains(&format!("{data}: the last stop was not clean; its logs are recovered")), "{text}");
    milliseconds(&text, "4 logs recovered in ", " ms; scanned ");
    let segments = text.lines().find(|line| line.contains(" of 4 segments, cut 0 bytes"));
    assert!(segments.is_some_and(|line| line.contains(&data) && line.contains("INFO")), "{text}");

    let text = broker.stop();
    milliseconds(&text, "stopped cleanly in ", " ms");
    let broker = setup.start();
    let text = broker.log_text();
    assert!(text.contains(&format!("{data}: the last stop was clean")), "{text}");
    milliseconds(&text, "4 logs opened in ", " ms");
    broker.stop();
}

#[test]
fn the_first_steps_are_for_a_person_at_a_terminal() {
    let home = tempfile::tempdir().expect("a directory");
    let text = tidelog(home.path()).start().stop();
    assert!(!text.contains("kcat") && !text.contains("echo hello"), "{text}");
}

#[test]
fn a_client_of_another_protocol_is_told_from_one_that_is_broken() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = tidelog(home.path()).start();
    let hello = [0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
    for (sent, what) in [(&hello[..], "a TLS handshake"), (b"GET /metrics HTTP/1.1\r\n\r\n", "an HTTP request")] {
        let mut stream = TcpStream::connect(broker.address()).expect("a connection");
        stream.write_all(sent).expect("sent");
        let mut rest = Vec::new();
        // Closed, one way or the other.
        let _ = stream.read_to_end(&mut rest);
        let text =
            format!("connection closed: this looks like {what}; this listener speaks the Kafka protocol in plain text");
        broker.log_lines(1, &[&text, "peer=127.0.0.1"]);
    }
    broker.stop();
}

/// Changes a level of the log of the broker 1. Gives the error code.
fn set_level(client: &mut Client, logger: &'static str, level: Option<&'static str>) -> i16 {
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_static_str(logger))
        .with_config_operation(i8::from(level.is_none()))
        .with_value(level.map(StrBytes::from_static_str));
    let loggers = AlterConfigsResource::default()
        .with_resource_type(8)
        .with_resource_name(StrBytes::from_static_str("1"))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![loggers]);
    client.call(1, &request).expect("an answer").responses[0].error_code
}

#[test]
fn a_level_of_the_log_changes_what_is_logged_until_the_next_start() {
    let home = tempfile::tempdir().expect("a directory");
    let setup = tidelog(home.path());
    let broker = setup.start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    let accepted = || broker.log_text().matches("connection accepted").count();
    let connect = || drop(Client::connect(broker.address()).and_then(|mut client| client.topics()).expect("an answer"));
    connect();
    assert_eq!(accepted(), 0, "the level is INFO");
    assert_eq!(set_level(&mut client, "tidelog.service", Some("DEBUG")), 0);
    connect();
    broker.log_lines(1, &["WARN", "tidelog::configs", "the logger tidelog.service now has the level DEBUG"]);
    broker.log_lines(1, &["DEBUG", "tidelog::service", "connection accepted"]);
    let before = accepted();
    assert_eq!(set_level(&mut client, "root", Some("FATAL")), 0);
    connect();
    assert_eq!(accepted(), before + 1, "a logger's own level goes before the root's");
    assert_eq!(set_level(&mut client, "tidelog.service", None), 0);
    connect();
    assert_eq!(accepted(), before + 1, "now it has the root's");
    assert_eq!(set_level(&mut client, "nosuch", Some("INFO")), 40);
    drop(client);
    let log = broker.stop();
    assert!(!log.contains("stopped cleanly"), "FATAL silences all: {log}");

    let broker = setup.start();
    Client::connect(broker.address()).and_then(|mut client| client.topics()).expect("an answer");
    let log = broker.stop();
    assert!(log.contains("stopped cleanly") && !log.contains("connection accepted"), "{log}");
}

#[test]
fn a_client_that_wants_a_group_is_told_that_there_is_none_and_named_once_in_the_log() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = tidelog(home.path()).start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    let wanted = FindCoordinatorRequest::default().with_key(StrBytes::from_static_str("g"));
    for _ in 0..3 {
        let answer = client.call(3, &wanted).expect("FindCoordinator");
        assert_eq!(answer.error_code, 15, "COORDINATOR_NOT_AVAILABLE");
        assert!(answer.error_message.is_some_and(|text| text.contains("no consumer groups yet")));
    }
    let told = "a client sent FindCoordinator: there are no consumer groups and no transactions yet";
    assert_eq!(broker.log_lines(1, &[told, "client=", "peer="]).len(), 1);

    client.send(4, &HeartbeatRequest::default()).expect("sent");
    assert!(client.receive_frame().is_err(), "what is not served closes the connection");
    let told = "Heartbeat version 4: this listener does not serve this API: there are no consumer groups yet";
    broker.log_lines(1, &[told, "client=", "peer="]);
    broker.stop();
}

#[test]
fn a_broker_on_all_addresses_says_by_which_name_clients_are_told_to_connect() {
    for host in ["0.0.0.0", "[::]"] {
        let home = tempfile::tempdir().expect("a directory");
        let broker = tidelog(home.path()).set("listeners", format!("PLAINTEXT://{host}:0")).start();
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let told = format!("clients of the listener PLAINTEXT are told to connect to {name}:");
        broker.log_lines(1, &[&told, "advertised.listeners names another address"]);
        broker.stop();
    }
}
