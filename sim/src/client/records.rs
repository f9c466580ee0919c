//! Encodes and decodes the record batches of simulated clients, with `kafka-protocol` and the compression crates, and
//! without the broker's own codec.
//!
//! Every byte of a record follows from its value's number, so a reader can check the whole record.

use crate::history::ValueId;
use crate::random::stream;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record, RecordBatchDecoder,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};

/// A codec of Kafka's, in the order of its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    fn wire(self) -> Compression {
        match self {
            Codec::None => Compression::None,
            Codec::Gzip => Compression::Gzip,
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        }
    }
}

/// Makes the record of each value.
#[derive(Clone, Copy, Debug)]
pub struct Payloads {
    pub seed: u64,
    pub value_bytes_max: u32,
}

/// The producer id and epoch of an idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub producer_id: i64,
    pub epoch: i16,
}

/// A record as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub offset: i64,
    pub timestamp: i64,
    pub is_log_append_time: bool,
    pub value: ValueId,
    /// The size of its batch in bytes if this is the last record of the batch, otherwise 0.
    pub batch_bytes: u32,
    pub leader_epoch: i32,
}

/// Why bytes that were read are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The checksum is wrong, or they do not decode.
    Damaged(String),
    /// The checksum is right, and they are not what a client sent.
    Wrong(String),
}

/// What a record holds, in the form in which the product's own producer takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub key: Option<Bytes>,
    pub value: Bytes,
    pub headers: Vec<(String, Option<Bytes>)>,
}

impl Payloads {
    /// The content of a value's record.
    pub fn content(&self, id: ValueId) -> Content {
        let Record { key, value, headers, .. } = self.record(id);
        let headers = headers.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        Content { key, value: value.expect("every record has a value"), headers }
    }

