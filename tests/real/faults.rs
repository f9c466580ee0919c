//! Faults around a broker: each is reported with the name, the value and what to do, and nothing is lost.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use bytes::Bytes;
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use tidelog_tests::broker::{Broker, Kind, Setup, tidelog_binary};
use tidelog_tests::client::{Client, Produced, Producer, batch};
use tidelog_tests::disks::Tmpfs;

/// Always our own binary, also when the other tests run against Kafka: the texts are ours.
fn tidelog(home: &Path) -> Setup {
    Setup::of(Kind::Tidelog, home)
}

fn connect(broker: &Broker, topic: &str) -> Client {
    let mut client = Client::connect(broker.address()).expect("a connection");
    client.wait_for_leaders(topic).expect("leaders");
    client
}

/// Topic `t` with two partitions of 1,000 records each in segments of 64 KiB, by one idempotent producer, and a
/// clean stop.
fn filled(setup: &Setup) -> Producer {
    let broker = setup.start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    let configs = [("internal.segment.bytes", "65536"), ("index.interval.bytes", "1000")];
    assert_eq!(client.create_topic("t", 2, &configs).expect("CreateTopics"), (0, None));
    client.wait_for_leaders("t").expect("leaders");
    let mut producer = client.init_producer().expect("InitProducerId");
    for _ in 0..100 {
        for partition in 0..2 {
            let produced =
                client.produce("t", partition, batch(producer, &ten_values(producer.sequence))).expect("Produce");
            assert_eq!(produced, Produced { error_code: 0, base_offset: i64::from(producer.sequence) });
        }
        producer.sequence += 10;
    }
    broker.stop();
    producer
}

fn ten_values(first: i32) -> Vec<Bytes> {
    (first..first + 10).map(|n| Bytes::from(format!("value {n} {}", "x".repeat(200)))).collect()
}

fn assert_all_readable(client: &mut Client, partition: i32, count: usize) {
    let records = client.read_from("t", partition, 0).expect("every record is readable");
    assert_eq!(records.len(), count, "records of partition {partition}");
    for (place, record) in records.iter().enumerate() {
        assert_eq!(record.offset, i64::try_from(place).expect("an offset"));
        let expected = &ten_values(i32::try_from(place / 10 * 10).expect("a number"))[place % 10];
        assert_eq!(record.value.as_ref(), Some(expected), "at offset {place} of partition {partition}");
    }
}

/// The files of a partition whose names have this ending, sorted by name.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    files.sort();
    files
}

/// Starts the broker, which must fail quickly; its log must contain each of `words`.
fn assert_refused(setup: &Setup, words: &[&str]) {
    let failure = setup.try_start().expect_err("this cannot start");
    let status = failure.status.unwrap_or_else(|| panic!("it neither serves nor ends:\n{}", failure.log));
    assert!(!status.success(), "it ends without an error code:\n{}", failure.log);
    assert!(!failure.log.contains("panicked"), "a fault outside the broker must not be a panic:\n{}", failure.log);
    for word in words {
        assert!(failure.log.contains(word), "{word:?} is not in:\n{}", failure.log);
    }
}

#[test]
fn a_port_in_use_is_named() {
    let home = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let setup = tidelog(home.path()).set("listeners", format!("PLAINTEXT://{address}"));
    assert_refused(&setup, &[&address, "in use"]);
}

#[test]
fn a_second_process_on_the_same_directory_is_refused_and_the_first_goes_on() {
    let home = tempfile::tempdir().expect("a directory");
    let setup = tidelog(home.path());
    let mut first = setup.start();
    let elsewhere = tempfile::tempdir().expect("a directory");
    let second = tidelog(elsewhere.path()).set("log.dirs", setup.data_dir().display());
    assert_refused(&second, &[&setup.data_dir().display().to_string(), "lock"]);
    first.assert_alive();
    first.stop();
}

#[test]
fn a_directory_of_another_node_is_refused_with_both_ids() {
    let home = tempfile::tempdir().expect("a directory");
    tidelog(home.path()).set("node.id", 7).start().stop();
    assert_refused(&tidelog(home.path()).set("node.id", 8), &["meta.properties", "node.id", "7", "8"]);
    tidelog(home.path()).set("node.id", 7).start().stop();
}

