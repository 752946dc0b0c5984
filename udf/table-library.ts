// The table library. Its functions walk over as many elements as a script likes, so every element is counted as a step.

import type { LuaFunction, LuaState, TValue } from './fengari.js'
import { spend } from './limits.js'
import {
  argument, argumentCount, badArgument, checkInteger, FLOAT, getInteger, hashString, INTEGER, isFalse, lapi, lauxlib, LuaTable, lvm, NIL,
  numberText, push, pushTyped, raise, rawSet, STRING, STRING_BYTES_MAX, TABLE, textString, typeName, Value
} from './lua.js'
import { latin1 } from './lua-string.js'
import { textBytes } from './string-library.js'

function checkTable (L: LuaState, index: number): void {
  if (argument(L, index).type !== TABLE) {
    badArgument(L, index, `table expected, got ${index > argumentCount(L) ? 'no value' : typeName(argument(L, index))}`)
  }
}

function lengthOf (L: LuaState, index: number): number {
  return lauxlib['luaL_len'](L, index) as number
}

/** `target[to] = source[from]`, with metamethods. */
function moveElement (L: LuaState, source: number, from: number, target: number, to: number): void {
  spend(1)
  lapi['lua_geti'](L, source, from)
  lapi['lua_seti'](L, target, to)
}

const insert: LuaFunction = L => {
  checkTable(L, 1)
  const end = lengthOf(L, 1) + 1
  const count = argumentCount(L)
  if (count !== 2 && count !== 3) raise(L, "wrong number of arguments to 'insert'")
  let position = end
  if (count === 3) {
    const given = checkInteger(L, 2)
    if (given < 1 || given > end) badArgument(L, 2, 'position out of bounds')
    position = Number(given)
    for (let i = end; i > position; i--) moveElement(L, 1, i - 1, 1, i)
  }
  lapi['lua_seti'](L, 1, position)
  return 0
}

const remove: LuaFunction = L => {
  checkTable(L, 1)
  const size = lengthOf(L, 1)
  const given = argumentCount(L) < 2 ? size : checkInteger(L, 2)
  if (given !== size && (given < 1 || given > size + 1)) badArgument(L, 2, 'position out of bounds')
  let position = Number(given)
  lapi['lua_geti'](L, 1, position)
  for (; position < size; position++) moveElement(L, 1, position + 1, 1, position)
  lapi['lua_pushnil'](L)
  lapi['lua_seti'](L, 1, position)
  return 1
}

/** A position that is counted on from; one beyond 2^53 is no position of any element. */
function checkPosition (L: LuaState, index: number): number {
  const value = checkInteger(L, index)
  if (typeof value === 'bigint') badArgument(L, index, 'too many elements')
  return value
}

const move: LuaFunction = L => {
  checkTable(L, 1)
  const from = checkPosition(L, 2)
  const last = checkPosition(L, 3)
  const to = checkPosition(L, 4)
  const target = argument(L, 5).type === NIL ? 1 : 5
  checkTable(L, target)
  const isUpward = to > last || to <= from || (target !== 1 && argument(L, 5).value !== argument(L, 1).value)
  if (isUpward) for (let i = from; i <= last; i++) moveElement(L, 1, i, target, to + i - from)
  else for (let i = last; i >= from; i--) moveElement(L, 1, i, target, to + i - from)
  lapi['lua_pushvalue'](L, target)
  return 1
}

const pack: LuaFunction = L => {
  const count = argumentCount(L)
  const table = new LuaTable(L)
  pushTyped(L, TABLE, table)
  lapi['lua_insert'](L, 1)
  for (let i = count; i >= 1; i--) lapi['lua_seti'](L, 1, i)
  rawSet(table, 'n', new Value(INTEGER, count))
  return 1
}

