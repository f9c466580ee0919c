//! What a world hands to the broker, and what it gets back: the inputs and outputs of
//! `tidelog_core::Broker::handle`.
//!
//! **I/O.** Every disk access is an [`IoCommand`] that the world answers with exactly one [`IoCompletion`] of the same
//! [`IoId`]. The commands of one [`IoOwner`] are a *lane*: a world carries them out, and completes them, in the order
//! they were given, except [`IoOp::Read`], which may overtake (the core reads only what it has seen written). Between
//! commands of different lanes there is no order: a part of the core that needs one waits for a completion before it
//! gives the next command.
//!
//! **Durability.** A completed [`IoOp::Write`] is visible to reads, but a crash may lose it, keep it or tear it.
//! A completed [`IoOp::Sync`] makes all earlier completed and queued writes and truncations of that file stable.
//! A created, renamed or removed directory entry is stable once [`IoOp::SyncDir`] of its parent completed.
//! [`IoOp::Replace`] is atomic and, once completed, stable. After a failed sync nothing of that file may be
//! trusted again.
//!
//! **Peers.** Other nodes are asked as the disk is asked: a part gives an [`Ask`] to [`Outbox::ask`] and gets exactly one
//! [`Answer`] of the same [`PeerId`]. The asks of one [`PeerOwner`] to one address are sent in the order they were given.
//! The broker's peers make *links* of them, which are connections that the world opens, writes to, reads from and closes:
//! [`Output::Connect`], [`Output::Send`], [`Output::HangUp`] and [`Input::Link`]. A world forgets its links when the
//! broker has ended.

use crate::buggify::Dice;
use crate::probe::Probes;
use bytes::Bytes;
use core::net::IpAddr;
use std::ops::RangeInclusive;
use tidelog_batch::Checked;
pub use tidelog_batch::Chunks;
pub use tidelog_config::Part;
use tidelog_config::{ConnectionLimits, Loggers};
use tidelog_wire::ids::{ConnId, FileId, LinkId, LogDirId, LogId};
use tidelog_wire::time::WallMs;
use tidelog_wire::{Address, ApiKey, DecodeError, RequestBody, RequestHeader, ResponseBody};

/// What happens to a broker.
#[derive(Debug)]
pub enum Input {
    /// The first input of a broker: read the directories and start.
    Boot,
    /// A client, or another node, has connected. This comes before the requests of the connection. No number is used
    /// twice.
    Connected(ConnId, Origin),
    /// A client sent a request. Requests of one connection come in the order they were sent.
    Request(Box<Request>),
    /// A client's connection is closed. Its unanswered requests need no answers, and no more requests come.
    Disconnected(ConnId),
    /// A disk command was carried out, or it failed.
    Io(IoCompletion),
    /// Something happened on a link. What is told about a link after [`Output::HangUp`] has no effect.
    Link(LinkId, LinkEvent),
    /// Time has passed. A tick may come late, and it may come when nothing is due.
    Tick,
    /// Stop cleanly: flush, write the checkpoints and the clean-shutdown marker, then say [`Output::Stopped`].
    Stop,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The place in `listeners` of the listener that the connection came in on.
    pub listener: u16,
    /// The address of the client. A world gives an IPv4 address as such, and not mapped to an IPv6 one.
    pub address: IpAddr,
}

/// A decoded request whose records have been checked (see `api::prepare`).
#[derive(Debug)]
pub struct Request {
    pub conn: ConnId,
    pub header: RequestHeader,
    pub body: RequestBody,
    /// For a Produce request: the verdict on the records of each partition, in the order of the request.
    pub batches: Vec<Checked>,
}

/// A response that is not encoded yet. A world encodes it with `wire::encode_response`, outside of the core.
#[derive(Debug)]
pub struct Response {
    pub api_key: ApiKey,
    pub api_version: i16,
    pub correlation_id: i32,
    pub body: ResponseBody,
}

/// What a broker wants done. A world carries outputs out in the order in which they are given.
#[derive(Debug)]
pub enum Output {
    /// Send this response. The broker gives the responses of a connection in the order of its requests.
    Respond(ConnId, Box<Response>),
    /// Close the connection once all responses that were given for it before have been sent. The text says why.
    Close(ConnId, &'static str),
    Io(IoCommand),
    /// Open a link. The broker chooses the number. The world tells [`LinkEvent::Opened`] or [`LinkEvent::Lost`], unless it
    /// is told to hang up before.
    Connect(LinkId, Address),
    /// Send a request on a link that is open. The world encodes it, outside of the core.
    Send(LinkId, Box<PeerRequest>),
    /// Close the link, or give up opening it.
    HangUp(LinkId),
    /// Accept connections on the listener in this place of `listeners`. A listener of controllers is opened as soon as
    /// this node can take part in the quorum, before it knows any metadata; the others when the broker serves clients.
    Listen(u16),
    /// The node stops: accept no more connections on this listener, and read no more requests from those that it has.
    Drain(u16),
    /// The broker has started. All its listeners are open.
    Ready,
    /// The broker has stopped cleanly. It gives no more outputs, and the process may end.
    Stopped,
    /// The broker cannot go on, because its metadata is unreadable or its configuration contradicts the disk. The world
    /// prints the text and ends the process with a failure.
    Fatal(String),
    /// These limits of connections hold from now on: the configuration of the running broker has changed (KIP-226).
    Limits(ConnectionLimits),
    /// The loggers of the operator's log have these levels from now on (KIP-412).
    LogLevels(Loggers),
    /// Write a line to the operator's log.
    Event(Event),
}

/// Something an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub level: Level,
    /// What it comes from.
    pub part: Part,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// Collects what the parts of a broker want done. The caller of `Broker::handle` owns it and drains it.
#[derive(Debug, Default)]
pub struct Outbox {
    pub outputs: Vec<Output>,
    /// How often each probe was reached. Counted in simulations only.
    pub probes: Probes,
    /// Decides when the core does something rare on purpose, which only happens in simulations.
    pub dice: Dice,
    /// How many bytes of writes the core holds back until earlier commands of their lane have succeeded. The core keeps
    /// this number up to date, and a world must not reset it. A world that limits its queued writes adds these bytes to
    /// its own.
    pub held_bytes: u64,
    /// What the parts want to ask other nodes. The broker drains it before it returns.
    asks: Vec<Ask>,
}

impl Outbox {
    pub fn io(&mut self, id: IoId, op: IoOp) {
        self.outputs.push(Output::Io(IoCommand { id, op }));
    }

