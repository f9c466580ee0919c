//! What a connection needs of a socket. The production world has TCP sockets ([`tcp`](crate::tcp)); the simulated
//! one brings its own, and the code between the socket and the core is the same.

use crate::disk::Content;
use crate::frames::FrameReader;
use crate::sender::Sender;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::task::{Context, Poll};

/// Where connections come from.
pub trait Listener: Send + Sync + 'static {
    type Socket: Socket;

    /// The next connection, and who it is from. May be dropped and called again.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Socket, SocketAddr)>> + Send;
}

/// One connection's stream of bytes, in both directions.
pub trait Socket: Output + Send + 'static {
    /// Reads what has come into the reader's room, which is made only when there is something; 0: nothing will come
    /// any more.
    fn poll_read(&mut self, cx: &mut Context<'_>, reader: &mut FrameReader) -> Poll<io::Result<usize>>;

    /// Completes when the socket takes bytes again.
    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// [`Sender::send_some`] into this socket.
    fn try_send(&mut self, sender: &mut Sender) -> io::Result<()>;
}

/// Takes bytes without waiting. [`io::ErrorKind::WouldBlock`]: none, now.
pub trait Output {
    /// Sends from the front of `slices`; answers how many bytes. `more`: other bytes will follow at once.
    fn send(&self, slices: &[IoSlice<'_>], more: bool) -> io::Result<usize>;

    /// Sends up to `len` bytes of `content` from `position` on; 0: it ends there.
    fn send_content(&self, content: &dyn Content, position: u64, len: usize) -> io::Result<usize>;
}
