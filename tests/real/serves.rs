//! What a client sees of one broker over a socket, also after a clean restart.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{ApiVersionsRequest, ProduceRequest, SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::{Request, StrBytes};
use std::io::{Read, Write};
use tidelog_tests::broker::{Broker, Setup};
use tidelog_tests::client::{Client, Produced, Producer, batch};

fn values(range: std::ops::Range<u32>) -> Vec<Bytes> {
    range.map(|n| Bytes::from(format!("value {n}"))).collect()
}

/// A client of `broker` with a topic `t` of `partitions` partitions.
fn client_with_topic(broker: &Broker, partitions: i32) -> Client {
    let mut client = Client::connect(broker.address()).expect("a connection");
    assert_eq!(client.create_topic("t", partitions, &[]).expect("CreateTopics"), (0, None));
    client.wait_for_leaders("t").expect("leaders");
    client
}

#[test]
fn what_was_produced_is_read_back_also_after_a_clean_restart() {
    let home = tempfile::tempdir().expect("a directory");
    let setup = Setup::new(home.path());
    let broker = setup.start();
    let mut client = client_with_topic(&broker, 3);
    for partition in 0..3 {
        let produced = client.produce("t", partition, batch(Producer::NONE, &values(0..100))).expect("Produce");
        assert_eq!(produced, Produced { error_code: 0, base_offset: 0 });
    }
    broker.stop();

    let broker = setup.start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    assert!(client.topics().expect("Metadata").contains(&"t".to_owned()));
    client.wait_for_leaders("t").expect("leaders");
    let produced = client.produce("t", 1, batch(Producer::NONE, &values(100..150))).expect("Produce");
    assert_eq!(produced, Produced { error_code: 0, base_offset: 100 });
    for (partition, end) in [(0, 100), (1, 150), (2, 100)] {
        let records = client.read_from("t", partition, 0).expect("Fetch");
        let read: Vec<Bytes> = records.iter().map(|record| record.value.clone().expect("a value")).collect();
        assert_eq!(read, values(0..end));
        assert!((0..).zip(&records).all(|(offset, record)| record.offset == offset), "offsets are dense");
        assert_eq!(client.offset_for("t", partition, -1).expect("ListOffsets"), (0, i64::from(end)));
        assert_eq!(client.offset_for("t", partition, -2).expect("ListOffsets"), (0, 0));
    }
    broker.stop();
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = Setup::new(home.path()).start();
    let mut client = client_with_topic(&broker, 1);
    let sent: Vec<i32> = (0..200)
        .map(|n| client.send_produce("t", 0, -1, batch(Producer::NONE, &values(n..n + 1))).expect("sent"))
        .collect();
    for (base_offset, correlation_id) in (0..).zip(sent) {
        let produced = client.receive_produce(correlation_id).expect("Produce");
        assert_eq!(produced, Produced { error_code: 0, base_offset });
    }
    broker.stop();
}

#[test]
fn a_produce_without_acks_is_not_answered_and_not_lost() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = Setup::new(home.path()).start();
    let mut client = client_with_topic(&broker, 1);
    for n in 0..50 {
        client.send_produce("t", 0, 0, batch(Producer::NONE, &values(n..n + 1))).expect("sent");
    }
    // The next answer on this connection is the one to the Produce with acks: there was none before it.
    let produced = client.produce("t", 0, batch(Producer::NONE, &values(50..51))).expect("Produce");
    assert_eq!(produced, Produced { error_code: 0, base_offset: 50 });
    broker.stop();
}

#[test]
fn an_idempotent_retry_is_acknowledged_again_and_not_appended_also_across_a_restart() {
    let home = tempfile::tempdir().expect("a directory");
    let setup = Setup::new(home.path());
    let broker = setup.start();
    let mut client = client_with_topic(&broker, 1);
    let producer = client.init_producer().expect("InitProducerId");
    let first = batch(producer, &values(0..10));
    let second = batch(Producer { sequence: 10, ..producer }, &values(10..20));
    for _ in 0..2 {
        assert_eq!(client.produce("t", 0, first.clone()).expect("Produce").base_offset, 0);
    }
    broker.stop();

    let broker = setup.start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    client.wait_for_leaders("t").expect("leaders");
    assert_eq!(client.produce("t", 0, first).expect("Produce").base_offset, 0);
    assert_eq!(client.produce("t", 0, second).expect("Produce").base_offset, 10);
    let gap = batch(Producer { sequence: 30, ..producer }, &values(20..30));
    assert_eq!(client.produce("t", 0, gap).expect("Produce").error_code, 45, "OUT_OF_ORDER_SEQUENCE_NUMBER");
    assert_eq!(client.offset_for("t", 0, -1).expect("ListOffsets"), (0, 20));
    broker.stop();
}

