import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { TaskFields } from './lane.js'
import { bin, Double, evaluate, Geo, ModuleUnderTest, particle } from './testing.js'
import type { Plain } from './testing.js'

function run (body: string, task: Partial<TaskFields> = {}, args: Plain[] = []): ReturnType<ModuleUnderTest['call']> {
  return new ModuleUnderTest(`function f(rec, a, b, c)\n${body}\nend`).call('f', args, task)
}

const WRITE = 1
const REMOVE = 2

describe('record API', () => {
  it('bins_of_every_type_are_read_and_written', () => {
    const values: Plain[] = [7, -(2n ** 62n), new Double(1.5), 'text', true, false, Uint8Array.of(1, 2), [1, 'x', [2]], new Map<Plain, Plain>([['k', 1], [2, 'v']]), new Geo('{"type":"Point","coordinates":[1,2]}')]
    for (const value of values) {
      const { type, value: bytes } = particle(value)
      const outcome = run('rec.b = rec.a; rec["c"] = a; aerospike:update(rec); return rec.a', { bins: [bin('a', value)] }, [value])
      assert.equal(outcome.success, true, outcome.message)
      assert.deepEqual(outcome.value, value)
      assert.deepEqual(outcome.bins.map(changed => changed.name), ['b', 'c'])
      for (const changed of outcome.bins) {
        assert.equal(changed.type, type)
        assert.deepEqual(changed.value, bytes)
      }
    }
  })

  it('a_bin_that_is_only_passed_on_keeps_its_bytes', () => {
    // Encodings that ours would not choose: a long integer header, a HyperLogLog, GeoJSON with a cell, an unknown particle type.
    const raw: Array<[number, string]> = [[20, '92cd0001ca3f800000'], [19, '81d20000000501'], [18, 'beef'], [23, '0000010102030405060708' + Buffer.from('{}').toString('hex')], [99, 'abcd'], [8, '00']]
    for (const [type, hex] of raw) {
      const original = { name: 'a', type, value: new Uint8Array(Buffer.from(hex, 'hex')) }
      const module = new ModuleUnderTest('function f(rec) local v = rec.a; rec.b = v; aerospike:update(rec); return v end')
      const result = module.result('f', [], { bins: [original] })
      assert.equal(result.success, true, result.message)
      assert.deepEqual([result.type, Buffer.from(result.value).toString('hex')], [type, hex])
      assert.deepEqual(result.bins.map(changed => [changed.type, Buffer.from(changed.value).toString('hex')]), [[type, hex]])
    }
  })

  it('infinity_and_the_wildcard_are_nil_as_arguments', () => {
    // [infinity, wildcard, a number beyond int64]
    const args = new Uint8Array(Buffer.from('93d4ff01d4ff00cfffffffffffffffff', 'hex'))
    const outcome = run('rec.x = a; aerospike:update(rec); return a == nil and b == nil and c ~= nil', { bins: [bin('x', 1), bin('y', 2)], arguments: args })
    assert.deepEqual([outcome.value, outcome.changes], [true, { x: null }])
  })

  it('an_untouched_bin_is_never_decoded', () => {
    const broken = { name: 'broken', type: 1, value: Uint8Array.of(1) }
    assert.equal(run('return rec.a', { bins: [broken, bin('a', 1)] }).value, 1)
    assert.match(run('return rec.broken', { bins: [broken] }).message, /^m\.lua:2: an integer of 1 bytes/)
    const list = { name: 'l', type: 20, value: Uint8Array.of(0x92, 1) }
    assert.equal(run('local l = rec.l return 1', { bins: [list] }).value, 1)
    assert.match(run('return list.size(rec.l)', { bins: [list] }).message, /^m\.lua:2: malformed list or map/)
    assert.match(run('return rec', { bins: [broken] }).message, /an integer of 1 bytes/)
  })

  it('changes_are_real_only_after_create_or_update', () => {
    const task = { bins: [bin('a', 1)] }
    assert.deepEqual(run('rec.a = 2; rec.b = 3', task).bins, [])
    assert.equal(run('rec.a = 2', task).action, 0)
    const later = run('rec.a = 2; aerospike:update(rec); rec.a = 3; rec.c = 4; return rec.a', task)
    assert.deepEqual([later.value, later.changes, later.action], [3, { a: 2 }, WRITE])
    assert.deepEqual(run('rec.l = list{1}; aerospike:update(rec); list.append(rec.l, 2)', task).changes, { l: [1] })
    assert.deepEqual(run('local l = list{1}; rec.l = l; list.append(l, 2); aerospike:update(rec); list.append(l, 3)', task).changes, { l: [1, 2] })
  })

  it('update_without_changes_is_a_touch_and_nil_deletes', () => {
    const touch = run('return aerospike:update(rec)', { bins: [bin('a', 1)] })
    assert.deepEqual([touch.value, touch.action, touch.changes], [0, WRITE, {}])
    const deletion = run('rec.a = nil; rec.x = nil; rec.b = nil; aerospike:update(rec); return rec.a', { bins: [bin('a', 1), bin('b', 2), bin('c', 3)] })
    assert.deepEqual([deletion.value, deletion.action, deletion.changes], [null, WRITE, { a: null, b: null }])
    const last = run('rec.a = nil; aerospike:update(rec); return aerospike:exists(rec)', { bins: [bin('a', 1)] })
    assert.deepEqual([last.value, last.action], [false, REMOVE])
  })

  it('create_and_update_refuse_the_wrong_state_and_change_nothing', () => {
    const existing = run('rec.a = 2; return aerospike:create(rec)', { bins: [bin('a', 1)] })
    assert.deepEqual([existing.value, existing.action, existing.changes], [1, 0, {}])
    const missing = run('rec.a = 2; return aerospike:update(rec)')
    assert.deepEqual([missing.value, missing.action, missing.changes], [-2, 0, {}])
    const created = run('rec.a = 2; local s = aerospike:create(rec); rec.b = 1; return s + aerospike:update(rec)')
    assert.deepEqual([created.value, created.action, created.changes], [0, WRITE, { a: 2, b: 1 }])
    assert.notEqual(run('return aerospike:remove(rec)').value, 0)
    assert.equal(run('return aerospike:exists(rec)').value, false)
    assert.equal(run('return aerospike:exists(rec)', { bins: [bin('a', 1)] }).value, true)
  })

  // The usual way of modules that clients come with: create first, assign, update.
  it('a_record_can_be_created_before_it_has_bins', () => {
    const body = 'local s = aerospike:create(rec); rec.a = 2; return list{s, aerospike:exists(rec), aerospike:update(rec), aerospike:create(rec)}'
    const created = run(body)
    assert.deepEqual([created.value, created.action, created.changes], [[0, true, 0, 1], WRITE, { a: 2 }])
    const again = run(`aerospike:remove(rec); ${body}`, { bins: [bin('a', 1), bin('b', 2)] })
    assert.deepEqual([again.value, again.action, again.changes], [[0, true, 0, 1], WRITE, { a: 2, b: null }])
    const empty = run('return aerospike:create(rec)')
    assert.deepEqual([empty.value, empty.action], [0, 0])
    const emptied = run('aerospike:remove(rec); return aerospike:create(rec)', { bins: [bin('a', 1)] })
    assert.deepEqual([emptied.value, emptied.action], [0, REMOVE])
  })

  it('a_removed_record_can_be_created_again', () => {
    const task = { bins: [bin('a', 1), bin('b', 2)] }
    const removed = run('return aerospike:remove(rec)', task)
    assert.deepEqual([removed.value, removed.action, removed.bins], [0, REMOVE, []])
    const gone = run('aerospike:remove(rec); return list{aerospike:exists(rec), rec.a or "none", aerospike:update(rec), aerospike:remove(rec)}', task)
    assert.deepEqual([gone.value, gone.action], [[false, 'none', -2, 1], REMOVE])
    const again = run('aerospike:remove(rec); rec.b = 5; rec.c = 6; return aerospike:create(rec)', task)
    assert.deepEqual([again.value, again.action, again.changes], [0, WRITE, { a: null, b: 5, c: 6 }])
    const neither = run('rec.a = 1; aerospike:create(rec); return aerospike:remove(rec)')
    assert.deepEqual([neither.value, neither.action], [0, 0])
  })

  it('metadata_is_that_of_the_stored_record', () => {
    const task: Partial<TaskFields> = {
      bins: [bin('a', 1), bin('b', 2)], generation: 3, lastUpdateTime: 500_000_000_000n, ttlSeconds: 60, storedBytes: 128, set: 'demo', key: Uint8Array.of(3, 0x6b), digest: new Uint8Array(20).fill(7)
    }
    const outcome = run(`local names = record.bin_names(rec)
      rec.c = 1
      return list{record.gen(rec), record.last_update_time(rec), record.ttl(rec), record.size(rec), record.memory_size(rec), record.device_size(rec), record.setname(rec), record.key(rec),
        bytes.size(record.digest(rec)), record.numbins(rec), names[1] .. names[2] .. #names}`, task)
    assert.deepEqual(outcome.value, [3, 500_000_000_000, 60, 128, 128, 128, 'demo', 'k', 20, 2, 'ab2'])
    assert.deepEqual(run('return list{record.ttl(rec), record.gen(rec), record.numbins(rec), record.setname(rec) == nil, record.key(rec) == nil}').value, [0, 0, 0, true, true])
    assert.ok(Math.abs(Number(evaluate('aerospike:get_current_time()')) - Date.now()) < 10_000)
  })

  it('ttl_and_key_go_with_the_write', () => {
    const task = { bins: [bin('a', 1)] }
    const of = (ttl: string): unknown[] => {
      const { ttlAction, ttlSeconds, dropKey } = run(`record.set_ttl(rec, ${ttl}); record.drop_key(rec); aerospike:update(rec)`, task)
      return [ttlAction, ttlSeconds, dropKey]
    }
    assert.deepEqual([of('100'), of('-1'), of('-2'), of('0')], [[1, 100, true], [2, 0, true], [3, 0, true], [1, 0, true]])
    const plain = run('aerospike:update(rec)', task)
    assert.deepEqual([plain.ttlAction, plain.ttlSeconds, plain.dropKey], [0, 0, false])
    assert.match(run('record.set_ttl(rec, 1 << 40)', task).message, /ttl out of range/)
  })

  it('what_cannot_be_stored_fails_with_the_line_and_the_right_code', () => {
    const long = run('rec.abcdefghijklmnop = 1')
    assert.deepEqual([long.code, long.message], [21, "m.lua:2: a bin name has 1 to 15 bytes: 'abcdefghijklmnop'"])
    assert.equal(run('rec[""] = 1').code, 21)
    assert.equal(run('pcall(function() rec.abcdefghijklmnop = 1 end) error("other")').code, 100)
    assert.equal(run('rec.t = {}').message, "m.lua:2: bin 't': a Lua table cannot be stored; use list or map")
    assert.match(run('rec.f = print').message, /bin 'f': a function cannot be stored/)
    assert.match(run('rec.r = rec').message, /a record cannot be stored/)
    assert.match(run('rec[1] = 1').message, /a bin name must be a string/)
    assert.match(run('local l = list(); list.append(l, l); rec.l = l; aerospike:create(rec)').message, /^m\.lua:2: bin 'l': .*contain itself/)
    assert.match(run('return {}').message, /a Lua table cannot be stored/)
    assert.match(run('for i = 1, 513 do rec["b" .. i] = i end aerospike:create(rec)').message, /more than 512 bins/)
    const most = run('for i = 1, 512 do rec["b" .. i] = i end return aerospike:create(rec)')
    assert.deepEqual([most.value, most.bins.length], [0, 512])
    const big = run('local b = bytes() local s = ("x"):rep(1 << 22) local l = list() for i = 1, 3 do list.append(l, s) end rec.l = l aerospike:create(rec)')
    assert.equal(big.code, 13)
    assert.equal(run('rec.b = 1; error("late")', { bins: [bin('a', 1)] }).action, 0)
  })

  it('a_return_value_beyond_the_limit_fails_and_changes_nothing', () => {
    const outcome = run('rec.a = 1 aerospike:create(rec) local s, l = ("x"):rep(1 << 23), list() for i = 1, 9 do list.append(l, s) end return l')
    assert.deepEqual([outcome.success, outcome.action, outcome.message], [false, 0, 'm.lua: f: the return value has more than 67108864 bytes'])
  })

  it('a_failed_call_changes_nothing_even_after_update', () => {
    const outcome = run('rec.a = 2; aerospike:update(rec); error("late")', { bins: [bin('a', 1)] })
    assert.deepEqual([outcome.success, outcome.action, outcome.bins], [false, 0, []])
  })

  it('a_record_kept_from_an_earlier_call_is_dead', () => {
    const module = new ModuleUnderTest('local kept, value function keep(rec) kept = rec; value = rec.l; return 1 end function use() return kept.a end function give() return kept end function old() return value[2] end')
    assert.equal(module.value('keep', [], { bins: [bin('a', 1), bin('l', [1, 2])] }), 1)
    assert.match(module.failure('use'), /the record of an earlier call/)
    assert.match(module.failure('give', [], { bins: [bin('a', 2)] }), /the record of an earlier call/)
    // A value is a copy and stays what it was.
    assert.equal(module.value('old', [], { bins: [bin('a', 'something else entirely')] }), 2)
  })

  it('a_returned_record_is_the_map_of_its_bins', () => {
    const outcome = run('rec.c = 3; rec.b = nil; return rec', { bins: [bin('a', 1), bin('b', 2)] })
    assert.deepEqual(outcome.value, new Map([['a', 1], ['c', 3]]))
  })

  it('stream_functions_fail_clearly', () => {
    const message = /^m\.lua:2: stream functions are not available: this function was called with a record/
    assert.match(run('return rec : map(function() end) : reduce(function() end)').message, message)
    assert.match(run('return rec : aggregate(0, function() end)').message, message)
    assert.match(run('stream.filter(rec, print)').message, message)
  })

  it('arguments_arrive_in_order_and_more_than_twenty_are_remarked', () => {
    const module = new ModuleUnderTest('function f(rec, ...) return list{select("#", ...), ...} end')
    assert.deepEqual(module.value('f', [1, 'a', true, new Double(2), [1]]), [5, 1, 'a', true, new Double(2), [1]])
    assert.equal((module.value('f', new Array(30).fill(1)) as Plain[]).length, 31)
    assert.deepEqual(module.value('f', [1], { arguments: new Uint8Array(0) }), [0])
    assert.match(module.failure('f', [], { arguments: Uint8Array.of(0x92, 1) }), /malformed/)
  })
})

