//! Counts requests by API key: how many in each version, which errors they were answered with, and how long they took.
//!
//! A connection records a request when it encodes the answer. Each API key has its own lock, held for some tens of
//! nanoseconds.

use super::times::{Reading, Times};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tidelog_core::wire::{ApiKey, ErrorCode, ResponseBody};

/// A request that was answered, or handled if it gets no answer.
#[derive(Clone, Copy, Debug)]
pub struct Handled {
    pub api_key: ApiKey,
    pub api_version: i16,
    /// From when it was read to when its answer was ready to be sent.
    pub took: Duration,
}

/// The counts of all API keys.
#[derive(Debug)]
pub struct Requests {
    /// Indexed by API key; `None` until a request of that key comes.
    kinds: Vec<Mutex<Option<Box<Kind>>>>,
}

/// The counts of one API key.
#[derive(Debug)]
struct Kind {
    api_key: ApiKey,
    by_version: BTreeMap<i16, u64>,
    by_error: BTreeMap<i16, u64>,
    times: Times,
}

/// The counts of one API key that has been requested at least once.
#[derive(Clone, Debug, PartialEq)]
pub struct KindReading {
    pub api_key: ApiKey,
    pub by_version: BTreeMap<i16, u64>,
    /// How often each error was answered, counted as Kafka does: once for each partition, topic or other item of the
    /// answer.
    pub by_error: BTreeMap<ErrorCode, u64>,
    pub times: Reading,
}

impl Default for Requests {
    fn default() -> Self {
        let last = ApiKey::ALL.iter().map(|key| *key as i16).max().unwrap_or(0);
        Self { kinds: (0..=last).map(|_| Mutex::default()).collect() }
    }
}

impl Requests {
    /// `body`: the answer; `None` if the request gets none.
    pub fn record(&self, now: Instant, handled: Handled, body: Option<&ResponseBody>) {
        let Handled { api_key, api_version, took } = handled;
        let Some(kind) = self.kinds.get(api_key as usize) else { return };
        let mut kind = lock(kind);
        let kind = kind.get_or_insert_with(|| {
            let (by_version, by_error) = (BTreeMap::new(), BTreeMap::new());
            Box::new(Kind { api_key, by_version, by_error, times: Times::new(now) })
        });
        *kind.by_version.entry(api_version).or_default() += 1;
        kind.times.record(now, took);
        if let Some(body) = body {
            each_error(body, |code| *kind.by_error.entry(code).or_default() += 1);
        }
    }

