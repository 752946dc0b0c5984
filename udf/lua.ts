// fengari, loaded and adapted: the one door to it. What differs from the package as published, and why:
//
//   integers      64 bits instead of 32 (lua-integer.ts): a record's integers must survive a script exactly
//   interpreter   our own instruction loop (interpreter.ts) in place of luaV_execute, which truncates to 32 bits inline; it also
//                 counts steps, so that a deadline is noticed anywhere, coroutines included
//   string keys   the key of a string is its bytes as text. The published one prints bytes without padding, so that "\1\18" and
//                 "\17\2" are the same table key, and strings with control characters sort wrongly
//   tables        our own (lua-table.ts), with an array part. They can be frozen: libraries and loaded modules are shared by all calls
//                 and must not be changed by one
//   calls         frames and stack slots are used again (lua-frame.ts)
//   strings       our own (lua-string.ts), text or bytes as needed. They are bounded one by one (STRING_BYTES_MAX), and what they take is charged to the call that makes them (limits.ts):
//                 their bytes are outside the JavaScript heap, whose limit does not see them
//
// fengari's modules call each other through their exports objects, so replacing an export replaces the function, provided that
// this happens before another module copies it. Hence the order below.

import { createRequire } from 'node:module'
import type { LuaBuffer, LuaFunction, LuaState, Table, TString, TValue } from './fengari.js'
import { chargeBytes, chargeSteps, exceededLimit } from './limits.js'
import { floatText, parseFloatText } from './lua-format.js'
import * as integer from './lua-integer.js'
import type { LuaInteger } from './lua-integer.js'
import { hashString, latin1, luaString, LuaString, sameString, textString } from './lua-string.js'
import { getInteger, getText, installTables, namedValues, Table as LuaTable, tableEntries, tableSet } from './lua-table.js'

// Others get these here: evaluated first, lua-table.ts would find this module unfinished.
export { getInteger, hashString, luaString, LuaTable, namedValues, tableEntries, textString }
export { appendValue, setInteger, setPositions, tableGet, tableLength, tableSet } from './lua-table.js'

const require = createRequire(import.meta.url)

/** A string a script builds may not be longer. */
export const STRING_BYTES_MAX = 8 * 1024 * 1024
/** Slots of a Lua stack: about 30 000 nested calls, then "stack overflow". */
const STACK_SLOTS_MAX = 200_000

/** Type tags of a TValue. */
export const NIL = 0
export const BOOLEAN = 1
export const LIGHT_USERDATA = 2
export const FLOAT = 3
export const STRING = 20
export const TABLE = 5
export const LUA_CLOSURE = 6
export const USERDATA = 7
export const THREAD = 8
export const INTEGER = 19
export const LIGHT_FUNCTION = 22

export const STATUS_OK = 0
export const STATUS_YIELD = 1
export const MULTIPLE_RESULTS = -1

/** Slots that a library function may push without asking. */
export const MIN_STACK = 20

/** Order of Lua's arithmetic operators, as in LUA_OPADD and following. */
export const Arithmetic = {
  ADD: 0, SUB: 1, MUL: 2, MOD: 3, POW: 4, DIV: 5, IDIV: 6, BAND: 7, BOR: 8, BXOR: 9, SHL: 10, SHR: 11, UNM: 12, BNOT: 13
} as const

type Exports = Record<string, any>

const defs: Exports = require('fengari/src/defs.js')
const types = defs['constant_types']
if (types.LUA_TNUMINT !== INTEGER || types.LUA_TLNGSTR !== STRING || types.LUA_TLCF !== LIGHT_FUNCTION || types.LUA_TUSERDATA !== USERDATA) {
  throw new Error('fengari: unexpected type tags; the adaptation in udf/lua.ts is for fengari 0.1')
}

// luaconf: read by everything at load.
const luaconf: Exports = require('fengari/src/luaconf.js')
luaconf['LUAI_MAXSTACK'] = STACK_SLOTS_MAX
luaconf['lua_numbertointeger'] = integer.fromFloat
luaconf['lua_number2str'] = floatText

