//! What the commands that talk to a cluster have in common: the options that say which, the clients made of them, and
//! what a person can do when it does not work.

use super::number::at_least;
use super::{Failure, Outcome, output};
use crate::client::Driver;
use crate::entropy;
use clap::Args;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::net::Ipv6Addr;
use std::time::Duration;
use tidelog_client::admin::{self, Answer, ClusterDescription, Operation, Resource, Subject};
use tidelog_client::config::Read as ReadConfig;
use tidelog_client::{
    Address, Admin, AdminConfig, Client, ClientError, Consumer, ConsumerConfig, Producer, ProducerConfig,
};
use tidelog_core::config::{Warning, table};
use tidelog_core::ids::NodeId;
use tidelog_core::wire::ErrorCode;
use tokio::time::{Instant, sleep_until};

/// Shorter than the default of Kafka's clients, because a person waits for these commands. `-X` overrides it.
const API_TIMEOUT_MS: &str = "15000";
/// How long a record may wait for its topic to be known.
const BLOCK_MS: &str = "10000";
/// The port of a server that is named without one. It is the command line's: the clients themselves want a port, as
/// Kafka's do.
const DEFAULT_PORT: u16 = 9092;

/// Which cluster, and how to talk to it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// A broker to begin with, on port 9092 if none is named; more of them after commas. May stand before the command,
    /// too.
    #[arg(
        long,
        short = 'b',
        visible_alias = "bootstrap-servers",
        env = "TIDELOG_BOOTSTRAP_SERVER",
        default_value = "localhost:9092",
        value_name = "HOST[:PORT]"
    )]
    bootstrap_server: String,
    /// A property of Kafka's clients, such as request.timeout.ms=5000. May be given many times.
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    properties: Vec<String>,
    /// How long to wait for the first answer of any broker.
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = at_least(0_u64))]
    wait: u64,
}

impl Connection {
    pub fn admin(&self) -> Result<Session<Admin>, Failure> {
        self.admin_with(true)
    }

    /// An admin for a command whose `-X` properties are meant for its producer or consumer. It does not warn of names
    /// that it does not know: the other client does.
    pub fn admin_beside(&self) -> Result<Session<Admin>, Failure> {
        self.admin_with(false)
    }

    fn admin_with(&self, warns: bool) -> Result<Session<Admin>, Failure> {
        let defaults = vec![("default.api.timeout.ms", API_TIMEOUT_MS.into())];
        let config = self.config(defaults, Vec::new(), warns, AdminConfig::from_properties)?;
        let servers = config.common.bootstrap_servers.clone();
        Ok(self.session(Admin::new(config, seed()?), servers))
    }

    /// `own` are the properties that the command's own options set.
    pub fn producer(&self, own: Properties) -> Result<(Session<Producer>, ProducerConfig), Failure> {
        let defaults = vec![("max.block.ms", BLOCK_MS.into())];
        let config = self.config(defaults, own, true, ProducerConfig::from_properties)?;
        let servers = config.common.bootstrap_servers.clone();
        Ok((self.session(Producer::new(config.clone(), seed()?), servers), config))
    }

    pub fn consumer(&self, defaults: Properties) -> Result<(Session<Consumer>, ConsumerConfig), Failure> {
        let config = self.config(defaults, Vec::new(), true, ConsumerConfig::from_properties)?;
        let servers = config.common.bootstrap_servers.clone();
        Ok((self.session(Consumer::new(config.clone(), seed()?), servers), config))
    }

    fn session<C: Client>(&self, client: C, servers: Vec<Address>) -> Session<C> {
        let until = Instant::now() + Duration::from_secs(self.wait.min(365 * 24 * 3600));
        Session { driver: Driver::new(client), servers, wait_seconds: self.wait, until: Some(until) }
    }

