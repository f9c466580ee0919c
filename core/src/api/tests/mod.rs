//! Tests of the whole broker with disks in memory: which requests get which answers, and when.

mod changes;
mod cluster;
mod configs;
mod controller;
mod controller_listener;
mod fetch;
mod leaders;
mod life;
mod metadata;
mod metrics;
mod offsets;
mod partitions;
mod produce;
mod security;

use crate::api::prepare::check_batches;
use crate::batch::{BatchBuilder, BatchHeader, BatchLimits};
use crate::broker::Broker;
use crate::config::{BrokerConfig, ConnectionLimits, LogLevel, Loggers};
use crate::ids::{ConnId, FileId, LeaderEpoch, Uuid};
use crate::io::{Input, IoCommand, IoCompletion, IoOp, Level, Origin, Outbox, Output, Request, Response};
use crate::storage::test_disk::TestDisk;
use crate::time::{Mono, Now, WallMs};
use crate::wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use crate::wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use crate::wire::messages::delete_topics_request::DeleteTopicState;
use crate::wire::messages::fetch_request::{FetchPartition, FetchTopic};
use crate::wire::messages::fetch_response::PartitionData;
use crate::wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use crate::wire::messages::produce_response::PartitionProduceResponse;
use crate::wire::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, FetchRequest, FetchResponse, ProduceRequest,
};
use crate::wire::{ErrorCode, Records, RecordsChunk, RequestBody, RequestHeader, ResponseBody};
use bytes::Bytes;
use core::net::Ipv4Addr;
use std::collections::{BTreeMap, VecDeque};

/// When a bench begins, in milliseconds since 1970.
const START_MS: i64 = 1_700_000_000_000;
/// The connection of requests for which a test names no other.
const CONN: ConnId = ConnId(1);

/// The connection of fetches. On a shared one, the answer to a produce would wait behind a waiting fetch.
const FETCHER: ConnId = ConnId(2);

/// A broker that has started, and one client with a few connections.
struct Bench {
    config: BrokerConfig,
    broker: Broker,
    /// The seed of the broker. Each start has another.
    lives: u8,
    /// One disk for each of `log.dirs`.
    disks: Vec<TestDisk>,
    files: BTreeMap<FileId, usize>,
    now: Now,
    /// Commands for which this is true wait until [`Bench::release`].
    held: Option<fn(&IoOp) -> bool>,
    waiting: VecDeque<IoCommand>,
    /// The connections that the broker knows, with the listener of each.
    connections: BTreeMap<ConnId, u16>,
    correlation_id: i32,
    answers: BTreeMap<i32, ResponseBody>,
    closed: Vec<(ConnId, &'static str)>,
    /// The client id of the requests.
    client_id: Option<&'static str>,
    stopped: bool,
    /// The listeners that are open, in the order in which they were opened.
    listening: Vec<u16>,
    /// The limits of connections that the broker gave.
    limits: Vec<ConnectionLimits>,
    /// The levels of the log that the broker gave.
    log_levels: Vec<Loggers>,
    /// What the operator's log was warned of.
    warnings: Vec<String>,
    /// Everything in the operator's log: the level and the text.
    told: Vec<String>,
}

impl Bench {
    fn new(properties: &[(&str, &str)]) -> Self {
        let (mut config, warnings) = BrokerConfig::from_properties(properties.iter().copied()).expect("a valid config");
        config.loggers = Loggers::of_broker(LogLevel::Info);
        assert!(warnings.is_empty(), "{warnings:?}");
        let dirs = config.log_dirs.len();
        let mut bench = Self {
            broker: Broker::new(config.clone(), [7; 32]),
            lives: 7,
            config,
            disks: vec![TestDisk::default(); dirs],
            files: BTreeMap::new(),
            now: Now { mono: Mono(1), wall: WallMs(START_MS) },
            held: None,
            waiting: VecDeque::new(),
            connections: BTreeMap::new(),
            correlation_id: 0,
            answers: BTreeMap::new(),
            closed: Vec::new(),
            client_id: None,
            stopped: false,
            listening: Vec::new(),
            limits: Vec::new(),
            log_levels: Vec::new(),
            warnings: Vec::new(),
            told: Vec::new(),
        };
        assert!(bench.handle(Input::Boot), "the broker comes up");
        bench
    }

