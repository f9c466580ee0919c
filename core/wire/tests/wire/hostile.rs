//! How much memory decoding takes for bytes that were made to exhaust it.
//!
//! The bound is `DECODED_MULTIPLE` times the frame plus `DECODED_FLOOR`. An allocator that counts measures the memory.
//! It needs `unsafe`, so it cannot be in the core.

use super::sample::schema::{Message, OPEN};
use super::sample::{Count, Draw, Width, put_uvarint, sample};
use super::{bodies, versions};
use bytes::Bytes;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use tidelog_wire::{
    ApiKey, DECODED_FLOOR, DECODED_MULTIPLE, DecodeError, MetadataRecord, Reader, RequestBody, ResponseBody,
    decode_request,
};

struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    let live = LIVE.get() + change;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allowed above the bound: the header of the reference-counted frame, and the box of a text in an error.
const BESIDE: usize = 1024;

/// Decodes, and checks the most memory that decoding took at one time.
fn measured<T>(frame: &Bytes, what: &dyn Fn() -> String, decode: impl FnOnce(Bytes) -> T) -> T {
    let before = LIVE.get();
    PEAK.set(before);
    let decoded = black_box(decode(frame.clone()));
    let peak = (PEAK.get() - before) as usize;
    let bound = DECODED_MULTIPLE * frame.len() + DECODED_FLOOR + BESIDE;
    assert!(peak <= bound, "{}: {peak} bytes for a frame of {}", what(), frame.len());
    decoded
}

fn decode(kind: &str, key: ApiKey, version: i16, bytes: Bytes) -> Result<(), DecodeError> {
    let reader = &mut Reader::new(bytes);
    match kind {
        "request" => RequestBody::decode(key, version, reader).map(drop_later),
        _ => ResponseBody::decode(key, version, reader).map(drop_later),
    }
}

fn drop_later<T>(decoded: T) {
    black_box(decoded);
}

/// Every live version of every request and response.
fn all() -> Vec<(Message, ApiKey, i16)> {
    let both = ["request", "response"].into_iter().flat_map(bodies);
    let each =
        |(key, message): (ApiKey, Message)| versions(&message).map(move |version| (message.clone(), key, version));
    both.flat_map(each).collect()
}

/// The message with `number` in the place of `count`.
fn with_count(bytes: &[u8], count: Count, number: u32) -> Bytes {
    let mut changed = bytes[..count.position].to_vec();
    match count.width {
        Width::Int16 => changed.extend_from_slice(&(number as u16).to_be_bytes()),
        Width::Int32 => changed.extend_from_slice(&number.to_be_bytes()),
        Width::Varint => put_uvarint(&mut changed, number),
    }
    changed.extend_from_slice(&bytes[count.position + count.len..]);
    changed.into()
}

#[test]
fn a_count_or_length_beyond_the_frame_is_refused_in_every_version_without_memory_for_it() {
    let mut places = 0;
    for (message, key, version) in all() {
        for seed in 0..3 {
            let drawn = sample(&message, version, &mut Draw::random(seed), true);
            for &count in &drawn.counts {
                for number in [0x7fff_ffff, 0x00ff_ffff, 0xffff_ffff, 0xffff_fffe, 0x8000_0000] {
                    let hostile = with_count(&drawn.bytes, count, number);
                    let what = || format!("{} v{version} seed {seed} {count:?} {number:#x}", message.name);
                    let outcome = measured(&hostile, &what, |bytes| decode(&message.kind, key, version, bytes));
                    // A count of -1 may stand for null. A length of two bytes holds only the lower half of the number.
                    let may_be_fine = match count.width {
                        Width::Varint => false,
                        Width::Int32 => number == u32::MAX,
                        Width::Int16 => [0, u16::MAX].contains(&(number as u16)),
                    };
                    assert!(outcome.is_err() || may_be_fine, "{} was read", what());
                    places += 1;
                }
            }
        }
    }
    assert!(places > 10_000, "{places}");
}

#[test]
fn a_message_cut_off_anywhere_is_refused() {
    for (message, key, version) in all() {
        let drawn = sample(&message, version, &mut Draw::random(7), false);
        let bytes = Bytes::from(drawn.bytes);
        for len in (0..bytes.len()).filter(|len| *len < 600 || len % 97 == 0) {
            let what = || format!("{} v{version} cut to {len} of {}", message.name, bytes.len());
            let outcome = measured(&bytes.slice(..len), &what, |cut| decode(&message.kind, key, version, cut));
            assert!(outcome.is_err(), "{}", what());
        }
    }
}

#[test]
fn long_lists_of_the_smallest_elements_stay_within_the_bound() {
    const FRAME: usize = 64 * 1024;
    let mut refused = 0;
    for (message, key, version) in all() {
        let (first, last) = message.versions.unwrap();
        let is_border = [first, last, message.flexible, message.flexible.min(OPEN - 1) - 1].contains(&version);
        if !is_border {
            continue;
        }
        let drawn = sample(&message, version, &mut Draw::Counting(0), true);
        for &count in drawn.counts.iter().filter(|c| c.width != Width::Int16) {
            // In versions that are not flexible, zeros are empty texts and lists. In flexible versions, ones are.
            for (filler, share) in [0u8, 1].into_iter().flat_map(|f| [1, 2, 3, 5, 8, 13, 24, 50].map(|s| (f, s))) {
                let mut bytes = drawn.bytes[..count.position].to_vec();
                let number = (FRAME / share) as u32;
                match count.width {
                    Width::Varint => put_uvarint(&mut bytes, number),
                    _ => bytes.extend_from_slice(&number.to_be_bytes()),
                }
                bytes.resize(bytes.len() + FRAME, filler);
                let what = || format!("{} v{version} {count:?} {number} x {filler}", message.name);
                let hostile = bytes.into();
                let outcome = measured(&hostile, &what, |bytes| decode(&message.kind, key, version, bytes));
                refused += usize::from(outcome.is_err_and(|error| error.to_string().contains("in memory")));
            }
        }
    }
    assert!(refused > 100, "only {refused} lists ever reached the bound: the test proves nothing");
}

#[test]
fn changed_bytes_never_panic_and_stay_within_the_bound() {
    for (message, key, version) in all() {
        let drawn = sample(&message, version, &mut Draw::random(3), true);
        for (place, change) in (0..drawn.bytes.len().min(300)).flat_map(|p| [0x01, 0x80, 0xff].map(|c| (p, c))) {
            let mut bytes = drawn.bytes.clone();
            bytes[place] ^= change;
            let what = || format!("{} v{version} byte {place} ^ {change:#x}", message.name);
            let _ = measured(&bytes.into(), &what, |bytes| decode(&message.kind, key, version, bytes));
        }
    }
}

#[test]
fn what_breaks_other_codecs_is_refused_here() {
    // Metadata v1 with 2^31 - 1 topics in 4 bytes; a header of 0 to 3 bytes; records of the metadata log.
    let metadata = [0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff];
    for len in (0..4).chain([metadata.len()]) {
        let frame = Bytes::copy_from_slice(&metadata[..len]);
        let outcome = measured(&frame, &|| format!("{len} bytes"), |bytes| decode_request(bytes).map(drop_later));
        assert!(outcome.is_err(), "{len}");
    }
    let record = Bytes::from_static(&[1, 3, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x07]);
    let outcome =
        measured(&record, &|| "PartitionRecord".into(), |bytes| MetadataRecord::decode(bytes).map(drop_later));
    assert!(outcome.is_err());
}
