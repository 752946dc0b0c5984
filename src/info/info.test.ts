import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { parseConfigText } from '../../config/load.js'
import { UdfError } from '../../udf/errors.js'
import { bucketOf } from '../../udf/statistics.js'
import { packageRoot } from '../engine/addon.js'
import { ResultCode } from '../engine/constants.js'
import type { EngineStats, NativeNode, QueryListing } from '../engine/native.js'
import { RuntimeConfig } from '../node/runtime-config.js'
import { BUILD, EDITION } from './identity.js'
import type { NodeView } from './node-view.js'
import { answerInfo, commandNames } from './registry.js'
import { InfoError, listedName, pairs, parseInfoCommand } from './request.js'
import { UserAgents } from './user-agents.js'

const CONFIG = `
service: { node-id: A1, cluster-name: east }
network: { service: { port: 3100, address: 127.0.0.1 } }
namespaces:
  - { name: test, storage-engine: { type: memory, data-size: 1G } }
  - { name: other, storage-engine: { type: memory, data-size: 1G } }
xdr:
  dcs:
    - { name: west, type: cluster, node-address-ports: ["10.0.0.2:3000"], namespaces: [{ name: test }] }
`

const STATS: EngineStats = {
  service: { client_connections: 2 },
  opening: { test: { open_phase: 'ready', open_pct: 100, open_records: 3, open_remaining_seconds: 0 } },
  namespaces: { test: { objects: 3, storage: { defrag_q: 1 } }, other: { objects: 4 } },
  sets: { test: { cities: { objects: 3, tombstones: 0, data_used_bytes: 96, truncate_lut: 5, truncating: true } }, other: {} }
}

/** A node that answers the same fixed state to everything and never fails by itself; a test that wants a fault replaces the part that has it. */
function scratchNode (parts: { ready?: boolean, stats?: () => EngineStats, udf?: Partial<NodeView['udf']>, truncations?: Partial<NodeView['truncations']>, resetEviction?: (namespace: string) => void, histograms?: NodeView['engine']['histograms'], raidTombstones?: (namespace: string) => void } = {}): NodeView {
  const udf = {
    list: () => [{ name: 'a.lua', type: 'LUA', hash: 'f'.repeat(40) }],
    get: (name: string) => name === 'a.lua' ? { name, content: Buffer.from('return 1') } : undefined,
    put: async () => {},
    remove: async () => {},
    statistics: () => [],
    ...parts.udf
  }
  const queries = {
    queries: (task?: string) => task === undefined || task === QUERY.task ? [QUERY] : [],
    native: { abortQueries: (task?: string) => task === undefined || task === QUERY.task ? 1 : 0 }
  }
  const view: Omit<NodeView, 'engine' | 'latencies' | 'userAgents' | 'udf' | 'xdr' | 'truncations' | 'secondaryIndexes' | 'runtimeConfig'> = {
    nodeId: 'A1',
    listening: { address: '127.0.0.1', port: 3100, networkLoop: 'epoll' },
    ready: parts.ready ?? true,
    masters: Buffer.alloc(512, 0xff),
    partitionGeneration: parts.ready === false ? -1 : 1,
    startedAt: Date.now()
  }
  const { stats = () => STATS, truncations = {}, resetEviction, raidTombstones, histograms } = parts
  const engine = { stats, histograms, queries: queries.queries, native: { ...queries.native, resetEviction, raidTombstones, configure: () => {} } }
  const runtimeConfig = new RuntimeConfig(parseConfigText(CONFIG), engine.native as unknown as NativeNode)
  const latencies = { recent: () => ({ seconds: 1, floorsUs: [], counts: new Map() }) }
  const secondaryIndexes = { list: () => [], describe: () => [], describeSet: () => undefined, hasSetsOf: () => false }
  return { ...view, runtimeConfig, engine, latencies, userAgents: new UserAgents(), udf, truncations, secondaryIndexes, xdr: { stats: () => ({ lag: 0 }) } } as unknown as NodeView
}

