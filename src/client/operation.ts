// Operations on one record, for `Client.operate`: done in order, all or nothing.

import { OpCode, ParticleType } from '../engine/constants.js'
import type { WireOp } from './message.js'
import { encodeMsgpack } from './msgpack.js'
import { encodeParticle } from './particle.js'
import type { Value } from './value.js'

export interface Operation extends WireOp {
  readonly reads: boolean
  readonly writes: boolean
  /** The answer needs one result an operation: maps, bits, HyperLogLog and expressions (what official clients do). */
  readonly respondsAll: boolean
  /** Reads every bin. */
  readonly readsAll: boolean
}

const NOTHING = Buffer.alloc(0)
/** List operations come below this code, map operations from it on. */
const MAP_CODE_MIN = 64
const WITH_CONTEXT = 0xff

type Kind = Partial<Pick<Operation, 'reads' | 'writes' | 'respondsAll' | 'readsAll'>>

function make (op: number, name: string, type: number, value: Uint8Array, kind: Kind): Operation {
  return { op, name, type, value, reads: false, writes: false, respondsAll: false, readsAll: false, ...kind }
}

function withValue (op: number, bin: string, value: Value): Operation {
  const { type, bytes } = encodeParticle(value)
  return make(op, bin, type, bytes, { writes: true })
}

function collection (op: number, bin: string, call: readonly [number, ...Value[]], context: readonly Value[] | undefined, kind: Kind): Operation {
  const bytes = encodeMsgpack(context === undefined ? call : [WITH_CONTEXT, context, call])
  return make(op, bin, ParticleType.BLOB, bytes, { ...kind, respondsAll: call[0] >= MAP_CODE_MIN })
}

export const op = {
  read: (bin: string) => make(OpCode.READ, bin, ParticleType.NULL, NOTHING, { reads: true }),
  readAll: () => make(OpCode.READ, '', ParticleType.NULL, NOTHING, { reads: true, readsAll: true }),
  /** null removes the bin. */
  write: (bin: string, value: Value) => withValue(OpCode.WRITE, bin, value),
  /** Adds to an integer or a double; a bin that is absent counts as 0. */
  add: (bin: string, value: Value) => withValue(OpCode.INCR, bin, value),
  append: (bin: string, value: string | Uint8Array) => withValue(OpCode.APPEND, bin, value),
  prepend: (bin: string, value: string | Uint8Array) => withValue(OpCode.PREPEND, bin, value),
  /** Renews the time to live. */
  touch: () => make(OpCode.TOUCH, '', ParticleType.NULL, NOTHING, { writes: true }),
  /** Deletes the record. */
  delete: () => make(OpCode.DELETE_ALL, '', ParticleType.NULL, NOTHING, { writes: true }),
  /** Reads of a list or map: code and arguments, with a context for nested ones. */
  collectionRead: (bin: string, call: readonly [code: number, ...args: Value[]], context?: readonly Value[]) =>
    collection(OpCode.CDT_READ, bin, call, context, { reads: true }),
  collectionModify: (bin: string, call: readonly [code: number, ...args: Value[]], context?: readonly Value[]) =>
    collection(OpCode.CDT_MODIFY, bin, call, context, { writes: true }),
  /** The value of an expression, as a bin called `name`. */
  expressionRead: (name: string, expression: Value, flags = 0) =>
    make(OpCode.EXP_READ, name, ParticleType.BLOB, encodeMsgpack([expression, flags]), { reads: true, respondsAll: true }),
  expressionWrite: (bin: string, expression: Value, flags = 0) =>
    make(OpCode.EXP_MODIFY, bin, ParticleType.BLOB, encodeMsgpack([expression, flags]), { writes: true, respondsAll: true })
} as const
