//! Carries out the core's I/O commands on the real disk.
//!
//! The commands of one owner form a *lane*. They are carried out in order, by one thread at a time; different lanes run
//! at the same time. Reads belong to no lane, since the core allows them in any order.
//!
//! Commands that only touch the page cache (a write, a read of cached bytes) may be carried out by the thread that ran
//! the core, so that a produce without a sync never waits for another thread. Commands that may wait for the device (a
//! sync, a rename, a read of bytes that are not cached) go to the pool, whose threads are started when they are first
//! needed. In the pool, commands that records wait for go before changes of directories:
//! creating a topic of ten thousand partitions makes as many directories, and producers need not wait for these.
//!
//! The completions of a lane are delivered in order: a thread keeps the lane taken until the completions of what it
//! carried out are in the inbox, so the next thread cannot deliver first.

mod files;
mod memory;
mod operations;

pub use files::{Content, FileTable, OpenFile, Roots};
pub use memory::Memory;
pub use operations::replace;

use crate::metrics::times::{Reading, Times};
use operations::{Context, len_of};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;
use tidelog_core::ids::LogDirId;
use tidelog_core::io::{IoCommand, IoCompletion, IoDone, IoOp, IoOwner};
use tidelog_core::wire::FileSlice;

/// The stack of a pool thread. It runs system calls and the core, neither of which recurses deeply.
const STACK_BYTES: usize = 512 * 1024;
/// The most bytes that one call writes. Writes of a lane that together are larger go out in several calls.
const COALESCED_BYTES_MAX: u64 = 8 << 20;
/// While there are more lanes than this, a lane is dropped when it becomes idle; otherwise it is kept for reuse.
const IDLE_LANES_MAX: usize = 4096;

/// Takes the completions: the [`Door`](crate::door::Door), which puts them into the core's inbox.
pub trait Completions: Send + Sync + 'static {
    /// Puts the completions into the inbox, in this order. Never blocks.
    fn deliver(&self, completions: &mut Vec<IoCompletion>);
    /// Runs the core on what was delivered, unless another thread is doing so.
    fn run(self: Arc<Self>);
}

/// Work that can be carried out now.
pub enum Task {
    /// The commands of this lane, which is marked as taken until the task has been carried out.
    Lane(IoOwner),
    /// A [`IoOp::Read`].
    Read(IoCommand),
}

/// Carries out the core's I/O commands: [`Disk`], [`Memory`], or a simulated disk.
pub trait Storage: Send + Sync + 'static {
    /// Queues `commands` in their lanes, and puts the tasks that can run now into `runnable`. The caller must run
    /// these, with [`run_inline`](Self::run_inline) or [`run_in_pool`](Self::run_in_pool). Calls must come in the order
    /// in which the core gave the commands.
    fn enqueue(&self, commands: &mut Vec<IoCommand>, runnable: &mut VecDeque<Task>);

    /// Carries out the part of `task` that does not wait for a device, on the calling thread, and gives the rest to the
    /// pool. If commands were added to the lane meanwhile, a task for them is put into `runnable`.
    fn run_inline(
        &self,
        task: Task,
        sink: &Arc<dyn Completions>,
        runnable: &mut VecDeque<Task>,
        completions: &mut Vec<IoCompletion>,
    );

    /// Gives `task` to the pool.
    fn run_in_pool(&self, task: Task, sink: &Arc<dyn Completions>);

    /// The file of a slice that a response names. It can be read as long as the returned value lives, even if the core
    /// closes or removes the file.
    fn content_of(&self, slice: &FileSlice) -> Arc<dyn Content>;

    /// How many bytes wait to be written.
    fn queued_bytes(&self) -> usize;

    /// The volume of a log directory; `None` if it cannot be measured. May wait for a device.
    fn volume(&self, _dir: LogDirId) -> Option<Volume> {
        None
    }

    /// How long syncs of files took; no entries if there is no device.
    fn flushes(&self, _now: Instant) -> Reading {
        Reading::default()
    }
}

/// The volume that a log directory lies on: its size, and how much of it is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    pub total_bytes: u64,
    /// Free for the superuser, who may also use what the file system reserves.
    pub free_bytes: u64,
    /// Free for everybody else.
    pub usable_bytes: u64,
}

/// The real disk: lanes of commands, and a pool of threads that carries out those that may wait for a device.
pub struct Disk {
    context: Context,
    lanes: Mutex<HashMap<IoOwner, Lane>>,
    pool: Mutex<Pool>,
    work: Condvar,
    threads_max: usize,
    /// How many more threads outside the pool may carry out tasks at this moment. The limit keeps some threads free for
    /// sockets when a device hangs.
    inline_free: AtomicUsize,
    queued_bytes: AtomicUsize,
}

/// The commands of one owner that are not carried out yet.
#[derive(Default)]
struct Lane {
    queue: VecDeque<IoCommand>,
    /// A thread carries out the lane's commands, or a task for the lane waits for one.
    taken: bool,
}

/// The tasks that wait for a pool thread, and the pool's threads.
#[derive(Default)]
struct Pool {
    /// Tasks that records wait for.
    records: VecDeque<Task>,
    /// Lanes whose first command [changes a directory](is_directory_change).
    directory_changes: VecDeque<Task>,
    /// How many threads carry out a task of `directory_changes`.
    directory_changes_under_way: usize,
    /// Whether the last task that was taken was one of `directory_changes`.
    last_was_directory_change: bool,
    threads: usize,
    idle: usize,
    stopping: bool,
    handles: Vec<std::thread::JoinHandle<()>>,
}

