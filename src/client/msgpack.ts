// MessagePack as it is used inside values (PROTOCOL 12):
//
//   value  = nil | bool | integer (shortest form) | double (cb) | text | list | map | extension
//   text   = str header of length + 1, particle type byte (3 string, 4 blob, 0x17 GeoJSON, 0x12 HyperLogLog), bytes
//   list   = array header, [order: ext c7 00 flags], value*
//   map    = map header, [order: ext c7 00 flags, nil], (value value)*
//
// Orders are dropped on reading. On writing a list has none and a map is key-ordered with its keys sorted, as official clients send it.

import { Limit, ParticleType } from '../engine/constants.js'
import { collate, entriesOf } from './collation.js'
import {
  Double, Extension, GeoJSON, HyperLogLog, INFINITY, INT64_MIN, OpaqueParticle, RawString, UINT64_MAX, WILDCARD, fromBigInt, fromDouble, isInteger,
  isPlainObject, setOwn, type Value
} from './value.js'

const MAP_KEY_ORDERED = 1
const SENTINEL_TYPE = 0xff

/** Bytes that are no value in this dialect. */
export class MsgpackError extends Error {
  readonly code = 'MSGPACK'
}

export function encodeMsgpack (value: Value): Buffer {
  const writer = new Writer()
  writer.value(value, 0)
  return writer.take()
}

/** Decodes exactly one value. Throws {@link MsgpackError}. */
export function decodeMsgpack (bytes: Buffer): Value {
  const reader = new Reader(bytes)
  const value = reader.value(0)
  reader.end()
  return value
}

class Writer {
  #bytes = Buffer.allocUnsafe(256)
  #length = 0

  take (): Buffer {
    return this.#bytes.subarray(0, this.#length)
  }

  value (value: Value, depth: number): void {
    // A cycle ends here too.
    if (depth > Limit.MSGPACK_DEPTH_MAX) throw new RangeError(`a value is nested deeper than ${Limit.MSGPACK_DEPTH_MAX}`)
    switch (typeof value) {
      case 'boolean': return this.#byte(value ? 0xc3 : 0xc2)
      case 'number': return isInteger(value) ? this.#integer(value) : this.#double(value)
      case 'bigint': return this.#bigint(value)
      case 'string': return this.#string(ParticleType.STRING, Buffer.from(value))
      case 'object': break
      default: throw new TypeError(`a value cannot be of type ${typeof value}`)
    }
    if (value === null) return this.#byte(0xc0)
    if (value instanceof Uint8Array) return this.#string(ParticleType.BLOB, value)
    if (Array.isArray(value)) return this.#list(value as readonly Value[], depth)
    if (value instanceof Map) return this.#map(value, depth)
    if (value instanceof Double) return this.#double(value.value)
    if (value instanceof GeoJSON) return this.#string(ParticleType.GEOJSON, Buffer.from(value.text))
    if (value instanceof HyperLogLog) return this.#string(ParticleType.HLL, value.bytes)
    if (value instanceof RawString) return this.#string(undefined, value.bytes)
    if (value instanceof Extension) return this.#extension(value.type, value.data)
    if (value instanceof OpaqueParticle) throw new TypeError(`a particle of type ${value.type} cannot be inside a list or map`)
    if (isPlainObject(value)) return this.#map(value, depth)
    throw new TypeError(`a value cannot be a ${(value as object).constructor.name}`)
  }

