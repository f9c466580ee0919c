//! One client's connection, from accept to close, in one task.
//!
//! The task reads frames, does the per-byte work on them (`api::prepare`), submits them to the core and sends the
//! answers, in the order in which the core gives them. Requests may be pipelined: a connection goes on reading while
//! it has fewer than [`IN_FLIGHT_MAX`] requests that are unanswered or whose answers are not out yet, and those that
//! are unanswered take fewer than [`IN_FLIGHT_BYTES_MAX`] bytes, and those that are large, or whose answers may be, are few
//! ([`weight`]). So a client that does not read its answers stops being read, and costs what these answers hold, which
//! for records is the name of a slice of a file.

use crate::budget::{Budget, FLOOR_BYTES, Overdraft};
use crate::door::{Door, Link, Outgoing, is_answered};
use crate::frames::FrameReader;
use crate::inbox::Message;
use crate::metrics::requests::Handled;
use crate::metrics::{Counters, ListenerCounters};
use crate::remarks::Remarks;
use crate::sender::{Sender, Unreadable};
use crate::transport::Socket;
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
use tidelog_core::io::Input;
use tidelog_core::wire::{
    ApiKey, FRAME_LENGTH_BYTES, FrameLengthError, RequestBody, RequestError, ResponseBody, encode_response,
};
use tokio::task::yield_now;
use tokio::time::Sleep;

/// Requests of a connection that are not answered, or whose answers are not out.
pub const IN_FLIGHT_MAX: usize = 128;
/// Bytes of a connection's requests, whole or begun, at which it is not read on while one of them is unanswered. A
/// client that sends without limit gains nothing from more, and would have the broker go through 200 MB of memory that
/// no cache holds. A larger request is read all the same: by itself.
pub const IN_FLIGHT_BYTES_MAX: usize = 8 << 20;
/// Unanswered requests of a connection, by their [`weight`].
pub const IN_FLIGHT_WEIGHT_MAX: usize = 8;
/// So many partitions that a request asks about are a share of that.
const PARTITIONS_PER_WEIGHT: usize = 8;
/// Answers wait as the core gave them, and are encoded when fewer bytes than this are there to be sent.
const ENCODED_BYTES_MAX: usize = 256 << 10;
/// Checking a larger frame takes long enough that the thread's other connections should go elsewhere meanwhile.
const INLINE_FRAME_BYTES_MAX: usize = 2 << 20;
/// How long a connection that will be closed may take to send what it still has, and how long a client that sends
/// no more may wait for its last answers.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Longer than any patience here.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
/// How long one frame may be read on at the expense of everybody else while the budget is spent: this, and the time
/// that it takes at [`OVERDRAFT_BYTES_A_SECOND`], up to [`OVERDRAFT_MAX`].
const OVERDRAFT_MIN: Duration = Duration::from_secs(2);
const OVERDRAFT_MAX: Duration = Duration::from_secs(30);
const OVERDRAFT_BYTES_A_SECOND: usize = 1 << 20;

/// What all connections share.
pub struct Shared {
    pub door: Arc<Door>,
    pub budget: Budget,
    pub limits: BatchLimits,
    /// `socket.request.max.bytes`
    pub request_bytes_max: i32,
    /// `connections.max.idle.ms`; `None`: for ever.
    pub idle_max: Option<Duration>,
    pub counters: Counters,
    /// What the log says of clients that broke the protocol.
    pub closed: Arc<Remarks>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    #[error("the client closed it")]
    Client,
    #[error("it was idle for longer than connections.max.idle.ms")]
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

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.get_ref() {
            Some(inner) if inner.is::<Unreadable>() => Self::Disk(error),
            _ => Self::Socket(error),
        }
    }
}

impl End {
    /// Whether an operator may want to know: the client broke the protocol, or our answer could not be given.
    fn is_remarkable(&self) -> bool {
        matches!(self, Self::Frame(_) | Self::Request(_) | Self::Overdrawn(_) | Self::Core(_))
    }
}

