// Batches over real sockets: every row answered once, whatever it has to wait for, and what ends a batch early.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import { eventually } from '../support/eventually.js'
import { NodeProcess, fileNamespace, memoryNamespace } from '../support/node-process.js'
import { INFO2_CREATE_ONLY, RESPOND_ALL, batchFrame, readBatch, runBatch, type BatchAnswer, type RawRow } from '../support/wire-batch.js'
import { RawConnection, decodeMessage, getAll, putBlob, putInteger, rawInfo, rawInfoPairs, type RawKey } from '../support/wire.js'

const RECORDS = 3_000
const OK = 0
const NOT_FOUND = 2
const PARAMETER = 4
const RECORD_EXISTS = 5
const NAMESPACE_UNKNOWN = 20
const UDF_EXECUTION = 100

const MODULE = `
function slow(rec)
  local n = 0
  for i = 1, 20000 do n = n + i end
  rec['n'] = (rec['n'] or 0) + 1
  if aerospike:exists(rec) then aerospike:update(rec) else aerospike:create(rec) end
  return rec['n']
end
function bad(rec) error('no') end
`

let node: NodeProcess
let connection: RawConnection

function keyOf (n: number, namespace = 'test', set = 'batch'): RawKey {
  return { namespace, set, digest: createHash('ripemd160').update(`${namespace}/${set}/${n}`).digest() }
}

function integer (answer: BatchAnswer, row: number, bin = 'n'): bigint | undefined {
  return answer.rows.get(row)?.bins.get(bin)?.readBigInt64BE()
}

async function fill (namespace: string): Promise<void> {
  const rows: RawRow[] = []
  for (let n = 0; n < RECORDS; n++) rows.push({ do: 'put', key: keyOf(n, namespace), bin: 'n', value: BigInt(n) })
  const answer = await runBatch(connection, rows)
  assert.equal(answer.result, OK)
  assert.equal(answer.rows.size, RECORDS)
  assert.ok([...answer.rows.values()].every(({ result }) => result === OK))
}

function reads (namespace: string): RawRow[] {
  // The first one says all, the rest is as the row before; every tenth is not there.
  return Array.from({ length: RECORDS }, (_, n): RawRow => {
    const key = keyOf(n % 10 === 9 ? RECORDS + n : n, namespace)
    return n === 0 ? { do: 'get', key } : { do: 'repeat', key }
  })
}

function checkReads (answer: BatchAnswer): void {
  assert.equal(answer.result, OK)
  assert.equal(answer.rows.size, RECORDS)
  for (let n = 0; n < RECORDS; n++) {
    const missing = n % 10 === 9
    assert.equal(answer.rows.get(n)?.result, missing ? NOT_FOUND : OK, `row ${n}`)
    assert.equal(integer(answer, n), missing ? undefined : BigInt(n))
  }
}

async function statistic (name: string): Promise<number> {
  return Number((await rawInfoPairs(node.port, 'statistics')).get(name))
}

before(async () => {
  node = await NodeProcess.start({
    name: 'batch',
    namespaces: directory => [memoryNamespace(), fileNamespace(directory, { name: 'disk', storage: { 'post-write-cache': 0, 'commit-to-device': true } })]
  })
  const content = Buffer.from(MODULE).toString('base64')
  assert.equal(await rawInfo(node.port, `udf-put:filename=batch.lua;content=${content};content-len=${content.length};udf-type=LUA;`), 'ok')
  connection = await RawConnection.open(node.port)
  await fill('test')
  await fill('disk')
})

after(async () => {
  connection?.close()
  await node?.dispose()
})

