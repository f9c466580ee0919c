//! A broker process: it has its own data directory, prints the port it listens on, and is killed when it is dropped.

use crate::kafka;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a start or a clean stop may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which broker the tests run against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tidelog,
    Kafka,
}

impl Kind {
    /// Tidelog, unless `TIDELOG_TEST_BROKER=kafka`.
    pub fn under_test() -> Self {
        match std::env::var("TIDELOG_TEST_BROKER").as_deref() {
            Ok("kafka") => Self::Kafka,
            Ok("tidelog") | Err(_) => Self::Tidelog,
            Ok(other) => panic!("TIDELOG_TEST_BROKER={other}: allowed is `tidelog` or `kafka`"),
        }
    }
}

/// What a broker is started with. It can be started many times on the same directory.
#[derive(Clone, Debug)]
pub struct Setup {
    pub kind: Kind,
    home: PathBuf,
    properties: BTreeMap<String, String>,
    through: Vec<String>,
}

impl Setup {
    /// A broker under test that keeps everything below `home`.
    pub fn new(home: &Path) -> Self {
        Self::of(Kind::under_test(), home)
    }

    pub fn of(kind: Kind, home: &Path) -> Self {
        Self { kind, home: home.to_owned(), properties: BTreeMap::new(), through: Vec::new() }
    }

    /// Sets a name of `server.properties`.
    pub fn set(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.properties.insert(name.to_owned(), value.to_string());
        self
    }

    /// Starts the broker through a program that replaces itself by the broker, such as `setpriv` or `prlimit`. `words`
    /// are that program and its arguments.
    pub fn through(mut self, words: &[&str]) -> Self {
        self.through = words.iter().map(ToString::to_string).collect();
        self
    }

    /// The same directory for another kind of broker.
    pub fn turned_into(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The file `server.properties`, with the directory in it.
    pub fn properties_text(&self) -> String {
        let dirs = ("log.dirs".to_owned(), self.data_dir().display().to_string());
        let properties = self.properties.clone().into_iter().chain([dirs]);
        properties.map(|(name, value)| format!("{name}={value}\n")).collect()
    }

    /// Where the broker keeps its log directory.
    pub fn data_dir(&self) -> PathBuf {
        self.properties.get("log.dirs").map_or_else(|| self.home.join("data"), PathBuf::from)
    }

    /// The directory of one partition's files.
    pub fn partition_dir(&self, topic: &str, partition: i32) -> PathBuf {
        self.data_dir().join(format!("{topic}-{partition}"))
    }

    /// Starts the broker and waits until it serves.
    pub fn start(&self) -> Broker {
        self.try_start().unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// Starts the broker and waits until it serves; an error says how it failed to.
    pub fn try_start(&self) -> Result<Broker, StartFailure> {
        self.spawn().wait_until_ready()
    }

    /// Starts the process without waiting until it serves.
    pub fn spawn(&self) -> Starting {
        fs::create_dir_all(&self.home).expect("the directory of the test");
        let (mut command, port) = match self.kind {
            Kind::Tidelog => (self.tidelog(), None),
            Kind::Kafka => {
                let (command, port) = self.kafka();
                (command, Some(port))
            }
        };
        let log = self.home.join("broker.log");
        let output = File::create(&log).expect("the broker's log file");
        let child = command
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Starting { broker: Broker { child, address: String::new(), log }, port }
    }

    fn tidelog(&self) -> Command {
        let mut command = match self.through.split_first() {
            None => Command::new(tidelog_binary()),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(tidelog_binary());
                command
            }
        };
        command.arg("start");
        let mut properties = self.properties.clone();
        properties.entry("listeners".to_owned()).or_insert_with(|| "PLAINTEXT://127.0.0.1:0".to_owned());
        properties.insert("log.dirs".to_owned(), self.data_dir().display().to_string());
        for (name, value) in properties {
            command.arg("--override").arg(format!("{name}={value}"));
        }
        command
    }

    fn kafka(&self) -> (Command, u16) {
        let jars = kafka::jars().expect("TIDELOG_TEST_BROKER=kafka needs a JVM and Maven");
        let mut properties: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in [
            ("process.roles", "broker,controller"),
            ("node.id", "1"),
            ("controller.listener.names", "CONTROLLER"),
            ("inter.broker.listener.name", "PLAINTEXT"),
            ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT"),
            ("offsets.topic.replication.factor", "1"),
            ("offsets.topic.num.partitions", "1"),
            ("transaction.state.log.replication.factor", "1"),
            ("transaction.state.log.min.isr", "1"),
            ("log.cleaner.dedupe.buffer.size", "2097152"),
            ("num.network.threads", "1"),
            ("num.io.threads", "2"),
        ] {
            properties.insert(name.to_owned(), value.to_owned());
        }
        let port = free_port();
        // A node of a cluster has its own.
        if !self.properties.contains_key("listeners") {
            let controller_port = free_port();
            let listeners = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}");
            properties.insert("listeners".to_owned(), listeners);
            properties.insert("controller.quorum.bootstrap.servers".to_owned(), format!("127.0.0.1:{controller_port}"));
        }
        properties.insert("log.dirs".to_owned(), self.data_dir().display().to_string());
        // Kafka does not know this property.
        properties.extend(self.properties.clone().into_iter().filter(|(name, _)| name != "acks.require.fsync"));
        let text: String = properties.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let file = self.home.join("server.properties");
        fs::write(&file, text).expect("server.properties");
        if !self.data_dir().join("meta.properties").exists() {
            let output = kafka::tool(&jars, "kafka.tools.StorageTool")
                .args(["format", "--standalone", "-t", "4L6g3nShT-eMCtK--X86sw", "-c"])
                .arg(&file)
                .output()
                .expect("kafka-storage");
            assert!(output.status.success(), "kafka-storage: {}", String::from_utf8_lossy(&output.stderr));
        }
        let mut command = kafka::tool(&jars, "kafka.Kafka");
        command.arg(&file);
        (command, port)
    }
}