    fn record(&self, id: ValueId) -> Record {
        let mut stream = stream(self.seed, "record", &[id.0]);
        let filler = stream.skewed(u64::from(self.value_bytes_max)) as usize;
        let mut value = BytesMut::with_capacity(8 + filler);
        value.put_u64(id.0);
        if stream.one_in(2) {
            value.put_bytes(stream.draw() as u8, filler);
        } else {
            // Random bytes, cheaply made, which no codec can compress.
            let mut noise = stream.draw() | 1;
            for _ in 0..filler {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                value.put_u8((noise >> 56) as u8);
            }
        }
        let key = match stream.below(3) {
            0 => None,
            1 => Some(Bytes::new()),
            _ => Some(Bytes::copy_from_slice(&id.0.to_le_bytes())),
        };
        let mut headers = IndexMap::new();
        for header in 0..stream.below(3) {
            let content = stream.one_in(2).then(|| Bytes::copy_from_slice(&stream.draw().to_be_bytes()));
            headers.insert(StrBytes::from_string(format!("header-{header}")), content);
        }
        Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            timestamp_type: TimestampType::Creation,
            offset: 0,
            sequence: NO_SEQUENCE,
            timestamp: 0,
            key,
            value: Some(value.freeze()),
            headers,
        }
    }

    /// One batch with these values. `identity` is the producer's identity and the batch's first sequence.
    pub fn encode(
        &self,
        values: &[ValueId],
        timestamps: &[i64],
        codec: Codec,
        identity: Option<(Identity, i32)>,
    ) -> Bytes {
        let records: Vec<Record> = values
            .iter()
            .zip(timestamps)
            .enumerate()
            .map(|(delta, (id, timestamp))| {
                let mut record = self.record(*id);
                record.offset = delta as i64;
                record.timestamp = *timestamp;
                record.sequence = delta as i32 - 1;
                if let Some((identity, base_sequence)) = identity {
                    record.producer_id = identity.producer_id;
                    record.producer_epoch = identity.epoch;
                    record.sequence = base_sequence.wrapping_add(delta as i32);
                }
                record
            })
            .collect();
        let options = RecordEncodeOptions { version: 2, compression: codec.wire() };
        let mut out = BytesMut::new();
        RecordBatchEncoder::encode_with_custom_compression(
            &mut out,
            &records,
            &options,
            Some(|plain: &mut BytesMut, out: &mut BytesMut, codec| {
                compress(plain, codec, out);
                Ok(())
            }),
        )
        .expect("a client's batch encodes");
        out.freeze()
    }

    /// The records of a Fetch response, batch by batch; a batch that the response cuts off is left out.
    pub fn decode(&self, mut bytes: Bytes) -> Result<Vec<Seen>, Unreadable> {
        let mut seen = Vec::new();
        while let Some(batch) = next_batch(&mut bytes).map_err(Unreadable::Damaged)? {
            let is_log_append_time = batch[22] & 8 != 0;
            let max_timestamp = i64::from_be_bytes(batch[35..43].try_into().expect("eight bytes"));
            let base_offset = i64::from_be_bytes(batch[..8].try_into().expect("eight bytes"));
            let leader_epoch = i32::from_be_bytes(batch[12..16].try_into().expect("four bytes"));
            let last_delta = i32::from_be_bytes(batch[23..27].try_into().expect("four bytes"));
            let set = RecordBatchDecoder::decode_with_custom_compression(
                &mut batch.clone(),
                Some(|bytes: &mut Bytes, codec| {
                    decompress(bytes, codec).ok_or_else(|| std::io::Error::other("does not decompress").into())
                }),
            )
            .map_err(|error| Unreadable::Damaged(format!("the batch at offset {base_offset}: {error}")))?;
            if set.records.len() as i64 != i64::from(last_delta) + 1 {
                return Err(Unreadable::Wrong(format!(
                    "the batch at offset {base_offset} ends with delta {last_delta} and holds {} records",
                    set.records.len()
                )));
            }
            for record in set.records {
                let value = self.recognise(&record).map_err(Unreadable::Wrong)?;
                let timestamp = if is_log_append_time { max_timestamp } else { record.timestamp };
                let offset = record.offset;
                seen.push(Seen { offset, timestamp, is_log_append_time, value, batch_bytes: 0, leader_epoch });
            }
            if let Some(last) = seen.last_mut() {
                last.batch_bytes = batch.len() as u32;
            }
        }
        Ok(seen)
    }

    /// The value of a record that the product's own consumer has read; an error if any byte of the record is not what
    /// was sent.
    pub fn value_of(&self, record: &tidelog_core::batch::Record) -> Result<ValueId, String> {
        let at = record.offset;
        let id = record.value.as_ref().and_then(|value| value.get(..8)).ok_or(format!("the value at {at} is cut"))?;
        let id = ValueId(u64::from_be_bytes(id.try_into().expect("eight bytes")));
        let sent = self.content(id);
        let headers = record.headers.iter().map(|header| (&header.key[..], &header.value));
        let same_headers = headers.eq(sent.headers.iter().map(|(name, value)| (&name[..], value)));
        if record.value.as_ref() == Some(&sent.value) && record.key == sent.key && same_headers {
            Ok(id)
        } else {
            Err(format!("the record at {at} is not what was sent as {id}"))
        }
    }

    /// The value of a record; an error if any byte of the record is not what was sent.
    fn recognise(&self, record: &Record) -> Result<ValueId, String> {
        let at = record.offset;
        let value = record.value.as_ref().ok_or(format!("the record at {at} has no value"))?;
        let id = value.get(..8).ok_or(format!("the value at {at} has {} bytes", value.len()))?;
        let id = ValueId(u64::from_be_bytes(id.try_into().expect("eight bytes")));
        let sent = self.record(id);
        if sent.value == record.value && sent.key == record.key && sent.headers == record.headers {
            Ok(id)
        } else {
            Err(format!("the record at {at} is not what was sent as {id}"))
        }
    }
}

