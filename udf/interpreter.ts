// The instruction loop: runs Lua 5.3 bytecode on fengari's state, in place of fengari's own.
//
// Invariants it shares with fengari's other parts (calls, errors, coroutines, debug information):
//   - `ci.l_savedpc` is the index of the next instruction whenever anything outside this loop may look: calls, errors, yields
//   - every slot of a frame, from `ci.l_base` up to `ci.top`, holds a TValue; an open upvalue is that very object, so a slot is
//     overwritten in place and replaced only when upvalues are closed
//   - a coroutine that yields leaves by an exception; `luaV_finishOp` completes the interrupted instruction when it resumes
//
// Steps are counted at calls, backward jumps and by the bytes of concatenations: nothing runs long without one, apart from a single
// library call.

import type { CallInfo, LuaClosure, LuaState, Proto, Table, TValue } from './fengari.js'
import { HostObject } from './host-object.js'
import { control, exceededLimit } from './limits.js'
import {
  arithmetic, Arithmetic, BOOLEAN, FLOAT, getInteger, hashString, INTEGER, ldebug, ldo, lobject, lopcodes, lstate, ltm, LUA_CLOSURE,
  luaString, LuaTable, lvm, MULTIPLE_RESULTS, NIL, raise, setPositions, STRING, STRING_BYTES_MAX, TABLE, tableGet, tableLength,
  tableSet, textString, USERDATA, Value
} from './lua.js'
import { callValue, closeUpvalues, leave, openSlots, prepareCall, setTop } from './lua-frame.js'
import { LuaString, sameString, TEXT_CHARS_MAX } from './lua-string.js'
import * as integer from './lua-integer.js'
import type { LuaInteger } from './lua-integer.js'

const enum Op {
  MOVE, LOADK, LOADKX, LOADBOOL, LOADNIL, GETUPVAL, GETTABUP, GETTABLE, SETTABUP, SETUPVAL, SETTABLE, NEWTABLE, SELF,
  ADD, SUB, MUL, MOD, POW, DIV, IDIV, BAND, BOR, BXOR, SHL, SHR, UNM, BNOT, NOT, LEN, CONCAT, JMP, EQ, LT, LE, TEST, TESTSET,
  CALL, TAILCALL, RETURN, FORLOOP, FORPREP, TFORCALL, TFORLOOP, SETLIST, CLOSURE, VARARG, EXTRAARG
}

if (lopcodes['OpCodesI'].OP_EXTRAARG !== Op.EXTRAARG || lopcodes['OpCodesI'].OP_CALL !== Op.CALL || lopcodes['BITRK'] !== 256) {
  throw new Error('fengari: unexpected instruction set; udf/interpreter.ts is for fengari 0.1')
}

const CONSTANT = 256
const CONSTANT_MASK = 255
const FIELDS_PER_FLUSH: number = lopcodes['LFIELDS_PER_FLUSH']
const SAFE_MAX = Number.MAX_SAFE_INTEGER
const SAFE_MIN = Number.MIN_SAFE_INTEGER
const INDEX_CHAIN_MAX = 2000

const CALL_FRESH: number = lstate['CIST_FRESH']
const CALL_TAIL: number = lstate['CIST_TAIL']

const TM_INDEX: number = ltm['TMS'].TM_INDEX
const TM_NEWINDEX: number = ltm['TMS'].TM_NEWINDEX
const TM_EQ: number = ltm['TMS'].TM_EQ
const TM_LEN: number = ltm['TMS'].TM_LEN
const TM_CONCAT: number = ltm['TMS'].TM_CONCAT

const { luaD_checkstack } = ldo as Record<string, (...args: any[]) => any>
const { fasttm, luaT_callTM, luaT_gettmbyobj, luaT_trybinTM } = ltm as Record<string, (...args: any[]) => any>
const Closure: new (L: LuaState, upvalues: number) => LuaClosure = lobject['LClosure']

