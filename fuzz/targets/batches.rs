//! The records of a Produce. If bit 0 of the first byte is set, length and checksum are corrected first, so that the
//! fuzzer gets past them.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidelog_core::batch::{BatchHeader, BatchLimits, Codec, Scan, check_produced, records};
use tidelog_core::ids::{LeaderEpoch, Offset};
use tidelog_core::time::WallMs;

fuzz_target!(|input: &[u8]| {
    let Some((&mode, bytes)) = input.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if mode & 1 == 1 && bytes.len() >= BatchHeader::LEN {
        let len = i32::try_from(bytes.len() - 12).expect("a short input");
        bytes[8..12].copy_from_slice(&len.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    let limits = BatchLimits { decompressed_bytes_max: 1 << 20, ..Default::default() };

    // What recovery does with any bytes.
    for batch in Scan::new(&bytes, 0, true) {
        if let Ok(records) = records(&Bytes::copy_from_slice(batch.bytes), &limits) {
            records.for_each(drop);
        }
    }

    // What a Produce does with them.
    let Ok(checked) = check_produced(Bytes::from(bytes), &limits) else { return };
    let log_append_time = (mode & 2 == 2).then_some(WallMs(1_700_000_000_000));
    let stored: Vec<u8> = checked
        .assign(Offset(1_000), LeaderEpoch(7), log_append_time)
        .iter()
        .flat_map(|chunk| chunk.to_vec())
        .collect();
    let mut scan = Scan::new(&stored, 0, true);
    let batch = scan.next().expect("what was accepted is a batch");
    assert_eq!(batch.header.base_offset, Offset(1_000));
    assert!(scan.next().is_none());
    let count = checked.records_count();
    let read: Vec<_> = records(&Bytes::from(stored), &limits)
        .expect("what was accepted is readable")
        .collect::<Result<_, _>>()
        .expect("and each of its records");
    assert_eq!(i32::try_from(read.len()), Ok(count));
    assert!((1_000..).zip(&read).all(|(offset, record)| record.offset == Offset(offset)));
    let codec = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd][usize::from(mode >> 2) % 5];
    let recompressed = checked.recompress(codec, 1);
    assert_eq!((recompressed.codec(), recompressed.records_count()), (codec, count));
});
