//! Snappy as `snappy-java` frames it, which is what Kafka calls snappy.
//!
//! ```text
//! 82 'S' 'N' 'A' 'P' 'P' 'Y' 00 │ version i32 = 1 │ compatible with i32 = 1 │ { length i32, a snappy block }*
//! ```
//!
//! The header may come again in place of a length, where streams were joined. librdkafka sends one bare block without
//! the framing, which is read too.

use std::io::{self, Read, Write};

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// The magic with the two versions after it.
const HEADER_LEN: usize = 16;
/// What `snappy-java` puts into a block.
const BLOCK_BYTES: usize = 32 << 10;
/// Snappy's densest element makes 64 bytes of 3.
const EXPANSION_MAX: u64 = 22;

/// Decompresses one block at a time.
pub(super) struct Reader<'a> {
    /// What is left of the compressed bytes.
    data: &'a [u8],
    framed: bool,
    limit: u64,
    block: &'a mut Vec<u8>,
    /// How much of the block has been read.
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(data: &'a [u8], limit: u64, block: &'a mut Vec<u8>) -> Result<Self, String> {
        block.clear();
        let framed = data.starts_with(&MAGIC);
        let data = if framed { after_header(data)? } else { data };
        Ok(Self { data, framed, limit, block, at: 0 })
    }

    /// Decompresses the next block; `false` at the end.
    fn next_block(&mut self) -> Result<bool, String> {
        if self.data.is_empty() {
            return Ok(false);
        }
        let compressed = if self.framed {
            while self.data.starts_with(&MAGIC) {
                self.data = after_header(self.data)?;
            }
            let Some((len, rest)) = self.data.split_first_chunk::<4>() else {
                return if self.data.is_empty() { Ok(false) } else { Err("a block's length is cut short".into()) };
            };
            let len = i32::from_be_bytes(*len);
            let (block, rest) = usize::try_from(len)
                .ok()
                .and_then(|len| rest.split_at_checked(len))
                .ok_or_else(|| format!("a block claims {len} bytes, and {} are left", rest.len()))?;
            self.data = rest;
            block
        } else {
            std::mem::take(&mut self.data)
        };
        self.decompress(compressed)?;
        Ok(true)
    }

    fn decompress(&mut self, compressed: &[u8]) -> Result<(), String> {
        let claimed = snap::raw::decompress_len(compressed).map_err(|error| error.to_string())?;
        let possible = compressed.len() as u64 * EXPANSION_MAX;
        if claimed as u64 > possible.min(self.limit) {
            return Err(format!("a block of {} bytes claims to hold {claimed}", compressed.len()));
        }
        self.at = 0;
        self.block.resize(claimed, 0);
        let written =
            snap::raw::Decoder::new().decompress(compressed, self.block).map_err(|error| error.to_string())?;
        assert_eq!(written, claimed, "snappy fills the block or fails");
        Ok(())
    }
}

fn after_header(data: &[u8]) -> Result<&[u8], String> {
    let Some((header, rest)) = data.split_first_chunk::<HEADER_LEN>() else {
        return Err("the header is cut short".into());
    };
    let version = i32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    if version < 1 {
        return Err(format!("version {version} of the framing is not supported"));
    }
    Ok(rest)
}

