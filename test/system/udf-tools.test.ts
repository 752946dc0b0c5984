// The commands for Lua functions, on a real node: `perigee udf ...` in processes of their own.
import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
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

function start (args: readonly string[]): ChildProcess & { stdout: NonNullable<ChildProcess['stdout']>, stderr: NonNullable<ChildProcess['stderr']> } {
  return spawn(process.execPath, [perigeeProgram, ...args], {
    cwd: packageRoot, env: { ...process.env, NODE_TEST_CONTEXT: undefined, PERIGEE_PORT: String(node.port) }, stdio: ['ignore', 'pipe', 'pipe']
  })
}

function perigee (...args: string[]): Promise<Ran> {
  const child = start(args)
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

test('a_stream_function_is_counted_with_the_records_that_it_read', async () => {
  await succeeding('udf', 'put', file('streamed.lua', 'function sum(s) return s : map(function(rec) return rec.n end) : reduce(function(a, b) return a + b end) end'))
  for (const n of [1, 2, 3]) await succeeding('put', 'test', 'streamed', String(n), `n=${n}`)
  assert.equal(await succeeding('udf', 'aggregate', '-n', 'test', '-s', 'streamed', 'streamed', 'sum'), '6\n')
  const [counted] = await eventually('it is listed', async () => JSON.parse(await succeeding('udf', 'stats', 'streamed', '--json')) as Array<Record<string, number | string>>, all => all.length === 1)
  assert.deepEqual([counted!.function, counted!.errors, counted!.records_read, counted!.records_updated], ['sum', 0, 3, 0])
  assert.ok(Number(counted!.calls) >= 1 && Number(counted!.time_us) > 0)
})

test('a_folder_of_modules_is_registered_and_what_does_not_compile_is_shown_with_its_line', async () => {
  const folder = mkdtempSync(join(directory, 'put-'))
  writeFileSync(join(folder, 'good.lua'), 'function f(rec) return 1 end\n')
  writeFileSync(join(folder, 'good.test.lua'), 'function test_nothing() end\n')
  assert.equal(await succeeding('udf', 'put', folder), 'registered good.lua\n')
  writeFileSync(join(folder, 'bad.lua'), 'function f(rec)\n  return +\nend\n')
  const { code, out, err } = await perigee('udf', 'put', folder)
  assert.deepEqual([code, out], [1, 'registered good.lua\n'])
  assert.match(err, /^perigee: bad\.lua:2: unexpected symbol near '\+'\n {4}2 \|   return \+\n$/)
  writeFileSync(join(folder, 'bad.lua'), 'local x = nil\nx.y = 1\n')
  assert.match((await perigee('udf', 'put', join(folder, 'bad.lua'))).err, /^perigee: bad\.lua:2: attempt to index a nil value \(local 'x'\)\n {4}2 \| x\.y = 1\n$/)
})

const TESTS = `
function test_adds() test.equal(test.apply(test.record(), 'sum', 'add', 2), 2) end
function test_adds_more() test.equal(test.apply(test.record{bins = {n = 1}}, 'sum', 'add', 2), 3) end
`

function sumModule (folder: string, sign = '+'): void {
  // As many editors save: a new file takes the place of the old one.
  writeFileSync(join(folder, 'sum.lua~'), `function add(rec, n)\n  return (rec.n or 0) ${sign} n\nend\n`)
  renameSync(join(folder, 'sum.lua~'), join(folder, 'sum.lua'))
}

test('udf_test_needs_no_node_and_tells_by_its_code_what_came_out', async () => {
  const folder = mkdtempSync(join(directory, 'test-'))
  sumModule(folder)
  writeFileSync(join(folder, 'sum.test.lua'), TESTS)
  const passing = await perigee('udf', 'test', join(folder, 'sum.lua'))
  assert.deepEqual([passing.code, passing.err], [0, ''])
  assert.match(passing.out, /sum\.test\.lua\n {2}ok {4}test_adds +\d+\.\d ms\n {2}ok {4}test_adds_more +\d+\.\d ms\n2 passed, 0 failed\n$/)

  sumModule(folder, '-')
  const failing = await perigee('udf', 'test', folder, '--filter', 'more$')
  assert.equal(failing.code, 1)
  assert.match(failing.out, /FAIL {2}test_adds_more +\d+\.\d ms\n {8}sum\.test\.lua:3: expected 3, got -1\n {12}3 \| function test_adds_more.*\n0 passed, 1 failed\n$/)
  const { passed, failed, tests } = JSON.parse((await perigee('udf', 'test', folder, '--json')).out) as { passed: number, failed: number, tests: Array<Record<string, unknown>> }
  assert.deepEqual([passed, failed, tests.map(({ name, passed, line }) => [name, passed, line])], [0, 2, [['test_adds', false, 2], ['test_adds_more', false, 3]]])

  writeFileSync(join(folder, 'sum.test.lua'), 'function test_x(\n')
  const broken = await perigee('udf', 'test', folder)
  assert.equal(broken.code, 1)
  assert.match(broken.out, /FAIL {2}sum\.test\.lua:\d: .* expected near <eof>/)
  writeFileSync(join(folder, 'sum.test.lua'), 'x = 1\n')
  assert.match((await perigee('udf', 'test', folder)).out, /there are no tests in it/)

  assert.equal((await perigee('udf', 'test')).code, 2)
  assert.equal((await perigee('udf', 'test', folder, '--filter', '[')).code, 2)
  assert.match((await perigee('udf', 'test', join(folder, 'none.lua'))).err, /none\.lua cannot be read \(ENOENT\)/)
  rmSync(join(folder, 'sum.test.lua'))
  assert.match((await perigee('udf', 'test', join(folder, 'sum.lua'))).err, /has no tests: there is no .*sum\.test\.lua/)
  assert.match((await perigee('udf', 'test', folder)).err, /there are no tests/)
})

interface WatchEvent { event: string, module?: string, modules?: string[], line?: number, message?: string }

/** Lines of JSON that a running command printed, apart from reports of tests. */
class Watching {
  readonly child: ReturnType<typeof start>
  readonly #events: WatchEvent[] = []
  err = ''
  #seen = 0

  constructor (...args: string[]) {
    this.child = start(args)
    let rest = ''
    this.child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n')
      rest = lines.pop() ?? ''
      this.#events.push(...lines.map(line => JSON.parse(line) as WatchEvent).filter(({ event }) => event !== undefined))
    })
    this.child.stderr.setEncoding('utf8').on('data', (text: string) => { this.err += text })
  }

  /** The next event, each once. */
  async next (): Promise<WatchEvent> {
    await eventually(`event ${this.#seen + 1} of the watcher (${this.err})`, () => this.#events.length, count => count > this.#seen)
    return this.#events[this.#seen++]!
  }

  /** Ctrl-C. */
  async end (): Promise<number | null> {
    const ended = new Promise<number | null>(resolve => { this.child.once('close', resolve) })
    this.child.kill('SIGINT')
    return await ended
  }
}

