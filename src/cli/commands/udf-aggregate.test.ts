import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UsageError } from '../io.js'
import { parseRange } from './udf-aggregate.js'

test('a range is a bin and a value, or a bin and two integers', () => {
  assert.deepEqual(parseRange('age = 36'), { bin: 'age', from: 36, of: undefined })
  assert.deepEqual(parseRange('name="Ada Lovelace"'), { bin: 'name', from: 'Ada Lovelace', of: undefined })
  assert.deepEqual(parseRange('name = Ada'), { bin: 'name', from: 'Ada', of: undefined })
  assert.deepEqual(parseRange(' age  BETWEEN -5 and 9223372036854775807 '), { bin: 'age', from: -5, to: 9223372036854775807n, of: undefined })
  assert.deepEqual(parseRange('map-keys of tags = x'), { bin: 'tags', from: 'x', of: 'map-keys' })
  for (const text of ['', 'age', 'age > 5', 'age between 1', 'age between a and b', 'age between 1.5 and 2', 'between 1 and 2']) {
    assert.throws(() => parseRange(text), UsageError, text)
  }
})
