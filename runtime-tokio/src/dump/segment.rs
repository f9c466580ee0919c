//! Logs, and what is written like one: the snapshots of the metadata (KIP-630).

use super::Stop;
use super::batches::{BATCH_BYTES_MAX, Batches, End, Found};
use super::files::{self, Named};
use super::line::Line;
use super::records;
use super::report::Report;
use std::fs::File;
use std::io;
use std::path::Path;
use tidelog_core::batch::{ControlType, NO_TIMESTAMP, verify_checksum};
use tidelog_core::ids::{LeaderEpoch, Offset};

/// What the batches so far have come to.
struct Walk {
    base: Offset,
    next_base: Option<Offset>,
    batches: u64,
    records: u64,
    first_offset: Option<Offset>,
    last: Option<(Offset, LeaderEpoch)>,
    max_timestamp: i64,
}

pub fn log(path: &Path, named: &Named, show_records: bool, is_metadata: bool, report: &mut Report) -> Result<(), Stop> {
    let mut batches = open(path)?;
    let next_base = files::next_base(path, named)?;
    let mut walk = Walk::new(named.offset, next_base);
    while let Some(found) = batches.next_batch()? {
        let is_valid = walk.take(&found, report)?;
        if is_valid && (show_records || is_metadata) {
            records::show(&found, is_metadata, report)?;
        }
    }
    walk.finish(&batches, report)
}

/// A snapshot begins with a header and ends with a footer; without it, its writing was cut short.
pub fn metadata_snapshot(path: &Path, report: &mut Report) -> Result<(), Stop> {
    let mut batches = open(path)?;
    let mut walk = Walk::new(Offset::ZERO, None);
    let (mut has_begun, mut has_ended) = (false, false);
    while let Some(found) = batches.next_batch()? {
        if has_ended {
            report.line(&Line::fault_at(found.position, "a batch follows the footer"))?;
        }
        if walk.take(&found, report)? {
            let kinds = records::show(&found, true, report)?;
            if !has_begun && kinds.first() != Some(&ControlType::SnapshotHeader) {
                report.line(&Line::fault_at(found.position, "it does not begin with a snapshot header"))?;
            }
            has_ended |= kinds.contains(&ControlType::SnapshotFooter);
        }
        has_begun = true;
    }
    if !has_ended {
        let text = "it has no footer: its writing was cut short";
        report.line(&Line::fault_at(batches.position(), text))?;
    }
    walk.finish(&batches, report)
}

fn open(path: &Path) -> io::Result<Batches> {
    Batches::new(File::open(path)?)
}

impl Walk {
    fn new(base: Offset, next_base: Option<Offset>) -> Self {
        Self { base, next_base, batches: 0, records: 0, first_offset: None, last: None, max_timestamp: NO_TIMESTAMP }
    }

    /// Shows a batch and what is wrong with it; whether its checksum is right.
    fn take(&mut self, found: &Found, report: &mut Report) -> Result<bool, Stop> {
        let header = &found.header;
        let checksum = verify_checksum(&found.bytes);
        report.line(&Line::batch(found.position, header, checksum.is_ok()))?;
        let mut problems = Vec::new();
        problems.extend(checksum.as_ref().err().map(ToString::to_string));
        let (base, last) = (header.base_offset, header.last_offset());
        if base < self.base {
            problems.push(format!("it begins at offset {base}, below the segment's base offset {}", self.base));
        }
        if let Some(next) = self.next_base.filter(|next| last >= *next) {
            problems.push(format!("it ends at offset {last}, but the next segment begins at {next}"));
        }
        if let Some((last_before, epoch_before)) = self.last {
            if base <= last_before {
                problems.push(format!("its offsets begin at {base}, after the batch before it ended at {last_before}"));
            } else if base > last_before + 1 {
                let (from, to) = (last_before + 1, Offset(base.0 - 1));
                report.note(format!("no offsets {from}..={to}: compaction may have removed them"))?;
            }
            // Batches of the oldest brokers have none.
            if header.leader_epoch < epoch_before && header.leader_epoch != LeaderEpoch::UNKNOWN {
                problems.push(format!("its leader epoch is {}, after {epoch_before}", header.leader_epoch));
            }
        }
        for problem in problems {
            report.line(&Line::fault_in(found.position, base.0, problem))?;
        }
        self.batches += 1;
        self.records += header.records_count as u64;
        self.first_offset.get_or_insert(base);
        self.last = Some((last, header.leader_epoch));
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        Ok(checksum.is_ok())
    }

    /// Says how the file ends, and what was in it.
    fn finish(self, batches: &Batches, report: &mut Report) -> Result<(), Stop> {
        let position = batches.position();
        let left = batches.len() - position;
        match batches.end().expect("the walk is over") {
            End::Clean => {}
            End::Zeros { bytes } => report.note(format!(
                "position {position}: {bytes} zeros to the end of the file, room that was allocated beforehand"
            ))?,
            End::ZerosThenData { data } => {
                let text = format!("zeros, and other bytes again at {data}: {left} bytes are no batches");
                report.line(&Line::fault_at(position, text))?;
            }
            End::Torn { needed, have } => {
                let text = format!(
                    "a torn tail: a batch of at least {needed} bytes begins here, and the file ends after {have}"
                );
                report.line(&Line::fault_at(position, text))?;
            }
            End::TooLarge { claimed } => {
                let text = format!(
                    "a batch claims {claimed} bytes, and none has more than {BATCH_BYTES_MAX}: {left} bytes are not read"
                );
                report.line(&Line::fault_at(position, text))?;
            }
            End::Damaged(error) => {
                let text = format!("no batch begins here ({error}): {left} bytes are not read");
                report.line(&Line::fault_at(position, text))?;
            }
        }
        report.line(&Line::Log {
            batches: self.batches,
            records: self.records,
            first_offset: self.first_offset.map(|offset| offset.0),
            last_offset: self.last.map(|(offset, _)| offset.0),
            max_timestamp: self.max_timestamp,
            valid_bytes: position,
        })
    }
}
