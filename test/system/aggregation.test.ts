// Stream functions over scans and queries, through our client, the official one and raw messages.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { Client, RecordError, type AggregateOptions, type Value } from '../../src/client/index.js'
import { eventually } from '../support/eventually.js'
import { NodeProcess, fileNamespace, memoryNamespace } from '../support/node-process.js'
import { connectOfficial, loadOfficialClient, type OfficialClient } from '../support/official-client.js'
import { packageRoot } from '../support/package-root.js'
import { tempDirectory } from '../support/temp.js'
import { queryField, queryFrame, type RawQuery } from '../support/wire-query.js'
import { RawConnection, rawInfo, rawInfoPairs } from '../support/wire.js'

const RECORDS = 100_000
const STORED = 5_000
const GROUPS = 7
const SUM = RECORDS * (RECORDS - 1) / 2
const IN_FLIGHT = 500

const PARAMETER = 4
const TIMEOUT = 9
const UDF_EXECUTION = 100
const ABORTED = 210
const SINDEX_NOT_FOUND = 201

/** Of records whose bin `i` is even. */
const EVEN = Buffer.from('9301931a935102a1690200', 'hex')
const NO_ARGUMENTS = Buffer.of(0x90)

/** `stuck` has instructions that each take long and never look at the clock. */
const MODULE = `
local function add(a, b) return a + b end

function count(s) return s : aggregate(0, function(n) return n + 1 end) : reduce(add) end

function sum(s, bin) return s : map(function(rec) return rec[bin] end) : reduce(add) end

function average(s, bin)
  local function gather(state, rec)
    state.sum = state.sum + rec[bin]
    state.count = state.count + 1
    return state
  end
  local function combine(a, b) return map { sum = a.sum + b.sum, count = a.count + b.count } end
  return s : aggregate(map { sum = 0, count = 0 }, gather) : reduce(combine) : map(function(state) return state.sum / state.count end)
end

function groups(s)
  local function tally(groups, rec)
    groups[rec.g] = (groups[rec.g] or 0) + 1
    return groups
  end
  return s : aggregate(map(), tally) : reduce(function(a, b) return map.merge(a, b, add) end)
end

function names(s, least) return s : filter(function(rec) return rec.i >= least end) : groupby(function(rec) return rec.g end) : map(map.size) end

function values(s, least) return s : filter(function(rec) return rec.i >= least end) : map(function(rec) return rec.i end) end

function texts(s, bytes) return s : map(function(rec) return ('x'):rep(bytes) end) end

function broken(s) return s : map(function(rec) return rec.i.field end) end

function writing(s) return s : map(function(rec) rec.i = 1 return aerospike:update(rec) end) end

function forever(s) return s : map(function(rec) while true do end end) end

function slow(s)
  return s : map(function(rec)
    local n = 0
    for i = 1, 100000 do n = n + i end
    return n
  end) : reduce(add)
end

function stuck(s)
  return s : map(function(rec)
    local s, x = (' '):rep((8 << 20) - 1) .. 1 ${'x = s + 0 '.repeat(1500)}
  end)
end

function touch(rec)
  rec.n = (rec.n or 0) + 1
  aerospike:update(rec)
  return rec.n
end
`

let node: NodeProcess
let client: Client
let directory: string

async function fill (namespace: string, set: string, records: number): Promise<void> {
  for (let n = 0; n < records; n += IN_FLIGHT) {
    await Promise.all(Array.from({ length: Math.min(IN_FLIGHT, records - n) }, (_, j) =>
      client.put({ namespace, set, key: n + j }, { i: n + j, g: (n + j) % GROUPS, text: 'a bin that nobody looks at' })))
  }
}

async function aggregate (name: string, args: Value[] = [], options: AggregateOptions = {}, namespace = 'test'): Promise<Value[]> {
  const values: Value[] = []
  for await (const value of client.aggregate(namespace, 'streams', name, args, { set: 'many', ...options })) values.push(value)
  return values
}

async function failureOf (values: Promise<Value[]>): Promise<RecordError> {
  return await values.then((values) => { throw new Error(`succeeded with ${values.length} values`) }, (error: unknown) => {
    assert.ok(error instanceof RecordError, String(error))
    return error
  })
}

async function listed (task: bigint): Promise<Map<string, string>> {
  const line = await rawInfo(node.port, `query-show:id=${task}`)
  return new Map(line.split(':').map((pair) => pair.split('=') as [string, string]))
}

