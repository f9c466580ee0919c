//! Requests of librdkafka's admin API that the crate `rdkafka` has no safe functions for, or that lose errors there.

use rdkafka::TopicPartitionList;
use rdkafka::admin::AdminClient;
use rdkafka::bindings::*;
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaErrorCode;
use std::ffi::{CStr, CString, c_char};
use std::ptr::{null, null_mut};
use std::time::Duration;

pub type Admin = AdminClient<DefaultClientContext>;

/// Why there is no answer: the broker's error, or one of librdkafka itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    pub code: RDKafkaErrorCode,
    pub text: String,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Cluster {
    pub id: String,
    pub controller: i32,
    /// The id of each broker with its address.
    pub brokers: Vec<(i32, String)>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Partition {
    pub index: i32,
    pub leader: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
}

pub fn describe_cluster(admin: &Admin) -> Result<Cluster, Refused> {
    use rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECLUSTER as OPERATION;
    let send = |client, options, queue| unsafe { rd_kafka_DescribeCluster(client, options, queue) };
    ask(admin, OPERATION, TIMEOUT, send, |event| unsafe {
        let result = rd_kafka_event_DescribeCluster_result(event);
        let node = |node: &*const rd_kafka_Node_t| {
            let address = format!("{}:{}", text(rd_kafka_Node_host(*node)), rd_kafka_Node_port(*node));
            (rd_kafka_Node_id(*node), address)
        };
        Cluster {
            id: text(rd_kafka_DescribeCluster_result_cluster_id(result)),
            controller: rd_kafka_Node_id(rd_kafka_DescribeCluster_result_controller(result)),
            brokers: items(|count| rd_kafka_DescribeCluster_result_nodes(result, count)).iter().map(node).collect(),
        }
    })
}

/// For each named topic its partitions, or the error.
pub fn describe_topics(admin: &Admin, names: &[&str]) -> Result<Vec<Result<Vec<Partition>, Refused>>, Refused> {
    use rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS as OPERATION;
    let names: Vec<CString> = names.iter().map(|name| c_string(name)).collect();
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let topics = unsafe { rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()) };
    let send = |client, options, queue| unsafe { rd_kafka_DescribeTopics(client, topics, options, queue) };
    let answer = ask(admin, OPERATION, TIMEOUT, send, |event| unsafe {
        let result = rd_kafka_event_DescribeTopics_result(event);
        let ids = |nodes: &[*const rd_kafka_Node_t]| nodes.iter().map(|node| rd_kafka_Node_id(*node)).collect();
        let partition = |partition: &*const rd_kafka_TopicPartitionInfo_t| Partition {
            index: rd_kafka_TopicPartitionInfo_partition(*partition),
            leader: rd_kafka_Node_id(rd_kafka_TopicPartitionInfo_leader(*partition)),
            replicas: ids(items(|count| rd_kafka_TopicPartitionInfo_replicas(*partition, count))),
            isr: ids(items(|count| rd_kafka_TopicPartitionInfo_isr(*partition, count))),
        };
        let topic = |topic: &*const rd_kafka_TopicDescription_t| {
            refused(rd_kafka_TopicDescription_error(*topic))?;
            Ok(items(|count| rd_kafka_TopicDescription_partitions(*topic, count)).iter().map(partition).collect())
        };
        items(|count| rd_kafka_DescribeTopics_result_topics(result, count)).iter().map(topic).collect()
    });
    unsafe { rd_kafka_TopicCollection_destroy(topics) };
    answer
}

/// The named configs of a topic, in the order of the answer. The crate's `describe_configs` has no names, and takes a
/// resource that is refused for one without configs.
pub fn describe_named_configs(admin: &Admin, topic: &str, names: &[&str]) -> Result<Vec<(String, String)>, Refused> {
    use rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS as OPERATION;
    // librdkafka wants values here too and ignores them.
    let names: Vec<(&str, &str)> = names.iter().map(|name| (*name, "")).collect();
    let mut resource = topic_resource(topic, &names);
    let send = |client, options, queue| unsafe { rd_kafka_DescribeConfigs(client, &mut resource, 1, options, queue) };
    let answer = ask(admin, OPERATION, TIMEOUT, send, |event| unsafe {
        let result = rd_kafka_event_DescribeConfigs_result(event);
        let resources = items(|count| rd_kafka_DescribeConfigs_result_resources(result, count));
        let [resource] = resources else { panic!("{} resources", resources.len()) };
        of_resource(*resource)?;
        let entries = items(|count| rd_kafka_ConfigResource_configs(*resource, count)).iter();
        let told = |entry: &*const rd_kafka_ConfigEntry_t| {
            (text(rd_kafka_ConfigEntry_name(*entry)), text(rd_kafka_ConfigEntry_value(*entry)))
        };
        Ok(entries.map(told).collect())
    });
    unsafe { rd_kafka_ConfigResource_destroy(resource) };
    answer.flatten()
}