    /// Ends the process, after a clean stop or without one, and starts another on the same disks.
    fn start(&mut self) {
        assert!(self.boot(), "the broker comes up again");
    }

    /// Like [`start`](Self::start). Gives whether the new broker was ready at once.
    fn boot(&mut self) -> bool {
        self.disks.iter_mut().for_each(TestDisk::process_ends);
        self.files.clear();
        self.connections.clear();
        self.waiting.clear();
        self.listening.clear();
        self.stopped = false;
        self.lives += 1;
        self.broker = Broker::new(self.config.clone(), [self.lives; 32]);
        self.handle(Input::Boot)
    }

    /// Asks the broker to stop, and waits for the second heartbeat that this takes.
    fn stop(&mut self) {
        self.handle(Input::Stop);
        self.pass(50);
    }

    /// A broker that goes on when its second log directory fails, because the metadata log is in the first.
    fn with_two_log_dirs() -> Self {
        Self::new(&[("log.dirs", "meta,topics"), ("metadata.log.dir", "meta")])
    }

    /// The disk of the second log directory, which holds the first topic's partition.
    fn disk_of_topics(&mut self) -> &mut TestDisk {
        assert!(self.disks[1].names().iter().any(|name| name.starts_with("t-0/")), "{:?}", self.disks[1].names());
        &mut self.disks[1]
    }

    fn execute(&mut self, command: IoCommand) -> IoCompletion {
        let dir = match &command.op {
            IoOp::List { path }
            | IoOp::CreateDir { path }
            | IoOp::SyncDir { path }
            | IoOp::Rename { from: path, .. }
            | IoOp::Remove { path }
            | IoOp::RemoveDir { path }
            | IoOp::Load { path, .. }
            | IoOp::Replace { path, .. } => path.dir.0 as usize,
            IoOp::Open { file, path, .. } => {
                self.files.insert(*file, path.dir.0 as usize);
                path.dir.0 as usize
            }
            IoOp::Write { file, .. }
            | IoOp::Read { file, .. }
            | IoOp::SetLen { file, .. }
            | IoOp::Sync { file }
            | IoOp::Close { file } => self.files[file],
            IoOp::Volume { dir } => dir.0 as usize,
        };
        self.disks[dir].wall = self.now.wall;
        self.disks[dir].execute(command)
    }

    /// Handles an input and all commands that follow from it. Gives whether the broker has become ready.
    fn handle(&mut self, input: Input) -> bool {
        self.act(|broker, now, out| broker.handle(now, input, out))
    }

    /// Does something with the broker, and handles all commands that follow from it. Gives whether the broker has
    /// become ready.
    fn act(&mut self, act: impl FnOnce(&mut Broker, Now, &mut Outbox)) -> bool {
        let (mut inputs, mut ready) = (VecDeque::new(), false);
        let mut out = Outbox::default();
        act(&mut self.broker, self.now, &mut out);
        loop {
            self.broker.verify();
            self.broker.verify_metrics();
            for output in std::mem::take(&mut out.outputs) {
                match output {
                    Output::Respond(_, response) => {
                        let Response { correlation_id, body, .. } = *response;
                        assert!(self.answers.insert(correlation_id, body).is_none(), "answered twice");
                    }
                    Output::Close(conn, why) => self.closed.push((conn, why)),
                    Output::Io(command) if self.waits(&command) => self.waiting.push_back(command),
                    Output::Io(command) => inputs.push_back(Input::Io(self.execute(command))),
                    // There is no other node: nobody answers.
                    Output::Connect(..) | Output::HangUp(_) => {}
                    Output::Send(..) => panic!("no link is open"),
                    Output::Listen(listener) => self.listening.push(listener),
                    Output::Drain(listener) => self.listening.retain(|open| *open != listener),
                    Output::Ready => ready = true,
                    Output::Fatal(text) => panic!("{text}"),
                    Output::Stopped => self.stopped = true,
                    Output::Limits(limits) => self.limits.push(limits),
                    Output::LogLevels(loggers) => self.log_levels.push(loggers),
                    Output::Event(event) => {
                        self.told.push(format!("{:?} {}", event.level, event.text));
                        if event.level == Level::Warn {
                            self.warnings.push(event.text);
                        }
                    }
                }
            }
            match inputs.pop_front() {
                Some(input) => self.broker.handle(self.now, input, &mut out),
                None => return ready,
            }
        }
    }

