// The commands for Lua functions, on a real node: `perigee udf ...` in processes of their own.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { eventually } from '../support/eventually.js'
import { NodeProcess } from '../support/node-process.js'
import { packageRoot, perigeeProgram } from '../support/package-root.js'
import { tempDirectory } from '../support/temp.js'

interface Ran { code: number | null, out: string, err: string }

let node: NodeProcess
let directory: string

before(async () => {
  directory = tempDirectory('udf-tools')
  node = await NodeProcess.start({ name: 'udf-tools' })
})

after(async () => { await node?.dispose() })

function perigee (...args: string[]): Promise<Ran> {
  const child = spawn(process.execPath, [perigeeProgram, ...args], { cwd: packageRoot, env: { ...process.env, NODE_TEST_CONTEXT: undefined, PERIGEE_PORT: String(node.port) }, stdio: ['ignore', 'pipe', 'pipe'] })
  let out = ''
  let err = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => { out += text })
  child.stderr.setEncoding('utf8').on('data', (text: string) => { err += text })
  return new Promise(resolve => { child.once('close', code => { resolve({ code, out, err }) }) })
}

async function succeeding (...args: string[]): Promise<string> {
  const { code, out, err } = await perigee(...args)
  assert.equal(code, 0, `perigee ${args.join(' ')}: ${err}`)
  return out
}

function file (name: string, text: string): string {
  const path = join(directory, name)
  writeFileSync(path, text)
  return path
}

const COUNTED = `
function add(rec, n)
  rec.n = (rec.n or 0) + n
  if aerospike:exists(rec) then aerospike:update(rec) else aerospike:create(rec) end
  return rec.n
end
function drop(rec) return aerospike:remove(rec) end
function complain(rec)
  warn('seen %d', 7)
  error('no')
end
`

test('statistics_tell_what_each_function_did_and_the_namespace_agrees', async () => {
  await succeeding('udf', 'put', file('counted.lua', COUNTED))
  const before = await statistics()
  for (const n of [1, 2, 3]) assert.equal(await succeeding('apply', 'test', 'demo', 'a', 'counted', 'add', String(n)), `${[0, 1, 3, 6][n]}\n`)
  await succeeding('apply', 'test', 'demo', 'a', 'counted', 'drop')
  assert.equal((await perigee('apply', 'test', 'demo', 'a', 'counted', 'complain')).code, 1)
  assert.equal((await perigee('apply', 'test', 'demo', 'a', 'counted', 'missing')).code, 1)
  // A worker's first word of a function and the question for it take different ways to the main thread.
  const functions = await eventually('all three functions are listed', async () => JSON.parse(await succeeding('udf', 'stats', 'counted', '--json')) as Array<Record<string, number | string>>, all => all.length === 3)
  const shown = functions.map(one => [one.function, one.calls, one.errors, one.records_read, one.records_created, one.records_updated, one.records_removed])
  assert.deepEqual(shown, [['add', 3, 0, 2, 1, 2, 0], ['complain', 1, 1, 0, 0, 0, 0], ['drop', 1, 0, 1, 0, 0, 1]])
  for (const one of functions) {
    const [p50, p99, max, total] = ['p50_us', 'p99_us', 'max_us', 'time_us'].map(name => Number(one[name])) as [number, number, number, number]
    assert.ok(p50 > 0 && p50 <= p99 && p99 <= max && max <= total + 1, JSON.stringify(one))
  }
  const since = await statistics()
  const counted = Object.fromEntries(['client_udf_complete', 'client_udf_error', 'client_lang_read_success', 'client_lang_write_success', 'client_lang_delete_success', 'client_lang_error']
    .map(name => [name, Number(since.get(name)) - Number(before.get(name))]))
  assert.deepEqual(counted, {
    client_udf_complete: 4, client_udf_error: 2, client_lang_read_success: 0, client_lang_write_success: 3, client_lang_delete_success: 1, client_lang_error: 2
  })
})

async function statistics (): Promise<Map<string, string>> {
  return new Map((await node.info('namespace/test')).split(';').map(pair => pair.split('=') as [string, string]))
}

test('what_a_function_logs_is_in_the_log_of_the_node_with_module_and_line', async () => {
  await succeeding('udf', 'put', file('counted.lua', COUNTED))
  await perigee('apply', 'test', 'demo', 'b', 'counted', 'complain')
  const line = COUNTED.split('\n').findIndex(text => text.includes('warn(')) + 1
  await eventually('the line is logged', () => node.log.split('\n').find(text => text.includes('seen 7')) ?? '', text => text.includes('counted.lua') && text.includes(String(line)))
})
