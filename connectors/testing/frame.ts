import { encodeRequest, textField } from '../../src/client/message.js'
import { FieldId, Info1, Info2, Info3, OpCode, Ttl } from '../../src/engine/constants.js'
import type { ChangeBin, WireValue } from '../change.js'

/** What a shipped frame says, for tests that build one. */
export interface FrameSource {
  readonly kind: 'write' | 'delete'
  readonly namespace: string
  readonly set: string
  readonly digest: Buffer
  readonly key?: WireValue
  readonly generation: number
  /** Milliseconds since 2010. */
  readonly lut: bigint
  readonly durable?: boolean
  readonly bins: readonly ChangeBin[]
}

/** The frame that the engine would ship. */
export function encodeFrame (source: FrameSource): Buffer {
  const lut = Buffer.alloc(8)
  lut.writeBigUInt64BE(source.lut)
  const isDelete = source.kind === 'delete'
  return encodeRequest({
    info1: Info1.XDR,
    info2: Info2.WRITE | (isDelete ? Info2.DELETE : 0) | (source.durable === true ? Info2.DURABLE_DELETE : 0),
    info3: isDelete ? 0 : Info3.CREATE_OR_REPLACE,
    generation: source.generation,
    ttl: Ttl.NEVER,
    fields: [
      textField(FieldId.NAMESPACE, source.namespace),
      ...(source.set === '' ? [] : [textField(FieldId.SET, source.set)]),
      { id: FieldId.DIGEST, data: source.digest },
      { id: FieldId.LUT, data: lut },
      ...(source.key === undefined ? [] : [{ id: FieldId.KEY, data: Buffer.concat([Buffer.of(source.key.type), source.key.value]) }])
    ],
    ops: source.bins.map(({ name, type, value }) => ({ op: OpCode.WRITE, name, type, value }))
  })
}

export function integer (value: bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigInt64BE(value)
  return bytes
}
