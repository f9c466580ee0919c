//! The connections of a client to the brokers of its cluster, and the metadata that says which are needed.
//!
//! Connections are kept by address: a bootstrap server that turns out to be a broker of the cluster serves as that.
//! A connection is opened when a request needs it, and closed when a request on it takes longer than
//! `request.timeout.ms`, when it says what makes no sense, or when nobody has used it for `connections.max.idle.ms`.

use super::backoff::{Backoff, below};
use super::config::CommonConfig;
use super::connection::{Connection, FrameMeaning, RequestFailure, Settled};
use super::metadata::Metadata;
use super::{Address, Input, Outbox, Output, earliest};
use crate::ids::{ConnId, LeaderEpoch, NodeId};
use crate::time::{Mono, Now};
use crate::wire::messages::{MetadataRequest, metadata_request::MetadataRequestTopic};
use crate::wire::{ApiKey, ErrorCode, RequestBody, ResponseBody};
use bytes::Bytes;
use bytestring::ByteString;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

/// An answer to a request of the client, or why there is none.
#[derive(Debug)]
pub struct Reply<T> {
    pub conn: ConnId,
    pub tag: T,
    pub api_key: ApiKey,
    pub version: i16,
    pub sent_at: Mono,
    pub result: Result<ResponseBody, RequestFailure>,
}

#[derive(Clone, Debug)]
enum Purpose<T> {
    Metadata,
    Client(T),
}

/// What is remembered of an address beyond one connection.
#[derive(Debug, Default)]
struct Endpoint {
    conn: Option<ConnId>,
    /// Connections in a row that did not get as far as ready.
    failures: u32,
    /// Not to be tried before.
    retry_at: Mono,
    /// Somebody has asked for it in the meantime.
    wanted: bool,
}

#[derive(Debug)]
pub struct Cluster<T> {
    config: CommonConfig,
    pub rng: ChaCha8Rng,
    pub metadata: Metadata,
    /// The last thing that made a connection useless: for whoever wonders why nothing goes on.
    pub trouble: Option<String>,
    endpoints: BTreeMap<Address, Endpoint>,
    connections: BTreeMap<ConnId, Connection<Purpose<T>>>,
    next_conn: u64,
    replies: VecDeque<Reply<T>>,
    refresh: Refresh,
}

/// When metadata is asked for.
#[derive(Debug, Default)]
struct Refresh {
    /// Somebody needs it; not before this time.
    due: Option<Mono>,
    under_way: bool,
    /// A pause after each answer, however much is doubtful.
    not_before: Mono,
    /// Attempts in a row that brought nothing new, or not all.
    failures: u32,
    /// When the first of those attempts was made.
    failing_since: Option<Mono>,
    /// When what is known is too old.
    stale_at: Option<Mono>,
}

/// Metadata is asked for in versions that say whether topics may be created by the way.
const METADATA_VERSIONS: RangeInclusive<i16> = 4..=13;

impl<T> Cluster<T> {
    pub fn new(config: CommonConfig, seed: u64) -> Self {
        assert!(!config.bootstrap_servers.is_empty(), "a client needs a bootstrap server");
        Self {
            config,
            rng: ChaCha8Rng::seed_from_u64(seed),
            metadata: Metadata::default(),
            trouble: None,
            endpoints: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_conn: 1,
            replies: VecDeque::new(),
            refresh: Refresh::default(),
        }
    }

