import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { MiB } from './defaults.js'
import { allKeys } from './keys.js'
import { ConfigError, loadConfig, parseConfig, parseConfigText } from './load.js'
import { TABLES_BEGIN, TABLES_END, renderKeyTables } from './reference.js'

const root = packageRoot(dirname(fileURLToPath(import.meta.url)))

function packageRoot (directory: string): string {
  return existsSync(join(directory, 'package.json')) ? directory : packageRoot(dirname(directory))
}

const namespaces = `
namespaces:
  - name: test
    storage-engine: { type: memory, data-size: 1G }
`

function messages (text: string): string[] {
  try {
    parseConfigText(text, 'east.yaml')
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error))
    return error.message.split('\n')
  }
  return []
}

function theMessage (text: string): string {
  const all = messages(text)
  assert.equal(all.length, 1, all.join('\n'))
  return all[0]!
}

test('the shortest configuration has every default', () => {
  const config = parseConfigText(namespaces)
  assert.equal(config.network.service.address, '0.0.0.0')
  assert.equal(config.network.service.port, 3000)
  assert.ok(config.service['service-threads'] >= 1)
  assert.deepEqual(config.logging, { level: 'info', format: 'auto' })
  assert.equal(config['mod-lua']['time-limit-ms'], 1000)
  assert.deepEqual(config.xdr, { dcs: [] })
  assert.deepEqual(config.namespaces[0], {
    name: 'test',
    'replication-factor': 1,
    'default-ttl': 0,
    'nsup-period': 120,
    'allow-ttl-without-nsup': false,
    'max-record-size': MiB,
    'default-read-touch-ttl-pct': 0,
    'stop-writes-used-pct': 70,
    'stop-writes-avail-pct': 5,
    'stop-writes-sys-memory-pct': 90,
    'indexes-memory-budget': 0,
    'evict-used-pct': 0,
    'evict-indexes-memory-pct': 0,
    'evict-tenths-pct': 5,
    'evict-hist-buckets': 10_000,
    'tomb-raider-eligible-age': 86_400,
    'background-query-max-rps': 10_000,
    'tomb-raider-period': 86_400,
    'index-type': 'memory',
    sets: [],
    'storage-engine': {
      type: 'memory',
      'data-size': 1024 * MiB,
      'commit-to-device': false,
      encryption: 'none',
      'write-block-size': 8 * MiB,
      'flush-size': MiB,
      'flush-max-ms': 1000,
      'max-write-cache': 64 * MiB,
      'post-write-cache': 256 * MiB,
      'defrag-lwm-pct': 50,
      'defrag-sleep': 1000,
      'defrag-queue-min': 0,
      'tomb-raider-sleep': 1000,
      compression: 'none',
      'compression-level': 3
    }
  })
})

test('each example loads', async () => {
  for (const name of ['memory', 'device', 'east', 'west']) await loadConfig(join(root, 'config/examples', `${name}.yaml`))
  const east = await loadConfig(join(root, 'config/examples/east.yaml'))
  assert.equal(east.service['node-id'], 'a1')
  assert.deepEqual(east.xdr.dcs.map((dc) => dc.type), ['cluster', 'file'])
})

test('a loaded configuration is JSON that loads to the same configuration', async () => {
  for (const name of ['memory', 'device', 'east', 'west']) {
    const config = await loadConfig(join(root, 'config/examples', `${name}.yaml`))
    assert.deepEqual(parseConfig(JSON.parse(JSON.stringify(config))), config)
  }
})

test('a node id and a name stay the text that was written', () => {
  const config = parseConfigText('service: { node-id: 0123 }\nnamespaces: [{ name: 1e5, storage-engine: { type: memory, data-size: 1G } }]')
  assert.equal(config.service['node-id'], '0123')
  assert.equal(config.namespaces[0]!.name, '1e5')
})

test('the call limit of Lua follows the limit of a request', () => {
  assert.equal(parseConfigText(`service: { transaction-max-ms: 2s }${namespaces}`)['mod-lua']['time-limit-ms'], 2000)
  assert.equal(parseConfigText(`mod-lua: { time-limit-ms: 50 }${namespaces}`)['mod-lua']['time-limit-ms'], 50)
})

