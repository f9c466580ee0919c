//! Snapshots: taking one, giving it to followers, fetching one from the leader, and trimming the log (KIP-630).

use crate::role::Role;
use crate::voters::kraft_version_record;
use crate::{Busy, Command, Held, PART, Quorum, QuorumEvent, RequestId, TOPIC, snapshot};
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use std::collections::BTreeMap;
use tidelog_batch::ControlRecord;
use tidelog_storage::Log;
use tidelog_storage::io::{IoDone, IoError, IoOp, Level, Outbox};
use tidelog_storage::names;
use tidelog_storage::probe::Probe;
use tidelog_wire::ids::{FileId, LeaderEpoch, Offset};
use tidelog_wire::messages::FetchSnapshotRequest;
use tidelog_wire::messages::fetch_snapshot_request as request;
use tidelog_wire::messages::fetch_snapshot_response::{self as response, FetchSnapshotResponse};
use tidelog_wire::time::{Mono, Now};
use tidelog_wire::{ErrorCode, FileSlice, Records};

/// A larger snapshot is not read.
pub const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;
/// How many snapshots are kept. The second newest is used if the newest turns out to be damaged.
const SNAPSHOTS_KEPT: usize = 2;
/// A snapshot that was read within this time is not removed.
const READ_MS_MAX: i64 = 60_000;
/// The files of logs have the number of their log in the upper half. No log has this number.
const SNAPSHOT_FILES: u64 = (u32::MAX as u64) << 32;

/// What identifies a snapshot: the offset after the last record that it holds, and the epoch of that record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotId {
    pub end: Offset,
    pub epoch: LeaderEpoch,
}

impl SnapshotId {
    pub fn file_name(self) -> String {
        names::metadata_snapshot_file(self.end, self.epoch)
    }
}

/// The snapshots on the disk.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// Oldest first. The snapshot that formatting writes, which ends at offset 0, is one of them.
    finished: Vec<SnapshotId>,
    writing: Option<SnapshotId>,
    /// Those that followers fetch.
    open: BTreeMap<SnapshotId, OpenSnapshot>,
    files_opened: u64,
    /// How much was appended to the log since the last snapshot.
    pub bytes_since: u64,
    /// When the log was read, or, if that is later, when a snapshot was last begun.
    pub last_at: Mono,
}

#[derive(Debug)]
enum OpenSnapshot {
    Opening {
        file: FileId,
        waiting: Vec<SnapshotFetch>,
    },
    Open {
        file: FileId,
        len: u64,
        /// When it was last read.
        read_at: Mono,
    },
}

/// A FetchSnapshot that is being answered.
#[derive(Debug)]
struct SnapshotFetch {
    id: RequestId,
    listener: ByteString,
    position: u64,
    bytes_max: u32,
}

/// A snapshot that is being fetched from the leader.
#[derive(Debug)]
pub struct Download {
    id: SnapshotId,
    bytes: BytesMut,
}

impl Download {
    pub fn new(id: SnapshotId) -> Self {
        Self { id, bytes: BytesMut::new() }
    }
}

impl Snapshots {
    pub fn found(&mut self, id: SnapshotId) {
        if !self.finished.contains(&id) {
            self.finished.push(id);
            self.finished.sort();
        }
    }

    /// A snapshot turned out to be damaged.
    pub fn forget(&mut self, id: SnapshotId) {
        self.finished.retain(|known| *known != id);
    }

    pub fn all(&self) -> &[SnapshotId] {
        &self.finished
    }

    pub fn not_written(&mut self) {
        self.writing = None;
    }

    /// The newest snapshot that holds metadata.
    pub fn newest(&self) -> Option<SnapshotId> {
        self.finished.last().copied().filter(|id| id.end > Offset::ZERO)
    }

    /// The oldest snapshot that holds metadata.
    pub fn oldest(&self) -> Option<SnapshotId> {
        self.finished.iter().copied().find(|id| id.end > Offset::ZERO)
    }

    /// Whether a follower has read this snapshot a moment ago, and so may want more of it.
    fn is_being_read(&self, now: Mono, id: SnapshotId) -> bool {
        match self.open.get(&id) {
            Some(OpenSnapshot::Open { read_at, .. }) => read_at.plus_ms(READ_MS_MAX) > now,
            Some(OpenSnapshot::Opening { .. }) => true,
            None => false,
        }
    }

