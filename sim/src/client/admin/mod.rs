//! An administrator. It creates and deletes topics, adds partitions, and changes configs of topics, of all brokers and
//! of a subscription to clients' metrics. It looks at the result through every request that shows metadata. No other
//! client changes its topics, so their state is known. It also writes records to them and reads them.
//!
//! One request is under way at a time. Topics with an even number keep all their records; the configs of the others let
//! records be deleted or lost.

mod draws;
mod looks;
mod records;

use super::records::Payloads;
use super::session::{Answer, SessionEvent};
use super::sessions::{Host, Sessions};
use super::topics::topic_name;
use super::{Client, ClientInput, ClientOutbox, Setting};
use crate::history::{Change, Fact, SUBSCRIPTION, TopicId, ValueId};
use crate::random::{Stream, stream};
use kafka_protocol::messages::alter_configs_request::{
    AlterConfigsResource as ReplacedResource, AlterableConfig as ReplacedConfig,
};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest,
    CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, ListConfigResourcesRequest,
};
use kafka_protocol::protocol::StrBytes;
use looks::{KIND_BROKER, KIND_CLIENT_METRICS, KIND_TOPIC, Look};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminPlan {
    /// How many topics it has.
    pub topics: u32,
    pub partitions_max: i32,
    /// The longest pause between two requests.
    pub gap_ns_max: u64,
    /// Whether it is the last administrator of a run, which changes nothing and looks at everything once.
    pub only_looks: bool,
}

/// One of its topics, and what it was last told about it.
#[derive(Debug)]
struct Own {
    name: String,
    seen: Option<Seen>,
    /// How many changes have no answer, so that it is unknown whether they were made. If there are none, `seen` is
    /// right.
    unsure: u32,
    /// Whether its configs let records be deleted, or be lost with the page cache.
    sheds: bool,
    /// The node ids of its partitions' leaders, as Metadata told them last.
    leaders: BTreeMap<i32, i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    id: Option<TopicId>,
    partitions: i32,
}

impl Own {
    /// The topic's id, if it is certain.
    fn id(&self) -> Option<TopicId> {
        self.seen.filter(|_| self.unsure == 0)?.id
    }
}

#[derive(Debug)]
enum Request {
    Change { resource: usize, change: Change, validate_only: bool },
    Look(Look),
    Store { topic: usize, by_id: Option<TopicId>, index: i32, values: Vec<ValueId> },
    Read { topic: usize, id: TopicId, index: i32 },
}

/// What it looks at next, once it was told to finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    NotYet,
    Topics,
    Configs(usize),
    Records(usize, i32),
    Done,
}

#[derive(Debug)]
pub struct Admin {
    plan: AdminPlan,
    setting: Setting,
    payloads: Payloads,
    sessions: Sessions,
    stream: Stream,
    own: Vec<Own>,
    /// How many changes of the configs of all brokers, and of the subscription, have no answer.
    others_unsure: [u32; 2],
    subscription: String,
    /// The request under way, and to whom.
    asked: Option<(Host, Request)>,
    next_at: u64,
    requests: u64,
    values: u32,
    /// Everything was healed: nothing is changed any more.
    healed: bool,
    finish: Finish,
}

const RETRY_NS: u64 = 30_000_000;

/// A topic with this many changes without an answer is not changed any more: the checker keeps every state that they
/// may have led to.
const UNSURE_MAX: u32 = 3;

/// Small enough for the smallest segments that it configures.
const VALUE_BYTES_MAX: u32 = 60;

impl Admin {
    pub fn new(plan: AdminPlan, setting: Setting) -> Self {
        let own = |place: u32| Own {
            name: format!("admin-{place}"),
            seen: None,
            unsure: 0,
            sheds: place % 2 == 1,
            leaders: BTreeMap::new(),
        };
        // Its topics may be compressed with any codec.
        let setting = Setting { zstd: true, ..setting };
        Self {
            sessions: Sessions::new(&setting),
            stream: stream(setting.seed, "admin", &[setting.client.into()]),
            own: (0..plan.topics).map(own).collect(),
            payloads: Payloads { value_bytes_max: VALUE_BYTES_MAX, ..setting.payloads },
            others_unsure: [0; 2],
            subscription: format!("{SUBSCRIPTION}admin"),
            asked: None,
            next_at: 0,
            requests: 0,
            values: 0,
            healed: plan.only_looks,
            finish: if plan.only_looks { Finish::Topics } else { Finish::NotYet },
            plan,
            setting,
        }
    }

    /// How many resources it changes: its topics, and behind them all brokers and the subscription.
    fn resources(&self) -> usize {
        self.own.len() + self.others_unsure.len()
    }