    /// The command's options (`own`) override `-X`, and `-X` overrides `defaults`.
    fn config<T>(
        &self,
        defaults: Properties,
        own: Properties,
        warns: bool,
        read: impl Fn(&BTreeMap<String, String>) -> ReadConfig<T>,
    ) -> Result<T, Failure> {
        let mut properties = BTreeMap::from([("client.id".to_owned(), "tidelog".to_owned())]);
        properties.extend(defaults.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let mut given = Vec::new();
        for text in &self.properties {
            let pair = text.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
            let Some((name, value)) = pair.filter(|(name, _)| !name.is_empty()) else {
                return Err(Failure::usage(format!(
                    "-X {text}: allowed is KEY=VALUE, such as request.timeout.ms=5000"
                )));
            };
            given.push(name);
            properties.insert(name.to_owned(), value.to_owned());
        }
        properties.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
        if !properties.contains_key("bootstrap.servers") {
            properties.insert("bootstrap.servers".to_owned(), servers(&self.bootstrap_server)?);
        }
        match read(&properties) {
            Ok((config, warnings)) => {
                for warning in warnings.iter().filter(|warning| warns && given.contains(&warning.name.as_str())) {
                    output::warn(format_args!("-X {warning}"));
                }
                Ok(config)
            }
            Err(errors) => {
                let mut text = String::new();
                for error in errors {
                    let separator = if text.is_empty() { "" } else { "\n" };
                    let _ = write!(text, "{separator}{error}");
                }
                Err(Failure::usage(text))
            }
        }
    }
}

/// `bootstrap.servers` as Kafka's clients have it, where a port must be named.
fn servers(text: &str) -> Result<String, Failure> {
    let server = |item: &str| {
        let item = item.trim();
        let with_port = match item.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]:{DEFAULT_PORT}"),
            Err(_) if item.ends_with(']') || !item.contains(':') => format!("{item}:{DEFAULT_PORT}"),
            Err(_) => item.to_owned(),
        };
        Address::parse(&with_port).map(|address| address.to_string())
    };
    let servers: Option<Vec<String>> = text.split(',').map(server).collect();
    servers.map(|servers| servers.join(",")).ok_or_else(|| {
        Failure::usage(format!(
            "--bootstrap-server {text}: allowed is HOST or HOST:PORT, an IPv6 address in brackets; more of them after \
             commas"
        ))
    })
}

pub type Properties = Vec<(&'static str, String)>;

/// A client at work.
pub struct Session<C: Client> {
    pub driver: Driver<C>,
    servers: Vec<Address>,
    wait_seconds: u64,
    /// When to give up if no broker has answered.
    until: Option<Instant>,
}

impl<C: Client> Session<C> {
    /// To be called once another client has reached the brokers: [`next`](Self::next) then waits without a limit. A
    /// producer without records, for example, has nothing to ask a broker for, and would seem not to reach any.
    pub fn trust(&mut self) {
        self.until = None;
    }

    /// The next event; a failure if no broker has answered in time. Cancel safe.
    pub async fn next(&mut self) -> Result<C::Event, Failure> {
        if let Some(until) = self.until.filter(|_| !self.driver.has_connected()) {
            tokio::select! {
                biased;
                event = self.driver.next() => return Ok(event),
                () = sleep_until(until) => {}
            }
            if !self.driver.has_connected() {
                return Err(self.unreachable());
            }
        }
        Ok(self.driver.next().await)
    }

    fn unreachable(&self) -> Failure {
        let servers: Vec<String> = self.servers.iter().map(Address::to_string).collect();
        let mut text = format!("no broker answers at {} (waited for {} s)", servers.join(","), self.wait_seconds);
        self.add_trouble(&mut text);
        Failure::of(text)
    }

    /// An error as a person reads it: what, of what, why, and what to do.
    pub fn failure(&self, verb: &str, subject: &Subject, error: &ClientError) -> Failure {
        if self.until.is_some() && !self.driver.has_connected() {
            return self.unreachable();
        }
        let mut text = format!("cannot {verb} {subject}: ");
        match (error.code(), subject) {
            (
                Some(ErrorCode::UnknownTopicOrPartition),
                Subject::Topic(name) | Subject::Resource(Resource::Topic(name)),
            ) => {
                let _ = match verb {
                    "delete" => write!(text, "it does not exist\n  --if-exists takes that for success"),
                    _ => write!(
                        text,
                        "it does not exist\n  `tidelog topic create {name}` makes it, `tidelog topic list` shows what \
                         there is"
                    ),
                };
            }
            (code, _) => {
                text += &reason(error);
                // The hints are about the configuration of the topic, and one that was not created has none.
                if let Some(hint) = code.filter(|_| verb != "create").and_then(|code| hint(code, subject)) {
                    let _ = write!(text, "\n  {hint}");
                }
                if code == Some(ErrorCode::TopicAlreadyExists) {
                    text += "\n  --if-not-exists takes that for success";
                }
            }
        }
        if matches!(error, ClientError::TimedOut { .. } | ClientError::Lost { .. }) {
            let of_broker = |resource: &Resource| matches!(resource, Resource::Broker(_) | Resource::BrokerLoggers(_));
            if matches!(subject, Subject::Broker(_)) || matches!(subject, Subject::Resource(it) if of_broker(it)) {
                text += "\n  `tidelog cluster describe` shows which brokers there are";
            }
            self.add_trouble(&mut text);
        }
        Failure::of(text)
    }

    /// What is wrong with the connections, if something is, and what can be done.
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.driver.last_failure()?;
        let hint = if self.servers.contains(&trouble.address) {
            "is a broker running there? `tidelog` starts one; --bootstrap-server HOST:PORT, or the environment variable \
             TIDELOG_BOOTSTRAP_SERVER, names another"
        } else {
            "this is how the broker says that it can be reached: see advertised.listeners in its configuration"
        };
        Some(format!("{trouble}\n  {hint}"))
    }

    fn add_trouble(&self, text: &mut String) {
        if let Some(trouble) = self.trouble() {
            let _ = write!(text, "\n  {trouble}");
        }
    }
}

