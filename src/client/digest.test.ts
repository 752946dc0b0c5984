import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf, partitionOf, type UserKey } from './digest.js'
import { Double } from './value.js'

// From the wire reference; official clients test with the same.
const VECTORS: Array<[set: string, key: UserKey, digest: string, partition?: number]> = [
  ['set', 0, '93d943aae37b017ad7e011b0c1d2e2143c2fb37d', 2451],
  ['set', 1, '82d7213b469812947c109a6d341e3b5b1dedec1f', 1922],
  ['set', -1, '22116d253745e29fc63fdf760b6e26f7e197e01d', 290],
  ['set', -(2n ** 63n), '7185c2a47fb02c996daed26b4e01b83240aee9d4'],
  ['set', 2n ** 63n - 1n, '1698328974afa62c8e069860c1516f780d63dbb8'],
  ['set', '', '2819b1ff6e346a43b4f5f6b77a88bc3eaac22a83', 2344],
  ['set', 's', '607cddba7cd111745ef0a3d783d57f0e83c8f311'],
  ['set', 'a'.repeat(10), '5979fb32a80da070ff356f7695455592272e36c2'],
  ['set', Buffer.alloc(0), '327e2877b8815c7aeede0d5a8620d4ef8df4a4b4'],
  ['set', Buffer.from('s'), 'ca2d96dc9a184d15a7fa2927565e844e9254e001'],
  ['demo', 'key1', 'ec91192d4b7f8ce35d5d78d34bca65cbaaaac960', 492],
  ['demo', 1, 'b7f4b83889e2da67de683e1df6919a1eacc446c8', 1207],
  ['demo', Buffer.of(0, 1, 2), '4343d714e2422fcf1974ea077b425e2bfdbc3e13'],
  ['', 'a', '79e55340ff2911fc794c49ec2a8175bd9d7ca04c', 1401]
]

test('digests and partitions are those of official clients', () => {
  for (const [set, key, digest, partition] of VECTORS) {
    assert.equal(digestOf(set, key).toString('hex'), digest, `${set} ${String(key)}`)
    if (partition !== undefined) assert.equal(partitionOf(digestOf(set, key)), partition)
  }
})

test('a number and a bigint of the same value name the same record, a double another', () => {
  assert.deepEqual(digestOf('set', 7), digestOf('set', 7n))
  assert.notDeepEqual(digestOf('set', 7), digestOf('set', new Double(7)))
})

test('what is no key is refused', () => {
  for (const key of [true, null, [1], { a: 1 }]) assert.throws(() => digestOf('set', key as never), TypeError)
})
