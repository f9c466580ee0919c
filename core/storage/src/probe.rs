//! Coverage probes: places in the core that a simulation must reach. A run that does not reach them proves little.
//!
//! Probes are counted in the [`Outbox`], which belongs to the world and which every part gets when it is called. So
//! there is no global state, and no part has a field for probes. Without the feature `plants`, [`Outbox::probe`] does
//! nothing.

use crate::io::Outbox;

macro_rules! probes {
    ($($name:ident $text:literal)*) => {
        /// A place in the core that is worth reaching.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(usize)]
        pub enum Probe {
            $($name,)*
        }

        impl Probe {
            pub const ALL: &'static [Probe] = &[$(Probe::$name),*];

            pub fn name(self) -> &'static str {
                match self {
                    $(Probe::$name => $text,)*
                }
            }
        }
    };
}

probes! {
    AppendDuplicate "append.duplicate"
    AppendSequenceRefused "append.sequence.refused"
    AppendEpochRefused "append.epoch.refused"
    AppendTooLarge "append.too.large"
    AppendJoinsSync "append.joins.the.next.sync"
    RollBySize "roll.by.size"
    RollByAge "roll.by.age"
    RollIndexFull "roll.index.full"
    ReadTail "read.tail"
    ReadDisk "read.waits.for.disk"
    ReadOutOfRange "read.out.of.range"
    ReadNoRoom "read.no.room"
    LookupDisk "lookup.waits.for.disk"
    IndexLoaded "index.loaded"
    IndexRebuilt "index.rebuilt"
    RecoveryClean "recovery.clean"
    RecoveryAfterCrash "recovery.after.crash"
    RecoveryBatchCut "recovery.batch.cut"
    RecoveryBatchDamaged "recovery.batch.damaged"
    RecoveryZeros "recovery.zeros"
    RecoverySnapshotStray "recovery.producer.snapshot.past.the.end"
    RecoveryIndexRebuilt "recovery.index.rebuilt"
    RetentionBySize "retention.by.size"
    RetentionByTime "retention.by.time"
    RetentionByLogStart "retention.by.log.start"
    RetentionRolls "retention.rolls.the.active.segment"
    RetentionWaitsForIndex "retention.waits.for.index"
    SegmentUnlinked "segment.unlinked"
    ProducerSnapshotWritten "producer.snapshot.written"
    SyncFailed "sync.failed"
    WriteFailed "write.failed"
    LogOffline "log.offline"
    DirOffline "dir.offline"
    CheckpointQueued "checkpoint.waits.for.the.one.before"
    MetadataSnapshotTaken "metadata.snapshot.taken"
    MetadataSnapshotRead "metadata.snapshot.read"
    TopicCreated "topic.created"
    ConfigChangedOpenLog "config.changed.open.log"
    LogDeletedOpen "log.deleted.open"
    LogDirectoryVacated "log.directory.vacated"
    TopicNameWaits "topic.name.waits.for.its.directory"
    ProduceWaits "produce.waits"
    ProduceTimedOut "produce.timed.out"
    ProduceTurnedAway "produce.turned.away"
    FetchAtOnce "fetch.at.once"
    FetchWaits "fetch.waits"
    FetchWoken "fetch.woken"
    FetchExpired "fetch.expired"
    FetchWaitsForRead "fetch.waits.for.disk"
    FetchMovedWhileReading "fetch.moved.while.reading"
    FetchFoundGone "fetch.found.has.gone"
    FetchForgotten "fetch.forgotten"
    SessionRefused "session.refused"
    SessionWithoutRoom "session.without.room"
    SessionIncremental "session.incremental"
    AnswerWaitsForEarlier "answer.waits.for.an.earlier.one"
    StopAnswersFetches "stop.answers.waiting.fetches"
}

/// How often each place was reached.
#[derive(Debug)]
#[cfg_attr(not(feature = "plants"), derive(Default))]
pub struct Probes {
    #[cfg(feature = "plants")]
    counts: [u64; Probe::ALL.len()],
}

#[cfg(feature = "plants")]
impl Default for Probes {
    fn default() -> Self {
        Self { counts: [0; Probe::ALL.len()] }
    }
}

impl Probes {
    /// The probes that were reached, with how often.
    #[cfg(feature = "plants")]
    pub fn reached(&self) -> impl Iterator<Item = (Probe, u64)> {
        Probe::ALL.iter().map(|probe| (*probe, self.counts[*probe as usize])).filter(|(_, count)| *count > 0)
    }
}

impl Outbox {
    #[inline]
    pub fn probe(&mut self, probe: Probe) {
        #[cfg(feature = "plants")]
        {
            self.probes.counts[probe as usize] += 1;
        }
        #[cfg(not(feature = "plants"))]
        let _ = probe;
    }
}
