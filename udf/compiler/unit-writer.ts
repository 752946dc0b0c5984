// The parts that the code of every instruction is made of: operands, registers and their stack slots, jumps, and leaving the unit.

import type { Instruction, Proto } from '../fengari.js'
import { BOOLEAN, FLOAT, INTEGER, NIL, STRING, TABLE } from '../lua.js'
import { CONSTANT } from './flow.js'
import type { Flow, Loop } from './flow.js'
import { Kind } from './kinds.js'
import type { Kinds } from './kinds.js'
import { Site } from './runtime.js'

export const TAGS: Partial<Record<Kind, number>> = {
  [Kind.INTEGER]: INTEGER, [Kind.FLOAT]: FLOAT, [Kind.NIL]: NIL, [Kind.BOOLEAN]: BOOLEAN, [Kind.STRING]: STRING, [Kind.TABLE]: TABLE
}

/** The function, or the loop, has a form that is not compiled. */
export class Uncompilable extends Error {}

/** Of the code of a unit: what V8 reads in some ten milliseconds. Every hand-back puts away all registers that are needed. */
const UNIT_CHARS_MAX = 128 * 1024

export class UnitWriter {
  #chars = 0
  protected readonly proto: Proto
  protected readonly code: readonly Instruction[]
  protected readonly flow: Flow
  protected readonly from: number
  protected readonly to: number
  protected readonly kinds: Kinds
  protected readonly loops: readonly Loop[]
  protected readonly lines: string[] = []
  protected readonly constants = new Set<number>()
  readonly sites: Site[] = []
  protected readonly registers = new Set<number>()

  constructor (proto: Proto, flow: Flow, from: number, to: number, kinds: Kinds) {
    this.proto = proto
    this.flow = flow
    this.code = flow.code
    this.from = from
    this.to = to
    this.kinds = kinds
    this.loops = flow.loops.filter(loop => loop.head >= from && loop.end <= to)
  }

  protected emit (line: string): void {
    this.#chars += line.length
    if (this.#chars > UNIT_CHARS_MAX) throw new Uncompilable()
    this.lines.push(line)
  }

  // ---- operands ----

  /** The variable of a register, to be read. */
  protected value (field: number): string {
    if (field < CONSTANT) {
      this.registers.add(field)
      return `v${field}`
    }
    const { type, value } = this.proto.k[field - CONSTANT]!
    if ((type === INTEGER && typeof value === 'number') || type === FLOAT) return Object.is(value, -0) ? '(-0)' : value < 0 ? `(${value})` : String(value)
    if (type === BOOLEAN) return String(value)
    if (type === NIL) return 'null'
    this.constants.add(field - CONSTANT)
    return `k${field - CONSTANT}.value`
  }

  protected type (pc: number, field: number): string {
    if (field >= CONSTANT) return String(this.proto.k[field - CONSTANT]!.type)
    this.registers.add(field)
    return String(TAGS[this.kinds.of(pc, field)] ?? `t${field}`)
  }

  /** The TValue of an operand for the slow path, which must find it in its slot. */
  protected slot (pc: number, field: number): { put: string, expression: string } {
    if (field >= CONSTANT) {
      this.constants.add(field - CONSTANT)
      return { put: '', expression: `k${field - CONSTANT}` }
    }
    return { put: `${this.put(pc, field)}; `, expression: `stack[base + ${field}]` }
  }

  protected put (pc: number, register: number): string {
    return `put(stack, base + ${register}, ${this.type(pc, register)}, ${this.value(register)})`
  }

  /** Reads captured registers from their slots, before an instruction uses them. */
  protected load (...fields: number[]): void {
    for (const field of new Set(fields)) {
      if (field < CONSTANT && this.kinds.captured.has(field)) {
        this.registers.add(field)
        this.emit(`e = stack[base + ${field}]; t${field} = e.type; v${field} = e.value`)
      }
    }
  }

  protected store (register: number, type: string | number, value: string): void {
    this.registers.add(register)
    // The value first: it may be made of what the register held.
    this.emit(`v${register} = ${value}; t${register} = ${type}`)
    if (this.kinds.captured.has(register)) this.emit(`put(stack, base + ${register}, t${register}, v${register})`)
  }

  /** Takes over what the TValue `e` holds. */
  protected take (register: number): void {
    this.store(register, 'e.type', 'e.value')
  }

  protected site (field: number): string {
    this.sites.push(new Site(this.proto.k[field - CONSTANT]!))
    return `s${this.sites.length - 1}`
  }

  protected isText (field: number): boolean {
    return field >= CONSTANT && this.proto.k[field - CONSTANT]!.type === STRING
  }

  // ---- leaving ----

  protected spill (pc: number): string {
    return [...this.flow.live[pc]!].filter(r => !this.kinds.captured.has(r)).map(r => {
      this.registers.add(r)
      return `put(stack, base + ${r}, t${r}, v${r}); `
    }).join('')
  }

  /** The instruction loop does this instruction. */
  protected handBack (pc: number): string {
    return `{ ${this.spill(pc)}return tier.exit(${pc}) }`
  }

  protected position (pc: number): string {
    return `ci.l_savedpc = ${pc + 1}; `
  }

  protected jump (from: number, to: number): string {
    if (to < this.from || to > this.to) return `{ ${this.spill(to)}return ${to} }`
    if (to <= from) return `{ if (--control.steps <= 0) { ${this.position(from)}checkLimits(L) } continue L${to} }`
    return `break B${to}`
  }
}
