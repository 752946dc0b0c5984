// What no single key can tell: names that must differ or must exist, values that contradict each other. Works on the raw
// document, so that these are reported together with the schema's issues; what the schema refuses is passed over here.

import { GiB, MiB } from './defaults.js'
import { formatSize, parseDuration, parseSize } from './units.js'

export interface CrossIssue {
  path: Array<string | number>
  message: string
}

type Section = Record<string, unknown>

export function crossCheck (root: unknown): CrossIssue[] {
  const issues: CrossIssue[] = []
  const document = section(root)
  const namespaces = list(document['namespaces']).map(section)
  const names = namespaces.map((namespace) => text(namespace['name']))

  unique(names, (i) => ['namespaces', i, 'name'], issues)
  const files = new Map<string, string>()
  namespaces.forEach((namespace, i) => {
    timeToLive(namespace, ['namespaces', i], issues)
    eviction(namespace, ['namespaces', i], issues)
    unique(list(namespace['sets']).map((set) => text(section(set)['name'])), (j) => ['namespaces', i, 'sets', j, 'name'], issues)
    indexType(namespace, ['namespaces', i], issues)
    storage(namespace, ['namespaces', i], files, issues)
  })

  tls(section(document['network']), issues)

  const datacenters = list(section(document['xdr'])['dcs']).map(section)
  unique(datacenters.map((dc) => text(dc['name'])), (i) => ['xdr', 'dcs', i, 'name'], issues)
  datacenters.forEach((dc, i) => {
    shippingTls(dc, ['xdr', 'dcs', i], section(document['network']), issues)
    const shipped = list(dc['namespaces']).map((entry) => text(section(entry)['name']))
    const at = (j: number) => ['xdr', 'dcs', i, 'namespaces', j, 'name']
    unique(shipped, at, issues)
    shipped.forEach((name, j) => {
      if (name !== undefined && !names.includes(name)) {
        issues.push({ path: at(j), message: `${JSON.stringify(name)} is not a namespace of this node; allowed: ${names.filter((n) => n !== undefined).join(', ')}` })
      }
    })
  })
  return issues
}

// Names of nodes are checked only where there is TLS, and that takes an entry.
function shippingTls (dc: Section, path: CrossIssue['path'], network: Section, issues: CrossIssue[]): void {
  const known = list(network['tls']).map((entry) => text(section(entry)['name'])).filter((name) => name !== undefined)
  const named = text(dc['tls-name'])
  if (named !== undefined && !known.includes(named)) {
    issues.push({ path: [...path, 'tls-name'], message: `${JSON.stringify(named)} is not the name of an entry of network.tls; allowed: ${known.length === 0 ? 'there is none' : known.join(', ')}` })
  }
  list(dc['node-address-ports']).forEach((seed, j) => {
    if (named === undefined && /:\d+:[^:\]]+$/.test((text(seed) ?? '').replace(/^\[[^\]]*\]/, ''))) {
      issues.push({ path: [...path, 'node-address-ports', j], message: `${JSON.stringify(seed)} names a certificate without tls-name; allowed: host:port, or a tls-name` })
    }
  })
}

// A port needs a certificate, and clients that have to show theirs need one to be checked against.
function tls (network: Section, issues: CrossIssue[]): void {
  const entries = list(network['tls']).map(section)
  const names = entries.map((entry) => text(entry['name']))
  unique(names, (i) => ['network', 'tls', i, 'name'], issues)
  const service = section(network['service'])
  const at = (key: string) => ['network', 'service', key]
  const named = text(service['tls-name'])
  const known = names.filter((name) => name !== undefined).join(', ')
  const index = names.findIndex((name) => name !== undefined && name === named)
  if (text(service['tls-port']) === undefined) {
    if (named !== undefined) issues.push({ path: at('tls-name'), message: 'is given without tls-port; allowed: with tls-port only' })
  } else if (named === undefined) {
    issues.push({ path: at('tls-name'), message: `is missing; allowed: the name of an entry of network.tls${known === '' ? '' : `, ${known}`}` })
  } else if (index < 0) {
    issues.push({ path: at('tls-name'), message: `${JSON.stringify(named)} is not the name of an entry of network.tls; allowed: ${known === '' ? 'there is none' : known}` })
  } else if (text(service['tls-authenticate-client']) !== 'false' && entries[index]!['ca-file'] === undefined && entries[index]!['ca-path'] === undefined) {
    const given = service['tls-authenticate-client']
    issues.push({
      path: given === undefined ? ['network', 'tls', index, 'ca-file'] : at('tls-authenticate-client'),
      message: `${given === undefined ? 'is missing while tls-authenticate-client is any' : `${JSON.stringify(given)} without ca-file or ca-path`}; allowed: a ca-file, a ca-path, or tls-authenticate-client: false`
    })
  }
  const port = text(service['tls-port'])
  if (port !== undefined && Number(port) !== 0 && Number(port) === Number(text(service['port']) ?? 3000)) {
    issues.push({ path: at('tls-port'), message: `${JSON.stringify(port)} is the port for plain connections too; allowed: another one` })
  }
}

