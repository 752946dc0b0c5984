// Frames, compared byte by byte with requests recorded from an official client.

import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { FieldId, Info1, Info2, OpCode, ParticleType, Ttl } from '../engine/constants.js'
import { digestOf } from './digest.js'
import { FrameReader } from './frame-reader.js'
import { decodeInfo, encodeInfo, infoError, parsePairs } from './info.js'
import { FrameError, decodeFrame, decodeMessage, encodeRequest, unixMsOfLut, unixSecondsOfVoidTime } from './message.js'
import { encodeMsgpack } from './msgpack.js'
import { op } from './operation.js'
import { encodeParticle } from './particle.js'
import {
  applyRequest, existsRequest, getRequest, operateRequest, putRequest, removeRequest, selectRequest, type Command, type Key, type WritePolicy
} from './request.js'
import { shippedFrame } from './scratch-node.js'
import { Double, GeoJSON, RawString } from './value.js'

const key: Key = { namespace: 'test', set: 'demo', key: 'key1' }
const policy = { timeoutMs: 1000 }
const one = (more: WritePolicy = {}) => putRequest(key, { a: 1 }, { ...policy, ...more })
const operate = (...ops: Parameters<typeof operateRequest>[1]) => operateRequest(key, ops, policy)

// Expressions: bin a of type integer; names are raw, literals are not.
const a = [81, 2, new RawString('a')]

const REQUESTS: Record<string, () => Command> = {
  get: () => getRequest(key, policy),
  'get int key': () => getRequest({ ...key, key: 1 }, policy),
  'get blob key': () => getRequest({ ...key, key: Buffer.of(0, 1, 2) }, policy),
  'get no set': () => getRequest({ namespace: 'test', key: 'a' }, policy),
  'select a,b': () => selectRequest(key, ['a', 'b'], policy),
  exists: () => existsRequest(key, policy),
  'put all types': () => putRequest(key, {
    i: -5, d: 1.5, s: 'str', y: Buffer.of(1, 2), l: [1, 'a', null, true, 1.5, [2]], m: { a: 'x', b: 1 }, t: true, g: new GeoJSON('{"type":"Point","coordinates":[1,2]}')
  }, policy),
  'put ttl=100 gen=3 EQ': () => one({ ttl: 100, generation: 3 }),
  'put CREATE sendKey': () => one({ exists: 'create-only', sendKey: true }),
  'put REPLACE': () => one({ exists: 'replace-only' }),
  'put CREATE_OR_REPLACE': () => one({ exists: 'replace' }),
  'put UPDATE': () => one({ exists: 'update-only' }),
  'put durable commit master null-bin': () => putRequest(key, { a: null }, { ...policy, durableDelete: true, commitMaster: true }),
  'put filter exp': () => one({ filter: encodeMsgpack([3, a, 5]) }),
  'put ttl never/-2': () => one({ ttl: 'never' }),
  'put ttl dont update': () => one({ ttl: 'unchanged' }),
  'put gen GT': () => one({ generation: 7, generationGreater: true }),
  'put list ordered? uint big ints': () => putRequest(key, {
    l: [0, 127, 128, -1, -32, -33, -128, -129, 255, 256, 65_535, 65_536, 4_294_967_295, 4_294_967_296, 2n ** 63n - 1n, -(2n ** 63n)]
  }, policy),
  'put strings sizes': () => putRequest(key, { l: ['', 30, 31, 254, 255].map((n) => typeof n === 'number' ? 'a'.repeat(n) : n).concat([Buffer.alloc(31), Buffer.alloc(0)] as never) }, policy),
  'put nested geo in list': () => putRequest(key, { l: [new GeoJSON('{"type":"Point","coordinates":[0,0]}'), new Double(2)] }, policy),
  'put map int keys double blob': () => putRequest(key, { m: new Map<string | number, number>([['a', 3], [3, 1], [1, 2]]) }, policy),
  remove: () => removeRequest(key, policy),
  'remove durable': () => removeRequest(key, { ...policy, durableDelete: true }),
  'operate incr+append+prepend+touch+read': () => operateRequest(key, [op.add('a', 2), op.append('b', 'z'), op.prepend('b', 'y'), op.touch(), op.read('a')], { ...policy, ttl: 30 }),
  'operate delete': () => operate(op.delete(), op.read('a')),
  'apply udf': () => applyRequest(key, 'm', 'f', [1, 'a', [1], { x: 2 }, Buffer.of(9)], policy),
  'list.append': () => operate(op.collectionModify('l', [1, 'v'])),
  'list.size': () => operate(op.collectionRead('l', [16])),
  'list.get': () => operate(op.collectionRead('l', [17, -1])),
  'list.append ctx mapkey+listidx': () => operate(op.collectionModify('l', [1, 'v'], [0x22, 'k', 0x10, -1])),
  'list.append ctx create': () => operate(op.collectionModify('l', [1, 'v'], [0xa2, 'k'])),
  'map.put': () => operate(op.collectionModify('m', [67, 'k', 1, 0])),
  'map.putItems': () => operate(op.collectionModify('m', [68, { a: 1, b: 2 }, 0])),
  'map.size': () => operate(op.collectionRead('m', [96])),
  'map.getByKey': () => operate(op.collectionRead('m', [97, 8, 'k'])),
  'op exp read': () => operate(op.expressionRead('r', [20, a, 1])),
  'op exp write': () => operate(op.expressionWrite('w', [20, a, 1])),
  'op exp write flags': () => operate(op.expressionWrite('w', null, 20))
}

