import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { floatText, formatFloat, parseFloatText } from './lua-format.js'
import { evaluate } from './testing.js'

const plain = { left: false, plus: false, space: false, alternate: false, zero: false, width: 0, precision: null }

describe('number text', () => {
  it('floats_print_as_c_prints_them', () => {
    for (const [value, text] of [
      [1, '1.0'], [-0, '-0.0'], [1e15, '1e+15'], [1e14, '1e+14'], [123456789, '123456789.0'], [0.1, '0.1'], [1e100, '1e+100'], [1 / 3, '0.33333333333333'],
      [Infinity, 'inf'], [-Infinity, '-inf'], [5e-324, '4.9406564584125e-324'], [2 ** 53, '9.007199254741e+15']
    ] as const) assert.equal(floatText(value), text)
    for (const [format, value, text] of [
      ['%g', 1e20, '1e+20'], ['%g', 100000, '100000'], ['%g', 1e6, '1e+06'], ['%.3g', 0.00012345, '0.000123'], ['%#g', 1, '1.00000'], ['%e', 12345.678, '1.234568e+04'],
      ['%.0f', 2.5, '2'], ['%.0f', 3.5, '4'], ['%.1f', 0.25, '0.2'], ['%.2f', 0.15, '0.15'], ['%.1f', 0.15, '0.1'], ['%.14g', 100000000000005, '1e+14'], ['%8.3f', -1.5, '  -1.500'], ['%-8.1f', 2, '2.0     '], ['%+.1f', 2, '+2.0'], ['%08.2f', -3.14159, '-0003.14'], ['%a', 1.5, '0x1.8p+0'],
      ['%f', 1e22, '10000000000000000000000.000000'], ['%5.1f', Infinity, '  inf']
    ] as const) {
      const literal = value === Infinity ? 'math.huge' : `${value} + 0.0`
      assert.equal(evaluate(`string.format("${format}", ${literal})`), text, `${format} of ${value}`)
    }
  })

  it('hexadecimal_floats_read_back_exactly', () => {
    fc.assert(fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), value => {
      const text = formatFloat(value, { ...plain, conversion: 'a' })
      assert.ok(Object.is(parseFloatText(text), value), `${value} -> ${text} -> ${parseFloatText(text)}`)
    }))
  })

  it('numerals_that_are_none_do_not_read', () => {
    for (const text of ['', ' ', '1 2', 'inf', 'nan', '0x', '1e', '.', '1e5x', '--1']) assert.equal(parseFloatText(text), null, text)
    assert.equal(parseFloatText('0x3.' + '0'.repeat(1000)), 3)
    assert.equal(parseFloatText('0x' + '0'.repeat(1000) + '1p-4'), 1 / 16)
    assert.equal(parseFloatText('  0x.8p1 '), 1)
  })
})
