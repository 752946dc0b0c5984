import { parseDuration } from '../../../config/units.js'
import { unixSecondsOfVoidTime } from '../../client/message.js'
import type { Key, WritePolicy } from '../../client/request.js'
import type { RecordMetadata } from '../../client/client.js'
import { UsageError, type Io } from '../io.js'
import { table } from '../table.js'
import { withClient, type TargetOptions } from '../target.js'
import { parseBins, parseKey, parseValue, toJson, typeName, type KeyType } from '../values.js'

export interface RecordOptions extends TargetOptions {
  readonly keyType: KeyType
}

export interface WriteOptions extends RecordOptions {
  readonly exists?: WritePolicy['exists']
  readonly ttl?: string
  readonly sendKey?: boolean
  readonly durable?: boolean
  readonly generation?: string
}

interface Named {
  readonly namespace: string
  readonly set: string
  readonly key: string
}

const NOT_THERE = 1

export async function get (io: Io, named: Named, options: RecordOptions & { bins?: string }): Promise<number> {
  const key = keyOf(named, options)
  const record = await withClient(options, (client) => options.bins === undefined ? client.get(key) : client.select(key, options.bins.split(',')))
  if (record === null) return absent(io, options)
  if (options.json === true) {
    const stored = record.key === undefined ? '' : `"key":${toJson(record.key)},`
    io.out(`{${stored}"generation":${record.generation},"expires":${expiry(record) ?? 'null'},"bins":${toJson(record.bins)}}\n`)
    return 0
  }
  io.out(`${metadata(record)}${record.key === undefined ? '' : `, key ${toJson(record.key)}`}\n`)
  io.out(table(Object.entries(record.bins), [
    { title: 'bin', value: ([name]) => name }, { title: 'type', value: ([, value]) => typeName(value) }, { title: 'value', value: ([, value]) => toJson(value) }
  ], io.colours.out))
  return 0
}

export async function put (io: Io, named: Named, args: readonly string[], options: WriteOptions): Promise<void> {
  const key = keyOf(named, options)
  const bins = parseBins(args)
  const policy = policyOf(options)
  const written = await withClient(options, (client) => client.put(key, bins, policy))
  if (options.json === true) io.out(`{"generation":${written.generation}}\n`)
  else io.out(`written, generation ${written.generation}\n`)
}

export async function remove (io: Io, named: Named, options: WriteOptions): Promise<number> {
  const key = keyOf(named, options)
  const policy = policyOf(options)
  if (!await withClient(options, (client) => client.remove(key, policy))) return absent(io, options)
  io.out(options.json === true ? '{"deleted":true}\n' : 'deleted\n')
  return 0
}

export async function exists (io: Io, named: Named, options: RecordOptions): Promise<number> {
  const key = keyOf(named, options)
  const found = await withClient(options, (client) => client.exists(key))
  if (found === null) return absent(io, options)
  if (options.json === true) io.out(`{"generation":${found.generation},"expires":${expiry(found) ?? 'null'}}\n`)
  else io.out(`there, ${metadata(found)}\n`)
  return 0
}

export async function apply (io: Io, named: Named, call: { module: string, name: string, args: readonly string[] }, options: RecordOptions): Promise<void> {
  const key = keyOf(named, options)
  const result = await withClient(options, (client) => client.apply(key, call.module, call.name, call.args.map(parseValue)))
  io.out(`${options.json !== true && typeof result === 'string' ? result : toJson(result)}\n`)
}

function absent (io: Io, options: TargetOptions): number {
  if (options.json === true) io.out('null\n')
  else io.err('perigee: there is no such record\n')
  return NOT_THERE
}

function keyOf ({ namespace, set, key }: Named, { keyType }: RecordOptions): Key {
  return { namespace, set, ...parseKey(key, keyType) }
}

function policyOf (options: WriteOptions): WritePolicy {
  const { generation, exists, sendKey, durable } = options
  if (generation !== undefined && !/^\d+$/.test(generation)) throw new UsageError(`${JSON.stringify(generation)} is not a generation`)
  return { exists, sendKey, durableDelete: durable, ttl: ttlOf(options.ttl), generation: generation === undefined ? undefined : Number(generation) }
}

function ttlOf (text: string | undefined): WritePolicy['ttl'] {
  if (text === undefined || text === 'never' || text === 'unchanged') return text
  const seconds = parseDuration(text, 's')
  if (seconds === undefined) throw new UsageError(`${JSON.stringify(text)} is not a time to live; allowed: seconds, a number with s, m, h or d, never, unchanged`)
  return seconds
}

/** Unix seconds; undefined for never. */
function expiry ({ voidTime }: RecordMetadata): number | undefined {
  return voidTime === 0 ? undefined : unixSecondsOfVoidTime(voidTime)
}

function metadata (record: RecordMetadata): string {
  const expires = expiry(record)
  return `generation ${record.generation}, ${expires === undefined ? 'never expires' : `expires ${new Date(expires * 1000).toISOString()}`}`
}
