//! A broker inside a runtime: its door, its listeners and its connections, from boot to the last answer.
//!
//! Sockets, files and threads are handed in: [`server`](crate::server) takes them from the operating system, the
//! simulation of `tests/madsim` from a simulated one.

use crate::admission::{Admitted, Connections, Refusal, ResolvedLimits};
use crate::budget::{self, Budget};
use crate::clock::Clock;
use crate::connection::{self, Shared};
use crate::disk::Storage;
use crate::door::{Door, Machine, OutgoingQueue, RunState};
use crate::inbox::Message;
use crate::limited_log::LimitedLog;
use crate::links;
use crate::metrics::Counters;
use crate::transport::{Connector, Listener};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidelog_core::batch::BatchLimits;
use tidelog_core::config::{BrokerConfig, ConnectionLimits};
use tidelog_core::io::{Input, Origin};
use tokio::sync::watch;

/// How long a stop waits for clients to receive their last answers.
const LAST_ANSWERS_WAIT: Duration = Duration::from_secs(6);
/// How long a listener pauses when the process has no file descriptor for another connection.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(100);

/// A broker inside a runtime.
pub struct Service {
    shared: Arc<Shared>,
    connections: Arc<Connections>,
}

/// Why a broker stopped by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(pub String);

impl Service {
    /// Starts the door's tasks, so it must be called inside the runtime. [`boot`](Self::boot) comes next.
    pub fn new(
        config: &BrokerConfig,
        limits: ResolvedLimits,
        machine: Box<dyn Machine>,
        disk: Box<dyn Storage>,
        connector: impl Connector,
    ) -> Self {
        let (door, wanted_links) = Door::new(machine, disk, Clock::start());
        tokio::spawn(door.clone().tick());
        tokio::spawn(door.clone().bring_large());
        let budget_bytes = usize::try_from(config.queued_max_request_bytes).unwrap_or(budget::DEFAULT_BYTES);
        let shared = Arc::new(Shared {
            door,
            budget: Arc::new(Budget::new(budget_bytes)),
            batch_limits: BatchLimits {
                decompressed_bytes_max: config.produce_decompressed_bytes_max as u64,
                ..BatchLimits::default()
            },
            request_bytes_max: config.socket_request_max_bytes,
            idle_max: u64::try_from(config.connections_max_idle_ms).ok().map(Duration::from_millis),
            counters: Counters::new(config.listeners.iter().map(|listener| listener.name.clone())),
            closed_log: LimitedLog::new("connections closed for what their clients sent"),
            unsupported_log: LimitedLog::new("connections of clients that want what is not supported yet"),
        });
        let connections = Arc::new(Connections::new(limits));
        tokio::spawn(links::serve(wanted_links, connector, shared.clone()));
        tokio::spawn(follow_limits(shared.door.connection_limits(), connections.clone()));
        Self { shared, connections }
    }

    /// Starts the core. Calls `open` with the place of each listener in `listeners` when its connections are to be
    /// accepted. Completes when the broker is ready, which is when all of them are open.
    pub async fn boot<E: From<Fatal>>(&self, mut open: impl FnMut(usize) -> Result<(), E>) -> Result<(), E> {
        let door = &self.shared.door;
        let (mut listening, mut run_state) = (door.listening(), door.run_state());
        door.submit(Message::Input(Input::Boot));
        let mut opened = 0;
        loop {
            // The state is read first: when the broker is ready, it has opened all its listeners before.
            let state = run_state.borrow_and_update().clone();
            let wanted = listening.borrow_and_update().clone();
            for listener in &wanted[opened..] {
                open(usize::from(*listener))?;
            }
            opened = wanted.len();
            match state {
                RunState::Starting => {}
                RunState::Fatal(text) => return Err(Fatal(text).into()),
                RunState::Ready | RunState::Stopped => return Ok(()),
            }
            let sender_is_alive = "the door, which sends this, is not dropped before the service";
            tokio::select! {
                changed = run_state.changed() => changed.expect(sender_is_alive),
                changed = listening.changed() => changed.expect(sender_is_alive),
            }
        }
    }

