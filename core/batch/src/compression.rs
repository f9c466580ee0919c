//! The four codecs of a batch's records, in Kafka's framing: gzip (RFC 1952), snappy (`xerial`, or one bare block),
//! lz4 (one frame of independent blocks), zstd (frames).
//!
//! Decompression is a stream, so nothing is allocated because the input claims a size. What a decoder holds at one time
//! is bounded by the format: a gzip window (32 KiB), an lz4 block (4 MiB), a snappy block (22 times its compressed
//! bytes, which is all that snappy can express), a zstd window (see `ZSTD_WINDOW_LOG_MAX`).

use super::error::BatchError;
#[cfg(not(feature = "zstd-c"))]
use super::pure_zstd;
use super::xerial;
use std::io::{self, Read, Write};
use std::ops::RangeInclusive;

/// The largest zstd window that is decoded, as a power of two. It is the default of zstd itself, so that the output of
/// every level is read. Of a window's memory only as much is touched as there is output.
pub(super) const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// How a batch's records are compressed. The numbers are those in the attributes of a batch's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Codec {
    #[default]
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    /// KIP-110.
    Zstd = 4,
}

impl Codec {
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    pub const fn id(self) -> i16 {
        self as i16
    }

    pub fn from_id(id: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.id() == id)
    }

    /// The name in `compression.type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }

    /// The level where none is configured (KIP-390).
    pub const fn default_level(self) -> i32 {
        match self {
            Self::None | Self::Snappy => 0,
            Self::Gzip => -1,
            Self::Lz4 => 9,
            Self::Zstd => 3,
        }
    }

    /// The levels that can be configured (gzip also takes its default, -1); `None` for a codec without levels.
    pub const fn levels(self) -> Option<RangeInclusive<i32>> {
        match self {
            Self::None | Self::Snappy => None,
            Self::Gzip => Some(1..=9),
            Self::Lz4 => Some(1..=17),
            Self::Zstd => Some(-131_072..=22),
        }
    }
}

/// Buffers and decompression contexts that one check leaves for the next one. A world keeps one `Scratch` for each
/// thread that checks batches.
#[derive(Default)]
pub struct Scratch {
    pub(super) window: Vec<u8>,
    decoding: DecoderScratch,
}

/// The part of a [`Scratch`] that a decoder borrows.
#[derive(Default)]
pub(super) struct DecoderScratch {
    block: Vec<u8>,
    #[cfg(feature = "zstd-c")]
    zstd: Option<zstd::zstd_safe::DCtx<'static>>,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("window_bytes", &self.window.capacity()).finish_non_exhaustive()
    }
}

impl Scratch {
    pub(super) fn parts(&mut self) -> (&mut Vec<u8>, &mut DecoderScratch) {
        (&mut self.window, &mut self.decoding)
    }
}

/// Compresses `data` as one batch's records.
///
/// The level is ignored for lz4, and for zstd without the C library.
pub fn compress(codec: Codec, level: i32, data: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(codec, level, Vec::new(), data.len() as u64);
    encoder.write_all(data).expect("writing to memory does not fail");
    encoder.finish()
}

/// Decompresses a batch's records, up to `limit` bytes.
pub fn decompress(codec: Codec, data: &[u8], limit: u64, scratch: &mut Scratch) -> Result<Vec<u8>, BatchError> {
    let mut decoder = Decoder::new(codec, data, limit, &mut scratch.decoding)?;
    let mut out = Vec::new();
    let mut read = || -> io::Result<()> {
        decoder.by_ref().take(limit.saturating_add(1)).read_to_end(&mut out)?;
        if out.len() as u64 <= limit { decoder.finish() } else { Ok(()) }
    };
    read().map_err(|error| damaged(codec, error))?;
    if out.len() as u64 > limit {
        return Err(BatchError::DecompressedTooLarge { limit });
    }
    Ok(out)
}

pub(super) fn damaged(codec: Codec, error: impl ToString) -> BatchError {
    BatchError::Decompression { codec, text: error.to_string() }
}

