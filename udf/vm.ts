// One Lua virtual machine: loads modules, calls their functions, keeps calls apart from each other and within their time.
//
// Calls share the frozen libraries; what else they find in their global environment is their module's (lua-module.ts).

import type { LuaClosure, LuaFunction, LuaState, Table, TValue } from './fengari.js'
import { HostObject, pushObject } from './host-object.js'
// Puts the instruction loop in place of fengari's.
import './interpreter.js'
import { CALLS_BEFORE_COMPILING, settings } from './compiler/unit.js'
import { control, LimitError, pauseClock, resumeClock, startClock } from './limits.js'
import { clearStack } from './lua-frame.js'
import {
  functionValue, INTEGER, FLOAT, lapi, lauxlib, lstate, LUA_CLOSURE, push, raise, rawGet, STATUS_OK, STRING, stringValue, textOf, typeName, Value
} from './lua.js'
import { floatText } from './lua-format.js'
import { installBytes } from './bytes-api.js'
import { installCollections, installReducers } from './collections-api.js'
import { failure, installRecord } from './record-api.js'
import type { LuaRecord } from './record-api.js'
import { hinted, hintedCompilation } from './lua-hints.js'
import { LuaModule, ModuleError } from './lua-module.js'
import { buildEnvironment, freezeEnvironment, makeLoad } from './sandbox.js'
import { installStream } from './stream-api.js'
import { checkBytes, format, textBytes } from './string-library.js'
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
  /** Calls of a function after which it is compiled; Infinity leaves everything to the interpreter. */
  readonly compileAfter?: number
  /** Levels above this one are not even formatted. */
  readonly logLevel?: number
  /** Time for the main chunk of a module. */
  readonly loadTimeLimitMs?: number
  /** Adds to what all modules share, or replaces some of it, before it is frozen. */
  readonly extend?: (environment: Table) => void
}

/** Where `require` finds modules. */
export interface ModuleResolver {
  /** The module that a name given to `require` means; throws ModuleError with the reason when there is none, or when it does not load. */
  require (name: string, from: LuaModule): LuaModule
}

const NO_MODULES: ModuleResolver = {
  require: name => { throw new ModuleError(0, `module '${name}' is not registered`) }
}

export type CallOutcome =
  | { readonly ok: true, readonly value: TValue }
  | { readonly ok: false, readonly code: number, readonly message: string }

/** Milliseconds a main chunk may run. */
export const LOAD_TIME_LIMIT_MS = 1000
/** Of an error's message, and of a line in the log. */
const MESSAGE_CHARS_MAX = 4096

