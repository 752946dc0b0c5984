// Queries by partition on the wire (PROTOCOL 10): the request, and the messages that its reply is made of.
//
//   frame   = proto message+
//   message = a record (fields 0, 1, 4, 2 and its bins), or the end of a partition (info3 PARTITION_DONE, its id for a generation),
//             or the end of the reply (info3 LAST, its result)

import { FieldId, Info1, Info3, Limit, MESSAGE_HEADER_BYTES, OpCode, PROTO_HEADER_BYTES, ParticleType, ProtoType, ResultCode } from '../engine/constants.js'
import { DIGEST_BYTES } from './digest.js'
import { FrameError, encodeRequest, itemEnd, textField, type Field, type WireOp } from './message.js'

/** A bin as it is on the wire. */
export interface WireBin {
  /** One character a byte (latin1), whatever the bytes mean. */
  readonly name: string
  readonly type: number
  readonly value: Buffer
}

/** A record as it is on the wire. Buffers are views of the frame that it came in. */
export interface WireRecord {
  readonly digest: Buffer
  /** One character a byte (latin1); empty for a record without a set. */
  readonly set: string
  /** Type byte and value, where the record stores it. */
  readonly key: Buffer | undefined
  readonly generation: number
  /** Seconds since 2010-01-01; 0 never expires. */
  readonly voidTime: number
  readonly bins: readonly WireBin[]
}

export interface PartitionQuery {
  readonly namespace: string
  readonly set: string
  readonly bins: readonly string[]
  readonly noBins: boolean
  /** Each with the digest to resume behind, if there is one. */
  readonly partitions: ReadonlyMap<number, Buffer | undefined>
  /** 0 for no limit. */
  readonly recordsMax: number
  /** 0 for no limit. */
  readonly recordsPerSecond: number
  readonly socketTimeoutMs: number
  readonly task: bigint
}

/** Bins that are asked for come without a value. */
const NOTHING = Buffer.alloc(0)

export function encodeQuery (query: PartitionQuery): Buffer {
  const fresh: number[] = []
  const digests: Buffer[] = []
  for (const [partition, after] of query.partitions) {
    if (after === undefined) fresh.push(partition)
    else digests.push(after)
  }
  const partitions = Buffer.alloc(2 * fresh.length)
  fresh.forEach((partition, i) => partitions.writeUInt16LE(partition, 2 * i))
  const fields: Field[] = [textField(FieldId.NAMESPACE, query.namespace)]
  if (query.set !== '') fields.push(textField(FieldId.SET, query.set))
  if (query.recordsPerSecond > 0) fields.push({ id: FieldId.RECORDS_PER_SECOND, data: unsigned(4, query.recordsPerSecond) })
  fields.push({ id: FieldId.SOCKET_TIMEOUT, data: unsigned(4, query.socketTimeoutMs) }, { id: FieldId.TASK_ID, data: unsigned(8, query.task) })
  if (fresh.length > 0) fields.push({ id: FieldId.PARTITIONS, data: partitions })
  if (digests.length > 0) fields.push({ id: FieldId.DIGESTS_AFTER, data: Buffer.concat(digests) })
  if (query.recordsMax > 0) fields.push({ id: FieldId.SAMPLE_MAX, data: unsigned(8, query.recordsMax) })
  const ops = query.bins.map((name): WireOp => ({ op: OpCode.READ, name, type: ParticleType.NULL, value: NOTHING }))
  return encodeRequest({ info1: Info1.READ | (query.noBins ? Info1.GET_NO_BINS : 0), info3: Info3.PARTITION_DONE, fields, ops })
}

export function unsigned (bytes: 4 | 8, value: number | bigint): Buffer {
  const data = Buffer.alloc(bytes)
  if (bytes === 4) data.writeUInt32BE(Number(value))
  else data.writeBigUInt64BE(BigInt(value))
  return data
}

/** Takes what a reply's frame holds, in its order. */
export interface QueryVisitor {
  record (record: WireRecord): void
  partitionDone (partition: number, result: number): void
  last (result: number): void
  /** A value of an aggregation, or what went wrong with it. */
  value? (bin: WireBin): void
}

const INFO3 = 3
const RESULT = 5
const GENERATION = 6
const VOID_TIME = 10
const N_FIELDS = 18
const N_OPS = 20
const FIELD_HEAD_BYTES = 5
const OP_HEAD_BYTES = 8
const OP_HAS_LUT = 1
const LUT_BYTES = 8

/** Reads a whole frame of a query's reply. Throws {@link FrameError}. */
export function readQueryFrame (frame: Buffer, visitor: QueryVisitor): void {
  if (frame[1] !== ProtoType.MESSAGE) throw new FrameError(`type ${frame[1]}: not an answer to a query`)
  for (let at = PROTO_HEADER_BYTES; at < frame.length;) at = readMessage(frame, at, visitor)
}

function readMessage (frame: Buffer, start: number, visitor: QueryVisitor): number {
  if (start + MESSAGE_HEADER_BYTES > frame.length || frame[start] !== MESSAGE_HEADER_BYTES) throw new FrameError(`no message at ${start}`)
  const info3 = frame[start + INFO3]!
  const result = frame[start + RESULT]!
  const generation = frame.readUInt32BE(start + GENERATION)
  let at = start + MESSAGE_HEADER_BYTES
  let digest: Buffer | undefined
  let key: Buffer | undefined
  let set = ''
  for (let left = frame.readUInt16BE(start + N_FIELDS); left > 0; left--) {
    const end = itemEnd(frame, at, FIELD_HEAD_BYTES)
    const data = at + FIELD_HEAD_BYTES
    switch (frame[at + 4]) {
      case FieldId.DIGEST: digest = frame.subarray(data, end); break
      case FieldId.SET: set = frame.toString('latin1', data, end); break
      case FieldId.KEY: if (end > data) key = frame.subarray(data, end); break
      default:
    }
    at = end
  }
  const bins: WireBin[] = []
  for (let left = frame.readUInt16BE(start + N_OPS); left > 0; left--) {
    const end = itemEnd(frame, at, OP_HEAD_BYTES)
    const name = at + OP_HEAD_BYTES
    const nameEnd = name + frame[at + 7]!
    const value = nameEnd + ((frame[at + 6]! & OP_HAS_LUT) === 0 ? 0 : LUT_BYTES)
    if (value > end) throw new FrameError(`the bin at ${at} ends inside its name`)
    bins.push({ name: frame.toString('latin1', name, nameEnd), type: frame[at + 5]!, value: frame.subarray(value, end) })
    at = end
  }
  if ((info3 & Info3.LAST) !== 0) {
    visitor.last(result)
  } else if ((info3 & Info3.PARTITION_DONE) !== 0) {
    if (generation >= Limit.PARTITIONS) throw new FrameError(`the end of a partition ${generation}`)
    visitor.partitionDone(generation, result)
  } else {
    // A server that cannot go on says so with the code alone.
    if (result !== ResultCode.OK) visitor.last(result)
    else if (digest === undefined && bins.length === 1 && visitor.value !== undefined) visitor.value(bins[0]!)
    else if (digest?.length !== DIGEST_BYTES) throw new FrameError(`a record with a digest of ${digest?.length ?? 0} bytes`)
    else visitor.record({ digest, set, key, generation, voidTime: frame.readUInt32BE(start + VOID_TIME), bins })
  }
  return at
}
