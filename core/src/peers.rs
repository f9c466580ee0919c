//! Asks other nodes for the parts of the broker, as the disk is asked: each [`Ask`] gets exactly one [`Answer`].
//!
//! ```text
//!                 Ask                    Connect, Send, HangUp
//!   a part ────────────────► Peers ─────────────────────────────► world
//!          ◄──────────────── Answer ◄────────────────────────────
//!                                       Opened, Answer, Lost
//! ```
//!
//! Each owner has its own connections, as in Kafka: the answers of a connection come in the order of its requests, and
//! the answer to a fetch that waits for records must not hold back another owner's.
//!
//! A question waits until its address is connected, pauses after failures included. If that fails, it fails as
//! unreachable. If its time runs out, it fails as timed out; where it was sent, its connection is closed then, as
//! Kafka's `NetworkClient` does, and the other questions on that connection fail as disconnected.
//!
//! Invariants: every question is waiting, sent, or has its answer in `answers`; while an address is connected, no
//! question waits for it.

mod channel;
#[cfg(test)]
mod tests;

use crate::broker::Seed;
use crate::config::{BrokerConfig, Layers};
use crate::ids::LinkId;
use crate::io::{Answer, Ask, LinkEvent, Outbox, Output, PeerOwner, PeerRequest};
use crate::time::Mono;
use crate::wire::{Address, RequestBody, RequestHeader};
use channel::Channel;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, VecDeque};
use tidelog_link::{Backoff, Orders, PoolConfig, earliest};

#[derive(Debug)]
pub struct Peers {
    seed: Seed,
    channels: BTreeMap<PeerOwner, Channel>,
    next_link: u64,
    /// The answers that their owners have not got yet, oldest first.
    answers: VecDeque<Answer>,
    /// When the last of `answers` came.
    answered_at: Mono,
    /// When a channel has something to do.
    due: Option<Mono>,
    metrics: BTreeMap<PeerOwner, PeerMetrics>,
}

/// What one owner has asked other nodes, since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerMetrics {
    /// Connections that are open, and whose versions are known.
    pub connections: usize,
    pub connections_created: u64,
    pub asked: u64,
    pub answered: u64,
    /// Questions without an answer, by `AskError::kind`.
    pub failed: BTreeMap<&'static str, u64>,
}

/// The outbox, as a pool of connections sees it.
struct ToWorld<'a> {
    next_link: &'a mut u64,
    out: &'a mut Outbox,
}

impl Orders for ToWorld<'_> {
    fn connect(&mut self, address: &Address) -> LinkId {
        let link = LinkId(*self.next_link);
        *self.next_link += 1;
        self.out.outputs.push(Output::Connect(link, address.clone()));
        link
    }

    fn send(&mut self, link: LinkId, header: RequestHeader, body: RequestBody) {
        self.out.outputs.push(Output::Send(link, Box::new(PeerRequest { header, body })));
    }

    fn hang_up(&mut self, link: LinkId) {
        self.out.outputs.push(Output::HangUp(link));
    }
}

impl Peers {
    pub fn new(config: &BrokerConfig, seed: Seed) -> Self {
        let mut peers = Self {
            seed,
            channels: BTreeMap::new(),
            next_link: 1,
            answers: VecDeque::new(),
            answered_at: Mono::ZERO,
            due: None,
            metrics: BTreeMap::new(),
        };
        for owner in [PeerOwner::Quorum, PeerOwner::Controller, PeerOwner::Life] {
            peers.add(config, owner);
        }
        peers.resize_fetchers(config, fetchers_per_leader(&config.layers()));
        peers
    }

    fn add(&mut self, config: &BrokerConfig, owner: PeerOwner) {
        let new = || Channel::new(owner, pool_config(config, owner), rng(self.seed, owner));
        self.channels.entry(owner).or_insert_with(new);
        self.metrics.entry(owner).or_default();
    }

    /// There are at least this many fetchers. Connections of those that ask nothing any more end as idle ones do.
    pub fn resize_fetchers(&mut self, config: &BrokerConfig, count: u16) {
        (0..count).for_each(|number| self.add(config, PeerOwner::Fetchers(number)));
    }