/// Splits the next whole batch off.
fn next_batch(bytes: &mut Bytes) -> Result<Option<Bytes>, String> {
    let Some(len) = bytes.get(8..12) else { return Ok(None) };
    let len = i32::from_be_bytes(len.try_into().expect("four bytes"));
    if len < 49 {
        return Err(format!("a batch says that it has {len} bytes"));
    }
    let total = 12 + len as usize;
    Ok((bytes.len() >= total).then(|| bytes.split_to(total)))
}

const XERIAL_HEADER: &[u8; 16] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";

fn compress(plain: &[u8], codec: Compression, out: &mut BytesMut) {
    match codec {
        Compression::None => out.put_slice(plain),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out.writer(), flate2::Compression::fast());
            encoder.write_all(plain).and_then(|()| encoder.finish()).expect("memory takes everything");
        }
        Compression::Snappy => {
            out.put_slice(XERIAL_HEADER);
            for block in plain.chunks(32 * 1024) {
                let block = snap::raw::Encoder::new().compress_vec(block).expect("a block is small");
                out.put_u32(block.len() as u32);
                out.put_slice(&block);
            }
        }
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(out.writer());
            encoder.write_all(plain).expect("memory takes everything");
            encoder.finish().expect("memory takes everything");
        }
        Compression::Zstd => out.put_slice(&zstd::bulk::compress(plain, 1).expect("memory takes everything")),
    }
}

fn decompress(bytes: &Bytes, codec: Compression) -> Option<Bytes> {
    let mut plain = Vec::new();
    match codec {
        Compression::None => return Some(bytes.clone()),
        Compression::Gzip => drop(flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain).ok()?),
        Compression::Snappy => {
            let mut rest = bytes.strip_prefix(&XERIAL_HEADER[..8])?.get(8..)?;
            while let Some((len, tail)) = rest.split_first_chunk::<4>() {
                let len = u32::from_be_bytes(*len) as usize;
                plain.extend(snap::raw::Decoder::new().decompress_vec(tail.get(..len)?).ok()?);
                rest = &tail[len..];
            }
        }
        Compression::Lz4 => drop(lz4_flex::frame::FrameDecoder::new(&bytes[..]).read_to_end(&mut plain).ok()?),
        Compression::Zstd => plain = zstd::stream::decode_all(&bytes[..]).ok()?,
    }
    Some(plain.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOADS: Payloads = Payloads { seed: 1, value_bytes_max: 300 };

    #[test]
    fn every_codec_gives_back_what_was_sent() {
        for codec in Codec::ALL {
            let values: Vec<ValueId> = (0..20).map(|count| ValueId::new(3, count)).collect();
            let timestamps: Vec<i64> = (0..20).map(|count| 1_000 + count % 7).collect();
            let identity = Some((Identity { producer_id: 9, epoch: 1 }, 40));
            let mut bytes = BytesMut::from(&PAYLOADS.encode(&values, &timestamps, codec, identity)[..]);
            let whole = bytes.len();
            bytes.extend_from_slice(&bytes.clone()[..whole / 2]);
            let seen = PAYLOADS.decode(bytes.freeze()).expect("it decodes");
            assert_eq!(seen.iter().map(|seen| seen.value).collect::<Vec<_>>(), values, "{codec:?}");
            assert_eq!(seen.iter().map(|seen| seen.timestamp).collect::<Vec<_>>(), timestamps);
            assert_eq!(seen.iter().map(|seen| seen.offset).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_record_of_other_bytes_is_noticed() {
        let bytes = PAYLOADS.encode(&[ValueId::new(1, 1)], &[5], Codec::None, None);
        let other = Payloads { seed: 2, ..PAYLOADS };
        let Err(Unreadable::Wrong(text)) = other.decode(bytes.clone()) else { panic!("the checksum is right") };
        assert!(text.contains("is not what was sent as c1v1"), "{text}");
        for place in 16..bytes.len() {
            let mut torn = bytes.to_vec();
            torn[place] ^= 1;
            assert!(matches!(PAYLOADS.decode(torn.into()), Err(Unreadable::Damaged(_))), "byte {place}");
        }
    }
}
