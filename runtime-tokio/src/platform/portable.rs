//! System calls that every Unix has, with exceptions for Apple's systems. For development and tests.

#[cfg(not(madsim))]
mod timer;

#[cfg(not(madsim))]
pub use timer::Timer;

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SendAncillaryBuffer, SendFlags};
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::path::PathBuf;

/// How many bytes of a file [`send_file`] reads at once.
const COPIED_BYTES_MAX: usize = 128 << 10;

/// How many open files to ask for if there is no hard limit. macOS refuses to set the soft limit to "unlimited", and
/// its setrlimit(2) advises `OPEN_MAX`, which is this number.
const OPEN_FILES_WHERE_UNLIMITED: u64 = 10_240;

/// Always `None`: no call that every Unix has reads only what is in the page cache, so the caller must read on a thread
/// that may wait for the device.
pub fn read_cached(_file: &File, _into: &mut [u8], _position: u64) -> Option<usize> {
    None
}

/// Returns when the content of `file` is on stable storage, with its length.
pub fn sync_data(file: &File) -> io::Result<()> {
    special::sync_data(file)
}

/// Returns when the content and all metadata of `file` are on stable storage. For a directory: the names in it.
pub fn sync_all(file: &File) -> io::Result<()> {
    special::sync_all(file)
}

/// Sends bytes from the front of `slices`, and returns how many. Never waits: fails with [`io::ErrorKind::WouldBlock`]
/// if the socket takes no bytes now. Ignores `_more`, so a response's header may arrive, and wake the client, before
/// the records that follow.
pub fn send(socket: impl AsFd, slices: &[IoSlice<'_>], _more: bool) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | special::WITHOUT_SIGNAL;
    Ok(retry_on_intr(|| rustix::net::sendmsg(&socket, slices, &mut SendAncillaryBuffer::default(), flags))?)
}

/// Sends up to `len` bytes of `file` from `position` on, and returns how many; 0 if the file ends there. Never waits
/// for the socket. The bytes are copied into this process; those that the socket does not take are read again by the
/// next call.
pub fn send_file(socket: impl AsFd, file: &File, position: u64, len: usize) -> io::Result<usize> {
    let mut buffer = vec![0; len.min(COPIED_BYTES_MAX)];
    match retry_on_intr(|| rustix::io::pread(file, &mut buffer[..], position))? {
        0 => Ok(0),
        read => send(socket, &[IoSlice::new(&buffer[..read])], false),
    }
}

/// Locks `file` until it is closed. Returns false if another broker, this one's process included, holds the lock.
///
/// macOS and the BSDs keep the locks of `flock` and those of `fcntl`, which the JVM takes, in one list, where each
/// excludes the other even within one process. So `flock` alone keeps a Kafka broker out, and taking both would fail.
pub fn lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(false),
        other => Ok(other.map(|()| true)?),
    }
}

/// The present path of an open file, also after a rename. `None` if the system does not tell.
pub fn path_of(file: &File) -> Option<PathBuf> {
    special::path_of(file)
}

/// How many open files a process with this hard limit can ask for. A hard limit of `None` means unlimited.
pub fn open_files_max(hard_limit: Option<u64>) -> Option<u64> {
    Some(hard_limit.unwrap_or(OPEN_FILES_WHERE_UNLIMITED))
}

#[cfg(target_vendor = "apple")]
mod special {
    use rustix::fs::{fcntl_fullfsync, getpath};
    use rustix::io::retry_on_intr;
    use rustix::net::SendFlags;
    use std::ffi::OsString;
    use std::fs::File;
    use std::io;
    use std::os::unix::ffi::OsStringExt;
    use std::path::PathBuf;

    /// There is no flag for a single call. socket2 and mio set `SO_NOSIGPIPE` on every socket that they create, and an
    /// accepted socket inherits it from the listening one.
    pub const WITHOUT_SIGNAL: SendFlags = SendFlags::empty();

    /// On Apple's systems `fsync` returns when the device has the data, possibly only in a cache that a power cut
    /// empties.
    /// `F_FULLFSYNC` returns when the device has stored them. A file system that cannot promise this refuses the call.
    /// That is an error here: falling back to `fsync` would acknowledge records that a power cut may lose.
    pub fn sync_all(file: &File) -> io::Result<()> {
        Ok(retry_on_intr(|| fcntl_fullfsync(file))?)
    }

    /// Apple's systems have no full sync of the content alone.
    pub fn sync_data(file: &File) -> io::Result<()> {
        sync_all(file)
    }

    pub fn path_of(file: &File) -> Option<PathBuf> {
        Some(OsString::from_vec(getpath(file).ok()?.into_bytes()).into())
    }
}

#[cfg(not(target_vendor = "apple"))]
mod special {
    use rustix::net::SendFlags;
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::path::PathBuf;

    pub const WITHOUT_SIGNAL: SendFlags = SendFlags::NOSIGNAL;

    pub fn sync_all(file: &File) -> io::Result<()> {
        file.sync_all()
    }

    pub fn sync_data(file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Few systems besides Linux have this path.
    pub fn path_of(file: &File) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()
    }
}
