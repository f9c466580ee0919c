//! The real clocks, as the core wants them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidelog_core::time::{Mono, Now, WallMs};

/// Both clocks; the monotonic one counts from when this was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub fn now_mono(&self) -> Mono {
        Mono(u64::try_from(self.start.elapsed().as_nanos()).expect("a process lives less than 584 years"))
    }

    pub fn now(&self) -> Now {
        let mono = self.now_mono();
        // A wall clock before 1970 is broken; the core takes the epoch for it.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Now { mono, wall: WallMs(i64::try_from(wall).unwrap_or(i64::MAX)) }
    }

    /// When it will be `mono`. What lies too far ahead for the system's clock is a year from now.
    pub fn instant(&self, mono: Mono) -> Instant {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        self.start + Duration::from_nanos(mono.0).min(self.start.elapsed() + YEAR)
    }
}
