// Functions of the base and string libraries that scripts call most, on our strings and tables directly. What they promise, errors
// included, is what the published ones do; whatever is unusual is left to those.

import type { LuaFunction, LuaState, TString, TValue } from './fengari.js'
import {
  argument, argumentCount, badArgument, BOOLEAN, checkCount, checkInteger, FLOAT, functionValue, getInteger, INTEGER, lapi, lauxlib, LIGHT_FUNCTION, luaString,
  ltable, NIL, numberText, pushInteger, pushNil, pushTyped, STRING, TABLE, textString, typeName, USERDATA
} from './lua.js'
import { spend } from './limits.js'
import { characterString, hashString, LuaString, TEXT_CHARS_MAX } from './lua-string.js'
import { checkBytes } from './string-library.js'

function pushText (L: LuaState, text: string): 1 {
  return pushTyped(L, STRING, textString(text))
}

function checkAny (L: LuaState): TValue {
  if (argumentCount(L) < 1) badArgument(L, 1, 'value expected')
  return argument(L, 1)
}

// ---- base ----

const tostring: LuaFunction = L => {
  const { type, value } = checkAny(L)
  switch (type) {
    case STRING: return pushTyped(L, STRING, value)
    case INTEGER: return pushText(L, String(value))
    case FLOAT: return pushText(L, numberText(argument(L, 1)))
    case BOOLEAN: return pushText(L, value === true ? 'true' : 'false')
    case NIL: return pushText(L, 'nil')
    default:
      lauxlib['luaL_tolstring'](L, 1)
      return 1
  }
}

const type: LuaFunction = L => pushText(L, typeName(checkAny(L)))

export const next: LuaFunction = L => {
  if (argument(L, 1).type !== TABLE) lauxlib['luaL_checktype'](L, 1, TABLE)
  const key = argument(L, 2)
  pushTyped(L, key.type, key.value)
  pushNil(L)
  if (ltable['luaH_next'](L, argument(L, 1).value, L.top - 2) === true) return 2
  return pushNil(L)
}

const nextValue = functionValue(next)

const pairs: LuaFunction = L => {
  const { type, value } = checkAny(L)
  if ((type === TABLE || type === USERDATA) && value.metatable !== null) {
    if (lauxlib['luaL_getmetafield'](L, 1, PAIRS_TEXT) !== NIL) {
      lapi['lua_pushvalue'](L, 1)
      lapi['lua_call'](L, 1, 3)
      return 3
    }
  }
  pushTyped(L, LIGHT_FUNCTION, nextValue.value)
  pushTyped(L, type, value)
  pushNil(L)
  return 3
}

const PAIRS_TEXT = new Uint8Array(Buffer.from('__pairs'))

/** The iterator of `ipairs`. */
export const nextPosition: LuaFunction = L => {
  const object = argument(L, 1)
  const given = argument(L, 2)
  if (given.type === INTEGER && typeof given.value === 'number') {
    const position: number = given.value + 1
    const found = object.type === TABLE ? getInteger(object.value, position) : undefined
    if (found !== undefined) {
      pushInteger(L, position)
      return pushTyped(L, found.type, found.value) + 1
    }
  }
  const position = Number(lauxlib['luaL_checkinteger'](L, 2)) + 1
  pushInteger(L, position)
  return lapi['lua_geti'](L, 1, position) === NIL ? 1 : 2
}

const ipairs: LuaFunction = L => {
  const { type, value } = checkAny(L)
  pushTyped(L, LIGHT_FUNCTION, nextPosition)
  pushTyped(L, type, value)
  pushInteger(L, 0)
  return 3
}

const select: LuaFunction = L => {
  const count = argumentCount(L)
  const which = argument(L, 1)
  if (which.type === STRING && (which.value as TString).length > 0 && hashString(which.value).startsWith('#')) return pushInteger(L, count - 1)
  const given = checkInteger(L, 1)
  let index = typeof given === 'number' ? given : given > 0n ? Infinity : -Infinity
  if (index < 0) index += count
  else if (index > count) index = count
  if (index < 1) badArgument(L, 1, 'index out of range')
  return count - index
}

