//! Disks that fail: a file system that loses power or turns read-only, a file system that fills up, and a file on which
//! system calls fail. Each needs rights or programs that a machine may lack; a test that cannot get them prints so and
//! is skipped.

use crate::skipped;
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A small file system in memory, unmounted when this is dropped. Only root may mount it.
pub struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    pub fn new(test: &str, options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir.path()).output();
        if output.is_ok_and(|output| output.status.success()) {
            return Some(Self(dir));
        }
        skipped(test, "a tmpfs cannot be mounted here");
        None
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn grow(&self, size: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,{size}")]).arg(self.path())).expect("a larger tmpfs");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

/// A new ext4 file system in an image file, mounted through a loop device. It is the file system that most brokers use,
/// and holds back everything until a sync (pages, sizes, names). Only root may mount it, and only if the kernel has
/// ext4 and loop devices: a container without privileges cannot.
///
/// There is no other way to lose what another process has written: without a separate file system its pages belong to
/// the machine.
///
/// The simulator needs none of this, and its disks lose more than any real one (`sim/src/disk`).
pub struct Ext4 {
    dir: tempfile::TempDir,
}

/// `commit=600`: without a sync ext4 holds its journal back for longer than any test runs. `noauto_da_alloc`: it does
/// not guess which files should have been synced.
const OPTIONS: &str = "loop,errors=remount-ro,commit=600,noauto_da_alloc";

impl Ext4 {
    pub fn new(test: &str, mebibytes: u64) -> Option<Self> {
        let this = Self { dir: tempfile::tempdir().expect("a directory") };
        fs::create_dir(this.path()).expect("the place to mount it");
        let image = File::create(this.image()).and_then(|file| file.set_len(mebibytes << 20));
        image.expect("an image file");
        let made = run(Command::new("mkfs.ext4").arg("-qF").arg(this.image())).and_then(|()| this.mount());
        match made {
            Ok(()) => Some(this),
            Err(why) => {
                skipped(test, &format!("an ext4 of its own cannot be made here: {}", why.trim()));
                None
            }
        }
    }

    /// The directory where the file system is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-t", "ext4", "-o", OPTIONS]).arg(self.image()).arg(self.path()))
    }

    /// Cuts the power: from now on nothing more reaches the image, and every access fails with EIO. Pages and journal
    /// that are not in the image yet are lost.
    ///
    /// Kill the broker before this, as a power cut would: a sync that is inside the kernel meanwhile may find the
    /// aborted journal empty, and report success for data that are lost.
    pub fn cut_power(&self) {
        /// `EXT4_GOING_FLAGS_NOLOGFLUSH`: not even the journal is written.
        const NO_LOG_FLUSH: u32 = 2;
        const SHUT_DOWN: Opcode = opcode::read::<u32>(b'X', 125);
        let root = File::open(self.path()).expect("the mounted directory");
        // SAFETY: EXT4_IOC_SHUTDOWN reads one u32 from where its argument points to.
        unsafe { ioctl(&root, Setter::<SHUT_DOWN, u32>::new(NO_LOG_FLUSH)) }.expect("EXT4_IOC_SHUTDOWN");
    }

    /// Brings the power back: the file system is mounted again and replays its journal. No process may have files open
    /// on it.
    pub fn power_on(&self) {
        run(Command::new("umount").arg(self.path())).expect("unmounted");
        self.mount().expect("mounted again");
    }

    /// Makes the file system find an error in itself, as on a dying disk: it becomes read-only.
    pub fn turn_read_only(&self) {
        let mounts = fs::read_to_string("/proc/mounts").expect("/proc/mounts");
        let at = format!(" {} ", self.path().display());
        let line = mounts.lines().find(|line| line.contains(&at)).expect("it is mounted");
        let device = line.split(' ').next().and_then(|device| device.rsplit('/').next()).expect("a device");
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a test").expect("an error of the file system");
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        // Unmounting releases the loop device too.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).stderr(Stdio::null()).status();
    }
}

/// Makes system calls of a running process fail until this is dropped. It uses strace, which must be installed and
/// allowed to trace.
pub struct Tampering(Child);

impl Tampering {
    /// Makes each of `calls` (names separated by commas) on `file` fail with `error`.
    pub fn attach(test: &str, process_id: u32, calls: &str, error: &str, file: &Path) -> Option<Self> {
        let child = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e"])
            .arg(format!("inject={calls}:error={error}"))
            .arg("-P")
            .arg(file)
            .args(["-p", &process_id.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(why) => {
                skipped(test, &format!("strace: {why}"));
                return None;
            }
        };
        let mut said = String::new();
        let mut lines = BufReader::new(child.stderr.take().expect("piped"));
        while lines.read_line(&mut said).is_ok_and(|bytes| bytes > 0) {
            if said.contains(" attached") {
                // strace prints a line for each new thread. Nobody needs them, but strace would fail if the pipe were
                // closed or full.
                std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
                return Some(Self(child));
            }
        }
        let _ = child.wait();
        skipped(test, &format!("strace cannot trace here: {}", said.trim()));
        None
    }
}

impl Drop for Tampering {
    fn drop(&mut self) {
        // On SIGTERM strace detaches, and the process goes on as before.
        let id = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Writes two files: one that is synced with its name, and one that is not. After a power cut they show whether it was
/// one.
pub fn write_witnesses(dir: &Path) {
    let mut synced = File::create(dir.join("synced")).expect("a file");
    synced.write_all(&[7; 5000]).and_then(|()| synced.sync_all()).expect("written");
    File::open(dir).and_then(|dir| dir.sync_all()).expect("a synced directory");
    fs::write(dir.join("unsynced"), [7; 5000]).expect("written");
}

/// Panics unless the synced file is there and the other one has lost its content.
pub fn assert_power_was_cut(dir: &Path) {
    assert_eq!(fs::read(dir.join("synced")).expect("the synced file is there"), [7; 5000]);
    let unsynced = fs::read(dir.join("unsynced")).unwrap_or_default();
    assert_ne!(unsynced, [7; 5000], "the file that was not synced is still there: this was no power cut");
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(format!("{}: {error}", command.get_program().display())),
    }
}
