// The values of records that Lua has no type for: list, map, bytes, GeoJSON, and what only passes through.
//
// A list or map that came from a record keeps its msgpack bytes and is decoded when a script first looks inside; as long as nothing
// in it was changed or handed out for change, storing it writes those very bytes again.

import type { LuaState, Table, TValue } from './fengari.js'
import { hiddenMetatable, HostObject, objectValue } from './host-object.js'
import {
  argument, BOOLEAN, FLOAT, hashString, INTEGER, luaString, NIL, pushInteger, pushTyped, raise, STRING, textOf, typeName, USERDATA, Value
} from './lua.js'
import { chargeBytes, spend } from './limits.js'
import { floatText } from './lua-format.js'
import * as integer from './lua-integer.js'
import { readListItems, readMapEntries, writeListItems, writeMapEntries } from './msgpack.js'
import { ByteWriter } from './byte-writer.js'
import { ParticleType } from '../src/engine/constants.js'

/** A value that cannot be stored or does not decode; becomes a Lua error with a position. */
export class ValueError extends Error {}

/** Elements in one list or map that a script builds. */
export const ELEMENTS_MAX = 1_000_000
/** Bytes in one `bytes` value that a script builds. */
export const BYTES_MAX = 8 * 1024 * 1024

export const ORDERED_FLAG = 1
/** Set where a stored index follows the order flag; never sent back. */
export const STORED_INDEX_FLAG = 16

function toStringMethod (L: LuaState): number {
  return pushTyped(L, STRING, luaString(new Uint8Array(Buffer.from(describe(argument(L, 1), 0), 'utf8'))))
}

export const listMetatable = hiddenMetatable('list', {
  __len: L => pushInteger(L, (argument(L, 1).value as LuaList).size),
  __tostring: toStringMethod
})
export const mapMetatable = hiddenMetatable('map', {
  __len: L => pushInteger(L, (argument(L, 1).value as LuaMap).size),
  __tostring: toStringMethod
})
const bytesMetatable = hiddenMetatable('bytes', {
  __len: L => pushInteger(L, (argument(L, 1).value as LuaBytes).size),
  __tostring: toStringMethod
})
const geoJsonMetatable = hiddenMetatable('geojson', { __tostring: toStringMethod })
const opaqueMetatable = hiddenMetatable('opaque', { __tostring: toStringMethod })

/** Whether a list, map or bin can hold the value; if not, why. */
export function storageProblem (value: TValue): string | null {
  switch (value.type) {
    case NIL: case BOOLEAN: case INTEGER: case FLOAT: case STRING: return null
    case USERDATA: {
      const object: unknown = value.value
      if (object instanceof LuaList || object instanceof LuaMap || object instanceof LuaBytes ||
        object instanceof LuaGeoJson || object instanceof LuaOpaque) return null
      return `a ${object instanceof HostObject ? object.kind : 'userdata'} cannot be stored`
    }
    default:
      return typeName(value) === 'table' ? 'a Lua table cannot be stored; use list or map' : `a ${typeName(value)} cannot be stored`
  }
}

export function checkStorable (L: LuaState, value: TValue): TValue {
  const problem = storageProblem(value)
  if (problem !== null) raise(L, problem)
  return value
}

/** The functions of `list`, `map`, `bytes` and `geojson`, by the kind of value that they are for: what `value:name(...)` finds. */
const methods = new Map<string, Table>()

export function setMethods (kind: string, functions: Table): void {
  methods.set(kind, functions)
}

/** A value whose functions can be called as methods, where it has nothing of that name itself. */
abstract class ValueObject extends HostObject {
  override luaSelf (L: LuaState, key: TValue, out: TValue): void {
    this.luaIndex(L, key, out)
    if (out.type !== NIL || key.type !== STRING) return
    const method = methods.get(this.kind)?.strong.get(hashString(key.value))?.value
    if (method === undefined) return
    out.type = method.type
    out.value = method.value
  }
}

function isMutable (value: TValue): boolean {
  return value.type === USERDATA && (value.value instanceof LuaList || value.value instanceof LuaMap || value.value instanceof LuaBytes)
}

function copyOf (value: TValue): TValue {
  return new Value(value.type, value.value)
}

