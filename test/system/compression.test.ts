// Compressed messages both ways: what clients compress, what they take compressed, and what nobody should send.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import { NodeProcess } from '../support/node-process.js'
import { connectOfficial, loadOfficialClient, type OfficialClient } from '../support/official-client.js'
import { runBatch, type RawRow } from '../support/wire-batch.js'
import { runQuery } from '../support/wire-query.js'
import {
  INFO1_COMPRESS, INFO1_GET_ALL, INFO1_READ, RawConnection, TYPE_COMPRESSED, TYPE_INFO, TYPE_MESSAGE, compressed, decodeMessage, frame, getAll, inflated, keyFields,
  message, putBlob, rawInfoPairs, type RawKey
} from '../support/wire.js'

const OK = 0
const PARAMETER = 4
const INFO3_LAST = 1

const TEXT = 'Zürich, Bern, Basel, Genf, Lausanne; '

let node: NodeProcess
let connection: RawConnection

function keyOf (n: number): RawKey {
  return { namespace: 'test', set: 'compression', digest: createHash('ripemd160').update(`compression/${n}`).digest() }
}

function getCompressed (key: RawKey): Buffer {
  return message({ info1: INFO1_READ | INFO1_GET_ALL | INFO1_COMPRESS, fields: keyFields(key) })
}

/** Of the namespace and, for batches, of the node. */
async function proto (kind: 'record' | 'query' | 'batch_index'): Promise<{ uncompressedPct: number, ratio: number }> {
  const pairs = await rawInfoPairs(node.port, kind === 'batch_index' ? 'statistics' : 'namespace/test')
  return { uncompressedPct: Number(pairs.get(`${kind}_proto_uncompressed_pct`)), ratio: Number(pairs.get(`${kind}_proto_compression_ratio`)) }
}

before(async () => {
  node = await NodeProcess.start({ name: 'compression' })
  connection = await RawConnection.open(node.port)
})

after(async () => {
  connection?.close()
  await node?.dispose()
})

