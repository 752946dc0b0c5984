// The command line in this process, against a scratch node (src/client/scratch-node.ts says what that is).

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import type { Command } from 'commander'
import { ResultCode } from '../engine/constants.js'
import { ScratchNode } from '../client/scratch-node.js'
import { Double, GeoJSON } from '../client/value.js'
import { fromEnvironment } from './commands/bench.js'
import { layOut } from './commands/info.js'
import type { Io } from './io.js'
import { packageRoot } from './package-root.js'
import { buildProgram } from './program.js'
import { COMMANDS_BEGIN, COMMANDS_END, renderCommands } from './reference.js'
import { run } from './run.js'
import { table } from './table.js'
import { parseBins, parseKey, parseValue, toJson } from './values.js'

interface Ran {
  code: number
  out: string
  err: string
}

function fakeIo (more: Partial<Io> = {}): Io & { text: { out: string, err: string } } {
  const text = { out: '', err: '' }
  return {
    text,
    env: {},
    out: (part) => { text.out += part },
    err: (part) => { text.err += part },
    outBytes: async (bytes) => { text.out += bytes.toString('latin1') },
    input: async function * () {},
    colours: { out: false, err: false },
    isTerminal: false,
    isErrTerminal: false,
    interrupted: () => new AbortController().signal,
    ...more
  }
}

async function perigee (...args: string[]): Promise<Ran> {
  const io = fakeIo()
  const code = await run(args, io)
  return { code, ...io.text }
}

async function scratch (t: TestContext): Promise<{ node: ScratchNode, at: string[] }> {
  const node = await new ScratchNode({ name: 'A1' }).start()
  t.after(() => node.stop())
  return { node, at: ['--port', String(node.port), '--timeout', '1000'] }
}

