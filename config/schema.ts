// The configuration of one node. Every key is declared once, with what it means, what it allows and what it is when
// left out; the type, the messages and docs/reference/configuration.md all come from this declaration.
//
// Leaves take text (YAML scalars arrive unconverted, so a node id of `0123` or `1e5` stays what was written) or the
// plain value, so that programs can build a configuration too.

import { z } from 'zod'
import {
  DATACENTERS_MAX, GiB, KiB, MiB, NAME_BYTES_MAX, NAMESPACES_MAX, SETS_MAX, SET_NAME_BYTES_MAX, TLS_SECTIONS_MAX, TTL_SECONDS_MAX, TiB, luaWorkersDefault, serviceThreadsDefault
} from './defaults.js'
import { DURATION_FORM, SIZE_FORM, formatSize, parseDuration, parseSize, type DurationUnit } from './units.js'

/** What the reference page and the error messages say about a key. */
export interface KeyNote {
  doc: string
  /** What may be written, in words. */
  allowed: string
  /** As written in a file; undefined when the key is required. */
  default: string | undefined
  /** May be changed while the node runs. */
  dynamic: boolean
}

export const keyNotes = z.registry<KeyNote>()

/** Issues from a leaf carry this in `params`; `load.ts` words them. */
export interface LeafIssue {
  /** Follows the value: `is not a size`, `is out of bounds`. */
  says: string
  allowed: string
}

interface LeafOptions<T> {
  doc: string
  default?: T
  /** How the default reads when it is not the value itself. */
  defaultText?: string
  /** May be changed while the node runs; the engine then has it as a value that can change. */
  dynamic?: boolean
}

type Read<T> = (input: unknown) => T | undefined

function leaf<T> (kind: string, allowed: string, read: Read<T>, options: LeafOptions<T>, show: (value: T) => string = String, ofKind: (text: string) => boolean = () => false) {
  const parsed = z.unknown().transform((input, context): T => {
    const value = input === undefined ? undefined : read(input)
    if (value !== undefined) return value
    const says = ofKind(asText(input) ?? '') ? 'is out of bounds' : `is not ${kind}`
    const params: LeafIssue = { says, allowed }
    context.issues.push({ code: 'custom', input, params, message: says })
    return z.NEVER
  })
  const text = options.defaultText ?? (options.default === undefined ? undefined : show(options.default))
  return { parsed, note: { doc: options.doc, allowed, default: text, dynamic: options.dynamic ?? false } satisfies KeyNote }
}

function required<T> ({ parsed, note }: ReturnType<typeof leaf<T>>) {
  return parsed.register(keyNotes, note)
}

function defaulted<T> ({ parsed, note }: ReturnType<typeof leaf<T>>, value: () => T) {
  return parsed.default(value as never).register(keyNotes, note) as unknown as z.ZodType<T>
}

function optional<T> ({ parsed, note }: ReturnType<typeof leaf<T>>) {
  return parsed.optional().register(keyNotes, { ...note, default: note.default ?? 'none' }) as unknown as z.ZodOptional<z.ZodType<T>>
}

function asText (input: unknown): string | undefined {
  return typeof input === 'string' ? input : typeof input === 'number' ? String(input) : undefined
}

function bounded (min: number, max: number, read: (text: string) => number | undefined): Read<number> {
  return (input) => {
    const text = asText(input)
    const value = text === undefined ? undefined : read(text)
    return value !== undefined && value >= min && value <= max ? value : undefined
  }
}

type Bounds = LeafOptions<number> & { min: number, max: number, also?: { says: string, holds: (value: number) => boolean } }

function integerLeaf (o: Bounds) {
  const whole = (text: string) => /^-?\d+$/.test(text)
  return leaf('an integer', `${o.min} to ${o.max}`, bounded(o.min, o.max, (text) => whole(text) ? Number(text) : undefined), o, String, whole)
}

