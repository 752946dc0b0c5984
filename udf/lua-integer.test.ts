import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import * as integer from './lua-integer.js'
import type { LuaInteger } from './lua-integer.js'
import { bin, Double, evaluate, ModuleUnderTest } from './testing.js'

const reduce = (value: bigint): bigint => BigInt.asIntN(64, value)
const isCanonical = (value: LuaInteger): boolean =>
  typeof value === 'number' ? Number.isSafeInteger(value) && !Object.is(value, -0) : value > BigInt(Number.MAX_SAFE_INTEGER) || value < BigInt(Number.MIN_SAFE_INTEGER)

// Around every border where a representation changes, and anywhere.
const borders = [0n, 2n ** 31n, 2n ** 32n, 2n ** 53n, 2n ** 62n, 2n ** 63n].flatMap(border => [-border, border])
const int64 = fc.oneof(
  fc.bigInt({ min: integer.INTEGER_MIN, max: integer.INTEGER_MAX }),
  fc.tuple(fc.constantFrom(...borders), fc.bigInt({ min: -3n, max: 3n })).map(([border, offset]) => reduce(border + offset)),
  fc.bigInt({ min: -100n, max: 100n }))

function floorDivide (a: bigint, b: bigint): bigint {
  const quotient = a / b
  return a % b !== 0n && (a < 0n) !== (b < 0n) ? quotient - 1n : quotient
}

const OPERATIONS: Array<[string, string, (a: LuaInteger, b: LuaInteger) => LuaInteger, (a: bigint, b: bigint) => bigint]> = [
  ['add', '+', integer.add, (a, b) => a + b],
  ['subtract', '-', integer.subtract, (a, b) => a - b],
  ['multiply', '*', integer.multiply, (a, b) => a * b],
  ['floorDivide', '//', integer.floorDivide, floorDivide],
  ['modulo', '%', integer.modulo, (a, b) => a - floorDivide(a, b) * b],
  ['bitAnd', '&', integer.bitAnd, (a, b) => a & b],
  ['bitOr', '|', integer.bitOr, (a, b) => a | b],
  ['bitXor', '~', integer.bitXor, (a, b) => a ^ b],
  ['shiftLeft', '<<', integer.shiftLeft, (a, b) => b >= 64n || b <= -64n ? 0n : b >= 0n ? a << b : BigInt.asUintN(64, a) >> -b],
  ['shiftRight', '>>', integer.shiftRight, (a, b) => b >= 64n || b <= -64n ? 0n : b >= 0n ? BigInt.asUintN(64, a) >> b : a << -b]
]

