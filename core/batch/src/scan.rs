//! Finds the batches in a region of a log, and says why it stopped. Recovery needs the reason: it treats a torn tail,
//! space that was never written, and damage differently.

use super::checksum::verify_checksum;
use super::error::BatchError;
use super::header::BatchHeader;

/// Walks the batches from the start of a region on. It checks headers and, if asked, checksums. The caller checks that
/// offsets ascend.
#[derive(Clone, Debug)]
pub struct Scan<'a> {
    region: &'a [u8],
    /// Where the region begins in its file.
    base: u64,
    at: usize,
    verify_checksums: bool,
    stop: Option<ScanStop>,
}

/// A batch that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScannedBatch<'a> {
    /// Where the batch begins in its file.
    pub position: u64,
    pub header: BatchHeader,
    pub bytes: &'a [u8],
}

/// Why no further batch was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScanStop {
    /// The region ends where a batch ends.
    End,
    /// The region ends inside a batch. The batch takes `needed` bytes from its position on, or more than that if its
    /// header is cut as well. If the file goes on, more of the file may complete the batch. At the end of the file the
    /// batch is torn, or its length is damaged.
    Incomplete { needed: u64 },
    /// The next 61 bytes, or all that are left if they are fewer, are zeros: space that was allocated and never
    /// written. Whether all bytes after them are zeros too is for the caller to check, with [`only_zeros`].
    Zeros,
    /// What stands there is no batch, or is damaged.
    Damaged(BatchError),
}

impl<'a> Scan<'a> {
    /// `region` begins at a batch, at `position` of its file.
    pub fn new(region: &'a [u8], position: u64, verify_checksums: bool) -> Self {
        Self { region, base: position, at: 0, verify_checksums, stop: None }
    }

    /// Where the next batch begins: the end of the last one found.
    pub fn next_position(&self) -> u64 {
        self.base + self.at as u64
    }

    /// Why the walk stopped; `None` while it goes on.
    pub fn stop(&self) -> Option<&ScanStop> {
        self.stop.as_ref()
    }

    /// What has not been walked.
    pub fn rest(&self) -> &'a [u8] {
        &self.region[self.at..]
    }

    fn step(&mut self) -> Result<ScannedBatch<'a>, ScanStop> {
        let rest = self.rest();
        if rest.is_empty() {
            return Err(ScanStop::End);
        }
        if only_zeros(&rest[..rest.len().min(BatchHeader::LEN)]) {
            return Err(ScanStop::Zeros);
        }
        let header = BatchHeader::parse(rest).map_err(|error| match error {
            BatchError::Incomplete { needed, .. } => ScanStop::Incomplete { needed },
            error => ScanStop::Damaged(error),
        })?;
        let size = header.size_bytes();
        let bytes = rest.get(..size).ok_or(ScanStop::Incomplete { needed: size as u64 })?;
        if self.verify_checksums {
            verify_checksum(bytes).map_err(ScanStop::Damaged)?;
        }
        let position = self.next_position();
        self.at += size;
        Ok(ScannedBatch { position, header, bytes })
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = ScannedBatch<'a>;

    fn next(&mut self) -> Option<ScannedBatch<'a>> {
        if self.stop.is_some() {
            return None;
        }
        self.step().map_err(|stop| self.stop = Some(stop)).ok()
    }
}

/// Whether there is nothing in `bytes` but zeros.
pub fn only_zeros(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::super::builder::BatchBuilder;
    use super::*;
    use tidelog_wire::ids::{LeaderEpoch, Offset};

    fn batch(offset: i64) -> Vec<u8> {
        let mut builder = BatchBuilder::new().at(Offset(offset), LeaderEpoch(3));
        builder.push(1_000, Some(b"key"), Some(b"value"), &[]).push(1_001, None, Some(b"other"), &[]);
        builder.build().to_vec()
    }

    fn walk(region: &[u8]) -> (Vec<(u64, i64)>, ScanStop, u64) {
        let mut scan = Scan::new(region, 4_096, true);
        let found = scan.by_ref().map(|found| (found.position, found.header.base_offset.0)).collect();
        (found, scan.stop().unwrap().clone(), scan.next_position())
    }

    #[test]
    fn batches_are_found_one_after_the_other() {
        let (first, second) = (batch(0), batch(2));
        let region = [first.as_slice(), &second].concat();
        let second_at = 4_096 + first.len() as u64;
        let found = vec![(4_096, 0), (second_at, 2)];
        assert_eq!(walk(&region), (found, ScanStop::End, 4_096 + region.len() as u64));
        assert_eq!(walk(&[]), (vec![], ScanStop::End, 4_096));
    }

    #[test]
    fn a_batch_cut_at_any_byte_is_incomplete_and_says_what_it_needs() {
        let (first, second) = (batch(0), batch(2));
        let second_at = 4_096 + first.len() as u64;
        for cut in 1..second.len() {
            let region = [first.as_slice(), &second[..cut]].concat();
            let needed = if cut < 17 { 17 } else { second.len() as u64 };
            // The base offset 2 begins with seven zeros. A region that ends in them looks like space that was never
            // written.
            let stop = if cut < 8 { ScanStop::Zeros } else { ScanStop::Incomplete { needed } };
            assert_eq!(walk(&region), (vec![(4_096, 0), (second_at, 2)][..1].to_vec(), stop, second_at), "{cut}");
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found_or_cannot_matter() {
        let whole = batch(0x0101_0101_0101_0101);
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (found, stop, _) = walk(&flipped);
            // The base offset and the leader epoch are the leader's, outside of the checksum.
            let uncovered = matches!(bit / 8, 0..8 | 12..16);
            let refused = matches!(stop, ScanStop::Damaged(_) | ScanStop::Incomplete { .. });
            assert!(uncovered || (found.is_empty() && refused), "bit {bit}: {stop:?}");
        }
    }

    #[test]
    fn space_that_was_never_written_is_told_from_damage() {
        let first = batch(0);
        let end = 4_096 + first.len() as u64;
        for zeros in [1, 16, 17, 60, 61, 4_096] {
            let region = [first.as_slice(), &vec![0; zeros]].concat();
            assert_eq!(walk(&region).1, ScanStop::Zeros, "{zeros}");
            assert_eq!(walk(&region).2, end);
        }
        let damaged = |at: usize, value: u8| {
            let mut region = [batch(0), batch(2)].concat();
            region[first.len() + at] = value;
            walk(&region).1
        };
        assert_eq!(damaged(16, 1), ScanStop::Damaged(BatchError::Magic(1)));
        assert_eq!(damaged(11, 5), ScanStop::Damaged(BatchError::TooSmall { size: 17 }));
        assert!(matches!(damaged(20, 0x77), ScanStop::Damaged(BatchError::Checksum { .. })));
        assert!(matches!(damaged(8, 0x10), ScanStop::Incomplete { needed: 0x1000_0000.. }));
    }
}
