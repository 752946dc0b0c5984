import { randomBytes } from 'node:crypto'
import { setInterval } from 'node:timers/promises'
import type { Client } from '../../client/client.js'
import { parsePairs } from '../../client/info.js'
import type { IndexRange } from '../../client/aggregation.js'
import { UsageError, type Io } from '../io.js'
import { withClient, type TargetOptions } from '../target.js'
import { parseValue, toJson } from '../values.js'
import { numberOf } from './amounts.js'

export interface AggregateOptions extends TargetOptions {
  readonly namespace: string
  readonly set?: string
  readonly where?: string
  readonly timeLimit?: string
  readonly rps?: string
}

const PROGRESS_MS = 1000
const CLEAR_LINE = '\r\u001b[K'

/** Prints each value that the function makes, a line each. */
export async function aggregate (io: Io, call: { module: string, name: string, args: readonly string[] }, options: AggregateOptions): Promise<void> {
  const where = options.where === undefined ? undefined : parseRange(options.where)
  const task = randomBytes(8).readBigUInt64BE()
  const signal = io.interrupted()
  await withClient(options, async (client) => {
    const ended = new AbortController()
    const shown = io.isErrTerminal ? showProgress(io, client, task, ended.signal) : undefined
    try {
      const values = client.aggregate(options.namespace, call.module.replace(/\.lua$/, ''), call.name, call.args.map(parseValue), {
        set: options.set, where, task, signal, timeoutMs: amount('--time-limit', options.timeLimit), recordsPerSecond: amount('--rps', options.rps)
      })
      for await (const value of values) {
        if (shown !== undefined) io.err(CLEAR_LINE)
        io.out(`${options.json !== true && typeof value === 'string' ? value : toJson(value)}\n`)
      }
    } finally {
      ended.abort()
      await shown
    }
  })
}

/** `bin = 5`, `bin = "text"`, `bin between 1 and 9`; in front of the bin `list of`, `map-keys of` or `map-values of` what the index has of it. */
export function parseRange (text: string): IndexRange {
  const match = /^\s*(?:(list|map-keys|map-values)\s+of\s+)?(\S+?)\s*(?:=\s*(.+?)|\s+between\s+(\S+)\s+and\s+(\S+))\s*$/i.exec(text)
  if (match === null) throw new UsageError(`${JSON.stringify(text)} is not a range; write bin = value, or bin between low and high`)
  const [, of, bin, value, low, high] = match
  const kind = of?.toLowerCase() as IndexRange['of']
  if (value !== undefined) return { bin: bin!, from: parseValue(value), of: kind }
  const [from, to] = [parseValue(low!), parseValue(high!)]
  for (const bound of [from, to]) {
    if (typeof bound !== 'bigint' && !Number.isInteger(bound)) throw new UsageError(`${JSON.stringify(text)}: the bounds of a range are integers`)
  }
  return { bin: bin!, from, to, of: kind }
}

function amount (option: string, text: string | undefined): number | undefined {
  return text === undefined ? undefined : numberOf(option, text, 0, 0xffffffff)
}

/** Says on a terminal how far the node is. */
async function showProgress (io: Io, client: Client, task: bigint, signal: AbortSignal): Promise<void> {
  try {
    for await (const _ of setInterval(PROGRESS_MS, undefined, { signal })) {
      const listing = parsePairs(await client.info(`query-show:id=${task}`), ':')
      const progress = listing.get('job-progress')
      if (progress !== undefined && !signal.aborted) io.err(`${CLEAR_LINE}${Number(progress).toFixed(0)}%, ${listing.get('recs-succeeded')} records`)
    }
  } catch {
    // The aggregation itself says what is wrong with the node; without it this was the end.
  }
  io.err(CLEAR_LINE)
}
