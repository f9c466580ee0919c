use super::*;
use bytes::Bytes;
use std::fs::File;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, UNIX_EPOCH};
use tidelog_core::ids::{FileId, LogDirId, LogId};
use tidelog_core::io::{Chunks, DirEntry, DiskPath, IoError, IoErrorKind, IoId};
use tidelog_core::time::WallMs;

/// Gives the completions to the test in the order of delivery.
struct Sink(Mutex<mpsc::Sender<IoCompletion>>);

impl Completions for Sink {
    fn deliver(&self, completions: &mut Vec<IoCompletion>) {
        let sender = lock(&self.0);
        for completion in completions.drain(..) {
            let _ = sender.send(completion);
        }
    }

    fn run(self: Arc<Self>) {}
}

struct Fixture {
    dir: tempfile::TempDir,
    disk: Arc<Disk>,
    sink: Arc<dyn Completions>,
    completed: mpsc::Receiver<IoCompletion>,
    seq: u64,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (sender, completed) = mpsc::channel();
        let disk = Arc::new(Disk::new(Roots::new(vec![dir.path().to_owned()]), 4, 1));
        Self { dir, disk, sink: Arc::new(Sink(Mutex::new(sender))), completed, seq: 0 }
    }

    fn command(&mut self, lane: u32, op: IoOp) -> IoCommand {
        self.seq += 1;
        IoCommand { id: IoId { owner: IoOwner::Log(LogId(lane)), seq: self.seq }, op }
    }

    fn start(&self, mut commands: Vec<IoCommand>, inline: bool) {
        let mut runnable = VecDeque::new();
        self.disk.enqueue(&mut commands, &mut runnable);
        while let Some(task) = runnable.pop_front() {
            if inline {
                self.disk.run_inline(task, &self.sink, &mut runnable, &mut Vec::new());
            } else {
                self.disk.run_in_pool(task, &self.sink);
            }
        }
    }

    /// Carries out one command and returns its result.
    fn run(&mut self, op: IoOp) -> Result<IoDone, IoError> {
        let command = self.command(0, op);
        let id = command.id;
        self.start(vec![command], true);
        let completion = self.completed.recv().unwrap();
        assert_eq!(completion.id, id);
        completion.result
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.disk.stop();
    }
}

fn path(text: &str) -> DiskPath {
    DiskPath { dir: LogDirId(0), path: text.into() }
}

fn write(file: u64, position: u64, text: &str) -> IoOp {
    let chunks = Chunks::from_vec(vec![Bytes::copy_from_slice(text.as_bytes()), Bytes::new()]);
    IoOp::Write { file: FileId(file), position, chunks }
}

#[test]
fn the_commands_of_a_lane_run_and_complete_in_order_whoever_runs_them() {
    for inline in [true, false] {
        let mut fixture = Fixture::new();
        let mut ids = Vec::new();
        for lane in 0..8 {
            let file = FileId(u64::from(lane));
            let open = fixture.command(lane, IoOp::Open { file, path: path(&format!("{lane}.log")), create: true });
            let mut commands = vec![open];
            for place in 0..40 {
                commands.push(fixture.command(lane, write(file.0, place * 3, "abc")));
                if place % 7 == 0 {
                    commands.push(fixture.command(lane, IoOp::Sync { file }));
                }
            }
            ids.extend(commands.iter().map(|command| command.id));
            // In two halves: the lane of the second one may be taken, idle or in the pool.
            let second = commands.split_off(20);
            fixture.start(commands, inline);
            fixture.start(second, inline);
        }
        let mut last = [0; 8];
        for _ in &ids {
            let completion = fixture.completed.recv().unwrap();
            let IoOwner::Log(LogId(lane)) = completion.id.owner else { panic!() };
            assert!(completion.id.seq > last[lane as usize], "in order within the lane");
            last[lane as usize] = completion.id.seq;
            assert!(completion.result.is_ok(), "{:?}", completion.result);
        }
        assert_eq!(fixture.disk.queued_bytes(), 0);
        for lane in 0..8 {
            let content = std::fs::read_to_string(fixture.path().join(format!("{lane}.log"))).unwrap();
            assert_eq!(content, "abc".repeat(40));
        }
    }
}

