// Values on the command line: what is typed becomes a value, a value becomes JSON.

import type { UserKey } from '../client/digest.js'
import { Double, GeoJSON, HyperLogLog, OpaqueParticle, fromBigInt, type Bins, type Value } from '../client/value.js'
import { UsageError } from './io.js'

const INTEGER = /^-?(?:0|[1-9]\d*)$/
const DECIMAL = /^-?\d+\.\d+(?:[eE][+-]?\d+)?$/

/** JSON where the text is JSON, otherwise the text itself: `36`, `1.0`, `true`, `[1,2]`, `{"a":1}`, `null`, `Ada`. */
export function parseValue (text: string): Value {
  if (INTEGER.test(text)) return fromBigInt(BigInt(text))
  // 1.0 is a double, though JSON sees no difference.
  if (DECIMAL.test(text)) return new Double(Number(text))
  try {
    return JSON.parse(text) as Value
  } catch {
    return text
  }
}

/** `name=value` arguments as bins. Throws {@link UsageError}. */
export function parseBins (args: readonly string[]): Bins {
  const bins: Record<string, Value> = {}
  for (const arg of args) {
    const equals = arg.indexOf('=')
    if (equals < 1) throw new UsageError(`${JSON.stringify(arg)} is not a bin; write name=value`)
    bins[arg.slice(0, equals)] = parseValue(arg.slice(equals + 1))
  }
  return bins
}

export const KEY_TYPES = ['auto', 'integer', 'string', 'bytes', 'digest'] as const
export type KeyType = (typeof KEY_TYPES)[number]

/** The key that `text` stands for; bytes and digests are written in hexadecimal. Throws {@link UsageError}. */
export function parseKey (text: string, type: KeyType): { key: UserKey } | { digest: Buffer } {
  switch (type) {
    case 'string': return { key: text }
    case 'auto': return { key: INTEGER.test(text) ? fromBigInt(BigInt(text)) : text }
    case 'integer':
      if (!INTEGER.test(text)) throw new UsageError(`${JSON.stringify(text)} is not an integer key`)
      return { key: fromBigInt(BigInt(text)) }
    case 'bytes': return { key: hexadecimal(text) }
    case 'digest': {
      const digest = hexadecimal(text)
      if (digest.length !== 20) throw new UsageError(`a digest has 40 hexadecimal digits, not ${text.length}`)
      return { digest }
    }
  }
}

function hexadecimal (text: string): Buffer {
  if (!/^(?:[0-9a-f]{2})*$/i.test(text)) throw new UsageError(`${JSON.stringify(text)} is not hexadecimal`)
  return Buffer.from(text, 'hex')
}

/** A value as JSON text. Integers beyond 2^53 keep every digit, bytes are base64, a map whose keys are not texts is a list of pairs. */
export function toJson (value: Value): string {
  switch (typeof value) {
    case 'bigint': return String(value)
    case 'number': return Number.isFinite(value) ? JSON.stringify(value) : 'null'
    case 'boolean': case 'string': return JSON.stringify(value)
    default:
  }
  if (value === null) return 'null'
  if (value instanceof Double) return Number.isInteger(value.value) ? value.value.toFixed(1) : String(value.value)
  if (value instanceof GeoJSON) return value.text
  if (value instanceof Uint8Array) return JSON.stringify(Buffer.from(value).toString('base64'))
  if (value instanceof HyperLogLog || value instanceof OpaqueParticle) return JSON.stringify(value.bytes.toString('base64'))
  if (Array.isArray(value)) return `[${(value as readonly Value[]).map(toJson).join(',')}]`
  if (value instanceof Map) return `[${[...value as Map<Value, Value>].map(([key, entry]) => `[${toJson(key)},${toJson(entry)}]`).join(',')}]`
  return `{${Object.entries(value).map(([key, entry]) => `${JSON.stringify(key)}:${toJson(entry as Value)}`).join(',')}}`
}

export function typeName (value: Value): string {
  if (typeof value === 'number') return Number.isSafeInteger(value) && !Object.is(value, -0) ? 'integer' : 'double'
  if (typeof value === 'bigint') return 'integer'
  if (value === null) return 'nil'
  if (value instanceof Double) return 'double'
  if (value instanceof GeoJSON) return 'geojson'
  if (value instanceof HyperLogLog) return 'hll'
  if (value instanceof Uint8Array) return 'bytes'
  if (Array.isArray(value)) return 'list'
  return typeof value === 'object' ? 'map' : typeof value
}
