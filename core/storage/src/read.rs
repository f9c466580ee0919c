//! Reading: finds the slice of a log file that holds the records from an offset on.
//!
//! The records themselves are not read here. A read near the end of the log is answered from the [`Tail`](super::tail)
//! at once. For an older offset the offset index gives a position at or before it. A region of the log file is read
//! from there, and batch headers are walked to the wanted batch. Such a read is *pending* until the region has been
//! read, and before that the index, if it is not in memory.
//!
//! A slice begins with the batch that holds the offset, and ends with a batch that is wholly below the upper bound.
//! It holds only bytes whose write has completed.

use super::log::{Log, LogEvent, LogState, PART, Purpose};
use super::timestamps::LookupTarget;
use crate::buggify::Site;
use crate::io::{IoOp, Level, Outbox};
use crate::probe::Probe;
use bytes::Bytes;
use tidelog_batch::{BatchHeader, Scan, ScanStop};
use tidelog_config::plant::Plant;
use tidelog_wire::FileSlice;
use tidelog_wire::ids::Offset;

/// How much one read of a region asks for. An index interval and a batch of usual size fit.
const REGION_BYTES: u32 = 16 << 10;

/// Records that were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Whole batches.
    pub slice: FileSlice,
    /// The base offset of the first batch. At or below the offset that was asked for, unless compaction left a gap.
    pub base_offset: Offset,
}

/// The answer to a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    Found(Fetched),
    /// There are no records between the offset and the upper bound.
    AtEnd,
    /// The first batch is larger than `max_bytes`, and `at_least_one_batch` is false.
    NoRoom,
    /// The offset is below the log's start or above its end.
    OutOfRange,
    /// The answer comes as [`LogEvent::ReadDone`].
    Pending,
    /// The log is not open, or is damaged there. The text says which.
    Failed(String),
}

/// A read or a look-up that waits for I/O.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub id: u64,
    pub token: u64,
    pub kind: QueryKind,
    pub stage: QueryStage,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum QueryKind {
    Read(ReadBounds),
    Lookup(LookupTarget),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ReadBounds {
    pub offset: Offset,
    pub upper: Offset,
    pub max_bytes: u32,
    pub at_least_one_batch: bool,
}

/// What a query waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueryStage {
    /// An index is being read. Then the query begins again.
    Index,
    /// A region at `position` of `segment` is being read, to find the first batch of a read.
    First { segment: Offset, position: u32 },
    /// A region at position `at` of `segment` is being read, to find the upper bound of a read.
    Upper { segment: Offset, at: u32, first: FirstBatch },
    /// A region at `position` of `segment` is being read, to find the first batch that may answer a look-up.
    Headers { segment: Offset, position: u32 },
    /// A whole batch is being read, to look at its records.
    Batch { segment: Offset, position: u32, size: u32 },
}

/// The first batch of a read, and a possible end of its slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FirstBatch {
    pub base: Offset,
    pub position: u32,
    pub size: u32,
    /// The position where the first batch ends, or a later one within `max_bytes` that was seen in the same region.
    pub seen_end: u32,
}

/// What a query needs next, or its answer.
pub(super) enum QueryStep {
    /// The answer to a read.
    Read(ReadOutcome),
    /// The answer to a look-up.
    Lookup(Result<Option<super::timestamps::TimestampedOffset>, String>),
    /// The indexes of the segment in this slot must be read.
    Index(usize),
    /// The index of the segment in this slot names a batch that does not exist, and must be rebuilt.
    Rebuild(usize),
    /// The region or batch that this stage waits for must be read.
    Region(QueryStage),
}

/// The result of walking the batch headers of a region.
pub(super) enum Walked {
    Found {
        position: u32,
        header: BatchHeader,
    },
    /// No header of the region is the wanted one. The next header begins at this position, behind the region.
    Further(u32),
    Damaged(String),
}