/// AlterConfigs for one topic: the named configs replace all that it has. The crate's `alter_configs` takes a refused
/// change for a good one.
pub fn replace_configs(admin: &Admin, topic: &str, configs: &[(&str, &str)]) -> Result<(), Refused> {
    use rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_ALTERCONFIGS as OPERATION;
    let mut resource = topic_resource(topic, configs);
    let send = |client, options, queue| unsafe { rd_kafka_AlterConfigs(client, &mut resource, 1, options, queue) };
    let answer = ask(admin, OPERATION, TIMEOUT, send, |event| unsafe {
        let result = rd_kafka_event_AlterConfigs_result(event);
        let resources = items(|count| rd_kafka_AlterConfigs_result_resources(result, count));
        let [resource] = resources else { panic!("{} resources", resources.len()) };
        of_resource(*resource)
    });
    unsafe { rd_kafka_ConfigResource_destroy(resource) };
    answer.flatten()
}

/// IncrementalAlterConfigs for one topic (KIP-339). A change without a value deletes the config.
pub fn change_configs(admin: &Admin, topic: &str, changes: &[(&str, Option<&str>)]) -> Result<(), Refused> {
    use rd_kafka_AlterConfigOpType_t::{RD_KAFKA_ALTER_CONFIG_OP_TYPE_DELETE, RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET};
    use rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS as OPERATION;
    let mut resource = topic_resource(topic, &[]);
    for (name, value) in changes {
        let change = match value {
            Some(_) => RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET,
            None => RD_KAFKA_ALTER_CONFIG_OP_TYPE_DELETE,
        };
        let (name, value) = (c_string(name), value.map(c_string));
        let value = value.as_ref().map_or(null(), |value| value.as_ptr());
        let error = unsafe { rd_kafka_ConfigResource_add_incremental_config(resource, name.as_ptr(), change, value) };
        unsafe { refused(error) }.expect("a change that librdkafka takes");
    }
    let send =
        |client, options, queue| unsafe { rd_kafka_IncrementalAlterConfigs(client, &mut resource, 1, options, queue) };
    let answer = ask(admin, OPERATION, TIMEOUT, send, |event| unsafe {
        let result = rd_kafka_event_IncrementalAlterConfigs_result(event);
        let resources = items(|count| rd_kafka_IncrementalAlterConfigs_result_resources(result, count));
        let [resource] = resources else { panic!("{} resources", resources.len()) };
        of_resource(*resource)
    });
    unsafe { rd_kafka_ConfigResource_destroy(resource) };
    answer.flatten()
}

/// ListOffsets for one partition: the offset and the timestamp there. `spec` is a timestamp, or below 0 one of
/// `rd_kafka_OffsetSpec_t`.
pub fn list_offset(admin: &Admin, topic: &str, partition: i32, spec: i64) -> Result<(i64, i64), Refused> {
    use rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS as OPERATION;
    let mut asked = TopicPartitionList::new();
    asked.add_partition(topic, partition);
    let asked = asked.ptr();
    let send = |client, options, queue| unsafe {
        (*(*asked).elems).offset = spec;
        rd_kafka_ListOffsets(client, asked, options, queue);
    };
    let answer = ask(admin, OPERATION, TIMEOUT, send, |event| unsafe {
        let result = rd_kafka_event_ListOffsets_result(event);
        let infos = items(|count| rd_kafka_ListOffsets_result_infos(result, count));
        let [info] = infos else { panic!("{} partitions", infos.len()) };
        let found = *rd_kafka_ListOffsetsResultInfo_topic_partition(*info);
        of_code(found.err, null())?;
        Ok((found.offset, rd_kafka_ListOffsetsResultInfo_timestamp(*info)))
    });
    answer.flatten()
}

