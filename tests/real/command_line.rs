//! The command line of the real binary, as a person or a script uses it: what it prints to which stream, and its exit
//! code.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

#[path = "command_line/operating.rs"]
mod operating;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tidelog_tests::broker::{Broker, Kind, Setup, tidelog_binary};

/// Only reached if a command hangs.
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    broker: Broker,
    _home: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

/// A running command, whose standard streams the test holds.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: Option<BufReader<ChildStderr>>,
}

fn bench() -> Bench {
    bench_with(|setup| setup)
}

fn bench_with(configure: impl FnOnce(Setup) -> Setup) -> Bench {
    let home = tempfile::tempdir().expect("a temporary directory");
    let broker = configure(Setup::new(home.path())).start();
    Bench { broker, _home: home }
}

fn start(address: &str, arguments: &[&str]) -> Running {
    let mut command = Command::new(tidelog_binary());
    command.args(arguments).env("TIDELOG_BOOTSTRAP_SERVER", address).env_remove("RUST_LOG");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
    let stderr = child.stderr.take().map(BufReader::new);
    Running { child, stdin, stdout, stderr }
}

fn run_at(address: &str, arguments: &[&str], stdin: &[u8]) -> Ended {
    let mut running = start(address, arguments);
    let (mut pipe, stdin) = (running.stdin.take().expect("a pipe"), stdin.to_vec());
    let writer = std::thread::spawn(move || {
        // The command need not read all of its input.
        let _ = pipe.write_all(&stdin);
    });
    let ended = running.end();
    writer.join().expect("the writer");
    ended
}

impl Bench {
    fn run(&self, arguments: &[&str]) -> Ended {
        run_at(self.broker.address(), arguments, b"")
    }

    fn feed(&self, arguments: &[&str], stdin: impl AsRef<[u8]>) -> Ended {
        run_at(self.broker.address(), arguments, stdin.as_ref())
    }

    fn start(&self, arguments: &[&str]) -> Running {
        start(self.broker.address(), arguments)
    }

    /// Runs a command that must succeed and print nothing to standard error; returns its output.
    fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).ok()
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.ok(arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Runs a command that must fail; returns its exit code and standard error, without what differs from run to run.
    fn refused(&self, arguments: &[&str], stdin: &str) -> String {
        let Ended { code, out, err } = self.feed(arguments, stdin);
        assert_eq!(out, "", "a command that fails prints no result");
        format!("{} {}", code.expect("an exit code"), err.replace(self.broker.address(), "ADDRESS"))
    }
}

impl Ended {
    fn ok(self) -> String {
        assert_eq!((self.code, &self.err[..]), (Some(0), ""), "{}", self.out);
        assert!(!self.out.contains('\x1b'), "a pipe is no terminal");
        self.out
    }
}

