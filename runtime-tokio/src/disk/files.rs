//! The broker's open files by the id that the core gave them, and where the core's paths lie on the real disk.
//!
//! A response may name a slice of a file that the core closes a moment later. The connection that sends the slice
//! therefore holds a reference to the [`OpenFile`], so the file stays open until its last slice is sent.

use crate::platform;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use tidelog_core::ids::{FileId, LogDirId};
use tidelog_core::io::DiskPath;

/// The roots of the log directories, in the order of `log.dirs`.
pub struct Roots(Vec<PathBuf>);

impl Roots {
    pub fn new(roots: Vec<PathBuf>) -> Self {
        Self(roots)
    }

    pub fn of(&self, dir: LogDirId) -> &PathBuf {
        self.0.get(usize::from(dir.0)).expect("the core uses only log directories of its configuration")
    }

    /// The real path of `path`. The core makes paths only from names that it has checked. That a path stays inside its
    /// log directory is asserted all the same, since a topic's name comes from a client.
    pub fn resolve(&self, path: &DiskPath) -> PathBuf {
        let mut real = self.of(path.dir).clone();
        for part in path.path.split('/').filter(|part| !part.is_empty()) {
            assert!(
                part != ".." && part != "." && !part.contains('\0'),
                "a path leaves its log directory: {:?}",
                path.path
            );
            real.push(part);
        }
        real
    }
}

/// A file of which a response has a slice. It stays readable until the last slice is sent, even if the core closes or
/// removes it.
pub trait Content: Send + Sync {
    fn read_exact_at(&self, into: &mut [u8], position: u64) -> io::Result<()>;

    /// The file of this machine, where it is one: it may have a short way to a socket.
    fn file(&self) -> Option<&File>;

    /// The file's name in messages to the operator.
    fn name(&self) -> String;
}

/// One open file.
pub struct OpenFile {
    pub file: File,
}

impl Content for OpenFile {
    fn read_exact_at(&self, into: &mut [u8], position: u64) -> io::Result<()> {
        self.file.read_exact_at(into, position)
    }

    fn file(&self) -> Option<&File> {
        Some(&self.file)
    }

    fn name(&self) -> String {
        platform::path_of(&self.file).map_or_else(|| "a log file".to_owned(), |path| path.display().to_string())
    }
}

/// The open files with their present paths.
#[derive(Default)]
pub struct FileTable {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    files: HashMap<FileId, (Arc<OpenFile>, DiskPath)>,
    /// The same files in the order of their paths, so that a rename of a directory finds the files below it quickly.
    by_path: BTreeSet<(DiskPath, FileId)>,
}

impl FileTable {
    pub fn insert(&self, id: FileId, file: File, path: DiskPath) {
        let mut inner = self.inner.write().expect("no thread panics while it holds this lock");
        inner.by_path.insert((path.clone(), id));
        let before = inner.files.insert(id, (Arc::new(OpenFile { file }), path));
        assert!(before.is_none(), "the core used {id:?} twice");
    }

    pub fn find(&self, id: FileId) -> Option<Arc<OpenFile>> {
        self.inner
            .read()
            .expect("no thread panics while it holds this lock")
            .files
            .get(&id)
            .map(|(file, _)| file.clone())
    }

    /// The present path of the file, for messages.
    pub fn path(&self, id: FileId) -> Option<DiskPath> {
        self.inner
            .read()
            .expect("no thread panics while it holds this lock")
            .files
            .get(&id)
            .map(|(_, path)| path.clone())
    }

    pub fn remove(&self, id: FileId) -> Option<Arc<OpenFile>> {
        let mut inner = self.inner.write().expect("no thread panics while it holds this lock");
        let (file, path) = inner.files.remove(&id)?;
        inner.by_path.remove(&(path, id));
        Some(file)
    }

    /// Changes the paths of `from` and of everything below it after a rename to `to`.
    pub fn renamed(&self, from: &DiskPath, to: &DiskPath) {
        let mut inner = self.inner.write().expect("no thread panics while it holds this lock");
        let start = Bound::Included((from.clone(), FileId(0)));
        let moved: Vec<(DiskPath, FileId)> = inner
            .by_path
            .range((start, Bound::Unbounded))
            .take_while(|(path, _)| path.dir == from.dir && path.path.starts_with(&from.path))
            .filter(|(path, _)| matches!(path.path.as_bytes().get(from.path.len()), None | Some(b'/')))
            .cloned()
            .collect();
        for (path, id) in moved {
            let new = DiskPath { dir: to.dir, path: format!("{}{}", to.path, &path.path[from.path.len()..]) };
            inner.files.get_mut(&id).expect("both maps hold the same files").1 = new.clone();
            inner.by_path.remove(&(path, id));
            inner.by_path.insert((new, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> DiskPath {
        DiskPath { dir: LogDirId(0), path: text.into() }
    }

    #[test]
    fn a_renamed_directory_takes_its_open_files_along_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let table = FileTable::default();
        for (id, name) in [(1, "a-0/x.log"), (2, "a-0/y.log"), (3, "a-00/x.log"), (4, "a-0.log"), (5, "b-0/x.log")] {
            table.insert(FileId(id), File::create(dir.path().join(id.to_string())).unwrap(), path(name));
        }
        table.renamed(&path("a-0"), &path("a-0.deleted"));
        let now: Vec<_> = (1..=5).map(|id| table.path(FileId(id)).unwrap().path).collect();
        assert_eq!(now, ["a-0.deleted/x.log", "a-0.deleted/y.log", "a-00/x.log", "a-0.log", "b-0/x.log"]);
        table.renamed(&path("a-0.deleted/y.log"), &path("a-0.deleted/y.log.deleted"));
        assert_eq!(table.path(FileId(2)).unwrap().path, "a-0.deleted/y.log.deleted");
        assert!(table.remove(FileId(2)).is_some());
        assert!(table.find(FileId(2)).is_none());
    }

    #[test]
    #[should_panic(expected = "leaves its log directory")]
    fn a_path_never_leaves_its_directory() {
        Roots::new(vec![PathBuf::from("/data")]).resolve(&path("a/../../etc/passwd"));
    }
}