#[test]
fn directories_of_two_clusters_are_refused_with_both_ids() {
    let home = tempfile::tempdir().expect("a directory");
    let (a, b) = (home.path().join("a"), home.path().join("b"));
    let mut ids = Vec::new();
    for dir in [&a, &b] {
        tidelog(home.path()).set("log.dirs", dir.display()).start().stop();
        let text = fs::read_to_string(dir.join("meta.properties")).expect("meta.properties");
        let id = text.lines().find_map(|line| line.strip_prefix("cluster.id=")).expect("cluster.id").to_owned();
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1], "two formats draw two ids");
    let both = tidelog(home.path()).set("log.dirs", format!("{},{}", a.display(), b.display()));
    assert_refused(&both, &["cluster.id", &ids[0], &ids[1]]);
}

#[test]
fn an_unreadable_meta_properties_is_refused_and_not_overwritten() {
    let home = tempfile::tempdir().expect("a directory");
    let setup = tidelog(home.path());
    setup.start().stop();
    let path = setup.data_dir().join("meta.properties");
    for broken in ["version=9\n", "version=1\nnode.id=one\ncluster.id=x\n"] {
        fs::write(&path, broken).expect("written");
        assert_refused(&setup, &["meta.properties"]);
        assert_eq!(
            fs::read_to_string(&path).expect("meta.properties"),
            broken,
            "the file is left for a person to look at"
        );
    }
}

#[test]
fn a_value_that_cannot_be_used_is_an_error_with_its_name_and_an_unknown_name_a_warning() {
    let home = tempfile::tempdir().expect("a directory");
    for (name, value) in [
        ("num.partitions", "many"),
        ("num.partitions", "0"),
        ("listeners", "nonsense"),
        ("log.segment.bytes", "-5"),
        ("compression.type", "brotli"),
    ] {
        assert_refused(&tidelog(home.path()).set(name, value), &[name, value]);
    }
    let broker = tidelog(home.path()).set("no.such.name", "1").start();
    assert!(broker.log_text().contains("no.such.name"), "a warning:\n{}", broker.log_text());
    broker.stop();
}

#[test]
fn a_properties_file_that_is_not_there_is_named() {
    let home = tempfile::tempdir().expect("a directory");
    let output = Command::new(tidelog_binary())
        .args(["start", "no-such.properties"])
        .current_dir(home.path())
        .output()
        .expect("the binary");
    assert!(!output.status.success());
    let text = [output.stdout, output.stderr].concat();
    assert!(String::from_utf8_lossy(&text).contains("no-such.properties"), "{}", String::from_utf8_lossy(&text));
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let home = tempfile::tempdir().expect("a directory");
    let Some(mounted) = Tmpfs::new("a_directory_that_cannot_be_written_is_named", "size=1m,ro") else { return };
    let dir = mounted.path().join("data");
    assert_refused(&tidelog(home.path()).set("log.dirs", dir.display()), &[&dir.display().to_string()]);
}

#[test]
fn indexes_snapshots_and_checkpoints_that_are_lost_or_wrong_are_rebuilt_from_the_log() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 3] = [
        ("removed", |path| fs::remove_file(path).expect("removed")),
        ("cut to an odd length", |path| {
            let len = fs::metadata(path).expect("its length").len();
            OpenOptions::new().write(true).open(path).and_then(|file| file.set_len((len / 2) | 1)).expect("cut");
        }),
        ("filled with nonsense", |path| {
            let len = fs::metadata(path).expect("its length").len().max(48);
            let nonsense: Vec<u8> = (0..len).map(|n| (n.wrapping_mul(37) % 251) as u8).collect();
            fs::write(path, nonsense).expect("written");
        }),
    ];
    for clean in [true, false] {
        for (what, harm) in harms {
            let home = tempfile::tempdir().expect("a directory");
            let setup = tidelog(home.path());
            let mut producer = filled(&setup);
            let data = setup.data_dir();
            let mut harmed = 0;
            for ending in [".index", ".timeindex", ".snapshot", "leader-epoch-checkpoint"] {
                for file in files(&setup.partition_dir("t", 0), ending) {
                    harm(&file);
                    harmed += 1;
                }
            }
            for checkpoint in files(&data, "-checkpoint") {
                harm(&checkpoint);
                harmed += 1;
            }
            assert!(harmed > 6, "files were damaged");
            if !clean {
                fs::remove_file(data.join(".kafka_cleanshutdown")).expect("the marker of a clean stop");
            }

            let broker = setup.start();
            let mut client = connect(&broker, "t");
            for partition in 0..2 {
                assert_all_readable(&mut client, partition, 1000);
                assert_eq!(client.offset_for("t", partition, -1).expect("ListOffsets"), (0, 1000));
                let produced =
                    client.produce("t", partition, batch(producer, &ten_values(producer.sequence))).expect("Produce");
                assert_eq!(produced, Produced { error_code: 0, base_offset: 1000 }, "{what}, clean stop: {clean}");
            }
            producer.sequence += 10;
            broker.stop();
        }
    }
}

