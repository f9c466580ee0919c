//! A consumer of all partitions of the scenario's topics, each from its leader, with or without fetch sessions
//! (KIP-227). It reads from offset 0 on by long polls, and names the leader epoch that it knows (KIP-320). If its
//! position is out of range, it goes on at the log's start.

use super::records::{Seen, Unreadable};
use super::session::{Answer, SessionEvent};
use super::sessions::{Host, Sessions};
use super::topics::{TOPICS_TAG, Topics, topic_name};
use super::{Client, ClientInput, ClientOutbox, Setting};
use crate::history::{Asked, Fact, PartitionKey, ReadRecord};
use crate::random::{Stream, stream};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse};
use kafka_protocol::protocol::Request;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetcherPlan {
    pub with_session: bool,
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub partition_max_bytes: i32,
    /// The longest pause between two fetches.
    pub gap_ns_max: u64,
    /// Whether this is the last reader of a run, which reads every log to its end and is done.
    pub last: bool,
}

#[derive(Debug)]
struct Position {
    key: PartitionKey,
    /// The node from which it is fetched.
    host: Option<Host>,
    offset: i64,
    high_watermark: Option<i64>,
    /// The offset and the leader epoch that the node's fetch session has for this partition; none if the partition is
    /// not in the session.
    in_session: Option<(i64, i32)>,
    /// Whether it is left out of fetches for now.
    paused: bool,
    /// Whether it has caught up with the high watermark since the client was told to finish.
    finished: bool,
    /// Whether the offset was out of range. The log's start is to be asked for then (`auto.offset.reset=earliest`).
    lost: bool,
}

#[derive(Debug)]
pub struct Fetcher {
    plan: FetcherPlan,
    setting: Setting,
    sessions: Sessions,
    topics: Topics,
    stream: Stream,
    positions: Vec<Position>,
    fetches_from: BTreeMap<Host, FetchesFrom>,
    /// The nodes that something is fetched from, as of this number of [`Topics::told_leaders`]; none if a leader could
    /// not be followed yet.
    hosts: BTreeSet<Host>,
    followed: Option<u64>,
    /// When the client was told to finish, if it was.
    finish_since: Option<u64>,
    fetches: u64,
}

/// The fetches from one node.
#[derive(Clone, Copy, Debug, Default)]
struct FetchesFrom {
    /// The id of the fetch session, and the session epoch of the next request; an epoch of 0 asks for a new session.
    session: (i32, i32),
    waiting: bool,
    next_at: u64,
}

const RETRY_NS: u64 = 30_000_000;
const NOT_LEADER_OR_FOLLOWER: i16 = 6;
const FENCED_LEADER_EPOCH: i16 = 74;

impl Fetcher {
    pub fn new(plan: FetcherPlan, setting: Setting) -> Self {
        let mut positions = Vec::new();
        for (topic, topic_plan) in setting.topics.iter().enumerate() {
            for index in 0..topic_plan.partitions {
                positions.push(Position {
                    key: PartitionKey { topic: topic as u16, index },
                    host: None,
                    offset: 0,
                    high_watermark: None,
                    in_session: None,
                    paused: false,
                    finished: false,
                    lost: false,
                });
            }
        }
        Self {
            sessions: Sessions::new(&setting),
            topics: Topics::new(setting.topics.len()),
            stream: stream(setting.seed, "fetcher", &[setting.client.into()]),
            positions,
            fetches_from: BTreeMap::new(),
            hosts: BTreeSet::new(),
            followed: None,
            finish_since: plan.last.then_some(0),
            fetches: 0,
            plan,
            setting,
        }
    }

    fn is_done(&self) -> bool {
        self.finish_since.is_some() && self.positions.iter().all(|position| position.finished)
    }

