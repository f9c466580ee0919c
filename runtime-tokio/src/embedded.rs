//! A broker in another program: for tests of applications, which want one of their own, at once, and gone afterwards.
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
//! It starts within milliseconds on a free port, and there may be many in one process. With the handle all of it is
//! gone: connections, threads, data. `examples/embedded.rs` has a client talk to one, and takes it through a crash.

use crate::disk::Memory;
use crate::server::{Server, ServerError};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;
use tidelog_core::config::{BrokerConfig, ConfigError, Warning};

/// What the properties are unless they are set: of a broker for one program on this machine.
const DEFAULTS: [(&str, &str); 2] = [("listeners", "PLAINTEXT://127.0.0.1:0"), ("num.network.threads", "2")];

/// What an embedded broker is to be.
#[derive(Clone, Debug)]
pub struct Config {
    properties: BTreeMap<String, String>,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Memory {
        limit_bytes: u64,
    },
    /// In this directory, or in the system's own for such things.
    Temporary(Option<PathBuf>),
    Directory(PathBuf),
}

impl Config {
    /// Nothing is written to any disk.
    pub fn in_memory() -> Self {
        Self::at(Place::Memory { limit_bytes: u64::MAX })
    }

    /// In memory, of which its files may take so much. More is answered as by a broker whose disk is full: its log
    /// directory goes offline, and clients get `KAFKA_STORAGE_ERROR`.
    pub fn in_memory_up_to(limit_bytes: u64) -> Self {
        Self::at(Place::Memory { limit_bytes })
    }

    /// In a directory of its own, which is removed with the broker. Acknowledgements do not wait for the disk
    /// (`acks.require.fsync=false`) unless that is set otherwise: what is thrown away need not be durable.
    pub fn temporary() -> Self {
        Self::at(Place::Temporary(None)).set("acks.require.fsync", "false")
    }

    /// The same, and the directory is made in this one.
    pub fn temporary_in(parent: impl Into<PathBuf>) -> Self {
        Self { place: Place::Temporary(Some(parent.into())), ..Self::temporary() }
    }

    /// In this directory, which stays; it is made where it is missing.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self::at(Place::Directory(path.into()))
    }

    fn at(place: Place) -> Self {
        let properties = DEFAULTS.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { properties: properties.into(), place }
    }

    /// A property of `server.properties`, in the place of what it was.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }
}

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the configuration cannot be used: {}", .0.iter().map(ConfigError::to_string).collect::<Vec<_>>().join("; "))]
    Config(Vec<ConfigError>),
    /// A property without effect.
    #[error("{0}")]
    Property(String),
    #[error("cannot make a temporary directory: {0}")]
    Temporary(io::Error),
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// A running broker. It ends, as by a crash, when it is dropped.
pub struct Broker {
    /// None only where a restart has failed.
    server: Option<Server>,
    config: BrokerConfig,
    ground: Ground,
    address: SocketAddr,
}

enum Ground {
    Memory(Arc<Memory>),
    Directory { _temporary: Option<TempDir> },
}

impl Broker {
    /// Starts a broker, and returns once it serves. A property that Tidelog does not know is an error here: a test
    /// that sets one by a wrong name would test something else.
    ///
    /// May be called from asynchronous code; it takes as long as a few file operations.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let Config { mut properties, place } = config;
        let (ground, directory) = match place {
            Place::Memory { limit_bytes } => (Ground::Memory(Arc::new(Memory::new(limit_bytes))), "memory".into()),
            Place::Temporary(parent) => {
                let parent = parent.unwrap_or_else(std::env::temp_dir);
                let directory = tempfile::Builder::new().prefix("tidelog-").tempdir_in(parent);
                let directory = directory.map_err(StartError::Temporary)?;
                let path = directory.path().to_owned();
                (Ground::Directory { _temporary: Some(directory) }, path)
            }
            Place::Directory(path) => (Ground::Directory { _temporary: None }, path),
        };
        if ["log.dirs", "log.dir"].iter().any(|name| properties.contains_key(*name)) {
            let text = "log.dirs: an embedded broker's data is in memory or in the directory it was given";
            return Err(StartError::Property(text.into()));
        }
        properties.insert("log.dirs".into(), directory.display().to_string());
        let (mut config, warnings) = BrokerConfig::from_properties(&properties).map_err(StartError::Config)?;
        if let Some(Warning { text, .. }) = warnings.into_iter().next() {
            return Err(StartError::Property(text));
        }
        let server = start(config.clone(), &ground)?;
        let address = server.listeners()[0].1;
        // A restart is at the same ports, or its clients would not find it again.
        for (listener, (_, address)) in config.listeners.iter_mut().zip(server.listeners()) {
            listener.port = address.port();
        }
        Ok(Self { server: Some(server), config, ground, address })
    }

    /// Where it listens; the first of its listeners, where there are several.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as clients want it.
    pub fn bootstrap_servers(&self) -> String {
        self.address.to_string()
    }

    /// Stops cleanly and starts again, at the same address, with the same data.
    pub fn restart(&mut self) -> Result<(), StartError> {
        if let Some(server) = self.server.take() {
            outside_of_any_runtime(|| server.stop())?;
        }
        self.start_again()
    }

    /// Ends as a killed process does and starts again, at the same address: what was acknowledged is recovered.
    pub fn crash(&mut self) -> Result<(), StartError> {
        self.kill();
        self.start_again()
    }

    /// Stops cleanly. What is in memory or in a temporary directory is gone then.
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
        self.server = Some(start(self.config.clone(), &self.ground)?);
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start(config: BrokerConfig, ground: &Ground) -> Result<Server, ServerError> {
    outside_of_any_runtime(|| match ground {
        Ground::Memory(memory) => Server::start_in_memory(config, memory.clone()),
        Ground::Directory { .. } => Server::start(config),
    })
}

/// A thread that waits for a runtime must not be one of another runtime, as the caller's may be.
fn outside_of_any_runtime<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
