//! Who fetches which partitions from which leader: the requests, the sessions (KIP-227), and the pauses after failures.
//!
//! A fetcher asks one leader for some of the partitions that this broker follows there. It has one question at a time on
//! its way, and asks the next when all that it has been given is stable: its fetch tells the leader so.
//!
//! ```text
//!   follow, moved ─► next ─► (asked) ─► answered ─► the partitions take it ─► took, pause
//! ```
//!
//! Invariant: a partition has at most one fetcher, that of its leader.

use crate::follower::FetchPosition;
use crate::partitions::Partitions;
use crate::{Fetched, Partition};
use bytestring::ByteString;
use std::collections::{BTreeMap, BTreeSet};
use tidelog_batch::Checked;
use tidelog_wire::ids::{LeaderEpoch, LogId, NodeId, Offset, Uuid};
use tidelog_wire::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use tidelog_wire::messages::fetch_response::PartitionData;
use tidelog_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use tidelog_wire::messages::{FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse};
use tidelog_wire::time::Mono;
use tidelog_wire::{ErrorCode, Int32s, RequestBody, ResponseBody};

/// What `num.replica.fetchers` and the `replica.fetch.*` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchSettings {
    pub node: NodeId,
    pub fetchers_per_leader: u16,
    pub wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub partition_max_bytes: i32,
    pub backoff_ms: i64,
}

/// One of the fetchers of a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FetcherId {
    pub leader: NodeId,
    pub number: u16,
}

/// What a leader has answered for one partition.
#[derive(Debug)]
pub struct FetcherAnswer {
    pub log: LogId,
    /// From where it was asked.
    pub position: FetchPosition,
    pub result: FetcherResult,
}

#[derive(Debug)]
pub enum FetcherResult {
    Fetched(Fetched),
    /// The leader's log starts and ends here: the follower's ends elsewhere.
    OutOfRange {
        start: Offset,
        end: Offset,
    },
    /// The partition is asked for again after a pause.
    Refused(ErrorCode),
}

#[derive(Debug)]
pub struct Fetchers {
    settings: FetchSettings,
    fetchers: BTreeMap<FetcherId, Fetcher>,
    by_log: BTreeMap<LogId, (FetcherId, Key)>,
    /// The fetchers that may have something to ask.
    ready: BTreeSet<FetcherId>,
    /// How many questions were asked.
    asked: u64,
}

/// The topic's id and the index of the partition.
type Key = (Uuid, i32);

#[derive(Debug, Default)]
struct Fetcher {
    members: BTreeMap<Key, Member>,
    /// The members of which the leader's session may know something else than what is to be asked.
    changed: BTreeSet<Key>,
    /// How many members the leader's session has.
    in_session: usize,
    /// Partitions that are in the leader's session and are no members any more.
    left: BTreeSet<Key>,
    /// The members that are not asked for before this moment.
    pauses: BTreeSet<(Mono, Key)>,
    /// The members whose last answer is not stable yet.
    settling: BTreeSet<Key>,
    /// The members whose offset the leader has not, with the end of the leader's log once it is known.
    out_of_range: BTreeMap<Key, (FetchPosition, Option<Offset>)>,
    session: Session,
    /// The question that is on its way, with its number.
    asked: Option<(u64, Asked)>,
    paused_until: Mono,
}

#[derive(Debug)]
struct Member {
    log: LogId,
    topic: ByteString,
    paused_until: Mono,
    /// From where the leader's session fetches.
    in_session: Option<FetchPosition>,
}

/// The id that the leader has given, and the epoch of the next fetch. Both are 0 where there is no session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Session {
    id: i32,
    epoch: i32,
}

#[derive(Debug)]
enum Asked {
    Fetch,
    /// Where the leader's logs end, or start.
    Offsets(BTreeMap<(ByteString, i32), Key>),
}

/// A question to a leader.
#[derive(Debug)]
pub struct FetcherQuestion {
    pub fetcher: FetcherId,
    pub number: u64,
    pub request: RequestBody,
}

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

impl Fetchers {
    pub fn new(settings: FetchSettings) -> Self {
        Self { settings, fetchers: BTreeMap::new(), by_log: BTreeMap::new(), ready: BTreeSet::new(), asked: 0 }
    }

