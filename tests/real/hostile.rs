//! Clients that attack the broker, on real sockets. Each attack may cost the broker a stated amount of memory; its
//! other clients must be served; and the broker must close the attacker where Kafka would. Each attack prints its
//! figures in one line.
//!
//! `TIDELOG_HOSTILE_FRAMES` sets the number of frames; `.ci/run` sends a million.
// `tidelog_tests::attack` measures with Linux's `/proc` and its scheduler.
#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, CreateTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest, FetchRequest,
    InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest, ProduceRequest,
    RequestHeader, create_topics_request, describe_configs_request, fetch_request, list_offsets_request,
    metadata_request, offset_for_leader_epoch_request, produce_request,
};
use kafka_protocol::protocol::{Encodable, Request, StrBytes};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use tidelog_core::api::prepare;
use tidelog_core::batch::BatchLimits;
use tidelog_core::ids::ConnId;
use tidelog_core::io::Request as CoreRequest;
use tidelog_core::wire::RequestBody;
use tidelog_tests::attack::{Bystander, is_closed, push};
use tidelog_tests::broker::{Broker, Kind, Setup};
use tidelog_tests::client::{Client, Producer, batch, topic_name};

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The broker does not sync, so that the figures show the broker and not the disk. Its backlog is large enough for all
/// attackers: while a backlog is full, the kernel lets the next connection wait for a second.
fn setup(home: &tempfile::TempDir) -> Setup {
    Setup::of(Kind::Tidelog, home.path()).set("acks.require.fsync", false).set("socket.listen.backlog.size", 4096)
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// The next answer, without its length.
fn read_answer(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut len = [0; 4];
    stream.read_exact(&mut len).expect("an answer");
    let mut answer = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut answer).expect("a whole answer");
    answer
}

/// A request as it is sent, including its length.
fn frame<R: Request>(version: i16, request: &R) -> Vec<u8> {
    let key = ApiKey::try_from(R::KEY).expect("a key that the codec knows");
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(StrBytes::from_static_str("hostile")));
    let mut bytes = BytesMut::zeroed(4);
    header.encode(&mut bytes, key.request_header_version(version)).expect("a header that encodes");
    request.encode(&mut bytes, version).expect("a request that encodes");
    with_length(bytes.to_vec())
}

fn with_length(mut bytes: Vec<u8>) -> Vec<u8> {
    let len = u32::try_from(bytes.len() - 4).expect("a short frame");
    bytes[..4].copy_from_slice(&len.to_be_bytes());
    bytes
}

fn produce_frame(topic: &str, acks: i16, records: Bytes) -> Vec<u8> {
    let data = produce_request::PartitionProduceData::default().with_index(0).with_records(Some(records));
    let topic =
        produce_request::TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![data]);
    frame(9, &ProduceRequest::default().with_acks(acks).with_timeout_ms(1000).with_topic_data(vec![topic]))
}

fn fetch_frame(topic: &str, partitions: std::ops::Range<i32>, max_wait_ms: i32) -> Vec<u8> {
    let wanted = partitions.map(|partition| {
        fetch_request::FetchPartition::default().with_partition(partition).with_partition_max_bytes(8 << 20)
    });
    let topic = fetch_request::FetchTopic::default().with_topic(topic_name(topic)).with_partitions(wanted.collect());
    let request = FetchRequest::default()
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(i32::MAX)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    frame(12, &request)
}

fn metadata_frame(topic: Option<&str>) -> Vec<u8> {
    let topics =
        topic.map(|topic| vec![metadata_request::MetadataRequestTopic::default().with_name(Some(topic_name(topic)))]);
    frame(9, &MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(false))
}