    /// The epoch of the last record before `end`, if a snapshot ends there.
    pub fn epoch_at(&self, end: Offset) -> Option<LeaderEpoch> {
        self.finished.iter().find(|id| id.end == end).map(|id| id.epoch)
    }
}

impl Quorum {
    // Taking one.

    /// Writes a snapshot. `image` holds the encoded records of the metadata as it is at the offset `end`. See
    /// [`can_snapshot`](Self::can_snapshot) and [`QuorumEvent::SnapshotDue`].
    pub fn snapshot(&mut self, now: Now, end: Offset, image: &[Bytes], out: &mut Outbox) {
        assert!(self.can_snapshot(end), "a snapshot to {end} while {} is committed", self.committed);
        let log = self.log.as_ref().expect("it can be taken");
        let epoch = log.epochs().epoch_for_offset(end + -1).unwrap_or(LeaderEpoch::UNKNOWN);
        // The next snapshot is due one interval from now, even if this one is not written.
        self.snapshots.bytes_since = 0;
        self.snapshots.last_at = now.mono;
        if self.snapshots.newest().is_some_and(|newest| newest.end >= end) || epoch == LeaderEpoch::UNKNOWN {
            return;
        }
        out.probe(Probe::MetadataSnapshotTaken);
        let id = SnapshotId { end, epoch };
        let quorum = self.voters_for_snapshot(end);
        let content = snapshot::encode(epoch, now.wall, self.committed_at, &quorum, image);
        self.snapshots.writing = Some(id);
        let path = self.path(&id.file_name());
        self.submit(Command::WriteSnapshot(id), IoOp::Replace { path, content }, out);
    }

    /// The control records of a snapshot that ends at `end`.
    fn voters_for_snapshot(&self, end: Offset) -> Vec<ControlRecord> {
        let last = end + -1;
        match self.voters.recorded_at(last) {
            Some(voters) => vec![kraft_version_record(self.voters.kraft_version_at(last)), voters.record()],
            None => Vec::new(),
        }
    }

    /// Whether [`snapshot`](Self::snapshot) may be called now with an image that ends at `end`.
    pub fn can_snapshot(&self, end: Offset) -> bool {
        end == self.committed && self.can_write_snapshot()
    }

    fn can_write_snapshot(&self) -> bool {
        let Some(log) = &self.log else { return false };
        self.is_running()
            && self.busy.is_none()
            && self.snapshots.writing.is_none()
            // The log behind a snapshot must not be lost in a crash, or it would have to begin again.
            && log.stable_offset() >= self.committed
    }

    /// Whether a snapshot is due at `now`.
    pub fn snapshot_due(&self, now: Mono) -> bool {
        let by_time = self.snapshot_due_at().is_some_and(|at| at <= now);
        self.can_write_snapshot() && (by_time || self.snapshots.bytes_since >= self.config.snapshot_bytes)
    }

    /// When a snapshot is due because of time alone.
    fn snapshot_due_at(&self) -> Option<Mono> {
        let (interval_ms, snapshots) = (self.config.snapshot_interval_ms, &self.snapshots);
        let is_ever_due = interval_ms > 0 && snapshots.bytes_since > 0;
        is_ever_due.then(|| snapshots.last_at.plus_ms(interval_ms))
    }

    /// When to ask [`snapshot_due`](Self::snapshot_due) next, if nothing else happens before.
    pub(crate) fn snapshot_deadline(&self) -> Option<Mono> {
        // While no snapshot can be written there is no deadline. The completion that ends this makes the caller ask for
        // the deadline again.
        self.snapshot_due_at().filter(|_| self.can_write_snapshot())
    }

    pub(crate) fn snapshot_written(&mut self, now: Now, id: SnapshotId, out: &mut Outbox) {
        self.snapshots.writing = None;
        // The log may begin again behind a newer one meanwhile.
        self.snapshots.found(id);
        self.trim(now, out);
    }

