//! A hostile client. It sends attacks: requests that are wrong, or frames that are no requests. A volley of them goes
//! out on one connection; some connections are closed at once. If Kafka's answer to an attack is well defined, the
//! broker must give that answer. No other client may suffer.
//!
//! What it can write goes to a topic of its own. What it sends to the topics of other clients must be refused.

mod answers;
mod attacks;
mod batches;
mod operate;

use super::{Client, ClientAction, ClientInput, ClientOutbox, Link, OpenerInput, Setting};
use crate::history::Fact;
use crate::random::{Stream, stream};
use answers::{Told, read_answer};
use attacks::{Attack, Attacks, Expect, Known};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostilePlan {
    /// The longest pause between two connections.
    pub gap_ns_max: u64,
    /// A volley has at most this many attacks.
    pub volley_max: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// The attempt is given up at this time.
    Connecting(u64),
    /// Answers are awaited until this time.
    Waiting(u64),
    /// Everything was healed: it attacks no more.
    Over,
}

#[derive(Debug)]
pub struct Hostile {
    plan: HostilePlan,
    setting: Setting,
    stream: Stream,
    state: State,
    /// The connection of this volley.
    link: Link,
    next_at: u64,
    known: Known,
    correlation_id: i32,
    expected: VecDeque<Attack>,
    /// An attack of this volley got an excused error, such as that of a failed disk. The answers to later attacks that
    /// build on it prove nothing.
    excused: bool,
}

/// How long the client waits for an answer or for the end of the connection.
const PATIENCE_NS: u64 = 20_000_000_000;

/// Error codes that are excused as the answer to any attack: the topic does not exist yet, too few of its replicas are in
/// sync, or a disk or a coordinator fails.
const EXCUSES: [i16; 13] = [-1, 3, 5, 6, 7, 14, 15, 16, 19, 41, 56, 100, 103];

impl Hostile {
    pub fn new(plan: HostilePlan, setting: Setting) -> Self {
        Self {
            stream: stream(setting.seed, "hostile", &[setting.client.into()]),
            state: State::Idle,
            link: 0,
            next_at: 0,
            known: Known::default(),
            correlation_id: 0,
            expected: VecDeque::new(),
            excused: false,
            plan,
            setting,
        }
    }

    fn attack(&mut self, now: u64, out: &mut ClientOutbox) {
        let mut attacks = Attacks {
            setting: &self.setting,
            known: &mut self.known,
            stream: &mut self.stream,
            correlation_id: &mut self.correlation_id,
        };
        let volley = attacks.volley(self.plan.volley_max);
        self.excused = false;
        for attack in volley {
            out.actions.push(ClientAction::Send(self.link, attack.frame.clone()));
            if attack.expect != Expect::Silence {
                self.expected.push_back(attack);
            }
        }
        if self.expected.is_empty() || self.stream.one_in(6) {
            self.leave(now, out);
        } else {
            self.state = State::Waiting(now + PATIENCE_NS);
        }
    }

    fn leave(&mut self, now: u64, out: &mut ClientOutbox) {
        out.actions.push(ClientAction::Close(self.link));
        self.rest(now);
    }

    fn rest(&mut self, now: u64) {
        self.expected.clear();
        self.state = State::Idle;
        self.next_at = now + 1_000_000 + self.stream.skewed(self.plan.gap_ns_max);
    }

    fn handle_frame(&mut self, now: u64, frame: Bytes, out: &mut ClientOutbox) {
        let Some(attack) = self.expected.pop_front() else {
            return out.misbehaved("the hostile client was answered once too often".into());
        };
        let name = attack.name;
        if attack.expect == Expect::Closed {
            out.misbehaved(format!("{name}: an answer came where the connection was to be closed"));
        } else if attack.expect != Expect::Anything {
            match read_answer(&attack, frame) {
                Ok(told) => self.judge(&attack, &told, out),
                Err(text) => out.misbehaved(format!("{name}: {text}")),
            }
        }
        if self.expected.is_empty() {
            self.leave(now, out);
        }
    }

    fn judge(&mut self, attack: &Attack, told: &Told, out: &mut ClientOutbox) {
        let Attack { name, expect: Expect::Codes(codes), .. } = attack else { return };
        let is_expected = told.codes.iter().any(|code| codes.contains(code));
        let is_excused = self.excused || told.codes.iter().any(|code| EXCUSES.contains(code));
        if is_expected {
            out.fact(Fact::Withstood { attack: name });
        } else if is_excused {
            self.excused = true;
        } else {
            let got = &told.codes;
            out.misbehaved(format!("{name}: the answer was {got:?} where one of {codes:?} was due"));
        }
        if let Some(id) = told.producer_id {
            out.fact(Fact::ProducerId { id });
        }
        self.known.learn(told);
    }
}

impl Client for Hostile {
    fn handle(&mut self, now: u64, input: ClientInput, out: &mut ClientOutbox) {
        match input {
            ClientInput::Link(_, input) => match input {
                OpenerInput::Connected => self.attack(now, out),
                OpenerInput::Refused => self.rest(now),
                OpenerInput::Cut => {
                    if let Some(Attack { name, expect: Expect::Closed, .. }) = self.expected.front() {
                        out.fact(Fact::Withstood { attack: name });
                    }
                    self.rest(now);
                }
                OpenerInput::Frame(frame) => self.handle_frame(now, frame, out),
            },
            ClientInput::Healed => {
                if self.state != State::Idle {
                    out.actions.push(ClientAction::Close(self.link));
                }
                self.state = State::Over;
            }
            ClientInput::Wake | ClientInput::Finish => match self.state {
                State::Idle if self.next_at <= now => {
                    self.state = State::Connecting(now + PATIENCE_NS);
                    self.link += 1;
                    let bootstrap = &self.setting.bootstrap;
                    let address = match &bootstrap[..] {
                        [only] => only,
                        several => self.stream.pick(several),
                    };
                    out.actions.push(ClientAction::Connect(self.link, address.clone()));
                }
                State::Connecting(until) | State::Waiting(until) if until <= now => self.leave(now, out),
                _ => {}
            },
        }
    }

    fn deadline(&self) -> Option<u64> {
        match self.state {
            State::Idle => Some(self.next_at),
            State::Connecting(until) | State::Waiting(until) => Some(until),
            State::Over => None,
        }
    }

    fn pending(&self) -> Option<String> {
        None
    }

    fn role(&self) -> &'static str {
        "hostile"
    }

    fn is_hostile(&self) -> bool {
        true
    }
}
