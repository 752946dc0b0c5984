// Primary index queries over real sockets: order, completeness, bounds, and what else the node does meanwhile.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import { eventually } from '../support/eventually.js'
import { NodeProcess, fileNamespace, memoryNamespace } from '../support/node-process.js'
import { queryField, queryFrame, runPages, runQuery, takeFrame, type QueryAnswer, type RawQuery } from '../support/wire-query.js'
import { RawConnection, decodeMessage, getAll, putBlob, putInteger, rawInfo, rawInfoPairs, type RawKey } from '../support/wire.js'

const PARTITIONS = 4096
const RECORDS = 6_000
const SHORT_QUERY = 5
const NO_BINS = 33
const WRITE = 1

const PARAMETER = 4
const NAMESPACE_UNKNOWN = 20
const UNAVAILABLE = 11
const UNSUPPORTED = 16
const ABORTED = 210

let node: NodeProcess
let connection: RawConnection

function keyOf (set: string, n: number, namespace = 'test'): RawKey {
  return { namespace, set, digest: createHash('ripemd160').update(`${namespace}/${set}/${n}`).digest() }
}

async function fill (to: RawConnection, set: string, count: number, namespace = 'test'): Promise<Set<string>> {
  const digests = new Set<string>()
  for (let n = 0; n < count; n += 500) {
    const batch = Math.min(500, count - n)
    for (let i = n; i < n + batch; i++) {
      const key = keyOf(set, i, namespace)
      to.send(putInteger(key, 'i', BigInt(i)))
      digests.add(key.digest.toString('hex'))
    }
    for (let i = 0; i < batch; i++) assert.equal(decodeMessage(await to.receive()).result, 0)
  }
  return digests
}

function digestsOf (answer: QueryAnswer): string[] {
  return answer.records.map(({ digest }) => digest)
}

/** Every partition done, records in digest order within each, nothing twice. */
function checkOrder (answer: QueryAnswer): void {
  const last = new Map<number, string>()
  for (const { partition, digest } of answer.records) {
    const before = last.get(partition)
    assert.ok(before === undefined || before < digest, `${digest} came after ${before}`)
    last.set(partition, digest)
  }
}

before(async () => {
  node = await NodeProcess.start({
    name: 'query',
    namespaces: (directory) => [memoryNamespace(), fileNamespace(directory, { name: 'disk', storage: { 'post-write-cache': 0, 'defrag-lwm-pct': 1 } })]
  })
  connection = await RawConnection.open(node.port)
})

after(async () => {
  connection?.close()
  await node?.dispose()
})

