//! Runs a client of `tidelog_client` on real sockets, for the command line and for applications.
//!
//! ```text
//!   application ── call ──►  Driver  ──► Producer, Consumer, Admin
//!               ◄─ event ──    │ ▲
//!                        requests▼ │answers, ticks
//!                             sockets
//! ```
//!
//! [`Driver::call`] hands in what the application wants. [`Driver::next`] does all work until there is an event.
//! Nothing happens while no call of `next` is being polled: no answers are read, and requests that wait for longer than
//! `request.timeout.ms` count as lost. So wait for events in the same loop that waits for everything else
//! (`tokio::select!`); [`Driver::next`] may be dropped and called again at any time.
//!
//! The driver starts no tasks and uses no channels: it runs where it is polled, in any runtime with I/O and time, also
//! a current-thread one. Dropping the driver closes its sockets at once; [`Driver::close`] first sends what is unsent.

mod broker_connection;
#[cfg(test)]
mod tests;

use crate::clock::Clock;
use crate::tcp::TcpConnector;
use crate::transport::Connector;
use broker_connection::{BrokerConnection, ConnectionEvent};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tidelog_client::{Address, Client, Input, Outbox, Output};
use tidelog_core::ids::LinkId;
use tidelog_core::time::Mono;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// How long [`Driver::close`] waits for brokers to read what was sent.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// The last failure of a connection: why it could not be made or kept. The client itself sees no I/O errors.
#[derive(Debug)]
pub struct ConnectionFailure {
    pub address: Address,
    pub error: io::Error,
}

impl fmt::Display for ConnectionFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.error)
    }
}

/// A client (`Producer`, `Consumer` or `Admin`) with its sockets and its clock.
pub struct Driver<C: Client, N: Connector = TcpConnector> {
    client: C,
    connector: N,
    clock: Clock,
    outbox: Outbox<C::Event>,
    events: VecDeque<C::Event>,
    connections: BTreeMap<LinkId, BrokerConnection<N::Socket>>,
    /// How many attempts to connect to an address have failed in a row.
    failures: BTreeMap<Address, usize>,
    last_failure: Option<ConnectionFailure>,
    has_connected: bool,
    timer: Option<(Mono, Pin<Box<Sleep>>)>,
}

impl<C: Client> Driver<C> {
    pub fn new(client: C) -> Self {
        Self::over(client, TcpConnector::default())
    }
}

impl<C: Client, N: Connector> Driver<C, N> {
    /// Like [`new`](Driver::new), with other sockets than TCP's.
    #[doc(hidden)]
    pub fn over(client: C, connector: N) -> Self {
        Self {
            client,
            connector,
            clock: Clock::start(),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            connections: BTreeMap::new(),
            failures: BTreeMap::new(),
            last_failure: None,
            has_connected: false,
            timer: None,
        }
    }

    pub fn client(&self) -> &C {
        &self.client
    }

    /// Whether any broker has ever answered.
    pub fn has_connected(&self) -> bool {
        self.has_connected
    }

    /// Whether a connection is open on which a broker has answered.
    pub fn is_connected(&self) -> bool {
        self.connections.values().any(|connection| connection.has_answered)
    }

    /// The last failure of a connection; `None` once the same broker has answered again.
    pub fn last_failure(&self) -> Option<&ConnectionFailure> {
        self.last_failure.as_ref()
    }

    /// Hands in what the application wants. Must be called inside a runtime.
    pub fn call(&mut self, call: C::Call) {
        self.input(Input::Call(call));
    }

    /// An event that does not have to be waited for.
    pub fn take_event(&mut self) -> Option<C::Event> {
        self.events.pop_front()
    }