describe('compressed messages', () => {
  test('a_compressed_write_is_carried_out_and_its_record_comes_back_in_either_form', async () => {
    const value = Buffer.from(TEXT.repeat(400))
    connection.send(compressed(putBlob(keyOf(1), 'b', value)))
    const put = await connection.receive()
    assert.deepEqual([put.type, decodeMessage(put).result], [TYPE_MESSAGE, OK])
    connection.send(getAll(keyOf(1)))
    const plain = await connection.receive()
    assert.equal(plain.type, TYPE_MESSAGE)
    connection.send(compressed(getCompressed(keyOf(1))))
    const reply = await connection.receive()
    assert.equal(reply.type, TYPE_COMPRESSED)
    assert.ok(reply.body.length < plain.body.length / 4, `${reply.body.length} of ${plain.body.length} bytes`)
    assert.deepEqual(inflated(reply), plain)
    assert.deepEqual(decodeMessage(plain).bins.get('b')?.value, value)
  })

  test('a_reply_that_is_small_or_gains_nothing_is_sent_as_it_is', async () => {
    const noise = Buffer.concat([...Array(64).keys()].map(n => createHash('sha256').update(`noise/${n}`).digest()))
    for (const [n, value] of [[2, Buffer.from('small')], [3, noise]] as const) {
      connection.send(putBlob(keyOf(n), 'b', value))
      assert.equal(decodeMessage(await connection.receive()).result, OK)
      const before = await proto('record')
      connection.send(getCompressed(keyOf(n)))
      const reply = await connection.receive()
      assert.deepEqual(decodeMessage(reply).bins.get('b')?.value, value)
      const after = await proto('record')
      assert.ok(after.uncompressedPct > before.uncompressedPct, `${before.uncompressedPct} then ${after.uncompressedPct}`)
      assert.equal(after.ratio, before.ratio)
    }
  })

  test('streams_that_lie_are_refused_and_the_connection_goes_on', async () => {
    const get = getAll(keyOf(1))
    const whole = compressed(get)
    const broken = Buffer.from(whole)
    broken[broken.length - 1]! ^= 0xff
    const bomb = compressed(Buffer.alloc(32 << 20), 100_000)
    const frames: Record<string, Buffer> = {
      'no size': frame(TYPE_COMPRESSED, Buffer.alloc(3)),
      'no stream': frame(TYPE_COMPRESSED, whole.subarray(8, 16)),
      garbage: frame(TYPE_COMPRESSED, Buffer.concat([whole.subarray(8, 16), createHash('sha256').update('garbage').digest()])),
      'a broken checksum': broken,
      'cut short': frame(TYPE_COMPRESSED, whole.subarray(8, whole.length - 9)),
      'bytes behind it': frame(TYPE_COMPRESSED, Buffer.concat([whole.subarray(8), Buffer.alloc(1)])),
      'less than announced': compressed(get, get.length + 1),
      'more than announced': compressed(get, get.length - 1),
      'more announced than a stream can hold': compressed(get, 100 << 20),
      'more announced than a frame may have': compressed(get, Number.MAX_SAFE_INTEGER),
      'a bomb': bomb,
      'info text': compressed(frame(TYPE_INFO, Buffer.from('node\n'.repeat(20)))),
      'a compressed message': compressed(whole),
      'no message at all': compressed(Buffer.alloc(100))
    }
    const refused = async () => Number((await rawInfoPairs(node.port, 'statistics')).get('early_tsvc_client_error'))
    const before = await refused()
    for (const [name, bytes] of Object.entries(frames)) {
      connection.send(Buffer.concat([bytes, get]))
      const reply = await connection.receive()
      assert.deepEqual([decodeMessage(reply).result, reply.body.readUInt8(3)], [PARAMETER, INFO3_LAST], name)
      assert.equal(decodeMessage(await connection.receive()).result, OK, `after ${name}`)
    }
    assert.equal(await refused() - before, Object.keys(frames).length)
  })

  test('batches_and_queries_are_compressed_frame_by_frame', async () => {
    const keys = Array.from({ length: 2_000 }, (_, n) => keyOf(1000 + n))
    const puts = keys.map((key): RawRow => ({ do: 'put', key, bin: 'n', value: 7n }))
    assert.equal((await runBatch(connection, puts)).result, OK)
    const gets = keys.map((key, n): RawRow => n === 0 ? { do: 'get', key } : { do: 'repeat', key })
    const plain = await runBatch(connection, gets)
    const answer = await runBatch(connection, gets, { info1: INFO1_COMPRESS })
    assert.deepEqual(answer.rows, plain.rows)
    const batches = await proto('batch_index')
    assert.ok(batches.ratio < 0.6, `ratio ${batches.ratio}`)

    const all = await runQuery(connection, { set: 'compression' })
    const same = await runQuery(connection, { set: 'compression', info1: INFO1_READ | INFO1_COMPRESS })
    assert.ok(same.records.length >= keys.length)
    assert.deepEqual([same.result, same.done.size, same.records], [OK, 4096, all.records])
    const queries = await proto('query')
    assert.ok(queries.ratio < 0.9 && queries.uncompressedPct < 100, JSON.stringify(queries))
  })
})

describe('the official client with compression', () => {
  const aerospike = loadOfficialClient()
  const policy = { compress: true, totalTimeout: 10_000 }
  let official: OfficialClient

  before(async () => { official = await connectOfficial(node.port) })

  after(() => {
    official?.close()
    aerospike.releaseEventLoop()
  })

  test('records_batches_and_queries_come_back_as_they_were_written', async () => {
    const set = 'compressed'
    const keys = Array.from({ length: 200 }, (_, n) => new aerospike.Key('test', set, n))
    const bins = (n: number) => ({ n, text: TEXT.repeat(20 + n % 7) })
    await Promise.all(keys.map((key, n) => official.put(key, bins(n), null, policy)))
    for (const [n, key] of keys.entries()) assert.deepEqual((await official.get(key, policy)).bins, bins(n))
    assert.ok((await proto('record')).ratio < 0.5)

    const rows = await official.batchRead(keys.map(key => ({ key, readAllBins: true })), policy)
    assert.deepEqual(rows.map(({ record }) => record.bins), keys.map((_, n) => bins(n)))

    const found = await official.query('test', set).results(policy)
    assert.deepEqual(found.map(record => record.bins).sort((a, b) => Number(a.n) - Number(b.n)), keys.map((_, n) => bins(n)))
    assert.ok((await proto('query')).ratio < 0.5)
  })
})