    /// Each leader has this many fetchers from now on. Whether that differs from before: then all partitions are to be
    /// followed anew.
    pub fn resize(&mut self, per_leader: u16) -> bool {
        std::mem::replace(&mut self.settings.fetchers_per_leader, per_leader) != per_leader
    }

    /// The partition may follow another leader than before, or none, or in another epoch.
    pub fn follow(&mut self, log: LogId, partition: &Partition) {
        let fetcher = partition.follows().map(|leader| self.fetcher_of(leader, partition));
        if self.by_log.get(&log).map(|(id, _)| *id) != fetcher {
            self.forget(log);
        }
        let Some(id) = fetcher else { return };
        let key = (partition.topic_id(), partition.index());
        self.by_log.insert(log, (id, key));
        self.fetchers.entry(id).or_default().follow(key, log, partition.topic());
        self.ready.insert(id);
    }

    /// All partitions of a leader are spread over its fetchers.
    fn fetcher_of(&self, leader: NodeId, partition: &Partition) -> FetcherId {
        let topic = partition.topic().bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let hash = topic.wrapping_mul(31).wrapping_add(partition.index() as u32);
        FetcherId { leader, number: (hash % u32::from(self.settings.fetchers_per_leader.max(1))) as u16 }
    }

    /// The partition is not fetched any more.
    pub fn forget(&mut self, log: LogId) {
        let Some((id, key)) = self.by_log.remove(&log) else { return };
        let fetcher = self.fetchers.get_mut(&id).expect("a partition's fetcher is there");
        fetcher.forget(key);
        if fetcher.members.is_empty() {
            self.fetchers.remove(&id);
        }
        self.ready.insert(id);
    }

