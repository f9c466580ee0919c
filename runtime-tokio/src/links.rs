//! The links of the broker's peers: connections that the core opens to other nodes.
//!
//! Each link has a task. It connects, encodes and sends the core's requests, reads answers, decodes and checks them
//! (`api::prepare_answer`) and hands them to the core. The door keeps the sending end of the task's queue: the core
//! hangs up by dropping it.
//!
//! Every queue is bounded. A link's queue holds at most the questions that the core has asked on it and whose time has
//! not run out. A link reads the next answer only when the core has handled the one before, and an answer's bytes count
//! in the [`Budget`] from when they arrive until the core has handled them. So they make clients wait. But they
//! themselves never wait for the budget: two brokers whose budgets are used up by records that wait for replication
//! could otherwise not read each other's records.

use crate::budget::Budget;
use crate::connection::{INLINE_FRAME_BYTES_MAX, Shared, run_blocking};
use crate::inbox::Message;
use crate::outgoing::{Arrived, Outgoing};
use crate::transport::{Connecting, Connector, Socket};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use tidelog_core::api::prepare_answer;
use tidelog_core::ids::LinkId;
use tidelog_core::io::{LinkEvent, PeerRequest};
use tidelog_core::wire::Address;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What an answer may have beside the records of a request of the greatest size (`socket.request.max.bytes`).
const ANSWER_FIELDS_BYTES_MAX: i32 = 16 << 20;

/// A link that the core wants opened.
pub struct NewLink {
    pub link: LinkId,
    pub address: Address,
    /// What the core sends on it. It ends when the core hangs up.
    pub requests: UnboundedReceiver<Box<PeerRequest>>,
}

/// Where the door sends the requests of one link.
pub type Requests = UnboundedSender<Box<PeerRequest>>;

/// An answer's share of the budget and its link's right to read, until the core has handled the answer.
pub struct Held {
    budget: Arc<Budget>,
    bytes: usize,
    _reads: OwnedSemaphorePermit,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.free(self.bytes);
    }
}

/// An open link, and what it holds of the budget.
struct Link<S> {
    outgoing: Outgoing<S>,
    budget: Arc<Budget>,
    held_bytes: usize,
}

impl<S: Socket> Link<S> {
    fn poll(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<io::Result<Arrived>> {
        let polled = self.outgoing.poll(cx, read);
        let arrived = if let Poll::Ready(Ok(arrived)) = &polled { arrived.bytes() } else { 0 };
        let holds = self.outgoing.buffered_bytes() + arrived;
        self.budget.hold(holds.saturating_sub(self.held_bytes));
        self.budget.free(self.held_bytes.saturating_sub(holds));
        self.held_bytes = holds;
        polled
    }

    /// From now on the answer's bytes are held for the core.
    fn hand_over(&mut self, arrived: &Arrived, reads: OwnedSemaphorePermit) -> Held {
        let bytes = arrived.bytes();
        self.held_bytes -= bytes;
        Held { budget: self.budget.clone(), bytes, _reads: reads }
    }
}

impl<S> Drop for Link<S> {
    fn drop(&mut self) {
        self.budget.free(self.held_bytes);
    }
}

/// Opens the links that the core wants. Runs until the door is dropped.
pub async fn serve(mut wanted: UnboundedReceiver<NewLink>, connector: impl Connector, shared: Arc<Shared>) {
    let mut attempts: HashMap<Address, usize> = HashMap::new();
    while let Some(new) = wanted.recv().await {
        let attempt = attempts.entry(new.address.clone()).or_default();
        let connecting = connector.connect(&new.address, *attempt);
        *attempt = attempt.wrapping_add(1);
        let shared = shared.clone();
        tokio::spawn(async move {
            let link = new.link;
            if let Err(error) = run(new, connecting, &shared).await {
                shared.door.submit(Message::Link(link, LinkEvent::Lost(error.to_string()), None));
            }
        });
    }
}

/// Completes without an error when the core hangs up.
async fn run<S: Socket>(mut new: NewLink, connecting: Connecting<S>, shared: &Arc<Shared>) -> io::Result<()> {
    let socket = tokio::select! {
        biased;
        request = new.requests.recv() => {
            assert!(request.is_none(), "nothing is sent on a link before it is open");
            return Ok(());
        }
        connected = connecting => connected?,
    };
    shared.door.submit(Message::Link(new.link, LinkEvent::Opened, None));
    let answer_bytes_max = shared.request_bytes_max.saturating_add(ANSWER_FIELDS_BYTES_MAX);
    let mut link =
        Link { outgoing: Outgoing::new(socket, answer_bytes_max), budget: shared.budget.clone(), held_bytes: 0 };
    let reading = Arc::new(Semaphore::new(1));
    let mut reads = None;
    loop {
        tokio::select! {
            biased;
            request = new.requests.recv() => match request {
                Some(request) => link.outgoing.send(&request.header, &request.body),
                None => return Ok(()),
            },
            permit = reading.clone().acquire_owned(), if reads.is_none() => {
                reads = Some(permit.expect("the semaphore is never closed"));
            }
            arrived = poll_fn(|cx| link.poll(cx, reads.is_some())) => {
                let arrived = arrived?;
                let held = link.hand_over(&arrived, reads.take().expect("nothing is read without it"));
                let answer = match arrived.bytes() <= INLINE_FRAME_BYTES_MAX {
                    true => prepare_answer(arrived.asked, arrived.frame),
                    false => run_blocking(|| prepare_answer(arrived.asked, arrived.frame)),
                };
                shared.door.submit(Message::Link(new.link, LinkEvent::Answer(Box::new(answer)), Some(held)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
