//! A broker inside another program, mainly for tests of applications: it starts at once and leaves nothing behind.
//!
//! ```
//! use tidelog::{Broker, Config};
//!
//! let broker = Broker::start(Config::in_memory().set("num.partitions", "3"))?;
//! // Give this to any Kafka client as its `bootstrap.servers`.
//! assert!(broker.bootstrap_servers().starts_with("127.0.0.1:"));
//! # Ok::<(), tidelog::StartError>(())
//! ```
//!
//! A broker starts within milliseconds on a free port, and one process may have many. Dropping the [`Broker`] removes
//! all of it: connections, threads, and data unless they are in a [`Config::directory`]. `examples/embedded.rs` has a
//! client talk to a broker and takes the broker through a crash.

use crate::disk::Memory;
use crate::server::{Server, ServerError};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;
use tidelog_core::config::{BrokerConfig, ConfigError, Warning};

/// Defaults that differ from a standalone broker's: this one serves programs on the same machine only.
const DEFAULTS: [(&str, &str); 2] = [("listeners", "PLAINTEXT://127.0.0.1:0"), ("num.network.threads", "2")];

/// The configuration of an embedded broker.
#[derive(Clone, Debug)]
pub struct Config {
    properties: BTreeMap<String, String>,
    location: DataLocation,
}

/// Where the configuration wants the data.
#[derive(Clone, Debug)]
enum DataLocation {
    Memory {
        limit_bytes: u64,
    },
    /// In a new directory inside this one, or inside the system's directory for temporary files.
    Temporary(Option<PathBuf>),
    Directory(PathBuf),
}

impl Config {
    /// The data are in memory; nothing is written to a disk.
    pub fn in_memory() -> Self {
        Self::new(DataLocation::Memory { limit_bytes: u64::MAX })
    }

    /// The data are in memory, of which the broker's files may take up to this many bytes. Beyond that the broker
    /// behaves as with a full disk: its log directory goes offline, and clients get `KAFKA_STORAGE_ERROR`.
    pub fn in_memory_up_to(limit_bytes: u64) -> Self {
        Self::new(DataLocation::Memory { limit_bytes })
    }

    /// The data are in a new temporary directory, which is removed with the broker. Acknowledgements do not wait for
    /// the disk (`acks.require.fsync=false`) unless that is set otherwise, since the data need not outlive this
    /// process.
    pub fn temporary() -> Self {
        Self::new(DataLocation::Temporary(None)).set("acks.require.fsync", "false")
    }

    /// Like [`temporary`](Self::temporary), with the temporary directory inside `parent`.
    pub fn temporary_in(parent: impl Into<PathBuf>) -> Self {
        Self { location: DataLocation::Temporary(Some(parent.into())), ..Self::temporary() }
    }

    /// The data are in this directory, which is created if it is missing and stays afterwards.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self::new(DataLocation::Directory(path.into()))
    }

    fn new(location: DataLocation) -> Self {
        let properties = DEFAULTS.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { properties: properties.into(), location }
    }

    /// Sets a property of `server.properties`, replacing its earlier value.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }
}

/// Why a broker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the configuration cannot be used: {}", .0.iter().map(ConfigError::to_string).collect::<Vec<_>>().join("; "))]
    Config(Vec<ConfigError>),
    /// A property that is unknown or would have no effect.
    #[error("{0}")]
    Property(String),
    #[error("cannot make a temporary directory: {0}")]
    Temporary(io::Error),
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// A running broker. Dropping it ends it like a killed process.
pub struct Broker {
    /// `None` only after a restart has failed.
    server: Option<Server>,
    config: BrokerConfig,
    data: Data,
    address: SocketAddr,
}

/// Where the data of a running broker are.
enum Data {
    Memory(Arc<Memory>),
    Directory { _temporary: Option<TempDir> },
}

impl Broker {
    /// Starts a broker, and returns once it accepts connections. A property that Tidelog does not know is an error
    /// here: a test that misspells one would not test what it means to.
    ///
    /// May be called from asynchronous code; it takes as long as a few file operations.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let Config { mut properties, location } = config;
        let (data, directory) = match location {
            DataLocation::Memory { limit_bytes } => (Data::Memory(Arc::new(Memory::new(limit_bytes))), "memory".into()),
            DataLocation::Temporary(parent) => {
                let parent = parent.unwrap_or_else(std::env::temp_dir);
                let directory = tempfile::Builder::new().prefix("tidelog-").tempdir_in(parent);
                let directory = directory.map_err(StartError::Temporary)?;
                let path = directory.path().to_owned();
                (Data::Directory { _temporary: Some(directory) }, path)
            }
            DataLocation::Directory(path) => (Data::Directory { _temporary: None }, path),
        };
        if ["log.dirs", "log.dir"].iter().any(|name| properties.contains_key(*name)) {
            let text = "log.dirs cannot be set: an embedded broker's data are in memory or in the directory that its Config names";
            return Err(StartError::Property(text.into()));
        }
        properties.insert("log.dirs".into(), directory.display().to_string());
        let (mut config, warnings) = BrokerConfig::from_properties(&properties).map_err(StartError::Config)?;
        if let Some(Warning { text, .. }) = warnings.into_iter().next() {
            return Err(StartError::Property(text));
        }
        let server = start(config.clone(), &data)?;
        let address = server.listeners()[0].1;
        // A restart must use the same ports, or clients would not find the broker again.
        for (listener, (_, address)) in config.listeners.iter_mut().zip(server.listeners()) {
            listener.port = address.port();
        }
        Ok(Self { server: Some(server), config, data, address })
    }

    /// The address of its first listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// [`address`](Self::address) as the value of a client's `bootstrap.servers`.
    pub fn bootstrap_servers(&self) -> String {
        self.address.to_string()
    }

    /// Stops cleanly and starts again at the same address, with the same data.
    pub fn restart(&mut self) -> Result<(), StartError> {
        if let Some(server) = self.server.take() {
            outside_of_any_runtime(|| server.stop())?;
        }
        self.start_again()
    }

    /// Ends like a killed process and starts again at the same address. Acknowledged records are recovered.
    pub fn crash(&mut self) -> Result<(), StartError> {
        self.kill();
        self.start_again()
    }

    /// Stops cleanly. Data in memory or in a temporary directory are then gone.
    pub fn stop(mut self) -> Result<(), StartError> {
        match self.server.take() {
            Some(server) => Ok(outside_of_any_runtime(|| server.stop())?),
            None => Ok(()),
        }
    }

    fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            outside_of_any_runtime(|| server.kill());
        }
    }

    fn start_again(&mut self) -> Result<(), StartError> {
        self.server = Some(start(self.config.clone(), &self.data)?);
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start(config: BrokerConfig, data: &Data) -> Result<Server, ServerError> {
    outside_of_any_runtime(|| match data {
        Data::Memory(memory) => Server::start_in_memory(config, memory.clone()),
        Data::Directory { .. } => Server::start(config),
    })
}

/// Runs `work` on a new thread. A thread of a runtime must not block on another runtime, and the caller's thread may
/// belong to one.
fn outside_of_any_runtime<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
