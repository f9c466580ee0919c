//! Lines of the log that strangers can cause at will: told one by one while they are few, and counted where they are
//! many, so that nobody fills the operator's disk, or keeps the broker busy, by breaking the protocol.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many are told one by one in each [`WINDOW`].
pub const LINES_A_WINDOW: u32 = 20;
pub const WINDOW: Duration = Duration::from_secs(1);

/// The log's lines of one kind.
pub struct Remarks {
    /// What they are, behind a number: `connections closed for what their clients sent`.
    what: &'static str,
    window: Mutex<Window>,
}

struct Window {
    /// When it began.
    since: Instant,
    told: u32,
    untold: u64,
}

/// What becomes of a remark.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Told,
    Counted,
    /// Counted, as the first of its window: somebody must tell how many they were when this time has passed.
    CountedFirst(Duration),
}

impl Remarks {
    pub fn new(what: &'static str) -> Arc<Self> {
        Arc::new(Self { what, window: Mutex::new(Window { since: Instant::now(), told: 0, untold: 0 }) })
    }

    /// Tells one, or counts it. Inside tokio's runtime.
    pub fn tell(self: &Arc<Self>, tell: impl FnOnce()) {
        let fate = self.with(|window| window.take(Instant::now()));
        match fate {
            Fate::Told => tell(),
            Fate::Counted => {}
            Fate::CountedFirst(rest) => {
                let remarks = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(rest).await;
                    remarks.sum_up();
                });
            }
        }
    }

    fn sum_up(&self) {
        let untold = self.with(|window| std::mem::take(&mut window.untold));
        if untold > 0 {
            tracing::info!("{untold} more {}: more than {LINES_A_WINDOW} a second are only counted", self.what);
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Window) -> T) -> T {
        // A number too many or too few does no harm.
        act(&mut self.window.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Remarks {
    /// The runtime is gone, and with it who waited for the window's end.
    fn drop(&mut self) {
        self.sum_up();
    }
}

impl Window {
    fn take(&mut self, now: Instant) -> Fate {
        // Who was counted is told of before the next window begins.
        if self.untold == 0 && now.saturating_duration_since(self.since) >= WINDOW {
            *self = Self { since: now, told: 0, untold: 0 };
        }
        if self.told < LINES_A_WINDOW {
            self.told += 1;
            return Fate::Told;
        }
        self.untold += 1;
        match self.untold {
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
        let mut window = Window { since: begin, told: 0, untold: 0 };
        for _ in 0..LINES_A_WINDOW {
            assert_eq!(window.take(at(100)), Fate::Told);
        }
        assert_eq!(window.take(at(400)), Fate::CountedFirst(Duration::from_millis(600)));
        assert_eq!(window.take(at(500)), Fate::Counted);
        // The timer is late: what is not told yet is not forgotten.
        assert_eq!(window.take(at(1500)), Fate::Counted);
        assert_eq!(std::mem::take(&mut window.untold), 3);
        assert_eq!(window.take(at(1600)), Fate::Told);
        assert_eq!((window.since, window.told), (at(1600), 1));
    }
}
