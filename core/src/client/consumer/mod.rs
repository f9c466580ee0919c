//! The consumer: records of assigned partitions, each in order, from a position on.
//!
//! One fetch at a time is under way to each broker, for all of its partitions of which nothing is waiting to be polled,
//! in a session (KIP-227), so that the next records are there before they are asked for. A position that the log does
//! not hold is reset as `auto.offset.reset` says. When a partition's leader changes, the new one is asked whether the
//! position still stands in its log before anything is read there (KIP-320).
//!
//! Like the producer, it never blocks: [`Call::Poll`] is answered by an event as soon as there are records.

mod buffer;
mod fetcher;
mod position;
mod session;
#[cfg(test)]
mod tests;

pub use position::Start;

use super::config::ConsumerConfig;
use super::error::ClientError;
use super::offsets::{Found, FoundOffset, LookUps, OffsetSpec};
use super::{Client, Cluster, Input, Outbox, TopicPartition, earliest};
use crate::batch::Record;
use crate::ids::NodeId;
use crate::time::{Mono, Now};
use crate::wire::ApiKey;
use buffer::Budget;
use fetcher::Tag;
use position::{Assigned, Position};
use session::Session;
use std::collections::BTreeMap;

/// What an application asks of a consumer.
#[derive(Clone, Debug)]
pub enum Call {
    /// These partitions and no others from now on. Those that stay keep their positions.
    Assign(Vec<(TopicPartition, Start)>),
    /// Goes on elsewhere, in a partition that is assigned.
    Seek(TopicPartition, Start),
    /// Gives no records of these partitions for a while.
    Pause(Vec<TopicPartition>),
    Resume(Vec<TopicPartition>),
    /// Wants records. Answered by one [`Event::Records`], as soon as there are some.
    Poll,
    /// Answered by [`Event::Offsets`].
    FindOffsets {
        id: u64,
        partitions: Vec<(TopicPartition, OffsetSpec)>,
    },
}

/// What a consumer tells its application.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// At most `max.poll.records` records, in order by partition.
    Records(Vec<Polled>),
    /// The partition had no position, or one that its log does not hold, and goes on here.
    Reset {
        partition: TopicPartition,
        position: i64,
    },
    /// The log does not hold the position. It is reset, unless with `auto.offset.reset=none`: then the partition waits
    /// for [`Call::Seek`].
    OutOfRange {
        partition: TopicPartition,
        position: i64,
    },
    /// The log was cut before the position, so that what was read may not be there any more (KIP-320). The partition
    /// goes on at `diverged`, or is reset where that is not known; with `auto.offset.reset=none` it waits for
    /// [`Call::Seek`].
    Truncated {
        partition: TopicPartition,
        position: i64,
        diverged: Option<i64>,
    },
    /// Nothing can be read here: the partition waits for [`Call::Seek`].
    Failed {
        partition: TopicPartition,
        error: ClientError,
    },
    Offsets {
        id: u64,
        found: Vec<(TopicPartition, Result<FoundOffset, ClientError>)>,
    },
}

/// Records of one partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Polled {
    pub partition: TopicPartition,
    /// The position before and after.
    pub from: i64,
    pub position: i64,
    pub records: Vec<Record>,
    /// As the broker said with them.
    pub high_watermark: i64,
    pub log_start_offset: i64,
    /// When the request was sent that brought them.
    pub asked_at: Mono,
}

/// Whose look-up of an offset it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// The partition's own position.
    Position,
    Application(u64),
}

#[derive(Debug)]
struct Query {
    missing: usize,
    found: Vec<(TopicPartition, Result<FoundOffset, ClientError>)>,
}

