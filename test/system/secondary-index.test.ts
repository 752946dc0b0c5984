// Secondary indexes of a real node: how they come and go, and what queries by them find.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import { inspect } from 'node:util'
import { Client, GeoJSON, RawString, digestOf, encodeMsgpack, type Bins, type Value } from '../../src/client/index.js'
import { eventually } from '../support/eventually.js'
import { NodeProcess, fileNamespace, memoryNamespace } from '../support/node-process.js'
import { rangeBytes, resumeValues, whereFields, type RawWhere } from '../support/wire-index.js'
import { queryField, runPages, runQuery, type RawQuery } from '../support/wire-query.js'
import { RawConnection, rawInfoPairs } from '../support/wire.js'

const SET = 'people'
const PEOPLE = 400
const SHORT_QUERY = 5
const NO_BINS = 33

const PARAMETER = 4
const GEO_INVALID = 160
const INDEX_NOT_FOUND = 201

let node: NodeProcess
let client: Client
let connection: RawConnection

interface Person {
  age: number
  name: string
  tags: string[]
  marks: Record<string, number>
  photo: Buffer
  /** Longitude and latitude. */
  place: readonly [number, number]
  city: string
  zips: number[]
  /** Not of one type in all records. */
  mixed: number | string
}

function person (n: number): Person {
  return {
    age: n % 80 - 10,
    name: `name-${n % 37}`,
    tags: [`t${n % 5}`, `u${n % 7}`, `t${n % 5}`],
    marks: { maths: n % 11, [`subject-${n % 3}`]: n % 13 },
    photo: Buffer.of(n % 19, 0, n % 19),
    place: [10 + n % 20, 40 + Math.floor(n / 20)],
    city: `city-${n % 17}`,
    zips: [n % 23, n % 29],
    mixed: n % 3 === 0 ? `text-${n % 10}` : n % 10
  }
}

/** Half a degree around a place. */
function boxAround ([longitude, latitude]: readonly [number, number], half = 0.5): string {
  const corners = [[-half, -half], [half, -half], [half, half], [-half, half], [-half, -half]].map(([x, y]) => [longitude + x!, latitude + y!])
  return JSON.stringify({ type: 'Polygon', coordinates: [corners] })
}

function pointAt (place: readonly [number, number]): string {
  return JSON.stringify({ type: 'Point', coordinates: place })
}

function binsOf ({ place, city, zips, ...rest }: Person): Bins {
  return { ...rest, place: new GeoJSON(pointAt(place)), area: new GeoJSON(boxAround(place)), doc: { address: { city, zips } } }
}

const people = Array.from({ length: PEOPLE }, (_, n) => person(n))
const digests = people.map((_, n) => digestOf(SET, n).toString('hex'))

function context (...keys: string[]): string {
  return encodeMsgpack(keys.flatMap((key) => [0x22, key])).toString('base64')
}

function expression (value: Value): string {
  return encodeMsgpack(value).toString('base64')
}

const bin = (type: number, name: string): Value => [81, type, new RawString(name)]
const CITY = context('address', 'city')
const ZIPS = context('address', 'zips')
/** The age in ten years. */
const LATER = expression([20, bin(2, 'age'), 10])

const INDEXES: Record<string, string> = {
  age: 'bin=age;type=numeric',
  name: 'bin=name;type=string',
  photo: 'bin=photo;type=blob',
  tags: 'bin=tags;type=string;indextype=list',
  subjects: 'bin=marks;type=string;indextype=mapkeys',
  marks: 'bin=marks;type=numeric;indextype=mapvalues',
  place: 'bin=place;type=geo2dsphere',
  area: 'bin=area;type=geo2dsphere',
  city: `context=${CITY};bin=doc;type=string`,
  zips: `indextype=list;context=${ZIPS};bin=doc;type=numeric`,
  later: `exp=${LATER};type=numeric`,
  mixed: 'bin=mixed;type=numeric'
}

async function ready (name: string, namespace = 'test'): Promise<Map<string, string>> {
  return await eventually(`${name} is built`, () => rawInfoPairs(node.port, `sindex-stat:namespace=${namespace};indexname=${name}`), (stat) => stat.get('load_pct') === '100')
}

async function create (name: string, parameters: string, { namespace = 'test', set = SET } = {}): Promise<void> {
  assert.equal(await node.info(`sindex-create:namespace=${namespace};set=${set};indexname=${name};${parameters}`), 'ok')
  await ready(name, namespace)
}

