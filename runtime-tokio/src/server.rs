//! A broker in this process: the core, its threads, sockets and files, from start to stop.

use crate::budget::{self, Budget};
use crate::clock::Clock;
use crate::connection::{self, Shared};
use crate::data_dirs::{DataDirError, DataDirs};
use crate::disk::{Disk, Roots};
use crate::door::{Door, Life, Link, Machine, Message};
use crate::limits;
use crate::listeners::{Bound, ListenError, SocketOptions};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidelog_core::batch::BatchLimits;
use tidelog_core::broker::Broker;
use tidelog_core::config::BrokerConfig;
use tidelog_core::ids::ConnId;
use tidelog_core::io::Input;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Worker threads run no deep recursion; what they do not touch of it is never given to them.
const STACK_BYTES: usize = 1 << 20;
/// Fewer than this, and an operator should know it before it is too late.
const FEW_OPEN_FILES: u64 = 10_000;
/// After this the stop no longer waits for clients to take their last answers.
const GOODBYE: Duration = Duration::from_secs(6);
/// How long a listener pauses when the process has no file descriptor for another connection.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot start the threads of the runtime: {0}")]
    Runtime(io::Error),
    #[error("cannot read /dev/urandom, from which the broker takes its seed: {0}")]
    Seed(io::Error),
    #[error("cannot listen for signals: {0}")]
    Signal(io::Error),
    #[error("{0}")]
    Fatal(String),
}

/// A running broker. Dropping it without [`stop`](Self::stop) is like pulling the plug.
pub struct Server {
    // Before the directories: their locks outlive everything that writes.
    runtime: Option<Runtime>,
    door: Arc<Door>,
    listeners: Vec<(String, SocketAddr)>,
    connections: Arc<Connections>,
    _dirs: DataDirs,
}

impl Server {
    /// Starts a broker; returns when it is ready and accepts connections.
    pub fn start(config: BrokerConfig) -> Result<Self, ServerError> {
        let seed = seed().map_err(ServerError::Seed)?;
        Self::start_machine(config, |config| Box::new(Broker::new(config, seed)))
    }

    /// The same around another state machine than the broker, for tests of this world.
    pub fn start_machine(
        mut config: BrokerConfig,
        machine: impl FnOnce(BrokerConfig) -> Box<dyn Machine>,
    ) -> Result<Self, ServerError> {
        match limits::raise_open_files() {
            Some(files) if files < FEW_OPEN_FILES => tracing::warn!(
                "this process may open {files} files: every partition takes one and every connection another; raise \
                 the limit (ulimit -Hn, or LimitNOFILE) before there are more"
            ),
            files => tracing::debug!(?files, "open files"),
        }
        let bound = config.listeners.iter().map(Bound::bind).collect::<Result<Vec<_>, _>>()?;
        let ports: Vec<u16> = bound.iter().map(|bound| bound.port).collect();
        config.set_addresses(&ports, &host_name());
        let dirs = DataDirs::open(config.log_dirs.iter().map(PathBuf::from).collect())?;
        for unusable in dirs.unusable() {
            tracing::error!("a log directory cannot be used and goes offline: {unusable}");
        }

        let workers = worker_threads(&config);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .max_blocking_threads(workers + 4)
            .thread_stack_size(STACK_BYTES)
            .thread_name("tidelog")
            .enable_io()
            .enable_time()
            .build()
            .map_err(ServerError::Runtime)?;
        let pool_threads = usize::try_from(config.num_io_threads).unwrap_or(1).max(1);
        // One worker stays out of the disk, whatever hangs there.
        let disk = Arc::new(Disk::new(Roots::new(dirs.roots().to_vec()), pool_threads, workers - 1));
        let door = Door::new(machine(config.clone()), disk, Clock::start());
        runtime.spawn(door.clone().tick());
        let mut server = Self {
            runtime: Some(runtime),
            door,
            listeners: bound.iter().map(|bound| (bound.name.clone(), bound.address())).collect(),
            connections: Arc::new(Connections::new(&config)),
            _dirs: dirs,
        };
        server.boot(&config, bound)?;
        Ok(server)
    }

