import { setTimeout as sleep } from 'node:timers/promises'
import { ProgressLine, sizeText } from '../../backup/progress.js'
import { parseIndexes, type ListedIndex } from '../../client/indexes.js'
import { infoError, parsePairs } from '../../client/info.js'
import type { IndexKeyType, IndexType } from '../../engine/native.js'
import { contextText, encodeContext } from '../context.js'
import { CommandError, UsageError, type Io } from '../io.js'
import { pairsTable, table, type Column } from '../table.js'
import { askInfo, checked, rawInfos, withClient, type TargetOptions } from '../target.js'
import { plainName } from './amounts.js'

export interface CreateOptions extends TargetOptions {
  readonly set?: string
  readonly bin?: string
  readonly type?: IndexKeyType
  readonly indexType: IndexType
  readonly context?: string[]
  readonly expression?: string
  readonly wait?: boolean
}

interface IndexListing extends ListedIndex {
  readonly state: string
  /** Empty where the node has none to tell. */
  readonly statistics: ReadonlyMap<string, string>
}

const POLL_MS_MIN = 50
const POLL_MS_MAX = 1000
const READY_PCT = 100

export async function create (io: Io, namespace: string, name: string, options: CreateOptions): Promise<void> {
  const where = `namespace=${plainName(namespace)}`
  const named = `indexname=${plainName(name)}`
  const set = options.set === undefined ? [] : [`set=${plainName(options.set)}`]
  await askInfo(options, `sindex-create:${[where, ...set, named, ...whatOf(options)].join(';')}`)
  const built = options.wait === true ? await untilBuilt(io, `sindex-stat:${where};${named}`, name, options) : undefined
  if (options.json === true) {
    io.out(`${JSON.stringify({ namespace, name, ready: built !== undefined, ...built === undefined ? {} : numbers(built) })}\n`)
  } else if (built === undefined) {
    io.out(`index ${name} of ${namespace} is being built; perigee index show ${namespace} ${name} tells how far it is\n`)
  } else {
    io.out(`index ${name} of ${namespace} is ready: ${amount(built, 'entries')} entries, ${sizeText(Number(built.get('used_bytes') ?? 0))}\n`)
  }
}

/** What of the records is indexed, as parameters. */
function whatOf ({ set, bin, type, indexType, context, expression }: CreateOptions): string[] {
  if (indexType === 'set') {
    if (set === undefined) throw new UsageError('--index-type set needs --set')
    if ((bin ?? type ?? context ?? expression) !== undefined) throw new UsageError('--index-type set goes without --bin, --type, --context and --expression: it is of the records of a set, whatever they hold')
    return [`indextype=${indexType}`]
  }
  if ((bin === undefined) === (expression === undefined)) throw new UsageError('either --bin or --expression is needed')
  if (type === undefined) throw new UsageError('--type is missing')
  if (context !== undefined && bin === undefined) throw new UsageError('--context goes with --bin: an expression leads to the value itself')
  return [
    ...indexType === 'default' ? [] : [`indextype=${indexType}`],
    ...context === undefined ? [] : [`context=${encodeContext(context)}`],
    expression === undefined ? `bin=${plainName(bin!)}` : `exp=${plainName(expression)}`,
    `type=${type}`
  ]
}

/** The statistics when every node of the cluster has built it: sums, and the longest time. */
async function untilBuilt (io: Io, command: string, name: string, options: TargetOptions): Promise<Map<string, string>> {
  const progress = new ProgressLine({ isTerminal: io.isErrTerminal, write: (text) => io.err(text) })
  const interrupted = io.interrupted()
  try {
    return await withClient(options, async (client) => {
      for (let pauseMs = POLL_MS_MIN; ; pauseMs = Math.min(POLL_MS_MAX, 2 * pauseMs)) {
        const answers = [...(await client.infoAll(command)).values()].map((answer) => parsePairs(checked(command, answer)))
        const percent = Math.min(...answers.map((answer) => Number(answer.get('load_pct') ?? READY_PCT)))
        const all = total(answers)
        if (percent >= READY_PCT) return all
        progress.update(() => `${name}: ${percent} % built, ${amount(all, 'entries')} entries`)
        if (interrupted.aborted) throw new CommandError(`stopped waiting at ${percent} %; the index goes on being built`)
        await sleep(pauseMs, undefined, { signal: interrupted }).catch(() => {})
      }
    })
  } finally {
    progress.end()
  }
}

function total (answers: ReadonlyArray<ReadonlyMap<string, string>>): Map<string, string> {
  const of = (statistic: string): number[] => answers.map((answer) => Number(answer.get(statistic) ?? 0))
  const sum = (statistic: string): string => String(of(statistic).reduce((all, one) => all + one, 0))
  return new Map([['entries', sum('entries')], ['used_bytes', sum('used_bytes')], ['load_time', String(Math.max(...of('load_time')))]])
}