    fn pump(&mut self, now: u64, out: &mut ClientOutbox) {
        if self.sessions.any().is_none() {
            return;
        }
        self.topics.pump(now, &self.setting, &mut self.sessions, out);
        if self.is_done() || !self.topics.is_ready() {
            return;
        }
        self.follow_leaders();
        for host in self.hosts.clone() {
            if self.can_fetch(host) && self.fetches_from[&host].next_at <= now {
                self.fetch(now, host, out);
            }
        }
    }

    /// Fetches each partition from the node that leads it now. One that the node before has been asked for stays there
    /// until that node has answered.
    fn follow_leaders(&mut self) {
        let told = Some(self.topics.told_leaders);
        if self.followed == told {
            return;
        }
        self.followed = told;
        for position in &mut self.positions {
            let leader = self.topics.leader(position.key, &self.sessions);
            if position.host == leader {
                continue;
            }
            if let Some(before) = position.host.and_then(|host| self.fetches_from.get_mut(&host)) {
                if before.waiting {
                    self.followed = None;
                    continue;
                }
                before.session = (0, 0);
            }
            (position.host, position.in_session) = (leader, None);
            if let Some(leader) = leader {
                self.fetches_from.entry(leader).or_default();
            }
        }
        self.hosts = self.positions.iter().filter_map(|position| position.host).collect();
    }

    fn can_fetch(&self, host: Host) -> bool {
        self.sessions.is_ready(host) && !self.fetches_from[&host].waiting
    }

    fn from(&mut self, host: Host) -> &mut FetchesFrom {
        self.fetches_from.entry(host).or_default()
    }

    fn fetch(&mut self, now: u64, host: Host, out: &mut ClientOutbox) {
        let lost = self.positions.iter().position(|position| position.lost && position.host == Some(host));
        if let Some(place) = lost {
            return self.ask_for_start(now, host, place, out);
        }
        let Some(version) = self.sessions.version::<FetchRequest>(host) else {
            return out.misbehaved("no version of Fetch is served".into());
        };
        self.fetches += 1;
        let request = self.request(host, version);
        self.from(host).waiting = true;
        self.sessions.send(now, host, &request, self.fetches, out);
    }

