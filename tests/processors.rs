//! Gives threads their priorities on this machine's processors, and finds the times at which a processor stood still.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often a watcher wakes on its processor.
const LOOK_EVERY: Duration = Duration::from_micros(300);
/// A watcher that wakes this much too late has found a standstill. Its thread has priority over all others, so it is
/// only this late if the host of a virtual machine gave the processor to others, or if the kernel kept it: a kernel
/// without preemption does that during any long system call.
const LATE_MIN: Duration = Duration::from_micros(250);

/// From now on this thread, and the threads it starts, get only the processor time that nobody else wants. So attackers
/// on the broker's machine behave like attackers on machines of their own. A low priority (`nice`) alone is not enough:
/// a thread of low priority keeps a processor for milliseconds before a thread that wakes up gets it.
pub fn give_way() {
    rustix::process::setpriority_process(None, 19).expect("every thread may lower its own priority");
    if !schedule("--idle", 0) {
        println!("chrt is not installed: attackers now and then delay the broker and its clients");
    }
}

/// Sets how the kernel schedules this thread, and the threads it starts: `chrt`'s option for the policy, and a
/// priority. Returns false if that is not permitted or `chrt` is not installed.
pub fn schedule(policy: &str, priority: u8) -> bool {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let status =
        Command::new("chrt").args([policy, "--pid", &priority.to_string(), &thread]).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// A time during which a processor ran no thread at all: from the last time it was seen running to the next.
#[derive(Clone, Copy, Debug)]
pub struct Standstill {
    pub from: Instant,
    pub to: Instant,
}

/// Runs `work` and returns its result, with the times at which a processor stood still meanwhile. Most of these are the
/// doing of the virtual machine's host, so on a shared machine only durations without them can be compared. A few may
/// be the kernel's work for the broker or its attackers. So a caller that leaves such durations out must say how many,
/// and show the figures with them too. No standstills are found if this process may not use real-time scheduling.
pub fn watched<T>(work: impl FnOnce() -> T) -> (T, Vec<Standstill>) {
    let allowed = sched_getaffinity(None).expect("the processors of this process");
    let stop = &AtomicBool::new(false);
    thread::scope(|scope| {
        let processors = (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor));
        let watchers: Vec<_> = processors.map(|processor| scope.spawn(move || watch(processor, stop))).collect();
        let result = work();
        stop.store(true, Ordering::Relaxed);
        let seen = watchers.into_iter().flat_map(|watcher| watcher.join().expect("a watcher"));
        (result, seen.collect())
    })
}

fn watch(processor: usize, stop: &AtomicBool) -> Vec<Standstill> {
    let mut only = CpuSet::new();
    only.set(processor);
    if sched_setaffinity(None, &only).is_err() || !schedule("--fifo", 50) {
        println!("chrt --fifo is not permitted: times at which processor {processor} stands still are not found");
        return Vec::new();
    }
    let mut seen = Vec::new();
    let mut from = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(LOOK_EVERY);
        let to = Instant::now();
        if to - from > LOOK_EVERY + LATE_MIN {
            seen.push(Standstill { from, to });
        }
        from = to;
    }
    seen
}
