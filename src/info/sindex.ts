// Secondary indexes (PROTOCOL section 11.1).

import { Limit, ResultCode } from '../engine/constants.js'
import { EngineError } from '../engine/engine.js'
import type { IndexDefinition, IndexKeyType, IndexType } from '../engine/native.js'
import { isWholeSetName, type IndexDescription } from '../node/secondary-indexes.js'
import { MetadataFullError } from '../node/system-metadata.js'
import { namespaceNamed, namespaceOf } from './limits.js'
import type { NodeView } from './node-view.js'
import type { InfoCommand } from './registry.js'
import { InfoError, bounded, listedName, pairs, type InfoCommandCall, type InfoParameters } from './request.js'

const NAME_BYTES_MAX = 63

/** Base64 characters of a context or an expression: it is kept in system metadata, which is written as a whole. */
const BASE64_CHARACTERS_MAX = 65_536

/** These separate things in lists of indexes. */
const NOT_IN_A_NAME = /[:;=\p{Cc}]/u

const INDEX_TYPES: readonly IndexType[] = ['default', 'list', 'mapkeys', 'mapvalues', 'set']

const KEY_TYPES: ReadonlyMap<string, IndexKeyType> = new Map([
  ['numeric', 'numeric'], ['integer', 'numeric'], ['string', 'string'], ['blob', 'blob'], ['geo2dsphere', 'geo2dsphere']
])

const CODES: ReadonlyMap<string, number> = new Map([
  ['PERIGEE_ARGUMENT', ResultCode.PARAMETER], ['PERIGEE_EXISTS', ResultCode.SINDEX_FOUND], ['PERIGEE_LIMIT', ResultCode.SINDEX_MAX_COUNT]
])

function malformed (message: string): never {
  throw new InfoError(ResultCode.PARAMETER, message)
}

function nameOf (parameters: InfoParameters): string {
  const name = bounded('indexname', parameters.need('indexname'), NAME_BYTES_MAX)
  if (isWholeSetName(name)) malformed(`'${name}' belongs to enable-index of a set`)
  return NOT_IN_A_NAME.test(name) ? malformed(`bad 'indexname' '${name}': no colon, equals sign or control character`) : name
}

/** One of the two ways to say what is indexed and how: `bin=B;type=T` (or `exp=E;type=T`), and the older `indexdata=B,T`. */
function sourceOf (parameters: InfoParameters): { bin?: string, expression?: string, type: string } {
  const data = parameters.get('indexdata')
  const [bin, expression] = [parameters.get('bin'), parameters.get('exp')]
  if (data !== undefined) {
    const comma = data.lastIndexOf(',')
    if (comma < 1) malformed(`bad 'indexdata' '${data}': it is BIN,TYPE`)
    if (bin !== undefined || expression !== undefined || parameters.get('type') !== undefined) malformed(`'indexdata' goes without 'bin', 'exp' and 'type'`)
    return { bin: data.slice(0, comma), type: data.slice(comma + 1) }
  }
  if ((bin === undefined) === (expression === undefined)) malformed(bin === undefined ? `missing 'bin' or 'exp'` : `'bin' and 'exp' exclude each other`)
  const type = parameters.need('type')
  return expression === undefined ? { bin: parameters.need('bin'), type } : { expression: base64('exp', parameters), type }
}

function base64 (name: string, parameters: InfoParameters): string {
  const text = bounded(name, parameters.need(name), BASE64_CHARACTERS_MAX)
  // In one form, so that equal definitions are equal texts.
  const bytes = Buffer.from(text, 'base64')
  return bytes.toString('base64').replace(/=+$/, '') === text.replace(/=+$/, '') ? bytes.toString('base64') : malformed(`bad '${name}': it is no base64`)
}

function definitionOf ({ parameters }: InfoCommandCall): IndexDefinition {
  const name = nameOf(parameters)
  const set = parameters.get('set') === undefined ? undefined : bounded('set', parameters.need('set'), Limit.SET_BYTES_MAX)
  const written = parameters.get('indextype') ?? 'default'
  const indexType = INDEX_TYPES.find((type) => type === written.toLowerCase()) ?? malformed(`bad 'indextype' '${written}': ${INDEX_TYPES.join(', ')}`)
  if (indexType === 'set') {
    const other = ['bin', 'exp', 'context', 'indexdata', 'type'].find((parameter) => parameters.get(parameter) !== undefined)
    if (other !== undefined) malformed(`'${other}' with 'indextype' set: such an index is of a set's records, whatever they hold`)
    return { name, set: set ?? parameters.need('set'), 'index-type': indexType, 'key-type': 'numeric' }
  }
  const { bin, expression, type } = sourceOf(parameters)
  const keyType = KEY_TYPES.get(type.toLowerCase()) ?? malformed(`bad type '${type}': ${[...KEY_TYPES.keys()].join(', ')}`)
  const context = parameters.get('context') === undefined ? undefined : base64('context', parameters)
  if (context !== undefined && expression !== undefined) malformed(`'context' and 'exp' exclude each other: an expression leads to the value itself`)
  return {
    name,
    ...set === undefined ? {} : { set },
    ...bin === undefined ? {} : { bin: bounded('bin', bin, Limit.BIN_NAME_BYTES_MAX) },
    ...context === undefined ? {} : { context },
    ...expression === undefined ? {} : { expression },
    'index-type': indexType,
    'key-type': keyType
  }
}

