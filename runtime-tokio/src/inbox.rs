//! What waits for the core, and in which order it comes to it.
//!
//! Most of it is small: a few microseconds each, taken all together. A request that asks about the whole cluster or
//! about many partitions is a hundred times as much ([`Message::Large`]), and there may be one of every connection. Those
//! stand in a queue of their own, out of which one at a time is [admitted](Inbox::admit_large), so that who asks for
//! little waits for one of them at most, and not for all. What one connection sends keeps its order: it has one large
//! request at a time, and nothing behind it.

use crate::door::{Link, Look};
use std::collections::VecDeque;
use std::sync::Arc;
use tidelog_core::ids::ConnId;
use tidelog_core::io::{Input, Request};

/// What happens to the core, or to the world's knowledge of connections.
pub enum Message {
    Input(Input),
    /// A request that is much work. Its connection submits nothing before it is answered, but that it has gone.
    Large(Box<Request>),
    Connected(Arc<Link>),
    Disconnected(ConnId),
    /// Connections shall take no more requests.
    Drain,
    /// Connections shall send what they have, and close.
    Close(&'static str),
    /// Somebody looks at the core, between two inputs.
    Look(Look),
}

#[derive(Default)]
pub struct Inbox {
    /// What the core gets next.
    messages: Vec<Message>,
    /// With the ends of connections that came while it was not empty.
    large: VecDeque<Message>,
    /// Somebody was told to admit one, and it has not been handled.
    admitting: bool,
    /// A thread is running the core, and will look here again before it leaves.
    pub busy: bool,
}

impl Inbox {
    /// True: somebody should [`admit_large`](Self::admit_large).
    #[must_use]
    pub fn put(&mut self, message: Message) -> bool {
        match message {
            Message::Large(_) => {
                self.large.push_back(message);
                return !std::mem::replace(&mut self.admitting, true);
            }
            // Behind what it asked.
            Message::Disconnected(_) if !self.large.is_empty() => self.large.push_back(message),
            // What was asked before the broker stops is answered before it does.
            Message::Drain => {
                self.messages.extend(self.large.drain(..));
                self.messages.push(message);
            }
            _ => self.messages.push(message),
        }
        false
    }

    /// The same for several, which stay together but for large requests.
    #[must_use]
    pub fn put_all(&mut self, messages: impl IntoIterator<Item = Message>) -> bool {
        messages.into_iter().fold(false, |called, message| self.put(message) | called)
    }

    /// Lets the next large request come to the core behind all that is here.
    pub fn admit_large(&mut self) {
        self.admitting = false;
        while !self.admitting {
            let Some(message) = self.large.pop_front() else { return };
            self.admitting = matches!(message, Message::Large(_));
            self.messages.push(message);
        }
    }

    /// The large request that was admitted has been handled. True: somebody should admit the next.
    #[must_use]
    pub fn handled_large(&mut self) -> bool {
        self.admitting = !self.large.is_empty();
        self.admitting
    }

    /// Moves what comes next into `batch`, which is empty.
    pub fn take(&mut self, batch: &mut Vec<Message>) {
        std::mem::swap(&mut self.messages, batch);
    }

    /// Whether there is nothing to take.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many messages wait, admitted or not.
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
        Box::new(Request { conn: ConnId(conn), listener: 0, header, body, batches: Vec::new() })
    }

    fn small(conn: u64) -> Message {
        let body = RequestBody::ApiVersions(ApiVersionsRequest::default());
        Message::Input(Input::Request(request(conn, ApiKey::ApiVersions, body)))
    }

    fn large(conn: u64) -> Message {
        Message::Large(request(conn, ApiKey::Metadata, RequestBody::Metadata(MetadataRequest::default())))
    }

    /// `s` or `l` and the connection for a request, `d` and the connection for its end; how often one should be admitted.
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
            Message::Drain => "drain".to_owned(),
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
        assert_eq!(put(&mut inbox, "s5 l6"), 0, "one is on its way");
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
        assert_eq!(take(&mut inbox), "d1 d2 d3 l4", "ends are no work to speak of");
        put(&mut inbox, "d4");
        assert_eq!(take(&mut inbox), "d4", "what it asked has been handled");
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
        assert!(!inbox.put(Message::Drain));
        assert_eq!(take(&mut inbox), "s1 l1 l2 d2 drain");
        // Who was told to admit one comes too late.
        inbox.admit_large();
        assert!(inbox.is_empty());
        assert!(!inbox.handled_large());
    }
}
