//! An administrator, who changes topics of its own through any node, and knows by the answers what has become of them.

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    CreatePartitionsRequest, DeleteTopicsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
    MetadataRequest,
};
use kafka_protocol::protocol::StrBytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};
use tidelog_tests::client::{Client, topic_name};

/// How long an answer may take: a broker asks for the controller for 60 s, and may be paused for 10 s.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(75);
/// Short, so that the storm has many changes and few partitions on the disk.
const PAUSE: Duration = Duration::from_millis(20);
/// How many topics an administrator changes at a time. One whose state it is not sure of is replaced by another.
const TOPICS: usize = 4;
const PARTITIONS_MAX: i32 = 3;

const TOPIC: i8 = 2;
const CONFIG: StrBytes = StrBytes::from_static_str("retention.ms");
const SET: i8 = 0;
const DELETE: i8 = 1;
/// The source of a config that was set for a topic.
const OF_TOPIC: i8 = 1;

const UNKNOWN_TOPIC: i16 = 3;
const REQUEST_TIMED_OUT: i16 = 7;
const TOPIC_ALREADY_EXISTS: i16 = 36;
const INVALID_PARTITIONS: i16 = 37;
const INVALID_REPLICATION_FACTOR: i16 = 38;
const NOT_CONTROLLER: i16 = 41;

/// What a topic is; `None`: there is none of its name.
pub type State = Option<Content>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub partitions: i32,
    pub retention_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Create { partitions: i32, retention_ms: Option<i64> },
    SetRetention(i64),
    DeleteRetention,
    Grow { partitions: i32 },
    Delete,
}

#[derive(Debug)]
enum Outcome {
    Made,
    Refused,
    /// Nobody knows whether the change was made, or is made yet. The text says why.
    Unsure(String),
}

#[derive(Debug)]
pub struct Administrator {
    name: usize,
    rng: ChaCha8Rng,
    nodes: Vec<String>,
    clients: Vec<Option<Client>>,
    /// The topics that it works on, with their states, of which it is sure.
    current: BTreeMap<String, State>,
    /// The other topics, with the states that each may have.
    given_up: BTreeMap<String, [State; 2]>,
    topics: usize,
    pub made: usize,
    /// How long each answer took.
    pub took: Vec<Duration>,
    /// What was asked and what became of it, for the report of a failure.
    history: BTreeMap<String, Vec<String>>,
}

impl Administrator {
    pub fn new(name: usize, rng: ChaCha8Rng, nodes: Vec<String>) -> Self {
        Self {
            name,
            rng,
            clients: nodes.iter().map(|_| None).collect(),
            nodes,
            current: BTreeMap::new(),
            given_up: BTreeMap::new(),
            topics: 0,
            made: 0,
            took: Vec::new(),
            history: BTreeMap::new(),
        }
    }

    /// How many topics were given up, since it is not known what became of a change.
    pub fn unsure(&self) -> usize {
        self.given_up.len()
    }

    /// Makes one change of one topic.
    pub fn work(&mut self, begin: Instant) {
        while self.current.len() < TOPICS {
            self.topics += 1;
            self.current.insert(format!("a{}-{}", self.name, self.topics), None);
        }
        let place = self.rng.random_range(0..TOPICS);
        let (topic, before) = self.current.iter().nth(place).map(|(name, state)| (name.clone(), *state)).expect("one");
        let change = self.choose(before);
        let node = self.rng.random_range(0..self.nodes.len());
        let asked = Instant::now();
        let outcome = match self.client(node) {
            Ok(client) => make(client, &topic, change),
            Err(_) => Ok(Outcome::Refused),
        };
        let outcome = outcome.unwrap_or_else(|error| {
            self.clients[node] = None;
            let is_late = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
            assert!(!is_late, "{change:?} of {topic} through node {} has no answer within {ANSWER_WITHIN:?}", node + 1);
            Outcome::Unsure(error.to_string())
        });
        let became = match &outcome {
            Outcome::Made => "made",
            Outcome::Refused => "not made",
            Outcome::Unsure(why) => why,
        };
        let line = format!("{:?} {change:?} through node {}: {became}", begin.elapsed(), node + 1);
        self.history.entry(topic.clone()).or_default().push(line);
        match outcome {
            Outcome::Made => {
                self.made += 1;
                self.took.push(asked.elapsed());
                self.current.insert(topic, after(before, change));
            }
            Outcome::Refused => {}
            Outcome::Unsure(_) => {
                self.took.push(asked.elapsed());
                self.current.remove(&topic);
                self.given_up.insert(topic, [before, after(before, change)]);
            }
        }
        std::thread::sleep(PAUSE);
    }

    fn choose(&mut self, state: State) -> Change {
        let retention_ms = self.rng.random_range(1_000_000..2_000_000_000);
        let Some(content) = state else {
            let partitions = self.rng.random_range(1..=PARTITIONS_MAX);
            let retention_ms = self.rng.random_bool(0.5).then_some(retention_ms);
            return Change::Create { partitions, retention_ms };
        };
        match self.rng.random_range(0..10) {
            0..5 => Change::SetRetention(retention_ms),
            5 => Change::DeleteRetention,
            6 | 7 if content.partitions < PARTITIONS_MAX => Change::Grow { partitions: content.partitions + 1 },
            _ => Change::Delete,
        }
    }