/// Reads the decompressed bytes.
pub(super) enum Decoder<'a> {
    None(&'a [u8]),
    Gzip(Box<GzipMembers<'a>>),
    Snappy(xerial::Reader<'a>),
    Lz4(Box<lz4_flex::frame::FrameDecoder<&'a [u8]>>),
    #[cfg(feature = "zstd-c")]
    Zstd(zstd::stream::read::Decoder<'a, &'a [u8]>),
    #[cfg(not(feature = "zstd-c"))]
    Zstd(Box<pure_zstd::Reader<'a>>),
}

impl<'a> Decoder<'a> {
    /// `limit`: the most decompressed bytes. A block that claims more is refused at once.
    pub(super) fn new(
        codec: Codec,
        data: &'a [u8],
        limit: u64,
        scratch: &'a mut DecoderScratch,
    ) -> Result<Self, BatchError> {
        Ok(match codec {
            Codec::None => Self::None(data),
            Codec::Gzip => Self::Gzip(Box::new(GzipMembers(flate2::bufread::GzDecoder::new(data)))),
            Codec::Snappy => {
                let reader = xerial::Reader::new(data, limit, &mut scratch.block);
                Self::Snappy(reader.map_err(|error| damaged(codec, error))?)
            }
            Codec::Lz4 => {
                lz4_frame_is_whole(data).map_err(|text| damaged(codec, text))?;
                Self::Lz4(Box::new(lz4_flex::frame::FrameDecoder::new(data)))
            }
            #[cfg(feature = "zstd-c")]
            Codec::Zstd => Self::Zstd(zstd_decoder(data, &mut scratch.zstd)),
            #[cfg(not(feature = "zstd-c"))]
            Codec::Zstd => Self::Zstd(Box::new(pure_zstd::Reader::new(data))),
        })
    }

    /// Fails if compressed bytes are left over. Called after the last decompressed byte was read. `lz4_flex` takes a
    /// block that decompresses to nothing for the end of the frame, even if other blocks follow. The other decoders end
    /// only where their input ends.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Lz4(decoder) if !decoder.get_ref().is_empty() => {
                Err(io::Error::other("compressed bytes follow an empty block"))
            }
            _ => Ok(()),
        }
    }
}

impl Read for Decoder<'_> {
    #[inline]
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(data) => data.read(out),
            Self::Gzip(decoder) => decoder.read(out),
            Self::Snappy(decoder) => decoder.read(out),
            Self::Lz4(decoder) => decoder.read(out),
            Self::Zstd(decoder) => decoder.read(out),
        }
    }
}

/// Reads gzip members one after the other. As in Java's reader, and so in Kafka, bytes behind a member that do not
/// begin another one are passed over: some compressors pad with zeros.
pub(super) struct GzipMembers<'a>(flate2::bufread::GzDecoder<&'a [u8]>);

impl Read for GzipMembers<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        const MAGIC: [u8; 2] = [0x1f, 0x8b];
        loop {
            let read = self.0.read(out)?;
            let rest = *self.0.get_ref();
            if read > 0 || out.is_empty() || !rest.starts_with(&MAGIC) {
                return Ok(read);
            }
            self.0 = flate2::bufread::GzDecoder::new(rest);
        }
    }
}

#[cfg(feature = "zstd-c")]
fn zstd_decoder<'a>(
    data: &'a [u8],
    context: &'a mut Option<zstd::zstd_safe::DCtx<'static>>,
) -> zstd::stream::read::Decoder<'a, &'a [u8]> {
    use zstd::zstd_safe::{DCtx, DParameter, ResetDirective};
    let context = context.get_or_insert_with(|| {
        let mut context = DCtx::create();
        context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).expect("a window zstd allows");
        context
    });
    // Decoding of the batch before may have stopped in the middle of a frame.
    context.reset(ResetDirective::SessionOnly).expect("a session can always be reset");
    zstd::stream::read::Decoder::with_context(data, context)
}