/// The result for each thing that an operation names.
pub type Results = Vec<(Subject, Result<Answer, ClientError>)>;

impl Session<Admin> {
    pub async fn ask(&mut self, operation: Operation) -> Result<Results, Failure> {
        self.driver.call(admin::Call { id: 0, operation });
        Ok(self.next().await?.results)
    }

    /// The answers, if all are good; else the first failure, with the others behind it.
    pub async fn ask_for_all(&mut self, verb: &str, operation: Operation) -> Result<Vec<Answer>, Failure> {
        let results = self.ask(operation).await?;
        let mut answers = Vec::new();
        let mut failures = Failures::default();
        for (subject, result) in results {
            match result {
                Ok(answer) => answers.push(answer),
                Err(error) => failures.add(self.failure(verb, &subject, &error)),
            }
        }
        failures.outcome().map(|()| answers)
    }

    /// Which brokers there are. `verb` says what they are wanted for.
    pub async fn cluster(&mut self, verb: &str) -> Result<ClusterDescription, Failure> {
        let answers = self.ask_for_all(verb, Operation::DescribeCluster).await?;
        let Some(Answer::Cluster(cluster)) = answers.into_iter().next() else { unreachable!("that is its answer") };
        Ok(cluster)
    }

    /// Shows the user what Tidelog's brokers put into their log: which of the values that were set have no effect.
    /// About the brokers of others this program knows nothing.
    pub async fn warn(&mut self, warnings: &[Warning]) {
        if !warnings.is_empty() && self.is_of_tidelog().await.unwrap_or(false) {
            for warning in warnings {
                output::warn(format_args!("warning: {warning}"));
            }
        }
    }

    /// Whether a broker has a config that only Tidelog's brokers have.
    pub async fn is_of_tidelog(&mut self) -> Result<bool, Failure> {
        let cluster = self.cluster("describe").await?;
        let resources = cluster.brokers.iter().take(1).map(|broker| Resource::Broker(broker.node)).collect();
        let answers = self.ask_for_all("describe", Operation::DescribeConfigs { resources }).await?;
        let is_own = |name: &str| table::OWN_BROKER_NAMES.contains(&name);
        Ok(answers.iter().any(|answer| match answer {
            Answer::Configs(configs) => configs.iter().any(|config| is_own(&config.name)),
            _ => unreachable!("that is its answer"),
        }))
    }
}

