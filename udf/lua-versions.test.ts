// What scripts for other versions of Lua meet: each row of docs/guides/lua/lua-versions.md.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { packageRoot } from '../src/engine/addon.js'
import { ModuleError } from './lua-module.js'
import { Double, evaluate, ModuleUnderTest } from './testing.js'
import type { Plain } from './testing.js'

const PAGE = readFileSync(join(packageRoot, 'docs/guides/lua/lua-versions.md'), 'utf8')

/** The rows of the page by their first cell, which names what is written. */
const rows = new Set([...PAGE.matchAll(/^\| `([^|]+)` \|/gm)].map(match => match[1]!))

/** Each claims its row of the page, and what the code after it gives: a value, or (a RegExp) the message of the error. */
const CASES: ReadonlyArray<readonly [row: string, code: string, result: Plain | RegExp]> = [
  ['unpack', 'local a, b = unpack({1, 2}) return a + b', 3],
  ['unpack', 'return unpack == table.unpack', true],
  ['table.getn, table.maxn', 'return table.getn({1, 2, 3}) + table.maxn({[1] = 1, [7.5] = 2})', new Double(10.5)],
  ['math.pow', 'return math.pow(2, 10)', new Double(1024)],
  ['math.log10, math.cosh, math.sinh, math.tanh, math.ldexp, math.frexp', 'local m, e = math.frexp(10) return list{math.log10(1000), math.cosh(0), math.sinh(0), math.tanh(0), math.ldexp(0.5, 3), m, e}',
    [new Double(3), new Double(1), new Double(0), new Double(0), new Double(4), new Double(0.625), 4]],
  ['loadstring', "return loadstring('return 1 + 1')()", 2],
  ['setfenv, getfenv', 'return setfenv(1, {})', /attempt to call a nil value \(global 'setfenv'\): it was of Lua 5\.1; give 'load' an environment, or declare 'local _ENV'/],
  ['setfenv, getfenv', 'return getfenv(1)', /it was of Lua 5\.1; the environment is '_ENV'/],
  ['setfenv, getfenv', 'return setfenv == nil and getfenv == nil', true],
  ['module', "module('x', package.seeall)", /index a nil value \(global 'package'\): 'require' finds modules that were put on the node/],
  ['module', "module('x')", /attempt to call a nil value \(global 'module'\): it was of Lua 5\.1; define globals, or return a table, and use 'require'/],
  ['table.foreach, table.foreachi', 'table.foreach({}, print)', /\(field 'foreach'\): it was of Lua 5\.1; use 'for k, v in pairs\(t\)'/],
  ['string.gfind', "return string.gfind('a', 'a')", /use 'string\.gmatch'/],
  ['bit32, bit', 'return bit32.band(1, 1)', /\(global 'bit32'\): it was of Lua 5\.2; use the operators & \| ~ << >>/],
  ['1 / 2, 3 / 1', 'return list{1 / 2, 4 / 2}', [new Double(0.5), new Double(2)]],
  ['2^53 + 1', 'return list{2^53, (1 << 53) + 1, 9007199254740993}', [new Double(2 ** 53), 9007199254740993n, 9007199254740993n]],
  ['string.format("%d", 3.0)', "return string.format('%d', 3.0)", '3'],
  ['string.format("%d", 3.0)', "return string.format('%d', 3.5)", /number has no integer representation/],
  ['tostring(3.0)', "return tostring(3.0) .. ' ' .. tostring(3) .. ' ' .. 1e15 .. ' ' .. 2^53 .. ' ' .. 1e100 .. ' ' .. -0.0", '3.0 3 1e+15 9.007199254741e+15 1e+100 -0.0'],
  ['t[1.0]', "local t = {'a'} return t[1.0] .. tostring(rawequal(1, 1.0)) .. next({[2.0] = 1})", 'atrue2'],
  ['"10" + 1, "3" * "4"', "return list{'10' + 1, '3' * '4', '0x10' + 0, '1e1' + 0, 10 .. ''}", [11, 12, 16, new Double(10), '10']],
  ['"10" + 1, "3" * "4"', "return 'x' + 1", /attempt to perform arithmetic on a string value/],
  ['"3" & 1', "return list{'3' | 4, '7' & 2.0, 1 << '2'}", [7, 2, 4]],
  ['"3" & 1', "return '3.5' | 1", /number (has no integer representation|\(local .*)|string/],
  ['for over the end of the integers', 'local n = 0 for i = math.maxinteger - 1, math.maxinteger do n = n + 1 end for i = math.mininteger, math.mininteger + 2, 2 do n = n + 1 end return n', 4],
  ['for over the end of the integers', 'local n = 0 for i = 1, 3.9 do n = n + i end for i = 3, 1 do n = n + 100 end return n', 6],
  ['for over the end of the integers', 'for i = 1, 10, 0 do end', /'for' step is zero/],
  ['3 // 0, 3 % 0', 'return list{7 // 2, -7 // 2, 7 // 2.0, -7 % 3, 7 // 0.0}', [3, -4, new Double(3), 2, new Double(Infinity)]],
  ['3 // 0, 3 % 0', 'return 3 // 0', /attempt to perform 'n\/\/0'/],
  ['goto', 'for i = 1, 3 do if i == 2 then goto continue end ::continue:: end return 1', 1],
  ['local x <const> = 1', 'local x <const> = 1', /^3: unexpected symbol near '<': <const> is of Lua 5\.4, this is Lua 5\.3; leave it out$/],
  ['local x <close> = f()', 'local a, x <close> = f()', /^3: .*<close> is of Lua 5\.4, this is Lua 5\.3; close the value yourself$/],
  ['coroutine.close', "local c = coroutine.create(function() coroutine.yield() end) coroutine.resume(c) local closed = coroutine.close(c) return tostring(closed) .. coroutine.status(c) .. tostring(coroutine.resume(c))", 'truedeadfalse'],
  ['coroutine.close', "local c = coroutine.create(function() error('x', 0) end) coroutine.resume(c) local ok, message = coroutine.close(c) return tostring(ok) .. message", 'falsex'],
  ['coroutine.close', 'return coroutine.close(coroutine.running())', /cannot close a running coroutine/],
  ['warn', "warn('%d of %s', 1, 'x') return 1", 1],
  ['utf8.len(s, i, j, lax)', "return list{utf8.char(72, 228, 8364), utf8.len('hä€'), utf8.len('\\xff') == nil, utf8.codepoint('€')}", ['Hä€', 3, true, 8364]],
  ['string.pack', "return list{string.unpack('>i8', string.pack('>i8', -2)), string.packsize('i4i8')}", [-2, 12]],
  ['string.gmatch(s, p, init)', "local n = 0 for _ in ('aaa'):gmatch('a', 2) do n = n + 1 end return n", 2],
  ['math.tointeger("3")', "return list{math.tointeger(3.0), math.tointeger('3'), math.tointeger(3.5) == nil, math.tointeger({}) == nil}", [3, 3, true, true]],
  ['math.random(0), math.randomseed', 'math.randomseed(1) local a = math.random(0) math.randomseed(1) local r = math.random(5) return math.type(a) == "integer" and r >= 1 and r <= 5 and a ~= math.random(0)', true],
  ['__le by __lt', 'local t = setmetatable({}, {__lt = function() return false end}) return t <= t', true],
  ['__gc, __close', 'local n = 0 do local t = setmetatable({}, {__gc = function() n = 1 end, __close = function() n = 2 end}) end collectgarbage() return n', 0],
  ['__mode', "local t = setmetatable({}, {__mode = 'k'}) t[{}] = 1 collectgarbage() return next(t) ~= nil", true],
  ['__pairs, __index in ipairs', 'local n = 0 for i, v in ipairs(setmetatable({}, {__index = function(_, i) return i < 4 and i or nil end})) do n = n + v end for k, v in pairs(setmetatable({}, {__pairs = function() return next, {5}, nil end})) do n = n + v end return n', 11],
  ['collectgarbage', "return list{collectgarbage(), collectgarbage('count')}", [0, 0]],
  ['debug.traceback', 'return xpcall(error, debug.traceback)', /attempt to index a function value \(global 'debug'\): 'debug' writes to the log; there is no debug library/],
  ['io, dofile, loadfile', "io.open('x')", /\(global 'io'\): there are no files here/],
  ['io, dofile, loadfile', "dofile('x')", /\(global 'dofile'\): there are no files here; use 'require' for modules/],
  ['os.execute, os.getenv, os.exit', "os.getenv('HOME')", /\(field 'getenv'\): there is no system here/],
  ['package.loaded, package.path', 'return package.path', /\(global 'package'\): 'require' finds modules that were put on the node, nothing else/],
  ['string.dump, bytecode in load', 'return string.dump(print)', /\(field 'dump'\): there is no bytecode here/],
  ['string.dump, bytecode in load', "local f, message = load('\\27Lua') return message", "attempt to load a binary chunk (mode is 't')"],
  ['_VERSION', 'return _VERSION', 'Lua 5.3'],
  ['bytes.put_int32 and others', 'bytes.put_int32(bytes(8), 1, 5)', /\(field 'put_int32'\): use 'bytes\.set_int32', whose offsets count from 1/],
  ['aerospike:set_context, aerospike:get_config', 'aerospike:set_context(1)', /\(method 'set_context'\): a call has no context to set/]
]

describe('other versions of Lua', () => {
  for (const [i, [row, code, result]] of CASES.entries()) {
    it(`row_${i + 1}: ${row}`, () => {
      assert.ok(rows.has(row), `the page has no row for ${row}`)
      if (!(result instanceof RegExp)) {
        assert.deepEqual(evaluate(code), result)
        return
      }
      let message: string
      try {
        message = new ModuleUnderTest(`function f(rec)\nlocal function f() end\n${code}\nend`).failure('f')
      } catch (error) {
        assert.ok(error instanceof ModuleError, String(error))
        message = `${error.line}: ${error.message}`
      }
      assert.match(message, result)
    })
  }

  it('every_row_of_the_page_is_tested', () => {
    assert.deepEqual([...rows].filter(row => !CASES.some(([tested]) => tested === row)), [])
  })
})
