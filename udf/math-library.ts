// tonumber, and the functions of the math library that compute with integers; the published ones do so in 32 bits.

import type { LuaFunction, LuaState, TValue } from './fengari.js'
import {
  argument, argumentCount, badArgument, BOOLEAN, checkInteger, FLOAT, INTEGER, lauxlib, NIL, pushInteger, pushTyped, raise, STRING, toInteger, toNumberValue
} from './lua.js'
import { spend } from './limits.js'
import * as integer from './lua-integer.js'
import { checkBytes, nameOf } from './string-library.js'

function pushFloatOrInteger (L: LuaState, value: number): 1 {
  const whole = integer.fromFloat(value)
  return whole === false ? pushTyped(L, FLOAT, value) : pushInteger(L, whole)
}

function checkNumber (L: LuaState, index: number): TValue {
  const value = toNumberValue(argument(L, index))
  if (value === undefined) badArgument(L, index, `number expected, got ${nameOf(L, index)}`)
  return value
}

function random64 (): bigint {
  return crypto.getRandomValues(new BigInt64Array(1))[0]!
}

export const mathReplacements: Record<string, LuaFunction> = {
  abs: L => {
    const value = checkNumber(L, 1)
    if (value.type === FLOAT) return pushTyped(L, FLOAT, Math.abs(value.value))
    return pushInteger(L, value.value < 0 ? integer.negate(value.value) : value.value)
  },
  ceil: L => {
    const value = checkNumber(L, 1)
    return value.type === FLOAT ? pushFloatOrInteger(L, Math.ceil(value.value)) : pushInteger(L, value.value)
  },
  floor: L => {
    const value = checkNumber(L, 1)
    return value.type === FLOAT ? pushFloatOrInteger(L, Math.floor(value.value)) : pushInteger(L, value.value)
  },
  fmod: L => {
    const a = checkNumber(L, 1)
    const b = checkNumber(L, 2)
    if (a.type === FLOAT || b.type === FLOAT) return pushTyped(L, FLOAT, Number(a.value) % Number(b.value))
    if (b.value === 0) badArgument(L, 2, 'zero')
    return pushInteger(L, integer.canonical(BigInt(a.value) % BigInt(b.value)))
  },
  modf: L => {
    const number = checkNumber(L, 1)
    const value: number = Number(number.value)
    const whole = Math.trunc(value)
    if (number.type === INTEGER) pushInteger(L, number.value)
    else pushTyped(L, FLOAT, whole)
    pushTyped(L, FLOAT, value === whole ? 0 : value - whole)
    return 2
  },
  /** Seeded by the system; `randomseed` has no effect, so that one call cannot foresee another's numbers. */
  random: L => {
    const count = argumentCount(L)
    if (count > 2) raise(L, 'wrong number of arguments')
    if (count === 0) return pushTyped(L, FLOAT, Number(BigInt.asUintN(53, random64())) / 2 ** 53)
    const low = count === 1 ? 1 : checkInteger(L, 1)
    const high = checkInteger(L, count === 1 ? 1 : 2)
    if (count === 1 && high === 0) return pushInteger(L, integer.wrap(random64()))
    if (low > high) badArgument(L, count === 1 ? 1 : 2, 'interval is empty')
    const span = BigInt(high) - BigInt(low) + 1n
    return pushInteger(L, integer.wrap(BigInt(low) + BigInt.asUintN(64, random64()) % span))
  },
  randomseed: () => 0,
  tointeger: L => {
    const value = argument(L, 1)
    const whole = toInteger(value)
    return whole === false ? pushTyped(L, NIL, null) : pushInteger(L, whole)
  },
  ult: L => {
    const less = BigInt.asUintN(64, BigInt(checkInteger(L, 1))) < BigInt.asUintN(64, BigInt(checkInteger(L, 2)))
    return pushTyped(L, BOOLEAN, less)
  }
}

export const toNumberFunction: LuaFunction = L => {
  if (argument(L, 2).type === NIL) {
    lauxlib['luaL_checkany'](L, 1)
    const value = toNumberValue(argument(L, 1))
    return value === undefined ? pushTyped(L, NIL, null) : pushTyped(L, value.type, value.value)
  }
  const base = checkInteger(L, 2)
  if (argument(L, 1).type !== STRING) badArgument(L, 1, `string expected, got ${nameOf(L, 1)}`)
  if (base < 2 || base > 36) badArgument(L, 2, 'base out of range')
  const match = /^[ \t\n\v\f\r]*([-+]?)([0-9a-zA-Z]+)[ \t\n\v\f\r]*$/.exec(Buffer.from(checkBytes(L, 1)).toString('latin1'))
  if (match === null) return pushTyped(L, NIL, null)
  let value = 0n
  for (const char of match[2]!.toLowerCase()) {
    spend(1)
    const digit = char <= '9' ? char.charCodeAt(0) - 48 : char.charCodeAt(0) - 87
    if (digit >= base) return pushTyped(L, NIL, null)
    value = BigInt.asUintN(64, value * BigInt(base) + BigInt(digit))
  }
  return pushInteger(L, integer.wrap(match[1] === '-' ? -value : value))
}
