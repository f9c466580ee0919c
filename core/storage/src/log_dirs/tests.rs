//! Tests of the log directories: they boot, run, stop and crash on a small disk in memory.

use super::*;
use crate::io::IoCommand;
use proptest::prelude::*;
use std::collections::VecDeque;
use tidelog_wire::ids::Offset;
use tidelog_wire::time::WallMs;

type Tree = BTreeMap<String, Option<Bytes>>;

/// The disk of a test, the queue of commands, and what came out of the log directories.
#[derive(Default)]
struct World {
    /// The files of each log directory. A `None` is a directory.
    dirs: Vec<Tree>,
    /// What was removed and may come back in a crash: no SyncDir came since.
    removed: Vec<(usize, String, Option<Bytes>)>,
    /// Log directories in which every command fails.
    broken: Vec<LogDirId>,
    /// The name of a file that cannot be loaded, in any log directory.
    unreadable: Option<(&'static str, IoErrorKind)>,
    /// Files that were written: the log directory and the name.
    written: Vec<(usize, String)>,
    queue: VecDeque<IoCommand>,
    events: Vec<DirEvent>,
    log: Vec<String>,
    fatal: Option<String>,
}

impl World {
    fn new(count: usize) -> Self {
        Self { dirs: vec![Tree::new(); count], ..Self::default() }
    }

    fn put(&mut self, dir: usize, name: &str, content: impl AsRef<[u8]>) {
        self.dirs[dir].insert(name.to_owned(), Some(Bytes::copy_from_slice(content.as_ref())));
    }

    fn put_dir(&mut self, dir: usize, name: &str) {
        self.dirs[dir].insert(name.to_owned(), None);
    }

    fn text(&self, dir: usize, name: &str) -> Option<&str> {
        let content = self.dirs[dir].get(name)?.as_ref()?;
        Some(str::from_utf8(content).unwrap())
    }