export const baseFunctions: Record<string, LuaFunction> = { tostring, type, next, pairs, ipairs, select }

// ---- string ----

function checkString (L: LuaState, index: number): LuaString {
  const value = argument(L, index)
  if (value.type === STRING) return value.value
  checkBytes(L, index)
  // A number has become a string in its place.
  return argument(L, index).value
}

/** A position counted from the end where negative, as a number however large. */
function position (L: LuaState, index: number, length: number, otherwise: number): number {
  const value = argument(L, index)
  const given = value.type === NIL ? otherwise : checkCount(L, index)
  return given >= 0 ? given : -given > length ? 0 : length + given + 1
}

const EMPTY = new LuaString('', new Uint8Array(0), 0)

const sub: LuaFunction = L => {
  const string = checkString(L, 1)
  const { length } = string
  if (argumentCount(L) < 2) checkInteger(L, 2)
  const from = Math.max(1, position(L, 2, length, 1))
  const to = Math.min(length, position(L, 3, length, -1))
  if (from > to) return pushTyped(L, STRING, EMPTY)
  if (from === 1 && to === length) return pushTyped(L, STRING, string)
  if (length <= TEXT_CHARS_MAX) return pushText(L, hashString(string).substring(from - 1, to))
  return pushTyped(L, STRING, luaString(string.realstring.slice(from - 1, to)))
}

const byte: LuaFunction = L => {
  const string = checkString(L, 1)
  const { length } = string
  const first = position(L, 2, length, 1)
  const from = Math.max(1, first)
  const to = Math.min(length, position(L, 3, length, first))
  if (from > to) return 0
  if (from === to) return pushInteger(L, string.text !== null ? string.text.charCodeAt(from - 1) : string.bytes![from - 1]!)
  lauxlib['luaL_checkstack'](L, to - from + 1, TOO_LONG_TEXT)
  const bytes = string.realstring
  spend((to - from) >> 3)
  for (let i = from; i <= to; i++) pushInteger(L, bytes[i - 1]!)
  return to - from + 1
}

const TOO_LONG_TEXT = new Uint8Array(Buffer.from('string slice too long'))

const char: LuaFunction = L => {
  const count = argumentCount(L)
  let text = ''
  for (let i = 1; i <= count; i++) {
    const code = checkInteger(L, i)
    if (code < 0 || code > 255) badArgument(L, i, 'value out of range')
    if (count === 1) return pushTyped(L, STRING, characterString(Number(code)))
    text += String.fromCharCode(Number(code))
  }
  return pushText(L, text)
}

const len: LuaFunction = L => pushInteger(L, checkString(L, 1).length)

const ASCII = /^[\0-\x7f]*$/

/** Changes the case of ASCII letters alone, as the C locale does. */
function inCase (L: LuaState, upper: boolean): 1 {
  const string = checkString(L, 1)
  if (string.length <= TEXT_CHARS_MAX) {
    const text = hashString(string)
    if (ASCII.test(text)) return pushText(L, upper ? text.toUpperCase() : text.toLowerCase())
  }
  const bytes = string.realstring.slice()
  const first = upper ? 97 : 65
  for (let i = 0; i < bytes.length; i++) {
    const code = bytes[i]!
    if (code >= first && code < first + 26) bytes[i] = code ^ 32
  }
  return pushTyped(L, STRING, luaString(bytes))
}

const reverse: LuaFunction = L => {
  const bytes = checkString(L, 1).realstring.slice()
  return pushTyped(L, STRING, luaString(bytes.reverse()))
}

export const stringFunctions: Record<string, LuaFunction> = {
  sub, byte, char, len, upper: L => inCase(L, true), lower: L => inCase(L, false), reverse
}
