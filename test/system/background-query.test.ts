// Queries that change their records in the background, over real sockets.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import { eventually } from '../support/eventually.js'
import { NodeProcess, fileNamespace, memoryNamespace } from '../support/node-process.js'
import { queryField, queryFrame, type RawQuery } from '../support/wire-query.js'
import { RawConnection, decodeMessage, getAll, operation, putInteger, rawInfo, rawInfoPairs, type RawKey } from '../support/wire.js'

const RECORDS = 2_000
const INFO2_WRITE = 1
const INFO3_LAST = 1
const OPERATION_READ = 1
const OPERATION_INCREMENT = 5
const PARTICLE_INTEGER = 1
const PARTICLE_STRING = 3
const FIELD_MODULE = 30
const FIELD_FUNCTION = 31
const FIELD_ARGUMENTS = 32
const FIELD_UDF = 33
const FIELD_FILTER = 43
const PARAMETER = 4

/** Of records whose bin `i` is even. */
const EVEN = Buffer.from('9301931a935102a1690200', 'hex')

const MODULE = `
function add(rec, bin, value)
  rec[bin] = (rec[bin] or 0) + value
  aerospike:update(rec)
end
`

let node: NodeProcess
let connection: RawConnection
let tasks = 1000n

function keyOf (set: string, n: number, namespace: string): RawKey {
  return { namespace, set, digest: createHash('ripemd160').update(`${namespace}/${set}/${n}`).digest() }
}

async function fill (set: string, namespace = 'test'): Promise<void> {
  for (let n = 0; n < RECORDS; n += 500) {
    for (let i = n; i < n + 500; i++) connection.send(putInteger(keyOf(set, i, namespace), 'i', BigInt(i)))
    for (let i = 0; i < 500; i++) assert.equal(decodeMessage(await connection.receive()).result, 0)
  }
}

/** A bin of every record, by the record's number; undefined where it has none. */
async function binOf (set: string, bin: string, namespace = 'test'): Promise<Array<bigint | undefined>> {
  const values: Array<bigint | undefined> = []
  for (let n = 0; n < RECORDS; n += 500) {
    for (let i = n; i < n + 500; i++) connection.send(getAll(keyOf(set, i, namespace)))
    for (let i = 0; i < 500; i++) values.push(decodeMessage(await connection.receive()).bins.get(bin)?.value.readBigInt64BE())
  }
  return values
}

function add (bin: string, value: bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigInt64BE(value)
  return operation(OPERATION_INCREMENT, PARTICLE_INTEGER, bin, bytes)
}

/** A call of the module above with the text "n" and the number 5. */
function call (name: string): Buffer[] {
  return [
    queryField(FIELD_UDF, Buffer.of(2)), queryField(FIELD_MODULE, Buffer.from('background')), queryField(FIELD_FUNCTION, Buffer.from(name)),
    queryField(FIELD_ARGUMENTS, Buffer.concat([Buffer.of(0x92, 0xa2, PARTICLE_STRING), Buffer.from('n'), Buffer.of(5)]))
  ]
}

/** Sends a background query and checks that it is answered by one last message. */
async function start (query: RawQuery): Promise<{ task: bigint, result: number }> {
  const task = tasks++
  connection.send(queryFrame({ info1: 0, info2: INFO2_WRITE, info3: 0, partitions: [], task, ...query }))
  const { body } = await connection.receive()
  assert.equal(body.readUInt8(3) & INFO3_LAST, INFO3_LAST, 'clients wait for it')
  assert.equal(body.length, body.readUInt8(0), 'one message')
  return { task, result: body.readUInt8(5) }
}

async function listed (task: bigint): Promise<Map<string, string>> {
  const line = await rawInfo(node.port, `query-show:id=${task}`)
  return new Map(line.split(':').map((pair) => pair.split('=') as [string, string]))
}

async function run (query: RawQuery): Promise<Map<string, string>> {
  const { task, result } = await start(query)
  assert.equal(result, 0)
  return await eventually('it is done', () => listed(task), (query) => query.get('status')?.startsWith('done') === true)
}

before(async () => {
  node = await NodeProcess.start({
    name: 'background',
    namespaces: (directory) => [
      memoryNamespace('test', { 'background-query-max-rps': 1_000_000 }),
      fileNamespace(directory, { name: 'disk', storage: { 'post-write-cache': 0, 'defrag-lwm-pct': 1, 'commit-to-device': true } })
    ]
  })
  connection = await RawConnection.open(node.port)
})

after(async () => {
  connection?.close()
  await node?.dispose()
})

