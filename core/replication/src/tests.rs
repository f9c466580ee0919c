//! A partition on a disk in memory. The other replicas are what a test says of them.

mod fetchers;
mod follower;
mod leader;

use crate::*;
use bytes::Bytes;
use bytestring::ByteString;
use std::collections::VecDeque;
use tidelog_batch::{BatchBuilder, BatchLimits, Checked, Codec, TopicBatchRules, check_produced, check_replicated};
use tidelog_config::plant::Plants;
use tidelog_storage::io::{IoCommand, IoOp, Level, Outbox, Output};
use tidelog_storage::test_disk::TestDisk;
use tidelog_storage::{LoadHints, Log, LogPlace, LogSettings};
use tidelog_wire::ErrorCode;
use tidelog_wire::ids::{LeaderEpoch, LogDirId, LogId, NodeId, Offset, PendingId, Uuid};
use tidelog_wire::time::{Mono, Now, WallMs};

const TOPIC: Uuid = Uuid::from_bytes([7; 16]);
const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const LOG: LogId = LogId(1);

/// All brokers are there, in their first life.
struct AllThere;

impl Brokers for AllThere {
    fn active_epoch(&self, _: NodeId) -> Option<i64> {
        Some(0)
    }

    fn alive_epoch(&self, _: NodeId) -> Option<i64> {
        Some(0)
    }
}

fn rules(min_insync_replicas: i32) -> PartitionRules {
    PartitionRules {
        batch: TopicBatchRules::default(),
        compression: None::<(Codec, i32)>,
        min_insync_replicas,
        allows_delete: true,
        is_internal: false,
    }
}

fn assignment(leader: NodeId, epoch: i32, isr: &[NodeId]) -> Assignment {
    Assignment {
        leader: Some(leader),
        leader_epoch: LeaderEpoch(epoch),
        partition_epoch: epoch * 10,
        replicas: vec![ME, OTHER],
        isr: isr.to_vec(),
    }
}

/// The replica of node 1.
struct Replica {
    partition: Partition,
    disk: TestDisk,
    out: Outbox,
    now: Now,
    events: Vec<PartitionEvent>,
    /// The levels of what the operator was told.
    told: Vec<Level>,
    /// Whether syncs wait until [`Replica::release`].
    holds_syncs: bool,
    held: VecDeque<IoCommand>,
}

impl Replica {
    fn new(assignment: &Assignment, min_insync_replicas: i32) -> Self {
        Self::named(("t".into(), TOPIC, 0), assignment, min_insync_replicas)
    }

    fn named(named: (ByteString, Uuid, i32), assignment: &Assignment, min_insync_replicas: i32) -> Self {
        let now = Now { mono: Mono(1_000_000_000), wall: WallMs(1_000_000) };
        let mut out = Outbox::default();
        let place = LogPlace { dir: LogDirId(0), name: "t-0".into(), topic_id: TOPIC };
        let log = Log::create(LOG, place, LogSettings::default(), Plants::default(), now, &mut out);
        let local = Local { node: ME, max_lag_ms: 1_000 };
        let rules = rules(min_insync_replicas);
        let mut partition = Partition::new(named, local, log, now, assignment, rules, Plants::default());
        partition.created(&mut out);
        let mut this = Self {
            partition,
            disk: TestDisk::default(),
            out,
            now,
            events: Vec::new(),
            told: Vec::new(),
            holds_syncs: false,
            held: VecDeque::new(),
        };
        this.run();
        this
    }

    /// The process ends and starts again. The checkpoint says that all below `committed` was.
    fn restart(self, assignment: &Assignment, committed: i64) -> Self {
        let Self { mut disk, now, .. } = self;
        disk.process_ends();
        let mut out = Outbox::default();
        let place = LogPlace { dir: LogDirId(0), name: "t-0".into(), topic_id: TOPIC };
        let (settings, hints) = (LogSettings::default(), LoadHints::default());
        let log = Log::load(LOG, place, settings, Plants::default(), hints, &mut out);
        let mut this = Self::new(assignment, 1);
        let local = Local { node: ME, max_lag_ms: 1_000 };
        let named = ("t".into(), TOPIC, 0);
        this.partition = Partition::new(named, local, log, now, assignment, rules(1), Plants::default());
        this.partition.was_committed(Offset(committed));
        (this.disk, this.out) = (disk, out);
        this.run();
        this
    }

    /// Follows node 2 in epoch 1.
    fn follower() -> Self {
        Self::new(&assignment(OTHER, 1, &[ME, OTHER]), 1)
    }

    /// Carries out all commands.
    fn run(&mut self) {
        let mut queue = VecDeque::new();
        loop {
            for output in self.out.outputs.drain(..) {
                match output {
                    Output::Io(command) => queue.push_back(command),
                    Output::Event(event) => self.told.push(event.level),
                    _ => {}
                }
            }
            let Some(command) = queue.pop_front() else { break };
            if !self.held.is_empty() || (self.holds_syncs && matches!(command.op, IoOp::Sync { .. })) {
                self.held.push_back(command);
                continue;
            }
            let completion = self.disk.execute(command);
            self.partition.handle_io(self.now, completion, &AllThere, &mut self.out, &mut self.events);
            self.partition.verify();
        }
    }

