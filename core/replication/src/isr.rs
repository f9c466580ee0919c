//! The in-sync replicas of a partition as its leader knows them, with the change of them that it has asked the controller
//! for (KIP-497).

use tidelog_wire::ErrorCode;
use tidelog_wire::ids::NodeId;

/// What the leader asks the controller for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrProposal {
    /// The epoch of the partition that the change is made from.
    pub partition_epoch: i32,
    /// The replicas that shall be in sync, each with the epoch of its broker; -1 stands for any epoch.
    pub isr: Vec<(NodeId, i64)>,
}

/// What the controller has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrAnswer {
    pub partition_epoch: i32,
    pub isr: Vec<NodeId>,
}

/// Invariant: a proposal differs from what is committed.
#[derive(Debug)]
pub(crate) struct Isr {
    committed: Vec<NodeId>,
    proposed: Option<Vec<NodeId>>,
}

/// What becomes of a proposal that the controller has refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The controller has not made the change and will not: what was committed before holds.
    TakenBack,
    /// Nobody knows whether the change was made: it is pending until the metadata tells.
    Unknown,
    /// It is to be asked for again.
    Again,
}

impl Isr {
    pub fn new(committed: Vec<NodeId>) -> Self {
        Self { committed, proposed: None }
    }

    /// The replicas that are in sync for certain.
    pub fn committed(&self) -> &[NodeId] {
        &self.committed
    }

    /// Whether a change is asked for.
    pub fn is_changing(&self) -> bool {
        self.proposed.is_some()
    }

    /// Whether the replica is in sync, or may be, if the controller has made the change already. The high watermark waits
    /// for it.
    pub fn may_contain(&self, node: NodeId) -> bool {
        self.committed.contains(&node) || self.proposed.as_ref().is_some_and(|proposed| proposed.contains(&node))
    }

    /// How many replicas may be in sync.
    pub fn len_max(&self) -> usize {
        let joining = self.proposed.iter().flatten().filter(|node| !self.committed.contains(node)).count();
        self.committed.len() + joining
    }

    /// The replicas that shall be in sync.
    pub fn proposed(&self) -> Option<&[NodeId]> {
        self.proposed.as_deref()
    }

    pub fn propose(&mut self, isr: Vec<NodeId>) {
        assert!(self.proposed.is_none(), "one change at a time");
        assert_ne!(isr, self.committed, "a change changes something");
        self.proposed = Some(isr);
    }

    /// These are in sync, whatever was proposed.
    pub fn commit(&mut self, isr: Vec<NodeId>) {
        *self = Self::new(isr);
    }

    pub fn refused(&mut self, error: ErrorCode) -> Refused {
        match error {
            ErrorCode::OperationNotAttempted | ErrorCode::IneligibleReplica => {
                self.proposed = None;
                Refused::TakenBack
            }
            ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::InvalidUpdateVersion
            | ErrorCode::InvalidRequest
            | ErrorCode::NewLeaderElected => Refused::Unknown,
            _ => Refused::Again,
        }
    }

    pub fn verify(&self) {
        assert!(self.proposed.as_ref().is_none_or(|proposed| *proposed != self.committed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[i32]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn a_replica_that_is_proposed_counts_at_once_and_one_that_shall_leave_until_it_has_left() {
        let mut isr = Isr::new(nodes(&[1, 2]));
        isr.propose(nodes(&[1, 3]));
        assert_eq!([1, 2, 3, 4].map(|id| isr.may_contain(NodeId(id))), [true, true, true, false]);
        assert_eq!((isr.len_max(), isr.committed()), (3, &nodes(&[1, 2])[..]));
        isr.commit(nodes(&[1, 3]));
        isr.propose(nodes(&[1, 3, 4]));
        assert_eq!(isr.len_max(), 3, "who stays is not counted twice");
        isr.commit(nodes(&[1, 3]));
        assert_eq!([2, 3].map(|id| isr.may_contain(NodeId(id))), [false, true]);
        assert!(!isr.is_changing());
    }

    #[test]
    fn a_change_is_taken_back_only_where_the_controller_has_certainly_not_made_it() {
        let after = |error| {
            let mut isr = Isr::new(nodes(&[1]));
            isr.propose(nodes(&[1, 2]));
            (isr.refused(error), isr.is_changing())
        };
        assert_eq!(after(ErrorCode::IneligibleReplica), (Refused::TakenBack, false));
        assert_eq!(after(ErrorCode::OperationNotAttempted), (Refused::TakenBack, false));
        assert_eq!(after(ErrorCode::InvalidUpdateVersion), (Refused::Unknown, true));
        assert_eq!(after(ErrorCode::NewLeaderElected), (Refused::Unknown, true));
        assert_eq!(after(ErrorCode::UnknownServerError), (Refused::Again, true));
    }
}