function checkLimits (L: LuaState): void {
  const message = exceededLimit()
  if (message !== null) raise(L, message)
}

function copy (target: TValue, source: TValue): void {
  target.type = source.type
  target.value = source.value
}

function isFalse (value: TValue): boolean {
  return value.type === NIL || (value.type === BOOLEAN && value.value === false)
}

function entryOf (L: LuaState, table: Table, key: TValue): TValue | undefined {
  switch (key.type) {
    case STRING: return table.strong.get(hashString(key.value))?.value
    case INTEGER: return getInteger(table, key.value)
    default: return tableGet(L, table, key)
  }
}

export function index (L: LuaState, object: TValue, key: TValue, out: TValue): void {
  for (let hop = 0; hop < INDEX_CHAIN_MAX; hop++) {
    let method: TValue | null
    if (object.type === TABLE) {
      const table: Table = object.value
      const found = entryOf(L, table, key)
      if (found !== undefined) {
        copy(out, found)
        return
      }
      if (table.metatable === null || (method = fasttm!(L, table.metatable, TM_INDEX) as TValue | null) === null) {
        out.type = NIL
        out.value = null
        return
      }
    } else if (object.type === USERDATA && object.value instanceof HostObject) {
      object.value.luaIndex(L, key, out)
      return
    } else {
      method = luaT_gettmbyobj!(L, object, TM_INDEX) as TValue
      if (method.type === NIL) ldebug['luaG_typeerror'](L, object, INDEX_TEXT)
    }
    if (method.ttisfunction()) {
      luaT_callTM!(L, method, object, key, out, 1)
      return
    }
    object = method
  }
  raise(L, "'__index' chain too long; possible loop")
}

export function setIndex (L: LuaState, object: TValue, key: TValue, value: TValue): void {
  for (let hop = 0; hop < INDEX_CHAIN_MAX; hop++) {
    let method: TValue | null
    if (object.type === TABLE) {
      const table: Table = object.value
      const found = entryOf(L, table, key)
      if (found !== undefined && value.type !== NIL) {
        if (table.frozen) raise(L, 'attempt to modify a read-only table')
        copy(found, value)
        return
      }
      if (found !== undefined || table.metatable === null || (method = fasttm!(L, table.metatable, TM_NEWINDEX) as TValue | null) === null) {
        if (table.frozen) raise(L, 'attempt to modify a read-only table')
        tableSet(L, table, key, value)
        table.flags = 0
        return
      }
    } else if (object.type === USERDATA && object.value instanceof HostObject) {
      object.value.luaNewIndex(L, key, value)
      return
    } else {
      method = luaT_gettmbyobj!(L, object, TM_NEWINDEX) as TValue
      if (method.type === NIL) ldebug['luaG_typeerror'](L, object, INDEX_TEXT)
    }
    if (method.ttisfunction()) {
      luaT_callTM!(L, method, object, key, value, 0)
      return
    }
    object = method
  }
  raise(L, "'__newindex' chain too long; possible loop")
}

const INDEX_TEXT = new Uint8Array(Buffer.from('index'))

function equal (L: LuaState, a: TValue, b: TValue): boolean {
  const type = a.type
  if (type !== b.type) {
    // Only an integer and a float can be equal across types. `==` compares a bigint with a number by value.
    // eslint-disable-next-line eqeqeq
    return (type & 15) === FLOAT && (b.type & 15) === FLOAT && a.value == b.value
  }
  if (a.value === b.value || type === NIL) return true
  switch (type) {
    case STRING: return sameString(a.value, b.value)
    case TABLE: case USERDATA: {
      let method: TValue | null = fasttm!(L, a.value.metatable, TM_EQ)
      method ??= fasttm!(L, b.value.metatable, TM_EQ)
      if (method === null) return false
      const result = new Value(NIL, null)
      luaT_callTM!(L, method, a, b, result, 1)
      return !isFalse(result)
    }
    default: return false
  }
}