    /// Whether there is nothing to ask, and nobody pauses.
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.fetchers.is_empty()
    }

    /// Nothing is fetched any more.
    pub fn clear(&mut self) {
        (self.fetchers, self.by_log, self.ready) = Default::default();
    }

    fn member(&mut self, log: LogId) -> Option<(FetcherId, Key, &mut Fetcher)> {
        let (id, key) = *self.by_log.get(&log)?;
        Some((id, key, self.fetchers.get_mut(&id).expect("a partition's fetcher is there")))
    }

    /// Something has happened in the partition's log: it may be fetched for again.
    pub fn moved(&mut self, log: LogId, partition: &Partition) {
        if let Some((id, key, fetcher)) = self.member(log)
            && partition.fetch_position().is_some()
        {
            fetcher.settling.remove(&key);
            fetcher.changed.insert(key);
            self.ready.insert(id);
        }
    }

    /// What was answered for the partition is on its way to the disk: nothing is fetched before it is stable.
    pub fn took(&mut self, log: LogId, partition: &Partition) {
        if let Some((_, key, fetcher)) = self.member(log) {
            fetcher.changed.insert(key);
            // A log that is cut takes long: the others do not wait for it.
            if partition.fetch_position().is_none() && !partition.is_cutting() {
                fetcher.settling.insert(key);
            }
        }
    }

    /// The partition is asked for again after a pause.
    pub fn pause(&mut self, now: Mono, log: LogId) {
        let until = now.plus_ms(self.settings.backoff_ms);
        if let Some((_, key, fetcher)) = self.member(log) {
            fetcher.pause(key, until);
        }
    }

    /// The next question to a leader, if there is one now.
    pub fn next(&mut self, now: Mono, partitions: &Partitions, broker_epoch: i64) -> Option<FetcherQuestion> {
        while let Some(id) = self.ready.pop_first() {
            let Some(fetcher) = self.fetchers.get_mut(&id) else { continue };
            if fetcher.asked.is_some() || fetcher.paused_until > now || !fetcher.settling.is_empty() {
                continue;
            }
            let asked = fetcher
                .ask_offsets(&self.settings, partitions)
                .or_else(|| fetcher.fetch(now, &self.settings, partitions, broker_epoch));
            if let Some((asked, request)) = asked {
                self.asked += 1;
                fetcher.asked = Some((self.asked, asked));
                return Some(FetcherQuestion { fetcher: id, number: self.asked, request });
            }
        }
        None
    }

    /// The leader has answered the question of this number. `batches` are the verdicts on the records of each partition, in
    /// the order of the answer.
    pub fn answered(
        &mut self,
        now: Mono,
        id: FetcherId,
        number: u64,
        body: ResponseBody,
        batches: Vec<Vec<Checked>>,
    ) -> Vec<FetcherAnswer> {
        let Some(asked) = self.take_asked(id, number) else { return Vec::new() };
        let fetcher = self.fetchers.get_mut(&id).expect("it has asked");
        match (asked, body) {
            (Asked::Fetch, ResponseBody::Fetch(body)) => match ErrorCode::from_code(body.error_code) {
                Some(ErrorCode::None) => fetcher.fetched(body, batches),
                Some(ErrorCode::FetchSessionIdNotFound | ErrorCode::InvalidFetchSessionEpoch) => {
                    // The leader was restarted, or needed the room. A full fetch begins another session.
                    fetcher.end_session();
                    Vec::new()
                }
                _ => {
                    fetcher.fail(now.plus_ms(self.settings.backoff_ms));
                    Vec::new()
                }
            },
            (Asked::Offsets(asked), ResponseBody::ListOffsets(body)) => fetcher.located(&asked, body),
            (asked, body) => panic!("{asked:?} was answered with {:?}", body.api_key()),
        }
    }

    /// The leader could not be asked, or has not answered.
    pub fn failed(&mut self, now: Mono, id: FetcherId, number: u64) {
        if self.take_asked(id, number).is_some() {
            let until = now.plus_ms(self.settings.backoff_ms);
            self.fetchers.get_mut(&id).expect("it has asked").fail(until);
        }
    }

    /// What the fetcher has asked, unless it was given up meanwhile.
    fn take_asked(&mut self, id: FetcherId, number: u64) -> Option<Asked> {
        let fetcher = self.fetchers.get_mut(&id)?;
        let (_, asked) = fetcher.asked.take_if(|(asked, _)| *asked == number)?;
        self.ready.insert(id);
        Some(asked)
    }

    /// When a pause ends.
    pub fn deadline(&self) -> Option<Mono> {
        let idle = self.fetchers.values().filter(|fetcher| fetcher.asked.is_none());
        idle.filter_map(Fetcher::pause_ends).min()
    }

    /// Makes those ready whose pause has ended.
    pub fn wake(&mut self, now: Mono) {
        let awake = self.fetchers.iter().filter(|(_, fetcher)| fetcher.pause_ends().is_some_and(|until| until <= now));
        self.ready.extend(awake.map(|(id, _)| *id));
    }

    /// Asserts the invariants.
    pub fn verify(&self) {
        for (log, (id, key)) in &self.by_log {
            assert_eq!(self.fetchers[id].members[key].log, *log, "a partition's fetcher has it");
        }
        let members: usize = self.fetchers.values().map(|fetcher| fetcher.members.len()).sum();
        assert_eq!(members, self.by_log.len(), "a partition has at most one fetcher");
        self.fetchers.values().for_each(Fetcher::verify);
    }
}

impl Fetcher {
    fn follow(&mut self, key: Key, log: LogId, topic: &ByteString) {
        let member = Member { log, topic: topic.clone(), paused_until: Mono::ZERO, in_session: None };
        let member = self.members.entry(key).or_insert(member);
        // A leader of a new epoch is asked at once.
        self.pauses.remove(&(member.paused_until, key));
        member.paused_until = Mono::ZERO;
        self.changed.insert(key);
    }

    fn forget(&mut self, key: Key) {
        let member = self.members.remove(&key).expect("a member is forgotten once");
        self.pauses.remove(&(member.paused_until, key));
        self.changed.remove(&key);
        self.settling.remove(&key);
        self.out_of_range.remove(&key);
        if member.in_session.is_some() {
            self.in_session -= 1;
            self.left.insert(key);
        }
    }

    fn pause(&mut self, key: Key, until: Mono) {
        let member = self.members.get_mut(&key).expect("a member pauses");
        self.pauses.remove(&(member.paused_until, key));
        member.paused_until = until;
        self.pauses.insert((until, key));
        self.changed.insert(key);
    }

    /// When the next member, or the whole fetcher, may ask again; none if nobody pauses.
    fn pause_ends(&self) -> Option<Mono> {
        let first = self.pauses.first().map(|(until, _)| *until).unwrap_or(Mono::ZERO);
        let until = first.max(self.paused_until);
        (until > Mono::ZERO).then_some(until)
    }

