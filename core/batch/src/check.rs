//! Checks every byte of a batch, once, before a log may take the batch.
//!
//! The check runs on the connection's thread, outside of the broker's state machine, and does not know the topic. Rules
//! that depend on the topic's configuration or on the time are applied later, by [`CheckedBatch::fits_topic`], to the
//! facts that the check collects.

use super::checksum::verify_checksum;
use super::compression::{Codec, Encoder, Scratch};
use super::error::BatchError;
use super::header::{BatchHeader, NO_TIMESTAMP, TimestampType, i32_at};
use super::record::{RecordFacts, walk_record};
use super::scan::{Scan, ScanStop};
use super::source::{Decompressed, Plain, Source};
use crate::Chunks;
use bytes::Bytes;
use smallvec::smallvec;
use std::io::Write;
use tidelog_wire::ids::{LeaderEpoch, Offset};
use tidelog_wire::time::WallMs;

/// What one batch may cost, and what its request allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// `produce.decompressed.bytes.max`: the most bytes that the records of a batch may decompress to, however few
    /// compressed bytes they have. Default 256 MiB.
    pub decompressed_bytes_max: u64,
    /// KIP-110: whether the version of the request allows zstd. Default true.
    pub zstd_allowed: bool,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { decompressed_bytes_max: 256 << 20, zstd_allowed: true }
    }
}

/// The verdict on one batch.
pub type Checked = Result<CheckedBatch, BatchError>;

/// A batch that was checked: see the invariant in the [module's](super) documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedBatch {
    /// The whole batch, as it arrived or as [`recompress`](Self::recompress) has made it.
    bytes: Bytes,
    /// The header of `bytes`, but with the right max timestamp, and the checksum for it, if the header had a wrong one.
    header: BatchHeader,
    facts: BatchFacts,
    origin: Origin,
}

/// Who has made a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The topic decides whose timestamps it has, whatever its own timestamp type is.
    Producer,
    ThisBroker,
    /// Its records were checked by the leader, and not here.
    Leader,
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
    /// The place of the first record without a key.
    pub first_without_key: Option<i32>,
    /// The size of the records when decompressed.
    pub uncompressed_bytes: u64,
}

/// Checks what a producer sent for one partition, as Kafka's `LogValidator` and `DefaultRecordBatch` do. It must be
/// exactly one batch of magic 2 with base offset 0 and a right checksum, which is not a control batch. The batch must
/// hold as many records as its header says, each of the size that it claims, with consecutive offsets, and nothing
/// after the records.
///
/// The check is stricter than Kafka's where a reader would suffer otherwise. It refuses offset deltas that are not
/// consecutive, timestamps that overflow, lengths below -1, and a delete horizon from a producer. As in Kafka, bytes
/// after the batch that are no whole batch are cut off.
pub fn check_produced(bytes: Bytes, limits: &BatchLimits) -> Checked {
    check_produced_with(bytes, limits, &mut Scratch::default())
}

/// [`check_produced`] with memory from earlier checks.
pub fn check_produced_with(bytes: Bytes, limits: &BatchLimits, scratch: &mut Scratch) -> Checked {
    let (bytes, header) = first_batch(bytes)?;
    if header.codec() == Ok(Codec::Zstd) && !limits.zstd_allowed {
        return Err(BatchError::ZstdNotAllowed);
    }
    verify_checksum(&bytes)?;
    header.codec()?;
    from_producer(&header)?;
    let checked = check_records(bytes, header, limits, scratch)?;
    Ok(CheckedBatch { origin: Origin::Producer, ..checked })
}

/// Checks a batch that the broker itself has built. Unlike [`check_produced`], it
/// allows any base offset, and control batches.
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

/// Checks what a leader has answered for one partition: batches one after the other, the last of which may be cut. Gives
/// the whole ones. The first that is damaged is the last verdict.
///
/// Only headers and checksums are checked, as Kafka does: the leader has checked the records, and compaction may have
/// removed some of them. So facts that only the records tell are taken from the header: all timestamps lie between the
/// two of the header, and the record with the greatest is the last.
pub fn check_replicated(bytes: &Bytes) -> Vec<Checked> {
    let mut scan = Scan::new(bytes, 0, true);
    let mut verdicts: Vec<Checked> =
        scan.by_ref().map(|found| from_leader(bytes.slice_ref(found.bytes), found.header)).collect();
    match scan.stop().expect("the walk is over") {
        ScanStop::End | ScanStop::Incomplete { .. } => {}
        ScanStop::Zeros if scan.rest().len() < BatchHeader::LEN => {}
        ScanStop::Zeros => verdicts.push(Err(BatchError::TooSmall { size: BatchHeader::LENGTH_PREFIX as i64 })),
        ScanStop::Damaged(error) => verdicts.push(Err(error.clone())),
    }
    verdicts
}

