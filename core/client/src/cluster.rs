//! The connections of a client to the brokers of its cluster, and the metadata of the cluster.
//!
//! The connections are a [`Pool`]: there is at most one to an address, so the connection to a bootstrap server is also
//! used for the broker at that address.

use super::config::CommonConfig;
use super::metadata::Metadata;
use super::{Address, Input, Outbox, Output, Request};
use bytestring::ByteString;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use tidelog_link::{Backoff, Connection, FinishedRequest, Orders, Pool, PoolConfig, PoolEvent, RequestFailure};
use tidelog_link::{below, earliest};
use tidelog_wire::ids::{LeaderEpoch, LinkId, NodeId};
use tidelog_wire::messages::{MetadataRequest, metadata_request::MetadataRequestTopic};
use tidelog_wire::time::{Mono, Now};
use tidelog_wire::{ApiKey, ErrorCode, RequestBody, RequestHeader, ResponseBody};

/// The answer to a request of the client, or the reason why there is none.
#[derive(Debug)]
pub struct Reply<T> {
    pub link: LinkId,
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

#[derive(Debug)]
pub struct Cluster<T> {
    config: CommonConfig,
    pub rng: ChaCha8Rng,
    pub metadata: Metadata,
    /// Why the last connection failed. Told to the application when a call times out.
    pub last_connection_error: Option<String>,
    pool: Pool<Purpose<T>>,
    next_link: u64,
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

/// The outbox, as the pool sees it.
struct ToWorld<'a, E> {
    next_link: &'a mut u64,
    out: &'a mut Outbox<E>,
}

impl<E> Orders for ToWorld<'_, E> {
    fn connect(&mut self, address: &Address) -> LinkId {
        let link = LinkId(*self.next_link);
        *self.next_link += 1;
        self.out.outputs.push(Output::Connect(link, address.clone()));
        link
    }

    fn send(&mut self, link: LinkId, header: RequestHeader, body: RequestBody) {
        self.out.outputs.push(Output::Send(link, Box::new(Request { header, body })));
    }

    fn hang_up(&mut self, link: LinkId) {
        self.out.outputs.push(Output::Close(link));
    }
}

impl<T> Cluster<T> {
    pub fn new(config: CommonConfig, seed: u64) -> Self {
        assert!(!config.bootstrap_servers.is_empty(), "a client needs a bootstrap server");
        let pool = PoolConfig {
            client_id: config.client_id.clone(),
            reconnect_backoff: config.reconnect_backoff,
            connection_setup_timeout: config.connection_setup_timeout,
            versions_timeout_ms: config.request_timeout_ms,
            connections_max_idle_ms: config.connections_max_idle_ms,
        };
        let mut rng_of_pool = ChaCha8Rng::seed_from_u64(seed);
        rng_of_pool.set_stream(1);
        Self {
            config,
            rng: ChaCha8Rng::seed_from_u64(seed),
            metadata: Metadata::default(),
            last_connection_error: None,
            pool: Pool::new(pool, rng_of_pool),
            next_link: 1,
            replies: VecDeque::new(),
            refresh: Refresh::default(),
        }
    }

    /// Handles an input about connections or time. Returns the call if the input is one of the application's.
    pub fn handle<C, E>(&mut self, now: Now, input: Input<C>, out: &mut Outbox<E>) -> Option<C> {
        let mono = now.mono;
        let (pool, mut world) = (&mut self.pool, ToWorld { next_link: &mut self.next_link, out });
        match input {
            Input::Call(call) => return Some(call),
            Input::Tick => {}
            Input::Connected(link) => pool.handle_opened(mono, link, &mut world),
            Input::ConnectFailed(link) | Input::Disconnected(link) => pool.handle_lost(mono, link, None),
            Input::Answer(link, answer) => pool.handle_answer(mono, link, *answer, &mut world),
        }
        self.pool_events(mono);
        self.pool.tick(mono, &mut ToWorld { next_link: &mut self.next_link, out });
        self.pool_events(mono);
        // Forgets the addresses that belong to no broker any more.
        let (metadata, config) = (&self.metadata, &self.config);
        let is_known =
            |address: &Address| metadata.brokers.values().chain(&config.bootstrap_servers).any(|it| it == address);
        self.pool.retain(|address, _| is_known(address));
        None
    }

    fn pool_events(&mut self, now: Mono) {
        while let Some(event) = self.pool.pop_event() {
            match event {
                PoolEvent::Ready { .. } => self.last_connection_error = None,
                PoolEvent::Finished { link, request } => self.finish_request(now, link, *request),
                PoolEvent::Lost { address, was_ready, why, .. } => {
                    match why {
                        Some(text) => self.last_connection_error = Some(format!("{address}: {text}")),
                        None if was_ready => {}
                        None => {
                            let failed = || format!("{address}: no connection could be made");
                            self.last_connection_error.get_or_insert_with(failed);
                        }
                    }
                    // The broker may have gone, and other brokers may lead its partitions now.
                    self.request_update(now);
                }
            }
        }
    }

