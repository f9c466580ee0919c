//! The bytes of a connection, read as the production world reads them: lengths, frames, requests, the records of a
//! Produce.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidelog_core::api::prepare;
use tidelog_core::batch::BatchLimits;
use tidelog_core::ids::ConnId;
use tidelog_core::wire::FrameLength;

/// `socket.request.max.bytes`: small, so that the limit is reached.
const FRAME_BYTES_MAX: i32 = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let limits = BatchLimits { decompressed_bytes_max: 1 << 20, ..Default::default() };
    let mut stream = Bytes::copy_from_slice(input);
    while stream.len() >= 4 {
        let len = stream.split_to(4);
        let Ok(len) = FrameLength::parse(len[..].try_into().expect("four bytes"), FRAME_BYTES_MAX) else { return };
        if len.bytes() > stream.len() {
            return;
        }
        if prepare(ConnId(1), stream.split_to(len.bytes()), &limits).is_err() {
            return;
        }
    }
});
