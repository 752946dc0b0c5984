// Which functions are compiled, and when. A unit is the compiled form of a whole function, entered at its first instruction, or of one
// loop, entered where its body begins; it runs in the frame of the function as the instruction loop does, and can hand that frame back
// at any instruction.
//
// Code that a coroutine runs is not compiled: a yield leaves the instruction loop by an exception and comes back by the frame alone.

import type { CallInfo, LuaState, Proto } from '../fengari.js'
import { compile } from './emit.js'
import { DEPTH_MAX, settings } from './unit.js'
import type { Unit } from './unit.js'
import { Uncompilable } from './unit-writer.js'

const JUMPS_PER_CALL = 16
/** A longer function stays interpreted. */
const INSTRUCTIONS_MAX = 2000
const LOOP_UNITS_MAX = 16
/** Entries with values of other types than before, until a unit that expects no types is made. */
const MISSES_MAX = 16
/** Hand-backs until a function is given up, if they are more than one in ten entries. */
const EXITS_MAX = 64

/** What is known of one function's running. */
export class Tier {
  readonly proto: Proto
  calls = 0
  jumps = 0
  entries = 0
  exits = 0
  givenUp = false
  entry: Unit | null = null
  /** By the instruction where it begins; null where compiling failed. */
  readonly #loops = new Map<number, Unit | null>()
  /** Where units must not expect types. */
  readonly #general = new Set<number>()
  readonly #misses = new Map<number, number>()

  constructor (proto: Proto) {
    this.proto = proto
    this.givenUp = proto.code.length > INSTRUCTIONS_MAX
  }

  #compiled (L: LuaState, ci: CallInfo, pc: number): Unit | null {
    try {
      return compile(this, pc, this.#general.has(pc) ? null : { stack: L.stack, base: ci.l_base })
    } catch (error) {
      if (error instanceof EvalError) settings.forbidden = true
      else if (error instanceof SyntaxError) settings.defects++
      else if (!(error instanceof Uncompilable)) throw error
      return null
    }
  }

  compileEntry (L: LuaState, ci: CallInfo): Unit | null {
    this.entry = this.#compiled(L, ci, 0)
    if (this.entry === null) this.calls = -Infinity
    return this.entry
  }

  loop (L: LuaState, ci: CallInfo, pc: number): Unit | null {
    const known = this.#loops.get(pc)
    if (known !== undefined) return known
    if (this.#loops.size >= LOOP_UNITS_MAX) return null
    const unit = this.#compiled(L, ci, pc)
    this.#loops.set(pc, unit)
    return unit
  }

  /** A unit met a value of a type that it does not expect on entry. */
  miss (pc: number): number {
    const misses = (this.#misses.get(pc) ?? 0) + 1
    this.#misses.set(pc, misses)
    if (misses === MISSES_MAX) {
      this.#general.add(pc)
      if (pc === 0) this.entry = null
      this.#loops.delete(pc)
    }
    return pc
  }

  /** A unit hands its frame back. */
  exit (pc: number): number {
    this.exits++
    if (this.exits > EXITS_MAX && this.exits * 10 > this.entries) {
      this.givenUp = true
      this.entry = null
      this.#loops.clear()
    }
    return pc
  }
}

function mayRun (L: LuaState, ci: CallInfo): boolean {
  return L.nny > 0 && ci.depth < DEPTH_MAX && settings.after !== Infinity && !settings.forbidden
}

/** Counts the start of a function; its unit, if it is to run as one. */
export function countCall (L: LuaState, ci: CallInfo, tier: Tier): Unit | null {
  if (tier.givenUp || (tier.entry === null && ++tier.calls < settings.after) || !mayRun(L, ci)) return null
  tier.entries++
  return tier.entry ?? tier.compileEntry(L, ci)
}

/** Counts a jump backwards to the instruction that comes next; the unit of that loop, if it is to run as one. */
export function countJump (L: LuaState, ci: CallInfo, tier: Tier): Unit | null {
  if (++tier.jumps < settings.after * JUMPS_PER_CALL || tier.givenUp || !mayRun(L, ci)) return null
  tier.entries++
  return ci.l_savedpc === 0 ? tier.entry : tier.loop(L, ci, ci.l_savedpc)
}
