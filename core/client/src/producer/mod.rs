//! The producer: records in, acknowledgements out.
//!
//! The records for a partition are collected in a batch. The batch is sent when it is full, when `linger.ms` have
//! passed, or on [`Call::Flush`]. Up to `max.in.flight.requests.per.connection` requests to a broker are in flight. A
//! batch that fails with a temporary error is sent again until `delivery.timeout.ms` have passed.
//!
//! An idempotent producer (KIP-98) gives its batches sequences, so that a retry neither duplicates nor reorders
//! records. If the broker has lost its state of the producer, the producer takes the next epoch and begins with
//! sequence 0 again, as Kafka's does (KIP-360). Unlike Kafka's, it does not send a batch under the next epoch that may
//! be in the log already: that batch fails, so that its records cannot be in the log twice.
//!
//! Unlike Kafka's, this producer never blocks. A record for which `buffer.memory` has no room fails at once (see
//! [`Producer::buffered_bytes`]). A record whose topic is not known yet waits for up to `max.block.ms`. `batch.size`
//! limits the size of a batch before compression.

mod batch;
mod partition;
mod partitioner;
mod sender;
#[cfg(test)]
mod tests;

pub use batch::ProducerRecord;
pub use partition::Identity;
pub use partitioner::{murmur2, partition_of_key};

use super::config::ProducerConfig;
use super::error::{ClientError, is_retriable};
use super::{Client, Cluster, Input, Outbox, TopicMetadata, TopicPartition, earliest};
use batch::{Batch, BatchOrder, Format};
use bytestring::ByteString;
use partition::Partition;
use partitioner::{Candidate, Sticky};
use sender::{IdentityState, Tag};
use std::collections::{BTreeMap, VecDeque};
use tidelog_wire::time::{Mono, Now};
use tidelog_wire::{ApiKey, ErrorCode};

/// What an application asks of a producer.
#[derive(Clone, Debug)]
pub enum Call {
    /// Answered by [`Event::Delivered`] or [`Event::Failed`].
    Send(ProducerRecord),
    /// Sends all records handed in before without waiting for `linger.ms`. [`Event::Flushed`] with this id comes when
    /// all of them are delivered or have failed.
    Flush(u64),
}

/// What a producer tells its application. Records are named by the ids that the application gave them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The record is in a batch of this partition.
    Placed {
        record: u64,
        partition: i32,
    },
    /// The records are in the log, one behind the other, from `base_offset` on. The offset is `None` if the broker did
    /// not tell it: with acks=0, or if it recognised a duplicate but no longer knows its offset.
    Delivered {
        partition: TopicPartition,
        base_offset: Option<i64>,
        /// The time of the append, if the topic has `LogAppendTime`.
        timestamp: Option<i64>,
        records: Vec<u64>,
    },
    /// The records have failed. They may be in the log all the same, unless `error` is a broker's refusal of the first
    /// attempt.
    Failed {
        partition: Option<TopicPartition>,
        records: Vec<u64>,
        error: ClientError,
    },
    /// The broker refused the expected sequence, so it has lost its state of this producer. A batch that it has
    /// certainly not appended is sent again under a new epoch. A batch that it may have appended fails.
    SequenceRefused {
        partition: TopicPartition,
        error: ErrorCode,
    },
    Flushed(u64),
}

#[derive(Debug, Default)]
struct Topic {
    partitions: Vec<Partition>,
    sticky: Sticky,
    /// Records that wait until the metadata of their topic, or of their partition, is known.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    record: ProducerRecord,
    timestamp: i64,
    since: Mono,
}

#[derive(Debug)]
struct Flush {
    id: u64,
    /// The batches with lower numbers belong to this flush.
    up_to: u64,
}

#[derive(Debug)]
pub struct Producer {
    config: ProducerConfig,
    cluster: Cluster<Tag>,
    topics: BTreeMap<ByteString, Topic>,
    identity: IdentityState,
    next_batch: u64,
    buffered_bytes: usize,
    flushes: VecDeque<Flush>,
    /// Counts up with each round of requests. Each round begins with another partition, so that none is always the
    /// last.
    rotation: usize,
    /// When a batch, a waiting record or the identity is due next.
    next_at: Option<Mono>,
    metadata_version: u64,
}

