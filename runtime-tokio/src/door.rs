//! The door is the only way to the core: it decides which thread runs the core, and carries out the core's outputs.
//!
//! No thread owns the core. A task or thread that has an input (a connection with a request, a disk thread with a
//! completion, the ticker) puts it into the inbox. If no other thread is running the core, it then runs the core itself
//! on everything in the inbox. So without contention a request is handled, written to the page cache and answered on
//! the thread that read it, without waking another. Under load one thread handles in batches what the others bring. The
//! core always sees one input after the other, in the order that the [`Inbox`] gives them.
//!
//! Every queue here is bounded. Each connection may have only so many unanswered requests, the requests of all
//! connections together are limited by the [`Budget`](crate::budget::Budget), and there is at most one completion for
//! each I/O command. A link's queue holds at most the questions that the core waits for.

use crate::clock::Clock;
use crate::disk::{Completions, Content, Storage, Task};
use crate::inbox::{Inbox, Message};
use crate::links::{NewLink, Requests};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tidelog_core::broker::{Broker, Health, Metrics};
use tidelog_core::config::ConnectionLimits;
use tidelog_core::ids::{ConnId, LinkId};
use tidelog_core::io::{
    Event, Input, IoCommand, IoCompletion, Level, LinkEvent, Origin, Outbox, Output, Part, Response,
};
use tidelog_core::time::{Mono, Now};
use tidelog_core::wire::{Records, RecordsChunk, ResponseBody};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::yield_now;

/// A thread that has run the core for this many batches in a row gives the disk work that came out of them to the pool,
/// so that the work does not wait until the inbox is empty.
const BATCHES_BEFORE_POOL_MAX: usize = 4;

/// The state machine behind the door: the [`Broker`], or a scripted one in tests of this crate.
pub trait Machine: Send + 'static {
    fn handle(&mut self, now: Now, input: Input, out: &mut Outbox);
    fn deadline(&self) -> Option<Mono>;

    /// The metrics of the core; `None` for a scripted machine.
    fn metrics(&self) -> Option<Metrics> {
        None
    }

    fn health(&self) -> Option<Health> {
        None
    }
}

impl Machine for Broker {
    fn handle(&mut self, now: Now, input: Input, out: &mut Outbox) {
        Broker::handle(self, now, input, out);
    }

    fn deadline(&self) -> Option<Mono> {
        Broker::deadline(self).map(|(due, _)| due)
    }

    fn metrics(&self) -> Option<Metrics> {
        Some(Broker::metrics(self))
    }

    fn health(&self) -> Option<Health> {
        Some(Broker::health(self))
    }
}

/// Where a broker is between start and stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunState {
    Starting,
    Ready,
    Stopped,
    Fatal(String),
}

/// A function that reads the core's state. See [`Door::inspect`].
pub type Inspection = Box<dyn FnOnce(&dyn Machine, DoorMetrics) + Send>;

/// How much waits in front of the core and behind it at one moment, and how busy the core is.
#[derive(Clone, Copy, Debug, Default)]
pub struct DoorMetrics {
    /// Messages in the inbox.
    pub inputs_queued: usize,
    /// Answers that connections have not taken yet.
    pub answers_queued: usize,
    /// How long the core has been handling inputs since it was made.
    pub busy: Duration,
    /// How long ago the door was made.
    pub up: Duration,
}

/// The core with its inbox, its disk and the queues to its connections.
pub struct Door {
    inbox: Mutex<Inbox>,
    /// Only the thread that set `Inbox::busy` locks this, so nobody ever waits for it.
    core: Mutex<Core>,
    disk: Box<dyn Storage>,
    /// Bytes of writes that the core has not given out as commands yet.
    held_bytes: AtomicU64,
    clock: Clock,
    run_state: watch::Sender<RunState>,
    /// The listeners that the core has opened, in the order in which it did.
    listening: watch::Sender<Vec<u16>>,
    /// The listeners that take no more connections, because the core stops.
    drained: watch::Sender<Vec<u16>>,
    /// The connection limits that the core announced last. `None` until it announces any: the limits of the
    /// configuration file apply.
    connection_limits: watch::Sender<Option<ConnectionLimits>>,
    /// The time at which the ticker wakes, in nanoseconds of [`Mono`]; `u64::MAX` if it has nothing to wait for.
    ticker_due_ns: AtomicU64,
    ticker_set_earlier: Notify,
    /// The links that the core wants opened, for [`links::serve`](crate::links::serve).
    new_links: UnboundedSender<NewLink>,
    /// Wakes [`bring_large`](Self::bring_large): the inbox is ready for the next large request.
    large_ready: Notify,
}

