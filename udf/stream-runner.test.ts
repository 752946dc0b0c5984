import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { TaskKind } from './lane.js'
import type { TaskFields } from './lane.js'
import { STREAM_VALUES_BYTES_MAX } from './stream-runner.js'
import { bin, Double, fromParticle, ModuleUnderTest, particle } from './testing.js'
import type { Plain } from './testing.js'

type Bins = Record<string, Plain>

function records (all: readonly Bins[]): Partial<TaskFields> {
  return { kind: TaskKind.CHUNK, records: all.map(bins => ({ bins: Object.entries(bins).map(([name, value]) => bin(name, value)) })) }
}

class StreamUnderTest extends ModuleUnderTest {
  #outcome (fn: string, args: readonly Plain[], task: Partial<TaskFields>): { values: Plain[], isReduced: boolean } {
    const result = this.result(fn, args, task)
    assert.equal(result.success, true, result.message)
    assert.ok(result.bins.every(({ name }) => name === ''))
    return { values: result.bins.map(({ type, value }) => fromParticle(type, value)), isReduced: result.isReduced }
  }

  chunk (fn: string, all: readonly Bins[], args: readonly Plain[] = []): { values: Plain[], isReduced: boolean } {
    return this.#outcome(fn, args, records(all))
  }

  reduce (fn: string, values: readonly Plain[], isFinal = false): { values: Plain[], isReduced: boolean } {
    return this.#outcome(fn, [], { kind: TaskKind.REDUCE, isFinal, bins: values.map(value => ({ name: '', ...particle(value) })) })
  }

  problem (fn: string, all: readonly Bins[] = [{ a: 1 }], args: readonly Plain[] = []): string {
    return this.failure(fn, args, records(all))
  }
}

const numbers = (...values: number[]): Bins[] => values.map(a => ({ a }))

