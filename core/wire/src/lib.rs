//! Kafka's wire format: frames, headers, the version table, the generated codec, error codes.
//! Pure functions between bytes and messages.
//!
//! ```text
//!   bytes ── FrameLength::check ──► frame ── decode_request ──► RequestHeader, RequestBody
//!   bytes ◄── Frame { chunks } ◄── encode_response ◄── ResponseBody
//! ```
//!
//! Invariants, for any bytes:
//!
//! - Decoding never panics.
//! - Decoding allocates at most [`DECODED_MULTIPLE`] times the size of the frame plus [`DECODED_FLOOR`].
//! - Record bytes are never copied, neither by decoding nor by encoding.
//! - A message that Kafka encoded decodes, and encodes again to the same bytes, fields of newer versions included.

#![forbid(unsafe_code)]

mod address;
mod error_code;
mod frame;
mod header;
pub mod ids;
mod json;
pub mod messages;
mod reader;
mod records;
pub mod time;
pub mod varint;
pub mod versions;
mod writer;

pub use address::Address;
pub use error_code::ErrorCode;
pub use frame::{FRAME_LENGTH_BYTES, FrameLength, FrameLengthError};
pub use header::{
    RequestError, RequestHeader, decode_request, decode_response, encode_request, encode_response, request_bytes,
    response_bytes,
};
pub use messages::{ApiKey, MetadataRecord, RequestBody, ResponseBody};
pub use reader::{DECODED_FLOOR, DECODED_MULTIPLE, DecodeError, DecodeErrorKind, Reader, STRING_LEN_MAX};
pub use records::{FileSlice, Int32s, Records, RecordsChunk, TaggedField, TaggedFields, node_ids};
pub use writer::{Frame, Writer};