async function drop (name: string, namespace = 'test'): Promise<void> {
  assert.equal(await node.info(`sindex-delete:namespace=${namespace};indexname=${name}`), 'ok')
}

function query (where: RawWhere, more: RawQuery = {}): ReturnType<typeof runQuery> {
  return runQuery(connection, { set: SET, ...more, extra: [...whereFields(where), ...more.extra ?? []] })
}

/** Every partition done; each record once. */
async function found (where: RawWhere, more: RawQuery = {}): Promise<string[]> {
  const answer = await query(where, more)
  assert.equal(answer.result, 0, inspect(where))
  assert.equal(answer.done.size, 4096)
  const came = answer.records.map(({ digest }) => digest)
  assert.equal(new Set(came).size, came.length, 'a record came twice')
  return came.sort()
}

function those (matches: (person: Person) => boolean): string[] {
  return digests.filter((_, n) => matches(people[n]!)).sort()
}

/** Metres between two places on a sphere. */
function distance ([aLongitude, aLatitude]: readonly [number, number], [bLongitude, bLatitude]: readonly [number, number]): number {
  const radians = (degrees: number): number => degrees * Math.PI / 180
  const half = (a: number, b: number): number => Math.sin(radians(b - a) / 2) ** 2
  return 2 * 6_371_000 * Math.asin(Math.sqrt(half(aLatitude, bLatitude) + Math.cos(radians(aLatitude)) * Math.cos(radians(bLatitude)) * half(aLongitude, bLongitude)))
}

async function connect (): Promise<void> {
  connection?.close()
  await client?.close()
  connection = await RawConnection.open(node.port)
  client = await Client.connect({ hosts: [{ host: '127.0.0.1', port: node.port }], timeoutMs: 10_000 })
}

before(async () => {
  node = await NodeProcess.start({
    name: 'sindex',
    service: { 'sindex-gc-period': '1s' },
    namespaces: (directory) => [
      fileNamespace(directory, { storage: { 'post-write-cache': 0, 'commit-to-device': true }, more: { 'nsup-period': 1 } }), memoryNamespace('memory')
    ]
  })
  await connect()
})

after(async () => {
  connection?.close()
  await client?.close()
  await node?.dispose()
})

