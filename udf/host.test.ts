import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { UdfError } from './errors.js'
import { UdfHost } from './host.js'
import type { TaskFields } from './lane.js'
import { FakeLane } from './fake-lane.js'
import { packArguments } from './testing.js'
import type { Plain } from './testing.js'

const ADDON = fileURLToPath(new URL('./fake-lane.js', import.meta.url))
const closers: Array<() => Promise<void>> = []
afterEach(async () => { for (const close of closers.splice(0).reverse()) await close() })

interface LogEntry {
  level: string
  fields: Record<string, unknown>
  message: string
}

interface Opened {
  host: UdfHost
  lane: FakeLane
  logged: LogEntry[]
  directory: string
}

/** `stored` is on disk before the opening, `modules` are put after it. */
async function open (workers: number, modules: Record<string, string> = {}, workerMemoryMib?: number, stored: Record<string, string> = {}, callMemoryBytes?: number): Promise<Opened> {
  const directory = await mkdtemp(join(tmpdir(), 'udf-host-'))
  await mkdir(join(directory, 'udf'))
  for (const [name, text] of Object.entries(stored)) await writeFile(join(directory, 'udf', name), text)
  const laneDirectory = await mkdtemp(join(tmpdir(), 'udf-lane-'))
  const lane = new FakeLane(laneDirectory, workers)
  const logged: LogEntry[] = []
  const log = (level: string) => (fields: object, message: string): void => { logged.push({ level, fields: fields as Record<string, unknown>, message }) }
  const host = new UdfHost({
    native: lane,
    handle: 1,
    addonPath: ADDON,
    workers,
    workDirectory: directory,
    timeLimitMs: 1000,
    logger: { warn: log('warn'), info: log('info'), debug: log('debug'), trace: log('trace') },
    logLevel: 2,
    ...(workerMemoryMib === undefined ? {} : { workerMemoryMib }),
    ...(callMemoryBytes === undefined ? {} : { callMemoryBytes })
  })
  closers.push(async () => {
    await host.close()
    for (const path of [directory, laneDirectory]) await rm(path, { recursive: true, force: true })
  })
  await host.open()
  for (const [name, text] of Object.entries(modules)) await host.put(name, source(text))
  return { host, lane, logged, directory }
}

const source = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))
/** Instructions that each take long and never look at the clock, one after another without a loop: a quarter of a minute. */
const STUCK = `local s, x = (" "):rep((8 << 20) - 1) .. 1 ${'x = s + 0 '.repeat(1500)}`
/** Fills the heap of a small worker while it compiles, which never looks at the clock: no time limit can come first. */
const HEAP = `local keep = {${'function() end,'.repeat(60_000)}}`
const isLoadError = (error: unknown): boolean => error instanceof UdfError && error.code === 'udf-load' && /m\.lua: loading exceeded the limits/.test(error.message)
let id = 0n
const task = (fn: string, args: Plain[] = [], timeLimitMs = 1000, module = 'm'): TaskFields => ({ id: ++id, module, function: fn, arguments: packArguments(args), timeLimitMs })

async function eventually (condition: () => boolean, what: string): Promise<void> {
  for (const until = performance.now() + 30_000; performance.now() < until;) {
    if (condition()) return
    await new Promise(resolve => setTimeout(resolve, 10))
  }
  assert.fail(`never: ${what}`)
}

