//! A disk in memory, for a broker that leaves nothing behind.
//!
//! The thread that hands commands in carries them out at once, in order. A file consists of pages that are allocated
//! when they are first written, so preallocated space takes no memory.

use super::{Completions, Content, Storage, Task, Volume, lock};
use crate::clock::wall_ms;
use bytes::Bytes;
use std::collections::btree_map::Entry::{Occupied, Vacant};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use tidelog_core::ids::{FileId, LogDirId};
use tidelog_core::io::{DirEntry, DiskPath, IoCommand, IoCompletion, IoDone, IoError, IoErrorKind, IoOp};
use tidelog_core::wire::FileSlice;

const PAGE_BYTES: u64 = 16 << 10;

/// The disk of one broker, which can be restarted on it many times.
pub struct Memory {
    state: Mutex<State>,
    used: Arc<Used>,
}

/// Directories and files by path, open files by id, and the commands that are not carried out yet.
#[derive(Default)]
struct State {
    entries: BTreeMap<DiskPath, Entry>,
    open: HashMap<FileId, Arc<MemoryFile>>,
    queue: VecDeque<IoCommand>,
}

enum Entry {
    Dir,
    File(Arc<MemoryFile>),
}

/// How much memory all pages take together, and the limit on it.
struct Used {
    bytes: AtomicU64,
    limit_bytes: u64,
}

impl Used {
    fn volume(&self) -> Volume {
        let free_bytes = self.limit_bytes - self.bytes.load(Ordering::Relaxed);
        Volume { total_bytes: self.limit_bytes, free_bytes, usable_bytes: free_bytes }
    }

    fn take_page(&self) -> Result<(), IoError> {
        let took = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(PAGE_BYTES).filter(|used| *used <= self.limit_bytes)
        });
        let full = || {
            let text =
                format!("cannot write: the {} bytes of memory that this broker may use are full", self.limit_bytes);
            IoError { kind: IoErrorKind::NoSpace, text }
        };
        took.map(drop).map_err(|_| full())
    }
}

impl Memory {
    pub fn new(limit_bytes: u64) -> Self {
        let used = Used { bytes: AtomicU64::new(0), limit_bytes };
        Self { state: Mutex::default(), used: Arc::new(used) }
    }

    /// The broker's process has ended: its files are closed, and the commands that it had queued are dropped.
    pub fn process_ends(&self) {
        let mut state = lock(&self.state);
        state.open.clear();
        state.queue.clear();
    }

    /// Carries out everything that is queued. The lock is held until the completions are in the inbox, so that they
    /// stay in order.
    fn run(&self, sink: &Arc<dyn Completions>, completions: &mut Vec<IoCompletion>) {
        let mut state = lock(&self.state);
        while let Some(IoCommand { id, op }) = state.queue.pop_front() {
            completions.push(IoCompletion { id, result: state.perform(op, &self.used) });
        }
        sink.deliver(completions);
    }
}

impl Storage for Arc<Memory> {
    fn enqueue(&self, commands: &mut Vec<IoCommand>, runnable: &mut VecDeque<Task>) {
        if let Some(first) = commands.first() {
            // One task stands for everything in the queue.
            runnable.push_back(Task::Lane(first.id.owner));
            lock(&self.state).queue.extend(commands.drain(..));
        }
    }

    fn run_inline(
        &self,
        _task: Task,
        sink: &Arc<dyn Completions>,
        _runnable: &mut VecDeque<Task>,
        completions: &mut Vec<IoCompletion>,
    ) {
        self.run(sink, completions);
    }

    fn run_in_pool(&self, _task: Task, sink: &Arc<dyn Completions>) {
        self.run(sink, &mut Vec::new());
        sink.clone().run();
    }

    fn content_of(&self, slice: &FileSlice) -> Arc<dyn Content> {
        lock(&self.state).open.get(&slice.file).expect("a response names only files that the core has open").clone()
    }

    fn queued_bytes(&self) -> usize {
        0
    }

    fn volume(&self, _dir: LogDirId) -> Option<Volume> {
        Some(self.used.volume())
    }
}

