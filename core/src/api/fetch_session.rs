//! Incremental fetch sessions (KIP-227).
//!
//! A client that fetches the same partitions again and again names them once. Later requests name only partitions that
//! changed, and responses contain only partitions with news. A session is a cache: if the broker drops it, the client
//! makes one full fetch.
//!
//! Invariant: a session's epoch grows by one with each fetch, from 1 to `i32::MAX`, and then starts at 1 again.

use crate::ids::Uuid;
use crate::plant::{Plant, Plants};
use crate::time::Mono;
use crate::wire::ErrorCode;
use crate::wire::messages::fetch_request::{FetchPartition, FetchRequest};
use crate::wire::messages::fetch_response::PartitionData;
use bytestring::ByteString;
use std::collections::BTreeMap;
use std::time::Duration;

/// A session can be evicted for another one only after this time.
const EVICTABLE_AFTER: Duration = Duration::from_secs(120);

/// How a fetch names a topic: by its name up to v12, by its id from v13 on (KIP-516).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicKey {
    Name(ByteString),
    Id(Uuid),
}

/// One partition that a fetch asks for.
#[derive(Clone, Debug)]
pub struct FetchTarget {
    pub topic: TopicKey,
    pub partition: i32,
    pub current_leader_epoch: i32,
    pub fetch_offset: i64,
    pub last_fetched_epoch: i32,
    /// Where the log of a follower starts.
    pub log_start_offset: i64,
    pub partition_max_bytes: i32,
}

impl FetchTarget {
    fn new(topic: TopicKey, request: &FetchPartition) -> Self {
        Self {
            topic,
            partition: request.partition,
            current_leader_epoch: request.current_leader_epoch,
            fetch_offset: request.fetch_offset,
            last_fetched_epoch: request.last_fetched_epoch,
            log_start_offset: request.log_start_offset,
            partition_max_bytes: request.partition_max_bytes,
        }
    }
}

/// The kind of a fetch, which decides which partitions its answer names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchContext {
    /// A full fetch that wants no session.
    Sessionless,
    /// A full fetch that asks for a session.
    Full,
    /// A fetch in the session with this id.
    Incremental(i32),
}

/// A partition of a session, with what its last answer said.
#[derive(Debug)]
struct CachedPartition {
    target: FetchTarget,
    /// As in the last answer. -1: the next answer names the partition even without news.
    high_watermark: i64,
    log_start_offset: i64,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    uses_topic_ids: bool,
    created: Mono,
    last_used: Mono,
    /// By place, which is the order in which a fetch serves them. A partition that returned records moves to the last
    /// place.
    partitions: BTreeMap<u64, CachedPartition>,
    /// The place of each partition.
    places: BTreeMap<(TopicKey, i32), u64>,
    next_place: u64,
}

impl Session {
    fn new(uses_topic_ids: bool, now: Mono) -> Self {
        Self {
            epoch: 1,
            uses_topic_ids,
            created: now,
            last_used: now,
            partitions: BTreeMap::new(),
            places: BTreeMap::new(),
            next_place: 0,
        }
    }

    /// Adds a partition, or replaces what is asked of one that is there.
    fn put(&mut self, target: FetchTarget) {
        let key = (target.topic.clone(), target.partition);
        if let Some(place) = self.places.get(&key) {
            self.partitions.get_mut(place).expect("each place has a partition").target = target;
            return;
        }
        let cached = CachedPartition { target, high_watermark: -1, log_start_offset: -1 };
        self.places.insert(key, self.next_place);
        self.partitions.insert(self.next_place, cached);
        self.next_place += 1;
    }

    fn remove(&mut self, topic: TopicKey, partition: i32) {
        if let Some(place) = self.places.remove(&(topic, partition)) {
            self.partitions.remove(&place);
        }
    }

    fn move_to_end(&mut self, key: &(TopicKey, i32)) {
        let place = self.places.get_mut(key).expect("the caller found it");
        let cached = self.partitions.remove(place).expect("each place has a partition");
        *place = self.next_place;
        self.partitions.insert(self.next_place, cached);
        self.next_place += 1;
    }
}

