//! The configuration of a broker, as `server.properties` gives it.

use super::dynamic::connection_overrides;
use super::key::{Kind, Value};
use super::listeners::{self, Listener, METRICS_LISTENER, SecurityProtocol};
use super::{ConfigError, Effect, Warning, suggest, table};
use crate::ids::{NodeId, Uuid};
use std::collections::BTreeMap;

/// What a broker uses of its configuration, with the values as they were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    /// What was set, by name, in the one way to write it. Names that are not known are not in it.
    pub properties: BTreeMap<String, String>,
    pub node_id: NodeId,
    /// What new log directories are formatted for; drawn at random where unset.
    pub cluster_id: Option<String>,
    pub rack: Option<String>,
    /// Where the broker listens; those of the controller are among them.
    pub listeners: Vec<Listener>,
    /// Where clients are told to connect to. A host is empty and a port 0 until
    /// [`set_addresses`](Self::set_addresses) was told what they are.
    pub advertised_listeners: Vec<Listener>,
    /// Names of the controller's listeners, which clients are not told about.
    pub controller_listener_names: Vec<String>,
    pub inter_broker_listener_name: String,
    /// Where metrics and health are served over HTTP.
    pub metrics_listener: Option<Listener>,
    pub log_dirs: Vec<String>,
    /// The place among the log directories of the one that holds the metadata log.
    pub metadata_log_dir: usize,

    pub auto_create_topics_enable: bool,
    pub default_replication_factor: i16,
    pub delete_topic_enable: bool,
    pub num_partitions: i32,

    pub connections_max_idle_ms: i64,
    pub fetch_max_bytes: i32,
    pub max_connections: i32,
    pub max_connections_per_ip: i32,
    /// Exceptions to it: addresses or host names, each with its number.
    pub max_connections_per_ip_overrides: Vec<(String, i32)>,
    pub max_incremental_fetch_session_cache_slots: i32,
    pub max_request_partition_size_limit: i32,
    pub message_max_bytes: i32,
    pub offset_metadata_max_bytes: i32,
    /// -1: no limit.
    pub queued_max_request_bytes: i64,
    pub queued_max_requests: i32,
    pub request_timeout_ms: i32,
    pub socket_receive_buffer_bytes: i32,
    pub socket_request_max_bytes: i32,
    pub socket_send_buffer_bytes: i32,
    pub socket_listen_backlog_size: i32,
    pub num_io_threads: i32,
    pub num_network_threads: i32,

    pub log_flush_offset_checkpoint_interval_ms: i32,
    pub log_flush_start_offset_checkpoint_interval_ms: i32,
    pub log_initial_task_delay_ms: i64,
    pub log_retention_check_interval_ms: i64,
    pub producer_id_expiration_check_interval_ms: i32,
    pub producer_id_expiration_ms: i32,
    pub replica_high_watermark_checkpoint_interval_ms: i64,
    pub transaction_max_timeout_ms: i32,

    pub metadata_log_max_record_bytes_between_snapshots: i64,
    /// 0: no snapshot for the time that has passed.
    pub metadata_log_max_snapshot_interval_ms: i64,
    pub metadata_log_segment_bytes: i32,
    pub metadata_log_segment_ms: i64,
    pub metadata_max_batch_size_bytes: i32,
    pub metadata_max_retention_bytes: i64,
    pub metadata_max_retention_ms: i64,

    /// For tests and bug hunts, not a property: the known bugs that are switched on.
    pub plants: crate::plant::Plants,
}

impl Default for BrokerConfig {
    /// Nothing is set.
    fn default() -> Self {
        let (config, _) = Self::from_properties(std::iter::empty::<(&str, &str)>()).expect("the defaults are valid");
        config
    }
}

/// The static configuration under the dynamic ones of the cluster (KIP-226).
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    pub broker: &'a BrokerConfig,
    /// What is set for this broker alone.
    pub dynamic_broker: &'a BTreeMap<String, String>,
    /// What is set for all brokers.
    pub dynamic_default: &'a BTreeMap<String, String>,
}