/// What the thread that runs the core needs.
struct Core {
    machine: Box<dyn Machine>,
    queues: HashMap<ConnId, Arc<OutgoingQueue>>,
    /// The links that the core has not hung up and that are not lost.
    links: HashMap<LinkId, Requests>,
    outbox: Outbox,
    commands: Vec<IoCommand>,
    /// Empty between batches. It is swapped with the inbox's list of messages, so that no batch allocates a new list.
    batch: Vec<Message>,
    /// Time spent handling inputs, in nanoseconds.
    busy: u64,
}

impl Door {
    /// Gives the door, and the links that the core wants opened.
    pub fn new(
        machine: Box<dyn Machine>,
        disk: Box<dyn Storage>,
        clock: Clock,
    ) -> (Arc<Self>, UnboundedReceiver<NewLink>) {
        let (new_links, wanted_links) = unbounded_channel();
        let door = Arc::new(Self {
            inbox: Mutex::default(),
            core: Mutex::new(Core {
                machine,
                queues: HashMap::new(),
                links: HashMap::new(),
                outbox: Outbox::default(),
                commands: Vec::new(),
                batch: Vec::new(),
                busy: 0,
            }),
            disk,
            held_bytes: AtomicU64::new(0),
            clock,
            run_state: watch::Sender::new(RunState::Starting),
            listening: watch::Sender::new(Vec::new()),
            drained: watch::Sender::new(Vec::new()),
            connection_limits: watch::Sender::new(None),
            ticker_due_ns: AtomicU64::new(u64::MAX),
            ticker_set_earlier: Notify::new(),
            large_ready: Notify::new(),
            new_links,
        });
        (door, wanted_links)
    }

    pub fn run_state(&self) -> watch::Receiver<RunState> {
        self.run_state.subscribe()
    }

    /// The listeners that the core has opened, in the order in which it did.
    pub fn listening(&self) -> watch::Receiver<Vec<u16>> {
        self.listening.subscribe()
    }

    /// Completes once a listener takes no more connections.
    pub async fn drained(&self, listener: u16) {
        let _ = self.drained.subscribe().wait_for(|drained| drained.contains(&listener)).await;
    }

    /// The connection limits, each time the core changes them.
    pub fn connection_limits(&self) -> watch::Receiver<Option<ConnectionLimits>> {
        self.connection_limits.subscribe()
    }

    pub fn disk(&self) -> &dyn Storage {
        &*self.disk
    }

    /// Bytes that wait to be written to log files: in the disk's queues or still in the core.
    pub fn queued_bytes(&self) -> usize {
        self.disk.queued_bytes().saturating_add(self.held_bytes.load(Ordering::Relaxed) as usize)
    }

    pub fn submit(self: &Arc<Self>, message: Message) {
        self.submit_all([message]);
    }

    /// Like [`submit`](Self::submit) for several messages. The core handles them one directly after the other, except
    /// large requests, which wait for their turn in the inbox.
    pub fn submit_all(self: &Arc<Self>, messages: impl IntoIterator<Item = Message>) {
        if lock(&self.inbox).put_all(messages) {
            self.large_ready.notify_one();
        }
        self.drive();
    }

