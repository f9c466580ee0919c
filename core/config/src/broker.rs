//! The configuration of a broker, as `server.properties` gives it.

use super::dynamic::connection_overrides;
use super::key::{Kind, Update, Value};
use super::listeners::{self, Listener, METRICS_LISTENER, SecurityProtocol};
use super::quorum::{self, QuorumSettings};
use super::{ConfigError, Loggers, Roles, Warning, rules, table};
use std::collections::BTreeMap;
use tidelog_wire::ids::{NodeId, Uuid};

/// The configuration of a broker: a field for every value that the broker uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    /// The properties that were set and whose names are known, with their values in canonical form
    /// ([`Value::canonical`]).
    pub properties: BTreeMap<String, String>,
    /// The properties whose names are not known: those of plug-ins, of single listeners, and misspelled ones.
    pub other_properties: BTreeMap<String, String>,
    pub node_id: NodeId,
    pub roles: Roles,
    /// The cluster for which new log directories are formatted. `None`: its id is drawn at random.
    pub cluster_id: Option<String>,
    pub rack: Option<String>,
    /// Every listener, those of the controller included.
    pub listeners: Vec<Listener>,
    /// Where clients and other nodes are told to connect to. A controller's listener that `advertised.listeners` does not
    /// name stands here as in `listeners`. Until [`set_addresses`](Self::set_addresses) was called, a host may be
    /// empty and a port may be 0.
    pub advertised_listeners: Vec<Listener>,
    /// Names of the controller's listeners, which clients are not told about.
    pub controller_listener_names: Vec<String>,
    pub quorum: QuorumSettings,
    pub controller_socket_timeout_ms: i32,
    pub inter_broker_listener_name: String,
    /// Where metrics and health are served over HTTP.
    pub metrics_listener: Option<Listener>,
    /// The directories of `log.dirs`, and behind them that of `metadata.log.dir` if it is none of them.
    pub log_dirs: Vec<String>,
    /// How many of `log_dirs` `log.dirs` names. Only these take partitions.
    pub partition_dirs: usize,
    /// The index in `log_dirs` of the directory that holds the metadata log.
    pub metadata_log_dir: usize,

    pub auto_create_topics_enable: bool,
    pub default_replication_factor: i16,
    pub delete_topic_enable: bool,
    pub num_partitions: i32,

    pub connections_max_idle_ms: i64,
    pub fetch_max_bytes: i32,
    pub max_connections: i32,
    pub max_connections_per_ip: i32,
    /// Exceptions to `max_connections_per_ip`: addresses or host names, each with its limit.
    pub max_connections_per_ip_overrides: Vec<(String, i32)>,
    pub max_incremental_fetch_session_cache_slots: i32,
    pub max_request_partition_size_limit: i32,
    pub message_max_bytes: i32,
    pub offset_metadata_max_bytes: i32,
    pub produce_decompressed_bytes_max: i32,
    /// -1: no limit.
    pub queued_max_request_bytes: i64,
    pub queued_max_requests: i32,
    pub request_timeout_ms: i32,
    pub socket_connection_setup_timeout_ms: i64,
    pub socket_connection_setup_timeout_max_ms: i64,
    pub socket_receive_buffer_bytes: i32,
    pub socket_request_max_bytes: i32,
    pub socket_send_buffer_bytes: i32,
    pub socket_listen_backlog_size: i32,
    pub num_io_threads: i32,
    pub num_network_threads: i32,

    pub broker_heartbeat_interval_ms: i32,
    pub controlled_shutdown_enable: bool,
    pub auto_leader_rebalance_enable: bool,
    pub leader_imbalance_check_interval_seconds: i64,
    pub unclean_leader_election_interval_ms: i64,
    pub initial_broker_registration_timeout_ms: i32,
    /// A broker that the active controller has not heard of for this time is fenced.
    pub broker_session_timeout_ms: i32,
    pub log_flush_offset_checkpoint_interval_ms: i32,
    pub log_flush_start_offset_checkpoint_interval_ms: i32,
    pub log_initial_task_delay_ms: i64,
    pub log_retention_check_interval_ms: i64,
    pub producer_id_expiration_check_interval_ms: i32,
    pub producer_id_expiration_ms: i32,
    pub replica_fetch_backoff_ms: i32,
    pub replica_fetch_max_bytes: i32,
    pub replica_fetch_min_bytes: i32,
    pub replica_fetch_response_max_bytes: i32,
    pub replica_fetch_wait_max_ms: i32,
    pub replica_high_watermark_checkpoint_interval_ms: i64,
    /// A replica that has not caught up with its leader for this time is not in sync any more.
    pub replica_lag_time_max_ms: i64,
    pub replica_socket_timeout_ms: i32,
    pub transaction_max_timeout_ms: i32,

    pub metadata_log_max_record_bytes_between_snapshots: i64,
    /// 0: passing time alone never causes a snapshot.
    pub metadata_log_max_snapshot_interval_ms: i64,
    pub metadata_log_segment_bytes: i32,
    pub metadata_log_segment_ms: i64,
    pub metadata_max_batch_size_bytes: i32,
    /// 0: an idle controller writes nothing.
    pub metadata_max_idle_interval_ms: i32,
    pub metadata_max_retention_bytes: i64,
    pub metadata_max_retention_ms: i64,

    /// The loggers of the operator's log, with their levels at the start. Only the world knows them: no property sets
    /// this.
    pub loggers: Loggers,

    /// The planted bugs that are switched on, by tests and simulations. No property sets this.
    pub plants: crate::plant::Plants,
}

