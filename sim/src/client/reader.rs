//! An application that reads with the product's own consumer (`tidelog_core::client`): every partition from its start,
//! with pauses, seeks, and polls that come late, so that records wait in the consumer.

use super::door::{ADDRESS, Door};
use super::{Client, ClientInput, ClientOutbox, Setting};
use crate::history::{Fact, PartitionKey, ReadRecord};
use crate::random::{Stream, stream};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidelog_core::client::consumer::{Call, Event, Polled, Start};
use tidelog_core::client::{ClientError, Consumer, ConsumerConfig, OffsetSpec, TopicPartition};
use tidelog_core::wire::ErrorCode;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderPlan {
    /// The longest pause between two polls.
    pub gap_ns_max: u64,
    /// The consumer's configuration beside its bootstrap server.
    pub properties: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    NotYet,
    /// The ends of the logs are being looked up.
    Asked,
    /// Until every position has reached its log's end.
    Reading,
    Done,
}

#[derive(Debug)]
pub struct Reader {
    plan: ReaderPlan,
    setting: Setting,
    door: Door<Consumer>,
    stream: Stream,
    partitions: Vec<TopicPartition>,
    /// Where the application stands, by its own account.
    positions: BTreeMap<TopicPartition, i64>,
    ends: BTreeMap<TopicPartition, i64>,
    ends_asked_at: u64,
    /// What could not be read, and when it is tried again.
    broken: BTreeMap<TopicPartition, u64>,
    assigned: bool,
    polling: bool,
    next_at: u64,
    /// Nothing is left waiting in the consumer any more: from now on fetches are judged by when they are answered.
    is_prompt: bool,
    finish: Finish,
}

const RETRY_NS: u64 = 30_000_000;
/// A relaxed topic that loses its end with the power has another.
const ENDS_AGAIN_NS: u64 = 5_000_000_000;

impl Reader {
    pub fn new(plan: ReaderPlan, setting: Setting) -> Self {
        let mut properties = plan.properties.clone();
        properties.insert("bootstrap.servers".into(), ADDRESS.into());
        properties.insert("client.id".into(), format!("reader-{}", setting.client));
        properties.insert("auto.offset.reset".into(), "earliest".into());
        let (mut config, _) = ConsumerConfig::from_properties(&properties)
            .unwrap_or_else(|errors| panic!("the reader's configuration is refused: {errors:?}"));
        // Only what the broker's defaults suit may be created by the way.
        config.common.allow_auto_create_topics = setting.topics.iter().all(|topic| topic.auto_created);
        let mut stream = stream(setting.seed, "reader", &[setting.client.into()]);
        let of_topic = |topic: &super::TopicPlan| {
            let name = topic.name.clone();
            (0..topic.partitions).map(move |index| TopicPartition::new(name.clone(), index))
        };
        Self {
            door: Door::new(Consumer::new(config, stream.draw())),
            partitions: setting.topics.iter().flat_map(of_topic).collect(),
            stream,
            positions: BTreeMap::new(),
            ends: BTreeMap::new(),
            ends_asked_at: 0,
            broken: BTreeMap::new(),
            assigned: false,
            polling: false,
            next_at: 0,
            is_prompt: false,
            finish: Finish::NotYet,
            plan,
            setting,
        }
    }

    fn call(&mut self, now: u64, call: Call, out: &mut ClientOutbox) {
        let events = self.door.call(now, call, &self.setting, out);
        self.take(now, events, out);
    }

