//! Reads messages from bytes that anybody may have sent.
//!
//! - A count or a length is compared with the bytes that remain before anything is allocated for it.
//! - What decoding allocates is bounded by a budget: [`DECODED_MULTIPLE`] times the frame plus [`DECODED_FLOOR`].
//!   Strings, byte arrays and records are slices of the frame and take nothing from the budget.
//! - A varint must have its shortest form, the tags of a struct must ascend, and a tagged field must take exactly the
//!   size that it claims.
//! - The reader remembers its first error and gives empty values from then on. So the generated code has no error
//!   paths, and [`Reader::message`] looks for an error once, at the end.

use super::records::{Int32s, Records, TaggedField, TaggedFields};
use super::varint;
use crate::ids::Uuid;
use bytes::Bytes;
use bytestring::ByteString;
use std::ops::RangeInclusive;

/// The memory that the decoded form of a frame may take, as a multiple of the frame. What real clients send stays
/// below 12: the worst are long lists of very short names.
pub const DECODED_MULTIPLE: usize = 16;

/// The memory, in bytes, that any frame may take in addition to the multiple of its size.
pub const DECODED_FLOOR: usize = 64 * 1024;

/// The longest string in UTF-8 bytes: its length is an int16.
pub const STRING_LEN_MAX: usize = i16::MAX as usize;

/// Why bytes could not be read as a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}, byte {position}: {kind}")]
pub struct DecodeError {
    /// The message that was being read, such as `FetchRequest`.
    pub message: &'static str,
    /// How many bytes had been read.
    pub position: usize,
    pub kind: DecodeErrorKind,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeErrorKind {
    #[error("needs {needed} bytes, {remaining} remain")]
    Truncated { needed: usize, remaining: usize },
    #[error("{count} elements of at least {min_size} bytes each, {remaining} bytes remain")]
    Count { count: i64, min_size: usize, remaining: usize },
    #[error("a {what} of length {len}")]
    Length { what: &'static str, len: i64 },
    #[error("null where this version allows none: {what}")]
    Null { what: &'static str },
    #[error("not a varint: cut off, or longer than its value needs")]
    Varint,
    #[error("tag {tag} after tag {previous}: tags must ascend")]
    TagOrder { tag: u32, previous: u32 },
    #[error("the tagged field {tag} does not fill its size")]
    TagSize { tag: u32 },
    #[error("would take more than {DECODED_MULTIPLE} times its size in memory")]
    Budget,
    #[error("version {version}; known are {first} to {last}")]
    Version { version: i16, first: i16, last: i16 },
    #[error("{remaining} bytes after the end")]
    Trailing { remaining: usize },
    #[error("record frame version {0}; known is 1")]
    FrameVersion(u32),
    #[error("no record has the key {0}")]
    RecordKey(i16),
}

/// Reads from one frame.
#[derive(Debug)]
pub struct Reader {
    bytes: Bytes,
    position: usize,
    /// How many bytes may still be allocated.
    budget: usize,
    error: Option<DecodeError>,
}

/// The section of tagged fields that is being read.
#[derive(Debug)]
pub(crate) struct Tags {
    /// How many fields follow the current one.
    left: u32,
    /// Tag and size of the current field, and the position in the frame at which the field ends.
    tag: u32,
    size: usize,
    end: usize,
    is_first: bool,
}

impl Reader {
    pub fn new(bytes: Bytes) -> Self {
        let budget = bytes.len().saturating_mul(DECODED_MULTIPLE).saturating_add(DECODED_FLOOR);
        Self { bytes, position: 0, budget, error: None }
    }

    pub fn position(&self) -> usize {
        self.position
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// How many bytes may still be allocated.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// Runs a generated `read`, and gives the first error that it met.
    pub(crate) fn message<T>(
        &mut self,
        name: &'static str,
        versions: RangeInclusive<i16>,
        version: i16,
        read: fn(i16, &mut Reader) -> T,
    ) -> Result<T, DecodeError> {
        if !versions.contains(&version) {
            let (first, last) = versions.into_inner();
            self.fail(DecodeErrorKind::Version { version, first, last });
            return Err(self.named_error(name));
        }
        let message = read(version, self);
        if self.error.is_some() { Err(self.named_error(name)) } else { Ok(message) }
    }

    /// Fails if bytes are left.
    pub fn expect_end(&mut self, name: &'static str) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            remaining => {
                self.fail(DecodeErrorKind::Trailing { remaining });
                Err(self.named_error(name))
            }
        }
    }

    /// Reads the frame of a metadata record: its key and its version.
    pub(crate) fn record_frame(&mut self, name: &'static str) -> Result<(i16, i16), DecodeError> {
        let frame_version = self.uvarint();
        if frame_version != 1 && self.error.is_none() {
            self.fail(DecodeErrorKind::FrameVersion(frame_version));
        }
        let (key, version) = (self.uvarint(), self.uvarint());
        if self.error.is_some() {
            return Err(self.named_error(name));
        }
        let short = |value: u32| i16::try_from(value).unwrap_or(i16::MAX);
        Ok((short(key), short(version)))
    }

    pub(crate) fn unknown_record(&mut self, name: &'static str, key: i16) -> DecodeError {
        self.fail(DecodeErrorKind::RecordKey(key));
        self.named_error(name)
    }

    pub(crate) fn i8(&mut self) -> i8 {
        i8::from_be_bytes(self.fixed())
    }

    pub(crate) fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.fixed())
    }