test('udf_watch_registers_at_once_and_at_every_save_and_goes_on_after_a_mistake', async () => {
  const folder = mkdtempSync(join(directory, 'watch-'))
  sumModule(folder)
  const watching = new Watching('udf', 'watch', folder, '--json')
  assert.deepEqual(await watching.next(), { event: 'watching', modules: ['sum.lua'] })
  assert.deepEqual(await watching.next(), { event: 'registered', module: 'sum.lua' })
  assert.equal(await succeeding('apply', 'test', 'demo', 'w', 'sum', 'add', '2'), '2\n')
  sumModule(folder, '-')
  assert.deepEqual(await watching.next(), { event: 'registered', module: 'sum.lua' })
  assert.equal(await succeeding('apply', 'test', 'demo', 'w', 'sum', 'add', '2'), '-2\n')
  sumModule(folder, '=')
  const { event, line, message } = await watching.next()
  assert.deepEqual([event, line], ['refused', 2])
  assert.match(message ?? '', /near '='/)
  // A new file of the folder is taken too; one that is saved without a change is not registered again.
  sumModule(folder, '=')
  writeFileSync(join(folder, 'more.lua'), 'function f(rec) return 1 end\n')
  assert.deepEqual(await watching.next(), { event: 'registered', module: 'more.lua' })
  rmSync(join(folder, 'more.lua'))
  assert.deepEqual(await watching.next(), { event: 'gone', module: 'more.lua' })
  assert.ok((await node.info('udf-list')).includes('more.lua'))
  assert.equal(await watching.end(), 0)
})

test('udf_watch_with_tests_registers_what_passes_them_only', async () => {
  const folder = mkdtempSync(join(directory, 'watch-'))
  sumModule(folder)
  writeFileSync(join(folder, 'sum.test.lua'), TESTS)
  const watching = new Watching('udf', 'watch', join(folder, 'sum.lua'), '--test', '--json')
  assert.equal((await watching.next()).event, 'watching')
  assert.deepEqual(await watching.next(), { event: 'registered', module: 'sum.lua' })
  sumModule(folder, '-')
  assert.deepEqual(await watching.next(), { event: 'tests-failed', module: 'sum.lua' })
  assert.equal(await succeeding('apply', 'test', 'demo', 'w', 'sum', 'add', '2'), '2\n')
  writeFileSync(join(folder, 'sum.test.lua'), 'function test_subtracts() test.equal(test.apply(test.record(), "sum", "add", 2), -2) end\n')
  assert.deepEqual(await watching.next(), { event: 'registered', module: 'sum.lua' })
  assert.equal(await succeeding('apply', 'test', 'demo', 'w', 'sum', 'add', '2'), '-2\n')
  assert.equal(await watching.end(), 0)
})

test('udf_test_with_watch_runs_again_after_each_save', async () => {
  const folder = mkdtempSync(join(directory, 'test-watch-'))
  sumModule(folder)
  writeFileSync(join(folder, 'sum.test.lua'), TESTS)
  const child = start(['udf', 'test', folder, '--watch'])
  let out = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => { out += text })
  const reports = (): string[] => [...out.matchAll(/^\d+ passed, \d+ failed(?=\nwaiting for changes of sum\.test\.lua\n)/gm)].map(([line]) => line)
  await eventually('the tests ran', reports, all => all.length === 1)
  sumModule(folder, '-')
  await eventually('they ran again', reports, all => all.length === 2)
  writeFileSync(join(folder, 'sum.test.lua'), 'function test_subtracts() test.equal(test.apply(test.record(), "sum", "add", 2), -2) end\n')
  assert.deepEqual(await eventually('they ran a third time', reports, all => all.length === 3), ['2 passed, 0 failed', '0 passed, 2 failed', '1 passed, 0 failed'])
  const ended = new Promise<number | null>(resolve => { child.once('close', resolve) })
  child.kill('SIGINT')
  assert.equal(await ended, 0)
})