    /// Removes all but the newest snapshots, and the part of the log before the oldest snapshot that is kept.
    pub(crate) fn trim(&mut self, now: Now, out: &mut Outbox) {
        while self.snapshots.finished.len() > SNAPSHOTS_KEPT {
            let id = self.snapshots.finished[0];
            if self.snapshots.is_being_read(now.mono, id) {
                // A follower that had to begin again with each new snapshot would never end.
                break;
            }
            self.snapshots.finished.remove(0);
            self.close_snapshot(id);
            let path = self.path(&id.file_name());
            self.held.push(Held::Cleanup(IoOp::Remove { path }));
        }
        let Some(SnapshotId { end: oldest, .. }) = self.snapshots.finished.first().copied() else { return };
        let committed = self.committed;
        self.voters.trim_to(oldest);
        let log = self.log_mut();
        if log.is_open() && log.delete_records(oldest, out) {
            log.enforce_retention(now, committed, out);
        }
    }

    // Giving it to followers.

    pub(crate) fn handle_fetch_snapshot(
        &mut self,
        now: Now,
        id: RequestId,
        listener: ByteString,
        request: FetchSnapshotRequest,
        out: &mut Outbox,
    ) {
        let top_level = |error: ErrorCode| FetchSnapshotResponse { error_code: error.code(), ..Default::default() };
        if !self.is_of_this_cluster(request.cluster_id.as_deref()) {
            return self.reply(id, top_level(ErrorCode::InconsistentClusterId));
        }
        let [topic] = request.topics.as_slice() else {
            return self.reply(id, top_level(ErrorCode::InvalidRequest));
        };
        let [partition] = topic.partitions.as_slice() else {
            return self.reply(id, top_level(ErrorCode::InvalidRequest));
        };
        if topic.name != TOPIC || partition.partition != 0 {
            let (name, index) = (topic.name.clone(), partition.partition);
            let mut body = self.fetch_snapshot_response(&listener, ErrorCode::UnknownTopicOrPartition, |_| {});
            body.topics[0].name = name;
            body.topics[0].partitions[0].index = index;
            return self.reply(id, body);
        }
        if let Some(error) = self.refusal_of_leader(LeaderEpoch(partition.current_leader_epoch)) {
            return self.refuse_snapshot(id, &listener, error);
        }
        let wanted = SnapshotId {
            end: Offset(partition.snapshot_id.end_offset),
            epoch: LeaderEpoch(partition.snapshot_id.epoch),
        };
        if wanted.end <= Offset::ZERO || !self.snapshots.finished.contains(&wanted) {
            return self.refuse_snapshot(id, &listener, ErrorCode::SnapshotNotFound);
        }
        let Ok(position) = u64::try_from(partition.position) else {
            return self.refuse_snapshot(id, &listener, ErrorCode::PositionOutOfRange);
        };
        let replica = crate::ReplicaKey::from_wire(request.replica_id, partition.replica_directory_id);
        if let Role::Leader(leader) = &mut self.role
            && replica.node != self.config.me.node
        {
            leader.progress.seen(now.mono, replica);
        }
        let fetch = SnapshotFetch { id, listener, position, bytes_max: request.max_bytes.max(1) as u32 };
        match self.snapshots.open.get_mut(&wanted) {
            Some(OpenSnapshot::Opening { waiting, .. }) => waiting.push(fetch),
            Some(OpenSnapshot::Open { file, len, read_at }) => {
                *read_at = now.mono;
                let (file, len) = (*file, *len);
                self.serve_snapshot(wanted, file, len, fetch);
            }
            None => {
                self.snapshots.files_opened += 1;
                let file = FileId(SNAPSHOT_FILES | self.snapshots.files_opened);
                self.snapshots.open.insert(wanted, OpenSnapshot::Opening { file, waiting: vec![fetch] });
                let path = self.path(&wanted.file_name());
                self.submit(Command::OpenSnapshot(wanted), IoOp::Open { file, path, create: false }, out);
            }
        }
    }

    fn refuse_snapshot(&mut self, id: RequestId, listener: &str, error: ErrorCode) {
        let body = self.fetch_snapshot_response(listener, error, |_| {});
        self.reply(id, body);
    }

