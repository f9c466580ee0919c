//! A broker as a whole process: the core, its threads, sockets and files, from start to stop.

use crate::admission::{ResolvedLimits, UnknownHost};
use crate::data_dirs::{DataDirError, DataDirs};
use crate::disk::{Disk, Memory, Roots, Storage};
use crate::door::Machine;
use crate::entropy;
use crate::limits;
use crate::listeners::{Bound, ListenError, SocketOptions};
use crate::logging;
use crate::metrics::http::{self, Observer};
use crate::service::{Fatal, Service};
use crate::tcp::{TcpAcceptor, TcpConnector};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tidelog_core::broker::Broker;
use tidelog_core::config::{BrokerConfig, Listener};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The stack of a worker thread. Nothing recurses deeply, and the system assigns memory only to pages that are used.
const STACK_BYTES: usize = 1 << 20;
/// How long stopping waits for threads. It is only reached if a thread hangs in a system call on a broken disk.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);
/// How many connections to the metrics listener may wait to be accepted.
const METRICS_BACKLOG: i32 = 64;
/// If the process may open fewer files than this, a warning is logged at the start.
const FEW_OPEN_FILES: u64 = 10_000;

/// Why a broker could not be started, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    UnknownHost(#[from] UnknownHost),
    #[error("cannot start the threads of the runtime: {0}")]
    Runtime(io::Error),
    #[error("cannot read /dev/urandom, from which the broker takes its seed: {0}")]
    Seed(io::Error),
    #[error("cannot listen for signals: {0}")]
    Signal(io::Error),
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// A running broker. Dropping it without [`stop`](Self::stop) ends it like a killed process.
pub struct Server {
    // Fields are dropped in this order: every thread that writes ends before the directories are unlocked.
    runtime: Option<Runtime>,
    service: Arc<Service>,
    listeners: Vec<(String, SocketAddr)>,
    metrics: Option<SocketAddr>,
    storage: LogStorage,
}

/// The log directories of a running broker.
enum LogStorage {
    Files { disk: Arc<Disk>, _dirs: DataDirs },
    Memory(Arc<Memory>),
}

impl LogStorage {
    /// The directories of `log.dirs`, locked.
    fn files(config: &BrokerConfig, workers: usize) -> Result<Self, DataDirError> {
        let dirs = DataDirs::open(config.log_dirs.iter().map(PathBuf::from).collect())?;
        for unusable in dirs.unusable() {
            tracing::error!("a log directory cannot be used and goes offline: {unusable}");
        }
        let pool_threads = usize::try_from(config.num_io_threads).unwrap_or(1).max(1);
        // One worker never blocks on the disk, even if every access hangs.
        let disk = Arc::new(Disk::new(Roots::new(dirs.roots().to_vec()), pool_threads, workers - 1));
        Ok(Self::Files { disk, _dirs: dirs })
    }

    fn storage(&self) -> Box<dyn Storage> {
        match self {
            Self::Files { disk, .. } => Box::new(disk.clone()),
            Self::Memory(memory) => Box::new(memory.clone()),
        }
    }

    fn stop(&self) {
        match self {
            Self::Files { disk, .. } => disk.stop(),
            Self::Memory(memory) => memory.process_ends(),
        }
    }
}

impl Server {
    /// Starts a broker; returns when it accepts connections.
    pub fn start(config: BrokerConfig) -> Result<Self, ServerError> {
        let seed = entropy::seed().map_err(ServerError::Seed)?;
        Self::start_machine(config, |config| Box::new(Broker::new(config, seed)))
    }

    /// Like [`start`](Self::start) with another state machine in place of the broker, for tests of this crate.
    pub fn start_machine(
        config: BrokerConfig,
        machine: impl FnOnce(BrokerConfig) -> Box<dyn Machine>,
    ) -> Result<Self, ServerError> {
        Self::start_on(config, None, machine)
    }

    /// Like [`start`](Self::start), with the log directories in `memory`. No other server may use it at the same time.
    pub fn start_in_memory(config: BrokerConfig, memory: Arc<Memory>) -> Result<Self, ServerError> {
        let seed = entropy::seed().map_err(ServerError::Seed)?;
        Self::start_on(config, Some(memory), |config| Box::new(Broker::new(config, seed)))
    }

