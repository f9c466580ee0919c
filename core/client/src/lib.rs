//! Kafka clients as state machines: a producer, a consumer and an admin. Each is driven by inputs and gives outputs,
//! like the broker itself.
//!
//! ```text
//!     connected, answers, ticks,                     connect, send, close,
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
//! All three use [`Cluster`]: a pool of connections (`tidelog_link`), bootstrap, and metadata. Requests and answers pass
//! decoded: the world encodes and reads frames.
//!
//! Invariants: no request except ApiVersions is sent on a connection before the broker's versions are known; a
//! connection on which answers do not come in the order of the requests is closed; every record and every operation of
//! an application succeeds or fails in bounded time, whatever the network does.

#![forbid(unsafe_code)]

pub mod admin;
mod cluster;
pub mod config;
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
pub use consumer::Consumer;
pub use error::{ClientError, is_invalid_metadata, is_retriable};
pub use metadata::{Leader, Metadata, TopicMetadata};
pub use offsets::{FoundOffset, OffsetSpec};
pub use producer::Producer;
pub use tidelog_link::{Backoff, Owed, ReadAnswer, RequestFailure};
pub use tidelog_wire::Address;

use bytestring::ByteString;
use std::fmt;
use tidelog_link::earliest;
use tidelog_wire::ids::LinkId;
use tidelog_wire::time::{Mono, Now};
use tidelog_wire::{RequestBody, RequestHeader};

/// What a client is told. `C` is the type of the application's calls.
#[derive(Clone, Debug)]
pub enum Input<C> {
    /// A connection that the client asked for is open.
    Connected(LinkId),
    /// A connection that the client asked for could not be opened.
    ConnectFailed(LinkId),
    /// An open connection was closed by the other end, or broke.
    Disconnected(LinkId),
    /// A response, or why it cannot be read. A world reads it with [`Owed`].
    Answer(LinkId, Box<ReadAnswer>),
    /// Time has passed. May be handed in late, and when nothing is due.
    Tick,
    Call(C),
}

/// What a client asks the world to do, in this order. `E` is the type of the events for the application.
#[derive(Clone, Debug)]
pub enum Output<E> {
    /// Open a connection. The client chooses the number and never uses one twice.
    Connect(LinkId, Address),
    Send(LinkId, Box<Request>),
    /// Close the connection, or give up opening it. The client must get no more inputs about it.
    Close(LinkId),
    Event(E),
}

/// A request that is not encoded yet. A world encodes it with `tidelog_wire::encode_request`.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub header: RequestHeader,
    pub body: RequestBody,
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
