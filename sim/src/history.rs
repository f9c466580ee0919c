//! The history of a run: what the clients saw, and what the world did to the nodes, in order. Checkers judge this and
//! nothing else.
//!
//! Every value is produced once, so a value identifies its one `Sent`. An operation without an answer
//! ([`Fact::Unknown`], or no further fact) may have been carried out or not.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A partition of a topic, whichever nodes have its replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PartitionKey {
    /// The place of the topic in the scenario's list.
    pub topic: u16,
    pub index: i32,
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}-{}", self.topic, self.index)
    }
}

/// A value that a producer sends: the client's number in the upper 32 bits, a count in the lower. A client uses each
/// count once.
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

/// A change that an administrator asks for: of a topic, or of the configs of all brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Create {
        partitions: i32,
        configs: BTreeMap<String, String>,
    },
    Delete,
    DeleteById(TopicId),
    /// Adds partitions, so that there are this many.
    Grow(i32),
    /// Sets some configs, and takes some back.
    Set(Vec<(String, Option<String>)>),
    /// Sets these configs, and takes all others back.
    Replace(BTreeMap<String, String>),
}

/// What a broker tells of a topic, or of what has only configs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    Absent,
    /// A list of all topics names it.
    Named,
    /// Old versions of Metadata tell no id.
    Topic {
        id: Option<TopicId>,
        partitions: i32,
    },
    /// The configs that are set for it. Only those that administrators work with are told.
    Configs(BTreeMap<String, String>),
    /// The log directories hold this many partitions of it.
    Logs(i32),
}

/// How the names of subscriptions to clients' metrics begin. Topics have other names.
pub const SUBSCRIPTION: &str = "subscription-";

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
    /// The broker acknowledged the batch. There is no offset if it answered that the batch is a duplicate whose offset
    /// it has forgotten (DUPLICATE_SEQUENCE_NUMBER).
    Acknowledged {
        op: OpId,
        base_offset: Option<i64>,
    },
    /// No answer will tell whether the batch was appended, or the answer does not promise that it is kept (`acks=1` with
    /// several replicas).
    Unknown {
        op: OpId,
    },
    /// A broker refused the sequence of a batch, though it was the producer's next.
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
        /// This is the read of the last reader, after everything was healed and every producer was done.
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
    /// A DeleteRecords goes out: from now on the records below `target` may be deleted. A target of -1 stands for the
    /// high watermark.
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
    /// A partition's leader epoch, from the metadata of a node.
    LeaderEpoch {
        partition: PartitionKey,
        node: u32,
        asked_at: u64,
        epoch: i32,
    },
    /// The answer to OffsetForLeaderEpoch: the largest epoch that is at most `epoch` is `found`, and it ends at `end`.
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
        topic: u16,
        id: TopicId,
    },
    /// A change goes out, by the only client that changes this resource.
    Changing {
        resource: String,
        change: Change,
        /// The broker is asked only whether the change could be made (`validate_only`).
        validate_only: bool,
    },
    /// The answer to the change under way. `error` is 0 if it was made, another code if it was refused, and none if no
    /// answer will tell whether it was made or will be.
    Changed {
        resource: String,
        error: Option<i16>,
        /// The id of the topic that was created or deleted.
        id: Option<TopicId>,
    },
    Described {
        resource: String,
        sight: Sight,
    },
    /// The node's operator begins to change the level of its logger.
    LevelChanging {
        node: u32,
        level: String,
    },
    /// The change has ended. `once`: it was made, and will not be made again.
    LevelChanged {
        node: u32,
        once: bool,
    },
    /// The level of the operator's logger, in an answer to a question of `asked_at`.
    LevelTold {
        node: u32,
        asked_at: u64,
        level: String,
    },
    /// A producer id was given out.
    ProducerId {
        id: i64,
    },
    /// The cluster has this id.
    Cluster {
        id: String,
    },
    /// What is told of the metadata log.
    Quorum {
        epoch: i32,
        high_watermark: i64,
        log_end: i64,
    },
    /// How a node's replica of the metadata log stands now. It is told whenever that has changed.
    Replica {
        node: u32,
        replica: Replica,
    },
    /// What a node knows of the metadata below `end`, as a digest.
    Image {
        node: u32,
        end: i64,
        digest: u64,
    },
    /// A node knows as committed that the record at this offset of the metadata log names these voters.
    VotersCommitted {
        node: u32,
        offset: i64,
        voters: Vec<Voter>,
    },
    /// A registrar asks that a node become a voter, or be none any more. It asks for one change at a time.
    VotersChanging {
        node: u32,
        votes: bool,
    },
    /// The change that the registrar has asked for last is acknowledged: it is committed.
    VotersChanged {
        node: u32,
        votes: bool,
    },
    /// A node that leads the quorum does something, and still leads behind it. It is told now and then.
    LeadsOn {
        node: u32,
    },
    /// A node that leads the quorum gets a request by which it knows that the replica of another node is there.
    Heard {
        node: u32,
        replica: u32,
    },
    /// A node that leads the quorum gets a heartbeat, or a registration, of this broker.
    Heartbeat {
        node: u32,
        broker: u32,
    },
    /// The active controller tells a broker whether it has caught up: the broker was registered with this epoch, which is
    /// the offset of its registration, and has applied the metadata up to this offset.
    CaughtUp {
        broker: u32,
        epoch: i64,
        offset: i64,
        told: bool,
    },
    /// A node knows these batches of the metadata log as committed.
    Committed {
        node: u32,
        batches: Vec<StoredBatch>,
    },
    /// The node's `quorum-state` is on stable storage, with this epoch and this vote.
    StateSaved {
        node: u32,
        epoch: i32,
        voted: Option<u32>,
    },
    /// The node tells another that it votes for the candidate, which may be itself.
    Voted {
        node: u32,
        epoch: i32,
        candidate: u32,
    },
    /// The node tells another of an epoch, higher than any before.
    EpochTold {
        node: u32,
        epoch: i32,
    },
    /// An administrator sends a value to one of its topics: to the topic with this id, or, if there is no id, to any
    /// topic of this name.
    Entrusted {
        topic: String,
        id: Option<TopicId>,
        value: ValueId,
    },
    /// A value that was [`Entrusted`](Fact::Entrusted) was acknowledged by the topic with this id.
    Kept {
        value: ValueId,
        id: TopicId,
        index: i32,
    },
    /// An administrator has read a partition of one of its topics.
    Found {
        topic: String,
        id: TopicId,
        index: i32,
        asked_at: u64,
        values: Vec<ValueId>,
        /// `values` is all that the partition holds, and no record leaves it by itself.
        whole: bool,
    },
    /// An attack of the hostile client was answered as Kafka answers it.
    Withstood {
        attack: &'static str,
    },
    /// The node lost its page cache: with its power, or with a process of which a sync had failed.
    CacheLost {
        node: u32,
        /// The partitions of which the node has replicas.
        held: Vec<PartitionKey>,
    },
    /// Bytes on a node's disk were damaged: of a segment of a replica, or of one of its time indexes. Kafka's format
    /// has no checksum for time indexes, and no operator restores them.
    Damaged {
        node: u32,
        partition: PartitionKey,
        time_index: bool,
    },
    /// An operator has restored what was damaged on the node's disk.
    Repaired {
        node: u32,
    },
    /// What a client read has a wrong checksum, or does not decode.
    Corrupt {
        partition: PartitionKey,
        asked_at: u64,
        text: String,
    },
    /// The broker on the node, which is gone for good, is not registered any more.
    Unregistered {
        node: u32,
    },
    /// The node lost its disk with all that was on it, and got another, formatted anew.
    DiskLost {
        node: u32,
    },
    /// The node's process has ended.
    Ended {
        node: u32,
    },
    /// The node has a new process.
    Restarted {
        node: u32,
        /// The partitions of which the node has replicas.
        held: Vec<PartitionKey>,
    },
    /// From now on nothing fails any more.
    Healed,
    /// A client saw something that is wrong whatever happened before.
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
    /// What each replica holds, by its node.
    pub replicas: BTreeMap<u32, Vec<StoredBatch>>,
}