fn from_leader(bytes: Bytes, header: BatchHeader) -> Checked {
    header.codec()?;
    let min_timestamp = match header.timestamp_type() {
        TimestampType::CreateTime => header.base_timestamp.min(header.max_timestamp),
        TimestampType::LogAppendTime => header.max_timestamp,
    };
    let facts = BatchFacts {
        max_timestamp: header.max_timestamp,
        max_timestamp_delta: header.last_offset_delta,
        min_timestamp,
        min_timestamp_delta: 0,
        first_without_key: None,
        uncompressed_bytes: (bytes.len() - BatchHeader::LEN) as u64,
    };
    Ok(CheckedBatch { bytes, header, facts, origin: Origin::Leader })
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

/// The one batch in `bytes`, without bytes after it that are no whole batch.
fn first_batch(bytes: Bytes) -> Result<(Bytes, BatchHeader), BatchError> {
    /// The size that the oldest format has at least, which Kafka compares every size with.
    const SIZE_MIN: i64 = 26;
    let header = BatchHeader::parse(&bytes)?;
    let size = header.size_bytes();
    if bytes.len() <= size {
        return one_batch(&bytes).map(|header| (bytes, header));
    }
    let rest = &bytes[size..];
    if rest.len() >= BatchHeader::LENGTH_PREFIX {
        let next = i64::from(i32_at(rest, 8)) + BatchHeader::LENGTH_PREFIX as i64;
        if next < SIZE_MIN {
            return Err(BatchError::TooSmall { size: next });
        }
        if let Some(&magic) = rest.get(16) {
            if magic > 2 {
                return Err(BatchError::Magic(magic as i8));
            }
            if rest.len() as i64 >= next {
                return Err(BatchError::TrailingBytes { bytes: rest.len() as u64 });
            }
        }
    }
    Ok((bytes.slice(..size), header))
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
    Ok(())
}

fn check_records(bytes: Bytes, mut header: BatchHeader, limits: &BatchLimits, scratch: &mut Scratch) -> Checked {
    let records = &bytes[BatchHeader::LEN..];
    let facts = match header.codec()? {
        Codec::None => walk(Plain::new(records), &header)?,
        codec => {
            let (window, decoding) = scratch.parts();
            walk(Decompressed::new(codec, records, limits.decompressed_bytes_max, window, decoding)?, &header)?
        }
    };
    if header.timestamp_type() == TimestampType::CreateTime && header.max_timestamp != facts.max_timestamp {
        // As Kafka does: the time index relies on the max timestamp, and some clients send a wrong one.
        let before = header;
        header.max_timestamp = facts.max_timestamp;
        header.carry_checksum_from(&before);
    }
    Ok(CheckedBatch { bytes, header, facts, origin: Origin::ThisBroker })
}

fn walk(mut source: impl Source, header: &BatchHeader) -> Result<BatchFacts, BatchError> {
    let mut facts = BatchFacts {
        max_timestamp: NO_TIMESTAMP,
        max_timestamp_delta: 0,
        min_timestamp: NO_TIMESTAMP,
        min_timestamp_delta: 0,
        first_without_key: None,
        uncompressed_bytes: 0,
    };
    each_record(&mut source, header, |index, timestamp, record| {
        facts.note(index, timestamp, record);
        true
    })?;
    if !source.finish()? {
        let problem = "bytes follow the last record";
        return Err(BatchError::Record { index: header.records_count, problem });
    }
    facts.uncompressed_bytes = source.total_bytes();
    Ok(facts)
}

/// Calls `each` with every record's place and timestamp, until it returns `false`.
#[inline]
fn each_record(
    source: &mut impl Source,
    header: &BatchHeader,
    mut each: impl FnMut(i32, i64, &RecordFacts) -> bool,
) -> Result<(), BatchError> {
    for index in 0..header.records_count {
        let refuse = |problem| BatchError::Record { index, problem };
        let record = walk_record(source, index)?;
        if record.offset_delta != index {
            return Err(refuse("its offset delta is not its place in the batch"));
        }
        let Some(timestamp) = header.base_timestamp.checked_add(record.timestamp_delta) else {
            return Err(refuse("its timestamp is beyond 64 bits"));
        };
        if !each(index, timestamp, &record) {
            break;
        }
    }
    Ok(())
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
        if !record.has_key && self.first_without_key.is_none() {
            self.first_without_key = Some(index);
        }
    }
}

