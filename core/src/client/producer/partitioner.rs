//! Which partition a record goes to: by the hash of its key, or, without one, to the same partition until a batch's
//! worth of bytes has gone there (KIP-480, KIP-794).

use crate::client::backoff::below;
use rand_chacha::ChaCha8Rng;

/// The partition of a key, as every client of Kafka's has it.
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

/// Where a topic's records without a key go for now.
#[derive(Clone, Debug, Default)]
pub struct Sticky {
    current: Option<i32>,
    produced_bytes: usize,
}

/// A partition that records may go to, and how many batches wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub partition: i32,
    pub waiting: usize,
}

impl Sticky {
    /// The partition for the next record. `candidates` are asked for only when it is time for another; without any,
    /// one of all `partitions` is taken.
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

    /// A record went to the current partition. It stays until `batch_size` bytes have gone there; then the next one
    /// is chosen, but not, up to twice as much, while a batch is open, so that batches are not left half empty.
    pub fn note(&mut self, bytes: usize, batch_size: usize, batch_is_open: bool) {
        self.produced_bytes += bytes;
        let enough = if batch_is_open { batch_size.saturating_mul(2) } else { batch_size };
        if self.produced_bytes >= enough {
            self.current = None;
        }
    }
}

/// A partition at random: the longer its queue, the less likely (KIP-794).
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

    /// `UtilsTest.testMurmur2` of Apache Kafka.
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
    fn records_without_a_key_stay_with_a_partition_for_a_batchs_worth_of_bytes() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut sticky = Sticky::default();
        let candidates = || (0..10).map(|partition| Candidate { partition, waiting: 0 }).collect();
        let first = sticky.partition(&mut rng, 10, candidates);
        sticky.note(99, 100, false);
        assert_eq!(sticky.partition(&mut rng, 10, || panic!("not yet")), first);
        sticky.note(1, 100, true);
        assert_eq!(sticky.partition(&mut rng, 10, || panic!("a batch is open")), first);
        sticky.note(0, 100, false);
        let seen: std::collections::BTreeSet<i32> = (0..50)
            .map(|_| {
                let next = sticky.partition(&mut rng, 10, candidates);
                sticky.note(200, 100, true);
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
