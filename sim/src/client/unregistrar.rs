//! An operator who unregisters a broker that is gone for good, as `kafka-cluster unregister` does.

use super::session::SessionEvent;
use super::sessions::{Host, Sessions};
use super::{Client, ClientInput, ClientOutbox, Setting};
use crate::cluster::node_id;
use crate::history::Fact;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{BrokerId, UnregisterBrokerRequest, UnregisterBrokerResponse};

const RETRY_NS: u64 = 100_000_000;

/// An earlier request without an answer was carried out.
const BROKER_ID_NOT_REGISTERED: i16 = 102;

#[derive(Debug)]
pub struct Unregistrar {
    node: u32,
    sessions: Sessions,
    asked: Option<Host>,
    requests: u64,
    next_at: u64,
    is_done: bool,
}

impl Unregistrar {
    pub fn new(node: u32, setting: &Setting) -> Self {
        Self { node, sessions: Sessions::new(setting), asked: None, requests: 0, next_at: 0, is_done: false }
    }

    fn pump(&mut self, now: u64, out: &mut ClientOutbox) {
        if self.is_done || self.asked.is_some() || now < self.next_at {
            return;
        }
        let Some(host) = self.sessions.any() else { return };
        self.requests += 1;
        let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(node_id(self.node).0));
        self.sessions.send(now, host, &request, self.requests, out);
        self.asked = Some(host);
    }

    fn handle_answer(&mut self, response: &UnregisterBrokerResponse, out: &mut ClientOutbox) {
        let error = response.error_code;
        let is_retriable = ResponseError::try_from_code(error).is_some_and(|error| error.is_retriable());
        match error {
            0 | BROKER_ID_NOT_REGISTERED => {
                self.is_done = true;
                out.fact(Fact::Unregistered { node: self.node });
            }
            -1 => {}
            _ if is_retriable => {}
            _ => out.misbehaved(format!("UnregisterBroker of {} was answered with {error}", self.node)),
        }
    }
}

impl Client for Unregistrar {
    fn handle(&mut self, now: u64, input: ClientInput, out: &mut ClientOutbox) {
        for event in self.sessions.handle(now, input, out) {
            match event {
                SessionEvent::Response(answer) => {
                    self.asked = None;
                    self.next_at = now + RETRY_NS;
                    if let Some(response) = answer.decode::<UnregisterBrokerResponse>(out) {
                        self.handle_answer(&response, out);
                    }
                }
                SessionEvent::Lost(host) => self.asked = self.asked.filter(|asked| *asked != host),
                SessionEvent::Ready | SessionEvent::Unreachable(_) => {}
            }
        }
        self.pump(now, out);
    }

    fn deadline(&self) -> Option<u64> {
        if self.is_done {
            return None;
        }
        let next = (self.asked.is_none() && self.sessions.any().is_some()).then_some(self.next_at);
        [self.sessions.deadline(), next].into_iter().flatten().min()
    }

    fn pending(&self) -> Option<String> {
        (!self.is_done).then(|| format!("node {} is not unregistered", self.node))
    }

    fn role(&self) -> &'static str {
        "unregistrar"
    }
}
