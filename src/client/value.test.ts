// Values through msgpack and particles.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ParticleType } from '../engine/constants.js'
import { MsgpackError, decodeMsgpack, encodeMsgpack } from './msgpack.js'
import { decodeParticle, encodeParticle } from './particle.js'
import { Double, GeoJSON, HyperLogLog, INFINITY, OpaqueParticle, RawString, WILDCARD, fromBigInt, fromDouble, setOwn, type Value } from './value.js'

const hex = (value: Value) => encodeMsgpack(value).toString('hex')

test('integers take their shortest form', () => {
  const widths: Array<[number | bigint, string]> = [
    [0, '00'], [127, '7f'], [128, 'cc80'], [-1, 'ff'], [-32, 'e0'], [-33, 'd0df'], [-128, 'd080'], [-129, 'd1ff7f'], [255, 'ccff'], [256, 'cd0100'],
    [65_535, 'cdffff'], [65_536, 'ce00010000'], [2 ** 32, 'cf0000000100000000'], [-(2n ** 63n), 'd38000000000000000'], [-(2 ** 31), 'd280000000'],
    [-(2 ** 31) - 1, 'd3ffffffff7fffffff'], [2n ** 64n - 1n, 'cfffffffffffffffff'], [5n, '05']
  ]
  for (const [value, bytes] of widths) {
    assert.equal(hex(value), bytes)
    assert.equal(decodeMsgpack(Buffer.from(bytes, 'hex')), value === 5n ? 5 : value)
  }
})

test('the length of a text counts its type byte', () => {
  assert.equal(hex(''), 'a103')
  assert.equal(hex('a'.repeat(30)).slice(0, 4), 'bf03')
  assert.equal(hex('a'.repeat(31)).slice(0, 6), 'd92003')
  assert.equal(hex('a'.repeat(254)).slice(0, 6), 'd9ff03')
  assert.equal(hex('a'.repeat(255)).slice(0, 8), 'da010003')
  assert.equal(hex('a'.repeat(65_535)).slice(0, 12), 'db0001000003')
  assert.equal(hex(Buffer.alloc(31)).slice(0, 6), 'd92004')
  assert.equal(hex(Buffer.alloc(0)), 'a104')
  assert.equal(hex(new RawString('a')), 'a161')
})

test('a map is sent key-ordered', () => {
  assert.equal(hex({ b: 1, a: 'x' }), '83c70001c0a20361a20378a2036201')
  assert.equal(hex(new Map<Value, Value>([['a', 3], [3, 1], [1, 2]])), '84c70001c001020301a2036103')
  assert.equal(hex({}), '81c70001c0')
})

test('orders are dropped on reading', () => {
  assert.deepEqual(decodeMsgpack(Buffer.from('93c700010102', 'hex')), [1, 2])
  assert.deepEqual(decodeMsgpack(Buffer.from('82c70003c0a2036101', 'hex')), { a: 1 })
  assert.deepEqual(decodeMsgpack(Buffer.from('81c70001c0', 'hex')), {})
})

test('what compares specially is a value, not an order', () => {
  assert.equal(hex([WILDCARD, INFINITY]), '92d4ff00d4ff01')
  assert.deepEqual(decodeMsgpack(Buffer.from('92d4ff00d4ff01', 'hex')), [WILDCARD, INFINITY])
})

test('a double that looks like an integer stays a double', () => {
  assert.equal(hex(2), '02')
  assert.equal(hex(new Double(2)), 'cb4000000000000000')
  assert.equal(hex(-0), 'cb8000000000000000')
  assert.equal(hex(1e300).slice(0, 2), 'cb')
  assert.deepEqual(decodeMsgpack(encodeMsgpack(new Double(2))), new Double(2))
  assert.equal(new Double(2).valueOf() + 1, 3)
})

test('what a bin cannot hold is refused when it is written', () => {
  assert.throws(() => encodeParticle(2n ** 63n), RangeError)
  assert.throws(() => encodeParticle(undefined as never), TypeError)
  assert.throws(() => encodeParticle([undefined] as never), TypeError)
  assert.throws(() => encodeParticle(new Date() as never), TypeError)
  assert.throws(() => encodeMsgpack(new Map<Value, Value>([[1, 1], [1n, 2]])), /twice/)
  const cycle: Value[] = []
  cycle.push(cycle)
  assert.throws(() => encodeParticle(cycle), /nested deeper/)
})