    /// Takes what the parts have asked.
    pub fn ask(&mut self, now: Mono, asks: Vec<Ask>, out: &mut Outbox) {
        let mut world = ToWorld { next_link: &mut self.next_link, out };
        for ask in asks {
            self.metrics.get_mut(&ask.id.owner).expect("there is one for each owner").asked += 1;
            let channel = self.channels.get_mut(&ask.id.owner).expect("there is a channel for each owner");
            channel.ask(now, ask, &mut world, &mut self.answers);
        }
        self.note_due(now);
    }

    /// Something has happened on a link.
    pub fn handle_link(&mut self, now: Mono, link: LinkId, event: LinkEvent, out: &mut Outbox) {
        let mut world = ToWorld { next_link: &mut self.next_link, out };
        // A link that was hung up belongs to no channel any more.
        if let Some(channel) = self.channels.values_mut().find(|channel| channel.has(link)) {
            channel.handle_link(now, link, event, &mut world, &mut self.answers);
            self.note_due(now);
        }
    }

    /// Does what time has made due.
    pub fn tick(&mut self, now: Mono, out: &mut Outbox) {
        let mut world = ToWorld { next_link: &mut self.next_link, out };
        for channel in self.channels.values_mut() {
            channel.tick(now, &mut world, &mut self.answers);
        }
        self.note_due(now);
    }

    /// The answers for the owners, in the order in which they came.
    pub fn take_answers(&mut self) -> VecDeque<Answer> {
        for Answer { id, result } in &self.answers {
            let metrics = self.metrics.get_mut(&id.owner).expect("there is one for each owner");
            match result {
                Ok(_) => metrics.answered += 1,
                Err(error) => *metrics.failed.entry(error.kind()).or_default() += 1,
            }
        }
        std::mem::take(&mut self.answers)
    }

    pub fn metrics(&self) -> BTreeMap<PeerOwner, PeerMetrics> {
        let mut metrics = self.metrics.clone();
        for (owner, metrics) in &mut metrics {
            let channel = &self.channels[owner];
            (metrics.connections, metrics.connections_created) = channel.connections();
        }
        metrics
    }

    /// When [`tick`](Self::tick) has something to do, or answers are to be taken.
    pub fn deadline(&self) -> Option<Mono> {
        match self.answers.is_empty() {
            true => self.due,
            false => earliest([Some(self.answered_at), self.due]),
        }
    }

    fn note_due(&mut self, now: Mono) {
        self.answered_at = now;
        self.due = self.channels.values().filter_map(Channel::deadline).min();
    }

    /// Asserts the invariants.
    pub fn verify(&self) {
        self.channels.values().for_each(Channel::verify);
    }
}

/// `num.replica.fetchers`
pub fn fetchers_per_leader(config: &Layers) -> u16 {
    config.number("num.replica.fetchers").clamp(1, u16::MAX.into()) as u16
}

/// A stream of random numbers that the broker uses for nothing else.
fn rng(seed: Seed, owner: PeerOwner) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::from_seed(seed);
    rng.set_stream(match owner {
        PeerOwner::Quorum => 1,
        PeerOwner::Controller => 2,
        PeerOwner::Life => 3,
        PeerOwner::Fetchers(number) => 4 + u64::from(number),
    });
    rng
}

/// The numbers of Kafka's `KafkaRaftManager`, `NodeToControllerChannelManagerImpl` and `BrokerBlockingSender`.
fn pool_config(config: &BrokerConfig, owner: PeerOwner) -> PoolConfig {
    let (client_id, reconnect_max_ms, versions_timeout_ms, max_idle_ms) = match owner {
        PeerOwner::Quorum => {
            let client_id = format!("raft-client-{}", config.node_id);
            (client_id, 500, config.quorum.request_timeout_ms, config.connections_max_idle_ms)
        }
        PeerOwner::Controller | PeerOwner::Life => {
            (config.node_id.to_string(), 50, config.controller_socket_timeout_ms.into(), -1)
        }
        PeerOwner::Fetchers(number) => {
            let client_id = format!("broker-{}-fetcher-{number}", config.node_id);
            (client_id, 50, config.replica_socket_timeout_ms.into(), config.connections_max_idle_ms)
        }
    };
    PoolConfig {
        client_id: client_id.into(),
        reconnect_backoff: Backoff { first_ms: 50, max_ms: reconnect_max_ms },
        connection_setup_timeout: Backoff {
            first_ms: config.socket_connection_setup_timeout_ms,
            max_ms: config.socket_connection_setup_timeout_max_ms,
        },
        versions_timeout_ms,
        connections_max_idle_ms: max_idle_ms,
    }
}