/// A broker process that may not serve yet. Dropping it kills the process.
#[derive(Debug)]
pub struct Starting {
    broker: Broker,
    /// The port that the process was told to listen on; `None`: the process chooses one and prints it.
    port: Option<u16>,
}

impl Starting {
    pub fn wait_until_ready(mut self) -> Result<Broker, StartFailure> {
        let port = self.port;
        self.broker.address = self.wait_for(|text| match port {
            None => ready_on(text),
            Some(port) => text.contains("Kafka Server started").then(|| format!("127.0.0.1:{port}")),
        })?;
        Ok(self.broker)
    }

    /// The process, whose address is not known yet.
    pub fn unready(self) -> Broker {
        self.broker
    }

    /// Where `metrics.listener` listens, which it does before the broker is ready.
    pub fn wait_for_metrics(&mut self) -> Result<String, StartFailure> {
        self.wait_for(metrics_at)
    }

    fn wait_for(&mut self, find: impl Fn(&str) -> Option<String>) -> Result<String, StartFailure> {
        let begin = Instant::now();
        loop {
            let text = self.broker.log_text();
            if let Some(found) = find(&text) {
                return Ok(found);
            }
            if let Some(status) = self.broker.child.try_wait().expect("the child's state") {
                return Err(StartFailure { status: Some(status), log: self.broker.log_text() });
            }
            if begin.elapsed() > PATIENCE {
                return Err(StartFailure { status: None, log: self.broker.log_text() });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// How a broker failed to start.
#[derive(Debug)]
pub struct StartFailure {
    /// `None`: the process neither served nor ended in time.
    pub status: Option<ExitStatus>,
    pub log: String,
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "the broker did not start ({status}):\n{}", tail(&self.log)),
            None => write!(f, "the broker does not serve within {PATIENCE:?}:\n{}", tail(&self.log)),
        }
    }
}

/// A broker that serves. Dropping it without [`stop`](Self::stop) kills the process.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    address: String,
    log: PathBuf,
}

impl Broker {
    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Everything that the broker has printed so far.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until `find` finds something in what the broker has printed. A log line may come a moment after the answer
    /// to the request that caused it.
    pub fn wait_for_log<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            let text = self.log_text();
            if let Some(found) = find(&text) {
                return found;
            }
            assert!(begin.elapsed() < PATIENCE, "no {what} in:\n{}", tail(&text));
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the broker has printed at least `count` lines that each contain all of `words`; returns them.
    pub fn log_lines(&self, count: usize, words: &[&str]) -> Vec<String> {
        self.wait_for_log(&format!("{count} lines with {words:?}"), |text| {
            let found = text.lines().filter(|line| words.iter().all(|word| line.contains(word)));
            let found: Vec<String> = found.map(str::to_owned).collect();
            (found.len() >= count).then_some(found)
        })
    }

