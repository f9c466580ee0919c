//! Chooses the partition of a record. A record with a key goes to the partition given by the hash of the key. Records
//! without a key go to the same partition until `batch.size` bytes have gone there (KIP-480, KIP-794).

use rand_chacha::ChaCha8Rng;
use tidelog_link::below;

/// The partition of a key, the same as in Kafka's clients.
pub fn partition_of_key(key: &[u8], partitions: usize) -> i32 {
    let hash = murmur2(key) & 0x7fff_ffff;
    (hash % partitions as u32) as i32
}

/// MurmurHash2, 32 bits, with the seed of Kafka's clients.
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    const SEED: u32 = 0x9747_b28c;
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("four bytes")).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition to which a topic's records without a key go at present.
#[derive(Clone, Debug, Default)]
pub struct Sticky {
    current: Option<i32>,
    produced_bytes: usize,
}

/// A partition that may be chosen, and how many batches wait in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub partition: i32,
    pub waiting: usize,
}

impl Sticky {
    /// The partition for the next record. `candidates` is called only when another partition is to be chosen. If it
    /// returns none, any of the `partitions` is chosen.
    pub fn partition(
        &mut self,
        rng: &mut ChaCha8Rng,
        partitions: usize,
        candidates: impl FnOnce() -> Vec<Candidate>,
    ) -> i32 {
        if let Some(current) = self.current.filter(|current| (*current as usize) < partitions) {
            return current;
        }
        let chosen = choose(rng, &candidates()).unwrap_or_else(|| below(rng, partitions as u64) as i32);
        self.current = Some(chosen);
        self.produced_bytes = 0;
        chosen
    }

    /// Counts a record that went to the current partition. After `batch_size` bytes another partition is chosen. While
    /// a batch has room left, that waits until twice as many bytes, so that batches are not sent half empty.
    pub fn count_record(&mut self, bytes: usize, batch_size: usize, batch_is_open: bool) {
        self.produced_bytes += bytes;
        let enough = if batch_is_open { batch_size.saturating_mul(2) } else { batch_size };
        if self.produced_bytes >= enough {
            self.current = None;
        }
    }
}

/// Chooses a partition at random. The longer its queue, the less likely it is chosen (KIP-794).
fn choose(rng: &mut ChaCha8Rng, candidates: &[Candidate]) -> Option<i32> {
    let longest = candidates.iter().map(|candidate| candidate.waiting).max()?;
    let weight = |candidate: &Candidate| (longest + 1 - candidate.waiting) as u64;
    let mut left = below(rng, candidates.iter().map(weight).sum());
    let found = candidates.iter().find(|candidate| {
        let own = weight(candidate);
        let here = left < own;
        left = left.saturating_sub(own);
        here
    });
    found.map(|candidate| candidate.partition)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    /// The cases of `UtilsTest.testMurmur2` in Apache Kafka.
    #[test]
    fn murmur2_gives_the_hashes_of_kafkas_own_test() {
        let cases: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (data, hash) in cases {
            assert_eq!(murmur2(data) as i32, hash, "{data:?}");
        }
    }

    #[test]
    fn a_key_goes_to_a_partition_that_is_never_negative() {
        assert_eq!(partition_of_key(b"21", 10), (-973_932_308_i32 & 0x7fff_ffff) % 10);
        assert!((0..1_000_u32).all(|key| (0..7).contains(&partition_of_key(&key.to_be_bytes(), 7))));
    }

    #[test]
    fn records_without_a_key_go_to_the_same_partition_until_batch_size_bytes() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut sticky = Sticky::default();
        let candidates = || (0..10).map(|partition| Candidate { partition, waiting: 0 }).collect();
        let first = sticky.partition(&mut rng, 10, candidates);
        sticky.count_record(99, 100, false);
        assert_eq!(sticky.partition(&mut rng, 10, || panic!("not yet")), first);
        sticky.count_record(1, 100, true);
        assert_eq!(sticky.partition(&mut rng, 10, || panic!("a batch is open")), first);
        sticky.count_record(0, 100, false);
        let seen: std::collections::BTreeSet<i32> = (0..50)
            .map(|_| {
                let next = sticky.partition(&mut rng, 10, candidates);
                sticky.count_record(200, 100, true);
                next
            })
            .collect();
        assert!(seen.len() > 5, "{seen:?}");
    }

    #[test]
    fn a_long_queue_gets_fewer_records() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let candidates = [Candidate { partition: 0, waiting: 9 }, Candidate { partition: 1, waiting: 0 }];
        let busy = (0..1_100).filter(|_| choose(&mut rng, &candidates) == Some(0)).count();
        assert!((50..160).contains(&busy), "{busy} of 1100, due are 100");
        assert_eq!(choose(&mut rng, &[]), None);
    }
}
