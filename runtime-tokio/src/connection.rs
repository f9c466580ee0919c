//! One client's connection, from accept to close, in one task.
//!
//! The task reads frames, decodes and checks them (`api::prepare`: all work that grows with the bytes), submits the
//! requests to the core and sends the answers in the order in which the core gives them. A client may send requests
//! without waiting for answers (pipelining). The connection reads the next request as long as all of these hold:
//!
//! - fewer than [`IN_FLIGHT_MAX`] requests are unanswered or have answers that are not completely sent;
//! - the unanswered requests take fewer than [`IN_FLIGHT_BYTES_MAX`] bytes;
//! - their weights (`weight`) add up to less than `IN_FLIGHT_WEIGHT_MAX`.
//!
//! So a client that does not read its answers is not read from either. All it costs are the answers that wait for it,
//! and for records an answer holds only the position of a slice of a file.

use crate::budget::{Budget, FLOOR_BYTES, Overdraft};
use crate::door::{Door, Outgoing, OutgoingQueue};
use crate::frames::FrameReader;
use crate::inbox::Message;
use crate::limited_log::LimitedLog;
use crate::metrics::requests::Handled;
use crate::metrics::{Counters, ListenerCounters};
use crate::sender::{Sender, Unreadable};
use crate::transport::Socket;
use crate::weight::{IN_FLIGHT_WEIGHT_MAX, weight_of};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tidelog_core::api::prepare;
use tidelog_core::batch::BatchLimits;
use tidelog_core::io::{Input, Request};
use tidelog_core::wire::versions::missing;
use tidelog_core::wire::{
    ApiKey, FRAME_LENGTH_BYTES, FrameLengthError, RequestBody, RequestError, RequestHeader, ResponseBody,
    encode_response,
};
use tokio::task::yield_now;
use tokio::time::Sleep;

/// How many requests of a connection may be unanswered or have answers that are not completely sent.
pub const IN_FLIGHT_MAX: usize = 128;
/// While a connection holds this many bytes of requests and at least one of them is unanswered, no more is read from
/// it. More would gain a client nothing, and would make the broker go through more memory than the processor's caches
/// hold. A single request may be larger: it is read when no other is unanswered.
pub const IN_FLIGHT_BYTES_MAX: usize = 8 << 20;
/// While this many bytes of encoded answers wait to be sent, further answers stay as the core gave them.
const ENCODED_BYTES_MAX: usize = 256 << 10;
/// Checking a larger frame takes long, so the runtime moves the thread's other tasks to another thread first.
pub const INLINE_FRAME_BYTES_MAX: usize = 2 << 20;
/// How long the client may take to receive what is still to be sent, once the connection is to be closed or the client
/// has closed its sending side.
const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_secs(5);
/// How many bytes of a name that a client chose are logged.
const LOGGED_NAME_BYTES_MAX: usize = 100;
/// Stands for "no timeout": longer than every timeout of a connection.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
/// How long a connection may take to finish a frame under an [`Overdraft`], while no other can get one: `OVERDRAFT_MIN`
/// plus the time that the missing bytes take at [`OVERDRAFT_BYTES_PER_SECOND`], and at most [`OVERDRAFT_MAX`].
const OVERDRAFT_MIN: Duration = Duration::from_secs(2);
const OVERDRAFT_MAX: Duration = Duration::from_secs(30);
const OVERDRAFT_BYTES_PER_SECOND: usize = 1 << 20;

