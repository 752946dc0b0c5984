// What a script finds in its global environment before Perigee's own API: the harmless part of the standard libraries.
//
// Left out: io, debug, package, dofile, loadfile, string.dump, every os function but time, clock, date and difftime,
// and bytecode in `load`. All of it is frozen, since all calls of all modules share it.

import type { LuaFunction, LuaState, Table, TValue } from './fengari.js'
import { baseFunctions, stringFunctions } from './base-library.js'
import { hiddenMetatable } from './host-object.js'
import { control, spend } from './limits.js'
import { closeCoroutine, olderMath, olderTable } from './lua-compatibility.js'
import { patternFunctions } from './lua-pattern.js'
import {
  argument, argumentCount, badArgument, checkInteger, freeze, functionValue, INTEGER, lapi, lauxlib, libraries, llex, LUA_CLOSURE, MULTIPLE_RESULTS, namedValues,
  newTable, NIL, push, pushBoolean, pushInteger, pushNil, raise, rawGet, rawSet, STATUS_OK, STATUS_YIELD, STRING, stringValue, TABLE, tableValue, textOf, Value
} from './lua.js'
import { INTEGER_MAX, INTEGER_MIN } from './lua-integer.js'
import { mathReplacements, toNumberFunction } from './math-library.js'
import { stringReplacements } from './string-library.js'
import { tableFunctions } from './table-library.js'

const BASE_NAMES = ['assert', 'error', 'getmetatable', 'rawequal', 'rawget', 'rawlen', 'rawset']
const OS_NAMES = ['clock', 'date', 'difftime', 'time']

/** Opens one published library in a scratch state and returns its table. */
function opened (L: LuaState, open: LuaFunction): Table {
  lapi['lua_pushcfunction'](L, open)
  lapi['lua_call'](L, 0, 1)
  const table: Table = L.stack[L.top - 1]!.value
  lapi['lua_pop'](L, 1)
  return table
}

function entriesOf (table: Table, except: readonly string[]): Array<[string, TValue]> {
  return [...namedValues(table)].filter(([name]) => !except.includes(name))
}

function library (entries: Array<[string, TValue]>, replacements: Record<string, LuaFunction> = {}): Table {
  const table = newTable()
  for (const [name, value] of entries) rawSet(table, name, value)
  for (const [name, fn] of Object.entries(replacements)) rawSet(table, name, functionValue(fn))
  return table
}

/** A function that walks over the string that is its first argument. */
function counted (fn: LuaFunction): LuaFunction {
  return L => {
    const first = argument(L, 1)
    if (first.type === STRING) spend(first.value.realstring.length >> 4)
    return fn(L)
  }
}

/** Once a limit is exceeded no protected call may hold the error. */
function passOnAbort (L: LuaState): void {
  if (control.aborted) lapi['lua_error'](L)
}

function finishProtectedCall (L: LuaState, status: number, skipped: number): number {
  if (status === STATUS_OK || status === STATUS_YIELD) return argumentCount(L) - skipped
  passOnAbort(L)
  const message = L.stack[L.top - 1]!
  pushBoolean(L, false)
  L.stack[L.top++] = new Value(message.type, message.value)
  return 2
}

const protectedCall: LuaFunction = L => {
  lauxlib['luaL_checkany'](L, 1)
  pushBoolean(L, true)
  lapi['lua_insert'](L, 1)
  const status = lapi['lua_pcallk'](L, argumentCount(L) - 2, MULTIPLE_RESULTS, 0, 0, finishProtectedCall)
  return finishProtectedCall(L, status, 0)
}

const protectedCallWithHandler: LuaFunction = L => {
  const count = argumentCount(L)
  if ((argument(L, 2).type & 15) !== LUA_CLOSURE) badArgument(L, 2, 'function expected')
  pushBoolean(L, true)
  lapi['lua_pushvalue'](L, 1)
  lapi['lua_rotate'](L, 3, 2) // function, handler, true, function, arguments
  const status = lapi['lua_pcallk'](L, count - 2, MULTIPLE_RESULTS, 2, 2, finishProtectedCall)
  return finishProtectedCall(L, status, 2)
}

