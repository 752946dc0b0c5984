// What a compiler must know of a function's bytecode before it writes code: where control goes, which registers are still needed, and
// which loops there are.

import type { Instruction, Proto } from '../fengari.js'
import { Op } from './opcodes.js'

export const CONSTANT = 256

/** The loop whose body is entered at `head`; `end` is the last instruction that jumps back to it. */
export interface Loop {
  readonly head: number
  end: number
}

export class Flow {
  readonly code: readonly Instruction[]
  /** Where the instruction can go on, in order; an instruction that is part of the one before it has none. */
  readonly successors: readonly number[][]
  /** Outermost first, by head. */
  readonly loops: readonly Loop[]
  /** Registers that are read after the instruction is reached and before they are written. */
  readonly live: readonly Set<number>[]
  /** For an instruction that takes as many values as there are: the first register of those that came in a number known only then. */
  readonly openFrom: readonly number[]

  constructor (proto: Proto) {
    this.code = proto.code
    this.openFrom = openStarts(proto.code)
    this.successors = proto.code.map((_, pc) => successorsOf(proto.code, pc))
    this.loops = loopsOf(this.successors)
    this.live = liveness(this.code, this.successors, this.openFrom)
  }
}

/** `for ... in` begins with a jump to the call of its iterator, which stands at the end of the body. */
export function iterationOf (code: readonly Instruction[], pc: number): number {
  const { opcode, sBx, A } = code[pc]!
  const target = pc + 1 + sBx
  return opcode === Op.JMP && A === 0 && sBx >= 0 && code[target]?.opcode === Op.TFORCALL && target + 2 + code[target + 1]!.sBx === pc + 1 ? target : -1
}

function successorsOf (code: readonly Instruction[], pc: number): number[] {
  const i = code[pc]!
  switch (i.opcode) {
    case Op.JMP: {
      const iteration = iterationOf(code, pc)
      return iteration >= 0 ? [pc + 1, iteration + 2] : [pc + 1 + i.sBx]
    }
    case Op.EQ: case Op.LT: case Op.LE: case Op.TEST: case Op.TESTSET: return [pc + 2, pc + 2 + code[pc + 1]!.sBx]
    case Op.LOADBOOL: return [i.C !== 0 ? pc + 2 : pc + 1]
    // The test of the first iteration is made here, not by the FORLOOP that is jumped to.
    case Op.FORPREP: return [pc + 1, pc + 2 + i.sBx]
    case Op.FORLOOP: case Op.TFORLOOP: return [pc + 1, pc + 1 + i.sBx]
    case Op.RETURN: return []
    case Op.SETLIST: return [i.C === 0 ? pc + 2 : pc + 1]
    case Op.LOADKX: return [pc + 2]
    default: return [pc + 1]
  }
}

function loopsOf (successors: readonly number[][]): Loop[] {
  const loops = new Map<number, Loop>()
  for (const [pc, targets] of successors.entries()) {
    for (const head of targets) {
      if (head > pc) continue
      const loop = loops.get(head)
      if (loop === undefined) loops.set(head, { head, end: pc })
      else loop.end = Math.max(loop.end, pc)
    }
  }
  const sorted = [...loops.values()].sort((a, b) => a.head - b.head)
  // Loops that overlap are made to nest: to run on in an outer loop for a while does no harm.
  for (let i = sorted.length - 1; i >= 0; i--) {
    for (let j = i + 1; j < sorted.length; j++) {
      if (sorted[j]!.head <= sorted[i]!.end && sorted[j]!.end > sorted[i]!.end) sorted[i]!.end = sorted[j]!.end
    }
  }
  return sorted
}

function openStarts (code: readonly Instruction[]): number[] {
  let from = -1
  return code.map(({ opcode, A, B, C }) => {
    const here = from
    from = (opcode === Op.CALL && C === 0) || (opcode === Op.VARARG && B === 0) || opcode === Op.TAILCALL ? A : -1
    return here
  })
}

interface Effect {
  reads: number[]
  /** Registers that hold something else afterwards, on every way out. */
  writes: number[]
  /** Every register from here on is void afterwards, but for what is written. */
  voidFrom: number
}

function range (from: number, to: number): number[] {
  const all: number[] = []
  for (let i = from; i < to; i++) all.push(i)
  return all
}

function operands (...fields: number[]): number[] {
  return fields.filter(field => field < CONSTANT)
}

export function effectOf (i: Instruction, openFrom: number): Effect {
  const { opcode, A, B, C } = i
  let reads: number[] = []
  let writes: number[] = []
  let voidFrom = Infinity
  switch (opcode) {
    case Op.MOVE: case Op.UNM: case Op.BNOT: case Op.NOT: case Op.LEN: reads = [B]; writes = [A]; break
    case Op.LOADK: case Op.LOADKX: case Op.LOADBOOL: case Op.GETUPVAL: case Op.NEWTABLE: case Op.CLOSURE: writes = [A]; break
    case Op.LOADNIL: writes = range(A, A + B + 1); break
    case Op.GETTABUP: reads = operands(C); writes = [A]; break
    case Op.GETTABLE: reads = [B, ...operands(C)]; writes = [A]; break
    case Op.SETTABUP: reads = operands(B, C); break
    case Op.SETUPVAL: case Op.TEST: reads = [A]; break
    case Op.SETTABLE: reads = [A, ...operands(B, C)]; break
    case Op.SELF: reads = [B, ...operands(C)]; writes = [A, A + 1]; break
    case Op.CONCAT: reads = range(B, C + 1); writes = [A]; break
    case Op.JMP: break
    case Op.EQ: case Op.LT: case Op.LE: reads = operands(B, C); break
    case Op.TESTSET: reads = [B]; break
    case Op.CALL: reads = range(A, B === 0 ? openFrom : A + B); writes = C === 0 ? [] : range(A, A + C - 1); voidFrom = A; break
    case Op.TAILCALL: reads = range(A, B === 0 ? openFrom : A + B); voidFrom = A; break
    case Op.RETURN: reads = range(A, B === 0 ? openFrom : A + B - 1); break
    case Op.FORLOOP: reads = [A, A + 1, A + 2]; break
    case Op.FORPREP: reads = [A, A + 1, A + 2]; break
    case Op.TFORCALL: reads = [A, A + 1, A + 2]; writes = range(A + 3, A + 3 + C); voidFrom = A + 3; break
    case Op.TFORLOOP: reads = [A + 1]; break
    case Op.SETLIST: reads = [A, ...range(A + 1, B === 0 ? openFrom : A + 1 + B)]; break
    case Op.VARARG: writes = B === 0 ? [] : range(A, A + B - 1); break
    case Op.EXTRAARG: break
    default: reads = operands(B, C); writes = [A]
  }
  return { reads, writes, voidFrom }
}

function liveness (code: readonly Instruction[], successors: readonly number[][], openFrom: readonly number[]): Set<number>[] {
  const live = code.map(() => new Set<number>())
  const effects = code.map((i, pc) => effectOf(i, openFrom[pc]!))
  for (let changed = true; changed;) {
    changed = false
    for (let pc = code.length - 1; pc >= 0; pc--) {
      const set = live[pc]!
      const before = set.size
      const { reads, writes, voidFrom } = effects[pc]!
      for (const next of successors[pc]!) {
        const after = live[next]
        if (after === undefined) continue
        for (const register of after) if (register < voidFrom && !writes.includes(register)) set.add(register)
      }
      const iteration = iterationOf(code, pc)
      if (iteration >= 0) for (const register of live[iteration]!) set.add(register)
      for (const register of reads) set.add(register)
      changed ||= set.size !== before
    }
  }
  return live
}