    fn work(&mut self, now: u64, out: &mut ClientOutbox) {
        if !self.assigned {
            self.assigned = true;
            let mut all = Vec::new();
            for partition in self.partitions.clone() {
                let start = match self.stream.below(3) {
                    0 => Start::Default,
                    1 => Start::Earliest,
                    _ => {
                        self.positions.insert(partition.clone(), 0);
                        Start::Offset { offset: 0, epoch: None }
                    }
                };
                all.push((partition, start));
            }
            self.call(now, Call::Assign(all), out);
        }
        if self.ends_again().is_some_and(|at| at <= now) {
            self.ask_for_ends(now, out);
        }
        let due: Vec<TopicPartition> =
            self.broken.iter().filter(|(_, at)| **at <= now).map(|(partition, _)| partition.clone()).collect();
        for partition in due {
            self.broken.remove(&partition);
            let start = match self.positions.get(&partition) {
                Some(offset) => Start::Offset { offset: *offset, epoch: None },
                None => Start::Earliest,
            };
            self.call(now, Call::Seek(partition, start), out);
        }
        if self.polling || now < self.next_at || self.finish == Finish::Done {
            return;
        }
        if !self.is_prompt {
            self.meddle(now, out);
        }
        self.polling = true;
        self.call(now, Call::Poll, out);
    }

    /// What applications do now and then.
    fn meddle(&mut self, now: u64, out: &mut ClientOutbox) {
        let partition = self.stream.pick(&self.partitions).clone();
        match self.stream.below(24) {
            0 => self.call(now, Call::Pause(vec![partition]), out),
            1 | 2 => self.call(now, Call::Resume(self.partitions.clone()), out),
            3 => {
                self.positions.remove(&partition);
                self.call(now, Call::Seek(partition, Start::Earliest), out);
            }
            4 => {
                if let Some(position) = self.positions.get_mut(&partition) {
                    *position = self.stream.below(*position as u64 + 1) as i64;
                    let start = Start::Offset { offset: *position, epoch: None };
                    self.call(now, Call::Seek(partition, start), out);
                }
            }
            _ => {}
        }
    }

    fn key(&self, partition: &TopicPartition) -> PartitionKey {
        let topic = self.setting.topics.iter().position(|plan| plan.name == *partition.topic);
        let topic = topic.expect("only topics of the scenario are used") as u16;
        PartitionKey { node: self.setting.node, topic, index: partition.partition }
    }

    fn is_relaxed(&self, partition: &TopicPartition) -> bool {
        self.setting.topics[usize::from(self.key(partition).topic)].is_relaxed()
    }

    fn take(&mut self, now: u64, events: Vec<Event>, out: &mut ClientOutbox) {
        for event in events {
            match event {
                Event::Records(polled) => {
                    self.polling = false;
                    let gap = if self.is_prompt { 0 } else { self.plan.gap_ns_max };
                    self.next_at = now + self.stream.skewed(gap);
                    for polled in polled {
                        self.read(polled, out);
                    }
                }
                Event::Reset { partition, position } => {
                    self.positions.insert(partition, position);
                }
                Event::OutOfRange { partition, .. } => {
                    self.positions.remove(&partition);
                }
                Event::Truncated { partition, position, diverged } => {
                    if !self.is_relaxed(&partition) {
                        out.misbehaved(format!("{partition} was read up to {position} and is cut at {diverged:?}"));
                    }
                    match diverged {
                        Some(diverged) => self.positions.insert(partition, diverged),
                        None => self.positions.remove(&partition),
                    };
                }
                Event::Failed { partition, error } => self.failed(now, partition, &error, out),
                Event::Offsets { found, .. } => {
                    let found: Option<BTreeMap<TopicPartition, i64>> =
                        found.into_iter().map(|(partition, result)| Some((partition, result.ok()?.offset?))).collect();
                    match found {
                        Some(ends) => {
                            self.ends = ends;
                            self.finish = Finish::Reading;
                        }
                        None => self.ask_for_ends(now, out),
                    }
                }
            }
        }
        let open = self.open();
        if self.finish == Finish::Reading && open.is_none() {
            self.finish = Finish::Done;
        }
    }