impl Producer {
    pub fn new(config: ProducerConfig, seed: u64) -> Self {
        Self {
            cluster: Cluster::new(config.common.clone(), seed),
            topics: BTreeMap::new(),
            identity: IdentityState::default(),
            next_batch: 0,
            buffered_bytes: 0,
            flushes: VecDeque::new(),
            rotation: 0,
            next_at: None,
            metadata_version: 0,
            config,
        }
    }

    /// What the brokers have last said of a topic that this producer works with.
    pub fn topic(&self, name: &str) -> Option<&TopicMetadata> {
        self.cluster.metadata.topic(name)
    }

    /// How much of `buffer.memory` is used by records that are neither delivered nor failed.
    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// Whether every record that was handed in is delivered or has failed.
    pub fn is_idle(&self) -> bool {
        self.topics.values().all(|topic| topic.waiting.is_empty() && topic.partitions.iter().all(Partition::is_empty))
    }

    /// The producer's id and epoch, once it has them.
    pub fn identity(&self) -> Option<Identity> {
        self.identity.known
    }

    /// Takes a record of the application. Returns whether something may be due now.
    fn accept(&mut self, now: Now, record: ProducerRecord, out: &mut Outbox<Event>) -> bool {
        if let Err(error) = self.check(&record) {
            out.event(Event::Failed { partition: None, records: vec![record.id], error });
            return false;
        }
        self.buffered_bytes += record.size_bytes();
        self.cluster.want_topic(now, &record.topic);
        let timestamp = record.timestamp.unwrap_or(now.wall.0.max(0));
        let name = record.topic.clone();
        let topic = self.topics.entry(name.clone()).or_default();
        let waiting = Waiting { record, timestamp, since: now.mono };
        if topic.waiting.is_empty() {
            match self.append(now, waiting, out) {
                Ok(is_due) => return is_due,
                Err(waiting) => {
                    self.topics.get_mut(&name).expect("the topic was inserted above").waiting.push_back(*waiting)
                }
            }
        } else {
            topic.waiting.push_back(waiting);
        }
        true
    }

    fn check(&self, record: &ProducerRecord) -> Result<(), ClientError> {
        let invalid = |what: String, allowed: String| Err(ClientError::Invalid { what, allowed });
        let size = record.size_bytes() + tidelog_batch::BatchHeader::LEN;
        let max = self.config.max_request_size_bytes;
        if size > max {
            let what = format!("a record of {size} bytes for {}", record.topic);
            return invalid(what, format!("max.request.size = {max} allows no more than {max}"));
        }
        let (buffered, memory) = (self.buffered_bytes, self.config.buffer_memory_bytes);
        if buffered + size > memory {
            let what = format!("a record of {size} bytes for {}, while {buffered} bytes are buffered", record.topic);
            return invalid(what, format!("buffer.memory = {memory} allows no more than {memory} in total"));
        }
        if let Some(partition) = record.partition.filter(|partition| *partition < 0) {
            return invalid(format!("partition {partition} of {}", record.topic), "allowed is 0 or more".into());
        }
        if let Some(timestamp) = record.timestamp.filter(|timestamp| *timestamp < 0) {
            return invalid(format!("timestamp {timestamp} for {}", record.topic), "allowed is 0 or more".into());
        }
        Ok(())
    }

