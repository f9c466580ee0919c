//! One owner's questions and its connections to other nodes.

use super::ToWorld;
use crate::batch::Checked;
use crate::ids::LinkId;
use crate::io::{Answer, Answered, Ask, AskError, Level, LinkEvent, Part, PeerId, PeerOwner};
use crate::time::Mono;
use crate::wire::Address;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, VecDeque};
use tidelog_link::{FinishedRequest, Pool, PoolConfig, PoolEvent, RequestFailure, earliest};

/// The part that the operator's log names.
const PART: Part = Part::Peers;
/// How long an address that nobody asks is remembered, behind the pause after its last failure.
const FORGET_AFTER_MS: i64 = 3_600_000;

#[derive(Debug)]
pub(super) struct Channel {
    owner: PeerOwner,
    /// The tag of a request is the `seq` of its question.
    pool: Pool<u64>,
    connections_created: u64,
    /// The questions that are not sent yet, by address, oldest first. No list is empty.
    waiting: BTreeMap<Address, Vec<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    ask: Ask,
    deadline: Mono,
}

impl Channel {
    pub fn new(owner: PeerOwner, config: PoolConfig, rng: ChaCha8Rng) -> Self {
        Self { owner, pool: Pool::new(config, rng), connections_created: 0, waiting: BTreeMap::new() }
    }

    /// How many connections can be used now, and how many could since the start.
    pub fn connections(&self) -> (usize, u64) {
        (self.pool.connections().filter(|connection| connection.is_ready()).count(), self.connections_created)
    }

    pub fn has(&self, link: LinkId) -> bool {
        self.pool.connection(link).is_some()
    }

    pub fn ask(&mut self, now: Mono, ask: Ask, world: &mut ToWorld<'_>, answers: &mut VecDeque<Answer>) {
        assert_eq!(ask.id.owner, self.owner, "a channel is for one owner");
        assert!(ask.body.is_answered(), "a question has an answer");
        let (address, deadline) = (ask.to.clone(), now.plus_ms(ask.timeout_ms));
        self.waiting.entry(address.clone()).or_default().push(Waiting { ask, deadline });
        self.send_waiting(now, &address, world, answers);
    }

    pub fn handle_link(
        &mut self,
        now: Mono,
        link: LinkId,
        event: LinkEvent,
        world: &mut ToWorld<'_>,
        answers: &mut VecDeque<Answer>,
    ) {
        let mut batches = Vec::new();
        match event {
            LinkEvent::Opened => self.pool.handle_opened(now, link, world),
            LinkEvent::Answer(answer) => {
                batches = answer.batches;
                self.pool.handle_answer(now, link, answer.read, world);
            }
            LinkEvent::Lost(why) => self.pool.handle_lost(now, link, Some(why)),
        }
        self.pool_events(now, batches, world, answers);
    }

    pub fn tick(&mut self, now: Mono, world: &mut ToWorld<'_>, answers: &mut VecDeque<Answer>) {
        self.pool.tick(now, world);
        self.pool_events(now, Vec::new(), world, answers);
        for waiting in self.waiting.values_mut() {
            for late in waiting.extract_if(.., |it| it.deadline <= now) {
                answers.push_back(Answer { id: late.ask.id, result: Err(AskError::TimedOut) });
            }
        }
        self.waiting.retain(|_, waiting| !waiting.is_empty());
        let waiting = &self.waiting;
        self.pool.retain(|address, retry_at| waiting.contains_key(address) || now < retry_at.plus_ms(FORGET_AFTER_MS));
    }

    /// What has become of connections and requests. `batches` are those of an answer that has just come.
    fn pool_events(
        &mut self,
        now: Mono,
        mut batches: Vec<Vec<Checked>>,
        world: &mut ToWorld<'_>,
        answers: &mut VecDeque<Answer>,
    ) {
        while let Some(event) = self.pool.pop_event() {
            match event {
                PoolEvent::Ready { address, failures } => {
                    self.connections_created += 1;
                    if failures > 0 {
                        world.out.event(Level::Info, PART, format!("{address}: connected after {failures} failures"));
                    }
                    self.send_waiting(now, &address, world, answers);
                }
                PoolEvent::Finished { request, .. } => {
                    let FinishedRequest { tag: seq, version, result, .. } = *request;
                    let result = match result {
                        Ok(body) => Ok(Answered { version, body, batches: std::mem::take(&mut batches) }),
                        Err(RequestFailure::Disconnected) => Err(AskError::Disconnected),
                        Err(RequestFailure::TimedOut { .. }) => Err(AskError::TimedOut),
                        Err(RequestFailure::Malformed(text)) => Err(AskError::Malformed(text)),
                    };
                    answers.push_back(Answer { id: PeerId { owner: self.owner, seq }, result });
                }
                PoolEvent::Lost { address, was_ready, failures, why } => {
                    let text = match (was_ready, why) {
                        (true, why) => why.map(|why| format!("{address}: the connection was lost: {why}")),
                        (false, Some(why)) => Some(format!("{address}: no connection could be made: {why}")),
                        (false, None) => Some(format!("{address}: no connection could be made in time")),
                    };
                    let level = if was_ready || failures > 1 { Level::Debug } else { Level::Warn };
                    text.into_iter().for_each(|text| world.out.event(level, PART, text));
                    for unreachable in self.waiting.remove(&address).into_iter().flatten() {
                        answers.push_back(Answer { id: unreachable.ask.id, result: Err(AskError::Unreachable) });
                    }
                }
            }
        }
    }

    /// Sends what waits for an address, if it is connected.
    fn send_waiting(&mut self, now: Mono, address: &Address, world: &mut ToWorld<'_>, answers: &mut VecDeque<Answer>) {
        if !self.waiting.contains_key(address) {
            return;
        }
        let Some(link) = self.pool.connection_at(now, address, world) else { return };
        for Waiting { ask, deadline } in self.waiting.remove(address).into_iter().flatten() {
            let Ask { id, body, versions, .. } = ask;
            match self.pool.version(link, body.api_key(), versions) {
                Some(version) => self.pool.send(now, link, (version, body), deadline, id.seq, world),
                None => answers.push_back(Answer { id, result: Err(AskError::Unsupported) }),
            }
        }
    }

    pub fn deadline(&self) -> Option<Mono> {
        let waiting = self.waiting.values().flatten().map(|it| it.deadline).min();
        earliest([self.pool.deadline(), waiting])
    }

    pub fn verify(&self) {
        self.pool.verify();
        for (address, waiting) in &self.waiting {
            assert!(!waiting.is_empty(), "an address is listed if questions wait for it");
            let connected = self.pool.connections().any(|it| it.is_ready() && it.address == *address);
            assert!(!connected, "no question waits for an address that is connected");
        }
    }
}
