import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { parseConfigText } from '../../config/load.js'
import { parseIndexes } from '../client/indexes.js'
import { SecondaryIndexes } from '../node/secondary-indexes.js'
import { SystemMetadata } from '../node/system-metadata.js'
import { MemoryIndexes } from '../node/testing/memory-indexes.js'
import type { NodeView } from './node-view.js'
import { answerInfo } from './registry.js'

const CONFIG = `namespaces:
  - { name: test, storage-engine: { type: memory, data-size: 1G } }
  - { name: other, storage-engine: { type: memory, data-size: 1G } }
`

/** Info commands over the real keeper of definitions, and an engine without records. */
async function rig (t: TestContext, engine = new MemoryIndexes(), directory = mkdtempSync(join(tmpdir(), 'perigee-sindex-'))) {
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  const secondaryIndexes = new SecondaryIndexes(await SystemMetadata.open(directory), engine)
  const sets = { test: { users: { objects: 3, tombstones: 0, data_used_bytes: 96, truncate_lut: 0, truncating: false } }, other: {} }
  const view = { ready: true, runtimeConfig: { current: parseConfigText(CONFIG) }, secondaryIndexes, engine: { stats: () => ({ sets }) } } as unknown as NodeView
  const ask = async (command: string): Promise<string> => {
    const reply = await answerInfo(view, `${command}\n`, (error) => { throw error })
    return reply.slice(command.length + 1, -1)
  }
  const ok = async (...commands: string[]): Promise<void> => {
    for (const command of commands) assert.equal(await ask(command), 'ok', command)
  }
  return { directory, engine, secondaryIndexes, ask, ok }
}

test('both spellings of a creation mean the same', async (t) => {
  const { engine, ok } = await rig(t)
  await ok(
    'sindex-create:namespace=test;set=demo;indexname=i;bin=a;type=NUMERIC',
    'sindex-create:ns=test;set=demo;indexname=i;indexdata=a,numeric',
    'sindex-create:namespace=test;set=demo;indexname=i;bin=a;type=INTEGER;indextype=DEFAULT',
    'sindex-create:ns=test;set=demo;indexname=l;indextype=LIST;indexdata=a,STRING',
    'sindex-create:namespace=test;set=demo;indexname=c;context=kiKiA24=;bin=a;type=BLOB;',
    'sindex-create:ns=test;indexname=with,comma;indexdata=a,b,geo2dsphere;indextype=mapvalues',
    'sindex-create:namespace=test;set=demo;indexname=e;exp=kxSTUQKhYQE=;type=numeric',
    'sindex-create:namespace=other;set=demo;indexname=i;indextype=set'
  )
  assert.deepEqual([...engine.made.get('test')!.values()], [
    { name: 'i', set: 'demo', bin: 'a', 'index-type': 'default', 'key-type': 'numeric' },
    { name: 'l', set: 'demo', bin: 'a', 'index-type': 'list', 'key-type': 'string' },
    { name: 'c', set: 'demo', bin: 'a', context: 'kiKiA24=', 'index-type': 'default', 'key-type': 'blob' },
    { name: 'with,comma', bin: 'a,b', 'index-type': 'mapvalues', 'key-type': 'geo2dsphere' },
    { name: 'e', set: 'demo', expression: 'kxSTUQKhYQE=', 'index-type': 'default', 'key-type': 'numeric' }
  ])
  assert.deepEqual([...engine.made.get('other')!.values()], [{ name: 'i', set: 'demo', 'index-type': 'set', 'key-type': 'numeric' }])
})

