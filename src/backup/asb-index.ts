// Secondary indexes as lines of asbackup's format:
//
//   index = "* i " place " 1 " escaped bin " " values [" " context] LF | "* e " place " 1  " values " " expression LF
//   place = escaped namespace " " escaped set " " escaped name " " kind
//
// kind: N the value, L elements of a list, K keys of a map, V values of a map. values: N numeric, S string, B blob, G location. Contexts and expressions
// are base64. The second form is of version 3.2. There is none for an index of a whole set.

import type { ListedIndex } from '../client/indexes.js'
import { escapeName } from './asb-writer.js'

export type AsbIndex = Omit<ListedIndex, 'state'>

const KINDS: ReadonlyMap<string, string> = new Map([['N', 'default'], ['L', 'list'], ['K', 'mapkeys'], ['V', 'mapvalues']])
const VALUES: ReadonlyMap<string, string> = new Map([['N', 'numeric'], ['S', 'string'], ['B', 'blob'], ['G', 'geo2dsphere']])

function letterOf (letters: ReadonlyMap<string, string>, word: string | null): string | undefined {
  return [...letters].find(([, meaning]) => meaning === word)?.[0]
}

function escaped (name: string | null): string {
  return escapeName(Buffer.from(name ?? '').toString('latin1'))
}

/** The line of an index, one character a byte, with its end; undefined where the format has none for it. */
export function indexLine ({ namespace, set, name, bin, context, expression, type, indexType }: AsbIndex): string | undefined {
  const kind = letterOf(KINDS, indexType)
  const values = letterOf(VALUES, type)
  if (kind === undefined || values === undefined) return undefined
  const place = [namespace, set, name].map(escaped).join(' ')
  if (expression !== null) return `* e ${place} ${kind} 1  ${values} ${expression}\n`
  return `* i ${place} ${kind} 1 ${escaped(bin)} ${values}${context === null ? '' : ` ${context}`}\n`
}

/** The index of a line, as the reader hands it on; undefined for what cannot be understood. */
export function parseIndexLine (line: string): AsbIndex | undefined {
  const [star, form, namespace = '', set, name = '', kind = '', paths, bin, values = '', last, ...more] = words(line)
  const indexType = KINDS.get(kind)
  const type = VALUES.get(values)
  const isExpression = form === 'e'
  if (star !== '*' || indexType === undefined || type === undefined || paths !== '1' || more.length > 0 || (isExpression && last === undefined)) return undefined
  return {
    namespace, name, set: set === '' ? null : set!, bin: isExpression ? null : bin!, context: isExpression ? null : last ?? null, expression: isExpression ? last! : null, type, indexType
  }
}

/** Parts between spaces that no backslash stands before, without the backslashes. */
function words (line: string): string[] {
  const found = ['']
  for (let at = 0; at < line.length; at++) {
    if (line[at] === ' ') found.push('')
    else found[found.length - 1] += line[at] === '\\' ? line[++at] ?? '' : line[at]!
  }
  return found.map((word) => Buffer.from(word, 'latin1').toString('utf8'))
}

/** Info commands are made of these. */
const NOT_IN_A_COMMAND = /[;:=\p{Cc}]/u

/** The info command that makes it, in a form that every server knows; undefined when a name in it cannot be carried. */
export function createCommand ({ namespace, set, name, bin, context, expression, type, indexType }: AsbIndex): string | undefined {
  if ([namespace, set ?? '', name].some((word) => NOT_IN_A_COMMAND.test(word)) || /[;\n\t]/.test(bin ?? '')) return undefined
  return `sindex-create:${[
    `ns=${namespace}`, ...set === null ? [] : [`set=${set}`], `indexname=${name}`, ...indexType === 'default' ? [] : [`indextype=${indexType}`],
    ...context === null ? [] : [`context=${context}`], ...expression === null ? [`indexdata=${bin},${type}`] : [`exp=${expression}`, `type=${type}`]
  ].join(';')}`
}
