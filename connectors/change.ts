import { DIGEST_BYTES } from '../src/client/digest.js'
import { decodeMessage, FrameError, unixMsOfLut, unixSecondsOfVoidTime } from '../src/client/message.js'
import { FieldId, Info2 } from '../src/engine/constants.js'

/** A value in wire form: particle type and its bytes. Formats need the type as well, so values are decoded there. */
export interface WireValue {
  readonly type: number
  readonly value: Buffer
}

export interface ChangeBin extends WireValue {
  readonly name: string
}

/** One change of a record, as connectors see it. */
export interface Change {
  readonly kind: 'write' | 'delete'
  readonly namespace: string
  /** Empty for a record without a set. */
  readonly set: string
  readonly digest: Buffer
  /** The user's key, when it is stored with the record. */
  readonly key: WireValue | undefined
  readonly generation: number
  /** Unix time, milliseconds. */
  readonly lastUpdateMs: number
  /** Unix time, seconds; 0 never. */
  readonly expirySeconds: number
  readonly durable: boolean
  /** Empty for a delete. */
  readonly bins: readonly ChangeBin[]
}

/**
 * Reads a shipped frame. The buffers of the result are views of `frame`: valid as long as it is.
 * @param voidTimeSeconds seconds since 2010, 0 never: the frame itself only knows the time that remains
 * @throws FrameError
 */
export function decodeChange (frame: Buffer, voidTimeSeconds: number): Change {
  const { info2, generation, fields, ops } = decodeMessage(frame)
  const namespace = fields.get(FieldId.NAMESPACE)
  const digest = fields.get(FieldId.DIGEST)
  const lut = fields.get(FieldId.LUT)
  const key = fields.get(FieldId.KEY)
  if (namespace === undefined || digest?.length !== DIGEST_BYTES || lut?.length !== 8) throw new FrameError('no namespace, digest or last-update time')
  return {
    kind: (info2 & Info2.DELETE) !== 0 ? 'delete' : 'write',
    namespace: namespace.toString('utf8'),
    set: fields.get(FieldId.SET)?.toString('utf8') ?? '',
    digest,
    key: key === undefined || key.length === 0 ? undefined : { type: key[0]!, value: key.subarray(1) },
    generation,
    lastUpdateMs: unixMsOfLut(Number(lut.readBigUInt64BE())),
    expirySeconds: unixSecondsOfVoidTime(voidTimeSeconds),
    durable: (info2 & Info2.DURABLE_DELETE) !== 0,
    bins: ops
  }
}

/** Names a change in a log line. */
export function describeChange (change: Change): Record<string, string> {
  return { namespace: change.namespace, set: change.set, digest: change.digest.toString('hex') }
}
