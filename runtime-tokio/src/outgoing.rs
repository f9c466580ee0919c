//! A connection that this side has opened, to a broker or to another node: requests go out, answers come in.
//!
//! It needs no task: its owner polls it. The clients' driver and the links of a broker's peers use it.

use crate::frames::FrameReader;
use crate::sender::Sender;
use crate::transport::Socket;
use bytes::Bytes;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use tidelog_client::Owed;
use tidelog_core::wire::{ApiKey, FRAME_LENGTH_BYTES, FrameLengthError, RequestBody, RequestHeader, encode_request};

/// An open connection.
pub struct Outgoing<S> {
    socket: S,
    reader: FrameReader,
    sender: Sender,
    owed: Owed,
    answer_bytes_max: i32,
    /// Why a request could not be written. The next poll tells.
    failed: Option<io::Error>,
}

/// An answer that is not decoded yet.
#[derive(Debug)]
pub struct Arrived {
    /// What it is the answer to, and in which version.
    pub asked: (ApiKey, i16),
    /// Without the four bytes of its length.
    pub frame: Bytes,
}

impl Arrived {
    /// How many bytes have come for it.
    pub fn bytes(&self) -> usize {
        FRAME_LENGTH_BYTES + self.frame.len()
    }
}

impl<S: Socket> Outgoing<S> {
    /// `answer_bytes_max`: the largest answer that is read. Memory is only taken for bytes that have arrived.
    pub fn new(socket: S, answer_bytes_max: i32) -> Self {
        Self {
            socket,
            reader: FrameReader::new(answer_bytes_max),
            sender: Sender::default(),
            owed: Owed::default(),
            answer_bytes_max,
            failed: None,
        }
    }

    /// Encodes a request, and writes as much as the socket takes now.
    pub fn send(&mut self, header: &RequestHeader, body: &RequestBody) {
        self.owed.asked(header, body);
        // A request has no slices of files.
        self.sender.push(encode_request(header, body), Vec::new());
        if self.failed.is_none() {
            self.failed = self.write().err();
        }
    }

    /// How many bytes have arrived for the next answer.
    pub fn buffered_bytes(&self) -> usize {
        self.reader.buffered_bytes()
    }

    /// Goes on writing, and gives the next answer; reads only if `read`. An error ends the connection.
    pub fn poll(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<io::Result<Arrived>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        while self.sender.unsent() > 0 && self.socket.poll_writable(cx)?.is_ready() {
            self.write()?;
        }
        if !read {
            return Poll::Pending;
        }
        loop {
            let limit = self.answer_bytes_max;
            if let Some(frame) = self.reader.next_frame().map_err(|error| not_kafka(length(&error, limit)))? {
                return Poll::Ready(match self.owed.take_next() {
                    Some(asked) => Ok(Arrived { asked, frame }),
                    None => Err(not_kafka("a response came that belongs to no request".into())),
                });
            }
            self.reader.release_if_empty();
            if ready!(self.socket.poll_read(cx, &mut self.reader))? == 0 {
                let text = "the other end closed the connection";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
            }
        }
    }

    /// Writes until nothing is left or the socket takes no more.
    fn write(&mut self) -> io::Result<()> {
        while self.sender.unsent() > 0 {
            match self.socket.try_send(&mut self.sender) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends what is still unsent, and waits until the other end has read it.
    pub async fn close(mut self) {
        while self.sender.unsent() > 0 {
            if poll_fn(|cx| self.socket.poll_writable(cx)).await.is_err() || self.write().is_err() {
                return;
            }
        }
        // Once the other end has closed its side too, it has read everything.
        if poll_fn(|cx| self.socket.poll_shutdown(cx)).await.is_err() {
            return;
        }
        loop {
            while let Ok(Some(_)) = self.reader.next_frame() {}
            match poll_fn(|cx| self.socket.poll_read(cx, &mut self.reader)).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

fn not_kafka(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it does not answer in Kafka's protocol: {what}"))
}

fn length(error: &FrameLengthError, limit: i32) -> String {
    match error.looks_like() {
        Some(what) => format!("this looks like {what}"),
        None => format!("a response of {} bytes was announced, the limit is {limit}", error.len),
    }
}
