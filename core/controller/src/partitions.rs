//! Places partitions on brokers and their log directories, and adds partitions to topics (KIP-195).

use super::image::{DIRECTORY_UNASSIGNED, Image};
use super::placement::Placer;
use super::topics::new_partition;
use super::{Decision, MAX_RECORDS_PER_REQUEST, Refusal, too_many_records};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use tidelog_wire::ids::{NodeId, Uuid};
use tidelog_wire::messages::create_partitions_request::CreatePartitionsTopic;
use tidelog_wire::messages::create_partitions_response::CreatePartitionsTopicResult;
use tidelog_wire::messages::{CreatePartitionsRequest, CreatePartitionsResponse, RegisterBrokerRecord};
use tidelog_wire::{ErrorCode, MetadataRecord};

/// The replicas of a partition, with the directory of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub replicas: Vec<NodeId>,
    pub directories: Vec<Uuid>,
}

/// How many replicas lie in each log directory.
pub(super) struct ReplicaCounts {
    by_directory: BTreeMap<Uuid, usize>,
}

impl ReplicaCounts {
    pub fn of(image: &Image) -> Self {
        let mut by_directory = BTreeMap::new();
        for partition in image.topics().flat_map(|topic| topic.partitions.values()) {
            for directory in &partition.directories {
                *by_directory.entry(*directory).or_default() += 1;
            }
        }
        Self { by_directory }
    }

    pub fn add(&mut self, assignments: &[Assignment]) {
        for directory in assignments.iter().flat_map(|assignment| &assignment.directories) {
            *self.by_directory.entry(*directory).or_default() += 1;
        }
    }

    /// Assigns each replica of some partitions to the directory of its broker that holds the fewest replicas. In Kafka a
    /// broker with several directories chooses itself and tells the controller later (KIP-858). It uses the directory that
    /// the controller names if there is one. The counts stay as they are until the caller has taken the assignments and
    /// adds them.
    pub fn assign_directories(&mut self, image: &Image, partitions: Vec<Vec<NodeId>>) -> Vec<Assignment> {
        let mut made = Vec::new();
        for replicas in partitions {
            let directories = replicas.iter().map(|id| self.emptiest(image.broker(*id))).collect();
            let assignment = Assignment { replicas, directories };
            self.add(std::slice::from_ref(&assignment));
            made.push(assignment);
        }
        for directory in made.iter().flat_map(|assignment| &assignment.directories) {
            *self.by_directory.get_mut(directory).expect("counted above") -= 1;
        }
        made
    }

    fn emptiest(&mut self, broker: Option<&RegisterBrokerRecord>) -> Uuid {
        let usable = broker.map(usable_directories).unwrap_or_default();
        let load = |directory: &Uuid| self.by_directory.get(directory).copied().unwrap_or(0);
        usable.into_iter().min_by_key(|directory| (load(directory), *directory)).unwrap_or(DIRECTORY_UNASSIGNED)
    }
}

/// The log directories of a broker that take new replicas.
fn usable_directories(broker: &RegisterBrokerRecord) -> Vec<Uuid> {
    let cordoned = broker.cordoned_log_dirs.as_deref().unwrap_or_default();
    broker.log_dirs.iter().copied().filter(|directory| !cordoned.contains(directory)).collect()
}

pub(super) fn takes_replicas(broker: &RegisterBrokerRecord) -> bool {
    // A broker that is older than KIP-858 names no directories, and takes replicas nevertheless.
    broker.log_dirs.is_empty() || !usable_directories(broker).is_empty()
}

/// Places `count` partitions with `factor` replicas each.
pub(super) fn place(
    image: &Image,
    count: i32,
    factor: i16,
    load: &mut ReplicaCounts,
    draw: &mut impl FnMut() -> [u8; 16],
) -> Result<Vec<Assignment>, String> {
    let mut placer = Placer::new(image, draw);
    placer.check(factor)?;
    let partitions = (0..count).map(|_| placer.place(factor as usize)).collect();
    Ok(load.assign_directories(image, partitions))
}

/// Whether a request may place a partition on exactly these brokers.
pub(super) fn check_manual_assignment(
    image: &Image,
    broker_ids: &[i32],
    factor: Option<usize>,
) -> Result<Vec<NodeId>, Refusal> {
    let invalid = |text: String| Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, text));
    if broker_ids.is_empty() {
        return invalid("The manual partition assignment includes an empty replica list.".to_owned());
    }
    let mut sorted = broker_ids.to_vec();
    sorted.sort_unstable();
    let mut before = None;
    for id in sorted {
        let Some(broker) = image.broker(NodeId(id)) else {
            return invalid(format!(
                "The manual partition assignment includes broker {id}, but no such broker is registered."
            ));
        };
        if !takes_replicas(broker) {
            return invalid(format!(
                "The manual partition assignment includes broker {id}, but all its log directories are cordoned."
            ));
        }
        if before == Some(id) {
            return invalid(format!("The manual partition assignment includes the broker {id} more than once."));
        }
        before = Some(id);
    }
    match factor {
        Some(factor) if factor != broker_ids.len() => invalid(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is not consistent with \
             previous partitions, which have {factor} replica(s).",
            broker_ids.len()
        )),
        _ => Ok(broker_ids.iter().copied().map(NodeId).collect()),
    }
}