export async function list (io: Io, options: TargetOptions & { namespace?: string }): Promise<void> {
  const indexes = await listings(options, options.namespace)
  if (options.json === true) io.out(`${JSON.stringify(indexes.map(asJson))}\n`)
  else if (indexes.length === 0) io.out('no indexes\n')
  else io.out(table(indexes, COLUMNS, io.colours.out))
}

export async function show (io: Io, namespace: string, name: string, options: TargetOptions): Promise<void> {
  const index = (await listings(options, namespace)).find((one) => one.name === name)
  if (index === undefined) throw missing(namespace, name)
  if (options.json === true) {
    io.out(`${JSON.stringify(asJson(index))}\n`)
    return
  }
  const { set, bin, context, expression, type, indexType, state, statistics } = index
  const rows: ReadonlyArray<readonly [string, string | null]> = [
    ['namespace', namespace], ['index', name], ['set', set], ['bin', bin], ['context', context === null ? null : contextText(context)],
    ['expression', expression], ['type', type], ['index type', indexType], ['state', state], ...statistics
  ]
  io.out(pairsTable(rows.flatMap(([title, value]) => value === null ? [] : [[title, value] as const])))
}

export async function drop (io: Io, namespace: string, name: string, options: TargetOptions): Promise<void> {
  const parameters = `namespace=${plainName(namespace)};indexname=${plainName(name)}`
  if (await askInfo(options, `sindex-exists:${parameters}`) !== 'true') throw missing(namespace, name)
  await askInfo(options, `sindex-delete:${parameters}`)
  io.out(options.json === true ? `${JSON.stringify({ namespace, name })}\n` : `dropped index ${name} of ${namespace}\n`)
}

function missing (namespace: string, name: string): CommandError {
  return new CommandError(`there is no index ${name} in ${namespace}`)
}

/** The indexes of a namespace, or of all, with their statistics. */
async function listings (options: TargetOptions, namespace: string | undefined): Promise<IndexListing[]> {
  const indexes = parseIndexes(await askInfo(options, `sindex-list:${namespace === undefined ? '' : `namespace=${plainName(namespace)};`}b64=true`))
  const commands = indexes.map((index) => `sindex-stat:namespace=${index.namespace};indexname=${index.name}`)
  const answers = commands.length === 0 ? [] : await rawInfos(options, commands)
  return indexes.map((index, i) => {
    // One that was dropped in between, or that the node cannot use, has none.
    const isAnswered = answers[i] !== undefined && infoError(commands[i]!, answers[i]) === undefined
    const statistics = isAnswered ? parsePairs(answers[i]!) : new Map<string, string>()
    const state = index.state ?? (Number(statistics.get('load_pct')) === READY_PCT ? 'RW' : 'WO')
    return { ...index, state: STATES.get(state) ?? state, statistics }
  })
}

const STATES: ReadonlyMap<string, string> = new Map([['RW', 'ready'], ['WO', 'building'], ['ERROR', 'error']])

function asJson ({ statistics, ...rest }: IndexListing): object {
  return { ...rest, ...numbers(statistics) }
}

function numbers (statistics: ReadonlyMap<string, string>): Record<string, number> {
  return Object.fromEntries([...statistics].map(([name, value]) => [name, Number(value)]))
}

function amount (statistics: ReadonlyMap<string, string>, name: string): string {
  const value = statistics.get(name)
  return value === undefined ? '-' : Number(value).toLocaleString('en')
}

/** Where the indexed value comes from. */
function sourceText ({ bin, context, expression, indexType }: IndexListing): string {
  if (indexType === 'set') return 'all records'
  if (expression !== null) return 'expression'
  return context === null ? bin ?? '-' : `${bin} ${contextText(context)}`
}

const COLUMNS: ReadonlyArray<Column<IndexListing>> = [
  { title: 'namespace', value: ({ namespace }) => namespace },
  { title: 'index', value: ({ name }) => name },
  { title: 'set', value: ({ set }) => set ?? '-' },
  { title: 'of', value: sourceText },
  { title: 'type', value: ({ type }) => type ?? '-' },
  { title: 'index type', value: ({ indexType }) => indexType },
  { title: 'state', value: ({ state, statistics }) => state === 'building' ? `${state} ${statistics.get('load_pct') ?? 0} %` : state },
  { title: 'entries', align: 'right', value: ({ statistics }) => amount(statistics, 'entries') },
  { title: 'memory', align: 'right', value: ({ statistics }) => statistics.has('used_bytes') ? sizeText(Number(statistics.get('used_bytes'))) : '-' }
]