    fn ask_for_start(&mut self, now: u64, host: Host, place: usize, out: &mut ClientOutbox) {
        let key = self.positions[place].key;
        let partition = ListOffsetsPartition::default()
            .with_partition_index(key.index)
            .with_current_leader_epoch(-1)
            .with_timestamp(-2);
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(&self.setting.topics[usize::from(key.topic)].name))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        self.from(host).waiting = true;
        self.sessions.send(now, host, &request, place as u64, out);
    }

    fn handle_start(&mut self, now: u64, answer: Answer, out: &mut ClientOutbox) {
        let (host, place, asked_at) = (answer.host, answer.tag as usize, answer.sent_at);
        self.from(host).waiting = false;
        self.from(host).next_at = now + RETRY_NS;
        let key = self.positions[place].key;
        let Some(response) = answer.decode::<ListOffsetsResponse>(out) else { return };
        let partition = response.topics.first().and_then(|topic| topic.partitions.first());
        let Some(partition) = partition.filter(|partition| partition.partition_index == key.index) else {
            return out.misbehaved(format!("a ListOffsets response says nothing of {key}"));
        };
        let error = partition.error_code;
        if error == 0 {
            let (offset, timestamp) = (partition.offset, partition.timestamp);
            out.fact(Fact::Listed { partition: key, asked_at, asked: Asked::Earliest, offset, timestamp });
            (self.positions[place].offset, self.positions[place].lost) = (offset, false);
            self.from(host).next_at = now;
        } else {
            let is_retriable = ResponseError::try_from_code(error).is_some_and(|error| error.is_retriable());
            if !is_retriable && error != -1 {
                out.misbehaved(format!("ListOffsets of {key} was answered with {error}"));
            }
            if [3, NOT_LEADER_OR_FOLLOWER].contains(&error) {
                self.topics.forget(key.topic.into(), now);
            }
        }
    }

    fn request(&mut self, host: Host, version: i16) -> FetchRequest {
        let sessions = self.plan.with_session && version >= 7;
        let fetch_session = self.from(host).session;
        if fetch_session.1 == 0 {
            let of_host = self.positions.iter_mut().filter(|position| position.host == Some(host));
            of_host.for_each(|position| position.in_session = None);
        }
        let finishing = self.finish_since.is_some();
        let mut asked: BTreeMap<u16, Vec<FetchPartition>> = BTreeMap::new();
        let mut forgotten: BTreeMap<u16, Vec<i32>> = BTreeMap::new();
        for position in self.positions.iter_mut().filter(|position| position.host == Some(host)) {
            // A partition is left out now and then, to remove it from the session and add it again.
            position.paused = !finishing && sessions && self.stream.one_in(8);
            if position.paused {
                if position.in_session.take().is_some() {
                    forgotten.entry(position.key.topic).or_default().push(position.key.index);
                }
                continue;
            }
            let epoch = self.topics.leader_epoch(position.key.topic.into(), position.key.index);
            let asks = Some((position.offset, epoch));
            if sessions && position.in_session == asks {
                continue;
            }
            position.in_session = asks;
            let partition = FetchPartition::default()
                .with_partition(position.key.index)
                .with_current_leader_epoch(epoch)
                .with_fetch_offset(position.offset)
                .with_last_fetched_epoch(-1)
                .with_log_start_offset(-1)
                .with_partition_max_bytes(self.plan.partition_max_bytes);
            asked.entry(position.key.topic).or_default().push(partition);
        }
        let by_id = version >= 13;
        let topic = |(topic, partitions): (u16, Vec<FetchPartition>)| {
            let named = FetchTopic::default().with_partitions(partitions);
            if by_id {
                named.with_topic_id(self.topics.id(topic.into()).expect("the topics are known"))
            } else {
                named.with_topic(topic_name(&self.setting.topics[usize::from(topic)].name))
            }
        };
        let forgotten_topic = |(topic, partitions): (u16, Vec<i32>)| {
            let named = ForgottenTopic::default().with_partitions(partitions);
            if by_id {
                named.with_topic_id(self.topics.id(topic.into()).expect("the topics are known"))
            } else {
                named.with_topic(topic_name(&self.setting.topics[usize::from(topic)].name))
            }
        };
        let mut request = FetchRequest::default()
            .with_max_wait_ms(if finishing { self.plan.max_wait_ms.min(20) } else { self.plan.max_wait_ms })
            .with_min_bytes(self.plan.min_bytes)
            .with_max_bytes(self.plan.max_bytes)
            .with_topics(asked.into_iter().map(topic).collect());
        if version < 15 {
            request = request.with_replica_id(BrokerId(-1));
        }
        if version >= 7 {
            let (id, epoch) = if sessions { fetch_session } else { (0, -1) };
            request = request.with_session_id(id).with_session_epoch(epoch);
            if sessions && epoch > 0 {
                request = request.with_forgotten_topics_data(forgotten.into_iter().map(forgotten_topic).collect());
            }
        }
        request
    }

    fn handle_answer(&mut self, now: u64, answer: Answer, out: &mut ClientOutbox) {
        if answer.tag == TOPICS_TAG {
            return self.topics.handle(now, &self.setting, &mut self.sessions, answer, out);
        }
        if answer.key == ListOffsetsRequest::KEY {
            return self.handle_start(now, answer, out);
        }
        let (host, version, asked_at) = (answer.host, answer.version, answer.sent_at);
        let by = (self.sessions.node(host), asked_at);
        let gap_ns = self.stream.skewed(self.plan.gap_ns_max);
        self.from(host).waiting = false;
        self.from(host).next_at = now + gap_ns;
        let Some(response) = answer.decode::<FetchResponse>(out) else { return };
        if response.error_code != 0 {
            self.from(host).session = (0, 0);
            self.from(host).next_at = now + RETRY_NS;
            // FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH, FETCH_SESSION_TOPIC_ID_ERROR, and errors of the
            // whole request: KAFKA_STORAGE_ERROR, UNKNOWN_SERVER_ERROR.
            if ![70, 71, 106, 56, -1].contains(&response.error_code) {
                out.misbehaved(format!("Fetch was answered with {}", response.error_code));
            }
            return;
        }
        if self.plan.with_session && version >= 7 {
            let (asked_id, epoch) = self.from(host).session;
            // The broker answers with session 0 if it had no room for a session, or if no partition was left in it.
            if epoch > 0 && ![0, asked_id].contains(&response.session_id) {
                out.misbehaved(format!("session {asked_id} was answered as {}", response.session_id));
            }
            let next_epoch = if response.session_id == 0 { 0 } else { epoch % i32::MAX + 1 };
            self.from(host).session = (response.session_id, next_epoch);
        }
        let mut told = Vec::new();
        let endpoints: Vec<BrokerId> = response.node_endpoints.iter().map(|endpoint| endpoint.node_id).collect();
        for topic in response.responses {
            let place = if version >= 13 {
                self.topics.place_of_id(topic.topic_id)
            } else {
                self.setting.topics.iter().position(|plan| plan.name == topic.topic.0.as_str())
            };
            for partition in topic.partitions {
                let found = self.positions.iter().position(|position| {
                    Some(usize::from(position.key.topic)) == place && position.key.index == partition.partition_index
                });
                match found {
                    Some(found)
                        if self.positions[found].host == Some(host) && self.positions[found].in_session.is_some() =>
                    {
                        told.push(found);
                        self.learn_leader(now, found, (version, by), &partition, &endpoints, out);
                        self.handle_partition(now, found, asked_at, partition, out);
                    }
                    _ => out.misbehaved(format!("a Fetch response tells of partition {}", partition.partition_index)),
                }
            }
        }
        let sessionless = !(self.plan.with_session && version >= 7);
        let of_host = self.positions.iter_mut().enumerate().filter(|(_, position)| position.host == Some(host));
        for (place, position) in of_host {
            let is_told = told.contains(&place);
            // One that came to this node while it was waited for was not asked for.
            if !is_told && sessionless && position.in_session.is_some() && self.topics.is_ready() {
                out.misbehaved(format!("a full Fetch says nothing of {}", position.key));
            }
            // In a session, a partition without an answer has not changed.
            let caught_up = position.high_watermark.is_some_and(|watermark| watermark <= position.offset);
            if self.finish_since.is_some_and(|since| asked_at >= since) && caught_up && position.in_session.is_some() {
                position.finished = true;
            }
        }
    }

    /// A refusal says who leads the partition, from version 16 on (KIP-951). Before, Metadata is asked about it.
    fn learn_leader(
        &mut self,
        now: u64,
        place: usize,
        (version, by): (i16, (u32, u64)),
        answer: &PartitionData,
        endpoints: &[BrokerId],
        out: &mut ClientOutbox,
    ) {
        let is_fenced = answer.error_code == FENCED_LEADER_EPOCH;
        if !is_fenced && answer.error_code != NOT_LEADER_OR_FOLLOWER {
            return;
        }
        let position = &self.positions[place];
        if version < 16 {
            if is_fenced {
                self.topics.forget(position.key.topic.into(), now);
            }
            return;
        }
        let leader = (answer.current_leader.leader_id, answer.current_leader.leader_epoch);
        let asked = position.in_session.map_or(-1, |(_, epoch)| epoch);
        if is_fenced && leader.1 <= asked {
            out.misbehaved(format!("{} fences epoch {asked} and is led in {}", position.key, leader.1));
        }
        self.topics.told_leader(position.key, by, leader, endpoints, out);
    }

    fn handle_partition(
        &mut self,
        now: u64,
        place: usize,
        asked_at: u64,
        mut answer: PartitionData,
        out: &mut ClientOutbox,
    ) {
        let position = &mut self.positions[place];
        let (partition, from) = (position.key, position.offset);
        let host = position.host.expect("it was fetched from somewhere");
        match answer.error_code {
            0 => {}
            1 => {
                out.fact(Fact::OutOfRange { partition, position: from });
                position.lost = true;
                position.high_watermark = None;
                return;
            }
            error => {
                out.fact(Fact::Refused { partition, api_key: FetchRequest::KEY, error });
                let known = ResponseError::try_from_code(error);
                if !known.is_some_and(|error| error.is_retriable()) && error != -1 {
                    out.misbehaved(format!("Fetch of {partition} was answered with {error}"));
                }
                if error == NOT_LEADER_OR_FOLLOWER {
                    self.topics.forget(partition.topic.into(), now);
                } else if [3, 100, 103].contains(&error) {
                    self.topics.forget(partition.topic.into(), now);
                    self.from(host).session.1 = 0;
                }
                self.from(host).next_at = now + RETRY_NS;
                return;
            }
        }
        let seen = match self.setting.payloads.decode(answer.records.take().unwrap_or_default()) {
            Ok(seen) => seen,
            Err(Unreadable::Wrong(text)) => return out.misbehaved(format!("{partition} from {from}: {text}")),
            Err(Unreadable::Damaged(text)) => {
                self.from(host).next_at = now + RETRY_NS;
                return out.fact(Fact::Corrupt { partition, asked_at, text: format!("from {from}: {text}") });
            }
        };
        // A fetch from the middle of a batch gives the whole batch.
        let records: Vec<ReadRecord> = seen
            .into_iter()
            .filter(|seen| seen.offset >= from)
            .map(|Seen { offset, value, timestamp, batch_bytes, leader_epoch, .. }| ReadRecord {
                offset,
                value,
                timestamp,
                batch_bytes,
                leader_epoch,
            })
            .collect();
        let position = &mut self.positions[place];
        if let Some(last) = records.last() {
            position.offset = last.offset + 1;
        }
        position.high_watermark = Some(answer.high_watermark);
        out.fact(Fact::Fetched {
            partition,
            asked_at,
            from,
            high_watermark: answer.high_watermark,
            log_start: answer.log_start_offset,
            records,
            last: self.plan.last,
        });
    }
}