#[test]
fn writes_that_continue_one_another_are_joined_and_others_keep_their_place() {
    let mut fixture = Fixture::new();
    let open = fixture.command(0, IoOp::Open { file: FileId(1), path: path("a"), create: true });
    let other = fixture.command(0, IoOp::Open { file: FileId(2), path: path("b"), create: true });
    let mut commands = vec![open, other];
    for op in [write(1, 0, "one"), write(1, 3, "two"), write(2, 0, "b"), write(1, 6, "three"), write(1, 0, "ONE")] {
        commands.push(fixture.command(0, op));
    }
    let wanted: Vec<_> = commands.iter().map(|command| command.id.seq).collect();
    fixture.start(commands, false);
    let got: Vec<_> = wanted.iter().map(|_| fixture.completed.recv().unwrap().id.seq).collect();
    assert_eq!(got, wanted);
    assert_eq!(std::fs::read_to_string(fixture.path().join("a")).unwrap(), "ONEtwothree");
    assert_eq!(std::fs::read_to_string(fixture.path().join("b")).unwrap(), "b");
}

#[test]
fn reads_answer_what_is_there_and_no_more_from_cache_or_disk() {
    let mut fixture = Fixture::new();
    fixture.run(IoOp::Open { file: FileId(1), path: path("a"), create: true }).unwrap();
    fixture.run(write(1, 0, "hello")).unwrap();
    let read = |position, len| IoOp::Read { file: FileId(1), position, len };
    assert_eq!(fixture.run(read(1, 3)), Ok(IoDone::Bytes(Bytes::from_static(b"ell"))));
    assert_eq!(fixture.run(read(3, 100)), Ok(IoDone::Bytes(Bytes::from_static(b"lo"))));
    assert_eq!(fixture.run(read(9, 1)), Ok(IoDone::Bytes(Bytes::new())));
    fixture.run(IoOp::SetLen { file: FileId(1), len: 7 }).unwrap();
    assert_eq!(fixture.run(read(3, 100)), Ok(IoDone::Bytes(Bytes::from_static(b"lo\0\0"))));
}

