//! The indexes of inactive segments: they are read from the disk when they are needed, and rebuilt from the batches if
//! they are missing or wrong.

use super::log::{Log, PART, Purpose, failure};
use super::names::FileKind;
use super::offset_index::{IndexBounds, OffsetIndex};
use super::segment::Indexes;
use super::time_index::TimeIndex;
use crate::buggify::{ASKED_FOR, Site};
use crate::io::{IoDone, IoError, IoErrorKind, IoOp, Level, Outbox};
use crate::probe::Probe;
use bytes::Bytes;
use tidelog_batch::BatchHeader;
use tidelog_wire::ids::Offset;

/// How many segments besides the active one keep their indexes in memory.
const SEGMENTS_KEPT: usize = 2;
/// How much of a log one read asks for when indexes are rebuilt.
const CHUNK_BYTES: u64 = 1 << 20;

/// The reading or rebuilding of one segment's two indexes.
#[derive(Debug)]
pub(super) struct IndexLoad {
    segment: Offset,
    /// The offset index file, while the time index file is still being read.
    offsets: Option<Result<Bytes, String>>,
}

impl IndexLoad {
    pub fn segment(&self) -> Offset {
        self.segment
    }
}

impl Log {
    /// Begins to read the indexes of a segment, unless they are being read already.
    pub(super) fn load_indexes(&mut self, slot: usize, out: &mut Outbox) {
        if self.indexes_loading(slot) {
            return;
        }
        let segment = self.segments[slot].base;
        self.index_loads.push(IndexLoad { segment, offsets: None });
        // The file may be longer than the setting allows now.
        let limit_bytes = u64::from(self.settings.segment_index_bytes).max(16 << 20);
        for kind in [FileKind::OffsetIndex, FileKind::TimeIndex] {
            let path = self.segment_path(segment, kind);
            self.issue(Purpose::LoadIndex { segment, kind }, IoOp::Load { path, limit_bytes }, out);
        }
    }

    pub(super) fn indexes_loading(&self, slot: usize) -> bool {
        self.index_loads.iter().any(|load| load.segment == self.segments[slot].base)
    }

    /// The indexes of a segment. `None` if they are not in memory, or not complete yet.
    pub(super) fn use_indexes(&mut self, slot: usize) -> Option<&Indexes> {
        if self.indexes_loading(slot) {
            return None;
        }
        self.index_uses += 1;
        let indexes = self.segments[slot].indexes.as_mut()?;
        indexes.used = self.index_uses;
        Some(indexes)
    }

    /// Drops the indexes of inactive segments from memory, except those used most recently.
    pub(super) fn forget_indexes(&mut self) {
        let active = self.segments.len() - 1;
        let mut used: Vec<(u64, usize)> = Vec::new();
        for (slot, segment) in self.segments[..active].iter().enumerate() {
            if let Some(indexes) = &segment.indexes
                && !self.indexes_loading(slot)
            {
                used.push((indexes.used, slot));
            }
        }
        used.sort_unstable();
        // A query may go on from one segment to the next. It needs the indexes of both.
        let kept = SEGMENTS_KEPT + 2 * self.queries.len();
        for (_, slot) in &used[..used.len().saturating_sub(kept)] {
            self.segments[*slot].indexes = None;
        }
    }

    pub(super) fn index_loaded(
        &mut self,
        segment: Offset,
        kind: FileKind,
        result: Result<IoDone, IoError>,
        out: &mut Outbox,
    ) -> Result<(), String> {
        let content = match result {
            Ok(IoDone::Bytes(bytes)) => Ok(bytes),
            Err(error) if matches!(error.kind, IoErrorKind::NotFound | IoErrorKind::TooLarge) => Err(error.text),
            other => return Err(failure(other)),
        };
        // The segment may have left the log meanwhile.
        let Some(load) = self.index_loads.iter_mut().position(|load| load.segment == segment) else { return Ok(()) };
        if kind == FileKind::OffsetIndex {
            self.index_loads[load].offsets = Some(content);
            return Ok(());
        }
        let offsets = self.index_loads[load].offsets.take().expect("the offset index was asked for first");
        let slot = self.slot_of(segment).expect("an index is loaded for a segment of the log");
        let decoded = match self.decode_indexes(slot, offsets, content) {
            Ok(_) if out.buggify(Site::IndexRebuild) => Err(ASKED_FOR.into()),
            decoded => decoded,
        };
        match decoded {
            Ok(indexes) => {
                out.probe(Probe::IndexLoaded);
                self.index_uses += 1;
                let used = self.index_uses;
                self.segments[slot].adopt(Box::new(Indexes { used, ..*indexes }));
                self.index_loads.remove(load);
            }
            Err(why) => {
                self.index_loads.remove(load);
                self.rebuild_indexes(slot, &why, out);
            }
        }
        Ok(())
    }