function sizeLeaf (o: Bounds) {
  const also = o.also === undefined ? '' : `, ${o.also.says}`
  const read = bounded(o.min, o.max, parseSize)
  return leaf('a size', `${SIZE_FORM}, ${formatSize(o.min)} to ${formatSize(o.max)}${also}`, (input) => {
    const value = read(input)
    return value !== undefined && (o.also?.holds(value) ?? true) ? value : undefined
  }, o, formatSize, (text) => parseSize(text) !== undefined)
}

function durationLeaf (unit: DurationUnit, o: Bounds) {
  return leaf('a duration', `${DURATION_FORM[unit]}, ${o.min} to ${o.max}`, bounded(o.min, o.max, (text) => parseDuration(text, unit)), o,
    String, (text) => parseDuration(text, unit) !== undefined)
}

function booleanLeaf (o: LeafOptions<boolean>) {
  return leaf('a boolean', 'true or false', (input) => {
    return input === true || input === 'true' ? true : input === false || input === 'false' ? false : undefined
  }, o)
}

function choiceLeaf<const T extends string> (choices: readonly T[], o: LeafOptions<T>) {
  return leaf<T>('a choice here', choices.join(', '), (input) => choices.find((choice) => choice === input), o)
}

function textLeaf (not: string, allowed: string, holds: (text: string) => boolean, o: LeafOptions<string>) {
  return leaf(not, allowed, (input) => {
    const text = asText(input)
    return text !== undefined && holds(text) ? text : undefined
  }, o)
}

const pathLeaf = (o: LeafOptions<string>) => textLeaf('a path', 'a path', (text) => text !== '', o)
const anyTextLeaf = (o: LeafOptions<string>) => textLeaf('a text', 'any text', (text) => text !== '', o)

const integer = (o: Bounds & { default: number }) => defaulted(integerLeaf(o), () => o.default)
const size = (o: Bounds & { default: number }) => defaulted(sizeLeaf(o), () => o.default)
const duration = (unit: DurationUnit, o: Bounds & { default: number }) => defaulted(durationLeaf(unit, o), () => o.default)
const flag = (o: LeafOptions<boolean> & { default: boolean }) => defaulted(booleanLeaf(o), () => o.default)
const choice = <const T extends string> (choices: readonly T[], o: LeafOptions<NoInfer<T>> & { default: NoInfer<T> }) =>
  defaulted(choiceLeaf(choices, o), () => o.default)

