//! The position of a consumer in a partition: how it is found by a look-up, is reset as `auto.offset.reset` says, and
//! is validated when the leader has changed, by asking the new leader whether its log has what was read (KIP-320).

use super::buffer::Buffered;
use super::fetcher::Tag;
use super::{Asker, Consumer, Event};
use crate::config::OffsetReset;
use crate::error::{ClientError, is_invalid_metadata, is_retriable};
use crate::offsets::{FoundOffset, OffsetSpec};
use crate::{Outbox, RequestFailure, TopicPartition};
use bytestring::ByteString;
use std::collections::BTreeMap;
use tidelog_wire::ids::{LeaderEpoch, LinkId, NodeId};
use tidelog_wire::messages::OffsetForLeaderEpochRequest;
use tidelog_wire::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use tidelog_wire::messages::offset_for_leader_epoch_response::EpochEndOffset;
use tidelog_wire::time::{Mono, Now};
use tidelog_wire::{ApiKey, ErrorCode, ResponseBody};

/// Where reading a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Where `auto.offset.reset` says.
    Default,
    Earliest,
    Latest,
    /// At the first record with this timestamp or a later one. If there is none, at the end.
    Timestamp(i64),
    /// At this offset. `epoch` is the leader epoch of the record before it, if the application knows it: then the
    /// leader is asked whether its log still has that record.
    Offset {
        offset: i64,
        epoch: Option<LeaderEpoch>,
    },
}

/// A position in the log of a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPosition {
    /// The offset of the next record.
    pub offset: i64,
    /// The leader epoch of the record before it.
    pub epoch: Option<LeaderEpoch>,
    /// The epoch of the leader to whose log this position belongs.
    pub leader_epoch: LeaderEpoch,
}

/// What is known about the position in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The position is being looked up.
    Unknown,
    /// The leader has changed, and must be asked whether its log agrees up to this position.
    Unvalidated {
        place: LogPosition,
        asked: bool,
    },
    Known(LogPosition),
    /// The partition waits until the application seeks.
    Lost,
}

/// The state of an assigned partition.
#[derive(Debug)]
pub struct Assigned {
    pub position: Position,
    pub is_paused: bool,
    /// Records that were fetched and not polled yet. `None` unless the position is [`Position::Known`].
    pub buffered: Option<Buffered>,
    /// The follower from which the leader wants this consumer to read (KIP-392), and until when.
    pub preferred_replica: Option<(NodeId, Mono)>,
    pub failures: u32,
    pub retry_at: Mono,
}

impl Default for Assigned {
    fn default() -> Self {
        Self {
            position: Position::Unknown,
            is_paused: false,
            buffered: None,
            preferred_replica: None,
            failures: 0,
            retry_at: Mono::ZERO,
        }
    }
}

impl Assigned {
    pub fn known(&self) -> Option<LogPosition> {
        match self.position {
            Position::Known(place) => Some(place),
            _ => None,
        }
    }

    fn set(&mut self, position: Position) {
        self.buffered = None;
        self.position = position;
    }