/** A one-based position, or 0 for a key that is none. */
function positionOf (key: TValue): number {
  const whole = key.type === INTEGER ? key.value : key.type === FLOAT ? integer.fromFloat(key.value) : false
  return typeof whole === 'number' && whole >= 1 ? whole : 0
}

export class LuaList extends ValueObject {
  #raw: Uint8Array | null
  #items: TValue[] | null
  /** Order flags of the wire format; 0 for a plain list. */
  #flags = 0

  private constructor (raw: Uint8Array | null, items: TValue[] | null, flags: number) {
    super(listMetatable)
    this.#raw = raw
    this.#items = items
    this.#flags = flags
  }

  static of (items: TValue[], flags = 0): LuaList {
    return new LuaList(null, items, flags)
  }

  /** Takes the bytes over. */
  static fromBytes (raw: Uint8Array): LuaList {
    return new LuaList(raw, null, 0)
  }

  get kind (): string {
    return 'list'
  }

  get flags (): number {
    this.#decoded()
    return this.#flags
  }

  get size (): number {
    return this.#decoded().length
  }

  #decoded (): TValue[] {
    if (this.#items === null) {
      const { items, flags } = readListItems(this.#raw!)
      this.#items = items
      this.#flags = flags
    }
    return this.#items
  }

  /** The elements, to read only. */
  get items (): readonly TValue[] {
    return this.#decoded()
  }

  /** The elements, to change: the original bytes no longer count. */
  mutableItems (): TValue[] {
    const items = this.#decoded()
    this.#raw = null
    return items
  }

  /** The element at a one-based position, or undefined. */
  at (position: number): TValue | undefined {
    const value = this.#decoded()[position - 1]
    // What can be changed through the element changes this list with it.
    if (value !== undefined && isMutable(value)) this.#raw = null
    return value
  }

  setAt (L: LuaState, position: number, value: TValue): void {
    if (position < 1 || position > ELEMENTS_MAX) raise(L, `list position out of range: ${position}`)
    const items = this.mutableItems()
    if (position > items.length) spend((position - items.length) >> 3)
    while (items.length < position - 1) items.push(new Value(NIL, null))
    items[position - 1] = copyOf(value)
  }

  luaIndex (_: LuaState, key: TValue, out: TValue): void {
    const value = this.at(positionOf(key))
    out.type = value === undefined ? NIL : value.type
    out.value = value === undefined ? null : value.value
  }

  override luaNewIndex (L: LuaState, key: TValue, value: TValue): void {
    const position = positionOf(key)
    if (position === 0) raise(L, 'a list is indexed by positions from 1')
    this.setAt(L, position, checkStorable(L, value))
  }

