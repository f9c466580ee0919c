//! The indexes of a segment, and whether they tell the truth about the log beside them.

use super::Stop;
use super::batches::Batches;
use super::files::{self, Named};
use super::line::Line;
use super::report::Report;
use std::io;
use std::path::Path;
use tidelog_core::batch::{BatchHeader, NO_TIMESTAMP};
use tidelog_core::ids::Offset;
use tidelog_core::storage::offset_index::{IndexBounds, OffsetIndex};
use tidelog_core::storage::time_index::TimeIndex;

/// An index file with what it is to be held against.
struct Opened {
    bytes: Vec<u8>,
    log: Option<Batches>,
    bounds: IndexBounds,
}

fn open(path: &Path, named: &Named) -> io::Result<Opened> {
    let bytes = files::read_whole(path)?;
    let log = files::log_beside(path, named)?.map(Batches::new).transpose()?;
    let next_base = files::next_base(path, named)?;
    let bounds = IndexBounds { log_bytes: log.as_ref().map_or(u64::MAX, Batches::len), next_base };
    Ok(Opened { bytes, log, bounds })
}

/// The part of a file that was allocated and never written is no fault, and worth knowing.
fn begin(opened: &Opened, entry_bytes: usize, entries: usize, report: &mut Report) -> Result<(), Stop> {
    let zeros = opened.bytes.len() - entries * entry_bytes;
    if zeros > 0 {
        report.note(format!("{entries} entries, and {zeros} zeros: room that was allocated beforehand"))?;
    }
    if opened.log.is_none() {
        report.note("its log is not beside it: the entries are compared with nothing")?;
    }
    Ok(())
}

pub fn offset_index(path: &Path, named: &Named, report: &mut Report) -> Result<(), Stop> {
    let opened = open(path, named)?;
    let index = match OffsetIndex::decode(named.offset, u32::MAX, &opened.bytes, opened.bounds) {
        Ok(index) => index,
        Err(why) => return report.line(&Line::fault(why)),
    };
    begin(&opened, OffsetIndex::ENTRY_BYTES, index.iter().count(), report)?;
    for (slot, entry) in index.iter().enumerate() {
        report.line(&Line::OffsetEntry { offset: entry.offset.0, position: entry.position })?;
        let Some(log) = &opened.log else { continue };
        let found = log.header_at(u64::from(entry.position))?;
        let problem = match found {
            Ok(header) if header.last_offset() == entry.offset => continue,
            Ok(header) => format!("a batch that ends with offset {}", header.last_offset()),
            Err(error) => format!("no batch ({error})"),
        };
        let (offset, position) = (entry.offset, entry.position);
        report.line(&Line::fault_in(
            (slot * OffsetIndex::ENTRY_BYTES) as u64,
            offset.0,
            format!(
                "entry {slot} names the batch that ends with offset {offset}, and the log has {problem} at {position}"
            ),
        ))?;
    }
    Ok(())
}

pub fn time_index(path: &Path, named: &Named, report: &mut Report) -> Result<(), Stop> {
    let opened = open(path, named)?;
    let index = match TimeIndex::decode(named.offset, u32::MAX, &opened.bytes, opened.bounds) {
        Ok(index) => index,
        Err(why) => return report.line(&Line::fault(why)),
    };
    begin(&opened, TimeIndex::ENTRY_BYTES, index.len(), report)?;
    let mut times = opened.log.as_ref().map(Times::new);
    for (slot, entry) in index.iter().enumerate() {
        let (timestamp, offset) = (entry.timestamp, entry.offset);
        report.line(&Line::TimeEntry { timestamp, offset: offset.0 })?;
        let Some(times) = &mut times else { continue };
        let problem = match times.up_to(offset)? {
            Some(greatest) if greatest == timestamp => continue,
            Some(greatest) => format!("the greatest time up to there is {greatest}"),
            None => format!("the log's batches end at {}", times.position),
        };
        report.line(&Line::fault_in(
            (slot * TimeIndex::ENTRY_BYTES) as u64,
            offset.0,
            format!("entry {slot} says that the greatest time up to offset {offset} is {timestamp}, but {problem}"),
        ))?;
    }
    Ok(())
}

/// Goes through the headers of a log, and past the records.
struct Times<'a> {
    log: &'a Batches,
    position: u64,
    last_offset: Offset,
    greatest: i64,
}

impl<'a> Times<'a> {
    fn new(log: &'a Batches) -> Self {
        Self { log, position: 0, last_offset: Offset::UNKNOWN, greatest: NO_TIMESTAMP }
    }

    /// The greatest timestamp of the batches up to the one with `offset`; `None` where the log does not get so far.
    fn up_to(&mut self, offset: Offset) -> io::Result<Option<i64>> {
        while self.last_offset < offset {
            if self.position + BatchHeader::LEN as u64 > self.log.len() {
                return Ok(None);
            }
            let Ok(header) = self.log.header_at(self.position)? else { return Ok(None) };
            self.position += header.size_bytes() as u64;
            self.last_offset = header.last_offset();
            self.greatest = self.greatest.max(header.max_timestamp);
        }
        Ok(Some(self.greatest))
    }
}
