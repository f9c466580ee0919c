//! Batches that were made to do harm. Each is refused, and takes no more memory than the limits allow.

use super::super::*;
use super::{produced, sealed};
use bytes::Bytes;
use proptest::prelude::*;
use tidelog_wire::ErrorCode;
use tidelog_wire::ids::{LeaderEpoch, Offset};

fn check(batch: Bytes) -> Checked {
    check_produced(batch, &BatchLimits::default())
}

/// Checks `records` as the records of a batch of one record. Gives the text of the refusal, and asserts that the
/// iterator refuses the batch too.
fn refusal(records: &[u8]) -> String {
    let batch = sealed(records, |_| ());
    let error = check(batch.clone()).unwrap_err();
    assert_eq!(error.error_code(), ErrorCode::InvalidRecord, "{error}");
    let read = super::super::records(&batch, &BatchLimits::default()).unwrap();
    assert!(read.collect::<Result<Vec<_>, _>>().is_err(), "{error}");
    error.to_string()
}

/// A record: its length, no attributes, no deltas, then `rest`.
fn record(rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    varint::put_varint(&mut bytes, rest.len() as i32 + 3);
    bytes.extend_from_slice(&[0, 0, 0]);
    bytes.extend_from_slice(rest);
    bytes
}

const MAX_VARINT: [u8; 5] = [0xfe, 0xff, 0xff, 0xff, 0x0f];

#[test]
fn every_flipped_bit_under_the_checksum_is_refused() {
    for codec in Codec::ALL {
        let whole = produced(codec, 5);
        for bit in (0..whole.len() * 8).filter(|bit| !matches!(bit / 8, 0..8 | 12..16)) {
            let mut flipped = whole.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(check(flipped.into()).is_err(), "{codec:?}, bit {bit}");
        }
    }
}

#[test]
fn a_batch_cut_at_any_byte_is_incomplete() {
    let whole = produced(Codec::Zstd, 5);
    for len in 0..whole.len() {
        let needed = if len < 17 { 17 } else { whole.len() as u64 };
        let error = check(whole.slice(..len)).unwrap_err();
        assert_eq!(error, BatchError::Incomplete { needed, have: len as u64 });
        assert_eq!(error.error_code(), ErrorCode::InvalidRecord);
        assert_eq!(records(&whole.slice(..len), &BatchLimits::default()).unwrap_err(), error);
    }
}

#[test]
fn a_second_batch_after_the_first_is_refused() {
    let whole = produced(Codec::None, 5);
    let twice = [&whole[..], &whole[..]].concat();
    assert_eq!(check(twice.into()), Err(BatchError::TrailingBytes { bytes: whole.len() as u64 }));
    let more = Bytes::from([&whole[..], &[0]].concat());
    let error = records(&more, &BatchLimits::default()).unwrap_err();
    assert_eq!(error, BatchError::TrailingBytes { bytes: 1 });
}

#[test]
fn bytes_after_the_batch_that_are_no_whole_batch_are_cut_off() {
    let whole = produced(Codec::None, 5);
    let with = |rest: &[u8]| check([&whole[..], rest].concat().into()).map(|checked| checked.bytes().clone());
    for rest in [&[0][..], &[7; 11], &whole[..12], &whole[..16], &whole[..17], &whole[..whole.len() - 1]] {
        assert_eq!(with(rest), Ok(whole.clone()), "{rest:?}");
    }
    // As in Kafka, a size that no batch has, and a magic that does not exist, are damage.
    assert_eq!(with(&[0; 12]).unwrap_err().error_code(), ErrorCode::CorruptMessage);
    let mut magic = whole[..17].to_vec();
    magic[16] = 3;
    assert_eq!(with(&magic).unwrap_err().error_code(), ErrorCode::CorruptMessage);
}

#[test]
fn the_old_formats_are_refused_as_kafka_4_does() {
    for (magic, code) in [(0, ErrorCode::InvalidRecord), (1, ErrorCode::InvalidRecord), (3, ErrorCode::CorruptMessage)]
    {
        let mut batch = produced(Codec::None, 1).to_vec();
        batch[16] = magic;
        assert_eq!(check(batch.into()).unwrap_err().error_code(), code);
    }
}

