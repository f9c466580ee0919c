//! Waits to the microsecond, but keeps a processor busy for the last two milliseconds of each wait.

use std::io;
use std::time::{Duration, Instant};

/// By how much a timer of tokio may end too late: tokio counts in milliseconds, and the system adds some delay.
const TOKIO_LATE_MAX: Duration = Duration::from_millis(2);

/// One alarm.
pub struct Timer(());

impl Timer {
    /// Never fails; Linux's timer may.
    pub fn new() -> io::Result<Self> {
        Ok(Self(()))
    }

    /// Returns when `at` has come. May be dropped and called again at any time. Must be called inside a runtime.
    pub async fn until(&mut self, at: Instant) -> io::Result<()> {
        let left = at.saturating_duration_since(Instant::now());
        if let Some(long) = left.checked_sub(TOKIO_LATE_MAX) {
            tokio::time::sleep(long).await;
        }
        // Between two looks at the clock the runtime's other tasks and its sockets get their turn.
        while Instant::now() < at {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