#[test]
fn an_unsupported_api_versions_is_answered_in_version_0_with_its_own_versions() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = Setup::new(home.path()).start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    for (correlation_id, version) in [(77, 5), (78, 6), (79, 127), (80, i16::MAX)] {
        let mut frame = Vec::from(ApiVersionsRequest::KEY.to_be_bytes());
        frame.extend(i16::to_be_bytes(version));
        frame.extend(i32::to_be_bytes(correlation_id));
        // No client id, no tagged fields. The broker does not read the body of an unsupported version.
        frame.extend([0xff, 0xff, 0, 1, 1, 0]);
        send_frame(&mut client, &frame);
        let mut response = client.receive_frame().expect("an answer");
        assert_eq!(response.get_i32(), correlation_id);
        assert_eq!(response.get_i16(), 35, "UNSUPPORTED_VERSION");
        assert_eq!(response.get_i32(), 1, "one API");
        let (key, min, max) = (response.get_i16(), response.get_i16(), response.get_i16());
        assert_eq!((key, min, max), (ApiVersionsRequest::KEY, 0, 4));
        assert_eq!(response.remaining(), 0);
    }
    broker.stop();
}

#[test]
fn a_client_that_wants_sasl_is_told_that_the_listener_has_none() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = Setup::new(home.path()).start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    let told = client.call(0, &ApiVersionsRequest::default()).expect("ApiVersions");
    let versions =
        |key: i16| told.api_keys.iter().find(|api| api.api_key == key).map(|api| (api.min_version, api.max_version));
    assert_eq!(versions(SaslHandshakeRequest::KEY), Some((0, 1)));
    assert_eq!(versions(SaslAuthenticateRequest::KEY), Some((0, 2)));
    let handshake = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN"));
    for version in [0, 1] {
        let refused = client.call(version, &handshake).expect("SaslHandshake");
        assert_eq!(refused.error_code, 34, "ILLEGAL_SASL_STATE");
        assert!(refused.mechanisms.is_empty(), "{:?}", refused.mechanisms);
    }
    let credentials = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"\0user\0password"));
    for version in [0, 1, 2] {
        let refused = client.call(version, &credentials).expect("SaslAuthenticate");
        assert_eq!(refused.error_code, 34, "ILLEGAL_SASL_STATE");
    }
    // The connection stays open.
    assert_eq!(client.topics().expect("Metadata"), Vec::<String>::new());
    broker.stop();
}

#[test]
fn a_connection_that_breaks_the_protocol_is_closed_and_the_others_are_served() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = Setup::new(home.path()).start();
    let mut client = client_with_topic(&broker, 1);
    let mut header = Vec::from(ProduceRequest::KEY.to_be_bytes());
    header.extend(9i16.to_be_bytes());
    header.extend(1i32.to_be_bytes());
    let truncated = header.clone();
    let unknown_key = [0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff].to_vec();
    let mut hostile_count = header;
    hostile_count.extend([0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    for frame in [truncated, unknown_key, hostile_count, Vec::new()] {
        let mut hostile = Client::connect(broker.address()).expect("a connection");
        send_frame(&mut hostile, &frame);
        assert_closed(&mut hostile, &format!("after {frame:x?}"));
    }
    for len in [i32::MAX, 104_857_601, -1] {
        let mut hostile = Client::connect(broker.address()).expect("a connection");
        hostile.stream().write_all(&len.to_be_bytes()).expect("sent");
        assert_closed(&mut hostile, &format!("after the length {len}"));
    }
    let produced = client.produce("t", 0, batch(Producer::NONE, &values(0..1))).expect("Produce");
    assert_eq!(produced, Produced { error_code: 0, base_offset: 0 });
    broker.stop();
}

#[test]
fn a_batch_whose_checksum_is_wrong_is_refused_and_nothing_is_appended() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = Setup::new(home.path()).start();
    let mut client = client_with_topic(&broker, 1);
    let mut bytes = batch(Producer::NONE, &values(0..10)).to_vec();
    *bytes.last_mut().expect("a byte") ^= 1;
    assert_eq!(client.produce("t", 0, Bytes::from(bytes)).expect("Produce").error_code, 2, "CORRUPT_MESSAGE");
    assert_eq!(client.offset_for("t", 0, -1).expect("ListOffsets"), (0, 0));
    broker.stop();
}

#[test]
fn a_bad_topic_name_and_a_bad_config_are_refused_with_a_text() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = Setup::new(home.path()).start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    let (code, text) = client.create_topic("no such/name", 1, &[]).expect("CreateTopics");
    assert_eq!(code, 17, "INVALID_TOPIC_EXCEPTION");
    assert!(text.is_some_and(|text| text.contains("no such/name")));
    let (code, text) = client.create_topic("t", 1, &[("segment.bytes", "many")]).expect("CreateTopics");
    assert_eq!(code, 40, "INVALID_CONFIG");
    assert!(text.is_some_and(|text| text.contains("segment.bytes") && text.contains("many")));
    let (code, _) = client.create_topic("t", 0, &[]).expect("CreateTopics");
    assert_eq!(code, 37, "INVALID_PARTITIONS");
    broker.stop();
}

fn send_frame(client: &mut Client, frame: &[u8]) {
    let len = u32::try_from(frame.len()).expect("a short frame");
    client.stream().write_all(&len.to_be_bytes()).expect("sent");
    client.stream().write_all(frame).expect("sent");
}

fn assert_closed(client: &mut Client, when: &str) {
    let mut byte = [0];
    match client.stream().read(&mut byte) {
        Ok(0) => {}
        Ok(_) => panic!("an answer {when}"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{when}"),
    }
}
