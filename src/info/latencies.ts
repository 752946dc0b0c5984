// How long requests take (PROTOCOL section 11.3): the share of the recent ones that took longer than each power of two of a unit.

import { ResultCode } from '../engine/constants.js'
import type { Latencies } from '../engine/native.js'
import type { InfoCommand } from './registry.js'
import { InfoError } from './request.js'

/** A window ends now and began at the interval before the present one: it is one to two of these long, or as long as the node runs. */
const INTERVAL_MS = 10_000

/** Powers of two from 1 on that are told. */
const COLUMNS = 17

/** Microseconds of each unit. */
const UNITS = { usec: 1, msec: 1000 } as const

/** Of the node rather than of a namespace, and only listed where the configuration says so. */
const INFO = 'info'

interface Sample { readonly at: number, readonly counts: ReadonlyMap<string, readonly number[]>, readonly floorsUs: readonly number[] }

export interface RecentLatencies {
  readonly seconds: number
  /** Microseconds from which each bucket counts. */
  readonly floorsUs: readonly number[]
  /** Buckets by the name of the histogram, in the order in which they are listed. */
  readonly counts: ReadonlyMap<string, readonly number[]>
}

/** What the engine counts since the start, as counts of the recent past. */
export class LatencyWindow {
  readonly #read: () => Latencies
  readonly #now: () => number
  #began: Sample
  #beginsNext: Sample
  #timer: NodeJS.Timeout | undefined

  /** `now` is in milliseconds and never goes back. */
  constructor (read: () => Latencies, now: () => number = () => performance.now()) {
    this.#read = read
    this.#now = now
    this.#began = this.#beginsNext = this.#sample()
  }

  start (): void {
    this.#timer = setInterval(() => { this.turn() }, INTERVAL_MS).unref()
  }

  stop (): void {
    clearInterval(this.#timer)
  }

  /** Ends an interval. */
  turn (): void {
    this.#began = this.#beginsNext
    this.#beginsNext = this.#sample()
  }

  recent (): RecentLatencies {
    const { at, counts, floorsUs } = this.#sample()
    const before = this.#began.counts
    const since = new Map([...counts].map(([name, buckets]) => {
      const earlier = before.get(name)
      return [name, buckets.map((count, i) => count - (earlier?.[i] ?? 0))]
    }))
    return { seconds: (at - this.#began.at) / 1000, floorsUs, counts: since }
  }

  #sample (): Sample {
    const { 'floors-us': floorsUs, service, namespaces } = this.#read()
    const ofNamespaces = Object.entries(namespaces).flatMap(([namespace, histograms]) => {
      return Object.entries(histograms).map(([name, buckets]) => [`{${namespace}}-${name}`, buckets] as const)
    })
    return { at: this.#now(), floorsUs, counts: new Map([...Object.entries(service), ...ofNamespaces]) }
  }
}

/** `name:unit,requests a second,percentages;`, and nothing behind the name when there were no requests. */
function line (name: string, buckets: readonly number[], { seconds, floorsUs }: RecentLatencies, unit: keyof typeof UNITS): string {
  const above = (us: number) => buckets.reduce((sum, count, i) => floorsUs[i]! >= us ? sum + count : sum, 0)
  const all = above(0)
  if (all === 0) return `${name}:;`
  const shares = Array.from({ length: COLUMNS }, (_, power) => (100 * above(UNITS[unit] * 2 ** power) / all).toFixed(2))
  return `${name}:${unit},${(all / Math.max(seconds, 0.001)).toFixed(1)},${shares.join(',')};`
}

const latencies: InfoCommand = (node, call) => {
  const { 'microsecond-histograms': inMicroseconds, 'enable-hist-info': listsInfo } = node.runtimeConfig.current.service
  const unit = call.parameters.get('unit') ?? (inMicroseconds ? 'usec' : 'msec')
  if (unit !== 'usec' && unit !== 'msec') throw new InfoError(ResultCode.PARAMETER, `bad 'unit' '${unit}': ${Object.keys(UNITS).join(', ')}`)
  const recent = node.latencies.recent()
  const wanted = call.parameters.get('hist')
  const shown = [...recent.counts].filter(([name]) => name === (wanted ?? name) && (name !== INFO || listsInfo))
  if (wanted !== undefined && shown.length === 0) throw new InfoError(ResultCode.PARAMETER, `no histogram '${wanted}'`)
  return shown.map(([name, buckets]) => line(name, buckets, recent, unit)).join('')
}

export const latencyCommands: Record<string, InfoCommand> = { latencies }
