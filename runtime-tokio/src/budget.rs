//! How many bytes of requests the broker holds at once.
//!
//! Bytes are counted as they arrive, so that a frame that is only announced costs nothing. While the budget is
//! spent nobody begins a new frame; and one connection at a time may go on with a frame it has begun, so that
//! frames which wait for each other's room cannot hold each other up. All in all at most the limit plus one frame
//! (`socket.request.max.bytes`) and one read per connection are held.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Where `queued.max.request.bytes` is -1.
pub const DEFAULT_BYTES: usize = 256 << 20;

pub struct Budget {
    limit: usize,
    held: AtomicUsize,
    overdraft: Arc<Semaphore>,
    freed: Notify,
}

/// The right to go on reading one frame although the budget is spent.
pub struct Overdraft(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Budget {
    pub fn new(limit: usize) -> Self {
        Self { limit, held: AtomicUsize::new(0), overdraft: Arc::new(Semaphore::new(1)), freed: Notify::new() }
    }

    /// `beside`: bytes held elsewhere that count as well (writes that wait for the disk).
    pub fn is_spent(&self, beside: usize) -> bool {
        self.held().saturating_add(beside) >= self.limit
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
        self.overdraft.clone().try_acquire_owned().ok().map(Overdraft)
    }

    /// Completes when it may be worth looking again. Looks by itself now and then, since what is held beside the
    /// budget is freed without a word.
    pub async fn changed(&self) {
        let _ = tokio::time::timeout(std::time::Duration::from_millis(5), self.freed.notified()).await;
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
