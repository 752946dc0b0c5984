// The Lua tables `list`, `map`, `iterator`, `geojson` and `math.sum`/`math.product`. Positions count from 1.

import type { LuaFunction, LuaState, Table, TValue } from './fengari.js'
import { hiddenMetatable, HostObject, isObject, objectValue, pushObject } from './host-object.js'
import {
  argument, argumentCount, arithmetic, Arithmetic, badArgument, checkCount, checkInteger, functionValue, getInteger, INTEGER, luaString, newTable,
  NIL, push, pushBoolean, pushInteger, pushNil, pushTyped, raise, rawSet, STRING, TABLE, tableEntries, tableValue, typeName, Value
} from './lua.js'
import { callValueNoYield } from './lua-frame.js'
import { ByteWriter } from './byte-writer.js'
import { chargeBytes, spend } from './limits.js'
import { encodeParticle } from './particle.js'
import { checkBytes } from './string-library.js'
import { describe, ELEMENTS_MAX, listMetatable, LuaGeoJson, LuaList, LuaMap, mapMetatable, setMethods, storageProblem, ValueError } from './values.js'
import type { MapEntry } from './values.js'

// `pairs` walks both kinds: a list by position and value.
rawSet(listMetatable, '__pairs', functionValue(L => {
  const source = list(L)
  pushObject(L, new LuaIterator(position => {
    const value = source.at(position + 1)
    return value === undefined ? undefined : [new Value(INTEGER, position + 1), value]
  }))
  pushNil(L)
  pushNil(L)
  return 3
}))
rawSet(mapMetatable, '__pairs', functionValue(L => {
  pushObject(L, mapIterator(map(L), ({ key, value }) => [key, value]))
  pushNil(L)
  pushNil(L)
  return 3
}))

/** A class of ours, whatever its constructor. */
export interface HostClass<T extends HostObject> extends Function {
  readonly prototype: T
}

export function kindOf (value: TValue): string {
  return value.value instanceof HostObject ? value.value.kind : typeName(value)
}

export function expect<T extends HostObject> (L: LuaState, index: number, type: HostClass<T>, name: string): T {
  const value = argument(L, index)
  if (!isObject(value, type)) badArgument(L, index, `${name} expected, got ${index > argumentCount(L) ? 'no value' : kindOf(value)}`)
  return value.value
}

function list (L: LuaState, index = 1): LuaList {
  return expect(L, index, LuaList, 'list')
}

function map (L: LuaState, index = 1): LuaMap {
  return expect(L, index, LuaMap, 'map')
}

/** An argument to be kept: a copy, since stack slots are reused. */
function kept (L: LuaState, index: number): TValue {
  const value = argument(L, index)
  const problem = storageProblem(value)
  if (problem !== null) badArgument(L, index, problem)
  return new Value(value.type, value.value)
}

function checkRoom (L: LuaState, elements: number): void {
  if (elements > ELEMENTS_MAX) raise(L, `a list cannot hold more than ${ELEMENTS_MAX} elements`)
}

/** Sizes of encoded values, as `list.nbytes` reports them. */
export function encodedBytes (L: LuaState, value: TValue): number {
  const writer = new ByteWriter(256)
  try {
    encodeParticle(writer, value)
  } catch (error) {
    if (error instanceof ValueError) raise(L, error.message)
    throw error
  }
  return writer.length
}

// ---- iterators ----

const iteratorMetatable = hiddenMetatable('iterator', { __call: L => pushNext(L, L.stack[L.ci.funcOff + 1]!.value) })

/** Walks a list or a map; usable in `for ... in` and with `iterator.has_next` and `iterator.next`. */
class LuaIterator extends HostObject {
  #position = 0
  readonly #at: (position: number) => readonly TValue[] | undefined

  constructor (at: (position: number) => readonly TValue[] | undefined) {
    super(iteratorMetatable)
    this.#at = at
  }

  get kind (): string {
    return 'iterator'
  }

  get hasNext (): boolean {
    return this.#at(this.#position) !== undefined
  }

  next (): readonly TValue[] | undefined {
    const values = this.#at(this.#position)
    if (values !== undefined) this.#position++
    return values
  }

  luaIndex (_: LuaState, __: TValue, out: TValue): void {
    out.type = NIL
    out.value = null
  }
}

function pushNext (L: LuaState, iterator: LuaIterator): number {
  const values = iterator.next()
  if (values === undefined) return pushNil(L)
  for (const value of values) push(L, value)
  return values.length
}

function listIterator (source: LuaList): LuaIterator {
  return new LuaIterator(position => {
    const value = source.at(position + 1)
    return value === undefined ? undefined : [value]
  })
}

function mapIterator (source: LuaMap, take: (entry: MapEntry) => TValue[]): LuaIterator {
  spendElements(source.size)
  // Over the entries of this moment: the script may change the map meanwhile.
  const entries = [...source.escapingEntries().values()]
  return new LuaIterator(position => position < entries.length ? take(entries[position]!) : undefined)
}

// ---- list ----

