// What compiled code calls. A function that finds a value gives the TValue that holds it, to be read at once; null asks for the slow
// path, where the operands are put into their stack slots and operations.ts does what the instruction loop would have done.

import type { CallInfo, LuaClosure, LuaState, Table, TableEntry, TString, TValue } from '../fengari.js'
import { next, nextPosition } from '../base-library.js'
import { HostObject } from '../host-object.js'
import { chargeSteps, control } from '../limits.js'
import {
  appendValue, checkLimits, FLOAT, floatModulo, hashString, INTEGER, ldo, LIGHT_FUNCTION, lopcodes, lstate, LUA_CLOSURE, lvm, MULTIPLE_RESULTS, NIL, numberText, power,
  setPositions, STRING, TABLE, tableLength, tableSet, LuaTable, textString, USERDATA, Value
} from '../lua.js'
import { callLibrary, closeUpvalues, enterLua, leave, openSlots, prepareCall, setTop } from '../lua-frame.js'
import * as integer from '../lua-integer.js'
import { LuaString, sameString, TEXT_CHARS_MAX } from '../lua-string.js'
import { concatenate, copy, equal, index, lessEqual, lessThan, makeClosure, objectLength, setIndex } from '../operations.js'
import { RETURNED, runnable, TAILED } from './unit.js'

const NIL_VALUE = new Value(NIL, null)
const CALL_FRESH: number = lstate['CIST_FRESH']
const CALL_TAIL: number = lstate['CIST_TAIL']
const FIELDS_PER_FLUSH: number = lopcodes['LFIELDS_PER_FLUSH']

/** A place in the code that looks up one name, and what it found in a table that never changes. */
export class Site {
  readonly text: string
  readonly key: TValue
  /** Frozen; or the frozen metatable of an environment that does not have the name itself. */
  table: Table | null = null
  value: TValue = NIL_VALUE

  constructor (key: TValue) {
    this.key = key
    this.text = hashString(key.value)
  }
}

function put (stack: TValue[], at: number, type: number, value: unknown): void {
  const slot = stack[at]!
  slot.type = type
  slot.value = value
}

const HOPS_MAX = 16

/** `table.name`, through `__index` tables. */
function field (table: Table, site: Site): TValue | null {
  if (site.table === table) return site.value
  const found = table.strong.get(site.text)
  if (found !== undefined) {
    if (table.frozen) {
      site.table = table
      site.value = found.value
    }
    return found.value
  }
  return table.metatable === null ? NIL_VALUE : inherited(table, site)
}

function inherited (table: Table, site: Site): TValue | null {
  let from = table
  for (let hop = 0; hop < HOPS_MAX; hop++) {
    if (from.metatable === null) return NIL_VALUE
    const next = from.metatable.strong.get('__index')
    if (next === undefined) return NIL_VALUE
    if (next.value.type !== TABLE) return null
    from = next.value.value as Table
    const found = from.strong.get(site.text)
    if (found !== undefined) return found.value
  }
  return null
}

/** A global: in the environment of the call, or behind it where nothing changes. */
function global (environment: Table, site: Site): TValue | null {
  const own = environment.strong.get(site.text)
  if (own !== undefined) return own.value
  if (site.table !== null && site.table === environment.metatable) return site.value
  const found = inherited(environment, site)
  if (found !== null && found !== NIL_VALUE && isFrozenFrom(environment, site)) {
    site.table = environment.metatable
    site.value = found
  }
  return found
}

function isFrozenFrom (environment: Table, site: Site): boolean {
  let from = environment
  for (;;) {
    if (from.metatable?.frozen !== true) return false
    from = from.metatable.strong.get('__index')!.value.value
    if (!from.frozen) return false
    if (from.strong.has(site.text)) return true
  }
}

function at (table: Table, key: number | bigint): TValue | null {
  if (typeof key === 'number' && key > 0 && key <= table.array.length) {
    const value = table.array[key - 1]!
    if (value.type !== NIL) return value
    return table.metatable === null ? NIL_VALUE : null
  }
  const found = table.strong.get(key)
  return found !== undefined ? found.value : table.metatable === null ? NIL_VALUE : null
}

function keyed (table: Table, type: number, key: any): TValue | null {
  if (type === INTEGER) return at(table, key)
  if (type !== STRING) return null
  const found = table.strong.get(hashString(key))
  return found !== undefined ? found.value : table.metatable === null ? NIL_VALUE : null
}

function setField (table: Table, site: Site, type: number, value: unknown): boolean {
  if (type === NIL || table.frozen) return false
  const found = table.strong.get(site.text)
  if (found !== undefined) {
    found.value.type = type
    found.value.value = value
    return true
  }
  return false
}

