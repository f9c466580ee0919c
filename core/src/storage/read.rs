//! Reading: which slice of which file holds the records from an offset on.
//!
//! Record bytes are never read here. A read at the end of the log is answered from the [`Tail`](super::tail) at once.
//! An older one takes the offset index's entry at or before the wanted offset and reads a small region there, to walk
//! the headers from it: it is *pending* until that region has come, and until the index has, where it is not in
//! memory.
//!
//! A slice begins with the batch that holds the offset and ends where a batch ends, below the upper bound. It never
//! names bytes that are not known to have been written.

use super::log::{Log, LogEvent, LogState, PART, Pending};
use super::timestamps::LookupTarget;
use crate::batch::{BatchHeader, Scan, ScanStop};
use crate::buggify::Site;
use crate::ids::Offset;
use crate::io::{IoOp, Level, Outbox};
use crate::plant::Plant;
use crate::probe::Probe;
use crate::wire::FileSlice;
use bytes::Bytes;

/// How much is read to walk headers. An index interval and a common batch fit.
const REGION_BYTES: u32 = 16 << 10;

/// Records that were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Whole batches.
    pub slice: FileSlice,
    /// Of the first batch: at or below the offset that was asked for.
    pub base_offset: Offset,
}

/// The answer to a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    Found(Fetched),
    /// Nothing lies between the offset and the upper bound.
    AtEnd,
    /// The first batch is larger than what was allowed, and at least one was not asked for.
    NoRoom,
    /// Below the log's start or beyond its end.
    OutOfRange,
    /// The answer comes as [`LogEvent::ReadDone`].
    Pending,
    /// The log is not open, or cannot be read there. The text says why.
    Failed(String),
}

/// A question that waits for I/O.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub id: u64,
    pub token: u64,
    pub ask: Ask,
    pub at: At,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    Read(ReadAsk),
    Lookup(LookupTarget),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ReadAsk {
    pub offset: Offset,
    pub upper: Offset,
    pub max_bytes: u32,
    pub at_least_one_batch: bool,
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// An index is being read; then it begins anew.
    Index,
    /// A region at `position` of `segment` is being read, to find the first batch of a read.
    First { segment: Offset, position: u32 },
    /// The same, to find where the upper bound lies. `position` and `size` are of the first batch.
    Upper { segment: Offset, at: u32, first: FirstBatch },
    /// The same, to find the first batch that answers a look-up.
    Headers { segment: Offset, position: u32 },
    /// A whole batch, for its records.
    Batch { segment: Offset, position: u32, size: u32 },
}

/// The batch a read begins with, and what is known of the end of the slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FirstBatch {
    pub base: Offset,
    pub position: u32,
    pub size: u32,
    /// The end of a later batch that still has room, where one was seen.
    pub seen_end: u32,
}

/// What a step of a job comes to.
pub(super) enum Step {
    Read(ReadOutcome),
    Lookup(Result<Option<super::timestamps::TimestampedOffset>, String>),
    Index(usize),
    /// The index of this segment names what is no batch.
    Rebuild(usize),
    Region(At),
}

/// What walking headers through a region found.
pub(super) enum Walked {
    Found {
        position: u32,
        header: BatchHeader,
    },
    /// The next header begins at this position, outside of the region.
    Further(u32),
    Damaged(String),
}