// Names travel in info commands, where these separate things.
const NAME = /^[^\s:;,/=<>"']+$/
const nameOf = (bytesMax: number) => (o: LeafOptions<string>) => textLeaf('a name', `1 to ${bytesMax} bytes without spaces, quotes and : ; , / = < >`,
  (text) => NAME.test(text) && Buffer.byteLength(text) <= bytesMax, o)
const nameLeaf = nameOf(NAME_BYTES_MAX)

const HOST = /^[A-Za-z0-9_.:-]+$/
const hostAllowed = 'an IP address or a host name'
const endpointLeaf = (o: LeafOptions<string>) => textLeaf('an endpoint', 'host:port, or [address]:port for IPv6', isEndpoint, o)
const seedLeaf = (o: LeafOptions<string>) => textLeaf('an endpoint', 'host:port, or [address]:port for IPv6; with tls-name also host:port:name',
  (text) => isEndpoint(text.replace(/(:\d+):[A-Za-z0-9._-]{1,253}$/, '$1')), o)

function isEndpoint (text: string): boolean {
  const match = /^(?:\[([0-9A-Fa-f:.%]+)\]|([A-Za-z0-9_.-]+)):(\d{1,5})$/.exec(text)
  return match !== null && Number(match[3]) >= 1 && Number(match[3]) <= 65_535
}

/** Text, with commas between entries, or a list. */
function entriesOf (input: unknown): string[] | undefined {
  const entries = typeof input === 'string' ? input.split(',').map((entry) => entry.trim()) : input
  const isList = Array.isArray(entries) && entries.length > 0 && entries.every((entry) => typeof entry === 'string')
  return isList && new Set(entries).size === entries.length ? entries as string[] : undefined
}

const TLS_PROTOCOLS = ['TLSv1.2', 'TLSv1.3'] as const
const TLS_NAME = /^[A-Za-z0-9._-]{1,253}$/
const tlsNameLeaf = (o: LeafOptions<string>) => textLeaf('a TLS name', '1 to 253 of A-Z a-z 0-9 . _ -, not any or false',
  (text) => TLS_NAME.test(text) && text !== 'any' && text !== 'false', o)

// A section that is left out is read as an empty one, so its keys take their defaults.
const absent = {} as never

const service = z.strictObject({
  'node-id': optional(textLeaf('a node id', '1 to 16 hexadecimal digits, not 0', (text) => /^(?!0+$)[0-9a-f]{1,16}$/i.test(text), {
    doc: 'Identity of the node; clients and peers know it by this.', defaultText: 'made at the first start and kept in the work directory'
  })),
  'cluster-name': optional(textLeaf('a cluster name', '1 to 64 bytes without spaces and : ; , =', (text) => /^[^\s:;,=]{1,64}$/.test(text), {
    doc: 'A client that asks for another name does not use this node.'
  })),
  'service-threads': defaulted(integerLeaf({ min: 1, max: 256, doc: 'Threads that serve client connections.', defaultText: 'number of CPUs less one, at least 1' }), serviceThreadsDefault),
  'work-directory': defaulted(pathLeaf({ default: './data', doc: 'Holds the node id, UDF modules, last-ship times, truncations and definitions of secondary indexes.' }), () => './data'),
  'shmem-directory': defaulted(pathLeaf({
    default: '/dev/shm/perigee',
    doc: 'Holds the indexes of type `shmem`, for this user alone. On a file system in memory; it has to have room for them.'
  }), () => '/dev/shm/perigee'),
  'proto-fd-max': integer({ min: 1, max: 1_000_000, default: 15_000, doc: 'Client connections open at one time; further ones are closed at once.' }),
  'proto-fd-idle-ms': duration('ms', { min: 0, max: 86_400_000, default: 0, doc: 'A connection idle for this long is closed; 0 never.' }),
  'transaction-max-ms': duration('ms', { min: 1, max: 60_000, default: 1000, doc: 'Time limit of a request that carries none.' }),
  'transaction-pending-limit': integer({ min: 0, max: 65_535, default: 20, doc: 'Requests that may wait for one record; one more is answered with KEY_BUSY. 0: no limit.' }),
  'sindex-builder-threads': integer({ min: 1, max: 32, default: 4, doc: 'Threads that build the secondary indexes of a namespace, each from a part of its records.' }),
  'sindex-gc-period': duration('s', { min: 1, max: 86_400, default: 10, doc: 'Time between passes that take entries of records that are gone out of secondary indexes.' }),
  'tls-refresh-period': duration('s', { min: 0, max: 86_400, default: 60, doc: 'Time between looks at whether a file of `network.tls` has changed, which is then read again; 0 never.' }),
  'disable-udf-execution': flag({ default: false, doc: 'Every call of a Lua function is refused with FORBIDDEN. Modules can be registered all the same.' }),
  'microsecond-histograms': flag({ default: false, doc: 'Latencies are told in powers of two of a microsecond; else of a millisecond.' }),
  'enable-hist-info': flag({ default: false, doc: 'List the latency of info requests among the others.' }),
  'network-loop': choice(['auto', 'io_uring', 'epoll'], { default: 'auto', doc: 'Event loop of the service threads; `auto` takes io_uring where the kernel allows it.' })
})

/** Where clients are told to connect. */
const accessAddress = (doc: string) => optional(textLeaf('an address', hostAllowed, (text) => HOST.test(text), { doc }))
const accessPort = (doc: string) => optional(integerLeaf({ min: 1, max: 65_535, doc }))

const network = z.strictObject({
  service: z.strictObject({
    address: defaulted(leaf('an address', `any, ${hostAllowed}`, (input) => {
      return input === 'any' ? '0.0.0.0' : typeof input === 'string' && HOST.test(input) ? input : undefined
    }, { defaultText: 'any', doc: 'Where clients connect; `any` is every IPv4 address of the machine.' }), () => '0.0.0.0'),
    port: integer({ min: 0, max: 65_535, default: 3000, doc: 'TCP port for clients; 0 takes a free one.' }),
    'access-address': accessAddress('The address that clients are told, when it is not the one above (NAT, containers).'),
    'access-port': accessPort('The port that clients are told, when it is not the one above.'),
    'alternate-access-address': accessAddress('The address that clients are told which ask for alternate ones (`useAlternateAccessAddress`): those on the other side of a NAT.'),
    'alternate-access-port': accessPort('The port that goes with it; `port` if there is none.'),
    'tls-port': optional(integerLeaf({ min: 0, max: 65_535, doc: 'TCP port for clients that speak TLS, beside the other one; 0 takes a free one. 4333 is customary.' })),
    'tls-name': optional(tlsNameLeaf({ doc: 'Which entry of `network.tls` has the certificate. Required with `tls-port`.' })),
    'tls-access-address': accessAddress('As `access-address`, for clients that speak TLS; `access-address` if there is none.'),
    'tls-access-port': accessPort('As `access-port`, for clients that speak TLS; `tls-port` if there is none.'),
    'tls-alternate-access-address': accessAddress('As `alternate-access-address`, for clients that speak TLS; `alternate-access-address` if there is none.'),
    'tls-alternate-access-port': accessPort('The port that goes with it; `tls-port` if there is none.'),
    'tls-authenticate-client': defaulted(leaf<'any' | 'false' | string[]>('a way to authenticate clients',
      'any (a certificate of the authorities of `ca-file` or `ca-path`), false (none is asked for), or names of which it must carry one', (input) => {
        if (input === 'any' || input === 'false') return input
        if (input === false) return 'false'
        const names = entriesOf(input)
        return names?.every((name) => TLS_NAME.test(name) && name !== 'any' && name !== 'false') === true ? names : undefined
      }, { default: 'any', doc: 'Whether clients have to show a certificate. A name is looked for in its common name and its DNS names.' }), () => 'any' as const)
  }).prefault(absent),
  tls: z.array(z.strictObject({
    name: required(tlsNameLeaf({ doc: 'Name of the entry, and the name that clients expect in the certificate.' })),
    'cert-file': required(pathLeaf({ doc: 'The certificate, followed by those between it and its authority, in PEM.' })),
    'key-file': required(pathLeaf({ doc: 'Its private key in PEM, not encrypted.' })),
    'ca-file': optional(pathLeaf({ doc: 'Authorities that the certificates of clients are checked against, in PEM.' })),
    'ca-path': optional(pathLeaf({ doc: 'A directory of such files; every file in it is read.' })),
    protocols: defaulted(leaf<Array<typeof TLS_PROTOCOLS[number]>>('a list of protocols', `${TLS_PROTOCOLS.join(', ')}, or both`, (input) => {
      const entries = entriesOf(input)
      return entries?.every((entry) => TLS_PROTOCOLS.some((protocol) => protocol === entry)) === true ? entries as typeof TLS_PROTOCOLS[number][] : undefined
    }, { default: [...TLS_PROTOCOLS], doc: 'Versions of TLS that are accepted.' }, (protocols) => protocols.join(', ')), () => [...TLS_PROTOCOLS])
  })).max(TLS_SECTIONS_MAX).default([])
})

const logging = z.strictObject({
  level: choice(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'], { default: 'info', doc: 'The least severe level that is written.' }),
  format: choice(['auto', 'json', 'pretty'], { default: 'auto', doc: 'Lines of JSON, or for people; `auto` is pretty on a terminal.' })
})

const modLua = z.strictObject({
  workers: defaulted(integerLeaf({ min: 1, max: 64, doc: 'Threads that run Lua, one virtual machine each.', defaultText: 'number of CPUs, at most 4' }), luaWorkersDefault),
  'time-limit-ms': optional(durationLeaf('ms', {
    min: 1, max: 60_000, doc: 'Longest run of one call, whatever the client allows.', defaultText: '`service.transaction-max-ms`'
  })),
  'call-memory': size({
    min: 1 * MiB, max: 1 * GiB, default: 256 * MiB,
    doc: 'What one call may take: once of all strings and bytes that it makes, once of tables, lists, maps and functions that it has. A worker has twice as much.'
  })
})

const powerOfTwo = { says: 'a power of two', holds: (value: number) => Number.isInteger(Math.log2(value)) }

const storageCommon = {
  'write-block-size': size({ min: 64 * KiB, max: 8 * MiB, default: 8 * MiB, also: powerOfTwo, doc: 'Unit of writing, reuse and defragmentation; no record is larger.' }),
  'flush-size': size({ min: 4 * KiB, max: 8 * MiB, default: 1 * MiB, also: powerOfTwo, doc: 'A block is written in pieces of this size as it fills.' }),
  'flush-max-ms': duration('ms', { min: 1, max: 60_000, default: 1000, doc: 'A block that is not full is written after this long.' }),
  'max-write-cache': size({ min: 1 * MiB, max: 64 * GiB, default: 64 * MiB, doc: 'Bytes that wait to be written; beyond it writes are answered with DEVICE_OVERLOAD.' }),
  'post-write-cache': size({ min: 0, max: 1 * TiB, default: 256 * MiB, doc: 'Written blocks kept in memory for reads.' }),
  'defrag-lwm-pct': integer({ dynamic: true, min: 1, max: 99, default: 50, doc: 'A block with a smaller share of live bytes is defragmented.' }),
  'defrag-sleep': integer({ dynamic: true, min: 0, max: 1_000_000, default: 1000, doc: 'Microseconds between two defragmented blocks; less as free blocks run out.' }),
  'defrag-queue-min': integer({ dynamic: true, min: 0, max: 65_535, default: 0, doc: 'Defragmentation waits until this many blocks need it, unless free blocks run out.' }),
  'tomb-raider-sleep': integer({ dynamic: true, min: 0, max: 1_000_000, default: 1000, doc: 'Pause in microseconds between two blocks that are read to reclaim tombstones.' }),
  compression: choice(['none', 'lz4', 'zstd'], { dynamic: true, default: 'none', doc: 'Compression of the bins of new versions, where that makes them smaller. Versions of either form are read at all times.' }),
  'compression-level': integer({ dynamic: true, min: 1, max: 9, default: 3, doc: 'Of zstd: 1 is fastest, 9 smallest.' })
}

// Exactly one of files and devices; cross-check.ts says so.
const backing = {
  files: z.array(required(pathLeaf({ doc: 'Files that hold the records; made when missing. Used by this namespace alone.' }))).min(1).max(128).optional(),
  filesize: optional(sizeLeaf({ min: 16 * MiB, max: 2 * TiB, doc: 'Size of each file. Required with `files`.' })),
  devices: z.array(required(pathLeaf({
    doc: 'Raw block devices that hold the records, each as a whole, in place of `files`. They have to be blank, and neither mounted nor in use.'
  }))).min(1).max(128).optional(),
  'commit-to-device': flag({ default: false, doc: 'A write is answered when it is durable. Without it `flush-max-ms` of writes are at risk.' }),
  encryption: choice(['none', 'aes-128', 'aes-256'], { default: 'none', doc: 'What lies on the files or devices is encrypted (XTS). Chosen when they are new; it cannot be changed later.' }),
  'encryption-key-file': optional(pathLeaf({
    doc: 'File that holds the key, 16 or 32 bytes: in hexadecimal, in base64, or as it is. Required with `encryption`; without it the records are lost.'
  }))
}

const storageMemory = z.strictObject({
  type: z.literal('memory'),
  'data-size': optional(sizeLeaf({
    min: 16 * MiB, max: 64 * TiB, doc: 'Memory for records that no file or device holds: they are gone when the node stops.',
    defaultText: 'size of the files or devices'
  })),
  ...backing,
  ...storageCommon
})

const storageDevice = z.strictObject({
  type: z.literal('device'),
  ...backing,
  ...storageCommon
})

const storageEngine = z.discriminatedUnion('type', [storageMemory, storageDevice])

const set = z.strictObject({
  name: required(nameOf(SET_NAME_BYTES_MAX)({ doc: 'Name of the set. One that is not listed has the defaults.' })),
  'default-ttl': duration('s', { dynamic: true, min: 0, max: TTL_SECONDS_MAX, default: 0, doc: 'Time to live of a record that is written without one; 0 takes the namespace\'s.' }),
  'default-read-touch-ttl-pct': integer({ dynamic: true, min: -1, max: 100, default: 0, doc: 'As for the namespace; 0 takes the namespace\'s, -1 never renews.' }),
  'disable-eviction': flag({ dynamic: true, default: false, doc: 'Records of the set are never evicted.' }),
  'enable-index': flag({ dynamic: true, default: false, doc: 'Keeps an index of the records of the set, so that queries of the set visit these alone, however large the namespace is.' }),
  'stop-writes-count': integer({ dynamic: true, min: 0, max: 1e12, default: 0, doc: 'Writes to the set are answered with FORBIDDEN from this many records on; 0 never.' }),
  'stop-writes-size': size({ dynamic: true, min: 0, max: 1024 * TiB, default: 0, doc: 'As `stop-writes-count`, by stored bytes; 0 never.' })
})

/** The settings of a set that the configuration does not name. */
export function setDefaults (name: string): z.output<typeof set> {
  return set.parse({ name })
}

const namespace = z.strictObject({
  name: required(nameLeaf({ doc: 'Name of the namespace.' })),
  'replication-factor': integer({ min: 1, max: 255, default: 1, doc: 'Copies of each record, the first included.' }),
  'default-ttl': duration('s', { dynamic: true, min: 0, max: TTL_SECONDS_MAX, default: 0, doc: 'Time to live of a record that is written without one; 0 never expires.' }),
  'nsup-period': duration('s', { dynamic: true, min: 0, max: 86_400, default: 120, doc: 'Time between removals of expired records; 0 turns them off.' }),
  'allow-ttl-without-nsup': flag({ dynamic: true, default: false, doc: 'Accept a time to live though `nsup-period` is 0: expired records read as absent but keep their space.' }),
  'max-record-size': size({ dynamic: true, min: 64, max: 8 * MiB, default: 1 * MiB, doc: 'A larger record is answered with RECORD_TOO_BIG. At most `write-block-size`.' }),
  'default-read-touch-ttl-pct': integer({ dynamic: true, min: 0, max: 100, default: 0, doc: 'A read renews the time to live when less than this share of it is left; 0 never.' }),
  'stop-writes-used-pct': integer({ dynamic: true, min: 0, max: 100, default: 70, doc: 'Writes stop above this share of storage used; 0 never.' }),
  'stop-writes-avail-pct': integer({ dynamic: true, min: 0, max: 100, default: 5, doc: 'Writes stop below this share of free blocks; 0 never.' }),
  'stop-writes-sys-memory-pct': integer({ dynamic: true, min: 0, max: 100, default: 90, doc: 'Writes stop above this share of the memory of the machine, or of the control group, in use; 0 never.' }),
  'indexes-memory-budget': size({ dynamic: true, min: 0, max: 64 * TiB, default: 0, doc: 'Writes stop when indexes take more memory; 0 never.' }),
  'evict-used-pct': integer({ dynamic: true, min: 0, max: 100, default: 0, doc: 'Records are evicted above this share of storage used; 0 never.' }),
  'evict-indexes-memory-pct': integer({ dynamic: true, min: 0, max: 100, default: 0, doc: 'Records are evicted above this share of `indexes-memory-budget`; 0 never.' }),
  'evict-tenths-pct': integer({ dynamic: true, min: 1, max: 1000, default: 5, doc: 'Tenths of a percent of the records that can expire that one pass may evict.' }),
  'evict-hist-buckets': integer({ dynamic: true, min: 100, max: 10_000_000, default: 10_000, doc: 'Buckets in which a pass counts times to live, to find what is nearest to its end.' }),
  'tomb-raider-eligible-age': duration('s', { dynamic: true, min: 0, max: TTL_SECONDS_MAX, default: 86_400, doc: 'Age from which a tombstone is reclaimed, once no older version is left on the devices.' }),
  'background-query-max-rps': integer({ dynamic: true, min: 1, max: 1_000_000, default: 10_000, doc: 'Records a second that one background query may change; a query that asks for more is refused, one that does not say gets this.' }),
  'tomb-raider-period': duration('s', { dynamic: true, min: 0, max: TTL_SECONDS_MAX, default: 86_400, doc: 'Time between passes that reclaim tombstones, each of which reads the devices; 0 turns them off.' }),
  'index-type': optional(choiceLeaf(['memory', 'shmem'], {
    doc: 'Where the index lies: in `shmem` it outlives the process, and the next start takes it over instead of reading the devices. `shmem` needs a `storage-engine` of type `device`.',
    defaultText: 'shmem with a `storage-engine` of type `device`, else memory'
  })),
  sets: z.array(set).max(SETS_MAX).default([]),
  'storage-engine': storageEngine
})

const dcNamespace = z.strictObject({
  name: required(nameLeaf({ doc: 'A namespace of this node.' })),
  'remote-namespace': optional(nameLeaf({ doc: 'Its name over there.', defaultText: 'the same name' })),
  'max-throughput': integer({ min: 1, max: 10_000_000, default: 100_000, doc: 'Records shipped a second.' }),
  'transaction-queue-limit': integer({ min: 16, max: 1_048_576, default: 16_384, doc: 'Changes queued for each partition; beyond it the partition is walked instead.' }),
  'hot-key-ms': duration('ms', { min: 0, max: 5000, default: 100, doc: 'One record is shipped at most once in this time; versions between are skipped.' })
})

const dcCommon = {
  name: required(nameLeaf({ doc: 'Name of the datacenter.' })),
  'period-ms': duration('ms', { min: 1, max: 1000, default: 100, doc: 'Longest wait before a change is picked up.' }),
  namespaces: z.array(dcNamespace).min(1).max(NAMESPACES_MAX)
}

const valueFormat = choice(['json', 'flat-json'], { default: 'json', doc: 'Form of a change: bins with their types, or bins as top-level fields.' })

const sasl = z.strictObject({
  mechanism: required(choiceLeaf(['plain', 'scram-sha-256', 'scram-sha-512'], { doc: 'How to log in.' })),
  username: required(anyTextLeaf({ doc: 'User.' })),
  'password-file': required(pathLeaf({ doc: 'File whose first line is the password; it is read at the start.' }))
})

const kafka = z.strictObject({
  brokers: z.array(required(endpointLeaf({ doc: 'Brokers to start from.' }))).min(1).max(64),
  topic: required(textLeaf('a topic name', '1 to 249 of A-Z a-z 0-9 . _ -', (text) => /^[A-Za-z0-9._-]{1,249}$/.test(text), { doc: 'Topic that receives the changes.' })),
  format: valueFormat,
  'client-id': defaulted(anyTextLeaf({ default: 'perigee', doc: 'Name that the brokers see.' }), () => 'perigee'),
  acks: defaulted(leaf<-1 | 0 | 1>('an acknowledgement level', '-1 (all in-sync replicas), 0 (none), 1 (leader)', (input) => {
    return ([-1, 0, 1] as const).find((level) => String(level) === asText(input))
  }, { default: -1, doc: 'Replicas that confirm. Less than all can lose changes.' }), () => -1 as const),
  compression: choice(['none', 'gzip'], { default: 'none', doc: 'Compression of batches.' }),
  'request-timeout-ms': duration('ms', { min: 100, max: 300_000, default: 30_000, doc: 'A request to a broker fails after this long; its changes are shipped again.' }),
  ssl: flag({ default: false, doc: 'Connect by TLS.' }),
  'ssl-ca-file': optional(pathLeaf({ doc: 'Certificates to trust, in PEM.', defaultText: 'those of the system' })),
  sasl: sasl.optional()
})

const file = z.strictObject({
  path: required(pathLeaf({ doc: 'Changes are appended here, one line each.' })),
  format: valueFormat
})

const datacenter = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('cluster'),
    'node-address-ports': z.array(required(seedLeaf({ doc: 'Nodes to start from; the others are discovered. A name is the one that the certificate carries.' }))).min(1).max(64),
    'tls-name': optional(tlsNameLeaf({
      doc: 'Ships over TLS, with an entry of `network.tls`: its authorities are those of the nodes over there, its certificate is shown to them. The ports are theirs for TLS then.'
    })),
    ...dcCommon
  }),
  z.strictObject({ type: z.literal('kafka'), kafka, ...dcCommon }),
  z.strictObject({ type: z.literal('file'), file, ...dcCommon })
])

