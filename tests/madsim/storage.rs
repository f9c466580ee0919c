//! The disk: `tidelog-sim`'s, with its latencies, stalls, crashes and contracts, behind the door's storage.

use crate::runs::Log;
use madsim::time::{Duration, sleep};
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, Weak};
use tidelog::disk::{Completions, Content, Storage, Task};
use tidelog_core::io::{IoCommand, IoCompletion, IoOp};
use tidelog_core::wire::FileSlice;
use tidelog_sim::disk::{Disk, Pinned, Ticket};
use tokio::sync::Notify;

/// The disk outlives the processes that use it.
pub type SharedDisk = Arc<Mutex<Disk>>;

/// One process's way to the disk.
#[derive(Clone)]
pub struct SimulatedStorage {
    disk: SharedDisk,
    lanes: Arc<Mutex<Lanes>>,
    woken: Arc<Notify>,
    log: Log,
}

#[derive(Default)]
struct Lanes {
    /// Given by the core, and not yet by the disk.
    queued: Vec<IoCommand>,
    /// When each command completes, with the bytes it writes.
    under_way: BTreeMap<(u64, Ticket), usize>,
    sink: Option<Weak<dyn Completions>>,
}

impl SimulatedStorage {
    /// To be called on the node of the process, whose end ends the completions.
    pub fn start(disk: SharedDisk, log: Log) -> Self {
        let storage = Self { disk, lanes: Arc::default(), woken: Arc::default(), log };
        madsim::task::spawn(storage.clone().complete());
        storage
    }

    async fn complete(self) {
        loop {
            let next = self.lanes.lock().expect("one thread").under_way.keys().next().map(|(at, _)| *at);
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
            let (mut lanes, mut disk) = (self.lanes.lock().expect("one thread"), self.disk.lock().expect("one thread"));
            let mut completions = Vec::new();
            while let Some(first) = lanes.under_way.first_entry()
                && first.key().0 <= crate::now_ns()
            {
                completions.push(disk.complete(first.remove_entry().0.1));
            }
            (completions, lanes.sink.as_ref().and_then(Weak::upgrade))
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
            // The disk has its own lanes: one task stands for all there is to give it.
            runnable.push_back(Task::Lane(first.id.owner));
            self.lanes.lock().expect("one thread").queued.append(commands);
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
        let mut lanes = self.lanes.lock().expect("one thread");
        lanes.sink = Some(Arc::downgrade(sink));
        for command in std::mem::take(&mut lanes.queued) {
            let bytes = match &command.op {
                IoOp::Write { chunks, .. } => chunks.iter().map(|chunk| chunk.len()).sum(),
                _ => 0,
            };
            let due = self.disk.lock().expect("one thread").submit(crate::now_ns(), command);
            lanes.under_way.insert(due, bytes);
        }
        self.woken.notify_one();
    }

    fn hold(&self, slice: &FileSlice) -> Arc<dyn Content> {
        let pinned = self.disk.lock().expect("one thread").pin(*slice);
        Arc::new(Held { disk: self.disk.clone(), pinned, position: slice.position })
    }

    fn queued_bytes(&self) -> usize {
        self.lanes.lock().expect("one thread").under_way.values().sum()
    }
}

struct Held {
    disk: SharedDisk,
    pinned: Pinned,
    position: u64,
}

impl Content for Held {
    fn read_exact_at(&self, into: &mut [u8], position: u64) -> io::Result<()> {
        let Some(bytes) = self.disk.lock().expect("one thread").read_pinned(self.pinned) else {
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
