// Hostile functions on a real node: each ends with an error, its record stays as it was, and other clients are served meanwhile.
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { ATTACKS, attackModule, BYSTANDER_MODULE, TIME } from '../support/lua-attacks.js'
import { NodeProcess } from '../support/node-process.js'
import { connectOfficial, loadOfficialClient, type OfficialClient, type OfficialError, type OfficialKey } from '../support/official-client.js'
import { tempDirectory } from '../support/temp.js'

const UDF_EXECUTION = 100
const RECORD_TOO_BIG = 13
const FORBIDDEN = 22
/** Of the bystanders: all attacks at once keep two workers busy for as long as each takes. */
const BYSTANDER_TIMEOUT_MS = 60_000

const aerospike = loadOfficialClient()
let node: NodeProcess
let client: OfficialClient
let directory: string

async function register (name: string, source: string): Promise<void> {
  const path = join(directory, name)
  writeFileSync(path, source)
  await (await client.udfRegister(path)).wait(20)
}

async function failureOf (command: Promise<unknown>): Promise<OfficialError> {
  return await command.then(value => { throw new Error(`succeeded with ${JSON.stringify(value)}`) }, error => error as OfficialError)
}

before(async () => {
  directory = tempDirectory('lua-sandbox')
  node = await NodeProcess.start({ name: 'udf-sandbox', modLua: { workers: 2, 'time-limit-ms': 400, 'call-memory': '64M' } })
  client = await connectOfficial(node.port)
  await register('attacks.lua', attackModule())
  await register('bystander.lua', BYSTANDER_MODULE)
  await client.put(keyOf('plain'), { a: 1 })
})

after(async () => {
  client?.close()
  aerospike.releaseEventLoop()
  await node?.dispose()
})

function keyOf (name: string): OfficialKey {
  return new aerospike.Key('test', 'sandbox', name)
}

/** Reads and calls of others, for as long as something is under way. */
async function beside (attack: Promise<unknown>): Promise<{ reads: number, calls: number }> {
  let isOver = false
  const over = (): void => { isOver = true }
  attack.then(over, over)
  const done = { reads: 0, calls: 0 }
  const reading = (async () => {
    do {
      assert.deepEqual((await client.get(keyOf('plain'))).bins, { a: 1 })
      done.reads++
    } while (!isOver)
  })()
  const calling = (async () => {
    do {
      const n = done.calls
      assert.equal(await client.apply(keyOf('touched'), { module: 'bystander', funcname: 'touch', args: [n] }, { totalTimeout: BYSTANDER_TIMEOUT_MS }), 10 + n)
      done.calls++
    } while (!isOver)
  })()
  await Promise.all([reading, calling])
  return done
}

describe('hostile functions', () => {
  for (const { name, message } of ATTACKS) {
    test(`${name}_ends_and_changes_nothing_for_anybody`, async () => {
      const key = keyOf(name)
      await client.put(key, { a: 'before' })
      const attack = failureOf(client.apply(key, { module: 'attacks', funcname: name, args: [] }, { totalTimeout: 20_000 }))
      const { reads, calls } = await beside(attack)
      const failure = await attack
      assert.ok(failure.code === UDF_EXECUTION || failure.code === RECORD_TOO_BIG, `${failure.code}: ${failure.message}`)
      // On a machine that is busy enough the time limit comes before any other error.
      assert.ok(message.test(failure.message) || TIME.test(failure.message), failure.message)
      assert.ok(reads > 0 && calls > 0)
      const { bins, gen } = await client.get(key)
      assert.deepEqual({ bins, gen }, { bins: { a: 'before' }, gen: 1 })
    })
  }

  test('all_attacks_at_once_are_all_answered_and_the_workers_go_on', async () => {
    const failures = Promise.all(ATTACKS.map(({ name }) =>
      failureOf(client.apply(keyOf(name), { module: 'attacks', funcname: name, args: [] }, { totalTimeout: 60_000 }))))
    const { reads } = await beside(failures)
    for (const [i, { code, message }] of (await failures).entries()) {
      assert.ok(code === UDF_EXECUTION || code === RECORD_TOO_BIG, `${ATTACKS[i]!.name}: ${code}: ${message}`)
    }
    assert.ok(reads > 0)
    // Both workers serve, in the versions that they had.
    const answers = await Promise.all(Array.from({ length: 20 }, (_, n) => client.apply(keyOf(`after-${n}`), { module: 'bystander', funcname: 'touch', args: [n] })))
    assert.deepEqual(answers, Array.from({ length: 20 }, (_, n) => 10 + n))
  })
})

describe('hostile modules', () => {
  const modules: Record<string, readonly [source: string, error: RegExp]> = {
    endless: ['while true do end', /udf-load.*time limit of 1000 ms exceeded/s],
    endless_in_pcall: ['while true do pcall(function() while true do end end) end', /udf-load.*time limit/s],
    memory: ['local t = {} while true do t[#t + 1] = {{}, {}} end', /udf-load.*(memory|time) limit/s],
    strings: ["local t = {} while true do t[#t + 1] = ('x'):rep(1 << 20) end", /udf-load.*(memory|time) limit/s],
    recursion: ['local function f() return 1 + f() end f()', /udf-load.*(stack overflow|time limit)/s],
    loop_of_one: ["require 'loop_of_one'", /udf-load.*require each other.*loop_of_one -> loop_of_one/s],
    library: ['string.format = nil', /udf-load.*read-only table/s],
    nesting: [`return ${'('.repeat(100_000)}`, /compile_error/]
  }
  for (const [name, [source, error]] of Object.entries(modules)) {
    test(`${name}_is_refused_and_what_is_in_force_goes_on`, async () => {
      const before = await node.info('udf-list')
      const content = Buffer.from(source).toString('base64')
      const put = node.info(`udf-put:filename=${name}.lua;content=${content};content-len=${content.length};udf-type=LUA;`)
      const { reads, calls } = await beside(put)
      const reply = await put
      assert.match(reply.replace(/message=([A-Za-z0-9+/=]+)/, (_, text: string) => Buffer.from(text, 'base64').toString()), error)
      assert.ok(reads > 0 && calls > 0)
      assert.equal(await node.info('udf-list'), before)
    })
  }
})

describe('a node without Lua', () => {
  test('calls_are_forbidden_and_modules_can_be_kept', async () => {
    const other = await NodeProcess.start({ name: 'udf-disabled', service: { 'disable-udf-execution': true } })
    try {
      const apart = await connectOfficial(other.port)
      try {
        const content = Buffer.from('function f(rec) return 1 end').toString('base64')
        assert.equal(await other.info(`udf-put:filename=m.lua;content=${content};content-len=${content.length};udf-type=LUA;`), 'ok')
        await apart.put(keyOf('x'), { a: 1 })
        assert.equal((await failureOf(apart.apply(keyOf('x'), { module: 'm', funcname: 'f', args: [] }))).code, FORBIDDEN)
        assert.deepEqual((await apart.get(keyOf('x'))).bins, { a: 1 })
      } finally {
        apart.close()
      }
    } finally {
      await other.dispose()
    }
  })
})
