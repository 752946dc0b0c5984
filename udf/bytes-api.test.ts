import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Double, evaluate, ModuleUnderTest } from './testing.js'

const hex = (code: string): string => Buffer.from(evaluate(code) as Uint8Array).toString('hex')

describe('bytes', () => {
  it('size_grows_by_writing_and_is_set_explicitly', () => {
    assert.deepEqual(evaluate('local b = bytes(4) local before = bytes.size(b) bytes.set_byte(b, 3, 7) bytes.set_size(b, 5) return list{before, #b, b[3], b[5], b[6] == nil}'), [0, 5, 7, 0, true])
    assert.equal(hex('local b = bytes{1, 2, 3} bytes.set_size(b, 1) bytes.set_size(b, 3) return b'), '010000')
    assert.equal(hex('local b = bytes() b[2] = 255 b[1] = 256 + 16 return b'), '10ff')
  })

  it('integers_of_every_size_and_order_round_trip', () => {
    assert.equal(hex('local b = bytes() bytes.append_byte(b, 1) bytes.append_int16(b, 2) bytes.append_int32(b, 3) bytes.append_int64(b, 4) return b'), '01' + '0002' + '00000003' + '0000000000000004')
    assert.equal(hex('local b = bytes() bytes.append_int16_le(b, 2) bytes.append_int32_le(b, 3) bytes.append_int64_le(b, 4) return b'), '0200' + '03000000' + '0400000000000000')
    assert.equal(hex('local b = bytes() bytes.set_int16_be(b, 1, -2) bytes.set_int32_be(b, 3, -2) bytes.set_int64_be(b, 7, math.mininteger) return b'), 'fffe' + 'fffffffe' + '8000000000000000')
    for (const [size, values] of [['byte', [0, 255]], ['int16', [-32768, 32767]], ['int32', [-2147483648, 2147483647]], ['int64', [-(2n ** 63n), 2n ** 63n - 1n]]] as const) {
      for (const suffix of size === 'byte' ? [''] : ['', '_be', '_le']) {
        for (const value of values) {
          assert.equal(evaluate(`local b = bytes() bytes.append_${size}${suffix}(b, 9) bytes.set_${size}${suffix}(b, 3, a) return bytes.get_${size}${suffix}(b, 3)`, [value]), value)
        }
      }
    }
    assert.deepEqual(evaluate('local b = bytes{1, 2} return list{bytes.get_int16(b, 1), bytes.get_int16(b, 2) == nil, bytes.get_int32(b, 1) == nil}'), [258, true, true])
    assert.deepEqual(evaluate('local b = bytes() bytes.append_double(b, 1.5) bytes.append_float(b, 0.5) return list{bytes.get_double(b, 1), bytes.get_float(b, 9)}'), [new Double(1.5), new Double(0.5)])
  })

  it('variable_length_integers_use_seven_bits_a_byte', () => {
    assert.equal(hex('local b = bytes() bytes.append_var_int(b, 1) bytes.append_var_int(b, 300) bytes.append_var_int(b, 0xffffffff) return b'), '01' + 'ac02' + 'ffffffff0f')
    assert.deepEqual(evaluate('local b = bytes() local n = bytes.set_var_int(b, 2, 300) local v, used = bytes.get_var_int(b, 2) return list{n, v, used, select(2, bytes.get_var_int(b, 9))}'), [2, 300, 2, 0])
  })

  it('strings_and_bytes_are_copied_in_and_out', () => {
    assert.equal(hex('local b = bytes() bytes.append_string(b, "abc") bytes.append_string(b, "xyz", 1) bytes.set_string(b, 2, "Q") bytes.append_bytes(b, bytes{1, 2}) bytes.set_bytes(b, 1, bytes{9, 9}, 1) return b'),
      '09' + '51' + '63' + '78' + '0102')
    assert.deepEqual(evaluate('local b = bytes{97, 98, 99} local part = bytes.get_bytes(b, 2, 9) part[1] = 0 return list{bytes.get_string(b, 1, 2), bytes.get_string(b, 3, 9), bytes.get_string(b, 4, 1) == nil, part, b}'),
      ['ab', 'c', true, Uint8Array.of(0, 99), Uint8Array.of(97, 98, 99)])
    assert.equal(hex('local b = bytes{1, 2} bytes.append_bytes(b, b) return b'), '01020102')
  })

  it('the_blob_type_is_kept_and_set', () => {
    assert.equal(evaluate('local b = bytes() bytes.set_type(b, 9) return bytes.get_type(b)'), 9)
    const module = new ModuleUnderTest('function f(rec) local b = bytes{1} bytes.set_type(b, 7) return b end')
    assert.equal(module.result('f').type, 7)
    assert.match(new ModuleUnderTest('function f() bytes.set_type(bytes(), 1) end').failure('f'), /no blob type: 1/)
  })

  it('sizes_are_bounded', () => {
    for (const code of ['bytes(1 << 40)', 'bytes.set_size(bytes(), 1 << 30)', 'bytes.set_byte(bytes(), 1 << 62, 1)', 'local b = bytes() b[1 << 30] = 1', 'bytes.get_byte(bytes(), 0)']) {
      assert.match(new ModuleUnderTest(`function f() ${code} end`).failure('f'), /out of range|longer than|bytes are indexed/, code)
    }
  })
})