    /// Starts a broker, calls `ready` when it serves, and serves until SIGTERM, SIGINT or SIGHUP. Then it stops cleanly;
    /// also if it has not come up yet, such as a broker that waits for the controllers of its cluster. A second signal ends
    /// the process at once.
    pub fn run(config: BrokerConfig, ready: impl FnOnce(&Self)) -> Result<(), ServerError> {
        let seed = entropy::seed().map_err(ServerError::Seed)?;
        let (server, config, bound) = Self::prepare(config, None, |config| Box::new(Broker::new(config, seed)))?;
        let runtime = server.runtime();
        let mut signals = {
            let _inside = runtime.enter();
            Signals::listen().map_err(ServerError::Signal)?
        };
        let serve = async {
            server.boot(&config, bound).await?;
            ready(&server);
            Err::<Infallible, ServerError>(server.failed().await)
        };
        let name = runtime.block_on(async {
            tokio::select! {
                Err(error) = serve => Err(error),
                name = signals.next() => Ok(name),
            }
        })?;
        tracing::info!("{name}: stopping; a second signal ends the process at once");
        runtime.spawn(async move {
            signals.next().await;
            tracing::warn!("a second signal: ending without a clean stop; the next start will recover");
            std::process::exit(1);
        });
        server.stop()
    }

    fn start_on(
        config: BrokerConfig,
        memory: Option<Arc<Memory>>,
        machine: impl FnOnce(BrokerConfig) -> Box<dyn Machine>,
    ) -> Result<Self, ServerError> {
        let (server, config, bound) = Self::prepare(config, memory, machine)?;
        server.runtime().block_on(server.boot(&config, bound))?;
        Ok(server)
    }

    /// A server whose broker does not start yet, with its complete configuration and its listeners' sockets.
    fn prepare(
        mut config: BrokerConfig,
        memory: Option<Arc<Memory>>,
        machine: impl FnOnce(BrokerConfig) -> Box<dyn Machine>,
    ) -> Result<(Self, BrokerConfig, Vec<Bound>), ServerError> {
        config.loggers = logging::loggers();
        match limits::raise_open_files() {
            Some(files) if files < FEW_OPEN_FILES => tracing::warn!(
                "this process may open {files} files: every partition takes one and every connection another; raise \
                 the limit (ulimit -Hn, or LimitNOFILE) before there are more"
            ),
            files => tracing::debug!(?files, "open files"),
        }
        let limits = ResolvedLimits::of(&config, address_of)?;
        let bound = config.listeners.iter().map(Bound::bind).collect::<Result<Vec<_>, _>>()?;
        let metrics = config.metrics_listener.as_ref().map(Bound::bind).transpose()?;
        let ports: Vec<u16> = bound.iter().map(|bound| bound.port).collect();
        for listener in config.set_addresses(&ports, &host_name()) {
            log_advertised_host(listener);
        }
        let workers = worker_threads(&config);
        let storage =
            memory.map_or_else(|| LogStorage::files(&config, workers), |memory| Ok(LogStorage::Memory(memory)))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .max_blocking_threads(workers + 4)
            .thread_stack_size(STACK_BYTES)
            .thread_name("tidelog")
            .enable_io()
            .enable_time()
            .build()
            .map_err(ServerError::Runtime)?;
        let service = {
            let _inside = runtime.enter();
            let connector = TcpConnector { options: Some(SocketOptions::of(&config)) };
            Arc::new(Service::new(&config, limits, machine(config.clone()), storage.storage(), connector))
        };
        let server = Self {
            runtime: Some(runtime),
            service,
            listeners: bound.iter().map(|bound| (bound.name.clone(), bound.address())).collect(),
            metrics: metrics.as_ref().map(Bound::address),
            storage,
        };
        if let (Some(bound), Some(listener)) = (metrics, &config.metrics_listener) {
            server.serve_metrics(bound, listener)?;
        }
        Ok((server, config, bound))
    }

    /// The listeners' names and the addresses they got, in the order of the configuration.
    pub fn listeners(&self) -> &[(String, SocketAddr)] {
        &self.listeners
    }

