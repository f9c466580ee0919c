//! A limit on the bytes of requests that the broker holds at once (`queued.max.request.bytes`).
//!
//! Bytes count from when they arrive, so a frame that is only announced costs nothing. While the budget is used up, no
//! connection begins to read a large frame. One connection at a time may finish a frame that it has begun (an
//! [`Overdraft`]), so that half-read frames cannot block each other for ever. Small requests are always read, up to
//! [`FLOOR_BYTES`] a connection: clients that fill the budget with frames they never finish delay large requests only.
//! Together the connections hold at most the limit, one frame (`socket.request.max.bytes`) and [`FLOOR_BYTES`] each.

use crate::frames::ROOM_BYTES_MIN;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The limit if `queued.max.request.bytes` is -1.
pub const DEFAULT_BYTES: usize = 256 << 20;

/// What each connection may hold even while the budget is used up.
pub const FLOOR_BYTES: usize = ROOM_BYTES_MIN;
/// How often a waiting connection checks for room while bytes are held outside the budget: freeing those wakes nobody.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);
/// The same while no bytes are held outside the budget. Many connections may wait, and for long.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The limit on the bytes of requests, and how many are held.
pub struct Budget {
    limit: usize,
    held: AtomicUsize,
    overdraft: Arc<Semaphore>,
    freed: Arc<Notify>,
}

/// The right to finish reading one frame although the budget is used up. Only one exists at a time.
pub struct Overdraft {
    permit: Option<OwnedSemaphorePermit>,
    freed: Arc<Notify>,
}

impl Drop for Overdraft {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.freed.notify_waiters();
    }
}

impl Budget {
    pub fn new(limit: usize) -> Self {
        Self { limit, held: AtomicUsize::new(0), overdraft: Arc::new(Semaphore::new(1)), freed: Arc::default() }
    }

    /// Whether the limit is reached. `held_elsewhere`: bytes outside the budget that count as well (writes that wait
    /// for the disk).
    pub fn is_spent(&self, held_elsewhere: usize) -> bool {
        self.held().saturating_add(held_elsewhere) >= self.limit
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn free(&self, bytes: usize) {
        let before = self.held.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "{bytes} bytes were freed and only {before} were held");
        if before >= self.limit && before - bytes < self.limit {
            self.freed.notify_waiters();
        }
    }

    pub fn overdraw(&self) -> Option<Overdraft> {
        let permit = self.overdraft.clone().try_acquire_owned().ok()?;
        Some(Overdraft { permit: Some(permit), freed: self.freed.clone() })
    }

    /// Completes when [`is_spent`](Self::is_spent) may have changed. `held_elsewhere` is the same as there.
    pub async fn changed(&self, held_elsewhere: usize) {
        let interval = if held_elsewhere > 0 { CHECK_INTERVAL } else { IDLE_CHECK_INTERVAL };
        let _ = tokio::time::timeout(interval, self.freed.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_budget_lets_one_go_on_and_frees_what_was_held() {
        let budget = Budget::new(100);
        budget.hold(60);
        assert!(!budget.is_spent(39));
        assert!(budget.is_spent(40));
        budget.hold(40);
        assert!(budget.is_spent(0));
        let first = budget.overdraw();
        assert!(first.is_some() && budget.overdraw().is_none());
        drop(first);
        assert!(budget.overdraw().is_some());
        budget.free(1);
        assert!(!budget.is_spent(0));
    }
}
