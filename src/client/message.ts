// Record messages (PROTOCOL 2-5): requests, replies and shipped writes share one frame.
//
//   frame   = proto message
//   proto   = u8 version 2, u8 type 3, u48 length of what follows
//   message = u8 22, u8 info1, u8 info2, u8 info3, u8 info4, u8 result, u32 generation, u32 ttl, u32 timeout, u16 fields, u16 ops, field*, op*
//   field   = u32 size (type and data), u8 type, data
//   op      = u32 size (all that follows), u8 op, u8 particle type, u8 flags, u8 name length, name, [u64 LUT if flags & 1], value
//
// All big endian.

import {
  EPOCH_UNIX_SECONDS, FieldId, Info1, Info2, Limit, MESSAGE_HEADER_BYTES, PROTO_HEADER_BYTES, PROTO_VERSION, ParticleType, ProtoType
} from '../engine/constants.js'
import { DIGEST_BYTES } from './digest.js'
import { decodeParticle } from './particle.js'
import { setOwn, type Bins, type Value } from './value.js'

const PROTO_TYPE_OFFSET = 1
const PROTO_LENGTH_OFFSET = 2
const PROTO_LENGTH_BYTES = 6
const INFO_OFFSET = PROTO_HEADER_BYTES + 1
const RESULT_OFFSET = INFO_OFFSET + 4
const GENERATION_OFFSET = RESULT_OFFSET + 1
const TTL_OFFSET = GENERATION_OFFSET + 4
const TIMEOUT_OFFSET = TTL_OFFSET + 4
const FIELDS_OFFSET = TIMEOUT_OFFSET + 4
const OPS_OFFSET = FIELDS_OFFSET + 2
const BODY_OFFSET = PROTO_HEADER_BYTES + MESSAGE_HEADER_BYTES

const FIELD_HEAD_BYTES = 5
const OP_HEAD_BYTES = 8
const OP_HAS_LUT = 1
const LUT_BYTES = 8

/** A frame that does not follow the grammar above. */
export class FrameError extends Error {
  readonly code = 'FRAME'
}

export interface Field {
  readonly id: number
  readonly data: Uint8Array
}

export interface WireOp {
  /** One of `OpCode`. */
  readonly op: number
  readonly name: string
  readonly type: number
  readonly value: Uint8Array
}

/** A name may be given as its bytes, for those who hand on what they were sent. */
export type RequestOp = Omit<WireOp, 'name'> & { readonly name: string | Buffer }

export interface Request {
  readonly info1?: number
  readonly info2?: number
  readonly info3?: number
  readonly info4?: number
  readonly generation?: number
  /** Seconds, or one of `Ttl`. */
  readonly ttl?: number
  readonly timeoutMs?: number
  readonly fields: readonly Field[]
  readonly ops?: readonly RequestOp[]
}

export interface Message {
  readonly info1: number
  readonly info2: number
  readonly info3: number
  readonly info4: number
  readonly result: number
  readonly generation: number
  /** In a request the time to live in seconds; in a reply the void time, seconds since 2010, 0 never. */
  readonly ttl: number
  readonly timeoutMs: number
  readonly fields: ReadonlyMap<number, Buffer>
  readonly ops: ReadonlyArray<{ readonly op: number, readonly name: string, readonly type: number, readonly value: Buffer }>
}

export function encodeRequest (request: Request): Buffer {
  const ops = (request.ops ?? []).map((op) => ({ ...op, name: binName(op.name) }))
  if (ops.length > Limit.OPS_MAX) throw new RangeError(`${ops.length} operations; at most ${Limit.OPS_MAX} in one request`)
  let bytes = BODY_OFFSET
  for (const { data } of request.fields) bytes += FIELD_HEAD_BYTES + data.length
  for (const { name, value } of ops) bytes += OP_HEAD_BYTES + name.length + value.length
  if (bytes - PROTO_HEADER_BYTES > Limit.PROTO_BODY_BYTES_MAX) throw new RangeError(`a request of ${bytes} bytes; at most ${Limit.PROTO_BODY_BYTES_MAX}`)

  const frame = Buffer.allocUnsafe(bytes)
  writeProto(frame, ProtoType.MESSAGE)
  frame[PROTO_HEADER_BYTES] = MESSAGE_HEADER_BYTES
  frame[INFO_OFFSET] = request.info1 ?? 0
  frame[INFO_OFFSET + 1] = request.info2 ?? 0
  frame[INFO_OFFSET + 2] = request.info3 ?? 0
  frame[INFO_OFFSET + 3] = request.info4 ?? 0
  frame[RESULT_OFFSET] = 0
  frame.writeUInt32BE(request.generation ?? 0, GENERATION_OFFSET)
  frame.writeUInt32BE(request.ttl ?? 0, TTL_OFFSET)
  frame.writeUInt32BE(request.timeoutMs ?? 0, TIMEOUT_OFFSET)
  frame.writeUInt16BE(request.fields.length, FIELDS_OFFSET)
  frame.writeUInt16BE(ops.length, OPS_OFFSET)

  let at = BODY_OFFSET
  for (const { id, data } of request.fields) {
    at = frame.writeUInt32BE(1 + data.length, at)
    frame[at] = id
    frame.set(data, at + 1)
    at += 1 + data.length
  }
  for (const { op, type, name, value } of ops) {
    at = frame.writeUInt32BE(OP_HEAD_BYTES - 4 + name.length + value.length, at)
    frame[at] = op
    frame[at + 1] = type
    frame[at + 2] = 0
    frame[at + 3] = name.length
    frame.set(name, at + 4)
    frame.set(value, at + 4 + name.length)
    at += 4 + name.length + value.length
  }
  return frame
}

