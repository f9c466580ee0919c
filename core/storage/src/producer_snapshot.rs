//! The format of producer snapshots: the `.snapshot` files.
//!
//! ```text
//! int16 version (1), uint32 CRC-32C of all that follows, int32 count, then per producer 46 bytes:
//! int64 producer id, int16 epoch, int32 last sequence, int64 last offset, int32 offset delta,
//! int64 timestamp, int32 coordinator epoch, int64 first offset of the open transaction (-1: none)
//! ```
//!
//! A snapshot has only the *last* batch of each producer. So after a restart a retry of an older batch is not
//! recognised, as in Kafka. A corrupt snapshot is removed, and the state is built from an older snapshot and the log.

use bytes::{BufMut, Bytes, BytesMut};
use tidelog_wire::ids::{Offset, ProducerId};

const VERSION: i16 = 1;
const HEADER_BYTES: usize = 10;
const CRC_START: usize = 6;
const ENTRY_BYTES: usize = 46;

/// The state of one producer in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotEntry {
    pub producer_id: ProducerId,
    pub producer_epoch: i16,
    /// -1 if the producer has no batch in its epoch, for example after a transaction marker with a new epoch.
    pub last_sequence: i32,
    /// [`Offset::UNKNOWN`] if the producer has no batch in its epoch.
    pub last_offset: Offset,
    /// The last batch's last offset minus its base offset.
    pub offset_delta: i32,
    /// Milliseconds; -1 if unknown.
    pub timestamp: i64,
    pub coordinator_epoch: i32,
    pub current_transaction_first_offset: Option<Offset>,
}

/// Why a snapshot cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("{found} bytes, where the header and its entries need {needed}")]
    Length { found: u64, needed: u64 },
    #[error("version {0}, expected {VERSION}")]
    Version(i16),
    #[error("checksum {stored:#010x}, but the content has {computed:#010x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("entry {place} is impossible: {entry:?}")]
    Entry { place: usize, entry: SnapshotEntry },
}

