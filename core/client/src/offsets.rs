//! Looking up offsets with ListOffsets: for a consumer that has no position, and for an application that asks for the
//! offset of a timestamp.
//!
//! The look-ups of all partitions with the same leader go into one request. A look-up is repeated until it is answered,
//! fails with an error that is not temporary, or times out.

use super::error::{ClientError, is_invalid_metadata, is_retriable};
use super::{Cluster, Outbox, RequestFailure, TopicPartition, earliest};
use bytestring::ByteString;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use tidelog_wire::ids::{LeaderEpoch, LinkId};
use tidelog_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use tidelog_wire::messages::list_offsets_response::ListOffsetsPartitionResponse;
use tidelog_wire::messages::{ListOffsetsRequest, ListOffsetsResponse};
use tidelog_wire::time::{Mono, Now};
use tidelog_wire::{ApiKey, ErrorCode, ResponseBody};

/// Which offset of a partition is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The start of the log.
    Earliest,
    /// The end of the log, as far as consumers may read it.
    Latest,
    /// The record with the greatest timestamp (KIP-734).
    MaxTimestamp,
    /// The first record with this timestamp or a later one, in milliseconds since 1970.
    Timestamp(i64),
}

impl OffsetSpec {
    fn wire(self) -> i64 {
        match self {
            Self::Latest => -1,
            Self::Earliest => -2,
            Self::MaxTimestamp => -3,
            Self::Timestamp(ms) => ms.max(0),
        }
    }

