// Partition maps and peers: what nodes say, as text.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Limit } from '../engine/constants.js'
import { PartitionMap, PartitionMapError } from './partition-map.js'
import { AddressError, parseEndpoint, parsePeers } from './peers.js'

function bitmap (owns: (partition: number) => boolean): string {
  const bytes = Buffer.alloc(Limit.PARTITIONS / 8)
  for (let partition = 0; partition < Limit.PARTITIONS; partition++) {
    if (owns(partition)) bytes[partition >> 3]! |= 0x80 >> (partition & 7)
  }
  return bytes.toString('base64')
}

const all = bitmap(() => true)
const none = bitmap(() => false)
const even = bitmap((partition) => partition % 2 === 0)
const odd = bitmap((partition) => partition % 2 === 1)

test('masters and copies come from each node on its own', () => {
  const map = new PartitionMap()
  map.apply('A', `test:0,2,${even},${odd};other:0,1,${all}`)
  map.apply('B', `test:0,2,${odd},${even}`)
  assert.equal(map.master('test', 0), 'A')
  assert.equal(map.master('test', 4095), 'B')
  assert.deepEqual(map.owners('test', 0), ['A', 'B'])
  assert.deepEqual(map.owners('test', 1), ['B', 'A'])
  assert.deepEqual(map.owners('other', 1), ['A'])
  assert.deepEqual(map.namespaces.sort(), ['other', 'test'])
  assert.equal(map.master('absent', 0), undefined)
})

test('a later word replaces an earlier one of the same node', () => {
  const map = new PartitionMap()
  map.apply('A', `test:0,1,${all}`)
  map.apply('A', `test:0,1,${even}`)
  assert.equal(map.master('test', 0), 'A')
  assert.equal(map.master('test', 1), undefined)
  map.apply('A', 'other:0,1,' + all)
  assert.equal(map.master('test', 0), undefined)
})

test('the higher regime wins whoever speaks last', () => {
  const map = new PartitionMap()
  map.apply('A', `test:5,1,${all}`)
  map.apply('B', `test:4,1,${all}`)
  assert.equal(map.master('test', 9), 'A')
  map.apply('B', `test:6,1,${all}`)
  assert.equal(map.master('test', 9), 'B')
})

test('a node that is gone owns nothing', () => {
  const map = new PartitionMap()
  map.apply('A', `test:0,1,${all}`)
  assert.equal(map.owns('A'), true)
  map.remove('A')
  assert.equal(map.owns('A'), false)
  assert.equal(map.master('test', 0), undefined)
})

test('a node may own nothing', () => {
  const map = new PartitionMap()
  map.apply('A', `test:0,1,${none}`)
  assert.equal(map.owns('A'), false)
  map.apply('A', '')
})

test('a map that cannot be read leaves the one that is there', () => {
  const map = new PartitionMap()
  map.apply('A', `test:0,1,${all}`)
  for (const text of ['test', 'test:0', 'test:0,1,AAAA', `test:0,1,${all};x`, 'ERROR:4:no']) assert.throws(() => map.apply('A', text), PartitionMapError)
  assert.equal(map.master('test', 0), 'A')
})

test('peers are read with their ports, and those that left are not peers', () => {
  assert.deepEqual(parsePeers('1,3000,[]'), { generation: '1', peers: [] })
  assert.deepEqual(parsePeers('12,3000,[[BB9,,[10.0.0.1,10.0.0.2:4000]],[A1,tls,[[fe80::1]:3100,[::1]]],[C1,,]]'), {
    generation: '12',
    peers: [
      { name: 'BB9', tlsName: '', endpoints: [{ host: '10.0.0.1', port: 3000 }, { host: '10.0.0.2', port: 4000 }] },
      { name: 'A1', tlsName: 'tls', endpoints: [{ host: 'fe80::1', port: 3100 }, { host: '::1', port: 3000 }] }
    ]
  })
  for (const text of ['', '1,3000', 'ERROR:4:x', '1,3000,[[A1]]', '1,3000,[junk]']) assert.throws(() => parsePeers(text), AddressError, text)
})

test('an endpoint may leave its port out', () => {
  assert.deepEqual(parseEndpoint('localhost'), { host: 'localhost', port: 3000 })
  assert.deepEqual(parseEndpoint('a.example:4000'), { host: 'a.example', port: 4000 })
  assert.deepEqual(parseEndpoint('[::1]:4000'), { host: '::1', port: 4000 })
  assert.deepEqual(parseEndpoint('fe80::1'), { host: 'fe80::1', port: 3000 })
  for (const text of ['', 'a:0', 'a:65536', 'a b', 'a:b']) assert.throws(() => parseEndpoint(text), AddressError, text)
})