  write (writer: ByteWriter, depth: number): void {
    if (this.#raw !== null) writer.raw(this.#raw)
    else writeListItems(writer, this.#items!, this.#flags, depth)
  }
}

/** Begins the identity of keys that are not strings: no byte of a string is this character. */
const NO_TEXT = '\u{100}'

export interface MapEntry {
  readonly key: TValue
  value: TValue
}

export class LuaMap extends ValueObject {
  #raw: Uint8Array | null
  #entries: Map<unknown, MapEntry> | null
  #flags = 0

  private constructor (raw: Uint8Array | null, entries: Map<unknown, MapEntry> | null, flags: number) {
    super(mapMetatable)
    this.#raw = raw
    this.#entries = entries
    this.#flags = flags
  }

  static of (entries: Map<unknown, MapEntry>, flags = 0): LuaMap {
    return new LuaMap(null, entries, flags)
  }

  /** Takes the bytes over. */
  static fromBytes (raw: Uint8Array): LuaMap {
    return new LuaMap(raw, null, 0)
  }

  /** What makes two keys the same. */
  static identity (key: TValue): unknown {
    switch (key.type) {
      case STRING: return hashString(key.value)
      case FLOAT: return NO_TEXT + 'f' + String(key.value)
      case USERDATA: {
        const writer = new ByteWriter(64)
        writeIdentity(writer, key)
        return NO_TEXT + 'u' + Buffer.from(writer.bytes.buffer, 0, writer.length).toString('latin1')
      }
      default: return key.value
    }
  }

  get kind (): string {
    return 'map'
  }

  get flags (): number {
    this.#decoded()
    return this.#flags
  }

  get size (): number {
    return this.#decoded().size
  }

  #decoded (): Map<unknown, MapEntry> {
    if (this.#entries === null) {
      const { entries, flags } = readMapEntries(this.#raw!)
      this.#entries = entries
      this.#flags = flags
    }
    return this.#entries
  }

  get entries (): ReadonlyMap<unknown, MapEntry> {
    return this.#decoded()
  }

  /** The entries to hand out one by one; from here on their values may change. */
  escapingEntries (): ReadonlyMap<unknown, MapEntry> {
    const entries = this.#decoded()
    if (this.#raw !== null) {
      for (const entry of entries.values()) {
        if (isMutable(entry.value)) {
          this.#raw = null
          break
        }
      }
    }
    return entries
  }

  #find (key: TValue): MapEntry | undefined {
    const entries = this.#decoded()
    const found = entries.get(LuaMap.identity(key))
    if (found !== undefined || key.type !== FLOAT) return found
    // To Lua 1.0 and 1 are one key; a stored map may hold either.
    const whole = integer.fromFloat(key.value)
    return whole === false ? undefined : entries.get(whole)
  }

  get (key: TValue): TValue | undefined {
    const entry = this.#find(key)
    if (entry === undefined) return undefined
    if (isMutable(entry.value)) this.#raw = null
    return entry.value
  }

  set (L: LuaState, key: TValue, value: TValue): void {
    if (value.type === NIL) {
      this.remove(key)
      return
    }
    if (key.type === NIL) raise(L, 'a map key cannot be nil')
    if (key.type === FLOAT && Number.isNaN(key.value)) raise(L, 'a map key cannot be NaN')
    checkStorable(L, key)
    checkStorable(L, value)
    const found = this.#find(key)
    this.#raw = null
    if (found !== undefined) {
      found.value = copyOf(value)
      return
    }
    const entries = this.#entries!
    if (entries.size >= ELEMENTS_MAX) raise(L, `a map cannot hold more than ${ELEMENTS_MAX} entries`)
    entries.set(LuaMap.identity(key), { key: copyOf(key), value: copyOf(value) })
  }

  /** Takes over an entry of another map as it is there: a stored map may have keys and values that a script cannot assign. */
  adopt (L: LuaState, { key, value }: MapEntry): void {
    const entries = this.#decoded()
    this.#raw = null
    const identity = LuaMap.identity(key)
    if (entries.size >= ELEMENTS_MAX && !entries.has(identity)) raise(L, `a map cannot hold more than ${ELEMENTS_MAX} entries`)
    entries.set(identity, { key: copyOf(key), value: copyOf(value) })
  }

  remove (key: TValue): void {
    const found = this.#find(key)
    if (found === undefined) return
    this.#raw = null
    this.#entries!.delete(LuaMap.identity(found.key))
  }

  luaIndex (_: LuaState, key: TValue, out: TValue): void {
    const value = this.get(key)
    out.type = value === undefined ? NIL : value.type
    out.value = value === undefined ? null : value.value
  }

  override luaNewIndex (L: LuaState, key: TValue, value: TValue): void {
    this.set(L, key, value)
  }

  write (writer: ByteWriter, depth: number): void {
    if (this.#raw !== null) writer.raw(this.#raw)
    else writeMapEntries(writer, this.#entries!, this.#flags, depth)
  }
}

export class LuaBytes extends ValueObject {
  /** Holds at least `size` bytes. */
  buffer: Uint8Array
  size: number
  /** Particle type: a blob of some language, or HyperLogLog. */
  particleType: number

  /** Takes the buffer over. */
  constructor (buffer: Uint8Array, size: number, particleType: number = ParticleType.BLOB) {
    super(bytesMetatable)
    this.buffer = buffer
    this.size = size
    this.particleType = particleType
  }

  get kind (): string {
    return 'bytes'
  }

  get content (): Uint8Array {
    return this.buffer.subarray(0, this.size)
  }

  /** Makes bytes up to `end` exist; new ones are zero. */
  ensure (L: LuaState, end: number): void {
    if (end > BYTES_MAX) raise(L, `bytes longer than ${BYTES_MAX}`)
    if (end > this.buffer.length) {
      const larger = new Uint8Array(Math.max(end, this.buffer.length * 2))
      chargeBytes(larger.length)
      larger.set(this.content)
      this.buffer = larger
    }
    if (end > this.size) this.size = end
  }

  luaIndex (_: LuaState, key: TValue, out: TValue): void {
    const position = positionOf(key)
    const within = position >= 1 && position <= this.size
    out.type = within ? INTEGER : NIL
    out.value = within ? this.buffer[position - 1] : null
  }

  override luaNewIndex (L: LuaState, key: TValue, value: TValue): void {
    const position = positionOf(key)
    if (position === 0) raise(L, 'bytes are indexed by positions from 1')
    if (value.type !== INTEGER || typeof value.value !== 'number') raise(L, 'a byte must be an integer')
    this.ensure(L, position)
    this.buffer[position - 1] = value.value & 255
  }
}

/** Immutable: the particle is kept as it came, with its cells. */
export class LuaGeoJson extends ValueObject {
  readonly json: Uint8Array
  /** The particle it came from, or null for one that a script made. */
  readonly particle: Uint8Array | null

  constructor (json: Uint8Array, particle: Uint8Array | null) {
    super(geoJsonMetatable)
    this.json = json
    this.particle = particle
  }

  get kind (): string {
    return 'geojson'
  }

  luaIndex (_: LuaState, __: TValue, out: TValue): void {
    out.type = NIL
    out.value = null
  }
}

/** Something a script can hold and store again, nothing else: an unknown particle type, or a msgpack element outside Lua's types. */
export class LuaOpaque extends HostObject {
  /** Of a bin; 0 for a msgpack element, which only fits into a list or map. */
  readonly particleType: number
  readonly raw: Uint8Array

  constructor (particleType: number, raw: Uint8Array) {
    super(opaqueMetatable)
    this.particleType = particleType
    this.raw = raw
  }

  get kind (): string {
    return 'opaque'
  }

  luaIndex (_: LuaState, __: TValue, out: TValue): void {
    out.type = NIL
    out.value = null
  }
}

function writeIdentity (writer: ByteWriter, key: TValue): void {
  const object: unknown = key.value
  if (object instanceof LuaList || object instanceof LuaMap) object.write(writer, 0)
  else if (object instanceof LuaBytes) {
    writer.u8(object.particleType)
    writer.raw(object.content)
  } else if (object instanceof LuaGeoJson) {
    writer.u8(ParticleType.GEOJSON)
    writer.raw(object.json)
  } else if (object instanceof LuaOpaque) {
    writer.u8(255)
    writer.raw(object.raw)
  }
}

const DESCRIBE_DEPTH_MAX = 16

/** The text of a value as `tostring` gives it for lists and maps. */
export function describe (value: TValue, depth: number): string {
  // What contains itself, or one thing many times, would be written out without end.
  spend(1)
  switch (value.type) {
    case NIL: return 'nil'
    case BOOLEAN: case INTEGER: return String(value.value)
    case FLOAT: return floatText(value.value)
    case STRING:
      // One long string many times: the text holds it as often.
      chargeBytes(value.value.length)
      return depth === 0 ? textOf(value) : JSON.stringify(textOf(value))
  }
  const object: unknown = value.value
  if (depth > DESCRIBE_DEPTH_MAX) return '...'
  if (object instanceof LuaList) return `[${object.items.map(item => describe(item, depth + 1)).join(', ')}]`
  if (object instanceof LuaMap) {
    return `{${[...object.entries.values()].map(({ key, value }) => `${describe(key, depth + 1)}:${describe(value, depth + 1)}`).join(', ')}}`
  }
  if (object instanceof LuaBytes) return [...object.content.subarray(0, 256)].map(byte => byte.toString(16).padStart(2, '0').toUpperCase()).join(' ')
  if (object instanceof LuaGeoJson) {
    chargeBytes(object.json.length)
    return Buffer.from(object.json).toString('utf8')
  }
  return typeName(value)
}

export function listValue (items: TValue[]): TValue {
  return objectValue(LuaList.of(items))
}

export function bytesValue (content: Uint8Array): TValue {
  return objectValue(new LuaBytes(content, content.length))
}
