//! Record batches, each broken in one way, with the error that Kafka answers.

use crate::client::records::{Codec, Identity, Payloads};
use crate::history::ValueId;
use crate::random::Stream;
use bytes::{Bytes, BytesMut};

const CRC: std::ops::Range<usize> = 17..21;
const AFTER_CRC: usize = 21;
const MAX_TIMESTAMP: std::ops::Range<usize> = 35..43;

/// A batch that must be refused.
pub struct Broken {
    pub name: &'static str,
    pub bytes: Bytes,
    pub codes: &'static [i16],
}

const CORRUPT_MESSAGE: &[i16] = &[2];
const INVALID_RECORD: &[i16] = &[87];

/// A valid batch, with values that no other client sends.
pub fn valid(payloads: Payloads, client: u32, wall_ms: i64, identity: Option<(Identity, i32)>) -> BytesMut {
    let values = [ValueId::new(client, 0), ValueId::new(client, 1)];
    BytesMut::from(&payloads.encode(&values, &[wall_ms, wall_ms], Codec::None, identity)[..])
}

/// A valid batch of more than this many bytes.
pub fn larger_than(bytes: usize, payloads: Payloads, client: u32, wall_ms: i64) -> Bytes {
    let of = |count: u32| {
        let values: Vec<ValueId> = (0..count).map(|place| ValueId::new(client, place)).collect();
        payloads.encode(&values, &vec![wall_ms; values.len()], Codec::None, None)
    };
    (5..).map(|bits| of(1 << bits)).find(|batch| batch.len() > bytes).expect("more records are more bytes")
}

pub fn broken(payloads: Payloads, client: u32, wall_ms: i64, stream: &mut Stream) -> Broken {
    let mut batch = valid(payloads, client, wall_ms, None);
    let refused = |name, bytes: BytesMut, codes| Broken { name, bytes: bytes.freeze(), codes };
    let patched = |name, mut bytes: BytesMut, at: usize, with: &[u8], codes| {
        bytes[at..at + with.len()].copy_from_slice(with);
        set_checksum(&mut bytes);
        refused(name, bytes, codes)
    };
    match stream.below(17) {
        0 => {
            batch[CRC.start] ^= 1 << stream.below(8);
            refused("batch: wrong checksum", batch, CORRUPT_MESSAGE)
        }
        1 => {
            let place = AFTER_CRC + stream.below((batch.len() - AFTER_CRC) as u64) as usize;
            batch[place] ^= 1 << stream.below(8);
            // A flipped attribute may make it transactional, or name a codec that there is not.
            refused("batch: a bit has flipped", batch, &[2, 87, 76, 53, -1])
        }
        2 => patched("batch: magic 1", batch, 16, &[1], INVALID_RECORD),
        3 => patched("batch: magic 9", batch, 16, &[9], CORRUPT_MESSAGE),
        4 => {
            let count = [0, -1, 1, 3, i32::MAX][stream.below(5) as usize];
            patched("batch: wrong count", batch, 57, &i32::to_be_bytes(count), INVALID_RECORD)
        }
        5 => {
            let delta = [0, -1, 2, i32::MAX][stream.below(4) as usize];
            patched("batch: wrong last offset delta", batch, 23, &i32::to_be_bytes(delta), INVALID_RECORD)
        }
        6 => {
            // The last offset and the count of records are both wrong and agree with each other: only the records
            // themselves show it.
            batch[23..27].copy_from_slice(&999_999_i32.to_be_bytes());
            patched("batch: a million records", batch, 57, &1_000_000_i32.to_be_bytes(), INVALID_RECORD)
        }
        7 => {
            let longer = (batch.len() as i32 - 12) + 1 + stream.below(1 << 30) as i32;
            patched("batch: longer than it is", batch, 8, &longer.to_be_bytes(), &[2, 87])
        }
        8 => {
            let shorter = [0, 3, 48, -1, i32::MIN][stream.below(5) as usize];
            patched("batch: shorter than a header", batch, 8, &i32::to_be_bytes(shorter), &[2, 87])
        }
        9 => patched("batch: base offset", batch, 0, &7_i64.to_be_bytes(), INVALID_RECORD),
        10 => patched("batch: codec 7", batch, 22, &[7], &[-1]),
        11 => patched("batch: gzip that is none", batch, 22, &[1], INVALID_RECORD),
        12 => patched("batch: control records", batch, 22, &[0x20], INVALID_RECORD),
        13 => {
            batch[MAX_TIMESTAMP].copy_from_slice(&i64::to_be_bytes(-1));
            patched("batch: LogAppendTime without a timestamp", batch, 22, &[0x08], &[32])
        }
        14 => {
            let twice = batch.clone();
            batch.unsplit(twice);
            refused("batch: two in one", batch, INVALID_RECORD)
        }
        15 => {
            let identity = Identity { producer_id: 7_777_777, epoch: 0 };
            let batch = valid(payloads, client, wall_ms, Some((identity, 0)));
            patched("batch: a transaction without a transactional id", batch, 22, &[0x10], &[53])
        }
        _ => {
            let identity = Identity { producer_id: 7_777_777, epoch: 0 };
            let batch = valid(payloads, client, wall_ms, Some((identity, 0)));
            patched("batch: negative sequence", batch, 53, &i32::to_be_bytes(-2), INVALID_RECORD)
        }
    }
}

fn set_checksum(batch: &mut [u8]) {
    let checksum = crc32c(&batch[AFTER_CRC..]);
    batch[CRC].copy_from_slice(&checksum.to_be_bytes());
}

/// CRC-32C, bit by bit: batches here are small.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    const PAYLOADS: Payloads = Payloads { seed: 1, value_bytes_max: 50 };

    #[test]
    fn the_checksum_is_the_one_of_record_batches() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let batch = valid(PAYLOADS, 3, 1_000, None);
        let mut again = batch.clone();
        set_checksum(&mut again);
        assert_eq!(batch, again);
    }

    #[test]
    fn every_kind_of_damage_is_dealt_and_none_leaves_a_good_batch() {
        let mut stream = stream(1, "broken", &[]);
        let good = valid(PAYLOADS, 3, 1_000, None);
        let names: std::collections::BTreeSet<&str> = (0..400)
            .map(|_| {
                let broken = broken(PAYLOADS, 3, 1_000, &mut stream);
                assert_ne!(broken.bytes, good.clone().freeze(), "{}", broken.name);
                broken.name
            })
            .collect();
        assert_eq!(names.len(), 17);
    }
}