    pub(super) fn decode_indexes(
        &self,
        slot: usize,
        offsets: Result<Bytes, String>,
        times: Result<Bytes, String>,
    ) -> Result<Box<Indexes>, String> {
        let segment = &self.segments[slot];
        let next_base = self.segments.get(slot + 1).map(|next| next.base);
        let bounds = IndexBounds { log_bytes: u64::from(segment.len), next_base };
        let bytes_max = self.settings.segment_index_bytes;
        let (offsets, times) = (offsets?, times?);
        let offsets = OffsetIndex::decode(segment.base, bytes_max, &offsets, bounds)
            .map_err(|why| format!("offset index: {why}"))?;
        let times =
            TimeIndex::decode(segment.base, bytes_max, &times, bounds).map_err(|why| format!("time index: {why}"))?;
        // A time index gets an entry when its segment rolls or the log closes, so it is not empty if the segment is
        // not. The index of an empty segment is never read.
        if times.is_empty() {
            return Err("the time index is empty, and the segment is not".into());
        }
        Ok(Box::new(Indexes { offsets, times, used: 0, proven: false }))
    }

    /// Rebuilds a segment's indexes from its batches.
    pub(super) fn rebuild_indexes(&mut self, slot: usize, why: &str, out: &mut Outbox) {
        if self.indexes_loading(slot) {
            return;
        }
        out.probe(Probe::IndexRebuilt);
        let segment = self.segments[slot].base;
        let name = &self.place.name;
        out.event(Level::Warn, PART, format!("{name}: the index of segment {segment} is rebuilt: {why}"));
        self.segments[slot].reset(self.settings.segment_index_bytes);
        self.index_loads.push(IndexLoad { segment, offsets: None });
        self.scan_for_indexes(slot, 0, out);
    }

    /// Whether the offset index has an entry for `position`, and the batch at the beginning of `region`, which was read
    /// from there, is not the one that the entry names.
    pub(super) fn index_entry_is_wrong(&self, slot: usize, position: u32, region: &[u8]) -> bool {
        let Some(indexes) = self.segments[slot].indexes.as_ref().filter(|indexes| !indexes.proven) else {
            return false;
        };
        let entry = indexes.offsets.entry_at(position);
        let header = BatchHeader::parse(region);
        entry.is_some_and(|entry| !header.is_ok_and(|header| header.last_offset() == entry.offset))
    }

    fn scan_for_indexes(&mut self, slot: usize, position: u64, out: &mut Outbox) {
        let segment = &self.segments[slot];
        let (file, base) = (segment.file, segment.base);
        let len = (u64::from(segment.written_len) - position).min(CHUNK_BYTES) as u32;
        let op = IoOp::Read { file, position, len };
        self.issue(Purpose::RebuildIndex { segment: base, position }, op, out);
    }

    /// Takes a part of a log file whose indexes are rebuilt.
    pub(super) fn index_scanned(
        &mut self,
        base: Offset,
        position: u64,
        result: Result<IoDone, IoError>,
        out: &mut Outbox,
    ) -> Result<(), String> {
        let Ok(IoDone::Bytes(bytes)) = result else { return Err(failure(result)) };
        let Some(load) = self.index_loads.iter().position(|load| load.segment == base) else { return Ok(()) };
        let slot = self.slot_of(base).expect("an index is rebuilt for a segment of the log");
        let interval = self.settings.index_interval_bytes;
        let len = u64::from(self.segments[slot].written_len);
        let mut at = position;
        let mut damaged = false;
        let mut rest: &[u8] = &bytes;
        // Only the headers are needed: the rest of a batch may lie behind the region.
        while rest.len() >= BatchHeader::LEN {
            let Ok(header) = BatchHeader::parse(rest) else {
                damaged = true;
                break;
            };
            let size = header.size_bytes() as u64;
            if at + size > len {
                damaged = true;
                break;
            }
            self.segments[slot].index_batch(&header, at as u32, size as u32, interval);
            at += size;
            rest = rest.get(size as usize..).unwrap_or_default();
        }
        if at < len {
            if !damaged && at > position {
                self.scan_for_indexes(slot, at, out);
                return Ok(());
            }
            let name = &self.place.name;
            let text =
                format!("{name}: segment {base} is damaged at position {at}; the records behind it cannot be read");
            out.event(Level::Error, PART, text);
            // The indexes serve for the batches before the damage. They are not written, since the operator may restore
            // the log file.
            self.index_loads.remove(load);
            self.segments[slot].damaged_at = Some(at as u32);
            return Ok(());
        }
        self.index_loads.remove(load);
        self.segments[slot].seal();
        self.write_indexes(slot, out);
        Ok(())
    }
}
