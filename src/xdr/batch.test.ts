import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { BatchError, decodeBatch, encodeConfirmation, Outcome } from './batch.js'
import { MemoryNative } from './testing/memory-native.js'

async function sample (records: number): Promise<Buffer> {
  const native = new MemoryNative({ dc: ['a', 'b'] })
  for (let index = 0; index < records; index++) native.put(index % 2 === 0 ? 'a' : 'b', `k${index}`, BigInt(index))
  return await native.xdrTake('dc', 1 << 16, 100)
}

test('a batch decodes into views of itself', async () => {
  const batch = await sample(5)
  const entries = decodeBatch(batch)
  assert.equal(entries.length, 5)
  assert.deepEqual(entries.map((entry) => entry.namespace), [0, 1, 0, 1, 0])
  assert.deepEqual(entries.map((entry) => entry.tokenLow), [1, 2, 3, 4, 5])
  for (const entry of entries) {
    assert.equal(entry.frame.buffer, batch.buffer)
    assert.equal(entry.frame.length, entry.frameBytes)
    assert.equal(entry.frame.readUIntBE(2, 6), entry.frameBytes - 8)
  }
})

test('an empty take is an empty batch, with or without its count', () => {
  assert.deepEqual(decodeBatch(Buffer.alloc(0)), [])
  assert.deepEqual(decodeBatch(Buffer.alloc(4)), [])
})

test('a confirmation carries each token and its outcome', async () => {
  const entries = decodeBatch(await sample(2))
  const outcomes = [Outcome.RETRY, Outcome.ABANDON]
  assert.equal(encodeConfirmation(entries, (index) => outcomes[index]!).toString('hex'), '0100000000000000' + '0100000000000000' + '0200000000000000' + '0200000000000000')
})

test('a batch cut anywhere, or with any byte changed, is decoded or refused and never read outside its bounds', async () => {
  const batch = await sample(4)
  for (let end = 1; end < batch.length; end++) assert.throws(() => decodeBatch(batch.subarray(0, end)), BatchError)
  fc.assert(fc.property(fc.nat(batch.length - 1), fc.nat(255), (at, byte) => {
    const damaged = Buffer.from(batch)
    damaged[at] = byte
    try {
      decodeBatch(damaged)
    } catch (error) {
      assert.ok(error instanceof BatchError, String(error))
    }
  }))
})
