//! The clients' configuration: names, defaults and limits of Apache Kafka's clients.
//!
//! A value that is not allowed gives a [`ConfigError`], which names the config, the value and what is allowed. An
//! unknown name gives a [`Warning`]. All errors are reported together.

use super::{Address, Backoff};
use bytestring::ByteString;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use tidelog_batch::Codec;
use tidelog_config::{ConfigError, Warning, did_you_mean, suggest};

/// The result of reading a client's configuration: the configuration with warnings about ignored names, or all errors.
pub type Read<T> = Result<(T, Vec<Warning>), Vec<ConfigError>>;

/// The configuration that all clients have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommonConfig {
    pub bootstrap_servers: Vec<Address>,
    pub client_id: ByteString,
    pub request_timeout_ms: i64,
    pub retry_backoff: Backoff,
    pub reconnect_backoff: Backoff,
    pub connection_setup_timeout: Backoff,
    pub connections_max_idle_ms: i64,
    pub metadata_max_age_ms: i64,
    /// How long metadata may be missing before the client begins again with the bootstrap servers (KIP-899). `None`: it
    /// never does.
    pub rebootstrap_after_ms: Option<i64>,
    /// Whether a request for a topic's metadata may create the topic.
    pub allow_auto_create_topics: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerConfig {
    pub common: CommonConfig,
    /// 0, 1, or -1 for all.
    pub acks: i16,
    pub enable_idempotence: bool,
    pub batch_size_bytes: usize,
    pub linger_ms: i64,
    pub max_request_size_bytes: usize,
    pub buffer_memory_bytes: usize,
    pub compression: Codec,
    pub compression_level: i32,
    pub delivery_timeout_ms: i64,
    pub max_in_flight_requests_per_connection: usize,
    pub max_block_ms: i64,
    pub retries: u32,
    /// Whether partitions with long queues get fewer records (KIP-794).
    pub partitioner_adaptive: bool,
    pub partitioner_ignore_keys: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerConfig {
    pub common: CommonConfig,
    pub auto_offset_reset: OffsetReset,
    pub check_crcs: bool,
    pub fetch_min_bytes: i32,
    pub fetch_max_bytes: i32,
    pub fetch_max_wait_ms: i32,
    pub max_partition_fetch_bytes: i32,
    pub max_poll_records: usize,
    /// How many bytes of keys, values and headers one poll gives at most; the first record may be larger. Kafka has no
    /// such config.
    pub max_poll_bytes: usize,
    pub default_api_timeout_ms: i64,
    pub client_rack: ByteString,
}

/// Where to begin if there is no position, or one outside of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetReset {
    Earliest,
    Latest,
    None,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    pub common: CommonConfig,
    pub default_api_timeout_ms: i64,
}

impl ProducerConfig {
    pub fn from_properties(properties: &BTreeMap<String, String>) -> Read<Self> {
        let mut read = Reader::new(properties);
        let common = read.common();
        let acks = match read.one_of("acks", "all", &["all", "-1", "0", "1"]) {
            "0" => 0,
            "1" => 1,
            _ => -1,
        };
        let max_in_flight = read.number("max.in.flight.requests.per.connection", 5, 1..=i32::MAX.into());
        let retries = read.number("retries", i32::MAX.into(), 0..=i32::MAX.into());
        let linger_ms = read.number("linger.ms", 5, 0..=i64::MAX);
        // As in Kafka: a config that contradicts idempotence switches it off, unless `enable.idempotence` is set.
        let contradiction = if acks != -1 {
            Some("allowed is acks=all where idempotence is enabled")
        } else if max_in_flight > 5 {
            Some("allowed are at most 5 requests in flight (max.in.flight.requests.per.connection) with idempotence")
        } else if retries == 0 {
            Some("allowed are retries above 0 where idempotence is enabled")
        } else {
            None
        };
        let asked = read.boolean("enable.idempotence", true);
        if let Some(why) = contradiction
            && asked
            && properties.contains_key("enable.idempotence")
        {
            read.refuse("enable.idempotence", "true", why);
        }
        let request_timeout_ms = common.request_timeout_ms;
        let least = linger_ms.saturating_add(request_timeout_ms);
        let mut delivery_timeout_ms = read.number("delivery.timeout.ms", 120_000, 0..=i32::MAX.into());
        if delivery_timeout_ms < least {
            if properties.contains_key("delivery.timeout.ms") {
                let why = format!("allowed is at least linger.ms + request.timeout.ms = {least}");
                read.refuse("delivery.timeout.ms", &delivery_timeout_ms.to_string(), &why);
            }
            delivery_timeout_ms = least;
        }
        let names: Vec<&'static str> = Codec::ALL.iter().map(|codec| codec.name()).collect();
        let compression = Codec::from_name(read.one_of("compression.type", "none", &names)).unwrap_or_default();
        let mut compression_level = compression.default_level();
        for codec in Codec::ALL {
            let Some(levels) = codec.levels() else { continue };
            let name = match codec {
                Codec::Gzip => "compression.gzip.level",
                Codec::Lz4 => "compression.lz4.level",
                _ => "compression.zstd.level",
            };
            let default = codec.default_level();
            let level =
                read.number(name, default.into(), i64::from(default.min(*levels.start()))..=(*levels.end()).into());
            if codec == compression {
                compression_level = level as i32;
            }
        }
        let config = Self {
            common,
            acks,
            enable_idempotence: asked && contradiction.is_none(),
            batch_size_bytes: read.number("batch.size", 16_384, 0..=i32::MAX.into()) as usize,
            linger_ms,
            max_request_size_bytes: read.number("max.request.size", 1_048_576, 0..=i32::MAX.into()) as usize,
            buffer_memory_bytes: read.number("buffer.memory", 32 << 20, 0..=i64::MAX) as usize,
            compression,
            compression_level,
            delivery_timeout_ms,
            max_in_flight_requests_per_connection: max_in_flight as usize,
            max_block_ms: read.number("max.block.ms", 60_000, 0..=i64::MAX),
            retries: retries as u32,
            partitioner_adaptive: read.boolean("partitioner.adaptive.partitioning.enable", true),
            partitioner_ignore_keys: read.boolean("partitioner.ignore.keys", false),
        };
        read.finish(config)
    }
}