/** Turns a JavaScript error under a script into a Lua error with the script's position. */
function nativeError (L: LuaState): number {
  const error: unknown = L.stack[L.top - 1]!.value
  const text = error instanceof Error ? error.message : String(error)
  let message = `internal error: ${text}`
  if (error instanceof ValueError || error instanceof LimitError) message = text
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

export class LuaVm {
  readonly #L: LuaState
  readonly #environment: Table
  readonly #log: (line: LogLine) => void
  readonly #logLevel: number
  readonly #compileAfter: number
  readonly #loadTimeLimitMs: number
  #resolver: ModuleResolver = NO_MODULES
  /** Counts calls; a module's functions get a clean environment once in each. */
  #call = 0
  #depth = 0

  constructor (options: VmOptions = {}) {
    this.#log = options.log ?? (() => {})
    this.#logLevel = options.logLevel ?? LogLevel.INFO
    this.#compileAfter = options.compileAfter ?? CALLS_BEFORE_COMPILING
    this.#loadTimeLimitMs = options.loadTimeLimitMs ?? LOAD_TIME_LIMIT_MS
    // A call of another machine of this thread may have ended at its limit, which must not end the opening of the libraries.
    startClock(Infinity)
    const L: LuaState = lauxlib['luaL_newstate']()
    this.#L = L
    lapi['lua_atnativeerror'](L, nativeError)
    const environment = buildEnvironment(L, L => {
      this.#print(L)
      return 0
    })
    installCollections(environment)
    installReducers(rawGet(environment, 'math')!.value)
    installBytes(environment)
    installStream(environment)
    installRecord(environment, {
      format: (L, level) => { if (level <= this.#logLevel) this.#emit(L, level, Buffer.from(format(L, 1), 'latin1').toString('utf8')) },
      text: (L, level, index) => { if (level <= this.#logLevel) this.#emit(L, level, Buffer.from(textBytes(L, index)).toString('utf8')) }
    })
    options.extend?.(environment)
    freezeEnvironment(L, environment)
    this.#environment = environment
  }

  /** Where `require` finds modules from here on. */
  set resolver (resolver: ModuleResolver) {
    this.#resolver = resolver
  }

  /** Compiles without running; throws ModuleError. `name` is the file name, as in messages. */
  compile (name: string, source: Uint8Array): LuaClosure {
    return this.#compile(this.#L, name, source)
  }

  #compile (L: LuaState, name: string, source: Uint8Array): LuaClosure {
    const status: number = lauxlib['luaL_loadbufferx'](L, source, source.length, Buffer.from('@' + name, 'utf8'), Buffer.from('t'))
    const top = L.stack[L.top - 1]!
    lapi['lua_pop'](L, 1)
    if (status !== STATUS_OK) {
      const { line, message } = positioned(messageOf(top))
      throw new ModuleError(line, hintedCompilation(message, Buffer.from(source).toString('latin1').split('\n', line)[line - 1] ?? ''))
    }
    return top.value
  }

  /** Compiles a module and runs its main chunk; throws ModuleError. Also while another loads or a call runs, whose limits rest meanwhile. */
  load (name: string, source: Uint8Array): LuaModule {
    if (this.#depth === 0) return this.#load(this.#L, name, source)
    const paused = pauseClock()
    const { code, message } = failure
    try {
      // A state of its own: the one that waits may be a coroutine, or full.
      lapi['lua_checkstack'](this.#L, 1)
      const L: LuaState = lstate['lua_newthread'](this.#L)
      lapi['lua_pop'](this.#L, 1)
      return this.#load(L, name, source)
    } finally {
      resumeClock(paused)
      Object.assign(failure, { code, message })
    }
  }

  #load (L: LuaState, name: string, source: Uint8Array): LuaModule {
    const closure = this.#compile(L, name, source)
    const cell = closure.upvals[0]!
    const module = new LuaModule(name, cell, this.#environment)
    module.define('require', functionValue(L => this.#require(L, module)))
    const load = functionValue(makeLoad(cell))
    module.define('load', load)
    // Its name in Lua 5.1.
    module.define('loadstring', load)
    if (this.#depth === 0) this.#call++
    const outcome = this.#run(L, new Value(LUA_CLOSURE, closure), null, [], this.#loadTimeLimitMs)
    if (!outcome.ok) throw positioned(outcome.message)
    module.finish(outcome.value)
    return module
  }

  #require (L: LuaState, from: LuaModule): number {
    const name = Buffer.from(checkBytes(L, 1)).toString('utf8')
    let required: LuaModule
    try {
      required = this.#resolver.require(name, from)
    } catch (error) {
      if (!(error instanceof ModuleError)) throw error
      raise(L, error.message)
    }
    required.enter(this.#call)
    from.link(L, required)
    push(L, required.exports)
    return 1
  }

  /** Calls a function of a module, at `now` by the clock of `performance.now()`. The outcome's value is valid until the next call. */
  call (module: LuaModule, fn: TValue, record: LuaRecord | null, args: readonly TValue[], limitMs: number, now?: number): CallOutcome {
    module.enter(++this.#call)
    return this.#run(this.#L, fn, record, args, limitMs, now)
  }

  /** Runs a library function in place of one of the module, which it calls as it likes. */
  run (module: LuaModule, body: LuaFunction, limitMs: number): CallOutcome {
    module.enter(++this.#call)
    return this.#run(this.#L, functionValue(body), null, [], limitMs)
  }

  #run (L: LuaState, fn: TValue, record: LuaRecord | null, args: readonly TValue[], limitMs: number, now?: number): CallOutcome {
    startClock(limitMs, now)
    settings.after = this.#compileAfter
    failure.code = 0
    if (!(lapi['lua_checkstack'](L, args.length + 4) as boolean)) return { ok: false, code: ResultCode.UDF_EXECUTION, message: 'too many arguments' }
    push(L, fn)
    if (record !== null) pushObject(L, record)
    for (const value of args) push(L, value)
    this.#depth++
    let status: number
    try {
      status = lapi['lua_pcallk'](L, record === null ? args.length : args.length + 1, 1, 0, 0, null)
    } finally {
      this.#depth--
    }
    const { type, value } = L.stack[L.top - 1]!
    const top = new Value(type, value)
    lapi['lua_settop'](L, 0)
    clearStack(L)
    if (status === STATUS_OK) return { ok: true, value: top }
    let message = hinted(messageOf(top))
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
    const cut = message.length > MESSAGE_CHARS_MAX ? `${message.slice(0, MESSAGE_CHARS_MAX)}...` : message
    this.#log({ level, ...this.#where(L), message: cut })
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