impl Default for BrokerConfig {
    /// The configuration without any property.
    fn default() -> Self {
        let (config, _) = Self::from_properties(std::iter::empty::<(&str, &str)>()).expect("the defaults are valid");
        config
    }
}

/// The three places where a broker's configs are set (KIP-226). A value for this broker goes before one for all
/// brokers, and that goes before the broker's own properties.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    pub broker: &'a BrokerConfig,
    /// The values that are set only for this broker.
    pub dynamic_broker: &'a BTreeMap<String, String>,
    /// The values that are set for all brokers.
    pub dynamic_default: &'a BTreeMap<String, String>,
}

static NOTHING: BTreeMap<String, String> = BTreeMap::new();

impl BrokerConfig {
    /// Reads properties. Of two with the same name the later one counts. The errors are everything that is wrong, not
    /// only the first problem.
    pub fn from_properties<K: AsRef<str>, V: AsRef<str>>(
        properties: impl IntoIterator<Item = (K, V)>,
    ) -> Result<(Self, Vec<Warning>), Vec<ConfigError>> {
        Self::read(properties, Reader::check_unsupported)
    }

    /// Like [`from_properties`](Self::from_properties), for a node whose directories are formatted and that is not
    /// started: what a start refuses because it is not supported yet is no error here. So the directories of every node
    /// of a Kafka cluster can be formatted.
    pub fn for_formatting<K: AsRef<str>, V: AsRef<str>>(
        properties: impl IntoIterator<Item = (K, V)>,
    ) -> Result<(Self, Vec<Warning>), Vec<ConfigError>> {
        Self::read(properties, |_| {})
    }

    fn read<K: AsRef<str>, V: AsRef<str>>(
        properties: impl IntoIterator<Item = (K, V)>,
        check: impl FnOnce(&mut Reader),
    ) -> Result<(Self, Vec<Warning>), Vec<ConfigError>> {
        let mut reader = Reader::default();
        for (name, text) in properties {
            reader.take(name.as_ref(), text.as_ref());
        }
        let config = reader.config();
        check(&mut reader);
        if reader.errors.is_empty() { Ok((config, reader.warnings)) } else { Err(reader.errors) }
    }