impl ConsumerConfig {
    pub fn from_properties(properties: &BTreeMap<String, String>) -> Read<Self> {
        let mut read = Reader::new(properties);
        let mut common = read.common();
        common.allow_auto_create_topics = read.boolean("allow.auto.create.topics", true);
        let auto_offset_reset = match read.one_of("auto.offset.reset", "latest", &["earliest", "latest", "none"]) {
            "earliest" => OffsetReset::Earliest,
            "none" => OffsetReset::None,
            _ => OffsetReset::Latest,
        };
        read.one_of("isolation.level", "read_uncommitted", &["read_uncommitted"]);
        let config = Self {
            common,
            auto_offset_reset,
            check_crcs: read.boolean("check.crcs", true),
            fetch_min_bytes: read.number("fetch.min.bytes", 1, 0..=i32::MAX.into()) as i32,
            fetch_max_bytes: read.number("fetch.max.bytes", 50 << 20, 0..=i32::MAX.into()) as i32,
            fetch_max_wait_ms: read.number("fetch.max.wait.ms", 500, 0..=i32::MAX.into()) as i32,
            max_partition_fetch_bytes: read.number("max.partition.fetch.bytes", 1 << 20, 0..=i32::MAX.into()) as i32,
            max_poll_records: read.number("max.poll.records", 500, 1..=i32::MAX.into()) as usize,
            max_poll_bytes: read.number("max.poll.bytes", 50 << 20, 1..=i64::MAX) as usize,
            default_api_timeout_ms: read.number("default.api.timeout.ms", 60_000, 0..=i32::MAX.into()),
            client_rack: read.text("client.rack", "").into(),
        };
        read.finish(config)
    }
}

impl AdminConfig {
    pub fn from_properties(properties: &BTreeMap<String, String>) -> Read<Self> {
        let mut read = Reader::new(properties);
        let mut common = read.common();
        common.allow_auto_create_topics = false;
        let default_api_timeout_ms = read.number("default.api.timeout.ms", 60_000, 0..=i32::MAX.into());
        read.finish(Self { common, default_api_timeout_ms })
    }
}

/// Reads properties one by one, each with its name, its default and what is allowed.
struct Reader<'a> {
    properties: &'a BTreeMap<String, String>,
    known: BTreeSet<&'static str>,
    errors: Vec<ConfigError>,
}

impl<'a> Reader<'a> {
    fn new(properties: &'a BTreeMap<String, String>) -> Self {
        Self { properties, known: BTreeSet::new(), errors: Vec::new() }
    }

    fn common(&mut self) -> CommonConfig {
        const INT: RangeInclusive<i64> = 0..=i32::MAX as i64;
        const LONG: RangeInclusive<i64> = 0..=i64::MAX;
        let servers = self.text("bootstrap.servers", "");
        let bootstrap_servers: Vec<Address> = servers.split(',').filter_map(Address::parse).collect();
        if bootstrap_servers.len() != servers.split(',').count() {
            self.refuse("bootstrap.servers", servers, "allowed is a list of host:port, separated by commas");
        }
        let rebootstrap = self.one_of("metadata.recovery.strategy", "rebootstrap", &["rebootstrap", "none"]);
        let trigger_ms = self.number("metadata.recovery.rebootstrap.trigger.ms", 300_000, INT);
        CommonConfig {
            bootstrap_servers,
            client_id: self.text("client.id", "").into(),
            request_timeout_ms: self.number("request.timeout.ms", 30_000, INT),
            retry_backoff: Backoff {
                first_ms: self.number("retry.backoff.ms", 100, LONG),
                max_ms: self.number("retry.backoff.max.ms", 1_000, LONG),
            },
            reconnect_backoff: Backoff {
                first_ms: self.number("reconnect.backoff.ms", 50, LONG),
                max_ms: self.number("reconnect.backoff.max.ms", 1_000, LONG),
            },
            connection_setup_timeout: Backoff {
                first_ms: self.number("socket.connection.setup.timeout.ms", 10_000, LONG),
                max_ms: self.number("socket.connection.setup.timeout.max.ms", 30_000, LONG),
            },
            connections_max_idle_ms: self.number("connections.max.idle.ms", 540_000, -1..=i64::MAX),
            metadata_max_age_ms: self.number("metadata.max.age.ms", 300_000, LONG),
            rebootstrap_after_ms: (rebootstrap == "rebootstrap").then_some(trigger_ms),
            allow_auto_create_topics: true,
        }
    }

