// The record that a function is called with, and the Lua tables `record` and `aerospike`.
//
// A script sees one record through three layers:
//
//   original   the bins as the task brought them; a bin is looked for and its value decoded when it is touched (record-bins.ts)
//   stored     the original with everything that create, update and remove made real
//   pending    assignments since then; visible to the script, gone at the end unless create or update is called
//
// What the engine gets is the difference between stored and original, as one write, one removal or nothing.

import type { LuaFunction, LuaState, Table, TString, TValue } from './fengari.js'
import { objectValue } from './host-object.js'
import {
  badArgument, checkInteger, functionValue, hashString, ltable, luaString, LuaTable, NIL, push, pushBoolean, pushInteger, pushNil, pushTyped,
  raise, rawSet, STRING, TABLE, tableValue, textString, Value
} from './lua.js'
import { ByteWriter } from './byte-writer.js'
import { chargeBytes, spend } from './limits.js'
import { canonical } from './lua-integer.js'
import { Action, TTL_NEVER, TtlAction } from './lane.js'
import type { ResultBatch, Task } from './lane.js'
import { expect, functionTable, STREAM_MESSAGE } from './collections-api.js'
import { decodeParticle, encodeParticle } from './particle.js'
import { RecordBins } from './record-bins.js'
import type { Bin } from './record-bins.js'
import { CLOSED_MESSAGE, ScriptRecord } from './script-record.js'
import { bytesValue, LuaBytes, LuaList, LuaMap, storageProblem, ValueError } from './values.js'
import type { MapEntry } from './values.js'
import { Limit, ParticleType, ResultCode } from '../src/engine/constants.js'

/** Bins that a script can leave in a record. */
export const SCRIPT_BINS_MAX = 512

const STATUS_DONE = 0
/** `aerospike:create` of a record that exists, `aerospike:remove` of one that does not. */
const STATUS_REFUSED = 1
/** `aerospike:update` of a record that does not exist. */
const STATUS_ABSENT = -2

/** What becomes of a bin whose value could change under a script's hands. */
type EncodedBin = Pick<Bin, 'type' | 'bytes' | 'view' | 'at' | 'length' | 'value'>

const STREAM_METHODS = new Set(['map', 'filter', 'aggregate', 'reduce', 'groupby'])

/** The failure code for the error being raised, for errors that are not plain script errors. */
export const failure: { code: number, message: string } = { code: 0, message: '' }

function raiseCoded (L: LuaState, code: number, message: string): never {
  failure.code = code
  failure.message = message
  raise(L, message)
}

export class LuaRecord extends ScriptRecord {
  readonly #task: Task
  readonly #bins: RecordBins
  #closed = false
  readonly #existed: boolean
  #exists: boolean
  #written = false
  #ttlAction: TtlAction = TtlAction.DEFAULT
  #ttlSeconds = 0
  #dropKey = false

  constructor (task: Task) {
    super()
    this.#task = task
    this.#bins = new RecordBins(task)
    this.#existed = task.exists
    this.#exists = this.#existed
  }

  /** After its call a record is dead: its task's bytes belong to another one. */
  close (): void {
    this.#closed = true
  }

