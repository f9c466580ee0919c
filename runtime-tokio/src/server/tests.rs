//! The server around a scripted machine in place of the broker, over loopback sockets.

use super::*;
use crate::connection::{IN_FLIGHT_BYTES_MAX, IN_FLIGHT_MAX};
use bytes::Bytes;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream as Client};
use std::sync::{Arc, Mutex, mpsc};
use tidelog_core::ids::{FileId, LogDirId, LogId};
use tidelog_core::io::{Chunks, DiskPath, Input, IoDone, IoId, IoOp, IoOwner, Outbox, Output, Request, Response};
use tidelog_core::time::{Mono, Now};
use tidelog_core::wire::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use tidelog_core::wire::messages::fetch_snapshot_response::{PartitionSnapshot, TopicSnapshot};
use tidelog_core::wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use tidelog_core::wire::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse, FetchSnapshotRequest, FetchSnapshotResponse,
    ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse,
};
use tidelog_core::wire::{
    ApiKey, FileSlice, Records, RequestBody, RequestHeader, ResponseBody, decode_response, encode_request,
};

const CONTENT_LEN: usize = 3_000_000;

/// A machine that answers each kind of request in its own way, and reports to the test what it sees:
///
/// - ApiVersions at once;
/// - ListOffsets when [`IN_FLIGHT_MAX`] of them wait, or when the broker stops;
/// - Fetch and FetchSnapshot with a slice of a file that it has just written, and that it closes at once;
/// - Produce after the first ListOffsets has come;
/// - Metadata once `gate` is unlocked.
struct Script {
    seen: mpsc::Sender<String>,
    waiting: Vec<Request>,
    produced: Vec<Request>,
    answers_produce: bool,
    fetch: Option<Request>,
    gate: Arc<Mutex<()>>,
    ready: Output,
}

impl Script {
    fn answer(request: &Request, body: ResponseBody, out: &mut Outbox) {
        let RequestHeader { api_key, api_version, correlation_id, .. } = request.header;
        let response = Response { api_key, api_version, correlation_id, body };
        out.outputs.push(Output::Respond(request.conn, Box::new(response)));
    }

    fn answer_waiting(&mut self, out: &mut Outbox) {
        for request in self.waiting.drain(..) {
            Self::answer(&request, ResponseBody::ListOffsets(ListOffsetsResponse::default()), out);
        }
    }

    fn answer_produced(&mut self, out: &mut Outbox) {
        for request in self.produced.drain(..) {
            Self::answer(&request, ResponseBody::Produce(ProduceResponse::default()), out);
        }
    }

    fn request(&mut self, request: Request, out: &mut Outbox) {
        match &request.body {
            RequestBody::Metadata(_) => {
                let _ = self.seen.send("large".to_string());
                drop(self.gate.lock().unwrap());
                Self::answer(&request, ResponseBody::Metadata(MetadataResponse::default()), out);
            }
            RequestBody::ApiVersions(_) => {
                let _ = self.seen.send("small".to_string());
                Self::answer(&request, ResponseBody::ApiVersions(ApiVersionsResponse::default()), out);
            }
            RequestBody::ListOffsets(_) => {
                self.answers_produce = true;
                self.answer_produced(out);
                self.waiting.push(request);
                assert!(self.waiting.len() <= IN_FLIGHT_MAX, "more in flight than a connection may have");
                if self.waiting.len() == IN_FLIGHT_MAX {
                    self.answer_waiting(out);
                }
            }
            RequestBody::Produce(produce) if produce.acks == 0 => {}
            RequestBody::Produce(_) => {
                self.produced.push(request);
                if self.answers_produce {
                    self.answer_produced(out);
                }
            }
            RequestBody::Fetch(_) | RequestBody::FetchSnapshot(_) => {
                self.fetch = Some(request);
                let path = DiskPath { dir: LogDirId(0), path: "content".into() };
                let content: Bytes = (0..CONTENT_LEN).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
                out.io(io_id(0), IoOp::Open { file: FileId(1), path, create: true });
                let chunks = Chunks::from_vec(vec![content]);
                out.io(io_id(1), IoOp::Write { file: FileId(1), position: 0, chunks });
            }
            other => panic!("the tests send no {other:?}"),
        }
    }

