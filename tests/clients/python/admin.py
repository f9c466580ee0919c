"""kafka-python's admin client: each request's results are compared, not only that there is no exception.

BROKER=host:port
"""

import os
import time

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic, OffsetSpec, OffsetTimestamp
from kafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError

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
    admin.create_partitions({TOPIC: 3})
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


def main():
    admin = KafkaAdminClient(bootstrap_servers=BROKER)
    topics(admin)
    configs(admin)
    offsets(admin)
    cluster(admin)
    admin.delete_topics([TOPIC])
    refused(UnknownTopicOrPartitionError, lambda: admin.delete_topics([TOPIC]))
    assert TOPIC not in admin.list_topics()
    admin.close()
    print("kafka-python: admin requests for topics, configs, offsets, the cluster")


main()
