//! Carries out one I/O operation on the real disk, on the calling thread.
//!
//! Every failure becomes an [`IoError`] whose text names the path and what was tried.

use super::Volume;
use super::files::{FileTable, OpenFile, Roots};
use crate::clock::wall_ms;
use crate::metrics::times::Times;
use crate::platform;
use bytes::Bytes;
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};
use tidelog_core::ids::{FileId, LogDirId};
use tidelog_core::io::{Chunks, DirEntry, DiskPath, IoDone, IoError, IoErrorKind, IoOp};

/// How many pieces one system call takes (`UIO_MAXIOV`, on Linux and macOS).
const SLICES_MAX: usize = 1024;

/// How many bytes one system call writes at most. A call also ends at multiples of this in the file.
///
/// A file system that keeps large folios in the page cache (ext4, XFS) asks the kernel for one folio of the size of the
/// write, and a free folio of a megabyte is rare. The kernel then takes memory that was unused for long: it is in no
/// cache, and if a hypervisor had taken it back, the hypervisor must provide it first. Measured on such a machine,
/// writes of 64 to 512 KiB are two to eight times as fast as writes of 1 MiB.
const WRITE_BYTES_MAX: usize = 256 << 10;

/// What the operations need: where paths lie on the real disk, and which files are open.
pub struct Context {
    pub roots: Roots,
    pub files: FileTable,
    /// How long syncs of files took.
    pub flushes: Mutex<Times>,
}

impl Context {
    /// Carries out `op`. Writes that continue one another in the same file should be given to [`write`](Self::write)
    /// together.
    pub fn perform(&self, op: IoOp) -> Result<IoDone, IoError> {
        match op {
            IoOp::List { path } => self.on(&path, "list", list),
            IoOp::CreateDir { path } => self.on(&path, "create", create_dir),
            IoOp::SyncDir { path } => self.on(&path, "sync", |real| unit(platform::sync_all(&File::open(real)?))),
            IoOp::Rename { from, to } => self.rename(&from, &to),
            IoOp::Remove { path } => self.on(&path, "remove", |real| absent_is_fine(fs::remove_file(real))),
            IoOp::RemoveDir { path } => self.on(&path, "remove", |real| absent_is_fine(fs::remove_dir_all(real))),
            IoOp::Load { path, limit_bytes } => self.load(&path, limit_bytes),
            IoOp::Replace { path, content } => self.on(&path, "replace", |real| unit(replace(real, &content))),
            IoOp::Open { file, path, create } => self.open(file, path, create),
            IoOp::Write { file, position, chunks } => {
                self.write(file, position, &chunks.iter().map(|chunk| &chunk[..]).collect::<Vec<_>>())
            }
            IoOp::Read { file, position, len } => self.read(file, position, len),
            IoOp::SetLen { file, len } => self.with(file, "set the length of", |open| unit(open.file.set_len(len))),
            IoOp::Sync { file } => self.sync(file),
            IoOp::Close { file } => {
                self.files.remove(file);
                Ok(IoDone::Unit)
            }
            IoOp::Volume { dir } => {
                let Volume { total_bytes, usable_bytes, .. } = self.volume(dir)?;
                Ok(IoDone::Volume { total_bytes, usable_bytes })
            }
        }
    }

    /// The volume of a log directory.
    pub fn volume(&self, dir: LogDirId) -> Result<Volume, IoError> {
        self.on(&DiskPath { dir, path: String::new() }, "measure the volume of", volume)
    }

    fn sync(&self, file: FileId) -> Result<IoDone, IoError> {
        let begin = Instant::now();
        let result = self.with(file, "sync", |open| unit(platform::sync_data(&open.file)));
        let end = Instant::now();
        self.flushes.lock().expect("no thread panics while it holds this lock").record(end, end - begin);
        result
    }

    /// Writes `pieces`, one behind the other, from `position` on.
    pub fn write(&self, file: FileId, position: u64, pieces: &[&[u8]]) -> Result<IoDone, IoError> {
        self.with(file, "write to", |open| write_all(&open.file, position, pieces))
    }

    /// Reads if all bytes are in the page cache. `None`: the read may need the disk, so it must be done by a thread
    /// that may wait.
    pub fn read_cached(&self, file: FileId, position: u64, len: u32) -> Option<Result<IoDone, IoError>> {
        let open = self.files.find(file)?;
        let mut buffer = vec![0; len as usize];
        let read = platform::read_cached(&open.file, &mut buffer, position)?;
        // Fewer bytes than asked may mean the end of the file or the end of what is cached, so only a full read counts.
        (read == buffer.len()).then(|| Ok(IoDone::Bytes(Bytes::from(buffer))))
    }

