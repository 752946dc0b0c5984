// A bin's value on the wire (PROTOCOL 5.1): a particle type and its bytes.

import { ParticleType } from '../engine/constants.js'
import { decodeMsgpack, encodeMsgpack } from './msgpack.js'
import { Double, GeoJSON, HyperLogLog, INT64_MAX, INT64_MIN, OpaqueParticle, fromBigInt, fromDouble, isInteger, type Value } from './value.js'

export interface Particle {
  readonly type: number
  readonly bytes: Buffer
}

/** Flags and cell count of a GeoJSON particle: u8, u16. The server computes cells itself, so none are sent. */
const GEOJSON_HEAD_BYTES = 3
const GEOJSON_CELL_BYTES = 8
const EMPTY = Buffer.alloc(0)

/** A particle whose bytes do not fit its type. */
export class ParticleError extends Error {
  readonly code = 'PARTICLE'
}

export function encodeParticle (value: Value): Particle {
  switch (typeof value) {
    case 'boolean': return { type: ParticleType.BOOL, bytes: Buffer.of(value ? 1 : 0) }
    case 'number': return isInteger(value) ? integer(BigInt(value)) : double(value)
    case 'bigint': return integer(value)
    case 'string': return { type: ParticleType.STRING, bytes: Buffer.from(value) }
    case 'object': break
    default: throw new TypeError(`a bin cannot hold a value of type ${typeof value}`)
  }
  if (value === null) return { type: ParticleType.NULL, bytes: EMPTY }
  if (value instanceof Uint8Array) return { type: ParticleType.BLOB, bytes: Buffer.from(value.buffer, value.byteOffset, value.byteLength) }
  if (value instanceof Double) return double(value.value)
  if (value instanceof GeoJSON) {
    return { type: ParticleType.GEOJSON, bytes: Buffer.concat([Buffer.alloc(GEOJSON_HEAD_BYTES), Buffer.from(value.text)]) }
  }
  if (value instanceof HyperLogLog) return { type: ParticleType.HLL, bytes: value.bytes }
  if (value instanceof OpaqueParticle) return value
  return { type: Array.isArray(value) ? ParticleType.LIST : ParticleType.MAP, bytes: encodeMsgpack(value) }
}

/** Bytes of the result are views of `bytes`. Throws {@link ParticleError} or MsgpackError. */
export function decodeParticle (type: number, bytes: Buffer): Value {
  switch (type) {
    case ParticleType.NULL: return null
    case ParticleType.INTEGER: return fromBigInt(sized(type, bytes, 8).readBigInt64BE())
    case ParticleType.FLOAT: return fromDouble(sized(type, bytes, 8).readDoubleBE())
    case ParticleType.STRING: return bytes.toString('utf8')
    case ParticleType.BLOB:
    case ParticleType.JAVA_BLOB:
    case ParticleType.CSHARP_BLOB:
    case ParticleType.PYTHON_BLOB:
    case ParticleType.RUBY_BLOB:
    case ParticleType.PHP_BLOB:
    case ParticleType.ERLANG_BLOB: return bytes
    case ParticleType.BOOL: return sized(type, bytes, 1)[0] !== 0
    case ParticleType.HLL: return new HyperLogLog(bytes)
    case ParticleType.MAP:
    case ParticleType.LIST: return decodeMsgpack(bytes)
    case ParticleType.GEOJSON: {
      const text = bytes.length < GEOJSON_HEAD_BYTES ? Infinity : GEOJSON_HEAD_BYTES + GEOJSON_CELL_BYTES * bytes.readUInt16BE(1)
      if (text > bytes.length) throw new ParticleError(`GeoJSON cut at ${bytes.length} bytes`)
      return new GeoJSON(bytes.toString('utf8', text))
    }
    default: return new OpaqueParticle(type, bytes)
  }
}

function integer (value: bigint): Particle {
  if (value < INT64_MIN || value > INT64_MAX) throw new RangeError(`${value} does not fit into a signed 64-bit integer`)
  const bytes = Buffer.allocUnsafe(8)
  bytes.writeBigInt64BE(value)
  return { type: ParticleType.INTEGER, bytes }
}

function double (value: number): Particle {
  const bytes = Buffer.allocUnsafe(8)
  bytes.writeDoubleBE(value)
  return { type: ParticleType.FLOAT, bytes }
}

function sized (type: number, bytes: Buffer, expected: number): Buffer {
  if (bytes.length !== expected) throw new ParticleError(`particle of type ${type} has ${bytes.length} bytes, not ${expected}`)
  return bytes
}