describe('secondary indexes', { concurrency: 1 }, () => {
  before(async () => {
    // Half of the records are there before their indexes, half of them come later.
    for (let n = 0; n < PEOPLE / 2; n++) await client.put({ namespace: 'test', set: SET, key: n }, binsOf(people[n]!))
    for (const [name, parameters] of Object.entries(INDEXES)) await create(name, parameters)
    for (let n = PEOPLE / 2; n < PEOPLE; n++) await client.put({ namespace: 'test', set: SET, key: n }, binsOf(people[n]!))
    // Of another set, and so of no index but those of all sets.
    await client.put({ namespace: 'test', set: 'others', key: 0 }, binsOf(people[0]!))
  })

  test('find numbers by range and by value', async () => {
    for (const [low, high] of [[20, 29], [-10, -10], [-10, 69], [-(2n ** 63n), 2n ** 63n - 1n], [70, 1000], [5, 5]] as const) {
      assert.deepEqual(await found({ bin: 'age', integers: [low, high] }), those(({ age }) => BigInt(age) >= low && BigInt(age) <= high), `${low} to ${high}`)
    }
  })

  test('find texts and blobs by value', async () => {
    assert.deepEqual(await found({ bin: 'name', string: 'name-3' }), those(({ name }) => name === 'name-3'))
    assert.deepEqual(await found({ bin: 'name', string: 'nobody' }), [])
    assert.deepEqual(await found({ bin: 'name', string: '' }), [])
    assert.deepEqual(await found({ bin: 'photo', blob: Buffer.of(4, 0, 4) }), those(({ photo }) => photo[0] === 4))
  })

  test('find elements of lists, keys and values of maps, each record once', async () => {
    assert.deepEqual(await found({ bin: 'tags', string: 't3', collection: 'list' }), those(({ tags }) => tags.includes('t3')))
    assert.deepEqual(await found({ bin: 'marks', string: 'subject-1', collection: 'mapkeys' }), those(({ marks }) => 'subject-1' in marks))
    assert.deepEqual(await found({ bin: 'marks', integers: [2, 6], collection: 'mapvalues' }), those(({ marks }) => Object.values(marks).some((mark) => mark >= 2 && mark <= 6)))
  })

  test('find what lies within', async () => {
    assert.deepEqual(await found({ bin: 'doc', string: 'city-5', context: CITY }), those(({ city }) => city === 'city-5'))
    assert.deepEqual(await found({ bin: 'doc', integers: [3, 4], collection: 'list', context: ZIPS }), those(({ zips }) => zips.some((zip) => zip === 3 || zip === 4)))
  })

  test('find what an expression gives, and by the name of the index', async () => {
    const expected = those(({ age }) => age >= 20 && age <= 29)
    assert.deepEqual(await found({ integers: [30, 39], expression: LATER }), expected)
    assert.deepEqual(await found({ integers: [30, 39], name: 'later' }), expected)
    assert.deepEqual(await found({ integers: [20, 29], name: 'age' }), expected)
    assert.deepEqual(await found({ string: 't3', name: 'tags', collection: 'list' }), those(({ tags }) => tags.includes('t3')))
  })

  test('find places in a region, and regions around a place', async () => {
    const polygon = JSON.stringify({ type: 'Polygon', coordinates: [[[14.5, 44.5], [20.5, 44.5], [20.5, 50.5], [14.5, 50.5], [14.5, 44.5]]] })
    assert.deepEqual(await found({ bin: 'place', geo: polygon }), those(({ place: [longitude, latitude] }) => longitude >= 15 && longitude <= 20 && latitude >= 45 && latitude <= 50))
    const circle = JSON.stringify({ type: 'AeroCircle', coordinates: [[15, 45], 150_000] })
    const inCircle = those(({ place }) => distance(place, [15, 45]) <= 150_000)
    assert.ok(inCircle.length > 4)
    assert.deepEqual(await found({ bin: 'place', geo: circle }), inCircle)
    assert.deepEqual(await found({ bin: 'area', geo: pointAt([12.2, 47.2]) }), those(({ place: [longitude, latitude] }) => longitude === 12 && latitude === 47))
  })

  test('leave out values of another type, and records of other sets', async () => {
    assert.deepEqual(await found({ bin: 'mixed', integers: [-1000, 1000] }), those(({ mixed }) => typeof mixed === 'number'))
    await create('everywhere', 'bin=age;type=numeric', { set: 'others' })
    assert.deepEqual(await found({ bin: 'age', integers: [-10, -10] }, { set: 'others' }), [digestOf('others', 0).toString('hex')])
    await drop('everywhere')
    assert.equal(await node.info('sindex-create:namespace=test;indexname=everywhere;bin=age;type=numeric'), 'ok')
    await ready('everywhere')
    assert.equal((await found({ bin: 'age', integers: [-10, -10] }, { set: '' })).length, those(({ age }) => age === -10).length + 1)
    await drop('everywhere')
  })

  test('go together with a filter, and with fewer bins or none', async () => {
    const grown = expression([4, bin(2, 'age'), 25])
    assert.deepEqual(await found({ bin: 'age', integers: [20, 29], filter: grown }), those(({ age }) => age >= 25 && age <= 29))
    const { records } = await query({ bin: 'age', integers: [20, 29] }, { info1: NO_BINS })
    assert.ok(records.length > 0 && records.every(({ operations }) => operations === 0))
    const whole = (await query({ bin: 'age', integers: [20, 29] })).records
    assert.ok(whole.every(({ bins }) => bins.size === Object.keys(binsOf(people[0]!)).length))
    assert.ok(whole.every(({ bins }) => Number(bins.get('age')!.value.readBigInt64BE()) >= 20))
  })

  test('are asked in pages and behind digests, for some partitions or all', async () => {
    const expected = those(({ age }) => age >= 0 && age <= 49)
    const wanted: RawQuery = { set: SET, extra: whereFields({ bin: 'age', integers: [0, 49] }) }
    for (const [pageRecords, resume] of [[1n, resumeValues], [40n, undefined], [40n, resumeValues], [1000n, resumeValues]] as const) {
      // A page of one record is only asked for of a few.
      const query: RawQuery = pageRecords === 1n ? { set: SET, extra: whereFields({ bin: 'age', integers: [7, 9] }) } : wanted
      const records = await runPages(connection, query, pageRecords, resume)
      assert.deepEqual(records.map(({ digest }) => digest).sort(), pageRecords === 1n ? those(({ age }) => age >= 7 && age <= 9) : expected)
    }
    const partitionOf = (digest: string): number => Buffer.from(digest, 'hex').readUInt16LE(0) % 4096
    const some = [...new Set(expected.slice(0, 10).map(partitionOf))]
    const answer = await runQuery(connection, { ...wanted, partitions: some })
    assert.deepEqual(answer.records.map(({ digest }) => digest).sort(), expected.filter((digest) => some.includes(partitionOf(digest))))
    assert.deepEqual([...answer.done.keys()].sort((a, b) => a - b), some.sort((a, b) => a - b))
  })

  test('are counted', async () => {
    const before = await rawInfoPairs(node.port, 'namespace/test')
    await found({ bin: 'age', integers: [1, 2] })
    await found({ bin: 'age', integers: [1, 2] }, { info1: SHORT_QUERY })
    await found({ bin: 'age', integers: [1, 2] }, { info1: SHORT_QUERY })
    const after = await rawInfoPairs(node.port, 'namespace/test')
    const grown = (name: string): number => Number(after.get(name)) - Number(before.get(name))
    assert.deepEqual(['si_query_long_basic_complete', 'si_query_short_basic_complete', 'pi_query_long_basic_complete'].map(grown), [1, 2, 0])
    await eventually('their memory is counted', () => rawInfoPairs(node.port, 'namespace/test'), (stats) => Number(stats.get('sindex_used_bytes')) > 0)
  })

  test('tell what they hold', async () => {
    const expected: Record<string, [entries: number, perRecord: number]> = { age: [PEOPLE, 1], tags: [2 * PEOPLE, 2], mixed: [those(({ mixed }) => typeof mixed === 'number').length, 1] }
    for (const [name, [entries, perRecord]] of Object.entries(expected)) {
      const stat = await eventually(`${name} is measured`, () => ready(name), (seen) => seen.get('entries_per_rec') === String(perRecord))
      assert.equal(stat.get('entries'), String(entries), name)
      assert.ok(Number(stat.get('used_bytes')) >= 16 * entries, `${name}: ${stat.get('used_bytes')} bytes for ${entries} entries`)
    }
    const listed = (await node.info('sindex-list:namespace=test')).split(';')
    assert.equal(listed.length, Object.keys(INDEXES).length)
    assert.ok(listed.includes(`ns=test:indexname=city:set=${SET}:bin=doc:type=string:indextype=default:context=${CITY}:exp=null:state=RW`), listed.join('\n'))
    assert.ok(listed.includes(`ns=test:indexname=later:set=${SET}:bin=null:type=numeric:indextype=default:context=null:exp=${LATER}:state=RW`), listed.join('\n'))
    assert.match(await node.info(`sets/test/${SET}`), new RegExp(`:sindexes=${Object.keys(INDEXES).length}:`))
  })

  test('are refused as what is wrong with the request', async () => {
    const result = async (where: RawWhere, more: RawQuery = {}): Promise<number> => (await query(where, more)).result
    assert.equal(await result({ bin: 'nothing', integers: [1, 2] }), INDEX_NOT_FOUND)
    assert.equal(await result({ bin: 'age', integers: [1, 2] }, { set: 'nowhere' }), 0, 'nothing is found in a set that there is not')
    assert.equal(await result({ bin: 'age', string: '1' }), INDEX_NOT_FOUND)
    assert.equal(await result({ bin: 'tags', string: 't3' }), INDEX_NOT_FOUND, 'a list is not its elements')
    assert.equal(await result({ bin: 'doc', string: 'city-5' }), INDEX_NOT_FOUND, 'without the context')
    assert.equal(await result({ integers: [1, 2], name: 'nothing' }), INDEX_NOT_FOUND)
    assert.equal(await result({ bin: 'age', integers: [2, 1] }), PARAMETER)
    assert.equal(await result({ bin: 'name', string: 'x'.repeat(2048) }), PARAMETER)
    assert.equal(await result({ bin: 'place', geo: '{"type":"Nothing"}' }), GEO_INVALID)
    const whole = rangeBytes({ bin: 'age', integers: [1, 2] })
    const refusedBytes = async (bytes: Buffer): Promise<number> => (await runQuery(connection, { set: SET, extra: [queryField(22, bytes)] })).result
    for (let length = 0; length < whole.length; length++) assert.equal(await refusedBytes(whole.subarray(0, length)), PARAMETER, `cut at ${length}`)
    assert.equal(await refusedBytes(Buffer.concat([Buffer.of(2), whole.subarray(1)])), PARAMETER, 'two ranges')
    assert.equal(await refusedBytes(Buffer.concat([whole, Buffer.of(0)])), PARAMETER, 'a byte too many')
    assert.deepEqual(await found({ bin: 'age', integers: [5, 5] }), those(({ age }) => age === 5), 'the connection goes on')
  })

  test('of a whole set are made and taken away by enable-index, and serve queries of the set', async () => {
    const enable = (value: boolean): Promise<string> => node.info(`set-config:context=namespace;id=test;set=${SET};enable-index=${value}`)
    const bytes = async (): Promise<number> => Number((await rawInfoPairs(node.port, 'namespace/test')).get('set_index_used_bytes'))
    // What an index takes while it is empty (docs/guides/indexes.md).
    const EMPTY_BYTES = 160 << 10
    const listed = await node.info('sindex-list:namespace=test')
    assert.match(await node.info(`sets/test/${SET}`), /:index_populating=false:.*:enable-index=false:/)
    assert.equal(await enable(true), 'ok')
    await eventually('it is built', () => node.info(`sets/test/${SET}`), (set) => /:index_populating=false:.*:enable-index=true:/.test(set))
    await eventually('it takes memory', bytes, (now) => now >= EMPTY_BYTES)
    assert.equal(await node.info('sindex-list:namespace=test'), listed)
    const answer = await runQuery(connection, { set: SET })
    assert.deepEqual(answer.records.map(({ digest }) => digest).sort(), [...digests].sort())
    const name = `enable-index ${createHash('sha256').update(SET).digest('hex').slice(0, 40)}`
    for (const command of ['create', 'delete']) assert.match(await node.info(`sindex-${command}:namespace=test;indexname=${name};bin=a;type=numeric`), /^ERROR:4:.*enable-index/)
    assert.equal(await enable(false), 'ok')
    await eventually('its memory is given back', bytes, (now) => now < EMPTY_BYTES)
    assert.match(await node.info(`set-config:context=namespace;id=test;set=${SET};enable-index=perhaps`), /^ERROR:4:/)
  })

  test('of a whole set serve queries of the set', async () => {
    await create('all', 'indextype=set')
    const answer = await runQuery(connection, { set: SET })
    assert.deepEqual(answer.records.map(({ digest }) => digest).sort(), [...digests].sort())
    assert.equal(answer.done.size, 4096)
    assert.ok((await node.info('sindex-list:namespace=test')).endsWith(`;ns=test:indexname=all:set=${SET}:indextype=set`))
    await eventually('its entries are counted', () => ready('all'), (stat) => stat.get('entries') === String(PEOPLE))
    await drop('all')
  })

  test('follow changes, deletes, expiry and truncation', async () => {
    const set = 'moving'
    await create('moving', 'bin=v;type=numeric', { set })
    const at = (key: number) => ({ namespace: 'test', set, key })
    const values = async (): Promise<number[]> => {
      const { records } = await query({ bin: 'v', integers: [0, 1_000_000] }, { set })
      return records.map(({ bins }) => Number(bins.get('v')!.value.readBigInt64BE())).sort((a, b) => a - b)
    }
    for (let n = 0; n < 6; n++) await client.put(at(n), { v: n })
    await client.put(at(0), { v: 100 })
    await client.put(at(1), { v: 'no number' })
    await client.put(at(2), { v: null, other: 1 })
    await client.put(at(3), { other: 1 })
    assert.deepEqual(await values(), [3, 4, 5, 100])
    assert.deepEqual((await query({ bin: 'v', integers: [0, 0] }, { set })).records, [], 'under the value that it had')
    await client.remove(at(4))
    await client.remove(at(5), { durableDelete: true })
    assert.deepEqual(await values(), [3, 100])
    await client.put(at(6), { v: 6 }, { ttl: 1 })
    assert.deepEqual(await values(), [3, 6, 100])
    await eventually('it has expired', values, (seen) => seen.length === 2)
    const entries = (count: number) => eventually(`${count} entries are left`, () => ready('moving'), (stat) => stat.get('entries') === String(count))
    await entries(2)
    assert.equal(await node.info(`truncate:namespace=test;set=${set}`), 'ok')
    assert.deepEqual(await values(), [])
    await client.put(at(0), { v: 7 })
    assert.deepEqual(await values(), [7])
    await entries(1)
    await drop('moving')
  })

  test('are there again after a restart and after a kill, dropped ones are not', async () => {
    await create('short-lived', 'bin=age;type=string')
    await drop('short-lived')
    const list = await node.info('sindex-list')
    for (const again of [() => node.restart(), async () => { await node.kill(); await node.start() }]) {
      await again()
      await connect()
      for (const name of Object.keys(INDEXES)) await ready(name)
      assert.equal(await node.info('sindex-list'), list)
      assert.deepEqual(await found({ bin: 'age', integers: [20, 29] }), those(({ age }) => age >= 20 && age <= 29))
      assert.deepEqual(await found({ bin: 'tags', string: 't3', collection: 'list' }), those(({ tags }) => tags.includes('t3')))
      assert.deepEqual(await found({ integers: [30, 39], expression: LATER }), those(({ age }) => age >= 20 && age <= 29))
      assert.equal((await query({ bin: 'age', string: 'x' })).result, INDEX_NOT_FOUND)
    }
  })

  test('are refused for a query once they are dropped, and may be made anew', async () => {
    await drop('age')
    assert.equal((await query({ bin: 'age', integers: [1, 2] })).result, INDEX_NOT_FOUND)
    assert.equal(await node.info('sindex-exists:namespace=test;indexname=age'), 'false')
    await create('age', INDEXES.age!)
    assert.deepEqual(await found({ bin: 'age', integers: [1, 2] }), those(({ age }) => age === 1 || age === 2))
  })
})

