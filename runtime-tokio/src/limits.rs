//! The process's limit of open files.

use crate::platform;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of files this process may open to what it is allowed to ask for. Answers what it is now;
/// `None`: unlimited.
pub fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let most = platform::open_files_max(maximum);
    let unlimited = u64::MAX;
    if most.unwrap_or(unlimited) <= current.unwrap_or(unlimited)
        || setrlimit(Resource::Nofile, Rlimit { current: most, maximum }).is_err()
    {
        return current;
    }
    most
}
