//! Where a consumer stands in a partition, and how it finds out: by `auto.offset.reset`, by a look-up, and, when the
//! leader has changed, by asking the new one whether it has what was read (KIP-320).

use super::buffer::Buffered;
use super::fetcher::Tag;
use super::{Asker, Consumer, Event};
use crate::client::config::OffsetReset;
use crate::client::error::{ClientError, is_invalid_metadata, is_retriable};
use crate::client::offsets::{FoundOffset, OffsetSpec};
use crate::client::{Outbox, RequestFailure, TopicPartition};
use crate::ids::{ConnId, LeaderEpoch, NodeId};
use crate::time::{Mono, Now};
use crate::wire::messages::OffsetForLeaderEpochRequest;
use crate::wire::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use crate::wire::messages::offset_for_leader_epoch_response::EpochEndOffset;
use crate::wire::{ApiKey, ErrorCode, ResponseBody};
use bytestring::ByteString;
use std::collections::BTreeMap;

/// Where an application begins to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Where `auto.offset.reset` says.
    Default,
    Earliest,
    Latest,
    /// At the first record of this time or later, or at the end.
    Timestamp(i64),
    /// At this offset. `epoch` is that of the record before it, where it is known: then the log is asked whether it
    /// still has that record.
    Offset {
        offset: i64,
        epoch: Option<LeaderEpoch>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub offset: i64,
    /// Of the record before.
    pub epoch: Option<LeaderEpoch>,
    /// Of the leader in whose log the offset stands.
    pub leader_epoch: LeaderEpoch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// It is being looked up.
    Unknown,
    /// The leader is another one: it is to say whether the place stands in its log.
    Unvalidated {
        place: Place,
        asked: bool,
    },
    Known(Place),
    /// The application has to say where to go on.
    Lost,
}

#[derive(Debug)]
pub struct Assigned {
    pub position: Position,
    pub is_paused: bool,
    /// Fetched, and not polled yet. Only where the position is known.
    pub buffered: Option<Buffered>,
    /// A follower that is nearer than the leader (KIP-392), until the leader is asked again.
    pub nearer: Option<(NodeId, Mono)>,
    pub failures: u32,
    pub retry_at: Mono,
}

impl Default for Assigned {
    fn default() -> Self {
        Self {
            position: Position::Unknown,
            is_paused: false,
            buffered: None,
            nearer: None,
            failures: 0,
            retry_at: Mono::ZERO,
        }
    }
}

impl Assigned {
    pub fn known(&self) -> Option<Place> {
        match self.position {
            Position::Known(place) => Some(place),
            _ => None,
        }
    }

    fn set(&mut self, position: Position) {
        self.buffered = None;
        self.position = position;
    }

    /// The position follows what was taken of the buffer.
    pub fn advance(&mut self) {
        let (Position::Known(place), Some(buffered)) = (&mut self.position, &self.buffered) else {
            panic!("only what is known is read");
        };
        place.offset = buffered.next_offset;
        place.epoch = buffered.last_epoch.or(place.epoch);
        if buffered.is_empty() {
            self.buffered = None;
        }
    }

    pub fn fail(&mut self, partition: TopicPartition, error: ClientError, out: &mut Outbox<Event>) {
        self.set(Position::Lost);
        out.event(Event::Failed { partition, error });
    }
}

impl Consumer {
    pub(super) fn begin(&mut self, now: Now, partition: &TopicPartition, start: Start, out: &mut Outbox<Event>) {
        let spec = match start {
            Start::Offset { offset, epoch } => {
                let leader_epoch = self.leader_epoch(partition);
                let place = Place { offset: offset.max(0), epoch, leader_epoch };
                let position = match epoch {
                    Some(_) => Position::Unvalidated { place, asked: false },
                    None => Position::Known(place),
                };
                return self.assigned.get_mut(partition).expect("it is assigned").set(position);
            }
            Start::Default => match self.reset_spec() {
                Some(spec) => spec,
                None => {
                    let what = format!("the position in {partition}");
                    let allowed = "auto.offset.reset=none allows no start without an offset".into();
                    let assigned = self.assigned.get_mut(partition).expect("it is assigned");
                    return assigned.fail(partition.clone(), ClientError::Invalid { what, allowed }, out);
                }
            },
            Start::Earliest => OffsetSpec::Earliest,
            Start::Latest => OffsetSpec::Latest,
            Start::Timestamp(ms) => OffsetSpec::Timestamp(ms),
        };
        self.look_up(now, partition.clone(), spec);
    }

