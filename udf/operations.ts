// What Lua's operators and statements do with values of any type: metamethods, conversions, errors. The instruction loop and compiled
// code (compiler/) handle the common cases themselves and come here with the others.
//
// Operands are given as the TValues that they are in, since an error names the variable by its place.

import type { LuaClosure, LuaState, Proto, Table, TValue } from './fengari.js'
import { HostObject } from './host-object.js'
import { control } from './limits.js'
import {
  checkLimits, FLOAT, getInteger, hashString, INTEGER, isFalse, ldebug, lobject, ltm, luaString, lvm, NIL, raise, STRING, STRING_BYTES_MAX, TABLE,
  tableGet, tableLength, tableSet, textString, USERDATA, Value
} from './lua.js'
import * as integer from './lua-integer.js'
import { LuaString, sameString, TEXT_CHARS_MAX } from './lua-string.js'

const INDEX_CHAIN_MAX = 2000

const TM_INDEX: number = ltm['TMS'].TM_INDEX
const TM_NEWINDEX: number = ltm['TMS'].TM_NEWINDEX
const TM_EQ: number = ltm['TMS'].TM_EQ
const TM_LEN: number = ltm['TMS'].TM_LEN
const TM_CONCAT: number = ltm['TMS'].TM_CONCAT

const { fasttm, luaT_callTM, luaT_gettmbyobj, luaT_trybinTM } = ltm as Record<string, (...args: any[]) => any>
const Closure: new (L: LuaState, upvalues: number) => LuaClosure = lobject['LClosure']

export function copy (target: TValue, source: TValue): void {
  target.type = source.type
  target.value = source.value
}

function entryOf (L: LuaState, table: Table, key: TValue): TValue | undefined {
  switch (key.type) {
    case STRING: return table.strong.get(hashString(key.value))?.value
    case INTEGER: return getInteger(table, key.value)
    default: return tableGet(L, table, key)
  }
}

export function index (L: LuaState, object: TValue, key: TValue, out: TValue): void {
  for (let hop = 0; hop < INDEX_CHAIN_MAX; hop++) {
    let method: TValue | null
    if (object.type === TABLE) {
      const table: Table = object.value
      const found = entryOf(L, table, key)
      if (found !== undefined) {
        copy(out, found)
        return
      }
      if (table.metatable === null || (method = fasttm!(L, table.metatable, TM_INDEX) as TValue | null) === null) {
        out.type = NIL
        out.value = null
        return
      }
    } else if (object.type === USERDATA && object.value instanceof HostObject) {
      object.value.luaIndex(L, key, out)
      return
    } else {
      method = luaT_gettmbyobj!(L, object, TM_INDEX) as TValue
      if (method.type === NIL) ldebug['luaG_typeerror'](L, object, INDEX_TEXT)
    }
    if (method.ttisfunction()) {
      luaT_callTM!(L, method, object, key, out, 1)
      return
    }
    object = method
  }
  raise(L, "'__index' chain too long; possible loop")
}

export function setIndex (L: LuaState, object: TValue, key: TValue, value: TValue): void {
  for (let hop = 0; hop < INDEX_CHAIN_MAX; hop++) {
    let method: TValue | null
    if (object.type === TABLE) {
      const table: Table = object.value
      const found = entryOf(L, table, key)
      if (found !== undefined && value.type !== NIL) {
        if (table.frozen) raise(L, 'attempt to modify a read-only table')
        copy(found, value)
        return
      }
      if (found !== undefined || table.metatable === null || (method = fasttm!(L, table.metatable, TM_NEWINDEX) as TValue | null) === null) {
        if (table.frozen) raise(L, 'attempt to modify a read-only table')
        tableSet(L, table, key, value)
        table.flags = 0
        return
      }
    } else if (object.type === USERDATA && object.value instanceof HostObject) {
      object.value.luaNewIndex(L, key, value)
      return
    } else {
      method = luaT_gettmbyobj!(L, object, TM_NEWINDEX) as TValue
      if (method.type === NIL) ldebug['luaG_typeerror'](L, object, INDEX_TEXT)
    }
    if (method.ttisfunction()) {
      luaT_callTM!(L, method, object, key, value, 0)
      return
    }
    object = method
  }
  raise(L, "'__newindex' chain too long; possible loop")
}

const INDEX_TEXT = new Uint8Array(Buffer.from('index'))

export function equal (L: LuaState, a: TValue, b: TValue): boolean {
  const type = a.type
  if (type !== b.type) {
    // Only an integer and a float can be equal across types. `==` compares a bigint with a number by value.
    // eslint-disable-next-line eqeqeq
    return (type & 15) === FLOAT && (b.type & 15) === FLOAT && a.value == b.value
  }
  if (a.value === b.value || type === NIL) return true
  switch (type) {
    case STRING: return sameString(a.value, b.value)
    case TABLE: case USERDATA: {
      let method: TValue | null = fasttm!(L, a.value.metatable, TM_EQ)
      method ??= fasttm!(L, b.value.metatable, TM_EQ)
      if (method === null) return false
      const result = new Value(NIL, null)
      luaT_callTM!(L, method, a, b, result, 1)
      return !isFalse(result)
    }
    default: return false
  }
}

export function lessThan (L: LuaState, a: TValue, b: TValue): boolean {
  if ((a.type & 15) === FLOAT && (b.type & 15) === FLOAT) return a.value < b.value
  if (a.type === STRING && b.type === STRING) return hashString(a.value) < hashString(b.value)
  return lvm['luaV_lessthan'](L, a, b) === 1
}