    /// Accepts connections until the broker stops. `listener_index`: the listener's position in `listeners`.
    pub fn listen(&self, listener_index: usize, listener: impl Listener) {
        let listener_index = u16::try_from(listener_index).expect("the configuration has fewer than 65,536 listeners");
        tokio::spawn(accept(listener, listener_index, self.connections.clone(), self.shared.clone()));
    }

    /// Completes when the broker stops by itself, which only a fatal error makes it do.
    pub async fn failed(&self) -> Fatal {
        let ended = self.reaches(|state| matches!(state, RunState::Fatal(_))).await;
        ended.expect_err("`reaches` returns an error for `Fatal`, the only state waited for")
    }

    /// Stops cleanly: lets the broker leave its cluster, write its checkpoints and the clean-shutdown marker, and sends the
    /// last answers. The broker says when no more requests are to be read.
    pub async fn stop(&self) -> Result<(), Fatal> {
        let door = &self.shared.door;
        door.submit(Message::Input(Input::Stop));
        let ended = self.reaches(|state| matches!(state, RunState::Stopped | RunState::Fatal(_))).await;
        door.submit(Message::Close("the broker has stopped"));
        if tokio::time::timeout(LAST_ANSWERS_WAIT, self.connections.all_closed()).await.is_err() {
            tracing::info!("some clients did not take their last answers");
        }
        ended
    }

    /// What its connections share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The open connections.
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Completes when the broker's state is one that `wanted` accepts; an error if that is [`RunState::Fatal`].
    async fn reaches(&self, wanted: impl FnMut(&RunState) -> bool) -> Result<(), Fatal> {
        let mut run_state = self.shared.door.run_state();
        match &*run_state.wait_for(wanted).await.expect("the door, which sends this, is not dropped before the service")
        {
            RunState::Fatal(text) => Err(Fatal(text.clone())),
            _ => Ok(()),
        }
    }
}

/// Puts the connection limits in force whenever the core changes them.
async fn follow_limits(mut limits: watch::Receiver<Option<ConnectionLimits>>, connections: Arc<Connections>) {
    while limits.changed().await.is_ok() {
        let Some(limits) = limits.borrow_and_update().clone() else { continue };
        match connections.set_limits(&limits) {
            Ok(()) => tracing::info!(?limits, "the connection limits have changed"),
            Err(error) => tracing::warn!("the connection limits stay as they were: {error}"),
        }
    }
}

async fn accept(listener: impl Listener, listener_index: u16, connections: Arc<Connections>, shared: Arc<Shared>) {
    let refused_log = LimitedLog::new("connections refused");
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.door.drained(listener_index) => return,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            // The client closed the connection before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(OUT_OF_FILES_PAUSE).await;
                continue;
            }
        };
        let admitted = tokio::select! {
            biased;
            () = shared.door.drained(listener_index) => return,
            admitted = admit(&connections, &refused_log, peer) => admitted,
        };
        let counters = &shared.counters.listeners[usize::from(listener_index)];
        let Some(admitted) = admitted else {
            counters.refused.add(1);
            continue;
        };
        counters.created.add(1);
        let queue = OutgoingQueue::new(admitted.conn, Origin { listener: listener_index, address: admitted.ip });
        tracing::debug!(%peer, conn = queue.conn.0, "connection accepted");
        shared.door.submit(Message::Connected(queue.clone()));
        let shared = shared.clone();
        tokio::spawn(async move {
            connection::serve(socket, peer, listener_index, queue, shared).await;
            drop(admitted);
        });
    }
}

/// Admits `peer`; `None` if its address has too many connections. Like Kafka's acceptor, it waits while the broker has
/// `max.connections`.
async fn admit(connections: &Arc<Connections>, refused_log: &Arc<LimitedLog>, peer: SocketAddr) -> Option<Admitted> {
    loop {
        match connections.admit(peer.ip()) {
            Ok(admitted) => return Some(admitted),
            Err(Refusal::Full) => connections.has_room().await,
            Err(Refusal::TooManyFromAddress(count)) => {
                refused_log.log(|| {
                    tracing::info!(%peer, "connection refused: its address has {count} open already, as many as max.connections.per.ip and its overrides allow");
                });
                return None;
            }
        }
    }
}