test('a message names file, line, path, value and what is allowed', () => {
  assert.equal(theMessage(`namespaces:
  - name: test
    storage-engine:
      type: device
      files: [a.dat]
      filesize: 4X
`), 'east.yaml:6: namespaces[0].storage-engine.filesize: "4X" is not a size; allowed: a number with K, M, G or T, 16M to 2T')
})

test('every error is reported at once, in the order of the lines', () => {
  const all = messages(`service:
  service-threads: many
  proto_fd_max: 10
logging: { level: loud }
namespaces:
  - name: test
    default-ttl: 1d
    nsup-period: 0
    storage-engine: { type: device, files: [a.dat], filesize: 4G, data-size: 1G }
  - name: test
    storage-engine: { type: tape }
xdr:
  dcs:
    - name: west
      type: kafka
      namespaces: [{ name: prod }]
`)
  assert.deepEqual(all.map((line) => line.split(';')[0]), [
    'east.yaml:2: service.service-threads: "many" is not an integer',
    'east.yaml:3: service.proto_fd_max: unknown key',
    'east.yaml:4: logging.level: "loud" is not a choice here',
    'east.yaml:7: namespaces[0].default-ttl: "1d" while nsup-period is 0',
    'east.yaml:9: namespaces[0].storage-engine.data-size: is a key of type memory, and this is of type device',
    'east.yaml:10: namespaces[1].name: "test" is used twice',
    'east.yaml:11: namespaces[1].storage-engine.type: "tape" is not a type',
    'east.yaml:14: xdr.dcs[0].kafka: is missing',
    'east.yaml:16: xdr.dcs[0].namespaces[0].name: "prod" is not a namespace of this node'
  ])
})

test('a misspelt key names the one that was meant', () => {
  assert.match(theMessage(`service: { proto_fd_max: 10 }${namespaces}`), /^east\.yaml:1: .*did you mean proto-fd-max\?/)
})

test('what is missing is reported on the line of the section that lacks it', () => {
  assert.match(theMessage('namespaces:\n  - storage-engine: { type: memory, data-size: 1G }\n'), /^east\.yaml:2: namespaces\[0\]\.name: is missing; allowed: 1 to 31 bytes/)
  assert.match(theMessage('namespaces:\n  - name: a\n    storage-engine:\n      type: device\n      files: [x]\n'), /^east\.yaml:3: namespaces\[0\]\.storage-engine\.filesize: is missing/)
  assert.match(theMessage('namespaces:\n  - name: a\n'), /^east\.yaml:2: namespaces\[0\]\.storage-engine/)
  assert.match(theMessage(''), /namespaces: is missing/)
})

test('a section of the wrong kind is named with what it holds', () => {
  assert.match(theMessage(`service: 7${namespaces}`), /^east\.yaml:1: service: "7" is not a section; allowed: the keys node-id,/)
  assert.match(theMessage('namespaces: { name: test }'), /^east\.yaml:1: namespaces: .* is not a list/)
  assert.match(theMessage('namespaces: []'), /^east\.yaml:1: namespaces: has 0 entries; allowed: at least 1/)
})

test('a value of the right kind is out of bounds rather than not of its kind', () => {
  assert.match(theMessage(`service: { service-threads: 300 }${namespaces}`), /"300" is out of bounds; allowed: 1 to 256/)
  assert.match(theMessage(engine('type: memory, data-size: 1K')), /"1K" is out of bounds; allowed: .*16M to 64T/)
})

test('broken YAML is reported with its line', () => {
  assert.match(messages('namespaces:\n  - name: [a\n')[0]!, /^east\.yaml:\d+: /)
  assert.match(messages(`service: {}\nservice: {}${namespaces}`)[0]!, /^east\.yaml:2: .*unique/)
})

const withTls = (service: string, entries = '{ name: a.example, cert-file: a.pem, key-file: a-key.pem, ca-file: ca.pem }') =>
  `network: { service: { ${service} }, tls: [${entries}] }${namespaces}`