before(async () => {
  directory = tempDirectory('streams')
  node = await NodeProcess.start({
    name: 'streams',
    namespaces: (directory) => [
      memoryNamespace('test'),
      fileNamespace(directory, { name: 'disk', storage: { 'post-write-cache': 0, 'defrag-lwm-pct': 1, 'commit-to-device': true } })
    ]
  })
  client = await Client.connect({ hosts: [{ host: '127.0.0.1', port: node.port }], timeoutMs: 20_000, inFlightMax: IN_FLIGHT })
  writeFileSync(join(directory, 'streams.lua'), MODULE)
  const content = Buffer.from(MODULE).toString('base64')
  assert.equal(await client.info(`udf-put:filename=streams.lua;content=${content};content-len=${content.length};udf-type=LUA;`), 'ok')
  assert.equal(await client.info('sindex-create:namespace=test;set=many;indexname=by-i;bin=i;type=numeric'), 'ok')
  await fill('test', 'many', RECORDS)
  await fill('disk', 'many', STORED)
})

after(async () => {
  await client?.close()
  await node?.dispose()
})

describe('an aggregation', () => {
  test('of a scan has every record in it once', async () => {
    assert.deepEqual(await aggregate('count'), [RECORDS])
    assert.deepEqual(await aggregate('sum', ['i']), [SUM])
    assert.deepEqual(await aggregate('average', ['i']), [(RECORDS - 1) / 2])
    const [groups] = await aggregate('groups')
    const expected = Array.from({ length: GROUPS }, (_, g) => [g, Math.ceil((RECORDS - g) / GROUPS)])
    assert.deepEqual([...groups as Map<Value, Value>].sort(([a], [b]) => Number(a) - Number(b)), expected)
    assert.deepEqual(await aggregate('names', [RECORDS - 100]), [GROUPS], 'what follows a groupby is done once')
    const values = await aggregate('values', [RECORDS - 1000])
    assert.deepEqual(new Set(values), new Set(Array.from({ length: 1000 }, (_, n) => RECORDS - 1000 + n)))
    assert.equal(values.length, 1000)
  })

  test('of a range, of partitions, with a filter, or of a few records has those alone', async () => {
    assert.deepEqual(await aggregate('count', [], { where: { bin: 'i', from: 10, to: 5_009 } }), [5_000])
    assert.deepEqual(await aggregate('sum', ['i'], { where: { bin: 'i', from: 77 } }), [77])
    assert.deepEqual(await aggregate('count', [], { filter: EVEN }), [RECORDS / 2])
    assert.deepEqual(await aggregate('count', [], { set: 'nobody' }), [], 'nothing is found')
    const connection = await RawConnection.open(node.port)
    const some = await raw(connection, 'count', { partitions: [1, 2, 3], recordsMax: 20n })
    assert.deepEqual([some.result, some.values], [0, [20n]])
    const named = await raw(connection, 'count', { partitions: [], set: 'many' })
    // Two of them: the last step is the client's.
    assert.deepEqual([named.result, named.values.length, total(named.values)], [0, 2, RECORDS])
    connection.close()
  })

  test('reads from a device what is not in memory', async () => {
    assert.deepEqual(await aggregate('sum', ['i'], {}, 'disk'), [STORED * (STORED - 1) / 2])
  })

  test('is counted, and listed as what it is', async () => {
    const before = await rawInfoPairs(node.port, 'namespace/test')
    await aggregate('count', [], { task: 4711n })
    await aggregate('count', [], { where: { bin: 'i', from: 1, to: 9 } })
    await failureOf(aggregate('broken'))
    const now = await rawInfoPairs(node.port, 'namespace/test')
    const more = (name: string): number => Number(now.get(name)) - Number(before.get(name))
    assert.deepEqual([more('pi_query_aggr_complete'), more('si_query_aggr_complete'), more('pi_query_aggr_error')], [1, 1, 1])
    const query = await listed(4711n)
    assert.deepEqual([query.get('job-type'), query.get('status'), query.get('recs-succeeded'), query.get('job-progress')], ['aggr', 'done(ok)', String(RECORDS), '100.00'])
    const statistics = await rawInfo(node.port, 'udf-stats:module=streams')
    assert.match(statistics, /function=count/)
  })

  test('ends with the first error of its function', async () => {
    const line = MODULE.split('\n').findIndex((text) => text.includes('rec.i.field')) + 1
    const broken = await failureOf(aggregate('broken'))
    assert.equal(broken.result, UDF_EXECUTION)
    assert.match(broken.message, new RegExp(`streams\\.lua:${line}: attempt to index a number value`))
    assert.match((await failureOf(aggregate('writing'))).message, /the records of a stream are read-only/)
    assert.match((await failureOf(aggregate('missing'))).message, /function not found: streams\.missing/)
    assert.match((await failureOf(aggregate('touch'))).message, /streams\.lua:\d+: /)
    assert.match((await failureOf(aggregate('forever'))).message, /time limit of 1000 ms exceeded/)
    const index = await failureOf(aggregate('count', [], { where: { bin: 'g', from: 1 } }))
    assert.equal(index.result, SINDEX_NOT_FOUND)
  })

  test('ends when its time is up, when it is told to, and when nobody wants it any more', async () => {
    const late = await failureOf(aggregate('slow', [], { timeoutMs: 300 }))
    assert.equal(late.result, TIMEOUT)

    const running = failureOf(aggregate('slow', [], { task: 4712n }))
    await eventually('it has begun', () => listed(4712n), (query) => Number(query.get('recs-succeeded')) > 0)
    assert.equal(await rawInfo(node.port, 'query-abort:id=4712'), 'ok')
    assert.equal((await running).result, ABORTED)
    assert.equal((await listed(4712n)).get('status'), 'done(user-aborted)')

    const leaving = new AbortController()
    const left = failureOf(aggregate('slow', [], { task: 4713n, signal: leaving.signal }))
    await eventually('it has begun', () => listed(4713n), (query) => Number(query.get('recs-succeeded')) > 0)
    leaving.abort()
    await left
    await eventually('it has ended', () => listed(4713n), (query) => query.get('status')?.startsWith('done(abandoned') === true)
    assert.deepEqual(await aggregate('count'), [RECORDS], 'the workers are free')
  })

  test('fails when it costs two workers their lives, and nothing else does', async () => {
    const calls = Promise.all(Array.from({ length: 50 }, (_, key) => client.apply({ namespace: 'test', set: 'touched', key }, 'streams', 'touch').catch(() => 'missing')))
    const stuck = await failureOf(aggregate('stuck', [], { where: { bin: 'i', from: 5 } }))
    assert.equal(stuck.result, UDF_EXECUTION)
    assert.match(stuck.message, /worker was stopped/)
    assert.equal((await calls).length, 50)
    assert.deepEqual(await aggregate('count'), [RECORDS])
  })

  test('waits for a peer that takes nothing, and has all values in the end', async () => {
    const connection = await RawConnection.open(node.port)
    // A text of a thousand bytes for each record: far more than is kept for a peer.
    const texts = raw(connection, 'texts', { partitions: [], set: 'many', task: 4714n }, Buffer.of(0x91, 0xcd, 0x03, 0xe8), async () => {
      connection.pause()
      let before = -1
      await eventually('it waits', () => listed(4714n), (query) => {
        const records = Number(query.get('recs-succeeded'))
        const waits = records > 0 && records === before
        before = records
        return waits
      }, { intervalMs: 300 })
      assert.deepEqual(await aggregate('count'), [RECORDS], 'others go on')
      connection.resume()
    })
    const { result, values } = await texts
    assert.deepEqual([result, values.length], [0, RECORDS])
    connection.close()
  })

  test('runs beside others and beside functions on records', async () => {
    await Promise.all(Array.from({ length: 20 }, (_, key) => client.put({ namespace: 'test', set: 'touched', key }, { n: 0 })))
    const touches = Array.from({ length: 1_000 }, (_, i) => client.apply({ namespace: 'test', set: 'touched', key: i % 20 }, 'streams', 'touch'))
    const sums = await Promise.all(Array.from({ length: 6 }, (_, i) => i % 2 === 0 ? aggregate('sum', ['i']) : aggregate('average', ['i'])))
    assert.deepEqual(sums, sums.map((_, i) => [i % 2 === 0 ? SUM : (RECORDS - 1) / 2]))
    assert.equal((await Promise.all(touches)).filter((value) => value === 50).length, 20)
  })

  test('is refused when it is short, has no function, or writes', async () => {
    const connection = await RawConnection.open(node.port)
    assert.equal((await raw(connection, 'count', { info1: 1 | 4 })).result, PARAMETER, 'short')
    connection.send(queryFrame({ partitions: [], extra: [queryField(33, Buffer.of(1)), queryField(30, Buffer.from('streams'))] }))
    assert.equal((await connection.receive()).body.readUInt8(5), PARAMETER, 'without a function')
    assert.equal(total((await raw(connection, 'count', { set: 'many' })).values), RECORDS, 'the connection goes on')
    connection.close()
  })

  test('by the command line prints what comes out', async () => {
    const run = async (...args: string[]): Promise<{ code: number | null, out: string, err: string }> => {
      const child = spawn(process.execPath, [join(packageRoot, 'bin/perigee.js'), 'udf', 'aggregate', '-p', String(node.port), '-n', 'test', '-s', 'many', ...args])
      let [out, err] = ['', '']
      child.stdout.on('data', (chunk: Buffer) => { out += chunk.toString() })
      child.stderr.on('data', (chunk: Buffer) => { err += chunk.toString() })
      const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
      return { code, out, err }
    }
    assert.deepEqual(await run('streams', 'count'), { code: 0, out: `${RECORDS}\n`, err: '' })
    assert.deepEqual(await run('streams.lua', 'sum', 'i', '--where', 'i between 1 and 4'), { code: 0, out: '10\n', err: '' })
    assert.deepEqual(await run('streams', 'values', '0', '--where', 'i = 77', '--json'), { code: 0, out: '77\n', err: '' })
    const missing = await run('streams', 'missing')
    assert.equal(missing.code, 1)
    assert.match(missing.err, /function not found: streams\.missing/)
    assert.equal((await run('streams', 'count', '--where', 'i above 3')).code, 2)
  })
})