/// Walks the batch headers of a region that begins with a batch at `position`, until `is_wanted`. Offsets must grow. If
/// they do not, a length is damaged, or a write has gone to a wrong position.
pub(super) fn walk(region: &[u8], position: u32, mut is_wanted: impl FnMut(&BatchHeader) -> bool) -> Walked {
    let mut at: u64 = 0;
    let mut expected: Option<Offset> = None;
    while let Some(rest) = region.get(at as usize..).filter(|rest| rest.len() >= BatchHeader::LEN) {
        let place = u64::from(position) + at;
        match BatchHeader::parse(rest) {
            Ok(header) if expected.is_some_and(|expected| header.base_offset < expected) => {
                let offset = header.base_offset;
                return Walked::Damaged(format!(
                    "at position {place}: the offset {offset} is not above the ones before"
                ));
            }
            Ok(header) if is_wanted(&header) => return Walked::Found { position: place as u32, header },
            Ok(header) => {
                at += header.size_bytes() as u64;
                expected = Some(header.next_offset());
            }
            Err(error) => return Walked::Damaged(format!("at position {place}: {error}")),
        }
    }
    match u32::try_from(u64::from(position) + at) {
        Ok(next) => Walked::Further(next),
        Err(_) => Walked::Damaged(format!("a batch at position {position} ends beyond 4 GiB")),
    }
}

impl Log {
    /// Finds records of one segment from `offset` on, below `upper`, and of at most `max_bytes`. With
    /// `at_least_one_batch` the first batch is returned even if it is larger than that (KIP-74). If the outcome is
    /// [`ReadOutcome::Pending`], the answer comes as [`LogEvent::ReadDone`] with `token`.
    pub fn read(
        &mut self,
        offset: Offset,
        upper: Offset,
        max_bytes: u32,
        at_least_one_batch: bool,
        token: u64,
        out: &mut Outbox,
    ) -> ReadOutcome {
        if self.state != LogState::Open {
            return ReadOutcome::Failed(format!("{}: the log is not open: {:?}", self.place.name, self.state));
        }
        let max_bytes = if out.buggify(Site::SmallestRead) { max_bytes.min(1) } else { max_bytes };
        let kind = QueryKind::Read(ReadBounds { offset, upper, max_bytes, at_least_one_batch });
        let step = self.first_step(&kind);
        match step {
            QueryStep::Read(outcome) => {
                match outcome {
                    ReadOutcome::Found(_) => out.probe(Probe::ReadTail),
                    ReadOutcome::OutOfRange => out.probe(Probe::ReadOutOfRange),
                    ReadOutcome::NoRoom => out.probe(Probe::ReadNoRoom),
                    _ => {}
                }
                outcome
            }
            step => {
                out.probe(Probe::ReadDisk);
                self.wait_for_io(token, kind, step, out);
                ReadOutcome::Pending
            }
        }
    }

    /// The first step of a query, taken with what is in memory.
    pub(super) fn first_step(&mut self, kind: &QueryKind) -> QueryStep {
        match *kind {
            QueryKind::Read(bounds) => self.first_read_step(bounds),
            QueryKind::Lookup(target) => self.first_lookup_step(target),
        }
    }

    /// Makes a query wait for the I/O that `step` asks for.
    pub(super) fn wait_for_io(&mut self, token: u64, kind: QueryKind, step: QueryStep, out: &mut Outbox) {
        let id = self.next_query;
        self.next_query += 1;
        self.queries.push(Query { id, token, kind, stage: QueryStage::Index });
        self.issue_io(self.queries.len() - 1, step, out);
    }

    /// Issues the I/O that the next step of a query needs.
    fn issue_io(&mut self, place: usize, step: QueryStep, out: &mut Outbox) {
        match step {
            QueryStep::Index(slot) => {
                self.queries[place].stage = QueryStage::Index;
                self.load_indexes(slot, out);
            }
            QueryStep::Rebuild(slot) => {
                self.queries[place].stage = QueryStage::Index;
                self.rebuild_indexes(slot, "an entry names a batch that does not exist", out);
            }
            QueryStep::Region(stage) => {
                let (segment, position, wanted) = match stage {
                    QueryStage::First { segment, position } | QueryStage::Headers { segment, position } => {
                        (segment, position, REGION_BYTES)
                    }
                    QueryStage::Upper { segment, at, .. } => (segment, at, REGION_BYTES),
                    QueryStage::Batch { segment, position, size } => (segment, position, size),
                    QueryStage::Index => unreachable!("an index is not a region"),
                };
                let segment = &self.segments[self.slot_of(segment).expect("the segment of a query is in the log")];
                let (file, len) = (segment.file, wanted.min(segment.written_len - position));
                self.queries[place].stage = stage;
                let query = self.queries[place].id;
                let op = IoOp::Read { file, position: u64::from(position), len };
                self.issue(Purpose::ReadRegion { query }, op, out);
            }
            QueryStep::Read(_) | QueryStep::Lookup(_) => unreachable!("an answer needs no I/O"),
        }
    }