    /// The counts of every API key that has been requested, in the order of the keys.
    pub fn read(&self, now: Instant) -> Vec<KindReading> {
        let mut readings = Vec::new();
        for kind in &self.kinds {
            if let Some(kind) = &mut *lock(kind) {
                let known = |(code, count): (&i16, &u64)| Some((ErrorCode::from_code(*code)?, *count));
                readings.push(KindReading {
                    api_key: kind.api_key,
                    by_version: kind.by_version.clone(),
                    by_error: kind.by_error.iter().filter_map(known).collect(),
                    times: kind.times.read(now),
                });
            }
        }
        readings
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds this lock")
}

/// Calls `count` with every error code of an answer, including 0 for success, as Kafka counts them.
fn each_error(body: &ResponseBody, mut count: impl FnMut(i16)) {
    match body {
        ResponseBody::Produce(body) => {
            let partitions = body.responses.iter().flat_map(|topic| &topic.partition_responses);
            partitions.for_each(|partition| count(partition.error_code));
        }
        ResponseBody::Fetch(body) => {
            count(body.error_code);
            let partitions = body.responses.iter().flat_map(|topic| &topic.partitions);
            partitions.for_each(|partition| count(partition.error_code));
        }
        ResponseBody::ListOffsets(body) => {
            body.topics.iter().flat_map(|topic| &topic.partitions).for_each(|partition| count(partition.error_code));
        }
        ResponseBody::Metadata(body) => {
            for topic in &body.topics {
                count(topic.error_code);
                topic.partitions.iter().for_each(|partition| count(partition.error_code));
            }
            count(body.error_code);
        }
        ResponseBody::ApiVersions(body) => count(body.error_code),
        ResponseBody::CreateTopics(body) => body.topics.iter().for_each(|topic| count(topic.error_code)),
        ResponseBody::DeleteTopics(body) => body.responses.iter().for_each(|topic| count(topic.error_code)),
        ResponseBody::DeleteRecords(body) => {
            body.topics.iter().flat_map(|topic| &topic.partitions).for_each(|partition| count(partition.error_code));
        }
        ResponseBody::InitProducerId(body) => count(body.error_code),
        ResponseBody::OffsetForLeaderEpoch(body) => {
            body.topics.iter().flat_map(|topic| &topic.partitions).for_each(|partition| count(partition.error_code));
        }
        ResponseBody::DescribeAcls(body) => count(body.error_code),
        ResponseBody::CreateAcls(body) => body.results.iter().for_each(|result| count(result.error_code)),
        ResponseBody::DeleteAcls(body) => body.filter_results.iter().for_each(|result| count(result.error_code)),
        ResponseBody::SaslHandshake(body) => count(body.error_code),
        ResponseBody::SaslAuthenticate(body) => count(body.error_code),
        ResponseBody::DescribeConfigs(body) => body.results.iter().for_each(|result| count(result.error_code)),
        ResponseBody::AlterConfigs(body) => body.responses.iter().for_each(|resource| count(resource.error_code)),
        ResponseBody::IncrementalAlterConfigs(body) => {
            body.responses.iter().for_each(|resource| count(resource.error_code));
        }
        ResponseBody::DescribeLogDirs(body) => {
            count(body.error_code);
            body.results.iter().for_each(|result| count(result.error_code));
        }
        ResponseBody::CreatePartitions(body) => body.results.iter().for_each(|topic| count(topic.error_code)),
        ResponseBody::ElectLeaders(body) => {
            count(body.error_code);
            let partitions = body.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
            partitions.for_each(|partition| count(partition.error_code));
        }
        ResponseBody::AlterPartitionReassignments(body) => {
            count(body.error_code);
            body.responses.iter().flat_map(|topic| &topic.partitions).for_each(|partition| count(partition.error_code));
        }
        ResponseBody::ListPartitionReassignments(body) => count(body.error_code),
        ResponseBody::DescribeClientQuotas(body) => count(body.error_code),
        ResponseBody::DescribeUserScramCredentials(body) => {
            count(body.error_code);
            body.results.iter().for_each(|user| count(user.error_code));
        }
        ResponseBody::DescribeQuorum(body) => {
            count(body.error_code);
            body.topics.iter().flat_map(|topic| &topic.partitions).for_each(|partition| count(partition.error_code));
        }
        ResponseBody::AlterPartition(body) => {
            count(body.error_code);
            body.topics.iter().flat_map(|topic| &topic.partitions).for_each(|partition| count(partition.error_code));
        }
        ResponseBody::AssignReplicasToDirs(body) => {
            count(body.error_code);
            let topics = body.directories.iter().flat_map(|directory| &directory.topics);
            topics.flat_map(|topic| &topic.partitions).for_each(|partition| count(partition.error_code));
        }
        ResponseBody::UpdateFeatures(body) => {
            count(body.error_code);
            body.results.iter().for_each(|feature| count(feature.error_code));
        }
        ResponseBody::DescribeCluster(body) => count(body.error_code),
        ResponseBody::ListConfigResources(body) => count(body.error_code),
        ResponseBody::DescribeProducers(body) => {
            body.topics.iter().flat_map(|topic| &topic.partitions).for_each(|partition| count(partition.error_code));
        }
        ResponseBody::DescribeTopicPartitions(body) => {
            for topic in &body.topics {
                count(topic.error_code);
                topic.partitions.iter().for_each(|partition| count(partition.error_code));
            }
        }
        // Requests that are not supported get no such answers.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_core::wire::messages::produce_response::{
        PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
    };
    use tidelog_core::wire::messages::{ApiVersionsResponse, CreateTopicsResponse};

    fn handled(api_key: ApiKey, api_version: i16) -> Handled {
        Handled { api_key, api_version, took: Duration::from_millis(3) }
    }

    #[test]
    fn requests_are_counted_by_kind_and_version_and_errors_by_partition() {
        let (requests, now) = (Requests::default(), Instant::now());
        assert!(requests.read(now).is_empty());
        let codes = [ErrorCode::None, ErrorCode::None, ErrorCode::MessageTooLarge];
        let partition_responses =
            codes.map(|error| PartitionProduceResponse { error_code: error.code(), ..Default::default() }).to_vec();
        let topic = TopicProduceResponse { partition_responses, ..Default::default() };
        let body = ResponseBody::Produce(ProduceResponse { responses: vec![topic], ..Default::default() });
        requests.record(now, handled(ApiKey::Produce, 9), Some(&body));
        requests.record(now, handled(ApiKey::Produce, 9), None);
        requests.record(now, handled(ApiKey::Produce, 13), None);
        let none = ResponseBody::CreateTopics(CreateTopicsResponse::default());
        requests.record(now, handled(ApiKey::CreateTopics, 7), Some(&none));
        let body = ResponseBody::ApiVersions(ApiVersionsResponse { error_code: 35, ..Default::default() });
        requests.record(now, handled(ApiKey::ApiVersions, 0), Some(&body));

        let readings = requests.read(now);
        let keys: Vec<ApiKey> = readings.iter().map(|reading| reading.api_key).collect();
        assert_eq!(keys, [ApiKey::Produce, ApiKey::ApiVersions, ApiKey::CreateTopics]);
        let produce = &readings[0];
        assert_eq!(produce.by_version, BTreeMap::from([(9, 2), (13, 1)]));
        assert_eq!(produce.by_error, BTreeMap::from([(ErrorCode::None, 2), (ErrorCode::MessageTooLarge, 1)]));
        assert_eq!((produce.times.count, produce.times.sum_ms.round()), (3, 9.0));
        assert_eq!(readings[1].by_error, BTreeMap::from([(ErrorCode::UnsupportedVersion, 1)]));
        assert!(readings[2].by_error.is_empty());
    }
}
