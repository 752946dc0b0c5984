// Runs one task of the lane: finds the function, builds the record, calls, appends the result.

import type { TValue } from './fengari.js'
import { encodeParticle } from './particle.js'
import { LaneError } from './lane.js'
import type { ResultBatch, Task } from './lane.js'
import { isSentinel, MsgpackReader } from './msgpack.js'
import { LuaRecord, returnable } from './record-api.js'
import { ModuleError } from './vm.js'
import type { LuaModule, LuaVm } from './vm.js'
import { NIL, Value } from './lua.js'
import { LuaOpaque, ValueError } from './values.js'
import { ResultCode } from '../src/engine/constants.js'

/** More arguments than this are logged as a mistake in the making. */
const ARGUMENTS_USUAL_MAX = 20
/** Of one return value. */
const RETURN_BYTES_MAX = 64 * 1024 * 1024
/** Functions with statistics of their own; names come from modules, so this only guards against generated ones. */
const STATISTICS_MAX = 4096

export interface FunctionStatistics {
  calls: number
  errors: number
  /** Sum over the calls. */
  microseconds: number
}

export interface TaskRunnerOptions {
  readonly vm: LuaVm
  /** For a task that brings no limit of its own. */
  readonly defaultTimeLimitMs: number
  readonly warn?: (message: string) => void
}

export class TaskRunner {
  readonly #vm: LuaVm
  readonly #defaultTimeLimitMs: number
  readonly #warn: (message: string) => void
  /** By module name, without the extension. A module that did not load is kept as the reason. */
  readonly #modules = new Map<string, LuaModule | ModuleError>()
  #statistics = new Map<string, FunctionStatistics>()

  constructor ({ vm, defaultTimeLimitMs, warn }: TaskRunnerOptions) {
    this.#vm = vm
    this.#defaultTimeLimitMs = defaultTimeLimitMs
    this.#warn = warn ?? (() => {})
  }

  /** Loads a module, or remembers why it does not load; `fileName` ends in `.lua`. */
  put (fileName: string, source: Uint8Array): ModuleError | null {
    const name = moduleName(fileName)
    try {
      this.#modules.set(name, this.#vm.load(fileName, source))
      return null
    } catch (error) {
      if (!(error instanceof ModuleError)) throw error
      this.#modules.set(name, error)
      return error
    }
  }

  /** Makes the functions of a module answer with the reason why it is not loaded. */
  refuse (fileName: string, reason: string): void {
    this.#modules.set(moduleName(fileName), new ModuleError(0, reason))
  }

  remove (fileName: string): void {
    this.#modules.delete(moduleName(fileName))
  }

  /** What was counted since the last call, by `module.function`. */
  takeStatistics (): Map<string, FunctionStatistics> {
    const taken = this.#statistics
    this.#statistics = new Map()
    return taken
  }

  run (task: Task, results: ResultBatch): void {
    results.begin(task)
    const problem = this.#call(task, results)
    if (problem !== null) {
      results.cancel()
      results.begin(task)
      results.fail(problem.code, problem.message)
    }
    results.end()
  }

  #call (task: Task, results: ResultBatch): { code: number, message: string } | null {
    const name = task.module
    const module = this.#modules.get(name) ?? this.#modules.get(moduleName(name))
    if (module === undefined) return { code: ResultCode.UDF_EXECUTION, message: `module not found: ${name}` }
    if (module instanceof ModuleError) {
      return { code: ResultCode.UDF_EXECUTION, message: `module ${name} failed to load: ${module.line === 0 ? '' : `${name}.lua:${module.line}: `}${module.message}` }
    }
    const functionName = task.function
    const fn = module.function(functionName)
    if (fn === undefined) return { code: ResultCode.UDF_EXECUTION, message: `function not found: ${name}.${functionName}` }

    const started = performance.now()
    const record = new LuaRecord(task)
    const problem = this.#invoke(task, module, fn, record, results)
    record.close()
    this.#count(`${name}.${functionName}`, problem !== null, performance.now() - started)
    return problem
  }

  #invoke (task: Task, module: LuaModule, fn: TValue, record: LuaRecord, results: ResultBatch): { code: number, message: string } | null {
    try {
      const args = readArguments(task)
      if (args.length > ARGUMENTS_USUAL_MAX) this.#warn(`${task.module}.${task.function} was called with ${args.length} arguments`)
      const outcome = this.#vm.call(module, fn, record, args, task.timeLimitMs !== 0 ? task.timeLimitMs : this.#defaultTimeLimitMs)
      if (!outcome.ok) return outcome
      const before = results.writer.length
      const type = encodeParticle(results.writer, returnable(outcome.value))
      if (results.writer.length - before > RETURN_BYTES_MAX) throw new ValueError(`the return value has more than ${RETURN_BYTES_MAX} bytes`)
      results.returned(type)
      record.writeChange(results)
      return null
    } catch (error) {
      if (error instanceof LaneError) throw error
      // A return value that cannot be encoded, arguments that do not decode. The position is the module's: the call is over.
      if (error instanceof ValueError || error instanceof RangeError) {
        return { code: ResultCode.UDF_EXECUTION, message: `${module.name}: ${task.function}: ${error.message}` }
      }
      throw error
    }
  }

  #count (key: string, failed: boolean, milliseconds: number): void {
    let entry = this.#statistics.get(key)
    if (entry === undefined) {
      if (this.#statistics.size >= STATISTICS_MAX) return
      entry = { calls: 0, errors: 0, microseconds: 0 }
      this.#statistics.set(key, entry)
    }
    entry.calls++
    if (failed) entry.errors++
    entry.microseconds += milliseconds * 1000
  }
}

function readArguments (task: Task): TValue[] {
  if (task.argumentBytes === 0) return []
  const reader = new MsgpackReader(task.bytes, task.argumentsAt, task.binsAt)
  const { items } = reader.listItems(reader.listHeader(), 0)
  // Infinity and the wildcard stand for no value of their own.
  return items.map(item => item.value instanceof LuaOpaque && isSentinel(item.value.raw) ? new Value(NIL, null) : item)
}

export function moduleName (fileName: string): string {
  return fileName.endsWith('.lua') ? fileName.slice(0, -4) : fileName
}
