use super::*;
use tidelog_core::ids::{LogDirId, LogId};
use tidelog_core::io::Chunks;

/// A disk of a test, which gives it commands and completes them one after the other.
struct Bench {
    disk: Disk,
    seq: u64,
    now: u64,
}

const FILE: FileId = FileId(1);

fn path(path: &str) -> DiskPath {
    DiskPath { dir: LogDirId(0), path: path.into() }
}

fn write(position: u64, text: &'static str) -> IoOp {
    let mut chunks = Chunks::new();
    chunks.push(Bytes::from_static(text.as_bytes()));
    IoOp::Write { file: FILE, position, chunks }
}

impl Bench {
    fn new(seed: u64, options: DiskOptions) -> Self {
        Self { disk: Disk::new(seed, 0, options), seq: 0, now: 0 }
    }

    fn submit(&mut self, op: IoOp) -> (u64, Ticket) {
        self.seq += 1;
        let id = IoId { owner: IoOwner::Log(LogId(0)), seq: self.seq };
        self.disk.submit(self.now, IoCommand { id, op })
    }

    fn run(&mut self, op: IoOp) -> Result<IoDone, IoError> {
        let (at, ticket) = self.submit(op);
        self.now = self.now.max(at);
        self.disk.complete(self.wall(), ticket).result
    }

    fn wall(&self) -> WallMs {
        WallMs((self.now / 1_000_000) as i64)
    }

