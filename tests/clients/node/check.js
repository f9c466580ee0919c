// kafkajs, which shares no code with other clients: what its admin client asks for, and a few records.
// BROKER=host:port, NODE_PATH=directory of node_modules

const assert = require('node:assert/strict')
const {
  AclOperationTypes,
  AclPermissionTypes,
  AclResourceTypes,
  ConfigResourceTypes,
  Kafka,
  ResourcePatternTypes,
  logLevel,
} = require('kafkajs')

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
  for (const [type, wrong] of [
    ['INVALID_REPLICATION_FACTOR', { topic: 'node-wrong', numPartitions: 1, replicationFactor: 2 }],
    ['INVALID_PARTITIONS', { topic: 'node-wrong', numPartitions: 0 }],
    ['INVALID_TOPIC_EXCEPTION', { topic: 'no such/name' }],
    ['INVALID_CONFIG', { topic: 'node-wrong', configEntries: [{ name: 'retention.ms', value: 'long' }] }],
  ]) {
    await assert.rejects(admin.createTopics({ topics: [wrong] }), error => error.errors[0].type === type)
  }
  assert.equal(await admin.createTopics({ topics: [{ topic: 'node-validated' }], validateOnly: true, waitForLeaders: false }), true)
  await admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] })
  await assert.rejects(admin.createPartitions({ topicPartitions: [{ topic, count: 2 }] }), { type: 'INVALID_PARTITIONS' })
  const described = await admin.fetchTopicMetadata({ topics: [topic] })
  const partitions = described.topics[0].partitions.sort((a, b) => a.partitionId - b.partitionId)
  assert.deepEqual(
    partitions.map(({ partitionId, leader, replicas, isr }) => ({ partitionId, leader, replicas, isr })),
    [0, 1, 2].map(partitionId => ({ partitionId, leader: 1, replicas: [1], isr: [1] }))
  )
  assert.deepEqual(await admin.listTopics(), [topic])
  // No names: all topics.
  const all = await admin.fetchTopicMetadata({ topics: [] })
  assert.deepEqual(all.topics.map(({ name, partitions }) => [name, partitions.length]), [[topic, 3]])
}

async function configs(admin) {
  const type = ConfigResourceTypes.TOPIC
  const describe = configNames => admin.describeConfigs({ includeSynonyms: true, resources: [{ type, name: topic, configNames }] })
  assert.deepEqual(values(await describe(['retention.ms'])), { 'retention.ms': '3600000' })
  const all = values(await describe(undefined))
  assert.equal(all['retention.ms'], '3600000')
  assert.equal(all['cleanup.policy'], 'delete')
  // kafkajs sends an empty list of names as none.
  assert.deepEqual(values(await describe([])), all)
  const broker = values(await admin.describeConfigs({ includeSynonyms: false, resources: [{ type: ConfigResourceTypes.BROKER, name: '1' }] }))
  assert.deepEqual([broker['node.id'], broker['message.max.bytes']], ['1', '1048588'])
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
  await assert.rejects(
    admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '101' }] }),
    error => error.cause.partitions[0].error.type === 'OFFSET_OUT_OF_RANGE'
  )
  await assert.rejects(admin.fetchTopicOffsets(''), /Invalid topic/)
}

async function cluster(admin) {
  const { brokers, controller, clusterId } = await admin.describeCluster()
  assert.deepEqual(brokers, [{ nodeId: 1, host, port: Number(port) }])
  assert.equal(controller, 1)
  assert.match(clusterId, /^[A-Za-z0-9_-]{22}$/)
  assert.deepEqual(await admin.listPartitionReassignments({}), { topics: [] })
}

// There is no authorizer.
async function acls(admin) {
  const disabled = { type: 'SECURITY_DISABLED' }
  const every = {
    resourceType: AclResourceTypes.ANY,
    resourcePatternType: ResourcePatternTypes.ANY,
    operation: AclOperationTypes.ANY,
    permissionType: AclPermissionTypes.ANY,
  }
  const acl = {
    resourceType: AclResourceTypes.TOPIC,
    resourceName: topic,
    resourcePatternType: ResourcePatternTypes.LITERAL,
    principal: 'User:a',
    host: '*',
    operation: AclOperationTypes.READ,
    permissionType: AclPermissionTypes.ALLOW,
  }
  await assert.rejects(admin.describeAcls(every), disabled)
  await assert.rejects(admin.createAcls({ acl: [acl] }), disabled)
  await assert.rejects(admin.deleteAcls({ filters: [every] }), disabled)
}

// There are no groups yet. Who asks for them gets an error, and soon.
async function groups() {
  // kafkajs asks again for a coordinator, for 8 s unless it is told otherwise.
  const kafka = new Kafka({ brokers: [process.env.BROKER], logLevel: logLevel.NOTHING, retry: { retries: 1, initialRetryTime: 50 } })
  const admin = kafka.admin()
  await admin.connect()
  const begin = Date.now()
  await assert.rejects(admin.listGroups(), { name: 'KafkaJSServerDoesNotSupportApiKey', apiName: 'ListGroups' })
  const notFound = { name: 'KafkaJSGroupCoordinatorNotFound' }
  await assert.rejects(admin.describeGroups(['group']), notFound)
  await assert.rejects(admin.deleteGroups(['group']), notFound)
  await assert.rejects(admin.fetchOffsets({ groupId: 'group' }), notFound)
  const tookMs = Date.now() - begin
  assert.ok(tookMs < 5000, `${tookMs} ms`)
  await admin.disconnect()
}

async function main() {
  const kafka = new Kafka({ brokers: [process.env.BROKER], logLevel: logLevel.NOTHING })
  const admin = kafka.admin()
  await admin.connect()
  await topics(admin)
  await configs(admin)
  await records(kafka, admin)
  await cluster(admin)
  await acls(admin)
  await groups()
  await admin.deleteTopics({ topics: [topic] })
  assert.ok(!(await admin.listTopics()).includes(topic))
  await admin.disconnect()
  console.log('kafkajs: topics, configs, records, offsets, cluster, ACLs, groups')
}

main().catch(error => {
  console.error(error)
  process.exit(1)
})
