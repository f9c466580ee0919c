//! Answers leave a connection in the order of its requests.
//!
//! Requests of one connection are worked on at once, so they may finish in any order. Each gets a slot when it
//! comes in; an answer is given to the world when every earlier slot of its connection has been settled.

use crate::ids::ConnId;
use crate::io::{Outbox, Output, Response};
use crate::plant::{Plant, Plants};
use crate::probe::Probe;
use crate::wire::{ApiKey, RequestHeader, ResponseBody};
use std::collections::{BTreeMap, VecDeque};

/// The right to answer one request, once. Whoever holds it owes `Replies` exactly one call.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Ticket {
    pub conn: ConnId,
    /// The place in `listeners` of the listener that the connection came in on.
    pub listener: u16,
    slot: u64,
    pub api_key: ApiKey,
    pub api_version: i16,
    correlation_id: i32,
}

impl Ticket {
    /// The same right, for an answer in another version than the request's.
    pub fn in_version(self, api_version: i16) -> Self {
        Self { api_version, ..self }
    }
}

#[derive(Debug)]
enum Slot {
    Waiting,
    Answer(Box<Response>),
    /// The request wants no answer: a Produce with acks=0.
    Nothing,
    Close(&'static str),
}

#[derive(Debug, Default)]
struct Lane {
    /// The slot number of the front of `slots`.
    first: u64,
    slots: VecDeque<Slot>,
}

/// The unanswered requests of every connection.
#[derive(Debug, Default)]
pub struct Replies {
    lanes: BTreeMap<ConnId, Lane>,
    plants: Plants,
}

impl Replies {
    pub fn new(plants: Plants) -> Self {
        Self { lanes: BTreeMap::new(), plants }
    }

    /// Takes a slot for a request that has just come in.
    pub fn open(&mut self, conn: ConnId, listener: u16, header: &RequestHeader) -> Ticket {
        let lane = self.lanes.entry(conn).or_default();
        let slot = lane.first + lane.slots.len() as u64;
        lane.slots.push_back(Slot::Waiting);
        Ticket {
            conn,
            listener,
            slot,
            api_key: header.api_key,
            api_version: header.api_version,
            correlation_id: header.correlation_id,
        }
    }

    pub fn answer(&mut self, ticket: Ticket, body: ResponseBody, out: &mut Outbox) {
        let response = Response {
            api_key: ticket.api_key,
            api_version: ticket.api_version,
            correlation_id: ticket.correlation_id,
            body,
        };
        self.settle(ticket, Slot::Answer(Box::new(response)), out);
    }

    pub fn nothing(&mut self, ticket: Ticket, out: &mut Outbox) {
        self.settle(ticket, Slot::Nothing, out);
    }

    /// Closes the connection in place of an answer; earlier requests are answered first.
    pub fn close(&mut self, ticket: Ticket, why: &'static str, out: &mut Outbox) {
        self.settle(ticket, Slot::Close(why), out);
    }

    /// The connection is gone: what is still to come for it is dropped.
    pub fn disconnected(&mut self, conn: ConnId) {
        self.lanes.remove(&conn);
    }

    /// How many requests of all connections are unanswered.
    pub fn unanswered(&self) -> usize {
        self.lanes.values().map(|lane| lane.slots.len()).sum()
    }

    fn settle(&mut self, ticket: Ticket, outcome: Slot, out: &mut Outbox) {
        let Some(lane) = self.lanes.get_mut(&ticket.conn) else { return };
        let place = ticket.slot.checked_sub(lane.first).expect("a ticket is used once") as usize;
        let slot = &mut lane.slots[place];
        assert!(matches!(slot, Slot::Waiting), "a ticket is used once");
        *slot = match outcome {
            Slot::Answer(response) if self.plants.has(Plant::AnswersOutOfOrder) => {
                out.outputs.push(Output::Respond(ticket.conn, response));
                Slot::Nothing
            }
            outcome => outcome,
        };
        if place > 0 {
            out.probe(Probe::AnswerWaitsForEarlier);
        }
        while let Some(slot) = lane.slots.pop_front_if(|slot| !matches!(slot, Slot::Waiting)) {
            lane.first += 1;
            match slot {
                Slot::Answer(response) => out.outputs.push(Output::Respond(ticket.conn, response)),
                Slot::Nothing => {}
                Slot::Close(why) => {
                    out.outputs.push(Output::Close(ticket.conn, why));
                    self.lanes.remove(&ticket.conn);
                    return;
                }
                Slot::Waiting => unreachable!("popped only when settled"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::{FetchResponse, ProduceResponse};

    fn header(correlation_id: i32) -> RequestHeader {
        RequestHeader { api_key: ApiKey::Produce, api_version: 9, correlation_id, client_id: None }
    }

    fn correlations(out: &mut Outbox) -> Vec<i32> {
        out.outputs
            .drain(..)
            .map(|output| match output {
                Output::Respond(_, response) => response.correlation_id,
                Output::Close(..) => -1,
                other => panic!("unexpected {other:?}"),
            })
            .collect()
    }

    fn body() -> ResponseBody {
        ResponseBody::Produce(ProduceResponse::default())
    }

    #[test]
    fn answers_leave_in_the_order_of_the_requests() {
        let (mut replies, mut out) = (Replies::default(), Outbox::default());
        let [a, b, c] = [1, 2, 3].map(|n| replies.open(ConnId(7), 0, &header(n)));
        replies.answer(c, body(), &mut out);
        assert!(correlations(&mut out).is_empty());
        replies.answer(a, body(), &mut out);
        assert_eq!(correlations(&mut out), [1]);
        replies.nothing(b, &mut out);
        assert_eq!(correlations(&mut out), [3]);
        assert_eq!(replies.unanswered(), 0);
    }

    #[test]
    fn a_close_waits_for_earlier_answers_and_drops_later_ones() {
        let (mut replies, mut out) = (Replies::default(), Outbox::default());
        let [a, b, c] = [1, 2, 3].map(|n| replies.open(ConnId(7), 0, &header(n)));
        replies.close(b, "test", &mut out);
        replies.answer(c, body(), &mut out);
        assert!(correlations(&mut out).is_empty());
        replies.answer(a, body(), &mut out);
        assert_eq!(correlations(&mut out), [1, -1]);
    }

    #[test]
    fn nothing_is_sent_to_a_connection_that_is_gone() {
        let (mut replies, mut out) = (Replies::default(), Outbox::default());
        let a = replies.open(ConnId(7), 0, &header(1));
        replies.disconnected(ConnId(7));
        replies.answer(a, ResponseBody::Fetch(FetchResponse::default()), &mut out);
        assert!(correlations(&mut out).is_empty());
    }
}