/** Sets the time limit of an encoded request: a repeated one has less time left. */
export function setTimeoutMs (frame: Buffer, timeoutMs: number): void {
  frame.writeUInt32BE(timeoutMs, TIMEOUT_OFFSET)
}

/** Reads a whole frame. Buffers of the result are views of it. Throws {@link FrameError}. */
export function decodeMessage (frame: Buffer): Message {
  if (frame.length < BODY_OFFSET) throw new FrameError(`a message of ${frame.length} bytes; its header alone has ${BODY_OFFSET}`)
  if (frame[0] !== PROTO_VERSION || frame[PROTO_TYPE_OFFSET] !== ProtoType.MESSAGE) {
    throw new FrameError(`version ${frame[0]}, type ${frame[PROTO_TYPE_OFFSET]}: not a record message`)
  }
  const length = frame.readUIntBE(PROTO_LENGTH_OFFSET, PROTO_LENGTH_BYTES)
  if (length !== frame.length - PROTO_HEADER_BYTES) throw new FrameError(`length ${length} in a frame of ${frame.length} bytes`)
  if (frame[PROTO_HEADER_BYTES] !== MESSAGE_HEADER_BYTES) throw new FrameError(`message header of ${frame[PROTO_HEADER_BYTES]} bytes`)

  let at = BODY_OFFSET
  const fields = new Map<number, Buffer>()
  for (let left = frame.readUInt16BE(FIELDS_OFFSET); left > 0; left--) {
    const end = itemEnd(frame, at, FIELD_HEAD_BYTES)
    fields.set(frame[at + 4]!, frame.subarray(at + FIELD_HEAD_BYTES, end))
    at = end
  }
  const ops: Array<Message['ops'][number]> = []
  for (let left = frame.readUInt16BE(OPS_OFFSET); left > 0; left--) {
    const end = itemEnd(frame, at, OP_HEAD_BYTES)
    const nameEnd = at + OP_HEAD_BYTES + frame[at + 7]!
    const value = nameEnd + ((frame[at + 6]! & OP_HAS_LUT) === 0 ? 0 : LUT_BYTES)
    if (value > end) throw new FrameError(`the operation at ${at} ends inside its name`)
    ops.push({
      op: frame[at + 4]!, type: frame[at + 5]!, name: frame.toString('utf8', at + OP_HEAD_BYTES, nameEnd), value: frame.subarray(value, end)
    })
    at = end
  }
  if (at !== frame.length) throw new FrameError(`${frame.length - at} bytes after the last operation`)

  return {
    info1: frame[INFO_OFFSET]!,
    info2: frame[INFO_OFFSET + 1]!,
    info3: frame[INFO_OFFSET + 2]!,
    info4: frame[INFO_OFFSET + 3]!,
    result: frame[RESULT_OFFSET]!,
    generation: frame.readUInt32BE(GENERATION_OFFSET),
    ttl: frame.readUInt32BE(TTL_OFFSET),
    timeoutMs: frame.readUInt32BE(TIMEOUT_OFFSET),
    fields,
    ops
  }
}

/** One shipped change of a record. */
export interface ShippedRecord {
  readonly namespace: string
  /** Empty for a record without a set. */
  readonly set: string
  readonly digest: Buffer
  /** The user's key when the record stores it. */
  readonly key: Value | undefined
  /** The source's generation. */
  readonly generation: number
  /** Seconds left, or `Ttl.NEVER`. */
  readonly ttl: number
  /** Last-update time in milliseconds since 2010-01-01; 0 when the frame has none. */
  readonly lut: number
  readonly deleted: boolean
  /** Empty for a delete. */
  readonly bins: Bins
}