    /// A Fetch of all members that can take something.
    fn fetch(
        &mut self,
        now: Mono,
        settings: &FetchSettings,
        partitions: &Partitions,
        broker_epoch: i64,
    ) -> Option<(Asked, RequestBody)> {
        self.paused_until = Mono::ZERO;
        while let Some((_, key)) = self.pauses.first().copied().filter(|(until, _)| *until <= now) {
            self.pauses.pop_first();
            self.members.get_mut(&key).expect("a member pauses").paused_until = Mono::ZERO;
            self.changed.insert(key);
        }
        let (mut topics, mut forgotten): (Vec<FetchTopic>, BTreeSet<Key>) = (Vec::new(), BTreeSet::new());
        for key in std::mem::take(&mut self.changed) {
            let member = self.members.get_mut(&key).expect("a member has changed");
            let position = partitions.get(member.log).and_then(Partition::fetch_position);
            let is_asked = member.paused_until <= now && !self.out_of_range.contains_key(&key);
            let position = position.filter(|_| is_asked);
            let before = std::mem::replace(&mut member.in_session, position);
            self.in_session += usize::from(position.is_some());
            self.in_session -= usize::from(before.is_some());
            match position {
                Some(position) if before != Some(position) => {
                    self.left.remove(&key);
                    push(&mut topics, key, &position, settings);
                }
                None if before.is_some() => _ = forgotten.insert(key),
                _ => {}
            }
        }
        if self.in_session == 0 {
            self.end_session();
            return None;
        }
        if self.session != Session::default() {
            forgotten.append(&mut self.left);
        }
        let request = FetchRequest {
            replica_state: ReplicaState {
                replica_id: settings.node.0,
                replica_epoch: broker_epoch,
                ..Default::default()
            },
            max_wait_ms: settings.wait_ms,
            min_bytes: settings.min_bytes,
            max_bytes: settings.max_bytes,
            session_id: self.session.id,
            session_epoch: self.session.epoch,
            topics,
            forgotten_topics_data: by_topic(forgotten),
            ..Default::default()
        };
        Some((Asked::Fetch, request.into()))
    }

    /// Asks where the leader's log ends, or starts, for members that it has no records for.
    fn ask_offsets(&mut self, settings: &FetchSettings, partitions: &Partitions) -> Option<(Asked, RequestBody)> {
        let members = &self.members;
        self.out_of_range.retain(|key, (position, _)| {
            partitions.get(members[key].log).and_then(Partition::fetch_position) == Some(*position)
        });
        let mut topics: BTreeMap<ByteString, Vec<ListOffsetsPartition>> = BTreeMap::new();
        let mut asked = BTreeMap::new();
        for (key, (position, end)) in &self.out_of_range {
            let topic = &self.members[key].topic;
            asked.insert((topic.clone(), key.1), *key);
            topics.entry(topic.clone()).or_default().push(ListOffsetsPartition {
                partition_index: key.1,
                current_leader_epoch: position.leader_epoch.0,
                timestamp: if end.is_none() { LATEST } else { EARLIEST },
                ..Default::default()
            });
        }
        if asked.is_empty() {
            return None;
        }
        let topics = topics.into_iter();
        let topics = topics.map(|(name, partitions)| ListOffsetsTopic { name, partitions, ..Default::default() });
        let request =
            ListOffsetsRequest { replica_id: settings.node.0, topics: topics.collect(), ..Default::default() };
        Some((Asked::Offsets(asked), request.into()))
    }

    fn fetched(&mut self, body: FetchResponse, batches: Vec<Vec<Checked>>) -> Vec<FetcherAnswer> {
        let mut batches = batches.into_iter();
        let mut answers = Vec::new();
        for topic in body.responses {
            for data in topic.partitions {
                let batches = batches.next().unwrap_or_default();
                let key = (topic.topic_id, data.partition_index);
                // A member that has come back meanwhile is in no session.
                let Some(member) = self.members.get(&key) else { continue };
                let (log, Some(position)) = (member.log, member.in_session) else { continue };
                if data.error_code == ErrorCode::OffsetOutOfRange.code() {
                    self.out_of_range.insert(key, (position, None));
                    self.changed.insert(key);
                    continue;
                }
                answers.push(FetcherAnswer { log, position, result: result(&data, batches) });
            }
        }
        let before = self.session;
        match body.session_id {
            0 => self.end_session(),
            id if id == before.id => self.session.epoch = if before.epoch == i32::MAX { 1 } else { before.epoch + 1 },
            id => self.session = Session { id, epoch: 1 },
        }
        answers
    }