/// Asks for the preferred leader of one partition.
pub fn elect_leader(admin: &Admin, topic: &str, partition: i32) -> Result<(), Refused> {
    use rd_kafka_ElectionType_t::RD_KAFKA_ELECTION_TYPE_PREFERRED as PREFERRED;
    use rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_ELECTLEADERS as OPERATION;
    let mut asked = TopicPartitionList::new();
    asked.add_partition(topic, partition);
    let election = unsafe { rd_kafka_ElectLeaders_new(PREFERRED, asked.ptr()) };
    let send = |client, options, queue| unsafe { rd_kafka_ElectLeaders(client, election, options, queue) };
    let answer = ask(admin, OPERATION, TIMEOUT, send, |event| unsafe {
        let result = rd_kafka_event_ElectLeaders_result(event);
        let partitions = items(|count| rd_kafka_ElectLeaders_result_partitions(result, count));
        let [partition] = partitions else { panic!("{} partitions", partitions.len()) };
        refused(rd_kafka_topic_partition_result_error(*partition))
    });
    unsafe { rd_kafka_ElectLeaders_destroy(election) };
    answer.flatten()
}

/// The number of ACLs.
pub fn describe_acls(admin: &Admin) -> Result<usize, Refused> {
    use rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBEACLS as OPERATION;
    let filter = all_acls();
    let send = |client, options, queue| unsafe { rd_kafka_DescribeAcls(client, filter, options, queue) };
    let answer = ask(admin, OPERATION, TIMEOUT, send, |event| unsafe {
        let result = rd_kafka_event_DescribeAcls_result(event);
        items(|count| rd_kafka_DescribeAcls_result_acls(result, count)).len()
    });
    unsafe { rd_kafka_AclBinding_destroy(filter) };
    answer
}

/// Lets one user read one topic.
pub fn create_acl(admin: &Admin) -> Result<(), Refused> {
    use rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ as READ;
    use rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW as ALLOW;
    use rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_LITERAL as LITERAL;
    use rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC as TOPIC;
    use rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATEACLS as OPERATION;
    let (name, user, host) = (c"t".as_ptr(), c"User:a".as_ptr(), c"*".as_ptr());
    let mut acl = unsafe { rd_kafka_AclBinding_new(TOPIC, name, LITERAL, user, host, READ, ALLOW, null_mut(), 0) };
    let send = |client, options, queue| unsafe { rd_kafka_CreateAcls(client, &mut acl, 1, options, queue) };
    let answer = ask(admin, OPERATION, TIMEOUT, send, |event| unsafe {
        let result = rd_kafka_event_CreateAcls_result(event);
        let acls = items(|count| rd_kafka_CreateAcls_result_acls(result, count));
        let [acl] = acls else { panic!("{} ACLs", acls.len()) };
        refused(rd_kafka_acl_result_error(*acl))
    });
    unsafe { rd_kafka_AclBinding_destroy(acl) };
    answer.flatten()
}

/// Deletes all ACLs.
pub fn delete_acls(admin: &Admin) -> Result<(), Refused> {
    use rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DELETEACLS as OPERATION;
    let mut filter = all_acls();
    let send = |client, options, queue| unsafe { rd_kafka_DeleteAcls(client, &mut filter, 1, options, queue) };
    let answer = ask(admin, OPERATION, TIMEOUT, send, |event| unsafe {
        let result = rd_kafka_event_DeleteAcls_result(event);
        let responses = items(|count| rd_kafka_DeleteAcls_result_responses(result, count));
        let [response] = responses else { panic!("{} responses", responses.len()) };
        refused(rd_kafka_DeleteAcls_result_response_error(*response))
    });
    unsafe { rd_kafka_AclBinding_destroy(filter) };
    answer.flatten()
}

/// The number of consumer groups, and why they are not all there.
pub fn list_groups(admin: &Admin) -> Result<(usize, Vec<Refused>), Refused> {
    use rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS as OPERATION;
    let send = |client, options, queue| unsafe { rd_kafka_ListConsumerGroups(client, options, queue) };
    ask(admin, OPERATION, TIMEOUT, send, |event| unsafe {
        let result = rd_kafka_event_ListConsumerGroups_result(event);
        let errors = items(|count| rd_kafka_ListConsumerGroups_result_errors(result, count)).iter();
        let groups = items(|count| rd_kafka_ListConsumerGroups_result_valid(result, count)).len();
        (groups, errors.filter_map(|error| refused(*error).err()).collect())
    })
}

