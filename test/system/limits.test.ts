// What a node does when it runs out of room, and when records are taken away in bulk.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Client, RecordError, type Key } from '../../src/client/index.js'
import { eventually } from '../support/eventually.js'
import { NodeProcess, fileNamespace, memoryNamespace, showingLogs, type YamlMap } from '../support/node-process.js'
import { seeded } from '../support/seed.js'
import { rawInfoPairs } from '../support/wire.js'

const KiB = 1024

/** 256 blocks of 64 KiB: small enough to be filled in a moment. */
function smallNamespace (name: string, more: YamlMap): YamlMap {
  return memoryNamespace(name, {
    'max-record-size': '60K', 'storage-engine': { type: 'memory', 'data-size': '16M', 'write-block-size': '64K', 'flush-size': '16K' }, ...more
  })
}

function connect (node: NodeProcess): Promise<Client> {
  return Client.connect({ hosts: [{ host: '127.0.0.1', port: node.port }], timeoutMs: 10_000 })
}

async function refusal (action: Promise<unknown>): Promise<unknown> {
  const error = await action.then(() => undefined, (thrown: unknown) => thrown)
  assert.ok(error instanceof RecordError, String(error))
  return error.code
}

async function statistic (node: NodeProcess, namespace: string, name: string): Promise<string | undefined> {
  return (await rawInfoPairs(node.port, `namespace/${namespace}`)).get(name)
}

async function setStatistic (node: NodeProcess, namespace: string, set: string, name: string): Promise<string | undefined> {
  const values = (await node.info(`sets/${namespace}/${set}`)).replace(/;$/, '').split(':').map((pair) => pair.split('='))
  return values.find(([key]) => key === name)?.[1]
}

