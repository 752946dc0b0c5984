// The fields of a query that name an index and a range in it, as raw bytes, apart from src/client for the same reason as wire.ts.
//
// range: u8 count 1, u8 name length, bin name (empty where the index is named otherwise), u8 particle type, u32 length, begin, u32 length, end
import { queryField } from './wire-query.js'

const FIELD_INDEX_NAME = 21
const FIELD_INDEX_RANGE = 22
const FIELD_INDEX_CONTEXT = 23
const FIELD_INDEX_EXPRESSION = 24
const FIELD_INDEX_TYPE = 26
const FIELD_RESUME_VALUES = 15
const FIELD_FILTER = 43

const PARTICLE_INTEGER = 1
const PARTICLE_STRING = 3
const PARTICLE_BLOB = 4
const PARTICLE_GEOJSON = 23

const COLLECTIONS = { default: 0, list: 1, mapkeys: 2, mapvalues: 3 } as const

export interface RawWhere {
  /** Absent where the index is named by its name or its expression. */
  bin?: string
  /** Both ends included. */
  integers?: readonly [low: bigint | number, high: bigint | number]
  string?: string
  blob?: Buffer
  /** GeoJSON text: a region for the points in it, a point for the regions around it. */
  geo?: string
  collection?: keyof typeof COLLECTIONS
  /** Base64. */
  context?: string
  name?: string
  /** Base64. */
  expression?: string
  /** Base64 of a filter expression. */
  filter?: string
}

function ends (where: RawWhere): [particle: number, begin: Buffer, end: Buffer] {
  if (where.integers !== undefined) {
    const [begin, end] = where.integers.map((value) => {
      const bytes = Buffer.alloc(8)
      bytes.writeBigInt64BE(BigInt(value))
      return bytes
    })
    return [PARTICLE_INTEGER, begin!, end!]
  }
  if (where.string !== undefined) return [PARTICLE_STRING, Buffer.from(where.string), Buffer.from(where.string)]
  if (where.blob !== undefined) return [PARTICLE_BLOB, where.blob, where.blob]
  return [PARTICLE_GEOJSON, Buffer.from(where.geo!), Buffer.from(where.geo!)]
}

function counted (bytes: Buffer): Buffer {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([length, bytes])
}

/** The data of the range field. */
export function rangeBytes (where: RawWhere): Buffer {
  const bin = Buffer.from(where.bin ?? '')
  const [particle, begin, end] = ends(where)
  return Buffer.concat([Buffer.of(1, bin.length), bin, Buffer.of(particle), counted(begin), counted(end)])
}

/** The fields for `RawQuery.extra`. */
export function whereFields (where: RawWhere): Buffer[] {
  const { collection, context, name, expression, filter } = where
  return [
    ...collection === undefined ? [] : [queryField(FIELD_INDEX_TYPE, Buffer.of(COLLECTIONS[collection]))],
    queryField(FIELD_INDEX_RANGE, rangeBytes(where)),
    ...context === undefined ? [] : [queryField(FIELD_INDEX_CONTEXT, Buffer.from(context, 'base64'))],
    ...name === undefined ? [] : [queryField(FIELD_INDEX_NAME, Buffer.from(name))],
    ...expression === undefined ? [] : [queryField(FIELD_INDEX_EXPRESSION, Buffer.from(expression, 'base64'))],
    ...filter === undefined ? [] : [queryField(FIELD_FILTER, Buffer.from(filter, 'base64'))]
  ]
}

/** What clients send beside the digests that they resume behind: the value that came with each, which is 1 from this server. */
export function resumeValues (digests: readonly Buffer[]): Buffer[] {
  return digests.length === 0 ? [] : [queryField(FIELD_RESUME_VALUES, Buffer.from(BigUint64Array.from(digests, () => 1n).buffer))]
}
