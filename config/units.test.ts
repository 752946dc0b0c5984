import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { formatSize, parseDuration, parseSize } from './units.js'

test('sizes are binary multiples in either case', () => {
  assert.equal(parseSize('0'), 0)
  assert.equal(parseSize('64'), 64)
  assert.equal(parseSize('1K'), 1024)
  assert.equal(parseSize('8m'), 8 * 1024 ** 2)
  assert.equal(parseSize('1.5G'), 1.5 * 1024 ** 3)
  assert.equal(parseSize('2T'), 2 * 1024 ** 4)
})

test('what is not a whole number of bytes is refused', () => {
  for (const text of ['', 'K', '4X', '-1', '1 G', '0.3', '1e3', '0x10', '9007199254740993', '99999999T', 'NaN']) {
    assert.equal(parseSize(text), undefined, text)
  }
})

test('a size survives being shown', () => {
  fc.assert(fc.property(fc.nat({ max: 2 ** 50 }), (bytes) => parseSize(formatSize(bytes)) === bytes))
})

test('durations count in the unit of their key', () => {
  assert.equal(parseDuration('120', 's'), 120)
  assert.equal(parseDuration('2m', 's'), 120)
  assert.equal(parseDuration('12h', 's'), 43_200)
  assert.equal(parseDuration('1d', 's'), 86_400)
  assert.equal(parseDuration('250', 'ms'), 250)
  assert.equal(parseDuration('1s', 'ms'), 1000)
  assert.equal(parseDuration('0.5s', 'ms'), 500)
  assert.equal(parseDuration('2000ms', 's'), 2)
})

test('half a second is not a number of seconds', () => {
  assert.equal(parseDuration('500ms', 's'), undefined)
  assert.equal(parseDuration('1w', 's'), undefined)
  assert.equal(parseDuration('-1', 'ms'), undefined)
})
