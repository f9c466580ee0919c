//! The system calls of Linux, where brokers run in production.

#[cfg(not(madsim))]
mod timer;

#[cfg(not(madsim))]
pub use timer::Timer;

use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};
use rustix::net::{SendAncillaryBuffer, SendFlags};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

/// Reads from `position` on, but only what is in the page cache, and returns the number of bytes. If they are fewer
/// than
/// `into` holds, the file ends there, or the next byte is not cached. `None`: the first byte is not cached.
pub fn read_cached(file: &File, into: &mut [u8], position: u64) -> Option<usize> {
    rustix::io::preadv2(file, &mut [IoSliceMut::new(into)], position, ReadWriteFlags::NOWAIT).ok()
}

/// Returns when the content of `file` is on stable storage, with its length.
pub fn sync_data(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// Returns when the content and all metadata of `file` are on stable storage. For a directory: the names in it.
pub fn sync_all(file: &File) -> io::Result<()> {
    file.sync_all()
}

/// Sends bytes from the front of `slices`, and returns how many. `more` says that other bytes follow at once, so that
/// the kernel may send them in the same packet. Never waits: fails with [`io::ErrorKind::WouldBlock`] if the socket
/// takes no bytes now.
pub fn send(socket: impl AsFd, slices: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
    let more = if more { SendFlags::MORE } else { SendFlags::empty() };
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT | more;
    Ok(retry_on_intr(|| rustix::net::sendmsg(&socket, slices, &mut SendAncillaryBuffer::default(), flags))?)
}

/// Sends up to `len` bytes of `file` from `position` on, and returns how many; 0 if the file ends there. The bytes go
/// from the page cache to the socket without being copied into this process. Waits if the socket is a blocking one.
pub fn send_file(socket: impl AsFd, file: &File, mut position: u64, len: usize) -> io::Result<usize> {
    Ok(retry_on_intr(|| rustix::fs::sendfile(&socket, file, Some(&mut position), len))?)
}

/// Locks `file` until it is closed. Returns false if another broker, this one's process included, holds the lock.
pub fn lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(false),
        other => other?,
    }
    // The JVM locks files with `fcntl`. Taking that lock too keeps a Kafka broker and this one out of each other's
    // directories. On Linux the two kinds of locks do not see each other.
    match fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK | Errno::ACCESS) => Ok(false),
        other => Ok(other.map(|()| true)?),
    }
}

/// The present path of an open file, also after a rename. `None` if the system does not tell.
pub fn path_of(file: &File) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()
}

/// How many open files a process with this hard limit can ask for. `None` means unlimited, in both places.
pub fn open_files_max(hard_limit: Option<u64>) -> Option<u64> {
    hard_limit
}
