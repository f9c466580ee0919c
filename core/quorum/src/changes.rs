//! Changes of the set of voters (KIP-853): AddRaftVoter, RemoveRaftVoter, UpdateRaftVoter.
//!
//! The leader makes one change at a time: it appends a VotersRecord, and the next change waits until a majority of the
//! new set has that record. So the majorities of two sets that follow each other always have a voter in common.

use crate::peers::Peer;
use crate::role::Role;
use crate::voters::{Endpoints, ReplicaKey, Voter, VoterSet};
use crate::{Quorum, RequestId};
use tidelog_storage::io::Outbox;
use tidelog_wire::ids::{LeaderEpoch, Offset};
use tidelog_wire::messages::update_raft_voter_request::{KRaftVersionFeature, Listener as UpdatedListener};
use tidelog_wire::messages::update_raft_voter_response::CurrentLeader;
use tidelog_wire::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, ApiVersionsRequest, ApiVersionsResponse, RemoveRaftVoterRequest,
    RemoveRaftVoterResponse, UpdateRaftVoterRequest, UpdateRaftVoterResponse, add_raft_voter_request,
};
use tidelog_wire::time::{Mono, Now};
use tidelog_wire::{ErrorCode, ResponseBody};

/// The changes of the voters that the leader is making, and what it knows of static voters.
#[derive(Debug, Default)]
pub struct Changes {
    pending: Option<Pending>,
    /// With `kraft.version` 0: the voters with what they have told of themselves. The log does not hold it.
    pub known_voters: Option<VoterSet>,
}

/// The one change that is being made.
#[derive(Debug)]
struct Pending {
    /// The request to answer, and how.
    request: Option<(RequestId, Kind)>,
    until: Mono,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Add,
    Remove,
}

#[derive(Debug)]
enum Step {
    /// The new voter is asked which versions it supports.
    AskingVersions { voter: Voter, ack_when_committed: bool },
    /// The VotersRecord at this offset must be committed.
    Committing(Offset),
}

impl Changes {
    pub fn deadline(&self) -> Option<Mono> {
        self.pending.as_ref().map(|pending| pending.until)
    }

    /// The answers to who waits, when the leader resigns.
    pub fn abandoned(self) -> Option<(RequestId, ResponseBody)> {
        let (id, kind) = self.pending?.request?;
        Some((id, kind.response(ErrorCode::NotLeaderOrFollower, None)))
    }
}

impl Kind {
    fn verb(self) -> &'static str {
        match self {
            Self::Add => "Add",
            Self::Remove => "Remove",
        }
    }

    fn response(self, error: ErrorCode, message: Option<String>) -> ResponseBody {
        let (error_code, error_message) = (error.code(), message.map(Into::into));
        match self {
            Self::Add => AddRaftVoterResponse { error_code, error_message, ..Default::default() }.into(),
            Self::Remove => RemoveRaftVoterResponse { error_code, error_message, ..Default::default() }.into(),
        }
    }
}

/// Why no change can be made now.
struct Refusal(ErrorCode, Option<String>);

impl Quorum {
    // The leader.

