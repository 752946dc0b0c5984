import { parsePairs } from '../../client/info.js'
import type { Io } from '../io.js'
import { table, type Column } from '../table.js'
import { askInfo, type TargetOptions } from '../target.js'
import { printOrWatch, type WatchOptions } from '../watch.js'
import { microsecondsText, plainName } from './amounts.js'

interface Counted {
  readonly module: string
  readonly name: string
  readonly counts: ReadonlyMap<string, number>
}

export async function stats (io: Io, module: string | undefined, options: TargetOptions & WatchOptions): Promise<void> {
  await printOrWatch(io, options, async () => render(await collect(module, options), options, io))
}

async function collect (module: string | undefined, options: TargetOptions): Promise<Counted[]> {
  const answer = await askInfo(options, module === undefined ? 'udf-stats' : `udf-stats:module=${plainName(module)}`)
  return answer.split(';').filter((part) => part !== '').map((part) => {
    const { module: of, function: name, ...counts } = Object.fromEntries(parsePairs(part, ':'))
    return { module: decodeURIComponent(of ?? ''), name: decodeURIComponent(name ?? ''), counts: new Map(Object.entries(counts).map(([key, value]) => [key, Number(value)])) }
  })
}

function render (functions: readonly Counted[], options: TargetOptions, io: Io): string {
  if (options.json === true) return `${JSON.stringify(functions.map(({ module, name, counts }) => ({ module, function: name, ...Object.fromEntries(counts) })))}\n`
  if (functions.length === 0) return 'no function was called since the node started\n'
  return table(functions, COLUMNS, io.colours.out)
}

function amount (title: string, name: string): Column<Counted> {
  return { title, align: 'right', value: ({ counts }) => (counts.get(name) ?? 0).toLocaleString('en') }
}

function time (title: string, name: string): Column<Counted> {
  return { title, align: 'right', value: ({ counts }) => microsecondsText(counts.get(name) ?? 0) }
}

const COLUMNS: ReadonlyArray<Column<Counted>> = [
  { title: 'function', value: ({ module, name }) => module === '' ? name : `${module}.${name}` },
  amount('calls', 'calls'), amount('errors', 'errors'), amount('read', 'records_read'), amount('created', 'records_created'), amount('updated', 'records_updated'),
  amount('removed', 'records_removed'), time('p50', 'p50_us'), time('p95', 'p95_us'), time('p99', 'p99_us'), time('max', 'max_us'), time('total', 'time_us')
]
