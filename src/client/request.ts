// Builds the request of each command (PROTOCOL 8). Pure: bytes from a key, values and a policy.

import { FieldId, Info1, Info2, Info3, Limit, OpCode, ParticleType, Ttl } from '../engine/constants.js'
import { DIGEST_BYTES, digestOf, encodeKey, type UserKey } from './digest.js'
import { encodeRequest, textField, type Field, type WireOp } from './message.js'
import { encodeMsgpack } from './msgpack.js'
import type { Operation } from './operation.js'
import { encodeParticle } from './particle.js'
import type { Bins, Value } from './value.js'

/** Names a record: by the user's key, or by its digest when only that is known. */
export type Key = { readonly namespace: string, readonly set?: string | undefined } & (
  | { readonly key: UserKey, readonly digest?: undefined }
  | { readonly key?: UserKey | undefined, readonly digest: Buffer }
)

export interface Policy {
  /** Bound on the whole call, repeats included. */
  readonly timeoutMs?: number | undefined
  /** Repeats after an error that may pass; a write whose fate is unknown is never repeated. */
  readonly retriesMax?: number | undefined
  /** A filter expression in msgpack; FILTERED_OUT when the record does not pass. */
  readonly filter?: Uint8Array | undefined
}

export interface WritePolicy extends Policy {
  /** What may be there before. `update` (default) keeps the other bins; `replace` drops them. */
  readonly exists?: 'update' | 'update-only' | 'create-only' | 'replace' | 'replace-only' | undefined
  /** Write only over this generation; with `generationGreater` only over an older one. */
  readonly generation?: number | undefined
  readonly generationGreater?: boolean | undefined
  /** Seconds to live; without it the namespace's default. */
  readonly ttl?: number | 'never' | 'unchanged' | undefined
  /** Store the user's key with the record. */
  readonly sendKey?: boolean | undefined
  /** A delete leaves a tombstone, so that it survives restarts. */
  readonly durableDelete?: boolean | undefined
  /** Answer when the master has it, without the other copies. */
  readonly commitMaster?: boolean | undefined
}

/** A request ready to send, and how it may be repeated. */
export interface Command {
  readonly frame: Buffer
  readonly namespace: string
  readonly digest: Buffer
  readonly writes: boolean
}

export function digestOfKey (key: Key): Buffer {
  if (key.digest === undefined) return digestOf(key.set ?? '', key.key)
  if (key.digest.length !== DIGEST_BYTES) throw new RangeError(`a digest of ${key.digest.length} bytes, not ${DIGEST_BYTES}`)
  return key.digest
}

interface Parts {
  info1?: number
  info2?: number
  info3?: number
  extra?: readonly Field[]
  ops?: readonly WireOp[]
}

export function getRequest (key: Key, policy: Policy): Command {
  return build(key, policy, { info1: Info1.READ | Info1.GET_ALL })
}

export function selectRequest (key: Key, bins: readonly string[], policy: Policy): Command {
  const ops = bins.map((name): WireOp => ({ op: OpCode.READ, name, type: ParticleType.NULL, value: Buffer.alloc(0) }))
  return build(key, policy, { info1: Info1.READ, ops })
}

export function existsRequest (key: Key, policy: Policy): Command {
  return build(key, policy, { info1: Info1.READ | Info1.GET_NO_BINS })
}

export function putRequest (key: Key, bins: Bins, policy: WritePolicy): Command {
  const ops = Object.entries(bins).map(([name, value]): WireOp => {
    const { type, bytes } = encodeParticle(value)
    return { op: OpCode.WRITE, name, type, value: bytes }
  })
  if (ops.length === 0) throw new RangeError('a write needs at least one bin')
  return build(key, policy, { info2: Info2.WRITE, ops })
}

export function removeRequest (key: Key, policy: WritePolicy): Command {
  return build(key, policy, { info2: Info2.WRITE | Info2.DELETE })
}

