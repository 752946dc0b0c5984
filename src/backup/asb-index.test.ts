import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { createCommand, indexLine, parseIndexLine, type AsbIndex } from './asb-index.js'

const AGE: AsbIndex = { namespace: 'test', name: 'age', set: 'users', bin: 'age', context: null, expression: null, type: 'numeric', indexType: 'default' }

test('lines of the official library are understood', () => {
  assert.deepEqual(parseIndexLine('* i test types plain N 1 n N'), { ...AGE, set: 'types', name: 'plain', bin: 'n' })
  assert.deepEqual(parseIndexLine('* i test my\\ set\\\\\\\n! odd\\\nna\\ me L 1 a\\ b\\\\c S khAB'), {
    ...AGE, set: 'my set\\\n!', name: 'odd\nna me', bin: 'a b\\c', context: 'khAB', type: 'string', indexType: 'list'
  })
  assert.deepEqual(parseIndexLine('* e test types expr N 1  N kxGRUQGRUQI='), { ...AGE, set: 'types', name: 'expr', bin: null, expression: 'kxGRUQGRUQI=' })
  assert.deepEqual(parseIndexLine('* i test  all K 1 n B'), { ...AGE, set: null, name: 'all', bin: 'n', type: 'blob', indexType: 'mapkeys' })
})

test('what is no such line is not understood', () => {
  for (const line of ['', '* i', '* i test s n N 1 b', '* i test s n X 1 b N', '* i test s n N 2 b N c N', '* i test s n N 1 b I', '* i test s n N 1 b N c d', '* e test s n N 1  N']) {
    assert.equal(parseIndexLine(line), undefined, line)
  }
})

test('an index comes back from its line as it was', () => {
  const name = fc.string({ unit: 'grapheme', minLength: 1 })
  const index = fc.record({
    namespace: name, name, set: fc.option(name), type: fc.constantFrom('numeric', 'string', 'blob', 'geo2dsphere'), indexType: fc.constantFrom('default', 'list', 'mapkeys', 'mapvalues')
  })
  const source = fc.oneof(
    fc.record({ bin: name, context: fc.option(fc.base64String({ minLength: 4 })), expression: fc.constant(null) }),
    fc.record({ bin: fc.constant(null), context: fc.constant(null), expression: fc.base64String({ minLength: 4 }) })
  )
  fc.assert(fc.property(index, source, (place, what) => {
    const whole: AsbIndex = { ...place, ...what }
    assert.deepEqual(parseIndexLine(indexLine(whole)!.slice(0, -1)), whole)
  }))
  assert.equal(indexLine({ ...AGE, bin: null, type: null, indexType: 'set' }), undefined)
})

test('an index is created by a command that carries its names whole', () => {
  assert.equal(createCommand(AGE), 'sindex-create:ns=test;set=users;indexname=age;indexdata=age,numeric')
  assert.equal(createCommand({ ...AGE, set: null, context: 'khAB', type: 'string', indexType: 'list' }), 'sindex-create:ns=test;indexname=age;indextype=list;context=khAB;indexdata=age,string')
  assert.equal(createCommand({ ...AGE, bin: null, expression: 'kxSTUQKhYQE=' }), 'sindex-create:ns=test;set=users;indexname=age;exp=kxSTUQKhYQE=;type=numeric')
  for (const odd of [{ name: 'a;b' }, { name: 'odd\nname' }, { set: 'a;type=string' }, { bin: 'a;b' }, { namespace: 'a\tb' }]) assert.equal(createCommand({ ...AGE, ...odd }), undefined)
})
