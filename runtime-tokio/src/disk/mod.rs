//! The real disk: carries out the core's I/O commands.
//!
//! The commands of one owner form a *lane*: they run one after the other, in order, on one thread at a time.
//! Lanes run beside each other. Reads stand outside the lanes, as the vocabulary allows.
//!
//! What only touches the page cache (a write, a read of what is cached) may be carried out by the very thread
//! that ran the core, so that a produce that needs no sync never waits for another thread. What may wait for the
//! device (a sync, a rename, a cold read) goes to the pool, whose threads are started when they are first needed.
//! There records go before names ([`of_names`]): a topic of ten thousand partitions makes as many directories, and
//! who produces meanwhile does not wait for them.
//!
//! The order of completions: a lane stays taken until the completions of what ran are in the inbox, so a
//! thread that takes it over cannot overtake them.

mod files;
mod memory;
mod operations;

pub use files::{Content, FileTable, OpenFile, Roots};
pub use memory::Memory;

use crate::metrics::times::{Reading, Times};
use operations::{Context, len_of};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;
use tidelog_core::io::{IoCommand, IoCompletion, IoDone, IoOp, IoOwner};
use tidelog_core::wire::FileSlice;

/// A pool thread runs system calls and small decisions of the core; the core's own depth is modest.
const STACK_BYTES: usize = 512 * 1024;
/// The most bytes that one call writes: a lane that has piled up more is written in several.
const COALESCED_BYTES_MAX: u64 = 8 << 20;
/// Idle lanes are kept for reuse up to this many.
const IDLE_LANES_MAX: usize = 4096;

/// Who takes the completions: the inbox of the core.
pub trait Completions: Send + Sync + 'static {
    /// Puts them where the core will find them, in this order. Never blocks.
    fn deliver(&self, completions: &mut Vec<IoCompletion>);
    /// Runs the core on what was delivered, unless another thread is at it.
    fn run(self: Arc<Self>);
}

/// Something that can be run now.
pub enum Task {
    /// Of this lane, which the holder of the task has taken.
    Lane(IoOwner),
    /// A [`IoOp::Read`].
    Read(IoCommand),
}

/// What carries out the core's I/O commands: this machine's [`Disk`], or a simulated one.
pub trait Storage: Send + Sync + 'static {
    /// Queues `commands` in their lanes, and puts what can be run now into `runnable`: whoever calls must run it,
    /// here or in the pool. Calls must be made in the order in which the core gave the commands.
    fn enqueue(&self, commands: &mut Vec<IoCommand>, runnable: &mut VecDeque<Task>);

    /// Runs as much of `task` as does not wait for a device, on the calling thread, and leaves the rest to the pool.
    /// Follow-up work on the same lane, if any came meanwhile, is put into `runnable`.
    fn run_inline(
        &self,
        task: Task,
        sink: &Arc<dyn Completions>,
        runnable: &mut VecDeque<Task>,
        completions: &mut Vec<IoCompletion>,
    );

    /// Hands `task` to the pool.
    fn run_in_pool(&self, task: Task, sink: &Arc<dyn Completions>);

    /// Holds on to a slice that a response names.
    fn hold(&self, slice: &FileSlice) -> Arc<dyn Content>;

    /// The bytes that wait to be written.
    fn queued_bytes(&self) -> usize;

    /// How long syncs of files took; nothing where there is no device.
    fn flushes(&self, _now: Instant) -> Reading {
        Reading::default()
    }
}

pub struct Disk {
    context: Context,
    lanes: Mutex<HashMap<IoOwner, Lane>>,
    pool: Mutex<Pool>,
    work: Condvar,
    threads_max: usize,
    /// How many more threads outside the pool may be inside the disk at once: some must stay free for sockets
    /// when a device hangs.
    inline_free: AtomicUsize,
    queued_bytes: AtomicUsize,
}

#[derive(Default)]
struct Lane {
    queue: VecDeque<IoCommand>,
    /// Some thread runs it, or a task for it is on the way to one.
    taken: bool,
}

#[derive(Default)]
struct Pool {
    /// What records wait for, and whoever produces or fetches them.
    records: VecDeque<Task>,
    /// Lanes that begin with work [of names](of_names).
    names: VecDeque<Task>,
    /// How many threads are at `names`, and whether the last task that was taken is one of them.
    naming: usize,
    named_last: bool,
    threads: usize,
    idle: usize,
    stopping: bool,
    handles: Vec<std::thread::JoinHandle<()>>,
}

impl Pool {
    /// The next task, and whether it is one of names. Records go first, and a thread is left to them; names go on all
    /// the same, one after the other, while records keep coming.
    fn next(&mut self, threads_max: usize) -> Option<(Task, bool)> {
        let names_may = self.naming < (threads_max - 1).max(1);
        let names_turn = self.records.is_empty() || (self.naming == 0 && !self.named_last);
        let name = if names_may && names_turn { self.names.pop_front() } else { None };
        self.named_last = name.is_some();
        self.naming += usize::from(self.named_last);
        name.or_else(|| self.records.pop_front()).map(|task| (task, self.named_last))
    }
}

