// What a node does with a call, without a node: the same virtual machine, task and result layouts, limits and rules for what becomes of
// the record. There is one call at a time, and no storage.

import type { TValue } from '../fengari.js'
import { decodeResults, encodeTasks, ResultBatch, TaskBatch, TaskKind } from '../lane.js'
import type { BinParticle, TaskFields, TaskResult } from '../lane.js'
import { control } from '../limits.js'
import { ModuleSet } from '../module-set.js'
import { writeListItems } from '../msgpack.js'
import { ByteWriter } from '../byte-writer.js'
import { decodeParticle } from '../particle.js'
import type { ModuleSource } from '../protocol.js'
import { TaskRunner } from '../task-runner.js'
import { LuaVm } from '../vm.js'
import type { LogLine } from '../vm.js'
import { ResultCode } from '../../src/engine/constants.js'
import type { SampleRecord } from './sample-record.js'
import { installClock } from './test-clock.js'
import type { TestClock } from './test-clock.js'

/** As a node has them without configuration. */
export const TIME_LIMIT_MS = 1000
export const RECORD_BYTES_MAX = 1024 * 1024

const LOG_LINES_MAX = 1000
/** Few, so that a test with a handful of records has partial results to reduce. */
const CHUNK_RECORDS = 3

interface Failed {
  readonly ok: false
  readonly code: number
  readonly message: string
}

export type Applied = { readonly ok: true, readonly value: TValue } | Failed
export type Aggregated = { readonly ok: true, readonly values: TValue[] } | Failed

export class LocalNode {
  readonly #runner: TaskRunner
  readonly logged: LogLine[] = []
  #id = 0n

  constructor (modules: readonly ModuleSource[], clock: TestClock) {
    const vm = new LuaVm({
      logLevel: 4,
      log: line => { if (this.logged.length < LOG_LINES_MAX) this.logged.push(line) },
      extend: environment => { installClock(environment, clock) }
    })
    this.#runner = new TaskRunner({ vm, modules: ModuleSet.over(vm, name => modules.find(module => module.name === name)), defaultTimeLimitMs: TIME_LIMIT_MS })
  }

  /** Calls a function on a record and carries out what it wants. The arguments must be storable. */
  apply (record: SampleRecord, module: string, name: string, args: readonly TValue[]): Applied {
    const result = this.#run({ module, function: name, arguments: packed(args), ...record.task() })
    if (!result.success) return failed(result)
    const bytes = record.carryOut(result, RECORD_BYTES_MAX)
    if (bytes !== null) return { ok: false, code: ResultCode.RECORD_TOO_BIG, message: `the record would have ${bytes} bytes, a record has at most ${RECORD_BYTES_MAX}` }
    return { ok: true, value: valueOf(result) }
  }

  /** Calls a stream function on records, in chunks, and does the client's part too. The arguments must be storable. */
  aggregate (records: readonly SampleRecord[], module: string, name: string, args: readonly TValue[]): Aggregated {
    const call = { module, function: name, arguments: packed(args) }
    const present = records.filter(record => record.exists).map(record => record.task())
    const values: BinParticle[] = []
    let isReduced = false
    for (let at = 0; at < present.length; at += CHUNK_RECORDS) {
      const result = this.#run({ ...call, kind: TaskKind.CHUNK, records: present.slice(at, at + CHUNK_RECORDS) })
      if (!result.success) return failed(result)
      values.push(...result.bins)
      isReduced ||= result.isReduced
    }
    if (!isReduced || values.length === 0) return { ok: true, values: values.map(valueOf) }
    const result = this.#run({ ...call, kind: TaskKind.REDUCE, isFinal: true, bins: values })
    return result.success ? { ok: true, values: result.bins.map(valueOf) } : failed(result)
  }

  #run (fields: Omit<TaskFields, 'id'>): TaskResult {
    const tasks = encodeTasks([{ id: ++this.#id, ...fields }])
    const batch = new TaskBatch(tasks)
    const results = new ResultBatch()
    batch.open(tasks.length)
    results.reset()
    // The test that calls runs under limits of its own, and this thread has one set of them.
    const outer = { ...control }
    try {
      this.#runner.run(batch.next()!, results)
    } finally {
      Object.assign(control, outer)
    }
    return decodeResults(results.finish())[0]!
  }
}

function packed (args: readonly TValue[]): Uint8Array {
  const writer = new ByteWriter(256)
  writeListItems(writer, args, 0, 0)
  return writer.copyFrom(0)
}

function failed ({ code, message }: TaskResult): Failed {
  return { ok: false, code: code === 0 ? ResultCode.UDF_EXECUTION : code, message }
}

function valueOf ({ type, value }: { type: number, value: Uint8Array }): TValue {
  return decodeParticle(type, value, new DataView(value.buffer, value.byteOffset, value.length), 0, value.length)
}
