//! What the clients saw, in the order in which it happened: the only thing that checkers judge.
//!
//! Every value that is produced is unique, so that a value names its one `Sent`. An operation whose answer never
//! came ([`Fact::Unknown`], or nothing more about it) may have happened or not.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A partition of a topic on one node (each node is a cluster of its own, for now).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PartitionKey {
    pub node: u32,
    /// The place of the topic in the scenario.
    pub topic: u16,
    pub index: i32,
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node{}/t{}-{}", self.node, self.topic, self.index)
    }
}

/// A value that a producer sends once: its client in the upper half, its count in the lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ValueId(pub u64);

impl ValueId {
    pub fn new(client: u32, count: u32) -> Self {
        Self(u64::from(client) << 32 | u64::from(count))
    }

    pub fn client(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Display for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}v{}", self.client(), self.0 as u32)
    }
}

/// Names one produced batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRecord {
    pub offset: i64,
    pub value: ValueId,
    pub timestamp: i64,
    /// The size of its batch, where it is the last of it; otherwise 0.
    pub batch_bytes: u32,
    /// The leader epoch in which it was appended; -1 where the client was not told.
    pub leader_epoch: i32,
}

/// A topic's id, as its bytes.
pub type TopicId = [u8; 16];

/// What an administrator asks to be changed about a topic, or about the configs of all brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Create {
        partitions: i32,
        configs: BTreeMap<String, String>,
    },
    Delete,
    DeleteById(TopicId),
    /// To this many partitions.
    Grow(i32),
    /// Sets some configs, and takes some back.
    Set(Vec<(String, Option<String>)>),
    /// These configs, and no others.
    Replace(BTreeMap<String, String>),
}

