//! One record of a batch: checking it (the walk), and reading it back (the iterator).
//!
//! ```text
//! length varint │ attributes i8 │ timestamp delta varlong │ offset delta varint
//! │ key length varint, key │ value length varint, value
//! │ header count varint │ { key length varint, key │ value length varint, value }*
//! ```
//!
//! A length of -1 means null. The key of a header is never null. The attributes are unused.

use super::check::{BatchLimits, one_batch};
use super::compression::{Codec, Scratch, decompress};
use super::error::BatchError;
use super::header::{BatchHeader, TimestampType};
use super::source::{Decompressed, Plain, Source, WINDOW_MIN};
use super::varint::{Fields, Malformed};
use bytes::Bytes;
use bytestring::ByteString;
use tidelog_wire::ids::Offset;

/// What the check needs to know of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordFacts {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) has_key: bool,
}

/// The most bytes that the length, the attributes, the deltas and the key's length take together.
const HEAD_MAX: usize = 5 + 1 + 10 + 5 + 5;
const _: () = assert!(HEAD_MAX <= WINDOW_MIN);

const TOO_LONG: &str = "it claims more bytes than there are";
const OUT_OF_BOUNDS: &str = "its fields are longer than the record";
const BAD_LENGTH: &str = "a length is below -1";

/// The rest of a record: the bytes that its length claims and that have not been passed over.
struct Body<'s, S> {
    source: &'s mut S,
    left: usize,
    index: i32,
}

/// Passes over one record and checks its structure.
#[inline]
pub(super) fn walk_record<S: Source>(source: &mut S, index: i32) -> Result<RecordFacts, BatchError> {
    if let Ok(Some((facts, bytes))) = plain_record(source.window(HEAD_MAX)?) {
        source.consume(bytes);
        return Ok(facts);
    }
    walk_any_record(source, index)
}

/// Reads the common case: a well-formed record without headers that lies in the window as a whole. Also gives the
/// number of bytes it takes. An error, like `None`, only means that this is not the common case.
#[inline(always)]
fn plain_record(window: &[u8]) -> Result<Option<(RecordFacts, usize)>, Malformed> {
    let mut fields = Fields::new(window);
    let length = fields.varint()?;
    let start = fields.read_bytes();
    fields.byte()?;
    let timestamp_delta = fields.varlong()?;
    let offset_delta = fields.varint()?;
    let key_len = fields.varint()?;
    fields.pass(key_len)?;
    let value_len = fields.varint()?;
    fields.pass(value_len)?;
    let headers = fields.varint()?;
    let bytes = fields.read_bytes();
    let whole = headers == 0 && usize::try_from(length).is_ok_and(|length| length == bytes - start);
    Ok(whole.then_some((RecordFacts { timestamp_delta, offset_delta, has_key: key_len >= 0 }, bytes)))
}

/// Passes over any record, or says what is wrong with it.
fn walk_any_record<S: Source>(source: &mut S, index: i32) -> Result<RecordFacts, BatchError> {
    let malformed = |malformed: Malformed| BatchError::Record { index, problem: malformed.text() };
    let mut head = Fields::new(source.window(HEAD_MAX)?);
    let length = head.varint().map_err(malformed)?;
    let length_bytes = head.read_bytes();
    head.byte().map_err(malformed)?;
    let timestamp_delta = head.varlong().map_err(malformed)?;
    let offset_delta = head.varint().map_err(malformed)?;
    let key_len = head.varint().map_err(malformed)?;
    let head_bytes = head.read_bytes();
    source.consume(head_bytes);

    let left = usize::try_from(length).ok().and_then(|length| length.checked_sub(head_bytes - length_bytes));
    let Some(left) = left else {
        return Err(BatchError::Record { index, problem: OUT_OF_BOUNDS });
    };
    let mut body = Body { source, left, index };
    body.skip(key_len)?;
    let value_len = body.varint()?;
    body.skip(value_len)?;
    let headers = body.varint()?;
    body.headers(headers)?;
    if body.left != 0 {
        return Err(body.refuse("it is longer than its fields"));
    }
    Ok(RecordFacts { timestamp_delta, offset_delta, has_key: key_len >= 0 })
}

