//! The active controller: born when its node begins to lead the quorum, dropped when the node resigns.

use super::*;
use crate::api::refusal;
use crate::controller::ElectionCounts;
use crate::ids::NodeId;
use crate::wire::messages::alter_configs_request;
use crate::wire::messages::create_partitions_request::CreatePartitionsTopic;
use crate::wire::messages::elect_leaders_request::TopicPartitions;
use crate::wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use crate::wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use crate::wire::messages::{
    AllocateProducerIdsRequest, AlterConfigsRequest, AlterPartitionReassignmentsRequest, AlterPartitionRequest,
    AssignReplicasToDirsRequest, BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest,
    ConfigRecord, ControllerRegistrationRequest, CreatePartitionsRequest, ElectLeadersRequest,
    IncrementalAlterConfigsRequest, InitProducerIdRequest, PartitionChangeRecord, RegisterBrokerRecord,
    UnregisterBrokerRequest, UpdateFeaturesRequest, broker_registration_request,
};
use crate::wire::{ApiKey, encode_response};

/// A listener of clients and one of controllers.
const TWO: &[(&str, &str)] = &[("listeners", "PLAINTEXT://h:1,CONTROLLER://h:2")];

impl Bench {
    fn resign(&mut self) {
        self.act(|broker, now, out| broker.resigned(now, out));
    }

    fn lead_again(&mut self) {
        let epoch = self.broker.parts().quorum().epoch();
        self.act(|broker, now, out| broker.leading(now, epoch, None, out));
    }
}

/// One request of each kind that only the controller decides, each about one thing.
fn requests() -> Vec<RequestBody> {
    let topic = CreatableTopic { name: "new".into(), num_partitions: 1, replication_factor: 1, ..Default::default() };
    let create = CreateTopicsRequest { topics: vec![topic], timeout_ms: 1_000, ..Default::default() };
    let more = CreatePartitionsTopic { name: "t".into(), count: 2, ..Default::default() };
    let extend = CreatePartitionsRequest { topics: vec![more], timeout_ms: 1_000, ..Default::default() };
    let resource = alter_configs_request::AlterConfigsResource {
        resource_type: 2,
        resource_name: "t".into(),
        ..Default::default()
    };
    let alter = AlterConfigsRequest { resources: vec![resource], ..Default::default() };
    let resource = AlterConfigsResource { resource_type: 2, resource_name: "t".into(), ..Default::default() };
    let incremental = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    let partitions = TopicPartitions { topic: "t".into(), partitions: [0][..].into(), ..Default::default() };
    let elect = ElectLeadersRequest { topic_partitions: Some(vec![partitions]), ..Default::default() };
    vec![
        RequestBody::CreateTopics(create),
        RequestBody::CreatePartitions(extend),
        RequestBody::AlterConfigs(alter),
        RequestBody::IncrementalAlterConfigs(incremental),
        RequestBody::ElectLeaders(elect),
        RequestBody::AlterPartitionReassignments(AlterPartitionReassignmentsRequest::default()),
        RequestBody::UpdateFeatures(UpdateFeaturesRequest::default()),
        RequestBody::BrokerRegistration(registration(2)),
        RequestBody::BrokerHeartbeat(BrokerHeartbeatRequest { broker_id: 2, ..Default::default() }),
        RequestBody::AlterPartition(AlterPartitionRequest::default()),
        RequestBody::AssignReplicasToDirs(AssignReplicasToDirsRequest::default()),
        RequestBody::ControllerRegistration(ControllerRegistrationRequest::default()),
        RequestBody::AllocateProducerIds(AllocateProducerIdsRequest::default()),
        RequestBody::UnregisterBroker(UnregisterBrokerRequest::default()),
        delete_topic("t"),
    ]
}

