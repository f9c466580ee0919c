//! A node's two clocks. The monotonic clock may run a little fast or slow, and never goes back. The wall clock drifts
//! like the monotonic one, and can also jump.

use crate::random::stream;
use serde::{Deserialize, Serialize};
use tidelog_core::time::{Mono, Now, WallMs};

/// The wall clocks of all worlds start about here: 2026-01-01T00:00:00Z.
pub const WALL_START_MS: i64 = 1_767_225_600_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClockOptions {
    /// How much later than its deadline a tick may come.
    pub tick_late_ns_max: u64,
    /// How far apart the nodes' wall clocks are.
    pub wall_apart_ms_max: u64,
    pub drift: Drift,
}

impl ClockOptions {
    pub const CALM: Self = Self { tick_late_ns_max: 0, wall_apart_ms_max: 0, drift: Drift::None };
}

impl Default for ClockOptions {
    fn default() -> Self {
        Self::CALM
    }
}

/// How a clock's rate differs from the world's, in parts per million: 10,000 are one in a hundred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Drift {
    None,
    Linear {
        ppm: i32,
    },
    /// Fast for one second, slow for the next, by this much.
    Step {
        ppm: i32,
    },
    /// Another rate in every second, at most this much fast or slow.
    Noisy {
        ppm: i32,
    },
}

#[derive(Clone, Debug)]
pub struct Clock {
    seed: u64,
    node: u64,
    drift: Drift,
    mono_start: u64,
    wall_offset_ms: i64,
}

const SECOND: u64 = 1_000_000_000;
const MILLION: i128 = 1_000_000;

impl Clock {
    pub fn new(seed: u64, node: u64, options: &ClockOptions) -> Self {
        let mut stream = stream(seed, "clock", &[node]);
        let apart = options.wall_apart_ms_max;
        Self {
            seed,
            node,
            drift: options.drift,
            mono_start: stream.between(0, 1 << 40),
            wall_offset_ms: stream.between(0, apart) as i64 - (apart / 2) as i64,
        }
    }

    /// What both clocks show at a time of the world.
    pub fn now(&self, time: u64) -> Now {
        let shown = time.saturating_add_signed(self.lead(time));
        let wall = WALL_START_MS + (shown / 1_000_000) as i64 + self.wall_offset_ms;
        Now { mono: Mono(self.mono_start + shown), wall: WallMs(wall) }
    }

    /// The time of the world at which the monotonic clock has reached `mono`.
    pub fn time_of(&self, mono: Mono) -> u64 {
        let shown = mono.0.saturating_sub(self.mono_start);
        if self.drift == Drift::None {
            return shown;
        }
        let mut time = shown;
        for _ in 0..3 {
            time = shown.saturating_add_signed(-self.lead(time));
        }
        // The clock may still be a few nanoseconds short of `mono`; as its rate is near one, few steps close the gap.
        while self.now(time).mono < mono {
            time += mono.0 - self.now(time).mono.0;
        }
        time
    }

    pub fn jump_wall(&mut self, ms: i64) {
        self.wall_offset_ms += ms;
    }

    /// How far the clock is ahead.
    fn lead(&self, time: u64) -> i64 {
        let second = time / SECOND;
        match self.drift {
            Drift::None => 0,
            Drift::Linear { ppm } => (i128::from(time) * i128::from(ppm) / MILLION) as i64,
            Drift::Step { .. } | Drift::Noisy { .. } => {
                let (from, to) = (self.lead_at_second(second), self.lead_at_second(second + 1));
                from + (to - from) * (time % SECOND) as i64 / SECOND as i64
            }
        }
    }

    fn lead_at_second(&self, second: u64) -> i64 {
        match self.drift {
            Drift::Step { ppm } => (second % 2) as i64 * i64::from(ppm) * 1_000,
            Drift::Noisy { ppm } => {
                // Within a second the lead may change from the lowest to the highest value, which is twice this.
                let most = u64::from(ppm.unsigned_abs()) * 500;
                let mut stream = stream(self.seed, "clock.noise", &[self.node, second]);
                stream.between(0, 2 * most) as i64 - most as i64
            }
            Drift::None | Drift::Linear { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(drift: Drift) -> Clock {
        Clock::new(7, 0, &ClockOptions { drift, ..ClockOptions::CALM })
    }

    const ALL: [Drift; 6] = [
        Drift::None,
        Drift::Linear { ppm: 10_000 },
        Drift::Linear { ppm: -10_000 },
        Drift::Step { ppm: 10_000 },
        Drift::Step { ppm: -10_000 },
        Drift::Noisy { ppm: 10_000 },
    ];

    #[test]
    fn no_clock_goes_back_and_none_is_off_by_more_than_one_in_a_hundred() {
        for drift in ALL {
            let clock = clock(drift);
            let mono = |time| clock.now(time).mono;
            assert!(
                (999_000_000..1_001_000_000).all(|time| time % 997 > 50 || mono(time) <= mono(time + 1)),
                "{drift:?}"
            );
            let mut last = clock.now(0).mono.0;
            for time in (1..20_000).map(|step| step * 1_234_567) {
                let now = clock.now(time).mono.0;
                let passed = now - last;
                assert!((1_222_000..=1_247_500).contains(&passed), "{drift:?}: {passed} at {time}");
                last = now;
            }
        }
    }

    #[test]
    fn the_time_of_a_deadline_is_when_the_clock_reaches_it_and_not_much_later() {
        for drift in ALL {
            let clock = clock(drift);
            for time in (0..2_000).map(|step| step * 7_654_321) {
                let mono = clock.now(time).mono;
                let found = clock.time_of(mono);
                assert!(clock.now(found).mono >= mono, "{drift:?}");
                assert!(found <= time + 10_000, "{drift:?}: {found} for {time}");
            }
        }
    }

    #[test]
    fn the_wall_jumps_alone() {
        let mut clock = clock(Drift::None);
        let before = clock.now(5_000_000);
        clock.jump_wall(-3_600_000);
        let after = clock.now(6_000_000);
        assert!(after.mono > before.mono);
        assert_eq!(after.wall.0, before.wall.0 - 3_599_999);
    }
}