  task (L: LuaState): Task {
    if (this.#closed) raise(L, CLOSED_MESSAGE)
    return this.#task
  }

  get exists (): boolean {
    return this.#exists
  }

  #find (L: LuaState, name: string): TValue | undefined {
    if (this.#closed) raise(L, CLOSED_MESSAGE)
    const bin = this.#bins.find(name)
    if (bin === undefined) return undefined
    return bin.assigned ?? (bin.isStored ? this.#bins.valueOf(bin) : undefined)
  }

  luaIndex (L: LuaState, key: TValue, out: TValue): void {
    if (key.type !== STRING) raise(L, 'a bin name must be a string')
    const value = this.#find(L, hashString(key.value))
    out.type = value === undefined ? NIL : value.type
    out.value = value === undefined ? null : value.value
  }

  override luaSelf (L: LuaState, key: TValue, out: TValue): void {
    this.luaIndex(L, key, out)
    if (out.type === NIL && STREAM_METHODS.has(hashString(key.value))) raise(L, STREAM_MESSAGE)
  }

  override luaNewIndex (L: LuaState, key: TValue, value: TValue): void {
    if (this.#closed) raise(L, CLOSED_MESSAGE)
    if (key.type !== STRING) raise(L, 'a bin name must be a string')
    const { length }: TString = key.value
    if (length === 0 || length > Limit.BIN_NAME_BYTES_MAX) {
      const name: Uint8Array = key.value.realstring
      raiseCoded(L, ResultCode.BIN_NAME, `a bin name has 1 to ${Limit.BIN_NAME_BYTES_MAX} bytes: '${Buffer.from(name.subarray(0, 64)).toString()}'`)
    }
    const bin = this.#bins.obtain(hashString(key.value))
    const problem = storageProblem(value)
    if (problem !== null) raise(L, `bin '${shown(bin.name)}': ${problem}`)
    const { assigned } = this.#bins
    if (bin.assigned === null) {
      if (assigned.length >= SCRIPT_BINS_MAX * 2) raise(L, `more than ${SCRIPT_BINS_MAX * 2} bins assigned`)
      assigned.push(bin)
    }
    bin.assigned = new Value(value.type, value.value)
  }

  create (L: LuaState): number {
    this.task(L)
    if (this.#exists) return STATUS_REFUSED
    this.#apply(L)
    // Its bins may come with an update.
    this.#exists = true
    return STATUS_DONE
  }

  update (L: LuaState): number {
    this.task(L)
    if (!this.#exists) return STATUS_ABSENT
    this.#apply(L)
    return STATUS_DONE
  }

  remove (L: LuaState): number {
    this.task(L)
    if (!this.#exists) return STATUS_REFUSED
    for (const bin of this.#bins.stored()) this.#bins.change(bin, false)
    for (const bin of this.#bins.assigned) bin.assigned = null
    this.#bins.assigned = []
    this.#exists = false
    this.#written = false
    this.#ttlAction = TtlAction.DEFAULT
    this.#dropKey = false
    return STATUS_DONE
  }

  /** Makes the pending assignments real. What can change under a script's hands is encoded now. */
  #apply (L: LuaState): void {
    const bins = this.#bins
    const { assigned } = bins
    // First what may raise: then all of them are real, or none.
    let encoded: Map<Bin, EncodedBin> | null = null
    for (const bin of assigned) {
      const object: unknown = bin.assigned!.value
      if (object instanceof LuaList || object instanceof LuaMap || object instanceof LuaBytes) (encoded ??= new Map()).set(bin, this.#encoded(L, bin))
    }
    for (const bin of assigned) {
      const value = bin.assigned!
      bin.assigned = null
      if (value.type === NIL) {
        if (bin.isStored) bins.change(bin, false)
        continue
      }
      const bytes = encoded?.get(bin)
      bin.type = -1
      bin.value = value
      if (bytes !== undefined) Object.assign(bin, bytes)
      bins.change(bin, true)
    }
    if (assigned.length > 0) bins.assigned = []
    if (bins.size > SCRIPT_BINS_MAX && bins.changed.length > 0 && bins.size > bins.originals) {
      raise(L, `a record cannot get more than ${SCRIPT_BINS_MAX} bins`)
    }
    this.#written = true
    // A record without bins does not exist.
    this.#exists = bins.size > 0
  }

  #encoded (L: LuaState, { name, assigned }: Bin): EncodedBin {
    scratch.length = 0
    let type: number
    try {
      type = encodeParticle(scratch, assigned!)
    } catch (error) {
      if (error instanceof ValueError || error instanceof RangeError) raise(L, `bin '${shown(name)}': ${error.message}`)
      throw error
    }
    if (scratch.length > Limit.RECORD_BYTES_MAX) {
      raiseCoded(L, ResultCode.RECORD_TOO_BIG, `bin '${shown(name)}' has ${scratch.length} bytes, a record at most ${Limit.RECORD_BYTES_MAX}`)
    }
    // One value in many bins is as many copies.
    chargeBytes(scratch.length)
    spend(1)
    const bytes = scratch.copyFrom(0)
    return { type, bytes, view: new DataView(bytes.buffer), at: 0, length: bytes.length, value: null }
  }

  setTtl (L: LuaState, seconds: number): void {
    this.task(L)
    this.#ttlAction = seconds === -1 ? TtlAction.NEVER : seconds === -2 ? TtlAction.UNCHANGED : TtlAction.SET
    this.#ttlSeconds = seconds > 0 ? seconds : 0
  }

  dropKey (L: LuaState): void {
    this.task(L)
    this.#dropKey = true
  }

  /** Names of the stored bins: assignments count once they are real. */
  get names (): Uint8Array[] {
    return this.#bins.stored().map(({ name }) => new Uint8Array(Buffer.from(name, 'latin1')))
  }

  /** All bins the script sees, as a map: how a record is returned to a client. */
  asMap (): LuaMap {
    if (this.#closed) throw new ValueError(CLOSED_MESSAGE)
    const entries = new Map<unknown, MapEntry>()
    const add = (name: string, value: TValue): void => {
      const key = new Value(STRING, textString(name))
      entries.set(name, { key, value })
    }
    for (const bin of this.#bins.stored()) add(bin.name, this.#bins.valueOf(bin))
    for (const { name, assigned } of this.#bins.assigned) {
      if (assigned!.type === NIL) entries.delete(name)
      else add(name, assigned!)
    }
    return LuaMap.of(entries)
  }

  /** Appends what became of the record to the task's result, and tells it. */
  writeChange (results: ResultBatch): Action {
    // What was created and got no bins is not there.
    if (!this.#exists || (this.#written && this.#bins.size === 0)) {
      if (!this.#existed) return Action.NONE
      results.change(Action.REMOVE, TtlAction.DEFAULT, 0, false)
      return Action.REMOVE
    }
    if (!this.#written) return Action.NONE
    results.change(Action.WRITE, this.#ttlAction, this.#ttlSeconds, this.#dropKey)
    for (const bin of this.#bins.changed) {
      if (bin.isStored) {
        results.beginBin(bin.name)
        if (bin.type >= 0) {
          results.writer.raw(bin.bytes.subarray(bin.at, bin.at + bin.length))
          results.endBin(bin.type)
        } else results.endBin(encodeParticle(results.writer, bin.value!))
      } else if (bin.isOriginal) {
        results.beginBin(bin.name)
        results.endBin(ParticleType.NULL)
      }
    }
    return Action.WRITE
  }
}

const scratch = new ByteWriter(4096)

/** A bin's name in a message. */
function shown (name: string): string {
  return Buffer.from(name, 'latin1').toString()
}

function record (L: LuaState, index = 1): ScriptRecord {
  return expect(L, index, ScriptRecord, 'record')
}

const recordFunctions: Record<string, LuaFunction> = {
  /** Seconds left to live; 0 when the record never expires. */
  ttl: L => {
    const { ttlSeconds, exists } = record(L).task(L)
    return pushInteger(L, !exists || ttlSeconds === TTL_NEVER ? 0 : ttlSeconds)
  },
  /** Milliseconds since 2010-01-01. */
  last_update_time: L => pushInteger(L, canonical(BigInt.asIntN(64, record(L).task(L).lastUpdateTime))),
  gen: L => pushInteger(L, record(L).task(L).generation),
  size: L => pushInteger(L, record(L).task(L).storedBytes),
  memory_size: L => pushInteger(L, record(L).task(L).storedBytes),
  device_size: L => pushInteger(L, record(L).task(L).storedBytes),
  key: L => {
    const task = record(L).task(L)
    if (!task.hasKey || task.keyBytes === 0) return pushNil(L)
    push(L, decodeParticle(task.bytes[task.keyAt]!, task.bytes, task.view, task.keyAt + 1, task.keyBytes - 1))
    return 1
  },
  setname: L => {
    const task = record(L).task(L)
    if (task.keyAt === task.setAt) return pushNil(L)
    return pushTyped(L, STRING, luaString(task.bytes.slice(task.setAt, task.keyAt)))
  },
  digest: L => {
    push(L, bytesValue(new Uint8Array(record(L).task(L).digest)))
    return 1
  },
  numbins: L => {
    const target = record(L)
    target.task(L)
    return pushInteger(L, target.names.length)
  },
  bin_names: L => {
    const target = record(L)
    target.task(L)
    const table = new LuaTable(L)
    for (const [i, name] of target.names.entries()) ltable['luaH_setint'](table, i + 1, new Value(STRING, luaString(name.slice())))
    return pushTyped(L, TABLE, table)
  },
  /** Seconds to live from the next create or update on: -1 never expires, -2 leaves it as it is, 0 is the namespace's default. */
  set_ttl: L => {
    const target = record(L)
    const seconds = checkInteger(L, 2)
    if (typeof seconds !== 'number' || seconds < -2 || seconds > 0x7fffffff) badArgument(L, 2, 'ttl out of range')
    target.setTtl(L, seconds)
    return 0
  },
  drop_key: L => {
    record(L).dropKey(L)
    return 0
  }
}

/** `aerospike:name(rec)`: the receiver is argument 1. */
function onRecord (action: (L: LuaState, target: ScriptRecord) => number): LuaFunction {
  return L => pushInteger(L, action(L, record(L, 2)))
}

/** Where log calls go; levels are 1 warn, 2 info, 3 debug, 4 trace. */
export interface LogSink {
  /** The arguments are a format and its values. */
  format(L: LuaState, level: number): void
  /** The argument at `index` is the text. */
  text(L: LuaState, level: number, index: number): void
}

export function installRecord (environment: Table, sink: LogSink): void {
  rawSet(environment, 'record', tableValue(functionTable(recordFunctions)))
  rawSet(environment, 'aerospike', tableValue(functionTable({
    create: onRecord((L, target) => target.create(L)),
    update: onRecord((L, target) => target.update(L)),
    remove: onRecord((L, target) => target.remove(L)),
    exists: L => pushBoolean(L, record(L, 2).exists),
    /** Unix time in milliseconds. */
    get_current_time: L => pushInteger(L, Date.now()),
    log: L => {
      const level = checkInteger(L, 2)
      sink.text(L, typeof level === 'number' ? Math.min(4, Math.max(1, level)) : 4, 3)
      return 0
    }
  })))
  for (const [level, name] of ['warn', 'info', 'debug', 'trace'].entries()) {
    rawSet(environment, name, functionValue(L => {
      sink.format(L, level + 1)
      return 0
    }))
  }
}

/** What a function returned, as a value that encodes: a record becomes the map of its bins. */
export function returnable (value: TValue): TValue {
  return value.value instanceof ScriptRecord ? objectValue(value.value.asMap()) : value
}