/// What all connections share.
pub struct Shared {
    pub door: Arc<Door>,
    pub budget: Arc<Budget>,
    pub batch_limits: BatchLimits,
    /// `socket.request.max.bytes`
    pub request_bytes_max: i32,
    /// `connections.max.idle.ms`; `None`: no limit.
    pub idle_max: Option<Duration>,
    pub counters: Counters,
    /// Log lines about clients that broke the protocol.
    pub closed_log: Arc<LimitedLog>,
    /// Log lines about clients that want something that is not supported yet.
    pub unsupported_log: Arc<LimitedLog>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum CloseReason {
    #[error("the client closed the connection")]
    Client,
    #[error("the connection was idle for longer than connections.max.idle.ms")]
    Idle,
    #[error("the client did not take its last answers in time")]
    Stalled,
    #[error("a request took longer than {} s to arrive while memory was short (queued.max.request.bytes)", .0.as_secs())]
    Overdrawn(Duration),
    #[error("{0}")]
    Core(&'static str),
    #[error("{0}")]
    Frame(#[from] FrameLengthError),
    #[error("{0}")]
    Request(#[from] RequestError),
    #[error("{0}")]
    Disk(io::Error),
    #[error("{0}")]
    Socket(io::Error),
}

impl From<io::Error> for CloseReason {
    fn from(error: io::Error) -> Self {
        match error.get_ref() {
            Some(inner) if inner.is::<Unreadable>() => Self::Disk(error),
            _ => Self::Socket(error),
        }
    }
}

impl CloseReason {
    /// The client id in the request that closed the connection, if it is known.
    fn client_id(&self) -> Option<&str> {
        match self {
            Self::Request(RequestError::NotServed { client_id, .. }) => client_id.as_deref().map(shortened),
            _ => None,
        }
    }

    /// Whether the log tells an operator by default: the client broke the protocol, or could not be served.
    fn is_for_operator(&self) -> bool {
        matches!(self, Self::Frame(_) | Self::Request(_) | Self::Overdrawn(_) | Self::Core(_))
    }
}

/// Serves a connection until it is closed. The door must know `queue` already (`Message::Connected`).
pub async fn serve<S: Socket>(
    socket: S,
    peer: SocketAddr,
    listener: u16,
    queue: Arc<OutgoingQueue>,
    shared: Arc<Shared>,
) {
    let mut connection = Connection {
        socket,
        listener,
        reader: FrameReader::new(shared.request_bytes_max),
        sender: Sender::default(),
        outgoing: VecDeque::new(),
        in_flight: VecDeque::new(),
        weight: 0,
        messages: Vec::new(),
        held_bytes: 0,
        overdraft: None,
        phase: Phase::Open,
        last_active: Instant::now(),
        timer_set_for: Instant::now(),
        peer,
        software: None,
        logged_as_unsupported: false,
        queue: queue.clone(),
        shared: shared.clone(),
    };
    let reason = connection.run().await;
    let counters = connection.counters();
    counters.closed.add(1);
    if matches!(reason, CloseReason::Idle) {
        counters.expired.add(1);
    }
    let software = connection.software.take();
    drop(connection);
    shared.door.submit(Message::Disconnected(queue.conn));
    let software = software.as_deref();
    match reason.is_for_operator() {
        _ if matches!(reason, CloseReason::Disk(_)) => {
            tracing::error!(%peer, conn = queue.conn.0, "connection closed, its answer cannot be given: {reason}");
        }
        true => {
            let client = reason.client_id();
            shared.closed_log.log(|| {
                tracing::info!(%peer, conn = queue.conn.0, client, software, "connection closed: {reason}");
            });
        }
        false => tracing::debug!(%peer, conn = queue.conn.0, "connection closed: {reason}"),
    }
}

/// The state of a connection's task.
struct Connection<S> {
    socket: S,
    listener: u16,
    reader: FrameReader,
    sender: Sender,
    /// Taken from `queue`, not encoded yet.
    outgoing: VecDeque<Outgoing>,
    /// The unanswered requests, oldest first.
    in_flight: VecDeque<Unanswered>,
    /// The sum of the weights of `in_flight`.
    weight: usize,
    messages: Vec<Message>,
    /// Bytes that this connection holds of the budget: its unanswered requests and the bytes read after them.
    held_bytes: usize,
    overdraft: Option<OverdraftInUse>,
    phase: Phase,
    /// When bytes last moved, in either direction.
    last_active: Instant,
    /// When the timer fires. It may be earlier than [`expiry`](Self::expiry), never later.
    timer_set_for: Instant,
    peer: SocketAddr,
    /// The name and version of the client's software, if ApiVersions gave them (KIP-511).
    software: Option<Box<str>>,
    /// The log already says that this client wants something that is not supported yet.
    logged_as_unsupported: bool,
    queue: Arc<OutgoingQueue>,
    shared: Arc<Shared>,
}

/// A request that the core has not answered, or whose answer is not encoded.
struct Unanswered {
    frame_bytes: usize,
    weight: usize,
    api_key: ApiKey,
    api_version: i16,
    read_at: Instant,
}

/// An overdraft of the budget, since when it is used and for how long it may be.
struct OverdraftInUse {
    _right: Overdraft,
    since: Instant,
    patience: Duration,
}

/// How far a connection has come on its way to being closed.
enum Phase {
    Open,
    /// The client has closed its sending side. Its requests are still answered, within [`LAST_ANSWERS_TIMEOUT`].
    ClientFinished {
        since: Instant,
    },
    /// The client broke the protocol. The requests before the broken one are still answered.
    Broken {
        reason: Option<CloseReason>,
        since: Instant,
    },
    /// The broker is stopping: no more requests are read, and the door will say when to close.
    Draining,
    /// What is encoded is still sent, then the connection closes.
    Closing {
        why: &'static str,
        since: Instant,
    },
}

/// What [`poll_socket`] found.
enum SocketEvent {
    Read(usize),
    Writable,
}

impl<S: Socket> Connection<S> {
    async fn run(&mut self) -> CloseReason {
        let mut timer = pin!(tokio::time::sleep_until(self.timer_set_for.into()));
        loop {
            match self.step(timer.as_mut()).await {
                Ok(None) => {}
                Ok(Some(reason)) | Err(reason) => return reason,
            }
        }
    }

    /// Does all that can be done without waiting, then waits until more can be done.
    async fn step(&mut self, timer: Pin<&mut Sleep>) -> Result<Option<CloseReason>, CloseReason> {
        self.submit_frames();
        let blocked = loop {
            self.encode_answers();
            let blocked = self.send()?;
            if blocked || self.outgoing.is_empty() {
                break blocked;
            }
        };
        let finished = self.finished();
        match finished {
            Some(_) => {}
            // More frames are buffered. Other tasks come first, because each of these may be much work.
            None if self.has_frame_to_submit() => yield_now().await,
            None => self.wait(blocked, timer).await?,
        }
        Ok(finished)
    }

    /// Waits until something can be done. If bytes have arrived, it reads them.
    async fn wait(&mut self, blocked: bool, mut timer: Pin<&mut Sleep>) -> Result<(), CloseReason> {
        let wants = matches!(self.phase, Phase::Open) && self.has_room_for_request() && !self.holds_enough();
        let read = wants && self.may_hold_more();
        let expiry = self.expiry();
        if expiry < self.timer_set_for {
            self.set(timer.as_mut(), expiry);
        }
        tokio::select! {
            biased;
            moved = poll_fn(|cx| poll_socket(&mut self.socket, &mut self.reader, read, blocked, cx)) => {
                if let SocketEvent::Read(bytes) = moved? {
                    self.received(bytes);
                }
            }
            () = self.queue.filled() => {}
            () = self.shared.budget.changed(self.shared.door.queued_bytes()), if wants && !read => {}
            () = timer.as_mut() => {
                // Bytes that moved meanwhile have made the expiry later without setting the timer again. That way the
                // timer is set seldom.
                let expiry = self.expiry();
                if expiry <= Instant::now() {
                    return Err(self.expired());
                }
                self.set(timer, expiry);
            }
        }
        Ok(())
    }

    fn set(&mut self, timer: Pin<&mut Sleep>, expiry: Instant) {
        self.timer_set_for = expiry;
        timer.reset(expiry.into());
    }

    fn received(&mut self, bytes: usize) {
        self.last_active = Instant::now();
        self.held_bytes += bytes;
        self.shared.budget.hold(bytes);
        self.counters().bytes_in.add(bytes as u64);
        if bytes == 0 {
            self.phase = Phase::ClientFinished { since: self.last_active };
        }
    }

    /// Submits together all whole frames that have been read. A frame that breaks the protocol ends the reading; the
    /// frames before it are submitted all the same.
    fn submit_frames(&mut self) {
        while self.has_frame_to_submit() {
            if let Err(reason) = self.prepare_frame() {
                self.phase = Phase::Broken { reason: Some(reason), since: Instant::now() };
            }
        }
        if !self.messages.is_empty() {
            let shared = self.shared.clone();
            shared.door.submit_all(self.messages.drain(..));
        }
    }

    fn prepare_frame(&mut self) -> Result<(), CloseReason> {
        let frame = self.reader.next_frame()?.expect("`has_frame_to_submit` found one");
        let (conn, frame_bytes) = (self.queue.conn, FRAME_LENGTH_BYTES + frame.len());
        let limits = &self.shared.batch_limits;
        let request = match frame_bytes <= INLINE_FRAME_BYTES_MAX {
            true => prepare(conn, frame, limits),
            false => run_blocking(|| prepare(conn, frame, limits)),
        }?;
        let (api_key, api_version) = (request.header.api_key, request.header.api_version);
        let weight = weight_of(&request.body);
        self.in_flight.push_back(Unanswered { frame_bytes, weight, api_key, api_version, read_at: self.last_active });
        self.weight += weight;
        self.overdraft = None;
        self.note_client(&request);
        tracing::trace!(conn = conn.0, answered = request.body.is_answered(), "request {:?}", request.header);
        let request = Box::new(request);
        self.messages.push(match weight < IN_FLIGHT_WEIGHT_MAX {
            true => Message::Input(Input::Request(request)),
            false => Message::Large(request),
        });
        Ok(())
    }

    /// Keeps the name of the client's software, and logs once per connection that the client wants something that is
    /// not supported yet: such clients ask again and again.
    fn note_client(&mut self, request: &Request) {
        if let RequestBody::ApiVersions(body) = &request.body
            && !body.client_software_name.is_empty()
        {
            let (name, version) = (&body.client_software_name, &body.client_software_version);
            self.software = Some(format!("{} {}", shortened(name), shortened(version)).into());
        }
        let RequestHeader { api_key, client_id, .. } = &request.header;
        if let Some(missing) = missing(*api_key)
            && !std::mem::replace(&mut self.logged_as_unsupported, true)
        {
            let (peer, conn, software) = (self.peer, self.queue.conn.0, self.software.as_deref());
            let (name, client) = (api_key.name(), client_id.as_deref().map(shortened));
            self.shared.unsupported_log.log(|| {
                tracing::info!(%peer, conn, client, software, "a client sent {name}: {missing}");
            });
        }
    }

    /// Takes what the core has queued for this connection, and encodes as many answers as can soon be sent.
    fn encode_answers(&mut self) {
        self.queue.take(&mut self.outgoing);
        if self.outgoing.is_empty() {
            return;
        }
        let now = Instant::now();
        while self.sender.memory_bytes() < ENCODED_BYTES_MAX {
            let Some(outgoing) = self.outgoing.pop_front() else { return };
            match outgoing {
                Outgoing::Response { response, contents } => {
                    let frame = encode_response(
                        response.api_key,
                        response.api_version,
                        response.correlation_id,
                        &response.body,
                    );
                    self.sender.push(frame, contents);
                    // The answer's version, which differs from the request's if that one is not supported.
                    self.handled_one(now, response.api_version, Some(&response.body));
                }
                Outgoing::Nothing => {
                    let version = self.in_flight.front().map_or(0, |request| request.api_version);
                    self.handled_one(now, version, None);
                }
                Outgoing::Drain if matches!(self.phase, Phase::Open) => self.phase = Phase::Draining,
                Outgoing::Drain => {}
                Outgoing::Close(why) => self.phase = Phase::Closing { why, since: Instant::now() },
            }
        }
    }

    /// The oldest request is answered, or handled without an answer: it leaves `in_flight` and the budget.
    fn handled_one(&mut self, now: Instant, api_version: i16, body: Option<&ResponseBody>) {
        let request = self.in_flight.pop_front().expect("the core answers only requests that it was given");
        self.weight -= request.weight;
        self.held_bytes -= request.frame_bytes;
        self.shared.budget.free(request.frame_bytes);
        let took = now.saturating_duration_since(request.read_at);
        let handled = Handled { api_key: request.api_key, api_version, took };
        self.shared.counters.requests.record(now, handled, body);
    }

    fn counters(&self) -> &ListenerCounters {
        &self.shared.counters.listeners[usize::from(self.listener)]
    }

    /// Sends until nothing is left or the socket takes no more; returns true in the second case.
    fn send(&mut self) -> io::Result<bool> {
        if self.sender.unsent() == 0 {
            return Ok(false);
        }
        let before = self.sender.sent();
        let blocked = self.send_until_blocked();
        self.counters().bytes_out.add(self.sender.sent() - before);
        blocked
    }

    fn send_until_blocked(&mut self) -> io::Result<bool> {
        while self.sender.unsent() > 0 {
            match self.socket.try_send(&mut self.sender) {
                Ok(()) => self.last_active = Instant::now(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Why this connection is to be closed now; `None` if it goes on.
    fn finished(&mut self) -> Option<CloseReason> {
        if self.sender.unsent() > 0 {
            return None;
        }
        match &mut self.phase {
            Phase::ClientFinished { .. } if self.in_flight.is_empty() => Some(CloseReason::Client),
            Phase::Broken { reason, .. } if self.in_flight.is_empty() => reason.take(),
            Phase::Closing { why, .. } => Some(CloseReason::Core(why)),
            _ => None,
        }
    }

    /// Whether the limits on unanswered requests allow one more.
    fn has_room_for_request(&self) -> bool {
        self.in_flight.len() + self.sender.unsent() < IN_FLIGHT_MAX && self.weight < IN_FLIGHT_WEIGHT_MAX
    }

    /// Whether this connection holds so many bytes that reading waits for an answer.
    fn holds_enough(&self) -> bool {
        // A connection that uses the overdraft must finish its frame, so that others get the overdraft.
        self.overdraft.is_none() && !self.in_flight.is_empty() && self.held_bytes >= IN_FLIGHT_BYTES_MAX
    }

    fn has_frame_to_submit(&self) -> bool {
        let open = matches!(self.phase, Phase::Open | Phase::ClientFinished { .. });
        open && self.has_room_for_request() && self.reader.has_frame()
    }

    /// Whether the budget allows this connection to read more; takes the overdraft if that is needed and free.
    fn may_hold_more(&mut self) -> bool {
        let spent = self.overdraft.is_none() && self.shared.budget.is_spent(self.shared.door.queued_bytes());
        self.reader.hold_at_most(if spent { FLOOR_BYTES } else { usize::MAX });
        if !spent || (self.held_bytes < FLOOR_BYTES && self.reader.fits_in(FLOOR_BYTES)) {
            return true;
        }
        if self.reader.buffered_bytes() > 0
            && let Some(right) = self.shared.budget.overdraw()
        {
            let seconds = self.reader.missing_bytes().div_ceil(OVERDRAFT_BYTES_PER_SECOND) as u64;
            let patience = (OVERDRAFT_MIN + Duration::from_secs(seconds)).min(OVERDRAFT_MAX);
            self.overdraft = Some(OverdraftInUse { _right: right, since: Instant::now(), patience });
            self.reader.hold_at_most(usize::MAX);
        }
        self.overdraft.is_some()
    }

    /// When this connection is closed if no byte moves and no answer comes.
    fn expiry(&self) -> Instant {
        let idle = self.last_active + self.shared.idle_max.unwrap_or(FOREVER).min(FOREVER);
        let waits_for_core = !self.in_flight.is_empty() && self.sender.unsent() == 0;
        let phase = match self.phase {
            Phase::ClientFinished { since } | Phase::Broken { since, .. } | Phase::Closing { since, .. } => {
                since + LAST_ANSWERS_TIMEOUT
            }
            // A connection that waits for the core is not idle.
            Phase::Open | Phase::Draining if waits_for_core => Instant::now() + FOREVER,
            Phase::Open | Phase::Draining => idle,
        };
        match &self.overdraft {
            Some(OverdraftInUse { since, patience, .. }) => {
                // While no byte arrives, only `OVERDRAFT_MIN` of that time.
                phase.min(*since + *patience).min(self.last_active.max(*since) + OVERDRAFT_MIN)
            }
            None => phase,
        }
    }

    fn expired(&mut self) -> CloseReason {
        if let Some(OverdraftInUse { since, .. }) = &self.overdraft {
            return CloseReason::Overdrawn(since.elapsed());
        }
        match &mut self.phase {
            Phase::ClientFinished { .. } => CloseReason::Client,
            Phase::Broken { reason, .. } => reason.take().expect("`finished` has not taken the reason yet"),
            Phase::Closing { .. } => CloseReason::Stalled,
            Phase::Open | Phase::Draining if self.sender.unsent() > 0 => CloseReason::Stalled,
            Phase::Open | Phase::Draining => CloseReason::Idle,
        }
    }
}

/// The beginning of a name that a client chose, for the log.
fn shortened(name: &str) -> &str {
    &name[..name.floor_char_boundary(LOGGED_NAME_BYTES_MAX)]
}

/// Does work that takes long. The runtime moves this thread's other tasks to another thread meanwhile.
pub fn run_blocking<T>(work: impl FnOnce() -> T) -> T {
    // The simulated runtime has one thread, and its clock does not move during the work.
    #[cfg(madsim)]
    return work();
    #[cfg(not(madsim))]
    tokio::task::block_in_place(work)
}

/// Reads bytes that have arrived (if `read`) or finds that the socket takes bytes again (if `writable`).
fn poll_socket(
    socket: &mut impl Socket,
    reader: &mut FrameReader,
    read: bool,
    writable: bool,
    cx: &mut Context<'_>,
) -> Poll<io::Result<SocketEvent>> {
    if read {
        if let Poll::Ready(bytes) = socket.poll_read(cx, reader)? {
            return Poll::Ready(Ok(SocketEvent::Read(bytes)));
        }
        reader.release_if_empty();
    }
    if writable && socket.poll_writable(cx)?.is_ready() {
        return Poll::Ready(Ok(SocketEvent::Writable));
    }
    Poll::Pending
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        self.shared.budget.free(self.held_bytes);
    }
}
