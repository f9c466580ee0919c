//! The inbox holds the messages that wait for the core, and decides their order.
//!
//! Most messages take the core a few microseconds and are handed over all together. A request about the whole cluster
//! or about many partitions ([`Message::Large`]) takes a hundred times as long, and every connection may have sent one.
//! Large requests wait in a queue of their own and are [admitted](Inbox::admit_large) one at a time, so that a small
//! request waits for at most one large one. The messages of one connection keep their order, because a connection that
//! has submitted a large request submits no other request until that one is answered.

use crate::door::{Inspection, OutgoingQueue};
use crate::links::Held;
use std::collections::VecDeque;
use std::sync::Arc;
use tidelog_core::ids::{ConnId, LinkId};
use tidelog_core::io::{Input, LinkEvent, Request};

/// An input of the core, or something for the door.
pub enum Message {
    Input(Input),
    /// A request that takes the core long. Until it is answered, its connection submits nothing but `Disconnected`.
    Large(Box<Request>),
    /// Something happened on a link. An answer comes with what it holds until the core has handled it.
    Link(LinkId, LinkEvent, Option<Held>),
    Connected(Arc<OutgoingQueue>),
    Disconnected(ConnId),
    /// All connections are to send the responses they have, then close; the text says why.
    Close(&'static str),
    /// Read the core's state between two inputs.
    Inspect(Inspection),
}

/// The messages that wait for the core.
#[derive(Default)]
pub struct Inbox {
    /// What the core handles next, in order.
    messages: Vec<Message>,
    /// Large requests that are not admitted yet, oldest first. While this queue is not empty, `Disconnected` messages
    /// are put at its end too, so that none overtakes its connection's large request.
    large: VecDeque<Message>,
    /// A large request is being admitted: the caller was told to call [`admit_large`](Self::admit_large), and the core
    /// has not handled the admitted request yet.
    admitting: bool,
    /// A thread is running the core. It will take messages from here again before it stops.
    pub busy: bool,
}

impl Inbox {
    /// Returns true if the caller has to see to it that [`admit_large`](Self::admit_large) is called.
    #[must_use]
    pub fn put(&mut self, message: Message) -> bool {
        match message {
            Message::Large(_) => {
                self.large.push_back(message);
                return !std::mem::replace(&mut self.admitting, true);
            }
            // Behind the connection's large request.
            Message::Disconnected(_) if !self.large.is_empty() => self.large.push_back(message),
            // Requests that came before the stop are answered before it: large ones no longer wait for their turn.
            Message::Input(Input::Stop) => {
                self.messages.extend(self.large.drain(..));
                self.messages.push(message);
            }
            _ => self.messages.push(message),
        }
        false
    }

    /// Like [`put`](Self::put) for several messages. They stay next to each other, except large requests.
    #[must_use]
    pub fn put_all(&mut self, messages: impl IntoIterator<Item = Message>) -> bool {
        messages.into_iter().fold(false, |called, message| self.put(message) | called)
    }

    /// Moves the next large request, and every `Disconnected` in front of it, behind the messages that the core handles
    /// next.
    pub fn admit_large(&mut self) {
        self.admitting = false;
        while !self.admitting {
            let Some(message) = self.large.pop_front() else { return };
            self.admitting = matches!(message, Message::Large(_));
            self.messages.push(message);
        }
    }

    /// The core has handled the admitted large request. Returns true if the caller has to see to it that
    /// [`admit_large`](Self::admit_large) is called for the next one.
    #[must_use]
    pub fn handled_large(&mut self) -> bool {
        self.admitting = !self.large.is_empty();
        self.admitting
    }

    /// Moves all messages that are ready for the core into `batch`, which must be empty.
    pub fn take(&mut self, batch: &mut Vec<Message>) {
        std::mem::swap(&mut self.messages, batch);
    }