impl Pool {
    /// The next task, and whether it is one of `directory_changes`. Tasks of `records` go first, and one thread is left
    /// free for them, unless there is only one. Directory changes still make progress while new `records` keep coming:
    /// one thread at a time takes one of them between two tasks of `records`.
    fn next(&mut self, threads_max: usize) -> Option<(Task, bool)> {
        let change_allowed = self.directory_changes_under_way < (threads_max - 1).max(1);
        let change_due =
            self.records.is_empty() || (self.directory_changes_under_way == 0 && !self.last_was_directory_change);
        let change = if change_allowed && change_due { self.directory_changes.pop_front() } else { None };
        self.last_was_directory_change = change.is_some();
        self.directory_changes_under_way += usize::from(self.last_was_directory_change);
        change.or_else(|| self.records.pop_front()).map(|task| (task, self.last_was_directory_change))
    }
}

impl Disk {
    /// `threads_max`: how many threads the pool may have. `inline_max`: how many threads outside the pool may run tasks
    /// with [`run_inline`](Storage::run_inline) at the same time.
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

    /// Ends the pool's threads when they have carried out everything that is queued, and waits for them.
    pub fn stop(&self) {
        let handles = {
            let mut pool = lock(&self.pool);
            pool.stopping = true;
            std::mem::take(&mut pool.handles)
        };
        self.work.notify_all();
        for handle in handles {
            // A pool thread itself may drop the last reference to the server, and cannot wait for its own end.
            if handle.thread().id() != std::thread::current().id() {
                let _ = handle.join();
            }
        }
    }

    /// The main function of a pool thread.
    fn serve(&self, sink: &Arc<dyn Completions>) {
        let mut completions = Vec::new();
        let mut was_directory_change = false;
        while let Some((task, is_directory_change_task)) = self.next_task(was_directory_change) {
            was_directory_change = is_directory_change_task;
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
                    // While the lane is still taken, so that this thread also carries out what the core now adds to the
                    // lane.
                    sink.clone().run();
                    if !self.release(owner) {
                        break;
                    }
                },
            }
        }
    }

    /// Waits for the next task, and says whether it is one of `directory_changes`; `None` when the pool stops.
    /// `finished_directory_change`: whether the task that the calling thread has finished was one of these.
    fn next_task(&self, finished_directory_change: bool) -> Option<(Task, bool)> {
        let mut pool = lock(&self.pool);
        pool.directory_changes_under_way -= usize::from(finished_directory_change);
        loop {
            if let Some(next) = pool.next(self.threads_max) {
                return Some(next);
            }
            if pool.stopping {
                return None;
            }
            pool.idle += 1;
            pool = self.work.wait(pool).expect("no thread panics while it holds this lock");
            pool.idle -= 1;
        }
    }

    fn take(&self, owner: IoOwner) -> VecDeque<IoCommand> {
        let mut lanes = lock(&self.lanes);
        let lane = lanes.get_mut(&owner).expect("only idle lanes are dropped");
        assert!(lane.taken);
        std::mem::take(&mut lane.queue)
    }

    fn put_back(&self, owner: IoOwner, mut first: VecDeque<IoCommand>) {
        let mut lanes = lock(&self.lanes);
        let lane = lanes.get_mut(&owner).expect("only idle lanes are dropped");
        assert!(lane.taken);
        first.append(&mut lane.queue);
        lane.queue = first;
    }

    /// Marks the lane as no longer taken. Returns true, and leaves it taken, if it has more commands.
    fn release(&self, owner: IoOwner) -> bool {
        let mut lanes = lock(&self.lanes);
        let many = lanes.len() > IDLE_LANES_MAX;
        let lane = lanes.get_mut(&owner).expect("only idle lanes are dropped");
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

    /// Carries out a lane's commands in order. Writes that continue one another in the same file go out in one call.
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
                    _ => unreachable!("a group has only writes"),
                })
                .collect();
            let result = self.context.write(file, position, &pieces);
            // If the call failed, it is unknown how much of it reached the file, so every one of these writes has
            // failed.
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
                let IoOp::Read { file, position, len } = command.op else {
                    unreachable!("a `Task::Read` holds a read")
                };
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
        let changes_directory = match task {
            Task::Read(_) => false,
            Task::Lane(owner) => lock(&self.lanes)
                .get(&owner)
                .and_then(|lane| lane.queue.front())
                .is_some_and(|first| is_directory_change(&first.op)),
        };
        let mut pool = lock(&self.pool);
        if changes_directory {
            pool.directory_changes.push_back(task)
        } else {
            pool.records.push_back(task)
        }
        if pool.idle >= pool.records.len() + pool.directory_changes.len() {
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

    fn content_of(&self, slice: &FileSlice) -> Arc<dyn Content> {
        self.context.files.find(slice.file).expect("a response names only files that the core has open")
    }

    fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    fn volume(&self, dir: LogDirId) -> Option<Volume> {
        self.context.volume(dir).ok()
    }

    fn flushes(&self, now: Instant) -> Reading {
        lock(&self.context.flushes).read(now)
    }
}

/// Whether a command creates, renames or removes a directory or file, for which no records wait. Creating the files of
/// a new segment is not meant: that is done by `Open`.
fn is_directory_change(op: &IoOp) -> bool {
    matches!(op, IoOp::CreateDir { .. } | IoOp::Rename { .. } | IoOp::Remove { .. } | IoOp::RemoveDir { .. })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds this lock")
}

#[cfg(test)]
mod tests;