// lstring: copied by most of the others. A key of the lexer's own tables, which are plain objects, needs a prefix; it looks for strings
// of the source by such keys as well, in a table, where none must be found as another string: no byte is this character.
const KEY_PREFIX = '\u{100}'
const lstring: Exports = require('fengari/src/lstring.js')
lstring['TString'] = LuaString
lstring['luaS_hash'] = (bytes: Uint8Array): string => KEY_PREFIX + latin1(bytes)
lstring['luaS_hashlongstr'] = (string: TString): string => KEY_PREFIX + hashString(string)
lstring['luaS_eqlngstr'] = sameString
lstring['luaS_bless'] = (_: LuaState, bytes: Uint8Array): TString => new LuaString(null, bytes, bytes.length)
// A function, not an arrow: fengari calls it with `new` as well.
lstring['luaS_new'] = function (_: LuaState, bytes: Uint8Array): TString {
  return luaString(bytes.slice())
}
lstring['luaS_newliteral'] = (_: LuaState, text: string): TString => luaString(new Uint8Array(Buffer.from(text, 'utf8')))

export const lapi: Exports = require('fengari/src/lapi.js')
export const lvm: Exports = require('fengari/src/lvm.js')
export const ldo: Exports = require('fengari/src/ldo.js')
export const llex: Exports = require('fengari/src/llex.js')
export const ldebug: Exports = require('fengari/src/ldebug.js')
export const lfunc: Exports = require('fengari/src/lfunc.js')
export const lobject: Exports = require('fengari/src/lobject.js')
export const lstate: Exports = require('fengari/src/lstate.js')
export const ltable: Exports = require('fengari/src/ltable.js')
export const ltm: Exports = require('fengari/src/ltm.js')
export const lopcodes: Exports = require('fengari/src/lopcodes.js')

export const Value: new (type: number, value: unknown) => TValue = lobject['TValue']
installTables(ltable)

export function stringValue (text: string): TValue {
  return new Value(STRING, luaString(new Uint8Array(Buffer.from(text, 'utf8'))))
}

/** The value's bytes as JavaScript text; wrong UTF-8 shows as replacement characters. */
export function textOf (value: TValue): string {
  return Buffer.from(value.value.realstring as Uint8Array).toString('utf8')
}

const noState = { l_G: { id_counter: 1 } } as unknown as LuaState & { l_G: { id_counter: number } }

/** A table that belongs to no particular state: libraries and metatables. */
export function newTable (): Table {
  return new LuaTable(noState)
}

const CALL_IS_LUA = 2

/** Raises a Lua error with the position of the running Lua code: the function itself, or the caller of a library function. */
export function raise (L: LuaState, message: string): never {
  const text = Buffer.from(message, 'utf8')
  if ((L.ci.callstatus & CALL_IS_LUA) !== 0) ldebug['luaG_runerror'](L, Buffer.from('%s'), text)
  else lauxlib['luaL_error'](L, Buffer.from('%s'), text)
  throw new Error('unreachable')
}

/** To be called when the steps of the call are used up: raises when a limit is exceeded. */
export function checkLimits (L: LuaState): void {
  const message = exceededLimit()
  if (message !== null) raise(L, message)
}

/** What a condition takes for false: nil and false. */
export function isFalse (value: TValue): boolean {
  return value.type === NIL || (value.type === BOOLEAN && value.value === false)
}

// A JavaScript error under a Lua function is turned into a Lua error by a handler that is pushed onto that function's frame, which
// is full by design. The frame is lost anyhow, so it may grow.
const publishedPushFunction = lapi['lua_pushcfunction']
lapi['lua_pushcfunction'] = (L: LuaState & { l_G: { atnativeerror?: LuaFunction } }, fn: LuaFunction): void => {
  if (fn === L.l_G.atnativeerror) {
    ldo['luaD_checkstack'](L, MIN_STACK)
    L.ci.top = Math.max(L.ci.top, L.top + MIN_STACK)
  }
  publishedPushFunction(L, fn)
}

// ---- numbers ----

/** What `tostring` makes of a number. */
export function numberText (value: TValue): string {
  return value.type === INTEGER ? String(value.value) : floatText(value.value)
}

function stringToNumber (bytes: Uint8Array, out: TValue): number {
  if (bytes.length > 64) chargeSteps(bytes.length >> 6)
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')
  const whole = integer.parseInteger(text)
  if (whole !== null) {
    out.type = INTEGER
    out.value = whole
    return bytes.length + 1
  }
  const float = parseFloatText(text)
  if (float === null) return 0
  out.type = FLOAT
  out.value = float
  return bytes.length + 1
}

