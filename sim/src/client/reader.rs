//! An application that reads with the product's own consumer (`tidelog_client`). It reads every partition from
//! its start. It pauses, seeks, and polls late, so that records that
//! were fetched stay in the consumer's buffer for a while.

use super::door::Door;
use super::{Client, ClientInput, ClientOutbox, Setting};
use crate::history::{Fact, PartitionKey, ReadRecord};
use crate::random::{Stream, stream};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidelog_client::consumer::{Call, Event, Polled, Start};
use tidelog_client::{ClientError, Consumer, ConsumerConfig, OffsetSpec, TopicPartition};
use tidelog_core::wire::ErrorCode;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReaderPlan {
    /// The longest pause between two polls.
    pub gap_ns_max: u64,
    /// The consumer's configuration, without `bootstrap.servers`, `client.id` and `auto.offset.reset`.
    pub properties: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    NotYet,
    /// The ends of the logs are being looked up.
    Asked,
    /// It reads until every position has reached the end of its log.
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
    /// Where the next records of each partition must begin. Without an entry any beginning is right.
    positions: BTreeMap<TopicPartition, i64>,
    ends: BTreeMap<TopicPartition, i64>,
    ends_asked_at: u64,
    /// Partitions that could not be read, and when they are tried again.
    broken: BTreeMap<TopicPartition, u64>,
    assigned: bool,
    /// A poll is not answered yet.
    polling: bool,
    /// When the next poll is due.
    next_at: u64,
    /// Whether all faults have ended: from then on the application polls without pauses, so that no records wait in the
    /// consumer.
    is_prompt: bool,
    finish: Finish,
}

const RETRY_NS: u64 = 30_000_000;
/// A topic with `acks.require.fsync=false` may lose the end of its log in a power cut. So the ends are asked for again
/// after this time while such a topic is not read to its end.
const ENDS_AGAIN_NS: u64 = 5_000_000_000;

impl Reader {
    pub fn new(plan: ReaderPlan, setting: Setting) -> Self {
        let mut properties = plan.properties.clone();
        properties.insert("bootstrap.servers".into(), setting.bootstrap_servers());
        properties.insert("client.id".into(), format!("reader-{}", setting.client));
        properties.insert("auto.offset.reset".into(), "earliest".into());
        let (mut config, _) = ConsumerConfig::from_properties(&properties).unwrap_or_else(|errors| {
            panic!("the reader's configuration is refused: {}", crate::panics::listed(&errors))
        });
        // Topics may be created automatically only if every topic is to have the broker's defaults.
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

    /// Now and then pauses, resumes or seeks.
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
        PartitionKey { topic, index: partition.partition }
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

    /// A partition could not be read. Only damaged bytes excuse that: the checker `protocol` knows whether there were
    /// any.
    fn failed(&mut self, now: u64, partition: TopicPartition, error: &ClientError, out: &mut ClientOutbox) {
        let is_damage =
            matches!(error, ClientError::Malformed { .. }) || error.code() == Some(ErrorCode::CorruptMessage);
        if is_damage {
            // The records may have waited in the consumer since before the repair, so the fact claims no later time.
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

    /// A partition that is not read to its end yet.
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
        // What a relaxed topic gave may have waited in the consumer while the node lost its page cache, so it is no
        // fact. The log's start is not told either: the node may have been restarted meanwhile.
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