describe('Lua host', () => {
  it('a_module_is_in_force_on_every_worker_when_put_resolves', async () => {
    const { host, lane } = await open(3)
    for (const version of [1, 2, 3]) {
      await host.put('m.lua', source(`function f() return ${version} end`))
      for (let worker = 0; worker < 3; worker++) {
        lane.send(worker, [task('f')], 1000)
        assert.equal((await lane.receive(worker))![0]!.value, version)
      }
    }
    await host.remove('m.lua')
    await host.remove('m.lua')
    lane.send(1, [task('f')], 1000)
    assert.equal((await lane.receive(1))![0]!.message, 'module not found: m')
    assert.deepEqual(host.list(), [])
  })

  it('stored_modules_are_loaded_at_opening', async () => {
    const first = await open(1, { 'm.lua': 'function f() return 7 end' })
    await first.host.close()
    const again = new UdfHost({
      native: first.lane, handle: 1, addonPath: ADDON, workers: 1, workDirectory: first.directory, timeLimitMs: 1000, logger: { warn () {}, info () {}, debug () {}, trace () {} }
    })
    closers.push(async () => { await again.close() })
    await again.open()
    first.lane.send(0, [task('f')], 1000)
    assert.equal((await first.lane.receive(0))![0]!.value, 7)
    assert.equal(Buffer.from(again.get('m.lua')!.content).toString(), 'function f() return 7 end')
  })

  it('a_module_that_is_refused_changes_nothing', async () => {
    const { host, lane } = await open(1, { 'm.lua': 'function f() return 1 end' })
    await assert.rejects(host.put('m.lua', source('function f(')), (error: unknown) => error instanceof UdfError && error.code === 'udf-compile' && error.line === 1)
    lane.send(0, [task('f')], 1000)
    assert.equal((await lane.receive(0))![0]!.value, 1)
  })

  it('a_worker_stuck_in_a_library_call_is_replaced_and_the_next_task_succeeds', async () => {
    const { host, lane, logged } = await open(2, { 'm.lua': `function stuck() ${STUCK} end function f() return 1 end` })
    const stuck = task('stuck', [], 50)
    lane.send(0, [task('f'), stuck, task('f')], 50)
    await eventually(() => lane.abandoned.length > 0, 'the stuck worker is abandoned')
    assert.deepEqual(lane.abandoned, [0])
    assert.deepEqual(lane.lost, [Number(stuck.id)])
    // A change that arrives meanwhile reaches the replacement as well.
    await host.put('m.lua', source('function f() return 2 end'))
    for (const worker of [0, 1]) {
      lane.send(worker, [task('f')], 1000)
      assert.equal((await lane.receive(worker))![0]!.value, 2)
    }
    assert.equal(host.workersReplaced, 1)
    assert.equal(logged.filter(entry => /stuck/.test(entry.message)).length, 1)
    // What the thread had counted stays, and the call that it took along has failed.
    await eventually(() => host.statistics()[0]?.calls === 3, 'the calls of both threads are counted')
    assert.deepEqual(host.statistics().map(({ name, calls, errors }) => [name, calls, errors]), [['f', 3, 0], ['stuck', 1, 1]])
  })

  it('a_runaway_script_is_stopped_by_its_own_worker', async () => {
    const { host, lane } = await open(1, { 'm.lua': 'function run() while true do pcall(function() while true do end end) end end' })
    lane.send(0, [task('run', [], 50)], 50)
    const [outcome] = (await lane.receive(0))!
    assert.match(outcome!.message, /time limit of 50 ms exceeded/)
    assert.equal(host.workersReplaced, 0)
  })

  it('a_worker_out_of_memory_is_replaced', async () => {
    // Parts of a text are gathered in the heap within one library call, which looks at nothing.
    const { lane } = await open(1, { 'm.lua': 'function eat() return #string.format(("%%"):rep(4 << 20)) end function f() return 1 end' }, 48)
    lane.send(0, [task('eat', [], 600_000)], 600_000)
    await eventually(() => lane.abandoned.length > 0, 'the worker is abandoned')
    assert.deepEqual(lane.abandoned, [0])
    lane.send(0, [task('f')], 1000)
    assert.equal((await lane.receive(0, 20_000))![0]!.value, 1)
  })

  it('a_call_that_fills_the_heap_ends_and_its_worker_goes_on', async () => {
    const text = 'function eat() local keep = {} for i = 1, 1e9 do keep[i] = {i, {i}, tostring(i)} end end function f() return 1 end'
    const { host, lane } = await open(1, { 'm.lua': text }, 64, {}, 16 * 1024 * 1024)
    lane.send(0, [task('f'), task('eat', [], 600_000), task('f')], 600_000)
    const outcomes = (await lane.receive(0, 20_000))!
    assert.deepEqual(outcomes.map(outcome => outcome.success), [true, false, true])
    assert.equal(outcomes[1]!.message, 'm.lua:1: memory limit of 16 MiB exceeded')
    assert.equal(host.workersReplaced, 0)
  })

  it('log_lines_and_statistics_reach_the_main_thread', async () => {
    const { host, lane, logged } = await open(1, { 'm.lua': 'function f() info("seen %d", 1) debug("unseen") end function g() error("x") end' })
    lane.send(0, [task('f'), task('f'), task('g')], 1000)
    await lane.receive(0)
    lane.close()
    await eventually(() => host.statistics().length === 2, 'statistics arrive')
    assert.deepEqual(host.statistics('m').map(({ name, calls, errors }) => [name, calls, errors]), [['f', 2, 0], ['g', 1, 1]])
    assert.deepEqual(logged.filter(entry => entry.level === 'info').map(({ fields, message }) => [fields, message]),
      [[{ module: 'm.lua', line: 1 }, 'seen 1'], [{ module: 'm.lua', line: 1 }, 'seen 1']])
    assert.equal(logged.some(entry => entry.message === 'unseen'), false)
    assert.equal(host.workersReplaced, 0)
  })

  it('a_stored_module_that_fails_while_loading_is_reported', async () => {
    const { logged } = await open(2, {}, undefined, { 'm.lua': 'error("at load")' })
    assert.deepEqual(logged.filter(entry => entry.level === 'warn').map(({ fields, message }) => [fields, message]),
      [[{ module: 'm.lua', line: 1 }, 'module failed to load: at load']])
  })

  it('a_put_of_a_module_that_does_not_load_changes_nothing', async () => {
    const { host, lane, directory } = await open(2, { 'lib.lua': 'function init() return 1 end', 'm.lua': 'local lib = require "lib" local value = lib.init() function f() return value end' })
    const refusal = async (name: string, text: string): Promise<UdfError> => await host.put(name, source(text)).then(() => assert.fail('was accepted'), (error: unknown) => error as UdfError)
    const own = await refusal('lib.lua', 'x = 1\nerror("no")')
    assert.deepEqual([own.code, own.line, own.message], ['udf-load', 2, 'no'])
    const others = await refusal('lib.lua', 'x = 1')
    assert.deepEqual([others.code, others.line, others.message],
      ['udf-load', 0, "module m.lua, which requires it, does not load with it: m.lua:1: attempt to call a nil value (field 'init')"])
    assert.equal(Buffer.from(host.get('lib.lua')!.content).toString(), 'function init() return 1 end')
    await host.put('lib.lua', source('function init() return 2 end'))
    for (const worker of [0, 1]) {
      lane.send(worker, [task('f')], 1000)
      assert.equal((await lane.receive(worker))![0]!.value, 2)
    }
    assert.deepEqual((await readdir(join(directory, 'udf'))).sort(), ['lib.lua', 'm.lua'])
  })

  it('a_version_comes_into_force_on_all_workers_at_once_and_none_before_all_have_it', async () => {
    const { host, lane, logged } = await open(2, { 'm.lua': 'function f() return 1 end function slow() info("busy") local t = os.clock() + 2 while os.clock() < t do end return 1 end' })
    // The first worker cannot prepare while it is busy; the second has long done so.
    lane.send(0, [task('slow', [], 5000), task('f')], 10_000)
    await eventually(() => logged.some(entry => entry.message === 'busy'), 'the first worker is busy')
    let inForce = false
    const put = host.put('m.lua', source('function f() return 2 end')).then(() => { inForce = true })
    let before = 0
    while (!inForce) {
      lane.send(1, [task('f')], 5000)
      const { value } = (await lane.receive(1))![0]!
      if (inForce) break
      if (value === 1) before++
      // Seen only in the moment between the version's number and the answer to the put.
      else assert.equal(value, 2)
    }
    await put
    assert.ok(before > 0)
    // The batch that was under way had been read before.
    assert.deepEqual((await lane.receive(0))!.map(outcome => outcome.value), [1, 1])
    for (const worker of [0, 1]) {
      lane.send(worker, [task('f')], 1000)
      assert.equal((await lane.receive(worker))![0]!.value, 2)
    }
  })

  it('a_worker_that_is_replaced_while_a_change_is_under_way_prepares_it_too', async () => {
    const { host, lane } = await open(2, { 'm.lua': `function f() return 1 end function stuck() ${STUCK} end` })
    lane.send(0, [task('stuck', [], 50)], 50)
    await new Promise(resolve => setTimeout(resolve, 30))
    await host.put('m.lua', source('function f() return 2 end'))
    assert.equal(host.workersReplaced, 1)
    for (const worker of [0, 1]) {
      lane.send(worker, [task('f')], 1000)
      assert.equal((await lane.receive(worker))![0]!.value, 2)
    }
  })

  it('a_put_stuck_while_loading_is_refused_and_what_was_there_before_stays', async () => {
    const { host, lane, logged, directory } = await open(2, { 'm.lua': 'function f() return 1 end' })
    const refused = assert.rejects(host.put('m.lua', source(STUCK)), isLoadError)
    // Waits behind it, and has no part in its failure.
    await host.put('other.lua', source('function g() return 3 end'))
    await refused
    for (const worker of [0, 1]) {
      lane.send(worker, [task('f'), task('g', [], 1000, 'other')], 1000)
      assert.deepEqual((await lane.receive(worker))!.map(outcome => outcome.value), [1, 3])
    }
    await assert.rejects(host.put('n.lua', source(STUCK)), /n\.lua: loading exceeded/)
    assert.deepEqual((await readdir(join(directory, 'udf'))).sort(), ['m.lua', 'other.lua'])
    assert.equal(Buffer.from(host.get('m.lua')!.content).toString(), 'function f() return 1 end')
    assert.equal(logged.filter(entry => /not loaded any more/.test(entry.message) && entry.fields['module'] === 'm.lua').length, 1)
  })

  it('a_put_that_kills_its_worker_is_refused_and_leaves_nothing', async () => {
    const { host, lane, directory } = await open(2, {}, 32)
    await assert.rejects(host.put('m.lua', source(HEAP)), isLoadError)
    assert.deepEqual(await readdir(join(directory, 'udf')), [])
    await host.put('m.lua', source('function f() return 1 end'))
    for (const worker of [0, 1]) {
      lane.send(worker, [task('f')], 1000)
      assert.equal((await lane.receive(worker, 20_000))![0]!.value, 1)
    }
    const replaced = host.workersReplaced
    await new Promise(resolve => setTimeout(resolve, 500))
    assert.equal(host.workersReplaced, replaced)
  })

  it('bad_modules_on_disk_do_not_keep_the_host_from_opening_or_the_others_from_working', async () => {
    const { host, lane, logged, directory } = await open(2, {}, 32, { 'a.lua': STUCK, 'b.lua': HEAP, 'm.lua': 'function f() return 1 end' })
    for (const worker of [0, 1]) {
      lane.send(worker, [task('f'), task('f', [], 1000, 'a'), task('f', [], 1000, 'b')], 1000)
      const outcomes = (await lane.receive(worker))!
      assert.equal(outcomes[0]!.value, 1)
      assert.match(outcomes[1]!.message, /^module a failed to load: loading exceeded the limits: it took too long/)
      assert.match(outcomes[2]!.message, /^module b failed to load: loading exceeded the limits: .*memory/)
    }
    assert.deepEqual(logged.filter(entry => /not loaded any more/.test(entry.message)).map(entry => entry.fields['module']), ['a.lua', 'b.lua'])
    // They are still the operator's; new content under the name is another module.
    assert.deepEqual((await readdir(join(directory, 'udf'))).sort(), ['a.lua', 'b.lua', 'm.lua'])
    await host.put('a.lua', source('function f() return 2 end'))
    lane.send(1, [task('f', [], 1000, 'a')], 1000)
    assert.equal((await lane.receive(1))![0]!.value, 2)
  })

  it('closing_while_a_module_is_stuck_at_opening_ends_both', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'udf-host-'))
    const laneDirectory = await mkdtemp(join(tmpdir(), 'udf-lane-'))
    closers.push(async () => { for (const path of [directory, laneDirectory]) await rm(path, { recursive: true, force: true }) })
    await mkdir(join(directory, 'udf'))
    await writeFile(join(directory, 'udf', 'm.lua'), STUCK)
    const host = new UdfHost({
      native: new FakeLane(laneDirectory, 1), handle: 1, addonPath: ADDON, workers: 1, workDirectory: directory, timeLimitMs: 1000,
      logger: { warn () {}, info () {}, debug () {}, trace () {} }
    })
    const opening = assert.rejects(host.open(), (error: unknown) => error instanceof UdfError && error.code === 'udf-closed')
    await new Promise(resolve => setTimeout(resolve, 500))
    await host.close()
    await opening
  })

  it('a_worker_whose_modules_keep_strings_beyond_its_limit_is_replaced', async () => {
    const { host, lane, logged } = await open(1, { 'm.lua': 'local keep = {} function eat() for i = 1, 50 do keep[#keep + 1] = ("x"):rep(2 << 20) end return #keep end' }, 64)
    for (let call = 0; call < 3; call++) {
      lane.send(0, [task('eat', [], 10_000)], 10_000)
      await lane.receive(0)
    }
    await eventually(() => host.workersReplaced === 1, 'the worker is replaced')
    assert.equal(logged.filter(entry => /too much memory/.test(entry.message)).length, 1)
    lane.send(0, [task('eat', [], 10_000)], 10_000)
    assert.equal((await lane.receive(0, 20_000))![0]!.value, 50)
  })

  it('a_worker_whose_modules_keep_tables_beyond_its_heap_is_replaced', async () => {
    const text = 'local keep = {} function eat() for i = 1, 60000 do keep[#keep + 1] = {i} end return #keep end'
    const { host, lane, logged } = await open(1, { 'm.lua': text }, 64, {}, 32 * 1024 * 1024)
    for (let call = 0; call < 40 && host.workersReplaced === 0; call++) {
      lane.send(0, [task('eat', [], 10_000)], 10_000)
      await lane.receive(0, 20_000)
      await new Promise(resolve => setTimeout(resolve, 100))
    }
    await eventually(() => host.workersReplaced === 1, 'the worker is replaced')
    assert.equal(logged.filter(entry => /too much memory/.test(entry.message)).length, 1)
    lane.send(0, [task('eat', [], 10_000)], 10_000)
    // Its successor began anew, and may have been asked once already.
    assert.ok(Number((await lane.receive(0, 20_000))![0]!.value) <= 120_000)
  })

  it('closing_twice_is_harmless_and_ends_pending_changes', async () => {
    const { host } = await open(1)
    await host.close()
    await host.close()
    await assert.rejects(host.put('m.lua', source('x = 1')), (error: unknown) => error instanceof UdfError && error.code === 'udf-closed')
  })

  it('closing_before_opening_does_not_touch_the_node', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'udf-host-'))
    closers.push(async () => { await rm(directory, { recursive: true, force: true }) })
    const native = { udfWake () { throw new Error('the node is not running') }, udfOverdue: () => [], udfAbandon () {} }
    const host = new UdfHost({
      native, handle: 1, addonPath: ADDON, workers: 1, workDirectory: directory, timeLimitMs: 1000, logger: { warn () {}, info () {}, debug () {}, trace () {} }
    })
    await host.close()
    await assert.rejects(host.put('m.lua', source('x = 1')), (error: unknown) => error instanceof UdfError && error.code === 'udf-closed')
    await assert.rejects(host.open(), (error: unknown) => error instanceof UdfError && error.code === 'udf-closed')
  })

  it('a_worker_that_cannot_start_fails_the_opening', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'udf-host-'))
    closers.push(async () => { await rm(directory, { recursive: true, force: true }) })
    const addonPath = join(directory, 'broken.mjs')
    await writeFile(addonPath, 'throw new Error("no add-on here")')
    const host = new UdfHost({
      native: { udfWake () {}, udfOverdue: () => [], udfAbandon () {} }, handle: 1, addonPath, workers: 1, workDirectory: directory, timeLimitMs: 1000,
      logger: { warn () {}, info () {}, debug () {}, trace () {} }
    })
    await assert.rejects(host.open(), (error: unknown) => error instanceof UdfError && error.code === 'udf-worker' && /no add-on here/.test(error.message))
  })
})
