import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { decodeResults, encodeTasks } from './lane.js'
import type { TaskFields } from './lane.js'
import type { UdfExchange } from './native.js'
import { Progress } from './protocol.js'
import type { FromWorker, ModuleSource, ModuleToLoad, ToWorker } from './protocol.js'
import { HostStatistics } from './statistics.js'
import { bin, packArguments, plainOutcome } from './testing.js'
import type { Outcome } from './testing.js'
import { WorkerLoop } from './worker-loop.js'

type Step = { tasks: TaskFields[] } | { control: ToWorker[] } | { active: number } | 'nothing'

/**
 * The engine's side of one worker, as a script of steps; closes after the last.
 * Fault model: never blocks, never loses or repeats a task; "nothing" is a wait that timed out or a wake-up.
 */
class FakeLane {
  readonly outcomes: Outcome[] = []
  readonly posted: FromWorker[] = []
  readonly #steps: Step[]
  readonly #control: ToWorker[] = []
  readonly progress = new SharedArrayBuffer(Progress.COUNT * Float64Array.BYTES_PER_ELEMENT)
  readonly activeVersion = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT)
  exchanges = 0

  constructor (steps: Step[]) {
    this.#steps = [...steps]
  }

  readonly exchange: UdfExchange = (handle, worker, results, tasks, waitMs) => {
    assert.deepEqual([handle, worker], [17, 3])
    assert.ok(waitMs >= 0)
    this.exchanges++
    const progress = new Float64Array(this.progress)
    assert.deepEqual([Progress.RUNNING, Progress.LOADING, Progress.FUNCTION].map(at => progress[at]), [0, 0, 0])
    if (results !== null) this.outcomes.push(...decodeResults(Uint8Array.from(results)).map(plainOutcome))
    for (let step = this.#steps.shift(); step !== undefined; step = this.#steps.shift()) {
      if (step === 'nothing') return 0
      if ('active' in step) {
        new Int32Array(this.activeVersion)[0] = step.active
        continue
      }
      if ('control' in step) {
        this.#control.push(...step.control)
        return 0
      }
      const encoded = encodeTasks(step.tasks)
      tasks.fill(0xee)
      tasks.set(encoded)
      return encoded.length
    }
    return -1
  }

  run (modules: ModuleToLoad[] = [], arrayBufferBytes = (): number => 0, isDisabled = false): this {
    new Int32Array(this.activeVersion)[0] = 1
    new WorkerLoop({
      data: { handle: 17, worker: 3, addonPath: '', modules, version: 1, defaultTimeLimitMs: 1000, logLevel: 2, callMemoryBytes: 256 * 1024 * 1024, heapBytesMax: Infinity, isDisabled, arrayBufferBytesMax: 1000, progress: this.progress, activeVersion: this.activeVersion },
      exchange: this.exchange,
      receive: () => this.#control.shift(),
      post: message => { this.posted.push(message) },
      tasksBytes: 1 << 16,
      arrayBufferBytes
    }).run()
    return this
  }
}

const module = (name: string, text: string): ModuleSource => ({ name, content: new Uint8Array(Buffer.from(text)) })
const task = (id: number, fn: string, fields: Partial<TaskFields> = {}): TaskFields => ({ id: BigInt(id), module: 'm', function: fn, arguments: packArguments([]), ...fields })