    /// Adds a record to the batch of its partition. Returns whether the batch may be due now. Error: the partition is
    /// not known, and the record is given back.
    fn append(&mut self, now: Now, waiting: Waiting, out: &mut Outbox<Event>) -> Result<bool, Box<Waiting>> {
        let record = &waiting.record;
        let name = &record.topic;
        let Some(count) = self.cluster.metadata.partitions(name) else { return Err(Box::new(waiting)) };
        let topic = self.topics.get_mut(name).expect("a topic that is used is known");
        while topic.partitions.len() < count {
            topic.partitions.push(Partition::default());
        }
        let by_key = record.key.as_ref().filter(|_| !self.config.partitioner_ignore_keys);
        let mut is_sticky = false;
        let partition = match (record.partition, by_key) {
            (Some(partition), _) if partition as usize >= count => {
                // The partition may be new.
                self.cluster.request_update(now.mono);
                return Err(Box::new(waiting));
            }
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of_key(key, count),
            (None, None) => {
                is_sticky = true;
                let adaptive = self.config.partitioner_adaptive;
                let (metadata, partitions) = (&self.cluster.metadata, &topic.partitions);
                let candidates = || {
                    let led = (0..count as i32).filter(|partition| metadata.leader_node(name, *partition).is_some());
                    let waiting =
                        |partition: i32| if adaptive { partitions[partition as usize].queue.len() } else { 0 };
                    led.map(|partition| Candidate { partition, waiting: waiting(partition) }).collect()
                };
                topic.sticky.partition(&mut self.cluster.rng, count, candidates)
            }
        };
        let queue = &mut topic.partitions[partition as usize].queue;
        let size = record.size_bytes();
        let batch_size = self.config.batch_size_bytes;
        let mut is_due = false;
        if !queue.back().is_some_and(|batch| batch.has_room(size, batch_size)) {
            let order = BatchOrder { batch: self.next_batch, first_record: 0 };
            self.next_batch += 1;
            queue.push_back(Batch::new(order, now.mono));
            is_due = true;
        }
        let batch = queue.back_mut().expect("the queue has a batch now");
        batch.push(record, waiting.timestamp);
        is_due |= batch.size_bytes() >= batch_size;
        if is_sticky {
            let batch_is_open = batch.has_room(1, batch_size);
            topic.sticky.count_record(size, batch_size, batch_is_open);
        }
        out.event(Event::Placed { record: record.id, partition });
        Ok(is_due)
    }

    /// Does all that is due.
    fn pump(&mut self, now: Now, out: &mut Outbox<Event>) {
        self.place_waiting(now, out);
        self.expire(now, out);
        self.resolve_sequences();
        self.pump_identity(now, out);
        while self.send_round(now, out) {}
        self.finish_flushes(out);
        self.cluster.pump(now, out);
        self.next_at = self.next_moment(now.mono);
    }

    /// Puts the records that wait for their topic into batches, if there is new metadata. Those that have waited too
    /// long fail.
    fn place_waiting(&mut self, now: Now, out: &mut Outbox<Event>) {
        let is_news = std::mem::replace(&mut self.metadata_version, self.cluster.metadata.version)
            != self.cluster.metadata.version;
        let names: Vec<ByteString> =
            self.topics.iter().filter(|(_, topic)| !topic.waiting.is_empty()).map(|(name, _)| name.clone()).collect();
        for name in names {
            let mut waiting = std::mem::take(&mut self.topics.get_mut(&name).expect("listed above").waiting);
            if is_news {
                let mut left = VecDeque::new();
                for one in waiting {
                    left.extend(self.append(now, one, out).err().map(|one| *one));
                }
                waiting = left;
                for flush in &mut self.flushes {
                    flush.up_to = self.next_batch;
                }
            }
            let error = self.cluster.metadata.topic(&name).map_or(ErrorCode::None, |topic| topic.error);
            let hopeless = error.is_error() && !is_retriable(error);
            let ms = self.config.max_block_ms;
            while let Some(one) = waiting.pop_front_if(|one| hopeless || one.since.plus_ms(ms) <= now.mono) {
                self.buffered_bytes -= one.record.size_bytes();
                let refused = ClientError::refused(ApiKey::Metadata, &name, error.code(), None);
                let error = if hopeless {
                    refused
                } else {
                    let what = match one.record.partition {
                        Some(partition) => format!("the search for partition {partition} of {name}"),
                        None => format!("the search for {name}"),
                    };
                    let last = if error.is_error() {
                        Some(refused.to_string())
                    } else {
                        self.cluster.last_connection_error.clone()
                    };
                    ClientError::TimedOut { what, limit: "max.block.ms", ms, last }
                };
                out.event(Event::Failed { partition: None, records: vec![one.record.id], error });
            }
            self.topics.get_mut(&name).expect("listed above").waiting = waiting;
        }
    }

