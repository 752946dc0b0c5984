import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { runTest, testsOf } from './test-file.js'
import type { TestFailure, TestFile, TestOutcome } from './test-file.js'
import { RECORD_BYTES_MAX } from './local-node.js'

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))

const COUNTERS = `
local seen = 0
function add(rec, bin, step)
  rec[bin] = (rec[bin] or 0) + step
  if aerospike:exists(rec) then aerospike:update(rec) else aerospike:create(rec) end
  seen = seen + 1
  return rec[bin]
end
function live(rec, seconds) record.set_ttl(rec, seconds) return aerospike:update(rec) end
function about(rec) return map{ttl = record.ttl(rec), gen = record.gen(rec), key = record.key(rec), set = record.setname(rec), size = record.size(rec)} end
function drop(rec) return aerospike:remove(rec) end
function clear(rec, bin) rec[bin] = nil return aerospike:update(rec) end
function grow(rec, size) rec.text = ('x'):rep(size) return aerospike:create(rec) end
function echo(rec, value) return value end
function times(rec) return list{os.time(), aerospike:get_current_time(), os.date('%Y')} end
function seen_so_far(rec) return seen end
function forever(rec) while true do end end
function log(rec) info('hello %d', 7) error('after') end
function total(stream)
  return stream : filter(function(rec) return rec.n ~= nil end) : map(function(rec) return rec.n end) : reduce(function(a, b) return a + b end)
end
`

function file (text: string, modules: Record<string, string> = {}): TestFile {
  return {
    source: { name: 'counters.test.lua', content: bytes(text) },
    modules: Object.entries({ 'counters.lua': COUNTERS, ...modules }).map(([name, source]) => ({ name, content: bytes(source) }))
  }
}

function run (body: string, modules: Record<string, string> = {}): TestOutcome {
  return runTest(file(`function test_it()\n${body}\nend`, modules), 'test_it')
}

function passes (body: string, modules: Record<string, string> = {}): void {
  const { failure } = run(body, modules)
  assert.equal(failure, null, JSON.stringify(failure))
}

function failureOf (body: string): TestFailure {
  const { failure } = run(body)
  assert.ok(failure !== null, 'the test passed')
  return failure
}

