//! The core behind its door: who runs it, and where what it wants done goes.
//!
//! No thread owns the broker. Whoever brings an input (a connection with a request, a disk thread with a completion,
//! the ticker) puts it into the inbox and, unless somebody is at it already, runs the core on all that is there,
//! on the spot. So an uncontended request is handled, written to the page cache and answered on the thread that
//! read it, without a single wake-up, and under load one thread handles what the others bring in batches. The
//! core itself still sees one input after the other, in the order that the [`Inbox`] gives them.
//!
//! Nothing here grows without bound: a connection has a limited number of requests in the inbox or unanswered, all
//! of them together are bounded by the [`Budget`](crate::budget::Budget), and completions only follow commands.

use crate::clock::Clock;
use crate::disk::{Completions, Content, Storage, Task};
use crate::inbox::{Inbox, Message};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tidelog_core::broker::{Broker, Health, Metrics};
use tidelog_core::config::ConnectionLimits;
use tidelog_core::ids::ConnId;
use tidelog_core::io::{Event, Input, IoCommand, IoCompletion, Level, Outbox, Output, Request, Response};
use tidelog_core::time::{Mono, Now};
use tidelog_core::wire::{RecordsChunk, RequestBody, ResponseBody};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::yield_now;

/// After so many batches in a row the thread that runs the core gives the disk work it has gathered to the pool.
const BATCHES_MAX: usize = 4;

/// The state machine behind the door. There is one, [`Broker`]; tests of the world put a scripted one here.
pub trait Machine: Send + 'static {
    fn handle(&mut self, now: Now, input: Input, out: &mut Outbox);
    fn deadline(&self) -> Option<Mono>;

    /// What there is to tell an operator in numbers; a script has nothing.
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

/// How far a broker's life has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    Starting,
    Ready,
    Stopped,
    Fatal(String),
}

/// See [`Door::look`].
pub type Look = Box<dyn FnOnce(&dyn Machine, Around) + Send>;

/// What is around the core at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around {
    /// Messages that wait for the core.
    pub inputs_queued: usize,
    /// Answers that connections have not taken yet.
    pub answers_queued: usize,
    /// How long the core has been at work, and how long it has been there.
    pub busy: Duration,
    pub up: Duration,
}

pub struct Door {
    inbox: Mutex<Inbox>,
    /// Never contended: whoever set `Inbox::busy` has it.
    core: Mutex<Core>,
    disk: Box<dyn Storage>,
    /// Bytes of writes that the core holds back.
    held_bytes: AtomicU64,
    clock: Clock,
    life: watch::Sender<Life>,
    /// What the core said last of how many connections there may be; nothing as long as it is what the file says.
    limits: watch::Sender<Option<ConnectionLimits>>,
    /// The moment for which the ticker is armed; `u64::MAX`: none.
    armed: AtomicU64,
    rearmed: Notify,
    /// A large request is to be admitted.
    large_waits: Notify,
}

struct Core {
    machine: Box<dyn Machine>,
    links: HashMap<ConnId, Arc<Link>>,
    outbox: Outbox,
    commands: Vec<IoCommand>,
    /// An empty buffer, changed for the inbox's full one.
    batch: Vec<Message>,
    /// How long this core has been at work, in nanoseconds.
    busy: u64,
}