/// The error of the one thing that a response is about.
fn error(response: ResponseBody) -> i16 {
    match response {
        ResponseBody::CreateTopics(response) => response.topics[0].error_code,
        ResponseBody::DeleteTopics(response) => response.responses[0].error_code,
        ResponseBody::CreatePartitions(response) => response.results[0].error_code,
        ResponseBody::AlterConfigs(response) => response.responses[0].error_code,
        ResponseBody::IncrementalAlterConfigs(response) => response.responses[0].error_code,
        ResponseBody::ElectLeaders(response) => {
            let of_partition = response.replica_election_results[0].partition_result[0].error_code;
            assert!(response.error_code == 0 || response.error_code == of_partition);
            of_partition
        }
        ResponseBody::AlterPartitionReassignments(response) => response.error_code,
        ResponseBody::UpdateFeatures(response) => response.error_code,
        ResponseBody::BrokerRegistration(response) => response.error_code,
        ResponseBody::BrokerHeartbeat(response) => response.error_code,
        ResponseBody::AlterPartition(response) => response.error_code,
        ResponseBody::AssignReplicasToDirs(response) => response.error_code,
        ResponseBody::ControllerRegistration(response) => response.error_code,
        ResponseBody::AllocateProducerIds(response) => response.error_code,
        ResponseBody::UnregisterBroker(response) => response.error_code,
        other => panic!("{other:?}"),
    }
}

fn versions(api: ApiKey) -> std::ops::RangeInclusive<i16> {
    api.versions().expect("it is a live API")
}

#[test]
fn without_a_controller_every_administrators_request_is_refused() {
    let mut bench = Bench::new(TWO);
    bench.create("t", 1, &[]);
    bench.resign();
    for request in requests() {
        let version = *versions(request.api_key()).end();
        let response = bench.ask_controller(version, request);
        assert_eq!(error(response.clone()), code(ErrorCode::NotController), "{response:?}");
    }
    assert_eq!(bench.append("t", &["a"]), 0, "producers and consumers need no controller");
    let level = AlterableConfig { name: "tidelog.peers".into(), value: Some("DEBUG".into()), ..Default::default() };
    let loggers = AlterConfigsResource {
        resource_type: 8,
        resource_name: "1".into(),
        configs: vec![level],
        ..Default::default()
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![loggers], ..Default::default() };
    assert_eq!(
        error(bench.ask_controller(1, RequestBody::IncrementalAlterConfigs(request))),
        0,
        "a node's loggers are its own"
    );
    assert_eq!(bench.log_levels.len(), 1);
}

#[test]
fn a_refusal_can_be_said_in_every_version() {
    for request in requests() {
        let api = request.api_key();
        for version in versions(api) {
            let response = refusal::not_controller(&request, version);
            assert_eq!(error(response.clone()), code(ErrorCode::NotController));
            encode_response(api, version, 1, &response);
        }
    }
}

#[test]
fn what_waits_for_a_controller_that_resigns_is_refused() {
    let mut bench = Bench::new(TWO);
    bench.create("t", 1, &[]);
    bench.hold(is_sync);
    let sent: Vec<i32> = (60..)
        .zip(requests())
        .map(|(conn, request)| {
            let version = *versions(request.api_key()).end();
            bench.send_at(1, ConnId(conn), version, request)
        })
        .collect();
    let topic = MetadataRequestTopic { name: Some("by-name".into()), ..Default::default() };
    let metadata = MetadataRequest { topics: Some(vec![topic]), allow_auto_topic_creation: true, ..Default::default() };
    let metadata = bench.send_on(ConnId(100), 12, RequestBody::Metadata(metadata));
    let ids =
        InitProducerIdRequest { transactional_id: None, producer_id: -1, producer_epoch: -1, ..Default::default() };
    let ids = bench.send_on(ConnId(101), 4, RequestBody::InitProducerId(ids));
    assert!(bench.answers.is_empty(), "all of them wait: {:?}", bench.answers);
    bench.resign();
    for sent in sent {
        assert_eq!(error(bench.answer(sent).expect("an answer")), code(ErrorCode::NotController));
    }
    // What the broker itself has asked the controller for, it asks the next one for.
    bench.pass(59_999);
    assert!(bench.answers.is_empty(), "{:?}", bench.answers);
    bench.pass(1);
    match bench.answer(metadata) {
        Some(ResponseBody::Metadata(response)) => {
            assert_eq!(response.topics[0].error_code, code(ErrorCode::UnknownTopicOrPartition));
        }
        other => panic!("{other:?}"),
    }
    match bench.answer(ids) {
        Some(ResponseBody::InitProducerId(response)) => {
            assert_eq!(response.error_code, code(ErrorCode::CoordinatorLoadInProgress));
        }
        other => panic!("{other:?}"),
    }
    // What was proposed is committed nevertheless, and happens; nobody is answered a second time.
    bench.release();
    assert!(bench.broker.parts().image.topic_named("new").is_some());
    assert!(bench.broker.parts().image.topic_named("t").is_none());
}