    pub(crate) fn snapshot_opened(
        &mut self,
        now: Now,
        id: SnapshotId,
        result: Result<IoDone, IoError>,
        out: &mut Outbox,
    ) {
        let Some(OpenSnapshot::Opening { file, waiting }) = self.snapshots.open.remove(&id) else {
            // It was removed while it was being opened, and closed then.
            return;
        };
        match result {
            Ok(IoDone::Len(len)) => {
                self.snapshots.open.insert(id, OpenSnapshot::Open { file, len, read_at: now.mono });
                for fetch in waiting {
                    self.serve_snapshot(id, file, len, fetch);
                }
            }
            Ok(other) => panic!("an Open was answered with {other:?}"),
            Err(error) => {
                out.event(
                    Level::Warn,
                    PART,
                    format!("snapshot {} cannot be given to a follower: {error}", id.file_name()),
                );
                for fetch in waiting {
                    self.refuse_snapshot(fetch.id, &fetch.listener, ErrorCode::SnapshotNotFound);
                }
                // Followers are not sent to it again. A new one takes its place.
                self.snapshots.forget(id);
                self.snapshots.bytes_since = self.snapshots.bytes_since.max(self.config.snapshot_bytes);
            }
        }
    }

    /// Refuses the fetches of snapshots that wait for a file to be opened.
    pub(crate) fn refuse_snapshot_fetches(&mut self) {
        let opening = self.snapshots.open.values_mut().filter_map(|open| match open {
            OpenSnapshot::Opening { waiting, .. } => Some(std::mem::take(waiting)),
            OpenSnapshot::Open { .. } => None,
        });
        for fetch in opening.flatten().collect::<Vec<_>>() {
            self.refuse_snapshot(fetch.id, &fetch.listener, ErrorCode::NotLeaderOrFollower);
        }
    }

    fn serve_snapshot(&mut self, id: SnapshotId, file: FileId, len: u64, fetch: SnapshotFetch) {
        if fetch.position >= len {
            return self.refuse_snapshot(fetch.id, &fetch.listener, ErrorCode::PositionOutOfRange);
        }
        let bytes = (len - fetch.position).min(fetch.bytes_max.into()) as u32;
        let slice = FileSlice { file, position: fetch.position, len: bytes };
        let body = self.fetch_snapshot_response(&fetch.listener, ErrorCode::None, |partition| {
            partition.snapshot_id =
                response::SnapshotId { end_offset: id.end.0, epoch: id.epoch.0, ..Default::default() };
            partition.size = len as i64;
            partition.position = fetch.position as i64;
            partition.unaligned_records = Records::from(slice);
        });
        self.reply(fetch.id, body);
    }

    /// Followers fetch this snapshot no more: it is removed.
    fn close_snapshot(&mut self, id: SnapshotId) {
        let (file, waiting) = match self.snapshots.open.remove(&id) {
            None => return,
            Some(OpenSnapshot::Open { file, .. }) => (file, Vec::new()),
            Some(OpenSnapshot::Opening { file, waiting }) => (file, waiting),
        };
        // Behind the answers that name it.
        self.held.push(Held::Cleanup(IoOp::Close { file }));
        for fetch in waiting {
            self.refuse_snapshot(fetch.id, &fetch.listener, ErrorCode::SnapshotNotFound);
        }
    }

    // Fetching one.

