// The client against scratch nodes (see scratch-node.ts for what they model and what they do not).

import assert from 'node:assert/strict'
import { createServer } from 'node:net'
import { test, type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Info2, ResultCode } from '../engine/constants.js'
import { Client, type ClientOptions } from './client.js'
import { Connection } from './connection.js'
import { digestOf, partitionOf } from './digest.js'
import { ClientCode, RecordError } from './errors.js'
import { encodeInfo, infoOnce } from './info.js'
import { NodePool } from './node-pool.js'
import { op } from './operation.js'
import { getRequest, type Key } from './request.js'
import { ScratchNode, shippedFrame, type ScratchNodeOptions } from './scratch-node.js'

const key = (id: number | string): Key => ({ namespace: 'test', set: 's', key: id })
const frameOf = (id: number) => getRequest(key(id), { timeoutMs: 1000 }).frame

async function scratch (t: TestContext, options: Partial<ScratchNodeOptions> = {}): Promise<ScratchNode> {
  const node = await new ScratchNode({ name: 'A1', ...options }).start()
  t.after(() => node.stop())
  return node
}

async function connected (t: TestContext, node: ScratchNode, options: Partial<ClientOptions> = {}): Promise<Client> {
  const client = await Client.connect({ hosts: [`127.0.0.1:${node.port}`], tendIntervalMs: 30, timeoutMs: 1000, ...options })
  t.after(() => client.close())
  return client
}

async function opened (t: TestContext, node: ScratchNode, inFlightMax = 128): Promise<Connection> {
  const connection = await Connection.open({ host: '127.0.0.1', port: node.port, connectTimeoutMs: 1000, inFlightMax })
  t.after(() => connection.close())
  return connection
}

async function eventually (claim: string, holds: () => boolean): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt++) {
    if (holds()) return
    await sleep(10)
  }
  assert.fail(`not within 2 s: ${claim}`)
}

function isError (result: number, more: Partial<RecordError> = {}) {
  return (error: unknown) => {
    assert.ok(error instanceof RecordError, String(error))
    assert.equal(error.result, result, error.message)
    for (const [name, value] of Object.entries(more)) assert.equal(error[name as keyof RecordError], value, name)
    return true
  }
}

test('a record written is read back, selected, and gone when removed', async (t) => {
  const client = await connected(t, await scratch(t))
  assert.equal(await client.get(key(1)), null)
  assert.deepEqual(await client.put(key(1), { a: 1, b: 'x' }, { sendKey: true }), { generation: 1, voidTime: 0 })
  assert.deepEqual(await client.get(key(1)), { generation: 1, voidTime: 0, bins: { a: 1, b: 'x' }, key: 1 })
  assert.deepEqual((await client.select(key(1), ['b']))?.bins, { b: 'x' })
  assert.deepEqual(await client.exists(key(1)), { generation: 1, voidTime: 0 })
  assert.equal(await client.remove(key(1)), true)
  assert.equal(await client.remove(key(1)), false)
  assert.equal(await client.exists(key(1)), null)
})

test('a function gets its arguments and its value comes back', async (t) => {
  const client = await connected(t, await scratch(t))
  assert.deepEqual(await client.apply(key(1), 'm', 'f', [1, 'a', { x: [true] }]), [1, 'a', { x: [true] }])
})

test('errors carry code, name and what to do about them', async (t) => {
  const node = await scratch(t)
  const client = await connected(t, node)
  node.result = () => ResultCode.GENERATION
  await assert.rejects(client.put(key(1), { a: 1 }), isError(ResultCode.GENERATION, { code: 'GENERATION', retriable: false, inDoubt: false }))
  await assert.rejects(client.get({ ...key(1), namespace: 'prod' }), isError(ResultCode.NAMESPACE))
})

