import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { evaluate, ModuleUnderTest } from './testing.js'
import { control } from './limits.js'
import { functionValue, rawSet } from './lua.js'
import { ModuleError } from './lua-module.js'
import { LuaVm } from './vm.js'

const source = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))

describe('Lua virtual machine', () => {
  it('errors_carry_file_and_line', () => {
    const module = new ModuleUnderTest(`
      function index(rec) local t
        return t.x end
      function call() return missing() end
      function custom() error('no') end
      function bare() error('no', 0) end
      function object() error({}) end
      function number() error(42) end
      function argument() return ('x'):rep({}) end
      function nested() local ok, message = pcall(function() error('inner') end) return message end`)
    assert.equal(module.failure('index'), "m.lua:3: attempt to index a nil value (local 't')")
    assert.equal(module.failure('call'), "m.lua:4: attempt to call a nil value (global 'missing')")
    assert.equal(module.failure('custom'), 'm.lua:5: no')
    assert.equal(module.failure('bare'), 'no')
    assert.equal(module.failure('object'), '(error object is a table value)')
    assert.equal(module.failure('number'), '42')
    assert.match(module.failure('argument'), /^m\.lua:9: bad argument #1 to 'rep'/)
    assert.equal(module.value('nested'), 'm.lua:10: inner')
  })

  it('a_compile_error_has_its_line_and_message', () => {
    const vm = new LuaVm()
    assert.throws(() => vm.load('bad.lua', source('local x = 1\nlocal y = = 2\n')), (error: unknown) =>
      error instanceof ModuleError && error.line === 2 && /unexpected symbol/.test(error.message))
    assert.throws(() => vm.load('late.lua', source('\n\nerror("at load")')), (error: unknown) =>
      error instanceof ModuleError && error.line === 3 && error.message === 'at load')
    assert.throws(() => vm.compile('binary.lua', source('\x1bLua')), ModuleError)
    assert.throws(() => vm.compile('deep.lua', source('return ' + '('.repeat(5000))), ModuleError)
  })

  it('globals_of_one_call_are_not_seen_by_another', () => {
    const module = new ModuleUnderTest(`
      constant = 5
      local counter = 0
      local calls = {}
      function set() x = 1; _G.y = 2; rawset(_G, 'z', 3); constant = 6; _ENV.w = 4; return x + _G.y + z + constant + w end
      function get() return list{x or 'none', y or 'none', z or 'none', w or 'none', constant, _G.constant} end
      function redefine() get = nil; function get() return 'mine' end; return get() end
      function replace() _ENV = {} ; return 1 end
      function indirect() local f = load('leak = 1; return leak') ; return f() + (leak or 0) end
      function count() counter = counter + 1 return counter end`)
    assert.equal(module.value('set'), 16)
    assert.deepEqual(module.value('get'), ['none', 'none', 'none', 'none', 5, 5])
    assert.equal(module.value('redefine'), 'mine')
    assert.deepEqual(module.value('get'), ['none', 'none', 'none', 'none', 5, 5])
    assert.equal(module.value('replace'), 1)
    assert.equal(module.value('indirect'), 2)
    assert.deepEqual(module.value('get'), ['none', 'none', 'none', 'none', 5, 5])
    // Locals of the module are its own state, as documented.
    assert.equal(module.value('count'), 1)
    assert.equal(module.value('count'), 2)
  })

  it('what_all_calls_share_cannot_be_changed', () => {
    for (const attempt of [
      "string.format = nil", 'math.floor = print', "rawset(string, 'x', 1)", "table.insert(math, 1)", 'aerospike.update = nil', 'list.append = nil', 'record.ttl = nil',
      "setmetatable(string, {})", "table.sort(setmetatable({}, {}), nil) string.x = 1", "for k in pairs(os) do os[k] = nil end"
    ]) assert.match(new ModuleUnderTest(`function f() ${attempt} end`).failure('f'), /read-only table/, attempt)
    assert.equal(evaluate("getmetatable('') == false and getmetatable(_G) == false and getmetatable(list) == false and getmetatable(list()) == false and getmetatable(rec) == false"), true)
    assert.match(new ModuleUnderTest('function f() setmetatable(_G, {}) end').failure('f'), /protected metatable/)
  })

  it('the_sandbox_has_no_way_out', () => {
    const absent = ['io', 'package', 'dofile', 'loadfile', 'module', 'js', 'fengari', 'string.dump', 'os.execute', 'os.exit', 'os.getenv', 'os.remove',
      'os.rename', 'os.tmpname', 'os.setlocale']
    for (const name of absent) assert.equal(evaluate(`${name} == nil`), true, name)
    assert.deepEqual((evaluate('local l = list() for k in pairs(os) do list.append(l, k) end return l') as string[]).sort(), ['clock', 'date', 'difftime', 'time'])
    assert.equal(evaluate("return type(debug) == 'function' and pcall(function() return debug.getinfo end)"), false)
    assert.equal(evaluate("return load('\\27Lua') == nil and load('return 1', 'x', 'b') ~= nil"), true)
    assert.equal(evaluate("local f, message = load('return 1 +') return message"), '(load):1: unexpected symbol near <eof>')
    assert.equal(evaluate("return load('return a + 1', 'chunk', 't', {a = 41})()"), 42)
    assert.equal(evaluate("return load(coroutine.wrap(function() coroutine.yield('return ') coroutine.yield('7') end))()"), 7)
    // With a reader function the joined text once took the place of the environment.
    assert.equal(evaluate("local done local function read() if not done then done = true return 'return 1, type(_ENV), tostring(1)' end end local f = load(read, 'chunk', 't') local one, kind = f() return one == 1 and kind == 'table'"), true)
    assert.equal(evaluate("local done return load(function() if not done then done = true return 'return a + 1' end end, 'chunk', 't', {a = 41})()"), 42)
  })

  it('a_date_in_utc_is_the_same_in_every_time_zone', () => {
    const zone = process.env['TZ']
    try {
      // In New York clocks were set back on 2024-11-03 at 6:00 UTC.
      for (const TZ of ['America/New_York', 'Asia/Kolkata', 'UTC']) {
        process.env['TZ'] = TZ
        assert.equal(evaluate("os.date('!%Y-%m-%d %H:%M:%S', 0)"), '1970-01-01 00:00:00', TZ)
        for (const hour of [4, 5, 6, 7]) assert.equal(evaluate(`os.date('!%d %H:%M', ${Date.UTC(2024, 10, 3, hour, 30) / 1000})`), `03 0${hour}:30`, TZ)
        assert.equal(evaluate("os.date('!*t', 3600).hour"), 1, TZ)
      }
      process.env['TZ'] = 'Asia/Kolkata'
      assert.equal(evaluate("os.date('%H:%M', 0)"), '05:30')
    } finally {
      if (zone === undefined) delete process.env['TZ']
      else process.env['TZ'] = zone
    }
    assert.match(new ModuleUnderTest("function f() return os.date('!%Y', math.maxinteger) end").failure('f'), /time out of range/)
  })

  it('runaway_code_stops_at_the_time_limit_whatever_it_hides_behind', () => {
    const module = new ModuleUnderTest(`
      function plain() while true do end end
      function numeric() for i = 1, math.huge do end end
      function recursive() return recursive() end
      function protected() while true do pcall(plain) end end
      function handled() while true do xpcall(plain, function() while true do end end) end end
      function coroutines() while true do local co = coroutine.create(plain) coroutine.resume(co) end end
      function wrapped() local f = coroutine.wrap(function() pcall(plain) while true do coroutine.yield() end end) while true do f() end end
      function iterator() for _ in function() return 1 end do end end
      function metamethod() local t = setmetatable({}, {__index = function(t, k) return t[k + 1] end}) while true do pcall(function() return t[1] end) end end
      function sorted() local t = {} for i = 1, 100 do t[i] = i end table.sort(t, function(a, b) while true do pcall(plain) end end) end
      function replaced() return ('x'):gsub('x', function() while true do pcall(plain) end end) end
      function jump() ::again:: goto again end
      function fine() return 1 end`)
    for (const name of ['plain', 'numeric', 'recursive', 'protected', 'handled', 'coroutines', 'wrapped', 'iterator', 'metamethod', 'sorted', 'replaced', 'jump']) {
      const started = performance.now()
      assert.match(module.failure(name, [], { timeLimitMs: 20 }), /^(m\.lua:\d+: )*time limit of 20 ms exceeded$/, name)
      assert.ok(performance.now() - started < 1000, name)
      assert.equal(module.value('fine'), 1)
    }
  })

  it('what_one_instruction_can_do_at_length_is_counted', () => {
    // Steps that each of these takes: far more than there are between two looks at the clock and the heap.
    const long: Record<string, string> = {
      varargs: 'local function g(...) mark() local t = {...} return #t end; g(table.unpack(many, 1, 20000))',
      byte: 'mark() local t = {text:byte(1, 50000)}',
      next: 'mark() next(emptied)',
      dead: 'mark() next(chain, "k1")',
      tonumber: 'mark() tonumber(digits, 10)',
      coercion: 'mark() local x = digits + 1',
      pack: 'mark() string.pack(text)',
      quoted: "mark() string.format('%q', text)",
      list: 'mark() list(many)',
      map: 'mark() map(many)',
      bytes: 'mark() bytes(many)',
      position: 'local l = list() mark() l[100000] = 1',
      merge: 'local m = map(many) mark() map.merge(map(), m)',
      diff: 'local m = map(many) mark() map.diff(map(), m)',
      copy: 'local b, c = bytes(), bytes() bytes.set_string(b, 1, text) mark() bytes.set_bytes(c, 1, b)'
    }
    let steps = 0
    const module = new ModuleUnderTest(`
      local text, digits, many, emptied, chain = ('x'):rep(500000), ('1'):rep(100000), {}, {}, {}
      for i = 1, 100000 do many[i], emptied[i] = i, i end
      for i = 1, 50000 do chain['k' .. i] = i end
      for i = 1, 100000 do emptied[i] = nil end
      for i = 1, 50000 do chain['k' .. i] = nil end
      ${Object.entries(long).map(([name, code]) => `function long_${name}() ${code} spent() return 1 end`).join('\n')}
      function described() return list.tostring(list{text, text, text, text}) end`, {
      extend: environment => {
        rawSet(environment, 'mark', functionValue(() => { control.steps = 1e9; return 0 }))
        rawSet(environment, 'spent', functionValue(() => { steps = 1e9 - control.steps; return 0 }))
      }
    })
    for (const name of Object.keys(long)) {
      steps = 0
      assert.equal(module.value(`long_${name}`), 1)
      assert.ok(steps > 1000, `${name}: ${steps} steps`)
    }
    const before = control.bytes
    assert.equal((module.value('described') as string).length, 4 * 500_002 + 8)
    assert.ok(before - control.bytes >= 4_000_000, 'the text and its parts are charged')
    assert.match(new ModuleUnderTest("function f() return os.date(('%c'):rep(1000)) end").failure('f'), /format longer than 1024 characters/)
    assert.match(new ModuleUnderTest('function f() local t = {} for i = 1, 1000001 do t[i] = i end return list(t) end').failure('f'), /cannot hold more than 1000000 elements/)
  })

  it('no_integer_of_a_published_function_is_not_a_number', () => {
    for (const code of ['return os.time{year = 1000000000, month = 1, day = 1}', "return os.date('*t', math.maxinteger).year", "return os.date('!*t', 1 << 52).year"]) {
      assert.match(new ModuleUnderTest(`function f() ${code} end`).failure('f'), /number has no integer representation|time out of range/, code)
    }
  })

  it('endless_recursion_and_oversized_strings_are_lua_errors', () => {
    const module = new ModuleUnderTest(`
      function deep(rec) local function f(n) return 1 + f(n + 1) end return f(1) end
      function native() local function f() return (('x'):gsub('x', f)) end return f() end
      function meta() local t = setmetatable({}, {}) getmetatable(t).__index = function(_, k) return t[k .. 'x'] end return t.a end
      function caught() return pcall(deep) == false end
      function rep() return ('x'):rep(1e9) end
      function double() local s = 'x' while true do s = s .. s end end
      function grow() local s = ('x'):rep(1000) return s:gsub('x', ('y'):rep(1e6)) end
      function join() local t = {} for i = 1, 100 do t[i] = ('x'):rep(1e6) end return table.concat(t) end
      function format() return ('%s'):rep(20):format(table.unpack({}, 1, 20)) end
      function wide() return ('%500d'):format(1) end
      function spread() return table.unpack({}, 1, 1e7) end
      function fine() return 1 end`)
    assert.match(module.failure('deep'), /^m\.lua:2: stack overflow/)
    assert.match(module.failure('native'), /stack overflow/)
    assert.match(module.failure('meta'), /stack overflow/)
    assert.equal(module.value('caught'), true)
    for (const name of ['rep', 'double', 'grow', 'join']) assert.match(module.failure(name), /string longer than 8388608 bytes/, name)
    assert.match(module.failure('wide'), /invalid conversion/)
    assert.match(module.failure('spread'), /too many results/)
    assert.equal(module.value('fine'), 1)
  })

  it('strings_with_control_bytes_are_distinct_keys_and_sort_by_bytes', () => {
    // The published hash of a string made "\1\18" and "\17\2" one key, and sorted "\n" after " ".
    assert.equal(evaluate('local t = {} t["\\1\\18"] = 1 t["\\17\\2"] = 2 return t["\\1\\18"] == 1 and "a\\n" < "a " and "\\255" > "z" and "" < "\\0"'), true)
  })

  it('coroutines_yield_across_pcall_metamethods_and_iterators', () => {
    const code = `
      local out = list()
      local t = setmetatable({}, {__add = coroutine.yield, __lt = function() return coroutine.yield('lt') end, __concat = function() return coroutine.yield('cc') end,
        __index = function(_, k) return coroutine.yield(k) end})
      local co = coroutine.wrap(function()
        list.append(out, (t + 1) + 1)
        list.append(out, t < t)
        list.append(out, 'a' .. 'b' .. t)
        list.append(out, t.key)
        list.append(out, select(2, pcall(function() return coroutine.yield('p') end)))
        list.append(out, select(2, pcall(function() coroutine.yield('e') error('after', 0) end)))
        for v in coroutine.yield do list.append(out, v) end
        return 'end'
      end)
      co() co(41) co(1) co('x') co('y') co('z') co() co('it')
      local last = co(nil)
      list.append(out, last)
      return out`
    assert.deepEqual(evaluate(code), [42, true, 'ax', 'y', 'z', 'after', 'it', 'end'])
  })

  it('log_functions_carry_level_module_and_line', () => {
    const module = new ModuleUnderTest(`function f(rec)
      warn('%s %d', 'w', 1)
      info('i')
      debug('%5.2f', 3.14159)
      trace('100%%')
      print('a', nil, 1.5)
      aerospike:log(1, '100% direct')
    end`)
    module.value('f')
    assert.deepEqual(module.logged, [
      { level: 1, module: 'm.lua', line: 2, message: 'w 1' }, { level: 2, module: 'm.lua', line: 3, message: 'i' },
      { level: 3, module: 'm.lua', line: 4, message: ' 3.14' }, { level: 4, module: 'm.lua', line: 5, message: '100%' },
      { level: 2, module: 'm.lua', line: 6, message: 'a\tnil\t1.5' }, { level: 1, module: 'm.lua', line: 7, message: '100% direct' }])
    const quiet = new ModuleUnderTest('function f() info("%s %s", "too few") end', { logLevel: 1 })
    quiet.value('f')
    assert.deepEqual(quiet.logged, [])
    const long = new ModuleUnderTest('function f() info(("x"):rep(1 << 20)) end')
    long.call('f')
    assert.equal(long.logged[0]?.message, 'x'.repeat(4096) + '...')
  })

  it('only_functions_of_the_module_can_be_called', () => {
    const module = new ModuleUnderTest('x = 1 function f() return 1 end')
    for (const name of ['print', 'x', 'missing', '', '_G', '__index', 'constructor']) {
      const outcome = module.call(name)
      assert.equal(outcome.code, 100)
      assert.equal(outcome.message, `function not found: m.${name}`)
    }
    assert.equal(module.failure('f', [], { module: 'other' }), 'module not found: other')
  })

  it('modules_with_one_function_name_do_not_mix', () => {
    const vm = new LuaVm()
    const one = vm.load('one.lua', source('v = 1 function f() return v end'))
    const two = vm.load('two.lua', source('v = 2 function f() return v end'))
    for (const [module, expected] of [[one, 1], [two, 2], [one, 1]] as const) {
      const outcome = vm.call(module, module.function('f')!, null, [], 100)
      assert.equal(outcome.ok && outcome.value.value, expected)
    }
  })

  it('strings_and_bytes_beyond_the_memory_limit_abort_a_call_and_no_pcall_holds_it', () => {
    const module = new ModuleUnderTest(`
      function strings() local t = {} for i = 1, 1000 do t[i] = ('x'):rep(1 << 20) .. i end end
      function buffers() local t = {} while true do pcall(function() for i = 1, 1e6 do t[#t + 1] = bytes(1 << 20) end end) end end
      function grown() local t = {} for i = 1, 1000 do local b = bytes() b[1 << 20] = 1 t[i] = b end end
      function library() local s = ('x'):rep(1 << 20) for i = 1, 1000 do s = s:upper() end end
      function straight() local s = ('x'):rep(1 << 22) ${'s = (s .. s):sub(1, 1 << 22) '.repeat(64)} end
      function fits() local s = '' for i = 1, 100 do s = ('x'):rep(1 << 20) end return #s end`)
    for (const name of ['strings', 'buffers', 'grown', 'library', 'straight']) {
      assert.match(module.failure(name, [], { timeLimitMs: 60_000 }), /memory limit of 256 MiB of strings and bytes exceeded/, name)
      assert.equal(module.value('fits'), 1 << 20)
    }
  })

  it('copies_that_the_api_makes_count_as_memory_of_the_call', () => {
    const module = new ModuleUnderTest(`
      function locations() local text, all = ('x'):rep(8388608), {} for i = 1, 40 do all[i] = geojson(text) end end
      function bins(rec) local b = bytes() bytes.set_string(b, 1, ('x'):rep(4194304)) for i = 1, 80 do rec['b' .. i] = b end aerospike:create(rec) end`)
    for (const name of ['locations', 'bins']) assert.match(module.failure(name, [], { timeLimitMs: 60_000 }), /memory limit of 256 MiB of strings and bytes exceeded/, name)
  })

  it('concatenations_without_a_loop_look_at_the_clock', () => {
    const module = new ModuleUnderTest(`function f() local s = ('x'):rep(1 << 22) local t ${'t = s .. "a" '.repeat(40)} return 1 end`)
    assert.match(module.failure('f', [], { timeLimitMs: 1 }), /time limit of 1 ms exceeded/)
    assert.equal(module.value('f'), 1)
  })
})
