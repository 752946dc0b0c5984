// A node as its users see it: the official client, and sockets that speak the protocol on their own terms.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { eventually } from '../support/eventually.js'
import { NodeProcess } from '../support/node-process.js'
import { codeOf, connectOfficial, loadOfficialClient, type OfficialClient, type OfficialKey } from '../support/official-client.js'
import {
  FRAME_HEADER_BYTES, INFO1_GET_ALL, INFO1_READ, MESSAGE_HEADER_BYTES, RawConnection, TYPE_INFO, TYPE_MESSAGE,
  decodeMessage, frame, frameHeader, getAll, keyFields, message, putInteger, rawInfoPairs, type RawKey
} from '../support/wire.js'

const NOT_FOUND = 2
const GENERATION = 3
const PARAMETER = 4
const RECORD_EXISTS = 5
const INCOMPATIBLE_TYPE = 12
const RECORD_TOO_BIG = 13
const NAMESPACE_UNKNOWN = 20

const PARTICLE_DOUBLE = 2

const MiB = 1024 * 1024
const BODY_BYTES_MAX = 128 * MiB

const aerospike = loadOfficialClient()
let node: NodeProcess
let client: OfficialClient

before(async () => {
  node = await NodeProcess.start({ name: 'records' })
  client = await connectOfficial(node.port)
})

after(async () => {
  client?.close()
  aerospike.releaseEventLoop()
  await node?.dispose()
})

let keys = 0
function freshKey (): OfficialKey {
  return new aerospike.Key('test', 'records', `key-${++keys}`)
}

function freshRawKey (): RawKey {
  return { namespace: 'test', set: 'raw', digest: randomBytes(20) }
}

describe('values', () => {
  const values: Record<string, unknown> = {
    zero: 0,
    negative: -1,
    safe: Number.MAX_SAFE_INTEGER,
    largest: 9223372036854775807n,
    smallest: -9223372036854775808n,
    fraction: 3.14159,
    text: 'Zürich 東京 🌖',
    empty: '',
    bytes: Buffer.from([0, 1, 2, 254, 255]),
    yes: true,
    no: false,
    list: [1, 'two', [3, [4, { five: 6 }]], Buffer.from('seven'), 8.5, true, null],
    map: { name: 'Tokyo', nested: { list: [1, 2, 3], deeper: { deepest: 'x' } }, population: 8336599 },
    emptyList: [],
    emptyMap: {}
  }
  for (const [name, value] of Object.entries(values)) {
    test(`a_value_comes_back_as_it_was_written: ${name}`, async () => {
      const key = freshKey()
      await client.put(key, { bin: value })
      assert.deepEqual((await client.get(key)).bins, { bin: value })
    })
  }

  test('a_double_without_a_fraction_stays_a_double', async () => {
    // JavaScript cannot tell 1.0 from 1, so look at the particle itself.
    const raw = freshRawKey()
    await client.put(new aerospike.Key('test', 'raw', null, raw.digest), { bin: new aerospike.Double(1.0) })
    const connection = await RawConnection.open(node.port)
    connection.send(getAll(raw))
    const { bins } = decodeMessage(await connection.receive())
    connection.close()
    assert.equal(bins.get('bin')?.particle, PARTICLE_DOUBLE)
    assert.equal(bins.get('bin')?.value.readDoubleBE(), 1)
  })

  test('geojson_comes_back_as_the_same_shape', async () => {
    const key = freshKey()
    const shape = { type: 'Point', coordinates: [139.69171, 35.6895] }
    await client.put(key, { place: new aerospike.GeoJSON(shape) })
    const { place } = (await client.get(key)).bins
    assert.deepEqual(new aerospike.GeoJSON(place as string | object).value(), shape)
  })

  test('many_bins_of_many_types_share_a_record', async () => {
    const key = freshKey()
    const bins = Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`b${i}`, i % 3 === 0 ? i : i % 3 === 1 ? `text ${i}` : [i, { i }]]))
    await client.put(key, bins)
    assert.deepEqual((await client.get(key)).bins, bins)
  })

  test('a_null_bin_is_removed_and_the_last_one_takes_the_record_along', async () => {
    const key = freshKey()
    await client.put(key, { a: 1, b: 2 })
    await client.put(key, { a: null })
    assert.deepEqual((await client.get(key)).bins, { b: 2 })
    await client.put(key, { b: null })
    assert.equal(await client.exists(key), false)
  })

  test('select_returns_only_the_bins_asked_for', async () => {
    const key = freshKey()
    await client.put(key, { a: 1, b: 2, c: 3 })
    assert.deepEqual((await client.select(key, ['a', 'c', 'none'])).bins, { a: 1, c: 3 })
  })

  test('integer_and_text_keys_and_binary_keys_name_different_records', async () => {
    const named = [7, '7', Buffer.from('7')].map(key => new aerospike.Key('test', 'kinds', key))
    for (const [i, key] of named.entries()) await client.put(key, { i })
    for (const [i, key] of named.entries()) assert.equal((await client.get(key)).bins.i, i)
  })
})