test('a busy record is asked again, a definite refusal is not', async (t) => {
  const node = await scratch(t)
  const client = await connected(t, node)
  let asked = 0
  node.result = () => ++asked <= 2 ? ResultCode.KEY_BUSY : undefined
  await client.put(key(1), { a: 1 })
  assert.equal(asked, 3)
  asked = 0
  await assert.rejects(client.put(key(1), { a: 1 }, { retriesMax: 0 }), isError(ResultCode.KEY_BUSY))
  assert.equal(asked, 1)
  asked = 0
  node.result = () => {
    asked++
    return ResultCode.RECORD_TOO_BIG
  }
  await assert.rejects(client.put(key(1), { a: 1 }), isError(ResultCode.RECORD_TOO_BIG))
  assert.equal(asked, 1)
})

test('a write without an answer is in doubt and is never repeated; a read is', async (t) => {
  const node = await scratch(t)
  const client = await connected(t, node)
  await client.put(key(1), { a: 1 })
  node.received.length = 0
  node.fault = (frame) => (frame[10]! & Info2.WRITE) !== 0 ? 'drop' : undefined
  await assert.rejects(client.put(key(1), { a: 2 }), isError(ClientCode.CONNECTION, { inDoubt: true }))
  assert.equal(node.received.length, 1)

  // This node drops the connection after the write: it was carried out, and nobody said so.
  let dropped = 0
  node.fault = () => ++dropped === 1 ? 'drop' : undefined
  assert.deepEqual((await client.get(key(1)))?.bins, { a: 2 })
  assert.equal(dropped, 2)
})

test('an answer that is cut in the middle fails its request', async (t) => {
  const node = await scratch(t)
  node.fault = () => 'cut'
  const connection = await opened(t, node)
  await assert.rejects(connection.request(frameOf(1), 1000), isError(ClientCode.CONNECTION, { inDoubt: true }))
  assert.equal(connection.isOpen, false)
  await assert.rejects(connection.request(frameOf(1), 1000), isError(ClientCode.CONNECTION, { inDoubt: false }))
})

test('many requests are in flight on one connection and each gets its own answer', async (t) => {
  const node = await scratch(t)
  const client = await connected(t, node, { connectionsMax: 1, inFlightMax: 16 })
  const ids = Array.from({ length: 500 }, (_, id) => id)
  await Promise.all(ids.map((id) => client.put(key(id), { id }, { timeoutMs: 5000 })))
  const records = await Promise.all(ids.map((id) => client.get(key(id), { timeoutMs: 5000 })))
  assert.deepEqual(records.map((record) => record?.bins['id']), ids)
  // One to tend, one for records.
  assert.equal(node.connections, 2)
})

test('requests leave before earlier ones are answered', async (t) => {
  const node = await scratch(t)
  const connection = await opened(t, node)
  node.hold()
  const answers = Promise.all([1, 2, 3].map((id) => connection.request(frameOf(id), 1000)))
  await eventually('all three have arrived', () => node.received.length === 3)
  assert.equal(connection.inFlight, 3)
  node.release()
  await answers
  assert.equal(connection.inFlight, 0)
})

test('answers that come byte by byte are whole', async (t) => {
  const node = await scratch(t)
  node.dribble = true
  const client = await connected(t, node)
  await client.put(key(1), { a: 'x'.repeat(300) })
  assert.equal((await client.get(key(1)))?.bins['a'], 'x'.repeat(300))
})

test('a late answer goes to nobody, and the next request to its own', async (t) => {
  const node = await scratch(t)
  const connection = await opened(t, node)
  node.hold()
  const early = connection.request(frameOf(1), 1000)
  const late = connection.request(frameOf(2), 100)
  await eventually('both have arrived', () => node.received.length === 2)
  // Something is heard after the late one was sent, so the connection is slow rather than dead.
  node.release(1)
  await early
  await assert.rejects(late, isError(ResultCode.TIMEOUT, { inDoubt: true }))
  assert.equal(connection.isOpen, true)
  assert.equal(connection.inFlight, 1)
  node.release()
  const info = await connection.request(encodeInfo(['node']), 1000)
  assert.match(info.toString('utf8', 8), /^node\tA1\n$/)
  assert.equal(connection.inFlight, 0)
})

test('silence for a whole timeout ends the connection, so that nothing waits behind it', async (t) => {
  const node = await scratch(t)
  node.fault = () => 'swallow'
  const connection = await opened(t, node)
  const behind = assert.rejects(connection.request(frameOf(2), 5000), isError(ClientCode.CONNECTION, { inDoubt: true }))
  await assert.rejects(connection.request(frameOf(1), 50), isError(ResultCode.TIMEOUT))
  await behind
  assert.equal(connection.isOpen, false)
})

