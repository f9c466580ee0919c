//! A client's session with one node: it connects, connects again after a loss, agrees on versions, and matches answers
//! to requests.

use super::sessions::Host;
use super::{ClientAction, ClientOutbox, Link, OpenerInput, Setting};
use crate::history::Fact;
use crate::random::stream;
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchRequest, MetadataRequest, ProduceRequest, RequestHeader,
    ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use std::collections::{BTreeMap, VecDeque};
use tidelog_client::Address;

/// How long a client waits for a connection.
const CONNECT_TIMEOUT_NS: u64 = 3_000_000_000;

/// How long a client waits for an answer before it closes the connection.
pub const REQUEST_TIMEOUT_NS: u64 = 10_000_000_000;

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Not connected. The session connects at this time.
    Idle(u64),
    /// The attempt is given up at this time.
    Connecting(u64),
    Negotiating,
    Ready,
}

#[derive(Debug)]
struct InFlight {
    correlation_id: i32,
    key: i16,
    version: i16,
    response_header_version: i16,
    tag: u64,
    sent_at: u64,
}

/// What a session tells the client that owns it.
#[derive(Debug)]
pub enum SessionEvent {
    /// Requests can be sent.
    Ready,
    Response(Answer),
    /// The connection is gone. The requests in flight to this node will have no answers.
    Lost(Host),
    /// There was no connection, and none could be made.
    Unreachable(Host),
}

/// A response without its header.
#[derive(Debug)]
pub struct Answer {
    pub host: Host,
    pub key: i16,
    pub version: i16,
    /// The tag with which the request was sent.
    pub tag: u64,
    pub sent_at: u64,
    body: Bytes,
}

impl Answer {
    /// Decodes the body. If it does not decode or has bytes left over, that is a [`Fact::Misbehaved`].
    pub fn decode<R: Decodable>(mut self, out: &mut ClientOutbox) -> Option<R> {
        let decoded = R::decode(&mut self.body, self.version);
        match decoded {
            Ok(response) if self.body.is_empty() => Some(response),
            Ok(_) => {
                out.misbehaved(format!("{} bytes are left of a response to {}", self.body.len(), self.name()));
                None
            }
            Err(error) => {
                out.misbehaved(format!("a response to {} does not decode: {error}", self.name()));
                None
            }
        }
    }

    fn name(&self) -> String {
        format!("key {} version {}", self.key, self.version)
    }
}

#[derive(Debug)]
pub struct Session {
    seed: u64,
    client: u32,
    host: Host,
    address: Address,
    /// The connection that was asked for last. A session uses one at a time.
    pub link: Link,
    /// Batches may be compressed with zstd, which old versions do not know.
    zstd: bool,
    state: State,
    next_correlation_id: i32,
    in_flight: VecDeque<InFlight>,
    versions: BTreeMap<i16, (i16, i16)>,
    attempts: u64,
    /// When everything was healed: a request that times out after this is the broker's fault.
    healed_at: Option<u64>,
}

impl Session {
    pub fn new(now: u64, host: Host, address: Address, setting: &Setting) -> Self {
        Self {
            seed: setting.seed,
            client: setting.client,
            host,
            address,
            link: 0,
            zstd: setting.zstd,
            state: State::Idle(now),
            next_correlation_id: 0,
            in_flight: VecDeque::new(),
            versions: BTreeMap::new(),
            attempts: 0,
            healed_at: None,
        }
    }

    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    pub fn deadline(&self) -> Option<u64> {
        match self.state {
            State::Idle(until) | State::Connecting(until) => Some(until),
            _ => self.in_flight.front().map(|request| request.sent_at + REQUEST_TIMEOUT_NS),
        }
    }