    pub(crate) fn handle_add_voter(&mut self, now: Now, id: RequestId, request: AddRaftVoterRequest) {
        let endpoints: Endpoints = request
            .listeners
            .iter()
            .map(|listener| (listener.name.clone(), listener.host.clone(), listener.port))
            .collect();
        let key = ReplicaKey::from_wire(request.voter_id, request.voter_directory_id);
        let checked = self.check_request(Kind::Add, request.cluster_id.as_deref(), key).and_then(|()| {
            let listener = &self.config.listener;
            if endpoints.address(listener).is_none() {
                let text = format!("Add voter request didn't include the endpoint for the default listener {listener}");
                return Err(Refusal(ErrorCode::InvalidRequest, Some(text)));
            }
            let voters = self.check_change(Kind::Add, now)?;
            if voters.get(key.node).is_some() {
                let text = format!("The voter id for {key} is already part of the set of voters {voters}.");
                return Err(Refusal(ErrorCode::DuplicateVoter, Some(text)));
            }
            Ok(())
        });
        if let Err(Refusal(error, text)) = checked {
            return self.reply(id, Kind::Add.response(error, text));
        }
        let peer = Peer::Voter(key.node);
        if !self.peers.is_free(now.mono, &peer) {
            let text = format!("New voter {key} is not ready to receive requests");
            return self.reply(id, Kind::Add.response(ErrorCode::RequestTimedOut, Some(text)));
        }
        let address = endpoints.address(&self.config.listener).expect("checked above").clone();
        let versions = ApiVersionsRequest {
            client_software_name: "tidelog".into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
            ..Default::default()
        };
        self.ask(peer, address, versions.into(), 3..=4);
        let until = now.mono.plus_ms(self.config.timeouts.request_ms);
        let ack_when_committed = request.ack_when_committed;
        let step = Step::AskingVersions { voter: Voter { key, endpoints, kraft_versions: (0, 0) }, ack_when_committed };
        let Role::Leader(leader) = &mut self.role else { unreachable!("checked above") };
        leader.changes.pending = Some(Pending { request: Some((id, Kind::Add)), until, step });
    }

    /// The new voter has told which versions it supports; `None`: it has not.
    pub(crate) fn handle_versions_of_new_voter(
        &mut self,
        now: Now,
        peer: &Peer,
        answer: Option<ApiVersionsResponse>,
        out: &mut Outbox,
    ) -> bool {
        let kraft_version = self.kraft_version();
        let Role::Leader(leader) = &mut self.role else { return true };
        let (voter, ack_when_committed) = match &leader.changes.pending {
            Some(Pending { step: Step::AskingVersions { voter, ack_when_committed }, .. })
                if *peer == Peer::Voter(voter.key.node) =>
            {
                (voter.clone(), *ack_when_committed)
            }
            _ => return true,
        };
        let key = voter.key;
        let Some(answer) = answer.filter(|answer| answer.error_code == 0) else {
            let text = "Aborted add voter operation for since API_VERSIONS returned an error".to_owned();
            self.finish_change(ErrorCode::RequestTimedOut, Some(text));
            return false;
        };
        let range = answer.supported_features.iter().find(|feature| feature.name == "kraft.version");
        let range = range.map_or((0, 0), |feature| (feature.min_version, feature.max_version));
        if !(range.0..=range.1).contains(&kraft_version) {
            let text = format!(
                "Aborted add voter operation for {key} since the kraft.version range (min: {}, max: {}) doesn't support \
                 the finalized version {kraft_version}",
                range.0, range.1
            );
            self.finish_change(ErrorCode::InvalidRequest, Some(text));
            return true;
        }
        if !leader.progress.is_caught_up(now.mono, key) {
            let text = format!("Aborted add voter operation for {key} since it is lagging behind");
            self.finish_change(ErrorCode::RequestTimedOut, Some(text));
            return true;
        }
        let voter = Voter { kraft_versions: range, ..voter };
        let Some(voters) = self.voters.latest().with(voter) else {
            self.finish_change(ErrorCode::DuplicateVoter, None);
            return true;
        };
        let offset = self.append_controls(now, &[voters.record()], out);
        let Role::Leader(leader) = &mut self.role else { return true };
        let pending = leader.changes.pending.as_mut().expect("found above");
        pending.step = Step::Committing(offset);
        if !ack_when_committed && let Some((id, kind)) = pending.request.take() {
            self.reply(id, kind.response(ErrorCode::None, None));
        }
        self.log_advanced(now, out);
        true
    }

