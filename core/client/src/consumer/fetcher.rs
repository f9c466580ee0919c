//! The Fetch requests of a consumer, one at a time to each broker, and the answers to all its requests.

use super::buffer::Buffered;
use super::session::Wanted;
use super::{Consumer, Event};
use crate::error::{ClientError, is_invalid_metadata, is_retriable};
use crate::{Outbox, Reply, TopicPartition};
use bytestring::ByteString;
use std::collections::{BTreeMap, BTreeSet};
use tidelog_batch::BatchHeader;
use tidelog_wire::ids::{NodeId, Uuid};
use tidelog_wire::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use tidelog_wire::messages::fetch_response::PartitionData;
use tidelog_wire::messages::{FetchRequest, FetchResponse};
use tidelog_wire::time::{Mono, Now};
use tidelog_wire::{ApiKey, ErrorCode, Int32s, Records, ResponseBody};

/// What a request was for.
#[derive(Clone, Debug)]
pub enum Tag {
    Fetch { node: NodeId, asked: BTreeMap<TopicPartition, Wanted> },
    Offsets(Vec<u64>),
    Epochs(Vec<TopicPartition>),
}

/// The first version of Fetch that names topics by id.
const BY_ID: i16 = 13;
/// The first version of Fetch with sessions (KIP-227).
const SESSIONS: i16 = 7;

impl Consumer {
    pub(super) fn pump_fetches(&mut self, now: Now, out: &mut Outbox<Event>) {
        // A partition with buffered records is not fetched, and a request without it would remove it from the session.
        // So, as in Kafka's consumer, nothing is fetched from its broker until its records have been polled. A paused
        // partition holds nothing back: it leaves the session.
        let mut blocked: BTreeSet<NodeId> = BTreeSet::new();
        for (partition, assigned) in &self.assigned {
            if assigned.buffered.is_some() && !assigned.is_paused {
                blocked.extend(self.node_for(now.mono, partition));
            }
        }
        let busy = self.sessions.iter().filter(|(_, session)| session.under_way || session.retry_at > now.mono);
        blocked.extend(busy.map(|(node, _)| *node));
        let mut by_node: BTreeMap<NodeId, Vec<(TopicPartition, Wanted)>> = BTreeMap::new();
        for partition in self.in_rotation(self.fetches) {
            let assigned = &self.assigned[&partition];
            let Some(place) = assigned.known() else { continue };
            if assigned.is_paused || assigned.buffered.is_some() || assigned.retry_at > now.mono {
                continue;
            }
            let Some(node) = self.node_for(now.mono, &partition) else {
                self.cluster.request_update(now.mono);
                continue;
            };
            if !blocked.contains(&node) {
                let topic_id = self.cluster.metadata.topic_id(&partition.topic);
                let wanted = Wanted { topic_id, offset: place.offset, leader_epoch: place.leader_epoch };
                by_node.entry(node).or_default().push((partition, wanted));
            }
        }
        for (node, wanted) in by_node {
            self.fetch(now, node, wanted, out);
        }
    }

    /// The broker from which a partition is read.
    fn node_for(&self, now: Mono, partition: &TopicPartition) -> Option<NodeId> {
        let metadata = &self.cluster.metadata;
        let preferred_replica =
            self.assigned[partition].preferred_replica.filter(|(_, until)| *until > now).map(|(node, _)| node);
        let preferred_replica = preferred_replica.filter(|node| metadata.brokers.contains_key(node));
        preferred_replica.or_else(|| metadata.leader_node(&partition.topic, partition.partition))
    }