/** Reads an XDR write or delete. Throws {@link FrameError}, ParticleError or MsgpackError. */
export function decodeFrame (frame: Buffer): ShippedRecord {
  const message = decodeMessage(frame)
  if ((message.info1 & Info1.XDR) === 0 || (message.info2 & Info2.WRITE) === 0) throw new FrameError('not a shipped write')
  const digest = message.fields.get(FieldId.DIGEST)
  if (digest?.length !== DIGEST_BYTES) throw new FrameError(`a digest of ${digest?.length ?? 0} bytes`)
  const key = message.fields.get(FieldId.KEY)
  const lut = message.fields.get(FieldId.LUT)
  if (lut !== undefined && lut.length !== LUT_BYTES) throw new FrameError(`a last-update time of ${lut.length} bytes`)
  return {
    namespace: message.fields.get(FieldId.NAMESPACE)?.toString('utf8') ?? '',
    set: message.fields.get(FieldId.SET)?.toString('utf8') ?? '',
    digest,
    key: key === undefined || key.length === 0 ? undefined : decodeParticle(key[0]!, key.subarray(1)),
    generation: message.generation,
    ttl: message.ttl,
    // 40 bits, so a number holds it.
    lut: lut === undefined ? 0 : Number(lut.readBigUInt64BE()),
    deleted: (message.info2 & Info2.DELETE) !== 0,
    bins: decodeBins(message)
  }
}

/** The bins that a message carries. Several results for one bin become a list, in order. */
export function decodeBins (message: Message): Bins {
  const bins: Bins = {}
  const merged = new Set<string>()
  for (const { name, type, value } of message.ops) {
    const decoded = decodeParticle(type, value)
    if (!Object.hasOwn(bins, name)) {
      setOwn(bins, name, decoded)
    } else if (merged.has(name)) {
      (bins[name] as Value[]).push(decoded)
    } else {
      merged.add(name)
      setOwn(bins, name, [bins[name]!, decoded])
    }
  }
  return bins
}

/** Unix time in milliseconds of a last-update time. */
export function unixMsOfLut (lut: number): number {
  return EPOCH_UNIX_SECONDS * 1000 + lut
}

/** Unix time in seconds of a void time; 0 (never) stays 0. */
export function unixSecondsOfVoidTime (voidTime: number): number {
  return voidTime === 0 ? 0 : EPOCH_UNIX_SECONDS + voidTime
}

export function textField (id: number, text: string): Field {
  return { id, data: Buffer.from(text) }
}

/** An operation without a value. */
export const NO_VALUE = { type: ParticleType.NULL, bytes: Buffer.alloc(0) } as const

/** Fills in the first eight bytes of a frame that is otherwise complete. */
export function writeProto (frame: Buffer, type: number): void {
  frame[0] = PROTO_VERSION
  frame[PROTO_TYPE_OFFSET] = type
  frame.writeUIntBE(frame.length - PROTO_HEADER_BYTES, PROTO_LENGTH_OFFSET, PROTO_LENGTH_BYTES)
}

/** Length of the whole frame that begins at `at`. Throws {@link FrameError} for what cannot be one. */
export function frameBytes (bytes: Buffer, at: number): number {
  const length = bytes.readUIntBE(at + PROTO_LENGTH_OFFSET, PROTO_LENGTH_BYTES)
  if (bytes[at] !== PROTO_VERSION) throw new FrameError(`version ${bytes[at]}, not ${PROTO_VERSION}`)
  if (length > Limit.PROTO_BODY_BYTES_MAX) throw new FrameError(`a body of ${length} bytes; at most ${Limit.PROTO_BODY_BYTES_MAX}`)
  return PROTO_HEADER_BYTES + length
}

function binName (name: string | Buffer): Buffer {
  const bytes = typeof name === 'string' ? Buffer.from(name) : name
  if (bytes.length > Limit.BIN_NAME_BYTES_MAX) throw new RangeError(`bin name ${JSON.stringify(name)} has ${bytes.length} bytes; at most ${Limit.BIN_NAME_BYTES_MAX}`)
  return bytes
}

/** Where a field or an operation ends. A size comes from outside: it is held against the frame before anything is taken. */
export function itemEnd (frame: Buffer, at: number, headBytes: number): number {
  if (at + headBytes > frame.length) throw new FrameError(`cut at ${frame.length}, inside the item at ${at}`)
  const end = at + 4 + frame.readUInt32BE(at)
  if (end < at + headBytes || end > frame.length) throw new FrameError(`the item at ${at} ends at ${end} in a frame of ${frame.length} bytes`)
  return end
}
