//! The body of every request in every version. The input is a key, a version and the bytes of the body. A body that can
//! be decoded must encode to bytes that decode to the same body.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidelog_core::wire::{ApiKey, Reader, RequestBody, Writer};

fuzz_target!(|input: &[u8]| {
    let [key, version, body @ ..] = input else { return };
    let Some(key) = ApiKey::from_code(i16::from(*key)) else { return };
    let Some(versions) = key.codec_versions() else { return };
    let version = i16::from(*version);
    let mut reader = Reader::new(Bytes::copy_from_slice(body));
    let Ok(decoded) = RequestBody::decode(key, version, &mut reader) else { return };
    assert!(versions.contains(&version), "{key:?} has no version {version}");
    let mut writer = Writer::new();
    decoded.encode(version, &mut writer);
    let mut reader = Reader::new(writer.into_bytes());
    let again = RequestBody::decode(key, version, &mut reader).expect("what we encode decodes");
    // Compared as text: a float that is not a number is not equal to itself.
    assert_eq!(format!("{again:?}"), format!("{decoded:?}"));
    assert_eq!(reader.remaining(), 0);
});
