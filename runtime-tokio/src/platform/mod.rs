//! System calls that differ between operating systems, behind functions that mean the same on each. No other module of
//! this crate asks which system it is built for.
//!
//! `linux.rs` is for Linux, where brokers run in production. `portable.rs` is for every other Unix, above all macOS: plain
//! reads and writes, fast enough for development and tests. With the feature `portable`, Linux uses `portable.rs` too,
//! so that `.ci/run` can test it.
//!
//! | function | does | on Linux | elsewhere |
//! |---|---|---|---|
//! | [`read_cached`] | reads only what is in the page cache | `preadv2` with `RWF_NOWAIT` | reads nothing |
//! | [`sync_data`], [`sync_all`] | returns when a file is on stable storage | `fdatasync`, `fsync` | `F_FULLFSYNC` on Apple's systems, otherwise as on Linux |
//! | [`send`] | sends bytes without waiting, and without SIGPIPE | `sendmsg`, `MSG_MORE` before more bytes | `sendmsg` |
//! | [`send_file`] | sends a slice of a file | `sendfile` | `pread`, then [`send`] |
//! | [`lock`] | keeps other brokers out of a log directory | `flock` and `fcntl` | `flock` |
//! | [`path_of`] | the path of an open file, for messages | `/proc/self/fd` | `F_GETPATH` on Apple's systems, otherwise as on Linux |
//! | [`open_files_max`] | how many open files to ask for | the hard limit | the hard limit; 10,240 if there is none |
//! | [`Timer`] | waits to the microsecond | `timerfd` | tokio's timer, then yields until the time has come |

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux;
#[cfg(all(target_os = "linux", not(feature = "portable")))]
use linux as system;

#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
mod portable;
#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
use portable as system;

#[cfg(not(madsim))]
pub use system::Timer;
pub use system::{lock, open_files_max, path_of, read_cached, send, send_file, sync_all, sync_data};

/// These hold on every system, whichever implementation it has.
#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{self, IoSlice, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    fn file_with(content: &[u8]) -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content");
        std::fs::write(&path, content).unwrap();
        let file = File::options().read(true).write(true).open(path).unwrap();
        (dir, file)
    }

    #[test]
    fn a_cached_read_answers_what_the_file_holds_or_nothing() {
        let (_dir, file) = file_with(b"0123456789");
        let mut buffer = [0; 4];
        if let Some(read) = read_cached(&file, &mut buffer, 3) {
            assert_eq!(&buffer[..read], &b"3456"[..read]);
        }
        assert!(matches!(read_cached(&file, &mut buffer, 10), None | Some(0)), "nothing lies behind the end");
    }

    #[test]
    fn files_and_directories_can_be_synced() {
        let (dir, mut file) = file_with(b"");
        file.write_all(b"content").unwrap();
        sync_data(&file).unwrap();
        sync_all(&file).unwrap();
        sync_all(&File::open(dir.path()).unwrap()).unwrap();
    }

    #[test]
    fn slices_of_a_file_are_sent_from_their_position_up_to_the_end_of_the_file() {
        let (_dir, file) = file_with(b"0123456789");
        let (out, mut into) = UnixStream::pair().unwrap();
        assert_eq!(send(&out, &[IoSlice::new(b"a"), IoSlice::new(b"b")], true).unwrap(), 2);
        assert_eq!(send_file(&out, &file, 2, 3).unwrap(), 3);
        assert_eq!(send_file(&out, &file, 7, 100).unwrap(), 3);
        assert_eq!(send_file(&out, &file, 10, 100).unwrap(), 0);
        drop(out);
        let mut got = String::new();
        into.read_to_string(&mut got).unwrap();
        assert_eq!(got, "ab234789");
    }

    #[test]
    fn sending_never_waits_and_tells_when_nobody_is_there() {
        let (_dir, file) = file_with(&[7; 100_000]);
        let (out, into) = UnixStream::pair().unwrap();
        // The socket is not set to non-blocking: only the flag of the call keeps it from waiting.
        while send(&out, &[IoSlice::new(&[7; 10_000])], false).is_ok() {}
        let full = send(&out, &[IoSlice::new(b"more")], false).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop(into);
        for gone in [send(&out, &[IoSlice::new(b"more")], false), send_file(&out, &file, 0, 100_000)] {
            assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
    }

    #[test]
    fn a_lock_is_held_until_its_file_is_closed() {
        let (dir, file) = file_with(b"");
        let again = || File::options().read(true).write(true).open(dir.path().join("content")).unwrap();
        assert!(lock(&file).unwrap());
        assert!(!lock(&again()).unwrap());
        drop(file);
        assert!(lock(&again()).unwrap());
    }

    #[test]
    fn the_path_of_a_file_follows_its_renames_where_the_system_knows_it() {
        let (dir, file) = file_with(b"");
        std::fs::rename(dir.path().join("content"), dir.path().join("renamed")).unwrap();
        if let Some(path) = path_of(&file) {
            assert_eq!(path, dir.path().canonicalize().unwrap().join("renamed"));
        }
    }

    #[test]
    fn a_timer_does_not_return_before_its_time_however_often_it_was_left() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut timer = Timer::new().unwrap();
            let begin = Instant::now();
            timer.until(begin).await.unwrap();
            let early = timer.until(begin + Duration::from_millis(4));
            assert!(tokio::time::timeout(Duration::ZERO, early).await.is_err());
            let at = begin + Duration::from_micros(5500);
            timer.until(at).await.unwrap();
            assert!(Instant::now() >= at);
        });
    }
}
