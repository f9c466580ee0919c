//! A node's disks: what each [`IoCommand`] does, when it completes, how it fails, and what a crash leaves of it.
//!
//! The disk checks the contract of `tidelog_core::io`. A command that breaks it is a bug of the core, and panics with a
//! text that names the rule: a write past the end of a file, two writes under way over the same bytes, a read of bytes
//! whose write has not completed, a use of a file that is not open, an [`IoId`] used twice.
//!
//! A command takes effect when it completes. In a crash some of the queued commands take effect too, the last of them
//! in part, and no completion tells of it.

mod content;
mod damage;
mod digest;
mod tree;

pub use content::Losses;
pub use damage::{Damage, Damaged};
pub use digest::{digest_command, digest_completion};

use crate::random::{Ratio, Stream, stream};
use bytes::Bytes;
use content::FileContent;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tidelog_core::ids::FileId;
use tidelog_core::io::{
    DirEntry, DiskPath, IoCommand, IoCompletion, IoDone, IoError, IoErrorKind, IoId, IoOp, IoOwner,
};
use tidelog_core::time::WallMs;
use tidelog_core::wire::FileSlice;
use tree::{Inode, PathError, Tree};

/// How a node's disks behave in one scenario.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskOptions {
    /// How many log directories the node has.
    pub directories: u16,
    /// The longest time of a command that does not stall; most take much less.
    pub latency_ns_max: u64,
    /// How much longer than other commands a sync may take.
    pub sync_ns_max: u64,
    pub stall: Ratio,
    pub stall_ns_max: u64,
    pub read_error: Ratio,
    pub write_error: Ratio,
    /// How many commands fail that open a file, or that create, rename or remove a name.
    pub name_error: Ratio,
    pub sync_error: Ratio,
    /// How many syncs do nothing and report success. No seed draws this: with one replica, records would be lost
    /// through no fault of the broker.
    pub sync_lie: Ratio,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            directories: 1,
            latency_ns_max: 100_000,
            sync_ns_max: 2_000_000,
            stall: Ratio::NEVER,
            stall_ns_max: 1_000_000_000,
            read_error: Ratio::NEVER,
            write_error: Ratio::NEVER,
            name_error: Ratio::NEVER,
            sync_error: Ratio::NEVER,
            sync_lie: Ratio::NEVER,
        }
    }
}

/// What is lost in a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loss {
    /// The process ends, and the machine keeps its page cache.
    Process,
    /// The machine loses its power: what was not synced is kept, lost, torn or reordered.
    Power,
}

/// Names a command that is under way. The world hands it to [`Disk::complete`] at the time that [`Disk::submit`] gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// A slice of a file that a response names. It stays readable after the file was closed or removed.
#[derive(Clone, Copy, Debug)]
pub struct Pinned {
    inode: Inode,
    position: u64,
    len: u32,
}

#[derive(Debug)]
struct Open {
    inode: Inode,
    owner: IoOwner,
    path: DiskPath,
}

#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<Ticket>,
    /// When the last command of the lane completes.
    busy_until: u64,
    last_seq: Option<u64>,
}

#[derive(Debug)]
struct CommandUnderWay {
    id: IoId,
    op: IoOp,
    /// The file that a read reads, even if the broker closes it meanwhile. None for other commands.
    source: Option<Inode>,
}

/// All disks of one node. They outlive its processes.
#[derive(Debug)]
pub struct Disk {
    options: DiskOptions,
    seed: u64,
    node: u64,
    tree: Tree,
    open: BTreeMap<FileId, Open>,
    lanes: BTreeMap<IoOwner, Lane>,
    under_way: BTreeMap<Ticket, CommandUnderWay>,
    next_ticket: u64,
    commands: u64,
    slices_read: u64,
    crashes: u64,
    /// What the node's wall clock showed at the last [`Disk::complete`] or [`Disk::crash`]. Files that are changed get
    /// this time.
    wall: WallMs,
    /// Whether faults other than crashes are dealt.
    faulty: bool,
    /// The volume is full.
    pub full: bool,
    /// How many commands have failed since the process started.
    pub errors_dealt: u32,
    /// Files on which a command has failed. A later command that this makes impossible fails too, instead of counting
    /// as a breach of the contract.
    failed: BTreeSet<FileId>,
    wounds: damage::Wounds,
    /// What all power cuts so far have taken.
    losses: Losses,
    /// What all failed syncs so far have taken.
    sync_losses: Losses,
}

