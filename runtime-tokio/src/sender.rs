//! The queue of what a connection has to send: bytes in memory and slices of files, as pieces of one stream.
//!
//! One call sends many pieces of memory, or one slice of a file, which the socket may take from the page cache. No call
//! blocks: what the socket does not take stays in the queue.

use crate::disk::Content;
use crate::transport::Output;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use tidelog_core::wire::{Frame, RecordsChunk};

/// How many pieces of memory one call sends at most.
const SLICES_MAX: usize = 64;
/// The most bytes of a file that one call sends, so that one connection does not occupy a thread for long.
const SLICE_BYTES_MAX: usize = 1 << 20;
/// A slice of a file up to this size is read into memory and sent with its neighbours, which is cheaper than a call of
/// its own.
const COPIED_SLICE_BYTES_MAX: usize = 8 << 10;
/// How many bytes of such slices are read into memory at a time.
const COPIED_BYTES_MAX: usize = 64 << 10;

/// The frames of a connection that are not completely sent.
#[derive(Default)]
pub struct Sender {
    pieces: VecDeque<Piece>,
    /// For each frame that is not completely sent: the value that `sent` has once it is.
    ends: VecDeque<u64>,
    queued: u64,
    sent: u64,
    /// How many bytes of `pieces` are in memory.
    memory: usize,
}

/// Records of a response cannot be read: the disk has failed, not the client.
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
    /// Appends a frame. `contents` holds the file of each of its slices, in the order of the slices.
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
                    of: contents.next().expect("`contents` has a file for each slice"),
                    position: slice.position,
                    len: slice.len as usize,
                },
            };
            self.pieces.push_back(piece);
        }
        assert!(contents.next().is_none(), "`contents` has no more files than the frame has slices");
    }

    /// How many bytes in memory wait to be sent; slices of files do not count.
    pub fn memory_bytes(&self) -> usize {
        self.memory
    }

    /// How many frames are not completely sent.
    pub fn unsent(&self) -> usize {
        self.ends.len()
    }

    /// How many bytes have been sent since the beginning.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends what `out` takes in one call; [`io::ErrorKind::WouldBlock`] if it takes nothing now.
    pub fn send_some(&mut self, out: &impl Output) -> io::Result<()> {
        self.copy_small_slices()?;
        let sent = match self.pieces.front_mut() {
            None => 0,
            Some(Piece::Slice { of, position, len }) => {
                let sent = match out.send_content(&**of, *position, (*len).min(SLICE_BYTES_MAX)) {
                    Ok(0) => {
                        let why = io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before that");
                        return Err(unreadable(&**of, *position, *len, why));
                    }
                    Ok(sent) => sent,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                    // The call does not say whether the file or the socket failed, so the file is read to find out.
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

    /// Reads the short slices among the pieces of the next call into memory, so that they are sent with their
    /// neighbours.
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
                // A long slice is sent by a call of its own.
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
        // Without `more` the kernel would send a response's header, and wake the client, before the records that follow
        // it.
        out.send(&slices[..filled], self.pieces.len() > filled)
    }

    /// Removes `sent` bytes from the pieces of memory at the front.
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
        assert_eq!(sent, 0, "a call sends no more than it was given");
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
            while sender.unsent() > 0 {
                match sender.send_some(&out) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        blocked = true;
                        break;
                    }
                    other => other.unwrap(),
                }
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
        let mut named = tempfile::NamedTempFile::new().unwrap();
        named.write_all(&[1; 20_000]).unwrap();
        let file: Arc<dyn Content> = Arc::new(OpenFile { file: named.reopen().unwrap() });
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
