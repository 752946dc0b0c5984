// Values of every kind that the engine holds go through a script without loss: passed on, looked at, and put together anew.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { ByteWriter } from './byte-writer.js'
import type { TValue } from './fengari.js'
import { objectValue } from './host-object.js'
import { canonical } from './lua-integer.js'
import { encodeParticle } from './particle.js'
import { Double, Geo, ModuleUnderTest, toLua } from './testing.js'
import type { Plain } from './testing.js'
import { LuaBytes, LuaList, LuaMap, LuaOpaque } from './values.js'
import { ParticleType } from '../src/engine/constants.js'

const SEED = 20261121
const INTEGERS = [0n, 1n, -1n, 127n, 128n, -32n, -33n, 2n ** 31n - 1n, 2n ** 31n, -(2n ** 31n), 2n ** 32n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, -(2n ** 53n) - 1n, 2n ** 63n - 1n, -(2n ** 63n)]
const DOUBLES = [0, -0, 1, 1.5, -2.5, 2 ** 53, 1e308, 5e-324, Infinity, -Infinity]
const BLOB_TYPES = [ParticleType.BLOB, ParticleType.JAVA_BLOB, ParticleType.PYTHON_BLOB, ParticleType.ERLANG_BLOB, ParticleType.HLL]

const integer = fc.oneof(fc.constantFrom(...INTEGERS), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })).map(value => toLua(canonical(value)))
const double = fc.oneof(fc.constantFrom(...DOUBLES), fc.double({ noNaN: true })).map(value => toLua(new Double(value)))
const string = fc.oneof(fc.string(), fc.string({ unit: 'binary', maxLength: 80 }), fc.constantFrom('', 'x'.repeat(31), 'x'.repeat(255), 'x'.repeat(70_000), 'ä\0ö')).map(value => toLua(value))
const blob = fc.tuple(fc.uint8Array({ maxLength: 300 }), fc.constantFrom(...BLOB_TYPES)).map(([bytes, type]) => objectValue(new LuaBytes(Uint8Array.from(bytes), bytes.length, type)))
const geo = fc.tuple(fc.integer({ min: -180, max: 180 }), fc.integer({ min: -90, max: 90 })).map(([x, y]) => toLua(new Geo(`{"type":"Point","coordinates":[${x},${y}]}`)))
const scalar: fc.Arbitrary<TValue> = fc.oneof(integer, double, string, blob, geo, fc.boolean().map(value => toLua(value)))
/** What a list or map can hold besides. */
const element: fc.Arbitrary<TValue> = fc.oneof({ weight: 8, arbitrary: scalar }, { weight: 1, arbitrary: fc.constant(toLua(null)) },
  { weight: 1, arbitrary: fc.constantFrom([0xd4, 0xff, 0x00], [0xd4, 0xff, 0x01]).map(raw => objectValue(new LuaOpaque(0, Uint8Array.from(raw)))) })
const key = fc.oneof(integer, string, double, blob)

const { value } = fc.letrec<{ value: TValue, list: TValue, map: TValue }>(tie => ({
  value: fc.oneof({ depthSize: 'small', withCrossShrink: true }, element, tie('list'), tie('map')),
  list: fc.tuple(fc.array(tie('value'), { maxLength: 12 }), fc.constantFrom(0, 1)).map(([items, flags]) => objectValue(LuaList.of(items, flags))),
  map: fc.tuple(fc.array(fc.tuple(key, tie('value')), { maxLength: 12 }), fc.constantFrom(0, 1, 3)).map(([entries, flags]) =>
    objectValue(LuaMap.of(new Map(entries.map(([key, value]) => [LuaMap.identity(key), { key, value }])), flags)))
}))
const particle = fc.oneof(scalar, value.filter(({ value }) => value instanceof LuaList || value instanceof LuaMap)).map(value => {
  const writer = new ByteWriter(64)
  const type = encodeParticle(writer, value)
  return { name: 'a', type, value: writer.copyFrom(0) }
})