#[test]
fn a_corrupt_batch_below_the_recovery_point_is_contained_and_nothing_is_cut() {
    for clean in [true, false] {
        let home = tempfile::tempdir().expect("a directory");
        let setup = tidelog(home.path());
        let producer = filled(&setup);
        let first = files(&setup.partition_dir("t", 0), ".log").remove(0);
        let len = fs::metadata(&first).expect("its length").len();
        // The byte lies in the records of a batch in the middle of a segment that was synced long ago.
        flip_byte(&first, len / 2);
        if !clean {
            fs::remove_file(setup.data_dir().join(".kafka_cleanshutdown")).expect("the marker of a clean stop");
        }

        let broker = setup.start();
        let mut client = connect(&broker, "t");
        assert_all_readable(&mut client, 1, 1000);
        assert_eq!(client.offset_for("t", 0, -1).expect("ListOffsets"), (0, 1000), "nothing is cut");
        assert_eq!(fs::metadata(&first).expect("its length").len(), len, "nothing is cut");
        assert_eq!(client.read_from("t", 0, 900).expect("what comes after is readable").len(), 100);
        let produced = client.produce("t", 1, batch(producer, &ten_values(producer.sequence))).expect("Produce");
        assert_eq!(produced.error_code, 0, "the other partition goes on");
        broker.stop();
    }
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let test = "a_full_disk_loses_nothing_that_was_acknowledged";
    let home = tempfile::tempdir().expect("a directory");
    let Some(mounted) = Tmpfs::new(test, "size=48m") else { return };
    let setup = tidelog(home.path()).set("log.dirs", mounted.path().join("data").display());
    let broker = setup.start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    assert_eq!(client.create_topic("t", 1, &[("segment.bytes", "1048576")]).expect("CreateTopics"), (0, None));
    client.wait_for_leaders("t").expect("leaders");
    let (mut acknowledged, mut refused) = (0, None);
    while refused.is_none() {
        let values = ten_values(acknowledged);
        match client.produce("t", 0, batch(Producer::NONE, &values)) {
            Ok(Produced { error_code: 0, base_offset }) => {
                assert_eq!(base_offset, i64::from(acknowledged));
                acknowledged += 10;
            }
            Ok(Produced { error_code, .. }) => {
                assert_eq!(error_code, 56, "KAFKA_STORAGE_ERROR");
                refused = Some("refused".to_owned());
            }
            Err(error) => refused = Some(error.to_string()),
        }
        assert!(acknowledged < 300_000, "48 MiB never end");
    }
    let log = broker.log_text();
    assert!(log.contains("No space left") && log.contains("data"), "the operator is told:\n{log}");
    drop(broker);

    // Once the disk has room again, everything is there.
    mounted.grow("size=96m");
    let broker = setup.start();
    let mut client = connect(&broker, "t");
    let count = usize::try_from(client.offset_for("t", 0, -1).expect("ListOffsets").1).expect("an offset");
    assert!(count >= usize::try_from(acknowledged).expect("a count"), "{count} of {acknowledged} acknowledged records");
    assert_all_readable(&mut client, 0, count);
    broker.stop();
}

fn flip_byte(path: &Path, position: u64) {
    let mut bytes = fs::read(path).expect("the file");
    let byte = &mut bytes[usize::try_from(position).expect("a position")];
    *byte ^= 0x55;
    let changed = [*byte];
    let mut file = OpenOptions::new().write(true).open(path).expect("the file");
    file.seek(SeekFrom::Start(position)).and_then(|_| file.write_all(&changed)).expect("a flipped byte");
}
