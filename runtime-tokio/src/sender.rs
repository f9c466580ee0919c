//! What a connection has to send: bytes in memory and slices of files, as pieces of one stream.
//!
//! Bytes go out many pieces a call; slices of files by themselves, so that a socket may take them from the page cache.
//! Nothing blocks: what the socket does not take now stays for later.

use crate::disk::Content;
use crate::transport::Output;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use tidelog_core::wire::{Frame, RecordsChunk};

/// How many pieces of memory one call takes.
const SLICES_MAX: usize = 64;
/// The most bytes of a file that one call sends, so that one connection does not keep a thread from the others.
const SLICE_BYTES_MAX: usize = 1 << 20;
/// A slice of a file up to this size is read and sent with its neighbours: cheaper than a call of its own.
const COPIED_SLICE_BYTES_MAX: usize = 8 << 10;
/// So many bytes of such slices are read ahead of the call that sends them.
const COPIED_BYTES_MAX: usize = 64 << 10;

#[derive(Default)]
pub struct Sender {
    pieces: VecDeque<Piece>,
    /// For each frame that is not out yet, the bytes that must have been sent for it, counted from the beginning.
    ends: VecDeque<u64>,
    queued: u64,
    sent: u64,
    /// The bytes of `pieces` that are in memory.
    memory: usize,
}

/// Records that a response names cannot be read: the disk's fault, and not the client's.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {len} bytes at {position} of {file}: {why}")]
pub struct Unreadable {
    file: String,
    position: u64,
    len: usize,
    why: io::Error,
}

enum Piece {
    Bytes(Bytes),
    Slice { of: Arc<dyn Content>, position: u64, len: usize },
}

impl Sender {
    /// Appends a frame. `contents` are what its slices are of, one for each, in order.
    pub fn push(&mut self, frame: Frame, contents: Vec<Arc<dyn Content>>) {
        self.queued += frame.len as u64;
        self.ends.push_back(self.queued);
        let mut contents = contents.into_iter();
        for chunk in frame.chunks {
            let piece = match chunk {
                RecordsChunk::Bytes(bytes) => {
                    self.memory += bytes.len();
                    Piece::Bytes(bytes)
                }
                RecordsChunk::File(slice) => Piece::Slice {
                    of: contents.next().expect("every slice of a response was looked up"),
                    position: slice.position,
                    len: slice.len as usize,
                },
            };
            self.pieces.push_back(piece);
        }
        assert!(contents.next().is_none(), "a response's slices are all in its frame");
    }

    /// The bytes that wait here in memory; those of files do not count.
    pub fn memory_bytes(&self) -> usize {
        self.memory
    }

    /// How many frames are not out yet.
    pub fn unsent(&self) -> usize {
        self.ends.len()
    }

    /// How many bytes are out, since the beginning.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends what `out` takes in one call. [`io::ErrorKind::WouldBlock`]: nothing, now.
    pub fn send_some(&mut self, out: &impl Output) -> io::Result<()> {
        self.copy_small_slices()?;
        let sent = match self.pieces.front_mut() {
            None => 0,
            Some(Piece::Slice { of, position, len }) => {
                let sent = match out.send_content(&**of, *position, (*len).min(SLICE_BYTES_MAX)) {
                    Ok(0) => {
                        let why = io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than that");
                        return Err(unreadable(&**of, *position, *len, why));
                    }
                    Ok(sent) => sent,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                    // The call does not say whether the file or the socket failed.
                    Err(error) => {
                        let read = of.read_exact_at(&mut [0], *position);
                        return Err(read.map_or_else(|why| unreadable(&**of, *position, *len, why), |()| error));
                    }
                };
                *position += sent as u64;
                *len -= sent;
                if *len == 0 {
                    self.pieces.pop_front();
                }
                sent
            }
            Some(Piece::Bytes(_)) => {
                let sent = self.send_bytes(out)?;
                self.advance(sent);
                sent
            }
        };
        self.sent += sent as u64;
        while self.ends.front().is_some_and(|end| *end <= self.sent) {
            self.ends.pop_front();
        }
        Ok(())
    }

    /// Reads the short slices that the next call could send, so that they go out with their neighbours.
    fn copy_small_slices(&mut self) -> io::Result<()> {
        let mut copied = 0;
        for piece in self.pieces.iter_mut().take(SLICES_MAX) {
            match piece {
                Piece::Slice { of, position, len } if *len <= COPIED_SLICE_BYTES_MAX => {
                    if copied >= COPIED_BYTES_MAX {
                        break;
                    }
                    let mut copy = vec![0; *len];
                    of.read_exact_at(&mut copy, *position).map_err(|why| unreadable(&**of, *position, *len, why))?;
                    copied += *len;
                    self.memory += *len;
                    *piece = Piece::Bytes(Bytes::from(copy));
                }
                // It goes by a call of its own.
                Piece::Slice { .. } => break,
                Piece::Bytes(bytes) => copied += bytes.len().min(COPIED_BYTES_MAX),
            }
        }
        Ok(())
    }