    /// This configuration as layers without any dynamic value.
    pub fn layers(&self) -> Layers<'_> {
        Layers { broker: self, dynamic_broker: &NOTHING, dynamic_default: &NOTHING }
    }

    /// Fills in what only the world knows: the port of each listener, in the order of `listeners`, which was chosen by
    /// the system where the configuration has port 0; and the name of this machine, for advertised listeners without a
    /// host. Returns the listeners of clients that were given this name.
    pub fn set_addresses(&mut self, bound_ports: &[u16], host_name: &str) -> Vec<Listener> {
        assert_eq!(bound_ports.len(), self.listeners.len(), "one port for each listener");
        for (listener, &port) in self.listeners.iter_mut().zip(bound_ports) {
            assert!(
                listener.port == 0 || listener.port == port,
                "the listener {} is bound to its own port",
                listener.name
            );
            listener.port = port;
        }
        let mut named = Vec::new();
        for advertised in &mut self.advertised_listeners {
            if advertised.port == 0 {
                let bound = self.listeners.iter().find(|listener| listener.name == advertised.name);
                advertised.port = bound.expect("advertised listeners are among the listeners").port;
            }
            if advertised.host.is_empty() {
                advertised.host = host_name.to_owned();
                named.push(advertised.clone());
            }
        }
        named.retain(|listener| !self.is_controller_listener(listener));
        named
    }

    pub fn is_controller_listener(&self, listener: &Listener) -> bool {
        self.controller_listener_names.contains(&listener.name)
    }

    /// What clients are told of this broker: the advertised listeners without the controller's.
    pub fn client_listeners(&self) -> impl Iterator<Item = &Listener> {
        self.advertised_listeners.iter().filter(|listener| !self.is_controller_listener(listener))
    }

    /// What other nodes are told of this node as a controller.
    pub fn controller_listeners(&self) -> impl Iterator<Item = &Listener> {
        self.advertised_listeners.iter().filter(|listener| self.is_controller_listener(listener))
    }
}

impl Layers<'_> {
    /// The value of the broker config `name` where one is set: first looked for among those for this broker, then among
    /// those for all brokers, then in the properties. What only a start can set is looked for in the properties alone:
    /// a Kafka broker may have left a dynamic value of it in the metadata.
    pub fn set_value(&self, name: &str) -> Option<Value> {
        let key = table::broker_key(name)?;
        let layers = [self.dynamic_broker, self.dynamic_default, &self.broker.properties];
        let first = if key.update == Update::ReadOnly { 2 } else { 0 };
        layers[first..].iter().find_map(|layer| key.read(layer.get(name)?).ok())
    }
}

#[derive(Default)]
struct Reader {
    values: BTreeMap<String, Value>,
    others: BTreeMap<String, String>,
    warnings: Vec<Warning>,
    errors: Vec<ConfigError>,
}

