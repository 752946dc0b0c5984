// Calls and their frames, in place of fengari's. Stack slots and call records are used again instead of being deleted and allocated at
// every call; a slot above the top holds whatever it held last.
//
// Only a slot that a closure has captured must not be used again: it is replaced when its frame ends (`closeUpvalues`).

import type { CallInfo, LuaClosure, LuaState, Proto, TValue } from './fengari.js'
import { control } from './limits.js'
import { checkLimits, ldo, lstate, LIGHT_FUNCTION, LUA_CLOSURE, lvm, MIN_STACK, MULTIPLE_RESULTS, NIL, Value } from './lua.js'

const CALL_IS_LUA: number = lstate['CIST_LUA']
/** Type tag of a library function with upvalues. */
const LIBRARY_CLOSURE = 38
/** Library calls within library calls, as in fengari. */
const NESTED_CALLS_MAX = 200
/** Slots that a stack keeps between calls. */
const IDLE_SLOTS = 128

const publishedPrecall = ldo['luaD_precall'] as (L: LuaState, at: number, wanted: number) => boolean
const publishedCall = ldo['luaD_call'] as (L: LuaState, at: number, wanted: number) => void

/** Moves the top; slots that come into use are nil. */
export function setTop (L: LuaState, top: number): void {
  const { stack } = L
  for (let i = L.top; i < top; i++) {
    const slot = stack[i]
    if (slot === undefined) stack[i] = new Value(NIL, null)
    else {
      slot.type = NIL
      slot.value = null
    }
  }
  L.top = top
}

/** Moves the top of a Lua frame, whose registers a compiler has written before they are read: what they hold does not matter. */
export function openSlots (L: LuaState, from: number, top: number): void {
  const { stack } = L
  for (let i = from; i < top; i++) if (stack[i] === undefined) stack[i] = new Value(NIL, null)
  L.top = top
}

function nextFrame (L: LuaState): CallInfo {
  const running = L.ci
  const known = running.next
  if (known !== null) {
    L.ci = known
    known.c_k = null
    known.depth = running.depth | 0
    return known
  }
  const made: CallInfo = lstate['luaE_extendCI'](L)
  made.depth = running.depth | 0
  return made
}

function moveVarargs (L: LuaState, proto: Proto, given: number): number {
  const { stack } = L
  const from = L.top - given
  const base = L.top
  for (let i = 0; i < proto.numparams; i++) {
    const slot = stack[base + i] ?? (stack[base + i] = new Value(NIL, null))
    if (i < given) {
      const source = stack[from + i]!
      slot.type = source.type
      slot.value = source.value
      source.type = NIL
      source.value = null
    } else {
      slot.type = NIL
      slot.value = null
    }
  }
  return base
}

/** The frame of a Lua function at a stack position, its arguments above it up to the top. */
export function enterLua (L: LuaState, at: number, func: TValue, wanted: number): CallInfo {
  const proto = (func.value as LuaClosure).p
  const size = proto.maxstacksize
  if (L.stack_last - L.top <= size + proto.numparams) ldo['luaD_growstack'](L, size + proto.numparams)
  let base = at + 1
  if (proto.is_vararg) base = moveVarargs(L, proto, L.top - base)
  else if (L.top < base + proto.numparams) setTop(L, base + proto.numparams)
  const ci = nextFrame(L)
  ci.funcOff = at
  ci.nresults = wanted
  ci.func = func
  ci.l_base = base
  ci.top = base + size
  ci.l_code = proto.code
  ci.l_savedpc = 0
  ci.callstatus = CALL_IS_LUA
  openSlots(L, base, base + size)
  return ci
}

export function callLibrary (L: LuaState, at: number, func: TValue, wanted: number): void {
  const fn = func.type === LIGHT_FUNCTION ? func.value : func.value.f
  if (L.stack_last - L.top <= MIN_STACK) ldo['luaD_growstack'](L, MIN_STACK)
  const ci = nextFrame(L)
  ci.funcOff = at
  ci.nresults = wanted
  ci.func = func
  ci.top = L.top + MIN_STACK
  ci.callstatus = 0
  const count: number = fn(L)
  leave(L, ci, L.top - count, count)
}

