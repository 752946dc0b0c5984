import type { Io } from '../io.js'
import { table, type Column } from '../table.js'
import { askInfos, type TargetOptions } from '../target.js'
import { printOrWatch, type WatchOptions } from '../watch.js'
import { microsecondsText } from './amounts.js'

interface Histogram {
  readonly name: string
  readonly perSecond: number
  /** Shares of requests, in percent, that took so many microseconds or longer; in ascending order of the time. */
  readonly shares: ReadonlyArray<{ readonly us: number, readonly percent: number }>
}

const PERCENTILES = [50, 90, 99] as const

/** Microseconds of the units that `latencies` tells times in; its columns are powers of two of them. */
const UNITS = { usec: 1, msec: 1000 } as const

export async function latency (io: Io, options: TargetOptions & WatchOptions): Promise<void> {
  await printOrWatch(io, options, async () => render(await collect(options), options, io))
}

/** Both units are asked for: one is finer, the other goes further. */
async function collect (options: TargetOptions): Promise<Histogram[]> {
  const answers = await askInfos(options, Object.keys(UNITS).map((unit) => `latencies:unit=${unit}`))
  const histograms = new Map<string, { perSecond: number, shares: Array<{ us: number, percent: number }> }>()
  for (const entry of answers.flatMap((answer) => answer.split(';'))) {
    const [, name, unit, numbers] = /^([^:]+):(usec|msec),(.+)$/.exec(entry) ?? []
    if (name === undefined) continue
    const [perSecond, ...shares] = numbers!.split(',').map(Number)
    const histogram = histograms.get(name) ?? { perSecond: perSecond!, shares: [] }
    histogram.shares.push(...shares.map((percent, power) => ({ us: UNITS[unit as keyof typeof UNITS] * 2 ** power, percent })))
    histograms.set(name, histogram)
  }
  return [...histograms].map(([name, { perSecond, shares }]) => ({ name, perSecond, shares: shares.sort((a, b) => a.us - b.us) }))
}

/** The least time that is known to be longer than so many percent of the requests took. */
function percentile ({ shares }: Histogram, percent: number): number | null {
  return shares.find((share) => share.percent <= 100 - percent)?.us ?? null
}

function render (histograms: readonly Histogram[], options: TargetOptions, io: Io): string {
  if (options.json === true) {
    return `${JSON.stringify(histograms.map((histogram) => ({
      histogram: histogram.name,
      perSecond: histogram.perSecond,
      ...Object.fromEntries(PERCENTILES.map((percent) => [`p${percent}BelowUs`, percentile(histogram, percent)]))
    })))}\n`
  }
  if (histograms.length === 0) return 'nothing was asked of the node in the last seconds\n'
  return table(histograms, COLUMNS, io.colours.out)
}

function below (us: number | null): string {
  return us === null ? 'over a minute' : `<${microsecondsText(us)}`
}

const COLUMNS: ReadonlyArray<Column<Histogram>> = [
  { title: 'histogram', value: ({ name }) => name },
  { title: 'requests/s', align: 'right', value: ({ perSecond }) => perSecond.toFixed(1) },
  ...PERCENTILES.map((percent): Column<Histogram> => ({ title: `p${percent}`, align: 'right', value: (histogram) => below(percentile(histogram, percent)) }))
]