    fn send_bytes(&self, out: &impl Output) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut filled = 0;
        for (piece, slice) in self.pieces.iter().zip(&mut slices) {
            let Piece::Bytes(bytes) = piece else { break };
            *slice = IoSlice::new(bytes);
            filled += 1;
        }
        // Without `more` the header of a response would travel, and wake the client, before the records that follow.
        out.send(&slices[..filled], self.pieces.len() > filled)
    }

    /// `sent` bytes of the pieces of memory at the front are out.
    fn advance(&mut self, mut sent: usize) {
        self.memory -= sent;
        while let Some(Piece::Bytes(bytes)) = self.pieces.front_mut() {
            if bytes.len() > sent {
                bytes::Buf::advance(bytes, sent);
                return;
            }
            sent -= bytes.len();
            self.pieces.pop_front();
        }
        assert_eq!(sent, 0, "no more was sent than there was");
    }
}

fn unreadable(of: &dyn Content, position: u64, len: usize, why: io::Error) -> io::Error {
    io::Error::new(why.kind(), Unreadable { file: of.name(), position, len, why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OpenFile;
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixStream;
    use tidelog_core::ids::FileId;
    use tidelog_core::wire::FileSlice;

    #[test]
    fn memory_and_slices_of_files_leave_as_one_stream_however_little_the_socket_takes() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        file.write_all(&content).unwrap();
        file.rewind().unwrap();
        let file: Arc<dyn Content> = Arc::new(OpenFile { file });
        let slice = |position: usize, len: usize| {
            RecordsChunk::File(FileSlice { file: FileId(1), position: position as u64, len: len as u32 })
        };
        let text = |text: &'static str| RecordsChunk::Bytes(Bytes::from_static(text.as_bytes()));
        let mut sender = Sender::default();
        let (mut wanted, mut count) = (Vec::new(), 0);
        for chunks in [
            vec![text("head"), slice(5, 2_500_000), text("between"), slice(0, 100), slice(7, 9000), text("end")],
            vec![text("a"), text("b")],
            (0..200).map(|_| text("many")).collect(),
        ] {
            let before = wanted.len();
            for chunk in &chunks {
                match chunk {
                    RecordsChunk::Bytes(bytes) => wanted.extend_from_slice(bytes),
                    RecordsChunk::File(at) => {
                        wanted.extend_from_slice(&content[at.position as usize..][..at.len as usize]);
                    }
                }
            }
            let slices = chunks.iter().filter(|chunk| matches!(chunk, RecordsChunk::File(_))).count();
            sender.push(Frame { chunks, len: wanted.len() - before }, vec![file.clone(); slices]);
            count += 1;
            assert_eq!(sender.unsent(), count);
        }

        let (out, mut into) = UnixStream::pair().unwrap();
        out.set_nonblocking(true).unwrap();
        into.set_nonblocking(true).unwrap();
        let (mut got, mut blocked, mut buffer) = (Vec::new(), false, vec![0; 50_000]);
        while got.len() < wanted.len() {
            match sender.send_some(&out) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => blocked = true,
                other => other.unwrap(),
            }
            match into.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => got.extend_from_slice(&buffer[..other.unwrap()]),
            }
        }
        assert!(got == wanted && blocked);
        assert_eq!((sender.unsent(), sender.memory_bytes()), (0, 0));
    }

    #[test]
    fn short_slices_wait_in_their_file_and_not_in_memory() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 8000]).unwrap();
        let file: Arc<dyn Content> = Arc::new(OpenFile { file });
        let (out, _into) = UnixStream::pair().unwrap();
        out.set_nonblocking(true).unwrap();
        let slice = || RecordsChunk::File(FileSlice { file: FileId(1), position: 0, len: 8000 });
        let chunks = std::iter::repeat_with(slice).take(10_000).collect();
        let mut sender = Sender::default();
        sender.push(Frame { chunks, len: 80_000_000 }, vec![file; 10_000]);
        assert_eq!(sender.memory_bytes(), 0);
        while sender.send_some(&out).is_ok() {}
        assert!(sender.memory_bytes() <= COPIED_BYTES_MAX + COPIED_SLICE_BYTES_MAX);
    }

    #[test]
    fn a_client_that_is_gone_is_not_taken_for_a_disk_that_fails() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 20_000]).unwrap();
        let file: Arc<dyn Content> = Arc::new(OpenFile { file });
        let chunks = vec![RecordsChunk::File(FileSlice { file: FileId(1), position: 0, len: 20_000 })];
        let (out, into) = UnixStream::pair().unwrap();
        drop(into);
        let mut sender = Sender::default();
        sender.push(Frame { chunks, len: 20_000 }, vec![file]);
        assert_eq!(sender.send_some(&out).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_slice_beyond_the_end_of_its_file_is_an_error_and_not_a_wrong_answer() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 20_000]).unwrap();
        let file: Arc<dyn Content> = Arc::new(OpenFile { file });
        let slice = |len| Frame {
            chunks: vec![RecordsChunk::File(FileSlice { file: FileId(1), position: 15_000, len })],
            len: len as usize,
        };
        let (out, _into) = UnixStream::pair().unwrap();
        let mut sender = Sender::default();
        sender.push(slice(6000), vec![file.clone()]);
        assert!(sender.send_some(&out).unwrap_err().get_ref().unwrap().is::<Unreadable>());
        let mut sender = Sender::default();
        sender.push(slice(9000), vec![file]);
        sender.send_some(&out).unwrap();
        let error = sender.send_some(&out).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let text = error.to_string();
        assert!(text.starts_with("cannot read 4000 bytes at 20000 of /"), "{text}");
    }
}
