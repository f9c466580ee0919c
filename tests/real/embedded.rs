//! A broker inside another program, as an application's tests use it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use bytes::Bytes;
use std::net::TcpStream;
use tidelog::{Broker, Config};
use tidelog_tests::client::{Client, Produced, Producer, batch};

const KAFKA_STORAGE_ERROR: i16 = 56;

fn connect(broker: &Broker) -> Client {
    Client::connect(&broker.bootstrap_servers()).expect("a connection")
}

fn create_topic(client: &mut Client) {
    assert_eq!(client.create_topic("t", 1, &[]).expect("CreateTopics"), (0, None));
    client.wait_for_leaders("t").expect("leaders");
}

fn produce(client: &mut Client, value: &str) -> Produced {
    let values = [Bytes::copy_from_slice(value.as_bytes())];
    client.produce("t", 0, batch(Producer::NONE, &values)).expect("Produce")
}

fn read(client: &mut Client) -> Vec<Bytes> {
    client.wait_for_leaders("t").expect("leaders");
    let records = client.read_from("t", 0, 0).expect("Fetch");
    records.into_iter().map(|record| record.value.expect("a value")).collect()
}

#[test]
fn many_brokers_in_one_process_have_nothing_in_common() {
    let brokers: Vec<Broker> =
        (0..16).map(|_| Broker::start(Config::in_memory()).expect("a broker in memory")).collect();
    for (number, broker) in brokers.iter().enumerate() {
        let mut client = connect(broker);
        create_topic(&mut client);
        produce(&mut client, &number.to_string());
    }
    for (number, broker) in brokers.iter().enumerate() {
        assert_eq!(read(&mut connect(broker)), [number.to_string()]);
    }
}

#[test]
fn a_broker_is_gone_with_its_handle() {
    let broker = Broker::start(Config::in_memory()).expect("a broker in memory");
    let address = broker.address();
    drop(TcpStream::connect(address).expect("it listens"));
    drop(broker);
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn a_restart_and_a_crash_keep_the_address_and_what_was_acknowledged_wherever_the_data_is() {
    let home = tempfile::tempdir().expect("a directory");
    for config in [Config::in_memory(), Config::temporary(), Config::directory(home.path().join("data"))] {
        let mut broker = Broker::start(config).expect("a broker");
        let address = broker.bootstrap_servers();
        let mut client = connect(&broker);
        create_topic(&mut client);
        produce(&mut client, "before the restart");
        broker.restart().expect("a restart");
        assert_eq!(broker.bootstrap_servers(), address);
        let mut client = connect(&broker);
        client.wait_for_leaders("t").expect("leaders");
        assert_eq!(produce(&mut client, "before the crash"), Produced { error_code: 0, base_offset: 1 });
        broker.crash().expect("a start after a crash");
        assert_eq!(broker.bootstrap_servers(), address);
        assert_eq!(read(&mut connect(&broker)), ["before the restart", "before the crash"]);
        broker.stop().expect("a clean stop");
    }
    let broker = Broker::start(Config::directory(home.path().join("data"))).expect("the same directory again");
    assert_eq!(read(&mut connect(&broker)).len(), 2);
}

#[test]
fn records_larger_than_any_buffer_between_come_back_from_memory_whole() {
    let broker = Broker::start(Config::in_memory().set("message.max.bytes", "20000000")).expect("a broker");
    let mut client = connect(&broker);
    create_topic(&mut client);
    let large: String = (0..1_000_000).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
    for _ in 0..5 {
        assert_eq!(produce(&mut client, &large).error_code, 0);
    }
    let found = read(&mut client);
    assert!(found.len() == 5 && found.iter().all(|value| value == large.as_bytes()));
}

#[test]
fn memory_that_is_full_is_a_disk_that_is_full() {
    let broker = Broker::start(Config::in_memory_up_to(4 << 20)).expect("a broker");
    let mut client = connect(&broker);
    create_topic(&mut client);
    let value = "x".repeat(100_000);
    let answers: Vec<i16> = (0..100).map(|_| produce(&mut client, &value).error_code).collect();
    let fit = answers.iter().take_while(|code| **code == 0).count();
    assert!((10..42).contains(&fit), "{answers:?}");
    assert!(answers[fit..].iter().all(|code| *code == KAFKA_STORAGE_ERROR), "{answers:?}");
}

#[test]
fn a_temporary_directory_is_gone_with_its_broker() {
    let home = tempfile::tempdir().expect("a directory");
    let count = || std::fs::read_dir(home.path()).expect("a list").count();
    let broker = Broker::start(Config::temporary_in(home.path())).expect("a broker");
    create_topic(&mut connect(&broker));
    assert_eq!(count(), 1);
    drop(broker);
    assert_eq!(count(), 0);
}

#[test]
fn what_cannot_be_used_is_named() {
    let refused = |config: Config| match Broker::start(config) {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.to_string(),
    };
    let text = refused(Config::in_memory().set("num.partitons", "3"));
    assert!(text.contains("num.partitons"), "{text}");
    let text = refused(Config::in_memory().set("num.partitions", "many"));
    assert!(text.contains("num.partitions=many"), "{text}");
    let text = refused(Config::in_memory().set("log.dirs", "/data"));
    assert!(text.contains("log.dirs"), "{text}");
}

#[test]
fn it_is_started_stopped_and_dropped_from_asynchronous_code_too() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut broker = Broker::start(Config::in_memory()).expect("a broker");
        broker.restart().expect("a restart");
        drop(broker);
        Broker::start(Config::in_memory()).expect("a broker").stop().expect("a clean stop");
    });
}