    /// The listeners' names and the addresses they got, in the order of the configuration.
    pub fn listeners(&self) -> &[(String, SocketAddr)] {
        &self.listeners
    }

    /// Waits until the broker stops by itself, which only a fatal error makes it do.
    pub async fn failed(&self) -> ServerError {
        let mut life = self.door.life();
        let fatal = life.wait_for(|life| matches!(life, Life::Fatal(_))).await;
        match fatal.as_deref() {
            Ok(Life::Fatal(text)) => ServerError::Fatal(text.clone()),
            _ => unreachable!("the door outlives the server, and what was waited for has come"),
        }
    }

    /// Serves until SIGTERM, SIGINT or SIGHUP, then stops cleanly. A second signal ends the process at once.
    pub fn serve_until_signal(self) -> Result<(), ServerError> {
        let runtime = self.runtime.as_ref().expect("it runs");
        let mut signals = {
            let _inside = runtime.enter();
            Signals::listen().map_err(ServerError::Signal)?
        };
        let name = runtime.block_on(async {
            tokio::select! {
                error = self.failed() => Err(error),
                name = signals.next() => Ok(name),
            }
        })?;
        tracing::info!("{name}: stopping; a second signal ends the process at once");
        runtime.spawn(async move {
            signals.next().await;
            tracing::warn!("a second signal: ending without a clean stop; the next start will recover");
            std::process::exit(1);
        });
        self.stop()
    }

    /// Stops cleanly: takes no more requests, lets the broker write its checkpoints and the clean-shutdown marker,
    /// sends the last answers. Not to be called from a task of a runtime.
    pub fn stop(mut self) -> Result<(), ServerError> {
        let runtime = self.runtime.take().expect("it runs");
        let (door, connections) = (self.door.clone(), self.connections.clone());
        let ended = runtime.block_on(async move {
            connections.refuse();
            door.submit_all(&mut vec![Message::Drain, Message::Input(Input::Stop)]);
            let mut life = door.life();
            let ended = life.wait_for(|life| matches!(life, Life::Stopped | Life::Fatal(_))).await;
            let ended = ended.expect("the door lives").clone();
            door.submit(Message::Close("the broker has stopped"));
            if tokio::time::timeout(GOODBYE, connections.none()).await.is_err() {
                tracing::info!("some clients did not take their last answers");
            }
            ended
        });
        self.end(runtime);
        match ended {
            Life::Fatal(text) => Err(ServerError::Fatal(text)),
            _ => Ok(()),
        }
    }

    fn boot(&mut self, config: &BrokerConfig, bound: Vec<Bound>) -> Result<(), ServerError> {
        let runtime = self.runtime.as_ref().expect("it runs");
        let _inside = runtime.enter();
        self.door.submit(Message::Input(Input::Boot));
        let mut life = self.door.life();
        let come_up = life.wait_for(|life| *life != Life::Starting);
        if let Life::Fatal(text) = runtime.block_on(come_up).expect("the door lives").clone() {
            return Err(ServerError::Fatal(text));
        }
        let shared = Arc::new(Shared {
            door: self.door.clone(),
            budget: Budget::new(usize::try_from(config.queued_max_request_bytes).unwrap_or(budget::DEFAULT_BYTES)),
            limits: BatchLimits::default(),
            request_bytes_max: config.socket_request_max_bytes,
            idle_max: u64::try_from(config.connections_max_idle_ms).ok().map(Duration::from_millis),
        });
        for (place, (bound, listener)) in bound.into_iter().zip(&config.listeners).enumerate() {
            let place = u16::try_from(place).expect("few listeners");
            for socket in bound.listen(listener, config.socket_listen_backlog_size)? {
                let connections = self.connections.clone();
                runtime.spawn(accept(socket, place, connections, shared.clone(), SocketOptions::of(config)));
            }
        }
        Ok(())
    }

