//! Kafka clients as state machines: a producer, a consumer and an admin. Each is driven by inputs and gives outputs,
//! like the broker itself.
//!
//! ```text
//!     connected, frames, ticks,                      connect, send, close,
//!     calls of the application                       events for the application
//!   world ───────────────────────────► Producer ───────────────────────────────► world
//!                                      Consumer
//!                                      Admin
//! ```
//!
//! The world owns sockets and clocks. It calls `handle(now, input, &mut outbox)`, carries out what is in the outbox,
//! and hands in [`Input::Tick`] when `deadline()` has come. The simulator, the command line and applications use the
//! same clients. Their configuration has the names, defaults and meanings of Apache Kafka's clients ([`config`]).
//!
//! All three use [`Cluster`]: connections, bootstrap, versions, request timeouts, backoff, and metadata.
//!
//! Invariants: no request except ApiVersions is sent on a connection before the broker's versions are known; a
//! connection on which answers do not come in the order of the requests is closed; every record and every operation of
//! an application succeeds or fails in bounded time, whatever the network does.

#![forbid(unsafe_code)]

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

use bytes::Bytes;
use bytestring::ByteString;
use std::fmt;
use tidelog_wire::Frame;
use tidelog_wire::ids::ConnId;
use tidelog_wire::time::{Mono, Now};

/// What a client is told. `C` is the type of the application's calls.
#[derive(Clone, Debug)]
pub enum Input<C> {
    /// A connection that the client asked for is open.
    Connected(ConnId),
    /// A connection that the client asked for could not be opened.
    ConnectFailed(ConnId),
    /// An open connection was closed by the other end, or broke.
    Disconnected(ConnId),
    /// A whole response, without its four length bytes.
    Frame(ConnId, Bytes),
    /// Time has passed. May be handed in late, and when nothing is due.
    Tick,
    Call(C),
}

/// What a client asks the world to do, in this order. `E` is the type of the events for the application.
#[derive(Clone, Debug)]
pub enum Output<E> {
    /// Open a connection. The client chooses the number and never uses one twice.
    Connect(ConnId, Address),
    /// Send a whole request, which includes its four length bytes.
    Send(ConnId, Frame),
    /// Close the connection, or give up opening it. The client must get no more inputs about it.
    Close(ConnId),
    Event(E),
}

/// Where a client puts its outputs. The caller of `handle` owns and drains it.
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

/// The interface that all three clients have.
pub trait Client {
    type Call;
    type Event;

    /// Takes one input and does all that is due.
    fn handle(&mut self, now: Now, input: Input<Self::Call>, out: &mut Outbox<Self::Event>);

    /// When to hand in the next tick. An earlier tick does no harm.
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

    /// Reads `host:port`, as in `bootstrap.servers`. An IPv6 host must be in brackets.
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

/// A partition, named by its topic's name and its index.
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

/// The earliest of the moments that are given.
fn earliest<T: Ord>(moments: impl IntoIterator<Item = Option<T>>) -> Option<T> {
    moments.into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_other_than_0() {
        for (text, host, port) in [("a:1", "a", 1), (" b.c:9092 ", "b.c", 9092), ("[::1]:80", "::1", 80)] {
            assert_eq!(Address::parse(text), Some(Address::new(host, port)), "{text}");
        }
        assert_eq!(Address::new("::1", 80).to_string(), "[::1]:80");
        for text in ["", "a", "a:", ":1", "a:0", "a:65536", "::1:80", "a:-1"] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }
}