const module = new ModuleUnderTest(`
  local walk
  -- Goes through every level, so that each is decoded, and could have been changed.
  function walk(value)
    if type(value) ~= 'userdata' then return 1 end
    if pcall(list.size, value) then
      for item in list.iterator(value) do walk(item) end
      for i = 1, #value do walk(value[i]) end
    elseif pcall(map.size, value) then
      for k, v in map.pairs(value) do walk(k) walk(v) end
    elseif pcall(bytes.size, value) then
      return value[1]
    end
    return tostring(value)
  end
  -- The same value of new parts.
  local rebuilt
  function rebuilt(value)
    if type(value) ~= 'userdata' then return value end
    if pcall(list.size, value) then
      local copy = list.clone(value)
      for i = 1, #value do copy[i] = rebuilt(value[i]) end
      return copy
    elseif pcall(map.size, value) then
      local copy = map.clone(value)
      for k, v in map.pairs(value) do if v ~= nil then copy[k] = rebuilt(v) end end
      return copy
    elseif pcall(bytes.size, value) then
      local copy = bytes(bytes.size(value))
      bytes.append_bytes(copy, value)
      bytes.set_type(copy, bytes.get_type(value))
      return copy
    end
    return value
  end
  local function store(rec, value)
    rec.b = value
    aerospike:update(rec)
    return value
  end
  function pass(rec) return store(rec, rec.a) end
  function look(rec)
    local value = rec.a
    walk(value)
    return store(rec, value)
  end
  function rebuild(rec) return store(rec, rebuilt(rec.a)) end
  function argument(rec, value)
    walk(value)
    return store(rec, value)
  end`)

describe('round trips', () => {
  for (const fn of ['pass', 'look', 'rebuild']) {
    it(`any_particle_comes_back_byte_for_byte_when_a_script_does_this: ${fn}`, () => {
      fc.assert(fc.property(particle, bin => {
        const result = module.result(fn, [], { exists: true, bins: [bin] })
        assert.equal(result.success, true, result.message)
        assert.deepEqual([result.type, Buffer.from(result.value).toString('hex')], [bin.type, Buffer.from(bin.value).toString('hex')])
        const [stored] = result.bins
        assert.deepEqual([stored!.name, stored!.type, Buffer.from(stored!.value).toString('hex')], ['b', bin.type, Buffer.from(bin.value).toString('hex')])
      }), { seed: SEED, numRuns: 600 })
    })
  }

  it('the_parts_of_geojson_and_unknown_types_that_scripts_do_not_see_come_back_too', () => {
    const cells = Buffer.concat([Buffer.from([0, 0, 2]), Buffer.alloc(16, 7), Buffer.from('{"type":"Point","coordinates":[1,2]}')])
    for (const [type, value] of [[ParticleType.GEOJSON, cells], [99, Buffer.from('opaque')]] as const) {
      for (const fn of ['pass', 'look', 'rebuild']) {
        const result = module.result(fn, [], { exists: true, bins: [{ name: 'a', type, value: new Uint8Array(value) }] })
        assert.equal(result.success, true, result.message)
        assert.deepEqual([result.bins[0]!.type, Buffer.from(result.bins[0]!.value)], [type, Buffer.from(value)])
      }
    }
  })

  it('arguments_come_back_as_they_came', () => {
    const plain: fc.Arbitrary<Plain> = fc.letrec<{ any: Plain }>(tie => ({
      any: fc.oneof({ depthSize: 'small' }, fc.boolean(), fc.integer(), fc.string(), fc.double({ noNaN: true }).map(value => new Double(value)),
        fc.uint8Array({ maxLength: 20 }).map(bytes => Uint8Array.from(bytes)), fc.array(tie('any'), { maxLength: 5 }),
        fc.array(fc.tuple(fc.string(), tie('any')), { maxLength: 5 }).map(entries => new Map(entries)))
    })).any
    fc.assert(fc.property(plain, value => {
      assert.deepEqual(module.value('argument', [value], { exists: true }), value)
    }), { seed: SEED, numRuns: 300 })
  })
})
