//! The check of a batch's every byte, once, before it may come near a log.
//!
//! It runs beside the core, without the topic: what depends on the topic's configuration or on the time is decided
//! later by [`CheckedBatch::fits_topic`], from facts that are collected here.

use super::checksum::verify_checksum;
use super::compression::{Codec, Encoder, Scratch};
use super::error::BatchError;
use super::header::{BatchHeader, NO_TIMESTAMP, TimestampType};
use super::record::{RecordFacts, walk_record};
use super::source::{Decompressed, Plain, Source};
use crate::ids::{LeaderEpoch, Offset};
use crate::io::Chunks;
use crate::time::WallMs;
use bytes::Bytes;
use smallvec::{SmallVec, smallvec};
use std::io::Write;

/// What a batch may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// What records may decompress to, whatever they came from. Default 256 MiB.
    pub decompressed_bytes_max: u64,
    /// How many times their compressed size records may decompress to, once they exceed
    /// `decompressed_bytes_free`. Default 1,000, which honest data of a repetitive kind stays below.
    pub expansion_max: u64,
    /// What any batch may decompress to. Default 8 MiB.
    pub decompressed_bytes_free: u64,
    /// KIP-110: whether the version of the request allows zstd. Default true.
    pub zstd_allowed: bool,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            decompressed_bytes_max: 256 << 20,
            expansion_max: 1_000,
            decompressed_bytes_free: 8 << 20,
            zstd_allowed: true,
        }
    }
}

impl BatchLimits {
    /// What `compressed_bytes` of records may decompress to.
    pub fn budget(&self, compressed_bytes: usize) -> u64 {
        let by_ratio = (compressed_bytes as u64).saturating_mul(self.expansion_max);
        by_ratio.max(self.decompressed_bytes_free).min(self.decompressed_bytes_max)
    }
}

/// The verdict on the records of one partition.
pub type Checked = Result<CheckedBatch, BatchError>;

/// How many records without a key are remembered: enough to say which, without a list of all.
pub(super) const KEYLESS_KEPT: usize = 4;

/// A batch that was checked in full: see the invariant in the [module's](super) documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedBatch {
    /// The whole batch as it arrived.
    bytes: Bytes,
    /// As it arrived, but for a max timestamp that was not the greatest of the records.
    header: BatchHeader,
    facts: BatchFacts,
}

/// What the check learned about the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchFacts {
    /// The greatest timestamp and the offset delta of the first record that has it. [`NO_TIMESTAMP`] and 0 where no
    /// record has one.
    pub max_timestamp: i64,
    pub max_timestamp_delta: i32,
    /// The least timestamp of those that have one, and the offset delta of the first record that has it.
    pub min_timestamp: i64,
    pub min_timestamp_delta: i32,
    /// The first few records without a key.
    pub records_without_key: SmallVec<[i32; KEYLESS_KEPT]>,
    /// The size of the records when decompressed.
    pub uncompressed_bytes: u64,
}

/// Checks what a producer sent for one partition, as Kafka's `LogValidator` and `DefaultRecordBatch` do: exactly one
/// batch of magic 2 with base offset 0 and no control batch, nothing after it, its checksum right; as many records as
/// its header says, of the sizes they say, with consecutive offsets, and nothing after them.
///
/// Stricter than Kafka, where its leniency would harm a reader: bytes after the batch, offset deltas that are not
/// consecutive, header keys that are not UTF-8, timestamps that overflow, lengths below -1, a delete horizon and
/// `LogAppendTime` from a producer are refused.
pub fn check_produced(bytes: Bytes, limits: &BatchLimits) -> Checked {
    check_produced_with(bytes, limits, &mut Scratch::default())
}

/// [`check_produced`] with memory from earlier checks.
pub fn check_produced_with(bytes: Bytes, limits: &BatchLimits, scratch: &mut Scratch) -> Checked {
    let header = one_batch(&bytes)?;
    if header.codec()? == Codec::Zstd && !limits.zstd_allowed {
        return Err(BatchError::ZstdNotAllowed);
    }
    verify_checksum(&bytes)?;
    from_producer(&header)?;
    check_records(bytes, header, limits, scratch)
}