    fn open(&mut self) -> u64 {
        match self.run(IoOp::Open { file: FILE, path: path("log"), create: true }) {
            Ok(IoDone::Len(len)) => len,
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, position: u64, len: u32) -> Bytes {
        match self.run(IoOp::Read { file: FILE, position, len }) {
            Ok(IoDone::Bytes(bytes)) => bytes,
            other => panic!("{other:?}"),
        }
    }
}

fn bench() -> Bench {
    let mut bench = Bench::new(1, DiskOptions::default());
    bench.open();
    bench
}

#[test]
fn what_was_written_is_read_back() {
    let mut bench = bench();
    assert_eq!(bench.run(write(0, "hello")), Ok(IoDone::Unit));
    assert_eq!(bench.run(write(5, " world")), Ok(IoDone::Unit));
    assert_eq!(bench.read(3, 100), "lo world");
    assert_eq!(bench.run(IoOp::Close { file: FILE }), Ok(IoDone::Unit));
    assert_eq!(bench.open(), 11);
}

#[test]
fn a_lane_completes_in_order_and_reads_overtake() {
    let mut bench = bench();
    bench.run(write(0, "hello")).unwrap();
    let mut last = 0;
    for position in 5..50 {
        let (at, _) = bench.submit(write(position, "x"));
        assert!(at > last, "later commands of a lane complete later");
        last = at;
    }
    let (read_at, read) = bench.submit(IoOp::Read { file: FILE, position: 0, len: 5 });
    assert!(read_at < last);
    assert_eq!(bench.disk.complete(bench.wall(), read).result, Ok(IoDone::Bytes("hello".into())));
}

#[test]
fn a_synced_file_in_a_synced_directory_survives_a_power_cut() {
    for seed in 0..100 {
        let mut bench = Bench::new(seed, DiskOptions::default());
        bench.open();
        bench.run(write(0, "stable")).unwrap();
        bench.run(IoOp::Sync { file: FILE }).unwrap();
        bench.run(IoOp::SyncDir { path: path("") }).unwrap();
        bench.submit(write(6, "queued"));
        bench.disk.crash(bench.wall(), Loss::Power);
        assert!(bench.open() >= 6);
        assert_eq!(bench.read(0, 6), "stable");
    }
}

#[test]
fn what_was_queued_at_a_crash_may_have_happened_in_part() {
    let mut lengths = BTreeSet::new();
    for seed in 0..200 {
        let mut bench = Bench::new(seed, DiskOptions::default());
        bench.open();
        bench.submit(write(0, "abc"));
        bench.submit(write(3, "def"));
        bench.disk.crash(bench.wall(), Loss::Process);
        lengths.insert(bench.open());
    }
    assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_file_tells_when_it_was_last_changed_also_after_a_crash() {
    for loss in [Loss::Process, Loss::Power] {
        let mut bench = bench();
        bench.run(IoOp::SyncDir { path: path("") }).unwrap();
        let modified = |bench: &mut Bench| match bench.run(IoOp::List { path: path("") }) {
            Ok(IoDone::Entries(entries)) => entries[0].modified,
            other => panic!("{other:?}"),
        };
        let changes = [write(0, "content"), IoOp::SetLen { file: FILE, len: 3 }];
        for (change, second) in changes.into_iter().zip(1..) {
            bench.now = second * 1_000_000_000;
            bench.run(change).unwrap();
            let wall = bench.wall();
            for op in [IoOp::Sync { file: FILE }, IoOp::Read { file: FILE, position: 0, len: 3 }] {
                bench.now += 500_000_000;
                bench.run(op).unwrap();
            }
            assert_eq!(modified(&mut bench), wall);
        }
        bench.now += 1_000_000_000;
        let before = modified(&mut bench);
        bench.disk.crash(bench.wall(), loss);
        assert_eq!(modified(&mut bench), before);
    }
}

#[test]
fn an_interrupted_replace_leaves_the_old_or_the_new_and_maybe_a_tmp() {
    let (mut old, mut new, mut tmp) = (0, 0, 0);
    for seed in 0..200 {
        let mut bench = Bench::new(seed, DiskOptions::default());
        bench.run(IoOp::Replace { path: path("checkpoint"), content: "old".into() }).unwrap();
        bench.submit(IoOp::Replace { path: path("checkpoint"), content: "new".into() });
        bench.disk.crash(bench.wall(), Loss::Power);
        match bench.run(IoOp::Load { path: path("checkpoint"), limit_bytes: 10 }) {
            Ok(IoDone::Bytes(bytes)) if bytes == "old" => old += 1,
            Ok(IoDone::Bytes(bytes)) if bytes == "new" => new += 1,
            other => panic!("{other:?}"),
        }
        let Ok(IoDone::Entries(entries)) = bench.run(IoOp::List { path: path("") }) else { panic!() };
        tmp += usize::from(entries.iter().any(|entry| entry.name == "checkpoint.tmp"));
    }
    assert!(old > 20 && new > 20 && tmp > 20, "old {old}, new {new}, tmp {tmp}");
}

#[test]
fn a_slice_stays_readable_after_the_file_is_closed_and_removed() {
    let mut bench = bench();
    bench.run(write(0, "hello")).unwrap();
    let pinned = bench.disk.pin(FileSlice { file: FILE, position: 1, len: 3 });
    bench.run(IoOp::Remove { path: path("log") }).unwrap();
    bench.run(IoOp::Close { file: FILE }).unwrap();
    assert_eq!(bench.disk.read_pinned(pinned).unwrap(), "ell");
}

#[test]
fn a_file_stays_open_under_its_new_name() {
    let mut bench = bench();
    bench.run(IoOp::Rename { from: path("log"), to: path("log.deleted") }).unwrap();
    bench.run(write(0, "hello")).unwrap();
    let load = IoOp::Load { path: path("log.deleted"), limit_bytes: 10 };
    assert_eq!(bench.run(load), Ok(IoDone::Bytes("hello".into())));
    let gone = bench.run(IoOp::Load { path: path("log"), limit_bytes: 10 }).unwrap_err();
    assert_eq!(gone.kind, IoErrorKind::NotFound);
}

#[test]
fn errors_are_dealt_as_the_options_say_and_end_with_healing() {
    let options = DiskOptions { write_error: Ratio::new(1, 2), ..DiskOptions::default() };
    let mut bench = Bench::new(5, options);
    bench.open();
    let failed = (0..100).filter(|_| bench.run(write(0, "x")).is_err()).count();
    assert!((30..70).contains(&failed), "{failed}");
    assert_eq!(bench.disk.errors_dealt, failed as u32);
    bench.disk.heal();
    assert!((0..100).all(|_| bench.run(write(0, "x")).is_ok()));
}

#[test]
fn a_full_volume_refuses_what_grows_and_serves_what_does_not() {
    let mut bench = bench();
    bench.run(write(0, "hello")).unwrap();
    bench.disk.full = true;
    assert_eq!(bench.run(write(5, "x")).unwrap_err().kind, IoErrorKind::NoSpace);
    assert_eq!(bench.read(0, 5), "hello");
    bench.disk.full = false;
    bench.run(write(5, "x")).unwrap();
}

#[test]
#[should_panic(expected = "the core broke the disk's contract: a write to")]
fn a_write_behind_the_end_is_the_cores_fault() {
    let _ = bench().run(write(1, "x"));
}

#[test]
#[should_panic(expected = "while")]
fn a_write_over_a_write_under_way_is_the_cores_fault() {
    let mut bench = bench();
    bench.submit(write(0, "abc"));
    bench.submit(write(2, "def"));
}

#[test]
#[should_panic(expected = "while")]
fn a_read_of_a_write_under_way_is_the_cores_fault() {
    let mut bench = bench();
    bench.run(write(0, "abc")).unwrap();
    bench.submit(write(3, "def"));
    bench.submit(IoOp::Read { file: FILE, position: 0, len: 4 });
}

#[test]
#[should_panic(expected = "is used and is not open")]
fn a_use_after_close_is_the_cores_fault() {
    let mut bench = bench();
    bench.run(IoOp::Close { file: FILE }).unwrap();
    let _ = bench.run(write(0, "x"));
}

#[test]
#[should_panic(expected = "does not count up")]
fn an_id_used_twice_is_the_cores_fault() {
    let mut bench = bench();
    bench.seq -= 1;
    let _ = bench.run(write(0, "x"));
}
