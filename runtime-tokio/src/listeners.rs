//! The sockets that clients connect to.
//!
//! A socket is bound before the broker touches its disk and listened on when the broker is ready. So a port that is in
//! use is reported before anything is changed, and a client that comes too early is refused at once instead of waiting.

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use tidelog_core::config::{BrokerConfig, Listener, METRICS_LISTENER};
use tokio::net::{TcpListener, TcpStream};

/// A listener's bound sockets: one for each address of its host.
#[derive(Debug)]
pub struct Bound {
    pub name: String,
    pub port: u16,
    sockets: Vec<(Socket, SocketAddr)>,
}

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "listener {name}: {address} is in use by another process: stop that one, or listen elsewhere (--override \
         {elsewhere}, with port 0 for any free one)"
    )]
    InUse { name: String, elsewhere: String, address: SocketAddr },
    #[error("listener {name}: the host {host:?} cannot be resolved: {source}")]
    Unresolved { name: String, host: String, source: io::Error },
    #[error("listener {name}: cannot listen on {address}: {source}")]
    Other { name: String, address: SocketAddr, source: io::Error },
}

impl Bound {
    /// Binds the addresses of a listener.
    pub fn bind(listener: &Listener) -> Result<Self, ListenError> {
        let mut addresses = resolve(listener)?;
        let (mut sockets, mut port, mut absent) = (Vec::new(), listener.port, None);
        // A listener without a host needs one socket: IPv6, which takes IPv4 connections too, or IPv4 if there is no
        // IPv6.
        let enough = if listener.host.is_empty() { 1 } else { usize::MAX };
        addresses.dedup();
        for mut address in addresses {
            if sockets.len() >= enough {
                break;
            }
            address.set_port(port);
            match bind(address) {
                Ok((socket, bound)) => {
                    port = bound.port();
                    sockets.push((socket, bound));
                }
                Err(error) if is_absent(&error) => absent = Some((address, error)),
                Err(error) => return Err(failure(listener, address, error)),
            }
        }
        match absent {
            Some((address, error)) if sockets.is_empty() => Err(failure(listener, address, error)),
            _ => Ok(Self { name: listener.name.clone(), port, sockets }),
        }
    }

    /// The first of its addresses.
    pub fn address(&self) -> SocketAddr {
        self.sockets[0].1
    }

    /// Begins to listen. Must be called inside tokio's runtime.
    pub fn listen(self, listener: &Listener, backlog: i32) -> Result<Vec<TcpListener>, ListenError> {
        let mut listening = Vec::new();
        for (socket, address) in self.sockets {
            let started = socket.listen(backlog).and_then(|()| TcpListener::from_std(socket.into()));
            listening.push(started.map_err(|error| failure(listener, address, error))?);
        }
        Ok(listening)
    }
}

fn resolve(listener: &Listener) -> Result<Vec<SocketAddr>, ListenError> {
    let Listener { host, port, name, .. } = listener;
    if host.is_empty() {
        return Ok([IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)]
            .map(|any| SocketAddr::new(any, *port))
            .to_vec());
    }
    let unresolved = |source| ListenError::Unresolved { name: name.clone(), host: host.clone(), source };
    let found: Vec<SocketAddr> = (host.as_str(), *port).to_socket_addrs().map_err(unresolved)?.collect();
    match found.is_empty() {
        true => Err(unresolved(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))),
        false => Ok(found),
    }
}

fn bind(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // The socket for all addresses takes IPv4 connections too; a socket for one IPv6 address does not.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Without this a restart would have to wait until the kernel has forgotten the last process's connections.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let bound = socket.local_addr()?.as_socket().expect("the socket was bound to an IP address");
    Ok((socket, bound))
}

/// Whether this machine does not have the address, such as IPv6 `localhost` without IPv6.
fn is_absent(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

fn failure(listener: &Listener, address: SocketAddr, source: io::Error) -> ListenError {
    let name = listener.name.clone();
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            let host = &listener.host;
            let elsewhere = match name == METRICS_LISTENER {
                true => format!("{METRICS_LISTENER}={host}:PORT"),
                false => format!("listeners={name}://{host}:PORT"),
            };
            ListenError::InUse { name, elsewhere, address }
        }
        _ => ListenError::Other { name, address, source },
    }
}

/// The options of the sockets of accepted connections.
///
/// The send buffer is bounded even if nothing is configured. A client on the same machine then copies records while
/// they are in the processor's cache. With ten connections that makes fetching twice as fast as the megabytes that the
/// kernel would choose. Kafka's 100 KiB are too few for a single connection, which waits for each refill: 256 KiB make
/// it half as fast again. The receive buffer is the kernel's choice unless one is configured.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    send_buffer_bytes: Option<usize>,
    receive_buffer_bytes: Option<usize>,
}

impl SocketOptions {
    pub fn of(config: &BrokerConfig) -> Self {
        // -1 leaves it to the kernel.
        Self {
            send_buffer_bytes: usize::try_from(config.socket_send_buffer_bytes).ok(),
            receive_buffer_bytes: usize::try_from(config.socket_receive_buffer_bytes).ok(),
        }
    }

    pub fn apply(&self, stream: &TcpStream) -> io::Result<()> {
        let socket = SockRef::from(stream);
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&TcpKeepalive::new())?;
        if let Some(bytes) = self.send_buffer_bytes {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_core::config::SecurityProtocol;

    fn listener(host: &str, port: u16) -> Listener {
        Listener { name: "PLAINTEXT".into(), protocol: SecurityProtocol::Plaintext, host: host.into(), port }
    }

    #[test]
    fn a_port_in_use_is_named_with_what_to_do() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = Bound::bind(&listener("127.0.0.1", port)).unwrap_err().to_string();
        insta::assert_snapshot!(error.replace(&port.to_string(), "9092"), @"listener PLAINTEXT: 127.0.0.1:9092 is in use by another process: stop that one, or listen elsewhere (--override listeners=PLAINTEXT://127.0.0.1:PORT, with port 0 for any free one)");
    }

    #[test]
    fn port_0_gets_a_free_port_and_the_name_localhost_all_its_addresses() {
        let bound = Bound::bind(&listener("127.0.0.1", 0)).unwrap();
        assert_ne!(bound.port, 0);
        let bound = Bound::bind(&listener("localhost", 0)).unwrap();
        assert!(bound.sockets.iter().all(|(_, address)| address.port() == bound.port && address.ip().is_loopback()));
        let any = Bound::bind(&listener("", 0)).unwrap();
        assert!(any.address().ip().is_unspecified());
    }

    #[test]
    fn a_host_without_an_address_is_named() {
        let error = Bound::bind(&listener("no-such-host.invalid", 9092)).unwrap_err().to_string();
        assert!(
            error.starts_with("listener PLAINTEXT: the host \"no-such-host.invalid\" cannot be resolved: "),
            "{error}"
        );
    }
}