/// Checks a batch of the broker's own making, such as one for the metadata log: any base offset, control batches
/// too. Otherwise like [`check_produced`].
pub fn check_own(bytes: Bytes, limits: &BatchLimits) -> Checked {
    check_own_with(bytes, limits, &mut Scratch::default())
}

/// [`check_own`] with memory from earlier checks.
pub fn check_own_with(bytes: Bytes, limits: &BatchLimits, scratch: &mut Scratch) -> Checked {
    let header = one_batch(&bytes)?;
    verify_checksum(&bytes)?;
    all_records_there(&header)?;
    check_records(bytes, header, limits, scratch)
}

/// The header of `bytes`, which must hold exactly one batch.
pub(super) fn one_batch(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let (size, have) = (header.size_bytes(), bytes.len());
    if have < size {
        return Err(BatchError::Incomplete { needed: size as u64, have: have as u64 });
    }
    if have > size {
        return Err(BatchError::TrailingBytes { bytes: (have - size) as u64 });
    }
    Ok(header)
}

fn all_records_there(header: &BatchHeader) -> Result<(), BatchError> {
    let (count, delta) = (header.records_count, header.last_offset_delta);
    if i64::from(count) != i64::from(delta) + 1 {
        return Err(BatchError::Header(format!("{count} records and a last offset delta of {delta}")));
    }
    Ok(())
}

fn from_producer(header: &BatchHeader) -> Result<(), BatchError> {
    let refuse = |text: String| Err(BatchError::Header(text));
    if header.base_offset != Offset::ZERO {
        return refuse(format!("the base offset of a produced batch is 0, and this is {}", header.base_offset));
    }
    all_records_there(header)?;
    if header.is_control() {
        return refuse("clients may not write control records".into());
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        let (sequence, id) = (header.base_sequence, header.producer_id);
        return refuse(format!("the base sequence {sequence} of producer {id} is negative"));
    }
    if header.delete_horizon().is_some() {
        return refuse("clients may not set a delete horizon".into());
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Err(BatchError::LogAppendTimeFromProducer);
    }
    Ok(())
}

fn check_records(bytes: Bytes, mut header: BatchHeader, limits: &BatchLimits, scratch: &mut Scratch) -> Checked {
    let records = &bytes[BatchHeader::LEN..];
    let facts = match header.codec()? {
        Codec::None => walk(Plain::new(records), &header)?,
        codec => {
            let (window, decoding) = scratch.parts();
            walk(Decompressed::new(codec, records, limits.budget(records.len()), window, decoding)?, &header)?
        }
    };
    if header.timestamp_type() == TimestampType::CreateTime && header.max_timestamp != facts.max_timestamp {
        // As Kafka does: the index by timestamp relies on it, and some clients do not care.
        let before = header;
        header.max_timestamp = facts.max_timestamp;
        header.carry_checksum_from(&before);
    }
    Ok(CheckedBatch { bytes, header, facts })
}

fn walk(mut source: impl Source, header: &BatchHeader) -> Result<BatchFacts, BatchError> {
    let mut facts = BatchFacts {
        max_timestamp: NO_TIMESTAMP,
        max_timestamp_delta: 0,
        min_timestamp: NO_TIMESTAMP,
        min_timestamp_delta: 0,
        records_without_key: SmallVec::new(),
        uncompressed_bytes: 0,
    };
    for index in 0..header.records_count {
        let refuse = |problem| BatchError::Record { index, problem };
        let record = walk_record(&mut source, index)?;
        if record.offset_delta != index {
            return Err(refuse("its offset delta is not its place in the batch"));
        }
        let Some(timestamp) = header.base_timestamp.checked_add(record.timestamp_delta) else {
            return Err(refuse("its timestamp is beyond 64 bits"));
        };
        facts.note(index, timestamp, &record);
    }
    if !source.finish()? {
        let problem = "bytes follow the last record";
        return Err(BatchError::Record { index: header.records_count, problem });
    }
    facts.uncompressed_bytes = source.total_bytes();
    Ok(facts)
}

