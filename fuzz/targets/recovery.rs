//! A partition's directory with arbitrary files. The log opens or goes offline. If it opens, it can be read and
//! appended to, and is the same log after a restart.
//!
//! The input: one byte of flags, then the contents of the files, each after its length in two bytes.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidelog_core::batch::{BatchBuilder, BatchLimits, Scan, check_produced};
use tidelog_core::ids::{LeaderEpoch, LogDirId, LogId, Offset, Uuid};
use tidelog_core::io::Outbox;
use tidelog_core::plant::Plants;
use tidelog_core::storage::{
    Append, LoadHints, Log, LogEvent, LogPlace, LogSettings, LogState, Lookup, LookupTarget, ReadOutcome,
};
use tidelog_core::time::{Mono, Now, WallMs};
use tidelog_fuzz::{Disk, part};

const NOW: Now = Now { mono: Mono(1_000_000_000), wall: WallMs(1_700_000_000_000) };

/// The files of two segments. The second base offset follows the records that the corpus has in the first segment.
const FILES: [&str; 7] = [
    "00000000000000000000.log",
    "00000000000000000000.index",
    "00000000000000000000.timeindex",
    "00000000000000000020.snapshot",
    "leader-epoch-checkpoint",
    "00000000000000000020.log",
    "00000000000000000020.index",
];

fuzz_target!(|input: &[u8]| {
    let Some((&flags, mut rest)) = input.split_first() else { return };
    let mut disk = Disk::default();
    for name in FILES {
        let content = part(&mut rest);
        // An empty part stands for a missing file.
        if !content.is_empty() {
            disk.files.insert(format!("t-0/{name}"), content.to_vec());
        }
    }
    let hints = LoadHints {
        clean: flags & 1 == 1,
        recovery_point: (flags & 2 == 2).then(|| Offset(i64::from(flags >> 4) * 4)),
        log_start: (flags & 4 == 4).then_some(Offset(10)),
        has_topic_id: flags & 8 == 8,
    };
    let Some(mut world) = World::load(disk, hints) else { return };
    let end = world.log.log_end_offset();
    assert!(world.log.log_start_offset() <= end);
    world.read_all();
    for timestamp in [0, NOW.wall.0, i64::MAX] {
        world.look_up(LookupTarget::FirstAt(timestamp));
    }
    world.look_up(LookupTarget::MaxTimestamp);
    if end.0 > i64::MAX - 10 || !world.log.is_open() {
        return;
    }

    let epoch = LeaderEpoch(world.log.latest_epoch().0.max(0));
    let batch = BatchBuilder::new().push(NOW.wall.0, None, Some(b"appended"), &[]).build();
    let checked = check_produced(batch, &BatchLimits::default()).expect("our own batch");
    let mut out = Outbox::default();
    let appended = world.log.append(NOW, Append::Produced(&checked), epoch, &mut out).expect("an open log");
    world.run(out);
    assert_eq!(appended.base_offset, end, "what is appended follows what was there");
    assert!(world.log.is_open(), "{:?}", world.log.state());
    assert_eq!(world.log.stable_offset(), end + 1);

    // The log is the same after a clean stop and after a crash.
    let mut out = Outbox::default();
    world.log.close(&mut out);
    world.run(out);
    assert_eq!(world.log.state(), &LogState::Closed);
    let start = world.log.log_start_offset();
    for clean in [true, false] {
        let hints = LoadHints { clean, recovery_point: Some(end + 1), log_start: Some(start), has_topic_id: true };
        world = World::load(world.disk, hints).expect("what was closed opens");
        assert_eq!((world.log.log_start_offset(), world.log.log_end_offset()), (start, end + 1));
    }
});

struct World {
    disk: Disk,
    log: Log,
    events: Vec<LogEvent>,
}

impl World {
    /// Loads a log; `None` if it goes offline, which is allowed.
    fn load(disk: Disk, hints: LoadHints) -> Option<Self> {
        let place = LogPlace { dir: LogDirId(0), name: "t-0".to_owned(), topic_id: Uuid::from_bytes([7; 16]) };
        let settings = LogSettings { segment_bytes: 4096, index_interval_bytes: 64, ..Default::default() };
        let mut out = Outbox::default();
        let log = Log::load(LogId(1), place, settings, Plants::default(), hints, &mut out);
        let mut world = Self { disk, log, events: Vec::new() };
        world.run(out);
        match world.log.state() {
            LogState::Open => Some(world),
            LogState::Offline(_) => None,
            state => panic!("the disk has carried out every command, and the log is still {state:?}"),
        }
    }

    /// Carries out commands until nothing is left to do.
    fn run(&mut self, mut out: Outbox) {
        while !out.outputs.is_empty() {
            for completion in self.disk.carry_out(&mut out) {
                self.log.handle_io(NOW, completion, &mut out, &mut self.events);
            }
        }
        self.log.verify();
    }

    /// Reads from the start to the end. Each read must return records behind those of the last.
    fn read_all(&mut self) {
        let (mut offset, end) = (self.log.log_start_offset(), self.log.log_end_offset());
        while offset < end && self.log.is_open() {
            let mut out = Outbox::default();
            let mut outcome = self.log.read(offset, end, 1 << 20, true, 1, &mut out);
            self.run(out);
            if outcome == ReadOutcome::Pending {
                let done = self.events.drain(..).find_map(|event| match event {
                    LogEvent::ReadDone { outcome, .. } => Some(outcome),
                    _ => None,
                });
                outcome = done.expect("a pending read is answered");
            }
            let ReadOutcome::Found(found) = outcome else { return };
            let content = self.disk.content(found.slice.file).expect("the file is there");
            let at = usize::try_from(found.slice.position).expect("a position");
            let slice = Bytes::copy_from_slice(&content[at..at + found.slice.len as usize]);
            let last = Scan::new(&slice, 0, false).last().expect("at least one batch");
            assert!(last.header.next_offset() > offset, "no step forward at {offset}");
            offset = last.header.next_offset();
        }
    }

    fn look_up(&mut self, target: LookupTarget) {
        let mut out = Outbox::default();
        let lookup = self.log.offset_for_timestamp(target, 2, &mut out);
        self.run(out);
        if lookup == Lookup::Pending {
            let done = self.events.drain(..).any(|event| matches!(event, LogEvent::LookupDone { .. }));
            assert!(done, "a pending look-up is answered");
        }
    }
}
