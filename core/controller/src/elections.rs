//! Elections of leaders: those that a client asks for (KIP-460), and those of which the controller thinks itself from time
//! to time.

use super::image::{Image, Partition};
use super::partition_changes::{Election, PartitionChange, TopicRules, may_lead};
use super::{Context, Decision, MAX_RECORDS_PER_REQUEST, Refusal, too_many_records};
use tidelog_wire::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use tidelog_wire::messages::{ElectLeadersRequest, ElectLeadersResponse};
use tidelog_wire::{ErrorCode, MetadataRecord};

/// Elects leaders for the named partitions, or for all partitions that need an election.
pub fn elect_leaders(
    image: &Image,
    context: &Context,
    request: &ElectLeadersRequest,
) -> Decision<ElectLeadersResponse> {
    if request.topic_partitions.as_ref().is_some_and(Vec::is_empty) {
        return Decision { records: Vec::new(), response: ElectLeadersResponse::default() };
    }
    let election = match request.election_type {
        0 => Election::Preferred,
        1 => Election::Unclean,
        other => return refused(request, &format!("Unknown election type {other}")),
    };
    let mut records = Vec::new();
    let mut elect = |topic: &str, index: i32| {
        let outcome = elect_leader(image, context, topic, index, election).and_then(|record| {
            if records.len() >= MAX_RECORDS_PER_REQUEST {
                return Err(too_many_records());
            }
            records.push(record);
            Ok(())
        });
        let refusal = outcome.err().unwrap_or_else(|| Refusal::silent(ErrorCode::None));
        let error_code = refusal.error.code();
        PartitionResult { partition_id: index, error_code, error_message: refusal.message, ..Default::default() }
    };
    let results = match &request.topic_partitions {
        Some(topics) => topics
            .iter()
            .map(|topic| ReplicaElectionResult {
                topic: topic.topic.clone(),
                partition_result: topic.partitions.iter().map(|index| elect(&topic.topic, *index)).collect(),
                ..Default::default()
            })
            .collect(),
        None => image
            .topics_by_name()
            .map(|topic| ReplicaElectionResult {
                topic: topic.name.clone(),
                // A request for all partitions is only answered for those that needed an election.
                partition_result: topic
                    .partitions
                    .keys()
                    .map(|index| elect(&topic.name, *index))
                    .filter(|result| result.error_code != ErrorCode::ElectionNotNeeded.code())
                    .collect(),
                ..Default::default()
            })
            .collect(),
    };
    Decision { records, response: ElectLeadersResponse { replica_election_results: results, ..Default::default() } }
}

/// Gives the leadership back to the first replicas, where they are in sync again (`auto.leader.rebalance.enable`). The
/// response says whether there may be more to elect.
pub fn elect_preferred_leaders(image: &Image, context: &Context) -> Decision<bool> {
    elect_some(image, context, Election::Preferred, |_, partition| {
        partition.leader != partition.replicas.first().copied()
    })
}

/// Elects leaders where there are none and the topic allows one that lacks records (`unclean.leader.election.enable`). The
/// response says whether there may be more to elect.
pub fn elect_unclean_leaders(image: &Image, context: &Context) -> Decision<bool> {
    elect_some(image, context, Election::Unclean, |rules, partition| {
        partition.leader.is_none() && rules.allows_unclean_election()
    })
}

/// The most elections that the controller decides together without being asked, as in Kafka.
const ELECTIONS_TOGETHER: usize = 1_000;

fn elect_some(
    image: &Image,
    context: &Context,
    election: Election,
    is_due: impl Fn(&TopicRules, &Partition) -> bool,
) -> Decision<bool> {
    let mut records = Vec::new();
    for topic in image.topics() {
        let rules = TopicRules::of(image, context, topic);
        for (&index, partition) in topic.partitions.iter().filter(|(_, partition)| is_due(&rules, partition)) {
            if records.len() == ELECTIONS_TOGETHER {
                return Decision { records, response: true };
            }
            let change = PartitionChange::election(partition, rules, election);
            records.extend(change.record(topic.id, index, may_lead(image)));
        }
    }
    Decision { records, response: false }
}

/// How many leaders were elected that were not in sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ElectionCounts {
    /// Those that may lack records.
    pub unclean: u64,
    /// Those that were eligible nevertheless (KIP-966).
    pub eligible: u64,
}

impl ElectionCounts {
    /// Counts the election that a change of a partition contains, if it contains one.
    pub fn count(&mut self, before: &Partition, after: &Partition) {
        let elected = after.leader.filter(|leader| before.leader != Some(*leader));
        let Some(leader) = elected.filter(|leader| !before.isr.contains(leader)) else { return };
        match before.eligible_leaders.contains(&leader) {
            true => self.eligible += 1,
            false => self.unclean += 1,
        }
    }
}

/// The same refusal for every partition that the request names.
fn refused(request: &ElectLeadersRequest, why: &str) -> Decision<ElectLeadersResponse> {
    let error_code = ErrorCode::InvalidRequest.code();
    let result = |index: &i32| PartitionResult {
        partition_id: *index,
        error_code,
        error_message: Some(why.into()),
        ..Default::default()
    };
    let topics = request.topic_partitions.iter().flatten().map(|topic| ReplicaElectionResult {
        topic: topic.topic.clone(),
        partition_result: topic.partitions.iter().map(result).collect(),
        ..Default::default()
    });
    let replica_election_results = topics.collect();
    let response = ElectLeadersResponse { error_code, replica_election_results, ..Default::default() };
    Decision { records: Vec::new(), response }
}

fn elect_leader(
    image: &Image,
    context: &Context,
    name: &str,
    index: i32,
    election: Election,
) -> Result<MetadataRecord, Refusal> {
    let unknown = |text: String| Refusal::new(ErrorCode::UnknownTopicOrPartition, text);
    let topic = image.topic_named(name).ok_or_else(|| unknown(format!("No such topic as {name}")))?;
    let partition = topic.partitions.get(&index);
    let partition = partition.ok_or_else(|| unknown(format!("No such partition as {name}-{index}")))?;
    let is_well = match election {
        Election::Preferred => partition.leader == partition.replicas.first().copied(),
        Election::Online | Election::Unclean => partition.leader.is_some(),
    };
    if is_well {
        return Err(Refusal::silent(ErrorCode::ElectionNotNeeded));
    }
    let change = PartitionChange::election(partition, TopicRules::of(image, context, topic), election);
    let record = change.record(topic.id, index, may_lead(image));
    record.ok_or_else(|| {
        Refusal::silent(match election {
            Election::Preferred => ErrorCode::PreferredLeaderNotAvailable,
            Election::Online | Election::Unclean => ErrorCode::EligibleLeadersNotAvailable,
        })
    })
}