test('what cannot be meant is refused with what is wrong about it, and makes nothing', async (t) => {
  const { secondaryIndexes, ask } = await rig(t)
  const refusals: Record<string, RegExp> = {
    'indexname=i;bin=a;type=numeric': /^ERROR:20:missing 'namespace'$/,
    'namespace=none;indexname=i;bin=a;type=numeric': /^ERROR:20:namespace not found/,
    'namespace=test;bin=a;type=numeric': /^ERROR:4:missing 'indexname'$/,
    'namespace=test;indexname=;bin=a;type=numeric': /^ERROR:4:missing 'indexname' value$/,
    [`namespace=test;indexname=${'x'.repeat(64)};bin=a;type=numeric`]: /^ERROR:4:'indexname' is longer than 63 bytes$/,
    'namespace=test;indexname=a:b;bin=a;type=numeric': /^ERROR:4:bad 'indexname' 'a:b'/,
    'namespace=test;indexname=i;type=numeric': /^ERROR:4:missing 'bin' or 'exp'$/,
    'namespace=test;indexname=i;bin=;type=numeric': /^ERROR:4:missing 'bin' value$/,
    'namespace=test;indexname=i;bin=sixteen-bytes-xx;type=numeric': /^ERROR:4:'bin' is longer than 15 bytes$/,
    'namespace=test;indexname=i;bin=a;exp=AQ==;type=numeric': /^ERROR:4:'bin' and 'exp' exclude each other$/,
    'namespace=test;indexname=i;bin=a': /^ERROR:4:missing 'type'$/,
    'namespace=test;indexname=i;bin=a;type=double': /^ERROR:4:bad type 'double': numeric, integer, string, blob, geo2dsphere$/,
    'namespace=test;indexname=i;bin=a;type=numeric;indextype=map': /^ERROR:4:bad 'indextype' 'map': default, list, mapkeys, mapvalues, set$/,
    'namespace=test;indexname=i;indexdata=a': /^ERROR:4:bad 'indexdata' 'a'/,
    'namespace=test;indexname=i;indexdata=a,numeric;type=numeric': /^ERROR:4:'indexdata' goes without/,
    'namespace=test;indexname=i;exp=AQ==;context=kiKiA24=;type=numeric': /^ERROR:4:'context' and 'exp' exclude each other/,
    'namespace=test;indexname=i;bin=a;context=a!;type=numeric': /^ERROR:4:bad 'context': it is no base64$/,
    [`namespace=test;indexname=i;exp=${'A'.repeat(65_540)};type=numeric`]: /^ERROR:4:'exp' is longer than 65536 bytes$/,
    [`namespace=test;set=${'x'.repeat(64)};indexname=i;bin=a;type=numeric`]: /^ERROR:4:'set' is longer than 63 bytes$/,
    'namespace=test;indexname=i;indextype=set': /^ERROR:4:missing 'set'$/,
    'namespace=test;set=demo;indexname=i;indextype=set;bin=a': /^ERROR:4:'bin' with 'indextype' set/
  }
  for (const [parameters, refusal] of Object.entries(refusals)) assert.match(await ask(`sindex-create:${parameters}`), refusal, parameters)
  assert.deepEqual(secondaryIndexes.list(), [])
})

test('what the engine refuses has the code that clients know', async (t) => {
  const { ask, ok } = await rig(t, new MemoryIndexes({ max: 1, refuses: ({ expression }) => expression === 'AA==' }))
  assert.equal(await ask('sindex-create:namespace=test;indexname=i;exp=AA==;type=numeric'), 'ERROR:4:the expression has no type')
  await ok('sindex-create:namespace=test;indexname=i;bin=a;type=numeric')
  assert.equal(await ask('sindex-create:namespace=test;indexname=i;bin=b;type=numeric'), 'ERROR:200:there is another index of this name')
  assert.equal(await ask('sindex-create:namespace=test;indexname=j;bin=b;type=numeric'), 'ERROR:206:a namespace has at most 1 indexes')
})

test('indexes are listed as tools read them, those of whole sets last', async (t) => {
  const { engine, ask, ok } = await rig(t)
  assert.equal(await ask('sindex-list'), '')
  await ok(
    'sindex-create:namespace=other;set=demo;indexname=all;indextype=set',
    'sindex-create:namespace=test;indexname=i;bin=a;type=numeric',
    'sindex-create:namespace=test;set=demo;indexname=c;context=kiKiA24=;bin=a;type=string;indextype=mapkeys',
    'sindex-create:namespace=other;set=demo;indexname=e;exp=kxSTUQKhYQE=;type=numeric'
  )
  engine.status.set('i', { state: 'ready' })
  const test = 'ns=test:indexname=i:set=null:bin=a:type=numeric:indextype=default:context=null:exp=null:state=RW;' +
    'ns=test:indexname=c:set=demo:bin=a:type=string:indextype=mapkeys:context=kiKiA24=:exp=null:state=WO'
  const other = 'ns=other:indexname=e:set=demo:bin=null:type=numeric:indextype=default:context=null:exp=kxSTUQKhYQE=:state=WO'
  const ofSet = 'ns=other:indexname=all:set=demo:indextype=set'
  assert.equal(await ask('sindex-list'), [test, other, ofSet].join(';'))
  assert.equal(await ask('sindex'), [test, other, ofSet].join(';'))
  assert.equal(await ask('sindex-list:;b64=true'), [test, other, ofSet].join(';'))
  for (const command of ['sindex-list:namespace=test', 'sindex-list:ns=test;b64=true', 'sindex/test']) assert.equal(await ask(command), test)
  for (const command of ['sindex-list:namespace=none', 'sindex/none']) assert.equal(await ask(command), 'ERROR:20:namespace not found on node')
})

