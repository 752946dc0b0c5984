// Queries by index beside writers, held against a model: every record whose value matches throughout a query comes once, none comes that never matched.
//
// A client sees of a write only when it began and when it was answered; in between the record may have either value. So the model keeps for each record the
// states that it may have had at some moment of a query. A query is right when each record that came had a matching state among them, and each that did
// not come one that does not match.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { inspect } from 'node:util'
import { Client, digestOf, op, type Bins, type Key, type Value } from '../../src/client/index.js'
import { decodeParticle } from '../../src/client/particle.js'
import { eventually } from '../support/eventually.js'
import { NodeProcess, fileNamespace, showingLogs } from '../support/node-process.js'
import { Random, seeded } from '../support/seed.js'
import { resumeValues, whereFields, type RawWhere } from '../support/wire-index.js'
import { runPages, runQuery, type QueryAnswer } from '../support/wire-query.js'
import { RawConnection, rawInfoPairs } from '../support/wire.js'

const SET = 'model'
const KEYS = 500
const WRITERS = 4
const READERS = 3
const QUERIES = 16
const VALUES = 100
const TEXTS = 20

/** Bins; null for no record. */
type State = { n?: number, l?: number[], s?: string } | null

/** Moments, in the order in which this process saw them. */
let moment = 0

interface Change { readonly began: number, ended: number, readonly state: State }

/** What became of one record, by one writer. */
class History {
  readonly #changes: Change[] = [{ began: 0, ended: 0, state: null }]

  get state (): State {
    return this.#changes.at(-1)!.state
  }

  async change (state: State, carryOut: () => Promise<unknown>): Promise<void> {
    const change = { began: ++moment, ended: Infinity, state }
    this.#changes.push(change)
    await carryOut()
    change.ended = ++moment
  }

  /** The states that it may have had at some moment between two. */
  between (from: number, to: number): State[] {
    const settled = this.#changes.findLastIndex(({ ended }) => ended <= from)
    return this.#changes.slice(settled).filter(({ began }) => began <= to).map(({ state }) => state)
  }
}

interface Asked { where: RawWhere, matches: (state: State) => boolean }

function ask (random: Random): Asked {
  const low = random.integer(0, VALUES)
  const high = low + random.integer(0, 30)
  const isIn = (value: number): boolean => value >= low && value <= high
  const text = `text-${random.integer(0, TEXTS)}`
  return random.pick<Asked>([
    { where: { bin: 'n', integers: [low, high] }, matches: (state) => state?.n !== undefined && isIn(state.n) },
    { where: { bin: 'l', integers: [low, low + 3], collection: 'list' }, matches: (state) => state?.l?.some((value) => value >= low && value <= low + 3) ?? false },
    { where: { bin: 's', string: text }, matches: (state) => state?.s === text }
  ])
}

/** One change of a record, as the model and as the node does it. */
function draw (random: Random, client: Client, key: Key, state: State): [State, () => Promise<unknown>] {
  const n = random.integer(0, VALUES)
  const l = Array.from({ length: random.integer(0, 5) }, () => random.integer(0, VALUES))
  const s = `text-${random.integer(0, TEXTS)}`
  const put = (bins: Bins, replace = false) => () => client.put(key, bins, { exists: replace ? 'replace' : 'update' })
  const kind = random.integer(0, state === null ? 2 : 8)
  if (kind === 0) return [{ ...state, n }, put({ n })]
  if (kind === 1) return [{ n, l, s }, put({ n, l, s }, true)]
  if (kind === 2) return [{ ...state, l }, put({ l })]
  if (kind === 3) return [{ ...state, s }, put({ s })]
  if (kind === 4) return [{ ...state, n: (state!.n ?? 0) + 1 }, () => client.operate(key, [op.add('n', 1)])]
  if (kind === 5) return [{ n, l }, put({ n, l }, true)]
  return [null, () => client.remove(key, { durableDelete: kind === 6 })]
}

function stateOf (bins: QueryAnswer['records'][number]['bins']): State {
  return Object.fromEntries([...bins].map(([name, { particle, value }]): [string, Value] => [name, decodeParticle(particle, value)])) as State
}

function asText (state: State): string {
  return JSON.stringify(state === null ? null : [state.n, state.l, state.s])
}

let node: NodeProcess
let client: Client

before(async () => {
  node = await NodeProcess.start({
    name: 'sindex-model',
    service: { 'sindex-gc-period': '1s' },
    namespaces: (directory) => [fileNamespace(directory, { filesize: '64M', storage: { 'post-write-cache': 0, 'write-block-size': '1M', 'flush-size': '128K', 'max-write-cache': '64M' } })]
  })
  client = await Client.connect({ hosts: [{ host: '127.0.0.1', port: node.port }], timeoutMs: 30_000, retriesMax: 0 })
})

after(async () => {
  await client?.close()
  await node?.dispose()
})