    fn take(&mut self, out: &mut Outbox) {
        for output in out.outputs.drain(..) {
            match output {
                Output::Io(command) => self.queue.push_back(command),
                Output::Fatal(text) => assert_eq!(self.fatal.replace(text), None, "Fatal comes once"),
                Output::Event(event) => self.log.push(format!("{:?}: {}", event.level, event.text)),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Carries out the next command of the queue. False if there is none.
    fn step(&mut self, log_dirs: &mut LogDirs) -> bool {
        let Some(command) = self.queue.pop_front() else { return false };
        let IoOwner::Dir(dir) = command.id.owner else { panic!("{command:?}") };
        let result = if self.broken.contains(&dir) {
            Err(IoError { kind: IoErrorKind::Other, text: "input/output error".to_owned() })
        } else {
            self.carry_out(usize::from(dir.0), command.op)
        };
        let mut out = Outbox::default();
        self.events.extend(log_dirs.handle_io(IoCompletion { id: command.id, result }, &mut out));
        log_dirs.verify();
        self.take(&mut out);
        true
    }

    fn carry_out(&mut self, dir: usize, op: IoOp) -> Result<IoDone, IoError> {
        let tree = &mut self.dirs[dir];
        match op {
            IoOp::SyncDir { path } => {
                assert_eq!(path.path, "");
                self.removed.retain(|(removed, ..)| *removed != dir);
            }
            IoOp::List { path } => {
                assert_eq!(path.path, "");
                let entry = |(name, content): (&String, &Option<Bytes>)| DirEntry {
                    name: name.clone(),
                    is_dir: content.is_none(),
                    len: content.as_ref().map_or(0, |bytes| bytes.len() as u64),
                    modified: WallMs(0),
                };
                let entries = tree.iter().filter(|(name, _)| !name.contains('/'));
                return Ok(IoDone::Entries(entries.map(entry).collect()));
            }
            IoOp::Load { path, limit_bytes } => {
                let refuse = |kind, text: &str| Err(IoError { kind, text: text.to_owned() });
                if let Some((_, kind)) = self.unreadable.filter(|(name, _)| *name == path.path) {
                    return refuse(kind, "it cannot be read");
                }
                let content = match tree.get(&path.path).cloned() {
                    Some(Some(content)) => content,
                    Some(None) => return refuse(IoErrorKind::Other, "is a directory"),
                    None => return refuse(IoErrorKind::NotFound, "no such file"),
                };
                assert!(content.len() as u64 <= limit_bytes);
                return Ok(IoDone::Bytes(content));
            }
            IoOp::Replace { path, content } => {
                self.written.push((dir, path.path.clone()));
                tree.insert(path.path, Some(content));
            }
            IoOp::Rename { from, to } => {
                let content = tree.remove(&from.path).expect("what is renamed is there");
                tree.insert(to.path, content);
            }
            IoOp::Remove { path } | IoOp::RemoveDir { path } => {
                if let Some(content) = tree.remove(&path.path) {
                    self.removed.push((dir, path.path, content));
                }
            }
            IoOp::Volume { .. } => return Ok(IoDone::Volume { total_bytes: 100, usable_bytes: 40 }),
            other => panic!("{other:?}"),
        }
        Ok(IoDone::Unit)
    }

    /// The machine crashes: commands that were not carried out are lost. Removals that were not synced are undone, if
    /// `undo_removals`.
    fn crash(&mut self, undo_removals: bool) {
        self.queue.clear();
        for (dir, name, content) in std::mem::take(&mut self.removed) {
            if undo_removals {
                self.dirs[dir].entry(name).or_insert(content);
            }
        }
    }

    fn boot_with(&mut self, config: LogDirsConfig, draw: u8) -> LogDirs {
        let mut drawn = draw;
        let mut log_dirs = LogDirs::new(config, || {
            drawn = drawn.wrapping_add(1);
            [drawn; 16]
        });
        let mut out = Outbox::default();
        log_dirs.boot(&mut out);
        self.take(&mut out);
        log_dirs
    }

    fn settle(&mut self, log_dirs: &mut LogDirs) {
        while self.step(log_dirs) {}
    }

    fn boot(&mut self, draw: u8) -> (LogDirs, Option<Booted>) {
        let mut log_dirs = self.boot_with(config(self.dirs.len()), draw);
        self.settle(&mut log_dirs);
        let booted = self.take_booted();
        (log_dirs, booted)
    }

    fn take_booted(&mut self) -> Option<Booted> {
        let mut ready = None;
        self.events.retain(|event| match event {
            DirEvent::Ready(booted) => {
                assert_eq!(ready.replace(booted.clone()), None, "Ready comes once");
                false
            }
            _ => true,
        });
        ready
    }

    /// Boots, which must fail, and returns the text of the [`Output::Fatal`].
    fn refusal(&mut self) -> String {
        let (_, booted) = self.boot(0);
        assert_eq!(booted, None);
        self.fatal.take().expect("a reason")
    }
}

fn config(count: usize) -> LogDirsConfig {
    LogDirsConfig {
        paths: ["/a", "/b", "/c"][..count].iter().map(|path| path.to_string()).collect(),
        node_id: NodeId(1),
        cluster_id: None,
        metadata_dir: LogDirId(0),
        begins_cluster: true,
    }
}

fn offsets(entries: &[(&'static str, i64)]) -> Offsets {
    entries.iter().map(|(topic, offset)| (TopicPartition::new(*topic, 0), Offset(*offset))).collect()
}

const META: &str = "version=1\ncluster.id=abc\nnode.id=1\ndirectory.id=vTr0bEQBQ3qHdxPCVLU5Wg\n";
const META_B: &str = "version=1\ncluster.id=abc\nnode.id=1\ndirectory.id=wTr0bEQBQ3qHdxPCVLU5Wg\n";
const DELETED: &str = "t-1.00000000000000000000000000000001-delete";

#[test]
fn an_empty_directory_gets_the_ids_of_a_new_cluster_and_keeps_them() {
    let mut world = World::new(2);
    world.put(0, ".lock", "");
    world.put_dir(1, "lost+found");
    let (_, booted) = world.boot(0);
    let mut first = booted.unwrap();
    assert_eq!(first.dirs.len(), 2);
    assert!(first.dirs.iter().all(|dir| dir.is_new));
    assert!(!first.dirs[0].clean && first.previous_broker_epoch.is_none());
    assert_ne!(first.dirs[0].directory_id, first.dirs[1].directory_id);
    let meta = MetaProperties::decode("x", world.text(0, "meta.properties").unwrap().as_bytes()).unwrap();
    assert_eq!(meta.cluster_id, Some(first.cluster_id.clone()));
    assert_eq!((meta.node_id, meta.directory_id), (Some(NodeId(1)), Some(first.dirs[0].directory_id)));
    let (log_dirs, again) = world.boot(100);
    first.dirs.iter_mut().for_each(|dir| dir.is_new = false);
    assert_eq!(again.unwrap(), first, "the random ids of the second start are not used");
    assert_eq!(log_dirs.by_directory_id(first.dirs[1].directory_id), Some(LogDirId(1)));
}

#[test]
fn a_new_cluster_takes_the_id_that_is_configured() {
    let mut world = World::new(1);
    let mut log_dirs = world.boot_with(LogDirsConfig { cluster_id: Some("mine".into()), ..config(1) }, 0);
    world.settle(&mut log_dirs);
    assert_eq!(world.take_booted().unwrap().cluster_id, "mine");
}

#[test]
fn booting_finds_partitions_and_checkpoints_and_finishes_deletions() {
    let mut world = World::new(1);
    world.put(0, "meta.properties", META);
    world.put(0, "meta.properties.tmp", "vers");
    world.put(0, "recovery-point-offset-checkpoint", "0\n2\ngone 0 5\nt 0 7\n");
    world.put(0, "log-start-offset-checkpoint", "0\n1\nt 0 3\n");
    world.put(0, "replication-offset-checkpoint", "0\n1\nt 0 9\n");
    for name in ["t-0", DELETED, "t-2.00000000000000000000000000000002-stray", "photos"] {
        world.put_dir(0, name);
    }
    world.put(0, "t-9", "a file is no partition");
    let (_, booted) = world.boot(0);
    let state = &booted.unwrap().dirs[0];
    assert_eq!(state.partitions, [(TopicPartition::new("t", 0), None)]);
    assert_eq!(state.aside.len(), 1);
    let recovery_points = state.recovery_points.get(&TopicPartition::new("t", 0));
    assert_eq!((recovery_points, state.log_starts.clone()), (Some(&Offset(7)), offsets(&[("t", 3)])));
    let written = world.text(0, "recovery-point-offset-checkpoint");
    assert_eq!(written, Some("0\n1\nt 0 7\n"), "the entry of a partition that is gone is dropped");
    assert_eq!(state.high_watermarks, offsets(&[("t", 9)]));
    assert!(!world.dirs[0].contains_key(DELETED) && !world.dirs[0].contains_key("meta.properties.tmp"));
    insta::assert_snapshot!(world.log.join("\n"), @"
    Warn: /a/photos does not belong to a broker; it is left alone
    Info: removing /a/t-1.00000000000000000000000000000001-delete, whose partition was deleted
    Warn: /a/t-2.00000000000000000000000000000002-stray is not a partition in use; it is left alone
    ");
}

#[test]
fn the_clean_shutdown_marker_counts_for_one_start_and_for_its_own_directory() {
    let mut world = World::new(2);
    world.put(0, "meta.properties", META);
    world.put(1, "meta.properties", META_B);
    world.put(0, ".kafka_cleanshutdown", r#"{"version":0,"brokerEpoch":5}"#);
    let booted = world.boot(0).1.unwrap();
    assert_eq!((booted.dirs[0].clean, booted.dirs[1].clean), (true, false));
    assert_eq!(booted.previous_broker_epoch, None, "one directory names no broker epoch");
    assert!(world.removed.is_empty(), "Ready comes only after the removal of the marker is stable");
    assert!(!world.boot(0).1.unwrap().dirs[0].clean);
}

#[test]
fn a_clean_stop_writes_the_checkpoints_and_then_the_marker() {
    let mut world = World::new(2);
    let (mut log_dirs, _) = world.boot(0);
    let mut out = Outbox::default();
    for kind in CheckpointKind::ALL {
        log_dirs.write_checkpoint(LogDirId(0), kind, &offsets(&[("t", 4)]), &mut out);
    }
    assert_eq!(log_dirs.stop(Some(12), &mut out), []);
    world.take(&mut out);
    while world.step(&mut log_dirs) {
        let marked = world.text(0, ".kafka_cleanshutdown").is_some();
        assert!(!marked || CheckpointKind::ALL.iter().all(|kind| world.text(0, kind.file()).is_some()));
    }
    assert_eq!(world.events.last(), Some(&DirEvent::Stopped));
    let booted = world.boot(0).1.unwrap();
    assert!(booted.dirs.iter().all(|dir| dir.clean));
    assert_eq!(booted.previous_broker_epoch, Some(12));
    assert_eq!(booted.dirs[0].recovery_points, offsets(&[("t", 4)]));
}

#[test]
fn a_stop_with_open_logs_leaves_no_marker() {
    let mut world = World::new(1);
    let (mut log_dirs, _) = world.boot(0);
    let mut out = Outbox::default();
    assert_eq!(log_dirs.stop(None, &mut out), [DirEvent::Stopped]);
    assert!(out.outputs.is_empty());
}

#[test]
fn of_the_contents_that_wait_for_a_write_only_the_newest_is_written() {
    let mut world = World::new(1);
    let (mut log_dirs, _) = world.boot(0);
    let (dir, kind) = (LogDirId(0), CheckpointKind::HighWatermark);
    let mut out = Outbox::default();
    for offset in [1, 2, 3, 3] {
        log_dirs.write_checkpoint(dir, kind, &offsets(&[("t", offset)]), &mut out);
    }
    assert_eq!(out.outputs.len(), 1, "one write in flight");
    world.take(&mut out);
    world.settle(&mut log_dirs);
    assert_eq!(world.events.len(), 2, "the first, and the newest");
    assert_eq!(world.text(0, kind.file()), Some("0\n1\nt 0 3\n"));
    log_dirs.write_checkpoint(dir, kind, &offsets(&[("t", 3)]), &mut out);
    assert!(out.outputs.is_empty(), "the file holds it already");
}

#[test]
fn a_corrupt_checkpoint_is_reported_and_treated_as_missing() {
    let mut world = World::new(1);
    world.put(0, "meta.properties", META);
    world.put(0, "recovery-point-offset-checkpoint", "0\n2\nt 0 7\n");
    let booted = world.boot(0).1.unwrap();
    assert!(booted.dirs[0].recovery_points.is_empty());
    let file = "/a/recovery-point-offset-checkpoint";
    let expected = format!("Warn: {file}: the number of entries is 2, but there are 1; it is rebuilt");
    assert_eq!(world.log, [expected]);
}

#[test]
fn a_failing_directory_goes_offline_and_the_others_stay_online() {
    let mut world = World::new(3);
    world.boot(0);
    world.broken.push(LogDirId(1));
    let (mut log_dirs, booted) = world.boot(0);
    assert_eq!(booted.unwrap().dirs.iter().map(|dir| dir.dir.0).collect::<Vec<_>>(), [0, 2]);
    let reason = "input/output error".to_owned();
    assert_eq!(world.events, [DirEvent::Offline { dir: LogDirId(1), reason }]);
    assert_eq!(log_dirs.choose(|dir| Some([3, 0, 2][usize::from(dir.0)])), Some(LogDirId(2)));
    let mut out = Outbox::default();
    log_dirs.write_checkpoint(LogDirId(1), CheckpointKind::LogStart, &offsets(&[]), &mut out);
    assert!(!log_dirs.query_volume(LogDirId(1), &mut out) && out.outputs.is_empty());
    log_dirs.mark_offline(LogDirId(2), "a log says so".to_owned(), &mut out);
    world.take(&mut out);
    assert_eq!(world.fatal, None);
    log_dirs.mark_offline(LogDirId(0), "too".to_owned(), &mut out);
    world.take(&mut out);
    assert_eq!(world.fatal.as_deref(), Some("all of log.dirs are offline; the last was /a: too"));
}

#[test]
fn without_the_directory_of_the_metadata_log_the_broker_cannot_go_on() {
    let mut world = World::new(2);
    world.boot(0);
    world.broken.push(LogDirId(0));
    assert_eq!(world.refusal(), "/a, the directory of the metadata log, is offline: input/output error");
}

#[test]
fn a_directory_that_fails_during_the_stop_is_not_waited_for() {
    let mut world = World::new(2);
    let (mut log_dirs, _) = world.boot(0);
    let mut out = Outbox::default();
    log_dirs.write_checkpoint(LogDirId(1), CheckpointKind::RecoveryPoint, &offsets(&[("t", 1)]), &mut out);
    log_dirs.stop(Some(1), &mut out);
    world.take(&mut out);
    world.broken.push(LogDirId(1));
    world.settle(&mut log_dirs);
    assert_eq!(world.events.last(), Some(&DirEvent::Stopped));
    assert!(world.text(0, ".kafka_cleanshutdown").is_some() && world.text(1, ".kafka_cleanshutdown").is_none());
}

#[test]
fn two_queries_for_the_size_of_a_volume_are_answered_by_one_event() {
    let mut world = World::new(1);
    let (mut log_dirs, _) = world.boot(0);
    let mut out = Outbox::default();
    assert!(log_dirs.query_volume(LogDirId(0), &mut out) && log_dirs.query_volume(LogDirId(0), &mut out));
    world.take(&mut out);
    world.settle(&mut log_dirs);
    let sizes = Some(VolumeSizes { total_bytes: 100, usable_bytes: 40 });
    assert_eq!(world.events, [DirEvent::Volume { dir: LogDirId(0), sizes }]);
}

#[test]
fn a_directory_without_an_id_is_given_one() {
    let mut world = World::new(2);
    world.put(0, "meta.properties", META);
    world.put(1, "meta.properties", "cluster.id=abc\nbroker.id=1\n");
    world.put_dir(0, "__cluster_metadata-0");
    let booted = world.boot(0).1.unwrap();
    let expected = format!("#\nversion=0\ncluster.id=abc\nbroker.id=1\ndirectory.id={}\n", booted.dirs[1].directory_id);
    assert_eq!(world.text(1, "meta.properties"), Some(expected.as_str()));
    assert_eq!(world.text(0, "meta.properties"), Some(META), "a complete file is not changed");
}

#[test]
fn a_contradiction_to_the_configuration_is_refused_with_advice_and_nothing_is_changed() {
    let two = |first: &'static str, second: Option<&'static str>| {
        let mut world = World::new(2);
        world.put(0, "meta.properties", first);
        world.put(0, ".kafka_cleanshutdown", "");
        world.put_dir(0, "t-0");
        world.put_dir(0, DELETED);
        if let Some(second) = second {
            world.put(1, "meta.properties", second);
        }
        world
    };
    let no_node = "version=0\ncluster.id=abc\n";
    let mut worlds = vec![
        two("version=1\ncluster.id=abc\nnode.id=2\n", None),
        two(META, Some("version=1\ncluster.id=xyz\nnode.id=1\n")),
        two(META, Some(META)),
        two(META, None),
        two(no_node, None),
        two("version=0\nbroker.id=1\n", None),
    ];
    let mut foreign = World::new(1);
    foreign.put(0, "thesis.txt", "");
    let mut twice = two(META, Some(META_B));
    twice.put_dir(1, "t-0");
    let mut misplaced = two(META, Some(META_B));
    misplaced.put_dir(1, "__cluster_metadata-0");
    let mut half_formatted = World::new(1);
    half_formatted.put(0, "bootstrap.checkpoint", "");
    half_formatted.put_dir(0, "__cluster_metadata-0");
    worlds.extend([foreign, twice, misplaced, half_formatted]);
    let mut refusals = Vec::new();
    for mut world in worlds {
        let before = world.dirs.clone();
        refusals.push(world.refusal());
        assert_eq!(world.dirs, before);
    }
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    /a/meta.properties belongs to node.id 2, but the configuration says 1. Set node.id=2, or log.dirs to the directories of node 1; for a new node, to empty ones
    /b/meta.properties belongs to cluster.id xyz, but /a/meta.properties says abc. Set log.dirs to the directories of one cluster
    /a and /b have the same directory.id vTr0bEQBQ3qHdxPCVLU5Wg. Where one is a copy of the other, take it out of log.dirs; where it is a new disk, remove the line from its meta.properties
    /b is empty, while /a holds partitions: its volume may not be mounted. Mount it, or take it out of log.dirs; for a new disk, copy /a/meta.properties there without its directory.id line
    /a/meta.properties names no node. Add broker.id=1, if it is this broker's
    /a/meta.properties names no cluster.id. Add it, as another directory of this broker has it
    /a has no meta.properties, but is not empty: it holds "thesis.txt". Set log.dirs to an empty directory, or restore meta.properties
    the partition t-0 lies in /a and in /b. Move the one that is out of date out of log.dirs
    /b holds the metadata log, but metadata.log.dir is /a. Set metadata.log.dir=/b, or move the log
    /a has no meta.properties: its formatting was interrupted. Run `tidelog format` again
    "#);
}

#[test]
fn a_configured_cluster_must_be_the_one_on_disk() {
    let mut world = World::new(1);
    world.put(0, "meta.properties", META);
    let mut log_dirs = world.boot_with(LogDirsConfig { cluster_id: Some("mine".into()), ..config(1) }, 0);
    world.settle(&mut log_dirs);
    let expected = "/a/meta.properties belongs to cluster.id abc, but the configuration says mine. \
                    Set log.dirs to the directories of one cluster";
    assert_eq!(world.fatal.as_deref(), Some(expected));
}

#[test]
fn a_node_that_names_other_controllers_begins_no_cluster_of_its_own() {
    let names_others = LogDirsConfig { begins_cluster: false, ..config(2) };
    let mut world = World::new(2);
    let mut log_dirs = world.boot_with(names_others.clone(), 0);
    world.settle(&mut log_dirs);
    insta::assert_snapshot!(world.fatal.take().unwrap(), @"/a is not formatted, and the configuration names controllers whose cluster is not known. Run `tidelog format` with the id of that cluster; for a new one, `tidelog random-uuid` prints an id");
    assert!(world.dirs[0].is_empty());
    world.put(0, "meta.properties", META);
    let mut log_dirs = world.boot_with(names_others, 0);
    world.settle(&mut log_dirs);
    assert_eq!((world.fatal.take(), world.text(1, "meta.properties").is_some()), (None, true));
}

#[test]
fn nothing_is_formatted_while_a_directory_cannot_be_read() {
    let mut world = World::new(2);
    world.broken.push(LogDirId(1));
    assert_eq!(world.refusal(), "/a is not formatted, and /b cannot be read to learn its cluster: input/output error");
    assert!(world.dirs[0].is_empty());
}

#[test]
fn a_broken_meta_properties_takes_its_directory_offline() {
    let mut world = World::new(2);
    world.put(0, "meta.properties", META);
    world.put(1, "meta.properties", "version=7\n");
    assert_eq!(world.boot(0).1.unwrap().dirs.len(), 1);
    let reason = "/b/meta.properties: version is \"7\", expected 0 or 1".to_owned();
    assert_eq!(world.events, [DirEvent::Offline { dir: LogDirId(1), reason }]);
}

/// One run of the broker, from its start to its crash.
#[derive(Clone, Debug)]
struct BrokerRun {
    /// How many commands are carried out before the crash.
    steps: usize,
    /// The checkpoints that are handed in: the log directory, the kind, and the offset.
    checkpoints: Vec<(u16, usize, i64)>,
    /// Whether a clean stop begins before the crash.
    stops: bool,
    undo_removals: bool,
}

fn broker_run() -> impl Strategy<Value = BrokerRun> {
    let checkpoint = (0u16..2, 0usize..3, 0i64..1000);
    let parts = (0usize..60, proptest::collection::vec(checkpoint, 0..6), any::<bool>(), any::<bool>());
    parts.prop_map(|(steps, checkpoints, stops, undo_removals)| BrokerRun { steps, checkpoints, stops, undo_removals })
}

proptest! {
    /// After a crash at any command the next run boots. It finds the same cluster id and directory ids. A directory is
    /// clean only if the last stop was. A checkpoint holds the content confirmed last, or one handed in after it.
    #[test]
    fn a_crash_at_any_command_leaves_files_that_the_next_run_can_trust(runs in proptest::collection::vec(broker_run(), 1..8)) {
        let mut world = World::new(2);
        let topics = ["t", "u"];
        let mut identity: Option<(ByteString, Vec<Uuid>)> = None;
        let mut stopped_cleanly = [false; 2];
        let mut allowed: BTreeMap<(u16, usize), Vec<Offsets>> = BTreeMap::new();
        for (place, run) in runs.into_iter().enumerate() {
            let mut log_dirs = world.boot_with(config(2), place as u8 * 10);
            let mut steps = run.steps;
            let mut booted = None;
            while steps > 0 && booted.is_none() && world.step(&mut log_dirs) {
                steps -= 1;
                booted = world.take_booted();
            }
            prop_assert_eq!(&world.fatal, &None);
            let Some(booted) = booted else {
                world.crash(run.undo_removals);
                continue;
            };
            let ids = booted.dirs.iter().map(|dir| dir.directory_id).collect();
            let known = identity.get_or_insert((booted.cluster_id.clone(), ids)).clone();
            prop_assert_eq!(known.0, booted.cluster_id);
            for (place, state) in booted.dirs.iter().enumerate() {
                prop_assert_eq!(known.1[place], state.directory_id);
                prop_assert!(!state.clean || stopped_cleanly[place], "a marker without a clean stop");
                for (kind, read) in [&state.recovery_points, &state.log_starts, &state.high_watermarks].iter().enumerate() {
                    let versions = allowed.entry((state.dir.0, kind)).or_insert_with(|| vec![Offsets::new()]);
                    prop_assert!(versions.contains(read), "{read:?} is none of {versions:?}");
                    *versions = vec![(*read).clone()];
                }
            }
            // The logs are open now: only a stop of this run makes the directory clean.
            for (dir, topic) in topics.into_iter().enumerate() {
                world.put_dir(dir, &format!("{topic}-0"));
            }
            stopped_cleanly = [false; 2];
            let mut out = Outbox::default();
            for (dir, kind, offset) in run.checkpoints {
                let value = offsets(&[(topics[usize::from(dir)], offset)]);
                log_dirs.write_checkpoint(LogDirId(dir), CheckpointKind::ALL[kind], &value, &mut out);
                allowed.get_mut(&(dir, kind)).unwrap().push(value);
            }
            if run.stops {
                stopped_cleanly = [true; 2];
                world.events.extend(log_dirs.stop(Some(1), &mut out));
            }
            world.take(&mut out);
            while steps > 0 && world.step(&mut log_dirs) {
                steps -= 1;
            }
            if world.queue.is_empty() {
                for versions in allowed.values_mut() {
                    *versions = versions.split_off(versions.len() - 1);
                }
                prop_assert_eq!(run.stops, world.events.contains(&DirEvent::Stopped));
            }
            world.events.clear();
            world.crash(run.undo_removals);
        }
    }
}

#[test]
fn a_formatting_that_fails_in_one_directory_is_completed_by_the_next_start() {
    for broken in 0..2 {
        let mut world = World::new(2);
        let mut log_dirs = world.boot_with(config(2), 0);
        // Carries out both Lists. The commands of the formatting follow.
        world.step(&mut log_dirs);
        world.step(&mut log_dirs);
        world.broken.push(LogDirId(broken));
        world.settle(&mut log_dirs);
        assert_eq!(world.take_booted(), None);
        let fatal = world.fatal.take().expect("the broker does not go on with one directory of two");
        assert!(fatal.ends_with("input/output error"), "{fatal}");
        world.broken.clear();
        world.events.clear();
        assert_eq!(world.boot(0).1.expect("the next start completes the formatting").dirs.len(), 2);
    }
}

#[test]
fn a_formatting_that_a_crash_interrupts_anywhere_is_completed_by_the_next_start() {
    for steps in 0..12 {
        let mut world = World::new(3);
        let mut log_dirs = world.boot_with(config(3), 0);
        for _ in 0..steps {
            world.step(&mut log_dirs);
        }
        world.crash(true);
        world.events.clear();
        assert!(world.boot(50).1.is_some(), "after {steps} steps: {:?}", world.fatal);
    }
}

#[test]
fn an_empty_directory_of_the_metadata_log_beside_a_formatted_directory_is_refused() {
    let mut world = World::new(2);
    world.put(1, "meta.properties", META_B);
    let expected = "/a is empty, while /b is formatted: the volume of the metadata log may not be mounted. Mount it; \
                    for a new cluster, empty the other directories of log.dirs too";
    assert_eq!(world.refusal(), expected);
}

#[test]
fn partitions_of_one_name_may_lie_in_several_directories_if_their_topic_ids_differ() {
    let mut world = World::new(2);
    world.put(0, "meta.properties", META);
    world.put(1, "meta.properties", META_B);
    let ids = [Uuid::from_bytes([7; 16]), Uuid::from_bytes([9; 16])];
    for (dir, id) in ids.into_iter().enumerate() {
        world.put_dir(dir, "t-0");
        world.put(dir, "t-0/partition.metadata", checkpoints::encode_partition_metadata(id));
    }
    let booted = world.boot(0).1.unwrap();
    let found = booted.dirs.iter().flat_map(|dir| &dir.partitions).cloned().collect::<Vec<_>>();
    assert_eq!(found, ids.map(|id| (TopicPartition::new("t", 0), Some(id))));
    let unnamed = world.dirs[1].remove("t-0/partition.metadata");
    let found: Vec<Option<Uuid>> = world.boot(0).1.unwrap().dirs.iter().map(|dir| dir.partitions[0].1).collect();
    assert_eq!((found, unnamed.is_some()), (vec![Some(ids[0]), None], true), "one has no topic id");
    world.put(1, "t-0/partition.metadata", checkpoints::encode_partition_metadata(ids[0]));
    assert_eq!(
        world.refusal(),
        "the partition t-0 lies in /a and in /b. Move the one that is out of date out of log.dirs"
    );
}

#[test]
fn writes_are_done_when_the_content_handed_in_last_before_them_is_on_the_disk() {
    let mut world = World::new(1);
    let (mut log_dirs, _) = world.boot(0);
    let dir = LogDirId(0);
    let mut out = Outbox::default();
    log_dirs.write_checkpoint(dir, CheckpointKind::LogStart, &offsets(&[("t", 1)]), &mut out);
    let first = log_dirs.writes(dir);
    log_dirs.write_checkpoint(dir, CheckpointKind::LogStart, &offsets(&[("t", 2)]), &mut out);
    log_dirs.write_checkpoint(dir, CheckpointKind::LogStart, &offsets(&[("t", 3)]), &mut out);
    let last = log_dirs.writes(dir);
    world.take(&mut out);
    assert!(!log_dirs.has_written(dir, first));
    assert!(world.step(&mut log_dirs));
    assert!(log_dirs.has_written(dir, first) && !log_dirs.has_written(dir, last));
    assert!(world.step(&mut log_dirs));
    assert!(log_dirs.has_written(dir, last));
    log_dirs.write_checkpoint(dir, CheckpointKind::LogStart, &offsets(&[("t", 3)]), &mut out);
    assert!(log_dirs.has_written(dir, log_dirs.writes(dir)), "the file holds this content already");
    for offset in [4, 5, 4] {
        log_dirs.write_checkpoint(dir, CheckpointKind::LogStart, &offsets(&[("t", offset)]), &mut out);
    }
    world.take(&mut out);
    let writes = log_dirs.writes(dir);
    assert!(!log_dirs.has_written(dir, writes));
    world.settle(&mut log_dirs);
    assert!(log_dirs.has_written(dir, writes), "the queued content equals the one just written");
}

#[test]
fn a_directory_whose_meta_properties_cannot_be_read_is_not_formatted() {
    let mut world = World::new(2);
    world.put(0, "meta.properties", META);
    world.put(1, "meta.properties", META_B);
    world.unreadable = Some(("meta.properties", IoErrorKind::Other));
    assert_eq!(world.refusal(), "/a, the directory of the metadata log, is offline: it cannot be read");
    assert_eq!(world.written, []);
}

#[test]
fn a_checkpoint_that_is_too_large_is_treated_as_missing_and_a_read_error_takes_the_directory_offline() {
    let boot = |kind| {
        let mut world = World::new(2);
        world.put(0, "meta.properties", META);
        world.put(1, "meta.properties", META_B);
        world.put(1, "replication-offset-checkpoint", "0\n0\n");
        world.unreadable = Some(("replication-offset-checkpoint", kind));
        let booted = world.boot(0).1.unwrap();
        (booted.dirs.len(), world.log.join("\n"))
    };
    let (online, log) = boot(IoErrorKind::TooLarge);
    assert_eq!((online, log.as_str()), (2, "Warn: it cannot be read; it is rebuilt"));
    let (online, log) = boot(IoErrorKind::Other);
    assert_eq!((online, log.as_str()), (1, "Error: log directory /b is offline: it cannot be read"));
}

#[test]
fn directories_that_are_not_partitions_are_not_looked_into() {
    let mut world = World::new(1);
    world.put(0, "meta.properties", META);
    world.put_dir(0, "replication-offset-checkpoint");
    world.put_dir(0, "lost+found");
    world.put(0, "t-9", "a file is not a partition");
    for name in ["lost+found/partition.metadata", "t-9/partition.metadata"] {
        world.unreadable = Some((name, IoErrorKind::Other));
        assert_eq!(world.boot(0).1.expect("the file is not loaded").dirs.len(), 1);
    }
}

#[test]
fn a_directory_with_lost_and_found_or_hidden_files_alone_counts_as_empty() {
    let mut world = World::new(1);
    world.put_dir(0, "lost+found");
    world.put_dir(0, ".trash");
    world.put_dir(0, "old");
    assert_eq!(
        world.refusal().split(": ").last(),
        Some("it holds \"old\". Set log.dirs to an empty directory, or restore meta.properties")
    );
    world.dirs[0].remove("old");
    assert!(world.boot(0).1.is_some());
    world.put_dir(0, "old");
    world.log.clear();
    assert!(world.boot(0).1.is_some());
    assert_eq!(world.log, ["Warn: /a/old does not belong to a broker; it is left alone"]);
}

#[test]
fn a_directory_with_a_temporary_file_counts_as_empty_only_if_a_broker_wrote_the_file() {
    for (name, is_ours) in [("meta.properties.tmp", true), (".kafka_cleanshutdown.tmp", true), ("thesis.tmp", false)] {
        let mut world = World::new(1);
        world.put(0, name, "");
        assert_eq!(world.boot(0).1.is_some(), is_ours, "{name}");
    }
}

#[test]
fn files_that_need_no_change_are_not_written() {
    let mut world = World::new(1);
    world.put(0, "meta.properties", META);
    world.put(0, "recovery-point-offset-checkpoint", "0\n1\nt 0 7\n");
    world.put_dir(0, "t-0");
    assert!(world.boot(0).1.is_some());
    assert_eq!(world.written, []);
}

#[test]
fn the_directory_of_a_stray_partition_gets_a_new_unique_name() {
    let mut world = World::new(2);
    world.put(0, "meta.properties", META);
    world.put(1, "meta.properties", META_B);
    world.put_dir(0, "t-0");
    let (mut log_dirs, _) = world.boot(0);
    let (partition, unique) = (TopicPartition::new("t", 0), Uuid::from_bytes([5; 16]));
    let mut out = Outbox::default();
    log_dirs.write_checkpoint(LogDirId(0), CheckpointKind::LogStart, &offsets(&[]), &mut out);
    assert!(!log_dirs.is_setting_aside());
    let name = log_dirs.set_aside(LogDirId(0), &partition, unique, &mut out).unwrap();
    assert_eq!(name, format!("t-0.{}-stray", "05".repeat(16)));
    world.take(&mut out);
    while !world.dirs[0].contains_key(&name) {
        assert!(log_dirs.is_setting_aside() && world.step(&mut log_dirs));
    }
    assert!(log_dirs.is_setting_aside(), "the new name is not stable yet");
    world.settle(&mut log_dirs);
    assert!(!log_dirs.is_setting_aside() && !world.dirs[0].contains_key("t-0"));
    assert_eq!(world.events.pop(), Some(DirEvent::SetAside));
    log_dirs.mark_offline(LogDirId(1), "a log says so".to_owned(), &mut out);
    assert_eq!(log_dirs.set_aside(LogDirId(1), &partition, unique, &mut out), None);
}

#[test]
fn the_only_event_of_an_offline_directory_is_that_the_sizes_of_its_volume_are_unknown() {
    let mut world = World::new(2);
    let (mut log_dirs, booted) = world.boot(0);
    let id = LogDirId(1);
    assert_eq!(log_dirs.directory_id(id), Some(booted.unwrap().dirs[1].directory_id));
    let mut out = Outbox::default();
    log_dirs.write_checkpoint(id, CheckpointKind::RecoveryPoint, &offsets(&[("t", 1)]), &mut out);
    assert!(log_dirs.is_online(id) && log_dirs.query_volume(id, &mut out));
    log_dirs.mark_offline(id, "a log says so".to_owned(), &mut out);
    assert!(!log_dirs.is_online(id));
    world.take(&mut out);
    assert!(world.step(&mut log_dirs) && world.events.is_empty(), "the checkpoint: {:?}", world.events);
    world.settle(&mut log_dirs);
    assert_eq!(world.events, [DirEvent::Volume { dir: id, sizes: None }]);
}

#[test]
fn the_id_of_a_directory_that_was_offline_at_the_start_is_unknown() {
    let mut world = World::new(2);
    world.boot(0);
    world.broken.push(LogDirId(1));
    assert_eq!(world.boot(0).0.directory_id(LogDirId(1)), None);
}

#[test]
fn only_a_directory_that_is_online_until_the_end_gets_the_marker() {
    // One directory fails before the stop, or with its last checkpoint.
    for fails_before in [true, false] {
        let mut world = World::new(2);
        let (mut log_dirs, _) = world.boot(0);
        let mut out = Outbox::default();
        if fails_before {
            log_dirs.mark_offline(LogDirId(1), "a log says so".to_owned(), &mut out);
        }
        log_dirs.write_checkpoint(LogDirId(1), CheckpointKind::RecoveryPoint, &offsets(&[("t", 1)]), &mut out);
        world.events.extend(log_dirs.stop(Some(1), &mut out));
        world.take(&mut out);
        if !fails_before {
            world.broken.push(LogDirId(1));
            while world.events.is_empty() {
                assert!(world.step(&mut log_dirs));
            }
            world.broken.clear();
        }
        world.settle(&mut log_dirs);
        assert_eq!(world.events.last(), Some(&DirEvent::Stopped));
        let marked = [0, 1].map(|dir| world.text(dir, ".kafka_cleanshutdown").is_some());
        assert_eq!(marked, [true, false]);
    }
}
