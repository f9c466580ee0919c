//! zstd without the C library, for targets without a C compiler. It is slower and has only one level.

use super::compression::ZSTD_WINDOW_LOG_MAX;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use std::io::{self, Read, Write};

/// Reads one frame after the other.
pub(super) struct Reader<'a> {
    /// The compressed bytes that are not read yet, while `frame` is `None`. A frame that is being read holds the rest
    /// itself.
    data: &'a [u8],
    frame: Option<StreamingDecoder<&'a [u8], FrameDecoder>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, frame: None }
    }

    /// Passes over the frames that a decoder must ignore (RFC 8878, section 3.1.2).
    fn skip_skippable(&mut self) -> io::Result<()> {
        while let Some((head, rest)) = self.data.split_first_chunk::<8>() {
            let (magic, len) = head.split_at(4);
            if magic[0] & 0xf0 != 0x50 || magic[1..] != [0x2a, 0x4d, 0x18] {
                break;
            }
            let len = u32::from_le_bytes(len.try_into().expect("the slice has four bytes"));
            self.data = rest.get(len as usize..).ok_or_else(|| io::Error::other("a frame is cut short"))?;
        }
        Ok(())
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(mut frame) = self.frame.take() {
                let read = frame.read(out)?;
                if read > 0 {
                    self.frame = Some(frame);
                    return Ok(read);
                }
                // The frame's own checksum is not verified: it is optional, and the checksum of the batch covers the
                // same bytes.
                self.data = frame.into_inner();
            }
            self.skip_skippable()?;
            if self.data.is_empty() {
                return Ok(0);
            }
            let frame = StreamingDecoder::new_with_max_window_size(self.data, 1 << ZSTD_WINDOW_LOG_MAX);
            self.frame = Some(frame.map_err(io::Error::other)?);
        }
    }
}

/// Collects everything and compresses it as one frame.
pub(super) struct Writer {
    out: Vec<u8>,
    data: Vec<u8>,
}

impl Writer {
    pub(super) fn new(out: Vec<u8>) -> Self {
        Self { out, data: Vec::new() }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.out.append(&mut compress_to_vec(self.data.as_slice(), CompressionLevel::Fastest));
        self.out
    }
}

impl Write for Writer {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.data.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::compression::{Scratch, compress, decompress};
    use super::super::{BatchError, Codec};
    use super::*;

    fn text() -> Vec<u8> {
        (0..20_000).flat_map(|n: u32| format!("record {} of {n}\n", n.wrapping_mul(n) % 97).into_bytes()).collect()
    }

    fn read(data: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut reader = Reader::new(data);
        reader.read_to_end(&mut out)?;
        assert_eq!(reader.data, b"");
        Ok(out)
    }

    #[test]
    fn both_implementations_read_what_either_writes() {
        let text = text();
        let mut writer = Writer::new(Vec::new());
        writer.write_all(&text).unwrap();
        let pure = writer.finish();
        assert!(pure.len() < text.len() / 2);
        for level in [-5, 3, 19] {
            let linked = compress(Codec::Zstd, level, &text);
            assert_eq!(read(&linked).unwrap(), text);
        }
        assert_eq!(read(&pure).unwrap(), text);
        assert_eq!(decompress(Codec::Zstd, &pure, 1 << 20, &mut Scratch::default()), Ok(text));
    }

    #[test]
    fn frames_are_read_one_after_the_other_and_skippable_ones_passed_over() {
        let frame = compress(Codec::Zstd, 3, b"tidelog");
        let skippable = b"\x5a\x2a\x4d\x18\x03\0\0\0abc";
        let joined = [&skippable[..], &frame, skippable, skippable, &frame].concat();
        assert_eq!(read(&joined).unwrap(), b"tidelogtidelog");
        let same: Result<Vec<u8>, BatchError> = decompress(Codec::Zstd, &joined, 100, &mut Scratch::default());
        assert_eq!(same.as_deref(), Ok(&b"tidelogtidelog"[..]));
    }

    #[test]
    fn damage_is_an_error() {
        let frame = compress(Codec::Zstd, 3, &text());
        for len in 1..200 {
            assert!(read(&frame[..frame.len() - len]).is_err(), "{len} bytes cut");
        }
        assert!(read(b"no frame").is_err());
        // Each has one half of the magic of a skippable frame.
        assert!(read(b"\x5a\x2a\x4d\x19\x03\0\0\0abc").is_err());
        assert!(read(b"\x4a\x2a\x4d\x18\x03\0\0\0abc").is_err());
    }
}
