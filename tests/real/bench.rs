//! `tidelog bench` against a broker: what it reports is what the topic then holds.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;
use tidelog_tests::broker::{Broker, Kind, Setup, tidelog_binary};
use tidelog_tests::client::Client;

/// Always our own broker, also when the other tests run against Kafka. It acknowledges from the page cache, so that a
/// slow disk does not matter.
fn broker(home: &tempfile::TempDir) -> Broker {
    Setup::of(Kind::Tidelog, home.path()).set("acks.require.fsync", false).start()
}

fn command(broker: &str, what: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(tidelog_binary());
    command.args(["bench", what, "--bootstrap-server", broker, "--topic", "b"]).args(arguments).stdin(Stdio::null());
    command
}

/// Whether the topic is there.
fn has_topic(broker: &Broker) -> bool {
    let mut list = Command::new(tidelog_binary());
    let output = list.args(["topic", "list", "--bootstrap-server", broker.address()]).output().expect("the binary");
    text(&output.stdout).lines().any(|line| line.starts_with("b "))
}

fn bench(broker: &Broker, what: &str, arguments: &[&str]) -> Output {
    command(broker.address(), what, arguments).output().expect("the binary")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Runs a benchmark that must succeed; returns what it measured.
fn measured(broker: &Broker, what: &str, arguments: &[&str]) -> Value {
    let output = bench(broker, what, &[arguments, &["--format", "json"]].concat());
    of_output(&output)
}

fn of_output(output: &Output) -> Value {
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{}", text(&output.stdout));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The percentiles of the latency, which must not decrease.
fn percentiles(measured: &Value) -> Vec<f64> {
    let latency = &measured["latency_ms"];
    let found: Vec<f64> = ["p50", "p90", "p99", "p99_9", "max"].map(|name| number(&latency[name])).into();
    assert!(found[0] > 0.0 && found.is_sorted(), "{latency}");
    found
}

#[test]
fn what_is_produced_is_there_to_be_consumed_warm_up_included() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = broker(&home);
    let arguments =
        ["--records", "2001", "--warm-up", "300", "--record-size", "100", "--partitions", "3", "--clients", "2"];
    let produced = measured(&broker, "produce", &[&arguments[..], &["--keep-topic"]].concat());
    assert_eq!(
        (&produced["records"], &produced["clients"], &produced["record_bytes"]),
        (&2001.into(), &2.into(), &100.into())
    );
    percentiles(&produced);
    let seconds = number(&produced["seconds"]);
    let per_second = number(&produced["records_per_second"]);
    assert!(seconds > 0.0 && (per_second * seconds - 2001.0).abs() < 1.0, "{produced}");

    let consumed = measured(&broker, "consume", &["--warm-up", "0"]);
    assert_eq!((&consumed["records"], &consumed["bytes"]), (&2301.into(), &230_100.into()));
    let consumed = measured(&broker, "consume", &["--clients", "3"]);
    let records = number(&consumed["records"]);
    assert!(records > 0.0 && records < 2301.0, "a tenth is warm-up: {consumed}");
    assert_eq!(number(&consumed["bytes"]), records * 100.0);
    broker.stop();
}

#[test]
fn every_codec_and_acknowledgement_can_be_measured() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = broker(&home);
    for (acks, codec) in [("all", "none"), ("1", "gzip"), ("0", "snappy"), ("all", "lz4"), ("all", "zstd")] {
        let arguments = [
            "--records",
            "500",
            "--warm-up",
            "0",
            "--acks",
            acks,
            "--compression",
            codec,
            "--linger",
            "0",
            "--keep-topic",
        ];
        let produced = measured(&broker, "produce", &arguments);
        assert_eq!(produced["records"], 500, "{acks} {codec}");
    }
    let consumed = measured(&broker, "consume", &["--warm-up", "0"]);
    assert_eq!(consumed["records"], 2500, "records without acknowledgement count too");
    broker.stop();
}

#[test]
fn a_rate_is_kept() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = broker(&home);
    let arguments = ["--records", "500", "--rate", "1000", "--warm-up", "10", "--clients", "2", "--linger", "0"];
    let produced = measured(&broker, "produce", &arguments);
    assert_eq!(produced["rate"], 1000);
    assert!(number(&produced["seconds"]) >= 0.499, "the last record is due after 499 ms: {produced}");
    percentiles(&produced);
    broker.stop();
}