#[test]
fn headers_that_a_producer_may_not_send_are_refused() {
    let good = record(&[1, 1, 0]);
    assert!(check(sealed(&good, |_| ())).is_ok());
    let code = |change: fn(&mut BatchHeader)| check(sealed(&good, change)).unwrap_err().error_code();
    assert_eq!(code(|h| h.base_offset = Offset(1)), ErrorCode::InvalidRecord);
    assert_eq!(code(|h| h.records_count = 0), ErrorCode::InvalidRecord);
    assert_eq!(code(|h| h.records_count = 2), ErrorCode::InvalidRecord);
    assert_eq!(code(|h| h.records_count = i32::MAX), ErrorCode::InvalidRecord);
    assert_eq!(code(|h| h.last_offset_delta = 1), ErrorCode::InvalidRecord);
    assert_eq!(code(|h| h.last_offset_delta = -1), ErrorCode::InvalidRecord);
    assert_eq!(code(|h| h.attributes = 0x20), ErrorCode::InvalidRecord);
    assert_eq!(code(|h| h.attributes = 0x40), ErrorCode::InvalidRecord);
    assert_eq!(code(|h| h.producer_id.0 = 5), ErrorCode::InvalidRecord);
    assert_eq!(code(|h| h.attributes = 5), ErrorCode::UnknownServerError);
    // The offsets in the header allow this many records, but the bytes do not hold them.
    assert_eq!(code(|h| (h.records_count, h.last_offset_delta) = (i32::MAX, i32::MAX - 1)), ErrorCode::InvalidRecord);
}

#[test]
fn zstd_is_for_those_who_negotiated_it() {
    let limits = BatchLimits { zstd_allowed: false, ..BatchLimits::default() };
    let refused = check_produced(produced(Codec::Zstd, 3), &limits).unwrap_err();
    assert_eq!(refused.error_code(), ErrorCode::UnsupportedCompressionType);
    assert!(check_produced(produced(Codec::Lz4, 3), &limits).is_ok());
}