    /// Asks another node. The part that is the owner gets exactly one [`Answer`], in a later input.
    pub fn ask(&mut self, ask: Ask) {
        self.asks.push(ask);
    }

    /// Takes out what was given to [`ask`](Self::ask).
    pub fn take_asks(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.asks)
    }

    pub fn event(&mut self, level: Level, part: Part, text: impl Into<String>) {
        self.outputs.push(Output::Event(Event { level, part, text: text.into() }));
    }
}

/// A question to another node.
#[derive(Debug)]
pub struct Ask {
    pub id: PeerId,
    pub to: Address,
    pub body: RequestBody,
    /// The versions in which `body` may be sent. It is sent in the newest that the other node serves.
    pub versions: RangeInclusive<i16>,
    /// How long the answer may take, from now on.
    pub timeout_ms: i64,
}

/// The part of a broker that asks other nodes, and gets the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerOwner {
    /// The quorum of the metadata log asks other controllers.
    Quorum,
    /// The broker asks the active controller, also for its clients.
    Controller,
    /// The node tells the active controller that it is there: registrations and heartbeats.
    Life,
    /// The fetchers with this number ask the leaders of partitions that this broker follows.
    Fetchers(u16),
}

/// Identifies one question. The owner chooses `seq` and uses none twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId {
    pub owner: PeerOwner,
    pub seq: u64,
}

/// What became of an [`Ask`].
#[derive(Debug)]
pub struct Answer {
    pub id: PeerId,
    pub result: Result<Answered, AskError>,
}

/// What another node has answered.
#[derive(Debug)]
pub struct Answered {
    /// The version of request and response.
    pub version: i16,
    pub body: ResponseBody,
    /// For a Fetch response: the verdicts on the batches of each partition, in the order of the response. A partition's
    /// last verdict may be an error, behind which nothing of the partition was read.
    pub batches: Vec<Vec<Checked>>,
}

/// Why an [`Ask`] has no answer. Whether the other node has carried out the request is known for
/// [`Unreachable`](Self::Unreachable) and [`Unsupported`](Self::Unsupported) alone: it has not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("no connection could be made")]
    Unreachable,
    #[error("the connection was lost before the answer came")]
    Disconnected,
    #[error("no answer came in time")]
    TimedOut,
    #[error("the other node serves no version of the request that is known here")]
    Unsupported,
    #[error("the answer cannot be read: {0}")]
    Malformed(String),
}

impl AskError {
    /// A word for it, as metrics name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Disconnected => "disconnected",
            Self::TimedOut => "timed-out",
            Self::Unsupported => "unsupported",
            Self::Malformed(_) => "malformed",
        }
    }
}

/// A request to another node that is not encoded yet. A world encodes it with `wire::encode_request`, outside of the
/// core.
#[derive(Debug)]
pub struct PeerRequest {
    pub header: RequestHeader,
    pub body: RequestBody,
}

/// What happened on a link.
#[derive(Debug)]
pub enum LinkEvent {
    Opened,
    /// The answer to the oldest request on the link that has none.
    Answer(Box<LinkAnswer>),
    /// The link is closed or broken, or could not be opened. The text says why, for the operator.
    Lost(String),
}

/// A decoded answer whose records have been checked (see `api::prepare_answer`).
#[derive(Debug)]
pub struct LinkAnswer {
    /// The correlation id and the body.
    pub read: Result<(i32, ResponseBody), DecodeError>,
    /// As in [`Answered`].
    pub batches: Vec<Vec<Checked>>,
}

/// The owner of a command, which decides the lane in which the command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IoOwner {
    /// A log directory: its `meta.properties`, its checkpoints, its clean-shutdown marker.
    Dir(LogDirId),
    /// One partition's log with all its files.
    Log(LogId),
    /// The quorum's own files beside the metadata log: `quorum-state`, snapshots.
    Quorum,
}

/// Identifies one command. `seq` grows by one with each command of an owner.
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

#[derive(Debug)]
pub enum IoOp {
    /// What lies directly in a directory. → [`IoDone::Entries`], sorted by name.
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
    /// Replace a small file by `content`, so that a crash leaves the old content or the new: write `<path>.tmp`, sync
    /// it, rename it, sync the directory. → [`IoDone::Unit`]
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
    /// When the content or the length of the file was last changed, by the wall clock. Of no meaning for a directory.
    pub modified: WallMs,
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
    /// The file of an [`IoOp::Load`] is larger than its limit.
    TooLarge,
    Other,
}