    fn fetch(&mut self, now: Now, node: NodeId, wanted: Vec<(TopicPartition, Wanted)>, out: &mut Outbox<Event>) {
        let Some(link) = self.cluster.connection_to(now, node, out) else { return };
        let ids_known = wanted.iter().all(|(_, wanted)| wanted.topic_id != Uuid::ZERO);
        let newest = if ids_known { *FetchRequest::VERSIONS.end() } else { BY_ID - 1 };
        let Some(version) = self.cluster.version(link, ApiKey::Fetch, 4..=newest) else {
            for (partition, _) in wanted {
                let code = ErrorCode::UnsupportedVersion.code();
                let refused = ClientError::refused(ApiKey::Fetch, &partition, code, None);
                self.assigned.get_mut(&partition).expect("it is assigned").fail(partition, refused, out);
            }
            return;
        };
        let asked = wanted.iter().cloned().collect();
        self.fetches = self.fetches.wrapping_add(1);
        let broker = self.sessions.entry(node).or_default();
        broker.under_way = true;
        if version < SESSIONS {
            broker.session.forget();
        }
        let step = broker.session.next(wanted);
        let config = &self.config;
        let mut request = FetchRequest {
            replica_id: -1,
            max_wait_ms: config.fetch_max_wait_ms,
            min_bytes: config.fetch_min_bytes,
            max_bytes: config.fetch_max_bytes,
            session_epoch: -1,
            topics: self.topics(step.named, version),
            ..FetchRequest::default()
        };
        if version >= SESSIONS {
            (request.session_id, request.session_epoch) = (step.id, step.epoch);
            request.forgotten_topics_data = forgotten(step.forgotten, version);
        }
        if version >= 11 {
            request.rack_id = config.client_rack.clone();
        }
        self.cluster.send(now, link, version, request.into(), Tag::Fetch { node, asked }, out);
    }

    /// Groups the partitions by topic. The topics, and the partitions of each, keep their order.
    fn topics(&self, named: Vec<(TopicPartition, Wanted)>, version: i16) -> Vec<FetchTopic> {
        let mut topics: Vec<(ByteString, FetchTopic)> = Vec::new();
        for (TopicPartition { topic, partition }, wanted) in named {
            let asked = FetchPartition {
                partition,
                current_leader_epoch: wanted.leader_epoch.0,
                fetch_offset: wanted.offset,
                last_fetched_epoch: -1,
                log_start_offset: -1,
                partition_max_bytes: self.config.max_partition_fetch_bytes,
                ..FetchPartition::default()
            };
            match topics.iter_mut().find(|(name, _)| *name == topic) {
                Some((_, topic)) => topic.partitions.push(asked),
                None => {
                    let (name, topic_id) = name_or_id(&topic, wanted.topic_id, version);
                    let partitions = vec![asked];
                    topics.push((topic, FetchTopic { topic: name, topic_id, partitions, ..FetchTopic::default() }));
                }
            }
        }
        topics.into_iter().map(|(_, topic)| topic).collect()
    }

    // Answers.

    pub(super) fn handle_reply(&mut self, now: Now, reply: Reply<Tag>, out: &mut Outbox<Event>) {
        match reply.tag {
            Tag::Offsets(numbers) => {
                let found = self.look_ups.handle(now, &mut self.cluster, numbers, reply.result);
                self.take_found(now, found, out);
            }
            Tag::Epochs(asked) => self.handle_epochs(now, asked, reply.result, out),
            Tag::Fetch { node, asked } => {
                let broker = self.sessions.get_mut(&node).expect("a fetch belongs to a session");
                broker.under_way = false;
                match reply.result {
                    Ok(ResponseBody::Fetch(response)) => {
                        self.handle_fetched(now, node, asked, response, (reply.version, reply.sent_at), out);
                    }
                    Ok(_) => unreachable!("the key says which response it is"),
                    Err(_) => {
                        broker.session.renew();
                        self.back_off_broker(now, node);
                    }
                }
            }
        }
    }

    /// Pauses before the next Fetch request to this broker.
    fn back_off_broker(&mut self, now: Now, node: NodeId) {
        let broker = self.sessions.get_mut(&node).expect("a fetch belongs to a session");
        broker.failures += 1;
        broker.retry_at = now.mono.plus_ms(self.cluster.retry_pause_ms(broker.failures));
    }

    fn handle_fetched(
        &mut self,
        now: Now,
        node: NodeId,
        asked: BTreeMap<TopicPartition, Wanted>,
        response: FetchResponse,
        (version, sent_at): (i16, Mono),
        out: &mut Outbox<Event>,
    ) {
        let broker = self.sessions.get_mut(&node).expect("a fetch belongs to a session");
        if response.error_code != 0 {
            let error = ErrorCode::from_code(response.error_code).unwrap_or(ErrorCode::UnknownServerError);
            match error {
                ErrorCode::FetchSessionIdNotFound => broker.session.forget(),
                _ => broker.session.renew(),
            }
            if is_invalid_metadata(error) {
                self.cluster.request_update(now.mono);
            }
            return self.back_off_broker(now, node);
        }
        broker.failures = 0;
        broker.session.advance(if version >= SESSIONS { response.session_id } else { 0 });
        for topic in response.responses {
            let name = if version >= BY_ID {
                let named = asked.iter().find(|(_, wanted)| wanted.topic_id == topic.topic_id);
                named.map(|(partition, _)| partition.topic.clone())
            } else {
                Some(topic.topic)
            };
            let Some(name) = name else { continue };
            for answer in topic.partitions {
                let partition = TopicPartition::new(name.clone(), answer.partition_index);
                let Some(wanted) = asked.get(&partition) else { continue };
                let stands = self.assigned.get(&partition).and_then(|assigned| assigned.known());
                // After a seek, or while the position is being validated, these records are of no use.
                if stands.is_some_and(|place| place.offset == wanted.offset) {
                    self.handle_partition(now, partition, wanted.offset, answer, sent_at, out);
                }
            }
        }
    }