impl BatchFacts {
    #[inline]
    fn note(&mut self, index: i32, timestamp: i64, record: &RecordFacts) {
        if timestamp > self.max_timestamp {
            (self.max_timestamp, self.max_timestamp_delta) = (timestamp, index);
        }
        if timestamp != NO_TIMESTAMP && (self.min_timestamp == NO_TIMESTAMP || timestamp < self.min_timestamp) {
            (self.min_timestamp, self.min_timestamp_delta) = (timestamp, index);
        }
        if !record.has_key && self.records_without_key.len() < KEYLESS_KEPT {
            self.records_without_key.push(index);
        }
    }
}

impl CheckedBatch {
    /// The header of the batch as it arrived, its max timestamp put right.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    pub fn facts(&self) -> &BatchFacts {
        &self.facts
    }

    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn records_count(&self) -> i32 {
        self.header.records_count
    }

    pub fn codec(&self) -> Codec {
        self.header.codec().expect("the check has used it")
    }

    pub fn has_record_without_key(&self) -> bool {
        !self.facts.records_without_key.is_empty()
    }

    /// The batch as it arrived; the max timestamp of its header may not be that of [`header`](Self::header).
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The header with which the batch enters a log: offsets from `base_offset`, the leader's epoch, and, where the
    /// topic's timestamps are the broker's, the time of the append (KIP-32).
    pub fn assigned_header(
        &self,
        base_offset: Offset,
        leader_epoch: LeaderEpoch,
        log_append_time: Option<WallMs>,
    ) -> BatchHeader {
        let count = i64::from(self.header.last_offset_delta) + 1;
        assert!(base_offset >= Offset::ZERO && base_offset.0.checked_add(count).is_some(), "offsets are positive");
        let mut header = BatchHeader { base_offset, leader_epoch, ..self.header };
        if let Some(now) = log_append_time {
            header.set_timestamp_type(TimestampType::LogAppendTime);
            header.max_timestamp = now.0;
            header.carry_checksum_from(&self.header);
        }
        header
    }

    /// The bytes with which the batch enters a log: a fresh header, and the records as they arrived.
    pub fn assign(&self, base_offset: Offset, leader_epoch: LeaderEpoch, log_append_time: Option<WallMs>) -> Chunks {
        self.with_header(&self.assigned_header(base_offset, leader_epoch, log_append_time))
    }

    /// The bytes of the batch under `header`, which is one of [`assigned_header`](Self::assigned_header).
    pub fn with_header(&self, header: &BatchHeader) -> Chunks {
        assert_eq!(header.size_bytes(), self.bytes.len(), "the header is this batch's");
        smallvec![Bytes::copy_from_slice(&header.encode()), self.bytes.slice(BatchHeader::LEN..)]
    }

    /// The same records under another codec, for a topic whose `compression.type` asks for it. Offsets, timestamps
    /// and the producer's numbers stay. The cost is that of the codecs; memory that of both compressed forms.
    pub fn recompress(&self, codec: Codec, level: i32) -> CheckedBatch {
        const CHECKED: &str = "a checked batch decompresses";
        let records = &self.bytes[BatchHeader::LEN..];
        let mut scratch = Scratch::default();
        let (window, decoding) = scratch.parts();
        let own = self.codec();
        let total = self.facts.uncompressed_bytes;
        let mut encoder = Encoder::new(codec, level, vec![0; BatchHeader::LEN], total);
        let mut source = Decompressed::new(own, records, total, window, decoding).expect(CHECKED);
        loop {
            let window = source.window(1).expect(CHECKED);
            if window.is_empty() {
                break;
            }
            encoder.write_all(window).expect("compressing into memory does not fail");
            let len = window.len();
            source.consume(len);
        }
        assert_eq!(source.total_bytes(), total, "the same bytes as when the batch was checked");
        let bytes = encoder.finish();
        let mut header = self.header;
        header.set_codec(codec);
        let bytes = seal(&mut header, bytes);
        CheckedBatch { bytes, header, facts: self.facts.clone() }
    }
}

/// Puts `header`, completed with the size and the checksum, into the place that `bytes` keeps free for it.
pub(super) fn seal(header: &mut BatchHeader, mut bytes: Vec<u8>) -> Bytes {
    header.batch_length = i32::try_from(bytes.len() - BatchHeader::LENGTH_PREFIX).expect("a batch is below 2 GiB");
    header.crc = header.checksum_over(&bytes[BatchHeader::LEN..]);
    bytes[..BatchHeader::LEN].copy_from_slice(&header.encode());
    bytes.into()
}
