//! Limits how many lines of one kind are logged. Clients can cause some lines at will, for example by breaking the
//! protocol. The first few of each second are logged, the rest only counted, so that no client can fill the operator's
//! disk or keep the broker busy with logging.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many lines are logged in each [`WINDOW`].
pub const LINES_A_WINDOW: u32 = 20;
pub const WINDOW: Duration = Duration::from_secs(1);

/// Log lines of one kind, with their limit.
pub struct LimitedLog {
    /// A noun for the lines, to stand after a number: `connections closed for what their clients sent`.
    what: &'static str,
    window: Mutex<Window>,
}

/// The lines of one kind within one second.
struct Window {
    since: Instant,
    logged: u32,
    /// Counted lines whose number is not logged yet.
    unlogged: u64,
}

/// What happens to a line.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Logged,
    Counted,
    /// The first one of its window that is only counted. After this time the number of counted lines must be logged.
    CountedFirst(Duration),
}

impl LimitedLog {
    pub fn new(what: &'static str) -> Arc<Self> {
        Arc::new(Self { what, window: Mutex::new(Window { since: Instant::now(), logged: 0, unlogged: 0 }) })
    }

    /// Calls `log` if the limit allows, else counts. Must be called inside tokio's runtime.
    pub fn log(self: &Arc<Self>, log: impl FnOnce()) {
        let fate = self.with(|window| window.take(Instant::now()));
        match fate {
            Fate::Logged => log(),
            Fate::Counted => {}
            Fate::CountedFirst(rest) => {
                let limited_log = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(rest).await;
                    limited_log.log_count();
                });
            }
        }
    }

    fn log_count(&self) {
        let unlogged = self.with(|window| std::mem::take(&mut window.unlogged));
        if unlogged > 0 {
            tracing::info!("{unlogged} more {}: more than {LINES_A_WINDOW} a second are only counted", self.what);
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Window) -> T) -> T {
        // After a panic the numbers may be off by one, which does no harm.
        act(&mut self.window.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for LimitedLog {
    /// The runtime, with the task that would have logged the count, may be gone.
    fn drop(&mut self) {
        self.log_count();
    }
}

impl Window {
    fn take(&mut self, now: Instant) -> Fate {
        // The next window begins only when the count of this one has been logged.
        if self.unlogged == 0 && now.saturating_duration_since(self.since) >= WINDOW {
            *self = Self { since: now, logged: 0, unlogged: 0 };
        }
        if self.logged < LINES_A_WINDOW {
            self.logged += 1;
            return Fate::Logged;
        }
        self.unlogged += 1;
        match self.unlogged {
            1 => Fate::CountedFirst((self.since + WINDOW).saturating_duration_since(now)),
            _ => Fate::Counted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_in_one_second_are_counted_and_the_next_second_tells_again() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut window = Window { since: begin, logged: 0, unlogged: 0 };
        for _ in 0..LINES_A_WINDOW {
            assert_eq!(window.take(at(100)), Fate::Logged);
        }
        assert_eq!(window.take(at(400)), Fate::CountedFirst(Duration::from_millis(600)));
        assert_eq!(window.take(at(500)), Fate::Counted);
        // The timer is late: lines that are counted but not logged yet are not forgotten.
        assert_eq!(window.take(at(1500)), Fate::Counted);
        assert_eq!(std::mem::take(&mut window.unlogged), 3);
        assert_eq!(window.take(at(1600)), Fate::Logged);
        assert_eq!((window.since, window.logged), (at(1600), 1));
    }
}