test('a port for TLS has a certificate, and authorities where clients show theirs', () => {
  const config = parseConfigText(withTls('tls-port: 4333, tls-name: a.example'))
  assert.equal(config.network.service['tls-authenticate-client'], 'any')
  assert.deepEqual(config.network.tls, [{ name: 'a.example', 'cert-file': 'a.pem', 'key-file': 'a-key.pem', 'ca-file': 'ca.pem', protocols: ['TLSv1.2', 'TLSv1.3'] }])
  assert.deepEqual(parseConfig(JSON.parse(JSON.stringify(config))), config)

  const refuses = (text: string, message: RegExp) => { assert.match(theMessage(text), message) }
  const bare = '{ name: a.example, cert-file: a.pem, key-file: a-key.pem }'
  refuses(withTls('tls-port: 4333'), /network\.service\.tls-name: is missing; allowed: the name of an entry of network\.tls, a\.example$/)
  refuses(withTls('tls-port: 4333, tls-name: b.example'), /tls-name: "b\.example" is not the name of an entry of network\.tls; allowed: a\.example$/)
  refuses(withTls('tls-name: a.example'), /tls-name: is given without tls-port/)
  refuses(withTls('tls-port: 4333, tls-name: a.example', bare), /network\.tls\[0\]\.ca-file: is missing while tls-authenticate-client is any; allowed: a ca-file, a ca-path, or/)
  refuses(withTls('tls-port: 4333, tls-name: a.example, tls-authenticate-client: [billing]', bare), /tls-authenticate-client: \["billing"\] without ca-file or ca-path/)
  refuses(withTls('tls-port: 3000, tls-name: a.example'), /tls-port: "3000" is the port for plain connections too/)
  refuses(withTls('tls-port: 4333, tls-name: a.example', `${bare.replace(' }', ', ca-path: ca }')}, ${bare}`), /network\.tls\[1\]\.name: "a\.example" is used twice/)
  refuses(withTls('tls-port: 4333, tls-name: a.example', bare.replace(' }', ', ca-file: c, protocols: [TLSv1.1] }')), /protocols: \["TLSv1\.1"\] is not a list of protocols; allowed: TLSv1\.2, TLSv1\.3, or both/)
  refuses(withTls('tls-port: 4333, tls-name: a.example', bare.replace(' }', ', ca-file: c, key-file-password: x }')), /key-file-password: unknown key/)
  assert.deepEqual(messages(withTls('tls-port: 4333, tls-name: a.example, tls-authenticate-client: false', bare)), [])
})

test('clients are authenticated by a mode or by names', () => {
  const mode = (text: string) => parseConfigText(withTls(`tls-port: 1, tls-name: a.example, tls-authenticate-client: ${text}`)).network.service['tls-authenticate-client']
  assert.equal(mode('any'), 'any')
  assert.equal(mode('false'), 'false')
  assert.deepEqual(mode('billing'), ['billing'])
  assert.deepEqual(mode('"billing, reports"'), ['billing', 'reports'])
  assert.deepEqual(mode('[billing, reports]'), ['billing', 'reports'])
  for (const text of ['[]', '[any]', '"a b"', '[billing, billing]', '{ a: b }']) {
    assert.match(theMessage(withTls(`tls-port: 1, tls-name: a.example, tls-authenticate-client: ${text}`)), /tls-authenticate-client: .* is not a way to authenticate clients/)
  }
})

test('a file that is not there is one clear line', async () => {
  await assert.rejects(loadConfig('/no/such/file.yaml'), { code: 'CONFIG', message: '/no/such/file.yaml: there is no such file' })
})

const engine = (text: string) => `namespaces: [{ name: a, storage-engine: { ${text} } }]`

test('a block must hold a flush and the largest record', () => {
  assert.match(theMessage(engine('type: memory, data-size: 1G, write-block-size: 1M, flush-size: 2M')), /flush-size is 2M; allowed: at most write-block-size, 1M/)
  assert.match(theMessage(engine('type: memory, data-size: 1G, write-block-size: 512K, flush-size: 4K')), /max-record-size is 1M; allowed: at most write-block-size, 512K/)
  assert.match(theMessage(engine('type: memory, data-size: 32M')), /less than 8 write blocks; allowed: at least 64M/)
  assert.match(theMessage(engine('type: memory, data-size: 1G, write-block-size: 3M')), /"3M" is out of bounds; allowed: .* a power of two/)
})

