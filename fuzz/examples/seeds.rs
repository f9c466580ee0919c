//! Writes the committed corpus, `corpus/TARGET/NAME`: small inputs that get far into the code.

use bytes::Bytes;
use std::fs;
use std::path::Path;
use tidelog_core::batch::{BatchBuilder, Codec};
use tidelog_core::ids::{LeaderEpoch, Offset, ProducerId};
use tidelog_core::wire::versions::served;
use tidelog_core::wire::{ApiKey, Reader, RequestBody, ResponseBody, Writer};
use tidelog_fuzz::joined;
use tidelog_sim::random::CHOSEN_BYTES;

const NOW: i64 = 1_700_000_000_000;
/// About how many random streams a scenario draws from: one for each of its parts and faults.
const STREAMS: u8 = 15;

fn main() {
    for &key in ApiKey::ALL {
        let Some(versions) = key.codec_versions() else { continue };
        let version = *versions.end();
        let name = format!("{}-{version}", key.name());
        if let Some(body) = short_request(key, version) {
            write("requests", &name, &[&[key as u8, version as u8], &body[..]].concat());
            if served(key).is_some_and(|served| served.contains(&version)) {
                write("frames", &name, &frame(key, version, &body));
            }
        }
        if let Some(body) = short_response(key, version) {
            write("responses", &name, &[&[key as u8, version as u8], &body[..]].concat());
        }
    }
    for (n, codec) in (0u8..).zip([Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd]) {
        let batch = batch(0, codec, -1);
        for mode in [0, 3] {
            write("batches", &format!("{codec:?}-{mode}"), &[&[mode | (n << 2)], &batch[..]].concat());
        }
        write("frames", &format!("Produce-9-{codec:?}"), &produce(&batch));
    }
    write_directories();
    write_scenarios();
}

/// Seeds without choices, and inputs whose choices are all the lowest (all faults are on), all the highest (no fault is
/// on), or in between.
fn write_scenarios() {
    for seed in 0..8u64 {
        write("scenarios", &format!("seed-{seed}"), &seed.to_le_bytes());
    }
    for byte in [0, 40, 100, 160, 255u8] {
        let stripes: Vec<u8> =
            (0..STREAMS).flat_map(|n| [byte.wrapping_add(n.wrapping_mul(37)); CHOSEN_BYTES]).collect();
        let seed = u64::from(byte).to_le_bytes();
        write("scenarios", &format!("all-{byte}"), &[&seed[..], &[byte; STREAMS as usize * CHOSEN_BYTES]].concat());
        write("scenarios", &format!("stripes-{byte}"), &[&seed[..], &stripes].concat());
    }
}

/// Two segments with their indexes, snapshot and epochs, and directories that lack or damage some of these.
fn write_directories() {
    let first = [batch(0, Codec::None, 0), batch(10, Codec::Zstd, 10)].concat();
    let second = [batch(20, Codec::None, 20), batch(30, Codec::Lz4, 30)].concat();
    let index = [10i32.to_be_bytes().as_slice(), &0i32.to_be_bytes()].concat();
    let time_index = [NOW.to_be_bytes().as_slice(), &9i32.to_be_bytes()].concat();
    let epochs = b"0\n1\n0 0\n";
    let torn = &second[..second.len() - 7];
    let zeros = [&second[..], &[0; 200]].concat();
    for flags in [0, 1, 2 | (5 << 4), 4] {
        let whole = joined(&[&first, &index, &time_index, &[], epochs, &second, &[]]);
        write("recovery", &format!("whole-{flags}"), &[&[flags], &whole[..]].concat());
        let bare = joined(&[&first, &[], &[], &[], &[], torn, &[]]);
        write("recovery", &format!("torn-{flags}"), &[&[flags], &bare[..]].concat());
        let preallocated = joined(&[&first, &[], &[], &[1, 2, 3], epochs, &zeros, &[0; 80]]);
        write("recovery", &format!("zeros-{flags}"), &[&[flags], &preallocated[..]].concat());
    }
}

fn batch(base_offset: i64, codec: Codec, sequence: i32) -> Bytes {
    let mut builder = BatchBuilder::new().at(Offset(base_offset), LeaderEpoch(0)).compressed(codec, 1);
    if sequence >= 0 {
        builder = builder.producer(ProducerId(5), 0, sequence);
    }
    for n in 0..10 {
        builder.push(NOW + n, Some(b"key"), Some(b"value value value"), &[("header", Some(b"x"))]);
    }
    builder.build()
}

/// A Produce of version 9: no transaction, acks=all, one topic, one partition.
fn produce(batch: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0xff, 0xff, 0, 0, 0x10, 0, 2, 2, b't', 2, 0, 0, 0, 0];
    // A compact length is the length plus one, here in two bytes of seven bits each.
    let len = u16::try_from(batch.len() + 1).expect("a short batch");
    body.extend([0x80 | (len & 0x7f) as u8, (len >> 7) as u8]);
    body.extend(batch);
    body.extend([0, 0, 0]);
    frame(ApiKey::Produce, 9, &body)
}

/// A frame with its length, a header without client id, and room for its tagged fields.
fn frame(key: ApiKey, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::from((key as i16).to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(1i32.to_be_bytes());
    frame.extend([0xff, 0xff]);
    if version >= key.first_flexible_version() {
        frame.push(0);
    }
    frame.extend(body);
    let len = u32::try_from(frame.len()).expect("a short frame");
    [&len.to_be_bytes(), &frame[..]].concat()
}

/// The body that zero bytes decode to, with one element in each of its outer arrays if that can be decoded.
fn short_request(key: ApiKey, version: i16) -> Option<Bytes> {
    let read = |start: u8| {
        let mut zeros = vec![0; 400];
        zeros[..4].fill(start);
        let body = RequestBody::decode(key, version, &mut Reader::new(zeros.into())).ok()?;
        let mut writer = Writer::new();
        body.encode(version, &mut writer);
        Some(writer.into_bytes())
    };
    [2, 1, 0].into_iter().find_map(read)
}

fn short_response(key: ApiKey, version: i16) -> Option<Bytes> {
    let body = ResponseBody::decode(key, version, &mut Reader::new(vec![0; 400].into())).ok()?;
    let mut writer = Writer::new();
    body.encode(version, &mut writer);
    Some(writer.into_bytes())
}

fn write(target: &str, name: &str, content: &[u8]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&dir).expect("the directory of the corpus");
    fs::write(dir.join(name), content).expect("a seed");
}