test('queries_by_index_beside_writers_find_what_matches_throughout_and_nothing_that_never_did', () => showingLogs([node], async () => {
  const random = seeded('queries beside writers')
  const histories = Array.from({ length: KEYS }, () => new History())
  const keys = Array.from({ length: KEYS }, (_, n): Key => ({ namespace: 'test', set: SET, key: n }))
  const byDigest = new Map(keys.map((key, n) => [digestOf(SET, key.key as number).toString('hex'), n]))
  const definitions = { n: 'bin=n;type=numeric', l: 'bin=l;type=numeric;indextype=list', s: 'bin=s;type=string' }
  const index = async (name: string, parameters: string): Promise<void> => {
    assert.equal(await node.info(`sindex-create:namespace=test;set=${SET};indexname=${name};${parameters}`), 'ok')
    await eventually(`${name} is built`, () => node.info(`sindex-stat:namespace=test;indexname=${name}`), (stat) => stat.includes('load_pct=100'))
  }

  let reading = true
  const write = async (writer: number): Promise<number> => {
    const own = histories.map((_, n) => n).filter((n) => n % WRITERS === writer)
    const mine = new Random(random.seed + 1 + writer)
    let changes = 0
    while (reading) {
      const n = mine.pick(own)
      const [state, carryOut] = draw(mine, client, keys[n]!, histories[n]!.state)
      await histories[n]!.change(state, carryOut)
      changes++
    }
    return changes
  }

  /** What came of a query that ran between two moments. */
  const check = (records: QueryAnswer['records'], { where, matches }: Asked, from: number, to: number): void => {
    const what = `${inspect(where)}, seed ${random.seed}`
    const came = new Map<number, State>()
    for (const { digest, bins } of records) {
      const n = byDigest.get(digest)
      assert.ok(n !== undefined, `a record that nobody wrote came: ${what}`)
      assert.ok(!came.has(n), `record ${n} came twice: ${what}`)
      came.set(n, stateOf(bins))
    }
    histories.forEach((history, n) => {
      const possible = history.between(from, to)
      const state = came.get(n)
      const shown = possible.map(asText).join(' ')
      if (state === undefined) assert.ok(!possible.every(matches), `record ${n} did not come, of ${shown}: ${what}`)
      else assert.ok(matches(state) && possible.some((one) => asText(one) === asText(state)), `record ${n} came as ${asText(state)}, of ${shown}: ${what}`)
    })
  }

  const read = async (reader: number): Promise<number> => {
    const connection = await RawConnection.open(node.port)
    const mine = new Random(random.seed + 101 + reader)
    let records = 0
    for (let query = 0; query < QUERIES; query++) {
      const asked = ask(mine)
      const wanted = { set: SET, extra: whereFields(asked.where) }
      const from = ++moment
      let found: QueryAnswer['records']
      if (mine.integer(0, 3) === 0) {
        found = await runPages(connection, wanted, BigInt(mine.integer(5, 40)), mine.pick([() => [], resumeValues]))
      } else {
        // A slow one meets more changes.
        const answer = await runQuery(connection, { ...wanted, ...mine.integer(0, 2) === 0 ? {} : { recordsPerSecond: mine.integer(100, 1000) } })
        assert.equal(answer.result, 0)
        assert.equal(answer.done.size, 4096)
        found = answer.records
      }
      check(found, asked, from, ++moment)
      records += found.length
    }
    connection.close()
    return records
  }

  /** Another index comes and goes meanwhile. */
  const churn = async (): Promise<void> => {
    while (reading) {
      await index('passing', 'bin=n;type=numeric;indextype=mapvalues')
      assert.equal(await node.info('sindex-delete:namespace=test;indexname=passing'), 'ok')
    }
  }

  // The indexes are built while the records change.
  const writers = Promise.all(Array.from({ length: WRITERS }, (_, writer) => write(writer)))
  try {
    for (const [name, parameters] of Object.entries(definitions)) await index(name, parameters)
    const readers = Promise.all(Array.from({ length: READERS }, (_, reader) => read(reader))).finally(() => { reading = false })
    const [records] = await Promise.all([readers, churn()])
    assert.ok(records.every((count) => count > 0), 'queries found nothing')
  } finally {
    reading = false
    await Promise.allSettled([writers])
  }
  const changes = (await writers).reduce((sum, one) => sum + one, 0)
  assert.ok(changes > KEYS, `only ${changes} changes`)

  // When all is quiet the indexes hold exactly what the records hold, and the leavings of deleted records are gone.
  const connection = await RawConnection.open(node.port)
  for (let low = 0; low < VALUES; low += 10) {
    const asked: Asked = { where: { bin: 'n', integers: [low, low + 9] }, matches: (state) => state?.n !== undefined && state.n >= low && state.n <= low + 9 }
    const answer = await runQuery(connection, { set: SET, extra: whereFields(asked.where) })
    check(answer.records, asked, ++moment, ++moment)
  }
  connection.close()
  const expected: Record<string, number> = {
    n: histories.filter(({ state }) => state?.n !== undefined).length,
    l: histories.reduce((sum, { state }) => sum + new Set(state?.l ?? []).size, 0),
    s: histories.filter(({ state }) => state?.s !== undefined).length
  }
  for (const [name, entries] of Object.entries(expected)) {
    await eventually(`index ${name} has ${entries} entries, seed ${random.seed}`, () => rawInfoPairs(node.port, `sindex-stat:namespace=test;indexname=${name}`), (stat) => stat.get('entries') === String(entries))
  }
}))
