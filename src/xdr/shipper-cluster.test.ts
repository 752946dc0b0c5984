import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { test, type TestContext } from 'node:test'
import { seeded } from '../../test/support/seed.js'
import { RESULT_CODES, ResultCode } from '../engine/constants.js'
import { ChangeKind } from './batch.js'
import { Datacenter, type DatacenterLimits } from './datacenter.js'
import { classifyResult, ClusterShipper, type ClusterShipperLimits } from './shipper-cluster.js'
import { Verdict } from './shipper.js'
import { DestinationServer, DestinationStore, FixedDestination } from './testing/destination-server.js'
import { MemoryNative } from './testing/memory-native.js'
import { assertSameRecords, assertShipTimesHonest, KeptLog, until } from './testing/rig.js'

interface Options {
  readonly servers?: number
  readonly maxThroughput?: number
  readonly limits?: Partial<DatacenterLimits & ClusterShipperLimits>
  readonly native?: MemoryNative
}

/** A datacenter that ships namespace `test` to servers of a remote cluster. */
async function rig (t: TestContext, options: Options = {}) {
  const native = options.native ?? new MemoryNative({ dc: ['test'] })
  const store = new DestinationStore()
  const servers = Array.from({ length: options.servers ?? 1 }, (_, index) => new DestinationServer(`node${index}`, store, index + 1))
  for (const server of servers) await server.start()
  const destination = new FixedDestination(servers)
  const kept = new KeptLog()
  const limits = { retryMsMin: 5, retryMsMax: 40, backoffMsMin: 5, backoffMsMax: 40, ...options.limits }
  const datacenter = new Datacenter({
    name: 'dc',
    namespaces: [{ name: 'test', maxThroughput: options.maxThroughput ?? 10_000_000 }],
    periodMs: 5,
    native,
    shipper: (settle) => new ClusterShipper({ destination, remoteNamespaces: ['test'], settle, log: kept.log, limits }),
    log: kept.log,
    limits
  })
  t.after(async () => {
    await datacenter.close()
    for (const server of servers) await server.stop()
  })
  return { native, store, servers, server: servers[0]!, destination, kept, datacenter, counters: datacenter.counters(0) }
}

test('every change ships once to the owner of its partition', async (t) => {
  const { native, store, servers, datacenter, counters } = await rig(t, { servers: 3 })
  for (let key = 0; key < 5000; key++) native.put('test', `k${key}`, BigInt(key))
  for (let key = 0; key < 5000; key += 10) native.delete('test', `k${key}`)
  datacenter.start()
  await until('shipped', () => native.isDone('dc'))
  assertSameRecords(native, store)
  assert.equal(servers.reduce((requests, server) => requests + server.requests, 0), 5000)
  assert.equal(counters.success, 5000)
  assert.equal(counters.retry_conn_reset + counters.retry_dest + counters.retry_no_node + counters.abandoned, 0)
  assert.equal(datacenter.nodes, 3)
  // Pipelined: far fewer connections than changes.
  assert.ok(servers.every((server) => server.connections <= 8))
})

test('each result has its verdict', () => {
  for (const { code, name } of RESULT_CODES) {
    const verdict = classifyResult(code, ChangeKind.WRITE)
    if (['OK', 'LOST_CONFLICT'].includes(name)) assert.equal(verdict, Verdict.SHIPPED, name)
    if (['KEY_BUSY', 'DEVICE_OVERLOAD', 'OUT_OF_SPACE', 'TIMEOUT', 'UNAVAILABLE', 'CLUSTER_KEY_MISMATCH', 'NOT_FOUND', 'UNKNOWN', 'XDR_KEY_BUSY', 'NAMESPACE', 'ALWAYS_FORBIDDEN', 'FORBIDDEN'].includes(name)) {
      assert.equal(verdict, Verdict.RETRY_DEST, name)
    }
    if (['PARAMETER', 'RECORD_TOO_BIG', 'INCOMPATIBLE_TYPE', 'BIN_NAME'].includes(name)) assert.equal(verdict, Verdict.ABANDONED, name)
  }
  assert.equal(classifyResult(ResultCode.NOT_FOUND, ChangeKind.DELETE), Verdict.SHIPPED)
})