/** The sequence part of a Lua table, 1 up to the first nil. */
function sequenceOf (L: LuaState, index: number): TValue[] {
  const table: Table = argument(L, index).value
  const items: TValue[] = []
  for (let i = 1; ; i++) {
    const value = getInteger(table, i)
    if (value === undefined) return items
    spend(1)
    checkRoom(L, i)
    const problem = storageProblem(value)
    if (problem !== null) badArgument(L, index, `element ${i}: ${problem}`)
    items.push(new Value(value.type, value.value))
  }
}

function newList (L: LuaState, index: number): number {
  const source = argument(L, index)
  if (source.type === TABLE) return pushObject(L, LuaList.of(sequenceOf(L, index)))
  // A capacity, which there is no need to reserve.
  if (source.type !== NIL) checkInteger(L, index)
  return pushObject(L, LuaList.of([]))
}

/** Steps of copying or moving so many elements. */
function spendElements (count: number): void {
  spend(count >> 3)
}

function cloneList (source: LuaList): LuaList {
  spendElements(source.size)
  return LuaList.of(source.items.map((_, i) => source.at(i + 1)!), source.flags)
}

const listFunctions: Record<string, LuaFunction> = {
  create: L => newList(L, 1),
  size: L => pushInteger(L, list(L).size),
  append: L => {
    const items = list(L).mutableItems()
    checkRoom(L, items.length + 1)
    items.push(kept(L, 2))
    return 0
  },
  prepend: L => {
    const items = list(L).mutableItems()
    checkRoom(L, items.length + 1)
    spendElements(items.length)
    items.unshift(kept(L, 2))
    return 0
  },
  insert: L => {
    const target = list(L)
    const position = checkCount(L, 2)
    const value = kept(L, 3)
    if (position < 1 || position > ELEMENTS_MAX) badArgument(L, 2, 'position out of range')
    const items = target.mutableItems()
    checkRoom(L, items.length + 1)
    spendElements(Math.max(position, items.length) - Math.min(position, items.length))
    while (items.length < position - 1) items.push(new Value(NIL, null))
    items.splice(position - 1, 0, value)
    return 0
  },
  remove: L => {
    const target = list(L)
    const position = checkCount(L, 2)
    spendElements(Math.max(0, target.size - position))
    if (position >= 1 && position <= target.size) target.mutableItems().splice(position - 1, 1)
    return 0
  },
  /** Removes the element at the position and all after it. */
  trim: L => {
    const target = list(L)
    const position = checkCount(L, 2)
    if (position >= 1 && position <= target.size) target.mutableItems().length = position - 1
    return 0
  },
  /** A new list of the first n elements. */
  take: L => {
    const all = cloneList(list(L)).mutableItems()
    return pushObject(L, LuaList.of(all.slice(0, Math.max(0, checkCount(L, 2)))))
  },
  /** A new list without the first n elements. */
  drop: L => {
    const all = cloneList(list(L)).mutableItems()
    return pushObject(L, LuaList.of(all.slice(Math.max(0, checkCount(L, 2)))))
  },
  /** Appends the elements of the second list to the first. */
  concat: L => {
    const target = list(L)
    const more = cloneList(list(L, 2)).mutableItems()
    const items = target.mutableItems()
    checkRoom(L, items.length + more.length)
    for (const value of more) items.push(new Value(value.type, value.value))
    return 0
  },
  merge: L => {
    const merged = [...cloneList(list(L)).mutableItems(), ...cloneList(list(L, 2)).mutableItems()]
    checkRoom(L, merged.length)
    return pushObject(L, LuaList.of(merged.map(value => new Value(value.type, value.value))))
  },
  clone: L => {
    const source = list(L)
    return pushObject(L, LuaList.of(cloneList(source).mutableItems().map(value => new Value(value.type, value.value)), source.flags))
  },
  iterator: L => pushObject(L, listIterator(list(L))),
  nbytes: L => pushInteger(L, encodedBytes(L, objectValue(list(L)))),
  tostring: L => pushTyped(L, STRING, luaString(new Uint8Array(Buffer.from(describe(objectValue(list(L)), 0))))),
  get: L => {
    const value = list(L).at(checkCount(L, 2))
    return value === undefined ? pushNil(L) : (push(L, value), 1)
  },
  set: L => {
    list(L).setAt(L, checkCount(L, 2), kept(L, 3))
    return 0
  }
}

// ---- map ----

function newMap (L: LuaState, index: number): number {
  const made = LuaMap.of(new Map())
  const source = argument(L, index)
  if (source.type === TABLE) {
    for (const [key, item] of tableEntries(source.value as Table)) {
      spend(1)
      for (const value of [key, item]) {
        const problem = storageProblem(value)
        if (problem !== null) badArgument(L, index, problem)
      }
      made.set(L, key, item)
    }
  } else if (source.type !== NIL) checkInteger(L, index)
  return pushObject(L, made)
}

function copyEntries (L: LuaState, from: LuaMap, into: LuaMap): void {
  spendElements(from.size)
  for (const entry of from.escapingEntries().values()) into.adopt(L, entry)
}