impl Reader {
    fn take(&mut self, name: &str, text: &str) {
        let known = table::broker_key(name).or_else(|| table::DYNAMIC_ONLY.iter().find(|key| key.name == name));
        self.warnings.extend(Warning::of_broker(name, text));
        let Some(key) = known else {
            self.others.insert(name.to_owned(), text.trim().to_owned());
            return;
        };
        // In a properties file, an empty value is the only way to say "not set".
        if text.trim().is_empty() && key.default_text().is_none() {
            self.values.remove(name);
            return;
        }
        match key.read(text) {
            Ok(value) => {
                self.values.insert(name.to_owned(), value);
            }
            Err(_) => self.errors.push(ConfigError::of(key, text)),
        }
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
        let roles = Roles::of(&self.list("process.roles").unwrap_or_default());
        let controller_listener_names = self.controller_listener_names();
        let (listeners, advertised_listeners) = self.listeners(roles, &controller_listener_names);
        let inter_broker_listener_name = self.inter_broker_listener_name(roles, &advertised_listeners);
        let max_connections_per_ip_overrides = self.connection_overrides();
        let (log_dirs, partition_dirs, metadata_log_dir) = self.log_dirs();
        let metrics_listener = self.metrics_listener(&listeners);
        let quorum = self.quorum();
        self.check_quorum(roles, NodeId(node_id), &quorum, &listeners, &controller_listener_names);
        let values = &self.values;
        let broken = rules::broken(&|name| values.get(name).cloned());
        self.errors.extend(broken);
        let default_replication_factor = i16::try_from(self.int("default.replication.factor")).unwrap_or_else(|_| {
            self.refuse("default.replication.factor", "allowed is a number of 16 bits");
            1
        });
        BrokerConfig {
            properties: self.values.iter().map(|(name, value)| (name.clone(), value.canonical())).collect(),
            other_properties: std::mem::take(&mut self.others),
            node_id: NodeId(node_id),
            roles,
            cluster_id: self.text("cluster.id"),
            rack: self.text("broker.rack"),
            listeners,
            advertised_listeners,
            controller_listener_names,
            quorum,
            controller_socket_timeout_ms: self.int("controller.socket.timeout.ms"),
            inter_broker_listener_name,
            metrics_listener,
            log_dirs,
            partition_dirs,
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
            produce_decompressed_bytes_max: self.int("produce.decompressed.bytes.max"),
            queued_max_request_bytes: self.long("queued.max.request.bytes"),
            queued_max_requests: self.int("queued.max.requests"),
            request_timeout_ms: self.int("request.timeout.ms"),
            socket_receive_buffer_bytes: self.int("socket.receive.buffer.bytes"),
            socket_connection_setup_timeout_ms: self.long("socket.connection.setup.timeout.ms"),
            socket_connection_setup_timeout_max_ms: self.long("socket.connection.setup.timeout.max.ms"),
            socket_request_max_bytes: self.int("socket.request.max.bytes"),
            socket_send_buffer_bytes: self.int("socket.send.buffer.bytes"),
            socket_listen_backlog_size: self.int("socket.listen.backlog.size"),
            num_io_threads: self.int("num.io.threads"),
            num_network_threads: self.int("num.network.threads"),
            controlled_shutdown_enable: self.boolean("controlled.shutdown.enable"),
            broker_heartbeat_interval_ms: self.int("broker.heartbeat.interval.ms"),
            auto_leader_rebalance_enable: self.boolean("auto.leader.rebalance.enable"),
            leader_imbalance_check_interval_seconds: self.long("leader.imbalance.check.interval.seconds"),
            unclean_leader_election_interval_ms: self.long("unclean.leader.election.interval.ms"),
            initial_broker_registration_timeout_ms: self.int("initial.broker.registration.timeout.ms"),
            broker_session_timeout_ms: self.int("broker.session.timeout.ms"),
            log_flush_offset_checkpoint_interval_ms: self.int("log.flush.offset.checkpoint.interval.ms"),
            log_flush_start_offset_checkpoint_interval_ms: self.int("log.flush.start.offset.checkpoint.interval.ms"),
            log_initial_task_delay_ms: self.long("log.initial.task.delay.ms"),
            log_retention_check_interval_ms: self.long("log.retention.check.interval.ms"),
            producer_id_expiration_check_interval_ms: self.int("producer.id.expiration.check.interval.ms"),
            producer_id_expiration_ms: self.int("producer.id.expiration.ms"),
            replica_fetch_backoff_ms: self.int("replica.fetch.backoff.ms"),
            replica_fetch_max_bytes: self.int("replica.fetch.max.bytes"),
            replica_fetch_min_bytes: self.int("replica.fetch.min.bytes"),
            replica_fetch_response_max_bytes: self.int("replica.fetch.response.max.bytes"),
            replica_fetch_wait_max_ms: self.int("replica.fetch.wait.max.ms"),
            replica_high_watermark_checkpoint_interval_ms: self.long("replica.high.watermark.checkpoint.interval.ms"),
            replica_lag_time_max_ms: self.long("replica.lag.time.max.ms"),
            replica_socket_timeout_ms: self.int("replica.socket.timeout.ms"),
            transaction_max_timeout_ms: self.int("transaction.max.timeout.ms"),
            metadata_log_max_record_bytes_between_snapshots: self
                .long("metadata.log.max.record.bytes.between.snapshots"),
            metadata_log_max_snapshot_interval_ms: self.long("metadata.log.max.snapshot.interval.ms"),
            metadata_log_segment_bytes: match self.values.get("internal.metadata.log.segment.bytes") {
                Some(_) => self.int("internal.metadata.log.segment.bytes"),
                None => self.int("metadata.log.segment.bytes"),
            },
            metadata_log_segment_ms: self.long("metadata.log.segment.ms"),
            metadata_max_idle_interval_ms: self.int("metadata.max.idle.interval.ms"),
            metadata_max_batch_size_bytes: self.int("internal.metadata.max.batch.size.in.bytes"),
            metadata_max_retention_bytes: self.long("metadata.max.retention.bytes"),
            metadata_max_retention_ms: self.long("metadata.max.retention.ms"),
            loggers: Loggers::default(),
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

    fn listeners(&mut self, roles: Roles, controller_names: &[String]) -> (Vec<Listener>, Vec<Listener>) {
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
        let mut advertised = match self.list("advertised.listeners") {
            Some(items) => listeners::read("advertised.listeners", &items, &protocol_of, &mut errors),
            None => Vec::new(),
        };
        let all_are_advertised = !self.values.contains_key("advertised.listeners");
        for listener in &listeners {
            // Other nodes must find a controller, whether or not clients are told of it.
            let is_advertised = all_are_advertised || controller_names.contains(&listener.name);
            if is_advertised && !advertised.iter().any(|known| known.name == listener.name) {
                // Nobody can connect to "all addresses": the name of this machine stands in for it. Kafka does so for an
                // empty host, refuses 0.0.0.0, and would tell clients to connect to [::].
                let host = if listener.is_wildcard() { String::new() } else { listener.host.clone() };
                advertised.push(Listener { host, ..listener.clone() });
            }
        }
        self.errors.append(&mut errors);
        self.check_listeners(roles, controller_names, &listeners, &advertised);
        (listeners, advertised)
    }

    fn check_listeners(
        &mut self,
        roles: Roles,
        controller_names: &[String],
        listeners: &[Listener],
        advertised: &[Listener],
    ) {
        if !self.errors.is_empty() {
            return;
        }
        let of_clients = |listener: &&Listener| !controller_names.contains(&listener.name);
        let names = controller_names.join(", ");
        match roles {
            Roles::Controller if listeners.iter().any(|listener| of_clients(&listener)) => {
                let why = format!("a node that is a controller alone has no other listeners than {names}");
                self.refuse("listeners", why);
            }
            Roles::Broker if !listeners.iter().all(|listener| of_clients(&listener)) => {
                let why = format!("a node that is a broker alone has no listener of controllers: {names}");
                self.refuse("listeners", why);
            }
            _ => {}
        }
        if roles.has_broker() && listeners.iter().filter(of_clients).count() == 0 {
            self.refuse("listeners", "every listener is the controller's; allowed is at least one for clients");
        }
        if roles.has_broker() && advertised.iter().filter(of_clients).count() == 0 {
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
        for listener in advertised.iter().filter(|listener| !listener.host.is_empty() && listener.is_wildcard()) {
            let host = &listener.host;
            let why = format!(
                "clients cannot connect to {host}, which stands for all addresses; allowed is an address or a name that \
                 they can reach, or no host for the name of this machine"
            );
            self.refuse("advertised.listeners", why);
        }
    }

    /// A node with one role, and one of several controllers, must say where the others are and where it is itself.
    fn check_quorum(
        &mut self,
        roles: Roles,
        node: NodeId,
        quorum: &QuorumSettings,
        listeners: &[Listener],
        controller_names: &[String],
    ) {
        if !self.errors.is_empty() {
            return;
        }
        let QuorumSettings { voters, bootstrap_servers, joins_by_itself, .. } = quorum;
        let is_voter = voters.iter().any(|(voter, _)| *voter == node);
        let has_others = voters.iter().any(|(voter, _)| *voter != node) || !bootstrap_servers.is_empty();
        if !roles.has_controller() {
            if !has_others {
                let why = "a node that is a broker alone needs the addresses of controllers: set \
                           controller.quorum.bootstrap.servers or controller.quorum.voters";
                self.refuse("process.roles", why);
            }
            if is_voter {
                let why = format!("node {node} is a broker alone; allowed are nodes that are controllers");
                self.refuse(quorum::VOTERS, why);
            }
            if *joins_by_itself {
                self.refuse("controller.quorum.auto.join.enable", "only a controller can join the voters");
            }
            return;
        }
        if !voters.is_empty() && !is_voter {
            let why = format!("node {node} is a controller and is not among the voters; allowed is a list with it");
            self.refuse(quorum::VOTERS, why);
        }
        let is_reached = listeners.iter().any(|listener| controller_names.contains(&listener.name));
        if has_others && !is_reached {
            let names = controller_names.join(", ");
            let why = format!("one of several controllers needs a listener for the others: one of {names}");
            self.refuse("listeners", why);
        }
    }

    fn inter_broker_listener_name(&mut self, roles: Roles, advertised: &[Listener]) -> String {
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
        let is_missing = roles.has_broker() && !advertised.iter().any(|listener| listener.name == name);
        if self.errors.is_empty() && is_missing {
            let names: Vec<&str> = advertised.iter().map(|listener| listener.name.as_str()).collect();
            let why = format!(
                "there is no advertised listener {name}; set inter.broker.listener.name to one of {}",
                names.join(", ")
            );
            self.refuse(key, why);
        }
        name
    }

    /// Malformed ones are refused by the rules.
    fn connection_overrides(&self) -> Vec<(String, i32)> {
        let text = self.text("max.connections.per.ip.overrides").expect("it has a default");
        connection_overrides(&text).unwrap_or_default()
    }

    fn quorum(&mut self) -> QuorumSettings {
        let voters = quorum::voters(&self.list(quorum::VOTERS).unwrap_or_default()).unwrap_or_else(|why| {
            self.refuse(quorum::VOTERS, why);
            Vec::new()
        });
        let servers = self.list(quorum::BOOTSTRAP_SERVERS).unwrap_or_default();
        let bootstrap_servers = quorum::servers(&servers).unwrap_or_else(|why| {
            self.refuse(quorum::BOOTSTRAP_SERVERS, why);
            Vec::new()
        });
        QuorumSettings {
            voters,
            bootstrap_servers,
            election_timeout_ms: self.long("controller.quorum.election.timeout.ms"),
            election_backoff_ms_max: self.long("controller.quorum.election.backoff.max.ms"),
            fetch_timeout_ms: self.long("controller.quorum.fetch.timeout.ms"),
            request_timeout_ms: self.long("controller.quorum.request.timeout.ms"),
            retry_backoff_ms: self.long("controller.quorum.retry.backoff.ms"),
            fetch_bytes_max: self.int("controller.quorum.fetch.max.bytes"),
            fetch_snapshot_bytes_max: self.int("controller.quorum.fetch.snapshot.max.bytes"),
            joins_by_itself: self.boolean("controller.quorum.auto.join.enable"),
        }
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

    fn log_dirs(&mut self) -> (Vec<String>, usize, usize) {
        let mut dirs = self.list("log.dirs").or_else(|| self.list("log.dir")).expect("log.dir has a default");
        let partition_dirs = dirs.len();
        let metadata = self.text("metadata.log.dir").unwrap_or_else(|| dirs[0].clone());
        let place = dirs.iter().position(|dir| *dir == metadata).unwrap_or_else(|| {
            dirs.push(metadata);
            dirs.len() - 1
        });
        (dirs, partition_dirs, place)
    }

    /// Refuses settings that ask for a missing feature which the operator would rely on, such as authorization. A
    /// warning could be overlooked.
    fn check_unsupported(&mut self) {
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

/// A random cluster id, for log directories that are formatted when no id is given.
pub fn random_cluster_id(draw: impl FnMut() -> [u8; 16]) -> String {
    Uuid::random(draw).to_string()
}
