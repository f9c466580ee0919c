//! How many bytes of requests the broker holds at once.
//!
//! Bytes are counted as they arrive, so that a frame that is only announced costs nothing. While the budget is
//! spent nobody begins a large frame; and one connection at a time may go on with a frame it has begun, so that
//! frames which wait for each other's room cannot hold each other up. Small requests are read all the same
//! ([`FLOOR_BYTES`]): whoever holds the budget with frames that never end holds up nobody but those who send large
//! ones. All in all at most the limit plus one frame (`socket.request.max.bytes`) and a small read per connection are
//! held.

use crate::frames::ROOM_BYTES_MIN;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Where `queued.max.request.bytes` is -1.
pub const DEFAULT_BYTES: usize = 256 << 20;

/// What each connection may hold whatever the others do.
pub const FLOOR_BYTES: usize = ROOM_BYTES_MIN;
/// How often a connection looks whether there is room that nobody told it of: what is held beside the budget is freed
/// without a word.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The same while nothing is held there. Many may wait, for long.
const LOOK_SELDOM_EVERY: Duration = Duration::from_millis(100);

pub struct Budget {
    limit: usize,
    held: AtomicUsize,
    overdraft: Arc<Semaphore>,
    freed: Arc<Notify>,
}

/// The right to go on reading one frame although the budget is spent.
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

    /// `beside`: bytes held elsewhere that count as well (writes that wait for the disk).
    pub fn is_spent(&self, beside: usize) -> bool {
        self.held().saturating_add(beside) >= self.limit
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
        assert!(before >= bytes, "more was freed than held");
        if before >= self.limit && before - bytes < self.limit {
            self.freed.notify_waiters();
        }
    }

    pub fn overdraw(&self) -> Option<Overdraft> {
        let permit = self.overdraft.clone().try_acquire_owned().ok()?;
        Some(Overdraft { permit: Some(permit), freed: self.freed.clone() })
    }

    /// Completes when it may be worth looking again. `beside`: as in [`is_spent`](Self::is_spent).
    pub async fn changed(&self, beside: usize) {
        let every = if beside > 0 { LOOK_EVERY } else { LOOK_SELDOM_EVERY };
        let _ = tokio::time::timeout(every, self.freed.notified()).await;
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
