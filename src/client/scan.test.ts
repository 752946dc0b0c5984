// Scans against scratch nodes that answer queries from a list of records, and fail where a test wants it.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import { test, type TestContext } from 'node:test'
import { FieldId, Info3, PROTO_HEADER_BYTES, ParticleType, ProtoType, ResultCode } from '../engine/constants.js'
import { Client } from './client.js'
import { partitionOf } from './digest.js'
import { ClientCode, RecordError } from './errors.js'
import { encodeRequest, textField, writeProto, type Message } from './message.js'
import type { ScanOptions } from './scan.js'
import { ScratchNode } from './scratch-node.js'

const RECORDS = 300
const PARTITIONS = 4096
const RESULT_OFFSET = 5
const FRAME_RECORDS = 7

const digests = Array.from({ length: RECORDS }, (_, n) => createHash('ripemd160').update(String(n)).digest())
  .sort((a, b) => partitionOf(a) - partitionOf(b) || Buffer.compare(a, b))
const hex = (all: readonly Buffer[]): string[] => all.map((digest) => digest.toString('hex')).sort()

/** A message without the header of a frame. */
function part (info3: number, generation: number, result = 0, record?: Buffer): Buffer {
  const frame = encodeRequest({
    info3,
    generation,
    ttl: record === undefined ? 0 : 77,
    fields: record === undefined ? [] : [textField(FieldId.NAMESPACE, 'test'), textField(FieldId.SET, 's'), { id: FieldId.DIGEST, data: record }],
    ops: record === undefined ? [] : [{ op: 1, name: 'i', type: ParticleType.INTEGER, value: Buffer.from([0, 0, 0, 0, 0, 0, 0, 5]) }]
  })
  frame[PROTO_HEADER_BYTES + RESULT_OFFSET] = result
  return frame.subarray(PROTO_HEADER_BYTES)
}

function framed (parts: readonly Buffer[]): Buffer {
  const frame = Buffer.concat([Buffer.alloc(PROTO_HEADER_BYTES), ...parts])
  writeProto(frame, ProtoType.MESSAGE)
  return frame
}

/** What a request asks for: partitions, each with the digest to resume behind. */
function asked (request: Message): Map<number, Buffer | undefined> {
  const open = new Map<number, Buffer | undefined>()
  const ids = request.fields.get(FieldId.PARTITIONS) ?? Buffer.alloc(0)
  for (let at = 0; at < ids.length; at += 2) open.set(ids.readUInt16LE(at), undefined)
  const after = request.fields.get(FieldId.DIGESTS_AFTER) ?? Buffer.alloc(0)
  for (let at = 0; at < after.length; at += 20) open.set(partitionOf(after.subarray(at)), after.subarray(at, at + 20))
  return open
}

/** The messages of a whole answer, in order. */
function answer (request: Message, unavailable: (partition: number) => boolean = () => false): Buffer[] {
  const most = Number(request.fields.get(FieldId.SAMPLE_MAX)?.readBigUInt64BE() ?? Infinity)
  const parts: Buffer[] = []
  let sent = 0
  for (const [partition, after] of [...asked(request)].sort(([a], [b]) => a - b)) {
    if (unavailable(partition)) {
      parts.push(part(Info3.PARTITION_DONE, partition, ResultCode.UNAVAILABLE))
      continue
    }
    for (const digest of digests) {
      if (partitionOf(digest) !== partition || (after !== undefined && Buffer.compare(digest, after) <= 0)) continue
      if (sent === most) return [...parts, part(Info3.LAST, 0)]
      sent++
      parts.push(part(0, 1, 0, digest))
    }
    parts.push(part(Info3.PARTITION_DONE, partition))
  }
  return [...parts, part(Info3.LAST, 0)]
}

function send (socket: Socket, parts: readonly Buffer[]): void {
  for (let at = 0; at < parts.length; at += FRAME_RECORDS) socket.write(framed(parts.slice(at, at + FRAME_RECORDS)))
}

async function scanned (t: TestContext, query: ScratchNode['query']): Promise<Client> {
  const node = await new ScratchNode({ name: 'A1' }).start()
  t.after(() => node.stop())
  node.query = query
  const client = await Client.connect({ hosts: [`127.0.0.1:${node.port}`], tendIntervalMs: 30, timeoutMs: 1000 })
  t.after(() => client.close())
  return client
}

async function all (client: Client, options: ScanOptions = {}): Promise<{ digests: string[], done: number[] }> {
  const found: string[] = []
  const done: number[] = []
  for await (const page of client.scanPages('test', options)) {
    found.push(...page.records.map(({ digest }) => digest.toString('hex')))
    done.push(...page.done)
  }
  return { digests: found.sort(), done: done.sort((a, b) => a - b) }
}

const everyPartition = [...new Array(PARTITIONS).keys()]

