// With `commit-to-device true` an acknowledged write is there after kill -9.
//
// Fault model: the process dies between two instructions of the kernel's choosing, as often as it is told to; what was
// handed to the file system stays. Each record has one writer, which waits for each answer, so at the kill at most one
// change of a record is unanswered: after the restart the record is as acknowledged, or as that one change would make it.
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { NodeProcess, fileNamespace, showingLogs, type YamlMap } from '../support/node-process.js'
import { connectOfficial, loadOfficialClient, type OfficialClient, type OfficialError, type OfficialKey } from '../support/official-client.js'
import { seeded, type Random } from '../support/seed.js'

const ROUNDS = 6
const WRITERS = 16
const KEYS_PER_WRITER = 40
const ROUND_MS_MIN = 300
const ROUND_MS_MAX = 1_500
const ACKNOWLEDGED_PER_ROUND_MIN = 20
const NOT_FOUND = 2

const aerospike = loadOfficialClient()

after(() => { aerospike.releaseEventLoop() })

/** A version number, or null for a record that is deleted or was never written. */
type Version = number | null

interface Tracked {
  key: OfficialKey
  name: string
  acknowledged: Version
  /** The change that has been sent but not answered. */
  unanswered: { to: Version } | null
}

function binsOf (name: string, version: number, random: Random): Record<string, unknown> {
  return { name, version, check: `${name}:${version}`, padding: 'x'.repeat(random.integer(0, 3_000)) }
}

async function versionOf (client: OfficialClient, { key, name }: Tracked): Promise<Version> {
  try {
    const { bins } = await client.get(key)
    assert.equal(bins.name, name)
    assert.equal(bins.check, `${name}:${String(bins.version)}`)
    return bins.version as number
  } catch (error) {
    if ((error as OfficialError).code === NOT_FOUND) return null
    throw error
  }
}

/** Writes and durably deletes its own records until the node is gone. Returns the number of changes answered. */
async function writeUntilKilled (
  client: OfficialClient, records: readonly Tracked[], random: Random, next: () => number, killed: () => boolean
): Promise<number> {
  let answered = 0
  for (;;) {
    const record = random.pick(records)
    const remove = record.acknowledged !== null && random.next() < 0.25
    const to = remove ? null : next()
    record.unanswered = { to }
    try {
      if (to === null) await client.remove(record.key, { durableDelete: true })
      else await client.put(record.key, binsOf(record.name, to, random))
    } catch (error) {
      // Before the kill nothing may fail.
      if (!killed()) throw error
      return answered
    }
    record.acknowledged = to
    record.unanswered = null
    answered++
  }
}

async function check (client: OfficialClient, records: readonly Tracked[], when: string): Promise<void> {
  for (const record of records) {
    const found = await versionOf(client, record)
    const allowed = [record.acknowledged, ...(record.unanswered === null ? [] : [record.unanswered.to])]
    assert.ok(allowed.includes(found), `${when}: ${record.name} is ${found}, acknowledged ${record.acknowledged}, allowed ${allowed.join(' or ')}`)
    record.acknowledged = found
    record.unanswered = null
  }
}

async function crashRounds (title: string, filesize: string, storage: YamlMap, more: YamlMap = {}): Promise<void> {
  const random = seeded(title)
  const node = await NodeProcess.start({
    name: 'durability',
    namespaces: directory => [fileNamespace(directory, { filesize, storage: { 'commit-to-device': true, ...storage }, more })]
  })
  const records: Tracked[] = Array.from({ length: WRITERS * KEYS_PER_WRITER }, (_, i) => {
    const name = `record-${i}`
    return { key: new aerospike.Key('test', 'durable', name), name, acknowledged: null, unanswered: null }
  })
  let version = 0
  let answeredInAll = 0
  await showingLogs([node], async () => {
    for (let round = 1; round <= ROUNDS; round++) {
      const client = await connectOfficial(node.port)
      let killed = false
      const writing = Promise.all(Array.from({ length: WRITERS }, (_, writer) => {
        const own = records.slice(writer * KEYS_PER_WRITER, (writer + 1) * KEYS_PER_WRITER)
        return writeUntilKilled(client, own, random, () => ++version, () => killed)
      }))
      await Promise.race([writing, sleep(random.integer(ROUND_MS_MIN, ROUND_MS_MAX))])
      killed = true
      await node.kill()
      const answered = (await writing).reduce((sum, one) => sum + one, 0)
      client.close()
      answeredInAll += answered
      assert.ok(answered >= ACKNOWLEDGED_PER_ROUND_MIN, `round ${round}: only ${answered} changes were answered, which proves little`)

      await node.start()
      const reader = await connectOfficial(node.port)
      await check(reader, records, `round ${round}`)
      reader.close()
    }
    // A polite restart must not lose what the crashes left.
    await node.restart()
    const reader = await connectOfficial(node.port)
    await check(reader, records, 'after a polite restart')
    reader.close()
  })
  console.log(`${title}: ${answeredInAll} changes acknowledged over ${ROUNDS} crashes`)
  await node.dispose()
}

describe('durability', { concurrency: 1 }, () => {
  test('kill_9_keeps_every_acknowledged_write_and_durable_delete', () =>
    crashRounds('kill_9_keeps_every_acknowledged_write_and_durable_delete', '128M', {}))

  test('kill_9_during_defragmentation_keeps_every_acknowledged_write', () =>
    // 256 blocks of 64 KiB in which most versions are soon dead: blocks are freed and used again all the time.
    crashRounds('kill_9_during_defragmentation_keeps_every_acknowledged_write', '16M', {
      'write-block-size': '64K', 'flush-size': '64K', 'defrag-lwm-pct': 90, 'post-write-cache': 0
    }, { 'max-record-size': '64K' }))

  test('a_polite_stop_flushes_what_was_not_committed', async () => {
    const node = await NodeProcess.start({ name: 'flush', namespaces: directory => [fileNamespace(directory)] })
    await showingLogs([node], async () => {
      const key = (i: number): OfficialKey => new aerospike.Key('test', 'flush', i)
      const client = await connectOfficial(node.port)
      for (let i = 0; i < 200; i++) await client.put(key(i), { i }, { ttl: 10_000 })
      await client.put(key(0), { i: 0, again: true }, { ttl: 10_000 })
      client.close()
      await node.restart()

      const reader = await connectOfficial(node.port)
      for (let i = 1; i < 200; i++) assert.deepEqual((await reader.get(key(i))).bins, { i })
      const { bins, gen, ttl } = await reader.get(key(0))
      assert.deepEqual({ bins, gen }, { bins: { i: 0, again: true }, gen: 2 })
      assert.ok(ttl > 9_000 && ttl <= 10_000, `ttl is ${ttl}`)
      reader.close()
    })
    await node.dispose()
  })

  test('the_node_keeps_its_identity_over_restarts', async () => {
    const node = await NodeProcess.start({ name: 'identity' })
    const before = await node.info('node')
    await node.restart()
    assert.equal(await node.info('node'), before)
    await node.dispose()
  })
})
