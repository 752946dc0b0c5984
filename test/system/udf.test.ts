// Lua on records, through the official client.
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { NodeProcess } from '../support/node-process.js'
import { connectOfficial, loadOfficialClient, type OfficialClient, type OfficialError, type OfficialKey } from '../support/official-client.js'
import { tempDirectory } from '../support/temp.js'

const UDF_EXECUTION = 100
const NOT_FOUND = 2

const MODULE = `
function constant(rec) return 42 end

function echo(rec, value) return value end

function read(rec, bin) return rec[bin] end

function put(rec, bin, value)
  rec[bin] = value
  if aerospike:exists(rec) then return aerospike:update(rec) end
  return aerospike:create(rec)
end

function forget(rec, bin) rec[bin] = 'changed, but never stored' end

function drop(rec, bin)
  rec[bin] = nil
  return aerospike:update(rec)
end

function remove(rec) return aerospike:remove(rec) end

function exists(rec) return aerospike:exists(rec) end

function increment(rec, bin)
  local before = rec[bin] or 0
  rec[bin] = before + 1
  if aerospike:exists(rec) then aerospike:update(rec) else aerospike:create(rec) end
  return before + 1
end

function visit(rec, who)
  local visits = rec['visits'] or map()
  visits[who] = (visits[who] or 0) + 1
  rec['visits'] = visits
  aerospike:update(rec)
  return visits
end

function total(rec, bin)
  local sum = 0
  for value in list.iterator(rec[bin]) do sum = sum + value end
  return sum
end

function live(rec, seconds)
  record.set_ttl(rec, seconds)
  aerospike:update(rec)
  return record.ttl(rec)
end

function describe(rec)
  return map { gen = record.gen(rec), bins = record.numbins(rec), set = record.setname(rec) }
end

function fail(rec)
  local nothing = nil
  return nothing.field
end

function complain(rec) error('no such luck') end

function forever(rec) while true do end end
`

/** Where `nothing.field` stands in the module above. */
const FAILING_LINE = MODULE.split('\n').findIndex(line => line.includes('nothing.field')) + 1

const aerospike = loadOfficialClient()
let node: NodeProcess
let client: OfficialClient
let directory: string

function moduleFile (name: string, source: string): string {
  const path = join(directory, name)
  writeFileSync(path, source)
  return path
}

async function register (name: string, source: string): Promise<void> {
  await (await client.udfRegister(moduleFile(name, source))).wait(20)
}

before(async () => {
  directory = tempDirectory('lua')
  node = await NodeProcess.start({ name: 'udf' })
  client = await connectOfficial(node.port)
  await register('sample.lua', MODULE)
})

after(async () => {
  client?.close()
  aerospike.releaseEventLoop()
  await node?.dispose()
})

let keys = 0
function freshKey (): OfficialKey {
  return new aerospike.Key('test', 'lua', `key-${++keys}`)
}

function apply (key: OfficialKey, funcname: string, ...args: unknown[]): Promise<unknown> {
  return client.apply(key, { module: 'sample', funcname, args })
}

async function failureOf (command: Promise<unknown>): Promise<OfficialError> {
  return await command.then(value => { throw new Error(`succeeded with ${JSON.stringify(value)}`) }, error => error as OfficialError)
}

describe('calls', () => {
  test('a_function_answers_on_a_record_that_does_not_exist', async () => {
    assert.equal(await apply(freshKey(), 'constant'), 42)
    assert.ok(!await apply(freshKey(), 'exists'))
  })

  const values: Record<string, unknown> = {
    nothing: null,
    integer: -7,
    'large integer': 9223372036854775807n,
    double: 2.5,
    text: 'Zürich 東京',
    bytes: Buffer.from([0, 255, 7]),
    boolean: true,
    list: [1, 'two', [3, { four: 5 }]],
    map: { a: 1, b: { c: [2, 3] } }
  }
  for (const [name, value] of Object.entries(values)) {
    test(`an_argument_comes_back_as_the_result: ${name}`, async () => {
      assert.deepEqual(await apply(freshKey(), 'echo', value), value)
    })

    if (value !== null) {
      test(`lua_reads_and_stores_a_bin: ${name}`, async () => {
        const key = freshKey()
        await apply(key, 'put', 'bin', value)
        assert.deepEqual((await client.get(key)).bins, { bin: value })
        assert.deepEqual(await apply(key, 'read', 'bin'), value)
      })
    }
  }

  test('lua_creates_changes_and_removes_a_record', async () => {
    const key = freshKey()
    assert.equal(await apply(key, 'put', 'a', 1), 0)
    assert.equal(await apply(key, 'put', 'b', 2), 0)
    const { bins, gen } = await client.get(key)
    assert.deepEqual({ bins, gen }, { bins: { a: 1, b: 2 }, gen: 2 })
    await apply(key, 'drop', 'a')
    assert.deepEqual((await client.get(key)).bins, { b: 2 })
    assert.equal(await apply(key, 'remove'), 0)
    assert.equal(await client.exists(key), false)
  })

  test('a_change_without_update_is_not_stored', async () => {
    const key = freshKey()
    await client.put(key, { a: 'before' })
    await apply(key, 'forget', 'a')
    const { bins, gen } = await client.get(key)
    assert.deepEqual({ bins, gen }, { bins: { a: 'before' }, gen: 1 })
  })

  test('lua_changes_a_map_in_place', async () => {
    const key = freshKey()
    await client.put(key, { name: 'Tokyo' })
    await apply(key, 'visit', 'ada')
    await apply(key, 'visit', 'ada')
    assert.deepEqual(await apply(key, 'visit', 'grace'), { ada: 2, grace: 1 })
    assert.deepEqual((await client.get(key)).bins, { name: 'Tokyo', visits: { ada: 2, grace: 1 } })
  })

  test('lua_walks_a_list', async () => {
    const key = freshKey()
    await client.put(key, { numbers: [1, 2, 3, 4, 32] })
    assert.equal(await apply(key, 'total', 'numbers'), 42)
  })

  test('lua_sets_the_time_to_live_and_reads_metadata', async () => {
    const key = freshKey()
    await client.put(key, { a: 1, b: 2 })
    await apply(key, 'live', 600)
    const { ttl } = await client.get(key)
    assert.ok(ttl > 590 && ttl <= 600, `ttl is ${ttl}`)
    assert.deepEqual(await apply(key, 'describe'), { gen: 2, bins: 2, set: 'lua' })
  })

  test('concurrent_increments_are_never_lost', async () => {
    const key = freshKey()
    await Promise.all([0, 1, 2, 3].map(async () => {
      for (let i = 0; i < 50; i++) await apply(key, 'increment', 'n')
    }))
    assert.equal((await client.get(key)).bins.n, 200)
  })

  test('lua_and_plain_increments_of_one_record_are_never_lost', async () => {
    const key = freshKey()
    await client.put(key, { n: 0 })
    const rounds = Array.from({ length: 60 })
    await Promise.all([
      (async () => { for (const _ of rounds) await apply(key, 'increment', 'n') })(),
      (async () => { for (const _ of rounds) await client.operate(key, [aerospike.operations.incr('n', 1)]) })()
    ])
    assert.equal((await client.get(key)).bins.n, 120)
  })
})

