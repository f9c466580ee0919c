//! The connections, and the order of their answers: answers leave a connection in the order of its requests.
//!
//! The requests of one connection are worked on at the same time, so they may be done in any order. Each request gets a
//! number in its connection when it comes in. Its answer is given to the world once all earlier requests of the
//! connection are done.

use crate::ids::ConnId;
use crate::io::{Origin, Outbox, Output, Response};
use crate::plant::{Plant, Plants};
use crate::probe::Probe;
use crate::wire::{ApiKey, RequestHeader, ResponseBody};
use bytestring::ByteString;
use core::net::IpAddr;
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

    /// The header of the request, with this client id.
    pub fn header(&self, client_id: Option<ByteString>) -> RequestHeader {
        let Self { api_key, api_version, correlation_id, .. } = *self;
        RequestHeader { api_key, api_version, correlation_id, client_id }
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

#[derive(Debug)]
struct Connection {
    origin: Origin,
    /// The number of the first request in `replies`.
    first: u64,
    /// The replies that are not given to the world yet, in the order of the requests. `None` once the world was told to
    /// close the connection: what is still asked on it is not looked at.
    replies: Option<VecDeque<Reply>>,
}

/// Every connection with its unanswered requests, from [`Input::Connected`](crate::io::Input::Connected) to
/// [`Input::Disconnected`](crate::io::Input::Disconnected).
#[derive(Debug, Default)]
pub struct Replies {
    connections: BTreeMap<ConnId, Connection>,
    plants: Plants,
}

impl Replies {
    pub fn new(plants: Plants) -> Self {
        Self { connections: BTreeMap::new(), plants }
    }

    pub fn connected(&mut self, conn: ConnId, origin: Origin) {
        let connection = Connection { origin, first: 0, replies: Some(VecDeque::new()) };
        assert!(self.connections.insert(conn, connection).is_none(), "{conn:?} has connected twice");
    }

    /// The address of the client; `None` if the connection is closed.
    pub fn address(&self, conn: ConnId) -> Option<IpAddr> {
        self.connections.get(&conn).map(|connection| connection.origin.address)
    }

    /// Gives a ticket for a request that has just come in. `None`: its connection is being closed, and the request is to be
    /// dropped.
    pub fn open(&mut self, conn: ConnId, header: &RequestHeader) -> Option<Ticket> {
        let connection = self.connections.get_mut(&conn).expect("a request comes on a connection that is known");
        let replies = connection.replies.as_mut()?;
        let request = connection.first + replies.len() as u64;
        replies.push_back(Reply::Owed);
        Some(Ticket {
            conn,
            listener: connection.origin.listener,
            request,
            api_key: header.api_key,
            api_version: header.api_version,
            correlation_id: header.correlation_id,
        })
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
        self.connections.values().filter_map(|connection| connection.replies.as_ref()).map(VecDeque::len).sum()
    }

    fn put(&mut self, ticket: Ticket, reply: Reply, out: &mut Outbox) {
        let Some(connection) = self.connections.get_mut(&ticket.conn) else { return };
        let Some(replies) = &mut connection.replies else { return };
        let place = ticket.request.checked_sub(connection.first).expect("a ticket is used once") as usize;
        let owed = &mut replies[place];
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
        while let Some(reply) = replies.pop_front_if(|reply| !matches!(reply, Reply::Owed)) {
            connection.first += 1;
            match reply {
                Reply::Answer(response) => out.outputs.push(Output::Respond(ticket.conn, response)),
                Reply::Nothing => {}
                Reply::Close(why) => {
                    out.outputs.push(Output::Close(ticket.conn, why));
                    connection.replies = None;
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
    use core::net::Ipv4Addr;

    const CONN: ConnId = ConnId(7);
    const ORIGIN: Origin = Origin { listener: 3, address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)) };

    fn connected() -> Replies {
        let mut replies = Replies::default();
        replies.connected(CONN, ORIGIN);
        replies
    }

    fn open(replies: &mut Replies, correlation_id: i32) -> Ticket {
        replies.open(CONN, &header(correlation_id)).expect("the connection is open")
    }

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
        let (mut replies, mut out) = (connected(), Outbox::default());
        let [a, b, c] = [1, 2, 3].map(|n| open(&mut replies, n));
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
        let (mut replies, mut out) = (connected(), Outbox::default());
        let [a, b, c] = [1, 2, 3].map(|n| open(&mut replies, n));
        replies.close(b, "test", &mut out);
        replies.answer(c, body(), &mut out);
        assert!(correlations(&mut out).is_empty());
        replies.answer(a, body(), &mut out);
        assert_eq!(correlations(&mut out), [1, -1]);
        assert_eq!(replies.open(CONN, &header(4)), None, "nothing is answered behind the close");
        assert_eq!(replies.unanswered(), 0);
    }

    #[test]
    fn a_request_knows_where_its_connection_comes_from() {
        let mut replies = connected();
        assert_eq!(open(&mut replies, 1).listener, ORIGIN.listener);
        assert_eq!(replies.address(CONN), Some(ORIGIN.address));
        replies.disconnected(CONN);
        assert_eq!(replies.address(CONN), None);
    }

    #[test]
    #[should_panic(expected = "a request comes on a connection that is known")]
    fn a_request_of_an_unknown_connection_is_a_mistake_of_the_world() {
        let _ = Replies::default().open(CONN, &header(1));
    }

    #[test]
    fn nothing_is_sent_to_a_connection_that_is_gone() {
        let (mut replies, mut out) = (connected(), Outbox::default());
        let a = open(&mut replies, 1);
        replies.disconnected(CONN);
        replies.answer(a, ResponseBody::Fetch(FetchResponse::default()), &mut out);
        assert!(correlations(&mut out).is_empty());
    }
}
