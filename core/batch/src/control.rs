//! Control records: records that brokers write into logs for each other. A control batch holds nothing else, and
//! clients skip it.
//!
//! The key is `version i16 = 0 │ type i16`. The value of a transaction's end is `version i16 = 0 │ coordinator epoch
//! i32` (KIP-98); the values of KRaft's control records are messages whose first field is their version (KIP-595,
//! KIP-630, KIP-853).

use super::builder::BatchBuilder;
use super::record::Record;
use bytes::Bytes;
use tidelog_wire::ids::{LeaderEpoch, Offset, ProducerId};
use tidelog_wire::time::WallMs;

/// The kinds of control records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ControlType {
    Abort,
    Commit,
    LeaderChange,
    SnapshotHeader,
    SnapshotFooter,
    KRaftVersion,
    KRaftVoters,
    /// A kind of a later version of Kafka, which readers ignore.
    Unknown(i16),
}

/// A control record, its value not yet decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlRecord {
    pub kind: ControlType,
    pub value: Bytes,
}

impl ControlType {
    pub fn id(self) -> i16 {
        match self {
            Self::Abort => 0,
            Self::Commit => 1,
            Self::LeaderChange => 2,
            Self::SnapshotHeader => 3,
            Self::SnapshotFooter => 4,
            Self::KRaftVersion => 5,
            Self::KRaftVoters => 6,
            Self::Unknown(id) => id,
        }
    }

    pub fn from_id(id: i16) -> Self {
        match id {
            0 => Self::Abort,
            1 => Self::Commit,
            2 => Self::LeaderChange,
            3 => Self::SnapshotHeader,
            4 => Self::SnapshotFooter,
            5 => Self::KRaftVersion,
            6 => Self::KRaftVoters,
            id => Self::Unknown(id),
        }
    }

    pub fn key(self) -> [u8; 4] {
        let id = self.id().to_be_bytes();
        [0, 0, id[0], id[1]]
    }
}

impl ControlRecord {
    /// The end of a transaction (KIP-98).
    pub fn end_transaction(commit: bool, coordinator_epoch: i32) -> Self {
        let mut value = [0; 6];
        value[2..].copy_from_slice(&coordinator_epoch.to_be_bytes());
        let kind = if commit { ControlType::Commit } else { ControlType::Abort };
        Self { kind, value: Bytes::copy_from_slice(&value) }
    }

    /// Reads the type out of the key of a record from a control batch. A key of a later version is read as if it
    /// were of this one.
    pub fn parse(record: &Record) -> Result<Self, &'static str> {
        let key = record.key.as_deref().unwrap_or_default();
        let Some(&[v0, v1, t0, t1]) = key.first_chunk::<4>() else {
            return Err("the key of a control record has fewer than 4 bytes");
        };
        if i16::from_be_bytes([v0, v1]) < 0 {
            return Err("the key of a control record has a negative version");
        }
        let kind = ControlType::from_id(i16::from_be_bytes([t0, t1]));
        Ok(Self { kind, value: record.value.clone().unwrap_or_default() })
    }

    /// The coordinator's epoch in the end of a transaction.
    pub fn coordinator_epoch(&self) -> Result<i32, &'static str> {
        assert!(matches!(self.kind, ControlType::Abort | ControlType::Commit), "{:?} ends no transaction", self.kind);
        match self.value.first_chunk::<6>() {
            Some(&[v0, _, epoch @ ..]) if v0 < 0x80 => Ok(i32::from_be_bytes(epoch)),
            _ => Err("the end of a transaction has a negative version or fewer than 6 bytes"),
        }
    }

    /// A batch of control records that belong together.
    pub fn batch(records: &[Self], base_offset: Offset, leader_epoch: LeaderEpoch, now: WallMs) -> Bytes {
        let mut builder = BatchBuilder::new().at(base_offset, leader_epoch).control();
        for record in records {
            builder.push(now.0, Some(&record.kind.key()), Some(&record.value), &[]);
        }
        builder.build()
    }

    /// The batch that ends a producer's transaction in one partition, for a leader to append.
    pub fn transaction_marker(&self, id: ProducerId, producer_epoch: i16, now: WallMs) -> Bytes {
        assert!(matches!(self.kind, ControlType::Abort | ControlType::Commit), "{:?} ends no transaction", self.kind);
        let mut builder = BatchBuilder::new().producer(id, producer_epoch, super::NO_SEQUENCE);
        builder = builder.transactional().control();
        builder.push(now.0, Some(&self.kind.key()), Some(&self.value), &[]).build()
    }
}