export function lessEqual (L: LuaState, a: TValue, b: TValue): boolean {
  if ((a.type & 15) === FLOAT && (b.type & 15) === FLOAT) return a.value <= b.value
  if (a.type === STRING && b.type === STRING) return hashString(a.value) <= hashString(b.value)
  return lvm['luaV_lessequal'](L, a, b) === 1
}

export function objectLength (L: LuaState, object: TValue, out: TValue): void {
  if (object.type === STRING) {
    out.type = INTEGER
    out.value = object.value.length
    return
  }
  let method: TValue | null
  if (object.type === TABLE) {
    method = fasttm!(L, object.value.metatable, TM_LEN)
    if (method === null) {
      out.type = INTEGER
      out.value = tableLength(object.value)
      return
    }
  } else {
    method = luaT_gettmbyobj!(L, object, TM_LEN) as TValue
    if (method.type === NIL) ldebug['luaG_typeerror'](L, object, LENGTH_TEXT)
  }
  luaT_callTM!(L, method, object, object, out, 1)
}

const LENGTH_TEXT = new Uint8Array(Buffer.from('get length of'))

export function isConcatenable (value: TValue): boolean {
  return value.type === STRING || (value.type & 15) === FLOAT
}

/** The strings of the slots from `from` up to `to`, which have so many bytes together. */
export function joined (stack: TValue[], from: number, to: number, bytes: number): LuaString {
  if (bytes <= TEXT_CHARS_MAX) {
    let text = hashString(stack[from]!.value)
    for (let i = from + 1; i < to; i++) text += hashString(stack[i]!.value)
    return textString(text)
  }
  const all = new Uint8Array(bytes)
  let at = 0
  for (let i = from; i < to; i++) {
    const part: Uint8Array = stack[i]!.value.realstring
    all.set(part, at)
    at += part.length
  }
  return luaString(all)
}

/** Concatenates the topmost `total` values of the stack into the lowest of them; metamethods may run and yield in between. */
export function concatenate (L: LuaState, total: number): void {
  const stack = L.stack
  while (total > 1) {
    const top = L.top
    let taken = 2
    if (!isConcatenable(stack[top - 2]!) || !isConcatenable(stack[top - 1]!)) {
      luaT_trybinTM!(L, stack[top - 2]!, stack[top - 1]!, stack[top - 2]!, TM_CONCAT)
    } else {
      let bytes = 0
      for (taken = 0; taken < total; taken++) {
        const value = stack[top - 1 - taken]!
        if (!isConcatenable(value)) break
        if (value.type !== STRING) lobject['luaO_tostring'](L, value)
        bytes += value.value.length
      }
      if (bytes > STRING_BYTES_MAX) raise(L, `string longer than ${STRING_BYTES_MAX} bytes`)
      const result = stack[top - taken]!
      result.value = joined(stack, top - taken, top, bytes)
      result.type = STRING
      // Straight-line code that concatenates has neither calls nor jumps, and each of its strings may be large.
      if (control.steps <= 0) checkLimits(L)
    }
    total -= taken - 1
    L.top = top - (taken - 1)
  }
}

/** Prepares a numeric loop; false when its body does not run at all. */
export function prepareLoop (L: LuaState, init: TValue, limit: TValue, step: TValue): boolean {
  for (const [value, name] of [[limit, 'limit'], [step, 'step'], [init, 'initial value']] as const) {
    if ((value.type & 15) !== FLOAT) raise(L, `'for' ${name} must be a number`)
  }
  if (step.value === 0) raise(L, "'for' step is zero")
  if (init.type === INTEGER && step.type === INTEGER) {
    if (limit.type === FLOAT) {
      const bound: number = limit.value
      if (Number.isNaN(bound)) return false
      const whole = step.value > 0 ? Math.floor(bound) : Math.ceil(bound)
      limit.value = integer.fromFloat(whole) || (whole === 0 ? 0 : whole > 0 ? integer.INTEGER_MAX : integer.INTEGER_MIN)
      limit.type = INTEGER
      // A limit below the range with an upward step (or the reverse) ends the loop before it starts.
      if (step.value > 0 ? bound < init.value : bound > init.value) return false
    }
    if (step.value > 0 ? init.value > limit.value : init.value < limit.value) return false
    init.value = integer.addUnbounded(init.value, typeof step.value === 'number' ? 0 - step.value : -step.value)
    return true
  }
  for (const value of [init, limit, step]) {
    value.value = Number(value.value)
    value.type = FLOAT
  }
  if (step.value > 0 ? !(init.value <= limit.value) : !(limit.value <= init.value)) return false
  init.value -= step.value
  return true
}

export function makeClosure (L: LuaState, proto: Proto, enclosing: TValue[], base: number): LuaClosure {
  const descriptions = proto.upvalues
  const count = descriptions.length
  const cached = proto.cache
  if (cached !== null) {
    let i = 0
    while (i < count) {
      const { instack, idx } = descriptions[i]!
      if (cached.upvals[i] !== (instack ? L.stack[base + idx] : enclosing[idx])) break
      i++
    }
    if (i === count) return cached
  }
  const closure = new Closure(L, count)
  closure.p = proto
  for (let i = 0; i < count; i++) {
    const { instack, idx } = descriptions[i]!
    closure.upvals[i] = instack ? L.stack[base + idx]! : enclosing[idx]!
  }
  proto.cache = closure
  return closure
}

lvm['luaV_gettable'] = (L: LuaState, object: TValue, key: TValue, at: number): void => { index(L, object, key, L.stack[at]!) }
lvm['settable'] = setIndex
lvm['luaV_objlen'] = (L: LuaState, out: TValue, object: TValue): void => { objectLength(L, object, out) }
lvm['luaV_concat'] = concatenate
