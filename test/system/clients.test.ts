// Two clients that share no code agree about what a node holds: the official one, and ours in src/client, which XDR, the
// connectors and the command line use.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { Client, Double, GeoJSON, RecordError, op, type Key, type Value } from '../../src/client/index.js'
import { NodeProcess } from '../support/node-process.js'
import { connectOfficial, loadOfficialClient, type OfficialClient, type OfficialKey } from '../support/official-client.js'

const aerospike = loadOfficialClient()
let node: NodeProcess
let official: OfficialClient
let ours: Client

before(async () => {
  node = await NodeProcess.start({ name: 'clients' })
  official = await connectOfficial(node.port)
  ours = await Client.connect({ hosts: [{ host: '127.0.0.1', port: node.port }] })
})

after(async () => {
  official?.close()
  await ours?.close()
  aerospike.releaseEventLoop()
  await node?.dispose()
})

let keys = 0
/** The same record, as each client names it. */
function freshKeys (key: string | number | Buffer = `key-${++keys}`): { theirs: OfficialKey, our: Key } {
  return { theirs: new aerospike.Key('test', 'clients', key), our: { namespace: 'test', set: 'clients', key } }
}

describe('two clients', () => {
  const values: Record<string, { value: Value, seen?: unknown }> = {
    integer: { value: -42 },
    'large integer': { value: 9223372036854775807n },
    double: { value: 2.5 },
    text: { value: 'Zürich 東京' },
    bytes: { value: Buffer.from([0, 1, 255]) },
    boolean: { value: true },
    list: { value: [1, 'two', [3.5, { four: [5] }], null, false] },
    map: { value: { a: 1, b: { c: ['d', 2n ** 62n] } } },
    'whole double': { value: new Double(3), seen: 3 }
  }
  for (const [name, { value, seen = value }] of Object.entries(values)) {
    test(`what_ours_writes_the_official_one_reads: ${name}`, async () => {
      const { theirs, our } = freshKeys()
      await ours.put(our, { bin: value })
      assert.deepEqual((await official.get(theirs)).bins, { bin: seen })
      assert.deepEqual((await ours.get(our))?.bins, { bin: value })
    })
  }

  test('what_the_official_one_writes_ours_reads', async () => {
    const { theirs, our } = freshKeys()
    const bins = { n: 1, text: 'x', bytes: Buffer.from('y'), list: [1, ['z']], map: { k: { l: 2.5 } }, yes: true }
    await official.put(theirs, bins)
    assert.deepEqual((await ours.get(our))?.bins, bins)
  })

  test('geojson_is_the_same_for_both', async () => {
    const { theirs, our } = freshKeys()
    const shape = { type: 'Point', coordinates: [8.54, 47.37] }
    await ours.put(our, { place: new GeoJSON(shape) })
    const { place } = (await official.get(theirs)).bins
    assert.deepEqual(new aerospike.GeoJSON(place as string | object).value(), shape)
    assert.deepEqual(((await ours.get(our))?.bins.place as GeoJSON).toJSON(), shape)
  })

  test('both_derive_the_same_digest_from_every_kind_of_key', async () => {
    for (const key of ['text', 'Zürich', 0, -1, 2 ** 40, Buffer.from([0, 9, 255])]) {
      const { theirs, our } = freshKeys(key)
      // Not the key's own bytes: the official client ends a string at its first NUL.
      const name = Buffer.isBuffer(key) ? key.toString('hex') : String(key)
      await ours.put(our, { name })
      assert.equal((await official.get(theirs)).bins.name, name)
    }
  })

  test('generation_and_expiry_are_the_same_for_both', async () => {
    const { theirs, our } = freshKeys()
    await ours.put(our, { a: 1 }, { ttl: 500 })
    await ours.operate(our, [op.add('a', 1)], { ttl: 500 })
    const { gen, ttl, bins } = await official.get(theirs)
    assert.deepEqual({ gen, bins }, { gen: 2, bins: { a: 2 } })
    assert.ok(ttl > 490 && ttl <= 500, `ttl is ${ttl}`)
    assert.equal((await ours.exists(our))?.generation, 2)
  })

  test('policies_of_ours_refuse_as_they_should', async () => {
    const { our } = freshKeys()
    assert.equal(await ours.get(our), null)
    assert.equal(await ours.remove(our), false)
    await ours.put(our, { a: 1 }, { exists: 'create-only' })
    await assert.rejects(ours.put(our, { a: 2 }, { exists: 'create-only' }), (error: RecordError) => error.code === 'RECORD_EXISTS')
    await assert.rejects(ours.put(our, { a: 2 }, { generation: 7 }), (error: RecordError) => error.code === 'GENERATION')
    await ours.put(our, { b: 2 }, { exists: 'replace' })
    assert.deepEqual((await ours.get(our))?.bins, { b: 2 })
    assert.equal(await ours.remove(our), true)
  })

  test('thousands_of_pipelined_requests_of_ours_are_all_answered', async () => {
    const indexes = Array.from({ length: 5_000 }, (_, i) => i)
    const key = (i: number): Key => ({ namespace: 'test', set: 'many', key: i })
    await Promise.all(indexes.map(i => ours.put(key(i), { i }, { timeoutMs: 20_000 })))
    const records = await Promise.all(indexes.map(i => ours.get(key(i), { timeoutMs: 20_000 })))
    assert.deepEqual(records.map(record => record?.bins.i), indexes)
  })
})