test('a key called __proto__ is a key', () => {
  const decoded = decodeMsgpack(encodeMsgpack(new Map([['__proto__', 1]]))) as Record<string, Value>
  assert.deepEqual(Object.keys(decoded), ['__proto__'])
  assert.equal(Object.getPrototypeOf(decoded), Object.prototype)
})

test('GeoJSON cells of the server are skipped', () => {
  const text = '{"type":"Point","coordinates":[1,2]}'
  const particle = Buffer.concat([Buffer.of(0, 0, 1), Buffer.alloc(8, 7), Buffer.from(text)])
  assert.deepEqual(decodeParticle(ParticleType.GEOJSON, particle), new GeoJSON(text))
  assert.throws(() => decodeParticle(ParticleType.GEOJSON, particle.subarray(0, 9)), { code: 'PARTICLE' })
})

test('cut or padded particles are refused', () => {
  assert.throws(() => decodeParticle(ParticleType.INTEGER, Buffer.alloc(7)), { code: 'PARTICLE' })
  assert.throws(() => decodeParticle(ParticleType.BOOL, Buffer.alloc(0)), { code: 'PARTICLE' })
  assert.throws(() => decodeParticle(ParticleType.LIST, Buffer.from('9201', 'hex')), { code: 'MSGPACK' })
  assert.throws(() => decodeParticle(ParticleType.LIST, Buffer.from('910102', 'hex')), { code: 'MSGPACK' })
})

test('a count larger than its bytes sizes nothing', () => {
  assert.throws(() => decodeMsgpack(Buffer.from('ddffffffff', 'hex')), MsgpackError)
  assert.throws(() => decodeMsgpack(Buffer.from('dfffffffff', 'hex')), MsgpackError)
  assert.throws(() => decodeMsgpack(Buffer.alloc(100_000, 0x91)), MsgpackError)
})

const scalar = (): fc.Arbitrary<Value> => fc.oneof(
  fc.constant(null), fc.boolean(), fc.string({ unit: 'binary' }), fc.maxSafeInteger(),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(fromBigInt),
  fc.double({ noNaN: true }).map(fromDouble),
  fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  fc.constant('{"type":"Point","coordinates":[0,0]}').map((text) => new GeoJSON(text)),
  fc.uint8Array().map((bytes) => new HyperLogLog(Buffer.from(bytes)))
)

const value = fc.letrec<{ value: Value, key: Value }>((tie) => ({
  key: fc.oneof(fc.maxSafeInteger(), fc.string(), fc.double({ noNaN: true }).map(fromDouble)),
  value: fc.oneof(
    { maxDepth: 4, depthIdentifier: 'value' },
    scalar(),
    fc.array(tie('value'), { maxLength: 20, depthIdentifier: 'value' }),
    fc.dictionary(fc.string(), tie('value'), { maxKeys: 20, noNullPrototype: true, depthIdentifier: 'value' }),
    fc.uniqueArray(fc.tuple(fc.maxSafeInteger(), tie('value')), { maxLength: 5, selector: ([key]) => key })
      .map((entries) => new Map<Value, Value>([[null, 'so that not every key is a string'], ...entries.sort(([a], [b]) => a - b)]))
  )
})).value

test('every value survives msgpack', () => {
  fc.assert(fc.property(value, (sample) => assert.deepEqual(decodeMsgpack(encodeMsgpack(sample)), sample)))
})

test('every value survives a bin', () => {
  fc.assert(fc.property(fc.oneof(value, fc.uint8Array().map((bytes) => new OpaqueParticle(99, Buffer.from(bytes)))), (sample) => {
    const { type, bytes } = encodeParticle(sample)
    assert.deepEqual(decodeParticle(type, bytes), sample)
  }))
})

test('bytes from outside either are a value or are refused', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
    try {
      decodeMsgpack(Buffer.from(bytes))
    } catch (error) {
      assert.ok(error instanceof MsgpackError)
    }
  }), { numRuns: 2000 })
})

test('setOwn never reaches the prototype', () => {
  const target: Record<string, Value> = {}
  setOwn(target, '__proto__', { polluted: true })
  assert.equal((target as { polluted?: boolean }).polluted, undefined)
})