/** Calls a function with one or two values, from within a library function; its result, or nil. */
export function callFunction (L: LuaState, fn: TValue, first: TValue, second?: TValue): TValue {
  const at = L.top
  push(L, fn)
  push(L, first)
  if (second !== undefined) push(L, second)
  callValueNoYield(L, at, 1)
  const { type, value } = L.stack[at]!
  const result = new Value(type, value)
  L.top = at
  return result
}

function optionalFunction (L: LuaState, index: number): TValue | undefined {
  const value = argument(L, index)
  if (value.type === NIL) return undefined
  if (typeName(value) !== 'function') badArgument(L, index, 'function expected')
  return new Value(value.type, value.value)
}

const mapFunctions: Record<string, LuaFunction> = {
  create: L => newMap(L, 1),
  size: L => pushInteger(L, map(L).size),
  pairs: L => pushObject(L, mapIterator(map(L), ({ key, value }) => [key, value])),
  iterator: L => pushObject(L, mapIterator(map(L), ({ key, value }) => [key, value])),
  keys: L => pushObject(L, mapIterator(map(L), ({ key }) => [key])),
  values: L => pushObject(L, mapIterator(map(L), ({ value }) => [value])),
  remove: L => {
    map(L).remove(argument(L, 2))
    return 0
  },
  clone: L => {
    const source = map(L)
    const made = LuaMap.of(new Map(), source.flags)
    copyEntries(L, source, made)
    return pushObject(L, made)
  },
  /** A new map of both; where both have a key, the function of the two values decides, else the second. */
  merge: L => {
    const first = map(L)
    const second = map(L, 2)
    const decide = optionalFunction(L, 3)
    const made = LuaMap.of(new Map())
    copyEntries(L, first, made)
    spendElements(second.size)
    for (const { key, value } of [...second.escapingEntries().values()]) {
      const before = decide === undefined ? undefined : first.get(key)
      if (before !== undefined) made.set(L, key, callFunction(L, decide!, before, value))
      else if (value.type === NIL) made.adopt(L, { key, value })
      else made.set(L, key, value)
    }
    return pushObject(L, made)
  },
  /** A new map of the entries whose key only one of the two has. */
  diff: L => {
    const first = map(L)
    const second = map(L, 2)
    const made = LuaMap.of(new Map())
    for (const [one, other] of [[first, second], [second, first]] as const) {
      spendElements(one.size)
      for (const entry of one.escapingEntries().values()) if (other.get(entry.key) === undefined) made.adopt(L, entry)
    }
    return pushObject(L, made)
  },
  nbytes: L => pushInteger(L, encodedBytes(L, objectValue(map(L)))),
  tostring: L => pushTyped(L, STRING, luaString(new Uint8Array(Buffer.from(describe(objectValue(map(L)), 0))))),
  get: L => {
    const value = map(L).get(argument(L, 2))
    return value === undefined ? pushNil(L) : (push(L, value), 1)
  },
  set: L => {
    map(L).set(L, argument(L, 2), argument(L, 3))
    return 0
  }
}

const iteratorFunctions: Record<string, LuaFunction> = {
  has_next: L => pushBoolean(L, expect(L, 1, LuaIterator, 'iterator').hasNext),
  next: L => pushNext(L, expect(L, 1, LuaIterator, 'iterator'))
}

export function functionTable (functions: Record<string, LuaFunction>, call?: LuaFunction): Table {
  const table = newTable()
  for (const [name, fn] of Object.entries(functions)) rawSet(table, name, functionValue(fn))
  if (call !== undefined) table.metatable = hiddenMetatable('library', { __call: call })
  return table
}

export const STREAM_MESSAGE = 'stream functions are not available: this function was called with a record'

/** Adds the tables to an environment that is not frozen yet. */
export function installCollections (environment: Table): void {
  const add = (name: string, table: Table): void => { rawSet(environment, name, tableValue(table)) }
  const lists = functionTable(listFunctions, L => newList(L, 2))
  const maps = functionTable(mapFunctions, L => newMap(L, 2))
  add('list', lists)
  add('map', maps)
  add('iterator', functionTable(iteratorFunctions))
  const geo: LuaFunction = L => {
    const json = Uint8Array.from(checkBytes(L, 2))
    chargeBytes(json.length)
    return pushObject(L, new LuaGeoJson(json, null))
  }
  const locations = functionTable({
    tostring: L => pushTyped(L, STRING, luaString(Uint8Array.from(expect(L, 1, LuaGeoJson, 'geojson').json)))
  }, geo)
  add('geojson', locations)
  setMethods('list', lists)
  setMethods('map', maps)
  setMethods('geojson', locations)
}

/** `math.sum(a, b)` and `math.product(a, b)`: the usual reducers. */
export function installReducers (math: Table): void {
  for (const [name, operation] of [['sum', Arithmetic.ADD], ['product', Arithmetic.MUL]] as const) {
    rawSet(math, name, functionValue(L => {
      const result = new Value(INTEGER, 0)
      arithmetic(L, operation, argument(L, 1), argument(L, 2), result)
      push(L, result)
      return 1
    }))
  }
}
