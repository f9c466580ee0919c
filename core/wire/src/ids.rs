//! Newtypes for the numbers that must not be mixed up.

use std::fmt;
use std::ops::{Add, Sub};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(/// A broker or controller, as `node.id` names it.
    NodeId(i32));
id!(/// A client's connection. The world around the core chooses it, and uses none twice while the process runs.
    ConnId(u64));
id!(/// A connection that this side opens, to another node. The side that opens it chooses the number, and uses none twice
    /// while the process runs.
    LinkId(u64));
id!(/// A file that the core has opened. The core chooses it, and uses none twice while the process runs.
    FileId(u64));
id!(/// The place of a log directory in `log.dirs`, counted from 0.
    LogDirId(u16));
id!(/// The log of a partition: 0 is the metadata log, the others are numbered as they are opened. None is used twice
    /// while the process runs.
    LogId(u32));
id!(/// The number of a leadership of a partition. Every election raises it, also one that the same leader wins. -1:
    /// unknown (KIP-101).
    LeaderEpoch(i32));
id!(/// An idempotent or transactional producer (KIP-98). -1: none.
    ProducerId(i64));
id!(/// A request that waits inside the broker. What it waits for reports the outcome under this id.
    PendingId(u64));
id!(/// The place of a record in a partition, counted from 0.
    Offset(i64));

impl LeaderEpoch {
    pub const UNKNOWN: Self = Self(-1);
}

impl ProducerId {
    pub const NONE: Self = Self(-1);
}

impl Offset {
    pub const ZERO: Self = Self(0);
    /// The number that the protocol uses where there is no offset.
    pub const UNKNOWN: Self = Self(-1);
}

impl Add<i64> for Offset {
    type Output = Self;
    fn add(self, records: i64) -> Self {
        Self(self.0 + records)
    }
}

impl Sub for Offset {
    type Output = i64;
    fn sub(self, other: Self) -> i64 {
        self.0 - other.0
    }
}

/// 16 bytes that name a topic, a directory, a cluster or an incarnation. Kafka writes them as 22 characters of
/// URL-safe base64 without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub uuid::Uuid);

impl Uuid {
    pub const ZERO: Self = Self(uuid::Uuid::nil());
    /// The topic id of `__cluster_metadata`.
    pub const METADATA_TOPIC: Self = Self(uuid::Uuid::from_u128(1));

    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(bytes))
    }

    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// A version 4 uuid from 16 random bytes, as Kafka draws them: never one of the two reserved ids, and never
    /// one whose text starts with `-` (it would read as an option on a command line).
    pub fn random(mut draw: impl FnMut() -> [u8; 16]) -> Self {
        loop {
            let id = Self(uuid::Builder::from_random_bytes(draw()).into_uuid());
            if id != Self::ZERO && id != Self::METADATA_TOPIC && !id.to_string().starts_with('-') {
                return id;
            }
        }
    }

    /// Reads what [`Display`](fmt::Display) writes, with or without the padding of base64 (`=`) behind it; `None` for
    /// anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bits: u128 = 0;
        let text = text.trim_end_matches('=').as_bytes();
        if text.len() != 22 {
            return None;
        }
        for (place, byte) in text.iter().enumerate() {
            let value = ALPHABET.iter().position(|a| a == byte)? as u128;
            // 22 characters carry 132 bits; the last four must be zero.
            if place == 21 {
                if value & 15 != 0 {
                    return None;
                }
                bits = (bits << 2) | (value >> 4);
            } else {
                bits = (bits << 6) | value;
            }
        }
        Some(Self(uuid::Uuid::from_u128(bits)))
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.as_u128();
        let mut text = [0u8; 22];
        for (place, out) in text.iter_mut().enumerate() {
            let shift = 122 - 6 * place as i32;
            let value = if shift >= 0 { bits >> shift } else { bits << -shift };
            *out = ALPHABET[(value & 63) as usize];
        }
        f.pad(str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_topics_id_reads_as_kafka_writes_it() {
        assert_eq!(Uuid::METADATA_TOPIC.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(Uuid::parse("AAAAAAAAAAAAAAAAAAAAAQ"), Some(Uuid::METADATA_TOPIC));
    }

    #[test]
    fn text_round_trips_and_what_is_not_an_id_is_refused() {
        let id = Uuid::from_bytes([0xff, 0xee, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0x7f]);
        assert_eq!(Uuid::parse(&id.to_string()), Some(id));
        assert_eq!(Uuid::parse("AAAAAAAAAAAAAAAAAAAAAR"), None, "bits past the 128th");
        assert_eq!(Uuid::parse("AAAA"), None);
        assert_eq!(Uuid::parse("AAAAAAAAAAAAAAAAAAAA*Q"), None);
    }
}
