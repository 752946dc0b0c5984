// Tables, in place of fengari's, which keep everything in a Map. Values of the keys 1, 2, 3, ... lie in an array; everything else in a
// Map from hash to entry, whose entries are linked in order of insertion for `next`.
//
// Invariants: the key `array.length + 1` is never in the Map, so a table without holes ends where its array ends; a value in the array
// that was removed is a nil in its place, since a traversal may stand on it; a removed entry of the Map stays findable by its key until
// the next insertion, for the same reason.

import type { LuaState, TValue } from './fengari.js'
import { FLOAT, INTEGER, ldebug, lobject, NIL, raise, STRING, Value } from './lua.js'
import { chargeSteps } from './limits.js'
import { hashString } from './lua-string.js'
import * as integer from './lua-integer.js'

export interface TableEntry {
  key: TValue
  value: TValue
  dead: boolean
  p: TableEntry | undefined
  n: TableEntry | undefined
}

/** What a table without entries has; nothing is ever put into it. */
const NOTHING = new Map<unknown, TableEntry>()

export class Table {
  readonly id: number
  array: TValue[] = []
  strong: Map<unknown, TableEntry> = NOTHING
  dead: Map<unknown, TableEntry> | null = null
  /** First and last entry. */
  f: TableEntry | undefined = undefined
  l: TableEntry | undefined = undefined
  metatable: Table | null = null
  /** Bits of metamethods that are known to be absent. */
  flags = ~0
  /** Writes by scripts are refused. */
  frozen = false

  constructor (L: { l_G: { id_counter: number } }) {
    this.id = L.l_G.id_counter++
  }
}

/** Where a key is in the Map; a key that is none raises. */
function hashOf (L: LuaState, key: TValue): unknown {
  switch (key.type) {
    case STRING: return hashString(key.value)
    case FLOAT: {
      const whole = integer.fromFloat(key.value)
      if (whole !== false) return whole
      if (Number.isNaN(key.value)) ldebug['luaG_runerror'](L, NAN_TEXT)
      return key.value
    }
    case NIL: return ldebug['luaG_runerror'](L, NIL_TEXT)
    default: return key.value
  }
}

const NIL_TEXT = new Uint8Array(Buffer.from('table index is nil'))
const NAN_TEXT = new Uint8Array(Buffer.from('table index is NaN'))

function inArray (table: Table, hash: unknown): hash is number {
  return typeof hash === 'number' && hash > 0 && hash <= table.array.length && Number.isInteger(hash)
}

/** The value of an integer key, or undefined; a nil that keeps a place counts as undefined. */
export function getInteger (table: Table, key: number | bigint): TValue | undefined {
  if (typeof key === 'number' && key > 0 && key <= table.array.length) {
    const value = table.array[key - 1]!
    return value.type === NIL ? undefined : value
  }
  return table.strong.get(key)?.value
}

export function getText (table: Table, text: string): TValue | undefined {
  return table.strong.get(text)?.value
}

export function tableGet (L: LuaState, table: Table, key: TValue): TValue | undefined {
  switch (key.type) {
    case STRING: return table.strong.get(hashString(key.value))?.value
    case INTEGER: return getInteger(table, key.value)
    case NIL: return undefined
    case FLOAT: {
      if (Number.isNaN(key.value)) return undefined
      const hash = hashOf(L, key)
      return typeof hash === 'number' && Number.isInteger(hash) ? getInteger(table, hash) : table.strong.get(hash)?.value
    }
    default: return table.strong.get(key.value)?.value
  }
}

function addEntry (table: Table, hash: unknown, key: TValue, value: TValue): void {
  if (table.dead !== null) table.dead = null
  const last = table.l
  const entry: TableEntry = { key, value, dead: false, p: last, n: undefined }
  if (last === undefined) table.f = entry
  else last.n = entry
  table.l = entry
  if (table.strong === NOTHING) table.strong = new Map()
  table.strong.set(hash, entry)
}

function removeEntry (table: Table, hash: unknown): void {
  const entry = table.strong.get(hash)
  if (entry === undefined) return
  entry.dead = true
  if (entry.p === undefined) table.f = entry.n
  else entry.p.n = entry.n
  if (entry.n === undefined) table.l = entry.p
  else entry.n.p = entry.p
  table.strong.delete(hash)
  table.dead ??= new Map()
  table.dead.set(hash, entry)
}

/** Moves what follows the end of the array from the Map. */
function absorb (table: Table): void {
  for (;;) {
    const next = table.array.length + 1
    const entry = table.strong.get(next)
    if (entry === undefined) return
    removeEntry(table, next)
    table.array.push(entry.value)
  }
}

/** Stores a copy of what is not nil at the end of the array. */
export function appendValue (table: Table, type: number, value: unknown): void {
  table.array.push(new Value(type, value))
  if (table.strong.size > 0) absorb(table)
}

export function setInteger (table: Table, key: number | bigint, value: TValue): void {
  const length = table.array.length
  if (typeof key === 'number' && key > 0 && key <= length) {
    const slot = table.array[key - 1]!
    slot.type = value.type
    slot.value = value.value
  } else if (key === length + 1) {
    if (value.type !== NIL) appendValue(table, value.type, value.value)
  } else setHashed(table, key, INTEGER, key, value)
}