impl State {
    fn perform(&mut self, op: IoOp, used: &Arc<Used>) -> Result<IoDone, IoError> {
        match op {
            IoOp::List { path } => self.list(&path),
            IoOp::CreateDir { path } => {
                self.entries.entry(path).or_insert(Entry::Dir);
                Ok(IoDone::Unit)
            }
            IoOp::SyncDir { .. } | IoOp::Sync { .. } => Ok(IoDone::Unit),
            IoOp::Rename { from, to } => self.rename(&from, &to),
            IoOp::Remove { path } => {
                self.entries.remove(&path);
                Ok(IoDone::Unit)
            }
            IoOp::RemoveDir { path } => {
                self.entries.retain(|entry, _| !is_at_or_below(entry, &path));
                Ok(IoDone::Unit)
            }
            IoOp::Load { path, limit_bytes } => {
                let file = self.file(&path, "read")?;
                let len = file.len();
                if len > limit_bytes {
                    let text = format!("cannot read {}: it is larger than {limit_bytes} bytes", path.path);
                    return Err(IoError { kind: IoErrorKind::TooLarge, text });
                }
                Ok(IoDone::Bytes(file.read(0, len)))
            }
            IoOp::Replace { path, content } => {
                let file = MemoryFile::new(used.clone());
                file.write(0, &content)?;
                self.entries.insert(path, Entry::File(Arc::new(file)));
                Ok(IoDone::Unit)
            }
            IoOp::Open { file, path, create } => {
                if create && !self.entries.contains_key(&path) {
                    self.entries.insert(path.clone(), Entry::File(Arc::new(MemoryFile::new(used.clone()))));
                }
                let found = self.file(&path, "open")?;
                let len = found.len();
                assert!(self.open.insert(file, found).is_none(), "the core used {file:?} twice");
                Ok(IoDone::Len(len))
            }
            IoOp::Write { file, mut position, chunks } => {
                let file = self.opened(file, "write to")?;
                for chunk in chunks {
                    file.write(position, &chunk)?;
                    position += chunk.len() as u64;
                }
                Ok(IoDone::Unit)
            }
            IoOp::Read { file, position, len } => {
                Ok(IoDone::Bytes(self.opened(file, "read")?.read(position, u64::from(len))))
            }
            IoOp::SetLen { file, len } => {
                self.opened(file, "set the length of")?.set_len(len);
                Ok(IoDone::Unit)
            }
            IoOp::Close { file } => {
                self.open.remove(&file);
                Ok(IoDone::Unit)
            }
            IoOp::Volume { .. } => {
                let Volume { total_bytes, usable_bytes, .. } = used.volume();
                Ok(IoDone::Volume { total_bytes, usable_bytes })
            }
        }
    }

    fn list(&self, dir: &DiskPath) -> Result<IoDone, IoError> {
        if !dir.path.is_empty() && !matches!(self.entries.get(dir), Some(Entry::Dir)) {
            return Err(missing("list", dir));
        }
        let in_dir = |path: &DiskPath| {
            let (parent, name) = path.path.rsplit_once('/').unwrap_or(("", &path.path));
            (path.dir == dir.dir && parent == dir.path).then(|| name.to_owned())
        };
        let entries = self.entries.iter().filter_map(|(path, entry)| {
            let name = in_dir(path)?;
            Some(match entry {
                Entry::Dir => DirEntry { name, is_dir: true, len: 0, modified: wall_ms(SystemTime::UNIX_EPOCH) },
                Entry::File(file) => {
                    let pages = lock(&file.pages);
                    DirEntry { name, is_dir: false, len: pages.len, modified: wall_ms(pages.modified) }
                }
            })
        });
        Ok(IoDone::Entries(entries.collect()))
    }

    fn rename(&mut self, from: &DiskPath, to: &DiskPath) -> Result<IoDone, IoError> {
        if !self.entries.contains_key(from) {
            return Err(missing("rename", from));
        }
        let moved: Vec<DiskPath> = self.entries.keys().filter(|path| is_at_or_below(path, from)).cloned().collect();
        for path in moved {
            let entry = self.entries.remove(&path).expect("the path was found above");
            let new = DiskPath { dir: to.dir, path: format!("{}{}", to.path, &path.path[from.path.len()..]) };
            self.entries.insert(new, entry);
        }
        Ok(IoDone::Unit)
    }

    fn file(&self, path: &DiskPath, verb: &str) -> Result<Arc<MemoryFile>, IoError> {
        match self.entries.get(path) {
            Some(Entry::File(file)) => Ok(file.clone()),
            _ => Err(missing(verb, path)),
        }
    }

    fn opened(&self, file: FileId, verb: &str) -> Result<&MemoryFile, IoError> {
        let missing = || {
            // The file's `Open` failed, and the core had queued this command behind it.
            let text = format!("cannot {verb} a file that could not be opened");
            IoError { kind: IoErrorKind::NotFound, text }
        };
        self.open.get(&file).map(|file| &**file).ok_or_else(missing)
    }
}

fn missing(verb: &str, path: &DiskPath) -> IoError {
    IoError { kind: IoErrorKind::NotFound, text: format!("cannot {verb} {}: it does not exist", path.path) }
}

