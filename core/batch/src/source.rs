//! Where record bytes come from while they are checked: straight from the batch, or out of a decompressor through a
//! window of fixed size. The check is written once, for both.

use super::compression::{Codec, Decoder, DecoderScratch, damaged};
use super::error::BatchError;
use std::io::Read;

/// A window has at least this many bytes, unless fewer are left. A caller must not ask for more.
pub(super) const WINDOW_MIN: usize = 64;
const WINDOW_BYTES: usize = 64 << 10;

pub(super) trait Source {
    /// The bytes that come next: at least `at_least` of them (no more than [`WINDOW_MIN`]), unless fewer are left.
    fn window(&mut self, at_least: usize) -> Result<&[u8], BatchError>;

    /// Passes over `len` bytes of the window.
    fn consume(&mut self, len: usize);

    /// Passes over `len` bytes; `false` where fewer are left.
    fn skip(&mut self, len: usize) -> Result<bool, BatchError>;

    /// Whether all bytes were passed over. Also looks for compressed bytes that are left over.
    fn finish(&mut self) -> Result<bool, BatchError>;

    /// The size of the records, decompressed. Only right after `finish` has returned `true`.
    fn total_bytes(&self) -> u64;
}

/// Uncompressed records.
pub(super) struct Plain<'a> {
    rest: &'a [u8],
    total: usize,
}

impl<'a> Plain<'a> {
    pub(super) fn new(records: &'a [u8]) -> Self {
        Self { rest: records, total: records.len() }
    }
}

impl Source for Plain<'_> {
    #[inline(always)]
    fn window(&mut self, _at_least: usize) -> Result<&[u8], BatchError> {
        Ok(self.rest)
    }

    #[inline(always)]
    fn consume(&mut self, len: usize) {
        self.rest = &self.rest[len..];
    }

    #[inline(always)]
    fn skip(&mut self, len: usize) -> Result<bool, BatchError> {
        match self.rest.get(len..) {
            Some(rest) => {
                self.rest = rest;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn finish(&mut self) -> Result<bool, BatchError> {
        Ok(self.rest.is_empty())
    }

    fn total_bytes(&self) -> u64 {
        self.total as u64
    }
}

/// Records that are decompressed while they are read.
pub(super) struct Decompressed<'a> {
    decoder: Decoder<'a>,
    codec: Codec,
    buffer: &'a mut Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
    total: u64,
    limit: u64,
}

impl<'a> Decompressed<'a> {
    pub(super) fn new(
        codec: Codec,
        records: &'a [u8],
        limit: u64,
        buffer: &'a mut Vec<u8>,
        scratch: &'a mut DecoderScratch,
    ) -> Result<Self, BatchError> {
        let decoder = Decoder::new(codec, records, limit, scratch)?;
        buffer.resize(WINDOW_BYTES, 0);
        Ok(Self { decoder, codec, buffer, start: 0, end: 0, ended: false, total: 0, limit })
    }

    #[cold]
    fn fill(&mut self, at_least: usize) -> Result<(), BatchError> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < at_least && !self.ended {
            let read = self.decoder.read(&mut self.buffer[self.end..]).map_err(|error| damaged(self.codec, error))?;
            self.ended = read == 0;
            self.end += read;
            self.total += read as u64;
            if self.total > self.limit {
                return Err(BatchError::DecompressedTooLarge { limit: self.limit });
            }
        }
        Ok(())
    }
}

impl Source for Decompressed<'_> {
    #[inline(always)]
    fn window(&mut self, at_least: usize) -> Result<&[u8], BatchError> {
        debug_assert!(at_least <= WINDOW_MIN);
        if self.end - self.start < at_least {
            self.fill(at_least)?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    #[inline(always)]
    fn consume(&mut self, len: usize) {
        assert!(len <= self.end - self.start, "only bytes of the window are consumed");
        self.start += len;
    }

    #[inline]
    fn skip(&mut self, mut len: usize) -> Result<bool, BatchError> {
        loop {
            let step = len.min(self.end - self.start);
            self.start += step;
            len -= step;
            if len == 0 {
                return Ok(true);
            }
            if self.window(1)?.is_empty() {
                return Ok(false);
            }
        }
    }

    fn finish(&mut self) -> Result<bool, BatchError> {
        if !self.window(1)?.is_empty() {
            return Ok(false);
        }
        self.decoder.finish().map_err(|error| damaged(self.codec, error))?;
        Ok(true)
    }

    fn total_bytes(&self) -> u64 {
        self.total
    }
}
