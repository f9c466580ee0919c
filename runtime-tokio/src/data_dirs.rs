//! Creates and locks the log directories at the start, so that no two brokers write into one.

use crate::platform;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// The file that is locked, named as in Kafka. As in Kafka it stays when the broker has stopped: a file that nobody has
/// locked is free.
pub const LOCK_FILE: &str = ".lock";

/// The directories of `log.dirs`, locked until this is dropped.
#[derive(Debug)]
pub struct DataDirs {
    roots: Vec<PathBuf>,
    _locks: Vec<File>,
    /// One line for each directory that cannot be used. The core will find the same error and take the directory
    /// offline.
    unusable: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error(
        "log directory {} is in use by another broker, which holds the lock on {LOCK_FILE} in it: stop that one, or \
         give this one another directory with log.dirs",
        .0.display()
    )]
    InUse(PathBuf),
    #[error("log.dirs names the same directory twice: {} and {}", .0.display(), .1.display())]
    Twice(PathBuf, PathBuf),
    #[error("no log directory can be used: {0}")]
    Unusable(String),
}

impl DataDirs {
    /// Creates and locks `roots`. As in Kafka, an unusable directory is tolerated as long as another one can be used.
    pub fn open(roots: Vec<PathBuf>) -> Result<Self, DataDirError> {
        let (mut locks, mut unusable, mut seen) = (Vec::new(), Vec::new(), Vec::<(PathBuf, PathBuf)>::new());
        for root in &roots {
            let locked = take(root).and_then(|lock| Ok((lock, fs::canonicalize(root)?)));
            let (lock, real) = match locked {
                Ok(found) => found,
                Err(error) => {
                    unusable.push(format!("{}: {error}", root.display()));
                    continue;
                }
            };
            if let Some((_, first)) = seen.iter().find(|(other, _)| *other == real) {
                return Err(DataDirError::Twice(first.clone(), root.clone()));
            }
            match lock {
                Some(lock) => locks.push(lock),
                None => return Err(DataDirError::InUse(root.clone())),
            }
            seen.push((real, root.clone()));
        }
        if locks.is_empty() {
            return Err(DataDirError::Unusable(unusable.join("; ")));
        }
        Ok(Self { roots, _locks: locks, unusable })
    }

    /// In the order of `log.dirs`, unusable ones included.
    pub fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    pub fn unusable(&self) -> &[String] {
        &self.unusable
    }
}

/// The lock on `root`; `None` if another process holds it.
fn take(root: &Path) -> io::Result<Option<File>> {
    fs::create_dir_all(root)?;
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(root.join(LOCK_FILE))?;
    Ok(platform::lock(&file)?.then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_locked_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/b");
        let first = DataDirs::open(vec![root.clone()]).unwrap();
        let error = DataDirs::open(vec![root.clone()]).unwrap_err().to_string().replace(root.to_str().unwrap(), "ROOT");
        insta::assert_snapshot!(error, @"log directory ROOT is in use by another broker, which holds the lock on .lock in it: stop that one, or give this one another directory with log.dirs");
        drop(first);
        DataDirs::open(vec![root]).unwrap();
    }

    #[test]
    fn the_same_directory_twice_is_refused_under_whatever_names() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("a"), dir.path().join("b")).unwrap();
        let error = DataDirs::open(vec![dir.path().join("a"), dir.path().join("b")]).unwrap_err();
        assert!(matches!(error, DataDirError::Twice(..)), "{error}");
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_tolerated_beside_one_that_can() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), b"").unwrap();
        let (bad, good) = (dir.path().join("file/a"), dir.path().join("good"));
        let dirs = DataDirs::open(vec![bad.clone(), good.clone()]).unwrap();
        assert_eq!(dirs.roots(), [bad.clone(), good]);
        assert_eq!(dirs.unusable().len(), 1);
        let error = DataDirs::open(vec![bad.clone()]).unwrap_err().to_string().replace(bad.to_str().unwrap(), "BAD");
        insta::assert_snapshot!(error, @"no log directory can be used: BAD: Not a directory (os error 20)");
    }
}