    fn first_read_step(&mut self, bounds: ReadBounds) -> QueryStep {
        if bounds.offset < self.log_start || bounds.offset > self.log_end {
            return QueryStep::Read(ReadOutcome::OutOfRange);
        }
        // Records that are not written yet cannot be read, even if the caller's bound allows it.
        let upper = bounds.upper.min(self.written);
        if bounds.offset >= upper {
            return QueryStep::Read(ReadOutcome::AtEnd);
        }
        if let Some(batch) = self.tail.find(bounds.offset).copied() {
            let first =
                FirstBatch { base: batch.base, position: batch.position, size: batch.len, seen_end: batch.end() };
            return match batch.last < upper {
                true => self.finish_read(&bounds, batch.segment, first),
                false => QueryStep::Read(ReadOutcome::AtEnd),
            };
        }
        let slot = self.segment_slot(bounds.offset);
        self.first_in(slot, bounds.offset)
    }

    /// Looks for the first batch at or after `offset`, in the segment at `slot`.
    fn first_in(&mut self, slot: usize, offset: Offset) -> QueryStep {
        let segment = self.segments[slot].base;
        let off_by = i64::from(self.plants.has(Plant::IndexOffByOne));
        match self.use_indexes(slot) {
            Some(indexes) => {
                let position = indexes.offsets.floor(offset + off_by).position;
                self.first_region(slot, segment, position, offset)
            }
            None => QueryStep::Index(slot),
        }
    }

    fn first_region(&mut self, slot: usize, segment: Offset, position: u32, offset: Offset) -> QueryStep {
        if position < self.segments[slot].written_len {
            QueryStep::Region(QueryStage::First { segment, position })
        } else if slot + 1 < self.segments.len() {
            // Compaction has removed the rest of this segment.
            self.first_in(slot + 1, offset)
        } else {
            QueryStep::Read(ReadOutcome::AtEnd)
        }
    }

    /// A region that a query waits for has been read.
    pub(super) fn region_read(&mut self, query: u64, bytes: Bytes, out: &mut Outbox, events: &mut Vec<LogEvent>) {
        let Some(place) = self.queries.iter().position(|known| known.id == query) else { return };
        if self.state != LogState::Open {
            // The query begins again when the log is open again. If it will not be opened again, the query fails then.
            self.queries[place].stage = QueryStage::Index;
            return;
        }
        let Query { kind, stage, .. } = self.queries[place].clone();
        let step = match (kind, stage) {
            (QueryKind::Read(bounds), QueryStage::First { segment, position }) => {
                self.first_read(&bounds, segment, position, &bytes)
            }
            (QueryKind::Read(bounds), QueryStage::Upper { segment, at, first }) => {
                self.upper_read(&bounds, segment, at, first, &bytes)
            }
            (QueryKind::Lookup(target), QueryStage::Headers { segment, position }) => {
                self.headers_read(target, segment, position, &bytes)
            }
            (QueryKind::Lookup(target), QueryStage::Batch { segment, position, size }) => {
                self.batch_read(target, segment, position, size, bytes)
            }
            (kind, stage) => unreachable!("{kind:?} at {stage:?}"),
        };
        self.take_step(place, step, out, events);
    }

    /// Begins again with all queries that wait for an index.
    pub(super) fn resume_queries(&mut self, out: &mut Outbox, events: &mut Vec<LogEvent>) {
        let waiting: Vec<u64> =
            self.queries.iter().filter(|query| query.stage == QueryStage::Index).map(|query| query.id).collect();
        for id in waiting {
            let place =
                self.queries.iter().position(|query| query.id == id).expect("a query is removed only by its own step");
            let kind = self.queries[place].kind;
            let step = self.first_step(&kind);
            self.take_step(place, step, out, events);
        }
        if !self.segments.is_empty() {
            self.forget_indexes();
        }
    }

    fn take_step(&mut self, place: usize, step: QueryStep, out: &mut Outbox, events: &mut Vec<LogEvent>) {
        let token = self.queries[place].token;
        match step {
            QueryStep::Read(outcome) => {
                if let ReadOutcome::Failed(reason) = &outcome {
                    out.event(Level::Error, PART, reason.clone());
                }
                self.queries.remove(place);
                events.push(LogEvent::ReadDone { token, outcome });
            }
            QueryStep::Lookup(found) => {
                if let Err(reason) = &found {
                    out.event(Level::Error, PART, reason.clone());
                }
                self.queries.remove(place);
                events.push(LogEvent::LookupDone { token, found });
            }
            step => self.issue_io(place, step, out),
        }
    }

