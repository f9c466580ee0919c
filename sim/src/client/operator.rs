//! An operator with the product's own admin (`tidelog_client`). It creates, alters and deletes topics of its own,
//! and asks about all the others. What it was told of a topic must still be true when it asks again, whatever crashes
//! in between. It also changes the level of one of the broker's loggers, which a start must take back.
//!
//! If a connection is lost during an operation, the operation may be carried out twice or later. From then on its topic
//! is not judged any more.

use super::door::Door;
use super::{Client, ClientAction, ClientInput, ClientOutbox, OpenerInput, Setting};
use crate::checkers::LEVEL_AT_A_START;
use crate::history::{Asked, Fact, PartitionKey};
use crate::random::{Stream, stream};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidelog_client::admin::{
    Answer, Call, ConfigChange, Event, LogDirDescription, NewPartitions, NewTopic, Operation, Resource,
};
use tidelog_client::{Admin, AdminConfig, ClientError, OffsetSpec, TopicPartition, is_retriable};
use tidelog_core::ids::NodeId;
use tidelog_core::wire::ErrorCode;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorPlan {
    pub operations: u32,
    /// The longest pause between two operations.
    pub gap_ns_max: u64,
    /// The admin's configuration, without `bootstrap.servers` and `client.id`.
    pub properties: BTreeMap<String, String>,
}

/// What the operator knows of one of its topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnTopic {
    Absent,
    There { partitions: i32, retention_ms: i64 },
    Unsure,
}

/// An operation that the operator may ask for.
#[derive(Clone, Copy, Debug)]
enum Step {
    Create { topic: usize, partitions: i32, retention_ms: i64 },
    Delete { topic: usize },
    Grow { topic: usize, partitions: i32 },
    Alter { topic: usize, retention_ms: i64 },
    SetLevel { level: &'static str },
    DescribeTopics,
    DescribeConfigs,
    DescribeLevels,
    DescribeCluster,
    DescribeLogDirs,
    DescribeQuorum,
    ListOffsets { asked: Asked },
}

#[derive(Debug)]
pub struct Operator {
    plan: OperatorPlan,
    setting: Setting,
    door: Door<Admin>,
    stream: Stream,
    topics: Vec<OwnTopic>,
    begun: u32,
    /// The operation under way, when it began, and how many connections had been lost before.
    step: Option<(Step, u64, u64)>,
    losses: u64,
    next_at: u64,
    /// Everything is healed, and the last change was answered at this time.
    still_since: Option<u64>,
    /// What is to be looked at a last time, once the client was told to finish.
    finish: Option<Finish>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    Topics,
    Configs,
    Done,
}

const TOPICS: usize = 3;

/// When everything is healed, each broker learns in this time what the controller has decided.
const CATCHES_UP_NS: u64 = 10_000_000_000;

/// The logger whose level it changes.
const LOGGER: &str = "tidelog.storage";
const LEVELS: &[&str] = &["ERROR", "WARN", LEVEL_AT_A_START, "DEBUG"];

impl Operator {
    pub fn new(plan: OperatorPlan, setting: Setting) -> Self {
        let mut properties = plan.properties.clone();
        properties.insert("bootstrap.servers".into(), setting.bootstrap_servers());
        properties.insert("client.id".into(), format!("operator-{}", setting.client));
        let (config, _) = AdminConfig::from_properties(&properties).unwrap_or_else(|errors| {
            panic!("the operator's configuration is refused: {}", crate::panics::listed(&errors))
        });
        let mut stream = stream(setting.seed, "operator", &[setting.client.into()]);
        Self {
            door: Door::new(Admin::new(config, stream.draw())),
            stream,
            topics: vec![OwnTopic::Absent; TOPICS],
            begun: 0,
            step: None,
            losses: 0,
            next_at: 0,
            still_since: None,
            finish: None,
            plan,
            setting,
        }
    }

    /// The broker whose log directories it looks at and whose levels of the log it changes.
    fn broker(&self) -> NodeId {
        NodeId(self.setting.first_node as i32 + 1)
    }