/// Valid requests of many kinds, from which the hostile ones are made.
fn valid_frames(topic: &str) -> Vec<Vec<u8>> {
    let records = batch(Producer::NONE, &[Bytes::from_static(b"one"), Bytes::from_static(b"two")]);
    let offsets = list_offsets_request::ListOffsetsTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![list_offsets_request::ListOffsetsPartition::default().with_timestamp(-1)]);
    let epochs = offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
        .with_topic(topic_name(topic))
        .with_partitions(vec![offset_for_leader_epoch_request::OffsetForLeaderPartition::default()]);
    let resource = describe_configs_request::DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(StrBytes::from_string(topic.to_owned()))
        .with_configuration_keys(None);
    let created = create_topics_request::CreatableTopic::default()
        .with_name(topic_name("hostile-2"))
        .with_num_partitions(1)
        .with_replication_factor(1);
    vec![
        produce_frame(topic, -1, records.clone()),
        produce_frame(topic, 1, records),
        fetch_frame(topic, 0..1, 0),
        metadata_frame(None),
        metadata_frame(Some(topic)),
        frame(3, &ApiVersionsRequest::default()),
        frame(0, &ApiVersionsRequest::default()),
        frame(7, &ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![offsets])),
        frame(4, &OffsetForLeaderEpochRequest::default().with_replica_id((-1).into()).with_topics(vec![epochs])),
        frame(4, &DescribeConfigsRequest::default().with_resources(vec![resource])),
        frame(4, &InitProducerIdRequest::default().with_transaction_timeout_ms(1000).with_producer_id((-1).into())),
        frame(1, &DescribeClusterRequest::default()),
        frame(
            6,
            &CreateTopicsRequest::default().with_topics(vec![created]).with_validate_only(true).with_timeout_ms(1000),
        ),
    ]
}

/// One hostile frame: a valid one that has a few bytes changed, is cut, is longer or has a hostile count in it; or
/// noise.
fn hostile_frame(valid: &[Vec<u8>], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = valid[rng.random_range(0..valid.len())].clone();
    match rng.random_range(0..100) {
        0..70 => {
            // Only bytes behind the key and the version are changed, so that the broker decodes the body.
            for _ in 0..rng.random_range(1..4) {
                let place = rng.random_range(8..bytes.len());
                bytes[place] ^= 1 << rng.random_range(0..8);
            }
            bytes
        }
        70..80 => {
            let place = rng.random_range(4..bytes.len());
            bytes[place] = rng.random();
            bytes
        }
        80..88 => {
            let counts: [&[u8]; 5] = [
                &[0x7f, 0xff, 0xff, 0xff],
                &[0xff; 4],
                &[0xff, 0xff, 0xff, 0xff, 0x0f],
                &[0xff; 10],
                &[0, 0xff, 0xff, 0xff],
            ];
            let count = counts[rng.random_range(0..counts.len())];
            let place = rng.random_range(8..bytes.len());
            bytes.splice(place..(place + count.len()).min(bytes.len()), count.iter().copied());
            with_length(bytes)
        }
        88..92 => {
            bytes.truncate(rng.random_range(4..bytes.len()));
            with_length(bytes)
        }
        92..95 => {
            let more = rng.random_range(1..100);
            bytes.extend((0..more).map(|_| rng.random::<u8>()));
            with_length(bytes)
        }
        95..98 => {
            let len = rng.random_range(0..300);
            let mut noise = vec![0; 4];
            noise.extend((0..len).map(|_| rng.random::<u8>()));
            with_length(noise)
        }
        _ => {
            // A length that is negative, too large, or larger than what follows it.
            bytes[..4].copy_from_slice(
                &[0xffff_ffffu32, 0x7fff_ffff, 0x0640_0001, 0x0600_0000][rng.random_range(0..4)].to_be_bytes(),
            );
            bytes
        }
    }
}

/// How many frames go out together before their answers are read.
const BURST: usize = 32;

/// What the broker should do with a frame.
enum Expected {
    Answered,
    /// A Produce with acks=0.
    Silent,
    /// A Fetch that may wait for records, and delays the frames behind it.
    Held,
    /// A valid request for much work: it creates topics, or asks whether thousands of partitions could be created. Such
    /// frames are not sent, since this attack is about invalid frames.
    Work,
    Closed,
}

fn expected(frame: &[u8]) -> Expected {
    let (len, body) = frame.split_at(4);
    if u32::from_be_bytes(len.try_into().expect("four bytes")) as usize != body.len() {
        return Expected::Closed;
    }
    match prepare(ConnId(0), Bytes::copy_from_slice(body), &BatchLimits::default()) {
        Err(_) => Expected::Closed,
        Ok(CoreRequest { body: RequestBody::Produce(produce), .. }) if produce.acks == 0 => Expected::Silent,
        Ok(CoreRequest { body: RequestBody::Fetch(fetch), .. }) if fetch.max_wait_ms > 0 => Expected::Held,
        Ok(CoreRequest { body: RequestBody::CreateTopics(create), .. })
            if !create.validate_only || create.topics.iter().any(|topic| topic.num_partitions > 100) =>
        {
            Expected::Work
        }
        Ok(CoreRequest { body: RequestBody::Metadata(asked), .. }) if asked.allow_auto_topic_creation => Expected::Work,
        Ok(_) => Expected::Answered,
    }
}

