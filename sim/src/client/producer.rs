//! A producer. It sends batches of unique values, with several requests in flight. A batch that is sent again keeps its
//! sequence.

use super::records::{Codec, Identity};
use super::session::{Answer, SessionEvent};
use super::sessions::{Host, Sessions};
use super::topics::{TOPICS_TAG, Topics, topic_name};
use super::{Client, ClientInput, ClientOutbox, Setting};
use crate::history::{Fact, OpId, PartitionKey, ValueId};
use crate::random::{Stream, stream};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    BrokerId, InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, ProducerId,
};
use kafka_protocol::protocol::Request;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProducerPlan {
    pub idempotent: bool,
    /// 0, 1 or -1 (all).
    pub acks: i16,
    pub batches: u32,
    pub batch_records_max: u32,
    /// The longest pause between two batches.
    pub gap_ns_max: u64,
    pub requests_in_flight_max: u32,
    /// One request has batches for at most this many partitions.
    pub partitions_per_request_max: u32,
    pub codec: Codec,
    /// The `timeout.ms` of requests: how long the broker may wait until the records are stable. The client waits longer
    /// for the answer.
    #[serde(default = "patient")]
    pub timeout_ms: i32,
}

/// The timeout of a producer whose file has none.
fn patient() -> i32 {
    5_000
}

#[derive(Debug)]
struct Batch {
    op: OpId,
    values: Vec<ValueId>,
    timestamps: Vec<i64>,
    /// The encoded batch, made when it is first sent. It has the batch's sequence, which never changes afterwards.
    encoded: Option<Bytes>,
}

/// The batches of one partition that are to be sent. Those in `failed` have lower sequences than those in `waiting`.
#[derive(Debug)]
struct Queue {
    key: PartitionKey,
    waiting: VecDeque<Batch>,
    failed: Vec<Batch>,
    in_flight: BTreeSet<OpId>,
    next_sequence: i32,
}

#[derive(Debug)]
pub struct Producer {
    plan: ProducerPlan,
    setting: Setting,
    sessions: Sessions,
    topics: Topics,
    stream: Stream,
    queues: Vec<Queue>,
    identity: Option<Identity>,
    /// The node that was asked for an identity and has not answered.
    identity_asked: Option<Host>,
    /// A broker has refused the identity. A new one is asked for when no request is in flight any more.
    resetting: bool,
    /// Requests in flight, by their tags: to whom, and the batches with the places of their queues.
    in_flight: BTreeMap<u64, (Host, Vec<(usize, Batch)>)>,
    next_tag: u64,
    next_batch_at: u64,
    retry_at: u64,
    now: u64,
    batches_made: u32,
    values_made: u32,
    healed: bool,
}

/// So many batches may wait at most; no more are made while there is no connection.
const BACKLOG_MAX: usize = 20;
const RETRY_NS: u64 = 30_000_000;
/// The timeout after everything was healed. A drawn timeout may be too short for a slow disk, so that no batch would
/// ever be acknowledged.
const HEALED_TIMEOUT_MS: i32 = 5_000;
const NOT_LEADER_OR_FOLLOWER: i16 = 6;
const IDENTITY_TAG: u64 = u64::MAX - 1;

impl Producer {
    pub fn new(plan: ProducerPlan, setting: Setting) -> Self {
        let mut queues = Vec::new();
        for (topic, topic_plan) in setting.topics.iter().enumerate() {
            for index in 0..topic_plan.partitions {
                let key = PartitionKey { topic: topic as u16, index };
                queues.push(Queue {
                    key,
                    waiting: VecDeque::new(),
                    failed: Vec::new(),
                    in_flight: BTreeSet::new(),
                    next_sequence: 0,
                });
            }
        }
        Self {
            sessions: Sessions::new(&setting),
            topics: Topics::new(setting.topics.len()),
            stream: stream(setting.seed, "producer", &[setting.client.into()]),
            queues,
            identity: None,
            identity_asked: None,
            resetting: false,
            in_flight: BTreeMap::new(),
            next_tag: 0,
            next_batch_at: 0,
            retry_at: 0,
            now: 0,
            healed: false,
            batches_made: 0,
            values_made: 0,
            plan,
            setting,
        }
    }

    fn backlog(&self) -> usize {
        self.queues.iter().map(|queue| queue.waiting.len() + queue.failed.len()).sum()
    }