/** The value as a number (numeric strings convert), or undefined. */
export function toNumberValue (value: TValue): TValue | undefined {
  if (value.type === INTEGER || value.type === FLOAT) return value
  if (value.type !== STRING) return undefined
  const result = new Value(NIL, null)
  return stringToNumber(value.value.realstring, result) === 0 ? undefined : result
}

export function toInteger (value: TValue): LuaInteger | false {
  if (value.type === INTEGER) return value.value
  if (value.type === FLOAT) return integer.fromFloat(value.value)
  const number = toNumberValue(value)
  return number === undefined ? false : number.type === INTEGER ? number.value : integer.fromFloat(number.value)
}

/** A float for arithmetic; an integer beyond 2^53 is rounded, as Lua does. */
export function toFloat (value: TValue): number | false {
  if (value.type === FLOAT) return value.value
  if (value.type === INTEGER) return Number(value.value)
  const number = toNumberValue(value)
  return number === undefined ? false : Number(number.value)
}

lobject['luaO_str2num'] = stringToNumber
lobject['luaO_tostring'] = (_: LuaState, value: TValue): void => {
  value.value = textString(numberText(value))
  value.type = STRING
}

lvm['tointeger'] = toInteger
lvm['tonumber'] = (value: TValue): number | false => {
  if (value.type === FLOAT) return value.value
  return toFloat(value)
}
lvm['luaV_tointeger'] = toInteger

function integerArithmetic (L: LuaState, operation: number, a: LuaInteger, b: LuaInteger): LuaInteger {
  switch (operation) {
    case Arithmetic.ADD: return integer.add(a, b)
    case Arithmetic.SUB: return integer.subtract(a, b)
    case Arithmetic.MUL: return integer.multiply(a, b)
    case Arithmetic.MOD:
      if (b === 0) raise(L, "attempt to perform 'n%%0'")
      return integer.modulo(a, b)
    case Arithmetic.IDIV:
      if (b === 0) raise(L, "attempt to perform 'n//0'")
      return integer.floorDivide(a, b)
    case Arithmetic.BAND: return integer.bitAnd(a, b)
    case Arithmetic.BOR: return integer.bitOr(a, b)
    case Arithmetic.BXOR: return integer.bitXor(a, b)
    case Arithmetic.SHL: return integer.shiftLeft(a, b)
    case Arithmetic.SHR: return integer.shiftRight(a, b)
    case Arithmetic.UNM: return integer.negate(a)
    default: return integer.bitNot(a)
  }
}

function floatArithmetic (operation: number, a: number, b: number): number {
  switch (operation) {
    case Arithmetic.ADD: return a + b
    case Arithmetic.SUB: return a - b
    case Arithmetic.MUL: return a * b
    case Arithmetic.DIV: return a / b
    case Arithmetic.POW: return power(a, b)
    case Arithmetic.IDIV: return Math.floor(a / b)
    case Arithmetic.UNM: return -a
    default: return floatModulo(a, b)
  }
}

export function floatModulo (a: number, b: number): number {
  const rest = a % b
  return rest !== 0 && (rest < 0) !== (b < 0) && Number.isFinite(rest) ? rest + b : rest
}

export function power (a: number, b: number): number {
  if (b === 2) return a * a
  if (b === 0.5) return a === -Infinity ? Infinity : Math.sqrt(a) + 0
  // Unlike in C, 1 ** NaN and (-1) ** Infinity are NaN in JavaScript.
  return a === 1 || (a === -1 && Math.abs(b) === Infinity) ? 1 : a ** b
}