/// What a broker tells of a topic, or of the configs of all brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    Absent,
    /// It is named in a list of all that there is.
    Named,
    /// Old versions of Metadata tell no id.
    Topic {
        id: Option<TopicId>,
        partitions: i32,
    },
    /// What is set for it, of the configs that administrators work with.
    Configs(BTreeMap<String, String>),
    /// The log directories hold this many of its partitions.
    Logs(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Earliest,
    Latest,
    MaxTimestamp,
    Timestamp(i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A batch goes out for the first time.
    Sent {
        op: OpId,
        partition: PartitionKey,
        values: Vec<ValueId>,
        timestamps: Vec<i64>,
        acks: i16,
        idempotent: bool,
    },
    /// The broker said yes. Without an offset it said "a duplicate, I do not know of which".
    Acknowledged {
        op: OpId,
        base_offset: Option<i64>,
    },
    /// Given up: nobody will learn whether it happened.
    Unknown {
        op: OpId,
    },
    /// A producer's sequence was refused though it sent what comes next.
    SequenceRefused {
        partition: PartitionKey,
        error: i16,
    },
    /// An answer with an error: to which kind of request, and which error.
    Refused {
        partition: PartitionKey,
        api_key: i16,
        error: i16,
    },
    Fetched {
        partition: PartitionKey,
        /// When the request was sent.
        asked_at: u64,
        from: i64,
        high_watermark: i64,
        log_start: i64,
        records: Vec<ReadRecord>,
        /// The last read of the run, after everything has been healed and every producer is done.
        last: bool,
    },
    OutOfRange {
        partition: PartitionKey,
        position: i64,
    },
    Listed {
        partition: PartitionKey,
        asked_at: u64,
        asked: Asked,
        offset: i64,
        timestamp: i64,
    },
    /// A DeleteRecords goes out: records below `target` may leave from now on, below the high watermark where it
    /// is -1.
    Trimming {
        partition: PartitionKey,
        target: i64,
    },
    /// The broker said that the log starts at `low_watermark` now.
    Trimmed {
        partition: PartitionKey,
        asked_at: u64,
        target: i64,
        low_watermark: i64,
    },
    /// A partition's leader epoch, from its metadata.
    LeaderEpoch {
        partition: PartitionKey,
        asked_at: u64,
        epoch: i32,
    },
    /// OffsetForLeaderEpoch: the largest epoch up to `epoch` is `found`, and it ends at `end`.
    EpochEnd {
        partition: PartitionKey,
        asked_at: u64,
        epoch: i32,
        /// The leader epoch that the client knew when it asked; -1 where it knew none.
        current: i32,
        found: i32,
        end: i64,
    },
    /// A topic has this id.
    Topic {
        node: u32,
        topic: u16,
        id: TopicId,
    },
    /// A change goes out, by the only client that changes this resource.
    Changing {
        node: u32,
        resource: String,
        change: Change,
        /// It is only asked whether it could be made.
        validate_only: bool,
    },
    /// The answer to the change under way: no error, or the one that says why not; none where nobody will learn
    /// whether it was made, or will be.
    Changed {
        node: u32,
        resource: String,
        error: Option<i16>,
        /// Of the topic that was created or deleted.
        id: Option<TopicId>,
    },
    Described {
        node: u32,
        resource: String,
        sight: Sight,
    },
    /// A producer id was given out.
    ProducerId {
        node: u32,
        id: i64,
    },
    /// The node is of this cluster.
    Cluster {
        node: u32,
        id: String,
    },
    /// How far the node says that its metadata log is.
    Quorum {
        node: u32,
        epoch: i32,
        high_watermark: i64,
        log_end: i64,
    },
    /// A value goes to a topic of an administrator's: to any of this name, or to the one of this id.
    Entrusted {
        node: u32,
        topic: String,
        id: Option<TopicId>,
        value: ValueId,
    },
    /// It was acknowledged by the topic of this id.
    Kept {
        value: ValueId,
        id: TopicId,
        index: i32,
    },
    /// A partition of such a topic was read.
    Found {
        node: u32,
        topic: String,
        id: TopicId,
        index: i32,
        asked_at: u64,
        values: Vec<ValueId>,
        /// From its first offset to its end, and nothing leaves it by itself.
        whole: bool,
    },
    /// An attack was answered as it should be.
    Withstood {
        attack: &'static str,
    },
    /// The node lost its page cache: with its power, or with a process of which a sync had failed.
    CacheLost {
        node: u32,
    },
    /// Bytes at rest were damaged, of a partition's segments or of one of its time indexes (which Kafka's format gives
    /// no checksum, and nobody restores).
    Damaged {
        partition: PartitionKey,
        time_index: bool,
    },
    /// What was damaged is as it was before, by hand.
    Repaired {
        node: u32,
    },
    /// What was read does not check out.
    Corrupt {
        partition: PartitionKey,
        asked_at: u64,
        text: String,
    },
    /// The node has a new process.
    Restarted {
        node: u32,
    },
    /// From now on nothing fails any more.
    Healed,
    /// Against the protocol, whatever the history.
    Misbehaved {
        text: String,
    },
}

/// What each partition holds in the end.
pub type FinalLogs = BTreeMap<PartitionKey, FinalLog>;

/// A log as the last read found it, from its start to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FinalLog {
    pub start: i64,
    pub records: Vec<ReadRecord>,
}

impl FinalLog {
    pub fn end(&self) -> i64 {
        self.start + self.records.len() as i64
    }

    pub fn get(&self, offset: i64) -> Option<&ReadRecord> {
        self.records.get(usize::try_from(offset - self.start).ok()?)
    }

    /// Adds what the last reader got from `from` on. Where retention was faster than the reader, the log begins anew.
    pub fn extend(&mut self, from: i64, records: &[ReadRecord]) {
        if from != self.end() {
            *self = Self { start: from, records: Vec::new() };
        }
        self.records.extend(records);
    }
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub at: u64,
    /// The client that saw it; none where the world did.
    pub client: Option<u32>,
    pub fact: Fact,
}