    pub(crate) fn handle_remove_voter(
        &mut self,
        now: Now,
        id: RequestId,
        request: RemoveRaftVoterRequest,
        out: &mut Outbox,
    ) {
        let key = ReplicaKey::from_wire(request.voter_id, request.voter_directory_id);
        let checked = self.check_request(Kind::Remove, request.cluster_id.as_deref(), key);
        let checked = checked.and_then(|()| self.check_change(Kind::Remove, now)).and_then(|voters| {
            let missing = || format!("Cannot remove voter {key} from the set of voters {voters}");
            voters.without(key).ok_or_else(|| Refusal(ErrorCode::VoterNotFound, Some(missing())))
        });
        let voters = match checked {
            Ok(voters) => voters,
            Err(Refusal(error, text)) => return self.reply(id, Kind::Remove.response(error, text)),
        };
        let offset = self.append_controls(now, &[voters.record()], out);
        let until = now.mono.plus_ms(self.config.timeouts.request_ms);
        let Role::Leader(leader) = &mut self.role else { unreachable!("checked above") };
        let request = Some((id, Kind::Remove));
        leader.changes.pending = Some(Pending { request, until, step: Step::Committing(offset) });
        self.log_advanced(now, out);
    }

    /// Whether a request to add or remove a voter is one that this leader may carry out.
    fn check_request(&self, kind: Kind, cluster_id: Option<&str>, key: ReplicaKey) -> Result<(), Refusal> {
        if !self.is_of_this_cluster(cluster_id) {
            let text = format!(
                "The given id \"{}\" doesn't match the cluster id \"{}\"",
                cluster_id.unwrap_or_default(),
                self.config.cluster_id
            );
            return Err(Refusal(ErrorCode::InconsistentClusterId, Some(text)));
        }
        if let Some(error) = self.refusal_of_leader(self.epoch()) {
            return Err(Refusal(error, None));
        }
        if key.node.0 < 0 || key.directory.is_none() {
            let text = format!("{} voter request didn't include a valid voter", kind.verb());
            return Err(Refusal(ErrorCode::InvalidRequest, Some(text)));
        }
        Ok(())
    }

    /// Whether the voters may be changed now. Returns the voters that count.
    fn check_change(&mut self, kind: Kind, now: Now) -> Result<VoterSet, Refusal> {
        self.expire_changes(now);
        let timed_out = |text: &str| Refusal(ErrorCode::RequestTimedOut, Some(text.to_owned()));
        let Role::Leader(leader) = &self.role else { unreachable!("checked before") };
        if leader.changes.pending.is_some() {
            return Err(timed_out("Request timed out waiting for leader to handle previous voter change request"));
        }
        let Some(high_watermark) = leader.progress.high_watermark() else {
            return Err(timed_out(
                "Request timed out waiting for leader to establish HWM and fence previous voter changes",
            ));
        };
        let kraft_version = self.kraft_version();
        if kraft_version == 0 {
            let does = if kind == Kind::Add { "adding" } else { "removing" };
            let text = format!("Cluster doesn't support {does} voter because the kraft.version feature is 0");
            return Err(Refusal(ErrorCode::UnsupportedVersion, Some(text)));
        }
        match self.voters.latest_offset() {
            Some(offset) if offset < high_watermark => Ok(self.voters.latest().clone()),
            offset => Err(timed_out(&format!(
                "Request timed out waiting for voters to commit the latest voter change at {} with HWM {high_watermark}",
                offset.map_or(-1, |offset| offset.0)
            ))),
        }
    }

    pub(crate) fn handle_update_voter(
        &mut self,
        now: Now,
        id: RequestId,
        listener: &str,
        request: UpdateRaftVoterRequest,
        out: &mut Outbox,
    ) {
        let error = match self.update_voter(now, request, out) {
            Ok(()) => ErrorCode::None,
            Err(error) => error,
        };
        let (leader_id, endpoint) = self.leader_for(listener);
        let address = endpoint.map(|(_, address)| address);
        let current_leader = CurrentLeader {
            leader_id,
            leader_epoch: self.epoch().0,
            host: address.as_ref().map(|address| address.host.clone()).unwrap_or_default(),
            port: address.map_or(0, |address| address.port.into()),
            ..Default::default()
        };
        let error_code = error.code();
        self.reply(id, UpdateRaftVoterResponse { error_code, current_leader, ..Default::default() });
    }

