//! The connections to many addresses: at most one to each.
//!
//! A connection is opened when its owner needs it. It is closed when the set-up or a request on it takes too long, when
//! an answer on it cannot be read, or when it was not used for a while. After a failure the next attempt waits for a
//! pause, which grows with each failure since the address was last reached.
//!
//! Each call leaves [`PoolEvent`]s, which the owner takes out with [`Pool::pop_event`] before the next call.

use super::backoff::Backoff;
use super::connection::{AnswerMeaning, Connection, FinishedRequest, RequestFailure};
use super::{ReadAnswer, earliest};
use bytestring::ByteString;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use tidelog_wire::ids::LinkId;
use tidelog_wire::time::Mono;
use tidelog_wire::{Address, ApiKey, RequestBody, RequestHeader};

/// Where a pool puts what it asks of the world.
pub trait Orders {
    /// Opens a connection. Gives the number by which the pool and the world speak of it.
    fn connect(&mut self, address: &Address) -> LinkId;
    /// Sends a request on an open connection.
    fn send(&mut self, link: LinkId, header: RequestHeader, body: RequestBody);
    /// Closes a connection, or gives up opening it.
    fn hang_up(&mut self, link: LinkId);
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// The client id in the headers of requests.
    pub client_id: ByteString,
    pub reconnect_backoff: Backoff,
    /// How long it may take to open a connection. Grows with each failure, as a pause does.
    pub connection_setup_timeout: Backoff,
    /// How long the answer to ApiVersions may take.
    pub versions_timeout_ms: i64,
    /// How long a connection may be unused; negative: for ever.
    pub connections_max_idle_ms: i64,
}

/// What an owner is told.
#[derive(Debug)]
pub enum PoolEvent<T> {
    /// Requests can be sent on the connection to this address from now on. `failures`: how often in a row it was not
    /// reached before.
    Ready { address: Address, failures: u32 },
    /// A request is answered, or will not be answered any more.
    Finished { link: LinkId, request: Box<FinishedRequest<T>> },
    /// A connection was lost, or could not be made. Comes behind the end of all its requests. `failures`: how often in a
    /// row now.
    Lost { address: Address, was_ready: bool, failures: u32, why: Option<String> },
}

/// What is known about an address. It outlives a single connection.
#[derive(Debug, Default)]
struct Endpoint {
    link: Option<LinkId>,
    /// How many connections were lost since one last became ready.
    failures: u32,
    /// No connection is opened before this time.
    retry_at: Mono,
    /// Whether a connection was needed before `retry_at`, so that one is opened then.
    wanted: bool,
}

/// Connections, of whose requests `T` recognises the answers.
#[derive(Debug)]
pub struct Pool<T> {
    config: PoolConfig,
    rng: ChaCha8Rng,
    endpoints: BTreeMap<Address, Endpoint>,
    connections: BTreeMap<LinkId, Connection<T>>,
    events: VecDeque<PoolEvent<T>>,
}

impl<T> Pool<T> {
    pub fn new(config: PoolConfig, rng: ChaCha8Rng) -> Self {
        Self { config, rng, endpoints: BTreeMap::new(), connections: BTreeMap::new(), events: VecDeque::new() }
    }

    pub fn pop_event(&mut self) -> Option<PoolEvent<T>> {
        self.events.pop_front()
    }

    // What the world tells. It may speak of connections that are closed by now.

    pub fn handle_opened(&mut self, now: Mono, link: LinkId, out: &mut impl Orders) {
        let deadline = now.plus_ms(self.config.versions_timeout_ms);
        if let Some(connection) = self.connections.get_mut(&link) {
            let (header, body) = connection.handle_opened(now, deadline);
            out.send(link, header, body);
        }
    }