    /// Answers all queries with a failure, because the log is no longer open.
    pub(super) fn fail_queries(&mut self, reason: &str, events: &mut Vec<LogEvent>) {
        for query in self.queries.drain(..) {
            let token = query.token;
            events.push(match query.kind {
                QueryKind::Read(_) => LogEvent::ReadDone { token, outcome: ReadOutcome::Failed(reason.into()) },
                QueryKind::Lookup(_) => LogEvent::LookupDone { token, found: Err(reason.into()) },
            });
        }
    }

    /// The text of an error about a segment's content.
    pub(super) fn unreadable(&self, segment: Offset, why: &str) -> String {
        format!("{}: segment {segment} cannot be read {why}", self.place.name)
    }

    fn first_read(&mut self, bounds: &ReadBounds, segment: Offset, position: u32, bytes: &[u8]) -> QueryStep {
        let Some(slot) = self.slot_of(segment).filter(|_| bounds.offset >= self.log_start) else {
            return QueryStep::Read(ReadOutcome::OutOfRange);
        };
        if self.index_entry_is_wrong(slot, position, bytes) {
            return QueryStep::Rebuild(slot);
        }
        let (at, header) = match walk(bytes, position, |header| header.last_offset() >= bounds.offset) {
            Walked::Found { position, header } => (position, header),
            Walked::Further(next) if next > position => return self.first_region(slot, segment, next, bounds.offset),
            Walked::Further(_) => return QueryStep::Read(ReadOutcome::Failed(self.unreadable(segment, "to its end"))),
            Walked::Damaged(why) => return QueryStep::Read(ReadOutcome::Failed(self.unreadable(segment, &why))),
        };
        let written_len = u64::from(self.segments[slot].written_len);
        let size = header.size_bytes() as u64;
        if header.base_offset > bounds.offset
            && let Some(damaged) = damaged_before(bytes, position, at)
        {
            // There is a gap before this batch. Compaction leaves gaps; but here a header before it is damaged, so that
            // its batch seems to end before the wanted offset.
            return QueryStep::Read(ReadOutcome::Failed(self.unreadable(segment, &format!("at position {damaged}"))));
        }
        if u64::from(at) + size > written_len || header.base_offset < segment {
            return QueryStep::Read(ReadOutcome::Failed(self.unreadable(segment, &format!("at position {at}"))));
        }
        let upper = bounds.upper.min(self.written);
        if header.last_offset() >= upper {
            return QueryStep::Read(ReadOutcome::AtEnd);
        }
        let room = u64::from(at) + u64::from(bounds.max_bytes);
        let seen_end = whole_batches_end(bytes, position, at, room, upper).max(at + size as u32);
        let first = FirstBatch { base: header.base_offset, position: at, size: size as u32, seen_end };
        self.finish_read(bounds, segment, first)
    }

    /// The first batch is known: looks for the position of the upper bound.
    fn finish_read(&mut self, bounds: &ReadBounds, segment: Offset, first: FirstBatch) -> QueryStep {
        let slot = self.slot_of(segment).expect("the segment of the first batch is in the log");
        let upper = bounds.upper.min(self.written);
        let segment_end = self.segments.get(slot + 1).map_or(self.written, |next| next.base);
        let limit = if upper >= segment_end {
            self.segments[slot].written_len
        } else if let Some(batch) = self.tail.find(upper).filter(|batch| batch.segment == segment) {
            batch.position
        } else {
            // The bound lies within this segment and before the tail, because the high watermark is far behind.
            return match self.use_indexes(slot) {
                Some(indexes) => {
                    let at = indexes.offsets.floor(upper).position.max(first.position);
                    QueryStep::Region(QueryStage::Upper { segment, at, first })
                }
                None => QueryStep::Index(slot),
            };
        };
        self.slice(bounds, slot, first, limit)
    }

