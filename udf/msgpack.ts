// The msgpack dialect of values inside lists and maps (and of arguments), both ways.
//
//   value   = nil c0 | false c2 | true c3 | integer in its shortest form | double cb (float ca is read) | text | list | map | ext
//   text    = str header (a0.., d9, da, db; c4..c6 are read too) of length + 1, particle type byte, bytes
//             types: 3 string, 4 and 7..12 blobs, 18 HyperLogLog, 23 GeoJSON (the JSON alone)
//   list    = array header; an ordered one counts and starts with the ext `c7 00 <flags>`
//   map     = map header; one with flags counts and starts with the pair `c7 00 <flags>`, nil
//   ext     = anything else (wildcard `d4 ff 00`, infinity `d4 ff 01`): passes through unread
//
// Every length is checked against the bytes that are there before it sizes anything, and nesting is bounded.

import type { TValue } from './fengari.js'
import { objectValue } from './host-object.js'
import { BOOLEAN, FLOAT, hashString, INTEGER, luaString, NIL, STRING, textString, typeName, USERDATA, Value } from './lua.js'
import { readInt64 } from './lua-integer.js'
import type { LuaInteger } from './lua-integer.js'
import {
  LuaBytes, LuaGeoJson, LuaList, LuaMap, LuaOpaque, ORDERED_FLAG, storageProblem, STORED_INDEX_FLAG, ValueError
} from './values.js'
import type { MapEntry } from './values.js'
import { spend } from './limits.js'
import { shortText } from './short-text.js'
import type { ByteWriter } from './byte-writer.js'
import { Limit, ParticleType } from '../src/engine/constants.js'

const DEPTH_MAX = Limit.MSGPACK_DEPTH_MAX
const SENTINEL_EXT = 0xff
/** Texts up to here, as names are, are looked up among those that came before. */
const SHORT_CHARS_MAX = 16

function malformed (what: string): never {
  throw new ValueError(`malformed list or map: ${what}`)
}

/** Whether an element is the wildcard or infinity: a fixext 1 of type ff. */
export function isSentinel (raw: Uint8Array): boolean {
  return raw.length === 3 && raw[0] === 0xd4 && raw[1] === 0xff
}

export class MsgpackReader {
  readonly bytes: Uint8Array
  readonly #view: DataView
  at: number
  readonly end: number

