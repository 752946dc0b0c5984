import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Double, evaluate, Geo, ModuleUnderTest } from './testing.js'
import type { Plain } from './testing.js'

function failure (code: string): string {
  return new ModuleUnderTest(`function f(rec) ${code} end`).failure('f')
}

describe('list', () => {
  it('is_made_from_a_table_a_capacity_or_nothing', () => {
    assert.deepEqual(evaluate('list{1, "a", 2.5, true, list{3}}'), [1, 'a', new Double(2.5), true, [3]])
    assert.deepEqual(evaluate('local l = list(10) list.append(l, 1) return l'), [1])
    assert.deepEqual(evaluate('list()'), [])
    assert.match(failure('return list{1, {}}'), /element 2: a Lua table cannot be stored/)
  })

  it('is_indexed_from_one_and_grows_by_assignment', () => {
    assert.deepEqual(evaluate('local l = list{10, 20} l[3] = 30 l[5] = 50 l[1] = nil return list{l[1] == nil, l[2], l[6] == nil, l[0] == nil, l[-1] == nil, #l, l[2.0], l["x"] == nil, l}'),
      [true, 20, true, true, true, 5, 20, true, [null, 20, 30, null, 50]])
    assert.match(failure('local l = list() l.x = 1'), /m\.lua:1: a list is indexed by positions from 1/)
    assert.match(failure('local l = list() l[1] = {}'), /Lua table cannot be stored/)
    assert.match(failure('local l = list() l[1e9] = 1'), /position out of range/)
  })

  it('changes_in_place', () => {
    assert.deepEqual(evaluate('local l = list{2} list.append(l, 3) list.prepend(l, 1) list.insert(l, 2, 9) list.insert(l, 7, 7) return l'), [1, 9, 2, 3, null, null, 7])
    assert.deepEqual(evaluate('local l = list{1, 2, 3, 4} list.remove(l, 2) list.remove(l, 9) list.remove(l, 0) return l'), [1, 3, 4])
    assert.deepEqual(evaluate('local l = list{1, 2, 3, 4} list.trim(l, 3) return l'), [1, 2])
    assert.deepEqual(evaluate('local l, m = list{1}, list{2, 3} list.concat(l, m) list.concat(l, l) return list{l, m}'), [[1, 2, 3, 1, 2, 3], [2, 3]])
  })

  it('gives_new_lists_without_touching_the_old', () => {
    assert.deepEqual(evaluate('local l = list{1, 2, 3} local t, d = list.take(l, 2), list.drop(l, 2) list.append(t, 9) return list{l, t, d, list.take(l, 9), list.drop(l, 9), list.take(l, -1)}'),
      [[1, 2, 3], [1, 2, 9], [3], [1, 2, 3], [], []])
    assert.deepEqual(evaluate('local l = list{1, 2} local c, m = list.clone(l), list.merge(l, list{3}) c[1] = 9 m[1] = 8 return list{l, c, m}'), [[1, 2], [9, 2], [8, 2, 3]])
  })

  it('reports_size_bytes_and_text', () => {
    assert.deepEqual(evaluate('local l = list{1, "a", list{}} return list{list.size(l), list.nbytes(l), tostring(l), list.tostring(l), type(l)}'),
      [3, 6, '[1, "a", []]', '[1, "a", []]', 'userdata'])
  })

  it('is_walked_by_iterators_and_pairs', () => {
    assert.equal(evaluate('local s = 0 for v in list.iterator(list{1, 2, 3}) do s = s + v end return s'), 6)
    assert.equal(evaluate('local s = "" local it = list.iterator(list{1, 2}) while iterator.has_next(it) do s = s .. iterator.next(it) end return s .. tostring(iterator.next(it))'), '12nil')
    assert.equal(evaluate('local s = "" for i, v in ipairs(list{"a", "b"}) do s = s .. i .. v end for i, v in pairs(list{"c"}) do s = s .. i .. v end return s'), '1a2b1c')
  })

  it('functions_are_methods_too_where_the_value_has_nothing_of_the_name', () => {
    assert.deepEqual(evaluate('local l = list() l:append(1) l:append(2) l:insert(1, 0) local s = 0 for v in l:iterator() do s = s + v end return list{l, l:size(), l:take(2), s}'), [[0, 1, 2], 3, [0, 1], 3])
    assert.deepEqual(evaluate("local m = map{a = 1} m:set('b', 2) return list{m:size(), m:get('b'), m.size == nil, m.get == nil}"), [2, 2, true, true])
    assert.equal(evaluate("local b = bytes() b:append_int16(258) return b:get_byte(2) + b:size()"), 4)
    assert.equal(evaluate("return geojson('{}'):tostring()"), '{}')
    assert.match(failure("local m = map{size = 1} return m:size()"), /attempt to call a number value \(method 'size'\)/)
    assert.match(failure('return list():absent()'), /attempt to call a nil value \(method 'absent'\)/)
  })

  it('names_what_it_was_given_instead_of_a_list', () => {
    assert.match(failure('list.append(map(), 1)'), /^m\.lua:1: bad argument #1 to 'append' \(list expected, got map\)/)
    assert.match(failure('list.size()'), /list expected, got no value/)
    assert.match(failure('list.append(list(), {})'), /bad argument #2 to 'append' \(a Lua table cannot be stored/)
    assert.match(failure('iterator.next(1)'), /iterator expected, got number/)
  })
})

describe('map', () => {
  const pairsOf = (value: Plain): Array<[Plain, Plain]> => [...(value as Map<Plain, Plain>)]

  it('is_made_from_a_table_and_indexed_by_any_key', () => {
    assert.deepEqual(evaluate('map{a = 1, [2] = "b"}'), new Map<Plain, Plain>([['a', 1], [2, 'b']]))
    assert.deepEqual(evaluate('local m = map() m.x = 1 m[1] = 2 m[1.0] = 3 m[1.5] = 4 m[true] = 5 m.x = nil return list{m[1], m[1.5], m[true], m.x == nil, map.size(m), #m}'), [3, 4, 5, true, 3, 3])
    assert.equal(evaluate('local m = map() m[bytes{1, 2}] = 7 m[1 << 60] = 8 return m[bytes{1, 2}] + m[2^60] + (m[bytes{1}] or 0)'), 15)
    assert.match(failure('local m = map() m[{}] = 1'), /Lua table cannot be stored/)
    assert.match(failure('local m = map() m[0/0] = 1'), /NaN/)
  })

  it('a_double_key_that_is_stored_is_found_again', () => {
    const value = new Map<Plain, Plain>([[new Double(1), 'double'], [2, 'integer']])
    const module = new ModuleUnderTest('function f(rec, m) return list{m[1.0], m[2.0], m[2]} end')
    assert.deepEqual(module.value('f', [value]), ['double', 'integer', 'integer'])
  })

  it('a_string_that_looks_like_another_key_is_a_key_of_its_own', () => {
    assert.deepEqual(evaluate('local m = map() m["f1.5"] = 1 m[1.5] = 2 m["f2"] = 3 return list{m["f1.5"], m[1.5], m["f2"], m[2.0] == nil, #m}'), [1, 2, 3, true, 3])
    assert.deepEqual(evaluate('local m, key = map(), list{1} m[key] = 1 m["u\\x91\\1"] = 2 return list{m[list{1}], m["u\\x91\\1"], #m}'), [1, 2, 2])
  })

  it('is_walked_by_pairs_keys_and_values', () => {
    assert.equal(evaluate('local s = "" for k, v in map.pairs(map{a = 1}) do s = s .. k .. v end for k, v in map.iterator(map{b = 2}) do s = s .. k .. v end return s'), 'a1b2')
    assert.equal(evaluate('local s = "" for k in map.keys(map{a = 1}) do s = s .. k end for v in map.values(map{a = 1}) do s = s .. v end for k, v in pairs(map{z = 0}) do s = s .. k .. v end return s'), 'a1z0')
    assert.equal(evaluate('local m = map{a = 1, b = 2} for k in map.keys(m) do m[k] = nil end return map.size(m)'), 0)
  })

  it('removes_clones_merges_and_differs', () => {
    assert.deepEqual(evaluate('local m = map{a = 1, b = 2} map.remove(m, "a") map.remove(m, "zz") return m'), new Map([['b', 2]]))
    assert.deepEqual(evaluate('local m = map{a = 1} local c = map.clone(m) c.a = 2 return list{m.a, c.a}'), [1, 2])
    assert.deepEqual(pairsOf(evaluate('map.merge(map{a = 1, b = 2}, map{b = 3, c = 4})')).sort(), [['a', 1], ['b', 3], ['c', 4]])
    assert.deepEqual(pairsOf(evaluate('map.merge(map{a = 1, b = 2}, map{b = 3}, math.sum)')).sort(), [['a', 1], ['b', 5]])
    assert.deepEqual(pairsOf(evaluate('map.diff(map{a = 1, b = 2}, map{b = 3, c = 4})')).sort(), [['a', 1], ['c', 4]])
    assert.match(failure('map.merge(map{a = 1}, map{a = 2}, function() error("mine") end)'), /^m\.lua:1: mine/)
  })

  it('nested_changes_reach_the_stored_value', () => {
    const module = new ModuleUnderTest('function f(rec, m) local inner = m.inner list.append(inner, 2) return m end')
    assert.deepEqual(module.value('f', [new Map([['inner', [1]]])]), new Map([['inner', [1, 2]]]))
    const stored = new ModuleUnderTest('function f(rec) local m = rec.m for k, v in map.pairs(m) do v.x = 1 end rec.m = m aerospike:update(rec) end')
    const { value } = stored.result('f', [], { bins: [{ name: 'm', type: 19, value: new Uint8Array(Buffer.from('81a2036180', 'hex')) }] })
    assert.equal(value.length, 0)
    assert.deepEqual(stored.call('f', [], { bins: [{ name: 'm', type: 19, value: new Uint8Array(Buffer.from('81a2036180', 'hex')) }] }).changes, { m: new Map([['a', new Map([['x', 1]])]]) })
  })

  it('reports_text_and_bytes', () => {
    assert.deepEqual(evaluate('list{tostring(map{a = list{1}}), map.tostring(map{[1] = "x"}), map.nbytes(map{a = 1})}'), ['{"a":[1]}', '{1:"x"}', 5])
  })
})

describe('geojson and reducers', () => {
  it('geojson_holds_its_text', () => {
    assert.deepEqual(evaluate('geojson(\'{"type":"Point"}\')'), new Geo('{"type":"Point"}'))
    assert.equal(evaluate('geojson.tostring(geojson("{}")) .. tostring(geojson("[]"))'), '{}[]')
  })

  it('sum_and_product_add_and_multiply_in_64_bits', () => {
    assert.deepEqual(evaluate('list{math.sum(1, 2), math.product(1 << 40, 2), math.sum(1, 0.5)}'), [3, 2 ** 41, new Double(1.5)])
    assert.match(failure('return math.sum(1, {})'), /attempt to perform arithmetic on a table value/)
  })
})