  #list (list: readonly Value[], depth: number): void {
    this.#count(list.length, 0x90, 0xdc)
    // A sparse array's holes read as undefined and are refused like it.
    for (let i = 0; i < list.length; i++) this.value(list[i]!, depth + 1)
  }

  #map (map: Value, depth: number): void {
    const entries = entriesOf(map)
    entries.forEach(([key], i) => {
      if (i > 0 && collate(entries[i - 1]![0], key) === 0) throw new TypeError(`a map has the key ${String(key)} twice`)
    })
    this.#count(entries.length + 1, 0x80, 0xde)
    this.#extension(MAP_KEY_ORDERED, Buffer.alloc(0))
    this.#byte(0xc0)
    for (const [key, value] of entries) {
      this.value(key, depth + 1)
      this.value(value, depth + 1)
    }
  }

  #integer (value: number): void {
    if (value >= 0) {
      if (value < 0x80) this.#byte(value)
      else if (value <= 0xff) this.#sized(0xcc, 1, value)
      else if (value <= 0xffff) this.#sized(0xcd, 2, value)
      else if (value <= 0xffff_ffff) this.#sized(0xce, 4, value)
      else this.#bigint(BigInt(value))
    } else if (value >= -32) this.#byte(0x100 + value)
    else if (value >= -0x80) this.#sized(0xd0, 1, 0x100 + value)
    else if (value >= -0x8000) this.#sized(0xd1, 2, 0x1_0000 + value)
    else if (value >= -0x8000_0000) this.#sized(0xd2, 4, 0x1_0000_0000 + value)
    else this.#bigint(BigInt(value))
  }

  #bigint (value: bigint): void {
    if (value < INT64_MIN || value > UINT64_MAX) throw new RangeError(`${value} does not fit into 64 bits`)
    if (value >= -0x8000_0000n && value <= 0xffff_ffffn) return this.#integer(Number(value))
    const at = this.#grow(9)
    this.#bytes[at] = value < 0n ? 0xd3 : 0xcf
    if (value < 0n) this.#bytes.writeBigInt64BE(value, at + 1)
    else this.#bytes.writeBigUInt64BE(value, at + 1)
  }

  #double (value: number): void {
    const at = this.#grow(9)
    this.#bytes[at] = 0xcb
    this.#bytes.writeDoubleBE(value, at + 1)
  }

  #string (type: number | undefined, bytes: Uint8Array): void {
    const length = bytes.length + (type === undefined ? 0 : 1)
    if (length < 32) this.#byte(0xa0 | length)
    else if (length <= 0xff) this.#sized(0xd9, 1, length)
    else if (length <= 0xffff) this.#sized(0xda, 2, length)
    else this.#sized(0xdb, 4, length)
    if (type !== undefined) this.#byte(type)
    this.#raw(bytes)
  }

  #extension (type: number, data: Buffer): void {
    const fixed = [1, 2, 4, 8, 16].indexOf(data.length)
    if (fixed >= 0) this.#byte(0xd4 + fixed)
    else if (data.length <= 0xff) this.#sized(0xc7, 1, data.length)
    else if (data.length <= 0xffff) this.#sized(0xc8, 2, data.length)
    else this.#sized(0xc9, 4, data.length)
    this.#byte(type)
    this.#raw(data)
  }

  /** `fixed` for fewer than 16, else `wide` with 16 bits, `wide + 1` with 32. */
  #count (count: number, fixed: number, wide: number): void {
    if (count < 16) this.#byte(fixed | count)
    else if (count <= 0xffff) this.#sized(wide, 2, count)
    else this.#sized(wide + 1, 4, count)
  }

  #byte (byte: number): void {
    const at = this.#grow(1)
    this.#bytes[at] = byte
  }

  #sized (head: number, width: 1 | 2 | 4, value: number): void {
    const at = this.#grow(1 + width)
    this.#bytes[at] = head
    this.#bytes.writeUIntBE(value, at + 1, width)
  }

  #raw (bytes: Uint8Array): void {
    const at = this.#grow(bytes.length)
    this.#bytes.set(bytes, at)
  }

  #grow (bytes: number): number {
    const at = this.#length
    this.#length += bytes
    if (this.#length > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.#length, this.#bytes.length * 2))
      this.#bytes.copy(larger, 0, 0, at)
      this.#bytes = larger
    }
    return at
  }
}

class Reader {
  readonly #bytes: Buffer
  #at = 0

  constructor (bytes: Buffer) {
    this.#bytes = bytes
  }

