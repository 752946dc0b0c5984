// Writes the JavaScript of a unit. Each register is a pair of variables, its type tag and its value. What an instruction finds in the
// common case is written out; what else may happen goes one of two ways:
//
//   slow path   the operands are put into their stack slots, operations.ts does the work as for the instruction loop, the result is
//               read from its slot: names in errors, metamethods and their order are the same by construction
//   hand-back   arithmetic on anything but numbers, or beyond 2^53: the registers still needed are put into their slots and the
//               instruction loop goes on with this very instruction. So the result of compiled arithmetic is always a number
//
// Registers that closures capture live in their slots, and are read and written there.
//
// The code holds numbers of the script's constants and of its registers, nothing that a script could word: strings are reached by
// their place in the constants.

import type { Instruction, TValue } from '../fengari.js'
import { BOOLEAN, FLOAT, INTEGER, NIL, STRING, TABLE } from '../lua.js'
import { CONSTANT, Flow, iterationOf } from './flow.js'
import type { Loop } from './flow.js'
import { arithmeticKind, isNumeric, Kind, kindOfValue, Kinds } from './kinds.js'
import { Op } from './opcodes.js'
import { runtime } from './runtime.js'
import type { Tier } from './tier.js'
import type { Unit } from './unit.js'
import { TAGS, Uncompilable, UnitWriter } from './unit-writer.js'

/** Jump targets that one loop body, or the function outside its loops, may have: each is a nested block. */
const TARGETS_MAX = 200
const SAFE = '9007199254740991'

interface Entry {
  readonly stack: readonly TValue[]
  readonly base: number
}

const OPERATORS: Partial<Record<Op, string>> = { [Op.ADD]: '+', [Op.SUB]: '-', [Op.MUL]: '*', [Op.DIV]: '/' }
const BITWISE: Partial<Record<Op, [string, string]>> = {
  [Op.BAND]: ['&', 'bitAnd'], [Op.BOR]: ['|', 'bitOr'], [Op.BXOR]: ['^', 'bitXor'], [Op.SHL]: ['', 'shiftLeft'], [Op.SHR]: ['', 'shiftRight']
}

class Emitter extends UnitWriter {
  // ---- structure ----