describe('policies', () => {
  const { exists, gen } = aerospike.policy

  test('create_refuses_a_record_that_exists', async () => {
    const key = freshKey()
    await client.put(key, { a: 1 }, {}, { exists: exists.CREATE })
    assert.equal(await codeOf(client.put(key, { a: 2 }, {}, { exists: exists.CREATE })), RECORD_EXISTS)
    assert.deepEqual((await client.get(key)).bins, { a: 1 })
  })

  test('update_and_replace_refuse_a_record_that_does_not_exist', async () => {
    assert.equal(await codeOf(client.put(freshKey(), { a: 1 }, {}, { exists: exists.UPDATE })), NOT_FOUND)
    assert.equal(await codeOf(client.put(freshKey(), { a: 1 }, {}, { exists: exists.REPLACE })), NOT_FOUND)
  })

  test('update_merges_bins_and_create_or_replace_drops_the_others', async () => {
    const key = freshKey()
    await client.put(key, { a: 1, b: 1 })
    await client.put(key, { b: 2 }, {}, { exists: exists.UPDATE })
    assert.deepEqual((await client.get(key)).bins, { a: 1, b: 2 })
    await client.put(key, { c: 3 }, {}, { exists: exists.CREATE_OR_REPLACE })
    assert.deepEqual((await client.get(key)).bins, { c: 3 })
  })

  test('a_write_with_an_old_generation_is_refused', async () => {
    const key = freshKey()
    await client.put(key, { a: 1 })
    await client.put(key, { a: 2 })
    assert.equal((await client.get(key)).gen, 2)
    assert.equal(await codeOf(client.put(key, { a: 3 }, { gen: 1 }, { gen: gen.EQ })), GENERATION)
    await client.put(key, { a: 4 }, { gen: 2 }, { gen: gen.EQ })
    const { bins, gen: generation } = await client.get(key)
    assert.deepEqual({ bins, generation }, { bins: { a: 4 }, generation: 3 })
  })

  test('of_concurrent_writers_with_the_same_generation_exactly_one_wins', async () => {
    const key = freshKey()
    await client.put(key, { winner: -1 })
    const outcomes = await Promise.allSettled(Array.from({ length: 16 }, (_, winner) =>
      client.put(key, { winner }, { gen: 1 }, { gen: gen.EQ })))
    const winners = outcomes.flatMap(({ status }, i) => status === 'fulfilled' ? [i] : [])
    assert.equal(winners.length, 1)
    assert.equal((await client.get(key)).bins.winner, winners[0])
  })
})

describe('time to live', () => {
  test('a_record_is_gone_when_its_time_is_over', async () => {
    const key = freshKey()
    await client.put(key, { a: 1 }, { ttl: 1 })
    assert.equal((await client.get(key)).bins.a, 1)
    await eventually('the record has expired', () => client.exists(key), exists => !exists, { timeoutMs: 5_000, intervalMs: 100 })
    assert.equal(await codeOf(client.get(key)), NOT_FOUND)
  })

  test('a_read_tells_the_time_that_is_left', async () => {
    const key = freshKey()
    await client.put(key, { a: 1 }, { ttl: 1000 })
    const { ttl } = await client.get(key)
    assert.ok(ttl > 990 && ttl <= 1000, `ttl is ${ttl}`)
  })

  test('a_write_that_says_never_takes_the_time_limit_away', async () => {
    const key = freshKey()
    await client.put(key, { a: 1 }, { ttl: 1000 })
    await client.put(key, { a: 2 }, { ttl: aerospike.ttl.NEVER_EXPIRE })
    assert.equal((await client.get(key)).ttl, aerospike.ttl.NEVER_EXPIRE)
  })

  test('touch_renews_the_time_and_counts_a_generation', async () => {
    const key = freshKey()
    await client.put(key, { a: 1 }, { ttl: 10 })
    await client.operate(key, [aerospike.operations.touch(500)])
    const { ttl, gen } = await client.get(key)
    assert.ok(ttl > 490 && ttl <= 500, `ttl is ${ttl}`)
    assert.equal(gen, 2)
  })
})

