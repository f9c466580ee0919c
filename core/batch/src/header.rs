//! The header of a batch: the 61 bytes before the records.
//!
//! ```text
//!  0 base offset i64        21 attributes i16        43 producer id i64
//!  8 batch length i32       23 last offset delta i32  51 producer epoch i16
//! 12 leader epoch i32       27 base timestamp i64     53 base sequence i32
//! 16 magic i8               35 max timestamp i64      57 records count i32
//! 17 CRC-32C u32            ── of everything from 21 on
//! ```
//!
//! All numbers are big-endian. The checksum leaves out the first 21 bytes, so that a leader can assign offsets and
//! its epoch without touching the records (KIP-98).

use super::checksum::{CHECKSUMMED_FROM, moved_past};
use super::compression::Codec;
use super::error::BatchError;
use tidelog_wire::ids::{LeaderEpoch, Offset, ProducerId};
use tidelog_wire::time::WallMs;

/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = -1;
/// The base sequence of a batch whose producer is not idempotent.
pub const NO_SEQUENCE: i32 = -1;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
const DELETE_HORIZON: i16 = 0x40;

/// Who set the timestamps of a batch's records (KIP-32).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// The producer did.
    #[default]
    CreateTime,
    /// The broker did: all records have the batch's max timestamp.
    LogAppendTime,
}

/// A parsed header. Its numbers do not contradict each other: see [`parse`](Self::parse).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: Offset,
    /// The bytes after this field: the size of the batch less 12.
    pub batch_length: i32,
    pub leader_epoch: LeaderEpoch,
    pub crc: u32,
    /// The bits as they stand in the header. Methods such as [`is_control`](Self::is_control) read them.
    pub attributes: i16,
    /// The offset of the last record that was produced, less the base offset. Compaction may remove records, and leaves
    /// this number as it was.
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: ProducerId,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    /// How many records the batch holds. Compaction may have left none.
    pub records_count: i32,
}

impl BatchHeader {
    /// The length of a header in bytes, and the least size of a batch.
    pub const LEN: usize = 61;
    /// The bytes of the base offset and the batch length, which the batch length does not count.
    pub const LENGTH_PREFIX: usize = 12;
    /// How many bytes of a batch are needed to know its size and its magic.
    pub const SIZE_AND_MAGIC: usize = 17;

