//! Builds batches: those of a producer, and those that the broker writes into its internal logs.

use super::check::seal;
use super::compression::{Codec, Encoder};
use super::header::{BatchHeader, NO_SEQUENCE, NO_TIMESTAMP, TimestampType};
use super::varint::{put_varint, put_varlong, varint_len, varlong_len};
use bytes::Bytes;
use std::io::Write;
use tidelog_wire::ids::{LeaderEpoch, Offset, ProducerId};

/// Collects records and builds one batch of them. A new builder builds the batch of a producer that is not idempotent:
/// base offset 0, no leader epoch, not compressed.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    header: BatchHeader,
    codec: Codec,
    level: i32,
    /// Room for the header, then the records, uncompressed.
    bytes: Vec<u8>,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    pub fn new() -> Self {
        let header = BatchHeader {
            base_offset: Offset::ZERO,
            batch_length: 0,
            leader_epoch: LeaderEpoch::UNKNOWN,
            crc: 0,
            attributes: 0,
            last_offset_delta: -1,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            producer_id: ProducerId::NONE,
            producer_epoch: -1,
            base_sequence: NO_SEQUENCE,
            records_count: 0,
        };
        Self { header, codec: Codec::None, level: 0, bytes: vec![0; BatchHeader::LEN] }
    }

    /// Sets the base offset and the leader epoch, for a batch to which no leader will assign them.
    pub fn at(mut self, base_offset: Offset, leader_epoch: LeaderEpoch) -> Self {
        (self.header.base_offset, self.header.leader_epoch) = (base_offset, leader_epoch);
        self
    }

    pub fn compressed(mut self, codec: Codec, level: i32) -> Self {
        (self.codec, self.level) = (codec, level);
        self
    }

    /// An idempotent producer's batch (KIP-98).
    pub fn producer(mut self, id: ProducerId, epoch: i16, base_sequence: i32) -> Self {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    pub fn transactional(mut self) -> Self {
        self.header.set_transactional();
        self
    }

    /// A batch of control records.
    pub fn control(mut self) -> Self {
        self.header.set_control();
        self
    }

    pub fn is_empty(&self) -> bool {
        self.header.records_count == 0
    }

    pub fn records_count(&self) -> i32 {
        self.header.records_count
    }

    /// The size of the batch with the records so far, uncompressed.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a record at the next offset. `timestamp` is in milliseconds since 1970 or [`NO_TIMESTAMP`]. Its difference
    /// to the first timestamp of the batch must fit into 64 bits.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> &mut Self {
        if self.is_empty() {
            self.header.base_timestamp = timestamp;
        }
        let offset_delta = self.header.last_offset_delta.checked_add(1).expect("a batch holds fewer records");
        let delta = timestamp.checked_sub(self.header.base_timestamp).expect("timestamps within 64 bits of the first");
        let length = 1
            + varlong_len(delta)
            + varint_len(offset_delta)
            + field_len(key)
            + field_len(value)
            + varint_len(length(headers.len()))
            + headers.iter().map(|(key, value)| field_len(Some(key.as_bytes())) + field_len(*value)).sum::<usize>();
        let out = &mut self.bytes;
        put_varint(out, self::length(length));
        out.push(0);
        put_varlong(out, delta);
        put_varint(out, offset_delta);
        put_field(out, key);
        put_field(out, value);
        put_varint(out, self::length(headers.len()));
        for (key, value) in headers {
            put_field(out, Some(key.as_bytes()));
            put_field(out, *value);
        }
        self.header.last_offset_delta = offset_delta;
        self.header.records_count += 1;
        self.header.max_timestamp = self.header.max_timestamp.max(timestamp);
        self
    }

    /// Gives the batch and leaves a new builder behind. Panics without a record, because no log takes an empty batch.
    pub fn build(&mut self) -> Bytes {
        assert!(!self.is_empty(), "a batch has at least one record");
        let mut made = std::mem::take(self);
        if made.codec != Codec::None {
            let records = &made.bytes[BatchHeader::LEN..];
            let mut encoder = Encoder::new(made.codec, made.level, vec![0; BatchHeader::LEN], records.len() as u64);
            encoder.write_all(records).expect("compressing into memory does not fail");
            made.bytes = encoder.finish();
        }
        made.header.set_codec(made.codec);
        made.header.set_timestamp_type(TimestampType::CreateTime);
        seal(&mut made.header, made.bytes)
    }
}

fn length(len: usize) -> i32 {
    i32::try_from(len).expect("a batch is below 2 GiB")
}

fn field_len(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| varint_len(length(bytes.len())) + bytes.len())
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    put_varint(out, field.map_or(-1, |bytes| length(bytes.len())));
    out.extend_from_slice(field.unwrap_or_default());
}