    /// Calls `inspect` with the core's state once all messages submitted before have been handled. The receiver gets
    /// what it returned.
    pub fn inspect<T: Send + 'static>(
        self: &Arc<Self>,
        inspect: impl FnOnce(&dyn Machine, DoorMetrics) -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let inspection: Inspection = Box::new(|machine, door| {
            // The receiver may have been dropped: the caller no longer waits.
            let _ = sender.send(inspect(machine, door));
        });
        self.submit(Message::Inspect(inspection));
        receiver
    }

    /// Sends the core a tick at each deadline it sets. Runs until the task is aborted.
    pub async fn tick(self: Arc<Self>) {
        loop {
            let due_ns = self.ticker_due_ns.load(Ordering::Acquire);
            let due = self.clock.instant(Mono(due_ns));
            tokio::select! {
                biased;
                () = self.ticker_set_earlier.notified() => {}
                () = tokio::time::sleep_until(due.into()), if due_ns != u64::MAX => {
                    self.ticker_due_ns.store(u64::MAX, Ordering::Release);
                    self.submit(Message::Input(Input::Tick));
                }
            }
        }
    }

    /// Lets large requests into the core one at a time. Between two of them it yields, so that tasks that have answers
    /// to send or small requests to read come first. Runs until the task is aborted.
    pub async fn bring_large(self: Arc<Self>) {
        loop {
            self.large_ready.notified().await;
            yield_now().await;
            lock(&self.inbox).admit_large();
            self.drive();
        }
    }

    /// Runs the core on what is in the inbox, then the disk work that came out of it, and repeats until there is no
    /// disk work left. Does not run the core while another thread is running it.
    fn drive(self: &Arc<Self>) {
        let mut runnable = VecDeque::new();
        let mut completions = Vec::new();
        loop {
            self.run_core(&mut runnable);
            if runnable.is_empty() {
                return;
            }
            let sink: Arc<dyn Completions> = self.clone();
            while let Some(task) = runnable.pop_front() {
                self.disk.run_inline(task, &sink, &mut runnable, &mut completions);
            }
        }
    }

    fn run_core(self: &Arc<Self>, runnable: &mut VecDeque<Task>) {
        let mut inbox = lock(&self.inbox);
        if inbox.busy || inbox.is_empty() {
            return;
        }
        inbox.busy = true;
        let guard = AbortOnPanic;
        let mut core = self.core.try_lock().expect("only the thread that set `Inbox::busy` locks the core");
        let mut batches = 0;
        while !inbox.is_empty() {
            inbox.take(&mut core.batch);
            drop(inbox);
            let had_large = self.handle_batch(&mut core, runnable);
            batches += 1;
            if batches >= BATCHES_BEFORE_POOL_MAX {
                let sink: Arc<dyn Completions> = self.clone();
                runnable.drain(..).for_each(|task| self.disk.run_in_pool(task, &sink));
            }
            inbox = lock(&self.inbox);
            if had_large && inbox.handled_large() {
                self.large_ready.notify_one();
            }
        }
        drop(core);
        inbox.busy = false;
        drop(guard);
    }

    /// Handles all messages of `core.batch`. Returns whether one of them was a large request.
    fn handle_batch(&self, core: &mut Core, runnable: &mut VecDeque<Task>) -> bool {
        let now = self.clock.now();
        let mut had_large = false;
        let mut batch = std::mem::take(&mut core.batch);
        for message in batch.drain(..) {
            let mut held = None;
            let input = match message {
                Message::Input(input) => input,
                Message::Link(link, event, holds) => {
                    if matches!(event, LinkEvent::Lost(_)) {
                        core.links.remove(&link);
                    }
                    held = holds;
                    Input::Link(link, event)
                }
                Message::Large(request) => {
                    had_large = true;
                    Input::Request(request)
                }
                Message::Connected(queue) => {
                    if self.drained.borrow().contains(&queue.origin.listener) {
                        queue.put(Outgoing::Drain);
                    }
                    let (conn, origin) = (queue.conn, queue.origin);
                    core.queues.insert(conn, queue);
                    Input::Connected(conn, origin)
                }
                Message::Disconnected(conn) => {
                    core.queues.remove(&conn);
                    Input::Disconnected(conn)
                }
                Message::Close(why) => {
                    core.queues.values().for_each(|queue| queue.put(Outgoing::Close(why)));
                    continue;
                }
                Message::Inspect(inspection) => {
                    inspection(&*core.machine, self.metrics(core, now));
                    continue;
                }
            };
            let silent = unanswered(&input);
            core.machine.handle(now, input, &mut core.outbox);
            self.dispatch(core);
            drop(held);
            if let Some(queue) = silent.and_then(|conn| core.queues.get(&conn)) {
                queue.put(Outgoing::Nothing);
            }
        }
        core.batch = batch;
        self.disk.enqueue(&mut core.commands, runnable);
        self.held_bytes.store(core.outbox.held_bytes, Ordering::Relaxed);
        self.arm(core.machine.deadline());
        core.busy += self.clock.now_mono().0.saturating_sub(now.mono.0);
        had_large
    }

    /// How many messages are in the inbox.
    pub fn inputs_queued(&self) -> usize {
        lock(&self.inbox).waiting()
    }

    fn metrics(&self, core: &Core, now: Now) -> DoorMetrics {
        DoorMetrics {
            inputs_queued: self.inputs_queued(),
            answers_queued: core.queues.values().map(|queue| lock(&queue.state).outgoing.len()).sum(),
            busy: Duration::from_nanos(core.busy),
            up: Duration::from_nanos(now.mono.0),
        }
    }

    /// Carries out the core's outputs in order; I/O commands are only collected.
    fn dispatch(&self, core: &mut Core) {
        for output in core.outbox.outputs.drain(..) {
            match output {
                Output::Respond(conn, response) => {
                    if let Some(queue) = core.queues.get(&conn) {
                        // Look the files up now: the core's next command may close them.
                        let contents = contents_of(&response.body, &*self.disk);
                        queue.put(Outgoing::Response { response, contents });
                    }
                }
                Output::Close(conn, why) => {
                    if let Some(queue) = core.queues.get(&conn) {
                        queue.put(Outgoing::Close(why));
                    }
                }
                Output::Io(command) => core.commands.push(command),
                Output::Connect(link, address) => {
                    let (sender, requests) = unbounded_channel();
                    core.links.insert(link, sender);
                    // Nobody opens links any more when the runtime shuts down.
                    let _ = self.new_links.send(NewLink { link, address, requests });
                }
                Output::Send(link, request) => {
                    if let Some(requests) = core.links.get(&link) {
                        // A link that has ended meanwhile will be told as lost.
                        let _ = requests.send(request);
                    }
                }
                Output::HangUp(link) => drop(core.links.remove(&link)),
                Output::Listen(listener) => self.listening.send_modify(|listening| listening.push(listener)),
                Output::Drain(listener) => {
                    self.drained.send_modify(|drained| drained.push(listener));
                    let drained = core.queues.values().filter(|queue| queue.origin.listener == listener);
                    drained.for_each(|queue| queue.put(Outgoing::Drain));
                }
                Output::Ready => self.set_run_state(RunState::Ready),
                Output::Stopped => {
                    core.links.clear();
                    // A node that had not come up has drained none.
                    self.drained.send_replace(self.listening.borrow().clone());
                    self.set_run_state(RunState::Stopped);
                }
                Output::Fatal(text) => {
                    core.links.clear();
                    self.set_run_state(RunState::Fatal(text));
                }
                Output::Limits(limits) => drop(self.connection_limits.send_replace(Some(limits))),
                #[cfg(not(madsim))]
                Output::LogLevels(loggers) => crate::logging::apply(&loggers),
                #[cfg(madsim)]
                Output::LogLevels(_) => {}
                Output::Event(event) => log(&event),
            }
        }
    }

    fn set_run_state(&self, run_state: RunState) {
        self.run_state.send_replace(run_state);
    }

    fn arm(&self, deadline: Option<Mono>) {
        let wanted = deadline.map_or(u64::MAX, |due| due.0);
        // A later deadline needs no wake-up: the ticker ticks the core at the earlier one, and then learns the later
        // one.
        if wanted < self.ticker_due_ns.load(Ordering::Acquire) {
            self.ticker_due_ns.store(wanted, Ordering::Release);
            self.ticker_set_earlier.notify_one();
        }
    }
}