function setAt (table: Table, key: any, type: number, value: unknown): boolean {
  if (table.frozen || type === NIL || typeof key !== 'number' || key <= 0) return false
  const { array } = table
  if (key <= array.length) {
    const slot = array[key - 1]!
    if (slot.type === NIL && table.metatable !== null) return false
    slot.type = type
    slot.value = value
    return true
  }
  if (key !== array.length + 1 || table.metatable !== null) return false
  appendValue(table, type, value)
  return true
}

function setKeyed (table: Table, keyType: number, key: any, type: number, value: unknown): boolean {
  if (keyType === INTEGER) return setAt(table, key, type, value)
  if (keyType !== STRING || type === NIL || table.frozen) return false
  const found = table.strong.get(hashString(key))
  if (found !== undefined) {
    found.value.type = type
    found.value.value = value
    return true
  }
  if (table.metatable !== null) return false
  tableSet(null as unknown as LuaState, table, new Value(keyType, key), new Value(type, value))
  table.flags = 0
  return true
}

function indexSlow (L: LuaState, object: TValue, key: TValue, out: TValue): TValue {
  index(L, object, key, out)
  return out
}

function selfSlow (L: LuaState, object: TValue, key: TValue, out: TValue): TValue {
  if (object.type === USERDATA && object.value instanceof HostObject) object.value.luaSelf(L, key, out)
  else index(L, object, key, out)
  return out
}

function stringMethod (L: LuaState, site: Site): TValue | null {
  const next = L.l_G.mt[4]?.strong.get('__index')?.value
  return next?.type === TABLE ? field(next.value, site) : null
}

/** Joins the values of the slots into the first of them. */
function concat (L: LuaState, from: number, count: number): TValue {
  const { stack } = L
  let text = ''
  for (let i = from; ; i++) {
    if (i === from + count) {
      if (text.length > TEXT_CHARS_MAX) break
      const first = stack[from]!
      first.value = textString(text)
      first.type = STRING
      if (control.steps <= 0) checkLimits(L)
      return first
    }
    const { type, value } = stack[i]!
    if (type === STRING && (value as TString).length <= TEXT_CHARS_MAX) text += hashString(value)
    else if (type === INTEGER) text += String(value)
    else if (type === FLOAT) text += numberText(stack[i]!)
    else break
  }
  const top = L.ci.top
  L.top = from + count
  concatenate(L, count)
  openSlots(L, L.top, top)
  return stack[from]!
}

function lengthSlow (L: LuaState, object: TValue, out: TValue): TValue {
  objectLength(L, object, out)
  return out
}

function equalValues (L: LuaState, type: number, value: any, otherType: number, otherValue: any): boolean {
  if (type === otherType) {
    if (value === otherValue || type === NIL) return true
    if (type === STRING) return sameString(value, otherValue)
    if (type !== TABLE && type !== USERDATA) return false
  }
  return equal(L, new Value(type, value), new Value(otherType, otherValue))
}

function less (L: LuaState, type: number, value: unknown, otherType: number, otherValue: unknown): boolean {
  return lessThan(L, new Value(type, value), new Value(otherType, otherValue))
}

function lessOrEqual (L: LuaState, type: number, value: unknown, otherType: number, otherValue: unknown): boolean {
  return lessEqual(L, new Value(type, value), new Value(otherType, otherValue))
}

/** Calls what is at a stack position, its arguments above it up to the top; fixed results leave the frame as it was. */
function call (L: LuaState, ci: CallInfo, at: number, wanted: number): void {
  const func = L.stack[at]!
  if (func.type === LUA_CLOSURE) {
    const callee = enterLua(L, at, func, wanted)
    callee.depth = ci.depth + 1
    const closure: LuaClosure = func.value
    const unit = runnable(callee, closure.p)
    if (unit === null) lvm['luaV_execute'](L)
    else {
      let pc = unit(L, callee, closure.upvals, L.stack, callee.l_base)
      while (pc === TAILED) {
        const next = L.ci
        const taken: LuaClosure = next.func.value
        const unit = runnable(next, taken.p)
        if (unit === null) break
        pc = unit(L, next, taken.upvals, L.stack, next.l_base)
      }
      if (pc !== RETURNED) {
        if (pc >= 0) L.ci.l_savedpc = pc
        lvm['luaV_execute'](L)
      }
    }
  } else if (func.type === LIGHT_FUNCTION) callLibrary(L, at, func, wanted)
  else if (!prepareCall(L, at, wanted)) lvm['luaV_execute'](L)
  if (wanted !== MULTIPLE_RESULTS) openSlots(L, L.top, ci.top)
}

