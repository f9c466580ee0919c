//! The log goes from the leader to its followers: they fetch, and the offset of a fetch acknowledges all records below
//! it (KIP-595).

use crate::appending::Uncommitted;
use crate::messages::wire_offset;
use crate::role::Role;
use crate::snapshots::{Download, SnapshotId};
use crate::voters::ReplicaKey;
use crate::{Append, Busy, LOG, PART, Quorum, RequestId, TOPIC, snapshot};
use bytes::Bytes;
use bytestring::ByteString;
use tidelog_batch::Scan;
use tidelog_config::plant::Plant;
use tidelog_storage::ReadOutcome;
use tidelog_storage::buggify::Site;
use tidelog_storage::io::{Level, Outbox};
use tidelog_wire::ids::{LeaderEpoch, NodeId, Offset, Uuid};
use tidelog_wire::messages::fetch_response::{EpochEndOffset, PartitionData, SnapshotId as NamedSnapshot};
use tidelog_wire::messages::{FetchRequest, FetchResponse};
use tidelog_wire::time::{Mono, Now};
use tidelog_wire::{ErrorCode, Records};

/// No fetch waits longer than this, whatever it asks for: its connection may be gone.
const WAIT_MS_MAX: i32 = 30_000;

/// A fetch of the metadata log that is being answered.
#[derive(Debug)]
pub struct Fetch {
    pub id: RequestId,
    pub listener: ByteString,
    replica: ReplicaKey,
    epoch: LeaderEpoch,
    offset: Offset,
    last_epoch: LeaderEpoch,
    bytes_max: u32,
    /// The high watermark that the replica knows.
    high_watermark: i64,
    /// Until when it may wait for records.
    pub until: Mono,
}

/// How the log of a replica stands to the leader's.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// All that the replica has, the leader has too.
    Same,
    /// The logs differ. The leader's log has this epoch up to this offset.
    Diverging(LeaderEpoch, Offset),
    /// The records that the replica needs are gone from the log: it must begin with this snapshot.
    NeedsSnapshot(SnapshotId),
}

impl Quorum {
    // The leader.

    pub(crate) fn handle_fetch(
        &mut self,
        now: Now,
        id: RequestId,
        listener: ByteString,
        request: FetchRequest,
        out: &mut Outbox,
    ) {
        if !self.is_of_this_cluster(request.cluster_id.as_deref()) {
            let error_code = ErrorCode::InconsistentClusterId.code();
            return self.reply(id, FetchResponse { error_code, ..Default::default() });
        }
        let partition = match request.topics.as_slice() {
            [topic] if topic.topic == TOPIC || topic.topic_id == Uuid::METADATA_TOPIC => {
                match topic.partitions.as_slice() {
                    [partition] if partition.partition == 0 => Some(partition),
                    _ => None,
                }
            }
            _ => None,
        };
        let Some(partition) = partition else {
            let error_code = ErrorCode::InvalidRequest.code();
            return self.reply(id, FetchResponse { error_code, ..Default::default() });
        };
        let replica = request.replica_id.max(request.replica_state.replica_id);
        let fetch = Fetch {
            id,
            listener,
            replica: ReplicaKey::from_wire(replica, partition.replica_directory_id),
            epoch: LeaderEpoch(partition.current_leader_epoch),
            offset: Offset(partition.fetch_offset),
            last_epoch: LeaderEpoch(partition.last_fetched_epoch),
            bytes_max: request.max_bytes.max(1) as u32,
            high_watermark: partition.high_watermark,
            until: now.mono.plus_ms(request.max_wait_ms.min(WAIT_MS_MAX).into()),
        };
        let is_valid = request.max_wait_ms >= 0
            && fetch.offset >= Offset::ZERO
            && fetch.last_epoch.0 >= 0
            && fetch.last_epoch <= fetch.epoch;
        if !is_valid {
            return self.refuse_fetch(&fetch, ErrorCode::InvalidRequest);
        }
        if fetch.replica.node == self.config.me.node && self.refusal_of_leader(fetch.epoch).is_none() {
            // Another process has this node's id. Not INVALID_REQUEST: Kafka's controllers stop at that.
            return self.refuse_fetch(&fetch, ErrorCode::UnknownServerError);
        }
        self.serve(now, fetch, true, out);
    }

