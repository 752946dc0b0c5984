import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { test, type TestContext } from 'node:test'
import type { ClusterDatacenterConfig, DatacenterConfig, DatacenterNamespaceConfig } from '../../config/schema.js'
import { seeded } from '../../test/support/seed.js'
import { tempDirectory } from '../../test/support/temp.js'
import { clusterDestination } from './destination.js'
import { ShipTimes } from './ship-times.js'
import { DestinationServer, DestinationStore, FixedDestination } from './testing/destination-server.js'
import { MemoryNative } from './testing/memory-native.js'
import { assertSameRecords, assertShipTimesHonest, KeptLog, until } from './testing/rig.js'
import { Xdr } from './xdr.js'

function namespace (name: string): DatacenterNamespaceConfig {
  return { name, 'max-throughput': 1_000_000, 'transaction-queue-limit': 16_384, 'hot-key-ms': 0 }
}

const tokyo: ClusterDatacenterConfig = { type: 'cluster', name: 'tokyo', 'node-address-ports': ['127.0.0.1:3000'], 'period-ms': 5, namespaces: [namespace('test'), namespace('other')] }

async function rig (t: TestContext, native: MemoryNative, dcs: DatacenterConfig[]) {
  const workDirectory = tempDirectory('xdr')
  const store = new DestinationStore()
  const server = new DestinationServer('node0', store)
  await server.start()
  const destination = new FixedDestination([server])
  const kept = new KeptLog()
  const opened: Xdr[] = []
  const open = async (): Promise<Xdr> => {
    const xdr = new Xdr({
      native, config: { dcs }, workDirectory, log: kept.log, destination: () => destination, savePeriodMs: 10,
      limits: { takeRecordsMax: 64, inFlightEntriesMax: 256, retryMsMin: 5, retryMsMax: 20, backoffMsMin: 5, backoffMsMax: 20 }
    })
    opened.push(xdr)
    await xdr.open()
    xdr.start()
    return xdr
  }
  t.after(async () => {
    for (const xdr of opened) await xdr.close()
    await server.stop()
  })
  return { workDirectory, store, server, destination, kept, open }
}

test('statistics have their names, of one namespace and of all', async (t) => {
  const native = new MemoryNative({ tokyo: ['test', 'other'] })
  const { open } = await rig(t, native, [tokyo])
  const xdr = await open()
  for (let key = 0; key < 30; key++) native.put(key < 10 ? 'test' : 'other', `k${key}`, BigInt(key))
  await until('shipped', () => native.isDone('tokyo'))
  assert.deepEqual(xdr.dcs(), ['tokyo'])
  assert.deepEqual(xdr.namespaces('tokyo'), ['test', 'other'])
  assert.equal(xdr.stats('tokyo').success, 30)
  assert.equal(xdr.stats('tokyo', 'test').success, 10)
  assert.equal(xdr.stats('tokyo').recoveries, 2)
  assert.equal(xdr.stats('tokyo').nodes, 1)
  assert.deepEqual(Object.keys(xdr.stats('tokyo', 'other')).sort(), [
    'abandoned', 'bytes_shipped', 'filtered_out', 'hot_keys', 'in_progress', 'in_queue', 'lag', 'lag_ms', 'lap_us', 'latency_ms', 'nodes', 'not_found',
    'recoveries', 'recoveries_pending', 'retry_conn_reset', 'retry_dest', 'retry_no_node', 'success', 'throughput'
  ])
  assert.throws(() => xdr.stats('osaka'), RangeError)
  assert.throws(() => xdr.stats('tokyo', 'osaka'), RangeError)
})

test('a node that dies and comes back ships what is missing from the saved ship times on, and they never covered what was not shipped', async (t) => {
  const random = seeded(t.name)
  const native = new MemoryNative({ tokyo: ['test', 'other'] }, random.seed)
  const { open, store, server, workDirectory, kept } = await rig(t, native, [tokyo])
  server.resetRate = 0.001
  for (let life = 0; life < 8; life++) {
    const xdr = await open()
    for (let round = 0; round < 20; round++) {
      for (let change = 0; change < 50; change++) native.put(random.next() < 0.5 ? 'test' : 'other', `k${random.integer(0, 2000)}`, BigInt(life * 1000 + round))
      await sleep(2)
      for (const name of ['test', 'other']) assertShipTimesHonest(native, store, name, await new ShipTimes(workDirectory, 'tokyo', name, kept.log).load())
    }
    await xdr.close()
    native.restart()
  }
  const xdr = await open()
  await until('shipped', () => native.isDone('tokyo'))
  assertSameRecords(native, store)
  await xdr.drain()
  await xdr.close()
  await xdr.close()

  // Everything is covered now, so one more life ships nothing.
  native.restart()
  const requests = server.requests
  await open()
  await sleep(50)
  assert.ok(native.isDone('tokyo'))
  assert.equal(server.requests, requests)
})