describe('definitions of secondary indexes', { concurrency: 1 }, () => {
  const made = (parameters: string): Promise<string> => node.info(`sindex-create:namespace=memory;${parameters}`)

  test('are taken again, and kept against others of their name', async () => {
    for (const again of [1, 2, 3]) assert.equal(await made('set=s;indexname=one;bin=a;type=numeric'), 'ok', `time ${again}`)
    assert.equal(await made('set=s;indexname=one;indexdata=a,NUMERIC'), 'ok')
    for (const other of ['set=s;indexname=one;bin=b;type=numeric', 'set=s;indexname=one;bin=a;type=string', 'indexname=one;bin=a;type=numeric', 'set=s;indexname=one;bin=a;type=numeric;indextype=list']) {
      assert.match(await made(other), /^ERROR:200:/, other)
    }
    await ready('one', 'memory')
    assert.equal(await node.info('sindex-list:namespace=memory'), 'ns=memory:indexname=one:set=s:bin=a:type=numeric:indextype=default:context=null:exp=null:state=RW')
    await drop('one', 'memory')
  })

  test('that the engine cannot take are refused, and leave nothing', async () => {
    const number = expression([20, 1, 2])
    const refused = [
      'indexname=i;bin=a;type=numeric;context=AAAA', `indexname=i;bin=a;type=string;context=${expression('text')}`, 'indexname=i;exp=wQ==;type=numeric',
      `indexname=i;exp=${number};type=string`, `indexname=i;exp=${expression([20, 1, [81, 9, new RawString('a')]])};type=numeric`,
      'indexname=i;bin=a;type=geo2dsphere;indextype=mapkeys', `indexname=i;bin=a;type=numeric;context=${expression([0x10])}`
    ]
    for (const parameters of refused) assert.match(await made(parameters), /^ERROR:4:./, parameters)
    assert.equal(await node.info('sindex-list:namespace=memory'), '')
    await node.restart()
    await connect()
    assert.equal(await node.info('sindex-list:namespace=memory'), '')
  })

  test('are 256 in a namespace', async () => {
    for (let n = 0; n < 256; n++) assert.equal(await made(`indexname=i${n};bin=a;type=numeric;set=s${n}`), 'ok', `index ${n}`)
    assert.match(await made('indexname=more;bin=a;type=numeric'), /^ERROR:206:/)
    assert.equal((await node.info('sindex-list:namespace=memory')).split(';').length, 256)
    await drop('i7', 'memory')
    assert.equal(await made('indexname=more;bin=a;type=numeric'), 'ok')
    for (let n = 0; n < 256; n++) await drop(`i${n}`, 'memory')
    assert.match(await node.info('sindex-list:namespace=memory'), /^ns=memory:indexname=more:[^;]*$/)
    await drop('more', 'memory')
  })
})