/// Sends a burst of frames on a new connection, up to the first frame for which the broker should close it, and reads
/// the answers; returns how many frames the broker has handled.
fn send_burst(broker: &str, valid: &[Vec<u8>], rng: &mut ChaCha8Rng) -> u64 {
    let mut stream = TcpStream::connect(broker).expect("a connection: the broker listens");
    // The connection is reset when it is dropped and leaves no port in use: a hundred thousand connections would use up
    // all ports.
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("SO_LINGER");
    let (mut burst, mut frames, mut answers) = (Vec::new(), 0, 0);
    let (mut closes, mut held) = (false, false);
    while frames < BURST as u64 && !closes && !held {
        let frame = hostile_frame(valid, rng);
        match expected(&frame) {
            Expected::Answered => answers += 1,
            Expected::Silent => {}
            Expected::Held => held = true,
            Expected::Work => continue,
            // Most of these are skipped. They would be every other frame, and few bursts would get further than one
            // frame.
            Expected::Closed if rng.random_ratio(4, 5) => continue,
            Expected::Closed => closes = true,
        }
        burst.extend(frame);
        frames += 1;
    }
    let _ = stream.write_all(&burst);
    // An answer may not come: the frame may be incomplete, or a mutation may have made the request wait. This timeout
    // goes on without it.
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let (mut answered, mut bytes, mut buffer) = (0, BytesMut::new(), vec![0; 64 << 10]);
    while closes || answered < answers {
        match stream.read(&mut buffer) {
            Ok(0) if closes => return frames,
            Ok(0) | Err(_) => return answered,
            Ok(read) => bytes.put_slice(&buffer[..read]),
        }
        while let Some(len) = bytes.first_chunk::<4>().map(|len| u32::from_be_bytes(*len) as usize) {
            if bytes.len() < 4 + len {
                break;
            }
            let _ = bytes.split_to(4 + len);
            answered += 1;
        }
    }
    frames
}

/// How many closed connections the log reports: one by one in lines with the text `why`, or as a number of many. Waits
/// until it reports `wanted`.
fn closed_in_log(broker: &Broker, why: &str, wanted: u64) -> u64 {
    let closed = |line: &str| match line.split_once(" more connections closed") {
        Some((before, _)) => before.rsplit(' ').next()?.parse().ok(),
        None => line.contains(why).then_some(1),
    };
    broker.log_lines(1, &[why]);
    broker.wait_for_log(&format!("{wanted} closed connections"), |text| {
        let count: u64 = text.lines().filter_map(closed).sum();
        (count >= wanted).then_some(count)
    })
}

#[test]
fn a_million_hostile_frames_cost_nothing_that_lasts() {
    let wanted: u64 = std::env::var("TIDELOG_HOSTILE_FRAMES").map_or(30_000, |count| count.parse().expect("a number"));
    let home = tempfile::tempdir().expect("a directory");
    let mut broker = setup(&home).set("auto.create.topics.enable", false).start();
    let mut bystander = Bystander::new(&broker);
    let mut client = Client::connect(broker.address()).expect("a connection");
    assert_eq!(client.create_topic("hostile", 1, &[("retention.bytes", "1048576")]).expect("CreateTopics"), (0, None));
    client.wait_for_leaders("hostile").expect("leaders");
    let valid = valid_frames("hostile");
    let address = broker.address().to_owned();
    // First as many frames as the processors can handle, so that the bystander waits for the processors. Then some
    // thousands a second, which leave processor time free: what the bystander then waits for is the broker itself.
    let spared = ("hostile frames, with processors to spare", wanted.min(20_000), Duration::from_millis(10));
    for (name, wanted, pause) in [("hostile frames", wanted, Duration::ZERO), spared] {
        bystander.measure_attack(name, &mut broker, 200, || {
            let (frames, connections) = (AtomicU64::new(0), AtomicU64::new(0));
            thread::scope(|scope| {
                for seed in 0..8 {
                    let (address, valid, frames, connections) = (&address, &valid, &frames, &connections);
                    scope.spawn(move || {
                        let mut rng = ChaCha8Rng::seed_from_u64(seed);
                        while frames.load(Ordering::Relaxed) < wanted {
                            frames.fetch_add(send_burst(address, valid, &mut rng), Ordering::Relaxed);
                            connections.fetch_add(1, Ordering::Relaxed);
                            thread::sleep(pause);
                        }
                    });
                }
            });
            format!("{} frames over {} connections", frames.into_inner(), connections.into_inner())
        });
    }
    broker.stop();
}