const setMetatable: LuaFunction = L => {
  const table = argument(L, 1)
  const metatable = argument(L, 2)
  if (table.type !== TABLE) badArgument(L, 1, 'table expected')
  if (argumentCount(L) < 2 || (metatable.type !== NIL && metatable.type !== TABLE)) badArgument(L, 2, 'nil or table expected')
  const target: Table = table.value
  if (target.frozen) raise(L, 'attempt to modify a read-only table')
  if (target.metatable !== null && rawGet(target.metatable, '__metatable') !== undefined) raise(L, 'cannot change a protected metatable')
  target.metatable = metatable.type === NIL ? null : metatable.value
  lapi['lua_settop'](L, 1)
  return 1
}

/** Of source that a call compiles: the compiler takes quadratic time, and some of it within one token. */
const CHUNK_BYTES_MAX = 32 * 1024

let isCounting = false
const publishedNext = llex['luaX_next'] as (state: unknown) => void
llex['luaX_next'] = (state: unknown): void => {
  if (isCounting) spend(1)
  publishedNext(state)
}

/** Counts the tokens that are compiled as steps of the call: compiling takes quadratic time on long runs of jumps. */
function countTokens (compile: () => number): number {
  isCounting = true
  try {
    return compile()
  } finally {
    isCounting = false
  }
}

/** `load(text or function [, name [, mode [, environment]]])`, text only; `environment` is that of the module whose function this is. */
export function makeLoad (environment: TValue): LuaFunction {
  return L => {
    let chunk = argument(L, 1)
    // Before anything is pushed: what a reader function gives would count as a fourth argument.
    const given = argument(L, 2)
    const name = given.type === STRING ? given.value.realstring : new Uint8Array(Buffer.from('=(load)'))
    const from = argumentCount(L) >= 4 ? argument(L, 4) : environment
    const own = new Value(from.type, from.value)
    if ((chunk.type & 15) === LUA_CLOSURE) {
      const buffer = { L, b: new Uint8Array(0), n: 0 }
      for (;;) {
        lapi['lua_pushvalue'](L, 1)
        lapi['lua_call'](L, 0, 1)
        const part = L.stack[L.top - 1]!
        if (part.type === NIL || (part.type === STRING && part.value.realstring.length === 0)) break
        if (part.type !== STRING) raise(L, 'reader function must return a string')
        lauxlib['luaL_addvalue'](buffer)
      }
      lapi['lua_pop'](L, 1)
      lauxlib['luaL_pushresult'](buffer)
      chunk = L.stack[L.top - 1]!
    }
    if (chunk.type !== STRING) badArgument(L, 1, 'string expected')
    const bytes: Uint8Array = chunk.value.realstring
    if (bytes.length > CHUNK_BYTES_MAX) raise(L, `chunk longer than ${CHUNK_BYTES_MAX} bytes`)
    const status = countTokens(() => lauxlib['luaL_loadbufferx'](L, bytes, bytes.length, name, Buffer.from('t')))
    if (status !== STATUS_OK) {
      pushNil(L)
      lapi['lua_insert'](L, -2)
      return 2
    }
    const upvalue = L.stack[L.top - 1]!.value.upvals[0]
    if (upvalue !== undefined) upvalue.setfrom(own)
    return 1
  }
}

/** A day less than JavaScript's dates reach, either way from 1970. */
const DATE_SECONDS_MAX = 8.64e12 - 86_400

/** Each conversion takes microseconds, and no limit is looked at in between. */
const DATE_FORMAT_CHARS_MAX = 1024

/** Seconds whose local time shows what the UTC time of these shows. */
function asLocal (seconds: number): number {
  const shifted = (offsetAt: number): number => seconds + new Date(offsetAt * 1000).getTimezoneOffset() * 60
  // The offset is that of the time which is shown: near a change of the clocks it is another one.
  return shifted(shifted(seconds))
}