/** Prepares a call; true when it was a library function and is done. */
export function prepareCall (L: LuaState, at: number, wanted: number): boolean {
  const func = L.stack[at]!
  if (func.type === LUA_CLOSURE) {
    enterLua(L, at, func, wanted)
    return false
  }
  if (func.type === LIGHT_FUNCTION || func.type === LIBRARY_CLOSURE) {
    callLibrary(L, at, func, wanted)
    return true
  }
  // A __call metamethod, or the error.
  return publishedPrecall(L, at, wanted)
}

/** Ends a frame: its results take the place of the function. False when the caller takes as many as there are. */
export function leave (L: LuaState, ci: CallInfo, first: number, count: number): boolean {
  const { stack } = L
  const to = ci.funcOff
  const wanted = ci.nresults
  L.ci = ci.previous
  if (wanted === 1) {
    const target = stack[to]!
    if (count === 0) {
      target.type = NIL
      target.value = null
    } else {
      const source = stack[first]!
      target.type = source.type
      target.value = source.value
    }
    L.top = to + 1
    return true
  }
  const moved = wanted === MULTIPLE_RESULTS || count < wanted ? count : wanted
  for (let i = 0; i < moved; i++) {
    const source = stack[first + i]!
    const target = stack[to + i]!
    target.type = source.type
    target.value = source.value
  }
  L.top = to + moved
  if (wanted === MULTIPLE_RESULTS) return false
  if (moved < wanted) setTop(L, to + wanted)
  return true
}

/** Registers that the closures of a function capture. */
export function capturedRegisters (proto: Proto): readonly number[] {
  if (proto.captured === undefined) {
    const found = new Set<number>()
    for (const child of proto.p) for (const { instack, idx } of child.upvalues) if (instack) found.add(idx)
    proto.captured = [...found].sort((a, b) => a - b)
  }
  return proto.captured
}

/** From here on closures that captured registers from `level` on have them for themselves. */
export function closeUpvalues (L: LuaState, proto: Proto, base: number, level: number): void {
  for (const register of capturedRegisters(proto)) {
    const at = base + register
    if (at >= level) {
      const old = L.stack[at]!
      L.stack[at] = new Value(old.type, old.value)
    }
  }
}

/** Lets go of what the slots of a stack still hold after a call, unless it was a call within another. */
export function clearStack (L: LuaState): void {
  const { stack } = L
  if ((L.ci.previous as CallInfo | null) !== null) return
  if (stack.length > IDLE_SLOTS * 2) ldo['luaD_reallocstack'](L, IDLE_SLOTS)
  for (let i = L.top; i < stack.length; i++) {
    const slot = stack[i]
    if (slot !== undefined && slot.type !== NIL) {
      slot.type = NIL
      slot.value = null
    }
  }
}

ldo['adjust_top'] = setTop
ldo['luaD_precall'] = prepareCall
ldo['luaD_poscall'] = leave

/** Calls what is at a stack position, from library code; the results take its place. */
export function callValue (L: LuaState, at: number, wanted: number): void {
  if (L.nCcalls + 1 >= NESTED_CALLS_MAX) {
    // Raises the error of too deep a nesting, or lets an error handler run beyond it.
    publishedCall(L, at, wanted)
    return
  }
  L.nCcalls++
  if (!prepareCall(L, at, wanted)) lvm['luaV_execute'](L)
  L.nCcalls--
  // Library code may call a function as often as it likes, and that one need neither call nor jump.
  if (--control.steps <= 0) checkLimits(L)
}

/** As `callValue`, where a yield must not pass. */
export function callValueNoYield (L: LuaState, at: number, wanted: number): void {
  L.nny++
  callValue(L, at, wanted)
  L.nny--
}

ldo['luaD_call'] = callValue
ldo['luaD_callnoyield'] = callValueNoYield
