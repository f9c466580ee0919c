//! Pauses between attempts (KIP-580). A pause doubles with each failure up to a limit. It is randomly up to a fifth
//! longer or shorter, so that those who failed at the same time do not all retry at the same time.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub first_ms: i64,
    pub max_ms: i64,
}

const JITTER_PERCENT: u64 = 20;

impl Backoff {
    /// The pause in milliseconds after this number of failures in a row.
    pub fn pause_ms(self, failures: u32, rng: &mut ChaCha8Rng) -> i64 {
        let doublings = failures.saturating_sub(1).min(32);
        let pause = self.first_ms.saturating_mul(1 << doublings).min(self.max_ms.max(self.first_ms));
        let percent = 100 - JITTER_PERCENT + below(rng, 2 * JITTER_PERCENT + 1);
        (pause as u64).saturating_mul(percent).div_euclid(100) as i64
    }
}

/// A random number in `0..bound`. For the small bounds used here its bias is below one in 2^32.
pub fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    assert!(bound > 0, "there is no number below 0");
    ((u128::from(rng.next_u64()) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn a_pause_doubles_up_to_its_limit_and_is_a_fifth_more_or_less() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let backoff = Backoff { first_ms: 100, max_ms: 1_000 };
        for (failures, middle) in [(0, 100), (1, 100), (2, 200), (3, 400), (4, 800), (5, 1_000), (1_000, 1_000)] {
            let pauses: Vec<i64> = (0..200).map(|_| backoff.pause_ms(failures, &mut rng)).collect();
            assert!(pauses.iter().all(|pause| (middle * 8 / 10..=middle * 12 / 10).contains(pause)), "{pauses:?}");
            assert!(pauses.iter().any(|pause| *pause < middle) && pauses.iter().any(|pause| *pause > middle));
        }
        assert_eq!(Backoff { first_ms: 0, max_ms: 0 }.pause_ms(9, &mut rng), 0);
    }
}