macro_rules! contract {
    ($holds:expr, $($text:tt)*) => {
        assert!($holds, "the core broke the disk's contract: {}", format_args!($($text)*))
    };
}

impl Disk {
    pub fn new(seed: u64, node: u64, options: DiskOptions) -> Self {
        let tree = Tree::new(options.directories);
        Self {
            options,
            seed,
            node,
            tree,
            open: BTreeMap::new(),
            lanes: BTreeMap::new(),
            under_way: BTreeMap::new(),
            next_ticket: 0,
            commands: 0,
            slices_read: 0,
            crashes: 0,
            wall: WallMs::default(),
            faulty: true,
            full: false,
            errors_dealt: 0,
            failed: BTreeSet::new(),
            wounds: damage::Wounds::default(),
            losses: Losses::default(),
            sync_losses: Losses::default(),
        }
    }

    /// What became of changes that were not synced, in all power cuts so far.
    pub fn losses(&self) -> Losses {
        self.losses
    }

    /// What became of the changes that failed syncs should have made stable.
    pub fn sync_losses(&self) -> Losses {
        self.sync_losses
    }

    /// Options for the next commands.
    pub fn options_mut(&mut self) -> &mut DiskOptions {
        &mut self.options
    }

    /// Puts a file in its place before the node's first start, on stable storage.
    pub fn put(&mut self, path: &DiskPath, content: &[u8]) {
        let root = self.tree.find(path.dir.0, "").expect("the log directory is there");
        if let Some((directory, _)) = path.path.split_once('/')
            && self.tree.entry(root, directory).is_none()
        {
            self.tree.create_directory(root, directory);
            self.tree.sync_directory(root);
        }
        let (directory, name) = self.parent(path).expect("at most one directory is on the way");
        self.tree.replace(directory, name, content);
    }

    /// From now on nothing fails and nothing stalls, and what was damaged is restored.
    pub fn heal(&mut self) {
        self.faulty = false;
        self.full = false;
        self.repair();
    }

    /// Takes a command. Gives the time at which it completes.
    pub fn submit(&mut self, now: u64, command: IoCommand) -> (u64, Ticket) {
        self.commands += 1;
        let mut stream = stream(self.seed, "disk.latency", &[self.node, self.commands]);
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let source = self.check(&command);
        let mut takes = 1_000 + stream.skewed(self.options.latency_ns_max);
        if matches!(command.op, IoOp::Sync { .. } | IoOp::SyncDir { .. } | IoOp::Replace { .. }) {
            takes += stream.skewed(self.options.sync_ns_max);
        }
        if self.faulty && stream.chance(self.options.stall) {
            takes += stream.skewed(self.options.stall_ns_max);
        }
        let lane = self.lanes.entry(command.id.owner).or_default();
        contract!(
            lane.last_seq.is_none_or(|last| last < command.id.seq),
            "{:?} does not count up from {:?}",
            command.id,
            lane.last_seq
        );
        lane.last_seq = Some(command.id.seq);
        let at = if source.is_some() {
            now + takes
        } else {
            lane.queue.push_back(ticket);
            lane.busy_until = lane.busy_until.max(now) + takes;
            lane.busy_until
        };
        self.under_way.insert(ticket, CommandUnderWay { id: command.id, op: command.op, source });
        (at, ticket)
    }

