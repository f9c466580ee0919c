//! The consumer: reads the records of assigned partitions in order, each from a position on.
//!
//! Records are fetched before they are polled. One Fetch request at a time is in flight to each broker, in a session
//! (KIP-227). It asks for all of the broker's partitions that have no buffered records. A position outside of the log
//! is reset as `auto.offset.reset` says. When the leader of a partition changes, the new leader is asked whether the
//! records before the position are in its log, before anything is read from it (KIP-320).
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
use super::{Client, Cluster, Input, Outbox, TopicMetadata, TopicPartition, earliest};
use buffer::Budget;
use fetcher::Tag;
use position::{Assigned, Position};
use session::Session;
use std::collections::BTreeMap;
use tidelog_batch::Record;
use tidelog_wire::ApiKey;
use tidelog_wire::ids::NodeId;
use tidelog_wire::time::{Mono, Now};

/// What an application asks of a consumer.
#[derive(Clone, Debug)]
pub enum Call {
    /// Reads these partitions and no others from now on. Partitions that were assigned before keep their positions.
    Assign(Vec<(TopicPartition, Start)>),
    /// Continues an assigned partition at another position.
    Seek(TopicPartition, Start),
    /// Gives no records of these partitions until [`Call::Resume`].
    Pause(Vec<TopicPartition>),
    Resume(Vec<TopicPartition>),
    /// Asks for records. Answered by one [`Event::Records`] as soon as there are records.
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
    /// The partition had no position, or one outside of its log. It continues at this position.
    Reset {
        partition: TopicPartition,
        position: i64,
    },
    /// The position is outside of the log. It is reset. With `auto.offset.reset=none` it is not, and the partition
    /// waits for [`Call::Seek`].
    OutOfRange {
        partition: TopicPartition,
        position: i64,
    },
    /// The new leader's log differs from what was read before the position: records that were read may have been lost
    /// (KIP-320). The partition continues at `diverged`, the offset up to which the logs agree. If that is not known,
    /// the position is reset. With `auto.offset.reset=none` the partition waits for [`Call::Seek`].
    Truncated {
        partition: TopicPartition,
        position: i64,
        diverged: Option<i64>,
    },
    /// The partition cannot be read. It waits for [`Call::Seek`].
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
    /// The position before these records.
    pub from: i64,
    /// The position after these records.
    pub position: i64,
    pub records: Vec<Record>,
    /// The high watermark in the response that brought the records.
    pub high_watermark: i64,
    pub log_start_offset: i64,
    /// When the request was sent that brought the records.
    pub asked_at: Mono,
}

/// For whom an offset is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// The partition's own position.
    Position,
    Application(u64),
}

/// A [`Call::FindOffsets`] that is not answered yet.
#[derive(Debug)]
struct OffsetQuery {
    /// How many partitions have no result yet.
    missing: usize,
    found: Vec<(TopicPartition, Result<FoundOffset, ClientError>)>,
}

#[derive(Debug)]
pub struct Consumer {
    config: ConsumerConfig,
    cluster: Cluster<Tag>,
    assigned: BTreeMap<TopicPartition, Assigned>,
    look_ups: LookUps<Asker>,
    queries: BTreeMap<u64, OffsetQuery>,
    sessions: BTreeMap<NodeId, BrokerSession>,
    wants_records: bool,
    /// How many polls were answered. Each begins with another partition, so that none is always the last.
    polls: usize,
    /// How many Fetch requests were sent. Each begins with another partition, too.
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

    /// What the brokers have last said of a topic that this consumer works with.
    pub fn topic(&self, name: &str) -> Option<&TopicMetadata> {
        self.cluster.metadata.topic(name)
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
        self.queries.insert(id, OffsetQuery { missing: partitions.len(), found: Vec::new() });
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
                Asker::Position => self.position_found(now, partition, result, out),
                Asker::Application(id) => {
                    let query = self.queries.get_mut(&id).expect("a query is open while a look-up of it is");
                    query.missing -= 1;
                    query.found.push((partition, result));
                    if query.missing == 0 {
                        let OffsetQuery { found, .. } = self.queries.remove(&id).expect("the query was found just now");
                        out.event(Event::Offsets { id, found });
                    }
                }
            }
        }
    }

    /// Answers a poll, if there are records.
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
        // The failures are told after the records before them.
        out.outputs.append(&mut failed.outputs);
    }

    /// All assigned partitions, beginning with another one for each `turn`.
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
        // What is due already waits for something other than time.
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