/** One step of a loop over a table by `next` or as `ipairs` goes; false when it must be called. Results are put where a call puts them. */
function iterate (L: LuaState, iterator: unknown, table: Table, to: number, type: number, key: any): boolean {
  const { stack } = L
  const { array } = table
  let entry: TableEntry | undefined
  let position = 0
  if (type === INTEGER && typeof key === 'number' && key >= 0 && key <= array.length) position = key
  else if (iterator !== next) return false
  else if (type === STRING || type === INTEGER) {
    entry = table.strong.get(type === STRING ? hashString(key) : key)
    if (entry === undefined) return false
    entry = entry.n
    position = -1
  } else if (type !== NIL) return false
  if (iterator === nextPosition) {
    const value = position < array.length ? array[position]! : undefined
    if (value === undefined || value.type === NIL) {
      if (table.metatable !== null || (value === undefined && table.strong.has(position + 1))) return false
      put(stack, to, NIL, null)
      put(stack, to + 1, NIL, null)
      return true
    }
    put(stack, to, INTEGER, position + 1)
    put(stack, to + 1, value.type, value.value)
    return true
  }
  if (iterator !== next || (position === 0 && type !== NIL)) return false
  if (position >= 0) {
    for (; position < array.length; position++) {
      const value = array[position]!
      if (value.type === NIL) continue
      put(stack, to, INTEGER, position + 1)
      put(stack, to + 1, value.type, value.value)
      return true
    }
    entry = table.f
  }
  put(stack, to, entry === undefined ? NIL : entry.key.type, entry === undefined ? null : entry.key.value)
  put(stack, to + 1, entry === undefined ? NIL : entry.value.type, entry === undefined ? null : entry.value.value)
  return true
}

/** A call in the place of a `return`: true when a Lua function has taken the frame over, false when a library function is done. */
function tailCall (L: LuaState, ci: CallInfo, closure: LuaClosure, base: number, at: number): boolean {
  const { stack } = L
  const callee = stack[at]!
  if (callee.type !== LUA_CLOSURE) {
    if (!prepareCall(L, at, MULTIPLE_RESULTS)) lvm['luaV_execute'](L)
    return false
  }
  if (closure.p.p.length > 0) closeUpvalues(L, closure.p, base, base)
  const to = ci.funcOff
  const moved = L.top - at
  for (let i = 0; i < moved; i++) copy(stack[to + i]!, stack[at + i]!)
  setTop(L, to + moved)
  const fresh = ci.callstatus & CALL_FRESH
  const { nresults, depth } = ci
  L.ci = ci.previous
  const next = enterLua(L, to, stack[to]!, nresults)
  next.callstatus |= fresh | CALL_TAIL
  next.depth = depth
  return true
}

function returnOne (L: LuaState, ci: CallInfo, type: number, value: unknown): number {
  const to = ci.funcOff
  if (ci.nresults === 1 || ci.nresults === MULTIPLE_RESULTS) {
    put(L.stack, to, type, value)
    L.ci = ci.previous
    L.top = to + 1
  } else {
    const first = ci.l_base
    put(L.stack, first, type, value)
    leave(L, ci, first, 1)
  }
  return RETURNED
}

function returnMany (L: LuaState, ci: CallInfo, first: number, count: number): number {
  leave(L, ci, first, count)
  return RETURNED
}

function varargs (L: LuaState, ci: CallInfo, parameters: number, to: number, wanted: number): void {
  const base = ci.l_base
  const available = Math.max(0, base - ci.funcOff - 1 - parameters)
  let count = wanted
  if (wanted < 0) {
    count = available
    chargeSteps(count >> 3)
    ldo['luaD_checkstack'](L, count)
    setTop(L, to + count)
  }
  for (let i = 0; i < count; i++) {
    if (i < available) copy(L.stack[to + i]!, L.stack[base - available + i]!)
    else put(L.stack, to + i, NIL, null)
  }
}

function setList (L: LuaState, ci: CallInfo, table: Table, at: number, count: number, page: number): void {
  setPositions(table, (page - 1) * FIELDS_PER_FLUSH + 1, L.stack, at, count < 0 ? L.top - at : count)
  openSlots(L, L.top, ci.top)
}

export const runtime = {
  control, put, field, global, at, keyed, setField, setAt, setKeyed, indexSlow, selfSlow, setIndex, stringMethod, concat, lengthSlow, equalValues,
  less, lessOrEqual, call, iterate, tailCall, returnOne, returnMany, varargs, setList, floatModulo, power, checkLimits, closeUpvalues, makeClosure, tableLength,
  sameString, LuaTable, LuaString, TAILED,
  modulo: integer.modulo, bitAnd: integer.bitAnd, bitOr: integer.bitOr, bitXor: integer.bitXor, shiftLeft: integer.shiftLeft, shiftRight: integer.shiftRight
}