    /// Whether every broker, asked at this time, must show what was made: it is the controller too, or has had the time
    /// to catch up.
    fn sees_the_present(&self, asked_at: u64) -> bool {
        !self.setting.brokers_may_lag() || self.still_since.is_some_and(|since| asked_at >= since + CATCHES_UP_NS)
    }

    /// Whether the node is one of the cluster's.
    fn is_there(&self, node: NodeId) -> bool {
        (1..=self.setting.nodes as i32).contains(&node.0)
    }

    fn name(&self, topic: usize) -> String {
        format!("operator-{}-{topic}", self.setting.client)
    }

    /// Begins the next operation, if it is time for one.
    fn work(&mut self, now: u64, out: &mut ClientOutbox) {
        if self.step.is_some() || now < self.next_at {
            return;
        }
        let step = match self.finish {
            Some(Finish::Topics) => Step::DescribeTopics,
            Some(Finish::Configs) => Step::DescribeConfigs,
            Some(Finish::Done) => return,
            None if self.begun < self.plan.operations => self.draw_step(),
            None => return,
        };
        self.begun += 1;
        let operation = self.operation(&step);
        if let Step::SetLevel { level } = step {
            out.fact(Fact::LevelChanging { node: self.setting.first_node, level: level.to_owned() });
        }
        self.step = Some((step, now, self.losses));
        let call = Call { id: self.begun.into(), operation };
        let events = self.door.call(now, call, &self.setting, out);
        self.take(now, events, out);
    }

    fn draw_step(&mut self) -> Step {
        let topic = self.stream.below(TOPICS as u64) as usize;
        let retention_ms = self.stream.between(1, 1 << 40) as i64;
        let partitions = self.stream.between(1, 3) as i32;
        match (self.stream.below(15), self.topics[topic]) {
            (0..5, OwnTopic::Absent) => Step::Create { topic, partitions, retention_ms },
            (0, _) => Step::Delete { topic },
            (1, OwnTopic::There { partitions, .. }) if partitions < 6 => {
                Step::Grow { topic, partitions: partitions + 1 }
            }
            (2 | 3, OwnTopic::There { .. }) => Step::Alter { topic, retention_ms },
            (4, _) => Step::DescribeConfigs,
            (5, _) => Step::DescribeCluster,
            (6, _) => Step::ListOffsets { asked: Asked::Earliest },
            (7, _) => Step::ListOffsets { asked: Asked::Latest },
            (8, _) => Step::DescribeLogDirs,
            (9, _) => Step::DescribeQuorum,
            (10, _) => Step::SetLevel { level: self.stream.pick::<&str>(LEVELS) },
            (11 | 12, _) => Step::DescribeLevels,
            _ => Step::DescribeTopics,
        }
    }