describe('a query', () => {
  let all: Set<string>
  before(async () => { all = await fill(connection, 'many', RECORDS) })

  test('sends every record once, in digest order within its partition, and says when each is done', async () => {
    const answer = await runQuery(connection, { set: 'many' })
    assert.equal(answer.result, 0)
    assert.equal(answer.records.length, RECORDS)
    assert.deepEqual(new Set(digestsOf(answer)), all)
    checkOrder(answer)
    assert.equal(answer.done.size, PARTITIONS)
    assert.ok([...answer.done.values()].every((result) => result === 0))
  })

  test('resumes behind a digest, and asks for the partitions it names only', async () => {
    const whole = await runQuery(connection, { set: 'many' })
    const [first] = whole.records.filter(({ partition }, i) => whole.records[i + 1]?.partition === partition)
    const rest = await runQuery(connection, { set: 'many', digests: [Buffer.from(first!.digest, 'hex')], partitions: [(first!.partition + 1) % PARTITIONS] })
    const expected = whole.records.filter(({ partition, digest }) => (partition === first!.partition && digest > first!.digest) || partition === (first!.partition + 1) % PARTITIONS)
    assert.deepEqual(new Set(digestsOf(rest)), new Set(expected.map(({ digest }) => digest)))
    assert.equal(rest.done.size, 2)
  })

  test('stops at the most records it was asked for, and pages of it add up', async () => {
    const found = (await runPages(connection, { set: 'many' }, 1000n)).map(({ digest }) => digest)
    assert.equal(found.length, RECORDS)
    assert.deepEqual(new Set(found), all)
  })

  test('without bins sends none; of a set that is not there sends nothing', async () => {
    const bare = await runQuery(connection, { set: 'many', info1: NO_BINS, partitions: [1, 2, 3, 4, 5, 6] })
    assert.ok(bare.records.length > 0)
    assert.ok(bare.records.every(({ operations }) => operations === 0))
    const none = await runQuery(connection, { set: 'nowhere' })
    assert.deepEqual([none.records.length, none.done.size, none.result], [0, PARTITIONS, 0])
  })

  test('is refused with a last message when it asks for what is not there yet', async () => {
    const refused = async (query: Parameters<typeof runQuery>[1]): Promise<number> => (await runQuery(connection, query)).result
    assert.equal(await refused({ info3: 0 }), UNSUPPORTED)
    assert.equal(await refused({ partitions: [] }), UNSUPPORTED)
    // Without operations there is nothing to be done in the background.
    assert.equal(await refused({ info2: WRITE }), PARAMETER)
    assert.equal(await refused({ extra: [queryField(33, Buffer.of(1))] }), PARAMETER, 'an aggregation without a function')
    assert.equal(await refused({ extra: [queryField(33, Buffer.of(4))] }), UNSUPPORTED)
    assert.equal(await refused({ extra: [queryField(43, Buffer.of(0x05))] }), PARAMETER, 'a filter that is a number')
    assert.equal(await refused({ extra: [queryField(22, Buffer.of(1))] }), PARAMETER, 'a range that is none')
    assert.equal(await refused({ partitions: [PARTITIONS] }), PARAMETER)
    assert.equal(await refused({ partitions: [1, 1] }), PARAMETER)
    assert.equal(await refused({ namespace: 'nowhere' }), NAMESPACE_UNKNOWN)
    assert.equal(await refused({ info1: SHORT_QUERY, recordsPerSecond: 5 }), PARAMETER)
    assert.equal((await runQuery(connection, { set: 'many' })).records.length, RECORDS, 'the connection goes on')
  })

  test('is counted, and listed with its progress until it is aborted', async () => {
    const before = await rawInfoPairs(node.port, 'namespace/test')
    const slow = await RawConnection.open(node.port)
    const answer: QueryAnswer = { records: [], done: new Map(), result: -1, frames: [] }
    slow.send(queryFrame({ set: 'many', task: 99n, recordsPerSecond: 50 }))
    const shown = await eventually('some records are sent', () => rawInfo(node.port, 'query-show:id=99'), (text) => /recs-succeeded=[1-9]/.test(text))
    assert.match(shown, /^trid=99:ns=test:set=many:n-pids-requested=4096:rps=50:active-threads=1:status=active\(ok\):job-progress=\d+\.\d\d:/)
    assert.equal(await rawInfo(node.port, 'query-abort:id=98'), 'ERROR:2:id not active')
    assert.equal(await rawInfo(node.port, 'query-abort:id=99'), 'ok')
    while (!takeFrame(answer, (await slow.receive()).body)) { /* The next frame. */ }
    assert.equal(answer.result, ABORTED)
    assert.ok(answer.records.length < RECORDS)
    assert.match(await rawInfo(node.port, 'query-show:trid=99'), /status=done\(user-aborted\)/)
    assert.equal(await rawInfo(node.port, 'query-show:id=98'), 'ERROR:2:job not found')
    const after = await rawInfoPairs(node.port, 'namespace/test')
    const grown = (name: string): number => Number(after.get(name)) - Number(before.get(name))
    assert.equal(grown('pi_query_long_basic_abort'), 1)
    await runQuery(connection, { set: 'many', info1: SHORT_QUERY, partitions: [5] })
    assert.equal(Number((await rawInfoPairs(node.port, 'namespace/test')).get('pi_query_short_basic_complete')), Number(before.get('pi_query_short_basic_complete')) + 1)
    slow.close()
  })

  describe('of large records', () => {
    const WIDE = 60
    const WIDE_BYTES = 500_000
    before(async () => {
      for (let n = 0; n < WIDE; n++) connection.send(putBlob(keyOf('wide', n), 'b', Buffer.alloc(WIDE_BYTES, n)))
      for (let n = 0; n < WIDE; n++) assert.equal(decodeMessage(await connection.receive()).result, 0)
    })

    /** A query whose peer does not read, when it has sent what it may. */
    async function heldBack (task: number, more: RawQuery = {}): Promise<RawConnection> {
      const reader = await RawConnection.open(node.port)
      reader.pause()
      reader.send(queryFrame({ set: 'wide', task: BigInt(task), ...more }))
      let before = ''
      await eventually('it sends no more', async () => {
        const bytes = /active\(ok\).*net-io-bytes=(\d+)/.exec(await rawInfo(node.port, `query-show:id=${task}`))?.[1] ?? ''
        const still = bytes === before && Number(bytes) > 0
        before = bytes
        return still
      }, (still) => still, { intervalMs: 200 })
      assert.ok(Number(before) < WIDE * WIDE_BYTES, `${before} bytes are sent to a peer that takes none`)
      return reader
    }

    test('goes on when its peer reads again, and others are served meanwhile', async () => {
      const reader = await heldBack(21)
      assert.equal(decodeMessage(await request(getAll(keyOf('many', 1)))).result, 0)
      reader.resume()
      const answer: QueryAnswer = { records: [], done: new Map(), result: -1, frames: [] }
      while (!takeFrame(answer, (await reader.receive()).body)) { /* The next frame. */ }
      assert.deepEqual([answer.result, answer.records.length, answer.done.size], [0, WIDE, PARTITIONS])
      assert.ok(Math.max(...answer.frames) < 3 * 1024 * 1024)
      reader.close()
    })

    test('ends with its connection', async () => {
      const reader = await heldBack(22)
      reader.close()
      await eventually('it has ended', () => rawInfo(node.port, 'query-show:id=22'), (text) => text.includes('done(abandoned-response-error)'))
    })

    test('ends when its peer takes nothing for as long as the request allows', async () => {
      const reader = await heldBack(23, { socketTimeoutMs: 1500 })
      await eventually('it has ended', () => rawInfo(node.port, 'query-show:id=23'), (text) => text.includes('done(abandoned-response-error)'))
      reader.close()
    })
  })
})