#[test]
fn a_controller_that_leads_again_decides_again_and_its_broker_stays_registered() {
    let mut bench = Bench::new(TWO);
    let epoch = bench.broker.parts().broker_epoch;
    bench.resign();
    bench.lead_again();
    bench.create("t", 1, &[]);
    assert_eq!(bench.append("t", &["a"]), 0);
    let broker = bench.broker.parts().image.broker(NodeId(1)).expect("it is registered").clone();
    assert_eq!((broker.broker_epoch, broker.fenced), (epoch, false));
}

#[test]
fn a_broker_that_finds_no_controller_leaves_when_its_session_has_ended() {
    let mut bench = Bench::new(&[TWO, &[("broker.session.timeout.ms", "7000")]].concat());
    bench.create("t", 1, &[]);
    bench.resign();
    bench.stop();
    bench.pass(6_949);
    assert!(!bench.stopped);
    bench.pass(1);
    assert!(bench.stopped);
    assert_eq!(bench.warnings, ["no active controller has confirmed that this broker leaves its cluster"]);
    bench.start();
    assert_eq!(bench.append("t", &["a"]), 0);
}

#[test]
fn a_broker_that_the_controller_finds_and_hears_nothing_of_is_fenced() {
    let mut bench = Bench::new(&[("broker.session.timeout.ms", "7000")]);
    let other = RegisterBrokerRecord { broker_id: 2, broker_epoch: 1, fenced: false, ..Default::default() };
    bench.commit(vec![other.into()]);
    let is_fenced = |bench: &mut Bench, id| bench.broker.parts().image.broker(NodeId(id)).unwrap().fenced;
    bench.pass(60_000);
    assert!(!is_fenced(&mut bench, 2), "its session begins with its first heartbeat");
    bench.start();
    bench.pass(7_000);
    assert!(!is_fenced(&mut bench, 2));
    bench.pass(2);
    assert!(is_fenced(&mut bench, 2));
    assert!(bench.warnings.contains(&"broker 2 is fenced: its session has ended".to_owned()));
    bench.pass(60_000);
    assert!(!is_fenced(&mut bench, 1), "the controller's own broker is there");
}

/// What another broker asks at its start.
fn registration(id: i32) -> BrokerRegistrationRequest {
    let listener = broker_registration_request::Listener {
        name: "PLAINTEXT".into(),
        host: "h".into(),
        port: 9092,
        ..Default::default()
    };
    let features =
        crate::controller::records::levels_accepted().map(|(name, min, max)| broker_registration_request::Feature {
            name: name.into(),
            min_supported_version: min,
            max_supported_version: max,
            ..Default::default()
        });
    BrokerRegistrationRequest {
        broker_id: id,
        incarnation_id: Uuid::from_bytes([id as u8; 16]),
        listeners: vec![listener],
        features: features.collect(),
        log_dirs: vec![Uuid::from_bytes([0x40 + id as u8; 16])],
        ..Default::default()
    }
}

impl Bench {
    /// A broker that the test plays registers. Gives its epoch.
    fn join(&mut self, id: i32) -> i64 {
        let cluster_id = self.broker.parts().cluster_id.clone();
        let request = BrokerRegistrationRequest { cluster_id, ..registration(id) };
        match self.ask_controller(4, RequestBody::BrokerRegistration(request)) {
            ResponseBody::BrokerRegistration(response) => {
                assert_eq!(response.error_code, 0);
                response.broker_epoch
            }
            other => panic!("{other:?}"),
        }
    }

