//! TCP sockets as connections use them. Bytes in memory leave many pieces a call, slices of files the shortest way that
//! the [`platform`] has.

use crate::disk::Content;
use crate::frames::FrameReader;
use crate::listeners::SocketOptions;
use crate::platform;
use crate::sender::Sender;
use crate::transport::{Connecting, Connector, Listener, Output, Socket};
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tidelog_core::wire::Address;
use tokio::io::{AsyncReadExt, AsyncWrite, Interest};
use tokio::net::{TcpListener, TcpStream, lookup_host};

/// Content that is in no file is copied in pieces of at most this size.
const COPIED_BYTES_MAX: usize = 128 << 10;

/// A listening socket, and the options of the sockets that it accepts.
pub struct TcpAcceptor {
    pub socket: TcpListener,
    pub options: SocketOptions,
}

impl Listener for TcpAcceptor {
    type Socket = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.socket.accept().await?;
        // Setting options only fails if the client has closed the connection already.
        self.options.apply(&stream).map_err(|error| io::Error::new(io::ErrorKind::ConnectionAborted, error))?;
        Ok((stream, peer))
    }
}

/// Opens TCP connections. Options are set if there are any: those of the broker.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpConnector {
    pub options: Option<SocketOptions>,
}

impl Connector for TcpConnector {
    type Socket = TcpStream;

    fn connect(&self, address: &Address, attempt: usize) -> Connecting<TcpStream> {
        let (host, port, options) = (address.host.clone(), address.port, self.options);
        Box::pin(async move {
            let mut addresses: Vec<_> = lookup_host((&host[..], port)).await?.collect();
            if !addresses.is_empty() {
                let first = attempt % addresses.len();
                addresses.rotate_left(first);
            }
            let stream = TcpStream::connect(&addresses[..]).await?;
            match options {
                Some(options) => options.apply(&stream)?,
                None => stream.set_nodelay(true)?,
            }
            Ok(stream)
        })
    }
}

impl Socket for TcpStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, reader: &mut FrameReader) -> Poll<io::Result<usize>> {
        match self.poll_read_ready(cx)? {
            Poll::Ready(()) => pin!(self.read_buf(&mut reader.room())).poll(cx),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_ready(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(self), cx)
    }

    fn try_send(&mut self, sender: &mut Sender) -> io::Result<()> {
        self.try_io(Interest::WRITABLE, || sender.send_some(self))
    }
}

impl<T: AsFd> Output for T {
    fn send(&self, slices: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        platform::send(self, slices, more)
    }

    fn send_content(&self, content: &dyn Content, position: u64, len: usize) -> io::Result<usize> {
        let Some(file) = content.file() else {
            let mut buffer = vec![0; len.min(COPIED_BYTES_MAX)];
            content.read_exact_at(&mut buffer, position)?;
            return self.send(&[IoSlice::new(&buffer)], false);
        };
        platform::send_file(self, file, position, len)
    }
}