/** Any arithmetic on any operands: numbers, numeric strings, then metamethods. */
export function arithmetic (L: LuaState, operation: number, a: TValue, b: TValue, out: TValue): void {
  const x = toNumberValue(a)
  const y = x === undefined ? undefined : toNumberValue(b)
  if (x !== undefined && y !== undefined) {
    if (operation === Arithmetic.DIV || operation === Arithmetic.POW) {
      out.setfltvalue(floatArithmetic(operation, Number(x.value), Number(y.value)))
      return
    }
    if (operation >= Arithmetic.BAND && operation !== Arithmetic.UNM) {
      const i = x.type === INTEGER ? x.value : integer.fromFloat(x.value)
      const j = y.type === INTEGER ? y.value : integer.fromFloat(y.value)
      if (i !== false && j !== false) {
        out.setivalue(integerArithmetic(L, operation, i, j))
        return
      }
    } else if (x.type === INTEGER && y.type === INTEGER) {
      out.setivalue(integerArithmetic(L, operation, x.value, y.value))
      return
    } else {
      out.setfltvalue(floatArithmetic(operation, Number(x.value), Number(y.value)))
      return
    }
  }
  ltm['luaT_trybinTM'](L, a, b, out, ltm['TMS'].TM_ADD + operation)
}

lobject['luaO_arith'] = (L: LuaState, operation: number, a: TValue, b: TValue, out: TValue | number): void => {
  arithmetic(L, operation, a, b, typeof out === 'number' ? L.stack[out]! : out)
}

const publishedEqual = lvm['luaV_equalobj']
lvm['luaV_equalobj'] = (L: LuaState | null, a: TValue, b: TValue): number => {
  // A bigint and a float of the same value are equal, but not for `===`.
  // eslint-disable-next-line eqeqeq
  if (a.type !== b.type && (a.type & 15) === FLOAT && (b.type & 15) === FLOAT) return a.value == b.value ? 1 : 0
  return publishedEqual(L, a, b)
}
lvm['luaV_rawequalobj'] = (a: TValue, b: TValue): number => lvm['luaV_equalobj'](null, a, b)

lapi['lua_pushinteger'] = (L: LuaState, value: LuaInteger): void => {
  // What a published function computed from arguments out of its range, such as a date. Nothing counts with an integer that is none.
  if (typeof value === 'number' && !Number.isSafeInteger(value)) raise(L, 'number has no integer representation')
  L.stack[L.top] = new Value(INTEGER, value)
  lapi['api_incr_top'](L)
}

// ---- tables ----

/** From here on the table cannot be changed by a script; tables in it can unless frozen too. */
export function freeze (table: Table): void {
  table.frozen = true
}

export function rawGet (table: Table, name: string): TValue | undefined {
  return getText(table, latin1(Buffer.from(name, 'utf8')))
}

export function rawSet (table: Table, name: string, value: TValue): void {
  tableSet(noState, table, stringValue(name), value)
  table.flags = 0
}

export function functionValue (fn: LuaFunction): TValue {
  return new Value(LIGHT_FUNCTION, fn)
}

export function tableValue (table: Table): TValue {
  return new Value(TABLE, table)
}

// ---- the auxiliary library, then the standard ones ----

require('fengari/src/lua.js')
export const lauxlib: Exports = require('fengari/src/lauxlib.js')

function reserve (buffer: LuaBuffer, bytes: number): void {
  const end = buffer.n + bytes
  if (end > STRING_BYTES_MAX) raise(buffer.L, `string longer than ${STRING_BYTES_MAX} bytes`)
  if (buffer.b.length < end) {
    const larger = new Uint8Array(Math.max(buffer.b.length * 2, end, 64))
    chargeBytes(larger.length)
    larger.set(buffer.b.subarray(0, buffer.n))
    buffer.b = larger
  }
}

lauxlib['luaL_prepbuffsize'] = (buffer: LuaBuffer, bytes: number): Uint8Array => {
  reserve(buffer, bytes)
  return buffer.b.subarray(buffer.n, buffer.n + bytes)
}
lauxlib['luaL_buffinitsize'] = (L: LuaState, buffer: LuaBuffer, bytes: number): Uint8Array => {
  lauxlib['luaL_buffinit'](L, buffer)
  return lauxlib['luaL_prepbuffsize'](buffer, bytes)
}
lauxlib['luaL_addlstring'] = (buffer: LuaBuffer, bytes: Uint8Array, length: number): void => {
  if (length === 0) return
  reserve(buffer, length)
  buffer.b.set(length === bytes.length ? bytes : bytes.subarray(0, length), buffer.n)
  buffer.n += length
}
lauxlib['luaL_addstring'] = (buffer: LuaBuffer, bytes: Uint8Array): void => {
  lauxlib['luaL_addlstring'](buffer, bytes, bytes.length)
}
lauxlib['luaL_addchar'] = (buffer: LuaBuffer, char: number): void => {
  reserve(buffer, 1)
  buffer.b[buffer.n++] = char
}
lauxlib['luaL_addvalue'] = (buffer: LuaBuffer): void => {
  const bytes: Uint8Array = lapi['lua_tolstring'](buffer.L, -1)
  lauxlib['luaL_addlstring'](buffer, bytes, bytes.length)
  lapi['lua_pop'](buffer.L, 1)
}

