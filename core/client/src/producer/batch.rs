//! A batch of a producer, from its first record until it is delivered or has failed.

use super::Identity;
use bytes::Bytes;
use bytestring::ByteString;
use tidelog_batch::{BatchBuilder, BatchLimits, Codec, records};
use tidelog_wire::ids::LeaderEpoch;
use tidelog_wire::time::Mono;

/// A record of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerRecord {
    /// A number that the application chooses. Events name the record by it.
    pub id: u64,
    pub topic: ByteString,
    /// `None`: the producer chooses the partition, by the key if there is one.
    pub partition: Option<i32>,
    /// Milliseconds since 1970. `None`: the time at which the record is handed in.
    pub timestamp: Option<i64>,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(ByteString, Option<Bytes>)>,
}

impl ProducerRecord {
    /// How many bytes the record takes in a batch at most.
    pub fn size_bytes(&self) -> usize {
        // Length, attributes, timestamp, offset, length of the key and of the value, number of headers.
        const NUMBERS: usize = 5 + 1 + 10 + 5 + 5 + 5 + 5;
        let field = |field: &Option<Bytes>| field.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|(key, value)| 10 + key.len() + field(value)).sum();
        NUMBERS + field(&self.key) + field(&self.value) + headers
    }

    pub fn push_to(&self, builder: &mut BatchBuilder, timestamp: i64) {
        let headers: Vec<(&str, Option<&[u8]>)> =
            self.headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
        builder.push(timestamp, self.key.as_deref(), self.value.as_deref(), &headers);
    }
}

/// Names a batch, and orders the batches of a partition by when they were made. `batch` counts the batches of the
/// producer;
/// `first_record` is the place of a part's first record in the batch that was split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchOrder {
    pub batch: u64,
    pub first_record: u32,
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    pub codec: Codec,
    pub level: i32,
}

#[derive(Debug)]
enum Content {
    Open(BatchBuilder),
    /// The encoded batch, and the identity and sequence that are in it.
    Built(Bytes, Option<(Identity, i32)>),
}

#[derive(Debug)]
pub struct Batch {
    pub order: BatchOrder,
    /// The ids of the records, in their order.
    pub record_ids: Vec<u64>,
    content: Content,
    size_bytes: usize,
    /// How much of `buffer.memory` is free again when the batch is done. The first part of a split batch has all of it.
    pub buffered_bytes: usize,
    pub created_at: Mono,
    /// How often it was sent.
    pub attempts: u32,
    /// When it was sent the last time, or when that attempt failed.
    pub last_attempt: Mono,
    /// The pause before the next attempt.
    pub pause_ms: i64,
    /// The leader epoch at the last attempt. If there is a new leader, the batch is sent to it without a pause.
    pub tried_epoch: LeaderEpoch,
    /// Whether the broker may have appended the batch at an earlier attempt.
    pub may_be_appended: bool,
    /// The error of the last attempt, to tell the application if the batch is given up.
    pub last_error: Option<String>,
    /// The identity and base sequence (KIP-98), from the first attempt on. Changed only by a restart of the partition's
    /// sequences: see `restart_if_quiet` in `partition.rs`.
    pub sequence: Option<(Identity, i32)>,
    /// Whether the sequence was changed since the last attempt.
    pub restarted: bool,
}

impl Batch {
    pub fn new(order: BatchOrder, now: Mono) -> Self {
        let builder = BatchBuilder::new();
        Self {
            order,
            record_ids: Vec::new(),
            size_bytes: builder.size_bytes(),
            content: Content::Open(builder),
            buffered_bytes: 0,
            created_at: now,
            attempts: 0,
            last_attempt: Mono::ZERO,
            pause_ms: 0,
            tried_epoch: LeaderEpoch::UNKNOWN,
            may_be_appended: false,
            last_error: None,
            sequence: None,
            restarted: false,
        }
    }

    /// Whether there is room for a record of this size. In an empty batch there always is.
    pub fn has_room(&self, record_bytes: usize, batch_size_bytes: usize) -> bool {
        match &self.content {
            Content::Open(builder) => builder.is_empty() || builder.size_bytes() + record_bytes <= batch_size_bytes,
            Content::Built(..) => false,
        }
    }

    pub fn push(&mut self, record: &ProducerRecord, timestamp: i64) {
        let Content::Open(builder) = &mut self.content else { panic!("a batch that was sent takes no more records") };
        record.push_to(builder, timestamp);
        self.size_bytes = builder.size_bytes();
        self.buffered_bytes += record.size_bytes();
        self.record_ids.push(record.id);
    }

    pub fn records_count(&self) -> i32 {
        self.record_ids.len() as i32
    }