test('records lie in one place, with what that place needs', () => {
  const refuses = (text: string, message: RegExp) => { assert.match(theMessage(engine(text)), message) }
  refuses('type: memory', /storage-engine\.data-size: is missing; allowed: one of data-size, files, devices$/)
  refuses('type: device', /storage-engine\.files: is missing; allowed: one of files, devices$/)
  refuses('type: memory, data-size: 1G, devices: [/dev/x]', /storage-engine\.devices: is given together with data-size; allowed: one of/)
  refuses('type: device, files: [x], filesize: 1G, devices: [/dev/x]', /storage-engine\.devices: is given together with files/)
  refuses('type: memory, files: [x]', /storage-engine\.filesize: is missing; allowed: the size of each file/)
  refuses('type: device, devices: [/dev/x], filesize: 1G', /storage-engine\.filesize: is given without files/)
  refuses('type: memory, data-size: 1G, commit-to-device: true', /storage-engine\.commit-to-device: "true" without files or devices/)
  refuses('type: memory, data-size: 1G, encryption: aes-128, encryption-key-file: k', /storage-engine\.encryption: "aes-128" without files or devices/)
  refuses('type: device, devices: [/dev/x], encryption: aes-256', /storage-engine\.encryption-key-file: is missing; allowed: a path, or encryption: none/)
  refuses('type: device, devices: [/dev/x], encryption-key-file: k', /storage-engine\.encryption-key-file: is given with encryption: none/)
  const storage = (text: string) => parseConfigText(engine(text)).namespaces[0]!['storage-engine']
  assert.deepEqual(storage('type: device, devices: [/dev/x, /dev/y]').devices, ['/dev/x', '/dev/y'])
  assert.equal(storage('type: memory, files: [x], filesize: 1G, commit-to-device: true')['commit-to-device'], true)
})

test('one file belongs to one namespace', () => {
  const [message, ...rest] = messages(`namespaces:
  - { name: a, storage-engine: { type: device, filesize: 1G, files: [x.dat] } }
  - { name: b, storage-engine: { type: device, filesize: 1G, files: [y.dat, x.dat] } }
`)
  assert.deepEqual(rest, [])
  assert.match(message!, /^east\.yaml:3: namespaces\[1\]\.storage-engine\.files\[1\]: "x\.dat" is used twice \(a\)/)
})

test('a time to live without its removal has to be asked for', () => {
  const text = (more: string) => `namespaces: [{ name: a, default-ttl: 12h, nsup-period: 0${more}, storage-engine: { type: memory, data-size: 1G } }]`
  assert.match(theMessage(text('')), /default-ttl: "12h" while nsup-period is 0/)
  assert.equal(parseConfigText(text(', allow-ttl-without-nsup: true')).namespaces[0]!['default-ttl'], 43_200)
})

test('what a set has of its own is checked like the rest', () => {
  const text = (more: string) => `namespaces: [{ name: a, ${more}, storage-engine: { type: memory, data-size: 1G } }]`
  const [set] = parseConfigText(text('sets: [{ name: users, default-ttl: 1d, stop-writes-size: 10G }]')).namespaces[0]!.sets
  assert.deepEqual(set, {
    name: 'users', 'default-ttl': 86_400, 'default-read-touch-ttl-pct': 0, 'disable-eviction': false, 'enable-index': false, 'stop-writes-count': 0, 'stop-writes-size': 10 * 1024 * MiB
  })
  assert.match(theMessage(text('sets: [{ name: users, default-read-touch-ttl-pct: -2 }]')), /sets\[0\]\.default-read-touch-ttl-pct: "-2" is out of bounds/)
  assert.match(theMessage(text('sets: [{ name: users }, { name: users }]')), /sets\[1\]\.name: "users" is used twice/)
  assert.match(theMessage(text('nsup-period: 0, sets: [{ name: users, default-ttl: 1d }]')), /sets\[0\]\.default-ttl: "1d" while nsup-period is 0/)
})

