// What the compiler, its code and the instruction loop agree on.

import type { CallInfo, LuaState, Proto, TValue } from '../fengari.js'

/** What a unit returns: the instruction to go on with, or one of those below. */
export type Unit = (L: LuaState, ci: CallInfo, upvalues: TValue[], stack: TValue[], base: number) => number
/** The function is through, its frame gone. */
export const RETURNED = -1
/** Another function has taken the frame over and has not yet begun. */
export const TAILED = -2

export const CALLS_BEFORE_COMPILING = 24
/** Units that call each other directly use the stack of JavaScript; beyond this depth functions are interpreted, which does not. */
export const DEPTH_MAX = 180

/** Of the virtual machine that runs now. */
export const settings = {
  /** Calls after which a function is compiled, a sixteenth of the jumps after which a loop is. */
  after: CALLS_BEFORE_COMPILING,
  /** The runtime refuses to make code of text. */
  forbidden: false,
  /** Units whose code was not even JavaScript: faults of the compiler. Their functions stay interpreted. */
  defects: 0
}

/** The unit of a function that compiled code calls, or null: then the instruction loop runs and counts it. */
export function runnable (ci: CallInfo, proto: Proto): Unit | null {
  const tier = proto.tier
  if (tier === undefined || tier.entry === null || ci.depth >= DEPTH_MAX || settings.after === Infinity) return null
  tier.entries++
  return tier.entry
}