static NOTHING: BTreeMap<String, String> = BTreeMap::new();

impl BrokerConfig {
    /// Reads properties, later ones over earlier ones. Says everything that is wrong with them at once.
    pub fn from_properties<K: AsRef<str>, V: AsRef<str>>(
        properties: impl IntoIterator<Item = (K, V)>,
    ) -> Result<(Self, Vec<Warning>), Vec<ConfigError>> {
        let mut reader = Reader::default();
        for (name, text) in properties {
            reader.take(name.as_ref(), text.as_ref());
        }
        let config = reader.config();
        reader.check_unsupported();
        if reader.errors.is_empty() { Ok((config, reader.warnings)) } else { Err(reader.errors) }
    }

    /// This configuration with nothing dynamic over it.
    pub fn layers(&self) -> Layers<'_> {
        Layers { broker: self, dynamic_broker: &NOTHING, dynamic_default: &NOTHING }
    }

    /// Fills in what only the world knows: the ports that were free for port 0, in the order of `listeners`, and
    /// the name of this machine for an advertised listener without a host.
    pub fn set_addresses(&mut self, bound_ports: &[u16], host_name: &str) {
        assert_eq!(bound_ports.len(), self.listeners.len(), "one port for each listener");
        for (listener, &port) in self.listeners.iter_mut().zip(bound_ports) {
            assert!(listener.port == 0 || listener.port == port, "{} asked for its port", listener.name);
            listener.port = port;
        }
        for advertised in &mut self.advertised_listeners {
            if advertised.port == 0 {
                let bound = self.listeners.iter().find(|listener| listener.name == advertised.name);
                advertised.port = bound.expect("advertised listeners are among the listeners").port;
            }
            if advertised.host.is_empty() {
                advertised.host = host_name.to_owned();
            }
        }
    }

    pub fn is_controller_listener(&self, listener: &Listener) -> bool {
        self.controller_listener_names.contains(&listener.name)
    }

    /// What clients are told of this broker: the advertised listeners without the controller's.
    pub fn client_listeners(&self) -> impl Iterator<Item = &Listener> {
        self.advertised_listeners.iter().filter(|listener| !self.is_controller_listener(listener))
    }
}

impl Layers<'_> {
    /// The value of the broker config `name` where one is set: for this broker, for all, in the file.
    pub fn set_value(&self, name: &str) -> Option<Value> {
        let key = table::broker_key(name)?;
        [self.dynamic_broker, self.dynamic_default, &self.broker.properties]
            .into_iter()
            .find_map(|layer| key.read(layer.get(name)?).ok())
    }
}

#[derive(Default)]
struct Reader {
    values: BTreeMap<String, Value>,
    warnings: Vec<Warning>,
    errors: Vec<ConfigError>,
}

/// Names that begin so belong to plug-ins and to single listeners.
const OPEN_PREFIXES: &[&str] = &["listener.name.", "config.providers.", "rlmm.config.", "rsm.config.", "client.quota."];

impl Reader {
    fn take(&mut self, name: &str, text: &str) {
        let known = table::broker_key(name).or_else(|| table::DYNAMIC_ONLY.iter().find(|key| key.name == name));
        let Some(key) = known else {
            self.warn_of(name);
            return;
        };
        // A property file cannot say "not set" but by an empty value.
        if text.trim().is_empty() && key.default_text().is_none() {
            self.values.remove(name);
            return;
        }
        match key.read(text) {
            Ok(value) => {
                if let Effect::NotYet(why) = key.effect()
                    && key.default_text() != Some(value.canonical().as_str())
                {
                    let text = format!("{name} has no effect: {why}");
                    self.warnings.push(Warning { name: name.to_owned(), text });
                }
                self.values.insert(name.to_owned(), value);
            }
            Err(_) => self.errors.push(ConfigError::of(key, text)),
        }
    }

