// Samples of a run, and whether they stay flat: the median of the last third against that of the first, by stated tolerances.

export interface Sample {
  /** Since the steady load began. */
  seconds: number
  operationsPerSecond: number
  /** Of the node's process. */
  residentBytes: number
  readP99Ms: number
  writeP99Ms: number
  /** Bytes written to the device for a byte that clients wrote. 0 where nothing was written. */
  writeAmplification: number
  availPct: number
  freeBlocks: number
  /** Writes that were put off because the device was behind. */
  overloads: number
  errors: number
}

type Measure = Exclude<keyof Sample, 'seconds' | 'freeBlocks' | 'overloads' | 'errors'>

interface Tolerance {
  measure: Measure
  says: string
  /** Whether the later median is still flat. */
  holds: (first: number, last: number) => boolean
}

const MiB = 2 ** 20

export const TOLERANCES: readonly Tolerance[] = [
  { measure: 'residentBytes', says: 'grows by at most 10 % or 32 MiB', holds: (first, last) => last <= Math.max(first * 1.1, first + 32 * MiB) },
  { measure: 'readP99Ms', says: 'at most doubles, or stays within 10 ms more', holds: (first, last) => last <= Math.max(first * 2, first + 10) },
  { measure: 'writeP99Ms', says: 'at most doubles, or stays within 10 ms more', holds: (first, last) => last <= Math.max(first * 2, first + 10) },
  { measure: 'writeAmplification', says: 'grows by at most 25 % or 0.5', holds: (first, last) => last <= Math.max(first * 1.25, first + 0.5) },
  { measure: 'availPct', says: 'falls by at most 3 points', holds: (first, last) => last >= first - 3 },
  { measure: 'operationsPerSecond', says: 'falls by at most 20 %', holds: (first, last) => last >= first * 0.8 }
]

export interface Trend { measure: Measure, first: number, last: number, says: string, flat: boolean }

export interface Flatness {
  /** Undefined with too few samples to tell. */
  flat: boolean | undefined
  trends: Trend[]
}

const SAMPLES_PER_THIRD_MIN = 2

export function judgeFlatness (samples: readonly Sample[]): Flatness {
  const third = Math.floor(samples.length / 3)
  if (third < SAMPLES_PER_THIRD_MIN) return { flat: undefined, trends: [] }
  const trends = TOLERANCES.map(({ measure, says, holds }): Trend => {
    const first = median(samples.slice(0, third).map(sample => sample[measure]))
    const last = median(samples.slice(-third).map(sample => sample[measure]))
    return { measure, first, last, says, flat: holds(first, last) }
  })
  return { flat: trends.every(({ flat }) => flat), trends }
}

export function median (values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

const BUCKETS_PER_DOUBLING = 16
const BUCKETS = 32 * BUCKETS_PER_DOUBLING

/** Latencies from a microsecond to an hour, to 4 %, in bounded memory. */
export class Latencies {
  readonly #counts = new Uint32Array(BUCKETS)
  #count = 0

  get count (): number {
    return this.#count
  }

  add (ms: number): void {
    const bucket = Math.floor(Math.log2(Math.max(1, ms * 1000)) * BUCKETS_PER_DOUBLING)
    this.#counts[Math.min(BUCKETS - 1, bucket)]!++
    this.#count++
  }

  /** The least bound in ms that `share` of the latencies are below. 0 of none. */
  quantileMs (share: number): number {
    let seen = 0
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      seen += this.#counts[bucket]!
      if (seen > 0 && seen >= this.#count * share) return 2 ** ((bucket + 1) / BUCKETS_PER_DOUBLING) / 1000
    }
    return 0
  }
}