describe('stream functions', () => {
  it('values_pass_through_filters_and_maps_in_their_order', () => {
    const module = new StreamUnderTest(`
      local function value(rec) return rec.a end
      function even(s) return s : filter(function(rec) return rec.a % 2 == 0 end) : map(value) end
      function late(s, least) return s : map(value) : filter(function(v) return v >= least end) : map(function(v) return v * 10 end) end
      function functions(s) return stream.map(stream.filter(s, function(rec) return rec.a > 1 end), value) end
      function unchained(s) s : map(value) return s end
      function none(s) return s end
      function dropped(s) return s : map(function(rec) if rec.a > 1 then return rec.a end end) end`)
    assert.deepEqual(module.chunk('even', numbers(1, 2, 3, 4)), { values: [2, 4], isReduced: false })
    assert.deepEqual(module.chunk('late', numbers(1, 2, 3), [2]).values, [20, 30])
    assert.deepEqual(module.chunk('functions', numbers(1, 2, 3)).values, [2, 3])
    assert.deepEqual(module.chunk('unchained', numbers(1, 2)).values, [1, 2])
    assert.deepEqual(module.chunk('none', [{ a: 1, b: 'x' }]).values, [new Map<Plain, Plain>([['a', 1], ['b', 'x']])], 'a record is the map of its bins')
    assert.deepEqual(module.chunk('dropped', numbers(1, 2)).values, [2], 'nil goes no further')
  })

  it('a_node_does_what_comes_up_to_the_first_reduce_and_a_final_task_the_rest', () => {
    const module = new StreamUnderTest(`
      local function add(a, b) return a + b end
      function sum(s) return s : map(function(rec) return rec.a end) : reduce(add) end
      function total(s) return s : map(function(rec) return rec.a end) : reduce(add) : map(function(v) return 'total ' .. v end) end
      function library(s) return s : map(function(rec) return rec.a end) : reduce(math.sum) end`)
    for (const fn of ['sum', 'total', 'library']) {
      assert.deepEqual(module.chunk(fn, numbers(1, 2, 3)), { values: [6], isReduced: true })
      assert.deepEqual(module.chunk(fn, []), { values: [], isReduced: true }, 'nothing is no value')
      assert.deepEqual(module.reduce(fn, [6, 4, 5]), { values: [15], isReduced: true })
    }
    assert.deepEqual(module.reduce('total', [6, 4], true), { values: ['total 10'], isReduced: false })
    assert.deepEqual(module.reduce('total', [], true).values, [])
  })

  it('an_aggregate_begins_each_chunk_with_a_copy_of_its_first_value', () => {
    const module = new StreamUnderTest(`
      local kept = map{ n = 0, inner = list{ 0 } }
      local function add(m, rec) m.n = m.n + rec.a; list.append(m.inner, rec.a) return m end
      function gather(s) return s : aggregate(kept, add) end
      function tables(s)
        return s : aggregate({ n = 0, sum = 0 }, function(t, rec) t.n = t.n + 1; t.sum = t.sum + rec.a return t end)
          : map(function(t) return t.sum / t.n end)
      end
      function from_nil(s) return s : aggregate(nil, function(most, rec) if most == nil or rec.a > most then return rec.a end return most end) end`)
    const expected = (...values: number[]): Plain => new Map<Plain, Plain>([['n', values.reduce((a, b) => a + b)], ['inner', [0, ...values]]])
    assert.deepEqual(module.chunk('gather', numbers(1, 2)).values, [expected(1, 2)])
    assert.deepEqual(module.chunk('gather', numbers(5)).values, [expected(5)])
    assert.deepEqual(module.chunk('tables', numbers(1, 2)).values, [new Double(1.5)])
    assert.deepEqual(module.chunk('from_nil', numbers(3, 7, 5)).values, [7])
    assert.deepEqual(module.chunk('from_nil', []).values, [])
  })

  it('groups_of_all_chunks_are_those_of_one', () => {
    const module = new StreamUnderTest(`
      function parity(s) return s : map(function(rec) return rec.a end) : groupby(function(v) return v % 2 == 0 and 'even' or 'odd' end) end
      function whole(s) return s : groupby(function(rec) return rec.a end) end
      function none(s) return s : groupby(function() end) end`)
    const { values, isReduced } = module.chunk('parity', numbers(1, 2, 3))
    assert.equal(isReduced, true)
    const combined = module.reduce('parity', [...values, ...module.chunk('parity', numbers(4, 6)).values])
    assert.deepEqual(combined.values, [new Map([['odd', [1, 3]], ['even', [2, 4, 6]]])])
    assert.deepEqual(module.chunk('whole', numbers(1)).values, [new Map([[1, [new Map([['a', 1]])]]])])
    assert.match(module.problem('none'), /a map key cannot be nil/)
  })

  it('a_sum_is_that_of_the_records_however_they_are_cut_into_chunks', () => {
    const module = new StreamUnderTest(`
      function sum(s) return s : map(function(rec) return rec.a end) : reduce(function(a, b) return a + b end) end`)
    fc.assert(fc.property(fc.array(fc.array(fc.bigInt({ min: -(2n ** 62n), max: 2n ** 62n }), { maxLength: 8 }), { minLength: 1, maxLength: 6 }), chunks => {
      const all = chunks.flat()
      const partials = chunks.flatMap(chunk => module.chunk('sum', chunk.map(a => ({ a }))).values)
      const sum = module.reduce('sum', partials).values.map(value => BigInt(value as number | bigint))
      assert.deepEqual(sum, all.length === 0 ? [] : [BigInt.asIntN(64, all.reduce((a, b) => a + b))])
    }))
  })

  it('a_record_shows_its_bins_and_what_is_known_of_it', () => {
    const module = new StreamUnderTest(`
      function about(s)
        return s : map(function(rec)
          local l = rec.l
          list.append(l, 4)
          return list{ rec.s, rec.missing == nil, #rec.l, record.setname(rec), record.ttl(rec), record.gen(rec), record.key(rec), record.numbins(rec), aerospike:exists(rec), #record.digest(rec) }
        end)
      end
      function most(s)
        return s : reduce(function(a, b) if a.a > b.a then return a end return b end) : map(function(rec) return rec.a end)
      end`)
    const record: Partial<TaskFields> = {
      set: 'demo', ttlSeconds: 60, generation: 7, key: Uint8Array.of(3, 0x6b), bins: [bin('other', 1), bin('s', 'text'), bin('l', [1, 2, 3])]
    }
    const result = module.result('about', [], { kind: TaskKind.CHUNK, records: [record] })
    assert.equal(result.success, true, result.message)
    assert.deepEqual(fromParticle(result.bins[0]!.type, result.bins[0]!.value), ['text', true, 4, 'demo', 60, 7, 'k', 3, true, 20])
    assert.deepEqual(module.chunk('most', numbers(3, 9, 4)).values, [new Map([['a', 9]])], 'a record stays there for its chunk')
  })

  it('records_are_read_only_and_there_for_their_call_alone', () => {
    const module = new StreamUnderTest(`
      local kept
      function assign(s) return s : map(function(rec) rec.a = 1 end) end
      function update(s) return s : map(function(rec) return aerospike:update(rec) end) end
      function create(s) return s : map(function(rec) return aerospike:create(rec) end) end
      function remove(s) return s : map(function(rec) return aerospike:remove(rec) end) end
      function ttl(s) return s : map(function(rec) record.set_ttl(rec, 5) end) end
      function keep(s) return s : map(function(rec) kept = rec return 1 end) end
      function give(s) return s : map(function() return kept end) end
      function group(s) return s : map(function() return kept end) : groupby(function() return 1 end) end
      function use(s) return s : map(function() return kept.a end) end`)
    for (const fn of ['assign', 'update', 'create', 'remove', 'ttl']) assert.match(module.problem(fn), /m\.lua:\d+: .*read-only/, fn)
    module.chunk('keep', numbers(1))
    for (const fn of ['use', 'give', 'group']) assert.match(module.problem(fn), /the record of an earlier call/, fn)
  })

  it('what_is_wrong_with_a_stream_is_said', () => {
    const module = new StreamUnderTest(`
      local kept
      function nothing(s) s : map(function() return 1 end) end
      function number(s) return 1 end
      function broken(s) return s : map(function(rec) return rec.a.b.c end) end
      function missing(s) return s : map() end
      function init(s) return s : aggregate(0) end
      function table(s) return s : map(function() return {} end) end
      function late(s) return s : map(function() s : map(function() end) end) end
      function keep(s) kept = s return s end
      function use(s) kept : map(function() end) return s end
      function unknown(s) return s : sort() end
      function huge(s) return s : map(function() return ('x'):rep(4194304) end) end
      function changing(s, reduce) if reduce then s : reduce(math.sum) end return s end
      function reads(s) stream.read(s) return s end
      function yields(s) return s : map(function() coroutine.yield(1) end) end`)
    assert.match(module.problem('nothing'), /nothing must return its stream/)
    assert.match(module.problem('number'), /number must return its stream/)
    assert.match(module.problem('broken'), /m\.lua:5: attempt to index a number value/)
    assert.match(module.problem('missing'), /m\.lua:6: .*function expected, got no value/)
    assert.match(module.problem('init'), /m\.lua:7: .*function expected, got no value/)
    assert.match(module.problem('table'), /a value of the stream: a Lua table cannot be stored/)
    assert.match(module.problem('late'), /m\.lua:9: the stream of an earlier call, or one that runs already/)
    module.chunk('keep', [])
    assert.match(module.problem('use'), /the stream of an earlier call/)
    assert.match(module.problem('unknown'), /m\.lua:12: attempt to call a nil value \(method 'sort'\)/)
    assert.match(module.problem('huge', numbers(1, 2, 3)), new RegExp(`more than ${STREAM_VALUES_BYTES_MAX} bytes`))
    assert.match(module.problem('reads'), /worked on by filter, map, aggregate, reduce and groupby only/)
    assert.match(module.problem('yields'), /yield/)
    assert.match(module.failure('changing', [], { kind: TaskKind.REDUCE }), /with a reduce before, and now one without/)
    assert.match(module.failure('missing'), /stream functions are not available: this function was called with a record/)
    assert.match(module.failure('absent', [], records([])), /function not found: m\.absent/)
    assert.match(module.failure('f', [], { ...records([]), module: 'other' }), /module not found: other/)
  })

  it('a_chunk_has_the_time_limit_of_a_call', () => {
    const module = new StreamUnderTest(`
      function slow(s) return s : map(function() while true do end end) end
      function building(s) while true do s = s end end`)
    assert.match(module.failure('slow', [], { ...records(numbers(1)), timeLimitMs: 20 }), /time limit of 20 ms exceeded/)
    assert.match(module.failure('building', [], { ...records([]), timeLimitMs: 20 }), /time limit of 20 ms exceeded/)
  })
})