    pub fn handle_answer(&mut self, now: Mono, link: LinkId, answer: ReadAnswer, out: &mut impl Orders) {
        let deadline = now.plus_ms(self.config.versions_timeout_ms);
        let Some(connection) = self.connections.get_mut(&link) else { return };
        match connection.handle_answer(now, answer, deadline) {
            AnswerMeaning::Finished(request) => {
                let malformed = matches!(request.result, Err(RequestFailure::Malformed(_)));
                self.events.push_back(PoolEvent::Finished { link, request });
                if malformed {
                    self.close(now, link, None, out);
                }
            }
            AnswerMeaning::Ready => {
                let address = connection.address.clone();
                let endpoint = self.endpoints.entry(address.clone()).or_default();
                let failures = std::mem::take(&mut endpoint.failures);
                self.events.push_back(PoolEvent::Ready { address, failures });
            }
            AnswerMeaning::Send(request) => out.send(link, request.0, request.1),
            AnswerMeaning::Broken(why) => self.close(now, link, Some(why), out),
        }
    }

    /// The connection was closed by the other end or broke, or could not be opened.
    pub fn handle_lost(&mut self, now: Mono, link: LinkId, why: Option<String>) {
        self.lose(now, link, why, None);
    }

    /// Closes what is idle or late, and opens what is wanted and may be opened.
    pub fn tick(&mut self, now: Mono, out: &mut impl Orders) {
        let idle_ms = self.config.connections_max_idle_ms;
        let is_idle = |it: &Connection<_>| it.in_flight() == 0 && it.last_used.plus_ms(idle_ms) <= now;
        let idle = self.connections.extract_if(.., |_, it| idle_ms >= 0 && it.is_ready() && is_idle(it));
        for (link, connection) in idle {
            out.hang_up(link);
            // Not `lose`: an idle connection is no failure.
            self.endpoints.entry(connection.address).or_default().link = None;
        }
        let late: Vec<LinkId> = self.connections.values().filter(|it| it.is_late(now)).map(|it| it.link).collect();
        for link in late {
            self.close(now, link, None, out);
        }
        let due = |(_, endpoint): &(&Address, &Endpoint)| endpoint.wanted && endpoint.retry_at <= now;
        let due: Vec<Address> = self.endpoints.iter().filter(due).map(|(address, _)| address.clone()).collect();
        for address in due {
            self.connect(now, &address, out);
        }
    }

    /// Forgets the addresses to which there is no connection, except those to `keep`: it is given the address, and when
    /// the pause after its last failure is over.
    pub fn retain(&mut self, mut keep: impl FnMut(&Address, Mono) -> bool) {
        self.endpoints.retain(|address, endpoint| endpoint.link.is_some() || keep(address, endpoint.retry_at));
    }

    /// Closes a connection because of a failure.
    pub fn close(&mut self, now: Mono, link: LinkId, why: Option<String>, out: &mut impl Orders) {
        out.hang_up(link);
        self.lose(now, link, why, Some(now));
    }

    /// A connection is lost: fails all requests on it. If `late` is given, those that have waited too long until then
    /// fail as timed out.
    fn lose(&mut self, now: Mono, link: LinkId, why: Option<String>, late: Option<Mono>) {
        let Some(connection) = self.connections.remove(&link) else { return };
        let (address, was_ready) = (connection.address.clone(), connection.is_ready());
        let endpoint = self.endpoints.entry(address.clone()).or_default();
        endpoint.link = None;
        endpoint.failures += 1;
        let failures = endpoint.failures;
        endpoint.retry_at = now.plus_ms(self.config.reconnect_backoff.pause_ms(failures, &mut self.rng));
        let finished =
            connection.fail_all(late).map(|request| PoolEvent::Finished { link, request: Box::new(request) });
        self.events.extend(finished);
        self.events.push_back(PoolEvent::Lost { address, was_ready, failures, why });
    }

    // Sending.

