import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { INTEGER, LuaTable, NIL, tableGet, tableLength, tableSet, Value } from './lua.js'
import type { LuaState } from './fengari.js'
import { evaluate, ModuleUnderTest } from './testing.js'

const L = { l_G: { id_counter: 1 } } as unknown as LuaState

/** xorshift32: the same keys for the same seed. */
function numbers (seed: number): (below: number) => number {
  let x = seed
  return below => {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    return (x >>> 0) % below
  }
}

describe('Lua tables', () => {
  it('a_table_holds_what_a_map_holds_and_its_length_is_a_border', () => {
    for (let seed = 1; seed <= 40; seed++) {
      const below = numbers(seed * 7919)
      const table = new LuaTable(L)
      const model = new Map<number, number>()
      for (let step = 0; step < 400; step++) {
        const key = below(24) - 2
        const removed = below(3) === 0
        if (removed) model.delete(key)
        else model.set(key, step)
        tableSet(L, table, new Value(INTEGER, key), removed ? new Value(NIL, null) : new Value(INTEGER, step))
        for (let i = -2; i < 23; i++) assert.equal(tableGet(L, table, new Value(INTEGER, i))?.value, model.get(i), `seed ${seed}, step ${step}, key ${i}`)
        const length = tableLength(table)
        assert.ok((length === 0 || model.has(length)) && !model.has(length + 1), `seed ${seed}, step ${step}: ${length} is no border`)
      }
    }
  })

  it('float_keys_of_integral_value_are_integer_keys', () => {
    assert.deepEqual(evaluate(`
      local t = {}
      t[1.0] = 'a' t[2] = 'b' t[2^53] = 'c' t[3.5] = 'd' t[-1.0] = 'e'
      return list{t[1], t[2.0], t[1 << 53], t[7 / 2], t[-1], #t, math.type(next(t))}`), ['a', 'b', 'c', 'd', 'e', 2, 'integer'])
  })

  it('a_traversal_sees_each_key_once_while_it_removes_them', () => {
    assert.equal(evaluate(`
      local t, seen, n = {}, {}, 0
      for i = 1, 50 do t[i] = i t['k' .. i] = i t[i * 1000] = i end
      for i = 3, 50, 7 do t[i] = nil end
      for k, v in pairs(t) do
        if seen[k] then return 'twice' end
        seen[k] = true
        n = n + 1
        t[k] = nil
        if type(k) == 'number' and k < 50 then t[k + 1] = t[k + 1] and -1 end
      end
      return n == 143 and next(t) == nil and n`), 143)
  })

  it('what_is_no_key_is_refused_with_the_position', () => {
    const module = new ModuleUnderTest(`
      function none() local t = {} t[nil] = 1 end
      function nan() local t = {} t[0/0] = 1 end
      function after() return next({1, 2}, 'x') end
      function read() return ({})[nil] == nil and ({})[0/0] == nil end`)
    assert.equal(module.failure('none'), 'm.lua:2: table index is nil')
    assert.equal(module.failure('nan'), 'm.lua:3: table index is NaN')
    assert.equal(module.failure('after'), "invalid key to 'next'")
    assert.equal(module.value('read'), true)
  })

  it('constructors_and_stacks_of_nils_keep_their_length', () => {
    assert.equal(evaluate('return #{1, nil, 3} == 3 and #{nil, nil} == 0 and #{n = 1, 1, 2} == 2 and #{(function() return 1, 2, 3 end)()} == 3'), true)
    assert.equal(evaluate('local t = {} for i = 1, 100 do t[#t + 1] = i end for i = 100, 51, -1 do t[#t] = nil end t[#t + 1] = 7 return #t == 51 and t[51] == 7'), true)
  })

  it('strings_and_names_of_a_source_stay_apart', () => {
    // The lexer found the empty string as '|', and the name foo as '|foo', once these had been there.
    assert.deepEqual(evaluate(`
      local bar, text = '|' .. '' .. '|', '|foo'
      local foo, t = 5, {foo = 7}
      return list{bar, '', text, foo, t.foo, t['f' .. 'oo'], t['|foo'] == nil}`), ['||', '', '|foo', 5, 7, 7, true])
  })

  it('a_float_key_beyond_the_integers_stays_a_float', () => {
    assert.deepEqual(evaluate('local t = {[2^63] = 1, [-2^70] = 2} local sum = 0 for k, v in pairs(t) do assert(math.type(k) == "float") sum = sum + v end return list{sum, t[2^63], t[-2^70], next({[2^62] = 1})}'),
      [3, 1, 2, 2n ** 62n, 1])
  })

  it('strings_are_bytes_whichever_form_they_have', () => {
    assert.deepEqual(evaluate(`
      local short, long = 'ä\\0\\255', ('ö'):rep(2000)
      local t = {[short .. 1] = 'x', [long .. 1] = 'y'}
      return list{#short, #(short .. short), t['ä\\0\\255' .. '1'], t[long .. '1'], #(long .. short), (long .. short):byte(-1), (short .. 1):byte(1)}`),
    [4, 8, 'x', 'y', 4004, 255, 0xc3])
  })
})