    /// The next event. Cancel safe.
    pub async fn next(&mut self) -> C::Event {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The polling form of [`next`](Self::next).
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<C::Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(event);
            }
            // Both must be polled even if the first made progress: each registers the waker of this task.
            let moved = self.poll_connections(cx);
            let ticked = self.poll_timer(cx);
            if !moved && !ticked {
                return Poll::Pending;
            }
        }
    }

    /// Sends what is unsent, waits until the brokers have read it, and closes the connections. Answers that have not
    /// come by then are lost, so flush a producer first. Only requests that get no answer (`acks=0`) need this.
    pub async fn close(mut self) {
        let connections = std::mem::take(&mut self.connections);
        let _ = timeout(CLOSE_PATIENCE, async {
            for connection in connections.into_values() {
                connection.close().await;
            }
        })
        .await;
    }

    fn input(&mut self, input: Input<C::Call>) {
        self.client.handle(self.clock.now(), input, &mut self.outbox);
        for output in self.outbox.outputs.drain(..) {
            match output {
                Output::Connect(link, address) => {
                    let failures = self.failures.get(&address).copied().unwrap_or(0);
                    let connecting = self.connector.connect(&address, failures);
                    self.connections.insert(link, BrokerConnection::new(address, connecting));
                }
                Output::Send(link, request) => {
                    let connection = self.connections.get_mut(&link).expect("a client sends on open connections only");
                    connection.send(&request);
                }
                Output::Close(link) => {
                    let connection = self.connections.remove(&link);
                    if let Some(connection) = connection.filter(|connection| !connection.is_open()) {
                        // The client closes a connection that is still being made when its time is up.
                        let error = io::Error::new(io::ErrorKind::TimedOut, "no answer to the attempt to connect");
                        *self.failures.entry(connection.address.clone()).or_default() += 1;
                        self.last_failure = Some(ConnectionFailure { address: connection.address, error });
                    }
                }
                Output::Event(event) => self.events.push_back(event),
            }
        }
    }

    /// Handles what has happened on the connections; returns whether anything has.
    fn poll_connections(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        let links: Vec<LinkId> = self.connections.keys().copied().collect();
        for link in links {
            // Handling an event of another connection may have closed this one.
            while let Some(connection) = self.connections.get_mut(&link) {
                let Poll::Ready(event) = connection.poll(cx) else { break };
                moved = true;
                self.handle_event(link, event);
            }
        }
        moved
    }

    fn handle_event(&mut self, link: LinkId, event: ConnectionEvent) {
        match event {
            ConnectionEvent::Connected => self.input(Input::Connected(link)),
            ConnectionEvent::Answer(answer) => {
                let connection = self.connections.get_mut(&link).expect("it was polled just now");
                connection.has_answered = true;
                self.failures.remove(&connection.address);
                self.last_failure.take_if(|last_failure| last_failure.address == connection.address);
                self.has_connected = true;
                self.input(Input::Answer(link, answer));
            }
            ConnectionEvent::ConnectFailed(error) => {
                let address = self.connections.remove(&link).expect("it was polled just now").address;
                *self.failures.entry(address.clone()).or_default() += 1;
                self.last_failure = Some(ConnectionFailure { address, error });
                self.input(Input::ConnectFailed(link));
            }
            ConnectionEvent::Ended(error) => {
                let address = self.connections.remove(&link).expect("it was polled just now").address;
                self.last_failure = Some(ConnectionFailure { address, error });
                self.input(Input::Disconnected(link));
            }
        }
    }

    /// Ticks the client if its deadline has come; returns whether it did.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.client.deadline() else {
            self.timer = None;
            return false;
        };
        if self.timer.as_ref().is_none_or(|(at, _)| *at != deadline) {
            let instant = Instant::from_std(self.clock.instant(deadline));
            match &mut self.timer {
                Some((at, sleep)) => {
                    *at = deadline;
                    sleep.as_mut().reset(instant);
                }
                None => self.timer = Some((deadline, Box::pin(sleep_until(instant)))),
            }
        }
        let (_, sleep) = self.timer.as_mut().expect("set above");
        if sleep.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.timer = None;
        self.input(Input::Tick);
        true
    }
}

impl<C: Client + fmt::Debug, N: Connector> fmt::Debug for Driver<C, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("client", &self.client)
            .field("last_failure", &self.last_failure)
            .finish_non_exhaustive()
    }
}