interface Fixture {
  name: string
  /** Long ones are recorded without their bytes. */
  frames: Array<{ type: number, hex?: string }>
}

function packageRoot (directory: string): string {
  return existsSync(join(directory, 'package.json')) ? directory : packageRoot(dirname(directory))
}

const fixturesFile = process.env['PERIGEE_FIXTURES'] ??
  join(packageRoot(dirname(fileURLToPath(import.meta.url))), '../shared/reference/wire-fixtures.jsonl')
const fixtures: Fixture[] = existsSync(fixturesFile)
  ? readFileSync(fixturesFile, 'utf8').trim().split('\n').map((line) => JSON.parse(line) as Fixture).filter(({ frames }) => Array.isArray(frames))
  : []
const absent = fixtures.length === 0 && 'no recorded requests here; PERIGEE_FIXTURES names the file'

test('requests are byte for byte those of an official client', { skip: absent }, () => {
  for (const [name, request] of Object.entries(REQUESTS)) {
    const fixture = fixtures.find((candidate) => candidate.name === name)
    assert.ok(fixture !== undefined, `no fixture ${name}`)
    assert.equal(request().frame.toString('hex'), fixture.frames[0]!.hex, name)
  }
})

test('every recorded request of one record decodes to what it was made of', { skip: absent }, () => {
  let decoded = 0
  for (const { name, frames } of fixtures) {
    for (const { type, hex } of frames) {
      if (type !== 3 || hex === undefined) continue
      const frame = Buffer.from(hex, 'hex')
      const { ops, fields, ...header } = decodeMessage(frame)
      const again = encodeRequest({ ...header, fields: [...fields].map(([id, data]) => ({ id, data })), ops })
      assert.equal(again.toString('hex'), hex, name)
      decoded++
    }
  }
  assert.ok(decoded > 100)
})

// Kept here too, so that a checkout without the recordings still compares something.
test('a get is the frame of the wire reference', () => {
  assert.equal(getRequest(key, policy).frame.toString('hex'),
    '02030000000000411603000000000000000000000000000003e800030000000000050074657374000000050164656d6f0000001504ec91192d4b7f8ce35d5d78d34bca65cbaaaac960')
})

test('a shipped write becomes a record', () => {
  const digest = digestOf('demo', 'key1')
  const bins = { i: 2 ** 40, big: 2n ** 62n, d: new Double(3), s: 'é', b: Buffer.of(1), l: [1, 'x'], m: { a: null } }
  const ops = Object.entries(bins).map(([name, value]) => {
    const { type, bytes } = encodeParticle(value)
    return { op: OpCode.WRITE, name, type, value: bytes }
  })
  const frame = shippedFrame({ namespace: 'test', set: 'demo', digest, lut: 500_000_000_123n, generation: 9, ttl: 60, ops })
  assert.deepEqual(decodeFrame(frame), {
    namespace: 'test', set: 'demo', digest, key: undefined, generation: 9, ttl: 60, lut: 500_000_000_123, deleted: false, bins
  })
})

test('a shipped delete has no bins', () => {
  const record = decodeFrame(shippedFrame({ namespace: 'test', set: '', digest: digestOf('', 1), lut: 7n, deleted: true }))
  assert.equal(record.deleted, true)
  assert.equal(record.ttl, Ttl.NEVER)
  assert.deepEqual(record.bins, {})
})

test('a request that was not shipped is no shipped record', () => {
  assert.throws(() => decodeFrame(one().frame), FrameError)
})

test('several results for one bin become a list, in order', () => {
  const ops = [1, 2, 3].map((n) => ({ op: OpCode.WRITE, name: 'a', type: ParticleType.INTEGER, value: encodeParticle(n).bytes }))
  assert.deepEqual(decodeFrame(shippedFrame({ namespace: 'n', set: '', digest: digestOf('', 1), lut: 1n, ops })).bins, { a: [1, 2, 3] })
})

test('times of the protocol start in 2010', () => {
  assert.equal(new Date(unixMsOfLut(0)).toISOString(), '2010-01-01T00:00:00.000Z')
  assert.equal(unixSecondsOfVoidTime(0), 0)
  assert.equal(unixSecondsOfVoidTime(1), 1_262_304_001)
})