#[test]
fn directories_files_and_names_do_what_the_vocabulary_says() {
    let mut fixture = Fixture::new();
    fixture.run(IoOp::CreateDir { path: path("t-0") }).unwrap();
    fixture.run(IoOp::CreateDir { path: path("t-0") }).unwrap();
    fixture.run(IoOp::Replace { path: path("t-0/leader-epoch"), content: Bytes::from_static(b"first") }).unwrap();
    fixture.run(IoOp::Replace { path: path("t-0/leader-epoch"), content: Bytes::from_static(b"0\n0\n") }).unwrap();
    assert_eq!(
        fixture.run(IoOp::Open { file: FileId(1), path: path("t-0/0.log"), create: true }).unwrap(),
        IoDone::Len(0)
    );
    fixture.run(write(1, 0, "data")).unwrap();
    fixture.run(IoOp::SyncDir { path: path("t-0") }).unwrap();
    let modified = WallMs(1_234_567_890_123);
    for name in ["0.log", "leader-epoch"] {
        let file = File::options().write(true).open(fixture.path().join("t-0").join(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_millis(modified.0 as u64)).unwrap();
    }
    let entry = |name: &str, is_dir, len| DirEntry { name: name.into(), is_dir, len, modified };
    assert_eq!(
        fixture.run(IoOp::List { path: path("t-0") }).unwrap(),
        IoDone::Entries(vec![entry("0.log", false, 4), entry("leader-epoch", false, 4)])
    );
    fixture.run(IoOp::Rename { from: path("t-0"), to: path("t-0.deleted") }).unwrap();
    fixture.run(write(1, 4, "!")).unwrap();
    assert_eq!(std::fs::read_to_string(fixture.path().join("t-0.deleted/0.log")).unwrap(), "data!");
    let held = fixture.disk.content_of(&FileSlice { file: FileId(1), position: 0, len: 5 });
    fixture.run(IoOp::Close { file: FileId(1) }).unwrap();
    fixture.run(IoOp::RemoveDir { path: path("t-0.deleted") }).unwrap();
    fixture.run(IoOp::RemoveDir { path: path("t-0.deleted") }).unwrap();
    fixture.run(IoOp::Remove { path: path("nothing") }).unwrap();
    let mut sent = [0; 5];
    held.read_exact_at(&mut sent, 0).unwrap();
    assert_eq!(&sent, b"data!", "a slice of a removed file can still be sent");
    let IoDone::Volume { total_bytes, usable_bytes } = fixture.run(IoOp::Volume { dir: LogDirId(0) }).unwrap() else {
        panic!()
    };
    assert!(total_bytes >= usable_bytes && usable_bytes > 0);
}

#[test]
fn a_failure_says_what_was_tried_on_which_path() {
    let mut fixture = Fixture::new();
    let root = fixture.path().display().to_string();
    let mut fails = |op| {
        let error = fixture.run(op).unwrap_err();
        (error.kind, error.text.replace(&root, "ROOT"))
    };
    assert_eq!(
        fails(IoOp::Load { path: path("meta.properties"), limit_bytes: 10 }),
        (IoErrorKind::NotFound, "cannot read ROOT/meta.properties: No such file or directory (os error 2)".into())
    );
    assert_eq!(
        fails(IoOp::Open { file: FileId(3), path: path("t-0/0.log"), create: true }),
        (IoErrorKind::NotFound, "cannot open ROOT/t-0/0.log: No such file or directory (os error 2)".into())
    );
    assert_eq!(
        fails(write(3, 0, "x")),
        (IoErrorKind::NotFound, "cannot write to a file that could not be opened".into())
    );
    std::fs::write(fixture.path().join("large"), b"12345678901").unwrap();
    let text = fixture.run(IoOp::Load { path: path("large"), limit_bytes: 10 }).unwrap_err();
    assert_eq!(text.kind, IoErrorKind::TooLarge);
    assert_eq!(
        fixture.run(IoOp::Load { path: path("large"), limit_bytes: 11 }).unwrap(),
        IoDone::Bytes("12345678901".into())
    );
}

/// Linux has a file that is a full disk.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_fails_the_writes_and_the_lane_goes_on() {
    let mut fixture = Fixture::new();
    fixture.disk = Arc::new(Disk::new(Roots::new(vec!["/dev".into()]), 1, 1));
    fixture.run(IoOp::Open { file: FileId(1), path: path("full"), create: false }).unwrap();
    let mut commands = vec![fixture.command(0, write(1, 0, "a")), fixture.command(0, write(1, 1, "b"))];
    commands.push(fixture.command(0, IoOp::Close { file: FileId(1) }));
    fixture.start(commands, false);
    for _ in 0..2 {
        let error = fixture.completed.recv().unwrap().result.unwrap_err();
        assert_eq!(error.kind, IoErrorKind::NoSpace);
        assert_eq!(error.text, "cannot write to /dev/full: No space left on device (os error 28)");
    }
    assert_eq!(fixture.completed.recv().unwrap().result, Ok(IoDone::Unit));
    assert_eq!(fixture.disk.queued_bytes(), 0);
}

#[test]
fn records_wait_for_few_directory_changes_and_these_go_on_while_records_come() {
    const LANES: u32 = 20;
    let mut fixture = Fixture::new();
    let (sender, completed) = mpsc::channel();
    let sink = Arc::new(Sink(Mutex::new(sender)));
    fixture.disk = Arc::new(Disk::new(Roots::new(vec![fixture.path().to_owned()]), 1, 1));
    fixture.sink = sink.clone();
    let mut commands: Vec<_> =
        (0..LANES).map(|lane| fixture.command(lane, IoOp::CreateDir { path: path(&format!("t-{lane}")) })).collect();
    for lane in LANES..2 * LANES {
        commands.push(fixture.command(lane, IoOp::Sync { file: FileId(1) }));
    }
    // The pool has one thread. It waits for this lock before it can deliver its first completions.
    let held = lock(&sink.0);
    fixture.start(commands, false);
    drop(held);
    let order: Vec<bool> = (0..2 * LANES)
        .map(|_| {
            let IoOwner::Log(LogId(lane)) = completed.recv().unwrap().id.owner else { panic!() };
            lane < LANES
        })
        .collect();
    // Directories and syncs take turns.
    for turn in order.chunks(2) {
        assert!(turn.contains(&true) && turn.contains(&false), "{order:?}");
    }
}
