//! Whatever happens to the brokers of a partition and whatever its leader and administrators ask for: every leader has
//! all that was acknowledged before. The logs are a model, with a strict least number of replicas in sync (KIP-966).

use super::replicated::{TOPIC, dir, partition};
use super::*;
use crate::reassignments::Reassignment;
use std::collections::BTreeMap;
use tidelog_wire::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use tidelog_wire::messages::alter_partition_request::{PartitionData, TopicData};
use tidelog_wire::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionRequest, AssignReplicasToDirsRequest,
    assign_replicas_to_dirs_request,
};

#[derive(Clone, Debug)]
enum Event {
    /// The leader appends a record, and all replicas in sync fetch it, or nobody does.
    Write {
        is_fetched: bool,
    },
    /// A broker is not heard of any more.
    Silent(i32),
    Returns(i32),
    ShutsDown(i32),
    /// A log directory fails, or is there again with all that was in it.
    Directory(i32, bool),
    /// The leader asks for an ISR of these brokers, as far as they can be in it.
    InSync(Vec<i32>),
    Move(Vec<i32>),
    CallOff,
    /// Elections that somebody asks for, or nobody does.
    Preferred {
        is_asked_for: bool,
    },
    LeastInSync(i32),
}

fn event() -> impl Strategy<Value = Event> {
    let broker = || 1..=5_i32;
    let brokers = || proptest::sample::subsequence(vec![1, 2, 3, 4, 5], 1..=5).prop_shuffle();
    prop_oneof![
        6 => any::<bool>().prop_map(|is_fetched| Event::Write { is_fetched }),
        2 => broker().prop_map(Event::Silent),
        3 => broker().prop_map(Event::Returns),
        1 => broker().prop_map(Event::ShutsDown),
        1 => (broker(), any::<bool>()).prop_map(|(id, is_online)| Event::Directory(id, is_online)),
        5 => brokers().prop_map(Event::InSync),
        2 => brokers().prop_map(Event::Move),
        1 => Just(Event::CallOff),
        1 => any::<bool>().prop_map(|is_asked_for| Event::Preferred { is_asked_for }),
        1 => (1..=4).prop_map(Event::LeastInSync),
    ]
}

struct Model {
    cluster: Cluster,
    logs: BTreeMap<NodeId, Vec<u64>>,
    acknowledged: Vec<u64>,
    written: u64,
    least_in_sync: usize,
}

impl Model {
    fn new() -> Self {
        let logs = [1, 2, 3].map(|id| (NodeId(id), Vec::new())).into();
        let cluster = Cluster::of(partition(&[1, 2, 3], &[1, 2, 3], 1));
        Self { cluster, logs, acknowledged: Vec::new(), written: 0, least_in_sync: 2 }
    }

    fn partition(&self) -> Partition {
        self.cluster.partition("t", 0).clone()
    }

    fn happens(&mut self, event: &Event) {
        let cluster = &mut self.cluster;
        match event {
            Event::Write { is_fetched } => self.write(*is_fetched),
            Event::Silent(id) => cluster.decide(|image, context, _| {
                let records = fence_silent_broker(image, context, NodeId(*id));
                Decision { records, response: () }
            }),
            Event::Returns(id) => cluster.beat(NodeId(*id), BrokerHeartbeatRequest::default()),
            Event::ShutsDown(id) => {
                let wants = BrokerHeartbeatRequest { want_shut_down: true, ..Default::default() };
                cluster.beat(NodeId(*id), wants);
                self.start_after_a_clean_stop(*id);
            }
            Event::Directory(id, is_online) => self.directory(*id, *is_online),
            Event::InSync(ids) => self.in_sync(ids),
            Event::Move(target) => self.alter(Some(target)),
            Event::CallOff => self.alter(None),
            Event::Preferred { is_asked_for: false } => {
                cluster.decide(|image, context, _| elect_preferred_leaders(image, context));
            }
            Event::Preferred { is_asked_for: true } => {
                let request =
                    tidelog_wire::messages::ElectLeadersRequest { topic_partitions: None, ..Default::default() };
                cluster.decide(|image, context, _| elect_leaders(image, context, &request));
            }
            Event::LeastInSync(least) => {
                self.least_in_sync = *least as usize;
                cluster.alter(2, "t", &[("min.insync.replicas", 0, Some(&least.to_string()))]);
            }
        }
        let replicas = self.partition().replicas;
        self.logs.retain(|node, _| replicas.contains(node));
        for node in replicas {
            self.logs.entry(node).or_default();
        }
    }

    fn start_after_a_clean_stop(&mut self, id: i32) {
        let (node_id, cluster) = (NodeId(id), &mut self.cluster);
        let previous_broker_epoch = Some(cluster.epoch_of(id));
        let incarnation_id = Uuid::from_bytes(draw(&mut cluster.drawn)());
        let start = BrokerStart { incarnation_id, previous_broker_epoch, ..broker_start(node_id, &[dir(id)]) };
        let heartbeats = Heartbeats::adopt(&cluster.image, Some(node_id), Mono::ZERO, 9_000, Plants::default());
        let registrar = Registrar {
            context: Context { node_id, layers: cluster.image.layers(&cluster.broker) },
            cluster_id: CLUSTER,
            kraft_version: 1,
            heartbeats: &heartbeats,
            now: Mono::ZERO,
            next_offset: Offset(cluster.offset),
        };
        let registration = register_broker(&cluster.image, &registrar, &start.broker_registration(CLUSTER), 4);
        assert!(registration.response.is_ok(), "{:?}", registration.response);
        cluster.commit(&registration.records);
    }

