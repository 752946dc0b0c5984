import { parsePairs } from '../../client/info.js'
import type { Io } from '../io.js'
import { pairsTable, table } from '../table.js'
import { askInfo, askInfos, checked, withClient, type TargetOptions } from '../target.js'

interface InfoOptions extends TargetOptions {
  readonly raw?: boolean
  readonly all?: boolean
}

interface Answer {
  readonly node: string | undefined
  readonly command: string
  readonly value: string
}

export async function info (io: Io, commands: readonly string[], options: InfoOptions): Promise<void> {
  const answers = options.all === true ? await askAll(commands, options) : await askOne(commands, options)
  if (options.json === true) {
    io.out(`${JSON.stringify(answers.map(({ node, command, value }) => ({ ...(node === undefined ? {} : { node }), command, value })))}\n`)
    return
  }
  for (const { node, command, value } of answers) {
    if (answers.length > 1) io.out(heading(io, [node, command].filter(Boolean).join(' ')))
    io.out(options.raw === true ? `${value}\n` : layOut(value, io.colours.out))
    if (command === 'status' && value === 'starting' && options.raw !== true) io.out(await openProgress(options))
  }
}

/** How far a starting node is, a line for each namespace. */
async function openProgress (options: TargetOptions): Promise<string> {
  const names = (await askInfo(options, 'namespaces')).split(';').filter((name) => name !== '')
  const answers = await askInfos(options, names.map((name) => `namespace/${name}`))
  return names.map((name, i) => {
    const pairs = parsePairs(answers[i]!)
    const left = pairs.get('open_remaining_seconds')
    const parts = [pairs.get('open_phase') ?? '', `${pairs.get('open_pct') ?? 0} %`, `${Number(pairs.get('open_records') ?? 0).toLocaleString('en')} records`,
      ...(left === undefined || pairs.get('open_phase') === 'ready' ? [] : [`about ${left} s left`])]
    return `${name}: ${parts.join(', ')}\n`
  }).join('')
}

async function askOne (commands: readonly string[], options: InfoOptions): Promise<Answer[]> {
  const values = await askInfos(options, commands)
  return commands.map((command, i) => ({ node: undefined, command, value: values[i]! }))
}

async function askAll (commands: readonly string[], options: InfoOptions): Promise<Answer[]> {
  return withClient(options, async (client) => {
    const answers: Answer[] = []
    for (const command of commands) {
      for (const [node, value] of await client.infoAll(command)) answers.push({ node, command, value: checked(command, value) })
    }
    return answers
  })
}

/** Pairs as two columns, records of pairs as a table, lists one a line, anything else as it is. */
export function layOut (value: string, colours: boolean): string {
  const parts = value.split(';').filter((part) => part !== '')
  if (parts.length === 0) return ''
  // `ns=test:set=demo:objects=1;ns=...`, and `filename=a.lua,hash=..,type=LUA;...`
  for (const separator of [':', ',']) {
    const records = parts.map((part) => part.includes(`${separator}`) ? parsePairs(part, separator) : new Map<string, string>())
    if (records.every((record, i) => record.size > 1 && record.size === parts[i]!.split(separator).length)) {
      const names = [...new Set(records.flatMap((record) => [...record.keys()]))]
      return table(records, names.map((name) => ({ title: name, value: (record) => record.get(name) ?? '' })), colours)
    }
  }
  if (parts.every((part) => /^[^=]+=/.test(part))) return pairsTable([...parsePairs(value)])
  return parts.length > 1 ? parts.map((part) => `${part}\n`).join('') : `${value}\n`
}

function heading (io: Io, text: string): string {
  return io.colours.out ? `\u001b[1m${text}\u001b[0m\n` : `${text}\n`
}
