//! The attacks of the hostile client, and the answer that each must get.

use super::answers::Told;
use super::batches::{self, broken};
use crate::client::Setting;
use crate::client::records::Identity;
use crate::client::topics::topic_name;
use crate::random::Stream;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiVersionsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest,
    DeleteTopicsRequest, DescribeConfigsRequest, FetchRequest, InitProducerIdRequest, ListOffsetsRequest,
    MetadataRequest, OffsetForLeaderEpochRequest, ProduceRequest, ProducerId, RequestHeader,
};
use kafka_protocol::protocol::{Encodable, Request, StrBytes};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub struct Attack {
    pub name: &'static str,
    pub frame: Bytes,
    pub key: i16,
    pub answer_version: i16,
    pub correlation_id: i32,
    pub expect: Expect,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// An answer with one of these error codes.
    Codes(&'static [i16]),
    /// The end of the connection.
    Closed,
    /// Neither an answer nor the end of the connection.
    Silence,
    Anything,
}

/// What earlier answers told.
#[derive(Debug, Default)]
pub struct Known {
    topic_ids: BTreeMap<String, uuid::Uuid>,
    producer_id: Option<i64>,
    fetch_session: Option<i32>,
    versions: Vec<(i16, i16, i16)>,
}

impl Known {
    pub fn learn(&mut self, told: &Told) {
        self.topic_ids.extend(told.topic_ids.iter().cloned());
        self.producer_id = told.producer_id.or(self.producer_id);
        self.fetch_session = told.fetch_session.or(self.fetch_session);
        if !told.versions.is_empty() {
            self.versions.clone_from(&told.versions);
        }
    }
}

/// The topic in which it may write.
const OWN_TOPIC: &str = "hostile";
pub(super) const NO_TOPIC: &str = "no-such-topic";
pub(super) const NONE: &[i16] = &[0];

/// Makes the attacks of one volley.
pub struct Attacks<'a> {
    pub setting: &'a Setting,
    pub known: &'a mut Known,
    pub stream: &'a mut Stream,
    pub correlation_id: &'a mut i32,
}