impl Completions for Door {
    fn deliver(&self, completions: &mut Vec<IoCompletion>) {
        let arrived = completions.drain(..).map(|completion| Message::Input(Input::Io(completion)));
        let large = lock(&self.inbox).put_all(arrived);
        debug_assert!(!large, "a completion is never a large request");
    }

    fn run(self: Arc<Self>) {
        self.drive();
    }
}

/// A queue from the core to one connection's task: the responses to send and the orders to follow, oldest first.
///
/// It holds at most one entry for each request that the connection has submitted, plus `Drain` and `Close`.
pub struct OutgoingQueue {
    pub conn: ConnId,
    pub origin: Origin,
    state: Mutex<OutgoingState>,
    woken: Notify,
}

#[derive(Default)]
struct OutgoingState {
    outgoing: VecDeque<Outgoing>,
    /// The connection's task found `outgoing` empty and waits on `woken`.
    waiting: bool,
}

/// One entry of an [`OutgoingQueue`].
pub enum Outgoing {
    /// `contents` holds the open file of each slice that the body names, in the order of the slices.
    Response { response: Box<Response>, contents: Vec<Arc<dyn Content>> },
    /// A request that gets no answer (a Produce with acks=0) was handled.
    Nothing,
    /// Read no more requests.
    Drain,
    /// Send the responses queued before this, then close the connection; the text says why.
    Close(&'static str),
}

impl OutgoingQueue {
    pub fn new(conn: ConnId, origin: Origin) -> Arc<Self> {
        Arc::new(Self { conn, origin, state: Mutex::default(), woken: Notify::new() })
    }

