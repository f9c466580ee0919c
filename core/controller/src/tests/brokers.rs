//! Registrations, sessions and heartbeats of several brokers.

use super::*;
use std::time::Duration;
use tidelog_wire::messages::register_broker_record::{BrokerEndpoint, BrokerFeature};
use tidelog_wire::messages::register_controller_record::{ControllerEndpoint, ControllerFeature};
use tidelog_wire::messages::{
    BrokerHeartbeatRequest, BrokerRegistrationRequest, ControllerRegistrationRequest, ProducerIdsRecord,
    RegisterControllerRecord,
};

const SESSION_MS: i64 = 9_000;

/// A controller of a cluster in which broker 1 has started.
struct Active {
    cluster: Cluster,
    heartbeats: Heartbeats,
    now: Mono,
}

fn dir(id: i32) -> Uuid {
    Uuid::from_bytes([id as u8; 16])
}

fn incarnation(number: u8) -> Uuid {
    Uuid::from_bytes([number; 16])
}

fn registration(id: i32, number: u8) -> BrokerRegistrationRequest {
    let start = BrokerStart { incarnation_id: incarnation(number), ..broker_start(NodeId(id), &[dir(id)]) };
    start.broker_registration(CLUSTER)
}

impl Active {
    fn new() -> Self {
        let cluster = Cluster::new();
        let now = Mono(1_000_000_000);
        let heartbeats = Heartbeats::adopt(&cluster.image, None, now, SESSION_MS, Plants::default());
        Self { cluster, heartbeats, now }
    }

    /// Another controller takes over.
    fn fail_over(&mut self) {
        self.heartbeats = Heartbeats::adopt(&self.cluster.image, None, self.now, SESSION_MS, Plants::default());
    }

    fn pass_ms(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
    }

    fn register_with(&mut self, request: &BrokerRegistrationRequest, version: i16) -> Result<i64, (ErrorCode, String)> {
        let at = self.cluster.offset;
        let (heartbeats, now) = (&self.heartbeats, self.now);
        let response = self.cluster.decide(|image, context, _| {
            let registrar = Registrar {
                context: *context,
                cluster_id: CLUSTER,
                kraft_version: 1,
                heartbeats,
                now,
                next_offset: Offset(at),
            };
            register_broker(image, &registrar, request, version)
        });
        self.tell_heartbeats(at);
        response.map_err(|refusal| (refusal.error, refusal.message.unwrap_or_default().to_string()))
    }

    /// Tells the heartbeats what was committed since this offset.
    fn tell_heartbeats(&mut self, since: i64) {
        let committed = &self.cluster.committed;
        for (offset, (record, _)) in (0..).zip(committed).skip(since as usize) {
            self.heartbeats.applied(record, Offset(offset));
        }
        self.heartbeats.verify(&self.cluster.image);
    }

    fn register(&mut self, id: i32, number: u8) -> Result<i64, ErrorCode> {
        self.register_with(&registration(id, number), 4).map_err(|(error, _)| error)
    }

    fn epoch(&self, id: i32) -> i64 {
        self.cluster.image.broker(NodeId(id)).unwrap().broker_epoch
    }

    fn send(&mut self, request: &BrokerHeartbeatRequest) -> Result<BrokerState, ErrorCode> {
        let id = NodeId(request.broker_id);
        self.heartbeats.heard(id, request.broker_epoch, self.now);
        let heartbeats = &self.heartbeats;
        let outcome = self.cluster.decide(|image, context, _| broker_heartbeat(image, context, heartbeats, request));
        let outcome = outcome.map_err(|refusal| refusal.error)?;
        self.heartbeats.decided(request, outcome.state);
        if outcome.state == BrokerState::ControlledShutdown {
            self.heartbeats.shuts_down(id, Offset(self.cluster.offset - 1));
        }
        assert_eq!(outcome.response.is_caught_up, self.heartbeats.is_caught_up(request));
        assert_eq!(outcome.response.is_fenced, outcome.state.is_fenced());
        assert_eq!(outcome.response.should_shut_down, outcome.state == BrokerState::ShutdownNow);
        assert_eq!(outcome.response.is_fenced, self.cluster.image.broker(id).unwrap().fenced);
        Ok(outcome.state)
    }