describe('tests of modules', () => {
  it('a_function_changes_its_sample_record_as_a_node_would', () => {
    passes(`
      local rec = test.record{key = 'a', set = 'people', bins = {n = 1, name = 'Ada'}}
      assert(test.apply(rec, 'counters', 'add', 'n', 5) == 6)
      test.equal(rec.bins, {n = 6, name = 'Ada'})
      test.equal(rec.generation, 2)
      test.equal(test.apply(rec, 'counters', 'clear', 'n'), 0)
      test.equal(rec.bins, {name = 'Ada'})
      test.equal(test.apply(rec, 'counters', 'drop'), 0)
      test.equal(rec.exists, false)
      test.equal(rec.bins, {})
      test.equal(rec.generation, 0)
      test.equal(test.apply(rec, 'counters', 'drop'), 1)
      test.apply(rec, 'counters', 'add', 'n', 1)
      test.equal({rec.generation, rec.exists, rec.key, rec.set}, {1, true, 'a', 'people'})
      test.apply(rec, 'counters', 'clear', 'n')
      assert(not rec.exists, 'a record without bins is none')`)
  })

  it('time_stands_still_once_it_is_set_and_records_expire_by_it', () => {
    passes(`
      test.time(1700000000999)
      local rec = test.record{key = 7, ttl = 60, generation = 65535, bins = {n = 1}}
      test.equal(test.apply(rec, 'counters', 'times'), {1700000000, 1700000000999, '2023'})
      test.equal(test.apply(rec, 'counters', 'about'), {ttl = 60, gen = 65535, key = 7, size = 80})
      test.equal(test.apply(rec, 'counters', 'live', 100), 0)
      test.equal({rec.ttl, rec.generation}, {100, 1})
      test.advance(40000)
      test.equal(rec.ttl, 60)
      test.equal(test.apply(rec, 'counters', 'live', -2), 0)
      test.equal(rec.ttl, 60)
      test.advance(60001)
      assert(not rec.exists)
      test.equal(test.apply(rec, 'counters', 'add', 'n', 5), 5)
      test.equal({rec.ttl, rec.generation}, {0, 1})`)
    passes('assert(math.abs(test.apply(test.record(), "counters", "times")[2] - test.time()) < 60000)')
  })

  it('a_call_that_fails_raises_its_message_and_changes_nothing', () => {
    passes(`
      local rec = test.record{bins = {n = 1}}
      local message, code = test.fails(rec, 'counters', 'add', 'n', 'five')
      test.equal(message, "counters.lua:4: attempt to perform arithmetic on a string value (local 'step')")
      test.equal(code, 100)
      test.equal(rec.bins, {n = 1})
      local ok, raised = pcall(test.apply, rec, 'counters', 'nobody')
      test.equal({ok, raised}, {false, 'function not found: counters.nobody'})
      message = test.fails(rec, 'elsewhere', 'add')
      test.equal(message, 'module not found: elsewhere')
      message = test.fails(rec, 'counters', 'forever')
      assert(message:find('time limit of 1000 ms exceeded', 1, true), message)`)
    passes(`
      local rec = test.record()
      local message, code = test.fails(rec, 'counters', 'grow', ${RECORD_BYTES_MAX})
      test.equal(code, 13)
      assert(message:find('a record has at most ${RECORD_BYTES_MAX}', 1, true), message)
      assert(not rec.exists)`)
    assert.deepEqual(failureOf('test.apply(test.record(), "counters", "add", "n", "x")').line, 2)
    assert.match(failureOf('test.fails(test.record(), "counters", "drop")').message, /counters\.drop was to fail and did not/)
  })

  it('each_test_has_modules_of_its_own', () => {
    const both = file(`
      function test_one() test.apply(test.record(), 'counters', 'add', 'n', 1) test.equal(test.apply(test.record(), 'counters', 'seen_so_far'), 1) end
      function test_two() test.equal(test.apply(test.record(), 'counters', 'seen_so_far'), 0) end
      function helper() end`)
    assert.deepEqual(testsOf(both), ['test_one', 'test_two'])
    for (const name of testsOf(both)) assert.equal(runTest(both, name).failure, null)
  })

  it('modules_require_others_and_a_test_does_too', () => {
    const modules = { 'lib.lua': 'local M = {} function M.twice(x) return 2 * x end return M', 'user.lua': "local lib = require('lib') function f(rec) return lib.twice(rec.n) end" }
    passes("test.equal(require('lib').twice(4), 8) test.equal(test.apply(test.record{bins = {n = 3}}, 'user', 'f'), 6)", modules)
  })

  it('a_stream_function_gives_what_a_client_would_get', () => {
    passes(`
      local records = {}
      for i = 1, 10 do records[i] = test.record{key = i, bins = {n = i}} end
      records[11] = test.record{key = 11, bins = {other = 1}}
      records[12] = test.record{key = 12}
      test.equal(test.aggregate(records, 'counters', 'total'), {55})
      test.equal(test.aggregate({}, 'counters', 'total'), {})`)
    assert.match(failureOf('test.aggregate({1}, "counters", "total")').message, /element 1: sample record expected, got number/)
  })

  it('a_failure_names_its_place_and_what_differs', () => {
    assert.deepEqual(failureOf('local x = 1\nassert(x == 2)'), { file: 'counters.test.lua', line: 3, message: 'assertion failed!' })
    assert.deepEqual(failureOf('assert(nil, "no luck")'), { file: 'counters.test.lua', line: 2, message: 'no luck' })
    const differing = (actual: string, expected: string): string[] => failureOf(`test.equal(${actual}, ${expected})`).message.split('\n')
    assert.deepEqual(differing('5', '6'), ['expected 6, got 5'])
    assert.deepEqual(differing('1', '1.0'), ['expected the double 1.0, got the integer 1'])
    assert.deepEqual(differing('nil', '"a"'), ['expected "a", got nil'])
    assert.deepEqual(differing('list{1, map{a = 1, b = 2}, 3}', '{1, {a = 1, b = 3, c = 4}}'),
      ['at [2].b: expected 3, got 2', 'at [2].c: expected 4, got nothing', 'at [3]: expected nothing, got 3'])
    assert.deepEqual(differing('map{["a b"] = list{1}}', '{["a b"] = {}}'), ['at ["a b"]: expected {}, got [1]'])
    assert.deepEqual(differing('list{1}', 'map{a = 1}'), ['expected the map {"a":1}, got the list [1]'])
    assert.equal(differing(`list{${'1,'.repeat(30)}}`, `list{${'2,'.repeat(30)}}`).at(-1), '... and 18 more')
    assert.match(failureOf('test.equal(1, 2, "the sum")').message, /^the sum: expected 2, got 1$/)
    passes('test.equal(list(), {}) test.equal(map(), {}) test.equal(0/0, 0/0) test.equal(bytes{1}, bytes{1}) test.equal({a = {1}}, map{a = list{1}})')
  })

  it('wrong_use_of_the_library_says_what_is_expected', () => {
    const message = (body: string): string => failureOf(body).message
    assert.match(message('test.record{bin = {}}'), /a record has key, set, ttl, generation, bins; 'bin' is none of them/)
    assert.match(message('test.record{bins = {l = {1}}}'), /'l': a Lua table cannot be stored; use list or map/)
    assert.match(message('test.record{bins = {[("n"):rep(16)] = 1}}'), /a name has 1 to 15 bytes/)
    assert.match(message('test.record{key = list()}'), /key: an integer, number, string or bytes expected, got list/)
    assert.match(message('test.record{generation = 0}'), /generation: an integer from 1 to 65535 expected/)
    assert.match(message('test.apply({}, "counters", "add")'), /sample record \(from test\.record\) expected, got table/)
    assert.match(message('test.apply(test.record(), "counters", "echo", {1})'), /use list or map/)
    assert.match(message('local r = test.record() r.n = 1'), /changed by functions only/)
    assert.match(message('return test.record().n'), /its bins are in the map bins/)
  })

  it('a_file_that_does_not_load_says_where', () => {
    assert.throws(() => testsOf(file('function test_it(')), { line: 1 })
    assert.equal(run("test.equal(test.fails(test.record(), 'broken', 'f'), 'module broken failed to load: broken.lua:2: oh')", { 'broken.lua': '\nerror("oh")' }).failure, null)
  })

  it('what_functions_log_is_kept_with_the_test', () => {
    const { logged } = run('test.fails(test.record(), "counters", "log") print("from the test")')
    assert.deepEqual(logged.map(({ module, message }) => [module, message]), [['counters.lua', 'hello 7'], ['counters.test.lua', 'from the test']])
  })
})