    /// Moves the position behind the records that were taken from the buffer.
    pub fn advance(&mut self) {
        let (Position::Known(place), Some(buffered)) = (&mut self.position, &self.buffered) else {
            panic!("records are taken only while the position is known");
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
    /// Begins to read an assigned partition at `start`.
    pub(super) fn begin(&mut self, now: Now, partition: &TopicPartition, start: Start, out: &mut Outbox<Event>) {
        let spec = match start {
            Start::Offset { offset, epoch } => {
                let leader_epoch = self.leader_epoch(partition);
                let place = LogPosition { offset: offset.max(0), epoch, leader_epoch };
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

    /// Takes the result of looking up the position of a partition.
    pub(super) fn position_found(
        &mut self,
        now: Now,
        partition: TopicPartition,
        result: Result<FoundOffset, ClientError>,
        out: &mut Outbox<Event>,
    ) {
        let leader_epoch = self.leader_epoch(&partition);
        let Some(assigned) = self.assigned.get_mut(&partition) else { return };
        assert_eq!(assigned.position, Position::Unknown, "a look-up is dropped when the position becomes known");
        match result {
            Ok(FoundOffset { offset: Some(offset), .. }) => {
                // Without the epoch of the record before it, this position need not be validated.
                assigned.set(Position::Known(LogPosition { offset, epoch: None, leader_epoch }));
                out.event(Event::Reset { partition, position: offset });
            }
            Ok(_) => self.look_up(now, partition, OffsetSpec::Latest),
            Err(error) => assigned.fail(partition, error, out),
        }
    }

    /// The position is outside of the log: resets it, if the configuration says so.
    pub(super) fn reset(&mut self, now: Now, partition: TopicPartition, position: i64, out: &mut Outbox<Event>) {
        out.event(Event::OutOfRange { partition: partition.clone(), position });
        match self.reset_spec() {
            Some(spec) => self.look_up(now, partition, spec),
            None => self.assigned.get_mut(&partition).expect("it is assigned").set(Position::Lost),
        }
    }

    // Leaders that change.

    /// Looks at the metadata: if the leader of a partition has changed, its position must be validated. If the topic
    /// has an error that is not temporary, its partitions fail.
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
                    assigned.preferred_replica = None;
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

    /// Asks the new leaders up to which offset their logs agree with what was read.
    pub(super) fn pump_validations(&mut self, now: Now, out: &mut Outbox<Event>) {
        let mut by_link: BTreeMap<(LinkId, i16), BTreeMap<ByteString, Vec<OffsetForLeaderPartition>>> = BTreeMap::new();
        for (partition, assigned) in &mut self.assigned {
            let Position::Unvalidated { place, asked } = &mut assigned.position else { continue };
            if *asked || assigned.retry_at > now.mono {
                continue;
            }
            let Some(node) = self.cluster.metadata.leader_node(&partition.topic, partition.partition) else {
                self.cluster.request_update(now.mono);
                continue;
            };
            let Some(link) = self.cluster.connection_to(now, node, out) else { continue };
            let Some(version) = self.cluster.version(link, ApiKey::OffsetForLeaderEpoch, 3..=4) else {
                // As in Kafka's consumer: if the broker is too old to be asked, the position counts as valid.
                assigned.position = Position::Known(*place);
                continue;
            };
            *asked = true;
            let topics = by_link.entry((link, version)).or_default();
            topics.entry(partition.topic.clone()).or_default().push(OffsetForLeaderPartition {
                partition: partition.partition,
                current_leader_epoch: place.leader_epoch.0,
                leader_epoch: place.epoch.map_or(-1, |epoch| epoch.0),
                ..OffsetForLeaderPartition::default()
            });
        }
        for ((link, version), topics) in by_link {
            let asked = topics.iter().flat_map(|(topic, partitions)| {
                partitions.iter().map(|it| TopicPartition::new(topic.clone(), it.partition))
            });
            let tag = Tag::Epochs(asked.collect());
            let topic = |(topic, partitions)| OffsetForLeaderTopic { topic, partitions, ..Default::default() };
            let topics = topics.into_iter().map(topic).collect();
            let request = OffsetForLeaderEpochRequest { replica_id: -1, topics, ..Default::default() };
            self.cluster.send(now, link, version, request.into(), tag, out);
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
            // After a seek the answer is of no use.
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
        place: LogPosition,
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
                let agreed = Position::Known(LogPosition { offset: end, epoch, ..place });
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

    /// A request about this partition failed with a temporary error: pauses before the next one.
    pub(super) fn back_off(&mut self, now: Now, partition: &TopicPartition, metadata_is_doubtful: bool) {
        let Some(assigned) = self.assigned.get_mut(partition) else { return };
        assigned.failures += 1;
        assigned.retry_at = now.mono.plus_ms(self.cluster.retry_pause_ms(assigned.failures));
        if metadata_is_doubtful {
            self.cluster.request_update(now.mono);
        }
    }
}
