"""kafka-python's admin client: each request's results are compared, not only that there is no exception.

BROKER=host:port
"""

import os
import time

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ConfigResource,
    ConfigResourceType,
    NewTopic,
    OffsetSpec,
    OffsetTimestamp,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)
from kafka.errors import (
    CoordinatorNotAvailableError,
    IncompatibleBrokerVersion,
    InvalidConfigurationError,
    InvalidPartitionsError,
    InvalidReplicationFactorError,
    InvalidTopicError,
    OffsetOutOfRangeError,
    SecurityDisabledError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)

BROKER = os.environ["BROKER"]
TOPIC = "python-admin"
FIRST = TopicPartition(TOPIC, 0)
# The first record's timestamp: older records would be deleted by retention during the check.
BEGIN_MS = int(time.time() * 1000)


def refused(error, call):
    try:
        result = call()
    except error:
        return
    raise AssertionError(f"should be refused with {error.__name__}: {result}")


def topics(admin):
    admin.create_topics([NewTopic(TOPIC, num_partitions=2, replication_factor=1, topic_configs={"retention.ms": "3600000"})])
    refused(TopicAlreadyExistsError, lambda: admin.create_topics([NewTopic(TOPIC, num_partitions=2, replication_factor=1)]))
    for error, wrong in [
        (InvalidReplicationFactorError, NewTopic("python-wrong", num_partitions=1, replication_factor=2)),
        (InvalidPartitionsError, NewTopic("python-wrong", num_partitions=0, replication_factor=1)),
        (InvalidTopicError, NewTopic("no such/name", num_partitions=1, replication_factor=1)),
        (InvalidConfigurationError, NewTopic("python-wrong", 1, 1, topic_configs={"retention.ms": "long"})),
    ]:
        refused(error, lambda: admin.create_topics([wrong]))
    admin.create_topics([NewTopic("python-validated", num_partitions=1, replication_factor=1)], validate_only=True)
    assert not {"python-wrong", "python-validated"} & set(admin.list_topics())
    admin.create_partitions({TOPIC: 3})
    refused(InvalidPartitionsError, lambda: admin.create_partitions({TOPIC: 2}))
    refused(UnknownTopicOrPartitionError, lambda: admin.create_partitions({"python-unknown": 3}))
    [by_metadata] = admin.describe_topics([TOPIC])
    [by_description] = admin.describe_topic_partitions([TOPIC])["topics"]
    for described in (by_metadata, by_description):
        found = [(p["partition_index"], p["leader_id"], p["replica_nodes"], p["isr_nodes"]) for p in described["partitions"]]
        assert found == [(n, 1, [1], [1]) for n in range(3)], found
    assert TOPIC in admin.list_topics()


def configs(admin):
    def resource(configs=None):
        return ConfigResource(ConfigResourceType.TOPIC, TOPIC, configs=configs)

    def values(configs=None, config_filter="modified"):
        answer = admin.describe_configs([resource(configs)], config_filter=config_filter)
        return {name: config["value"] for name, config in answer["topic"][TOPIC].items()}

    assert values() == {"retention.ms": "3600000"}
    assert values(["cleanup.policy"], "all") == {"cleanup.policy": "delete"}
    # Without names all are told, and an empty list of names is as good as none.
    every = values(None, "all")
    assert len(every) > 20 and every["retention.ms"] == "3600000" and every["cleanup.policy"] == "delete", every
    assert values([], "all") == every
    admin.alter_configs([resource({"max.message.bytes": "65536"})])
    assert values() == {"retention.ms": "3600000", "max.message.bytes": "65536"}
    wrong = admin.alter_configs([resource({"retention.ms": "long"})])["topic"][TOPIC]
    assert "Invalid value long for configuration retention.ms: Not a number of type LONG" in wrong, wrong
    # AlterConfigs, which replaces all configs. The client sends again those that it is not asked to change.
    admin.alter_configs([resource({"retention.ms": "7200000"})], incremental=False)
    assert values() == {"retention.ms": "7200000", "max.message.bytes": "65536"}
    admin.reset_configs([resource({"max.message.bytes": None})])
    assert values() == {"retention.ms": "7200000"}
    assert TOPIC in admin.list_config_resources(["TOPIC"])["topic"]
    broker = admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "1")], config_filter="all")["broker"]["1"]
    assert broker["node.id"]["value"] == "1" and broker["node.id"]["read_only"], broker["node.id"]
    assert broker["message.max.bytes"]["value"] == "1048588", broker["message.max.bytes"]


