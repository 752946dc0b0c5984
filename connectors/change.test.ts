import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { FrameError } from '../src/client/message.js'
import { ParticleType } from '../src/engine/constants.js'
import { decodeChange } from './change.js'
import { encodeFrame, integer, type FrameSource } from './testing/frame.js'

const source: FrameSource = {
  kind: 'write',
  namespace: 'test',
  set: 'users',
  digest: Buffer.alloc(20, 0xab),
  key: { type: ParticleType.STRING, value: Buffer.from('ann') },
  generation: 7,
  lut: 500_000_000_123n,
  bins: [{ name: 'age', type: ParticleType.INTEGER, value: integer(42n) }, { name: 'no', type: ParticleType.STRING, value: Buffer.alloc(0) }]
}

test('a shipped write is read with times in Unix units', () => {
  assert.deepEqual(decodeChange(encodeFrame(source), 1000), {
    kind: 'write',
    namespace: 'test',
    set: 'users',
    digest: source.digest,
    key: source.key,
    generation: 7,
    lastUpdateMs: 1_262_304_000_000 + 500_000_000_123,
    expirySeconds: 1_262_305_000,
    durable: false,
    bins: decodeChange(encodeFrame(source), 0).bins
  })
  assert.deepEqual(decodeChange(encodeFrame(source), 0).bins.map(({ name, type, value }) => ({ name, type, value })), source.bins)
})

test('a shipped delete has no bins, and a record may have neither set nor key', () => {
  const { key: _key, ...keyless } = source
  const change = decodeChange(encodeFrame({ ...keyless, kind: 'delete', set: '', bins: [], durable: true }), 0)
  assert.equal(change.kind, 'delete')
  assert.equal(change.durable, true)
  assert.equal(change.set, '')
  assert.equal(change.key, undefined)
  assert.equal(change.expirySeconds, 0)
})

test('a frame with any byte changed is read or refused as a frame', () => {
  const frame = encodeFrame(source)
  fc.assert(fc.property(fc.nat(frame.length - 1), fc.nat(255), (at, byte) => {
    const damaged = Buffer.from(frame)
    damaged[at] = byte
    try {
      decodeChange(damaged, 0)
    } catch (error) {
      assert.ok(error instanceof FrameError, String(error))
    }
  }))
  for (let end = 0; end < frame.length; end++) assert.throws(() => decodeChange(frame.subarray(0, end), 0), FrameError)
})