    fn look_up(&mut self, now: Now, partition: TopicPartition, spec: OffsetSpec) {
        self.assigned.get_mut(&partition).expect("it is assigned").set(Position::Unknown);
        self.look_ups.ask(now.mono, Asker::Position, partition, spec, None);
    }

    fn reset_spec(&self) -> Option<OffsetSpec> {
        match self.config.auto_offset_reset {
            OffsetReset::Earliest => Some(OffsetSpec::Earliest),
            OffsetReset::Latest => Some(OffsetSpec::Latest),
            OffsetReset::None => None,
        }
    }

    fn leader_epoch(&self, partition: &TopicPartition) -> LeaderEpoch {
        let leader = self.cluster.metadata.leader(&partition.topic, partition.partition);
        leader.map_or(LeaderEpoch::UNKNOWN, |leader| leader.epoch)
    }

    /// A position was looked up.
    pub(super) fn place(
        &mut self,
        now: Now,
        partition: TopicPartition,
        result: Result<FoundOffset, ClientError>,
        out: &mut Outbox<Event>,
    ) {
        let leader_epoch = self.leader_epoch(&partition);
        let Some(assigned) = self.assigned.get_mut(&partition) else { return };
        assert_eq!(assigned.position, Position::Unknown, "a look-up ends with the need for it");
        match result {
            Ok(FoundOffset { offset: Some(offset), .. }) => {
                // Without the epoch of a record before it there is nothing to validate.
                assigned.set(Position::Known(Place { offset, epoch: None, leader_epoch }));
                out.event(Event::Reset { partition, position: offset });
            }
            Ok(_) => self.look_up(now, partition, OffsetSpec::Latest),
            Err(error) => assigned.fail(partition, error, out),
        }
    }

    /// The log does not hold the position.
    pub(super) fn reset(&mut self, now: Now, partition: TopicPartition, position: i64, out: &mut Outbox<Event>) {
        out.event(Event::OutOfRange { partition: partition.clone(), position });
        match self.reset_spec() {
            Some(spec) => self.look_up(now, partition, spec),
            None => self.assigned.get_mut(&partition).expect("it is assigned").set(Position::Lost),
        }
    }

    // Leaders that change.

    /// What a new leader makes of a position is not known; where nothing can be read for good, that is told.
    pub(super) fn learn_leaders(&mut self, out: &mut Outbox<Event>) {
        for (partition, assigned) in &mut self.assigned {
            let metadata = &self.cluster.metadata;
            let error = metadata.topic(&partition.topic).map_or(ErrorCode::None, |topic| topic.error);
            if error.is_error() && !is_retriable(error) && assigned.position != Position::Lost {
                let refused = ClientError::refused(ApiKey::Metadata, &partition.topic, error.code(), None);
                assigned.fail(partition.clone(), refused, out);
                continue;
            }
            let Some(leader) = metadata.leader(&partition.topic, partition.partition) else { continue };
            match &mut assigned.position {
                Position::Known(place) if place.leader_epoch != leader.epoch => {
                    place.leader_epoch = leader.epoch;
                    assigned.nearer = None;
                    if place.epoch.is_some() {
                        let place = *place;
                        assigned.set(Position::Unvalidated { place, asked: false });
                    }
                }
                Position::Unvalidated { place, .. } => place.leader_epoch = leader.epoch,
                _ => {}
            }
        }
        let assigned = &self.assigned;
        self.look_ups.retain(|asker, it| {
            *asker != Asker::Position || assigned.get(it).is_some_and(|it| it.position == Position::Unknown)
        });
    }