impl Running {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.as_mut().expect("a pipe").read_line(&mut line).expect("a line");
        line
    }

    /// A line of its standard error.
    fn error_line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.as_mut().expect("a pipe").read_line(&mut line).expect("a line");
        line
    }

    fn say(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("a pipe");
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).expect("it reads");
    }

    fn interrupt(&self) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(id, Signal::INT).expect("SIGINT");
    }

    /// Asserts that the command keeps running for this long.
    fn works_for(&mut self, time: Duration) {
        let begin = Instant::now();
        loop {
            assert_eq!(self.child.try_wait().expect("the child's state"), None);
            if begin.elapsed() >= time {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end. Standard input stays open if the test has not closed it.
    fn end(&mut self) -> Ended {
        fn read_all(source: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                if let Some(mut source) = source {
                    source.read_to_end(&mut bytes).expect("a pipe");
                }
                String::from_utf8(bytes).expect("UTF-8")
            })
        }
        let (out, err) = (read_all(self.stdout.take()), read_all(self.stderr.take()));
        let begin = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("the child's state") {
                Some(status) => break status,
                None if begin.elapsed() > PATIENCE => panic!("the command does not end"),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        Ended { code: status.code(), out: out.join().expect("stdout"), err: err.join().expect("stderr") }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_topic_is_created_listed_described_altered_and_deleted() {
    let bench = bench();
    assert_eq!(
        bench.ok(&["topic", "create", "b", "a", "--partitions", "3", "--config", "retention.ms=1000"]),
        "topic b: created\ntopic a: created\n"
    );
    assert_eq!(bench.ok(&["topic", "create", "a", "--if-not-exists"]), "topic a: exists already\n");
    let list = bench.ok(&["topic", "list"]);
    let words: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["TOPIC", "PARTITIONS", "REPLICAS", "ID"]);
    assert_eq!((&words[1][..3], &words[2][..3]), (&["a", "3", "1"][..], &["b", "3", "1"][..]));

    bench.feed(&["produce", "a", "--partition", "2"], "x\ny\n").ok();
    bench.ok(&["topic", "alter", "a", "--partitions", "4", "--config", "segment.bytes=2000000"]);
    bench.ok(&["topic", "alter", "a", "--delete-config", "retention.ms"]);
    let described = bench.json(&["topic", "describe", "a", "--format", "json"]);
    assert_eq!(described[0]["name"], "a");
    assert_eq!(described[0]["configs"]["segment.bytes"], "2000000");
    assert_eq!(described[0]["configs"].get("retention.ms"), None);
    let offsets = |partition: usize| {
        let it = &described[0]["partitions"][partition];
        (it["leader"].as_i64(), it["earliest_offset"].as_i64(), it["latest_offset"].as_i64())
    };
    assert_eq!((offsets(2), offsets(3)), ((Some(1), Some(0), Some(2)), (Some(1), Some(0), Some(0))));
    let text = bench.ok(&["topic", "describe", "a", "b"]);
    assert!(text.contains("  segment.bytes=2000000\n") && text.contains("\nb  id "), "{text}");
    assert!(text.contains("PARTITION  LEADER  REPLICAS  IN SYNC  EARLIEST  LATEST\n"), "{text}");
    assert!(text.contains("\n        2       1  1         1               0       2\n"), "{text}");

    assert_eq!(bench.ok(&["topic", "create", "c", "--validate-only"]), "topic c: could be created\n");
    assert_eq!(bench.ok(&["topic", "delete", "a", "c", "--if-exists"]), "topic a: deleted\ntopic c: does not exist\n");
    let left = bench.json(&["topic", "list", "--format", "json"]);
    assert_eq!(left.as_array().map(Vec::len), Some(1));
    assert_eq!((&left[0]["name"], &left[0]["partitions"]), (&"b".into(), &3.into()));
}

#[test]
fn configs_of_topics_brokers_and_all_brokers_are_shown_and_changed() {
    let bench = bench();
    bench.ok(&["topic", "create", "t", "--config", "retention.ms=1000"]);
    let change = ["--set", "segment.bytes=2000000", "--delete", "retention.ms", "--subtract", "cleanup.policy=delete"];
    let alter = [&["config", "alter", "--topic", "t"][..], &change].concat();
    assert_eq!(bench.ok(&[&alter[..], &["--validate-only"]].concat()), "topic t: could be altered\n");
    assert!(bench.ok(&["config", "describe", "--topic", "t"]).contains("retention.ms"), "validating changes nothing");
    assert_eq!(bench.ok(&alter), "topic t: altered\n");
    let mistyped = bench.run(&["config", "alter", "--topic", "t", "--delete", "retention.sm"]);
    assert_eq!((mistyped.code, &mistyped.out[..]), (Some(0), "topic t: altered\n"), "as with Kafka's own tool");
    assert_eq!(mistyped.err, "tidelog: warning: retention.sm is not a known config; did you mean retention.ms?\n");
    let described = bench.json(&["config", "describe", "--topic", "t", "--format", "json"]);
    let values: BTreeMap<&str, &str> = described
        .as_array()
        .expect("a list")
        .iter()
        .filter(|it| it["source"] == "topic")
        .map(|it| (it["name"].as_str().expect("a name"), it["value"].as_str().expect("a value")))
        .collect();
    assert_eq!(values, BTreeMap::from([("cleanup.policy", ""), ("segment.bytes", "2000000")]));
    let all = bench.ok(&["config", "describe", "--topic", "t", "--all"]);
    assert!(all.lines().any(|line| line.starts_with("retention.ms ") && line.ends_with(" default")), "{all}");

    bench.ok(&["config", "alter", "--broker-defaults", "--set", "log.retention.ms=5000"]);
    bench.ok(&["config", "alter", "--broker", "1", "--set", "log.retention.ms=6000"]);
    let value = |place: &[&str]| {
        let arguments = [&["config", "describe", "log.retention.ms", "--format", "json"][..], place].concat();
        let described = bench.json(&arguments);
        let text = |name: &str| described[0][name].as_str().expect("a text").to_owned();
        (text("value"), text("source"))
    };
    assert_eq!(value(&["--broker", "1"]), ("6000".into(), "broker".into()));
    assert_eq!(value(&["--broker-defaults"]), ("5000".into(), "all brokers".into()));
}

#[test]
fn the_cluster_says_who_it_is() {
    let bench = bench();
    let described = bench.json(&["cluster", "describe", "--format", "json"]);
    let (host, port) = bench.broker.address().rsplit_once(':').expect("host:port");
    assert_eq!(described["controller"], 1);
    assert_eq!(described["brokers"][0]["host"], host);
    assert_eq!(described["brokers"][0]["port"].to_string(), port);
    let text = bench.ok(&["cluster", "describe"]);
    assert!(text.starts_with(&format!("cluster {}\n", described["cluster_id"].as_str().expect("an id"))), "{text}");
    assert!(text.ends_with("controller\n"), "{text}");
}

#[test]
fn what_json_brings_in_comes_out_again_byte_for_byte_in_all_partitions() {
    let bench = bench();
    bench.ok(&["topic", "create", "a", "b", "--partitions", "4"]);
    let mut lines = String::new();
    for n in 0..200 {
        let partition = n % 4;
        let value = match n % 5 {
            0 => "null".to_owned(),
            1 => r#"{"base64":"AP/+gMAKDQ=="}"#.to_owned(),
            2 => r#""""#.to_owned(),
            _ => format!(r#""späte\n\"Zeile\" {n}""#),
        };
        let key = if n % 7 == 0 { "null".to_owned() } else { format!("\"key {n}\"") };
        let headers = match n % 3 {
            0 => "[]",
            1 => r#"[{"key":"h","value":"1"},{"key":"h","value":null}]"#,
            _ => r#"[{"key":"bytes","value":{"base64":"/w=="}}]"#,
        };
        let timestamp = 1_700_000_000_000i64 + n;
        lines += &format!(
            "{{\"topic\":\"a\",\"partition\":{partition},\"offset\":{},\"timestamp\":{timestamp},\"key\":{key},\
             \"value\":{value},\"headers\":{headers}}}\n",
            n / 4
        );
    }
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let read = |topic| bench.ok(&["consume", topic, "--from-beginning", "--exit-at-end", "--format", "json"]);
    assert_eq!(bench.feed(&["produce", "a", "--format", "json", "--compression", "zstd"], &lines).ok(), "");
    let once = read("a");
    assert_eq!(sorted(&once), sorted(&lines));
    assert_eq!(bench.feed(&["produce", "b", "--format", "json"], &once).ok(), "");
    let twice = read("b");
    assert_eq!(sorted(&twice.replace("\"topic\":\"b\"", "\"topic\":\"a\"")), sorted(&lines));
}

#[test]
fn lines_of_text_have_keys_headers_and_times_if_they_are_asked_for() {
    let bench = bench();
    let arguments = ["--key-separator", ":", "--null", "NONE", "--header", "from=here", "--header", "n=1"];
    let time = ["--timestamp", "2023-11-14T22:13:20.123Z", "--partition", "0", "--acks", "1"];
    let produce = [&["produce", "t"][..], &arguments, &time].concat();
    assert_eq!(bench.feed(&produce, "k1:a:b\nNONE: spaced \nk3:NONE").ok(), "");
    let consume = ["consume", "t", "--from-beginning", "--exit-at-end"];
    assert_eq!(bench.ok(&consume), "a:b\n spaced \nnull\n");
    assert_eq!(
        bench.ok(&[&consume[..], &["--show", "all", "--separator", "|"]].concat()),
        "2023-11-14T22:13:20.123Z|0|0|from=here,n=1|k1|a:b\n\
         2023-11-14T22:13:20.123Z|0|1|from=here,n=1|null| spaced \n\
         2023-11-14T22:13:20.123Z|0|2|from=here,n=1|k3|null\n"
    );
    assert_eq!(
        bench.ok(&[&consume[..], &["--show", "offset,key", "--null", "-"]].concat()),
        "0\tk1\ta:b\n1\t-\t spaced \n2\tk3\t-\n"
    );
}

#[test]
fn reading_begins_where_it_is_told_to_and_ends_after_so_many() {
    let bench = bench();
    bench.ok(&["topic", "create", "t", "--partitions", "2"]);
    for (partition, first) in [("0", 0), ("1", 100)] {
        let lines: String = (first..first + 10)
            .map(|n| format!("{{\"value\":\"{n}\",\"timestamp\":{}}}\n", 1_700_000_000_000i64 + n * 1000))
            .collect();
        bench.feed(&["produce", "t", "--format", "json", "--partition", partition], &lines).ok();
    }
    let read = |arguments: &[&str]| -> Vec<u32> {
        let text = bench.ok(&[&["consume", "t"][..], arguments].concat());
        let mut numbers: Vec<u32> = text.lines().map(|line| line.parse().expect("a number")).collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(read(&["-e", "--offset", "-2"]), [8, 9, 108, 109]);
    assert_eq!(read(&["-e", "--offset", "7", "-p", "0"]), [7, 8, 9]);
    assert!(read(&["-e", "--offset", "10"]).is_empty());
    assert!(read(&["-e"]).is_empty());
    assert_eq!(
        read(&["-e", "--offset", "2023-11-14T22:13:27Z"]),
        [&[7, 8, 9][..], &(100..110).collect::<Vec<_>>()].concat()
    );
    assert_eq!(read(&["-e", "--offset", "@1700000105000", "-p", "1"]), [105, 106, 107, 108, 109]);
    assert!(read(&["-e", "--offset", "2033-01-01"]).is_empty());
    assert_eq!(read(&["--from-beginning", "-p", "1", "-n", "3"]), [100, 101, 102]);
    assert_eq!(read(&["--from-beginning", "-n", "20"]).len(), 20);
    assert!(read(&["--from-beginning", "-n", "0"]).is_empty());
    assert_eq!(read(&["--from-beginning", "-e", "-p", "0", "-p", "1"]).len(), 20);
}

#[test]
fn records_that_were_deleted_are_not_at_the_beginning() {
    let bench =
        bench_with(|setup| setup.set("log.retention.check.interval.ms", 100).set("log.initial.task.delay.ms", 100));
    bench.ok(&["topic", "create", "t", "--config", "segment.bytes=1048576"]);
    let lines: String = (0..3000).map(|n| format!("{n:01000}\n")).collect();
    bench.feed(&["produce", "t"], lines).ok();
    bench.ok(&["topic", "alter", "t", "--config", "retention.bytes=1048576"]);
    let earliest = || {
        let described = bench.json(&["topic", "describe", "t", "--format", "json"]);
        described[0]["partitions"][0]["earliest_offset"].as_i64().expect("an offset")
    };
    let begin = Instant::now();
    while earliest() == 0 {
        assert!(begin.elapsed() < PATIENCE, "nothing is deleted");
    }
    let read = bench.ok(&["consume", "t", "--from-beginning", "-e"]);
    let numbers: Vec<i64> = read.lines().map(|line| line.parse().expect("a number")).collect();
    assert!(numbers[0] > 0 && numbers.len() < 3000);
    assert_eq!(numbers, (numbers[0]..3000).collect::<Vec<_>>());
    let refused = bench.refused(&["consume", "t", "--offset", "0"], "");
    assert!(
        refused.starts_with("1 tidelog: cannot begin at offset 0 of t-0: its records are those from "),
        "{refused}"
    );
}

#[test]
fn what_is_typed_line_by_line_arrives_line_by_line() {
    let bench = bench();
    bench.ok(&["topic", "create", "t"]);
    let mut consumer = bench.start(&["consume", "t", "--from-beginning"]);
    let mut producer = bench.start(&["produce", "t"]);
    for text in ["one\n", "two\n", "three\n"] {
        producer.say(text);
        assert_eq!(consumer.line(), text);
    }
    // Half a line is no record, and a pause of any length is no failure.
    producer.say("fo");
    let mut patient = bench.start(&["produce", "t", "--wait", "1"]);
    patient.works_for(Duration::from_millis(1500));
    producer.works_for(Duration::ZERO);
    producer.say("ur\n");
    assert_eq!(consumer.line(), "four\n");
    patient.say("five\n");
    assert_eq!(consumer.line(), "five\n");
    // Ctrl-C ends both without an error.
    producer.interrupt();
    assert_eq!(producer.end().ok(), "");
    consumer.interrupt();
    assert_eq!(consumer.end().ok(), "");
}

#[test]
fn a_command_whose_output_is_no_longer_read_ends_quietly() {
    let bench = bench();
    let lines: String = (0..100_000).map(|n| format!("{n}\n")).collect();
    bench.feed(&["produce", "t"], lines).ok();
    // The first consumer has more to print when its output is closed, the second has nothing to print.
    for arguments in [&["consume", "t", "--from-beginning"][..], &["consume", "t"]] {
        let mut consumer = bench.start(arguments);
        if arguments.len() > 2 {
            assert_eq!(consumer.line(), "0\n");
        }
        consumer.stdout = None;
        consumer.end().ok();
    }
    let mut list = bench.start(&["topic", "list"]);
    list.stdout = None;
    list.end().ok();
}

#[test]
fn a_file_larger_than_the_buffer_goes_through_it_in_order() {
    let bench = bench();
    bench.ok(&["topic", "create", "t"]);
    let lines: String = (0..50_000).map(|n| format!("a line with the number {n}\n")).collect();
    bench.feed(&["produce", "t", "-X", "buffer.memory=200000", "-X", "batch.size=10000"], &lines).ok();
    assert!(bench.ok(&["consume", "t", "--from-beginning", "-e"]) == lines);
    // This buffer has room for a single line.
    bench.feed(&["produce", "one", "-X", "buffer.memory=400"], "a\nb\nc\n").ok();
    assert_eq!(bench.ok(&["consume", "one", "--from-beginning", "-e"]), "a\nb\nc\n");
    // Without acknowledgements all records arrive too.
    bench.feed(&["produce", "zero", "--acks", "0"], &lines).ok();
    assert_eq!(bench.ok(&["consume", "zero", "--from-beginning", "-n", "50000"]).len(), lines.len());
}

#[test]
fn a_record_that_is_refused_is_named_by_its_line_and_the_others_go_on() {
    let bench = bench();
    bench.ok(&["topic", "create", "t", "--config", "max.message.bytes=1000"]);
    let text = format!("a\n{}\nb\n", "x".repeat(2000));
    let refused = bench.refused(&["produce", "t", "-X", "batch.size=1"], &text);
    let (first, rest) = refused.split_once('\n').expect("two lines");
    // The rest of the first line is the broker's own text.
    assert!(first.starts_with("1 tidelog: line 2, for t-0: ") && first.contains("MESSAGE_TOO_LARGE"), "{first}");
    insta::assert_snapshot!(rest, @"
    tidelog: 1 of 3 records were not delivered to t
      `tidelog config describe --topic t max.message.bytes` shows the limit, `config alter` changes it
    ");
    assert_eq!(bench.ok(&["consume", "t", "--from-beginning", "-e"]), "a\nb\n");
}

#[test]
fn a_line_that_is_no_record_ends_the_reading_and_is_named() {
    let bench = bench();
    bench.ok(&["topic", "create", "t"]);
    let json = ["produce", "t", "--format", "json"];
    insta::assert_snapshot!(bench.refused(&json, "{\"value\":\"a\"}\n{\"value\":\"b\"}\n{\"value\": b}\n{\"value\":\"c\"}\n"), @"
    1 tidelog: line 3 of standard input: expected value at column 11
      records that were delivered to t before: 2
    ");
    insta::assert_snapshot!(bench.refused(&json, "{\"key\":\"k\"}\n"), @"1 tidelog: line 1 of standard input: missing field `value` at column 11");
    insta::assert_snapshot!(bench.refused(&["produce", "t", "--key-separator", ":"], "no key\n"), @r#"1 tidelog: line 1 of standard input: there is no key separator ":" in it"#);
    insta::assert_snapshot!(bench.refused(&["produce", "t", "-X", "max.request.size=10"], "eleven bytes\n"), @"1 tidelog: line 1 of standard input: it is longer than 10 bytes; -X max.request.size=BYTES allows more");
    assert_eq!(bench.ok(&["consume", "t", "--from-beginning", "-e"]), "a\nb\n");
}

#[test]
fn what_the_cluster_refuses_is_said_with_what_to_do() {
    let bench = bench_with(|setup| setup.set("auto.create.topics.enable", false));
    bench.ok(&["topic", "create", "t"]);
    insta::assert_snapshot!(bench.refused(&["topic", "create", "t"], ""), @"
    1 tidelog: cannot create topic t: Topic 't' already exists. (TOPIC_ALREADY_EXISTS)
      --if-not-exists takes that for success
    ");
    insta::assert_snapshot!(bench.refused(&["topic", "create", "no/slash"], ""), @"1 tidelog: cannot create topic no/slash: Topic name is invalid: 'no/slash' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-' (INVALID_TOPIC_EXCEPTION)");
    insta::assert_snapshot!(bench.refused(&["topic", "create", "u", "--replication-factor", "3"], ""), @"1 tidelog: cannot create topic u: Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 1 broker(s) are registered or some brokers have all their log directories cordoned. (INVALID_REPLICATION_FACTOR)");
    insta::assert_snapshot!(bench.refused(&["topic", "create", "u", "--config", "retention.ms=soon"], ""), @"1 tidelog: cannot create topic u: Invalid value soon for configuration retention.ms: Not a number of type LONG (INVALID_CONFIG)");
    insta::assert_snapshot!(bench.refused(&["topic", "describe", "nosuch"], ""), @"
    1 tidelog: cannot describe topic nosuch: it does not exist
      `tidelog topic create nosuch` makes it, `tidelog topic list` shows what there is
    ");
    insta::assert_snapshot!(bench.refused(&["topic", "delete", "nosuch"], ""), @"
    1 tidelog: cannot delete topic nosuch: it does not exist
      --if-exists takes that for success
    ");
    insta::assert_snapshot!(bench.refused(&["topic", "alter", "t", "--partitions", "1"], ""), @"1 tidelog: cannot alter topic t: Topic already has 1 partition(s). (INVALID_PARTITIONS)");
    insta::assert_snapshot!(bench.refused(&["config", "alter", "--topic", "t", "--set", "nosuch=1"], ""), @"
    1 tidelog: cannot alter topic t: Unknown topic config name: nosuch (INVALID_CONFIG)
      `tidelog config describe --topic t --all` shows the names with the values that they have now
    ");
    insta::assert_snapshot!(bench.refused(&["config", "describe", "--topic", "t", "nosuch"], ""), @"
    1 tidelog: topic t: nosuch: there is no such name
      --all shows those that there are
    ");
    insta::assert_snapshot!(bench.refused(&["config", "describe", "--broker", "7"], ""), @"1 tidelog: there is no broker 7: the only one is 1");
    insta::assert_snapshot!(bench.refused(&["config", "alter", "--broker", "7", "--delete", "a"], ""), @"1 tidelog: there is no broker 7: the only one is 1");
    insta::assert_snapshot!(bench.refused(&["config", "describe", "--topic", "t", "retention.sm"], ""), @"
    1 tidelog: topic t: retention.sm: there is no such name; did you mean retention.ms?
      --all shows those that there are
    ");
    insta::assert_snapshot!(bench.refused(&["consume", "nosuch"], ""), @"
    1 tidelog: cannot consume topic nosuch: it does not exist
      `tidelog topic create nosuch` makes it, `tidelog topic list` shows what there is
    ");
    insta::assert_snapshot!(bench.refused(&["consume", "t", "--partition", "1"], ""), @"1 tidelog: topic t has no partition 1: it has 1, from 0 on");
    insta::assert_snapshot!(bench.refused(&["produce", "t", "--partition", "1"], "a\n"), @"1 tidelog: topic t has no partition 1: it has 1, from 0 on");
    insta::assert_snapshot!(bench.refused(&["produce", "nosuch", "-X", "max.block.ms=300"], "a\nb\n"), @"
    1 tidelog: cannot produce to topic nosuch: the search for nosuch was not done within max.block.ms = 300 ms; the last attempt: Metadata of nosuch was answered with UNKNOWN_TOPIC_OR_PARTITION
      `tidelog topic describe nosuch` shows it, `tidelog topic create nosuch` makes it
    ");
}

#[test]
fn what_is_wrong_with_the_command_line_ends_with_code_2_before_anything_is_done() {
    let bench = bench();
    insta::assert_snapshot!(bench.refused(&["topic", "list", "-b", "no:where"], ""), @"2 tidelog: --bootstrap-server no:where: allowed is HOST or HOST:PORT, an IPv6 address in brackets; more of them after commas");
    insta::assert_snapshot!(bench.refused(&["topic", "list", "-X", "bootstrap.servers=localhost"], ""), @"2 tidelog: bootstrap.servers=localhost: allowed is a list of host:port, separated by commas");
    insta::assert_snapshot!(bench.refused(&["topic", "list", "-X", "nonsense"], ""), @"2 tidelog: -X nonsense: allowed is KEY=VALUE, such as request.timeout.ms=5000");
    insta::assert_snapshot!(bench.refused(&["produce", "t", "--compression", "rar", "--acks", "2"], ""), @"
    2 tidelog: acks=2: allowed is one of all, -1, 0, 1
    compression.type=rar: allowed is one of none, gzip, snappy, lz4, zstd
    ");
    for arguments in [
        &["topic"][..],
        &["topic", "create"],
        &["topic", "create", "t", "--partitions", "0"],
        &["topic", "create", "t", "--partitions", "-1"],
        &["topic", "trim", "t"],
        &["topic", "trim", "t", "--before-offset", "-1"],
        &["config", "check"],
        &["-b", "localhost", "completion", "bash"],
        &["topic", "alter", "t"],
        &["config", "describe"],
        &["config", "describe", "--topic", "t", "--broker", "1"],
        &["config", "alter", "--topic", "t"],
        &["config", "alter", "--topic", "t", "--set", "novalue"],
        &["produce"],
        &["produce", "t", "--timestamp", "noon"],
        &["produce", "t", "--header", "novalue"],
        &["consume", "t", "--offset", "soon"],
        &["consume", "t", "--from-beginning", "--offset", "5"],
        &["consume", "t", "--show", "everything"],
        &["consume", "t", "--format", "xml"],
        &["consume", "t", "--format", "%z"],
        &["consume"],
        &["consume", "t", "--pattern", "t"],
        &["consume", "--pattern", "("],
        &["completion", "cobol"],
        &["nosuch"],
    ] {
        let Ended { code, out, err } = bench.run(arguments);
        assert_eq!((code, &out[..]), (Some(2), ""), "{arguments:?}: {err}");
        assert!(err.contains("Usage:") || err.contains("--help"), "{arguments:?}: {err}");
    }
    let Ended { code, err, .. } = bench.run(&["topic", "list", "-X", "linger.mss=1"]);
    assert_eq!((code, &err[..]), (Some(0), "tidelog: -X linger.mss is not known and has no effect\n"));
}

#[test]
fn a_broker_that_is_not_there_is_named_with_what_to_do() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let address = free.to_string();
    for arguments in [&["topic", "list"][..], &["produce", "t"], &["consume", "t"], &["cluster", "describe"]] {
        let Ended { code, out, err } = run_at(&address, &[arguments, &["--wait", "1"]].concat(), b"a\n");
        assert_eq!((code, &out[..]), (Some(1), ""));
        assert_eq!(
            err.replace(&address, "ADDRESS"),
            "tidelog: no broker answers at ADDRESS (waited for 1 s)\n  ADDRESS: Connection refused (os error 111)\n  is a \
             broker running there? `tidelog` starts one; --bootstrap-server HOST:PORT, or the environment variable \
             TIDELOG_BOOTSTRAP_SERVER, names another\n"
        );
    }
}

#[test]
fn a_broker_that_says_a_wrong_address_of_itself_is_found_out() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let bench = bench_with(|setup| setup.set("advertised.listeners", format!("PLAINTEXT://{free}")));
    let arguments = ["topic", "create", "t", "-X", "default.api.timeout.ms=1000"];
    let Ended { code, err, .. } = bench.run(&arguments);
    assert_eq!(code, Some(1));
    assert!(err.contains(&format!("\n  {free}: Connection refused")), "{err}");
    assert!(err.contains("advertised.listeners"), "{err}");
}

#[test]
fn records_that_no_broker_acknowledges_are_named_and_the_code_is_1() {
    let bench = bench();
    bench.ok(&["topic", "create", "t"]);
    let times = ["-X", "delivery.timeout.ms=1000", "-X", "request.timeout.ms=500", "-X", "linger.ms=0"];
    let mut producer = bench.start(&[&["produce", "t"][..], &times].concat());
    producer.say("arrives\n");
    let mut consumer = bench.start(&["consume", "t", "--from-beginning", "-n", "1"]);
    assert_eq!(consumer.line(), "arrives\n");
    consumer.end().ok();
    bench.broker.kill();
    producer.say("does not\narrive\n");
    producer.stdin = None;
    let Ended { code, out, err } = producer.end();
    assert_eq!((code, &out[..]), (Some(1), ""));
    // The two lines are in one batch or in two.
    assert!(err.contains("lines 2 to 3, for t-0: ") || err.contains("line 2, for t-0: "), "{err}");
    assert!(err.contains("delivery.timeout.ms = 1000 ms"), "{err}");
    assert!(err.contains("tidelog: 2 of 3 records were not delivered to t\n  127.0.0.1:"), "{err}");
    assert!(err.contains("Connection refused"), "{err}");
}

#[test]
fn a_format_string_prints_what_it_says() {
    let bench = bench();
    bench.ok(&["topic", "create", "t"]);
    let lines = "{\"key\":\"k\",\"value\":\"v1\",\"timestamp\":5,\"headers\":[{\"key\":\"h\",\"value\":\"x\"}]}\n{\"value\":null,\"timestamp\":6}\n";
    bench.feed(&["produce", "t", "--format", "json"], lines).ok();
    let read = |arguments: &[&str]| bench.ok(&[&["consume", "t", "--from-beginning", "-e"][..], arguments].concat());
    let format = r"%t[%p]@%o\t%k=%v %K/%S %T %h 100%%\n";
    assert_eq!(read(&["--format", format]), "t[0]@0\tk=v1 1/2 5 h=x 100%\nt[0]@1\tnull=null -1/-1 6  100%\n");
    assert_eq!(read(&["--format", "%k;", "--null", "NULL"]), "k;NULL;");
    assert_eq!(read(&["--format", "text"]), "v1\nnull\n");
    insta::assert_snapshot!(bench.refused(&["consume", "t", "--format", "%v", "--show", "key"], ""), @"2 tidelog: --show and --separator are for --format text: another format says itself what is printed");
}

#[test]
fn several_topics_are_read_by_name_or_by_pattern() {
    let bench = bench();
    bench.ok(&["topic", "create", "orders", "orders-eu", "my-orders"]);
    for topic in ["orders", "orders-eu", "my-orders"] {
        bench.feed(&["produce", topic], format!("of {topic}\n")).ok();
    }
    let read = |arguments: &[&str]| {
        let text = bench.ok(&[&["consume", "--from-beginning", "-e"][..], arguments].concat());
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(read(&["orders", "my-orders", "orders"]), ["of my-orders", "of orders"]);
    assert_eq!(
        read(&["--pattern", "orders.*", "--show", "topic,offset"]),
        ["orders\t0\tof orders", "orders-eu\t0\tof orders-eu"]
    );
    let all = read(&["orders", "orders-eu", "--show", "all", "--separator", "|"]);
    assert!(
        all[0].contains("|orders-eu|0|0||null|of orders-eu") || all[0].contains("|orders|0|0||null|of orders"),
        "{all:?}"
    );
    insta::assert_snapshot!(bench.refused(&["consume", "--pattern", "ord"], ""), @"
    1 tidelog: no topic has a name that matches --pattern
      `tidelog topic list` shows those there are
    ");
}

#[test]
fn reading_begins_some_time_ago() {
    let bench = bench();
    let hour_ms = 3_600_000;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis();
    let at = |hours: u128| format!("{{\"value\":\"{hours} h ago\",\"timestamp\":{}}}\n", now - hours * hour_ms);
    bench.feed(&["produce", "t", "--format", "json"], format!("{}{}{}", at(49), at(3), at(0))).ok();
    let read = |begin: &str| bench.ok(&["consume", "t", "-e", "--offset", begin]);
    assert_eq!(read("-1h"), "0 h ago\n");
    assert_eq!(read("30m"), "0 h ago\n");
    assert_eq!(read("-2d"), "3 h ago\n0 h ago\n");
    assert_eq!(read("1w"), "49 h ago\n3 h ago\n0 h ago\n");
}

/// A terminal: our end, and the one for a command's standard error.
fn terminal(columns: u16) -> (File, OwnedFd) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("its other end");
    let name = ptsname(&ours, Vec::new()).expect("its name");
    let theirs = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other end");
    tcsetwinsize(&ours, Winsize { ws_row: 40, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).expect("its size");
    (File::from(ours), theirs)
}

#[test]
fn a_person_is_told_once_that_it_waits_and_a_program_is_not() {
    let bench = bench();
    bench.feed(&["produce", "t"], "a\n").ok();
    let (ours, theirs) = terminal(80);
    let mut command = Command::new(tidelog_binary());
    command.args(["consume", "t", "--from-beginning"]).env("TIDELOG_BOOTSTRAP_SERVER", bench.broker.address());
    let mut child = command.stdout(Stdio::piped()).stderr(theirs).spawn().expect("the binary");
    // The other end is open in the child alone.
    drop(command);
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut told = BufReader::new(ours);
    let mut line = String::new();
    out.read_line(&mut line).expect("a record");
    assert_eq!(line, "a\n");
    line.clear();
    told.read_line(&mut line).expect("a line");
    assert_eq!(line, "tidelog: waiting for records at the end of topic t; Ctrl-C ends\r\n");
    bench.feed(&["produce", "t"], "b\n").ok();
    line.clear();
    out.read_line(&mut line).expect("a record");
    assert_eq!(line, "b\n");
    std::thread::sleep(Duration::from_millis(600));
    kill_process(i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("an id"), Signal::INT).expect("SIGINT");
    assert_eq!(child.wait().expect("its end").code(), Some(0));
    // What is read of a terminal whose other end is closed is an error, behind all that was written.
    let mut rest = Vec::new();
    let _ = told.read_to_end(&mut rest);
    assert_eq!(String::from_utf8_lossy(&rest), "");

    let mut watched_by_nobody = bench.start(&["consume", "t", "--from-beginning"]);
    assert_eq!(watched_by_nobody.line() + &watched_by_nobody.line(), "a\nb\n");
    watched_by_nobody.works_for(Duration::from_millis(600));
    watched_by_nobody.interrupt();
    assert_eq!(watched_by_nobody.end().ok(), "");
}

#[test]
fn a_broker_that_goes_away_and_comes_back_is_told_of() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let setup = Setup::of(Kind::Tidelog, home.path()).set("listeners", format!("PLAINTEXT://{free}"));
    let broker = setup.start();
    let address = broker.address().to_owned();
    run_at(&address, &["topic", "create", "t"], b"").ok();
    let mut consumer = start(&address, &["consume", "t"]);
    let mut producer = start(&address, &["produce", "t"]);
    producer.say("before\n");
    assert_eq!(consumer.line(), "before\n");
    let away = format!(
        "tidelog: no broker answers any more ({address}: Connection refused (os error 111)); waiting until one does\n"
    );
    broker.kill();
    assert_eq!(consumer.error_line(), away);
    producer.say("meanwhile\n");
    assert_eq!(producer.error_line(), away);
    let broker = setup.start();
    assert_eq!(consumer.line(), "meanwhile\n");
    assert_eq!(consumer.error_line(), "tidelog: a broker answers again\n");
    assert_eq!(producer.error_line(), "tidelog: a broker answers again\n");
    producer.stdin = None;
    assert_eq!(producer.end().code, Some(0));
    consumer.interrupt();
    assert_eq!(consumer.end().code, Some(0));
    broker.stop();
}

#[test]
fn a_topic_that_is_deleted_while_it_is_read_ends_the_reading() {
    let bench = bench();
    bench.ok(&["topic", "create", "a", "b"]);
    // It begins before the end, so that a line says that it reads.
    for topic in ["a", "b"] {
        bench.feed(&["produce", topic], "x\n").ok();
    }
    let mut one = bench.start(&["consume", "a", "--from-beginning"]);
    let mut both = bench.start(&["consume", "a", "b", "--from-beginning"]);
    assert_eq!((one.line(), both.line() + &both.line()), ("x\n".to_owned(), "x\nx\n".to_owned()));
    bench.ok(&["topic", "delete", "a"]);
    let Ended { code, err, .. } = one.end();
    assert_eq!((code, &err[..]), (Some(1), "tidelog: topic a was deleted while it was read\n"));
    assert_eq!(both.error_line(), "tidelog: topic a was deleted while it was read; the others are read on\n");
    let topics = bench.ok(&["topic", "list"]);
    assert!(!topics.contains("\na "), "reading does not make it again: {topics}");
    bench.feed(&["produce", "b"], "y\n").ok();
    assert_eq!(both.line(), "y\n");
    // What another topic of that name holds was not asked for.
    bench.ok(&["topic", "delete", "b"]);
    bench.ok(&["topic", "create", "b"]);
    bench.feed(&["produce", "b"], "1\n2\n3\n4\n").ok();
    let Ended { code, out, err } = both.end();
    assert_eq!((code, &out[..]), (Some(1), ""));
    assert_eq!(err, "tidelog: topic b was deleted while it was read, and another one has its name now\n");
}

#[test]
fn a_reader_of_standard_error_that_has_gone_ends_nothing() {
    let bench = bench();
    let mut list = bench.start(&["topic", "list", "-X", "linger.mss=1"]);
    list.stderr = None;
    assert_eq!(list.end().code, Some(0));
    let mut refused = bench.start(&["topic", "delete", "nosuch"]);
    refused.stderr = None;
    assert_eq!(refused.end().code, Some(1));
    // Nor does it end a broker, which has more to say.
    let home = tempfile::tempdir().expect("a temporary directory");
    let dirs = format!("log.dirs={}", home.path().display());
    let listeners = "listeners=PLAINTEXT://127.0.0.1:0";
    let mut broker = start("", &["start", "--override", listeners, "--override", &dirs, "--log-level", "debug"]);
    let ready = broker.line();
    let address = ready.trim().strip_prefix("READY PLAINTEXT://").unwrap_or_else(|| panic!("{ready}")).to_owned();
    (broker.stdout, broker.stderr) = (None, None);
    run_at(&address, &["topic", "create", "t"], b"").ok();
    run_at(&address, &["produce", "t"], b"a\n").ok();
    assert_eq!(run_at(&address, &["consume", "t", "--from-beginning", "-e"], b"").ok(), "a\n");
    broker.interrupt();
    assert_eq!(broker.end().code, Some(0));
}

#[test]
fn configs_that_tidelog_does_nothing_with_are_marked_and_what_the_start_set_says_so() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let broker = Setup::of(Kind::Tidelog, home.path()).set("num.partitions", 2).start();
    let run = |arguments: &[&str]| run_at(broker.address(), arguments, b"").ok();
    let all = run(&["config", "describe", "--broker", "1", "--all"]);
    let row = |name: &str| {
        let found = all.lines().find(|line| line.starts_with(&format!("{name} ")));
        found.unwrap_or_else(|| panic!("{name}: {all}")).split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("num.partitions"), "2 start read-only");
    assert_eq!(row("num.io.threads"), "8 default");
    assert_eq!(row("background.threads"), "10 default no effect");
    run(&["topic", "create", "t"]);
    let json = run(&["config", "describe", "--topic", "t", "delete.retention.ms", "retention.ms", "--format", "json"]);
    let described: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let why = described[0]["no_effect"].as_str().expect("a reason");
    assert!(why.contains("no log cleaner yet"), "{why}");
    assert_eq!(described[1]["no_effect"], serde_json::Value::Null);
    broker.stop();
}

#[test]
fn help_fits_the_terminal_and_no_word_of_it_is_broken() {
    for command in [
        "",
        "start",
        "topic",
        "topic create",
        "topic list",
        "topic describe",
        "topic alter",
        "topic delete",
        "produce",
        "consume",
        "config describe",
        "config alter",
        "cluster describe",
        "log dump",
        "bench produce",
        "bench consume",
        "completion",
    ] {
        let words: Vec<&str> = command.split_whitespace().collect();
        let help = |columns: usize, flag: &str| {
            let mut command = Command::new(tidelog_binary());
            command.args(&words).arg(flag).env("COLUMNS", columns.to_string());
            String::from_utf8(command.output().expect("the binary").stdout).expect("UTF-8")
        };
        for flag in ["-h", "--help"] {
            let wide = help(160, flag);
            let all: Vec<&str> = wide.split_whitespace().collect();
            for columns in [60, 80, 100, 160] {
                let text = help(columns, flag);
                assert_eq!(text.split_whitespace().collect::<Vec<_>>(), all, "{command} {flag} {columns}");
                for line in text.lines().filter(|line| line.split_whitespace().count() > 1) {
                    assert!(line.chars().count() <= columns, "{command} {flag} {columns}: {line}");
                }
            }
        }
    }
}

#[test]
fn every_command_has_help_with_examples_and_every_shell_a_script() {
    let bench = bench();
    for command in [
        "topic create",
        "topic list",
        "topic describe",
        "topic alter",
        "topic delete",
        "topic trim",
        "config describe",
        "config alter",
        "config check",
        "cluster describe",
        "health",
        "log-dirs",
        "quorum describe",
        "produce",
        "consume",
        "start",
        "format",
        "random-uuid",
        "completion",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let help = bench.ok(&[&words[..], &["--help"]].concat());
        let example = format!("tidelog {command}");
        let examples = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{command} has no examples: {help}")).1;
        assert!(examples.contains(&example), "{command}: {examples}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = bench.ok(&["completion", shell]);
        assert!(script.contains("COMPLETE") && script.contains(shell), "{shell}: {script}");
    }
    let all = bench.ok(&["--help"]);
    assert!(all.contains("Print the records of topics") && all.contains("Examples:\n"), "{all}");
}