    /// Whether no message is ready for the core. Large requests that are not admitted do not count.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many messages wait, including large requests that are not admitted yet.
    pub fn waiting(&self) -> usize {
        self.messages.len() + self.large.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_core::wire::messages::{ApiVersionsRequest, MetadataRequest};
    use tidelog_core::wire::{ApiKey, RequestBody, RequestHeader};

    fn request(conn: u64, api_key: ApiKey, body: RequestBody) -> Box<Request> {
        let header = RequestHeader { api_key, api_version: 0, correlation_id: 0, client_id: None };
        Box::new(Request { conn: ConnId(conn), header, body, batches: Vec::new() })
    }

    fn small(conn: u64) -> Message {
        let body = RequestBody::ApiVersions(ApiVersionsRequest::default());
        Message::Input(Input::Request(request(conn, ApiKey::ApiVersions, body)))
    }

    fn large(conn: u64) -> Message {
        Message::Large(request(conn, ApiKey::Metadata, RequestBody::Metadata(MetadataRequest::default())))
    }

    /// Puts messages into the inbox: `s1` is a small request of connection 1, `l1` a large one, `d1` its disconnection.
    /// Returns how often `put` asked for a call of `admit_large`.
    fn put(inbox: &mut Inbox, messages: &str) -> usize {
        let calls = messages.split_whitespace().map(|message| {
            let (kind, conn) = message.split_at(1);
            let conn = conn.parse().unwrap();
            inbox.put(match kind {
                "s" => small(conn),
                "l" => large(conn),
                _ => Message::Disconnected(ConnId(conn)),
            })
        });
        calls.filter(|&call| call).count()
    }

    fn take(inbox: &mut Inbox) -> String {
        let mut batch = Vec::new();
        inbox.take(&mut batch);
        let names = batch.iter().map(|message| match message {
            Message::Input(Input::Request(request)) => format!("s{}", request.conn.0),
            Message::Large(request) => format!("l{}", request.conn.0),
            Message::Disconnected(conn) => format!("d{}", conn.0),
            Message::Input(Input::Stop) => "stop".to_owned(),
            _ => panic!("the tests put nothing else"),
        });
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn large_requests_are_admitted_one_by_one_and_each_call_for_it_is_made_once() {
        let mut inbox = Inbox::default();
        assert_eq!(put(&mut inbox, "s1 l2 l3 s4"), 1);
        assert_eq!(inbox.waiting(), 4);
        assert_eq!(take(&mut inbox), "s1 s4");
        assert!(inbox.is_empty());
        inbox.admit_large();
        assert_eq!(put(&mut inbox, "s5 l6"), 0, "one is being admitted already");
        assert_eq!(take(&mut inbox), "l2 s5");
        assert!(inbox.handled_large());
        for (expected, more) in [("l3", true), ("l6", false)] {
            inbox.admit_large();
            assert_eq!(take(&mut inbox), expected);
            assert_eq!(inbox.handled_large(), more);
        }
        assert_eq!(inbox.waiting(), 0);
        assert_eq!(put(&mut inbox, "l7"), 1, "it begins anew");
    }

    #[test]
    fn the_end_of_a_connection_comes_behind_what_it_asked() {
        let mut inbox = Inbox::default();
        put(&mut inbox, "s1 l1 l2 d1 d2 s3 d3");
        assert_eq!(take(&mut inbox), "s1 s3");
        inbox.admit_large();
        assert_eq!(take(&mut inbox), "l1");
        put(&mut inbox, "l4");
        inbox.admit_large();
        assert_eq!(take(&mut inbox), "l2");
        inbox.admit_large();
        assert_eq!(take(&mut inbox), "d1 d2 d3 l4", "disconnections take no turn of their own");
        put(&mut inbox, "d4");
        assert_eq!(take(&mut inbox), "d4", "no large request waits, so a disconnection is not held back");
    }

    #[test]
    fn the_last_end_waits_for_nobody_else() {
        let mut inbox = Inbox::default();
        assert_eq!(put(&mut inbox, "l1 d1"), 1);
        inbox.admit_large();
        assert_eq!(take(&mut inbox), "l1");
        assert!(inbox.handled_large());
        inbox.admit_large();
        assert_eq!(take(&mut inbox), "d1");
        assert_eq!(put(&mut inbox, "l2"), 1, "it begins anew");
    }

    #[test]
    fn what_was_asked_before_a_stop_comes_before_it() {
        let mut inbox = Inbox::default();
        put(&mut inbox, "l1 s1 l2 d2");
        assert!(!inbox.put(Message::Input(Input::Stop)));
        assert_eq!(take(&mut inbox), "s1 l1 l2 d2 stop");
        // The call that `put` asked for comes after the stop has moved the requests: it finds nothing.
        inbox.admit_large();
        assert!(inbox.is_empty());
        assert!(!inbox.handled_large());
    }
}
