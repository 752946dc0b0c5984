// Functions of other versions of Lua that mean here what they meant there.

import type { LuaFunction, LuaState, Table, TValue } from './fengari.js'
import {
  argument, Arithmetic, arithmetic, badArgument, FLOAT, INTEGER, lauxlib, ltable, NIL, push, pushBoolean, pushInteger, pushTyped, raise,
  STATUS_OK, STATUS_YIELD, THREAD, toFloat, typeName, Value
} from './lua.js'

function number (L: LuaState, index: number): number {
  const value = toFloat(argument(L, index))
  if (value === false) badArgument(L, index, `number expected, got ${typeName(argument(L, index))}`)
  return value
}

function ofNumber (fn: (x: number) => number): LuaFunction {
  return L => pushTyped(L, FLOAT, fn(number(L, 1)))
}

/** Of Lua 5.1, deprecated later. */
export const olderMath: Record<string, LuaFunction> = {
  pow: L => {
    number(L, 1)
    number(L, 2)
    const result = new Value(INTEGER, 0)
    arithmetic(L, Arithmetic.POW, argument(L, 1), argument(L, 2), result)
    push(L, result)
    return 1
  },
  log10: ofNumber(Math.log10),
  cosh: ofNumber(Math.cosh),
  sinh: ofNumber(Math.sinh),
  tanh: ofNumber(Math.tanh),
  ldexp: L => pushTyped(L, FLOAT, number(L, 1) * 2 ** number(L, 2)),
  frexp: L => {
    const x = number(L, 1)
    let exponent = x === 0 || !Number.isFinite(x) ? 0 : Math.max(-1074, Math.floor(Math.log2(Math.abs(x))) + 1)
    let mantissa = x * 2 ** -exponent
    while (Math.abs(mantissa) < 0.5 && mantissa !== 0) {
      mantissa *= 2
      exponent--
    }
    while (Math.abs(mantissa) >= 1 && Number.isFinite(mantissa)) {
      mantissa /= 2
      exponent++
    }
    pushTyped(L, FLOAT, mantissa)
    pushInteger(L, exponent)
    return 2
  }
}

export const olderTable: Record<string, LuaFunction> = {
  getn: L => {
    if (typeName(argument(L, 1)) !== 'table') badArgument(L, 1, `table expected, got ${typeName(argument(L, 1))}`)
    return pushInteger(L, lauxlib['luaL_len'](L, 1) as number)
  },
  maxn: L => {
    if (typeName(argument(L, 1)) !== 'table') badArgument(L, 1, `table expected, got ${typeName(argument(L, 1))}`)
    const table: Table = argument(L, 1).value
    let greatest = new Value(INTEGER, ltable['luaH_getn'](table) as number)
    for (let entry = table.f; entry !== undefined; entry = entry.n) {
      const { key, value } = entry
      if ((key.type & 15) === FLOAT && value.type !== NIL && key.value > greatest.value) greatest = new Value(key.type, key.value)
    }
    push(L, greatest)
    return 1
  }
}

/** `coroutine.close(co)` of Lua 5.4: here no variables are to be closed. */
export const closeCoroutine: LuaFunction = L => {
  const given = argument(L, 1)
  if (given.type !== THREAD) badArgument(L, 1, `coroutine expected, got ${typeName(given)}`)
  const coroutine = given.value
  const isSuspended = coroutine.status === STATUS_YIELD || (coroutine.status === STATUS_OK && coroutine.ci === coroutine.base_ci)
  if (coroutine === L || (!isSuspended && coroutine.status === STATUS_OK)) raise(L, `cannot close a ${coroutine === L ? 'running' : 'normal'} coroutine`)
  const failed = coroutine.status !== STATUS_OK && coroutine.status !== STATUS_YIELD
  const error: TValue = coroutine.stack[coroutine.top - 1]
  coroutine.status = STATUS_OK
  coroutine.ci = coroutine.base_ci
  coroutine.top = coroutine.ci.funcOff + 1
  pushBoolean(L, !failed)
  if (!failed) return 1
  push(L, error)
  return 2
}