    fn text(&mut self, name: &'static str, default: &'a str) -> &'a str {
        self.known.insert(name);
        self.properties.get(name).map_or(default, |text| text.trim())
    }

    fn number(&mut self, name: &'static str, default: i64, allowed: RangeInclusive<i64>) -> i64 {
        self.known.insert(name);
        let Some(text) = self.properties.get(name) else { return default };
        match text.trim().parse() {
            Ok(number) if allowed.contains(&number) => number,
            _ => {
                let (min, max) = allowed.into_inner();
                self.refuse(name, text, &format!("allowed is a number from {min} to {max}"));
                default
            }
        }
    }

    fn boolean(&mut self, name: &'static str, default: bool) -> bool {
        self.one_of(name, if default { "true" } else { "false" }, &["true", "false"]) == "true"
    }

    fn one_of(&mut self, name: &'static str, default: &'static str, allowed: &[&'static str]) -> &'static str {
        let text = self.text(name, default);
        let found = allowed.iter().find(|choice| choice.eq_ignore_ascii_case(text));
        found.copied().unwrap_or_else(|| {
            self.refuse(name, text, &format!("allowed is one of {}", allowed.join(", ")));
            default
        })
    }

    fn refuse(&mut self, name: &str, value: &str, why: &str) {
        self.errors.push(ConfigError { name: name.into(), value: value.into(), why: why.into() });
    }

    fn finish<T>(self, config: T) -> Read<T> {
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        let unknown = self.properties.keys().filter(|name| !self.known.contains(name.as_str()));
        let warn = |name: &String| {
            let suggestion = did_you_mean(suggest(name, self.known.iter().copied()));
            Warning { name: name.clone(), text: format!("{name} is not known and has no effect{suggestion}") }
        };
        Ok((config, unknown.map(warn).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = [("bootstrap.servers", "a:1, b:2")];
        own.iter().chain(pairs).map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn refusals<T: std::fmt::Debug>(read: Read<T>) -> String {
        read.unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn without_properties_the_defaults_are_kafkas() {
        let (config, warnings) = ProducerConfig::from_properties(&properties(&[])).unwrap();
        assert!(warnings.is_empty());
        assert_eq!(config.common.bootstrap_servers, [Address::new("a", 1), Address::new("b", 2)]);
        assert_eq!((config.acks, config.enable_idempotence), (-1, true));
        assert_eq!((config.linger_ms, config.batch_size_bytes), (5, 16_384));
        assert_eq!((config.delivery_timeout_ms, config.common.request_timeout_ms), (120_000, 30_000));
        let (config, _) = ConsumerConfig::from_properties(&properties(&[])).unwrap();
        assert_eq!((config.auto_offset_reset, config.fetch_max_wait_ms), (OffsetReset::Latest, 500));
    }

    #[test]
    fn acks_1_switches_idempotence_off_unless_enable_idempotence_is_set() {
        let (config, _) = ProducerConfig::from_properties(&properties(&[("acks", "1")])).unwrap();
        assert!(!config.enable_idempotence);
        let both = properties(&[("acks", "1"), ("enable.idempotence", "true")]);
        insta::assert_snapshot!(refusals(ProducerConfig::from_properties(&both)), @"enable.idempotence=true: allowed is acks=all where idempotence is enabled");
    }

    #[test]
    fn all_errors_are_reported_together_with_what_is_allowed() {
        let wrong = properties(&[
            ("bootstrap.servers", "a"),
            ("compression.type", "rar"),
            ("delivery.timeout.ms", "10"),
            ("linger.ms", "soon"),
        ]);
        insta::assert_snapshot!(refusals(ProducerConfig::from_properties(&wrong)), @"
        bootstrap.servers=a: allowed is a list of host:port, separated by commas
        linger.ms=soon: allowed is a number from 0 to 9223372036854775807
        delivery.timeout.ms=10: allowed is at least linger.ms + request.timeout.ms = 30005
        compression.type=rar: allowed is one of none, gzip, snappy, lz4, zstd
        ");
    }

    #[test]
    fn an_unknown_name_is_a_warning() {
        let (_, warnings) = AdminConfig::from_properties(&properties(&[("linger.mss", "1")])).unwrap();
        assert_eq!(warnings[0].to_string(), "linger.mss is not known and has no effect");
        let (_, warnings) = ProducerConfig::from_properties(&properties(&[("linger.mss", "1")])).unwrap();
        assert_eq!(warnings[0].to_string(), "linger.mss is not known and has no effect; did you mean linger.ms?");
    }
}