function setHashed (table: Table, hash: unknown, keyType: number, key: unknown, value: TValue): void {
  if (value.type === NIL) {
    removeEntry(table, hash)
    return
  }
  const entry = table.strong.get(hash)
  if (entry !== undefined) {
    entry.value.type = value.type
    entry.value.value = value.value
  } else addEntry(table, hash, new Value(keyType, key), new Value(value.type, value.value))
}

/** Raw assignment, of a frozen table as well; `flags` is the caller's to reset. */
export function tableSet (L: LuaState, table: Table, key: TValue, value: TValue): void {
  if (key.type === INTEGER) {
    setInteger(table, key.value, value)
    return
  }
  const hash = hashOf(L, key)
  if (key.type === FLOAT && (typeof hash === 'bigint' || Number.isSafeInteger(hash))) setInteger(table, hash as number | bigint, value)
  else setHashed(table, hash, key.type, key.value, value)
}

/** Positions `from`, `from + 1`, ... of a table constructor: nils in between keep their places. */
export function setPositions (table: Table, from: number, values: readonly TValue[], at: number, count: number): void {
  let kept = count
  while (kept > 0 && values[at + kept - 1]!.type === NIL) kept--
  for (let i = 0; i < kept; i++) {
    const value = values[at + i]!
    if (value.type === NIL && table.array.length === from + i - 1) table.array.push(new Value(NIL, null))
    else setInteger(table, from + i, value)
  }
}

/** A border: a count n with t[n] present and t[n + 1] absent. */
export function tableLength (table: Table): number {
  const { array } = table
  let above = array.length
  if (above === 0 || array[above - 1]!.type !== NIL) return above
  let below = 0
  while (above - below > 1) {
    const middle = (above + below) >>> 1
    if (array[middle - 1]!.type === NIL) above = middle
    else below = middle
  }
  return below
}

function put (L: LuaState, at: number, keyType: number, key: unknown, value: TValue): true {
  const first = L.stack[at]!
  first.type = keyType
  first.value = key
  const second = L.stack[at + 1]!
  second.type = value.type
  second.value = value.value
  return true
}

/** Replaces the key at a stack position by the next one and its value; false at the end. */
function next (L: LuaState, table: Table, at: number): boolean {
  const key = L.stack[at]!
  let entry: TableEntry | undefined
  let position = 0
  if (key.type !== NIL) {
    const hash = hashOf(L, key)
    if (inArray(table, hash)) position = hash
    else {
      position = -1
      entry = table.strong.get(hash) ?? table.dead?.get(hash)
      if (entry === undefined) ldebug['luaG_runerror'](L, INVALID_KEY_TEXT)
      // The successors of a removed entry may be removed as well.
      let passed = 0
      do {
        entry = entry!.n
        passed++
      } while (entry?.dead === true)
      chargeSteps(passed >> 5)
    }
  }
  if (position >= 0) {
    const { array } = table
    const from = position
    while (position < array.length && array[position]!.type === NIL) position++
    chargeSteps((position - from) >> 5)
    if (position < array.length) return put(L, at, INTEGER, position + 1, array[position]!)
    entry = table.f
  }
  return entry === undefined ? false : put(L, at, entry.key.type, entry.key.value, entry.value)
}

const INVALID_KEY_TEXT = new Uint8Array(Buffer.from("invalid key to 'next'"))

/** The values of the string keys, in no promised order. */
export function * namedValues (table: Table): Generator<[string, TValue]> {
  for (let entry = table.f; entry !== undefined; entry = entry.n) {
    if (entry.key.type === STRING) yield [hashString(entry.key.value), entry.value]
  }
}

/** Every key and value. */
export function * tableEntries (table: Table): Generator<[TValue, TValue]> {
  for (const [i, value] of table.array.entries()) if (value.type !== NIL) yield [new Value(INTEGER, i + 1), value]
  for (let entry = table.f; entry !== undefined; entry = entry.n) yield [entry.key, entry.value]
}

/** Puts these tables in place of fengari's, which reaches its own through these names only. */
export function installTables (ltable: Record<string, unknown>): void {
  const nilValue: TValue = lobject['luaO_nilobject']
  Object.assign(ltable, {
    Table,
    luaH_new: (L: LuaState & { l_G: { id_counter: number } }) => new Table(L),
    luaH_get: (L: LuaState, table: Table, key: TValue) => tableGet(L, table, key) ?? nilValue,
    luaH_getint: (table: Table, key: number) => getInteger(table, key) ?? nilValue,
    luaH_getstr: (table: Table, key: Parameters<typeof hashString>[0]) => getText(table, hashString(key)) ?? nilValue,
    luaH_setint: setInteger,
    luaH_setfrom: (L: LuaState, table: Table, key: TValue, value: TValue) => {
      if (table.frozen) raise(L, 'attempt to modify a read-only table')
      tableSet(L, table, key, value)
    },
    luaH_getn: tableLength,
    luaH_next: next
  })
}
