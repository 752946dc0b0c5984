// Stream functions over the records that a query finds (PROTOCOL 10). The node does all that the function asks for, also what a client would do after
// the first reduce, so no Lua is needed here.

import { randomBytes } from 'node:crypto'
import { FieldId, IndexType, Info1, Info3, ParticleType, ResultCode, UdfOp } from '../engine/constants.js'
import { answerFrames } from './answer-frames.js'
import type { ClusterNode } from './cluster.js'
import { ClientCode, RecordError } from './errors.js'
import { encodeRequest, setTimeoutMs, textField, type Field } from './message.js'
import { encodeMsgpack } from './msgpack.js'
import { decodeParticle, encodeParticle } from './particle.js'
import { readQueryFrame, unsigned } from './query-frame.js'
import type { Value } from './value.js'

/** A range of a bin that has a secondary index: integers from `from` to `to`, or one string or bytes. */
export interface IndexRange {
  readonly bin: string
  readonly from: Value
  /** The same as `from` unless it is given. */
  readonly to?: Value | undefined
  /** Which values of a list or map the index has. */
  readonly of?: 'list' | 'map-keys' | 'map-values' | undefined
}

export interface AggregateOptions {
  /** Only this set. */
  readonly set?: string | undefined
  /** Only records that a secondary index has in this range. */
  readonly where?: IndexRange | undefined
  /** A filter expression in msgpack. */
  readonly filter?: Uint8Array | undefined
  readonly recordsPerSecond?: number | undefined
  /** After this it ends with TIMEOUT; without it, it takes as long as it takes. */
  readonly timeoutMs?: number | undefined
  /** What `query-show` and `query-abort` know it by. */
  readonly task?: bigint | undefined
  readonly signal?: AbortSignal | undefined
}

export interface StreamCall {
  readonly module: string
  readonly name: string
  readonly args: readonly Value[]
}

const SUCCESS = 'SUCCESS'
const FAILURE = 'FAILURE'
/** How long a node may be silent when the aggregation has no time limit. */
const SILENCE_MS_MAX = 24 * 60 * 60 * 1000
/** Above the time limit: the node says itself that it is over. */
const ANSWER_MS = 1000

const INDEX_TYPES = { list: IndexType.LIST, 'map-keys': IndexType.MAP_KEYS, 'map-values': IndexType.MAP_VALUES } as const

/** The values that the function makes, as they come. Rejects with a {@link RecordError}, whose message has what the function said. */
export async function * aggregateOn (node: ClusterNode, namespace: string, call: StreamCall, options: AggregateOptions, connectTimeoutMs: number): AsyncGenerator<Value, void> {
  const { timeoutMs, signal } = options
  const frame = encodeAggregation(namespace, call, options)
  if (timeoutMs !== undefined) setTimeoutMs(frame, timeoutMs)
  const socketTimeoutMs = timeoutMs === undefined ? SILENCE_MS_MAX : timeoutMs + ANSWER_MS
  let failure: string | undefined
  let result: number | undefined
  for await (const answer of answerFrames({ host: node.host, port: node.port, tls: node.tls, connectTimeoutMs, socketTimeoutMs, signal }, frame)) {
    const values: Value[] = []
    try {
      readQueryFrame(answer, {
        record: () => {},
        partitionDone: () => {},
        last: (code) => { result = code },
        value: ({ name, type, value }) => {
          if (name === SUCCESS) values.push(decodeParticle(type, Buffer.from(value)))
          else if (name === FAILURE) failure = value.toString('utf8')
        }
      })
    } catch (error) {
      throw new RecordError(ClientCode.CONNECTION, `${node.host}:${node.port}: ${(error as Error).message}`, false)
    }
    yield * values
    if (result !== undefined && result !== ResultCode.OK) throw new RecordError(result, failure ?? `${node.name}, aggregating ${namespace}`, false)
    if (result !== undefined) return
  }
  throw new RecordError(ClientCode.CONNECTION, `${node.host}:${node.port}: the answer ended early`, false)
}

export function encodeAggregation (namespace: string, { module, name, args }: StreamCall, options: AggregateOptions): Buffer {
  const fields: Field[] = [textField(FieldId.NAMESPACE, namespace)]
  const { set, where, filter, recordsPerSecond, task } = options
  if (set !== undefined && set !== '') fields.push(textField(FieldId.SET, set))
  if (recordsPerSecond !== undefined && recordsPerSecond > 0) fields.push({ id: FieldId.RECORDS_PER_SECOND, data: unsigned(4, recordsPerSecond) })
  fields.push({ id: FieldId.TASK_ID, data: unsigned(8, task ?? randomBytes(8).readBigUInt64BE()) })
  if (where !== undefined) {
    if (where.of !== undefined) fields.push({ id: FieldId.INDEX_TYPE, data: Buffer.of(INDEX_TYPES[where.of]) })
    fields.push({ id: FieldId.INDEX_RANGE, data: encodeRange(where) })
  }
  fields.push(
    { id: FieldId.UDF_OP, data: Buffer.of(UdfOp.COMPLETE) }, textField(FieldId.UDF_MODULE, module), textField(FieldId.UDF_FUNCTION, name),
    { id: FieldId.UDF_ARGS, data: encodeMsgpack(args) }
  )
  if (filter !== undefined) fields.push({ id: FieldId.FILTER, data: filter })
  return encodeRequest({ info1: Info1.READ, info3: Info3.PARTITION_DONE, fields })
}

/** u8 count of ranges, u8 length of the bin's name, name, u8 particle type, u32 length and begin, u32 length and end. */
function encodeRange ({ bin, from, to }: IndexRange): Buffer {
  const begin = encodeParticle(from)
  const end = encodeParticle(to ?? from)
  if (begin.type !== end.type) throw new RangeError(`a range of ${bin} from one type to another`)
  if (to !== undefined && begin.type !== ParticleType.INTEGER) throw new RangeError(`a range of ${bin} that is not one of integers`)
  const name = Buffer.from(bin, 'utf8')
  return Buffer.concat([
    Buffer.of(1, name.length), name, Buffer.of(begin.type), unsigned(4, begin.bytes.length), begin.bytes, unsigned(4, end.bytes.length), end.bytes
  ])
}