/// The sessions of all clients, at most `slots` of them.
#[derive(Debug)]
pub struct FetchSessions {
    slots: usize,
    sessions: BTreeMap<i32, Session>,
    /// How many sessions were evicted for another one.
    evictions: u64,
    plants: Plants,
}

impl FetchSessions {
    /// `slots`: `max.incremental.fetch.session.cache.slots`.
    pub fn new(slots: usize, plants: Plants) -> Self {
        Self { slots, sessions: BTreeMap::new(), evictions: 0, plants }
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The partitions of all sessions.
    pub fn partitions(&self) -> usize {
        self.sessions.values().map(|session| session.partitions.len()).sum()
    }

    /// How many sessions were evicted for another one.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Brings the session of a request up to date, and gives the partitions that the request asks for.
    ///
    /// Errors: `FetchSessionIdNotFound`, `InvalidFetchSessionEpoch`, `FetchSessionTopicIdError`.
    pub fn begin(
        &mut self,
        now: Mono,
        version: i16,
        request: &FetchRequest,
    ) -> Result<(FetchContext, Vec<FetchTarget>), ErrorCode> {
        let by_id = version >= 13;
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch <= 0 {
            if id != 0 {
                self.sessions.remove(&id);
            }
            let context = if epoch == 0 { FetchContext::Full } else { FetchContext::Sessionless };
            return Ok((context, targets(request, by_id).collect()));
        }
        let session = self.sessions.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.epoch != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.uses_topic_ids != by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        session.last_used = now;
        for target in targets(request, by_id) {
            session.put(target);
        }
        for topic in &request.forgotten_topics_data {
            for partition in &topic.partitions {
                session.remove(topic_key(by_id, &topic.topic, topic.topic_id), *partition);
            }
        }
        if session.partitions.is_empty() {
            self.sessions.remove(&id);
            return Ok((FetchContext::Sessionless, Vec::new()));
        }
        session.epoch = next_epoch(session.epoch);
        let targets = session.partitions.values().map(|cached| cached.target.clone()).collect();
        Ok((FetchContext::Incremental(id), targets))
    }

    /// Makes an answer of the outcomes for all partitions: the session id to send, and the partitions to send. A new
    /// session is created here.
    pub fn finish(
        &mut self,
        now: Mono,
        context: FetchContext,
        answers: Vec<(FetchTarget, PartitionData)>,
        mut draw: impl FnMut() -> i32,
    ) -> (i32, Vec<(FetchTarget, PartitionData)>) {
        match context {
            FetchContext::Sessionless => (0, answers),
            FetchContext::Full => {
                if answers.is_empty() || !self.make_room(now, answers.len()) {
                    return (0, answers);
                }
                let uses_topic_ids = matches!(answers[0].0.topic, TopicKey::Id(_));
                let mut session = Session::new(uses_topic_ids, now);
                for (target, answer) in &answers {
                    session.put(target.clone());
                    let place = session.places[&(target.topic.clone(), target.partition)];
                    remember(session.partitions.get_mut(&place).expect("just put"), answer);
                }
                let id = loop {
                    let id = draw() & i32::MAX;
                    if id != 0 && !self.sessions.contains_key(&id) {
                        break id;
                    }
                };
                self.sessions.insert(id, session);
                (id, answers)
            }
            FetchContext::Incremental(id) => {
                // The session was evicted while the fetch waited. The answer names all partitions, and the next request
                // finds no session.
                let Some(session) = self.sessions.get_mut(&id) else { return (id, answers) };
                let mut told = answers;
                told.retain(|(target, answer)| {
                    let key = (target.topic.clone(), target.partition);
                    let Some(place) = session.places.get(&key) else { return true };
                    let cached = session.partitions.get_mut(place).expect("each place has a partition");
                    let news = has_news(cached, answer);
                    remember(cached, answer);
                    if news && !has_records(answer) && self.plants.has(Plant::SessionForgetsPartition) {
                        session.remove(key.0, key.1);
                    } else if has_records(answer) {
                        session.move_to_end(&key);
                    }
                    news
                });
                (id, told)
            }
        }
    }

    /// Makes room for a session of `size` partitions, if need be by evicting another one. `false`: none may be evicted.
    fn make_room(&mut self, now: Mono, size: usize) -> bool {
        if self.sessions.len() < self.slots {
            return true;
        }
        let idle = self.sessions.iter().min_by_key(|(_, session)| session.last_used);
        let victim = match idle {
            None => return false,
            Some((id, session)) if now.since(session.last_used) > EVICTABLE_AFTER => *id,
            Some(_) => {
                let smallest = self
                    .sessions
                    .iter()
                    .filter(|(_, session)| now.since(session.created) > EVICTABLE_AFTER)
                    .min_by_key(|(_, session)| session.partitions.len());
                match smallest {
                    Some((id, session)) if session.partitions.len() < size => *id,
                    _ => return false,
                }
            }
        };
        self.sessions.remove(&victim);
        self.evictions += 1;
        true
    }
}

fn topic_key(by_id: bool, name: &ByteString, id: Uuid) -> TopicKey {
    if by_id { TopicKey::Id(id) } else { TopicKey::Name(name.clone()) }
}

fn targets(request: &FetchRequest, by_id: bool) -> impl Iterator<Item = FetchTarget> {
    request.topics.iter().flat_map(move |topic| {
        topic
            .partitions
            .iter()
            .map(move |partition| FetchTarget::new(topic_key(by_id, &topic.topic, topic.topic_id), partition))
    })
}

fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

fn has_records(answer: &PartitionData) -> bool {
    answer.records.as_ref().is_some_and(|records| !records.is_empty())
}

fn has_news(cached: &CachedPartition, answer: &PartitionData) -> bool {
    has_records(answer)
        || answer.error_code != 0
        || answer.high_watermark != cached.high_watermark
        || answer.log_start_offset != cached.log_start_offset
        || answer.diverging_epoch.epoch >= 0
        || answer.preferred_read_replica >= 0
}

fn remember(cached: &mut CachedPartition, answer: &PartitionData) {
    cached.log_start_offset = answer.log_start_offset;
    // After an error the next answer names the partition even without news.
    cached.high_watermark = if answer.error_code == 0 { answer.high_watermark } else { -1 };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Records;
    use crate::wire::messages::fetch_request::{FetchTopic, ForgottenTopic};
    use bytes::Bytes;
    use smallvec::smallvec;

    fn request(session_id: i32, session_epoch: i32, partitions: &[i32]) -> FetchRequest {
        let partitions = partitions.iter().map(|p| FetchPartition { partition: *p, ..Default::default() }).collect();
        FetchRequest {
            session_id,
            session_epoch,
            topics: vec![FetchTopic { topic: "t".into(), partitions, ..Default::default() }],
            ..Default::default()
        }
    }

    fn data(partition: i32, high_watermark: i64, records: &'static [u8]) -> PartitionData {
        PartitionData {
            partition_index: partition,
            high_watermark,
            log_start_offset: 0,
            records: Some(Records::from(Bytes::from_static(records))),
            ..Default::default()
        }
    }

    fn answers(targets: Vec<FetchTarget>, high_watermark: i64) -> Vec<(FetchTarget, PartitionData)> {
        targets.into_iter().map(|t| (t.clone(), data(t.partition, high_watermark, b""))).collect()
    }

    fn told(answers: &[(FetchTarget, PartitionData)]) -> Vec<i32> {
        answers.iter().map(|(_, answer)| answer.partition_index).collect()
    }

    #[test]
    fn an_incremental_answer_names_only_what_changed() {
        let mut sessions = FetchSessions::new(10, Plants::default());
        let (context, targets) = sessions.begin(Mono::ZERO, 12, &request(0, 0, &[0, 1, 2])).unwrap();
        assert_eq!(context, FetchContext::Full);
        let (id, full) = sessions.finish(Mono::ZERO, context, answers(targets, 5), || 42);
        assert_eq!((id, told(&full)), (42, vec![0, 1, 2]));

        let (context, targets) = sessions.begin(Mono::ZERO, 12, &request(42, 1, &[])).unwrap();
        assert_eq!(context, FetchContext::Incremental(42));
        let mut now = answers(targets, 5);
        now[1].1 = data(1, 6, b"records");
        let (_, changed) = sessions.finish(Mono::ZERO, context, now, || 0);
        assert_eq!(told(&changed), [1]);

        let (_, targets) = sessions.begin(Mono::ZERO, 12, &request(42, 2, &[])).unwrap();
        let order: Vec<i32> = targets.iter().map(|t| t.partition).collect();
        assert_eq!(order, [0, 2, 1], "the one that returned records is served last");
    }

    #[test]
    fn a_partition_in_error_is_named_again() {
        let mut sessions = FetchSessions::new(10, Plants::default());
        let (context, targets) = sessions.begin(Mono::ZERO, 12, &request(0, 0, &[0])).unwrap();
        let mut first = answers(targets, 5);
        first[0].1.error_code = ErrorCode::NotLeaderOrFollower.code();
        sessions.finish(Mono::ZERO, context, first, || 42);
        let (context, targets) = sessions.begin(Mono::ZERO, 12, &request(42, 1, &[])).unwrap();
        let (_, changed) = sessions.finish(Mono::ZERO, context, answers(targets, 5), || 0);
        assert_eq!(told(&changed), [0]);
    }

    #[test]
    fn wrong_ids_and_epochs_are_refused() {
        let mut sessions = FetchSessions::new(10, Plants::default());
        let (context, targets) = sessions.begin(Mono::ZERO, 12, &request(0, 0, &[0])).unwrap();
        sessions.finish(Mono::ZERO, context, answers(targets, 5), || 42);
        let refused = |sessions: &mut FetchSessions, version, id, epoch| {
            sessions.begin(Mono::ZERO, version, &request(id, epoch, &[])).unwrap_err()
        };
        assert_eq!(refused(&mut sessions, 12, 41, 1), ErrorCode::FetchSessionIdNotFound);
        assert_eq!(refused(&mut sessions, 12, 42, 2), ErrorCode::InvalidFetchSessionEpoch);
        assert_eq!(refused(&mut sessions, 13, 42, 1), ErrorCode::FetchSessionTopicIdError);
    }

    #[test]
    fn forgetting_the_last_partition_ends_the_session() {
        let mut sessions = FetchSessions::new(10, Plants::default());
        let (context, targets) = sessions.begin(Mono::ZERO, 12, &request(0, 0, &[0])).unwrap();
        sessions.finish(Mono::ZERO, context, answers(targets, 5), || 42);
        let mut forget = request(42, 1, &[]);
        forget.forgotten_topics_data =
            vec![ForgottenTopic { topic: "t".into(), partitions: smallvec![0], ..Default::default() }];
        assert_eq!(sessions.begin(Mono::ZERO, 12, &forget).unwrap().0, FetchContext::Sessionless);
        assert!(sessions.is_empty());
    }

    #[test]
    fn a_full_cache_gives_up_only_sessions_that_are_old() {
        let mut sessions = FetchSessions::new(1, Plants::default());
        let mut open = |now: Mono, id| {
            let (context, targets) = sessions.begin(now, 12, &request(0, 0, &[0])).unwrap();
            sessions.finish(now, context, answers(targets, 5), || id).0
        };
        assert_eq!(open(Mono::ZERO, 1), 1);
        assert_eq!(open(Mono::ZERO.plus_ms(60_000), 2), 0, "no room: the fetch stands without a session");
        assert_eq!(open(Mono::ZERO.plus_ms(120_001), 3), 3);
    }

    #[test]
    fn the_epoch_wraps_to_one() {
        assert_eq!(next_epoch(i32::MAX), 1);
    }
}
