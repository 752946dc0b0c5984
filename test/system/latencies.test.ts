// How long requests took, as a node tells tools: each kind in its own histogram.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import { NodeProcess } from '../support/node-process.js'
import { runBatch, type RawRow } from '../support/wire-batch.js'
import { runQuery } from '../support/wire-query.js'
import { RawConnection, decodeMessage, getAll, putInteger, rawInfo, type RawKey } from '../support/wire.js'

const MODULE = 'function one(rec) return 1 end'

let node: NodeProcess
let connection: RawConnection

function keyOf (n: number): RawKey {
  return { namespace: 'test', set: 'latencies', digest: createHash('ripemd160').update(`latencies/${n}`).digest() }
}

/** Columns by the name of the histogram, of those that have any. */
async function latencies (parameters = ''): Promise<Map<string, { unit: string, numbers: number[] }>> {
  const text = await rawInfo(node.port, `latencies:${parameters}`)
  assert.ok(text.endsWith(';'), text)
  return new Map(text.slice(0, -1).split(';').flatMap(entry => {
    const [, name, unit, numbers] = /^([^:]+):(?:(msec|usec),(.*))?$/.exec(entry) ?? assert.fail(entry)
    return unit === undefined ? [] : [[name!, { unit, numbers: numbers!.split(',').map(Number) }]]
  }))
}

async function send (bytes: Buffer): Promise<void> {
  connection.send(bytes)
  assert.equal(decodeMessage(await connection.receive()).result, 0)
}

before(async () => {
  node = await NodeProcess.start({ name: 'latencies', service: { 'enable-hist-info': true } })
  const content = Buffer.from(MODULE).toString('base64')
  assert.equal(await rawInfo(node.port, `udf-put:filename=lat.lua;content=${content};content-len=${content.length};udf-type=LUA;`), 'ok')
  connection = await RawConnection.open(node.port)
})

after(async () => {
  connection?.close()
  await node?.dispose()
})

describe('latencies', () => {
  test('every_kind_of_request_is_counted_in_its_own_histogram', async () => {
    const counted = async () => [...(await latencies()).keys()].filter(name => name !== 'info').sort()
    assert.deepEqual(await counted(), [])
    await send(putInteger(keyOf(1), 'n', 1n))
    assert.deepEqual(await counted(), ['{test}-write'])
    await send(getAll(keyOf(1)))
    assert.deepEqual(await counted(), ['{test}-read', '{test}-write'])
    const rows: RawRow[] = [{ do: 'put', key: keyOf(2), bin: 'n', value: 2n }, { do: 'get', key: keyOf(1) }, { do: 'apply', key: keyOf(1), module: 'lat', function: 'one' }]
    assert.equal((await runBatch(connection, rows)).result, 0)
    assert.equal((await runQuery(connection)).result, 0)
    assert.deepEqual(await counted(), [
      'batch-index', '{test}-batch-sub-read', '{test}-batch-sub-udf', '{test}-batch-sub-write', '{test}-pi-query', '{test}-read', '{test}-write'
    ])
  })

  test('a_histogram_has_a_rate_and_seventeen_shares_that_only_fall', async () => {
    for (let n = 0; n < 50; n++) await send(getAll(keyOf(1)))
    for (const [parameters, unit] of [['', 'msec'], ['unit=usec', 'usec']]) {
      const all = await latencies(parameters)
      assert.ok(all.has('info'))
      for (const [name, { unit: found, numbers }] of all) {
        const [rate, ...shares] = numbers
        assert.equal(found, unit)
        assert.ok(rate! > 0, `${name}: ${rate} a second`)
        assert.equal(shares.length, 17)
        assert.ok(shares.every((share, i) => share >= 0 && share <= (shares[i - 1] ?? 100)), `${name}: ${shares.join(' ')}`)
      }
    }
    // A read goes through the process: none is over in no time, as measured in microseconds.
    const { numbers } = (await latencies('hist={test}-read;unit=usec')).get('{test}-read')!
    assert.ok(numbers[1]! > 0, numbers.join(' '))
  })
})