const create: InfoCommand = async (node, call) => {
  const { name } = namespaceOf(node, call)
  try {
    await node.secondaryIndexes.create(name, definitionOf(call))
    return 'ok'
  } catch (error) {
    if (error instanceof MetadataFullError) throw new InfoError(ResultCode.SINDEX_MAX_COUNT, error.message)
    const code = error instanceof EngineError ? CODES.get(error.code) : undefined
    if (code === undefined) throw error
    throw new InfoError(code, (error as EngineError).message)
  }
}

const remove: InfoCommand = async (node, call) => {
  const { name } = namespaceOf(node, call)
  await node.secondaryIndexes.drop(name, nameOf(call.parameters))
  return 'ok'
}

const exists: InfoCommand = (node, call) => {
  const { name } = namespaceOf(node, call)
  const wanted = nameOf(call.parameters)
  return String(node.secondaryIndexes.list(name).some(({ definition }) => definition.name === wanted))
}

/** `RW`: queries use it; `WO`: it is being built, and takes changes in; `ERROR`: the engine does not take its definition. */
function stateText ({ status, refused }: IndexDescription): string {
  if (refused !== undefined) return 'ERROR'
  return status?.state === 'ready' ? 'RW' : 'WO'
}

function listed (index: IndexDescription): string {
  const { namespace, definition: { name, set, bin, context, expression, 'index-type': indexType, 'key-type': keyType } } = index
  const shown = (word: string | undefined): string => word === undefined ? 'null' : listedName(word)
  if (indexType === 'set') return pairs([['ns', namespace], ['indexname', name], ['set', shown(set)], ['indextype', indexType]], ':')
  return pairs([
    ['ns', namespace], ['indexname', name], ['set', shown(set)], ['bin', shown(bin)], ['type', keyType], ['indextype', indexType], ['context', context ?? null],
    ['exp', expression ?? null], ['state', stateText(index)]
  ], ':')
}

/** First those of values, then those of whole sets. */
function listAll (node: NodeView, namespaces: ReadonlyArray<{ readonly name: string }>): string {
  const isOfSet = ({ definition }: IndexDescription): number => definition['index-type'] === 'set' ? 1 : 0
  return namespaces.flatMap(({ name }) => node.secondaryIndexes.describe(name)).sort((a, b) => isOfSet(a) - isOfSet(b)).map(listed).join(';')
}

function statistics (node: NodeView, namespace: string, name: string): string {
  const index = node.secondaryIndexes.describe(namespace).find(({ definition }) => definition.name === name)
  if (index === undefined) throw new InfoError(ResultCode.SINDEX_NOT_FOUND, 'no index')
  const { status, refused } = index
  if (refused !== undefined) throw new InfoError(ResultCode.SINDEX_GENERIC, refused)
  return pairs([
    ['entries', status?.entries ?? 0], ['used_bytes', status?.['used-bytes'] ?? 0], ['entries_per_bval', status?.['entries-per-bval'] ?? 0],
    ['entries_per_rec', status?.['entries-per-rec'] ?? 0], ['load_pct', status?.['load-pct'] ?? 0], ['load_time', status?.['load-time-ms'] ?? 0],
    ['stat_gc_recs', status?.['gc-records'] ?? 0]
  ])
}

const list: InfoCommand = (node, call) => {
  const isOfOne = call.parameters.get('namespace', 'ns') !== undefined
  return listAll(node, isOfOne ? [namespaceOf(node, call)] : node.runtimeConfig.current.namespaces)
}

const stat: InfoCommand = (node, call) => statistics(node, namespaceOf(node, call).name, nameOf(call.parameters))

/** The older form: `sindex`, `sindex/NAMESPACE`, `sindex/NAMESPACE/INDEX`. */
const byPath: InfoCommand = (node, { path: [namespace, ...name] }) => {
  if (namespace === undefined) return listAll(node, node.runtimeConfig.current.namespaces)
  const config = namespaceNamed(node, namespace)
  return name.length === 0 ? listAll(node, [config]) : statistics(node, namespace, name.join('/'))
}

export const sindexCommands: Record<string, InfoCommand> = {
  'sindex-create': create,
  'sindex-delete': remove,
  'sindex-exists': exists,
  'sindex-list': list,
  'sindex-stat': stat,
  sindex: byPath
}
