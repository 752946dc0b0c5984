// One Lua virtual machine: loads modules, calls their functions, keeps calls apart from each other and within their time.
//
// Environments. All calls share the frozen libraries. A module's globals are a table that inherits from them; it is filled while
// the module loads and frozen then. During a call the global environment is a fresh table that inherits from the module's, so
// what a call assigns to a global is gone with the call. All functions of a module share one environment cell (the `_ENV` upvalue
// of its main chunk), so switching environments is one assignment; an environment nobody wrote to is used again.

import type { LuaClosure, LuaFunction, LuaState, Table, TValue } from './fengari.js'
import { hiddenMetatable, HostObject, objectValue } from './host-object.js'
// Puts the instruction loop in place of fengari's.
import './interpreter.js'
import { control, startClock } from './limits.js'
import {
  freeze, functionValue, INTEGER, FLOAT, lapi, lauxlib, LUA_CLOSURE, newTable, NIL, push, rawGet, rawSet, STATUS_OK, STRING, stringValue, TABLE, tableValue,
  textOf, typeName, Value
} from './lua.js'
import { floatText } from './lua-format.js'
import { installBytes } from './bytes-api.js'
import { installCollections, installReducers } from './collections-api.js'
import { failure, installRecord } from './record-api.js'
import type { LuaRecord } from './record-api.js'
import { buildEnvironment, freezeEnvironment } from './sandbox.js'
import { installStream } from './stream-api.js'
import { format, textBytes } from './string-library.js'
import { ValueError } from './values.js'
import { ResultCode } from '../src/engine/constants.js'

/** Log levels as scripts name them. */
export const LogLevel = { WARN: 1, INFO: 2, DEBUG: 3, TRACE: 4 } as const

export interface LogLine {
  /** 1 warn, 2 info, 3 debug, 4 trace. */
  readonly level: number
  /** File name, as `mymodule.lua`. */
  readonly module: string
  readonly line: number
  readonly message: string
}

export interface VmOptions {
  readonly log?: (line: LogLine) => void
  /** Levels above this one are not even formatted. */
  readonly logLevel?: number
  /** Time for the main chunk of a module. */
  readonly loadTimeLimitMs?: number
}

/** A module did not compile, or failed while loading. */
export class ModuleError extends Error {
  readonly line: number

  constructor (line: number, message: string) {
    super(message)
    this.line = line
  }
}

export type CallOutcome =
  | { readonly ok: true, readonly value: TValue }
  | { readonly ok: false, readonly code: number, readonly message: string }

/** Milliseconds a main chunk may run. */
export const LOAD_TIME_LIMIT_MS = 1000
const MESSAGE_CHARS_MAX = 4096

/** Turns a JavaScript error under a script into a Lua error with the script's position. */
function nativeError (L: LuaState): number {
  const error: unknown = L.stack[L.top - 1]!.value
  const text = error instanceof Error ? error.message : String(error)
  let message = `internal error: ${text}`
  if (error instanceof ValueError) message = text
  else if (error instanceof RangeError) message = text === 'Maximum call stack size exceeded' ? 'stack overflow' : text
  else if (text === 'invalid argument') message = 'integer argument out of range'
  else if (text === 'stack overflow') message = text
  // The frame that failed may be a library function; then its caller has the line.
  for (const level of [1, 2]) {
    lauxlib['luaL_where'](L, level)
    const position = textOf(L.stack[L.top - 1]!)
    lapi['lua_pop'](L, 1)
    if (position !== '') {
      message = position + message
      break
    }
  }
  push(L, stringValue(message))
  return 1
}

interface CallEnvironment {
  readonly table: Table
  readonly metatable: Table
}

/** A loaded module. */
export class LuaModule {
  readonly name: string
  readonly #cell: TValue
  readonly #globals: Table
  readonly #callMetatable: Table
  #environment: CallEnvironment | null = null

