// Functions that try to take more than their share: of time, memory, the stack, the log, or of what other calls see.
//
// Each is the body of a function of `rec`, after `rec.a` was overwritten and the record updated: it must fail, and leave the record as it was.

export interface Attack {
  readonly name: string
  readonly body: string
  /** The message that it ends with. */
  readonly message: RegExp
  /** Helpers beside the function. */
  readonly before?: string
}

/** On a machine that is busy enough a worker can be found to be stuck before it looks at the clock itself. */
export const TIME = /time limit of \d+ ms exceeded|exceeded its limits and its worker was stopped/
/** What comes first depends on the machine. */
const TIME_OR_MEMORY = /(time limit of \d+ ms|memory limit of \d+ MiB( of strings and bytes)?) exceeded|exceeded its limits and its worker was stopped/
const STACK = /stack overflow/

export const ATTACKS: readonly Attack[] = [
  // Time.
  { name: 'endless_loop', body: 'while true do end', message: TIME },
  { name: 'endless_goto', body: '::again:: goto again', message: TIME },
  { name: 'endless_for', body: 'for i = 1, math.huge do end', message: TIME },
  { name: 'loop_in_pcall', body: 'while true do pcall(function() while true do end end) end', message: TIME },
  { name: 'loop_in_handler', body: 'while true do xpcall(error, function() while true do end end) end', message: TIME },
  { name: 'loop_in_coroutines', body: 'while true do coroutine.wrap(function() pcall(function() while true do coroutine.yield() end end) end)() end', message: TIME },
  { name: 'loop_in_iterator', body: 'for x in function() return 1 end do end', message: TIME },
  { name: 'loop_in_metamethod', body: 'local t = setmetatable({}, {__lt = function() return true end}) while t < t do end', message: TIME },
  { name: 'tail_calls', before: 'local function forever() return forever2() end function forever2() return forever() end', body: 'return forever()', message: /limit|nil value/ },
  { name: 'tail_calls_of_itself', body: 'local function f() return f() end return f()', message: TIME },
  { name: 'endless_sort', body: 'local t = {} for i = 1, 1000 do t[i] = i end while true do table.sort(t, function() return math.random() < 0.5 end) end', message: TIME },
  { name: 'catastrophic_pattern', body: "return ('a'):rep(5000):find('.-.-.-.-b')", message: TIME },
  { name: 'catastrophic_gsub', body: "return ('a'):rep(5000):gsub('(a*)(a*)(a*)b', '%1')", message: TIME },
  { name: 'table_walks', body: 'local t = {} for i = 1, 50000 do t[i] = i end while true do table.insert(t, 1, 0) table.remove(t, 1) end', message: TIME },
  { name: 'list_walks', body: 'local l = list() for i = 1, 50000 do list.append(l, i) end while true do list.insert(l, 1, 0) list.remove(l, 1) end', message: TIME },
  { name: 'log_flood', body: "while true do info('flood %s', ('x'):rep(100)) end", message: TIME },
  { name: 'text_of_a_knot', body: 'local l = list() for i = 1, 200 do local m = list() list.append(m, l) list.append(m, l) l = m end while true do tostring(l) end', message: TIME },
  // The stack.
  { name: 'recursion', body: 'local function f() return 1 + f() end return f()', message: STACK },
  { name: 'recursion_through_pcall', body: 'local function f() pcall(f) return 1 end while true do f() end', message: /stack overflow|time limit/ },
  { name: 'recursion_through_metamethods', body: 'local t = {} setmetatable(t, {__index = function(t, k) return t[k .. k] end}) return t.x', message: /stack overflow|longer than/ },
  { name: 'recursion_through_gsub', body: "local function f() return (('x'):gsub('x', f)) end return f()", message: STACK },
  { name: 'recursion_through_sort', body: 'local function f() table.sort({2, 1}, function(a, b) f() return a < b end) end f()', message: STACK },
  { name: 'recursion_through_coroutines', body: 'local function f() coroutine.wrap(f)() end f()', message: /./ },
  { name: 'recursion_through_tostring', body: 'local t = setmetatable({}, {__tostring = function(t) return tostring(t) end}) return tostring(t)', message: STACK },
  { name: 'recursion_through_load', body: "local function f() return load(f) end f()", message: /stack overflow|string/ },
  // Memory.
  { name: 'table_bomb', body: 'local t = {} while true do t[#t + 1] = {{}, {}, {}} end', message: TIME_OR_MEMORY },
  { name: 'table_bomb_in_pcall', body: 'local t = {} while true do pcall(function() while true do t[#t + 1] = {{}, {}, {}} end end) end', message: TIME_OR_MEMORY },
  { name: 'closure_bomb', body: 'local t = {} while true do local x = #t t[x + 1] = function() return x end end', message: TIME_OR_MEMORY },
  { name: 'coroutine_bomb', body: 'local t = {} while true do local c = coroutine.wrap(function() coroutine.yield() end) c() t[#t + 1] = c end', message: TIME_OR_MEMORY },
  { name: 'deep_coroutine_bomb', body: 'local t = {} local function d(n) if n == 0 then coroutine.yield() else d(n - 1) d(0) end end while true do local c = coroutine.wrap(function() d(5000) end) c() t[#t + 1] = c end', message: TIME_OR_MEMORY },
  { name: 'string_doubling', body: "local s = 'x' while true do s = s .. s end", message: /string longer than/ },
  { name: 'string_bomb', body: "local t = {} while true do t[#t + 1] = ('x'):rep(1 << 20) .. #t end", message: TIME_OR_MEMORY },
  { name: 'string_rep', body: "return ('x'):rep(1 << 40)", message: /string longer than/ },
  { name: 'concat_bomb', body: "local t = {} for i = 1, 100 do t[i] = ('x'):rep(1 << 17) end return table.concat(t)", message: /string longer than/ },
  { name: 'list_bomb', body: 'local l = list() while true do local m = list() for i = 1, 100000 do list.append(m, i) end list.append(l, m) end', message: TIME_OR_MEMORY },
  { name: 'map_bomb', body: 'local l = list() while true do local m = map() for i = 1, 100000 do m[i] = i end list.append(l, m) end', message: TIME_OR_MEMORY },
  { name: 'list_position', body: 'local l = list() l[1 << 40] = 1', message: /position/ },
  { name: 'bytes_size', body: 'local b = bytes() bytes.set_size(b, 1 << 40)', message: /out of range/ },
  { name: 'bytes_bomb', body: 'local l = list() while true do list.append(l, bytes(1 << 20)) end', message: TIME_OR_MEMORY },
  { name: 'unpack_bomb', body: 'return table.unpack({}, 1, 1e8)', message: /too many results/ },
  // One library call that looks at nothing: it costs its worker the thread.
  { name: 'format_flood', body: "return #string.format(('%%'):rep(4 << 20))", message: /./ },
  { name: 'format_width', body: "return string.format('%99999d', 1)", message: /invalid conversion/ },
  { name: 'deep_value', body: 'local l = list() for i = 1, 1000 do local m = list() list.append(m, l) l = m end rec.b = l aerospike:update(rec)', message: /nested deeper than 256/ },
  { name: 'wide_value', body: "local l = list() for i = 1, 60 do local m = list() list.append(m, l) list.append(m, l) list.append(m, 'leaf') l = m end rec.b = l aerospike:update(rec)", message: /limit|more than|bytes/ },
  { name: 'wide_return', body: "local l = list() for i = 1, 60 do local m = list() list.append(m, l) list.append(m, l) list.append(m, 'leaf') l = m end return l", message: /limit|more than/ },
  { name: 'large_return', body: "local s, l = ('x'):rep(1 << 20), list() for i = 1, 100 do list.append(l, s) end return l", message: /more than \d+ bytes/ },
  { name: 'large_bin', body: "rec.b = ('x'):rep(8 << 20) aerospike:update(rec)", message: /./ },
  // Code from text.
  { name: 'load_nesting', body: "return assert(load('return ' .. ('('):rep(30000)))", message: /./ },
  { name: 'load_jumps', body: "while true do load(('goto a; '):rep(4000) .. '::a::') end", message: TIME },
  { name: 'load_reader', body: "return load(function() return 'x' end)", message: /limit|longer than/ },
  { name: 'load_bytecode', body: "return assert(load('\\27Lua'))", message: /binary chunk|text/ },
  // What is not there.
  { name: 'os_execute', body: "os.execute('true')", message: /nil value \(field 'execute'\)/ },
  { name: 'io_library', body: "io.open('/etc/passwd')", message: /attempt to index a nil value \(global 'io'\)/ },
  { name: 'debug_library', body: 'debug.getregistry()', message: /index a function value|nil value/ },
  { name: 'require_library', body: "require 'io'", message: /'io' is not registered/ },
  { name: 'string_metatable', body: "getmetatable('').__index = function() return error end", message: /index a boolean value/ },
  { name: 'environment_metatable', body: 'setmetatable(_G, {__index = function() return 1 end})', message: /protected metatable/ },
  { name: 'library_functions', body: 'aerospike.update = nil', message: /read-only table/ },
  { name: 'globals', body: "_G.aerospike, string, list, rec.x = nil, nil, nil, nil; _ENV = {} error('tampered')", message: /./ },
  // Errors.
  { name: 'error_object', body: 'error(setmetatable({}, {__tostring = function() while true do end end}))', message: /error object is a table/ },
  { name: 'error_in_resume', body: 'while true do coroutine.resume(coroutine.create(function() error({}) end)) end', message: TIME },
  { name: 'resume_of_the_dead', body: 'local c = coroutine.create(function() end) while true do coroutine.resume(c) end', message: TIME },
  { name: 'yield_from_the_call', body: 'coroutine.yield()', message: /outside a coroutine/ },
  { name: 'yield_across_a_library_call', body: "coroutine.wrap(function() table.sort({2, 1}, coroutine.yield) end)()", message: /attempt to yield across/ }
]

/** One module of all attacks. */
export function attackModule (): string {
  return ATTACKS.map(({ name, body, before }) => `
    ${before ?? ''}
    function ${name}(rec)
      rec.a = 'overwritten'
      rec.c = 1
      aerospike:update(rec)
      do ${body} end
    end`).join('\n')
}

/** What other clients do meanwhile: it uses what attacks tamper with. */
export const BYSTANDER_MODULE = `
  function touch(rec, n)
    if leaked ~= nil then error('a global of another call') end
    leaked = n
    local l = list()
    for i = 1, 10 do list.append(l, string.format('%d', i + n)) end
    rec.n = n
    if aerospike:exists(rec) then aerospike:update(rec) else aerospike:create(rec) end
    return #l + leaked
  end`
