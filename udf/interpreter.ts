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

import type { CallInfo, LuaClosure, LuaState, Table } from './fengari.js'
import { countCall, countJump, Tier } from './compiler/tier.js'
import { RETURNED } from './compiler/unit.js'
import { HostObject } from './host-object.js'
import { chargeSteps, control } from './limits.js'
import {
  arithmetic, Arithmetic, BOOLEAN, checkLimits, FLOAT, INTEGER, isFalse, ldo, lopcodes, lstate, LUA_CLOSURE, LuaTable, lvm, MULTIPLE_RESULTS, NIL,
  setPositions, TABLE, USERDATA
} from './lua.js'
import { callValue, closeUpvalues, leave, openSlots, prepareCall, setTop } from './lua-frame.js'
import * as integer from './lua-integer.js'
import type { LuaInteger } from './lua-integer.js'
import { concatenate, copy, equal, index, lessEqual, lessThan, makeClosure, objectLength, prepareLoop, setIndex } from './operations.js'

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

const CALL_FRESH: number = lstate['CIST_FRESH']
const CALL_TAIL: number = lstate['CIST_TAIL']

const { luaD_checkstack } = ldo as Record<string, (...args: any[]) => any>

function execute (L: LuaState): void {
  let ci: CallInfo = L.ci
  ci.callstatus |= CALL_FRESH
  // The frame goes on at the head of a loop, where compiled code may take over.
  let jumped = false
  newFrame: for (;;) {
    const closure: LuaClosure = ci.func.value
    const k = closure.p.k
    const code = ci.l_code
    const base = ci.l_base
    const stack = L.stack
    const tier = closure.p.tier ?? (closure.p.tier = new Tier(closure.p))
    if (jumped || ci.l_savedpc === 0) {
      const unit = jumped ? countJump(L, ci, tier) : countCall(L, ci, tier)
      jumped = false
      if (unit !== null) {
        const pc = unit(L, ci, closure.upvals, stack, base)
        if (pc >= 0) ci.l_savedpc = pc
        else {
          if (pc === RETURNED) {
            if ((ci.callstatus & CALL_FRESH) !== 0) return
            if (ci.nresults !== MULTIPLE_RESULTS) openSlots(L, L.top, L.ci.top)
          }
          ci = L.ci
          continue newFrame
        }
      }
    }
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
          if (i.sBx < 0) {
            jumped = true
            continue newFrame
          }
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
            jumped = true
            continue newFrame
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
            jumped = true
            continue newFrame
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
            chargeSteps(available >> 3)
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