    /// Carries out a command whose time has come; it takes effect or fails. `wall` is what the node's wall clock shows.
    pub fn complete(&mut self, wall: WallMs, ticket: Ticket) -> IoCompletion {
        self.wall = wall;
        let command = self.under_way.remove(&ticket).expect("a ticket is used once, in the life it was given in");
        if command.source.is_none() {
            let lane = self.lanes.get_mut(&command.id.owner).expect("a command has a lane");
            assert_eq!(lane.queue.pop_front(), Some(ticket), "a lane completes in order");
        }
        let mut stream = stream(self.seed, "disk.fault", &[self.node, ticket.0]);
        let result = match self.fault(&command, &mut stream) {
            Some(error) => {
                self.errors_dealt += 1;
                self.failed.extend(file_of(&command.op));
                Err(error)
            }
            None => {
                let result = self.execute(&command);
                if result.is_err() {
                    self.failed.extend(file_of(&command.op));
                }
                result
            }
        };
        IoCompletion { id: command.id, result }
    }

    /// The process ends. Some of the queued commands take effect, the last of them in part. Gives true if some of the
    /// page cache is lost. `wall` is what the node's wall clock shows.
    pub fn crash(&mut self, wall: WallMs, loss: Loss) -> bool {
        self.wall = wall;
        self.crashes += 1;
        let mut stream = stream(self.seed, "disk.crash", &[self.node, self.crashes]);
        for lane in std::mem::take(&mut self.lanes).into_values() {
            let happened = stream.between(0, lane.queue.len() as u64) as usize;
            for (place, ticket) in lane.queue.iter().enumerate() {
                let command = self.under_way.remove(ticket).expect("what is queued is under way");
                match place.cmp(&happened) {
                    std::cmp::Ordering::Less => {
                        // No completion will tell whether it worked; only the commands behind it must know.
                        if self.fails_with_what_failed(&command.op).is_some() || self.execute(&command).is_err() {
                            self.failed.extend(file_of(&command.op));
                        }
                    }
                    std::cmp::Ordering::Equal => self.execute_in_part(&command.op, &mut stream),
                    std::cmp::Ordering::Greater => break,
                }
            }
        }
        self.under_way.clear();
        self.open.clear();
        self.errors_dealt = 0;
        self.failed.clear();
        match loss {
            Loss::Process => self.tree.lose_process(&mut stream),
            Loss::Power => {
                self.losses += self.tree.lose_power(&mut stream, self.wounds.roots());
                true
            }
        }
    }

    /// Keeps a slice that a response names readable until the response leaves.
    pub fn pin(&self, slice: FileSlice) -> Pinned {
        let Some(open) = self.open.get(&slice.file) else {
            panic!("the core broke the disk's contract: a response names {:?}, which is not open", slice.file);
        };
        let end = slice.position + u64::from(slice.len);
        let len = self.tree.file(open.inode).len();
        contract!(end <= len, "a response names bytes up to {end} of {:?}, which ends at {len}", open.path);
        self.check_no_write_under_way(slice.file, slice.position, end, "a response names");
        Pinned { inode: open.inode, position: slice.position, len: slice.len }
    }

    /// The bytes of a slice whose response leaves. None if the disk fails to read them.
    pub fn read_pinned(&mut self, pinned: Pinned) -> Option<Bytes> {
        self.slices_read += 1;
        let mut stream = stream(self.seed, "disk.slice", &[self.node, self.slices_read]);
        let end = pinned.position + u64::from(pinned.len);
        if self.wounds.hurt(pinned.inode, pinned.position, end) || self.faulty && stream.chance(self.options.read_error)
        {
            return None;
        }
        let bytes = self.tree.file(pinned.inode).read(pinned.position, u64::from(pinned.len));
        contract!(
            bytes.len() == pinned.len as usize,
            "a response names {} bytes, of which {} are left",
            pinned.len,
            bytes.len()
        );
        Some(bytes)
    }

