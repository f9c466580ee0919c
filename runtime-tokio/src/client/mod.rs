//! A client of `tidelog_core::client` on real sockets: for the command line, and for applications that embed it.
//!
//! ```text
//!   application ── call ──►  Driver  ──► Producer, Consumer, Admin
//!               ◄─ event ──    │ ▲
//!                        frames▼ │frames, ticks
//!                             sockets
//! ```
//!
//! [`Driver::call`] hands in what the application wants, [`Driver::next`] does all that is to do until there is an
//! event. Nothing happens in between: who does not wait for events gets no answers, and a client that is left alone for
//! longer than `request.timeout.ms` takes its requests for lost. So wait for events in the loop that does everything
//! else (`tokio::select!`); [`Driver::next`] may be dropped and called again at any time.
//!
//! There are no tasks and no channels: it runs wherever it is polled, in a current-thread runtime as in any other with
//! I/O and time. Dropping the driver closes its sockets at once; [`Driver::close`] first sends what is still to be sent.

mod link;
#[cfg(test)]
mod tests;

use crate::clock::Clock;
use link::{Link, Step};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tidelog_core::client::{Address, Client, Input, Outbox, Output};
use tidelog_core::ids::ConnId;
use tidelog_core::time::Mono;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// How long [`Driver::close`] waits for brokers that do not read.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// Why the last connection that failed did: what the client itself cannot know.
#[derive(Debug)]
pub struct Trouble {
    pub address: Address,
    pub error: io::Error,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.error)
    }
}

/// Runs a client.
pub struct Driver<C: Client> {
    client: C,
    clock: Clock,
    outbox: Outbox<C::Event>,
    events: VecDeque<C::Event>,
    links: BTreeMap<ConnId, Link>,
    /// Connections that ended while something was written, and that the client does not know of yet.
    lost: Vec<ConnId>,
    /// Attempts that came to nothing: the next one begins with another of the host's addresses.
    failures: BTreeMap<Address, usize>,
    trouble: Option<Trouble>,
    connected: bool,
    alarm: Option<(Mono, Pin<Box<Sleep>>)>,
}

impl<C: Client> Driver<C> {
    pub fn new(client: C) -> Self {
        Self {
            client,
            clock: Clock::start(),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            links: BTreeMap::new(),
            lost: Vec::new(),
            failures: BTreeMap::new(),
            trouble: None,
            connected: false,
            alarm: None,
        }
    }

    pub fn client(&self) -> &C {
        &self.client
    }

    /// Whether any broker has ever answered.
    pub fn has_connected(&self) -> bool {
        self.connected
    }

    /// Why a connection could not be made or kept, until the same broker answers again.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Hands in what the application wants. Must be called inside a runtime.
    pub fn call(&mut self, call: C::Call) {
        self.input(Input::Call(call));
    }

    /// An event that is there already.
    pub fn take_event(&mut self) -> Option<C::Event> {
        self.events.pop_front()
    }

    /// The next event. Cancel safe.
    pub async fn next(&mut self) -> C::Event {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`next`](Self::next) for who polls by hand.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<C::Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(event);
            }
            // Both, always: whatever is pending has to know whom to wake.
            let moved = self.poll_links(cx);
            let ticked = self.poll_alarm(cx);
            if !moved && !ticked {
                return Poll::Pending;
            }
        }
    }

    /// Sends what is still to be sent, waits until the brokers have taken it, and closes. What is not answered by then
    /// never will be: flush a producer first. Only requests that want no answer (`acks=0`) need this.
    pub async fn close(mut self) {
        let links = std::mem::take(&mut self.links);
        let _ = timeout(CLOSE_PATIENCE, async {
            for link in links.into_values() {
                link.close().await;
            }
        })
        .await;
    }

    fn input(&mut self, input: Input<C::Call>) {
        self.client.handle(self.clock.now(), input, &mut self.outbox);
        for output in self.outbox.outputs.drain(..) {
            match output {
                Output::Connect(conn, address) => {
                    let failures = self.failures.get(&address).copied().unwrap_or(0);
                    self.links.insert(conn, Link::connect(address, failures));
                }
                Output::Send(conn, frame) => {
                    let Some(link) = self.links.get_mut(&conn) else { continue };
                    if let Err(error) = link.send(frame) {
                        let address = self.links.remove(&conn).expect("found above").address;
                        self.trouble = Some(Trouble { address, error });
                        self.lost.push(conn);
                    }
                }
                Output::Close(conn) => {
                    let link = self.links.remove(&conn);
                    if let Some(link) = link.filter(|link| !link.is_open()) {
                        // The client has waited long enough.
                        let error = io::Error::new(io::ErrorKind::TimedOut, "no answer to the attempt to connect");
                        *self.failures.entry(link.address.clone()).or_default() += 1;
                        self.trouble = Some(Trouble { address: link.address, error });
                    }
                }
                Output::Event(event) => self.events.push_back(event),
            }
        }
    }

    /// Whether anything has happened.
    fn poll_links(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Some(conn) = self.lost.pop() {
            moved = true;
            self.input(Input::Disconnected(conn));
        }
        let conns: Vec<ConnId> = self.links.keys().copied().collect();
        for conn in conns {
            // What the others said may have ended it.
            while let Some(link) = self.links.get_mut(&conn) {
                let Poll::Ready(step) = link.poll(cx) else { break };
                moved = true;
                self.take(conn, step);
            }
        }
        moved
    }

    fn take(&mut self, conn: ConnId, step: Step) {
        match step {
            Step::Connected => self.input(Input::Connected(conn)),
            Step::Frame(frame) => {
                let address = &self.links[&conn].address;
                self.failures.remove(address);
                self.trouble.take_if(|trouble| trouble.address == *address);
                self.connected = true;
                self.input(Input::Frame(conn, frame));
            }
            Step::ConnectFailed(error) => {
                let address = self.links.remove(&conn).expect("it was polled just now").address;
                *self.failures.entry(address.clone()).or_default() += 1;
                self.trouble = Some(Trouble { address, error });
                self.input(Input::ConnectFailed(conn));
            }
            Step::Ended(error) => {
                let address = self.links.remove(&conn).expect("it was polled just now").address;
                self.trouble = Some(Trouble { address, error });
                self.input(Input::Disconnected(conn));
            }
        }
    }

    /// Whether a tick was due.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.client.deadline() else {
            self.alarm = None;
            return false;
        };
        if self.alarm.as_ref().is_none_or(|(at, _)| *at != deadline) {
            let instant = Instant::from_std(self.clock.instant(deadline));
            match &mut self.alarm {
                Some((at, sleep)) => {
                    *at = deadline;
                    sleep.as_mut().reset(instant);
                }
                None => self.alarm = Some((deadline, Box::pin(sleep_until(instant)))),
            }
        }
        let (_, sleep) = self.alarm.as_mut().expect("set above");
        if sleep.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.alarm = None;
        self.input(Input::Tick);
        true
    }
}

impl<C: Client + fmt::Debug> fmt::Debug for Driver<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("client", &self.client).field("trouble", &self.trouble).finish_non_exhaustive()
    }
}
