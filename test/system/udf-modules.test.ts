// Modules that require each other, and their versions, through the official client.
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { NodeProcess } from '../support/node-process.js'
import { connectOfficial, loadOfficialClient, type OfficialClient, type OfficialError, type OfficialKey } from '../support/official-client.js'
import { tempDirectory } from '../support/temp.js'

const aerospike = loadOfficialClient()
let node: NodeProcess
let client: OfficialClient
let directory: string

before(async () => {
  directory = tempDirectory('lua-modules')
  node = await NodeProcess.start({ name: 'udf-modules' })
  client = await connectOfficial(node.port)
})

after(async () => {
  client?.close()
  aerospike.releaseEventLoop()
  await node?.dispose()
})

async function register (name: string, source: string): Promise<void> {
  const path = join(directory, name)
  writeFileSync(path, source)
  await (await client.udfRegister(path)).wait(20)
}

let keys = 0
function freshKey (): OfficialKey {
  return new aerospike.Key('test', 'lua', `key-${++keys}`)
}

function call (module: string, funcname: string, ...args: unknown[]): Promise<unknown> {
  return client.apply(freshKey(), { module, funcname, args })
}

async function failureOf (command: Promise<unknown>): Promise<OfficialError> {
  return await command.then(value => { throw new Error(`succeeded with ${JSON.stringify(value)}`) }, error => error as OfficialError)
}

function put (name: string, source: string): Promise<string> {
  const content = Buffer.from(source).toString('base64')
  return node.info(`udf-put:filename=${name};content=${content};content-len=${content.length};udf-type=LUA;`)
}

/** The fields of an error reply, the message decoded. */
function fieldsOf (reply: string): Record<string, string> {
  const fields = Object.fromEntries(reply.split(';').map(field => field.split(/=(.*)/s).slice(0, 2) as [string, string]))
  return { ...fields, message: Buffer.from(fields['message'] ?? '', 'base64').toString() }
}

async function hashes (): Promise<Record<string, string>> {
  const list = await node.info('udf-list')
  return Object.fromEntries([...list.matchAll(/filename=([^,]+),hash=([0-9a-f]{40}),type=LUA;/g)].map(match => [match[1]!, match[2]!]))
}

describe('modules', () => {
  test('modules_require_each_other_whatever_the_order_they_are_put_in', async () => {
    await register('outer.lua', 'local inner = require "inner" function f(rec) return inner.twice(21) end')
    assert.match((await failureOf(call('outer', 'f'))).message, /module outer failed to load: outer\.lua:1: module 'inner' is not registered/)
    await register('inner.lua', 'local M = {} function M.twice(n) return 2 * n end return M')
    assert.equal(await call('outer', 'f'), 42)
    await (await client.udfRemove('inner.lua')).wait(20)
    assert.match((await failureOf(call('outer', 'f'))).message, /'inner' is not registered/)
  })

  test('a_module_that_does_not_compile_is_refused_with_file_line_and_message', async () => {
    assert.deepEqual(fieldsOf(await put('broken.lua', 'function f(rec)\n  return +\nend\n')),
      { error: 'compile_error', file: 'broken.lua', line: '2', message: "unexpected symbol near '+'" })
    const { message } = await failureOf(register('broken.lua', 'function f(rec)\n  return +\nend\n'))
    assert.match(message, /compile_error|unexpected symbol|broken\.lua/)
    assert.equal((await hashes())['broken.lua'], undefined)
  })

  test('a_module_that_does_not_load_is_refused_and_the_version_before_it_stays', async () => {
    assert.equal(await put('kept.lua', 'function f(rec) return 1 end'), 'ok')
    const before = await hashes()
    assert.deepEqual(fieldsOf(await put('kept.lua', 'function f(rec) return 2 end\n\nlocal x = nil + 1')),
      { error: 'udf-load', file: 'kept.lua', line: '3', message: 'attempt to perform arithmetic on a nil value' })
    assert.deepEqual(await hashes(), before)
    assert.equal(await call('kept', 'f'), 1)
    assert.equal(await put('kept.lua', 'function f(rec) return 3 end'), 'ok')
    assert.notEqual((await hashes())['kept.lua'], before['kept.lua'])
    assert.equal(await call('kept', 'f'), 3)
  })

  test('no_call_fails_or_meets_two_versions_while_modules_are_replaced_a_hundred_times', async () => {
    // The version of a call is what both modules say it is, at its beginning and at its end.
    const base = (version: number): string => `VERSION = ${version} function f(rec) return VERSION end`
    const user = (version: number): string => `
      local base = require 'base'
      local MINE, ITS = ${version}, base.VERSION
      function both(rec)
        local first = base.f(rec)
        local n = 0
        for i = 1, 2000 do n = n + i end
        return list{MINE, ITS, first, base.f(rec), VERSION}
      end`
    await register('base.lua', base(0))
    await register('user.lua', user(0))
    let replacing = true
    const seen: number[][] = []
    const callers = Array.from({ length: 4 }, async () => {
      let last = 0
      while (replacing) {
        const versions = await call('user', 'both') as number[]
        const [mine, ...its] = versions
        assert.deepEqual(new Set(its).size, 1, `a mixture: ${versions.join(', ')}`)
        // One caller never goes back in time.
        assert.ok(its[0]! >= last, `after version ${last} came ${its[0]}`)
        last = its[0]!
        seen.push([mine!, its[0]!])
      }
    })
    for (let version = 1; version <= 100; version++) {
      const name = version % 3 === 0 ? 'user' : 'base'
      assert.equal(await put(`${name}.lua`, name === 'user' ? user(version) : base(version)), 'ok')
      // Whoever was answered runs in that version from here on.
      const [mine, its] = await call('user', 'both') as number[]
      assert.equal(name === 'user' ? mine : its, version)
    }
    replacing = false
    await Promise.all(callers)
    assert.ok(new Set(seen.map(versions => versions.join())).size > 10, `callers saw ${seen.length} calls of ${new Set(seen.map(versions => versions.join())).size} versions`)
  })

  test('what_is_in_force_is_in_force_after_a_restart', async () => {
    await register('again.lua', 'local base = require "base" function f(rec) return base.VERSION end')
    const [before, value] = [await hashes(), await call('again', 'f')]
    client.close()
    await node.restart()
    client = await connectOfficial(node.port)
    assert.deepEqual(await hashes(), before)
    assert.equal(await call('again', 'f'), value)
  })
})
