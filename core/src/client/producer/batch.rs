//! A batch of a producer, from its first record until it is answered.

use super::Identity;
use crate::batch::{BatchBuilder, BatchLimits, Codec, records};
use crate::ids::LeaderEpoch;
use crate::time::Mono;
use bytes::Bytes;
use bytestring::ByteString;

/// A record of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerRecord {
    /// The application's own number: events name the record by it.
    pub id: u64,
    pub topic: ByteString,
    /// None: by the key, or any.
    pub partition: Option<i32>,
    /// Milliseconds since 1970; none: when the producer is handed it.
    pub timestamp: Option<i64>,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(ByteString, Option<Bytes>)>,
}

impl ProducerRecord {
    /// What the record takes in a batch, at most.
    pub fn size_bytes(&self) -> usize {
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

/// Where a batch stands among its partition's: batches keep the order of their making, and the parts of one that was
/// split that of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchOrder {
    pub batch: u64,
    pub first_record: u32,
}

/// How a batch is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    pub codec: Codec,
    pub level: i32,
}

#[derive(Debug)]
enum Content {
    Open(BatchBuilder),
    /// With the numbers that stand in it.
    Built(Bytes, Option<(Identity, i32)>),
}

#[derive(Debug)]
pub struct Batch {
    pub order: BatchOrder,
    pub record_ids: Vec<u64>,
    content: Content,
    size_bytes: usize,
    /// What its records count for in `buffer.memory`.
    pub buffered_bytes: usize,
    pub created_at: Mono,
    /// Requests that carried it.
    pub attempts: u32,
    pub last_attempt: Mono,
    /// The pause before the next attempt.
    pub pause_ms: i64,
    /// The leader epoch of the last attempt: a new leader is tried at once.
    pub tried_epoch: LeaderEpoch,
    /// An attempt may have been taken, though nobody said so.
    pub may_be_there: bool,
    /// The last error, for the one who waits.
    pub last_error: Option<String>,
    /// Its numbers as an idempotent producer's (KIP-98), from the first time it goes out. They are changed only when
    /// it is certain that the broker has not taken it, or has forgotten all.
    pub sequence: Option<(Identity, i32)>,
    /// Its sequence was changed since it last went out.
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
            may_be_there: false,
            last_error: None,
            sequence: None,
            restarted: false,
        }
    }

    /// Whether a record of this size still fits. A first record always does.
    pub fn has_room(&self, record_bytes: usize, batch_size_bytes: usize) -> bool {
        match &self.content {
            Content::Open(builder) => builder.is_empty() || builder.size_bytes() + record_bytes <= batch_size_bytes,
            Content::Built(..) => false,
        }
    }

    pub fn push(&mut self, record: &ProducerRecord, timestamp: i64) {
        let Content::Open(builder) = &mut self.content else { panic!("a batch that went out is closed") };
        record.push_to(builder, timestamp);
        self.size_bytes = builder.size_bytes();
        self.buffered_bytes += record.size_bytes();
        self.record_ids.push(record.id);
    }

    pub fn records_count(&self) -> i32 {
        self.record_ids.len() as i32
    }

    /// Its size on the wire; before it was built, at most.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    pub fn base_sequence(&self) -> Option<i32> {
        self.sequence.map(|(_, base)| base)
    }

    pub fn last_sequence(&self) -> Option<i32> {
        self.base_sequence().map(|base| add_to_sequence(base, self.records_count() - 1))
    }

    /// The bytes to send, with the sequence that the batch has now.
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

    /// Two batches with half of the records each, in order: for one that the broker finds too large.
    pub fn split(mut self, format: Format) -> [Self; 2] {
        let bytes = self.bytes(format);
        let count = self.record_ids.len();
        assert!(count > 1, "one record cannot be split");
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
                // They may go out at once, each for the first time.
                attempts: 0,
                pause_ms: 0,
                ..self
            }
        })
    }
}

/// Some records of a batch, as a batch of their own.
fn rebuild(bytes: &Bytes, range: std::ops::Range<usize>, sequence: Option<(Identity, i32)>, format: Format) -> Bytes {
    let mut builder = BatchBuilder::new();
    if let Some((identity, base)) = sequence {
        builder = builder.producer(identity.id, identity.epoch, base);
    }
    let mut builder = builder.compressed(format.codec, format.level);
    let unlimited =
        BatchLimits { decompressed_bytes_max: u64::MAX, decompressed_bytes_free: u64::MAX, ..Default::default() };
    let all = records(bytes, &unlimited).expect("our own batch is well-formed");
    for record in all.skip(range.start).take(range.len()) {
        let record = record.expect("our own record is well-formed");
        let headers: Vec<(&str, Option<&[u8]>)> =
            record.headers.iter().map(|header| (&header.key[..], header.value.as_deref())).collect();
        builder.push(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
    }
    builder.build()
}

/// Sequences wrap from the greatest number to 0.
pub fn add_to_sequence(sequence: i32, records: i32) -> i32 {
    (i64::from(sequence) + i64::from(records)).rem_euclid(1 << 31) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchHeader;
    use crate::ids::ProducerId;

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
    fn a_batch_goes_out_with_the_sequence_it_has_now() {
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