    /// The name of a resource: of a topic, empty for all brokers, or of the subscription.
    fn name(&self, resource: usize) -> &str {
        match self.own.get(resource) {
            Some(own) => &own.name,
            None if resource == self.own.len() => "",
            None => &self.subscription,
        }
    }

    fn is_idle(&self) -> bool {
        self.finish == Finish::Done || (self.healed && self.finish == Finish::NotYet)
    }

    fn pump(&mut self, now: u64, out: &mut ClientOutbox) {
        let Some(any) = self.sessions.any() else { return };
        if self.asked.is_some() || self.is_idle() || now < self.next_at {
            return;
        }
        self.requests += 1;
        match self.finish {
            Finish::NotYet => self.do_anything(now, any, out),
            Finish::Topics => self.look(now, any, Look::Topics { all: false }, out),
            Finish::Configs(resource) => self.look(now, any, Look::Configs(resource), out),
            Finish::Records(topic, index) => {
                if !self.read(now, topic, index, out) {
                    self.finish_next();
                    self.requests -= 1;
                    self.pump(now, out);
                }
            }
            Finish::Done => unreachable!("it is idle"),
        }
    }

    fn do_anything(&mut self, now: u64, any: Host, out: &mut ClientOutbox) {
        match self.stream.below(12) {
            0..=4 => self.change_anything(now, any, out),
            5 | 6 => {
                let all = self.stream.one_in(2);
                self.look(now, any, Look::Topics { all }, out);
            }
            7 => {
                let resource = self.stream.below(self.resources() as u64) as usize;
                self.look(now, any, Look::Configs(resource), out);
            }
            8 => {
                let look = match self.stream.below(5) {
                    0 => Look::Cluster,
                    1 => Look::Logs,
                    2 => Look::Quorum,
                    3 if self.lists_topics(any) => Look::Resources,
                    _ => Look::Partitions { limit: [1, 3, 2_000][self.stream.below(3) as usize] },
                };
                self.look(now, any, look, out);
            }
            drawn => {
                let topic = self.stream.below(self.own.len() as u64) as usize;
                let partitions = self.own[topic].seen.map_or(0, |seen| seen.partitions);
                let index = self.stream.below(partitions.max(1) as u64) as i32;
                let has_asked = partitions > 0
                    && if drawn == 11 { self.read(now, topic, index, out) } else { self.store(now, topic, index, out) };
                if !has_asked {
                    self.change_anything(now, any, out);
                }
            }
        }
    }

    fn change_anything(&mut self, now: u64, to: Host, out: &mut ClientOutbox) {
        let resource = self.stream.below(self.resources() as u64) as usize;
        if *self.unsure(resource) == UNSURE_MAX {
            return self.look(now, to, Look::Topics { all: true }, out);
        }
        let (change, validate_only) = self.draw_change(to, resource);
        let name = self.name(resource).to_owned();
        out.fact(Fact::Changing { resource: name, change: change.clone(), validate_only });
        self.send_change(now, to, resource, &change, validate_only, out);
        self.asked = Some((to, Request::Change { resource, change, validate_only }));
    }