    /// Why a request to the leader of this epoch is refused.
    pub(crate) fn refusal_of_leader(&self, epoch: LeaderEpoch) -> Option<ErrorCode> {
        if epoch < self.epoch() {
            Some(ErrorCode::FencedLeaderEpoch)
        } else if epoch > self.epoch() {
            Some(ErrorCode::UnknownLeaderEpoch)
        } else {
            (!matches!(self.role, Role::Leader(_))).then_some(ErrorCode::NotLeaderOrFollower)
        }
    }

    fn refuse_fetch(&mut self, fetch: &Fetch, error: ErrorCode) {
        let body = self.fetch_response(&fetch.listener, error, |_| {});
        self.reply(fetch.id, body);
    }

    /// Answers a fetch, or lets it wait for records if it may.
    fn serve(&mut self, now: Now, fetch: Fetch, may_wait: bool, out: &mut Outbox) {
        if let Some(error) = self.refusal_of_leader(fetch.epoch) {
            return self.refuse_fetch(&fetch, error);
        }
        match self.standing(fetch.offset, fetch.last_epoch) {
            Standing::Same => {}
            Standing::Diverging(epoch, end) => {
                return self.answer_fetch(&fetch, |partition| {
                    partition.diverging_epoch =
                        EpochEndOffset { epoch: epoch.0, end_offset: end.0, ..Default::default() };
                });
            }
            Standing::NeedsSnapshot(snapshot) => {
                return self.answer_fetch(&fetch, |partition| {
                    let (epoch, end_offset) = (snapshot.epoch.0, snapshot.end.0);
                    partition.snapshot_id = NamedSnapshot { end_offset, epoch, ..Default::default() };
                });
            }
        }
        self.acknowledged(now, fetch.replica, fetch.offset, out);
        // What is in the file is served, also before it is synced.
        let upper = self.log_mut().written_offset();
        if fetch.offset >= upper {
            return self.serve_nothing(fetch, may_wait);
        }
        if out.buggify(Site::EmptyFetch) {
            return self.answer_fetch(&fetch, |_| {});
        }
        self.next_read += 1;
        let token = self.next_read;
        match self.log_mut().read(fetch.offset, upper, fetch.bytes_max, true, token, out) {
            ReadOutcome::Pending => {
                self.reading.insert(token, fetch);
            }
            outcome => self.fetch_read(fetch, outcome),
        }
    }

    fn serve_nothing(&mut self, fetch: Fetch, may_wait: bool) {
        let knows_all = fetch.high_watermark >= wire_offset(self.high_watermark());
        match may_wait && knows_all {
            true => self.waiting.push(fetch),
            false => self.answer_fetch(&fetch, |_| {}),
        }
    }

    /// The records of a fetch were found, or could not be.
    pub(crate) fn fetch_read(&mut self, fetch: Fetch, outcome: ReadOutcome) {
        if let Some(error) = self.refusal_of_leader(fetch.epoch) {
            return self.refuse_fetch(&fetch, error);
        }
        match outcome {
            ReadOutcome::Found(found) => {
                self.answer_fetch(&fetch, |partition| partition.records = Some(Records::from(found.slice)));
            }
            ReadOutcome::AtEnd | ReadOutcome::NoRoom => self.answer_fetch(&fetch, |_| {}),
            // The log was trimmed meanwhile: the replica asks again, and is given the snapshot, if there is one.
            ReadOutcome::OutOfRange | ReadOutcome::Failed(_) => {
                self.refuse_fetch(&fetch, ErrorCode::UnknownServerError)
            }
            ReadOutcome::Pending => panic!("a read is answered once"),
        }
    }