/// Serves a connection until its end. `link` is known to the door already.
pub async fn serve<S: Socket>(socket: S, peer: SocketAddr, listener: u16, link: Arc<Link>, shared: Arc<Shared>) {
    let mut connection = Connection {
        socket,
        listener,
        reader: FrameReader::new(shared.request_bytes_max),
        sender: Sender::default(),
        outgoing: VecDeque::new(),
        in_flight: VecDeque::new(),
        weight: 0,
        messages: Vec::new(),
        held: 0,
        overdraft: None,
        phase: Phase::Open,
        active: Instant::now(),
        timed_for: Instant::now(),
        link: link.clone(),
        shared: shared.clone(),
    };
    let end = connection.run().await;
    let counters = connection.counters();
    counters.closed.add(1);
    if matches!(end, End::Idle) {
        counters.expired.add(1);
    }
    drop(connection);
    shared.door.submit(Message::Disconnected(link.conn));
    match end.is_remarkable() {
        _ if matches!(end, End::Disk(_)) => {
            tracing::error!(%peer, conn = link.conn.0, "connection closed, its answer cannot be given: {end}");
        }
        true => shared.closed.tell(|| tracing::info!(%peer, conn = link.conn.0, "connection closed: {end}")),
        false => tracing::debug!(%peer, conn = link.conn.0, "connection closed: {end}"),
    }
}

struct Connection<S> {
    socket: S,
    listener: u16,
    reader: FrameReader,
    sender: Sender,
    /// Taken from the link, about to be encoded.
    outgoing: VecDeque<Outgoing>,
    /// What is unanswered, oldest first.
    in_flight: VecDeque<Unanswered>,
    /// Of all that is unanswered.
    weight: usize,
    messages: Vec<Message>,
    /// What this connection holds of the budget.
    held: usize,
    overdraft: Option<Overdrawn>,
    phase: Phase,
    /// When bytes last moved, in either direction.
    active: Instant,
    /// What the timer is set to.
    timed_for: Instant,
    link: Arc<Link>,
    shared: Arc<Shared>,
}

/// A request that is in the core, or whose answer is not encoded.
struct Unanswered {
    frame_bytes: usize,
    weight: usize,
    api_key: ApiKey,
    api_version: i16,
    read_at: Instant,
}

/// The right to read on, since when and for how long.
struct Overdrawn {
    _right: Overdraft,
    since: Instant,
    patience: Duration,
}

enum Phase {
    Open,
    /// The client sends no more; its requests are answered, but not for ever.
    Ended {
        since: Instant,
    },
    /// The client broke the protocol; what it asked before is answered.
    Broken {
        end: Option<End>,
        since: Instant,
    },
    /// The broker takes no more requests, and will say when to close.
    Draining,
    /// What is there is sent, then the connection closes.
    Closing {
        why: &'static str,
        since: Instant,
    },
}

/// What a socket has done.
enum Moved {
    Read(usize),
    /// It takes bytes again.
    Writable,
}

impl<S: Socket> Connection<S> {
    async fn run(&mut self) -> End {
        let mut timer = pin!(tokio::time::sleep_until(self.timed_for.into()));
        loop {
            match self.step(timer.as_mut()).await {
                Ok(None) => {}
                Ok(Some(end)) | Err(end) => return end,
            }
        }
    }

    /// Does all that can be done now, then waits for more.
    async fn step(&mut self, timer: Pin<&mut Sleep>) -> Result<Option<End>, End> {
        self.submit_frames();
        let blocked = loop {
            self.encode_answers();
            let blocked = self.send()?;
            if blocked || self.outgoing.is_empty() {
                break blocked;
            }
        };
        let end = self.finished();
        match end {
            Some(_) => {}
            // Others first: each of what is left may be work.
            None if self.has_frame_to_submit() => yield_now().await,
            None => self.wait(blocked, timer).await?,
        }
        Ok(end)
    }