    fn send_change(
        &mut self,
        now: u64,
        to: Host,
        resource: usize,
        change: &Change,
        validate_only: bool,
        out: &mut ClientOutbox,
    ) {
        let plain = self.name(resource).to_owned();
        let name = topic_name(&plain);
        let tag = self.requests;
        match change {
            Change::Create { partitions, configs } => {
                let config = |(name, value): (&String, &String)| {
                    CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
                };
                let topic = CreatableTopic::default()
                    .with_name(name)
                    .with_num_partitions(*partitions)
                    .with_replication_factor(1)
                    .with_configs(configs.iter().map(config).collect());
                let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000);
                self.sessions.send(now, to, &request.with_validate_only(validate_only), tag, out);
            }
            Change::Delete | Change::DeleteById(_) => {
                let request = DeleteTopicsRequest::default().with_timeout_ms(5_000);
                let request = match change {
                    Change::DeleteById(id) => {
                        let id = uuid::Uuid::from_bytes(*id);
                        request.with_topics(vec![DeleteTopicState::default().with_name(None).with_topic_id(id)])
                    }
                    _ if self.deletes_by_id(to) => {
                        request.with_topics(vec![DeleteTopicState::default().with_name(Some(name))])
                    }
                    _ => request.with_topic_names(vec![name]),
                };
                self.sessions.send(now, to, &request, tag, out);
            }
            Change::Grow(count) => {
                let topic = CreatePartitionsTopic::default().with_name(name).with_count(*count).with_assignments(None);
                let request = CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000);
                self.sessions.send(now, to, &request.with_validate_only(validate_only), tag, out);
            }
            Change::Set(values) => {
                let config = |(name, value): &(String, Option<String>)| {
                    AlterableConfig::default()
                        .with_name(text(name))
                        .with_config_operation(if value.is_some() { 0 } else { 1 })
                        .with_value(value.as_deref().map(text))
                };
                let resource = AlterConfigsResource::default()
                    .with_resource_type(kind(&plain))
                    .with_resource_name(text(&plain))
                    .with_configs(values.iter().map(config).collect());
                let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
                self.sessions.send(now, to, &request.with_validate_only(validate_only), tag, out);
            }
            Change::Replace(values) => {
                let config = |(name, value): (&String, &String)| {
                    ReplacedConfig::default().with_name(text(name)).with_value(Some(text(value)))
                };
                let resource = ReplacedResource::default()
                    .with_resource_type(kind(&plain))
                    .with_resource_name(text(&plain))
                    .with_configs(values.iter().map(config).collect());
                let request = AlterConfigsRequest::default().with_resources(vec![resource]);
                self.sessions.send(now, to, &request.with_validate_only(validate_only), tag, out);
            }
        }
    }

    /// KIP-1142: before it, ListConfigResources was for client metrics alone.
    fn lists_topics(&self, host: Host) -> bool {
        self.sessions.version::<ListConfigResourcesRequest>(host).is_some_and(|version| version >= 1)
    }

    /// KIP-516
    fn deletes_by_id(&self, host: Host) -> bool {
        self.sessions.version::<DeleteTopicsRequest>(host).is_some_and(|version| version >= 6)
    }

    fn handle_answer(&mut self, now: u64, answer: Answer, out: &mut ClientOutbox) {
        self.next_at = now + self.stream.skewed(self.plan.gap_ns_max);
        let (_, request) = self.asked.take().expect("an answer belongs to a request");
        match request {
            Request::Change { resource, change, validate_only } => {
                let told = change_told(&change, answer, out);
                self.changed(now, resource, &change, validate_only, told, out);
            }
            Request::Look(look) => {
                if self.looked(now, look, answer, out) {
                    self.finish_next();
                }
            }
            Request::Store { topic, by_id, index, values } => self.stored(topic, by_id, index, &values, answer, out),
            Request::Read { topic, id, index } => {
                if self.has_read(now, topic, id, index, answer, out) {
                    self.finish_next();
                }
            }
        }
    }

    fn changed(
        &mut self,
        now: u64,
        resource: usize,
        change: &Change,
        validate_only: bool,
        told: Option<(i16, Option<TopicId>)>,
        out: &mut ClientOutbox,
    ) {
        let (error, id) = match told {
            Some((error, id)) => (error, id.filter(|id| *id != [0; 16] && error == 0 && !validate_only)),
            None => (-1, None),
        };
        // No error, UNKNOWN_TOPIC_OR_PARTITION, TOPIC_ALREADY_EXISTS, INVALID_PARTITIONS, UNKNOWN_TOPIC_ID: the
        // controller has decided.
        let is_judged = [0, 3, 36, 37, 100].contains(&error);
        let name = self.name(resource).to_owned();
        // REQUEST_TIMED_OUT, NOT_CONTROLLER, KAFKA_STORAGE_ERROR, UNKNOWN_SERVER_ERROR: the change may have been made
        // or not, as if there were no answer. INVALID_REPLICATION_FACTOR: all brokers are fenced or stop, and the next
        // attempt is judged.
        if !is_judged && ![-1, 7, 38, 41, 56].contains(&error) {
            out.misbehaved(format!("{change:?} of {name:?} was answered with {error}"));
        }
        out.fact(Fact::Changed { resource: name, error: is_judged.then_some(error), id });
        if !is_judged {
            self.next_at = now + RETRY_NS;
            return self.lose_sight(resource, validate_only);
        }
        let Some(own) = self.own.get_mut(resource).filter(|_| error == 0 && !validate_only) else { return };
        match change {
            Change::Create { partitions, .. } => own.seen = Some(Seen { id, partitions: *partitions }),
            Change::Delete | Change::DeleteById(_) => own.seen = None,
            Change::Grow(count) => own.seen = own.seen.map(|seen| Seen { partitions: *count, ..seen }),
            Change::Set(_) | Change::Replace(_) => {}
        }
    }

    fn unsure(&mut self, resource: usize) -> &mut u32 {
        let topics = self.own.len();
        match self.own.get_mut(resource) {
            Some(own) => &mut own.unsure,
            None => &mut self.others_unsure[resource - topics],
        }
    }

    fn lose_sight(&mut self, resource: usize, validate_only: bool) {
        if !validate_only {
            *self.unsure(resource) += 1;
        }
    }

    fn lose(&mut self, host: Host, out: &mut ClientOutbox) {
        let lost = self.asked.take_if(|(to, _)| *to == host);
        if let Some((_, Request::Change { resource, validate_only, .. })) = lost {
            let name = self.name(resource).to_owned();
            out.fact(Fact::Changed { resource: name, error: None, id: None });
            self.lose_sight(resource, validate_only);
        }
    }

    /// Goes on to what is to be looked at next, once the client was told to finish.
    fn finish_next(&mut self) {
        let first_of = |topic: usize| match topic < self.own.len() {
            true => Finish::Records(topic, 0),
            false => Finish::Done,
        };
        self.finish = match self.finish {
            Finish::NotYet => Finish::NotYet,
            Finish::Topics => Finish::Configs(0),
            Finish::Configs(resource) if resource + 1 < self.resources() => Finish::Configs(resource + 1),
            Finish::Configs(_) => first_of(0),
            Finish::Records(topic, index) if self.own[topic].seen.is_some_and(|seen| index + 1 < seen.partitions) => {
                Finish::Records(topic, index + 1)
            }
            Finish::Records(topic, _) => first_of(topic + 1),
            Finish::Done => Finish::Done,
        };
    }
}