    fn make_batches(&mut self, now: u64, out: &mut ClientOutbox) {
        while self.batches_made < self.plan.batches && self.next_batch_at <= now && self.backlog() < BACKLOG_MAX {
            let place = self.stream.below(self.queues.len() as u64) as usize;
            let records = 1 + self.stream.skewed(u64::from(self.plan.batch_records_max) - 1) as u32;
            let values: Vec<ValueId> =
                (0..records).map(|n| ValueId::new(self.setting.client, self.values_made + n)).collect();
            self.values_made += records;
            let wall = self.setting.wall(now);
            let topic = usize::from(self.queues[place].key.topic);
            let timestamps: Vec<i64> = if self.setting.topics[topic].without_timestamps {
                vec![-1; values.len()]
            } else {
                // Timestamps are up to five seconds old and in no order, like those of real clients.
                values.iter().map(|_| wall - self.stream.skewed(5_000) as i64).collect()
            };
            let op = OpId(u64::from(self.setting.client) << 32 | u64::from(self.batches_made));
            self.batches_made += 1;
            self.next_batch_at = now + self.stream.skewed(self.plan.gap_ns_max);
            out.fact(Fact::Sent {
                op,
                partition: self.queues[place].key,
                values: values.clone(),
                timestamps: timestamps.clone(),
                acks: self.plan.acks,
                idempotent: self.plan.idempotent,
            });
            self.queues[place].waiting.push_back(Batch { op, values, timestamps, encoded: None });
        }
    }

    fn pump(&mut self, now: u64, out: &mut ClientOutbox) {
        self.make_batches(now, out);
        let Some(any) = self.sessions.any() else { return };
        self.topics.pump(now, &self.setting, &mut self.sessions, out);
        if !self.topics.is_ready() || now < self.retry_at {
            return;
        }
        if self.plan.idempotent && self.identity.is_none() {
            if self.identity_asked.is_none() && self.in_flight.is_empty() {
                self.identity_asked = Some(any);
                let request = InitProducerIdRequest::default()
                    .with_transactional_id(None)
                    .with_transaction_timeout_ms(60_000)
                    .with_producer_id(ProducerId(-1))
                    .with_producer_epoch(-1);
                self.sessions.send(now, any, &request, IDENTITY_TAG, out);
            }
            return;
        }
        while !self.resetting && self.send_one(now, out) {}
    }

    /// Whether a node, to which requests can be sent, may get one more.
    fn is_open(&self, host: Host) -> bool {
        let in_flight = self.in_flight.values().filter(|(to, _)| *to == host).count();
        in_flight < self.plan.requests_in_flight_max as usize
    }

    /// Sends the next request, if any partition has something for it. All its partitions have the same leader.
    fn send_one(&mut self, now: u64, out: &mut ClientOutbox) -> bool {
        if !self.sessions.ready().any(|host| self.is_open(host)) {
            return false;
        }
        let most = 1 + self.stream.below(u64::from(self.plan.partitions_per_request_max)) as usize;
        let first = self.stream.below(self.queues.len() as u64) as usize;
        let mut batches = Vec::new();
        let mut to = None;
        let count = self.queues.len();
        for place in (0..count).map(|n| (first + n) % count) {
            let queue = &self.queues[place];
            if batches.len() == most || !queue.failed.is_empty() || queue.waiting.is_empty() {
                continue;
            }
            let Some(leader) = self.topics.ready_leader(queue.key, &self.sessions) else { continue };
            if to.is_some_and(|to| to != leader) || !self.is_open(leader) {
                continue;
            }
            let queue = &mut self.queues[place];
            let mut batch = queue.waiting.pop_front().expect("one waits");
            if batch.encoded.is_none() {
                let identity = self.identity.map(|identity| (identity, queue.next_sequence));
                queue.next_sequence = queue.next_sequence.wrapping_add(batch.values.len() as i32);
                let payloads = self.setting.payloads;
                batch.encoded = Some(payloads.encode(&batch.values, &batch.timestamps, self.plan.codec, identity));
            }
            queue.in_flight.insert(batch.op);
            to = Some(leader);
            batches.push((place, batch));
        }
        let Some(to) = to else { return false };
        let request = self.request(to, &batches);
        if self.plan.acks == 0 {
            self.sessions.send_without_answer(now, to, &request, out);
            for (place, batch) in batches {
                self.queues[place].in_flight.remove(&batch.op);
                out.fact(Fact::Unknown { op: batch.op });
            }
        } else {
            self.next_tag += 1;
            self.sessions.send(now, to, &request, self.next_tag, out);
            self.in_flight.insert(self.next_tag, (to, batches));
        }
        true
    }

    fn request(&self, to: Host, batches: &[(usize, Batch)]) -> ProduceRequest {
        let by_id = self.sessions.version::<ProduceRequest>(to).is_some_and(|version| version >= 13);
        let mut topics: BTreeMap<u16, Vec<PartitionProduceData>> = BTreeMap::new();
        for (place, batch) in batches {
            let key = self.queues[*place].key;
            let data = PartitionProduceData::default().with_index(key.index).with_records(batch.encoded.clone());
            topics.entry(key.topic).or_default().push(data);
        }
        let topic = |(topic, partitions): (u16, Vec<PartitionProduceData>)| {
            let data = TopicProduceData::default().with_partition_data(partitions);
            if by_id {
                data.with_topic_id(self.topics.id(topic.into()).expect("the topics are known"))
            } else {
                data.with_name(topic_name(&self.setting.topics[usize::from(topic)].name))
            }
        };
        ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(self.plan.acks)
            .with_timeout_ms(if self.healed { HEALED_TIMEOUT_MS } else { self.plan.timeout_ms })
            .with_topic_data(topics.into_iter().map(topic).collect())
    }

