// The Kafka connector against a real broker, behind a source in this process (src/xdr/testing/memory-native.ts has its fault model). The broker
// is stopped in order, killed, and paused in the middle; at the end a consumer reads the topic from its beginning.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Kafka, KafkaMessage } from 'kafkajs'
import { KafkaConnector, type KafkaOptions } from '../../connectors/kafka/producer.js'
import { Limit } from '../../src/engine/constants.js'
import { Datacenter } from '../../src/xdr/datacenter.js'
import { ConnectorShipper } from '../../src/xdr/shipper-connector.js'
import { MemoryNative } from '../../src/xdr/testing/memory-native.js'
import { KeptLog, until } from '../../src/xdr/testing/rig.js'
import { seeded } from '../support/seed.js'
import { KafkaBroker, resolveKafka } from './broker.js'

const distribution = await resolveKafka()
const missing = 'missing' in distribution ? distribution.missing : undefined
if (missing !== undefined) console.error(`kafka tests are skipped: ${missing}`)

interface Change {
  readonly partition: number
  readonly key: string
  readonly kind: string
  readonly generation: number
  readonly value: bigint | undefined
}

describe('the Kafka connector and a real broker', { timeout: 300_000 }, () => {
  let broker: KafkaBroker

  // Each test is skipped by itself, so that it counts.
  const skip = missing ?? false

  before(async () => {
    if (missing !== undefined) return
    broker = await KafkaBroker.create(distribution as { classpath: string })
    await broker.start()
  })

  after(async () => {
    await broker?.remove()
  })

  function options (topic: string, more: Partial<KafkaOptions> = {}): KafkaOptions {
    return { brokers: [broker.address], topic, format: 'flat-json', 'client-id': 'perigee', acks: -1, compression: 'none', 'request-timeout-ms': 5000, ssl: false, ...more }
  }

  function ship (native: MemoryNative, kafka: KafkaOptions) {
    const kept = new KeptLog()
    const datacenter = new Datacenter({
      name: 'dc',
      namespaces: [{ name: 'test', maxThroughput: 1_000_000 }],
      periodMs: 10,
      native,
      shipper: (settle) => new ConnectorShipper(new KafkaConnector(kafka, kept.log), settle, kept.log),
      log: kept.log
    })
    datacenter.start()
    return { datacenter, kept, counters: datacenter.counters(0) }
  }

  test('no change is missing and each key is in order, though the broker is stopped, killed and paused in the middle', { skip }, async (t) => {
    const random = seeded(t.name)
    const native = new MemoryNative({ dc: ['test'] }, random.seed)
    await broker.createTopic('changes', 4)
    const { datacenter, counters, kept } = ship(native, options('changes'))
    t.after(() => datacenter.close())

    const faults: Record<number, () => Promise<void>> = {
      20: async () => {
        await broker.stop()
        void sleep(3000).then(() => broker.start())
      },
      50: async () => {
        await until('broker back', () => datacenter.nodes > 0, 60_000)
        broker.pause()
        void sleep(8000).then(() => broker.resume()) // longer than a request may take
      },
      75: async () => {
        await until('broker back', () => datacenter.nodes > 0, 60_000)
        await broker.kill()
        void sleep(1000).then(() => broker.start())
      }
    }
    for (let round = 0; round < 100; round++) {
      for (let change = 0; change < 500; change++) {
        const key = `k${random.integer(0, 20_000)}`
        if (random.next() < 0.05) native.delete('test', key)
        else native.put('test', key, BigInt(round) * (1n << 50n) + BigInt(change))
      }
      await faults[round]?.()
      await sleep(20)
    }
    await until('all shipped', () => native.isDone('dc'), 120_000)
    await datacenter.drain()

    const changes = await readTopic(broker.client('reader'), 'changes')
    t.diagnostic(`${changes.length} messages, ${counters.success} confirmed, ${counters.retry_dest} retried, ${native.records.size} records`)
    // Delivery is at least once, yet nothing here makes the connector start over under another producer id, so what was sent twice was stored once.
    assert.equal(changes.length, counters.success)
    assert.ok(kept.has('send failed'), 'the faults never happened')
    assert.equal(counters.abandoned, 0)

    const last = new Map<string, Change>()
    for (const change of changes) {
      const before = last.get(change.key)
      if (before !== undefined) {
        assert.equal(change.partition, before.partition, `${change.key} changed its partition`)
        assert.ok(change.generation >= before.generation, `${change.key}: generation ${change.generation} after ${before.generation}`)
      }
      last.set(change.key, change)
    }
    for (const record of native.records.values()) {
      const there = last.get(record.userKey)
      assert.ok(there !== undefined, `${record.userKey} is missing`)
      assert.equal(there.generation, record.generation, record.userKey)
      assert.equal(there.value, record.value, `${record.userKey} is exact beyond 2^53`)
      assert.equal(there.kind, record.value === undefined ? 'delete' : 'write')
    }
  })

  test('a record that the broker finds too large is abandoned and the rest of its batch arrives', { skip }, async (t) => {
    const native = new MemoryNative({ dc: ['test'] })
    await broker.createTopic('small', 2, { 'max.message.bytes': '20000' })
    for (let key = 0; key < 500; key++) native.put('test', `k${key}`, BigInt(key), { padding: key === 123 ? 40_000 : key === 300 ? Limit.RECORD_BYTES_MAX - 1000 : 0 })
    const { datacenter, counters, kept } = ship(native, options('small'))
    t.after(() => datacenter.close())
    await until('settled', () => native.isDone('dc'), 60_000)
    assert.equal(counters.abandoned, 2)
    assert.equal(counters.success, 498)
    assert.ok(kept.has('refuses a change for good'))
    const keys = new Set((await readTopic(broker.client('reader'), 'small')).map(({ key }) => key))
    assert.equal(keys.size, 498)
    assert.ok(!keys.has('k123'))
  })

  test('a topic that does not exist yet costs lag, not changes', { skip }, async (t) => {
    const native = new MemoryNative({ dc: ['test'] })
    for (let key = 0; key < 100; key++) native.put('test', `k${key}`, BigInt(key))
    const { datacenter, counters } = ship(native, options('later', { compression: 'gzip', format: 'json' }))
    t.after(() => datacenter.close())
    await sleep(2000)
    assert.equal(counters.success + counters.abandoned, 0)
    await broker.createTopic('later', 1)
    await until('shipped', () => native.isDone('dc'), 60_000)
    assert.equal(counters.success, 100)
    const messages = await readRaw(broker.client('reader'), 'later')
    assert.equal(messages.length, 100)
    const { value, key, headers } = messages[0]!.message
    assert.match(key!.toString(), /^\["test","set","[A-Za-z0-9+/=]{28}","k0"\]$/)
    assert.match(value!.toString(), /^\{"msg":"write","key":\["test","set",.*"bins":\[\{"name":"v","type":"int","value":0\}\]\}$/)
    assert.equal(String(headers?.msg), 'write')
  })

  test('close during an outage ends soon and leaves the changes with the source', { skip }, async () => {
    const native = new MemoryNative({ dc: ['test'] })
    await broker.createTopic('closing', 1)
    const { datacenter } = ship(native, options('closing'))
    native.put('test', 'first', 1n)
    await until('shipped', () => native.isDone('dc'), 30_000)
    broker.pause()
    try {
      for (let key = 0; key < 100; key++) native.put('test', `k${key}`, BigInt(key))
      await sleep(300)
      const started = Date.now()
      await datacenter.close()
      assert.ok(Date.now() - started < 5000, `${Date.now() - started} ms`)
      assert.ok(!native.isDone('dc'))
      assert.equal((JSON.parse(native.xdrStats('dc')) as { test: { in_progress: number } }).test.in_progress, 0)
    } finally {
      broker.resume()
    }
  })
})

async function readTopic (kafka: Kafka, topic: string): Promise<Change[]> {
  return (await readRaw(kafka, topic)).map(({ partition, message }) => {
    const text = message.value!.toString()
    const { metadata } = JSON.parse(text) as { metadata: { msg: string, userKey: string, gen: number } }
    const digits = /"v":(-?\d+)/.exec(text)?.[1]
    return { partition, key: metadata.userKey, kind: metadata.msg, generation: metadata.gen, value: digits === undefined ? undefined : BigInt(digits) }
  })
}

/** Everything in a topic, each partition in its order. */
async function readRaw (kafka: Kafka, topic: string): Promise<Array<{ partition: number, message: KafkaMessage }>> {
  const admin = kafka.admin()
  await admin.connect()
  const ends = new Map((await admin.fetchTopicOffsets(topic)).map(({ partition, high }) => [partition, Number(high)]))
  await admin.disconnect()
  const messages: Array<{ partition: number, message: KafkaMessage }> = []
  const consumer = kafka.consumer({ groupId: `reader-${topic}-${process.pid}` })
  const left = new Set([...ends].filter(([, end]) => end > 0).map(([partition]) => partition))
  await consumer.connect()
  try {
    await consumer.subscribe({ topic, fromBeginning: true })
    await consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        messages.push({ partition, message })
        if (Number(message.offset) + 1 >= ends.get(partition)!) left.delete(partition)
      }
    })
    await until('topic read', () => left.size === 0, 60_000)
  } finally {
    await consumer.disconnect()
  }
  return messages
}