impl<S: Source> Body<'_, S> {
    #[cold]
    fn refuse(&self, problem: &'static str) -> BatchError {
        BatchError::Record { index: self.index, problem }
    }

    #[inline]
    fn varint(&mut self) -> Result<i32, BatchError> {
        let mut fields = Fields::new(self.source.window(5)?);
        let value = fields.varint();
        let bytes = fields.read_bytes();
        match (value, self.left.checked_sub(bytes)) {
            (Ok(value), Some(left)) => {
                self.left = left;
                self.source.consume(bytes);
                Ok(value)
            }
            (Ok(_), None) => Err(self.refuse(OUT_OF_BOUNDS)),
            (Err(malformed), _) => Err(self.refuse(malformed.text())),
        }
    }

    /// Passes over a field of `len` bytes, -1 for null.
    #[inline]
    fn skip(&mut self, len: i32) -> Result<(), BatchError> {
        if len < 0 {
            return if len == -1 { Ok(()) } else { Err(self.refuse(BAD_LENGTH)) };
        }
        self.take(len as usize)?;
        if self.source.skip(len as usize)? { Ok(()) } else { Err(self.refuse(TOO_LONG)) }
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<(), BatchError> {
        self.left = self.left.checked_sub(len).ok_or_else(|| self.refuse(OUT_OF_BOUNDS))?;
        Ok(())
    }

    #[inline(never)]
    fn headers(&mut self, count: i32) -> Result<(), BatchError> {
        if count < 0 {
            return Err(self.refuse("the number of its headers is negative"));
        }
        // A count that is too great fails when the bytes of the record end.
        for _ in 0..count {
            let key_len = self.varint()?;
            if key_len < 0 {
                return Err(self.refuse("the key of a header is null"));
            }
            self.take(key_len as usize)?;
            if !self.source.skip(key_len as usize)? {
                return Err(self.refuse(TOO_LONG));
            }
            let value_len = self.varint()?;
            self.skip(value_len)?;
        }
        Ok(())
    }
}

/// A record as it is read back. Its bytes are slices of the batch, or of what the batch decompressed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub offset: Offset,
    /// Milliseconds since 1970, or [`NO_TIMESTAMP`](super::NO_TIMESTAMP).
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// In the order of the record. Several headers may have the same key (KIP-82).
    pub headers: Vec<RecordHeader>,
}

/// A header of a record (KIP-82).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Kafka's brokers take any bytes. What is not UTF-8 reads as U+FFFD, as in the Java client.
    pub key: ByteString,
    pub value: Option<Bytes>,
}

/// Reads the records of one batch back, in order. An error is the last item.
#[derive(Clone, Debug)]
pub struct RecordIter {
    header: BatchHeader,
    /// The records, decompressed.
    records: Bytes,
    at: usize,
    index: i32,
    last_delta: i32,
}

/// The records of `batch`, which holds exactly one batch and may have been compacted. The checksum is not looked at;
/// everything else is as strict as [`check_produced`](super::check_produced). Compressed records are decompressed
/// here, within `limits`.
pub fn records(batch: &Bytes, limits: &BatchLimits) -> Result<RecordIter, BatchError> {
    let header = one_batch(batch)?;
    let records = batch.slice(BatchHeader::LEN..);
    let records = match header.codec()? {
        Codec::None => records,
        // A batch that compaction has emptied has nothing to decompress.
        _ if header.records_count == 0 => records,
        codec => decompress(codec, &records, limits.decompressed_bytes_max, &mut Scratch::default())?.into(),
    };
    Ok(RecordIter { header, records, at: 0, index: 0, last_delta: -1 })
}

/// The offset and the timestamp of the first record of `batch` for which `wanted` is true. It decompresses as a stream,
/// so that it needs little memory, whatever the batch decompresses to.
pub fn find_record(
    batch: &Bytes,
    wanted: impl FnMut(Offset, i64) -> bool,
) -> Result<Option<(Offset, i64)>, BatchError> {
    let header = one_batch(batch)?;
    let records = &batch[BatchHeader::LEN..];
    let mut scratch = Scratch::default();
    let (window, decoding) = scratch.parts();
    match header.codec()? {
        Codec::None => find_in(Plain::new(records), &header, wanted),
        _ if header.records_count == 0 => Ok(None),
        codec => find_in(Decompressed::new(codec, records, u64::MAX, window, decoding)?, &header, wanted),
    }
}

