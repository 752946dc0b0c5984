// The command line of the soak.
import { parseArgs } from 'node:util'

export interface SoakOptions {
  /** Of steady load; 0 leaves it out. */
  minutes: number
  sampleSeconds: number
  /** Requests a second; 0 for as many as come back. */
  rate: number
  workers: number
  fileBytes: number
  writeBlockBytes: number
  fillPct: number
  defragLwmPct: number
  valueBytesMax: number
  crashRounds: number
  crashSeeds: number
  seed: number
  /** Where the JSON report goes; `-` is stdout. */
  report: string | undefined
}

const USAGE = `npm run soak -- [options]
  --minutes N        steady load (default 60; 0 leaves it out)
  --sample-seconds N time between two samples (default 60, or less where that leaves fewer than 12 samples)
  --rate N           requests a second (default 2000; 0: as many as come back)
  --workers N        requests in flight at most (default 64)
  --file-size N      MiB of the namespace's file (default 1024)
  --write-block N    KiB of a write block (default 1024)
  --fill-pct N       share of the file that live records take (default 80)
  --defrag-lwm N     low-water mark of defragmentation (default: 5 points above the fill; below it the store runs on its last free blocks)
  --value-bytes N    longest value (default 2000)
  --crash-rounds N   times that a node is killed under load and its records are compared (default 10)
  --crash-seeds N    run the engine's power-cut tests with so many seeds (default 0: not at all)
  --seed N           repeats a run's choices (default: drawn, and printed)
  --report FILE      where the JSON report goes (default: nowhere; - is stdout)`

export class UsageError extends Error {}

function number (text: string | undefined, name: string, fallback: number, min: number, max: number): number {
  if (text === undefined) return fallback
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value) || value < min || value > max) {
    throw new UsageError(`--${name} ${text} is no number from ${min} to ${max}`)
  }
  return value
}

/** Null when help was asked for, and printed. */
export function parseOptions (args: readonly string[]): SoakOptions | null {
  const names = [
    'minutes', 'sample-seconds', 'rate', 'workers', 'file-size', 'write-block', 'fill-pct', 'defrag-lwm', 'value-bytes', 'crash-rounds', 'crash-seeds', 'seed', 'report'
  ] as const
  const options = Object.fromEntries([...names.map(name => [name, { type: 'string' as const }]), ['help', { type: 'boolean' as const }]])
  let values: Record<string, string | boolean | undefined>
  try {
    values = parseArgs({ args: [...args], options, strict: true }).values as typeof values
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
  if (values.help === true) {
    console.log(USAGE)
    return null
  }
  const of = (name: typeof names[number], fallback: number, min: number, max: number): number =>
    number(values[name] as string | undefined, name, fallback, min, max)
  const whole = (name: typeof names[number], fallback: number, min: number, max: number): number => Math.floor(of(name, fallback, min, max))
  const fillPct = of('fill-pct', 80, 1, 90)
  const minutes = of('minutes', 60, 0, 60 * 24 * 30)
  return {
    minutes,
    sampleSeconds: of('sample-seconds', Math.min(60, Math.max(1, minutes * 60 / 12)), 0.2, 3600),
    rate: of('rate', 2000, 0, 1e6),
    workers: whole('workers', 64, 1, 4096),
    fileBytes: whole('file-size', 1024, 1, 1 << 21) * 2 ** 20,
    writeBlockBytes: whole('write-block', 1024, 64, 8192) * 1024,
    fillPct,
    defragLwmPct: whole('defrag-lwm', Math.floor(fillPct) + 5, 1, 99),
    valueBytesMax: whole('value-bytes', 2000, 16, 100_000),
    crashRounds: whole('crash-rounds', 10, 0, 100_000),
    crashSeeds: whole('crash-seeds', 0, 0, 1e9),
    seed: whole('seed', Math.floor(Math.random() * 2 ** 32), 0, 2 ** 32 - 1),
    report: values.report as string | undefined
  }
}
