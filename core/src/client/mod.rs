//! Kafka clients as state machines: a producer, a consumer and an admin, with a door like the broker's own.
//!
//! ```text
//!     connected, frames, ticks,                      connect, send, close,
//!     calls of the application                       events for the application
//!   world ───────────────────────────► Producer ───────────────────────────────► world
//!                                      Consumer
//!                                      Admin
//! ```
//!
//! A world owns sockets and clocks. It calls `handle(now, input, &mut outbox)`, carries out what is in the outbox, and
//! hands in [`Input::Tick`] once `deadline()` has come. The same clients serve the simulator, the command line and
//! applications. Configuration has the names, defaults and meaning of Apache Kafka's clients ([`config`]).
//!
//! Beneath the three: [`Cluster`] (connections by address, bootstrap, versions, request timeouts, backoff, metadata).
//!
//! Invariants: nothing is sent on a connection before both ends' versions are known; the answers of a connection come
//! in the order of its requests, or it is closed; every record and every operation of an application comes to its end in
//! bounded time, whatever the network does.

pub mod admin;
mod backoff;
mod cluster;
pub mod config;
mod connection;
pub mod consumer;
mod error;
mod metadata;
mod offsets;
pub mod producer;
#[cfg(test)]
mod script;

pub use admin::Admin;
pub use cluster::{Cluster, Reply};
pub use config::{AdminConfig, CommonConfig, ConsumerConfig, ProducerConfig};
pub use connection::RequestFailure;
pub use consumer::Consumer;
pub use error::{ClientError, is_invalid_metadata, is_retriable};
pub use metadata::{Leader, Metadata, TopicMetadata};
pub use offsets::{FoundOffset, OffsetSpec};
pub use producer::Producer;

use crate::ids::ConnId;
use crate::time::{Mono, Now};
use crate::wire::Frame;
use bytes::Bytes;
use bytestring::ByteString;
use std::fmt;

/// What happens to a client. `C` is what its application may call.
#[derive(Clone, Debug)]
pub enum Input<C> {
    /// A connection that was asked for is open.
    Connected(ConnId),
    /// It could not be opened.
    ConnectFailed(ConnId),
    /// An open connection is gone.
    Disconnected(ConnId),
    /// A whole response, without its four length bytes.
    Frame(ConnId, Bytes),
    /// Time has passed. May come late, and when nothing is due.
    Tick,
    Call(C),
}

/// What a client wants done, in this order. `E` is what it tells its application.
#[derive(Clone, Debug)]
pub enum Output<E> {
    /// Open a connection. The client chooses the number and never uses one twice.
    Connect(ConnId, Address),
    /// A whole request, its four length bytes included.
    Send(ConnId, Frame),
    /// Close the connection, or give up opening it; nothing is said of it any more.
    Close(ConnId),
    Event(E),
}

/// Where a client puts what it wants done. The caller of `handle` owns and drains it.
#[derive(Clone, Debug)]
pub struct Outbox<E> {
    pub outputs: Vec<Output<E>>,
}

impl<E> Default for Outbox<E> {
    fn default() -> Self {
        Self { outputs: Vec::new() }
    }
}

impl<E> Outbox<E> {
    pub fn event(&mut self, event: E) {
        self.outputs.push(Output::Event(event));
    }
}

/// The door that all three have.
pub trait Client {
    type Call;
    type Event;

    /// Takes one input and does all that is due.
    fn handle(&mut self, now: Now, input: Input<Self::Call>, out: &mut Outbox<Self::Event>);

    /// When to hand in a tick next; a tick that comes earlier does no harm.
    fn deadline(&self) -> Option<Mono>;
}

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    pub host: ByteString,
    pub port: u16,
}

impl Address {
    pub fn new(host: impl Into<ByteString>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// Reads `host:port`, as `bootstrap.servers` has it; an IPv6 host stands in brackets.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.trim().rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bare.is_none() && host.contains(':') {
            return None;
        }
        let host = bare.unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0)?;
        (!host.is_empty()).then(|| Self::new(host, port))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// A partition by its topic's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: ByteString,
    pub partition: i32,
}

impl TopicPartition {
    pub fn new(topic: impl Into<ByteString>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// The earliest of some moments.
fn earliest<T: Ord>(moments: impl IntoIterator<Item = Option<T>>) -> Option<T> {
    moments.into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_and_nothing_else() {
        for (text, host, port) in [("a:1", "a", 1), (" b.c:9092 ", "b.c", 9092), ("[::1]:80", "::1", 80)] {
            assert_eq!(Address::parse(text), Some(Address::new(host, port)), "{text}");
        }
        assert_eq!(Address::new("::1", 80).to_string(), "[::1]:80");
        for text in ["", "a", "a:", ":1", "a:0", "a:65536", "::1:80", "a:-1"] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }
}
