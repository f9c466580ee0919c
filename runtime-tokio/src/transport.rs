//! The traits of sockets, of connections that come in and of those that go out. The production world implements them for TCP ([`tcp`](crate::tcp)), the
//! simulation of `tests/madsim` for a simulated network; the code between the socket and the core is the same.

use crate::disk::Content;
use crate::frames::FrameReader;
use crate::sender::Sender;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tidelog_core::wire::Address;

/// Accepts connections.
pub trait Listener: Send + Sync + 'static {
    type Socket: Socket;

    /// Waits for the next connection; returns it with the address of the client. Cancel safe.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Socket, SocketAddr)>> + Send;
}

/// Opens connections.
pub trait Connector: Send + 'static {
    type Socket: Socket;

    /// Connects to an address. A host may have several: they are tried one after the other. `attempt`: how often this
    /// was tried before. Each attempt begins with another of them, so that one that never answers does not block the
    /// others. Dropping the future gives up.
    fn connect(&self, address: &Address, attempt: usize) -> Connecting<Self::Socket>;
}

/// A connection that is being made.
pub type Connecting<S> = Pin<Box<dyn Future<Output = io::Result<S>> + Send>>;

/// One connection's stream of bytes, in both directions.
pub trait Socket: Output + Send + 'static {
    /// Reads bytes that have arrived into the reader's buffer, which is only allocated once there are some. 0: the peer
    /// sends no more.
    fn poll_read(&mut self, cx: &mut Context<'_>, reader: &mut FrameReader) -> Poll<io::Result<usize>>;

    /// Completes when the socket takes bytes again.
    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Sends what is still to be sent, and then that no more will come. Reading goes on.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Calls [`Sender::send_some`] with this socket.
    fn try_send(&mut self, sender: &mut Sender) -> io::Result<()>;
}

/// Takes bytes without waiting; [`io::ErrorKind::WouldBlock`] if it takes none now.
pub trait Output {
    /// Sends bytes of `slices`, from the front; returns how many. `more`: further bytes will follow at once.
    fn send(&self, slices: &[IoSlice<'_>], more: bool) -> io::Result<usize>;

    /// Sends up to `len` bytes of `content` from `position` on; returns how many, 0 if `content` ends there.
    fn send_content(&self, content: &dyn Content, position: u64, len: usize) -> io::Result<usize>;
}
