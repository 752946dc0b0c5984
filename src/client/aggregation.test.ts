import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FieldId } from '../engine/constants.js'
import { encodeAggregation } from './aggregation.js'
import { decodeMessage } from './message.js'

test('an aggregation says what is to be called, on what, and that it is to be complete', () => {
  const call = { module: 'm', name: 'f', args: [5, 'x'] }
  const { fields, ops } = decodeMessage(encodeAggregation('test', call, { set: 's', where: { bin: 'age', from: 1, to: 9n, of: 'list' }, task: 7n, recordsPerSecond: 100 }))
  assert.equal(ops.length, 0)
  assert.equal(fields.get(FieldId.UDF_OP)?.toString('hex'), '03')
  assert.equal(fields.get(FieldId.UDF_ARGS)?.toString('hex'), '9205a20378')
  assert.equal(fields.get(FieldId.TASK_ID)?.toString('hex'), '0000000000000007')
  assert.equal(fields.get(FieldId.INDEX_TYPE)?.toString('hex'), '01')
  assert.equal(fields.get(FieldId.INDEX_RANGE)?.toString('hex'), `0103${Buffer.from('age').toString('hex')}01000000080000000000000001000000080000000000000009`)
  assert.equal(fields.has(FieldId.PARTITIONS), false)
  const text = decodeMessage(encodeAggregation('test', call, { where: { bin: 'name', from: 'Ada' } })).fields
  assert.equal(text.get(FieldId.INDEX_RANGE)?.toString('hex'), `0104${Buffer.from('name').toString('hex')}0300000003${Buffer.from('Ada').toString('hex')}00000003${Buffer.from('Ada').toString('hex')}`)
  assert.throws(() => encodeAggregation('test', call, { where: { bin: 'a', from: 'x', to: 'y' } }), RangeError)
  assert.throws(() => encodeAggregation('test', call, { where: { bin: 'a', from: 1, to: 'y' } }), RangeError)
})
