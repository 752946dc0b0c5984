import { parseDuration } from '../../../config/units.js'
import { UsageError, type Io } from '../io.js'
import { askInfo, type TargetOptions } from '../target.js'
import { plainName } from './amounts.js'

const NS_PER_MS = 1_000_000n

interface TruncateOptions extends TargetOptions {
  readonly before?: string
  readonly undo?: boolean
}

/** Truncates a set, or without one a namespace, or takes that back. */
export async function truncate (io: Io, namespace: string, set: string | undefined, options: TruncateOptions): Promise<void> {
  if (options.undo === true && options.before !== undefined) throw new UsageError('--undo takes the whole truncation back; it goes without --before')
  const before = options.before === undefined ? undefined : timeOf(options.before)
  const command = `truncate${set === undefined ? '-namespace' : ''}${options.undo === true ? '-undo' : ''}`
  const parameters = [`namespace=${plainName(namespace)}`]
  if (set !== undefined) parameters.push(`set=${plainName(set)}`)
  if (before !== undefined) parameters.push(`lut=${BigInt(before) * NS_PER_MS}`)
  await askInfo(options, `${command}:${parameters.join(';')}`)
  if (options.json === true) {
    io.out(`${JSON.stringify({ namespace, set: set ?? null, before: before === undefined ? null : new Date(before).toISOString(), undo: options.undo === true })}\n`)
    return
  }
  const what = set === undefined ? `namespace ${namespace}` : `set ${set} of namespace ${namespace}`
  io.out(`Successfully ${options.undo === true ? 'triggered undoing truncation' : 'started truncation'} for ${what}\n`)
}

/** Milliseconds since 1970 of a point in time, or of so long ago. */
function timeOf (text: string): number {
  const ago = /^\d+$/.test(text) ? undefined : parseDuration(text, 'ms')
  const time = ago === undefined ? isoTime(text) : Date.now() - ago
  if (time === undefined) throw new UsageError(`${JSON.stringify(text)} is not a time; allowed: 2026-11-21T06:00:00Z, or so long ago, such as 90s or 2h`)
  return time
}

function isoTime (text: string): number | undefined {
  const time = /^\d{4}-\d{2}-\d{2}(?:T.*)?$/.test(text) ? Date.parse(text) : NaN
  return Number.isNaN(time) ? undefined : time
}