  /** The loop whose body an instruction lies in; the head of a loop is jumped to from outside of it. */
  #owner (target: number): Loop | null {
    let owner: Loop | null = null
    for (const loop of this.loops) if (loop.head < target && target <= loop.end && (owner === null || loop.head > owner.head)) owner = loop
    return owner
  }

  /** Where control comes without a jump being written. */
  #fallsTo (pc: number): number {
    const { opcode, C } = this.code[pc]!
    switch (opcode as Op) {
      case Op.EQ: case Op.LT: case Op.LE: case Op.TEST: case Op.TESTSET: return pc + 2
      case Op.LOADBOOL: return C !== 0 ? -1 : pc + 1
      case Op.JMP: return iterationOf(this.code, pc) >= 0 ? pc + 1 : -1
      default: return pc + 1
    }
  }

  #targets (): Map<Loop | null, Set<number>> {
    const targets = new Map<Loop | null, Set<number>>()
    for (let pc = this.from; pc <= this.to; pc++) {
      if (!this.kinds.reaches(pc)) continue
      for (const [way, to] of this.flow.successors[pc]!.entries()) {
        if (to <= pc || to > this.to || (way === 0 && to === this.#fallsTo(pc))) continue
        const owner = this.#owner(to)
        if (owner !== null && (pc < owner.head || pc > owner.end)) {
          // Falling into a loop is how it begins; jumping into one is not written here.
          throw new Uncompilable()
        }
        let set = targets.get(owner)
        if (set === undefined) targets.set(owner, set = new Set())
        set.add(to)
        if (set.size > TARGETS_MAX) throw new Uncompilable()
      }
    }
    return targets
  }

  #region (from: number, to: number, self: Loop | null, targets: Map<Loop | null, Set<number>>): void {
    const own = [...targets.get(self) ?? []].sort((a, b) => b - a)
    for (const target of own) this.emit(`B${target}: {`)
    for (let pc = from; pc <= to;) {
      if (own.at(-1) === pc) {
        own.pop()
        this.emit('}')
      }
      const loop = this.loops.find(loop => loop.head === pc && loop !== self)
      if (loop !== undefined) {
        this.emit(`L${pc}: for (;;) {`)
        this.#region(pc, loop.end, loop, targets)
        this.emit('break }')
        pc = loop.end + 1
      } else if (this.kinds.reaches(pc)) pc = this.#instruction(pc)
      else pc++
    }
    while (own.length > 0) {
      own.pop()
      this.emit('}')
    }
  }

  // ---- instructions ----

  /** Writes one instruction; the next one to write. */
  #instruction (pc: number): number {
    const i = this.code[pc]!
    const { A, B, C } = i
    const op = i.opcode as Op
    switch (op) {
      case Op.MOVE:
        this.load(B)
        this.store(A, this.type(pc, B), this.value(B))
        break
      case Op.LOADK: this.store(A, this.type(pc, i.Bx + CONSTANT), this.value(i.Bx + CONSTANT)); break
      case Op.LOADBOOL:
        this.store(A, BOOLEAN, String(B !== 0))
        if (C !== 0) this.emit(this.jump(pc, pc + 2))
        break
      case Op.LOADNIL: for (let r = A; r <= A + B; r++) this.store(r, NIL, 'null'); break
      case Op.GETUPVAL:
        this.emit(`e = upvals[${B}]`)
        this.take(A)
        break
      case Op.SETUPVAL:
        this.load(A)
        this.emit(`e = upvals[${B}]; e.type = ${this.type(pc, A)}; e.value = ${this.value(A)}`)
        break
      case Op.GETTABUP: this.#getGlobal(pc, i); break
      case Op.GETTABLE: this.#getTable(pc, i); break
      case Op.SELF: this.#self(pc, i); break
      case Op.SETTABUP: {
        this.load(B, C)
        const key = this.slot(pc, B)
        const value = this.slot(pc, C)
        const quick = this.isText(B) ? `e = upvals[${A}]; if (e.type !== ${TABLE} || !setField(e.value, ${this.site(B)}, ${this.type(pc, C)}, ${this.value(C)})) ` : ''
        this.emit(`${quick}{ ${this.position(pc)}${key.put}${value.put}setIndex(L, upvals[${A}], ${key.expression}, ${value.expression}) }`)
        break
      }
      case Op.SETTABLE: this.#setTable(pc, i); break
      case Op.NEWTABLE: this.store(A, TABLE, 'new LuaTable(L)'); break
      case Op.ADD: case Op.SUB: case Op.MUL: case Op.MOD: case Op.POW: case Op.DIV: case Op.IDIV: this.#arithmetic(pc, i); break
      case Op.BAND: case Op.BOR: case Op.BXOR: case Op.SHL: case Op.SHR: this.#bitwise(pc, i); break
      case Op.UNM: {
        this.load(B)
        const kind = this.kinds.of(pc, B)
        if (!isNumeric(kind)) this.emit(`if (!(${this.#isNumber(pc, B)})) ${this.handBack(pc)}`)
        const x = this.value(B)
        this.emit(`x = ${kind === Kind.INTEGER ? `0 - ${x}` : kind === Kind.FLOAT ? `-${x}` : `t${B} === ${INTEGER} ? 0 - ${x} : -${x}`}`)
        this.store(A, this.type(pc, B), 'x')
        break
      }
      case Op.BNOT:
        this.load(B)
        if (this.kinds.of(pc, B) !== Kind.INTEGER) this.emit(`if (!(${this.#isInteger(pc, B)})) ${this.handBack(pc)}`)
        this.store(A, INTEGER, `-1 - ${this.value(B)}`)
        break
      case Op.NOT:
        this.load(B)
        this.store(A, BOOLEAN, `!(${this.#truth(pc, B)})`)
        break
      case Op.LEN: {
        this.load(B)
        const slot = this.slot(pc, B)
        const type = this.type(pc, B)
        const x = this.value(B)
        this.emit(`if (${type} === ${STRING}) { x = ${x}.length; y = ${INTEGER} } else if (${type} === ${TABLE} && ${x}.metatable === null) { x = tableLength(${x}); y = ${INTEGER} } ` +
          `else { ${this.position(pc)}${slot.put}e = lengthSlow(L, ${slot.expression}, stack[base + ${A}]); x = e.value; y = e.type }`)
        this.store(A, 'y', 'x')
        break
      }
      case Op.CONCAT:
        for (let r = B; r <= C; r++) {
          this.load(r)
          this.emit(this.put(pc, r))
        }
        this.emit(`${this.position(pc)}e = concat(L, base + ${B}, ${C - B + 1})`)
        this.take(A)
        break
      case Op.JMP: {
        if (A !== 0) this.emit(`closeUpvalues(L, proto, base, base + ${A - 1})`)
        const iteration = iterationOf(this.code, pc)
        if (iteration >= 0) this.#iterate(iteration, pc, true)
        else this.emit(this.jump(pc, pc + 1 + i.sBx))
        break
      }
      case Op.EQ: case Op.LT: case Op.LE: {
        this.load(B, C)
        return this.#branch(pc, this.#comparison(pc, i), A !== 0)
      }
      case Op.TEST:
        this.load(A)
        return this.#branch(pc, this.#truth(pc, A), C !== 0)
      case Op.TESTSET: {
        this.load(B)
        this.emit(`if ((${this.#truth(pc, B)}) === ${C !== 0}) {`)
        this.store(A, this.type(pc, B), this.value(B))
        this.#takeJump(pc + 1)
        this.emit('}')
        if (this.flow.successors[pc]![0]! > this.to) this.emit(this.jump(pc, pc + 2))
        return pc + 2
      }
      case Op.CALL: this.#call(pc, i); break
      case Op.TAILCALL: {
        this.#arguments(pc, A, B)
        this.emit(`${this.position(pc)}if (--control.steps <= 0) checkLimits(L)`)
        this.emit(`if (tailCall(L, ci, ci.func.value, base, base + ${A})) return TAILED`)
        break
      }
      case Op.RETURN: this.#return(pc, i); break
      case Op.FORPREP: {
        this.load(A, A + 1, A + 2)
        const checks = [A, A + 1, A + 2].filter(r => this.kinds.of(pc, r) !== Kind.INTEGER).map(r => this.#isInteger(pc, r))
        const step = this.#step(pc, A)
        if (step === 0) checks.push(`v${A + 2} !== 0`)
        if (checks.length > 0) this.emit(`if (!(${checks.join(' && ')})) ${this.handBack(pc)}`)
        const [init, limit, by] = [A, A + 1, A + 2].map(r => this.value(r))
        const runs = step > 0 ? `${init} <= ${limit}` : step < 0 ? `${init} >= ${limit}` : `(${by} > 0 ? ${init} <= ${limit} : ${init} >= ${limit})`
        this.emit(`if (!(${runs})) ${this.jump(pc, pc + 2 + i.sBx)}`)
        this.store(A + 3, INTEGER, init!)
        break
      }
      case Op.FORLOOP: {
        this.load(A, A + 1, A + 2)
        const isFloat = this.kinds.of(pc, A) === Kind.FLOAT && this.kinds.of(pc, A + 2) === Kind.FLOAT
        const checks = isFloat ? [] : [A, A + 2].filter(r => this.kinds.of(pc, r) !== Kind.INTEGER).map(r => this.#isInteger(pc, r))
        if (checks.length > 0) this.emit(`if (!(${checks.join(' && ')})) ${this.handBack(pc)}`)
        const [counter, limit, by] = [A, A + 1, A + 2].map(r => this.value(r))
        const step = isFloat ? 0 : this.#step(pc, A)
        this.emit(`x = ${counter} + ${by}`)
        // Where the limit lies beyond 2^53. Before the comparison: a sum that was rounded may be on the wrong side of the limit.
        if (!isFloat) this.emit(`if (x > ${SAFE} || x < -${SAFE}) ${this.handBack(pc)}`)
        this.emit(`if (${step > 0 ? `x <= ${limit}` : step < 0 ? `x >= ${limit}` : `(${by} > 0 ? x <= ${limit} : x >= ${limit})`}) {`)
        this.store(A, isFloat ? FLOAT : INTEGER, 'x')
        this.store(A + 3, isFloat ? FLOAT : INTEGER, 'x')
        this.emit(`${this.jump(pc, pc + 1 + i.sBx)} }`)
        break
      }
      case Op.TFORCALL: this.#iterate(pc, pc + 1, false); return pc + 2
      case Op.SETLIST: {
        if (C === 0) throw new Uncompilable()
        this.load(A)
        const open = this.flow.openFrom[pc]!
        for (let r = A + 1; r < (B === 0 ? open : A + 1 + B); r++) {
          this.load(r)
          this.emit(this.put(pc, r))
        }
        this.emit(`setList(L, ci, ${this.value(A)}, base + ${A + 1}, ${B === 0 ? -1 : B}, ${C})`)
        break
      }
      case Op.CLOSURE: this.store(A, 6, `makeClosure(L, proto.p[${i.Bx}], upvals, base)`); break
      case Op.VARARG:
        this.emit(`varargs(L, ci, ${this.proto.numparams}, base + ${A}, ${B - 1})`)
        for (let r = A; r < A + B - 1; r++) {
          this.emit(`e = stack[base + ${r}]`)
          this.take(r)
        }
        break
      default: throw new Uncompilable()
    }
    const next = pc + 1
    // A loop that is a unit of its own ends here for what falls out of it.
    if (next > this.to && this.flow.successors[pc]!.includes(next)) this.emit(this.jump(pc, next))
    return next
  }

  #takeJump (pc: number): void {
    const jump = this.code[pc]!
    if (jump.A !== 0) this.emit(`closeUpvalues(L, proto, base, base + ${jump.A - 1})`)
    this.emit(this.jump(pc, pc + 1 + jump.sBx))
  }

  /** A test and the jump after it, which is made when the condition has the expected value. */
  #branch (pc: number, condition: string, expected: boolean): number {
    this.emit(`if (${expected ? '' : '!'}(${condition})) {`)
    this.#takeJump(pc + 1)
    this.emit('}')
    if (pc + 2 > this.to) this.emit(this.jump(pc + 1, pc + 2))
    return pc + 2
  }

  #truth (pc: number, register: number): string {
    switch (this.kinds.of(pc, register)) {
      case Kind.NIL: return 'false'
      case Kind.BOOLEAN: return this.value(register)
      case Kind.ANY: return `${this.type(pc, register)} !== 0 && (t${register} !== ${BOOLEAN} || ${this.value(register)} !== false)`
      default: return 'true'
    }
  }

  #isNumber (pc: number, field: number): string {
    const type = this.type(pc, field)
    const value = this.value(field)
    return `(${type} === ${INTEGER} && typeof ${value} === 'number' || ${type} === ${FLOAT})`
  }

  #isInteger (pc: number, field: number): string {
    return `${this.type(pc, field)} === ${INTEGER} && typeof ${this.value(field)} === 'number'`
  }

  /** The step of a loop, where it is a constant; 0 where it is not. */
  #step (pc: number, register: number): number {
    let prepare = pc
    if (this.code[pc]!.opcode === Op.FORLOOP) {
      prepare = this.code.findIndex((i, at) => i.opcode === Op.FORPREP && at + 1 + i.sBx === pc)
    }
    const before = this.code[prepare - 1]
    if (prepare < 1 || before!.opcode !== Op.LOADK || before!.A !== register + 2 || this.kinds.captured.has(register + 2)) return 0
    const { type, value } = this.proto.k[before!.Bx]!
    return type === INTEGER && typeof value === 'number' ? value : 0
  }

  #arithmetic (pc: number, { opcode, A, B, C }: Instruction): void {
    const op = opcode as Op
    this.load(B, C)
    const b = this.kinds.operand(pc, B)
    const c = this.kinds.operand(pc, C)
    const checks = [B, C].filter(field => !isNumeric(this.kinds.operand(pc, field))).map(field => this.#isNumber(pc, field))
    if (checks.length > 0) this.emit(`if (!(${[...new Set(checks)].join(' && ')})) ${this.handBack(pc)}`)
    const x = this.value(B)
    const y = this.value(C)
    const kind = arithmeticKind(op, b, c)
    const isInteger = `${this.type(pc, B)} === ${INTEGER} && ${this.type(pc, C)} === ${INTEGER}`
    const constant = C >= CONSTANT ? this.proto.k[C - CONSTANT]!.value : undefined
    if (op === Op.MOD || op === Op.IDIV) {
      // A product that may exceed 2^53 is not exact.
      const isSmall = typeof constant === 'number' && Math.abs(constant) < 2 ** 31
      const small = (isSmall ? [x] : [x, y]).map(operand => `Math.abs(${operand}) < ${2 ** 52}`)
      const whole = op === Op.IDIV ? `Math.floor(${x} / ${y}) + 0` : `${small.join(' && ')} ? ${x} - Math.floor(${x} / ${y}) * ${y} : modulo(${x}, ${y})`
      const float = op === Op.IDIV ? `Math.floor(${x} / ${y})` : `floatModulo(${x}, ${y})`
      const zero = typeof constant === 'number' && constant !== 0 ? '' : `if (${y} === 0) ${this.handBack(pc)} `
      if (kind === Kind.FLOAT) this.store(A, FLOAT, float)
      else if (kind === Kind.INTEGER) {
        this.emit(`${zero}x = ${whole}`)
        this.store(A, INTEGER, 'x')
      } else {
        this.emit(`if (${isInteger}) { ${zero}x = ${whole}; y = ${INTEGER} } else { x = ${float}; y = ${FLOAT} }`)
        this.store(A, 'y', 'x')
      }
      return
    }
    const result = op === Op.POW ? `power(${x}, ${y})` : `${x} ${OPERATORS[op]} ${y}`
    if (kind === Kind.FLOAT) {
      this.store(A, FLOAT, result)
      return
    }
    const plus = op === Op.MUL ? ' + 0' : ''
    this.emit(`x = ${result}`)
    if (kind === Kind.INTEGER) {
      this.emit(`if (x > ${SAFE} || x < -${SAFE}) ${this.handBack(pc)}`)
      this.store(A, INTEGER, `x${plus}`)
    } else {
      this.emit(`if (${isInteger}) { if (x > ${SAFE} || x < -${SAFE}) ${this.handBack(pc)} y = ${INTEGER}${plus === '' ? '' : '; x = x + 0'} } else y = ${FLOAT}`)
      this.store(A, 'y', 'x')
    }
  }

  #bitwise (pc: number, { opcode, A, B, C }: Instruction): void {
    this.load(B, C)
    const checks = [B, C].filter(field => this.kinds.operand(pc, field) !== Kind.INTEGER).map(field => this.#isInteger(pc, field))
    if (checks.length > 0) this.emit(`if (!(${checks.join(' && ')})) ${this.handBack(pc)}`)
    const x = this.value(B)
    const y = this.value(C)
    const [operator, helper] = BITWISE[opcode as Op]!
    if (operator !== '') this.emit(`x = (${x} | 0) === ${x} && (${y} | 0) === ${y} ? ${x} ${operator} ${y} : ${helper}(${x}, ${y})`)
    else this.emit(`x = ${helper}(${x}, ${y})`)
    this.emit(`if (typeof x !== 'number') ${this.handBack(pc)}`)
    this.store(A, INTEGER, 'x')
  }

  #comparison (pc: number, { opcode, B, C }: Instruction): string {
    const [b, c] = [this.kinds.operand(pc, B), this.kinds.operand(pc, C)]
    const [x, y] = [this.value(B), this.value(C)]
    const [s, t] = [this.type(pc, B), this.type(pc, C)]
    if (opcode === Op.EQ) {
      if (isNumeric(b) && isNumeric(c)) return `${x} === ${y}`
      if (b === Kind.NIL || c === Kind.NIL) return `${s} === ${t}`
      if (isNumeric(b) || isNumeric(c)) return `(${isNumeric(b) ? t : s} & 15) === ${FLOAT} && ${x} == ${y}`
      if (b === Kind.BOOLEAN || c === Kind.BOOLEAN) return `${s} === ${t} && ${x} === ${y}`
      if (b === Kind.STRING || c === Kind.STRING) return `${s} === ${t} && sameString(${x}, ${y})`
      return `(${this.position(pc).replace('; ', '')}, equalValues(L, ${s}, ${x}, ${t}, ${y}))`
    }
    const operator = opcode === Op.LT ? '<' : '<='
    if (isNumeric(b) && isNumeric(c)) return `${x} ${operator} ${y}`
    const checks = [[b, s], [c, t]].filter(([kind]) => !isNumeric(kind as Kind)).map(([, type]) => `(${type} & 15) === ${FLOAT}`)
    return `${checks.join(' && ')} ? ${x} ${operator} ${y} : (${this.position(pc).replace('; ', '')}, ${opcode === Op.LT ? 'less' : 'lessOrEqual'}(L, ${s}, ${x}, ${t}, ${y}))`
  }

  #getGlobal (pc: number, { A, B, C }: Instruction): void {
    this.load(C)
    const key = this.slot(pc, C)
    const slow = `{ ${this.position(pc)}${key.put}e = indexSlow(L, upvals[${B}], ${key.expression}, stack[base + ${A}]) }`
    if (this.isText(C)) this.emit(`e = upvals[${B}]; e = e.type === ${TABLE} ? global(e.value, ${this.site(C)}) : null; if (e === null) ${slow}`)
    else this.emit(slow)
    this.take(A)
  }

  #lookup (pc: number, B: number, C: number): string {
    const x = this.value(B)
    if (this.isText(C)) return `field(${x}, ${this.site(C)})`
    if (this.kinds.operand(pc, C) === Kind.INTEGER) return `at(${x}, ${this.value(C)})`
    return `keyed(${x}, ${this.type(pc, C)}, ${this.value(C)})`
  }

  #getTable (pc: number, { A, B, C }: Instruction): void {
    this.load(B, C)
    const object = this.slot(pc, B)
    const key = this.slot(pc, C)
    this.emit(`e = ${this.type(pc, B)} === ${TABLE} ? ${this.#lookup(pc, B, C)} : null`)
    this.emit(`if (e === null) { ${this.position(pc)}${object.put}${key.put}e = indexSlow(L, ${object.expression}, ${key.expression}, stack[base + ${A}]) }`)
    this.take(A)
  }

  #self (pc: number, { A, B, C }: Instruction): void {
    this.load(B, C)
    const object = this.slot(pc, B)
    const key = this.slot(pc, C)
    const type = this.type(pc, B)
    const ofString = this.isText(C) ? ` : ${type} === ${STRING} ? stringMethod(L, ${this.site(C)})` : ''
    this.emit(`e = ${type} === ${TABLE} ? ${this.#lookup(pc, B, C)}${ofString} : null`)
    this.emit(`x = ${this.value(B)}; y = ${type}`)
    // As the instruction loop does: the object is in its new place before its method is looked for.
    this.emit(`if (e === null) { ${this.position(pc)}${object.put}${key.put}put(stack, base + ${A + 1}, y, x); e = selfSlow(L, ${object.expression}, ${key.expression}, stack[base + ${A}]) }`)
    this.take(A)
    this.store(A + 1, 'y', 'x')
  }

  #setTable (pc: number, { A, B, C }: Instruction): void {
    this.load(A, B, C)
    const object = this.slot(pc, A)
    const key = this.slot(pc, B)
    const value = this.slot(pc, C)
    const given = `${this.type(pc, C)}, ${this.value(C)}`
    const x = this.value(A)
    const quick = this.isText(B)
      ? `setField(${x}, ${this.site(B)}, ${given})`
      : this.kinds.operand(pc, B) === Kind.INTEGER ? `setAt(${x}, ${this.value(B)}, ${given})` : `setKeyed(${x}, ${this.type(pc, B)}, ${this.value(B)}, ${given})`
    this.emit(`if (${this.type(pc, A)} !== ${TABLE} || !${quick}) { ${this.position(pc)}${object.put}${key.put}${value.put}setIndex(L, ${object.expression}, ${key.expression}, ${value.expression}) }`)
  }

  /** Puts a function and its arguments into their slots. */
  #arguments (pc: number, A: number, B: number): void {
    const end = B === 0 ? this.flow.openFrom[pc]! : A + B
    for (let r = A; r < end; r++) {
      this.load(r)
      this.emit(this.put(pc, r))
    }
    if (B !== 0) this.emit(`L.top = base + ${A + B}`)
  }

  #results (from: number, count: number): void {
    for (let r = from; r < from + count; r++) {
      this.emit(`e = stack[base + ${r}]`)
      this.take(r)
    }
  }

  #call (pc: number, { A, B, C }: Instruction): void {
    this.#arguments(pc, A, B)
    this.emit(`${this.position(pc)}if (--control.steps <= 0) checkLimits(L)`)
    this.emit(`call(L, ci, base + ${A}, ${C - 1})`)
    if (C !== 0) this.#results(A, C - 1)
  }

  #return (pc: number, { A, B }: Instruction): void {
    const count = B - 1
    if (count >= 0) for (let r = A; r < A + count; r++) this.load(r)
    const close = this.proto.p.length > 0 ? 'closeUpvalues(L, proto, base, base); ' : ''
    if (count === 1) {
      this.emit(`${close}return returnOne(L, ci, ${this.type(pc, A)}, ${this.value(A)})`)
      return
    }
    const end = count < 0 ? this.flow.openFrom[pc]! : A + count
    for (let r = A; r < end; r++) this.emit(this.put(pc, r))
    this.emit(`${close}return returnMany(L, ci, base + ${A}, ${count < 0 ? `L.top - base - ${A}` : count})`)
  }

  /** The call of an iterator and the test of what it gives; `first` where the loop begins, else at its end. */
  #iterate (pc: number, from: number, first: boolean): void {
    const { A, C } = this.code[pc]!
    this.load(A, A + 1, A + 2)
    const [type, keyType] = [A + 1, A + 2].map(r => this.#iterationType(pc, from, r))
    const quick = C <= 2 ? `!(${type} === ${TABLE} && iterate(L, ${this.value(A)}, ${this.value(A + 1)}, base + ${A + 3}, ${keyType}, ${this.value(A + 2)}))` : 'true'
    const puts = [A, A + 1, A + 2].map(r => `put(stack, base + ${r + 3}, ${this.#iterationType(pc, from, r)}, ${this.value(r)}); `).join('')
    this.emit(`if (${quick}) { ${puts}L.top = base + ${A + 6}; ${this.position(pc)}call(L, ci, base + ${A + 3}, ${C}) }`)
    this.#results(A + 3, C)
    const body = pc + 2 + this.code[pc + 1]!.sBx
    if (first) {
      this.emit(`if (t${A + 3} === 0) ${this.jump(from, pc + 2)}`)
      this.emit(`if (--control.steps <= 0) { ${this.position(pc + 1)}checkLimits(L) }`)
      this.store(A + 2, `t${A + 3}`, `v${A + 3}`)
      return
    }
    this.emit(`if (t${A + 3} !== 0) {`)
    this.store(A + 2, `t${A + 3}`, `v${A + 3}`)
    this.emit(`${this.jump(pc + 1, body)} }`)
    if (pc + 2 > this.to) this.emit(this.jump(pc + 1, pc + 2))
  }

  #iterationType (pc: number, from: number, register: number): string {
    this.registers.add(register)
    return from > pc ? this.type(pc, register) : `t${register}`
  }

  // ---- the whole ----

  text (guards: ReadonlyMap<number, Kind>): string {
    this.#region(this.from, this.to, this.loops.find(loop => loop.head === this.from && this.from !== 0) ?? null, this.#targets())
    const body = this.lines
    const head: string[] = ['"use strict"', `const { ${Object.keys(runtime).join(', ')} } = runtime`]
    for (const constant of this.constants) head.push(`const k${constant} = K[${constant}]`)
    for (const index of this.sites.keys()) head.push(`const s${index} = S[${index}]`)
    head.push('return function (L, ci, upvals, stack, base) {', 'let e, x, y')
    const entering = this.flow.live[this.from]!
    for (const r of this.registers) if (!entering.has(r) || this.kinds.captured.has(r)) head.push(`let t${r} = 0, v${r} = null`)
    for (const r of entering) {
      if (this.kinds.captured.has(r)) continue
      head.push(`e = stack[base + ${r}]; let t${r} = e.type, v${r} = e.value`)
      const kind = guards.get(r)
      if (kind === undefined) continue
      head.push(`if (t${r} !== ${TAGS[kind]!}${kind === Kind.INTEGER ? ` || typeof v${r} !== 'number'` : ''}) return tier.miss(${this.from})`)
    }
    const isLoop = this.loops.some(loop => loop.head === this.from && this.from !== 0)
    if (isLoop) {
      head.push(`L${this.from}: for (;;) {`)
      body.push('break }')
    }
    return [...head, ...body, "throw new Error('unreachable')", '}'].join('\n')
  }
}