    /// Asks new leaders how far they agree.
    pub(super) fn pump_validations(&mut self, now: Now, out: &mut Outbox<Event>) {
        let mut by_conn: BTreeMap<(ConnId, i16), BTreeMap<ByteString, Vec<OffsetForLeaderPartition>>> = BTreeMap::new();
        for (partition, assigned) in &mut self.assigned {
            let Position::Unvalidated { place, asked } = &mut assigned.position else { continue };
            if *asked || assigned.retry_at > now.mono {
                continue;
            }
            let Some(node) = self.cluster.metadata.leader_node(&partition.topic, partition.partition) else {
                self.cluster.request_update(now.mono);
                continue;
            };
            let Some(conn) = self.cluster.connection_to(now, node, out) else { continue };
            let Some(version) = self.cluster.version(conn, ApiKey::OffsetForLeaderEpoch, 3..=4) else {
                // As Kafka's consumer: a broker that cannot be asked is believed.
                assigned.position = Position::Known(*place);
                continue;
            };
            *asked = true;
            let topics = by_conn.entry((conn, version)).or_default();
            topics.entry(partition.topic.clone()).or_default().push(OffsetForLeaderPartition {
                partition: partition.partition,
                current_leader_epoch: place.leader_epoch.0,
                leader_epoch: place.epoch.map_or(-1, |epoch| epoch.0),
                ..OffsetForLeaderPartition::default()
            });
        }
        for ((conn, version), topics) in by_conn {
            let asked = topics.iter().flat_map(|(topic, partitions)| {
                partitions.iter().map(|it| TopicPartition::new(topic.clone(), it.partition))
            });
            let tag = Tag::Epochs(asked.collect());
            let topic = |(topic, partitions)| OffsetForLeaderTopic { topic, partitions, ..Default::default() };
            let topics = topics.into_iter().map(topic).collect();
            let request = OffsetForLeaderEpochRequest { replica_id: -1, topics, ..Default::default() };
            self.cluster.send(now, conn, version, request.into(), tag, out);
        }
    }

    pub(super) fn handle_epochs(
        &mut self,
        now: Now,
        asked: Vec<TopicPartition>,
        result: Result<ResponseBody, RequestFailure>,
        out: &mut Outbox<Event>,
    ) {
        for partition in asked {
            let Some(assigned) = self.assigned.get_mut(&partition) else { continue };
            // A seek meanwhile has made the question void.
            let Position::Unvalidated { place, asked: true } = assigned.position else { continue };
            assigned.position = Position::Unvalidated { place, asked: false };
            let answer = match &result {
                Ok(ResponseBody::OffsetForLeaderEpoch(response)) => {
                    let topic = response.topics.iter().find(|topic| topic.topic == partition.topic);
                    topic.and_then(|topic| topic.partitions.iter().find(|it| it.partition == partition.partition))
                }
                Ok(_) => unreachable!("the key says which response it is"),
                Err(_) => None,
            };
            let code = answer.map_or(ErrorCode::NetworkException.code(), |answer| answer.error_code);
            match (ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError), answer) {
                (ErrorCode::None, Some(answer)) => self.judge_epoch(now, partition, place, answer, out),
                (error, _) if is_retriable(error) || error == ErrorCode::UnknownServerError => {
                    self.back_off(now, &partition, is_invalid_metadata(error));
                }
                (error, _) => {
                    let refused = ClientError::refused(ApiKey::OffsetForLeaderEpoch, &partition, error.code(), None);
                    assigned.fail(partition, refused, out);
                }
            }
        }
    }

    fn judge_epoch(
        &mut self,
        now: Now,
        partition: TopicPartition,
        place: Place,
        answer: &EpochEndOffset,
        out: &mut Outbox<Event>,
    ) {
        let position = place.offset;
        let spec = self.reset_spec();
        let assigned = self.assigned.get_mut(&partition).expect("the caller has found it");
        assigned.failures = 0;
        let diverged = (answer.end_offset >= 0 && answer.leader_epoch >= 0).then_some(answer.end_offset);
        match diverged {
            Some(end) if end >= position => assigned.set(Position::Known(place)),
            Some(end) => {
                let epoch = Some(LeaderEpoch(answer.leader_epoch));
                let agreed = Position::Known(Place { offset: end, epoch, ..place });
                assigned.set(if spec.is_some() { agreed } else { Position::Lost });
                out.event(Event::Truncated { partition, position, diverged });
            }
            None => {
                out.event(Event::Truncated { partition: partition.clone(), position, diverged });
                match spec {
                    Some(spec) => self.look_up(now, partition, spec),
                    None => assigned.set(Position::Lost),
                }
            }
        }
    }

    /// Something went wrong that may pass.
    pub(super) fn back_off(&mut self, now: Now, partition: &TopicPartition, metadata_is_doubtful: bool) {
        let Some(assigned) = self.assigned.get_mut(partition) else { return };
        assigned.failures += 1;
        assigned.retry_at = now.mono.plus_ms(self.cluster.retry_pause_ms(assigned.failures));
        if metadata_is_doubtful {
            self.cluster.request_update(now.mono);
        }
    }
}