fn find_in(
    mut source: impl Source,
    header: &BatchHeader,
    mut wanted: impl FnMut(Offset, i64) -> bool,
) -> Result<Option<(Offset, i64)>, BatchError> {
    for index in 0..header.records_count {
        let facts = walk_record(&mut source, index)?;
        let (offset, timestamp) = place_of(&facts, header, index)?;
        if wanted(offset, timestamp) {
            return Ok(Some((offset, timestamp)));
        }
    }
    Ok(None)
}

/// The offset and the timestamp of a record.
fn place_of(facts: &RecordFacts, header: &BatchHeader, index: i32) -> Result<(Offset, i64), BatchError> {
    let timestamp = match header.timestamp_type() {
        TimestampType::LogAppendTime => header.max_timestamp,
        TimestampType::CreateTime => {
            let sum = header.base_timestamp.checked_add(facts.timestamp_delta);
            sum.ok_or(BatchError::Record { index, problem: "its timestamp is beyond 64 bits" })?
        }
    };
    Ok((header.base_offset + i64::from(facts.offset_delta), timestamp))
}

impl RecordIter {
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    fn read(&mut self) -> Result<Record, BatchError> {
        let index = self.index;
        let refuse = |problem| BatchError::Record { index, problem };
        // The walk checks all bounds, so that the slices below are known to be inside the batch.
        let rest = &self.records[self.at..];
        let mut source = Plain::new(rest);
        let facts = walk_record(&mut source, index)?;
        let end = self.records.len() - source.window(0)?.len();
        if facts.offset_delta <= self.last_delta || facts.offset_delta > self.header.last_offset_delta {
            return Err(refuse("its offset delta is out of order or beyond the last"));
        }
        let (offset, timestamp) = place_of(&facts, &self.header, index)?;
        let mut slices = Slices { bytes: self.records.slice(self.at..end), at: 0 };
        let (key, value, headers) = slices.fields();
        self.at = end;
        self.last_delta = facts.offset_delta;
        Ok(Record { offset, timestamp, key, value, headers })
    }
}

impl Iterator for RecordIter {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index == self.header.records_count {
            if self.at == self.records.len() {
                return None;
            }
            self.at = self.records.len();
            let problem = "bytes follow the last record";
            return Some(Err(BatchError::Record { index: self.index, problem }));
        }
        let record = self.read();
        match record {
            Ok(_) => self.index += 1,
            Err(_) => {
                self.index = self.header.records_count;
                self.at = self.records.len();
            }
        }
        Some(record)
    }
}

/// Slices the fields out of the bytes of one record that was walked.
struct Slices {
    bytes: Bytes,
    at: usize,
}

impl Slices {
    fn fields(&mut self) -> (Option<Bytes>, Option<Bytes>, Vec<RecordHeader>) {
        self.number(|fields| fields.varint().map(i64::from));
        self.at += 1;
        self.number(|fields| fields.varlong());
        self.number(|fields| fields.varint().map(i64::from));
        let (key, value) = (self.field(), self.field());
        let count = self.number(|fields| fields.varint().map(i64::from));
        let headers = (0..count).map(|_| {
            let key = self.field().expect("the walk found a key");
            let key =
                ByteString::try_from(key.clone()).unwrap_or_else(|_| String::from_utf8_lossy(&key).into_owned().into());
            RecordHeader { key, value: self.field() }
        });
        (key, value, headers.collect())
    }

    fn number(&mut self, read: impl FnOnce(&mut Fields<'_>) -> Result<i64, Malformed>) -> i64 {
        let mut fields = Fields::new(&self.bytes[self.at..]);
        let value = read(&mut fields).expect("the walk has read this number");
        self.at += fields.read_bytes();
        value
    }

    fn field(&mut self) -> Option<Bytes> {
        let len = usize::try_from(self.number(|fields| fields.varint().map(i64::from))).ok()?;
        self.at += len;
        Some(self.bytes.slice(self.at - len..self.at))
    }
}