describe('batch', () => {
  test('every_row_is_answered_once_from_memory_in_order', async () => {
    const answer = await runBatch(connection, reads('test'))
    checkReads(answer)
    assert.deepEqual(answer.order, [...new Array(RECORDS).keys()])
    assert.ok(answer.frames.length > 1, 'a long batch comes in several frames')
  })

  test('rows_that_lie_on_the_device_are_answered_once', async () => {
    // After a start nothing of the file is in memory.
    connection.close()
    await node.stop()
    await node.start()
    connection = await RawConnection.open(node.port)
    checkReads(await runBatch(connection, reads('disk')))
    // Of the other namespace nothing is left.
    await fill('test')
  })

  test('batches_that_are_sent_ahead_are_answered_in_order', async () => {
    for (const namespace of ['disk', 'test', 'disk']) connection.send(batchFrame(reads(namespace)))
    connection.send(getAll(keyOf(1)))
    for (let i = 0; i < 3; i++) checkReads(await readBatch(connection))
    assert.equal(decodeMessage(await connection.receive()).result, OK)
  })

  test('rows_of_all_kinds_stand_side_by_side', async () => {
    const key = keyOf(1, 'disk', 'kinds')
    const other = keyOf(2, 'disk', 'kinds')
    const answer = await runBatch(connection, [
      { do: 'put', key, bin: 'a', value: 7n },
      { do: 'apply', key: other, module: 'batch', function: 'slow' },
      // While the function has its record to itself.
      { do: 'put', key: other, bin: 'b', value: 1n },
      { do: 'get', key },
      { do: 'apply', key, module: 'batch', function: 'bad' },
      { do: 'delete', key: keyOf(3, 'disk', 'kinds') },
      { do: 'get', key: { ...key, namespace: 'nowhere' } }
    ])
    assert.equal(answer.result, OK)
    const results = [...answer.rows.entries()].sort(([a], [b]) => a - b).map(([, { result }]) => result)
    assert.deepEqual(results, [OK, OK, OK, OK, UDF_EXECUTION, NOT_FOUND, NAMESPACE_UNKNOWN])
    assert.equal(integer(answer, 3, 'a'), 7n)
    assert.equal(integer(answer, 1, 'SUCCESS'), 1n)
    const after = await runBatch(connection, [{ do: 'get', key: other }])
    assert.equal(integer(after, 0, 'b'), 1n)
    assert.equal(integer(after, 0), 1n)
  })

  test('rows_for_one_record_that_wait_for_one_another_all_get_their_turn', async () => {
    const key = keyOf(5, 'test', 'busy')
    const rows = Array.from({ length: 15 }, (): RawRow => ({ do: 'apply', key, module: 'batch', function: 'slow' }))
    const answer = await runBatch(connection, rows)
    assert.equal(answer.result, OK)
    const counts = [...answer.rows.keys()].map(row => Number(integer(answer, row, 'SUCCESS'))).sort((a, b) => a - b)
    assert.deepEqual(counts, Array.from({ length: 15 }, (_, n) => n + 1))
  })

  test('the_first_failure_ends_a_batch_that_does_not_want_all_answers', async () => {
    const rows = (set: string): RawRow[] => [
      { do: 'put', key: keyOf(0, 'test', set), bin: 'n', value: 1n },
      { do: 'put', key: keyOf(0, 'test', set), bin: 'n', value: 2n, info2: INFO2_CREATE_ONLY },
      { do: 'put', key: keyOf(1, 'test', set), bin: 'n', value: 3n }
    ]
    const some = await runBatch(connection, rows('some'), { flags: 1 })
    assert.equal(some.result, RECORD_EXISTS)
    assert.deepEqual([...some.rows.keys()], [0], 'neither the failed row nor those behind it')
    connection.send(getAll(keyOf(1, 'test', 'some')))
    assert.equal(decodeMessage(await connection.receive()).result, NOT_FOUND, 'what was not begun is not done')

    const told = await runBatch(connection, rows('told'), { flags: 1 | 8 })
    assert.deepEqual([told.result, told.rows.get(1)?.result, told.rows.size], [RECORD_EXISTS, RECORD_EXISTS, 2])

    const all = await runBatch(connection, rows('all'), { flags: RESPOND_ALL })
    assert.deepEqual([all.result, all.rows.get(1)?.result, all.rows.get(2)?.result], [OK, RECORD_EXISTS, OK])
  })

  test('a_malformed_batch_is_refused_and_the_connection_goes_on', async () => {
    const rows: RawRow[] = [{ do: 'get', key: keyOf(1) }, { do: 'repeat', key: keyOf(2) }]
    const tooMany = await runBatch(connection, rows, { claimedRows: 90_000_000 })
    assert.deepEqual([tooMany.result, tooMany.rows.size], [PARAMETER, 0])
    const tooFew = await runBatch(connection, rows, { claimedRows: 1 })
    assert.equal(tooFew.result, PARAMETER)
    const nothingBefore = await runBatch(connection, [{ do: 'repeat', key: keyOf(1) }])
    assert.equal(nothingBefore.result, PARAMETER)
    const noFilter = await runBatch(connection, [{ do: 'get', key: keyOf(1) }], { filter: Buffer.from([0x93, 0x01, 0x02]) })
    assert.deepEqual([noFilter.result, noFilter.rows.size], [PARAMETER, 0], 'refused once, for all rows')
    assert.equal((await runBatch(connection, [])).result, OK)
    checkReads(await runBatch(connection, reads('test')))
  })

  test('a_peer_that_takes_nothing_does_not_fill_the_node', async () => {
    const value = Buffer.alloc(100_000, 'x')
    const big = keyOf(0, 'test', 'big')
    connection.send(putBlob(big, 'v', value))
    assert.equal(decodeMessage(await connection.receive()).result, OK)
    const slow = await RawConnection.open(node.port)
    try {
      slow.pause()
      // 400 MB of answers.
      const rows = Array.from({ length: 4_000 }, (_, n): RawRow => n === 0 ? { do: 'get', key: big } : { do: 'repeat', key: big })
      const begun = await statistic('batch_index_complete')
      slow.send(batchFrame(rows))
      checkReads(await runBatch(connection, reads('test')))
      assert.equal(await statistic('batch_index_complete'), begun + 1, 'the slow one is not done')
      slow.resume()
      const answer = await readBatch(slow)
      assert.deepEqual([answer.result, answer.rows.size], [OK, 4_000])
    } finally {
      slow.close()
    }
  })

  test('a_peer_that_goes_away_leaves_nothing_behind', async () => {
    const begun = await statistic('batch_index_initiate')
    for (let i = 0; i < 5; i++) {
      const gone = await RawConnection.open(node.port)
      const key = keyOf(i, 'test', 'gone')
      gone.send(batchFrame(Array.from({ length: 20 }, (): RawRow => ({ do: 'apply', key, module: 'batch', function: 'slow' }))))
      // Begun when another one is answered.
      connection.send(putInteger(keyOf(9), 'n', 9n))
      await connection.receive()
      gone.close()
    }
    // Carried out to their end, or given up: a node may learn of the end of a connection late.
    const ended = async (): Promise<number> => {
      const ends = ['complete', 'error', 'timeout'].map(async end => await statistic(`batch_index_${end}`))
      return (await Promise.all(ends)).reduce((sum, count) => sum + count, 0)
    }
    await eventually('every batch has ended', ended, count => count === begun + 5)
    assert.equal(await statistic('batch_index_initiate'), begun + 5)
    checkReads(await runBatch(connection, reads('disk')))
  })
})
