// JSON text of a value. It is built by hand since JSON.stringify knows neither exact 64-bit integers nor maps with other keys than strings. The
// mapping (docs/guides/kafka.md states it for users):
//
//   integer   digits, exact over the whole 64 bits        string    JSON string
//   double    shortest digits that read back the same,     bool      true, false
//             with a point (1.0); "NaN", "Infinity",       nil       null
//             "-Infinity" as strings                       list      array
//   blob, HLL base64 string                                map       object
//   GeoJSON   the object itself, or a string when the stored text is no JSON
//
// Map keys that are no strings become the text of their JSON form (1 -> "1", true -> "true", blob -> its base64). If that name is taken in
// the same map (keys "1" and 1), the type goes before it: "int:1".

import { decodeParticle } from '../../src/client/particle.js'
import { Double, Extension, GeoJSON, HyperLogLog, isInteger, OpaqueParticle, RawString, type Value } from '../../src/client/value.js'
import type { WireValue } from '../change.js'

/** Throws ParticleError or MsgpackError for bytes that are not what their type says. */
export function wireJson ({ type, value }: WireValue): string {
  return valueJson(decodeParticle(type, value))
}

export function valueJson (value: Value): string {
  switch (typeof value) {
    case 'boolean':
    case 'bigint': return value.toString()
    case 'number': return isInteger(value) ? value.toString() : doubleJson(value)
    case 'string': return JSON.stringify(value)
    case 'object': break
  }
  if (value === null) return 'null'
  if (value instanceof Double) return doubleJson(value.value)
  if (value instanceof Uint8Array) return base64Json(value)
  if (value instanceof GeoJSON) return geoJson(value.text)
  if (value instanceof HyperLogLog || value instanceof OpaqueParticle || value instanceof RawString) return base64Json(value.bytes)
  if (value instanceof Extension) return base64Json(value.data)
  if (Array.isArray(value)) return `[${value.map(valueJson).join(',')}]`
  if (value instanceof Map) return mapJson(value as ReadonlyMap<Value, Value>)
  return `{${Object.entries(value).map(([name, member]) => `${JSON.stringify(name)}:${valueJson(member as Value)}`).join(',')}}`
}

export function base64Json (bytes: Uint8Array): string {
  return `"${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64')}"`
}

function mapJson (map: ReadonlyMap<Value, Value>): string {
  const names = new Set<string>()
  const members: string[] = []
  for (const [key, value] of map) {
    const json = valueJson(key)
    let name = json.startsWith('"') ? json : JSON.stringify(json)
    while (names.has(name)) name = `"${keyTypeName(key)}:${name.slice(1)}`
    names.add(name)
    members.push(`${name}:${valueJson(value)}`)
  }
  return `{${members.join(',')}}`
}

function doubleJson (value: number): string {
  if (!Number.isFinite(value)) return `"${value}"`
  if (Object.is(value, -0)) return '-0.0'
  const text = value.toString()
  return /[.e]/.test(text) ? text : `${text}.0`
}

function geoJson (text: string): string {
  try {
    JSON.parse(text)
  } catch {
    return JSON.stringify(text)
  }
  // Between tokens a line break means nothing; inside a JSON string it cannot stand.
  return text.replace(/[\r\n]+/g, ' ').trim()
}

function keyTypeName (key: Value): string {
  switch (typeof key) {
    case 'bigint': return 'int'
    case 'number': return isInteger(key) ? 'int' : 'float'
    case 'boolean': return 'bool'
    case 'string': return 'str'
    default: break
  }
  if (key === null) return 'nil'
  if (key instanceof Double) return 'float'
  if (key instanceof Uint8Array) return 'blob'
  return Array.isArray(key) ? 'list' : 'map'
}
