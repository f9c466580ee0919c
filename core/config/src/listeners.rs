//! Listeners: where a broker is reached, and by which protocol.
//!
//! `listeners` and `advertised.listeners` are lists of `NAME://host:port`. `listener.security.protocol.map` maps each
//! name to a security protocol. In its default, the names of the four protocols are mapped to themselves.

use super::ConfigError;
use core::net::IpAddr;
use std::collections::BTreeMap;

/// The config of the listener for metrics, and the name of that listener.
pub const METRICS_LISTENER: &str = "metrics.listener";

/// An address to listen on or to be reached at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// In upper case.
    pub name: String,
    pub protocol: SecurityProtocol,
    /// Without the brackets of an IPv6 address. Empty: all addresses of the machine.
    pub host: String,
    /// 0: any port that is free.
    pub port: u16,
}

/// The protocol below Kafka's own protocol on a listener. Its number is the one in broker registrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i16)]
pub enum SecurityProtocol {
    Plaintext = 0,
    Ssl = 1,
    SaslPlaintext = 2,
    SaslSsl = 3,
}

impl SecurityProtocol {
    pub const ALL: [Self; 4] = [Self::Plaintext, Self::Ssl, Self::SaslPlaintext, Self::SaslSsl];

    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name().eq_ignore_ascii_case(name.trim()))
    }
}

/// The protocol of each listener name, as `listener.security.protocol.map` gives it.
pub(super) fn security_map(text: &str, errors: &mut Vec<ConfigError>) -> BTreeMap<String, SecurityProtocol> {
    let key = "listener.security.protocol.map";
    let mut map = BTreeMap::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let Some((name, protocol)) = entry.rsplit_once(':') else {
            errors.push(ConfigError::new(key, text, format!("'{entry}' is not NAME:PROTOCOL")));
            continue;
        };
        let Some(protocol) = SecurityProtocol::named(protocol) else {
            let allowed = SecurityProtocol::ALL.map(SecurityProtocol::name).join(", ");
            errors.push(ConfigError::new(key, text, format!("'{protocol}' is not one of {allowed}")));
            continue;
        };
        if map.insert(name.trim().to_ascii_uppercase(), protocol).is_some() {
            errors.push(ConfigError::new(key, text, format!("the name '{name}' is given twice")));
        }
    }
    map
}

/// Reads the value of `listeners` or `advertised.listeners`.
///
/// Each name and each port may be used once, except that an IPv4 and an IPv6 address may share a port and then also a
/// name.
pub(super) fn read(
    key: &'static str,
    items: &[String],
    protocol_of: &dyn Fn(&str) -> Option<SecurityProtocol>,
    errors: &mut Vec<ConfigError>,
) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    for item in items {
        let (name, host, port) = match split(item) {
            Ok(parts) => parts,
            Err(why) => {
                errors.push(ConfigError::new(key, item, why));
                continue;
            }
        };
        let Some(protocol) = protocol_of(&name) else {
            let why = format!("no security protocol is given for '{name}' in listener.security.protocol.map");
            errors.push(ConfigError::new(key, item, why));
            continue;
        };
        if protocol != SecurityProtocol::Plaintext {
            let why = format!("{} is not supported yet; only PLAINTEXT listeners are", protocol.name());
            errors.push(ConfigError::new(key, item, why));
            continue;
        }
        let listener = Listener { name, protocol, host, port };
        for other in &listeners {
            if let Some(why) = listener.clash(other, key == "listeners") {
                errors.push(ConfigError::new(key, item, why));
            }
        }
        listeners.push(listener);
    }
    listeners
}

/// Reads `host:port`, an address that is no Kafka listener and must not be one of `others`.
pub(super) fn plain(name: &str, text: &str, others: &[Listener]) -> Result<Listener, String> {
    let shape = || "allowed is host:port, with an IPv6 address in brackets".to_owned();
    let (host, port) = split_address(text.trim()).map_err(|why| why.unwrap_or_else(shape))?;
    let listener = Listener { name: name.to_owned(), protocol: SecurityProtocol::Plaintext, host, port };
    match others.iter().find_map(|other| listener.clash(other, true)) {
        Some(why) => Err(why),
        None => Ok(listener),
    }
}

impl Listener {
    fn clash(&self, other: &Listener, bound: bool) -> Option<String> {
        let both_families = self.is_ipv6() != other.is_ipv6() && !self.host.is_empty() && !other.host.is_empty();
        if self.name == other.name && !(bound && both_families && self.port == other.port) {
            return Some(format!("each listener must have a different name, and {} is there twice", self.name));
        }
        if bound && self.port == other.port && self.port != 0 && !both_families {
            return Some(format!("each listener must have a different port, and {} is there twice", self.port));
        }
        None
    }

    /// Whether it stands for all addresses of the machine, which nobody can connect to.
    pub fn is_wildcard(&self) -> bool {
        self.host.is_empty() || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
    }

    pub fn is_ipv6(&self) -> bool {
        self.host.contains(':')
    }
}

fn split(item: &str) -> Result<(String, String, u16), String> {
    const SHAPE: &str = "allowed is NAME://host:port, with an IPv6 address in brackets";
    let (name, address) = item.split_once("://").ok_or(SHAPE)?;
    let good_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || !name.bytes().all(good_name) {
        return Err(SHAPE.to_owned());
    }
    let (host, port) = split_address(address).map_err(|why| why.unwrap_or_else(|| SHAPE.to_owned()))?;
    Ok((name.to_ascii_uppercase(), host, port))
}

/// Splits `host:port`. The error is `None` where the text does not have this form at all.
fn split_address(address: &str) -> Result<(String, u16), Option<String>> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => rest.split_once("]:").ok_or(None)?,
        None => address.rsplit_once(':').ok_or(None)?,
    };
    let good_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-%._:".contains(&byte);
    if !host.bytes().all(good_host) {
        return Err(None);
    }
    let port = port.parse().map_err(|_| Some(format!("the port '{port}' is not a number from 0 to 65535")))?;
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_split_at_its_name_and_port() {
        let parts = |item| split(item).unwrap();
        assert_eq!(parts("PLAINTEXT://:9092"), ("PLAINTEXT".into(), "".into(), 9092));
        assert_eq!(parts("inside://[::1]:0"), ("INSIDE".into(), "::1".into(), 0));
        assert_eq!(parts("A://::1:9092"), ("A".into(), "::1".into(), 9092));
        assert_eq!(parts("A://broker-1.example:65535"), ("A".into(), "broker-1.example".into(), 65535));
    }

    #[test]
    fn an_address_for_metrics_is_host_and_port_and_no_listener_of_clients() {
        let clients = vec![Listener {
            name: "PLAINTEXT".into(),
            protocol: SecurityProtocol::Plaintext,
            host: "127.0.0.1".into(),
            port: 9092,
        }];
        let read = |text| plain(METRICS_LISTENER, text, &clients).map(|found| (found.host, found.port));
        assert_eq!(read("127.0.0.1:9644"), Ok(("127.0.0.1".into(), 9644)));
        assert_eq!(read(" [::1]:0 "), Ok(("::1".into(), 0)));
        assert_eq!(read(":9644"), Ok(("".into(), 9644)));
        for text in ["9644", "127.0.0.1", "http://127.0.0.1:9644/metrics", "a b:1", "h:65536", "127.0.0.1:9092"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for item in
            ["", "9092", "PLAINTEXT:9092", "://h:1", "A://h", "A://[::1]", "A://h:65536", "A://h:-1", "A://a b:1"]
        {
            assert!(split(item).is_err(), "{item}");
        }
    }
}
