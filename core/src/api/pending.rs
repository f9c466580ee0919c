//! Requests that wait: for the disk, for records, for a commit of the metadata log, or for their time to run out.

use crate::api::fetch::PendingFetch;
use crate::api::list_offsets::PendingListOffsets;
use crate::api::log_dirs::PendingLogDirs;
use crate::api::produce::PendingProduce;
use crate::ids::{ConnId, PendingId};
use crate::time::Mono;
use std::collections::{BTreeMap, BTreeSet};

/// A request that could not be answered at once.
#[derive(Debug)]
pub enum Pending {
    Produce(PendingProduce),
    Fetch(Box<PendingFetch>),
    ListOffsets(PendingListOffsets),
    LogDirs(PendingLogDirs),
}

/// How many requests of each kind wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    pub produce: usize,
    pub fetch: usize,
    pub list_offsets: usize,
    pub log_dirs: usize,
}

impl Waiting {
    fn of(&mut self, pending: &Pending) -> &mut usize {
        match pending {
            Pending::Produce(_) => &mut self.produce,
            Pending::Fetch(_) => &mut self.fetch,
            Pending::ListOffsets(_) => &mut self.list_offsets,
            Pending::LogDirs(_) => &mut self.log_dirs,
        }
    }
}

impl Pending {
    pub fn conn(&self) -> ConnId {
        match self {
            Pending::Produce(pending) => pending.ticket.conn,
            Pending::Fetch(pending) => pending.ticket.conn,
            Pending::ListOffsets(pending) => pending.ticket.conn,
            Pending::LogDirs(pending) => pending.ticket.conn,
        }
    }
}

/// All waiting requests, and the deadlines of those that have one.
#[derive(Debug, Default)]
pub struct PendingRequests {
    next: u64,
    requests: BTreeMap<PendingId, (Pending, Option<Mono>)>,
    deadlines: BTreeSet<(Mono, PendingId)>,
    waiting: Waiting,
}

impl PendingRequests {
    /// A name for a request that is about to wait.
    pub fn name(&mut self) -> PendingId {
        self.next += 1;
        PendingId(self.next)
    }

    pub fn put(&mut self, id: PendingId, pending: Pending, deadline: Option<Mono>) {
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, id));
        }
        *self.waiting.of(&pending) += 1;
        let before = self.requests.insert(id, (pending, deadline));
        assert!(before.is_none(), "a name is used for one request");
    }

    /// Takes a request out, to be answered or put back under the same name. `None`: answered or dropped before.
    pub fn take(&mut self, id: PendingId) -> Option<(Pending, Option<Mono>)> {
        let (pending, deadline) = self.requests.remove(&id)?;
        *self.waiting.of(&pending) -= 1;
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, id));
        }
        Some((pending, deadline))
    }

    pub fn get_mut(&mut self, id: PendingId) -> Option<&mut Pending> {
        self.requests.get_mut(&id).map(|(pending, _)| pending)
    }

    pub fn contains(&self, id: PendingId) -> bool {
        self.requests.contains_key(&id)
    }

    /// The next moment at which a request's time runs out.
    pub fn deadline(&self) -> Option<Mono> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// A request whose time has run out.
    pub fn take_expired(&mut self, now: Mono) -> Option<(PendingId, Pending)> {
        let (deadline, id) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.take(id).map(|(pending, _)| (id, pending))
    }

    /// Takes out every waiting fetch: at the end of the broker's life they are answered with what there is.
    pub fn take_fetches(&mut self) -> Vec<(PendingId, Pending)> {
        self.take_where(|pending| matches!(pending, Pending::Fetch(_)))
    }

    /// Drops what a lost connection waited for. Produces stay: their records are in the log all the same.
    pub fn disconnected(&mut self, conn: ConnId) -> Vec<(PendingId, Pending)> {
        let theirs = |pending: &Pending| pending.conn() == conn && !matches!(pending, Pending::Produce(_));
        self.take_where(theirs)
    }

    /// The requests that wait to hear of the sizes of volumes.
    pub fn take_log_dirs(&mut self) -> Vec<(PendingId, Pending)> {
        self.take_where(|pending| matches!(pending, Pending::LogDirs(_)))
    }

    fn take_where(&mut self, wanted: impl Fn(&Pending) -> bool) -> Vec<(PendingId, Pending)> {
        let ids: Vec<PendingId> =
            self.requests.iter().filter(|(_, (pending, _))| wanted(pending)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| Some((id, self.take(id)?.0))).collect()
    }

    /// How many of each kind there are.
    pub fn waiting(&self) -> Waiting {
        self.waiting
    }

    /// Asserts that what is counted is there.
    pub fn verify(&self) {
        let mut waiting = Waiting::default();
        self.requests.values().for_each(|(pending, _)| *waiting.of(pending) += 1);
        assert_eq!(self.waiting, waiting, "requests that wait are counted");
        assert!(self.deadlines.len() <= self.requests.len());
    }

    pub fn len(&self) -> usize {
        self.requests.len()
    }

    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}