describe('worker loop', () => {
  it('answers_every_task_once_in_the_batch_it_came_in', () => {
    const lane = new FakeLane([
      { tasks: [task(1, 'one'), task(2, 'add', { arguments: packArguments([5]), bins: [bin('a', 1)] }), task(3, 'fail')] }, 'nothing', { tasks: [task(4, 'one')] }
    ]).run([module('m.lua', 'function one() return 1 end function add(rec, n) rec.a = rec.a + n aerospike:update(rec) return rec.a end function fail() error("x") end')])
    assert.deepEqual(lane.outcomes.map(outcome => [outcome.id, outcome.success, outcome.value, outcome.code, outcome.message]),
      [[1n, true, 1, 0, ''], [2n, true, 6, 0, ''], [3n, false, null, 100, 'm.lua:1: x'], [4n, true, 1, 0, '']])
    assert.deepEqual(lane.posted[0], { kind: 'loaded', version: 1, failures: [], refused: undefined })
    assert.deepEqual(lane.posted.at(-1), { kind: 'ended' })
  })

  it('a_change_is_in_force_for_the_tasks_that_start_after_the_shared_number_says_so', () => {
    const put = (version: number, text: string): Step => ({ control: [{ kind: 'change', version, name: 'm.lua', source: module('m.lua', text) }] })
    const remove = (version: number, name: string): Step => ({ control: [{ kind: 'change', version, name, source: undefined }] })
    const one = 'function f() return 1 end'
    const lane = new FakeLane([
      { tasks: [task(1, 'f')] },
      put(2, one), { tasks: [task(2, 'f')] }, { active: 2 }, { tasks: [task(3, 'f')] },
      // The third never comes into force.
      put(3, 'function f() return 3 end'), { tasks: [task(4, 'f')] },
      put(4, 'function f() return 4 end function g() return 5 end'), { active: 4 }, { tasks: [task(5, 'f'), task(6, 'g')] },
      put(5, 'error("broken")'), { tasks: [task(7, 'f')] },
      remove(6, 'm.lua'), { active: 6 }, remove(7, 'absent.lua'), { active: 7 }, { tasks: [task(8, 'f')] }
    ]).run()
    assert.deepEqual(lane.outcomes.map(outcome => outcome.success ? outcome.value : outcome.message),
      ['module not found: m', 'module not found: m', 1, 1, 4, 5, 4, 'module not found: m'])
    const loaded = lane.posted.flatMap(message => message.kind === 'loaded' ? [message] : [])
    assert.deepEqual(loaded.map(({ version }) => version), [1, 2, 3, 4, 5, 6, 7])
    assert.deepEqual(loaded.flatMap(({ version, refused }) => refused === undefined ? [] : [[version, refused]]), [[5, { name: 'm.lua', line: 1, message: 'broken' }]])
  })

  it('a_module_that_fails_while_loading_answers_with_its_error', () => {
    const lane = new FakeLane([{ tasks: [task(1, 'f')] }]).run([module('m.lua', 'function f() end\nerror("broken")')])
    assert.equal(lane.outcomes[0]!.message, 'module m failed to load: m.lua:2: broken')
    assert.deepEqual(lane.posted[0], { kind: 'loaded', version: 1, failures: [{ name: 'm.lua', line: 2, message: 'broken' }], refused: undefined })
  })

  it('stop_hands_in_the_results_that_are_done', () => {
    const lane = new FakeLane([{ control: [{ kind: 'stop' }] }, { tasks: [task(1, 'f')] }]).run()
    assert.equal(lane.exchanges, 1)
    assert.deepEqual(lane.posted.at(-1), { kind: 'ended' })
  })

  it('a_result_larger_than_any_before_grows_the_buffer', () => {
    const lane = new FakeLane([{ tasks: [task(1, 'big'), task(2, 'small')] }, { tasks: [task(3, 'big')] }])
      .run([module('m.lua', 'function big() return ("x"):rep(1 << 20) end function small() return 1 end')])
    assert.deepEqual(lane.outcomes.map(outcome => typeof outcome.value === 'string' ? outcome.value.length : outcome.value), [1 << 20, 1, 1 << 20])
  })

  it('statistics_count_calls_errors_times_and_records_by_function', () => {
    const text = `
      function f() end
      function g() error() end
      function set(rec) rec.a = 1 if aerospike:exists(rec) then aerospike:update(rec) else aerospike:create(rec) end end
      function remove(rec) aerospike:remove(rec) end`
    const stored = { bins: [bin('a', 1)] }
    const lane = new FakeLane([
      { tasks: [task(1, 'f'), task(2, 'f', stored), task(3, 'g', stored), task(4, 'none')] },
      // A function keeps its row when its module is replaced.
      { control: [{ kind: 'change', version: 2, name: 'm.lua', source: module('m.lua', text) }] }, { active: 2 },
      { tasks: [task(5, 'set'), task(6, 'set', stored), task(7, 'set', stored), task(8, 'remove', stored), task(9, 'remove'), task(10, 'f')] }
    ]).run([module('m.lua', text)])
    const statistics = new HostStatistics()
    for (const message of lane.posted) if (message.kind === 'function') statistics.add(3, message.module, message.name, message.row)
    const counted = statistics.functions().map(row => [row.module, row.name, row.calls, row.errors, row.recordsRead, row.recordsCreated, row.recordsUpdated, row.recordsRemoved])
    assert.deepEqual(counted, [['m', 'f', 3, 0, 1, 0, 0, 0], ['m', 'g', 1, 1, 1, 0, 0, 0], ['m', 'remove', 2, 0, 1, 0, 0, 1], ['m', 'set', 3, 0, 2, 1, 2, 0]])
    assert.ok(statistics.functions().every(({ microseconds, microsecondsMax }) => microseconds >= microsecondsMax && microsecondsMax > 0))
  })

  it('a_script_that_logs_without_end_is_cut_short', () => {
    const lane = new FakeLane([{ tasks: [task(1, 'f')] }]).run([module('m.lua', 'function f() for i = 1, 5000 do warn("line %d", i) end end')])
    const lines = lane.posted.filter(message => message.kind === 'log')
    assert.equal(lines.length, 1001)
    assert.match((lines.at(-1) as { line: { message: string } }).line.message, /dropping the rest/)
  })

  it('a_thread_that_keeps_too_much_outside_its_heap_hands_in_its_results_and_leaves', () => {
    // The first look is after loading; a batch of more than a second brings the next.
    const looks = [400, 1001]
    const slow = 'function f() local t = os.time() + 2 while os.time() < t do end return 1 end'
    const lane = new FakeLane([{ tasks: [task(1, 'f', { timeLimitMs: 60_000 })] }, { tasks: [task(2, 'f')] }]).run([module('m.lua', slow)], () => looks.shift()!)
    assert.deepEqual(lane.outcomes.map(outcome => [outcome.id, outcome.value]), [[1n, 1]])
    assert.deepEqual(lane.posted.at(-1), { kind: 'exhausted', bytes: 1001 })
  })

  it('a_refused_module_is_not_run_and_answers_with_the_reason', () => {
    const lane = new FakeLane([{ tasks: [task(1, 'f')] }]).run([{ ...module('m.lua', 'while true do end'), refused: 'it was bad' }])
    assert.equal(lane.outcomes[0]!.message, 'module m failed to load: it was bad')
  })

  it('where_execution_is_disabled_every_call_is_forbidden', () => {
    const lane = new FakeLane([{ tasks: [task(1, 'f'), task(2, 'none')] }]).run([module('m.lua', 'function f() return 1 end')], undefined, true)
    assert.deepEqual(lane.outcomes.map(({ code, message }) => [code, message]),
      [[22, 'the execution of Lua functions is disabled'], [22, 'the execution of Lua functions is disabled']])
  })
})