// The published libraries use integer arguments as positions and counts, in JavaScript numbers: an integer beyond 2^53 becomes the
// nearest such number, which is beyond every string and table anyhow. Functions that compute with integers are replaced in sandbox.ts.
function nearestNumber (value: LuaInteger): number {
  return typeof value === 'number' ? value : value > 0n ? Number.MAX_SAFE_INTEGER : Number.MIN_SAFE_INTEGER
}

const publishedCheckInteger = lauxlib['luaL_checkinteger']
lauxlib['luaL_checkinteger'] = (L: LuaState, index: number): number => {
  return nearestNumber(publishedCheckInteger(L, index))
}
lauxlib['luaL_optinteger'] = (L: LuaState, index: number, otherwise: number): number =>
  lapi['lua_type'](L, index) <= 0 ? otherwise : lauxlib['luaL_checkinteger'](L, index)

/** The exact integer at an argument position; anything else raises "bad argument". */
export function checkInteger (L: LuaState, index: number): LuaInteger {
  const value = argument(L, index)
  return value.type === INTEGER ? value.value : publishedCheckInteger(L, index)
}

/** A position or count at an argument position, clamped into what JavaScript counts with. */
export function checkCount (L: LuaState, index: number): number {
  return nearestNumber(checkInteger(L, index))
}

const nilValue: TValue = lobject['luaO_nilobject']

/** The argument at a position, or the shared nil. */
export function argument (L: LuaState, index: number): TValue {
  const at = L.ci.funcOff + index
  return at < L.top ? L.stack[at]! : nilValue
}

export function argumentCount (L: LuaState): number {
  return L.top - (L.ci.funcOff + 1)
}

/** Pushes a copy; room for LUA_MINSTACK pushes is guaranteed in a library function. */
export function push (L: LuaState, value: TValue): void {
  pushTyped(L, value.type, value.value)
}

export function pushTyped (L: LuaState, type: number, value: unknown): 1 {
  const slot = L.stack[L.top]
  if (slot === undefined) L.stack[L.top] = new Value(type, value)
  else {
    slot.type = type
    slot.value = value
  }
  L.top++
  return 1
}

export function pushNil (L: LuaState): 1 {
  return pushTyped(L, NIL, null)
}

export function pushBoolean (L: LuaState, value: boolean): 1 {
  return pushTyped(L, BOOLEAN, value)
}

export function pushInteger (L: LuaState, value: LuaInteger): 1 {
  return pushTyped(L, INTEGER, value)
}

export function badArgument (L: LuaState, index: number, message: string): never {
  lauxlib['luaL_argerror'](L, index, Buffer.from(message, 'utf8'))
  throw new Error('unreachable')
}

const TYPE_NAMES = ['nil', 'boolean', 'userdata', 'number', 'string', 'table', 'function', 'userdata', 'thread']

export function typeName (value: TValue): string {
  return TYPE_NAMES[value.type & 15] ?? 'value'
}

// In the order that fengari itself loads them: some require each other.
require('fengari/src/lualib.js')
export const libraries: Record<'base' | 'coroutine' | 'table' | 'string' | 'math' | 'utf8' | 'os', LuaFunction> = {
  base: require('fengari/src/lbaselib.js').luaopen_base,
  coroutine: require('fengari/src/lcorolib.js').luaopen_coroutine,
  table: require('fengari/src/ltablib.js').luaopen_table,
  string: require('fengari/src/lstrlib.js').luaopen_string,
  math: require('fengari/src/lmathlib.js').luaopen_math,
  utf8: require('fengari/src/lutf8lib.js').luaopen_utf8,
  os: require('fengari/src/loslib.js').luaopen_os
}
