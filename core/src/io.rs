//! The vocabulary of the door: what a world hands to the broker, and what it gets back.
//!
//! **I/O.** Every disk access is an [`IoCommand`] that the world answers with exactly one [`IoCompletion`] of the
//! same [`IoId`]. The commands of one [`IoOwner`] are a *lane*: a world carries them out, and completes them, in
//! the order they were given, except [`IoOp::Read`], which may overtake (the core reads only what it has seen
//! written). Between lanes there is no order: who needs one waits for the completion.
//!
//! **Durability.** A completed [`IoOp::Write`] is visible to reads, but a crash may lose it, keep it or tear it.
//! A completed [`IoOp::Sync`] makes all earlier completed and queued writes and truncations of that file stable.
//! A created, renamed or removed directory entry is stable once [`IoOp::SyncDir`] of its parent completed.
//! [`IoOp::Replace`] is atomic and, once completed, stable. After a failed sync nothing of that file may be
//! trusted again.

use crate::batch::Checked;
use crate::buggify::Dice;
use crate::config::ConnectionLimits;
use crate::ids::{ConnId, FileId, LogDirId, LogId};
use crate::probe::Probes;
use crate::wire::{ApiKey, RequestBody, RequestHeader, ResponseBody};
use bytes::Bytes;
use smallvec::SmallVec;

/// What happens to a broker.
#[derive(Debug)]
pub enum Input {
    /// The first input of every life: read the directories and come up.
    Boot,
    /// A client sent a request. Requests of one connection come in the order they were sent.
    Request(Box<Request>),
    /// A client's connection is gone; its unanswered requests need no answer.
    Disconnected(ConnId),
    /// A command was carried out, or failed.
    Io(IoCompletion),
    /// Time has passed. May come late, and when nothing is due.
    Tick,
    /// Stop cleanly: flush, write the checkpoints and the clean-shutdown marker, then say [`Output::Stopped`].
    Stop,
}

/// A decoded request with its per-byte work done (see `api::prepare`).
#[derive(Debug)]
pub struct Request {
    pub conn: ConnId,
    /// The place in `listeners` of the listener that the connection came in on.
    pub listener: u16,
    pub header: RequestHeader,
    pub body: RequestBody,
    /// For a Produce request: the verdict on the records of each partition, in the order of the request.
    pub batches: Vec<Checked>,
}

/// An answer, not yet encoded: a world encodes it with `wire::encode_response`, beside the core.
#[derive(Debug)]
pub struct Response {
    pub api_key: ApiKey,
    pub api_version: i16,
    pub correlation_id: i32,
    pub body: ResponseBody,
}

/// What a broker wants done. The order is the order in which a world takes them up.
#[derive(Debug)]
pub enum Output {
    /// Send this response. The broker gives the responses of a connection in the order of its requests.
    Respond(ConnId, Box<Response>),
    /// Close the connection once what was given for it before has been sent; the text says why.
    Close(ConnId, &'static str),
    Io(IoCommand),
    /// The broker has come up: the world may accept connections.
    Ready,
    /// Nothing more will come; the process may end.
    Stopped,
    /// The broker cannot go on (its metadata is unreadable, its configuration contradicts the disk): the world
    /// prints the text and ends the process with a failure.
    Fatal(String),
    /// From now on there may be so many connections: the configuration of the running broker has changed (KIP-226).
    Limits(ConnectionLimits),
    /// For the log of the operator.
    Event(Event),
}

/// Something an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub level: Level,
    /// The module it comes from, such as `storage`.
    pub part: &'static str,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// Where a broker's parts put what they want done. The caller of `Broker::handle` owns it and drains it.
#[derive(Debug, Default)]
pub struct Outbox {
    pub outputs: Vec<Output>,
    /// Where this life has been; counts in a simulation alone.
    pub probes: Probes,
    /// Rare things to do; only a simulation has any.
    pub dice: Dice,
    /// Bytes of writes that the core holds back until what was written before them is there. Never taken out: a world
    /// counts them with those that it has queued itself.
    pub held_bytes: u64,
}

impl Outbox {
    pub fn io(&mut self, id: IoId, op: IoOp) {
        self.outputs.push(Output::Io(IoCommand { id, op }));
    }

