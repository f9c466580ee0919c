"""kafka-python, which shares no code with other clients: 100,000 records with each codec, read back and compared.

BROKER=host:port
"""

import os
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

BROKER = os.environ["BROKER"]
COUNT = int(os.environ.get("RECORDS", "100000"))
# The timestamp of the first record. Retention would delete records of long ago while this runs.
FIRST_MS = int(time.time() * 1000)


def key(n):
    return b"key-%d" % n


def value(n):
    return b"value %d: the quick brown fox jumps over the lazy dog" % n


def check(admin, codec):
    topic = TopicPartition(f"python-{codec}", 0)
    admin.create_topics([NewTopic(topic.topic, num_partitions=1, replication_factor=1)])

    producer = KafkaProducer(
        bootstrap_servers=BROKER,
        compression_type=None if codec == "none" else codec,
        acks="all",
        linger_ms=5,
    )
    sent = [producer.send(topic.topic, key=key(n), value=value(n), partition=0, timestamp_ms=FIRST_MS + n) for n in range(COUNT)]
    producer.flush(timeout=120)
    for n, future in enumerate(sent):
        offset = future.get(timeout=60).offset
        assert offset == n, f"record {n} was acknowledged at {offset}"
    producer.close()

    consumer = KafkaConsumer(bootstrap_servers=BROKER, enable_auto_commit=False, consumer_timeout_ms=60_000)
    consumer.assign([topic])
    assert consumer.beginning_offsets([topic]) == {topic: 0}
    assert consumer.end_offsets([topic]) == {topic: COUNT}
    found = consumer.offsets_for_times({topic: FIRST_MS + COUNT // 2})[topic]
    assert found.offset == COUNT // 2, f"the offset for a timestamp in the middle: {found}"
    consumer.seek_to_beginning(topic)
    for n in range(COUNT):
        record = next(consumer)
        assert (record.offset, record.key, record.value) == (n, key(n), value(n)), f"at {n}: {record}"
        assert record.timestamp == FIRST_MS + n, f"at {n}: {record}"
    consumer.close()
    print(f"kafka-python: {COUNT} records with {codec}: equal", flush=True)


def main():
    admin = KafkaAdminClient(bootstrap_servers=BROKER)
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        check(admin, codec)
    admin.close()


main()