/// Adds partitions to topics. One topic that is refused does not affect the others.
pub fn create_partitions(
    image: &Image,
    request: &CreatePartitionsRequest,
    mut draw: impl FnMut() -> [u8; 16],
) -> Decision<CreatePartitionsResponse> {
    let mut seen = BTreeSet::new();
    let duplicates: BTreeSet<_> =
        request.topics.iter().map(|topic| &topic.name).filter(|name| !seen.insert(*name)).collect();
    let mut results: Vec<CreatePartitionsTopicResult> = Vec::new();
    let mut records = Vec::new();
    let mut load = ReplicaCounts::of(image);
    for name in &duplicates {
        let refusal = Refusal::new(ErrorCode::InvalidRequest, "Duplicate topic name.");
        results.push(result(name, Err(refusal)));
    }
    for topic in request.topics.iter().filter(|topic| !duplicates.contains(&topic.name)) {
        let outcome = add_partitions(image, topic, &mut load, &mut draw).and_then(|new| {
            if records.len() + new.len() > MAX_RECORDS_PER_REQUEST {
                return Err(too_many_records());
            }
            records.extend(new);
            Ok(())
        });
        results.push(result(&topic.name, outcome));
    }
    if request.validate_only {
        records.clear();
    }
    Decision { records, response: CreatePartitionsResponse { results, ..CreatePartitionsResponse::default() } }
}

fn result(name: &bytestring::ByteString, outcome: Result<(), Refusal>) -> CreatePartitionsTopicResult {
    let (error, error_message) = match outcome {
        Ok(()) => (ErrorCode::None, None),
        Err(refusal) => (refusal.error, refusal.message),
    };
    CreatePartitionsTopicResult {
        name: name.clone(),
        error_code: error.code(),
        error_message,
        ..CreatePartitionsTopicResult::default()
    }
}

fn add_partitions(
    image: &Image,
    request: &CreatePartitionsTopic,
    load: &mut ReplicaCounts,
    draw: &mut impl FnMut() -> [u8; 16],
) -> Result<Vec<MetadataRecord>, Refusal> {
    let topic = image.topic_named(&request.name).ok_or_else(|| Refusal::silent(ErrorCode::UnknownTopicOrPartition))?;
    let (name, count, existing) = (&request.name, request.count, topic.partitions.len() as i32);
    let invalid = |text: String| Err(Refusal::new(ErrorCode::InvalidPartitions, text));
    match count.cmp(&existing) {
        Ordering::Equal => return invalid(format!("Topic already has {existing} partition(s).")),
        Ordering::Less => {
            return invalid(format!(
                "The topic {name} currently has {existing} partition(s); {count} would not be an increase."
            ));
        }
        Ordering::Greater => {}
    }
    let additional = count - existing;
    if let Some(assignments) = &request.assignments
        && assignments.len() != additional as usize
    {
        let text = format!(
            "Attempted to add {additional} additional partition(s), but only {} assignment(s) were specified.",
            assignments.len()
        );
        return Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, text));
    }
    if additional as usize > MAX_RECORDS_PER_REQUEST {
        return Err(too_many_records());
    }
    let Some(first) = topic.partitions.values().next() else {
        let text = format!("Invalid state: topic {name} appears to have no partitions.");
        return Err(Refusal::new(ErrorCode::UnknownServerError, text));
    };
    let factor = first.replicas.len();
    let made = match &request.assignments {
        None => place(image, additional, factor as i16, load, draw)
            .map_err(|text| Refusal::new(ErrorCode::InvalidReplicationFactor, text))?,
        Some(assignments) => {
            let mut partitions = Vec::new();
            for (index, assignment) in (existing..).zip(assignments) {
                let replicas = check_manual_assignment(image, &assignment.broker_ids, Some(factor))?;
                if !replicas.iter().any(|id| image.is_active(*id)) {
                    let text = format!(
                        "All brokers specified in the manual partition assignment for partition {index} are fenced or \
                         in controlled shutdown."
                    );
                    return Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, text));
                }
                partitions.push(replicas);
            }
            load.assign_directories(image, partitions)
        }
    };
    load.add(&made);
    let records = (existing..).zip(&made);
    Ok(records.map(|(index, assignment)| new_partition(image, assignment).record(topic.id, index)).collect())
}