    fn warn_of(&mut self, name: &str) {
        if OPEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            return;
        }
        let gone = |known: &str| known == name || (known.ends_with('.') && name.starts_with(known));
        let text = match table::GONE.iter().find(|(known, _)| gone(known)) {
            Some((_, instead)) => format!("{name} is gone since Kafka 4.0 and has no effect: {instead}"),
            None => match suggest(name, table::broker_keys().map(|key| key.name)) {
                Some(close) => format!("{name} is not a known config and has no effect; did you mean {close}?"),
                None => format!("{name} is not a known config and has no effect"),
            },
        };
        self.warnings.push(Warning { name: name.to_owned(), text });
    }

    fn value(&self, name: &str) -> Option<Value> {
        if let Some(value) = self.values.get(name) {
            return Some(value.clone());
        }
        let key = table::broker_key(name).unwrap_or_else(|| panic!("{name} is not in the table"));
        key.default_text().map(|text| key.read(text).expect("a default is valid"))
    }

    fn long(&self, name: &str) -> i64 {
        match self.value(name) {
            Some(Value::Number(number)) => number,
            other => unreachable!("{name} is a number, not {other:?}"),
        }
    }

    fn int(&self, name: &str) -> i32 {
        i32::try_from(self.long(name)).expect("the table says it has 32 bits")
    }

    fn boolean(&self, name: &str) -> bool {
        self.value(name) == Some(Value::Boolean(true))
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.value(name)? {
            Value::Text(text) => Some(text),
            other => unreachable!("{name} is a text, not {other:?}"),
        }
    }

    fn list(&self, name: &str) -> Option<Vec<String>> {
        match self.value(name)? {
            Value::List(items) => Some(items),
            other => unreachable!("{name} is a list, not {other:?}"),
        }
    }

    fn refuse(&mut self, name: &str, why: impl Into<String>) {
        let value = self.value(name).map(|value| value.canonical()).unwrap_or_default();
        self.errors.push(ConfigError::new(name, &value, why.into()));
    }

    fn config(&mut self) -> BrokerConfig {
        let node_id = self.node_id();
        let controller_listener_names = self.controller_listener_names();
        let (listeners, advertised_listeners) = self.listeners(&controller_listener_names);
        let inter_broker_listener_name = self.inter_broker_listener_name(&advertised_listeners);
        let max_connections_per_ip_overrides = self.connection_overrides();
        let (log_dirs, metadata_log_dir) = self.log_dirs();
        let metrics_listener = self.metrics_listener(&listeners);
        self.check_relations();
        let default_replication_factor = i16::try_from(self.int("default.replication.factor")).unwrap_or_else(|_| {
            self.refuse("default.replication.factor", "allowed is a number of 16 bits");
            1
        });
        BrokerConfig {
            properties: self.values.iter().map(|(name, value)| (name.clone(), value.canonical())).collect(),
            node_id: NodeId(node_id),
            cluster_id: self.text("cluster.id"),
            rack: self.text("broker.rack"),
            listeners,
            advertised_listeners,
            controller_listener_names,
            inter_broker_listener_name,
            metrics_listener,
            log_dirs,
            metadata_log_dir,
            auto_create_topics_enable: self.boolean("auto.create.topics.enable"),
            default_replication_factor,
            delete_topic_enable: self.boolean("delete.topic.enable"),
            num_partitions: self.int("num.partitions"),
            connections_max_idle_ms: self.long("connections.max.idle.ms"),
            fetch_max_bytes: self.int("fetch.max.bytes"),
            max_connections: self.int("max.connections"),
            max_connections_per_ip: self.int("max.connections.per.ip"),
            max_connections_per_ip_overrides,
            max_incremental_fetch_session_cache_slots: self.int("max.incremental.fetch.session.cache.slots"),
            max_request_partition_size_limit: self.int("max.request.partition.size.limit"),
            message_max_bytes: self.int("message.max.bytes"),
            offset_metadata_max_bytes: self.int("offset.metadata.max.bytes"),
            queued_max_request_bytes: self.long("queued.max.request.bytes"),
            queued_max_requests: self.int("queued.max.requests"),
            request_timeout_ms: self.int("request.timeout.ms"),
            socket_receive_buffer_bytes: self.int("socket.receive.buffer.bytes"),
            socket_request_max_bytes: self.int("socket.request.max.bytes"),
            socket_send_buffer_bytes: self.int("socket.send.buffer.bytes"),
            socket_listen_backlog_size: self.int("socket.listen.backlog.size"),
            num_io_threads: self.int("num.io.threads"),
            num_network_threads: self.int("num.network.threads"),
            log_flush_offset_checkpoint_interval_ms: self.int("log.flush.offset.checkpoint.interval.ms"),
            log_flush_start_offset_checkpoint_interval_ms: self.int("log.flush.start.offset.checkpoint.interval.ms"),
            log_initial_task_delay_ms: self.long("log.initial.task.delay.ms"),
            log_retention_check_interval_ms: self.long("log.retention.check.interval.ms"),
            producer_id_expiration_check_interval_ms: self.int("producer.id.expiration.check.interval.ms"),
            producer_id_expiration_ms: self.int("producer.id.expiration.ms"),
            replica_high_watermark_checkpoint_interval_ms: self.long("replica.high.watermark.checkpoint.interval.ms"),
            transaction_max_timeout_ms: self.int("transaction.max.timeout.ms"),
            metadata_log_max_record_bytes_between_snapshots: self
                .long("metadata.log.max.record.bytes.between.snapshots"),
            metadata_log_max_snapshot_interval_ms: self.long("metadata.log.max.snapshot.interval.ms"),
            metadata_log_segment_bytes: match self.values.get("internal.metadata.log.segment.bytes") {
                Some(_) => self.int("internal.metadata.log.segment.bytes"),
                None => self.int("metadata.log.segment.bytes"),
            },
            metadata_log_segment_ms: self.long("metadata.log.segment.ms"),
            metadata_max_batch_size_bytes: self.int("internal.metadata.max.batch.size.in.bytes"),
            metadata_max_retention_bytes: self.long("metadata.max.retention.bytes"),
            metadata_max_retention_ms: self.long("metadata.max.retention.ms"),
            plants: crate::plant::Plants::default(),
        }
    }

    /// `node.id`, else the older `broker.id`, else 1.
    fn node_id(&mut self) -> i32 {
        let set = |reader: &Self, name: &str| reader.values.contains_key(name).then(|| reader.int(name));
        match (set(self, "node.id"), set(self, "broker.id")) {
            (Some(node), Some(broker)) if node != broker => {
                self.refuse("broker.id", format!("allowed is the value of node.id, {node}, or nothing"));
                node
            }
            (Some(node), _) => node,
            (None, Some(broker)) if broker >= 0 => broker,
            (None, Some(_)) => {
                self.refuse("broker.id", "allowed is a number of at least 0");
                1
            }
            (None, None) => 1,
        }
    }

    fn controller_listener_names(&self) -> Vec<String> {
        let names = self.list("controller.listener.names").unwrap_or_else(|| vec!["CONTROLLER".to_owned()]);
        names.iter().map(|name| name.to_ascii_uppercase()).collect()
    }

    fn listeners(&mut self, controller_names: &[String]) -> (Vec<Listener>, Vec<Listener>) {
        let mut errors = Vec::new();
        let map_is_set = self.values.contains_key("listener.security.protocol.map");
        let map_text = self.text("listener.security.protocol.map").expect("it has a default");
        let map = listeners::security_map(&map_text, &mut errors);
        let protocol_of = |name: &str| {
            let of_controller = !map_is_set && controller_names.iter().any(|known| known == name);
            map.get(name).copied().or(of_controller.then_some(SecurityProtocol::Plaintext))
        };
        let items = self.list("listeners").expect("it has a default");
        let listeners = listeners::read("listeners", &items, &protocol_of, &mut errors);
        let advertised = match self.list("advertised.listeners") {
            Some(items) => listeners::read("advertised.listeners", &items, &protocol_of, &mut errors),
            None => {
                let mut once: Vec<Listener> = Vec::new();
                for listener in &listeners {
                    if !once.iter().any(|known| known.name == listener.name) {
                        once.push(listener.clone());
                    }
                }
                once
            }
        };
        self.errors.append(&mut errors);
        self.check_listeners(controller_names, &listeners, &advertised);
        (listeners, advertised)
    }

    fn check_listeners(&mut self, controller_names: &[String], listeners: &[Listener], advertised: &[Listener]) {
        if !self.errors.is_empty() {
            return;
        }
        let of_clients = |listener: &&Listener| !controller_names.contains(&listener.name);
        if listeners.iter().filter(of_clients).count() == 0 {
            self.refuse("listeners", "every listener is the controller's; allowed is at least one for clients");
        }
        if advertised.iter().filter(of_clients).count() == 0 {
            self.refuse("advertised.listeners", "allowed is at least one listener that is not the controller's");
        }
        for name in advertised.iter().map(|listener| &listener.name) {
            if !listeners.iter().any(|listener| listener.name == *name) {
                let names: Vec<&str> = listeners.iter().map(|listener| listener.name.as_str()).collect();
                let why =
                    format!("there is no listener {name}; allowed are the names of listeners: {}", names.join(", "));
                self.refuse("advertised.listeners", why);
            }
        }
        for host in advertised.iter().map(|listener| listener.host.as_str()) {
            if host == "0.0.0.0" || (host == "::" && self.values.contains_key("advertised.listeners")) {
                let name =
                    if self.values.contains_key("advertised.listeners") { "advertised.listeners" } else { "listeners" };
                self.refuse(
                    name,
                    format!("clients cannot connect to {host}: set advertised.listeners to an address they can"),
                );
            }
        }
    }

    fn inter_broker_listener_name(&mut self, advertised: &[Listener]) -> String {
        let both = self.values.contains_key("inter.broker.listener.name")
            && self.values.contains_key("security.inter.broker.protocol");
        if both {
            self.refuse("security.inter.broker.protocol", "allowed is this or inter.broker.listener.name, not both");
        }
        let (key, name) = match self.text("inter.broker.listener.name") {
            Some(name) => ("inter.broker.listener.name", name.to_ascii_uppercase()),
            None => {
                let protocol = self.text("security.inter.broker.protocol").expect("it has a default");
                ("security.inter.broker.protocol", protocol)
            }
        };
        if self.errors.is_empty() && !advertised.iter().any(|listener| listener.name == name) {
            let names: Vec<&str> = advertised.iter().map(|listener| listener.name.as_str()).collect();
            let why = format!(
                "there is no advertised listener {name}; set inter.broker.listener.name to one of {}",
                names.join(", ")
            );
            self.refuse(key, why);
        }
        name
    }

    fn connection_overrides(&mut self) -> Vec<(String, i32)> {
        let key = "max.connections.per.ip.overrides";
        let text = self.text(key).expect("it has a default");
        connection_overrides(&text).unwrap_or_else(|why| {
            self.refuse(key, why);
            Vec::new()
        })
    }

    fn metrics_listener(&mut self, others: &[Listener]) -> Option<Listener> {
        let text = self.text(METRICS_LISTENER)?;
        match listeners::plain(METRICS_LISTENER, &text, others) {
            Ok(listener) => Some(listener),
            Err(why) => {
                self.refuse(METRICS_LISTENER, why);
                None
            }
        }
    }

    fn log_dirs(&mut self) -> (Vec<String>, usize) {
        let mut dirs = self.list("log.dirs").or_else(|| self.list("log.dir")).expect("log.dir has a default");
        let metadata = self.text("metadata.log.dir").unwrap_or_else(|| dirs[0].clone());
        let place = dirs.iter().position(|dir| *dir == metadata).unwrap_or_else(|| {
            dirs.push(metadata);
            dirs.len() - 1
        });
        (dirs, place)
    }

    /// What Kafka demands of values together.
    fn check_relations(&mut self) {
        if self.int("replica.fetch.wait.max.ms") > self.int("replica.socket.timeout.ms") {
            self.refuse("replica.socket.timeout.ms", "allowed is at least replica.fetch.wait.max.ms");
        }
        if i64::from(self.int("replica.fetch.wait.max.ms")) > self.long("replica.lag.time.max.ms") {
            self.refuse("replica.fetch.wait.max.ms", "allowed is at most replica.lag.time.max.ms");
        }
        let queued = self.long("queued.max.request.bytes");
        if queued > 0 && queued < i64::from(self.int("socket.request.max.bytes")) {
            self.refuse("queued.max.request.bytes", "allowed is at least socket.request.max.bytes, or -1");
        }
        let idle = self.long("connections.max.idle.ms");
        if idle >= 0 && i64::from(self.int("connection.failed.authentication.delay.ms")) >= idle {
            self.refuse(
                "connections.max.idle.ms",
                "allowed is more than connection.failed.authentication.delay.ms, or a negative number",
            );
        }
        for name in ["log.retention.ms", "log.retention.minutes", "log.retention.hours"] {
            if let Some(Value::Number(number)) = self.values.get(name)
                && (*number == 0 || *number < -1)
            {
                self.refuse(name, "allowed is a number of at least 1, or -1 for unlimited");
            }
        }
        for (name, min) in [("log.roll.ms", 1), ("log.roll.jitter.ms", 0), ("log.flush.interval.ms", 0)] {
            if let Some(Value::Number(number)) = self.values.get(name)
                && *number < min
            {
                self.refuse(name, format!("allowed is a number of at least {min}"));
            }
        }
        let (min, max) = ("log.cleaner.min.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms");
        if self.long(min) > self.long(max) {
            self.refuse(min, format!("allowed is at most {max}"));
        }
        if self.int("max.connections.per.ip") == 0
            && self.text("max.connections.per.ip.overrides").as_deref() == Some("")
        {
            self.refuse("max.connections.per.ip", "allowed is 0 only where max.connections.per.ip.overrides is set");
        }
    }

    /// What would be promised and not kept is an error, not a warning.
    fn check_unsupported(&mut self) {
        let roles = self.list("process.roles").unwrap_or_default();
        if !roles.is_empty() && roles.len() != 2 {
            self.refuse("process.roles", "a node with one role is not supported yet; allowed is broker,controller");
        }
        let voters = self.list("controller.quorum.voters").unwrap_or_default();
        if voters.iter().filter(|voter| !voter.is_empty()).count() > 1 {
            self.refuse("controller.quorum.voters", "more than one voter is not supported yet");
        }
        let asks_for_it = |reader: &Self, name: &str| match reader.values.get(name) {
            Some(Value::Text(text)) => !text.is_empty(),
            Some(Value::Boolean(value)) => *value,
            _ => false,
        };
        for (name, what) in [
            ("authorizer.class.name", "authorization"),
            ("create.topic.policy.class.name", "a policy for topics"),
            ("alter.config.policy.class.name", "a policy for configs"),
            ("client.quota.callback.class", "a class for quotas"),
            ("delegation.token.secret.key", "delegation tokens"),
            ("remote.log.storage.system.enable", "tiered storage"),
        ] {
            if asks_for_it(self, name) {
                let key = table::broker_key(name).expect("the table has it");
                let value =
                    if key.kind == Kind::Password { "[hidden]".to_owned() } else { self.values[name].canonical() };
                self.errors.push(ConfigError::new(name, &value, format!("not supported yet: {what}; remove this")));
            }
        }
    }
}

/// The id of a cluster that is formatted without one being given.
pub fn random_cluster_id(draw: impl FnMut() -> [u8; 16]) -> String {
    Uuid::random(draw).to_string()
}
