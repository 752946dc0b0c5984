// A loaded module, and the environment that its functions run in.
//
// A module's globals are a table that inherits from the frozen libraries; it is filled while the module loads and frozen then. During a
// call the global environment is a fresh table that inherits from the module's, so what a call assigns to a global is gone with the
// call. All functions of a module share one environment cell (the `_ENV` upvalue of its main chunk), so switching environments is one
// assignment; an environment nobody wrote to is used again.
//
// A module that requires others is linked to them, and their functions get a clean environment with its own: a call sees through all
// modules that it can reach what any call sees that starts anew.

import type { LuaState, Table, TableEntry, TValue } from './fengari.js'
import { hiddenMetatable } from './host-object.js'
import { freeze, ltable, LUA_CLOSURE, newTable, NIL, rawGet, rawSet, TABLE, tableValue, textOf, Value } from './lua.js'
import type { FunctionCounters } from './statistics.js'

/** A module did not compile, or failed while loading, or is not there. */
export class ModuleError extends Error {
  readonly line: number
  /** It waits for a module that it requires and that is not registered, directly or by one that waits itself. */
  readonly waiting: boolean

  constructor (line: number, message: string, waiting = false) {
    super(message)
    this.line = line
    this.waiting = waiting
  }
}

interface CallEnvironment {
  readonly table: Table
  readonly metatable: Table
}

const SELF_KEY = '_G'
const NIL_VALUE = new Value(NIL, null)
/** What every module has of its own, and none gives to another. */
const OWN_NAMES = new Set(['_G', 'require', 'load', 'loadstring'])

function isUntouched ({ table, metatable }: CallEnvironment): boolean {
  return table.strong.size === 1 && table.array.length === 0 && table.metatable === metatable && table.strong.get(SELF_KEY)?.value.value === table
}

function inheriting (from: Table): Table {
  const metatable = hiddenMetatable('environment')
  metatable.frozen = false
  rawSet(metatable, '__index', tableValue(from))
  freeze(metatable)
  return metatable
}

function * entriesOf (table: Table): Generator<[string, TableEntry]> {
  for (const [key, entry] of table.strong) if (typeof key === 'string' && entry.value.type !== NIL) yield [key, entry]
}

/** A function of a module, and where its calls are counted. */
export interface Callable {
  readonly fn: TValue
  readonly counters: FunctionCounters
}

/** Grows with every link between modules: what a module reaches is gathered anew then. */
let links = 0

export class LuaModule {
  /** File name. */
  readonly name: string
  readonly #cell: TValue
  readonly #globals: Table
  /** The functions that were called, kept by who calls them. */
  readonly callables = new Map<string, Callable>()
  readonly #callMetatable: Table
  readonly #required = new Set<LuaModule>()
  /** Globals of required modules, behind its own; null as long as there are none. */
  #imported: Table | null = null
  readonly #shared: Table
  #reachable: readonly LuaModule[] = []
  #reachableAt = 0
  #environment: CallEnvironment | null = null
  #enteredIn = 0
  /** What the main chunk returned, once it is through; or the table of globals, once somebody wanted it. */
  #exports: TValue | null = null
  #returnedNothing = true
  #loaded = false

  /** `cell` is the `_ENV` upvalue of the main chunk, `environment` what all modules share. */
  constructor (name: string, cell: TValue, environment: Table) {
    this.name = name
    this.#cell = cell
    this.#shared = environment
    this.#globals = newTable()
    rawSet(this.#globals, '_G', tableValue(this.#globals))
    this.#globals.metatable = inheriting(environment)
    this.#callMetatable = inheriting(this.#globals)
    cell.type = TABLE
    cell.value = this.#globals
  }

  /** Gives the module a global before its main chunk runs. */
  define (name: string, value: TValue): void {
    rawSet(this.#globals, name, value)
  }

  /** The main chunk is through. */
  finish (returned: TValue): void {
    if (returned.type !== NIL) {
      this.#exports = new Value(returned.type, returned.value)
      this.#returnedNothing = false
    }
    // A call finds its own environment under _G, not this one.
    rawSet(this.#globals, '_G', NIL_VALUE)
    freeze(this.#globals)
    if (this.#imported !== null) freeze(this.#imported)
    this.#loaded = true
  }

  /** A global function of the module, or undefined. */
  function (name: string): TValue | undefined {
    const value = rawGet(this.#globals, name) ?? (this.#imported === null ? undefined : rawGet(this.#imported, name))
    return value !== undefined && value.type === LUA_CLOSURE ? value : undefined
  }

  /** Names of its own global functions, in the order in which they were defined. */
  get functionNames (): string[] {
    const names: string[] = []
    for (const [key, { key: name, value }] of entriesOf(this.#globals)) if (!OWN_NAMES.has(key) && value.type === LUA_CLOSURE) names.push(textOf(name))
    return names
  }

  /** What `require` gives for it: what its main chunk returned, else a read-only table of the globals that it defines. */
  get exports (): TValue {
    if (this.#exports === null) {
      const table = newTable()
      for (const [key, { key: name, value }] of entriesOf(this.#globals)) {
        if (!OWN_NAMES.has(key)) ltable['luaH_setfrom'](null, table, name, new Value(value.type, value.value))
      }
      freeze(table)
      this.#exports = tableValue(table)
    }
    return this.#exports
  }

  /**
   * This module uses the other one from now on. When that one's main chunk returned nothing, its globals are seen as this module's too,
   * where this module has none of its own: as they are where all scripts share one state. While loading they stay, in a call they are gone with it.
   */
  link (L: LuaState, required: LuaModule): void {
    if (required !== this && !this.#required.has(required)) {
      this.#required.add(required)
      links++
    }
    if (required === this || !required.#returnedNothing) return
    const target = this.#loaded ? this.#environment?.table : this.#importing()
    if (target === undefined) return
    for (const table of [required.#imported, required.#globals]) {
      if (table === null) continue
      for (const [key, { key: name, value }] of entriesOf(table)) {
        if (OWN_NAMES.has(key) || (this.#loaded && this.#defines(key))) continue
        ltable['luaH_setfrom'](L, target, name, new Value(value.type, value.value))
      }
    }
  }

  #importing (): Table {
    if (this.#imported === null) {
      this.#imported = newTable()
      this.#imported.metatable = inheriting(this.#shared)
      this.#globals.metatable = inheriting(this.#imported)
    }
    return this.#imported
  }

  /** Whether the module or the call that runs has a global of its own of that key. */
  #defines (key: string): boolean {
    return this.#globals.strong.has(key) || this.#environment?.table.strong.has(key) === true
  }

  /** Gives the functions of the module, and of all that it reaches, a clean environment for a call, once. */
  enter (call: number): void {
    this.#clean(call)
    if (this.#required.size === 0) return
    if (this.#reachableAt !== links) {
      this.#reachable = this.#reach()
      this.#reachableAt = links
    }
    for (const module of this.#reachable) module.#clean(call)
  }

  #reach (): LuaModule[] {
    const found = new Set<LuaModule>([this])
    for (const module of found) for (const required of module.#required) found.add(required)
    found.delete(this)
    return [...found]
  }

  #clean (call: number): void {
    if (this.#enteredIn === call || !this.#loaded) return
    this.#enteredIn = call
    let environment = this.#environment
    if (environment === null || !isUntouched(environment)) {
      const table = newTable()
      rawSet(table, '_G', tableValue(table))
      table.metatable = this.#callMetatable
      environment = { table, metatable: this.#callMetatable }
      this.#environment = environment
    }
    this.#cell.type = TABLE
    this.#cell.value = environment.table
  }
}