test('a full connection refuses, a full pool makes wait, a full queue refuses', async (t) => {
  const node = await scratch(t)
  node.hold()
  const connection = await opened(t, node, 2)
  const sent = [connection.request(frameOf(1), 1000), connection.request(frameOf(2), 1000)]
  await assert.rejects(connection.request(frameOf(3), 1000), isError(ClientCode.QUEUE_FULL, { retriable: true, inDoubt: false }))

  const pool = new NodePool({ host: '127.0.0.1', port: node.port, connectTimeoutMs: 1000, connectionsMax: 1, inFlightMax: 2, waitingMax: 3 })
  t.after(() => pool.close())
  const pooled = [1, 2, 3].map((id) => pool.request(frameOf(id), 1000))
  await assert.rejects(pool.request(frameOf(4), 1000), isError(ClientCode.QUEUE_FULL))
  await eventually('two are sent, one waits', () => node.received.length === 4)
  await assert.rejects(pool.request(frameOf(5), 30), isError(ResultCode.TIMEOUT, { inDoubt: false }))
  node.release()
  await Promise.all([...sent, ...pooled])
})

test('a pool opens more connections while all are busy, up to its limit', async (t) => {
  const node = await scratch(t)
  const client = await connected(t, node, { connectionsMax: 3 })
  const before = node.connections
  for (let round = 0; round < 5; round++) await Promise.all(Array.from({ length: 50 }, (_, id) => client.put(key(id), { id })))
  assert.equal(node.connections - before, 3)
})

test('a node that went away and came back is used again', async (t) => {
  const node = await scratch(t)
  const client = await connected(t, node)
  await client.put(key(1), { a: 1 })
  await node.stop()
  await assert.rejects(client.get(key(1), { timeoutMs: 100 }), (error: RecordError) => [ClientCode.CONNECTION, ClientCode.NO_NODE].includes(error.result as never))
  await eventually('the node is dropped', () => client.nodes.length === 0)
  await assert.rejects(client.get(key(1), { timeoutMs: 50 }), isError(ClientCode.NO_NODE))
  await node.start()
  await eventually('the node is back', () => client.nodes.length === 1)
  assert.deepEqual((await client.get(key(1)))?.bins, { a: 1 })
})

test('peers are discovered, and a record goes to the owner of its partition', async (t) => {
  const [a, b] = [await scratch(t, { name: 'A1' }), await scratch(t, { name: 'B1' })]
  const bitmap = (byte: number) => `test:0,1,${Buffer.alloc(512, byte).toString('base64')}`
  // Bit 0 of a byte is its highest: 0xaa are the even partitions.
  a.info.set('replicas', bitmap(0xaa))
  b.info.set('replicas', bitmap(0x55))
  a.peers = [['B1', b.port]]
  b.peers = [['A1', a.port]]
  const client = await connected(t, a)
  await eventually('both are known', () => client.nodes.length === 2)
  for (let id = 0; id < 50; id++) {
    const node = partitionOf(digestOf('s', id)) % 2 === 0 ? a : b
    const before = node.received.length
    await client.put(key(id), { id })
    assert.equal(node.received.length, before + 1)
  }
  assert.deepEqual([...await client.infoAll('node')], client.nodes.map(({ name }) => [name, name]))
  assert.equal(await client.info('node', { node: 'B1' }), 'B1')
})

test('partitions that move are followed', async (t) => {
  const [a, b] = [await scratch(t, { name: 'A1' }), await scratch(t, { name: 'B1' })]
  b.info.set('replicas', `test:0,1,${Buffer.alloc(512).toString('base64')}`)
  a.peers = [['B1', b.port]]
  b.peers = [['A1', a.port]]
  const client = await connected(t, a)
  await eventually('both are known', () => client.nodes.length === 2)
  a.info.set('replicas', `test:0,1,${Buffer.alloc(512).toString('base64')}`)
  b.info.delete('replicas')
  a.partitionGeneration++
  b.partitionGeneration++
  await eventually('the writes go to B1', () => {
    void client.put(key(1), { a: 1 }).catch(() => {})
    return b.received.length > 0
  })
})

