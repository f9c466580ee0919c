//! Requests that wait for the disk or for records. Some have a deadline at which they are answered anyway.

use crate::api::delete_records::PendingDeleteRecords;
use crate::api::fetch::PendingFetch;
use crate::api::list_offsets::PendingListOffsets;
use crate::api::log_dirs::PendingLogDirs;
use crate::api::produce::PendingProduce;
use crate::ids::{ConnId, PendingId};
use crate::time::Mono;
use std::collections::{BTreeMap, BTreeSet};

/// A request that could not be answered at once.
#[derive(Debug)]
pub enum PendingRequest {
    Produce(PendingProduce),
    Fetch(Box<PendingFetch>),
    DeleteRecords(PendingDeleteRecords),
    ListOffsets(PendingListOffsets),
    LogDirs(PendingLogDirs),
}

/// How many requests of each kind are pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingCounts {
    pub produce: usize,
    pub fetch: usize,
    pub delete_records: usize,
    pub list_offsets: usize,
    pub log_dirs: usize,
}

impl PendingCounts {
    fn of(&mut self, pending: &PendingRequest) -> &mut usize {
        match pending {
            PendingRequest::Produce(_) => &mut self.produce,
            PendingRequest::Fetch(_) => &mut self.fetch,
            PendingRequest::DeleteRecords(_) => &mut self.delete_records,
            PendingRequest::ListOffsets(_) => &mut self.list_offsets,
            PendingRequest::LogDirs(_) => &mut self.log_dirs,
        }
    }
}

impl PendingRequest {
    pub fn conn(&self) -> ConnId {
        match self {
            PendingRequest::Produce(pending) => pending.ticket.conn,
            PendingRequest::Fetch(pending) => pending.ticket.conn,
            PendingRequest::DeleteRecords(pending) => pending.ticket.conn,
            PendingRequest::ListOffsets(pending) => pending.ticket.conn,
            PendingRequest::LogDirs(pending) => pending.ticket.conn,
        }
    }
}

/// All pending requests, and the deadlines of those that have one.
#[derive(Debug, Default)]
pub struct PendingRequests {
    next: u64,
    requests: BTreeMap<PendingId, (PendingRequest, Option<Mono>)>,
    deadlines: BTreeSet<(Mono, PendingId)>,
    waiting: PendingCounts,
}

impl PendingRequests {
    /// A new id, for a request that may have to wait.
    pub fn next_id(&mut self) -> PendingId {
        self.next += 1;
        PendingId(self.next)
    }

    pub fn put(&mut self, id: PendingId, pending: PendingRequest, deadline: Option<Mono>) {
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, id));
        }
        *self.waiting.of(&pending) += 1;
        let before = self.requests.insert(id, (pending, deadline));
        assert!(before.is_none(), "an id is used for one request at a time");
    }

    /// Takes a request out, to be answered or put back with the same id. `None`: it was answered or dropped before.
    pub fn take(&mut self, id: PendingId) -> Option<(PendingRequest, Option<Mono>)> {
        let (pending, deadline) = self.requests.remove(&id)?;
        *self.waiting.of(&pending) -= 1;
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, id));
        }
        Some((pending, deadline))
    }

    pub fn get_mut(&mut self, id: PendingId) -> Option<&mut PendingRequest> {
        self.requests.get_mut(&id).map(|(pending, _)| pending)
    }

    pub fn contains(&self, id: PendingId) -> bool {
        self.requests.contains_key(&id)
    }

    /// The earliest deadline.
    pub fn deadline(&self) -> Option<Mono> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Takes out a request whose deadline has passed.
    pub fn take_expired(&mut self, now: Mono) -> Option<(PendingId, PendingRequest)> {
        let (deadline, id) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.take(id).map(|(pending, _)| (id, pending))
    }

    /// Takes out every fetch. A broker that stops answers them with the records that there are.
    pub fn take_fetches(&mut self) -> Vec<(PendingId, PendingRequest)> {
        self.take_where(|pending| matches!(pending, PendingRequest::Fetch(_)))
    }

    /// Takes out the requests of a connection that was closed, except its produces, whose records are in the log
    /// already.
    pub fn disconnected(&mut self, conn: ConnId) -> Vec<(PendingId, PendingRequest)> {
        let theirs =
            |pending: &PendingRequest| pending.conn() == conn && !matches!(pending, PendingRequest::Produce(_));
        self.take_where(theirs)
    }

    /// Takes out the requests that wait for the sizes of volumes.
    pub fn take_log_dirs(&mut self) -> Vec<(PendingId, PendingRequest)> {
        self.take_where(|pending| matches!(pending, PendingRequest::LogDirs(_)))
    }

    fn take_where(&mut self, wanted: impl Fn(&PendingRequest) -> bool) -> Vec<(PendingId, PendingRequest)> {
        let ids: Vec<PendingId> =
            self.requests.iter().filter(|(_, (pending, _))| wanted(pending)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| Some((id, self.take(id)?.0))).collect()
    }

    /// How many requests of each kind are pending.
    pub fn waiting(&self) -> PendingCounts {
        self.waiting
    }

    /// Asserts that the counts are right.
    pub fn verify(&self) {
        let mut waiting = PendingCounts::default();
        self.requests.values().for_each(|(pending, _)| *waiting.of(pending) += 1);
        assert_eq!(self.waiting, waiting, "pending requests are counted by kind");
        assert!(self.deadlines.len() <= self.requests.len());
    }

    pub fn len(&self) -> usize {
        self.requests.len()
    }

    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}