impl Client for Fetcher {
    fn handle(&mut self, now: u64, input: ClientInput, out: &mut ClientOutbox) {
        if matches!(input, ClientInput::Finish) {
            self.finish_since = Some(now);
        }
        for event in self.sessions.handle(now, input, out) {
            match event {
                SessionEvent::Response(answer) => self.handle_answer(now, answer, out),
                SessionEvent::Lost(host) => {
                    self.topics.lost(host, now);
                    let from = self.from(host);
                    (from.waiting, from.session) = (false, (0, 0));
                }
                SessionEvent::Ready | SessionEvent::Unreachable(_) => {}
            }
        }
        self.pump(now, out);
    }

    fn deadline(&self) -> Option<u64> {
        if self.is_done() {
            return None;
        }
        let can_fetch = self.hosts.iter().filter(|host| self.topics.is_ready() && self.can_fetch(**host));
        let next = can_fetch.map(|host| self.fetches_from[host].next_at).min();
        let topics = self.topics.deadline().filter(|_| self.sessions.any().is_some());
        [self.sessions.deadline(), next, topics].into_iter().flatten().min()
    }

    fn pending(&self) -> Option<String> {
        self.finish_since?;
        let open = self.positions.iter().find(|position| !position.finished)?;
        let watermark = open.high_watermark;
        Some(format!("{} is read up to {} of {watermark:?}", open.key, open.offset))
    }

    fn role(&self) -> &'static str {
        if self.plan.last { "last" } else { "fetcher" }
    }
}