    /// Commands under way, for the liveness check.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Every path with its length, for the end of a trace.
    pub fn listing(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for dir in 0..self.options.directories {
            if let Ok(root) = self.tree.find(dir, "") {
                self.list_into(root, &format!("{dir}:"), &mut lines);
            }
        }
        lines
    }

    fn list_into(&self, directory: Inode, prefix: &str, lines: &mut Vec<String>) {
        for (name, inode) in self.tree.entries(directory).into_iter().flatten() {
            let path = format!("{prefix}/{name}");
            if self.tree.is_directory(inode) {
                self.list_into(inode, &path, lines);
            } else {
                lines.push(format!("{path} {}", self.tree.file(inode).len()));
            }
        }
    }

    /// Checks a new command against the contract. Gives the inode that a read reads; a read may be of another owner's
    /// file.
    fn check(&self, command: &IoCommand) -> Option<Inode> {
        match &command.op {
            IoOp::Read { file, position, len } => {
                let open = self.open.get(file);
                contract!(open.is_some(), "a read of {file:?}, which is not open");
                let open = open?;
                let end = self.tree.file(open.inode).len();
                contract!(*position <= end, "a read of {:?} from {position}, which ends at {end}", open.path);
                self.check_no_write_under_way(*file, *position, position.saturating_add(u64::from(*len)), "a read of");
                Some(open.inode)
            }
            IoOp::Write { file, position, chunks } => {
                let end = position + chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
                self.check_no_write_under_way(*file, *position, end, "a write to");
                None
            }
            _ => None,
        }
    }

    fn check_no_write_under_way(&self, file: FileId, start: u64, end: u64, who: &str) {
        for command in self.under_way.values() {
            if let IoOp::Write { file: other, position, chunks } = &command.op
                && *other == file
            {
                let write_end = position + chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
                contract!(
                    end <= *position || write_end <= start,
                    "{who} {file:?} {start}..{end} while {:?} writes {position}..{write_end}",
                    command.id
                );
            }
        }
    }

    fn fault(&mut self, command: &CommandUnderWay, stream: &mut Stream) -> Option<IoError> {
        let op = &command.op;
        if let Some(why) = self.fails_with_what_failed(op) {
            return Some(error(IoErrorKind::Other, format!("{}: {why}", self.describe(op))));
        }
        if self.full && op_grows(op) {
            if let IoOp::Write { file, position, chunks } = op {
                let some = stream.between(0, chunks.len() as u64) as usize;
                let inode = self.handle(*file).inode;
                self.change(inode).write(*position, &chunks[..some]);
            }
            return Some(error(IoErrorKind::NoSpace, format!("{}: no space left on device", self.describe(op))));
        }
        if self.is_unreadable(command) {
            return Some(error(IoErrorKind::Other, format!("{}: input/output error", self.describe(op))));
        }
        if !self.faulty {
            return None;
        }
        let ratio = match op {
            IoOp::Read { .. } | IoOp::Load { .. } | IoOp::List { .. } => self.options.read_error,
            IoOp::Write { .. } | IoOp::SetLen { .. } | IoOp::Replace { .. } => self.options.write_error,
            IoOp::Rename { .. } | IoOp::Remove { .. } | IoOp::RemoveDir { .. } => self.options.name_error,
            IoOp::CreateDir { .. } | IoOp::Open { .. } => self.options.name_error,
            IoOp::Volume { .. } => self.options.read_error,
            IoOp::Sync { .. } | IoOp::SyncDir { .. } => self.options.sync_error,
            _ => Ratio::NEVER,
        };
        if !stream.chance(ratio) {
            return None;
        }
        match op {
            IoOp::Sync { file } => {
                let inode = self.handle(*file).inode;
                self.sync_losses += self.tree.file_mut(inode).fail_sync(stream);
            }
            other => self.execute_in_part(other, stream),
        }
        Some(error(IoErrorKind::Other, format!("{}: input/output error", self.describe(op))))
    }