    fn versions(self) -> RangeInclusive<i16> {
        match self {
            Self::MaxTimestamp => 7..=11,
            _ => 1..=11,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    /// `None` if no record has the timestamp or a later one.
    pub offset: Option<i64>,
    /// The timestamp of the record, if it was looked up by timestamp.
    pub timestamp: Option<i64>,
    pub leader_epoch: Option<LeaderEpoch>,
}

/// A look-up that is done. `K` says for whom it was.
#[derive(Clone, Debug)]
pub struct Found<K> {
    pub key: K,
    pub partition: TopicPartition,
    pub result: Result<FoundOffset, ClientError>,
}

#[derive(Debug)]
struct LookUp<K> {
    key: K,
    partition: TopicPartition,
    spec: OffsetSpec,
    /// Whether a request for it is in flight.
    asked: bool,
    retry_at: Mono,
    failures: u32,
    last_error: Option<String>,
    /// When it is given up, and how many milliseconds that is after its beginning.
    until: Option<(Mono, i64)>,
}

#[derive(Debug)]
pub struct LookUps<K> {
    /// The look-ups that are not done, by a number that counts up.
    open: BTreeMap<u64, LookUp<K>>,
    next: u64,
}

impl<K> Default for LookUps<K> {
    fn default() -> Self {
        Self { open: BTreeMap::new(), next: 0 }
    }
}

impl<K: Clone> LookUps<K> {
    /// Begins a look-up. If `timeout_ms` is `None`, it is never given up.
    pub fn ask(&mut self, now: Mono, key: K, partition: TopicPartition, spec: OffsetSpec, timeout_ms: Option<i64>) {
        let until = timeout_ms.map(|ms| (now.plus_ms(ms), ms));
        let look_up =
            LookUp { key, partition, spec, asked: false, retry_at: Mono::ZERO, failures: 0, last_error: None, until };
        self.open.insert(self.next, look_up);
        self.next += 1;
    }

    /// Drops the look-ups that are not wanted any more.
    pub fn retain(&mut self, mut wanted: impl FnMut(&K, &TopicPartition) -> bool) {
        self.open.retain(|_, it| wanted(&it.key, &it.partition));
    }

    /// Sends the requests that are due, and returns the look-ups that have failed or timed out. `tag` makes the tag of
    /// a request from the numbers of its look-ups, which [`Self::handle`] needs.
    pub fn pump<T, E>(
        &mut self,
        now: Now,
        cluster: &mut Cluster<T>,
        tag: impl Fn(Vec<u64>) -> T,
        out: &mut Outbox<E>,
    ) -> Vec<Found<K>> {
        let mut found = self.give_up(now.mono, cluster);
        let mut by_leader: BTreeMap<(LinkId, i16), Vec<u64>> = BTreeMap::new();
        let mut too_old = Vec::new();
        // A request names a partition once. Another look-up in the same partition waits for the answer.
        let mut named = BTreeSet::new();
        for (number, it) in self.open.iter().filter(|(_, it)| !it.asked && it.retry_at <= now.mono) {
            let TopicPartition { topic, partition } = &it.partition;
            let Some(node) = cluster.metadata.leader_node(topic, *partition) else {
                cluster.request_update(now.mono);
                continue;
            };
            let Some(link) = cluster.connection_to(now, node, out) else { continue };
            match cluster.version(link, ApiKey::ListOffsets, it.spec.versions()) {
                Some(_) if !named.insert(it.partition.clone()) => {}
                Some(version) => by_leader.entry((link, version)).or_default().push(*number),
                None => too_old.push(*number),
            }
        }
        for ((link, version), numbers) in by_leader {
            let request = self.request(cluster, &numbers);
            cluster.send(now, link, version, request.into(), tag(numbers), out);
        }
        for number in too_old {
            let it = self.open.remove(&number).expect("listed above");
            let code = ErrorCode::UnsupportedVersion.code();
            let error = ClientError::refused(ApiKey::ListOffsets, &it.partition, code, None);
            found.push(Found { key: it.key, partition: it.partition, result: Err(error) });
        }
        found
    }

    fn request<T>(&mut self, cluster: &Cluster<T>, numbers: &[u64]) -> ListOffsetsRequest {
        let mut topics: BTreeMap<ByteString, Vec<ListOffsetsPartition>> = BTreeMap::new();
        for number in numbers {
            let it = self.open.get_mut(number).expect("the look-up is open");
            it.asked = true;
            let TopicPartition { topic, partition } = &it.partition;
            let epoch = cluster.metadata.leader(topic, *partition).map_or(LeaderEpoch::UNKNOWN, |leader| leader.epoch);
            topics.entry(topic.clone()).or_default().push(ListOffsetsPartition {
                partition_index: *partition,
                current_leader_epoch: epoch.0,
                timestamp: it.spec.wire(),
                ..ListOffsetsPartition::default()
            });
        }
        let topic = |(name, partitions)| ListOffsetsTopic { name, partitions, ..ListOffsetsTopic::default() };
        ListOffsetsRequest {
            replica_id: -1,
            topics: topics.into_iter().map(topic).collect(),
            timeout_ms: cluster.request_timeout_ms(),
            ..ListOffsetsRequest::default()
        }
    }

    /// Takes the answer to a request.
    pub fn handle<T>(
        &mut self,
        now: Now,
        cluster: &mut Cluster<T>,
        numbers: Vec<u64>,
        result: Result<ResponseBody, RequestFailure>,
    ) -> Vec<Found<K>> {
        let mut found = Vec::new();
        for number in numbers {
            // A look-up that was dropped meanwhile needs no answer.
            let Some(it) = self.open.get_mut(&number) else { continue };
            it.asked = false;
            let (api, place) = (ApiKey::ListOffsets, it.partition.to_string());
            let answer = match &result {
                Ok(ResponseBody::ListOffsets(response)) => match answer_for(response, &it.partition, it.spec) {
                    Some(answer) => judge(&it.partition, answer),
                    None => {
                        Err(ClientError::Malformed { api, place, text: format!("the answer lacks {}", it.partition) })
                    }
                },
                Ok(_) => unreachable!("the key says which response it is"),
                Err(failure) => Err(ClientError::Lost { api, place, failure: failure.clone() }),
            };
            match answer {
                Err(error) if may_pass(&error) => {
                    it.failures += 1;
                    it.retry_at = now.mono.plus_ms(cluster.retry_pause_ms(it.failures));
                    it.last_error = Some(error.to_string());
                    if error.code().is_none_or(is_invalid_metadata) {
                        cluster.request_update(now.mono);
                    }
                }
                result => {
                    let it = self.open.remove(&number).expect("the look-up is open");
                    found.push(Found { key: it.key, partition: it.partition, result });
                }
            }
        }
        found
    }

    fn give_up<T>(&mut self, now: Mono, cluster: &Cluster<T>) -> Vec<Found<K>> {
        let over = self.open.extract_if(.., |_, it| {
            let error = cluster.metadata.topic(&it.partition.topic).map_or(ErrorCode::None, |topic| topic.error);
            it.until.is_some_and(|(until, _)| until <= now) || error.is_error() && !is_retriable(error)
        });
        let found = over.map(|(_, it)| {
            let LookUp { key, partition, until, last_error, .. } = it;
            let known = cluster.metadata.topic(&partition.topic).map_or(ErrorCode::None, |topic| topic.error);
            let refused = ClientError::refused(ApiKey::Metadata, &partition.topic, known.code(), None);
            let error = match until {
                Some((until, ms)) if until <= now => {
                    let metadata = known.is_error().then(|| refused.to_string());
                    let last = last_error.or(metadata).or_else(|| cluster.last_connection_error.clone());
                    let what = format!("the look-up of an offset of {partition}");
                    ClientError::TimedOut { what, limit: "default.api.timeout.ms", ms, last }
                }
                _ => refused,
            };
            Found { key, partition, result: Err(error) }
        });
        found.collect()
    }

    pub fn deadline(&self, now: Mono) -> Option<Mono> {
        let until = self.open.values().filter_map(|it| it.until).map(|(until, _)| until).min();
        // A look-up that is due already waits for a connection or a leader, not for time.
        let retry = self.open.values().filter(|it| !it.asked && it.retry_at > now).map(|it| it.retry_at).min();
        earliest([until, retry])
    }
}

fn answer_for(
    response: &ListOffsetsResponse,
    partition: &TopicPartition,
    spec: OffsetSpec,
) -> Option<ListOffsetsPartitionResponse> {
    let topic = response.topics.iter().find(|topic| topic.name == partition.topic)?;
    let mut answer = topic.partitions.iter().find(|answer| answer.partition_index == partition.partition)?.clone();
    if matches!(spec, OffsetSpec::Earliest | OffsetSpec::Latest) {
        answer.timestamp = -1;
    }
    Some(answer)
}

fn judge(partition: &TopicPartition, answer: ListOffsetsPartitionResponse) -> Result<FoundOffset, ClientError> {
    if answer.error_code != 0 {
        return Err(ClientError::refused(ApiKey::ListOffsets, partition, answer.error_code, None));
    }
    Ok(FoundOffset {
        offset: (answer.offset >= 0).then_some(answer.offset),
        timestamp: (answer.timestamp >= 0).then_some(answer.timestamp),
        leader_epoch: (answer.leader_epoch >= 0).then_some(LeaderEpoch(answer.leader_epoch)),
    })
}

fn may_pass(error: &ClientError) -> bool {
    match error.code() {
        // As in Kafka's clients, an unknown error counts as temporary here.
        Some(code) => is_retriable(code) || code == ErrorCode::UnknownServerError,
        None => matches!(error, ClientError::Lost { .. }),
    }
}