    fn operation(&self, step: &Step) -> Operation {
        let own = || (0..TOPICS).map(|topic| self.name(topic));
        match *step {
            Step::Create { topic, partitions, retention_ms } => Operation::CreateTopics {
                topics: vec![NewTopic {
                    name: self.name(topic).into(),
                    partitions: Some(partitions),
                    replication_factor: None,
                    replicas: Vec::new(),
                    configs: vec![("retention.ms".into(), Some(retention_ms.to_string().into()))],
                }],
                validate_only: false,
            },
            Step::Delete { topic } => Operation::DeleteTopics { topics: vec![self.name(topic).into()] },
            Step::Grow { topic, partitions } => Operation::CreatePartitions {
                topics: vec![NewPartitions { topic: self.name(topic).into(), count: partitions, replicas: None }],
                validate_only: false,
            },
            Step::Alter { topic, retention_ms } => {
                let change = ConfigChange::Set("retention.ms".into(), retention_ms.to_string().into());
                let changes = vec![(Resource::Topic(self.name(topic).into()), vec![change])];
                Operation::AlterConfigs { changes, validate_only: false }
            }
            Step::SetLevel { level } => {
                // A level that is taken away leaves the one of the root, which is that of the start.
                let change = match level {
                    LEVEL_AT_A_START => ConfigChange::Delete(LOGGER.into()),
                    level => ConfigChange::Set(LOGGER.into(), level.into()),
                };
                let changes = vec![(Resource::BrokerLoggers(self.broker()), vec![change])];
                Operation::AlterConfigs { changes, validate_only: false }
            }
            Step::DescribeLevels => {
                Operation::DescribeConfigs { resources: vec![Resource::BrokerLoggers(self.broker())] }
            }
            Step::DescribeTopics => Operation::DescribeTopics { topics: own().map(Into::into).collect() },
            Step::DescribeConfigs => {
                Operation::DescribeConfigs { resources: own().map(|name| Resource::Topic(name.into())).collect() }
            }
            Step::DescribeCluster => Operation::DescribeCluster,
            Step::DescribeLogDirs => Operation::DescribeLogDirs { brokers: vec![self.broker()] },
            Step::DescribeQuorum => Operation::DescribeQuorum,
            Step::ListOffsets { asked } => {
                let spec = if asked == Asked::Latest { OffsetSpec::Latest } else { OffsetSpec::Earliest };
                let partitions = self.partitions().into_iter().map(|key| (self.partition(key), spec)).collect();
                Operation::ListOffsets { partitions }
            }
        }
    }

    /// All partitions of the scenario's topics.
    fn partitions(&self) -> Vec<PartitionKey> {
        let of_topic = |(topic, plan): (usize, &super::TopicPlan)| {
            (0..plan.partitions).map(move |index| PartitionKey { topic: topic as u16, index })
        };
        self.setting.topics.iter().enumerate().flat_map(of_topic).collect()
    }

    fn partition(&self, key: PartitionKey) -> TopicPartition {
        TopicPartition::new(self.setting.topics[usize::from(key.topic)].name.clone(), key.index)
    }

    fn take(&mut self, now: u64, events: Vec<Event>, out: &mut ClientOutbox) {
        for Event { results, .. } in events {
            let (step, asked_at, losses) = self.step.take().expect("an answer belongs to a step");
            self.next_at =
                now + self.stream.skewed(if self.finish.is_some() { 100_000_000 } else { self.plan.gap_ns_max });
            let is_sure = losses == self.losses;
            let results: Vec<Result<Answer, ClientError>> = results.into_iter().map(|(_, result)| result).collect();
            for error in results.iter().filter_map(|result| result.as_ref().err()) {
                self.check_error(&step, error, out);
            }
            let all_answered = results.iter().all(|result| {
                result.is_ok()
                    || matches!(result, Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition))
            });
            match (&step, &results[..]) {
                (Step::DescribeTopics, results) => {
                    for (topic, result) in results.iter().enumerate().filter(|_| self.sees_the_present(asked_at)) {
                        self.check_topic(topic, result, out);
                    }
                    if all_answered && self.finish == Some(Finish::Topics) {
                        self.finish = Some(Finish::Configs);
                    }
                }
                (Step::DescribeConfigs, results) => {
                    for (topic, result) in results.iter().enumerate().filter(|_| self.sees_the_present(asked_at)) {
                        self.check_configs(topic, result, out);
                    }
                    if all_answered && self.finish == Some(Finish::Configs) {
                        self.finish = Some(Finish::Done);
                    }
                }
                (Step::ListOffsets { asked }, results) => {
                    for (partition, result) in self.partitions().into_iter().zip(results) {
                        if let Ok(Answer::Offset(found)) = result {
                            let offset = found.offset.unwrap_or(-1);
                            out.fact(Fact::Listed { partition, asked_at, asked: *asked, offset, timestamp: -1 });
                        }
                    }
                }
                (Step::SetLevel { .. }, [result]) => {
                    out.fact(Fact::LevelChanged { node: self.setting.first_node, once: is_sure && result.is_ok() });
                }
                (Step::DescribeLevels, [Ok(Answer::Configs(levels))]) => {
                    let level = levels.iter().find(|it| it.name == LOGGER).and_then(|it| it.value.clone());
                    let level = level.map(|level| level.to_string()).unwrap_or_default();
                    out.fact(Fact::LevelTold { node: self.setting.first_node, asked_at, level });
                }
                (Step::DescribeCluster, [Ok(Answer::Cluster(cluster))]) => {
                    let brokers: Vec<NodeId> = cluster.brokers.iter().map(|broker| broker.node).collect();
                    // Where all brokers have paused for too long, none is told: they are fenced.
                    if !brokers.iter().all(|broker| self.is_there(*broker)) {
                        out.misbehaved(format!("the brokers are {brokers:?}"));
                    }
                }
                (Step::DescribeLogDirs, [Ok(Answer::LogDirs(dirs))]) => {
                    if is_sure && self.sees_the_present(asked_at) {
                        self.check_log_dirs(dirs, out);
                    }
                }
                (Step::DescribeQuorum, [Ok(Answer::Quorum(quorum))]) => {
                    let voters: Vec<NodeId> = quorum.voters.iter().map(|voter| voter.node).collect();
                    // A leader that is being removed leads until that is committed.
                    let leads =
                        quorum.leader.is_some_and(|leader| self.setting.voters_change || voters.contains(&leader));
                    if !leads || !voters.iter().all(|voter| self.is_there(*voter)) {
                        out.misbehaved(format!("the quorum is {quorum:?}"));
                    }
                }
                (step, [result]) => {
                    self.still_since = self.still_since.map(|_| now);
                    self.learn(step, result, is_sure);
                }
                (step, results) => unreachable!("{step:?} has {} results", results.len()),
            }
        }
    }

