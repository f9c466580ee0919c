//! A test bench for a client: the test plays the application and the brokers.
//!
//! Connections open at once. ApiVersions and Metadata are answered automatically, Metadata from [`Bench::topics`]. All
//! other requests are answered by the test. As on any connection, answers are delivered in the order of the requests.

use super::{Address, Client, Input, Outbox, Output};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use tidelog_link::Owed;
use tidelog_wire::ids::{LinkId, Uuid};
use tidelog_wire::messages::api_versions_response::ApiVersion;
use tidelog_wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use tidelog_wire::messages::{ApiVersionsResponse, MetadataResponse};
use tidelog_wire::time::{Mono, Now, WallMs};
use tidelog_wire::{ErrorCode, RequestBody, RequestHeader, ResponseBody, versions};
use tidelog_wire::{decode_request, encode_request, encode_response};

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Asked {
    pub link: LinkId,
    pub header: RequestHeader,
    pub body: RequestBody,
}

pub struct Bench<K: Client> {
    pub client: K,
    pub now: Now,
    /// The topics by name, with the leader and leader epoch of each partition. The brokers are 1 to 3, at
    /// `broker<n>:9092`.
    pub topics: BTreeMap<String, Vec<(i32, i32)>>,
    /// Whether connections can be opened. If not, opening one fails at once.
    pub reachable: bool,
    /// Whether opening a connection neither succeeds nor fails.
    pub silent: bool,
    /// The requests that the test has not answered yet, oldest first.
    pub asked: VecDeque<Asked>,
    pub events: Vec<K::Event>,
    pub open: BTreeMap<LinkId, Address>,
    pub connects: Vec<Address>,
    pub metadata_requests: usize,
    /// The requests of each connection that are not answered yet, in order: the correlation id, and the answer if it
    /// waits for the answers to earlier requests.
    waiting: BTreeMap<LinkId, VecDeque<(i32, Option<Bytes>)>>,
    /// As what the next answers of each connection are read.
    owed: BTreeMap<LinkId, Owed>,
}

impl<K: Client> Bench<K> {
    pub fn new(client: K) -> Self {
        let now = Now { mono: Mono(1_000_000_000), wall: WallMs(1_700_000_000_000) };
        Self {
            client,
            now,
            topics: BTreeMap::new(),
            reachable: true,
            silent: false,
            asked: VecDeque::new(),
            events: Vec::new(),
            open: BTreeMap::new(),
            connects: Vec::new(),
            metadata_requests: 0,
            waiting: BTreeMap::new(),
            owed: BTreeMap::new(),
        }
    }

    pub fn topic(mut self, name: &str, leaders: &[(i32, i32)]) -> Self {
        self.topics.insert(name.into(), leaders.to_vec());
        self
    }

    pub fn topic_id(name: &str) -> Uuid {
        Uuid::from_bytes([name.as_bytes()[0]; 16])
    }

    pub fn call(&mut self, call: K::Call) {
        self.input(Input::Call(call));
    }

