// Runs one task of the lane: finds the function, builds the record, calls, appends the result.

import type { TValue } from './fengari.js'
import { encodeParticle } from './particle.js'
import { LaneError, TaskKind } from './lane.js'
import { LimitError } from './limits.js'
import type { ResultBatch, Task } from './lane.js'
import { isSentinel, MsgpackReader } from './msgpack.js'
import { LuaRecord, returnable } from './record-api.js'
import { ModuleError } from './lua-module.js'
import type { Callable, LuaModule } from './lua-module.js'
import { moduleName } from './module-set.js'
import type { ModuleVersions } from './module-versions.js'
import { WorkerStatistics } from './statistics.js'
import { runStream } from './stream-runner.js'
import type { LuaVm } from './vm.js'
import { NIL, Value } from './lua.js'
import { LuaOpaque, ValueError } from './values.js'
import { ResultCode } from '../src/engine/constants.js'

/** More arguments than this are logged as a mistake in the making. */
const ARGUMENTS_USUAL_MAX = 20
const NO_ARGUMENTS: TValue[] = []
/** Of one return value. */
const RETURN_BYTES_MAX = 64 * 1024 * 1024

/** Where tasks find their modules: the versions of a worker, or a single set. */
type Modules = Pick<ModuleVersions, 'find'>

export interface TaskRunnerOptions {
  readonly vm: LuaVm
  readonly modules: Modules
  /** Every call is refused. */
  readonly isDisabled?: boolean
  /** For a task that brings no limit of its own. */
  readonly defaultTimeLimitMs: number
  readonly warn?: (message: string) => void
  readonly statistics?: WorkerStatistics
  /** Is told the number of the function that runs, 0 afterwards. */
  readonly running?: (number: number) => void
}

export class TaskRunner {
  readonly #vm: LuaVm
  readonly #defaultTimeLimitMs: number
  readonly #warn: (message: string) => void
  readonly #modules: Modules
  readonly #isDisabled: boolean
  readonly #statistics: WorkerStatistics
  readonly #running: (number: number) => void
  #ended = 0

  constructor ({ vm, modules, isDisabled, defaultTimeLimitMs, warn, statistics, running }: TaskRunnerOptions) {
    this.#vm = vm
    this.#modules = modules
    this.#isDisabled = isDisabled ?? false
    this.#defaultTimeLimitMs = defaultTimeLimitMs
    this.#warn = warn ?? (() => {})
    this.#statistics = statistics ?? new WorkerStatistics()
    this.#running = running ?? (() => {})
  }

  /** Runs a task that began at `started` by the clock of `performance.now()`, and returns when it ended. */
  run (task: Task, results: ResultBatch, started = performance.now()): number {
    results.begin(task)
    this.#ended = started
    const problem = this.#call(task, results, started)
    if (problem !== null) {
      results.cancel()
      results.begin(task)
      results.fail(problem.code, problem.message)
    }
    results.end()
    return this.#ended
  }

  #call (task: Task, results: ResultBatch, started: number): { code: number, message: string } | null {
    if (this.#isDisabled) return { code: ResultCode.FORBIDDEN, message: 'the execution of Lua functions is disabled' }
    const name = task.module
    const module = this.#modules.find(name)
    if (module === undefined) return { code: ResultCode.UDF_EXECUTION, message: `module not found: ${name}` }
    if (module instanceof ModuleError) {
      return { code: ResultCode.UDF_EXECUTION, message: `module ${name} failed to load: ${module.line === 0 ? '' : `${name}.lua:${module.line}: `}${module.message}` }
    }
    const functionName = task.function
    const callable = module.callables.get(functionName) ?? this.#find(module, functionName)
    if (callable === undefined) return { code: ResultCode.UDF_EXECUTION, message: `function not found: ${name}.${functionName}` }

    const { counters } = callable
    this.#running(counters.number)
    const problem = task.kind === TaskKind.RECORD
      ? this.#onRecord(task, module, callable, results, started)
      : this.#onStream(task, module, callable, results)
    this.#ended = performance.now()
    counters.call(this.#ended - started, problem !== null)
    this.#running(0)
    return problem
  }

  #limitOf ({ timeLimitMs }: Task): number {
    return timeLimitMs !== 0 ? timeLimitMs : this.#defaultTimeLimitMs
  }

  /** Only names that exist are remembered: others come from clients and have no bound. */
  #find (module: LuaModule, name: string): Callable | undefined {
    const fn = module.function(name)
    if (fn === undefined) return undefined
    const callable = { fn, counters: this.#statistics.of(moduleName(module.name), name) }
    module.callables.set(name, callable)
    return callable
  }

  #onRecord (task: Task, module: LuaModule, { fn, counters }: Callable, results: ResultBatch, started: number): { code: number, message: string } | null {
    const record = new LuaRecord(task)
    try {
      const existed = task.exists
      if (existed) counters.read(1)
      const args = readArguments(task)
      if (args.length > ARGUMENTS_USUAL_MAX) this.#warn(`${task.module}.${task.function} was called with ${args.length} arguments`)
      const outcome = this.#vm.call(module, fn, record, args, this.#limitOf(task), started)
      if (!outcome.ok) return outcome
      const before = results.writer.length
      const type = encodeParticle(results.writer, returnable(outcome.value))
      if (results.writer.length - before > RETURN_BYTES_MAX) throw new ValueError(`the return value has more than ${RETURN_BYTES_MAX} bytes`)
      results.returned(type)
      counters.changed(existed, record.writeChange(results))
      return null
    } catch (error) {
      if (error instanceof LaneError) throw error
      // A return value that cannot be encoded, arguments that do not decode. The position is the module's: the call is over.
      if (error instanceof ValueError || error instanceof RangeError || error instanceof LimitError) {
        return { code: ResultCode.UDF_EXECUTION, message: `${module.name}: ${task.function}: ${error.message}` }
      }
      throw error
    } finally {
      record.close()
    }
  }

  #onStream (task: Task, module: LuaModule, { fn, counters }: Callable, results: ResultBatch): { code: number, message: string } | null {
    if (task.kind === TaskKind.CHUNK) counters.read(task.binCount)
    let args: TValue[]
    try {
      args = readArguments(task)
    } catch (error) {
      if (!(error instanceof ValueError)) throw error
      return { code: ResultCode.UDF_EXECUTION, message: `${module.name}: ${task.function}: ${error.message}` }
    }
    const outcome = runStream(this.#vm, { task, module, fn, args, limitMs: this.#limitOf(task) }, results)
    return outcome.ok ? null : outcome
  }
}

function readArguments (task: Task): TValue[] {
  if (task.argumentBytes === 0) return NO_ARGUMENTS
  const reader = new MsgpackReader(task.bytes, task.argumentsAt, task.binsAt, task.view)
  const count = reader.listHeader()
  if (count === 0) return NO_ARGUMENTS
  const { items } = reader.listItems(count, 0)
  // Infinity and the wildcard stand for no value of their own.
  for (const [at, { value }] of items.entries()) if (value instanceof LuaOpaque && isSentinel(value.raw)) items[at] = new Value(NIL, null)
  return items
}