    fn written(&mut self, out: &mut Outbox) {
        let slice = FileSlice { file: FileId(1), position: 10, len: CONTENT_LEN as u32 - 10 };
        let request = self.fetch.take().unwrap();
        let body = match request.header.api_key {
            ApiKey::Fetch => {
                let partition = PartitionData { records: Some(slice.into()), ..Default::default() };
                let topic = FetchableTopicResponse { partitions: vec![partition], ..Default::default() };
                ResponseBody::Fetch(FetchResponse { responses: vec![topic], ..Default::default() })
            }
            _ => {
                let partition = PartitionSnapshot { unaligned_records: slice.into(), ..Default::default() };
                let topic = TopicSnapshot { partitions: vec![partition], ..Default::default() };
                ResponseBody::FetchSnapshot(FetchSnapshotResponse { topics: vec![topic], ..Default::default() })
            }
        };
        Self::answer(&request, body, out);
        out.io(io_id(2), IoOp::Close { file: FileId(1) });
    }
}

impl Machine for Script {
    fn handle(&mut self, _: Now, input: Input, out: &mut Outbox) {
        let seen = match input {
            Input::Boot => {
                out.outputs.push(Output::Listen(0));
                out.outputs.push(std::mem::replace(&mut self.ready, Output::Ready));
                "boot"
            }
            Input::Request(request) => {
                self.request(*request, out);
                return;
            }
            Input::Io(completion) => {
                assert!(completion.result.is_ok(), "{:?}", completion.result);
                if completion.id.seq == 1 {
                    assert_eq!(completion.result, Ok(IoDone::Unit));
                    self.written(out);
                }
                return;
            }
            Input::Stop => {
                self.answer_waiting(out);
                out.outputs.push(Output::Stopped);
                "stop"
            }
            Input::Connected(..) => return,
            Input::Disconnected(_) => "disconnected",
            Input::Link(..) => unreachable!("the machine opens no links"),
            Input::Tick => "tick",
        };
        let _ = self.seen.send(seen.to_string());
    }

    fn deadline(&self) -> Option<Mono> {
        None
    }
}

fn io_id(seq: u64) -> IoId {
    IoId { owner: IoOwner::Log(LogId(0)), seq }
}

/// A server around a [`Script`], and what the test needs to steer it.
struct Fixture {
    server: Server,
    gate: Arc<Mutex<()>>,
    seen: mpsc::Receiver<String>,
    _dir: tempfile::TempDir,
}

fn start_with(extra: &[(&str, &str)], ready: Output) -> Result<Fixture, ServerError> {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data").display().to_string();
    let mut properties = vec![("listeners", "PLAINTEXT://127.0.0.1:0"), ("log.dirs", data.as_str())];
    properties.extend(extra);
    let (config, warnings) = BrokerConfig::from_properties(properties).unwrap();
    // The tests set this because it must be shorter than the idle time. It has no effect, which the warning says.
    let expected = "connection.failed.authentication.delay.ms";
    assert!(warnings.iter().all(|warning| warning.name == expected), "{warnings:?}");
    let (sender, seen) = mpsc::channel();
    let gate: Arc<Mutex<()>> = Arc::default();
    let script = Script {
        seen: sender,
        waiting: Vec::new(),
        produced: Vec::new(),
        answers_produce: false,
        fetch: None,
        gate: gate.clone(),
        ready,
    };
    let server = Server::start_machine(config, |_| Box::new(script))?;
    Ok(Fixture { server, gate, seen, _dir: dir })
}

fn start() -> Fixture {
    start_with(&[], Output::Ready).unwrap()
}

impl Fixture {
    fn connect(&self) -> Client {
        Client::connect(self.server.listeners()[0].1).unwrap()
    }

    /// The bytes of requests that the broker holds.
    fn held(&self) -> usize {
        self.server.service.shared().budget.held()
    }

