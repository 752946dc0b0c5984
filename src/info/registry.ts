// Every info command by name. A command is a function from the node and the call to the text after the tab.

import { setImmediate } from 'node:timers/promises'
import { ResultCode } from '../engine/constants.js'
import { configCommands } from './config.js'
import { limitsCommands } from './limits.js'
import { histogramCommands } from './histogram.js'
import { identityCommands } from './identity.js'
import { latencyCommands } from './latencies.js'
import type { NodeView } from './node-view.js'
import { partitionCommands } from './partitions.js'
import { queryCommands } from './query.js'
import { InfoError, parseInfoCommand, type InfoCommandCall } from './request.js'
import { sindexCommands } from './sindex.js'
import { statisticsCommands } from './statistics.js'
import { truncateCommands } from './truncate.js'
import { udfCommands } from './udf.js'
import { userAgentCommands } from './user-agents.js'
import { xdrCommands } from './xdr.js'

export type InfoCommand = (node: NodeView, call: InfoCommandCall) => string | Promise<string>

/** Known to tools of this protocol and not carried out yet: refused by name, so that nobody takes silence for success. */
const NOT_YET = [
  'quiesce', 'quiesce-undo', 'recluster', 'roster-set', 'revive', 'xdr-set-filter', 'xdr-get-filter', 'tip', 'tip-clear',
  'masking', 'log-set'
]

function notYet (_: NodeView, call: InfoCommandCall): never {
  throw new InfoError(ResultCode.UNSUPPORTED_FEATURE, `${call.name} is not supported by this version`)
}

const commands: ReadonlyMap<string, InfoCommand> = new Map<string, InfoCommand>([
  ...Object.entries({
    ...identityCommands, ...partitionCommands, ...statisticsCommands, ...configCommands, ...limitsCommands, ...histogramCommands, ...latencyCommands, ...truncateCommands,
    ...sindexCommands, ...udfCommands, ...queryCommands, ...userAgentCommands, ...xdrCommands
  }),
  ...NOT_YET.map((name): [string, InfoCommand] => [name, notYet]),
  ['help', () => [...commandNames].sort().join(';')]
])

/** What is answered before the node is ready; the rest needs open namespaces, or acts on them. */
const WHILE_STARTING: ReadonlySet<string> = new Set([
  ...Object.keys({ ...identityCommands, ...partitionCommands, ...statisticsCommands, ...configCommands, ...userAgentCommands }), ...NOT_YET, 'help'
])

const STARTING = new InfoError(ResultCode.UNAVAILABLE, 'the node is starting')

/** Every command that is answered or refused by name; docs/reference/info-commands.md lists the same. */
export const commandNames: readonly string[] = [...commands.keys()]

const TOO_LONG = new InfoError(ResultCode.PARAMETER, 'the reply is too long')

/** What an empty request asks for. */
const SUMMARY = ['node', 'build', 'edition', 'version', 'release', 'features', 'cluster-name', 'partition-generation', 'peers-generation', 'namespaces',
  'service-clear-std', 'statistics']

/** Characters of a reply after which further commands of the request are refused: one request may name a bulky one again and again. */
const REPLY_CHARACTERS_MAX = 16 * 1024 * 1024

/** Commands answered before other work of the main thread gets its turn. */
const COMMANDS_PER_TURN = 64

/** The whole reply to a request: a line for each command, `<as sent>\t<answer>`. */
export async function answerInfo (node: NodeView, text: string, onError: (error: unknown) => void): Promise<string> {
  const sent = text.split('\n').filter((line) => line !== '')
  const lines: string[] = []
  let characters = 0
  for (const line of sent.length === 0 ? SUMMARY : sent) {
    if (lines.length % COMMANDS_PER_TURN === COMMANDS_PER_TURN - 1) await setImmediate()
    const answer = characters > REPLY_CHARACTERS_MAX ? TOO_LONG.text : await answerOne(node, line, onError)
    lines.push(`${line}\t${answer}\n`)
    characters += line.length + answer.length
  }
  return lines.join('')
}

async function answerOne (node: NodeView, line: string, onError: (error: unknown) => void): Promise<string> {
  const call = parseInfoCommand(line)
  const command = commands.get(call.name)
  if (command === undefined) return new InfoError(ResultCode.PARAMETER, 'unrecognized command').text
  if (!node.ready && !WHILE_STARTING.has(call.name)) return STARTING.text
  try {
    return await command(node, call)
  } catch (error) {
    if (error instanceof InfoError) return error.text
    onError(error)
    return new InfoError(ResultCode.UNKNOWN, 'internal error').text
  }
}
