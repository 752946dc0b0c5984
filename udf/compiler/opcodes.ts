// The instructions by number, for the compiler. The instruction loop has the same list as a `const enum` of its own: only then are they
// numbers in its code.

import { lopcodes } from '../lua.js'

export enum Op {
  MOVE, LOADK, LOADKX, LOADBOOL, LOADNIL, GETUPVAL, GETTABUP, GETTABLE, SETTABUP, SETUPVAL, SETTABLE, NEWTABLE, SELF,
  ADD, SUB, MUL, MOD, POW, DIV, IDIV, BAND, BOR, BXOR, SHL, SHR, UNM, BNOT, NOT, LEN, CONCAT, JMP, EQ, LT, LE, TEST, TESTSET,
  CALL, TAILCALL, RETURN, FORLOOP, FORPREP, TFORCALL, TFORLOOP, SETLIST, CLOSURE, VARARG, EXTRAARG
}

for (const [name, number] of Object.entries(lopcodes['OpCodesI'])) {
  if (Op[name.slice('OP_'.length) as keyof typeof Op] !== number) throw new Error('fengari: unexpected instruction set; udf/compiler is for fengari 0.1')
}