#[test]
fn ten_thousand_idle_connections_cost_little_each() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the limit that is allowed");
    // Some files are needed for other things.
    let count = maximum.map_or(10_000, |maximum| maximum.saturating_sub(1000).min(10_000));
    let home = tempfile::tempdir().expect("a directory");
    let mut broker = setup(&home).start();
    let mut bystander = Bystander::new(&broker);
    let address = broker.address().to_owned();
    let mut idle = Vec::new();
    let hello = frame(3, &ApiVersionsRequest::default());
    bystander.measure_attack("idle connections", &mut broker, 160, || {
        for _ in 0..count {
            let mut stream = connect(&address);
            stream.write_all(&hello).expect("sent");
            read_answer(&mut stream);
            idle.push(stream);
        }
        thread::sleep(Duration::from_secs(5));
        let limited = if count < 10_000 { " (all that this machine's limit of open files allows)" } else { "" };
        format!("{count} connections{limited}, each answered once")
    });
    drop(idle);
    broker.stop();
}

#[test]
fn a_client_that_sends_byte_by_byte_costs_one_connection_and_one_that_stops_is_closed() {
    let home = tempfile::tempdir().expect("a directory");
    let mut broker = setup(&home).set("connections.max.idle.ms", 4000).start();
    let mut bystander = Bystander::new(&broker);
    let address = broker.address().to_owned();
    bystander.measure_attack("slowloris", &mut broker, 50, || {
        let [mut dribbling, mut silent] =
            [(); 2].map(|()| (0..300).map(|_| connect(&address)).collect::<Vec<TcpStream>>());
        for stream in &mut silent {
            stream.write_all(&[0, 0, 1]).expect("sent");
        }
        // The length that they announce is a megabyte.
        for round in 0..30 {
            for stream in &mut dribbling {
                stream.write_all(&[[0, 16, 0, 0, 0, 3, 0, 9][round % 8]]).unwrap_or_else(|error| {
                    panic!("a client that goes on sending is not closed: round {round}: {error}")
                });
            }
            thread::sleep(Duration::from_millis(200));
        }
        let closed = silent.iter_mut().filter_map(|stream| is_closed(stream, PATIENCE).then_some(())).count();
        assert_eq!(closed, silent.len(), "idle for longer than connections.max.idle.ms");
        let open = dribbling.len();
        for stream in &mut dribbling {
            assert!(is_closed(stream, PATIENCE), "a client that has stopped sending is closed");
        }
        format!("{open} connections that dribble and {closed} that stopped in a length, closed when idle")
    });
    broker.stop();
}