impl Disk {
    /// `threads_max`: how many threads the pool may have. `inline_max`: how many threads outside it may run
    /// tasks with [`run_inline`](Self::run_inline) at once.
    pub fn new(roots: Roots, threads_max: usize, inline_max: usize) -> Self {
        assert!(threads_max > 0);
        Self {
            context: Context { roots, files: FileTable::default(), flushes: Mutex::new(Times::new(Instant::now())) },
            lanes: Mutex::default(),
            pool: Mutex::default(),
            work: Condvar::new(),
            threads_max,
            inline_free: AtomicUsize::new(inline_max),
            queued_bytes: AtomicUsize::new(0),
        }
    }

    /// Ends the pool's threads once they have run what is queued, and waits for them.
    pub fn stop(&self) {
        let handles = {
            let mut pool = lock(&self.pool);
            pool.stopping = true;
            std::mem::take(&mut pool.handles)
        };
        self.work.notify_all();
        for handle in handles {
            // The last reference to the world may be dropped by one of these very threads.
            if handle.thread().id() != std::thread::current().id() {
                let _ = handle.join();
            }
        }
    }

    /// The life of a pool thread.
    fn serve(&self, sink: &Arc<dyn Completions>) {
        let mut completions = Vec::new();
        let mut of_names = false;
        while let Some((task, next_of_names)) = self.next_task(of_names) {
            of_names = next_of_names;
            match task {
                Task::Read(command) => {
                    completions.push(IoCompletion { id: command.id, result: self.context.perform(command.op) });
                    sink.deliver(&mut completions);
                    sink.clone().run();
                }
                Task::Lane(owner) => loop {
                    let batch = self.take(owner);
                    self.perform(batch, &mut completions);
                    sink.deliver(&mut completions);
                    // Before the lane is let go: what the core adds to it now, this thread carries out next.
                    sink.clone().run();
                    if !self.release(owner) {
                        break;
                    }
                },
            }
        }
    }

    /// `of_names`: whether the task that the calling thread has ended was one of names.
    fn next_task(&self, of_names: bool) -> Option<(Task, bool)> {
        let mut pool = lock(&self.pool);
        pool.naming -= usize::from(of_names);
        loop {
            if let Some(next) = pool.next(self.threads_max) {
                return Some(next);
            }
            if pool.stopping {
                return None;
            }
            pool.idle += 1;
            pool = self.work.wait(pool).expect("no panic holds this lock");
            pool.idle -= 1;
        }
    }

    fn take(&self, owner: IoOwner) -> VecDeque<IoCommand> {
        let mut lanes = lock(&self.lanes);
        let lane = lanes.get_mut(&owner).expect("a taken lane is kept");
        assert!(lane.taken);
        std::mem::take(&mut lane.queue)
    }

    fn put_back(&self, owner: IoOwner, mut first: VecDeque<IoCommand>) {
        let mut lanes = lock(&self.lanes);
        let lane = lanes.get_mut(&owner).expect("a taken lane is kept");
        assert!(lane.taken);
        first.append(&mut lane.queue);
        lane.queue = first;
    }

    /// Lets the lane go, or answers true: it has more, and stays taken.
    fn release(&self, owner: IoOwner) -> bool {
        let mut lanes = lock(&self.lanes);
        let many = lanes.len() > IDLE_LANES_MAX;
        let lane = lanes.get_mut(&owner).expect("a taken lane is kept");
        assert!(lane.taken);
        if !lane.queue.is_empty() {
            return true;
        }
        lane.taken = false;
        if many {
            lanes.remove(&owner);
        }
        false
    }

    /// Carries out a lane's commands in order; writes that continue one another go out in one call.
    fn perform(&self, mut batch: VecDeque<IoCommand>, completions: &mut Vec<IoCompletion>) {
        while let Some(command) = batch.pop_front() {
            let IoOp::Write { file, position, chunks } = &command.op else {
                completions.push(IoCompletion { id: command.id, result: self.context.perform(command.op) });
                continue;
            };
            let mut bytes = len_of(chunks);
            let mut joined = 0;
            for next in &batch {
                match &next.op {
                    IoOp::Write { file: same, position: then, chunks: more }
                        if same == file && *then == position + bytes && bytes < COALESCED_BYTES_MAX =>
                    {
                        bytes += len_of(more);
                        joined += 1;
                    }
                    _ => break,
                }
            }
            let (file, position) = (*file, *position);
            let group: Vec<IoCommand> = std::iter::once(command).chain(batch.drain(..joined)).collect();
            let pieces: Vec<&[u8]> = group
                .iter()
                .flat_map(|command| match &command.op {
                    IoOp::Write { chunks, .. } => chunks.iter().map(|chunk| &chunk[..]),
                    _ => unreachable!("only writes are joined"),
                })
                .collect();
            let result = self.context.write(file, position, &pieces);
            // Where the call failed, how much of it reached the file is unknown: all of it has failed.
            completions.extend(group.iter().map(|command| IoCompletion { id: command.id, result: result.clone() }));
            self.queued_bytes.fetch_sub(bytes as usize, Ordering::Relaxed);
            debug_assert!(matches!(result, Ok(IoDone::Unit) | Err(_)));
        }
    }
}

