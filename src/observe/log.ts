// The log: lines of JSON for machines, or one readable line an event for people. It goes to stderr, since stdout belongs to results.

import pino, { type DestinationStream, type Logger, type LoggerOptions } from 'pino'
import type { LogFormat, LogLevel } from '../../config/schema.js'

export type { Logger } from 'pino'

export interface LogOptions {
  readonly level: LogLevel
  readonly format: LogFormat
}

/** Where lines go; `isTTY` decides what `auto` means and whether there are colours. */
export interface LogStream {
  readonly isTTY?: boolean
  write (text: string): unknown
}

/** Whether text for `stream` may carry colours (https://no-color.org). */
export function isColourful (stream: { readonly isTTY?: boolean }, env: NodeJS.ProcessEnv = process.env): boolean {
  return stream.isTTY === true && (env['NO_COLOR'] ?? '') === '' && env['TERM'] !== 'dumb'
}

export function createLogger ({ level, format }: LogOptions, stream: LogStream = process.stderr): Logger {
  const pretty = format === 'pretty' || (format === 'auto' && stream.isTTY === true)
  const options: LoggerOptions = {
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    serializers: { err: pino.stdSerializers.err }
  }
  if (pretty) return pino(options, prettyStream(stream))
  // Written at once: the last lines before a crash are the ones that matter.
  return stream === process.stderr ? pino(options, pino.destination({ fd: 2, sync: true })) : pino(options, stream as DestinationStream)
}

/** A logger whose lines say which part of the node speaks. */
export function contextLogger (log: Logger, context: string): Logger {
  return log.child({ context })
}

const COLOURS: Record<string, string> = { trace: '90', debug: '90', info: '32', warn: '33', error: '31', fatal: '41' }
const LEVEL_WIDTH = 5
const TIME_BEGIN = 'yyyy-mm-ddT'.length
const TIME_END = TIME_BEGIN + 'hh:mm:ss.sss'.length

interface Line {
  level: string
  time: string
  msg?: string
  context?: string
  err?: { message?: string, stack?: string }
  [field: string]: unknown
}

function prettyStream (stream: LogStream): DestinationStream {
  const colours = isColourful(stream)
  return { write: (json: string) => { stream.write(formatLine(JSON.parse(json) as Line, colours)) } }
}

/** `12:34:56.789 INFO  xdr: message key=value`, and the stack below an error. */
export function formatLine ({ level, time, msg, context, err, ...fields }: Line, colours: boolean): string {
  const paint = (code: string, text: string) => colours ? `\u001b[${code}m${text}\u001b[0m` : text
  const parts = [paint('90', time.slice(TIME_BEGIN, TIME_END)), paint(COLOURS[level] ?? '0', level.toUpperCase().padEnd(LEVEL_WIDTH))]
  const said = [context, msg].filter((part) => part !== undefined && part !== '').join(': ')
  if (said !== '') parts.push(said)
  for (const [name, value] of Object.entries(fields)) parts.push(paint('90', `${name}=`) + show(value))
  const severe = level === 'error' || level === 'fatal'
  if (err !== undefined && !severe) parts.push(paint('90', 'err=') + show(err.message))
  const stack = err !== undefined && severe ? `\n${err.stack ?? err.message ?? ''}` : ''
  return `${parts.join(' ')}${stack}\n`
}

function show (value: unknown): string {
  if (typeof value === 'string') return /[\s"=]/.test(value) || value === '' ? JSON.stringify(value) : value
  return JSON.stringify(value) ?? String(value)
}