    fn write(&mut self, is_fetched: bool) {
        let partition = self.partition();
        let Some(leader) = partition.leader else { return };
        self.written += 1;
        self.logs.get_mut(&leader).unwrap().push(self.written);
        if is_fetched {
            let log = self.logs[&leader].clone();
            self.logs.extend(partition.isr.iter().map(|node| (*node, log.clone())));
            if partition.isr.len() >= self.least_in_sync.min(partition.replicas.len()) {
                self.acknowledged = log;
            }
        }
    }

    /// Whether the replica could fetch from the leader.
    fn is_up(&self, node: NodeId) -> bool {
        let image = &self.cluster.image;
        let directory = self.partition().directory(node);
        image.is_active(node) && directory.is_some_and(|directory| image.has_online_directory(node, directory))
    }

    fn in_sync(&mut self, ids: &[i32]) {
        let partition = self.partition();
        let Some(leader) = partition.leader else { return };
        let wanted =
            ids.iter().copied().filter(|id| partition.replicas.contains(&NodeId(*id)) && self.is_up(NodeId(*id)));
        let mut isr: Vec<i32> = wanted.filter(|id| *id != leader.0).collect();
        isr.push(leader.0);
        // A replica has fetched all before the leader takes it in.
        let log = self.logs[&leader].clone();
        let come = isr.iter().map(|id| NodeId(*id)).filter(|node| !partition.isr.contains(node));
        self.logs.extend(come.map(|node| (node, log.clone())));
        let data = PartitionData {
            leader_epoch: partition.leader_epoch.0,
            partition_epoch: partition.partition_epoch,
            new_isr: isr[..].into(),
            leader_recovery_state: partition.recovering.into(),
            ..Default::default()
        };
        let request = AlterPartitionRequest {
            broker_id: leader.0,
            broker_epoch: self.cluster.epoch_of(leader.0),
            topics: vec![TopicData { topic_id: TOPIC, partitions: vec![data], ..Default::default() }],
            ..Default::default()
        };
        let response = self.cluster.decide(|image, context, _| alter_partition(image, context, &request, 2)).unwrap();
        let error = ErrorCode::from_code(response.topics[0].partitions[0].error_code).unwrap();
        assert!([ErrorCode::None, ErrorCode::NewLeaderElected].contains(&error), "{error:?}");
    }

    fn directory(&mut self, id: i32, is_online: bool) {
        let partitions = vec![assign_replicas_to_dirs_request::PartitionData::default()];
        let topic = assign_replicas_to_dirs_request::TopicData { topic_id: TOPIC, partitions, ..Default::default() };
        let directory = assign_replicas_to_dirs_request::DirectoryData {
            id: if is_online { dir(id) } else { DIRECTORY_LOST },
            topics: vec![topic],
            ..Default::default()
        };
        let request = AssignReplicasToDirsRequest {
            broker_id: id,
            broker_epoch: self.cluster.epoch_of(id),
            directories: vec![directory],
            ..Default::default()
        };
        self.cluster.decide(|image, context, _| assign_replicas_to_dirs(image, context, &request)).unwrap();
    }

    fn alter(&mut self, target: Option<&[i32]>) {
        let target = ReassignablePartition { replicas: target.map(Into::into), ..Default::default() };
        let topics = vec![ReassignableTopic { name: "t".into(), partitions: vec![target], ..Default::default() }];
        let request = AlterPartitionReassignmentsRequest { topics, ..Default::default() };
        self.cluster.decide(|image, context, _| alter_reassignments(image, context, &request));
    }

    fn check(&self) {
        self.cluster.image.verify();
        let partition = self.partition();
        let told = self.cluster.told();
        for node in partition.adding.iter().chain(&partition.removing) {
            assert!(partition.replicas.contains(node), "{told}");
        }
        assert!(!partition.adding.iter().any(|node| partition.removing.contains(node)), "{told}");
        assert_eq!(
            Reassignment::of(&partition).completed(&partition.isr),
            None,
            "a move ends as soon as it can: {told}"
        );
        assert!(!partition.recovering, "no election was unclean: {told}");
        if let Some(leader) = partition.leader {
            assert!(self.is_up(leader), "{told}");
            let log = &self.logs[&leader];
            assert!(log.starts_with(&self.acknowledged), "{told}: {log:?} lacks some of {:?}", self.acknowledged);
        }
    }
}

proptest! {
    #[test]
    fn every_leader_has_what_was_acknowledged_before(events in proptest::collection::vec(event(), 1..80)) {
        let mut model = Model::new();
        for event in &events {
            model.happens(event);
            model.check();
        }
    }
}
