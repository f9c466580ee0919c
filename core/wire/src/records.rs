//! The types of fields other than numbers and strings: record batches, arrays of numbers, and tagged fields of newer
//! versions.

use crate::ids::{FileId, NodeId};
use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

/// A part of an open file. A response carries this instead of the bytes, so that a world can send them by `sendfile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSlice {
    pub file: FileId,
    pub position: u64,
    pub len: u32,
}

/// An array of int32, such as the replicas of a partition. A message may hold thousands of them with a few items each,
/// so up to four items are stored inline.
pub type Int32s = SmallVec<[i32; 4]>;

/// The numbers of `nodes`, as a field of a message holds them.
pub fn node_ids(nodes: &[NodeId]) -> Int32s {
    nodes.iter().map(|node| node.0).collect()
}

/// Record batches, one after the other, in pieces that are never copied together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub chunks: SmallVec<[RecordsChunk; 1]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordsChunk {
    Bytes(Bytes),
    File(FileSlice),
}

impl Records {
    pub fn len(&self) -> usize {
        self.chunks.iter().map(RecordsChunk::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.iter().all(RecordsChunk::is_empty)
    }

    pub fn push(&mut self, chunk: impl Into<RecordsChunk>) {
        self.chunks.push(chunk.into());
    }

    /// All bytes in one piece; `None` if a chunk lies in a file. Records that came over the wire are one chunk, so they
    /// are not copied.
    pub fn bytes(&self) -> Option<Bytes> {
        match self.chunks.as_slice() {
            [] => Some(Bytes::new()),
            [RecordsChunk::Bytes(bytes)] => Some(bytes.clone()),
            chunks => {
                let mut all = Vec::with_capacity(self.len());
                for chunk in chunks {
                    let RecordsChunk::Bytes(bytes) = chunk else { return None };
                    all.extend_from_slice(bytes);
                }
                Some(all.into())
            }
        }
    }
}

impl RecordsChunk {
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File(slice) => slice.len as usize,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Bytes> for RecordsChunk {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<FileSlice> for RecordsChunk {
    fn from(slice: FileSlice) -> Self {
        Self::File(slice)
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::default() } else { Self { chunks: smallvec![bytes.into()] } }
    }
}

impl From<FileSlice> for Records {
    fn from(slice: FileSlice) -> Self {
        if slice.len == 0 { Self::default() } else { Self { chunks: smallvec![slice.into()] } }
    }
}

/// The tagged fields of a struct that this codec does not know (KIP-482). They are kept as they came, in the order of
/// their tags, and encoding writes them back. Almost no struct has any, so they stand behind a pointer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::box_collection, reason = "8 bytes in every struct of every message instead of 24")]
pub struct TaggedFields(Option<Box<Vec<TaggedField>>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedField {
    pub tag: u32,
    pub value: Bytes,
}

impl TaggedFields {
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub fn as_slice(&self) -> &[TaggedField] {
        self.0.as_ref().map_or(&[], |fields| fields.as_slice())
    }

    /// For the reader, which has checked that the tags ascend and has taken the memory for `room` fields from its
    /// budget.
    pub(super) fn push(&mut self, field: TaggedField, room: usize) {
        debug_assert!(self.as_slice().last().is_none_or(|last| last.tag < field.tag));
        self.0.get_or_insert_with(|| Box::new(Vec::with_capacity(room))).push(field);
    }
}

impl FromIterator<TaggedField> for TaggedFields {
    /// Sorts by tag. Of two fields with the same tag the first one is kept.
    fn from_iter<I: IntoIterator<Item = TaggedField>>(fields: I) -> Self {
        let mut fields: Vec<TaggedField> = fields.into_iter().collect();
        fields.sort_by_key(|field| field.tag);
        fields.dedup_by_key(|field| field.tag);
        Self((!fields.is_empty()).then(|| Box::new(fields)))
    }
}