/// Walks the headers of a region that begins with a batch at `position`, until one pleases. Offsets must grow: where
/// they do not, a length was damaged or a write has landed where it should not.
pub(super) fn walk(region: &[u8], position: u32, mut pleases: impl FnMut(&BatchHeader) -> bool) -> Walked {
    let mut at: u64 = 0;
    let mut expected: Option<Offset> = None;
    while let Some(rest) = region.get(at as usize..).filter(|rest| rest.len() >= BatchHeader::LEN) {
        let place = u64::from(position) + at;
        match BatchHeader::parse(rest) {
            Ok(header) if expected.is_some_and(|expected| header.base_offset < expected) => {
                return Walked::Damaged(format!("at position {place}: the offset {} comes again", header.base_offset));
            }
            Ok(header) if pleases(&header) => return Walked::Found { position: place as u32, header },
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
    /// The records from `offset` on and below `upper`, of one segment. `max_bytes` bounds them, but where
    /// `at_least_one_batch` the first batch comes whatever its size (KIP-74). A pending answer bears `token`.
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
        let ask = Ask::Read(ReadAsk { offset, upper, max_bytes, at_least_one_batch });
        let step = self.begin(&ask);
        match step {
            Step::Read(outcome) => {
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
                self.park(token, ask, step, out);
                ReadOutcome::Pending
            }
        }
    }

    /// The first step of a question, from what is known without I/O.
    pub(super) fn begin(&mut self, ask: &Ask) -> Step {
        match *ask {
            Ask::Read(ask) => self.begin_read(ask),
            Ask::Lookup(target) => self.begin_lookup(target),
        }
    }

    /// Puts a question aside until its I/O is done.
    pub(super) fn park(&mut self, token: u64, ask: Ask, step: Step, out: &mut Outbox) {
        let id = self.next_job;
        self.next_job += 1;
        self.jobs.push(Job { id, token, ask, at: At::Index });
        self.arrange(self.jobs.len() - 1, step, out);
    }

    /// Asks for what the job's next step needs.
    fn arrange(&mut self, place: usize, step: Step, out: &mut Outbox) {
        match step {
            Step::Index(slot) => {
                self.jobs[place].at = At::Index;
                self.load_indexes(slot, out);
            }
            Step::Rebuild(slot) => {
                self.jobs[place].at = At::Index;
                self.rebuild_indexes(slot, "an entry names what is no batch", out);
            }
            Step::Region(at) => {
                let (segment, position, wanted) = match at {
                    At::First { segment, position } | At::Headers { segment, position } => {
                        (segment, position, REGION_BYTES)
                    }
                    At::Upper { segment, at, .. } => (segment, at, REGION_BYTES),
                    At::Batch { segment, position, size } => (segment, position, size),
                    At::Index => unreachable!("an index is no region"),
                };
                let segment = &self.segments[self.slot_of(segment).expect("a region of a segment of the log")];
                let (file, len) = (segment.file, wanted.min(segment.written_len - position));
                self.jobs[place].at = at;
                let job = self.jobs[place].id;
                let op = IoOp::Read { file, position: u64::from(position), len };
                self.issue(Pending::Region { job }, op, out);
            }
            Step::Read(_) | Step::Lookup(_) => unreachable!("an answer needs nothing"),
        }
    }

    fn begin_read(&mut self, ask: ReadAsk) -> Step {
        if ask.offset < self.log_start || ask.offset > self.log_end {
            return Step::Read(ReadOutcome::OutOfRange);
        }
        // What is not yet written cannot be read, whatever the caller says.
        let upper = ask.upper.min(self.written);
        if ask.offset >= upper {
            return Step::Read(ReadOutcome::AtEnd);
        }
        if let Some(batch) = self.tail.find(ask.offset).copied() {
            let first =
                FirstBatch { base: batch.base, position: batch.position, size: batch.len, seen_end: batch.end() };
            return match batch.last < upper {
                true => self.finish_read(&ask, batch.segment, first),
                false => Step::Read(ReadOutcome::AtEnd),
            };
        }
        let slot = self.segment_slot(ask.offset);
        self.first_in(slot, ask.offset)
    }

    /// Looks for the first batch in the segment at `slot` that ends at or after `offset`.
    fn first_in(&mut self, slot: usize, offset: Offset) -> Step {
        let segment = self.segments[slot].base;
        let off_by = i64::from(self.plants.has(Plant::IndexOffByOne));
        match self.use_indexes(slot) {
            Some(indexes) => {
                let position = indexes.offsets.floor(offset + off_by).position;
                self.first_region(slot, segment, position, offset)
            }
            None => Step::Index(slot),
        }
    }

    fn first_region(&mut self, slot: usize, segment: Offset, position: u32, offset: Offset) -> Step {
        if position < self.segments[slot].written_len {
            Step::Region(At::First { segment, position })
        } else if slot + 1 < self.segments.len() {
            // The rest of this segment was compacted away.
            self.first_in(slot + 1, offset)
        } else {
            Step::Read(ReadOutcome::AtEnd)
        }
    }

    /// A region has come.
    pub(super) fn region_read(&mut self, job: u64, bytes: Bytes, out: &mut Outbox, events: &mut Vec<LogEvent>) {
        let Some(place) = self.jobs.iter().position(|known| known.id == job) else { return };
        if self.state != LogState::Open {
            // It begins anew when the log is open again, or is told that it never will be.
            self.jobs[place].at = At::Index;
            return;
        }
        let Job { ask, at, .. } = self.jobs[place].clone();
        let step = match (ask, at) {
            (Ask::Read(ask), At::First { segment, position }) => self.first_read(&ask, segment, position, &bytes),
            (Ask::Read(ask), At::Upper { segment, at, first }) => self.upper_read(&ask, segment, at, first, &bytes),
            (Ask::Lookup(target), At::Headers { segment, position }) => {
                self.headers_read(target, segment, position, &bytes)
            }
            (Ask::Lookup(target), At::Batch { segment, position, size }) => {
                self.batch_read(target, segment, position, size, bytes)
            }
            (ask, at) => unreachable!("{ask:?} at {at:?}"),
        };
        self.advance(place, step, out, events);
    }

    /// All that waited for an index begin anew.
    pub(super) fn resume_jobs(&mut self, out: &mut Outbox, events: &mut Vec<LogEvent>) {
        let waiting: Vec<u64> = self.jobs.iter().filter(|job| job.at == At::Index).map(|job| job.id).collect();
        for id in waiting {
            let place = self.jobs.iter().position(|job| job.id == id).expect("a job goes on one at a time");
            let ask = self.jobs[place].ask;
            let step = self.begin(&ask);
            self.advance(place, step, out, events);
        }
        if !self.segments.is_empty() {
            self.forget_indexes();
        }
    }

    fn advance(&mut self, place: usize, step: Step, out: &mut Outbox, events: &mut Vec<LogEvent>) {
        let token = self.jobs[place].token;
        match step {
            Step::Read(outcome) => {
                if let ReadOutcome::Failed(reason) = &outcome {
                    out.event(Level::Error, PART, reason.clone());
                }
                self.jobs.remove(place);
                events.push(LogEvent::ReadDone { token, outcome });
            }
            Step::Lookup(found) => {
                if let Err(reason) = &found {
                    out.event(Level::Error, PART, reason.clone());
                }
                self.jobs.remove(place);
                events.push(LogEvent::LookupDone { token, found });
            }
            step => self.arrange(place, step, out),
        }
    }

    /// The log can no longer answer.
    pub(super) fn answer_all(&mut self, reason: &str, events: &mut Vec<LogEvent>) {
        for job in self.jobs.drain(..) {
            let token = job.token;
            events.push(match job.ask {
                Ask::Read(_) => LogEvent::ReadDone { token, outcome: ReadOutcome::Failed(reason.into()) },
                Ask::Lookup(_) => LogEvent::LookupDone { token, found: Err(reason.into()) },
            });
        }
    }

    /// The text of an error about a segment's content.
    pub(super) fn unreadable(&self, segment: Offset, why: &str) -> String {
        format!("{}: segment {segment} cannot be read {why}", self.place.name)
    }

    fn first_read(&mut self, ask: &ReadAsk, segment: Offset, position: u32, bytes: &[u8]) -> Step {
        let Some(slot) = self.slot_of(segment).filter(|_| ask.offset >= self.log_start) else {
            return Step::Read(ReadOutcome::OutOfRange);
        };
        if self.index_lies(slot, position, bytes) {
            return Step::Rebuild(slot);
        }
        let (at, header) = match walk(bytes, position, |header| header.last_offset() >= ask.offset) {
            Walked::Found { position, header } => (position, header),
            Walked::Further(next) if next > position => return self.first_region(slot, segment, next, ask.offset),
            Walked::Further(_) => return Step::Read(ReadOutcome::Failed(self.unreadable(segment, "to its end"))),
            Walked::Damaged(why) => return Step::Read(ReadOutcome::Failed(self.unreadable(segment, &why))),
        };
        let written_len = u64::from(self.segments[slot].written_len);
        let size = header.size_bytes() as u64;
        if header.base_offset > ask.offset
            && let Some(damaged) = damaged_before(bytes, position, at)
        {
            // Compaction leaves gaps. So does a header that says that its batch ends before what is looked for.
            return Step::Read(ReadOutcome::Failed(self.unreadable(segment, &format!("at position {damaged}"))));
        }
        if u64::from(at) + size > written_len || header.base_offset < segment {
            return Step::Read(ReadOutcome::Failed(self.unreadable(segment, &format!("at position {at}"))));
        }
        let upper = ask.upper.min(self.written);
        if header.last_offset() >= upper {
            return Step::Read(ReadOutcome::AtEnd);
        }
        let room = u64::from(at) + u64::from(ask.max_bytes);
        let seen_end = whole_batches_end(bytes, position, at, room, upper).max(at + size as u32);
        let first = FirstBatch { base: header.base_offset, position: at, size: size as u32, seen_end };
        self.finish_read(ask, segment, first)
    }

    /// The first batch is known: where does the slice end?
    fn finish_read(&mut self, ask: &ReadAsk, segment: Offset, first: FirstBatch) -> Step {
        let slot = self.slot_of(segment).expect("the segment of the first batch is in the log");
        let upper = ask.upper.min(self.written);
        let segment_end = self.segments.get(slot + 1).map_or(self.written, |next| next.base);
        let limit = if upper >= segment_end {
            self.segments[slot].written_len
        } else if let Some(batch) = self.tail.find(upper).filter(|batch| batch.segment == segment) {
            batch.position
        } else {
            // The bound lies within this segment, behind the tail: a high watermark that lags.
            return match self.use_indexes(slot) {
                Some(indexes) => {
                    let at = indexes.offsets.floor(upper).position.max(first.position);
                    Step::Region(At::Upper { segment, at, first })
                }
                None => Step::Index(slot),
            };
        };
        self.slice(ask, slot, first, limit)
    }

    fn upper_read(&mut self, ask: &ReadAsk, segment: Offset, at: u32, first: FirstBatch, bytes: &[u8]) -> Step {
        let Some(slot) = self.slot_of(segment).filter(|_| ask.offset >= self.log_start) else {
            return Step::Read(ReadOutcome::OutOfRange);
        };
        if self.index_lies(slot, at, bytes) {
            return Step::Rebuild(slot);
        }
        let upper = ask.upper.min(self.written);
        match walk(bytes, at, |header| header.last_offset() >= upper) {
            Walked::Found { position, .. } => self.slice(ask, slot, first, position),
            Walked::Further(next) if next > at && next < self.segments[slot].written_len => {
                Step::Region(At::Upper { segment, at: next, first })
            }
            Walked::Further(next) => self.slice(ask, slot, first, next.min(self.segments[slot].written_len)),
            Walked::Damaged(why) => Step::Read(ReadOutcome::Failed(self.unreadable(segment, &why))),
        }
    }

    /// The slice from the first batch on, with `limit` as the position of the upper bound.
    fn slice(&mut self, ask: &ReadAsk, slot: usize, first: FirstBatch, limit: u32) -> Step {
        if u64::from(first.position) + u64::from(first.size) > u64::from(limit) {
            // Only a damaged length reaches past what is known to begin there.
            return Step::Read(ReadOutcome::Failed(
                self.unreadable(self.segments[slot].base, "where a batch is too long"),
            ));
        }
        let room = u64::from(first.position) + u64::from(ask.max_bytes);
        let end = if u64::from(limit) <= room {
            limit
        } else if u64::from(first.position + first.size) > room {
            if !ask.at_least_one_batch {
                return Step::Read(ReadOutcome::NoRoom);
            }
            first.position + first.size
        } else {
            // The last end of a batch that is known and has room.
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
        Step::Read(ReadOutcome::Found(Fetched { slice, base_offset: first.base }))
    }
}

/// Where, before `until`, a region that begins at `region_at` holds a batch whose checksum does not fit.
fn damaged_before(region: &[u8], region_at: u32, until: u32) -> Option<u64> {
    let before = region.get(..(until - region_at) as usize)?;
    let mut scan = Scan::new(before, u64::from(region_at), true);
    scan.by_ref().for_each(drop);
    matches!(scan.stop(), Some(ScanStop::Damaged(_))).then(|| scan.next_position())
}

/// The end of the last batch in a region that ends at or before `room` and below `upper`, walked from `from` on.
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
    use crate::batch::BatchBuilder;
    use crate::ids::LeaderEpoch;

    fn at(base: i64) -> Bytes {
        let mut builder = BatchBuilder::new().at(Offset(base), LeaderEpoch(0));
        builder.push(1, None, Some(b"x"), &[]);
        builder.build()
    }

    #[test]
    fn batches_are_walked_over_gaps_and_never_back() {
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
        let why = format!("at position {}: the offset 6 comes again", 100 + 2 * at(0).len());
        assert_eq!(found(&[5, 6, 6, 8], 8), Err(why));
    }
}
