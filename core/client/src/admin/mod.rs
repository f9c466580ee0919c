//! The admin: topics, partitions, configs, records, and the cluster with its log directories and its quorum.
//!
//! An [`Operation`] names one or more subjects: topics, partitions, resources or the cluster. Each subject gets a
//! result of its own. It is asked for at the broker that can answer: the controller, the leader of the partition, or,
//! for a broker's configs, that broker. All subjects for one broker go into one request. A subject that fails with a
//! temporary error is asked for again, alone, until `default.api.timeout.ms` have passed.
//!
//! As with Kafka's admin, a change whose answer was lost is requested again. So the answer may be, for example, that
//! the topic exists already.
//!
//! In this module `place` is the index of a subject in its operation.

mod operation;
mod servers;
#[cfg(test)]
mod tests;

pub use operation::{ConfigChange, NewPartitions, NewTopic, Operation, Resource, Subject};
pub use servers::{LogDirDescription, QuorumDescription, QuorumReplica, ReplicaDescription};

use super::config::AdminConfig;
use super::error::{ClientError, is_invalid_metadata};
use super::offsets::{Found, FoundOffset, LookUps};
use super::{Address, Client, Cluster, Input, Outbox, Reply, RequestFailure, TopicPartition, earliest};
use bytestring::ByteString;
use operation::Target;
use std::collections::{BTreeMap, BTreeSet};
use tidelog_wire::ids::{LeaderEpoch, LinkId, NodeId, Uuid};
use tidelog_wire::time::{Mono, Now};
use tidelog_wire::{ErrorCode, ResponseBody};

/// An operation to carry out. It is answered by one [`Event`] with the same id.
#[derive(Clone, Debug)]
pub struct Call {
    pub id: u64,
    pub operation: Operation,
}

/// An operation is done. The results are in the order in which the operation names its subjects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: u64,
    pub results: Vec<(Subject, Result<Answer, ClientError>)>,
}

