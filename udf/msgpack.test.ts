import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { ByteWriter } from './byte-writer.js'
import { compareValues, MsgpackReader, writeValue } from './msgpack.js'
import { decodeParticle, encodeParticle } from './particle.js'
import { Double, fromLua, Geo, toLua } from './testing.js'
import type { Plain } from './testing.js'
import { LuaList, LuaMap, ValueError } from './values.js'
import { canonical } from './lua-integer.js'

const scalar: fc.Arbitrary<Plain> = fc.oneof(
  fc.constant(null), fc.boolean(),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(canonical),
  fc.integer({ min: -70000, max: 70000 }),
  fc.string(), fc.string({ unit: 'binary', maxLength: 40 }), fc.uint8Array({ maxLength: 300 }).map(bytes => Uint8Array.from(bytes)),
  fc.double({ noNaN: true }).map(value => new Double(value)), fc.string().map(text => new Geo(text)))
const key: fc.Arbitrary<Plain> = fc.oneof(fc.string({ maxLength: 8 }), fc.integer(), fc.bigInt({ min: 2n ** 60n, max: 2n ** 62n }), fc.uint8Array({ maxLength: 4 }).map(bytes => Uint8Array.from(bytes)))
const value: fc.Arbitrary<Plain> = fc.letrec(tie => ({
  value: fc.oneof({ depthSize: 'small', withCrossShrink: true }, scalar, tie('list'), tie('map')),
  list: fc.array(tie('value'), { maxLength: 20 }),
  map: fc.array(fc.tuple(key, tie('value')), { maxLength: 20 }).map(entries => new Map(entries as Array<[Plain, Plain]>))
})).value as fc.Arbitrary<Plain>

function pack (plain: Plain): Uint8Array {
  const writer = new ByteWriter(16)
  writeValue(writer, toLua(plain), 0)
  return writer.copyFrom(0)
}

function repack (bytes: Uint8Array): string {
  const writer = new ByteWriter(16)
  writeValue(writer, new MsgpackReader(bytes).read(0), 0)
  return Buffer.from(writer.copyFrom(0)).toString('hex')
}

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text.replaceAll(' ', ''), 'hex'))

describe('msgpack dialect', () => {
  it('any_value_round_trips_without_loss', () => {
    fc.assert(fc.property(value, plain => {
      const bytes = pack(plain)
      const reader = new MsgpackReader(bytes)
      const back = fromLua(reader.read(0))
      assert.equal(reader.at, bytes.length)
      assert.deepEqual(back, fromLua(toLua(plain)))
      assert.equal(repack(bytes), Buffer.from(bytes).toString('hex'))
    }), { numRuns: 500 })
  })

  it('any_particle_round_trips_without_loss', () => {
    fc.assert(fc.property(value, plain => {
      const writer = new ByteWriter(16)
      const type = encodeParticle(writer, toLua(plain))
      const bytes = writer.copyFrom(0)
      const decoded = decodeParticle(type, bytes, new DataView(bytes.buffer), 0, bytes.length)
      assert.deepEqual(fromLua(decoded), fromLua(toLua(plain)))
    }), { numRuns: 300 })
  })

  it('arbitrary_bytes_decode_or_are_refused_never_more', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), bytes => {
      try {
        new MsgpackReader(Uint8Array.from(bytes)).read(0)
      } catch (error) {
        assert.ok(error instanceof ValueError, String(error))
      }
    }), { numRuns: 5000 })
    assert.throws(() => new MsgpackReader(hex('dd ff ff ff ff')).read(0), /elements in 0 bytes/)
    assert.throws(() => new MsgpackReader(hex('df ff ff ff ff 01')).read(0), ValueError)
    assert.throws(() => new MsgpackReader(new Uint8Array(400).fill(0x91)).read(0), /nested deeper/)
  })

  it('bytes_that_clients_send_read_as_they_mean', () => {
    // Arguments of a recorded apply: 1, "a", [1], {x: 2}, blob 09. The map comes key-ordered.
    const items = new MsgpackReader(hex('95 01 a2 03 61 91 01 82 c7 00 01 c0 a2 03 78 02 a2 04 09')).read(0)
    assert.deepEqual(fromLua(items), [1, 'a', [1], new Map([['x', 2]]), Uint8Array.of(9)])
    assert.deepEqual(fromLua(new MsgpackReader(hex('c4 02 03 61')).read(0)), 'a')
    assert.deepEqual(fromLua(new MsgpackReader(hex('ca 3f 80 00 00')).read(0)), new Double(1))
    assert.deepEqual(fromLua(new MsgpackReader(hex('a0')).read(0)), '')
  })

  it('order_flags_and_foreign_elements_survive', () => {
    for (const text of ['93 c7 00 01 01 02', '83 c7 00 01 c0 a2 03 61 01 a2 03 62 02', '92 d4 ff 00 d4 ff 01', '81 a2 03 61 d4 ff 01', '91 cf ff ff ff ff ff ff ff ff', '82 c7 00 08 c0 02 01']) {
      assert.equal(repack(hex(text)), text.replaceAll(' ', ''))
    }
    // A stored index is never sent on: neither its flag nor its content.
    assert.equal(repack(hex('82 c7 03 11 aa bb cc c0 01 02')), '82c70001c00102')
  })

  it('a_changed_ordered_map_or_list_is_written_in_collation_order', () => {
    const ordered = new MsgpackReader(hex('82 c7 00 01 c0 a2 03 6d 01')).read(0)
    const map = ordered.value as LuaMap
    const state = null as never
    for (const name of ['z', 'a'] as Plain[]) map.set(state, toLua(name), toLua(0))
    map.set(state, toLua(5), toLua(0))
    assert.equal(repackValue(ordered), '85c70001c00500a2036100a2036d01a2037a00')
    const list = new MsgpackReader(hex('93 c7 00 01 01 09')).read(0)
    ;(list.value as LuaList).mutableItems().push(toLua('b'), toLua(4), toLua(null))
    assert.equal(repackValue(list), '96c70001c0010409a20362')
  })

  it('the_collation_orders_types_then_values', () => {
    const sorted: Plain[] = [null, false, true, -5, 3, 2n ** 62n, 'a', 'b', [1], [1, 2], [2], new Map([[1, 1]]), new Map([[1, 1], [2, 2]]), Uint8Array.of(1), new Double(-1), new Double(2), new Geo('{}')]
    for (let i = 0; i < sorted.length; i++) {
      for (let j = 0; j < sorted.length; j++) assert.equal(Math.sign(compareValues(toLua(sorted[i]!), toLua(sorted[j]!))), Math.sign(i - j), `${i} ${j}`)
    }
  })

  it('a_list_that_contains_itself_is_refused', () => {
    const list = LuaList.of([])
    const own = toLua([])
    own.value = list
    list.mutableItems().push(own)
    assert.throws(() => repackValue(own), /contain itself/)
  })
})

function repackValue (luaValue: ReturnType<typeof toLua>): string {
  const writer = new ByteWriter(16)
  writeValue(writer, luaValue, 0)
  return Buffer.from(writer.copyFrom(0)).toString('hex')
}
