//! Answers that wait until the metadata records that they depend on are committed.

use crate::api::{Parts, Ticket, init_producer_id, metadata};
use crate::controller;
use crate::ids::Offset;
use crate::io::Outbox;
use crate::time::Now;
use crate::wire::messages::{BeginTransactionRecord, EndTransactionRecord, MetadataRequest};
use crate::wire::{MetadataRecord, ResponseBody};
use bytes::Bytes;
use std::collections::VecDeque;

/// What to do once the records are committed and applied to the image.
#[derive(Debug)]
pub enum AfterCommit {
    /// Send this response.
    Answer {
        ticket: Ticket,
        body: Box<ResponseBody>,
    },
    /// Answer a Metadata request that names topics which did not exist.
    Metadata {
        ticket: Ticket,
        request: MetadataRequest,
    },
    /// Take the block of producer ids from `first` to before `end` into use.
    ProducerIds {
        first: i64,
        end: i64,
    },
    /// This broker is registered, with this epoch.
    Registered {
        broker_epoch: i64,
    },
    Nothing,
}

/// What waits for the commit of metadata records, in the order of the records.
#[derive(Debug, Default)]
pub struct Commits {
    /// Each with the offset of its last record, which must be committed.
    waiting: VecDeque<(Offset, AfterCommit)>,
}

impl Commits {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Parts {
    /// Proposes the records of a decision, and does `after` once they are committed. A decision without records waits
    /// too: for the commit of all earlier proposals, which it was made from. An answer must not tell of a proposal that
    /// a crash can still undo.
    pub fn commit(&mut self, now: Now, mut records: Vec<MetadataRecord>, after: AfterCommit, out: &mut Outbox) {
        if records.is_empty() {
            return match self.commits.waiting.back() {
                Some((last, _)) => self.commits.waiting.push_back((*last, after)),
                None => self.finish(now, after, out),
            };
        }
        for record in &records {
            self.proposed.apply(record).expect("a decision fits the image that it was made from");
        }
        let version = self.proposed.metadata_version();
        let encode = |record: &MetadataRecord| controller::records::encode(record, version);
        let mut values: Vec<Bytes> = records.iter().map(encode).collect();
        if controller::records::has_transactions(version) && !self.quorum().fits_one_batch(&values) {
            // KIP-868: the records take several batches, and a transaction makes sure that a crash leaves all of them
            // or none.
            let (begin, end) = (BeginTransactionRecord::default().into(), EndTransactionRecord::default().into());
            values.insert(0, encode(&begin));
            values.push(encode(&end));
            records.insert(0, begin);
            records.push(end);
        }
        // If the metadata log cannot be written, `QuorumEvent::Failed` ends the broker, so there is nobody to answer.
        if let Ok(last) = self.quorum().propose(now, records, &values, out) {
            self.commits.waiting.push_back((last, after));
        }
    }

    /// Takes out what waited for records that are committed now.
    pub fn take_committed(&mut self) -> Vec<AfterCommit> {
        let waiting = &mut self.commits.waiting;
        let done = waiting.partition_point(|(last, _)| *last < self.committed);
        waiting.drain(..done).map(|(_, after)| after).collect()
    }

    pub fn finish(&mut self, now: Now, after: AfterCommit, out: &mut Outbox) {
        match after {
            AfterCommit::Answer { ticket, body } => self.replies.answer(ticket, *body, out),
            AfterCommit::Metadata { ticket, request } => metadata::answer(self, ticket, &request, out),
            AfterCommit::ProducerIds { first, end } => init_producer_id::block_taken(self, now, first, end, out),
            AfterCommit::Registered { broker_epoch } => self.broker_epoch = broker_epoch,
            AfterCommit::Nothing => {}
        }
    }
}
