//! Known bugs that a test build can plant, to show that the simulator finds them.
//!
//! Each is a switch of [`Plants`], which travels in the broker's configuration. Without the feature `plants`
//! [`Plants::has`] is the constant `false`, and the compiler removes every site.

/// Declares the bugs and the list of them all.
macro_rules! plants {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A bug that some broker has had, or could have.
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
    /// Every acknowledgement names an offset that is one too high. Whatever does not find this finds nothing.
    Canary,

    // Durability.
    /// A produce is acknowledged when its write was issued, not when it is on stable storage.
    AcknowledgeBeforeSync,
    /// A failed sync is treated as a successful one (fsyncgate).
    SyncErrorIgnored,
    /// A log takes appends after a failed write or sync (KAFKA-10778).
    AppendsAfterIoError,
    /// A roll does not sync the segment it ends: the syncs of the next one are taken to cover it.
    RollForgetsOldSegment,
    /// Records in a new segment are acknowledged before the name of its file is on stable storage.
    NewSegmentNameNotSynced,
    /// A decision of the controller is answered before the metadata log is on stable storage.
    MetadataCommittedBeforeSync,

    // Recovery.
    /// Recovery keeps a batch whose checksum or length is wrong at the end of the log.
    TornTailAccepted,
    /// What recovery found, and cut, counts as stable though nobody has synced it.
    RecoveryNotSynced,
    /// The recovery-point checkpoint names the end of the log, not what is on stable storage.
    RecoveryPointAheadOfSync,
    /// Every start takes the last stop for a clean one.
    CrashTakenForCleanStop,
    /// A producer's snapshot is read as an empty one.
    ProducersForgottenAtRestart,

    // What readers see.
    /// The high watermark is one past the last stable record.
    HighWatermarkOneTooHigh,
    /// A fetch reads to the end of the log, not to the high watermark (KAFKA-9835).
    FetchAboveHighWatermark,
    /// The offset index is asked for the offset behind the wanted one.
    IndexOffByOne,
    /// A look-up by timestamp finds the first record after it, not the first at or after it.
    TimestampLookupSkipsEqual,
    /// A fetch session loses a partition when it has told of it without records.
    SessionForgetsPartition,
    /// A fetch that was answered is still woken by every move of its partitions.
    WaiterLeaked,
    /// A fetch that waits is not woken when the high watermark moves (KAFKA-14334).
    WaitingFetchNotWoken,
    /// Answers leave when they are ready, not in the order of a connection's requests.
    AnswersOutOfOrder,

    // Idempotence (KIP-98).
    /// An idempotent producer's retry is appended again.
    DuplicateAppendedTwice,
    /// The answer to a retry names where it would stand, not where the first one does.
    DuplicateAnsweredWithNewOffset,
    /// A batch whose sequence leaves out another is appended.
    SequenceGapAccepted,
    /// A batch of an earlier epoch of its producer is appended.
    ZombieProducerAccepted,

    // Retention, epochs, clocks.
    /// Retention by size takes the active segment when it alone is too large.
    RetentionDeletesActiveSegment,
    /// A new leader does not note where its epoch begins (KAFKA-7415).
    EpochStartNotRecorded,
    /// The wall clock is asserted not to go back (KAFKA-5415, KAFKA-8803).
    WallClockAsserted,
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

const _: () = assert!(Plant::ALL.len() <= 64, "a bit each");