    fn answer_fetch(&mut self, fetch: &Fetch, set: impl FnOnce(&mut PartitionData)) {
        let high_watermark = wire_offset(self.high_watermark());
        let body = self.fetch_response(&fetch.listener, ErrorCode::None, |partition| {
            partition.high_watermark = high_watermark;
            set(partition);
        });
        self.reply(fetch.id, body);
    }

    /// How a replica whose log ends at `offset`, with a record of `epoch`, stands to this log (KIP-595, KIP-630).
    fn standing(&self, offset: Offset, epoch: LeaderEpoch) -> Standing {
        let log = self.log.as_ref().expect("a leader has a log");
        let newest = self.snapshots.newest();
        if offset == Offset::ZERO
            && let Some(newest) = newest
        {
            // A new replica begins with the newest snapshot, which is shorter than the log.
            return Standing::NeedsSnapshot(newest);
        }
        let start = log.log_start_offset();
        if let (Some(newest), Some(oldest)) = (newest, self.snapshots.oldest())
            && (offset < start || (offset == start && epoch != self.epoch_before(start)) || epoch < oldest.epoch)
        {
            return Standing::NeedsSnapshot(newest);
        }
        let (known, end) = self.end_of_epoch(epoch);
        match known == epoch && offset <= end {
            true => Standing::Same,
            false => Standing::Diverging(known, end),
        }
    }

    /// The epoch of the record before `start`, where the log starts.
    fn epoch_before(&self, start: Offset) -> LeaderEpoch {
        self.snapshots.epoch_at(start).unwrap_or(LeaderEpoch(0))
    }

    /// The greatest epoch at or below `epoch` of which this log has records, and where it ends.
    fn end_of_epoch(&self, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
        let log = self.log.as_ref().expect("a log is compared");
        let entries = log.epochs().entries();
        let above = entries.partition_point(|entry| entry.epoch <= epoch);
        let end = entries.get(above).map_or(log.log_end_offset(), |next| next.start_offset);
        let known = above.checked_sub(1).map(|place| entries[place].epoch);
        (known.unwrap_or_else(|| self.epoch_before(log.log_start_offset())), end)
    }

    /// A replica has everything below `offset`.
    fn acknowledged(&mut self, now: Now, replica: ReplicaKey, offset: Offset, out: &mut Outbox) {
        let end = self.log_end();
        let Role::Leader(leader) = &mut self.role else { return };
        let start = leader.epoch_start.unwrap_or(end);
        if replica.node >= NodeId(0) && leader.progress.update_replica(now, replica, offset, end, start) {
            self.high_watermark_raised(now, out);
        }
    }

    /// More of the log is written or stable than before.
    pub(crate) fn log_advanced(&mut self, now: Now, out: &mut Outbox) {
        let Some(log) = &self.log else { return };
        let plants = self.config.plants;
        let stable = match () {
            () if plants.has(Plant::LeaderCountsUnsynced) => log.log_end_offset(),
            () if plants.has(Plant::MetadataCommittedBeforeSync) => log.written_offset(),
            () => log.stable_offset(),
        };
        let written = log.written_offset();
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(start) = leader.epoch_start else { return };
        let voters = match self.config.plants.has(Plant::OldVotersCountUntilCommit) {
            true => self.voters.recorded_at(self.committed + -1).unwrap_or(self.voters.latest()),
            false => self.voters.latest(),
        };
        if leader.progress.update_own(stable, voters, start) {
            self.high_watermark_raised(now, out);
        }
        let ready: Vec<Fetch> = self.waiting.extract_if(.., |fetch| fetch.offset < written).collect();
        for fetch in ready {
            self.serve(now, fetch, false, out);
        }
    }

    fn high_watermark_raised(&mut self, now: Now, out: &mut Outbox) {
        if let Some(high) = self.high_watermark() {
            self.commit_up_to(high);
        }
        self.resign_needlessly(out);
        self.changes_committed();
        // The followers learn of it.
        for fetch in std::mem::take(&mut self.waiting) {
            self.serve(now, fetch, false, out);
        }
    }

