// Numbers, durations, lists and names as they are typed, and times as they are shown.

import { DURATION_FORM, parseDuration } from '../../../config/units.js'
import { UsageError } from '../io.js'

export function numberOf (option: string, text: string, min: number, max: number): number {
  const value = Number(text)
  if (!/^\d+$/.test(text) || value < min || value > max) throw new UsageError(`${option} ${JSON.stringify(text)}: allowed are ${min} to ${max}`)
  return value
}

/** A time such as 90, 30s or 5m, in milliseconds. */
export function durationOf (option: string, text: string): number {
  const seconds = parseDuration(text, 's')
  if (seconds === undefined) throw new UsageError(`${option} ${JSON.stringify(text)}: allowed are ${DURATION_FORM.s}`)
  return seconds * 1000
}

/** Names separated by commas. */
export function listOf (text: string | undefined): string[] {
  return text === undefined ? [] : [...new Set(text.split(',').filter((name) => name !== ''))]
}

/** A name in an info command, where some characters would end it. */
export function plainName (name: string): string {
  if (name === '' || /[;\n\t]/.test(name)) throw new UsageError(`${JSON.stringify(name)} is not a name that an info command can carry`)
  return name
}

/** A time in a unit that keeps it short. */
export function microsecondsText (us: number): string {
  if (us < 1000) return `${us} us`
  const ms = us / 1000
  return ms < 1000 ? `${ms < 100 ? Number(ms.toFixed(1)) : Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`
}
