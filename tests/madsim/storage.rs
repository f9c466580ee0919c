//! The disk: `tidelog-sim`'s, with its latencies, stalls, crashes and checks, as the door's [`Storage`].

use crate::runs::Log;
use madsim::time::{Duration, sleep};
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::time::SystemTime;
use tidelog::clock::wall_ms;
use tidelog::disk::{Completions, Content, Storage, Task};
use tidelog_core::io::{IoCommand, IoCompletion, IoOp};
use tidelog_core::wire::FileSlice;
use tidelog_sim::disk::{Disk, Pinned, Ticket};
use tokio::sync::Notify;

/// The disk, which outlives the processes that use it.
pub type SharedDisk = Arc<Mutex<Disk>>;

/// The storage of one process of the broker.
#[derive(Clone)]
pub struct SimulatedStorage {
    disk: SharedDisk,
    commands: Arc<Mutex<Commands>>,
    woken: Arc<Notify>,
    log: Log,
}

/// The commands that are not completed.
#[derive(Default)]
struct Commands {
    /// Commands from the core that the disk has not been given yet.
    queued: Vec<IoCommand>,
    /// When each command completes, with the bytes it writes.
    under_way: BTreeMap<(u64, Ticket), usize>,
    sink: Option<Weak<dyn Completions>>,
}

impl SimulatedStorage {
    /// Must be called on the node of the process, so that completions stop when the process ends.
    pub fn start(disk: SharedDisk, log: Log) -> Self {
        let storage = Self { disk, commands: Arc::default(), woken: Arc::default(), log };
        madsim::task::spawn(storage.clone().complete());
        storage
    }

    async fn complete(self) {
        loop {
            let next = self.commands.lock().expect("a run has one thread").under_way.keys().next().map(|(at, _)| *at);
            let wait = next.map(|at| Duration::from_nanos(at.saturating_sub(crate::now_ns())));
            match wait {
                None => self.woken.notified().await,
                Some(wait) if !wait.is_zero() => {
                    tokio::select! {
                        biased;
                        () = self.woken.notified() => {}
                        () = sleep(wait) => {}
                    }
                }
                Some(_) => self.complete_due(),
            }
        }
    }

    fn complete_due(&self) {
        let (mut completions, sink) = {
            let (mut pending, mut disk) =
                (self.commands.lock().expect("a run has one thread"), self.disk.lock().expect("a run has one thread"));
            let wall = wall_ms(SystemTime::now());
            let mut completions = Vec::new();
            while let Some(first) = pending.under_way.first_entry()
                && first.key().0 <= crate::now_ns()
            {
                completions.push(disk.complete(wall, first.remove_entry().0.1));
            }
            (completions, pending.sink.as_ref().and_then(Weak::upgrade))
        };
        for completion in &completions {
            self.log.say(format_args!("disk {:?} {}", completion.id, completion.result.is_ok()));
        }
        if let Some(sink) = sink {
            sink.deliver(&mut completions);
            sink.run();
        }
    }
}

impl Storage for SimulatedStorage {
    fn enqueue(&self, commands: &mut Vec<IoCommand>, runnable: &mut VecDeque<Task>) {
        if let Some(first) = commands.first() {
            // The disk orders the commands itself, so one task stands for all of them.
            runnable.push_back(Task::Lane(first.id.owner));
            self.commands.lock().expect("a run has one thread").queued.append(commands);
        }
    }

    fn run_inline(
        &self,
        task: Task,
        sink: &Arc<dyn Completions>,
        _runnable: &mut VecDeque<Task>,
        _completions: &mut Vec<IoCompletion>,
    ) {
        self.run_in_pool(task, sink);
    }

    fn run_in_pool(&self, _task: Task, sink: &Arc<dyn Completions>) {
        let mut pending = self.commands.lock().expect("a run has one thread");
        pending.sink = Some(Arc::downgrade(sink));
        for command in std::mem::take(&mut pending.queued) {
            let bytes = match &command.op {
                IoOp::Write { chunks, .. } => chunks.iter().map(|chunk| chunk.len()).sum(),
                _ => 0,
            };
            let due = self.disk.lock().expect("a run has one thread").submit(crate::now_ns(), command);
            pending.under_way.insert(due, bytes);
        }
        self.woken.notify_one();
    }

    fn content_of(&self, slice: &FileSlice) -> Arc<dyn Content> {
        let pinned = self.disk.lock().expect("a run has one thread").pin(*slice);
        Arc::new(PinnedContent { disk: self.disk.clone(), pinned, position: slice.position })
    }

    fn queued_bytes(&self) -> usize {
        self.commands.lock().expect("a run has one thread").under_way.values().sum()
    }
}

/// A slice of a file that a response names, pinned on the simulated disk.
struct PinnedContent {
    disk: SharedDisk,
    pinned: Pinned,
    position: u64,
}

impl Content for PinnedContent {
    fn read_exact_at(&self, into: &mut [u8], position: u64) -> io::Result<()> {
        let Some(bytes) = self.disk.lock().expect("a run has one thread").read_pinned(self.pinned) else {
            return Err(io::Error::other("the disk cannot read it"));
        };
        let start = usize::try_from(position - self.position).expect("a slice in memory");
        match bytes.get(start..start + into.len()) {
            Some(found) => into.copy_from_slice(found),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    fn file(&self) -> Option<&File> {
        None
    }

    fn name(&self) -> String {
        "a file of the simulated disk".to_owned()
    }
}
