// Samples of a run, and whether they stay flat.
//
// The first quarter of the samples is warm-up and not judged: until caches, heaps and the free lists of allocators have their working set, memory grows in a
// run that is good. Memory is then judged by its trend (Theil and Sen: the median of the slopes of all pairs), which garbage collections do not sway and which shows a
// slow leak long before its sum stands out; the other measures by the median of the last third against that of the first. Samples in which other processes
// had a large share of the processors say nothing of latency and throughput, and are left out there.

export interface Sample {
  /** Since the steady load began. */
  seconds: number
  operationsPerSecond: number
  /** Of the node's process: all of it, and its parts. */
  residentBytes: number
  anonymousBytes: number
  sharedBytes: number
  /** Of the node's JavaScript, within the anonymous part. */
  heapBytes: number
  /** Time of the processors that neither the node nor the soak itself took, in percent of all of it; what a virtual machine was denied is in it. */
  foreignCpuPct: number
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

type Measure = 'residentBytes' | 'readP99Ms' | 'writeP99Ms' | 'writeAmplification' | 'availPct' | 'operationsPerSecond'

interface Tolerance {
  measure: Measure
  says: string
  /** Whether other processes on the machine move it. */
  disturbed: boolean
  /** Whether the later median is still flat. */
  holds: (first: number, last: number) => boolean
}

const MiB = 2 ** 20
const WARM_UP_SHARE = 0.25
const SAMPLES_PER_THIRD_MIN = 2
/** What memory may grow by along its trend; a leak of a third of a MiB a minute comes to more in an hour. */
export const GROWTH_BYTES_MAX = 16 * MiB
export const FOREIGN_CPU_PCT_MAX = 20

export const TOLERANCES: readonly Tolerance[] = [
  { measure: 'readP99Ms', says: 'at most doubles, or stays within 10 ms more', disturbed: true, holds: (first, last) => last <= Math.max(first * 2, first + 10) },
  { measure: 'writeP99Ms', says: 'at most doubles, or stays within 10 ms more', disturbed: true, holds: (first, last) => last <= Math.max(first * 2, first + 10) },
  { measure: 'writeAmplification', says: 'grows by at most 25 % or 0.5', disturbed: false, holds: (first, last) => last <= Math.max(first * 1.25, first + 0.5) },
  { measure: 'availPct', says: 'falls by at most 3 points', disturbed: false, holds: (first, last) => last >= first - 3 },
  { measure: 'operationsPerSecond', says: 'falls by at most 20 %', disturbed: true, holds: (first, last) => last >= first * 0.8 }
]

/** Undefined: there are too few samples to tell. */
export type Verdict = boolean | undefined

export interface Trend {
  measure: Measure
  /** Medians of the first and the last third; of memory, the ends of its trend line. */
  first: number
  last: number
  says: string
  flat: Verdict
}

export interface MemoryTrend {
  bytesPerMinute: number
  /** What the slope is at least and at most, nine times of ten. */
  bytesPerMinuteMin: number
  bytesPerMinuteMax: number
}

export interface Flatness {
  /** False if a measure is not flat; undefined if none is known not to be, and one could not be judged. */
  flat: Verdict
  trends: Trend[]
  memory?: MemoryTrend
  /** Samples that were judged, and of those the ones that other processes disturbed. */
  judged: number
  disturbed: number
}

export function judgeFlatness (samples: readonly Sample[]): Flatness {
  const warm = samples.slice(Math.ceil(samples.length * WARM_UP_SHARE))
  const quiet = warm.filter(({ foreignCpuPct }) => foreignCpuPct <= FOREIGN_CPU_PCT_MAX)
  const judged = { judged: warm.length, disturbed: warm.length - quiet.length }
  if (Math.floor(warm.length / 3) < SAMPLES_PER_THIRD_MIN) return { flat: undefined, trends: [], ...judged }
  const { trend, memory } = judgeMemory(warm)
  const trends = [trend, ...TOLERANCES.map((tolerance) => judge(tolerance, warm, quiet))]
  const flat = trends.some((each) => each.flat === false) ? false : trends.every((each) => each.flat === true) ? true : undefined
  return { flat, trends, memory, ...judged }
}

/** The thirds are those of the time that is judged, so that samples that are left out do not move the ends together. */
function judge ({ measure, says, disturbed, holds }: Tolerance, warm: readonly Sample[], quiet: readonly Sample[]): Trend {
  const third = Math.floor(warm.length / 3)
  const [firstEnd, lastBegin] = [warm[third - 1]!.seconds, warm.at(-third)!.seconds]
  const used = disturbed ? quiet : warm
  const early = used.filter(({ seconds }) => seconds <= firstEnd)
  const late = used.filter(({ seconds }) => seconds >= lastBegin)
  const [first, last] = [early, late].map((part) => median(part.map((sample) => sample[measure]))) as [number, number]
  const flat = early.length < SAMPLES_PER_THIRD_MIN || late.length < SAMPLES_PER_THIRD_MIN ? undefined : holds(first, last)
  return { measure, first, last, says, flat }
}

function judgeMemory (warm: readonly Sample[]): { trend: Trend, memory: MemoryTrend } {
  const points = warm.map(({ seconds, residentBytes }): [number, number] => [seconds / 60, residentBytes])
  const { slope, least, greatest } = theilSen(points)
  const minutes = points.at(-1)![0] - points[0]![0]
  const first = median(points.map(([minute, bytes]) => bytes - slope * (minute - points[0]![0])))
  const says = `its trend grows by at most ${GROWTH_BYTES_MAX / MiB} MiB; ${(slope / MiB).toFixed(2)} MiB a minute, ${(least / MiB).toFixed(2)} to ${(greatest / MiB).toFixed(2)}`
  return {
    memory: { bytesPerMinute: slope, bytesPerMinuteMin: least, bytesPerMinuteMax: greatest },
    trend: { measure: 'residentBytes', first, last: first + slope * minutes, says, flat: least * minutes <= GROWTH_BYTES_MAX }
  }
}

/** z of a two-sided interval of 90 %. */
const Z_90 = 1.645

/** The median slope of all pairs of points, and the bounds that hold it nine times of ten (Sen 1968, by Kendall's variance; noise of neighbours counts as independent). */
export function theilSen (points: ReadonlyArray<readonly [x: number, y: number]>): { slope: number, least: number, greatest: number } {
  const slopes = points.flatMap(([x, y], i) => points.slice(i + 1).map(([laterX, laterY]) => (laterY - y) / (laterX - x))).sort((a, b) => a - b)
  const n = points.length
  const spread = Z_90 * Math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
  const at = (rank: number): number => slopes[Math.min(slopes.length - 1, Math.max(0, Math.round(rank)))]!
  return { slope: median(slopes), least: at((slopes.length - spread) / 2), greatest: at((slopes.length + spread) / 2) }
}

/** NaN of none. */
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
