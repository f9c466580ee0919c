//! `kraft.version` rises from 0 to 1: the static voters become recorded ones (KIP-853).
//!
//! A recorded voter is a node with its directory. So each voter must have told the leader of this epoch which directory it
//! has, by UpdateRaftVoter. The record of the version and that of the voters are one batch: no node ever has the version
//! without the voters. Both count from the moment at which they are appended, and are cut together.

use crate::role::Role;
use crate::voters::{VoterSet, kraft_version_record};
use crate::{Quorum, QuorumEvent};
use tidelog_storage::io::Outbox;
use tidelog_wire::time::Now;

/// The level at which the voters are recorded.
const RECORDED: i16 = 1;

impl Quorum {
    /// Whether this leader can raise `kraft.version` to 1. Error: why not, as an administrator is told.
    pub fn check_kraft_upgrade(&self) -> Result<(), String> {
        self.voters_to_record().map(|_| ())
    }

    /// Raises `kraft.version` to 1. [`check_kraft_upgrade`](Self::check_kraft_upgrade) must have allowed it.
    pub fn upgrade_kraft_version(&mut self, now: Now, out: &mut Outbox) -> Vec<QuorumEvent> {
        let voters = self.voters_to_record().expect("the upgrade was checked");
        let Role::Leader(leader) = &mut self.role else { unreachable!("checked above") };
        leader.changes.known_voters = None;
        self.append_controls(now, &[kraft_version_record(RECORDED), voters.record()], out);
        self.log_advanced(now, out);
        self.settle(now, out)
    }

    /// The static voters with the directories that they have told.
    fn voters_to_record(&self) -> Result<VoterSet, String> {
        let version = self.kraft_version();
        let known = match &self.role {
            Role::Leader(leader) if leader.is_told && version == 0 => leader.changes.known_voters.as_ref(),
            _ => None,
        };
        let Some(known) = known else {
            return Err(format!("Invalid upgrade of kraft.version from version {version} to {RECORDED}"));
        };
        let lacks = known.iter().filter(|voter| {
            let (min, max) = voter.kraft_versions;
            voter.key.directory.is_none() || !(min..=max).contains(&RECORDED)
        });
        let lacking: Vec<String> = lacks.map(|voter| voter.key.node.to_string()).collect();
        match lacking.is_empty() {
            true => Ok(known.clone()),
            false => Err(format!(
                "Invalid upgrade of kraft.version to {RECORDED} because not all of the voters support it: {} did not tell \
                 the leader that they do",
                lacking.join(", ")
            )),
        }
    }
}