test('a node that left the cluster and owns nothing is dropped', async (t) => {
  const [a, b] = [await scratch(t, { name: 'A1' }), await scratch(t, { name: 'B1' })]
  b.info.set('replicas', `test:0,1,${Buffer.alloc(512).toString('base64')}`)
  a.peers = [['B1', b.port]]
  b.peers = [['A1', a.port]]
  const client = await connected(t, a)
  await eventually('both are known', () => client.nodes.length === 2)
  a.peers = []
  a.peersGeneration++
  await eventually('B1 is dropped', () => client.nodes.length === 1)
  assert.equal(client.nodes[0]!.name, 'A1')
})

test('an address taken over by another node is the other node', async (t) => {
  const node = await scratch(t)
  const client = await connected(t, node)
  node.info.set('node', 'C3')
  await eventually('C3 is known', () => client.nodes.map(({ name }) => name).join() === 'C3')
  await client.put(key(1), { a: 1 })
})

test('a node that has no place in its cluster yet is waited for', async (t) => {
  const node = await scratch(t)
  node.partitionGeneration = -1
  setTimeout(() => { node.partitionGeneration = 1 }, 100)
  const client = await connected(t, node)
  await client.put(key(1), { a: 1 })
})

test('a cluster that cannot be reached says why', async (t) => {
  const node = await scratch(t)
  const host = `127.0.0.1:${node.port}`
  await assert.rejects(Client.connect({ hosts: [host], clusterName: 'west', timeoutMs: 150, connectTimeoutMs: 100 }), isError(ClientCode.NO_NODE))
  node.info.set('cluster-name', 'east')
  await assert.rejects(Client.connect({ hosts: [host], clusterName: 'west', timeoutMs: 150, connectTimeoutMs: 100 }), /belongs to cluster east, not west/)
  await node.stop()
  await assert.rejects(Client.connect({ hosts: [host], timeoutMs: 150, connectTimeoutMs: 100 }), /nothing listens there/)
  await assert.rejects(Client.connect({ hosts: [] }), RangeError)
})

test('something that speaks another protocol is no node', async (t) => {
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  const { port } = server.address() as { port: number }
  await assert.rejects(infoOnce({ host: '127.0.0.1', port, connectTimeoutMs: 500 }, ['node'], 500), isError(ClientCode.CONNECTION))
})

test('closing rejects what is in flight, and closing again is harmless', async (t) => {
  const node = await scratch(t)
  const client = await connected(t, node)
  node.hold()
  const pending = assert.rejects(client.put(key(1), { a: 1 }), isError(ClientCode.CONNECTION, { inDoubt: true }))
  await eventually('it has arrived', () => node.received.length === 1)
  await client.close()
  await pending
  await client.close()
  await assert.rejects(client.get(key(1)), isError(ClientCode.NO_NODE))
  node.release()
})

test('a ready frame goes to the owner and its answer comes back whatever it is', async (t) => {
  const node = await scratch(t)
  const client = await connected(t, node)
  const digest = digestOf('s', 1)
  const frame = shippedFrame({ namespace: 'test', set: 's', digest, lut: 1n, ops: [op.write('a', 1)] })
  assert.equal((await client.send('test', partitionOf(digest), frame)).result, ResultCode.OK)
  node.result = () => ResultCode.LOST_CONFLICT
  assert.equal((await client.send('test', partitionOf(digest), frame)).result, ResultCode.LOST_CONFLICT)
  await assert.rejects(client.send('prod', 1, frame), isError(ResultCode.NAMESPACE))
})

test('a client that is closed leaves nothing behind', async (t) => {
  const node = await scratch(t)
  const client = await connected(t, node)
  await client.put(key(1), { a: 1 })
  await client.close()
  const before = node.connections
  await sleep(100)
  assert.equal(node.connections, before)
  // The scratch node itself is still there.
  await infoOnce({ host: '127.0.0.1', port: node.port, connectTimeoutMs: 500 }, ['node'], 500)
})