test('damaged ship times ship everything again', async (t) => {
  const native = new MemoryNative({ tokyo: ['test', 'other'] })
  const { open, server, workDirectory, kept } = await rig(t, native, [tokyo])
  const first = await open()
  for (let key = 0; key < 100; key++) native.put('test', `k${key}`, BigInt(key))
  await until('shipped', () => native.isDone('tokyo'))
  await first.drain()
  await first.close()
  native.restart()
  await writeFile(join(workDirectory, 'xdr', 'tokyo.test.lst'), 'torn')
  const second = await open()
  await until('shipped again', () => second.stats('tokyo').success === 100)
  assert.equal(server.requests, 200)
  assert.ok(kept.has('damaged'))
})

test('a file is a datacenter of another kind, and two datacenters do not wait for each other', async (t) => {
  const native = new MemoryNative({ tokyo: ['test', 'other'], log: ['test'] })
  const directory = tempDirectory('xdr-file')
  const path = join(directory, 'changes.jsonl')
  const log: DatacenterConfig = { type: 'file', name: 'log', 'period-ms': 5, namespaces: [namespace('test')], file: { path, format: 'flat-json' } }
  const { open, store, destination } = await rig(t, native, [tokyo, log])
  destination.away = true
  const xdr = await open()
  for (let key = 0; key < 500; key++) native.put('test', `k${key}`, BigInt(key))
  native.delete('test', 'k0')
  await until('in the file', () => native.isDone('log'))
  const lines = (await readFile(path, 'utf8')).trimEnd().split('\n').map((line) => JSON.parse(line) as { v?: number, metadata: { userKey: string, msg: string } })
  assert.deepEqual(new Map(lines.map(({ v, metadata }) => [metadata.userKey, v])), new Map(Array.from({ length: 500 }, (_, key) => [`k${key}`, key === 0 ? undefined : key])))
  assert.equal(xdr.stats('log').success, 500)
  assert.equal(xdr.stats('tokyo').nodes, 0)
  destination.away = false
  await until('shipped', () => native.isDone('tokyo'))
  assertSameRecords(native, store)
})

test('a cluster is found from its seeds, a node that moves is found again, and changes go to the owners', async (t) => {
  const native = new MemoryNative({ tokyo: ['test', 'other'] })
  const workDirectory = tempDirectory('xdr')
  const store = new DestinationStore()
  const servers = [new DestinationServer('BB9000000000001', store, 1), new DestinationServer('BB9000000000002', store, 2)]
  for (const server of servers) await server.start()
  describeCluster(servers, 1)
  const kept = new KeptLog()
  const seeds = servers.map(({ node }) => `${node.host}:${node.port}`)
  const xdr = new Xdr({ native, config: { dcs: [{ ...tokyo, 'node-address-ports': seeds.slice(0, 1) }] }, workDirectory, log: kept.log, destination: clusterDestination })
  t.after(async () => {
    await xdr.close()
    for (const server of servers) await server.stop()
  })
  await xdr.open()
  xdr.start()
  for (let key = 0; key < 400; key++) native.put('test', `k${key}`, BigInt(key))
  await until('shipped', () => native.isDone('tokyo'))
  assertSameRecords(native, store)
  assert.equal(xdr.stats('tokyo').nodes, 2)
  assert.ok(servers.every(({ requests }) => requests > 100), 'both own partitions')

  await servers[1]!.stop()
  describeCluster(servers.slice(0, 1), 2)
  for (let key = 0; key < 400; key++) native.put('test', `k${key}`, BigInt(-key))
  await until('shipped to the node that is left', () => native.isDone('tokyo'))
  assertSameRecords(native, store)
  assert.equal(xdr.stats('tokyo').abandoned, 0)
})

/** Partition p belongs to server p mod n. */
function describeCluster (servers: DestinationServer[], generation: number): void {
  for (const [index, server] of servers.entries()) {
    const masters = Buffer.alloc(512)
    for (let partition = index; partition < 4096; partition += servers.length) masters[partition >> 3]! |= 0x80 >> (partition & 7)
    const peers = servers.filter((peer) => peer !== server).map(({ node }) => `[${node.name},,[${node.host}:${node.port}]]`)
    server.info.set('node', server.name)
    server.info.set('partition-generation', String(generation))
    server.info.set('peers-generation', String(generation))
    server.info.set('peers-clear-std', `${generation},3000,[${peers.join(',')}]`)
    server.info.set('replicas', ['test', 'other'].map((name) => `${name}:0,1,${masters.toString('base64')}`).join(';'))
  }
}
