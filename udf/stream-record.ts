// A record in a stream: read only, and there as long as its chunk is worked on. Bins are looked for where they lie in the chunk, so
// what a script does not touch costs nothing.

import type { LuaState, TValue } from './fengari.js'
import type { Task } from './lane.js'
import { hashString, luaString, NIL, raise, STRING, Value } from './lua.js'
import { decodeParticle } from './particle.js'
import { CLOSED_MESSAGE, ScriptRecord } from './script-record.js'
import { LuaMap, ValueError } from './values.js'
import type { MapEntry } from './values.js'

const READ_ONLY = 'the records of a stream are read-only'

/** The records of one chunk, of which one at a time has its bytes at hand. */
export class ChunkRecords {
  readonly #task: Task
  readonly #limit: number
  #closed = false

  /** `task` is moved among the records, up to `limit`. */
  constructor (task: Task, limit: number) {
    this.#task = task
    this.#limit = limit
  }

  get isClosed (): boolean {
    return this.#closed
  }

  at (position: number): Task {
    if (this.#task.at !== position) this.#task.move(position, this.#limit)
    return this.#task
  }

  /** From here on its bytes are another chunk's. */
  close (): void {
    this.#closed = true
  }
}

export class StreamRecord extends ScriptRecord {
  readonly #records: ChunkRecords
  readonly #at: number
  /** Decoded lists, maps and bytes: what a script has changed in one it finds changed. */
  #containers: Map<number, TValue> | null = null

  constructor (records: ChunkRecords, at: number) {
    super()
    this.#records = records
    this.#at = at
  }

  task (L: LuaState): Task {
    if (this.#records.isClosed) raise(L, CLOSED_MESSAGE)
    return this.#records.at(this.#at)
  }

  luaIndex (L: LuaState, key: TValue, out: TValue): void {
    if (key.type !== STRING) raise(L, 'a bin name must be a string')
    const task = this.task(L)
    const found = task.findBin(hashString(key.value))
    if (found < 0) {
      out.type = NIL
      out.value = null
      return
    }
    const value = this.#value(task, found)
    out.type = value.type
    out.value = value.value
  }

  #value (task: Task, binAt: number): TValue {
    const known = this.#containers?.get(binAt)
    if (known !== undefined) return known
    const { bytes, view } = task
    const value = decodeParticle(task.binType(binAt), bytes, view, task.binValueAt(binAt), task.binValueLength(binAt))
    if (value.value !== null && typeof value.value === 'object' && value.type !== STRING) {
      this.#containers ??= new Map()
      this.#containers.set(binAt, value)
    }
    return value
  }

  override luaNewIndex (L: LuaState): void {
    raise(L, READ_ONLY)
  }

  get exists (): boolean {
    return true
  }

  get names (): Uint8Array[] {
    const task = this.#records.at(this.#at)
    const names: Uint8Array[] = []
    task.eachBin((nameAt, nameLength) => { names.push(task.bytes.slice(nameAt, nameAt + nameLength)) })
    return names
  }

  asMap (): LuaMap {
    if (this.#records.isClosed) throw new ValueError(CLOSED_MESSAGE)
    const task = this.#records.at(this.#at)
    const entries = new Map<unknown, MapEntry>()
    task.eachBin((nameAt, nameLength, type, valueAt, valueLength) => {
      const key = new Value(STRING, luaString(task.bytes.slice(nameAt, nameAt + nameLength)))
      entries.set(LuaMap.identity(key), { key, value: decodeParticle(type, task.bytes, task.view, valueAt, valueLength) })
    })
    return LuaMap.of(entries)
  }

  create (L: LuaState): number {
    raise(L, READ_ONLY)
  }

  update (L: LuaState): number {
    raise(L, READ_ONLY)
  }

  remove (L: LuaState): number {
    raise(L, READ_ONLY)
  }

  setTtl (L: LuaState): void {
    raise(L, READ_ONLY)
  }

  dropKey (L: LuaState): void {
    raise(L, READ_ONLY)
  }
}