    fn finish_request(&mut self, now: Mono, link: LinkId, finished: FinishedRequest<Purpose<T>>) {
        let FinishedRequest { tag, api_key, version, sent_at, result } = finished;
        match tag {
            Purpose::Client(tag) => self.replies.push_back(Reply { link, tag, api_key, version, sent_at, result }),
            Purpose::Metadata => self.handle_metadata(now, result),
        }
    }

    /// The next answer, in the order in which they came.
    pub fn pop_reply(&mut self) -> Option<Reply<T>> {
        self.replies.pop_front()
    }

    // Sending.

    /// A connection to a broker on which requests can be sent. `None` if there is none yet; then one is opened.
    pub fn connection_to<E>(&mut self, now: Now, node: NodeId, out: &mut Outbox<E>) -> Option<LinkId> {
        let address = self.metadata.brokers.get(&node)?.clone();
        self.connection_at(now.mono, &address, out)
    }

    fn connection_at<E>(&mut self, now: Mono, address: &Address, out: &mut Outbox<E>) -> Option<LinkId> {
        self.pool.connection_at(now, address, &mut ToWorld { next_link: &mut self.next_link, out })
    }

    /// A connection to any broker, preferably the one with the fewest requests in flight. `None` if there is none yet;
    /// then one is opened.
    pub fn any_connection<E>(&mut self, now: Now, out: &mut Outbox<E>) -> Option<LinkId> {
        let ready = self.pool.connections().filter(|connection| connection.is_ready());
        if let Some(connection) = ready.min_by_key(|connection| connection.in_flight()) {
            return Some(connection.link);
        }
        if self.pool.connections().next().is_some() {
            return None;
        }
        let known: Vec<&Address> = if self.metadata.brokers.is_empty() {
            self.config.bootstrap_servers.iter().collect()
        } else {
            self.metadata.brokers.values().collect()
        };
        // Chooses at random among the addresses that may be tried first.
        let retry_at = |address: &Address| self.pool.retry_at(address).max(now.mono);
        let first = known.iter().map(|address| retry_at(address)).min()?;
        let choices: Vec<&Address> = known.into_iter().filter(|address| retry_at(address) == first).collect();
        let address = choices[below(&mut self.rng, choices.len() as u64) as usize].clone();
        self.connection_at(now.mono, &address, out)
    }

    pub fn in_flight(&self, link: LinkId) -> usize {
        self.pool.connection(link).map_or(0, Connection::in_flight)
    }

    /// The newest version in `range` that the broker at the other end serves too.
    pub fn version(&self, link: LinkId, api_key: ApiKey, range: RangeInclusive<i16>) -> Option<i16> {
        self.pool.version(link, api_key, range)
    }

    /// Sends a request on a connection that is ready. `tag` comes back with the answer.
    pub fn send<E>(&mut self, now: Now, link: LinkId, version: i16, body: RequestBody, tag: T, out: &mut Outbox<E>) {
        self.send_for(now, link, version, body, Purpose::Client(tag), out);
    }

    fn send_for<E>(
        &mut self,
        now: Now,
        link: LinkId,
        version: i16,
        body: RequestBody,
        purpose: Purpose<T>,
        out: &mut Outbox<E>,
    ) {
        let deadline = now.mono.plus_ms(self.config.request_timeout_ms);
        let mut world = ToWorld { next_link: &mut self.next_link, out };
        self.pool.send(now.mono, link, (version, body), deadline, purpose, &mut world);
    }

    pub fn send_without_answer<E>(
        &mut self,
        now: Now,
        link: LinkId,
        version: i16,
        body: RequestBody,
        out: &mut Outbox<E>,
    ) {
        let mut world = ToWorld { next_link: &mut self.next_link, out };
        self.pool.send_without_answer(now.mono, link, (version, body), &mut world);
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
        let Some(link) = self.any_connection(now, out) else { return };
        let Some(version) = self.version(link, ApiKey::Metadata, METADATA_VERSIONS) else {
            // This broker serves no version of Metadata that this client knows.
            self.pool.close(now.mono, link, None, &mut ToWorld { next_link: &mut self.next_link, out });
            return self.pool_events(now.mono);
        };
        let topic = |name: &ByteString| MetadataRequestTopic { name: Some(name.clone()), ..Default::default() };
        let request = MetadataRequest {
            topics: Some(self.metadata.wanted().map(topic).collect()),
            allow_auto_topic_creation: self.config.allow_auto_create_topics,
            ..MetadataRequest::default()
        };
        self.refresh.under_way = true;
        self.refresh.due = None;
        self.send_for(now, link, version, request.into(), Purpose::Metadata, out);
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
        earliest([refresh, self.pool.deadline()])
    }

    fn is_reachable(&self) -> bool {
        let mut connections = self.pool.connections().peekable();
        let is_idle = connections.peek().is_none() && !self.pool.is_pausing();
        is_idle || connections.any(Connection::is_ready)
    }
}