const unpack: LuaFunction = L => {
  const from = argument(L, 2).type === NIL ? 1 : checkPosition(L, 2)
  const last = argument(L, 3).type === NIL ? lengthOf(L, 1) : checkPosition(L, 3)
  if (from > last) return 0
  const count = last - from + 1
  if (count >= 0x7fffffff || !(lapi['lua_checkstack'](L, count) as boolean)) raise(L, 'too many results to unpack')
  for (let i = from; i <= last; i++) {
    spend(1)
    lapi['lua_geti'](L, 1, i)
  }
  return count
}

/** The text of the value on top of the stack, which is popped; a character is a byte. */
function popText (L: LuaState, index: number): string {
  const value = L.stack[L.top - 1]!
  L.top--
  if (value.type === STRING) return hashString(value.value)
  if ((value.type & 15) !== FLOAT) raise(L, `invalid value (at index ${index}) in table for 'concat'`)
  return numberText(value)
}

const concatenate: LuaFunction = L => {
  checkTable(L, 1)
  const separator = argument(L, 2).type === NIL ? '' : latin1(textBytes(L, 2))
  const from = argument(L, 3).type === NIL ? 1 : checkPosition(L, 3)
  const last = argument(L, 4).type === NIL ? lengthOf(L, 1) : checkPosition(L, 4)
  const { value: table } = argument(L, 1)
  const parts: string[] = []
  let bytes = 0
  for (let i = from; i <= last; i++) {
    spend(1)
    const found = getInteger(table, i)
    if (found !== undefined) push(L, found)
    else lapi['lua_geti'](L, 1, i)
    const part = popText(L, i)
    bytes += part.length + (i < last ? separator.length : 0)
    if (bytes > STRING_BYTES_MAX) raise(L, `string longer than ${STRING_BYTES_MAX} bytes`)
    parts.push(part)
  }
  return pushTyped(L, STRING, textString(parts.join(separator)))
}

/** Whether a is before b: by the function at argument 2, or by `<`. */
function isBefore (L: LuaState, order: TValue | null, a: TValue, b: TValue): boolean {
  spend(1)
  if (order === null) {
    if (a.type === INTEGER && b.type === INTEGER) return a.value < b.value
    return Number(lvm['luaV_lessthan'](L, a, b)) === 1
  }
  push(L, order)
  push(L, a)
  push(L, b)
  lapi['lua_call'](L, 2, 1)
  const truth = !isFalse(L.stack[L.top - 1]!)
  lapi['lua_pop'](L, 1)
  return truth
}

/** Sorts by merging: any function is good for some order, and elements of equal rank stay as they are. */
const sort: LuaFunction = L => {
  checkTable(L, 1)
  const count = lengthOf(L, 1)
  let order: TValue | null = null
  if (argument(L, 2).type !== NIL) {
    if (typeName(argument(L, 2)) !== 'function') badArgument(L, 2, `function expected, got ${typeName(argument(L, 2))}`)
    order = new Value(argument(L, 2).type, argument(L, 2).value)
  }
  let items: TValue[] = []
  for (let i = 1; i <= count; i++) {
    spend(1)
    lapi['lua_geti'](L, 1, i)
    const value = L.stack[L.top - 1]!
    items.push(new Value(value.type, value.value))
    lapi['lua_pop'](L, 1)
  }
  let merged: TValue[] = new Array(count)
  for (let width = 1; width < count; width *= 2) {
    for (let low = 0; low < count; low += 2 * width) {
      const middle = Math.min(low + width, count)
      const high = Math.min(low + 2 * width, count)
      let left = low
      let right = middle
      for (let to = low; to < high; to++) {
        const isRight = left === middle || (right < high && isBefore(L, order, items[right]!, items[left]!))
        merged[to] = isRight ? items[right++]! : items[left++]!
      }
    }
    [items, merged] = [merged, items]
  }
  for (let i = 1; i <= count; i++) {
    spend(1)
    push(L, items[i - 1]!)
    lapi['lua_seti'](L, 1, i)
  }
  return 0
}

export const tableFunctions: Record<string, LuaFunction> = { concat: concatenate, insert, move, pack, remove, sort, unpack }