    /// The first address of `metrics.listener`; `None` if it is not configured.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Waits until the broker stops by itself, which only a fatal error makes it do.
    pub async fn failed(&self) -> ServerError {
        self.service.failed().await.into()
    }

    /// Stops cleanly: lets the broker leave its cluster, write its checkpoints and the clean-shutdown marker, and sends the
    /// last answers. Must not be called from a task of a runtime.
    pub fn stop(mut self) -> Result<(), ServerError> {
        let runtime = self.runtime.take().expect("only `stop`, `kill` and dropping take it");
        let ended = runtime.block_on(self.service.stop());
        self.end(runtime);
        ended.map_err(ServerError::from)
    }

    /// Ends like a killed process; returns once nothing of it can be reached any more. Must not be called from a task
    /// of a runtime.
    pub fn kill(mut self) {
        let runtime = self.runtime.take().expect("only `stop`, `kill` and dropping take it");
        self.end(runtime);
    }

    /// Serves metrics and health. This comes before the boot, so that an operator can see how far the boot is.
    fn serve_metrics(&self, bound: Bound, listener: &Listener) -> Result<(), ServerError> {
        let runtime = self.runtime();
        let _inside = runtime.enter();
        let observer = Observer::new(self.service.clone());
        tracing::info!("metrics and health at http://{}/metrics and /healthz", bound.address());
        for socket in bound.listen(listener, METRICS_BACKLOG)? {
            runtime.spawn(http::serve(socket, observer.clone()));
        }
        Ok(())
    }

    async fn boot(&self, config: &BrokerConfig, bound: Vec<Bound>) -> Result<(), ServerError> {
        let options = SocketOptions::of(config);
        let mut bound: Vec<Option<Bound>> = bound.into_iter().map(Some).collect();
        let open = |index: usize| {
            let (bound, listener) = (bound[index].take(), &config.listeners[index]);
            let bound = bound.expect("a listener is opened once");
            for socket in bound.listen(listener, config.socket_listen_backlog_size)? {
                self.service.listen(index, TcpAcceptor { socket, options });
            }
            Ok::<(), ServerError>(())
        };
        self.service.boot(open).await
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("only `stop`, `kill` and dropping take it")
    }

    fn end(&self, runtime: Runtime) {
        runtime.shutdown_timeout(SHUTDOWN_PATIENCE);
        self.storage.stop();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Without waiting, because the caller may be a task of another runtime.
            runtime.shutdown_background();
            self.storage.stop();
        }
    }
}

/// The signals that ask the process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// SIGXFSZ ends a process unless it listens for it. A write beyond the process's file size limit then fails with
    /// EFBIG, which the broker handles like every failed write.
    _file_too_large: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            _file_too_large: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
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

/// How many threads the runtime gets: `num.network.threads` if it is set, else one more than there are processors, so
/// that a thread that is blocked by the disk is never the only one. More than 8 do not help, since all of them share
/// one lock.
fn worker_threads(config: &BrokerConfig) -> usize {
    let set = config.properties.contains_key("num.network.threads");
    match usize::try_from(config.num_network_threads) {
        Ok(threads) if set => threads.max(2),
        _ => std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(1, 7) + 1),
    }
}

/// A host's first address, as Kafka takes it.
fn address_of(host: &str) -> io::Result<IpAddr> {
    let mut addresses = (host, 0).to_socket_addrs()?;
    addresses.next().map(|address| address.ip()).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Logs which host name clients are told to connect to, for a listener whose advertised host nobody configured, and
/// warns if this machine itself cannot resolve that name. A thread of its own resolves it: the start does not wait for
/// a name server.
fn log_advertised_host(Listener { name, host, port, .. }: Listener) {
    tracing::info!(
        "clients of the listener {name} are told to connect to {host}:{port}, by the name of this machine; \
         advertised.listeners names another address"
    );
    std::thread::spawn(move || {
        if let Err(error) = address_of(&host) {
            tracing::warn!(
                "clients of the listener {name} are told to connect to {host}:{port}, and not even this machine can \
                 resolve that name ({error}): set advertised.listeners to an address that clients can reach"
            );
        }
    });
}

/// This machine's host name, for an advertised listener that names no host.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
