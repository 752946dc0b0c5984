import { parsePairs } from '../../client/info.js'
import type { Io } from '../io.js'
import { table, type Column } from '../table.js'
import { askInfo, askInfos, type TargetOptions } from '../target.js'
import { printOrWatch, type WatchOptions } from '../watch.js'

interface Shipping {
  readonly dc: string
  readonly namespace: string
  readonly stats: ReadonlyMap<string, string>
}

export async function status (io: Io, options: TargetOptions & WatchOptions): Promise<void> {
  await printOrWatch(io, options, async () => render(await collect(options), options, io))
}

async function collect (options: TargetOptions): Promise<Shipping[]> {
  const dcs = names(parsePairs(await askInfo(options, 'get-config:context=xdr')).get('dcs'))
  const configs = dcs.length === 0 ? [] : await askInfos(options, dcs.map((dc) => `get-config:context=xdr;dc=${dc}`))
  const shipped = dcs.flatMap((dc, i) => names(parsePairs(configs[i]!).get('namespaces')).map((namespace) => ({ dc, namespace })))
  if (shipped.length === 0) return []
  const stats = await askInfos(options, shipped.map(({ dc, namespace }) => `get-stats:context=xdr;dc=${dc};namespace=${namespace}`))
  return shipped.map((which, i) => ({ ...which, stats: parsePairs(stats[i]!) }))
}

function names (list: string | undefined): string[] {
  return (list ?? '').split(',').filter((name) => name !== '')
}

function render (shipping: readonly Shipping[], options: TargetOptions, io: Io): string {
  if (options.json === true) {
    return `${JSON.stringify(shipping.map(({ dc, namespace, stats }) => ({
      dc, namespace, ...Object.fromEntries([...stats].map(([name, value]) => [name, numeric(value)]))
    })))}\n`
  }
  if (shipping.length === 0) return 'nothing is shipped\n'
  return table(shipping, COLUMNS, io.colours.out)
}

function numeric (value: string): number | string {
  return /^-?\d+(?:\.\d+)?$/.test(value) && Number.isSafeInteger(Math.trunc(Number(value))) ? Number(value) : value
}

const count = (title: string, ...stats: string[]): Column<Shipping> => ({
  title,
  align: 'right',
  value: (row) => {
    const values = stats.map((name) => row.stats.get(name)).filter((value) => value !== undefined)
    return values.length === 0 ? '-' : String(values.reduce((sum, value) => sum + Number(value), 0))
  }
})

const COLUMNS: ReadonlyArray<Column<Shipping>> = [
  { title: 'datacenter', value: ({ dc }) => dc },
  { title: 'namespace', value: ({ namespace }) => namespace },
  count('nodes', 'nodes'),
  { title: 'lag', align: 'right', value: ({ stats }) => lag(stats) },
  count('records/s', 'throughput'),
  count('queued', 'in_queue'),
  count('in flight', 'in_progress'),
  count('shipped', 'success'),
  count('retries', 'retry_no_node', 'retry_conn_reset', 'retry_dest'),
  count('abandoned', 'abandoned'),
  count('hot keys', 'hot_keys'),
  count('recovering', 'recoveries_pending'),
  { title: 'latency', align: 'right', value: ({ stats }) => stats.has('latency_ms') ? `${stats.get('latency_ms')} ms` : '-' }
]

// Servers that know no milliseconds tell whole seconds.
function lag (stats: ReadonlyMap<string, string>): string {
  const ms = stats.has('lag_ms') ? Number(stats.get('lag_ms')) : Number(stats.get('lag') ?? NaN) * 1000
  if (Number.isNaN(ms)) return '-'
  if (ms < 1000) return `${Math.round(ms)} ms`
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`
  const seconds = Math.round(ms / 1000)
  const pad = (n: number) => String(n).padStart(2, '0')
  return `${pad(Math.floor(seconds / 3600))}:${pad(Math.floor(seconds / 60) % 60)}:${pad(seconds % 60)}`
}
