//! Wrong requests of the kinds that operators' tools send.

use super::attacks::{Attack, Attacks, NO_TOPIC, NONE};
use crate::client::topics::topic_name;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::{
    CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest, DescribeClientQuotasRequest, DescribeQuorumRequest,
    DescribeUserScramCredentialsRequest, ElectLeadersRequest, ListConfigResourcesRequest,
    ListPartitionReassignmentsRequest, SaslAuthenticateRequest, SaslHandshakeRequest, UpdateFeaturesRequest,
};
use kafka_protocol::protocol::StrBytes;

const UNKNOWN_TOPIC: &[i16] = &[3];
const UNSUPPORTED_VERSION: &[i16] = &[35];
const ILLEGAL_SASL_STATE: &[i16] = &[34];
const INVALID_REQUEST: &[i16] = &[42];
/// PREFERRED_LEADER_NOT_AVAILABLE, ELECTION_NOT_NEEDED: which of the two depends on whether the partition's disk has
/// failed.
const NOT_ELECTED: &[i16] = &[80, 84];
const SECURITY_DISABLED: &[i16] = &[54];
const RESOURCE_NOT_FOUND: &[i16] = &[91];
const DUPLICATE_RESOURCE: &[i16] = &[92];
const INVALID_UPDATE_VERSION: &[i16] = &[95];

impl Attacks<'_> {
    pub(super) fn operate(&mut self) -> Attack {
        let (topic, index) = self.partition();
        match self.stream.below(14) {
            0 => {
                let partition = PartitionData::default().with_partition_index(index);
                let topic = TopicData::default().with_topic_name(topic_name(&topic)).with_partitions(vec![partition]);
                let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
                let version = self.stream.below(3) as i16;
                self.request("describe quorum: of no quorum", version, &request, UNKNOWN_TOPIC)
            }
            1 => self.elect("elect leaders: no such topic", NO_TOPIC, 0, 0, UNKNOWN_TOPIC),
            2 => self.elect("elect leaders: no such partition", &topic, 9_999, 0, UNKNOWN_TOPIC),
            3 => self.elect("elect leaders: a kind that is none", &topic, index, 7, INVALID_REQUEST),
            4 => {
                // Another replica may lead a partition of several, and then the preferred one is elected.
                let has_one = self.setting.topics.iter().all(|plan| plan.replicas == 1);
                let told = if has_one { NOT_ELECTED } else { &[0, 80, 84] };
                self.elect("elect leaders: who leads already", &topic, index, 0, told)
            }
            5 => self.update_feature("update features: no such feature", "shoes.version", 1, 1),
            6 => self.update_feature("update features: a level to come", "metadata.version", 10_000, 1),
            7 => self.update_feature("update features: down as up", "metadata.version", 1, 1),
            8 => {
                let kind = if self.stream.one_in(2) { "shoe" } else { "user" };
                let component = ComponentData::default()
                    .with_entity_type(StrBytes::from_static_str(kind))
                    .with_match_type(9)
                    .with_match(None);
                let request = DescribeClientQuotasRequest::default().with_components(vec![component]);
                let codes = if kind == "shoe" { UNSUPPORTED_VERSION } else { INVALID_REQUEST };
                self.request("client quotas: a filter that is none", 1, &request, codes)
            }
            9 => {
                let user = UserName::default().with_name(StrBytes::from_static_str("nobody"));
                let is_twice = self.stream.one_in(2);
                let users = vec![user; if is_twice { 2 } else { 1 }];
                let codes = if is_twice { DUPLICATE_RESOURCE } else { RESOURCE_NOT_FOUND };
                let request = DescribeUserScramCredentialsRequest::default().with_users(Some(users));
                self.request("credentials: nobody's", 0, &request, codes)
            }
            10 => {
                let request = ListConfigResourcesRequest::default().with_resource_types(vec![99]);
                self.request("list configs: of a kind that is none", 1, &request, UNSUPPORTED_VERSION)
            }
            11 => {
                let handshake =
                    SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("SCRAM-SHA-256"));
                let authenticate = SaslAuthenticateRequest::default();
                match self.stream.one_in(2) {
                    true => self.request("sasl: a handshake without SASL", 1, &handshake, ILLEGAL_SASL_STATE),
                    false => self.request("sasl: credentials without SASL", 2, &authenticate, ILLEGAL_SASL_STATE),
                }
            }
            12 => self.acls(),
            _ => {
                let topic = ListPartitionReassignmentsTopics::default()
                    .with_name(topic_name(NO_TOPIC))
                    .with_partition_indexes(vec![0, -1]);
                let request = ListPartitionReassignmentsRequest::default().with_topics(Some(vec![topic]));
                self.request("reassignments: no such topic", 0, &request, NONE)
            }
        }
    }

    fn acls(&mut self) -> Attack {
        let version = self.stream.between(1, 3) as i16;
        // `ANY` in each enum of a filter, and a topic of the literal name that everyone may read.
        match self.stream.below(3) {
            0 => {
                let request = DescribeAclsRequest::default()
                    .with_resource_type_filter(1)
                    .with_pattern_type_filter(1)
                    .with_operation(1)
                    .with_permission_type(1);
                self.request("acls: told without an authorizer", version, &request, SECURITY_DISABLED)
            }
            1 => {
                let acl = AclCreation::default()
                    .with_resource_type(2)
                    .with_resource_name(StrBytes::from_static_str(NO_TOPIC))
                    .with_resource_pattern_type(3)
                    .with_principal(StrBytes::from_static_str("User:*"))
                    .with_host(StrBytes::from_static_str("*"))
                    .with_operation(3)
                    .with_permission_type(3);
                let request = CreateAclsRequest::default().with_creations(vec![acl]);
                self.request("acls: created without an authorizer", version, &request, SECURITY_DISABLED)
            }
            _ => {
                let filter = DeleteAclsFilter::default()
                    .with_resource_type_filter(1)
                    .with_pattern_type_filter(1)
                    .with_operation(1)
                    .with_permission_type(1);
                let request = DeleteAclsRequest::default().with_filters(vec![filter]);
                self.request("acls: deleted without an authorizer", version, &request, SECURITY_DISABLED)
            }
        }
    }

    fn elect(
        &mut self,
        name: &'static str,
        topic: &str,
        index: i32,
        election_type: i8,
        codes: &'static [i16],
    ) -> Attack {
        let topic = TopicPartitions::default().with_topic(topic_name(topic)).with_partitions(vec![index]);
        let request = ElectLeadersRequest::default()
            .with_election_type(election_type)
            .with_topic_partitions(Some(vec![topic]))
            .with_timeout_ms(1_000);
        // Version 0 has one kind of election.
        let version = if election_type == 0 { self.stream.below(3) } else { self.stream.between(1, 2) } as i16;
        self.request(name, version, &request, codes)
    }

    fn update_feature(&mut self, name: &'static str, feature: &'static str, level: i16, upgrade_type: i8) -> Attack {
        let update = FeatureUpdateKey::default()
            .with_feature(StrBytes::from_static_str(feature))
            .with_max_version_level(level)
            .with_upgrade_type(upgrade_type);
        let request = UpdateFeaturesRequest::default().with_feature_updates(vec![update]).with_timeout_ms(1_000);
        let version = self.stream.between(1, 2) as i16;
        self.request(name, version, &request, INVALID_UPDATE_VERSION)
    }
}