def offsets(admin):
    producer = KafkaProducer(bootstrap_servers=BROKER, acks="all")
    for n in range(100):
        producer.send(TOPIC, value=b"value %d" % n, partition=0, timestamp_ms=BEGIN_MS + n)
    producer.flush(timeout=60)
    producer.close()

    def offset(spec):
        return admin.list_partition_offsets({FIRST: spec})[FIRST].offset

    assert (offset(OffsetSpec.EARLIEST), offset(OffsetSpec.LATEST)) == (0, 100)
    assert offset(OffsetSpec.MAX_TIMESTAMP) == 99
    assert offset(OffsetTimestamp(BEGIN_MS + 50)) == 50
    assert offset(OffsetTimestamp(BEGIN_MS + 100)) == -1
    assert admin.delete_records({FIRST: 40})[FIRST]["low_watermark"] == 40
    refused(OffsetOutOfRangeError, lambda: admin.delete_records({FIRST: 101}))
    assert (offset(OffsetSpec.EARLIEST), offset(OffsetSpec.LATEST)) == (40, 100)


def cluster(admin):
    described = admin.describe_cluster()
    assert [(b["broker_id"], f"{b['host']}:{b['port']}") for b in described["brokers"]] == [(1, BROKER)], described
    assert described["controller_id"] == 1 and len(described["cluster_id"]) == 22, described
    [broker] = admin.describe_log_dirs({TOPIC: [0]})
    [directory] = broker["log_dirs"]
    [topic] = directory["topics"]
    [partition] = topic["partitions"]
    assert (topic["name"], partition["partition_index"]) == (TOPIC, 0) and partition["partition_size"] > 0, topic
    # The partition has its preferred leader: ELECTION_NOT_NEEDED.
    [elected] = admin.elect_leaders(0, {TOPIC: [0]}, raise_errors=False).replica_election_results
    assert [p.error_code for p in elected.partition_result] == [84], elected
    assert admin.list_partition_reassignments() == {}
    [quorum] = admin.describe_metadata_quorum()["topics"]
    [metadata] = quorum["partitions"]
    assert (metadata["leader_id"], [v["replica_id"] for v in metadata["current_voters"]]) == (1, [1]), quorum


def security(admin):
    """There is no authorizer, and no user with SCRAM credentials."""
    every = ACLFilter(
        principal=None,
        host=None,
        operation=ACLOperation.ANY,
        permission_type=ACLPermissionType.ANY,
        resource_pattern=ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
    )
    acl = ACL(
        principal="User:a",
        host="*",
        operation=ACLOperation.READ,
        permission_type=ACLPermissionType.ALLOW,
        resource_pattern=ResourcePattern(ResourceType.TOPIC, TOPIC),
    )
    refused(SecurityDisabledError, lambda: admin.describe_acls(every))
    assert admin.create_acls([acl]) == {"succeeded": [], "failed": [SecurityDisabledError]}
    assert admin.delete_acls([every]) == [(every, [], SecurityDisabledError)]
    assert admin.describe_user_scram_credentials() == {}


def groups(admin):
    """There are no groups yet. Who asks for them gets an error, and soon."""
    begin = time.monotonic()
    refused(IncompatibleBrokerVersion, lambda: admin.list_groups())
    refused(CoordinatorNotAvailableError, lambda: admin.describe_groups(["group"]))
    refused(CoordinatorNotAvailableError, lambda: admin.list_group_offsets("group"))
    refused(CoordinatorNotAvailableError, lambda: admin.delete_groups(["group"]))
    took = time.monotonic() - begin
    assert took < 5, f"{took} s"


def main():
    admin = KafkaAdminClient(bootstrap_servers=BROKER)
    topics(admin)
    configs(admin)
    offsets(admin)
    cluster(admin)
    security(admin)
    groups(admin)
    admin.delete_topics([TOPIC])
    refused(UnknownTopicOrPartitionError, lambda: admin.delete_topics([TOPIC]))
    assert TOPIC not in admin.list_topics()
    admin.close()
    print("kafka-python: admin requests for topics, configs, offsets, the cluster, ACLs, groups")


main()