// The functions that the official client's own tests call, by what those tests expect of them.
describe('module of the official client tests', () => {
  const module = new ModuleUnderTest(`
    function withArguments(rec, value) return value end
    function withoutArguments(rec) return 1 end
    function noop(rec) end
    function createRecord(rec, name, value)
      rec[name] = value
      if aerospike:exists(rec) then status = aerospike:update(rec) else status = aerospike:create(rec) end
      return status
    end
    function updateRecord(rec, name, value)
      rec[name] = value
      aerospike:update(rec)
      return rec
    end
    function deleteRecord(rec)
      aerospike:remove(rec)
      return 0
    end`)

  it('returns_values_as_they_came', () => {
    for (const value of ['abc', 42, new Double(1.5), [1, [2]], new Map([['a', 1]]), true, null] as Plain[]) assert.deepEqual(module.value('withArguments', [value]), value)
    assert.equal(module.value('withoutArguments', [1, 2]), 1)
    assert.equal(module.value('noop'), null)
  })

  it('creates_updates_and_deletes_a_record', () => {
    const created = module.call('createRecord', ['foo', 'bar'])
    assert.deepEqual([created.value, created.action, created.changes], [0, WRITE, { foo: 'bar' }])
    const updated = module.call('updateRecord', ['x', 2], { bins: [bin('x', 1), bin('y', 9)] })
    assert.deepEqual([updated.value, updated.action, updated.changes], [new Map([['x', 2], ['y', 9]]), WRITE, { x: 2 }])
    const removed = module.call('deleteRecord', [], { bins: [bin('x', 1)] })
    assert.deepEqual([removed.value, removed.action], [0, REMOVE])
  })
})