    fn end(&self, runtime: Runtime) {
        runtime.shutdown_background();
        self.door.disk().stop();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            self.end(runtime);
        }
    }
}

/// What asks a process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hang_up.recv() => "SIGHUP",
        }
    }
}

/// Takes connections in until the broker stops.
async fn accept(
    socket: TcpListener,
    listener: u16,
    connections: Arc<Connections>,
    shared: Arc<Shared>,
    options: SocketOptions,
) {
    let mut open = connections.open.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = open.wait_for(|open| !open) => return,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, listener, &connections, &shared, options),
            // The client gave up before we came to it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(OUT_OF_FILES_PAUSE).await;
            }
        }
    }
}

fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    listener: u16,
    connections: &Arc<Connections>,
    shared: &Arc<Shared>,
    options: SocketOptions,
) {
    let admitted = match connections.admit(peer.ip()) {
        Ok(admitted) => admitted,
        Err(why) => return tracing::info!(%peer, "connection refused: {why}"),
    };
    if let Err(error) = options.apply(&stream) {
        return tracing::debug!(%peer, "connection lost: {error}");
    }
    let link = Link::new(connections.name());
    tracing::debug!(%peer, conn = link.conn.0, "connection accepted");
    shared.door.submit(Message::Connected(link.clone()));
    let shared = shared.clone();
    tokio::spawn(async move {
        connection::serve(stream, peer, listener, link, shared).await;
        drop(admitted);
    });
}

/// Who is connected, and who may be.
struct Connections {
    /// `max.connections`
    max: usize,
    /// `max.connections.per.ip`
    max_per_ip: usize,
    by_ip: Mutex<HashMap<IpAddr, usize>>,
    count: watch::Sender<usize>,
    next: AtomicU64,
    open: watch::Sender<bool>,
}

impl Connections {
    fn new(config: &BrokerConfig) -> Self {
        Self {
            max: usize::try_from(config.max_connections).unwrap_or(0),
            max_per_ip: usize::try_from(config.max_connections_per_ip).unwrap_or(0),
            by_ip: Mutex::default(),
            count: watch::Sender::new(0),
            next: AtomicU64::new(1),
            open: watch::Sender::new(true),
        }
    }

    fn admit(self: &Arc<Self>, ip: IpAddr) -> Result<Admitted, String> {
        let mut by_ip = self.by_ip.lock().expect("no panic holds this lock");
        if *self.count.borrow() >= self.max {
            return Err(format!("there are max.connections = {} already", self.max));
        }
        let of_ip = by_ip.entry(ip).or_default();
        if *of_ip >= self.max_per_ip {
            return Err(format!("there are max.connections.per.ip = {} from there already", self.max_per_ip));
        }
        *of_ip += 1;
        self.count.send_modify(|count| *count += 1);
        Ok(Admitted { connections: self.clone(), ip })
    }

    fn name(&self) -> ConnId {
        ConnId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// From now on nobody is let in.
    fn refuse(&self) {
        self.open.send_replace(false);
    }

    /// Completes when nobody is connected.
    async fn none(&self) {
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// One connection's place among the limits.
struct Admitted {
    connections: Arc<Connections>,
    ip: IpAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut by_ip = self.connections.by_ip.lock().expect("no panic holds this lock");
        let of_ip = by_ip.get_mut(&self.ip).expect("it was counted");
        *of_ip -= 1;
        if *of_ip == 0 {
            by_ip.remove(&self.ip);
        }
        self.connections.count.send_modify(|count| *count -= 1);
    }
}

/// One more than there are processors, few as they may be: a thread in the disk must not be the last one. More than
/// a handful do not help one lock. `num.network.threads`, where it is set, says it otherwise.
fn worker_threads(config: &BrokerConfig) -> usize {
    let set = config.properties.contains_key("num.network.threads");
    match usize::try_from(config.num_network_threads) {
        Ok(threads) if set => threads.max(2),
        _ => std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(1, 7) + 1),
    }
}

fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}

/// What this machine calls itself, for an advertised listener without a host.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