    fn handle_answer(&mut self, now: u64, answer: Answer, out: &mut ClientOutbox) {
        match (answer.tag, answer.key) {
            (TOPICS_TAG, _) => self.topics.handle(now, &self.setting, &mut self.sessions, answer, out),
            (_, InitProducerIdRequest::KEY) => self.handle_identity(now, answer, out),
            (_, ProduceRequest::KEY) => self.handle_produced(now, answer, out),
            (_, key) => unreachable!("a producer sends no request of key {key}"),
        }
    }

    fn handle_identity(&mut self, now: u64, answer: Answer, out: &mut ClientOutbox) {
        self.identity_asked = None;
        let Some(response) = answer.decode::<InitProducerIdResponse>(out) else { return };
        if response.error_code == 0 {
            let identity = Identity { producer_id: response.producer_id.0, epoch: response.producer_epoch };
            if identity.producer_id < 0 || identity.epoch < 0 {
                out.misbehaved(format!("InitProducerId gave {identity:?}"));
            }
            out.fact(Fact::ProducerId { id: identity.producer_id });
            self.identity = Some(identity);
            return;
        }
        self.retry_at = now + RETRY_NS;
        // 14, 15, 16, 41: no coordinator, or none that is ready. 7, 51, 56: the broker could not carry it out now.
        if ![14, 15, 16, 41, 7, 51, 56, -1].contains(&response.error_code) {
            out.misbehaved(format!("InitProducerId was answered with {}", response.error_code));
        }
    }

    fn handle_produced(&mut self, now: u64, answer: Answer, out: &mut ClientOutbox) {
        let (version, told) = (answer.version, (self.sessions.node(answer.host), answer.sent_at));
        let by_id = version >= 13;
        let (_, mut batches) = self.in_flight.remove(&answer.tag).expect("an answer belongs to a request");
        // An answer that does not decode is told as a fact, and every batch counts as failed.
        let response = answer.decode::<ProduceResponse>(out).unwrap_or_default();
        let endpoints: Vec<BrokerId> = response.node_endpoints.iter().map(|endpoint| endpoint.node_id).collect();
        for topic in response.responses {
            let place = if by_id {
                self.topics.place_of_id(topic.topic_id)
            } else {
                self.setting.topics.iter().position(|plan| plan.name == topic.name.0.as_str())
            };
            for partition in topic.partition_responses {
                let found = batches.iter().position(|(queue, _)| {
                    let key = self.queues[*queue].key;
                    Some(usize::from(key.topic)) == place && key.index == partition.index
                });
                match found {
                    Some(found) => {
                        let (queue, batch) = batches.swap_remove(found);
                        if version >= 10 && partition.error_code == NOT_LEADER_OR_FOLLOWER {
                            let (leader, key) = (&partition.current_leader, self.queues[queue].key);
                            let leader = (leader.leader_id, leader.leader_epoch);
                            self.topics.told_leader(key, told, leader, &endpoints, out);
                        }
                        self.handle_partition(now, queue, batch, &partition, out);
                    }
                    None => out.misbehaved(format!("a Produce response tells of partition {}", partition.index)),
                }
            }
        }
        for (place, batch) in batches {
            // If a topic's id is not known any more, its answer could not be matched above, and nothing is wrong.
            if self.topics.is_ready() {
                out.misbehaved(format!("a Produce response says nothing of {}", self.queues[place].key));
            }
            self.fail(place, batch);
        }
    }

