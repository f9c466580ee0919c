//! Fetch: gives records of partitions from given offsets on, at once or when there are enough.
//!
//! A fetch makes *passes* over its partitions, in the order of the request, within one budget of bytes. The first batch
//! is given even if it is larger than the budget, so that a consumer always gets on (KIP-74). A pass pauses while a log
//! reads its disk to find a position. After a pass the fetch is answered if it has found `min_bytes`, if there is an
//! error, or if no time is left. Otherwise it waits until the high watermark of one of its partitions moves, and makes
//! another pass.

use crate::api::fetch_session::{FetchContext, FetchTarget, TopicKey};
use crate::api::list_offsets::ISOLATION_LEVELS;
use crate::api::{Endpoint, KnownBrokers, Parts, PendingRequest, Ticket};
use crate::ids::{LeaderEpoch, LogId, NodeId, Offset, PendingId, Uuid};
use crate::io::Outbox;
use crate::probe::Probe;
use crate::replication::{FollowerFetch, Watched, is_failure};
use crate::storage::ReadOutcome;
use crate::time::{Mono, Now};
use crate::wire::messages::fetch_request::FetchRequest;
use crate::wire::messages::fetch_response::{
    EpochEndOffset, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use crate::wire::{ErrorCode, Records, ResponseBody};
use bytes::Bytes;
use bytestring::ByteString;
use rand::Rng;
use smallvec::SmallVec;

/// The isolation level of readers that see no records of open or aborted transactions.
const READ_COMMITTED: i8 = 1;

/// A fetch that waits for a read of the disk or for new records.
#[derive(Debug)]
pub struct PendingFetch {
    pub ticket: Ticket,
    context: FetchContext,
    targets: Vec<FetchTarget>,
    /// The broker that fetches, with its epoch (-1 if it does not tell): a follower's. None: a consumer fetches.
    follower: Option<(NodeId, i64)>,
    /// Whether the isolation level is `read_committed` (KIP-98).
    read_committed: bool,
    min_bytes: u32,
    max_bytes: u32,
    deadline: Mono,
    pass: Pass,
    /// The partitions that wake this fetch when their high watermark moves.
    watched: Vec<LogId>,
    /// Whether a high watermark of `watched` moved while the pass waited for a read. Then the pass may have missed
    /// records.
    moved: bool,
    /// Whether this is not the first pass. Only the first pass counts the fetch in the counters of the partitions.
    is_repeated: bool,
}

/// One pass over the partitions.
#[derive(Debug, Default)]
struct Pass {
    /// The answers so far, in the order of the partitions.
    answers: Vec<PartitionData>,
    /// The bytes of the records found so far.
    bytes: u32,
    /// Whether the fetch must be answered without waiting: there is an error, or the reader's log diverges.
    urgent: bool,
    /// For each answer with records: its index in `answers`, the log, and how many bytes.
    found: SmallVec<[(usize, LogId, u32); 2]>,
    /// The log whose read the pass waits for.
    reading: Option<LogId>,
}

pub fn handle(parts: &mut Parts, now: Now, ticket: Ticket, request: FetchRequest, out: &mut Outbox) {
    let (context, targets) = match parts.sessions.begin(now.mono, ticket.api_version, &request) {
        Ok(begun) => begun,
        Err(error) => {
            out.probe(Probe::SessionRefused);
            let response = FetchResponse { error_code: error.code(), ..Default::default() };
            return parts.replies.answer(ticket, ResponseBody::Fetch(response), out);
        }
    };
    if !ISOLATION_LEVELS.contains(&request.isolation_level) && targets.iter().any(|target| exists(parts, target)) {
        let response = refused_whole(ticket.api_version, request);
        return parts.replies.answer(ticket, ResponseBody::Fetch(response), out);
    }
    let max_bytes = request.max_bytes.clamp(0, parts.config.fetch_max_bytes) as u32;
    let fetch = PendingFetch {
        follower: follower(ticket.api_version, &request),
        ticket,
        context,
        pass: Pass::new(targets.len()),
        targets,
        read_committed: request.isolation_level == READ_COMMITTED,
        min_bytes: (request.min_bytes.max(0) as u32).min(max_bytes),
        max_bytes,
        deadline: now.mono.plus_ms(request.max_wait_ms.into()),
        watched: Vec::new(),
        moved: false,
        is_repeated: false,
    };
    let id = parts.pending.next_id();
    advance(parts, now, id, Box::new(fetch), out);
}

/// The broker that follows with this fetch, and its epoch. Consumers have the id -1, and tools that look into logs -2.
fn follower(version: i16, request: &FetchRequest) -> Option<(NodeId, i64)> {
    let (id, epoch) = match version >= 15 {
        true => (request.replica_state.replica_id, request.replica_state.replica_epoch),
        false => (request.replica_id, -1),
    };
    (id >= 0).then_some((NodeId(id), epoch))
}

/// Refuses a request with an isolation level that does not exist. As in Kafka, only versions below 13 name the
/// partitions too.
fn refused_whole(version: i16, request: FetchRequest) -> FetchResponse {
    let error = ErrorCode::UnknownServerError;
    let topics = request.topics.into_iter().filter(|_| version < 13).map(|topic| FetchableTopicResponse {
        topic: topic.topic,
        partitions: topic
            .partitions
            .iter()
            .map(|of| PartitionData { aborted_transactions: Some(Vec::new()), ..refusal(of.partition, error) })
            .collect(),
        ..Default::default()
    });
    FetchResponse {
        error_code: error.code(),
        session_id: request.session_id,
        responses: topics.collect(),
        ..Default::default()
    }
}

fn exists(parts: &Parts, target: &FetchTarget) -> bool {
    let topic = match &target.topic {
        TopicKey::Id(id) => parts.image.topic(*id),
        TopicKey::Name(name) => parts.image.topic_named(name),
    };
    topic.is_some_and(|topic| topic.partitions.contains_key(&target.partition))
}

/// A read that the pass of this fetch waited for has completed.
pub fn read_done(parts: &mut Parts, now: Now, id: PendingId, outcome: ReadOutcome, out: &mut Outbox) {
    let Some((PendingRequest::Fetch(mut fetch), _)) = parts.pending.take(id) else { return };
    let log = fetch.pass.reading.take().expect("the pass waits for a read");
    let place = fetch.pass.answers.len();
    let answer = answer_without_records(parts, log, &fetch.targets[place], fetch.read_committed);
    fetch.take_outcome(parts, now, log, answer, outcome);
    advance(parts, now, id, fetch, out);
}

/// The high watermark of a watched partition has moved, or its log has failed.
pub fn wake(parts: &mut Parts, now: Now, id: PendingId, out: &mut Outbox) {
    let Some(PendingRequest::Fetch(fetch)) = parts.pending.get_mut(id) else { return };
    if fetch.pass.reading.is_some() {
        out.probe(Probe::FetchMovedWhileReading);
        fetch.moved = true;
    } else if let Some((PendingRequest::Fetch(mut fetch), _)) = parts.pending.take(id) {
        out.probe(Probe::FetchWoken);
        fetch.begin_another_pass();
        advance(parts, now, id, fetch, out);
    }
}

/// The time of the fetch has run out: it is answered with what the last pass found. If that pass waits for a read, the
/// answer waits for the read too.
pub fn expire(parts: &mut Parts, now: Now, id: PendingId, fetch: Box<PendingFetch>, out: &mut Outbox) {
    if fetch.pass.reading.is_some() {
        parts.pending.put(id, PendingRequest::Fetch(fetch), None);
    } else {
        out.probe(Probe::FetchExpired);
        answer(parts, now, id, fetch, out);
    }
}

/// Stops watching partitions for a fetch that is answered or whose client is gone.
pub fn forget(parts: &mut Parts, id: PendingId, fetch: &PendingFetch) {
    for log in &fetch.watched {
        if let Some(partition) = parts.partitions.get_mut(*log) {
            partition.unwatch(id);
        }
    }
}

/// Continues the pass. At the end of the pass the fetch is answered or waits.
fn advance(parts: &mut Parts, now: Now, id: PendingId, mut fetch: Box<PendingFetch>, out: &mut Outbox) {
    while fetch.pass.answers.len() < fetch.targets.len() {
        let target = &fetch.targets[fetch.pass.answers.len()];
        let log = match readable(parts, target, &fetch) {
            Ok(log) => log,
            Err(early) => {
                if !fetch.is_repeated
                    && let Ok(log) = find_log(parts, target)
                {
                    parts.partitions.get_mut(log).expect("just found").count_fetch();
                }
                fetch.pass.urgent = true;
                fetch.pass.answers.push(*early);
                continue;
            }
        };
        let answer = answer_without_records(parts, log, target, fetch.read_committed);
        let partition = parts.partitions.get_mut(log).expect("just found");
        if !fetch.is_repeated {
            partition.count_fetch();
        }
        let budget = fetch.max_bytes.saturating_sub(fetch.pass.bytes).min(target.partition_max_bytes.max(0) as u32);
        let first = fetch.pass.bytes == 0;
        match partition.read(Offset(target.fetch_offset), fetch.watches(), budget, first, id, out) {
            ReadOutcome::Pending => {
                out.probe(Probe::FetchWaitsForRead);
                fetch.pass.reading = Some(log);
                watch(parts, id, &mut fetch);
                parts.pending.put(id, PendingRequest::Fetch(fetch), None);
                return;
            }
            outcome => fetch.take_outcome(parts, now, log, answer, outcome),
        }
    }
    let satisfied = fetch.pass.urgent || fetch.pass.bytes >= fetch.min_bytes || fetch.targets.is_empty();
    if satisfied || now.mono >= fetch.deadline || parts.stopping {
        out.probe(Probe::FetchAtOnce);
        return answer(parts, now, id, fetch, out);
    }
    if fetch.moved {
        fetch.moved = false;
        fetch.begin_another_pass();
        return advance(parts, now, id, fetch, out);
    }
    out.probe(Probe::FetchWaits);
    watch(parts, id, &mut fetch);
    let deadline = fetch.deadline;
    parts.pending.put(id, PendingRequest::Fetch(fetch), Some(deadline));
}

/// The log to read from. An `Err` is the answer for a partition from which nothing is read: an error, or the place
/// where the reader's log diverges from this one (KIP-595).
fn readable(parts: &Parts, target: &FetchTarget, fetch: &PendingFetch) -> Result<LogId, Box<PartitionData>> {
    let version = fetch.ticket.api_version;
    let refused = |error| Box::new(refusal(target.partition, error));
    let log = find_led_log(parts, target).map_err(|error| refused(old_storage_error(version, error)))?;
    let partition = parts.partitions.get(log).expect("just found");
    if let Some((node, _)) = fetch.follower {
        partition.check_follower(node).map_err(refused)?;
    }
    match partition.divergence(LeaderEpoch(target.last_fetched_epoch), Offset(target.fetch_offset)) {
        Ok(None) => Ok(log),
        Ok(Some((epoch, end))) => {
            let mut answer = answer_without_records(parts, log, target, false);
            answer.diverging_epoch = EpochEndOffset { epoch: epoch.0, end_offset: end.0, ..Default::default() };
            Err(Box::new(answer))
        }
        Err(error) => Err(refused(error)),
    }
}

/// From now on the fetch is woken when the high watermark of one of its partitions moves.
fn watch(parts: &mut Parts, id: PendingId, fetch: &mut PendingFetch) {
    if !fetch.watched.is_empty() {
        return;
    }
    for target in &fetch.targets {
        if let Ok(log) = find_led_log(parts, target) {
            parts.partitions.get_mut(log).expect("just found").watch(id, fetch.watches());
            fetch.watched.push(log);
        }
    }
}

fn answer(parts: &mut Parts, now: Now, id: PendingId, mut fetch: Box<PendingFetch>, out: &mut Outbox) {
    forget(parts, id, &fetch);
    if !fetch.watched.is_empty() {
        refuse_lost_slices(parts, &mut fetch, out);
    }
    count(parts, &fetch);
    let node_endpoints = name_leaders(parts, &mut fetch);
    let answers = std::mem::take(&mut fetch.targets).into_iter().zip(std::mem::take(&mut fetch.pass.answers)).collect();
    let rng = &mut parts.rng;
    let (session_id, told) = parts.sessions.finish(now.mono, fetch.context, answers, || rng.next_u32() as i32);
    match fetch.context {
        FetchContext::Full if session_id == 0 => out.probe(Probe::SessionWithoutRoom),
        FetchContext::Incremental(_) => out.probe(Probe::SessionIncremental),
        _ => {}
    }
    let responses = by_topic(told);
    let response = FetchResponse { session_id, responses, node_endpoints, ..Default::default() };
    parts.replies.answer(fetch.ticket, ResponseBody::Fetch(response), out);
}

/// Puts the answers for neighbouring partitions of one topic together.
fn by_topic(answers: Vec<(FetchTarget, PartitionData)>) -> Vec<FetchableTopicResponse> {
    let mut topics = Vec::new();
    let mut answers = answers.into_iter();
    while let [(first, _), ..] = answers.as_slice() {
        let count = answers.as_slice().iter().take_while(|(target, _)| target.topic == first.topic).count();
        let (topic, topic_id) = match &first.topic {
            TopicKey::Name(name) => (name.clone(), Uuid::ZERO),
            TopicKey::Id(id) => (ByteString::new(), *id),
        };
        let partitions = answers.by_ref().take(count).map(|(_, answer)| answer).collect();
        topics.push(FetchableTopicResponse { topic, topic_id, partitions, ..Default::default() });
    }
    topics
}

/// Counts the answer of a fetch in the counters of its partitions.
fn count(parts: &mut Parts, fetch: &PendingFetch) {
    for (place, log, bytes) in &fetch.pass.found {
        if fetch.pass.answers[*place].error_code == 0
            && let Some(partition) = parts.partitions.get_mut(*log)
        {
            partition.count_fetched(*bytes);
        }
    }
    for (target, answer) in fetch.targets.iter().zip(&fetch.pass.answers) {
        if answer.error_code != 0
            && ErrorCode::from_code(answer.error_code).is_some_and(is_failure)
            && let Ok(log) = find_log(parts, target)
        {
            parts.partitions.get_mut(log).expect("just found").count_failed_fetch();
        }
    }
}

/// Names the leader to readers of partitions that this broker does not lead, or leads in a later epoch. Gives the
/// addresses of these leaders (KIP-951).
fn name_leaders(parts: &Parts, fetch: &mut PendingFetch) -> Vec<NodeEndpoint> {
    let mut endpoints: Vec<NodeEndpoint> = Vec::new();
    if fetch.ticket.api_version < 16 {
        return endpoints;
    }
    let told = [ErrorCode::NotLeaderOrFollower.code(), ErrorCode::FencedLeaderEpoch.code()];
    for (target, answer) in fetch.targets.iter().zip(&mut fetch.pass.answers) {
        if answer.error_code == 0 || !told.contains(&answer.error_code) {
            continue;
        }
        let TopicKey::Id(topic) = target.topic else { continue };
        let (leader_id, leader_epoch) = parts.current_leader(topic, target.partition);
        answer.current_leader = LeaderIdAndEpoch { leader_id, leader_epoch, ..Default::default() };
        if endpoints.iter().all(|known| known.node_id != leader_id)
            && let Some(Endpoint { node, host, port, rack }) = parts.endpoint_of(leader_id, fetch.ticket.listener)
        {
            endpoints.push(NodeEndpoint { node_id: node.0, host, port: port.into(), rack, ..Default::default() });
        }
    }
    endpoints
}

/// Replaces the answers whose records can no longer be sent. While the fetch waited, a log may have been closed or
/// deleted, or a segment may have been removed by retention. Their files are closed.
fn refuse_lost_slices(parts: &Parts, fetch: &mut PendingFetch, out: &mut Outbox) {
    for (target, answer) in fetch.targets.iter().zip(&mut fetch.pass.answers) {
        if answer.error_code != ErrorCode::None.code() {
            continue;
        }
        let error = match find_led_log(parts, target) {
            Err(error) => old_storage_error(fetch.ticket.api_version, error),
            Ok(log) => {
                let partition = parts.partitions.get(log).expect("just found");
                let start = partition.log().log_start_offset();
                if Offset(target.fetch_offset) >= start {
                    continue;
                }
                ErrorCode::OffsetOutOfRange
            }
        };
        out.probe(Probe::FetchFoundGone);
        *answer = refusal(target.partition, error);
    }
}

impl PendingFetch {
    /// What the fetch waits for.
    fn watches(&self) -> Watched {
        match self.follower {
            Some(_) => Watched::LogEnd,
            None => Watched::HighWatermark,
        }
    }

    /// Adds `answer` to the pass, with what the read of `log` came to.
    fn take_outcome(
        &mut self,
        parts: &mut Parts,
        now: Now,
        log: LogId,
        mut answer: PartitionData,
        outcome: ReadOutcome,
    ) {
        match self.acknowledge(parts, now, log, &outcome) {
            Ok(()) => self.pass.take_outcome(log, &mut answer, outcome),
            Err(error) => {
                answer = refusal(answer.partition_index, error);
                self.pass.urgent = true;
            }
        }
        self.pass.answers.push(answer);
    }

    /// A follower is given what it has asked for of one partition. So it has all that lies before.
    fn acknowledge(&self, parts: &mut Parts, now: Now, log: LogId, outcome: &ReadOutcome) -> Result<(), ErrorCode> {
        let Some((node, broker_epoch)) = self.follower.filter(|_| !self.is_repeated) else { return Ok(()) };
        if matches!(outcome, ReadOutcome::OutOfRange | ReadOutcome::Failed(_)) {
            return Ok(());
        }
        let target = &self.targets[self.pass.answers.len()];
        let (offset, log_start) = (Offset(target.fetch_offset), Offset(target.log_start_offset));
        let Some(partition) = parts.partitions.get_mut(log) else { return Ok(()) };
        let (fetched, mut events) = (FollowerFetch { node, broker_epoch, offset, log_start }, Vec::new());
        partition.follower_fetched(now, &fetched, &KnownBrokers(&parts.image), &mut events)?;
        parts.told.extend(events.into_iter().map(|event| (log, event)));
        Ok(())
    }

    /// Begins another pass, from the first partition.
    fn begin_another_pass(&mut self) {
        self.pass = Pass::new(self.targets.len());
        self.is_repeated = true;
    }
}

impl Pass {
    /// Begins a pass over so many partitions.
    fn new(partitions: usize) -> Self {
        Self { answers: Vec::with_capacity(partitions), ..Self::default() }
    }

    /// Puts the outcome of a read of `log` into `answer`, which is then the next of the pass.
    fn take_outcome(&mut self, log: LogId, answer: &mut PartitionData, outcome: ReadOutcome) {
        match outcome {
            ReadOutcome::Found(found) => {
                self.found.push((self.answers.len(), log, found.slice.len));
                self.bytes = self.bytes.saturating_add(found.slice.len);
                answer.records = Some(Records::from(found.slice));
            }
            ReadOutcome::AtEnd | ReadOutcome::NoRoom => {}
            ReadOutcome::OutOfRange => {
                *answer = refusal(answer.partition_index, ErrorCode::OffsetOutOfRange);
                self.urgent = true;
            }
            ReadOutcome::Pending => unreachable!("a read that has completed is not pending"),
            ReadOutcome::Failed(_) => {
                *answer = refusal(answer.partition_index, ErrorCode::KafkaStorageError);
                self.urgent = true;
            }
        }
    }
}

/// The log of the partition that `target` names, if this broker leads it.
fn find_led_log(parts: &Parts, target: &FetchTarget) -> Result<LogId, ErrorCode> {
    let log = find_log(parts, target)?;
    // As in Kafka, every negative epoch of a Fetch stands for none.
    let current = LeaderEpoch(target.current_leader_epoch).max(LeaderEpoch::UNKNOWN);
    parts.partitions.get(log).expect("just found").check_leader(current)?;
    Ok(log)
}

/// The log of the partition that `target` names, if it is on this broker.
fn find_log(parts: &Parts, target: &FetchTarget) -> Result<LogId, ErrorCode> {
    let topic = match &target.topic {
        TopicKey::Id(id) => parts.image.topic(*id).ok_or(ErrorCode::UnknownTopicId)?,
        TopicKey::Name(name) => parts.image.topic_named(name).ok_or(ErrorCode::UnknownTopicOrPartition)?,
    };
    parts.log_of(topic.id, target.partition)
}

/// An answer without records. Only `read_committed` asks for aborted transactions, of which there are none yet; they
/// are null otherwise.
fn answer_without_records(parts: &Parts, log: LogId, target: &FetchTarget, read_committed: bool) -> PartitionData {
    let partition = parts.partitions.get(log);
    let high_watermark = partition.map_or(-1, |partition| partition.high_watermark().0);
    PartitionData {
        partition_index: target.partition,
        high_watermark,
        last_stable_offset: high_watermark,
        log_start_offset: partition.map_or(-1, |partition| partition.log().log_start_offset().0),
        aborted_transactions: read_committed.then(Vec::new),
        records: Some(Records::from(Bytes::new())),
        ..Default::default()
    }
}

/// An answer with an error. The aborted transactions are null, but empty where a topic or partition does not exist, as
/// in Kafka.
fn refusal(partition: i32, error: ErrorCode) -> PartitionData {
    let is_unknown = matches!(error, ErrorCode::UnknownTopicId | ErrorCode::UnknownTopicOrPartition);
    PartitionData {
        partition_index: partition,
        error_code: error.code(),
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        aborted_transactions: is_unknown.then(Vec::new),
        records: Some(Records::from(Bytes::new())),
        ..Default::default()
    }
}

/// Clients up to v5 do not know `KAFKA_STORAGE_ERROR` and would not retry after it.
fn old_storage_error(version: i16, error: ErrorCode) -> ErrorCode {
    if version <= 5 && error == ErrorCode::KafkaStorageError { ErrorCode::NotLeaderOrFollower } else { error }
}