test('eviction needs passes, and a share of a budget needs the budget', () => {
  const text = (more: string) => `namespaces: [{ name: a, ${more}, storage-engine: { type: memory, data-size: 1G } }]`
  assert.match(theMessage(text('nsup-period: 0, evict-used-pct: 60')), /evict-used-pct: "60" while nsup-period is 0/)
  assert.match(theMessage(text('evict-indexes-memory-pct: 60')), /evict-indexes-memory-pct: "60" while indexes-memory-budget is 0/)
  assert.deepEqual(messages(text('evict-used-pct: 60, indexes-memory-budget: 1G, evict-indexes-memory-pct: 60')), [])
})

test('endpoints carry a port', () => {
  const text = (seed: string) => `xdr: { dcs: [{ name: w, type: cluster, node-address-ports: ["${seed}"], namespaces: [{ name: test }] }] }${namespaces}`
  for (const seed of ['10.0.0.1:3000', 'west.example.com:1', '[::1]:65535']) assert.deepEqual(messages(text(seed)), [])
  for (const seed of ['10.0.0.1', '10.0.0.1:0', '10.0.0.1:65536', '::1:3000', ' :3000']) assert.match(theMessage(text(seed)), /is not an endpoint/)
})

test('a datacenter ships over TLS with an entry that exists', () => {
  const text = (seed: string, more: string) => withTls('port: 3000') +
    `xdr: { dcs: [{ name: w, type: cluster, node-address-ports: ["${seed}"], ${more} namespaces: [{ name: test }] }] }`
  for (const seed of ['10.0.0.1:4333:west.example', '[::1]:4333:west.example', 'west.example:4333']) assert.deepEqual(messages(text(seed, 'tls-name: a.example,')), [])
  assert.match(theMessage(text('10.0.0.1:4333', 'tls-name: b.example,')), /xdr\.dcs\[0\]\.tls-name: "b\.example" is not the name of an entry of network\.tls; allowed: a\.example/)
  for (const seed of ['10.0.0.1:4333:west.example', '[::1]:4333:west.example']) {
    assert.match(theMessage(text(seed, '')), /node-address-ports\[0\]: .* names a certificate without tls-name/)
  }
  assert.match(theMessage(text('10.0.0.1:west.example', 'tls-name: a.example,')), /is not an endpoint/)
})

test('a Kafka datacenter takes its section', () => {
  const config = parseConfigText(`${namespaces}
xdr:
  dcs:
    - name: stream
      type: kafka
      kafka: { brokers: ["k1:9092"], topic: changes, sasl: { mechanism: plain, username: u, password-file: p } }
      namespaces: [{ name: test, remote-namespace: other }]
`)
  assert.deepEqual(config.xdr.dcs[0], {
    name: 'stream',
    type: 'kafka',
    'period-ms': 100,
    kafka: {
      brokers: ['k1:9092'],
      topic: 'changes',
      format: 'json',
      'client-id': 'perigee',
      acks: -1,
      compression: 'none',
      'request-timeout-ms': 30_000,
      ssl: false,
      sasl: { mechanism: 'plain', username: 'u', 'password-file': 'p' }
    },
    namespaces: [{ name: 'test', 'remote-namespace': 'other', 'max-throughput': 100_000, 'transaction-queue-limit': 16_384, 'hot-key-ms': 100 }]
  })
})

test('every key has a note', () => {
  for (const key of allKeys()) assert.ok(key.doc.endsWith('.') && key.allowed !== '', key.path)
  assert.equal(new Set(allKeys().map((key) => key.path)).size, allKeys().length)
})

test('the reference page says what the schema says', () => {
  const page = join(root, 'docs/reference/configuration.md')
  const text = readFileSync(page, 'utf8')
  const begin = text.indexOf(TABLES_BEGIN)
  const end = text.indexOf(TABLES_END)
  assert.ok(begin >= 0 && end > begin, 'the page has no tables')
  const expected = `${TABLES_BEGIN}\n\n${renderKeyTables()}\n\n`
  if (process.env['PERIGEE_REGENERATE'] === '1') {
    writeFileSync(page, text.slice(0, begin) + expected + text.slice(end))
    return
  }
  assert.equal(text.slice(begin, end), expected, 'regenerate with PERIGEE_REGENERATE=1 node --test dist/config/')
})
