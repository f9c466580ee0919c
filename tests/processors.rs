//! This machine's processors: who gets them, and when one of them stood still.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often a processor is looked at.
const LOOK_EVERY: Duration = Duration::from_micros(300);
/// Who looks goes before everybody, and is later than that only if the host of a virtual machine gave the processor to
/// others, or the kernel did not let go of it: where it cannot be preempted, one long system call of anybody does that.
const LATE_MIN: Duration = Duration::from_micros(250);

/// From now on this thread, and those it starts, get only the processor time that nobody else wants: attackers that
/// compute beside the broker stand for attackers on machines of their own. A low priority alone would not do: who has it
/// keeps a processor for milliseconds before somebody who wakes up gets it.
pub fn give_way() {
    rustix::process::setpriority_process(None, 19).expect("a thread may always lower its priority");
    if !schedule("--idle", 0) {
        println!("chrt is not at hand: attackers hold up others now and then");
    }
}

/// How the kernel's scheduler treats this thread from now on, and those it starts: `chrt`'s name of it, and a priority.
/// False: it may not be treated so, or `chrt` is not at hand.
pub fn schedule(policy: &str, priority: u8) -> bool {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let status =
        Command::new("chrt").args([policy, "--pid", &priority.to_string(), &thread]).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// When a processor of this machine stood still for all threads: from the last time at which it was seen at work to the next.
#[derive(Clone, Copy, Debug)]
pub struct Standstill {
    pub from: Instant,
    pub to: Instant,
}

/// What `work` returns, and when the processors stood still meanwhile. Times taken then are mostly the host's doing, and
/// those without them are what can be compared on a shared machine; but a few may be what the kernel did for the broker or
/// its attackers, so whoever leaves them out says how many, and shows the times with them too. None are seen where this
/// process may not have its threads woken at once.
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
        println!("chrt --fifo is not allowed: nobody sees when processor {processor} stands still");
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