    /// Takes what concerns connections; gives back what the application calls.
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
            FrameMeaning::Settled(settled) => {
                let malformed = matches!(settled.result, Err(RequestFailure::Malformed(_)));
                self.settle(now, conn, *settled);
                if malformed {
                    self.close(now, conn, out);
                }
            }
            FrameMeaning::Ready => {
                let address = connection.address.clone();
                let endpoint = self.endpoints.entry(address).or_default();
                endpoint.failures = 0;
                self.trouble = None;
            }
            FrameMeaning::Send(frame) => out.outputs.push(Output::Send(conn, frame)),
            FrameMeaning::Broken(text) => {
                self.trouble = Some(format!("{}: {text}", connection.address));
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
            // Nothing is wrong with it, so nothing is doubtful.
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
        // Addresses that nobody is reached at any more are forgotten.
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

    /// The connection is gone, and with it all that waited on it.
    fn lose(&mut self, now: Mono, conn: ConnId, late: Option<Mono>) {
        let Some(connection) = self.connections.remove(&conn) else { return };
        let endpoint = self.endpoints.entry(connection.address.clone()).or_default();
        endpoint.conn = None;
        endpoint.failures += 1;
        if !connection.is_ready() {
            let failed = || format!("{}: no connection could be made", connection.address);
            self.trouble.get_or_insert_with(failed);
        }
        endpoint.retry_at = now.plus_ms(self.config.reconnect_backoff.pause_ms(endpoint.failures, &mut self.rng));
        for settled in connection.fail_all(late) {
            self.settle(now, conn, settled);
        }
        // A broker that has gone may have given its partitions away.
        self.request_update(now);
    }

    fn settle(&mut self, now: Mono, conn: ConnId, settled: Settled<Purpose<T>>) {
        let Settled { tag, api_key, version, sent_at, result } = settled;
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

    /// A connection to a broker on which requests can be sent; where there is none, one is opened.
    pub fn connection_to<E>(&mut self, now: Now, node: NodeId, out: &mut Outbox<E>) -> Option<ConnId> {
        let address = self.metadata.brokers.get(&node)?.clone();
        self.connection_at(now.mono, &address, out)
    }

    /// A connection to whichever broker has least to do.
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
        // Whoever may be tried first; of those that may be tried at once, any.
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
        assert!(endpoint.conn.is_none(), "one connection to an address");
        endpoint.conn = Some(conn);
        endpoint.wanted = false;
        let timeout_ms = self.config.connection_setup_timeout.pause_ms(endpoint.failures + 1, &mut self.rng);
        self.connections.insert(conn, Connection::new(conn, address.clone(), now, timeout_ms));
        out.outputs.push(Output::Connect(conn, address.clone()));
    }

    pub fn in_flight(&self, conn: ConnId) -> usize {
        self.connections.get(&conn).map_or(0, Connection::in_flight)
    }

    /// The newest version of `range` that the broker at the other end serves too.
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

    /// How long an answer is waited for, as requests say it.
    pub fn request_timeout_ms(&self) -> i32 {
        i32::try_from(self.config.request_timeout_ms).unwrap_or(i32::MAX)
    }

    /// A pause before a request is tried again, after so many failures.
    pub fn retry_pause_ms(&mut self, failures: u32) -> i64 {
        let backoff: Backoff = self.config.retry_backoff;
        backoff.pause_ms(failures, &mut self.rng)
    }

    // Metadata.

    /// The topic is worked with from now on.
    pub fn want_topic(&mut self, now: Now, topic: &ByteString) {
        if self.metadata.want(topic) {
            self.refresh.due = Some(now.mono);
        }
    }

    /// What is known may be wrong.
    pub fn request_update(&mut self, now: Mono) {
        if self.refresh.due.is_none() {
            self.refresh.due = Some(self.refresh.not_before.max(now));
        }
    }

    /// A broker said who leads a partition (KIP-951); -1 where it did not. Asks for metadata unless that is news.
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
            // Not a broker that we can work with.
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
            // A broker that knows no broker has not come up yet.
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

    /// KIP-899 and KIP-1102: brokers that cannot be reached for long are forgotten.
    fn rebootstrap_if_lost(&mut self, now: Mono) {
        let since = *self.refresh.failing_since.get_or_insert(now);
        if self.config.rebootstrap_after_ms.is_some_and(|after_ms| since.plus_ms(after_ms) <= now) {
            self.rebootstrap();
            self.refresh.failing_since = Some(now);
        }
    }

    fn rebootstrap(&mut self) {
        self.metadata.brokers.clear();
    }

    /// When something is due here.
    pub fn deadline(&self) -> Option<Mono> {
        let refresh = if self.refresh.under_way { None } else { earliest([self.refresh.due, self.refresh.stale_at]) };
        // While no broker can be asked, the connection's or the endpoint's moment is what is waited for.
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