    fn release(&mut self) {
        self.holds_syncs = false;
        for command in std::mem::take(&mut self.held) {
            self.out.outputs.push(Output::Io(command));
        }
        self.run();
    }

    fn assign(&mut self, assignment: &Assignment) {
        self.partition.assign(self.now, assignment, &AllThere, &mut self.out, &mut self.events);
        self.run();
    }

    /// Whether the broker was asked to lower the recovery point, and does.
    fn lowers(&mut self) -> bool {
        let before = self.events.len();
        self.events.retain(|event| !matches!(event, PartitionEvent::RecoveryPointTooHigh));
        let asked = self.events.len() < before;
        if asked {
            self.partition.recovery_point_lowered(&mut self.out);
            self.run();
        }
        asked
    }

    fn position(&self) -> FetchPosition {
        self.partition.fetch_position().expect("it can fetch")
    }

    fn fetched(&mut self, fetched: Fetched) -> Taken {
        let position = self.position();
        let taken = self.partition.fetched(self.now, &position, fetched, &mut self.out, &mut self.events);
        self.run();
        taken
    }

    /// Log start, high watermark and log end.
    fn offsets(&self) -> (i64, i64, i64) {
        let log = self.partition.log();
        (log.log_start_offset().0, self.partition.high_watermark().0, log.log_end_offset().0)
    }

    /// A producer sends one record.
    fn produce(&mut self, acks: i16, id: u64) -> Result<Accepted, ErrorCode> {
        let accepted = self.append(acks, records(1).build())?;
        if !accepted.done {
            self.partition.acknowledge_later(acks, accepted.last_offset, PendingId(id), (0, 0));
        }
        self.run();
        Ok(accepted)
    }

    fn append(&mut self, acks: i16, batch: Bytes) -> Result<Accepted, ErrorCode> {
        let size_bytes = batch.len();
        let checked = check_produced(batch, &BatchLimits::default());
        let batch = ProducedBatch { acks, is_admin: false, checked, size_bytes };
        self.partition.append_as_leader(self.now, batch, &mut self.out).map_err(|it| it.error)
    }

    /// Node 2 has all below `offset`.
    fn other_fetches(&mut self, offset: i64) {
        self.other_fetches_from(0, offset);
    }

    /// Its log starts at `log_start`.
    fn other_fetches_from(&mut self, log_start: i64, offset: i64) {
        let (offset, log_start) = (Offset(offset), Offset(log_start));
        let fetch = FollowerFetch { node: OTHER, broker_epoch: 0, offset, log_start };
        self.partition.follower_fetched(self.now, &fetch, &AllThere, &mut self.events).unwrap();
    }

    /// The controller answers in a leader epoch what was asked for in an epoch of the partition: that both be in sync.
    fn isr_answered(&mut self, epoch: i32, asked_in: i32, answer: Result<IsrAnswer, ErrorCode>) {
        let asked = IsrProposal { partition_epoch: asked_in, isr: vec![(ME, -1), (OTHER, 0)] };
        self.partition.isr_answered(self.now, LeaderEpoch(epoch), &asked, answer, &AllThere, &mut self.events);
    }

    /// The requests that were answered since the last call, and how.
    fn answered(&mut self) -> Vec<(u64, Result<(), ErrorCode>)> {
        let mut answered = Vec::new();
        self.events.retain(|event| match event {
            PartitionEvent::AnswerDone(id, _, result) => {
                answered.push((id.0, *result));
                false
            }
            _ => true,
        });
        answered
    }
}

fn records(count: i32) -> BatchBuilder {
    let mut batch = BatchBuilder::new();
    for place in 0..count {
        batch.push(1_000 + i64::from(place), None, Some(b"value"), &[]);
    }
    batch
}

/// A batch of the leader's log.
fn batch(base: i64, count: i32, epoch: i32) -> Bytes {
    records(count).at(Offset(base), LeaderEpoch(epoch)).build()
}

fn checked(batches: &[Bytes]) -> Vec<Checked> {
    batches.iter().flat_map(check_replicated).collect()
}

/// An answer with these batches of a log that starts at 0.
fn answer(high_watermark: i64, batches: &[Bytes]) -> Fetched {
    Fetched {
        high_watermark: Offset(high_watermark),
        log_start: Offset::ZERO,
        diverging: None,
        batches: checked(batches),
    }
}

/// The leader's log has `epoch` up to `end`.
fn diverging(epoch: i32, end: i64) -> Fetched {
    // The rest is of the leader's log, and not of this one.
    let rest = Fetched { log_start: Offset(1), ..answer(1_000, &[]) };
    Fetched { diverging: Some((LeaderEpoch(epoch), Offset(end))), ..rest }
}

#[test]
fn a_partition_that_is_being_deleted_is_found_by_its_log_alone() {
    let mut partitions = Partitions::default();
    let logs = [0, 1].map(|index| {
        let log = partitions.next_log_id();
        let replica = Replica::named(("t".into(), TOPIC, index), &assignment(OTHER, 1, &[OTHER]), 1);
        partitions.insert(log, replica.partition);
        log
    });
    partitions.hide_one(TOPIC, 0);
    assert_eq!([0, 1].map(|index| partitions.find(TOPIC, index)), [None, Some(logs[1])]);
    assert!(partitions.get(logs[0]).is_some());
}