    /// Whether a command reads a sector that has gone bad.
    fn is_unreadable(&self, command: &CommandUnderWay) -> bool {
        match &command.op {
            IoOp::Read { position, len, .. } => {
                let inode = command.source.expect("a read has a source");
                self.wounds.hurt(inode, *position, position + u64::from(*len))
            }
            IoOp::Load { path, .. } => {
                self.find_file(path).is_ok_and(|inode| self.wounds.hurt(inode, 0, self.tree.file(inode).len()))
            }
            _ => false,
        }
    }

    /// Why a command fails that the broker gave before it learned that an earlier one had failed. None if the earlier
    /// failure does not matter to it.
    fn fails_with_what_failed(&self, op: &IoOp) -> Option<&'static str> {
        let file = file_of(op).filter(|file| self.failed.contains(file))?;
        match (op, self.open.get(&file)) {
            (IoOp::Open { .. }, _) => None,
            (_, None) => Some("was not opened"),
            (IoOp::Write { position, .. }, Some(open)) => {
                (*position > self.tree.file(open.inode).len()).then_some("behind a write that failed")
            }
            _ => None,
        }
    }

    fn execute(&mut self, command: &CommandUnderWay) -> Result<IoDone, IoError> {
        match &command.op {
            IoOp::List { path } => {
                let directory = self.find(path)?;
                let Some(entries) = self.tree.entries(directory) else {
                    return Err(error(IoErrorKind::Other, format!("{}: not a directory", show(path))));
                };
                let entry = |(name, inode): (&String, Inode)| {
                    let is_dir = self.tree.is_directory(inode);
                    let file = (!is_dir).then(|| self.tree.file(inode));
                    let (len, modified) = file.map_or((0, WallMs(0)), |file| (file.len(), file.modified));
                    DirEntry { name: name.clone(), is_dir, len, modified }
                };
                Ok(IoDone::Entries(entries.map(entry).collect()))
            }
            IoOp::CreateDir { path } => {
                let (parent, name) = self.parent(path)?;
                match self.tree.entry(parent, name) {
                    None => {
                        self.tree.create_directory(parent, name);
                        Ok(IoDone::Unit)
                    }
                    Some(inode) if self.tree.is_directory(inode) => Ok(IoDone::Unit),
                    Some(_) => Err(error(IoErrorKind::Other, format!("{}: is a file", show(path)))),
                }
            }
            IoOp::SyncDir { path } => {
                let directory = self.find(path)?;
                self.tree.sync_directory(directory);
                Ok(IoDone::Unit)
            }
            IoOp::Rename { from, to } => {
                contract!(from.dir == to.dir, "{} is renamed into another log directory", show(from));
                let (from_parent, from_name) = self.parent(from)?;
                let (to_parent, to_name) = self.parent(to)?;
                if self.tree.entry(from_parent, from_name).is_none() {
                    return Err(error(IoErrorKind::NotFound, format!("{}: not found", show(from))));
                }
                if let Some(target) = self.tree.entry(to_parent, to_name)
                    && self.tree.is_directory(target)
                    && self.tree.entries(target).is_some_and(|mut entries| entries.next().is_some())
                {
                    return Err(error(IoErrorKind::Other, format!("{}: directory not empty", show(to))));
                }
                self.tree.rename((from_parent, from_name), (to_parent, to_name));
                Ok(IoDone::Unit)
            }
            IoOp::Remove { path } => match self.tree.parent(path.dir.0, &path.path) {
                Ok((parent, name)) => {
                    let is_dir = self.tree.entry(parent, name).is_some_and(|inode| self.tree.is_directory(inode));
                    if is_dir {
                        return Err(error(IoErrorKind::Other, format!("{}: is a directory", show(path))));
                    }
                    self.tree.remove(parent, name);
                    Ok(IoDone::Unit)
                }
                Err(_) => Ok(IoDone::Unit),
            },
            IoOp::RemoveDir { path } => {
                contract!(!path.path.is_empty(), "the root of {:?} is removed", path.dir);
                if let Ok((parent, name)) = self.tree.parent(path.dir.0, &path.path) {
                    self.tree.remove(parent, name);
                }
                Ok(IoDone::Unit)
            }
            IoOp::Load { path, limit_bytes } => {
                let inode = self.find_file(path)?;
                let file = self.tree.file(inode);
                if file.len() > *limit_bytes {
                    let text = format!("{}: {} bytes, more than {limit_bytes}", show(path), file.len());
                    return Err(error(IoErrorKind::TooLarge, text));
                }
                Ok(IoDone::Bytes(file.read(0, file.len())))
            }
            IoOp::Replace { path, content } => {
                let (parent, name) = self.parent(path)?;
                let inode = self.tree.replace(parent, name, content);
                self.change(inode);
                Ok(IoDone::Unit)
            }
            IoOp::Open { file, path, create } => {
                contract!(!self.open.contains_key(file), "{file:?} is opened twice");
                let (parent, name) = self.parent(path)?;
                let inode = match self.tree.entry(parent, name) {
                    Some(inode) if self.tree.is_directory(inode) => {
                        return Err(error(IoErrorKind::Other, format!("{}: is a directory", show(path))));
                    }
                    Some(inode) => inode,
                    None if *create => {
                        let inode = self.tree.create_file(parent, name);
                        self.change(inode);
                        inode
                    }
                    None => return Err(error(IoErrorKind::NotFound, format!("{}: not found", show(path)))),
                };
                self.open.insert(*file, Open { inode, owner: command.id.owner, path: path.clone() });
                Ok(IoDone::Len(self.tree.file(inode).len()))
            }
            IoOp::Write { file, position, chunks } => {
                let inode = self.own_handle(*file, command.id).inode;
                let end = self.tree.file(inode).len();
                contract!(
                    *position <= end,
                    "a write to {:?} at {position}, which ends at {end}",
                    self.handle(*file).path
                );
                self.change(inode).write(*position, chunks);
                let end = position + chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
                self.wounds.overwritten(inode, *position, end);
                Ok(IoDone::Unit)
            }
            IoOp::Read { position, len, .. } => {
                let inode = command.source.expect("a read has a source");
                Ok(IoDone::Bytes(self.tree.file(inode).read(*position, u64::from(*len))))
            }
            IoOp::SetLen { file, len } => {
                let inode = self.own_handle(*file, command.id).inode;
                self.change(inode).set_len(*len);
                Ok(IoDone::Unit)
            }
            IoOp::Sync { file } => {
                let inode = self.own_handle(*file, command.id).inode;
                let mut stream = stream(self.seed, "disk.lie", &[self.node, self.next_ticket]);
                if !(self.faulty && stream.chance(self.options.sync_lie)) {
                    self.tree.file_mut(inode).sync();
                }
                Ok(IoDone::Unit)
            }
            IoOp::Close { file } => {
                self.own_handle(*file, command.id);
                self.open.remove(file);
                Ok(IoDone::Unit)
            }
            IoOp::Volume { .. } => {
                let usable_bytes = if self.full { 0 } else { 1 << 39 };
                Ok(IoDone::Volume { total_bytes: 1 << 40, usable_bytes })
            }
        }
    }

    /// Carries out a part of a command that was interrupted or failed.
    fn execute_in_part(&mut self, op: &IoOp, stream: &mut Stream) {
        match op {
            IoOp::Write { file, position, chunks } => {
                let Some(inode) = self.open.get(file).map(|open| open.inode) else { return };
                let mut some = Vec::new();
                for chunk in chunks {
                    let len = stream.between(0, chunk.len() as u64) as usize;
                    some.push(chunk.slice(..len));
                    if len < chunk.len() {
                        break;
                    }
                }
                self.change(inode).write(*position, &some);
            }
            IoOp::Replace { path, content } => {
                if let Ok((parent, name)) = self.tree.parent(path.dir.0, &path.path)
                    && stream.one_in(2)
                {
                    let some = stream.between(0, content.len() as u64) as usize;
                    let inode = self.tree.replace(parent, &format!("{name}.tmp"), &content[..some]);
                    self.change(inode);
                }
            }
            _ => {}
        }
    }

    /// A file that is about to be changed: it was last changed now.
    fn change(&mut self, inode: Inode) -> &mut FileContent {
        let file = self.tree.file_mut(inode);
        file.modified = self.wall;
        file
    }

    fn handle(&self, file: FileId) -> &Open {
        match self.open.get(&file) {
            Some(open) => open,
            None => panic!("the core broke the disk's contract: {file:?} is used and is not open"),
        }
    }

    fn own_handle(&self, file: FileId, id: IoId) -> &Open {
        let open = self.handle(file);
        contract!(open.owner == id.owner, "{id:?} uses {:?} of {:?}", open.path, open.owner);
        open
    }

    fn find(&self, path: &DiskPath) -> Result<Inode, IoError> {
        self.tree.find(path.dir.0, &path.path).map_err(|why| path_error(path, why))
    }

    fn find_file(&self, path: &DiskPath) -> Result<Inode, IoError> {
        self.tree.find_file(path.dir.0, &path.path).map_err(|why| path_error(path, why))
    }

    fn parent<'a>(&self, path: &'a DiskPath) -> Result<(Inode, &'a str), IoError> {
        self.tree.parent(path.dir.0, &path.path).map_err(|why| path_error(path, why))
    }

    fn describe(&self, op: &IoOp) -> String {
        match op {
            IoOp::List { path }
            | IoOp::CreateDir { path }
            | IoOp::SyncDir { path }
            | IoOp::Remove { path }
            | IoOp::RemoveDir { path }
            | IoOp::Load { path, .. }
            | IoOp::Replace { path, .. }
            | IoOp::Rename { from: path, .. }
            | IoOp::Open { path, .. } => show(path),
            IoOp::Write { file, .. }
            | IoOp::Read { file, .. }
            | IoOp::SetLen { file, .. }
            | IoOp::Sync { file }
            | IoOp::Close { file } => self.open.get(file).map_or("a closed file".into(), |open| show(&open.path)),
            IoOp::Volume { dir } => format!("volume of {dir}"),
        }
    }
}