    fn upper_read(
        &mut self,
        bounds: &ReadBounds,
        segment: Offset,
        at: u32,
        first: FirstBatch,
        bytes: &[u8],
    ) -> QueryStep {
        let Some(slot) = self.slot_of(segment).filter(|_| bounds.offset >= self.log_start) else {
            return QueryStep::Read(ReadOutcome::OutOfRange);
        };
        if self.index_entry_is_wrong(slot, at, bytes) {
            return QueryStep::Rebuild(slot);
        }
        let upper = bounds.upper.min(self.written);
        match walk(bytes, at, |header| header.last_offset() >= upper) {
            Walked::Found { position, .. } => self.slice(bounds, slot, first, position),
            Walked::Further(next) if next > at && next < self.segments[slot].written_len => {
                QueryStep::Region(QueryStage::Upper { segment, at: next, first })
            }
            Walked::Further(next) => self.slice(bounds, slot, first, next.min(self.segments[slot].written_len)),
            Walked::Damaged(why) => QueryStep::Read(ReadOutcome::Failed(self.unreadable(segment, &why))),
        }
    }

    /// The slice from the first batch on. `limit` is the position of the upper bound.
    fn slice(&mut self, bounds: &ReadBounds, slot: usize, first: FirstBatch, limit: u32) -> QueryStep {
        if u64::from(first.position) + u64::from(first.size) > u64::from(limit) {
            // The first batch seems to reach beyond the position where another one begins: its length is damaged.
            return QueryStep::Read(ReadOutcome::Failed(
                self.unreadable(self.segments[slot].base, "where a batch is too long"),
            ));
        }
        let room = u64::from(first.position) + u64::from(bounds.max_bytes);
        let end = if u64::from(limit) <= room {
            limit
        } else if u64::from(first.position + first.size) > room {
            if !bounds.at_least_one_batch {
                return QueryStep::Read(ReadOutcome::NoRoom);
            }
            first.position + first.size
        } else {
            // The greatest position within the room at which a batch is known to end.
            let segment = self.segments[slot].base;
            let tail = self.tail.last_before(segment, room, Offset(i64::MAX)).map(|batch| batch.end());
            let index = self.use_indexes(slot).and_then(|indexes| indexes.offsets.floor_position(room));
            let seen = Some(first.seen_end).filter(|end| u64::from(*end) <= room);
            let end = tail.into_iter().chain(index).chain(seen).max().unwrap_or(0);
            end.max(first.position + first.size).min(limit)
        };
        let file = self.segments[slot].file;
        let len = end - first.position;
        let slice = FileSlice { file, position: u64::from(first.position), len };
        QueryStep::Read(ReadOutcome::Found(Fetched { slice, base_offset: first.base }))
    }
}

/// The position of the first batch with a wrong checksum in a region that begins at `region_at`, before `until`.
fn damaged_before(region: &[u8], region_at: u32, until: u32) -> Option<u64> {
    let before = region.get(..(until - region_at) as usize)?;
    let mut scan = Scan::new(before, u64::from(region_at), true);
    scan.by_ref().for_each(drop);
    matches!(scan.stop(), Some(ScanStop::Damaged(_))).then(|| scan.next_position())
}

/// The position where the last batch ends that is wholly in the region, ends at or before the position `room`, and is
/// below the offset `upper`. Walks from the position `from` on.
fn whole_batches_end(region: &[u8], region_at: u32, from: u32, room: u64, upper: Offset) -> u32 {
    let mut end = from;
    let from_there = &region[(from - region_at) as usize..];
    walk(from_there, from, |header| {
        let next = u64::from(end) + header.size_bytes() as u64;
        if next > room || header.last_offset() >= upper {
            return true;
        }
        end = next as u32;
        false
    });
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_batch::BatchBuilder;
    use tidelog_wire::ids::LeaderEpoch;

    fn at(base: i64) -> Bytes {
        let mut builder = BatchBuilder::new().at(Offset(base), LeaderEpoch(0));
        builder.push(1, None, Some(b"x"), &[]);
        builder.build()
    }

    #[test]
    fn headers_are_walked_over_gaps_and_refused_if_an_offset_does_not_grow() {
        let found = |offsets: &[i64], target: i64| {
            let region: Vec<u8> = offsets.iter().flat_map(|base| at(*base)).collect();
            match walk(&region, 100, |header| header.last_offset() >= Offset(target)) {
                Walked::Found { position, .. } => Ok((position as usize - 100) / at(0).len()),
                Walked::Further(_) => panic!("not found"),
                Walked::Damaged(why) => Err(why),
            }
        };
        assert_eq!(found(&[5, 6, 7], 7), Ok(2));
        assert_eq!(found(&[5, 9, 20], 10), Ok(2));
        let why = format!("at position {}: the offset 6 is not above the ones before", 100 + 2 * at(0).len());
        assert_eq!(found(&[5, 6, 6, 8], 8), Err(why));
    }
}
