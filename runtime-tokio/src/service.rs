//! A broker at work inside a runtime: its door, its listeners and its connections, from boot to the last answer.
//!
//! Nothing here knows where sockets, files and threads come from: [`server`](crate::server) takes them from this
//! machine, the simulated shell from a simulated one.

use crate::admission::{Admitted, Connections, Limits, Refusal};
use crate::budget::{self, Budget};
use crate::clock::Clock;
use crate::connection::{self, Shared};
use crate::disk::Storage;
use crate::door::{Door, Life, Link, Machine};
use crate::inbox::Message;
use crate::metrics::Counters;
use crate::remarks::Remarks;
use crate::transport::Listener;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidelog_core::batch::BatchLimits;
use tidelog_core::config::{BrokerConfig, ConnectionLimits};
use tidelog_core::io::Input;
use tokio::sync::watch;

/// After this the stop no longer waits for clients to take their last answers.
const GOODBYE: Duration = Duration::from_secs(6);
/// How long a listener pauses when the process has no file descriptor for another connection.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(100);

pub struct Service {
    shared: Arc<Shared>,
    connections: Arc<Connections>,
}

/// What made a broker give up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(pub String);

impl Service {
    /// To be called inside the runtime, which keeps the door's tasks from here on; [`boot`](Self::boot) comes next.
    pub fn new(config: &BrokerConfig, limits: Limits, machine: Box<dyn Machine>, disk: Box<dyn Storage>) -> Self {
        let door = Door::new(machine, disk, Clock::start());
        tokio::spawn(door.clone().tick());
        tokio::spawn(door.clone().bring_large());
        let shared = Arc::new(Shared {
            door,
            budget: Budget::new(usize::try_from(config.queued_max_request_bytes).unwrap_or(budget::DEFAULT_BYTES)),
            limits: BatchLimits::default(),
            request_bytes_max: config.socket_request_max_bytes,
            idle_max: u64::try_from(config.connections_max_idle_ms).ok().map(Duration::from_millis),
            counters: Counters::new(config.listeners.iter().map(|listener| listener.name.clone())),
            closed: Remarks::new("connections closed for what their clients sent"),
        });
        let connections = Arc::new(Connections::new(limits));
        tokio::spawn(follow_limits(shared.door.limits(), connections.clone()));
        Self { shared, connections }
    }

    /// Completes when the broker has come up, and connections may be accepted.
    pub async fn boot(&self) -> Result<(), Fatal> {
        self.shared.door.submit(Message::Input(Input::Boot));
        self.live(|life| *life != Life::Starting).await
    }

    /// Takes connections in until the broker stops. `place`: which one of `listeners` it is.
    pub fn listen(&self, place: usize, listener: impl Listener) {
        let place = u16::try_from(place).expect("few listeners");
        tokio::spawn(accept(listener, place, self.connections.clone(), self.shared.clone()));
    }

    /// Completes when the broker stops by itself, which only a fatal error makes it do.
    pub async fn failed(&self) -> Fatal {
        let ended = self.live(|life| matches!(life, Life::Fatal(_))).await;
        ended.expect_err("that was waited for")
    }

    /// Stops cleanly: takes no more requests, lets the broker write its checkpoints and the clean-shutdown marker,
    /// sends the last answers.
    pub async fn stop(&self) -> Result<(), Fatal> {
        self.connections.refuse();
        let door = &self.shared.door;
        door.submit_all([Message::Drain, Message::Input(Input::Stop)]);
        let ended = self.live(|life| matches!(life, Life::Stopped | Life::Fatal(_))).await;
        door.submit(Message::Close("the broker has stopped"));
        if tokio::time::timeout(GOODBYE, self.connections.none()).await.is_err() {
            tracing::info!("some clients did not take their last answers");
        }
        ended
    }

    /// What its connections share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Who is connected.
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Completes when the broker has come as far as `wanted`.
    async fn live(&self, wanted: impl FnMut(&Life) -> bool) -> Result<(), Fatal> {
        let mut life = self.shared.door.life();
        match &*life.wait_for(wanted).await.expect("the door lives") {
            Life::Fatal(text) => Err(Fatal(text.clone())),
            _ => Ok(()),
        }
    }
}

/// Lets in as many as the running broker's configuration allows, whenever it changes.
async fn follow_limits(mut limits: watch::Receiver<Option<ConnectionLimits>>, connections: Arc<Connections>) {
    while limits.changed().await.is_ok() {
        let Some(limits) = limits.borrow_and_update().clone() else { continue };
        match connections.change(&limits) {
            Ok(()) => tracing::info!(?limits, "the connection limits have changed"),
            Err(error) => tracing::warn!("the connection limits stay as they were: {error}"),
        }
    }
}

async fn accept(listener: impl Listener, place: u16, connections: Arc<Connections>, shared: Arc<Shared>) {
    let refused = Remarks::new("connections refused");
    loop {
        let accepted = tokio::select! {
            biased;
            () = connections.refused() => return,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            // The client gave up before we came to it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(OUT_OF_FILES_PAUSE).await;
                continue;
            }
        };
        let admitted = tokio::select! {
            biased;
            () = connections.refused() => return,
            admitted = admit(&connections, &refused, peer) => admitted,
        };
        let counters = &shared.counters.listeners[usize::from(place)];
        let Some(admitted) = admitted else {
            counters.refused.add(1);
            continue;
        };
        counters.created.add(1);
        let link = Link::new(admitted.conn);
        tracing::debug!(%peer, conn = link.conn.0, "connection accepted");
        shared.door.submit(Message::Connected(link.clone()));
        let shared = shared.clone();
        tokio::spawn(async move {
            connection::serve(socket, peer, place, link, shared).await;
            drop(admitted);
        });
    }
}

/// Gives `peer` its place. Like Kafka's acceptor, it waits while the broker is full, and turns away who is one too
/// many from an address.
async fn admit(connections: &Arc<Connections>, refused: &Arc<Remarks>, peer: SocketAddr) -> Option<Admitted> {
    loop {
        match connections.admit(peer.ip()) {
            Ok(admitted) => return Some(admitted),
            Err(Refusal::Full) => connections.slot().await,
            Err(Refusal::TooManyFromThere(count)) => {
                refused.tell(|| {
                    tracing::info!(%peer, "connection refused: from there come {count} already, as many as max.connections.per.ip and its overrides allow");
                });
                return None;
            }
        }
    }
}
