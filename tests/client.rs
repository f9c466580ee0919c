//! A small blocking client. It encodes with `kafka-protocol`, which shares no code with Tidelog's own codec.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, CreateTopicsRequest, FetchRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    ProduceRequest, RequestHeader, ResponseHeader, TopicName, create_topics_request, fetch_request,
    list_offsets_request, metadata_request, produce_request,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

/// The request versions that this client uses: the newest that identify topics by name.
const PRODUCE_VERSION: i16 = 12;
const FETCH_VERSION: i16 = 12;
const CREATE_TOPICS_VERSION: i16 = 7;
const LIST_OFFSETS_VERSION: i16 = 9;
const INIT_PRODUCER_ID_VERSION: i16 = 5;
const METADATA_VERSION: i16 = 12;

/// One connection. Its failures are `io::Error`s; error codes of the protocol are returned.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    correlation_id: i32,
}

/// The answer to a Produce for its one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    pub error_code: i16,
    pub base_offset: i64,
}

/// An idempotent producer's identity and its next sequence in one partition (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
    pub sequence: i32,
}

impl Producer {
    /// A producer without an identity.
    pub const NONE: Self = Self { id: -1, epoch: -1, sequence: -1 };
}

impl Client {
    pub fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream, correlation_id: 0 })
    }

    /// The socket, for tests that send what no well-behaved client sends.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Sends a request without waiting; returns its correlation id.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> io::Result<i32> {
        self.correlation_id += 1;
        let key = ApiKey::try_from(R::KEY).expect("a key that the codec knows");
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("tidelog-tests")));
        let mut frame = BytesMut::zeroed(4);
        header.encode(&mut frame, key.request_header_version(version)).expect("a header that encodes");
        request.encode(&mut frame, version).expect("a request that encodes");
        let len = u32::try_from(frame.len() - 4).expect("a frame below 4 GiB");
        frame[..4].copy_from_slice(&len.to_be_bytes());
        self.stream.write_all(&frame)?;
        Ok(self.correlation_id)
    }

    /// The next response, which must be the one to `correlation_id`, since responses keep the order of the requests.
    pub fn receive<R: Request>(&mut self, version: i16, correlation_id: i32) -> io::Result<R::Response> {
        let mut frame = self.receive_frame()?;
        let header = ResponseHeader::decode(&mut frame, R::Response::header_version(version)).map_err(invalid)?;
        assert_eq!(header.correlation_id, correlation_id, "responses come in the order of the requests");
        let response = R::Response::decode(&mut frame, version).map_err(invalid)?;
        assert!(!frame.has_remaining(), "{} bytes after the response", frame.remaining());
        Ok(response)
    }

    /// The next frame without its length.
    pub fn receive_frame(&mut self) -> io::Result<Bytes> {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len)?;
        let mut frame = vec![0; u32::from_be_bytes(len) as usize];
        self.stream.read_exact(&mut frame)?;
        Ok(Bytes::from(frame))
    }

    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        let correlation_id = self.send(version, request)?;
        self.receive::<R>(version, correlation_id)
    }

    /// Creates a topic of one replica; returns the error code and its text.
    pub fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> io::Result<(i16, Option<String>)> {
        let configs = configs.iter().map(|(name, value)| {
            create_topics_request::CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        });
        let topic = create_topics_request::CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        let response = self.call(CREATE_TOPICS_VERSION, &request)?;
        let result = &response.topics[0];
        Ok((result.error_code, result.error_message.as_ref().map(ToString::to_string)))
    }

    /// The names of all topics.
    pub fn topics(&mut self) -> io::Result<Vec<String>> {
        let request = MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(false);
        let response = self.call(METADATA_VERSION, &request)?;
        let mut names: Vec<String> =
            response.topics.iter().filter_map(|topic| topic.name.as_ref()).map(|name| name.0.to_string()).collect();
        names.sort();
        Ok(names)
    }

    /// Waits until a topic that was just created has a leader for each partition.
    pub fn wait_for_leaders(&mut self, topic: &str) -> io::Result<()> {
        for _ in 0..600 {
            let named = metadata_request::MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
            let request =
                MetadataRequest::default().with_topics(Some(vec![named])).with_allow_auto_topic_creation(false);
            let response = self.call(METADATA_VERSION, &request)?;
            let topic = &response.topics[0];
            if topic.error_code == 0 && topic.partitions.iter().all(|partition| partition.error_code == 0) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no leader for {topic}")))
    }

    pub fn init_producer(&mut self) -> io::Result<Producer> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        for _ in 0..600 {
            let response = self.call(INIT_PRODUCER_ID_VERSION, &request)?;
            if response.error_code == 0 {
                return Ok(Producer { id: response.producer_id.0, epoch: response.producer_epoch, sequence: 0 });
            }
            // COORDINATOR_LOAD_IN_PROGRESS: a broker that just came up may have no block of ids yet.
            assert_eq!(response.error_code, 14, "of InitProducerId");
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "no producer id"))
    }

    pub fn send_produce(&mut self, topic: &str, partition: i32, acks: i16, batch: Bytes) -> io::Result<i32> {
        let data = produce_request::PartitionProduceData::default().with_index(partition).with_records(Some(batch));
        let topic =
            produce_request::TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(acks).with_timeout_ms(10_000).with_topic_data(vec![topic]);
        self.send(PRODUCE_VERSION, &request)
    }

    pub fn receive_produce(&mut self, correlation_id: i32) -> io::Result<Produced> {
        let response = self.receive::<ProduceRequest>(PRODUCE_VERSION, correlation_id)?;
        let partition = &response.responses[0].partition_responses[0];
        Ok(Produced { error_code: partition.error_code, base_offset: partition.base_offset })
    }

    /// Produces one batch with acks=all and waits.
    pub fn produce(&mut self, topic: &str, partition: i32, batch: Bytes) -> io::Result<Produced> {
        let correlation_id = self.send_produce(topic, partition, -1, batch)?;
        self.receive_produce(correlation_id)
    }

    /// One Fetch of one partition: its error code, its high watermark and the bytes of its batches.
    pub fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> io::Result<(i16, i64, Bytes)> {
        let response = self.call(FETCH_VERSION, &full_fetch(topic, partition, offset))?;
        assert_eq!(response.error_code, 0, "of the whole fetch");
        let partition = &response.responses[0].partitions[0];
        Ok((partition.error_code, partition.high_watermark, partition.records.clone().unwrap_or_default()))
    }

    /// Sends the same Fetch without waiting for the answer.
    pub fn send_fetch(&mut self, topic: &str, partition: i32, offset: i64) -> io::Result<i32> {
        self.send(FETCH_VERSION, &full_fetch(topic, partition, offset))
    }

    /// All records of uncompressed batches from `offset` up to the high watermark.
    pub fn read_from(&mut self, topic: &str, partition: i32, mut offset: i64) -> io::Result<Vec<Record>> {
        let mut all = Vec::new();
        loop {
            let (error_code, high_watermark, mut bytes) = self.fetch(topic, partition, offset)?;
            if error_code != 0 {
                return Err(io::Error::other(format!(
                    "fetch of {topic}-{partition} from {offset}: error {error_code}"
                )));
            }
            if offset >= high_watermark {
                return Ok(all);
            }
            drop_partial_batch(&mut bytes);
            assert!(!bytes.is_empty(), "no batch at {offset}, below the high watermark {high_watermark}");
            for set in RecordBatchDecoder::decode_all(&mut bytes).map_err(invalid)? {
                all.extend(set.records.into_iter().filter(|record| record.offset >= offset));
            }
            offset = all.last().expect("a batch has records").offset + 1;
        }
    }

    /// The offset for a timestamp; -1 stands for the end, -2 for the beginning. Returns the error code and the offset.
    pub fn offset_for(&mut self, topic: &str, partition: i32, timestamp: i64) -> io::Result<(i16, i64)> {
        let wanted = list_offsets_request::ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let topic = list_offsets_request::ListOffsetsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        let response = self.call(LIST_OFFSETS_VERSION, &request)?;
        let partition = &response.topics[0].partitions[0];
        Ok((partition.error_code, partition.offset))
    }
}

/// A full fetch of one partition.
fn full_fetch(topic: &str, partition: i32, offset: i64) -> FetchRequest {
    let wanted = fetch_request::FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(4 << 20);
    let topic = fetch_request::FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![wanted]);
    FetchRequest::default()
        .with_max_wait_ms(100)
        .with_min_bytes(1)
        .with_max_bytes(16 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// The wall clock in milliseconds, as records carry it.
pub fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock past 1970");
    i64::try_from(since_1970.as_millis()).expect("a clock before the year 292,278,994")
}

/// One uncompressed batch of values without keys. The records have the present time: a broker that loads a log forgets
/// producers whose last record is older than `producer.id.expiration.ms`.
pub fn batch(producer: Producer, values: &[Bytes]) -> Bytes {
    let timestamp = now_ms();
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
            // The codec writes only the first sequence, and starts a new batch if the next one is not one higher.
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
        let len = u32::from_be_bytes(len.try_into().expect("four bytes")) as usize;
        if end + 12 + len > bytes.len() {
            break;
        }
        end += 12 + len;
    }
    bytes.truncate(end);
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}