describe('operate', () => {
  const { operations } = aerospike

  test('operations_apply_in_order_and_reads_see_earlier_writes', async () => {
    const key = freshKey()
    await client.put(key, { n: 1, s: 'b' })
    const { bins } = await client.operate(key, [
      operations.incr('n', 41),
      operations.append('s', 'c'),
      operations.prepend('s', 'a'),
      operations.write('w', 'new'),
      operations.read('n'),
      operations.read('s'),
      operations.read('w')
    ])
    assert.deepEqual(bins, { n: 42, s: 'abc', w: 'new' })
  })

  test('a_failing_operation_changes_nothing', async () => {
    const key = freshKey()
    await client.put(key, { n: 1, s: 'text' })
    assert.equal(await codeOf(client.operate(key, [operations.incr('n', 1), operations.incr('s', 1)])), INCOMPATIBLE_TYPE)
    const { bins, gen } = await client.get(key)
    assert.deepEqual({ bins, gen }, { bins: { n: 1, s: 'text' }, gen: 1 })
  })

  test('delete_inside_operate_removes_the_record_after_reading_it', async () => {
    const key = freshKey()
    await client.put(key, { n: 1 })
    const { bins } = await client.operate(key, [operations.read('n'), operations.delete()])
    assert.deepEqual(bins, { n: 1 })
    assert.equal(await client.exists(key), false)
  })

  test('concurrent_increments_are_all_counted', async () => {
    const key = freshKey()
    await client.put(key, { n: 0 })
    await Promise.all(Array.from({ length: 8 }, async () => {
      for (let i = 0; i < 25; i++) await client.operate(key, [operations.incr('n', 1)])
    }))
    assert.equal((await client.get(key)).bins.n, 200)
  })
})

describe('refusals', () => {
  test('a_removed_record_is_not_there_to_remove_again', async () => {
    const key = freshKey()
    await client.put(key, { a: 1 })
    await client.remove(key)
    assert.equal(await codeOf(client.remove(key)), NOT_FOUND)
    assert.equal(await codeOf(client.get(key)), NOT_FOUND)
  })

  test('an_unknown_namespace_has_its_own_code', async () => {
    // The client itself looks the namespace up in its map, so ask without it.
    const connection = await RawConnection.open(node.port)
    connection.send(getAll({ ...freshRawKey(), namespace: 'nowhere' }))
    assert.equal(decodeMessage(await connection.receive()).result, NAMESPACE_UNKNOWN)
    connection.close()
  })

  test('a_record_over_the_limit_is_too_big_and_the_old_one_stays', async () => {
    const key = freshKey()
    await client.put(key, { a: 'small' })
    assert.equal(await codeOf(client.put(key, { a: Buffer.alloc(2 * MiB) })), RECORD_TOO_BIG)
    assert.deepEqual((await client.get(key)).bins, { a: 'small' })
  })
})