describe('the official client', () => {
  let official: OfficialClient
  const aerospike = loadOfficialClient() as ReturnType<typeof loadOfficialClient> & { filter: { range (bin: string, from: number, to: number): object } }

  interface OfficialQuery {
    where (filter: object): void
    apply (module: string, name: string, args?: unknown[]): Promise<unknown>
    setUdf (module: string, name: string, args?: unknown[]): void
    results (): Promise<Array<{ bins: unknown }>>
  }
  const query = (): OfficialQuery => official.query('test', 'many') as unknown as OfficialQuery

  before(async () => {
    official = await connectOfficial(node.port, { totalTimeout: 20_000, luaPath: directory })
  })

  after(() => {
    official?.close()
    aerospike.releaseEventLoop()
  })

  test('does the rest of what the node began', async () => {
    assert.equal(await query().apply('streams', 'count'), RECORDS)
    assert.equal(await query().apply('streams', 'sum', ['i']), SUM)
    assert.equal(await query().apply('streams', 'average', ['i']), (RECORDS - 1) / 2)
    const groups = await query().apply('streams', 'groups') as Record<string, number>
    assert.equal(Object.values(groups).reduce((a, b) => a + b), RECORDS)
  })

  test('aggregates what a secondary index finds, and reads values that are not reduced', async () => {
    const some = query()
    some.where(aerospike.filter.range('i', 100, 199))
    assert.equal(await some.apply('streams', 'sum', ['i']), 14_950)
    const values = query()
    values.where(aerospike.filter.range('i', 100, 199))
    values.setUdf('streams', 'values', [150])
    assert.deepEqual((await values.results()).map(({ bins }) => bins).sort(), Array.from({ length: 50 }, (_, n) => 150 + n))
  })

  test('is told what went wrong', async () => {
    await assert.rejects(query().apply('streams', 'broken'), /streams\.lua:\d+: attempt to index a number value/)
  })
})