describe('limits', { concurrency: 1 }, () => {
  let node: NodeProcess
  let client: Client

  before(async () => {
    node = await NodeProcess.start({
      name: 'limits',
      namespaces: [
        smallNamespace('small', { 'stop-writes-used-pct': 10 }),
        smallNamespace('evicting', { 'nsup-period': 1, 'evict-used-pct': 2, 'evict-tenths-pct': 100, 'stop-writes-used-pct': 0 }),
        memoryNamespace('sets', { sets: [{ name: 'three', 'stop-writes-count': 3, 'default-ttl': '1h' }] })
      ]
    })
    client = await connect(node)
  })

  after(async () => {
    await client.close()
    await node.dispose()
  })

  test('a_full_namespace_refuses_writes_and_takes_them_again_when_there_is_room', () => showingLogs([node], async () => {
    const key = (i: number): Key => ({ namespace: 'small', set: 's', key: i })
    const value = 'x'.repeat(50 * KiB)
    let written = 0
    while (await statistic(node, 'small', 'stop_writes') !== 'true') {
      const put = client.put(key(written), { value })
      const code = await put.then(() => 'OK', (error: RecordError) => error.code)
      if (code === 'OK') written++
      assert.ok(written < 300, 'more than a namespace of 16 MiB holds')
    }
    assert.match(await statistic(node, 'small', 'stop_writes_reason') ?? '', /^stop-writes-used-pct/)
    assert.ok(Number(await statistic(node, 'small', 'data_used_pct')) >= 10)
    assert.equal(await refusal(client.put(key(1000), { value: 1 })), 'OUT_OF_SPACE')
    assert.equal((await client.get(key(0)))?.bins['value'], value)
    assert.equal((await client.info('namespace/evicting')).includes('stop_writes=true'), false, 'other namespaces go on')
    for (let i = 0; i < written - 5; i++) assert.equal(await client.remove(key(i), { durableDelete: i % 2 === 0 }), true)
    await eventually('writes go on by themselves', () => statistic(node, 'small', 'stop_writes'), (value) => value === 'false')
    await client.put(key(1000), { value: 1 })
    assert.match(node.log, /stop-writes: new data is refused/)
    assert.match(node.log, /stop-writes ended/)
  }))

  test('above_the_high_water_mark_the_nearest_to_expiry_are_evicted', () => showingLogs([node], async () => {
    const key = (i: number | string): Key => ({ namespace: 'evicting', set: 's', key: i })
    const value = 'x'.repeat(10 * KiB)
    for (let i = 0; i < 5; i++) await client.put(key(`never${i}`), { value }, { ttl: 'never' })
    for (let i = 0; i < 60; i++) await client.put(key(i), { value }, { ttl: 1000 + 100 * i })
    await eventually('use falls below the mark', () => rawInfoPairs(node.port, 'namespace/evicting'), (seen) => {
      return seen.get('hwm_breached') === 'false' && Number(seen.get('evicted_objects')) > 0
    })
    const there = await Promise.all(Array.from({ length: 60 }, async (_, i) => await client.exists(key(i)) !== null))
    const first = there.indexOf(true)
    assert.ok(first > 0, 'something is left, and not all')
    assert.deepEqual(there.slice(first), there.slice(first).map(() => true), 'in the order of their ends')
    for (let i = 0; i < 5; i++) assert.notEqual(await client.exists(key(`never${i}`)), null)
    const evictTtl = Number(await statistic(node, 'evicting', 'evict_ttl'))
    assert.ok(Math.abs(evictTtl - (1000 + 100 * (first - 1))) < 60, `evict_ttl ${evictTtl}, first left ${first}`)
    assert.equal(await node.info('eviction-reset:namespace=evicting'), 'ok')
    assert.equal(await statistic(node, 'evicting', 'evict_ttl'), '0')
  }))

  test('a_set_at_its_limit_refuses_writes_and_another_set_does_not', () => showingLogs([node], async () => {
    const key = (i: number, set = 'three'): Key => ({ namespace: 'sets', set, key: i })
    for (let i = 0; i < 3; i++) await client.put(key(i), { i })
    assert.equal(await refusal(client.put(key(3), { i: 3 })), 'FORBIDDEN')
    assert.equal(await refusal(client.put(key(0), { i: 9 })), 'FORBIDDEN')
    await client.put(key(3, 'other'), { i: 3 })
    const ttl = (await client.get(key(0)))!.voidTime - (Date.now() - Date.UTC(2010, 0, 1)) / 1000
    assert.ok(ttl > 3_500 && ttl <= 3_600, `the set's time to live, not ${ttl}`)
    assert.equal(await client.remove(key(0)), true)
    await client.put(key(3), { i: 3 })
    assert.equal(await setStatistic(node, 'sets', 'three', 'stop-writes-count'), '3')
    assert.equal(await refusal(client.put(key(4), { i: 4 })), 'FORBIDDEN')
    assert.equal(await node.info('set-config:context=namespace;id=sets;set=three;stop-writes-count=4'), 'ok')
    await client.put(key(4), { i: 4 })
    assert.match(await node.info('get-config:context=namespace;id=sets;set=three'), /stop-writes-count=4/)
    assert.equal(await statistic(node, 'sets', 'fail_set_stop_writes'), '3')
  }))
})

const RECORDS = 3_000

async function writeAll (client: Client, set: string, count: number): Promise<void> {
  let next = 0
  await Promise.all(Array.from({ length: 32 }, async () => {
    for (let i = next++; i < count; i = next++) await client.put({ namespace: 'test', set, key: i }, { i })
  }))
}

async function visible (client: Client, set: string, count: number): Promise<number> {
  let found = 0
  let next = 0
  await Promise.all(Array.from({ length: 32 }, async () => {
    for (let i = next++; i < count; i = next++) if (await client.exists({ namespace: 'test', set, key: i }) !== null) found++
  }))
  return found
}

