// What functions do, counted by function: calls, errors, times, records.
//
// A worker has one row of doubles for each function, in memory that it shares with the host: counting is a store into an array, nothing is
// sent afterwards, the host's sums are of this moment, and what a thread has counted outlives it.
//
//   0 calls   1 errors   2 microseconds   3 the longest call   4 records read   5 created   6 updated   7 removed
//   8 ...     calls by their time: TIME_BUCKETS counts

import { Action } from './lane.js'

const CALLS = 0
const ERRORS = 1
const MICROSECONDS = 2
const LONGEST = 3
const READ = 4
const CREATED = 5
const UPDATED = 6
const REMOVED = 7
const BUCKETS = 8

// Four buckets for each power of two: a bucket's bounds are a quarter apart or less. Below four microseconds each has its own.
const SUB_BUCKETS_SHIFT = 2
const SUB_BUCKETS = 1 << SUB_BUCKETS_SHIFT
const MICROSECONDS_MAX = 2 ** 31 - 1
export const TIME_BUCKETS = 30 * SUB_BUCKETS
const ROW_LENGTH = BUCKETS + TIME_BUCKETS

/** Functions that are counted by themselves. Names come from modules, so this only guards against generated ones. */
export const FUNCTIONS_MAX = 4096
/** Under this name, of no module, the functions beyond `FUNCTIONS_MAX` are counted together. */
export const OTHER_FUNCTIONS = '(others)'

/** The bucket of a call that took so many whole microseconds. */
export function bucketOf (microseconds: number): number {
  if (microseconds < SUB_BUCKETS) return microseconds
  const power = 31 - Math.clz32(microseconds)
  return (power - SUB_BUCKETS_SHIFT + 1) * SUB_BUCKETS + ((microseconds >> (power - SUB_BUCKETS_SHIFT)) & (SUB_BUCKETS - 1))
}

/** The least time, in whole microseconds, that a bucket counts. */
export function bucketFloor (bucket: number): number {
  if (bucket < SUB_BUCKETS) return bucket
  const power = (bucket >> SUB_BUCKETS_SHIFT) - 1
  return (SUB_BUCKETS + (bucket & (SUB_BUCKETS - 1))) * 2 ** power
}

/** One function's counts on one worker. */
export class FunctionCounters {
  /** Names the row in `Progress.FUNCTION`: rows of a worker are numbered from 1. */
  readonly number: number
  readonly #row: Float64Array

  constructor (number: number, shared: SharedArrayBuffer) {
    this.number = number
    this.#row = new Float64Array(shared)
  }

  /** A call has ended, `milliseconds` after it began. */
  call (milliseconds: number, failed: boolean): void {
    const row = this.#row
    const microseconds = milliseconds * 1000
    row[CALLS]!++
    if (failed) row[ERRORS]!++
    row[MICROSECONDS]! += microseconds
    if (microseconds > row[LONGEST]!) row[LONGEST] = microseconds
    row[BUCKETS + bucketOf(microseconds < MICROSECONDS_MAX ? Math.floor(microseconds) : MICROSECONDS_MAX)]!++
  }

  /** So many records were given to the function. */
  read (records: number): void {
    this.#row[READ]! += records
  }

  /** What became of the record of a call. */
  changed (existed: boolean, action: Action): void {
    if (action === Action.REMOVE) this.#row[REMOVED]!++
    else if (action === Action.WRITE) this.#row[existed ? UPDATED : CREATED]!++
  }
}

/** A worker's side: the counters of each function, made when it is first asked for. */
export class WorkerStatistics {
  readonly #announce: (module: string, name: string, row: SharedArrayBuffer) => void
  readonly #modules = new Map<string, Map<string, FunctionCounters>>()
  #count = 0

  /** `announce` is told of each new row, in the order of their numbers. */
  constructor (announce: (module: string, name: string, row: SharedArrayBuffer) => void = () => {}) {
    this.#announce = announce
  }

