// An object of ours that a script holds: record, list, map, bytes and so on. To fengari it is a full userdata (it has the fields of
// one), and the interpreter calls its indexing methods directly, without a metamethod call in between.

import type { LuaFunction, LuaState, Table, TValue } from './fengari.js'
import { functionValue, newTable, NIL, pushTyped, raise, rawSet, stringValue, freeze, USERDATA, Value, BOOLEAN } from './lua.js'

const NO_USER_VALUE = new Value(NIL, null)

export abstract class HostObject {
  readonly id = 0
  readonly len = 0
  readonly uservalue = NO_USER_VALUE
  metatable: Table | null

  constructor (metatable: Table) {
    this.metatable = metatable
  }

  /** What fengari hands out for `lua_touserdata`. */
  get data (): this {
    return this
  }

  /** `out = self[key]`. */
  abstract luaIndex (L: LuaState, key: TValue, out: TValue): void

  /** `self[key] = value`; a nil value removes. */
  luaNewIndex (L: LuaState, _key: TValue, _value: TValue): void {
    raise(L, `attempt to modify a ${this.kind} value`)
  }

  /** `self:name(...)`: as `luaIndex`, where a name may deserve a better error than "nil value". */
  luaSelf (L: LuaState, key: TValue, out: TValue): void {
    this.luaIndex(L, key, out)
  }

  /** The name of the type in messages. */
  abstract get kind (): string
}

export function objectValue (object: HostObject): TValue {
  return new Value(USERDATA, object)
}

export function pushObject (L: LuaState, object: HostObject): 1 {
  return pushTyped(L, USERDATA, object)
}

export function isObject (value: TValue, type: Function): boolean {
  return value.type === USERDATA && value.value instanceof type
}

/** A metatable that scripts neither see nor change. */
export function hiddenMetatable (name: string, methods: Record<string, LuaFunction> = {}): Table {
  const table = newTable()
  rawSet(table, '__name', stringValue(name))
  rawSet(table, '__metatable', new Value(BOOLEAN, false))
  for (const [event, method] of Object.entries(methods)) rawSet(table, event, functionValue(method))
  freeze(table)
  return table
}