    fn update_voter(&mut self, now: Now, request: UpdateRaftVoterRequest, out: &mut Outbox) -> Result<(), ErrorCode> {
        if !self.is_of_this_cluster(request.cluster_id.as_deref()) {
            return Err(ErrorCode::InconsistentClusterId);
        }
        if let Some(error) = self.refusal_of_leader(LeaderEpoch(request.current_leader_epoch)) {
            return Err(error);
        }
        let key = ReplicaKey::from_wire(request.voter_id, request.voter_directory_id);
        let endpoints: Endpoints = request
            .listeners
            .iter()
            .map(|listener| (listener.name.clone(), listener.host.clone(), listener.port))
            .collect();
        let (min, max) =
            (request.kraft_version_feature.min_supported_version, request.kraft_version_feature.max_supported_version);
        let is_valid = key.node.0 >= 0
            && key.directory.is_some()
            && endpoints.address(&self.config.listener).is_some()
            && 0 <= min
            && min <= max;
        if !is_valid {
            return Err(ErrorCode::InvalidRequest);
        }
        self.expire_changes(now);
        let kraft_version = self.kraft_version();
        let Role::Leader(leader) = &self.role else { unreachable!("checked above") };
        let high_watermark = leader.progress.high_watermark();
        if leader.changes.pending.is_some() {
            return Err(ErrorCode::RequestTimedOut);
        }
        let Some(high_watermark) = high_watermark else { return Err(ErrorCode::RequestTimedOut) };
        let voter = Voter { key, endpoints, kraft_versions: (min, max) };
        let supports = (min..=max).contains(&kraft_version);
        let updated = if kraft_version == 0 {
            let known = leader.changes.known_voters.as_ref().ok_or(ErrorCode::RequestTimedOut)?;
            known.updated_in_any_directory(voter)
        } else {
            match self.voters.latest_offset() {
                Some(offset) if offset < high_watermark => self.voters.latest().updated(voter),
                _ => return Err(ErrorCode::RequestTimedOut),
            }
        };
        if !supports {
            return Err(ErrorCode::InvalidRequest);
        }
        let updated = updated.ok_or(ErrorCode::VoterNotFound)?;
        let Role::Leader(leader) = &mut self.role else { unreachable!("checked above") };
        leader.progress.seen(now.mono, key);
        if kraft_version == 0 {
            leader.changes.known_voters = Some(updated);
        } else if updated != *self.voters.latest() {
            self.append_controls(now, &[updated.record()], out);
            self.log_advanced(now, out);
        }
        Ok(())
    }

    /// The high watermark has risen.
    pub(crate) fn changes_committed(&mut self) {
        let me = self.config.me;
        let is_voter = self.voters.latest().has(me);
        let last = self.voters.latest_offset();
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(high_watermark) = leader.progress.high_watermark() else { return };
        if !is_voter && last.is_some_and(|offset| offset < high_watermark) {
            // This leader was removed, and that is committed.
            leader.resigns = true;
        }
        if let Some(Pending { step: Step::Committing(offset), .. }) = &leader.changes.pending
            && *offset < high_watermark
        {
            self.finish_change(ErrorCode::None, None);
        }
    }

    /// Answers who has waited for too long for a change. The change may still be committed.
    pub(crate) fn expire_changes(&mut self, now: Now) {
        if let Role::Leader(leader) = &self.role
            && leader.changes.deadline().is_some_and(|until| until <= now.mono)
        {
            self.finish_change(ErrorCode::RequestTimedOut, None);
        }
    }

    fn finish_change(&mut self, error: ErrorCode, message: Option<String>) {
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(Pending { request: Some((id, kind)), .. }) = leader.changes.pending.take() {
            self.reply(id, kind.response(error, message));
        }
    }

    // The follower.

