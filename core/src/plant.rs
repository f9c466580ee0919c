//! Known bugs that a test build can plant, to show that the simulator finds them.
//!
//! Each is a switch of [`Plants`], which travels in the broker's configuration. Without the feature `plants`
//! [`Plants::has`] is the constant `false`, and the compiler removes every site.

/// A bug that some broker has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Plant {
    /// A produce is acknowledged when its write was issued, not when it is on stable storage.
    AcknowledgeBeforeSync,
    /// Recovery keeps a batch whose checksum or length is wrong at the end of the log.
    TornTailAccepted,
    /// The high watermark is one past the last stable record.
    HighWatermarkOneTooHigh,
    /// An idempotent producer's retry is appended again (KIP-98).
    DuplicateAppendedTwice,
    /// A failed sync is treated as a successful one (fsyncgate).
    SyncErrorIgnored,
}

impl Plant {
    pub const ALL: [Plant; 5] = [
        Plant::AcknowledgeBeforeSync,
        Plant::TornTailAccepted,
        Plant::HighWatermarkOneTooHigh,
        Plant::DuplicateAppendedTwice,
        Plant::SyncErrorIgnored,
    ];
}

/// The bugs that are switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plants {
    #[cfg(feature = "plants")]
    bits: u32,
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
