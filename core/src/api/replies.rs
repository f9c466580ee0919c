//! Answers leave a connection in the order of its requests.
//!
//! The requests of one connection are worked on at the same time, so they may be done in any order. Each request gets a
//! number in its connection when it comes in. Its answer is given to the world once all earlier requests of the
//! connection are done.

use crate::ids::ConnId;
use crate::io::{Outbox, Output, Response};
use crate::plant::{Plant, Plants};
use crate::probe::Probe;
use crate::wire::{ApiKey, RequestHeader, ResponseBody};
use std::collections::{BTreeMap, VecDeque};

/// The right to answer one request, once. The holder must call [`Replies::answer`], [`Replies::nothing`] or
/// [`Replies::close`] exactly once.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Ticket {
    pub conn: ConnId,
    /// The place in `listeners` of the listener that the connection came in on.
    pub listener: u16,
    /// The number of the request among those of its connection, counted from 0.
    request: u64,
    pub api_key: ApiKey,
    pub api_version: i16,
    correlation_id: i32,
}

impl Ticket {
    /// The same ticket, for an answer in another version than that of the request.
    pub fn in_version(self, api_version: i16) -> Self {
        Self { api_version, ..self }
    }
}

/// What a request is answered with.
#[derive(Debug)]
enum Reply {
    /// Not known yet.
    Owed,
    Answer(Box<Response>),
    /// No answer: the request is a Produce with acks=0.
    Nothing,
    /// The connection is closed instead, for this reason.
    Close(&'static str),
}

/// The replies of one connection that are not given to the world yet, in the order of its requests.
#[derive(Debug, Default)]
struct Connection {
    /// The number of the first request in `replies`.
    first: u64,
    replies: VecDeque<Reply>,
}

/// The unanswered requests of every connection.
#[derive(Debug, Default)]
pub struct Replies {
    connections: BTreeMap<ConnId, Connection>,
    plants: Plants,
}

impl Replies {
    pub fn new(plants: Plants) -> Self {
        Self { connections: BTreeMap::new(), plants }
    }

    /// Gives a ticket for a request that has just come in.
    pub fn open(&mut self, conn: ConnId, listener: u16, header: &RequestHeader) -> Ticket {
        let connection = self.connections.entry(conn).or_default();
        let request = connection.first + connection.replies.len() as u64;
        connection.replies.push_back(Reply::Owed);
        Ticket {
            conn,
            listener,
            request,
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
        self.put(ticket, Reply::Answer(Box::new(response)), out);
    }

    /// The request is done and gets no answer.
    pub fn nothing(&mut self, ticket: Ticket, out: &mut Outbox) {
        self.put(ticket, Reply::Nothing, out);
    }

    /// Closes the connection instead of answering. Earlier requests are answered first.
    pub fn close(&mut self, ticket: Ticket, why: &'static str, out: &mut Outbox) {
        self.put(ticket, Reply::Close(why), out);
    }

    /// The connection is closed: later answers for it are dropped.
    pub fn disconnected(&mut self, conn: ConnId) {
        self.connections.remove(&conn);
    }

    /// How many requests of all connections are unanswered.
    pub fn unanswered(&self) -> usize {
        self.connections.values().map(|connection| connection.replies.len()).sum()
    }

    fn put(&mut self, ticket: Ticket, reply: Reply, out: &mut Outbox) {
        let Some(connection) = self.connections.get_mut(&ticket.conn) else { return };
        let place = ticket.request.checked_sub(connection.first).expect("a ticket is used once") as usize;
        let owed = &mut connection.replies[place];
        assert!(matches!(owed, Reply::Owed), "a ticket is used once");
        *owed = match reply {
            Reply::Answer(response) if self.plants.has(Plant::AnswersOutOfOrder) => {
                out.outputs.push(Output::Respond(ticket.conn, response));
                Reply::Nothing
            }
            reply => reply,
        };
        if place > 0 {
            out.probe(Probe::AnswerWaitsForEarlier);
        }
        while let Some(reply) = connection.replies.pop_front_if(|reply| !matches!(reply, Reply::Owed)) {
            connection.first += 1;
            match reply {
                Reply::Answer(response) => out.outputs.push(Output::Respond(ticket.conn, response)),
                Reply::Nothing => {}
                Reply::Close(why) => {
                    out.outputs.push(Output::Close(ticket.conn, why));
                    self.connections.remove(&ticket.conn);
                    return;
                }
                Reply::Owed => unreachable!("only known replies are popped"),
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
