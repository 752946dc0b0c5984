// UDF modules over the info protocol (PROTOCOL section 11.2). Errors of these commands have their own layout, which clients take apart.

import { UdfError, type UdfErrorCode } from '../../udf/errors.js'
import { percentile } from '../../udf/statistics.js'
import { moduleName } from '../../udf/module-set.js'
import type { InfoCommand } from './registry.js'
import { listedName, pairs } from './request.js'

/** How this command has always named these. */
const INFO_ERRORS: Partial<Record<UdfErrorCode, string>> = { 'udf-name': 'invalid_filename', 'udf-too-large': 'invalid_content_len' }

/** Base64 comes in groups of four characters. */
const BASE64_GROUP = 4

const put: InfoCommand = async (node, { parameters }) => {
  const filename = parameters.get('filename')
  const content = parameters.get('content')
  const length = parameters.get('content-len')
  const type = parameters.get('udf-type') ?? 'LUA'
  if (filename === undefined || filename === '') return 'error=invalid_filename'
  if (type !== 'LUA') return 'error=invalid_udf_type'
  if (content === undefined) return 'error=missing_content'
  if (length !== undefined && Number(length) !== content.length) return 'error=invalid_content_len'
  if (content.length % BASE64_GROUP !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(content)) return 'error=invalid_base64_content'
  return await answered(filename, node.udf.put(filename, Buffer.from(content, 'base64')))
}

/** `ok`, or why the change was refused. */
async function answered (filename: string, change: Promise<void>): Promise<string> {
  try {
    await change
    return 'ok'
  } catch (error) {
    if (!(error instanceof UdfError)) throw error
    const message = Buffer.from(error.message).toString('base64')
    if (error.code === 'udf-compile') return `error=compile_error;file=${filename};line=${error.line};message=${message}`
    const place = error.line > 0 ? `file=${filename};line=${error.line};` : ''
    return `error=${INFO_ERRORS[error.code] ?? error.code};${place}message=${message}`
  }
}

const get: InfoCommand = (node, { parameters }) => {
  const module = node.udf.get(parameters.get('filename') ?? '')
  return module === undefined ? 'error=not_found' : `type=LUA;content=${Buffer.from(module.content).toString('base64')};`
}

const list: InfoCommand = (node) => node.udf.list().map(({ name, hash }) => `filename=${name},hash=${hash},type=LUA;`).join('')

const remove: InfoCommand = async (node, { parameters }) => {
  const filename = parameters.get('filename')
  if (filename === undefined || filename === '') return 'error=invalid_filename'
  return await answered(filename, node.udf.remove(filename).catch((error: unknown) => {
    // A module that there cannot be is not there, as clients expect it of any other that is not.
    if (!(error instanceof UdfError && error.code === 'udf-name')) throw error
  }))
}

const PERCENTILES = [50, 95, 99] as const

const stats: InfoCommand = (node, { parameters }) => {
  const module = parameters.get('module')
  return node.udf.statistics(module === undefined ? undefined : moduleName(module)).map((counted) => `${pairs([
    ['module', listedName(counted.module)], ['function', listedName(counted.name)], ['calls', counted.calls], ['errors', counted.errors],
    ['records_read', counted.recordsRead], ['records_created', counted.recordsCreated], ['records_updated', counted.recordsUpdated],
    ['records_removed', counted.recordsRemoved], ['time_us', Math.round(counted.microseconds)],
    ...PERCENTILES.map((percent) => [`p${percent}_us`, Math.ceil(percentile(counted, percent))] as const), ['max_us', Math.ceil(counted.microsecondsMax)]
  ], ':')};`).join('')
}

export const udfCommands: Record<string, InfoCommand> = {
  'udf-put': put,
  'udf-get': get,
  'udf-list': list,
  'udf-remove': remove,
  'udf-stats': stats,
  // Modules are replaced as a whole in every worker, so nothing stale is cached.
  'udf-clear-cache': () => 'ok'
}