test('a scan yields every record, decoded, and every partition is done once', async (t) => {
  const client = await scanned(t, (request, socket) => send(socket, answer(request)))
  assert.deepEqual(await all(client), { digests: hex(digests), done: everyPartition })
  for await (const record of client.scan('test', { recordsMax: 1 })) {
    assert.deepEqual({ ...record, digest: undefined }, { digest: undefined, set: 's', generation: 1, voidTime: 77, bins: { i: 5 } })
  }
  assert.throws(() => client.scanPages('prod'), (error: RecordError) => error.result === ResultCode.NAMESPACE)
})

test('a scan goes on behind the last record when its connection is cut, however often', async (t) => {
  let queries = 0
  const client = await scanned(t, (request, socket) => {
    const parts = answer(request)
    send(socket, parts.slice(0, 900))
    if (parts.length > 900) socket.end(framed(parts.slice(900, 902)).subarray(0, 40))
    queries++
  })
  const errors: string[] = []
  assert.deepEqual(await all(client, { onRetry: (error) => errors.push(error.code) }), { digests: hex(digests), done: everyPartition })
  assert.equal(queries, 5)
  assert.deepEqual(new Set(errors), new Set(['CLIENT_CONNECTION']))
})

test('partitions that a node cannot finish are asked for again', async (t) => {
  let queries = 0
  const client = await scanned(t, (request, socket) => {
    send(socket, answer(request, (partition) => queries === 0 && partition % 3 === 0))
    queries++
  })
  assert.deepEqual(await all(client), { digests: hex(digests), done: everyPartition })
  assert.equal(queries, 2)
})

test('a limit on records is kept, and what was not taken can be asked for', async (t) => {
  const client = await scanned(t, (request, socket) => send(socket, answer(request)))
  const open = new Map<number, Buffer | undefined>(everyPartition.map((partition) => [partition, undefined]))
  const found: string[] = []
  for (let page = 0; open.size > 0; page++) {
    assert.ok(page < 5)
    for await (const { records, done } of client.scanPages('test', { recordsMax: 100, partitions: new Map(open) })) {
      for (const { digest } of records) {
        found.push(digest.toString('hex'))
        open.set(partitionOf(digest), digest)
      }
      for (const partition of done) open.delete(partition)
    }
    assert.ok(found.length <= (page + 1) * 100)
  }
  assert.deepEqual(found.sort(), hex(digests))
})

test('a scan that gets nothing gives up with what was wrong; a definite refusal ends it at once', async (t) => {
  let result: number = ResultCode.QUERY_QUEUE_FULL
  let queries = 0
  const client = await scanned(t, (_, socket) => {
    queries++
    socket.write(framed([part(Info3.LAST, 0, result)]))
  })
  await assert.rejects(all(client, { patienceMs: 200 }), (error: RecordError) => error.result === ResultCode.QUERY_QUEUE_FULL)
  assert.ok(queries > 2)
  queries = 0
  result = ResultCode.UNSUPPORTED_FEATURE
  await assert.rejects(all(client), (error: RecordError) => error.result === ResultCode.UNSUPPORTED_FEATURE)
  assert.equal(queries, 1)
})

test('a node that falls silent is asked again; a slow caller is no silence', async (t) => {
  let queries = 0
  const client = await scanned(t, (request, socket) => {
    const parts = answer(request)
    queries++
    send(socket, queries === 1 ? parts.slice(0, 500) : parts)
  })
  let slept = false
  const found: string[] = []
  for await (const { records } of client.scanPages('test', { socketTimeoutMs: 100 })) {
    if (!slept) await new Promise((resolve) => setTimeout(resolve, 300))
    slept = true
    found.push(...records.map(({ digest }) => digest.toString('hex')))
  }
  assert.deepEqual(found.sort(), hex(digests))
  assert.equal(queries, 2)
})

test('bytes that are no answer fail the node, and nothing of a wrong partition is believed', async (t) => {
  const client = await scanned(t, (_, socket) => socket.write(framed([Buffer.alloc(30, 7)])))
  await assert.rejects(all(client, { patienceMs: 50 }), (error: RecordError) => error.result === ClientCode.CONNECTION)
  const lying = await scanned(t, (_, socket) => socket.write(framed([part(0, 1, 0, digests[0]!)])))
  const partitions = new Map([[(partitionOf(digests[0]!) + 1) % PARTITIONS, undefined]])
  await assert.rejects(all(lying, { patienceMs: 50, partitions }), /which was not asked for/)
})

test('ending a scan early, or by a signal, ends its connections', async (t) => {
  let closed = 0
  const client = await scanned(t, (request, socket) => {
    socket.once('close', () => closed++)
    send(socket, answer(request).slice(0, 600))
  })
  for await (const { records } of client.scanPages('test')) if (records.length > 0) break
  const abort = new AbortController()
  const scan = all(client, { signal: abort.signal })
  setTimeout(() => abort.abort(), 50)
  await assert.rejects(scan)
  for (let i = 0; i < 100 && closed < 2; i++) await new Promise((resolve) => setTimeout(resolve, 10))
  assert.equal(closed, 2)
})
