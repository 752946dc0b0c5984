// Two nodes, each the other's datacenter: what is written at one arrives at the other, whatever goes down in between, and
// both end equal.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { after, afterEach, beforeEach, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { eventually } from '../support/eventually.js'
import { NodeProcess, fileNamespace, type YamlMap } from '../support/node-process.js'
import { connectOfficial, loadOfficialClient, type Bins, type OfficialClient, type OfficialError, type OfficialKey } from '../support/official-client.js'
import { packageRoot, perigeeProgram } from '../support/package-root.js'
import { seeded } from '../support/seed.js'
import { rawInfoPairs } from '../support/wire.js'

const NOT_FOUND = 2
const SHIP_TIMEOUT_MS = 60_000
/** Long enough for a change to go round if one did: several pickup periods. */
const ECHO_WAIT_MS = 1_500

const aerospike = loadOfficialClient()

let east: NodeProcess
let west: NodeProcess
/** A client a node, connected when it is first asked for; many may ask at once. */
const clients = new Map<NodeProcess, Promise<OfficialClient>>()

function shippingTo (name: string, port: number): YamlMap {
  return { dcs: [{ name, type: 'cluster', 'node-address-ports': [`127.0.0.1:${port}`], 'period-ms': 20, namespaces: [{ name: 'test' }] }] }
}

beforeEach(async () => {
  const namespaces = (directory: string): YamlMap[] => [fileNamespace(directory, { storage: { 'commit-to-device': true } })]
  east = await NodeProcess.create({ name: 'east', namespaces })
  west = await NodeProcess.create({ name: 'west', namespaces })
  east.configure({ xdr: shippingTo('west', west.port) })
  west.configure({ xdr: shippingTo('east', east.port) })
  await Promise.all([east.start(), west.start()])
})

afterEach(async context => {
  if ((context as { passed?: boolean }).passed === false) for (const node of [east, west]) console.error(node.tail())
  for (const node of [...clients.keys()]) await disconnect(node)
  await Promise.all([east.dispose(), west.dispose()])
})

after(() => { aerospike.releaseEventLoop() })

function at (node: NodeProcess): Promise<OfficialClient> {
  const client = clients.get(node) ?? connectOfficial(node.port)
  clients.set(node, client)
  return client
}

/** Lets go of the client of a node that is about to go down. */
async function disconnect (node: NodeProcess): Promise<void> {
  const client = clients.get(node)
  clients.delete(node)
  ;(await client?.catch(() => undefined))?.close()
}

function key (i: number | string): OfficialKey {
  return new aerospike.Key('test', 'xdr', i)
}

async function binsAt (node: NodeProcess, i: number | string): Promise<Bins | null> {
  try {
    return (await (await at(node)).get(key(i))).bins
  } catch (error) {
    if ((error as OfficialError).code === NOT_FOUND) return null
    throw error
  }
}

/** The bins of `keys` at a node, by key. */
async function contents (node: NodeProcess, keys: ReadonlyArray<number | string>): Promise<Array<Bins | null>> {
  const found: Array<Bins | null> = []
  for (let from = 0; from < keys.length; from += 100) {
    found.push(...await Promise.all(keys.slice(from, from + 100).map(i => binsAt(node, i))))
  }
  return found
}

function range (length: number, from = 0): number[] {
  return Array.from({ length }, (_, i) => from + i)
}

async function write (node: NodeProcess, keys: readonly number[], bins: (i: number) => Bins): Promise<void> {
  const client = await at(node)
  for (let from = 0; from < keys.length; from += 50) {
    await Promise.all(keys.slice(from, from + 50).map(i => client.put(key(i), bins(i))))
  }
}

async function eventuallyHolds (node: NodeProcess, keys: readonly number[], bins: (i: number) => Bins | null): Promise<void> {
  let left = [...keys]
  await eventually(`every change arrived at ${node.name}`, async () => {
    const found = await contents(node, left)
    left = left.filter((i, at) => JSON.stringify(found[at]) !== JSON.stringify(bins(i)))
    return { missing: left.length, first: left[0] }
  }, ({ missing }) => missing === 0, { timeoutMs: SHIP_TIMEOUT_MS, intervalMs: 100 })
}

async function shipStats (node: NodeProcess, dc: string): Promise<Map<string, string>> {
  return await rawInfoPairs(node.port, `get-stats:context=xdr;dc=${dc}`)
}

async function statistic (node: NodeProcess, name: string): Promise<number> {
  const value = Number((await rawInfoPairs(node.port, 'namespace/test')).get(name))
  assert.ok(Number.isFinite(value), `namespace/test has no number ${name}`)
  return value
}

