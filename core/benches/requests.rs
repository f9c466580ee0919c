//! What a request costs the core alone, with a disk that completes every command at once: `cargo bench -p
//! tidelog-core`.
//!
//! A frame goes in and a frame comes out: decoding, the check of the records, the broker, the disk's commands and their
//! completions, encoding. Prints the nanoseconds of a request and, where `valgrind` is installed, its instructions. The
//! number of instructions is the same on every run, so that a change of one percent is seen on a noisy machine too.
// A benchmark has a clock, arguments and processes.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::process::{Command, ExitCode};
use std::time::Instant;
use tidelog_core::api::prepare;
use tidelog_core::batch::{BatchBuilder, BatchLimits};
use tidelog_core::broker::Broker;
use tidelog_core::config::BrokerConfig;
use tidelog_core::ids::{ConnId, FileId};
use tidelog_core::io::{Input, IoCommand, IoCompletion, IoDone, IoError, IoErrorKind, IoOp, Origin, Outbox, Output};
use tidelog_core::time::{Mono, Now, WallMs};
use tidelog_core::wire::messages::create_topics_request::CreatableTopic;
use tidelog_core::wire::messages::fetch_request::{FetchPartition, FetchTopic};
use tidelog_core::wire::messages::metadata_request::MetadataRequestTopic;
use tidelog_core::wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use tidelog_core::wire::messages::{CreateTopicsRequest, FetchRequest, MetadataRequest, ProduceRequest};
use tidelog_core::wire::{FRAME_LENGTH_BYTES, Records, RequestBody, RequestHeader, encode_request, encode_response};

const TOPIC: &str = "t";
const PARTITIONS: i32 = 100;
const CONN: ConnId = ConnId(1);
const START_MS: i64 = 1_700_000_000_000;