const QUERY: QueryListing = {
  task: '18446744073709551615', 'job-type': 'basic', namespace: 'test', set: '', index: '', peer: '10.0.0.1:4000', partitions: 4096, 'partitions-done': 1024,
  'records-per-second': 0, 'socket-timeout-ms': 30_000, records: 77, filtered: 0, failed: 0, throttled: 0, bytes: 4096, 'run-time-ms': 12, done: null, 'since-done-ms': 0
}

const unexpected = (error: unknown): void => { throw error }

/** The answer to one command, without the command in front. */
async function ask (command: string, node = scratchNode(), onError = unexpected): Promise<string> {
  const reply = await answerInfo(node, `${command}\n`, onError)
  assert.ok(reply.startsWith(`${command}\t`) && reply.endsWith('\n'), JSON.stringify(reply))
  return reply.slice(command.length + 1, -1)
}

const page = readFileSync(join(packageRoot, 'docs/reference/info-commands.md'), 'utf8')
const REFUSED_HEADING = '\n## Refused in this version\n'
const [answeredPart = '', refusedPart = ''] = page.split(REFUSED_HEADING)

/** First cells of the tables whose first column is called Command. */
function commandsIn (text: string): string[] {
  const tables = text.split(/\n\n/).filter((block) => block.startsWith('| Command |'))
  return tables.flatMap((table) => [...table.matchAll(/^\| `([^`]+)` \|/gm)].map(([, name]) => name!))
}

test('the port for TLS is told where there is one', async () => {
  assert.equal(await ask('service-tls-std'), '')
  const node = scratchNode()
  const withTls = { ...node, listening: { ...node.listening, tlsPort: 4333 } }
  assert.equal(await ask('service-tls-std', withTls), '127.0.0.1:4333')
  assert.equal(await ask('service-clear-std', withTls), '127.0.0.1:3100')
})

test('addresses are told as they are configured', async () => {
  const over = (text: string): NodeView => {
    const runtimeConfig = new RuntimeConfig(parseConfigText(CONFIG.replace('port: 3100', `port: 3100, ${text}`)), scratchNode().engine.native as unknown as NativeNode)
    return { ...scratchNode(), runtimeConfig, listening: { address: '127.0.0.1', port: 3100, tlsPort: 4333, networkLoop: 'epoll' } }
  }
  const told = async (node: NodeView): Promise<string[]> => await Promise.all(['clear-std', 'clear-alt', 'tls-std', 'tls-alt'].map(async (kind) => await ask(`service-${kind}`, node)))
  assert.deepEqual(await told(over('tls-access-address: 127.0.0.1')), ['127.0.0.1:3100', '', '127.0.0.1:4333', ''])
  assert.deepEqual(await told(over('access-address: db.example, access-port: 31000, tls-access-port: 31433')),
    ['db.example:31000', '', 'db.example:31433', ''])
  assert.deepEqual(await told(over('alternate-access-address: 192.0.2.7')), ['127.0.0.1:3100', '192.0.2.7:3100', '127.0.0.1:4333', '192.0.2.7:4333'])
  assert.deepEqual(await told(over('alternate-access-address: 192.0.2.7, alternate-access-port: 1, tls-alternate-access-address: "2001:db8::7", tls-alternate-access-port: 2, tls-access-address: a')),
    ['127.0.0.1:3100', '192.0.2.7:1', 'a:4333', '[2001:db8::7]:2'])
  assert.equal(await ask('service-tls-alt', { ...over('alternate-access-address: 192.0.2.7'), listening: scratchNode().listening }), '', 'no port for TLS')
})

test('a name ends at the first slash, colon or semicolon', () => {
  assert.equal(parseInfoCommand('node').name, 'node')
  assert.equal(parseInfoCommand('node;').name, 'node')
  assert.equal(parseInfoCommand('namespace/test').name, 'namespace')
  assert.equal(parseInfoCommand('udf-get:filename=a/b.lua').name, 'udf-get')
})

test('what follows a slash is the path, without a trailing semicolon', () => {
  assert.deepEqual(parseInfoCommand('node').path, [])
  assert.deepEqual(parseInfoCommand('sets/test/cities').path, ['test', 'cities'])
  assert.deepEqual(parseInfoCommand('sets/test;').path, ['test'])
  const both = parseInfoCommand('sindex/test:b64=true')
  assert.deepEqual(both.path, ['test'])
  assert.equal(both.parameters.get('b64'), 'true')
})

test('parameters split at the first equals sign, so base64 comes through whole', () => {
  const { path, parameters } = parseInfoCommand('udf-put:filename=a.lua;content=YS9iOg==;udf-type=LUA;')
  assert.deepEqual(path, [])
  assert.equal(parameters.get('filename'), 'a.lua')
  assert.equal(parameters.get('content'), 'YS9iOg==')
  assert.equal(parameters.get('udf-type'), 'LUA')
  assert.equal(parameters.get('content-len'), undefined)
})

test('a parameter without a value is empty, and the first name that was sent counts', () => {
  const { parameters } = parseInfoCommand('get-config:context;namespace=test')
  assert.equal(parameters.get('context'), '')
  assert.equal(parameters.get('id', 'namespace'), 'test')
  assert.equal(parseInfoCommand('get-config;context=service').parameters.get('context'), 'service')
})

test('a needed parameter is refused by name when it is missing or empty', () => {
  const { parameters } = parseInfoCommand('get-stats:dc=')
  assert.throws(() => parameters.need('context'), { code: ResultCode.PARAMETER, text: "ERROR:4:missing 'context'" })
  assert.throws(() => parameters.need('dc'), { code: ResultCode.PARAMETER, text: "ERROR:4:missing 'dc' value" })
  assert.throws(() => parameters.need('id', { code: ResultCode.NAMESPACE }), { text: "ERROR:20:missing 'id'" })
  assert.equal(parseInfoCommand('x:namespace=test').parameters.need('id', { aliases: ['namespace'] }), 'test')
})

test('pairs are joined by a semicolon, or by what is asked for', () => {
  assert.equal(pairs([]), '')
  assert.equal(pairs([['a', 1], ['b', true], ['c', 'x']]), 'a=1;b=true;c=x')
  assert.equal(pairs(Object.entries({ a: 1, b: 2 }), ':'), 'a=1:b=2')
})

test('a name that is listed among pairs separates none of them', () => {
  assert.equal(listedName('cities'), 'cities')
  assert.equal(listedName('Zürich/東京'), 'Zürich/東京')
  assert.equal(listedName('a:b;c=d,e%f\ng'), 'a%3Ab%3Bc%3Dd%2Ce%25f%0Ag')
})

test('the text of a refusal leaves the code out when it is 1', () => {
  assert.equal(new InfoError(ResultCode.NAMESPACE, 'namespace not found on node').text, 'ERROR:20:namespace not found on node')
  assert.equal(new InfoError(ResultCode.UNKNOWN, 'internal error').text, 'ERROR::internal error')
})

test('the page lists every registered command once, and no other', () => {
  assert.ok(refusedPart !== '', `the page has no "${REFUSED_HEADING.trim()}"`)
  assert.equal(new Set(commandNames).size, commandNames.length)
  assert.deepEqual(commandsIn(page).sort(), [...commandNames].sort())
})

test('the commands that the page calls refused answer code 16 with their name, and only those do', async () => {
  const refused = commandsIn(refusedPart)
  assert.ok(refused.length > 0)
  for (const name of refused) {
    assert.equal(await ask(name), `ERROR:16:${name} is not supported by this version`)
    assert.equal(await ask(`${name}:namespace=test`), `ERROR:16:${name} is not supported by this version`)
  }
  for (const name of commandsIn(answeredPart)) assert.doesNotMatch(await ask(name), /^ERROR:(?:16|):/, name)
})

test('help names every command', async () => {
  assert.deepEqual((await ask('help')).split(';'), [...commandNames].sort())
})

test('an unknown command is refused, also one that every object has', async () => {
  for (const command of ['no-such-command', 'NODE', 'constructor', ':', '/']) assert.equal(await ask(command), 'ERROR:4:unrecognized command')
})

test('commands are answered in order, each with its text as it was sent', async () => {
  const reply = await answerInfo(scratchNode(), 'edition\nnope:a=b\n\nnode;', unexpected)
  assert.equal(reply, `edition\t${EDITION}\nnope:a=b\tERROR:4:unrecognized command\nnode;\tA1\n`)
})

test('an empty body answers the summary, with edition and version after the first line', async () => {
  for (const body of ['', '\n']) {
    const [first, ...rest] = (await answerInfo(scratchNode(), body, unexpected)).split('\n')
    assert.equal(first, 'node\tA1')
    assert.ok(rest.includes(`edition\t${EDITION}`), rest.join('\n'))
    assert.ok(rest.includes(`version\t${EDITION} build ${BUILD}`), rest.join('\n'))
    assert.ok(rest.includes(`build\t${BUILD}`) && rest.includes('namespaces\ttest;other'), rest.join('\n'))
    assert.ok(rest.some((line) => /^statistics\t.*(?:^|;)objects=7(?:;|$)/.test(line)), rest.join('\n'))
    assert.equal(rest.at(-1), '')
  }
})

test('a fault of one command is reported and leaves the others answered', async () => {
  const fault = new Error('the engine is gone')
  const node = scratchNode({ stats: () => { throw fault } })
  const seen: unknown[] = []
  const reply = await answerInfo(node, 'statistics\nnode\n', (error) => seen.push(error))
  assert.equal(reply, 'statistics\tERROR::internal error\nnode\tA1\n')
  assert.deepEqual(seen, [fault])
})

test('a node is told where it was configured to be reached', async () => {
  assert.equal(await ask('service-clear-std'), '127.0.0.1:3100')
  assert.equal(await ask('cluster-name'), 'east')
  assert.equal(await ask('peers-clear-std'), '0,3000,[]')
})

test('replicas claim every partition of every namespace in one column', async () => {
  const bitmap = Buffer.alloc(512, 0xff).toString('base64')
  assert.equal(await ask('replicas'), `test:0,1,${bitmap};other:0,1,${bitmap}`)
  assert.equal(await ask('replicas-all'), `test:1,${bitmap};other:1,${bitmap}`)
  assert.equal(await ask('replicas-master'), `test:${bitmap};other:${bitmap};`)
})

test('a cluster of another size is not stable', async () => {
  assert.match(await ask('cluster-stable:size=1'), /^[0-9A-Fa-f]+$/)
  assert.equal(await ask('cluster-stable:size=3'), 'ERROR:7:cluster not specified size')
})

test('a namespace or set that is not there has the answer that tools expect', async () => {
  assert.equal(await ask('namespace/none'), 'type=unknown')
  assert.equal(await ask('namespace'), 'type=unknown')
  assert.equal(await ask('sets/none'), 'ns_type=unknown')
  assert.equal(await ask('sets/test/none'), '')
  assert.equal(await ask('sindex/test/none'), 'ERROR:201:no index')
})

test('statistics of a namespace come with its configuration and the counters of its store', async () => {
  const values = (await ask('namespace/test')).split(';')
  for (const pair of ['objects=3', 'storage-engine.defrag_q=1', 'default-ttl=0', 'storage-engine=memory', 'storage-engine.data-size=1073741824']) {
    assert.ok(values.includes(pair), pair)
  }
})

test('histograms are counted once for all who ask at a time, one after another, and not for ever more of them', async () => {
  const running: Array<{ what: string, end: () => void }> = []
  let [ended, atOnce] = [0, 0]
  const histograms = async (namespace: string, set?: string) => {
    if (set === 'none') return null
    await new Promise<void>((resolve) => { running.push({ what: `${namespace}/${set}`, end: resolve }) })
    atOnce = Math.max(atOnce, running.length - ended)
    ended++
    return { ttl: { 'bucket-width': 2, buckets: [1, 0, 3] }, 'object-size-linear': { 'bucket-width': 64, buckets: [0, 4] }, 'object-size': [0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1] }
  }
  const node = scratchNode({ histograms })
  const same = ['ttl', 'object-size', 'object-size-linear'].map((type) => ask(`histogram:namespace=test;type=${type}`, node))
  const others = Array.from({ length: 20 }, (_, i) => ask(`histogram:ns=test;set=s${i};type=ttl`, node))
  let settled = false
  const all = Promise.all([...same, ...others]).finally(() => { settled = true })
  for (let next = 0; !settled;) {
    if (running[next] === undefined) await new Promise(setImmediate)
    else running[next++]!.end()
  }
  const answers = await all
  assert.deepEqual(answers.slice(0, 3), ['units=seconds:hist-width=6:bucket-width=2:buckets=1,0,3', 'units=bytes:[64-128)=4:[1K-2K)=1', 'units=bytes:hist-width=128:bucket-width=64:buckets=0,4'])
  assert.equal(answers.filter((answer) => /^ERROR:18:16 histograms are being counted already$/.test(answer)).length, 5)
  assert.deepEqual([running.length, atOnce], [16, 1])
  assert.equal(await ask('histogram:namespace=test;type=ttl;set=none', node), `ERROR:4:there is no set 'none'`)
})

test('a set is listed with its namespace, and alone without it', async () => {
  assert.match(await ask('sets'), /^ns=test:set=cities:objects=3:tombstones=0:data_used_bytes=96:truncate_lut=5:[^;]*:truncating=true:[^;]*;$/)
  assert.match(await ask('sets/test/cities'), /^objects=3:tombstones=0:[^;]*;$/)
})

test('a set whose name holds what separates is listed by its encoded name, and found by it', async () => {
  const set = STATS.sets.test!.cities!
  const sets = { test: { 'a:b=c;d': set } }
  const node = scratchNode({ stats: () => ({ ...STATS, sets }) })
  assert.match(await ask('sets/test', node), /^ns=test:set=a%3Ab%3Dc%3Bd:objects=3:[^;]*;$/)
  assert.match(await ask('sets/test/a%3Ab%3Dc%3Bd', node), /^objects=3:/)
})

test('configuration is changed by command, shown at once, and refused where it cannot be', async () => {
  const node = scratchNode()
  assert.equal(await ask('set-config:context=namespace;id=test;default-ttl=1h;stop-writes-used-pct=80', node), 'ok')
  assert.equal(await ask('set-config:context=namespace;namespace=test;set=cities;stop-writes-count=7', node), 'ok')
  const shown = (await ask('get-config:context=namespace;id=test', node)).split(';')
  assert.ok(shown.includes('default-ttl=3600') && shown.includes('stop-writes-used-pct=80'), shown.join(' '))
  assert.match(await ask('get-config:context=namespace;id=test;set=cities', node), /(?:^|;)stop-writes-count=7(?:;|$)/)
  assert.match(await ask('sets/test/cities', node), /:stop-writes-count=7:/)
  const refusals: Record<string, RegExp> = {
    'set-config:context=service;proto-fd-max=9': /^ERROR:4:nothing of context 'service' can be changed/,
    'set-config:context=namespace;id=none;default-ttl=1': /^ERROR:20:/,
    'set-config:context=namespace;id=test': /^ERROR:4:no key to change$/,
    'set-config:context=namespace;id=test;replication-factor=2': /^ERROR:4:'replication-factor' cannot be changed while the node runs$/,
    'set-config:context=namespace;id=test;stop-writes-used-pct=101': /^ERROR:4:namespaces\[0\]\.stop-writes-used-pct: "101" is out of bounds; allowed: 0 to 100$/
  }
  for (const [command, refusal] of Object.entries(refusals)) assert.match(await ask(command, node), refusal)
})

test('a truncation takes its names and its time, and refuses what it cannot mean', async () => {
  const calls: unknown[][] = []
  const truncations = {
    truncate: async (...call: unknown[]) => { calls.push(['truncate', ...call]) },
    undo: async (...call: unknown[]) => { calls.push(['undo', ...call]) }
  }
  const node = scratchNode({ truncations })
  const lut = BigInt(Date.UTC(2026, 0, 2)) * 1_000_000n
  for (const command of ['truncate:namespace=test;set=users', `truncate:ns=test;set=users;lut=${lut + 999_999n}`, 'truncate-namespace:namespace=test;lut=0',
    'truncate-undo:namespace=test;set=users', 'truncate-namespace-undo:namespace=test']) {
    assert.equal(await ask(command, node), 'ok', command)
  }
  assert.deepEqual(calls, [
    ['truncate', 'test', 'users', undefined], ['truncate', 'test', 'users', Date.UTC(2026, 0, 2) - Date.UTC(2010, 0, 1)],
    ['truncate', 'test', undefined, undefined], ['undo', 'test', 'users'], ['undo', 'test', undefined]
  ])
  const refusals: Record<string, RegExp> = {
    'truncate:set=users': /^ERROR:20:missing 'namespace'$/,
    'truncate:namespace=none;set=users': /^ERROR:20:namespace not found/,
    'truncate:namespace=test': /^ERROR:4:missing 'set'$/,
    [`truncate:namespace=test;set=${'x'.repeat(64)}`]: /^ERROR:4:'set' is longer than 63 bytes$/,
    'truncate-namespace:namespace=test;lut=soon': /^ERROR:4:bad 'lut' 'soon'/,
    [`truncate-namespace:namespace=test;lut=${BigInt(Date.now() + 60_000) * 1_000_000n}`]: /^ERROR:4:'lut' \d+ is in the future$/,
    'truncate-namespace:namespace=test;lut=1': /^ERROR:4:'lut' 1 is before 2010$/
  }
  for (const [command, refusal] of Object.entries(refusals)) assert.match(await ask(command, node), refusal)
  assert.equal(calls.length, 5)
})

test('a pass of the tomb raider is asked for by name', async () => {
  const calls: string[] = []
  const node = scratchNode({ raidTombstones: (namespace) => { calls.push(namespace) } })
  assert.equal(await ask('tomb-raider:namespace=test', node), 'ok')
  assert.match(await ask('tomb-raider:namespace=none', node), /^ERROR:20:/)
  assert.deepEqual(calls, ['test'])
})

test('an eviction is forgotten, and its depth cannot be set', async () => {
  const calls: string[] = []
  const node = scratchNode({ resetEviction: (namespace) => { calls.push(namespace) } })
  assert.equal(await ask('eviction-reset:namespace=test', node), 'ok')
  assert.match(await ask('eviction-reset:namespace=test;ttl=60', node), /^ERROR:16:/)
  assert.deepEqual(calls, ['test'])
})

test('a node that is starting says so, says how far it is, and refuses what needs its records', async () => {
  const opening = { test: { open_phase: 'cold', open_pct: 42, open_records: 1000, open_remaining_seconds: 7 }, other: { open_phase: 'waiting', open_pct: 0, open_records: 0, open_remaining_seconds: null } } as const
  const node = scratchNode({ ready: false, stats: () => ({ service: {}, opening, namespaces: {}, sets: {} }) })
  assert.equal(await ask('status', node), 'starting')
  assert.equal(await ask('partition-generation', node), '-1')
  assert.match(await ask('namespace/test', node), /^open_phase=cold;open_pct=42;open_records=1000;open_remaining_seconds=7;/)
  assert.match(await ask('namespace/other', node), /^open_phase=waiting;open_pct=0;open_records=0;ns_cluster_size/)
  assert.match(await ask('statistics', node), /(?:^|;)objects=0(?:;|$)/)
  for (const command of ['truncate:namespace=test', 'udf-list', 'query-show', 'eviction-reset:namespace=test']) {
    assert.equal(await ask(command, node), 'ERROR:11:the node is starting')
  }
})

test('configuration is answered by context, and refused with the code of what is wrong', async () => {
  assert.match(await ask('get-config:context=service'), /(?:^|;)cluster-name=east(?:;|$)/)
  assert.match(await ask('get-config:context=network'), /(?:^|;)service\.port=3100(?:;|$)/)
  assert.equal(await ask('get-config:context=namespace;id=test'), await ask('get-config:context=namespace;namespace=test'))
  assert.equal(await ask('get-config:context=security'), 'enable-security=false')
  assert.equal(await ask('get-config:context=moon'), "ERROR:4:unknown context 'moon'")
  assert.equal(await ask('get-config:context=namespace'), "ERROR:20:missing 'id'")
  assert.equal(await ask('get-config:context=namespace;id=none'), 'ERROR:20:namespace not found on node')
})

test('a datacenter is found by name, and its namespaces too', async () => {
  assert.equal(await ask('get-config:context=xdr'), 'dcs=west;src-id=0')
  assert.match(await ask('get-config:context=xdr;dc=west'), /^type=cluster;connector=false;node-address-port=10\.0\.0\.2:3000;/)
  assert.match(await ask('get-config:context=xdr;dc=west;namespace=test'), /(?:^|;)remote-namespace=test;/)
  assert.equal(await ask('get-stats:context=xdr;dc=west;namespace=test'), 'lag=0')
  assert.equal(await ask('get-stats:context=xdr'), "ERROR:4:missing 'dc'")
  assert.equal(await ask('get-stats:context=xdr;dc=moon'), "ERROR:4:no datacenter 'moon'")
  assert.equal(await ask('get-stats:context=xdr;dc=west;namespace=other'), 'ERROR:20:namespace not found in datacenter')
})

test('a module that cannot be stored is refused with its reason', async () => {
  const put = (rest: string, udf: Partial<NodeView['udf']> = {}) => ask(`udf-put:${rest}`, scratchNode({ udf }))
  assert.equal(await put('filename=a.lua;content=cmV0dXJuIDE=;content-len=12;udf-type=LUA;'), 'ok')
  assert.equal(await put('content=cmV0dXJuIDE='), 'error=invalid_filename')
  assert.equal(await put('filename=a.lua;content=cmV0dXJuIDE=;udf-type=JS'), 'error=invalid_udf_type')
  assert.equal(await put('filename=a.lua'), 'error=missing_content')
  assert.equal(await put('filename=a.lua;content=cmV0dXJuIDE=;content-len=11'), 'error=invalid_content_len')
  assert.equal(await put('filename=a.lua;content=cmV0dXJuIDE'), 'error=invalid_base64_content')
  const failing = (error: Error): Partial<NodeView['udf']> => ({ put: async () => { throw error } })
  const text = Buffer.from('near end').toString('base64')
  assert.equal(await put('filename=a.lua;content=', failing(new UdfError('udf-compile', 'near end', { line: 3 }))),
    `error=compile_error;file=a.lua;line=3;message=${text}`)
  assert.equal(await put('filename=a;content=', failing(new UdfError('udf-name', 'near end'))), `error=invalid_filename;message=${text}`)
  assert.equal(await put('filename=a.lua;content=', failing(new UdfError('udf-storage', 'near end'))), `error=udf-storage;message=${text}`)
})

test('functions are listed with what they did', async () => {
  const buckets = Array.from({ length: 120 }, () => 0)
  buckets[bucketOf(100)] = 99
  buckets[bucketOf(5000)] = 1
  const counted = {
    module: 'a', name: 'f:g', calls: 101, errors: 2, microseconds: 15_000.4, microsecondsMax: 5000.5, recordsRead: 3, recordsCreated: 4, recordsUpdated: 5, recordsRemoved: 6, buckets
  }
  const node = scratchNode({ udf: { statistics: (module) => module === undefined || module === 'a' ? [counted] : [] } })
  const line = 'module=a:function=f%3Ag:calls=101:errors=2:records_read=3:records_created=4:records_updated=5:records_removed=6:time_us=15000:p50_us=112:p95_us=112:p99_us=112:max_us=5001;'
  for (const command of ['udf-stats', 'udf-stats:', 'udf-stats:module=a', 'udf-stats:module=a.lua;']) assert.equal(await ask(command, node), line)
  assert.equal(await ask('udf-stats:module=b', node), '')
})

test('modules are listed and read back, and a missing one is named so', async () => {
  assert.equal(await ask('udf-list'), `filename=a.lua,hash=${'f'.repeat(40)},type=LUA;`)
  assert.equal(await ask('udf-get:filename=a.lua;'), 'type=LUA;content=cmV0dXJuIDE=;')
  assert.equal(await ask('udf-get:filename=b.lua;'), 'error=not_found')
  assert.equal(await ask('udf-remove:filename=b.lua;'), 'ok')
  assert.equal(await ask('udf-remove:'), 'error=invalid_filename')
  const refusing = (code: 'udf-name' | 'udf-storage'): NodeView => scratchNode({ udf: { remove: async () => { throw new UdfError(code, 'no') } } })
  assert.equal(await ask('udf-remove:filename=b;', refusing('udf-name')), 'ok')
  assert.equal(await ask('udf-remove:filename=b.lua;', refusing('udf-storage')), `error=udf-storage;message=${Buffer.from('no').toString('base64')}`)
})

test('a request that names a bulky command again and again gets no reply without bound', async () => {
  const content = Buffer.alloc(1 << 20, 'x')
  const node = scratchNode({ udf: { get: (name: string) => ({ name, content }) } })
  const reply = await answerInfo(node, 'udf-get:filename=big.lua;\n'.repeat(600), unexpected)
  assert.ok(reply.length < 20 * (1 << 20), `${reply.length} characters`)
  const lines = reply.trimEnd().split('\n')
  assert.equal(lines.length, 600)
  assert.match(lines[0]!, /^udf-get:filename=big\.lua;\ttype=LUA;content=/)
  assert.match(lines[599]!, /\tERROR:4:the reply is too long$/)
})

test('user agents are counted by what they say, and the oldest makes room', async () => {
  const node = scratchNode()
  const base64 = (text: string) => Buffer.from(text).toString('base64')
  assert.equal(await ask('user-agents', node), '')
  const [first, second] = ['1,nodejs-6.7.1,not-set', '1,go-8.0.0,shop'].map(base64)
  for (const agent of [first, second, first]) assert.equal(await ask(`user-agent-set:value=${agent}`, node), 'ok')
  assert.equal(await ask('user-agents', node), `user-agent=${second}:count=1;user-agent=${first}:count=2;`)
  assert.equal(await ask('user-agent-set', node), "ERROR:4:missing 'value'")
  for (const value of ['x', 'a;b', '!!!!', base64('y'.repeat(256))]) {
    assert.equal(await ask(`user-agent-set:value=${value}`, node), "ERROR:4:bad 'value': base64 of 1 to 255 bytes", value)
  }
  for (let i = 0; i < 255; i++) await ask(`user-agent-set:value=${base64(`1,python-19.0.0,app-${i}`)}`, node)
  const kept = (await ask('user-agents', node)).split(';').filter((entry) => entry !== '')
  assert.equal(kept.length, 256)
  assert.ok(kept.includes(`user-agent=${first}:count=2`) && !kept.includes(`user-agent=${second}:count=1`))
})

test('queries are listed as tools read them, with task ids of 64 bits', async () => {
  const line = 'trid=18446744073709551615:ns=test:n-pids-requested=4096:rps=0:active-threads=1:status=active(ok):job-progress=25.00:run-time=12:' +
    'time-since-done=0:recs-throttled=0:recs-filtered-meta=0:recs-filtered-bins=0:recs-succeeded=77:recs-failed=0:from=10.0.0.1+4000:job-type=basic:' +
    'net-io-bytes=4096:socket-timeout=30000'
  assert.equal(await ask('query-show'), line)
  assert.equal(await ask('query-show:id=0xffffffffffffffff'), line)
  assert.equal(await ask('query-show:trid=5'), 'ERROR:2:job not found')
  assert.equal(await ask('query-show:id=18446744073709551616'), "ERROR:4:bad 'id' value")
  assert.equal(await ask('query-abort:trid=18446744073709551615'), 'ok')
  assert.equal(await ask('query-abort:id=5'), 'ERROR:2:id not active')
  assert.equal(await ask('query-abort'), "ERROR:4:missing 'id'")
  assert.equal(await ask('query-abort-all'), 'number-of-queries-killed:1')
})