    /// Tells the leader the endpoints and versions of this voter, if it may not know them; or asks to become a voter, if
    /// this controller is to join by itself.
    pub(crate) fn tell_leader_about_me(&mut self, now: Now) {
        let (mine, voters, me) = (self.my_voter(), self.voters.latest(), self.config.me);
        let kraft_version = self.kraft_version();
        let Role::Follower(follower) = &self.role else { return };
        let peer = Peer::Voter(follower.leader);
        let address = follower.leader_endpoints.address(&self.config.listener).cloned();
        let is_voter = voters.has(me);
        let request = if is_voter {
            let is_outdated = match kraft_version {
                0 => !follower.has_updated_leader,
                _ => voters.is_outdated(&mine),
            };
            is_outdated.then(|| (self.update_request(&mine).into(), 0..=0))
        } else if kraft_version > 0 && self.config.joins_by_itself {
            match voters.get(me.node) {
                // The node is a voter with an earlier directory, which has to go first.
                Some(old) => Some((self.remove_request(old.key).into(), 0..=0)),
                None => Some((self.join_request(&mine).into(), 1..=1)),
            }
        } else {
            None
        };
        if let (Some((body, versions)), Some(address)) = (request, address) {
            if self.peers.has_any_in_flight() || !self.peers.is_free(now.mono, &peer) {
                // It goes out as soon as the fetch that is in flight is answered.
                return;
            }
            self.ask(peer, address, body, versions);
        }
        let next = now.mono.plus_ms(self.config.timeouts.fetch_ms);
        if let Role::Follower(follower) = &mut self.role {
            follower.update_voter_at = next;
        }
    }

    fn update_request(&self, mine: &Voter) -> UpdateRaftVoterRequest {
        let listener = |(name, address): (&bytestring::ByteString, &tidelog_wire::Address)| UpdatedListener {
            name: name.clone(),
            host: address.host.clone(),
            port: address.port,
            ..Default::default()
        };
        UpdateRaftVoterRequest {
            cluster_id: Some(self.config.cluster_id.clone()),
            current_leader_epoch: self.epoch().0,
            voter_id: mine.key.node.0,
            voter_directory_id: mine.key.wire_directory(),
            listeners: mine.endpoints.0.iter().map(listener).collect(),
            kraft_version_feature: KRaftVersionFeature {
                min_supported_version: mine.kraft_versions.0,
                max_supported_version: mine.kraft_versions.1,
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn join_request(&self, mine: &Voter) -> AddRaftVoterRequest {
        let listener =
            |(name, address): (&bytestring::ByteString, &tidelog_wire::Address)| add_raft_voter_request::Listener {
                name: name.clone(),
                host: address.host.clone(),
                port: address.port,
                ..Default::default()
            };
        AddRaftVoterRequest {
            cluster_id: Some(self.config.cluster_id.clone()),
            timeout_ms: self.config.timeouts.request_ms.try_into().unwrap_or(i32::MAX),
            voter_id: mine.key.node.0,
            voter_directory_id: mine.key.wire_directory(),
            listeners: mine.endpoints.0.iter().map(listener).collect(),
            // The leader could not commit the record without this voter, which waits for the answer before it fetches.
            ack_when_committed: false,
            ..Default::default()
        }
    }

    fn remove_request(&self, old: ReplicaKey) -> RemoveRaftVoterRequest {
        RemoveRaftVoterRequest {
            cluster_id: Some(self.config.cluster_id.clone()),
            voter_id: old.node.0,
            voter_directory_id: old.wire_directory(),
            ..Default::default()
        }
    }

    pub(crate) fn handle_update_voter_answer(&mut self, now: Now, answer: UpdateRaftVoterResponse) -> bool {
        let CurrentLeader { leader_id, leader_epoch, host, port, .. } = answer.current_leader;
        let port = u16::try_from(port).ok().filter(|_| !host.is_empty());
        let told = port.map(|port| (leader_id, host, port));
        let common = self.common(answer.error_code, (leader_id, leader_epoch), told);
        let error = common.error;
        if let Some(is_useful) = self.handle_common(now, common) {
            return is_useful;
        }
        match (&mut self.role, error) {
            (Role::Follower(follower), ErrorCode::None | ErrorCode::UnsupportedVersion) => {
                follower.has_updated_leader = true;
                self.fetched(now);
                true
            }
            _ => false,
        }
    }

    /// The answer to a request to add or remove a voter, which this node has made for itself.
    pub(crate) fn handle_join_answer(&mut self, error_code: i16) -> bool {
        matches!(
            ErrorCode::from_code(error_code),
            Some(ErrorCode::None | ErrorCode::RequestTimedOut | ErrorCode::DuplicateVoter | ErrorCode::VoterNotFound)
        )
    }
}
