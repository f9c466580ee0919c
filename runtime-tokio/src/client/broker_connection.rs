//! One connection of a client to a broker: first being made, then a stream of frames in both directions.

use crate::frames::FrameReader;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tidelog_client::{Address, Owed, ReadAnswer, Request};
use tidelog_core::wire::{FrameLengthError, RecordsChunk, encode_request};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, lookup_host};

/// The largest response that is read. The buffer grows with the bytes that arrive, so this limits what a broker can
/// make the client hold. Responses stay far below it because of `fetch.max.bytes` and the limit on the size of a batch.
const RESPONSE_BYTES_MAX: i32 = 1 << 30;
/// How many pieces one system call writes at most.
const SLICES_MAX: usize = 64;

type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// What happened on a connection.
#[derive(Debug)]
pub enum ConnectionEvent {
    Connected,
    ConnectFailed(io::Error),
    Answer(Box<ReadAnswer>),
    /// The connection is broken or closed.
    Ended(io::Error),
}

/// A connection that is being made, or is open.
pub struct BrokerConnection {
    pub address: Address,
    /// Whether a response has come on it.
    pub has_answered: bool,
    state: State,
    owed: Owed,
}

enum State {
    Connecting(Connecting),
    Open(Open),
}

struct Open {
    stream: TcpStream,
    reader: FrameReader,
    unsent: VecDeque<Bytes>,
}

impl BrokerConnection {
    /// Begins to connect. A host's addresses are tried one after the other. `failures` is the number of attempts that
    /// have failed so far: each attempt begins with another address, so that an address which never answers does not
    /// block the others.
    pub fn connect(address: Address, failures: usize) -> Self {
        let (host, port) = (address.host.clone(), address.port);
        let connecting = async move {
            let mut addresses: Vec<_> = lookup_host((&host[..], port)).await?.collect();
            if !addresses.is_empty() {
                let first = failures % addresses.len();
                addresses.rotate_left(first);
            }
            let stream = TcpStream::connect(&addresses[..]).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        Self { address, has_answered: false, state: State::Connecting(Box::pin(connecting)), owed: Owed::default() }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Writes as much as the socket takes now, and keeps the rest.
    pub fn send(&mut self, request: &Request) -> io::Result<()> {
        let State::Open(open) = &mut self.state else { panic!("a client sends on open connections only") };
        self.owed.asked(&request.header, &request.body);
        for chunk in encode_request(&request.header, &request.body).chunks {
            match chunk {
                RecordsChunk::Bytes(bytes) => open.unsent.push_back(bytes),
                RecordsChunk::File(_) => unreachable!("a client's requests have no slices of files"),
            }
        }
        open.write()
    }

    /// The next event of this connection.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEvent> {
        match &mut self.state {
            State::Connecting(connecting) => Poll::Ready(match ready!(connecting.as_mut().poll(cx)) {
                Ok(stream) => {
                    let reader = FrameReader::new(RESPONSE_BYTES_MAX);
                    self.state = State::Open(Open { stream, reader, unsent: VecDeque::new() });
                    ConnectionEvent::Connected
                }
                Err(error) => ConnectionEvent::ConnectFailed(error),
            }),
            State::Open(open) => Poll::Ready(match ready!(open.poll(cx)) {
                Ok(frame) => match self.owed.read(frame) {
                    Some(answer) => ConnectionEvent::Answer(Box::new(answer)),
                    None => ConnectionEvent::Ended(invalid("a response came that belongs to no request")),
                },
                Err(error) => ConnectionEvent::Ended(error),
            }),
        }
    }

    /// Sends what is still unsent, and waits until the broker has read it.
    pub async fn close(self) {
        let State::Open(mut open) = self.state else { return };
        while !open.unsent.is_empty() {
            if open.stream.writable().await.is_err() || open.write().is_err() {
                return;
            }
        }
        // Once the broker has closed its end too, it has read everything.
        if open.stream.shutdown().await.is_err() {
            return;
        }
        loop {
            while let Ok(Some(_)) = open.reader.next_frame() {}
            if open.stream.readable().await.is_err() {
                return;
            }
            match open.stream.try_read_buf(&mut open.reader.room()) {
                Ok(0) => return,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                _ => {}
            }
        }
    }
}

impl Open {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        while !self.unsent.is_empty() && self.stream.poll_write_ready(cx)?.is_ready() {
            self.write()?;
        }
        loop {
            if let Some(frame) = self.reader.next_frame().map_err(|error| invalid(&length(&error)))? {
                return Poll::Ready(Ok(frame));
            }
            self.reader.release_if_empty();
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read_buf(&mut self.reader.room()) {
                Ok(0) => {
                    let text = "the broker closed the connection";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let slices: Vec<IoSlice<'_>> =
                self.unsent.iter().take(SLICES_MAX).map(|bytes| IoSlice::new(bytes)).collect();
            let mut written = match self.stream.try_write_vectored(&slices) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            while let Some(front) = self.unsent.front_mut() {
                if written < front.len() {
                    front.advance(written);
                    break;
                }
                written -= front.len();
                self.unsent.pop_front();
            }
        }
        Ok(())
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it does not answer in Kafka's protocol: {what}"))
}

fn length(error: &FrameLengthError) -> String {
    match error.looks_like() {
        Some(what) => format!("this looks like {what}"),
        None => format!("a response of {} bytes was announced, the limit is {RESPONSE_BYTES_MAX}", error.len),
    }
}
