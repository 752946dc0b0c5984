// What tools are told about devices and records of a real node, and what they may change while it runs.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { Client } from '../../src/client/index.js'
import { eventually } from '../support/eventually.js'
import { NodeProcess } from '../support/node-process.js'
import { rawInfoPairs } from '../support/wire.js'

const RECORDS = 6_000
const SMALL_BYTES = 900
const LARGE_BYTES = 20_000
/** Of 6,000 records of a little above 900 bytes in two files of 16 MiB; a fifth of each file is written anew with every round. */
const ROUNDS = 6
const EXPIRING = 500
const TTL_SECONDS = 10_000

describe('storage statistics', { concurrency: 1 }, () => {
  let node: NodeProcess
  let client: Client

  before(async () => {
    node = await NodeProcess.start({
      namespaces: (directory) => [{
        name: 'test',
        'nsup-period': 1000,
        'max-record-size': '60K',
        'storage-engine': {
          type: 'device', files: [join(directory, 'a.dat'), join(directory, 'b.dat')], filesize: '16M', 'write-block-size': '64K', 'flush-size': '16K',
          'flush-max-ms': 20, 'defrag-lwm-pct': 60, 'defrag-sleep': 0
        }
      }]
    })
    client = await Client.connect({ hosts: [`127.0.0.1:${node.port}`], timeoutMs: 10_000 })
  })

  after(async () => {
    await client?.close()
    await node?.dispose()
  })

  const values = (): Promise<Map<string, string>> => rawInfoPairs(node.port, 'namespace/test')

  async function overwrite (from: number, to: number, bytes: number, fill = 'x'): Promise<void> {
    for (let n = from; n < to; n += 200) {
      await Promise.all(Array.from({ length: Math.min(200, to - n) }, (_, i) =>
        client.put({ namespace: 'test', set: 'small', key: n + i }, { text: fill.repeat(bytes) }, { ttl: n + i < EXPIRING ? TTL_SECONDS : 'never' })))
    }
  }

  test('each_device_is_told_by_itself_and_they_add_up_to_the_store', async () => {
    for (let round = 0; round < ROUNDS; round++) await overwrite(0, RECORDS, SMALL_BYTES)
    const settled = await eventually('all is written', values, (now) => now.get('storage-engine.file[0].write_q') === '0' && now.get('storage-engine.file[1].write_q') === '0')
    const devices = [0, 1].map((i) => (name: string): number => {
      const value = settled.get(`storage-engine.file[${i}].${name}`)
      assert.ok(value !== undefined && /^-?\d+$/.test(value), `file[${i}].${name} is ${value}`)
      return Number(value)
    })
    assert.deepEqual([0, 1].map((i) => settled.get(`storage-engine.file[${i}]`)), ['a.dat', 'b.dat'].map((file) => join(node.directory, file)))
    for (const [i, of] of devices.entries()) {
      // A third of the records' bytes at least: they are spread by their digests.
      assert.ok(of('used_bytes') > RECORDS * SMALL_BYTES / 3, `${of('used_bytes')} bytes`)
      assert.ok(of('writes') > 0 && of('defrag_reads') > 0 && of('defrag_writes') + of('defrag_partial_writes') > 0, `file[${i}] was compacted: ${[...settled].join(' ')}`)
      assert.ok(of('free_wblocks') > 0 && of('free_wblocks') < 16 * 1024 / 64)
      assert.ok(of('defrag_q') >= 0 && of('partial_writes') >= 0)
      assert.deepEqual([of('age'), of('read_errors')], [-1, 0])
      assert.equal(settled.get(`storage-engine.file[${i}].state`), 'ok')
    }
    const sum = (name: string): number => devices.reduce((total, of) => total + of(name), 0)
    assert.equal(sum('used_bytes'), Number(settled.get('data_used_bytes')))
    assert.equal(sum('free_wblocks'), Number(settled.get('storage-engine.free_blocks')))
    assert.equal(sum('defrag_reads'), Number(settled.get('storage-engine.defrag_reads')))
  })

  test('records_are_counted_by_size_and_time_to_live_when_somebody_asks', async () => {
    await client.put({ namespace: 'test', set: 'large', key: 1 }, { text: 'x'.repeat(LARGE_BYTES) }, { ttl: 'never' })
    const [sizes, ofSet, linear, ttl] = await Promise.all(['type=object-size', 'type=object-size;set=large', 'type=object-size-linear', 'type=ttl']
      .map((parameters) => node.info(`histogram:namespace=test;${parameters}`)))
    assert.equal(sizes, `units=bytes:[512-1K)=${RECORDS}:[16K-32K)=1`)
    assert.equal(ofSet, 'units=bytes:[16K-32K)=1')
    const counts = (text: string): number[] => text.split('buckets=')[1]!.split(',').map(Number)
    assert.match(linear!, /^units=bytes:hist-width=65536:bucket-width=64:buckets=[\d,]+$/)
    const bySize = counts(linear!)
    assert.equal(bySize.length, 1024)
    assert.deepEqual(bySize.flatMap((count, i) => count === 0 ? [] : [[Math.floor(i * 64 / 1000), count]]), [[0, RECORDS], [LARGE_BYTES / 1000, 1]])
    assert.match(ttl!, /^units=seconds:hist-width=12800:bucket-width=128:buckets=[\d,]+$/)
    assert.deepEqual(counts(ttl!).flatMap((count, i) => count === 0 ? [] : [[Math.floor(i * 128 / 1000), count]]), [[9, EXPIRING]])
    assert.match(await node.info('histogram:namespace=test;type=ttl;set=none'), /^ERROR:4:there is no set 'none'$/)
    assert.match(await node.info('histogram:namespace=none;type=ttl'), /^ERROR:20:/)
    assert.match(await node.info('histogram:namespace=test'), /^ERROR:4:missing 'type'$/)
    assert.match(await node.info('histogram:namespace=test;type=length'), /^ERROR:4:bad 'type' 'length'/)
  })

  test('compression_begins_and_ends_while_the_node_runs_and_either_form_is_read', async () => {
    const before = Number((await values()).get('data_used_bytes'))
    assert.equal(await node.info('set-config:context=namespace;id=test;compression=zstd;compression-level=1;defrag-sleep=100'), 'ok')
    await overwrite(0, RECORDS / 2, SMALL_BYTES, 'y')
    assert.equal(await node.info('set-config:context=namespace;id=test;compression=none'), 'ok')
    await overwrite(0, RECORDS / 4, SMALL_BYTES, 'z')
    const now = await values()
    assert.ok(Number(now.get('data_used_bytes')) < before * 0.85, `${now.get('data_used_bytes')} after ${before}`)
    assert.ok(Number(now.get('data_compression_ratio')) < 0.5)
    assert.equal(now.get('storage-engine.compression-level'), '1')
    for (const [key, letter] of [[0, 'z'], [RECORDS / 2 - 1, 'y'], [RECORDS - 1, 'x']] as const) {
      assert.deepEqual((await client.get({ namespace: 'test', set: 'small', key }))?.bins, { text: letter.repeat(SMALL_BYTES) })
    }
    assert.match(await node.info('set-config:context=namespace;id=test;flush-max-ms=5'), /^ERROR:4:'flush-max-ms' cannot be changed while the node runs$/)
  })
})