impl CheckedBatch {
    /// The header of the batch. A wrong max timestamp is corrected in it.
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
        self.header.codec().expect("the check refuses unknown codecs")
    }

    pub fn has_record_without_key(&self) -> bool {
        self.facts.first_without_key.is_some()
    }

    /// The whole batch. The max timestamp of its header may differ from that of [`header`](Self::header).
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Calls `each` with the place and the timestamp of every record and whether it has a key, until it returns
    /// `false`.
    pub(super) fn each_record(&self, mut each: impl FnMut(i32, i64, bool) -> bool) {
        const CHECKED: &str = "a checked batch can be walked again";
        assert_ne!(self.origin, Origin::Leader, "the records of a replicated batch were not checked");
        let records = &self.bytes[BatchHeader::LEN..];
        let each = |index, timestamp, record: &RecordFacts| each(index, timestamp, record.has_key);
        match self.codec() {
            Codec::None => each_record(&mut Plain::new(records), &self.header, each),
            codec => {
                let mut scratch = Scratch::default();
                let (window, decoding) = scratch.parts();
                let total = self.facts.uncompressed_bytes;
                let mut source = Decompressed::new(codec, records, total, window, decoding).expect(CHECKED);
                each_record(&mut source, &self.header, each)
            }
        }
        .expect(CHECKED);
    }

    /// The header with which the batch is appended: with offsets from `base_offset` on, with the leader's epoch, and
    /// with the time of the append if the topic has `LogAppendTime` (KIP-32).
    pub fn assigned_header(
        &self,
        base_offset: Offset,
        leader_epoch: LeaderEpoch,
        log_append_time: Option<WallMs>,
    ) -> BatchHeader {
        let count = i64::from(self.header.last_offset_delta) + 1;
        assert!(
            base_offset >= Offset::ZERO && base_offset.0.checked_add(count).is_some(),
            "offsets are at least 0 and do not overflow"
        );
        let mut header = BatchHeader { base_offset, leader_epoch, ..self.header };
        if let Some(now) = log_append_time {
            header.set_timestamp_type(TimestampType::LogAppendTime);
            header.max_timestamp = now.0;
            header.carry_checksum_from(&self.header);
        } else if self.origin == Origin::Producer && header.timestamp_type() == TimestampType::LogAppendTime {
            // As Kafka does: a producer may have set the bit, and the topic keeps the producer's timestamps.
            header.set_timestamp_type(TimestampType::CreateTime);
            header.max_timestamp = self.facts.max_timestamp;
            header.carry_checksum_from(&self.header);
        }
        header
    }

    /// The bytes with which the batch is appended: a new header, and the records as they arrived.
    pub fn assign(&self, base_offset: Offset, leader_epoch: LeaderEpoch, log_append_time: Option<WallMs>) -> Chunks {
        self.with_header(&self.assigned_header(base_offset, leader_epoch, log_append_time))
    }

    /// The bytes of the batch under `header`, which is one of [`assigned_header`](Self::assigned_header).
    pub fn with_header(&self, header: &BatchHeader) -> Chunks {
        assert_eq!(header.size_bytes(), self.bytes.len(), "the header is this batch's");
        smallvec![Bytes::copy_from_slice(&header.encode()), self.bytes.slice(BatchHeader::LEN..)]
    }

    /// The same records under another codec, for a topic whose `compression.type` asks for it. Offsets, timestamps and
    /// the producer's numbers stay. It needs the memory of both compressed forms, and not that of the decompressed
    /// records.
    pub fn recompress(&self, codec: Codec, level: i32) -> CheckedBatch {
        const CHECKED: &str = "a checked batch decompresses";
        assert_ne!(self.origin, Origin::Leader, "the records of a replicated batch were not checked");
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
        CheckedBatch { bytes, header, facts: self.facts.clone(), origin: self.origin }
    }
}

/// Sets the size and the checksum in `header`, and writes it into the first 61 bytes of `bytes`, which are reserved for
/// it.
pub(super) fn seal(header: &mut BatchHeader, mut bytes: Vec<u8>) -> Bytes {
    header.batch_length = i32::try_from(bytes.len() - BatchHeader::LENGTH_PREFIX).expect("a batch is below 2 GiB");
    header.crc = header.checksum_over(&bytes[BatchHeader::LEN..]);
    bytes[..BatchHeader::LEN].copy_from_slice(&header.encode());
    bytes.into()
}