  /** `view` is over the same bytes, for who has one. */
  constructor (bytes: Uint8Array, at = 0, end = bytes.length, view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)) {
    this.bytes = bytes
    this.#view = view
    this.at = at
    this.end = end
  }

  #take (count: number): number {
    const at = this.at
    if (count > this.end - at) malformed('truncated')
    this.at = at + count
    return at
  }

  #unsigned (size: number): number {
    const at = this.#take(size)
    return size === 1 ? this.bytes[at]! : size === 2 ? this.#view.getUint16(at) : this.#view.getUint32(at)
  }

  read (depth: number): TValue {
    const start = this.at
    const head = this.bytes[this.#take(1)]!
    if (head < 0x80) return new Value(INTEGER, head)
    if (head < 0x90) return this.#map(head & 15, depth)
    if (head < 0xa0) return this.#list(head & 15, depth)
    if (head < 0xc0) return this.#text(head & 31, start)
    if (head >= 0xe0) return new Value(INTEGER, head - 256)
    switch (head) {
      case 0xc0: return new Value(NIL, null)
      case 0xc2: return new Value(BOOLEAN, false)
      case 0xc3: return new Value(BOOLEAN, true)
      case 0xc4: case 0xd9: return this.#text(this.#unsigned(1), start)
      case 0xc5: case 0xda: return this.#text(this.#unsigned(2), start)
      case 0xc6: case 0xdb: return this.#text(this.#unsigned(4), start)
      case 0xca: return new Value(FLOAT, this.#view.getFloat32(this.#take(4)))
      case 0xcb: return new Value(FLOAT, this.#view.getFloat64(this.#take(8)))
      case 0xcc: return new Value(INTEGER, this.#unsigned(1))
      case 0xcd: return new Value(INTEGER, this.#unsigned(2))
      case 0xce: return new Value(INTEGER, this.#unsigned(4))
      case 0xcf: {
        const at = this.#take(8)
        // Beyond int64 there is no Lua integer of that value: it may pass through, not be computed with.
        if (this.bytes[at]! >= 0x80) return this.#opaque(start)
        return new Value(INTEGER, readInt64(this.#view, at))
      }
      case 0xd0: return new Value(INTEGER, this.#view.getInt8(this.#take(1)))
      case 0xd1: return new Value(INTEGER, this.#view.getInt16(this.#take(2)))
      case 0xd2: return new Value(INTEGER, this.#view.getInt32(this.#take(4)))
      case 0xd3: return new Value(INTEGER, readInt64(this.#view, this.#take(8)))
      case 0xdc: return this.#list(this.#unsigned(2), depth)
      case 0xdd: return this.#list(this.#unsigned(4), depth)
      case 0xde: return this.#map(this.#unsigned(2), depth)
      case 0xdf: return this.#map(this.#unsigned(4), depth)
      case 0xc1: return malformed('byte c1')
      default:
        this.at = start
        this.#ext()
        return this.#opaque(start)
    }
  }

  #opaque (start: number): TValue {
    return objectValue(new LuaOpaque(0, this.bytes.slice(start, this.at)))
  }

  /** Passes over an ext and returns its type byte. */
  #ext (): number {
    const head = this.bytes[this.#take(1)]!
    const length = head >= 0xd4 ? 1 << (head - 0xd4) : this.#unsigned(head === 0xc7 ? 1 : head === 0xc8 ? 2 : 4)
    const type = this.bytes[this.#take(1)]!
    this.#take(length)
    return type
  }

  #text (length: number, start: number): TValue {
    if (length === 0) return new Value(STRING, luaString(new Uint8Array(0)))
    const at = this.#take(length)
    const type = this.bytes[at]!
    const content = (): Uint8Array => this.bytes.slice(at + 1, at + length)
    switch (type) {
      case ParticleType.STRING:
        return new Value(STRING, length <= SHORT_CHARS_MAX ? textString(shortText(this.bytes, at + 1, length - 1)) : luaString(content()))
      case ParticleType.GEOJSON: return objectValue(new LuaGeoJson(content(), null))
      case ParticleType.BLOB: case ParticleType.HLL:
        return objectValue(new LuaBytes(content(), length - 1, type))
      default:
        if (type >= ParticleType.JAVA_BLOB && type <= ParticleType.ERLANG_BLOB) return objectValue(new LuaBytes(content(), length - 1, type))
        return this.#opaque(start)
    }
  }

  /** Reads the order flags at the front, if any; -1 when there are none. */
  #orderFlags (): number {
    const head = this.at < this.end ? this.bytes[this.at]! : 0
    if (!((head >= 0xc7 && head <= 0xc9) || (head >= 0xd4 && head <= 0xd8))) return -1
    const start = this.at
    const type = this.#ext()
    if (type === SENTINEL_EXT) {
      this.at = start
      return -1
    }
    return type
  }

  #list (count: number, depth: number): TValue {
    const { items, flags } = this.listItems(count, depth)
    return objectValue(LuaList.of(items, flags))
  }

  #map (count: number, depth: number): TValue {
    const { entries, flags } = this.mapEntries(count, depth)
    return objectValue(LuaMap.of(entries, flags))
  }

  listItems (count: number, depth: number): { items: TValue[], flags: number } {
    if (depth >= DEPTH_MAX) malformed(`nested deeper than ${DEPTH_MAX}`)
    if (count > this.end - this.at) malformed(`${count} elements in ${this.end - this.at} bytes`)
    let flags = 0
    if (count > 0) {
      const found = this.#orderFlags()
      if (found >= 0) {
        flags = found & ~STORED_INDEX_FLAG
        count--
      }
    }
    const items: TValue[] = new Array(count)
    for (let i = 0; i < count; i++) items[i] = this.read(depth + 1)
    return { items, flags }
  }

  mapEntries (count: number, depth: number): { entries: Map<unknown, MapEntry>, flags: number } {
    if (depth >= DEPTH_MAX) malformed(`nested deeper than ${DEPTH_MAX}`)
    if (count * 2 > this.end - this.at) malformed(`${count} entries in ${this.end - this.at} bytes`)
    let flags = 0
    if (count > 0) {
      const found = this.#orderFlags()
      if (found >= 0) {
        flags = found & ~STORED_INDEX_FLAG
        this.read(depth + 1)
        count--
      }
    }
    const entries = new Map<unknown, MapEntry>()
    for (let i = 0; i < count; i++) {
      const key = this.read(depth + 1)
      entries.set(LuaMap.identity(key), { key, value: this.read(depth + 1) })
    }
    return { entries, flags }
  }

  /** The header of the outermost list: its count. */
  listHeader (): number {
    const head = this.bytes[this.#take(1)]!
    if (head >= 0x90 && head < 0xa0) return head & 15
    if (head === 0xdc) return this.#unsigned(2)
    if (head === 0xdd) return this.#unsigned(4)
    return malformed('not a list')
  }

  mapHeader (): number {
    const head = this.bytes[this.#take(1)]!
    if (head >= 0x80 && head < 0x90) return head & 15
    if (head === 0xde) return this.#unsigned(2)
    if (head === 0xdf) return this.#unsigned(4)
    return malformed('not a map')
  }
}

export function readListItems (raw: Uint8Array): { items: TValue[], flags: number } {
  if (raw.length === 0) return { items: [], flags: 0 }
  const reader = new MsgpackReader(raw)
  return reader.listItems(reader.listHeader(), 0)
}

export function readMapEntries (raw: Uint8Array): { entries: Map<unknown, MapEntry>, flags: number } {
  if (raw.length === 0) return { entries: new Map(), flags: 0 }
  const reader = new MsgpackReader(raw)
  return reader.mapEntries(reader.mapHeader(), 0)
}

function writeInteger (writer: ByteWriter, value: LuaInteger): void {
  if (typeof value === 'bigint') {
    writer.u8(value > 0n ? 0xcf : 0xd3)
    writer.i64be(value)
  } else if (value >= 0) {
    if (value < 0x80) writer.u8(value)
    else if (value < 0x100) {
      writer.u8(0xcc)
      writer.u8(value)
    } else if (value < 0x10000) {
      writer.u8(0xcd)
      writer.u16be(value)
    } else if (value < 0x100000000) {
      writer.u8(0xce)
      writer.u32be(value)
    } else {
      writer.u8(0xcf)
      writer.i64be(value)
    }
  } else if (value >= -32) writer.u8(value + 256)
  else if (value >= -0x80) {
    writer.u8(0xd0)
    writer.u8(value + 256)
  } else if (value >= -0x8000) {
    writer.u8(0xd1)
    writer.u16be(value + 0x10000)
  } else if (value >= -0x80000000) {
    writer.u8(0xd2)
    writer.u32be(value + 0x100000000)
  } else {
    writer.u8(0xd3)
    writer.i64be(value)
  }
}

function writeText (writer: ByteWriter, type: number, content: Uint8Array): void {
  const length = content.length + 1
  if (length < 32) writer.u8(0xa0 | length)
  else if (length < 0x100) {
    writer.u8(0xd9)
    writer.u8(length)
  } else if (length < 0x10000) {
    writer.u8(0xda)
    writer.u16be(length)
  } else {
    writer.u8(0xdb)
    writer.u32be(length)
  }
  writer.u8(type)
  writer.raw(content)
}

export function writeValue (writer: ByteWriter, value: TValue, depth: number): void {
  spend(1)
  switch (value.type) {
    case NIL: writer.u8(0xc0); return
    case BOOLEAN: writer.u8(value.value === true ? 0xc3 : 0xc2); return
    case INTEGER: writeInteger(writer, value.value); return
    case FLOAT:
      writer.u8(0xcb)
      writer.f64be(value.value)
      return
    case STRING: writeText(writer, ParticleType.STRING, value.value.realstring); return
    case USERDATA: {
      const object: unknown = value.value
      if (object instanceof LuaList || object instanceof LuaMap) {
        object.write(writer, depth)
        return
      }
      if (object instanceof LuaBytes) {
        writeText(writer, object.particleType, object.content)
        return
      }
      if (object instanceof LuaGeoJson) {
        writeText(writer, ParticleType.GEOJSON, object.json)
        return
      }
      if (object instanceof LuaOpaque && object.particleType === 0) {
        writer.raw(object.raw)
        return
      }
    }
  }
  throw new ValueError(storageProblem(value) ?? `a ${typeName(value)} cannot be an element`)
}

function writeListHeader (writer: ByteWriter, count: number): void {
  if (count < 16) writer.u8(0x90 | count)
  else if (count < 0x10000) {
    writer.u8(0xdc)
    writer.u16be(count)
  } else {
    writer.u8(0xdd)
    writer.u32be(count)
  }
}

function writeMapHeader (writer: ByteWriter, count: number): void {
  if (count < 16) writer.u8(0x80 | count)
  else if (count < 0x10000) {
    writer.u8(0xde)
    writer.u16be(count)
  } else {
    writer.u8(0xdf)
    writer.u32be(count)
  }
}

function writeFlags (writer: ByteWriter, flags: number): void {
  writer.u8(0xc7)
  writer.u8(0)
  writer.u8(flags)
}

export function writeListItems (writer: ByteWriter, items: readonly TValue[], flags: number, depth: number): void {
  if (depth >= DEPTH_MAX) throw new ValueError(`a list or map nested deeper than ${DEPTH_MAX} (does it contain itself?)`)
  writeListHeader(writer, items.length + (flags === 0 ? 0 : 1))
  if (flags !== 0) writeFlags(writer, flags)
  const sequence = (flags & ORDERED_FLAG) === 0 ? items : [...items].sort(compareValues)
  for (const item of sequence) writeValue(writer, item, depth + 1)
}

export function writeMapEntries (writer: ByteWriter, entries: ReadonlyMap<unknown, MapEntry>, flags: number, depth: number): void {
  if (depth >= DEPTH_MAX) throw new ValueError(`a list or map nested deeper than ${DEPTH_MAX} (does it contain itself?)`)
  writeMapHeader(writer, entries.size + (flags === 0 ? 0 : 1))
  if (flags !== 0) {
    writeFlags(writer, flags)
    writer.u8(0xc0)
  }
  const sequence = (flags & ORDERED_FLAG) === 0
    ? entries.values()
    : [...entries.values()].sort((a, b) => compareValues(a.key, b.key))
  for (const { key, value } of sequence) {
    writeValue(writer, key, depth + 1)
    writeValue(writer, value, depth + 1)
  }
}

/** Position of a value's type in the collation: nil, boolean, integer, string, list, map, blob, double, GeoJSON, ext. */
function rank (value: TValue): number {
  switch (value.type) {
    case NIL: return 0
    case BOOLEAN: return 1
    case INTEGER: return 2
    case STRING: return 3
    case FLOAT: return 7
  }
  const object: unknown = value.value
  return object instanceof LuaList ? 4 : object instanceof LuaMap ? 5 : object instanceof LuaBytes ? 6 : object instanceof LuaGeoJson ? 8 : 9
}

function order<T> (a: T, b: T): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** The collation by which ordered lists and maps are sorted. */
export function compareValues (a: TValue, b: TValue): number {
  spend(1)
  const kind = rank(a)
  if (kind !== rank(b)) return kind - rank(b)
  switch (kind) {
    case 0: return 0
    case 1: case 2: case 7: return order(a.value, b.value)
    case 3: return order(hashString(a.value), hashString(b.value))
    case 4: {
      const x = itemsInOrder(a.value)
      const y = itemsInOrder(b.value)
      for (let i = 0; i < x.length && i < y.length; i++) {
        const result = compareValues(x[i]!, y[i]!)
        if (result !== 0) return result
      }
      return x.length - y.length
    }
    case 5: {
      const x = sortedEntries(a.value)
      const y = sortedEntries(b.value)
      if (x.length !== y.length) return x.length - y.length
      for (let i = 0; i < x.length; i++) {
        const result = compareValues(x[i]!.key, y[i]!.key) || compareValues(x[i]!.value, y[i]!.value)
        if (result !== 0) return result
      }
      return 0
    }
    case 6: return Buffer.compare((a.value as LuaBytes).content, (b.value as LuaBytes).content)
    case 8: return Buffer.compare((a.value as LuaGeoJson).json, (b.value as LuaGeoJson).json)
    default: return Buffer.compare((a.value as LuaOpaque).raw, (b.value as LuaOpaque).raw)
  }
}

/** As they are stored: a script may have put them elsewhere. */
function itemsInOrder (list: LuaList): readonly TValue[] {
  return (list.flags & ORDERED_FLAG) === 0 ? list.items : [...list.items].sort(compareValues)
}

function sortedEntries (map: LuaMap): MapEntry[] {
  return [...map.entries.values()].sort((a, b) => compareValues(a.key, b.key))
}