    /// Gives up the batches that were not delivered within `delivery.timeout.ms`.
    fn expire(&mut self, now: Now, out: &mut Outbox<Event>) {
        let ms = self.config.delivery_timeout_ms;
        for (name, topic) in &mut self.topics {
            for (partition, index) in topic.partitions.iter_mut().zip(0..) {
                let is_over = |batch: &Batch| batch.created_at.plus_ms(ms) <= now.mono;
                let mut over: Vec<Batch> = partition.in_flight.extract_if(.., |batch| is_over(batch)).collect();
                while let Some(batch) = partition.queue.pop_front_if(|batch| is_over(batch)) {
                    over.push(batch);
                }
                for batch in over {
                    partition.leave_unresolved(&batch);
                    self.buffered_bytes -= batch.buffered_bytes;
                    let partition = TopicPartition::new(name.clone(), index);
                    let what = format!("the delivery of {} records to {partition}", batch.records_count());
                    let last = batch.last_error;
                    let error = ClientError::TimedOut { what, limit: "delivery.timeout.ms", ms, last };
                    out.event(Event::Failed { partition: Some(partition), records: batch.record_ids, error });
                }
            }
        }
    }

    fn finish_flushes(&mut self, out: &mut Outbox<Event>) {
        let partitions = || self.topics.values().flat_map(|topic| &topic.partitions);
        while let Some(flush) = self.flushes.front() {
            let oldest = partitions().filter_map(Partition::oldest).min();
            let waits = self.topics.values().any(|topic| !topic.waiting.is_empty());
            if waits || oldest.is_some_and(|oldest| oldest.batch < flush.up_to) {
                return;
            }
            out.event(Event::Flushed(flush.id));
            self.flushes.pop_front();
        }
    }

    fn next_moment(&self, now: Mono) -> Option<Mono> {
        // If the identity is due already, it waits for a connection, not for time.
        let identity = self.identity_moment().filter(|at| self.wants_identity() && *at > now);
        let mut moments = vec![identity];
        for (name, topic) in &self.topics {
            moments.push(topic.waiting.front().map(|one| one.since.plus_ms(self.config.max_block_ms)));
            for (partition, index) in topic.partitions.iter().zip(0..) {
                let ready_at = self.ready_at(name, index, partition);
                // A batch that is ready already waits for something other than time.
                moments.push(ready_at.filter(|ready_at| *ready_at > now));
                let oldest = partition.in_flight.iter().chain(partition.queue.front()).map(|batch| batch.created_at);
                moments.push(oldest.min().map(|created_at| created_at.plus_ms(self.config.delivery_timeout_ms)));
            }
        }
        earliest(moments)
    }

    fn ready_at(&self, topic: &str, index: i32, partition: &Partition) -> Option<Mono> {
        let up_to = self.flushes.back().map_or(0, |flush| flush.up_to);
        let flushing = |batch: &Batch| batch.order.batch < up_to;
        let epoch =
            self.cluster.metadata.leader(topic, index).map_or(tidelog_wire::ids::LeaderEpoch::UNKNOWN, |it| it.epoch);
        partition.ready_at(self.config.linger_ms, flushing, self.config.batch_size_bytes, epoch)
    }

    fn format(&self) -> Format {
        Format { codec: self.config.compression, level: self.config.compression_level }
    }
}

impl Client for Producer {
    type Call = Call;
    type Event = Event;

    fn handle(&mut self, now: Now, input: Input<Call>, out: &mut Outbox<Event>) {
        let mut needs_pump = true;
        match self.cluster.handle(now, input, out) {
            Some(Call::Send(record)) => needs_pump = self.accept(now, record, out),
            Some(Call::Flush(id)) => self.flushes.push_back(Flush { id, up_to: self.next_batch }),
            None => {}
        }
        while let Some(reply) = self.cluster.pop_reply() {
            self.handle_reply(now, reply, out);
        }
        if needs_pump {
            self.pump(now, out);
        }
    }

    fn deadline(&self) -> Option<Mono> {
        earliest([self.next_at, self.cluster.deadline()])
    }
}