fn is_at_or_below(path: &DiskPath, of: &DiskPath) -> bool {
    let rest = path.path.strip_prefix(&of.path);
    path.dir == of.dir && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The content of one file. It lives as long as the file has a name, is open, or a response has a slice of it.
struct MemoryFile {
    pages: Mutex<Pages>,
    used: Arc<Used>,
}

/// The content of a file in pages.
struct Pages {
    len: u64,
    /// When the content or the length was last changed.
    modified: SystemTime,
    /// The pages by number. A page that is missing is all zeros.
    written: BTreeMap<u64, Box<[u8]>>,
}

impl MemoryFile {
    fn new(used: Arc<Used>) -> Self {
        let pages = Pages { len: 0, modified: SystemTime::now(), written: BTreeMap::new() };
        Self { pages: Mutex::new(pages), used }
    }

    fn len(&self) -> u64 {
        lock(&self.pages).len
    }

    fn write(&self, position: u64, bytes: &[u8]) -> Result<(), IoError> {
        let mut pages = lock(&self.pages);
        for (number, at, part) in parts(position, bytes.len() as u64) {
            let page = match pages.written.entry(number) {
                Occupied(page) => page.into_mut(),
                Vacant(place) => {
                    self.used.take_page()?;
                    place.insert(vec![0; PAGE_BYTES as usize].into())
                }
            };
            page[at.clone()].copy_from_slice(&bytes[part.start..][..at.len()]);
        }
        pages.len = pages.len.max(position + bytes.len() as u64);
        pages.modified = SystemTime::now();
        Ok(())
    }

    /// Reads `len` bytes, or fewer if the file ends before.
    fn read(&self, position: u64, len: u64) -> Bytes {
        let pages = lock(&self.pages);
        let len = len.min(pages.len.saturating_sub(position));
        let mut bytes = vec![0; len as usize];
        pages.read(&mut bytes, position);
        bytes.into()
    }

    fn set_len(&self, len: u64) {
        let mut pages = lock(&self.pages);
        let gone = pages.written.split_off(&len.div_ceil(PAGE_BYTES));
        self.used.bytes.fetch_sub(gone.len() as u64 * PAGE_BYTES, Ordering::Relaxed);
        // The bytes that are cut off must read as zeros if the file grows again.
        let kept = (len % PAGE_BYTES) as usize;
        if let Some(page) = pages.written.get_mut(&(len / PAGE_BYTES)) {
            page[kept..].fill(0);
        }
        pages.len = len;
        pages.modified = SystemTime::now();
    }
}

impl Pages {
    fn read(&self, into: &mut [u8], position: u64) {
        for (number, at, part) in parts(position, into.len() as u64) {
            match self.written.get(&number) {
                Some(page) => into[part].copy_from_slice(&page[at]),
                None => into[part].fill(0),
            }
        }
    }
}

impl Content for MemoryFile {
    fn read_exact_at(&self, into: &mut [u8], position: u64) -> io::Result<()> {
        let pages = lock(&self.pages);
        if position.saturating_add(into.len() as u64) > pages.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        pages.read(into, position);
        Ok(())
    }

    fn file(&self) -> Option<&File> {
        None
    }

    fn name(&self) -> String {
        "a file in memory".into()
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let pages = lock(&self.pages).written.len() as u64;
        self.used.bytes.fetch_sub(pages * PAGE_BYTES, Ordering::Relaxed);
    }
}

type Range = std::ops::Range<usize>;

/// The pages that `len` bytes from `position` on lie in: for each its number, the range within the page, and the range
/// within those bytes.
fn parts(position: u64, len: u64) -> impl Iterator<Item = (u64, Range, Range)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = position + done;
        let start = at % PAGE_BYTES;
        let count = (PAGE_BYTES - start).min(len - done);
        let part = done as usize..(done + count) as usize;
        done += count;
        (count > 0).then_some((at / PAGE_BYTES, start as usize..(start + count) as usize, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_core::ids::LogDirId;

    fn path(text: &str) -> DiskPath {
        DiskPath { dir: LogDirId(0), path: text.into() }
    }

    fn perform(disk: &Memory, op: IoOp) -> Result<IoDone, IoErrorKind> {
        lock(&disk.state).perform(op, &disk.used).map_err(|error| error.kind)
    }

    fn open(disk: &Memory, id: u64, name: &str) -> FileId {
        let file = FileId(id);
        perform(disk, IoOp::Open { file, path: path(name), create: true }).unwrap();
        file
    }

    fn write(disk: &Memory, file: FileId, position: u64, bytes: &[u8]) -> Result<IoDone, IoErrorKind> {
        let chunks = [Bytes::copy_from_slice(bytes)].into_iter().collect();
        perform(disk, IoOp::Write { file, position, chunks })
    }

    fn read(disk: &Memory, file: FileId, position: u64, len: u32) -> Vec<u8> {
        match perform(disk, IoOp::Read { file, position, len }) {
            Ok(IoDone::Bytes(bytes)) => bytes.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bytes_are_read_back_across_pages_and_what_was_never_written_is_zeros_that_take_no_room() {
        let disk = Memory::new(3 * PAGE_BYTES);
        let file = open(&disk, 1, "x.log");
        perform(&disk, IoOp::SetLen { file, len: 1 << 30 }).unwrap();
        let content: Vec<u8> = (0..PAGE_BYTES as usize + 100).map(|n| (n % 251) as u8).collect();
        write(&disk, file, PAGE_BYTES - 50, &content).unwrap();
        assert_eq!(read(&disk, file, PAGE_BYTES - 50, content.len() as u32), content);
        assert_eq!(read(&disk, file, 0, 10), [0; 10]);
        assert_eq!(read(&disk, file, (1 << 30) - 4, 10), [0; 4], "the file ends there");
        perform(&disk, IoOp::SetLen { file, len: PAGE_BYTES }).unwrap();
        perform(&disk, IoOp::SetLen { file, len: 2 * PAGE_BYTES }).unwrap();
        assert_eq!(read(&disk, file, PAGE_BYTES - 50, 60), [&content[..50], &[0; 10]].concat());
    }

    #[test]
    fn a_full_memory_refuses_what_needs_more_and_has_room_again_once_files_are_gone() {
        let disk = Memory::new(2 * PAGE_BYTES);
        let file = open(&disk, 1, "x.log");
        assert_eq!(write(&disk, file, 0, &vec![1; 3 * PAGE_BYTES as usize]), Err(IoErrorKind::NoSpace));
        perform(&disk, IoOp::Remove { path: path("x.log") }).unwrap();
        let other = open(&disk, 2, "y.log");
        assert_eq!(
            write(&disk, other, 0, &[1]),
            Err(IoErrorKind::NoSpace),
            "the removed file is still open, so its pages are not free"
        );
        perform(&disk, IoOp::Close { file }).unwrap();
        assert_eq!(write(&disk, other, 0, &[1]), Ok(IoDone::Unit));
    }

    #[test]
    fn a_file_tells_when_it_was_last_changed() {
        let disk = Memory::new(u64::MAX);
        let file = open(&disk, 1, "x.log");
        let modified = || match perform(&disk, IoOp::List { path: path("") }) {
            Ok(IoDone::Entries(entries)) => entries[0].modified,
            other => panic!("{other:?}"),
        };
        let before = wall_ms(SystemTime::now());
        let changes = |change: &dyn Fn()| {
            lock(&lock(&disk.state).open[&file].pages).modified = SystemTime::UNIX_EPOCH;
            change();
            modified() >= before
        };
        assert!(changes(&|| drop(write(&disk, file, 0, b"bytes"))));
        assert!(changes(&|| drop(perform(&disk, IoOp::SetLen { file, len: 3 }))));
        assert!(!changes(&|| drop(read(&disk, file, 0, 3))));
        assert!(!changes(&|| drop(perform(&disk, IoOp::Sync { file }))));
    }

    #[test]
    fn names_move_with_all_below_them_and_nothing_beside() {
        let disk = Memory::new(u64::MAX);
        for dir in ["a-0", "a-00"] {
            perform(&disk, IoOp::CreateDir { path: path(dir) }).unwrap();
        }
        for (id, name) in [(1, "a-0/x.log"), (2, "a-00/x.log"), (3, "a-0.txt")] {
            let file = open(&disk, id, name);
            write(&disk, file, 0, name.as_bytes()).unwrap();
        }
        perform(&disk, IoOp::Rename { from: path("a-0"), to: path("b") }).unwrap();
        let names = |dir: &str| match perform(&disk, IoOp::List { path: path(dir) }) {
            Ok(IoDone::Entries(entries)) => Ok(entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>()),
            Err(kind) => Err(kind),
            other => panic!("{other:?}"),
        };
        assert_eq!(names("").unwrap(), ["a-0.txt", "a-00", "b"]);
        assert_eq!((names("b").unwrap(), names("a-0")), (vec!["x.log".to_string()], Err(IoErrorKind::NotFound)));
        assert_eq!(read(&disk, FileId(1), 0, 100), b"a-0/x.log", "it stays open under its new name");
        perform(&disk, IoOp::RemoveDir { path: path("b") }).unwrap();
        assert_eq!(names("").unwrap(), ["a-0.txt", "a-00"]);
        let load = |name, limit_bytes| perform(&disk, IoOp::Load { path: path(name), limit_bytes });
        assert_eq!(load("a-0.txt", 7), Ok(IoDone::Bytes(Bytes::from_static(b"a-0.txt"))));
        assert_eq!(load("a-0.txt", 6), Err(IoErrorKind::TooLarge));
        assert_eq!(load("gone", 6), Err(IoErrorKind::NotFound));
    }
}