describe('a background query', () => {
  test('carries its operations out on every record of its set, once', async () => {
    await fill('all')
    await fill('others')
    const done = await run({ set: 'all', operations: [add('n', 1n), add('i', 1000n)] })
    assert.deepEqual([done.get('status'), done.get('recs-succeeded'), done.get('recs-failed'), done.get('job-type'), done.get('job-progress')],
      ['done(ok)', String(RECORDS), '0', 'ops-bg', '100.00'])
    assert.ok((await binOf('all', 'n')).every((value) => value === 1n))
    assert.ok((await binOf('all', 'i')).every((value, n) => value === BigInt(n + 1000)))
    assert.ok((await binOf('others', 'n')).every((value) => value === undefined))
    const statistics = await rawInfoPairs(node.port, 'namespace/test')
    assert.equal(statistics.get('pi_query_ops_bg_complete'), '1')
    assert.equal(statistics.get('ops_sub_write_success'), String(RECORDS))
  })

  test('leaves records alone that do not pass its filter', async () => {
    await fill('some')
    const done = await run({ set: 'some', operations: [add('n', 1n)], extra: [queryField(FIELD_FILTER, EVEN)] })
    assert.deepEqual([done.get('recs-succeeded'), done.get('recs-filtered-bins')], [String(RECORDS / 2), String(RECORDS / 2)])
    assert.ok((await binOf('some', 'n')).every((value, n) => value === (n % 2 === 0 ? 1n : undefined)))
  })

  test('works on records that lie on a device, and waits for them to be durable', async () => {
    await fill('stored', 'disk')
    const done = await run({ namespace: 'disk', set: 'stored', operations: [add('n', 3n)] })
    assert.deepEqual([done.get('status'), done.get('recs-succeeded')], ['done(ok)', String(RECORDS)])
    assert.ok((await binOf('stored', 'n', 'disk')).every((value) => value === 3n))
  })

  test('calls a function on every record', async () => {
    const content = Buffer.from(MODULE).toString('base64')
    assert.equal(await rawInfo(node.port, `udf-put:filename=background.lua;content=${content};content-len=${content.length};udf-type=LUA;`), 'ok')
    await fill('called')
    const done = await run({ set: 'called', extra: call('add') })
    assert.deepEqual([done.get('recs-succeeded'), done.get('recs-failed'), done.get('job-type')], [String(RECORDS), '0', 'udf-bg'])
    assert.ok((await binOf('called', 'n')).every((value) => value === 5n))
    const failed = await run({ set: 'called', extra: call('missing') })
    assert.deepEqual([failed.get('recs-succeeded'), failed.get('recs-failed')], ['0', String(RECORDS)])
  })

  test('with a function keeps its pace, says how far it is, and ends when it is told to', async () => {
    await fill('paced')
    const { task, result } = await start({ set: 'paced', extra: call('add'), recordsPerSecond: 200 })
    assert.equal(result, 0)
    const part = await eventually('it has got on', () => listed(task), (query) => Number(query.get('recs-succeeded')) > 20)
    assert.deepEqual([part.get('job-type'), part.get('rps')], ['udf-bg', '200'])
    assert.ok(Number(part.get('job-progress')) > 0 && Number(part.get('job-progress')) < 100, part.get('job-progress'))
    await eventually('it has waited', () => listed(task), (query) => Number(query.get('recs-throttled')) > 0)
    assert.equal(await rawInfo(node.port, `query-abort:id=${task}`), 'ok')
    const ended = await eventually('it has ended', () => listed(task), (query) => query.get('status')?.startsWith('done') === true)
    assert.equal(ended.get('status'), 'done(user-aborted)')
    const changed = (await binOf('paced', 'n')).filter((value) => value === 5n).length
    assert.equal(changed, Number(ended.get('recs-succeeded')), 'what was begun is counted')
    assert.ok(changed < RECORDS, 'it was not finished')
    const statistics = await rawInfoPairs(node.port, 'namespace/test')
    assert.equal(statistics.get('pi_query_udf_bg_abort'), '1')
  })

  test('keeps its pace and ends when it is told to', async () => {
    await fill('slow')
    const { task, result } = await start({ set: 'slow', operations: [add('n', 1n)], recordsPerSecond: 200 })
    assert.equal(result, 0)
    await eventually('it has begun', () => listed(task), (query) => Number(query.get('recs-succeeded')) > 0)
    assert.equal(await rawInfo(node.port, `query-abort:id=${task}`), 'ok')
    const ended = await eventually('it has ended', () => listed(task), (query) => query.get('status')?.startsWith('done') === true)
    assert.equal(ended.get('status'), 'done(user-aborted)')
    const changed = (await binOf('slow', 'n')).filter((value) => value === 1n).length
    assert.equal(changed, Number(ended.get('recs-succeeded')))
    assert.ok(changed < RECORDS, 'it was not finished')
  })

  test('is refused when it reads, does nothing, or wants more than it may have', async () => {
    const read = operation(OPERATION_READ, 0, 'i', Buffer.alloc(0))
    assert.equal((await start({ set: 'all', operations: [read] })).result, PARAMETER)
    assert.equal((await start({ set: 'all' })).result, PARAMETER)
    assert.equal((await start({ set: 'all', operations: [add('n', 1n)], recordsPerSecond: 1_000_001 })).result, PARAMETER)
  })
})