function unique (names: Array<string | undefined>, at: (i: number) => CrossIssue['path'], issues: CrossIssue[]): void {
  names.forEach((name, i) => {
    if (name !== undefined && names.indexOf(name) < i) {
      issues.push({ path: at(i), message: `${JSON.stringify(name)} is used twice; allowed: each name once` })
    }
  })
}

// Such records would never be removed, and the engine refuses to write them.
function timeToLive (namespace: Section, path: CrossIssue['path'], issues: CrossIssue[]): void {
  if (seconds(namespace['nsup-period']) !== 0 || text(namespace['allow-ttl-without-nsup']) === 'true') return
  const sets = list(namespace['sets']).map((set, i) => ({ of: section(set), at: [...path, 'sets', i] }))
  for (const { of, at } of [{ of: namespace, at: path }, ...sets]) {
    if ((seconds(of['default-ttl']) ?? 0) === 0) continue
    issues.push({
      path: [...at, 'default-ttl'],
      message: `${JSON.stringify(of['default-ttl'])} while nsup-period is 0; allowed: 0, an nsup-period above 0, or allow-ttl-without-nsup: true`
    })
  }
}

// An index in shared memory is taken over together with what lies on devices; memory has to be read from them anyway.
function indexType (namespace: Section, path: CrossIssue['path'], issues: CrossIssue[]): void {
  if (text(namespace['index-type']) !== 'shmem' || text(section(namespace['storage-engine'])['type']) !== 'memory') return
  issues.push({ path: [...path, 'index-type'], message: '"shmem" while storage-engine is of type memory; allowed: memory, or a storage-engine of type device' })
}

// Records are evicted by the passes that remove what has expired.
function eviction (namespace: Section, path: CrossIssue['path'], issues: CrossIssue[]): void {
  const wanted = ['evict-used-pct', 'evict-indexes-memory-pct'].filter((key) => Number(text(namespace[key]) ?? 0) > 0)
  const report = (key: string, other: string) => issues.push({
    path: [...path, key], message: `${JSON.stringify(namespace[key])} while ${other} is 0; allowed: 0, or ${other} above 0`
  })
  if (seconds(namespace['nsup-period']) === 0) wanted.forEach((key) => report(key, 'nsup-period'))
  else if (wanted.includes('evict-indexes-memory-pct') && (bytes(namespace['indexes-memory-budget']) ?? 0) === 0) {
    report('evict-indexes-memory-pct', 'indexes-memory-budget')
  }
}

/** Blocks that a file, or the memory of a namespace, needs to have: one being written, some to defragment into, some to hold data. */
const BLOCKS_MIN = 8

