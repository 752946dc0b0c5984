// The object that a stream function is called with, and the Lua table `stream`. The methods `filter`, `map`, `aggregate`, `reduce` and
// `groupby` append an operation each and give the stream back; nothing runs before the function has returned it.

import type { LuaFunction, LuaState, Table, TValue } from './fengari.js'
import { callFunction, expect, functionTable, kindOf, STREAM_MESSAGE } from './collections-api.js'
import { hiddenMetatable, HostObject, objectValue } from './host-object.js'
import {
  argument, argumentCount, badArgument, functionValue, hashString, LIGHT_FUNCTION, LUA_CLOSURE, NIL, push, raise, rawSet, STRING,
  tableValue, Value
} from './lua.js'
import { returnable } from './record-api.js'
import { ScriptRecord } from './script-record.js'
import { checkStorable, ELEMENTS_MAX, LuaList, LuaMap } from './values.js'

export type StreamOperation =
  | { readonly kind: 'filter' | 'map' | 'reduce', readonly fn: TValue }
  | { readonly kind: 'aggregate', readonly fn: TValue, readonly init: TValue }

/** Operations of one stream; each value passes through all of them. */
const OPERATIONS_MAX = 256

/** Of clients' Lua, for those that read and write streams themselves. */
const OTHER_NAMES = ['read', 'write', 'readable', 'writeable', 'iterator', 'size']
const OTHER_MESSAGE = 'a stream is worked on by filter, map, aggregate, reduce and groupby only'

const streamMetatable = hiddenMetatable('stream')

export class LuaStream extends HostObject {
  readonly #operations: StreamOperation[] = []
  #closed = false

  constructor () {
    super(streamMetatable)
  }

  get kind (): string {
    return 'stream'
  }

  get operations (): readonly StreamOperation[] {
    return this.#operations
  }

  append (L: LuaState, operation: StreamOperation): void {
    if (this.#closed) raise(L, 'the stream of an earlier call, or one that runs already')
    if (this.#operations.length >= OPERATIONS_MAX) raise(L, `a stream cannot have more than ${OPERATIONS_MAX} operations`)
    this.#operations.push(operation)
  }

  /** Its operations are as they are from here on. */
  close (): void {
    this.#closed = true
  }

  luaIndex (_: LuaState, key: TValue, out: TValue): void {
    const method = key.type === STRING ? methods.get(hashString(key.value)) : undefined
    out.type = method === undefined ? NIL : LIGHT_FUNCTION
    out.value = method ?? null
  }
}

function stream (L: LuaState): LuaStream {
  if (argument(L, 1).value instanceof ScriptRecord) raise(L, STREAM_MESSAGE)
  return expect(L, 1, LuaStream, 'stream')
}

function checkFunction (L: LuaState, index: number): TValue {
  const value = argument(L, index)
  if (value.type !== LUA_CLOSURE && value.type !== LIGHT_FUNCTION) {
    badArgument(L, index, `function expected, got ${index > argumentCount(L) ? 'no value' : kindOf(value)}`)
  }
  return new Value(value.type, value.value)
}

/** The stream itself is what each method returns. */
function returned (L: LuaState): 1 {
  push(L, argument(L, 1))
  return 1
}

function appending (kind: 'filter' | 'map' | 'reduce'): LuaFunction {
  return L => {
    stream(L).append(L, { kind, fn: checkFunction(L, 2) })
    return returned(L)
  }
}

const operations: Record<string, LuaFunction> = {
  filter: appending('filter'),
  map: appending('map'),
  reduce: appending('reduce'),
  /** `aggregate(init, f)`: f(state, value) gives the next state, beginning with a copy of init. */
  aggregate: L => {
    const init = argument(L, 2)
    stream(L).append(L, { kind: 'aggregate', fn: checkFunction(L, 3), init: new Value(init.type, init.value) })
    return returned(L)
  },
  /** `groupby(f)`: a map of what f gives for a value to the list of the values that it gives this for. */
  groupby: L => {
    const target = stream(L)
    const fn = checkFunction(L, 2)
    target.append(L, { kind: 'aggregate', fn: functionValue(L => addToGroup(L, fn)), init: objectValue(LuaMap.of(new Map())) })
    target.append(L, { kind: 'reduce', fn: functionValue(mergeGroups) })
    return returned(L)
  }
}

const methods = new Map(Object.entries(operations))

function addToGroup (L: LuaState, keyOf: TValue): 1 {
  const groups = expect(L, 1, LuaMap, 'map')
  const value = returnable(argument(L, 2))
  checkStorable(L, value)
  const key = callFunction(L, keyOf, argument(L, 2))
  const group = groups.get(key)
  if (group === undefined) groups.set(L, key, objectValue(LuaList.of([new Value(value.type, value.value)])))
  else (group.value as LuaList).mutableItems().push(new Value(value.type, value.value))
  return returned(L)
}

/** Adds the second argument's groups to the first's. */
function mergeGroups (L: LuaState): 1 {
  const groups = expect(L, 1, LuaMap, 'map')
  for (const { key, value } of expect(L, 2, LuaMap, 'map').escapingEntries().values()) {
    const group = groups.get(key)
    if (group === undefined) groups.set(L, key, value)
    else {
      const items = (group.value as LuaList).mutableItems()
      for (const item of (value.value as LuaList).items) items.push(item)
      if (items.length > ELEMENTS_MAX) raise(L, `a list cannot hold more than ${ELEMENTS_MAX} elements`)
    }
  }
  return returned(L)
}

/** Adds the table `stream`: the methods as functions of a stream, too. */
export function installStream (environment: Table): void {
  const others = OTHER_NAMES.map((name): [string, LuaFunction] => [name, L => raise(L, OTHER_MESSAGE)])
  rawSet(environment, 'stream', tableValue(functionTable({ ...operations, ...Object.fromEntries(others) })))
}
