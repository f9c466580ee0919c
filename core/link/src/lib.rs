//! What clients and peers share: the connections that this side opens to other nodes. A world owns the sockets.
//!
//! ```text
//!              opened, answers, lost               connect, send, hang up
//!   world ───────────────────────────► Pool ───────────────────────────────► world
//!                                       │
//!                                       └── ready, finished, lost ──► its owner: a client, or the broker's peers
//! ```
//!
//! - [`Connection`] is one connection: the versions that the other end serves, and the requests that wait for answers.
//! - [`Pool`] has one connection to each address: opened when it is needed, closed when it is late or idle, and opened
//!   again after a pause.
//! - [`Backoff`] tells how long a pause is.
//!
//! Requests and answers pass through here decoded. A world encodes requests and reads answers beside the state machine;
//! [`Owed`] tells it as what to read an answer.
//!
//! Invariants: no request except ApiVersions is sent before the versions of the other end are known; every request that
//! is answered at all is finished once, by its answer or by a failure; a connection on which answers do not come in the
//! order of the requests is closed.

#![forbid(unsafe_code)]

mod backoff;
mod connection;
mod owed;
mod pool;

pub use backoff::{Backoff, below};
pub use connection::{Connection, FinishedRequest, RequestFailure};
pub use owed::Owed;
pub use pool::{Orders, Pool, PoolConfig, PoolEvent};

use tidelog_wire::{DecodeError, ResponseBody};

/// What a world has read from a frame: the correlation id and the body, or why it cannot be read.
pub type ReadAnswer = Result<(i32, ResponseBody), DecodeError>;

/// The earliest of the moments that are given.
pub fn earliest<T: Ord>(moments: impl IntoIterator<Item = Option<T>>) -> Option<T> {
    moments.into_iter().fold(None, |earliest, moment| match (earliest, moment) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    })
}