#[derive(Debug)]
pub struct Consumer {
    config: ConsumerConfig,
    cluster: Cluster<Tag>,
    assigned: BTreeMap<TopicPartition, Assigned>,
    look_ups: LookUps<Asker>,
    queries: BTreeMap<u64, Query>,
    sessions: BTreeMap<NodeId, BrokerSession>,
    wants_records: bool,
    /// How many were answered and sent: each begins with another partition, so that none is always the last.
    polls: usize,
    fetches: usize,
    next_at: Option<Mono>,
}

#[derive(Debug, Default)]
struct BrokerSession {
    session: Session,
    under_way: bool,
    failures: u32,
    retry_at: Mono,
}

impl Consumer {
    pub fn new(config: ConsumerConfig, seed: u64) -> Self {
        Self {
            cluster: Cluster::new(config.common.clone(), seed),
            assigned: BTreeMap::new(),
            look_ups: LookUps::default(),
            queries: BTreeMap::new(),
            sessions: BTreeMap::new(),
            wants_records: false,
            polls: 0,
            fetches: 0,
            next_at: None,
            config,
        }
    }

    /// The offset of the next record of a partition, if it is known.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        match self.assigned.get(partition)?.position {
            Position::Known(place) | Position::Unvalidated { place, .. } => Some(place.offset),
            Position::Unknown | Position::Lost => None,
        }
    }

    fn call(&mut self, now: Now, call: Call, out: &mut Outbox<Event>) {
        match call {
            Call::Assign(partitions) => self.assign(now, partitions, out),
            Call::Seek(partition, start) => match self.assigned.get_mut(&partition) {
                Some(assigned) => {
                    *assigned = Assigned { is_paused: assigned.is_paused, ..Assigned::default() };
                    self.look_ups.retain(|asker, it| *asker != Asker::Position || *it != partition);
                    self.begin(now, &partition, start, out);
                }
                None => {
                    let (what, allowed) = (format!("a seek in {partition}"), "it is not assigned".into());
                    out.event(Event::Failed { partition, error: ClientError::Invalid { what, allowed } });
                }
            },
            Call::Pause(partitions) => self.pause(&partitions, true),
            Call::Resume(partitions) => self.pause(&partitions, false),
            Call::Poll => self.wants_records = true,
            Call::FindOffsets { id, partitions } => self.find_offsets(now, id, partitions, out),
        }
    }

    fn assign(&mut self, now: Now, partitions: Vec<(TopicPartition, Start)>, out: &mut Outbox<Event>) {
        let mut before = std::mem::take(&mut self.assigned);
        for (partition, start) in partitions {
            self.cluster.want_topic(now, &partition.topic);
            if let Some(kept) = before.remove(&partition) {
                self.assigned.insert(partition, kept);
            } else if !self.assigned.contains_key(&partition) {
                self.assigned.insert(partition.clone(), Assigned::default());
                self.begin(now, &partition, start, out);
            }
        }
        let assigned = &self.assigned;
        self.look_ups.retain(|asker, it| *asker != Asker::Position || assigned.contains_key(it));
    }

    fn pause(&mut self, partitions: &[TopicPartition], is_paused: bool) {
        for partition in partitions {
            if let Some(assigned) = self.assigned.get_mut(partition) {
                assigned.is_paused = is_paused;
            }
        }
    }

    fn find_offsets(
        &mut self,
        now: Now,
        id: u64,
        partitions: Vec<(TopicPartition, OffsetSpec)>,
        out: &mut Outbox<Event>,
    ) {
        if partitions.is_empty() {
            return out.event(Event::Offsets { id, found: Vec::new() });
        }
        self.queries.insert(id, Query { missing: partitions.len(), found: Vec::new() });
        for (partition, spec) in partitions {
            self.cluster.want_topic(now, &partition.topic);
            let timeout_ms = Some(self.config.default_api_timeout_ms);
            self.look_ups.ask(now.mono, Asker::Application(id), partition, spec, timeout_ms);
        }
    }

    /// Does all that is due.
    fn pump(&mut self, now: Now, out: &mut Outbox<Event>) {
        self.learn_leaders(out);
        let found = self.look_ups.pump(now, &mut self.cluster, Tag::Offsets, out);
        self.take_found(now, found, out);
        self.pump_validations(now, out);
        self.give_records(out);
        self.pump_fetches(now, out);
        self.cluster.pump(now, out);
        self.next_at = self.next_moment(now.mono);
    }

    fn take_found(&mut self, now: Now, found: Vec<Found<Asker>>, out: &mut Outbox<Event>) {
        for Found { key, partition, result } in found {
            match key {
                Asker::Position => self.place(now, partition, result, out),
                Asker::Application(id) => {
                    let query = self.queries.get_mut(&id).expect("it is open while a look-up is");
                    query.missing -= 1;
                    query.found.push((partition, result));
                    if query.missing == 0 {
                        let Query { found, .. } = self.queries.remove(&id).expect("it was there just now");
                        out.event(Event::Offsets { id, found });
                    }
                }
            }
        }
    }

    /// Answers a poll, if there is anything to answer it with.
    fn give_records(&mut self, out: &mut Outbox<Event>) {
        if !self.wants_records {
            return;
        }
        let mut budget = Budget { records: self.config.max_poll_records, bytes: self.config.max_poll_bytes };
        let (mut polled, mut failed) = (Vec::new(), Outbox::default());
        for partition in self.in_rotation(self.polls) {
            let assigned = self.assigned.get_mut(&partition).expect("listed just now");
            let Some(buffered) = assigned.buffered.as_mut().filter(|_| !assigned.is_paused) else { continue };
            let (from, mut records) = (buffered.next_offset, Vec::new());
            let taken = buffered.take(&mut budget, &mut records);
            let position = buffered.next_offset;
            let (high_watermark, log_start_offset) = (buffered.high_watermark, buffered.log_start_offset);
            let asked_at = buffered.asked_at;
            assigned.advance();
            if position > from {
                let partition = partition.clone();
                polled.push(Polled { partition, from, position, records, high_watermark, log_start_offset, asked_at });
            }
            if let Err(error) = taken {
                let (api, place) = (ApiKey::Fetch, partition.to_string());
                let text = format!("the batch at offset {position}: {error}");
                assigned.fail(partition, ClientError::Malformed { api, place, text }, &mut failed);
            }
            if budget.is_used_up() {
                break;
            }
        }
        if polled.iter().any(|it| !it.records.is_empty()) {
            self.wants_records = false;
            self.polls = self.polls.wrapping_add(1);
            out.event(Event::Records(polled));
        }
        // What is wrong is told behind what is good.
        out.outputs.append(&mut failed.outputs);
    }

    /// All that is assigned, the `turn`th time.
    fn in_rotation(&self, turn: usize) -> Vec<TopicPartition> {
        let mut all: Vec<TopicPartition> = self.assigned.keys().cloned().collect();
        if !all.is_empty() {
            let first = turn % all.len();
            all.rotate_left(first);
        }
        all
    }

    fn next_moment(&self, now: Mono) -> Option<Mono> {
        let partitions = self.assigned.values().map(|assigned| assigned.retry_at);
        let brokers = self.sessions.values().map(|session| session.retry_at);
        // What may go out already waits for something else than time.
        let retry = partitions.chain(brokers).filter(|retry_at| *retry_at > now).min();
        earliest([self.look_ups.deadline(now), retry])
    }
}

impl Client for Consumer {
    type Call = Call;
    type Event = Event;

    fn handle(&mut self, now: Now, input: Input<Call>, out: &mut Outbox<Event>) {
        if let Some(call) = self.cluster.handle(now, input, out) {
            self.call(now, call, out);
        }
        while let Some(reply) = self.cluster.pop_reply() {
            self.handle_reply(now, reply, out);
        }
        self.pump(now, out);
    }

    fn deadline(&self) -> Option<Mono> {
        earliest([self.next_at, self.cluster.deadline()])
    }
}
