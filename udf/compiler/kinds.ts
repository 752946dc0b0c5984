// What is known of the values in registers, instruction by instruction: from constants, from the results of operators, and from the
// types that values had when the unit was compiled, which its entry checks.

import type { Instruction, Proto, TValue } from '../fengari.js'
import { BOOLEAN, FLOAT, INTEGER, NIL, STRING, TABLE } from '../lua.js'
import { capturedRegisters } from '../lua-frame.js'
import { CONSTANT, effectOf, iterationOf } from './flow.js'
import type { Flow } from './flow.js'
import { Op } from './opcodes.js'

/** INTEGER and the two after it are JavaScript numbers; an integer that needs a bigint is ANY. */
export enum Kind { ANY, INTEGER, FLOAT, NUMBER, NIL, BOOLEAN, STRING, TABLE }

export function isNumeric (kind: Kind): boolean {
  return kind === Kind.INTEGER || kind === Kind.FLOAT || kind === Kind.NUMBER
}

export function kindOfValue (value: TValue): Kind {
  switch (value.type) {
    case INTEGER: return typeof value.value === 'number' ? Kind.INTEGER : Kind.ANY
    case FLOAT: return Kind.FLOAT
    case NIL: return Kind.NIL
    case BOOLEAN: return Kind.BOOLEAN
    case STRING: return Kind.STRING
    case TABLE: return Kind.TABLE
    default: return Kind.ANY
  }
}

function merged (a: Kind, b: Kind): Kind {
  return a === b ? a : isNumeric(a) && isNumeric(b) ? Kind.NUMBER : Kind.ANY
}

/** The kind of an arithmetic result; whatever is not a number leaves the unit. */
export function arithmeticKind (opcode: Op, b: Kind, c: Kind): Kind {
  if (opcode >= Op.BAND && opcode <= Op.SHR) return Kind.INTEGER
  if (opcode === Op.DIV || opcode === Op.POW) return Kind.FLOAT
  if (b === Kind.INTEGER && c === Kind.INTEGER) return Kind.INTEGER
  return b === Kind.FLOAT || c === Kind.FLOAT ? Kind.FLOAT : Kind.NUMBER
}

export class Kinds {
  readonly #flow: Flow
  readonly #proto: Proto
  readonly captured: ReadonlySet<number>
  /** Before each instruction; undefined where control does not come. */
  readonly #before: Array<Kind[] | undefined>

  constructor (proto: Proto, flow: Flow, from: number, to: number, entry: Kind[]) {
    this.#proto = proto
    this.#flow = flow
    this.captured = new Set(capturedRegisters(proto))
    this.#before = new Array(flow.code.length)
    const pending: number[] = []
    const reach = (pc: number, state: Kind[]): void => {
      if (pc < from || pc > to) return
      const known = this.#before[pc]
      if (known === undefined) this.#before[pc] = state.slice()
      else {
        let changed = false
        for (let r = 0; r < known.length; r++) {
          const kind = merged(known[r]!, state[r]!)
          if (kind !== known[r]) {
            known[r] = kind
            changed = true
          }
        }
        if (!changed) return
      }
      pending.push(pc)
    }
    reach(from, entry.map((kind, r) => this.captured.has(r) ? Kind.ANY : kind))
    while (pending.length > 0) {
      const pc = pending.pop()!
      const after = this.#after(pc, this.#before[pc]!.slice())
      for (const next of flow.successors[pc]!) reach(next, after)
    }
  }

  reaches (pc: number): boolean {
    return this.#before[pc] !== undefined
  }

  of (pc: number, register: number): Kind {
    return this.#before[pc]?.[register] ?? Kind.ANY
  }

  operand (pc: number, field: number): Kind {
    return field >= CONSTANT ? kindOfValue(this.#proto.k[field - CONSTANT]!) : this.of(pc, field)
  }

  #after (pc: number, state: Kind[]): Kind[] {
    const i = this.#flow.code[pc]!
    const set = (register: number, kind: Kind): void => {
      state[register] = this.captured.has(register) ? Kind.ANY : kind
    }
    const operand = (field: number): Kind => field >= CONSTANT ? kindOfValue(this.#proto.k[field - CONSTANT]!) : state[field]!
    const { writes, voidFrom } = effectOf(i, this.#flow.openFrom[pc]!)
    for (let r = voidFrom; r < state.length; r++) state[r] = Kind.ANY
    switch (i.opcode as Op) {
      case Op.MOVE: set(i.A, state[i.B]!); return state
      case Op.LOADK: set(i.A, kindOfValue(this.#proto.k[i.Bx]!)); return state
      case Op.LOADBOOL: case Op.NOT: set(i.A, Kind.BOOLEAN); return state
      case Op.LOADNIL: for (const r of writes) set(r, Kind.NIL); return state
      case Op.NEWTABLE: set(i.A, Kind.TABLE); return state
      case Op.ADD: case Op.SUB: case Op.MUL: case Op.MOD: case Op.POW: case Op.DIV: case Op.IDIV:
      case Op.BAND: case Op.BOR: case Op.BXOR: case Op.SHL: case Op.SHR: {
        const kind = arithmeticKind(i.opcode, operand(i.B), operand(i.C))
        const proven = i.opcode >= Op.BAND && i.opcode <= Op.SHR ? Kind.INTEGER : Kind.NUMBER
        for (const field of [i.B, i.C]) if (field < CONSTANT && state[field] === Kind.ANY) set(field, proven)
        set(i.A, kind)
        return state
      }
      case Op.UNM: set(i.A, isNumeric(state[i.B]!) ? state[i.B]! : Kind.NUMBER); return state
      case Op.BNOT: set(i.A, Kind.INTEGER); return state
      case Op.FORPREP: for (const r of [i.A, i.A + 1, i.A + 2, i.A + 3]) set(r, Kind.INTEGER); return state
      case Op.FORLOOP:
        if (state[i.A] === Kind.FLOAT && state[i.A + 2] === Kind.FLOAT) set(i.A + 3, Kind.FLOAT)
        else for (const r of [i.A, i.A + 2, i.A + 3]) set(r, Kind.INTEGER)
        return state
      case Op.TESTSET: set(i.A, merged(state[i.A]!, state[i.B]!)); return state
      case Op.TFORLOOP: set(i.A, merged(state[i.A]!, state[i.A + 1]!)); return state
      case Op.JMP: {
        const iteration = iterationOf(this.#flow.code, pc)
        if (iteration >= 0) {
          const call = this.#flow.code[iteration] as Instruction
          for (let r = call.A + 2; r < state.length; r++) state[r] = Kind.ANY
        }
        return state
      }
      default:
        for (const r of writes) set(r, Kind.ANY)
        return state
    }
  }
}