    /// A heartbeat of a broker that has applied all metadata.
    fn beat(&mut self, broker_id: i32, broker_epoch: i64, want_shut_down: bool) -> BrokerHeartbeatResponse {
        let request = BrokerHeartbeatRequest {
            broker_id,
            broker_epoch,
            want_shut_down,
            current_metadata_offset: self.broker.parts().committed.0 - 1,
            ..Default::default()
        };
        match self.ask_controller(2, RequestBody::BrokerHeartbeat(request)) {
            ResponseBody::BrokerHeartbeat(response) => response,
            other => panic!("{other:?}"),
        }
    }

    /// The leader and the ISR of the one partition of a topic.
    fn leader_of(&mut self, topic: &str) -> (Option<NodeId>, Vec<NodeId>) {
        let topic = self.broker.parts().image.topic_named(topic).expect("a topic");
        (topic.partitions[&0].leader, topic.partitions[&0].isr.clone())
    }
}

#[test]
fn another_broker_joins_leads_and_leaves() {
    let mut bench = Bench::new(TWO);
    let own = bench.broker.parts().broker_epoch;
    let epoch = bench.join(2);
    assert!(bench.told.iter().any(|text| text.contains("broker 2") && text.contains("is registered")));
    let response = bench.beat(2, epoch, false);
    assert_eq!((response.error_code, response.is_caught_up, response.is_fenced), (0, true, false));
    assert_eq!(bench.beat(2, epoch - 1, false).error_code, code(ErrorCode::StaleBrokerEpoch));
    let topic_id = bench.create("a", 1, &[]);
    // As a cluster of Kafka's may have left it: a second replica, which leads.
    let directories = [1, 2].map(|id| bench.broker.parts().image.broker(NodeId(id)).unwrap().log_dirs[0]);
    let leads = PartitionChangeRecord {
        topic_id,
        partition_id: 0,
        replicas: Some([1, 2][..].into()),
        isr: Some([1, 2][..].into()),
        directories: Some(directories.to_vec()),
        leader: 2,
        ..Default::default()
    };
    bench.commit(vec![leads.into()]);
    assert_eq!(bench.leader_of("a"), (Some(NodeId(2)), vec![NodeId(1), NodeId(2)]));
    assert!(!bench.beat(2, epoch, true).should_shut_down, "the other broker must know of the new leader first");
    assert_eq!(bench.leader_of("a"), (Some(NodeId(1)), vec![NodeId(1)]));
    assert!(!bench.beat(2, epoch, true).should_shut_down);
    bench.beat(1, own, false);
    let response = bench.beat(2, epoch, true);
    assert!(response.should_shut_down && response.is_fenced);
    assert!(bench.join(2) >= epoch, "its next life need not wait");
    let request = UnregisterBrokerRequest { broker_id: 2, ..Default::default() };
    assert_eq!(error(bench.ask_controller(0, RequestBody::UnregisterBroker(request.clone()))), 0);
    assert_eq!(
        error(bench.ask_controller(0, RequestBody::UnregisterBroker(request))),
        code(ErrorCode::BrokerIdNotRegistered)
    );
    assert!(bench.broker.parts().image.broker(NodeId(2)).is_none());
}

#[test]
fn a_broker_that_falls_silent_is_fenced_and_the_operator_is_told_who_is_refused() {
    let mut bench = Bench::new(TWO);
    let epoch = bench.join(2);
    bench.beat(2, epoch, false);
    bench.pass(8_000);
    bench.beat(2, epoch, false);
    bench.pass(8_000);
    let another = BrokerRegistrationRequest {
        cluster_id: bench.broker.parts().cluster_id.clone(),
        incarnation_id: Uuid::from_bytes([9; 16]),
        ..registration(2)
    };
    let refused = error(bench.ask_controller(4, RequestBody::BrokerRegistration(another)));
    assert_eq!(refused, code(ErrorCode::DuplicateBrokerRegistration));
    let is_told = |text: &String| text.contains("is not registered: Another broker");
    assert!(bench.warnings.iter().any(is_told), "{:?}", bench.warnings);
    bench.pass(1_002);
    assert!(bench.broker.parts().image.broker(NodeId(2)).unwrap().fenced);
}