describe('64-bit integers', () => {
  for (const [name, , operation, expected] of OPERATIONS) {
    it(`${name}_equals_the_same_operation_on_bigints_modulo_2_to_64`, () => {
      fc.assert(fc.property(int64, int64, (a, b) => {
        fc.pre(b !== 0n || (name !== 'floorDivide' && name !== 'modulo'))
        const result = operation(integer.canonical(a), integer.canonical(b))
        assert.equal(BigInt(result), reduce(expected(a, b)))
        assert.ok(isCanonical(result), `${result} is not in its one form`)
      }), { numRuns: 2000 })
    })
  }

  it('every_operator_of_the_language_computes_in_64_bits', () => {
    const source = OPERATIONS.map(([name, symbol]) => `function ${name}(rec, a, b) return a ${symbol} b end`).join('\n')
    const module = new ModuleUnderTest(`${source}
      function negate(rec, a) return -a end
      function invert(rec, a) return ~a end
      function order(rec, a, b) return list{a < b, a <= b, a == b, a > b, a >= b, a ~= b} end`)
    fc.assert(fc.property(int64, int64, (a, b) => {
      const args = [integer.canonical(a), integer.canonical(b)]
      for (const [name, , , expected] of OPERATIONS) {
        if (b === 0n && (name === 'floorDivide' || name === 'modulo')) continue
        assert.equal(BigInt(module.value(name, args) as LuaInteger), reduce(expected(a, b)), name)
      }
      assert.equal(BigInt(module.value('negate', args) as LuaInteger), reduce(-a))
      assert.equal(BigInt(module.value('invert', args) as LuaInteger), ~a)
      assert.deepEqual(module.value('order', args), [a < b, a <= b, a === b, a > b, a >= b, a !== b])
    }), { numRuns: 500 })
  })

  it('text_and_bytes_of_an_integer_read_back_as_the_same_integer', () => {
    const view = new DataView(new ArrayBuffer(8))
    fc.assert(fc.property(int64, value => {
      const form = integer.canonical(value)
      assert.equal(integer.parseInteger(String(value)), form)
      integer.writeInt64(view, 0, form)
      assert.equal(view.getBigInt64(0), value)
      assert.equal(integer.readInt64(view, 0), form)
    }), { numRuns: 5000 })
  })

  it('an_integer_bin_incremented_past_2_to_31_and_2_to_53_stays_an_exact_integer', () => {
    const module = new ModuleUnderTest('function increment(rec) rec.a = rec.a + 1; aerospike:update(rec); return rec.a end')
    for (const start of [2n ** 31n - 1n, 2n ** 32n - 1n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 62n, -(2n ** 31n) - 1n, -(2n ** 53n) - 1n]) {
      const outcome = module.call('increment', [], { bins: [bin('a', start)] })
      assert.equal(outcome.success, true, outcome.message)
      assert.equal(BigInt(outcome.value as LuaInteger), start + 1n)
      assert.equal(outcome.bins[0]!.type, 1)
      assert.equal(Buffer.from(outcome.bins[0]!.value).readBigInt64BE(), start + 1n)
    }
    assert.equal(module.value('increment', [], { bins: [bin('a', integer.INTEGER_MAX)] }), integer.INTEGER_MIN)
  })

  it('a_double_bin_stays_a_double_also_with_an_integral_value', () => {
    const module = new ModuleUnderTest('function increment(rec) rec.a = rec.a + 1; aerospike:update(rec) end')
    const outcome = module.call('increment', [], { bins: [bin('a', new Double(1))] })
    assert.deepEqual(outcome.changes, { a: new Double(2) })
    assert.equal(outcome.bins[0]!.type, 2)
  })

  it('integers_and_floats_of_one_value_are_equal_and_one_table_key', () => {
    assert.equal(evaluate('2^53 == 1 << 53 and 2^62 == 1 << 62 and math.mininteger == -2^63 and math.maxinteger ~= 2^63'), true)
    assert.equal(evaluate('math.maxinteger < 2^63 and math.maxinteger + 1.0 == 2^63 and (1 << 53) + 1 > 2^53'), true)
    assert.equal(evaluate('local t = {} t[2^53] = 1 t[2^60] = 2 t[1.0] = 3 return t[1 << 53] + t[1 << 60] + t[1]'), 6)
  })

  it('numeric_loops_reach_the_ends_of_the_range_and_stop', () => {
    assert.deepEqual(evaluate('local l = list() for i = math.maxinteger - 1, math.maxinteger do list.append(l, i) end return l'),
      [integer.INTEGER_MAX - 1n, integer.INTEGER_MAX])
    assert.deepEqual(evaluate('local l = list() for i = math.mininteger + 1, math.mininteger, -1 do list.append(l, i) end return l'),
      [integer.INTEGER_MIN + 1n, integer.INTEGER_MIN])
    assert.deepEqual(evaluate('local l = list() for i = (1 << 53) - 2, (1 << 53) + 2, 2 do list.append(l, i) end return l'),
      [2 ** 53 - 2, 2n ** 53n, 2n ** 53n + 2n])
    assert.equal(evaluate('local n = 0 for i = 1, math.huge do n = n + 1 if n == 5 then break end end return n'), 5)
    assert.equal(evaluate('local n = 0 for i = 3, 1 do n = n + 1 end for i = 1, -math.huge do n = n + 1 end for i = 1, 2.9 do n = n + 1 end return n'), 2)
  })

  it('float_operators_behave_as_in_c', () => {
    assert.equal(evaluate('1 ^ (0/0) == 1 and (-1) ^ math.huge == 1 and 7.5 // 2 == 3.0 and -7.5 % 2 == 0.5 and 5 // 0.0 == math.huge and 0/0 ~= 0/0'), true)
    assert.equal(evaluate('math.type(3 / 1) == "float" and math.type(3 // 1) == "integer" and math.type(2 ^ 2) == "float" and math.type("10" + 1) == "integer"'), true)
    assert.match(new ModuleUnderTest('function f() return 1 // 0 end').failure('f'), /attempt to perform 'n\/\/0'/)
    assert.match(new ModuleUnderTest('function f() return 1 % 0 end').failure('f'), /attempt to perform 'n%%0'/)
    assert.match(new ModuleUnderTest('function f() return 1 & 1.5 end').failure('f'), /number has no integer representation/)
  })

  it('numerals_strings_and_formats_keep_64_bits', () => {
    assert.equal(evaluate('9223372036854775807'), integer.INTEGER_MAX)
    assert.equal(evaluate('0xffffffffffffffff'), -1)
    assert.deepEqual(evaluate('9223372036854775808'), new Double(2 ** 63))
    assert.equal(evaluate('"9007199254740993" + 0'), 2n ** 53n + 1n)
    assert.equal(evaluate('string.format("%d %x %X %o %u %5d|%-5d|%05d", 2^53 | 1, -1, 255, 8, -1, 42, 42, 42)'),
      '9007199254740993 ffffffffffffffff FF 10 18446744073709551615    42|42   |00042')
    assert.equal(evaluate('tostring(math.mininteger) .. math.maxinteger'), '-92233720368547758089223372036854775807')
    assert.equal(evaluate('tonumber("7fffffffffffffff", 16)'), integer.INTEGER_MAX)
    assert.equal(evaluate('math.abs(math.mininteger + 1) == math.maxinteger and math.tointeger(2^53) == 1 << 53 and math.ult(1, -1)'), true)
    assert.equal(evaluate('string.unpack("<i8", string.pack("<i8", math.mininteger + 5))'), integer.INTEGER_MIN + 5n)
    assert.equal(evaluate('string.pack(">I4", 0xfffffffe):byte(4)'), 254)
  })
})
