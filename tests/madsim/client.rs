//! A client on a simulated socket. It encodes with `kafka-protocol`, which shares no code with Tidelog's own codec.

use crate::network::{self, Stream};
use crate::runs::Log;
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, CreateTopicsRequest, FetchRequest, InitProducerIdRequest, MetadataRequest,
    ProduceRequest, RequestHeader, ResponseHeader, TopicName, create_topics_request, fetch_request, produce_request,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use madsim::time::{Duration, timeout};
use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};

const PRODUCE_VERSION: i16 = 12;
const FETCH_VERSION: i16 = 12;
const CREATE_TOPICS_VERSION: i16 = 7;
const INIT_PRODUCER_ID_VERSION: i16 = 5;
const API_VERSIONS_VERSION: i16 = 3;
const METADATA_VERSION: i16 = 12;
/// Longer than any answer takes, unless a test withholds it.
const PATIENCE: Duration = Duration::from_secs(30);

const READ_BYTES_MAX: usize = 64 << 10;

/// One connection of a client.
pub struct Client {
    pub stream: Stream,
    name: String,
    log: Log,
    received: Vec<u8>,
    correlation_id: i32,
}

/// An idempotent producer's identity and its next sequence.
#[derive(Clone, Copy, Debug)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
    pub sequence: i32,
}

impl Producer {
    pub const NONE: Self = Self { id: -1, epoch: -1, sequence: -1 };
}

impl Client {
    pub fn new(stream: Stream, name: String, log: Log) -> Self {
        Self { stream, name, log, received: Vec::new(), correlation_id: 0 }
    }