test('a destination out of capacity is retried until it accepts, and other records are not held up', async (t) => {
  const { native, store, server, datacenter, counters } = await rig(t)
  const refused = new Map<string, number>()
  server.refuse = (change) => {
    const key = change.key!.value.toString()
    if (Number(key.slice(1)) % 10 !== 0) return undefined
    const times = (refused.get(key) ?? 0) + 1
    refused.set(key, times)
    return times > 3 ? undefined : [ResultCode.KEY_BUSY, ResultCode.DEVICE_OVERLOAD, ResultCode.OUT_OF_SPACE][times - 1]
  }
  for (let key = 0; key < 1000; key++) native.put('test', `k${key}`, BigInt(key))
  datacenter.start()
  await until('shipped', () => native.isDone('dc'))
  assertSameRecords(native, store)
  assert.equal(counters.retry_dest, 300)
  assert.equal(counters.success, 1000)
  assert.equal(native.abandoned, 0)
})

test('a change refused for good is abandoned, counted and logged, and the rest ship', async (t) => {
  const { native, store, server, datacenter, counters, kept } = await rig(t)
  const isBad = (key: string): boolean => Number(key.slice(1)) % 100 === 7
  server.refuse = (change) => isBad(change.key!.value.toString()) ? ResultCode.RECORD_TOO_BIG : undefined
  for (let key = 0; key < 1000; key++) native.put('test', `k${key}`, BigInt(key))
  datacenter.start()
  await until('settled', () => native.isDone('dc'))
  assertSameRecords(native, store, isBad)
  assert.equal(counters.abandoned, 10)
  assert.equal(native.abandoned, 10)
  assert.ok(kept.has('refused for good'))
  assert.ok(kept.lines.length < 10, 'one line for many')
})

test('a refusal that concerns the whole site stalls shipping, says so and loses nothing', async (t) => {
  const { native, store, server, datacenter, counters, kept } = await rig(t)
  let refusal: ResultCode | undefined = ResultCode.NAMESPACE
  server.refuse = () => refusal
  for (let key = 0; key < 200; key++) native.put('test', `k${key}`, BigInt(key))
  datacenter.start()
  await until('refused', () => counters.retry_dest > 200)
  refusal = ResultCode.ALWAYS_FORBIDDEN
  const before = counters.retry_dest
  await until('refused again', () => counters.retry_dest > before + 200)
  assert.equal(counters.success + counters.abandoned, 0)
  const lines = kept.lines.filter(({ message }) => message.includes('refuses changes'))
  assert.equal(lines.length, 1, 'one line for many')
  assert.equal(lines[0]!.fields.name, 'NAMESPACE')
  refusal = undefined
  await until('shipped', () => native.isDone('dc'))
  assertSameRecords(native, store)
})

test('a wall clock that steps back stalls nothing', async (t) => {
  const { native, store, server, datacenter } = await rig(t)
  datacenter.start()
  native.put('test', 'before', 1n)
  await until('first shipped', () => native.isDone('dc'))
  await server.stop()
  native.put('test', 'during', 1n)
  await until('the node is out', () => datacenter.nodes === 0)
  const now = Date.now
  let wall = 0 // an hour back, then standing still
  t.mock.method(Date, 'now', () => wall ||= now() - 3_600_000)
  await server.start()
  for (let key = 0; key < 100; key++) native.put('test', `k${key}`, BigInt(key))
  const started = performance.now()
  while (!native.isDone('dc') && performance.now() - started < 10_000) await sleep(5)
  assertSameRecords(native, store)
})