    pub fn handle(&mut self, now: u64, input: OpenerInput, out: &mut ClientOutbox) -> Option<SessionEvent> {
        match input {
            OpenerInput::Connected => {
                assert!(matches!(self.state, State::Connecting(_)), "a session connects once at a time");
                self.state = State::Negotiating;
                let request = ApiVersionsRequest::default()
                    .with_client_software_name(StrBytes::from_static_str("tidelog-sim"))
                    .with_client_software_version(StrBytes::from_static_str("1"));
                let version =
                    stream(self.seed, "client.versions", &[self.client.into(), self.attempts]).below(4) as i16;
                self.send_as(now, version, &request, 0, out);
                None
            }
            OpenerInput::Refused => {
                self.back_off(now);
                Some(SessionEvent::Unreachable(self.host))
            }
            OpenerInput::Cut => Some(self.lose(now)),
            OpenerInput::Frame(frame) => self.handle_frame(now, frame, out),
        }
    }

    pub fn handle_healed(&mut self, now: u64) {
        self.healed_at = Some(now);
    }

    /// Does what is due by now. `next_link` names the connection that is asked for if it is time for one.
    pub fn handle_wake(&mut self, now: u64, next_link: Link, out: &mut ClientOutbox) -> Option<SessionEvent> {
        if matches!(self.state, State::Idle(until) if until <= now) {
            self.state = State::Connecting(now + CONNECT_TIMEOUT_NS);
            self.attempts += 1;
            self.link = next_link;
            out.actions.push(ClientAction::Connect(self.link, self.address.clone()));
        }
        if matches!(self.state, State::Connecting(until) if until <= now) {
            out.actions.push(ClientAction::Close(self.link));
            self.back_off(now);
            return Some(SessionEvent::Unreachable(self.host));
        }
        let late = self.in_flight.front().filter(|request| request.sent_at + REQUEST_TIMEOUT_NS <= now)?;
        if self.healed_at.is_some_and(|healed| healed + REQUEST_TIMEOUT_NS < late.sent_at) {
            out.misbehaved(format!("no answer to key {} version {} in ten seconds", late.key, late.version));
        }
        out.actions.push(ClientAction::Close(self.link));
        Some(self.lose(now))
    }

    fn handle_frame(&mut self, now: u64, mut frame: Bytes, out: &mut ClientOutbox) -> Option<SessionEvent> {
        let Some(request) = self.in_flight.pop_front() else {
            out.misbehaved("a response to nothing".into());
            return None;
        };
        let header = match ResponseHeader::decode(&mut frame, request.response_header_version) {
            Ok(header) => header,
            Err(error) => {
                out.misbehaved(format!("a response header does not decode: {error}"));
                return None;
            }
        };
        if header.correlation_id != request.correlation_id {
            let (got, want) = (header.correlation_id, request.correlation_id);
            out.misbehaved(format!("a response with correlation id {got} where {want} was due"));
            return None;
        }
        let InFlight { key, version, tag, sent_at, .. } = request;
        let answer = Answer { host: self.host, key, version, tag, sent_at, body: frame };
        if self.state != State::Negotiating {
            return Some(SessionEvent::Response(answer));
        }
        let response: ApiVersionsResponse = answer.decode(out)?;
        if response.error_code != 0 {
            out.misbehaved(format!("ApiVersions was answered with error {}", response.error_code));
            out.actions.push(ClientAction::Close(self.link));
            return Some(self.lose(now));
        }
        let range = |key: &kafka_protocol::messages::api_versions_response::ApiVersion| {
            (key.api_key, (key.min_version, key.max_version))
        };
        self.versions = response.api_keys.iter().map(range).collect();
        self.attempts = 0;
        self.state = State::Ready;
        Some(SessionEvent::Ready)
    }

