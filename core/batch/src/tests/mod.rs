//! Tests of the module as a whole: round trips against a second codec, and hostile batches.

mod hostile;
mod replicated;
mod round_trip;
mod topic;

use super::check::seal;
use super::header::BatchHeader;
use super::{BatchBuilder, Codec};
use bytes::Bytes;

/// A batch of `records`, which are compressed already where the header says so. `change` may make the header wrong, but
/// the size and the checksum stay right.
fn sealed(records: &[u8], change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let whole = BatchBuilder::new().push(1_000, None, None, &[]).build();
    let mut header = BatchHeader::parse(&whole).unwrap();
    change(&mut header);
    seal(&mut header, [&[0; BatchHeader::LEN], records].concat())
}

/// A batch of `count` records, compressed by `codec`, as a producer would send it.
fn produced(codec: Codec, count: usize) -> Bytes {
    let mut builder = BatchBuilder::new().compressed(codec, codec.default_level());
    for index in 0..count {
        let value = format!("value {index} {}", "tidelog ".repeat(index % 20));
        let headers = [("trace", Some(b"abc".as_slice())), ("größe", None)];
        let key = format!("key {index}");
        builder.push(
            1_700_000_000_000 + index as i64,
            (index % 3 != 1).then_some(key.as_bytes()),
            (index % 5 != 4).then_some(value.as_bytes()),
            &headers[..index % 3],
        );
    }
    builder.build()
}
