//! The batches of a partition that were fetched and not polled yet. A batch is decompressed only when its records are
//! taken, so at most one decompressed batch of a partition is in memory.

use bytes::Bytes;
use tidelog_batch::{BatchError, BatchHeader, BatchLimits, Record, RecordIter, records, verify_checksum};
use tidelog_wire::ids::LeaderEpoch;
use tidelog_wire::time::Mono;

#[derive(Debug)]
pub struct Buffered {
    /// The batches that are not opened yet. The last one may be incomplete.
    rest: Bytes,
    /// The records of the batch that is open.
    open: Option<RecordIter>,
    /// The offset of the next record for the application.
    pub next_offset: i64,
    /// The leader epoch of the batch that was opened last.
    pub last_epoch: Option<LeaderEpoch>,
    pub high_watermark: i64,
    pub log_start_offset: i64,
    /// When the request was sent that brought the batches.
    pub asked_at: Mono,
    check_crcs: bool,
}

/// How many records and bytes a poll may still give.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub records: usize,
    pub bytes: usize,
}

impl Budget {
    pub fn is_used_up(self) -> bool {
        self.records == 0 || self.bytes == 0
    }

    fn pay(&mut self, record: &Record) {
        let field = |field: &Option<Bytes>| field.as_ref().map_or(0, Bytes::len);
        let headers: usize = record.headers.iter().map(|header| header.key.len() + field(&header.value)).sum();
        self.records -= 1;
        self.bytes = self.bytes.saturating_sub(field(&record.key) + field(&record.value) + headers);
    }
}

impl Buffered {
    pub fn new(batches: Bytes, offset: i64, check_crcs: bool) -> Self {
        Self {
            rest: batches,
            open: None,
            next_offset: offset,
            last_epoch: None,
            high_watermark: -1,
            log_start_offset: -1,
            asked_at: Mono::ZERO,
            check_crcs,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty() && self.open.is_none()
    }

    /// Takes records until the budget is used up. Returns whether the buffer is empty. An error is about the next
    /// batch: the records before it have been taken, and are valid.
    pub fn take(&mut self, budget: &mut Budget, into: &mut Vec<Record>) -> Result<bool, BatchError> {
        while !budget.is_used_up() {
            let Some(open) = &mut self.open else {
                if !self.open_next()? {
                    return Ok(true);
                }
                continue;
            };
            match open.next() {
                Some(record) => {
                    let record = record?;
                    // A batch is fetched as a whole, even if the position is within it.
                    if record.offset.0 >= self.next_offset {
                        self.next_offset = record.offset.0 + 1;
                        budget.pay(&record);
                        into.push(record);
                    }
                }
                None => {
                    // Compaction may have removed the last records of the batch.
                    self.next_offset = self.next_offset.max(open.header().next_offset().0);
                    self.open = None;
                }
            }
        }
        Ok(self.is_empty())
    }

    /// Opens the next batch. Returns false if there is none.
    fn open_next(&mut self) -> Result<bool, BatchError> {
        let header = match BatchHeader::parse(&self.rest) {
            Ok(header) if header.size_bytes() <= self.rest.len() => header,
            Err(error) if self.rest.len() >= BatchHeader::LEN => return Err(error),
            // The last batch of a response may be incomplete.
            _ => {
                self.rest = Bytes::new();
                return Ok(false);
            }
        };
        let batch = self.rest.split_to(header.size_bytes());
        if header.next_offset().0 <= self.next_offset {
            return Ok(true);
        }
        if self.check_crcs {
            verify_checksum(&batch)?;
        }
        self.last_epoch = (header.leader_epoch != LeaderEpoch::UNKNOWN).then_some(header.leader_epoch);
        if header.is_control() {
            // Transaction markers are not given to applications.
            self.next_offset = header.next_offset().0;
            return Ok(true);
        }
        let unlimited = BatchLimits { decompressed_bytes_max: u64::MAX, ..BatchLimits::default() };
        self.open = Some(records(&batch, &unlimited)?);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_batch::{BatchBuilder, Codec};
    use tidelog_wire::ids::Offset;

    const PLENTY: Budget = Budget { records: 1_000, bytes: 1_000_000 };

    fn batch(base: i64, count: i64) -> Vec<u8> {
        let mut builder = BatchBuilder::new().at(Offset(base), LeaderEpoch(4)).compressed(Codec::Lz4, 1);
        for n in 0..count {
            builder.push(100 + n, None, Some(&[0; 10]), &[]);
        }
        builder.build().to_vec()
    }

    fn offsets(records: &[Record]) -> Vec<i64> {
        records.iter().map(|record| record.offset.0).collect()
    }

    #[test]
    fn records_are_taken_from_the_position_on_and_an_incomplete_batch_is_ignored() {
        let mut bytes = batch(0, 3);
        bytes.extend(batch(3, 3));
        bytes.extend(batch(6, 3));
        bytes.extend(&batch(9, 3)[..40]);
        let mut buffered = Buffered::new(bytes.into(), 4, true);
        let mut taken = Vec::new();
        assert!(buffered.take(&mut PLENTY.clone(), &mut taken).unwrap());
        assert_eq!(offsets(&taken), [4, 5, 6, 7, 8]);
        assert_eq!((buffered.next_offset, buffered.last_epoch), (9, Some(LeaderEpoch(4))));
    }

    #[test]
    fn a_budget_of_records_or_bytes_ends_a_poll_and_the_next_poll_continues_there() {
        let mut buffered = Buffered::new(batch(0, 9).into(), 0, true);
        let mut taken = Vec::new();
        assert!(!buffered.take(&mut Budget { records: 2, ..PLENTY }, &mut taken).unwrap());
        assert_eq!(offsets(&taken), [0, 1]);
        assert!(!buffered.take(&mut Budget { bytes: 25, ..PLENTY }, &mut taken).unwrap());
        assert_eq!(offsets(&taken), [0, 1, 2, 3, 4]);
        assert!(buffered.take(&mut PLENTY.clone(), &mut taken).unwrap());
        assert_eq!(taken.len(), 9);
    }

    #[test]
    fn a_damaged_batch_is_an_error_after_the_valid_records_unless_check_crcs_is_off() {
        let mut bytes = batch(0, 2);
        let mut damaged = batch(2, 2);
        damaged[30] ^= 1;
        bytes.extend(damaged);
        let mut taken = Vec::new();
        let mut buffered = Buffered::new(bytes.clone().into(), 0, true);
        assert!(buffered.take(&mut PLENTY.clone(), &mut taken).is_err());
        assert_eq!((offsets(&taken), buffered.next_offset), (vec![0, 1], 2));
        let mut trusting = Buffered::new(bytes.into(), 0, false);
        assert!(trusting.take(&mut PLENTY.clone(), &mut taken).is_ok());
    }

    #[test]
    fn markers_and_empty_batches_move_the_position_and_give_no_records() {
        let mut marker = BatchBuilder::new().at(Offset(5), LeaderEpoch(4)).transactional().control();
        marker.push(1, Some(&[0, 0, 0, 1]), Some(&[0, 0, 0, 0, 0, 0]), &[]);
        let mut buffered = Buffered::new(marker.build(), 5, true);
        let mut taken = Vec::new();
        assert!(buffered.take(&mut PLENTY.clone(), &mut taken).unwrap());
        assert_eq!((taken.len(), buffered.next_offset), (0, 6));
    }
}