    pub(crate) fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.fixed())
    }

    pub(crate) fn i64(&mut self) -> i64 {
        i64::from_be_bytes(self.fixed())
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.fixed())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.fixed())
    }

    pub(crate) fn f64(&mut self) -> f64 {
        f64::from_be_bytes(self.fixed())
    }

    /// As in Kafka, every byte but 0 is true.
    pub(crate) fn boolean(&mut self) -> bool {
        self.i8() != 0
    }

    pub(crate) fn uuid(&mut self) -> Uuid {
        Uuid::from_bytes(self.fixed())
    }

    pub(crate) fn uvarint(&mut self) -> u32 {
        match varint::read_uvarint(&self.bytes[self.position..]) {
            Some((value, len)) => {
                self.position += len;
                value
            }
            None => {
                self.fail(DecodeErrorKind::Varint);
                0
            }
        }
    }

    /// Reads the byte before a struct that may be null: whether the struct follows.
    pub(crate) fn is_present(&mut self) -> bool {
        self.i8() >= 0 && self.error.is_none()
    }

    pub(crate) fn string(&mut self, flexible: bool) -> ByteString {
        self.nullable_string(flexible, false).unwrap_or_default()
    }

    pub(crate) fn nullable_string(&mut self, flexible: bool, null_allowed: bool) -> Option<ByteString> {
        let len = if flexible { i64::from(self.uvarint()) - 1 } else { i64::from(self.i16()) };
        let bytes = self.nullable_slice("string", len, STRING_LEN_MAX, null_allowed)?;
        match ByteString::try_from(bytes.clone()) {
            Ok(text) => Some(text),
            Err(_) => {
                // As in Kafka, each part that is not UTF-8 becomes U+FFFD, which has three bytes. The checks of names
                // refuse a name that contains it.
                if !self.charge(bytes.len() * 3) {
                    return Some(ByteString::new());
                }
                let mut text = String::with_capacity(bytes.len() * 3);
                for chunk in bytes.utf8_chunks() {
                    text += chunk.valid();
                    if !chunk.invalid().is_empty() {
                        text.push(char::REPLACEMENT_CHARACTER);
                    }
                }
                Some(text.into())
            }
        }
    }

    pub(crate) fn bytes(&mut self, flexible: bool) -> Bytes {
        self.nullable_bytes(flexible, false).unwrap_or_default()
    }

    pub(crate) fn nullable_bytes(&mut self, flexible: bool, null_allowed: bool) -> Option<Bytes> {
        let len = self.compact_or_i32(flexible);
        self.nullable_slice("byte array", len, usize::MAX, null_allowed)
    }

    pub(crate) fn records(&mut self, flexible: bool) -> Records {
        self.nullable_records(flexible, false).unwrap_or_default()
    }

    pub(crate) fn nullable_records(&mut self, flexible: bool, null_allowed: bool) -> Option<Records> {
        let len = self.compact_or_i32(flexible);
        self.nullable_slice("record set", len, usize::MAX, null_allowed).map(Records::from)
    }

    /// `min_size`: the fewest bytes an element takes, at least 1.
    pub(crate) fn array<T>(&mut self, flexible: bool, min_size: usize, read: impl FnMut(&mut Self) -> T) -> Vec<T> {
        self.nullable_array(flexible, false, min_size, read).unwrap_or_default()
    }

    pub(crate) fn nullable_array<T>(
        &mut self,
        flexible: bool,
        null_allowed: bool,
        min_size: usize,
        mut read: impl FnMut(&mut Self) -> T,
    ) -> Option<Vec<T>> {
        let count = self.count(flexible, null_allowed, min_size, size_of::<T>())?;
        let mut items = Vec::with_capacity(count);
        while items.len() < count && self.error.is_none() {
            items.push(read(self));
        }
        Some(items)
    }

    pub(crate) fn int32s(&mut self, flexible: bool) -> Int32s {
        self.nullable_int32s(flexible, false).unwrap_or_default()
    }

    pub(crate) fn nullable_int32s(&mut self, flexible: bool, null_allowed: bool) -> Option<Int32s> {
        let count = self.count(flexible, null_allowed, size_of::<i32>(), size_of::<i32>())?;
        Some((0..count).map(|_| self.i32()).collect())
    }

    /// Reads how many elements follow. Compares the count with the bytes that remain, and takes the memory for the
    /// elements (`size` bytes each) from the budget. `None`: the array is null.
    fn count(&mut self, flexible: bool, null_allowed: bool, min_size: usize, size: usize) -> Option<usize> {
        debug_assert!(min_size > 0);
        let count = self.compact_or_i32(flexible);
        let remaining = self.remaining();
        match usize::try_from(count) {
            Ok(known) if known <= remaining / min_size => Some(if self.charge(known * size) { known } else { 0 }),
            Err(_) if count == -1 && null_allowed => None,
            Err(_) if count == -1 => {
                self.fail(DecodeErrorKind::Null { what: "array" });
                Some(0)
            }
            _ => {
                self.fail(DecodeErrorKind::Count { count, min_size, remaining });
                Some(0)
            }
        }
    }

    /// Reads the tagged fields of a struct whose schema has none.
    pub(crate) fn unknown_tags(&mut self, flexible: bool) -> TaggedFields {
        let mut fields = TaggedFields::default();
        let mut tags = self.begin_tags(flexible);
        while self.next_tag(&mut tags).is_some() {
            self.unknown_tag(&tags, &mut fields);
        }
        fields
    }

    pub(crate) fn begin_tags(&mut self, flexible: bool) -> Tags {
        let mut left = if flexible { self.uvarint() } else { 0 };
        let remaining = self.remaining();
        // A tagged field takes at least two bytes: its tag and its size.
        if left as usize > remaining / 2 {
            self.fail(DecodeErrorKind::Count { count: left.into(), min_size: 2, remaining });
            left = 0;
        }
        Tags { left, tag: 0, size: 0, end: self.position, is_first: true }
    }

    /// Begins the next tagged field and gives its tag. Its value has been checked to lie within the frame.
    pub(crate) fn next_tag(&mut self, tags: &mut Tags) -> Option<u32> {
        if tags.left == 0 || self.error.is_some() {
            return None;
        }
        let (tag, size) = (self.uvarint(), self.uvarint() as usize);
        if !tags.is_first && tag <= tags.tag {
            self.fail(DecodeErrorKind::TagOrder { tag, previous: tags.tag });
        } else if size > self.remaining() {
            self.fail(DecodeErrorKind::Truncated { needed: size, remaining: self.remaining() });
        }
        *tags = Tags { left: tags.left - 1, tag, size, end: self.position + size, is_first: false };
        self.error.is_none().then_some(tag)
    }

    pub(crate) fn unknown_tag(&mut self, tags: &Tags, fields: &mut TaggedFields) {
        // The first unknown field reserves the memory for all fields that may follow.
        let room = if fields.is_empty() { tags.left as usize + 1 } else { 0 };
        if room > 0 && !self.charge(room * size_of::<TaggedField>() + size_of::<Vec<TaggedField>>()) {
            return;
        }
        let value = self.slice(tags.size);
        fields.push(TaggedField { tag: tags.tag, value }, room);
    }

    pub(crate) fn end_tag(&mut self, tags: &Tags) {
        if self.position != tags.end {
            self.fail(DecodeErrorKind::TagSize { tag: tags.tag });
        }
    }

    fn compact_or_i32(&mut self, flexible: bool) -> i64 {
        if flexible { i64::from(self.uvarint()) - 1 } else { i64::from(self.i32()) }
    }

    fn nullable_slice(&mut self, what: &'static str, len: i64, max: usize, null_allowed: bool) -> Option<Bytes> {
        match usize::try_from(len) {
            // After an error a length reads as 0 or -1.
            _ if self.error.is_some() => None,
            Ok(len) if len <= max => Some(self.slice(len)),
            Err(_) if len == -1 && null_allowed => None,
            Err(_) if len == -1 => {
                self.fail(DecodeErrorKind::Null { what });
                None
            }
            _ => {
                self.fail(DecodeErrorKind::Length { what, len });
                None
            }
        }
    }

    fn slice(&mut self, len: usize) -> Bytes {
        if len > self.remaining() {
            self.fail(DecodeErrorKind::Truncated { needed: len, remaining: self.remaining() });
            return Bytes::new();
        }
        let start = self.position;
        self.position += len;
        // An empty slice would keep the whole frame alive for nothing.
        if len == 0 { Bytes::new() } else { self.bytes.slice(start..self.position) }
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> [u8; N] {
        match self.bytes[self.position..].first_chunk::<N>() {
            Some(chunk) => {
                self.position += N;
                *chunk
            }
            None => {
                self.fail(DecodeErrorKind::Truncated { needed: N, remaining: self.remaining() });
                [0; N]
            }
        }
    }

    /// Takes `size` bytes from the budget. `false`: the budget does not have them, or there was an error before.
    fn charge(&mut self, size: usize) -> bool {
        if self.error.is_some() {
            return false;
        }
        match self.budget.checked_sub(size) {
            Some(rest) => {
                self.budget = rest;
                true
            }
            None => {
                self.fail(DecodeErrorKind::Budget);
                false
            }
        }
    }

    #[cold]
    fn fail(&mut self, kind: DecodeErrorKind) {
        if self.error.is_none() {
            self.error = Some(DecodeError { message: "", position: self.position, kind });
        }
        // Every later read finds the end of the frame.
        self.position = self.bytes.len();
    }

    fn named_error(&self, name: &'static str) -> DecodeError {
        let error = self.error.clone().expect("only called after an error");
        DecodeError { message: name, ..error }
    }
}