    /// The size of the encoded batch. Until it is encoded, its size without compression.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    pub fn base_sequence(&self) -> Option<i32> {
        self.sequence.map(|(_, base)| base)
    }

    pub fn last_sequence(&self) -> Option<i32> {
        self.base_sequence().map(|base| add_to_sequence(base, self.records_count() - 1))
    }

    /// The encoded batch with its present sequence.
    pub fn bytes(&mut self, format: Format) -> Bytes {
        let bytes = match &mut self.content {
            Content::Built(bytes, sequence) if *sequence == self.sequence => bytes.clone(),
            Content::Built(bytes, _) => {
                let whole = 0..self.record_ids.len();
                rebuild(bytes, whole, self.sequence, format)
            }
            Content::Open(builder) => {
                let mut builder = std::mem::take(builder);
                if let Some((identity, base)) = self.sequence {
                    builder = builder.producer(identity.id, identity.epoch, base);
                }
                builder.compressed(format.codec, format.level).build()
            }
        };
        self.size_bytes = bytes.len();
        self.content = Content::Built(bytes.clone(), self.sequence);
        bytes
    }

    /// Splits a batch that is too large for the broker into two with half of the records each, in order.
    pub fn split(mut self, format: Format) -> [Self; 2] {
        let bytes = self.bytes(format);
        let count = self.record_ids.len();
        assert!(count > 1, "a batch of one record cannot be split");
        let middle = count / 2;
        [0..middle, middle..count].map(|range| {
            let sequence = self.sequence.map(|(identity, base)| (identity, add_to_sequence(base, range.start as i32)));
            let bytes = rebuild(&bytes, range.clone(), sequence, format);
            let buffered_bytes = if range.start == 0 { self.buffered_bytes } else { 0 };
            let first_record = self.order.first_record + range.start as u32;
            Self {
                order: BatchOrder { first_record, ..self.order },
                record_ids: self.record_ids[range].to_vec(),
                size_bytes: bytes.len(),
                buffered_bytes,
                content: Content::Built(bytes, sequence),
                last_error: self.last_error.clone(),
                sequence,
                // The parts may be sent at once, since neither was sent before.
                attempts: 0,
                pause_ms: 0,
                ..self
            }
        })
    }
}

/// Makes a new batch from some of the records of an encoded one.
fn rebuild(bytes: &Bytes, range: std::ops::Range<usize>, sequence: Option<(Identity, i32)>, format: Format) -> Bytes {
    let mut builder = BatchBuilder::new();
    if let Some((identity, base)) = sequence {
        builder = builder.producer(identity.id, identity.epoch, base);
    }
    let mut builder = builder.compressed(format.codec, format.level);
    let unlimited = BatchLimits { decompressed_bytes_max: u64::MAX, ..Default::default() };
    let all = records(bytes, &unlimited).expect("our own batch is well-formed");
    for record in all.skip(range.start).take(range.len()) {
        let record = record.expect("our own record is well-formed");
        let headers: Vec<(&str, Option<&[u8]>)> =
            record.headers.iter().map(|header| (&header.key[..], header.value.as_deref())).collect();
        builder.push(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
    }
    builder.build()
}

/// The sequence that follows `sequence` by a number of records. After the greatest int32 comes 0.
pub fn add_to_sequence(sequence: i32, records: i32) -> i32 {
    (i64::from(sequence) + i64::from(records)).rem_euclid(1 << 31) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_batch::BatchHeader;
    use tidelog_wire::ids::ProducerId;

    const FORMAT: Format = Format { codec: Codec::Lz4, level: 9 };

    fn batch(records: u64) -> Batch {
        let mut batch = Batch::new(BatchOrder { batch: 7, first_record: 0 }, Mono::ZERO);
        for id in 0..records {
            let value = Some(Bytes::copy_from_slice(&id.to_be_bytes()));
            let headers = vec![("h".into(), None)];
            let record =
                ProducerRecord { id, topic: "t".into(), partition: None, timestamp: None, key: None, value, headers };
            assert!(batch.has_room(record.size_bytes(), 1_000_000));
            batch.push(&record, 100 + id as i64);
        }
        batch
    }

    fn ids(bytes: &Bytes) -> Vec<u64> {
        let records = records(bytes, &BatchLimits::default()).unwrap().map(Result::unwrap);
        records.map(|record| u64::from_be_bytes(record.value.unwrap()[..].try_into().unwrap())).collect()
    }

    #[test]
    fn a_split_batch_keeps_its_records_their_order_and_their_sequences() {
        let mut whole = batch(5);
        let identity = Identity { id: ProducerId(3), epoch: 1 };
        whole.sequence = Some((identity, i32::MAX));
        let [mut left, right] = whole.split(FORMAT);
        assert_eq!((ids(&left.bytes(FORMAT)), left.record_ids.clone()), (vec![0, 1], vec![0, 1]));
        assert_eq!((left.base_sequence(), left.last_sequence()), (Some(i32::MAX), Some(0)));
        assert_eq!(right.base_sequence(), Some(1));
        let [mut middle, last] = right.split(FORMAT);
        assert_eq!((ids(&middle.bytes(FORMAT)), last.record_ids.clone()), (vec![2], vec![3, 4]));
        assert!(left.order < middle.order && middle.order < last.order);
    }

    #[test]
    fn a_batch_is_encoded_with_its_present_sequence() {
        let mut batch = batch(2);
        batch.sequence = Some((Identity { id: ProducerId(3), epoch: 1 }, 40));
        let first = batch.bytes(FORMAT);
        assert_eq!(first, batch.bytes(FORMAT));
        batch.sequence = Some((Identity { id: ProducerId(3), epoch: 2 }, 0));
        let header = BatchHeader::parse(&batch.bytes(FORMAT)).unwrap();
        assert_eq!((header.producer_epoch, header.base_sequence, header.records_count), (2, 0, 2));
        assert_eq!(ids(&batch.bytes(FORMAT)), [0, 1]);
    }
}