impl Door {
    pub fn new(machine: Box<dyn Machine>, disk: Box<dyn Storage>, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            inbox: Mutex::default(),
            core: Mutex::new(Core {
                machine,
                links: HashMap::new(),
                outbox: Outbox::default(),
                commands: Vec::new(),
                batch: Vec::new(),
                busy: 0,
            }),
            disk,
            held_bytes: AtomicU64::new(0),
            clock,
            life: watch::Sender::new(Life::Starting),
            limits: watch::Sender::new(None),
            armed: AtomicU64::new(u64::MAX),
            rearmed: Notify::new(),
            large_waits: Notify::new(),
        })
    }

    pub fn life(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    /// How many connections there may be, each time that changes.
    pub fn limits(&self) -> watch::Receiver<Option<ConnectionLimits>> {
        self.limits.subscribe()
    }

    pub fn disk(&self) -> &dyn Storage {
        &*self.disk
    }

    /// Bytes that wait to be written to log files, here or in the core.
    pub fn queued_bytes(&self) -> usize {
        self.disk.queued_bytes().saturating_add(self.held_bytes.load(Ordering::Relaxed) as usize)
    }

    pub fn submit(self: &Arc<Self>, message: Message) {
        self.submit_all([message]);
    }

    /// The same for several, which are handled without others between them, but for large requests.
    pub fn submit_all(self: &Arc<Self>, messages: impl IntoIterator<Item = Message>) {
        if lock(&self.inbox).put_all(messages) {
            self.large_waits.notify_one();
        }
        self.drive();
    }

    /// Has `look` look at the core once it has handled what came before; what it saw comes out of the channel.
    pub fn look<T: Send + 'static>(
        self: &Arc<Self>,
        look: impl FnOnce(&dyn Machine, Around) -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (tell, told) = oneshot::channel();
        let look: Look = Box::new(|machine, around| {
            // Who asked may have gone.
            let _ = tell.send(look(machine, around));
        });
        self.submit(Message::Look(look));
        told
    }

    /// Ticks the core when it asked for it, until the door is dropped or its task aborted.
    pub async fn tick(self: Arc<Self>) {
        loop {
            let armed = self.armed.load(Ordering::Acquire);
            let due = self.clock.instant(Mono(armed));
            tokio::select! {
                biased;
                () = self.rearmed.notified() => {}
                () = tokio::time::sleep_until(due.into()), if armed != u64::MAX => {
                    self.armed.store(u64::MAX, Ordering::Release);
                    self.submit(Message::Input(Input::Tick));
                }
            }
        }
    }

    /// Brings large requests to the core, one after the other, until its task is aborted. Between two of them other tasks
    /// come first: those that have answers to send, and those that have requests to read.
    pub async fn bring_large(self: Arc<Self>) {
        loop {
            self.large_waits.notified().await;
            yield_now().await;
            lock(&self.inbox).admit_large();
            self.drive();
        }
    }

    /// Runs the core on what is in the inbox, unless another thread is doing so, then the disk work that came out
    /// of it, until there is nothing of either left for this thread.
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
        let mut core = self.core.try_lock().expect("only the thread that set `busy` comes here");
        let mut batches = 0;
        while !inbox.is_empty() {
            inbox.take(&mut core.batch);
            drop(inbox);
            let had_large = self.handle_batch(&mut core, runnable);
            batches += 1;
            if batches >= BATCHES_MAX {
                let sink: Arc<dyn Completions> = self.clone();
                runnable.drain(..).for_each(|task| self.disk.run_in_pool(task, &sink));
            }
            inbox = lock(&self.inbox);
            if had_large && inbox.handled_large() {
                self.large_waits.notify_one();
            }
        }
        drop(core);
        inbox.busy = false;
        drop(guard);
    }

    /// Whether there was a large request in it.
    fn handle_batch(&self, core: &mut Core, runnable: &mut VecDeque<Task>) -> bool {
        let now = self.clock.now();
        let mut had_large = false;
        let mut batch = std::mem::take(&mut core.batch);
        for message in batch.drain(..) {
            let input = match message {
                Message::Input(input) => input,
                Message::Large(request) => {
                    had_large = true;
                    Input::Request(request)
                }
                Message::Connected(link) => {
                    core.links.insert(link.conn, link);
                    continue;
                }
                Message::Disconnected(conn) => {
                    core.links.remove(&conn);
                    Input::Disconnected(conn)
                }
                Message::Drain => {
                    core.links.values().for_each(|link| link.put(Outgoing::Drain));
                    continue;
                }
                Message::Close(why) => {
                    core.links.values().for_each(|link| link.put(Outgoing::Close(why)));
                    continue;
                }
                Message::Look(look) => {
                    look(&*core.machine, self.around(core, now));
                    continue;
                }
            };
            let silent = unanswered(&input);
            core.machine.handle(now, input, &mut core.outbox);
            self.dispatch(core);
            if let Some(link) = silent.and_then(|conn| core.links.get(&conn)) {
                link.put(Outgoing::Nothing);
            }
        }
        core.batch = batch;
        self.disk.enqueue(&mut core.commands, runnable);
        self.held_bytes.store(core.outbox.held_bytes, Ordering::Relaxed);
        self.arm(core.machine.deadline());
        core.busy += self.clock.now_mono().0.saturating_sub(now.mono.0);
        had_large
    }

    /// Messages that wait for the core.
    pub fn inputs_queued(&self) -> usize {
        lock(&self.inbox).waiting()
    }

    fn around(&self, core: &Core, now: Now) -> Around {
        Around {
            inputs_queued: self.inputs_queued(),
            answers_queued: core.links.values().map(|link| lock(&link.queue).outgoing.len()).sum(),
            busy: Duration::from_nanos(core.busy),
            up: Duration::from_nanos(now.mono.0),
        }
    }

    /// Takes up what the core wants done, in its order.
    fn dispatch(&self, core: &mut Core) {
        for output in core.outbox.outputs.drain(..) {
            match output {
                Output::Respond(conn, response) => {
                    if let Some(link) = core.links.get(&conn) {
                        // Now, before a `Close` that the core gives next is carried out.
                        let contents = contents_of(&response.body, &*self.disk);
                        link.put(Outgoing::Response { response, contents });
                    }
                }
                Output::Close(conn, why) => {
                    if let Some(link) = core.links.get(&conn) {
                        link.put(Outgoing::Close(why));
                    }
                }
                Output::Io(command) => core.commands.push(command),
                Output::Ready => self.live(Life::Ready),
                Output::Stopped => self.live(Life::Stopped),
                Output::Fatal(text) => self.live(Life::Fatal(text)),
                Output::Limits(limits) => drop(self.limits.send_replace(Some(limits))),
                Output::Event(event) => log(&event),
            }
        }
    }

    fn live(&self, life: Life) {
        self.life.send_replace(life);
    }

    fn arm(&self, deadline: Option<Mono>) {
        let wanted = deadline.map_or(u64::MAX, |due| due.0);
        // A later deadline needs no wake-up: the ticker finds it when it comes round for the earlier one.
        if wanted < self.armed.load(Ordering::Acquire) {
            self.armed.store(wanted, Ordering::Release);
            self.rearmed.notify_one();
        }
    }
}