    /// A heartbeat of a broker that has applied all metadata.
    fn heartbeat(&self, id: i32) -> BrokerHeartbeatRequest {
        BrokerHeartbeatRequest {
            broker_id: id,
            broker_epoch: self.epoch(id),
            current_metadata_offset: self.cluster.offset - 1,
            ..BrokerHeartbeatRequest::default()
        }
    }

    fn beat(&mut self, id: i32) -> BrokerState {
        self.send(&self.heartbeat(id)).unwrap()
    }

    fn shut_down(&mut self, id: i32) -> BrokerState {
        self.send(&BrokerHeartbeatRequest { want_shut_down: true, ..self.heartbeat(id) }).unwrap()
    }

    /// Registers and unfences a broker.
    fn join(&mut self, id: i32) {
        self.register(id, id as u8).unwrap();
        assert_eq!(self.beat(id), BrokerState::Unfenced);
    }

    /// A topic with one partition whose replicas are on these brokers.
    fn create_on(&mut self, brokers: &[i32]) {
        assert_eq!(self.cluster.create(&creating(vec![assigned("t", &[(0, brokers)])]))[0].1, ErrorCode::None);
    }

    fn leader(&self) -> (Option<i32>, Vec<i32>, Vec<i32>) {
        let partition = self.cluster.partition("t", 0);
        let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
        (partition.leader.map(|node| node.0), ids(&partition.isr), ids(&partition.eligible_leaders))
    }

    /// Fences the brokers whose sessions have ended.
    fn fence_expired(&mut self) -> Vec<i32> {
        let mut fenced = Vec::new();
        while let Some(id) = self.heartbeats.take_expired(self.now) {
            let context = Context { node_id: NodeId(1), layers: self.cluster.image.layers(&self.cluster.broker) };
            let records = fence_silent_broker(&self.cluster.image, &context, id);
            self.cluster.commit(&records);
            fenced.push(id.0);
        }
        fenced
    }
}

#[test]
fn a_broker_starts_fenced_and_its_epoch_is_an_offset_of_the_log() {
    let mut active = Active::new();
    let at = active.cluster.offset;
    assert_eq!(active.register(2, 2), Ok(at));
    let broker = active.cluster.image.broker(NodeId(2)).unwrap();
    assert!(broker.fenced && !broker.in_controlled_shutdown);
    assert_eq!(
        (broker.log_dirs.clone(), broker.end_points.len(), broker.incarnation_id),
        (vec![dir(2)], 1, incarnation(2))
    );
}