    pub fn input(&mut self, input: Input<K::Call>) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut out = Outbox::default();
            self.client.handle(self.now, input, &mut out);
            for output in out.outputs {
                match output {
                    Output::Connect(link, address) => {
                        self.connects.push(address.clone());
                        if self.silent {
                            continue;
                        }
                        if self.reachable {
                            self.open.insert(link, address);
                            inputs.push_back(Input::Connected(link));
                        } else {
                            inputs.push_back(Input::ConnectFailed(link));
                        }
                    }
                    Output::Close(link) => self.forget(link),
                    Output::Event(event) => self.events.push(event),
                    Output::Send(link, request) => {
                        let frame = encode_request(&request.header, &request.body).to_bytes();
                        let (header, body) = decode_request(frame.slice(4..)).expect("a request can be decoded");
                        self.owed.entry(link).or_default().asked(&header, &body);
                        let asked = Asked { link, header, body };
                        let answer = self.automatic_answer(&asked.body).map(|body| answer_frame(&asked, body));
                        if asked.body.is_answered() {
                            let entry = (asked.header.correlation_id, answer.clone());
                            self.waiting.entry(link).or_default().push_back(entry);
                        }
                        if answer.is_none() {
                            self.asked.push_back(asked);
                        }
                        inputs.extend(self.due_answers(link));
                    }
                }
            }
        }
    }

    /// The answer to a request that is answered automatically.
    fn automatic_answer(&mut self, body: &RequestBody) -> Option<ResponseBody> {
        match body {
            RequestBody::ApiVersions(_) => {
                let api = |(key, min_version, max_version)| ApiVersion {
                    api_key: key as i16,
                    min_version,
                    max_version,
                    ..ApiVersion::default()
                };
                let api_keys = versions::advertised(false).map(api).collect();
                Some(ApiVersionsResponse { api_keys, ..ApiVersionsResponse::default() }.into())
            }
            RequestBody::Metadata(request) => {
                self.metadata_requests += 1;
                let broker = |node_id| MetadataResponseBroker {
                    node_id,
                    host: format!("broker{node_id}").into(),
                    port: 9092,
                    ..MetadataResponseBroker::default()
                };
                let names = request.topics.iter().flatten().filter_map(|topic| topic.name.clone());
                let topics = names.map(|name| {
                    let mut topic = MetadataResponseTopic { name: Some(name.clone()), ..Default::default() };
                    match self.topics.get(&*name) {
                        Some(leaders) => {
                            topic.topic_id = Self::topic_id(&name);
                            topic.partitions =
                                (0..).zip(leaders).map(|(index, leader)| partition(index, *leader)).collect();
                        }
                        None => topic.error_code = ErrorCode::UnknownTopicOrPartition.code(),
                    }
                    topic
                });
                let topics = topics.collect();
                let brokers = (1..=3).map(broker).collect();
                Some(MetadataResponse { brokers, controller_id: 1, topics, ..MetadataResponse::default() }.into())
            }
            _ => None,
        }
    }

    /// The oldest request that the test has not answered yet.
    #[track_caller]
    pub fn next(&mut self) -> Asked {
        self.asked.pop_front().expect("a request waits for an answer")
    }

    pub fn answer(&mut self, asked: &Asked, body: impl Into<ResponseBody>) {
        let frame = answer_frame(asked, body.into());
        let mut waiting = self.waiting.get_mut(&asked.link).into_iter().flatten();
        let entry = waiting.find(|(correlation_id, _)| *correlation_id == asked.header.correlation_id);
        entry.expect("the connection is open and the request is not answered yet").1 = Some(frame);
        for input in self.due_answers(asked.link) {
            self.input(input);
        }
    }

    /// The answers that can be delivered now: those with no unanswered request before them.
    fn due_answers(&mut self, link: LinkId) -> Vec<Input<K::Call>> {
        let Some(waiting) = self.waiting.get_mut(&link) else { return Vec::new() };
        let mut due = Vec::new();
        while let Some((_, Some(frame))) = waiting.pop_front_if(|(_, answer)| answer.is_some()) {
            let answer = self.owed.entry(link).or_default().read(frame).expect("an answer is owed");
            due.push(Input::Answer(link, Box::new(answer)));
        }
        due
    }

    fn forget(&mut self, link: LinkId) {
        self.open.remove(&link);
        self.waiting.remove(&link);
        self.owed.remove(&link);
        self.asked.retain(|asked| asked.link != link);
    }

    /// Breaks the connection of a request.
    pub fn cut(&mut self, asked: &Asked) {
        self.forget(asked.link);
        self.input(Input::Disconnected(asked.link));
    }

    /// Lets this much time pass, with a tick at each deadline.
    pub fn advance(&mut self, ms: i64) {
        let end = self.now.mono.plus_ms(ms);
        for _ in 0..10_000 {
            let Some(due) = self.client.deadline().filter(|due| *due <= end) else {
                self.set(end);
                return;
            };
            self.set(due.max(self.now.mono));
            self.input(Input::Tick);
        }
        panic!("the client asks for ticks again and again: {:?}", self.client.deadline());
    }

    fn set(&mut self, mono: Mono) {
        self.now.wall.0 += (mono.0 / 1_000_000) as i64 - (self.now.mono.0 / 1_000_000) as i64;
        self.now.mono = mono;
    }

    pub fn address(&self, link: LinkId) -> String {
        self.open[&link].to_string()
    }

    pub fn take_events(&mut self) -> Vec<K::Event> {
        std::mem::take(&mut self.events)
    }
}

fn partition(partition_index: i32, (leader_id, leader_epoch): (i32, i32)) -> MetadataResponsePartition {
    MetadataResponsePartition { partition_index, leader_id, leader_epoch, ..MetadataResponsePartition::default() }
}

fn answer_frame(asked: &Asked, body: ResponseBody) -> Bytes {
    let RequestHeader { api_key, api_version, correlation_id, .. } = asked.header;
    encode_response(api_key, api_version, correlation_id, &body).to_bytes().slice(4..)
}