    /// Reads the header at the beginning of `bytes`. The bytes of the records need not be there, and the checksum is
    /// not looked at.
    ///
    /// The header that is returned has a size of at least 61, a base offset that is not negative, offsets that do not
    /// overflow, and no more records than offsets.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let incomplete = |needed: u64| BatchError::Incomplete { needed, have: bytes.len() as u64 };
        if bytes.len() < Self::SIZE_AND_MAGIC {
            return Err(incomplete(Self::SIZE_AND_MAGIC as u64));
        }
        // The oldest formats have smaller headers, so the magic is checked before the size.
        let magic = bytes[16] as i8;
        if magic != 2 {
            return Err(BatchError::Magic(magic));
        }
        let batch_length = i32_at(bytes, 8);
        let size = i64::from(batch_length) + Self::LENGTH_PREFIX as i64;
        if size < Self::LEN as i64 {
            return Err(BatchError::TooSmall { size });
        }
        let Some((bytes, _)) = bytes.split_first_chunk::<{ Self::LEN }>() else {
            return Err(incomplete(size as u64));
        };
        let header = Self {
            base_offset: Offset(i64_at(bytes, 0)),
            batch_length,
            leader_epoch: LeaderEpoch(i32_at(bytes, 12)),
            crc: i32_at(bytes, 17) as u32,
            attributes: i16_at(bytes, 21),
            last_offset_delta: i32_at(bytes, 23),
            base_timestamp: i64_at(bytes, 27),
            max_timestamp: i64_at(bytes, 35),
            producer_id: ProducerId(i64_at(bytes, 43)),
            producer_epoch: i16_at(bytes, 51),
            base_sequence: i32_at(bytes, 53),
            records_count: i32_at(bytes, 57),
        };
        header.contradiction().map_or(Ok(header), Err)
    }

    #[inline]
    fn contradiction(&self) -> Option<BatchError> {
        let base = self.base_offset.0;
        let delta = self.last_offset_delta;
        if base < 0 || delta < 0 || base.checked_add(i64::from(delta) + 1).is_none() {
            let text = format!("invalid offset range: base offset {base}, last offset delta {delta}");
            return Some(BatchError::Header(text));
        }
        if self.records_count < 0 || i64::from(self.records_count) > i64::from(delta) + 1 {
            let text = format!("{} records do not fit into a last offset delta of {delta}", self.records_count);
            return Some(BatchError::Header(text));
        }
        None
    }

    /// The header as it stands on the wire and on disk.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        put(&mut bytes, 0, self.base_offset.0.to_be_bytes());
        put(&mut bytes, 8, self.batch_length.to_be_bytes());
        put(&mut bytes, 12, self.leader_epoch.0.to_be_bytes());
        put(&mut bytes, 16, [2]);
        put(&mut bytes, 17, self.crc.to_be_bytes());
        put(&mut bytes, 21, self.attributes.to_be_bytes());
        put(&mut bytes, 23, self.last_offset_delta.to_be_bytes());
        put(&mut bytes, 27, self.base_timestamp.to_be_bytes());
        put(&mut bytes, 35, self.max_timestamp.to_be_bytes());
        put(&mut bytes, 43, self.producer_id.0.to_be_bytes());
        put(&mut bytes, 51, self.producer_epoch.to_be_bytes());
        put(&mut bytes, 53, self.base_sequence.to_be_bytes());
        put(&mut bytes, 57, self.records_count.to_be_bytes());
        bytes
    }

    /// The size of the whole batch.
    #[inline]
    pub fn size_bytes(&self) -> usize {
        self.batch_length as usize + Self::LENGTH_PREFIX
    }

    /// The size of the records as they are stored, compressed or not.
    #[inline]
    pub fn records_bytes(&self) -> usize {
        self.size_bytes() - Self::LEN
    }

    #[inline]
    pub fn last_offset(&self) -> Offset {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// The offset after the last.
    #[inline]
    pub fn next_offset(&self) -> Offset {
        self.base_offset + (i64::from(self.last_offset_delta) + 1)
    }

    /// The sequence number of the last record; [`NO_SEQUENCE`] if the producer is not idempotent. Sequence numbers
    /// start again from 0 after `i32::MAX` (KIP-98).
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return NO_SEQUENCE;
        }
        ((i64::from(self.base_sequence) + i64::from(self.last_offset_delta)) & i64::from(i32::MAX)) as i32
    }

    #[inline]
    pub fn codec(&self) -> Result<Codec, BatchError> {
        let id = self.attributes & CODEC_MASK;
        Codec::from_id(id).ok_or(BatchError::UnknownCodec(id))
    }

    #[inline]
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime }
    }

    #[inline]
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    #[inline]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    #[inline]
    pub fn has_producer_id(&self) -> bool {
        self.producer_id.0 >= 0
    }

    /// When compaction may remove the tombstones and transaction markers of the batch (KIP-534). It stands in the field
    /// of the base timestamp.
    pub fn delete_horizon(&self) -> Option<WallMs> {
        (self.attributes & DELETE_HORIZON != 0).then_some(WallMs(self.base_timestamp))
    }

    pub(super) fn set_codec(&mut self, codec: Codec) {
        self.attributes = self.attributes & !CODEC_MASK | codec.id();
    }

    pub(super) fn set_timestamp_type(&mut self, kind: TimestampType) {
        self.attributes &= !LOG_APPEND_TIME;
        if kind == TimestampType::LogAppendTime {
            self.attributes |= LOG_APPEND_TIME;
        }
    }

    pub(super) fn set_transactional(&mut self) {
        self.attributes |= TRANSACTIONAL;
    }

    pub(super) fn set_control(&mut self) {
        self.attributes |= CONTROL;
    }

    /// Computes the checksum over the header as it is now and `records`.
    pub(super) fn checksum_over(&self, records: &[u8]) -> u32 {
        crc32c::crc32c_append(self.own_checksum(), records)
    }

    /// Computes the checksum after the header `before` was changed into this one, without reading the records. A CRC is
    /// linear: the difference between the checksums of the two headers, moved past the records, is the difference
    /// between the checksums of the two batches. The cost grows with the logarithm of the records' size.
    pub(super) fn carry_checksum_from(&mut self, before: &BatchHeader) {
        let difference = self.own_checksum() ^ before.own_checksum();
        self.crc = before.crc ^ moved_past(difference, self.records_bytes());
    }

    fn own_checksum(&self) -> u32 {
        crc32c::crc32c(&self.encode()[CHECKSUMMED_FROM..])
    }
}