describe('failures', () => {
  test('a_runtime_error_names_the_file_and_the_line', async () => {
    const { code, message } = await failureOf(apply(freshKey(), 'fail'))
    assert.equal(code, UDF_EXECUTION)
    assert.match(message, new RegExp(`sample\\.lua"?\\]?:${FAILING_LINE}:`))
  })

  test('an_error_that_the_script_raises_reaches_the_client', async () => {
    const { code, message } = await failureOf(apply(freshKey(), 'complain'))
    assert.equal(code, UDF_EXECUTION)
    assert.match(message, /sample\.lua.*no such luck/)
  })

  test('a_missing_function_and_a_missing_module_are_errors', async () => {
    assert.equal((await failureOf(apply(freshKey(), 'nobody'))).code, UDF_EXECUTION)
    assert.equal((await failureOf(client.apply(freshKey(), { module: 'nowhere', funcname: 'f', args: [] }))).code, UDF_EXECUTION)
  })

  test('a_failed_call_leaves_the_record_alone', async () => {
    const key = freshKey()
    await client.put(key, { a: 1 })
    await failureOf(apply(key, 'fail'))
    const { bins, gen } = await client.get(key)
    assert.deepEqual({ bins, gen }, { bins: { a: 1 }, gen: 1 })
  })

  test('a_module_that_does_not_compile_is_refused_with_its_line', async () => {
    const refused = await node.info(`udf-put:filename=broken.lua;content=${Buffer.from('function f(rec)\n  return +\nend\n').toString('base64')};content-len=44;udf-type=LUA;`)
    assert.match(refused, /compile_error/)
    assert.match(refused, /file=broken\.lua/)
    assert.match(refused, /line=\d+/)
    assert.ok(!(await node.info('udf-list')).includes('broken.lua'))
  })

  test('a_script_that_does_not_end_is_stopped_while_other_requests_go_on', async () => {
    const stuck = freshKey()
    const started = Date.now()
    const runaway = failureOf(client.apply(stuck, { module: 'sample', funcname: 'forever', args: [] }, { totalTimeout: 10_000 }))
    let others = 0
    let longestMs = 0
    let stopped = false
    void runaway.then(() => { stopped = true })
    while (!stopped && Date.now() - started < 30_000) {
      const key = freshKey()
      const before = Date.now()
      await client.put(key, { others })
      assert.equal(await apply(key, 'read', 'others'), others)
      longestMs = Math.max(longestMs, Date.now() - before)
      others++
    }
    await runaway
    assert.ok(others > 20, `only ${others} other requests were answered meanwhile`)
    assert.ok(longestMs < 2_000, `another request took ${longestMs} ms`)
    // The record is free again.
    await client.put(stuck, { a: 1 })
    assert.equal(await apply(stuck, 'read', 'a'), 1)
  })
})

describe('modules', () => {
  test('a_module_registered_again_takes_effect', async () => {
    await register('version.lua', 'function which(rec) return 1 end\n')
    assert.equal(await client.apply(freshKey(), { module: 'version', funcname: 'which', args: [] }), 1)
    await register('version.lua', 'function which(rec) return 2 end\n')
    assert.equal(await client.apply(freshKey(), { module: 'version', funcname: 'which', args: [] }), 2)
  })

  test('a_removed_module_is_gone', async () => {
    await register('brief.lua', 'function f(rec) return 1 end\n')
    await (await client.udfRemove('brief.lua')).wait(20)
    assert.equal((await failureOf(client.apply(freshKey(), { module: 'brief', funcname: 'f', args: [] }))).code, UDF_EXECUTION)
  })

  test('modules_survive_a_restart', async () => {
    await register('kept.lua', 'function f(rec) return "kept" end\n')
    client.close()
    await node.restart()
    client = await connectOfficial(node.port)
    assert.equal(await client.apply(freshKey(), { module: 'kept', funcname: 'f', args: [] }), 'kept')
    assert.equal(await apply(freshKey(), 'constant'), 42)
    assert.equal((await failureOf(client.get(freshKey()))).code, NOT_FOUND)
  })
})
