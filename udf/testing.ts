// For tests: JavaScript values to Lua values and back, and a module under test behind the real lane encoding.

import assert from 'node:assert/strict'
import type { TValue } from './fengari.js'
import { objectValue } from './host-object.js'
import { BOOLEAN, FLOAT, INTEGER, luaString, NIL, STRING, Value } from './lua.js'
import { ByteWriter } from './byte-writer.js'
import { decodeResults, encodeTasks, ResultBatch, TaskBatch } from './lane.js'
import type { BinParticle, TaskFields, TaskResult } from './lane.js'
import { writeListItems } from './msgpack.js'
import { decodeParticle, encodeParticle } from './particle.js'
import { ModuleVersions } from './module-versions.js'
import { TaskRunner } from './task-runner.js'
import { LuaVm } from './vm.js'
import type { LogLine, VmOptions } from './vm.js'
import { LuaBytes, LuaGeoJson, LuaList, LuaMap, LuaOpaque } from './values.js'

/** A double; plain numbers and bigints stand for integers. */
export class Double {
  readonly double: number

  constructor (double: number) {
    this.double = double
  }
}

export class Geo {
  readonly json: string

  constructor (json: string) {
    this.json = json
  }
}

export type Plain = null | boolean | number | bigint | string | Uint8Array | Double | Geo | Plain[] | Map<Plain, Plain>

export function toLua (value: Plain): TValue {
  if (value === null) return new Value(NIL, null)
  if (typeof value === 'boolean') return new Value(BOOLEAN, value)
  if (typeof value === 'number' || typeof value === 'bigint') return new Value(INTEGER, value)
  if (typeof value === 'string') return new Value(STRING, luaString(new Uint8Array(Buffer.from(value))))
  if (value instanceof Uint8Array) return objectValue(new LuaBytes(Uint8Array.from(value), value.length))
  if (value instanceof Double) return new Value(FLOAT, value.double)
  if (value instanceof Geo) return objectValue(new LuaGeoJson(new Uint8Array(Buffer.from(value.json)), null))
  if (Array.isArray(value)) return objectValue(LuaList.of(value.map(toLua)))
  const entries = new Map([...value].map(([key, item]) => {
    const luaKey = toLua(key)
    return [LuaMap.identity(luaKey), { key: luaKey, value: toLua(item) }]
  }))
  return objectValue(LuaMap.of(entries))
}

export function fromLua (value: TValue): Plain {
  switch (value.type) {
    case NIL: return null
    case BOOLEAN: case INTEGER: return value.value
    case FLOAT: return new Double(value.value)
    case STRING: return Buffer.from(value.value.realstring).toString()
  }
  const object: unknown = value.value
  if (object instanceof LuaList) return object.items.map(fromLua)
  if (object instanceof LuaMap) return new Map([...object.entries.values()].map(entry => [fromLua(entry.key), fromLua(entry.value)]))
  if (object instanceof LuaBytes) return Uint8Array.from(object.content)
  if (object instanceof LuaGeoJson) return new Geo(Buffer.from(object.json).toString())
  if (object instanceof LuaOpaque) return object.raw
  throw new Error(`no plain form: ${value.type}`)
}

export function particle (value: Plain): { type: number, value: Uint8Array } {
  const writer = new ByteWriter(64)
  const type = encodeParticle(writer, toLua(value))
  return { type, value: writer.copyFrom(0) }
}

export function bin (name: string, value: Plain): BinParticle {
  return { name, ...particle(value) }
}

export function fromParticle (type: number, value: Uint8Array): Plain {
  return fromLua(decodeParticle(type, value, new DataView(value.buffer, value.byteOffset, value.byteLength), 0, value.length))
}

export function packArguments (args: readonly Plain[]): Uint8Array {
  const writer = new ByteWriter(64)
  writeListItems(writer, args.map(toLua), 0, 0)
  return writer.copyFrom(0)
}

export interface Outcome extends Omit<TaskResult, 'value'> {
  readonly value: Plain
  /** Changed bins; null for a deleted one. */
  readonly changes: Record<string, Plain>
}

export function plainOutcome (result: TaskResult): Outcome {
  return {
    ...result,
    value: result.success ? fromParticle(result.type, result.value) : null,
    changes: Object.fromEntries(result.bins.map(({ name, type, value }) => [name, fromParticle(type, value)]))
  }
}

/** What tests of modules use where they say nothing else; see `compiled.test.ts`. */
export const defaults: VmOptions = {}

/** A module named `m`, called through encoded tasks and results. */
export class ModuleUnderTest {
  readonly logged: LogLine[] = []
  readonly modules: ModuleVersions
  readonly runner: TaskRunner
  #id = 0n

  /** `others` are modules that it may require, by file name. */
  constructor (source: string, options: VmOptions = {}, others: Record<string, string> = {}) {
    const vm = new LuaVm({ ...defaults, logLevel: 4, log: line => { this.logged.push(line) }, ...options })
    const sources = Object.entries({ ...others, 'm.lua': source }).map(([name, text]) => ({ name, content: new Uint8Array(Buffer.from(text)) }))
    this.modules = new ModuleVersions(vm, new Int32Array(1), 0, sources)
    const [problem] = this.modules.failures
    if (problem !== undefined) throw problem.error
    this.runner = new TaskRunner({ vm, modules: this.modules, defaultTimeLimitMs: 5000 })
  }

  result (fn: string, args: readonly Plain[] = [], task: Partial<TaskFields> = {}): TaskResult {
    const id = ++this.#id
    const tasks = encodeTasks([{ id, module: 'm', function: fn, arguments: packArguments(args), ...task }])
    const batch = new TaskBatch(tasks)
    const results = new ResultBatch()
    batch.open(tasks.length)
    results.reset()
    this.runner.run(batch.next()!, results)
    const [result] = decodeResults(results.finish())
    assert.equal(result!.id, task.id ?? id)
    return result!
  }

  call (fn: string, args: readonly Plain[] = [], task: Partial<TaskFields> = {}): Outcome {
    return plainOutcome(this.result(fn, args, task))
  }

  /** The value of a call that must succeed. */
  value (fn: string, args: readonly Plain[] = [], task: Partial<TaskFields> = {}): Plain {
    const outcome = this.call(fn, args, task)
    assert.equal(outcome.success, true, outcome.message)
    return outcome.value
  }

  /** The message of a call that must fail. */
  failure (fn: string, args: readonly Plain[] = [], task: Partial<TaskFields> = {}): string {
    const outcome = this.call(fn, args, task)
    assert.equal(outcome.success, false, `${fn} succeeded`)
    return outcome.message
  }
}

/** Evaluates one Lua expression, or a body that has a return of its own. */
export function evaluate (code: string, args: readonly Plain[] = []): Plain {
  const body = /\breturn\b/.test(code) ? code : `return ${code}`
  return new ModuleUnderTest(`function f(rec, a, b, c)\n${body}\nend`).value('f', args)
}