    fn client(&mut self, node: usize) -> io::Result<&mut Client> {
        if self.clients[node].is_none() {
            let mut client = Client::connect(&self.nodes[node])?;
            client.stream().set_read_timeout(Some(ANSWER_WITHIN))?;
            self.clients[node] = Some(client);
        }
        Ok(self.clients[node].as_mut().expect("a connection"))
    }

    /// What does not agree with the topics that a node tells of: topics of this administrator that are not in any state
    /// that they may have.
    pub fn differences(&self, told: &BTreeMap<String, Content>) -> Vec<String> {
        let sure = self.current.iter().map(|(name, state)| (name, [*state, *state]));
        let unsure = self.given_up.iter().map(|(name, states)| (name, *states));
        let wrong = sure.chain(unsure).filter(|(name, states)| !states.contains(&told.get(*name).copied()));
        wrong
            .map(|(name, states)| {
                let history = self.history.get(name).map(|lines| lines.join("\n  ")).unwrap_or_default();
                format!("{name} is {:?}, must be one of {states:?}:\n  {history}", told.get(name))
            })
            .collect()
    }
}

fn after(before: State, change: Change) -> State {
    match (before, change) {
        (_, Change::Create { partitions, retention_ms }) => Some(Content { partitions, retention_ms }),
        (Some(content), Change::SetRetention(ms)) => Some(Content { retention_ms: Some(ms), ..content }),
        (Some(content), Change::DeleteRetention) => Some(Content { retention_ms: None, ..content }),
        (Some(content), Change::Grow { partitions }) => Some(Content { partitions, ..content }),
        (_, Change::Delete) => None,
        (None, change) => unreachable!("{change:?} of no topic"),
    }
}

fn make(client: &mut Client, topic: &str, change: Change) -> io::Result<Outcome> {
    let name = topic_name(topic);
    let timeout_ms = 10_000;
    let (error, text) = match change {
        Change::Create { partitions, retention_ms } => {
            let value = retention_ms.map(|ms| ms.to_string());
            let configs: Vec<_> = value.iter().map(|value| ("retention.ms", value.as_str())).collect();
            client.create_topic(topic, partitions, &configs)?
        }
        Change::SetRetention(_) | Change::DeleteRetention => {
            let config = match change {
                Change::SetRetention(ms) => AlterableConfig::default()
                    .with_config_operation(SET)
                    .with_value(Some(StrBytes::from_string(ms.to_string()))),
                _ => AlterableConfig::default().with_config_operation(DELETE).with_value(None),
            };
            let resource = AlterConfigsResource::default()
                .with_resource_type(TOPIC)
                .with_resource_name(name.0)
                .with_configs(vec![config.with_name(CONFIG)]);
            let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
            let response = client.call(1, &request)?;
            let result = &response.responses[0];
            (result.error_code, result.error_message.as_ref().map(ToString::to_string))
        }
        Change::Grow { partitions } => {
            let grown = CreatePartitionsTopic::default().with_name(name).with_count(partitions).with_assignments(None);
            let request = CreatePartitionsRequest::default().with_topics(vec![grown]).with_timeout_ms(timeout_ms);
            let response = client.call(3, &request)?;
            let result = &response.results[0];
            (result.error_code, result.error_message.as_ref().map(ToString::to_string))
        }
        Change::Delete => {
            let deleted = DeleteTopicState::default().with_name(Some(name));
            let request = DeleteTopicsRequest::default().with_topics(vec![deleted]).with_timeout_ms(timeout_ms);
            let response = client.call(6, &request)?;
            let result = &response.responses[0];
            (result.error_code, result.error_message.as_ref().map(ToString::to_string))
        }
    };
    Ok(match (error, change) {
        (0, _) => Outcome::Made,
        // Every broker is fenced for the moment.
        (INVALID_REPLICATION_FACTOR, Change::Create { .. } | Change::Grow { .. }) => Outcome::Refused,
        // A broker that gets no answer asks the controller again, which may have made the change already.
        (TOPIC_ALREADY_EXISTS, Change::Create { .. })
        | (INVALID_PARTITIONS, Change::Grow { .. })
        | (UNKNOWN_TOPIC, Change::Delete)
        | (REQUEST_TIMED_OUT | NOT_CONTROLLER, _) => Outcome::Unsure(format!("{error} {text:?}")),
        _ => panic!("{change:?} of {topic} ends with error {error}: {text:?}"),
    })
}

/// All topics that a node knows.
pub fn topics(node: &str) -> io::Result<BTreeMap<String, Content>> {
    let mut client = Client::connect(node)?;
    let request = MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(false);
    let response = client.call(12, &request)?;
    let mut topics: BTreeMap<String, Content> = BTreeMap::new();
    for topic in &response.topics {
        let name = topic.name.as_ref().expect("a name").0.to_string();
        let partitions = i32::try_from(topic.partitions.len()).expect("a few");
        topics.insert(name, Content { partitions, retention_ms: None });
    }
    let resources = topics.keys().map(|name| {
        DescribeConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(StrBytes::from_string(name.clone()))
            .with_configuration_keys(Some(vec![CONFIG]))
    });
    let request = DescribeConfigsRequest::default().with_resources(resources.collect());
    for result in client.call(4, &request)?.results {
        // Of a topic that was deleted meanwhile, nothing is told.
        let set = result.configs.iter().find(|config| config.config_source == OF_TOPIC);
        let value = set.and_then(|config| config.value.as_ref()).and_then(|value| value.parse().ok());
        if let Some(topic) = topics.get_mut(&*result.resource_name) {
            topic.retention_ms = value;
        }
    }
    Ok(topics)
}