    /// A connection to this address on which requests can be sent. `None` if there is none yet; then one is opened, at
    /// once or after the pause.
    pub fn connection_at(&mut self, now: Mono, address: &Address, out: &mut impl Orders) -> Option<LinkId> {
        let endpoint = self.endpoints.entry(address.clone()).or_default();
        match endpoint.link {
            Some(link) => self.connections[&link].is_ready().then_some(link),
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

    fn connect(&mut self, now: Mono, address: &Address, out: &mut impl Orders) {
        let link = out.connect(address);
        let endpoint = self.endpoints.entry(address.clone()).or_default();
        assert!(endpoint.link.is_none(), "there is one connection to an address at most");
        endpoint.link = Some(link);
        endpoint.wanted = false;
        let timeout_ms = self.config.connection_setup_timeout.pause_ms(endpoint.failures + 1, &mut self.rng);
        let client_id = self.config.client_id.clone();
        let connection = Connection::new(link, address.clone(), client_id, now, now.plus_ms(timeout_ms));
        let before = self.connections.insert(link, connection);
        assert!(before.is_none(), "a connection's number is new");
    }

    /// Sends a request on a connection that is ready, to be answered until `deadline`. `tag` comes back with the
    /// answer.
    pub fn send(
        &mut self,
        now: Mono,
        link: LinkId,
        (version, body): (i16, RequestBody),
        deadline: Mono,
        tag: T,
        out: &mut impl Orders,
    ) {
        let connection = self.connections.get_mut(&link).expect("the connection was ready just now");
        let header = connection.send(now, version, &body, deadline, tag);
        out.send(link, header, body);
    }

    /// Sends a request that is never answered (Produce with acks=0).
    pub fn send_without_answer(
        &mut self,
        now: Mono,
        link: LinkId,
        (version, body): (i16, RequestBody),
        out: &mut impl Orders,
    ) {
        let connection = self.connections.get_mut(&link).expect("the connection was ready just now");
        let header = connection.send_without_answer(now, version, &body);
        out.send(link, header, body);
    }

    // What is known.

    pub fn connection(&self, link: LinkId) -> Option<&Connection<T>> {
        self.connections.get(&link)
    }

    pub fn connections(&self) -> impl Iterator<Item = &Connection<T>> {
        self.connections.values()
    }

    /// The newest version in `range` that the other end of a connection serves too.
    pub fn version(&self, link: LinkId, api_key: ApiKey, range: RangeInclusive<i16>) -> Option<i16> {
        self.connection(link)?.version(api_key, range)
    }

    /// When the pause after the last failure of this address is over; in the past if there is none.
    pub fn retry_at(&self, address: &Address) -> Mono {
        self.endpoints.get(address).map_or(Mono::ZERO, |endpoint| endpoint.retry_at)
    }

    /// Whether an address is to be connected to once its pause is over.
    pub fn is_pausing(&self) -> bool {
        self.endpoints.values().any(|endpoint| endpoint.wanted)
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn deadline(&self) -> Option<Mono> {
        let wanted = self.endpoints.values().filter(|endpoint| endpoint.wanted).map(|endpoint| endpoint.retry_at).min();
        let connections = self.connections.values().filter_map(Connection::deadline).min();
        let idle_ms = self.config.connections_max_idle_ms;
        let idle = self.connections.values().filter(|it| idle_ms >= 0 && it.is_ready() && it.in_flight() == 0);
        let idle = idle.map(|connection| connection.last_used.plus_ms(idle_ms)).min();
        earliest([wanted, connections, idle])
    }

    /// Asserts the invariants of the pool.
    pub fn verify(&self) {
        for (address, endpoint) in &self.endpoints {
            if let Some(link) = endpoint.link {
                assert_eq!(&self.connections[&link].address, address, "an address knows its own connection");
                assert!(!endpoint.wanted, "a connection that is there is not wanted");
            }
        }
        let known = self.endpoints.values().filter(|endpoint| endpoint.link.is_some()).count();
        assert_eq!(known, self.connections.len(), "each connection is the one of its address");
        assert!(self.events.is_empty(), "the owner takes out all events");
    }
}