test('a node whose address cannot be used holds up only its own partitions, and none of its changes is lost', async (t) => {
  // `connect` throws for such a port; the changes of this take were once in flight for ever.
  const { native, store, servers, datacenter, destination, counters } = await rig(t, { servers: 2 })
  const owner = destination.owner.bind(destination)
  let port: number | undefined = 70_000
  destination.owner = (namespace, partition) => {
    const node = owner(namespace, partition)
    return node !== undefined && port !== undefined && node.name === servers[1]!.name ? { ...node, port } : node
  }
  for (let key = 0; key < 400; key++) native.put('test', `k${key}`, BigInt(key))
  datacenter.start()
  await until('the other half shipped', () => counters.success > 100 && counters.retry_no_node > 100)
  assert.equal(servers[1]!.requests, 0)
  port = undefined
  await until('shipped', () => native.isDone('dc'))
  assertSameRecords(native, store)
  assert.equal(counters.success, 400)
})

test('changes that a shipper throws back are retried and leave nothing in flight', async (t) => {
  const { native, store, destination, datacenter, counters, kept } = await rig(t, { limits: { inFlightEntriesMax: 64, takeRecordsMax: 64 } })
  const owner = destination.owner.bind(destination)
  let throws = 5
  destination.owner = (namespace, partition) => {
    if (throws > 0 && throws-- > 0) throw new Error('no map')
    return owner(namespace, partition)
  }
  for (let key = 0; key < 500; key++) native.put('test', `k${key}`, BigInt(key))
  datacenter.start()
  await until('shipped', () => native.isDone('dc'))
  assertSameRecords(native, store)
  assert.equal(counters.success, 500)
  assert.ok(counters.retry_dest > 0)
  assert.ok(kept.has('cannot hand changes over'))
})

test('versions_of_a_record_arrive_in_order_while_connections_reset', async (t) => {
  const random = seeded(t.name)
  const native = new MemoryNative({ dc: ['test'] }, random.seed)
  native.shortTakes = 0.3
  native.failTakes = 0.05
  const { store, servers, datacenter, counters } = await rig(t, { servers: 2, native, limits: { takeRecordsMax: 64, inFlightEntriesMax: 256 } })
  for (const server of servers) server.resetRate = 0.002
  datacenter.start()
  for (let round = 0; round < 200; round++) {
    for (let change = 0; change < 40; change++) {
      const key = `k${random.integer(0, 200)}`
      if (random.next() < 0.1) native.delete('test', key)
      else native.put('test', key, BigInt(round * 1000 + change))
    }
    assertShipTimesHonest(native, store, 'test', native.xdrShipTimes('dc', 'test'))
    await sleep(1)
  }
  for (const server of servers) server.resetRate = 0
  await until('shipped', () => native.isDone('dc'))
  assertSameRecords(native, store)
  assertShipTimesHonest(native, store, 'test', native.xdrShipTimes('dc', 'test'))
  assert.ok(counters.retry_conn_reset > 0, 'the fault never happened')
  assert.equal(store.lateChanges, 0)
})

test('while the destination is down little is taken, and everything ships when it is back', async (t) => {
  const { native, store, servers, server, destination, datacenter, counters } = await rig(t, { limits: { takeRecordsMax: 100, inFlightEntriesMax: 400 } })
  datacenter.start()
  for (let key = 0; key < 500; key++) native.put('test', `k${key}`, BigInt(key))
  await until('first part shipped', () => native.isDone('dc'))
  await server.stop()
  for (let key = 0; key < 3000; key++) native.put('test', `k${key}`, BigInt(key + 10_000))
  const requests = server.requests
  await sleep(300)
  assert.ok((JSON.parse(native.xdrStats('dc')) as { test: { in_progress: number } }).test.in_progress <= 400)
  assert.equal(server.requests, requests)
  assert.ok(destination.suspected > 0)
  assert.ok(counters.retry_conn_reset > 0)
  assert.ok(counters.retry_conn_reset < 3000, `attempts are spaced, not ${counters.retry_conn_reset}`)
  assertShipTimesHonest(native, store, 'test', native.xdrShipTimes('dc', 'test'))
  await servers[0]!.start()
  await until('all shipped', () => native.isDone('dc'))
  assertSameRecords(native, store)
})

