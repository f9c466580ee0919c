//! Waits to the microsecond. Tokio's timers have a resolution of a millisecond, which is longer than a record takes:
//! the time that they oversleep would be counted as the broker's latency.

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::time::{Duration, Instant};
use tokio::net::unix::pipe::Receiver;

/// One alarm. To tokio its descriptor is the end of a pipe, out of which eight bytes come when the time has come.
pub struct Timer(Receiver);

impl Timer {
    /// Must be called inside a runtime.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Receiver::from_owned_fd_unchecked(timerfd_create(TimerfdClockId::Monotonic, flags)?).map(Self)
    }

    /// Returns once `at` has come. May be dropped and called again at any time.
    pub async fn until(&mut self, at: Instant) -> io::Result<()> {
        loop {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            // Setting it takes back what was set before.
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once(left))?;
            self.0.readable().await?;
            // An alarm of an earlier call, which nobody waited for, leaves nothing to read.
            match self.0.try_read(&mut [0; 8]) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    }
}

fn once(after: Duration) -> Itimerspec {
    Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: after.as_secs() as i64, tv_nsec: after.subsec_nanos().into() },
    }
}