    /// Whether a command waits: because it is held, or because an earlier command of its lane waits. Reads may
    /// overtake.
    fn waits(&self, command: &IoCommand) -> bool {
        let is_read = |command: &IoCommand| matches!(command.op, IoOp::Read { .. });
        let behind = |other: &IoCommand| other.id.owner == command.id.owner && !is_read(other);
        self.held.is_some_and(|held| held(&command.op)) || (!is_read(command) && self.waiting.iter().any(behind))
    }

    /// From now on commands for which `held` is true wait.
    fn hold(&mut self, held: fn(&IoOp) -> bool) {
        self.held = Some(held);
    }

    /// Carries out all waiting commands. Later commands do not wait any more.
    fn release(&mut self) {
        self.held = None;
        while !self.waiting.is_empty() {
            self.release_first();
        }
    }

    /// Carries out the first waiting command, and handles what follows from it.
    fn release_first(&mut self) {
        let command = self.waiting.pop_front().expect("something waits");
        let completion = self.execute(command);
        self.handle(Input::Io(completion));
    }

    /// Carries out the last waiting command, and handles what follows from it.
    fn release_last(&mut self) {
        self.held = None;
        let command = self.waiting.pop_back().expect("something waits");
        let completion = self.execute(command);
        self.handle(Input::Io(completion));
    }

    /// Lets time pass, with a tick at every deadline on the way.
    fn pass(&mut self, ms: i64) {
        let until = self.now.mono.plus_ms(ms);
        while let Some((deadline, _)) = self.broker.deadline().filter(|(deadline, _)| *deadline <= until) {
            self.at(deadline.max(self.now.mono));
            self.handle(Input::Tick);
        }
        self.at(until);
    }

    fn at(&mut self, mono: Mono) {
        self.now = Now { mono, wall: WallMs(START_MS + (mono.0 / 1_000_000) as i64) };
    }

    /// Sends a request. Gives its number, by which its answer is found.
    fn send(&mut self, api_version: i16, body: RequestBody) -> i32 {
        self.send_on(CONN, api_version, body)
    }

    fn send_on(&mut self, conn: ConnId, api_version: i16, body: RequestBody) -> i32 {
        self.send_at(0, conn, api_version, body)
    }

    /// Sends a request to the listener in this place of `listeners`.
    fn send_at(&mut self, listener: u16, conn: ConnId, api_version: i16, body: RequestBody) -> i32 {
        self.correlation_id += 1;
        let header = RequestHeader {
            api_key: body.api_key(),
            api_version,
            correlation_id: self.correlation_id,
            client_id: self.client_id.map(Into::into),
        };
        let batches = check_batches(api_version, &body, &BatchLimits::default());
        self.request(listener, Request { conn, header, body, batches });
        self.correlation_id
    }

    /// Hands over a request of a connection to the listener in this place of `listeners`. The first one of a connection
    /// opens it.
    fn request(&mut self, listener: u16, request: Request) {
        let conn = request.conn;
        match self.connections.insert(conn, listener) {
            Some(known) => assert_eq!(known, listener, "a connection belongs to one listener"),
            None => {
                self.handle(Input::Connected(conn, Origin { listener, address: Ipv4Addr::LOCALHOST.into() }));
            }
        }
        self.handle(Input::Request(Box::new(request)));
    }

