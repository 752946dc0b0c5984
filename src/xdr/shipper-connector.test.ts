import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Connector, ConnectorOutcome } from '../../connectors/connector.js'
import { Datacenter } from './datacenter.js'
import { ConnectorShipper } from './shipper-connector.js'
import { MemoryNative } from './testing/memory-native.js'
import { KeptLog, until } from './testing/rig.js'

test('a connector that rejects, throws or answers too little costs a retry and no change', async (t) => {
  // Fault model: the first calls break the promise of `Connector.ship` in turn, with the changes not shipped.
  const shipped = new Set<string>()
  let calls = 0
  const connector: Connector = {
    nodes: 1,
    open: async () => {},
    ship (changes) {
      calls++
      if (calls === 1) return Promise.reject(new Error('rejected'))
      if (calls === 2) throw new Error('thrown')
      if (calls === 3) return Promise.resolve([])
      for (const { digest } of changes) shipped.add(digest.toString('hex'))
      return Promise.resolve(changes.map((): ConnectorOutcome => 'shipped'))
    },
    close: async () => {}
  }
  const native = new MemoryNative({ dc: ['test'] })
  const kept = new KeptLog()
  const datacenter = new Datacenter({
    name: 'dc',
    namespaces: [{ name: 'test', maxThroughput: 1_000_000 }],
    periodMs: 5,
    native,
    shipper: (settle) => new ConnectorShipper(connector, settle, kept.log),
    log: kept.log,
    limits: { retryMsMin: 5, retryMsMax: 20, inFlightEntriesMax: 20 }
  })
  t.after(() => datacenter.close())
  for (let key = 0; key < 100; key++) native.put('test', `k${key}`, BigInt(key))
  datacenter.start()
  await until('shipped', () => native.isDone('dc'))
  assert.equal(shipped.size, 100)
  assert.equal(datacenter.counters(0).success, 100)
  assert.equal(datacenter.counters(0).retry_dest, 60)
  assert.ok(kept.has('a connector failed'))
})