impl Read for Reader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if !self.next_block().map_err(io::Error::other)? {
                return Ok(0);
            }
        }
        let len = out.len().min(self.block.len() - self.at);
        out[..len].copy_from_slice(&self.block[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

/// Writes blocks of 32 KiB.
pub(super) struct Writer {
    out: Vec<u8>,
    pending: Vec<u8>,
}

impl Writer {
    pub(super) fn new(mut out: Vec<u8>) -> Self {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&1i32.to_be_bytes());
        out.extend_from_slice(&1i32.to_be_bytes());
        Self { out, pending: Vec::new() }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.put_block();
        self.out
    }

    fn put_block(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let block = snap::raw::Encoder::new().compress_vec(&self.pending).expect("32 KiB are within snappy's limits");
        self.out.extend_from_slice(&(block.len() as i32).to_be_bytes());
        self.out.extend_from_slice(&block);
        self.pending.clear();
    }
}

impl Write for Writer {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let len = data.len().min(BLOCK_BYTES - self.pending.len());
        self.pending.extend_from_slice(&data[..len]);
        if self.pending.len() == BLOCK_BYTES {
            self.put_block();
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "tidelog" as one block: its length, a literal of seven bytes.
    const BLOCK: &[u8] = b"\x07\x18tidelog";

    fn framed(blocks: &[&[u8]]) -> Vec<u8> {
        let mut bytes = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
        for block in blocks {
            bytes.extend_from_slice(&(block.len() as u32).to_be_bytes());
            bytes.extend_from_slice(block);
        }
        bytes
    }

    fn read(data: &[u8]) -> Result<Vec<u8>, String> {
        let mut block = Vec::new();
        let mut out = Vec::new();
        let mut reader = Reader::new(data, 1 << 20, &mut block)?;
        reader.read_to_end(&mut out).map_err(|error| error.to_string())?;
        Ok(out)
    }

    #[test]
    fn what_snappy_java_writes_is_read() {
        assert_eq!(read(&framed(&[BLOCK])), Ok(b"tidelog".to_vec()));
        assert_eq!(read(&framed(&[BLOCK, b"\0", BLOCK])), Ok(b"tidelogtidelog".to_vec()));
        assert_eq!(read(&framed(&[])), Ok(vec![]));
    }

    #[test]
    fn a_bare_block_and_joined_streams_are_read() {
        assert_eq!(read(BLOCK), Ok(b"tidelog".to_vec()));
        let mut joined = framed(&[BLOCK]);
        joined.extend_from_slice(&framed(&[BLOCK]));
        assert_eq!(read(&joined), Ok(b"tidelogtidelog".to_vec()));
    }

    #[test]
    fn the_framing_is_written_as_snappy_java_writes_it() {
        let mut writer = Writer::new(Vec::new());
        writer.write_all(b"tidelog").unwrap();
        assert_eq!(writer.finish(), framed(&[BLOCK]));
    }

    #[test]
    fn a_block_that_claims_more_than_snappy_can_express_is_refused_before_memory_is_taken() {
        // 4 GiB - 1, in a block of a few bytes.
        let claim = b"\xff\xff\xff\xff\x0f\x18tidelog";
        assert!(read(claim).unwrap_err().contains("claims to hold 4294967295"));
        assert!(read(&framed(&[claim])).unwrap_err().contains("claims to hold 4294967295"));
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let whole = framed(&[BLOCK]);
        for len in 0..whole.len() {
            // No bytes, or only the header, are read as nothing, and the check of the records notices that. Everything
            // else is an error.
            let expected_empty = len == 0 || len == HEADER_LEN;
            assert_eq!(read(&whole[..len]).ok(), expected_empty.then(Vec::new), "{len} bytes");
        }
        let mut negative = framed(&[]);
        negative.extend_from_slice(&(-5i32).to_be_bytes());
        assert!(read(&negative).is_err());
    }

    #[test]
    fn a_later_version_of_the_framing_is_read_and_an_earlier_one_refused() {
        let of_version = |version: i32| {
            let mut bytes = framed(&[BLOCK]);
            bytes[8..12].copy_from_slice(&version.to_be_bytes());
            read(&bytes)
        };
        assert_eq!(of_version(2), Ok(b"tidelog".to_vec()));
        assert!(of_version(0).is_err());
        assert!(of_version(-1).is_err());
    }

    #[test]
    fn blocks_hold_32_kib_however_they_are_written() {
        let mut writer = Writer::new(Vec::new());
        writer.write_all(&[7; 10]).unwrap();
        writer.write_all(&[7; 70_000]).unwrap();
        let bytes = writer.finish();
        let mut rest = &bytes[HEADER_LEN..];
        let mut sizes = Vec::new();
        while let Some((len, after)) = rest.split_first_chunk::<4>() {
            let (block, after) = after.split_at(u32::from_be_bytes(*len) as usize);
            sizes.push(snap::raw::decompress_len(block).unwrap());
            rest = after;
        }
        assert_eq!(sizes, [32_768, 32_768, 4_474]);
    }
}