    /// Answers the fetches that have waited long enough.
    pub(crate) fn expire_fetches(&mut self, now: Now) {
        let expired: Vec<Fetch> = self.waiting.extract_if(.., |fetch| fetch.until <= now.mono).collect();
        for fetch in expired {
            // The replica may be gone by now: that its time is over is no sign of life.
            self.answer_fetch(&fetch, |_| {});
        }
    }

    // The follower.

    pub(crate) fn handle_fetch_answer(&mut self, now: Now, answer: FetchResponse, out: &mut Outbox) -> bool {
        let Some(mut topic) = answer.responses.into_iter().next().filter(|_| answer.error_code == 0) else {
            return false;
        };
        let Some(partition) = topic.partitions.pop().filter(|partition| partition.partition_index == 0) else {
            return false;
        };
        let told = answer.node_endpoints.into_iter();
        let told = told.filter_map(|node| Some((node.node_id, node.host, u16::try_from(node.port).ok()?)));
        let current = (partition.current_leader.leader_id, partition.current_leader.leader_epoch);
        let common = self.common(partition.error_code, current, told);
        let (error, leader) = (common.error, common.leader);
        if let Some(is_useful) = self.handle_common(now, common) {
            return is_useful;
        }
        let is_followed = matches!(&self.role, Role::Follower(follower) if Some(follower.leader) == leader);
        if !is_followed || error != ErrorCode::None {
            return false;
        }
        let (diverging, snapshot) = (&partition.diverging_epoch, &partition.snapshot_id);
        let is_useful = if diverging.epoch >= 0 {
            self.truncate(LeaderEpoch(diverging.epoch), Offset(diverging.end_offset), out)
        } else if snapshot.epoch >= 0 || snapshot.end_offset >= 0 {
            let id = SnapshotId { end: Offset(snapshot.end_offset), epoch: LeaderEpoch(snapshot.epoch) };
            self.begin_download(id)
        } else {
            let records = partition.records.as_ref().and_then(Records::bytes).unwrap_or_default();
            let is_taken = self.append_fetched(now, &records, out);
            if partition.high_watermark >= 0 {
                self.raise_follower_high_watermark(Offset(partition.high_watermark));
            }
            is_taken
        };
        if is_useful {
            self.fetched(now);
        }
        if self.may_stand() && self.busy.is_none() && out.buggify(Site::NeedlessElection) {
            self.become_prospective(now);
            if matches!(self.role, Role::Prospective(_)) {
                self.become_candidate(now);
            }
        }
        is_useful
    }

    /// A request to the leader was answered well: it is there.
    pub(crate) fn fetched(&mut self, now: Now) {
        let until = now.mono.plus_ms(self.config.timeouts.fetch_ms);
        if let Role::Follower(follower) = &mut self.role {
            follower.fetch_until = until;
            follower.has_fetched = true;
        }
    }

    /// Appends batches of the leader's log. False if they are not what was asked for.
    fn append_fetched(&mut self, now: Now, records: &Bytes, out: &mut Outbox) -> bool {
        let mut is_right = true;
        let mut scan = Scan::new(records, 0, true);
        for batch in scan.by_ref() {
            // The answer may begin with records that this log has already.
            if batch.header.last_offset() < self.log_end() {
                continue;
            }
            let epochs = self.last_epoch()..=self.epoch();
            if batch.header.base_offset != self.log_end() || !epochs.contains(&batch.header.leader_epoch) {
                is_right = false;
                break;
            }
            let start = batch.position as usize;
            let bytes = records.slice(start..start + batch.bytes.len());
            if let Err(why) = self.append_batch(now, &bytes, batch.header.is_control(), out) {
                // Its checksum is right, so the leader has written it so. A node that went on without it would miss a
                // part of the metadata.
                self.fail(format!("a batch of the leader at offset {} is not understood: {why}", self.log_end()));
                break;
            }
        }
        is_right
    }