  /** To be kept by who calls the function: this looks up strings. */
  of (module: string, name: string): FunctionCounters {
    const found = this.#modules.get(module)?.get(name)
    if (found !== undefined) return found
    if (this.#count >= FUNCTIONS_MAX) return this.#modules.get('')?.get(OTHER_FUNCTIONS) ?? this.#add('', OTHER_FUNCTIONS)
    return this.#add(module, name)
  }

  #add (module: string, name: string): FunctionCounters {
    const shared = new SharedArrayBuffer(ROW_LENGTH * Float64Array.BYTES_PER_ELEMENT)
    const counters = new FunctionCounters(++this.#count, shared)
    const functions = this.#modules.get(module) ?? new Map<string, FunctionCounters>()
    functions.set(name, counters)
    this.#modules.set(module, functions)
    this.#announce(module, name, shared)
    return counters
  }
}

/** Of one function, since the node's start, on all workers. */
export interface FunctionStatistics {
  /** Without the extension. */
  readonly module: string
  readonly name: string
  readonly calls: number
  /** Calls that failed. */
  readonly errors: number
  /** Sum over the calls. */
  readonly microseconds: number
  readonly microsecondsMax: number
  /** Records that were there and were given to the function. */
  readonly recordsRead: number
  readonly recordsCreated: number
  /** Records that were there before and changed. */
  readonly recordsUpdated: number
  readonly recordsRemoved: number
  /** Calls by time, see `bucketFloor`. Without those that were stopped with their worker. */
  readonly buckets: readonly number[]
}

/** Microseconds within which so many percent of the calls ended, to a quarter; 0 without calls. */
export function percentile ({ buckets, microsecondsMax }: FunctionStatistics, percent: number): number {
  const calls = buckets.reduce((sum, count) => sum + count, 0)
  const wanted = Math.max(1, Math.ceil(calls * percent / 100))
  let seen = 0
  for (const [bucket, count] of buckets.entries()) {
    seen += count
    if (seen >= wanted) return Math.min(microsecondsMax, bucketFloor(bucket + 1))
  }
  return 0
}

/** The host's side: the rows of all workers, and sums of those whose thread is gone. */
export class HostStatistics {
  /** By worker, in the order of their numbers. */
  readonly #rows: Array<Array<{ readonly module: string, readonly name: string, readonly row: Float64Array }>> = []
  readonly #retired = new Map<string, Map<string, Float64Array>>()
  #retiredCount = 0

  /** A worker has a new row. */
  add (worker: number, module: string, name: string, shared: SharedArrayBuffer): void {
    const rows = this.#rows[worker] ?? (this.#rows[worker] = [])
    rows.push({ module, name, row: new Float64Array(shared) })
  }

  /** A worker's thread is gone. `running` is the number of the row of the call that it took along, which has failed; 0 for none. */
  retire (worker: number, running: number): void {
    const rows = this.#rows[worker] ?? []
    this.#rows[worker] = []
    const interrupted = rows[running - 1]
    if (interrupted !== undefined) {
      interrupted.row[CALLS]!++
      interrupted.row[ERRORS]!++
    }
    for (const { module, name, row } of rows) addTo(this.#retiredOf(module, name), row)
  }

  #retiredOf (module: string, name: string): Float64Array {
    const found = this.#retired.get(module)?.get(name)
    if (found !== undefined) return found
    // Threads that come and go, each with other functions, must not add up.
    if (this.#retiredCount >= FUNCTIONS_MAX && name !== OTHER_FUNCTIONS) return this.#retiredOf('', OTHER_FUNCTIONS)
    const sum = new Float64Array(ROW_LENGTH)
    const functions = this.#retired.get(module) ?? new Map<string, Float64Array>()
    functions.set(name, sum)
    this.#retired.set(module, functions)
    this.#retiredCount++
    return sum
  }

  /** In the order of modules and functions; of one module only if that is wanted. */
  functions (wanted?: string): FunctionStatistics[] {
    const sums = new Map<string, Map<string, Float64Array>>()
    const sumOf = (module: string, name: string): Float64Array => {
      const functions = sums.get(module) ?? new Map<string, Float64Array>()
      const sum = functions.get(name) ?? new Float64Array(ROW_LENGTH)
      sums.set(module, functions.set(name, sum))
      return sum
    }
    for (const [module, functions] of this.#retired) {
      if (wanted === undefined || wanted === module) for (const [name, row] of functions) addTo(sumOf(module, name), row)
    }
    for (const { module, name, row } of this.#rows.flat()) {
      if (wanted === undefined || wanted === module) addTo(sumOf(module, name), row)
    }
    return sorted(sums).flatMap(([module, functions]) => sorted(functions).map(([name, row]) => statisticsOf(module, name, row)))
  }
}

function sorted<T> (map: ReadonlyMap<string, T>): Array<[string, T]> {
  return [...map].sort(([a], [b]) => a < b ? -1 : 1)
}

function addTo (sum: Float64Array, row: Float64Array): void {
  const longest = Math.max(sum[LONGEST]!, row[LONGEST]!)
  for (let i = 0; i < ROW_LENGTH; i++) sum[i]! += row[i]!
  sum[LONGEST] = longest
}

function statisticsOf (module: string, name: string, row: Float64Array): FunctionStatistics {
  return {
    module,
    name,
    calls: row[CALLS]!,
    errors: row[ERRORS]!,
    microseconds: row[MICROSECONDS]!,
    microsecondsMax: row[LONGEST]!,
    recordsRead: row[READ]!,
    recordsCreated: row[CREATED]!,
    recordsUpdated: row[UPDATED]!,
    recordsRemoved: row[REMOVED]!,
    buckets: [...row.subarray(BUCKETS)]
  }
}
