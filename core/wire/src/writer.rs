//! Writes messages as bytes, without copying records.
//!
//! Everything but records is written into one buffer. Records stay where they are, in memory or in a file, and the
//! writer notes at which place of the buffer they belong. A [`Frame`] is the pieces of both, in the order in which they
//! are sent.

use super::reader::STRING_LEN_MAX;
use super::records::{Records, RecordsChunk, TaggedField, TaggedFields};
use super::varint;
use crate::ids::Uuid;
use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;

/// Records in memory up to this size are copied into the buffer, which is cheaper than a chunk of their own.
const COPIED_LEN_MAX: usize = 512;

/// An encoded message in pieces, to be sent one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    pub chunks: Vec<RecordsChunk>,
    /// The bytes of all chunks together.
    pub len: usize,
}

#[derive(Debug, Default)]
pub struct Writer {
    /// Everything that is not in `spliced`. Not a `BytesMut`, which would cost a function call for each field.
    gathered: Vec<u8>,
    /// Records that are not copied, each with the index of the byte of `gathered` before which they are sent.
    /// Ascending.
    spliced: Vec<(usize, RecordsChunk)>,
}

/// The section of tagged fields that is being written.
#[derive(Debug)]
pub(crate) struct Tags<'a> {
    /// Where the number of fields will be written. One byte is reserved for it.
    start: usize,
    count: u32,
    /// Where the size of the current field will be written. One byte is reserved for it.
    field_start: usize,
    /// Unknown fields that are not yet written.
    unknown: &'a [TaggedField],
}

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    /// A writer that need not grow for the first `bytes` bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { gathered: Vec::with_capacity(bytes), spliced: Vec::new() }
    }

    /// What was written, in pieces.
    pub fn into_frame(self) -> Frame {
        let mut gathered = Bytes::from(self.gathered);
        let mut chunks = Vec::with_capacity(2 * self.spliced.len() + 1);
        let mut len = gathered.len();
        let mut taken = 0;
        for (position, chunk) in self.spliced {
            if position > taken {
                chunks.push(RecordsChunk::Bytes(gathered.split_to(position - taken)));
                taken = position;
            }
            len += chunk.len();
            chunks.push(chunk);
        }
        if !gathered.is_empty() {
            chunks.push(RecordsChunk::Bytes(gathered));
        }
        Frame { chunks, len }
    }

    /// What was written, in one piece. Panics if records lie in a file.
    pub fn into_bytes(self) -> Bytes {
        if self.spliced.is_empty() { self.gathered.into() } else { self.into_frame().to_bytes() }
    }

    /// Overwrites four bytes of `gathered`.
    pub(super) fn patch_i32(&mut self, position: usize, value: i32) {
        self.gathered[position..position + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// How many bytes were written so far.
    pub fn len(&self) -> usize {
        self.gathered.len() + self.spliced.iter().map(|(_, chunk)| chunk.len()).sum::<usize>()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn i8(&mut self, value: i8) {
        self.gathered.put_i8(value);
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.gathered.put_i16(value);
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.gathered.put_i32(value);
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.gathered.put_i64(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.gathered.put_u16(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.gathered.put_u32(value);
    }

    pub(crate) fn f64(&mut self, value: f64) {
        self.gathered.put_f64(value);
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.gathered.put_u8(value.into());
    }

    pub(crate) fn uuid(&mut self, value: &Uuid) {
        self.gathered.put_slice(value.as_bytes());
    }

    pub(crate) fn uvarint(&mut self, value: u32) {
        varint::put_uvarint(&mut self.gathered, value);
    }

    /// A text that is longer than a string can be is cut after a whole character. Only error messages get so long, by
    /// the names that they quote.
    pub(crate) fn string(&mut self, flexible: bool, value: &ByteString) {
        let mut len = value.len();
        if len > STRING_LEN_MAX {
            len = value.floor_char_boundary(STRING_LEN_MAX);
        }
        if flexible {
            self.uvarint(len as u32 + 1);
        } else {
            self.i16(len as i16);
        }
        self.gathered.put_slice(&value.as_bytes()[..len]);
    }

    pub(crate) fn nullable_string(&mut self, flexible: bool, null_allowed: bool, value: Option<&ByteString>) {
        match value {
            Some(value) => self.string(flexible, value),
            None if !self.may_be_null(null_allowed) => self.string(flexible, &ByteString::new()),
            None if flexible => self.uvarint(0),
            None => self.i16(-1),
        }
    }

    pub(crate) fn bytes(&mut self, flexible: bool, value: &Bytes) {
        self.count(flexible, value.len());
        self.gathered.put_slice(value);
    }

    pub(crate) fn nullable_bytes(&mut self, flexible: bool, null_allowed: bool, value: Option<&Bytes>) {
        self.nullable_count(flexible, null_allowed, value.map(Bytes::len));
        self.gathered.put_slice(value.map_or(&[], |value| value));
    }

    pub(crate) fn records(&mut self, flexible: bool, value: &Records) {
        self.count(flexible, value.len());
        for chunk in &value.chunks {
            match chunk {
                chunk if chunk.is_empty() => {}
                RecordsChunk::Bytes(bytes) if bytes.len() <= COPIED_LEN_MAX => self.gathered.put_slice(bytes),
                chunk => self.spliced.push((self.gathered.len(), chunk.clone())),
            }
        }
    }

    pub(crate) fn nullable_records(&mut self, flexible: bool, null_allowed: bool, value: Option<&Records>) {
        match value {
            Some(value) => self.records(flexible, value),
            None => self.nullable_count(flexible, null_allowed, None),
        }
    }

    pub(crate) fn count(&mut self, flexible: bool, count: usize) {
        let count = i32::try_from(count).expect("a message is smaller than 2 GiB");
        if flexible {
            self.uvarint(count.cast_unsigned() + 1);
        } else {
            self.i32(count);
        }
    }

    pub(crate) fn nullable_count(&mut self, flexible: bool, null_allowed: bool, count: Option<usize>) {
        match count {
            Some(count) => self.count(flexible, count),
            None if !self.may_be_null(null_allowed) => self.count(flexible, 0),
            None if flexible => self.uvarint(0),
            None => self.i32(-1),
        }
    }

    /// Whether null can be written. Null in a version that does not allow it is a bug of ours: a debug build panics, a
    /// release build sends the empty value instead.
    fn may_be_null(&self, null_allowed: bool) -> bool {
        debug_assert!(null_allowed, "null where this version allows none, after {} bytes", self.len());
        null_allowed
    }

    /// Writes the tagged fields of a struct whose schema has none.
    pub(crate) fn unknown_tags(&mut self, flexible: bool, fields: &TaggedFields) {
        if !flexible {
            debug_assert!(fields.is_empty(), "tagged fields in a version that has none");
        } else if fields.is_empty() {
            self.uvarint(0);
        } else {
            let tags = self.begin_tags(fields);
            self.end_tags(tags);
        }
    }

    pub(crate) fn begin_tags<'a>(&mut self, unknown: &'a TaggedFields) -> Tags<'a> {
        let start = self.gathered.len();
        self.i8(0);
        Tags { start, count: 0, field_start: 0, unknown: unknown.as_slice() }
    }

    /// Writes the unknown fields with tags below `tag`, then begins the field `tag`.
    pub(crate) fn begin_tag(&mut self, tags: &mut Tags<'_>, tag: u32) {
        while let [first, rest @ ..] = tags.unknown
            && first.tag <= tag
        {
            debug_assert!(first.tag < tag, "the tag {tag} is known");
            self.unknown_tag(tags, first);
            tags.unknown = rest;
        }
        self.uvarint(tag);
        tags.field_start = self.gathered.len();
        tags.count += 1;
        self.i8(0);
    }

    pub(crate) fn end_tag(&mut self, tags: &mut Tags<'_>) {
        let size = self.gathered.len() - tags.field_start - 1;
        self.patch_uvarint(tags.field_start, size as u32);
    }

    pub(crate) fn end_tags(&mut self, mut tags: Tags<'_>) {
        for field in tags.unknown {
            self.unknown_tag(&mut tags, field);
        }
        self.patch_uvarint(tags.start, tags.count);
    }

    fn unknown_tag(&mut self, tags: &mut Tags<'_>, field: &TaggedField) {
        self.uvarint(field.tag);
        self.uvarint(field.value.len() as u32);
        self.gathered.put_slice(&field.value);
        tags.count += 1;
    }

    /// Writes a number where one byte is reserved for it. If the number needs more bytes, what follows is moved.
    fn patch_uvarint(&mut self, position: usize, value: u32) {
        assert!(
            self.spliced.last().is_none_or(|&(at, _)| at <= position),
            "no schema has records inside of a tagged field"
        );
        let more = varint::uvarint_len(value) - 1;
        if more > 0 {
            let end = self.gathered.len();
            self.gathered.put_bytes(0, more);
            self.gathered.copy_within(position + 1..end, position + 1 + more);
        }
        varint::put_uvarint(&mut &mut self.gathered[position..=position + more], value);
    }
}

impl Frame {
    /// Copies all chunks into one piece. Panics on a slice of a file, which only the world can read.
    pub fn to_bytes(&self) -> Bytes {
        let mut all = BytesMut::with_capacity(self.len);
        for chunk in &self.chunks {
            match chunk {
                RecordsChunk::Bytes(bytes) => all.put_slice(bytes),
                RecordsChunk::File(slice) => panic!("{slice:?} is not in memory"),
            }
        }
        all.freeze()
    }
}