    pub(crate) fn fetch_snapshot_request(&self, download: &Download) -> FetchSnapshotRequest {
        let SnapshotId { end, epoch } = download.id;
        let partition = request::PartitionSnapshot {
            current_leader_epoch: self.epoch().0,
            snapshot_id: request::SnapshotId { end_offset: end.0, epoch: epoch.0, ..Default::default() },
            position: download.bytes.len() as i64,
            replica_directory_id: self.config.me.wire_directory(),
            ..Default::default()
        };
        let topic = request::TopicSnapshot { name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
        FetchSnapshotRequest {
            cluster_id: Some(self.config.cluster_id.clone()),
            replica_id: self.config.me.node.0,
            max_bytes: self.config.fetch_snapshot_bytes_max,
            topics: vec![topic],
            ..Default::default()
        }
    }

    pub(crate) fn handle_fetch_snapshot_answer(
        &mut self,
        now: Now,
        answer: FetchSnapshotResponse,
        out: &mut Outbox,
    ) -> bool {
        let Some(mut topic) = answer.topics.into_iter().next().filter(|_| answer.error_code == 0) else {
            return false;
        };
        let Some(partition) = topic.partitions.pop().filter(|partition| partition.index == 0) else { return false };
        let told = answer.node_endpoints.iter().map(|node| (node.node_id, node.host.clone(), node.port));
        let current = (partition.current_leader.leader_id, partition.current_leader.leader_epoch);
        let common = self.common(partition.error_code, current, told);
        let error = common.error;
        if let Some(is_useful) = self.handle_common(now, common) {
            return is_useful;
        }
        let Role::Follower(follower) = &mut self.role else { return false };
        let Some(download) = &mut follower.download else { return false };
        let id = SnapshotId {
            end: Offset(partition.snapshot_id.end_offset),
            epoch: LeaderEpoch(partition.snapshot_id.epoch),
        };
        if matches!(error, ErrorCode::SnapshotNotFound | ErrorCode::PositionOutOfRange) {
            // The leader has a newer one by now. The next fetch tells which.
            follower.download = None;
            self.fetched(now);
            return true;
        }
        let chunk = partition.unaligned_records.bytes().unwrap_or_default();
        let is_next = id == download.id && partition.position == download.bytes.len() as i64;
        let has_room = (download.bytes.len() + chunk.len()) as i64 <= partition.size;
        let is_wrong = error != ErrorCode::None || !is_next || chunk.is_empty() || !has_room;
        let too_large = partition.size > SNAPSHOT_BYTES_MAX as i64;
        if is_wrong || too_large {
            if too_large {
                let text = format!("the snapshot {} is not fetched: it has more than 1 GiB", id.file_name());
                out.event(Level::Error, PART, text);
            }
            follower.download = None;
            return false;
        }
        download.bytes.extend_from_slice(&chunk);
        let is_complete = download.bytes.len() as i64 >= partition.size;
        if is_complete {
            let download = follower.download.take().expect("found above");
            return self.downloaded(now, download, out);
        }
        self.fetched(now);
        true
    }

    /// The whole snapshot is here: writes it, if it is not damaged.
    fn downloaded(&mut self, now: Now, download: Download, out: &mut Outbox) -> bool {
        let Download { id, bytes } = download;
        let content = bytes.freeze();
        let checked =
            snapshot::decode(&content).and_then(|snapshot| self.voters.after_snapshot(id.end + -1, &snapshot.controls));
        if let Err(reason) = checked {
            out.event(Level::Error, PART, format!("snapshot {} of the leader is not used: {reason}", id.file_name()));
            return false;
        }
        self.fetched(now);
        self.busy = Some(Busy::SavingSnapshot);
        self.fetched_snapshot = Some(content.clone());
        let path = self.path(&id.file_name());
        self.submit(Command::SaveDownload(id), IoOp::Replace { path, content }, out);
        true
    }

    /// The fetched snapshot is on stable storage: it takes the place of all that the log holds.
    pub(crate) fn download_saved(&mut self, id: SnapshotId, out: &mut Outbox) {
        assert_eq!(self.busy, Some(Busy::SavingSnapshot));
        let content = self.fetched_snapshot.take().expect("it was kept for this moment");
        self.snapshots.found(id);
        self.load_snapshot(id, &content).expect("it was decoded before");
        self.high_watermark = self.high_watermark.max(Some(id.end));
        self.uncommitted.clear();
        self.busy = Some(Busy::Restarting);
        self.log_mut().restart_at(id.end, out);
    }

    /// Takes over what a snapshot says, in the place of everything that was known before.
    pub(crate) fn load_snapshot(&mut self, id: SnapshotId, content: &Bytes) -> Result<(), String> {
        let snapshot = snapshot::decode(content)?;
        self.voters = self.voters.after_snapshot(id.end + -1, &snapshot.controls)?;
        self.committed = id.end;
        if id.end > Offset::ZERO {
            self.has_metadata = true;
            self.events.push(QuorumEvent::SnapshotLoaded { end: id.end, records: snapshot.metadata });
        }
        Ok(())
    }

    /// Whether the log must begin again behind the newest snapshot, which holds more than the log does.
    pub(crate) fn is_behind_snapshot(&self, log: &Log) -> Option<Offset> {
        let newest = self.snapshots.newest()?;
        let is_shorter = log.log_end_offset() < newest.end;
        // Another leader's records stand where the snapshot's last record was. (The log may know no epoch there: a crash
        // may have taken back that the log was trimmed, and not that the epochs were.)
        let epoch = log.epochs().epoch_for_offset(newest.end + -1);
        let differs = log.log_start_offset() < newest.end && epoch.is_some_and(|epoch| epoch != newest.epoch);
        (is_shorter || differs).then_some(newest.end)
    }
}