    /// Only bytes that were damaged are an excuse, and then only for as long as they are.
    fn failed(&mut self, now: u64, partition: TopicPartition, error: &ClientError, out: &mut ClientOutbox) {
        let is_damage =
            matches!(error, ClientError::Malformed { .. }) || error.code() == Some(ErrorCode::CorruptMessage);
        if is_damage {
            // It may have waited here since before it was repaired.
            let (key, text) = (self.key(&partition), error.to_string());
            out.fact(Fact::Corrupt { partition: key, asked_at: 0, text });
        } else {
            out.misbehaved(format!("{partition} cannot be read: {error}"));
        }
        self.broken.insert(partition, now + RETRY_NS);
    }

    fn ask_for_ends(&mut self, now: u64, out: &mut ClientOutbox) {
        self.finish = Finish::Asked;
        self.ends_asked_at = now;
        let partitions = self.partitions.iter().map(|partition| (partition.clone(), OffsetSpec::Latest)).collect();
        self.call(now, Call::FindOffsets { id: now, partitions }, out);
    }

    fn ends_again(&self) -> Option<u64> {
        let relaxed = self.finish == Finish::Reading && self.open().is_some_and(|open| self.is_relaxed(open));
        relaxed.then_some(self.ends_asked_at + ENDS_AGAIN_NS)
    }

    /// A partition that is not read to its end.
    fn open(&self) -> Option<&TopicPartition> {
        self.ends
            .iter()
            .find(|(partition, end)| self.positions.get(partition) < Some(end))
            .map(|(partition, _)| partition)
    }

    fn read(&mut self, polled: Polled, out: &mut ClientOutbox) {
        let Polled { partition, from, position, records, high_watermark, asked_at, .. } = polled;
        let expected = self.positions.insert(partition.clone(), position);
        if expected.is_some_and(|expected| expected != from) {
            out.misbehaved(format!("{partition} goes on at {from}, and {expected:?} was due"));
        }
        let mut read = Vec::new();
        for record in &records {
            match self.setting.payloads.value_of(record) {
                Ok(value) => read.push(ReadRecord {
                    offset: record.offset.0,
                    value,
                    timestamp: record.timestamp,
                    batch_bytes: 0,
                    leader_epoch: -1,
                }),
                Err(text) => out.misbehaved(format!("{partition}: {text}")),
            }
        }
        // Records may have waited here while a node lost its page cache, and starts while it was restarted.
        if !self.is_relaxed(&partition) {
            let partition = self.key(&partition);
            let (asked_at, log_start) = (asked_at.0, -1);
            out.fact(Fact::Fetched {
                partition,
                asked_at,
                from,
                high_watermark,
                log_start,
                records: read,
                last: false,
            });
        }
    }
}

impl Client for Reader {
    fn handle(&mut self, now: u64, input: ClientInput, out: &mut ClientOutbox) {
        let (is_healed, is_finish) = (matches!(input, ClientInput::Healed), matches!(input, ClientInput::Finish));
        let events = self.door.handle(now, input, &self.setting, out);
        self.take(now, events, out);
        if is_healed {
            self.is_prompt = true;
            self.next_at = now;
            self.call(now, Call::Resume(self.partitions.clone()), out);
        }
        if is_finish {
            self.ask_for_ends(now, out);
        }
        self.work(now, out);
    }

    fn deadline(&self) -> Option<u64> {
        let next = (!self.polling && self.finish != Finish::Done).then_some(self.next_at);
        let broken = self.broken.values().min().copied();
        [self.door.deadline(), next, broken, self.ends_again()].into_iter().flatten().min()
    }

    fn pending(&self) -> Option<String> {
        match self.finish {
            Finish::NotYet | Finish::Done => None,
            Finish::Asked => Some("the ends of the logs are not known".into()),
            Finish::Reading => self.open().map(|partition| {
                let (position, end) = (self.positions.get(partition), self.ends[partition]);
                format!("{partition} is read up to {position:?} of {end}")
            }),
        }
    }

    fn role(&self) -> &'static str {
        "reader"
    }
}