#[test]
fn a_client_that_never_reads_its_answers_is_no_longer_read_from_and_finally_closed() {
    let home = tempfile::tempdir().expect("a directory");
    let mut broker = setup(&home).set("connections.max.idle.ms", 3000).start();
    let mut bystander = Bystander::new(&broker);
    let mut client = Client::connect(broker.address()).expect("a connection");
    // Large answers to ask for: 2,000 partitions, a hundred of which hold a batch of 7 KB.
    assert_eq!(client.create_topic("wide", 2000, &[]).expect("CreateTopics"), (0, None));
    client.wait_for_leaders("wide").expect("leaders");
    for partition in 0..100 {
        let produced = client.produce("wide", partition, batch(Producer::NONE, &[Bytes::from(vec![b'x'; 7000])]));
        assert_eq!(produced.expect("Produce").error_code, 0);
    }
    for (name, request, connections, growth_mib_max) in [
        ("never reads its metadata", metadata_frame(None), 40, 150),
        ("never reads its records", fetch_frame("wide", 0..100, 0), 40, 150),
    ] {
        let many: Vec<u8> = request.iter().copied().cycle().take(request.len() * 2000).collect();
        let address = broker.address().to_owned();
        bystander.measure_attack(name, &mut broker, growth_mib_max, || {
            let mut one = connect(&address);
            one.write_all(&request).expect("sent");
            let answer_kib = read_answer(&mut one).len() >> 10;
            let mut streams: Vec<TcpStream> = (0..connections).map(|_| connect(&address)).collect();
            let sent = AtomicU64::new(0);
            thread::scope(|scope| {
                for stream in &mut streams {
                    let (sent, many) = (&sent, &many);
                    scope.spawn(move || {
                        let taken = push(stream, many, Duration::from_secs(1));
                        sent.fetch_add(taken as u64, Ordering::Relaxed);
                    });
                }
            });
            // Now the clients read, but too late: they get what is in the sockets, and then the end of the connection.
            thread::sleep(Duration::from_secs(4));
            for stream in &mut streams {
                assert!(is_closed(stream, PATIENCE), "idle for longer than connections.max.idle.ms");
            }
            let asked = sent.into_inner() / request.len() as u64;
            format!(
                "{connections} connections that sent {asked} requests for {answer_kib} KiB each and read no answer, \
                 closed when idle"
            )
        });
    }
    broker.stop();
}

#[test]
fn a_request_one_byte_larger_than_the_limit_is_closed_at_once_and_one_of_the_limit_is_answered() {
    let home = tempfile::tempdir().expect("a directory");
    let mut broker = setup(&home).set("socket.request.max.bytes", 1 << 20).start();
    let mut bystander = Bystander::new(&broker);
    // The frame without its records is as long with 20,000 bytes of records as with the largest ones.
    let around = produce_frame("bystander", -1, Bytes::from(vec![0; 20_000])).len() - 20_000;
    let largest = produce_frame("bystander", -1, Bytes::from(vec![0; (1 << 20) + 4 - around]));
    assert_eq!(largest.len(), (1 << 20) + 4);
    let address = broker.address().to_owned();
    bystander.measure_attack("socket.request.max.bytes + 1", &mut broker, 100, || {
        for _ in 0..200 {
            let mut stream = TcpStream::connect(&address).expect("a connection");
            stream.write_all(&((1 << 20) + 1u32).to_be_bytes()).expect("sent");
            assert!(is_closed(&mut stream, PATIENCE), "closed before any byte of the request has come");
        }
        "200 connections closed at the length".to_owned()
    });
    let told = "a request of 1048577 bytes is larger than socket.request.max.bytes = 1048576";
    assert_eq!(closed_in_log(&broker, told, 200), 200, "each closed connection is logged or counted in the log");
    let mut stream = connect(broker.address());
    stream.write_all(&largest).expect("sent");
    // Any answer will do: the records are not valid.
    read_answer(&mut stream);
    broker.stop();
}

#[test]
fn requests_that_are_never_finished_do_not_keep_other_clients_out() {
    let home = tempfile::tempdir().expect("a directory");
    let mut broker = setup(&home).start();
    let mut bystander = Bystander::new(&broker);
    let mut begun = 100_000_000u32.to_be_bytes().to_vec();
    begun.resize(60 << 20, 0);
    let mut streams: Vec<TcpStream> = (0..20).map(|_| connect(broker.address())).collect();
    // Allowed are the budget of queued.max.request.bytes (256 MiB by default), one request, and 100 MiB for the rest.
    bystander.measure_attack("begun and never ended", &mut broker, 256 + 100 + 100, || {
        let taken: Vec<usize> = thread::scope(|scope| {
            let attackers: Vec<_> = streams
                .iter_mut()
                .map(|stream| {
                    let begun = &begun;
                    scope.spawn(move || push(stream, begun, Duration::from_secs(3)))
                })
                .collect();
            attackers.into_iter().map(|attacker| attacker.join().expect("an attacker")).collect()
        });
        format!(
            "20 connections that each send 60 MiB of 100 MB, of which {} MiB were taken",
            taken.iter().sum::<usize>() >> 20
        )
    });
    broker.stop();
}