    fn await_held(&self, bytes: usize) {
        while self.held() < bytes {
            std::thread::yield_now();
        }
    }

    fn expect(&self, wanted: &str) {
        while self.seen.recv().expect("the machine is not dropped") != wanted {}
    }
}

fn frame(api_key: ApiKey, api_version: i16, correlation_id: i32, body: RequestBody) -> Vec<u8> {
    let header = RequestHeader { api_key, api_version, correlation_id, client_id: Some("test".into()) };
    encode_request(&header, &body).to_bytes().to_vec()
}

fn api_versions(correlation_id: i32) -> Vec<u8> {
    frame(ApiKey::ApiVersions, 3, correlation_id, RequestBody::ApiVersions(ApiVersionsRequest::default()))
}

fn list_offsets(correlation_id: i32) -> Vec<u8> {
    frame(ApiKey::ListOffsets, 9, correlation_id, RequestBody::ListOffsets(ListOffsetsRequest::default()))
}

fn metadata(correlation_id: i32) -> Vec<u8> {
    frame(ApiKey::Metadata, 12, correlation_id, RequestBody::Metadata(MetadataRequest::default()))
}

fn read_frame(client: &mut Client) -> io::Result<Bytes> {
    let mut len = [0; 4];
    client.read_exact(&mut len)?;
    let mut frame = vec![0; u32::from_be_bytes(len) as usize];
    client.read_exact(&mut frame)?;
    Ok(frame.into())
}

fn correlation_of(key: ApiKey, version: i16, client: &mut Client) -> i32 {
    decode_response(key, version, read_frame(client).unwrap()).unwrap().0
}