    fn handle_partition(
        &mut self,
        now: u64,
        place: usize,
        batch: Batch,
        answer: &PartitionProduceResponse,
        out: &mut ClientOutbox,
    ) {
        let op = batch.op;
        let key = self.queues[place].key;
        let earlier_is_open = {
            let queue = &self.queues[place];
            !queue.failed.is_empty() || queue.in_flight.first().is_some_and(|first| *first < op)
        };
        if answer.error_code != 0 {
            let error = answer.error_code;
            out.fact(Fact::Refused { partition: key, api_key: ProduceRequest::KEY, error });
        }
        match answer.error_code {
            0 => {
                self.queues[place].in_flight.remove(&op);
                out.fact(self.setting.acknowledged(key.topic, self.plan.acks, op, Some(answer.base_offset)));
            }
            // DUPLICATE_SEQUENCE_NUMBER: it is in the log, and the broker has forgotten where.
            46 => {
                self.queues[place].in_flight.remove(&op);
                out.fact(self.setting.acknowledged(key.topic, self.plan.acks, op, None));
            }
            // OUT_OF_ORDER_SEQUENCE_NUMBER while an earlier batch has failed or has no answer: this one is sent again
            // after it.
            45 if earlier_is_open => self.fail(place, batch),
            // INVALID_PRODUCER_EPOCH, UNKNOWN_PRODUCER_ID.
            error @ (45 | 47 | 59) => {
                out.fact(Fact::SequenceRefused { partition: key, error });
                self.fail(place, batch);
                self.resetting = true;
            }
            error => {
                let retriable = ResponseError::try_from_code(error).is_some_and(|error| error.is_retriable());
                // CORRUPT_MESSAGE (2) counts as retriable, but the network here damages nothing.
                if !retriable && error != -1 || error == 2 {
                    let text = answer.error_message.clone().unwrap_or_default();
                    out.misbehaved(format!("Produce to {key} was answered with {error}: {text}"));
                }
                // NOT_LEADER_OR_FOLLOWER, among others: somebody else may lead it now.
                if [3, NOT_LEADER_OR_FOLLOWER, 100].contains(&error) {
                    self.topics.forget(key.topic.into(), now);
                }
                self.retry_at = now + RETRY_NS;
                self.fail(place, batch);
            }
        }
    }

    fn fail(&mut self, place: usize, batch: Batch) {
        let queue = &mut self.queues[place];
        queue.in_flight.remove(&batch.op);
        queue.failed.push(batch);
    }

    /// Puts failed batches back to the head of their queues once nothing of their partition is in flight.
    fn requeue(&mut self, out: &mut ClientOutbox) {
        if self.resetting && self.in_flight.is_empty() {
            self.reset(out);
        }
        for queue in &mut self.queues {
            if queue.in_flight.is_empty() && !queue.failed.is_empty() {
                queue.failed.sort_by_key(|batch| batch.op);
                for batch in queue.failed.drain(..).rev() {
                    queue.waiting.push_front(batch);
                }
            }
        }
    }

    /// Gives the identity up. It will never be known whether batches were appended that were sent under it and have no
    /// acknowledgement.
    fn reset(&mut self, out: &mut ClientOutbox) {
        self.resetting = false;
        self.identity = None;
        for queue in &mut self.queues {
            let gone_out = |batch: &Batch| batch.encoded.is_some();
            for batch in queue.failed.drain(..) {
                out.fact(Fact::Unknown { op: batch.op });
            }
            for batch in queue.waiting.iter().filter(|batch| gone_out(batch)) {
                out.fact(Fact::Unknown { op: batch.op });
            }
            queue.waiting.retain(|batch| !gone_out(batch));
            queue.next_sequence = 0;
        }
    }

    fn lose(&mut self, now: u64, host: Host, out: &mut ClientOutbox) {
        self.topics.lost(host, now);
        self.identity_asked = self.identity_asked.filter(|asked| *asked != host);
        let lost: Vec<_> = self.in_flight.extract_if(.., |_, (to, _)| *to == host).collect();
        for (place, batch) in lost.into_iter().flat_map(|(_, (_, batches))| batches) {
            self.fail(place, batch);
        }
        self.requeue(out);
    }
}

impl Client for Producer {
    fn handle(&mut self, now: u64, input: ClientInput, out: &mut ClientOutbox) {
        self.healed |= matches!(input, ClientInput::Healed);
        for event in self.sessions.handle(now, input, out) {
            match event {
                SessionEvent::Response(answer) => self.handle_answer(now, answer, out),
                SessionEvent::Lost(host) => self.lose(now, host, out),
                SessionEvent::Ready | SessionEvent::Unreachable(_) => {}
            }
        }
        self.requeue(out);
        self.now = now;
        self.pump(now, out);
    }

    fn deadline(&self) -> Option<u64> {
        let next_batch =
            (self.batches_made < self.plan.batches && self.backlog() < BACKLOG_MAX).then_some(self.next_batch_at);
        let is_ready = self.sessions.any().is_some();
        let retry = (is_ready && self.retry_at > self.now).then_some(self.retry_at);
        let topics = self.topics.deadline().filter(|_| is_ready);
        [self.sessions.deadline(), next_batch, retry, topics].into_iter().flatten().min()
    }

    fn pending(&self) -> Option<String> {
        let (made, all) = (self.batches_made, self.plan.batches);
        let in_flight: usize = self.in_flight.values().map(|(_, batches)| batches.len()).sum();
        let waits = self.backlog();
        (made < all || in_flight > 0 || waits > 0)
            .then(|| format!("{made} of {all} batches made, {waits} wait, {in_flight} in flight"))
    }

    fn role(&self) -> &'static str {
        "producer"
    }
}