describe('frames', () => {
  test('pipelined_requests_are_answered_in_order', async () => {
    const connection = await RawConnection.open(node.port)
    const rawKeys = Array.from({ length: 500 }, freshRawKey)
    // One write to the socket: the node finds many requests in one read, and the last one cut by the end of a buffer.
    connection.send(Buffer.concat([
      ...rawKeys.map((key, i) => putInteger(key, 'n', BigInt(i))),
      ...rawKeys.map(getAll)
    ]))
    for (const [i] of rawKeys.entries()) assert.equal(decodeMessage(await connection.receive()).result, 0, `write ${i}`)
    for (const [i] of rawKeys.entries()) {
      const { result, bins } = decodeMessage(await connection.receive())
      assert.equal(result, 0, `read ${i}`)
      assert.equal(bins.get('n')?.value.readBigInt64BE(), BigInt(i))
    }
    connection.close()
  })

  test('info_between_record_requests_keeps_its_place', async () => {
    const connection = await RawConnection.open(node.port)
    const key = freshRawKey()
    const info = frame(TYPE_INFO, Buffer.from('status\n'))
    const round = Buffer.concat([putInteger(key, 'n', 1n), info, getAll(key), info, info])
    connection.send(Buffer.concat(Array.from({ length: 20 }, () => round)))
    for (let i = 0; i < 20; i++) {
      const types = []
      for (let reply = 0; reply < 5; reply++) types.push((await connection.receive()).type)
      assert.deepEqual(types, [TYPE_MESSAGE, TYPE_INFO, TYPE_MESSAGE, TYPE_INFO, TYPE_INFO])
    }
    connection.close()
  })

  test('a_frame_that_arrives_byte_by_byte_is_answered', async () => {
    const connection = await RawConnection.open(node.port)
    for (const byte of putInteger(freshRawKey(), 'n', 5n)) {
      connection.send(Buffer.from([byte]))
      await new Promise(resolve => setImmediate(resolve))
    }
    assert.equal(decodeMessage(await connection.receive()).result, 0)
    connection.close()
  })

  /** Frames after which the rest of the stream cannot be trusted. */
  const fatal: Record<string, Buffer> = {
    'unknown version': frame(TYPE_MESSAGE, Buffer.alloc(64), 3),
    'unknown type': frame(77, Buffer.alloc(64)),
    'length over the limit': frameHeader(TYPE_MESSAGE, BODY_BYTES_MAX + 1),
    'longest length that fits the field': frameHeader(TYPE_MESSAGE, 2 ** 48 - 1),
    'longest info length': frameHeader(TYPE_INFO, 2 ** 48 - 1)
  }
  for (const [name, bytes] of Object.entries(fatal)) {
    test(`a_malformed_frame_closes_its_own_connection_and_is_counted: ${name}`, async () => {
      const healthy = await RawConnection.open(node.port)
      const key = freshRawKey()
      healthy.send(putInteger(key, 'n', 1n))
      assert.equal(decodeMessage(await healthy.receive()).result, 0)
      const before = Number((await rawInfoPairs(node.port, 'statistics')).get('demarshal_error'))

      const broken = await RawConnection.open(node.port)
      broken.send(bytes)
      await broken.closedByNode()

      healthy.send(getAll(key))
      assert.equal(decodeMessage(await healthy.receive()).result, 0)
      healthy.close()
      const counted = await rawInfoPairs(node.port, 'statistics')
      assert.equal(Number(counted.get('demarshal_error')), before + 1)
    })
  }

  const key = freshRawKey()
  const [namespaceField = Buffer.alloc(0), setField = Buffer.alloc(0), digestField = Buffer.alloc(0)] = keyFields(key)
  const overlong = Buffer.from(digestField)
  overlong.writeUInt32BE(0xFFFF_FFF0, 0)
  const read = { info1: INFO1_READ | INFO1_GET_ALL }
  const shortHeader = Buffer.alloc(MESSAGE_HEADER_BYTES)
  shortHeader.writeUInt8(3, 0)
  const trailing = message({ ...read, fields: keyFields(key) })
  /** Complete frames whose inside is wrong: the node may answer PARAMETER or close, but not hang, crash or obey. */
  const nonsense: Record<string, Buffer> = {
    'body shorter than a header': frame(TYPE_MESSAGE, Buffer.from([22, 0, 0])),
    'empty body': frame(TYPE_MESSAGE, Buffer.alloc(0)),
    'wrong header size': frame(TYPE_MESSAGE, shortHeader),
    'more fields than there are': message({ ...read, fields: keyFields(key), claimedFields: 9 }),
    'most fields that can be claimed': message({ ...read, fields: keyFields(key), claimedFields: 0xFFFF }),
    'more operations than there are': message({ ...read, fields: keyFields(key), claimedOperations: 0xFFFF }),
    'field longer than the frame': message({ ...read, fields: [namespaceField, setField, overlong] }),
    'field of no size': message({ ...read, fields: [namespaceField, Buffer.alloc(5)] }),
    'digest of the wrong size': message({ ...read, fields: [namespaceField, Buffer.from([0, 0, 0, 4, 4, 1, 2, 3])] }),
    'operation shorter than its head': message({ ...read, fields: keyFields(key), operations: [Buffer.from([0, 0, 0, 1, 1])] }),
    'name longer than its operation': message({ ...read, fields: keyFields(key), operations: [Buffer.from([0, 0, 0, 4, 1, 0, 0, 12])] }),
    'bytes behind the end': frame(TYPE_MESSAGE, Buffer.concat([trailing.subarray(FRAME_HEADER_BYTES), Buffer.from('more')]))
  }
  for (const [name, bytes] of Object.entries(nonsense)) {
    test(`a_frame_that_lies_about_its_inside_is_refused: ${name}`, async () => {
      const connection = await RawConnection.open(node.port)
      connection.send(bytes)
      const refusal = await Promise.race([
        connection.receive().then(reply => decodeMessage(reply).result, () => 'closed'),
        connection.closedByNode().then(() => 'closed', () => 'hung')
      ])
      assert.ok(refusal === 'closed' || refusal === PARAMETER, `answered ${refusal}`)
      connection.close()
      assert.equal(await node.info('status'), 'ok')
    })
  }

  test('a_promised_length_does_not_take_memory_before_the_bytes_come', { skip: process.platform !== 'linux' && 'reads /proc' }, async () => {
    const residentBytes = (): number => {
      const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${node.pid}/status`, 'utf8'))?.[1]
      return Number(kib) * 1024
    }
    const before = residentBytes()
    const connections = await Promise.all(Array.from({ length: 32 }, () => RawConnection.open(node.port)))
    for (const connection of connections) connection.send(Buffer.concat([frameHeader(TYPE_MESSAGE, BODY_BYTES_MAX - 1), Buffer.alloc(100)]))
    await new Promise(resolve => setTimeout(resolve, 500))
    const grown = residentBytes() - before
    for (const connection of connections) connection.close()
    assert.ok(grown < 256 * MiB, `32 promises of 128 MiB took ${Math.round(grown / MiB)} MiB`)
    assert.equal(await node.info('status'), 'ok')
  })
})