    /// Tells an error that no fault explains as a fact.
    fn check_error(&self, step: &Step, error: &ClientError, out: &mut ClientOutbox) {
        let is_excused = match error {
            ClientError::TimedOut { .. } => true,
            ClientError::Refused { error, .. } => {
                is_retriable(*error)
                    || *error == ErrorCode::UnknownServerError
                    // An earlier attempt, whose answer was lost, may have made the change.
                    || matches!(error, ErrorCode::TopicAlreadyExists | ErrorCode::InvalidPartitions)
                    // Some brokers have not registered yet, or all stop.
                    || self.setting.nodes > 1 && *error == ErrorCode::InvalidReplicationFactor
            }
            _ => false,
        };
        if !is_excused {
            out.misbehaved(format!("{step:?}: {error}"));
        }
    }

    /// Updates what is known of a topic after a change.
    fn learn(&mut self, step: &Step, result: &Result<Answer, ClientError>, is_sure: bool) {
        let (topic, after) = match (*step, self.known(step)) {
            (Step::Create { topic, partitions, retention_ms }, OwnTopic::Absent) => {
                (topic, OwnTopic::There { partitions, retention_ms })
            }
            (Step::Delete { topic }, OwnTopic::There { .. } | OwnTopic::Absent) => (topic, OwnTopic::Absent),
            (Step::Grow { topic, partitions }, OwnTopic::There { retention_ms, .. }) => {
                (topic, OwnTopic::There { partitions, retention_ms })
            }
            (Step::Alter { topic, retention_ms }, OwnTopic::There { partitions, .. }) => {
                (topic, OwnTopic::There { partitions, retention_ms })
            }
            _ => return,
        };
        let was_absent = self.topics[topic] == OwnTopic::Absent;
        let is_refused = |code| matches!(result, Err(error) if error.code() == Some(code));
        self.topics[topic] = match result {
            Ok(_) if is_sure => after,
            _ if is_sure && was_absent && is_refused(ErrorCode::UnknownTopicOrPartition) => OwnTopic::Absent,
            _ => OwnTopic::Unsure,
        };
    }

    fn known(&self, step: &Step) -> OwnTopic {
        match *step {
            Step::Create { topic, .. }
            | Step::Delete { topic }
            | Step::Grow { topic, .. }
            | Step::Alter { topic, .. } => self.topics[topic],
            _ => OwnTopic::Unsure,
        }
    }