impl Storage for Arc<Disk> {
    fn enqueue(&self, commands: &mut Vec<IoCommand>, runnable: &mut VecDeque<Task>) {
        if commands.is_empty() {
            return;
        }
        let mut lanes = lock(&self.lanes);
        for command in commands.drain(..) {
            if let IoOp::Read { .. } = command.op {
                runnable.push_back(Task::Read(command));
                continue;
            }
            if let IoOp::Write { chunks, .. } = &command.op {
                self.queued_bytes.fetch_add(len_of(chunks) as usize, Ordering::Relaxed);
            }
            let owner = command.id.owner;
            let lane = lanes.entry(owner).or_default();
            lane.queue.push_back(command);
            if !lane.taken {
                lane.taken = true;
                runnable.push_back(Task::Lane(owner));
            }
        }
    }

    fn run_inline(
        &self,
        task: Task,
        sink: &Arc<dyn Completions>,
        runnable: &mut VecDeque<Task>,
        completions: &mut Vec<IoCompletion>,
    ) {
        let Ok(_) = self.inline_free.fetch_update(Ordering::Acquire, Ordering::Relaxed, |free| free.checked_sub(1))
        else {
            return self.run_in_pool(task, sink);
        };
        match task {
            Task::Read(command) => {
                let IoOp::Read { file, position, len } = command.op else { unreachable!("a read") };
                match self.context.read_cached(file, position, len) {
                    Some(result) => {
                        completions.push(IoCompletion { id: command.id, result });
                        sink.deliver(completions);
                    }
                    None => self.run_in_pool(Task::Read(command), sink),
                }
            }
            Task::Lane(owner) => {
                let mut batch = self.take(owner);
                let cheap = batch.iter().take_while(|command| matches!(command.op, IoOp::Write { .. })).count();
                let slow = batch.split_off(cheap);
                self.perform(batch, completions);
                if !completions.is_empty() {
                    sink.deliver(completions);
                }
                if slow.is_empty() {
                    if self.release(owner) {
                        runnable.push_back(Task::Lane(owner));
                    }
                } else {
                    self.put_back(owner, slow);
                    self.run_in_pool(Task::Lane(owner), sink);
                }
            }
        }
        self.inline_free.fetch_add(1, Ordering::Release);
    }

    fn run_in_pool(&self, task: Task, sink: &Arc<dyn Completions>) {
        let names = match task {
            Task::Read(_) => false,
            Task::Lane(owner) => lock(&self.lanes)
                .get(&owner)
                .and_then(|lane| lane.queue.front())
                .is_some_and(|first| of_names(&first.op)),
        };
        let mut pool = lock(&self.pool);
        if names {
            pool.names.push_back(task)
        } else {
            pool.records.push_back(task)
        }
        if pool.idle >= pool.records.len() + pool.names.len() {
            self.work.notify_one();
        } else if pool.threads < self.threads_max && !pool.stopping {
            pool.threads += 1;
            let (disk, sink) = (self.clone(), sink.clone());
            let thread = std::thread::Builder::new().name(format!("disk-{}", pool.threads)).stack_size(STACK_BYTES);
            match thread.spawn(move || disk.serve(&sink)) {
                Ok(handle) => pool.handles.push(handle),
                Err(error) if pool.threads > 1 => {
                    pool.threads -= 1;
                    tracing::warn!("cannot start another disk thread: {error}");
                }
                Err(error) => panic!("cannot start a disk thread: {error}"),
            }
        }
    }

    fn hold(&self, slice: &FileSlice) -> Arc<dyn Content> {
        self.context.files.find(slice.file).expect("the core names files that it has open")
    }

    fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    fn flushes(&self, now: Instant) -> Reading {
        lock(&self.context.flushes).read(now)
    }
}

/// Makes, renames or removes files and directories, for which nobody's records wait. What a log does to begin a new
/// segment is not of these.
fn of_names(op: &IoOp) -> bool {
    matches!(op, IoOp::CreateDir { .. } | IoOp::Rename { .. } | IoOp::Remove { .. } | IoOp::RemoveDir { .. })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic holds this lock")
}

#[cfg(test)]
mod tests;
