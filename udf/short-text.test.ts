import assert from 'node:assert/strict'
import { it } from 'node:test'
import { shortText, shortUtf8 } from './short-text.js'

it('a_short_text_is_its_bytes_whatever_came_before', () => {
  const bytes = new Uint8Array(64)
  let state = 1
  const seen = new Set<string>()
  for (let round = 0; round < 20_000; round++) {
    state = Math.imul(state, 1664525) + 1013904223 >>> 0
    const [at, length] = [state & 15, (state >>> 8) % 40]
    for (let i = 0; i < length; i++) bytes[at + i] = (state >>> (i & 7)) & 3 ? 0x61 + (state >>> i & 3) : i === 0 ? state >>> 24 : 0x62
    const expected = Buffer.from(bytes.subarray(at, at + length)).toString('latin1')
    assert.equal(shortText(bytes, at, length), expected)
    assert.equal(shortText(bytes, at, length), expected, 'once more, when it is remembered')
    seen.add(expected)
  }
  assert.ok(seen.size > 1000, 'more than are remembered')
})

it('a_name_in_utf_8_is_read_as_such', () => {
  const bytes = Buffer.from('añb')
  assert.equal(shortUtf8(bytes, 0, bytes.length), 'añb')
  assert.equal(shortText(bytes, 0, bytes.length), 'aÃ±b')
  assert.equal(shortUtf8(bytes, 0, 1), 'a')
})
