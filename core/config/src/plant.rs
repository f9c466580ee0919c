//! Known bugs that a test build can switch on, to show that the simulator finds them.
//!
//! Each bug is a switch in [`Plants`], which is a part of the broker's configuration. Without the feature `plants`,
//! [`Plants::has`] is the constant `false`, and the compiler removes the code of every bug.

/// Declares the bugs and the list of them all.
macro_rules! plants {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A bug that a broker had once, or could have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Plant {
            $($(#[$doc])* $name,)*
        }

        impl Plant {
            pub const ALL: &'static [Plant] = &[$(Plant::$name,)*];
        }
    };
}

plants! {
    /// Every acknowledgement names an offset that is one too high. A test that does not find this bug finds none.
    Canary,

    // Durability.
    /// A produce is acknowledged when its write was issued, not when it is on stable storage.
    AcknowledgeBeforeSync,
    /// A failed sync is treated as a successful one (fsyncgate).
    SyncErrorIgnored,
    /// A log takes appends after a failed write or sync (KAFKA-10778).
    AppendsAfterIoError,
    /// When a segment is closed, it is not synced: the syncs of the next segment are taken to cover it.
    RollForgetsOldSegment,
    /// Records in a new segment are acknowledged before the name of its file is on stable storage.
    NewSegmentNameNotSynced,
    /// A decision of the controller is answered before the metadata log is on stable storage.
    MetadataCommittedBeforeSync,

    // Recovery.
    /// Recovery keeps a batch whose checksum or length is wrong at the end of the log.
    TornTailAccepted,
    /// The part of a log that recovery keeps counts as stable although it was not synced.
    RecoveryNotSynced,
    /// The recovery-point checkpoint names the end of the log, and not the end of what is on stable storage.
    RecoveryPointAheadOfSync,
    /// Every start takes the stop before it for a clean one.
    CrashTakenForCleanStop,
    /// A producer's snapshot is read as an empty one.
    ProducersForgottenAtRestart,

    // What readers see.
    /// The high watermark is one past the last stable record.
    HighWatermarkOneTooHigh,
    /// A fetch reads to the end of the log, not to the high watermark (KAFKA-9835).
    FetchAboveHighWatermark,
    /// The offset index is asked for the offset after the wanted one.
    IndexOffByOne,
    /// A lookup by timestamp skips records with exactly that timestamp.
    TimestampLookupSkipsEqual,
    /// A fetch session loses a partition when it answers for that partition without records.
    SessionForgetsPartition,
    /// A fetch that was answered is still woken whenever a high watermark of its partitions moves.
    WaiterLeaked,
    /// A fetch that waits is not woken when the high watermark moves (KAFKA-14334).
    WaitingFetchNotWoken,
    /// Answers leave when they are ready, not in the order of a connection's requests.
    AnswersOutOfOrder,

    // Idempotence (KIP-98).
    /// An idempotent producer's retry is appended again.
    DuplicateAppendedTwice,
    /// The answer to a retry names the offset that the retry would get, and not the one of the first append.
    DuplicateAnsweredWithNewOffset,
    /// A batch is appended although the sequence numbers before it are missing.
    SequenceGapAccepted,
    /// A batch of an earlier epoch of its producer is appended.
    ZombieProducerAccepted,

    // Retention, epochs, clocks.
    /// Retention by size deletes the active segment when that segment alone is too large.
    RetentionDeletesActiveSegment,
    /// A new leader does not record the offset at which its epoch begins (KAFKA-7415).
    EpochStartNotRecorded,
    /// The wall clock is asserted not to go back (KAFKA-5415, KAFKA-8803).
    WallClockAsserted,

    // The quorum.
    /// A vote is told before it is on stable storage.
    VoteToldBeforeSync,
    /// A voter votes for every candidate that asks, also for a second one in the same epoch.
    VotesTwice,
    /// A voter votes for a candidate whose log is shorter than its own.
    VotesForShorterLog,
    /// A leader commits records of earlier epochs by counting who has them (Raft, figure 8).
    EarlierEpochCommittedByCounting,
    /// The high watermark is known one record too early in an epoch: before the leader's own first record is on a
    /// majority (KAFKA-12619).
    HighWatermarkAtEpochStart,
    /// A leader that restarts leads in the same epoch again (KAFKA-10527).
    RestartedLeaderLeadsAgain,
    /// A leader that is removed from the voters still counts itself (KAFKA-16530).
    RemovedLeaderCounts,
    /// A replica that is no voter stands for election (KAFKA-17067).
    ObserverStandsForElection,
    /// A new set of voters counts only once it is committed.
    OldVotersCountUntilCommit,
    /// A truncation leaves the set of voters that the truncated record named.
    TruncationKeepsVoters,
    /// A voter fetches on, and so acknowledges, before it has synced what it fetched (KAFKA-10533).
    FollowerAcknowledgesBeforeSync,
    /// A leader counts its own records before it has synced them (KAFKA-17332).
    LeaderCountsUnsynced,
    /// A leader leads on though no majority has fetched from it for too long (KAFKA-15489).
    LeaderKeepsLease,
    /// A replica whose log does not begin at 0 starts without a snapshot of what came before (KAFKA-14240).
    StartsWithoutSnapshot,

    // The active controller and those on standby.
    /// A node that cannot apply a committed record goes on without it (KAFKA-14275).
    ApplyFailureSwallowed,
    /// A new active controller waits for no heartbeat of the brokers that it finds registered (KAFKA-18138).
    AdoptsNoBroker,
    /// A broker has caught up with the metadata only when it has all of the log (KAFKA-13959).
    CaughtUpAtLogEndOnly,
}

impl Plant {
    /// Whether the bug needs several nodes to show.
    pub fn needs_many_nodes(self) -> bool {
        self as u32 >= Self::VoteToldBeforeSync as u32
    }

    /// Whether the bug is in the quorum of the metadata log.
    pub fn is_of_quorum(self) -> bool {
        self.needs_many_nodes() && (self as u32) < Self::ApplyFailureSwallowed as u32
    }
}

/// The bugs that are switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plants {
    #[cfg(feature = "plants")]
    bits: u64,
}

impl Plants {
    #[cfg(feature = "plants")]
    pub fn with(self, plant: Plant) -> Self {
        Self { bits: self.bits | 1 << plant as u32 }
    }

    #[inline]
    pub fn has(self, plant: Plant) -> bool {
        #[cfg(feature = "plants")]
        return self.bits & (1 << plant as u32) != 0;
        #[cfg(not(feature = "plants"))]
        {
            let _ = plant;
            false
        }
    }
}

const _: () = assert!(Plant::ALL.len() <= 64, "each bug has one of 64 bits");