function lessThan (L: LuaState, a: TValue, b: TValue): boolean {
  if ((a.type & 15) === FLOAT && (b.type & 15) === FLOAT) return a.value < b.value
  if (a.type === STRING && b.type === STRING) return hashString(a.value) < hashString(b.value)
  return lvm['luaV_lessthan'](L, a, b) === 1
}

function lessEqual (L: LuaState, a: TValue, b: TValue): boolean {
  if ((a.type & 15) === FLOAT && (b.type & 15) === FLOAT) return a.value <= b.value
  if (a.type === STRING && b.type === STRING) return hashString(a.value) <= hashString(b.value)
  return lvm['luaV_lessequal'](L, a, b) === 1
}

function objectLength (L: LuaState, object: TValue, out: TValue): void {
  if (object.type === STRING) {
    out.type = INTEGER
    out.value = object.value.length
    return
  }
  let method: TValue | null
  if (object.type === TABLE) {
    method = fasttm!(L, object.value.metatable, TM_LEN)
    if (method === null) {
      out.type = INTEGER
      out.value = tableLength(object.value)
      return
    }
  } else {
    method = luaT_gettmbyobj!(L, object, TM_LEN) as TValue
    if (method.type === NIL) ldebug['luaG_typeerror'](L, object, LENGTH_TEXT)
  }
  luaT_callTM!(L, method, object, object, out, 1)
}

const LENGTH_TEXT = new Uint8Array(Buffer.from('get length of'))

function isConcatenable (value: TValue): boolean {
  return value.type === STRING || (value.type & 15) === FLOAT
}

/** The strings of the slots from `from` up to `to`, which have so many bytes together. */
export function joined (stack: TValue[], from: number, to: number, bytes: number): LuaString {
  if (bytes <= TEXT_CHARS_MAX) {
    let text = hashString(stack[from]!.value)
    for (let i = from + 1; i < to; i++) text += hashString(stack[i]!.value)
    return textString(text)
  }
  const all = new Uint8Array(bytes)
  let at = 0
  for (let i = from; i < to; i++) {
    const part: Uint8Array = stack[i]!.value.realstring
    all.set(part, at)
    at += part.length
  }
  return luaString(all)
}

/** Concatenates the topmost `total` values of the stack into the lowest of them; metamethods may run and yield in between. */
function concatenate (L: LuaState, total: number): void {
  const stack = L.stack
  while (total > 1) {
    const top = L.top
    let taken = 2
    if (!isConcatenable(stack[top - 2]!) || !isConcatenable(stack[top - 1]!)) {
      luaT_trybinTM!(L, stack[top - 2]!, stack[top - 1]!, stack[top - 2]!, TM_CONCAT)
    } else {
      let bytes = 0
      for (taken = 0; taken < total; taken++) {
        const value = stack[top - 1 - taken]!
        if (!isConcatenable(value)) break
        if (value.type !== STRING) lobject['luaO_tostring'](L, value)
        bytes += value.value.length
      }
      if (bytes > STRING_BYTES_MAX) raise(L, `string longer than ${STRING_BYTES_MAX} bytes`)
      const result = stack[top - taken]!
      result.value = joined(stack, top - taken, top, bytes)
      result.type = STRING
      // Straight-line code that concatenates has neither calls nor jumps, and each of its strings may be large.
      if (control.steps <= 0) checkLimits(L)
    }
    total -= taken - 1
    L.top = top - (taken - 1)
  }
}