    /// Encodes a request under the next correlation id; returns that id and the frame, which is not sent.
    pub fn frame<R: Request>(&mut self, version: i16, request: &R) -> (i32, Vec<u8>) {
        self.correlation_id += 1;
        let key = ApiKey::try_from(R::KEY).expect("a key that the codec knows");
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("shell")));
        let mut frame = BytesMut::zeroed(4);
        header.encode(&mut frame, key.request_header_version(version)).expect("a header that encodes");
        request.encode(&mut frame, version).expect("a request that encodes");
        let len = u32::try_from(frame.len() - 4).expect("a short frame");
        frame[..4].copy_from_slice(&len.to_be_bytes());
        (self.correlation_id, frame.to_vec())
    }

    /// Writes all of `bytes`, waiting as often as the network takes no more.
    pub async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = poll_fn(|cx| self.stream.poll_write(cx, bytes)).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Like [`write`](Self::write), but also reads answers meanwhile. Requests whose answers do not fit in the windows
    /// of the connection need this.
    pub async fn write_and_read(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        poll_fn(|cx| {
            while !bytes.is_empty() {
                if let Poll::Ready(written) = self.stream.poll_write(cx, bytes)? {
                    bytes = &bytes[written..];
                } else if ready!(self.stream.poll_read(cx, READ_BYTES_MAX, &mut self.received))? == 0 {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// The next frame; `None` if the broker has closed the connection between two frames.
    pub async fn receive_frame(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some((len, rest)) = self.received.split_first_chunk::<4>() {
                let len = u32::from_be_bytes(*len) as usize;
                if rest.len() >= len {
                    let frame = Bytes::copy_from_slice(&rest[..len]);
                    self.received.drain(..4 + len);
                    self.log.say(format_args!("{}: a frame of {len} bytes", self.name));
                    return Ok(Some(frame));
                }
            }
            match network::read(&mut self.stream, &mut self.received).await? {
                0 if self.received.is_empty() => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        }
    }

    /// The answer to `correlation_id`, which must be the next, since answers keep the order of the requests.
    pub async fn receive<R: Request>(&mut self, version: i16, correlation_id: i32) -> io::Result<R::Response> {
        let received = timeout(PATIENCE, self.receive_frame()).await;
        let received = received.unwrap_or_else(|_| panic!("{}: no answer in {PATIENCE:?}", self.name))?;
        let mut frame = received.ok_or(io::ErrorKind::ConnectionAborted)?;
        let header = ResponseHeader::decode(&mut frame, R::Response::header_version(version)).expect("a header");
        assert_eq!(header.correlation_id, correlation_id, "answers come in the order of the requests");
        let response = R::Response::decode(&mut frame, version).expect("a response that decodes");
        assert!(!frame.has_remaining(), "{} bytes after the response", frame.remaining());
        Ok(response)
    }

    pub async fn call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        let (correlation_id, frame) = self.frame(version, request);
        self.write(&frame).await?;
        self.receive::<R>(version, correlation_id).await
    }

    /// The smallest request and its answer.
    pub async fn ping(&mut self) -> io::Result<()> {
        let (correlation_id, frame) = self.ping_frame();
        self.write(&frame).await?;
        self.receive_ping(correlation_id).await
    }

    pub fn ping_frame(&mut self) -> (i32, Vec<u8>) {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("shell"))
            .with_client_software_version(StrBytes::from_static_str("1"));
        self.frame(API_VERSIONS_VERSION, &request)
    }

    pub async fn receive_ping(&mut self, correlation_id: i32) -> io::Result<()> {
        let response = self.receive::<ApiVersionsRequest>(API_VERSIONS_VERSION, correlation_id).await?;
        assert_eq!(response.error_code, 0, "of ApiVersions");
        Ok(())
    }

    /// A request about all topics, which the broker treats as a large one.
    pub fn metadata_frame(&mut self) -> (i32, Vec<u8>) {
        let request = MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(false);
        self.frame(METADATA_VERSION, &request)
    }

    /// The number of topics.
    pub async fn receive_metadata(&mut self, correlation_id: i32) -> io::Result<usize> {
        let response = self.receive::<MetadataRequest>(METADATA_VERSION, correlation_id).await?;
        Ok(response.topics.len())
    }

    /// Waits until the broker has closed the connection; an error if it did so by a reset.
    pub async fn closed(&mut self, within: Duration) -> io::Result<()> {
        let end = timeout(within, self.receive_frame()).await;
        match end.unwrap_or_else(|_| panic!("{}: still connected after {within:?}", self.name)) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => panic!("{}: an answer where none was due", self.name),
            Err(error) => Err(error),
        }
    }

    pub async fn create_topic(&mut self, name: &str) {
        let topic = create_topics_request::CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(1)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        let response = self.call(CREATE_TOPICS_VERSION, &request).await.expect("an answer");
        assert_eq!(response.topics[0].error_code, 0, "{:?}", response.topics[0].error_message);
    }

    pub async fn init_producer(&mut self) -> Producer {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        loop {
            let response = self.call(INIT_PRODUCER_ID_VERSION, &request).await.expect("an answer");
            if response.error_code == 0 {
                return Producer { id: response.producer_id.0, epoch: response.producer_epoch, sequence: 0 };
            }
            // COORDINATOR_LOAD_IN_PROGRESS: a broker that just came up may have no block of ids yet.
            assert_eq!(response.error_code, 14, "of InitProducerId");
            madsim::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn produce_frame(&mut self, topic: &str, acks: i16, batch: Bytes) -> (i32, Vec<u8>) {
        let data = produce_request::PartitionProduceData::default().with_index(0).with_records(Some(batch));
        let topic =
            produce_request::TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(acks).with_timeout_ms(10_000).with_topic_data(vec![topic]);
        self.frame(PRODUCE_VERSION, &request)
    }

    /// The base offset, or the error code.
    pub async fn receive_produce(&mut self, correlation_id: i32) -> io::Result<Result<i64, i16>> {
        let response = self.receive::<ProduceRequest>(PRODUCE_VERSION, correlation_id).await?;
        let partition = &response.responses[0].partition_responses[0];
        Ok(if partition.error_code == 0 { Ok(partition.base_offset) } else { Err(partition.error_code) })
    }

    /// Produces one batch with acks=all and waits.
    pub async fn produce(&mut self, topic: &str, batch: Bytes) -> io::Result<Result<i64, i16>> {
        let (correlation_id, frame) = self.produce_frame(topic, -1, batch);
        self.write(&frame).await?;
        self.receive_produce(correlation_id).await
    }

    pub fn fetch_frame(&mut self, topic: &str, offset: i64, max_wait_ms: i32, max_bytes: i32) -> (i32, Vec<u8>) {
        let wanted = fetch_request::FetchPartition::default()
            .with_partition(0)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(max_bytes);
        let topic = fetch_request::FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![wanted]);
        let request = FetchRequest::default()
            .with_max_wait_ms(max_wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(max_bytes)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        self.frame(FETCH_VERSION, &request)
    }

    /// The records of whole, uncompressed batches, and the high watermark.
    pub async fn receive_fetch(&mut self, correlation_id: i32) -> io::Result<(Vec<Record>, i64)> {
        let response = self.receive::<FetchRequest>(FETCH_VERSION, correlation_id).await?;
        assert_eq!(response.error_code, 0, "of the whole fetch");
        let partition = &response.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0, "of the partition");
        let mut bytes = partition.records.clone().unwrap_or_default();
        drop_partial_batch(&mut bytes);
        let sets = RecordBatchDecoder::decode_all(&mut bytes).expect("batches that decode");
        Ok((sets.into_iter().flat_map(|set| set.records).collect(), partition.high_watermark))
    }

    /// All values from the beginning up to the high watermark, with their offsets.
    pub async fn read_all(&mut self, topic: &str) -> Vec<(i64, Bytes)> {
        let mut all: Vec<(i64, Bytes)> = Vec::new();
        loop {
            let offset = all.last().map_or(0, |(last, _)| last + 1);
            let (correlation_id, frame) = self.fetch_frame(topic, offset, 100, 1 << 20);
            self.write(&frame).await.expect("a broker that reads");
            let (records, high_watermark) = self.receive_fetch(correlation_id).await.expect("an answer");
            let before = all.len();
            let new = records.into_iter().filter(|record| record.offset >= offset);
            all.extend(new.map(|record| (record.offset, record.value.unwrap_or_default())));
            if all.last().map_or(0, |(last, _)| last + 1) >= high_watermark {
                return all;
            }
            assert!(all.len() > before, "nothing at {offset}, below the high watermark {high_watermark}");
        }
    }
}

/// One uncompressed batch of values without keys.
pub fn batch(producer: Producer, values: &[Bytes]) -> Bytes {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock past 1970");
    let timestamp = i64::try_from(since_1970.as_millis()).expect("a clock of this age");
    let records: Vec<Record> = (0..)
        .zip(values)
        .map(|(place, value)| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            timestamp_type: TimestampType::Creation,
            offset: i64::from(place),
            sequence: producer.sequence + place,
            timestamp,
            key: None,
            value: Some(value.clone()),
            headers: Default::default(),
        })
        .collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut bytes, &records, &options).expect("a batch that encodes");
    bytes.freeze()
}

/// The record bytes of a fetch may end in the middle of a batch.
fn drop_partial_batch(bytes: &mut Bytes) {
    let mut end = 0;
    while let Some(len) = bytes.get(end + 8..end + 12) {
        let next = end + 12 + u32::from_be_bytes(len.try_into().expect("four bytes")) as usize;
        if next > bytes.len() {
            break;
        }
        end = next;
    }
    bytes.truncate(end);
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