/// Describes one consumer group, and gives up after `timeout`.
pub fn describe_group(admin: &Admin, group: &str, timeout: Duration) -> Result<(), Refused> {
    use rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS as OPERATION;
    let group = c_string(group);
    let mut group = group.as_ptr();
    let send =
        |client, options, queue| unsafe { rd_kafka_DescribeConsumerGroups(client, &mut group, 1, options, queue) };
    let answer = ask(admin, OPERATION, timeout, send, |event| unsafe {
        let result = rd_kafka_event_DescribeConsumerGroups_result(event);
        let groups = items(|count| rd_kafka_DescribeConsumerGroups_result_groups(result, count));
        let [group] = groups else { panic!("{} groups", groups.len()) };
        refused(rd_kafka_ConsumerGroupDescription_error(*group))
    });
    answer.flatten()
}

const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends one request and waits for its answer, which `read` takes out of the event. Errors of the whole request come
/// in the event itself.
fn ask<T>(
    admin: &Admin,
    operation: rd_kafka_admin_op_t,
    timeout: Duration,
    send: impl FnOnce(*mut rd_kafka_t, *const rd_kafka_AdminOptions_t, *mut rd_kafka_queue_t),
    read: impl FnOnce(*mut rd_kafka_event_t) -> T,
) -> Result<T, Refused> {
    let client = admin.inner().native_ptr();
    let timeout_ms = i32::try_from(timeout.as_millis()).expect("a short time");
    unsafe {
        let options = rd_kafka_AdminOptions_new(client, operation);
        let set = rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, null_mut(), 0);
        assert_eq!(RDKafkaErrorCode::from(set), RDKafkaErrorCode::NoError);
        let queue = rd_kafka_queue_new(client);
        send(client, options, queue);
        let event = rd_kafka_queue_poll(queue, 2 * timeout_ms);
        assert!(!event.is_null(), "librdkafka does not give up after {timeout:?}");
        let answer = of_code(rd_kafka_event_error(event), rd_kafka_event_error_string(event)).map(|()| read(event));
        rd_kafka_event_destroy(event);
        rd_kafka_queue_destroy(queue);
        rd_kafka_AdminOptions_destroy(options);
        answer
    }
}

fn topic_resource(topic: &str, configs: &[(&str, &str)]) -> *mut rd_kafka_ConfigResource_t {
    let topic = c_string(topic);
    let kind = rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
    let resource = unsafe { rd_kafka_ConfigResource_new(kind, topic.as_ptr()) };
    for (name, value) in configs {
        let (name, value) = (c_string(name), c_string(value));
        let set = unsafe { rd_kafka_ConfigResource_set_config(resource, name.as_ptr(), value.as_ptr()) };
        assert_eq!(RDKafkaErrorCode::from(set), RDKafkaErrorCode::NoError);
    }
    resource
}

/// A filter that every ACL matches.
fn all_acls() -> *mut rd_kafka_AclBindingFilter_t {
    use rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_ANY as OPERATION;
    use rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ANY as PERMISSION;
    use rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_ANY as PATTERN;
    use rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_ANY as RESOURCE;
    unsafe {
        rd_kafka_AclBindingFilter_new(RESOURCE, null(), PATTERN, null(), null(), OPERATION, PERMISSION, null_mut(), 0)
    }
}

/// The items of a result, which librdkafka gives as a pointer and a count. They live as long as the event does.
unsafe fn items<'a, T>(get: impl FnOnce(*mut usize) -> *mut *const T) -> &'a [*const T] {
    let mut count = 0;
    let first = get(&mut count);
    if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(first, count) } }
}

unsafe fn refused(error: *const rd_kafka_error_t) -> Result<(), Refused> {
    if error.is_null() {
        return Ok(());
    }
    unsafe { of_code(rd_kafka_error_code(error), rd_kafka_error_string(error)) }
}

unsafe fn of_resource(resource: *const rd_kafka_ConfigResource_t) -> Result<(), Refused> {
    unsafe { of_code(rd_kafka_ConfigResource_error(resource), rd_kafka_ConfigResource_error_string(resource)) }
}

unsafe fn of_code(code: rd_kafka_resp_err_t, why: *const c_char) -> Result<(), Refused> {
    match RDKafkaErrorCode::from(code) {
        RDKafkaErrorCode::NoError => Ok(()),
        code => Err(Refused { code, text: unsafe { text(why) } }),
    }
}

/// A string of librdkafka; none is the empty one.
unsafe fn text(string: *const c_char) -> String {
    if string.is_null() { String::new() } else { unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned() }
}

fn c_string(text: &str) -> CString {
    CString::new(text).expect("a text without zero bytes")
}