/** Prepares a numeric loop; false when its body does not run at all. */
function prepareLoop (L: LuaState, init: TValue, limit: TValue, step: TValue): boolean {
  for (const [value, name] of [[limit, 'limit'], [step, 'step'], [init, 'initial value']] as const) {
    if ((value.type & 15) !== FLOAT) raise(L, `'for' ${name} must be a number`)
  }
  if (step.value === 0) raise(L, "'for' step is zero")
  if (init.type === INTEGER && step.type === INTEGER) {
    if (limit.type === FLOAT) {
      const bound: number = limit.value
      if (Number.isNaN(bound)) return false
      const whole = step.value > 0 ? Math.floor(bound) : Math.ceil(bound)
      limit.value = integer.fromFloat(whole) || (whole === 0 ? 0 : whole > 0 ? integer.INTEGER_MAX : integer.INTEGER_MIN)
      limit.type = INTEGER
      // A limit below the range with an upward step (or the reverse) ends the loop before it starts.
      if (step.value > 0 ? bound < init.value : bound > init.value) return false
    }
    if (step.value > 0 ? init.value > limit.value : init.value < limit.value) return false
    init.value = integer.addUnbounded(init.value, typeof step.value === 'number' ? 0 - step.value : -step.value)
    return true
  }
  for (const value of [init, limit, step]) {
    value.value = Number(value.value)
    value.type = FLOAT
  }
  if (step.value > 0 ? !(init.value <= limit.value) : !(limit.value <= init.value)) return false
  init.value -= step.value
  return true
}

function makeClosure (L: LuaState, proto: Proto, enclosing: TValue[], base: number): LuaClosure {
  const descriptions = proto.upvalues
  const count = descriptions.length
  const cached = proto.cache
  if (cached !== null) {
    let i = 0
    while (i < count) {
      const { instack, idx } = descriptions[i]!
      if (cached.upvals[i] !== (instack ? L.stack[base + idx] : enclosing[idx])) break
      i++
    }
    if (i === count) return cached
  }
  const closure = new Closure(L, count)
  closure.p = proto
  for (let i = 0; i < count; i++) {
    const { instack, idx } = descriptions[i]!
    closure.upvals[i] = instack ? L.stack[base + idx]! : enclosing[idx]!
  }
  proto.cache = closure
  return closure
}