/** Compiles the unit that begins at an instruction; with `entry`, for values of the types that the registers have there now. */
export function compile (tier: Tier, from: number, entry: Entry | null): Unit {
  const { proto } = tier
  const flow = new Flow(proto)
  const to = from === 0 ? proto.code.length - 1 : flow.loops.find(loop => loop.head === from)?.end ?? -1
  if (to < 0) throw new Uncompilable()
  const guards = new Map<number, Kind>()
  const kinds: Kind[] = new Array(proto.maxstacksize).fill(Kind.ANY)
  if (entry !== null) {
    for (const r of flow.live[from]!) {
      const slot = entry.stack[entry.base + r]
      const kind = slot === undefined ? Kind.ANY : kindOfValue(slot)
      if (kind === Kind.INTEGER || kind === Kind.FLOAT || kind === Kind.TABLE || kind === Kind.STRING) {
        guards.set(r, kind)
        kinds[r] = kind
      }
    }
  }
  const emitter = new Emitter(proto, flow, from, to, new Kinds(proto, flow, from, to, kinds))
  const text = emitter.text(guards)
  const make = new Function('runtime', 'proto', 'tier', 'K', 'S', text) as (...args: unknown[]) => Unit
  return make(runtime, proto, tier, proto.k, emitter.sites)
}