    pub fn event(&mut self, level: Level, part: &'static str, text: impl Into<String>) {
        self.outputs.push(Output::Event(Event { level, part, text: text.into() }));
    }
}

/// Whose command it is, and so in which lane it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IoOwner {
    /// A log directory: its `meta.properties`, its checkpoints, its clean-shutdown marker.
    Dir(LogDirId),
    /// One partition's log with all its files.
    Log(LogId),
    /// The quorum's own files beside the metadata log: `quorum-state`, snapshots.
    Quorum,
}

/// Names one command. `seq` counts up within an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoId {
    pub owner: IoOwner,
    pub seq: u64,
}

#[derive(Debug)]
pub struct IoCommand {
    pub id: IoId,
    pub op: IoOp,
}

#[derive(Debug)]
pub struct IoCompletion {
    pub id: IoId,
    pub result: Result<IoDone, IoError>,
}

/// A path below the root of a log directory, with `/` between its parts; empty for the root itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskPath {
    pub dir: LogDirId,
    pub path: String,
}

/// Pieces that are written one after the other without being copied together.
pub type Chunks = SmallVec<[Bytes; 2]>;

#[derive(Debug)]
pub enum IoOp {
    /// Names and lengths of what lies directly in a directory. → [`IoDone::Entries`], sorted by name.
    List { path: DiskPath },
    /// Create one directory; one that is already there is no error. → [`IoDone::Unit`]
    CreateDir { path: DiskPath },
    /// Make the entries of a directory stable. → [`IoDone::Unit`]
    SyncDir { path: DiskPath },
    /// Rename a file or directory within a log directory; an existing target file is replaced. Open files below
    /// it stay open under their new path. → [`IoDone::Unit`]
    Rename { from: DiskPath, to: DiskPath },
    /// Remove a file; one that is not there is no error. → [`IoDone::Unit`]
    Remove { path: DiskPath },
    /// Remove a directory with all it holds; one that is not there is no error. → [`IoDone::Unit`]
    RemoveDir { path: DiskPath },
    /// The whole content of a file of at most `limit_bytes`. → [`IoDone::Bytes`]
    Load { path: DiskPath, limit_bytes: u64 },
    /// Put `content` in place of a small file, whole or not at all: write `<path>.tmp`, sync it, rename it, sync
    /// the directory. → [`IoDone::Unit`]
    Replace { path: DiskPath, content: Bytes },
    /// Open a file for reading and writing; with `create`, make it where it is not there. → [`IoDone::Len`]
    Open { file: FileId, path: DiskPath, create: bool },
    /// Write all chunks from `position` on. `position` is never past the end. → [`IoDone::Unit`]
    Write { file: FileId, position: u64, chunks: Chunks },
    /// Up to `len` bytes from `position` on; fewer only at the end of the file. → [`IoDone::Bytes`]
    Read { file: FileId, position: u64, len: u32 },
    /// Cut the file, or grow it with zeros. → [`IoDone::Unit`]
    SetLen { file: FileId, len: u64 },
    /// Make the file's content and length stable. → [`IoDone::Unit`]
    Sync { file: FileId },
    /// Forget the file. Responses that still name a slice of it are served. → [`IoDone::Unit`]
    Close { file: FileId },
    /// How large the volume of a log directory is. → [`IoDone::Volume`]
    Volume { dir: LogDirId },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IoDone {
    Unit,
    Len(u64),
    Bytes(Bytes),
    Entries(Vec<DirEntry>),
    Volume { total_bytes: u64, usable_bytes: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    pub name: String,
    pub is_dir: bool,
    pub len: u64,
}

/// Why a command failed. The text is for the operator and names the path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct IoError {
    pub kind: IoErrorKind,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IoErrorKind {
    NotFound,
    NoSpace,
    Denied,
    /// A `Load` found more than its limit.
    TooLarge,
    Other,
}