/** The published one takes the `!` of a format for text and gives local time; the fields of `!*t` it has right. */
function dateFunction (published: LuaFunction): LuaFunction {
  return L => {
    const format = argument(L, 1)
    const text = format.type === STRING ? textOf(format) : ''
    if (text.length > DATE_FORMAT_CHARS_MAX) badArgument(L, 1, `format longer than ${DATE_FORMAT_CHARS_MAX} characters`)
    spend(text.length)
    if (!text.startsWith('!') || text.startsWith('!*t')) return published(L)
    const seconds = argument(L, 2).type === NIL ? Math.floor(Date.now() / 1000) : Number(checkInteger(L, 2))
    if (Math.abs(seconds) > DATE_SECONDS_MAX) badArgument(L, 2, 'time out of range')
    lapi['lua_settop'](L, 0)
    push(L, stringValue(text.slice(1)))
    pushInteger(L, asLocal(seconds))
    return published(L)
  }
}

/** Builds the shared environment. What depends on the module that asks, `load` and `require`, each module has of its own. */
export function buildEnvironment (L: LuaState, print: LuaFunction): Table {
  const base = opened(L, libraries.base)
  const environment = newTable()
  for (const name of BASE_NAMES) rawSet(environment, name, rawGet(base, name)!)
  const own: Record<string, LuaFunction> = {
    pcall: protectedCall,
    xpcall: protectedCallWithHandler,
    ...baseFunctions,
    setmetatable: setMetatable,
    /** Its name in Lua 5.1. */
    unpack: tableFunctions['unpack']!,
    tonumber: toNumberFunction,
    print,
    /** Memory is the host's to manage; scripts that ask for it keep working. */
    collectgarbage: L => pushInteger(L, 0)
  }
  for (const [name, fn] of Object.entries(own)) rawSet(environment, name, functionValue(fn))
  rawSet(environment, '_VERSION', stringValue('Lua 5.3'))

  const coroutine = opened(L, libraries.coroutine)
  const resume: LuaFunction = rawGet(coroutine, 'resume')!.value
  const coroutines = library(entriesOf(coroutine, []), {
    close: closeCoroutine,
    resume: L => {
      const results = resume(L)
      passOnAbort(L)
      return results
    }
  })
  const strings = library(entriesOf(opened(L, libraries.string), ['dump']), { ...stringFunctions, ...stringReplacements, ...patternFunctions })
  const math = library(entriesOf(opened(L, libraries.math), ['sum', 'product']), { ...mathReplacements, ...olderMath })
  rawSet(math, 'maxinteger', new Value(INTEGER, INTEGER_MAX))
  rawSet(math, 'mininteger', new Value(INTEGER, INTEGER_MIN))
  const tables = library([], { ...tableFunctions, ...olderTable })
  const utf8Entries = opened(L, libraries.utf8)
  const utf8 = library(entriesOf(utf8Entries, []), Object.fromEntries(['len', 'codepoint', 'offset'].map(name => [name, counted(rawGet(utf8Entries, name)!.value)])))
  const system = newTable()
  const os = opened(L, libraries.os)
  for (const name of OS_NAMES) {
    const fn = rawGet(os, name)
    if (fn !== undefined) rawSet(system, name, name === 'date' ? functionValue(dateFunction(fn.value)) : fn)
  }
  for (const [name, table] of [['coroutine', coroutines], ['string', strings], ['math', math], ['table', tables], ['utf8', utf8], ['os', system]] as const) {
    rawSet(environment, name, tableValue(table))
  }

  // Strings find their methods in the frozen library.
  const stringMetatable = hiddenMetatable('string')
  stringMetatable.frozen = false
  rawSet(stringMetatable, '__index', tableValue(strings))
  freeze(stringMetatable)
  L.l_G.mt[4] = stringMetatable
  return environment
}

/** Freezes the environment and the library tables in it, and names their functions in error messages. */
export function freezeEnvironment (L: LuaState, environment: Table): void {
  const loaded = newTable()
  rawSet(loaded, '_G', tableValue(environment))
  rawSet(L.l_G.l_registry.value, '_LOADED', tableValue(loaded))
  for (const [name, value] of namedValues(environment)) {
    if (value.type === TABLE) {
      rawSet(loaded, name, value)
      freeze(value.value)
      const metatable: Table | null = value.value.metatable
      if (metatable !== null) freeze(metatable)
    }
  }
  freeze(environment)
}

