// A path into a bin: as it is typed, and as info commands carry it, base64 of the msgpack list of its steps (type, value, type, value, ...).

import { MsgpackError, decodeMsgpack, encodeMsgpack } from '../client/msgpack.js'
import { UsageError } from './io.js'
import { parseValue, toJson } from './values.js'

/** By the types of PROTOCOL section 13. */
const STEPS: ReadonlyMap<string, number> = new Map([
  ['list-index', 0x10], ['list-rank', 0x11], ['list-value', 0x13], ['map-index', 0x20], ['map-rank', 0x21], ['map-key', 0x22], ['map-value', 0x23]
])

const POSITION = /-(?:index|rank)$/

/** Base64 of the path of `map-key=address`, `list-index=0` and the like. Throws {@link UsageError}. */
export function encodeContext (steps: readonly string[]): string {
  return encodeMsgpack(steps.flatMap((step) => {
    const equals = step.indexOf('=')
    const name = step.slice(0, Math.max(0, equals))
    const type = STEPS.get(name)
    if (type === undefined) throw new UsageError(`${JSON.stringify(step)} is not a step of a context; allowed: ${[...STEPS.keys()].join(', ')}, each with = and a value`)
    const value = parseValue(step.slice(equals + 1))
    if (POSITION.test(name) && typeof value !== 'number') throw new UsageError(`${JSON.stringify(step)}: ${name} takes an integer`)
    return [type, value]
  })).toString('base64')
}

/** The steps of a path as they are typed; what is no path of such steps stays base64. */
export function contextText (base64: string): string {
  const names = new Map([...STEPS].map(([name, type]) => [type, name]))
  let path: unknown
  try {
    path = decodeMsgpack(Buffer.from(base64, 'base64'))
  } catch (error) {
    if (!(error instanceof MsgpackError)) throw error
  }
  if (!Array.isArray(path) || path.length % 2 !== 0) return base64
  const steps = Array.from({ length: path.length / 2 }, (_, i) => ({ name: names.get(path[2 * i]), value: path[2 * i + 1] }))
  return steps.every(({ name }) => name !== undefined) ? steps.map(({ name, value }) => `${name}=${toJson(value)}`).join(' ') : base64
}