/// A request to measure: its name, and what makes its frame.
type Case = (&'static str, fn() -> Bytes);

const CASES: [Case; 6] = [
    ("produce, 1 KiB to one partition", || produce(1, 1_000)),
    ("produce, 64 KiB to one partition", || produce(1, 64_000)),
    ("produce, 1 KiB to each of 100 partitions", || produce(PARTITIONS, 1_000)),
    ("fetch, 64 KiB of one partition", || fetch(1, 64 << 10)),
    ("fetch, 1 KiB of each of 100 partitions", || fetch(PARTITIONS, 1_200)),
    ("metadata, of one topic of 100 partitions", metadata),
];

/// How many requests the two runs under valgrind make. One run makes 1,000 more than the other, so the difference of
/// their instructions is the cost of 1,000 requests, without the start.
const FEW: u64 = 200;
const MANY: u64 = 1_200;
const TIMED: u64 = 20_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [case, count] = &arguments[..] {
        // This process was started by the benchmark, under valgrind.
        run(case.parse().expect("a number"), count.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    let wanted = arguments.first().map_or("", String::as_str);
    println!("{:<42} {:>10} {:>14}", "request", "ns", "instructions");
    for (place, (name, _)) in CASES.iter().enumerate().filter(|(_, (name, _))| name.contains(wanted)) {
        let nanos = run(place, TIMED);
        let counted = instructions(place, MANY).zip(instructions(place, FEW));
        let instructions =
            counted.map_or("no valgrind".into(), |(many, few)| ((many - few) / (MANY - FEW)).to_string());
        println!("{name:<42} {nanos:>10} {instructions:>14}");
    }
    ExitCode::SUCCESS
}

/// Nanoseconds a request.
fn run(case: usize, count: u64) -> u128 {
    let mut bench = Bench::new();
    // Records for the fetches.
    let records = produce(PARTITIONS, 1_000);
    (0..100).for_each(|_| bench.ask(&records));
    let frame = CASES[case].1();
    let begin = Instant::now();
    (0..count).for_each(|_| bench.ask(&frame));
    begin.elapsed().as_nanos() / u128::from(count)
}

/// Instructions of a whole run. None where there is no valgrind.
fn instructions(case: usize, count: u64) -> Option<u64> {
    let own = std::env::current_exe().ok()?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(own);
    let output = valgrind.args([case.to_string(), count.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

struct Bench {
    broker: Broker,
    disk: Disk,
    out: Outbox,
    inputs: VecDeque<Input>,
    now: Now,
    limits: BatchLimits,
}

impl Bench {
    fn new() -> Self {
        let (config, _) = BrokerConfig::from_properties([("log.retention.ms", "-1")]).expect("a valid config");
        let mut bench = Self {
            broker: Broker::new(config, [7; 32]),
            disk: Disk::default(),
            out: Outbox::default(),
            inputs: VecDeque::new(),
            now: Now { mono: Mono(1), wall: WallMs(START_MS) },
            limits: BatchLimits::default(),
        };
        bench.handle(Input::Boot);
        bench.handle(Input::Connected(CONN, Origin { listener: 0, address: Ipv4Addr::LOCALHOST.into() }));
        let topic = CreatableTopic {
            name: TOPIC.into(),
            num_partitions: PARTITIONS,
            replication_factor: 1,
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 1_000, ..Default::default() };
        bench.ask(&frame(7, request.into()));
        bench
    }

    /// Sends one frame, which is answered at once.
    fn ask(&mut self, frame: &Bytes) {
        self.now.mono = Mono(self.now.mono.0 + 10_000);
        self.now.wall = WallMs(START_MS + (self.now.mono.0 / 1_000_000) as i64);
        if self.broker.deadline().is_some_and(|(deadline, _)| deadline <= self.now.mono) {
            self.handle(Input::Tick);
        }
        let request = prepare(CONN, frame.clone(), &self.limits).expect("a request");
        let answered = self.handle(Input::Request(Box::new(request)));
        assert_eq!(answered, 1, "an answer at once");
    }

    /// Handles an input and all disk commands that follow from it. Gives the number of responses.
    fn handle(&mut self, input: Input) -> usize {
        self.inputs.push_back(input);
        let mut answered = 0;
        while let Some(input) = self.inputs.pop_front() {
            self.broker.handle(self.now, input, &mut self.out);
            for output in self.out.outputs.drain(..) {
                match output {
                    Output::Respond(_, response) => {
                        let (api_key, version) = (response.api_key, response.api_version);
                        black_box(encode_response(api_key, version, response.correlation_id, &response.body));
                        answered += 1;
                    }
                    Output::Io(command) => self.inputs.push_back(Input::Io(self.disk.execute(command))),
                    Output::Fatal(text) => panic!("{text}"),
                    Output::Close(_, why) => panic!("{why}"),
                    Output::Connect(..) | Output::Send(..) | Output::HangUp(_) => panic!("a lone broker asks nobody"),
                    Output::Listen(_)
                    | Output::Drain(_)
                    | Output::Ready
                    | Output::Stopped
                    | Output::Limits(_)
                    | Output::LogLevels(_)
                    | Output::Event(_) => {}
                }
            }
        }
        answered
    }
}

/// A disk that keeps no records: the core never reads them back here.
#[derive(Default)]
struct Disk {
    small: BTreeMap<String, Bytes>,
    ends: BTreeMap<FileId, u64>,
}

impl Disk {
    fn execute(&mut self, IoCommand { id, op }: IoCommand) -> IoCompletion {
        let done = match op {
            IoOp::List { .. } => Ok(IoDone::Entries(Vec::new())),
            IoOp::Load { path, .. } => {
                let missing = || IoError { kind: IoErrorKind::NotFound, text: format!("no {}", path.path) };
                self.small.get(&path.path).cloned().map(IoDone::Bytes).ok_or_else(missing)
            }
            IoOp::Replace { path, content } => {
                self.small.insert(path.path, content);
                Ok(IoDone::Unit)
            }
            IoOp::Open { file, .. } => Ok(IoDone::Len(*self.ends.entry(file).or_default())),
            IoOp::Write { file, position, chunks } => {
                let end = position + chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
                self.ends.insert(file, end);
                Ok(IoDone::Unit)
            }
            IoOp::Read { file, position, len } => panic!("{file:?} is read at {position} for {len} bytes"),
            IoOp::Volume { .. } => Ok(IoDone::Volume { total_bytes: 1 << 40, usable_bytes: 1 << 40 }),
            IoOp::CreateDir { .. }
            | IoOp::SyncDir { .. }
            | IoOp::Rename { .. }
            | IoOp::Remove { .. }
            | IoOp::RemoveDir { .. }
            | IoOp::SetLen { .. }
            | IoOp::Sync { .. }
            | IoOp::Close { .. } => Ok(IoDone::Unit),
        };
        IoCompletion { id, result: done }
    }
}

fn frame(api_version: i16, body: RequestBody) -> Bytes {
    let header =
        RequestHeader { api_key: body.api_key(), api_version, correlation_id: 1, client_id: Some("bench".into()) };
    encode_request(&header, &body).to_bytes().slice(FRAME_LENGTH_BYTES..)
}

/// Produces one record of `value_bytes` to each of the first `partitions` partitions.
fn produce(partitions: i32, value_bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.push(START_MS, None, Some(&vec![b'x'; value_bytes]), &[]);
    let batch = builder.build();
    let data = (0..partitions).map(|index| PartitionProduceData {
        index,
        records: Some(Records::from(batch.clone())),
        ..Default::default()
    });
    let topic = TopicProduceData { name: TOPIC.into(), partition_data: data.collect(), ..Default::default() };
    let request = ProduceRequest { acks: -1, timeout_ms: 1_500, topic_data: vec![topic], ..Default::default() };
    frame(9, request.into())
}

/// Fetches each of the first `partitions` partitions from its beginning, without a session.
fn fetch(partitions: i32, partition_max_bytes: i32) -> Bytes {
    let partitions = (0..partitions).map(|partition| FetchPartition {
        partition,
        fetch_offset: 0,
        partition_max_bytes,
        ..Default::default()
    });
    let topic = FetchTopic { topic: TOPIC.into(), partitions: partitions.collect(), ..Default::default() };
    let request = FetchRequest {
        max_wait_ms: 1_000,
        min_bytes: 1,
        max_bytes: 50 << 20,
        session_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    frame(12, request.into())
}

fn metadata() -> Bytes {
    let topic = MetadataRequestTopic { name: Some(TOPIC.into()), ..Default::default() };
    frame(12, MetadataRequest { topics: Some(vec![topic]), ..Default::default() }.into())
}