function temporary (t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'perigee-cli-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

test('a record is put, read, found and deleted', async (t) => {
  const { at } = await scratch(t)
  const record = ['test', 'demo', 'ada']
  assert.deepEqual(await perigee('put', ...record, 'name=Ada', 'born=1815', 'score=1.0', 'tags=["a"]', '--send-key', ...at), { code: 0, out: 'written, generation 1\n', err: '' })
  assert.deepEqual((await perigee('get', ...record, ...at)).out.split('\n'), [
    'generation 1, never expires, key "ada"',
    'bin    type     value',
    'name   string   "Ada"',
    'born   integer  1815',
    'score  double   1.0',
    'tags   list     ["a"]',
    ''
  ])
  assert.equal((await perigee('get', ...record, '--json', '--bins', 'name,born', ...at)).out,
    '{"key":"ada","generation":1,"expires":null,"bins":{"name":"Ada","born":1815}}\n')
  assert.deepEqual(await perigee('exists', ...record, ...at), { code: 0, out: 'there, generation 1, never expires\n', err: '' })
  assert.deepEqual(await perigee('delete', ...record, ...at), { code: 0, out: 'deleted\n', err: '' })
})

test('a record that is not there ends with 1 and says so', async (t) => {
  const { at } = await scratch(t)
  for (const command of ['get', 'exists', 'delete']) {
    assert.deepEqual(await perigee(command, 'test', 'demo', '1', ...at), { code: 1, out: '', err: 'perigee: there is no such record\n' })
    assert.deepEqual(await perigee(command, 'test', 'demo', '1', '--json', ...at), { code: 1, out: 'null\n', err: '' })
  }
})

test('apply prints what the function returns', async (t) => {
  const { at } = await scratch(t)
  assert.equal((await perigee('apply', 'test', 'demo', '1', 'm', 'f', '7', 'x', '{"a":null}', ...at)).out, '[7,"x",{"a":null}]\n')
})

test('an error of the server is one line with its name', async (t) => {
  const { node, at } = await scratch(t)
  node.result = () => ResultCode.RECORD_TOO_BIG
  assert.deepEqual(await perigee('put', 'test', 'demo', '1', 'a=1', ...at), { code: 1, out: '', err: 'perigee: RECORD_TOO_BIG\n' })
})

test('a node that is not there is one line', async (t) => {
  const { node, at } = await scratch(t)
  await node.stop()
  const { code, err } = await perigee('info', 'node', ...at)
  assert.equal(code, 1)
  assert.equal(err, `perigee: CLIENT_CONNECTION: 127.0.0.1:${node.port}: nothing listens there\n`)
})

test('the stack of an error is there for those who ask', async () => {
  const io = fakeIo({ env: { PERIGEE_DEBUG: '1' } })
  await run(['info', 'node', '--port', '1'], io)
  assert.match(io.text.err, /\n {4}at /)
})

test('wrong command lines end with 2', async () => {
  for (const args of [['nonsense'], ['get', 'test'], ['serve'], ['info', 'node', '--port', 'x'], ['put', 'test', 'demo', '1', 'novalue'], ['info', 'node', '--nonsense'],
    ['completion', 'tcsh'], ['get', 'n', 's', 'zz', '--key-type', 'bytes'], ['put', 'n', 's', '1', 'a=1', '--ttl', 'soon'], ['xdr', 'status', '--watch', '0']]) {
    const { code, out, err } = await perigee(...args)
    assert.equal(code, 2, args.join(' '))
    assert.equal(out, '')
    assert.notEqual(err, '')
  }
})

test('help and version end with 0', async () => {
  const help = await perigee('--help')
  assert.equal(help.code, 0)
  for (const name of ['serve', 'info', 'udf', 'index', 'xdr', 'get', 'bench', 'act', 'completion']) assert.match(help.out, new RegExp(`^ {2}${name} `, 'm'))
  assert.match((await perigee('--version')).out, /^\d+\.\d+\.\d+\n$/)
  assert.equal((await perigee('get', '--help')).code, 0)
})

test('host and port also come from the environment, and the command line wins', async (t) => {
  const { node } = await scratch(t)
  process.env['PERIGEE_PORT'] = String(node.port)
  t.after(() => { delete process.env['PERIGEE_PORT'] })
  assert.equal((await perigee('info', 'node')).out, 'A1\n')
  assert.equal((await perigee('info', 'node', '--port', '1')).code, 1)
  assert.equal((await perigee('info', 'node', '-h', `127.0.0.1:${node.port}`, '--port', '1')).out, 'A1\n')
})

test('info prints pairs, tables and lists for people, and what came with --raw', async (t) => {
  const { node, at } = await scratch(t)
  node.info.set('statistics', 'objects=12;uptime=3')
  assert.equal((await perigee('info', 'statistics', ...at)).out, 'objects  12\nuptime   3\n')
  assert.equal((await perigee('info', 'statistics', '--raw', ...at)).out, 'objects=12;uptime=3\n')
  assert.equal((await perigee('info', 'node', 'statistics', ...at)).out, 'node\nA1\nstatistics\nobjects  12\nuptime   3\n')
  assert.equal((await perigee('info', 'node', '--json', ...at)).out, '[{"command":"node","value":"A1"}]\n')
  assert.equal((await perigee('info', 'node', '--all', '--json', ...at)).out, '[{"node":"A1","command":"node","value":"A1"}]\n')
  assert.deepEqual(await perigee('info', 'nonsense', ...at), { code: 1, out: '', err: 'perigee: nonsense: unrecognized command\n' })
})

test('the status of a starting node says how far each namespace is', async (t) => {
  const { node, at } = await scratch(t)
  const answers = {
    status: 'starting', namespaces: 'test;other', 'namespace/test': 'open_phase=cold;open_pct=42;open_records=1234567;open_remaining_seconds=9;objects=0',
    'namespace/other': 'open_phase=waiting;open_pct=0;open_records=0'
  }
  for (const [command, answer] of Object.entries(answers)) node.info.set(command, answer)
  const lines = 'starting\ntest: cold, 42 %, 1,234,567 records, about 9 s left\nother: waiting, 0 %, 0 records\n'
  assert.equal((await perigee('info', 'status', ...at)).out, lines)
  assert.equal((await perigee('info', 'status', '--raw', ...at)).out, 'starting\n')
})

test('answers are laid out by their form', () => {
  assert.equal(layOut('ns=test:set=a:objects=1;ns=test:set=bb:objects=22;', false), 'ns    set  objects\ntest  a    1\ntest  bb   22\n')
  assert.equal(layOut('filename=a.lua,hash=00,type=LUA;', false), 'filename  hash  type\na.lua     00    LUA\n')
  assert.equal(layOut('test;bar', false), 'test\nbar\n')
  assert.equal(layOut('dcs=a,b;src-id=0', false), 'dcs     a,b\nsrc-id  0\n')
  assert.equal(layOut('127.0.0.1:3000', false), '127.0.0.1:3000\n')
  assert.equal(layOut('', false), '')
})

test('modules are put, listed, fetched and removed', async (t) => {
  const { node, at } = await scratch(t)
  const file = join(temporary(t), 'm.lua')
  const source = 'function f() return 1 end\n'
  writeFileSync(file, source)
  const content = Buffer.from(source).toString('base64')
  node.info.set(`udf-put:filename=m.lua;content=${content};content-len=${content.length};udf-type=LUA;`, 'ok')
  node.info.set('udf-list', 'filename=m.lua,hash=abcd,type=LUA;')
  node.info.set('udf-get:filename=m.lua;', `type=LUA;content=${content};`)
  node.info.set('udf-get:filename=x.lua;', 'error=not_found')
  node.info.set('udf-remove:filename=m.lua;', 'ok')
  assert.equal((await perigee('udf', 'put', file, ...at)).out, 'registered m.lua\n')
  assert.equal((await perigee('udf', 'list', ...at)).out, 'module  type  hash\nm.lua   LUA   abcd\n')
  assert.equal((await perigee('udf', 'list', '--json', ...at)).out, '[{"name":"m.lua","type":"LUA","hash":"abcd"}]\n')
  assert.equal((await perigee('udf', 'get', 'm.lua', ...at)).out, source)
  assert.deepEqual(await perigee('udf', 'get', 'x.lua', ...at), { code: 1, out: '', err: 'perigee: udf-get: not found\n' })
  assert.equal((await perigee('udf', 'remove', 'm.lua', ...at)).out, 'removed m.lua\n')
  assert.match((await perigee('udf', 'put', join(file, 'none'), ...at)).err, /cannot be read/)

  const broken = Buffer.from('unexpected symbol').toString('base64')
  node.info.set(`udf-put:filename=b.lua;content=${content};content-len=${content.length};udf-type=LUA;`, `error=compile_error;file=b.lua;line=3;message=${broken}`)
  assert.equal((await perigee('udf', 'put', file, '--name', 'b.lua', ...at)).err, 'perigee: b.lua:3: unexpected symbol\n')
})

test('an index is created from what is typed, and waited for', async (t) => {
  const { node, at } = await scratch(t)
  node.info.set('sindex-create:namespace=test;set=users;indexname=age;bin=age;type=numeric', 'ok')
  node.info.set('sindex-create:namespace=test;indexname=city;indextype=list;context=lCKlA2hvbWUQAA==;bin=doc;type=string', 'ok')
  node.info.set('sindex-create:namespace=test;indexname=half;exp=kxSTUQKhYQE=;type=numeric', 'ok')
  node.info.set('sindex-create:namespace=test;set=users;indexname=all;indextype=set', 'ok')
  node.info.set('sindex-stat:namespace=test;indexname=age', 'entries=1234;used_bytes=2048;load_pct=100;load_time=7')
  assert.deepEqual(await perigee('index', 'create', 'test', 'age', '--set', 'users', '--bin', 'age', '--type', 'numeric', '--wait', ...at),
    { code: 0, out: 'index age of test is ready: 1,234 entries, 2.0 KiB\n', err: '' })
  assert.match((await perigee('index', 'create', 'test', 'city', '--bin', 'doc', '--context', 'map-key=home', '--context', 'list-index=0', '--type', 'string', '--index-type', 'list', ...at)).out,
    /^index city of test is being built; /)
  assert.equal((await perigee('index', 'create', 'test', 'half', '--expression', 'kxSTUQKhYQE=', '--type', 'numeric', '--json', ...at)).out, '{"namespace":"test","name":"half","ready":false}\n')
  assert.equal((await perigee('index', 'create', 'test', 'all', '--set', 'users', '--index-type', 'set', ...at)).code, 0)
  node.info.set('sindex-create:namespace=test;indexname=age;bin=born;type=numeric', 'ERROR:200:there is another index of this name')
  assert.deepEqual(await perigee('index', 'create', 'test', 'age', '--bin', 'born', '--type', 'numeric', ...at),
    { code: 1, out: '', err: 'perigee: sindex-create: there is another index of this name\n' })
})

test('waiting for an index goes on while any part of it is not built, and ends when it is told to', async (t) => {
  const { node, at } = await scratch(t)
  node.info.set('sindex-create:namespace=test;indexname=age;bin=age;type=numeric', 'ok')
  const stat = 'sindex-stat:namespace=test;indexname=age'
  node.info.set(stat, 'entries=5;load_pct=42')
  const create = ['index', 'create', 'test', 'age', '--bin', 'age', '--type', 'numeric', '--wait', '--json', ...at]
  const controller = new AbortController()
  const io = fakeIo({ interrupted: () => controller.signal })
  const stopped = run(create, io)
  setTimeout(() => controller.abort(), 20)
  assert.equal(await stopped, 1)
  assert.equal(io.text.err, 'perigee: stopped waiting at 42 %; the index goes on being built\n')
  const waiting = perigee(...create)
  setTimeout(() => node.info.set(stat, 'entries=9;used_bytes=10;load_pct=100;load_time=3'), 20)
  assert.equal((await waiting).out, '{"namespace":"test","name":"age","ready":true,"entries":9,"used_bytes":10,"load_time":3}\n')
  node.info.set(stat, 'ERROR:201:no index')
  assert.deepEqual(await perigee(...create), { code: 1, out: '', err: 'perigee: sindex-stat: no index\n' })
})

test('indexes are listed, shown and dropped', async (t) => {
  const { node, at } = await scratch(t)
  const city = 'ns=test:indexname=city:set=null:bin=doc:type=string:indextype=list:context=lCKlA2hvbWUQAA==:exp=null:state=RW'
  const half = 'ns=test:indexname=half:set=users:bin=null:type=numeric:indextype=default:context=null:exp=kxSTUQKhYQE=:state=WO'
  const all = 'ns=test:indexname=all:set=users:indextype=set'
  node.info.set('sindex-list:b64=true', '')
  assert.equal((await perigee('index', 'list', ...at)).out, 'no indexes\n')
  node.info.set('sindex-list:b64=true', [city, half, all].join(';'))
  node.info.set('sindex-list:namespace=test;b64=true', [city, half, all].join(';'))
  node.info.set('sindex-stat:namespace=test;indexname=city', 'entries=1234;used_bytes=2048;load_pct=100')
  node.info.set('sindex-stat:namespace=test;indexname=half', 'entries=0;used_bytes=0;load_pct=7')
  node.info.set('sindex-stat:namespace=test;indexname=all', 'ERROR:201:no index')
  assert.deepEqual((await perigee('index', 'list', ...at)).out.split('\n').map((line) => line.split(/ {2,}/).join('|').trim()), [
    'namespace|index|set|of|type|index type|state|entries|memory',
    'test|city|-|doc map-key="home" list-index=0|string|list|ready|1,234|2.0 KiB',
    'test|half|users|expression|numeric|default|building 7 %|0|0 bytes',
    'test|all|users|all records|-|set|building 0 %|-|-',
    ''
  ])
  assert.deepEqual(JSON.parse((await perigee('index', 'list', '--namespace', 'test', '--json', ...at)).out)[1], {
    namespace: 'test', name: 'half', set: 'users', bin: null, context: null, expression: 'kxSTUQKhYQE=', type: 'numeric', indexType: 'default', state: 'building',
    entries: 0, used_bytes: 0, load_pct: 7
  })
  assert.equal((await perigee('index', 'show', 'test', 'city', ...at)).out, [
    'namespace   test', 'index       city', 'bin         doc', 'context     map-key="home" list-index=0', 'type        string', 'index type  list', 'state       ready',
    'entries     1234', 'used_bytes  2048', 'load_pct    100', ''
  ].join('\n'))
  assert.deepEqual(await perigee('index', 'show', 'test', 'none', ...at), { code: 1, out: '', err: 'perigee: there is no index none in test\n' })
  node.info.set('sindex-exists:namespace=test;indexname=city', 'true')
  node.info.set('sindex-exists:namespace=test;indexname=none', 'false')
  node.info.set('sindex-delete:namespace=test;indexname=city', 'ok')
  assert.equal((await perigee('index', 'drop', 'test', 'city', ...at)).out, 'dropped index city of test\n')
  assert.equal((await perigee('index', 'drop', 'test', 'none', ...at)).err, 'perigee: there is no index none in test\n')
})

test('an index that nobody can mean is refused before a node is asked', async () => {
  const refused: Record<string, RegExp> = {
    '--bin a': /--type is missing/,
    '--type numeric': /either --bin or --expression/,
    '--bin a --expression AQ== --type numeric': /either --bin or --expression/,
    '--bin a --type double': /Allowed choices are numeric, string/,
    '--bin a --type numeric --index-type map': /Allowed choices are default, list/,
    '--expression AQ== --context map-key=a --type numeric': /--context goes with --bin/,
    '--bin a --context map-keys=a --type numeric': /is not a step of a context; allowed: list-index/,
    '--bin a --context list-index=first --type numeric': /list-index takes an integer/,
    '--index-type set': /needs --set/,
    '--set users --index-type set --bin a': /goes without --bin/,
    '--bin a;b --type numeric': /not a name that an info command can carry/
  }
  for (const [options, reason] of Object.entries(refused)) {
    const { code, err } = await perigee('index', 'create', 'test', 'i', ...options.split(' '), '--port', '1')
    assert.equal(code, 2, options)
    assert.match(err, reason, options)
  }
})

function ships (node: ScratchNode): void {
  node.info.set('get-config:context=xdr', 'dcs=west,stream;src-id=0')
  node.info.set('get-config:context=xdr;dc=west', 'type=cluster;namespaces=test,bar')
  node.info.set('get-config:context=xdr;dc=stream', 'type=kafka;namespaces=test')
  node.info.set('get-stats:context=xdr;dc=west;namespace=test', 'lag=0;lag_ms=42;nodes=1;throughput=10;success=5;retry_dest=2;retry_no_node=1')
  node.info.set('get-stats:context=xdr;dc=west;namespace=bar', 'lag=4000;nodes=0')
  node.info.set('get-stats:context=xdr;dc=stream;namespace=test', 'lag_ms=2500')
}

test('truncate sends one command, with the time in nanoseconds', async (t) => {
  const { node, at } = await scratch(t)
  const lut = `${BigInt(Date.UTC(2026, 0, 2)) * 1_000_000n}`
  for (const command of ['truncate-namespace:namespace=test', `truncate:namespace=test;set=users;lut=${lut}`, 'truncate-undo:namespace=test;set=users']) {
    node.info.set(command, 'ok')
  }
  assert.deepEqual(await perigee('truncate', 'test', ...at), { code: 0, out: 'Successfully started truncation for namespace test\n', err: '' })
  const json = await perigee('truncate', 'test', 'users', '--before', '2026-01-02', '--json', ...at)
  assert.deepEqual(JSON.parse(json.out), { namespace: 'test', set: 'users', before: '2026-01-02T00:00:00.000Z', undo: false })
  assert.match((await perigee('truncate', 'test', 'users', '--undo', ...at)).out, /^Successfully triggered undoing truncation for set users of namespace test$/m)
  node.info.set('truncate-namespace:namespace=none', 'ERROR:20:namespace not found on node')
  assert.equal((await perigee('truncate', 'none', ...at)).code, 1)
})

test('truncate refuses what is no time or no name before it asks', async () => {
  for (const args of [['test', '--before', 'yesterday'], ['test', '--before', '1700000000'], ['test', '--before', '1h', '--undo'], ['test', 'a;b'], ['test', '']]) {
    assert.equal((await perigee('truncate', ...args)).code, 2, args.join(' '))
  }
})

test('xdr status has a line for each datacenter and namespace', async (t) => {
  const { node, at } = await scratch(t)
  ships(node)
  const { out } = await perigee('xdr', 'status', ...at)
  assert.deepEqual(out.split('\n').map((line) => line.split(/ {2,}/).slice(0, 9).join('|').trim()), [
    'datacenter|namespace|nodes|lag|records/s|queued|in flight|shipped|retries',
    'west|test|1|42 ms|10|-|-|5|3',
    'west|bar|0|01:06:40|-|-|-|-|-',
    'stream|test|-|2.5 s|-|-|-|-|-',
    ''
  ])
  assert.deepEqual(JSON.parse((await perigee('xdr', 'status', '--json', ...at)).out)[1], { dc: 'west', namespace: 'bar', lag: 4000, nodes: 0 })
  node.info.set('get-config:context=xdr', 'dcs=;src-id=0')
  assert.equal((await perigee('xdr', 'status', ...at)).out, 'nothing is shipped\n')
})

test('functions are shown with calls, records and times', async (t) => {
  const { node, at } = await scratch(t)
  node.info.set('udf-stats', '')
  assert.equal((await perigee('udf', 'stats', ...at)).out, 'no function was called since the node started\n')
  const line = 'module=m:function=f%3Ag:calls=1234:errors=2:records_read=3:records_created=4:records_updated=5:records_removed=6:time_us=2500000:p50_us=112:p95_us=1800:p99_us=250000:max_us=250001;'
  node.info.set('udf-stats:module=m', line)
  const { out } = await perigee('udf', 'stats', 'm', ...at)
  assert.deepEqual(out.split('\n').map((row) => row.trim().split(/ {2,}/)), [
    ['function', 'calls', 'errors', 'read', 'created', 'updated', 'removed', 'p50', 'p95', 'p99', 'max', 'total'],
    ['m.f:g', '1,234', '2', '3', '4', '5', '6', '112 us', '1.8 ms', '250 ms', '250 ms', '2.5 s'], ['']
  ])
  assert.deepEqual(JSON.parse((await perigee('udf', 'stats', 'm', '--json', ...at)).out), [{
    module: 'm', function: 'f:g', calls: 1234, errors: 2, records_read: 3, records_created: 4, records_updated: 5, records_removed: 6, time_us: 2_500_000, p50_us: 112, p95_us: 1800, p99_us: 250_000,
    max_us: 250_001
  }])
})

test('latency tells each percentile by the finest bound that is known', async (t) => {
  const { node, at } = await scratch(t)
  const columns = (...first: number[]) => Array.from({ length: 17 }, (_, i) => (first[i] ?? first.at(-1)!).toFixed(2)).join(',')
  const slow = columns(100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 60)
  node.info.set('latencies:unit=usec', `batch-index:;{test}-read:usec,1234.5,${columns(100, 99, 80, 40, 9, 0.5, 0)};{test}-write:usec,2.0,${slow};`)
  node.info.set('latencies:unit=msec', `batch-index:;{test}-read:msec,1234.5,${columns(0)};{test}-write:msec,2.0,${columns(100, 100, 100, 100, 60, 60, 60, 45, 9.9, 9.9, 9.9, 5)};`)
  assert.deepEqual((await perigee('latency', ...at)).out.split('\n').map((line) => line.trim().split(/ {2,}/)), [
    ['histogram', 'requests/s', 'p50', 'p90', 'p99'],
    ['{test}-read', '1234.5', '<8 us', '<16 us', '<32 us'],
    ['{test}-write', '2.0', '<128 ms', '<256 ms', 'over a minute'],
    ['']
  ])
  assert.deepEqual(JSON.parse((await perigee('latency', '--json', ...at)).out), [
    { histogram: '{test}-read', perSecond: 1234.5, p50BelowUs: 8, p90BelowUs: 16, p99BelowUs: 32 },
    { histogram: '{test}-write', perSecond: 2, p50BelowUs: 128_000, p90BelowUs: 256_000, p99BelowUs: null }
  ])
  node.info.set('latencies:unit=usec', 'batch-index:;')
  node.info.set('latencies:unit=msec', 'batch-index:;')
  assert.equal((await perigee('latency', ...at)).out, 'nothing was asked of the node in the last seconds\n')
})

test('watching goes on through an outage until it is interrupted', async (t) => {
  const { node, at } = await scratch(t)
  ships(node)
  const controller = new AbortController()
  let rounds = 0
  const io = fakeIo({ interrupted: () => controller.signal })
  const out = io.out.bind(io)
  const watching = run(['xdr', 'status', '--watch', '0.1', '--json', ...at], {
    ...io,
    out: (text) => {
      out(text)
      rounds++
      if (rounds === 1) void node.stop()
      if (rounds === 2) void node.start()
      if (rounds === 4) controller.abort()
    }
  })
  assert.equal(await watching, 0)
  const lines = io.text.out.trim().split('\n').map((line) => JSON.parse(line) as { error?: string } | unknown[])
  assert.ok(Array.isArray(lines[0]))
  assert.ok(lines.some((line) => !Array.isArray(line) && line.error !== undefined))
})

test('config check prints every error as it is, and what a valid file holds', async (t) => {
  const examples = join(packageRoot(), 'config/examples')
  const east = join(examples, 'east.yaml')
  assert.equal((await perigee('config', 'check', east)).out, `${east}: valid; namespaces test; ships to west, changes\n`)
  assert.equal(JSON.parse((await perigee('config', 'check', east, '--json')).out).service['node-id'], 'a1')
  const file = join(temporary(t), 'bad.yaml')
  writeFileSync(file, 'service: { service-threads: x }\nnamespaces: []\n')
  const { code, err } = await perigee('config', 'check', file)
  assert.equal(code, 1)
  assert.deepEqual(err.split('\n').map((line) => line.slice(0, file.length + 3)), [`${file}:1:`, `${file}:2:`, ''])
  assert.match((await perigee('serve', '--config', join(file, 'none'))).err, /none: /)
})

test('typed values become what they look like', () => {
  assert.equal(parseValue('36'), 36)
  assert.equal(parseValue('9223372036854775807'), 2n ** 63n - 1n)
  assert.deepEqual(parseValue('1.0'), new Double(1))
  assert.equal(parseValue('true'), true)
  assert.equal(parseValue('null'), null)
  assert.equal(parseValue('"36"'), '36')
  assert.equal(parseValue('007'), '007')
  assert.equal(parseValue('it = 1'), 'it = 1')
  assert.deepEqual(parseBins(['a=b=c', 'd=']), { a: 'b=c', d: '' })
  assert.deepEqual(parseKey('36', 'auto'), { key: 36 })
  assert.deepEqual(parseKey('36', 'string'), { key: '36' })
  assert.deepEqual(parseKey('0a', 'bytes'), { key: Buffer.of(10) })
  assert.deepEqual(parseKey('00'.repeat(20), 'digest'), { digest: Buffer.alloc(20) })
})

test('every value has a JSON form that keeps its digits', () => {
  assert.equal(toJson(2n ** 63n - 1n), '9223372036854775807')
  assert.equal(toJson(new Double(3)), '3.0')
  assert.equal(toJson({ b: Buffer.from('hi'), g: new GeoJSON('{"type":"Point"}'), m: new Map([[1, 'x']]) }), '{"b":"aGk=","g":{"type":"Point"},"m":[[1,"x"]]}')
})

test('a value cannot steer the terminal', () => {
  assert.equal(table([{ a: '\u001b[2J' }], [{ title: 'a', value: (row) => row.a }], false), 'a\n\\x1b[2J\n')
})

test('colours are for terminals', () => {
  assert.equal(table([1], [{ title: 'n', value: String }], true), '\u001b[1mn\u001b[0m\n1\n')
})

test('the load generator gets the node of the environment unless it is told another', () => {
  const env = { PERIGEE_HOST: 'a', PERIGEE_PORT: '1' }
  assert.deepEqual(fromEnvironment(['mix', '--port', '2'], env), ['--host', 'a'])
  assert.deepEqual(fromEnvironment(['udf'], env), ['--host', 'a', '--port', '1'])
  assert.deepEqual(fromEnvironment(['limit'], env), [])
  assert.deepEqual(fromEnvironment(['read', '--port=2'], { PERIGEE_PORT: '1' }), [])
})

function commandPaths (command: Command, path: readonly string[] = []): string[] {
  return command.commands.flatMap((child) => [[...path, child.name()].join(' '), ...commandPaths(child, [...path, child.name()])])
}

test('completion knows every command, in a script that its shell can read', async () => {
  const paths = commandPaths(buildProgram(fakeIo(), () => {}))
  for (const shell of ['bash', 'zsh', 'fish']) {
    const { out } = await perigee('completion', shell)
    for (const path of paths) assert.match(out, new RegExp(`\\b${path.split(' ').at(-1)}\\b`), `${shell} ${path}`)
    const check = spawnSync(shell, ['-n'], { input: out, encoding: 'utf8' })
    if (check.error === undefined) assert.equal(check.stderr, '', shell)
  }
  const { out } = await perigee('completion', 'bash')
  const complete = (...typed: string[]) => {
    const result = spawnSync('bash', ['-c', `${out}\nCOMP_WORDS=(${typed.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${typed.length - 1}; _perigee; echo "\${COMPREPLY[*]}"`], { encoding: 'utf8' })
    return result.stdout.trim()
  }
  assert.equal(complete('perigee', 'qu'), 'quickstart')
  assert.equal(complete('perigee', 'udf', 'p'), 'put')
  assert.equal(complete('perigee', 'xdr', 'status', '--w'), '--watch')
  // What an option or a command wants, and not the options again.
  assert.equal(complete('perigee', 'completion', ''), 'bash zsh fish --help')
  assert.equal(complete('perigee', 'index', 'create', '--type', 'g'), 'geo2dsphere')
  assert.equal(complete('perigee', 'index', 'create', 'test', 'name', '-t', ''), 'numeric string blob geo2dsphere')
  assert.equal(complete('perigee', 'serve', '--config', 'package.j'), 'package.json')
  assert.equal(complete('perigee', 'info', '--tls-ca-file', 'package.j'), 'package.json')
  assert.equal(complete('perigee', 'info', '--port', ''), '')
  assert.equal(complete('perigee', 'info', '--port', '3000', '--js'), '--json')
})

test('the reference page lists every command and option', () => {
  const page = join(packageRoot(), 'docs/reference/cli.md')
  const text = readFileSync(page, 'utf8')
  const [begin, end] = [text.indexOf(COMMANDS_BEGIN), text.indexOf(COMMANDS_END)]
  assert.ok(begin >= 0 && end > begin)
  const expected = `${COMMANDS_BEGIN}\n\n${renderCommands(buildProgram(fakeIo(), () => {}))}\n\n`
  if (process.env['PERIGEE_REGENERATE'] === '1') {
    writeFileSync(page, text.slice(0, begin) + expected + text.slice(end))
    return
  }
  assert.equal(text.slice(begin, end), expected, 'regenerate with PERIGEE_REGENERATE=1 node --test dist/src/cli/')
})

test('backup and restore say what they cannot do before they ask a node', async (t) => {
  const directory = temporary(t)
  const refused = async (code: number, reason: RegExp, ...args: string[]): Promise<void> => {
    const ran = await perigee(...args, '--port', '1', '--timeout', '100')
    assert.equal(ran.code, code, ran.err)
    assert.match(ran.err, reason)
  }
  await refused(2, /--namespace is missing/, 'backup', '-d', directory)
  await refused(2, /--modified-after needs filter expressions/, 'backup', '-n', 'test', '-d', directory, '--modified-after', '2026-01-01')
  await refused(2, /partitions go from 0 to 4095/, 'backup', '-n', 'test', '-d', directory, '-X', '4000-200')
  await refused(2, /exclude each other/, 'backup', '-n', 'test', '-d', directory, '-X', '1', '-D', 'x')
  await refused(1, /has no manifest/, 'backup', '--verify', directory)
  await refused(1, /cannot be read \(ENOENT\)/, 'backup', '--remove-artifacts', '-d', join(directory, 'none'))
  await refused(1, /cannot be removed/, 'backup', '--remove-artifacts', '-o', directory)
  assert.equal((await perigee('backup', '--remove-artifacts', '-o', join(directory, 'none'), '--json')).out, '{"removed":0}\n')
  await refused(1, /there is no .*none: what it was the state of is complete/, 'backup', '-d', directory, '--continue', join(directory, 'none'))
  writeFileSync(join(directory, 'state'), '{}')
  await refused(1, /is not the state of a backup/, 'backup', '--continue', join(directory, 'state'))
  await refused(2, /either --directory or --input-file/, 'restore')
  await refused(2, /--unique and --replace/, 'restore', '-d', directory, '--unique', '--replace')
  await refused(1, /has no \.asb files/, 'restore', '-d', directory)
  await refused(1, /cannot be read \(ENOENT/, 'restore', '-i', join(directory, 'none.asb'))
  writeFileSync(join(directory, 'a.asb'), 'Version 3.1\n# namespace test\n+ n test\nnonsense\n')
  await refused(1, /a\.asb:4: "\+ " is due/, 'restore', '-d', directory, '--validate')
})
