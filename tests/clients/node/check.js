// kafkajs, which shares no code with other clients: what its admin client asks for, and a few records.
// BROKER=host:port, NODE_PATH=directory of node_modules

const assert = require('node:assert/strict')
const { ConfigResourceTypes, Kafka, logLevel } = require('kafkajs')

const [host, port] = process.env.BROKER.split(':')
const topic = 'node-admin'
// The first record's timestamp: older records would be deleted by retention during the check.
const beginMs = Date.now()

// The value of each config in the answer of `describeConfigs`, which names one resource.
const values = answer => {
  assert.equal(answer.resources.length, 1)
  assert.equal(answer.resources[0].errorCode, 0)
  return Object.fromEntries(answer.resources[0].configEntries.map(entry => [entry.configName, entry.configValue]))
}

async function topics(admin) {
  const created = { topic, numPartitions: 2, configEntries: [{ name: 'retention.ms', value: '3600000' }] }
  assert.equal(await admin.createTopics({ topics: [created] }), true)
  // kafkajs answers `false` for TOPIC_ALREADY_EXISTS.
  assert.equal(await admin.createTopics({ topics: [created] }), false)
  await admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] })
  const described = await admin.fetchTopicMetadata({ topics: [topic] })
  const partitions = described.topics[0].partitions.sort((a, b) => a.partitionId - b.partitionId)
  assert.deepEqual(
    partitions.map(({ partitionId, leader, replicas, isr }) => ({ partitionId, leader, replicas, isr })),
    [0, 1, 2].map(partitionId => ({ partitionId, leader: 1, replicas: [1], isr: [1] }))
  )
  assert.ok((await admin.listTopics()).includes(topic))
}

async function configs(admin) {
  const type = ConfigResourceTypes.TOPIC
  const describe = configNames => admin.describeConfigs({ includeSynonyms: true, resources: [{ type, name: topic, configNames }] })
  assert.deepEqual(values(await describe(['retention.ms'])), { 'retention.ms': '3600000' })
  const all = values(await describe(undefined))
  assert.equal(all['retention.ms'], '3600000')
  assert.equal(all['cleanup.policy'], 'delete')
  await admin.alterConfigs({ validateOnly: false, resources: [{ type, name: topic, configEntries: [{ name: 'max.message.bytes', value: '65536' }] }] })
  // AlterConfigs replaces all configs of the topic.
  assert.deepEqual(values(await describe(['retention.ms', 'max.message.bytes'])), { 'retention.ms': '604800000', 'max.message.bytes': '65536' })
  await assert.rejects(
    admin.alterConfigs({ validateOnly: false, resources: [{ type, name: topic, configEntries: [{ name: 'retention.ms', value: 'long' }] }] }),
    { type: 'INVALID_CONFIG' }
  )
}

async function records(kafka, admin) {
  const producer = kafka.producer({ idempotent: true })
  await producer.connect()
  const messages = Array.from({ length: 100 }, (_, n) => ({ key: `key-${n}`, value: `value ${n}`, partition: 0, timestamp: `${beginMs + n}` }))
  const [acknowledged] = await producer.send({ topic, acks: -1, messages })
  assert.deepEqual([acknowledged.partition, acknowledged.errorCode, acknowledged.baseOffset], [0, 0, '0'])
  await producer.disconnect()

  const first = offsets => offsets.find(({ partition }) => partition === 0)
  assert.deepEqual(first(await admin.fetchTopicOffsets(topic)), { partition: 0, offset: '100', high: '100', low: '0' })
  assert.equal(first(await admin.fetchTopicOffsetsByTimestamp(topic, beginMs + 50)).offset, '50')
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '40' }] })
  assert.deepEqual(first(await admin.fetchTopicOffsets(topic)), { partition: 0, offset: '100', high: '100', low: '40' })
}

async function cluster(admin) {
  const { brokers, controller, clusterId } = await admin.describeCluster()
  assert.deepEqual(brokers, [{ nodeId: 1, host, port: Number(port) }])
  assert.equal(controller, 1)
  assert.match(clusterId, /^[A-Za-z0-9_-]{22}$/)
  assert.deepEqual(await admin.listPartitionReassignments({}), { topics: [] })
}

async function main() {
  const kafka = new Kafka({ brokers: [process.env.BROKER], logLevel: logLevel.NOTHING })
  const admin = kafka.admin()
  await admin.connect()
  await topics(admin)
  await configs(admin)
  await records(kafka, admin)
  await cluster(admin)
  await admin.deleteTopics({ topics: [topic] })
  assert.ok(!(await admin.listTopics()).includes(topic))
  await admin.disconnect()
  console.log('kafkajs: topics, configs, records, offsets, cluster')
}

main().catch(error => {
  console.error(error)
  process.exit(1)
})