    /// Where `metrics.listener` listens.
    pub fn metrics_address(&self) -> String {
        metrics_at(&self.log_text()).expect("metrics.listener is set")
    }

    /// Sends SIGTERM and does not wait for the end.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(id, signal).unwrap_or_else(|error| panic!("{signal:?}: {error}"));
    }

    /// Waits until a broker that was [`unready`](Starting::unready) serves.
    pub fn wait_for_ready(&self) {
        self.wait_for_log("READY", ready_on);
    }

    /// Stops the broker cleanly by SIGTERM; returns everything it has printed.
    pub fn stop(self) -> String {
        self.terminate();
        let (status, text) = self.wait_for_end();
        // A JVM that SIGTERM has ended exits with 128 + SIGTERM.
        let is_clean = status.success() || status.code() == Some(143);
        assert!(is_clean, "the clean stop failed with {status}:\n{}", tail(&text));
        text
    }

    /// Kills the process by SIGKILL. For the process that is like a power cut; what it wrote without a sync is not
    /// lost.
    pub fn kill(mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("the end of a killed child");
    }

    /// Waits until the process ends by itself; returns how it ended and everything it printed.
    pub fn wait_for_end(mut self) -> (ExitStatus, String) {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child's state") {
                return (status, self.log_text());
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "the process has not ended within {PATIENCE:?}:\n{}",
                tail(&self.log_text())
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Panics when the process has ended by itself.
    pub fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().expect("the child's state") {
            panic!("the broker ended by itself ({status}):\n{}", tail(&self.log_text()));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the end of the broker's log:\n{}", tail(&self.log_text()));
        }
    }
}

/// The binary under test: `TIDELOG_BIN`, or else the one that cargo builds along with the tests (`under_test.rs`).
pub fn tidelog_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Ok(path) = std::env::var("TIDELOG_BIN") {
            return fs::canonicalize(&path).unwrap_or_else(|error| panic!("TIDELOG_BIN={path}: {error}"));
        }
        // target/<profile>/deps/<test> or target/<profile>/<binary>
        let this = std::env::current_exe().expect("the path of this program");
        let profile_dir =
            this.ancestors().skip(1).find(|dir| !dir.ends_with("deps")).expect("a directory of the profile");
        let binary = profile_dir.join("tidelog-under-test");
        assert!(
            binary.exists(),
            "{} is missing; `cargo build --package tidelog-tests --bins` builds it",
            binary.display()
        );
        binary
    })
}

/// The address in the line that begins with `READY`, once that line is complete: of the listener PLAINTEXT, or of the first
/// one if there is no such listener.
fn ready_on(text: &str) -> Option<String> {
    let complete = &text[..=text.rfind('\n')?];
    let line = complete.lines().find(|line| line.starts_with("READY "))?;
    let mut addresses = line.split(' ').filter_map(|listener| listener.split_once("://"));
    let first = addresses.clone().next();
    addresses.find(|(name, _)| *name == "PLAINTEXT").or(first).map(|(_, address)| address.to_owned())
}

/// The address of `metrics.listener`, from the broker's log.
fn metrics_at(text: &str) -> Option<String> {
    let complete = &text[..=text.rfind('\n')?];
    let line = complete.lines().find(|line| line.contains("metrics and health at http://"))?;
    line.split_once("http://")?.1.split_once('/').map(|(address, _)| address.to_owned())
}

/// A port on which nobody listens now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

fn tail(text: &str) -> &str {
    let start = text.char_indices().rev().nth(4000).map_or(0, |(place, _)| place);
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_only_from_a_complete_line() {
        assert_eq!(ready_on("a log line\nREADY PLAINTEXT://127.0.0.1:40"), None);
        let text = "a log line\nREADY OTHER://[::1]:1 PLAINTEXT://127.0.0.1:4031\n";
        assert_eq!(ready_on(text).as_deref(), Some("127.0.0.1:4031"));
        assert_eq!(ready_on("READY CONTROLLER://127.0.0.1:9\n").as_deref(), Some("127.0.0.1:9"));
        assert_eq!(metrics_at("INFO metrics and health at http://127.0.0.1:96"), None);
        let text = "INFO metrics and health at http://127.0.0.1:9644/metrics and /healthz\n";
        assert_eq!(metrics_at(text).as_deref(), Some("127.0.0.1:9644"));
    }
}