    fn append_batch(&mut self, now: Now, bytes: &Bytes, is_control: bool, out: &mut Outbox) -> Result<(), String> {
        let base = self.log_end();
        let (mut metadata, mut controls) = (Vec::new(), Vec::new());
        match is_control {
            true => controls = snapshot::controls(bytes)?,
            false => metadata = snapshot::metadata_records(bytes)?,
        }
        let mut voters = self.voters.clone();
        for (place, control) in controls.iter().enumerate() {
            voters.apply(base + place as i64, control)?;
        }
        if let Err(reason) = self.append(now, Append::Replicated(bytes), out) {
            self.fail(reason);
            return Ok(());
        }
        let is_first_set = self.voters.latest().is_empty();
        if !is_first_set && !voters.latest().overlaps(self.voters.latest()) {
            let text = format!(
                "the voters {} follow the voters {}: more than one has changed at once",
                voters.latest(),
                self.voters.latest()
            );
            out.event(Level::Warn, PART, text);
        }
        self.voters = voters;
        let end = self.log_end();
        self.uncommitted.push_back(Uncommitted { end, at: self.last_append_at, records: metadata });
        Ok(())
    }

    pub(crate) fn raise_follower_high_watermark(&mut self, told: Offset) {
        let high = told.min(self.log_end());
        if self.high_watermark.is_none_or(|known| high > known) {
            self.high_watermark = Some(high);
        }
        self.commit_up_to(high);
    }

    /// The leader's log has `epoch` up to `end`, and this log differs from it: cuts this log where they part.
    fn truncate(&mut self, epoch: LeaderEpoch, end: Offset, out: &mut Outbox) -> bool {
        let (known, own_end) = self.end_of_epoch(epoch);
        let cut = if known == epoch { own_end.min(end) } else { own_end }.max(Offset::ZERO);
        if cut >= self.log_end() {
            // There is nothing to cut, so the leader contradicts itself.
            return false;
        }
        let committed = self.high_watermark.map_or(self.committed, |high| high.max(self.committed));
        if cut < committed {
            self.fail(format!(
                "the leader asks to remove the records from offset {cut} on, but all below {committed} are committed: \
                 the leader has lost records that a majority of the voters had, or this directory belongs to another \
                 cluster"
            ));
            return false;
        }
        out.event(Level::Info, PART, format!("the log is cut from {} to {cut}, as the leader has it", self.log_end()));
        if !self.config.plants.has(Plant::TruncationKeepsVoters) {
            self.voters.truncate_from(cut);
        }
        self.uncommitted.retain(|next| next.end <= cut);
        self.busy = Some(Busy::LoweringRecoveryPoint(cut));
        self.events.push(crate::QuorumEvent::RecoveryPointTooHigh);
        true
    }

    /// The log was truncated, or begins again.
    pub(crate) fn log_cut(&mut self, now: Now, out: &mut Outbox) -> Result<(), String> {
        match self.busy.take() {
            Some(Busy::Truncating(end)) => {
                // A batch is cut as a whole, so the log may end before `end`.
                let log_end = self.log_end();
                assert!(log_end <= end, "the log was cut to {end}");
                if !self.config.plants.has(Plant::TruncationKeepsVoters) {
                    self.voters.truncate_from(log_end);
                }
                self.uncommitted.retain(|next| next.end <= log_end);
            }
            Some(Busy::Restarting) if self.is_booting() => self.log_restarted_at_boot(now, out)?,
            Some(Busy::Restarting) => {}
            other => panic!("the log {LOG} was cut while {other:?}"),
        }
        Ok(())
    }

    /// Begins to fetch a snapshot, since the records that this log lacks are gone from the leader's log.
    fn begin_download(&mut self, id: SnapshotId) -> bool {
        if id.end < Offset::ZERO || id.epoch.0 < 0 {
            return false;
        }
        if id.end < self.committed {
            self.fail(format!(
                "the leader has no more than a snapshot up to offset {}, but all records below {} are committed: the \
                 leader has lost records that a majority of the voters had, or this directory belongs to another \
                 cluster",
                id.end, self.committed
            ));
            return false;
        }
        if let Role::Follower(follower) = &mut self.role {
            follower.download = Some(Download::new(id));
        }
        true
    }
}
