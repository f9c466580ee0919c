//! What happened, as one number and as text.
//!
//! The number is a rolling 64-bit hash over every step of the world: (event, time, node, digest of the input,
//! digest of the outputs). Two runs of one seed must agree on it; kept every [`KEPT_EVERY`] events, it also tells
//! where two runs that do not agree began to differ. It is no defence against anybody: it only has to notice.

use bytes::Bytes;
use std::fmt;

/// How many events lie between two hashes that are kept.
pub const KEPT_EVERY: u64 = 1024;

/// A 64-bit digest that is cheap to feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0x6a09_e667_f3bc_c908)
    }
}

impl Digest {
    pub fn number(&mut self, number: u64) {
        let mixed = (self.0.rotate_left(23) ^ number).wrapping_mul(0x9fb2_1c65_1e98_df25);
        self.0 = mixed ^ (mixed >> 32);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        let words = bytes.chunks_exact(8);
        let mut tail = [0; 8];
        tail[..words.remainder().len()].copy_from_slice(words.remainder());
        for word in words {
            self.number(u64::from_le_bytes(word.try_into().expect("a word has eight bytes")));
        }
        self.number(u64::from_le_bytes(tail));
    }

    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub fn chunks(&mut self, chunks: &[Bytes]) {
        for chunk in chunks {
            self.bytes(chunk);
        }
    }

    pub fn value(self) -> u64 {
        self.0
    }
}

/// The record of one run.
#[derive(Debug, Default)]
pub struct Trace {
    rolling: Digest,
    events: u64,
    kept: Vec<u64>,
    /// Lines of text, where a person asked for them.
    lines: Option<Lines>,
}

type Lines = Box<dyn Write>;

/// Where the lines of a trace go. The simulator itself has no files and no standard output.
pub trait Write {
    fn line(&mut self, line: fmt::Arguments<'_>);
}

impl fmt::Debug for dyn Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Write")
    }
}

impl Trace {
    pub fn to(lines: Lines) -> Self {
        Self { lines: Some(lines), ..Self::default() }
    }

    /// One step of the world: what went in and what came out.
    pub fn step(&mut self, time: u64, place: u64, input: Digest, outputs: Digest) {
        self.rolling.number(self.events);
        self.rolling.number(time);
        self.rolling.number(place);
        self.rolling.number(input.value());
        self.rolling.number(outputs.value());
        self.events += 1;
        if self.events.is_multiple_of(KEPT_EVERY) {
            self.kept.push(self.rolling.value());
        }
    }

    pub fn hash(&self) -> u64 {
        self.rolling.value()
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    /// The hash after each [`KEPT_EVERY`] events.
    pub fn kept(&self) -> &[u64] {
        &self.kept
    }

    pub fn is_text(&self) -> bool {
        self.lines.is_some()
    }

    /// A line for people; costs nothing where nobody asked for text, if `line` is built lazily.
    pub fn say(&mut self, time: u64, place: impl fmt::Display, line: fmt::Arguments<'_>) {
        if let Some(lines) = &mut self.lines {
            let (ms, ns) = (time / 1_000_000, time % 1_000_000);
            lines.line(format_args!("{:>7} {ms:>7}.{ns:06} ms  {place:<9} {line}", self.events));
        }
    }

    pub fn say_raw(&mut self, line: fmt::Arguments<'_>) {
        if let Some(lines) = &mut self.lines {
            lines.line(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(steps: &[(u64, u64)]) -> u64 {
        let mut trace = Trace::default();
        for (time, place) in steps {
            trace.step(*time, *place, Digest::default(), Digest::default());
        }
        trace.hash()
    }

    #[test]
    fn the_hash_tells_apart_order_time_and_place() {
        assert_eq!(after(&[(1, 0), (2, 1)]), after(&[(1, 0), (2, 1)]));
        for other in [&[(2, 1), (1, 0)][..], &[(1, 0), (3, 1)], &[(1, 0), (2, 0)], &[(1, 0)]] {
            assert_ne!(after(&[(1, 0), (2, 1)]), after(other));
        }
    }

    #[test]
    fn the_digest_of_bytes_knows_their_length() {
        let of = |bytes: &[u8]| {
            let mut digest = Digest::default();
            digest.bytes(bytes);
            digest.value()
        };
        assert_ne!(of(b"a"), of(b"a\0"));
        assert_ne!(of(b"12345678"), of(b"12345679"));
    }

    #[test]
    fn a_hash_is_kept_every_1024_events() {
        let mut trace = Trace::default();
        for event in 0..2 * KEPT_EVERY + 1 {
            trace.step(event, 0, Digest::default(), Digest::default());
        }
        assert_eq!(trace.kept().len(), 2);
        assert_ne!(trace.kept()[1], trace.hash());
    }
}
