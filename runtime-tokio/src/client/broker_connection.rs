//! One connection of a client to a broker: first being made, then open.

use crate::outgoing::Outgoing;
use crate::transport::{Connecting, Socket};
use std::io;
use std::task::{Context, Poll, ready};
use tidelog_client::{Address, ReadAnswer, Request};
use tidelog_core::wire::decode_response;

/// The largest response that is read. The buffer grows with the bytes that arrive, so this limits what a broker can
/// make the client hold. Responses stay far below it because of `fetch.max.bytes` and the limit on the size of a batch.
const RESPONSE_BYTES_MAX: i32 = 1 << 30;

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
pub struct BrokerConnection<S> {
    pub address: Address,
    /// Whether a response has come on it.
    pub has_answered: bool,
    state: State<S>,
}

enum State<S> {
    Connecting(Connecting<S>),
    Open(Box<Outgoing<S>>),
}

impl<S: Socket> BrokerConnection<S> {
    pub fn new(address: Address, connecting: Connecting<S>) -> Self {
        Self { address, has_answered: false, state: State::Connecting(connecting) }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Writes as much as the socket takes now, and keeps the rest.
    pub fn send(&mut self, request: &Request) {
        let State::Open(open) = &mut self.state else { panic!("a client sends on open connections only") };
        open.send(&request.header, &request.body);
    }

    /// The next event of this connection.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEvent> {
        Poll::Ready(match &mut self.state {
            State::Connecting(connecting) => match ready!(connecting.as_mut().poll(cx)) {
                Ok(socket) => {
                    self.state = State::Open(Box::new(Outgoing::new(socket, RESPONSE_BYTES_MAX)));
                    ConnectionEvent::Connected
                }
                Err(error) => ConnectionEvent::ConnectFailed(error),
            },
            State::Open(open) => match ready!(open.poll(cx, true)) {
                Ok(arrived) => {
                    let (api_key, version) = arrived.asked;
                    ConnectionEvent::Answer(Box::new(decode_response(api_key, version, arrived.frame)))
                }
                Err(error) => ConnectionEvent::Ended(error),
            },
        })
    }

    /// Sends what is still unsent, and waits until the broker has read it.
    pub async fn close(self) {
        if let State::Open(open) = self.state {
            open.close().await;
        }
    }
}
