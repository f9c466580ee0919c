//! An application that produces with the product's own producer (`tidelog_client`), which is configured by
//! Kafka's property names and handles retries and new epochs itself. What it tells of each record becomes a fact.

use super::door::Door;
use super::{Client, ClientInput, ClientOutbox, Setting};
use crate::history::{Fact, OpId, PartitionKey, ValueId};
use crate::random::{Stream, stream};
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tidelog_client::producer::{Call, Event, ProducerRecord};
use tidelog_client::{ClientError, Producer, ProducerConfig, TopicPartition, is_retriable};
use tidelog_core::wire::ErrorCode;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplicationPlan {
    pub records: u32,
    /// At most this many records are handed in at once.
    pub burst_max: u32,
    /// The longest pause between two bursts.
    pub gap_ns_max: u64,
    /// The producer's configuration, without `bootstrap.servers` and `client.id`.
    pub properties: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Record {
    topic: usize,
    timestamp: i64,
    made_at: u64,
    is_placed: bool,
}

#[derive(Debug)]
pub struct Application {
    plan: ApplicationPlan,
    setting: Setting,
    door: Door<Producer>,
    stream: Stream,
    acks: i16,
    idempotent: bool,
    made: u32,
    next_at: u64,
    /// Records about which the producer has told neither success nor failure, by their number.
    open: BTreeMap<u64, Record>,
    /// Flushes that are not done, each with the records that it waits for.
    flushes: BTreeMap<u64, BTreeSet<u64>>,
    flushed: u64,
    healed_at: Option<u64>,
}

/// The application hands in no more records while this many have no result.
const OPEN_MAX: usize = 200;

impl Application {
    pub fn new(plan: ApplicationPlan, setting: Setting) -> Self {
        let mut properties = plan.properties.clone();
        properties.insert("bootstrap.servers".into(), setting.bootstrap_servers());
        properties.insert("client.id".into(), format!("application-{}", setting.client));
        let (mut config, _) = ProducerConfig::from_properties(&properties).unwrap_or_else(|errors| {
            panic!("the application's configuration is refused: {}", crate::panics::listed(&errors))
        });
        // Topics may be created automatically only if every topic is to have the broker's defaults.
        config.common.allow_auto_create_topics = setting.topics.iter().all(|topic| topic.auto_created);
        let mut stream = stream(setting.seed, "application", &[setting.client.into()]);
        Self {
            acks: config.acks,
            idempotent: config.enable_idempotence,
            door: Door::new(Producer::new(config, stream.draw())),
            stream,
            made: 0,
            next_at: 0,
            open: BTreeMap::new(),
            flushes: BTreeMap::new(),
            flushed: 0,
            healed_at: None,
            plan,
            setting,
        }
    }

    fn wants_to_make(&self) -> bool {
        self.made < self.plan.records && self.open.len() < OPEN_MAX
    }

    fn make_records(&mut self, now: u64, out: &mut ClientOutbox) {
        while self.wants_to_make() && self.next_at <= now {
            let burst = 1 + self.stream.skewed(u64::from(self.plan.burst_max) - 1) as u32;
            for _ in 0..burst.min(self.plan.records - self.made) {
                self.make_record(now, out);
            }
            if self.stream.one_in(16) {
                self.flushed += 1;
                self.flushes.insert(self.flushed, self.open.keys().copied().collect());
                self.call(now, Call::Flush(self.flushed), out);
            }
            self.next_at = now + self.stream.skewed(self.plan.gap_ns_max);
        }
    }

    fn make_record(&mut self, now: u64, out: &mut ClientOutbox) {
        let id = u64::from(self.made);
        let topic = self.stream.below(self.setting.topics.len() as u64) as usize;
        let plan = &self.setting.topics[topic];
        // Half of the records name their partition. For the others the producer chooses: by the key's hash, or freely
        // if there is no key.
        let partition = self.stream.one_in(2).then(|| self.stream.below(plan.partitions as u64) as i32);
        let timestamp = self.setting.wall(now) - self.stream.skewed(5_000) as i64;
        let content = self.setting.payloads.content(ValueId::new(self.setting.client, self.made));
        let record = ProducerRecord {
            id,
            topic: plan.name.as_str().into(),
            partition,
            timestamp: Some(timestamp),
            key: content.key,
            value: Some(content.value),
            headers: content.headers.into_iter().map(|(name, value)| (ByteString::from(name), value)).collect(),
        };
        self.made += 1;
        self.open.insert(id, Record { topic, timestamp, made_at: now, is_placed: false });
        self.call(now, Call::Send(record), out);
    }

    fn call(&mut self, now: u64, call: Call, out: &mut ClientOutbox) {
        let events = self.door.call(now, call, &self.setting, out);
        self.take(events, out);
    }

    fn take(&mut self, events: Vec<Event>, out: &mut ClientOutbox) {
        for event in events {
            match event {
                Event::Placed { record, partition } => self.placed(record, partition, out),
                Event::Delivered { base_offset, timestamp, records, .. } => {
                    self.delivered(base_offset, timestamp, &records, out);
                }
                Event::Failed { records, error, .. } => self.failed(&records, &error, out),
                Event::SequenceRefused { partition, error } => {
                    out.fact(Fact::SequenceRefused { partition: self.key(&partition), error: error.code() });
                }
                Event::Flushed(id) => {
                    let covered = self.flushes.remove(&id).unwrap_or_default();
                    if let Some(open) = covered.iter().find(|id| self.open.contains_key(id)) {
                        out.misbehaved(format!("flush {id} is over, and record {open} is not settled"));
                    }
                }
            }
        }
    }

    fn key(&self, partition: &TopicPartition) -> PartitionKey {
        let topic = self.setting.topics.iter().position(|plan| plan.name == *partition.topic);
        let topic = topic.expect("only topics of the scenario are used") as u16;
        PartitionKey { topic, index: partition.partition }
    }

    fn op(&self, record: u64) -> OpId {
        OpId(u64::from(self.setting.client) << 32 | record)
    }

    fn placed(&mut self, id: u64, index: i32, out: &mut ClientOutbox) {
        let op = self.op(id);
        let Some(record) = self.open.get_mut(&id).filter(|record| !record.is_placed) else {
            return out.misbehaved(format!("record {id} was placed twice, or after it was settled"));
        };
        record.is_placed = true;
        let partition = PartitionKey { topic: record.topic as u16, index };
        out.fact(Fact::Sent {
            op,
            partition,
            values: vec![ValueId::new(self.setting.client, id as u32)],
            timestamps: vec![record.timestamp],
            acks: self.acks,
            idempotent: self.idempotent,
        });
    }

    fn delivered(&mut self, base: Option<i64>, append_time: Option<i64>, records: &[u64], out: &mut ClientOutbox) {
        // A duplicate is answered with the greatest timestamp of its batch.
        let greatest = records.iter().filter_map(|id| self.open.get(id)).map(|record| record.timestamp).max();
        let may_be_duplicate = self.idempotent && append_time == greatest;
        for (id, delta) in records.iter().zip(0..) {
            let op = self.op(*id);
            let Some(record) = self.open.remove(id) else {
                out.misbehaved(format!("record {id} was settled twice"));
                continue;
            };
            if append_time.is_some() && !may_be_duplicate && !self.setting.topics[record.topic].is_log_append_time() {
                out.misbehaved(format!("record {id} of its creation's time has the append's time {append_time:?}"));
            }
            let base_offset = base.map(|base| base + delta);
            out.fact(self.setting.acknowledged(record.topic as u16, self.acks, op, base_offset));
        }
    }

    fn failed(&mut self, records: &[u64], error: &ClientError, out: &mut ClientOutbox) {
        // CORRUPT_MESSAGE (2) counts as retriable, but the network here damages nothing.
        let is_excused = match error {
            ClientError::Refused { error: ErrorCode::UnknownServerError, .. } | ClientError::TimedOut { .. } => true,
            // The record may be in the log already. Whether the broker had a reason to refuse is judged by
            // `Fact::SequenceRefused`.
            ClientError::Refused {
                error: ErrorCode::OutOfOrderSequenceNumber | ErrorCode::UnknownProducerId, ..
            } => true,
            ClientError::Refused { error, .. } => is_retriable(*error) && *error != ErrorCode::CorruptMessage,
            _ => false,
        };
        if !is_excused {
            out.misbehaved(format!("records {records:?} have failed: {error}"));
        }
        for id in records {
            let op = self.op(*id);
            let Some(record) = self.open.remove(id) else {
                out.misbehaved(format!("record {id} was settled twice"));
                continue;
            };
            if self.healed_at.is_some_and(|healed_at| record.made_at > healed_at) {
                out.misbehaved(format!("record {id} has failed though nothing fails any more: {error}"));
            }
            if record.is_placed {
                out.fact(Fact::Unknown { op });
            }
        }
    }
}

impl Client for Application {
    fn handle(&mut self, now: u64, input: ClientInput, out: &mut ClientOutbox) {
        if matches!(input, ClientInput::Healed) {
            self.healed_at = Some(now);
        }
        let events = self.door.handle(now, input, &self.setting, out);
        self.take(events, out);
        self.make_records(now, out);
    }

    fn deadline(&self) -> Option<u64> {
        let next = self.wants_to_make().then_some(self.next_at);
        [self.door.deadline(), next].into_iter().flatten().min()
    }

    fn pending(&self) -> Option<String> {
        let (made, all, open) = (self.made, self.plan.records, self.open.len());
        let flushes = self.flushes.len();
        (made < all || open > 0 || flushes > 0)
            .then(|| format!("{made} of {all} records made, {open} not settled, {flushes} flushes not over"))
    }

    fn role(&self) -> &'static str {
        "application"
    }
}
