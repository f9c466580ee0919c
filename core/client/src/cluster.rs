//! The connections of a client to the brokers of its cluster, and the metadata of the cluster.
//!
//! There is at most one connection to an address, so the connection to a bootstrap server is also used for the broker
//! at that address. A connection is opened when a request needs it. It is closed when a request on it takes longer than
//! `request.timeout.ms`, when an answer on it cannot be read, or when it was not used for `connections.max.idle.ms`.

use super::backoff::{Backoff, below};
use super::config::CommonConfig;
use super::connection::{Connection, FinishedRequest, FrameMeaning, RequestFailure};
use super::metadata::Metadata;
use super::{Address, Input, Outbox, Output, earliest};
use bytes::Bytes;
use bytestring::ByteString;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use tidelog_wire::ids::{ConnId, LeaderEpoch, NodeId};
use tidelog_wire::messages::{MetadataRequest, metadata_request::MetadataRequestTopic};
use tidelog_wire::time::{Mono, Now};
use tidelog_wire::{ApiKey, ErrorCode, RequestBody, ResponseBody};

/// The answer to a request of the client, or the reason why there is none.
#[derive(Debug)]
pub struct Reply<T> {
    pub conn: ConnId,
    pub tag: T,
    pub api_key: ApiKey,
    pub version: i16,
    pub sent_at: Mono,
    pub result: Result<ResponseBody, RequestFailure>,
}

/// What a request is for.
#[derive(Clone, Debug)]
enum Purpose<T> {
    /// The metadata of the cluster.
    Metadata,
    /// A request of the client, with its tag.
    Client(T),
}

/// What is known about an address. It outlives a single connection.
#[derive(Debug, Default)]
struct Endpoint {
    conn: Option<ConnId>,
    /// How many connections were lost since one last became ready.
    failures: u32,
    /// No connection is opened before this time.
    retry_at: Mono,
    /// Whether a connection was needed before `retry_at`, so that one is opened then.
    wanted: bool,
}

#[derive(Debug)]
pub struct Cluster<T> {
    config: CommonConfig,
    pub rng: ChaCha8Rng,
    pub metadata: Metadata,
    /// Why the last connection failed. Told to the application when a call times out.
    pub last_connection_error: Option<String>,
    endpoints: BTreeMap<Address, Endpoint>,
    connections: BTreeMap<ConnId, Connection<Purpose<T>>>,
    next_conn: u64,
    replies: VecDeque<Reply<T>>,
    refresh: Refresh,
}

/// When metadata is asked for.
#[derive(Debug, Default)]
struct Refresh {
    /// When metadata is to be asked for, because somebody needs it.
    due: Option<Mono>,
    /// Whether a Metadata request is in flight.
    under_way: bool,
    /// No request is sent before this time: there is a pause after each answer.
    not_before: Mono,
    /// How many attempts in a row failed, or brought an incomplete answer.
    failures: u32,
    /// When the first attempt was made since which every one has failed.
    failing_since: Option<Mono>,
    /// When the metadata is older than `metadata.max.age.ms`.
    stale_at: Option<Mono>,
}

/// From version 4 on, a Metadata request says whether it may create topics.
const METADATA_VERSIONS: RangeInclusive<i16> = 4..=13;

impl<T> Cluster<T> {
    pub fn new(config: CommonConfig, seed: u64) -> Self {
        assert!(!config.bootstrap_servers.is_empty(), "a client needs a bootstrap server");
        Self {
            config,
            rng: ChaCha8Rng::seed_from_u64(seed),
            metadata: Metadata::default(),
            last_connection_error: None,
            endpoints: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_conn: 1,
            replies: VecDeque::new(),
            refresh: Refresh::default(),
        }
    }

