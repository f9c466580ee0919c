//! `tidelog log dump` on the files of a broker, and on damaged ones.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use bytes::Bytes;
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tidelog_tests::broker::{Kind, Setup, tidelog_binary};
use tidelog_tests::client::{Client, Producer, batch};

/// What `tidelog log dump` printed and how it ended.
struct Dumped {
    code: Option<i32>,
    out: String,
    error: String,
}

fn dump(arguments: &[&str], paths: &[&Path]) -> Dumped {
    let output =
        Command::new(tidelog_binary()).args(["log", "dump"]).args(arguments).args(paths).output().expect("the binary");
    Dumped {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("text"),
        error: String::from_utf8(output.stderr).expect("text"),
    }
}

/// The JSON objects of a dump, which must find no fault.
fn objects(arguments: &[&str], path: &Path) -> Vec<Value> {
    let arguments = [&["--format", "json"], arguments].concat();
    let dumped = dump(&arguments, &[path]);
    assert_eq!((dumped.code, dumped.error.as_str()), (Some(0), ""), "{}", dumped.out);
    dumped.out.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// Topic `t` with 1,000 records in segments of 64 KiB, by an idempotent producer, after a clean stop.
fn written(home: &Path) -> Setup {
    let setup = Setup::of(Kind::Tidelog, home);
    let broker = setup.start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    let configs = [("internal.segment.bytes", "65536"), ("index.interval.bytes", "1000"), ("compression.type", "lz4")];
    assert_eq!(client.create_topic("t", 1, &configs).expect("CreateTopics"), (0, None));
    client.wait_for_leaders("t").expect("leaders");
    let mut producer: Producer = client.init_producer().expect("InitProducerId");
    for _ in 0..100 {
        let values: Vec<Bytes> = (producer.sequence..producer.sequence + 10).map(value).collect();
        assert_eq!(client.produce("t", 0, batch(producer, &values)).expect("Produce").error_code, 0);
        producer.sequence += 10;
    }
    broker.stop();
    setup
}

/// The value cannot be compressed, so that the segments roll.
fn value(n: i32) -> Bytes {
    let mut state = n.unsigned_abs();
    let noise = (0..300).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'!' + (state >> 24) as u8 % 90)
    });
    Bytes::from(format!("value {n} {}", noise.collect::<String>()))
}

/// The files of partition 0 whose names have this ending, in the order of their offsets.
fn files(setup: &Setup, ending: &str) -> Vec<PathBuf> {
    let dir = setup.partition_dir("t", 0);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(ending));
    files.sort();
    files
}

#[test]
fn every_file_of_a_log_directory_is_shown_without_a_fault() {
    let home = tempfile::tempdir().expect("a directory");
    let setup = written(home.path());
    let all = objects(&["--records"], &setup.data_dir());

    let records = of_kind(&all, "record");
    assert_eq!(records.len(), 1000);
    for (n, record) in records.iter().enumerate() {
        let n = i32::try_from(n).expect("a number");
        assert_eq!(record["offset"], n);
        assert_eq!(record["value"].as_str().map(str::as_bytes), Some(&value(n)[..]));
    }
    let logs = files(&setup, ".log");
    assert!(logs.len() > 2, "segments have rolled: {logs:?}");
    let of_topic = |object: &&&Value| object["file"].as_str().is_some_and(|file| file.contains("/t-0/"));
    let batches = of_kind(&all, "batch");
    assert_eq!(batches.iter().filter(of_topic).count(), 100);
    assert!(batches.iter().filter(of_topic).all(|batch| batch["compression"] == "lz4" && batch["isValid"] == true));
    assert_eq!(of_kind(&all, "log").iter().filter(of_topic).count(), logs.len());
    for (kind, least) in [("offsetEntry", 20), ("timeEntry", 20), ("producer", 1), ("leaderEpoch", 1)] {
        let found = of_kind(&all, kind).iter().filter(of_topic).count();
        assert!(found >= least, "{found} of {kind}");
    }
    let offsets = of_kind(&all, "partitionOffset");
    let recovery = offsets.iter().find(|entry| {
        entry["topic"] == "t"
            && entry["file"].as_str().is_some_and(|file| file.ends_with("recovery-point-offset-checkpoint"))
    });
    assert_eq!(recovery.expect("the recovery point")["offset"], 1000);

    let types: Vec<&str> =
        of_kind(&all, "metadata").iter().filter_map(|record| record["payload"]["type"].as_str()).collect();
    for expected in
        ["FEATURE_LEVEL_RECORD", "REGISTER_BROKER_RECORD", "TOPIC_RECORD", "PARTITION_RECORD", "CONFIG_RECORD"]
    {
        assert!(types.contains(&expected), "no {expected} in {types:?}");
    }
    let controls: Vec<&str> = of_kind(&all, "control").iter().filter_map(|control| control["type"].as_str()).collect();
    for expected in ["LeaderChange", "SnapshotHeader", "SnapshotFooter", "KRaftVoters"] {
        assert!(controls.contains(&expected), "no {expected} in {controls:?}");
    }
    let properties = of_kind(&all, "properties");
    for name in ["partition.metadata", "meta.properties", "quorum-state", ".kafka_cleanshutdown"] {
        assert!(properties.iter().any(|file| file["file"].as_str().is_some_and(|file| file.ends_with(name))), "{name}");
    }
    let skipped =
        of_kind(&all, "note").into_iter().find(|note| note["text"].as_str().is_some_and(|it| it.contains("skipped")));
    assert_eq!(skipped, None, "a broker has no files of its own that are not known");
    let text = dump(&[], &[&setup.data_dir()]);
    assert_eq!((text.code, text.error.as_str()), (Some(0), ""));
    assert!(text.out.contains("{\"type\":\"TOPIC_RECORD\",\"version\":0,\"data\":{\"name\":\"t\",\"topicId\":"));
}

