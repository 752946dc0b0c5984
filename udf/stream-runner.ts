// Runs the tasks of a stream: calls the module's function for its operations and has the chunk's records, or partial results of
// other chunks, pass through them.
//
// A node does what comes up to and including the first reduce, the client all from that reduce on. So a chunk's values are either
// combined with those of others by that reduce alone, or, without one, are results already. A task that is final does the
// client's part too.

import type { LuaState, Table, TValue } from './fengari.js'
import { objectValue } from './host-object.js'
import { TaskKind } from './lane.js'
import type { ResultBatch, Task } from './lane.js'
import { control } from './limits.js'
import { checkLimits, isFalse, ldo, LuaTable, NIL, push, raise, TABLE, tableEntries, tableSet, tableValue, USERDATA, Value } from './lua.js'
import { callValueNoYield } from './lua-frame.js'
import { decodeParticle, encodeParticle } from './particle.js'
import { returnable } from './record-api.js'
import { callFunction } from './collections-api.js'
import { LuaStream } from './stream-api.js'
import type { StreamOperation } from './stream-api.js'
import { ChunkRecords, StreamRecord } from './stream-record.js'
import { LuaBytes, LuaList, LuaMap, ValueError } from './values.js'
import type { LuaModule } from './lua-module.js'
import type { CallOutcome, LuaVm } from './vm.js'

/** Of the values of one chunk, or of the combined value of several: two of them fit into one task. */
export const STREAM_VALUES_BYTES_MAX = 8 * 1024 * 1024

export interface StreamCall {
  readonly task: Task
  readonly module: LuaModule
  readonly fn: TValue
  readonly args: readonly TValue[]
  readonly limitMs: number
}

/** Runs a stream's task and appends its values to the result; a failure leaves the result to be cancelled. */
export function runStream (vm: LuaVm, call: StreamCall, results: ResultBatch): CallOutcome {
  const { task, module, limitMs } = call
  const records = new ChunkRecords(task.follower(), task.end)
  const stream = new LuaStream()
  const started = performance.now()
  let isReduced = false
  const outcome = vm.run(module, L => {
    const operations = operationsOf(L, call, stream)
    const firstReduce = operations.findIndex(({ kind }) => kind === 'reduce')
    isReduced = firstReduce >= 0
    if (task.kind === TaskKind.CHUNK) {
      const here = new Pipeline(L, isReduced ? operations.slice(0, firstReduce + 1) : operations, results)
      let at = task.binsAt
      for (let i = task.binCount; i > 0; i--) {
        here.pass(L, 0, objectValue(new StreamRecord(records, at)))
        at = records.at(at).end
      }
      here.finish(L)
    } else {
      if (!isReduced) raise(L, `${task.function} gave a stream with a reduce before, and now one without`)
      const here = new Pipeline(L, operations.slice(firstReduce, task.isFinal ? undefined : firstReduce + 1), results)
      task.eachBin((_, __, type, valueAt, valueLength) => {
        here.pass(L, 0, decodeParticle(type, task.bytes, task.view, valueAt, valueLength))
      })
      here.finish(L)
    }
    return 0
  }, limitMs)
  stream.close()
  records.close()
  if (outcome.ok) results.stream(isReduced && !task.isFinal, Math.round((performance.now() - started) * 1000))
  return outcome
}

/** Calls the function for the stream that it makes. */
function operationsOf (L: LuaState, { task, fn, args }: StreamCall, stream: LuaStream): readonly StreamOperation[] {
  luaD_checkstack!(L, args.length + 4)
  const at = L.top
  push(L, fn)
  push(L, objectValue(stream))
  for (const value of args) push(L, value)
  callValueNoYield(L, at, 1)
  const returned = L.stack[at]!
  L.top = at
  if (returned.value !== stream) raise(L, `${task.function} must return its stream`)
  stream.close()
  return stream.operations
}

const { luaD_checkstack } = ldo as Record<string, (L: LuaState, at: number, results?: number) => void>

/** The operations that a task does, and what they have so far. A value that is nil goes no further. */
class Pipeline {
  readonly #operations: readonly StreamOperation[]
  /** Of each aggregate and reduce; undefined where a reduce has met nothing yet. */
  readonly #states: Array<TValue | undefined>
  readonly #results: ResultBatch

  constructor (L: LuaState, operations: readonly StreamOperation[], results: ResultBatch) {
    this.#operations = operations
    this.#states = operations.map(operation => operation.kind === 'aggregate' ? copyOfInit(L, operation.init) : undefined)
    this.#results = results
  }

  /** Has a value pass, from an operation on. */
  pass (L: LuaState, from: number, first: TValue): void {
    // Operations may be library functions, which count no steps.
    if (--control.steps <= 0) checkLimits(L)
    let value = first
    const operations = this.#operations
    for (let i = from; i < operations.length; i++) {
      const { kind, fn } = operations[i]!
      switch (kind) {
        case 'filter': {
          if (isFalse(callFunction(L, fn, value))) return
          break
        }
        case 'map':
          value = callFunction(L, fn, value)
          if (value.type === NIL) return
          break
        default: {
          const state = this.#states[i]
          this.#states[i] = state === undefined ? value : callFunction(L, fn, state, value)
          return
        }
      }
    }
    this.#give(L, value)
  }

  /** There are no further values: what was gathered goes on. */
  finish (L: LuaState): void {
    this.#operations.forEach((_, i) => {
      const state = this.#states[i]
      if (state !== undefined && state.type !== NIL) this.pass(L, i + 1, state)
    })
  }

  #give (L: LuaState, value: TValue): void {
    const results = this.#results
    results.beginValue()
    try {
      results.endBin(encodeParticle(results.writer, returnable(value)))
    } catch (error) {
      if (error instanceof ValueError || error instanceof RangeError) raise(L, `a value of the stream: ${error.message}`)
      throw error
    }
    if (results.resultBytes > STREAM_VALUES_BYTES_MAX) raise(L, `the values of one chunk of the stream have more than ${STREAM_VALUES_BYTES_MAX} bytes`)
  }
}

/** Each chunk begins with a value of its own, whatever a module keeps of it. Tables are copied one level deep. */
function copyOfInit (L: LuaState, init: TValue): TValue {
  const object: unknown = init.value
  if (init.type === USERDATA) {
    if (object instanceof LuaList) return objectValue(LuaList.of(object.items.map(item => copyOfInit(L, item)), object.flags))
    if (object instanceof LuaMap) {
      const entries = [...object.entries].map(([identity, { key, value }]) => [identity, { key, value: copyOfInit(L, value) }] as const)
      return objectValue(LuaMap.of(new Map(entries), object.flags))
    }
    if (object instanceof LuaBytes) return objectValue(new LuaBytes(Uint8Array.from(object.content), object.size, object.particleType))
  }
  if (init.type === TABLE) {
    const table = new LuaTable(L)
    for (const [key, value] of tableEntries(object as Table)) tableSet(L, table, key, value)
    return tableValue(table)
  }
  return new Value(init.type, object)
}