describe('active-active', () => {
  test('writes_arrive_at_the_other_side_both_ways', async () => {
    await Promise.all([
      write(east, range(300), i => ({ from: 'east', i, list: [i, { i }] })),
      write(west, range(300, 300), i => ({ from: 'west', i }))
    ])
    await eventuallyHolds(west, range(300), i => ({ from: 'east', i, list: [i, { i }] }))
    await eventuallyHolds(east, range(300, 300), i => ({ from: 'west', i }))
  })

  test('a_later_write_replaces_the_record_bins_that_are_gone_included', async () => {
    await (await at(east)).put(key(1), { a: 1, b: 2 })
    await eventuallyHolds(west, [1], () => ({ a: 1, b: 2 }))
    await (await at(west)).put(key(1), { a: null, c: 3 })
    await eventuallyHolds(east, [1], () => ({ b: 2, c: 3 }))
  })

  test('deletes_arrive_both_ways', async () => {
    await write(east, range(40), i => ({ i }))
    await eventuallyHolds(west, range(40), i => ({ i }))
    for (const i of range(20)) await (await at(east)).remove(key(i), { durableDelete: i % 2 === 0 })
    for (const i of range(20, 20)) await (await at(west)).remove(key(i), { durableDelete: i % 2 === 0 })
    await eventuallyHolds(west, range(40), () => null)
    await eventuallyHolds(east, range(40), () => null)
  })

  test('the_time_to_live_travels_with_the_record', async () => {
    await (await at(east)).put(key(1), { a: 1 }, { ttl: 5_000 })
    await (await at(west)).put(key(2), { a: 1 }, { ttl: aerospike.ttl.NEVER_EXPIRE })
    await eventuallyHolds(west, [1], () => ({ a: 1 }))
    await eventuallyHolds(east, [2], () => ({ a: 1 }))
    const { ttl } = await (await at(west)).get(key(1))
    assert.ok(ttl > 4_900 && ttl <= 5_000, `ttl is ${ttl}`)
    assert.equal((await (await at(east)).get(key(2))).ttl, aerospike.ttl.NEVER_EXPIRE)
  })

  test('changes_made_by_lua_arrive', async () => {
    const source = 'function set(rec, v) rec.v = v if aerospike:exists(rec) then aerospike:update(rec) else aerospike:create(rec) end end\n'
    const content = Buffer.from(source).toString('base64')
    assert.equal(await east.info(`udf-put:filename=set.lua;content=${content};content-len=${content.length};udf-type=LUA;`), 'ok')
    await (await at(east)).apply(key(1), { module: 'set', funcname: 'set', args: [42] })
    await eventuallyHolds(west, [1], () => ({ v: 42 }))
  })

  test('a_write_that_came_by_xdr_is_not_shipped_back', async () => {
    await write(east, range(200), i => ({ i }))
    await eventuallyHolds(west, range(200), i => ({ i }))
    await eventually('east counts what was confirmed', async () => Number((await shipStats(east, 'west')).get('success')),
      success => success >= 200, { timeoutMs: SHIP_TIMEOUT_MS })
    assert.equal(await statistic(west, 'xdr_client_write_success'), 200)
    await sleep(ECHO_WAIT_MS)
    assert.equal(Number((await shipStats(west, 'east')).get('success')), 0)
    assert.equal(await statistic(east, 'xdr_client_write_success'), 0)
  })

  test('concurrent_conflicting_writes_end_equal_on_both_sides', async () => {
    const random = seeded('concurrent_conflicting_writes_end_equal_on_both_sides')
    const keys = range(50)
    const writers = [east, west].flatMap(node => range(6).map(async writer => {
      const client = await at(node)
      for (let round = 0; round < 150; round++) {
        const i = random.pick(keys)
        const choice = random.next()
        if (choice < 0.15) await client.remove(key(i), { durableDelete: true }).catch((error: OfficialError) => { if (error.code !== NOT_FOUND) throw error })
        else if (choice < 0.3) await client.put(key(i), { [`only-${node.name}`]: round })
        else await client.put(key(i), { from: node.name, writer, round }, {}, { exists: aerospike.policy.exists.CREATE_OR_REPLACE })
      }
    }))
    await Promise.all(writers)
    const both = await eventually('both sides are equal', async () => {
      const [left, right] = [await contents(east, keys), await contents(west, keys)]
      const different = keys.filter(i => JSON.stringify(sorted(left[i])) !== JSON.stringify(sorted(right[i])))
      return { different: different.length, example: different.slice(0, 3).map(i => ({ i, east: left[i], west: right[i] })), left }
    }, ({ different }) => different === 0, { timeoutMs: SHIP_TIMEOUT_MS, intervalMs: 200 })
    // Equal must stay equal, and something must be left for it to mean anything.
    await sleep(ECHO_WAIT_MS)
    assert.deepEqual((await contents(west, keys)).map(sorted), (await contents(east, keys)).map(sorted))
    assert.ok(both.left.some(bins => bins !== null))
  })
})

