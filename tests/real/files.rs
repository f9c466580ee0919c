//! A log directory has Kafka's format. Kafka's own `DumpLogSegments` finds no fault in a directory that Tidelog wrote,
//! `tidelog log dump` finds none in one that Kafka wrote, and each broker opens the other's directory.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use bytes::Bytes;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use tidelog_tests::broker::{Broker, Kind, Setup};
use tidelog_tests::client::{Client, Producer, batch};
use tidelog_tests::{dump, kafka, skipped};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// Kafka's jars; `None` if they cannot be had, after printing why `test` is skipped.
fn jars(test: &str) -> Option<PathBuf> {
    kafka::jars().map_err(|why| skipped(test, &why)).ok()
}

fn connect(broker: &Broker) -> Client {
    Client::connect(broker.address()).expect("a connection")
}

/// A topic whose segments roll every 64 KiB and whose batches are stored with `codec`.
fn create_topic(client: &mut Client, name: &str, codec: &str) {
    let compression = if codec == "none" { "uncompressed" } else { codec };
    let configs =
        [("internal.segment.bytes", "65536"), ("index.interval.bytes", "1000"), ("compression.type", compression)];
    assert_eq!(client.create_topic(name, 1, &configs).expect("CreateTopics"), (0, None), "{name}");
    client.wait_for_leaders(name).expect("leaders");
}

/// Produces `batches` batches of 20 records, beginning at `producer`'s sequence, which it advances.
fn produce(client: &mut Client, topic: &str, producer: &mut Producer, batches: i32) {
    for _ in 0..batches {
        let values: Vec<Bytes> =
            (0..20).map(|n| Bytes::from(format!("{topic} {}: {}", producer.sequence + n, "abc".repeat(20)))).collect();
        let produced = client.produce(topic, 0, batch(*producer, &values)).expect("Produce");
        assert_eq!((produced.error_code, produced.base_offset), (0, i64::from(producer.sequence)), "{topic}");
        producer.sequence += 20;
    }
}

#[test]
fn kafkas_dump_finds_no_fault_after_load_roll_restart_and_crash() {
    let Some(jars) = jars("kafkas_dump_finds_no_fault_after_load_roll_restart_and_crash") else { return };
    let home = tempfile::tempdir().expect("a directory");
    let setup = Setup::new(home.path());

    let broker = setup.start();
    let mut client = connect(&broker);
    let mut producers = Vec::new();
    for codec in CODECS {
        create_topic(&mut client, codec, codec);
        let mut producer = client.init_producer().expect("InitProducerId");
        produce(&mut client, codec, &mut producer, 100);
        producers.push(producer);
    }
    broker.stop();
    let dumped = dump::assert_faultless(&jars, &setup.data_dir());
    assert_eq!(dumped.records, CODECS.len() * 2000, "every record is in a file");
    assert_eq!(
        dump::assert_faultless_to_us(&setup.data_dir()),
        dumped.records,
        "both tools find the same number of records"
    );
    assert!(dumped.files > CODECS.len() * 3, "segments have rolled: {dumped:?}");

    // After a restart more is produced, and the broker is killed while that goes on.
    let broker = setup.start();
    let address = broker.address().to_owned();
    thread::scope(|scope| {
        for (codec, mut producer) in CODECS.into_iter().zip(producers) {
            let mut client = Client::connect(&address).expect("a connection");
            client.wait_for_leaders(codec).expect("leaders");
            produce(&mut client, codec, &mut producer, 20);
            scope.spawn(move || {
                while let Ok(produced) = client.produce(codec, 0, batch(producer, &[Bytes::from_static(b"last")])) {
                    assert_eq!(produced.error_code, 0);
                    producer.sequence += 1;
                }
            });
        }
        thread::sleep(Duration::from_millis(300));
        broker.kill();
    });
    // The next start repairs what the crash left behind.
    setup.start().stop();
    let dumped = dump::assert_faultless(&jars, &setup.data_dir());
    assert!(dumped.records > CODECS.len() * 2400, "every acknowledged record is in a file: {dumped:?}");
}

