// A whole node that streams its changes to a real Kafka broker, which goes away in the middle: no key's last change is missing.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { eventually } from '../support/eventually.js'
import { NodeProcess, fileNamespace, showingLogs } from '../support/node-process.js'
import { connectOfficial, loadOfficialClient, type OfficialClient, type OfficialKey } from '../support/official-client.js'
import { seeded } from '../support/seed.js'
import { rawInfoPairs } from '../support/wire.js'
import { KafkaBroker, resolveKafka } from '../kafka/broker.js'

const TOPIC = 'changes'
const KEYS = 200
const WRITERS = 8
const SHIP_TIMEOUT_MS = 120_000

const distribution = await resolveKafka()
const missing = 'missing' in distribution ? distribution.missing : undefined
if (missing !== undefined) console.error(`skipped: ${missing}`)

const aerospike = loadOfficialClient()

interface Change { digest: string, kind: string, round: number | undefined }

describe('a node and a Kafka broker', { skip: missing ?? false, timeout: 240_000 }, () => {
  let broker: KafkaBroker
  let node: NodeProcess

  before(async () => {
    broker = await KafkaBroker.create(distribution as { classpath: string })
    await broker.start()
    await broker.createTopic(TOPIC, 3)
    node = await NodeProcess.start({
      name: 'kafka-source',
      namespaces: directory => [fileNamespace(directory, { storage: { 'commit-to-device': true } })],
      xdr: {
        dcs: [{
          name: 'kafka',
          type: 'kafka',
          kafka: { brokers: [broker.address], topic: TOPIC, format: 'flat-json', 'request-timeout-ms': 5_000 },
          'period-ms': 20,
          namespaces: [{ name: 'test' }]
        }]
      }
    })
  })

  after(async () => {
    await node?.dispose()
    await broker?.remove()
    aerospike.releaseEventLoop()
  })

  test('a_consumer_sees_every_keys_last_change_though_broker_and_node_went_down', async () => {
    await showingLogs([node], async () => {
      const random = seeded('a_consumer_sees_every_keys_last_change_though_broker_and_node_went_down')
      // Records are named by their digest, which every change carries; a delete need not know the user's key.
      const digests = Array.from({ length: KEYS }, () => randomBytes(20))
      const keys: OfficialKey[] = digests.map(digest => new aerospike.Key('test', 'kafka', null, digest))
      /** Round of the last write by digest, null when it was deleted. One writer a record, so there is a last one. */
      const expected = new Map<string, number | null>()
      let round = 0
      const writeFor = async (client: OfficialClient, milliseconds: number): Promise<void> => {
        const end = Date.now() + milliseconds
        await Promise.all(Array.from({ length: WRITERS }, async (_, writer) => {
          while (Date.now() < end) {
            const i = random.integer(0, KEYS / WRITERS) * WRITERS + writer
            const [key, digest] = [keys[i] as OfficialKey, (digests[i] as Buffer).toString('base64')]
            if (typeof expected.get(digest) === 'number' && random.next() < 0.1) {
              await client.remove(key, { durableDelete: true })
              expected.set(digest, null)
            } else {
              const mine = ++round
              await client.put(key, { round: mine })
              expected.set(digest, mine)
            }
          }
        }))
      }

      let client = await connectOfficial(node.port)
      await writeFor(client, 1_000)
      const stopping = broker.stop()
      await writeFor(client, 2_000)
      await stopping
      await writeFor(client, 1_000)
      // The node must not need its memory either: what was not shipped is found again after the restart.
      client.close()
      await node.kill()
      await node.start()
      client = await connectOfficial(node.port)
      await broker.start()
      await writeFor(client, 1_000)
      const killing = broker.kill()
      await writeFor(client, 1_000)
      await killing
      await broker.start()
      await writeFor(client, 500)
      client.close()

      await eventually('everything is shipped', () => rawInfoPairs(node.port, 'get-stats:context=xdr;dc=kafka'), stats =>
        ['in_queue', 'in_progress', 'recoveries_pending', 'lag'].every(name => Number(stats.get(name)) === 0),
      { timeoutMs: SHIP_TIMEOUT_MS, intervalMs: 200 })
      await sleep(200)

      const last = new Map<string, Change>()
      for (const change of await readTopic(broker)) last.set(change.digest, change)
      assert.ok(expected.size > KEYS / 2, `only ${expected.size} keys were written`)
      for (const [digest, wanted] of expected) {
        const seen = last.get(digest)
        if (wanted === null) {
          // Written and deleted before anything was shipped: then there may be nothing to tell.
          assert.ok(seen === undefined || seen.kind === 'delete', `${digest} was deleted, its last change is ${JSON.stringify(seen)}`)
        } else {
          assert.deepEqual({ kind: seen?.kind, round: seen?.round }, { kind: 'write', round: wanted }, digest)
        }
      }
    })
  })
})

/** Every change in the topic, each partition in its order. */
async function readTopic (broker: KafkaBroker): Promise<Change[]> {
  const kafka = broker.client('reader')
  const admin = kafka.admin()
  await admin.connect()
  const ends = new Map((await admin.fetchTopicOffsets(TOPIC)).map(({ partition, high }) => [partition, Number(high)]))
  await admin.disconnect()
  const unread = new Set([...ends].filter(([, end]) => end > 0).map(([partition]) => partition))
  assert.ok(unread.size > 0, 'the topic is empty')
  const changes: Change[] = []
  const consumer = kafka.consumer({ groupId: `reader-${process.pid}` })
  await consumer.connect()
  try {
    await consumer.subscribe({ topic: TOPIC, fromBeginning: true })
    await consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        const value = JSON.parse(message.value?.toString() ?? '') as { round?: number, metadata: { msg: string, digest: string } }
        changes.push({ digest: value.metadata.digest, kind: value.metadata.msg, round: value.round })
        if (Number(message.offset) + 1 >= (ends.get(partition) ?? 0)) unread.delete(partition)
      }
    })
    await eventually('the topic is read', () => unread.size, left => left === 0, { timeoutMs: 60_000 })
  } finally {
    await consumer.disconnect()
  }
  return changes
}
