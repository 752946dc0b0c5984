import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { encodeParticle } from '../../src/client/particle.js'
import { Double, GeoJSON, HyperLogLog, OpaqueParticle, type Value } from '../../src/client/value.js'
import { ParticleType } from '../../src/engine/constants.js'
import type { Change, ChangeBin } from '../change.js'
import { formatByName } from './format.js'
import { valueJson, wireJson } from './json-text.js'

function bin (name: string, value: Value): ChangeBin {
  const { type, bytes } = encodeParticle(value)
  return { name, type, value: bytes }
}

const digest = Buffer.from('ec91192d4b7f8ce35d5d78d34bca65cbaaaac960', 'hex')
const digestText = '7JEZLUt/jONdXXjTS8ply6qqyWA='
const write: Change = {
  kind: 'write',
  namespace: 'test',
  set: 'demo',
  digest,
  key: { type: ParticleType.STRING, value: Buffer.from('key1') },
  generation: 3,
  lastUpdateMs: 1_762_304_000_123,
  expirySeconds: 1_800_000_000,
  durable: false,
  bins: [
    bin('i', 2n ** 63n - 1n), bin('n', -5), bin('d', new Double(1)), bin('e', 1.5), bin('s', 'a"b\né'), bin('b', Buffer.from([1, 2])), bin('t', true),
    bin('l', [1, 'x', null, new Double(2)]), bin('m', new Map<Value, Value>([['k', 1], [2, false]])), bin('g', new GeoJSON('{"type":"Point",\n"coordinates":[1,2]}')),
    bin('h', new HyperLogLog(Buffer.from([9]))), bin('p', new OpaqueParticle(ParticleType.PYTHON_BLOB, Buffer.from([3])))
  ]
}
const remove: Change = { ...write, kind: 'delete', bins: [], durable: true, expirySeconds: 0 }
const bare: Change = { ...write, set: '', key: undefined, bins: [] }

test('json: a write names each bin with its type', () => {
  assert.equal(formatByName('json').value(write),
    `{"msg":"write","key":["test","demo","${digestText}","key1"],"gen":3,"exp":1800000000,"lut":1762304000123,"bins":[` +
    '{"name":"i","type":"int","value":9223372036854775807},{"name":"n","type":"int","value":-5},' +
    '{"name":"d","type":"float","value":1.0},{"name":"e","type":"float","value":1.5},{"name":"s","type":"str","value":"a\\"b\\né"},' +
    '{"name":"b","type":"blob","blob-type":"generic","value":"AQI="},{"name":"t","type":"bool","value":true},' +
    '{"name":"l","type":"list","value":[1,"x",null,2.0]},{"name":"m","type":"map","value":{"2":false,"k":1}},' +
    '{"name":"g","type":"geojson","value":{"type":"Point", "coordinates":[1,2]}},' +
    '{"name":"h","type":"blob","blob-type":"hll","value":"CQ=="},{"name":"p","type":"blob","blob-type":"python","value":"Aw=="}]}')
})

test('json: a delete carries the key and says whether it is durable', () => {
  assert.equal(formatByName('json').value(remove), `{"msg":"delete","key":["test","demo","${digestText}","key1"],"gen":3,"lut":1762304000123,"durable":true}`)
})

test('flat-json: bins are members, and metadata stands beside them', () => {
  const value = formatByName('flat-json').value(write)
  assert.ok(value.startsWith('{"i":9223372036854775807,"n":-5,"d":1.0,"e":1.5,'), value)
  assert.ok(value.endsWith(`"metadata":{"msg":"write","namespace":"test","set":"demo","userKey":"key1","digest":"${digestText}","gen":3,"lut":1762304000123,"exp":1800000000}}`), value)
  assert.equal(formatByName('flat-json').value(remove),
    `{"metadata":{"msg":"delete","namespace":"test","set":"demo","userKey":"key1","digest":"${digestText}","gen":3,"lut":1762304000123,"durable":true}}`)
})

test('flat-json: a bin called metadata keeps its value under another name', () => {
  const value = JSON.parse(formatByName('flat-json').value({ ...write, bins: [bin('metadata', 1), bin('_metadata', 2)] })) as Record<string, unknown>
  assert.equal(value.__metadata, 1)
  assert.equal(value._metadata, 2)
  assert.equal((value.metadata as Record<string, unknown>).gen, 3)
})

test('keys identify the record with and without set and user key', () => {
  assert.equal(formatByName('json').key(write), `["test","demo","${digestText}","key1"]`)
  assert.equal(formatByName('json').key(bare), `["test",null,"${digestText}"]`)
  assert.equal(formatByName('flat-json').key(write), `{"namespace":"test","set":"demo","userKey":"key1","digest":"${digestText}"}`)
  assert.equal(formatByName('flat-json').key(bare), `{"namespace":"test","digest":"${digestText}"}`)
})

test('map keys that are no strings become text, and never two members of one name', () => {
  assert.equal(valueJson(new Map<Value, Value>([['1', 'a'], [1, 'b'], [true, 'c'], ['true', 'd'], [new Double(1), 'e'], [null, 'f'], [[1], 'g'], [Buffer.from([1]), 'h']])),
    '{"1":"a","int:1":"b","true":"c","str:true":"d","1.0":"e","null":"f","[1]":"g","AQ==":"h"}')
})

test('doubles that JSON has no number for are strings', () => {
  assert.equal(valueJson([NaN, Infinity, -Infinity, -0, 1e21, 2 ** 60]), '["NaN","Infinity","-Infinity",-0.0,1e+21,1152921504606846976.0]'.replace('1152921504606846976.0', `${2 ** 60}.0`))
})

test('GeoJSON that is no JSON is a string', () => {
  assert.equal(valueJson(new GeoJSON('{"type":')), '"{\\"type\\":"')
})

test('bytes that are not what their type says are refused', () => {
  assert.throws(() => wireJson({ type: ParticleType.INTEGER, value: Buffer.alloc(7) }))
  assert.throws(() => wireJson({ type: ParticleType.LIST, value: Buffer.from([0x92, 1]) }))
  assert.throws(() => wireJson({ type: ParticleType.LIST, value: Buffer.alloc(10_000, 0x91) }), 'nested too deep')
})

test('any value becomes one line of JSON that parses, with integers exact', () => {
  const { value } = fc.letrec<{ value: Value }>((tie) => ({
    value: fc.oneof({ depthSize: 'small' },
      fc.constant(null), fc.boolean(), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), fc.double().map((number) => new Double(number)), fc.string({ unit: 'binary' }),
      fc.uint8Array().map((bytes) => Buffer.from(bytes)), fc.array(tie('value')), fc.array(fc.tuple(fc.oneof(fc.bigInt({ min: -9n, max: 9n }), fc.string()), tie('value'))).map((pairs) => new Map(pairs)))
  }))
  fc.assert(fc.property(value, (sample) => {
    const text = formatByName('json').value({ ...write, bins: [bin('v', sample)] })
    assert.ok(!text.includes('\n'))
    JSON.parse(text)
    if (typeof sample === 'bigint') assert.ok(text.includes(`"value":${sample}}`))
  }))
})

test('an unknown format is refused with the names of those that exist', () => {
  assert.throws(() => formatByName('toString'), /unknown; known: json, flat-json/)
})
