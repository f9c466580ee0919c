//! Where a node can be reached.

use bytestring::ByteString;
use std::fmt;

/// A host, by name or number, and the port on which a node listens there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    pub host: ByteString,
    pub port: u16,
}

impl Address {
    pub fn new(host: impl Into<ByteString>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// Reads `host:port`, as in `bootstrap.servers` and `controller.quorum.bootstrap.servers`. An IPv6 host must be in
    /// brackets.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.trim().rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bare.is_none() && host.contains(':') {
            return None;
        }
        let host = bare.unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0)?;
        (!host.is_empty()).then(|| Self::new(host, port))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_other_than_0() {
        for (text, host, port) in [("a:1", "a", 1), (" b.c:9092 ", "b.c", 9092), ("[::1]:80", "::1", 80)] {
            assert_eq!(Address::parse(text), Some(Address::new(host, port)), "{text}");
        }
        assert_eq!(Address::new("::1", 80).to_string(), "[::1]:80");
        for text in ["", "a", "a:", ":1", "a:0", "a:65536", "::1:80", "a:-1"] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }
}