const xdr = z.strictObject({ dcs: z.array(datacenter).max(DATACENTERS_MAX).default([]) })

const document = z.strictObject({
  service: service.prefault(absent),
  network: network.prefault(absent),
  logging: logging.prefault(absent),
  'mod-lua': modLua.prefault(absent),
  namespaces: z.array(namespace).min(1).max(NAMESPACES_MAX),
  xdr: xdr.prefault(absent)
})

/** What a file may contain; `walkKeys` and the reference page describe this. */
export const documentSchema = document

/** The document with what depends on other keys filled in. */
export const nodeConfigSchema = document.transform((config) => ({
  ...config,
  namespaces: config.namespaces.map((namespace) => ({
    ...namespace, 'index-type': namespace['index-type'] ?? (namespace['storage-engine'].type === 'device' ? 'shmem' as const : 'memory' as const)
  })),
  'mod-lua': { ...config['mod-lua'], 'time-limit-ms': config['mod-lua']['time-limit-ms'] ?? config.service['transaction-max-ms'] }
}))

/** A whole, checked configuration: kebab-case names, bytes, seconds and milliseconds as plain numbers, so it is JSON for the engine too. */
export type NodeConfig = z.output<typeof nodeConfigSchema>
export type NamespaceConfig = NodeConfig['namespaces'][number]
export type SetConfig = NamespaceConfig['sets'][number]
export type StorageConfig = NamespaceConfig['storage-engine']
export type DatacenterConfig = NodeConfig['xdr']['dcs'][number]
export type DatacenterNamespaceConfig = DatacenterConfig['namespaces'][number]
export type TlsConfig = NodeConfig['network']['tls'][number]
export type ClusterDatacenterConfig = Extract<DatacenterConfig, { type: 'cluster' }>
export type KafkaDatacenterConfig = Extract<DatacenterConfig, { type: 'kafka' }>
export type FileDatacenterConfig = Extract<DatacenterConfig, { type: 'file' }>
export type LogLevel = NodeConfig['logging']['level']
export type LogFormat = NodeConfig['logging']['format']