    fn handle_partition(
        &mut self,
        now: Now,
        partition: TopicPartition,
        offset: i64,
        answer: PartitionData,
        sent_at: Mono,
        out: &mut Outbox<Event>,
    ) {
        let assigned = self.assigned.get_mut(&partition).expect("the caller has found it");
        let error = ErrorCode::from_code(answer.error_code).unwrap_or(ErrorCode::UnknownServerError);
        if error.is_error() {
            let had_preferred_replica = assigned.preferred_replica.take().is_some();
            if is_invalid_metadata(error) {
                let leader = (answer.current_leader.leader_id, answer.current_leader.leader_epoch);
                self.cluster.leader_changed(now, &partition.topic, partition.partition, leader);
            }
            match error {
                // The answer may be that of a follower, which may be behind its leader: the leader is asked next.
                ErrorCode::OffsetOutOfRange if had_preferred_replica => {}
                ErrorCode::OffsetOutOfRange => self.reset(now, partition, offset, out),
                ErrorCode::CorruptMessage => self.refuse(partition, error, out),
                _ if is_retriable(error) || error == ErrorCode::UnknownServerError => {
                    self.back_off(now, &partition, error == ErrorCode::OffsetNotAvailable);
                }
                _ => self.refuse(partition, error, out),
            }
            return;
        }
        assigned.failures = 0;
        if answer.preferred_read_replica >= 0 {
            let until = now.mono.plus_ms(self.config.common.metadata_max_age_ms);
            assigned.preferred_replica = Some((NodeId(answer.preferred_read_replica), until));
        }
        let bytes = answer.records.as_ref().and_then(Records::bytes).unwrap_or_default();
        if bytes.is_empty() {
            return;
        }
        let is_whole = BatchHeader::parse(&bytes).is_ok_and(|header| header.size_bytes() <= bytes.len());
        if !is_whole {
            // KIP-74: what a partition is given begins with a whole batch, even if that exceeds the limits.
            let (api, place) = (ApiKey::Fetch, partition.to_string());
            let text = format!("{} bytes at offset {offset} are not a batch", bytes.len());
            return assigned.fail(partition, ClientError::Malformed { api, place, text }, out);
        }
        let mut buffered = Buffered::new(bytes, offset, self.config.check_crcs);
        (buffered.high_watermark, buffered.log_start_offset) = (answer.high_watermark, answer.log_start_offset);
        buffered.asked_at = sent_at;
        assigned.buffered = Some(buffered);
    }

    fn refuse(&mut self, partition: TopicPartition, error: ErrorCode, out: &mut Outbox<Event>) {
        let refused = ClientError::refused(ApiKey::Fetch, &partition, error.code(), None);
        self.assigned.get_mut(&partition).expect("the caller has found it").fail(partition, refused, out);
    }
}

fn name_or_id(topic: &ByteString, id: Uuid, version: i16) -> (ByteString, Uuid) {
    if version >= BY_ID { (ByteString::new(), id) } else { (topic.clone(), Uuid::ZERO) }
}

fn forgotten(partitions: Vec<(TopicPartition, Uuid)>, version: i16) -> Vec<ForgottenTopic> {
    let mut topics: BTreeMap<(ByteString, Uuid), Int32s> = BTreeMap::new();
    for (it, id) in partitions {
        topics.entry((it.topic, id)).or_default().push(it.partition);
    }
    let topic = |((topic, id), partitions): ((ByteString, Uuid), Int32s)| {
        let (topic, topic_id) = name_or_id(&topic, id, version);
        ForgottenTopic { topic, topic_id, partitions, ..ForgottenTopic::default() }
    };
    topics.into_iter().map(topic).collect()
}
