//! The batches of a file, one after the other, without the file in memory.

use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use tidelog_core::batch::{BatchError, BatchHeader, Scan, ScanStop, only_zeros};

/// How much is read at a time.
const CHUNK_BYTES: u64 = 1 << 20;
/// No batch is larger: as in recovery, a length beyond is damage.
pub const BATCH_BYTES_MAX: u64 = 256 << 20;

/// A batch with the place where it begins. Its checksum was not looked at.
#[derive(Clone, Debug)]
pub struct Found {
    pub position: u64,
    pub header: BatchHeader,
    pub bytes: Bytes,
}

/// How the valid part of a file ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With the file.
    Clean,
    /// Zeros from here to the end of the file: room that was allocated beforehand.
    Zeros {
        bytes: u64,
    },
    /// Zeros from here on, and something else further on.
    ZerosThenData {
        data: u64,
    },
    /// A batch that would need more bytes than the file has.
    Torn {
        needed: u64,
        have: u64,
    },
    /// A batch that claims to be larger than any.
    TooLarge {
        claimed: u64,
    },
    Damaged(BatchError),
}

/// Reads the batches of a file as long as it was when this was made.
#[derive(Debug)]
pub struct Batches {
    file: File,
    len: u64,
    /// Where the next batch begins.
    position: u64,
    chunk: Bytes,
    chunk_position: u64,
    end: Option<End>,
}

impl Batches {
    pub fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, len, position: 0, chunk: Bytes::new(), chunk_position: 0, end: None })
    }

    /// The length of the file.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The end of the last batch found.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// `None`: [`end`](Self::end) says why.
    pub fn next_batch(&mut self) -> io::Result<Option<Found>> {
        let mut wanted = CHUNK_BYTES;
        while self.end.is_none() {
            let chunk_end = self.chunk_position + self.chunk.len() as u64;
            let rest = self.chunk.slice((self.position - self.chunk_position) as usize..);
            let mut scan = Scan::new(&rest, self.position, false);
            if let Some(batch) = scan.next() {
                let (position, header, size) = (batch.position, batch.header, batch.bytes.len());
                self.position += size as u64;
                return Ok(Some(Found { position, header, bytes: rest.slice(..size) }));
            }
            let left = self.len - self.position;
            let stop = scan.stop().cloned().expect("a scan without a batch has stopped");
            // A header that is cut by the chunk alone says nothing.
            let cut = chunk_end < self.len && rest.len() < BatchHeader::LEN;
            self.end = match stop {
                ScanStop::End if left == 0 => Some(End::Clean),
                ScanStop::End => None,
                ScanStop::Zeros | ScanStop::Incomplete { .. } if cut => None,
                ScanStop::Incomplete { needed } if needed > left => Some(End::Torn { needed, have: left }),
                ScanStop::Incomplete { needed } if needed > BATCH_BYTES_MAX => Some(End::TooLarge { claimed: needed }),
                ScanStop::Incomplete { needed } => {
                    wanted = needed.max(CHUNK_BYTES);
                    None
                }
                ScanStop::Zeros => Some(self.zeros()?),
                ScanStop::Damaged(error) => Some(End::Damaged(error)),
            };
            if self.end.is_none() {
                self.chunk = self.read(self.position, wanted.min(left))?;
                self.chunk_position = self.position;
            }
        }
        Ok(None)
    }

    /// How the file ends; there is an answer once [`next_batch`](Self::next_batch) has found no batch.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The header of the batch at `position`, if one may be there.
    pub fn header_at(&self, position: u64) -> io::Result<Result<BatchHeader, BatchError>> {
        let bytes = self.read(position, self.len.saturating_sub(position).min(BatchHeader::LEN as u64))?;
        Ok(BatchHeader::parse(&bytes))
    }

    fn zeros(&self) -> io::Result<End> {
        let mut at = self.position;
        while at < self.len {
            let bytes = self.read(at, (self.len - at).min(CHUNK_BYTES))?;
            if !only_zeros(&bytes) {
                let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
                return Ok(End::ZerosThenData { data: at + zeros as u64 });
            }
            at += bytes.len() as u64;
        }
        Ok(End::Zeros { bytes: self.len - self.position })
    }

    fn read(&self, position: u64, bytes: u64) -> io::Result<Bytes> {
        let mut buffer = vec![0; usize::try_from(bytes).expect("bounded by the largest batch")];
        self.file.read_exact_at(&mut buffer, position)?;
        Ok(buffer.into())
    }
}
