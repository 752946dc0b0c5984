// The part of fengari's internals that Perigee touches. fengari ships no types; these are only as wide as our use of them.
// Values are typed `any` where Lua itself is dynamic: a TValue's `value` depends on its `type`.

import type { LuaString as TString } from './lua-string.js'
import type { Table } from './lua-table.js'
import type { Tier } from './compiler/tier.js'

export interface TValue {
  type: number
  value: any
  setfrom(other: TValue): void
  setivalue(value: number | bigint): void
  setfltvalue(value: number): void
  setnilvalue(): void
  setbvalue(value: boolean): void
  setsvalue(value: TString): void
  ttisstring(): boolean
  ttisfunction(): boolean
  ttisinteger(): boolean
  l_isfalse(): boolean
  svalue(): Uint8Array
}

export type { LuaString as TString } from './lua-string.js'
export type { Table, TableEntry } from './lua-table.js'

export interface Instruction {
  opcode: number
  A: number
  B: number
  C: number
  Bx: number
  Ax: number
  sBx: number
}

export interface UpvalueDescription {
  instack: boolean
  idx: number
}

export interface Proto {
  k: TValue[]
  p: Proto[]
  code: Instruction[]
  cache: LuaClosure | null
  upvalues: UpvalueDescription[]
  numparams: number
  is_vararg: boolean
  maxstacksize: number
  /** Ours: see `lua-frame.ts`. */
  captured?: readonly number[]
  tier?: Tier
}

export interface LuaClosure {
  p: Proto
  nupvalues: number
  upvals: TValue[]
}

export interface CallInfo {
  func: TValue
  funcOff: number
  top: number
  /** Null below the first function; code that runs a function always has one. */
  previous: CallInfo
  next: CallInfo | null
  l_base: number
  l_code: Instruction[]
  l_savedpc: number
  nresults: number
  callstatus: number
  c_k: unknown
  /** Ours: how many compiled functions call each other below it. */
  depth: number
}

export interface LuaState {
  stack: TValue[]
  top: number
  ci: CallInfo
  l_G: { id_counter: number, l_registry: TValue, tmname: TString[], mt: Array<Table | undefined> }
  stack_last: number
  nCcalls: number
  nny: number
}

export type LuaFunction = (L: LuaState) => number

export interface LuaBuffer {
  L: LuaState
  b: Uint8Array
  n: number
}