fn assert_closed(client: &mut Client) {
    match client.read(&mut [0]) {
        Ok(read) => assert_eq!(read, 0, "no answer was to come"),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_wherever_the_stream_is_cut() {
    let fixture = start();
    let mut client = fixture.connect();
    let stream: Vec<u8> = (0..50).flat_map(api_versions).collect();
    for piece in stream.chunks(7) {
        client.write_all(piece).unwrap();
    }
    for correlation in 0..50 {
        assert_eq!(correlation_of(ApiKey::ApiVersions, 3, &mut client), correlation);
    }
    fixture.server.stop().unwrap();
    assert_closed(&mut client);
}

#[test]
fn large_requests_of_many_let_small_ones_go_first() {
    const MANY: usize = 20;
    let fixture = start();
    let mut others = [fixture.connect(), fixture.connect()];
    let mut askers: Vec<Client> = (0..MANY).map(|_| fixture.connect()).collect();
    // The news of a new connection waits with the requests, and would be counted below.
    for client in others.iter_mut().chain(&mut askers) {
        client.write_all(&api_versions(0)).unwrap();
        assert_eq!(correlation_of(ApiKey::ApiVersions, 3, client), 0);
    }
    fixture.seen.try_iter().for_each(drop);
    let closed = fixture.gate.lock().unwrap();
    askers[0].write_all(&metadata(0)).unwrap();
    fixture.expect("large");
    // The machine is working on the first request, and all others wait.
    for asker in &mut askers[1..] {
        asker.write_all(&[metadata(0), metadata(1)].concat()).unwrap();
    }
    for (other, n) in others.iter_mut().zip(0..) {
        other.write_all(&api_versions(n)).unwrap();
    }
    while fixture.server.service.shared().door.inputs_queued() < MANY - 1 + others.len() {
        std::thread::yield_now();
    }
    drop(closed);
    for (other, n) in others.iter_mut().zip(0..) {
        assert_eq!(correlation_of(ApiKey::ApiVersions, 3, other), n);
    }
    for asker in &mut askers[1..] {
        assert_eq!([(); 2].map(|()| correlation_of(ApiKey::Metadata, 12, asker)), [0, 1]);
    }
    let kinds = fixture.seen.try_iter().filter(|seen| seen == "large" || seen == "small");
    let kinds: Vec<String> = kinds.collect();
    assert_eq!(kinds[..2], ["small"; 2]);
    assert_eq!(kinds[2..], ["large"].repeat(2 * (MANY - 1)));
}

#[test]
fn a_connection_has_a_limited_number_of_requests_in_flight_and_requests_without_answer_take_none_of_it() {
    let fixture = start();
    let mut client = fixture.connect();
    let produce =
        |n| frame(ApiKey::Produce, 9, n, RequestBody::Produce(ProduceRequest { acks: 0, ..Default::default() }));
    let mut sender = client.try_clone().unwrap();
    let count = 3 * IN_FLIGHT_MAX as i32;
    let writer = std::thread::spawn(move || {
        for n in 0..count {
            sender.write_all(&produce(n)).unwrap();
            sender.write_all(&list_offsets(n)).unwrap();
        }
    });
    for correlation in 0..count {
        assert_eq!(correlation_of(ApiKey::ListOffsets, 9, &mut client), correlation);
    }
    writer.join().unwrap();
}

fn produce(correlation_id: i32, record_bytes: usize) -> Vec<u8> {
    let records = Bytes::from(vec![0; record_bytes]);
    let partition = PartitionProduceData { records: Some(records.into()), ..Default::default() };
    let topic = TopicProduceData { partition_data: vec![partition], ..Default::default() };
    let body = ProduceRequest { acks: 1, topic_data: vec![topic], ..Default::default() };
    frame(ApiKey::Produce, 9, correlation_id, RequestBody::Produce(body))
}

#[test]
fn a_client_that_sends_without_limit_is_read_no_further_than_the_limit_of_unanswered_bytes() {
    const COUNT: i32 = 64;
    let fixture = start();
    let (mut client, mut other) = (fixture.connect(), fixture.connect());
    let mut sender = client.try_clone().unwrap();
    let writer = std::thread::spawn(move || (0..COUNT).for_each(|n| sender.write_all(&produce(n, 1 << 20)).unwrap()));
    fixture.await_held(IN_FLIGHT_BYTES_MAX);
    // In this time the broker could read everything that the client sends.
    for n in 0..200 {
        other.write_all(&api_versions(n)).unwrap();
        assert_eq!(correlation_of(ApiKey::ApiVersions, 3, &mut other), n);
        let held = fixture.held();
        assert!(held < IN_FLIGHT_BYTES_MAX + (2 << 20), "{held} bytes are held of 64 MiB");
    }
    other.write_all(&list_offsets(0)).unwrap();
    for n in 0..COUNT {
        assert_eq!(correlation_of(ApiKey::Produce, 9, &mut client), n);
    }
    writer.join().unwrap();
}

#[test]
fn a_request_larger_than_what_a_connection_may_hold_is_read_once_it_is_the_only_one() {
    let fixture = start();
    let (mut client, mut other) = (fixture.connect(), fixture.connect());
    let mut sender = client.try_clone().unwrap();
    let stream = [produce(0, 10), produce(1, 3 * IN_FLIGHT_BYTES_MAX)].concat();
    let writer = std::thread::spawn(move || sender.write_all(&stream).unwrap());
    fixture.await_held(IN_FLIGHT_BYTES_MAX);
    other.write_all(&list_offsets(0)).unwrap();
    for n in 0..2 {
        assert_eq!(correlation_of(ApiKey::Produce, 9, &mut client), n);
    }
    writer.join().unwrap();
}

#[test]
fn an_oversized_or_unreadable_request_closes_its_connection_and_no_other() {
    let fixture = start_with(&[("socket.request.max.bytes", "1000")], Output::Ready).unwrap();
    let mut good = fixture.connect();
    for bytes in [&1001u32.to_be_bytes()[..], &[0xff; 4], &[0, 0, 0, 4, 0x7f, 0xff, 0, 0], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut bad = fixture.connect();
        bad.write_all(bytes).unwrap();
        assert_closed(&mut bad);
        fixture.expect("disconnected");
    }
    good.write_all(&api_versions(7)).unwrap();
    assert_eq!(correlation_of(ApiKey::ApiVersions, 3, &mut good), 7);
}

#[test]
fn requests_before_a_broken_one_are_answered_and_requests_after_it_are_not() {
    let fixture = start();
    let mut client = fixture.connect();
    client.write_all(&[api_versions(1), api_versions(2), vec![0, 0, 0, 0], api_versions(3)].concat()).unwrap();
    for correlation in 1..3 {
        assert_eq!(correlation_of(ApiKey::ApiVersions, 3, &mut client), correlation);
    }
    assert_closed(&mut client);
}

#[test]
fn unfinished_requests_delay_no_small_ones_and_are_closed_when_memory_is_short() {
    let limits = [("queued.max.request.bytes", "1000000"), ("socket.request.max.bytes", "1000000")];
    let fixture = start_with(&limits, Output::Ready).unwrap();
    let mut endless = [fixture.connect(), fixture.connect()];
    for client in &mut endless {
        client.write_all(&1_000_000u32.to_be_bytes()).unwrap();
        client.write_all(&[0; 600_000]).unwrap();
    }
    fixture.await_held(1_000_000);
    let mut good = fixture.connect();
    for n in 0..100 {
        good.write_all(&api_versions(n)).unwrap();
        assert_eq!(correlation_of(ApiKey::ApiVersions, 3, &mut good), n);
    }
    // At least one of them is closed, which makes room for large requests.
    fixture.expect("disconnected");
    good.write_all(&[list_offsets(0), produce(1, 500_000)].concat()).unwrap();
    assert_eq!(correlation_of(ApiKey::Produce, 9, &mut good), 1);
}

#[test]
fn records_are_sent_from_a_file_that_the_core_has_closed_after_its_answer() {
    let fixture = start();
    let mut client = fixture.connect();
    client.write_all(&frame(ApiKey::Fetch, 12, 5, RequestBody::Fetch(FetchRequest::default()))).unwrap();
    let (correlation, body) = decode_response(ApiKey::Fetch, 12, read_frame(&mut client).unwrap()).unwrap();
    let ResponseBody::Fetch(fetch) = body else { panic!() };
    assert_eq!(correlation, 5);
    assert_is_content(fetch.responses[0].partitions[0].records.as_ref().unwrap());
}

#[test]
fn a_snapshot_is_sent_from_its_file() {
    let fixture = start();
    let mut client = fixture.connect();
    let request = RequestBody::FetchSnapshot(FetchSnapshotRequest::default());
    client.write_all(&frame(ApiKey::FetchSnapshot, 1, 5, request)).unwrap();
    let (_, body) = decode_response(ApiKey::FetchSnapshot, 1, read_frame(&mut client).unwrap()).unwrap();
    let ResponseBody::FetchSnapshot(fetch) = body else { panic!() };
    assert_is_content(&fetch.topics[0].partitions[0].unaligned_records);
}

fn assert_is_content(records: &Records) {
    let records = records.bytes().unwrap();
    assert_eq!(records.len(), CONTENT_LEN - 10);
    assert!(records.iter().enumerate().all(|(n, byte)| *byte == ((n + 10) % 251) as u8));
}

#[test]
fn a_client_that_sends_no_more_still_gets_its_answers() {
    let fixture = start();
    let mut client = fixture.connect();
    let stream: Vec<u8> = (0..IN_FLIGHT_MAX as i32).flat_map(list_offsets).collect();
    client.write_all(&stream).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    for correlation in 0..IN_FLIGHT_MAX as i32 {
        assert_eq!(correlation_of(ApiKey::ListOffsets, 9, &mut client), correlation);
    }
    assert_closed(&mut client);
    fixture.expect("disconnected");
}

#[test]
fn a_stop_answers_what_waits_then_frees_the_port_and_the_directory() {
    let fixture = start();
    let mut client = fixture.connect();
    client.write_all(&[api_versions(1), list_offsets(2)].concat()).unwrap();
    // The machine handles both together, so when the first is answered, the second waits.
    assert_eq!(correlation_of(ApiKey::ApiVersions, 3, &mut client), 1);
    let address = fixture.server.listeners()[0].1;
    let Fixture { server, seen, _dir: dir, .. } = fixture;
    server.stop().unwrap();
    assert_eq!(seen.iter().collect::<Vec<_>>().first().map(String::as_str), Some("boot"));
    assert_eq!(correlation_of(ApiKey::ListOffsets, 9, &mut client), 2);
    assert_closed(&mut client);
    std::net::TcpListener::bind(address).unwrap();
    DataDirs::open(vec![dir.path().join("data")]).unwrap();
}

#[test]
fn the_caller_is_told_the_fatal_error_of_a_start() {
    let Err(error) = start_with(&[], Output::Fatal("meta.properties is of another cluster".into())) else { panic!() };
    assert_eq!(error.to_string(), "meta.properties is of another cluster");
}

#[test]
fn an_idle_connection_is_closed_and_one_that_waits_for_an_answer_is_not() {
    let fixture = start_with(
        &[("connections.max.idle.ms", "50"), ("connection.failed.authentication.delay.ms", "0")],
        Output::Ready,
    )
    .unwrap();
    let (mut idle, mut waiting) = (fixture.connect(), fixture.connect());
    waiting.write_all(&list_offsets(1)).unwrap();
    assert_closed(&mut idle);
    fixture.expect("disconnected");
    let mut other = fixture.connect();
    other.write_all(&(2..=IN_FLIGHT_MAX as i32).flat_map(list_offsets).collect::<Vec<_>>()).unwrap();
    assert_eq!(correlation_of(ApiKey::ListOffsets, 9, &mut waiting), 1);
}

#[test]
fn a_connection_beyond_the_limit_waits_until_one_goes() {
    let fixture = start_with(&[("max.connections", "1")], Output::Ready).unwrap();
    let mut first = fixture.connect();
    first.write_all(&api_versions(1)).unwrap();
    assert_eq!(correlation_of(ApiKey::ApiVersions, 3, &mut first), 1);
    let mut next = fixture.connect();
    next.write_all(&api_versions(2)).unwrap();
    first.write_all(&api_versions(3)).unwrap();
    assert_eq!(correlation_of(ApiKey::ApiVersions, 3, &mut first), 3);
    next.set_nonblocking(true).unwrap();
    assert_eq!(next.peek(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    next.set_nonblocking(false).unwrap();
    drop(first);
    assert_eq!(correlation_of(ApiKey::ApiVersions, 3, &mut next), 2);
}

#[test]
fn a_connection_too_many_from_one_address_is_closed_at_once() {
    let fixture = start_with(&[("max.connections.per.ip", "1")], Output::Ready).unwrap();
    let mut first = fixture.connect();
    first.write_all(&api_versions(1)).unwrap();
    assert_eq!(correlation_of(ApiKey::ApiVersions, 3, &mut first), 1);
    assert_closed(&mut fixture.connect());
    drop(first);
    fixture.server.runtime.as_ref().unwrap().block_on(fixture.server.service.connections().all_closed());
    let mut next = fixture.connect();
    next.write_all(&api_versions(2)).unwrap();
    assert_eq!(correlation_of(ApiKey::ApiVersions, 3, &mut next), 2);
}

#[test]
fn requests_go_on_through_a_budget_that_holds_little_more_than_one() {
    let limits = [("queued.max.request.bytes", "210000"), ("socket.request.max.bytes", "210000")];
    let fixture = start_with(&limits, Output::Ready).unwrap();
    let clients: Vec<_> = (0..4).map(|_| fixture.connect()).collect();
    std::thread::scope(|scope| {
        for mut client in clients {
            scope.spawn(move || {
                // An ApiVersions request followed by padding: the broker reads the whole frame and ignores the padding,
                // as Kafka does.
                let mut large = api_versions(3);
                large.resize(200_000, 0);
                let len = large.len() as u32 - 4;
                large[..4].copy_from_slice(&len.to_be_bytes());
                for _ in 0..5 {
                    client.write_all(&large).unwrap();
                    assert_eq!(correlation_of(ApiKey::ApiVersions, 3, &mut client), 3);
                }
            });
        }
    });
}
