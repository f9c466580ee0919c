//! Simulated clients. Each is a state machine like the broker: it gets an input and gives actions. Most encode their
//! requests with `kafka-protocol`, a codec that is not the broker's own.

mod admin;
mod application;
mod door;
mod fetcher;
mod hostile;
mod lister;
mod operator;
mod producer;
mod reader;
pub mod records;
mod registrar;
mod session;
mod sessions;
mod topics;
mod trimmer;
mod unregistrar;

pub use admin::{Admin, AdminPlan};
pub use application::{Application, ApplicationPlan};
pub use fetcher::{Fetcher, FetcherPlan};
pub use hostile::{Hostile, HostilePlan};
pub use lister::{Lister, ListerPlan};
pub use operator::{Operator, OperatorPlan};
pub use producer::{Producer, ProducerPlan};
pub use reader::{Reader, ReaderPlan};
pub use registrar::{Registrar, RegistrarPlan};
pub use trimmer::{Trimmer, TrimmerPlan};
pub use unregistrar::Unregistrar;

use crate::history::{Fact, OpId};
use bytes::Bytes;
use records::Payloads;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidelog_client::Address;

/// A topic that a scenario works with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicPlan {
    pub name: String,
    pub partitions: i32,
    /// How many replicas each partition has.
    #[serde(default = "one")]
    pub replicas: i16,
    /// Created by a Metadata request, with the broker's defaults, instead of by CreateTopics.
    pub auto_created: bool,
    pub configs: BTreeMap<String, String>,
    /// The records that producers send to it have no timestamps (-1). Applications cannot do that: Tidelog's producer,
    /// like Kafka's, stamps every record.
    #[serde(default)]
    pub without_timestamps: bool,
}

fn one() -> i16 {
    1
}

impl TopicPlan {
    /// Whether a record may be acknowledged before it is on stable storage.
    pub fn is_relaxed(&self) -> bool {
        self.configs.get("acks.require.fsync").is_some_and(|value| value == "false")
    }

    /// Whether retention deletes records: the topic has a `retention.ms` or `retention.bytes`, which is small enough to
    /// matter in a run.
    pub fn has_retention(&self) -> bool {
        self.number("retention.ms").is_some() || self.number("retention.bytes").is_some()
    }

    pub fn number(&self, name: &str) -> Option<i64> {
        self.configs.get(name)?.parse().ok()
    }

    pub fn is_log_append_time(&self) -> bool {
        self.configs.get("message.timestamp.type").is_some_and(|value| value == "LogAppendTime")
    }
}

/// What every client of a scenario knows.
#[derive(Clone, Debug)]
pub struct Setting {
    pub seed: u64,
    pub client: u32,
    /// How many nodes the cluster has.
    pub nodes: u32,
    /// The `node.id` of each controller.
    pub controllers: Vec<i32>,
    /// Those of the controllers that will stay cut off.
    pub cut_off: Vec<i32>,
    /// Whether the voters may be others than the first ones.
    pub voters_change: bool,
    /// The addresses that the client knows from the start.
    pub bootstrap: Vec<Address>,
    /// The node of the first of these addresses that is a node's.
    pub first_node: u32,
    pub topics: Vec<TopicPlan>,
    pub payloads: Payloads,
    /// The client's wall clock at time 0, in milliseconds.
    pub wall_ms: i64,
    /// Some batches may be compressed with zstd.
    pub zstd: bool,
}

impl Setting {
    /// Whether a broker may know less than the controller, which is another node.
    pub fn brokers_may_lag(&self) -> bool {
        self.nodes > 1
    }

    /// What an acknowledgement says of a batch. One of the leader alone (`acks=1`) promises nothing where there are other
    /// replicas: what the leader has not given to them yet is lost if one of them comes to lead.
    pub fn acknowledged(&self, topic: u16, acks: i16, op: OpId, base_offset: Option<i64>) -> Fact {
        if acks == 0 || acks == 1 && self.topics[usize::from(topic)].replicas > 1 {
            return Fact::Unknown { op };
        }
        Fact::Acknowledged { op, base_offset }
    }

    /// Whether a registrar may remove this voter. Where some controllers will stay cut off, only they leave: without
    /// another one, the voters that are left might have no majority.
    pub fn voters_may_leave(&self, node: i32) -> bool {
        self.cut_off.is_empty() || self.cut_off.contains(&node)
    }

    pub fn wall(&self, now: u64) -> i64 {
        self.wall_ms + (now / 1_000_000) as i64
    }
}

/// A client's own name for a connection that it has asked for. It names no two connections alike.
pub type Link = u64;

/// What happens to the opener of a connection.
#[derive(Clone, Debug)]
pub enum OpenerInput {
    Connected,
    Refused,
    /// The connection is gone.
    Cut,
    /// A response, without its length.
    Frame(Bytes),
}

/// What happens to a client.
#[derive(Clone, Debug)]
pub enum ClientInput {
    Link(Link, OpenerInput),
    /// A deadline has come.
    Wake,
    /// Everything was healed: from now on nothing fails.
    Healed,
    /// The client shall read what is there, and then be done.
    Finish,
}

/// What a client wants done.
#[derive(Debug)]
pub enum ClientAction {
    Connect(Link, Address),
    Close(Link),
    /// A request, without its length.
    Send(Link, Bytes),
    Fact(Fact),
}

#[derive(Debug, Default)]
pub struct ClientOutbox {
    pub actions: Vec<ClientAction>,
}

pub trait Client {
    fn handle(&mut self, now: u64, input: ClientInput, out: &mut ClientOutbox);
    /// When to wake it next.
    fn deadline(&self) -> Option<u64>;
    /// What the client still has to do before it is done, for the liveness check; none if it is done.
    fn pending(&self) -> Option<String>;
    fn role(&self) -> &'static str;
    /// Whether it sends frames that are not valid requests.
    fn is_hostile(&self) -> bool {
        false
    }
}