/// The error code and the topic's id in the answer to a change. None if the answer does not mention the topic.
fn change_told(change: &Change, answer: Answer, out: &mut ClientOutbox) -> Option<(i16, Option<TopicId>)> {
    match change {
        Change::Create { .. } => {
            let response = answer.decode::<CreateTopicsResponse>(out)?;
            let topic = response.topics.first()?;
            Some((topic.error_code, Some(*topic.topic_id.as_bytes())))
        }
        Change::Delete | Change::DeleteById(_) => {
            let response = answer.decode::<DeleteTopicsResponse>(out)?;
            let topic = response.responses.first()?;
            Some((topic.error_code, Some(*topic.topic_id.as_bytes())))
        }
        Change::Grow(_) => {
            let response = answer.decode::<CreatePartitionsResponse>(out)?;
            Some((response.results.first()?.error_code, None))
        }
        Change::Set(_) => {
            let response = answer.decode::<IncrementalAlterConfigsResponse>(out)?;
            Some((response.responses.first()?.error_code, None))
        }
        Change::Replace(_) => {
            let response = answer.decode::<AlterConfigsResponse>(out)?;
            Some((response.responses.first()?.error_code, None))
        }
    }
}

fn text(plain: &str) -> StrBytes {
    StrBytes::from_string(plain.to_owned())
}

/// `ConfigResource.Type` of the resource with this name.
fn kind(name: &str) -> i8 {
    match name {
        "" => KIND_BROKER,
        name if name.starts_with(SUBSCRIPTION) => KIND_CLIENT_METRICS,
        _ => KIND_TOPIC,
    }
}

impl Client for Admin {
    fn handle(&mut self, now: u64, input: ClientInput, out: &mut ClientOutbox) {
        match input {
            ClientInput::Healed => self.healed = true,
            ClientInput::Finish => (self.finish, self.next_at) = (Finish::Topics, now),
            _ => {}
        }
        for event in self.sessions.handle(now, input, out) {
            match event {
                SessionEvent::Response(answer) => self.handle_answer(now, answer, out),
                SessionEvent::Lost(host) => self.lose(host, out),
                SessionEvent::Ready | SessionEvent::Unreachable(_) => {}
            }
        }
        self.pump(now, out);
    }

    fn deadline(&self) -> Option<u64> {
        if self.is_idle() && self.asked.is_none() {
            return None;
        }
        let can_ask = self.sessions.any().is_some() && self.asked.is_none();
        [self.sessions.deadline(), can_ask.then_some(self.next_at)].into_iter().flatten().min()
    }

    fn pending(&self) -> Option<String> {
        match self.finish {
            Finish::NotYet | Finish::Done => None,
            Finish::Topics => Some("looks at its topics".into()),
            Finish::Configs(resource) => Some(format!("looks at the configs of {:?}", self.name(resource))),
            Finish::Records(topic, index) => Some(format!("reads {}-{index}", self.name(topic))),
        }
    }

    fn role(&self) -> &'static str {
        if self.plan.only_looks { "last admin" } else { "admin" }
    }
}