#[test]
fn a_directory_of_a_serving_broker_can_be_dumped() {
    let home = tempfile::tempdir().expect("a directory");
    let setup = written(home.path());
    let mut broker = setup.start();
    let objects = objects(&[], &setup.partition_dir("t", 0));
    assert_eq!(of_kind(&objects, "batch").len(), 100);
    broker.assert_alive();
    broker.stop();
}

#[test]
fn a_flipped_byte_in_any_kind_of_file_is_a_fault_with_its_place() {
    let home = tempfile::tempdir().expect("a directory");
    let setup = written(home.path());
    let first = |ending: &str| files(&setup, ending).first().cloned().unwrap_or_else(|| panic!("no {ending}"));
    let last_snapshot = files(&setup, ".snapshot").pop().expect("a snapshot");
    let data = setup.data_dir();
    for (path, at, words) in [
        (first(".log"), 100, vec!["position 0, offset 0: the batch is corrupt: its checksum is"]),
        (first(".index"), 7, vec!["entry 0", "position 0"]),
        // This bit is set in every timestamp of these decades, so flipping it makes the entry's time earlier. A later
        // time would be reported as a contradiction with the next entry.
        (first(".timeindex"), 2, vec!["entry 0", "position 0"]),
        (last_snapshot, 20, vec!["checksum"]),
        (data.join("recovery-point-offset-checkpoint"), 0, vec!["line 1 is", "expected the version 0"]),
        (data.join("meta.properties"), 3, vec!["node.id is missing"]),
        (data.join("__cluster_metadata-0/quorum-state"), 0, vec!["not JSON"]),
        (
            data.join("__cluster_metadata-0/00000000000000000000.log"),
            70,
            vec!["position 0, offset 0: the batch is corrupt"],
        ),
    ] {
        let sound = fs::read(&path).expect("the file");
        let mut damaged = sound.clone();
        if path.ends_with("meta.properties") {
            damaged = String::from_utf8(damaged).expect("text").replace("node.id", "node.jd").into_bytes();
        } else {
            damaged[at] ^= 1;
        }
        fs::write(&path, damaged).expect("written");
        let dumped = dump(&[], &[&path]);
        assert_eq!(dumped.code, Some(1), "{}: {}", path.display(), dumped.out);
        for word in words {
            assert!(dumped.out.contains("FAULT: "), "{}", dumped.out);
            assert!(dumped.error.contains(word), "{word:?} is not in: {}", dumped.error);
        }
        assert!(dumped.error.contains(&path.display().to_string()), "{}", dumped.error);
        fs::write(&path, sound).expect("written");
    }
    assert_eq!(dump(&[], &[&data]).code, Some(0), "every file is restored");
}

#[test]
fn a_torn_tail_is_a_fault_and_the_zeros_of_a_preallocated_file_are_none() {
    let home = tempfile::tempdir().expect("a directory");
    let setup = written(home.path());
    let log = files(&setup, ".log").pop().expect("a log");
    let sound = fs::read(&log).expect("the file");
    let batches = objects(&[], &log);
    let last = of_kind(&batches, "batch").last().expect("a batch")["position"].as_u64().expect("a number");

    fs::write(&log, &sound[..sound.len() - 3]).expect("written");
    let dumped = dump(&[], &[&log]);
    assert_eq!(dumped.code, Some(1), "{}", dumped.out);
    let place = format!("{}: position {last}: a torn tail", log.display());
    assert!(dumped.error.contains(&place), "{}", dumped.error);

    let mut zeros = sound.clone();
    zeros.resize(sound.len() + (4 << 20), 0);
    fs::write(&log, &zeros).expect("written");
    let dumped = dump(&[], &[&log]);
    assert_eq!(dumped.code, Some(0), "{}", dumped.error);
    assert!(dumped.out.contains(&format!("note: position {}: {} zeros", sound.len(), 4 << 20)), "{}", dumped.out);
}

#[test]
fn a_name_that_is_no_file_of_a_log_directory_is_refused_with_those_that_are() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("notes.txt");
    fs::write(&path, "x").expect("written");
    let dumped = dump(&[], &[&path]);
    assert_eq!((dumped.code, dumped.out.as_str()), (Some(2), ""));
    for word in ["notes.txt", "NNN.log", "leader-epoch-checkpoint"] {
        assert!(dumped.error.contains(word), "{}", dumped.error);
    }
    let missing = dump(&[], &[&home.path().join("00000000000000000000.log")]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.error.contains("00000000000000000000.log: No such file"), "{}", missing.error);
}

#[test]
fn it_ends_quietly_when_nobody_reads_on() {
    let home = tempfile::tempdir().expect("a directory");
    let setup = written(home.path());
    // The output is larger than a pipe holds.
    let mut child = Command::new(tidelog_binary())
        .args(["log", "dump", "--records"])
        .arg(setup.data_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary");
    let mut begin = [0; 10];
    child.stdout.take().expect("its output").read_exact(&mut begin).expect("a beginning");
    let output = child.wait_with_output().expect("its end");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}