function execute (L: LuaState): void {
  let ci: CallInfo = L.ci
  ci.callstatus |= CALL_FRESH
  newFrame: for (;;) {
    const closure: LuaClosure = ci.func.value
    const k = closure.p.k
    const code = ci.l_code
    const base = ci.l_base
    const stack = L.stack
    for (;;) {
      const i = code[ci.l_savedpc++]!
      const ra = base + i.A
      switch (i.opcode) {
        case Op.MOVE: {
          const source = stack[base + i.B]!
          const target = stack[ra]!
          target.type = source.type
          target.value = source.value
          break
        }
        case Op.LOADK: {
          const source = k[i.Bx]!
          const target = stack[ra]!
          target.type = source.type
          target.value = source.value
          break
        }
        case Op.LOADKX:
          copy(stack[ra]!, k[code[ci.l_savedpc++]!.Ax]!)
          break
        case Op.LOADBOOL: {
          const target = stack[ra]!
          target.type = BOOLEAN
          target.value = i.B !== 0
          if (i.C !== 0) ci.l_savedpc++
          break
        }
        case Op.LOADNIL:
          for (let j = ra + i.B; j >= ra; j--) {
            const target = stack[j]!
            target.type = NIL
            target.value = null
          }
          break
        case Op.GETUPVAL:
          copy(stack[ra]!, closure.upvals[i.B]!)
          break
        case Op.GETTABUP:
          index(L, closure.upvals[i.B]!, (i.C & CONSTANT) !== 0 ? k[i.C & CONSTANT_MASK]! : stack[base + i.C]!, stack[ra]!)
          break
        case Op.GETTABLE:
          index(L, stack[base + i.B]!, (i.C & CONSTANT) !== 0 ? k[i.C & CONSTANT_MASK]! : stack[base + i.C]!, stack[ra]!)
          break
        case Op.SETTABUP:
          setIndex(L, closure.upvals[i.A]!,
            (i.B & CONSTANT) !== 0 ? k[i.B & CONSTANT_MASK]! : stack[base + i.B]!,
            (i.C & CONSTANT) !== 0 ? k[i.C & CONSTANT_MASK]! : stack[base + i.C]!)
          break
        case Op.SETUPVAL:
          copy(closure.upvals[i.B]!, stack[ra]!)
          break
        case Op.SETTABLE:
          setIndex(L, stack[ra]!,
            (i.B & CONSTANT) !== 0 ? k[i.B & CONSTANT_MASK]! : stack[base + i.B]!,
            (i.C & CONSTANT) !== 0 ? k[i.C & CONSTANT_MASK]! : stack[base + i.C]!)
          break
        case Op.NEWTABLE: {
          const target = stack[ra]!
          target.type = TABLE
          target.value = new LuaTable(L)
          break
        }
        case Op.SELF: {
          const object = stack[base + i.B]!
          const key = (i.C & CONSTANT) !== 0 ? k[i.C & CONSTANT_MASK]! : stack[base + i.C]!
          copy(stack[ra + 1]!, object)
          if (object.type === USERDATA && object.value instanceof HostObject) object.value.luaSelf(L, key, stack[ra]!)
          else index(L, object, key, stack[ra]!)
          break
        }
        case Op.ADD: {
          const b = (i.B & CONSTANT) !== 0 ? k[i.B & CONSTANT_MASK]! : stack[base + i.B]!
          const c = (i.C & CONSTANT) !== 0 ? k[i.C & CONSTANT_MASK]! : stack[base + i.C]!
          const x = b.value
          const y = c.value
          if (b.type === INTEGER && c.type === INTEGER && typeof x === 'number' && typeof y === 'number') {
            const sum = x + y
            if (sum <= SAFE_MAX && sum >= SAFE_MIN) {
              const target = stack[ra]!
              target.type = INTEGER
              target.value = sum
              break
            }
          } else if (b.type === FLOAT && c.type === FLOAT) {
            const target = stack[ra]!
            target.type = FLOAT
            target.value = x + y
            break
          }
          arithmetic(L, Arithmetic.ADD, b, c, stack[ra]!)
          break
        }
        case Op.SUB: {
          const b = (i.B & CONSTANT) !== 0 ? k[i.B & CONSTANT_MASK]! : stack[base + i.B]!
          const c = (i.C & CONSTANT) !== 0 ? k[i.C & CONSTANT_MASK]! : stack[base + i.C]!
          const x = b.value
          const y = c.value
          if (b.type === INTEGER && c.type === INTEGER && typeof x === 'number' && typeof y === 'number') {
            const difference = x - y
            if (difference <= SAFE_MAX && difference >= SAFE_MIN) {
              const target = stack[ra]!
              target.type = INTEGER
              target.value = difference
              break
            }
          } else if (b.type === FLOAT && c.type === FLOAT) {
            const target = stack[ra]!
            target.type = FLOAT
            target.value = x - y
            break
          }
          arithmetic(L, Arithmetic.SUB, b, c, stack[ra]!)
          break
        }
        case Op.MUL: {
          const b = (i.B & CONSTANT) !== 0 ? k[i.B & CONSTANT_MASK]! : stack[base + i.B]!
          const c = (i.C & CONSTANT) !== 0 ? k[i.C & CONSTANT_MASK]! : stack[base + i.C]!
          if (b.type === FLOAT && c.type === FLOAT) {
            const target = stack[ra]!
            target.value = b.value * c.value
            target.type = FLOAT
            break
          }
          arithmetic(L, Arithmetic.MUL, b, c, stack[ra]!)
          break
        }
        case Op.MOD: case Op.POW: case Op.DIV: case Op.IDIV:
        case Op.BAND: case Op.BOR: case Op.BXOR: case Op.SHL: case Op.SHR:
          arithmetic(L, i.opcode - Op.ADD,
            (i.B & CONSTANT) !== 0 ? k[i.B & CONSTANT_MASK]! : stack[base + i.B]!,
            (i.C & CONSTANT) !== 0 ? k[i.C & CONSTANT_MASK]! : stack[base + i.C]!,
            stack[ra]!)
          break
        case Op.UNM: case Op.BNOT: {
          const operand = stack[base + i.B]!
          arithmetic(L, i.opcode - Op.ADD, operand, operand, stack[ra]!)
          break
        }
        case Op.NOT: {
          const result = isFalse(stack[base + i.B]!)
          const target = stack[ra]!
          target.type = BOOLEAN
          target.value = result
          break
        }
        case Op.LEN:
          objectLength(L, stack[base + i.B]!, stack[ra]!)
          break
        case Op.CONCAT:
          L.top = base + i.C + 1
          concatenate(L, i.C - i.B + 1)
          copy(stack[ra]!, stack[base + i.B]!)
          openSlots(L, L.top, ci.top)
          break
        case Op.JMP:
          if (i.sBx < 0 && --control.steps <= 0) checkLimits(L)
          if (i.A !== 0) closeUpvalues(L, closure.p, base, base + i.A - 1)
          ci.l_savedpc += i.sBx
          break
        case Op.EQ:
          if (equal(L,
            (i.B & CONSTANT) !== 0 ? k[i.B & CONSTANT_MASK]! : stack[base + i.B]!,
            (i.C & CONSTANT) !== 0 ? k[i.C & CONSTANT_MASK]! : stack[base + i.C]!) !== (i.A !== 0)) ci.l_savedpc++
          break
        case Op.LT:
          if (lessThan(L,
            (i.B & CONSTANT) !== 0 ? k[i.B & CONSTANT_MASK]! : stack[base + i.B]!,
            (i.C & CONSTANT) !== 0 ? k[i.C & CONSTANT_MASK]! : stack[base + i.C]!) !== (i.A !== 0)) ci.l_savedpc++
          break
        case Op.LE:
          if (lessEqual(L,
            (i.B & CONSTANT) !== 0 ? k[i.B & CONSTANT_MASK]! : stack[base + i.B]!,
            (i.C & CONSTANT) !== 0 ? k[i.C & CONSTANT_MASK]! : stack[base + i.C]!) !== (i.A !== 0)) ci.l_savedpc++
          break
        case Op.TEST:
          if (isFalse(stack[ra]!) === (i.C !== 0)) ci.l_savedpc++
          break
        case Op.TESTSET: {
          const source = stack[base + i.B]!
          if (isFalse(source) === (i.C !== 0)) ci.l_savedpc++
          else copy(stack[ra]!, source)
          break
        }
        case Op.CALL: {
          if (--control.steps <= 0) checkLimits(L)
          if (i.B !== 0) setTop(L, ra + i.B)
          if (prepareCall(L, ra, i.C - 1) === true) {
            if (i.C !== 0) openSlots(L, L.top, ci.top)
            break
          }
          ci = L.ci
          continue newFrame
        }
        case Op.TAILCALL: {
          if (--control.steps <= 0) checkLimits(L)
          if (i.B !== 0) setTop(L, ra + i.B)
          const callee = stack[ra]!
          if (callee.type !== LUA_CLOSURE) {
            // A library function, or a value with __call. The OP_RETURN that follows passes its results on.
            if (prepareCall(L, ra, MULTIPLE_RESULTS) === true) break
            ci = L.ci
            continue newFrame
          }
          // The callee takes the place of the running frame: function and arguments move down to where that began.
          if (closure.p.p.length > 0) closeUpvalues(L, closure.p, base, base)
          const from = ra
          const to = ci.funcOff
          const moved = L.top - from
          for (let j = 0; j < moved; j++) copy(stack[to + j]!, stack[from + j]!)
          setTop(L, to + moved)
          const fresh = ci.callstatus & CALL_FRESH
          const wanted = ci.nresults
          L.ci = ci.previous
                    prepareCall(L, to, wanted)
          ci = L.ci
          ci.callstatus |= fresh | CALL_TAIL
          continue newFrame
        }
        case Op.RETURN: {
          // A library function called, perhaps many times and something that neither calls nor jumps.
          if ((ci.callstatus & CALL_FRESH) !== 0 && --control.steps <= 0) checkLimits(L)
          if (closure.p.p.length > 0) closeUpvalues(L, closure.p, base, base)
          const fixed: boolean = leave(L, ci, ra, i.B !== 0 ? i.B - 1 : L.top - ra)
          if ((ci.callstatus & CALL_FRESH) !== 0) return
          ci = L.ci
          if (fixed) openSlots(L, L.top, ci.top)
          continue newFrame
        }
        case Op.FORLOOP: {
          const counter = stack[ra]!
          const limit = stack[ra + 1]!.value
          const step = stack[ra + 2]!.value
          let next: LuaInteger
          if (counter.type === INTEGER) {
            next = typeof counter.value === 'number' && typeof step === 'number' ? counter.value + step : SAFE_MAX + 1
            if (next > SAFE_MAX || next < SAFE_MIN) next = integer.addUnbounded(counter.value, step)
          } else {
            next = counter.value + step as number
          }
          if (step > 0 ? next <= limit : limit <= next) {
            if (--control.steps <= 0) checkLimits(L)
            ci.l_savedpc += i.sBx
            counter.value = next
            const variable = stack[ra + 3]!
            variable.type = counter.type
            variable.value = next
          }
          break
        }
        case Op.FORPREP:
          ci.l_savedpc += i.sBx
          // Skipping the loop means skipping the FORLOOP at its end as well.
          if (!prepareLoop(L, stack[ra]!, stack[ra + 1]!, stack[ra + 2]!)) ci.l_savedpc++
          break
        case Op.TFORCALL: {
          const call = ra + 3
          copy(stack[call + 2]!, stack[ra + 2]!)
          copy(stack[call + 1]!, stack[ra + 1]!)
          copy(stack[call]!, stack[ra]!)
          setTop(L, call + 3)
          callValue(L, call, i.C)
          openSlots(L, L.top, ci.top)
          break
        }
        case Op.TFORLOOP: {
          const first = stack[ra + 1]!
          if (first.type !== NIL) {
            if (--control.steps <= 0) checkLimits(L)
            copy(stack[ra]!, first)
            ci.l_savedpc += i.sBx
          }
          break
        }
        case Op.SETLIST: {
          let count = i.B
          if (count === 0) count = L.top - ra - 1
          const page = i.C !== 0 ? i.C : code[ci.l_savedpc++]!.Ax
          const table: Table = stack[ra]!.value
          setPositions(table, (page - 1) * FIELDS_PER_FLUSH + 1, stack, ra + 1, count)
          openSlots(L, L.top, ci.top)
          break
        }
        case Op.CLOSURE: {
          const made = makeClosure(L, closure.p.p[i.Bx]!, closure.upvals, base)
          const target = stack[ra]!
          target.type = LUA_CLOSURE
          target.value = made
          break
        }
        case Op.VARARG: {
          const available = Math.max(0, base - ci.funcOff - closure.p.numparams - 1)
          let wanted = i.B - 1
          if (wanted < 0) {
            wanted = available
            luaD_checkstack!(L, wanted)
            setTop(L, ra + wanted)
          }
          for (let j = 0; j < wanted; j++) {
            if (j < available) copy(stack[ra + j]!, stack[base - available + j]!)
            else {
              const target = stack[ra + j]!
              target.type = NIL
              target.value = null
            }
          }
          break
        }
        default:
          throw new Error(`invalid opcode ${i.opcode}`)
      }
    }
  }
}

lvm['luaV_execute'] = execute
lvm['luaV_gettable'] = (L: LuaState, object: TValue, key: TValue, at: number): void => { index(L, object, key, L.stack[at]!) }
lvm['settable'] = setIndex
lvm['luaV_objlen'] = (L: LuaState, out: TValue, object: TValue): void => { objectLength(L, object, out) }
lvm['luaV_concat'] = concatenate