    fn disconnect(&mut self, conn: ConnId) {
        self.connections.remove(&conn).expect("it is connected");
        self.handle(Input::Disconnected(conn));
    }

    /// Sends a request to the listener of controllers, which is the second one. It is answered at once.
    #[track_caller]
    fn ask_controller(&mut self, api_version: i16, body: RequestBody) -> ResponseBody {
        let sent = self.send_at(1, ConnId(50), api_version, body);
        self.answer(sent).expect("an answer at once")
    }

    fn answer(&mut self, sent: i32) -> Option<ResponseBody> {
        self.answers.remove(&sent)
    }

    /// Sends a request that is answered at once.
    #[track_caller]
    fn ask(&mut self, api_version: i16, body: RequestBody) -> ResponseBody {
        let sent = self.send(api_version, body);
        self.answer(sent).expect("an answer at once")
    }

    #[track_caller]
    fn create(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Uuid {
        let configs = configs.iter().map(|(name, value)| CreatableTopicConfig {
            name: (*name).into(),
            value: Some((*value).into()),
            ..Default::default()
        });
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 1_000, ..Default::default() };
        match self.ask(7, RequestBody::CreateTopics(request)) {
            ResponseBody::CreateTopics(response) => {
                assert_eq!(response.topics[0].error_code, 0, "{response:?}");
                response.topics[0].topic_id
            }
            other => panic!("{other:?}"),
        }
    }

    /// Deletes records, and gives the low watermark back.
    #[track_caller]
    fn delete_records(&mut self, topic: &str, offset: i64) -> i64 {
        self.delete_on(CONN, topic, offset)
    }

    #[track_caller]
    fn delete_on(&mut self, conn: ConnId, topic: &str, offset: i64) -> i64 {
        let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset, ..Default::default() }];
        let topics = vec![DeleteRecordsTopic { name: topic.into(), partitions, ..Default::default() }];
        let request = DeleteRecordsRequest { topics, timeout_ms: 1_000, ..Default::default() };
        let sent = self.send_on(conn, 2, RequestBody::DeleteRecords(request));
        match self.answer(sent).expect("an answer at once") {
            ResponseBody::DeleteRecords(response) => response.topics[0].partitions[0].low_watermark,
            other => panic!("{other:?}"),
        }
    }

    /// Sends one batch to partition 0 of a topic, by its name.
    fn send_batch(&mut self, topic: &str, acks: i16, batch: Bytes) -> i32 {
        self.send_batch_on(CONN, topic, acks, 0, batch)
    }

    fn send_batch_on(&mut self, conn: ConnId, topic: &str, acks: i16, partition: i32, batch: Bytes) -> i32 {
        self.send_on(conn, 9, RequestBody::Produce(to_partitions(topic, acks, &[(partition, batch)])))
    }

    /// The answer for the one partition of a produce.
    #[track_caller]
    fn produced(&mut self, sent: i32) -> PartitionProduceResponse {
        let mut answers = self.all_produced(sent);
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }

    #[track_caller]
    fn all_produced(&mut self, sent: i32) -> Vec<PartitionProduceResponse> {
        match self.answer(sent).expect("an answer") {
            ResponseBody::Produce(mut response) => response.responses.remove(0).partition_responses,
            other => panic!("{other:?}"),
        }
    }

    /// Appends values to partition 0 in one batch. Gives its base offset.
    #[track_caller]
    fn append(&mut self, topic: &str, values: &[&str]) -> i64 {
        let sent = self.send_batch(topic, -1, batch(values));
        let answer = self.produced(sent);
        assert_eq!(answer.error_code, 0, "{answer:?}");
        answer.base_offset
    }

    fn send_fetch(&mut self, request: FetchRequest) -> i32 {
        self.send_on(FETCHER, 12, RequestBody::Fetch(request))
    }

    #[track_caller]
    fn fetched(&mut self, sent: i32) -> FetchResponse {
        match self.answer(sent).expect("an answer") {
            ResponseBody::Fetch(response) => response,
            other => panic!("{other:?}"),
        }
    }

    /// Sends a fetch that is answered at once. Gives the answer for its one partition.
    #[track_caller]
    fn fetch(&mut self, request: FetchRequest) -> PartitionData {
        let sent = self.send_fetch(request);
        only(self.fetched(sent))
    }

    /// The base offsets of the batches in an answer.
    fn batches(&self, answer: &PartitionData) -> Vec<i64> {
        let bytes = self.bytes(answer.records.as_ref().expect("records, be they empty"));
        each_batch(&bytes).iter().map(|(header, _)| header.base_offset.0).collect()
    }

    fn delete_topic(&mut self, name: &str) {
        self.ask(6, delete_topic(name));
    }

    /// The bytes of a response, read from the disk where it names a slice of a file.
    fn bytes(&self, records: &Records) -> Vec<u8> {
        let pieces = records.chunks.iter().map(|chunk| match chunk {
            RecordsChunk::Bytes(bytes) => bytes.to_vec(),
            RecordsChunk::File(slice) => {
                self.disks[self.files[&slice.file]].slice(slice.file, slice.position, slice.len).to_vec()
            }
        });
        pieces.flatten().collect()
    }
}

fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.push(START_MS, None, Some(value.as_bytes()), &[]);
    }
    builder.build()
}

fn to_partitions(topic: &str, acks: i16, batches: &[(i32, Bytes)]) -> ProduceRequest {
    let data = batches.iter().map(|(index, batch)| PartitionProduceData {
        index: *index,
        records: Some(Records::from(batch.clone())),
        ..Default::default()
    });
    let topic = TopicProduceData { name: topic.into(), partition_data: data.collect(), ..Default::default() };
    ProduceRequest { acks, timeout_ms: 1_500, topic_data: vec![topic], ..Default::default() }
}

/// A fetch of partition 0 of a topic by its name, which waits for a second.
fn from(topic: &str, offset: i64) -> FetchRequest {
    fetch(&[(topic, 0, offset)])
}

fn fetch(partitions: &[(&str, i32, i64)]) -> FetchRequest {
    let topic = |(name, partition, offset): &(&str, i32, i64)| FetchTopic {
        topic: (*name).into(),
        partitions: vec![FetchPartition {
            partition: *partition,
            fetch_offset: *offset,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        }],
        ..Default::default()
    };
    FetchRequest {
        max_wait_ms: 1_000,
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: partitions.iter().map(topic).collect(),
        ..Default::default()
    }
}

#[track_caller]
fn only(mut response: FetchResponse) -> PartitionData {
    assert_eq!((response.error_code, response.responses.len()), (0, 1), "{response:?}");
    assert_eq!(response.responses[0].partitions.len(), 1, "{response:?}");
    response.responses.remove(0).partitions.remove(0)
}

fn delete_topic(name: &str) -> RequestBody {
    let state = DeleteTopicState { name: Some(name.into()), ..Default::default() };
    RequestBody::DeleteTopics(DeleteTopicsRequest { topics: vec![state], timeout_ms: 1_000, ..Default::default() })
}

/// The batches in `bytes`: the header of each, and its records.
fn each_batch(mut bytes: &[u8]) -> Vec<(BatchHeader, &[u8])> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let header = BatchHeader::parse(bytes).expect("a whole batch");
        let (batch, rest) = bytes.split_at(header.size_bytes());
        found.push((header, &batch[BatchHeader::LEN..]));
        bytes = rest;
    }
    found
}

fn is_sync(op: &IoOp) -> bool {
    matches!(op, IoOp::Sync { .. })
}

fn code(error: ErrorCode) -> i16 {
    error.code()
}