/// A failure that says which brokers there are, unless this is one of them.
pub fn must_have(cluster: &ClusterDescription, broker: NodeId) -> Outcome {
    let mut ids: Vec<NodeId> = cluster.brokers.iter().map(|broker| broker.node).collect();
    if ids.contains(&broker) {
        return Ok(());
    }
    ids.sort_unstable();
    let ids: Vec<String> = ids.iter().map(NodeId::to_string).collect();
    let which = match &ids[..] {
        [] => "the cluster names none".to_owned(),
        [id] => format!("the only one is {id}"),
        ids => format!("there are {}", ids.join(", ")),
    };
    Err(Failure::of(format!("there is no broker {broker}: {which}")))
}

/// The failures of an operation on several things, each of which can fail on its own.
#[derive(Default)]
pub struct Failures(Vec<Failure>);

impl Failures {
    pub fn add(&mut self, failure: Failure) {
        self.0.push(failure);
    }

    pub fn outcome(self) -> Outcome {
        let texts: Vec<String> = self.0.into_iter().map(|failure| failure.text).collect();
        if texts.is_empty() { Ok(()) } else { Err(Failure::of(texts.join("\n"))) }
    }
}

/// An error's text without the name of the request, which the user has not chosen.
pub fn reason(error: &ClientError) -> String {
    match error {
        ClientError::Refused { error, message: Some(message), .. } => format!("{message} ({error})"),
        ClientError::Refused { error, message: None, .. } => error.to_string(),
        other => other.to_string(),
    }
}

/// What can be done about an error.
pub fn hint(error: ErrorCode, subject: &Subject) -> Option<String> {
    let option = match subject {
        Subject::Topic(name) | Subject::Resource(Resource::Topic(name)) => format!("--topic {name}"),
        Subject::Resource(Resource::Broker(node)) => format!("--broker {node}"),
        Subject::Resource(Resource::BrokerLoggers(node)) => format!("--broker-loggers {node}"),
        Subject::Resource(Resource::ClientMetrics(name)) => format!("--client-metrics {name}"),
        _ => "--broker-defaults".to_owned(),
    };
    Some(match error {
        ErrorCode::MessageTooLarge => {
            format!("`tidelog config describe {option} max.message.bytes` shows the limit, `config alter` changes it")
        }
        ErrorCode::InvalidConfig => {
            format!("`tidelog config describe {option} --all` shows the names with the values that they have now")
        }
        ErrorCode::UnsupportedVersion => "the broker is too old for this, or does not serve it".to_owned(),
        _ => return None,
    })
}

/// Runs a command's future to its end on this thread. Look-ups of host names that are still
/// under way are abandoned then.
pub fn run(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| Failure::of(format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(command);
    runtime.shutdown_background();
    outcome
}

fn seed() -> Result<u64, Failure> {
    let seed = entropy::seed().map_err(|error| Failure::of(format!("cannot read /dev/urandom: {error}")))?;
    Ok(u64::from_ne_bytes(seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_a_port_listens_on_kafkas() {
        for (text, meant) in [
            ("localhost", "localhost:9092"),
            ("a:1, b ,c:2", "a:1,b:9092,c:2"),
            ("[::1]", "[::1]:9092"),
            ("::1", "[::1]:9092"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(servers(text).ok(), Some(meant.to_owned()), "{text}");
        }
        for text in ["", "a,", "a:", ":9092", "a:b", "a:0", "a:1:2"] {
            assert!(servers(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_broker_that_is_not_there_is_answered_with_those_that_are() {
        let cluster = |ids: &[i32]| {
            let brokers = ids.iter().map(|id| admin::BrokerDescription {
                node: NodeId(*id),
                address: Address::new("h", 1),
                rack: None,
            });
            ClusterDescription { cluster_id: "c".into(), controller: None, brokers: brokers.collect() }
        };
        let text = |ids: &[i32]| must_have(&cluster(ids), NodeId(7)).unwrap_err().text;
        assert_eq!(text(&[1]), "there is no broker 7: the only one is 1");
        assert_eq!(text(&[3, 1]), "there is no broker 7: there are 1, 3");
        assert!(must_have(&cluster(&[1, 7]), NodeId(7)).is_ok());
    }
}
