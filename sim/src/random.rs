//! Randomness by name.
//!
//! No generator is shared. Each decision draws from its own stream, whose name says what is decided: `stream(seed,
//! "net", &[from, to, n])`. So taking one message out of a run, or adding one, changes the luck of that message and of
//! no other. Without this a failing scenario could not be shrunk.
//!
//! The sampling is our own and uses [`next_u64`](rand_chacha::rand_core::Rng::next_u64) alone, with integer
//! ratios for probabilities: no version of a library and no rounding can change what a seed means.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// A probability as a fraction of whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ratio {
    pub of: u32,
    pub among: u32,
}

impl Ratio {
    pub const NEVER: Self = Self { of: 0, among: 1 };
    pub const ALWAYS: Self = Self { of: 1, among: 1 };

    pub const fn new(of: u32, among: u32) -> Self {
        Self { of, among }
    }

    pub fn is_never(self) -> bool {
        self.of == 0
    }
}

/// A generator for one named decision, or for one series of them.
#[derive(Clone, Debug)]
pub struct Stream {
    generator: ChaCha8Rng,
    /// The highest bytes of the next numbers, where a fuzzer chooses them instead of the generator.
    chosen: VecDeque<u8>,
}

/// The stream of `name` and `numbers` in the run of `seed`. The same arguments give the same stream, always.
pub fn stream(seed: u64, name: &str, numbers: &[u64]) -> Stream {
    let mut state = mix(seed ^ 0x7469_6465_6c6f_6721);
    for byte in name.bytes() {
        state = mix(state ^ u64::from(byte));
    }
    // The name's length separates ("a", [98]) from ("ab", []).
    state = mix(state ^ (name.len() as u64) << 32);
    for number in numbers {
        state = mix(state.wrapping_add(*number));
    }
    let mut key = [0; 32];
    for lane in key.chunks_exact_mut(8) {
        state = mix(state);
        lane.copy_from_slice(&state.to_le_bytes());
    }
    Stream { generator: ChaCha8Rng::from_seed(key), chosen: VecDeque::new() }
}

/// SplitMix64's finaliser: every bit of the input changes about half of the output's.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The streams of one seed. The bytes of a fuzzer [choose](Stream::chosen) the first of them: [`CHOSEN_BYTES`] bytes
/// for each stream, in the order in which streams are asked for.
#[derive(Debug)]
pub struct Streams<'a> {
    seed: u64,
    chosen: std::slice::Chunks<'a, u8>,
}

/// How many bytes of a fuzzer go to one stream.
pub const CHOSEN_BYTES: usize = 32;

impl<'a> Streams<'a> {
    pub fn new(seed: u64, chosen: &'a [u8]) -> Self {
        Self { seed, chosen: chosen.chunks(CHOSEN_BYTES) }
    }

    pub fn stream(&mut self, name: &str, numbers: &[u64]) -> Stream {
        let stream = stream(self.seed, name, numbers);
        match self.chosen.next() {
            Some(bytes) => stream.chosen(bytes),
            None => stream,
        }
    }
}

impl Stream {
    /// The same stream, but the highest byte of each of its first numbers is taken from `bytes`. So one byte chooses a
    /// number that is drawn below a bound of up to 256.
    #[must_use]
    pub fn chosen(self, bytes: &[u8]) -> Self {
        Self { chosen: bytes.iter().copied().collect(), ..self }
    }

    pub fn draw(&mut self) -> u64 {
        let drawn = self.generator.next_u64();
        match self.chosen.pop_front() {
            Some(byte) => u64::from(byte) << 56 | drawn >> 8,
            None => drawn,
        }
    }

    /// A number in `0..bound`, each as likely as any other (Lemire's multiplication with rejection).
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below zero");
        loop {
            let product = u128::from(self.draw()) * u128::from(bound);
            let low = product as u64;
            if low >= bound || low >= bound.wrapping_neg() % bound {
                return (product >> 64) as u64;
            }
        }
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "the range {low}..={high} is empty");
        match (high - low).checked_add(1) {
            Some(count) => low + self.below(count),
            None => self.draw(),
        }
    }

    pub fn chance(&mut self, ratio: Ratio) -> bool {
        ratio.of > 0 && self.below(u64::from(ratio.among)) < u64::from(ratio.of)
    }

    pub fn one_in(&mut self, among: u32) -> bool {
        self.chance(Ratio::new(1, among))
    }

    /// A number in `0..=max` whose magnitude is drawn first: mostly small, now and then near `max`. Stands in for
    /// an exponential distribution, without floats.
    pub fn skewed(&mut self, max: u64) -> u64 {
        let bits = self.below(u64::from(64 - max.leading_zeros()) + 1) as u32;
        let ceiling = if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
        let value = self.between(0, ceiling);
        value.min(max)
    }

    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    pub fn bytes_16(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.draw().to_le_bytes());
        bytes[8..].copy_from_slice(&self.draw().to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_the_same_stream_always_and_other_names_give_others() {
        let first = |seed, name: &str, numbers: &[u64]| stream(seed, name, numbers).draw();
        assert_eq!(first(7, "net", &[1, 2]), first(7, "net", &[1, 2]));
        let others =
            [first(7, "net", &[2, 1]), first(7, "disk", &[1, 2]), first(8, "net", &[1, 2]), first(7, "net", &[1])];
        for other in others {
            assert_ne!(first(7, "net", &[1, 2]), other);
        }
    }

    /// What a seed means must not change with a library's version: these are fixed for good.
    #[test]
    fn a_streams_first_numbers_are_these() {
        let mut stream = stream(1, "net", &[2, 3]);
        let drawn = [stream.draw(), stream.below(100), stream.between(5, 9), stream.skewed(1_000)];
        assert_eq!(drawn, [1_225_054_179_087_537_756, 89, 8, 5]);
    }

    #[test]
    fn bytes_choose_as_far_as_they_reach_and_the_seed_chooses_the_rest() {
        let mut streams = Streams::new(5, &[0, 128, 255]);
        let (mut chosen, mut drawn) = (streams.stream("a", &[]), stream(5, "a", &[]));
        assert_eq!([10; 3].map(|bound| chosen.below(bound)), [0, 5, 9]);
        let _ = [(); 3].map(|()| drawn.draw());
        assert_eq!(chosen.draw(), drawn.draw());
        assert_eq!(streams.stream("b", &[]).draw(), stream(5, "b", &[]).draw());
    }

    #[test]
    fn numbers_stay_in_their_range_and_reach_both_ends() {
        let mut stream = stream(3, "range", &[]);
        let mut seen = [0u32; 5];
        for _ in 0..500 {
            seen[(stream.between(10, 14) - 10) as usize] += 1;
            assert!(stream.skewed(9) <= 9);
        }
        assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
    }

    #[test]
    fn a_ratio_holds_over_many_draws() {
        let mut stream = stream(4, "ratio", &[]);
        let hits = (0..3_000).filter(|_| stream.chance(Ratio::new(1, 3))).count();
        assert!((900..1_100).contains(&hits), "{hits} of 3000");
        assert!((0..100).all(|_| !stream.chance(Ratio::NEVER)));
    }
}