    /// The leader has told where its logs end, or start.
    fn located(&mut self, asked: &BTreeMap<(ByteString, i32), Key>, body: ListOffsetsResponse) -> Vec<FetcherAnswer> {
        let mut answers = Vec::new();
        for topic in body.topics {
            for told in topic.partitions {
                let Some(key) = asked.get(&(topic.name.clone(), told.partition_index)) else { continue };
                let Some((position, end)) = self.out_of_range.remove(key) else { continue };
                let offset = Offset(told.offset);
                let result = match (ErrorCode::from_code(told.error_code), end) {
                    (Some(ErrorCode::None), None) if offset >= position.offset => {
                        self.out_of_range.insert(*key, (position, Some(offset)));
                        continue;
                    }
                    (Some(ErrorCode::None), None) => FetcherResult::OutOfRange { start: Offset::ZERO, end: offset },
                    (Some(ErrorCode::None), Some(end)) => FetcherResult::OutOfRange { start: offset, end },
                    (error, _) => FetcherResult::Refused(error.unwrap_or(ErrorCode::UnknownServerError)),
                };
                self.changed.insert(*key);
                answers.push(FetcherAnswer { log: self.members[key].log, position, result });
            }
        }
        answers
    }

    /// The next fetch is a full one.
    fn end_session(&mut self) {
        self.session = Session::default();
        self.left.clear();
        self.in_session = 0;
        for (key, member) in &mut self.members {
            member.in_session = None;
            self.changed.insert(*key);
        }
    }

    fn fail(&mut self, paused_until: Mono) {
        self.paused_until = paused_until;
        self.end_session();
    }

    fn verify(&self) {
        assert_eq!(self.in_session, self.members.values().filter(|member| member.in_session.is_some()).count());
        let named = self.changed.iter().chain(&self.settling).chain(self.out_of_range.keys());
        assert!(named.chain(self.pauses.iter().map(|(_, key)| key)).all(|key| self.members.contains_key(key)));
        assert!(self.pauses.iter().all(|(until, key)| self.members[key].paused_until == *until));
    }
}

fn push(topics: &mut Vec<FetchTopic>, (topic_id, partition): Key, position: &FetchPosition, settings: &FetchSettings) {
    let asked = FetchPartition {
        partition,
        current_leader_epoch: position.leader_epoch.0,
        fetch_offset: position.offset.0,
        last_fetched_epoch: position.last_epoch.0,
        log_start_offset: position.log_start.0,
        partition_max_bytes: settings.partition_max_bytes,
        ..Default::default()
    };
    match topics.last_mut() {
        Some(topic) if topic.topic_id == topic_id => topic.partitions.push(asked),
        _ => topics.push(FetchTopic { topic_id, partitions: vec![asked], ..Default::default() }),
    }
}

fn by_topic(keys: BTreeSet<Key>) -> Vec<ForgottenTopic> {
    let mut topics: Vec<ForgottenTopic> = Vec::new();
    for (topic_id, index) in keys {
        match topics.last_mut() {
            Some(topic) if topic.topic_id == topic_id => topic.partitions.push(index),
            _ => {
                topics.push(ForgottenTopic { topic_id, partitions: Int32s::from_slice(&[index]), ..Default::default() })
            }
        }
    }
    topics
}

fn result(data: &PartitionData, batches: Vec<Checked>) -> FetcherResult {
    match ErrorCode::from_code(data.error_code).unwrap_or(ErrorCode::UnknownServerError) {
        ErrorCode::None => {
            let diverging = &data.diverging_epoch;
            let diverging =
                (diverging.epoch >= 0).then_some((LeaderEpoch(diverging.epoch), Offset(diverging.end_offset)));
            FetcherResult::Fetched(Fetched {
                high_watermark: Offset(data.high_watermark),
                log_start: Offset(data.log_start_offset),
                diverging,
                batches,
            })
        }
        error => FetcherResult::Refused(error),
    }
}