/// Checks that an lz4 frame has the structure that consumers written for Kafka understand: exactly one frame, version
/// 1, independent blocks, no dictionary, ended by its end mark. (`lz4_flex` also takes linked blocks and a missing end
/// mark. The sizes of the blocks are left to it.)
fn lz4_frame_is_whole(data: &[u8]) -> Result<(), &'static str> {
    const CUT: &str = "the frame is cut short";
    let (magic, rest) = data.split_first_chunk::<4>().ok_or(CUT)?;
    if *magic != [0x04, 0x22, 0x4d, 0x18] {
        return Err("it does not begin with the magic of an lz4 frame");
    }
    let (&[flags, _], rest) = rest.split_first_chunk::<2>().ok_or(CUT)?;
    if flags & 0xe3 != 0x60 {
        return Err("only frames of version 1 with independent blocks and without a dictionary are supported");
    }
    let (block_checksums, content_size, content_checksum) = (flags & 0x10 != 0, flags & 0x08 != 0, flags & 0x04 != 0);
    let mut rest = rest.get(if content_size { 9 } else { 1 }..).ok_or(CUT)?;
    loop {
        let (word, after) = rest.split_first_chunk::<4>().ok_or(CUT)?;
        let word = u32::from_le_bytes(*word);
        // An uncompressed block of no bytes is 0x8000_0000. Kafka's own reader takes such a block for the end, other
        // readers do not.
        if word == 0 {
            let after = after.get(if content_checksum { 4 } else { 0 }..).ok_or(CUT)?;
            return if after.is_empty() { Ok(()) } else { Err("bytes follow the end of the frame") };
        }
        let len = (word & 0x7fff_ffff) as usize;
        rest = after.get(len + if block_checksums { 4 } else { 0 }..).ok_or(CUT)?;
    }
}

/// Compresses what is written to it.
pub(super) enum Encoder {
    None(Vec<u8>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Snappy(xerial::Writer),
    Lz4(Box<lz4_flex::frame::FrameEncoder<Vec<u8>>>),
    #[cfg(feature = "zstd-c")]
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    #[cfg(not(feature = "zstd-c"))]
    Zstd(pure_zstd::Writer),
}

impl Encoder {
    /// Compressed bytes are appended to `out`. `expected_bytes` is exactly how many uncompressed bytes will be written.
    pub(super) fn new(codec: Codec, level: i32, out: Vec<u8>, expected_bytes: u64) -> Self {
        match codec {
            Codec::None => Self::None(out),
            Codec::Gzip => {
                let level = if (1..=9).contains(&level) { level as u32 } else { 6 };
                Self::Gzip(flate2::write::GzEncoder::new(out, flate2::Compression::new(level)))
            }
            Codec::Snappy => Self::Snappy(xerial::Writer::new(out)),
            Codec::Lz4 => {
                use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
                let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
                Self::Lz4(Box::new(FrameEncoder::with_frame_info(info, out)))
            }
            #[cfg(feature = "zstd-c")]
            Codec::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(out, level).expect("a zstd context can be created");
                // Then zstd chooses a window that is no larger than the content.
                encoder.set_pledged_src_size(Some(expected_bytes)).expect("nothing was written yet");
                Self::Zstd(encoder)
            }
            #[cfg(not(feature = "zstd-c"))]
            Codec::Zstd => {
                let _ = expected_bytes;
                Self::Zstd(pure_zstd::Writer::new(out))
            }
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        const IN_MEMORY: &str = "compressing into memory does not fail";
        match self {
            Self::None(out) => out,
            Self::Gzip(encoder) => encoder.finish().expect(IN_MEMORY),
            Self::Snappy(encoder) => encoder.finish(),
            Self::Lz4(encoder) => encoder.finish().expect(IN_MEMORY),
            #[cfg(feature = "zstd-c")]
            Self::Zstd(encoder) => encoder.finish().expect(IN_MEMORY),
            #[cfg(not(feature = "zstd-c"))]
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl Write for Encoder {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(out) => out.write(data),
            Self::Gzip(encoder) => encoder.write(data),
            Self::Snappy(encoder) => encoder.write(data),
            Self::Lz4(encoder) => encoder.write(data),
            Self::Zstd(encoder) => encoder.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        // `finish` writes everything out.
        Ok(())
    }
}