    /// Waits until something can be done, and reads if that is it.
    async fn wait(&mut self, blocked: bool, mut timer: Pin<&mut Sleep>) -> Result<(), End> {
        let wants = matches!(self.phase, Phase::Open) && self.has_room() && !self.holds_enough();
        let read = wants && self.may_hold_more();
        let expiry = self.expiry();
        if expiry < self.timed_for {
            self.set(timer.as_mut(), expiry);
        }
        tokio::select! {
            biased;
            moved = poll_fn(|cx| poll_socket(&mut self.socket, &mut self.reader, read, blocked, cx)) => {
                if let Moved::Read(bytes) = moved? {
                    self.received(bytes);
                }
            }
            () = self.link.filled() => {}
            () = self.shared.budget.changed(self.shared.door.queued_bytes()), if wants && !read => {}
            () = timer.as_mut() => {
                // Bytes that moved since it was set did not move it: a timer is touched seldom that way.
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
        self.timed_for = expiry;
        timer.reset(expiry.into());
    }

    fn received(&mut self, bytes: usize) {
        self.active = Instant::now();
        self.held += bytes;
        self.shared.budget.hold(bytes);
        self.counters().bytes_in.add(bytes as u64);
        if bytes == 0 {
            self.phase = Phase::Ended { since: self.active };
        }
    }

    /// Submits the whole frames that have been read, together. One that breaks the protocol ends it for those that
    /// come after it, and not for those that came before.
    fn submit_frames(&mut self) {
        while self.has_frame_to_submit() {
            if let Err(end) = self.prepare_frame() {
                self.phase = Phase::Broken { end: Some(end), since: Instant::now() };
            }
        }
        if !self.messages.is_empty() {
            let shared = self.shared.clone();
            shared.door.submit_all(self.messages.drain(..));
        }
    }

    fn prepare_frame(&mut self) -> Result<(), End> {
        let frame = self.reader.next_frame()?.expect("there is one");
        let (conn, frame_bytes) = (self.link.conn, FRAME_LENGTH_BYTES + frame.len());
        let limits = &self.shared.limits;
        let request = match frame_bytes <= INLINE_FRAME_BYTES_MAX {
            true => prepare(conn, self.listener, frame, limits),
            false => beside_others(|| prepare(conn, self.listener, frame, limits)),
        }?;
        let (api_key, api_version) = (request.header.api_key, request.header.api_version);
        let weight = weight(&request.body);
        self.in_flight.push_back(Unanswered { frame_bytes, weight, api_key, api_version, read_at: self.active });
        self.weight += weight;
        self.overdraft = None;
        tracing::trace!(conn = conn.0, answered = is_answered(&request), "request {:?}", request.header);
        let request = Box::new(request);
        self.messages.push(match weight < IN_FLIGHT_WEIGHT_MAX {
            true => Message::Input(Input::Request(request)),
            false => Message::Large(request),
        });
        Ok(())
    }

    /// Takes what the core has for this connection, and as many answers of it as can soon be sent.
    fn encode_answers(&mut self) {
        self.link.take(&mut self.outgoing);
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
                    // What was asked in a version that is not served is answered in another.
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

    /// The oldest request has come to its end.
    fn handled_one(&mut self, now: Instant, api_version: i16, body: Option<&ResponseBody>) {
        let request = self.in_flight.pop_front().expect("the core answers what it was asked");
        self.weight -= request.weight;
        self.held -= request.frame_bytes;
        self.shared.budget.free(request.frame_bytes);
        let took = now.saturating_duration_since(request.read_at);
        let handled = Handled { api_key: request.api_key, api_version, took };
        self.shared.counters.requests.record(now, handled, body);
    }

    fn counters(&self) -> &ListenerCounters {
        &self.shared.counters.listeners[usize::from(self.listener)]
    }

    /// Sends until all is out or the socket takes no more; true for the latter.
    fn send(&mut self) -> io::Result<bool> {
        if self.sender.unsent() == 0 {
            return Ok(false);
        }
        let before = self.sender.sent();
        let blocked = self.send_what_goes();
        self.counters().bytes_out.add(self.sender.sent() - before);
        blocked
    }

    fn send_what_goes(&mut self) -> io::Result<bool> {
        while self.sender.unsent() > 0 {
            match self.socket.try_send(&mut self.sender) {
                Ok(()) => self.active = Instant::now(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Whether this connection's life is over.
    fn finished(&mut self) -> Option<End> {
        if self.sender.unsent() > 0 {
            return None;
        }
        match &mut self.phase {
            Phase::Ended { .. } if self.in_flight.is_empty() => Some(End::Client),
            Phase::Broken { end, .. } if self.in_flight.is_empty() => end.take(),
            Phase::Closing { why, .. } => Some(End::Core(why)),
            _ => None,
        }
    }

    /// Whether one more request may be taken up.
    fn has_room(&self) -> bool {
        self.in_flight.len() + self.sender.unsent() < IN_FLIGHT_MAX && self.weight < IN_FLIGHT_WEIGHT_MAX
    }

    /// Whether what is read next can wait for the answers to what was read before.
    fn holds_enough(&self) -> bool {
        // Who reads at the expense of all others comes to the end of its frame.
        self.overdraft.is_none() && !self.in_flight.is_empty() && self.held >= IN_FLIGHT_BYTES_MAX
    }

    fn has_frame_to_submit(&self) -> bool {
        let open = matches!(self.phase, Phase::Open | Phase::Ended { .. });
        open && self.has_room() && self.reader.has_frame()
    }

    /// Whether the budget lets this connection read on.
    fn may_hold_more(&mut self) -> bool {
        let spent = self.overdraft.is_none() && self.shared.budget.is_spent(self.shared.door.queued_bytes());
        self.reader.hold_at_most(if spent { FLOOR_BYTES } else { usize::MAX });
        if !spent || (self.held < FLOOR_BYTES && self.reader.fits_in(FLOOR_BYTES)) {
            return true;
        }
        if self.reader.held_bytes() > 0
            && let Some(right) = self.shared.budget.overdraw()
        {
            let seconds = self.reader.missing_bytes().div_ceil(OVERDRAFT_BYTES_A_SECOND) as u64;
            let patience = (OVERDRAFT_MIN + Duration::from_secs(seconds)).min(OVERDRAFT_MAX);
            self.overdraft = Some(Overdrawn { _right: right, since: Instant::now(), patience });
            self.reader.hold_at_most(usize::MAX);
        }
        self.overdraft.is_some()
    }

    /// When this connection's patience ends if nothing happens.
    fn expiry(&self) -> Instant {
        let idle = self.active + self.shared.idle_max.unwrap_or(FOREVER).min(FOREVER);
        let waits_for_core = !self.in_flight.is_empty() && self.sender.unsent() == 0;
        let phase = match self.phase {
            Phase::Ended { since } | Phase::Broken { since, .. } | Phase::Closing { since, .. } => since + LAST_WORDS,
            // Who waits for the core is not idle.
            Phase::Open | Phase::Draining if waits_for_core => Instant::now() + FOREVER,
            Phase::Open | Phase::Draining => idle,
        };
        match &self.overdraft {
            Some(Overdrawn { since, patience, .. }) => {
                // Without a byte it does not get all of the time.
                phase.min(*since + *patience).min(self.active.max(*since) + OVERDRAFT_MIN)
            }
            None => phase,
        }
    }

    fn expired(&mut self) -> End {
        if let Some(Overdrawn { since, .. }) = &self.overdraft {
            return End::Overdrawn(since.elapsed());
        }
        match &mut self.phase {
            Phase::Ended { .. } => End::Client,
            Phase::Broken { end, .. } => end.take().expect("it has not ended yet"),
            Phase::Closing { .. } => End::Stalled,
            Phase::Open | Phase::Draining if self.sender.unsent() > 0 => End::Stalled,
            Phase::Open | Phase::Draining => End::Idle,
        }
    }
}

/// How much a request is for the core, and how much its answer may hold in memory, in shares of
/// [`IN_FLIGHT_WEIGHT_MAX`]: nothing that counts where both are as small as the request; some shares where it asks about
/// partitions, by their number; and all where it asks about the whole cluster. Such requests are answered one after the
/// other, as Kafka answers all.
fn weight(body: &RequestBody) -> usize {
    let (own, partitions): (usize, usize) = match body {
        RequestBody::Produce(_) | RequestBody::ApiVersions(_) => (0, 0),
        RequestBody::Fetch(asked) => (1, asked.topics.iter().map(|topic| topic.partitions.len()).sum()),
        RequestBody::ListOffsets(asked) => (0, asked.topics.iter().map(|topic| topic.partitions.len()).sum()),
        RequestBody::OffsetForLeaderEpoch(asked) => (0, asked.topics.iter().map(|topic| topic.partitions.len()).sum()),
        _ => (IN_FLIGHT_WEIGHT_MAX, 0),
    };
    (own + partitions / PARTITIONS_PER_WEIGHT).min(IN_FLIGHT_WEIGHT_MAX)
}

/// Does what takes long without keeping this thread's other tasks waiting.
fn beside_others<T>(work: impl FnOnce() -> T) -> T {
    // The simulated runtime has one thread, and no time passes meanwhile.
    #[cfg(madsim)]
    return work();
    #[cfg(not(madsim))]
    tokio::task::block_in_place(work)
}

/// Reads what has come, or says that the socket takes bytes again, whichever of the two is asked for.
fn poll_socket(
    socket: &mut impl Socket,
    reader: &mut FrameReader,
    read: bool,
    writable: bool,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Moved>> {
    if read {
        if let Poll::Ready(bytes) = socket.poll_read(cx, reader)? {
            return Poll::Ready(Ok(Moved::Read(bytes)));
        }
        reader.rest();
    }
    if writable && socket.poll_writable(cx)?.is_ready() {
        return Poll::Ready(Ok(Moved::Writable));
    }
    Poll::Pending
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        self.shared.budget.free(self.held);
    }
}