/// The result for one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// The id is zero if the broker is too old to send it, or the topic was only validated.
    Created {
        id: Uuid,
    },
    Topic(TopicDescription),
    Topics(Vec<TopicDescription>),
    Configs(Vec<ConfigEntry>),
    /// The offset at which the log starts now.
    LowWatermark(i64),
    Offset(FoundOffset),
    Cluster(ClusterDescription),
    /// In the order of the broker's `log.dirs`.
    LogDirs(Vec<LogDirDescription>),
    Quorum(QuorumDescription),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    pub name: ByteString,
    pub id: Uuid,
    pub is_internal: bool,
    /// Sorted by index.
    pub partitions: Vec<PartitionDescription>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDescription {
    pub index: i32,
    pub leader: Option<NodeId>,
    pub leader_epoch: LeaderEpoch,
    pub replicas: Vec<NodeId>,
    pub in_sync_replicas: Vec<NodeId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: ByteString,
    /// `None` if the config is sensitive, or has no value.
    pub value: Option<ByteString>,
    /// Where the value comes from, as a number of the protocol: 1 the topic, 2 the broker's dynamic config, 3 the
    /// dynamic config of all brokers, 4 the broker's file, 5 the default.
    pub source: i8,
    pub is_default: bool,
    pub is_read_only: bool,
    pub is_sensitive: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    pub cluster_id: ByteString,
    pub controller: Option<NodeId>,
    pub brokers: Vec<BrokerDescription>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerDescription {
    pub node: NodeId,
    pub address: Address,
    pub rack: Option<ByteString>,
}

/// What a request was for.
#[derive(Clone, Debug)]
enum Tag {
    /// Some subjects of a task.
    Task {
        id: u64,
        places: Vec<usize>,
    },
    Offsets(Vec<u64>),
}

/// An operation that is being carried out.
#[derive(Debug)]
struct Task {
    operation: Operation,
    /// The result of each subject, if it has one.
    results: Vec<Option<Result<Answer, ClientError>>>,
    /// The subjects for which a request is in flight.
    asked: BTreeSet<usize>,
    /// When it is given up.
    until: Mono,
    retry_at: Mono,
    failures: u32,
    last_error: Option<String>,
}

impl Task {
    fn is_over(&self) -> bool {
        self.results.iter().all(Option::is_some)
    }

    fn open(&self) -> impl Iterator<Item = usize> {
        let is_open = |place: &usize| self.results[*place].is_none() && !self.asked.contains(place);
        (0..self.results.len()).filter(is_open)
    }
}

#[derive(Debug)]
pub struct Admin {
    config: AdminConfig,
    cluster: Cluster<Tag>,
    tasks: BTreeMap<u64, Task>,
    /// The look-ups of offsets, named by task and place.
    look_ups: LookUps<(u64, usize)>,
    next_at: Option<Mono>,
}

impl Admin {
    pub fn new(config: AdminConfig, seed: u64) -> Self {
        Self {
            cluster: Cluster::new(config.common.clone(), seed),
            tasks: BTreeMap::new(),
            look_ups: LookUps::default(),
            next_at: None,
            config,
        }
    }

    fn begin(&mut self, now: Now, Call { id, operation }: Call) {
        assert!(!self.tasks.contains_key(&id), "no two operations in progress have the same id");
        let ms = self.config.default_api_timeout_ms;
        if let Operation::ListOffsets { partitions } = &operation {
            for ((partition, spec), place) in partitions.iter().zip(0..) {
                self.look_ups.ask(now.mono, (id, place), partition.clone(), *spec, Some(ms));
            }
        }
        for place in 0..operation.subjects_count() {
            if let Target::LeaderOf(partition) = operation.target(place) {
                self.cluster.want_topic(now, &partition.topic);
            }
        }
        // The brokers' addresses are not known before the first answer to a Metadata request.
        if self.cluster.metadata.version == 0 {
            self.cluster.request_update(now.mono);
        }
        let task = Task {
            results: vec![None; operation.subjects_count()],
            operation,
            asked: BTreeSet::new(),
            until: now.mono.plus_ms(ms),
            retry_at: Mono::ZERO,
            failures: 0,
            last_error: None,
        };
        self.tasks.insert(id, task);
    }

    /// Does all that is due.
    fn pump(&mut self, now: Now, out: &mut Outbox<Event>) {
        let found = self.look_ups.pump(now, &mut self.cluster, Tag::Offsets, out);
        self.take_found(found);
        self.give_up(now.mono);
        let ids: Vec<u64> = self.tasks.keys().copied().collect();
        for id in ids {
            self.pump_task(now, id, out);
        }
        self.finish(out);
        self.cluster.pump(now, out);
        let tasks = self.tasks.values().flat_map(|task| [task.until, task.retry_at]).filter(|at| *at > now.mono);
        self.next_at = earliest([tasks.min(), self.look_ups.deadline(now.mono)]);
    }

    fn pump_task(&mut self, now: Now, id: u64, out: &mut Outbox<Event>) {
        let task = &self.tasks[&id];
        if task.retry_at > now.mono || matches!(task.operation, Operation::ListOffsets { .. }) {
            return;
        }
        let mut by_link: BTreeMap<LinkId, Vec<usize>> = BTreeMap::new();
        for place in task.open() {
            let link = match task.operation.target(place) {
                Target::Any => self.cluster.any_connection(now, out),
                Target::Controller => match self.cluster.metadata.controller {
                    Some(node) => self.cluster.connection_to(now, node, out),
                    None => None,
                },
                Target::Node(node) => self.cluster.connection_to(now, node, out),
                Target::LeaderOf(TopicPartition { topic, partition }) => {
                    match self.cluster.metadata.leader_node(&topic, partition) {
                        Some(node) => self.cluster.connection_to(now, node, out),
                        None => {
                            self.cluster.request_update(now.mono);
                            None
                        }
                    }
                }
            };
            if let Some(link) = link {
                by_link.entry(link).or_default().push(place);
            }
        }
        let (api, range) = task.operation.api();
        for (link, places) in by_link {
            let task = self.tasks.get_mut(&id).expect("the task is not done");
            let Some(version) = self.cluster.version(link, api, range.clone()) else {
                for place in places {
                    let subject = task.operation.subject(place);
                    let code = ErrorCode::UnsupportedVersion.code();
                    task.results[place] = Some(Err(ClientError::refused(api, subject, code, None)));
                }
                continue;
            };
            let request = task.operation.request(&places, version, self.cluster.request_timeout_ms());
            task.asked.extend(&places);
            self.cluster.send(now, link, version, request, Tag::Task { id, places }, out);
        }
    }

    fn handle_reply(&mut self, now: Now, reply: Reply<Tag>) {
        match reply.tag {
            Tag::Offsets(numbers) => {
                let found = self.look_ups.handle(now, &mut self.cluster, numbers, reply.result);
                self.take_found(found);
            }
            Tag::Task { id, places } => self.take_answer(now, id, places, reply.result),
        }
    }

    fn take_found(&mut self, found: Vec<Found<(u64, usize)>>) {
        for Found { key: (id, place), result, .. } in found {
            let task = self.tasks.get_mut(&id).expect("a look-up ends before its task");
            task.results[place] = Some(result.map(Answer::Offset));
        }
    }

    fn take_answer(&mut self, now: Now, id: u64, places: Vec<usize>, result: Result<ResponseBody, RequestFailure>) {
        // An operation that was given up meanwhile needs no answer.
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let (api, _) = task.operation.api();
        let mut again = None;
        for place in places {
            task.asked.remove(&place);
            let subject = task.operation.subject(place);
            let (error, may_pass) = match &result {
                Err(failure @ RequestFailure::Malformed(_)) => {
                    (ClientError::Lost { api, place: subject.to_string(), failure: failure.clone() }, false)
                }
                Err(failure) => (ClientError::Lost { api, place: subject.to_string(), failure: failure.clone() }, true),
                Ok(response) => match task.operation.read(place, response) {
                    Some(Ok(answer)) => {
                        task.results[place] = Some(Ok(answer));
                        continue;
                    }
                    Some(Err((code, message))) => {
                        let refused = ClientError::refused(api, subject, code, message);
                        let may_pass = refused.code().is_some_and(|error| task.operation.may_pass(error));
                        (refused, may_pass)
                    }
                    None => {
                        let text = format!("the answer lacks {subject}");
                        (ClientError::Malformed { api, place: subject.to_string(), text }, false)
                    }
                },
            };
            if may_pass {
                again = Some(error);
            } else {
                task.results[place] = Some(Err(error));
            }
        }
        if let Some(error) = again {
            task.failures += 1;
            task.retry_at = now.mono.plus_ms(self.cluster.retry_pause_ms(task.failures));
            task.last_error = Some(error.to_string());
            let is_elsewhere = |error| is_invalid_metadata(error) || error == ErrorCode::NotController;
            if error.code().is_none_or(is_elsewhere) {
                self.cluster.request_update(now.mono);
            }
        }
    }

    /// Fails the subjects of operations that were not done within `default.api.timeout.ms`.
    fn give_up(&mut self, now: Mono) {
        let ms = self.config.default_api_timeout_ms;
        for task in self.tasks.values_mut().filter(|task| task.until <= now) {
            for place in 0..task.results.len() {
                let subject = task.operation.subject(place);
                let what = format!("{} of {subject}", task.operation.api().0.name());
                let last = task.last_error.clone().or_else(|| self.cluster.last_connection_error.clone());
                let error = ClientError::TimedOut { what, limit: "default.api.timeout.ms", ms, last };
                task.results[place].get_or_insert(Err(error));
            }
        }
    }

    /// Tells the application about the operations that are done.
    fn finish(&mut self, out: &mut Outbox<Event>) {
        for (id, task) in self.tasks.extract_if(.., |_, task| task.is_over()) {
            let subjects = (0..task.results.len()).map(|place| task.operation.subject(place));
            let results = subjects.zip(task.results.iter().flatten().cloned()).collect();
            out.event(Event { id, results });
        }
        // Metadata of a topic is asked for only while an operation needs the leaders of its partitions.
        let tasks = &self.tasks;
        let partitions = |task: &Task| -> BTreeSet<ByteString> {
            let targets = (0..task.operation.subjects_count()).map(|place| task.operation.target(place));
            targets.filter_map(|target| if let Target::LeaderOf(it) = target { Some(it.topic) } else { None }).collect()
        };
        let needed: BTreeSet<ByteString> = tasks.values().flat_map(partitions).collect();
        let idle: Vec<ByteString> =
            self.cluster.metadata.wanted().filter(|topic| !needed.contains(*topic)).cloned().collect();
        for topic in idle {
            self.cluster.metadata.forget(&topic);
        }
    }
}

impl Client for Admin {
    type Call = Call;
    type Event = Event;

    fn handle(&mut self, now: Now, input: Input<Call>, out: &mut Outbox<Event>) {
        if let Some(call) = self.cluster.handle(now, input, out) {
            self.begin(now, call);
        }
        while let Some(reply) = self.cluster.pop_reply() {
            self.handle_reply(now, reply);
        }
        self.pump(now, out);
    }

    fn deadline(&self) -> Option<Mono> {
        earliest([self.next_at, self.cluster.deadline()])
    }
}