async function request (frame: Buffer): Promise<{ type: number, body: Buffer }> {
  connection.send(frame)
  return await connection.receive()
}

test('records on a device come complete and in order, after a restart too', async () => {
  const all = await fill(connection, 'cold', 3_000, 'disk')
  await node.restart()
  connection.close()
  connection = await RawConnection.open(node.port)
  const answer = await runQuery(connection, { namespace: 'disk' })
  assert.deepEqual(new Set(digestsOf(answer)), all)
  assert.equal(answer.records.length, 3_000)
  checkOrder(answer)
  const stats = await rawInfoPairs(node.port, 'namespace/disk')
  assert.ok(Number(stats.get('storage-engine.device_reads')) >= 3_000, 'they were read from the device')
})

test('a node that stops says that the rest of the partitions is not available', async () => {
  await fill(connection, 'last', 2_000)
  const slow = await RawConnection.open(node.port)
  const answer: QueryAnswer = { records: [], done: new Map(), result: -1, frames: [] }
  slow.send(queryFrame({ set: 'last', task: 5n, recordsPerSecond: 20 }))
  await eventually('it runs', () => rawInfo(node.port, 'query-show:id=5'), (text) => /recs-succeeded=[1-9]/.test(text))
  const stopped = node.stop()
  while (!takeFrame(answer, (await slow.receive()).body)) { /* The next frame. */ }
  await stopped
  assert.equal(answer.result, 0)
  assert.equal(answer.done.size, PARTITIONS)
  assert.ok([...answer.done.values()].includes(UNAVAILABLE))
  for (const { partition } of answer.records.slice(-1)) assert.ok(answer.done.get(partition) !== undefined)
  slow.close()
})