test('a cut or changed frame is refused, never misread past its end', () => {
  const frame = shippedFrame({ namespace: 'test', set: 'demo', digest: digestOf('demo', 1), lut: 1n, ops: [{ op: 2, name: 'a', type: 3, value: Buffer.from('x') }] })
  for (let length = 0; length < frame.length; length++) assert.throws(() => decodeMessage(frame.subarray(0, length)), FrameError)
  fc.assert(fc.property(fc.nat({ max: frame.length - 1 }), fc.nat({ max: 255 }), (at, byte) => {
    const changed = Buffer.from(frame)
    changed[at] = byte
    try {
      decodeMessage(changed)
    } catch (error) {
      assert.ok(error instanceof FrameError)
    }
  }), { numRuns: 1000 })
})

test('names that are too long are refused before anything is sent', () => {
  assert.throws(() => putRequest(key, { abcdefghijklmnop: 1 }, {}), /bin name .* at most 15/)
  assert.throws(() => getRequest({ namespace: 'n'.repeat(32), key: 1 }, {}), RangeError)
  assert.throws(() => putRequest(key, {}, {}), /at least one bin/)
  assert.throws(() => one({ ttl: -1 }), RangeError)
})

test('requests round-trip through the decoder', () => {
  const field = fc.record({ id: fc.constantFrom(...Object.values(FieldId)), data: fc.uint8Array({ maxLength: 40 }).map((b) => Buffer.from(b)) })
  const operation = fc.record({
    op: fc.integer({ min: 1, max: 19 }), name: fc.string({ unit: 'grapheme-ascii', maxLength: 15 }), type: fc.nat({ max: 23 }), value: fc.uint8Array({ maxLength: 40 }).map((b) => Buffer.from(b))
  }, { noNullPrototype: true })
  fc.assert(fc.property(fc.uniqueArray(field, { selector: ({ id }) => id }), fc.array(operation), fc.nat({ max: 0xffff_ffff }), (fields, ops, ttl) => {
    const message = decodeMessage(encodeRequest({ info1: Info1.XDR, info2: Info2.WRITE, ttl, fields, ops }))
    assert.deepEqual([...message.fields], fields.map(({ id, data }) => [id, data]))
    assert.deepEqual(message.ops, ops)
    assert.equal(message.ttl, ttl)
  }))
})

test('a stream is cut into the same frames wherever its chunks end', () => {
  const frames = [getRequest(key, policy).frame, encodeInfo(['node']), one().frame, encodeInfo(['a'.repeat(5000)])]
  const stream = Buffer.concat(frames)
  fc.assert(fc.property(fc.array(fc.nat({ max: stream.length }), { maxLength: 20 }), (cuts) => {
    const reader = new FrameReader()
    const ends = [...cuts.sort((x, y) => x - y), stream.length]
    const seen: Buffer[] = []
    let at = 0
    for (const end of ends) {
      seen.push(...reader.push(stream.subarray(at, end)))
      at = end
    }
    assert.deepEqual(seen, frames)
  }))
})

test('a stream of something else is refused at its first header', () => {
  assert.throws(() => new FrameReader().push(Buffer.from('HTTP/1.1 400 Bad Request\r\n')), FrameError)
  assert.throws(() => new FrameReader().push(Buffer.from('0203ffffffffffff', 'hex')), /at most/)
})

test('info answers are read by command', () => {
  const frame = encodeInfo(['node', 'get-config:context=xdr'])
  assert.equal(frame.subarray(8).toString(), 'node\nget-config:context=xdr\n')
  const reply = encodeInfo(['x'])
  const body = Buffer.from('node\tA1\nudf-list\t\n')
  const whole = Buffer.concat([reply.subarray(0, 8), body])
  whole.writeUIntBE(body.length, 2, 6)
  assert.deepEqual([...decodeInfo(whole)], [['node', 'A1'], ['udf-list', '']])
  assert.throws(() => encodeInfo(['two\nlines']), TypeError)
})

test('info errors are told from answers', () => {
  const parts = (value: string) => {
    const error = infoError('c', value)
    return error === undefined ? undefined : [error.result, error.message]
  }
  assert.deepEqual(parts('ERROR:20:namespace not found on node'), [20, 'namespace not found on node'])
  assert.deepEqual(parts('ERROR::msg'), [1, 'msg'])
  assert.deepEqual(parts('FAIL:4:bad'), [4, 'bad'])
  assert.deepEqual(parts(`error=compile_error;file=a.lua;line=3;message=${Buffer.from('near end').toString('base64')}`), [1, 'compile error: a.lua:3: near end'])
  assert.deepEqual(parts('error=not_found'), [1, 'not found'])
  for (const value of ['ok', '', 'a=1;b=2', 'errors=0']) assert.equal(parts(value), undefined)
  assert.deepEqual([...parsePairs('dcs=a,b;src-id=0;')], [['dcs', 'a,b'], ['src-id', '0']])
})