fn file_of(op: &IoOp) -> Option<FileId> {
    match op {
        IoOp::Open { file, .. }
        | IoOp::Write { file, .. }
        | IoOp::Read { file, .. }
        | IoOp::SetLen { file, .. }
        | IoOp::Sync { file }
        | IoOp::Close { file } => Some(*file),
        _ => None,
    }
}

fn op_grows(op: &IoOp) -> bool {
    matches!(
        op,
        IoOp::Write { .. }
            | IoOp::SetLen { .. }
            | IoOp::Replace { .. }
            | IoOp::CreateDir { .. }
            | IoOp::Open { create: true, .. }
    )
}

fn show(path: &DiskPath) -> String {
    format!("dir {}: /{}", path.dir, path.path)
}

fn path_error(path: &DiskPath, why: PathError) -> IoError {
    match why {
        PathError::NotFound => error(IoErrorKind::NotFound, format!("{}: not found", show(path))),
        PathError::NotADirectory => error(IoErrorKind::Other, format!("{}: not a directory", show(path))),
        PathError::IsADirectory => error(IoErrorKind::Other, format!("{}: is a directory", show(path))),
    }
}

fn error(kind: IoErrorKind, text: String) -> IoError {
    IoError { kind, text }
}

#[cfg(test)]
mod tests;