pub fn encode_snapshot(entries: impl ExactSizeIterator<Item = SnapshotEntry>) -> Bytes {
    let count = i32::try_from(entries.len()).expect("fewer producers than an int32 counts");
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + entries.len() * ENTRY_BYTES);
    bytes.put_i16(VERSION);
    bytes.put_u32(0);
    bytes.put_i32(count);
    for entry in entries {
        bytes.put_i64(entry.producer_id.0);
        bytes.put_i16(entry.producer_epoch);
        bytes.put_i32(entry.last_sequence);
        bytes.put_i64(entry.last_offset.0);
        bytes.put_i32(entry.offset_delta);
        bytes.put_i64(entry.timestamp);
        bytes.put_i32(entry.coordinator_epoch);
        bytes.put_i64(entry.current_transaction_first_offset.unwrap_or(Offset::UNKNOWN).0);
    }
    let crc = crc32c::crc32c(&bytes[CRC_START..]);
    bytes[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

pub fn decode_snapshot(bytes: &[u8]) -> Result<Vec<SnapshotEntry>, SnapshotError> {
    let length = |needed: u64| SnapshotError::Length { found: bytes.len() as u64, needed };
    let (header, rows) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(length(HEADER_BYTES as u64))?;
    let mut fields = Fields(header);
    let version = i16::from_be_bytes(fields.take());
    if version != VERSION {
        return Err(SnapshotError::Version(version));
    }
    let stored = u32::from_be_bytes(fields.take());
    let computed = crc32c::crc32c(&bytes[CRC_START..]);
    if stored != computed {
        return Err(SnapshotError::Checksum { stored, computed });
    }
    let count = i32::from_be_bytes(fields.take());
    let needed = HEADER_BYTES as u64 + u64::from(count.max(0) as u32) * ENTRY_BYTES as u64;
    if count < 0 || needed != bytes.len() as u64 {
        return Err(length(needed));
    }
    rows.chunks_exact(ENTRY_BYTES).enumerate().map(|(place, row)| decode_entry(place, row)).collect()
}

fn decode_entry(place: usize, row: &[u8]) -> Result<SnapshotEntry, SnapshotError> {
    let mut fields = Fields(row);
    let entry = SnapshotEntry {
        producer_id: ProducerId(i64::from_be_bytes(fields.take())),
        producer_epoch: i16::from_be_bytes(fields.take()),
        last_sequence: i32::from_be_bytes(fields.take()),
        last_offset: Offset(i64::from_be_bytes(fields.take())),
        offset_delta: i32::from_be_bytes(fields.take()),
        timestamp: i64::from_be_bytes(fields.take()),
        coordinator_epoch: i32::from_be_bytes(fields.take()),
        current_transaction_first_offset: match i64::from_be_bytes(fields.take()) {
            offset if offset >= 0 => Some(Offset(offset)),
            _ => None,
        },
    };
    let has_batch = entry.last_offset >= Offset::ZERO;
    let possible = entry.producer_id.0 >= 0
        && (!has_batch || (entry.offset_delta >= 0 && i64::from(entry.offset_delta) <= entry.last_offset.0));
    if possible { Ok(entry) } else { Err(SnapshotError::Entry { place, entry }) }
}

/// Takes fixed-size fields off the front of a slice whose length was checked.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the length was checked");
        self.0 = rest;
        *field
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidelog_wire::messages;

    fn entry() -> SnapshotEntry {
        SnapshotEntry {
            producer_id: ProducerId(1001),
            producer_epoch: 2,
            last_sequence: 9,
            last_offset: Offset(50),
            offset_delta: 4,
            timestamp: 1_700_000_000_000,
            coordinator_epoch: -1,
            current_transaction_first_offset: None,
        }
    }

    #[test]
    fn the_bytes_are_kafkas() {
        let bytes = encode_snapshot([entry()].into_iter());
        assert_eq!(bytes.len(), 56);
        let body = [
            0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 0xe9, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 50, 0, 0, 0, 4, 0, 0, 1,
            0x8b, 0xcf, 0xe5, 0x68, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ];
        assert_eq!((&bytes[..2], &bytes[6..]), (&[0, 1][..], &body[..]));
        assert_eq!(bytes[2..6], crc32c::crc32c(&body).to_be_bytes());
        assert_eq!(encode_snapshot([].into_iter()).len(), 10);
    }

    #[test]
    fn the_generated_codec_reads_the_same_entries() {
        let bytes = encode_snapshot([entry()].into_iter());
        let read = messages::ProducerSnapshot::from_bytes(1, bytes.slice(2..)).unwrap();
        assert_eq!(read.crc, crc32c::crc32c(&bytes[6..]));
        let expected = messages::producer_snapshot::ProducerEntry {
            producer_id: 1001,
            epoch: 2,
            last_sequence: 9,
            last_offset: 50,
            offset_delta: 4,
            timestamp: 1_700_000_000_000,
            coordinator_epoch: -1,
            current_txn_first_offset: -1,
        };
        assert_eq!(read.producer_entries, [expected]);
    }

    #[test]
    fn a_corrupt_snapshot_says_why() {
        let good = encode_snapshot([entry()].into_iter()).to_vec();
        assert_eq!(
            decode_snapshot(&good[..9]).unwrap_err().to_string(),
            "9 bytes, where the header and its entries need 10"
        );
        let mut wrong = good.clone();
        wrong[1] = 2;
        assert_eq!(decode_snapshot(&wrong).unwrap_err().to_string(), "version 2, expected 1");
        for place in 2..good.len() {
            let mut wrong = good.clone();
            wrong[place] ^= 1;
            assert!(matches!(decode_snapshot(&wrong), Err(SnapshotError::Checksum { .. })), "byte {place}");
        }
        let negative = SnapshotEntry { offset_delta: 51, ..entry() };
        let error = decode_snapshot(&encode_snapshot([negative].into_iter())).unwrap_err();
        assert_eq!(error, SnapshotError::Entry { place: 0, entry: negative });
    }

    #[test]
    fn a_wrong_count_is_refused_before_anything_is_allocated() {
        for count in [-1i32, 0, 2, i32::MAX] {
            let mut bytes = encode_snapshot([entry()].into_iter()).to_vec();
            bytes[6..10].copy_from_slice(&count.to_be_bytes());
            let crc = crc32c::crc32c(&bytes[6..]);
            bytes[2..6].copy_from_slice(&crc.to_be_bytes());
            assert!(matches!(decode_snapshot(&bytes), Err(SnapshotError::Length { .. })), "count {count}");
        }
    }

    pub fn entries() -> impl Strategy<Value = Vec<SnapshotEntry>> {
        let batch = prop_oneof![
            Just((-1, Offset::UNKNOWN, 0)),
            (0i32.., 0i64..1 << 40, 0i64..1000)
                .prop_map(|(sequence, offset, delta)| { (sequence, Offset(offset), delta.min(offset) as i32) }),
        ];
        let entry = (any::<i16>(), batch, -1i64.., any::<i32>(), proptest::option::of(0i64..));
        proptest::collection::btree_map(0i64.., entry, 0..8).prop_map(|map| {
            map.into_iter()
                .map(
                    |(
                        id,
                        (
                            producer_epoch,
                            (last_sequence, last_offset, offset_delta),
                            timestamp,
                            coordinator_epoch,
                            first,
                        ),
                    )| {
                        SnapshotEntry {
                            producer_id: ProducerId(id),
                            producer_epoch,
                            last_sequence,
                            last_offset,
                            offset_delta,
                            timestamp,
                            coordinator_epoch,
                            current_transaction_first_offset: first.map(Offset),
                        }
                    },
                )
                .collect()
        })
    }

    proptest! {
        #[test]
        fn a_snapshot_round_trips(entries in entries()) {
            prop_assert_eq!(decode_snapshot(&encode_snapshot(entries.iter().copied())), Ok(entries));
        }

        #[test]
        fn garbage_with_a_right_checksum_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 6..200), count in -1i32..5) {
            bytes[..2].copy_from_slice(&[0, 1]);
            if bytes.len() >= 10 {
                bytes[6..10].copy_from_slice(&count.to_be_bytes());
            }
            let crc = crc32c::crc32c(&bytes[6..]);
            bytes[2..6].copy_from_slice(&crc.to_be_bytes());
            let _ = decode_snapshot(&bytes);
        }
    }
}