export function touchRequest (key: Key, policy: WritePolicy): Command {
  return build(key, policy, { info2: Info2.WRITE, ops: [{ op: OpCode.TOUCH, name: '', type: ParticleType.NULL, value: Buffer.alloc(0) }] })
}

export function operateRequest (key: Key, ops: readonly Operation[], policy: WritePolicy): Command {
  if (ops.length === 0) throw new RangeError('operate needs at least one operation')
  const info1 = (ops.some((op) => op.reads) ? Info1.READ : 0) | (ops.some((op) => op.readsAll) ? Info1.GET_ALL : 0)
  const info2 = (ops.some((op) => op.writes) ? Info2.WRITE : 0) | (ops.some((op) => op.respondsAll) ? Info2.RESPOND_ALL_OPS : 0)
  return build(key, policy, { info1, info2, ops })
}

export function applyRequest (key: Key, module: string, name: string, args: readonly Value[], policy: WritePolicy): Command {
  const extra = [textField(FieldId.UDF_MODULE, module), textField(FieldId.UDF_FUNCTION, name), { id: FieldId.UDF_ARGS, data: encodeMsgpack(args) }]
  return build(key, policy, { info2: Info2.WRITE, extra })
}

function build (key: Key, policy: WritePolicy, parts: Parts): Command {
  const set = key.set ?? ''
  tooLong('namespace', key.namespace, Limit.NAMESPACE_BYTES_MAX)
  tooLong('set', set, Limit.SET_BYTES_MAX)
  const digest = digestOfKey(key)
  const fields: Field[] = [textField(FieldId.NAMESPACE, key.namespace), textField(FieldId.SET, set), { id: FieldId.DIGEST, data: digest }]
  if (policy.sendKey === true && key.key !== undefined) {
    const { type, bytes } = encodeKey(key.key)
    fields.push({ id: FieldId.KEY, data: Buffer.concat([Buffer.of(type), bytes]) })
  }
  fields.push(...parts.extra ?? [])
  if (policy.filter !== undefined) fields.push({ id: FieldId.FILTER, data: policy.filter })

  const info2 = (parts.info2 ?? 0) |
    (policy.generation === undefined ? 0 : policy.generationGreater === true ? Info2.GENERATION_GT : Info2.GENERATION) |
    (policy.durableDelete === true ? Info2.DURABLE_DELETE : 0) |
    (policy.exists === 'create-only' ? Info2.CREATE_ONLY : 0)
  const info3 = (policy.commitMaster === true ? Info3.COMMIT_MASTER : 0) | existsFlag(policy.exists)
  const frame = encodeRequest({
    info1: parts.info1 ?? 0, info2, info3, generation: policy.generation ?? 0, ttl: ttlOf(policy.ttl), timeoutMs: policy.timeoutMs ?? 0, fields, ops: parts.ops ?? []
  })
  return { frame, namespace: key.namespace, digest, writes: (info2 & Info2.WRITE) !== 0 }
}

function existsFlag (exists: WritePolicy['exists']): number {
  switch (exists) {
    case 'update-only': return Info3.UPDATE_ONLY
    case 'replace': return Info3.CREATE_OR_REPLACE
    case 'replace-only': return Info3.REPLACE_ONLY
    default: return 0
  }
}

function ttlOf (ttl: WritePolicy['ttl']): number {
  if (ttl === undefined) return Ttl.DEFAULT
  if (ttl === 'never') return Ttl.NEVER
  if (ttl === 'unchanged') return Ttl.DONT_UPDATE
  if (!Number.isInteger(ttl) || ttl < 0 || ttl > Ttl.TTL_SECONDS_MAX) throw new RangeError(`a time to live of ${ttl}; allowed: 0 to ${Ttl.TTL_SECONDS_MAX} seconds`)
  return ttl
}

function tooLong (what: string, name: string, bytesMax: number): void {
  if (Buffer.byteLength(name) > bytesMax) throw new RangeError(`${what} ${JSON.stringify(name)} is longer than ${bytesMax} bytes`)
}