impl Completions for Door {
    fn deliver(&self, completions: &mut Vec<IoCompletion>) {
        let arrived = completions.drain(..).map(|completion| Message::Input(Input::Io(completion)));
        let large = lock(&self.inbox).put_all(arrived);
        debug_assert!(!large, "a completion is no request");
    }

    fn run(self: Arc<Self>) {
        self.drive();
    }
}

/// The way from the core to a connection: what it has to send, in order.
///
/// Bounded by the requests that the connection has submitted.
pub struct Link {
    pub conn: ConnId,
    queue: Mutex<LinkQueue>,
    woken: Notify,
}

#[derive(Default)]
struct LinkQueue {
    outgoing: VecDeque<Outgoing>,
    /// The connection's task found nothing and sleeps: it wants to be woken.
    waiting: bool,
}

pub enum Outgoing {
    /// With what the body names slices of, one for each, in order.
    Response { response: Box<Response>, contents: Vec<Arc<dyn Content>> },
    /// A request that gets no answer (a Produce with acks=0) was handled.
    Nothing,
    /// Take no more requests.
    Drain,
    /// Send what was given before, then close.
    Close(&'static str),
}

impl Link {
    pub fn new(conn: ConnId) -> Arc<Self> {
        Arc::new(Self { conn, queue: Mutex::default(), woken: Notify::new() })
    }

    fn put(&self, outgoing: Outgoing) {
        let mut queue = lock(&self.queue);
        queue.outgoing.push_back(outgoing);
        if std::mem::take(&mut queue.waiting) {
            self.woken.notify_one();
        }
    }

    /// Takes all there is.
    pub fn take(&self, into: &mut VecDeque<Outgoing>) {
        into.append(&mut lock(&self.queue).outgoing);
    }

    /// Completes once there is something to take.
    pub async fn filled(&self) {
        {
            let mut queue = lock(&self.queue);
            if !queue.outgoing.is_empty() {
                return;
            }
            queue.waiting = true;
        }
        self.woken.notified().await;
    }
}

/// The connection of a request that the core will not answer (acks=0).
fn unanswered(input: &Input) -> Option<ConnId> {
    match input {
        Input::Request(request) if !is_answered(request) => Some(request.conn),
        _ => None,
    }
}

/// Whether the core answers this request: all but a Produce with acks=0.
pub fn is_answered(request: &Request) -> bool {
    !matches!(&request.body, RequestBody::Produce(produce) if produce.acks == 0)
}

/// What a response carries slices of. Only a Fetch does.
fn contents_of(body: &ResponseBody, disk: &dyn Storage) -> Vec<Arc<dyn Content>> {
    let ResponseBody::Fetch(fetch) = body else { return Vec::new() };
    let records = fetch.responses.iter().flat_map(|topic| &topic.partitions).filter_map(|found| found.records.as_ref());
    let slices = records.flat_map(|records| &records.chunks).filter_map(|chunk| match chunk {
        RecordsChunk::File(slice) => Some(slice),
        RecordsChunk::Bytes(_) => None,
    });
    slices.map(|slice| disk.hold(slice)).collect()
}

fn log(event: &Event) {
    let Event { level, part, text } = event;
    match level {
        Level::Debug => tracing::debug!(part, "{text}"),
        Level::Info => tracing::info!(part, "{text}"),
        Level::Warn => tracing::warn!(part, "{text}"),
        Level::Error => tracing::error!(part, "{text}"),
    }
}

/// A core that has panicked must not serve anybody: its state may be half changed. (In release builds every panic
/// ends the process; this sees to it in the others.)
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
    mutex.lock().expect("no panic holds this lock")
}