  end (): void {
    if (this.#at !== this.#bytes.length) throw new MsgpackError(`${this.#bytes.length - this.#at} bytes after the value`)
  }

  value (depth: number): Value {
    if (depth > Limit.MSGPACK_DEPTH_MAX) throw new MsgpackError(`nested deeper than ${Limit.MSGPACK_DEPTH_MAX}`)
    const head = this.#unsigned(1)
    if (head < 0x80) return head
    if (head < 0x90) return this.#map(head & 0x0f, depth)
    if (head < 0xa0) return this.#list(head & 0x0f, depth)
    if (head < 0xc0) return this.#text(head & 0x1f)
    if (head >= 0xe0) return head - 0x100
    switch (head) {
      case 0xc0: return null
      case 0xc2: return false
      case 0xc3: return true
      case 0xc4: case 0xd9: return this.#text(this.#unsigned(1))
      case 0xc5: case 0xda: return this.#text(this.#unsigned(2))
      case 0xc6: case 0xdb: return this.#text(this.#unsigned(4))
      case 0xc7: return this.#extension(this.#unsigned(1))
      case 0xc8: return this.#extension(this.#unsigned(2))
      case 0xc9: return this.#extension(this.#unsigned(4))
      case 0xca: return fromDouble(this.#take(4).readFloatBE())
      case 0xcb: return fromDouble(this.#take(8).readDoubleBE())
      case 0xcc: return this.#unsigned(1)
      case 0xcd: return this.#unsigned(2)
      case 0xce: return this.#unsigned(4)
      case 0xcf: return fromBigInt(this.#take(8).readBigUInt64BE())
      case 0xd0: return this.#take(1).readInt8()
      case 0xd1: return this.#take(2).readInt16BE()
      case 0xd2: return this.#take(4).readInt32BE()
      case 0xd3: return fromBigInt(this.#take(8).readBigInt64BE())
      case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8: return this.#extension(1 << (head - 0xd4))
      case 0xdc: return this.#list(this.#unsigned(2), depth)
      case 0xdd: return this.#list(this.#unsigned(4), depth)
      case 0xde: return this.#map(this.#unsigned(2), depth)
      case 0xdf: return this.#map(this.#unsigned(4), depth)
      default: throw new MsgpackError(`0x${head.toString(16)} begins no value`)
    }
  }

  #list (count: number, depth: number): Value[] {
    this.#enough(count, 1)
    const list: Value[] = []
    for (let i = 0; i < count; i++) {
      const value = this.value(depth + 1)
      if (i > 0 || !isOrder(value)) list.push(value)
    }
    return list
  }

  #map (count: number, depth: number): Value {
    this.#enough(count, 2)
    const entries: Array<[Value, Value]> = []
    let textual = true
    for (let i = 0; i < count; i++) {
      const key = this.value(depth + 1)
      const value = this.value(depth + 1)
      if (i === 0 && isOrder(key)) continue
      textual &&= typeof key === 'string'
      entries.push([key, value])
    }
    if (!textual) return new Map(entries)
    const object: Record<string, Value> = {}
    for (const [key, value] of entries) setOwn(object, key as string, value)
    return object
  }

  #text (length: number): Value {
    const bytes = this.#take(length)
    const content = bytes.subarray(1)
    switch (bytes[0]) {
      case ParticleType.STRING: return content.toString('utf8')
      case ParticleType.BLOB:
      case ParticleType.JAVA_BLOB:
      case ParticleType.CSHARP_BLOB:
      case ParticleType.PYTHON_BLOB:
      case ParticleType.RUBY_BLOB:
      case ParticleType.PHP_BLOB:
      case ParticleType.ERLANG_BLOB: return content
      case ParticleType.HLL: return new HyperLogLog(content)
      case ParticleType.GEOJSON: return new GeoJSON(content.toString('utf8'))
      default: return new RawString(bytes)
    }
  }

  #extension (length: number): Extension {
    const type = this.#unsigned(1)
    const data = this.#take(length)
    if (type === SENTINEL_TYPE && length === 1) {
      if (data[0] === 0) return WILDCARD
      if (data[0] === 1) return INFINITY
    }
    return new Extension(type, data)
  }

  /** A count that comes from outside is checked before anything is sized by it. */
  #enough (count: number, bytesEach: number): void {
    if (count * bytesEach > this.#bytes.length - this.#at) throw new MsgpackError(`${count} elements in ${this.#bytes.length - this.#at} bytes`)
  }

  #unsigned (width: 1 | 2 | 4): number {
    return this.#take(width).readUIntBE(0, width)
  }

  #take (bytes: number): Buffer {
    const end = this.#at + bytes
    if (end > this.#bytes.length) throw new MsgpackError(`cut at ${this.#bytes.length}, ${end} needed`)
    const taken = this.#bytes.subarray(this.#at, end)
    this.#at = end
    return taken
  }
}

function isOrder (value: Value): boolean {
  return value instanceof Extension && value.type !== SENTINEL_TYPE
}