test('names of sets and bins cannot break a list', async (t) => {
  const { ask, ok } = await rig(t)
  await ok('sindex-create:namespace=test;set=a:b=c;indexname=i,j;bin=d:e;type=numeric')
  const list = await ask('sindex-list:namespace=test')
  assert.equal(list, 'ns=test:indexname=i,j:set=a%3Ab%3Dc:bin=d%3Ae:type=numeric:indextype=default:context=null:exp=null:state=WO')
  const [index] = parseIndexes(list)
  assert.deepEqual([index!.name, index!.set, index!.bin], ['i,j', 'a:b=c', 'd:e'])
})

test('statistics of an index are answered in both forms', async (t) => {
  const { engine, ask, ok } = await rig(t)
  await ok('sindex-create:namespace=test;set=users;indexname=i/1;bin=a;type=numeric;indextype=list')
  engine.status.set('i/1', { entries: 10, 'used-bytes': 400, 'entries-per-bval': 1, 'entries-per-rec': 3, 'load-pct': 60, 'load-time-ms': 7, 'gc-records': 2 })
  const expected = 'entries=10;used_bytes=400;entries_per_bval=1;entries_per_rec=3;load_pct=60;load_time=7;stat_gc_recs=2'
  for (const command of ['sindex-stat:namespace=test;indexname=i/1', 'sindex-stat:ns=test;indexname=i/1', 'sindex/test/i/1']) assert.equal(await ask(command), expected)
  for (const command of ['sindex-stat:namespace=other;indexname=i/1', 'sindex/test/i', 'sindex/other/i/1']) assert.equal(await ask(command), 'ERROR:201:no index')
  assert.equal(await ask('sindex-stat:namespace=test'), "ERROR:4:missing 'indexname'")
  assert.equal(await ask('sindex-stat:indexname=i'), "ERROR:20:missing 'namespace'")
  assert.match(await ask('sets/test/users'), /:sindexes=1:index_populating=false:/)
  await ok('sindex-create:namespace=test;set=users;indexname=all;indextype=set')
  assert.match(await ask('sets/test/users'), /:sindexes=1:index_populating=true:/)
})

test('an index is there until it is deleted, and deleting what is not there is no error', async (t) => {
  const { engine, ask, ok } = await rig(t)
  await ok('sindex-create:namespace=test;indexname=i;bin=a;type=numeric')
  assert.equal(await ask('sindex-exists:namespace=test;indexname=i'), 'true')
  assert.equal(await ask('sindex-exists:ns=other;indexname=i'), 'false')
  await ok('sindex-delete:namespace=test;set=demo;indexname=i', 'sindex-delete:ns=test;indexname=i')
  assert.equal(await ask('sindex-exists:namespace=test;indexname=i'), 'false')
  assert.equal(engine.made.get('test')!.size, 0)
  assert.equal(await ask('sindex-delete:indexname=i'), "ERROR:20:missing 'namespace'")
  assert.equal(await ask('sindex-exists:namespace=test'), "ERROR:4:missing 'indexname'")
})

test('a definition that is kept but refused shows why', async (t) => {
  const before = await rig(t)
  await before.ok('sindex-create:namespace=test;indexname=i;bin=a;type=numeric')
  const { ask, secondaryIndexes } = await rig(t, new MemoryIndexes({ refuses: () => true }), before.directory)
  secondaryIndexes.restore(new Set(['test']), () => {})
  assert.match(await ask('sindex-list'), /^ns=test:indexname=i:.*:state=ERROR$/)
  assert.equal(await ask('sindex-stat:namespace=test;indexname=i'), 'ERROR:204:the expression has no type')
})
