import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseConfigText } from '../../config/load.js'
import type { NamespaceConfig } from '../../config/schema.js'
import type { NativeNode } from '../engine/native.js'
import { ConfigChangeError, RuntimeConfig } from './runtime-config.js'

const CONFIG = `namespaces:
  - { name: test, sets: [{ name: users, default-ttl: 1d }], storage-engine: { type: memory, data-size: 1G } }
  - { name: other, storage-engine: { type: memory, data-size: 1G } }
`

/** A configuration over an engine that remembers what it was told. */
function rig () {
  const told: Array<[string, NamespaceConfig]> = []
  const native = { configure: (name: string, text: string) => { told.push([name, JSON.parse(text) as NamespaceConfig]) } } as unknown as NativeNode
  const config = new RuntimeConfig(parseConfigText(CONFIG), native)
  const set = (values: Record<string, string>, ofSet?: string) => config.setNamespace('test', ofSet, new Map(Object.entries(values)))
  return { config, told, set, namespace: () => config.current.namespaces[0]! }
}

test('changed values are the engine\'s and are shown, in the units of a file', () => {
  const { config, told, set, namespace } = rig()
  set({ 'default-ttl': '2h', 'max-record-size': '512K', 'defrag-lwm-pct': '60' })
  set({ 'storage-engine.defrag-lwm-pct': '70', compression: 'zstd', 'compression-level': '9', 'defrag-sleep': '0', 'tomb-raider-sleep': '5' })
  assert.equal(namespace()['default-ttl'], 7200)
  assert.equal(namespace()['max-record-size'], 512 * 1024)
  const storage = namespace()['storage-engine']
  assert.deepEqual(['defrag-lwm-pct', 'compression', 'compression-level', 'defrag-sleep', 'tomb-raider-sleep'].map((key) => storage[key as keyof typeof storage]),
    [70, 'zstd', 9, 0, 5])
  assert.deepEqual(told.at(-1), ['test', namespace()])
  assert.equal(config.current.namespaces[1]!['default-ttl'], 0)
})

test('a set that has settings keeps the others, and one that has none gets the defaults', () => {
  const { set, namespace } = rig()
  set({ 'stop-writes-count': '5' }, 'users')
  set({ 'disable-eviction': 'true' }, 'new')
  assert.deepEqual(namespace().sets.map(({ name, ...rest }) => [name, rest['default-ttl'], rest['stop-writes-count'], rest['disable-eviction']]),
    [['users', 86_400, 5, false], ['new', 0, 0, true]])
})

test('what is wrong changes nothing and says why', () => {
  const { config, told, set } = rig()
  const before = config.current
  const refused = (values: Record<string, string>, message: RegExp, ofSet?: string) => {
    assert.throws(() => set(values, ofSet), (error) => error instanceof ConfigChangeError && message.test(error.message), JSON.stringify(values))
  }
  refused({ 'stop-writes-used-pct': '101' }, /stop-writes-used-pct: "101" is out of bounds; allowed: 0 to 100/)
  refused({ 'default-ttl': '1h', 'evict-tenths-pct': 'some' }, /evict-tenths-pct: "some" is not an integer/)
  refused({ 'nsup-period': '0' }, /sets\[0\]\.default-ttl: 86400 while nsup-period is 0/)
  refused({ 'evict-indexes-memory-pct': '50' }, /while indexes-memory-budget is 0/)
  refused({ 'max-record-size': '8M', 'storage-engine.write-block-size': '4M' }, /'storage-engine.write-block-size' cannot be changed/)
  refused({ compression: 'gzip' }, /compression: "gzip" is not a choice here; allowed: none, lz4, zstd/)
  refused({ 'flush-max-ms': '5' }, /'flush-max-ms' cannot be changed while the node runs/)
  refused({ 'replication-factor': '2' }, /'replication-factor' cannot be changed while the node runs/)
  refused({ name: 'other' }, /'name' cannot be changed/)
  refused({ sets: '1' }, /unknown key 'sets'/)
  refused({ 'default-tll': '1' }, /unknown key 'default-tll'/)
  refused({ 'nsup-period': '1' }, /unknown key 'nsup-period'/, 'users')
  refused({ name: 'renamed' }, /'name' cannot be changed/, 'users')
  assert.equal(config.current, before)
  assert.deepEqual(told, [])
})
