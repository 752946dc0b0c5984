// Bin values as the wire carries them (section "Particle types" of the protocol), to Lua values and back.

import type { TValue } from './fengari.js'
import { objectValue } from './host-object.js'
import { BOOLEAN, FLOAT, INTEGER, luaString, NIL, STRING, USERDATA, Value } from './lua.js'
import { readInt64 } from './lua-integer.js'
import { LuaBytes, LuaGeoJson, LuaList, LuaMap, LuaOpaque, storageProblem, ValueError } from './values.js'
import type { ByteWriter } from './byte-writer.js'
import { ParticleType } from '../src/engine/constants.js'

/** GeoJSON particle: u8 flags, u16 cell count, u64 a cell, JSON. */
const GEO_HEADER_BYTES = 3
const GEO_CELL_BYTES = 8

function isBlob (type: number): boolean {
  return type === ParticleType.BLOB || type === ParticleType.HLL || (type >= ParticleType.JAVA_BLOB && type <= ParticleType.ERLANG_BLOB)
}

/** Decodes a particle. What outlives the buffer is copied; lists and maps are decoded when looked into. */
export function decodeParticle (type: number, bytes: Uint8Array, view: DataView, at: number, length: number): TValue {
  switch (type) {
    case ParticleType.NULL: return new Value(NIL, null)
    case ParticleType.INTEGER:
      if (length !== 8) throw new ValueError(`an integer of ${length} bytes`)
      return new Value(INTEGER, readInt64(view, at))
    case ParticleType.FLOAT:
      if (length !== 8) throw new ValueError(`a double of ${length} bytes`)
      return new Value(FLOAT, view.getFloat64(at))
    case ParticleType.BOOL: return new Value(BOOLEAN, length > 0 && bytes[at] !== 0)
  }
  const content = bytes.slice(at, at + length)
  switch (type) {
    case ParticleType.STRING: return new Value(STRING, luaString(content))
    case ParticleType.LIST: return objectValue(LuaList.fromBytes(content))
    case ParticleType.MAP: return objectValue(LuaMap.fromBytes(content))
    case ParticleType.GEOJSON: {
      const cells = length >= GEO_HEADER_BYTES ? (content[1]! << 8) | content[2]! : 0
      const start = GEO_HEADER_BYTES + cells * GEO_CELL_BYTES
      if (start > length) throw new ValueError('truncated GeoJSON')
      return objectValue(new LuaGeoJson(content.subarray(start), content))
    }
    default:
      return objectValue(isBlob(type) ? new LuaBytes(content, length, type) : new LuaOpaque(type, content))
  }
}

/** Appends the particle's bytes and returns its type. */
export function encodeParticle (writer: ByteWriter, value: TValue): number {
  switch (value.type) {
    case NIL: return ParticleType.NULL
    case BOOLEAN:
      writer.u8(value.value === true ? 1 : 0)
      return ParticleType.BOOL
    case INTEGER:
      writer.i64be(value.value)
      return ParticleType.INTEGER
    case FLOAT:
      writer.f64be(value.value)
      return ParticleType.FLOAT
    case STRING:
      writer.raw(value.value.realstring)
      return ParticleType.STRING
    case USERDATA: {
      const object: unknown = value.value
      if (object instanceof LuaList) {
        object.write(writer, 0)
        return ParticleType.LIST
      }
      if (object instanceof LuaMap) {
        object.write(writer, 0)
        return ParticleType.MAP
      }
      if (object instanceof LuaBytes) {
        writer.raw(object.content)
        return object.particleType
      }
      if (object instanceof LuaGeoJson) {
        if (object.particle !== null) writer.raw(object.particle)
        else {
          for (let i = 0; i < GEO_HEADER_BYTES; i++) writer.u8(0)
          writer.raw(object.json)
        }
        return ParticleType.GEOJSON
      }
      if (object instanceof LuaOpaque) {
        if (object.particleType === 0) throw new ValueError('a list element of this kind cannot be a bin')
        writer.raw(object.raw)
        return object.particleType
      }
    }
  }
  throw new ValueError(storageProblem(value) ?? 'a value that cannot be stored')
}
