//! The system's clocks, in the core's types.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidelog_core::time::{Mono, Now, WallMs};

/// Both of the system's clocks. The monotonic one counts from when this was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub fn now_mono(&self) -> Mono {
        Mono(u64::try_from(self.start.elapsed().as_nanos()).expect("a process runs for less than 584 years"))
    }

    pub fn now(&self) -> Now {
        let mono = self.now_mono();
        Now { mono, wall: wall_ms(SystemTime::now()) }
    }

    /// The system's time at `mono`. A time that is more than a year ahead counts as one year ahead, since the system's
    /// type may not be able to hold it.
    pub fn instant(&self, mono: Mono) -> Instant {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        self.start + Duration::from_nanos(mono.0).min(self.start.elapsed() + YEAR)
    }
}

/// A time of the system's wall clock. A wall clock that shows a time before 1970 is wrong; it counts as 1970.
pub fn wall_ms(time: SystemTime) -> WallMs {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    WallMs(i64::try_from(since_1970).unwrap_or(i64::MAX))
}