    fn read(&self, file: FileId, position: u64, len: u32) -> Result<IoDone, IoError> {
        self.with(file, "read", |open| {
            let mut buffer = vec![0; len as usize];
            let mut filled = 0;
            while filled < buffer.len() {
                match open.file.read_at(&mut buffer[filled..], position + filled as u64) {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            buffer.truncate(filled);
            Ok(IoDone::Bytes(Bytes::from(buffer)))
        })
    }

    fn open(&self, file: FileId, path: DiskPath, create: bool) -> Result<IoDone, IoError> {
        let (open, len) = self.on(&path, "open", |real| {
            let open = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(real)?;
            let len = open.metadata()?.len();
            Ok((open, len))
        })?;
        self.files.insert(file, open, path);
        Ok(IoDone::Len(len))
    }

    fn load(&self, path: &DiskPath, limit_bytes: u64) -> Result<IoDone, IoError> {
        let content = self.on(path, "read", |real| {
            let mut content = Vec::new();
            File::open(real)?.take(limit_bytes.saturating_add(1)).read_to_end(&mut content)?;
            Ok(content)
        })?;
        if content.len() as u64 > limit_bytes {
            let text =
                format!("cannot read {}: it is larger than {limit_bytes} bytes", self.roots.resolve(path).display());
            return Err(IoError { kind: IoErrorKind::TooLarge, text });
        }
        Ok(IoDone::Bytes(Bytes::from(content)))
    }

    fn rename(&self, from: &DiskPath, to: &DiskPath) -> Result<IoDone, IoError> {
        let target = self.roots.resolve(to);
        self.on(from, &format!("rename to {}", target.display()), |real| fs::rename(real, &target))?;
        self.files.renamed(from, to);
        Ok(IoDone::Unit)
    }

    fn on<T>(&self, path: &DiskPath, verb: &str, act: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, IoError> {
        let real = self.roots.resolve(path);
        act(&real).map_err(|error| failure(verb, &real, &error))
    }

    fn with<T>(
        &self,
        file: FileId,
        verb: &str,
        act: impl FnOnce(&Arc<OpenFile>) -> io::Result<T>,
    ) -> Result<T, IoError> {
        let Some(open) = self.files.find(file) else {
            // The file's `Open` failed, and the core had queued this command behind it.
            let text = format!("cannot {verb} a file that could not be opened");
            return Err(IoError { kind: IoErrorKind::NotFound, text });
        };
        act(&open).map_err(|error| {
            let path = self.files.path(file).map(|path| self.roots.resolve(&path)).unwrap_or_default();
            failure(verb, &path, &error)
        })
    }
}

fn failure(verb: &str, path: &Path, error: &io::Error) -> IoError {
    let kind = match Errno::from_io_error(error) {
        Some(Errno::NOENT) => IoErrorKind::NotFound,
        Some(Errno::NOSPC | Errno::DQUOT) => IoErrorKind::NoSpace,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => IoErrorKind::Denied,
        _ => IoErrorKind::Other,
    };
    IoError { kind, text: format!("cannot {verb} {}: {error}", path.display()) }
}

fn unit(result: io::Result<()>) -> io::Result<IoDone> {
    result.map(|()| IoDone::Unit)
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<IoDone> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(IoDone::Unit),
        other => unit(other),
    }
}

fn list(real: &Path) -> io::Result<IoDone> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(real)? {
        let entry = entry?;
        // The core looks only for names that it made itself and ignores others, so a replacement character does no
        // harm.
        let name = entry.file_name().to_string_lossy().into_owned();
        match fs::metadata(entry.path()) {
            Ok(found) => {
                // Where the file system tells no time, retention by age begins to count now.
                let modified = wall_ms(found.modified().unwrap_or_else(|_| SystemTime::now()));
                entries.push(DirEntry { name, is_dir: found.is_dir(), len: found.len(), modified });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // it was removed meanwhile, or is a dangling link
            Err(error) => return Err(error),
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(IoDone::Entries(entries))
}

fn create_dir(real: &Path) -> io::Result<IoDone> {
    match fs::create_dir(real) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && real.is_dir() => Ok(IoDone::Unit),
        other => unit(other),
    }
}

/// Gives the file `real` this content, all of it or none, and returns when it is on stable storage.
pub fn replace(real: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = real.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = Path::new(&name);
    let mut file = File::create(temporary)?;
    file.write_all(content)?;
    platform::sync_all(&file)?;
    drop(file);
    fs::rename(temporary, real)?;
    let parent = real.parent().expect("the path of a file has a parent");
    platform::sync_all(&File::open(parent)?)
}

fn volume(real: &Path) -> io::Result<Volume> {
    let found = rustix::fs::statvfs(real)?;
    Ok(Volume {
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        free_bytes: found.f_bfree.saturating_mul(found.f_frsize),
        usable_bytes: found.f_bavail.saturating_mul(found.f_frsize),
    })
}

/// Calls `pwritev` until everything is written, since a call may write less or be interrupted.
fn write_all(file: &File, position: u64, pieces: &[&[u8]]) -> io::Result<IoDone> {
    let mut slices: Vec<IoSlice> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = &mut slices[..];
    let mut position = position;
    // Skips empty pieces at the front: writing them would return 0, which means a disk that takes no more.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let mut room = WRITE_BYTES_MAX - (position % WRITE_BYTES_MAX as u64) as usize;
        let now = rest.iter().take(SLICES_MAX).map_while(|slice| {
            let part = &slice[..slice.len().min(room)];
            room -= part.len();
            (!part.is_empty()).then(|| IoSlice::new(part))
        });
        let written = rustix::io::pwritev(file, &now.collect::<Vec<_>>(), position);
        match written {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                position += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(IoDone::Unit)
}

/// The length of a `Write`'s chunks in bytes.
pub fn len_of(chunks: &Chunks) -> u64 {
    chunks.iter().map(|chunk| chunk.len() as u64).sum()
}