interface RawValues { readonly values: bigint[], readonly result: number, readonly failure: string | undefined }

/** An aggregation as raw messages; `started` is awaited once it is sent. */
async function raw (connection: RawConnection, name: string, query: RawQuery = {}, args: Buffer = NO_ARGUMENTS, started?: () => Promise<void>): Promise<RawValues> {
  const extra = [queryField(33, Buffer.of(1)), queryField(30, Buffer.from('streams')), queryField(31, Buffer.from(name)), queryField(32, args), ...query.extra ?? []]
  connection.send(queryFrame({ set: 'many', partitions: [], ...query, extra }))
  await started?.()
  const values: bigint[] = []
  let failure: string | undefined
  for (;;) {
    const { body } = await connection.receive(30_000)
    for (let at = 0; at < body.length;) {
      if ((body.readUInt8(at + 3) & 1) !== 0) return { values, failure, result: body.readUInt8(at + 5) }
      assert.equal(body.readUInt16BE(at + 18), 0)
      assert.equal(body.readUInt16BE(at + 20), 1)
      const op = at + body.readUInt8(at)
      const valueAt = op + 8 + body.readUInt8(op + 7)
      const end = op + 4 + body.readUInt32BE(op)
      const bin = body.toString('utf8', op + 8, valueAt)
      if (bin === 'FAILURE') failure = body.toString('utf8', valueAt, end)
      else values.push(end - valueAt === 8 ? body.readBigInt64BE(valueAt) : BigInt(end - valueAt))
      at = end
    }
  }
}

function total (values: readonly bigint[]): number {
  return Number(values.reduce((sum, value) => sum + value, 0n))
}