test('partitions without a known owner are retried as no_node, and nothing is taken without any node', async (t) => {
  const { native, store, destination, datacenter, counters } = await rig(t)
  destination.away = true
  native.put('test', 'k', 1n)
  datacenter.start()
  await sleep(50)
  assert.equal(native.retried, 0)
  assert.equal(datacenter.nodes, 0)
  const owner = destination.owner.bind(destination)
  destination.owner = () => undefined
  destination.away = false
  await until('counted', () => counters.retry_no_node > 2)
  destination.owner = owner
  await until('shipped', () => native.isDone('dc'))
  assertSameRecords(native, store)
})

test('a destination that answers nothing is reset after the request timeout', async (t) => {
  const { native, store, server, datacenter, counters } = await rig(t, { limits: { requestMsMax: 60 } })
  server.silent = true
  native.put('test', 'k', 1n)
  datacenter.start()
  await until('reset', () => counters.retry_conn_reset > 0)
  server.silent = false
  await until('shipped', () => native.isDone('dc'))
  assertSameRecords(native, store)
})

test('bytes that are no reply reset the connection and are never taken for an acknowledgement', async (t) => {
  const { native, store, server, datacenter, counters } = await rig(t)
  server.garbage = true
  for (let key = 0; key < 20; key++) native.put('test', `k${key}`, BigInt(key))
  datacenter.start()
  await until('reset', () => counters.retry_conn_reset > 0)
  assert.equal(counters.success, 0)
  server.garbage = false
  await until('shipped', () => native.isDone('dc'))
  assertSameRecords(native, store)
})

test('max-throughput bounds what is shipped in a second', async (t) => {
  const { native, server, datacenter } = await rig(t, { maxThroughput: 1000 })
  for (let key = 0; key < 5000; key++) native.put('test', `k${key}`, BigInt(key))
  datacenter.start()
  const started = performance.now()
  await sleep(500)
  const allowed = (performance.now() - started) + 2 * 5
  assert.ok(server.requests <= allowed, `${server.requests} of ${allowed}`)
  assert.ok(server.requests > allowed / 4, `${server.requests} of ${allowed}`)
})

test('the largest record ships', async (t) => {
  const { native, store, datacenter } = await rig(t)
  for (let key = 0; key < 6; key++) native.put('test', `k${key}`, BigInt(key), { padding: 8 * 1024 * 1024 - 100 })
  datacenter.start()
  await until('shipped', () => native.isDone('dc'))
  assertSameRecords(native, store)
})

test('drain finishes what is in flight, close returns the rest, and both may be repeated', async (t) => {
  const { native, store, server, datacenter } = await rig(t, { limits: { drainMsMax: 2000 } })
  server.delayMs = 1
  for (let key = 0; key < 100; key++) native.put('test', `k${key}`, BigInt(key))
  datacenter.start()
  await until('taken', () => server.requests > 10)
  await datacenter.drain()
  assert.ok(native.isDone('dc'))
  assertSameRecords(native, store)
  native.put('test', 'late', 1n)
  await sleep(30)
  assert.ok(!native.isDone('dc'), 'nothing is taken after drain')
  await datacenter.drain()
  await datacenter.close()
  await datacenter.close()
})

test('close in the middle of a batch returns every entry that has no reply', async (t) => {
  const { native, server, datacenter, store } = await rig(t)
  server.delayMs = 5
  for (let key = 0; key < 200; key++) native.put('test', `k${key}`, BigInt(key))
  datacenter.start()
  await until('taken', () => server.requests > 3)
  await datacenter.close()
  const { in_progress: inProgress, in_queue: inQueue } = (JSON.parse(native.xdrStats('dc')) as { test: Record<string, number> }).test
  assert.equal(inProgress, 0)
  assert.ok(inQueue! > 0)
  assertShipTimesHonest(native, store, 'test', native.xdrShipTimes('dc', 'test'))
})