/// The producer's buffer holds only a few records. A benchmark that measured latency from the sending would report a
/// few slow records, and none of those that could not be sent while the broker was stopped.
#[test]
fn a_stopped_broker_adds_latency_to_every_record_that_was_due_meanwhile() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = broker(&home);
    let arguments =
        ["--records", "4000", "--rate", "1000", "--warm-up", "0", "--record-size", "100", "-X", "buffer.memory=2000"];
    let child = command(broker.address(), "produce", &[&arguments[..], &["--format", "json"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary");
    let mut client = Client::connect(broker.address()).expect("a connection");
    client.wait_for_leaders("b").expect("the topic");
    let high_watermark = |client: &mut Client| client.fetch("b", 0, 0).expect("Fetch").1;
    while high_watermark(&mut client) == 0 {
        thread::sleep(Duration::from_millis(5));
    }
    let id = i32::try_from(broker.process_id()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(id, Signal::STOP).expect("SIGSTOP");
    thread::sleep(Duration::from_millis(1200));
    kill_process(id, Signal::CONT).expect("SIGCONT");
    let output = child.wait_with_output().expect("its end");
    let produced = of_output(&output);
    let [_, p90, _, _, max] = percentiles(&produced)[..] else { panic!("five of them") };
    // 1,200 of the 4,000 records were due while the broker was stopped. All of these but the last 100 waited for at
    // least 100 ms.
    assert!(p90 >= 100.0 && max >= 1100.0, "{produced}");
    broker.stop();
}

#[test]
fn a_topic_that_the_bench_has_made_is_deleted_and_any_other_stays() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = broker(&home);
    measured(&broker, "produce", &["--records", "100"]);
    assert!(!has_topic(&broker), "it was made for this alone");
    // Also where nothing was measured, for whatever reason.
    assert_eq!(bench(&broker, "produce", &["--record-size", "3000000", "--records", "1"]).status.code(), Some(1));
    assert!(!has_topic(&broker));
    let mut child = command(broker.address(), "produce", &["--records", "100000000", "--clients", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary");
    while !has_topic(&broker) {
        assert_eq!(child.try_wait().expect("its state"), None);
    }
    // Before it listens for it, Ctrl-C ends it at once.
    thread::sleep(Duration::from_millis(500));
    let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(id, Signal::INT).expect("SIGINT");
    let output = child.wait_with_output().expect("its end");
    let error = "tidelog: interrupted: nothing was measured\n";
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(1), error));
    assert!(!has_topic(&broker));

    measured(&broker, "produce", &["--records", "100", "--warm-up", "0", "--keep-topic"]);
    assert!(has_topic(&broker));
    measured(&broker, "produce", &["--records", "100", "--warm-up", "0"]);
    assert_eq!(measured(&broker, "consume", &["--warm-up", "0"])["records"], 200, "it was there before");
    broker.stop();
}

#[test]
fn what_cannot_be_measured_is_said_with_what_to_do() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = broker(&home);
    let failed = |what: &str, arguments: &[&str], code: i32, words: &[&str]| {
        let output = bench(&broker, what, arguments);
        let error = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(code), ""), "{error}");
        for word in words {
            assert!(error.contains(word), "{word:?} is not in: {error}");
        }
    };
    failed("consume", &[], 1, &["b: it does not exist", "tidelog bench produce --keep-topic --topic b"]);
    measured(&broker, "produce", &["--records", "10", "--warm-up", "0", "--keep-topic"]);
    failed("produce", &["--partitions", "4"], 2, &["--partitions 4", "b is there already and has 1"]);
    failed("produce", &["--records", "0"], 2, &["--records"]);
    failed("produce", &["--record-size", "3000000", "--records", "1"], 1, &["max.request.size"]);
    broker.stop();

    let nobody = Command::new(tidelog_binary())
        .args(["bench", "produce", "--bootstrap-server", "127.0.0.1:1", "--wait", "1"])
        .output()
        .expect("the binary");
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("no broker answers at 127.0.0.1:1"), "{}", text(&nobody.stderr));
}

#[test]
fn a_person_reads_two_lines() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = broker(&home);
    let output = bench(&broker, "produce", &["--records", "1200", "--keep-topic"]);
    let lines = text(&output.stdout);
    let lines: Vec<&str> = lines.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("1,200 records to b in "), "{lines:?}");
    assert!(lines[1].starts_with("latency in ms: p50 ") && lines[1].contains("  p99.9 "), "{lines:?}");
    let output = bench(&broker, "consume", &[]);
    assert!(text(&output.stdout).contains(" records of b in "), "{}", text(&output.stdout));
    broker.stop();
}