#[test]
fn a_directory_of_kafka_opens_with_every_record_readable_and_goes_back_to_kafka() {
    let Some(jars) = jars("a_directory_of_kafka_opens_with_every_record_readable_and_goes_back_to_kafka") else {
        return;
    };
    let home = tempfile::tempdir().expect("a directory");
    let tidelog = Setup::new(home.path()).set("node.id", 1);
    let apache = tidelog.clone().turned_into(Kind::Kafka);

    let broker = apache.start();
    let mut client = connect(&broker);
    create_topic(&mut client, "mixed", "producer");
    create_topic(&mut client, "idempotent", "zstd");
    let mut producer = client.init_producer().expect("InitProducerId");
    produce(&mut client, "idempotent", &mut producer, 100);
    for codec in CODECS {
        console_produce(&jars, broker.address(), codec, "kafka");
    }
    let mut expected = console_read(&jars, broker.address(), "mixed", 5 * 1000);
    broker.stop();
    assert_eq!(
        dump::assert_faultless_to_us(&apache.data_dir()),
        7 * 1000,
        "our own tool finds every record that Kafka wrote"
    );

    let broker = tidelog.start();
    let mut client = connect(&broker);
    client.wait_for_leaders("mixed").expect("leaders");
    assert_eq!(console_read(&jars, broker.address(), "mixed", 5 * 1000), expected, "what Kafka wrote");
    client.wait_for_leaders("idempotent").expect("leaders");
    // The producer's state was read from Kafka's files: only its next sequence is accepted.
    produce(&mut client, "idempotent", &mut producer, 100);
    create_topic(&mut client, "ours", "lz4");
    let mut ours = client.init_producer().expect("InitProducerId");
    assert_ne!(ours.id, producer.id, "no producer id is given twice");
    produce(&mut client, "ours", &mut ours, 100);
    console_produce(&jars, broker.address(), "gzip", "under test");
    let longer = console_read(&jars, broker.address(), "mixed", 6 * 1000);
    assert_eq!(longer[..expected.len()], expected[..]);
    expected = longer;
    broker.stop();
    dump::assert_faultless(&jars, &tidelog.data_dir());

    // Without the marker of a clean stop and without recovery points, Kafka checks every batch and rebuilds everything
    // else.
    for hint in [".kafka_cleanshutdown", "recovery-point-offset-checkpoint"] {
        fs::remove_file(tidelog.data_dir().join(hint)).unwrap_or_else(|error| panic!("{hint}: {error}"));
    }
    let broker = apache.start();
    let mut client = connect(&broker);
    for topic in ["mixed", "idempotent", "ours"] {
        client.wait_for_leaders(topic).expect("leaders");
    }
    assert_eq!(console_read(&jars, broker.address(), "mixed", 6 * 1000), expected, "what both wrote");
    assert_eq!(console_read(&jars, broker.address(), "ours", 2000).len(), 2000);
    produce(&mut client, "idempotent", &mut producer, 10);
    produce(&mut client, "ours", &mut ours, 10);
    let log = broker.stop();
    for complaint in ["orrupt", "truncat", "ERROR"] {
        let line = log.lines().find(|line| line.contains(complaint) && !line.contains(" = "));
        assert_eq!(line, None, "Kafka complains of the directory");
    }

    let broker = tidelog.start();
    let mut client = connect(&broker);
    client.wait_for_leaders("ours").expect("leaders");
    produce(&mut client, "ours", &mut ours, 1);
    broker.stop();
}

/// Produces 1,000 records with keys and headers with Kafka's console producer.
fn console_produce(jars: &Path, address: &str, codec: &str, by: &str) {
    let mut child = kafka::quiet_tool(jars, "org.apache.kafka.tools.ConsoleProducer")
        .args(["--bootstrap-server", address, "--topic", "mixed", "--compression-codec", codec])
        .args(["--reader-property", "parse.key=true", "--reader-property", "parse.headers=true"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("kafka-console-producer");
    let text: String = (0..1000).map(|n| format!("codec:{codec},by:{by}\tkey {n}\tvalue {n} of {codec}\n")).collect();
    child.stdin.take().expect("its input").write_all(text.as_bytes()).expect("written");
    assert!(child.wait().expect("its end").success());
}

/// Reads `count` records of partition 0 with Kafka's console consumer, one line each: time, offset, headers, key,
/// value.
fn console_read(jars: &Path, address: &str, topic: &str, count: usize) -> Vec<String> {
    let mut command = kafka::quiet_tool(jars, "org.apache.kafka.tools.consumer.ConsoleConsumer");
    command.args(["--bootstrap-server", address, "--topic", topic, "--partition", "0", "--offset", "earliest"]);
    command.args(["--max-messages", &count.to_string(), "--timeout-ms", "30000"]);
    for part in ["timestamp", "offset", "headers", "key"] {
        command.args(["--formatter-property", &format!("print.{part}=true")]);
    }
    let output = command.output().expect("kafka-console-consumer");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), count, "records of {topic}: {}", String::from_utf8_lossy(&output.stderr));
    lines
}