  constructor (name: string, cell: TValue, globals: Table) {
    this.name = name
    this.#cell = cell
    this.#globals = globals
    this.#callMetatable = hiddenMetatable('environment')
    this.#callMetatable.frozen = false
    rawSet(this.#callMetatable, '__index', tableValue(globals))
    freeze(this.#callMetatable)
  }

  /** A global function of the module, or undefined. */
  function (name: string): TValue | undefined {
    const value = rawGet(this.#globals, name)
    return value !== undefined && value.type === LUA_CLOSURE ? value : undefined
  }

  /** Gives the functions a clean environment and returns it. */
  enter (): TValue {
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
    return this.#cell
  }
}

const SELF_KEY = '|_G'
const NIL_VALUE = new Value(NIL, null)

function isUntouched ({ table, metatable }: CallEnvironment): boolean {
  return table.strong.size === 1 && table.metatable === metatable && table.strong.get(SELF_KEY)?.value.value === table
}

export class LuaVm {
  readonly #L: LuaState
  readonly #environment: Table
  readonly #log: (line: LogLine) => void
  readonly #logLevel: number
  readonly #loadTimeLimitMs: number
  /** The environment of what runs now, for `load`. */
  #current: TValue

  constructor (options: VmOptions = {}) {
    this.#log = options.log ?? (() => {})
    this.#logLevel = options.logLevel ?? LogLevel.INFO
    this.#loadTimeLimitMs = options.loadTimeLimitMs ?? LOAD_TIME_LIMIT_MS
    const L: LuaState = lauxlib['luaL_newstate']()
    this.#L = L
    lapi['lua_atnativeerror'](L, nativeError)
    const environment = buildEnvironment(L, () => this.#current, L => {
      this.#print(L)
      return 0
    })
    installCollections(environment)
    installReducers(rawGet(environment, 'math')!.value)
    installBytes(environment)
    installStream(environment)
    installRecord(environment, {
      format: (L, level) => { if (level <= this.#logLevel) this.#emit(L, level, Buffer.from(format(L, 1)).toString('utf8')) },
      text: (L, level, index) => { if (level <= this.#logLevel) this.#emit(L, level, Buffer.from(textBytes(L, index)).toString('utf8')) }
    })
    freezeEnvironment(L, environment)
    this.#environment = environment
    this.#current = tableValue(environment)
  }

  /** Compiles without running; throws ModuleError. `name` is the file name, as in messages. */
  compile (name: string, source: Uint8Array): LuaClosure {
    const L = this.#L
    const status: number = lauxlib['luaL_loadbufferx'](L, source, source.length, Buffer.from('@' + name, 'utf8'), Buffer.from('t'))
    const top = L.stack[L.top - 1]!
    if (status !== STATUS_OK) {
      const error = positioned(messageOf(top))
      lapi['lua_settop'](L, 0)
      throw error
    }
    const closure: LuaClosure = top.value
    lapi['lua_settop'](L, 0)
    return closure
  }

  /** Compiles a module and runs its main chunk; throws ModuleError. */
  load (name: string, source: Uint8Array): LuaModule {
    const closure = this.compile(name, source)
    const globals = newTable()
    rawSet(globals, '_G', tableValue(globals))
    globals.metatable = hiddenMetatable('environment')
    globals.metatable.frozen = false
    rawSet(globals.metatable, '__index', tableValue(this.#environment))
    freeze(globals.metatable)
    const cell = closure.upvals[0]!
    cell.type = TABLE
    cell.value = globals
    this.#current = cell
    const outcome = this.#run(new Value(LUA_CLOSURE, closure), [], this.#loadTimeLimitMs)
    if (!outcome.ok) throw positioned(outcome.message)
    // A call finds its own environment under _G, not this one.
    rawSet(globals, '_G', NIL_VALUE)
    freeze(globals)
    return new LuaModule(name, cell, globals)
  }

  /** Calls a function of a module. The outcome's value is valid until the next call. */
  call (module: LuaModule, fn: TValue, record: LuaRecord | null, args: readonly TValue[], limitMs: number): CallOutcome {
    this.#current = module.enter()
    return this.#run(fn, record === null ? args : [objectValue(record), ...args], limitMs)
  }

  /** Runs a library function in place of one of the module, which it calls as it likes. */
  run (module: LuaModule, body: LuaFunction, limitMs: number): CallOutcome {
    this.#current = module.enter()
    return this.#run(functionValue(body), [], limitMs)
  }

  #run (fn: TValue, args: readonly TValue[], limitMs: number): CallOutcome {
    const L = this.#L
    startClock(limitMs)
    failure.code = 0
    if (!(lapi['lua_checkstack'](L, args.length + 4) as boolean)) return { ok: false, code: ResultCode.UDF_EXECUTION, message: 'too many arguments' }
    push(L, fn)
    for (const value of args) push(L, value)
    const status: number = lapi['lua_pcallk'](L, args.length, 1, 0, 0, null)
    const top = L.stack[L.top - 1]!
    lapi['lua_settop'](L, 0)
    if (status === STATUS_OK) return { ok: true, value: top }
    let message = messageOf(top)
    if (control.aborted && !message.includes(control.message)) message = control.message
    const code = failure.code !== 0 && message.endsWith(failure.message) ? failure.code : ResultCode.UDF_EXECUTION
    return { ok: false, code, message: message.slice(0, MESSAGE_CHARS_MAX) }
  }

  /** Position of the running Lua code that called a library function. */
  #where (L: LuaState): { module: string, line: number } {
    lauxlib['luaL_where'](L, 1)
    const text = textOf(L.stack[L.top - 1]!)
    lapi['lua_pop'](L, 1)
    const match = /^(.*):(\d+): $/s.exec(text)
    return match === null ? { module: '', line: 0 } : { module: match[1]!, line: Number(match[2]) }
  }

  #emit (L: LuaState, level: number, message: string): void {
    this.#log({ level, ...this.#where(L), message })
  }

  #print (L: LuaState): void {
    if (LogLevel.INFO > this.#logLevel) return
    const count: number = lapi['lua_gettop'](L)
    const parts: string[] = []
    for (let i = 1; i <= count; i++) parts.push(Buffer.from(textBytes(L, i)).toString('utf8'))
    this.#emit(L, LogLevel.INFO, parts.join('\t'))
  }
}

function positioned (text: string): ModuleError {
  const match = /^[^\n]*?:(\d+): (.*)$/s.exec(text)
  return match === null ? new ModuleError(0, text) : new ModuleError(Number(match[1]), match[2]!)
}

/** The text of an error value. */
function messageOf (value: TValue): string {
  switch (value.type) {
    case STRING: return textOf(value)
    case INTEGER: return String(value.value)
    case FLOAT: return floatText(value.value)
    default: return `(error object is a ${value.value instanceof HostObject ? value.value.kind : typeName(value)} value)`
  }
}