    fn check_topic(&self, topic: usize, result: &Result<Answer, ClientError>, out: &mut ClientOutbox) {
        let name = self.name(topic);
        match (self.topics[topic], result) {
            (OwnTopic::There { partitions, .. }, Ok(Answer::Topic(told)))
                if told.partitions.len() != partitions as usize =>
            {
                out.misbehaved(format!("{name} has {} partitions, not {partitions}", told.partitions.len()));
            }
            (OwnTopic::There { .. }, Err(error)) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {
                out.misbehaved(format!("{name} was made and is not there"));
            }
            (OwnTopic::Absent, Ok(_)) => out.misbehaved(format!("{name} is there, and was deleted or never made")),
            _ => {}
        }
    }

    /// Where every directory is there, what lies in them of a topic that was made are its partitions, each once. One
    /// whose directory is still being made is not among them yet, as in Kafka.
    fn check_log_dirs(&self, dirs: &[LogDirDescription], out: &mut ClientOutbox) {
        if dirs.iter().any(|dir| dir.error.is_error()) {
            return;
        }
        for topic in 0..TOPICS {
            let (OwnTopic::There { partitions, .. }, name) = (self.topics[topic], self.name(topic)) else { continue };
            let replicas = dirs.iter().flat_map(|dir| &dir.replicas);
            let mut indexes: Vec<i32> = replicas.filter(|it| *it.topic == *name).map(|it| it.partition).collect();
            indexes.sort_unstable();
            if !indexes.is_sorted_by(|left, right| left < right)
                || indexes.iter().any(|it| !(0..partitions).contains(it))
            {
                out.misbehaved(format!("{name} has {partitions} partitions, and in the directories lie {indexes:?}"));
            }
        }
    }

    fn check_configs(&self, topic: usize, result: &Result<Answer, ClientError>, out: &mut ClientOutbox) {
        if let (OwnTopic::There { retention_ms, .. }, Ok(Answer::Configs(configs))) = (self.topics[topic], result) {
            let told = configs.iter().find(|config| config.name == "retention.ms").and_then(|it| it.value.clone());
            if told.as_deref() != Some(&retention_ms.to_string()) {
                out.misbehaved(format!("{} has retention.ms={told:?}, not {retention_ms}", self.name(topic)));
            }
        }
    }
}

impl Client for Operator {
    fn handle(&mut self, now: u64, input: ClientInput, out: &mut ClientOutbox) {
        match input {
            ClientInput::Healed => self.still_since = Some(now),
            ClientInput::Finish => {
                self.finish = Some(Finish::Topics);
                let catches_up_until = self.still_since.unwrap_or(now) + CATCHES_UP_NS;
                self.next_at = if self.setting.brokers_may_lag() { catches_up_until.max(now) } else { now };
            }
            _ => {}
        }
        let was_cut = matches!(input, ClientInput::Link(_, OpenerInput::Cut));
        let before = out.actions.len();
        let is_close = |action: &ClientAction| matches!(action, ClientAction::Close(_));
        // A request that was sent on a lost connection may have been carried out, or may be later.
        self.losses += u64::from(was_cut);
        let events = self.door.handle(now, input, &self.setting, out);
        self.losses += u64::from(out.actions[before..].iter().any(is_close));
        self.take(now, events, out);
        self.work(now, out);
    }

    fn deadline(&self) -> Option<u64> {
        let works = match self.finish {
            None => self.begun < self.plan.operations,
            Some(finish) => finish != Finish::Done,
        };
        let next = (self.step.is_none() && works).then_some(self.next_at);
        [self.door.deadline(), next].into_iter().flatten().min()
    }

    fn pending(&self) -> Option<String> {
        match self.finish {
            None | Some(Finish::Done) => None,
            Some(finish) => Some(format!("{finish:?} have not been looked at a last time, at {:?}", self.step)),
        }
    }

    fn role(&self) -> &'static str {
        "operator"
    }
}