#[test]
fn a_registration_that_does_not_fit_is_refused() {
    let mut active = Active::new();
    active.join(2);
    let refused = |active: &mut Active, change: &dyn Fn(&mut BrokerRegistrationRequest)| {
        let mut request = registration(3, 3);
        change(&mut request);
        let (error, message) = active.register_with(&request, 4).unwrap_err();
        format!("{}: {message}", error.name())
    };
    let texts = [
        refused(&mut active, &|request| request.cluster_id = "another".into()),
        refused(&mut active, &|request| request.broker_id = 2),
        refused(&mut active, &|request| request.is_migrating_zk_broker = true),
        refused(&mut active, &|request| request.log_dirs.clear()),
        refused(&mut active, &|request| request.log_dirs.push(DIRECTORY_LOST)),
        refused(&mut active, &|request| request.log_dirs.push(dir(3))),
        refused(&mut active, &|request| request.log_dirs.push(dir(2))),
        refused(&mut active, &|request| request.listeners.clear()),
        refused(&mut active, &|request| request.features[0].max_supported_version = 29),
        refused(&mut active, &|request| request.features.retain(|feature| feature.name != "metadata.version")),
        refused(&mut active, &|request| request.features.retain(|feature| feature.name != "kraft.version")),
        refused(&mut active, &|request| {
            request.features.retain(|feature| feature.name != "eligible.leader.replicas.version");
        }),
    ];
    insta::assert_snapshot!(texts.join("\n"), @r"
    INCONSISTENT_CLUSTER_ID: Expected cluster ID Tidelog, but got cluster ID another
    DUPLICATE_BROKER_REGISTRATION: Another broker is registered with that broker id. If the broker was recently restarted this should self-resolve once the heartbeat manager expires the broker's session.
    BROKER_ID_NOT_REGISTERED: Controller does not support registering ZK brokers.
    INVALID_REGISTRATION: No directories specified in request
    INVALID_REGISTRATION: Reserved directory ID in request
    INVALID_REGISTRATION: Duplicate directory ID in request
    INVALID_REGISTRATION: Broker 2 is already registered with directory AgICAgICAgICAgICAgICAg
    INVALID_REGISTRATION: No listeners specified in request
    UNSUPPORTED_VERSION: Unable to register because the broker does not support finalized version 30 of metadata.version. The broker wants a version between 7 and 29, inclusive.
    INVALID_REGISTRATION: Request features do not contain 'metadata.version'
    UNSUPPORTED_VERSION: Unable to register because the broker does not support finalized version 1 of kraft.version. The broker wants a version between 0 and 0, inclusive.
    UNSUPPORTED_VERSION: Unable to register because the broker does not support finalized version 1 of eligible.leader.replicas.version. The broker wants a version between 0 and 0, inclusive.
    ");
    assert!(active.cluster.image.broker(NodeId(3)).is_none());
}

#[test]
fn an_old_cluster_knows_no_log_directories() {
    let mut active = Active::new();
    let level = tidelog_wire::messages::FeatureLevelRecord {
        name: "metadata.version".into(),
        feature_level: 14,
        ..Default::default()
    };
    active.cluster.commit(&[level.into()]);
    let mut request = registration(3, 3);
    request.log_dirs.clear();
    active.register_with(&request, 1).unwrap();
    request.log_dirs.push(dir(3));
    active.register_with(&request, 2).unwrap();
    assert_eq!(active.cluster.image.broker(NodeId(3)).unwrap().log_dirs, []);
    let request = ControllerRegistrationRequest { controller_id: 9, ..Default::default() };
    let refused = active.cluster.decide(|image, _, _| register_controller(image, &request)).unwrap_err();
    assert_eq!(refused.error, ErrorCode::UnsupportedVersion);
}

#[test]
fn a_new_incarnation_waits_until_the_session_of_the_old_one_has_ended() {
    let mut active = Active::new();
    active.join(2);
    active.pass_ms(9_000);
    assert_eq!(active.register(2, 3), Err(ErrorCode::DuplicateBrokerRegistration));
    active.pass_ms(1);
    let before = active.epoch(2);
    let epoch = active.register(2, 3).unwrap();
    assert!(epoch > before);
    assert!(active.cluster.image.broker(NodeId(2)).unwrap().fenced);
    let stale = BrokerHeartbeatRequest { broker_epoch: before, ..active.heartbeat(2) };
    assert_eq!(active.send(&stale), Err(ErrorCode::StaleBrokerEpoch));
    assert!(!active.heartbeats.has_session(NodeId(2), active.now), "a stale heartbeat is no contact");
    assert_eq!(active.send(&BrokerHeartbeatRequest { broker_id: 7, ..stale }), Err(ErrorCode::StaleBrokerEpoch));
}

#[test]
fn a_broker_that_has_never_been_heard_of_or_was_told_to_stop_can_be_followed_at_once() {
    let mut active = Active::new();
    active.register(2, 2).unwrap();
    active.register(2, 3).unwrap();
    assert_eq!(active.beat(2), BrokerState::Unfenced);
    assert_eq!(active.register(2, 4), Err(ErrorCode::DuplicateBrokerRegistration));
    assert_eq!(active.shut_down(2), BrokerState::ShutdownNow);
    active.register(2, 4).unwrap();
}

#[test]
fn the_same_incarnation_keeps_its_epoch_its_state_and_its_session() {
    let mut active = Active::new();
    active.join(2);
    active.create_on(&[2, 1]);
    let (epoch, before) = (active.epoch(2), active.leader());
    let mut request = registration(2, 2);
    request.rack = Some("r".into());
    assert_eq!(active.register_with(&request, 4), Ok(epoch));
    let broker = active.cluster.image.broker(NodeId(2)).unwrap();
    assert!(!broker.fenced);
    assert_eq!(broker.rack.as_deref(), Some("r"));
    assert_eq!(active.leader(), before);
    assert!(active.heartbeats.has_session(NodeId(2), active.now));
    // It is caught up once it knows of the second registration.
    let behind = BrokerHeartbeatRequest { current_metadata_offset: epoch, ..active.heartbeat(2) };
    assert!(!active.heartbeats.is_caught_up(&behind));
    assert!(active.heartbeats.is_caught_up(&active.heartbeat(2)));
}

#[test]
fn a_broker_that_crashed_is_not_eligible_to_lead_and_one_that_stopped_cleanly_is() {
    for (version, named, eligible) in [(4, true, vec![2]), (4, false, vec![]), (2, true, vec![])] {
        let mut active = Active::new();
        active.join(2);
        active.create_on(&[2, 1]);
        active.cluster.alter(2, "t", &[("min.insync.replicas", 0, Some("2"))]);
        active.pass_ms(9_001);
        let previous_broker_epoch = if named { active.epoch(2) } else { -1 };
        let request = BrokerRegistrationRequest { previous_broker_epoch, ..registration(2, 3) };
        active.register_with(&request, version).unwrap();
        assert_eq!(active.leader(), (Some(1), vec![1], eligible), "version {version}, {named}");
    }
}

#[test]
fn a_broker_is_unfenced_once_it_knows_of_its_registration() {
    let mut active = Active::new();
    active.register(2, 2).unwrap();
    let behind = BrokerHeartbeatRequest { current_metadata_offset: active.epoch(2) - 1, ..active.heartbeat(2) };
    assert_eq!(active.send(&behind), Ok(BrokerState::Fenced));
    let unready = BrokerHeartbeatRequest { want_fence: true, ..active.heartbeat(2) };
    assert_eq!(active.send(&unready), Ok(BrokerState::Fenced));
    assert_eq!(active.beat(2), BrokerState::Unfenced);
    let records = active.cluster.offset;
    assert_eq!(active.beat(2), BrokerState::Unfenced);
    assert_eq!(active.cluster.offset, records, "nothing changes by a second heartbeat");
    assert_eq!(
        active.send(&BrokerHeartbeatRequest { want_fence: true, ..active.heartbeat(2) }),
        Ok(BrokerState::Fenced)
    );
}

#[test]
fn a_broker_whose_session_ends_is_fenced_and_its_partitions_are_led_by_others() {
    let mut active = Active::new();
    active.join(2);
    active.create_on(&[2, 1]);
    active.pass_ms(5_000);
    active.beat(1);
    active.pass_ms(4_000);
    assert!(active.fence_expired().is_empty());
    assert_eq!(active.heartbeats.deadline(), Some(active.now), "the session of 2 ends now");
    active.pass_ms(1);
    assert_eq!(active.fence_expired(), [2]);
    assert!(active.cluster.image.broker(NodeId(2)).unwrap().fenced);
    assert_eq!(active.leader(), (Some(1), vec![1], vec![]));
    assert!(active.fence_expired().is_empty());
    assert_eq!(active.heartbeats.deadline(), Some(active.now.plus_ms(4_999)), "only that of 1 is left");
    assert_eq!(active.beat(2), BrokerState::Unfenced, "it was only slow");
    assert_eq!(active.leader().0, Some(1));
}

#[test]
fn a_new_controller_gives_every_unfenced_broker_a_whole_session() {
    let mut active = Active::new();
    active.join(2);
    active.register(3, 3).unwrap();
    active.pass_ms(8_999);
    active.fail_over();
    assert!(!active.heartbeats.has_session(NodeId(3), active.now), "it is fenced");
    active.pass_ms(9_000);
    assert!(active.fence_expired().is_empty());
    active.pass_ms(1);
    assert_eq!(active.fence_expired(), [1, 2], "KAFKA-18138");
    let gone = Heartbeats::adopt(&Cluster::new().image, Some(NodeId(1)), active.now, SESSION_MS, Plants::default());
    assert!(!gone.has_session(NodeId(1), active.now));
}

/// The cases of Kafka's `BrokerHeartbeatManagerTest.testCalculateNextBrokerState`.
#[test]
fn a_broker_that_shuts_down_serves_until_every_active_broker_knows_the_new_leaders() {
    let mut active = Active::new();
    active.join(2);
    active.join(3);
    active.create_on(&[2, 1, 3]);
    active.beat(1);
    active.beat(3);
    assert_eq!(active.shut_down(2), BrokerState::ControlledShutdown);
    assert_eq!(active.leader(), (Some(1), vec![1, 3], vec![]));
    assert!(active.cluster.image.broker(NodeId(2)).unwrap().in_controlled_shutdown);
    assert_eq!(active.shut_down(2), BrokerState::ControlledShutdown, "the others do not know of it yet");
    active.beat(1);
    assert_eq!(active.shut_down(2), BrokerState::ControlledShutdown);
    active.beat(3);
    assert_eq!(active.shut_down(2), BrokerState::ShutdownNow);
    assert!(active.cluster.image.broker(NodeId(2)).unwrap().fenced);
    assert_eq!(active.shut_down(2), BrokerState::ShutdownNow, "it asks again because the answer was lost");
}

#[test]
fn a_broker_that_nobody_can_follow_does_not_end_while_it_leads() {
    let mut active = Active::new();
    active.join(2);
    active.create_on(&[2]);
    active.cluster.commit(&[tidelog_wire::messages::FeatureLevelRecord {
        name: "eligible.leader.replicas.version".into(),
        feature_level: 0,
        ..Default::default()
    }
    .into()]);
    assert_eq!(active.shut_down(2), BrokerState::ControlledShutdown);
    assert_eq!(active.leader(), (None, vec![2], vec![]), "nobody else may lead");
    active.beat(1);
    assert_eq!(active.shut_down(2), BrokerState::ShutdownNow);
    active.register(2, 9).unwrap();
    assert_eq!(active.beat(2), BrokerState::Unfenced);
    assert_eq!(active.leader(), (Some(2), vec![2], vec![]));
}

#[test]
fn a_broker_that_leads_nothing_or_is_fenced_ends_at_once() {
    let mut active = Active::new();
    active.join(2);
    assert_eq!(active.shut_down(2), BrokerState::ShutdownNow);
    active.register(3, 3).unwrap();
    assert_eq!(active.shut_down(3), BrokerState::ShutdownNow);
    active.join(4);
    active.create_on(&[4]);
    let both = BrokerHeartbeatRequest { want_fence: true, want_shut_down: true, ..active.heartbeat(4) };
    assert_eq!(active.send(&both), Ok(BrokerState::ShutdownNow));
}

#[test]
fn a_controlled_shutdown_goes_on_under_another_controller_and_ends_with_the_session() {
    let mut active = Active::new();
    active.join(2);
    active.create_on(&[2, 1]);
    assert_eq!(active.shut_down(2), BrokerState::ControlledShutdown);
    active.fail_over();
    assert_eq!(active.shut_down(2), BrokerState::ShutdownNow, "it leads nothing any more");
    let mut active = Active::new();
    active.join(2);
    active.create_on(&[2, 1]);
    assert_eq!(active.shut_down(2), BrokerState::ControlledShutdown);
    active.pass_ms(9_001);
    assert_eq!(active.fence_expired(), [1, 2]);
    assert_eq!(active.shut_down(2), BrokerState::ShutdownNow);
}

#[test]
fn a_directory_that_fails_takes_its_replicas_out_of_the_isr() {
    let mut active = Active::new();
    let mut request = registration(2, 2);
    request.log_dirs.push(Uuid::from_bytes([0x22; 16]));
    active.register_with(&request, 4).unwrap();
    assert_eq!(active.beat(2), BrokerState::Unfenced);
    active.create_on(&[2, 1]);
    let failed = active.cluster.partition("t", 0).directory(NodeId(2)).unwrap();
    let other = request.log_dirs.iter().copied().find(|dir| *dir != failed).unwrap();
    let unknown = BrokerHeartbeatRequest { offline_log_dirs: vec![DIR_A], ..active.heartbeat(2) };
    assert_eq!(active.send(&unknown), Ok(BrokerState::Unfenced));
    assert_eq!(active.leader().0, Some(2), "the directory is not one of this broker's");
    let told = BrokerHeartbeatRequest { offline_log_dirs: vec![failed], ..active.heartbeat(2) };
    assert_eq!(active.send(&told), Ok(BrokerState::Unfenced));
    assert_eq!(active.leader(), (Some(1), vec![1], vec![]));
    assert_eq!(active.cluster.image.broker(NodeId(2)).unwrap().log_dirs, [other]);
    let records = active.cluster.offset;
    assert_eq!(
        active.send(&BrokerHeartbeatRequest { offline_log_dirs: vec![failed], ..active.heartbeat(2) }),
        Ok(BrokerState::Unfenced)
    );
    assert_eq!(active.cluster.offset, records, "this is known already");
}

#[test]
fn a_broker_that_comes_up_does_not_lead_what_lies_in_a_directory_that_has_just_failed() {
    let mut active = Active::new();
    let mut request = registration(2, 2);
    request.log_dirs.push(Uuid::from_bytes([0x22; 16]));
    active.register_with(&request, 4).unwrap();
    active.beat(2);
    active.create_on(&[2]);
    active.pass_ms(9_001);
    active.fence_expired();
    assert_eq!(active.leader().0, None);
    let failed = active.cluster.partition("t", 0).directory(NodeId(2)).unwrap();
    let told = BrokerHeartbeatRequest { offline_log_dirs: vec![failed], ..active.heartbeat(2) };
    assert_eq!(active.send(&told), Ok(BrokerState::Unfenced));
    assert_eq!(active.leader().0, None);
}

#[test]
fn directories_are_cordoned_once_they_are_told() {
    let mut active = Active::new();
    active.join(2);
    let cordoned = |active: &Active| active.cluster.image.broker(NodeId(2)).unwrap().cordoned_log_dirs.clone();
    assert_eq!(cordoned(&active), None);
    for dirs in [vec![], vec![dir(2)], vec![]] {
        let told = BrokerHeartbeatRequest { cordoned_log_dirs: Some(dirs.clone()), ..active.heartbeat(2) };
        active.send(&told).unwrap();
        assert_eq!(cordoned(&active), Some(dirs));
        let records = active.cluster.offset;
        active.send(&told).unwrap();
        assert_eq!(active.cluster.offset, records);
    }
}

#[test]
fn an_unregistered_broker_leads_nothing_and_is_not_heard_any_more() {
    let mut active = Active::new();
    active.join(2);
    active.create_on(&[2, 1]);
    let heartbeat = active.heartbeat(2);
    active.cluster.decide(|image, context, _| unregister_broker(image, context, NodeId(2))).unwrap();
    active.tell_heartbeats(heartbeat.current_metadata_offset + 1);
    assert!(active.cluster.image.broker(NodeId(2)).is_none());
    assert_eq!(active.leader(), (Some(1), vec![1], vec![]));
    assert_eq!(active.send(&heartbeat), Err(ErrorCode::StaleBrokerEpoch));
    let again = active.cluster.decide(|image, context, _| unregister_broker(image, context, NodeId(2))).unwrap_err();
    assert_eq!(
        (again.error, again.message.as_deref()),
        (ErrorCode::BrokerIdNotRegistered, Some("Broker ID 2 is not currently registered"))
    );
    active.register(2, 2).unwrap();
}

#[test]
fn a_controller_is_registered_with_what_it_says() {
    let mut active = Active::new();
    let request = broker_start(NodeId(5), &[]).controller_registration();
    active.cluster.decide(|image, _, _| register_controller(image, &request)).unwrap();
    let controller = active.cluster.image.controller(NodeId(5)).unwrap();
    assert_eq!((controller.end_points[0].port, controller.incarnation_id), (9093, request.incarnation_id));
    assert_eq!(controller.features.len(), request.features.len());
}

/// A start of a node, each of whose facts differs from its default.
fn start() -> BrokerStart {
    let listener = |name: &str, port| Listener {
        name: name.into(),
        protocol: SecurityProtocol::Ssl,
        host: format!("{name}.example"),
        port,
    };
    BrokerStart {
        node_id: NodeId(5),
        incarnation_id: incarnation(9),
        rack: Some("r".into()),
        listeners: vec![listener("INSIDE", 9092)],
        controller_listeners: vec![listener("CONTROLLER", 9093)],
        log_dirs: vec![dir(5)],
        previous_broker_epoch: Some(77),
    }
}

#[test]
fn the_log_names_all_that_a_broker_says_of_itself() {
    let mut active = Active::new();
    let request = start().broker_registration(CLUSTER);
    assert_eq!(request.previous_broker_epoch, 77);
    assert_eq!(
        BrokerStart { previous_broker_epoch: None, ..start() }.broker_registration(CLUSTER).previous_broker_epoch,
        -1
    );
    let broker_epoch = active.register_with(&request, 4).unwrap();
    let features = records::levels_accepted().map(|(name, min, max)| BrokerFeature {
        name: name.into(),
        min_supported_version: min,
        max_supported_version: max,
        ..Default::default()
    });
    let expected = RegisterBrokerRecord {
        broker_id: 5,
        incarnation_id: incarnation(9),
        broker_epoch,
        end_points: vec![BrokerEndpoint {
            name: "INSIDE".into(),
            host: "INSIDE.example".into(),
            port: 9092,
            security_protocol: 1,
            ..Default::default()
        }],
        features: features.collect(),
        rack: Some("r".into()),
        fenced: true,
        log_dirs: vec![dir(5)],
        ..Default::default()
    };
    assert_eq!(*active.cluster.image.broker(NodeId(5)).unwrap(), expected);
}

#[test]
fn the_log_names_all_that_a_controller_says_of_itself() {
    let mut active = Active::new();
    let request = start().controller_registration();
    active.cluster.decide(|image, _, _| register_controller(image, &request)).unwrap();
    let features = records::levels_accepted().map(|(name, min, max)| ControllerFeature {
        name: name.into(),
        min_supported_version: min,
        max_supported_version: max,
        ..Default::default()
    });
    let expected = RegisterControllerRecord {
        controller_id: 5,
        incarnation_id: incarnation(9),
        end_points: vec![ControllerEndpoint {
            name: "CONTROLLER".into(),
            host: "CONTROLLER.example".into(),
            port: 9093,
            security_protocol: 1,
            ..Default::default()
        }],
        features: features.collect(),
        ..Default::default()
    };
    assert_eq!(*active.cluster.image.controller(NodeId(5)).unwrap(), expected);
}

#[test]
fn a_broker_that_shuts_down_may_register_again_and_still_shuts_down() {
    let mut active = Active::new();
    active.join(2);
    active.create_on(&[2, 1]);
    assert_eq!(active.shut_down(2), BrokerState::ControlledShutdown);
    active.register(2, 2).unwrap();
    let broker = active.cluster.image.broker(NodeId(2)).unwrap();
    assert!(broker.in_controlled_shutdown && !broker.fenced);
}

#[test]
fn a_session_that_ends_changes_nothing_for_a_broker_that_is_fenced_or_gone() {
    let mut active = Active::new();
    active.register(2, 2).unwrap();
    let context = Context { node_id: NodeId(1), layers: active.cluster.image.layers(&active.cluster.broker) };
    let fence = |id| fence_silent_broker(&active.cluster.image, &context, NodeId(id)).len();
    assert_eq!((fence(1), fence(2), fence(3)), (1, 0, 0));
}

#[test]
fn the_log_names_the_broker_that_got_a_block_of_producer_ids() {
    let mut active = Active::new();
    active.join(2);
    let broker_epoch = active.epoch(2);
    active.cluster.decide(|image, _, _| allocate_producer_ids(image, NodeId(2), broker_epoch)).unwrap();
    let expected = ProducerIdsRecord { broker_id: 2, broker_epoch, next_producer_id: 1_000, ..Default::default() };
    assert_eq!(active.cluster.committed.last().unwrap().0, expected.into());
}

#[test]
fn any_broker_gets_producer_ids_of_its_own() {
    let mut active = Active::new();
    active.join(2);
    let mut block = |id| {
        let epoch = active.epoch(id);
        active.cluster.decide(|image, _, _| allocate_producer_ids(image, NodeId(id), epoch)).unwrap().first.0
    };
    assert_eq!([block(2), block(1), block(2)], [0, 1000, 2000]);
    let unknown = active.cluster.decide(|image, _, _| allocate_producer_ids(image, NodeId(8), 1)).unwrap_err();
    assert_eq!(unknown.error, ErrorCode::StaleBrokerEpoch);
}