#[test]
fn brokers_get_producer_ids_and_controllers_register() {
    let mut bench = Bench::new(TWO);
    let epoch = bench.join(2);
    let mut blocks = Vec::new();
    for _ in 0..2 {
        let request = AllocateProducerIdsRequest { broker_id: 2, broker_epoch: epoch, ..Default::default() };
        match bench.ask_controller(0, RequestBody::AllocateProducerIds(request)) {
            ResponseBody::AllocateProducerIds(response) => {
                assert_eq!(response.error_code, 0);
                blocks.push((response.producer_id_start, response.producer_id_len));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(blocks, [(0, 1_000), (1_000, 1_000)]);
    let request = ControllerRegistrationRequest { controller_id: 7, ..Default::default() };
    assert_eq!(error(bench.ask_controller(0, RequestBody::ControllerRegistration(request))), 0);
    assert!(bench.broker.parts().image.controller(NodeId(7)).is_some());
}

impl Bench {
    /// The partition `t-0` has its second replica on another broker, which leads if it is up. If it is down, nobody leads,
    /// and only that replica is in sync.
    fn place_on_both(&mut self, other_is_up: bool) {
        let topic_id = self.create("t", 1, &[]);
        let own = self.broker.parts().image.broker(NodeId(1)).unwrap().log_dirs[0];
        let other = RegisterBrokerRecord { broker_id: 2, broker_epoch: 1, fenced: !other_is_up, ..Default::default() };
        let (isr, leader): (&[i32], i32) = if other_is_up { (&[1, 2], 2) } else { (&[2], -1) };
        let change = PartitionChangeRecord {
            topic_id,
            partition_id: 0,
            replicas: Some([1, 2][..].into()),
            directories: Some(vec![own, crate::controller::DIRECTORY_UNASSIGNED]),
            isr: Some(isr.into()),
            leader,
            ..Default::default()
        };
        self.commit(vec![other.into(), change.into()]);
    }
}

#[test]
fn leadership_goes_back_to_the_first_replica_by_itself_unless_that_is_switched_off() {
    for (enable, after) in [("true", 1), ("false", 2)] {
        let configs = [("auto.leader.rebalance.enable", enable), ("leader.imbalance.check.interval.seconds", "20")];
        let mut bench = Bench::new(&configs);
        bench.place_on_both(true);
        bench.pass(19_000);
        assert_eq!(bench.leader_of("t").0, Some(NodeId(2)));
        bench.pass(1_000);
        assert_eq!(bench.leader_of("t").0, Some(NodeId(after)));
        bench.pass(20_000);
        assert_eq!(bench.leader_of("t"), (Some(NodeId(after)), vec![NodeId(1), NodeId(2)]));
    }
}

#[test]
fn a_partition_without_a_leader_gets_one_by_itself_where_records_may_be_lost() {
    let mut bench = Bench::new(&[("unclean.leader.election.interval.ms", "20000")]);
    bench.place_on_both(false);
    bench.pass(40_000);
    assert_eq!(bench.leader_of("t").0, None);
    // As a controller of Kafka's leaves it, which elects nobody at once.
    let allow = ConfigRecord {
        resource_type: 2,
        resource_name: "t".into(),
        name: "unclean.leader.election.enable".into(),
        value: Some("true".into()),
        ..Default::default()
    };
    bench.commit(vec![allow.into()]);
    assert_eq!(bench.leader_of("t").0, None);
    assert_eq!(bench.broker.metrics().controller.elections, ElectionCounts::default());
    bench.pass(20_000);
    assert_eq!(bench.leader_of("t"), (Some(NodeId(1)), vec![NodeId(1)]));
    assert_eq!(bench.broker.metrics().controller.elections, ElectionCounts { unclean: 1, eligible: 0 });
}