#[inline(always)]
fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(bytes[at..at + 2].try_into().expect("the slice has two bytes"))
}

/// Writes a field of `N` bytes. Where `at` is a constant, this is one store, and `copy_from_slice` is a call.
#[inline(always)]
fn put<const N: usize>(bytes: &mut [u8; BatchHeader::LEN], at: usize, field: [u8; N]) {
    *bytes[at..].first_chunk_mut().expect("the field lies within the header") = field;
}

#[inline(always)]
pub(super) fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().expect("the slice has four bytes"))
}

#[inline(always)]
fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(bytes[at..at + 8].try_into().expect("the slice has eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BatchHeader {
        BatchHeader {
            base_offset: Offset(0x0102_0304_0506),
            batch_length: 1_000,
            leader_epoch: LeaderEpoch(7),
            crc: 0xdead_beef,
            attributes: 0x14,
            last_offset_delta: 9,
            base_timestamp: 1_700_000_000_000,
            max_timestamp: 1_700_000_000_009,
            producer_id: ProducerId(4_000),
            producer_epoch: 3,
            base_sequence: 50,
            records_count: 10,
        }
    }

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        let header = header();
        assert_eq!(BatchHeader::parse(&header.encode()), Ok(header));
        assert_eq!(header.size_bytes(), 1_012);
        assert_eq!(header.last_offset(), header.base_offset + 9);
        assert_eq!(header.codec(), Ok(Codec::Zstd));
        assert!(header.is_transactional() && !header.is_control());
    }

    #[test]
    fn the_last_sequence_starts_again_from_zero_after_the_greatest() {
        let at = |base_sequence| BatchHeader { base_sequence, ..header() }.last_sequence();
        assert_eq!(at(0), 9);
        assert_eq!(at(50), 59);
        assert_eq!(at(i32::MAX - 9), i32::MAX);
        assert_eq!(at(i32::MAX - 8), 0);
        assert_eq!(at(i32::MAX), 8);
        assert_eq!(at(NO_SEQUENCE), NO_SEQUENCE);
    }

    #[test]
    fn a_header_that_contradicts_itself_is_refused() {
        let refused = |header: BatchHeader| BatchHeader::parse(&header.encode()).unwrap_err();
        assert_eq!(refused(BatchHeader { batch_length: 48, ..header() }), BatchError::TooSmall { size: 60 });
        assert_eq!(
            refused(BatchHeader { batch_length: i32::MIN, ..header() }),
            BatchError::TooSmall { size: i64::from(i32::MIN) + 12 }
        );
        for wrong in [
            BatchHeader { base_offset: Offset(-1), ..header() },
            BatchHeader { base_offset: Offset(i64::MAX), ..header() },
            BatchHeader { base_offset: Offset(i64::MAX - 9), ..header() },
            BatchHeader { last_offset_delta: -1, records_count: 0, ..header() },
            BatchHeader { records_count: -1, ..header() },
            BatchHeader { records_count: 11, ..header() },
        ] {
            assert!(matches!(refused(wrong), BatchError::Header(_)), "{wrong:?}");
        }
    }

    #[test]
    fn a_cut_header_says_how_much_it_needs() {
        let bytes = header().encode();
        for len in 0..BatchHeader::LEN {
            let needed = if len < 17 { 17 } else { 1_012 };
            assert_eq!(
                BatchHeader::parse(&bytes[..len]),
                Err(BatchError::Incomplete { needed, have: len as u64 }),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn the_checksum_follows_a_changed_header_without_the_records() {
        for len in [0, 1, 7, 100, 65_536, 1_000_003] {
            let records: Vec<u8> = (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let mut before = BatchHeader { batch_length: len + 49, ..header() };
            before.crc = before.checksum_over(&records);
            let mut after = BatchHeader { max_timestamp: -1, attributes: 0x0c, ..before };
            after.carry_checksum_from(&before);
            assert_eq!(after.crc, after.checksum_over(&records), "{len} bytes of records");
        }
    }
}