    /// Handles an input about connections or time. Returns the call if the input is one of the application's.
    pub fn handle<C, E>(&mut self, now: Now, input: Input<C>, out: &mut Outbox<E>) -> Option<C> {
        let mono = now.mono;
        match input {
            Input::Call(call) => return Some(call),
            Input::Tick => {}
            Input::Connected(conn) => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    let frame =
                        connection.handle_connected(mono, &self.config.client_id, self.config.request_timeout_ms);
                    out.outputs.push(Output::Send(conn, frame));
                }
            }
            Input::ConnectFailed(conn) | Input::Disconnected(conn) => self.lose(mono, conn, None),
            Input::Frame(conn, frame) => self.handle_frame(mono, conn, frame, out),
        }
        self.look_after_connections(mono, out);
        None
    }

    fn handle_frame<E>(&mut self, now: Mono, conn: ConnId, frame: Bytes, out: &mut Outbox<E>) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        match connection.handle_frame(now, frame, &self.config.client_id, self.config.request_timeout_ms) {
            FrameMeaning::Answer(finished) => {
                let malformed = matches!(finished.result, Err(RequestFailure::Malformed(_)));
                self.finish_request(now, conn, *finished);
                if malformed {
                    self.close(now, conn, out);
                }
            }
            FrameMeaning::Ready => {
                let address = connection.address.clone();
                let endpoint = self.endpoints.entry(address).or_default();
                endpoint.failures = 0;
                self.last_connection_error = None;
            }
            FrameMeaning::Send(frame) => out.outputs.push(Output::Send(conn, frame)),
            FrameMeaning::Broken(text) => {
                self.last_connection_error = Some(format!("{}: {text}", connection.address));
                self.close(now, conn, out);
            }
        }
    }

    fn look_after_connections<E>(&mut self, now: Mono, out: &mut Outbox<E>) {
        let idle_ms = self.config.connections_max_idle_ms;
        let is_idle = |it: &Connection<_>| it.in_flight() == 0 && it.last_used.plus_ms(idle_ms) <= now;
        let idle = self.connections.extract_if(.., |_, it| idle_ms >= 0 && it.is_ready() && is_idle(it));
        for (conn, connection) in idle {
            out.outputs.push(Output::Close(conn));
            // Not `lose`: an idle connection is no failure, and no reason to doubt the metadata.
            self.endpoints.entry(connection.address).or_default().conn = None;
        }
        let late: Vec<ConnId> = self.connections.values().filter(|it| it.is_late(now)).map(|it| it.conn).collect();
        for conn in late {
            self.close(now, conn, out);
        }
        let due = |(_, endpoint): &(&Address, &Endpoint)| endpoint.wanted && endpoint.retry_at <= now;
        let due: Vec<Address> = self.endpoints.iter().filter(due).map(|(address, _)| address.clone()).collect();
        for address in due {
            self.connect(now, &address, out);
        }
        // Forgets the addresses that belong to no broker any more.
        let (metadata, config) = (&self.metadata, &self.config);
        self.endpoints.retain(|address, endpoint| {
            let known = metadata.brokers.values().chain(&config.bootstrap_servers).any(|known| known == address);
            known || endpoint.conn.is_some()
        });
    }

    fn close<E>(&mut self, now: Mono, conn: ConnId, out: &mut Outbox<E>) {
        out.outputs.push(Output::Close(conn));
        self.lose(now, conn, Some(now));
    }

    /// A connection is lost: fails all requests on it. If `late` is given, those that have waited too long until then
    /// fail as timed out.
    fn lose(&mut self, now: Mono, conn: ConnId, late: Option<Mono>) {
        let Some(connection) = self.connections.remove(&conn) else { return };
        let endpoint = self.endpoints.entry(connection.address.clone()).or_default();
        endpoint.conn = None;
        endpoint.failures += 1;
        if !connection.is_ready() {
            let failed = || format!("{}: no connection could be made", connection.address);
            self.last_connection_error.get_or_insert_with(failed);
        }
        endpoint.retry_at = now.plus_ms(self.config.reconnect_backoff.pause_ms(endpoint.failures, &mut self.rng));
        for finished in connection.fail_all(late) {
            self.finish_request(now, conn, finished);
        }
        // The broker may have gone, and other brokers may lead its partitions now.
        self.request_update(now);
    }

    fn finish_request(&mut self, now: Mono, conn: ConnId, finished: FinishedRequest<Purpose<T>>) {
        let FinishedRequest { tag, api_key, version, sent_at, result } = finished;
        match tag {
            Purpose::Client(tag) => self.replies.push_back(Reply { conn, tag, api_key, version, sent_at, result }),
            Purpose::Metadata => self.handle_metadata(now, result),
        }
    }

    /// The next answer, in the order in which they came.
    pub fn pop_reply(&mut self) -> Option<Reply<T>> {
        self.replies.pop_front()
    }

    // Sending.

    /// A connection to a broker on which requests can be sent. `None` if there is none yet; then one is opened.
    pub fn connection_to<E>(&mut self, now: Now, node: NodeId, out: &mut Outbox<E>) -> Option<ConnId> {
        let address = self.metadata.brokers.get(&node)?.clone();
        self.connection_at(now.mono, &address, out)
    }

    /// A connection to any broker, preferably the one with the fewest requests in flight. `None` if there is none yet;
    /// then one is opened.
    pub fn any_connection<E>(&mut self, now: Now, out: &mut Outbox<E>) -> Option<ConnId> {
        let ready = self.connections.values().filter(|connection| connection.is_ready());
        if let Some(connection) = ready.min_by_key(|connection| connection.in_flight()) {
            return Some(connection.conn);
        }
        if !self.connections.is_empty() {
            return None;
        }
        let known: Vec<&Address> = if self.metadata.brokers.is_empty() {
            self.config.bootstrap_servers.iter().collect()
        } else {
            self.metadata.brokers.values().collect()
        };
        // Chooses at random among the addresses that may be tried first.
        let retry_at =
            |address: &Address| self.endpoints.get(address).map_or(Mono::ZERO, |it| it.retry_at.max(now.mono));
        let first = known.iter().map(|address| retry_at(address).max(now.mono)).min()?;
        let choices: Vec<&Address> =
            known.into_iter().filter(|address| retry_at(address).max(now.mono) == first).collect();
        let address = choices[below(&mut self.rng, choices.len() as u64) as usize].clone();
        self.connection_at(now.mono, &address, out)
    }

    fn connection_at<E>(&mut self, now: Mono, address: &Address, out: &mut Outbox<E>) -> Option<ConnId> {
        let endpoint = self.endpoints.entry(address.clone()).or_default();
        match endpoint.conn {
            Some(conn) => self.connections[&conn].is_ready().then_some(conn),
            None if endpoint.retry_at > now => {
                endpoint.wanted = true;
                None
            }
            None => {
                self.connect(now, address, out);
                None
            }
        }
    }

    fn connect<E>(&mut self, now: Mono, address: &Address, out: &mut Outbox<E>) {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        let endpoint = self.endpoints.entry(address.clone()).or_default();
        assert!(endpoint.conn.is_none(), "there is one connection to an address at most");
        endpoint.conn = Some(conn);
        endpoint.wanted = false;
        let timeout_ms = self.config.connection_setup_timeout.pause_ms(endpoint.failures + 1, &mut self.rng);
        self.connections.insert(conn, Connection::new(conn, address.clone(), now, timeout_ms));
        out.outputs.push(Output::Connect(conn, address.clone()));
    }

    pub fn in_flight(&self, conn: ConnId) -> usize {
        self.connections.get(&conn).map_or(0, Connection::in_flight)
    }

    /// The newest version in `range` that the broker at the other end serves too.
    pub fn version(&self, conn: ConnId, api_key: ApiKey, range: RangeInclusive<i16>) -> Option<i16> {
        self.connections.get(&conn)?.version(api_key, range)
    }

    /// Sends a request on a connection that is ready. `tag` comes back with the answer.
    pub fn send<E>(&mut self, now: Now, conn: ConnId, version: i16, body: RequestBody, tag: T, out: &mut Outbox<E>) {
        self.send_for(now, conn, version, body, Purpose::Client(tag), out);
    }

    fn send_for<E>(
        &mut self,
        now: Now,
        conn: ConnId,
        version: i16,
        body: RequestBody,
        purpose: Purpose<T>,
        out: &mut Outbox<E>,
    ) {
        let connection = self.connections.get_mut(&conn).expect("the connection was ready just now");
        let (client_id, timeout_ms) = (&self.config.client_id, self.config.request_timeout_ms);
        let frame = connection.send(now.mono, version, body, client_id, timeout_ms, purpose);
        out.outputs.push(Output::Send(conn, frame));
    }

    pub fn send_without_answer<E>(
        &mut self,
        now: Now,
        conn: ConnId,
        version: i16,
        body: RequestBody,
        out: &mut Outbox<E>,
    ) {
        let connection = self.connections.get_mut(&conn).expect("the connection was ready just now");
        let frame = connection.send_without_answer(now.mono, version, body, &self.config.client_id);
        out.outputs.push(Output::Send(conn, frame));
    }

    /// `request.timeout.ms`, in the type that requests have for it.
    pub fn request_timeout_ms(&self) -> i32 {
        i32::try_from(self.config.request_timeout_ms).unwrap_or(i32::MAX)
    }

    /// The pause in milliseconds before a request is tried again, after this number of failures.
    pub fn retry_pause_ms(&mut self, failures: u32) -> i64 {
        let backoff: Backoff = self.config.retry_backoff;
        backoff.pause_ms(failures, &mut self.rng)
    }

    // Metadata.

    /// Asks for the metadata of this topic from now on.
    pub fn want_topic(&mut self, now: Now, topic: &ByteString) {
        if self.metadata.want(topic) {
            self.refresh.due = Some(now.mono);
        }
    }

    /// Asks for metadata, because it may be out of date.
    pub fn request_update(&mut self, now: Mono) {
        if self.refresh.due.is_none() {
            self.refresh.due = Some(self.refresh.not_before.max(now));
        }
    }

    /// Takes the leader of a partition (node and epoch) from a broker's answer (KIP-951). Asks for metadata if the
    /// broker did not name a leader (-1), or named one that is known already.
    pub fn leader_changed(&mut self, now: Now, topic: &str, partition: i32, leader: (i32, i32)) {
        let (node, epoch) = leader;
        if node < 0 || !self.metadata.learn_leader(topic, partition, NodeId(node), LeaderEpoch(epoch)) {
            self.request_update(now.mono);
        }
    }

    /// Asks for metadata if it is time. To be called after every input.
    pub fn pump<E>(&mut self, now: Now, out: &mut Outbox<E>) {
        let due = earliest([self.refresh.due, self.refresh.stale_at]).is_some_and(|due| due <= now.mono);
        if self.refresh.under_way || !due {
            return;
        }
        self.rebootstrap_if_lost(now.mono);
        let Some(conn) = self.any_connection(now, out) else { return };
        let Some(version) = self.version(conn, ApiKey::Metadata, METADATA_VERSIONS) else {
            // This broker serves no version of Metadata that this client knows.
            return self.close(now.mono, conn, out);
        };
        let topic = |name: &ByteString| MetadataRequestTopic { name: Some(name.clone()), ..Default::default() };
        let request = MetadataRequest {
            topics: Some(self.metadata.wanted().map(topic).collect()),
            allow_auto_topic_creation: self.config.allow_auto_create_topics,
            ..MetadataRequest::default()
        };
        self.refresh.under_way = true;
        self.refresh.due = None;
        self.send_for(now, conn, version, request.into(), Purpose::Metadata, out);
    }

    fn handle_metadata(&mut self, now: Mono, result: Result<ResponseBody, RequestFailure>) {
        self.refresh.under_way = false;
        let missing = match result {
            Ok(ResponseBody::Metadata(response)) if response.error_code == ErrorCode::RebootstrapRequired.code() => {
                self.rebootstrap();
                true
            }
            // An answer without any broker comes from a broker that is still starting.
            Ok(ResponseBody::Metadata(response)) if !response.brokers.is_empty() => {
                self.refresh.failing_since = None;
                self.refresh.stale_at = Some(now.plus_ms(self.config.metadata_max_age_ms));
                self.metadata.learn(&response)
            }
            _ => {
                self.refresh.failing_since.get_or_insert(now);
                self.refresh.stale_at = None;
                true
            }
        };
        self.refresh.failures = if missing { self.refresh.failures + 1 } else { 0 };
        let pause = self.config.retry_backoff.pause_ms(self.refresh.failures, &mut self.rng);
        self.refresh.not_before = now.plus_ms(pause);
        if missing {
            self.refresh.due = Some(self.refresh.not_before);
        }
    }

    /// Begins again with the bootstrap servers, if no metadata could be had for too long (KIP-899, KIP-1102).
    fn rebootstrap_if_lost(&mut self, now: Mono) {
        let since = *self.refresh.failing_since.get_or_insert(now);
        if self.config.rebootstrap_after_ms.is_some_and(|after_ms| since.plus_ms(after_ms) <= now) {
            self.rebootstrap();
            self.refresh.failing_since = Some(now);
        }
    }

    /// Forgets the brokers, so that the next request goes to a bootstrap server.
    fn rebootstrap(&mut self) {
        self.metadata.brokers.clear();
    }

    /// When a tick is needed next.
    pub fn deadline(&self) -> Option<Mono> {
        let refresh = if self.refresh.under_way { None } else { earliest([self.refresh.due, self.refresh.stale_at]) };
        // While no broker can be asked, only the deadlines of connections and endpoints count.
        let refresh = refresh.filter(|_| self.is_reachable());
        let wanted = self.endpoints.values().filter(|endpoint| endpoint.wanted).map(|endpoint| endpoint.retry_at).min();
        let connections = self.connections.values().filter_map(Connection::deadline).min();
        let idle_ms = self.config.connections_max_idle_ms;
        let idle = self.connections.values().filter(|it| idle_ms >= 0 && it.is_ready() && it.in_flight() == 0);
        let idle = idle.map(|connection| connection.last_used.plus_ms(idle_ms)).min();
        earliest([refresh, wanted, connections, idle])
    }

    fn is_reachable(&self) -> bool {
        let is_wanted = self.endpoints.values().any(|endpoint| endpoint.wanted);
        self.connections.values().any(Connection::is_ready) || self.connections.is_empty() && !is_wanted
    }
}