function storage (namespace: Section, at: CrossIssue['path'], files: Map<string, string>, issues: CrossIssue[]): void {
  const engine = section(namespace['storage-engine'])
  const path = [...at, 'storage-engine']
  const block = bytes(engine['write-block-size']) ?? 8 * MiB

  const flush = bytes(engine['flush-size'])
  if ((flush ?? MiB) > block) {
    issues.push({ path: [...path, flush === undefined ? 'write-block-size' : 'flush-size'], message: `flush-size is ${formatSize(flush ?? MiB)}; allowed: at most write-block-size, ${formatSize(block)}` })
  }
  const record = bytes(namespace['max-record-size'])
  if ((record ?? MiB) > block) {
    const owner = record === undefined ? [...path, 'write-block-size'] : [...at, 'max-record-size']
    issues.push({ path: owner, message: `max-record-size is ${formatSize(record ?? MiB)}; allowed: at most write-block-size, ${formatSize(block)}` })
  }
  place(engine, path, issues)
  for (const key of ['data-size', 'filesize']) {
    const size = bytes(engine[key])
    if (size !== undefined && size < BLOCKS_MIN * block) {
      issues.push({ path: [...path, key], message: `${JSON.stringify(engine[key])} is less than ${BLOCKS_MIN} write blocks; allowed: at least ${formatSize(BLOCKS_MIN * block)}` })
    }
  }
  // An explicit cap only: the default is far below it.
  if ((bytes(engine['max-write-cache']) ?? GiB) < 2 * block) {
    issues.push({ path: [...path, 'max-write-cache'], message: `${JSON.stringify(engine['max-write-cache'])} is less than 2 write blocks; allowed: at least ${formatSize(2 * block)}` })
  }
  for (const key of ['files', 'devices']) {
    list(engine[key]).forEach((entry, i) => {
      const file = text(entry)
      if (file === undefined) return
      const owner = files.get(file)
      if (owner !== undefined) issues.push({ path: [...path, key, i], message: `${JSON.stringify(file)} is used twice (${owner}); allowed: each once` })
      else files.set(file, text(namespace['name']) ?? String(at[1]))
    })
  }
}

// Where the records lie: in one place, and with what that place needs.
function place (engine: Section, path: CrossIssue['path'], issues: CrossIssue[]): void {
  const type = text(engine['type'])
  if (type !== 'memory' && type !== 'device') return
  const places = type === 'memory' ? ['data-size', 'files', 'devices'] : ['files', 'devices']
  const [first, ...more] = places.filter((key) => engine[key] !== undefined)
  const allowed = `allowed: one of ${places.join(', ')}`
  if (first === undefined) issues.push({ path: [...path, places[0]!], message: `is missing; ${allowed}` })
  for (const key of more) issues.push({ path: [...path, key], message: `is given together with ${first}; ${allowed}` })

  const sized = engine['filesize'] !== undefined
  if (engine['files'] !== undefined && !sized) issues.push({ path: [...path, 'filesize'], message: 'is missing; allowed: the size of each file, 16M to 2T' })
  if (engine['files'] === undefined && sized) issues.push({ path: [...path, 'filesize'], message: 'is given without files; allowed: with files only' })
  if (first === 'data-size' && text(engine['commit-to-device']) === 'true') {
    issues.push({ path: [...path, 'commit-to-device'], message: '"true" without files or devices; allowed: false, or files or devices' })
  }
  const encryption = text(engine['encryption']) ?? 'none'
  const key = engine['encryption-key-file']
  if (first === 'data-size' && encryption !== 'none') {
    issues.push({ path: [...path, 'encryption'], message: `${JSON.stringify(encryption)} without files or devices; allowed: none, or files or devices` })
  } else if (encryption !== 'none' && key === undefined) {
    issues.push({ path: [...path, 'encryption-key-file'], message: 'is missing; allowed: a path, or encryption: none' })
  } else if (encryption === 'none' && key !== undefined) {
    issues.push({ path: [...path, 'encryption-key-file'], message: 'is given with encryption: none; allowed: with aes-128 or aes-256' })
  }
}

function section (value: unknown): Section {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? value as Section : {}
}

function list (value: unknown): unknown[] {
  return Array.isArray(value) ? value : []
}

function text (value: unknown): string | undefined {
  return typeof value === 'object' || value === undefined ? undefined : String(value)
}

function bytes (value: unknown): number | undefined {
  const written = text(value)
  return written === undefined ? undefined : parseSize(written)
}

function seconds (value: unknown): number | undefined {
  const written = text(value)
  return written === undefined ? undefined : parseDuration(written, 's')
}
