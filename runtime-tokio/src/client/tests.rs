//! The clients on real sockets: against a broker in this process, and against servers that do not speak Kafka's
//! protocol.

use super::*;
use crate::server::Server;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use tidelog_client::admin::{self, NewTopic, Operation};
use tidelog_client::{
    Admin, AdminConfig, Consumer, ConsumerConfig, Producer, ProducerConfig, TopicPartition, consumer, producer,
};
use tidelog_core::config::BrokerConfig;

/// Only reached if a test hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn broker(dir: &tempfile::TempDir) -> Server {
    let log_dirs = dir.path().display().to_string();
    let properties = [("listeners", "PLAINTEXT://127.0.0.1:0"), ("log.dirs", log_dirs.as_str())];
    let properties: BTreeMap<String, String> =
        properties.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Server::start(BrokerConfig::from_properties(&properties).unwrap().0).unwrap()
}

fn properties(server: impl ToString, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::from([("bootstrap.servers".to_string(), server.to_string())]);
    properties.extend(more.iter().map(|(name, value)| (name.to_string(), value.to_string())));
    properties
}

fn admin(server: impl ToString, more: &[(&str, &str)]) -> Driver<Admin> {
    let (config, _) = AdminConfig::from_properties(&properties(server, more)).unwrap();
    Driver::new(Admin::new(config, 1))
}

fn producer(server: SocketAddr, more: &[(&str, &str)]) -> Driver<Producer> {
    let (config, _) = ProducerConfig::from_properties(&properties(server, more)).unwrap();
    Driver::new(Producer::new(config, 2))
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().unwrap();
    runtime.block_on(async { timeout(PATIENCE, test).await.expect("the test hangs") })
}

fn record(id: u64, value: Vec<u8>) -> producer::ProducerRecord {
    let value = Some(Bytes::from(value));
    let (topic, headers) = ("t".into(), Vec::new());
    producer::ProducerRecord { id, topic, partition: Some(0), timestamp: None, key: None, value, headers }
}

/// Reads partition 0 from its beginning.
async fn read(server: SocketAddr, count: usize) -> Vec<Bytes> {
    let (config, _) = ConsumerConfig::from_properties(&properties(server, &[])).unwrap();
    let mut driver = Driver::new(Consumer::new(config, 3));
    let partition = TopicPartition::new("t", 0);
    driver.call(consumer::Call::Assign(vec![(partition, consumer::Start::Earliest)]));
    let mut values = Vec::new();
    while values.len() < count {
        driver.call(consumer::Call::Poll);
        match driver.next().await {
            consumer::Event::Records(polled) => {
                values.extend(polled.into_iter().flat_map(|it| it.records).map(|record| record.value.unwrap()));
            }
            consumer::Event::Reset { position, .. } => assert_eq!(position, 0),
            event => panic!("{event:?}"),
        }
    }
    values
}

async fn create_topic(server: SocketAddr) {
    let mut driver = admin(server, &[]);
    let topic = NewTopic {
        name: "t".into(),
        partitions: Some(2),
        replication_factor: None,
        replicas: Vec::new(),
        configs: Vec::new(),
    };
    driver
        .call(admin::Call { id: 7, operation: Operation::CreateTopics { topics: vec![topic], validate_only: false } });
    let event = driver.next().await;
    assert_eq!(event.id, 7);
    assert!(matches!(event.results[..], [(_, Ok(admin::Answer::Created { .. }))]), "{event:?}");
    assert!(driver.has_connected() && driver.last_failure().is_none());
}

#[test]
fn what_is_produced_is_consumed_in_order_however_large_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let server = broker(&dir);
    let address = server.listeners()[0].1;
    let values: Vec<Vec<u8>> = (0..200usize).map(|n| vec![n as u8; n * n % 60_000 + n]).collect();
    run(async {
        create_topic(address).await;
        let mut driver = producer(address, &[("batch.size", "500000")]);
        for (value, id) in values.iter().zip(0..) {
            driver.call(producer::Call::Send(record(id, value.clone())));
        }
        driver.call(producer::Call::Flush(1));
        let mut delivered = Vec::new();
        loop {
            match driver.next().await {
                producer::Event::Placed { partition, .. } => assert_eq!(partition, 0),
                producer::Event::Delivered { records, .. } => delivered.extend(records),
                producer::Event::Flushed(1) => break,
                event => panic!("{event:?}"),
            }
        }
        assert_eq!(delivered, (0..200).collect::<Vec<u64>>());
        assert!(read(address, values.len()).await == values);
    });
    server.stop().unwrap();
}

#[test]
fn requests_without_an_answer_have_arrived_when_the_driver_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let server = broker(&dir);
    let address = server.listeners()[0].1;
    run(async {
        create_topic(address).await;
        let mut driver = producer(address, &[("acks", "0"), ("linger.ms", "0")]);
        for id in 0..30 {
            driver.call(producer::Call::Send(record(id, vec![id as u8; 900_000])));
        }
        driver.call(producer::Call::Flush(1));
        while driver.next().await != producer::Event::Flushed(1) {}
        driver.close().await;
        let values = read(address, 30).await;
        assert!(values.iter().zip(0..).all(|(value, n)| value[..] == vec![n; 900_000]));
    });
    server.stop().unwrap();
}

#[test]
fn waiting_for_an_event_can_be_interrupted_and_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let server = broker(&dir);
    let address = server.listeners()[0].1;
    run(async {
        let mut driver = admin(address, &[]);
        driver.call(admin::Call { id: 1, operation: Operation::DescribeCluster });
        let event = loop {
            tokio::select! {
                biased;
                event = driver.next() => break event,
                () = tokio::task::yield_now() => {}
            }
        };
        let Some((_, Ok(admin::Answer::Cluster(cluster)))) = event.results.first() else { panic!("{event:?}") };
        assert_eq!(cluster.brokers[0].address.port, address.port());
    });
    server.stop().unwrap();
}

#[test]
fn a_broker_that_does_not_run_is_named_with_the_error() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    run(async {
        let mut driver = admin(format!("localhost:{port}"), &[("default.api.timeout.ms", "500")]);
        driver.call(admin::Call { id: 1, operation: Operation::ListTopics });
        let event = driver.next().await;
        assert!(event.results[0].1.is_err());
        assert!(!driver.has_connected());
        let last_failure = driver.last_failure().unwrap();
        assert_eq!((&last_failure.address.host[..], last_failure.address.port), ("localhost", port));
        assert_eq!(last_failure.error.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_server_of_another_protocol_is_named_and_the_length_it_seems_to_announce_is_not_allocated() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 10]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    run(async {
        let mut driver = admin(address, &[("default.api.timeout.ms", "500"), ("reconnect.backoff.ms", "100000")]);
        driver.call(admin::Call { id: 1, operation: Operation::ListTopics });
        driver.next().await;
        let last_failure = driver.last_failure().unwrap().error.to_string();
        insta::assert_snapshot!(last_failure, @"it does not answer in Kafka's protocol: this looks like an HTTP response");
    });
    peer.join().unwrap();
}

#[test]
fn an_answer_that_never_ends_is_given_up_with_the_request() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(&[0, 0, 1, 0, 0, 0, 0, 0]);
        // Until the client closes.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    run(async {
        let more =
            [("request.timeout.ms", "200"), ("default.api.timeout.ms", "600"), ("reconnect.backoff.ms", "100000")];
        let mut driver = admin(address, &more);
        driver.call(admin::Call { id: 1, operation: Operation::ListTopics });
        let event = driver.next().await;
        assert!(event.results[0].1.is_err());
        peer.join().unwrap();
    });
}
