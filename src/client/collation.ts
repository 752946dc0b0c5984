// The order of values: by type (nil, boolean, integer, string, list, map, blob, double, GeoJSON, the rest), then by value. Ordered maps are sent in the
// order of their keys.

import { Double, GeoJSON, isInteger, isPlainObject, type Value } from './value.js'

const Rank = { NIL: 0, BOOLEAN: 1, INTEGER: 2, STRING: 3, LIST: 4, MAP: 5, BLOB: 6, DOUBLE: 7, GEOJSON: 8, OTHER: 9 } as const

function rankOf (value: Value): number {
  switch (typeof value) {
    case 'boolean': return Rank.BOOLEAN
    case 'bigint': return Rank.INTEGER
    case 'number': return isInteger(value) ? Rank.INTEGER : Rank.DOUBLE
    case 'string': return Rank.STRING
    default:
  }
  if (value === null) return Rank.NIL
  if (value instanceof Uint8Array) return Rank.BLOB
  if (Array.isArray(value)) return Rank.LIST
  if (value instanceof Double) return Rank.DOUBLE
  if (value instanceof GeoJSON) return Rank.GEOJSON
  if (value instanceof Map || isPlainObject(value)) return Rank.MAP
  return Rank.OTHER
}

/** Negative, zero or positive, as `a` sorts before, with or after `b`. */
export function collate (a: Value, b: Value): number {
  const rank = rankOf(a)
  const difference = rank - rankOf(b)
  if (difference !== 0) return difference
  switch (rank) {
    case Rank.BOOLEAN: return Number(a) - Number(b)
    case Rank.INTEGER: return ascending(a as bigint, b as bigint)
    case Rank.DOUBLE: return ascending(Number(a), Number(b))
    case Rank.STRING: return Buffer.compare(Buffer.from(a as string), Buffer.from(b as string))
    case Rank.BLOB: return Buffer.compare(a as Uint8Array, b as Uint8Array)
    case Rank.GEOJSON: return Buffer.compare(Buffer.from((a as GeoJSON).text), Buffer.from((b as GeoJSON).text))
    case Rank.LIST: return collateLists(a as readonly Value[], b as readonly Value[])
    case Rank.MAP: {
      const [left, right] = [entriesOf(a), entriesOf(b)]
      return left.length - right.length || collateLists(left.flat(), right.flat())
    }
    default: return 0
  }
}

function collateLists (a: readonly Value[], b: readonly Value[]): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const order = collate(a[i]!, b[i]!)
    if (order !== 0) return order
  }
  return a.length - b.length
}

// Mixed numbers and bigints compare by value.
function ascending (a: number | bigint, b: number | bigint): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** The entries of a map, by key. */
export function entriesOf (map: Value): Array<[Value, Value]> {
  const entries = map instanceof Map ? [...map] as Array<[Value, Value]> : Object.entries(map as Record<string, Value>)
  return entries.sort(([a], [b]) => collate(a, b))
}