    /// The version in which this client sends this kind of request. It is drawn from those that both sides know, half
    /// of the time as the newest. None if there is no such version.
    pub fn version<R: Request>(&self) -> Option<i16> {
        let (min, max) = *self.versions.get(&R::KEY)?;
        let (mut min, mut max) = (min.max(R::VERSIONS.min), max.min(R::VERSIONS.max));
        if self.zstd && R::KEY == ProduceRequest::KEY {
            // KIP-110
            min = min.max(7);
        } else if self.zstd && R::KEY == FetchRequest::KEY {
            min = min.max(10);
        }
        if R::KEY == MetadataRequest::KEY {
            // Older versions create every topic that they name, with the broker's default number of partitions.
            min = min.max(4);
        } else if [ProduceRequest::KEY, FetchRequest::KEY].contains(&R::KEY) && !self.learns_topic_ids() {
            max = max.min(12);
        }
        if min > max {
            return None;
        }
        let mut stream = stream(self.seed, "client.version", &[self.client.into(), R::KEY as u64]);
        Some(if stream.one_in(2) { max } else { stream.between(min as u64, max as u64) as i16 })
    }

    /// Whether this client's Metadata tells it topic ids (KIP-516).
    fn learns_topic_ids(&self) -> bool {
        self.version::<MetadataRequest>().is_some_and(|version| version >= 10)
    }

    /// Sends a request in [`Self::version`]. `tag` comes back with the answer.
    pub fn send<R: Request>(&mut self, now: u64, request: &R, tag: u64, out: &mut ClientOutbox) {
        let Some(version) = self.version::<R>() else {
            out.misbehaved(format!("no version of key {} is served", R::KEY));
            return;
        };
        self.send_as(now, version, request, tag, out);
    }

    /// Sends a request in the newest version that both sides know.
    pub fn send_newest<R: Request>(&mut self, now: u64, request: &R, tag: u64, out: &mut ClientOutbox) {
        let newest = self.versions.get(&R::KEY).map(|(_, max)| (*max).min(R::VERSIONS.max));
        match newest {
            Some(version) => self.send_as(now, version, request, tag, out),
            None => out.misbehaved(format!("no version of key {} is served", R::KEY)),
        }
    }

    /// Sends a request to which no answer comes (Produce with acks=0).
    pub fn send_without_answer<R: Request>(&mut self, now: u64, request: &R, out: &mut ClientOutbox) {
        let before = self.in_flight.len();
        self.send(now, request, 0, out);
        self.in_flight.truncate(before);
    }

    fn send_as<R: Request>(&mut self, now: u64, version: i16, request: &R, tag: u64, out: &mut ClientOutbox) {
        self.next_correlation_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.next_correlation_id)
            .with_client_id(Some(StrBytes::from_string(format!("client-{}", self.client))));
        let mut frame = BytesMut::new();
        header.encode(&mut frame, R::header_version(version)).expect("a header encodes");
        request.encode(&mut frame, version).unwrap_or_else(|error| panic!("key {} version {version}: {error}", R::KEY));
        self.in_flight.push_back(InFlight {
            correlation_id: self.next_correlation_id,
            key: R::KEY,
            version,
            response_header_version: R::Response::header_version(version),
            tag,
            sent_at: now,
        });
        out.actions.push(ClientAction::Send(self.link, frame.freeze()));
    }

    fn lose(&mut self, now: u64) -> SessionEvent {
        self.in_flight.clear();
        self.back_off(now);
        SessionEvent::Lost(self.host)
    }

    fn back_off(&mut self, now: u64) {
        let mut stream = stream(self.seed, "client.backoff", &[self.client.into(), now]);
        // A node that stays away may wait for its session to end before it can register again.
        let least = if self.attempts > 50 { 200_000_000 } else { 1_000_000 };
        self.state = State::Idle(now + least + stream.skewed(200_000_000));
    }
}

impl ClientOutbox {
    pub fn misbehaved(&mut self, text: String) {
        self.actions.push(ClientAction::Fact(Fact::Misbehaved { text }));
    }

    pub fn fact(&mut self, fact: Fact) {
        self.actions.push(ClientAction::Fact(fact));
    }
}