/** The order of bins is no part of a record. */
function sorted (bins: Bins | null | undefined): Array<[string, unknown]> | null {
  return bins === null || bins === undefined ? null : Object.entries(bins).sort(([left], [right]) => left < right ? -1 : 1)
}

describe('outages', () => {
  test('a_destination_that_was_down_catches_up', async () => {
    await write(east, range(100), i => ({ i, round: 1 }))
    await eventuallyHolds(west, range(100), i => ({ i, round: 1 }))
    await disconnect(west)
    await west.stop()
    await write(east, range(300), i => ({ i, round: 2 }))
    for (const i of range(50)) await (await at(east)).remove(key(i), { durableDelete: true })
    await west.start()
    await eventuallyHolds(west, range(300), i => i < 50 ? null : { i, round: 2 })
  })

  test('a_destination_killed_in_the_middle_gets_everything', async () => {
    const writing = write(east, range(2_000), i => ({ i }))
    await sleep(150)
    await disconnect(west)
    await west.kill()
    await writing
    await west.start()
    await eventuallyHolds(west, range(2_000), i => ({ i }))
  })

  for (const [how, end] of [['restarted', (node: NodeProcess) => node.stop()], ['killed', (node: NodeProcess) => node.kill()]] as const) {
    test(`a_source_${how}_while_the_destination_is_down_still_ships_everything`, async () => {
      await write(east, range(50), i => ({ i, round: 1 }))
      await eventuallyHolds(west, range(50), i => ({ i, round: 1 }))
      await disconnect(west)
      await west.stop()
      await write(east, range(300), i => ({ i, round: 2 }))
      for (const i of range(20)) await (await at(east)).remove(key(i), { durableDelete: true })
      await disconnect(east)
      await end(east)
      await east.start()
      await write(east, range(50, 300), i => ({ i, round: 3 }))
      await west.start()
      await eventuallyHolds(west, range(350), i => i < 20 ? null : { i, round: i < 300 ? 2 : 3 })
    })
  }

  test('both_sides_killed_again_and_again_end_equal', async () => {
    const random = seeded('both_sides_killed_again_and_again_end_equal')
    const keys = range(60)
    for (let round = 0; round < 4; round++) {
      for (const node of [east, west]) {
        for (let change = 0; change < 60; change++) await (await at(node)).put(key(random.pick(keys)), { from: node.name, round, change })
      }
      const victim = random.pick([east, west])
      await disconnect(victim)
      await victim.kill()
      await victim.start()
    }
    await eventually('both sides are equal', async () => {
      const [left, right] = [await contents(east, keys), await contents(west, keys)]
      return keys.filter(i => JSON.stringify(sorted(left[i])) !== JSON.stringify(sorted(right[i]))).map(i => ({ i, east: left[i], west: right[i] })).slice(0, 3)
    }, different => different.length === 0, { timeoutMs: SHIP_TIMEOUT_MS, intervalMs: 200 })
  })

  test('lag_is_seen_while_the_destination_is_down_and_gone_afterwards', async () => {
    await disconnect(west)
    await west.stop()
    await write(east, range(20), i => ({ i }))
    await eventually('east reports what waits', async () => Number((await shipStats(east, 'west')).get('lag')), lag => lag >= 1, { timeoutMs: 15_000 })
    await west.start()
    await eventuallyHolds(west, range(20), i => ({ i }))
    await eventually('east reports no lag', async () => Number((await shipStats(east, 'west')).get('lag')), lag => lag === 0, { timeoutMs: 15_000 })
  })
})

describe('command line', () => {
  test('xdr_status_as_json_names_the_datacenter_and_its_counters', async () => {
    await write(east, range(30), i => ({ i }))
    await eventuallyHolds(west, range(30), i => ({ i }))
    const { status, stdout, stderr } = spawnSync(process.execPath, [perigeeProgram, 'xdr', 'status', '--json', '--host', '127.0.0.1', '--port', String(east.port)], {
      cwd: packageRoot, encoding: 'utf8', timeout: 20_000
    })
    assert.equal(status, 0, stderr)
    assert.match(stdout, /"west"/)
    const numbers = JSON.stringify(JSON.parse(stdout))
    assert.match(numbers, /"success":30\b/)
    assert.match(numbers, /"lag/)
  })
})