    fn put(&self, outgoing: Outgoing) {
        let mut state = lock(&self.state);
        state.outgoing.push_back(outgoing);
        if std::mem::take(&mut state.waiting) {
            self.woken.notify_one();
        }
    }

    /// Moves all entries to the end of `into`.
    pub fn take(&self, into: &mut VecDeque<Outgoing>) {
        into.append(&mut lock(&self.state).outgoing);
    }

    /// Completes once the queue is not empty.
    pub async fn filled(&self) {
        {
            let mut state = lock(&self.state);
            if !state.outgoing.is_empty() {
                return;
            }
            state.waiting = true;
        }
        self.woken.notified().await;
    }
}

/// The connection of a request that the core will not answer (acks=0).
fn unanswered(input: &Input) -> Option<ConnId> {
    match input {
        Input::Request(request) if !request.body.is_answered() => Some(request.conn),
        _ => None,
    }
}

/// The open files that a response has slices of, one for each slice: records of a Fetch, or a piece of a snapshot.
fn contents_of(body: &ResponseBody, disk: &dyn Storage) -> Vec<Arc<dyn Content>> {
    let opened = |records: &Records| -> Vec<_> {
        let slices = records.chunks.iter().filter_map(|chunk| match chunk {
            RecordsChunk::File(slice) => Some(slice),
            RecordsChunk::Bytes(_) => None,
        });
        slices.map(|slice| disk.content_of(slice)).collect()
    };
    match body {
        ResponseBody::Fetch(fetch) => {
            let partitions = fetch.responses.iter().flat_map(|topic| &topic.partitions);
            partitions.filter_map(|found| found.records.as_ref()).flat_map(opened).collect()
        }
        ResponseBody::FetchSnapshot(fetch) => {
            let partitions = fetch.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.map(|found| &found.unaligned_records).flat_map(opened).collect()
        }
        _ => Vec::new(),
    }
}

/// Logs an event with the logger of its part. The name of a logger must be a constant, so each part has its own place.
fn log(event: &Event) {
    macro_rules! with_logger {
        ($logger:literal) => {
            match (event.level, &event.text) {
                (Level::Debug, text) => tracing::debug!(target: $logger, "{text}"),
                (Level::Info, text) => tracing::info!(target: $logger, "{text}"),
                (Level::Warn, text) => tracing::warn!(target: $logger, "{text}"),
                (Level::Error, text) => tracing::error!(target: $logger, "{text}"),
            }
        };
    }
    match event.part {
        Part::Broker => with_logger!("tidelog::broker"),
        Part::Configs => with_logger!("tidelog::configs"),
        Part::Peers => with_logger!("tidelog::peers"),
        Part::Quorum => with_logger!("tidelog::quorum"),
        Part::Replication => with_logger!("tidelog::replication"),
        Part::Storage => with_logger!("tidelog::storage"),
    }
}

/// Ends the process if the thread panics while it runs the core: the core's state may be half changed. (Release builds
/// end the process at every panic; this covers builds that unwind.)
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("tidelog: the core has panicked, which is a bug; the process ends so that nothing is lost");
            std::process::abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds this lock")
}