impl Attacks<'_> {
    /// Draws the attacks that are sent on one connection. An attack that must end the connection comes last.
    pub fn volley(&mut self, at_most: u32) -> Vec<Attack> {
        if self.known.topic_ids.is_empty() || self.stream.one_in(10) {
            let versions = self.request("api versions", 2, &ApiVersionsRequest::default(), NONE);
            return vec![versions, self.metadata(), self.init_producer_id()];
        }
        if self.stream.one_in(4) {
            return self.sequences();
        }
        let count = self.stream.between(1, at_most.into());
        let mut volley = Vec::new();
        for _ in 0..count {
            let attack = self.any();
            let is_last = matches!(attack.expect, Expect::Closed | Expect::Anything);
            volley.push(attack);
            if is_last {
                break;
            }
        }
        volley
    }

    fn any(&mut self) -> Attack {
        match self.stream.below(14) {
            0 | 1 => self.frame(),
            2..=4 => self.broken_batch(),
            5 => self.misled_produce(),
            6 => self.wrong_session(),
            7 => self.misled_fetch(),
            8 => self.wrong_epoch(),
            9 => self.delete_records(),
            10 => self.admin(),
            11 => self.operate(),
            12 => self.nonsense(),
            _ => self.metadata(),
        }
    }

    pub(super) fn request<R: Request>(
        &mut self,
        name: &'static str,
        version: i16,
        request: &R,
        codes: &'static [i16],
    ) -> Attack {
        *self.correlation_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(*self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("hostile")));
        let mut frame = BytesMut::new();
        header.encode(&mut frame, R::header_version(version)).expect("a header encodes");
        request.encode(&mut frame, version).unwrap_or_else(|error| panic!("{name} in version {version}: {error}"));
        Attack {
            name,
            frame: frame.freeze(),
            key: R::KEY,
            answer_version: version,
            correlation_id: *self.correlation_id,
            expect: Expect::Codes(codes),
        }
    }

    pub(super) fn partition(&mut self) -> (String, i32) {
        let topic = self.stream.pick(&self.setting.topics);
        (topic.name.clone(), self.stream.below(topic.partitions as u64) as i32)
    }

    fn metadata(&mut self) -> Attack {
        let topic = |name| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let request =
            MetadataRequest::default().with_topics(Some(vec![topic(OWN_TOPIC)])).with_allow_auto_topic_creation(true);
        self.request("metadata", 12, &request, NONE)
    }

    fn init_producer_id(&mut self) -> Attack {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        self.request("init producer id", 4, &request, NONE)
    }

    fn produce(
        &mut self,
        name: &'static str,
        (topic, index): (&str, i32),
        acks: i16,
        batch: Bytes,
        codes: &'static [i16],
    ) -> Attack {
        let by_id = self.known.topic_ids.get(topic).copied().filter(|_| self.stream.one_in(3));
        let data = PartitionProduceData::default().with_index(index).with_records(Some(batch));
        let data = TopicProduceData::default().with_partition_data(vec![data]);
        let (version, data) = match by_id {
            Some(id) => (13, data.with_topic_id(id)),
            None => (self.stream.between(7, 12) as i16, data.with_name(topic_name(topic))),
        };
        let request = ProduceRequest::default().with_acks(acks).with_timeout_ms(5_000).with_topic_data(vec![data]);
        self.request(name, version, &request, codes)
    }

    /// Batches whose sequences and epochs jump. Each must be refused, or answered as a duplicate if it is one.
    fn sequences(&mut self) -> Vec<Attack> {
        // A producer id is used once: after that the broker has state for it.
        let Some(producer_id) = self.known.producer_id.take() else { return vec![self.init_producer_id()] };
        let steps: &[(&'static str, i16, i32, &'static [i16])] = &[
            ("sequence: the first", 0, 0, NONE),
            ("sequence: a gap", 0, 9, &[45]),
            ("sequence: the first again", 0, 0, NONE),
            ("sequence: a new epoch that does not begin at 0", 1, 2, &[45]),
            ("sequence: a new epoch", 1, 0, NONE),
            ("sequence: a zombie's epoch", 0, 2, &[47]),
            ("sequence: a zombie's duplicate", 0, 0, &[47]),
            ("sequence: a gap in the new epoch", 1, 7, &[45]),
            ("sequence: the next", 1, 2, NONE),
        ];
        let steps = &steps[..self.stream.between(1, steps.len() as u64) as usize];
        let payloads = self.setting.payloads;
        let mut volley = Vec::new();
        for (name, epoch, sequence, codes) in steps {
            let identity = Identity { producer_id, epoch: *epoch };
            let batch = batches::valid(payloads, self.setting.client, 1, Some((identity, *sequence)));
            volley.push(self.produce(name, (OWN_TOPIC, 0), -1, batch.freeze(), codes));
        }
        volley.push(self.init_producer_id());
        volley
    }

    fn broken_batch(&mut self) -> Attack {
        let (topic, index) = self.partition();
        let broken = broken(self.setting.payloads, self.setting.client, self.setting.wall_ms, self.stream);
        let mut attack = self.produce(broken.name, (&topic, index), 1, broken.bytes, broken.codes);
        if self.stream.one_in(6) {
            // With acks=0 there is no answer: an error shows by the end of the connection.
            let (topic, index) = self.partition();
            let again = attack.name;
            let bytes = broken_bytes(self);
            attack = self.produce(again, (&topic, index), 0, bytes, broken.codes);
            (attack.name, attack.expect) = ("acks=0 and a broken batch", Expect::Closed);
        }
        attack
    }

    /// A topic with small segments that stores batches without recompressing them.
    fn small_segments(&self) -> Option<(String, usize)> {
        self.setting.topics.iter().find_map(|topic| {
            let bytes = topic.number("internal.segment.bytes")?;
            let is_kept = !topic.configs.contains_key("compression.type");
            is_kept.then(|| (topic.name.clone(), bytes as usize))
        })
    }

    fn misled_produce(&mut self) -> Attack {
        let (topic, index) = self.partition();
        let batch = batches::valid(self.setting.payloads, self.setting.client, 1, None).freeze();
        if let Some((topic, segment_bytes)) = self.small_segments()
            && self.stream.one_in(4)
        {
            let (payloads, client) = (self.setting.payloads, self.setting.client);
            let batch = batches::larger_than(segment_bytes, payloads, client, self.setting.wall_ms);
            return self.produce("produce: larger than a segment", (&topic, 0), -1, batch, &[18]);
        }
        match self.stream.below(6) {
            0 => self.produce("produce: acks=5", (&topic, index), 5, batch, &[21]),
            1 => self.produce("produce: no such topic", (NO_TOPIC, 0), -1, batch, &[3]),
            2 => self.produce("produce: no such partition", (&topic, 9_999), -1, batch, &[3]),
            3 => self.produce("produce: partition -1", (&topic, -1), -1, batch, &[3]),
            4 => self.produce("produce: no records", (&topic, index), -1, Bytes::new(), &[2, 87]),
            _ => {
                let data = PartitionProduceData::default().with_index(0).with_records(Some(batch));
                let id = uuid::Uuid::from_bytes(self.stream.bytes_16());
                let data = TopicProduceData::default().with_topic_id(id).with_partition_data(vec![data]);
                let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(100).with_topic_data(vec![data]);
                self.request("produce: no such topic id", 13, &request, &[100])
            }
        }
    }

    fn fetch(
        &mut self,
        name: &'static str,
        (topic, partition): (&str, FetchPartition),
        session: (i32, i32),
        codes: &'static [i16],
    ) -> Attack {
        let topic = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_bytes(1_000)
            .with_session_id(session.0)
            .with_session_epoch(session.1)
            .with_topics(vec![topic]);
        self.request(name, 12, &request, codes)
    }

    fn wrong_session(&mut self) -> Attack {
        let (topic, index) = self.partition();
        let partition = fetch_partition(index, 0);
        match (self.stream.below(3), self.known.fetch_session) {
            (0, _) => {
                let id = 1 + self.stream.below(1 << 30) as i32;
                self.fetch("fetch: no such session", (&topic, partition), (id, 1), &[70])
            }
            (1, Some(id)) => self.fetch("fetch: wrong session epoch", (&topic, partition), (id, 77), &[70, 71]),
            // It opens a session that it never closes.
            _ => self.fetch("fetch: a session", (&topic, partition), (0, 0), &[0, 1]),
        }
    }

    fn misled_fetch(&mut self) -> Attack {
        let (topic, index) = self.partition();
        match self.stream.below(5) {
            0 => self.fetch("fetch: no such topic", (NO_TOPIC, fetch_partition(0, 0)), (0, -1), &[3]),
            1 => self.fetch("fetch: no such partition", (&topic, fetch_partition(777, 0)), (0, -1), &[3]),
            2 => self.fetch("fetch: past the end", (&topic, fetch_partition(index, 1 << 60)), (0, -1), &[1]),
            3 => self.fetch("fetch: a negative offset", (&topic, fetch_partition(index, -7)), (0, -1), &[1]),
            _ => {
                let id = uuid::Uuid::from_bytes(self.stream.bytes_16());
                let topic = FetchTopic::default().with_topic_id(id).with_partitions(vec![fetch_partition(0, 0)]);
                let request = FetchRequest::default().with_session_epoch(-1).with_topics(vec![topic]);
                self.request("fetch: no such topic id", 15, &request, &[100])
            }
        }
    }

    /// KIP-320: a leader epoch that no leader has had yet.
    fn wrong_epoch(&mut self) -> Attack {
        let (topic, index) = self.partition();
        let epoch = 1_000_000;
        match self.stream.below(4) {
            0 => {
                let partition = fetch_partition(index, 0).with_current_leader_epoch(epoch);
                self.fetch("fetch: a leader epoch to come", (&topic, partition), (0, -1), &[75])
            }
            1 => {
                // KIP-595: the answer has no diverging epoch, so it must be an error.
                let partition = fetch_partition(index, 0).with_last_fetched_epoch(epoch);
                self.fetch("fetch: records of an epoch to come", (&topic, partition), (0, -1), &[1])
            }
            2 => {
                let partition = ListOffsetsPartition::default()
                    .with_partition_index(index)
                    .with_current_leader_epoch(epoch)
                    .with_timestamp(-1);
                let topic = ListOffsetsTopic::default().with_name(topic_name(&topic)).with_partitions(vec![partition]);
                let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
                self.request("list offsets: a leader epoch to come", 7, &request, &[75])
            }
            _ => {
                let partition = OffsetForLeaderPartition::default()
                    .with_partition(index)
                    .with_current_leader_epoch(epoch)
                    .with_leader_epoch(0);
                let topic =
                    OffsetForLeaderTopic::default().with_topic(topic_name(&topic)).with_partitions(vec![partition]);
                let request =
                    OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
                self.request("offset for leader epoch: one to come", 4, &request, &[75])
            }
        }
    }

    /// Numbers that stand for nothing: an epoch below "not known", an isolation level, an id without its epoch.
    fn nonsense(&mut self) -> Attack {
        let (topic, index) = self.partition();
        let list = |epoch, isolation_level| {
            let partition = ListOffsetsPartition::default()
                .with_partition_index(index)
                .with_current_leader_epoch(epoch)
                .with_timestamp(-1);
            let topic = ListOffsetsTopic::default().with_name(topic_name(&topic)).with_partitions(vec![partition]);
            let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
            request.with_isolation_level(isolation_level)
        };
        match self.stream.below(4) {
            0 => self.request("list offsets: a leader epoch below none", 7, &list(-2, 0), &[74]),
            1 => {
                let partition = OffsetForLeaderPartition::default()
                    .with_partition(index)
                    .with_current_leader_epoch(-2)
                    .with_leader_epoch(0);
                let topic =
                    OffsetForLeaderTopic::default().with_topic(topic_name(&topic)).with_partitions(vec![partition]);
                let request =
                    OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
                self.request("offset for leader epoch: an epoch below none", 4, &request, &[74])
            }
            2 => self.request("list offsets: no such isolation level", 7, &list(-1, 2), &[-1]),
            _ => {
                let request = InitProducerIdRequest::default()
                    .with_transactional_id(None)
                    .with_transaction_timeout_ms(60_000)
                    .with_producer_id(ProducerId(7))
                    .with_producer_epoch(-1);
                self.request("init producer id: an id without an epoch", 4, &request, &[42])
            }
        }
    }

    fn delete_records(&mut self) -> Attack {
        let (topic, index) = self.partition();
        let offset = if self.stream.one_in(2) { 1 << 60 } else { -7 };
        let partition = DeleteRecordsPartition::default().with_partition_index(index).with_offset(offset);
        let topic = DeleteRecordsTopic::default().with_name(topic_name(&topic)).with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000);
        self.request("delete records: out of range", 2, &request, &[1])
    }

    fn admin(&mut self) -> Attack {
        let (existing, _) = self.partition();
        let creatable = |name: &str, partitions: i32, replicas: i16| {
            CreatableTopic::default()
                .with_name(topic_name(name))
                .with_num_partitions(partitions)
                .with_replication_factor(replicas)
        };
        let create = |topics| CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(1_000);
        match self.stream.below(9) {
            0 => self.request("create: a name with a slash", 5, &create(vec![creatable("a/b", 1, 1)]), &[17]),
            1 => self.request("create: no partitions", 5, &create(vec![creatable("none", 0, 1)]), &[37]),
            2 => self.request("create: fifty replicas", 5, &create(vec![creatable("fifty", 1, 50)]), &[38]),
            3 => {
                let config = CreatableTopicConfig::default()
                    .with_name(StrBytes::from_static_str("retention.ms"))
                    .with_value(Some(StrBytes::from_static_str("soon")));
                let topic = creatable("misconfigured", 1, 1).with_configs(vec![config]);
                self.request("create: a config that is none", 5, &create(vec![topic]), &[40])
            }
            4 => {
                let twice = vec![creatable("twice", 1, 1), creatable("twice", 1, 1)];
                self.request("create: twice in one", 5, &create(twice), &[42])
            }
            5 => {
                let mut attack =
                    self.request("create: what is there", 5, &create(vec![creatable(OWN_TOPIC, 1, 1)]), &[36]);
                // The first of these attacks creates the topic.
                attack.expect = Expect::Codes(&[36, 0]);
                attack
            }
            6 => {
                let topic = DeleteTopicState::default().with_name(Some(topic_name(NO_TOPIC)));
                let request = DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000);
                self.request("delete: no such topic", 6, &request, &[3])
            }
            7 => {
                let topic = CreatePartitionsTopic::default()
                    .with_name(topic_name(&existing))
                    .with_count(0)
                    .with_assignments(None);
                let request = CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000);
                self.request("partitions: fewer than there are", 3, &request, &[37])
            }
            _ => {
                let resource = DescribeConfigsResource::default()
                    .with_resource_type(2)
                    .with_resource_name(StrBytes::from_static_str(NO_TOPIC))
                    .with_configuration_keys(None);
                let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
                self.request("describe configs: no such topic", 4, &request, &[3])
            }
        }
    }

    /// Frames that must be refused before their request is decoded.
    fn frame(&mut self) -> Attack {
        let mut attack = self.metadata();
        let mut frame = BytesMut::from(&attack.frame[..]);
        let client_id = b"hostile".len() + 2;
        match self.stream.below(11) {
            0 => {
                let key = *self.stream.pick(&[-1_i16, 93, 9_999, i16::MAX, i16::MIN]);
                frame[..2].copy_from_slice(&key.to_be_bytes());
                (attack.name, attack.expect) = ("frame: an unknown key", Expect::Closed);
            }
            1 => {
                // No version outside of the ranges that ApiVersions told may be served.
                let told = self.known.versions.iter().filter(|(key, ..)| *key != ApiVersionsRequest::KEY);
                let ranges: Vec<(i16, i16, i16)> = told.copied().collect();
                let (key, min, max) = if ranges.is_empty() { (3, 0, 13) } else { *self.stream.pick(&ranges) };
                let version = *self.stream.pick(&[min - 1, max + 1, i16::MIN, i16::MAX]);
                frame[..2].copy_from_slice(&key.to_be_bytes());
                frame[2..4].copy_from_slice(&version.to_be_bytes());
                (attack.name, attack.expect) = ("frame: a version that is not served", Expect::Closed);
            }
            2 => {
                // Requests of the Raft quorum and of broker registration are served on a controller listener only.
                let key = *self.stream.pick(&[52_i16, 53, 54, 62, 63]);
                frame[..4].copy_from_slice(&[(key >> 8) as u8, key as u8, 0, 0]);
                (attack.name, attack.expect) = ("frame: a controller's request", Expect::Closed);
            }
            3 => {
                frame.truncate(self.stream.below(frame.len() as u64) as usize);
                (attack.name, attack.expect) = ("frame: cut off", Expect::Closed);
            }
            4 => {
                let extra = self.stream.between(1, 100) as usize;
                frame.put_bytes(self.stream.draw() as u8, extra);
                attack.name = "frame: bytes behind its end";
            }
            5 => {
                // The count of topics, as a varint of four billion.
                frame.truncate(8 + client_id + 1);
                frame.put_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
                frame.put_bytes(0, 50);
                (attack.name, attack.expect) = ("frame: four billion topics", Expect::Closed);
            }
            6 => {
                // Such a count in the encoding without varints.
                frame[2..4].copy_from_slice(&1_i16.to_be_bytes());
                frame.truncate(8 + client_id);
                frame.put_i32(i32::MAX);
                frame.put_bytes(0, 50);
                (attack.name, attack.expect) = ("frame: two billion topics", Expect::Closed);
            }
            7 => {
                frame[8..10].copy_from_slice(&i16::to_be_bytes(*self.stream.pick(&[i16::MAX, -2, i16::MIN])));
                (attack.name, attack.expect) = ("frame: a client id without end", Expect::Closed);
            }
            8 => {
                let len = self.stream.skewed(300) as usize;
                frame.clear();
                (0..len).for_each(|_| frame.put_u8(self.stream.draw() as u8));
                (attack.name, attack.expect) = ("frame: noise", Expect::Anything);
            }
            9 => {
                let place = self.stream.below(frame.len() as u64) as usize;
                frame[place] ^= 1 << self.stream.below(8);
                (attack.name, attack.expect) = ("frame: a bit has flipped", Expect::Anything);
            }
            _ => {
                // KIP-511: the answer is in version 0.
                let request = ApiVersionsRequest::default();
                attack = self.request("api versions: an unknown version", 3, &request, &[35]);
                frame = BytesMut::from(&attack.frame[..]);
                let version = *self.stream.pick(&[-1_i16, 5, 99, i16::MAX]);
                frame[2..4].copy_from_slice(&version.to_be_bytes());
                attack.answer_version = 0;
            }
        }
        attack.frame = frame.freeze();
        attack
    }
}

fn broken_bytes(attacks: &mut Attacks<'_>) -> Bytes {
    broken(attacks.setting.payloads, attacks.setting.client, attacks.setting.wall_ms, attacks.stream).bytes
}

fn fetch_partition(index: i32, offset: i64) -> FetchPartition {
    FetchPartition::default()
        .with_partition(index)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(offset)
        .with_last_fetched_epoch(-1)
        .with_log_start_offset(-1)
        .with_partition_max_bytes(1_000)
}