#[test]
fn records_that_are_not_what_they_claim_are_refused() {
    let texts: Vec<_> = [
        record(&[1, 1, 0, 9]),                             // longer than its fields
        record(&[1, 1]),                                   // no count of headers
        record(&[2, 2, 0]),                                // nor here, after a key and a value
        record(&[&[1, 1][..], &MAX_VARINT].concat()),      // i32::MAX headers
        record(&[1, 1, 1]),                                // -1 headers
        record(&[1, 1, 2, 1, 1]),                          // a header without a key
        record(&[3, 1, 0]),                                // a key of length -2
        record(&[1, 3, 0]),                                // a value of length -2
        record(&[1, 1, 2, 0, 3]),                          // a header's value of length -2
        record(&MAX_VARINT),                               // a key of 2 GiB
        record(&[&[1][..], &MAX_VARINT].concat()),         // a value of 2 GiB
        record(&[1, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 0]),  // a varint of six bytes
        vec![1, 0, 0, 0, 1, 1, 0],                         // a record of length -1
        vec![16, 0, 0, 0, 1, 1, 0],                        // a record of two bytes more than there are
        [&MAX_VARINT[..], &[0, 0, 0, 1, 1, 0]].concat(),   // a record of 2 GiB
        vec![4, 0, 0, 0, 1, 1, 0],                         // a record that ends within its head
        [record(&[1, 1, 0]), vec![0]].concat(),            // a byte after the last record
        [record(&[1, 1, 0]), record(&[1, 1, 0])].concat(), // a record more than counted
        vec![12, 0, 0, 2, 1, 1, 0],                        // an offset delta of 1 in place of 0
        vec![12, 0, 0, 1, 1, 1, 0],                        // and one of -1
        vec![],
    ]
    .iter()
    .map(|records| refusal(records))
    .collect();
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn the_key_of_a_header_may_be_any_bytes() {
    for key in [&[0xff][..], &[0xc3, 0x28], &[0xc3]] {
        let batch = sealed(&record(&[&[1, 1, 2, key.len() as u8 * 2], key, &[1]].concat()), |_| ());
        let checked = check(batch.clone()).unwrap();
        assert_eq!(checked.bytes(), &batch, "{key:?}");
        let read: Vec<_> = records(&batch, &BatchLimits::default()).unwrap().map(Result::unwrap).collect();
        assert_eq!(&*read[0].headers[0].key, String::from_utf8_lossy(key));
    }
}

#[test]
fn timestamps_beyond_64_bits_are_refused_and_those_at_the_edge_are_not() {
    let delta = |delta: i64| {
        let mut body = vec![0];
        varint::put_varlong(&mut body, delta);
        body.extend_from_slice(&[0, 1, 1, 0]);
        let mut record = Vec::new();
        varint::put_varint(&mut record, body.len() as i32);
        record.extend_from_slice(&body);
        record
    };
    let at = |base: i64, by: i64| {
        let batch = sealed(&delta(by), |header| header.base_timestamp = base);
        check(batch).map(|checked| checked.facts().max_timestamp)
    };
    assert_eq!(at(i64::MAX, 0), Ok(i64::MAX));
    assert!(at(i64::MAX, 1).is_err());
    assert!(at(i64::MIN, -1).is_err());
    assert!(at(i64::MIN, i64::MIN).is_err());
    assert_eq!(at(i64::MAX, i64::MIN), Ok(-1));
    assert_eq!(at(i64::MIN, i64::MAX), Ok(-1));
    assert_eq!(at(i64::MIN, 0), Ok(NO_TIMESTAMP), "as in Kafka, a timestamp below -1 counts as none");
}

#[test]
#[should_panic(expected = "offsets are at least 0 and do not overflow")]
fn offsets_beyond_the_edge_are_never_assigned() {
    let checked = check(produced(Codec::None, 10)).unwrap();
    checked.assigned_header(Offset(i64::MAX - 9), LeaderEpoch(0), None);
}

#[test]
fn offsets_at_the_edge_are_assigned() {
    let checked = check(produced(Codec::None, 10)).unwrap();
    let header = checked.assigned_header(Offset(i64::MAX - 10), LeaderEpoch(i32::MAX), None);
    assert_eq!(header.next_offset(), Offset(i64::MAX));
    assert_eq!(BatchHeader::parse(&header.encode()), Ok(header));
}

/// A batch whose records are `megabytes` MiB of zeros in one value, compressed.
fn bomb(codec: Codec, megabytes: usize) -> Bytes {
    BatchBuilder::new()
        .compressed(codec, codec.default_level())
        .push(1, None, Some(&vec![0; megabytes << 20]), &[])
        .build()
}

#[test]
fn records_that_decompress_to_too_much_are_refused() {
    for codec in &Codec::ALL[1..] {
        let batch = bomb(*codec, 16);
        assert!(batch.len() < 1 << 20, "{codec:?}");
        let limits = BatchLimits { decompressed_bytes_max: 4 << 20, ..BatchLimits::default() };
        let refused = check_produced(batch.clone(), &limits).unwrap_err();
        assert_eq!(refused, BatchError::DecompressedTooLarge { limit: 4 << 20 }, "{codec:?}");
        assert_eq!(refused.error_code(), ErrorCode::MessageTooLarge);
        assert!(records(&batch, &limits).is_err(), "{codec:?}");
        // Kafka takes it, so the limit is far above, however few the compressed bytes are.
        assert_eq!(check(batch).unwrap().facts().first_without_key, Some(0), "{codec:?}");
    }
}

#[test]
fn compressed_bytes_that_are_damaged_cut_or_too_many_are_refused() {
    for codec in &Codec::ALL[1..] {
        let whole = produced(*codec, 20);
        let compressed = &whole[BatchHeader::LEN..];
        let with = |compressed: &[u8]| {
            let batch = sealed(compressed, |header| {
                header.attributes = codec.id();
                header.base_timestamp = 1_700_000_000_000;
                header.max_timestamp = 1_700_000_000_019;
                (header.last_offset_delta, header.records_count) = (19, 20);
            });
            check(batch)
        };
        assert_eq!(with(compressed).map(|checked| checked.bytes().clone()), Ok(whole.clone()), "{codec:?}");
        for len in 0..compressed.len() {
            let error = with(&compressed[..len]).unwrap_err();
            assert_eq!(error.error_code(), ErrorCode::InvalidRecord, "{codec:?}, {len}: {error}");
        }
        for garbage in [&[0][..], b"garbage", compressed] {
            // As in Kafka, bytes that begin no gzip member are passed over.
            let is_passed_over = *codec == Codec::Gzip && garbage != compressed;
            let checked = with(&[compressed, garbage].concat());
            assert_eq!(checked.is_ok(), is_passed_over, "{codec:?}, {garbage:?} at the end");
        }
    }
}

#[test]
fn lz4_frames_that_consumers_cannot_read_are_refused() {
    let records = &produced(Codec::None, 5)[BatchHeader::LEN..];
    let frame = compression::compress(Codec::Lz4, 9, records);
    let with = |change: fn(&mut Vec<u8>)| {
        let mut frame = frame.clone();
        change(&mut frame);
        compression::decompress(Codec::Lz4, &frame, 1 << 20, &mut Scratch::default())
    };
    assert_eq!(with(|_| ()).as_deref(), Ok(records));
    for change in [
        |frame: &mut Vec<u8>| frame[6] ^= 1, // the checksum of the frame's header
        |frame: &mut Vec<u8>| frame.truncate(frame.len() - 4), // no end mark
        |frame: &mut Vec<u8>| frame.push(0),
        |frame: &mut Vec<u8>| frame[0] = 0x02,  // the magic of old frames
        |frame: &mut Vec<u8>| frame[10] = 0x7f, // a block of 2 GiB
    ] {
        assert!(matches!(with(change), Err(BatchError::Decompression { codec: Codec::Lz4, .. })));
    }
}

/// Whether `frame` is read when its header is replaced by `header`, under any checksum of the header.
fn is_read_with_lz4_header(frame: &[u8], header: &[u8]) -> bool {
    (0..=255).any(|checksum| {
        let frame = [&frame[..4], header, &[checksum], &frame[7..]].concat();
        compression::decompress(Codec::Lz4, &frame, 1 << 20, &mut Scratch::default()).is_ok()
    })
}

#[test]
fn lz4_headers_that_consumers_cannot_read_are_refused_whatever_their_checksum() {
    let frame = compression::compress(Codec::Lz4, 9, b"tidelog");
    assert!(is_read_with_lz4_header(&frame, &[0x60, 0x40]));
    for header in [
        &[0x40, 0x40][..],                     // blocks that depend on each other
        &[0x20, 0x40],                         // version 0
        &[0xa0, 0x40],                         // version 2
        &[0x61, 0x40, 0, 0, 0, 0],             // a dictionary
        &[0x62, 0x40],                         // a reserved flag
        &[0x60, 0x30],                         // a block size that does not exist
        &[0x60, 0x41],                         // a reserved bit in the block size
        &[0x68, 0x40, 8, 0, 0, 0, 0, 0, 0, 0], // a content of 8 bytes, which are 7
    ] {
        assert!(!is_read_with_lz4_header(&frame, header), "{header:x?}");
    }
}

#[test]
fn lz4_blocks_may_be_as_long_as_their_frame_says_and_no_longer() {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    use std::io::Write;
    let frame = |size: BlockSize, data: &[u8]| {
        let info = FrameInfo::new().block_size(size).block_mode(BlockMode::Independent);
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    };
    // Bytes that no codec makes shorter.
    let noise: Vec<u8> =
        (0..4u64 << 17).flat_map(|n| (n * n).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()).collect();
    for (size, len) in [
        (BlockSize::Max64KB, 64 << 10),
        (BlockSize::Max256KB, 256 << 10),
        (BlockSize::Max1MB, 1 << 20),
        (BlockSize::Max4MB, 4 << 20),
    ] {
        let full = frame(size, &noise[..len]);
        assert_eq!(full.len(), 7 + 4 + len + 4, "one block");
        let read = compression::decompress(Codec::Lz4, &full, len as u64, &mut Scratch::default()).unwrap();
        assert!(read == noise[..len], "{len}");
    }
    let longer = frame(BlockSize::Max256KB, &noise[..65_537]);
    assert!(is_read_with_lz4_header(&longer, &[0x60, 0x50]));
    assert!(!is_read_with_lz4_header(&longer, &[0x60, 0x40]));
}

#[test]
fn an_empty_lz4_block_hides_nothing_behind_it() {
    let whole = produced(Codec::Lz4, 5);
    let frame = &whole[BatchHeader::LEN..];
    let (header, blocks) = frame[..frame.len() - 4].split_at(7);
    let end = &[0; 4][..];
    let (compressed, plain) = (&[1, 0, 0, 0, 0][..], &[0, 0, 0, 0x80][..]);
    for frame in [
        [header, blocks, compressed, blocks, end].concat(),
        [header, blocks, plain, blocks, end].concat(),
        [header, blocks, plain].concat(),
    ] {
        let error = compression::decompress(Codec::Lz4, &frame, 1 << 20, &mut Scratch::default()).unwrap_err();
        assert!(matches!(error, BatchError::Decompression { codec: Codec::Lz4, .. }), "{error}");
        let batch = sealed(&frame, |header| *header = BatchHeader::parse(&whole).unwrap());
        assert_eq!(check(batch), Err(error));
    }
}

#[test]
fn decompressed_bytes_may_reach_their_limit_and_not_pass_it() {
    let data = b"tidelog ".repeat(100);
    for codec in Codec::ALL {
        let compressed = compression::compress(codec, codec.default_level(), &data);
        let within = |limit| compression::decompress(codec, &compressed, limit, &mut Scratch::default());
        assert_eq!(within(800).as_ref(), Ok(&data), "{codec:?}");
        assert!(within(799).is_err(), "{codec:?}");
    }
}

#[test]
fn one_scratch_serves_batch_after_batch_even_after_failures() {
    let mut scratch = Scratch::default();
    for round in 0..3 {
        for codec in Codec::ALL {
            let whole = produced(codec, 30);
            let cut = sealed(&whole[BatchHeader::LEN..whole.len() - 9 - round], |header| {
                header.attributes = codec.id();
                (header.last_offset_delta, header.records_count) = (29, 30);
            });
            assert!(check_produced_with(cut, &BatchLimits::default(), &mut scratch).is_err());
            assert!(check_produced_with(whole, &BatchLimits::default(), &mut scratch).is_ok());
        }
    }
    assert!(!scratch.window.is_empty(), "the memory is there for the next");
}

#[test]
fn a_long_header_key_may_fall_anywhere_in_a_window() {
    // 64 KiB windows of the decompressor cut characters of two, three and four bytes at every place.
    for pad in 0..5 {
        let key = "ä€😀".repeat(20_000);
        let value = vec![b'x'; 65_536 - 40 + pad];
        for codec in Codec::ALL {
            let mut builder = BatchBuilder::new().compressed(codec, 1);
            builder.push(1, None, Some(&value), &[(&key, None)]);
            let checked = check(builder.build()).unwrap();
            assert!(checked.facts().uncompressed_bytes > 200_000);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_under_a_right_checksum_make_it_panic(
        mut batch in proptest::sample::select(vec![0i16, 1, 2, 3, 4]).prop_map(|id| produced(Codec::from_id(id).unwrap(), 6).to_vec()),
        at: proptest::sample::Index, by in proptest::collection::vec(any::<u8>(), 1..8),
    ) {
        let at = 21 + at.index(batch.len() - 21);
        let end = batch.len().min(at + by.len());
        batch[at..end].copy_from_slice(&by[..end - at]);
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        let batch = Bytes::from(batch);
        let checked = check(batch.clone());
        let read = records(&batch, &BatchLimits::default())
            .and_then(|records| records.collect::<Result<Vec<_>, _>>());
        if let Ok(checked) = checked {
            // A reader can read whatever the check accepts.
            prop_assert_eq!(read.unwrap().len(), checked.records_count() as usize);
            checked.recompress(Codec::Lz4, 1);
        }
    }

    #[test]
    fn no_bytes_at_all_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = check(bytes.clone().into());
        let _ = check_own(bytes.clone().into(), &BatchLimits::default());
        Scan::new(&bytes, 0, false).for_each(drop);
        for codec in Codec::ALL {
            let _ = compression::decompress(codec, &bytes, 1 << 16, &mut Scratch::default());
        }
    }
}