describe('truncation', { concurrency: 1 }, () => {
  const start = () => NodeProcess.start({
    name: 'truncate', namespaces: (directory) => [fileNamespace(directory, { storage: { 'commit-to-device': true } })]
  })

  test('truncated_records_are_gone_at_once_and_after_a_restart_and_later_ones_stay', async () => {
    const node = await start()
    await showingLogs([node], async () => {
      let client = await connect(node)
      await writeAll(client, 'users', 500)
      await writeAll(client, 'others', 100)
      assert.equal(await client.info('truncate:namespace=test;set=users'), 'ok')
      assert.equal(await client.get({ namespace: 'test', set: 'users', key: 1 }), null)
      await client.put({ namespace: 'test', set: 'users', key: 1 }, { again: true }, { exists: 'create-only' })
      const check = async () => {
        assert.equal(await visible(client, 'users', 500), 1)
        assert.equal(await visible(client, 'others', 100), 100)
        let scanned = 0
        for await (const _ of client.scan('test', { set: 'users' })) scanned++
        assert.equal(scanned, 1, 'queries see the same')
      }
      await check()
      await eventually('removed', () => statistic(node, 'test', 'truncated_objects'), (value) => value === '499')
      await eventually('told', () => setStatistic(node, 'test', 'users', 'truncating'), (value) => value === 'false')
      assert.equal(await setStatistic(node, 'test', 'users', 'objects'), '1')
      const lut = await setStatistic(node, 'test', 'users', 'truncate_lut')
      await client.close()
      await node.kill()
      await node.start()
      client = await connect(node)
      await check()
      assert.equal(await setStatistic(node, 'test', 'users', 'truncate_lut'), lut)
      await client.close()
    })
    await node.dispose()
  })

  test('a_mark_of_a_given_time_parts_records_by_their_last_update', async () => {
    const node = await start()
    await showingLogs([node], async () => {
      const client = await connect(node)
      await writeAll(client, 'users', 20)
      await sleep(20)
      const between = Date.now()
      await sleep(20)
      await client.put({ namespace: 'test', set: 'users', key: 3 }, { updated: true })
      assert.equal(await client.info(`truncate-namespace:namespace=test;lut=${BigInt(between) * 1_000_000n}`), 'ok')
      assert.equal(await visible(client, 'users', 20), 1)
      assert.notEqual(await client.get({ namespace: 'test', set: 'users', key: 3 }), null)
      await client.close()
    })
    await node.dispose()
  })

  test('an_undo_shows_exactly_what_was_not_removed', async () => {
    const node = await start()
    await showingLogs([node], async () => {
      const client = await connect(node)
      await writeAll(client, 'users', RECORDS)
      assert.equal(await client.info('truncate-namespace:namespace=test'), 'ok')
      assert.equal(await client.info('truncate-namespace-undo:namespace=test'), 'ok')
      await eventually('the removal has ended', () => statistic(node, 'test', 'truncating'), (value) => value === 'false')
      const removed = Number(await statistic(node, 'test', 'truncated_objects'))
      assert.equal(await visible(client, 'users', RECORDS) + removed, RECORDS)
      await client.close()
    })
    await node.dispose()
  })

  test('kill_9_during_a_truncation_leaves_all_records_or_none_and_none_once_it_was_answered', async () => {
    const random = seeded('kill_9_during_a_truncation')
    const node = await start()
    await showingLogs([node], async () => {
      for (let round = 0; round < 6; round++) {
        const writer = await connect(node)
        await writeAll(writer, `round${round}`, 400)
        let answered = false
        const truncated = writer.info(`truncate:namespace=test;set=round${round}`).then((reply) => { answered = reply === 'ok' }, () => {})
        await sleep(random.integer(0, 12))
        const before = answered
        await node.kill()
        await truncated
        await writer.close()
        await node.start()
        const reader = await connect(node)
        const found = await visible(reader, `round${round}`, 400)
        assert.ok(found === 0 || (found === 400 && !before), `round ${round}: ${found} of 400, ${before ? 'answered' : 'not answered'} before the kill`)
        await reader.close()
      }
    })
    await node.dispose()
  })
})
