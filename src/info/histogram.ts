// How records are spread over times to live and sizes (PROTOCOL section 11): counted when somebody asks, by a walk over the index.

import { ResultCode } from '../engine/constants.js'
import type { Histograms } from '../engine/native.js'
import { namespaceOf } from './limits.js'
import type { NodeView } from './node-view.js'
import type { InfoCommand } from './registry.js'
import { InfoError } from './request.js'

const KIB = 1024
const SUFFIXES = ['', 'K', 'M', 'G']

/** A power of two as `64`, `2K`, `1M`. */
function powerText (bytes: number): string {
  let power = 0
  while (bytes >= KIB && power < SUFFIXES.length - 1) {
    bytes /= KIB
    power++
  }
  return `${bytes}${SUFFIXES[power]}`
}

function linear (units: string, { 'bucket-width': width, buckets }: Histograms['ttl']): string {
  return `units=${units}:hist-width=${width * buckets.length}:bucket-width=${width}:buckets=${buckets.join(',')}`
}

const FORMS: Record<string, (counted: Histograms) => string> = {
  ttl: (counted) => linear('seconds', counted.ttl),
  'object-size-linear': (counted) => linear('bytes', counted['object-size-linear']),
  'object-size': (counted) => {
    const ranges = counted['object-size'].flatMap((count, power) => count === 0 ? [] : [`[${powerText(2 ** power)}-${powerText(2 ** (power + 1))})=${count}`])
    return ['units=bytes', ...ranges].join(':')
  }
}

/** Walks under way or waiting, of all connections together; they go one after another. */
const WALKS_MAX = 16

const walks = new WeakMap<NodeView['engine'], { readonly waiting: Map<string, Promise<Histograms | null>>, last: Promise<unknown> }>()

/** Those who ask for the same while it is being counted are told the same. */
function counted ({ engine }: NodeView, namespace: string, set: string | undefined): Promise<Histograms | null> {
  let queue = walks.get(engine)
  if (queue === undefined) walks.set(engine, queue = { waiting: new Map(), last: Promise.resolve() })
  const { waiting } = queue
  const what = JSON.stringify([namespace, set])
  const same = waiting.get(what)
  if (same !== undefined) return same
  if (waiting.size >= WALKS_MAX) throw new InfoError(ResultCode.DEVICE_OVERLOAD, `${WALKS_MAX} histograms are being counted already`)
  const walk = queue.last.then(() => engine.histograms(namespace, set)).finally(() => waiting.delete(what))
  waiting.set(what, walk)
  queue.last = walk.catch(() => {})
  return walk
}

const histogram: InfoCommand = async (node, call) => {
  const { name } = namespaceOf(node, call)
  const type = call.parameters.need('type')
  const set = call.parameters.get('set')
  const form = Object.hasOwn(FORMS, type) ? FORMS[type] : undefined
  if (form === undefined) throw new InfoError(ResultCode.PARAMETER, `bad 'type' '${type}': ${Object.keys(FORMS).join(', ')}`)
  const found = await counted(node, name, set)
  if (found === null) throw new InfoError(ResultCode.PARAMETER, `there is no set '${set}'`)
  return form(found)
}

export const histogramCommands: Record<string, InfoCommand> = { histogram }