/// How a node's replica of the metadata log stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Whether the node leads the quorum.
    pub leads: bool,
    pub epoch: i32,
    /// Who leads in that epoch, as far as the node knows.
    pub leader: Option<u32>,
    /// One past the last record that the node has applied.
    pub committed: i64,
    pub high_watermark: Option<i64>,
    /// All records below this offset are on stable storage.
    pub synced: i64,
    pub log_end: i64,
    /// Where the records of this epoch begin; of a leader only, once it has given them to its disk.
    pub epoch_start: Option<i64>,
    /// The set of voters that counts for this node.
    pub voters: Vec<Voter>,
    /// The brokers that the active controller knows as unfenced; of the active controller only.
    pub unfenced: Option<Vec<u32>>,
}

/// A voter of the quorum: a node, with one of the disks that it has had. The first has the number 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Voter {
    pub node: u32,
    pub disk: u32,
}

impl fmt::Display for Voter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.disk {
            0 => self.node.fmt(f),
            disk => write!(f, "{} with disk {disk}", self.node),
        }
    }
}

/// A batch as it lies on a node's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    pub base_offset: i64,
    pub last_offset: i64,
    pub leader_epoch: i32,
    /// A digest of all its bytes.
    pub digest: u64,
}

impl FinalLog {
    pub fn end(&self) -> i64 {
        self.start + self.records.len() as i64
    }

    pub fn get(&self, offset: i64) -> Option<&ReadRecord> {
        self.records.get(usize::try_from(offset - self.start).ok()?)
    }

    /// Adds the records that the last reader got from the offset `from` on. If retention has deleted records that the
    /// reader had not read yet, the log begins anew at `from`.
    pub fn extend(&mut self, from: i64, records: &[ReadRecord]) {
        if from != self.end() {
            *self = Self { start: from, ..Self::default() };
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
