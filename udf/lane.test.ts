import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { Action, decodeResults, encodeTasks, LaneError, ResultBatch, TaskBatch, TtlAction } from './lane.js'
import type { TaskFields } from './lane.js'
import { bin } from './testing.js'

const bytes = (maxLength: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ maxLength }).map(array => Uint8Array.from(array))
const name = (maxLength: number): fc.Arbitrary<string> => fc.string({ unit: 'grapheme-ascii', maxLength })
const task: fc.Arbitrary<TaskFields> = fc.record({
  id: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), module: name(100), function: name(100), arguments: bytes(50), timeLimitMs: fc.nat(), namespace: name(31), set: name(63),
  key: bytes(40), digest: fc.uint8Array({ minLength: 20, maxLength: 20 }).map(array => Uint8Array.from(array)), exists: fc.boolean(), generation: fc.nat({ max: 65535 }),
  lastUpdateTime: fc.bigInt({ min: 0n, max: 2n ** 40n }), voidTime: fc.nat(), ttlSeconds: fc.nat(), storedBytes: fc.nat(),
  bins: fc.array(fc.record({ name: name(15), type: fc.nat({ max: 255 }), value: bytes(100) }, { noNullPrototype: true }), { maxLength: 10 })
})

describe('UDF lane', () => {
  it('a_batch_of_tasks_reads_back_field_by_field', () => {
    fc.assert(fc.property(fc.array(task, { maxLength: 10 }), tasks => {
      const encoded = encodeTasks(tasks)
      const buffer = new Uint8Array(encoded.length + 100)
      buffer.set(encoded)
      const batch = new TaskBatch(buffer)
      assert.equal(batch.open(encoded.length), tasks.length)
      for (const expected of tasks) {
        const read = batch.next()!
        assert.equal(read.id, expected.id)
        assert.equal(read.module, expected.module)
        assert.equal(read.function, expected.function)
        assert.equal(read.namespace, expected.namespace)
        assert.equal(read.set, expected.set)
        assert.equal(read.timeLimitMs, expected.timeLimitMs)
        assert.equal(read.exists, expected.exists)
        assert.equal(read.generation, expected.generation)
        assert.equal(read.lastUpdateTime, expected.lastUpdateTime)
        assert.equal(read.voidTime, expected.voidTime)
        assert.equal(read.ttlSeconds, expected.ttlSeconds)
        assert.equal(read.storedBytes, expected.storedBytes)
        assert.equal(read.hasKey, expected.key!.length > 0)
        assert.deepEqual(new Uint8Array(read.digest), expected.digest)
        assert.deepEqual(buffer.slice(read.keyAt, read.moduleAt), expected.key)
        assert.deepEqual(buffer.slice(read.argumentsAt, read.binsAt), expected.arguments)
        const bins: unknown[] = []
        read.eachBin((nameAt, nameLength, type, valueAt, valueLength) => {
          bins.push({ name: Buffer.from(buffer.subarray(nameAt, nameAt + nameLength)).toString(), type, value: buffer.slice(valueAt, valueAt + valueLength) })
        })
        assert.deepEqual(bins, expected.bins)
      }
      assert.equal(batch.next(), null)
    }))
  })

  it('a_task_has_the_documented_layout', () => {
    const encoded = Buffer.from(encodeTasks([{
      id: 0x0102030405060708n, module: 'mod', function: 'fn', arguments: Uint8Array.of(0x90), timeLimitMs: 1000, namespace: 'test', set: 'demo', key: Uint8Array.of(3, 0x6b),
      digest: new Uint8Array(20).fill(0xdd), exists: true, generation: 7, lastUpdateTime: 9n, voidTime: 10, ttlSeconds: 11, storedBytes: 12, bins: [bin('b', 5)]
    }]))
    const at = 4
    assert.equal(encoded.readUInt32LE(0), 1)
    assert.equal(encoded.readUInt32LE(at), encoded.length - 4)
    assert.equal(encoded.readUInt32LE(at + 4), 1000)
    assert.equal(encoded.readBigUInt64LE(at + 8), 0x0102030405060708n)
    assert.equal(encoded.readBigUInt64LE(at + 16), 9n)
    assert.deepEqual([24, 28, 36, 44, 48].map(offset => encoded.readUInt32LE(at + offset)), [10, 11, 12, 1, 2])
    assert.deepEqual([32, 40].map(offset => encoded.readUInt16LE(at + offset)), [7, 1])
    assert.deepEqual([34, 35, 42, 43, 72].map(offset => encoded[at + offset]), [3, 4, 3, 2, 4])
    assert.equal(encoded.subarray(at + 76, at + 76 + 15).toString('latin1'), 'testdemo\x03kmodfn')
    assert.equal(encoded.subarray(at + 91).toString('hex'), '90' + '01010000' + '08000000' + '62' + '0000000000000005')
  })

  it('a_batch_of_results_reads_back_and_a_cancelled_one_leaves_no_trace', () => {
    const tasks = encodeTasks([{ id: 2n ** 63n + 1n, module: 'm', function: 'f', arguments: Uint8Array.of(0x90) }, { id: 8n, module: 'm', function: 'f', arguments: Uint8Array.of(0x90) }])
    const batch = new TaskBatch(tasks)
    batch.open(tasks.length)
    const results = new ResultBatch()
    for (let round = 0; round < 2; round++) {
      batch.open(tasks.length)
      results.reset()
      const first = batch.next()!
      results.begin(first)
      results.writer.raw(Buffer.from('half a value'))
      results.cancel()
      results.begin(first)
      results.writer.raw(Uint8Array.of(1, 2, 3))
      results.returned(4)
      results.change(Action.WRITE, TtlAction.SET, 77, true)
      results.beginBin('bin')
      results.writer.raw(Uint8Array.of(9))
      results.endBin(4)
      results.beginBin('gone')
      results.endBin(0)
      results.end()
      results.begin(batch.next()!)
      results.fail(21, 'm.lua:1: ä')
      results.end()
      const [written, failed] = decodeResults(results.finish())
      assert.deepEqual({ ...written!, value: [...written!.value] }, {
        id: 2n ** 63n + 1n, success: true, action: 1, ttlAction: 1, ttlSeconds: 77, dropKey: true, isReduced: false, type: 4, value: [1, 2, 3], message: '', code: 0,
        bins: [{ name: 'bin', type: 4, value: Uint8Array.of(9) }, { name: 'gone', type: 0, value: new Uint8Array(0) }]
      })
      assert.equal(failed!.success, false)
      assert.equal(failed!.code, 21)
      assert.equal(failed!.message, 'm.lua:1: ä')
    }
  })

  it('a_batch_that_contradicts_its_lengths_is_refused', () => {
    const encoded = encodeTasks([{ id: 1n, module: 'm', function: 'f', arguments: Uint8Array.of(0x90), bins: [bin('a', 1)] }])
    const open = (length: number): TaskBatch => {
      const batch = new TaskBatch(encoded)
      batch.open(length)
      return batch
    }
    assert.throws(() => open(encoded.length - 1).next(), LaneError)
    assert.throws(() => open(2), LaneError)
    const view = new DataView(encoded.buffer)
    view.setUint32(4 + 44, 1000, true)
    assert.throws(() => open(encoded.length).next(), LaneError)
  })
})
